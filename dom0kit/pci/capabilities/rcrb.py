# SPDX-License-Identifier: MIT
"""Root Complex Register Block Header, extended capability 000Ah (PCI Express Base 6.0, section 7.9.7)."""

from __future__ import annotations

import struct
from typing import Final

from dom0kit.pci.capabilities import ExtendedCapability, Report

LENGTH = 0x14


class RootComplexRegisterBlock(ExtendedCapability, frozen=True, tag="rcrb-header"):
    """Identity of a root complex register block."""

    vendor: int
    device: int
    rrs_visibility_capable: bool
    """Configuration RRS Software Visibility (CRS before 6.0): the block can return the special value."""
    rrs_visibility_enabled: bool


_REGISTERS: Final = struct.Struct("<HHII")


def decode(config: bytes, offset: int, report: Report) -> RootComplexRegisterBlock:
    vendor, device, capability, control = _REGISTERS.unpack_from(config, offset + 4)
    version = config[offset + 2] & 0xF
    return RootComplexRegisterBlock(offset, version, vendor, device, capability & 1 != 0, control & 1 != 0)
