# SPDX-License-Identifier: MIT
"""Memory ranges, distances and the firmware's map, from tables made here and of every recorded machine."""

from __future__ import annotations

import struct
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dom0kit import serial
from dom0kit.acpi.namespace import AmlDevice, Namespace
from dom0kit.acpi.resources import AddressRange, FixedMemory, Memory, RangeKind
from dom0kit.acpi.tables import Table
from dom0kit.memory import MapFrom, MapRange, MemoryDevice, MemoryFacts, MemoryRange, observe, parse_iomem
from dom0kit.source.in_memory import MemorySource
from dom0kit.source.interface import Source, SourceKind
from tests.corpus import acpi_folders, needs_corpus
from tests.ioapic.tables import recorded, table

MIB = 1 << 20
HOT, NON_VOLATILE = 2, 4


def memory(base: int, length: int, domain: int = 0, flags: int = 1) -> bytes:
    return struct.pack("<BBIHQQIIQ", 1, 40, domain, 0, base, length, 0, flags, 0)


def srat(*entries: bytes, revision: int = 3) -> Table:
    return table("SRAT", struct.pack("<IQ", 1, 0) + b"".join(entries), revision=revision)


def slit(size: int, distances: bytes) -> Table:
    return table("SLIT", struct.pack("<Q", size) + distances, revision=1)


def files(texts: dict[str, str]) -> Source:
    return MemorySource("files", SourceKind.RECORDING, files={path: text.encode() for path, text in texts.items()})


def memmap(*ranges: tuple[str, str, str]) -> Source:
    texts = {}
    for number, range in enumerate(ranges):
        for name, text in zip(("start", "end", "type"), range, strict=True):
            texts[f"sys/firmware/memmap/{number}/{name}"] = text + "\n"
    return files(texts)


def seen(*tables: Table, **options: Any) -> tuple[MemoryFacts, list[str]]:
    facts, findings = observe(tables, **options)
    assert serial.decode(serial.encode(facts), MemoryFacts) == facts
    return facts, [finding.rule for finding in findings]


def test_ranges_of_the_srat() -> None:
    facts, rules = seen(
        srat(
            memory(4096 * MIB, 1024 * MIB, 1, 1 | HOT | NON_VOLATILE),
            memory(0, 640 << 10),
            memory(MIB, 2047 * MIB, 0x0100),
            memory(9999 * MIB, MIB, 3, 0),
        )
    )
    assert rules == []
    assert facts.ranges == (
        MemoryRange(0, 640 << 10, 0, False, False, False),
        MemoryRange(MIB, 2047 * MIB, 0x100, False, False, False),
        MemoryRange(4096 * MIB, 1024 * MIB, 1, True, True, False),
    )
    assert facts.ranges[0].end == 0x9FFFF
    assert seen(srat(memory(0, MIB, 0x0102), revision=2))[0].ranges[0].proximity_domain == 0x0102
    old, _ = seen(srat(memory(0, MIB, 0x0102), revision=1))
    assert old.ranges[0].proximity_domain == 2


def test_odd_ranges_of_the_srat() -> None:
    facts, rules = seen(srat(memory(0, 0), memory(MIB, 0)))
    assert (facts.ranges, rules) == ((), ["memory.srat-empty"])
    facts, rules = seen(srat(memory(2**64 - MIB, 2 * MIB)))
    assert (facts.ranges, rules) == ((), ["memory.beyond-64-bits"])
    facts, rules = seen(srat(memory(2**64 - MIB, MIB)))
    assert (facts.ranges[0].end, rules) == (2**64 - 1, [])
    assert (
        seen(srat(memory(0, 4 * MIB), memory(MIB, MIB, 1), memory(3 * MIB, MIB, 1)))[1] == ["memory.srat-overlap"] * 2
    )
    assert seen(srat(memory(0, MIB), memory(MIB, MIB, 1)))[1] == []
    assert seen(srat(memory(0, MIB + 1), memory(MIB, MIB, 1)))[1] == ["memory.srat-overlap"]


def test_distances() -> None:
    facts, rules = seen(srat(memory(0, MIB, 1)), slit(2, bytes((10, 21, 31, 10))))
    assert (facts.distances, rules) == (((10, 21), (31, 10)), [])
    assert seen(srat(memory(0, MIB, 2)), slit(2, bytes((10, 21, 31, 10))))[1] == ["memory.slit-size"]
    assert seen(slit(3, bytes((10, 21, 31, 10))))[0].distances == ()
    assert seen(slit(2**40, b""))[0].distances == ()


def test_the_map_that_firmware_gave() -> None:
    facts, rules = seen(
        source=memmap(
            ("0x100000", "0x7fffffff", "System RAM"),
            ("0x0", "0x9ffff", "System RAM"),
            ("0x80000000", "0x8000ffff", "ACPI Tables"),
        )
    )
    assert rules == []
    assert facts.map_from is MapFrom.MEMMAP
    assert facts.map == (
        MapRange(0, 0x9FFFF, "System RAM"),
        MapRange(0x100000, 0x7FFFFFFF, "System RAM"),
        MapRange(0x80000000, 0x8000FFFF, "ACPI Tables"),
    )
    assert facts.of_type("System RAM") == 0xA0000 + 0x7FF00000
    _, rules = seen(source=memmap(("0x0", "0xfff", "System RAM"), ("0x800", "0x1fff", "Reserved")))
    assert rules == ["memory.map-overlap"]
    _, rules = seen(source=memmap(("0x0", "0xfff", "Reserved"), ("0x800", "0x1fff", "Reserved")))
    assert rules == []
    facts, rules = seen(source=memmap(("0x1000", "0xfff", "Reserved"), ("what", "", ""), ("0", "1" + "0" * 16, "x")))
    assert (facts.map, facts.map_from, rules) == ((), None, ["memory.map-odd"] * 3)


