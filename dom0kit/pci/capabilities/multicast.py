# SPDX-License-Identifier: MIT
"""Multicast, extended capability 0012h (PCI Express Base 6.0, section 7.9.11)."""

from __future__ import annotations

import struct
from typing import Final

from dom0kit.pci.capabilities import ExtendedCapability, Report
from dom0kit.pci.capabilities.port import DOWNSTREAM_PORT, ROOT_PORT, UPSTREAM_PORT, port_type

LENGTH = 0x28


class Multicast(ExtendedCapability, frozen=True, tag="multicast"):
    """A part of the memory space whose writes go to several functions."""

    maximum_groups: int
    """1 to 64 (the register holds one less)."""
    window_size_requested: int | None
    """MC_Window_Size_Requested, log2 of bytes, 0 to 63; None for root and switch ports, where it is reserved."""
    ecrc_regeneration: bool
    """MC_ECRC_Regeneration_Supported."""
    groups: int
    """MC_Num_Group plus one: groups in use, 1 to 64."""
    enabled: bool
    index_position: int
    """MC_Index_Position: number of the address bit where the group number begins, 0 to 63."""
    base_address: int
    """MC_Base_Address, 4 KiB aligned."""
    receive: int
    """Bit n: take group n."""
    block_all: int
    """Bit n: drop what is for group n."""
    block_untranslated: int
    """Bit n: drop what is for group n with an untranslated address."""
    overlay_size: int | None
    """MC_Overlay_Size, log2 of bytes; below 6 there is no overlay. None for what is not a root or switch port."""
    overlay_base: int | None
    """MC_Overlay_BAR, 64-byte aligned."""


_REGISTERS: Final = struct.Struct("<HH4Q")
_OVERLAY: Final = struct.Struct("<Q")


def decode(config: bytes, offset: int, report: Report) -> Multicast:
    capability, control, base, receive, block_all, block_untranslated = _REGISTERS.unpack_from(config, offset + 4)
    is_port = port_type(config) in (ROOT_PORT, UPSTREAM_PORT, DOWNSTREAM_PORT)
    overlay_size = overlay_base = None
    if is_port and offset + 0x30 <= len(config):
        (overlay,) = _OVERLAY.unpack_from(config, offset + 0x28)
        overlay_size, overlay_base = overlay & 0x3F, overlay & ~0x3F
    return Multicast(
        offset=offset,
        version=config[offset + 2] & 0xF,
        maximum_groups=(capability & 0x3F) + 1,
        window_size_requested=None if is_port else capability >> 8 & 0x3F,
        ecrc_regeneration=capability & 0x8000 != 0,
        groups=(control & 0x3F) + 1,
        enabled=control & 0x8000 != 0,
        index_position=base & 0x3F,
        base_address=base & ~0xFFF,
        receive=receive,
        block_all=block_all,
        block_untranslated=block_untranslated,
        overlay_size=overlay_size,
        overlay_base=overlay_base,
    )
