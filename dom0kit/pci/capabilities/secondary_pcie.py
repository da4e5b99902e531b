# SPDX-License-Identifier: MIT
"""Secondary PCI Express, extended capability 0019h (PCI Express Base 6.0, section 7.7.3)."""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from dom0kit.pci.capabilities import TRUNCATED, ExtendedCapability, Report
from dom0kit.pci.capabilities.port import link_width

LENGTH = 0xC


class LaneEqualization8(msgspec.Struct, frozen=True, gc=False):
    """Equalisation of one lane at 8 GT/s."""

    downstream_preset: int
    """Downstream Port 8.0 GT/s Transmitter Preset, 0 to 15."""
    downstream_hint: int
    """Downstream Port 8.0 GT/s Receiver Preset Hint, 0 to 7."""
    upstream_preset: int
    """Upstream Port 8.0 GT/s Transmitter Preset, 0 to 15."""
    upstream_hint: int
    """Upstream Port 8.0 GT/s Receiver Preset Hint, 0 to 7."""


class SecondaryPciExpress(ExtendedCapability, frozen=True, tag="secondary-pcie"):
    """A link of 8 GT/s or more."""

    perform_equalization: bool
    equalization_interrupt: bool
    """Link Equalization Request Interrupt Enable."""
    lower_skp_generation: int
    """Enable Lower SKP OS Generation Vector: bit 0 for 2.5 GT/s, 1 for 5, 2 for 8, 3 for 16, 4 for 32."""
    lane_errors: tuple[int, ...]
    """Lanes with an error detected (Lane Error Status), 0 to 31, ascending."""
    lanes: tuple[LaneEqualization8, ...]
    """As many as the maximum link width."""


_REGISTERS: Final = struct.Struct("<II")


def decode(config: bytes, offset: int, report: Report) -> SecondaryPciExpress:
    control, errors = _REGISTERS.unpack_from(config, offset + 4)
    width = link_width(config)
    start = offset + 0xC
    readable = min(width, (len(config) - start) // 2)
    if readable < width:
        report(TRUNCATED, f"{width} lanes, but the equalisation of only {readable} is readable")
    return SecondaryPciExpress(
        offset=offset,
        version=config[offset + 2] & 0xF,
        perform_equalization=control & 1 != 0,
        equalization_interrupt=control & 2 != 0,
        lower_skp_generation=control >> 9 & 0x7F,
        lane_errors=tuple(n for n in range(32) if errors >> n & 1) if errors else (),
        lanes=tuple(
            LaneEqualization8(v & 0xF, v >> 4 & 7, v >> 8 & 0xF, v >> 12 & 7)
            for v in struct.unpack_from(f"<{readable}H", config, start)
        ),
    )
