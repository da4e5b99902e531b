# SPDX-License-Identifier: MIT
"""What people mail: acpidump text, folders of table files, ``lspci -xxxx`` text. Each is translated as it is.

Forms: acpidump(8) and acpixtract(8) of ACPICA (``DSDT @ 0x…``, then rows of an offset and 16 bytes); lspci(8) of
pciutils, options -x to -xxxx (a line that begins with the address, decoded lines, then rows of an offset and 16 bytes).
Long text is read as a stream, and a row costs no Python of its own as long as it is where it belongs.
"""

from __future__ import annotations

import re
from binascii import unhexlify
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Final

from dom0kit.address import Sbdf
from dom0kit.source.errors import UnreadableSource
from dom0kit.source.findings import DAMAGED, DUPLICATE, NO_CONFIG, TOO_MUCH, Findings
from dom0kit.source.in_memory import MemorySource
from dom0kit.source.interface import RawFunction, RawTable, SourceKind
from dom0kit.source.tree import (
    MAX_CONFIG,
    MAX_FILE,
    MAX_FUNCTIONS,
    MAX_TABLE_BYTES,
    MAX_TABLES,
    TABLE_NAME,
    FileTree,
    natural,
)

# ---- acpidump text

# Patterns of what some texts have and others have not are compiled by re when they are first used.
TABLE_LINE: Final = rb"(?m)^[ \t]*([!-~]{4}|RSDP|RSD PTR)\d* ?[ \t]*@ (?:0x)?([0-9A-Fa-f]{1,16})[ \t]*$"
_ROW: Final = rb"(?m)^[ \t]*([0-9A-Fa-f]{4,8}):[ \t]+((?:[0-9A-Fa-f]{2}[ \t]?){1,16})"


def read_acpidump(file: str, text: bytes) -> MemorySource:
    """The tables of an acpidump text, SSDTs in the order of its XSDT where it has one."""
    findings = Findings()
    found: list[tuple[int, bytes]] = []
    text = text.replace(b"\r", b"")
    heads = list(islice(re.finditer(TABLE_LINE, text), MAX_TABLES + 1))
    if len(heads) > MAX_TABLES:
        findings.add(TOO_MUCH, "source", f"more than {MAX_TABLES} ACPI tables in {file}; the rest is left out")
    for index, head in enumerate(heads[:MAX_TABLES]):
        end = heads[index + 1].start() if index + 1 < len(heads) else len(text)
        data = bytearray()
        for row in re.compile(_ROW).finditer(text, head.end(), end):
            if int(row[1], 16) != len(data):
                signature = head[1].decode("ascii")
                findings.add(
                    DAMAGED,
                    f"table:{signature}",
                    f"{signature} goes on at {int(row[1], 16):#x} after {len(data):#x} bytes",
                )
                break
            data += bytes.fromhex(row[2].decode("ascii"))
            if len(data) > MAX_FILE:
                findings.add(TOO_MUCH, "source", f"a table of more than {MAX_FILE} bytes in {file}")
                break
        if data:
            found.append((int(head[2], 16), bytes(data)))
        else:
            findings.add(DAMAGED, "source", f"no bytes follow {head[0].strip()[:40]!r} in {file}")
    if not found:
        raise UnreadableSource(f"{file} is acpidump text without a single table.")
    tables = _numbered(_in_xsdt_order(found))
    return MemorySource(file, SourceKind.ACPIDUMP, tables=tables, findings=findings.all())


def _in_xsdt_order(found: list[tuple[int, bytes]]) -> list[bytes]:
    """ACPI 6.5, sections 5.2.7 and 5.2.8. Tables that neither XSDT nor RSDT lists come last."""
    listed: list[int] = []
    for signature, width in ((b"XSDT", 8), (b"RSDT", 4)):
        for _, data in found:
            if data[:4] == signature:
                body = data[36 : len(data) - (len(data) - 36) % width]
                listed += [int.from_bytes(body[at : at + width], "little") for at in range(0, len(body), width)]
    order = {address: index for index, address in reversed(list(enumerate(listed))) if address}
    return [data for _, data in sorted(found, key=lambda entry: order.get(entry[0], len(listed)))]


