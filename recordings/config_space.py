# SPDX-License-Identifier: MIT
"""Config spaces of machines that exist nowhere: headers and the capabilities that routing and isolation look at.

PCI Express Base 6.0, sections 7.5.1 (headers), 7.5.3 (PCI Express capability), 7.7.7 (ACS).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from dom0kit.address import IntxPin

ENDPOINT: Final = 0
ROOT_PORT: Final = 4
UPSTREAM_PORT: Final = 5
DOWNSTREAM_PORT: Final = 6

_EXPRESS: Final = 0x40
_MSI: Final = 0x80


def endpoint(
    *,
    vendor: int,
    device: int,
    class_code: int,
    pin: IntxPin | None = None,
    bars: Sequence[int] = (),
    express: bool = True,
) -> bytes:
    """A type 0 function. `bars` are 32-bit memory addresses; `express` gives it 4,096 bytes and its capabilities."""
    config = _header(vendor, device, class_code, 0, pin)
    for index, address in enumerate(bars):
        struct.pack_into("<I", config, 0x10 + 4 * index, address)
    struct.pack_into("<HH", config, 0x2C, vendor, device)
    if express:
        _add_express(config, ENDPOINT)
    return bytes(config if express else config[:256])


def bridge(
    *,
    vendor: int,
    device: int,
    buses: tuple[int, int, int],
    memory: tuple[int, int],
    port: int,
    slot: int | None = None,
    acs: bool = True,
) -> bytes:
    """A PCIe port: (primary, secondary, subordinate) bus, memory window (base, limit), its kind, its slot's number."""
    config = _header(vendor, device, 0x060400, 1, None)
    struct.pack_into("<BBB", config, 0x18, *buses)
    config[0x1C:0x1E] = b"\xf0\x00"  # no I/O window: base above limit
    struct.pack_into("<HH", config, 0x20, memory[0] >> 16 & 0xFFF0, memory[1] >> 16 & 0xFFF0)
    struct.pack_into("<HH", config, 0x24, 0xFFF1, 0x0001)  # no prefetchable window
    _add_express(config, port, slot)
    if acs:
        # source validation, request and completion redirection, upstream forwarding: able and enabled
        struct.pack_into("<IHH", config, 0x100, 0x0001_000D, 0x001D, 0x001D)
    return bytes(config)


def _header(vendor: int, device: int, class_code: int, header_type: int, pin: IntxPin | None) -> bytearray:
    config = bytearray(4096)
    struct.pack_into("<HHHHI", config, 0, vendor, device, 0x0406, 0x0010, class_code << 8 | 1)
    config[0x0E] = header_type
    if pin is not None:
        config[0x3D] = pin.index + 1
    return config


def _add_express(config: bytearray, port: int, slot: int | None = None) -> None:
    """PCI Express and MSI capabilities: 8 GT/s x8, FLR for an endpoint, a hot-plug slot where it has a number."""
    config[0x34] = _EXPRESS
    has_slot = slot is not None
    device_capabilities = 0x1000_8001 if port == ENDPOINT else 0x0000_8001
    struct.pack_into(
        "<BBHIHH", config, _EXPRESS, 0x10, _MSI, 2 | port << 4 | has_slot << 8, device_capabilities, 0x2010, 0
    )
    struct.pack_into("<IHH", config, _EXPRESS + 0x0C, 0x0040_0483, 0x0040, 0x3083)
    if slot is not None:
        struct.pack_into(
            "<IHH", config, _EXPRESS + 0x14, slot << 19 | 0x60, 0x0000, 0x0040
        )  # surprise, hot-plug; present
    struct.pack_into("<BBHII", config, _MSI, 0x05, 0x00, 0x0080, 0, 0)
