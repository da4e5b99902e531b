# SPDX-License-Identifier: MIT
"""What differs between two values: laws, on structures of a Platform's shape."""

from __future__ import annotations

from typing import Any, cast

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from dom0kit.difference import Change, ChangeKind, compare
from dom0kit.platform import Platform


class Part(msgspec.Struct, frozen=True):
    """A BAR, say."""

    index: int
    address: int


class Item(msgspec.Struct, frozen=True):
    """A function, say."""

    sbdf: str
    command: int = 0
    bars: tuple[Part, ...] = ()
    tags: tuple[str, ...] = ()


class Origin(msgspec.Struct, frozen=True):
    """Where a platform is from."""

    name: str


class Whole(msgspec.Struct, frozen=True):
    """A platform, say."""

    origin: Origin
    functions: tuple[Item, ...]
    machine: dict[str, int | None]


def changes(before: Whole, after: Whole) -> tuple[Change, ...]:
    return compare(cast(Platform, before), cast(Platform, after)).changes


PARTS = st.dictionaries(st.integers(0, 5), st.integers(0, 9), max_size=3).map(
    lambda bars: tuple(Part(index, address) for index, address in bars.items())
)
ITEMS = st.dictionaries(st.sampled_from("abcd"), st.tuples(st.integers(0, 3), PARTS), max_size=4).map(
    lambda items: tuple(Item(name, command, bars) for name, (command, bars) in items.items())
)
WHOLES = st.builds(
    Whole,
    origin=st.builds(Origin, st.sampled_from(["one", "two"])),
    functions=ITEMS,
    machine=st.dictionaries(st.sampled_from("xy"), st.none() | st.integers(0, 2)),
)


def normal(whole: Whole) -> Any:
    """What is compared: entries by identity, in no order, without the origin."""
    return (
        {item.sbdf: (item.command, {part.index: part.address for part in item.bars}) for item in whole.functions},
        whole.machine,
    )


@given(WHOLES, WHOLES)
def test_there_is_a_change_exactly_where_something_differs(one: Whole, other: Whole) -> None:
    assert bool(changes(one, other)) == (normal(one) != normal(other))


@given(WHOLES, WHOLES)
def test_the_way_back_has_the_same_changes_turned_round(one: Whole, other: Whole) -> None:
    def turned(change: Change) -> Change:
        kinds = {ChangeKind.ADDED: ChangeKind.REMOVED, ChangeKind.REMOVED: ChangeKind.ADDED}
        kind = kinds.get(change.kind, change.kind)
        return Change(kind, change.section, change.item, change.field, change.after, change.before)

    def key(change: Change) -> str:
        return repr(change)

    assert sorted(changes(one, other), key=key) == sorted(map(turned, changes(other, one)), key=key)


def test_the_smallest_part_is_named() -> None:
    before = Whole(
        Origin("a"), (Item("x", 1, (Part(0, 16), Part(2, 32))), Item("y"), Item("z", tags=("p",))), {"n": None}
    )
    after = Whole(
        Origin("b"), (Item("w"), Item("x", 1, (Part(2, 33),)), Item("z", tags=("q", "r"))), {"n": 1, "m": None}
    )
    assert changes(before, after) == (
        Change(ChangeKind.REMOVED, "functions", "x", "bars[0]", {"index": 0, "address": 16}, None),
        Change(ChangeKind.CHANGED, "functions", "x", "bars[2].address", 32, 33),
        Change(ChangeKind.REMOVED, "functions", "y", "", {"sbdf": "y", "command": 0, "bars": [], "tags": []}, None),
        Change(ChangeKind.CHANGED, "functions", "z", "tags", ["p"], ["q", "r"]),
        Change(ChangeKind.ADDED, "functions", "w", "", None, {"sbdf": "w", "command": 0, "bars": [], "tags": []}),
        Change(ChangeKind.CHANGED, "machine", "", "n", None, 1),
        Change(ChangeKind.ADDED, "machine", "", "m", None, None),
    )
