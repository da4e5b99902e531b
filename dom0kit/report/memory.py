# SPDX-License-Identifier: MIT
"""IOMMUs with what they serve, groups in colour, and the address map."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from dom0kit.acpi.tables.mcfg import Mcfg
from dom0kit.address import Sbdf
from dom0kit.check.rules import View
from dom0kit.partition.check import Given
from dom0kit.pci.function import BarKind
from dom0kit.pci.names import PciIds
from dom0kit.report.markup import Html, Piece, el, section, table
from dom0kit.report.tree import hue


def isolation(view: View, names: PciIds, domains: Sequence[Given]) -> Html | str:
    """Units, reserved memory, the domains of a partition and groups; nothing without functions."""
    platform = view.platform
    parts: list[Piece] = []
    if platform.iommu is not None and platform.iommu.units:
        rows = [
            (
                str(unit.index),
                unit.kind.value,
                f"{unit.register_base:#x}",
                "all others" if unit.include_all else "",
                str(len(unit.functions)),
            )
            for unit in platform.iommu.units
        ]
        parts.append(table(("unit", "kind", "registers", "serves", "functions"), rows, caption="IOMMUs"))
        reserved = [
            (of.source.value, f"{of.base:#x} to {of.limit:#x}", " ".join(map(str, of.functions)) or "none present")
            for of in platform.iommu.reserved
        ]
        if reserved:
            parts.append(table(("by", "addresses", "for"), reserved, caption="Memory reserved for DMA"))
    if domains:
        parts.append(el("h3", "Domains: who gets what"))
        parts.append(_cards(view, names, ((f"domain {of.name}", of.number, of.functions) for of in domains)))
    if platform.groups:
        parts.append(el("h3", "Groups: what can only be assigned together"))
        parts.append(_cards(view, names, ((f"group {of.number}", of.number, of.functions) for of in platform.groups)))
    return section("isolation", "Isolation", *parts) if parts else ""


def _cards(view: View, names: PciIds, of: Iterable[tuple[str, int, Sequence[Sbdf]]]) -> Html:
    """A card for each title, number and functions; the number is its colour."""
    cards = []
    for title, number, functions in of:
        members = [
            el(
                "li",
                el("a", el("code", str(sbdf)), href=f"#f-{sbdf}") if sbdf in view.functions else str(sbdf),
                f" {names.describe(view.functions[sbdf])}" if sbdf in view.functions else "",
            )
            for sbdf in functions
        ]
        cards.append(el("div", el("h4", title), el("ul", *members), class_="card", style=f"--hue:{hue(number)}"))
    return el("div", *cards, class_="cards")


class Span(NamedTuple):
    """One range of addresses."""

    first: int
    last: int
    """Inclusive."""
    what: str
    kind: str
    """Which colour it has: ram, reserved, registers, window, bar."""


def spans(view: View) -> list[Span]:
    """Every range of memory addresses that anybody tells of; what holds others comes before them."""
    found = list(_spans(view))
    return sorted(found, key=lambda of: (of.first, -of.last, of.what))


def _spans(view: View) -> Iterator[Span]:
    platform = view.platform
    if platform.memory is not None:
        for range in platform.memory.map:
            yield Span(range.start, range.end, range.type, "ram" if range.type == "System RAM" else "reserved")
    for _, mcfg in view.tables(Mcfg):
        for of in mcfg.allocations:
            if of.base_address and of.end_bus >= of.start_bus:
                first, last = of.base_address + (of.start_bus << 20), of.base_address + (of.end_bus + 1 << 20) - 1
                yield Span(first, last, f"ECAM of segment {of.segment:04x}", "registers")
    for ioapic in platform.ioapics:
        yield Span(ioapic.address, ioapic.address + 0xFF, f"IOAPIC {ioapic.id}", "registers")
    if platform.processors is not None and platform.processors.local_apic_address:
        base = platform.processors.local_apic_address
        yield Span(base, base + 0xFFF, "local APICs", "registers")
    if platform.iommu is not None:
        for unit in platform.iommu.units:
            yield Span(unit.register_base, unit.register_base + 0xFFF, f"IOMMU {unit.index}", "registers")
        for region in platform.iommu.reserved:
            if region.limit >= region.base:
                yield Span(region.base, region.limit, region.source.value, "reserved")
    for sbdf, function in sorted(view.functions.items()):
        if function.bridge is not None:
            for name, window in (("window", function.bridge.memory), ("prefetchable", function.bridge.prefetchable)):
                if window is not None and window.base:
                    yield Span(window.base, window.limit, f"{sbdf} {name}", "window")
        for bar in function.bars:
            if bar.kind is not BarKind.IO and bar.address and bar.size:
                yield Span(bar.address, bar.address + bar.size - 1, f"{sbdf} BAR {bar.index}", "bar")


def address_map(view: View) -> Html | str:
    """Ranges in order, each below what holds it; the bar's length grows with the logarithm of the size."""
    rows = []
    open_: list[int] = []
    for span in spans(view):
        while open_ and open_[-1] < span.last:
            open_.pop()
        length = (span.last - span.first + 1).bit_length()
        bar = el("span", class_=f"length {span.kind}", style=f"--length:{length}", aria_hidden="true")
        address = el("span", el("code", f"{span.first:#014x} to {span.last:#014x}"), style=f"--deep:{len(open_)}")
        rows.append((address, f"{_about(span.last - span.first + 1)}", bar, span.what, span.kind))
        open_.append(span.last)
    if not rows:
        return ""
    head = ("addresses", "size", "", "what", "kind")
    caption = "Memory addresses; one that lies in another is indented"
    return section("addresses", "Address map", table(head, rows, caption=caption, class_="map"))


def _about(count: int) -> str:
    value = float(count)
    for unit in ("", "K", "M", "G", "T", "P"):
        if value < 1024:
            return f"{value:.1f}".removesuffix(".0") + unit
        value /= 1024
    return f"{value:.1f}".removesuffix(".0") + "E"
