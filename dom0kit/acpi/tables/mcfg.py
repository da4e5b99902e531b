# SPDX-License-Identifier: MIT
"""MCFG: where PCI configuration space is mapped (PCI Firmware Specification 3.3, section 4.1.2)."""

from __future__ import annotations

from typing import Annotated

from dom0kit.layout import U8, U16, U32, U64, OpenRecord, Record, repeated


class Allocation(Record, frozen=True, kw_only=True):
    """One enhanced configuration access window (ECAM)."""

    base_address: U64
    """Of bus 0, even where `start_bus` is larger: a function's space is at base + (bus << 20 | devfn << 12)."""
    segment: U16
    start_bus: U8
    end_bus: U8
    """Last bus, inclusive."""
    reserved: U32 = 0


class Mcfg(OpenRecord, frozen=True, kw_only=True, tag="mcfg"):
    """Memory-mapped configuration space windows."""

    reserved: U64 = 0
    allocations: Annotated[tuple[Allocation, ...], repeated()]
