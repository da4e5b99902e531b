# SPDX-License-Identifier: MIT
"""HTML that is put together from elements: whatever is no `Html` is text, and is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


class Html(str):
    """Markup that is safe to write as it is."""

    __slots__ = ()


Piece = str | Html
Attribute = str | int | bool | None
_VOID = frozenset(("br", "input", "meta"))


def el(name: str, /, *children: Piece, **attributes: Attribute) -> Html:
    """An element; ``class_`` and ``aria_label`` are `class` and `aria-label`, False and None leave an attribute out."""
    parts = [f"<{name}"]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        parts.append(f" {key}" if value is True else f' {key}="{_clean(str(value))}"')
    inside = "".join(child if isinstance(child, Html) else _clean(child) for child in children)
    return Html("".join(parts) + ">" + ("" if name in _VOID else f"{inside}</{name}>"))


def _clean(text: str) -> str:
    """Escaped; control characters, which HTML does not have, are shown as their escapes."""
    if not text.isprintable():
        text = "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
    return escape(text)


def join(pieces: Iterable[Piece]) -> Html:
    """Pieces one behind the other."""
    return Html("".join(piece if isinstance(piece, Html) else _clean(piece) for piece in pieces))


def table(head: Sequence[str], rows: Iterable[Sequence[Piece]], *, caption: str, class_: str = "") -> Html:
    """A table with a heading for each column, and a caption that a screen reader says first."""
    return el(
        "table",
        el("caption", caption),
        el("thead", el("tr", *(el("th", text, scope="col") for text in head))),
        el("tbody", *(el("tr", *(el("td", cell) for cell in row)) for row in rows)),
        class_=class_ or None,
    )


def section(id: str, title: str, *children: Piece) -> Html:
    """A part of the page; its heading is where the list of contents leads."""
    return el("section", el("h2", title, id=f"{id}-title"), *children, id=id, aria_labelledby=f"{id}-title")
