# SPDX-License-Identifier: MIT
"""From the text of a ``partition.toml`` to a `Partition`: every mistake with its line, its column and a sentence.

tomllib reads the text and says where its syntax ends; where a value of correct text stands it forgets, so a small
scanner finds the keys again. It only ever sees text that tomllib took.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Final, NamedTuple

import msgspec

from dom0kit.partition.model import Device, Domain, Partition, Policy
from dom0kit.serial import schema

MOST_BYTES: Final = 4 << 20

Key = tuple[str | int, ...]
"""The way to a value: keys, and places in arrays."""


class Place(NamedTuple):
    """Of a character in a text, from 1 on."""

    line: int
    column: int


class Mistake(NamedTuple):
    """Something wrong in a file."""

    place: Place
    sentence: str

    def __str__(self) -> str:
        return f"line {self.place.line}, column {self.place.column}: {self.sentence}"


class Mistakes(ValueError):
    """The text is no partition; `mistakes`, never empty, in the order of the text."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        self.mistakes = tuple(sorted(mistakes))
        super().__init__("; ".join(map(str, self.mistakes)))


class Document(NamedTuple):
    """A partition, and where things stand in its text."""

    partition: Partition
    places: Mapping[Key, Place]

    def line(self, domain: int, device: int | None = None) -> int | None:
        """Where a domain, or one of its devices, begins."""
        key: Key = ("domain", domain) if device is None else ("domain", domain, "device", device)
        place = self.places.get(key)
        return None if place is None else place.line


def read(data: bytes) -> Document:
    """The partition that a file holds. Mistakes."""
    if len(data) > MOST_BYTES:
        raise Mistakes([Mistake(Place(1, 1), f"the file has more than {MOST_BYTES >> 20} MiB")])
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        raise Mistakes([Mistake(_place(before, len(before)), "the text is not UTF-8")]) from error
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Mistakes([_syntax(text, str(error))]) from error
    except (ValueError, RecursionError) as error:  # a number with too many digits; arrays in arrays in arrays
        raise Mistakes([Mistake(Place(1, 1), f"the text cannot be read: {error}")]) from error
    return _Reader(tree, places(text)).document()


_AT: Final = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


def _syntax(text: str, message: str) -> Mistake:
    found = _AT.search(message)
    said = _AT.sub("", message)
    if found is None or found[1] is None:
        return Mistake(_place(text, len(text)), f"{said}: the text ends too early")
    return Mistake(Place(int(found[1]), int(found[2])), said)


def _place(text: str, at: int) -> Place:
    line = text.count("\n", 0, at) + 1
    return Place(line, at - (text.rfind("\n", 0, at) + 1) + 1)


# --- meaning ----------------------------------------------------------------------------------------------------------

_TABLES: Final[Mapping[tuple[type, str], type[msgspec.Struct]]] = {(Domain, "policy"): Policy}
_ARRAYS: Final[Mapping[tuple[type, str], type[msgspec.Struct]]] = {
    (Partition, "domain"): Domain,
    (Domain, "device"): Device,
}


class _Reader:
    def __init__(self, tree: dict[str, Any], where: Mapping[Key, Place]) -> None:
        self._tree = tree
        self._places = where
        self._mistakes: list[Mistake] = []

    def document(self) -> Document:
        partition = self._table(self._tree, Partition, ())
        if partition is None:
            raise Mistakes(self._mistakes)
        return Document(partition, self._places)

    def _table(self, tree: Mapping[str, Any], of: type[msgspec.Struct], key: Key) -> Any:
        """The struct that a table holds; None, with mistakes noted, where it holds none."""
        fields = _fields(of)
        given: dict[str, Any] = {}
        whole = True
        for name, value in tree.items():
            below = (*key, name)
            if name not in fields:
                self._note(below, _unknown(name, list(fields)))
                whole = False
                continue
            got = self._value(value, of, name, fields[name].type, below)
            whole = whole and got is not None
            given[fields[name].name] = got
        missing = [name for name, field in fields.items() if field.required and name not in tree]
        for name in missing:
            self._note(key, f"a {of.__name__.lower()} needs a {name}")
        if missing or not whole:
            return None
        try:
            return of(**given)
        except ValueError as error:
            self._note(key, str(error))
            return None

    def _value(self, value: Any, of: type, name: str, type_: Any, key: Key) -> Any:
        below = _TABLES.get((of, name))
        if below is not None:
            if isinstance(value, dict):
                return self._table(value, below, key)
            return self._note(key, f"{name} is a table, written [...{name}] or {{ ... }}")
        below = _ARRAYS.get((of, name))
        if below is not None:
            if isinstance(value, list) and all(isinstance(each, dict) for each in value):
                found = [self._table(each, below, (*key, number)) for number, each in enumerate(value)]
                return None if None in found else tuple(found)
            return self._note(key, f"{name} is a list of tables, written [[...{name}]]")
        try:
            return msgspec.convert(value, type_)
        except msgspec.ValidationError as error:
            return self._note(key, _not_a(name, value, of, str(error)))

    def _note(self, key: Key, sentence: str) -> None:
        while key and key not in self._places:
            key = key[:-1]
        self._mistakes.append(Mistake(self._places.get(key, Place(1, 1)), sentence))


@functools.cache
def _fields(of: type[msgspec.Struct]) -> Mapping[str, msgspec.structs.FieldInfo]:
    return {field.encode_name: field for field in msgspec.structs.fields(of)}


