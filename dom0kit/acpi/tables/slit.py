# SPDX-License-Identifier: MIT
"""SLIT: relative distances between proximity domains (ACPI 6.5, section 5.2.17)."""

from __future__ import annotations

from typing import Annotated, Final

from dom0kit.acpi.tables.table import Header
from dom0kit.finding import Severity, rule
from dom0kit.layout import U8, U64, OpenRecord, repeated, this
from dom0kit.walker import Notes

DISTANCE: Final = rule(
    "acpi.slit-distance",
    Severity.WARNING,
    title="a distance that cannot be",
    meaning="The distance from a proximity domain to itself is not 10, or that to another is below 10. Linux ignores "
    "such a SLIT as a whole and takes all other nodes as equally far.",
    advice="Update the firmware.",
    specification="ACPI 6.5, section 5.2.17: 10 to itself, 0 to 9 reserved; Linux drivers/acpi/numa/srat.c, slit_valid",
)


class Slit(OpenRecord, frozen=True, kw_only=True, tag="slit"):
    """System Locality Information Table."""

    localities: U64
    distances: Annotated[tuple[U8, ...], repeated(this.localities * this.localities)]
    """Row by row, `localities` squared; 10 means local, 255 unreachable."""

    def distance(self, start: int, target: int) -> int | None:
        """From one proximity domain to another; None for domains that the table does not have."""
        if not (0 <= start < self.localities and 0 <= target < self.localities):
            return None
        index = start * self.localities + target
        return self.distances[index] if index < len(self.distances) else None


def check(slit: Slit, header: Header, notes: Notes) -> None:
    """Linux's conditions for a SLIT it believes."""
    size = slit.localities
    if size * size != len(slit.distances):
        return
    for start in range(size):
        for target in range(size):
            distance = slit.distances[start * size + target]
            if (distance != 10) if start == target else (distance <= 10):
                notes.add(DISTANCE, f"from {start} to {target}: {distance}")
