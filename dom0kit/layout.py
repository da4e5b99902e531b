# SPDX-License-Identifier: MIT
"""Binary records: one declaration gives the frozen type, decode, build, JSON and schema.

A record is a msgspec struct whose fields are annotated with construct's subcons, in the order of the bytes::

    class LocalApicFlags(BitField, frozen=True, kw_only=True):
        enabled: Bit
        online_capable: Bit
        reserved: Annotated[int, bits(30)] = 0

    class LocalApic(OpenRecord, frozen=True, kw_only=True, tag="local-apic"):
        TYPE: ClassVar[int] = 0
        acpi_processor_uid: U8
        apic_id: U8
        flags: LocalApicFlags

* A field with the default None is optional: records of an earlier revision end before it.
* A reserved field has its usual value as default; JSON leaves defaults out, so it shows only where it is unusual.
* `BitField` fields are declared from bit 0 upwards.
* `repeated` is a list of equal elements, `entries` a list of type-length-value ones (see `dom0kit.walker`).
* An `OpenRecord` lies in a room that somebody else measured (a table, a sub-table); what its fields leave over is
  kept in `extra`, so building it gives the same bytes whatever firmware appended.

`layout(type)` is the fast way, one `struct.Struct` for each run of fixed fields. `construct_of(type)` is the same
declaration as one construct object; both give equal values and equal bytes.
"""

from __future__ import annotations

import functools
import struct
import sys
import typing
from collections.abc import Callable
from typing import Annotated, Any, Final, Generic, NamedTuple, TypeVar

import msgspec

from dom0kit.finding import Severity, rule
from dom0kit.imports import importing, stand_in, system_name
from dom0kit.serial import Hex
from dom0kit.walker import UNKNOWN, ByLength, ByType, Notes, walk

# construct imports these for its debugger, its probe and its pickled fields: half of its import time.
_LATE = {name: stand_in(name) for name in ("inspect", "pdb", "pickle", "traceback")}
with importing({**_LATE, "platform": system_name()}):
    import construct

R = TypeVar("R", bound="Record")

# --- findings -------------------------------------------------------------------------------------------------------

SHORT: Final = rule(
    "structure.short",
    Severity.WARNING,
    title="an entry too short for its type",
    meaning="An entry's type is known, but its length leaves no room for all fields that the type has. It is kept as "
    "bytes and not interpreted.",
    advice="Update the firmware, or override the table.",
    specification="ACPI 6.5, section 5.2.12 and the table of each entry type: the length is fixed by the type",
)
EXTRA: Final = rule(
    "structure.extra",
    Severity.INFO,
    title="bytes behind the last field",
    meaning="A table or an entry is longer than the fields that the specification gives it: padding, or a revision "
    "newer than this program. The bytes are kept in `extra`.",
    advice="Nothing, unless the table misbehaves.",
    specification="ACPI 6.5, section 5.2: newer revisions append fields, software ignores what it does not know",
)
COUNT: Final = rule(
    "structure.count",
    Severity.WARNING,
    title="a count that does not fit the bytes",
    meaning="A field says how many elements follow, and there is no room for as many. The elements that are there are "
    "decoded.",
    advice="Update the firmware, or override the table.",
    specification="ACPI 6.5, section 5.2: a table lies within the length of its header",
)


