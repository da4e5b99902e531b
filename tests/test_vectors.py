# SPDX-License-Identifier: MIT
"""Vectors: limits, handing out against a slow model, shares that fit and are fair, the budget of a machine."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0kit.address import Gsi, Sbdf
from dom0kit.interrupts import routing_table
from dom0kit.iommu.facts import IommuFacts, IommuKind
from dom0kit.plan import Backend
from dom0kit.vectors import (
    CORE,
    XEN,
    Cpu,
    Demand,
    Place,
    Policy,
    Strategy,
    VectorLimits,
    Vectors,
    assign,
    cpus_of,
    demands_of,
    is_remapped,
    limits,
    linux,
    shares,
)
from tests.synthetic import Device, made

# --- limits -----------------------------------------------------------------------------------------------------------


def usable(limits: VectorLimits, *, boot_cpu: bool = False) -> set[int]:
    mask = limits.usable(boot_cpu=boot_cpu)
    return {vector for vector in range(256) if mask >> vector & 1}


def test_how_many_there_are() -> None:
    assert (XEN.total, linux("6.1.0-56").total, linux("6.12.5").total, CORE.total) == (208, 204, 203, 208)
    assert usable(linux("6.1.0-56-amd64")) == set(range(0x21, 0xEC)) - {0x80}
    assert usable(linux("6.8")) == set(range(0x20, 0xEC)) - {0x80}
    assert usable(linux("6.10-rc1")) == usable(linux(None)) == usable(linux("next")) == set(range(0x20, 0xEB)) - {0x80}
    assert usable(XEN) == set(range(0x20, 0xF0)) - {0x22, 0x80, 0x82}
    assert usable(XEN, boot_cpu=True) == set(range(0x30, 0xF0)) - {0x80, 0x82}
    assert usable(CORE, boot_cpu=True) == set(range(0x20, 0xF0)) - {0x80}
    assert [linux(release).owner for release in ("6.1.0-56", None)] == ["Linux 6.1", "a current Linux"]


# --- policies ---------------------------------------------------------------------------------------------------------


def test_policies() -> None:
    assert Policy.parse("spread") == Policy()
    assert Policy.parse("node").strategy is Strategy.NODE
    assert Policy.parse("cpu=8,0-2").cpus == (0, 1, 2, 8)
    assert [str(Policy.parse(text)) for text in ("node", "cpu=3-4,1")] == ["node", "cpu=1,3,4"]
    cpus = [Cpu(0, 0, None, 5), Cpu(1, 2, None, None)]
    assert Policy.parse("cpu=5").allowed(cpus) == cpus[:1]
    assert Policy.parse("cpu=1").allowed(cpus) == cpus[1:], "without Linux's number, the one of the MADT's order"
    with pytest.raises(ValueError, match="no processor 0"):
        Policy.parse("cpu=0,5").allowed(cpus)


@pytest.mark.parametrize("text", ["", "cpu", "cpu=", "cpu=-1", "cpu=3-1", "cpu=1,,2", "cpu=0x1", "nodes", "cpu=999999"])
def test_what_is_no_policy(text: str) -> None:
    with pytest.raises(ValueError, match=r"no polic|no processor"):
        Policy.parse(text)


# --- handing out ------------------------------------------------------------------------------------------------------

NODES = st.sampled_from([None, 0, 1, 2])
CPUS = st.lists(NODES, min_size=1, max_size=6).map(
    lambda nodes: [Cpu(index, 2 * index, node, None) for index, node in enumerate(nodes)]
)
FEW = VectorLimits(owner="nobody", first=0x20, last=0x47, reserved=(0x25, 0x40), reserved_on_boot_cpu=(0x30, 0x31))
"""38 of each processor, 36 of the first."""
LIMITS = st.sampled_from([FEW, VectorLimits(owner="nobody", first=0x33, last=0x36, reserved=())])


class Slow:
    """What `Vectors` should be, by looking at everything each time."""

    def __init__(self, cpus: list[Cpu], limits: VectorLimits) -> None:
        self.free = {cpu: usable(limits, boot_cpu=cpu.index == 0) for cpu in cpus}
        self.load = dict.fromkeys(cpus, 0)

    def runs(self, cpu: Cpu, count: int) -> list[int]:
        return [first for first in range(0, 256, count) if all(first + more in self.free[cpu] for more in range(count))]

    def allowed(self, node: int | None, count: int) -> tuple[set[Cpu], int]:
        """Processors that may be next: those of the node while it has some, of these the least loaded."""
        having = {cpu for cpu in self.free if self.runs(cpu, count)}
        near = {cpu for cpu in having if cpu.node == node} if node is not None else set()
        members = near or having
        least = min((self.load[cpu] for cpu in members), default=0)
        return {cpu for cpu in members if self.load[cpu] == least}, least

    def take(self, places: list[Place]) -> None:
        for place in places:
            self.free[place.cpu].remove(place.vector)
            self.load[place.cpu] += 1


@given(
    CPUS, LIMITS, st.lists(st.tuples(st.integers(0, 12), st.sampled_from([0, 1, 2, 4, 8, 16, 32]), NODES), max_size=20)
)
def test_handed_out_as_by_the_slow_model(
    cpus: list[Cpu], limits: VectorLimits, asked: list[tuple[int, int, int | None]]
) -> None:
    fast, slow = Vectors(cpus, limits), Slow(cpus, limits)
    for count, run, node in asked:
        if run:
            places = fast.take_run(run, node)
            allowed, _ = slow.allowed(node, run)
            if not allowed:
                assert places == []
                continue
            assert {place.cpu for place in places} <= allowed
            assert len({place.cpu for place in places}) == 1
            assert [place.vector for place in places] == list(range(places[0].vector, places[0].vector + run))
            assert places[0].vector % run == 0
            slow.take(places)
        else:
            got = fast.take(count, node)
            for place in got:
                allowed, _ = slow.allowed(node, 1)
                assert place.cpu in allowed
                slow.take([place])
            assert len(got) == count or not any(slow.free.values())
        assert fast.free == sum(map(len, slow.free.values()))


def test_what_somebody_has_is_not_handed_out() -> None:
    cpus = [Cpu(4, 9, None, None), Cpu(7, 3, None, None)]
    taken = [(4, 0x33), (4, 0x33), (7, 0x34), (5, 0x35), (7, 0x80)]
    vectors = Vectors(cpus, VectorLimits(owner="", first=0x33, last=0x35, reserved=()), taken)
    got = vectors.take(100)
    assert {(place.cpu.index, place.vector) for place in got} == {(4, 0x34), (4, 0x35), (7, 0x33), (7, 0x35)}


def test_the_next_vector_is_of_another_priority_class() -> None:
    vectors = [place.vector for place in Vectors([Cpu(0, 0, None, None)], CORE).take(20)]
    assert len({vector >> 4 for vector in vectors[:13]}) == 13
    assert vectors[0] == 0xEF


# --- shares and assignments -------------------------------------------------------------------------------------------

DEMANDS = st.lists(
    st.builds(
        lambda wants, run, node: Demand(
            function=Sbdf(0, 0, 0, 0), wants=1 << min(wants.bit_length() - 1, 5) if run else wants, run=run, node=node
        ),
        st.integers(1, 70),
        st.booleans(),
        NODES,
    )
    | st.integers(0, 5).map(lambda gsi: Demand(gsi=Gsi(gsi), wants=1)),
    max_size=12,
)


def level(demand: Demand, most: int) -> int:
    """Slow: what a function gets where everybody gets `most` at most."""
    return max((n for n in range(min(demand.wants, most) + 1) if not demand.run or n & n - 1 == 0), default=0)


@given(DEMANDS, st.integers(0, 300))
def test_shares_fit_and_are_fair(demands: list[Demand], capacity: int) -> None:
    given_ = shares(demands, capacity)
    assert sum(given_) <= capacity
    assert all(0 <= share <= demand.wants for share, demand in zip(given_, demands, strict=True))
    lines = sum(demand.function is None for demand in demands)
    assert sum(s for s, d in zip(given_, demands, strict=True) if d.function is None) == min(lines, capacity)
    functions = [(demand, share) for demand, share in zip(demands, given_, strict=True) if demand.function is not None]
    if sum(demand.wants for demand in demands) <= capacity:
        assert given_ == [demand.wants for demand in demands]
        return
    room = max(capacity - lines, 0)
    common = 0  # the most that everybody can have alike, found by trying
    while common < 70 and sum(level(demand, common + 1) for demand, _ in functions) <= room:
        common += 1
    for demand, share in functions:
        assert level(demand, common) <= share <= level(demand, common + 1), "the small in full, the others alike"
        assert not demand.run or share & share - 1 == 0
    if functions and not any(demand.run for demand, _ in functions):
        assert sum(given_) == capacity, "nothing is left over while somebody wants more"


@given(DEMANDS, CPUS, LIMITS, st.sampled_from([Strategy.SPREAD, Strategy.NODE]), st.integers(0, 10))
def test_an_assignment_fits(
    demands: list[Demand], cpus: list[Cpu], limits: VectorLimits, strategy: Strategy, keep: int
) -> None:
    """Invariant 2: no two of a (CPU, vector) pair; and all that fits is given."""
    vectors = Vectors(cpus, limits)
    capacity = vectors.free
    grants = assign(demands, vectors, strategy, keep)
    assert [grant.demand for grant in grants] == demands
    pairs = [place for grant in grants for place in grant.places]
    assert len(set(pairs)) == len(pairs) <= max(capacity - keep, 0)
    assert all(place.vector in usable(limits, boot_cpu=place.cpu.index == 0) for place in pairs)
    wanted = shares(demands, max(capacity - keep, 0))
    for grant, share in zip(grants, wanted, strict=True):
        if grant.demand.run:
            count = len(grant.places)
            assert count <= share
            assert len({place.cpu for place in grant.places}) <= 1
            if count:
                assert grant.places[0].vector % count == 0
        elif not any(demand.run for demand in demands):
            assert len(grant.places) == share
    if strategy is Strategy.SPREAD and not any(demand.run for demand in demands):
        load = [sum(place.cpu == cpu for place in pairs) for cpu in cpus]
        room = [len(usable(limits, boot_cpu=cpu.index == 0)) for cpu in cpus]
        assert all(most <= least + 1 or least == has for most in load for least, has in zip(load, room, strict=True))


def test_a_function_stays_on_its_node_while_there_is_room() -> None:
    cpus = [Cpu(0, 0, 0, None), Cpu(1, 1, 1, None)]
    limits = VectorLimits(owner="", first=0x30, last=0x33, reserved=())
    one, two = (Demand(function=Sbdf(0, 0, n, 0), wants=3, node=1) for n in (1, 2))
    grants = assign([one, two], Vectors(cpus, limits), Strategy.NODE)
    assert [[place.cpu.index for place in grant.places] for grant in grants] == [[1, 1, 1], [1, 0, 0]]
    unknown = assign([Demand(function=Sbdf(0, 0, 1, 0), wants=2, node=7)], Vectors(cpus, limits), Strategy.NODE)
    assert len(unknown[0].places) == 2


def test_who_needs_how_many() -> None:
    devices = [
        Device(Sbdf(0, 1, 0, 0), 20, msi=8, msix=5, node=1),
        Device(Sbdf(0, 1, 1, 0), 20, msi=8),
        Device(Sbdf(0, 1, 2, 0), 20, msi=1),
        Device(Sbdf(0, 1, 3, 0), 21),
    ]
    platform = made(devices, requested={9: "acpi"}, sci=9).platform
    table = routing_table(platform)[0]
    nodes = {function.sbdf: function.numa_node for function in platform.functions}
    wanted = demands_of(table, nodes, remapped=False)
    assert [(each.name, each.wants, each.run) for each in wanted] == [
        ("GSI 9", 1, False),
        ("GSI 21", 1, False),
        ("0000:01:00.0", 5, False),
        ("0000:01:01.0", 8, True),
        ("0000:01:02.0", 1, False),
    ]
    assert wanted[2].node == 1
    assert not any(each.run for each in demands_of(table, nodes, remapped=True))


@pytest.mark.parametrize(
    ("chip", "tables", "remapped"),
    [
        ("IR-PCI-MSI", False, True),
        ("PCI-MSI", True, False),
        ("PCI-MSIX-0000:01:00.0", True, False),
        ("xen-pirq", True, True),
        ("xen-pirq", False, False),
    ],
)
def test_whether_interrupts_are_remapped(chip: str, tables: bool, remapped: bool) -> None:
    platform = made([], files={"sys/kernel/irq/40/chip_name": chip}).platform
    facts = IommuFacts(kind=IommuKind.VT_D, interrupt_remapping=tables)
    assert is_remapped(msgspec.structs.replace(platform, iommu=facts)) == remapped


def test_whose_vectors_they_are() -> None:
    platform = made([], release="6.12.1").platform
    assert limits(platform, Backend.XEN) is XEN
    assert [limits(platform, each) for each in (Backend.LIBRARY, Backend.LOOPBACK, Backend.HV_CORE)] == [CORE] * 3
    assert limits(platform, Backend.HV_CORE, intercept=False) == limits(platform, Backend.LINUX) == linux("6.12")


def test_nodes_have_linuxs_numbers() -> None:
    """Firmware may number its domains as it likes: Linux counts those that it meets."""
    platform = made([], apic_ids=[0, 2, 4, 6], nodes={6: 9, 0: 0x10, 2: 9, 4: 3}).platform
    assert platform.processors is not None
    assert [each.proximity_domain for each in platform.processors.processors] == [0x10, 9, 3, 9]
    assert [cpu.node for cpu in cpus_of(platform)] == [1, 0, 2, 0]
    assert [cpu.node for cpu in cpus_of(made([]).platform)] == [None, None]
