# SPDX-License-Identifier: MIT
"""Intel VT-d: the DMAR's units, regions and sources, resolved to the PCI functions of the machine.

Source: Intel VT-d 4.1, chapter 8.
A scope is a bus and a path of steps; each step but the last is a bridge, whose secondary bus is the next step's. A unit
serves the functions that its scopes name and what is behind the bridges that they name; of each segment one unit may
serve all the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

from dom0kit.acpi.tables.dmar import Andd, Atsr, DeviceScope, Dmar, Drhd, Rhsa, Rmrr, Satc, ScopeType, Structure
from dom0kit.address import Sbdf
from dom0kit.finding import Finding
from dom0kit.iommu.facts import (
    AtsPorts,
    InterruptSource,
    IommuFacts,
    IommuKind,
    IommuUnit,
    NamespaceDevice,
    RegionSource,
    ReservedRegion,
    Scope,
    ScopeTarget,
    SourceOfInterrupts,
    X2apic,
)
from dom0kit.iommu.rules import ABSENT, KIND, MOST, TOO_MANY, TWO_UNITS
from dom0kit.pci.function import Function
from dom0kit.pci.topology import Topology

_TARGETS = {ScopeType.PCI_ENDPOINT: ScopeTarget.FUNCTION, ScopeType.PCI_SUB_HIERARCHY: ScopeTarget.BRIDGE}
_SOURCES = {ScopeType.IOAPIC: SourceOfInterrupts.IOAPIC, ScopeType.HPET: SourceOfInterrupts.HPET}


S = TypeVar("S")


class Machine(NamedTuple):
    """The PCI functions that scopes are held against."""

    functions: Mapping[Sbdf, Function]
    """Empty where they were not recorded."""
    topology: Topology
    behind: dict[frozenset[Sbdf], frozenset[Sbdf]]
    """What is behind any of several bridges, as far as it was asked."""


def observe(table: str, dmar: Dmar, machine: Machine) -> tuple[IommuFacts, list[Finding]]:
    """The facts of a DMAR, without the groups of its regions, and what does not fit the machine."""
    findings: list[Finding] = []
    proximity = {s.register_base: s.proximity_domain for s in dmar.structures if isinstance(s, Rhsa)}
    names = {s.acpi_device_number: s.object_name for s in dmar.structures if isinstance(s, Andd)}
    drhds = _bounded([s for s in dmar.structures if isinstance(s, Drhd)], table, findings)
    rmrrs = _bounded([s for s in dmar.structures if isinstance(s, Rmrr)], table, findings)
    scopes = [_scopes(drhd, f"iommu:{index}", machine, findings) for index, drhd in enumerate(drhds)]
    owners = _owners(drhds, scopes, machine, findings)
    served: list[list[Sbdf]] = [[] for _ in drhds]
    for sbdf, index in owners.items():
        served[index].append(sbdf)
    units = tuple(
        IommuUnit(
            index=index,
            kind=IommuKind.VT_D,
            segment=drhd.segment,
            register_base=drhd.register_base,
            register_bytes=drhd.register_bytes,
            include_all=drhd.flags.include_pci_all,
            functions=tuple(served[index]),
            scopes=scopes[index],
            proximity_domain=proximity.get(drhd.register_base),
        )
        for index, drhd in enumerate(drhds)
    )
    reserved = []
    for rmrr in rmrrs:
        named = _scopes(rmrr, f"rmrr:{rmrr.base:#x}", machine, findings)
        reserved.append(
            ReservedRegion(
                source=RegionSource.RMRR,
                segment=rmrr.segment,
                base=rmrr.base,
                limit=rmrr.limit,
                functions=_named(named, machine),
                scopes=named,
            )
        )
    atc = {
        sbdf
        for satc in dmar.structures
        if isinstance(satc, Satc) and satc.flags.atc_required
        for sbdf in _named(_scopes(satc, "satc", machine, findings), machine)
    }
    facts = IommuFacts(
        kind=IommuKind.VT_D,
        address_bits=dmar.host_address_width + 1,
        units=units,
        reserved=tuple(reserved),
        interrupt_sources=tuple(_interrupt_sources(drhds, machine)),
        namespace_devices=tuple(_namespace_devices(drhds, names, machine)),
        ats_ports=tuple(
            AtsPorts(
                atsr.segment,
                atsr.flags.all_ports,
                () if atsr.flags.all_ports else _ports(_scopes(atsr, "atsr", machine, findings)),
            )
            for atsr in dmar.structures
            if isinstance(atsr, Atsr)
        ),
        atc_required=tuple(sorted(atc)),
        uncovered=tuple(sbdf for sbdf in sorted(machine.functions) if sbdf not in owners),
        interrupt_remapping=dmar.flags.interrupt_remapping,
        x2apic=X2apic.OPTED_OUT if dmar.flags.x2apic_opt_out else X2apic.UNKNOWN,
        dma_opt_in=dmar.flags.dma_control_platform_opt_in,
    )
    return facts, findings


def _bounded(structures: Sequence[S], table: str, findings: list[Finding]) -> Sequence[S]:
    if len(structures) > MOST:
        findings.append(TOO_MANY.at(f"table:{table}", f"{len(structures)} of one kind"))
    return structures[:MOST]


# --- scopes -----------------------------------------------------------------------------------------------------------


def resolve(segment: int, scope: DeviceScope, topology: Topology) -> Sbdf | None:
    """Where a scope's path leads; None for an empty one, a step that cannot be, or one through what is no bridge."""
    bus = scope.start_bus
    for step, hop in enumerate(scope.path):
        if hop.device > 31 or hop.function > 7:
            return None
        at = Sbdf(segment, bus, hop.device, hop.function)
        if step == len(scope.path) - 1:
            return at
        behind = topology.secondary(at)
        if behind is None:
            return None
        bus = behind.number
    return None


