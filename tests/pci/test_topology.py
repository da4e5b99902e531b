# SPDX-License-Identifier: MIT
"""The bus tree: of machines that are as they should be, of hostile ones, and of every recorded one."""

from __future__ import annotations

import shutil
import subprocess

import hypothesis
import hypothesis.strategies as st
import pytest

from dom0kit.address import Sbdf
from dom0kit.finding import Finding
from dom0kit.pci import topology
from dom0kit.pci.function import Function
from dom0kit.pci.topology import PortKind, Slot, SlotKind, Topology, build
from dom0kit.serial import decode, encode
from tests.corpus import lspci_dumps, needs_corpus
from tests.pci.machines import DOWNSTREAM, ENDPOINT, INTEGRATED, ROOT_PORT, TO_PCI, UPSTREAM, function, recorded


def at(*addresses: str) -> tuple[Sbdf, ...]:
    return tuple(map(Sbdf.parse, addresses))


def rules(findings: tuple[Finding, ...]) -> list[str]:
    return [finding.rule for finding in findings]


def switch() -> list[Function]:
    """A root port, a switch with two ports, a conventional bridge behind one of them; a second root bus."""
    return [
        function("00:00.0"),
        function("00:02.0", express=INTEGRATED),
        function("00:1c.0", express=ROOT_PORT, buses=(1, 5), slot=0x000800DB, slot_state=0x40),
        function("01:00.0", express=UPSTREAM, buses=(2, 5)),
        function("02:00.0", express=DOWNSTREAM, buses=(3, 3)),
        function("02:01.0", express=DOWNSTREAM, buses=(4, 5)),
        function("03:00.0", express=ENDPOINT),
        function("04:00.0", express=TO_PCI, buses=(5, 5)),
        function("05:01.0"),
        function("05:02.0"),
        function("80:00.0"),
        function("0001:00:01.0", express=ROOT_PORT, buses=(1, 1)),
    ]


def test_a_switch_and_two_root_buses() -> None:
    tree, findings = build(switch())
    assert findings == ()
    assert [(bus.segment, bus.number) for bus in tree.roots] == [(0, 0), (0, 0x80), (1, 0)]
    assert tree.path(Sbdf.parse("05:02.0")) == at("00:1c.0", "01:00.0", "02:01.0", "04:00.0", "05:02.0")
    assert tree.path(Sbdf.parse("00:00.0")) == at("00:00.0")
    assert tree.behind(Sbdf.parse("01:00.0")) == at("02:00.0", "02:01.0", "03:00.0", "04:00.0", "05:01.0", "05:02.0")
    assert tree.behind(Sbdf.parse("0001:00:01.0")) == ()
    assert tree.behind(Sbdf.parse("03:00.0")) == ()
    assert tree.upstream(Sbdf.parse("80:00.0")) is None
    root = tree.root_of(Sbdf.parse("05:01.0"))
    assert root is not None
    assert (root.segment, root.number) == (0, 0)
    bus = tree.bus(0, 2)
    assert bus is not None
    assert bus.children == (3, 4)
    assert bus.bridge == Sbdf.parse("01:00.0")
    assert bus.parent == 1
    empty = tree.bus(1, 1)
    assert empty is not None
    assert empty.functions == ()


def test_kinds_come_from_the_express_capability_or_the_header() -> None:
    tree, _ = build([*switch(), function("06:00.0", buses=(7, 7)), function("06:01.0", express=15)])
    kinds = dict(tree.kinds)
    assert kinds[Sbdf.parse("00:1c.0")] is PortKind.ROOT_PORT
    assert kinds[Sbdf.parse("04:00.0")] is PortKind.PCIE_TO_PCI_BRIDGE
    assert kinds[Sbdf.parse("00:02.0")] is PortKind.INTEGRATED_ENDPOINT
    assert kinds[Sbdf.parse("06:00.0")] is PortKind.PCI_BRIDGE
    assert kinds[Sbdf.parse("06:01.0")] is PortKind.PCI_FUNCTION, "type 15 is reserved"
    assert not PortKind.PCI_BRIDGE.is_express
    assert PortKind.ENDPOINT.is_express


