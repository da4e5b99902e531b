# SPDX-License-Identifier: MIT
"""Ways of resetting a function, and what stands in the way."""

from __future__ import annotations

import pytest

from dom0kit.address import Sbdf
from dom0kit.pci.function import Function
from dom0kit.pci.reset import Reset, ResetMethod, Resets, resets
from dom0kit.pci.topology import build
from dom0kit.serial import decode, encode
from tests.corpus import lspci_dumps, needs_corpus
from tests.pci.machines import ENDPOINT, ROOT_PORT, function, recorded


def ways(machine: list[Function], address: str, acpi: tuple[str, ...] = ()) -> dict[ResetMethod, Reset]:
    found, _ = resets(machine, build(machine)[0], acpi=[Sbdf.parse(one) for one in acpi])
    assert decode(encode(found), tuple[Resets, ...]) == found
    return next({way.method: way for way in one.ways} for one in found if one.function == Sbdf.parse(address))


def offered(machine: list[Function], address: str, acpi: tuple[str, ...] = ()) -> list[str]:
    return [method.value for method, way in ways(machine, address, acpi).items() if way.available]


PORT = function("00:1c.0", express=ROOT_PORT, buses=(1, 1))


def test_all_ways_in_the_order_of_linux() -> None:
    machine = [PORT, function("01:00.0", express=ENDPOINT, flr=True, pm=False, af=3)]
    assert offered(machine, "01:00.0", ("01:00.0",)) == ["acpi", "flr", "af_flr", "pm", "bus"]
    assert offered(machine, "00:1c.0") == []


def test_on_a_root_bus_there_is_no_bus_reset() -> None:
    assert offered([function("00:19.0", af=3, pm=True)], "00:19.0") == ["af_flr"]


def test_advanced_features_must_tell_of_pending_transactions() -> None:
    machine = [function("00:19.0", af=2)]
    assert offered(machine, "00:19.0") == []
    assert "pending" in ways(machine, "00:19.0")[ResetMethod.AF_FLR].detail


def test_no_soft_reset_is_no_reset() -> None:
    machine = [function("00:02.0", pm=True), function("00:03.0", pm=False)]
    assert offered(machine, "00:02.0") == []
    assert offered(machine, "00:03.0") == ["pm"]


def test_siblings_block_a_bus_reset_and_are_named() -> None:
    machine = [PORT, function("01:00.0", express=ENDPOINT, multifunction=True), function("01:00.1", express=ENDPOINT)]
    bus = ways(machine, "01:00.0")[ResetMethod.BUS]
    assert (bus.available, bus.blocked_by) == (False, (Sbdf.parse("01:00.1"),))
    assert offered(machine[:2], "01:00.0") == ["bus"]


def test_a_bridge_is_not_reset_by_the_bus_above() -> None:
    machine = [
        function("00:1c.0", express=ROOT_PORT, buses=(1, 2)),
        function("01:00.0", buses=(2, 2), pm=False),
        function("02:00.0"),
    ]
    assert offered(machine, "01:00.0") == ["pm"]
    assert offered(machine, "02:00.0") == ["bus"]


def test_a_card_in_a_hot_plug_slot_is_reset_through_the_slot() -> None:
    slot = function("00:1c.0", express=ROOT_PORT, buses=(1, 1), slot=0x40)
    fixed = function("00:1c.0", express=ROOT_PORT, buses=(1, 1), slot=0x00)
    card = function("01:00.0", express=ENDPOINT)
    assert ways([slot, card], "01:00.0")[ResetMethod.BUS].slot
    assert not ways([fixed, card], "01:00.0")[ResetMethod.BUS].slot
    twin = function("01:00.1", express=ENDPOINT)
    assert offered([slot, card, twin], "01:00.0") == []


