# SPDX-License-Identifier: MIT
"""AMD-Vi: blocks of three types for one unit, ranges, aliases, special devices, memory blocks."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import pytest

from dom0kit.address import Sbdf
from dom0kit.iommu.facts import IdRange, IommuKind, RegionSource, SourceOfInterrupts, X2apic
from dom0kit.iommu.observe import isolation_groups
from dom0kit.pci.function import Function
from dom0kit.pci.topology import build
from tests.iommu.tables import (
    acpi_device,
    alias,
    alias_range,
    everything,
    id_range,
    ivhd,
    ivmd,
    ivrs,
    madt,
    select,
    special,
)
from tests.iommu.test_vtd import at, observed, rules
from tests.pci.machines import function


def machine() -> list[Function]:
    return [
        function("00:00.0", class_code=0x060000),
        function("00:00.2", class_code=0x080600),
        function("00:01.0", class_code=0x030000),
        function("00:08.0", buses=(1, 1)),
        function("00:14.0", class_code=0x0C0500),
        function("00:14.4", buses=(2, 2)),
        function("01:00.0"),
        function("02:05.0"),
    ]


UNIT = 0x0002
"""00:00.2."""


def test_the_block_of_the_highest_type_counts() -> None:
    table = ivrs(
        ivhd(0x10, UNIT, 0xFEB80000, select(0x08), features=1),
        ivhd(0x11, UNIT, 0xFEB80000, id_range(0x08, 0xFFFF), efr=4),
        ivhd(0x40, UNIT, 0xFEB80000, id_range(0x40, 0x1FF), acpi_device(0xA5, "AMDI0095", "\\_SB.GPIO"), efr=4),
    )
    facts, findings = observed([table], machine())
    (unit,) = facts.units
    assert (facts.kind, unit.block_type, unit.function, unit.register_base) == (
        IommuKind.AMD_VI,
        0x40,
        Sbdf.parse("00:00.2"),
        0xFEB80000,
    )
    assert unit.ranges == (IdRange(0x40, 0x1FF),)
    assert unit.functions == at("00:08.0", "00:14.0", "00:14.4", "01:00.0")
    assert [(device.name, str(device.requester)) for device in facts.namespace_devices] == [
        ("AMDI0095:\\_SB.GPIO", "0000:00:14.5")
    ]
    assert facts.uncovered == at("00:00.0", "00:00.2", "00:01.0", "02:05.0")
    assert rules(findings) == ["iommu.function-unserved"]
    assert findings[0].message == "0000:00:01.0 0000:02:05.0"
    assert facts.x2apic is X2apic.YES
    assert facts.interrupt_remapping
    assert facts.address_bits == 48


@pytest.mark.parametrize(("kind", "expected"), [(0x10, X2apic.NO), (0x11, X2apic.YES)])
def test_x2apic_is_in_the_features_or_in_the_efr(kind: int, expected: X2apic) -> None:
    assert observed([ivrs(ivhd(kind, UNIT, 0x1000, everything(), efr=4, features=2))], [])[0].x2apic is expected


def test_entries_for_all_functions_and_separate_units() -> None:
    table = ivrs(
        ivhd(0x10, UNIT, 0x1000, id_range(0x0100, 0x01FF)),
        ivhd(0x10, 0x0003, 0x2000, everything()),
        ivhd(0x10, UNIT, 0x3000, everything(), segment=1),
    )
    facts, findings = observed([table], machine())
    assert [unit.functions for unit in facts.units] == [
        at("01:00.0"),
        at("00:00.0", "00:01.0", "00:08.0", "00:14.0", "00:14.4", "02:05.0"),
        (),
    ]
    assert facts.uncovered == at("00:00.2"), "a unit is served by none"
    assert facts.units[1].include_all
    assert rules(findings) == ["iommu.unit-absent", "iommu.two-units", "iommu.unit-absent"]


def test_aliases_are_of_functions_present_and_the_last_counts() -> None:
    table = ivrs(
        ivhd(
            0x10,
            UNIT,
            0x1000,
            alias_range(0x0200, 0x02FF, 0x00A0),
            alias(0x0228, 0x00A4),
            alias(0x0300, 0x0100),
            alias(0x00A0, 0x00A0),
            alias(0x0040, 0x0008),
        )
    )
    facts, _ = observed([table], machine())
    (unit,) = facts.units
    assert [(str(one.function), str(one.carries)) for one in unit.aliases] == [
        ("0000:00:08.0", "0000:00:01.0"),
        ("0000:02:05.0", "0000:00:14.4"),
    ]
    found = isolation_groups(facts, machine(), build(machine())[0])
    assert at("00:01.0", "00:08.0", "01:00.0") in [group.functions for group in found]


def test_special_devices_are_the_ioapics_and_the_hpet() -> None:
    table = ivrs(
        ivhd(
            0x10,
            UNIT,
            0x1000,
            everything(),
            special(2, 0, 0xA0),
            special(1, 34, 0x01),
            special(1, 33, 0xA0),
            special(9, 1, 1),
        )
    )
    facts, findings = observed([madt([33, 34]), table], machine())
    assert findings == []
    assert [(one.kind, one.id, str(one.requester)) for one in facts.interrupt_sources] == [
        (SourceOfInterrupts.IOAPIC, 33, "0000:00:14.0"),
        (SourceOfInterrupts.IOAPIC, 34, "0000:00:00.1"),
        (SourceOfInterrupts.HPET, 0, "0000:00:14.0"),
    ]
    assert rules(observed([madt([33, 35]), table], machine())[1]) == ["iommu.ioapic-unknown", "iommu.ioapic-unnamed"]


def test_memory_blocks() -> None:
    table = ivrs(
        ivhd(0x10, UNIT, 0x1000, everything()),
        ivmd(0x20, 0, 0, 0x1000_0000, 0x1000),
        ivmd(0x21, 0x0008, 0, 0x2000_0000, 0x2000, flags=3),
        ivmd(0x22, 0x00A0, 0x01FF, 0x3000_0000, 0x3000, flags=8),
    )
    facts, findings = observed([table], machine())
    whole, one, some = facts.reserved
    assert {region.source for region in facts.reserved} == {RegionSource.IVMD}
    assert whole.all_functions
    assert len(whole.functions) == len(machine())
    assert (one.functions, one.base, one.limit) == (at("00:01.0"), 0x2000_0000, 0x2000_1FFF)
    assert (one.read, one.write, one.exclusion) == (True, False, False)
    assert (some.functions, some.exclusion) == (at("00:14.0", "00:14.4", "01:00.0"), True)
    # what is for all functions says nothing of any two
    assert rules(findings) == ["iommu.region-shared"]
    assert findings[0].where == "ivmd:0x30000000"


def test_a_range_without_its_end_serves_nobody() -> None:
    facts, _ = observed([ivrs(ivhd(0x10, UNIT, 0x1000, id_range(0, 0xFFFF)[:4], select(0x08)))], machine())
    assert facts.units[0].functions == at("00:01.0")
    start, end = id_range(0, 0xFFFF)[:4], id_range(0, 0xFFFF)[4:]
    facts, _ = observed([ivrs(ivhd(0x10, UNIT, 0x1000, start, select(0x08), end))], machine())
    assert facts.units[0].functions == at("00:01.0")
    facts, _ = observed([ivrs(ivhd(0x10, UNIT, 0x1000, start, bytes(4), end))], machine())
    assert len(facts.units[0].functions) == len(machine()) - 1


def test_ranges_are_merged() -> None:
    facts, _ = observed([ivrs(ivhd(0x10, UNIT, 0x1000, select(0x10), id_range(0, 7), id_range(8, 15), select(9)))], [])
    assert facts.units[0].ranges == (IdRange(0, 16),)


def test_an_alias_on_another_bus_joins_nobody() -> None:
    facts, _ = observed([ivrs(ivhd(0x10, UNIT, 0x1000, everything(), alias(0x0008, 0x0100)))], machine())
    assert facts.units[0].aliases
    assert at("00:01.0") in [group.functions for group in isolation_groups(facts, machine(), build(machine())[0])]


entries = st.one_of(
    st.builds(select, st.integers(0, 0x300)),
    st.builds(id_range, st.integers(0, 0x300), st.integers(0, 0x300)),
    st.builds(alias, st.integers(0, 0x300), st.integers(0, 0x300)),
    st.builds(alias_range, st.integers(0, 0x300), st.integers(0, 0x300), st.integers(0, 0x300)),
    st.builds(special, st.integers(0, 3), st.integers(0, 255), st.integers(0, 0xFFFF)),
    st.just(everything()),
    st.just(bytes(4)),
)


@hypothesis.given(st.lists(entries, max_size=12))
@hypothesis.settings(max_examples=150, deadline=None)
def test_coverage_and_aliases_are_those_of_reading_entry_by_entry(written: list[bytes]) -> None:
    served: set[int] = set()
    carried: dict[int, int] = {}
    for entry in written:
        kind, first = entry[0], int.from_bytes(entry[1:3], "little")
        if kind == 1:
            served |= set(range(0x400))
        elif kind == 2:
            served.add(first)
        elif kind in (0x03, 0x42, 0x43):
            last = first if kind == 0x42 else int.from_bytes(entry[-3:-1], "little")
            served |= set(range(first, last + 1))
            if kind != 0x03:
                carried |= dict.fromkeys(range(first, last + 1), int.from_bytes(entry[5:7], "little"))
    facts, _ = observed([ivrs(ivhd(0x10, UNIT, 0x1000, *written))], machine())
    (unit,) = facts.units
    assert set(unit.functions) == {one.sbdf for one in machine() if one.sbdf.requester_id in served - {UNIT}}
    assert {one.function.requester_id: one.carries.requester_id for one in unit.aliases} == {
        id: carried[id] for id in (one.sbdf.requester_id for one in machine()) if id in carried and carried[id] != id
    }


@hypothesis.given(st.binary(max_size=400))
@hypothesis.settings(max_examples=150, deadline=None)
def test_any_bytes_give_facts(body: bytes) -> None:
    observed([ivrs(body), madt([0, 1])], machine())
    observed([ivrs(ivhd(0x40, UNIT, 0x1000, body)), madt([0, 1])], machine())