def test_a_slot_says_what_its_registers_say() -> None:
    # 000800dbh: number 1, hot-plug, both indicators, power controller, attention button
    tree, _ = build(switch())
    assert tree.slots == (
        Slot(
            bridge=Sbdf.parse("00:1c.0"),
            kind=SlotKind.PCIE,
            number=1,
            chassis=None,
            hot_plug=True,
            surprise=False,
            attention_button=True,
            attention_indicator=True,
            power_indicator=True,
            power_controller=True,
            mrl_sensor=False,
            interlock=False,
            attention=0,
            present=True,
            powered=True,
            latch_open=None,
            link_active=False,
            functions=at("01:00.0"),
        ),
    )


def test_a_standard_hot_plug_controller_is_a_slot_of_which_little_is_known() -> None:
    tree, _ = build([function("00:05.0", buses=(1, 1), shpc=True), function("01:00.0")])
    (slot,) = tree.slots
    assert (slot.kind, slot.number, slot.hot_plug, slot.present) == (SlotKind.SHPC, None, True, None)
    assert slot.functions == at("01:00.0")


def test_a_slot_number_of_zero_is_no_number() -> None:
    tree, _ = build([function("00:1c.0", express=ROOT_PORT, buses=(1, 1), slot=0x60)])
    assert tree.slots[0].number is None
    assert tree.slots[0].surprise
    assert tree.slots[0].powered is None


# --- virtual functions ------------------------------------------------------------------------------------------------


def test_virtual_functions_are_where_offset_and_stride_say() -> None:
    tree, findings = build(
        [
            function("00:1c.0", express=ROOT_PORT, buses=(1, 2)),
            function("01:00.0", express=ENDPOINT, sriov=(8, 4, 0xFE, 2)),
            function("01:00.1", express=ENDPOINT, sriov=(8, 0, 0x80, 2)),
            function("02:00.0", express=ENDPOINT, attributes={"physfn": "0000:01:00.0"}),
            function("02:00.2", express=ENDPOINT),
        ]
    )
    assert findings == ()
    first, second = tree.virtual_functions
    assert first.expected == at("01:1f.6", "02:00.0", "02:00.2", "02:00.4")
    assert first.present == at("02:00.0", "02:00.2")
    assert (second.enabled, second.expected, second.present) == (False, (), ())
    bus = tree.bus(0, 2)
    assert bus is not None
    assert bus.bridge is None
    assert bus.parent == 1
    assert tree.upstream(Sbdf.parse("02:00.2")) == Sbdf.parse("00:1c.0")
    assert tree.physical_function(Sbdf.parse("02:00.2")) == Sbdf.parse("01:00.0")
    assert tree.physical_function(Sbdf.parse("01:00.0")) is None
    assert tree.behind(Sbdf.parse("00:1c.0")) == at("01:00.0", "01:00.1", "02:00.0", "02:00.2")


@pytest.mark.parametrize(
    "numbers", [(4, 5, 1, 1), (4, 4, 0, 1), (4, 4, 1, 0), (0xFFFF, 0xFFFF, 0x1000, 1), (8, 8, 0xFFFF, 0xFFFF)]
)
def test_impossible_virtual_functions_are_a_finding(numbers: tuple[int, int, int, int]) -> None:
    tree, findings = build([function("01:00.0", express=ENDPOINT, sriov=numbers)])
    assert rules(findings) == ["pci.sriov-numbers"]
    assert len(set(tree.virtual_functions[0].expected)) == len(tree.virtual_functions[0].expected) <= 0xFFFF


def test_many_physical_functions_that_each_claim_all_virtual_ones_stay_bounded() -> None:
    machine = [function(f"{n:04x}:00:00.0", express=ENDPOINT, sriov=(0xFFFF, 0xFFFF, 1, 1)) for n in range(40)]
    tree, _ = build(machine)
    assert sum(len(of.expected) for of in tree.virtual_functions) <= 0x10000


