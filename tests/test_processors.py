# SPDX-License-Identifier: MIT
"""Processors from tables and namespaces made here, and of every recorded machine."""

from __future__ import annotations

import re
import struct

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from dom0kit import serial
from dom0kit.acpi.namespace import AmlDevice, Namespace, NamespaceObject
from dom0kit.acpi.tables import Table
from dom0kit.processors import (
    Processors,
    ProcessorState,
    count_cpus,
    observe,
    parse_cpuinfo,
)
from dom0kit.source.in_memory import MemorySource
from dom0kit.source.interface import Source, SourceKind
from tests.corpus import CORPUS, acpi_folders, needs_corpus
from tests.ioapic.tables import fadt, local_apic, local_x2apic, madt, recorded, table

ENABLED, HOT, UNSPECIFIED, DISABLED = (
    ProcessorState.ENABLED,
    ProcessorState.HOT_PLUGGABLE,
    ProcessorState.UNSPECIFIED,
    ProcessorState.DISABLED,
)


def affinity(apic_id: int, domain: int, enabled: int = 1) -> bytes:
    return struct.pack("<BBBBIB3sI", 0, 16, domain & 0xFF, apic_id, enabled, 0, (domain >> 8).to_bytes(3, "little"), 0)


def x2apic_affinity(apic_id: int, domain: int, enabled: int = 1) -> bytes:
    return struct.pack("<BBHIIIII", 2, 24, 0, domain, apic_id, enabled, 0, 0)


def srat(*entries: bytes, revision: int = 3) -> Table:
    return table("SRAT", struct.pack("<IQ", 1, 0) + b"".join(entries), revision=revision)


def kernel(**files: str) -> Source:
    paths = {"cpuinfo": "proc/cpuinfo"}
    found = {paths.get(name, f"sys/devices/system/cpu/{name}"): text.encode() for name, text in files.items()}
    return MemorySource("kernel", SourceKind.RECORDING, files=found)


def seen(
    *tables: Table, namespace: Namespace | None = None, source: Source | None = None
) -> tuple[Processors, list[str]]:
    processors, findings = observe(tables, namespace, source)
    assert serial.decode(serial.encode(processors), Processors) == processors
    return processors, [finding.rule for finding in findings]


def ids(processors: Processors) -> list[tuple[int, ProcessorState]]:
    return [(each.apic_id, each.state) for each in processors.processors]


def test_what_the_flags_say() -> None:
    entries = (local_apic(0, 0), local_apic(1, 2, 0), local_apic(2, 4, 2), local_x2apic(3, 300))
    new, rules = seen(madt(*entries))
    assert ids(new) == [(0, ENABLED), (2, DISABLED), (4, HOT), (300, ENABLED)]
    assert (new.enabled, rules, new.local_apic_address) == (2, [], 0xFEE00000)
    assert [each.x2apic for each in new.processors] == [False, False, False, True]
    old, _ = seen(madt(*entries, revision=4))
    assert ids(old) == [(0, ENABLED), (2, UNSPECIFIED), (4, HOT), (300, ENABLED)]
    by_fadt, _ = seen(madt(*entries, revision=4), fadt(9, revision=6, minor=3))
    assert ids(by_fadt)[1] == (2, DISABLED)
    by_fadt, _ = seen(madt(*entries, revision=4), fadt(9, revision=6, minor=2))
    assert ids(by_fadt)[1] == (2, UNSPECIFIED)


def test_the_address_override_counts() -> None:
    processors, _ = seen(madt(local_apic(0, 0), struct.pack("<BBHQ", 5, 12, 0, 0x1_FEE0_0000)))
    assert processors.local_apic_address == 0x1_FEE0_0000
    assert seen()[0].local_apic_address is None


def test_the_broadcast_id_is_no_processor() -> None:
    processors, rules = seen(madt(local_apic(0, 0), local_apic(1, 255, 0), local_x2apic(2, 0xFFFFFFFF, 0)))
    assert (ids(processors), rules) == ([(0, ENABLED)], [])
    processors, rules = seen(madt(local_apic(0, 0), local_apic(1, 255), local_x2apic(2, 0xFFFFFFFF)))
    assert (ids(processors), rules) == ([(0, ENABLED)], ["cpu.invalid-apic-id"] * 2)
    assert ids(seen(madt(local_x2apic(2, 255)))[0]) == [(255, ENABLED)]


