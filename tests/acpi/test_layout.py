# SPDX-License-Identifier: MIT
"""The declaration of a binary record: its fast reading and writing equal construct's, and its walker always ends."""

from __future__ import annotations

import enum
import struct
import subprocess
import sys
from typing import Annotated, ClassVar

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dom0kit import layout as declared
from dom0kit.finding import Rule
from dom0kit.layout import (
    COUNT,
    EXTRA,
    SHORT,
    U8,
    U16,
    U32,
    Bit,
    BitField,
    Int8,
    OpenRecord,
    Record,
    Rest,
    Unbuildable,
    Unknown,
    bits,
    construct_of,
    entries,
    enumerated,
    layout,
    raw,
    repeated,
    terminated_text,
    text,
    this,
)
from dom0kit.serial import Hex, decode, encode
from dom0kit.walker import OVERLONG, TRUNCATED, UNKNOWN, ZERO_LENGTH, ByLength, ByType, Notes, walk
from tests.acpi.table_strategies import record_bytes, record_types


@pytest.mark.parametrize("record", record_types(), ids=lambda record: f"{record.__module__[20:]}.{record.__name__}")
@settings(max_examples=15)
@given(data=st.data())
def test_fast_way_equals_construct(record: type[Record], data: st.DataObject) -> None:
    source = data.draw(record_bytes(record))
    whole = construct_of(record)
    if issubclass(record, BitField):
        field = declared._bit_field(record)
        assert field.load is not None
        assert field.dump is not None
        (packed,) = struct.unpack("<" + field.format, source)
        value = field.load(packed)
        assert struct.pack("<" + field.format, field.dump(value)) == source
    else:
        notes = Notes("test")
        parsed = layout(record).parse(source, 0, len(source), notes)
        assert parsed is not None
        assert {finding.rule for finding in notes.findings()} <= {EXTRA.id}
        assert layout(record).build(parsed) == source
        value = parsed
    assert whole.parse(source) == value
    assert whole.build(value) == source
    assert decode(encode(value), record) == value


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


class Flags(BitField, frozen=True, kw_only=True):
    enabled: Bit
    level: Annotated[int, bits(3)]
    colour: Annotated[Colour | int, enumerated(bits(2), {0: Colour.RED, 1: Colour.GREEN})]
    reserved: Annotated[int, bits(10)] = 0


class Point(Record, frozen=True, kw_only=True):
    x: U8
    y: U16


class First(OpenRecord, frozen=True, kw_only=True, tag="first"):
    TYPE: ClassVar[int] = 1
    number: U16
    later: U8 | None = None
    latest: U32 | None = None


class Second(OpenRecord, frozen=True, kw_only=True, tag="second"):
    TYPE: ClassVar[int] = 2
    count: U8
    points: Annotated[tuple[Point, ...], repeated(this.count)]


class Thing(OpenRecord, frozen=True, kw_only=True, tag="thing"):
    name: Annotated[str, text(4)]
    flags: Flags
    colour: Annotated[Colour | int, enumerated(Int8, {0: Colour.RED, 1: Colour.GREEN})]
    serial: Annotated[Hex, raw(3)] = "000000"
    entries: Annotated[tuple[First | Second | Unknown | Rest, ...], entries()]


HEAD = b"AB\xff\0" + b"\x1b\x80" + b"\x07" + b"\1\2\3"


def parse(data: bytes) -> tuple[Thing, set[str]]:
    notes = Notes("test")
    thing = layout(Thing).parse(data, 0, len(data), notes)
    assert thing is not None
    assert layout(Thing).build(thing) == data
    assert decode(encode(thing), Thing) == thing
    return thing, {finding.rule for finding in notes.findings()}