# --- what records are made of ---------------------------------------------------------------------------------------


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Fields in the order of their bytes, little-endian, without padding."""


class OpenRecord(Record, frozen=True, kw_only=True, tag_field="kind"):
    """A record whose room is measured by somebody else. JSON tells its kind by `tag`."""

    extra: Hex = ""
    """Bytes behind the last field that this program knows."""


class BitField(Record, frozen=True, kw_only=True):
    """Named bits of one little-endian number, from bit 0 upwards; the widths add up to whole bytes."""


class Unknown(Record, frozen=True, kw_only=True, tag_field="kind", tag="unknown"):
    """An entry that is not interpreted: of an unknown type, or too short for its type."""

    type: int
    body: Hex
    """All bytes except type and length."""


class Rest(Record, frozen=True, kw_only=True, tag_field="kind", tag="rest"):
    """The end of a list that cannot be walked."""

    raw: Hex


class _Text(construct.Adapter):  # type: ignore[misc]
    """Fixed-size text. Every byte string has one text and the other way round: Latin-1, NULs at the end left out."""

    def _decode(self, obj: bytes, context: Any, path: Any) -> str:
        return obj.rstrip(b"\0").decode("latin-1")

    def _encode(self, obj: str, context: Any, path: Any) -> bytes:
        return obj.encode("latin-1").ljust(self.sizeof(), b"\0")


class _Enumerated(construct.Adapter):  # type: ignore[misc]
    """A number with names for some of its values; the others stay numbers."""

    def __init__(self, subcon: Any, names: dict[int, Any]) -> None:
        super().__init__(subcon)
        self.names = names
        self.numbers = {name: number for number, name in names.items()}

    def _decode(self, obj: int, context: Any, path: Any) -> Any:
        return self.names.get(obj, obj)

    def _encode(self, obj: Any, context: Any, path: Any) -> int:
        return self.number(obj)

    def number(self, value: Any) -> int:
        return int(self.numbers.get(value, value))


class _Terminated(msgspec.Struct, frozen=True):
    size: Callable[[Any], int] | None


class _Repeated(msgspec.Struct, frozen=True):
    count: Callable[[Any], int] | None


def text(size: int) -> Any:
    """`size` bytes of text."""
    return _Text(construct.Bytes(size))


def terminated_text(size: Callable[[Any], int] | None = None) -> Any:
    """NUL-terminated text in `size` bytes (an expression of `this`), or in all that are left.

    Text without its NUL ends with an ellipsis (U+2026) instead, so every byte string has its own text.
    """
    return _Terminated(size)


def raw(size: int | Callable[[Any], int] | None = None) -> Any:
    """`size` bytes; as many as a preceding field says (`this.field`); or all that are left."""
    return construct.GreedyBytes if size is None else construct.Bytes(size)


def bits(width: int) -> Any:
    """`width` bits of a `BitField`."""
    return construct.BitsInteger(width)


def enumerated(subcon: Any, names: dict[int, Any]) -> Any:
    """A number whose values have names: annotate ``SomeEnum | int``, or ``SomeEnum`` when every value has one."""
    return _Enumerated(subcon, names)


def repeated(count: Callable[[Any], int] | None = None) -> Any:
    """A list of equal elements: `count` (an expression of `this`) of them, or as many as fit."""
    return _Repeated(count)


def entries(*, type: int = 1, length_at: int = 1, length: int = 1) -> Any:
    """A list of entries up to the end of the room; the union's members tell their number by `TYPE`."""
    return ByLength(type, length_at, length)


def measured_entries(*, type: int, measure: Callable[[bytes, int, int], int | None]) -> Any:
    """A list of entries without a length field, up to the end of the room."""
    return ByType(type, measure)


this: Final[Any] = construct.this
"""The record so far, for counts: ``this.number_of_banks``."""

Int8: Final = construct.Int8ul
Int16: Final = construct.Int16ul
Int32: Final = construct.Int32ul
Int64: Final = construct.Int64ul

U8 = Annotated[int, Int8, msgspec.Meta(ge=0, le=0xFF)]
U16 = Annotated[int, Int16, msgspec.Meta(ge=0, le=0xFFFF)]
U32 = Annotated[int, Int32, msgspec.Meta(ge=0, le=0xFFFFFFFF)]
U64 = Annotated[int, Int64, msgspec.Meta(ge=0)]
Bit = Annotated[bool, construct.Flag]

# --- the fast way ---------------------------------------------------------------------------------------------------


class _Fixed(NamedTuple):
    """A field of fixed size: one item of a `struct` format, and what turns it into the value and back."""

    format: str
    load: Callable[[Any], Any] | None = None
    dump: Callable[[Any], Any] | None = None


class _Tail(NamedTuple):
    """A field of variable size."""

    load: Callable[[bytes, int, int, dict[str, Any], Notes], tuple[Any, int]]
    """(data, offset, end, fields so far, notes) -> (value, where the next field begins)."""
    dump: Callable[[Any], bytes]


