# SPDX-License-Identifier: MIT
"""Instructions of ERST and EINJ: register operations that make up an action (ACPI 6.5, section 18.5.1.2)."""

from __future__ import annotations

from typing import Annotated

from dom0kit.acpi.tables.common import GenericAddress
from dom0kit.layout import U8, U64, Bit, BitField, Record, bits


class InstructionFlags(BitField, frozen=True, kw_only=True):
    """Table 18.20."""

    preserve_register: Bit
    reserved: Annotated[int, bits(7)] = 0


class InstructionEntry(Record, frozen=True, kw_only=True):
    """One step of an action (tables 18.17 and 18.27)."""

    action: U8
    instruction: U8
    """0 read register, 1 read and compare, 2 write register, 3 write value, 4 no-op …"""
    flags: InstructionFlags
    reserved: U8 = 0
    register: GenericAddress
    value: U64
    mask: U64
