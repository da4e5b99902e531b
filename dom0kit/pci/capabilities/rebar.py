# SPDX-License-Identifier: MIT
"""Resizable BARs: extended capabilities 0015h (the function's own) and 0024h (those of its virtual functions).

Source: PCI Express Base 6.0, sections 7.8.6 (Resizable BAR) and 7.8.7 (VF Resizable BAR).
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from dom0kit.finding import Severity, rule
from dom0kit.pci.capabilities import TRUNCATED, ExtendedCapability, Report

LENGTH = 0xC


class ResizableBar(msgspec.Struct, frozen=True, gc=False):
    """One BAR whose size can be chosen."""

    index: int
    """0 to 5; 6 and 7 are wrong and kept."""
    size: int | None
    """Bytes now; None for an encoding above 8 EiB."""
    supported: tuple[int, ...]
    """Sizes in bytes, 1 MiB to 8 EiB, ascending."""


class ResizableBars(ExtendedCapability, frozen=True, tag="resizable-bars"):
    """BARs whose size can be chosen."""

    count: int
    """Number of Resizable BARs as the first control register says, 0 to 7; 1 to 6 are allowed."""
    bars: tuple[ResizableBar, ...]
    """Empty where `count` is not allowed."""


class VfResizableBars(ExtendedCapability, frozen=True, tag="vf-resizable-bars"):
    """VF BARs whose size can be chosen: sizes are those of one virtual function's slice."""

    count: int
    """As in `ResizableBars`."""
    bars: tuple[ResizableBar, ...]


RESIZABLE: Final = rule(
    "pci.resizable-bar",
    Severity.WARNING,
    title="resizable BAR capability names BARs that do not exist",
    meaning="It counts no BAR or more than six, or gives a BAR an index above 5 or the index of another. Software "
    "that resizes BARs by it writes to other registers.",
    advice="Do not resize BARs of this function; update the device's firmware.",
    specification="PCI Express Base 6.0, sections 7.8.6.3 and 7.8.7.3",
)

_REGISTERS: Final = struct.Struct("<II")
_SIZES: Final = tuple(1 << (20 + n) for n in range(44))


def decode(config: bytes, offset: int, report: Report) -> ResizableBars | VfResizableBars:
    count = config[offset + 8] >> 5
    bars: list[ResizableBar] = []
    if not 1 <= count <= 6:
        report(RESIZABLE, f"the capability at {offset:#05x} counts {count} BARs")
    else:
        seen = set()
        for at in range(offset + 4, offset + 4 + 8 * count, 8):
            if at + 8 > len(config):
                report(TRUNCATED, f"{count} resizable BARs, but only {len(bars)} are readable")
                break
            capability, control = _REGISTERS.unpack_from(config, at)
            index, encoding = control & 7, control >> 8 & 0x3F
            if index > 5 or index in seen:
                report(RESIZABLE, f"entry {len(bars)} of the capability at {offset:#05x} is for BAR {index}")
            seen.add(index)
            mask = capability >> 4 | control >> 16 << 28
            size = _SIZES[encoding] if encoding < 44 else None
            bars.append(ResizableBar(index, size, tuple(size for n, size in enumerate(_SIZES) if mask >> n & 1)))
    kind = VfResizableBars if config[offset] == 0x24 else ResizableBars
    return kind(offset, config[offset + 2] & 0xF, count, tuple(bars))
