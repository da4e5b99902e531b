# SPDX-License-Identifier: MIT
"""SLIT: relative distances between proximity domains (ACPI 6.5, section 5.2.17)."""

from __future__ import annotations

from typing import Annotated

from dom0kit.layout import U8, U64, OpenRecord, repeated, this


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
