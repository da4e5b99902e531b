# SPDX-License-Identifier: MIT
"""Alternate Protocol, extended capability 002Bh (PCI Express Base 6.0, section 7.9.21)."""

from __future__ import annotations

import struct
from typing import Final

from dom0kit.pci.capabilities import ExtendedCapability, Report

LENGTH = 0x14


class AlternateProtocol(ExtendedCapability, frozen=True, tag="alternate-protocol"):
    """Protocols other than PCI Express that a link can train to; of one of them, the one selected, what it is."""

    count: int
    """Alternate Protocol Count, 0 to 255; 0 is PCI Express itself alone."""
    selective_enable_capable: bool
    index: int
    """Alternate Protocol Index Select, 0 to 255."""
    negotiation_enabled: bool
    """Alternate Protocol Negotiation Global Enable."""
    usage: int
    """Alternate Protocol Usage Information, 0 to 7."""
    details: int
    """Alternate Protocol Details, 11 bits."""
    vendor: int
    """Alternate Protocol Vendor ID."""
    information2: int
    """Modified TS Information 2, 24 bits."""
    selective_enable: int | None
    """Selective Enable Mask, bit n for protocol n; None where that cannot be done, or not read."""


_REGISTERS: Final = struct.Struct("<IIII")


def decode(config: bytes, offset: int, report: Report) -> AlternateProtocol:
    capability, control, data1, data2 = _REGISTERS.unpack_from(config, offset + 4)
    mask = None
    if capability & 0x100 and offset + 0x18 <= len(config):
        (mask,) = struct.unpack_from("<I", config, offset + 0x14)
    return AlternateProtocol(
        offset=offset,
        version=config[offset + 2] & 0xF,
        count=capability & 0xFF,
        selective_enable_capable=capability & 0x100 != 0,
        index=control & 0xFF,
        negotiation_enabled=control & 0x100 != 0,
        usage=data1 & 7,
        details=data1 >> 5 & 0x7FF,
        vendor=data1 >> 16,
        information2=data2 & 0xFFFFFF,
        selective_enable=mask,
    )
