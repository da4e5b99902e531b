# SPDX-License-Identifier: MIT
"""A kernel that runs under Xen: in which kind of domain, and what Xen of that version does for it.

Sources: Xen, arch/x86/physdev.c and arch/x86/hvm/hypercall.c (hvm_physdev_op: which operations a PVH domain has),
compared over the branches 4.17 to 4.22; public/features.h and public/version.h.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Set
from typing import Final

import msgspec

from dom0kit.abi import Physdev
from dom0kit.finding import Finding, Severity, rule
from dom0kit.source.interface import Source

FEATURE_AUTO_TRANSLATED: Final = 2
"""XENFEAT_auto_translated_physmap: the domain is PVH or HVM."""
FEATURE_DOM0: Final = 11
"""XENFEAT_dom0."""

REBUILT: Final = rule(
    "xen.tables-rebuilt",
    Severity.WARNING,
    title="these are tables that Xen built for a PVH dom0",
    meaning="Xen gives a PVH dom0 a MADT of its own, with the IOAPICs and overrides of the machine but the APIC ids of "
    "dom0's virtual processors, and withholds the tables of what it keeps: DMAR, IVRS, SRAT, SLIT, HPET, HEST and "
    "others. Processors, NUMA nodes, IOMMUs and isolation groups are therefore not this machine's.",
    advice="Record the machine once without Xen (dom0kit record), and give the recording with --native.",
    specification="Xen, arch/x86/hvm/dom0_build.c, pvh_setup_acpi_madt and pvh_acpi_table_allowed",
)
RENAMED: Final = rule(
    "xen.dmar-renamed",
    Severity.INFO,
    title="Xen has renamed the DMAR",
    meaning="Xen drives the IOMMU itself and writes RMAD over the table's signature, so that dom0's kernel does not. "
    "The checksum stays right, and the table is decoded as the DMAR that it is.",
    advice="Nothing.",
    specification="Xen, drivers/passthrough/vtd/dmar.c, acpi_dmar_zap",
)
VIRTUAL: Final = rule(
    "xen.virtual-processors",
    Severity.INFO,
    title="the kernel's processors are virtual ones",
    meaning="A PV dom0 has as many virtual processors as Xen gives it, and they run on any of the machine's. Its "
    "numbers of processors, and the one NUMA node that it sees, are no processors and nodes of the tables.",
    advice="Give a recording made without Xen with --native, or ask Xen (xl info -n, xl vcpu-list).",
    specification="Linux, arch/x86/xen/smp_pv.c and arch/x86/xen/setup.c (numa_off); Xen, dom0_max_vcpus=",
)
GUEST: Final = rule(
    "xen.guest",
    Severity.INFO,
    title="a guest of Xen, not dom0",
    meaning="The kernel runs in a domain without the right to see the machine: what is shown is what Xen and its "
    "toolstack made up for it.",
    advice="Run the command in dom0.",
    specification="Xen, public/features.h, XENFEAT_dom0",
)


class DomainKind(enum.Enum):
    """How a domain's kernel runs, by the names of /sys/hypervisor/guest_type."""

    PV = "PV"
    PVH = "PVH"
    HVM = "HVM"


