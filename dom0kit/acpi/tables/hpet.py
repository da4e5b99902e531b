# SPDX-License-Identifier: MIT
"""HPET: one block of high precision event timers (IA-PC HPET Specification 1.0a, section 3.2.4)."""

from __future__ import annotations

from typing import Annotated

from dom0kit.acpi.tables.common import GenericAddress
from dom0kit.layout import U8, U16, Bit, BitField, OpenRecord, bits


class EventTimerBlockId(BitField, frozen=True, kw_only=True):
    """As in the low half of the capability register."""

    hardware_revision: Annotated[int, bits(8)]
    last_comparator: Annotated[int, bits(5)]
    """Number of comparators less one."""
    counter_64bit: Bit
    reserved: Bit = False
    legacy_replacement: Bit
    """May take IRQ 0 and 8."""
    pci_vendor_id: Annotated[int, bits(16)]


class PageProtection(BitField, frozen=True, kw_only=True):
    """Page protection and OEM attribute."""

    guarantee: Annotated[int, bits(4)]
    """0 none, 1 4 KiB, 2 64 KiB around the registers are unused otherwise."""
    oem_attributes: Annotated[int, bits(4)]


class Hpet(OpenRecord, frozen=True, kw_only=True, tag="hpet"):
    """High Precision Event Timer Description Table."""

    event_timer_block_id: EventTimerBlockId
    base_address: GenericAddress
    hpet_number: U8
    """What device scopes and IVRS entries call it."""
    minimum_clock_tick: U16
    page_protection: PageProtection
