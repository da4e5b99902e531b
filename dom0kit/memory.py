# SPDX-License-Identifier: MIT
"""The memory of a machine: which ranges are near which processors, which may be added, and firmware's memory map.

Sources: ACPI 6.5 sections 5.2.16.2 (SRAT memory), 5.2.17 (SLIT), 9.11 (memory devices), 15 (address map). The map
comes from Linux: /sys/firmware/memmap (Documentation/ABI/testing/sysfs-firmware-memmap), else /proc/iomem.
"""

from __future__ import annotations

import enum
import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from dom0kit.acpi.namespace import AmlDevice, Namespace
from dom0kit.acpi.resources import AddressRange, FixedMemory, Memory, RangeKind
from dom0kit.acpi.tables.slit import Slit
from dom0kit.acpi.tables.srat import MemoryAffinity, Srat
from dom0kit.acpi.tables.table import Table
from dom0kit.finding import Finding, Severity, rule
from dom0kit.source.interface import Source
from dom0kit.walker import Notes

TOP: Final = 1 << 64
"""Addresses end here."""
MAX_RANGES: Final = 1 << 16
"""Ranges of one kind that are kept."""

EMPTY: Final = rule(
    "memory.srat-empty",
    Severity.INFO,
    title="enabled SRAT memory ranges without a byte",
    meaning="The range's length is 0: firmware left room for memory that is not there. It is left out.",
    advice="Nothing.",
    specification="ACPI 6.5, section 5.2.16.2",
)
WRAPS: Final = rule(
    "memory.beyond-64-bits",
    Severity.WARNING,
    title="a memory range that ends beyond 64 bits",
    meaning="Base and length add up to more than 2**64. The range is left out.",
    advice="Update the firmware.",
    specification="ACPI 6.5, section 5.2.16.2",
)
OVERLAP: Final = rule(
    "memory.srat-overlap",
    Severity.WARNING,
    title="SRAT memory ranges overlap",
    meaning="One address belongs to two ranges. Where their proximity domains differ and there is memory at boot, "
    "Linux refuses the whole SRAT and runs without NUMA. Virtual machines overlay a hot-plug window with what is "
    "plugged in it.",
    advice="Update the firmware; nothing for a hot-plug window.",
    specification="ACPI 6.5, section 5.2.16.2; Linux, arch/x86/mm/numa.c, numa_cleanup_meminfo",
)
RAM_WITHOUT_NODE: Final = rule(
    "memory.ram-without-domain",
    Severity.WARNING,
    title="memory that the SRAT does not place",
    meaning="The firmware's memory map has System RAM that is in no enabled SRAT range. Linux gives it to a node "
    "near by; if much of the memory is so, it refuses the SRAT.",
    advice="Update the firmware. A little below 1 MiB is normal.",
    specification="ACPI 6.5, section 5.2.16.2; Linux, arch/x86/mm/numa.c, numa_meminfo_cover_memory",
)
SLIT_SIZE: Final = rule(
    "memory.slit-size",
    Severity.WARNING,
    title="the SLIT does not have all proximity domains",
    meaning="The SRAT uses a proximity domain for which the SLIT has no row. Its distances are unknown.",
    advice="Update the firmware.",
    specification="ACPI 6.5, section 5.2.17: the number of localities is one more than the highest proximity domain",
)
MAP_OVERLAP: Final = rule(
    "memory.map-overlap",
    Severity.WARNING,
    title="the firmware's memory map says two things of one address",
    meaning="Two ranges of different types overlap. Linux takes the one that is less usable.",
    advice="Update the firmware.",
    specification="ACPI 6.5, section 15.2: address ranges do not overlap",
)
MAP_ODD: Final = rule(
    "memory.map-odd",
    Severity.INFO,
    title="an unreadable range in the firmware's memory map",
    meaning="Its start is behind its end, or it is no number. It is left out.",
    advice="Record the machine again.",
    specification="Linux, Documentation/ABI/testing/sysfs-firmware-memmap",
)
DEVICE_OUTSIDE: Final = rule(
    "memory.device-without-domain",
    Severity.INFO,
    title="a memory device outside every hot-pluggable range",
    meaning="A device PNP0C80 of the namespace names memory that is in no SRAT range marked hot-pluggable. Memory "
    "added there gets its domain from _PXM, and Linux cannot plan for it.",
    advice="Nothing, unless memory hot-plug fails.",
    specification="ACPI 6.5, sections 5.2.16.2 and 9.11",
)


class MemoryRange(msgspec.Struct, frozen=True):
    """One enabled memory range of the SRAT."""

    base: int
    length: int
    """Bytes, at least 1."""
    proximity_domain: int
    hot_pluggable: bool
    """Memory may be added or taken away here; what is not there yet is not in the firmware's map."""
    non_volatile: bool
    specific_purpose: bool

    @property
    def end(self) -> int:
        """Last address, inclusive."""
        return self.base + self.length - 1


