# SPDX-License-Identifier: MIT
"""Vendor Specific capability (PCI Local Bus 3.0, appendix H); of virtio devices, its structure (virtio 1.2, 4.1.4)."""

from __future__ import annotations

import struct
from typing import Final

from dom0kit.pci.capabilities import Report, StandardCapability
from dom0kit.serial import Hex

LENGTH = 3
_VIRTIO: Final = struct.Struct("<BBBxxII")
_VIRTIO_LENGTH: Final = 16
_WORD: Final = struct.Struct("<I")
_HIGH: Final = struct.Struct("<II")


class VendorSpecific(StandardCapability, frozen=True, tag="vendor-specific"):
    """Registers whose meaning only the vendor knows."""

    length: int
    """As the capability says, from its id byte on."""
    raw: Hex
    """The bytes after the length; as many as there are."""


class Virtio(StandardCapability, frozen=True, tag="virtio"):
    """Where one structure of a virtio device lies."""

    length: int
    """Of the capability in bytes."""
    structure: int
    """cfg_type: 1 common, 2 notification, 3 ISR, 4 device, 5 access through config space, 8 shared memory, 9 vendor."""
    bar: int
    """0 to 5; others are reserved."""
    id: int
    """Tells several of the same structure apart."""
    bar_offset: int
    """64 bits for shared memory, else 32."""
    size: int
    notify_multiplier: int | None
    """notify_off_multiplier, of a notification structure."""


def decode(config: bytes, offset: int, report: Report) -> VendorSpecific | Virtio:
    length = config[offset + 2]
    end = min(len(config), 0x100)
    if config[:2] == b"\xf4\x1a" and config[3] == 0x10 and config[2] < 0x80 and offset + _VIRTIO_LENGTH <= end:
        return _virtio(config, offset, length, end)
    return VendorSpecific(offset, length, config[offset + 3 : min(offset + length, end)].hex())


def _virtio(config: bytes, offset: int, length: int, end: int) -> Virtio:
    structure, bar, id, bar_offset, size = _VIRTIO.unpack_from(config, offset + 3)
    multiplier = None
    if structure == 2 and length >= 20 and offset + 20 <= end:
        (multiplier,) = _WORD.unpack_from(config, offset + 16)
    elif structure == 8 and length >= 24 and offset + 24 <= end:
        offset_high, size_high = _HIGH.unpack_from(config, offset + 16)
        bar_offset |= offset_high << 32
        size |= size_high << 32
    return Virtio(offset, length, structure, bar, id, bar_offset, size, multiplier)
