# SPDX-License-Identifier: MIT
"""Vital Product Data capability (PCI Local Bus 3.0, appendix I). Only the registers: reading the data needs writes."""

from __future__ import annotations

import struct
from typing import Final

from dom0kit.pci.capabilities import Report, StandardCapability

LENGTH = 8
_REGISTERS: Final = struct.Struct("<HI")


class VitalProductData(StandardCapability, frozen=True, tag="vpd"):
    """The window through which vital product data is read, as it was left."""

    address: int
    """15 bits."""
    done: bool
    """Flag F: after a read, the data register holds the word."""
    data: int


def decode(config: bytes, offset: int, report: Report) -> VitalProductData:
    address, data = _REGISTERS.unpack_from(config, offset + 2)
    return VitalProductData(offset, address & 0x7FFF, address & 0x8000 != 0, data)