class _Run:
    """Adjacent fixed fields, read and written by one `struct.Struct`."""

    __slots__ = ("_dumps", "_loads", "_pack", "_unpack", "names", "size")

    def __init__(self, fields: list[tuple[str, _Fixed]]) -> None:
        packed = struct.Struct("<" + "".join(field.format for _, field in fields))
        self.size = packed.size
        self.names = tuple(name for name, _ in fields)
        self._unpack = packed.unpack_from
        self._pack = packed.pack
        self._loads = tuple((i, field.load) for i, (_, field) in enumerate(fields) if field.load is not None)
        self._dumps = tuple((i, field.dump) for i, (_, field) in enumerate(fields) if field.dump is not None)

    def read(self, data: bytes, offset: int) -> dict[str, Any]:
        items: Any = self._unpack(data, offset)
        if self._loads:
            items = list(items)
            for i, load in self._loads:
                items[i] = load(items[i])
        return dict(zip(self.names, items, strict=True))

    def write(self, record: Record) -> bytes:
        items = [getattr(record, name) for name in self.names]
        for i, dump in self._dumps:
            items[i] = dump(items[i])
        return self._pack(*items)


class Layout(Generic[R]):
    """How records of one type lie in bytes. Get it from `layout`."""

    def __init__(self, type: type[R]) -> None:
        hints = _hints(type)
        defaults = dict(zip(type.__struct_fields__[::-1], type.__struct_defaults__[::-1], strict=False))
        required: list[tuple[str, _Fixed]] = []
        optional: list[tuple[str, _Fixed]] = []
        self._tails: list[tuple[str, _Tail]] = []
        for name in type.__struct_fields__:
            if name == "extra":
                continue
            field = _compile(hints[name])
            if isinstance(field, _Tail):
                if (name in defaults and defaults[name] is None) != bool(optional):
                    raise TypeError(f"{type.__name__}.{name}: the default None is for what follows optional fields")
                self._tails.append((name, field))
            elif self._tails:
                raise TypeError(f"{type.__name__}.{name} follows a field of variable size")
            elif name in defaults and defaults[name] is None:
                optional.append((name, field))
            elif optional:
                raise TypeError(f"{type.__name__}.{name} follows optional fields")
            else:
                required.append((name, _usual(field, defaults.get(name))))
        self._type = type
        self._open = issubclass(type, OpenRecord)
        self._runs = [_Run(required + optional[:n]) for n in range(len(optional) + 1)]
        """By the number of optional fields that are there."""
        self._optional = tuple(name for name, _ in optional)
        self.size: int = self._runs[0].size
        """Bytes of the required fields: the least that a record needs."""
        self.is_fixed: bool = not optional and not self._tails and not self._open

    def parse(self, data: bytes, start: int, end: int, notes: Notes) -> R | None:
        """The record in [start, end) of `data`; None when its required fields do not fit."""
        room = end - start
        run = self._runs[0]
        if room < run.size:
            return None
        for longer in self._runs[1:]:
            if room < longer.size:
                break
            run = longer
        values = run.read(data, start)
        position = start + run.size
        if run is self._runs[-1]:
            for name, tail in self._tails:
                values[name], position = tail.load(data, position, end, values, notes)
        if self._open and position < end:
            values["extra"] = data[position:end].hex()
        return self._type(**values)

    def build(self, record: R) -> bytes:
        """The bytes of the record; Unbuildable where a value does not fit its field."""
        try:
            present = 0
            while present < len(self._optional) and getattr(record, self._optional[present]) is not None:
                present += 1
            if any(getattr(record, name) is not None for name in self._optional[present:]):
                raise Unbuildable(f"{self._type.__name__}: {self._optional[present]} is absent, but not all behind it")
            parts = [self._runs[present].write(record)]
            for name, tail in self._tails:
                value = getattr(record, name)
                if value is not None:
                    parts.append(tail.dump(value))
            if isinstance(record, OpenRecord) and record.extra:
                parts.append(bytes.fromhex(record.extra))
            return b"".join(parts)
        except Unbuildable:
            raise
        except (construct.ConstructError, struct.error, ValueError, OverflowError, TypeError) as error:
            raise Unbuildable(f"{self._type.__name__}: {error}") from error


class Unbuildable(ValueError):
    """A record holds a value that its bytes cannot; the message names the record."""


_LAYOUTS: Final[dict[Any, Layout[Any]]] = {}


