# SPDX-License-Identifier: MIT
"""AMD-Vi: the IVRS's units, memory blocks and special devices, resolved to the machine's PCI functions.

Source: AMD I/O Virtualization Technology Specification 3.09, section 5.2.
Several IVHD blocks may describe one unit, for software of different ages; the one of the highest type counts, whole.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from dom0kit.acpi.tables.ivrs import (
    AcpiDeviceEntry,
    AliasRangeStartEntry,
    AliasSelectEntry,
    AllEntry,
    ExtendedRangeStartEntry,
    ExtendedSelectEntry,
    Ivhd10,
    Ivhd11,
    Ivhd40,
    Ivmd,
    IvmdAll,
    IvmdRange,
    Ivrs,
    PadEntry,
    RangeEndEntry,
    RangeStartEntry,
    SelectEntry,
    SpecialDeviceEntry,
)
from dom0kit.address import Sbdf
from dom0kit.finding import Finding
from dom0kit.iommu.facts import (
    Alias,
    IdRange,
    InterruptSource,
    IommuFacts,
    IommuKind,
    IommuUnit,
    NamespaceDevice,
    RegionSource,
    ReservedRegion,
    SourceOfInterrupts,
    X2apic,
)
from dom0kit.iommu.rules import MOST, TOO_MANY, TWO_UNITS, UNIT_ABSENT
from dom0kit.pci.function import Function

Block = Ivhd10 | Ivhd11 | Ivhd40

_LAST = 0xFFFF
_XT_SUP = 1 << 2
_VARIETIES = {1: SourceOfInterrupts.IOAPIC, 2: SourceOfInterrupts.HPET}


class _Entries(NamedTuple):
    """What the device entries of a block say."""

    everything: bool
    ranges: tuple[IdRange, ...]
    aliases: Sequence[tuple[int, int, int]]
    """First and last id, and the id that their requests carry; a later one counts more."""
    special: Sequence[tuple[SourceOfInterrupts, int, int]]
    """Kind, handle, id of its messages."""
    namespace: Sequence[tuple[str, int]]


def blocks_used(ivrs: Ivrs) -> tuple[Block, ...]:
    """Of each unit the block of the highest type, in the order in which units are first mentioned."""
    best: dict[tuple[int, int], Block] = {}
    for block in ivrs.blocks:
        if isinstance(block, Ivhd10 | Ivhd11 | Ivhd40):
            key = block.segment, block.device_id
            known = best.get(key)
            if known is None or block.type > known.type:
                best[key] = block
    return tuple(best.values())


def observe(table: str, ivrs: Ivrs, functions: Mapping[Sbdf, Function]) -> tuple[IommuFacts, list[Finding]]:
    """The facts of an IVRS, without the groups of its regions, and what does not fit the machine."""
    findings: list[Finding] = []
    blocks = blocks_used(ivrs)
    regions = [block for block in ivrs.blocks if isinstance(block, Ivmd)]
    for structures in (blocks, regions):
        if len(structures) > MOST:
            findings.append(TOO_MANY.at(f"table:{table}", f"{len(structures)} of one kind"))
    by_segment: dict[int, list[int]] = {}
    for sbdf in sorted(functions):
        by_segment.setdefault(sbdf.segment, []).append(sbdf.requester_id)
    units: list[IommuUnit] = []
    sources: list[InterruptSource] = []
    devices: list[NamespaceDevice] = []
    owners: dict[Sbdf, int] = {}
    own = {Sbdf.from_devfn(block.segment, block.device_id >> 8, block.device_id & 0xFF) for block in blocks}
    for index, block in enumerate(blocks[:MOST]):
        entries = _entries(block)
        ids = by_segment.get(block.segment, [])
        at = Sbdf.from_devfn(block.segment, block.device_id >> 8, block.device_id & 0xFF)
        if functions and at not in functions:
            findings.append(UNIT_ABSENT.at(f"iommu:{index}", f"no function at {at}"))
        served = []
        twice = []
        for id in _within(ids, entries.ranges):
            sbdf = Sbdf.from_devfn(block.segment, id >> 8, id & 0xFF)
            if sbdf in own:
                continue  # an IOMMU is served by none: the kernel gives it no group
            if owners.setdefault(sbdf, index) == index:
                served.append(sbdf)
            else:
                twice.append(sbdf)
        if twice:
            first, more = twice[0], f" and {len(twice) - 1} more" if len(twice) > 1 else ""
            findings.append(TWO_UNITS.at(f"iommu:{index}", f"{first}{more} served by unit {owners[first]}, too"))
        units.append(
            IommuUnit(
                index=index,
                kind=IommuKind.AMD_VI,
                segment=block.segment,
                register_base=block.iommu_base,
                register_bytes=None,
                include_all=entries.everything,
                functions=tuple(served),
                function=at,
                block_type=block.type,
                ranges=entries.ranges,
                aliases=tuple(_aliases(block.segment, ids, entries.aliases)),
                x2apic=block.features.xt_sup if isinstance(block, Ivhd10) else block.efr & _XT_SUP != 0,
            )
        )
        for kind, handle, id in entries.special:
            sources.append(InterruptSource(kind, handle, Sbdf.from_devfn(block.segment, id >> 8, id & 0xFF), index))
        for name, id in entries.namespace:
            devices.append(NamespaceDevice(name, Sbdf.from_devfn(block.segment, id >> 8, id & 0xFF), index))
    facts = IommuFacts(
        kind=IommuKind.AMD_VI,
        address_bits=ivrs.iv_info.pa_size or None,
        units=tuple(units),
        reserved=tuple(_region(block, by_segment) for block in regions[:MOST]),
        interrupt_sources=tuple(sources),
        namespace_devices=tuple(devices),
        uncovered=tuple(sbdf for sbdf in sorted(functions) if sbdf not in owners),
        interrupt_remapping=bool(units),
        x2apic=X2apic.YES if units and all(unit.x2apic for unit in units) else X2apic.NO,
        dma_opt_in=ivrs.iv_info.dma_guard_opt_in,
    )
    return facts, findings


def _entries(block: Block) -> _Entries:
    everything = False
    ranges: list[IdRange] = []
    aliases: list[tuple[int, int, int]] = []
    special: list[tuple[SourceOfInterrupts, int, int]] = []
    namespace: list[tuple[str, int]] = []
    start: int | None = None
    carries: int | None = None
    for entry in block.entries:
        if isinstance(entry, PadEntry):
            continue
        if isinstance(entry, RangeEndEntry):
            if start is not None and start <= entry.device_id:
                ranges.append(IdRange(start, entry.device_id))
                if carries is not None:
                    aliases.append((start, entry.device_id, carries))
            start = carries = None
            continue
        start = carries = None
        if isinstance(entry, AllEntry):
            everything = True
            ranges.append(IdRange(0, _LAST))
        elif isinstance(entry, AliasRangeStartEntry):
            start, carries = entry.device_id, entry.source_device_id
        elif isinstance(entry, RangeStartEntry | ExtendedRangeStartEntry):
            start = entry.device_id
        elif isinstance(entry, AliasSelectEntry):
            ranges.append(IdRange(entry.device_id, entry.device_id))
            aliases.append((entry.device_id, entry.device_id, entry.source_device_id))
        elif isinstance(entry, SelectEntry | ExtendedSelectEntry):
            ranges.append(IdRange(entry.device_id, entry.device_id))
        elif isinstance(entry, SpecialDeviceEntry):
            kind = _VARIETIES.get(entry.variety)
            if kind is not None:
                special.append((kind, entry.handle, entry.source_device_id))
        elif isinstance(entry, AcpiDeviceEntry):
            ranges.append(IdRange(entry.device_id, entry.device_id))
            namespace.append((_namespace_name(entry), entry.device_id))
    return _Entries(everything, tuple(_merged(ranges)), aliases, special, namespace)


def _namespace_name(entry: AcpiDeviceEntry) -> str:
    hid = entry.hid.rstrip("\0 ")
    uid = bytes.fromhex(entry.uid)
    if entry.uid_format == 1:
        return f"{hid}:{int.from_bytes(uid, 'little')}"
    return f"{hid}:{uid.decode('latin-1').rstrip(chr(0))}" if uid else hid


def _merged(ranges: Iterable[IdRange]) -> Iterator[IdRange]:
    current: IdRange | None = None
    for one in sorted(ranges):
        if current is None or one.first > current.last + 1:
            if current is not None:
                yield current
            current = one
        elif one.last > current.last:
            current = IdRange(current.first, one.last)
    if current is not None:
        yield current


def _within(ids: Sequence[int], ranges: Iterable[IdRange]) -> Iterator[int]:
    """Those of ascending `ids` that lie in one of ascending, separate `ranges`."""
    for one in ranges:
        yield from ids[bisect.bisect_left(ids, one.first) : bisect.bisect_right(ids, one.last)]


def _aliases(segment: int, ids: Sequence[int], aliases: Sequence[tuple[int, int, int]]) -> Iterator[Alias]:
    """Of every function that has one, its last alias. Each function is met once, however often ranges name it."""
    carried: dict[int, int] = {}
    free = list(range(len(ids) + 1))  # free[n]: the next function from n on without an alias, after following it

    def next_free(at: int) -> int:
        while free[at] != at:
            free[at] = free[free[at]]
            at = free[at]
        return at

    for first, last, carries in reversed(aliases):
        at = next_free(bisect.bisect_left(ids, first))
        while at < len(ids) and ids[at] <= last:
            carried[ids[at]] = carries
            free[at] = at + 1
            at = next_free(at)
    for id in sorted(carried):
        if carried[id] != id:
            yield Alias(
                Sbdf.from_devfn(segment, id >> 8, id & 0xFF),
                Sbdf.from_devfn(segment, carried[id] >> 8, carried[id] & 0xFF),
            )


def _region(block: Ivmd, by_segment: Mapping[int, Sequence[int]]) -> ReservedRegion:
    everything = isinstance(block, IvmdAll)
    first = 0 if everything else block.device_id
    last = _LAST if everything else block.auxiliary_data if isinstance(block, IvmdRange) else block.device_id
    ids = by_segment.get(block.segment, ())
    return ReservedRegion(
        source=RegionSource.IVMD,
        segment=block.segment,
        base=block.start_address,
        limit=block.start_address + block.memory_length - 1,
        all_functions=everything,
        functions=tuple(
            Sbdf.from_devfn(block.segment, id >> 8, id & 0xFF) for id in _within(ids, (IdRange(first, last),))
        ),
        read=block.flags.read,
        write=block.flags.write,
        exclusion=block.flags.exclusion_range,
    )
