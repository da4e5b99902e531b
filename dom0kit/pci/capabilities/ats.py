# SPDX-License-Identifier: MIT
"""Address Translation Services, extended capability 000Fh (PCI Express Base 6.0, section 10.5.1)."""

from __future__ import annotations

import struct
from typing import Final

from dom0kit.pci.capabilities import ExtendedCapability, Report

LENGTH = 8


class AddressTranslationServices(ExtendedCapability, frozen=True, tag="ats"):
    """A function that asks the IOMMU for translations and keeps them."""

    invalidate_queue_depth: int
    """Invalidate requests that the function takes at once, 1 to 32."""
    page_aligned_request: bool
    global_invalidate: bool
    """Global Invalidate Supported (with PASID)."""
    relaxed_ordering: bool
    """Relaxed Ordering Supported in translation requests."""
    smallest_translation_unit: int
    """STU, 0 to 31: translations cover at least 2**(STU + 12) bytes."""
    enabled: bool


_REGISTERS: Final = struct.Struct("<HH")


def decode(config: bytes, offset: int, report: Report) -> AddressTranslationServices:
    capability, control = _REGISTERS.unpack_from(config, offset + 4)
    return AddressTranslationServices(
        offset=offset,
        version=config[offset + 2] & 0xF,
        invalidate_queue_depth=capability & 0x1F or 32,
        page_aligned_request=capability & 0x20 != 0,
        global_invalidate=capability & 0x40 != 0,
        relaxed_ordering=capability & 0x80 != 0,
        smallest_translation_unit=control & 0x1F,
        enabled=control & 0x8000 != 0,
    )
