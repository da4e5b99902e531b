# SPDX-License-Identifier: MIT
"""XSDT: addresses of the other tables, 64 bits each (ACPI 6.5, section 5.2.8)."""

from __future__ import annotations

from typing import Annotated

from dom0kit.layout import U64, OpenRecord, repeated


class Xsdt(OpenRecord, frozen=True, kw_only=True, tag="xsdt"):
    """Extended System Description Table."""

    entries: Annotated[tuple[U64, ...], repeated()]
    """Physical addresses."""
