# SPDX-License-Identifier: MIT
"""What an extended capability must know of the port that it belongs to: type and link width.

Source: PCI Express Base 6.0, section 7.5.3 (the PCI Express capability holds both).
"""

from __future__ import annotations

from dom0kit.pci.capabilities import find_standard

ROOT_PORT = 4
UPSTREAM_PORT = 5
DOWNSTREAM_PORT = 6
EVENT_COLLECTOR = 10

_EXPRESS = 0x10


def port_type(config: bytes) -> int | None:
    """Device/Port Type, 0 to 15 (PCI Express Base 6.0, section 7.5.3.2); None where it cannot be read."""
    offset = find_standard(config, _EXPRESS)
    if offset is None or offset + 4 > len(config):
        return None
    return config[offset + 2] >> 4


def link_width(config: bytes) -> int:
    """Maximum Link Width in lanes, 0 to 32; 0 where there is no link or it cannot be read (section 7.5.3.6)."""
    offset = find_standard(config, _EXPRESS)
    if offset is None or offset + 16 > len(config):
        return 0
    width = config[offset + 12] >> 4 | (config[offset + 13] & 3) << 4
    return width if width <= 32 else 0
