# SPDX-License-Identifier: MIT
"""Text for people: columns, numbers, and nothing that steers a terminal."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0kit.cli.text.layout import Section, about, columns, count, line, plain, ranges, show, size

CELLS = st.lists(st.lists(st.text(st.characters(codec="utf-8"), max_size=6), min_size=3, max_size=3), max_size=5)


def test_columns_align() -> None:
    rows = columns([["a", "1", "x"], ["long", ("22", "bold"), ""], ["b", "333", "y"]], right=[1])
    assert plain(rows, []) == "a       1  x\nlong   22\nb     333  y\n"


@given(CELLS)
def test_plain_text_never_steers_a_terminal(rows: list[list[str]]) -> None:
    text = plain([], [Section("t", columns(rows))])
    assert all(char.isprintable() or char == "\n" for char in text)


def test_children_are_indented() -> None:
    tree = [line("a", children=[line("b", children=[line("c")])]), line("d")]
    assert plain([line("title")], [Section("part", tree)]) == "title\n\npart\n  a\n    b\n      c\n  d\n"


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (64, "64"),
        (1024, "1K"),
        (1536, "1536"),
        (4096, "4K"),
        (1 << 20, "1M"),
        (3 << 29, "1536M"),
        (1 << 40, "1T"),
    ],
)
def test_sizes_are_exact(number: int, text: str) -> None:
    assert size(number) == text


@given(st.integers(0, 2**70))
def test_a_size_can_be_read_back(number: int) -> None:
    text = size(number)
    unit = text.lstrip("0123456789")
    assert int(text.removesuffix(unit)) << 10 * ("", "K", "M", "G", "T", "P", "E").index(unit) == number


def test_about() -> None:
    assert [about(number) for number in (100, 1 << 30, 17_000_000_000)] == ["100", "1G", "15.8G"]


@given(st.sets(st.integers(0, 300)))
def test_ranges_name_each_number_once(numbers: set[int]) -> None:
    named: list[int] = []
    for part in filter(None, ranges(numbers).split(",")):
        first, _, last = part.partition("-")
        named += range(int(first), int(last or first) + 1)
    assert named == sorted(numbers)


def test_count() -> None:
    assert [count(1, "bridge"), count(2, "bridge"), count(0, "entry", "entries")] == [
        "1 bridge",
        "2 bridges",
        "0 entries",
    ]


class Terminal(io.StringIO):
    """A standard output that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def on_terminal(monkeypatch: pytest.MonkeyPatch, **environment: str) -> str:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"TERM": "xterm-256color", "COLUMNS": "40"} | environment).items():
        monkeypatch.setenv(name, value)
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    tree = [line(("root", "red"), children=[line("first", children=[line("deep")]), line("second" * 10)])]
    show([line("title")], [Section("part", tree)])
    return terminal.getvalue()


def test_a_terminal_gets_a_tree_in_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    text = on_terminal(monkeypatch)
    assert "\x1b[31mroot" in text
    for guide in ("├─ ", "│  └─ ", "└─ "):
        assert guide in text
    assert "second" * 10 in text


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    text = on_terminal(monkeypatch, NO_COLOR="1")
    assert "\x1b[31m" not in text
    assert "root" in text
