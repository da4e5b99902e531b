# SPDX-License-Identifier: MIT
"""Made-up machines for the rules: tables, functions and the kernel's files, byte by byte; all facts are computed."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import dom0kit
from dom0kit.address import Sbdf
from dom0kit.check.rules import findings
from dom0kit.finding import Finding
from dom0kit.observation import observe
from dom0kit.source.in_memory import MemorySource
from dom0kit.source.interface import RawFunction, RawTable, SourceKind
from dom0kit.source.recognise import open_source

At = Mapping[int, bytes | int]
"""What lies at which offset: bytes, or a number of 32 bits."""


class File(dict[str, str]):
    """The kernel's files, by path."""


def recording(name: str) -> Path:
    """A recording that the package ships."""
    return Path(dom0kit.__file__).parent / "recordings" / f"{name}.d0k"


def told(*parts: RawTable | RawFunction | File, base: str | None = None) -> tuple[Finding, ...]:
    """What is wrong with a machine of these parts; with `base`, a shipped recording in which they replace their like.

    AML is interpreted where a part is a DSDT or SSDT.
    """
    tables: dict[str, RawTable] = {}
    functions: dict[Sbdf, RawFunction] = {}
    files: dict[str, bytes] = {}
    if base is not None:
        source = open_source(recording(base))
        tables |= {table.name: table for table in source.tables()}
        functions |= {function.sbdf: function for function in source.functions()}
    doubled: list[RawFunction] = []
    for part in parts:
        if isinstance(part, RawTable):
            tables[part.name] = part
        elif isinstance(part, RawFunction):
            if base is None and part.sbdf in functions:
                doubled.append(part)
            else:
                functions[part.sbdf] = part
        else:
            files |= {path: text.encode() for path, text in part.items()}
    machine = MemorySource(
        "made-up",
        SourceKind.RECORDING,
        tables=tables.values(),
        functions=sorted([*functions.values(), *doubled], key=lambda each: each.sbdf),
        files=files,
    )
    aml = any(isinstance(part, RawTable) and part.data[:4] in (b"DSDT", b"SSDT") for part in parts)
    return findings(observe(machine, aml=aml))


def edited(base: str, name: str, at: At) -> RawTable:
    """A table of a shipped recording with other bytes in it, and a right checksum."""
    data = next(bytearray(table.data) for table in open_source(recording(base)).tables() if table.name == name)
    _patch(data, at)
    return RawTable(name, _summed(data))


def acpi(
    signature: str, body: bytes = b"", *, revision: int = 1, name: str = "", length: int | None = None, sum: bool = True
) -> RawTable:
    """A table around its body; `length` is what its header says."""
    size = 36 + len(body) if length is None else length
    head = struct.pack("<4sIBB6s8sI4sI", signature.encode(), size, revision, 0, b"MADEUP", b"MACHINE ", 1, b"TEST", 1)
    data = bytearray(head + body)
    return RawTable(name or signature, _summed(data) if sum else bytes(data))


def _summed(data: bytearray) -> bytes:
    data[9] = 0
    data[9] = -sum(data) & 0xFF
    return bytes(data)


def _patch(data: bytearray, at: At) -> None:
    for offset, value in at.items():
        piece = value.to_bytes(4, "little") if isinstance(value, int) else value
        data[offset : offset + len(piece)] = piece


def fadt(at: At | None = None, *, sci: int = 9, revision: int = 6, length: int = 276) -> RawTable:
    """A good FADT, but for what lies at the offsets given (of the whole table)."""
    data = bytearray(acpi("FACP", bytes(276 - 36), revision=revision).data)
    struct.pack_into("<H", data, 46, sci)
    struct.pack_into("<IIIIII", data, 56, 0x400, 0, 0x404, 0, 0, 0x408)
    data[88], data[89], data[91] = 4, 2, 4
    _patch(data, at or {})
    struct.pack_into("<I", data, 4, length)
    return RawTable("FACP", _summed(data[:length]))


def gas(address: int, bits: int = 8, space: int = 1, offset: int = 0) -> bytes:
    """A generic address."""
    return struct.pack("<BBBBQ", space, bits, offset, 0, address)


def madt(*entries: bytes, revision: int = 5, address: int = 0xFEE00000, name: str = "APIC") -> RawTable:
    return acpi("APIC", struct.pack("<II", address, 1) + b"".join(entries), revision=revision, name=name)


def mcfg(*entries: tuple[int, int, int, int]) -> RawTable:
    """Each entry: base, segment, first and last bus."""
    return acpi("MCFG", bytes(8) + b"".join(struct.pack("<QHBB4x", *entry) for entry in entries))


def hpet(address: int = 0xFED00000, *, space: int = 0, number: int = 0, name: str = "HPET") -> RawTable:
    body = struct.pack("<I", 0x8086A201) + gas(address, 64, space) + struct.pack("<BHB", number, 0x80, 0)
    return acpi("HPET", body, name=name)


