# SPDX-License-Identifier: MIT
"""DMAR: Intel's DMA remapping units and what they serve (Intel VT-d 4.1, chapter 8)."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Annotated, ClassVar, Final

from dom0kit.acpi.tables.table import Header
from dom0kit.finding import Severity, rule
from dom0kit.layout import (
    U8,
    U16,
    U32,
    U64,
    Bit,
    BitField,
    Int8,
    OpenRecord,
    Record,
    Rest,
    Unknown,
    bits,
    entries,
    enumerated,
    raw,
    repeated,
    terminated_text,
)
from dom0kit.serial import Hex
from dom0kit.walker import Notes

SCOPE: Final = rule(
    "acpi.dmar-scope",
    Severity.ERROR,
    title="a device scope that names no device",
    meaning="A device scope is shorter than its fields, has no path, half a step of one, or a step that is no device "
    "and function. Which device the remapping unit or the memory region belongs to is unknown.",
    advice="Update the firmware; until then treat the devices of that segment as one group.",
    specification="Intel VT-d 4.1, section 8.3.1: length is 6 and two bytes for each step of the path, at least one",
)
INCLUDE_ALL: Final = rule(
    "acpi.dmar-include-all",
    Severity.WARNING,
    title="the unit for all other devices is not the last",
    meaning="A remapping unit with INCLUDE_PCI_ALL is followed by another unit of its segment. A reader that searches "
    "in order gives that one's devices to the wrong unit.",
    advice="Update the firmware.",
    specification="Intel VT-d 4.1, section 8.3: such a unit must be the last of its segment, and the only one of its "
    "kind",
)
REGISTERS: Final = rule(
    "acpi.dmar-register-base",
    Severity.ERROR,
    title="a remapping unit without registers",
    meaning="The register base of a remapping unit is zero, all ones or not on a 4 KiB boundary. Linux then ignores "
    "the unit, or the whole table.",
    advice="Update the firmware, or enable VT-d in its set-up.",
    specification="Intel VT-d 4.1, section 8.3; Linux drivers/iommu/intel/dmar.c, warn_invalid_dmar",
)
REGION: Final = rule(
    "acpi.dmar-rmrr-range",
    Severity.ERROR,
    title="a reserved memory region that is none",
    meaning="The last address of a reserved region lies below its first, or the two are not the bounds of whole pages. "
    "The devices it names may lose memory that they need.",
    advice="Update the firmware. Xen's option rmrr= and a table override state the region as it should be.",
    specification="Intel VT-d 4.1, section 8.4: base and limit on 4 KiB boundaries, limit above base",
)


class ScopeType(enum.Enum):
    """What a device scope names (section 8.3.1)."""

    PCI_ENDPOINT = "pci-endpoint"
    PCI_SUB_HIERARCHY = "pci-sub-hierarchy"
    """A bridge, and all behind it."""
    IOAPIC = "ioapic"
    HPET = "hpet"
    NAMESPACE_DEVICE = "namespace-device"


class PathHop(Record, frozen=True, kw_only=True):
    """One step of a path: a device and function on the bus that the step before leads to."""

    device: U8
    function: U8


class DeviceScope(OpenRecord, frozen=True, kw_only=True, tag="device-scope"):
    """Device Scope Structure (section 8.3.1)."""

    TYPE: ClassVar[int] = 0
    type: Annotated[ScopeType | int, enumerated(Int8, dict(enumerate(ScopeType, 1)))]
    flags: U8 = 0
    """Of a SIDP scope: bit 0, requests without PASID must not be nested. Else reserved."""
    reserved: U8 = 0
    enumeration_id: U8
    """IOAPIC id, HPET number, or ANDD's device number; else 0."""
    start_bus: U8
    path: Annotated[tuple[PathHop, ...], repeated()]
    """From `start_bus` through bridges to the function; never empty in a good table."""


Scopes = Annotated[tuple[DeviceScope | Unknown | Rest, ...], entries(type=0)]
"""Device scopes: their type byte is the scope's own first field. `Unknown` holds one shorter than its fields."""


class Structure(OpenRecord, frozen=True, kw_only=True):
    """A structure with scopes; each kind has the field at its own place, the last."""

    if TYPE_CHECKING:

        @property
        def scopes(self) -> Scopes: ...

    @property
    def devices(self) -> tuple[DeviceScope, ...]:
        """The scopes that are well formed."""
        return tuple(scope for scope in self.scopes if isinstance(scope, DeviceScope))


class DrhdFlags(BitField, frozen=True, kw_only=True):
    """Flags of a remapping unit."""

    include_pci_all: Bit
    """Serves every function of its segment that no other unit's scope names."""
    reserved: Annotated[int, bits(7)] = 0


class Drhd(Structure, frozen=True, kw_only=True, tag="drhd"):
    """DMA Remapping Hardware Unit Definition (section 8.3)."""

    TYPE: ClassVar[int] = 0
    flags: DrhdFlags
    size: U8
    """Bits 3:0: the register set takes 2**N pages of 4 KiB (VT-d 4.0; 0 before that)."""
    segment: U16
    register_base: U64
    scopes: Scopes

    @property
    def register_bytes(self) -> int:
        """Size of the register set."""
        return 4096 << (self.size & 0xF)