def test_duplicates_and_placeholders() -> None:
    processors, rules = seen(madt(local_apic(0, 0), local_apic(1, 0)))
    assert (len(processors.processors), rules) == (1, ["cpu.duplicate-apic-id"])
    processors, rules = seen(madt(local_apic(0, 0), local_apic(0, 1)))
    assert (len(processors.processors), rules) == (2, ["cpu.duplicate-uid"])
    processors, rules = seen(madt(local_apic(0, 0), local_apic(1, 0, 0), local_apic(2, 7, 0), local_apic(3, 7, 0)))
    assert (ids(processors), rules) == ([(0, ENABLED), (7, DISABLED)], [])


def test_x2apic_entries_with_small_ids_count_only_alone() -> None:
    processors, rules = seen(madt(local_apic(0, 0), local_x2apic(1, 1), local_x2apic(2, 256)))
    assert (ids(processors), rules) == ([(0, ENABLED), (256, ENABLED)], ["cpu.x2apic-small-id"])
    processors, rules = seen(madt(local_apic(0, 255, 0), local_x2apic(1, 1)))
    assert (ids(processors), rules) == ([(1, ENABLED)], ["cpu.x2apic-small-id"])


def test_odd_flags_and_none_enabled() -> None:
    processors, rules = seen(madt(local_apic(0, 0, 3)))
    assert (ids(processors), rules) == ([(0, ENABLED)], ["cpu.both-flags"])
    assert seen(madt(local_apic(0, 0, 0)))[1] == ["cpu.none-enabled"]
    assert seen(madt())[1] == []


def test_proximity_domains() -> None:
    cpus = madt(local_apic(0, 0), local_apic(1, 2), local_x2apic(2, 300))
    domains = srat(affinity(0, 0x01020304), affinity(2, 5), x2apic_affinity(300, 7), affinity(9, 9, enabled=0))
    processors, rules = seen(cpus, domains)
    assert ([each.proximity_domain for each in processors.processors], rules) == ([0x01020304, 5, 7], [])
    assert seen(cpus, srat(affinity(0, 0x01020304), revision=2))[0].processors[0].proximity_domain == 0x01020304
    old, _ = seen(cpus, srat(affinity(0, 0x01020304), revision=1))
    assert old.processors[0].proximity_domain == 4
    assert seen(cpus, srat(affinity(0, 1), affinity(2, 1)))[1] == ["cpu.srat-missing"]
    assert seen(cpus, srat())[1] == []
    assert seen(madt(local_apic(0, 0)), srat(affinity(0, 1), affinity(8, 1)))[1] == ["cpu.srat-unknown"]
    twice, rules = seen(madt(local_apic(0, 0)), srat(affinity(0, 1), affinity(0, 2)))
    assert (twice.processors[0].proximity_domain, rules) == (2, ["cpu.srat-twice"])


def test_processor_devices_of_the_namespace() -> None:
    node = AmlDevice(path="\\_SB.NOD1", hid="ACPI0004", pxm=1)
    by_uid = AmlDevice(path="\\_SB.NOD1.CPU0", hid="ACPI0007", uid=7)
    by_mat = AmlDevice(path="\\_SB.CPU1", processor=True, mat=local_apic(1, 2).hex(), pxm=3)
    added = AmlDevice(path="\\_SB.CPU2", hid="ACPI0007", mat=local_x2apic(2, 400, 2).hex())
    others = (
        AmlDevice(path="\\_SB.CPU3", hid="ACPI0007", mat=local_apic(9, 255, 0).hex()),
        AmlDevice(path="\\_SB.CPU4", hid="ACPI0007", mat="no hexadecimal text"),
        AmlDevice(path="\\_SB.CPU5", hid="ACPI0007", mat="ff"),
        AmlDevice(path="\\_SB.CPU6", hid="PNP0C02", uid=7),
    )
    namespace = Namespace(devices=(*others, node, by_uid, by_mat, added))
    processors, rules = seen(madt(local_apic(7, 0), local_apic(1, 2)), namespace=namespace)
    assert rules == []
    assert [(each.apic_id, each.aml_path, each.in_madt) for each in processors.processors] == [
        (0, "\\_SB.NOD1.CPU0", True),
        (2, "\\_SB.CPU1", True),
        (400, "\\_SB.CPU2", False),
    ]
    assert [each.proximity_domain for each in processors.processors] == [1, 3, None]
    assert processors.processors[2].state is HOT
    zero = msgspec.structs.replace(node, pxm=0)
    placed, _ = seen(madt(local_apic(7, 0)), namespace=Namespace(devices=(zero, by_uid)))
    assert placed.processors[0].proximity_domain == 0
    _, rules = seen(madt(local_apic(7, 0)), srat(affinity(0, 2)), namespace=Namespace(devices=(node, by_uid)))
    assert rules == ["cpu.pxm-differs"]