IOMEM = """00000000-00000fff : Reserved
00001000-0009fbff : System RAM
000a0000-000bffff : PCI Bus 0000:00
00100000-bfffffff : System RAM
  01000000-022090c7 : Kernel code
fec00000-fec003ff : IOAPIC 0
  100000000-1ffffffff : Persistent Memory
"""


def test_the_map_as_the_kernel_shows_it() -> None:
    facts, rules = seen(source=files({"proc/iomem": IOMEM}))
    assert (facts.map_from, rules) == (MapFrom.IOMEM, [])
    assert [(range.start, range.type) for range in facts.map] == [
        (0, "Reserved"),
        (0x1000, "System RAM"),
        (0x100000, "System RAM"),
        (0x100000000, "Persistent Memory"),
    ]
    assert parse_iomem("00000000-00000000 : System RAM\n") == []
    assert seen(source=files({}))[0].map_from is None


def test_memory_that_the_srat_does_not_place() -> None:
    map = memmap(("0x0", "0x9ffff", "System RAM"), ("0x100000", "0x3fffffff", "System RAM"))
    assert seen(srat(memory(0, 1024 * MIB)), source=map)[1] == []
    assert seen(source=map)[1] == []
    facts, findings = observe([srat(memory(MIB, 511 * MIB), memory(768 * MIB, 128 * MIB))], source=map)
    assert [finding.rule for finding in findings] == ["memory.ram-without-domain"]
    assert findings[0].message.startswith(f"{(256 + 128) * MIB} bytes of System RAM, the first at 0x20000000")
    assert facts.map


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 12)), max_size=8),
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 12)), min_size=1, max_size=4),
)
def test_unplaced_memory_is_counted_byte_for_byte(placed: list[tuple[int, int]], ram: list[tuple[int, int]]) -> None:
    tables = [srat(*(memory(MIB + base, length) for base, length in placed))]
    map = memmap(*((hex(MIB + base), hex(MIB + base + length - 1), "System RAM") for base, length in ram))
    covered = {MIB + base + n for base, length in placed for n in range(length)}
    missing = sum(MIB + base + n not in covered for base, length in ram for n in range(length))
    found = [finding for finding in observe(tables, source=map)[1] if finding.rule == "memory.ram-without-domain"]
    assert [finding.message.split()[0] for finding in found] == ([str(missing)] if missing and placed else [])


def window(base: int, length: int, kind: RangeKind = RangeKind.MEMORY) -> AddressRange:
    return AddressRange(
        kind=kind,
        bits=64,
        resource_type=0,
        consumer=True,
        subtractive=False,
        minimum_fixed=True,
        maximum_fixed=True,
        type_flags=1,
        granularity=0,
        minimum=base,
        maximum=base + length - 1,
        translation=0,
        length=length,
    )


def test_memory_devices_of_the_namespace() -> None:
    device = AmlDevice(
        path="\\_SB.MEM0",
        hid="PNP0C80",
        pxm=1,
        has_ej0=True,
        crs=(
            window(4096 * MIB, 128 * MIB),
            window(0, 10, RangeKind.IO),
            FixedMemory(writable=True, address=MIB, length=0),
            Memory(bits=32, writable=True, minimum=2048 * MIB, maximum=0, alignment=0, length=MIB),
        ),
    )
    empty = AmlDevice(path="\\_SB.MEM1", hid="PNP0C80", sta=0, crs=(window(MIB, MIB),))
    namespace = Namespace(devices=(device, empty, AmlDevice(path="\\_SB.PCI0", hid="PNP0A08")))
    tables = srat(memory(0, 3072 * MIB, 0, 1 | HOT), memory(4096 * MIB, 1024 * MIB, 0, 1 | HOT))
    facts, rules = seen(tables, namespace=namespace)
    assert rules == []
    assert facts.devices == (
        MemoryDevice("\\_SB.MEM0", True, ((4096 * MIB, 128 * MIB), (2048 * MIB, MIB)), 1, True),
        MemoryDevice("\\_SB.MEM1", False, ((MIB, MIB),), None, False),
    )
    _, rules = seen(srat(memory(0, 3072 * MIB), memory(4096 * MIB, 64 * MIB, 0, 1 | HOT)), namespace=namespace)
    assert rules == ["memory.device-without-domain"] * 2


@given(st.binary(max_size=300), st.binary(max_size=100), st.text())
def test_any_bytes(entries: bytes, distances: bytes, text: str) -> None:
    source = files(
        {"proc/iomem": text, "sys/firmware/memmap/0/start": text, "sys/firmware/memmap/0/end": "0x10" + text}
    )
    seen(srat(entries), table("SLIT", distances), source=source)


@needs_corpus
def test_every_recorded_machine() -> None:
    machines = 0
    for folder in acpi_folders():
        tables = [*recorded(folder, "SRAT*.dat"), *recorded(folder, "SLIT*.dat")]
        facts, _ = seen(*tables)
        if facts.ranges:
            machines += 1
            assert all(lower.base <= upper.base for lower, upper in zip(facts.ranges, facts.ranges[1:], strict=False))
    assert machines >= 5
