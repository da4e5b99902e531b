# SPDX-License-Identifier: MIT
"""iasl as the second opinion: every field that its disassembly names begins where one of ours does, with our value.

Tables come from iasl itself (`iasl -T`, its templates) and, where the corpus is at hand, from recorded machines.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dom0kit import layout as declared
from dom0kit.acpi.tables import Other, Table, decode_table
from dom0kit.acpi.tables.dbg2 import OFFSETS
from dom0kit.acpi.tables.definition_block import DefinitionBlock
from dom0kit.acpi.tables.table import HEADER_SIZE, MODULES
from dom0kit.layout import SHORT, BitField, Record, Rest, Unknown, layout
from dom0kit.source.interface import RawTable
from dom0kit.walker import ByLength, ByType
from tests.acpi.table_strategies import fields
from tests.corpus import acpi_folders, needs_corpus

pytestmark = pytest.mark.skipif(shutil.which("iasl") is None, reason="no iasl (Debian package acpica-tools)")

_LINE = re.compile(r"\[[0-9A-F]{3,}h (\d{4,})\s+(\d+)\]\s+(.+?) : ?(.*)")
"""``[038h 0056   8]        Register Base Address : 00000000FED90000``"""


def named_by_iasl(dsl: str) -> list[tuple[int, int, str, str]]:
    """(offset, bytes, name, value) of each field in a disassembly."""
    return [
        (int(match[1]), int(match[2]), match[3], match[4].strip())
        for match in map(_LINE.match, dsl.splitlines())
        if match
    ]


class Fields:
    """Where the fields of a decoded table lie."""

    def __init__(self, table: Table) -> None:
        self.at: dict[int, tuple[int, int | None]] = {}
        """Offset -> (bytes, value as a number; None for bytes and text)."""
        self.opaque: list[range] = []
        """Offsets of what we keep as bytes because we do not know it."""
        if table.header is not None:
            self._record(table.header, 0)
        if isinstance(table.content, Record):
            self._record(table.content, 0 if table.header is None else HEADER_SIZE)

    def _record(self, record: Record, offset: int, gap: int = 0, header: int = 0) -> None:
        """A record at `offset`, whose first `gap` bytes lie between the type and the length of its header."""
        position = 0
        hints = declared._hints(type(record))
        for name, _, mark in fields(type(record)):
            value = getattr(record, name)
            if value is None:
                continue
            place = offset + position + (header if position >= gap else 0)
            field = declared._compile(hints[name])
            if isinstance(field, declared._Fixed):
                data = struct.pack("<" + field.format, value if field.dump is None else field.dump(value))
                if isinstance(value, Record) and not isinstance(value, BitField):
                    self._record(value, place)
                else:
                    self.at[place] = len(data), None if isinstance(value, str) else int.from_bytes(data, "little")
            else:
                data = field.dump(value)
                if isinstance(mark, ByLength | ByType):
                    self._entries(value, mark, place)
                elif isinstance(mark, declared._Repeated):
                    self._repeated(value, place, len(data))
                elif data:
                    self.at[place] = len(data), None
            position += len(data)
        extra = getattr(record, "extra", "")
        place = offset + position + (header if position >= gap else 0)
        if extra or isinstance(record, Other | DefinitionBlock):
            self.opaque.append(range(place - (0 if extra else position), place + len(extra) // 2))

    def _repeated(self, values: Sequence[Any], place: int, size: int) -> None:
        for number, value in enumerate(values):
            at = place + number * size // len(values)
            if isinstance(value, Record):
                self._record(value, at)
            else:
                self.at[at] = size // len(values), value

    def _entries(self, records: Sequence[Any], shape: ByLength | ByType, place: int) -> None:
        numbers = {}
        for record in records:
            if isinstance(record, Rest):
                size = len(record.raw) // 2
                self.opaque.append(range(place, place + size))
                place += size
                continue
            header = shape.header_size if isinstance(shape, ByLength) else shape.type_size
            gap = shape.length_at - shape.type_size if isinstance(shape, ByLength) else 0
            payload = len(record.body) // 2 if isinstance(record, Unknown) else len(layout(type(record)).build(record))
            size = header + payload - gap
            numbers[place] = record.type if isinstance(record, Unknown) else type(record).TYPE
            if shape.type_size:
                self.at[place] = shape.type_size, numbers[place]
            if isinstance(shape, ByLength):
                self.at[place + shape.length_at] = shape.length_size, size
            if isinstance(record, Unknown):
                self.opaque.append(range(place + shape.type_size, place + size))
            elif gap:
                self._record(record, place + shape.type_size, gap, header - shape.type_size - gap)
            else:
                self._record(record, place + header)
            place += size


def differences(table: Table, dsl: str) -> tuple[list[str], int]:
    """What iasl names and we do not, or with another value; and how many fields were compared."""
    mine = Fields(table)
    wrong: list[str] = []
    compared = 0
    for offset, size, name, text in named_by_iasl(dsl):
        if any(offset in unknown for unknown in mine.opaque) or not size:
            continue
        compared += 1
        found = mine.at.get(offset)
        if found is None:
            wrong.append(f"{offset:#x} {name} ({size} bytes): no field begins there")
            continue
        our_size, value = found
        digits = re.match(r"[0-9A-F]+\b", text)
        if our_size < size and offset + our_size not in mine.at:
            wrong.append(f"{offset:#x} {name}: {size} bytes, ours {our_size}")
        if (
            our_size == size
            and value is not None
            and digits
            and len(digits[0]) == 2 * size
            and int(digits[0], 16) != value
        ):
            wrong.append(f"{offset:#x} {name}: {text}, ours {value:#x}")
    return wrong, compared


def disassemble(path: Path) -> str:
    """The listing that iasl makes of a table, without what comes after an error of its own."""
    subprocess.run(["iasl", "-d", path.name], cwd=path.parent, capture_output=True, check=False, timeout=60)
    if not path.with_suffix(".dsl").is_file():
        return ""
    return path.with_suffix(".dsl").read_text(errors="replace").partition("\n****")[0].partition("\nRaw Table Data")[0]


KNOWN = sorted({*MODULES, "FACS"} - {"DSDT", "SSDT", "PSDT", "OSDT", "RMAD"})
"""Tables that iasl and we decode (iasl takes no RSDP, and knows the DMAR only by its own name)."""
NO_TEMPLATE = {"CEDT", "VIOT"}
"""Tables that Debian 12's iasl does not know."""
NEWEST = {"TPM2": 4}
"""Revisions that it knows: it reads a TPM2 of revision 5 as one of revision 4."""


