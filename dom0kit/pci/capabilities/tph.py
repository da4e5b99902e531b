# SPDX-License-Identifier: MIT
"""TPH Requester, extended capability 0017h (PCI Express Base 6.0, section 7.9.13)."""

from __future__ import annotations

import enum
import struct
from typing import Final

from dom0kit.pci.capabilities import TRUNCATED, ExtendedCapability, Report

LENGTH = 0xC


class SteeringTable(enum.Enum):
    """Where the steering tags are."""

    NONE = "none"
    CAPABILITY = "in this capability"
    MSIX = "in the MSI-X table"
    RESERVED = "reserved"


class TphRequester(ExtendedCapability, frozen=True, tag="tph"):
    """A function that puts processing hints and steering tags into its requests."""

    no_table_mode: bool
    """No ST Mode Supported."""
    interrupt_vector_mode: bool
    device_specific_mode: bool
    extended: bool
    """Extended TPH Requester Supported: 16-bit steering tags."""
    table: SteeringTable
    table_size: int
    """Entries, 1 to 2048 (the register holds one less); means nothing where `table` is none."""
    mode: int
    """ST Mode Select: 0 no table, 1 interrupt vector, 2 device specific; others reserved, to 7."""
    requester: int
    """TPH Requester Enable: 0 off, 1 TPH, 3 TPH and extended TPH; 2 reserved."""
    steering_tags: tuple[int, ...]
    """Of a table in this capability, 16 bits each; else empty."""


_REGISTERS: Final = struct.Struct("<II")
_LOCATION: Final = tuple(SteeringTable)


def decode(config: bytes, offset: int, report: Report) -> TphRequester:
    capability, control = _REGISTERS.unpack_from(config, offset + 4)
    location = _LOCATION[capability >> 9 & 3]
    size = (capability >> 16 & 0x7FF) + 1
    tags: tuple[int, ...] = ()
    if location is SteeringTable.CAPABILITY:
        readable = min(size, (len(config) - offset - 0xC) // 2)
        if readable < size:
            report(TRUNCATED, f"the steering table has {size} entries, but only {readable} are readable")
        tags = struct.unpack_from(f"<{readable}H", config, offset + 0xC)
    return TphRequester(
        offset=offset,
        version=config[offset + 2] & 0xF,
        no_table_mode=capability & 1 != 0,
        interrupt_vector_mode=capability & 2 != 0,
        device_specific_mode=capability & 4 != 0,
        extended=capability & 0x100 != 0,
        table=location,
        table_size=size,
        mode=control & 7,
        requester=control >> 8 & 3,
        steering_tags=tags,
    )
