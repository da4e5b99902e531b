# SPDX-License-Identifier: MIT
"""Isolation groups: by hand, against a slow reference on random machines, against the kernel's word on real ones."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import hypothesis
import hypothesis.strategies as st
import msgspec
import pytest

from dom0kit.address import Sbdf
from dom0kit.pci.function import Function
from dom0kit.pci.isolation import Cause, Group, compare, groups
from dom0kit.pci.topology import build
from dom0kit.serial import decode, encode
from tests.corpus import CORPUS, lspci_dumps, needs_corpus
from tests.pci.machines import (
    ACS,
    COLLECTOR,
    DOWNSTREAM,
    ENDPOINT,
    FROM_PCI,
    INTEGRATED,
    LEGACY,
    ROOT_PORT,
    TO_PCI,
    UPSTREAM,
    function,
    recorded,
)


def grouped(machine: Sequence[Function], **options: Any) -> list[list[str]]:
    """The groups, as addresses without the segment where that is 0."""
    found = groups(machine, build(machine)[0], **options)
    assert [group.number for group in found] == list(range(len(found)))
    assert decode(encode(found), tuple[Group, ...]) == found
    return [[str(sbdf).removeprefix("0000:") for sbdf in group.functions] for group in found]


FULL = (ACS, ACS)
OFF = (ACS, 0)


def test_acs_all_the_way_isolates_and_its_absence_joins() -> None:
    def machine(acs: tuple[int, int] | None) -> list[Function]:
        return [
            function("00:1c.0", express=ROOT_PORT, buses=(1, 4), acs=FULL),
            function("01:00.0", express=UPSTREAM, buses=(2, 4)),
            function("02:00.0", express=DOWNSTREAM, buses=(3, 3), acs=acs),
            function("02:01.0", express=DOWNSTREAM, buses=(4, 4), acs=FULL),
            function("03:00.0", express=ENDPOINT),
            function("04:00.0", express=ENDPOINT),
        ]

    assert grouped(machine(FULL)) == [["00:1c.0"], ["01:00.0"], ["02:00.0"], ["02:01.0"], ["03:00.0"], ["04:00.0"]]
    assert grouped(machine(None)) == [["00:1c.0"], ["01:00.0"], ["02:00.0", "03:00.0"], ["02:01.0"], ["04:00.0"]]
    assert len(grouped(machine(OFF))) == 6
    assert grouped(machine(OFF), assume_acs_enabled=False)[2] == ["02:00.0", "03:00.0"]


def test_a_root_port_without_acs_joins_all_behind_it() -> None:
    machine = [
        function("00:1c.0", express=ROOT_PORT, buses=(1, 3)),
        function("01:00.0", express=UPSTREAM, buses=(2, 3)),
        function("02:00.0", express=DOWNSTREAM, buses=(3, 3), acs=FULL),
        function("03:00.0", express=ENDPOINT),
    ]
    assert grouped(machine) == [["00:1c.0", "01:00.0", "02:00.0", "03:00.0"]]
    (group,) = groups(machine, build(machine)[0])
    assert {reason.cause for reason in group.reasons} == {Cause.NO_ACS_ABOVE}
    assert group.reasons[-1].detail == "0000:00:1c.0 has no ACS"


def test_a_service_that_a_port_cannot_do_counts_as_done() -> None:
    machine = [
        function("00:1c.0", express=ROOT_PORT, buses=(1, 1), acs=(0x01, 0x01)),
        function("01:00.0", express=ENDPOINT),
    ]
    assert len(grouped(machine, assume_acs_enabled=False)) == 2


def test_what_is_behind_conventional_pci_is_one_group_with_the_bridge() -> None:
    machine = [
        function("00:1c.0", express=ROOT_PORT, buses=(1, 3), acs=FULL),
        function("01:00.0", express=TO_PCI, buses=(2, 3)),
        function("02:01.0"),
        function("02:02.0", buses=(3, 3)),
        function("03:00.0"),
        function("00:1e.0", buses=(4, 4)),
        function("04:00.0"),
    ]
    assert grouped(machine) == [["00:1c.0"], ["00:1e.0", "04:00.0"], ["01:00.0", "02:01.0", "02:02.0", "03:00.0"]]
    found = groups(machine, build(machine)[0])
    assert [reason.detail for reason in found[2].reasons] == [
        "as 02:00.0, the secondary bus of 0000:01:00.0",
        "as 02:00.0, the secondary bus of 0000:01:00.0",
        "as 0000:02:02.0 itself",
    ]


def test_functions_of_one_device_share_a_group_unless_both_have_acs() -> None:
    machine = [
        function("00:01.0", multifunction=True, express=LEGACY),
        function("00:01.1", express=LEGACY),
        function("00:01.2", express=LEGACY, acs=FULL),
        function("00:02.0", express=ENDPOINT),
        function("00:03.0"),
        function("00:03.2"),
    ]
    assert grouped(machine) == [["00:01.0", "00:01.1"], ["00:01.2"], ["00:02.0"], ["00:03.0", "00:03.2"]]


def test_virtual_functions_do_not_count_as_functions_of_their_device() -> None:
    machine = [
        function("00:1c.0", express=ROOT_PORT, buses=(1, 2), acs=FULL),
        function("01:00.0", express=ENDPOINT, sriov=(4, 2, 1, 0xFF)),
        function("01:00.1", express=ENDPOINT),
        function("02:00.0", express=ENDPOINT),
    ]
    assert grouped(machine) == [["00:1c.0"], ["01:00.0"], ["01:00.1"], ["02:00.0"]]
    beside = [
        machine[0],
        function("01:00.0", express=ENDPOINT, multifunction=True, sriov=(4, 1, 1, 1)),
        function("01:00.1", express=ENDPOINT),
        function("01:00.2", express=ENDPOINT),
    ]
    assert grouped(beside) == [["00:1c.0"], ["01:00.0", "01:00.2"], ["01:00.1"]]
    without = [function("00:1c.0", express=ROOT_PORT, buses=(1, 2)), *machine[1:]]
    assert grouped(without) == [["00:1c.0", "01:00.0", "01:00.1", "02:00.0"]]


# --- quirks -----------------------------------------------------------------------------------------------------------


def test_intel_chipset_root_ports_isolate_once_the_kernel_has_turned_it_on() -> None:
    machine = [
        function("00:1c.0", vendor=0x8086, device=0x1C10, express=ROOT_PORT, buses=(1, 1), multifunction=True),
        function("00:1c.1", vendor=0x8086, device=0x1C12, express=ROOT_PORT, buses=(2, 2)),
        function("01:00.0", express=ENDPOINT),
    ]
    assert grouped(machine) == [["00:1c.0"], ["00:1c.1"], ["01:00.0"]]
    assert grouped(machine, assume_acs_enabled=False) == [["00:1c.0", "00:1c.1", "01:00.0"]]


def test_sunrise_point_has_acs_in_dwords() -> None:
    def machine(acs: tuple[int, int] | None) -> list[Function]:
        return [
            function("00:1c.0", vendor=0x8086, device=0xA110, express=ROOT_PORT, buses=(1, 1), acs_wide=acs),
            function("01:00.0", express=ENDPOINT),
        ]

    assert len(grouped(machine((ACS, ACS)))) == 2
    assert len(grouped(machine(None))) == 1
    (group,) = groups(machine((ACS, ACS)), build(machine((ACS, ACS)))[0], assume_acs_enabled=False)
    assert [reason.certain for reason in group.reasons] == [False]


def test_amd_southbridge_functions_isolate_beside_an_amd_iommu() -> None:
    machine = [
        function("00:14.0", vendor=0x1022, device=0x780B, multifunction=True),
        function("00:14.4", vendor=0x1022, device=0x780F, buses=(1, 1)),
        function("00:14.5", vendor=0x1022, device=0x7809),
    ]
    assert grouped(machine) == [["00:14.0", "00:14.4", "00:14.5"]]
    assert grouped(machine, amd_iommu=True) == [["00:14.0"], ["00:14.4"], ["00:14.5"]]


def test_zhaoxin_ports_that_do_not_isolate_do_not_whatever_they_say() -> None:
    machine = [
        function("00:01.0", vendor=0x1D17, device=0x0700, express=ROOT_PORT, buses=(1, 1), acs=FULL),
        function("00:02.0", vendor=0x1D17, device=0x0721, express=ROOT_PORT, buses=(2, 2)),
        function("01:00.0", express=ENDPOINT),
        function("02:00.0", express=ENDPOINT),
    ]
    assert grouped(machine) == [["00:01.0", "01:00.0"], ["00:02.0"], ["02:00.0"]]


def test_intel_integrated_endpoints_isolate() -> None:
    machine = [
        function("00:14.0", vendor=0x8086, express=INTEGRATED, multifunction=True),
        function("00:14.3", vendor=0x8086, express=INTEGRATED),
        function("00:15.0", express=INTEGRATED, multifunction=True),
        function("00:15.1", express=INTEGRATED),
    ]
    assert grouped(machine) == [["00:14.0"], ["00:14.3"], ["00:15.0", "00:15.1"]]


def test_requests_with_another_functions_id_join() -> None:
    port = function("00:1c.0", express=ROOT_PORT, buses=(1, 1), acs=FULL)
    disk = function("01:00.0", vendor=0x1B4B, device=0x9230, express=ENDPOINT, multifunction=True, acs=FULL)
    ide = function("01:00.1", express=ENDPOINT, acs=FULL)
    assert grouped([port, disk, ide]) == [["00:1c.0"], ["01:00.0", "01:00.1"]]
    assert grouped([port, disk]) == [["00:1c.0"], ["01:00.0"]], "the function whose id is carried need not exist"
    others = [function("00:05.0"), function("00:06.0"), function("00:07.0")]
    told = {Sbdf.parse("00:05.0"): [0x38], Sbdf.parse("00:06.0"): [0x50]}
    assert grouped(others, aliases=told) == [["00:05.0", "00:07.0"], ["00:06.0"]]


def test_a_bridge_that_hides_that_it_is_to_pci_carries_its_secondary_bus() -> None:
    machine = [
        function("00:1c.0", express=ROOT_PORT, buses=(1, 2), acs=FULL),
        function("01:00.0", vendor=0x1B21, device=0x1080, buses=(2, 2)),
        function("02:00.0"),
    ]
    assert grouped(machine) == [["00:1c.0"], ["01:00.0", "02:00.0"]]
    reason = groups(machine, build(machine)[0])[1].reasons[0]
    assert reason.detail == "as 02:00.0, the secondary bus of 0000:01:00.0"


def test_what_is_behind_a_volume_management_device_is_its() -> None:
    machine = [
        function("00:0e.0", vendor=0x8086, device=0x467F),
        function("10000:00:1d.0", express=ROOT_PORT, buses=(1, 1), acs=FULL),
        function("10000:01:00.0", express=ENDPOINT),
    ]
    assert grouped(machine) == [["00:0e.0", "10000:00:1d.0", "10000:01:00.0"]]
    assert grouped(machine[1:]) == [["10000:00:1d.0"], ["10000:01:00.0"]]


def test_what_could_not_be_read_is_not_certain() -> None:
    machine = [
        function("00:1c.0", express=ROOT_PORT, buses=(1, 1), size=0x100),
        function("01:00.0", express=ENDPOINT, size=0x100),
    ]
    (group,) = groups(machine, build(machine)[0])
    assert [(reason.certain, reason.detail) for reason in group.reasons] == [
        (False, "0000:00:1c.0 shows no ACS in the config space that was readable")
    ]


# --- a slow reference -------------------------------------------------------------------------------------------------

Spec = Mapping[str, Any]
"""Keyword arguments of `function`, which the reference reads instead of what was decoded."""


class Reference:
    """One function after the other, in the order in which a kernel finds them, asks those before it for their group."""

    def __init__(self, machine: Mapping[str, Spec], enabled: bool, amd: bool) -> None:
        self.machine = machine
        self.enabled = enabled
        self.amd = amd
        self.group: dict[str, int] = {}
        self.count = 0
        for address in sorted(machine, key=Sbdf.parse):
            number = self.find(address)
            if number is None:
                number, self.count = self.count, self.count + 1
            self.group[address] = number

    def result(self) -> set[frozenset[str]]:
        return {frozenset(a for a, n in self.group.items() if n == number) for number in self.group.values()}

    # what a function is

    def kind(self, address: str) -> int | None:
        kind: int | None = self.machine[address]["express"]
        return kind

    def multifunction(self, address: str) -> bool:
        spec = self.machine[address]
        if spec.get("attributes"):
            return False
        return bool(spec.get("multifunction")) or not address.endswith(".0")

    def above(self, address: str) -> str | None:
        """The bridge that leads to the function's bus."""
        bus = Sbdf.parse(address).bus
        return next((a for a, spec in self.machine.items() if spec.get("buses") and spec["buses"][0] == bus), None)

    def all_above(self, address: str) -> Iterator[str]:
        bridge: str | None = self.above(address)
        while bridge is not None:
            yield bridge
            bridge = self.above(bridge)

    # what isolates

    def isolates(self, address: str) -> bool:
        spec, kind = self.machine[address], self.kind(address)
        vendor, device = spec.get("vendor"), spec.get("device")
        root_bus = self.above(address) is None
        southbridge = (vendor, device) in {(0x1022, 0x7809), (0x1022, 0x780F)}
        if southbridge and self.multifunction(address) and root_bus and self.amd:
            return True
        if vendor == 0x8086 and kind == INTEGRATED:
            return True
        if vendor == 0x8086 and device == 0x1C10 and kind == ROOT_PORT:
            return self.enabled
        if vendor == 0x1D17 and kind in (ROOT_PORT, DOWNSTREAM):
            return bool(device == 0x0721)
        if kind is None or kind in (FROM_PCI, TO_PCI, COLLECTOR):
            return False
        if kind in (ROOT_PORT, DOWNSTREAM) or self.multifunction(address):
            if spec.get("acs") is None:
                return False
            can, does = spec["acs"]
            return self.enabled or can & ACS & ~does == 0
        return True

    # the group of one of those before

    def find(self, address: str) -> int | None:
        for bridge in self.all_above(address):
            if self.kind(bridge) in (None, TO_PCI, FROM_PCI):
                return self.group[bridge]
        nearest = self.above(address)
        if nearest is not None and not all(self.isolates(port) for port in (nearest, *self.all_above(nearest))):
            return self.group[nearest]
        asked: set[str] = set()
        found = self.by_alias(address, asked)
        return found if found is not None else self.by_device(address, asked)

    def carried(self, address: str) -> str | None:
        """A Marvell controller's requests carry function 1's id."""
        spec = self.machine[address]
        return address[:-1] + "1" if (spec.get("vendor"), spec.get("device")) == (0x1B4B, 0x9230) else None

    def by_alias(self, address: str, asked: set[str]) -> int | None:
        if address in asked:
            return None
        asked.add(address)
        if address in self.group:
            return self.group[address]
        for other in self.machine:
            if other != address and (self.carried(address) == other or self.carried(other) == address):
                found = self.by_alias(other, asked)
                if found is None:
                    found = self.by_device(other, asked)
                if found is not None:
                    return found
        return None

    def by_device(self, address: str, asked: set[str]) -> int | None:
        if not self.multifunction(address) or self.isolates(address):
            return None
        for other in self.machine:
            if other != address and other[:-1] == address[:-1] and not self.isolates(other):
                found = self.by_alias(other, asked)
                if found is not None:
                    return found
        return None


