# SPDX-License-Identifier: MIT
"""RSDT: addresses of the other tables, 32 bits each (ACPI 6.5, section 5.2.7)."""

from __future__ import annotations

from typing import Annotated

from dom0kit.layout import U32, OpenRecord, repeated


class Rsdt(OpenRecord, frozen=True, kw_only=True, tag="rsdt"):
    """Root System Description Table."""

    entries: Annotated[tuple[U32, ...], repeated()]
    """Physical addresses."""