@pytest.mark.parametrize(
    ("keywords", "expected"),
    [
        ({"vendor": 0x1022, "device": 0x1487, "flr": True}, ["bus"]),
        ({"vendor": 0x1022, "device": 0x1488, "flr": True}, ["flr", "bus"]),
        ({"vendor": 0xD063, "device": 0x1000, "flr": True, "revision": 1}, ["bus"]),
        ({"vendor": 0xD063, "device": 0x1000, "flr": True, "revision": 2}, ["flr", "bus"]),
        ({"vendor": 0x168C, "device": 0x003E}, []),
        ({"vendor": 0x10DE, "device": 0x2340, "pm": False}, ["pm"]),
        ({"vendor": 0x1002, "pm": False, "class_code": 0x030000}, ["bus"]),
        ({"vendor": 0x1002, "pm": False, "class_code": 0x040300}, ["pm", "bus"]),
        ({"vendor": 0x8086, "device": 0x10ED}, ["device_specific", "bus"]),
        ({"vendor": 0x8086, "device": 0x0953, "flr": True}, ["device_specific", "flr", "bus"]),
        ({"vendor": 0x8086, "device": 0x0953}, ["bus"]),
        ({"vendor": 0x144D, "device": 0xA804, "flr": True, "class_code": 0x010802}, ["device_specific", "flr", "bus"]),
        ({"vendor": 0x1425, "device": 0x4123}, ["device_specific", "bus"]),
        ({"vendor": 0x1425, "device": 0x5123}, ["bus"]),
    ],
)
def test_quirks(keywords: dict[str, int], expected: list[str]) -> None:
    machine = [PORT, function("01:00.0", express=ENDPOINT, **keywords)]  # type: ignore[arg-type]
    assert offered(machine, "01:00.0") == expected


def test_a_broken_pm_reset_is_better_than_nothing_on_the_root_bus() -> None:
    assert offered([function("00:02.0", vendor=0x1002, class_code=0x030000, pm=False)], "00:02.0") == ["pm"]


def test_the_kernels_word_is_compared() -> None:
    def found(told: str, flr: bool = True) -> list[str]:
        card = function("01:00.0", express=ENDPOINT, flr=flr, attributes={"reset_method": told})
        return [finding.rule for finding in resets([PORT, card], build([PORT, card])[0])[1]]

    assert found("flr bus") == []
    assert found("bus") == ["pci.reset-differs"]
    assert found("", flr=False) == ["pci.reset-differs"]


def test_the_kernel_asks_the_first_function_of_a_bus_before_it_knows_the_others() -> None:
    def found(first: str, second: str) -> list[str]:
        machine = [
            PORT,
            function("01:00.0", express=ENDPOINT, flr=True, attributes={"reset_method": first}),
            function("01:00.1", express=ENDPOINT, flr=True, attributes={"reset_method": second}),
        ]
        return [finding.where for finding in resets(machine, build(machine)[0])[1]]

    assert found("flr bus", "flr") == []
    assert found("flr", "flr") == []
    assert found("flr", "flr bus") == ["pci:0000:01:00.1"]
    assert found("bus", "flr") == ["pci:0000:01:00.0"]
    switch = [
        function("00:1c.0", express=ROOT_PORT, buses=(1, 2)),
        function("01:00.0", buses=(2, 2), pm=False, attributes={"reset_method": "pm bus"}),
    ]
    assert resets(switch, build(switch)[0])[1] == ()


def test_a_card_without_any_way_is_a_finding() -> None:
    machine = [PORT, function("01:00.0", express=ENDPOINT, pm=True), function("01:00.1", express=ENDPOINT, flr=True)]
    (finding,) = resets(machine, build(machine)[0])[1]
    assert (finding.rule, finding.where) == ("pci.reset-none", "pci:0000:01:00.0")
    assert finding.message == "No_Soft_Reset: D3hot keeps the state; 1 more on the bus behind 0000:00:1c.0"


@needs_corpus
def test_every_recorded_machine_has_resets() -> None:
    for dump in lspci_dumps():
        machine = recorded(dump)
        found, _ = resets(machine, build(machine)[0])
        assert [one.function for one in found] == sorted(one.sbdf for one in machine)
