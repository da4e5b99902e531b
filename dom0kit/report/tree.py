# SPDX-License-Identifier: MIT
"""PCI as a tree: every function below the bridge it is behind, with its slot, link, group, driver and resources."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from dom0kit.address import Sbdf
from dom0kit.check.rules import View
from dom0kit.partition.check import Given
from dom0kit.pci.function import BarKind, Function
from dom0kit.pci.names import PciIds
from dom0kit.pci.topology import Bus, Slot
from dom0kit.report.markup import Html, Piece, el, section

SPEEDS = {1: "2.5", 2: "5", 3: "8", 4: "16", 5: "32", 6: "64", 7: "128"}
"""Link speeds in GT/s."""
_MEASURED = {0: "", 10: "K", 20: "M", 30: "G", 40: "T", 50: "P", 60: "E"}


_FEW = 500
"""Functions of a machine whose tree is open at first."""


def size(count: int) -> str:
    """``4K``, ``16M``; a number that is no whole power stays one."""
    power = 0
    while count and count % 1024 == 0 and power < 60:
        count, power = count // 1024, power + 10
    return f"{count}{_MEASURED[power]}"


def hue(number: int) -> int:
    """A colour for a group: neighbours differ."""
    return number * 137 % 360


class Tree:
    """The tree of one machine."""

    def __init__(self, view: View, names: PciIds, domains: Mapping[Sbdf, Given]) -> None:
        """`domains`: who gets a function, by a partition."""
        self._view = view
        self._domains = domains
        self._names = names
        topology = view.platform.topology
        self._slots: Mapping[Sbdf, Slot] = {of.bridge: of for of in topology.slots} if topology is not None else {}
        self._groups = {sbdf: of.number for of in view.platform.groups for sbdf in of.functions}
        self._resets = {of.function: of for of in view.platform.resets}
        self._shown: set[tuple[int, int]] = set()
        self._open = len(view.functions) <= _FEW

    def section(self) -> Html | str:
        """The part of the page; nothing without functions."""
        topology = self._view.platform.topology
        if topology is None or not self._view.functions:
            return ""
        buses = [
            el(
                "li",
                el("details", el("summary", f"bus {bus.segment:04x}:{bus.number:02x}"), self._list(bus), open=True),
                class_="bus",
            )
            for bus in topology.roots
        ]
        search = el(
            "label",
            "find ",
            el("input", type="search", id="tree-search", placeholder="address, name, driver", autocomplete="off"),
        )
        buttons = el("button", "open all", type="button", id="tree-open") + el(
            "button", "close all", type="button", id="tree-close"
        )
        bar = el(
            "form",
            search,
            Html(buttons),
            el("output", f"{len(self._view.functions)} functions", id="tree-count", aria_live="polite"),
            id="tree-filter",
            role="search",
        )
        return section("pci", "PCI", bar, el("ul", *buses, class_="tree", id="tree"))

    def _list(self, bus: Bus) -> Html:
        return el("ul", *self._of_bus(bus))

    def _of_bus(self, bus: Bus) -> Iterator[Html]:
        topology = self._view.platform.topology
        if topology is None or (bus.segment, bus.number) in self._shown:
            return
        self._shown.add((bus.segment, bus.number))
        for sbdf in bus.functions:
            if sbdf in self._view.functions:
                yield self._function(self._view.functions[sbdf])
        for number in bus.children:  # those of virtual functions have no bridge of their own
            below = topology.bus(bus.segment, number)
            if below is not None and below.bridge is None:
                yield from self._of_bus(below)

    def _function(self, function: Function) -> Html:
        topology = self._view.platform.topology
        behind = topology.secondary(function.sbdf) if topology is not None else None
        inside: list[Piece] = [el("dl", *self._facts(function), class_="facts")]
        if behind is not None:
            inside.append(self._list(behind))
        heading = el(
            "summary",
            el("code", str(function.sbdf)),
            " ",
            self._names.describe(function),
            " ",
            *self._marks(function),
            id=f"f-{function.sbdf}",
        )
        body = el("details", heading, *inside, open=behind is not None and self._open)
        return el("li", body, class_="function")

    def _marks(self, function: Function) -> Iterator[Piece]:
        group = self._groups.get(function.sbdf)
        if group is not None:
            yield el("span", f"group {group}", class_="group", style=f"--hue:{hue(group)}")
        given = self._domains.get(function.sbdf)
        if given is not None:
            yield el("span", f"domain {given.name}", class_="group domain", style=f"--hue:{hue(given.number)}")
        slot = self._slots.get(function.sbdf)
        if slot is not None:
            state = "occupied" if slot.present else "empty" if slot.present is False else ""
            number = f"slot {slot.number}" if slot.number is not None else "slot"
            yield el(
                "span", " ".join(filter(None, (number, state, "hot-plug" if slot.hot_plug else ""))), class_="mark"
            )
        express = self._view.express.get(function.sbdf)
        if express is not None and express.link is not None and express.link.width:
            speed = SPEEDS.get(express.link.speed, "?")
            yield el("span", f"{speed} GT/s x{express.link.width}", class_="mark")
        for text in (
            function.driver or "",
            f"INT{function.interrupt_pin.value}" if function.interrupt_pin is not None else "",
            f"VF of {function.physical_function}" if function.physical_function is not None else "",
            "asleep" if function.asleep else "",
        ):
            if text:
                yield el("span", text, class_="mark")

    def _facts(self, function: Function) -> Iterator[Html]:
        def fact(name: str, value: str) -> Html:
            return el("div", el("dt", name), el("dd", value))

        yield fact("id", f"{function.vendor:04x}:{function.device:04x} rev {function.revision:02x}")
        yield fact("class", f"{function.class_code:06x}")
        if function.bridge is not None:
            yield fact("buses", f"{function.bridge.secondary:02x} to {function.bridge.subordinate:02x}")
            windows = (
                ("I/O", function.bridge.io),
                ("memory", function.bridge.memory),
                ("prefetchable", function.bridge.prefetchable),
            )
            for name, window in windows:
                if window is not None:
                    yield fact(f"{name} window", f"{window.base:#x} to {window.limit:#x}")
        for bar in function.bars:
            kind = "I/O" if bar.kind is BarKind.IO else "memory"
            where = f"{bar.address:#x}" if bar.address else "unassigned"
            yield fact(f"BAR {bar.index}", f"{kind} {where}{f', {size(bar.size)}' if bar.size else ''}")
        if function.numa_node is not None:
            yield fact("node", str(function.numa_node))
        resets = self._resets.get(function.sbdf)
        if resets is not None:
            yield fact("resets", " ".join(of.value for of in resets.available) or "none")