@pytest.mark.parametrize("signature", sorted(set(KNOWN) - NO_TEMPLATE))
def test_fields_of_iasls_templates(signature: str, tmp_path: Path) -> None:
    for arguments in (["-T", signature], [f"{signature.lower()}.asl"]):
        subprocess.run(["iasl", *arguments], cwd=tmp_path, capture_output=True, check=True, timeout=60)
    path = tmp_path / f"{signature.lower()}.aml"
    table = decode_table(RawTable(signature, path.read_bytes()))
    assert table.raw is None
    assert not Fields(table).opaque
    wrong, compared = differences(table, disassemble(path))
    assert not wrong
    assert compared >= 10


@needs_corpus
@pytest.mark.slow
@pytest.mark.parametrize("signature", KNOWN)
def test_fields_of_recorded_tables(signature: str, tmp_path: Path) -> None:
    """Of each kind, up to eight tables of different revision and length."""
    sample: dict[tuple[int, int], Path] = {}
    for folder in acpi_folders():
        for path in folder.glob(f"{signature}*.dat"):
            data = path.read_bytes()
            if data[:4].decode("latin-1") == signature and len(sample) < 8 and data[8] <= NEWEST.get(signature, 255):
                sample.setdefault((data[8], len(data)), path)
    if not sample:
        pytest.skip(f"the corpus has no {signature}")
    compared_in_all = 0
    for number, path in enumerate(sample.values()):
        copy = tmp_path / f"{number}.dat"
        copy.write_bytes(path.read_bytes())
        table = decode_table(RawTable(signature, path.read_bytes()))
        if any(finding.rule == OFFSETS.id for finding in table.findings):
            continue  # iasl goes by the offsets, we by the usual order and say so
        assert not any(finding.rule == SHORT.id for finding in table.findings) or path.parent.name.startswith("fwts")
        wrong, compared = differences(table, disassemble(copy))
        compared_in_all += compared
        assert not wrong, path
    if signature not in NO_TEMPLATE:
        assert compared_in_all
