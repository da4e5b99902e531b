# SPDX-License-Identifier: MIT
"""Root Complex Event Collector Endpoint Association, extended capability 0007h.

Source: PCI Express Base 6.0, section 7.9.10.
"""

from __future__ import annotations

import struct
from typing import Final

from dom0kit.pci.capabilities import ExtendedCapability, Report

LENGTH = 8


class EventCollectorAssociation(ExtendedCapability, frozen=True, tag="event-collector-association"):
    """Which integrated endpoints report their errors and power events through this event collector."""

    devices: tuple[int, ...]
    """Device numbers on the collector's own bus, 0 to 31, ascending."""
    first_bus: int | None
    """RCEC Next Bus: first of the further buses whose endpoints belong to it; 0xff, above `last_bus`, for none. None
    below version 2 and where it cannot be read."""
    last_bus: int | None
    """RCEC Last Bus."""


_BITMAP: Final = struct.Struct("<I")


def decode(config: bytes, offset: int, report: Report) -> EventCollectorAssociation:
    version = config[offset + 2] & 0xF
    (bitmap,) = _BITMAP.unpack_from(config, offset + 4)
    first = last = None
    if version >= 2 and offset + 12 <= len(config):
        first, last = config[offset + 9], config[offset + 10]
    return EventCollectorAssociation(offset, version, tuple(n for n in range(32) if bitmap >> n & 1), first, last)