class MapFrom(enum.Enum):
    """Where the firmware's memory map comes from."""

    MEMMAP = "sys/firmware/memmap"
    """As firmware gave it to the kernel."""
    IOMEM = "proc/iomem"
    """As the kernel sorted and rounded it; what PCI bridges forward is not shown apart from it."""


class MapRange(msgspec.Struct, frozen=True):
    """One range of the firmware's memory map."""

    start: int
    end: int
    """Last address, inclusive."""
    type: str
    """Linux's words: ``System RAM``, ``Reserved``, ``ACPI Tables``, ``ACPI Non-volatile Storage`` ..."""


class MemoryDevice(msgspec.Struct, frozen=True):
    """One memory device (PNP0C80) of the namespace."""

    path: str
    present: bool
    ranges: tuple[tuple[int, int], ...]
    """Base and length in bytes, from `_CRS`; empty where nothing is plugged."""
    proximity_domain: int | None
    ejectable: bool


class MemoryFacts(msgspec.Struct, frozen=True):
    """All of it."""

    ranges: tuple[MemoryRange, ...]
    """The SRAT's enabled ranges, ascending by base."""
    distances: tuple[tuple[int, ...], ...]
    """The SLIT: row by row, 10 is local, 255 unreachable; empty without one."""
    map: tuple[MapRange, ...]
    """Ascending."""
    map_from: MapFrom | None
    """None where no map was recorded."""
    devices: tuple[MemoryDevice, ...]
    """In the order of the namespace."""

    def of_type(self, type: str) -> int:
        """Bytes of the map of one type."""
        return sum(range.end - range.start + 1 for range in self.map if range.type == type)


def observe(
    tables: Sequence[Table], namespace: Namespace | None = None, source: Source | None = None
) -> tuple[MemoryFacts, tuple[Finding, ...]]:
    """From the first SRAT and SLIT, the namespace, and the kernel's files of `source`."""
    findings: list[Finding] = []
    ranges = _ranges(tables, findings)
    map, map_from = _map(source, findings) if source is not None else ((), None)
    facts = MemoryFacts(
        ranges=ranges,
        distances=_distances(tables, ranges, findings),
        map=map,
        map_from=map_from,
        devices=_devices(namespace, ranges, findings) if namespace is not None else (),
    )
    findings += _unplaced(facts)
    return facts, tuple(findings)


def _ranges(tables: Sequence[Table], findings: list[Finding]) -> tuple[MemoryRange, ...]:
    table = next((table for table in tables if isinstance(table.content, Srat)), None)
    if table is None or not isinstance(table.content, Srat):
        return ()
    notes = Notes(f"table:{table.name}")
    narrow = table.header is not None and table.header.revision < 2
    ranges: list[MemoryRange] = []
    empty = 0
    for entry in table.content.entries:
        if not isinstance(entry, MemoryAffinity) or not entry.flags.enabled or len(ranges) >= MAX_RANGES:
            continue
        domain = entry.proximity_domain & 0xFF if narrow else entry.proximity_domain
        if entry.length == 0:
            empty += 1
        elif entry.base_address + entry.length > TOP:
            notes.add(WRAPS, f"{entry.length:#x} bytes at {entry.base_address:#x} in domain {domain}")
        else:
            flags = entry.flags
            ranges.append(
                MemoryRange(
                    entry.base_address,
                    entry.length,
                    domain,
                    flags.hot_pluggable,
                    flags.non_volatile,
                    flags.specific_purpose,
                )
            )
    if empty:
        notes.add(EMPTY, f"{empty} of them")
    ranges.sort(key=lambda range: (range.base, range.length))
    furthest: MemoryRange | None = None
    for each in ranges:
        if furthest is not None and each.base <= furthest.end:
            notes.add(OVERLAP, f"{_range(each)}, and {_range(furthest)}")
        if furthest is None or each.end > furthest.end:
            furthest = each
    findings += notes.findings()
    return tuple(ranges)


def _range(range: MemoryRange) -> str:
    return f"{range.base:#x} to {range.end:#x} in domain {range.proximity_domain}"


def _distances(
    tables: Sequence[Table], ranges: tuple[MemoryRange, ...], findings: list[Finding]
) -> tuple[tuple[int, ...], ...]:
    table = next((table for table in tables if isinstance(table.content, Slit)), None)
    if table is None or not isinstance(table.content, Slit):
        return ()
    slit = table.content
    size = slit.localities
    if size * size != len(slit.distances):
        return ()  # too short for its own count, which decoding the table has told
    missing = sorted({each.proximity_domain for each in ranges if each.proximity_domain >= size})
    if missing:
        message = f"{size} localities, but the SRAT has memory in domain {missing[0]}"
        findings.append(SLIT_SIZE.at(f"table:{table.name}", message))
    return tuple(slit.distances[row * size : (row + 1) * size] for row in range(size))