def _numbered(tables: Iterable[bytes]) -> list[RawTable]:
    """Names as in sysfs: a number where the same signature occurs more than once; sorted by them."""
    by_signature: dict[str, list[bytes]] = {}
    for data in tables:
        by_signature.setdefault(_signature(data), []).append(data)
    return [
        RawTable(signature if len(group) == 1 else f"{signature}{index}", data)
        for signature, group in sorted(by_signature.items())
        for index, data in enumerate(group, 1)
    ]


def _signature(data: bytes) -> str:
    if data[:8] == b"RSD PTR ":
        return "RSDP"
    return re.sub(r"[^!-.0-~]", "_", data[:4].decode("ascii", "replace")).ljust(4, "_")


# ---- a folder of table files

_ENDINGS: Final = (".dat", ".aml", ".bin", "")
_BARE_NAME: Final = r"[A-Z0-9_!]{4}\d*|iBFT"


def table_files(names: Iterable[str]) -> list[str]:
    """Those of a folder's names that are ACPI tables', in the order of their numbers."""
    found = []
    for name in names:
        stem, ending = _split(name)
        if ending in _ENDINGS and (re.fullmatch(_BARE_NAME, stem) if not ending else stem):
            found.append((natural(stem), _ENDINGS.index(ending), name))
    return [name for _, _, name in sorted(found)]


def read_table_folder(folder: str, tree: FileTree) -> MemorySource:
    """Tables of files like ``SSDT1.dat``, ``ssdt1.aml`` or, as in sysfs, ``SSDT1``; dynamic ones below ``dynamic``."""
    findings = Findings()
    tables: dict[tuple[bool, str], RawTable] = {}
    left = MAX_TABLE_BYTES
    for below, dynamic in (("", False), ("dynamic/", True)):
        names = table_files(tree.names(below.rstrip("/")))
        if len(names) > MAX_TABLES:
            findings.add(TOO_MUCH, "source", f"{len(names)} tables in {folder}; the first {MAX_TABLES} are read")
        for name in names[:MAX_TABLES]:
            data = tree.read(below + name)
            if data is None:
                if below + name in tree.denied or below + name in tree.errors:
                    findings.add(DAMAGED, f"file:{below}{name}", f"{below}{name} cannot be read")
                continue
            if not data:
                findings.add(DAMAGED, f"file:{below}{name}", f"{below}{name} is empty")
                continue
            left -= len(data)
            if left < 0:
                findings.add(TOO_MUCH, "source", f"tables of more than {MAX_TABLE_BYTES >> 20} MiB in {folder}")
                break
            table = RawTable(_table_name(_split(name)[0], data), data, dynamic)
            if tables.setdefault((dynamic, table.name), table) is not table:
                findings.add(DUPLICATE, f"table:{table.name}", f"a second {table.name} in {below}{name}")
    if not tables:
        raise UnreadableSource(f"{folder} holds table files, but none of them can be read.")
    return MemorySource(folder, SourceKind.TABLE_FOLDER, tables=tables.values(), findings=findings.all())


def read_table(file: str, data: bytes) -> MemorySource:
    """One table in one file."""
    return MemorySource(file, SourceKind.TABLE_FOLDER, tables=_numbered([data]))


def looks_like_table(head: bytes, size: int) -> bool:
    """Whether a file of `size` bytes that begins so is one ACPI table (its length field agrees, or it is an RSDP)."""
    if head[:8] == b"RSD PTR ":
        return True
    return re.match(rb"[A-Z0-9_!]{4}", head) is not None and int.from_bytes(head[4:8], "little") == size >= 36


def _split(name: str) -> tuple[str, str]:
    stem, dot, ending = name.rpartition(".")
    return (stem, "." + ending.lower()) if dot else (name, "")


