# SPDX-License-Identifier: MIT
"""Root Complex Internal Link Control, extended capability 0006h (PCI Express Base 6.0, section 7.9.9)."""

from __future__ import annotations

import struct
from typing import Final

from dom0kit.pci.capabilities import ExtendedCapability, Report

LENGTH = 0xC


class RootComplexInternalLink(ExtendedCapability, frozen=True, tag="root-complex-internal-link"):
    """An internal link between two components of a root complex."""

    maximum_speed: int
    """Max Link Speed: bit number in `speeds`, 1 for 2.5 GT/s; 0 to 15."""
    maximum_width: int
    """Lanes, 0 to 63."""
    aspm_l0s: bool
    aspm_l1: bool
    l0s_exit_latency: int
    """0 below 64 ns, each step doubles, 7 above 4 us."""
    l1_exit_latency: int
    """0 below 1 us, each step doubles, 7 above 64 us."""
    speeds: int
    """Supported Link Speeds Vector: bit 0 for 2.5 GT/s, 1 for 5, 2 for 8, 3 for 16, 4 for 32, 5 for 64."""
    aspm_l0s_enabled: bool
    aspm_l1_enabled: bool
    extended_synch: bool
    current_speed: int
    """As `maximum_speed`."""
    width: int
    """Negotiated Link Width in lanes, 0 to 63."""


_REGISTERS: Final = struct.Struct("<IHH")


def decode(config: bytes, offset: int, report: Report) -> RootComplexInternalLink:
    capability, control, status = _REGISTERS.unpack_from(config, offset + 4)
    return RootComplexInternalLink(
        offset=offset,
        version=config[offset + 2] & 0xF,
        maximum_speed=capability & 0xF,
        maximum_width=capability >> 4 & 0x3F,
        aspm_l0s=capability & 0x400 != 0,
        aspm_l1=capability & 0x800 != 0,
        l0s_exit_latency=capability >> 12 & 7,
        l1_exit_latency=capability >> 15 & 7,
        speeds=capability >> 18 & 0x7F,
        aspm_l0s_enabled=control & 1 != 0,
        aspm_l1_enabled=control & 2 != 0,
        extended_synch=control & 0x80 != 0,
        current_speed=status & 0xF,
        width=status >> 4 & 0x3F,
    )
