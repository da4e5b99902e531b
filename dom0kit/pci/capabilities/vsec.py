# SPDX-License-Identifier: MIT
"""Vendor-Specific Extended Capability, 000Bh (PCI Express Base 6.0, section 7.9.5)."""

from __future__ import annotations

import struct
from typing import Final

from dom0kit.finding import Severity, rule
from dom0kit.pci.capabilities import ExtendedCapability, Report
from dom0kit.serial import Hex

LENGTH = 8


class VendorSpecificExtended(ExtendedCapability, frozen=True, tag="vendor-specific-extended"):
    """Registers that the function's vendor defines."""

    id: int
    """VSEC ID, 16 bits, the vendor's own numbering."""
    revision: int
    """VSEC Rev, 0 to 15."""
    length: int
    """VSEC Length in bytes with both headers, as the register says, 0 to 4095."""
    data: Hex
    """What follows the headers, as far as `length` says and config space holds."""


VENDOR_LENGTH: Final = rule(
    "pci.vendor-capability-length",
    Severity.WARNING,
    title="vendor-specific capability has an impossible length",
    meaning="The length of a vendor-specific or designated vendor-specific extended capability is shorter than its "
    "own header, or reaches beyond the 4096 bytes of config space. Software that walks by length reads wrong bytes.",
    advice="Nothing depends on it in general; a driver of the vendor may. Update the device's firmware.",
    specification="PCI Express Base 6.0, sections 7.9.5.2 and 7.9.6.2",
)

_HEADER: Final = struct.Struct("<I")


def decode(config: bytes, offset: int, report: Report) -> VendorSpecificExtended:
    (header,) = _HEADER.unpack_from(config, offset + 4)
    length = header >> 20
    check_length(offset, length, LENGTH, report)
    return VendorSpecificExtended(
        offset=offset,
        version=config[offset + 2] & 0xF,
        id=header & 0xFFFF,
        revision=header >> 16 & 0xF,
        length=length,
        data=config[offset + 8 : offset + length].hex(),
    )


def check_length(offset: int, length: int, header: int, report: Report) -> None:
    """Report a length that its header does not fit into, or that config space does not hold."""
    if length < header:
        report(VENDOR_LENGTH, f"the capability at {offset:#05x} is {length} bytes long, its header alone is {header}")
    elif offset + length > 0x1000:
        report(VENDOR_LENGTH, f"the capability at {offset:#05x} is {length} bytes long and ends beyond 0xfff")
