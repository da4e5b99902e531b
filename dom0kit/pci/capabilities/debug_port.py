# SPDX-License-Identifier: MIT
"""Debug Port capability of an EHCI controller (EHCI 1.0, appendix C.2)."""

from __future__ import annotations

from dom0kit.pci.capabilities import Report, StandardCapability

LENGTH = 4


class DebugPort(StandardCapability, frozen=True, tag="debug-port"):
    """Where the debug port's registers lie."""

    bar: int
    """As written: 1 is BAR 0, to 6; 0 and 7 are reserved."""
    bar_offset: int
    """13 bits."""


def decode(config: bytes, offset: int, report: Report) -> DebugPort:
    register = config[offset + 2] | config[offset + 3] << 8
    return DebugPort(offset, register >> 13, register & 0x1FFF)
