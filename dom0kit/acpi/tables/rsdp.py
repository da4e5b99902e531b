# SPDX-License-Identifier: MIT
"""RSDP: where RSDT and XSDT are (ACPI 6.5, section 5.2.5.3)."""

from __future__ import annotations

from typing import Annotated, Final

from dom0kit.acpi.tables.table import byte_sum
from dom0kit.finding import Severity, rule
from dom0kit.layout import U8, U32, U64, OpenRecord, raw, text
from dom0kit.serial import Hex
from dom0kit.walker import Notes

CHECKSUM: Final = rule(
    "acpi.rsdp-checksum",
    Severity.ERROR,
    title="the RSDP has a wrong checksum",
    meaning="The first 20 bytes, or from revision 2 on all bytes, do not add up to zero. An OS that searches low "
    "memory for the RSDP passes over this one and may find no ACPI at all.",
    advice="Record it again; where it is so in memory, update the firmware.",
    specification="ACPI 6.5, table 5.3: Checksum covers bytes 0 to 19, Extended Checksum the entire table",
)
LENGTH: Final = rule(
    "acpi.rsdp-length",
    Severity.WARNING,
    title="the RSDP is shorter than its revision says",
    meaning="From revision 2 on the RSDP has a length, an XSDT address and a second checksum, 36 bytes in all. Some of "
    "it is missing, or the length field says otherwise.",
    advice="Record it again; where it is so in memory, update the firmware.",
    specification="ACPI 6.5, table 5.3",
)


class Rsdp(OpenRecord, frozen=True, kw_only=True, tag="rsdp"):
    """Root System Description Pointer: 20 bytes in revision 0, 36 from revision 2 on."""

    signature: Annotated[str, text(8)]
    """``RSD PTR `` with a blank at the end."""
    checksum: U8
    oem_id: Annotated[str, text(6)]
    revision: U8
    rsdt_address: U32
    length: U32 | None = None
    xsdt_address: U64 | None = None
    extended_checksum: U8 | None = None
    reserved: Annotated[Hex | None, raw(3)] = None


def checksum_ok(rsdp: Rsdp, data: bytes, notes: Notes) -> bool | None:
    """Whether the checksums that the revision has are right."""
    ok = True
    total = byte_sum(data[:20])
    if total:
        ok = False
        notes.add(CHECKSUM, f"the first 20 bytes add up to {total:#04x}")
    if rsdp.revision < 2:
        return ok
    if rsdp.length is None or rsdp.extended_checksum is None or rsdp.length < 36 or rsdp.length > len(data):
        notes.add(LENGTH, f"revision {rsdp.revision}, length field {rsdp.length}, {len(data)} bytes")
        return None if ok else False
    total = byte_sum(data[: rsdp.length])
    if total:
        ok = False
        notes.add(CHECKSUM, f"its {rsdp.length} bytes add up to {total:#04x}")
    return ok