def srat(*entries: bytes, revision: int = 3) -> RawTable:
    return acpi("SRAT", struct.pack("<IQ", 1, 0) + b"".join(entries), revision=revision)


def srat_cpu(id: int, domain: int) -> bytes:
    return struct.pack("<BBBBIB3xI", 0, 16, domain, id, 1, 0, 0)


def srat_memory(base: int, length: int, domain: int, flags: int = 1) -> bytes:
    return struct.pack("<BBIHQQIIQ", 1, 40, domain, 0, base, length, 0, flags, 0)


def slit(*rows: bytes) -> RawTable:
    return acpi("SLIT", struct.pack("<Q", len(rows)) + b"".join(rows))


def memory_map(*ranges: tuple[int, int, str]) -> File:
    """Firmware's memory map: first and last address, type."""
    return File(
        {
            f"sys/firmware/memmap/{number}/{name}": f"{value}\n"
            for number, (first, last, type) in enumerate(ranges)
            for name, value in (("start", f"{first:#x}"), ("end", f"{last:#x}"), ("type", type))
        }
    )


# --- PCI --------------------------------------------------------------------------------------------------------------


def fn(
    address: str,
    at: At | None = None,
    *,
    ids: tuple[int, int] = (0x1234, 1),
    class_code: int = 0x020000,
    buses: tuple[int, int] | None = None,
    standard: Iterable[bytes] = (),
    extended: Iterable[tuple[int, bytes]] = (),
    size: int = 4096,
    command: int = 7,
    attributes: Mapping[str, str] | None = None,
) -> RawFunction:
    """A function with these capabilities; `buses` (secondary, subordinate) makes it a bridge; `at` is written last.

    A standard capability is its bytes with any next pointer, at 40h and so on; an extended one its id and body, at 100h
    and so on, version 1.
    """
    config = bytearray(4096)
    sbdf = Sbdf.parse(address)
    if buses is not None and class_code == 0x020000:
        class_code = 0x060400
    struct.pack_into("<HHHHI", config, 0, *ids, command, 0, class_code << 8)
    if buses is not None:
        config[0x0E] = 1
        config[0x18:0x1B] = bytes((sbdf.bus, *buses))
        struct.pack_into("<BBH", config, 0x1C, 0xF0, 0, 0)
        struct.pack_into("<HHHH", config, 0x20, 0xFFF0, 0, 0xFFF1, 1)
    where, pointer = 0x40, 0x34
    for capability in standard:
        config[0x06] |= 0x10
        config[pointer] = where
        config[where : where + len(capability)] = capability
        config[where + 1] = 0
        pointer, where = where + 1, where + len(capability) + 3 & ~3
    where, before = 0x100, 0
    for id, body in extended:
        if before:
            struct.pack_into("<H", config, before + 2, 1 | where << 4)
        struct.pack_into("<I", config, where, id | 1 << 16)
        config[where + 4 : where + 4 + len(body)] = body
        before, where = where, where + 4 + len(body) + 3 & ~3
    _patch(config, at or {})
    return RawFunction(sbdf, bytes(config[:size]), attributes or {})


ENDPOINT, ROOT_PORT, UPSTREAM, DOWNSTREAM = 0, 4, 5, 6


def express(
    type: int = ENDPOINT,
    *,
    device: tuple[int, int, int] = (0x8001, 0x20, 0),
    link: tuple[int, int, int] = (0x13, 0, 0x13),
    slot: tuple[int, int, int] | None = None,
    device2: tuple[int, int] = (0, 0),
) -> bytes:
    """A PCI Express capability, version 2: capabilities, control and status of each part; 8 GT/s and one lane."""
    data = struct.pack("<HHIHHIHH", 0x10, 2 | type << 4 | (slot is not None) << 8, *device, *link)
    data += struct.pack("<IHH", *(slot or (0, 0, 0))) + bytes(8) + struct.pack("<IHH", *device2, 0)
    return data + struct.pack("<IHHIHH", 0x0E, 3, 0, 0, 0, 0)


def port(address: str, buses: tuple[int, int], at: At | None = None, **parts: Any) -> RawFunction:
    """A root port; `parts` as for `express`."""
    return fn(address, at, buses=buses, standard=[express(ROOT_PORT, **parts)])


def card(address: str = "01:00.0", at: At | None = None, **parts: Any) -> RawFunction:
    """A PCI Express endpoint; `parts` as for `express`."""
    return fn(address, at, standard=[express(ENDPOINT, **parts)])


def resource(*lines: tuple[int, int, int]) -> dict[str, str]:
    """The kernel's resource file; each line start, size, flags."""
    rows = [*lines, *[(0, 0, 0)] * (7 - len(lines))]
    text = "\n".join(
        f"{start:#018x} {start + size - 1 if size else 0:#018x} {flags:#018x}" for start, size, flags in rows
    )
    return {"resource": text}


MEMORY, IO = 0x40200, 0x40101
"""Flags of the kernel's resource file: a 32-bit memory BAR, an I/O BAR."""