acs_values = st.none() | st.sampled_from(
    [(ACS, ACS), (0x5F, ACS), (ACS, 0), (0x01, 0x01), (0, 0), *((ACS, ACS & ~bit) for bit in (0x01, 0x04, 0x08, 0x10))]
)
known_devices = st.sampled_from(
    [(0x1234, 1)] * 6 + [(0x8086, 1), (0x8086, 0x1C10), (0x1D17, 0x0721), (0x1D17, 0x0700), (0x1022, 0x780F),
                         (0x1022, 0x7809), (0x1B4B, 0x9230), (0x1B4B, 0x9230)]
)  # fmt: skip
bridge_kinds = st.none() | st.sampled_from([ROOT_PORT, ROOT_PORT, UPSTREAM, DOWNSTREAM, DOWNSTREAM, TO_PCI, FROM_PCI])
endpoint_kinds = st.none() | st.sampled_from([ENDPOINT, LEGACY, INTEGRATED, COLLECTOR])


@st.composite
def machines(draw: st.DrawFn) -> dict[str, Spec]:
    """A tree of up to 14 functions on up to 6 buses; every bus is the secondary of an earlier bridge but bus 0."""
    machine: dict[str, Spec] = {}
    buses = [0]
    for _ in range(draw(st.integers(1, 14))):
        bus = draw(st.sampled_from(buses))
        address = f"{bus:02x}:{draw(st.integers(0, 2)):02x}.{draw(st.integers(0, 2))}"
        if address in machine:
            continue
        vendor, device = draw(known_devices)
        spec: dict[str, Any] = {
            "vendor": vendor,
            "device": device,
            "multifunction": draw(st.booleans()),
            "acs": draw(acs_values),
        }
        if len(buses) < 6 and draw(st.integers(0, 2)) == 0:
            spec |= {"buses": (len(buses), 5), "express": draw(bridge_kinds)}
            buses.append(len(buses))
        else:
            spec["express"] = draw(endpoint_kinds)
            owner = address[:-1] + "0"
            if draw(st.booleans()) and spec["express"] == ENDPOINT and owner in machine and owner != address:
                spec["attributes"] = {"physfn": f"0000:{owner}"}
        machine[address] = spec
    return machine


