# SPDX-License-Identifier: MIT
"""The Null capability: a place holder without registers (PCI Code and ID Assignment 1.14, section 2)."""

from __future__ import annotations

from dom0kit.pci.capabilities import Report, StandardCapability

LENGTH = 2


class Null(StandardCapability, frozen=True, tag="null"):
    """Nothing but a link in the list."""


def decode(config: bytes, offset: int, report: Report) -> Null:
    return Null(offset)
