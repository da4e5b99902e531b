# SPDX-License-Identifier: MIT
"""BGRT: the picture that firmware showed (ACPI 6.5, section 5.2.23)."""

from __future__ import annotations

from typing import Annotated

from dom0kit.layout import U8, U16, U32, U64, Bit, BitField, OpenRecord, bits


class BgrtStatus(BitField, frozen=True, kw_only=True):
    """Table 5.84."""

    displayed: Bit
    orientation: Annotated[int, bits(2)]
    """Times 90 degrees."""
    reserved: Annotated[int, bits(5)] = 0


class Bgrt(OpenRecord, frozen=True, kw_only=True, tag="bgrt"):
    """Boot Graphics Resource Table."""

    version: U16
    status: BgrtStatus
    image_type: U8
    """0 bitmap."""
    image_address: U64
    image_offset_x: U32
    image_offset_y: U32
