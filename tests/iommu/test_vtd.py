# SPDX-License-Identifier: MIT
"""VT-d: scopes of any depth, who serves whom, reserved memory, interrupt sources."""

from __future__ import annotations

from collections.abc import Sequence

import hypothesis
import hypothesis.strategies as st

from dom0kit.acpi.tables.dmar import DeviceScope, PathHop, ScopeType
from dom0kit.acpi.tables.table import Table
from dom0kit.address import Sbdf
from dom0kit.finding import Finding
from dom0kit.iommu.facts import IommuFacts, IommuKind, ScopeTarget, SourceOfInterrupts, X2apic
from dom0kit.iommu.observe import observe_iommu
from dom0kit.iommu.vtd import resolve
from dom0kit.pci.function import Function
from dom0kit.pci.topology import build
from dom0kit.serial import decode, encode
from tests.iommu.tables import (
    BRIDGE,
    ENDPOINT,
    HPET,
    IOAPIC,
    NAMESPACE,
    andd,
    atsr,
    dmar,
    drhd,
    ivhd,
    ivrs,
    madt,
    rhsa,
    rmrr,
    satc,
    scope,
)
from tests.pci import machines
from tests.pci.machines import DOWNSTREAM, ROOT_PORT, UPSTREAM, function


def machine() -> list[Function]:
    """A root port with a switch of two ports, a graphics function, two USB controllers; another segment."""
    full = (machines.ACS, machines.ACS)
    return [
        function("00:02.0", class_code=0x030000),
        function("00:14.0", class_code=0x0C0330),
        function("00:1a.0", class_code=0x0C0320),
        function("00:1c.0", express=ROOT_PORT, buses=(5, 9), acs=full),
        function("05:00.0", express=UPSTREAM, buses=(6, 9)),
        function("06:08.0", express=DOWNSTREAM, buses=(7, 7), acs=full),
        function("06:09.0", express=DOWNSTREAM, buses=(8, 9), acs=full),
        function("07:00.0", express=machines.ENDPOINT),
        function("08:00.0", express=machines.ENDPOINT, sriov=(2, 1, 0x100, 1)),
        function("09:00.0", express=machines.ENDPOINT),
        function("0001:00:03.0"),
    ]


def observed(tables: Sequence[Table], functions: Sequence[Function]) -> tuple[IommuFacts, list[Finding]]:
    facts, findings = observe_iommu(tables, functions, build(functions)[0])
    assert decode(encode(facts), IommuFacts) == facts
    return facts, list(findings)


def rules(findings: Sequence[Finding]) -> list[str]:
    return [finding.rule for finding in findings]


def at(*addresses: str) -> tuple[Sbdf, ...]:
    return tuple(map(Sbdf.parse, addresses))


def test_a_path_of_several_steps_goes_through_the_bridges() -> None:
    table = dmar(
        drhd(0xFED90000, scope(ENDPOINT, "00:1c.0/00.0/09.0/00.0")),
        drhd(0xFED91000, include_all=True),
    )
    facts, findings = observed([table], machine())
    first, rest = facts.units
    # the virtual function 09:00.0 has its physical function's unit
    assert first.functions == at("08:00.0", "09:00.0")
    assert [(one.path, one.target, one.function, one.present) for one in first.scopes] == [
        ("00:1c.0/00.0/09.0/00.0", ScopeTarget.FUNCTION, Sbdf.parse("08:00.0"), True)
    ]
    assert Sbdf.parse("07:00.0") in rest.functions
    assert facts.unit_of(Sbdf.parse("08:00.0")) == first
    assert facts.unit_of(Sbdf.parse("0001:00:03.0")) is None
    assert facts.uncovered == at("0001:00:03.0")
    assert rules(findings) == ["iommu.function-unserved"]


def test_a_bridge_scope_serves_all_behind_and_an_inner_scope_counts_more() -> None:
    table = dmar(
        drhd(0x1000, scope(BRIDGE, "00:1c.0")),
        drhd(0x2000, scope(BRIDGE, "00:1c.0/00.0/08.0")),
        drhd(0x3000, scope(ENDPOINT, "00:02.0")),
        drhd(0x4000, include_all=True),
        drhd(0x5000, include_all=True, segment=1),
    )
    facts, findings = observed([table], machine())
    assert findings == []
    served = {unit.register_base: unit.functions for unit in facts.units}
    assert served[0x1000] == at("00:1c.0", "05:00.0", "06:09.0", "08:00.0", "09:00.0")
    assert served[0x2000] == at("06:08.0", "07:00.0")
    assert served[0x3000] == at("00:02.0")
    assert served[0x4000] == at("00:14.0", "00:1a.0")
    assert served[0x5000] == at("0001:00:03.0")
    assert facts.uncovered == ()


