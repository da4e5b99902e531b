# SPDX-License-Identifier: MIT
"""What of this machine will not work, or not as expected, under Xen (PV and PVH dom0) and under hv_core."""

from __future__ import annotations

from collections.abc import Iterator

from dom0kit.check.rules import Told, View, capability, check, shown
from dom0kit.finding import Severity
from dom0kit.iommu.facts import IommuKind
from dom0kit.msi.state import InterruptMode
from dom0kit.pci import quirks
from dom0kit.pci.capabilities.sriov import SingleRootIov
from dom0kit.processors import ProcessorState

_CORE_CPUS, _CORE_IOAPICS, _CORE_GSIS, _CORE_FUNCTIONS, _CORE_MESSAGES = 4096, 128, 16384, 4096, 16384
"""hv_core/include/hv_core/limits.h."""


@check(
    "xen.segment",
    Severity.WARNING,
    title="Xen: functions of segments that it cannot name",
    meaning="Segments above FFFFh are made up by Linux for what a Volume Management Device hides. Xen's calls have 16 "
    "bits for a segment: dom0 cannot tell Xen of these functions, so they cannot be assigned alone, and their MSI go "
    "through the VMD device.",
    advice="Turn VMD off in the firmware's set-up, if the functions behind it are to be assigned.",
    specification="Xen public/physdev.h (physdev_pci_device_add); Linux drivers/pci/controller/vmd.c",
)
def segment(view: View) -> Iterator[Told]:
    wide = [sbdf for sbdf in sorted(view.functions) if sbdf.segment > 0xFFFF]
    if wide:
        yield f"pci-segment:{wide[0].segment:04x}", f"functions {shown(wide)}"


@check(
    "xen.alias",
    Severity.WARNING,
    title="Xen: a function whose requests carry an id that Xen does not expect",
    meaning="This device is known to send requests under the number of another function. Linux knows it by a quirk; "
    "Xen does not have most of these, and its IOMMU faults the requests when the function is assigned, or in dom0 "
    "with iommu=dom0-strict.",
    advice="Give Xen pci-phantom=<bus>:<device>,<stride> for the device.",
    specification="Linux drivers/pci/quirks.c (quirk_dma_func0_alias and others); Xen "
    "docs/misc/xen-command-line.pandoc, pci-phantom",
)
def alias(view: View) -> Iterator[Told]:
    for function in view.read:
        for quirk in quirks.aliases().of(function):
            subsystem = f"{function.subsystem_vendor or 0:04x}:{function.subsystem or 0:04x}"
            absent = [
                devfn
                for devfn in sorted(quirk.devfns(function.sbdf.devfn))
                if not any(of.bus == function.sbdf.bus and of.devfn == devfn for of in view.functions)
            ]
            if absent and (not quirk.subsystems or subsystem in quirk.subsystems):
                ids = shown(f"{devfn >> 3:02x}.{devfn & 7}" for devfn in absent)
                yield function.where, f"{quirk.about}: also as {ids}"
                break


@check(
    "xen.pvh-no-iommu",
    Severity.INFO,
    title="Xen: a PVH dom0 cannot start here",
    meaning="A PVH dom0 runs on an IOMMU's page tables, and no table describes one: Xen starts only a PV dom0, and no "
    "function can be assigned to an HVM guest.",
    advice="Turn on the IOMMU in the firmware's set-up, or use a PV dom0.",
    specification="Xen drivers/passthrough/iommu.c (iommu_hwdom_init), docs/misc/xen-command-line.pandoc, dom0=",
)
def pvh_no_iommu(view: View) -> Iterator[Told]:
    iommu = view.platform.iommu
    if view.fadt is not None and view.functions and iommu is not None and iommu.kind is None:
        yield "machine", "neither DMAR nor IVRS"


@check(
    "xen.pvh-sriov",
    Severity.INFO,
    title="Xen: virtual functions under a PVH dom0",
    meaning="A PVH dom0 reaches config space through Xen's vPCI, for which SR-IOV is not supported: virtual functions "
    "cannot be turned on there.",
    advice="Use a PV dom0.",
    specification="Xen SUPPORT.md, x86/PVH dom0",
)
def pvh_sriov(view: View) -> Iterator[Told]:
    able = [of.sbdf for of in view.read if (sriov := capability(of, SingleRootIov)) is not None and sriov.total_vfs]
    if able:
        yield "machine", f"functions {shown(able)}"


