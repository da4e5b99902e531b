# SPDX-License-Identifier: MIT
"""Physical Layer 64.0 GT/s, extended capability 0031h (PCI Express Base 6.0, section 7.7.7)."""

from __future__ import annotations

import struct
from typing import Final

from dom0kit.pci.capabilities import ExtendedCapability, Report
from dom0kit.pci.capabilities.physical_16gt import LanePresets, lane_presets

LENGTH = 0x10


class Physical64(ExtendedCapability, frozen=True, tag="physical-layer-64"):
    """A link of 64 GT/s: equalisation."""

    equalization_complete: bool
    phase1_successful: bool
    phase2_successful: bool
    phase3_successful: bool
    equalization_request: bool
    """Link Equalization Request."""
    precoding_on: bool
    """Transmitter Precoding On."""
    precode_request: bool
    """Transmitter Precode Request."""
    no_equalization_received: bool
    """No Equalization Needed Received."""
    lanes: tuple[LanePresets, ...]
    """As many as the maximum link width."""


_STATUS: Final = struct.Struct("<I")


def decode(config: bytes, offset: int, report: Report) -> Physical64:
    (status,) = _STATUS.unpack_from(config, offset + 0xC)
    return Physical64(
        offset=offset,
        version=config[offset + 2] & 0xF,
        equalization_complete=status & 1 != 0,
        phase1_successful=status & 2 != 0,
        phase2_successful=status & 4 != 0,
        phase3_successful=status & 8 != 0,
        equalization_request=status & 0x10 != 0,
        precoding_on=status & 0x20 != 0,
        precode_request=status & 0x40 != 0,
        no_equalization_received=status & 0x80 != 0,
        lanes=lane_presets(config, offset + 0x10, report),
    )
