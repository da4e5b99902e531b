# SPDX-License-Identifier: MIT
"""Text for people: lines with children, aligned columns, numbers in the field's notation; plain, or in colour.

A pipe gets plain text that depends on the facts alone; a terminal gets the same lines as a tree in colour (rich).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

import msgspec

from dom0kit.cli import emit

Cell = str | tuple[str, str]
"""A text, or a text with its style on a terminal (``bold``, ``dim``, ``red`` …)."""


class Line(msgspec.Struct):
    """One line of a report, made of cells set side by side, and the lines under it."""

    cells: Sequence[Cell]
    children: Sequence[Line] = ()


def line(*cells: Cell, children: Iterable[Line] = ()) -> Line:
    """A line of `cells`, with what belongs under it."""
    return Line(cells, tuple(children))


class Section(msgspec.Struct):
    """A titled part of a report."""

    title: str
    lines: Sequence[Line]


def columns(rows: Sequence[Sequence[Cell]], *, right: Iterable[int] = (), gap: str = "  ") -> list[Line]:
    """Lines whose cells are padded so that columns align; those numbered in `right` to the right.

    What is last in its line may be longer than its column: it pushes nothing aside.
    """
    to_right = frozenset(right)
    measured = []
    widths: dict[int, int] = {}
    for row in rows:
        lengths = [len(cell) if type(cell) is str and cell.isprintable() else len(_text(cell)) for cell in row]
        while lengths and not lengths[-1]:
            lengths.pop()
        measured.append((row, lengths))
        for index, length in enumerate(lengths):
            if (index < len(lengths) - 1 or index in to_right) and length > widths.get(index, 0):
                widths[index] = length
    result = []
    for row, lengths in measured:
        cells: list[Cell] = []
        space = ""
        for index, length in enumerate(lengths):
            padding = " " * (widths.get(index, 0) - length)
            if index in to_right:
                space, padding = space + padding, ""
            if space:
                cells.append(space)
            cells.append(row[index])
            space = padding + gap
        result.append(Line(cells))
    return result


def size(count: int) -> str:
    """Bytes as people write them: ``64``, ``4K``, ``16M``, ``2G``; exact, so an odd number stays whole."""
    for unit in ("", "K", "M", "G", "T", "P", "E"):
        if count < 1024 or count % 1024 or unit == "E":
            return f"{count}{unit}"
        count //= 1024
    return str(count)


def about(count: int) -> str:
    """Bytes with one decimal place at most: ``15.9G``."""
    value = float(count)
    for unit in ("", "K", "M", "G", "T", "P"):
        if value < 1024:
            return f"{value:.1f}".removesuffix(".0") + unit
        value /= 1024
    return f"{value:.1f}".removesuffix(".0") + "E"


def ranges(numbers: Iterable[int]) -> str:
    """Numbers with runs joined: ``0-3,8,10-11``."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def count(number: int, noun: str, plural: str = "") -> str:
    """``1 bridge``, ``2 bridges``."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def show(title: Sequence[Line], sections: Sequence[Section]) -> None:
    """Print a report: a tree in colour on a terminal, else plain text."""
    if sys.stdout.isatty():
        _show_on_terminal(title, sections)
    else:
        emit(plain(title, sections))


def plain(title: Sequence[Line], sections: Sequence[Section]) -> str:
    """The report as plain text: two blanks deeper for each level."""
    parts: list[str] = []
    _add_plain(parts, title, "")
    for section in sections:
        parts.append(f"\n{section.title}\n")
        _add_plain(parts, section.lines, "  ")
    return "".join(parts)


def _add_plain(parts: list[str], lines: Sequence[Line], indent: str) -> None:
    for each in lines:
        text = _text("".join([cell if type(cell) is str else cell[0] for cell in each.cells])).rstrip()
        parts.append(f"{indent}{text}\n" if text else "\n")
        if each.children:
            _add_plain(parts, each.children, indent + "  ")


def _show_on_terminal(title: Sequence[Line], sections: Sequence[Section]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, emoji=False, markup=False)

    def write(cells: Iterable[Cell], guides: str = "") -> None:
        text = Text(guides, style="dim", end="")
        for cell in cells:
            text.append(_text(cell), style="not dim" if isinstance(cell, str) else f"not dim {cell[1]}")
        console.print(text, soft_wrap=True)

    def write_all(lines: Sequence[Line], guides: str, *, top: bool) -> None:
        for position, each in enumerate(lines):
            last = position == len(lines) - 1
            own, below = ("  ", "  ") if top else ("└─ ", "   ") if last else ("├─ ", "│  ")
            write(each.cells, guides + own)
            write_all(each.children, guides + below, top=False)

    for each in title:
        write(each.cells)
    for section in sections:
        write([""])
        write([(section.title, "bold cyan")])
        write_all(section.lines, "", top=True)


def _text(cell: Cell) -> str:
    """The cell's text; what would steer a terminal (from firmware, or a recording) is shown as an escape."""
    text = cell if isinstance(cell, str) else cell[0]
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