def _table_name(stem: str, data: bytes) -> str:
    """The name in sysfs of a table from a file ``stem``: files write an odd character of the signature as ``_``."""
    signature = _signature(data)
    if signature == "RSDP":
        return signature
    stem = re.sub(r"[^!-.0-~]", "_", stem.upper())[:16]
    rest = stem[4:]
    alike = re.sub(r"[^A-Z0-9]", "_", signature.upper()) == re.sub(r"[^A-Z0-9]", "_", stem[:4])
    if alike and (not rest or rest.isdecimal()):
        return signature + rest
    return stem if TABLE_NAME.fullmatch(stem) else signature


# ---- lspci text

FUNCTION_LINE: Final = re.compile(rb"^((?:[0-9A-Fa-f]{4,8}:)?[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-7])(?=[ \t]|$)", re.M)

_DUMP: Final = b"\n00: "
_DUMP_END: Final = re.compile(rb"\n(?![0-9A-Fa-f]{2,3}: )")
_OFFSET: Final = rb"\n([0-9A-Fa-f]{2,3}): "
_WIDE: Final = b"\n100: "
"""From here on an offset has three digits, not two."""
_HIGH: Final = bytes(offset >> 8 for offset in range(0, MAX_CONFIG, 16))
_LOW: Final = bytes(offset & 0xFF for offset in range(0, MAX_CONFIG, 16))
"""The bytes of every row's offset."""
_HEX_ROW: Final = rb"(?:[0-9A-Fa-f]{2}(?: |$)){0,16}"
_STRAY_ROW: Final = rb"\n[0-9A-Fa-f]{2,3}: [^\n]*"
_MAX_DUMP: Final = 1 << 16
_MAX_BLOCK: Final = 1 << 20
_MAX_BLOCKS: Final = 4 * MAX_FUNCTIONS

_FACT: Final = (
    rb"\n(?:\t| {1,8})(?:"
    rb"IOMMU group: (?P<iommu_group>\d+)"
    rb"|NUMA node: (?P<numa_node>\d+)"
    rb"|Kernel driver in use: (?P<driver>[\w.-]+)"
    rb"|Physical Slot: (?P<slot>[\w.-]+)"
    rb"|Interrupt: pin \S+ routed to IRQ (?P<irq>\d+)"
    rb"|Flags: [^\n]*?\bIRQ (?P<flags_irq>\d+)"
    rb"|(?P<region>(?:\[virtual\] )?(?:Region \d|Expansion ROM)[^\n]*)"
    rb")"
)
_REGION: Final = (
    rb"(?:\[virtual\] )?(?:Region (?P<index>[0-5]): (?:\[virtual\] )?(?P<kind>Memory|I/O ports)|Expansion ROM)"
    rb" at (?P<start>[0-9a-f]{1,16}|<[a-z-]+>)[^\n]*?\[size=(?P<size>\d{1,6})(?P<unit>[KMGTP]?)\]"
)
_ROM: Final = 6
_IO: Final = 0x100
_MEMORY: Final = 0x200
_PREFETCH: Final = 0x2000
_READ_ONLY: Final = 0x4000
_MEMORY_64: Final = 0x100000
"""Flags of the kernel's ``resource`` file (Linux include/linux/ioport.h)."""


def read_lspci(file: str, chunks: Iterable[bytes]) -> MemorySource:
    """The functions of an ``lspci -x`` (-xxx, -xxxx) text that comes in pieces of any size."""
    findings = Findings()
    functions: dict[Sbdf, RawFunction] = {}
    slots: dict[str, bytes] = {}
    for count, (name, facts, dump) in enumerate(_stanzas(_blocks(file, chunks, findings))):
        if not name:
            findings.add(DAMAGED, "source", f"a hexadecimal dump in {file} without a line that says of what")
            continue
        try:
            address = Sbdf.parse(name.decode("ascii"))
        except ValueError:
            findings.add(DAMAGED, "source", f"{name.decode('ascii')!r} in {file} is no PCI function")
            continue
        if count > _MAX_BLOCKS or (len(functions) >= MAX_FUNCTIONS and address not in functions):
            findings.add(TOO_MUCH, "source", f"more than {MAX_FUNCTIONS} functions in {file}; the rest is left out")
            break
        attributes = _attributes(facts, address, slots) if b"\n" in facts else {}
        config = _config(dump, address, findings) if dump else b""
        before = functions.get(address)
        if before is not None and before.config and config:
            findings.add(DUPLICATE, f"pci:{address}", f"{address} is twice in {file}")
        elif before is not None:
            functions[address] = RawFunction(address, before.config or config, {**attributes, **before.attributes})
        else:
            functions[address] = RawFunction(address, config, attributes)
    return _lspci_source(file, functions, slots, findings)


