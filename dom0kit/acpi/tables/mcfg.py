# SPDX-License-Identifier: MIT
"""MCFG: where PCI configuration space is mapped (PCI Firmware Specification 3.3, section 4.1.2)."""

from __future__ import annotations

from typing import Annotated, Final

from dom0kit.acpi.tables.table import Header
from dom0kit.finding import Severity, rule
from dom0kit.layout import U8, U16, U32, U64, OpenRecord, Record, repeated
from dom0kit.walker import Notes

EXTRA: Final = rule(
    "acpi.mcfg-slack",
    Severity.INFO,
    title="the MCFG does not end with a whole entry",
    meaning="Behind the last whole entry of 16 bytes there are bytes that are too few for another. Firmware padded the "
    "table or cut an entry.",
    advice="Compare the number of segments with what the machine should have.",
    specification="PCI Firmware Specification 3.3, section 4.1.2: entries of 16 bytes up to the length of the table",
)
EMPTY: Final = rule(
    "acpi.mcfg-no-bus",
    Severity.ERROR,
    title="the MCFG covers no bus",
    meaning="The table has no entry, or an entry whose last bus is below its first. Extended configuration space of "
    "those buses cannot be reached.",
    advice="Update the firmware. Linux then uses I/O ports 0xcf8 and 0xcfc, which reach segment 0 and 256 bytes only.",
    specification="PCI Firmware Specification 3.3, table 4-3: start and end bus number, inclusive",
)
OVERLAP: Final = rule(
    "acpi.mcfg-overlap",
    Severity.WARNING,
    title="two MCFG entries claim the same bus",
    meaning="Two entries of one segment have buses in common. Which of them a reader takes depends on the reader.",
    advice="Update the firmware.",
    specification="PCI Firmware Specification 3.3, section 4.1.2: one entry for each segment and host bridge",
)


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


def check(mcfg: Mcfg, header: Header, notes: Notes) -> None:
    """Entries without buses, and buses with two entries."""
    if not mcfg.allocations:
        notes.add(EMPTY, "there are no entries")
    order = sorted(range(len(mcfg.allocations)), key=lambda n: _key(mcfg.allocations[n]))
    last: int | None = None
    for number in order:
        allocation = mcfg.allocations[number]
        if allocation.end_bus < allocation.start_bus:
            notes.add(EMPTY, f"entry {number} goes from bus {allocation.start_bus:#x} to {allocation.end_bus:#x}")
            continue
        before = None if last is None else mcfg.allocations[last]
        if before is not None and before.segment == allocation.segment:
            if allocation.start_bus <= before.end_bus:
                notes.add(
                    OVERLAP,
                    f"entries {last} and {number} both hold segment {allocation.segment:#06x} "
                    f"bus {allocation.start_bus:#04x}",
                )
            if allocation.end_bus <= before.end_bus:
                continue
        last = number


def _key(allocation: Allocation) -> tuple[int, int]:
    return allocation.segment, allocation.start_bus
