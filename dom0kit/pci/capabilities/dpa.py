# SPDX-License-Identifier: MIT
"""Dynamic Power Allocation, extended capability 0016h (PCI Express Base 6.0, section 7.9.12)."""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from dom0kit.pci.capabilities import TRUNCATED, ExtendedCapability, Report

LENGTH = 0x10


class DpaSubstate(msgspec.Struct, frozen=True, gc=False):
    """One substate of D0."""

    milliwatts: int
    """Substate Power Allocation."""
    transition_milliseconds: int
    """Longest time to enter it from another."""


class DynamicPowerAllocation(ExtendedCapability, frozen=True, tag="dpa"):
    """Substates of D0 that use less power."""

    maximum_substate: int
    """0 to 31."""
    status: int
    """Substate Status: the one in effect, 0 to 31."""
    control_enabled: bool
    """Substate Control Enabled."""
    control: int
    """Substate Control: the one asked for, 0 to 31."""
    substates: tuple[DpaSubstate, ...]
    """From 0 on, those that fit into config space."""


_REGISTERS: Final = struct.Struct("<IIHH")
_MILLISECONDS: Final = (1, 10, 100, 0)
_MILLIWATTS: Final = (10_000, 1_000, 100, 10)


def decode(config: bytes, offset: int, report: Report) -> DynamicPowerAllocation:
    capability, indicators, status, control = _REGISTERS.unpack_from(config, offset + 4)
    maximum = capability & 0x1F
    unit = _MILLISECONDS[capability >> 8 & 3]
    latencies = ((capability >> 16 & 0xFF) * unit, (capability >> 24) * unit)
    scale = _MILLIWATTS[capability >> 12 & 3]
    powers = config[offset + 0x10 : offset + 0x11 + maximum]
    if len(powers) <= maximum:
        report(TRUNCATED, f"{maximum + 1} power substates are declared, but only {len(powers)} are readable")
    return DynamicPowerAllocation(
        offset=offset,
        version=config[offset + 2] & 0xF,
        maximum_substate=maximum,
        status=status & 0x1F,
        control_enabled=status & 0x100 != 0,
        control=control & 0x1F,
        substates=tuple(DpaSubstate(n * scale, latencies[indicators >> i & 1]) for i, n in enumerate(powers)),
    )