def _lspci_source(
    file: str, functions: Mapping[Sbdf, RawFunction], slots: Mapping[str, bytes], findings: Findings
) -> MemorySource:
    if not any(function.config for function in functions.values()):
        raise UnreadableSource(
            f"{file} lists PCI functions without their config space; lspci -Dvvvxxxx, run as root, writes it."
            if functions
            else f"{file} is lspci text without a single PCI function."
        )
    for address in sorted(functions):
        if not functions[address].config:
            findings.add(NO_CONFIG, f"pci:{address}", f"{address} has no hexadecimal dump in {file}")
    return MemorySource(
        file,
        SourceKind.LSPCI,
        functions=(functions[address] for address in sorted(functions)),
        files={f"sys/bus/pci/slots/{slot}/address": address for slot, address in slots.items()},
        findings=findings.all(),
    )


def _stanzas(blocks: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Of each function its address, its decoded lines and its dump, with the rows that a wrapped one cut off.

    The address is empty for a dump that comes before any.
    """
    name = facts = dump = b""
    for text, rows in blocks:
        heads = list(FUNCTION_LINE.finditer(text))
        behind = text[: heads[0].start()] if heads else text
        if len(dump) < _MAX_DUMP:
            dump += b"".join(match[0] for match in re.finditer(_STRAY_ROW, behind)) if dump else b""
            if not heads:
                dump += rows
        for index, head in enumerate(heads):
            if name or dump:
                yield name, facts, dump
            end = heads[index + 1].start() if index + 1 < len(heads) else len(text)
            name, facts, dump = head[1], text[head.start() : end], b""
        if heads:
            dump = rows
    if name or dump:
        yield name, facts, dump


def _blocks(file: str, chunks: Iterable[bytes], findings: Findings) -> Iterator[tuple[bytes, bytes]]:
    """Pairs of decoded text and the dump behind it (rows, each with its line end in front; empty at the end)."""
    rest = b"\n"
    count = 0
    for chunk in chunks:
        buffer = rest + chunk.replace(b"\r", b"")
        at = 0
        while (start := buffer.find(_DUMP, at)) >= 0:
            end = _DUMP_END.search(buffer, start + 1)
            if end is None:
                break
            yield buffer[at:start], buffer[start : end.start()]
            at = end.start()
            count += 1
            if count > _MAX_BLOCKS:
                findings.add(TOO_MUCH, "source", f"more than {_MAX_BLOCKS} dumps in {file}; the rest is left out")
                return
        rest = buffer[at:]
        if len(rest) > _MAX_BLOCK:
            # Text without a dump: what has function lines may be a listing, the last of them may still get a dump.
            heads = list(FUNCTION_LINE.finditer(rest)) if start < 0 else []
            if not heads or (len(heads) == 1 and heads[0].start() <= 1):
                findings.add(
                    TOO_MUCH, "source", f"{_MAX_BLOCK >> 20} MiB in {file} with nothing of use; it ends the reading"
                )
                return
            yield rest[: heads[-1].start()], b""
            rest = b"\n" + rest[heads[-1].start() :]
    start = rest.find(_DUMP)
    while start >= 0:
        end = _DUMP_END.search(rest, start + 1)
        stop = len(rest) if end is None else end.start()
        yield rest[:start], rest[start:stop]
        rest = rest[stop:]
        start = rest.find(_DUMP)
    yield rest, b""


def _config(dump: bytes, address: Sbdf, findings: Findings) -> bytes:
    config = _complete(dump)
    if config is not None:
        if len(config) not in (64, 256, MAX_CONFIG):
            findings.add(DAMAGED, f"pci:{address}", f"the dump ends after {len(config):#x} bytes")
        return config
    # Something is not where it belongs: keep the rows that can be placed, zeros between them (as lspci -F does).
    parts = re.split(_OFFSET, dump)
    whole = bytearray()
    for offset, row in zip(parts[1::2], parts[2::2], strict=True):
        at = int(offset, 16)
        if not len(whole) <= at <= MAX_CONFIG - 16:
            findings.add(
                DAMAGED, f"pci:{address}", f"a row at {at:#x} after {len(whole):#x} bytes; the rest is left out"
            )
            break
        if at > len(whole):
            findings.add(DAMAGED, f"pci:{address}", f"no row holds {len(whole):#x} to {at - 1:#x}; read as zeros")
            whole += bytes(at - len(whole))
        match = re.match(_HEX_ROW, row)
        data = bytes.fromhex(match[0].decode("ascii")) if match is not None else b""
        whole += data
        if len(data) != 16:
            findings.add(DAMAGED, f"pci:{address}", f"the row at {at:#x} has {len(data)} readable bytes of 16")
    return bytes(whole)


def _complete(dump: bytes) -> bytes | None:
    """The bytes of a dump whose rows have 16 each and follow one another from offset 0; None of any other."""
    wide = dump.find(_WIDE)
    narrow = dump if wide < 0 else dump[:wide]
    # Every offset as four digits, so that a row is 18 bytes, and the offsets of all of them are two slices.
    digits = narrow.replace(b"\n", b"00") + (dump[wide:].replace(b"\n", b"0") if wide >= 0 else b"")
    try:
        data = bytearray(unhexlify(digits.translate(None, b": \t")))
    except ValueError:
        return None
    rows = len(data) // 18
    if data[::18] != _HIGH[:rows] or data[1::18] != _LOW[:rows]:  # also where the last row is cut, or one too many
        return None
    del data[::18]
    del data[::17]
    return bytes(data)


def _attributes(text: bytes, address: Sbdf, slots: dict[str, bytes]) -> dict[str, str]:
    """What the decoded lines tell of the kernel's view, under the names that sysfs has for it."""
    attributes: dict[str, str] = {}
    resources = ["0x0000000000000000 0x0000000000000000 0x0000000000000000"] * 7
    sized = False
    for fact in re.finditer(_FACT, text):
        name = fact.lastgroup or ""
        value = fact[name].decode("ascii", "replace")
        if name == "region":
            region = _region(fact["region"])
            if region is not None and resources[region[0]].endswith(" 0x0000000000000000"):
                resources[region[0]] = region[1]
                sized = True
        elif name == "slot":
            slots.setdefault(value, b"%04x:%02x:%02x\n" % (address.segment, address.bus, address.device))
        else:
            attributes.setdefault("irq" if name == "flags_irq" else name, value)
    if sized:
        attributes["resource"] = "\n".join(resources)
    return attributes


def _region(line: bytes) -> tuple[int, str] | None:
    """Index and line of the kernel's ``resource`` file; None of a region whose size is not told."""
    match = re.match(_REGION, line)
    if match is None:
        return None
    size = int(match["size"]) << 10 * (b"KMGTP".index(match["unit"]) + 1 if match["unit"] else 0)
    start = 0 if match["start"].startswith(b"<") else int(match["start"], 16)
    if size == 0 or start + size > 1 << 64:
        return None
    if match["index"] is None:
        index, flags = _ROM, _MEMORY | _READ_ONLY
    else:
        index = int(match["index"])
        flags = _IO if match["kind"] == b"I/O ports" else _MEMORY
        flags |= _MEMORY_64 if b"(64-bit" in line else 0
        flags |= _PREFETCH if b", prefetchable" in line else 0
    return index, f"0x{start:016x} 0x{start + size - 1:016x} 0x{flags:016x}"
