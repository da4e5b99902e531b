# SPDX-License-Identifier: MIT
"""PCCT: channels between OS and platform controller (ACPI 6.5, section 14.1)."""

from __future__ import annotations

from typing import Annotated, ClassVar

from dom0kit.acpi.tables.common import GenericAddress
from dom0kit.layout import U8, U16, U32, U64, Bit, BitField, OpenRecord, Rest, Unknown, bits, entries, raw
from dom0kit.serial import Hex


class PlatformInterruptFlags(BitField, frozen=True, kw_only=True):
    """Table 14.5."""

    active_low: Bit
    edge: Bit
    reserved: Annotated[int, bits(6)] = 0


class GenericSubspace(OpenRecord, frozen=True, kw_only=True, tag="generic"):
    """Type 0 (section 14.1.2)."""

    TYPE: ClassVar[int] = 0
    reserved: Annotated[Hex, raw(6)] = "000000000000"
    base_address: U64
    memory_length: U64
    doorbell: GenericAddress
    doorbell_preserve: U64
    doorbell_write: U64
    nominal_latency: U32
    """Microseconds."""
    maximum_periodic_access_rate: U32
    """Per minute; 0 unlimited."""
    minimum_request_turnaround_time: U16
    """Microseconds."""


class HardwareReducedSubspace(OpenRecord, frozen=True, kw_only=True, tag="hardware-reduced"):
    """Type 1 (section 14.1.3)."""

    TYPE: ClassVar[int] = 1
    platform_interrupt: U32
    """GSI."""
    platform_interrupt_flags: PlatformInterruptFlags
    reserved: U8 = 0
    base_address: U64
    memory_length: U64
    doorbell: GenericAddress
    doorbell_preserve: U64
    doorbell_write: U64
    nominal_latency: U32
    maximum_periodic_access_rate: U32
    minimum_request_turnaround_time: U16


class HardwareReducedSubspace2(HardwareReducedSubspace, frozen=True, kw_only=True, tag="hardware-reduced-2"):
    """Type 2: type 1 with an acknowledge register (section 14.1.4)."""

    TYPE: ClassVar[int] = 2
    platform_ack: GenericAddress
    platform_ack_preserve: U64
    platform_ack_write: U64


class ExtendedInitiatorSubspace(OpenRecord, frozen=True, kw_only=True, tag="extended-initiator"):
    """Type 3 (section 14.1.5)."""

    TYPE: ClassVar[int] = 3
    platform_interrupt: U32
    platform_interrupt_flags: PlatformInterruptFlags
    reserved: U8 = 0
    base_address: U64
    memory_length: U32
    doorbell: GenericAddress
    doorbell_preserve: U64
    doorbell_write: U64
    nominal_latency: U32
    maximum_periodic_access_rate: U32
    minimum_request_turnaround_time: U32
    platform_ack: GenericAddress
    platform_ack_preserve: U64
    platform_ack_set: U64
    reserved2: U64 = 0
    command_complete: GenericAddress
    command_complete_mask: U64
    command_update: GenericAddress
    command_update_preserve: U64
    command_update_set: U64
    error_status: GenericAddress
    error_status_mask: U64


class ExtendedResponderSubspace(ExtendedInitiatorSubspace, frozen=True, kw_only=True, tag="extended-responder"):
    """Type 4 (section 14.1.5)."""

    TYPE: ClassVar[int] = 4


class RegisterSubspace(OpenRecord, frozen=True, kw_only=True, tag="hardware-registers"):
    """Type 5 (section 14.1.7)."""

    TYPE: ClassVar[int] = 5
    version: U16
    base_address: U64
    memory_length: U64
    doorbell: GenericAddress
    doorbell_preserve: U64
    doorbell_write: U64
    command_complete: GenericAddress
    command_complete_mask: U64
    error_status: GenericAddress
    error_status_mask: U64
    nominal_latency: U32
    minimum_request_turnaround_time: U32


PcctSubspace = (
    GenericSubspace
    | HardwareReducedSubspace
    | HardwareReducedSubspace2
    | ExtendedInitiatorSubspace
    | ExtendedResponderSubspace
    | RegisterSubspace
    | Unknown
    | Rest
)


class PcctFlags(BitField, frozen=True, kw_only=True):
    """Table 14.2."""

    platform_interrupt: Bit
    reserved: Annotated[int, bits(31)] = 0


class Pcct(OpenRecord, frozen=True, kw_only=True, tag="pcct"):
    """Platform Communications Channel Table."""

    flags: PcctFlags
    reserved: U64 = 0
    subspaces: Annotated[tuple[PcctSubspace, ...], entries()]