def _devices(
    namespace: Namespace, ranges: tuple[MemoryRange, ...], findings: list[Finding]
) -> tuple[MemoryDevice, ...]:
    devices = []
    hot = _Spans(range for range in ranges if range.hot_pluggable)
    for device in namespace.devices:
        if device.hid != "PNP0C80" and "PNP0C80" not in device.cids:
            continue
        found = _resources(device)
        devices.append(MemoryDevice(device.path, device.present, found, device.pxm, device.has_ej0))
        for base, length in found if device.present else ():
            if any(hot.holes(base, base + length - 1)):
                findings.append(DEVICE_OUTSIDE.at(f"aml:{device.path}", f"{base:#x} to {base + length - 1:#x}"))
    return tuple(devices)


def _resources(device: AmlDevice) -> tuple[tuple[int, int], ...]:
    found = []
    for resource in device.crs or ():
        if isinstance(resource, FixedMemory):
            found.append((resource.address, resource.length))
        elif isinstance(resource, Memory) or (isinstance(resource, AddressRange) and resource.kind is RangeKind.MEMORY):
            found.append((resource.minimum, resource.length))
    return tuple((base, length) for base, length in found if length)


# --- the firmware's memory map ----------------------------------------------------------------------------------------

_TYPES: Final = frozenset(
    {
        "System RAM",
        "Reserved",
        "reserved",
        "Unknown E820 type",
        "ACPI Tables",
        "ACPI Non-volatile Storage",
        "Unusable memory",
        "Persistent Memory",
        "Persistent Memory (legacy)",
        "Soft Reserved",
    }
)
"""What Linux writes into /proc/iomem for entries of the map (arch/x86/kernel/e820.c); other lines are devices."""
_LINE: Final = r"(?m)^ *([0-9a-fA-F]{1,16})-([0-9a-fA-F]{1,16}) : (.{1,64}?) *$"


def _map(source: Source, findings: list[Finding]) -> tuple[tuple[MapRange, ...], MapFrom | None]:
    notes = Notes("memory map")
    ranges: list[MapRange] = []
    for name in source.names("sys/firmware/memmap"):
        folder = f"sys/firmware/memmap/{name}/"
        start, end, type = (_text(source, folder + file).strip()[:64] for file in ("start", "end", "type"))
        try:
            low, high = int(start, 16), int(end, 16)
        except ValueError:
            low, high = 1, 0
        if not 0 <= low <= high < TOP:
            notes.add(MAP_ODD, f"entry {name[:16]}: {start!r} to {end!r}")
        elif len(ranges) < MAX_RANGES:
            ranges.append(MapRange(low, high, type))
    map_from = MapFrom.MEMMAP
    if not ranges:
        map_from = MapFrom.IOMEM
        ranges = parse_iomem(_text(source, "proc/iomem"))
    ranges.sort(key=lambda range: (range.start, range.end, range.type))
    if map_from is MapFrom.MEMMAP:
        furthest: MapRange | None = None
        for each in ranges:
            if furthest is not None and each.start <= furthest.end and each.type != furthest.type:
                message = f"{each.start:#x} to {each.end:#x} is {each.type}, {furthest.start:#x} to {furthest.end:#x} "
                notes.add(MAP_OVERLAP, message + furthest.type)
            if furthest is None or each.end > furthest.end:
                furthest = each
    findings += notes.findings()
    return tuple(ranges), map_from if ranges else None


def parse_iomem(text: str) -> list[MapRange]:
    """Entries of the firmware's map in /proc/iomem; without root all addresses read as zero, and there are none."""
    ranges: list[MapRange] = []
    for match in re.finditer(_LINE, text):
        start, end, name = int(match[1], 16), int(match[2], 16), match[3]
        if name in _TYPES and start <= end and end and len(ranges) < MAX_RANGES:
            ranges.append(MapRange(start, end, name))
    return ranges


def _unplaced(facts: MemoryFacts) -> Iterable[Finding]:
    """System RAM above 1 MiB that no SRAT range holds."""
    placed = _Spans(facts.ranges)
    total = 0
    first: int | None = None
    for each in facts.map if facts.ranges else ():
        if each.type == "System RAM" and each.end >= 0x100000:
            for start, end in placed.holes(max(each.start, 0x100000), each.end):
                total += end - start + 1
                first = start if first is None else first
    if first is not None:
        yield RAM_WITHOUT_NODE.at("memory map", f"{total} bytes of System RAM, the first at {first:#x}")


class _Spans:
    """Disjoint address ranges, ascending: what sorted ranges cover together."""

    def __init__(self, ranges: Iterable[MemoryRange]) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for range in ranges:
            if self._ends and range.base <= self._ends[-1] + 1:
                self._ends[-1] = max(self._ends[-1], range.end)
            else:
                self._starts.append(range.base)
                self._ends.append(range.end)

    def holes(self, start: int, end: int) -> Iterable[tuple[int, int]]:
        """What of `start` to `end` (inclusive) is not covered."""
        index = bisect_left(self._ends, start)
        while start <= end:
            if index == len(self._starts) or self._starts[index] > end:
                yield start, end
                return
            if self._starts[index] > start:
                yield start, self._starts[index] - 1
            start = self._ends[index] + 1
            index += 1


def _text(source: Source, path: str) -> str:
    return (source.file(path) or b"").decode("utf-8", "replace")
