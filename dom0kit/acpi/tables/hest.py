# SPDX-License-Identifier: MIT
"""HEST: sources of hardware errors and how they are reported (ACPI 6.5, section 18.3.2)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

from dom0kit.acpi.tables.common import GenericAddress
from dom0kit.acpi.tables.table import Header
from dom0kit.finding import Severity, rule
from dom0kit.layout import (
    U8,
    U16,
    U32,
    U64,
    Bit,
    BitField,
    OpenRecord,
    Record,
    Rest,
    Unknown,
    bits,
    measured_entries,
    raw,
    repeated,
    this,
)
from dom0kit.serial import Hex
from dom0kit.walker import Notes

SOURCES: Final = rule(
    "acpi.hest-sources",
    Severity.WARNING,
    title="the HEST miscounts its error sources",
    meaning="The number of error sources in the header is not that of the structures that follow. A reader that stops "
    "at the count misses some, one that trusts it reads beyond the table.",
    advice="Update the firmware.",
    specification="ACPI 6.5, table 18.2: error source count",
)


class ErrorSourceFlags(BitField, frozen=True, kw_only=True):
    """Who handles the errors."""

    firmware_first: Bit
    global_: Bit
    """Of AER sources: for all functions of the kind."""
    ghes_assist: Bit
    reserved: Annotated[int, bits(5)] = 0


class MachineCheckBank(Record, frozen=True, kw_only=True):
    """IA-32 machine check error bank (table 18.4)."""

    bank_number: U8
    clear_status_on_initialization: U8
    status_data_format: U8
    reserved: U8 = 0
    control_register: U32
    control_init_data: U64
    status_register: U32
    address_register: U32
    misc_register: U32


class Notification(Record, frozen=True, kw_only=True):
    """Hardware error notification structure (table 18.14)."""

    type: U8
    """0 polled, 1 external, 2 local interrupt, 3 SCI, 4 NMI, 5 CMCI, 6 MCE, 7 GPIO, 8 SEA, 9 SEI, 10 GSIV, 11 SDEI."""
    length: U8
    configuration_write_enable: U16
    poll_interval: U32
    """Milliseconds."""
    vector: U32
    switch_to_polling_threshold_value: U32
    switch_to_polling_threshold_window: U32
    error_threshold_value: U32
    error_threshold_window: U32


class MachineCheck(OpenRecord, frozen=True, kw_only=True, tag="machine-check"):
    """IA-32 machine check exception (section 18.3.2.1)."""

    TYPE: ClassVar[int] = 0
    source_id: U16
    reserved: U16 = 0
    flags: ErrorSourceFlags
    enabled: U8
    records_to_preallocate: U32
    max_sections_per_record: U32
    global_capability_init_data: U64
    global_control_init_data: U64
    number_of_hardware_banks: U8
    reserved2: Annotated[Hex, raw(7)] = "00000000000000"
    banks: Annotated[tuple[MachineCheckBank, ...], repeated(this.number_of_hardware_banks)]


class CorrectedMachineCheck(OpenRecord, frozen=True, kw_only=True, tag="corrected-machine-check"):
    """IA-32 corrected machine check (section 18.3.2.2)."""

    TYPE: ClassVar[int] = 1
    source_id: U16
    reserved: U16 = 0
    flags: ErrorSourceFlags
    enabled: U8
    records_to_preallocate: U32
    max_sections_per_record: U32
    notification: Notification
    number_of_hardware_banks: U8
    reserved2: Annotated[Hex, raw(3)] = "000000"
    banks: Annotated[tuple[MachineCheckBank, ...], repeated(this.number_of_hardware_banks)]


class NmiError(OpenRecord, frozen=True, kw_only=True, tag="nmi"):
    """IA-32 non-maskable interrupt (section 18.3.2.2.1)."""

    TYPE: ClassVar[int] = 2
    source_id: U16
    reserved: U32 = 0
    records_to_preallocate: U32
    max_sections_per_record: U32
    max_raw_data_length: U32


class AerRootPort(OpenRecord, frozen=True, kw_only=True, tag="aer-root-port"):
    """PCI Express root port AER (section 18.3.2.3)."""

    TYPE: ClassVar[int] = 6
    source_id: U16
    reserved: U16 = 0
    flags: ErrorSourceFlags
    enabled: U8
    records_to_preallocate: U32
    max_sections_per_record: U32
    bus: U32
    """Bits 7:0 bus, 31:8 segment."""
    device: U16
    function: U16
    device_control: U16
    reserved2: U16 = 0
    uncorrectable_error_mask: U32
    uncorrectable_error_severity: U32
    correctable_error_mask: U32
    advanced_capabilities_and_control: U32
    root_error_command: U32


class AerEndpoint(OpenRecord, frozen=True, kw_only=True, tag="aer-endpoint"):
    """PCI Express device AER (section 18.3.2.4)."""

    TYPE: ClassVar[int] = 7
    source_id: U16
    reserved: U16 = 0
    flags: ErrorSourceFlags
    enabled: U8
    records_to_preallocate: U32
    max_sections_per_record: U32
    bus: U32
    device: U16
    function: U16
    device_control: U16
    reserved2: U16 = 0
    uncorrectable_error_mask: U32
    uncorrectable_error_severity: U32
    correctable_error_mask: U32
    advanced_capabilities_and_control: U32


class AerBridge(AerEndpoint, frozen=True, kw_only=True, tag="aer-bridge"):
    """PCI Express to PCI bridge AER (section 18.3.2.5)."""

    TYPE: ClassVar[int] = 8
    secondary_uncorrectable_error_mask: U32
    secondary_uncorrectable_error_severity: U32
    secondary_advanced_capabilities_and_control: U32


class GenericErrorSource(OpenRecord, frozen=True, kw_only=True, tag="generic"):
    """Generic hardware error source (section 18.3.2.7)."""

    TYPE: ClassVar[int] = 9
    source_id: U16
    related_source_id: U16
    """0xffff none."""
    flags: U8 = 0
    enabled: U8
    records_to_preallocate: U32
    max_sections_per_record: U32
    max_raw_data_length: U32
    error_status: GenericAddress
    notification: Notification
    error_status_block_length: U32


class GenericErrorSource2(GenericErrorSource, frozen=True, kw_only=True, tag="generic-2"):
    """Generic hardware error source version 2: with an acknowledge register (section 18.3.2.8)."""

    TYPE: ClassVar[int] = 10
    read_ack: GenericAddress
    read_ack_preserve: U64
    read_ack_write: U64


class DeferredMachineCheck(CorrectedMachineCheck, frozen=True, kw_only=True, tag="deferred-machine-check"):
    """IA-32 deferred machine check (section 18.3.2.10)."""

    TYPE: ClassVar[int] = 11


HestSource = (
    MachineCheck
    | CorrectedMachineCheck
    | NmiError
    | AerRootPort
    | AerEndpoint
    | AerBridge
    | GenericErrorSource
    | GenericErrorSource2
    | DeferredMachineCheck
    | Unknown
    | Rest
)
_SIZES: Final = {0: 40, 1: 48, 2: 20, 6: 48, 7: 44, 8: 56, 9: 64, 10: 92, 11: 48}
_BANKS_AT: Final = {0: 32, 1: 44, 11: 44}
_BANK_SIZE: Final = 28


def _source_size(data: bytes, offset: int, end: int) -> int | None:
    """Bytes of an error source: by its type, and for machine checks by the number of banks (table 18.3)."""
    kind = int.from_bytes(data[offset : offset + 2], "little")
    size = _SIZES.get(kind, 0)
    if kind in _BANKS_AT:
        if end - offset < size:
            return None
        size += _BANK_SIZE * data[offset + _BANKS_AT[kind]]
    return size


class Hest(OpenRecord, frozen=True, kw_only=True, tag="hest"):
    """Hardware Error Source Table."""

    error_source_count: U32
    sources: Annotated[tuple[HestSource, ...], measured_entries(type=2, measure=_source_size)]


def check(hest: Hest, header: Header, notes: Notes) -> None:
    """The count of sources."""
    found = sum(not isinstance(source, Rest) for source in hest.sources)
    if hest.error_source_count != found:
        notes.add(SOURCES, f"{hest.error_source_count} error sources by the header, {found} structures follow")
