# SPDX-License-Identifier: MIT
"""Device Serial Number, extended capability 0003h (PCI Express Base 6.0, section 7.9.3)."""

from __future__ import annotations

from dom0kit.pci.capabilities import ExtendedCapability, Report
from dom0kit.serial import Hex

LENGTH = 0xC


class DeviceSerialNumber(ExtendedCapability, frozen=True, tag="serial-number"):
    """An EUI-64 that names the card; the same in every function of a device."""

    serial_number: Hex
    """16 digits, company id first (the registers hold the bytes in the opposite order)."""


def decode(config: bytes, offset: int, report: Report) -> DeviceSerialNumber:
    return DeviceSerialNumber(offset, config[offset + 2] & 0xF, config[offset + 4 : offset + 12][::-1].hex())
