# SPDX-License-Identifier: MIT
"""ACPI tables for these tests: made of bytes by hand, and recorded ones."""

from __future__ import annotations

import struct
from pathlib import Path

from dom0kit.acpi.tables import Table, decode_table
from dom0kit.source.interface import RawTable


def table(signature: str, body: bytes, *, revision: int = 5, name: str | None = None) -> Table:
    """A table with this body and a right checksum."""
    header = struct.pack("<4sIBB6s8sI4sI", signature.encode(), 36 + len(body), revision, 0, b"", b"", 0, b"", 0)
    data = bytearray(header + body)
    data[9] = -sum(data) & 0xFF
    return decode_table(RawTable(name or signature, bytes(data)))


def madt(*entries: bytes, pcat_compat: bool = True, revision: int = 5, name: str = "APIC") -> Table:
    return table("APIC", struct.pack("<II", 0xFEE00000, pcat_compat) + b"".join(entries), revision=revision, name=name)


def local_apic(uid: int, id: int, flags: int = 1) -> bytes:
    return struct.pack("<BBBBI", 0, 8, uid, id, flags)


def ioapic(id: int, address: int, gsi_base: int) -> bytes:
    return struct.pack("<BBBBII", 1, 12, id, 0, address & 0xFFFFFFFF, gsi_base)


def override(source: int, gsi: int, flags: int, bus: int = 0) -> bytes:
    return struct.pack("<BBBBIH", 2, 10, bus, source, gsi, flags)


def nmi_source(gsi: int, flags: int) -> bytes:
    return struct.pack("<BBHI", 3, 8, flags, gsi)


def local_nmi(uid: int, flags: int, lint: int) -> bytes:
    return struct.pack("<BBBHB", 4, 6, uid, flags, lint)


def local_x2apic(uid: int, id: int, flags: int = 1) -> bytes:
    return struct.pack("<BBHIII", 9, 16, 0, id, flags, uid)


def local_x2apic_nmi(uid: int, flags: int, lint: int) -> bytes:
    return struct.pack("<BBHIB3x", 10, 12, flags, uid, lint)


def fadt(sci: int, *, hardware_reduced: bool = False, revision: int = 6, minor: int = 5) -> Table:
    body = bytearray(276 - 36)
    struct.pack_into("<H", body, 46 - 36, sci)
    struct.pack_into("<I", body, 112 - 36, hardware_reduced << 20)
    body[131 - 36] = minor
    return table("FACP", bytes(body), revision=revision)


def recorded(folder: Path, pattern: str) -> list[Table]:
    """Tables of a recorded machine, in the order of their numbers."""
    paths = sorted(folder.glob(pattern), key=lambda path: (len(path.stem), path.stem))
    return [decode_table(RawTable(path.stem, path.read_bytes())) for path in paths]