@hypothesis.given(machines(), st.booleans(), st.booleans())
@hypothesis.settings(max_examples=400, deadline=None)
def test_groups_are_those_of_the_reference(machine: dict[str, Spec], enabled: bool, amd: bool) -> None:
    functions = [function(address, **spec) for address, spec in machine.items()]
    found = grouped(functions, assume_acs_enabled=enabled, amd_iommu=amd)
    assert set(map(frozenset, found)) == Reference(machine, enabled, amd).result()


@hypothesis.given(machines(), st.booleans())
@hypothesis.settings(max_examples=100, deadline=None)
def test_reasons_join_exactly_the_group(machine: dict[str, Spec], enabled: bool) -> None:
    functions = [function(address, **spec) for address, spec in machine.items()]
    found = groups(functions, build(functions)[0], assume_acs_enabled=enabled)
    assert sorted(sbdf for group in found for sbdf in group.functions) == sorted(f.sbdf for f in functions)
    for group in found:
        reached = {group.functions[0]}
        for _ in group.functions:
            for reason in group.reasons:
                pair = {reason.function, reason.with_}
                assert pair <= set(group.functions)
                if pair & reached:
                    reached |= pair
        assert reached == set(group.functions)


@hypothesis.given(machines())
@hypothesis.settings(max_examples=100, deadline=None)
def test_turning_acs_on_never_joins(machine: dict[str, Spec]) -> None:
    functions = [function(address, **spec) for address, spec in machine.items()]
    on = grouped(functions, assume_acs_enabled=True)
    off = [set(group) for group in grouped(functions, assume_acs_enabled=False)]
    assert all(any(set(group) <= other for other in off) for group in on)