def layout(type: type[R]) -> Layout[R]:
    """The layout of a record type, made at its first use."""
    made = _LAYOUTS.get(type)
    if made is None:
        made = _LAYOUTS[type] = Layout(type)
    return made


_EVALUATED: Final[dict[tuple[str, str], Any]] = {}


def _hints(type: type) -> dict[str, Any]:
    """Evaluated annotations of a record type and its bases.

    `typing.get_type_hints` does the same at several times the cost, which start-up would feel.
    """
    hints: dict[str, Any] = {}
    for base in reversed(type.__mro__):
        names = vars(sys.modules[base.__module__])
        for name, hint in vars(base).get("__annotations__", {}).items():
            if isinstance(hint, str) and not hint.startswith("ClassVar"):
                known = names.get(hint) or _EVALUATED.get((base.__module__, hint))
                if known is None:
                    known = _EVALUATED[base.__module__, hint] = eval(hint, names)
                hints[name] = known
    return hints


def _split(hint: Any) -> tuple[Any, Any]:
    """The plain type of a field, and the subcon or marker that annotates it (None where the type says all)."""
    if typing.get_origin(hint) is Annotated:
        for mark in hint.__metadata__:
            if isinstance(mark, construct.Construct | _Terminated | _Repeated | ByLength | ByType):
                return hint.__origin__, mark
        raise TypeError(f"{hint} names no subcon")
    options = [option for option in typing.get_args(hint) if option is not type(None)]
    return _split(options[0]) if options else (hint, None)


def _members(hint: Any) -> tuple[Any, ...]:
    """What `tuple[X | Y, ...]` may hold: X and Y, annotations kept."""
    element = typing.get_args(hint)[0]
    return (
        (element,) if typing.get_origin(element) is Annotated or isinstance(element, type) else typing.get_args(element)
    )


def _compile(hint: Any) -> _Fixed | _Tail:
    plain, mark = _split(hint)
    if mark is None:
        if issubclass(plain, BitField):
            return _bit_field(plain)
        nested = layout(plain)
        if not nested.is_fixed:
            raise TypeError(f"{plain.__name__} is of variable size, and only a list may hold it")
        return _Fixed(f"{nested.size}s", lambda data: nested.parse(data, 0, nested.size, _NOBODY), nested.build)
    if isinstance(mark, _Terminated):
        return _bytes_tail(mark.size, _from_terminated, _to_terminated)
    if isinstance(mark, _Repeated):
        return _repeated_tail(plain, mark)
    if isinstance(mark, ByLength | ByType):
        return _entries_tail(plain, mark)
    if isinstance(mark, construct.FormatField):
        return _Fixed(_code(mark))
    if isinstance(mark, _Enumerated) and isinstance(mark.subcon, construct.FormatField):
        names = mark.names
        return _Fixed(_code(mark.subcon), lambda number: names.get(number, number), mark.number)
    if isinstance(mark, _Text):
        return _Fixed(f"{mark.sizeof()}s", lambda data: data.rstrip(b"\0").decode("latin-1"), mark.build)
    if isinstance(mark, construct.Bytes) and isinstance(mark.length, int):
        return _Fixed(f"{mark.length}s", bytes.hex, _exactly(mark.length))
    if mark is construct.GreedyBytes:
        return _bytes_tail(None, bytes.hex, bytes.fromhex)
    if isinstance(mark, construct.Bytes):
        return _bytes_tail(mark.length, bytes.hex, bytes.fromhex)
    raise TypeError(f"{mark!r} is no kind of field")


_NOBODY: Final = Notes("")
"""Records of fixed size have nothing to say: they fit, or are not parsed."""


def _usual(field: _Fixed, default: Any) -> _Fixed:
    """The field, giving the very object that is its default: JSON leaves out only what is identical to it."""
    if not isinstance(default, str) or field.dump is None:
        return field
    usual, load = field.dump(default), field.load
    return field._replace(load=lambda data: default if data == usual or load is None else load(data))


def _code(field: Any) -> str:
    order, code = field.fmtstr
    if order != "<":
        raise TypeError("ACPI has no big-endian numbers")
    return str(code)


