# SPDX-License-Identifier: MIT
"""Capability of a Standard Hot-Plug Controller (PCI Standard Hot-Plug Controller 1.0, section 4.1)."""

from __future__ import annotations

import struct
from typing import Final

from dom0kit.pci.capabilities import Report, StandardCapability

LENGTH = 8
_REGISTERS: Final = struct.Struct("<BBI")


class HotPlug(StandardCapability, frozen=True, tag="hot-plug"):
    """The window to the controller's working registers, as it was left."""

    dword_select: int
    """Which 32-bit working register `data` shows."""
    serr_pending: bool
    interrupt_pending: bool
    data: int


def decode(config: bytes, offset: int, report: Report) -> HotPlug:
    select, pending, data = _REGISTERS.unpack_from(config, offset + 2)
    return HotPlug(offset, select, pending & 0x40 != 0, pending & 0x80 != 0, data)