# --- what the kernel says ---------------------------------------------------------------------------------------------


def test_a_difference_to_the_kernel_is_a_finding() -> None:
    machine = [
        function("00:1c.0", express=ROOT_PORT, buses=(1, 1), attributes={"iommu_group": "3"}),
        function("01:00.0", express=ENDPOINT, attributes={"iommu_group": "4"}),
        function("01:00.1", express=ENDPOINT),
    ]
    found = compare(groups(machine, build(machine)[0]), machine)
    assert [finding.where for finding in found] == ["pci:0000:00:1c.0", "pci:0000:01:00.0"]
    assert found[0].message == "the kernel's group 3 is 0000:00:1c.0; computed: 0000:00:1c.0 0000:01:00.0"
    wider = [msgspec.structs.replace(one, iommu_group=7) for one in (*machine, function("00:05.0"))]
    assert [finding.where for finding in compare(groups(wider, build(wider)[0]), wider)] == [
        "pci:0000:00:05.0",
        "pci:0000:00:1c.0",
        "pci:0000:01:00.0",
        "pci:0000:01:00.1",
    ]
    agreeing = [msgspec.structs.replace(one, iommu_group=7) for one in machine]
    assert compare(groups(agreeing, build(agreeing)[0]), agreeing) == ()


ADDED = re.compile(r"(?:Adding|Adding device) (\S+) to (?:iommu )?group (\d+)")