def _path(scope: DeviceScope) -> str:
    steps = "/".join(f"{hop.device:02x}.{hop.function:x}" for hop in scope.path[:8])
    return f"{scope.start_bus:02x}:{steps}{'/...' if len(scope.path) > 8 else ''}"


def _scopes(structure: Structure, where: str, machine: Machine, findings: list[Finding]) -> tuple[Scope, ...]:
    """The scopes that name PCI functions, resolved; one finding of each kind for the whole structure."""
    segment: int = getattr(structure, "segment", 0)
    result = []
    absent = []
    wrong = []
    for scope in structure.devices:
        target = None if isinstance(scope.type, int) else _TARGETS.get(scope.type)
        if target is None:
            continue
        at = resolve(segment, scope, machine.topology)
        present = None if not machine.functions else at in machine.functions
        one = Scope(target, _path(scope), at, present)
        result.append(one)
        if present is False:
            absent.append(one)
        elif at is not None and present and _is_wrong(target, machine.functions[at]):
            wrong.append(one)
    if absent:
        findings.append(ABSENT.at(where, f"segment {segment:04x}: {_told(absent)}"))
    if wrong:
        findings.append(KIND.at(where, f"segment {segment:04x}: {_told(wrong)}"))
    return tuple(result)


def _is_wrong(target: ScopeTarget, function: Function) -> bool:
    if not function.answers or not function.config_bytes:
        return False
    if target is ScopeTarget.FUNCTION:
        return function.header_type != 0
    return function.header_type == 0 and function.class_code >> 16 != 6


def _told(scopes: Sequence[Scope]) -> str:
    told = ", ".join(f"{scope.path} ({scope.target.value})" for scope in scopes[:8])
    return told if len(scopes) <= 8 else f"{told} and {len(scopes) - 8} more"


def _named(scopes: Iterable[Scope], machine: Machine) -> tuple[Sbdf, ...]:
    """Functions present that are named, or behind a named bridge."""
    found = {scope.function for scope in scopes if scope.function is not None and scope.function in machine.functions}
    bridges = frozenset(
        scope.function for scope in scopes if scope.function is not None and scope.target is ScopeTarget.BRIDGE
    )
    if bridges and bridges not in machine.behind:
        nearest = _nearest(bridges, machine.topology)
        machine.behind[bridges] = frozenset(
            sbdf for sbdf in machine.functions if nearest(machine.topology.upstream(sbdf)) is not None
        )
    return tuple(sorted(found | machine.behind.get(bridges, frozenset())))


