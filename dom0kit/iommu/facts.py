# SPDX-License-Identifier: MIT
"""The IOMMUs of a machine as values: units, what each serves, reserved memory, interrupt sources.

Source: Intel VT-d 4.1 chapter 8 (DMAR), AMD I/O Virtualization Technology Specification 3.09 section 5.2 (IVRS).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from functools import cached_property

import msgspec

from dom0kit.address import Sbdf


class IommuKind(enum.Enum):
    """Whose IOMMU it is."""

    VT_D = "vt-d"
    AMD_VI = "amd-vi"


class ScopeTarget(enum.Enum):
    """What a device scope means."""

    FUNCTION = "function"
    BRIDGE = "bridge"
    """With all that is behind it."""


class Scope(msgspec.Struct, frozen=True):
    """One device scope of VT-d that names PCI."""

    target: ScopeTarget
    path: str
    """As in the table: start bus and steps, ``00:1c.0/02.0``."""
    function: Sbdf | None
    """Where the path leads; None where a step on the way is no bridge that was seen."""
    present: bool | None
    """Whether the function is there; None where the PCI functions were not recorded."""


class IdRange(msgspec.Struct, frozen=True, order=True):
    """Requester ids of one segment that an AMD unit serves, present or not."""

    first: int
    last: int
    """Inclusive; 16 bits."""


class Alias(msgspec.Struct, frozen=True, order=True):
    """By word of firmware, requests of one function carry another's id."""

    function: Sbdf
    carries: Sbdf


class IommuUnit(msgspec.Struct, frozen=True, kw_only=True):
    """One remapping unit."""

    index: int
    """Position among the units of its table, from 0: VT-d as listed, AMD by first mention."""
    kind: IommuKind
    segment: int
    register_base: int
    register_bytes: int | None
    """Size of the register set; None where the table does not say (AMD: 16 KiB or 512 KiB, by its EFR)."""
    include_all: bool
    """Serves what no other unit of its segment names. AMD: an entry for all devices."""
    functions: tuple[Sbdf, ...]
    """Those present that it serves, ascending. An AMD unit's own function is served by none."""
    scopes: tuple[Scope, ...] = ()
    """VT-d: those that name PCI."""
    function: Sbdf | None = None
    """AMD: the PCI function that the unit is."""
    block_type: int | None = None
    """AMD: type of the IVHD block used, the highest there is for this unit: 0x10, 0x11 or 0x40."""
    ranges: tuple[IdRange, ...] = ()
    """AMD: what it serves, merged, ascending."""
    aliases: tuple[Alias, ...] = ()
    """AMD: of functions present, ascending."""
    proximity_domain: int | None = None
    """VT-d: from the RHSA."""
    x2apic: bool | None = None
    """AMD: interrupts can be sent to x2APIC ids (XTSup). VT-d says so in a register only (ECAP.EIM): None."""


class RegionSource(enum.Enum):
    """Which structure reserves the memory."""

    RMRR = "RMRR"
    IVMD = "IVMD"


class ReservedRegion(msgspec.Struct, frozen=True, kw_only=True):
    """Memory that functions reach by themselves and that must stay mapped for them, or must not be (exclusion)."""

    source: RegionSource
    segment: int
    base: int
    limit: int
    """Last byte, inclusive; below `base` in a broken table."""
    all_functions: bool = False
    """IVMD for all functions."""
    functions: tuple[Sbdf, ...]
    """Those present that it is for, ascending: named, or behind a named bridge."""
    scopes: tuple[Scope, ...] = ()
    read: bool = True
    write: bool = True
    exclusion: bool = False
    """IVMD: a range that is passed untranslated."""
    groups: tuple[int, ...] = ()
    """Numbers of the isolation groups that these functions are in, ascending."""


class SourceOfInterrupts(enum.Enum):
    """What sends interrupt messages without being a PCI function that drivers see."""

    IOAPIC = "ioapic"
    HPET = "hpet"


class InterruptSource(msgspec.Struct, frozen=True):
    """An IOAPIC or HPET, and the id that its messages carry: what interrupt remapping checks them by."""

    kind: SourceOfInterrupts
    id: int
    """IOAPIC id of the MADT, or HPET number."""
    requester: Sbdf | None
    """None where the path to it leads nowhere. Need not be a function that answers."""
    unit: int
    """Index of the unit that remaps them."""


class NamespaceDevice(msgspec.Struct, frozen=True):
    """A device of the ACPI namespace that does DMA, and the id its requests carry."""

    name: str
    """VT-d: ACPI path of the ANDD. AMD: HID and UID."""
    requester: Sbdf | None
    unit: int


class AtsPorts(msgspec.Struct, frozen=True):
    """VT-d: root ports below which functions may use address translation services."""

    segment: int
    all_ports: bool
    functions: tuple[Sbdf, ...]
    """The ports, where not all; ascending."""


class X2apic(enum.Enum):
    """Whether interrupt remapping can send to x2APIC ids, as far as tables tell."""

    YES = "yes"
    NO = "no"
    OPTED_OUT = "firmware asks not to"
    UNKNOWN = "only a register tells"


class IommuFacts(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """Everything the tables say of the machine's IOMMUs. Without DMAR and IVRS: `kind` None, and nothing."""

    kind: IommuKind | None = None
    address_bits: int | None = None
    """Of DMA: host address width of the DMAR, physical address size of the IVRS."""
    units: tuple[IommuUnit, ...] = ()
    reserved: tuple[ReservedRegion, ...] = ()
    interrupt_sources: tuple[InterruptSource, ...] = ()
    """Ascending by kind and id, as many as the tables name."""
    namespace_devices: tuple[NamespaceDevice, ...] = ()
    ats_ports: tuple[AtsPorts, ...] = ()
    atc_required: tuple[Sbdf, ...] = ()
    """VT-d: integrated functions that work only with their address translation cache on (SATC); ascending."""
    uncovered: tuple[Sbdf, ...] = ()
    """Functions that no unit serves, ascending; bridges and the units themselves among them."""
    interrupt_remapping: bool = False
    """The platform supports it: the DMAR's flag; always with AMD. Not whether it is in use."""
    x2apic: X2apic = X2apic.UNKNOWN
    dma_opt_in: bool = False
    """Firmware asks the OS to keep DMA protection on from boot."""

    def unit_of(self, sbdf: Sbdf) -> IommuUnit | None:
        """The unit that serves a function; None where there is none."""
        return self._serving.get(sbdf)

    @cached_property
    def _serving(self) -> Mapping[Sbdf, IommuUnit]:
        return {sbdf: unit for unit in self.units for sbdf in unit.functions}

    def ioapic_source(self, ioapic: int) -> InterruptSource | None:
        """The source of an IOAPIC's messages; None where no table names one."""
        for source in self.interrupt_sources:
            if source.kind is SourceOfInterrupts.IOAPIC and source.id == ioapic:
                return source
        return None
