# SPDX-License-Identifier: MIT
"""Virtual channels: extended capabilities 0002h and 0009h, and those of a multi-function device, 0008h.

Source: PCI Express Base 6.0, sections 7.9.1 (Virtual Channel) and 7.9.2 (Multi-Function Virtual Channel).
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from dom0kit.pci.capabilities import TRUNCATED, ExtendedCapability, Report
from dom0kit.serial import Hex

LENGTH = 0x10


class VirtualChannelResource(msgspec.Struct, frozen=True, gc=False):
    """One virtual channel."""

    arbitration_capability: int
    """Bits: 0 hardware-fixed, 1 to 3 WRR with 32, 64, 128 phases, 4 time-based WRR 128, 5 WRR 256. For a
    multi-function device the arbitration is among functions, else among ports."""
    reject_snoop: bool
    """Reject Snoop Transactions."""
    maximum_time_slots: int
    """1 to 128."""
    table_offset: int
    """Of the arbitration table from the capability, in units of 16 bytes; 0 without one."""
    traffic_classes: int
    """TC/VC Map: bit n for traffic class n."""
    load_table: bool
    """Load Port (Function) Arbitration Table, as read."""
    arbitration_select: int
    """Which bit of `arbitration_capability` is in use, 0 to 7."""
    id: int
    """VC ID, 0 to 7."""
    enabled: bool
    table_updating: bool
    """Arbitration Table Status: changed and not yet loaded."""
    negotiation_pending: bool
    table: Hex
    """The arbitration table in use; empty where the selected scheme has none or it lies outside config space."""


class VirtualChannelBase(ExtendedCapability, frozen=True, tag="virtual-channel-base"):
    """What both forms have. Not itself in a list."""

    extended_count: int
    """Virtual channels besides VC0, 0 to 7."""
    low_priority_count: int
    """Low Priority Extended VC Count, 0 to 7."""
    reference_clock: int
    """0 for 100 ns; others reserved, to 3."""
    table_entry_bits: int
    """Port (Function) Arbitration Table Entry Size: 1, 2, 4 or 8."""
    arbitration_capability: int
    """Bits: 0 hardware-fixed, 1 to 3 WRR with 32, 64, 128 phases."""
    table_offset: int
    """Of the VC arbitration table from the capability, in units of 16 bytes; 0 without one."""
    load_table: bool
    """Load VC Arbitration Table, as read."""
    arbitration_select: int
    """Which bit of `arbitration_capability` is in use, 0 to 7."""
    table_updating: bool
    """VC Arbitration Table Status: changed and not yet loaded."""
    table: Hex
    """The VC arbitration table in use; empty where the selected scheme has none or it lies outside config space."""
    channels: tuple[VirtualChannelResource, ...]
    """VC0 first."""


class VirtualChannel(VirtualChannelBase, frozen=True, tag="virtual-channel"):
    """Virtual channels of a port or function."""

    with_mfvc: bool
    """Capability id 0009h, not 0002h: another function of the device has the multi-function capability."""


class MultiFunctionVirtualChannel(VirtualChannelBase, frozen=True, tag="multi-function-virtual-channel"):
    """Virtual channels of the port of a multi-function device; its functions are arbitrated first."""


_PORT: Final = struct.Struct("<IIHH")
_RESOURCE: Final = struct.Struct("<IIHH")
_VC_PHASES: Final = (0, 32, 64, 128, 0, 0, 0, 0)
_PORT_PHASES: Final = (0, 32, 64, 128, 128, 256, 0, 0)


def decode(config: bytes, offset: int, report: Report) -> VirtualChannel | MultiFunctionVirtualChannel:
    capability1, capability2, control, status = _PORT.unpack_from(config, offset + 4)
    extended_count = capability1 & 7
    entry_bits = 1 << (capability1 >> 10 & 3)
    table_offset = capability2 >> 24
    select = control >> 1 & 7
    channels: list[VirtualChannelResource] = []
    for at in range(offset + 0x10, offset + 0x10 + 12 * (extended_count + 1), 12):
        if at + 12 > len(config):
            report(TRUNCATED, f"{extended_count + 1} virtual channels, but only {len(channels)} are readable")
            break
        channels.append(_resource(config, offset, at, entry_bits))
    common = (
        offset,
        config[offset + 2] & 0xF,
        extended_count,
        capability1 >> 4 & 7,
        capability1 >> 8 & 3,
        entry_bits,
        capability2 & 0xFF,
        table_offset,
        control & 1 != 0,
        select,
        status & 1 != 0,
        _table(config, offset, table_offset, _VC_PHASES[select] * 4),
        tuple(channels),
    )
    id = config[offset]
    if id == 8:
        return MultiFunctionVirtualChannel(*common)
    return VirtualChannel(*common, id == 9)


def _resource(config: bytes, offset: int, at: int, entry_bits: int) -> VirtualChannelResource:
    capability, control, _, status = _RESOURCE.unpack_from(config, at)
    select = control >> 17 & 7
    return VirtualChannelResource(
        arbitration_capability=capability & 0xFF,
        reject_snoop=capability & 0x8000 != 0,
        maximum_time_slots=(capability >> 16 & 0x7F) + 1,
        table_offset=capability >> 24,
        traffic_classes=control & 0xFF,
        load_table=control & 0x10000 != 0,
        arbitration_select=select,
        id=control >> 24 & 7,
        enabled=control & 0x80000000 != 0,
        table_updating=status & 1 != 0,
        negotiation_pending=status & 2 != 0,
        table=_table(config, offset, capability >> 24, _PORT_PHASES[select] * entry_bits),
    )


def _table(config: bytes, offset: int, table_offset: int, bits: int) -> Hex:
    start = offset + table_offset * 16
    end = start + bits // 8
    return config[start:end].hex() if table_offset and end <= len(config) else ""
