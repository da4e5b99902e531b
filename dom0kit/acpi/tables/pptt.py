# SPDX-License-Identifier: MIT
"""PPTT: how processors share caches and packages (ACPI 6.5, section 5.2.30)."""

from __future__ import annotations

from typing import Annotated, ClassVar

from dom0kit.layout import U8, U16, U32, U64, Bit, BitField, OpenRecord, Rest, Unknown, bits, entries, repeated, this


class ProcessorNodeFlags(BitField, frozen=True, kw_only=True):
    """Table 5.140."""

    physical_package: Bit
    acpi_processor_id_valid: Bit
    processor_is_thread: Bit
    node_is_leaf: Bit
    identical_implementation: Bit
    reserved: Annotated[int, bits(27)] = 0


class ProcessorNode(OpenRecord, frozen=True, kw_only=True, tag="processor-node"):
    """Processor Hierarchy Node (section 5.2.30.1)."""

    TYPE: ClassVar[int] = 0
    reserved: U16 = 0
    flags: ProcessorNodeFlags
    parent: U32
    """Offset of the parent in the table; 0 none."""
    acpi_processor_id: U32
    number_of_private_resources: U32
    private_resources: Annotated[tuple[U32, ...], repeated(this.number_of_private_resources)]
    """Offsets of caches in the table."""


class CacheFlags(BitField, frozen=True, kw_only=True):
    """Table 5.142."""

    size_valid: Bit
    sets_valid: Bit
    associativity_valid: Bit
    allocation_type_valid: Bit
    cache_type_valid: Bit
    write_policy_valid: Bit
    line_size_valid: Bit
    cache_id_valid: Bit
    reserved: Annotated[int, bits(24)] = 0


class CacheAttributes(BitField, frozen=True, kw_only=True):
    """Table 5.143."""

    allocation_type: Annotated[int, bits(2)]
    """0 read, 1 write, 2 and 3 both."""
    cache_type: Annotated[int, bits(2)]
    """0 data, 1 instruction, 2 and 3 unified."""
    write_through: Bit
    reserved: Annotated[int, bits(3)] = 0


class Cache(OpenRecord, frozen=True, kw_only=True, tag="cache"):
    """Cache Type Structure (section 5.2.30.2); 24 bytes, 28 from revision 3 on."""

    TYPE: ClassVar[int] = 1
    reserved: U16 = 0
    flags: CacheFlags
    next_level: U32
    """Offset of the next cache in the table; 0 none."""
    size: U32
    """Bytes."""
    number_of_sets: U32
    associativity: U8
    attributes: CacheAttributes
    line_size: U16
    """Bytes."""
    cache_id: U32 | None = None


class ProcessorId(OpenRecord, frozen=True, kw_only=True, tag="id"):
    """ID Structure (ACPI 6.2; deprecated since 6.3)."""

    TYPE: ClassVar[int] = 2
    reserved: U16 = 0
    vendor_id: U32
    level1_id: U64
    level2_id: U64
    major_revision: U16
    minor_revision: U16
    spin_revision: U16


class Pptt(OpenRecord, frozen=True, kw_only=True, tag="pptt"):
    """Processor Properties Topology Table."""

    structures: Annotated[tuple[ProcessorNode | Cache | ProcessorId | Unknown | Rest, ...], entries()]
