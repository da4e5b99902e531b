# SPDX-License-Identifier: MIT
"""Hypothesis strategies for binary records: well-formed bytes of any record type, from its declaration alone."""

from __future__ import annotations

import re
import struct
import types
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

from dom0kit import layout as declared
from dom0kit.acpi.tables import everything
from dom0kit.layout import BitField, Layout, OpenRecord, Record, Rest, Unknown, layout
from dom0kit.walker import ByLength, ByType

LISTS = (declared._Repeated, ByLength, ByType)


def fields(record: type[Record]) -> Iterator[tuple[str, Any, Any]]:
    """(name, plain type, subcon or marker) of each field but `extra`, in the order of the bytes."""
    hints = declared._hints(record)
    for name in record.__struct_fields__:
        if name != "extra":
            yield name, *declared._split(hints[name])


def record_types() -> list[type[Record]]:
    """Every record type that a table may hold, tables first."""
    found: dict[type[Record], None] = {}

    def visit(record: type[Record]) -> None:
        if record in found or record in (Unknown, Rest):
            return
        found[record] = None
        for _, plain, mark in fields(record):
            if mark is None:
                visit(plain)
            elif isinstance(mark, LISTS):
                for member in declared._members(plain):
                    if isinstance(member, type) and issubclass(member, Record):
                        visit(member)

    for content in everything.Content.__args__:
        visit(content)
    return list(found)


def record_bytes(record: type[Record]) -> st.SearchStrategy[bytes]:
    """Bytes of a record whose counts are right and whose lists are whole; any number of its optional fields."""
    if issubclass(record, BitField):
        size = struct.calcsize("<" + declared._bit_field(record).format)
        return st.binary(min_size=size, max_size=size)
    return _record_bytes(record)


@st.composite
def _record_bytes(draw: st.DrawFn, record: type[Record]) -> bytes:
    made: Layout[Any] = layout(record)
    present = draw(st.integers(0, len(made._optional)))
    run = made._runs[present]
    values = run.read(draw(st.binary(min_size=run.size, max_size=run.size)), 0)
    tails = [(plain, mark) for name, plain, mark in fields(record) if name in dict(made._tails)]
    counts = [_count(mark) for _, mark in tails]
    for name in values.keys() & {name for count in counts for name in re.findall(r"\['(\w+)'\]", repr(count))}:
        values[name] = draw(st.integers(0, 3))
    data: bytes = run.write(types.SimpleNamespace(**values))  # type: ignore[arg-type]
    if present < len(made._optional):
        return data
    for (plain, mark), count in zip(tails, counts, strict=True):
        data += draw(_tail_bytes(plain, mark, None if count is None else count(values)))
    if issubclass(record, OpenRecord) and None not in counts:
        data += draw(st.binary(max_size=5))
    return data


def _count(mark: Any) -> Any:
    """The expression that says how many elements a tail has; None where it takes what is left."""
    if isinstance(mark, declared._Repeated):
        return mark.count
    if isinstance(mark, declared._Terminated):
        return mark.size
    return getattr(mark, "length", None)


def _tail_bytes(plain: Any, mark: Any, count: int | None) -> st.SearchStrategy[bytes]:
    if isinstance(mark, ByLength | ByType):
        return st.lists(_entry_bytes(plain, mark), max_size=4).map(b"".join)
    element: st.SearchStrategy[bytes] = st.binary(min_size=1, max_size=1)
    if isinstance(mark, declared._Repeated):
        inner, subcon = declared._split(*declared._members(plain))
        size = subcon.sizeof() if subcon is not None else layout(inner).size
        element = st.binary(min_size=size, max_size=size)
    return st.lists(element, min_size=count or 0, max_size=6 if count is None else count).map(b"".join)


@st.composite
def _entry_bytes(draw: st.DrawFn, plain: Any, shape: ByLength | ByType) -> bytes:
    members = {member.TYPE: member for member in declared._members(plain) if member not in (Unknown, Rest)}
    kind = draw(st.sampled_from(sorted(members)))
    type_bytes = kind.to_bytes(shape.type_size, "little")
    payload: bytes = draw(record_bytes(members[kind]))
    if isinstance(shape, ByType):
        entry = type_bytes + payload
        size = shape.measure(entry, 0, len(entry))
        assert size
        return bytes(entry[:size])
    gap = shape.length_at - shape.type_size
    length = shape.header_size + len(payload) - gap
    return b"".join([type_bytes, payload[:gap], length.to_bytes(shape.length_size, "little"), payload[gap:]])
