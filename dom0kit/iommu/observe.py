# SPDX-License-Identifier: MIT
"""From tables and PCI functions to the facts of the machine's IOMMUs, and to its isolation groups."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import msgspec

from dom0kit.acpi.tables.madt import Ioapic, Madt
from dom0kit.acpi.tables.table import Table
from dom0kit.address import Sbdf
from dom0kit.finding import Finding
from dom0kit.iommu.facts import InterruptSource, IommuFacts, IommuKind, RegionSource, ReservedRegion, SourceOfInterrupts
from dom0kit.iommu.rules import BOTH, IOAPIC_TWICE, IOAPIC_UNKNOWN, IOAPIC_UNNAMED, SHARED_REGION, UNSERVED
from dom0kit.pci import isolation
from dom0kit.pci.function import Function
from dom0kit.pci.isolation import Group
from dom0kit.pci.topology import Topology

C = TypeVar("C")


def observe_iommu(
    tables: Sequence[Table],
    functions: Sequence[Function],
    topology: Topology,
    groups: Sequence[Group] | None = None,
) -> tuple[IommuFacts, tuple[Finding, ...]]:
    """The machine's IOMMUs, and what is wrong with what the tables say of them.

    `functions` and `topology` are empty where PCI was not recorded; then no scope is said to be absent. `groups` are
    those of `isolation_groups`, computed here where they are needed and not given.
    """
    known: dict[Sbdf, Function] = {}
    for function in functions:
        known.setdefault(function.sbdf, function)
    dmar = ivrs = None
    signatures = {table.signature for table in tables}  # a machine has one of the two, or none
    if signatures & {"DMAR", "RMAD"}:
        from dom0kit.acpi.tables.dmar import Dmar

        dmar = _first(tables, Dmar)
    if "IVRS" in signatures:
        from dom0kit.acpi.tables.ivrs import Ivrs

        ivrs = _first(tables, Ivrs)
    if dmar is not None:
        from dom0kit.iommu import vtd

        facts, findings = vtd.observe(dmar[0], dmar[1], vtd.Machine(known, topology, {}))
        if ivrs is not None:
            findings.append(BOTH.at(f"table:{ivrs[0]}", f"{dmar[0]} is there, too"))
    elif ivrs is not None:
        from dom0kit.iommu import amd

        facts, findings = amd.observe(ivrs[0], ivrs[1], known)
    else:
        return IommuFacts(), ()
    sources = _order(facts.interrupt_sources)
    facts = msgspec.structs.replace(facts, interrupt_sources=sources)
    findings += _check_sources(tables, facts)
    findings += _check_unserved(facts, known)
    if any(len(region.functions) > 1 for region in facts.reserved):
        if groups is None:
            groups = isolation_groups(facts, functions, topology)
        facts, more = _with_groups(facts, groups)
        findings += more
    return facts, tuple(findings)


def isolation_groups(
    facts: IommuFacts, functions: Sequence[Function], topology: Topology, *, assume_acs_enabled: bool = True
) -> tuple[Group, ...]:
    """The isolation groups, with what the IOMMU tables add: aliases by the IVRS, and that the IOMMU is AMD's."""
    aliases: dict[Sbdf, list[int]] = defaultdict(list)
    for unit in facts.units:
        for alias in unit.aliases:
            if alias.function.bus == alias.carries.bus:
                aliases[alias.function].append(alias.carries.devfn)
    return isolation.groups(
        functions,
        topology,
        assume_acs_enabled=assume_acs_enabled,
        amd_iommu=facts.kind is IommuKind.AMD_VI,
        aliases=aliases,
    )


def _first(tables: Iterable[Table], content: type[C]) -> tuple[str, C] | None:
    """Name and content of the first table of a kind."""
    for table in tables:
        if isinstance(table.content, content):
            return table.name, table.content
    return None


def _order(sources: Iterable[InterruptSource]) -> tuple[InterruptSource, ...]:
    return tuple(sorted(sources, key=lambda source: (source.kind is SourceOfInterrupts.HPET, source.id)))


def _check_sources(tables: Sequence[Table], facts: IommuFacts) -> Iterator[Finding]:
    """IOAPICs of the MADT and those that units name, held against each other."""
    named: dict[tuple[SourceOfInterrupts, int], InterruptSource] = {}
    twice = set()
    for source in facts.interrupt_sources:
        before = named.setdefault((source.kind, source.id), source)
        if before != source:
            twice.add((source.kind, source.id))
    for kind, id in sorted(twice, key=lambda key: (key[0].value, key[1])):
        source = named[kind, id]
        yield IOAPIC_TWICE.at(f"{kind.value}:{id}", f"the first says unit {source.unit}, id {source.requester}")
    madt = _first(tables, Madt)
    if madt is None:
        return
    there = {entry.ioapic_id for entry in madt[1].entries if isinstance(entry, Ioapic)}
    ids = {id for kind, id in named if kind is SourceOfInterrupts.IOAPIC}
    for id in sorted(ids - there):
        source = named[SourceOfInterrupts.IOAPIC, id]
        told = f"IOAPIC {id}, id {source.requester}; {madt[0]} has {_ids(there)}"
        yield IOAPIC_UNKNOWN.at(f"iommu:{source.unit}", told)
    if facts.interrupt_remapping:
        for id in sorted(there - ids):
            yield IOAPIC_UNNAMED.at(f"ioapic:{id}", f"the units name {_ids(ids)}")


def _ids(ids: Iterable[int]) -> str:
    return " ".join(map(str, sorted(ids))) or "none"


def _check_unserved(facts: IommuFacts, known: Mapping[Sbdf, Function]) -> Iterator[Finding]:
    """Functions that can be bus masters and that no unit serves; not bridges, host bridges and the units themselves."""
    units = {unit.function for unit in facts.units}
    bare: dict[int, list[Sbdf]] = defaultdict(list)
    for sbdf in facts.uncovered:
        function = known[sbdf]
        if function.header_type == 0 and function.class_code >> 16 not in (0x06, 0x08) and sbdf not in units:
            bare[sbdf.segment].append(sbdf)
    for segment, functions in sorted(bare.items()):
        shown = " ".join(map(str, functions[:8]))
        more = f" and {len(functions) - 8} more" if len(functions) > 8 else ""
        yield UNSERVED.at(f"pci-segment:{segment:04x}", f"{shown}{more}")


def _with_groups(facts: IommuFacts, groups: Sequence[Group]) -> tuple[IommuFacts, list[Finding]]:
    """Regions with the groups of their functions; a finding where a region that is not for all has several."""
    number = {sbdf: group.number for group in groups for sbdf in group.functions}
    findings = []
    reserved = []
    for region in facts.reserved:
        of = sorted({number[sbdf] for sbdf in region.functions if sbdf in number})
        reserved.append(msgspec.structs.replace(region, groups=tuple(of)))
        if len(of) > 1 and not region.all_functions:
            findings.append(SHARED_REGION.at(_where(region), _shared(region, number)))
    return msgspec.structs.replace(facts, reserved=tuple(reserved)), findings


def _where(region: ReservedRegion) -> str:
    return f"{'rmrr' if region.source is RegionSource.RMRR else 'ivmd'}:{region.base:#x}"


def _shared(region: ReservedRegion, number: Mapping[Sbdf, int]) -> str:
    told = ", ".join(f"{sbdf} (group {number[sbdf]})" for sbdf in region.functions[:8] if sbdf in number)
    more = f" and {len(region.functions) - 8} more" if len(region.functions) > 8 else ""
    return f"{region.base:#x} to {region.limit:#x}: {told}{more}"
