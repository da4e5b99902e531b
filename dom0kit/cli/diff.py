# SPDX-License-Identifier: MIT
"""``dom0kit diff``: what differs between two recordings, or two plans."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from dom0kit.cli import FINE, FOUND, UsageError, emit
from dom0kit.cli.arguments import Parser, observed
from dom0kit.cli.plans import read_plan
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
        "diff",
        "What differs between two recordings, dumps or folders, or two plans; exit status 1 where something does.",
    )
    parser.add_argument("before", metavar="A", help="anything that enumerate --from takes, or a plan")
    parser.add_argument("after", metavar="B", help="the same")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="default: text")
    parser.add_argument("--no-aml", action="store_true", help="compare without interpreting AML: quick, but no routes")
    options = parser.parse_args(arguments)
    difference = _difference(options.before, options.after, aml=not options.no_aml)
    if options.format == "json":
        from dom0kit.serial import encode

        emit(encode(difference, indent=2) + b"\n")
    else:
        _print(difference)
    return FOUND if difference.changes else FINE


def _difference(before: str, after: str, *, aml: bool) -> Difference:
    from dom0kit.difference import compare, compare_plans

    old, new = (read_plan(path) if _is_json(path) else None for path in (before, after))
    if old is not None and new is not None:
        return compare_plans(old, new, (before, after))
    if old is not None or new is not None:
        plan, other = (before, after) if old is not None else (after, before)
        raise UsageError(f"diff: {plan} is a plan, and {other} is none: give two plans, or two machines")
    return compare(*(observed(path, aml=aml) for path in (before, after)))


def _is_json(path: str) -> bool:
    """A plan is JSON, and no form of a recorded machine is."""
    try:
        with open(path, "rb") as file:
            return file.read(1) == b"{"
    except OSError:
        return False


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
