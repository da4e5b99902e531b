# SPDX-License-Identifier: MIT
"""CompactPCI Hot Swap capability (PICMG 2.1 R2.0, section 3.1.4)."""

from __future__ import annotations

from dom0kit.pci.capabilities import Report, StandardCapability

LENGTH = 3


class HotSwap(StandardCapability, frozen=True, tag="hot-swap"):
    """The Hot Swap Control and Status register."""

    inserted: bool
    """INS: the board was inserted and nobody took note yet."""
    extraction: bool
    """EXT: extraction is asked for."""
    programming_interface: int
    """0 to 3."""
    led_on: bool
    pending: bool
    """PIE: an insertion or extraction is under way."""
    enum_masked: bool
    """EIM: the ENUM# signal is masked."""
    hiding_armed: bool
    """DHA."""


def decode(config: bytes, offset: int, report: Report) -> HotSwap:
    register = config[offset + 2]
    return HotSwap(
        offset,
        inserted=register & 0x80 != 0,
        extraction=register & 0x40 != 0,
        programming_interface=register >> 4 & 3,
        led_on=register & 0x8 != 0,
        pending=register & 0x4 != 0,
        enum_masked=register & 0x2 != 0,
        hiding_armed=register & 0x1 != 0,
    )
