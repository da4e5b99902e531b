# SPDX-License-Identifier: MIT
"""Slot Identification capability of a bridge to an expansion chassis (PCI-to-PCI Bridge 1.2, section 13.3)."""

from __future__ import annotations

from dom0kit.pci.capabilities import Report, StandardCapability

LENGTH = 4


class SlotId(StandardCapability, frozen=True, tag="slot-id"):
    """How many slots an expansion chassis has, and its number."""

    slots: int
    """0 to 31."""
    first: bool
    """This bridge is the first of its chassis."""
    chassis: int


def decode(config: bytes, offset: int, report: Report) -> SlotId:
    expansion = config[offset + 2]
    return SlotId(offset, expansion & 0x1F, expansion & 0x20 != 0, config[offset + 3])
