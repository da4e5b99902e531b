# SPDX-License-Identifier: MIT
"""Physical Layer 16.0 GT/s, extended capability 0026h (PCI Express Base 6.0, section 7.7.5)."""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from dom0kit.pci.capabilities import TRUNCATED, ExtendedCapability, Report
from dom0kit.pci.capabilities.port import link_width

LENGTH = 0x20


class LanePresets(msgspec.Struct, frozen=True, gc=False):
    """Transmitter presets of one lane at one speed, 0 to 15."""

    downstream: int
    """Downstream Port Transmitter Preset."""
    upstream: int
    """Upstream Port Transmitter Preset."""


class Physical16(ExtendedCapability, frozen=True, tag="physical-layer-16"):
    """A link of 16 GT/s: equalisation and parity errors."""

    equalization_complete: bool
    phase1_successful: bool
    phase2_successful: bool
    phase3_successful: bool
    equalization_request: bool
    """Link Equalization Request."""
    local_parity_mismatch: int
    """Bit n for lane n."""
    first_retimer_parity_mismatch: int
    second_retimer_parity_mismatch: int
    lanes: tuple[LanePresets, ...]
    """As many as the maximum link width."""


_REGISTERS: Final = struct.Struct("<4I")


def decode(config: bytes, offset: int, report: Report) -> Physical16:
    status, local, first, second = _REGISTERS.unpack_from(config, offset + 0xC)
    return Physical16(
        offset=offset,
        version=config[offset + 2] & 0xF,
        equalization_complete=status & 1 != 0,
        phase1_successful=status & 2 != 0,
        phase2_successful=status & 4 != 0,
        phase3_successful=status & 8 != 0,
        equalization_request=status & 0x10 != 0,
        local_parity_mismatch=local,
        first_retimer_parity_mismatch=first,
        second_retimer_parity_mismatch=second,
        lanes=lane_presets(config, offset + 0x20, report),
    )


def lane_presets(config: bytes, at: int, report: Report) -> tuple[LanePresets, ...]:
    """Lane Equalization Control registers, one byte a lane, as many as the maximum link width; same at 32, 64 GT/s."""
    width = link_width(config)
    lanes = tuple(LanePresets(value & 0xF, value >> 4) for value in config[at : at + width])
    if len(lanes) < width:
        report(TRUNCATED, f"{width} lanes, but the equalisation of only {len(lanes)} is readable")
    return lanes
