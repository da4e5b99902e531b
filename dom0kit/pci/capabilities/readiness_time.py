# SPDX-License-Identifier: MIT
"""Readiness Time Reporting, extended capability 0022h (PCI Express Base 6.0, section 7.9.16)."""

from __future__ import annotations

import struct
from typing import Final

from dom0kit.pci.capabilities import ExtendedCapability, Report

LENGTH = 0xC


class ReadinessTimeReporting(ExtendedCapability, frozen=True, tag="readiness-time"):
    """How long a function needs until it can be configured. Times in ns; None where the scale is reserved."""

    valid: bool
    """The times below may be used."""
    reset_time: int | None
    """After a conventional reset."""
    dl_up_time: int | None
    """After the link has come up."""
    flr_time: int | None
    """After a function-level reset."""
    d3hot_to_d0_time: int | None


_REGISTERS: Final = struct.Struct("<II")


def decode(config: bytes, offset: int, report: Report) -> ReadinessTimeReporting:
    first, second = _REGISTERS.unpack_from(config, offset + 4)
    return ReadinessTimeReporting(
        offset=offset,
        version=config[offset + 2] & 0xF,
        valid=first & 0x80000000 != 0,
        reset_time=_nanoseconds(first),
        dl_up_time=_nanoseconds(first >> 12),
        flr_time=_nanoseconds(second),
        d3hot_to_d0_time=_nanoseconds(second >> 12),
    )


def _nanoseconds(field: int) -> int | None:
    scale = field >> 9 & 7
    return (field & 0x1FF) << 5 * scale if scale < 6 else None