def _exactly(size: int) -> Callable[[Hex], bytes]:
    def dump(value: Hex) -> bytes:
        data = bytes.fromhex(value)
        if len(data) != size:
            raise ValueError(f"{len(data)} bytes, not {size}")
        return data

    return dump


def _from_terminated(data: bytes) -> str:
    text = data.decode("latin-1")
    return text[:-1] if text.endswith("\0") else text + "\u2026"


def _to_terminated(text: str) -> bytes:
    return (text[:-1] if text.endswith("\u2026") else text + "\0").encode("latin-1")


def _bytes_tail(
    size: Callable[[Any], int] | None, from_bytes: Callable[[bytes], str], to_bytes: Callable[[str], bytes]
) -> _Tail:
    def load(data: bytes, offset: int, end: int, so_far: dict[str, Any], notes: Notes) -> tuple[str, int]:
        stop = end if size is None else _room(size(so_far), 1, offset, end, notes)
        return from_bytes(data[offset:stop]), stop

    return _Tail(load, to_bytes)


def _room(count: int, size: int, offset: int, end: int, notes: Notes) -> int:
    """Where `count` elements of `size` end; at the last whole one before `end` where they do not fit."""
    if count * size > end - offset:
        place = offset + notes.base
        notes.add(COUNT, f"{count} elements of {size} bytes at offset {place:#x}, but {end - offset} bytes are left")
        count = (end - offset) // size
    return offset + count * size


def _repeated_tail(plain: Any, mark: _Repeated) -> _Tail:
    (element,) = _members(plain)
    inner, subcon = _split(element)
    count = mark.count
    if subcon is not None:
        code = _code(subcon)
        size = struct.calcsize("<" + code)

        def load_numbers(
            data: bytes, offset: int, end: int, so_far: dict[str, Any], notes: Notes
        ) -> tuple[tuple[int, ...], int]:
            wanted = (end - offset) // size if count is None else count(so_far)
            stop = _room(wanted, size, offset, end, notes)
            return struct.unpack_from(f"<{(stop - offset) // size}{code}", data, offset), stop

        return _Tail(load_numbers, lambda numbers: struct.pack(f"<{len(numbers)}{code}", *numbers))

    nested: Layout[Any] = layout(inner)
    if not nested.is_fixed:
        raise TypeError(f"{inner.__name__} is of variable size and cannot be repeated")

    def load(data: bytes, offset: int, end: int, so_far: dict[str, Any], notes: Notes) -> tuple[tuple[Any, ...], int]:
        wanted = (end - offset) // nested.size if count is None else count(so_far)
        stop = _room(wanted, nested.size, offset, end, notes)
        return tuple(nested.parse(data, at, stop, notes) for at in range(offset, stop, nested.size)), stop

    return _Tail(load, lambda records: b"".join(map(nested.build, records)))


def _entries_tail(plain: Any, shape: ByLength | ByType) -> _Tail:
    members = {member.TYPE: member for member in _members(plain) if member not in (Unknown, Rest)}
    numbers = {member: number for number, member in members.items()}
    gap = shape.length_at - shape.type_size if isinstance(shape, ByLength) else 0
    header = shape.header_size if isinstance(shape, ByLength) else shape.type_size

    def load(data: bytes, offset: int, end: int, so_far: dict[str, Any], notes: Notes) -> tuple[tuple[Any, ...], int]:
        items: list[Record] = []
        unknown: dict[int, int] = {}
        for kind, at, length in walk(data, offset, end, shape, notes):
            stop = at + length
            if kind is None:
                items.append(Rest(raw=data[at:stop].hex()))
                break
            record = None
            if kind in members:
                member = layout(members[kind])
                if gap:
                    payload = data[at + shape.type_size : at + shape.type_size + gap] + data[at + header : stop]
                    base = notes.base
                    notes.base += at + header - gap
                    record = member.parse(payload, 0, len(payload), notes)
                    notes.base = base
                else:
                    record = member.parse(data, at + header, stop, notes)
                if record is None:
                    notes.add(SHORT, f"entry of type {kind:#x} at offset {at + notes.base:#x}: {length} bytes only")
                elif record.extra:
                    size = len(record.extra) // 2
                    notes.add(EXTRA, f"entry of type {kind:#x} at offset {at + notes.base:#x}: {size} bytes too many")
            else:
                unknown[kind] = unknown.get(kind, 0) + 1
            if record is None:
                body = data[at + shape.type_size : at + shape.type_size + gap] + data[at + header : stop]
                record = Unknown(type=kind, body=body.hex())
            items.append(record)
        for kind, times in unknown.items():
            notes.add(UNKNOWN, f"type {kind:#x}, {times} of them" if times > 1 else f"type {kind:#x}")
        return tuple(items), end

    def dump(records: tuple[Record, ...]) -> bytes:
        parts: list[bytes] = []
        for record in records:
            if isinstance(record, Rest):
                parts.append(bytes.fromhex(record.raw))
                continue
            if isinstance(record, Unknown):
                kind, payload = record.type, bytes.fromhex(record.body)
            else:
                kind, payload = numbers[type(record)], layout(type(record)).build(record)
            parts.append(kind.to_bytes(shape.type_size, "little"))
            if isinstance(shape, ByLength):
                parts += [payload[:gap], (header + len(payload) - gap).to_bytes(shape.length_size, "little")]
            parts.append(payload[gap:])
        return b"".join(parts)

    return _Tail(load, dump)


