# SPDX-License-Identifier: MIT
"""LN Requester, extended capability 001Ch (PCI Express Base 5.0, section 7.9.14; removed in 6.0)."""

from __future__ import annotations

import struct
from typing import Final

from dom0kit.pci.capabilities import ExtendedCapability, Report

LENGTH = 8


class LnRequester(ExtendedCapability, frozen=True, tag="ln-requester"):
    """Lightweight notification: a function is told when a cache line changes."""

    lines_64: bool
    """LNR-64 Supported."""
    lines_128: bool
    """LNR-128 Supported."""
    maximum_registrations: int
    """LNR Registration MAX, log2, 0 to 31."""
    enabled: bool
    lines_128_selected: bool
    """LNR CLS: the cache line size in use is 128 bytes, not 64."""
    registration_limit: int
    """LNR Registration Limit, log2, 0 to 31."""


_REGISTERS: Final = struct.Struct("<HH")


def decode(config: bytes, offset: int, report: Report) -> LnRequester:
    capability, control = _REGISTERS.unpack_from(config, offset + 4)
    return LnRequester(
        offset=offset,
        version=config[offset + 2] & 0xF,
        lines_64=capability & 1 != 0,
        lines_128=capability & 2 != 0,
        maximum_registrations=capability >> 8 & 0x1F,
        enabled=control & 1 != 0,
        lines_128_selected=control & 2 != 0,
        registration_limit=control >> 8 & 0x1F,
    )