class Rmrr(Structure, frozen=True, kw_only=True, tag="rmrr"):
    """Reserved Memory Region Reporting (section 8.4)."""

    TYPE: ClassVar[int] = 1
    reserved: U16 = 0
    segment: U16
    base: U64
    limit: U64
    """Last byte of the region, inclusive."""
    scopes: Scopes


class AtsrFlags(BitField, frozen=True, kw_only=True):
    """Flags of an ATSR."""

    all_ports: Bit
    reserved: Annotated[int, bits(7)] = 0


class Atsr(Structure, frozen=True, kw_only=True, tag="atsr"):
    """Root Port ATS Capability Reporting (section 8.5)."""

    TYPE: ClassVar[int] = 2
    flags: AtsrFlags
    reserved: U8 = 0
    segment: U16
    scopes: Scopes


class Rhsa(OpenRecord, frozen=True, kw_only=True, tag="rhsa"):
    """Remapping Hardware Static Affinity (section 8.6)."""

    TYPE: ClassVar[int] = 3
    reserved: U32 = 0
    register_base: U64
    proximity_domain: U32


class Andd(OpenRecord, frozen=True, kw_only=True, tag="andd"):
    """ACPI Name-space Device Declaration (section 8.7)."""

    TYPE: ClassVar[int] = 4
    reserved: Annotated[Hex, raw(3)] = "000000"
    acpi_device_number: U8
    """What the enumeration id of a namespace device's scope refers to."""
    object_name: Annotated[str, terminated_text()]


class SatcFlags(BitField, frozen=True, kw_only=True):
    """Flags of an SATC."""

    atc_required: Bit
    reserved: Annotated[int, bits(7)] = 0


class Satc(Structure, frozen=True, kw_only=True, tag="satc"):
    """SoC Integrated Address Translation Cache Reporting (section 8.8)."""

    TYPE: ClassVar[int] = 5
    flags: SatcFlags
    reserved: U8 = 0
    segment: U16
    scopes: Scopes


class Sidp(Structure, frozen=True, kw_only=True, tag="sidp"):
    """SoC Integrated Device Property Reporting (section 8.9)."""

    TYPE: ClassVar[int] = 6
    reserved: U16 = 0
    segment: U16
    scopes: Scopes


DmarStructure = Drhd | Rmrr | Atsr | Rhsa | Andd | Satc | Sidp | Unknown | Rest


class DmarFlags(BitField, frozen=True, kw_only=True):
    """Flags of the DMAR table (section 8.1)."""

    interrupt_remapping: Bit
    x2apic_opt_out: Bit
    """Firmware asks the OS not to enable x2APIC mode."""
    dma_control_platform_opt_in: Bit
    reserved: Annotated[int, bits(5)] = 0


class Dmar(OpenRecord, frozen=True, kw_only=True, tag="dmar"):
    """DMA Remapping Reporting (section 8.1)."""

    host_address_width: U8
    """As in the table: one less than the number of address bits that DMA may use."""
    flags: DmarFlags
    reserved: Annotated[Hex, raw(10)] = "00000000000000000000"
    structures: Annotated[tuple[DmarStructure, ...], entries(type=2, length_at=2, length=2)]


def check(dmar: Dmar, header: Header, notes: Notes) -> None:
    """Scopes, register bases, regions, and the place of the unit that serves all others."""
    closed: dict[int, int] = {}
    for number, structure in enumerate(dmar.structures):
        if isinstance(structure, Structure):
            for scope in structure.scopes:
                problem = _scope_problem(scope)
                if problem is not None:
                    notes.add(SCOPE, f"structure {number} ({type(structure).__name__.upper()}): {problem}")
        if isinstance(structure, Drhd):
            base = structure.register_base
            if base == 0 or base == 2**64 - 1 or base & 0xFFF:
                notes.add(REGISTERS, f"structure {number}: register base {base:#x}")
            if structure.segment in closed:
                notes.add(
                    INCLUDE_ALL, f"structure {number} follows structure {closed[structure.segment]}, which has it"
                )
            elif structure.flags.include_pci_all:
                closed[structure.segment] = number
        elif isinstance(structure, Rmrr) and (
            structure.limit <= structure.base or structure.base & 0xFFF or (structure.limit + 1) & 0xFFF
        ):
            notes.add(REGION, f"structure {number}: {structure.base:#x} to {structure.limit:#x}")


def _scope_problem(scope: DeviceScope | Unknown | Rest) -> str | None:
    if not isinstance(scope, DeviceScope):
        return f"a scope that cannot be read ({'bytes ' + scope.raw if isinstance(scope, Rest) else 'too short'})"
    if scope.extra:
        return f"a path with half a step ({scope.extra})"
    if not scope.path:
        return "a scope without a path"
    for hop in scope.path:
        if hop.device > 31 or hop.function > 7:
            return f"a path over device {hop.device:#x} function {hop.function:#x}"
    return None
