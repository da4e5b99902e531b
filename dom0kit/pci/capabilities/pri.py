# SPDX-License-Identifier: MIT
"""Page Request Interface, extended capability 0013h (PCI Express Base 6.0, section 10.5.2)."""

from __future__ import annotations

import struct
from typing import Final

from dom0kit.pci.capabilities import ExtendedCapability, Report

LENGTH = 0x10


class PageRequestInterface(ExtendedCapability, frozen=True, tag="pri"):
    """A function that asks for pages to be made present."""

    enabled: bool
    reset: bool
    response_failure: bool
    unexpected_group_index: bool
    """UPRGI: a response with an unexpected group index came."""
    stopped: bool
    """All page requests sent have been answered."""
    response_pasid_required: bool
    """PRG Response PASID Required."""
    capacity: int
    """Outstanding Page Request Capacity."""
    allocation: int
    """Outstanding Page Request Allocation."""


_REGISTERS: Final = struct.Struct("<HHII")


def decode(config: bytes, offset: int, report: Report) -> PageRequestInterface:
    control, status, capacity, allocation = _REGISTERS.unpack_from(config, offset + 4)
    return PageRequestInterface(
        offset=offset,
        version=config[offset + 2] & 0xF,
        enabled=control & 1 != 0,
        reset=control & 2 != 0,
        response_failure=status & 1 != 0,
        unexpected_group_index=status & 2 != 0,
        stopped=status & 0x100 != 0,
        response_pasid_required=status & 0x8000 != 0,
        capacity=capacity,
        allocation=allocation,
    )