# --- hostile bus numbers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        ([function("00:01.0", buses=(0, 5))], ["pci.bridge-unconfigured"]),
        ([function("03:01.0", buses=(3, 5))], ["pci.bus-loop"]),
        ([function("00:01.0", buses=(2, 4)), function("02:00.0", buses=(1, 4))], ["pci.bus-loop"]),
        ([function("00:01.0", buses=(3, 2))], ["pci.bus-range-empty"]),
        ([function("00:01.0", buses=(1, 1)), function("00:02.0", buses=(1, 1))], ["pci.bus-clash"]),
        ([function("00:01.0", buses=(1, 4)), function("00:02.0", buses=(3, 3))], ["pci.bus-clash"]),
        ([function("00:01.0", buses=(1, 2)), function("01:00.0", buses=(2, 3))], ["pci.bus-outside-parent"]),
        ([function("00:01.0", buses=(1, 1), primary=9)], ["pci.bus-primary"]),
        ([function("00:01.0", buses=(1, 9)), function("04:00.0")], ["pci.bus-orphan"]),
        ([function("00:01.0"), function("00:01.0")], ["pci.function-twice"]),
        ([function("00:01.0", buses=(1, 3)), function("00:02.0", buses=(4, 5)), function("02:00.0", buses=(3, 3)),
          function("03:00.0")], ["pci.bus-orphan"]),
    ],
)  # fmt: skip
def test_wrong_bus_numbers(machine: list[Function], expected: list[str]) -> None:
    tree, findings = build(machine)
    assert rules(findings) == expected
    for one in machine:
        assert tree.path(one.sbdf)[-1] == one.sbdf
        tree.behind(one.sbdf)


def test_functions_on_a_forwarded_bus_hang_below_the_bridge_that_forwards_it() -> None:
    tree, _ = build(
        [function("00:01.0", buses=(1, 9)), function("01:00.0", buses=(2, 6)), function("04:00.0"), function("08:00.0")]
    )
    assert tree.path(Sbdf.parse("04:00.0")) == at("00:01.0", "01:00.0", "04:00.0")
    assert tree.path(Sbdf.parse("08:00.0")) == at("00:01.0", "08:00.0")
    assert tree.behind(Sbdf.parse("01:00.0")) == at("04:00.0")


addresses = st.builds(
    Sbdf, st.sampled_from((0, 0, 0, 1, 0x10000)), st.integers(0, 7) | st.integers(0, 255), st.integers(0, 3), st.just(0)
)
numbers = st.integers(0, 8) | st.integers(0, 255)


@st.composite
def any_function(draw: st.DrawFn) -> Function:
    address = str(draw(addresses))
    if draw(st.booleans()):
        buses = draw(numbers), draw(numbers)
        return function(address, buses=buses, primary=draw(numbers), express=draw(st.none() | st.integers(0, 15)))
    sriov = draw(st.none() | st.tuples(*[st.integers(0, 20) | st.integers(0, 0xFFFF)] * 4))
    physical = draw(st.none() | addresses)
    attributes = {} if physical is None else {"physfn": str(physical)}
    return function(address, sriov=sriov, express=draw(st.none() | st.integers(0, 15)), attributes=attributes)


@hypothesis.given(st.lists(any_function(), max_size=16))
@hypothesis.settings(max_examples=150, deadline=None)
def test_any_bus_numbers_give_a_tree(machine: list[Function]) -> None:
    tree, _ = build(machine)
    there = {one.sbdf for one in machine}
    # every function is on one bus, every bus but a root has one parent with a smaller number and is among its children
    assert sorted(sbdf for bus in tree.buses for sbdf in bus.functions) == sorted(there)
    numbered = {(bus.segment, bus.number): bus for bus in tree.buses}
    assert len(numbered) == len(tree.buses)
    for bus in tree.buses:
        assert bus.bridge is None or bus.bridge in there
        if bus.parent is not None:
            assert bus.parent < bus.number
            assert bus.number in numbered[bus.segment, bus.parent].children
        for child in bus.children:
            assert numbered[bus.segment, child].parent == bus.number
    # what is behind a bridge is what has it on its path
    for bridge in there:
        behind = tree.behind(bridge)
        assert list(behind) == sorted(sbdf for sbdf in there if bridge in tree.path(sbdf)[:-1])
    assert decode(encode(tree), Topology) == tree
    again, _ = build(list(reversed(list({one.sbdf: one for one in reversed(machine)}.values()))))
    assert again == tree, "the order of the functions does not matter"


