# SPDX-License-Identifier: MIT
"""EINJ: how to inject errors (ACPI 6.5, section 18.6)."""

from __future__ import annotations

from typing import Annotated

from dom0kit.acpi.tables.instruction import InstructionEntry
from dom0kit.layout import U8, U32, OpenRecord, raw, repeated, this
from dom0kit.serial import Hex


class Einj(OpenRecord, frozen=True, kw_only=True, tag="einj"):
    """Error Injection Table."""

    injection_header_size: U32
    """48 by the specification, 12 in many tables."""
    injection_flags: U8 = 0
    reserved: Annotated[Hex, raw(3)] = "000000"
    injection_entry_count: U32
    instructions: Annotated[tuple[InstructionEntry, ...], repeated(this.injection_entry_count)]