def test_fields_by_kind() -> None:
    thing, rules = parse(HEAD + b"\1\4\x34\x12" + b"\2\6\1\xaa\xbb\xcc" + b"\1\5\0\0\x09")
    assert not rules
    assert thing.name == "AB\xff"
    assert thing.flags == Flags(enabled=True, level=5, colour=Colour.GREEN, reserved=0x200)
    assert thing.colour == 7
    assert thing.serial == "010203"
    assert thing.entries == (
        First(number=0x1234),
        Second(count=1, points=(Point(x=0xAA, y=0xCCBB),)),
        First(number=0, later=9),
    )


def test_json_is_for_people() -> None:
    thing, _ = parse(b"AB\0\0" + b"\x01\x00" + b"\x01" + b"\0\0\0" + b"\1\4\x34\x12")
    assert encode(thing) == (
        b'{"kind":"thing","name":"AB","flags":{"enabled":true,"level":0,"colour":"red"},"colour":"green",'
        b'"entries":[{"kind":"first","number":4660}]}'
    )


@pytest.mark.parametrize(
    ("tail", "rule", "kept"),
    [
        (b"\1\0\0\0", ZERO_LENGTH, Rest(raw="01000000")),
        (b"\1\1\0\0", ZERO_LENGTH, Rest(raw="01010000")),
        (b"\1\xff\0\0", OVERLONG, Rest(raw="01ff0000")),
        (b"\1", TRUNCATED, Rest(raw="01")),
        (b"\1\3\0", SHORT, Unknown(type=1, body="00")),
        (b"\x7f\4\5\6", UNKNOWN, Unknown(type=0x7F, body="0506")),
        (b"\x7f\2", UNKNOWN, Unknown(type=0x7F, body="")),
        (b"\1\6\1\0\2\3", EXTRA, First(number=1, later=2, extra="03")),
        (b"\2\4\2\1", COUNT, Second(count=2, points=(), extra="01")),
        (b"\2\7\1\1\1\1\1", EXTRA, Second(count=1, points=(Point(x=1, y=0x101),), extra="01")),
    ],
)
def test_what_is_wrong_is_found_and_kept(tail: bytes, rule: Rule, kept: object) -> None:
    good = b"\1\4\x34\x12"
    thing, rules = parse(HEAD + good + tail)
    assert thing.entries == (First(number=0x1234), kept)
    assert rule.id in rules
    assert rules <= {rule.id, EXTRA.id}
    assert not parse(HEAD + good)[1]


def test_too_short_is_nothing() -> None:
    notes = Notes("test")
    assert layout(Thing).size == len(HEAD)
    for size in range(len(HEAD)):
        assert layout(Thing).parse(HEAD[:size], 0, size, notes) is None
    assert not notes.findings()


SHAPES = [
    ByLength(1, 1, 1),
    ByLength(2, 2, 2),
    ByLength(0, 1, 1),
    ByLength(1, 2, 2),
    ByLength(2, 4, 4),
    ByType(1, lambda data, at, end: (0, 1, 3, None, 200)[data[at] % 5]),
]


@given(data=st.binary(max_size=80), shape=st.sampled_from(SHAPES), start=st.integers(0, 5))
def test_walker_covers_all_bytes_once_and_ends(data: bytes, shape: ByLength | ByType, start: int) -> None:
    start = min(start, len(data))
    notes = Notes("test")
    position = start
    least = shape.header_size if isinstance(shape, ByLength) else shape.type_size
    found = list(walk(data, start, len(data), shape, notes))
    for number, (kind, offset, length) in enumerate(found):
        assert offset == position
        assert length > 0
        if kind is None:
            assert number == len(found) - 1
        else:
            assert length >= least
            assert kind == int.from_bytes(data[offset : offset + shape.type_size], "little")
        position += length
    assert position == len(data)
    assert bool(notes.findings()) == bool(found and found[-1][0] is None)


def test_what_is_found_in_a_copy_is_told_by_its_place_in_the_table() -> None:
    notes = Notes("test")
    notes.base = 0x100
    assert [*walk(b"\1\2\1\0", 0, 4, ByLength(1, 1, 1), notes)] == [(1, 0, 2), (None, 2, 2)]
    assert "offset 0x102" in notes.findings()[0].message


