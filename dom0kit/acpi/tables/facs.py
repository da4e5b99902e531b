# SPDX-License-Identifier: MIT
"""FACS: waking vector and global lock, in memory that firmware and OS share (ACPI 6.5, section 5.2.10)."""

from __future__ import annotations

from typing import Annotated

from dom0kit.acpi.tables.table import SLACK
from dom0kit.layout import U8, U32, U64, Bit, BitField, OpenRecord, bits, raw, text
from dom0kit.serial import Hex
from dom0kit.walker import Notes

EXTRA = SLACK


class GlobalLock(BitField, frozen=True, kw_only=True):
    """Table 5.16."""

    pending: Bit
    owned: Bit
    reserved: Annotated[int, bits(30)] = 0


class FacsFlags(BitField, frozen=True, kw_only=True):
    """Table 5.14."""

    s4bios: Bit
    wake_64bit_supported: Bit
    reserved: Annotated[int, bits(30)] = 0


class OspmFlags(BitField, frozen=True, kw_only=True):
    """Table 5.15."""

    wake_64bit: Bit
    reserved: Annotated[int, bits(31)] = 0


class Facs(OpenRecord, frozen=True, kw_only=True, tag="facs"):
    """Firmware ACPI Control Structure: 64 bytes, no revision in the header, no checksum."""

    signature: Annotated[str, text(4)]
    length: U32
    hardware_signature: U32
    firmware_waking_vector: U32
    global_lock: GlobalLock
    flags: FacsFlags
    x_firmware_waking_vector: U64
    version: U8
    reserved: Annotated[Hex, raw(3)] = "000000"
    ospm_flags: OspmFlags
    reserved2: Annotated[Hex, raw(24)] = "00" * 24


def checksum_ok(facs: Facs, data: bytes, notes: Notes) -> bool | None:
    """A FACS has no checksum: None."""
    return None
