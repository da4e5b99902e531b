# SPDX-License-Identifier: MIT
"""IOMMUs: what the tables leave out, and what that means for handing functions to other domains."""

from __future__ import annotations

from collections.abc import Iterator

from dom0kit.acpi.tables.hpet import Hpet
from dom0kit.address import Sbdf
from dom0kit.check.rules import Told, View, capability, check, shown
from dom0kit.finding import Severity
from dom0kit.iommu.facts import IommuFacts, IommuKind, RegionSource, SourceOfInterrupts, X2apic
from dom0kit.pci.capabilities.ats import AddressTranslationServices


def _facts(view: View) -> IommuFacts:
    return view.platform.iommu or IommuFacts()


@check(
    "iommu.none",
    Severity.INFO,
    title="no IOMMU described",
    meaning="There are tables and PCI functions, and neither a DMAR nor an IVRS: a function given to a domain can "
    "write to all memory. The IOMMU may be turned off in the firmware's set-up.",
    advice="Turn on VT-d or AMD-Vi in the firmware's set-up, where there is one.",
    specification="Intel VT-d 4.1, section 8.1; AMD IOMMU 3.09, section 5.2.1",
)
def none(view: View) -> Iterator[Told]:
    if view.fadt is not None and view.functions and view.platform.iommu is not None and _facts(view).kind is None:
        yield "machine", f"{len(view.functions)} functions, no DMAR, no IVRS"


@check(
    "iommu.no-interrupt-remapping",
    Severity.INFO,
    title="an IOMMU without interrupt remapping",
    meaning="The DMAR says that the platform does not remap interrupts. A function given to a domain can then send any "
    "vector to any processor by a plain memory write: Linux assigns it only with allow_unsafe_interrupts.",
    advice="Assign functions only to domains that are trusted.",
    specification="Intel VT-d 4.1, section 8.1, INTR_REMAP; Linux drivers/vfio/vfio_iommu_type1.c",
)
def no_remapping(view: View) -> Iterator[Told]:
    facts = _facts(view)
    if facts.kind is IommuKind.VT_D and facts.units and not facts.interrupt_remapping:
        yield "table:DMAR", "INTR_REMAP is clear"


@check(
    "iommu.x2apic-opt-out",
    Severity.INFO,
    title="firmware asks not to use x2APIC",
    meaning="The DMAR has the flag X2APIC_OPT_OUT. Linux then leaves interrupt remapping in xAPIC mode, which it does "
    "not use at all without a good reason.",
    advice="intremap=no_x2apic_optout, where the machine is known to be good.",
    specification="Intel VT-d 4.1, section 8.1; Linux drivers/iommu/intel/irq_remapping.c (dmar_x2apic_optout)",
)
def opt_out(view: View) -> Iterator[Told]:
    if _facts(view).x2apic is X2apic.OPTED_OUT:
        yield "table:DMAR", "X2APIC_OPT_OUT is set"


@check(
    "iommu.hpet-unnamed",
    Severity.INFO,
    title="an HPET that no IOMMU names",
    meaning="Interrupts are remapped, and no unit says which id the messages of this HPET carry: it cannot interrupt "
    "by messages of its own while remapping is on. Xen then leaves it out as a wake-up timer.",
    advice="Nothing.",
    specification="Intel VT-d 4.1, section 8.3.1.1; AMD IOMMU 3.09, section 5.2.2.6",
)
def hpet_unnamed(view: View) -> Iterator[Told]:
    facts = _facts(view)
    named = {of.id for of in facts.interrupt_sources if of.kind is SourceOfInterrupts.HPET}
    for where, hpet in view.tables(Hpet):
        if facts.kind is not None and facts.interrupt_remapping and hpet.hpet_number not in named:
            yield where, f"number {hpet.hpet_number}; the units name {shown(sorted(named)) or 'none'}"


@check(
    "iommu.unit-idle",
    Severity.INFO,
    title="an IOMMU that serves nothing",
    meaning="None of the functions that are there is in the scopes of this unit, and it is not the one for all others.",
    advice="Nothing, unless a function is missing.",
    specification="Intel VT-d 4.1, section 8.3",
)
def unit_idle(view: View) -> Iterator[Told]:
    for unit in _facts(view).units if view.functions else ():
        if not unit.functions and not unit.include_all and unit.scopes:
            yield (
                f"iommu:{unit.index}",
                f"registers at {unit.register_base:#x}, scopes {shown(of.path for of in unit.scopes)}",
            )


