# SPDX-License-Identifier: MIT
"""XSDT: addresses of the other tables, 64 bits each (ACPI 6.5, section 5.2.8)."""

from __future__ import annotations

from typing import Annotated

from dom0kit.acpi.tables.table import NULL_ENTRY, Header
from dom0kit.layout import U64, OpenRecord, repeated
from dom0kit.walker import Notes


class Xsdt(OpenRecord, frozen=True, kw_only=True, tag="xsdt"):
    """Extended System Description Table."""

    entries: Annotated[tuple[U64, ...], repeated()]
    """Physical addresses."""


def check(xsdt: Xsdt, header: Header, notes: Notes) -> None:
    """Entries that name no table."""
    for number, address in enumerate(xsdt.entries):
        if address == 0:
            notes.add(NULL_ENTRY, f"entry {number} of {len(xsdt.entries)} is zero")
