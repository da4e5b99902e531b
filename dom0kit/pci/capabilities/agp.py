# SPDX-License-Identifier: MIT
"""AGP capability (AGP 3.0, section 4.1)."""

from __future__ import annotations

import struct
from typing import Final

from dom0kit.pci.capabilities import Report, StandardCapability

LENGTH = 12
_REGISTERS: Final = struct.Struct("<II")


class Agp(StandardCapability, frozen=True, tag="agp"):
    """Accelerated Graphics Port: what the port can do and what is switched on."""

    major: int
    minor: int
    request_depth: int
    """Requests that can be outstanding: 1 to 256."""
    isochronous: bool
    request_size: int
    """Field ARQSZ: log2 of the optimum asynchronous request size in bytes, less 4."""
    calibration_cycle: int
    """Field CAL_CYCLE, 0 to 7."""
    sideband: bool
    coherent: bool
    """Field ITA_COH: accesses inside the aperture are coherent."""
    gart_64bit: bool
    host_translated: bool
    """Field HTRANS#."""
    over_4g: bool
    fast_write: bool
    agp3_mode: bool
    rates: int
    """Field RATE, 3 bits: 1x, 2x, 4x; in AGP 3 mode 4x, 8x."""
    command_request_depth: int
    """1 to 256."""
    command_request_size: int
    command_calibration_cycle: int
    command_sideband: bool
    enabled: bool
    command_gart_64bit: bool
    command_over_4g: bool
    command_fast_write: bool
    command_rate: int
    """3 bits; 0 none."""


def decode(config: bytes, offset: int, report: Report) -> Agp:
    version = config[offset + 2]
    status, command = _REGISTERS.unpack_from(config, offset + 4)
    return Agp(
        offset,
        major=version >> 4,
        minor=version & 0xF,
        request_depth=(status >> 24) + 1,
        isochronous=status & 0x10000 != 0,
        request_size=status >> 13 & 7,
        calibration_cycle=status >> 10 & 7,
        sideband=status & 0x200 != 0,
        coherent=status & 0x100 != 0,
        gart_64bit=status & 0x80 != 0,
        host_translated=status & 0x40 == 0,
        over_4g=status & 0x20 != 0,
        fast_write=status & 0x10 != 0,
        agp3_mode=status & 0x8 != 0,
        rates=status & 7,
        command_request_depth=(command >> 24) + 1,
        command_request_size=command >> 13 & 7,
        command_calibration_cycle=command >> 10 & 7,
        command_sideband=command & 0x200 != 0,
        enabled=command & 0x100 != 0,
        command_gart_64bit=command & 0x80 != 0,
        command_over_4g=command & 0x20 != 0,
        command_fast_write=command & 0x10 != 0,
        command_rate=command & 7,
    )
