# SPDX-License-Identifier: MIT
"""`check` against a slow reference: every path that a request of a given function can take is walked, step by step.

The reference knows no groups. It knows ports, what ACS does in each, that requests from behind conventional PCI carry a
bridge's id, and that a region, a page or a line is one thing whoever has a part of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from dom0kit.address import Sbdf
from dom0kit.pci.function import Function
from tests.partition.machines import checked, platform, told
from tests.pci.machines import ACS, DOWNSTREAM, ENDPOINT, INTEGRATED, ROOT_PORT, TO_PCI, UPSTREAM, function

DOMAINS = ("red", "blue")
Spec = dict[str, Any]


class Reference:
    """One machine, one assignment."""

    def __init__(self, machine: Mapping[str, Spec], owner: Mapping[str, str]) -> None:
        self.machine = machine
        self.owner = owner

    def split(self) -> bool:
        """Whether some request reaches what another domain has, without passing the IOMMU."""
        return any(
            self.whose(source) != self.whose(target)
            for source in self.machine
            if not self.is_bridge(source)
            for target in self.reached(source)
            if not self.is_bridge(target)
        )

    def whose(self, name: str) -> str:
        return self.owner.get(name, "dom0")

    # --- what a function is ---

    def is_bridge(self, name: str) -> bool:
        return "buses" in self.machine[name]

    def is_conventional(self, name: str) -> bool:
        return self.is_bridge(name) and self.machine[name]["express"] in (None, TO_PCI)

    def is_virtual(self, name: str) -> bool:
        return "attributes" in self.machine[name]

    def has_several(self, name: str) -> bool:
        return not self.is_virtual(name) and (bool(self.machine[name]["multifunction"]) or not name.endswith(".0"))

    def sends_up(self, name: str) -> bool:
        """Whether requests that come in here all go up: ACS, or nowhere else to go."""
        spec = self.machine[name]
        if spec["express"] is None or spec["express"] == TO_PCI:
            return False
        if spec["express"] in (ROOT_PORT, DOWNSTREAM) or self.has_several(name):
            return spec["acs"] is not None
        return True

    # --- where things are ---

    def on_bus(self, segment: int, bus: int) -> Iterator[str]:
        return (n for n in self.machine if (Sbdf.parse(n).segment, Sbdf.parse(n).bus) == (segment, bus))

    def below(self, bridge: str) -> Iterator[str]:
        for name in self.on_bus(Sbdf.parse(bridge).segment, self.machine[bridge]["buses"][0]):
            yield name
            if self.is_bridge(name):
                yield from self.below(name)

    def above(self, name: str) -> str | None:
        at = Sbdf.parse(name)
        return next(
            (
                bridge
                for bridge in self.machine
                if self.is_bridge(bridge)
                and Sbdf.parse(bridge).segment == at.segment
                and self.machine[bridge]["buses"][0] == at.bus
            ),
            None,
        )

    def beside(self, name: str) -> Iterator[str]:
        at = Sbdf.parse(name)
        for other in self.on_bus(at.segment, at.bus):
            if other != name and Sbdf.parse(other).device == at.device:
                yield other

    def into(self, name: str) -> Iterator[str]:
        """What a request reaches that is handed to a function from beside."""
        yield name
        if self.is_bridge(name):
            yield from self.below(name)

    # --- the walk ---

    def reached(self, source: str) -> Iterator[str]:
        yield from self.sideways(source)
        port = self.above(source)
        while port is not None:
            if self.is_conventional(port):  # one id, and on one bus all hear all
                yield from self.below(port)
            if not self.sends_up(port):
                yield from self.below(port)  # it turns round
            yield from self.sideways(port)
            if self.machine[port]["express"] == DOWNSTREAM and not self.sends_up(port):
                for other in self.on_bus(Sbdf.parse(port).segment, Sbdf.parse(port).bus):
                    if other != port and self.machine[other]["express"] == DOWNSTREAM:
                        yield from self.below(other)
            port = self.above(port)

    def sideways(self, name: str) -> Iterator[str]:
        """Inside a device of several functions: from one without ACS to another without; from a root port without to
        every root port, for it is the port where requests come in that would have to stop them."""
        if not self.has_several(name) or self.sends_up(name):
            return
        for other in self.beside(name):
            if not self.is_virtual(other) and not self.sends_up(other):
                yield from self.into(other)
            both_ports = self.machine[name]["express"] == self.machine[other]["express"] == ROOT_PORT
            if both_ports and self.has_several(other):
                yield from self.below(other)


acs = st.sampled_from([(ACS, 0), (ACS, 0), None])


@st.composite
def machines(draw: st.DrawFn) -> dict[str, Spec]:
    """Two segments: root ports alone or in one device, switches and PCI bridges below, endpoints with several and
    virtual functions."""
    machine: dict[str, Spec] = {}
    for segment in range(draw(st.integers(1, 2))):
        next_bus = 1
        buses = [(0, "root")]
        for _ in range(draw(st.integers(4, 14))):
            bus, kind = draw(st.sampled_from(buses + buses[1:] * 3))
            device = 0 if kind == "port" else draw(st.integers(0, 2))
            name = f"{segment:04x}:{bus:02x}:{device:02x}.{draw(st.integers(0, 2))}"
            if name in machine:
                continue
            what = draw(st.sampled_from(_BELOW[kind]))
            if what is not None and next_bus > 8:
                continue
            spec: Spec = {"multifunction": draw(st.booleans()), "acs": draw(acs)}
            if what is None:
                spec["express"] = None if kind == "pci" else INTEGRATED if kind == "root" else ENDPOINT
                physical = name[:-1] + "0"
                of = machine.get(physical)
                if of is not None and "buses" not in of and physical != name and draw(st.booleans()):
                    spec["attributes"] = {"physfn": physical}
            else:
                spec |= {"buses": (next_bus, 255), "express": what}
                inside = {ROOT_PORT: "port", UPSTREAM: "switch", DOWNSTREAM: "port", TO_PCI: "pci"}[what]
                buses.append((next_bus, inside))
                next_bus += 1
            machine[name] = spec
    return machine


_BELOW: dict[str, list[int | None]] = {
    "root": [ROOT_PORT, ROOT_PORT, ROOT_PORT, None],
    "port": [None, None, UPSTREAM, UPSTREAM, TO_PCI],
    "switch": [DOWNSTREAM],
    "pci": [None],
}
"""What is on a bus: bridges, or an endpoint (None)."""


def made(machine: Mapping[str, Spec]) -> list[Function]:
    return [function(name, **spec) for name, spec in machine.items()]


@st.composite
def cases(draw: st.DrawFn) -> tuple[dict[str, Spec], dict[str, str]]:
    machine = draw(machines())
    ends = [name for name, spec in machine.items() if "buses" not in spec]
    owner = {name: draw(st.sampled_from((*DOMAINS, DOMAINS[0]))) for name in ends if draw(st.integers(0, 4))}
    return machine, owner


def assignment(owner: Mapping[str, str]) -> dict[str, list[str]]:
    return {domain: sorted(name for name, of in owner.items() if of == domain) for domain in DOMAINS}


@given(cases())
@settings(max_examples=600, deadline=None)
def test_isolation_is_what_the_walk_finds(case: tuple[dict[str, Spec], dict[str, str]]) -> None:
    machine, owner = case
    found = told(checked(platform(made(machine)), assignment(owner)), errors=True)
    split = bool(found.keys() & {"partition.group-split", "partition.peer-to-peer"})
    event(f"split: {split}, by peers alone: {split and 'partition.group-split' not in found}")
    assert split == Reference(machine, owner).split()


@given(cases(), st.data())
@settings(max_examples=200, deadline=None)
def test_regions_and_lines_are_one_thing(case: tuple[dict[str, Spec], dict[str, str]], data: st.DataObject) -> None:
    machine, owner = case
    ends = sorted(name for name, spec in machine.items() if "buses" not in spec and "attributes" not in spec)
    if not ends:
        return
    some = st.lists(st.sampled_from(ends), min_size=1, max_size=4, unique=True)
    regions = data.draw(st.lists(some, max_size=3))
    lines: dict[int, list[str]] = {}
    for name in ends:
        lines.setdefault(data.draw(st.integers(16, 19)), []).append(name)
    found = told(checked(platform(made(machine), regions=regions, lines=lines), assignment(owner)), errors=True)
    whose = Reference(machine, owner).whose
    shared = [names for names in regions if {*map(whose, names)} != {"dom0"} and len({*map(whose, names)}) > 1]
    assert len(found.get("partition.reserved-memory-shared", ())) == len(shared)
    named = {f"pci:{name}" for names in regions for name in names if whose(name) != "dom0"}
    assert {*found.get("partition.reserved-memory", ())} == named
    expected = {f"gsi:{gsi}" for gsi, names in lines.items() if len({*map(whose, names)}) > 1}
    assert {*found.get("partition.gsi-shared", ())} == expected


@pytest.mark.parametrize("below", [True, False])
def test_two_cards_behind_a_switch_without_acs(below: bool) -> None:
    """The kernel keeps them in two groups, and a request of the one reaches the other all the same."""
    machine: dict[str, Spec] = {
        "0000:00:1c.0": {"express": ROOT_PORT, "buses": (1, 4), "acs": (ACS, 0), "multifunction": False},
        "0000:01:00.0": {"express": UPSTREAM, "buses": (2, 4), "acs": None, "multifunction": False},
        "0000:02:00.0": {"express": DOWNSTREAM, "buses": (3, 3), "acs": None, "multifunction": False},
        "0000:02:01.0": {"express": DOWNSTREAM, "buses": (4, 4), "acs": (ACS, 0), "multifunction": False},
        "0000:03:00.0": {"express": ENDPOINT, "acs": None, "multifunction": False},
        "0000:04:00.0": {"express": ENDPOINT, "acs": None, "multifunction": False},
    }
    given_ = {"red": ["0000:03:00.0" if below else "0000:04:00.0"]}
    said = checked(platform(made(machine)), given_)
    assert told(said) == {"partition.peer-to-peer": ["pci:0000:02:00.0"]}
    conflict = next(each for each in said.conflicts if each.is_error)
    assert "0000:02:00.0 has no ACS: requests of 0000:03:00.0" in conflict.finding.message
    assert set(conflict.domains) == {"dom0", "red"}
    assert len(conflict.ways) == 2
    assert told(checked(platform(made(machine)), {"red": ["0000:03:00.0", "0000:04:00.0"]})) == {}
