# SPDX-License-Identifier: MIT
"""``dom0kit diff``: what differs between two recordings."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from dom0kit.cli import FINE, FOUND, emit
from dom0kit.cli.arguments import Parser, observed
from dom0kit.cli.text.layout import Cell, Line, Section, columns, count, line, show
from dom0kit.difference import Change, ChangeKind, Difference

_SIGNS = {ChangeKind.ADDED: ("+", "green"), ChangeKind.REMOVED: ("-", "red"), ChangeKind.CHANGED: ("~", "yellow")}
_IN_HEX = {
    *("address", "base", "limit", "start", "end", "command", "status", "control", "data", "vendor", "device"),
    *("subsystem", "subsystem_vendor", "class_code", "revision", "checksum"),
}
"""Numbers with these names are addresses, registers or ids."""
_LONGEST = 60


def run(arguments: list[str]) -> int:
    parser = Parser(
        "diff", "What differs between two recordings, dumps or folders; exit status 1 where something does."
    )
    parser.add_argument("before", metavar="A", help="anything that enumerate --from takes")
    parser.add_argument("after", metavar="B", help="the same")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="default: text")
    parser.add_argument("--no-aml", action="store_true", help="compare without interpreting AML: quick, but no routes")
    options = parser.parse_args(arguments)
    from dom0kit.difference import compare

    before, after = (observed(path, aml=not options.no_aml) for path in (options.before, options.after))
    difference = compare(before, after)
    if options.format == "json":
        from dom0kit.serial import encode

        emit(encode(difference, indent=2) + b"\n")
    else:
        _print(difference)
    return FOUND if difference.changes else FINE


def _print(difference: Difference) -> None:
    title = columns([("before", difference.before), ("after", difference.after)])
    title.append(line(count(len(difference.changes), "difference") if difference.changes else "no difference"))
    sections = [
        Section(
            section.replace("_", " "),
            [each for item, of_item in groupby(changes, _item_of) for each in _item(item, list(of_item))],
        )
        for section, changes in groupby(difference.changes, lambda change: change.section)
    ]
    show(title, sections)


def _item_of(change: Change) -> str:
    return change.item


def _item(item: str, changes: list[Change]) -> list[Line]:
    first = changes[0]
    if not first.field:
        return [line(_SIGNS[first.kind], " ", item, *_values(first))]
    if not item:
        return _rows(changes)
    return [line(_SIGNS[ChangeKind.CHANGED], " ", item, children=_rows(changes))]


def _rows(changes: list[Change]) -> list[Line]:
    return columns([(_SIGNS[change.kind], change.field, "".join(map(str, _values(change)))) for change in changes])


def _values(change: Change) -> list[Cell]:
    name = change.field.rpartition(".")[2]
    if change.kind is ChangeKind.CHANGED:
        return [f"{_text(name, change.before)} -> {_text(name, change.after)}"]
    value = change.before if change.kind is ChangeKind.REMOVED else change.after
    return [f" {_text(name, value)}"] if not isinstance(value, dict) else []


def _text(name: str, value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, int):
        return f"{value:#x}" if name in _IN_HEX else str(value)
    if isinstance(value, list):
        value = ", ".join(_text(name, entry) for entry in value) or "none"
    elif isinstance(value, dict):
        value = " ".join(f"{key}={_text(key, entry)}" for key, entry in value.items())
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}… ({len(text)} characters)"
