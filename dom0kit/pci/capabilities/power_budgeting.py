# SPDX-License-Identifier: MIT
"""Power Budgeting, extended capability 0004h (PCI Express Base 6.0, section 7.8.1)."""

from __future__ import annotations

import struct
from typing import Final

from dom0kit.pci.capabilities import ExtendedCapability, Report

LENGTH = 0x10


class PowerBudgeting(ExtendedCapability, frozen=True, tag="power-budgeting"):
    """What a card draws in one operating condition: the one that the Data Select register chose when it was read."""

    data_select: int
    """0 to 255."""
    base_power: int
    """0 to 255, in units of `scale`; from 0xf0 with scale 0, a range: see `milliwatts`."""
    scale: int
    """0 for 1 W, 1 for 0.1 W, 2 for 0.01 W, 3 for 0.001 W."""
    milliwatts: int | None
    """Power drawn; for the encodings F0h to F7h at scale 0 the upper end of the range (250 W, then in steps of 25 W
    up to 425 W); None for the reserved ones above."""
    sub_state: int
    """PM Sub State, 0 to 7; 0 for the default one."""
    power_state: int
    """PM State: 0 to 3 for D0 to D3."""
    type: int
    """0 PME aux, 1 auxiliary, 2 idle, 3 sustained, 4 sustained in emergency power reduction, 5 maximum in emergency
    power reduction, 7 maximum; 6 reserved."""
    rail: int
    """0 for 12 V, 1 for 3.3 V, 2 for 1.5 V or 1.8 V, 7 for thermal; others reserved."""
    system_allocated: bool
    """The device's power is already in the system's budget: ignore the data."""


_REGISTERS: Final = struct.Struct("<III")
_MILLIWATTS: Final = (1000, 100, 10, 1)


def decode(config: bytes, offset: int, report: Report) -> PowerBudgeting:
    select, data, capability = _REGISTERS.unpack_from(config, offset + 4)
    base, scale = data & 0xFF, data >> 8 & 3
    milliwatts: int | None = base * _MILLIWATTS[scale]
    if scale == 0 and base >= 0xF0:
        milliwatts = 250_000 + (base - 0xF0) * 25_000 if base <= 0xF7 else None
    return PowerBudgeting(
        offset=offset,
        version=config[offset + 2] & 0xF,
        data_select=select & 0xFF,
        base_power=base,
        scale=scale,
        milliwatts=milliwatts,
        sub_state=data >> 10 & 7,
        power_state=data >> 13 & 3,
        type=data >> 15 & 7,
        rail=data >> 18 & 7,
        system_allocated=capability & 1 != 0,
    )