def _bit_field(type: type[BitField]) -> _Fixed:
    hints = _hints(type)
    fields: list[tuple[str, int, int, Callable[[int], Any]]] = []
    numbers: list[tuple[str, int, int, Callable[[Any], int]]] = []
    shift = 0
    for name in type.__struct_fields__:
        _, mark = _split(hints[name])
        load: Callable[[int], Any] = int
        dump: Callable[[Any], int] = int
        if isinstance(mark, _Enumerated):
            load, dump, mark = functools.partial(_named, mark.names), mark.number, mark.subcon
        if mark is construct.Flag:
            load, width = bool, 1
        else:
            width = mark.length
        fields.append((name, shift, (1 << width) - 1, load))
        numbers.append((name, shift, (1 << width) - 1, dump))
        shift += width
    size, odd = divmod(shift, 8)
    if odd:
        raise TypeError(f"{type.__name__} has {shift} bits, which are no whole bytes")

    @functools.lru_cache(maxsize=256)
    def from_number(number: int) -> BitField:
        return type(**{name: load(number >> at & mask) for name, at, mask, load in fields})

    def to_number(record: BitField) -> int:
        number = 0
        for name, at, mask, dump in numbers:
            value = dump(getattr(record, name))
            if not 0 <= value <= mask:
                raise ValueError(f"{name} is {value}, not 0 to {mask}")
            number |= value << at
        return number

    code = {1: "B", 2: "H", 4: "I", 8: "Q"}.get(size)
    if code is not None:
        return _Fixed(code, from_number, to_number)
    return _Fixed(
        f"{size}s",
        lambda data: from_number(int.from_bytes(data, "little")),
        lambda record: to_number(record).to_bytes(size, "little"),
    )


def _named(names: dict[int, Any], number: int) -> Any:
    return names.get(number, number)


# --- the same as one construct --------------------------------------------------------------------------------------


_CONSTRUCTS: Final[dict[Any, Any]] = {}


def construct_of(type: type[Record]) -> Any:
    """The declaration as one construct object: ``parse(bytes)`` gives the record, ``build(record)`` the bytes.

    For well-formed bytes only: it raises construct's errors where `Layout.parse` leaves a finding.
    """
    if type in _CONSTRUCTS:
        return _CONSTRUCTS[type]
    hints = _hints(type)
    names = [name for name in type.__struct_fields__ if name != "extra"]
    parts = []
    last = ""
    for name in names:
        subcon, is_optional, is_fixed = _subcon(hints[name])
        if is_optional and is_fixed:
            subcon = construct.Optional(subcon)
            last = name
        elif is_optional:
            subcon = construct.If(functools.partial(_is_there, last), subcon)
        parts.append(name / subcon)
    if issubclass(type, BitField):
        width = sum(part.sizeof() for part in parts)
        whole = construct.ByteSwapped(construct.BitStruct(*reversed(parts)))
        fields = whole if width > 8 else construct.BitStruct(*reversed(parts))
    else:
        fields = construct.Struct(*parts, *(["extra" / _HEX_REST] if issubclass(type, OpenRecord) else []))

    def load(values: Any, context: Any) -> Any:
        return type(**{name: values[name] for name in type.__struct_fields__})

    def dump(record: Record, context: Any) -> dict[str, Any]:
        return {name: getattr(record, name) for name in type.__struct_fields__}

    made = _CONSTRUCTS[type] = construct.ExprAdapter(fields, load, dump)
    return made


