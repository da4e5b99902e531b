# SPDX-License-Identifier: MIT
"""Designated Vendor-Specific Extended Capability, 0023h (PCI Express Base 6.0, section 7.9.6)."""

from __future__ import annotations

import struct
from typing import Final

from dom0kit.pci.capabilities import ExtendedCapability, Report, cxl
from dom0kit.pci.capabilities.vsec import check_length
from dom0kit.serial import Hex

LENGTH = 0xA

CXL_VENDOR = 0x1E98


class DesignatedVendorSpecific(ExtendedCapability, frozen=True, tag="designated-vendor-specific"):
    """Registers that a vendor, not necessarily the function's, defines: CXL above all."""

    vendor: int
    """DVSEC Vendor ID."""
    revision: int
    """DVSEC Revision, 0 to 15."""
    length: int
    """DVSEC Length in bytes with the headers, as the register says, 0 to 4095."""
    id: int
    """DVSEC ID, 16 bits, the vendor's own numbering."""
    data: Hex
    """What follows the id, as far as `length` says and config space holds."""
    cxl: cxl.Cxl | None = None
    """What the data mean, where the vendor is the CXL consortium and the id is known."""


_HEADERS: Final = struct.Struct("<IH")


def decode(config: bytes, offset: int, report: Report) -> DesignatedVendorSpecific:
    header, id = _HEADERS.unpack_from(config, offset + 4)
    vendor, length = header & 0xFFFF, header >> 20
    check_length(offset, length, LENGTH, report)
    body = config[offset : offset + length]
    return DesignatedVendorSpecific(
        offset=offset,
        version=config[offset + 2] & 0xF,
        vendor=vendor,
        revision=header >> 16 & 0xF,
        length=length,
        id=id,
        data=body[LENGTH:].hex(),
        cxl=cxl.decode(id, body, report) if vendor == CXL_VENDOR else None,
    )
