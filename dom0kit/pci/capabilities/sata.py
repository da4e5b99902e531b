# SPDX-License-Identifier: MIT
"""SATA HBA capability (AHCI 1.3.1, section 2.4)."""

from __future__ import annotations

import struct
from typing import Final

from dom0kit.pci.capabilities import Report, StandardCapability

LENGTH = 8
_REGISTERS: Final = struct.Struct("<BxI")


class SataHba(StandardCapability, frozen=True, tag="sata"):
    """Where a SATA controller's index and data registers lie."""

    major: int
    minor: int
    location: int
    """4 to 9: BAR 0 to 5; 15: in config space, right after this capability; others are reserved."""
    location_offset: int
    """Bytes from the start of the BAR; the register counts in doublewords, 20 bits."""


def decode(config: bytes, offset: int, report: Report) -> SataHba:
    revision, place = _REGISTERS.unpack_from(config, offset + 2)
    return SataHba(offset, revision >> 4, revision & 0xF, place & 0xF, (place >> 4 & 0xFFFFF) * 4)
