# SPDX-License-Identifier: MIT
"""Subsystem ID capability of a bridge (PCI-to-PCI Bridge 1.2, section 3.2.5.13.2)."""

from __future__ import annotations

import struct
from typing import Final

from dom0kit.pci.capabilities import Report, StandardCapability

LENGTH = 8
_REGISTERS: Final = struct.Struct("<HH")


class SubsystemId(StandardCapability, frozen=True, tag="subsystem-id"):
    """Who made the board a bridge sits on."""

    vendor: int
    device: int


def decode(config: bytes, offset: int, report: Report) -> SubsystemId:
    vendor, device = _REGISTERS.unpack_from(config, offset + 4)
    return SubsystemId(offset, vendor, device)
