# SPDX-License-Identifier: MIT
"""Precision Time Measurement, extended capability 001Fh (PCI Express Base 6.0, section 7.9.15)."""

from __future__ import annotations

import struct
from typing import Final

from dom0kit.pci.capabilities import ExtendedCapability, Report

LENGTH = 0xC


class PrecisionTimeMeasurement(ExtendedCapability, frozen=True, tag="ptm"):
    """A common clock for the functions of a hierarchy."""

    requester: bool
    responder: bool
    root: bool
    enhanced: bool
    """ePTM Capable."""
    clock_granularity: int
    """Local Clock Granularity in ns, 1 to 254; 0 without a local clock, 255 for more than 254 ns."""
    enabled: bool
    root_selected: bool
    effective_granularity: int
    """In ns, 1 to 254; 0 unknown, 255 for more than 254 ns."""


_REGISTERS: Final = struct.Struct("<II")


def decode(config: bytes, offset: int, report: Report) -> PrecisionTimeMeasurement:
    capability, control = _REGISTERS.unpack_from(config, offset + 4)
    return PrecisionTimeMeasurement(
        offset=offset,
        version=config[offset + 2] & 0xF,
        requester=capability & 1 != 0,
        responder=capability & 2 != 0,
        root=capability & 4 != 0,
        enhanced=capability & 8 != 0,
        clock_granularity=capability >> 8 & 0xFF,
        enabled=control & 1 != 0,
        root_selected=control & 2 != 0,
        effective_granularity=control >> 8 & 0xFF,
    )
