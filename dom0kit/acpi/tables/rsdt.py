# SPDX-License-Identifier: MIT
"""RSDT: addresses of the other tables, 32 bits each (ACPI 6.5, section 5.2.7)."""

from __future__ import annotations

from typing import Annotated

from dom0kit.acpi.tables.table import NULL_ENTRY, Header
from dom0kit.layout import U32, OpenRecord, repeated
from dom0kit.walker import Notes


class Rsdt(OpenRecord, frozen=True, kw_only=True, tag="rsdt"):
    """Root System Description Table."""

    entries: Annotated[tuple[U32, ...], repeated()]
    """Physical addresses."""


def check(rsdt: Rsdt, header: Header, notes: Notes) -> None:
    """Entries that name no table."""
    for number, address in enumerate(rsdt.entries):
        if address == 0:
            notes.add(NULL_ENTRY, f"entry {number} of {len(rsdt.entries)} is zero")