def test_scopes_that_fit_nothing() -> None:
    table = dmar(
        drhd(
            0x1000,
            scope(ENDPOINT, "00:1f.7"),
            scope(ENDPOINT, "00:14.0/00.0"),
            scope(ENDPOINT, "00:1c.0"),
            scope(BRIDGE, "00:02.0"),
        ),
        drhd(0x2000, scope(ENDPOINT, "00:02.0"), include_all=True),
        drhd(0x5000, include_all=True, segment=1),
    )
    facts, findings = observed([table], machine())
    assert rules(findings) == ["iommu.scope-absent", "iommu.scope-kind", "iommu.two-units"]
    assert findings[0].message == "segment 0000: 00:1f.7 (function), 00:14.0/00.0 (function)"
    assert findings[1].message == "segment 0000: 00:1c.0 (function), 00:02.0 (bridge)"
    assert [one.function for one in facts.units[0].scopes][:2] == [Sbdf.parse("00:1f.7"), None]
    # a scope for one function does not serve what is behind it
    assert Sbdf.parse("05:00.0") in facts.units[1].functions


def test_without_pci_nothing_is_said_to_be_absent() -> None:
    facts, findings = observed([dmar(drhd(0x1000, scope(ENDPOINT, "00:02.0"), scope(ENDPOINT, "00:1c.0/00.0")))], [])
    assert findings == []
    assert [(one.function, one.present) for one in facts.units[0].scopes] == [
        (Sbdf.parse("00:02.0"), None),
        (None, None),
    ]
    assert facts.uncovered == ()


def test_reserved_memory_pins_functions_and_is_told_where_groups_share_it() -> None:
    table = dmar(
        drhd(0x1000, include_all=True),
        drhd(0x5000, include_all=True, segment=1),
        rmrr(0x8000_0000, 0x8000_FFFF, scope(ENDPOINT, "00:14.0"), scope(ENDPOINT, "00:1a.0")),
        rmrr(0x9000_0000, 0x9FFF_FFFF, scope(ENDPOINT, "00:02.0")),
        rmrr(0xA000_0000, 0xA000_0FFF, scope(BRIDGE, "00:1c.0/00.0/09.0")),
    )
    facts, findings = observed([table], machine())
    assert rules(findings) == ["iommu.region-shared", "iommu.region-shared"]
    assert findings[0].message == "0x80000000 to 0x8000ffff: 0000:00:14.0 (group 1), 0000:00:1a.0 (group 2)"
    usb, graphics, card = facts.reserved
    assert (usb.functions, usb.groups) == (at("00:14.0", "00:1a.0"), (1, 2))
    assert (graphics.base, graphics.limit, graphics.functions) == (0x9000_0000, 0x9FFF_FFFF, at("00:02.0"))
    assert card.functions == at("06:09.0", "08:00.0", "09:00.0")


def test_the_table_itself() -> None:
    table = dmar(
        drhd(0x1000, scope(IOAPIC, "f0:1f.0", 2), scope(HPET, "f0:0f.0", 0), scope(NAMESPACE, "00:15.0", 1)),
        drhd(0x2000, scope(IOAPIC, "00:05.4", 1), include_all=True),
        rhsa(0x2000, 3),
        andd(1, "\\_SB.PCI0.I2C0"),
        atsr(scope(BRIDGE, "00:1c.0")),
        atsr(all_ports=True),
        satc(scope(ENDPOINT, "00:02.0")),
        satc(scope(ENDPOINT, "00:14.0"), required=False),
        flags=7,
        width=45,
    )
    facts, findings = observed([madt([2, 1]), table], machine()[:-1])
    assert findings == []
    assert (facts.kind, facts.address_bits) == (IommuKind.VT_D, 46)
    assert facts.interrupt_remapping
    assert facts.dma_opt_in
    assert facts.x2apic is X2apic.OPTED_OUT
    assert [unit.proximity_domain for unit in facts.units] == [None, 3]
    assert [(s.kind, s.id, str(s.requester), s.unit) for s in facts.interrupt_sources] == [
        (SourceOfInterrupts.IOAPIC, 1, "0000:00:05.4", 1),
        (SourceOfInterrupts.IOAPIC, 2, "0000:f0:1f.0", 0),
        (SourceOfInterrupts.HPET, 0, "0000:f0:0f.0", 0),
    ]
    assert [(d.name, str(d.requester), d.unit) for d in facts.namespace_devices] == [
        ("\\_SB.PCI0.I2C0", "0000:00:15.0", 0)
    ]
    assert [(a.all_ports, a.functions) for a in facts.ats_ports] == [(False, at("00:1c.0")), (True, ())]
    assert facts.atc_required == at("00:02.0")
    source = facts.ioapic_source(2)
    assert source is not None
    assert source.unit == 0
    assert facts.ioapic_source(7) is None


