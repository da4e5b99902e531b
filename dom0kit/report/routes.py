# SPDX-License-Identifier: MIT
"""Interrupt routing as a picture: functions, the bridges on the way, the IOAPIC's pin, the CPU; then messages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from dom0kit.address import Sbdf
from dom0kit.interrupts import Line, RoutingTable, User, routing_table
from dom0kit.platform import Platform
from dom0kit.report.markup import Html, Piece, el, section, table

Ways = Mapping[tuple[Sbdf, int | None], tuple[str, ...]]
"""The steps of a route, by function and GSI."""

_ROW: Final = 24
_BOX: Final = 20
_USER, _WAY, _PIN, _CPU = (0, 230), (260, 330), (640, 140), (810, 150)
"""Left edge and width of each column of boxes."""
_WIDTH: Final = 960
_CHARACTER: Final = 7.3
"""How wide one is, about."""


def routing(platform: Platform) -> Html | str:
    """The part of the page; nothing without interrupts."""
    lines, _ = routing_table(platform)
    if not lines.lines and not lines.messages:
        return ""
    ways = {(route.sbdf, route.gsi): route.steps for route in platform.routes}
    figures = [_figure(line, [_way(user, line, ways) for user in line.users]) for line in lines.lines]
    legend = el(
        "p",
        "Each picture is one GSI: who uses it, the way through bridges and link devices, the IOAPIC's pin, and where "
        "Linux sends it. A dashed line: the function uses messages, and its pin is quiet.",
    )
    return section("interrupts", "Interrupts", legend, el("div", *figures, class_="lanes"), _messages(lines))


def _way(user: User, line: Line, ways: Ways) -> Sequence[str]:
    """What is between the pin of the function and that of the IOAPIC."""
    return ways.get((user.function, int(line.gsi)), ())[1:-1] if user.function is not None else ()


def _figure(line: Line, ways: Sequence[Sequence[str]]) -> Html:
    """One GSI."""
    height = max(_ROW * len(line.users), _ROW) + 4
    middle = height // 2
    parts: list[Piece] = []
    for number, (user, way) in enumerate(zip(line.users, ways, strict=True)):
        y = number * _ROW + 2
        centre = y + _BOX // 2
        kind = "quiet" if user.by_message else "wire"
        parts += _box(_USER, y, _name(user), "user")
        start, end = _USER[0] + _USER[1], _PIN[0]
        if way:
            parts.append(el("path", d=f"M{start} {centre} H{_WAY[0]}", class_=kind))
            parts += _box(_WAY, y, ", ".join(way), "way")
            start = _WAY[0] + _WAY[1]
        bend = max(start, end - 60)
        curve = f"M{start} {centre} H{bend} C{end - 30} {centre} {end - 30} {middle} {end} {middle}"
        parts.append(el("path", d=curve, class_=kind))
    pin = f"IOAPIC {line.ioapic_pin.ioapic} pin {line.ioapic_pin.pin}" if line.ioapic_pin is not None else "no pin"
    parts.append(el("path", d=f"M{_PIN[0] + _PIN[1]} {middle} H{_CPU[0]}", class_="wire"))
    parts += _box(_PIN, middle - _BOX // 2, pin, "pin")
    parts += _box(_CPU, middle - _BOX // 2, _end(line), "cpu")
    picture = el(
        "svg",
        *parts,
        viewBox=f"0 0 {_WIDTH} {height}",
        width=_WIDTH,
        height=f"{height}",
        role="img",
        aria_label=_spoken(line, pin),
    )
    signal = " ".join(of.value for of in (line.trigger, line.polarity) if of is not None)
    return el("figure", el("figcaption", el("strong", f"GSI {line.gsi}"), f" {signal}"), picture)


def _box(column: tuple[int, int], y: int, text: str, class_: str) -> Iterator[Html]:
    left, width = column
    most = int((width - 14) / _CHARACTER)
    shown = text if len(text) <= most else f"{text[: most - 1]}…"
    yield el("rect", x=left + 1, y=y, width=width - 2, height=_BOX, rx=4, class_=class_)
    yield el("text", el("title", text), shown, x=left + 8, y=y + 14)


def _name(user: User) -> str:
    if user.function is not None:
        return f"{user.name} {user.driver or ''}".strip()
    return user.name if user.name.startswith(user.kind.value) else f"{user.kind.value} {user.name}"


def _end(line: Line) -> str:
    target = line.target
    parts = [
        f"irq {line.irq}" if line.irq is not None else "",
        f"vector {target.vector:#x}" if target is not None and target.vector is not None else "",
        f"CPU {line.cpu}" if line.cpu is not None else "",
    ]
    return ", ".join(filter(None, parts)) or "CPU not recorded"


def _spoken(line: Line, pin: str) -> str:
    return f"GSI {line.gsi}: {', '.join(map(_name, line.users))}; {pin}; {_end(line)}"


def _messages(lines: RoutingTable) -> Html | str:
    rows = []
    for of in lines.messages:
        vectors = " ".join(f"{target.vector:#x}" for target in of.targets if target.vector is not None)
        cpus = " ".join(map(str, sorted(set(of.cpus) | {cpu for target in of.targets for cpu in target.cpus})))
        able = ", ".join(filter(None, (f"{of.msi} MSI" if of.msi else "", f"{of.msix} MSI-X" if of.msix else "")))
        address = el("a", el("code", str(of.function)), href=f"#f-{of.function}")
        rows.append((address, of.mode.value, str(of.used), able, of.driver or "", vectors, cpus))
    head = ("function", "uses", "messages", "can have", "driver", "vectors", "CPUs")
    return table(head, rows, caption="MSI and MSI-X of each function", class_="wide") if rows else ""
