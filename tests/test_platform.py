# SPDX-License-Identifier: MIT
"""The whole machine as a value: shipped recordings, the recorded machines of the corpus, hostile bytes."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dom0kit
from dom0kit.address import Sbdf
from dom0kit.finding import RULES, Severity
from dom0kit.observation import observe
from dom0kit.part import Part
from dom0kit.platform import Platform
from dom0kit.serial import decode, encode, pieces
from dom0kit.source.in_memory import MemorySource
from dom0kit.source.interface import RawFunction, RawTable, SourceKind
from dom0kit.source.recognise import combine, open_source
from tests.corpus import CORPUS, acpi_folders, combined, lspci_dumps, needs_corpus

SHIPPED = sorted((Path(dom0kit.__file__).parent / "recordings").glob("*.d0k"))


@functools.cache
def shipped(name: str) -> Platform:
    return observe(open_source(Path(dom0kit.__file__).parent / "recordings" / f"{name}.d0k"))


def check(platform: Platform) -> None:
    """What holds for every machine, whatever it is like."""
    text = encode(platform)
    assert decode(text, Platform) == platform
    assert encode(decode(text, Platform)) == text
    assert b"".join(pieces(platform)) == encode(platform, indent=2) + b"\n"
    weights = [list(Severity).index(finding.severity) for finding in platform.findings]
    assert weights == sorted(weights, reverse=True)
    assert len(set(platform.findings)) == len(platform.findings)
    assert {finding.rule for finding in platform.findings} <= RULES.keys()
    assert list(platform.functions) == sorted(platform.functions, key=lambda function: function.sbdf)


@pytest.mark.parametrize("recording", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_recording_is_a_machine(recording: Path) -> None:
    platform = shipped(recording.stem)
    check(platform)
    assert platform.tables
    assert platform.functions
    assert platform.ioapics
    assert platform.processors is not None
    assert platform.processors.processors


@pytest.mark.parametrize("recording", SHIPPED, ids=lambda path: path.stem)
def test_the_same_recording_gives_the_same_json(recording: Path) -> None:
    assert encode(observe(open_source(recording))) == encode(shipped(recording.stem))


@pytest.mark.parametrize("part", Part, ids=lambda part: part.value)
def test_a_part_alone_has_the_same_facts_as_in_the_whole(part: Part) -> None:
    whole = shipped("qemu-q35")
    alone = observe(open_source(SHIPPED[0].with_name("qemu-q35.d0k")), only=part)
    assert alone.parts == (part,)
    told = [
        name
        for name in Platform.__struct_fields__
        if name not in ("version", "origin", "machine", "parts", "findings") and getattr(alone, name)
    ]
    assert told
    assert {name: getattr(alone, name) for name in told} == {name: getattr(whole, name) for name in told}
    assert set(alone.findings) <= set(whole.findings)


def test_the_parts_together_are_the_whole() -> None:
    whole = shipped("qemu-q35")
    source = open_source(SHIPPED[0].with_name("qemu-q35.d0k"))
    parts = [observe(source, only=part) for part in Part]
    assert {finding for part in parts for finding in part.findings} == set(whole.findings)
    for name in Platform.__struct_fields__:
        assert not getattr(whole, name) or any(getattr(part, name) for part in parts), name


def test_without_aml_no_namespace_and_no_route() -> None:
    platform = observe(open_source(SHIPPED[0].with_name("qemu-q35.d0k")), aml=False)
    check(platform)
    assert platform.namespace is None
    assert all(route.gsi is None for route in platform.routes)
    assert platform.functions == shipped("qemu-q35").functions


def test_qemu_q35_is_seen_as_it_was_made() -> None:
    """What the recipe put into the machine (recordings/virtual.py) is what is found in its recording."""
    platform = shipped("qemu-q35")
    assert platform.topology is not None
    assert [(root.segment, root.number) for root in platform.topology.roots] == [(0, 0), (0, 0x80), (0, 0xC0)]
    (virtual,) = platform.topology.virtual_functions
    assert str(virtual.physical) == "0000:01:00.0"
    assert [str(sbdf) for sbdf in virtual.present] == [f"0000:01:00.{number}" for number in range(1, 5)]
    assert platform.iommu is not None
    assert platform.iommu.interrupt_remapping
    assert platform.memory is not None
    assert {each.proximity_domain for each in platform.memory.ranges} == {0, 1}
    behind = next(route for route in platform.routes if str(route.sbdf) == "0000:07:03.0")
    assert behind.gsi is not None
    assert len(behind.steps) > 3


def test_x2apic_machine_has_what_no_recording_has() -> None:
    platform = shipped("synthetic-x2apic")
    assert platform.processors is not None
    assert 0x1FF in {each.apic_id for each in platform.processors.processors}
    assert {function.sbdf.segment for function in platform.functions} == {0, 1}
    assert [(each.id, each.gsi_base, each.in_madt) for each in platform.ioapics] == [
        (8, 0, True),
        (9, 24, True),
        (10, 48, False),
    ]
    assert platform.iommu is not None
    (region,) = platform.iommu.reserved
    assert [str(sbdf) for sbdf in region.functions] == ["0001:83:00.0"]
    ways = {str(route.sbdf): route for route in platform.routes}
    # INTA of 83:00.0, behind downstream port 82:01.0, upstream port 81:00.0 and root port 80:02.0: rotated by 0, 1, 0
    assert ways["0001:83:00.0"].gsi == 25
    # INTB of 84:00.0, behind 82:02.0: rotated by 0, 2, 0, which makes it INTD, the new IOAPIC's first pin
    assert ways["0001:84:00.0"].gsi == 48
    assert str(ways["0001:84:00.0"].ioapic_pin) == "10.0"
    assert ways["0000:01:00.0"].gsi == 16


def test_amd_machine_takes_the_last_word_on_each_iommu() -> None:
    platform = shipped("synthetic-amd")
    assert platform.iommu is not None
    assert [unit.block_type for unit in platform.iommu.units] == [0x40, 0x40]
    assert {(str(region.functions[0]), region.base) for region in platform.iommu.reserved} == {
        ("0000:01:00.0", 0x9F000000),
        ("0000:81:00.0", 0x9F200000),
    }
    ways = {str(route.sbdf): route for route in platform.routes}
    assert ways["0000:01:00.0"].gsi == 28  # the bridge's own _PRT
    assert ways["0000:81:00.0"].gsi == 56  # swizzled to the root bridge's
    assert str(ways["0000:81:00.0"].ioapic_pin) == "130.0"


@needs_corpus
@pytest.mark.slow
def test_every_recorded_machine_is_a_platform_without_aml() -> None:
    for path in (*acpi_folders(), *lspci_dumps()):
        check(observe(open_source(path), aml=False))


@needs_corpus
@pytest.mark.slow
def test_every_combined_machine_is_a_platform_with_aml() -> None:
    for name in combined():
        platform = observe(combine(acpi=CORPUS / "acpi" / name, pci=CORPUS / "pci" / f"{name}.lspci"))
        check(platform)
        assert platform.namespace is not None
        assert platform.namespace.devices, name


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(st.sampled_from(["APIC", "MCFG", "DMAR", "IVRS", "SRAT", "FACP", "XXXX"]), st.binary(max_size=96))
    ),
    st.lists(st.tuples(st.integers(0, 0xFFFF), st.binary(max_size=80)), max_size=6),
)
def test_any_bytes_are_a_platform(tables: list[tuple[str, bytes]], functions: list[tuple[int, bytes]]) -> None:
    source = MemorySource(
        "any bytes",
        SourceKind.COMBINED,
        tables=[
            RawTable(name, name.encode() + (36 + len(body)).to_bytes(4, "little") + bytes(28) + body)
            for name, body in tables
        ],
        functions=[RawFunction(Sbdf.from_devfn(0, at >> 8, at & 0xFF), config) for at, config in sorted(functions)],
    )
    check(observe(source, aml=False))
