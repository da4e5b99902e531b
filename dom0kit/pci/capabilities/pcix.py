# SPDX-License-Identifier: MIT
"""PCI-X capability, of a bridge and of other functions (PCI-X Protocol Addendum 2.0a, section 7.2 and 8.6)."""

from __future__ import annotations

import struct
from typing import Final

from dom0kit.pci.capabilities import Report, StandardCapability, TruncatedCapability, truncated

LENGTH = 8
_ENDPOINT: Final = struct.Struct("<HI")
_BRIDGE: Final = struct.Struct("<HIHHHH")
_OUTSTANDING: Final = (1, 2, 3, 4, 8, 12, 16, 32)


class PciX(StandardCapability, frozen=True, tag="pci-x"):
    """PCI-X of a function with a type 0 header."""

    data_parity_recovery: bool
    relaxed_ordering: bool
    max_read: int
    """Maximum memory read byte count in force: 512 to 4096."""
    max_outstanding: int
    """Maximum outstanding split transactions in force: 1 to 32."""
    version: int
    """0: no ECC; 1: ECC in mode 2; 2: ECC in both modes."""
    bus: int
    """As the function saw itself addressed in a configuration write; 255 before the first."""
    device: int
    function: int
    width_64bit: bool
    mhz_133: bool
    split_completion_discarded: bool
    unexpected_split_completion: bool
    bridge: bool
    """Device Complexity: a bridge device."""
    designed_max_read: int
    designed_max_outstanding: int
    designed_max_cumulative_read: int
    """Bytes: 1024 to 131072."""
    split_completion_error: bool
    mhz_266: bool
    mhz_533: bool


class PciXBridge(StandardCapability, frozen=True, tag="pci-x-bridge"):
    """PCI-X of a bridge."""

    secondary_64bit: bool
    secondary_133mhz: bool
    secondary_split_completion_discarded: bool
    secondary_unexpected_split_completion: bool
    secondary_split_completion_overrun: bool
    secondary_split_request_delayed: bool
    secondary_mode: int
    """Secondary Bus Mode and Frequency, 4 bits: 0 conventional, 1 to 3 mode 1 at 66, 100, 133 MHz, above: mode 2."""
    version: int
    secondary_266mhz: bool
    secondary_533mhz: bool
    bus: int
    device: int
    function: int
    width_64bit: bool
    mhz_133: bool
    split_completion_discarded: bool
    unexpected_split_completion: bool
    split_completion_overrun: bool
    split_request_delayed: bool
    upstream_capacity: int
    """Split transactions of the bridge from the secondary side, in units of 128 bytes."""
    upstream_limit: int
    downstream_capacity: int
    downstream_limit: int


def decode(config: bytes, offset: int, report: Report) -> PciX | PciXBridge | TruncatedCapability:
    if config[0x0E] & 0x7F == 1:
        return _bridge(config, offset, report)
    command, status = _ENDPOINT.unpack_from(config, offset + 2)
    return PciX(
        offset,
        data_parity_recovery=command & 0x1 != 0,
        relaxed_ordering=command & 0x2 != 0,
        max_read=512 << (command >> 2 & 3),
        max_outstanding=_OUTSTANDING[command >> 4 & 7],
        version=command >> 12 & 3,
        bus=status >> 8 & 0xFF,
        device=status >> 3 & 0x1F,
        function=status & 7,
        width_64bit=status & 0x10000 != 0,
        mhz_133=status & 0x20000 != 0,
        split_completion_discarded=status & 0x40000 != 0,
        unexpected_split_completion=status & 0x80000 != 0,
        bridge=status & 0x100000 != 0,
        designed_max_read=512 << (status >> 21 & 3),
        designed_max_outstanding=_OUTSTANDING[status >> 23 & 7],
        designed_max_cumulative_read=1024 << (status >> 26 & 7),
        split_completion_error=status & 0x20000000 != 0,
        mhz_266=status & 0x40000000 != 0,
        mhz_533=status & 0x80000000 != 0,
    )


def _bridge(config: bytes, offset: int, report: Report) -> PciXBridge | TruncatedCapability:
    if min(len(config), 0x100) < offset + 16:
        return truncated(config, offset, 0x07, report)
    secondary, status, up_capacity, up_limit, down_capacity, down_limit = _BRIDGE.unpack_from(config, offset + 2)
    return PciXBridge(
        offset,
        secondary_64bit=secondary & 0x1 != 0,
        secondary_133mhz=secondary & 0x2 != 0,
        secondary_split_completion_discarded=secondary & 0x4 != 0,
        secondary_unexpected_split_completion=secondary & 0x8 != 0,
        secondary_split_completion_overrun=secondary & 0x10 != 0,
        secondary_split_request_delayed=secondary & 0x20 != 0,
        secondary_mode=secondary >> 6 & 0xF,
        version=secondary >> 12 & 3,
        secondary_266mhz=secondary & 0x4000 != 0,
        secondary_533mhz=secondary & 0x8000 != 0,
        bus=status >> 8 & 0xFF,
        device=status >> 3 & 0x1F,
        function=status & 7,
        width_64bit=status & 0x10000 != 0,
        mhz_133=status & 0x20000 != 0,
        split_completion_discarded=status & 0x40000 != 0,
        unexpected_split_completion=status & 0x80000 != 0,
        split_completion_overrun=status & 0x100000 != 0,
        split_request_delayed=status & 0x200000 != 0,
        upstream_capacity=up_capacity,
        upstream_limit=up_limit,
        downstream_capacity=down_capacity,
        downstream_limit=down_limit,
    )
