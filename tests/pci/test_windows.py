# SPDX-License-Identifier: MIT
"""Addresses that bridges do not forward, and addresses that two functions decode."""

from __future__ import annotations

from dom0kit.pci.function import Function
from dom0kit.pci.topology import build
from dom0kit.pci.windows import check
from tests.corpus import lspci_dumps, needs_corpus
from tests.pci.machines import function, recorded


def measured(*ranges: tuple[int, int]) -> dict[str, str]:
    """The kernel's resource file for memory BARs of these first and last addresses."""
    lines = [f"{first:#018x} {last:#018x} 0x0000000000040200" for first, last in ranges]
    return {
        "resource": "\n".join(lines + ["0x0000000000000000 0x0000000000000000 0x0000000000000000"] * (7 - len(lines)))
    }


def told(machine: list[Function]) -> list[tuple[str, str]]:
    return [(finding.rule, finding.where) for finding in check(machine, build(machine)[0])]


def bridge(address: str, buses: tuple[int, int], **keywords: object) -> Function:
    windows: dict[str, object] = {
        "memory": (0xE0000000, 0xE00FFFFF),
        "prefetchable": (0x4000000000, 0x40000FFFFF),
        "io": (0x3000, 0x3FFF),
    }
    return function(address, buses=buses, **(windows | keywords))  # type: ignore[arg-type]


PORT = bridge("00:1c.0", (1, 2))


def test_bars_inside_a_window_are_fine() -> None:
    assert told([PORT, function("01:00.0", bars=(0xE0000000, 0x3001, 0x0000000C, 0x40))]) == []


def test_bars_outside_are_told() -> None:
    machine = [
        PORT,
        function("01:00.0", bars=(0xE0100000,)),
        function("01:01.0", bars=(0x4001,)),
        function("01:02.0", bars=(0x0010000C, 0x40)),
    ]
    assert told(machine) == [("pci.bar-outside-window", f"pci:0000:01:0{n}.0") for n in range(3)]


def test_the_end_of_a_bar_counts_where_its_size_is_known() -> None:
    at_end = function("01:00.0", bars=(0xE00F8000,))
    assert told([PORT, at_end]) == []
    beyond = function("01:00.0", bars=(0xE00F8000,), attributes=measured((0xE00F8000, 0xE0107FFF)))
    assert told([PORT, beyond]) == [("pci.bar-outside-window", "pci:0000:01:00.0")]


def test_what_does_not_decode_is_not_told() -> None:
    assert told([PORT, function("01:00.0", bars=(0xF0000000,), command=1)]) == []
    assert told([PORT, function("01:00.0", bars=(0x5001,), command=2)]) == []
    assert told([PORT, function("01:00.0", bars=(0, 1))]) == []
    assert told([PORT, function("01:00.0", bars=(0x1F1,))]) == [], "ISA ports"
    off = bridge("00:1c.0", (1, 2), command=0)
    assert told([off, function("01:00.0", bars=(0xF0000000,))]) == []


def test_a_subtractive_bridge_forwards_all() -> None:
    assert told([bridge("00:1e.0", (1, 2), subtractive=True), function("01:00.0", bars=(0xF0000000,))]) == []


def test_a_window_must_be_inside_the_one_above() -> None:
    assert told([PORT, bridge("01:00.0", (2, 2), prefetchable=None)]) == []
    wide = bridge("01:00.0", (2, 2), memory=(0xE0000000, 0xE01FFFFF))
    assert told([PORT, wide]) == [("pci.window-outside-window", "pci:0000:01:00.0")]


def test_functions_of_one_bus_must_not_decode_the_same() -> None:
    first = function("01:00.0", bars=(0xE0000000,), attributes=measured((0xE0000000, 0xE000FFFF)))
    assert told([PORT, first, function("01:01.0", bars=(0xE0008000,))]) == [("pci.address-overlap", "pci:0000:01:01.0")]
    assert told([PORT, first, function("01:01.0", bars=(0xE0010000,))]) == []
    assert told([PORT, first, function("01:01.0", bars=(0xE0008000,), command=0)]) == []
    assert told([function("00:1f.0", bars=(0xE0080000,)), PORT]) == [("pci.address-overlap", "pci:0000:00:1f.0")]


def test_an_overlap_is_seen_behind_a_larger_range_of_the_same_function() -> None:
    def two(address: str, first: tuple[int, int], second: tuple[int, int]) -> Function:
        return function(address, bars=(first[0], second[0]), attributes=measured(first, second))

    def one(address: str, first: tuple[int, int]) -> Function:
        return function(address, bars=(first[0],), attributes=measured(first))

    large = two("01:00.0", (0xE0000000, 0xE000FFFF), (0xE0001000, 0xE0001FFF))
    assert told([PORT, large, one("01:01.0", (0xE0000800, 0xE00017FF))]) == [
        ("pci.address-overlap", "pci:0000:01:00.0"),
        ("pci.address-overlap", "pci:0000:01:01.0"),
    ]
    later = two("01:00.0", (0xE0001000, 0xE000FFFF), (0xE0001800, 0xE00018FF))
    assert told([PORT, one("01:01.0", (0xE0000000, 0xE0001FFF)), later]) == [
        ("pci.address-overlap", "pci:0000:01:00.0"),
        ("pci.address-overlap", "pci:0000:01:00.0"),
    ]


EXPECTED = {
    # firmware left the windows of the Wi-Fi card's root port closed while the card decodes
    "mac-macbookpro11-3": [("pci.bar-outside-window", "pci:0000:03:00.0")] * 2,
    # a DesignWare root port whose upper I/O registers are not those of the switch below
    "ml-pci-348bfbd6": [("pci.window-outside-window", "pci:0000:01:00.0")],
}
"""The recorded machines with something to say, each looked at; all others have nothing."""


@needs_corpus
def test_recorded_machines_have_little_to_say() -> None:
    for dump in lspci_dumps():
        assert told(recorded(dump)) == EXPECTED.get(dump.stem, []), dump.stem