@check(
    "iommu.no-catch-all",
    Severity.INFO,
    title="no IOMMU for functions that come later",
    meaning="No unit of this segment serves what is not named: a function that is plugged in, or a virtual function on "
    "another bus, is served only if a named bridge is above it.",
    advice="Nothing without hot-plug.",
    specification="Intel VT-d 4.1, section 8.3, INCLUDE_PCI_ALL",
)
def no_catch_all(view: View) -> Iterator[Told]:
    facts = _facts(view)
    if facts.kind is not IommuKind.VT_D:
        return
    for segment in sorted({unit.segment for unit in facts.units}):
        units = [unit for unit in facts.units if unit.segment == segment]
        if not any(unit.include_all for unit in units):
            yield f"pci-segment:{segment:04x}", f"units: {len(units)}, none with INCLUDE_PCI_ALL"


@check(
    "iommu.region-keeps-function",
    Severity.INFO,
    title="functions that reserved memory ties to firmware",
    meaning="Firmware or a management controller shares memory with these functions (RMRR, IVMD). Linux refuses to "
    "assign them, except USB and graphics; Xen asks for rdm policies.",
    advice="Leave the function in dom0, or turn off what the memory is for in the firmware's set-up.",
    specification="Intel VT-d 4.1, section 8.4; Linux drivers/iommu/intel/iommu.c (device_rmrr_is_relaxable)",
)
def region_keeps(view: View) -> Iterator[Told]:
    kept: dict[Sbdf, list[str]] = {}
    for region in _facts(view).reserved:
        for sbdf in region.functions if not region.all_functions else ():
            function = view.functions.get(sbdf)
            relaxed = region.source is RegionSource.RMRR and function is not None and _relaxable(function.class_code)
            if function is not None and function.header_type == 0 and not relaxed:
                kept.setdefault(sbdf, []).append(f"{region.source.value} {region.base:#x} to {region.limit:#x}")
    for sbdf, regions in sorted(kept.items()):
        yield f"pci:{sbdf}", shown(regions, 3)


def _relaxable(class_code: int) -> bool:
    return class_code >> 8 == 0x0C03 or class_code >> 16 == 0x03


@check(
    "iommu.old-blocks-only",
    Severity.INFO,
    title="an IVRS that only the first systems knew",
    meaning="All units are described by blocks of type 10h, without the extended feature register: what the unit can "
    "do (guest translation, x2APIC, virtual APIC) is known only after it is mapped, and no devices of the namespace "
    "can be described.",
    advice="Nothing.",
    specification="AMD IOMMU 3.09, section 5.2.2.1",
)
def old_blocks(view: View) -> Iterator[Told]:
    facts = _facts(view)
    if facts.kind is IommuKind.AMD_VI and facts.units and all(unit.block_type == 0x10 for unit in facts.units):
        yield "table:IVRS", f"units: {len(facts.units)}"


@check(
    "iommu.dma-opt-in",
    Severity.INFO,
    title="firmware asks for DMA protection from boot on",
    meaning="The DMAR has the flag DMA_CTRL_PLATFORM_OPT_IN: external ports are guarded before the operating system "
    "starts, and Linux turns the IOMMU on for untrusted devices even where it is off by default.",
    advice="Nothing; a hypervisor core takes the unit over as it is, translating.",
    specification="Intel VT-d 4.1, section 8.1",
)
def dma_opt_in(view: View) -> Iterator[Told]:
    if _facts(view).dma_opt_in:
        yield "table:DMAR", "DMA_CTRL_PLATFORM_OPT_IN is set"


@check(
    "iommu.unit-domain-missing",
    Severity.INFO,
    title="an IOMMU without a place on a NUMA machine",
    meaning="There are several proximity domains, and no RHSA says where this unit is: its page tables are put "
    "anywhere.",
    advice="Nothing.",
    specification="Intel VT-d 4.1, section 8.6",
)
def unit_domain(view: View) -> Iterator[Told]:
    facts, memory = _facts(view), view.platform.memory
    domains = {of.proximity_domain for of in memory.ranges if not of.hot_pluggable} if memory is not None else set()
    for unit in facts.units if facts.kind is IommuKind.VT_D and len(domains) > 1 else ():
        if unit.proximity_domain is None:
            yield f"iommu:{unit.index}", f"{len(domains)} proximity domains"


@check(
    "iommu.ats-unserved",
    Severity.WARNING,
    title="address translation services turned on without an IOMMU",
    meaning="The function's ATS is enabled and no unit serves it: requests that it marks as translated go to memory "
    "unchecked.",
    advice="Turn off ATS of this function (setpci), before it is given away.",
    specification="PCI Express Base 6.0, section 10.5.1.3",
)
def ats_unserved(view: View) -> Iterator[Told]:
    facts = view.platform.iommu
    for function in view.read if view.fadt is not None and facts is not None else ():
        services = capability(function, AddressTranslationServices)
        if services is not None and services.enabled and facts is not None and facts.unit_of(function.sbdf) is None:
            yield function.where, "ATS is enabled"