class XenVersion(msgspec.Struct, frozen=True, order=True):
    """Major and minor number; what a domain may call changes with no other."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


_PVH_MORE: Final = XenVersion(4, 20)
"""setup_gsi and pci_device_reset came for PVH, and map_pirq for guests of a PVH dom0; pci_device_reset for PV, too."""


class Availability(msgspec.Struct, frozen=True):
    """Whether Xen does something for this domain."""

    available: bool
    reason: str = ""
    """Where it does not: why, and from which version on it does. One clause."""


class XenDomain(msgspec.Struct, frozen=True):
    """The domain that the kernel runs in."""

    kind: DomainKind
    version: XenVersion | None
    """None where the source does not say."""
    is_dom0: bool

    @property
    def has_virtual_processors(self) -> bool:
        """Whether the kernel's processors are others than those of the tables that it sees."""
        return self.kind is DomainKind.PV

    def availability(self, operation: Physdev) -> Availability:
        """Whether Xen does a physdev operation for this domain; where the version is not known, as the newest would."""
        if not self.is_dom0:
            return Availability(False, "only dom0 may")
        before = self.version is not None and self.version < _PVH_MORE
        if operation is Physdev.PCI_DEVICE_RESET:
            return self._since(before)
        if self.kind is DomainKind.PV or operation in _PVH_ALWAYS:
            return Availability(True)
        if operation is Physdev.SETUP_GSI:
            return self._since(before)
        if operation in (Physdev.MAP_PIRQ, Physdev.UNMAP_PIRQ):
            from_then = f"from Xen {_PVH_MORE} on for a guest's interrupts only"
            return Availability(not before, f"a PVH dom0 has no pIRQs; {from_then}" if before else "")
        return Availability(False, "no version of Xen has it for a PVH dom0, which programs a virtual IOAPIC instead")

    def _since(self, before: bool) -> Availability:
        return Availability(not before, f"Xen has it from {_PVH_MORE} on, this is {self.version}" if before else "")


_PVH_ALWAYS: Final = frozenset((Physdev.PCI_MMCFG_RESERVED, Physdev.PCI_DEVICE_ADD, Physdev.PCI_DEVICE_REMOVE))


def from_answers(version: int, features: int) -> XenDomain:
    """From what xen_version answers: the version (major in bits 31:16), and features 31:0. A PVH and an HVM domain
    look alike to it; dom0 is never HVM."""
    kind = DomainKind.PVH if features >> FEATURE_AUTO_TRANSLATED & 1 else DomainKind.PV
    is_dom0 = bool(features >> FEATURE_DOM0 & 1)
    return XenDomain(kind, XenVersion(version >> 16 & 0xFFFF, version & 0xFFFF), is_dom0)


def observe(source: Source) -> XenDomain | None:
    """From /sys/hypervisor; None where the kernel does not run under Xen, or the source does not have these files."""
    if _line(source, "type") != "xen":
        return None
    features = _line(source, "properties/features")
    if not re.fullmatch(r"[0-9a-f]{1,64}", features):
        return None
    bits = int(features, 16)
    numbers = [_line(source, f"version/{name}") for name in ("major", "minor")]
    known = all(re.fullmatch(r"\d{1,4}", number, re.ASCII) for number in numbers)
    try:
        kind = DomainKind(_line(source, "guest_type"))
    except ValueError:  # a kernel before 5.4 has no such file
        kind = DomainKind.PVH if bits >> FEATURE_AUTO_TRANSLATED & 1 else DomainKind.PV
    return XenDomain(kind, XenVersion(*map(int, numbers)) if known else None, bool(bits >> FEATURE_DOM0 & 1))


def findings(
    domain: XenDomain, signatures: Set[str], *, processors: str | None = None, completed: bool = False
) -> tuple[Finding, ...]:
    """What Xen does to the picture of the machine, given the signatures that are seen.

    `processors`: those of the kernel, as a list like ``0-3``; None where nobody looked. `completed`: a recording made
    without Xen has given what Xen withholds (`dom0kit.native`).
    """
    if not domain.is_dom0:
        return (GUEST.at("machine", f"Xen's {domain.kind.value} domain has not the feature bit of dom0"),)
    if domain.kind is not DomainKind.PV and not completed:
        return (REBUILT.at("table:APIC", f"the kernel runs as {domain.kind.value} dom0 of Xen {domain.version or ''}"),)
    found = []
    if "RMAD" in signatures:
        found.append(RENAMED.at("table:RMAD", "the signature is RMAD, and the kernel runs as PV dom0 of Xen"))
    if processors is not None and domain.has_virtual_processors and not completed:
        found.append(VIRTUAL.at("machine", f"the PV dom0 has processors {processors}"))
    return tuple(found)


def _line(source: Source, name: str) -> str:
    return (source.file(f"sys/hypervisor/{name}") or b"").decode("ascii", "replace").strip()