def test_ioapics_of_the_madt_and_of_the_units_are_compared() -> None:
    def found(flags: int, ids: Sequence[int], *scopes: bytes) -> list[str]:
        table = dmar(drhd(0x1000, *scopes, include_all=True), flags=flags)
        return rules(observed([madt(ids), table], [])[1])

    right = scope(IOAPIC, "f0:1f.0", 2)
    assert found(1, [2], right) == []
    assert found(1, [2, 3], right) == ["iommu.ioapic-unnamed"]
    assert found(0, [2, 3], right) == [], "without interrupt remapping nobody needs to know"
    assert found(1, [3], right) == ["iommu.ioapic-unknown", "iommu.ioapic-unnamed"]
    assert found(1, [2], right, scope(IOAPIC, "f0:1f.1", 2)) == ["iommu.ioapic-twice"]
    assert found(1, [2], right, right) == []


def test_too_many_units_are_cut() -> None:
    facts, findings = observed([dmar(*[drhd(n << 12) for n in range(1, 1200)])], [])
    assert rules(findings) == ["iommu.too-many"]
    assert len(facts.units) == 1024


def test_one_of_two_vendors_is_taken() -> None:
    facts, findings = observed([dmar(drhd(0x1000)), ivrs(ivhd(0x10, 2, 0x2000))], [])
    assert facts.kind is IommuKind.VT_D
    assert rules(findings) == ["iommu.both-tables"]


def test_no_table_no_iommu() -> None:
    assert observed([madt([1])], machine()) == (IommuFacts(), [])


# --- laws -------------------------------------------------------------------------------------------------------------


@st.composite
def trees(draw: st.DrawFn) -> tuple[list[Function], dict[Sbdf, list[tuple[int, int]]]]:
    """A tree of bridges, and of each function the path from bus 0 as it was drawn."""
    functions: dict[Sbdf, Function] = {}
    paths: dict[Sbdf, list[tuple[int, int]]] = {}
    buses: list[tuple[int, list[tuple[int, int]]]] = [(0, [])]
    for _ in range(draw(st.integers(1, 16))):
        bus, path = draw(st.sampled_from(buses))
        device, number = draw(st.integers(0, 31)), draw(st.integers(0, 7))
        sbdf = Sbdf(0, bus, device, number)
        if sbdf in functions:
            continue
        is_bridge = draw(st.booleans())
        secondary = len(buses)
        functions[sbdf] = function(str(sbdf), buses=(secondary, 255) if is_bridge else None)
        paths[sbdf] = [*path, (device, number)]
        if is_bridge:
            buses.append((secondary, paths[sbdf]))
    return list(functions.values()), paths


@hypothesis.given(trees())
@hypothesis.settings(max_examples=80, deadline=None)
def test_the_path_of_every_function_leads_to_it(tree: tuple[list[Function], dict[Sbdf, list[tuple[int, int]]]]) -> None:
    functions, paths = tree
    topology, _ = build(functions)
    for sbdf, path in paths.items():
        hops = tuple(PathHop(device=device, function=number) for device, number in path)
        one = DeviceScope(type=ScopeType.PCI_ENDPOINT, enumeration_id=0, start_bus=0, path=hops)
        assert resolve(0, one, topology) == sbdf


@hypothesis.given(trees(), st.data())
@hypothesis.settings(max_examples=80, deadline=None)
def test_every_function_has_the_unit_of_its_nearest_scope(
    tree: tuple[list[Function], dict[Sbdf, list[tuple[int, int]]]], data: st.DataObject
) -> None:
    functions, paths = tree
    chosen = data.draw(st.lists(st.sampled_from(sorted(paths)), unique=True, max_size=5))
    kinds = [BRIDGE if data.draw(st.booleans()) else ENDPOINT for _ in chosen]
    texts = {sbdf: "00:" + "/".join(f"{d:x}.{f}" for d, f in path) for sbdf, path in paths.items()}
    units = [
        drhd(0x1000 * (n + 1), scope(kind, texts[sbdf]))
        for n, (sbdf, kind) in enumerate(zip(chosen, kinds, strict=True))
    ]
    facts, _ = observed([dmar(*units, drhd(0x10_0000, include_all=True))], functions)
    for sbdf, path in paths.items():
        expected = len(chosen)
        if sbdf in chosen:
            expected = chosen.index(sbdf)
        else:
            above = [other for other, way in paths.items() if len(way) < len(path) and path[: len(way)] == way]
            named = [other for other in above if other in chosen and kinds[chosen.index(other)] == BRIDGE]
            if named:
                expected = chosen.index(max(named, key=lambda other: len(paths[other])))
        unit = facts.unit_of(sbdf)
        assert unit is not None
        assert unit.index == expected


@hypothesis.given(st.binary(max_size=400), trees())
@hypothesis.settings(max_examples=150, deadline=None)
def test_any_bytes_give_facts(body: bytes, tree: tuple[list[Function], dict[Sbdf, list[tuple[int, int]]]]) -> None:
    observed([dmar(body), madt([0, 1])], tree[0])
