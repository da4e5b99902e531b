# SPDX-License-Identifier: MIT
"""Secure Device capability: the block of an AMD IOMMU (AMD I/O Virtualization Technology 3.08, section 3.2)."""

from __future__ import annotations

import struct
from typing import Final

from dom0kit.pci.capabilities import Report, StandardCapability, TruncatedCapability, truncated
from dom0kit.serial import Hex

LENGTH = 4
_IOMMU: Final = struct.Struct("<IQII")


class SecureDevice(StandardCapability, frozen=True, tag="secure-device"):
    """A secure device that is no IOMMU."""

    type: int
    """0 to 7; 3 would be an IOMMU."""
    raw: Hex
    """The first 16 bytes, as many as there are."""


class AmdIommu(StandardCapability, frozen=True, tag="amd-iommu"):
    """Where an AMD IOMMU's registers are, and what it can do."""

    revision: int
    iotlb: bool
    """Supports remote IOTLBs (ATS)."""
    hypertransport_tunnel: bool
    not_present_cache: bool
    extended_features: bool
    """Has an Extended Feature register."""
    extended: bool
    """Has the second Miscellaneous Information register."""
    enabled: bool
    """The register base is fixed until the next reset."""
    base: int
    """Physical address of the registers."""
    range_valid: bool
    unit_id: int
    bus: int
    first_device: int
    """Device and function in 8 bits."""
    last_device: int
    message: int
    """MSI message number."""
    gva_size: int
    pa_size: int
    va_size: int
    ats_reserved: bool
    """The ATS response address range is reserved (HtAtsResv)."""
    ppr_message: int
    """MSI message number of the peripheral page request log."""


def decode(config: bytes, offset: int, report: Report) -> SecureDevice | AmdIommu | TruncatedCapability:
    type = config[offset + 2] & 7
    end = min(len(config), 0x100)
    if type != 3:
        return SecureDevice(offset, type, config[offset : min(offset + 16, end)].hex())
    if offset + 20 > end:
        return truncated(config, offset, 0x0F, report)
    header, base, range, miscellaneous = _IOMMU.unpack_from(config, offset)
    return AmdIommu(
        offset,
        revision=header >> 19 & 0x1F,
        iotlb=header & 0x1000000 != 0,
        hypertransport_tunnel=header & 0x2000000 != 0,
        not_present_cache=header & 0x4000000 != 0,
        extended_features=header & 0x8000000 != 0,
        extended=header & 0x10000000 != 0,
        enabled=base & 1 != 0,
        base=base & ~0x3FFF,
        range_valid=range & 0x80 != 0,
        unit_id=range & 0x1F,
        bus=range >> 8 & 0xFF,
        first_device=range >> 16 & 0xFF,
        last_device=range >> 24,
        message=miscellaneous & 0x1F,
        gva_size=miscellaneous >> 5 & 7,
        pa_size=miscellaneous >> 8 & 0x7F,
        va_size=miscellaneous >> 15 & 0x7F,
        ats_reserved=miscellaneous & 0x400000 != 0,
        ppr_message=miscellaneous >> 27,
    )
