# SPDX-License-Identifier: MIT
"""ACPI static tables: bytes to frozen records and back, one module and one declaration for each table (ACPI 6.5).

`decode_table` imports the modules of the signatures that occur. `Content`, the union of all of them, is imported at
its first use, which is when JSON is decoded or its schema asked for::

    table = decode_table(raw)                  # imports dom0kit.acpi.tables.madt when raw is a MADT
    build_table(table) == raw.data
    decode(encode(table), Table) == table      # resolves `tables.Content`, and so imports every table's module
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dom0kit.acpi.tables.table import Header, Other, Table, build_table, cross_findings, decode_table

if TYPE_CHECKING:
    from dom0kit.acpi.tables.everything import Content

__all__ = ["Content", "Header", "Other", "Table", "build_table", "cross_findings", "decode_table"]


def __getattr__(name: str) -> Any:
    """PEP 562: the annotation ``tables.Content`` of `Table` becomes the union when msgspec evaluates it."""
    if name == "Content":
        from dom0kit.acpi.tables.everything import Content

        return Content
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