@check(
    "xen.pvh-intx",
    Severity.INFO,
    title="Xen: functions without MSI under a PVH dom0",
    meaning="These functions interrupt by INTx only. Before Xen 4.20 a PVH dom0 has no call to set up a GSI "
    "(setup_gsi) for a guest, so they cannot be assigned to one.",
    advice="Use a PV dom0, or Xen 4.20.",
    specification="Xen arch/x86/hvm/hypercall.c (hvm_physdev_op), compared over 4.17 to 4.22",
)
def pvh_intx(view: View) -> Iterator[Told]:
    routed = {route.sbdf for route in view.platform.routes if route.gsi is not None}
    pins = [
        state.sbdf
        for state in view.platform.msi
        if state.msi is None and state.msix is None and state.mode is InterruptMode.INTX and state.sbdf in routed
    ]
    ends = [sbdf for sbdf in pins if sbdf in view.functions and view.functions[sbdf].header_type == 0]
    if ends:
        yield "machine", f"functions {shown(ends)}"


@check(
    "xen.ioapic-ids",
    Severity.WARNING,
    title="Xen: IOAPICs that calls cannot tell apart",
    meaning="Two IOAPICs have one id. PHYSDEVOP_apic_read and apic_write name an IOAPIC by its address, but interrupt "
    "remapping and the GSI list name it by its id: Xen programs the entry of the wrong one.",
    advice="Update the firmware.",
    specification="Xen arch/x86/io_apic.c, drivers/passthrough/vtd/intremap.c (apicid_to_drhd)",
)
def ioapic_ids(view: View) -> Iterator[Told]:
    first: dict[int, int] = {}
    for ioapic in view.platform.ioapics:
        if ioapic.id in first and view.platform.iommu is not None and view.platform.iommu.interrupt_remapping:
            yield f"ioapic:{ioapic.id}", f"at {first[ioapic.id]:#x} and {ioapic.address:#x}"
        first.setdefault(ioapic.id, ioapic.address)


@check(
    "xen.many-cpus",
    Severity.WARNING,
    title="Xen: more processors than it is built for",
    meaning="Debian's and most other builds of Xen have NR_CPUS 512 or 256; processors beyond stay off.",
    advice="Build Xen with CONFIG_NR_CPUS of at least this.",
    specification="Xen arch/Kconfig (NR_CPUS)",
)
def many_cpus(view: View) -> Iterator[Told]:
    facts = view.platform.processors
    if facts is not None and facts.enabled > 512:
        yield "table:APIC", f"{facts.enabled} enabled processors"


@check(
    "hvcore.processors",
    Severity.INFO,
    title="hv_core: it does not start on this machine's processors",
    meaning="The bootable hv_core uses AMD's SVM. By its DMAR this is a machine with an Intel processor: it can be "
    "simulated (hv simulate) and used through the module, not booted as a type-1 hypervisor.",
    advice="Nothing.",
    specification="hv_core/x86; AMD64 Architecture Programmer's Manual volume 2, chapter 15",
)
def core_processors(view: View) -> Iterator[Told]:
    if view.platform.iommu is not None and view.platform.iommu.kind is IommuKind.VT_D:
        yield "machine", "the IOMMU is Intel's"


@check(
    "hvcore.limits",
    Severity.WARNING,
    title="hv_core: the machine is larger than its tables",
    meaning="There are more processors, IOAPICs, GSIs, functions or messages than hv_core is compiled for: it refuses "
    "those beyond.",
    advice="Build it with larger HV_LIMIT_ values.",
    specification="hv_core/include/hv_core/limits.h",
)
def core_limits(view: View) -> Iterator[Told]:
    platform = view.platform
    processors = (
        sum(of.state is ProcessorState.ENABLED for of in platform.processors.processors)
        if platform.processors is not None
        else 0
    )
    messages = sum(of.msix.vectors if of.msix else of.msi.vectors_capable if of.msi else 0 for of in platform.msi)
    for what, number, most in (
        ("processors", processors, _CORE_CPUS),
        ("IOAPICs", len(platform.ioapics), _CORE_IOAPICS),
        ("GSIs", max((of.gsi_last + 1 for of in platform.ioapics), default=0), _CORE_GSIS),
        ("functions", len(platform.functions), _CORE_FUNCTIONS),
        ("MSI and MSI-X messages", messages, _CORE_MESSAGES),
    ):
        if number > most:
            yield "machine", f"{number} {what}, room for {most}"
