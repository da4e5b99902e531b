# SPDX-License-Identifier: MIT
"""ERST: storage for error records (ACPI 6.5, section 18.5)."""

from __future__ import annotations

from typing import Annotated

from dom0kit.acpi.tables.instruction import InstructionEntry
from dom0kit.layout import U32, OpenRecord, repeated, this


class Erst(OpenRecord, frozen=True, kw_only=True, tag="erst"):
    """Error Record Serialization Table."""

    serialization_header_size: U32
    """48 by the specification, 12 in many tables."""
    reserved: U32 = 0
    instruction_entry_count: U32
    instructions: Annotated[tuple[InstructionEntry, ...], repeated(this.instruction_entry_count)]
