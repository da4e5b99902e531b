# SPDX-License-Identifier: MIT
"""What differs between two machines, or one machine at two times: every fact of one Platform that the other lacks.

And between two plans: what each has that the other has not, operations in the order in which they are done.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any, Final

import msgspec

from dom0kit import serial

if TYPE_CHECKING:
    from dom0kit.plan import Fact, Operation, Plan
    from dom0kit.platform import Platform


class ChangeKind(enum.Enum):
    """What happened to a fact."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


class Change(msgspec.Struct, frozen=True):
    """One difference."""

    kind: ChangeKind
    section: str
    """Field of the Platform (``tables``, ``functions``, ``ioapics``, ``routes`` …), or of the Plan."""
    item: str
    """Which of the section: a table's name, a function's address …; empty for a section of one thing."""
    field: str
    """Which part of it, ``bars[0].address``; empty for the item as a whole."""
    before: Any
    """In the form of the JSON output; None where there was nothing."""
    after: Any


class Difference(msgspec.Struct, frozen=True):
    """Every difference between two platforms, in the order of the Platform's fields."""

    version: int
    """Of the format: 1."""
    before: str
    """Name of the source that was compared."""
    after: str
    changes: tuple[Change, ...]


_NOT_COMPARED: Final = frozenset(("version", "origin", "parts"))

_IDENTITIES: Final = (
    ("sbdf",),
    ("path",),
    ("function", "pin"),
    ("name",),
    ("rule", "where"),
    ("rule", "where", "message"),
    ("id",),
    ("index",),
    ("offset",),
    ("apic_id",),
    ("base",),
    ("start",),
)
"""Fields that tell the entries of one list apart; the first that does so in both lists is taken."""


def compare(before: Platform, after: Platform) -> Difference:
    """The differences; none when both describe the same machine in the same state."""
    old: dict[str, Any] = msgspec.json.decode(serial.encode(before))
    new: dict[str, Any] = msgspec.json.decode(serial.encode(after))
    changes = [
        change
        for section in (*old, *(name for name in new if name not in old))
        if section not in _NOT_COMPARED
        for change in _sections(section, old.get(section), new.get(section))
    ]
    return Difference(1, before.origin.name, after.origin.name, tuple(changes))


def compare_plans(before: Plan, after: Plan, names: tuple[str, str]) -> Difference:
    """The differences between two plans; `names` are what the plans are called, their files say.

    An operation in another place is one removed and one added: the order is part of a plan.
    """
    changes = [
        Change(ChangeKind.CHANGED, "plan", "", name, old, new)
        for name in ("title", "machine", "fingerprint", "dialect", "backend")
        if (old := msgspec.to_builtins(getattr(before, name))) != (new := msgspec.to_builtins(getattr(after, name)))
    ]
    changes += _parts("facts", before.facts, after.facts)
    changes += _parts("operations", before.operations, after.operations)
    return Difference(1, *names, tuple(changes))


def _parts(section: str, before: Sequence[Fact | Operation], after: Sequence[Fact | Operation]) -> Iterator[Change]:
    for tag, low, high, first, last in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if tag != "equal":
            for part in before[low:high]:
                yield Change(ChangeKind.REMOVED, section, str(part), "", _value(part), None)
            for part in after[first:last]:
                yield Change(ChangeKind.ADDED, section, str(part), "", None, _value(part))


def _value(part: Fact | Operation) -> Any:
    return msgspec.json.decode(serial.encode(part))


def _sections(section: str, old: Any, new: Any) -> Iterator[Change]:
    if isinstance(old, list) and isinstance(new, list):
        for name, left, right in _paired(old, new):
            yield from _items(section, name, left, right)
    else:
        yield from _items(section, "", _Present(old), _Present(new))


class _Present:
    """A value that is there, be it null."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _items(section: str, item: str, old: _Present | None, new: _Present | None) -> Iterator[Change]:
    for field, left, right in _fields("", old, new):
        kind = ChangeKind.ADDED if left is None else ChangeKind.REMOVED if right is None else ChangeKind.CHANGED
        yield Change(kind, section, item, field, left and left.value, right and right.value)


def _fields(
    prefix: str, old: _Present | None, new: _Present | None
) -> Iterator[tuple[str, _Present | None, _Present | None]]:
    """The smallest parts that differ. Values come from JSON and are no deeper than the types allow."""
    if old is None or new is None:
        if old is not new:
            yield prefix, old, new
        return
    left, right = old.value, new.value
    if left == right:
        return
    if isinstance(left, dict) and isinstance(right, dict):
        dot = prefix and prefix + "."
        for name in (*left, *(name for name in right if name not in left)):
            yield from _fields(f"{dot}{name}", _get(left, name), _get(right, name))
    elif _of_objects(left) and _of_objects(right):
        for name, one, other in _paired(left, right):
            yield from _fields(f"{prefix}[{name}]", one, other)
    else:
        yield prefix, old, new


def _get(of: dict[str, Any], name: str) -> _Present | None:
    return _Present(of[name]) if name in of else None


def _of_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, dict) for entry in value)


def _paired(old: list[Any], new: list[Any]) -> Iterator[tuple[str, _Present | None, _Present | None]]:
    """Entries of two lists that are of the same thing, in the order of the first; what only the second has follows."""
    keys = _identity(old, new)
    left, right = _by_identity(old, keys), _by_identity(new, keys)
    for name in (*left, *(name for name in right if name not in left)):
        yield name, _get(left, name), _get(right, name)


def _identity(old: list[Any], new: list[Any]) -> tuple[str, ...]:
    for keys in _IDENTITIES:
        if all(
            all(isinstance(entry, dict) and all(key in entry for key in keys) for entry in entries)
            and len(_by_identity(entries, keys)) == len(entries)
            for entries in (old, new)
        ):
            return keys
    return ()


def _by_identity(entries: list[Any], keys: tuple[str, ...]) -> dict[str, Any]:
    if not keys:
        return {str(position): entry for position, entry in enumerate(entries)}
    return {" ".join(str(entry[key]) for key in keys): entry for entry in entries}
