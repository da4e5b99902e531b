# SPDX-License-Identifier: MIT
"""The PCI part of the text report: every function under the bridge it is behind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dom0kit.cli.text import capabilities
from dom0kit.cli.text.layout import Cell, Line, columns, line, size
from dom0kit.pci.function import Bar, BarKind, Bridge, CardBus, Function, Rom
from dom0kit.pci.names import PciIds
from dom0kit.pci.reset import Reset, Resets
from dom0kit.pci.topology import Bus, Slot, Topology

_BAR_KINDS = {
    BarKind.IO: "I/O",
    BarKind.MEMORY32: "32-bit",
    BarKind.MEMORY64: "64-bit",
    BarKind.MEMORY_BELOW_1M: "below 1M",
}


def tree(functions: Sequence[Function], topology: Topology, all_resets: Sequence[Resets], names: PciIds) -> list[Line]:
    """One line for each root bus, its functions under it, and so on below each bridge."""
    by_address = {function.sbdf: function for function in functions}
    slots = {slot.bridge: slot for slot in topology.slots}
    resets = {of.function: of for of in all_resets}
    shown: set[tuple[int, int]] = set()

    def of_bus(bus: Bus) -> Iterator[Line]:
        if (bus.segment, bus.number) in shown:
            return
        shown.add((bus.segment, bus.number))
        for sbdf in bus.functions:
            if sbdf in by_address:
                yield of_function(by_address[sbdf])
        # Buses without a bridge of their own: those that the virtual functions of an SR-IOV device lie on.
        for number in bus.children:
            below = topology.bus(bus.segment, number)
            if below is not None and below.bridge is None:
                yield from of_bus(below)

    def of_function(function: Function) -> Line:
        children = _facts(function, slots.get(function.sbdf), resets.get(function.sbdf))
        behind = topology.secondary(function.sbdf)
        if behind is not None:
            children += of_bus(behind)
        return line(*_heading(function, names), children=children)

    return [line((f"bus {bus.segment:04x}:{bus.number:02x}", "bold"), children=of_bus(bus)) for bus in topology.roots]


def _heading(function: Function, names: PciIds) -> list[Cell]:
    marks = [
        f"rev {function.revision:02x}",
        f"driver {function.driver}" if function.driver else "",
        f"INT{function.interrupt_pin.value}" if function.interrupt_pin else "",
        f"iommu_group {function.iommu_group}" if function.iommu_group is not None else "",
        f"node {function.numa_node}" if function.numa_node is not None else "",
        f"VF of {function.physical_function}" if function.physical_function else "",
        "asleep" if function.asleep else "",
    ]
    return [
        (str(function.sbdf), "bold green"),
        f" {names.describe(function)}",
        (f" [{function.vendor:04x}:{function.device:04x}] {', '.join(filter(None, marks))}", "dim"),
    ]


def _facts(function: Function, slot: Slot | None, resets: Resets | None) -> list[Line]:
    rows: list[tuple[Cell, ...]] = []
    if function.bridge is not None:
        rows += _bridge(function.bridge)
    if function.cardbus is not None:
        rows += _cardbus(function.cardbus)
    if slot is not None:
        rows.append(("slot", _slot(slot)))
    rows += [_bar(bar, "BAR") for bar in function.bars]
    rows += [_bar(bar, "VF BAR") for bar in function.vf_bars]
    if function.rom is not None:
        rows.append(_rom(function.rom))
    for capability in function.capabilities:
        title, detail = capabilities.title(capability), capabilities.detail(capability)
        rows.append((f"[{capability.offset:02x}]", f"{title}: {detail}" if detail else title))
    if resets is not None and resets.ways:
        rows.append(("reset", ", ".join(map(_reset, resets.ways))))
    return columns([((row[0] if isinstance(row[0], tuple) else (row[0], "dim")), *row[1:]) for row in rows])


def _bridge(bridge: Bridge) -> Iterator[tuple[Cell, ...]]:
    last = bridge.subordinate
    yield "bus", f"{bridge.secondary:02x}" + (f"-{last:02x}" if last != bridge.secondary else "")
    for name, window in (("I/O", bridge.io), ("memory", bridge.memory), ("prefetch", bridge.prefetchable)):
        if window is not None:
            yield name, f"{window.base:#x}-{window.limit:#x}", size(window.limit - window.base + 1)


def _cardbus(bridge: CardBus) -> Iterator[tuple[Cell, ...]]:
    yield "bus", f"{bridge.secondary:02x}-{bridge.subordinate:02x} (CardBus)"
    windows = [("memory", window) for window in bridge.memory] + [("I/O", window) for window in bridge.io]
    for name, window in windows:
        if window.enabled:
            yield name, f"{window.base:#x}-{window.limit:#x}", size(window.limit - window.base + 1)


def _slot(slot: Slot) -> str:
    marks = {
        "hotplug": slot.hot_plug,
        "surprise": slot.surprise,
        "occupied": slot.present,
        "empty": slot.present is False,
        "powered off": slot.powered is False,
        "latch open": slot.latch_open,
    }
    name = f"{slot.number}" if slot.number is not None else "without number"
    return ", ".join([f"{name} ({slot.kind.value})", *(mark for mark, holds in marks.items() if holds)])


def _reset(way: Reset) -> str:
    if way.available:
        return f"{way.method.value} ({way.detail})" if way.detail else way.method.value
    blocked = f"would reset {len(way.blocked_by)} more" if way.blocked_by else way.detail
    return f"no {way.method.value} ({blocked})"


def _bar(bar: Bar, name: str) -> tuple[Cell, ...]:
    kind = _BAR_KINDS[bar.kind] + (" prefetchable" if bar.prefetchable else "")
    return (
        f"{name} {bar.index}",
        f"{bar.address:#x}" if bar.address else "unassigned",
        _size(bar.size),
        kind,
    )


def _rom(rom: Rom) -> tuple[Cell, ...]:
    state = "enabled" if rom.enabled else "disabled"
    return "ROM", f"{rom.address:#x}" if rom.address else "unassigned", _size(rom.size), state


def _size(count: int | None) -> str:
    return "" if count is None else size(count)
