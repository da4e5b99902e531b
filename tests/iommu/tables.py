# SPDX-License-Identifier: MIT
"""DMAR, IVRS and MADT tables for tests, written byte by byte."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from dom0kit.acpi.tables.table import Table, decode_table
from dom0kit.source.interface import RawTable

ENDPOINT, BRIDGE, IOAPIC, HPET, NAMESPACE = 1, 2, 3, 4, 5


def table(signature: str, body: bytes) -> Table:
    """A table around its body, with a good checksum."""
    data = bytearray(
        struct.pack("<4sIBB6s8sI4sI", signature.encode(), 36 + len(body), 1, 0, b"TEST", b"TEST", 1, b"TEST", 1) + body
    )
    data[9] = -sum(data) & 0xFF
    return decode_table(RawTable(signature, bytes(data)))


def scope(kind: int, path: str, id: int = 0) -> bytes:
    """A device scope; `path` is ``bus:device.function/device.function...`` in hexadecimal."""
    bus, _, steps = path.partition(":")
    hops = [(int(step.split(".")[0], 16), int(step.split(".")[1], 16)) for step in steps.split("/")]
    return bytes((kind, 6 + 2 * len(hops), 0, 0, id, int(bus, 16))) + bytes(byte for hop in hops for byte in hop)


def drhd(base: int, *scopes: bytes, include_all: bool = False, segment: int = 0) -> bytes:
    body = b"".join(scopes)
    return struct.pack("<HHBBHQ", 0, 16 + len(body), int(include_all), 0, segment, base) + body


def rmrr(base: int, limit: int, *scopes: bytes, segment: int = 0) -> bytes:
    body = b"".join(scopes)
    return struct.pack("<HHHHQQ", 1, 24 + len(body), 0, segment, base, limit) + body


def atsr(*scopes: bytes, all_ports: bool = False) -> bytes:
    body = b"".join(scopes)
    return struct.pack("<HHBBH", 2, 8 + len(body), int(all_ports), 0, 0) + body


def rhsa(base: int, domain: int) -> bytes:
    return struct.pack("<HHIQI", 3, 20, 0, base, domain)


def andd(number: int, name: str) -> bytes:
    text = name.encode() + b"\0"
    return struct.pack("<HH3sB", 4, 8 + len(text), b"", number) + text


def satc(*scopes: bytes, required: bool = True) -> bytes:
    body = b"".join(scopes)
    return struct.pack("<HHBBH", 5, 8 + len(body), int(required), 0, 0) + body


def dmar(*structures: bytes, flags: int = 1, width: int = 38) -> Table:
    """Flags: 1 interrupt remapping, 2 x2APIC opt out, 4 DMA control opt in."""
    return table("DMAR", bytes((width, flags)) + bytes(10) + b"".join(structures))


def select(id: int) -> bytes:
    return struct.pack("<BHB", 2, id, 0)


def id_range(first: int, last: int) -> bytes:
    return struct.pack("<BHBBHB", 3, first, 0, 4, last, 0)


def everything() -> bytes:
    return struct.pack("<BHB", 1, 0, 0)


def alias(id: int, carries: int) -> bytes:
    return struct.pack("<BHBBHB", 0x42, id, 0, 0, carries, 0)


def alias_range(first: int, last: int, carries: int) -> bytes:
    return struct.pack("<BHBBHB", 0x43, first, 0, 0, carries, 0) + struct.pack("<BHB", 4, last, 0)


def special(variety: int, handle: int, id: int) -> bytes:
    """Variety: 1 IOAPIC, 2 HPET."""
    return struct.pack("<BHBBHB", 0x48, 0, 0, handle, id, variety)


def acpi_device(id: int, hid: str, uid: str) -> bytes:
    text = uid.encode()
    return struct.pack("<BHB8s8sBB", 0xF0, id, 0, hid.encode(), b"", 2, len(text)) + text


def ivhd(kind: int, id: int, base: int, *entries: bytes, segment: int = 0, efr: int = 0, features: int = 0) -> bytes:
    body = b"".join(entries)
    head = 24 if kind == 0x10 else 40
    registers = struct.pack("<I", features) if kind == 0x10 else struct.pack("<IQQ", 0, efr, 0)
    return struct.pack("<BBHHHQHH", kind, 0, head + len(body), id, 0x40, base, segment, 0) + registers + body


def ivmd(kind: int, first: int, last: int, start: int, length: int, flags: int = 7) -> bytes:
    """Kind: 0x20 all, 0x21 one, 0x22 a range. Flags: 1 unity, 2 read, 4 write, 8 exclusion."""
    return struct.pack("<BBHHHQQQ", kind, flags, 32, first, last, 0, start, length)


def ivrs(*blocks: bytes, info: int = 1 | 48 << 8) -> Table:
    return table("IVRS", struct.pack("<IQ", info, 0) + b"".join(blocks))


def madt(ids: Sequence[int]) -> Table:
    entries = b"".join(struct.pack("<BBBBII", 1, 12, id, 0, 0xFEC00000, 24 * n) for n, id in enumerate(ids))
    return table("APIC", struct.pack("<II", 0xFEE00000, 1) + entries)