@given(st.binary(max_size=12))
def test_text_is_reversible(data: bytes) -> None:
    assert declared._to_terminated(declared._from_terminated(data)) == data
    fixed = text(len(data))
    assert fixed.build(fixed.parse(data)) == data


@given(st.text(max_size=6), st.integers(), st.integers(), st.text(max_size=6))
def test_values_that_do_not_fit_are_refused(name: str, level: int, number: int, serial: str) -> None:
    thing = Thing(
        name=name,
        flags=Flags(enabled=True, level=level, colour=Colour.RED),
        colour=number,
        serial=serial,
        entries=(First(number=number), Rest(raw=serial)),
    )
    try:
        data = layout(Thing).build(thing)
    except Unbuildable:
        return
    again = layout(Thing).parse(data, 0, len(data), Notes("test"))
    assert again is not None
    assert (again.flags.level, again.serial) == (level, serial.lower().replace(" ", ""))


def test_gap_in_optional_fields_is_refused() -> None:
    with pytest.raises(Unbuildable, match="later is absent"):
        layout(First).build(First(number=1, latest=2))
    assert layout(First).build(First(number=1, later=2)) == b"\1\0\2"


@given(st.lists(st.sampled_from([COUNT, EXTRA]), max_size=100))
@example([COUNT] * Notes.LIMIT)
@example([COUNT, EXTRA] * (Notes.LIMIT + 3))
def test_notes_are_bounded_and_count(rules: list[Rule]) -> None:
    notes = Notes("somewhere")
    for rule in rules:
        notes.add(rule, "again")
    findings = notes.findings()
    for rule in (COUNT, EXTRA):
        of_rule = [finding for finding in findings if finding.rule == rule.id]
        assert len(of_rule) == min(rules.count(rule), Notes.LIMIT + 1)
        if rules.count(rule) > Notes.LIMIT:
            assert of_rule[-1].message.startswith(f"and {rules.count(rule) - Notes.LIMIT} more")
    assert all(finding.where == "somewhere" for finding in findings)


class OddBits(BitField, frozen=True, kw_only=True):
    one: Bit


class BehindTail(OpenRecord, frozen=True, kw_only=True):
    tail: Annotated[Hex, raw()]
    number: U8


class BehindOptional(OpenRecord, frozen=True, kw_only=True):
    maybe: U8 | None = None
    number: U8


class Growing(OpenRecord, frozen=True, kw_only=True):
    name: Annotated[str, terminated_text()]


class Nested(OpenRecord, frozen=True, kw_only=True):
    inner: Growing


class RepeatedGrowing(OpenRecord, frozen=True, kw_only=True):
    inner: Annotated[tuple[Growing, ...], repeated()]


class NoSubcon(OpenRecord, frozen=True, kw_only=True):
    number: Annotated[int, "eight bits"]


class TailOfNothing(OpenRecord, frozen=True, kw_only=True):
    tail: Annotated[Hex | None, raw(this.number)] = None


@pytest.mark.parametrize(
    "record", [BehindTail, BehindOptional, Nested, RepeatedGrowing, NoSubcon, TailOfNothing], ids=lambda r: r.__name__
)
def test_wrong_declarations_are_refused(record: type[Record]) -> None:
    with pytest.raises(TypeError):
        layout(record)


def test_bits_are_whole_bytes() -> None:
    with pytest.raises(TypeError, match="no whole bytes"):
        declared._bit_field(OddBits)


def test_construct_comes_without_the_debugger() -> None:
    """A third of construct's import time is pdb, which only its Debugger needs."""
    code = """
import sys, dom0kit.layout, construct
assert "bdb" not in sys.modules and "pdb" not in sys.modules
assert construct.debug.pdb.post_mortem.__module__ == "pdb" and "bdb" in sys.modules
import pdb
assert pdb.Pdb
"""
    subprocess.run([sys.executable, "-c", code], check=True)
