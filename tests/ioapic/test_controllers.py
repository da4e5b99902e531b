# SPDX-License-Identifier: MIT
"""IOAPICs and their GSIs, from tables made here, and against what Linux printed on recorded machines."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0kit import serial
from dom0kit.acpi.tables import Table
from dom0kit.acpi.tables.madt import LocalApic, LocalX2apic
from dom0kit.address import IoapicPin, Sbdf
from dom0kit.finding import Finding
from dom0kit.ioapic.controllers import (
    MAX_IOAPICS,
    REACHABLE_PINS,
    Ioapic,
    IoapicDevice,
    IoapicSet,
    PinsFrom,
    madts,
    observe,
)
from dom0kit.ioapic.kernel_view import KernelIoapic, KernelView, parse_boot_log
from dom0kit.pci.function import Bar, BarKind, Function
from tests.corpus import CORPUS, acpi_folders, logs, needs_corpus
from tests.ioapic.tables import ioapic, local_apic, madt, override, recorded


def seen(*tables: Table, **options: Any) -> tuple[tuple[Ioapic, ...], list[str]]:
    ioapics, findings = observe(tables, **options)
    assert serial.decode(serial.encode(ioapics), IoapicSet) == ioapics
    return ioapics.ioapics, [finding.rule for finding in findings]


def test_the_madt_names_them_and_bases_tell_the_pins() -> None:
    ioapics, rules = seen(madt(local_apic(0, 0), ioapic(8, 0xFEC00000, 0), ioapic(9, 0xFEC80000, 32)))
    assert rules == []
    assert ioapics == (
        Ioapic(8, 0xFEC00000, 0, 32, PinsFrom.NEXT_BASE, None, True, None, None),
        Ioapic(9, 0xFEC80000, 32, 24, PinsFrom.ASSUMED, None, True, None, None),
    )
    assert ioapics[1].gsi_last == 55


def test_used_gsis_tell_of_more_pins_than_24() -> None:
    ioapics, _ = seen(madt(ioapic(2, 0xFEC00000, 0)), gsis=[5, 23, 71, 0x10000])
    assert (ioapics[0].pins, ioapics[0].pins_from) == (72, PinsFrom.HIGHEST_GSI)
    ioapics, _ = seen(madt(ioapic(2, 0xFEC00000, 0), override(9, 40, 0xF)))
    assert (ioapics[0].pins, ioapics[0].pins_from) == (41, PinsFrom.HIGHEST_GSI)
    ioapics, _ = seen(madt(ioapic(2, 0xFEC00000, 0)), gsis=[23, 120])
    assert (ioapics[0].pins, ioapics[0].pins_from) == (24, PinsFrom.ASSUMED)
    ioapics, _ = seen(madt(ioapic(2, 0xFEC00000, 0), ioapic(3, 0xFEC01000, 200)), gsis=[30, 199, 224])
    assert [(each.pins, each.pins_from) for each in ioapics] == [
        (31, PinsFrom.HIGHEST_GSI),
        (25, PinsFrom.HIGHEST_GSI),
    ]


def test_the_boot_log_and_the_version_register_know_better() -> None:
    tables = madt(ioapic(2, 0xFEC00000, 0), ioapic(3, 0xFEC01000, 24))
    kernel = KernelView((), (KernelIoapic(1, 0xFEC01000, 3, 32, 24, 55),))
    ioapics, _ = seen(tables, kernel=kernel)
    assert [(each.pins, each.pins_from, each.version) for each in ioapics] == [
        (24, PinsFrom.NEXT_BASE, None),
        (32, PinsFrom.BOOT_LOG, 32),
    ]
    ioapics, rules = seen(tables, kernel=kernel, version_registers={0xFEC01000: 0x00EF0020, 0xFEC00000: 0x00170011})
    assert [(each.pins, each.pins_from, each.version) for each in ioapics] == [
        (24, PinsFrom.VERSION_REGISTER, 0x11),
        (REACHABLE_PINS, PinsFrom.VERSION_REGISTER, 0x20),
    ]
    assert rules == ["ioapic.too-many-pins"]
    assert not ioapics[0].pins_from.inferred
    one_pin = KernelView((), (KernelIoapic(1, 0xFEC01000, 3, 32, 24, 24),))
    assert (seen(tables, kernel=one_pin)[0][1].pins, seen(tables, kernel=one_pin)[1]) == (1, [])
    only_address = KernelView((), (KernelIoapic(0, 0xFEC00000, None, None, None, None),))
    assert seen(tables, kernel=only_address)[0][0].pins_from.inferred


def test_overlaps_and_gaps() -> None:
    tables = madt(ioapic(2, 0xFEC00000, 0), ioapic(3, 0xFEC01000, 24))
    assert seen(tables, version_registers={0xFEC00000: 0x00770020})[1] == ["ioapic.gsi-overlap"]
    assert seen(tables, version_registers={0xFEC00000: 0x000F0020})[1] == ["ioapic.gsi-gap"]
    assert seen(tables, version_registers={0xFEC00000: 0x00160020})[1] == ["ioapic.gsi-gap"]
    assert seen(tables, version_registers={0xFEC00000: 0x00170020})[1] == []
    assert seen(madt(ioapic(2, 0xFEC00000, 0), ioapic(3, 0xFEC01000, 0)))[1] == ["ioapic.gsi-overlap"]


def test_duplicates_and_bad_addresses() -> None:
    assert seen(madt(ioapic(2, 0xFEC00000, 0), ioapic(2, 0xFEC01000, 24)))[1] == ["ioapic.duplicate-id"]
    ioapics, rules = seen(madt(ioapic(2, 0xFEC00000, 0), ioapic(3, 0xFEC00000, 24)))
    assert rules == ["ioapic.duplicate-address"]
    assert [each.id for each in ioapics] == [2]
    ioapics, rules = seen(madt(local_apic(0, 0), ioapic(2, 0, 0)))
    assert rules == ["ioapic.bad-address", "ioapic.none"]
    assert ioapics == ()
    ioapics, rules = seen(madt(ioapic(2, 0xFEC00008, 0)))
    assert rules == ["ioapic.bad-address"]
    assert [each.id for each in ioapics] == [2]


def test_no_ioapic_matters_only_with_local_apics() -> None:
    assert seen(madt())[1] == []
    assert seen()[1] == []
    assert seen(madt(local_apic(0, 0)))[1] == ["ioapic.none"]


def test_the_first_madt_counts() -> None:
    first, same, other = (
        madt(ioapic(1, 0xFEC00000, 0), name="APIC1"),
        madt(local_apic(0, 0), ioapic(1, 0xFEC00000, 0), name="APIC2"),
        madt(ioapic(2, 0xFEC00000, 0), name="APIC3"),
    )
    assert seen(first, same)[1] == []
    ioapics, rules = seen(first, same, other)
    assert rules == ["ioapic.second-madt"]
    assert [each.id for each in ioapics] == [1]
    assert seen(first, other)[1] == ["ioapic.second-madt"]


def test_too_many() -> None:
    many = madt(*(ioapic(n & 0xFF, 0xFEC00000 + 0x1000 * n, 8 * n) for n in range(MAX_IOAPICS + 1)))
    ioapics, rules = seen(many)
    assert len(ioapics) == MAX_IOAPICS
    assert "ioapic.too-many" in rules
    one_more = IoapicDevice("\\_SB.APIC", 0xD0000000, 5000, 3, None)
    full = madt(*(ioapic(n, 0xFEC00000 + 0x1000 * n, 8 * n) for n in range(MAX_IOAPICS)))
    ioapics, rules = seen(full, devices=[one_more])
    assert (len(ioapics), rules) == (MAX_IOAPICS, ["ioapic.too-many"])


def test_devices_of_the_namespace() -> None:
    tables = madt(ioapic(2, 0xFEC00000, 0), ioapic(3, 0xFEC01000, 24))
    here = Sbdf.parse("0000:00:05.4")
    same = IoapicDevice("\\_SB.PCI0.APIC", 0xFEC01000, 24, None, here)
    ioapics, rules = seen(tables, devices=[same])
    assert rules == []
    assert (ioapics[1].aml_path, ioapics[1].function, ioapics[1].in_madt) == ("\\_SB.PCI0.APIC", here, True)
    by_base = IoapicDevice("\\_SB.PCI0.APIC", None, 24, None, None)
    assert seen(tables, devices=[by_base])[0][1].aml_path == "\\_SB.PCI0.APIC"
    differs = IoapicDevice("\\_SB.PCI0.APIC", 0xFEC01000, 48, None, None)
    ioapics, rules = seen(tables, devices=[differs])
    assert (ioapics[1].gsi_base, rules) == (24, ["ioapic.aml-differs"])
    added = IoapicDevice("\\_SB.PCI1.APIC", 0xFEC40000, 48, 9, None)
    ioapics, rules = seen(tables, devices=[added])
    assert rules == []
    assert ioapics[2] == Ioapic(9, 0xFEC40000, 48, 24, PinsFrom.ASSUMED, None, False, "\\_SB.PCI1.APIC", None)
    clash = IoapicDevice("\\_SB.PCI1.APIC", 0xFEC40000, 48, 3, None)
    assert seen(tables, devices=[clash])[1] == ["ioapic.duplicate-id"]
    for device in (
        IoapicDevice("\\A", 0xFEC40000, None, 9, None),
        IoapicDevice("\\A", 0xFEC40000, 48, None, None),
        IoapicDevice("\\A", None, 48, 9, None),
        IoapicDevice("\\A", 0, 48, 9, None),
    ):
        ioapics, rules = seen(tables, devices=[device])
        assert (len(ioapics), rules) == (2, ["ioapic.incomplete-device"])


def function(sbdf: str, class_code: int, address: int, kind: BarKind = BarKind.MEMORY32) -> Function:
    return Function(
        sbdf=Sbdf.parse(sbdf),
        config_bytes=256,
        vendor=0x8086,
        device=0x1234,
        class_code=class_code,
        revision=0,
        subsystem_vendor=None,
        subsystem=None,
        header_type=0,
        multifunction=False,
        command=2,
        status=0,
        cache_line_size=0,
        latency_timer=0,
        bist=0,
        interrupt_pin=None,
        interrupt_line=0,
        min_grant=0,
        max_latency=0,
        bars=(Bar(0, kind, address, False, None),),
        rom=None,
        bridge=None,
        capabilities=(),
    )


def test_the_pci_function_that_it_is() -> None:
    tables = madt(ioapic(2, 0xFEC00000, 0), ioapic(3, 0xFEC01000, 24))
    ioapics, _ = seen(
        tables,
        functions=[
            function("0000:00:05.0", 0x080000, 0xFEC01000),
            function("0000:00:05.1", 0x080020, 0xFEC01000, BarKind.IO),
            function("0000:00:05.4", 0x080020, 0xFEC01000),
            function("0000:80:05.4", 0x080020, 0xFEC01000),
            function("0000:80:05.5", 0x080010, 0),
        ],
    )
    assert [each.function for each in ioapics] == [None, Sbdf.parse("0000:00:05.4")]


BASES = st.lists(st.tuples(st.integers(1, 0xFFFFFFF).map(lambda n: n << 4), st.integers(0, 2000)), max_size=6)


@given(BASES, st.sets(st.integers(0, 3000), max_size=8), st.integers(0, 3200))
def test_a_gsi_is_the_pin_of_the_first_that_has_it(bases: list[tuple[int, int]], used: set[int], gsi: int) -> None:
    entries = [ioapic(number, address, base) for number, (address, base) in enumerate(bases)]
    ioapics, _ = observe([madt(*entries)], gsis=used)
    owners = [each for each in ioapics.ioapics if each.gsi_base <= gsi <= each.gsi_last]
    pin = ioapics.pin(gsi)
    if not owners:
        assert pin is None
    else:
        assert pin == IoapicPin(owners[0].id, gsi - owners[0].gsi_base)
        assert ioapics.gsi(pin) == gsi
    for each in ioapics.ioapics:
        assert 1 <= each.pins <= REACHABLE_PINS
        assert ioapics.gsi(IoapicPin(each.id, each.pins)) is None
    assert ioapics.gsi(IoapicPin(99, 0)) is None


@given(st.binary(max_size=200))
def test_any_bytes_for_entries(data: bytes) -> None:
    tables = [madt(data)]
    ioapics, findings = observe(tables)
    assert all(isinstance(finding, Finding) for finding in findings)
    assert serial.decode(serial.encode(ioapics), IoapicSet) == ioapics


# --- recorded machines ------------------------------------------------------------------------------------------------


@needs_corpus
def test_every_recorded_machine_with_local_apics_has_its_ioapics() -> None:
    machines = 0
    for folder in acpi_folders():
        tables = recorded(folder, "APIC*.dat")
        ioapics, findings = observe(tables)
        rules = {finding.rule for finding in findings}
        x86 = any(
            isinstance(entry, LocalApic | LocalX2apic) for _, first in madts(tables)[:1] for entry in first.entries
        )
        if x86:
            machines += 1
            assert ioapics.ioapics or "ioapic.none" in rules, folder
            assert ioapics.ioapics == () or ioapics.pin(0) == IoapicPin(ioapics.ioapics[0].id, 0), folder
        else:
            assert not ioapics.ioapics, folder
    assert machines > 300


PINS_ONLY_IN_THE_REGISTER = {
    # Intel's chipsets since Sunrise Point have an IOAPIC of 120 pins, and no table says so. Checked by hand in the logs
    # of these two: "IOAPIC[0]: apic_id 2, version 32, address 0xfec00000, GSI 0-119", and nothing above GSI 23 is named
    # in their MADT.
    "combo-gpd-pocket2": 120,
    "combo-lenovo-ideapad-320-14isk": 120,
}


@needs_corpus
def test_against_what_linux_printed() -> None:
    """Id, address and GSI base of the MADT alone; pins inferred, and as the log says."""
    compared = 0
    for log in logs("dmesg"):
        folder = CORPUS / "acpi" / log.stem
        lines = parse_boot_log(log.read_text(errors="replace"))
        if not folder.is_dir() or not lines:
            continue
        tables = recorded(folder, "APIC*.dat")
        alone, _ = observe(tables)
        with_log, _ = observe(tables, kernel=KernelView((), lines))
        assert [(each.id, each.address, each.gsi_base) for each in alone.ioapics] == [
            (line.id, line.address, line.gsi_first) for line in lines
        ], log
        assert [(each.gsi_last, each.version) for each in with_log.ioapics] == [
            (line.gsi_last, line.version) for line in lines
        ], log
        for each, line in zip(alone.ioapics, lines, strict=True):
            compared += 1
            if each.gsi_last != line.gsi_last:
                assert PINS_ONLY_IN_THE_REGISTER[log.stem] == line.gsi_last - line.gsi_first + 1, log  # type: ignore[operator]
    assert compared >= 6


@pytest.mark.parametrize("text", [kind.value for kind in PinsFrom])
def test_every_origin_says_whether_it_is_inferred(text: str) -> None:
    assert PinsFrom(text).inferred is (text not in ("version register", "kernel log"))
