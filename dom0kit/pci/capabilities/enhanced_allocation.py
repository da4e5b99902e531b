# SPDX-License-Identifier: MIT
"""Enhanced Allocation capability: fixed addresses instead of BARs (PCIe Base 6.0, section 7.8.5)."""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from dom0kit.pci.capabilities import Report, StandardCapability, TruncatedCapability, truncated

LENGTH = 4
_WORD: Final = struct.Struct("<I")


class EaEntry(msgspec.Struct, frozen=True, gc=False):
    """One fixed range."""

    enabled: bool
    writable: bool
    size: int
    """Of the entry: 32-bit words after its first, 0 to 7."""
    bar: int
    """BAR Equivalent Indicator: 0 to 5 BAR, 6 behind the function, 7 not associated, 8 ROM, 9 to 14 VF BAR 0 to 5."""
    primary: int
    """Primary properties: 0 memory, 1 prefetchable memory, 2 I/O; 3 prefetchable memory, 4 memory of VFs; behind a
    bridge 5 memory, 6 prefetchable memory, 7 I/O; 0xfd memory, 0xfe I/O unavailable; 0xff the entry is unavailable."""
    secondary: int
    """Secondary properties, for software that does not know the primary ones."""
    base: int | None
    """None where the entry is too short to hold it."""
    base_64bit: bool
    max_offset: int | None
    """Last address less `base`; its two low bits are ones."""
    max_offset_64bit: bool


class EnhancedAllocation(StandardCapability, frozen=True, tag="enhanced-allocation"):
    """Ranges that a function has at fixed addresses."""

    count: int
    """Entries it claims, 0 to 63."""
    fixed_secondary: int | None
    """Bus numbers of a bridge; None for other functions."""
    fixed_subordinate: int | None
    entries: tuple[EaEntry, ...]
    """Those that are readable."""


def decode(config: bytes, offset: int, report: Report) -> EnhancedAllocation | TruncatedCapability:
    end = min(len(config), 0x100)
    count = config[offset + 2] & 0x3F
    at = offset + 4
    secondary = subordinate = None
    if config[0x0E] & 0x7F == 1:
        if at + 4 > end:
            return truncated(config, offset, 0x14, report)
        secondary, subordinate = config[at], config[at + 1]
        at += 4
    entries: list[EaEntry] = []
    while len(entries) < count and at + 4 <= end:
        size = config[at] & 7
        if at + 4 + size * 4 > end:
            break
        entries.append(_entry(config, at, size))
        at += 4 + size * 4
    if len(entries) < count:
        truncated(config, offset, 0x14, report)
    return EnhancedAllocation(offset, count, secondary, subordinate, tuple(entries))


def _entry(config: bytes, at: int, size: int) -> EaEntry:
    (head,) = _WORD.unpack_from(config, at)
    words = struct.unpack_from(f"<{size}I", config, at + 4)
    base = words[0] if size >= 1 else None
    limit = words[1] if size >= 2 else None
    base_64bit = base is not None and base & 2 != 0
    limit_64bit = limit is not None and limit & 2 != 0
    upper = 2
    if base is not None:
        base &= ~3
        if base_64bit and size > upper:
            base |= words[upper] << 32
            upper += 1
    if limit is not None:
        limit |= 3
        if limit_64bit and size > upper:
            limit |= words[upper] << 32
    return EaEntry(
        enabled=head & 0x80000000 != 0,
        writable=head & 0x40000000 != 0,
        size=size,
        bar=head >> 4 & 0xF,
        primary=head >> 8 & 0xFF,
        secondary=head >> 16 & 0xFF,
        base=base,
        base_64bit=base_64bit,
        max_offset=limit,
        max_offset_64bit=limit_64bit,
    )
