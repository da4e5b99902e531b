# SPDX-License-Identifier: MIT
"""Latency Tolerance Reporting, extended capability 0018h (PCI Express Base 6.0, section 7.8.2)."""

from __future__ import annotations

import struct
from typing import Final

from dom0kit.pci.capabilities import ExtendedCapability, Report

LENGTH = 8


class LatencyToleranceReporting(ExtendedCapability, frozen=True, tag="ltr"):
    """The most that the platform lets the device ask for."""

    maximum_snoop: int | None
    """Max Snoop Latency in ns; None where the scale is reserved."""
    maximum_no_snoop: int | None
    """Max No-Snoop Latency in ns; None where the scale is reserved."""


_REGISTERS: Final = struct.Struct("<HH")


def decode(config: bytes, offset: int, report: Report) -> LatencyToleranceReporting:
    snoop, no_snoop = _REGISTERS.unpack_from(config, offset + 4)
    return LatencyToleranceReporting(offset, config[offset + 2] & 0xF, _nanoseconds(snoop), _nanoseconds(no_snoop))


def _nanoseconds(register: int) -> int | None:
    scale = register >> 10 & 7
    return (register & 0x3FF) << 5 * scale if scale < 6 else None