def kernel_groups() -> list[tuple[str, list[Function], bool]]:
    """The recorded machines whose kernel told its groups, in the listing or in the boot log; and whether AMD's."""
    machines = []
    for dump in lspci_dumps():
        machine = recorded(dump)
        log = CORPUS / "log" / f"{dump.stem}.dmesg"
        if log.is_file():
            told = {Sbdf.parse(a): int(n) for a, n in ADDED.findall(log.read_text(errors="replace"))}
            if told:
                machine = [msgspec.structs.replace(one, iommu_group=told.get(one.sbdf)) for one in machine]
        if sum(one.iommu_group is not None for one in machine) > 1:
            amd = (CORPUS / "acpi" / dump.stem / "IVRS.dat").is_file()
            machines.append((dump.stem, machine, amd))
    return machines


@needs_corpus
def test_recorded_groups_are_the_computed_ones() -> None:
    machines = kernel_groups()
    assert [(name, sum(one.iommu_group is not None for one in machine)) for name, machine, _ in machines] == [
        ("combo-msi-ms7721", 22),
        ("ml-pci-e6f2d117", 29),
    ]
    for name, machine, amd in machines:
        assert compare(groups(machine, build(machine)[0], amd_iommu=amd), machine) == (), name


@needs_corpus
@pytest.mark.parametrize("enabled", [True, False])
def test_every_recorded_machine_has_groups(enabled: bool) -> None:
    for dump in lspci_dumps():
        machine = recorded(dump)
        found = groups(machine, build(machine)[0], assume_acs_enabled=enabled)
        assert sorted(sbdf for group in found for sbdf in group.functions) == sorted(one.sbdf for one in machine)