def _hex(subcon: Any) -> Any:
    return construct.ExprAdapter(subcon, lambda data, _: data.hex(), lambda value, _: bytes.fromhex(value))


_HEX_REST: Final = _hex(construct.GreedyBytes)


def _is_there(name: str, context: Any) -> bool:
    return context[name] is not None


def _subcon(hint: Any) -> tuple[Any, bool, bool]:
    """The construct of a field, whether it is optional, whether its size is fixed."""
    plain, mark = _split(hint)
    if mark is None:
        subcon = construct_of(plain)
    elif isinstance(mark, _Repeated):
        element, _, _ = _subcon(*_members(plain))
        subcon = construct.GreedyRange(element) if mark.count is None else construct.Array(mark.count, element)
        subcon = construct.ExprAdapter(subcon, lambda items, _: tuple(items), lambda items, _: list(items))
    elif isinstance(mark, ByLength | ByType):
        subcon = _entries_subcon(plain, mark)
    elif isinstance(mark, _Terminated):
        whole = construct.GreedyBytes if mark.size is None else construct.Bytes(mark.size)
        subcon = construct.ExprAdapter(
            whole, lambda data, _: _from_terminated(data), lambda text, _: _to_terminated(text)
        )
    elif isinstance(mark, construct.Bytes) or mark is construct.GreedyBytes:
        subcon = _hex(mark)
    else:
        subcon = mark
    optional = type(None) in (*typing.get_args(hint), *typing.get_args(plain))
    fixed = not isinstance(mark, _Terminated | _Repeated | ByLength | ByType) and mark is not construct.GreedyBytes
    return subcon, optional, fixed and not (isinstance(mark, construct.Bytes) and callable(mark.length))


def _entries_subcon(plain: Any, shape: ByLength | ByType) -> Any:
    members = {member.TYPE: construct_of(member) for member in _members(plain) if member not in (Unknown, Rest)}
    numbers = {member: member.TYPE for member in _members(plain) if member not in (Unknown, Rest)}
    kind = construct.BytesInteger(shape.type_size, swapped=True) if shape.type_size else construct.Computed(0)
    if isinstance(shape, ByLength):
        gap = shape.length_at - shape.type_size
        header = shape.header_size
        entry = construct.Struct(
            "kind" / kind,
            "gap" / construct.Bytes(gap),
            "length" / construct.BytesInteger(shape.length_size, swapped=True),
            "rest" / construct.Bytes(construct.this.length - header),
        )
    else:
        gap, header, measure = 0, shape.type_size, shape.measure

        def rest(context: Any) -> int:
            stream = context._io
            at = stream.tell()
            start = at - header
            stream.seek(0)
            data = stream.read()
            stream.seek(at)
            length = measure(data, start, len(data))
            if not length:
                raise construct.StreamError("an entry without a length")
            return length - header

        bounded = construct.IfThenElse(construct.this._parsing, construct.Bytes(rest), construct.GreedyBytes)
        entry = construct.Struct("kind" / kind, "gap" / construct.Bytes(0), "rest" / bounded)

    def load(value: Any, context: Any) -> Record:
        payload = value.gap + value.rest
        if value.kind not in members:
            return Unknown(type=value.kind, body=payload.hex())
        return typing.cast("Record", members[value.kind].parse(payload))

    def dump(record: Any, context: Any) -> dict[str, Any]:
        if isinstance(record, Unknown):
            number, payload = record.type, bytes.fromhex(record.body)
        else:
            number, payload = numbers[type(record)], construct_of(type(record)).build(record)
        return {"kind": number, "gap": payload[:gap], "length": header + len(payload) - gap, "rest": payload[gap:]}

    whole = construct.GreedyRange(construct.ExprAdapter(entry, load, dump))
    return construct.ExprAdapter(whole, lambda items, _: tuple(items), lambda items, _: list(items))