def _nearest(wanted: Collection[Sbdf], topology: Topology) -> Callable[[Sbdf | None], Sbdf | None]:
    """A function that finds the nearest wanted bridge, from one upwards; every bridge is walked once."""
    known: dict[Sbdf, Sbdf | None] = {}

    def nearest(bridge: Sbdf | None) -> Sbdf | None:
        visited = []
        while bridge is not None and bridge not in known and bridge not in wanted:
            visited.append(bridge)
            bridge = topology.upstream(bridge)
        answer = bridge if bridge is None or bridge in wanted else known[bridge]
        known.update(dict.fromkeys(visited, answer))
        return answer

    return nearest


def _ports(scopes: Iterable[Scope]) -> tuple[Sbdf, ...]:
    return tuple(sorted({scope.function for scope in scopes if scope.function is not None}))


# --- who serves whom --------------------------------------------------------------------------------------------------


def _owners(
    drhds: Sequence[Drhd], scopes: Sequence[Sequence[Scope]], machine: Machine, findings: list[Finding]
) -> dict[Sbdf, int]:
    """Unit of every function that has one, ascending.

    By its own scope, else by that of the nearest bridge above, else the unit for all others. A virtual function has its
    physical function's.
    """
    named: dict[Sbdf, int] = {}
    for index, of_unit in enumerate(scopes):
        twice = []
        for scope in of_unit:
            if scope.function is not None and named.setdefault(scope.function, index) != index:
                twice.append(scope.function)
        if twice:
            first, more = twice[0], f" and {len(twice) - 1} more" if len(twice) > 1 else ""
            findings.append(TWO_UNITS.at(f"iommu:{index}", f"{first}{more} named by unit {named[first]}, too"))
    bridges = {
        scope.function
        for of_unit in scopes
        for scope in of_unit
        if scope.function is not None and scope.target is ScopeTarget.BRIDGE
    }
    rest: dict[int, int] = {}
    for index, drhd in enumerate(drhds):
        if drhd.flags.include_pci_all:
            rest.setdefault(drhd.segment, index)
    nearest = _nearest(bridges, machine.topology)
    owners: dict[Sbdf, int] = {}
    for sbdf in sorted(machine.functions):
        requester = machine.topology.physical_function(sbdf) or sbdf
        owner = named.get(requester)
        if owner is None:
            bridge = nearest(machine.topology.upstream(requester))
            owner = None if bridge is None else named[bridge]
        if owner is None:
            owner = rest.get(sbdf.segment)
        if owner is not None:
            owners[sbdf] = owner
    return owners


# --- interrupts and namespace devices ---------------------------------------------------------------------------------


def _devices(drhds: Sequence[Drhd]) -> Iterator[tuple[int, int, DeviceScope]]:
    for index, drhd in enumerate(drhds):
        for scope in drhd.devices:
            yield index, drhd.segment, scope


def _interrupt_sources(drhds: Sequence[Drhd], machine: Machine) -> Iterator[InterruptSource]:
    for index, segment, scope in _devices(drhds):
        kind = None if isinstance(scope.type, int) else _SOURCES.get(scope.type)
        if kind is not None:
            yield InterruptSource(kind, scope.enumeration_id, resolve(segment, scope, machine.topology), index)


def _namespace_devices(drhds: Sequence[Drhd], names: Mapping[int, str], machine: Machine) -> Iterator[NamespaceDevice]:
    for index, segment, scope in _devices(drhds):
        if scope.type is ScopeType.NAMESPACE_DEVICE:
            number = scope.enumeration_id
            name = names.get(number, f"device {number}")
            yield NamespaceDevice(name, resolve(segment, scope, machine.topology), index)
