# SPDX-License-Identifier: MIT
"""HMAT: latency and bandwidth of memory as processors see it (ACPI 6.5, section 5.2.29)."""

from __future__ import annotations

from typing import Annotated, ClassVar

from dom0kit.layout import U8, U16, U32, U64, Bit, BitField, OpenRecord, Rest, Unknown, bits, entries, repeated, this


class ProximityFlags(BitField, frozen=True, kw_only=True):
    """Table 5.129."""

    initiator_valid: Bit
    reserved: Annotated[int, bits(15)] = 0


class MemoryProximity(OpenRecord, frozen=True, kw_only=True, tag="memory-proximity"):
    """Memory Proximity Domain Attributes (section 5.2.29.3)."""

    TYPE: ClassVar[int] = 0
    reserved: U16 = 0
    flags: ProximityFlags
    reserved2: U16 = 0
    initiator_domain: U32
    memory_domain: U32
    reserved3: U32 = 0
    reserved4: U64 = 0
    reserved5: U64 = 0


class LocalityFlags(BitField, frozen=True, kw_only=True):
    """Table 5.130."""

    memory_hierarchy: Annotated[int, bits(4)]
    """0 memory, 1 to 3 first to third level memory-side cache."""
    minimum_transfer_size: Bit
    non_sequential: Bit
    reserved: Annotated[int, bits(2)] = 0


class Locality(OpenRecord, frozen=True, kw_only=True, tag="locality"):
    """System Locality Latency and Bandwidth Information (section 5.2.29.4)."""

    TYPE: ClassVar[int] = 1
    reserved: U16 = 0
    flags: LocalityFlags
    data_type: U8
    """0 access, 1 read, 2 write latency; 3 access, 4 read, 5 write bandwidth."""
    minimum_transfer_size: U8
    reserved2: U8 = 0
    number_of_initiators: U32
    number_of_targets: U32
    reserved3: U32 = 0
    entry_base_unit: U64
    """Picoseconds or MiB/s that an entry of 1 stands for."""
    initiators: Annotated[tuple[U32, ...], repeated(this.number_of_initiators)]
    targets: Annotated[tuple[U32, ...], repeated(this.number_of_targets)]
    entries: Annotated[tuple[U16, ...], repeated(this.number_of_initiators * this.number_of_targets)]
    """Row by row, one row for each initiator; 0xffff: not reachable."""


class CacheAttributes(BitField, frozen=True, kw_only=True):
    """Table 5.132."""

    total_levels: Annotated[int, bits(4)]
    level: Annotated[int, bits(4)]
    associativity: Annotated[int, bits(4)]
    """0 none, 1 direct mapped, 2 complex."""
    write_policy: Annotated[int, bits(4)]
    """0 none, 1 write back, 2 write through."""
    line_size: Annotated[int, bits(16)]


class MemorySideCache(OpenRecord, frozen=True, kw_only=True, tag="memory-side-cache"):
    """Memory Side Cache Information (section 5.2.29.5)."""

    TYPE: ClassVar[int] = 2
    reserved: U16 = 0
    memory_domain: U32
    reserved2: U32 = 0
    size: U64
    """Bytes."""
    attributes: CacheAttributes
    address_mode: U16 = 0
    """ACPI 6.5; reserved before."""
    number_of_smbios_handles: U16
    smbios_handles: Annotated[tuple[U16, ...], repeated(this.number_of_smbios_handles)]


class Hmat(OpenRecord, frozen=True, kw_only=True, tag="hmat"):
    """Heterogeneous Memory Attribute Table."""

    reserved: U32 = 0
    structures: Annotated[
        tuple[MemoryProximity | Locality | MemorySideCache | Unknown | Rest, ...],
        entries(type=2, length_at=4, length=4),
    ]
