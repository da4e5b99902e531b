# SPDX-License-Identifier: MIT
"""What can be given away, and searches against trying everything that is possible; on random and on real machines."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from dom0kit.address import Sbdf
from dom0kit.iommu.facts import IommuFacts
from dom0kit.observation import observe
from dom0kit.partition.check import case_of, judge
from dom0kit.partition.document import read
from dom0kit.partition.ground import Ground
from dom0kit.partition.model import Domain, Partition, Policy
from dom0kit.partition.rules import Case
from dom0kit.partition.starting import partition_text, starting_point
from dom0kit.partition.suggest import JOINING, Units, Want, errors, meet, suggest
from dom0kit.pci.function import Function
from dom0kit.source.recognise import combine, open_source
from tests.corpus import CORPUS, combined, lspci_dumps, needs_corpus
from tests.partition.machines import platform
from tests.partition.test_isolation_law import Spec, machines, made
from tests.pci.machines import ACS, DOWNSTREAM, ENDPOINT, ROOT_PORT, UPSTREAM, function


def judged(ground: Ground, domains: Sequence[Sequence[Sbdf]], ignored: frozenset[str] = frozenset()) -> list[str]:
    """The rules that these domains break."""
    partition = Partition(domain=tuple(Domain(name=f"d{n}") for n in range(len(domains))))
    case = Case(ground, partition, [[(sbdf, None) for sbdf in of] for of in domains])
    return [each.finding.rule for each in errors(judge(case), ignored)]


def holds(ground: Ground) -> None:
    """All givable units can be given to a domain each at once, and no part of a unit of several can be given alone."""
    found = suggest(ground)
    given_ = [unit.functions for unit in found.givable]
    assert judged(ground, given_) == []
    members = [sbdf for unit in (*found.givable, *found.blocked) for sbdf in unit.functions]
    assert len(members) == len(set(members))
    for unit in found.blocked:
        assert judged(ground, [unit.functions])
    for functions in given_[:40]:
        for size in range(1, len(functions)) if len(functions) < 5 else (1,):
            assert judged(ground, [functions[:size]]), functions
    text = starting_point(ground, found)
    assert read(text.encode()).partition.domain[0].device == ()
    whole = partition_text(ground, [(f"d{n}", of) for n, of in enumerate(given_)])
    case = case_of(ground, read(whole.encode()))
    if not case.troubles:  # two functions of an orphaned bus can have one way
        assert [tuple(of) for of in case.of] == given_
        assert errors(judge(case)) == []


@st.composite
def grounds(draw: st.DrawFn) -> Ground:
    machine: dict[str, Spec] = draw(machines())
    ends = sorted(name for name, spec in machine.items() if "buses" not in spec and "attributes" not in spec)
    some = st.lists(st.sampled_from(ends), min_size=1, max_size=3, unique=True) if ends else st.just([])
    lines: dict[int, list[str]] = {}
    for name in ends:
        lines.setdefault(draw(st.integers(16, 20)), []).append(name)
    regions = [region for region in draw(st.lists(some, max_size=2)) if region]
    return Ground(platform(made(machine), lines=lines, regions=regions))


@given(grounds())
@settings(max_examples=150, deadline=None)
def test_units_can_be_given_each_to_a_domain_of_its_own(ground: Ground) -> None:
    holds(ground)


def test_what_a_switch_without_acs_joins_goes_together() -> None:
    switch = [
        function("0000:00:1c.0", express=ROOT_PORT, buses=(1, 4), acs=(ACS, ACS)),
        function("0000:01:00.0", express=UPSTREAM, buses=(2, 4)),
        function("0000:02:00.0", express=DOWNSTREAM, buses=(3, 3)),
        function("0000:02:01.0", express=DOWNSTREAM, buses=(4, 4), acs=(ACS, ACS)),
        function("0000:03:00.0", express=ENDPOINT, flr=True),
        function("0000:04:00.0", express=ENDPOINT, flr=True),
    ]
    ground = Ground(platform(switch))
    both = (Sbdf.parse("0000:03:00.0"), Sbdf.parse("0000:04:00.0"))
    assert [unit.functions for unit in suggest(ground).givable] == [both]
    answer = meet(ground, [Want.parse("domain=a: sbdf=03:00.0"), Want.parse("domain=b: sbdf=04:00.0")])
    assert answer.in_the_way == (("partition.peer-to-peer",),)


def test_without_an_iommu_only_to_trusted_domains() -> None:
    ground = Ground(platform([function("0000:00:02.0", express=9, flr=True)], iommu=IommuFacts()))
    assert suggest(ground).givable == ()
    trusted = Policy(require_iommu=False)
    assert [unit.functions for unit in suggest(ground, trusted).givable] == [(Sbdf.parse("0000:00:02.0"),)]
    want = [Want.parse("domain=a: class=network")]
    assert meet(ground, want).in_the_way == (("partition.no-iommu",),)
    answer = meet(ground, want, trusted)
    text = partition_text(ground, answer.domains, require_iommu=False)
    assert errors(judge(case_of(ground, read(text.encode())))) == []


# --- wants against everything that is possible ------------------------------------------------------------------------


def possible(ground: Ground, wants: Sequence[Want], ignored: frozenset[str]) -> bool:
    """Every function of the machine is tried with every owner."""
    names = sorted({want.domain for want in wants})
    ends = [sbdf for sbdf in sorted(ground.functions) if ground.sends(sbdf)]
    for owners in itertools.product((None, *names), repeat=len(ends)):
        domains = {name: [sbdf for sbdf, of in zip(ends, owners, strict=True) if of == name] for name in names}
        if _meets(ground, wants, domains) and not judged(ground, list(domains.values()), ignored):
            return True
    return False


def _meets(ground: Ground, wants: Sequence[Want], domains: dict[str, list[Sbdf]]) -> bool:
    slots = [want for want in wants for _ in range(want.count)]

    def place(at: int, used: frozenset[Sbdf]) -> bool:
        if at == len(slots):
            return True
        return any(
            place(at + 1, used | {sbdf})
            for sbdf in domains[slots[at].domain]
            if sbdf not in used and slots[at].fits(ground.finder.identity(sbdf), sbdf, ground)
        )

    return place(0, frozenset())


KINDS = {"network": 0x020000, "storage": 0x010802}


@st.composite
def searches(draw: st.DrawFn) -> tuple[Ground, list[Want]]:
    """Up to five cards of two kinds on a few ports, some sharing a group, a region or a line."""
    count = draw(st.integers(1, 5))
    cards: list[Function] = []
    names = []
    for n in range(count):
        name = f"0000:00:{draw(st.integers(2, 3)):02x}.{n}"
        kind = draw(st.sampled_from(list(KINDS)))
        acs = draw(st.sampled_from([(ACS, ACS), (ACS, ACS), None]))
        cards.append(function(name, class_code=KINDS[kind], flr=True, express=9, multifunction=True, acs=acs))
        names.append(name)
    some = st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True)
    lines: dict[int, list[str]] = {}
    for name in names:
        lines.setdefault(draw(st.integers(16, 19)), []).append(name)
    ground = Ground(platform(cards, lines=lines, regions=draw(st.lists(some, max_size=1))))
    wants = [
        Want.parse(f"domain={name}: class={draw(st.sampled_from(list(KINDS)))} count={draw(st.integers(1, 2))}")
        for name in draw(st.lists(st.sampled_from(["red", "blue"]), min_size=1, max_size=3))
    ]
    return ground, wants


@given(searches())
@settings(max_examples=120, deadline=None)
def test_a_search_finds_what_is_possible_or_what_is_in_the_way(search: tuple[Ground, list[Want]]) -> None:
    ground, wants = search
    answer = meet(ground, wants)
    assert not answer.gave_up
    assert bool(answer.domains) == possible(ground, wants, frozenset())
    if answer.domains:
        event("found")
        domains = {name: list(of) for name, of in answer.domains}
        assert _meets(ground, wants, domains)
        assert judged(ground, list(domains.values())) == []
        return
    every = frozenset((*JOINING, *(each.finding.rule for unit in suggest(ground).blocked for each in unit.conflicts)))
    if answer.short:
        event("too few")
        assert not possible(ground, wants, every)
        return
    event(f"in the way: {len(answer.in_the_way)} sets")
    passed: frozenset[str] = frozenset()
    for rules in answer.in_the_way:
        assert not possible(ground, wants, every - set(rules))
        for dropped in rules:
            assert possible(ground, wants, every - (set(rules) - {dropped}))
        passed |= set(rules)
    assert possible(ground, wants, passed)


def test_a_search_prefers_what_disturbs_least() -> None:
    """A virtual function, not the physical one that has it; a card that can be reset, not one that cannot."""
    port = function("0000:00:1c.0", express=ROOT_PORT, buses=(1, 1), acs=(ACS, ACS))
    cards = [
        function("0000:00:02.0", express=9),
        function("0000:00:03.0", express=9, flr=True),
        function("0000:01:00.0", express=ENDPOINT, flr=True, sriov=(1, 1, 1, 1)),
        function("0000:01:00.1", express=ENDPOINT, flr=True, attributes={"physfn": "0000:01:00.0"}),
    ]
    ground = Ground(platform([port, *cards]))
    answer = meet(ground, [Want.parse("domain=a: class=network count=2")])
    assert answer.domains == (("a", (Sbdf.parse("0000:00:03.0"), Sbdf.parse("0000:01:00.1"))),)


def test_many_wants_that_cannot_all_be_met_are_refused_at_once() -> None:
    """Nine cards for ten domains: the search must not try all the ways to give nine away."""
    cards = [function(f"0000:00:{n:02x}.0", express=9, flr=True) for n in range(2, 11)]
    answer = meet(Ground(platform(cards)), [Want.parse(f"domain=d{n}: class=network") for n in range(10)])
    assert len(answer.short) == 10
    assert not answer.gave_up


# --- real machines ----------------------------------------------------------------------------------------------------


@needs_corpus
@pytest.mark.slow
@pytest.mark.parametrize("name", combined())
def test_every_combined_machine(name: str) -> None:
    source = combine(acpi=str(CORPUS / "acpi" / name), pci=str(CORPUS / "pci" / f"{name}.lspci"))
    holds(Ground(observe(source)))


@needs_corpus
@pytest.mark.slow
def test_every_text_of_lspci() -> None:
    count = 0
    for path in lspci_dumps():
        holds(Ground(observe(open_source(str(path)), aml=False)))
        count += 1
    assert count > 40


def shipped() -> Iterator[str]:
    import dom0kit

    for name in ("qemu-q35", "qemu-i440fx", "synthetic-amd", "synthetic-x2apic"):
        yield f"{dom0kit.__path__[0]}/recordings/{name}.d0k"


@pytest.mark.parametrize("path", list(shipped()), ids=lambda path: path.rpartition("/")[2])
def test_every_shipped_machine(path: str) -> None:
    ground = Ground(observe(open_source(path)))
    holds(ground)
    units = Units(ground)
    for sbdf in ground.functions:
        assert sbdf in units.of(sbdf)
