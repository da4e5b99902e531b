# SPDX-License-Identifier: MIT
"""Process Address Space ID, extended capability 001Bh (PCI Express Base 6.0, section 7.8.9)."""

from __future__ import annotations

import struct
from typing import Final

from dom0kit.pci.capabilities import ExtendedCapability, Report

LENGTH = 8


class ProcessAddressSpaceId(ExtendedCapability, frozen=True, tag="pasid"):
    """A function that tells the IOMMU for which process a request is."""

    execute_capable: bool
    """Execute Permission Supported."""
    privileged_capable: bool
    """Privileged Mode Supported."""
    translated_capable: bool
    """Translated Requests with PASID Supported."""
    maximum_width: int
    """Max PASID Width in bits, 0 to 20; up to 31 as found."""
    enabled: bool
    execute_enabled: bool
    privileged_enabled: bool
    translated_enabled: bool


_REGISTERS: Final = struct.Struct("<HH")


def decode(config: bytes, offset: int, report: Report) -> ProcessAddressSpaceId:
    capability, control = _REGISTERS.unpack_from(config, offset + 4)
    return ProcessAddressSpaceId(
        offset=offset,
        version=config[offset + 2] & 0xF,
        execute_capable=capability & 2 != 0,
        privileged_capable=capability & 4 != 0,
        translated_capable=capability & 8 != 0,
        maximum_width=capability >> 8 & 0x1F,
        enabled=control & 1 != 0,
        execute_enabled=control & 2 != 0,
        privileged_enabled=control & 4 != 0,
        translated_enabled=control & 8 != 0,
    )
