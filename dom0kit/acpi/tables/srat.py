# SPDX-License-Identifier: MIT
"""SRAT: which processors, memory and devices belong to which proximity domain (ACPI 6.5, section 5.2.16)."""

from __future__ import annotations

from typing import Annotated, ClassVar

from dom0kit.address import Sbdf
from dom0kit.layout import (
    U8,
    U16,
    U32,
    U64,
    Bit,
    BitField,
    OpenRecord,
    Rest,
    Unknown,
    bits,
    entries,
    raw,
)
from dom0kit.serial import Hex


class AffinityFlags(BitField, frozen=True, kw_only=True):
    """Flags of a processor's affinity (table 5.60)."""

    enabled: Bit
    """Entries that are not enabled mean nothing."""
    reserved: Annotated[int, bits(31)] = 0


class LocalApicAffinity(OpenRecord, frozen=True, kw_only=True, tag="local-apic-affinity"):
    """Processor by its 8-bit APIC id (section 5.2.16.1)."""

    TYPE: ClassVar[int] = 0
    proximity_domain_low: U8
    apic_id: U8
    flags: AffinityFlags
    local_sapic_eid: U8
    proximity_domain_high: Annotated[Hex, raw(3)]
    clock_domain: U32

    @property
    def proximity_domain(self) -> int:
        """All 32 bits (tables of revision 1 define the low 8 only)."""
        return self.proximity_domain_low | int.from_bytes(bytes.fromhex(self.proximity_domain_high), "little") << 8


class MemoryFlags(BitField, frozen=True, kw_only=True):
    """Flags of a memory range (table 5.62; bit 3: ACPI 6.6)."""

    enabled: Bit
    hot_pluggable: Bit
    non_volatile: Bit
    specific_purpose: Bit
    reserved: Annotated[int, bits(28)] = 0


class MemoryAffinity(OpenRecord, frozen=True, kw_only=True, tag="memory-affinity"):
    """A memory range (section 5.2.16.2)."""

    TYPE: ClassVar[int] = 1
    proximity_domain: U32
    reserved: U16 = 0
    base_address: U64
    length: U64
    reserved2: U32 = 0
    flags: MemoryFlags
    reserved3: U64 = 0


class LocalX2apicAffinity(OpenRecord, frozen=True, kw_only=True, tag="local-x2apic-affinity"):
    """Processor by its 32-bit APIC id (section 5.2.16.3)."""

    TYPE: ClassVar[int] = 2
    reserved: U16 = 0
    proximity_domain: U32
    x2apic_id: U32
    flags: AffinityFlags
    clock_domain: U32
    reserved2: U32 = 0


class GiccAffinity(OpenRecord, frozen=True, kw_only=True, tag="gicc-affinity"):
    """Arm processor by its UID (section 5.2.16.4)."""

    TYPE: ClassVar[int] = 3
    proximity_domain: U32
    acpi_processor_uid: U32
    flags: AffinityFlags
    clock_domain: U32


class GicItsAffinity(OpenRecord, frozen=True, kw_only=True, tag="gic-its-affinity"):
    """Arm interrupt translation service (section 5.2.16.5)."""

    TYPE: ClassVar[int] = 4
    proximity_domain: U32
    reserved: U16 = 0
    its_id: U32


class InitiatorFlags(BitField, frozen=True, kw_only=True):
    """Flags of a generic initiator or port (table 5.66)."""

    enabled: Bit
    architectural_transactions: Bit
    reserved: Annotated[int, bits(30)] = 0


class GenericInitiatorAffinity(OpenRecord, frozen=True, kw_only=True, tag="generic-initiator-affinity"):
    """A device that accesses memory by itself (section 5.2.16.6)."""

    TYPE: ClassVar[int] = 5
    reserved: U8 = 0
    device_handle_type: U8
    """0 ACPI (_HID, _UID), 1 PCI."""
    proximity_domain: U32
    device_handle: Annotated[Hex, raw(16)]
    flags: InitiatorFlags
    reserved2: U32 = 0

    @property
    def function(self) -> Sbdf | None:
        """The PCI function, where the handle is one."""
        if self.device_handle_type != 1:
            return None
        handle = bytes.fromhex(self.device_handle)
        return Sbdf.from_devfn(handle[0] | handle[1] << 8, handle[3], handle[2])


class GenericPortAffinity(GenericInitiatorAffinity, frozen=True, kw_only=True, tag="generic-port-affinity"):
    """A port to memory that is not there yet, e.g. a CXL host bridge (section 5.2.16.7)."""

    TYPE: ClassVar[int] = 6


class RintcAffinity(OpenRecord, frozen=True, kw_only=True, tag="rintc-affinity"):
    """RISC-V hart by its UID (ACPI 6.6, section 5.2.16.8)."""

    TYPE: ClassVar[int] = 7
    reserved: U16 = 0
    proximity_domain: U32
    acpi_processor_uid: U32
    flags: AffinityFlags
    clock_domain: U32


SratEntry = (
    LocalApicAffinity
    | MemoryAffinity
    | LocalX2apicAffinity
    | GiccAffinity
    | GicItsAffinity
    | GenericInitiatorAffinity
    | GenericPortAffinity
    | RintcAffinity
    | Unknown
    | Rest
)


class Srat(OpenRecord, frozen=True, kw_only=True, tag="srat"):
    """System Resource Affinity Table."""

    table_revision: U32
    """1."""
    reserved: U64 = 0
    entries: Annotated[tuple[SratEntry, ...], entries()]
