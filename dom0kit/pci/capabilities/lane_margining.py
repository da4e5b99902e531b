# SPDX-License-Identifier: MIT
"""Lane Margining at the Receiver, extended capability 0027h (PCI Express Base 6.0, section 7.7.8)."""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from dom0kit.pci.capabilities import TRUNCATED, ExtendedCapability, Report
from dom0kit.pci.capabilities.port import link_width

LENGTH = 8


class MarginCommand(msgspec.Struct, frozen=True, gc=False):
    """A margining command, or the answer to one."""

    receiver: int
    """Receiver Number, 0 to 7."""
    type: int
    """Margin Type, 0 to 7."""
    usage_model: int
    """0 for lane margining at the receiver; 1 reserved."""
    payload: int
    """0 to 255."""


class LaneMargin(msgspec.Struct, frozen=True, gc=False):
    """One lane."""

    control: MarginCommand
    status: MarginCommand


class LaneMargining(ExtendedCapability, frozen=True, tag="lane-margining"):
    """Measuring how much margin a running link has."""

    uses_software: bool
    """Margining uses Driver Software."""
    ready: bool
    """Margining Ready."""
    software_ready: bool
    """Margining Software Ready."""
    lanes: tuple[LaneMargin, ...]
    """As many as the maximum link width."""


_PORT: Final = struct.Struct("<HH")
_LANE: Final = struct.Struct("<HH")


def decode(config: bytes, offset: int, report: Report) -> LaneMargining:
    capability, status = _PORT.unpack_from(config, offset + 4)
    width = link_width(config)
    readable = min(width, (len(config) - offset - 8) // 4)
    if readable < width:
        report(TRUNCATED, f"{width} lanes, but the margins of only {readable} are readable")
    return LaneMargining(
        offset=offset,
        version=config[offset + 2] & 0xF,
        uses_software=capability & 1 != 0,
        ready=status & 1 != 0,
        software_ready=status & 2 != 0,
        lanes=tuple(
            LaneMargin(_command(control), _command(answer))
            for control, answer in _LANE.iter_unpack(config[offset + 8 : offset + 8 + 4 * readable])
        ),
    )


def _command(bits: int) -> MarginCommand:
    return MarginCommand(bits & 7, bits >> 3 & 7, bits >> 6 & 1, bits >> 8)