def _unknown(name: str, known: list[str]) -> str:
    matches = get_close_matches(name, known, n=1)
    return f"there is no key {name}" + (f", did you mean {matches[0]}?" if matches else f": {', '.join(known)}")


def _not_a(name: str, value: Any, of: type, said: str) -> str:
    """By the words of the schema; where it has none, by msgspec's."""
    properties = schema(Partition)["$defs"].get(of.__name__, {}).get("properties", {})
    described = properties.get(name, {})
    for each in (described, *described.get("anyOf", ())):
        if "description" in each:
            example = f", such as {each['examples'][0]}" if each.get("examples") else ""
            return f"{name} is {each['description']}{example}; not {_shown(value)}"
        if "$ref" in each:
            choices = schema(Partition)["$defs"][each["$ref"].rpartition("/")[2]].get("enum")
            if choices:
                return f"{name} is one of {', '.join(map(str, choices))}; not {_shown(value)}"
    return f"{name} cannot be {_shown(value)}: {said[:1].lower()}{said[1:]}"


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict | list):
        return "a table" if isinstance(value, dict) else "a list"
    text = ascii(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


# --- places -----------------------------------------------------------------------------------------------------------


def places(text: str) -> dict[Key, Place]:
    """Where each table, key and element of a list begins, in text that is TOML 1.0.

    Tables that are only named on the way to others have no place.
    """
    return _Scanner(text).scan()


_BLANK: Final = re.compile(r"[ \t]*")
_SPACE: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR: Final = re.compile(r"[^\s,\]}#]+(?: [0-9][^\s,\]}#]*)?")
"""Numbers, booleans and times; between date and time there may be a blank."""
_STRINGS: Final = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r'"""(?:\\.|[^\\])*?"""(?:"{1,2}(?!"))?',
        r"'''.*?'''(?:'{1,2}(?!'))?",
        r'"(?:\\.|[^"\\])*"',
        r"'[^']*'",
    )
)


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line = 1
        self._counted = 0
        """Where `_line` was counted to, and the beginning of the line."""
        self._begins = 0
        self._places: dict[Key, Place] = {}

    def scan(self) -> dict[Key, Place]:
        counts: dict[Key, int] = {}
        table: Key = ()
        while self._skip(_SPACE) < len(self._text):
            place = self._place()
            if self._text.startswith("[[", self._at):
                self._at += 2
                parts = self._key()
                table = self._resolved(parts[:-1], counts)
                number = counts.get((*table, parts[-1]), -1) + 1
                counts[*table, parts[-1]] = number
                self._places.setdefault((*table, parts[-1]), place)
                table = (*table, parts[-1], number)
                self._places[table] = place
                self._at = self._text.index("]]", self._at) + 2
            elif self._text[self._at] == "[":
                self._at += 1
                table = self._resolved(self._key(), counts)
                self._places.setdefault(table, place)
                self._at = self._text.index("]", self._at) + 1
            else:
                self._pair(table)
        return self._places

    def _resolved(self, parts: list[str], counts: Mapping[Key, int]) -> Key:
        """With the place of the last element of each list of tables on the way."""
        key: Key = ()
        for part in parts:
            key = (*key, part)
            if key in counts:
                key = (*key, counts[key])
        return key

    def _pair(self, table: Key) -> None:
        place = self._place()
        key = table
        for part in self._key():
            key = (*key, part)
            self._places.setdefault(key, place)
        self._skip(_BLANK)
        self._at += 1  # the equals sign
        self._skip(_BLANK)
        self._value(key)

    def _key(self) -> list[str]:
        parts = []
        while True:
            self._skip(_BLANK)
            parts.append(self._part())
            self._skip(_BLANK)
            if not self._text.startswith(".", self._at):
                return parts
            self._at += 1

    def _part(self) -> str:
        start = self._at
        if self._text[start] in "\"'":
            self._string()
            part: str = next(iter(tomllib.loads(f"{self._text[start : self._at]} = 0")))
            return part
        match = _BARE.match(self._text, start)
        assert match is not None
        self._at = match.end()
        return match[0]

    def _value(self, key: Key) -> None:
        first = self._text[self._at]
        if first in "\"'":
            self._string()
        elif first == "[":
            self._at += 1
            for number in self._elements("]"):
                self._places[*key, number] = self._place()
                self._value((*key, number))
        elif first == "{":
            self._at += 1
            for _ in self._elements("}"):
                self._pair(key)
        else:
            self._skip(_SCALAR)

    def _elements(self, end: str) -> Iterator[int]:
        number = 0
        while True:
            self._skip(_SPACE)
            if self._text[self._at] == ",":
                self._at += 1
            elif self._text[self._at] == end:
                self._at += 1
                return
            else:
                yield number
                number += 1

    def _string(self) -> None:
        for pattern in _STRINGS:
            match = pattern.match(self._text, self._at)
            if match is not None:
                self._at = match.end()
                return
        raise AssertionError("tomllib took a string that does not end")

    def _skip(self, pattern: re.Pattern[str]) -> int:
        match = pattern.match(self._text, self._at)
        assert match is not None
        self._at = match.end()
        return self._at

    def _place(self) -> Place:
        self._line += self._text.count("\n", self._counted, self._at)
        self._begins = max(self._begins, self._text.rfind("\n", self._counted, self._at) + 1)
        self._counted = self._at
        return Place(self._line, self._at - self._begins + 1)