# --- ECAM -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("allocations", "expected"),
    [
        ([(0, 0, 255, 0xE0000000)], []),
        ([(0, 0x80, 0xFF, 0xE0000000)], ["pci.ecam-nowhere", "pci.ecam-uncovered"]),
        ([(0, 0, 0, 0xE0000000)], ["pci.ecam-uncovered"]),
        ([(0, 0, 255, 0)], ["pci.ecam-invalid"]),
        ([(0, 0, 255, 0xE0000000), (1, 9, 3, 0xF0000000)], ["pci.ecam-invalid"]),
        ([(0, 0, 1, 0xE0000000), (0, 1, 2, 0xF0000000)], ["pci.ecam-overlap"]),
        ([(0, 0, 1, 0xE0000000), (0, 2, 3, 0xE0000000)], ["pci.ecam-nowhere"]),
        ([(0, 0, 15, 0xE0000000), (1, 0, 3, 0xE0800000)], ["pci.ecam-overlap", "pci.ecam-nowhere"]),
        ([], []),
    ],
)
def test_ecam(allocations: list[tuple[int, int, int, int]], expected: list[str]) -> None:
    machine = [function("00:00.0"), function("01:00.0"), function("10000:00:00.0")]
    assert rules(topology.ecam_coverage(allocations, machine)) == expected


def test_ecam_says_nothing_of_coverage_without_functions() -> None:
    assert topology.ecam_coverage([(3, 0, 9, 0xE0000000)], []) == ()


def test_many_allocations_are_no_trouble() -> None:
    allocations = [(n & 7, n & 0xFF, 255, n << 20) for n in range(1, 20_001)]
    assert topology.ecam_coverage(allocations, [function("00:00.0")])


# --- recorded machines ------------------------------------------------------------------------------------------------

EXPECTED = {
    # a discrete GPU that was switched off, and its root port with it
    "combo-tfg13": ["pci.bridge-unconfigured"],
    "hwloc-32em64t-2n8c-dax-nvme-mic-dimms": ["pci.bridge-unconfigured"],
    "mac-macbookpro11-3": ["pci.bridge-unconfigured"],
    # Apple firmware parks unused ports with secondary bus ff and subordinate bus fe
    "mac-macmini5-1": ["pci.bus-range-empty"],
    # the same, and two functions on bus ff that are all ones
    "mac-macmini7-1": ["pci.bus-range-empty", "pci.bus-orphan"],
}
"""The recorded machines with something to say of their bus numbers; all others have nothing."""


@needs_corpus
def test_every_recorded_machine_gives_a_tree() -> None:
    for dump in lspci_dumps():
        machine = recorded(dump)
        tree, findings = build(machine)
        assert [finding.rule for finding in findings] == EXPECTED.get(dump.stem, []), dump.stem
        assert {sbdf for bus in tree.buses for sbdf in bus.functions} == {one.sbdf for one in machine}
        assert decode(encode(tree), Topology) == tree
        for one in machine:
            path = tree.path(one.sbdf)
            assert path[-1] == one.sbdf
            assert all(one.sbdf in tree.behind(bridge) for bridge in path[:-1])


@needs_corpus
@pytest.mark.skipif(shutil.which("lspci") is None, reason="no lspci on this machine (Debian package pciutils)")
def test_the_path_of_every_recorded_function_is_that_of_lspci() -> None:
    compared = 0
    for dump in lspci_dumps():
        tree, _ = build(recorded(dump))
        command = ["lspci", "-D", "-n", "-PP", "-F", str(dump)]
        for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines():
            steps = line.split(" ", 1)[0].split("/")
            segment = steps[0][: steps[0].index(":") + 1]
            path = at(steps[0], *(segment + step for step in steps[1:]))
            assert tree.path(path[-1]) == path, dump.stem
            compared += len(path) > 1
    assert compared > 150
