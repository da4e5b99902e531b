# SPDX-License-Identifier: MIT
"""Whether what functions decode can be reached through the bridges above, and whether two decode the same.

Told only of what takes part: decoding turned on in the command register, addresses assigned, bridges that forward.
Not told: BARs behind a bridge that decodes subtractively (it forwards whatever nobody else claims), ranges whose size
nobody measured beyond their first address, VGA and ISA legacy ranges, and ranges that only Enhanced Allocation names.

Source: PCI-to-PCI Bridge 1.2 section 4 (address decoding), PCI Local Bus 3.0 section 6.2.5.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from dom0kit.address import Sbdf
from dom0kit.finding import Finding, Rule, Severity, rule
from dom0kit.pci.function import BarKind, Bridge, Function, Window
from dom0kit.pci.topology import Topology

BAR_OUTSIDE: Final = rule(
    "pci.bar-outside-window",
    Severity.WARNING,
    title="a BAR outside the windows of the bridge above",
    meaning="The function decodes addresses that the bridge above does not forward: its registers cannot be reached "
    "there, and another device may answer.",
    advice="Have the kernel assign addresses again (pci=realloc), or update the firmware.",
    specification="PCI-to-PCI Bridge 1.2, section 4",
)
WINDOW_OUTSIDE: Final = rule(
    "pci.window-outside-window",
    Severity.WARNING,
    title="a bridge's window outside those of the bridge above",
    meaning="The bridge forwards addresses that the bridge above does not pass to it. What lies there cannot be "
    "reached.",
    advice="Have the kernel assign addresses again (pci=realloc), or update the firmware.",
    specification="PCI-to-PCI Bridge 1.2, section 4",
)
OVERLAP: Final = rule(
    "pci.address-overlap",
    Severity.WARNING,
    title="two functions of one bus decode the same addresses",
    meaning="BARs, or a BAR and a bridge's window, of two functions on one bus have addresses in common, and both "
    "decode. Both answer, or one steals the other's accesses.",
    advice="Have the kernel assign addresses again (pci=realloc), or update the firmware.",
    specification="PCI Local Bus 3.0, section 6.2.5; PCI-to-PCI Bridge 1.2, section 4",
)

_IO: Final = 1
_MEMORY: Final = 2
_ISA_PORTS: Final = 0x1000
"""I/O below is also decoded without a window, by ISA and VGA rules."""


class _Range(NamedTuple):
    """Addresses that a function decodes or forwards."""

    first: int
    last: int
    sbdf: Sbdf
    what: str
    io: bool

    def __str__(self) -> str:
        return f"{self.what} {'I/O' if self.io else 'memory'} {self.first:#x} to {self.last:#x}"


def check(functions: Sequence[Function], topology: Topology) -> tuple[Finding, ...]:
    """What cannot be reached and what overlaps, ascending by function."""
    known: dict[Sbdf, Function] = {}
    for function in functions:
        known.setdefault(function.sbdf, function)
    findings: list[Finding] = []
    for bus in topology.buses:
        on_bus = [known[sbdf] for sbdf in bus.functions if sbdf in known]
        bars = [bar for function in on_bus for bar in _bars(function)]
        windows = [window for function in on_bus for window in _windows(function)]
        findings += _overlaps(bars, windows)
        above = topology.upstream(bus.functions[0]) if bus.functions else None
        if above is not None and above in known:
            findings += _outside(bars, known[above], BAR_OUTSIDE)
            findings += _outside(windows, known[above], WINDOW_OUTSIDE)
    return tuple(sorted(findings, key=lambda finding: finding.where))


def _bars(function: Function) -> Iterator[_Range]:
    """What the function's BARs decode, turned on and assigned."""
    if function.asleep or not function.answers:
        return
    for bar in function.bars:
        io = bar.kind is BarKind.IO
        if bar.virtual or bar.address == 0 or bar.kind is BarKind.RESERVED:
            continue
        if function.command & (_IO if io else _MEMORY):
            yield _Range(bar.address, bar.address + (bar.size or 1) - 1, function.sbdf, f"BAR {bar.index}", io)


def _windows(function: Function) -> Iterator[_Range]:
    """What the function forwards as a bridge, turned on and assigned (base 0 comes out of reset)."""
    bridge = function.bridge
    if bridge is None or function.asleep or not function.answers:
        return
    if bridge.io is not None and bridge.io.base and function.command & _IO:
        yield _Range(bridge.io.base, bridge.io.limit, function.sbdf, "window", True)
    if function.command & _MEMORY:
        for window in (bridge.memory, bridge.prefetchable):
            if window is not None and window.base:
                yield _Range(window.base, window.limit, function.sbdf, "window", False)


def _overlaps(bars: Sequence[_Range], windows: Sequence[_Range]) -> Iterator[Finding]:
    """Ranges with addresses in common: each against the one of another function that reaches furthest before it."""
    for io in (False, True):
        furthest: _Range | None = None
        other: _Range | None = None  # the furthest of another function than that
        for range_ in sorted(one for one in (*bars, *windows) if one.io is io):
            before = furthest if furthest is not None and furthest.sbdf != range_.sbdf else other
            if before is not None and range_.first <= before.last:
                yield OVERLAP.at(f"pci:{range_.sbdf}", f"{range_}; {before.sbdf} has {before}")
            if furthest is None or range_.last > furthest.last:
                if furthest is not None and furthest.sbdf != range_.sbdf:
                    other = furthest
                furthest = range_
            elif range_.sbdf != furthest.sbdf and (other is None or range_.last > other.last):
                other = range_


def _outside(ranges: Sequence[_Range], above: Function, rule_: Rule) -> Iterator[Finding]:
    """Ranges that the bridge above does not forward."""
    bridge = above.bridge
    if bridge is None or bridge.subtractive or above.asleep or not above.answers:
        return
    for range_ in ranges:
        if not above.command & (_IO if range_.io else _MEMORY):
            continue  # nothing behind it can be reached anyhow, and the kernel knows
        if range_.io and range_.last < _ISA_PORTS:
            continue
        windows = _forwarded(bridge, range_.io)
        if not any(window.base <= range_.first and range_.last <= window.limit for window in windows):
            told = " and ".join(f"{window.base:#x} to {window.limit:#x}" for window in windows) or "none"
            yield rule_.at(f"pci:{range_.sbdf}", f"{range_}; {above.sbdf} forwards {told}")


def _forwarded(bridge: Bridge, io: bool) -> list[Window]:
    windows = (bridge.io,) if io else (bridge.memory, bridge.prefetchable)
    return [window for window in windows if window is not None]