def test_a_processor_object_has_its_uid_in_its_declaration() -> None:
    namespace = Namespace(
        objects=(NamespaceObject("\\_PR.CPU0", "Processor", "ID 0A Len 06 Addr 0000000000000410"),),
        devices=(AmlDevice(path="\\_PR.CPU0", processor=True), AmlDevice(path="\\_PR.CPU1", processor=True)),
    )
    processors, _ = seen(madt(local_apic(1, 0), local_apic(10, 2)), namespace=namespace)
    assert [each.aml_path for each in processors.processors] == [None, "\\_PR.CPU0"]


CPUINFO = """processor\t: 0
vendor_id\t: GenuineIntel
apicid\t\t: 0
initial apicid\t: 0

processor\t: 1
apicid\t\t: 2
"""


def test_against_the_kernel() -> None:
    cpus = madt(local_apic(0, 0), local_apic(1, 2), local_apic(2, 4, 2))
    good = kernel(cpuinfo=CPUINFO, present="0-1\n", online="0-1\n", possible="0-2\n")
    processors, rules = seen(cpus, source=good)
    assert rules == []
    assert [each.cpu for each in processors.processors] == [0, 1, None]
    assert (processors.present, processors.online, processors.possible) == ("0-1", "0-1", "0-2")
    assert seen(cpus, source=kernel(present="0"))[1] == ["cpu.kernel-differs"]
    assert seen(cpus, source=kernel(possible="0"))[1] == ["cpu.kernel-differs"]
    assert seen(madt(local_apic(0, 0)), source=kernel(cpuinfo=CPUINFO))[1] == ["cpu.kernel-differs"]
    assert seen(source=good)[1] == []


def test_cpu_lists() -> None:
    assert count_cpus("0-3,8\n") == 5
    assert count_cpus("0") == 1
    assert count_cpus("") == 0
    for text in ("3-0", "a", "0-99999999999", "0,,1", "0-"):
        assert count_cpus(text) is None


@given(st.text())
def test_any_text_of_the_kernel(text: str) -> None:
    parse_cpuinfo(text)
    count_cpus(text)
    seen(madt(local_apic(0, 0)), source=kernel(cpuinfo=text, present=text, online=text, possible=text))


@given(st.binary(max_size=300), st.binary(max_size=300), st.binary(max_size=40))
def test_any_bytes_for_entries(cpus: bytes, domains: bytes, mat: bytes) -> None:
    namespace = Namespace(devices=(AmlDevice(path="\\CPU0", processor=True, uid=0, mat=mat.hex()),))
    processors, _ = seen(madt(cpus), srat(domains), namespace=namespace)
    apic_ids = [each.apic_id for each in processors.processors]
    assert len(apic_ids) == len(set(apic_ids))


# --- recorded machines ------------------------------------------------------------------------------------------------


@needs_corpus
def test_every_recorded_machine_has_enabled_processors() -> None:
    for folder in acpi_folders():
        tables = [table for pattern in ("APIC*", "SRAT*", "FACP*") for table in recorded(folder, f"{pattern}.dat")]
        processors, rules = seen(*tables)
        if processors.processors:
            assert processors.enabled or "cpu.none-enabled" in rules, folder


@needs_corpus
def test_against_the_corpus_own_count() -> None:
    """MANIFEST.tsv counts local APIC entries of each MADT, and the enabled ones, by other means: `cpus:16/8en`."""
    compared = 0
    for line in (CORPUS / "MANIFEST.tsv").read_text().splitlines():
        match = re.search(r"cpus:(\d+)/(\d+)en", line)
        folder = CORPUS / "acpi" / line.split("\t")[0]
        tables = recorded(folder, "APIC*.dat")
        if match is None or not tables or any(table.name != "APIC" for table in tables):
            continue
        processors, _ = seen(*tables)
        if not processors.processors:
            continue  # Arm and RISC-V
        narrow = [each for each in processors.processors if not each.x2apic and each.state is ENABLED]
        assert len(narrow) == int(match[2]), folder
        compared += 1
    assert compared > 200
