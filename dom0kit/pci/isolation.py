# SPDX-License-Identifier: MIT
"""Isolation groups: which functions an IOMMU can keep apart, and why others cannot be.

Linux's rules (drivers/iommu/iommu.c pci_device_group, drivers/pci/search.c pci_for_each_dma_alias, drivers/pci/pci.c
pci_acs_enabled), without the IOMMU: a function shares the group of

- the nearest bridge above whose id its requests carry: any bridge to or from conventional PCI;
- the bridge directly above, where on the way from there to the root a port can turn requests back (no ACS);
- functions of its bus whose id its requests carry by a quirk, or that carry its id;
- the other functions of its device without ACS, where it has none itself.

ACS here always means the four services that keep requests from taking a short cut: source validation, request redirect,
completion redirect, upstream forwarding; one that a function cannot do counts as done (PCI Express Base 6.0, section
6.12.1: what is needed is implemented or has no effect).
"""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from dom0kit.address import Sbdf
from dom0kit.finding import Finding, Severity, rule
from dom0kit.pci import quirks
from dom0kit.pci.capabilities.acs import AccessControlServices, AcsServices
from dom0kit.pci.function import Function
from dom0kit.pci.quirks import Isolates, IsolationQuirk
from dom0kit.pci.topology import PortKind, Topology

DIFFERS: Final = rule(
    "pci.isolation-differs",
    Severity.INFO,
    title="the kernel groups a function otherwise",
    meaning="The IOMMU group that the kernel recorded holds other functions than the one computed from topology and "
    "ACS. The kernel's is the one that counts for assignment.",
    advice="Look for pci=disable_acs_redir, pcie_acs_override or a downstream patch on the kernel command line; for "
    "config space that was not fully readable when recorded; or for a quirk that is newer than that kernel.",
    specification="Linux drivers/iommu/iommu.c (pci_device_group)",
)


class Cause(enum.Enum):
    """Why a function is in the group of another."""

    BRIDGE_ID = "its requests carry the id of the bridge"
    NO_ACS_ABOVE = "a port between it and the root can turn requests back"
    QUIRK_ID = "one carries the id of the other"
    NO_ACS_BESIDE = "functions of one device that can reach each other"
    PROXY_ID = "its requests carry the id of another segment's function"


class Reason(msgspec.Struct, frozen=True):
    """Why one function shares another's group."""

    function: Sbdf
    with_: Sbdf
    """The bridge, or the other function."""
    cause: Cause
    detail: str
    """The evidence: which port, which service, which quirk."""
    certain: bool
    """False where it rests on config space that was not readable: there may be ACS after all."""


class Group(msgspec.Struct, frozen=True):
    """Functions that can only be assigned together."""

    number: int
    """Ordinal, from 0, by lowest address; not the kernel's number."""
    functions: tuple[Sbdf, ...]
    """Ascending; never empty."""
    reasons: tuple[Reason, ...]
    """What joins them, ascending; one fewer than there are functions, or more. Some may name bridges in the group."""


def groups(
    functions: Sequence[Function],
    topology: Topology,
    *,
    assume_acs_enabled: bool = True,
    amd_iommu: bool = False,
    aliases: Mapping[Sbdf, Collection[int]] | None = None,
) -> tuple[Group, ...]:
    """Every function in exactly one group.

    `assume_acs_enabled`: as the kernel would find it after turning on whatever ACS there is, which Linux does at boot
    when it uses an IOMMU; False: as the control registers stood when recorded. `amd_iommu`: the machine has an IVRS.
    `aliases`: further ids that requests may carry by word of firmware (IVRS), 8 bits on the function's own bus.
    """
    return _Grouping(functions, topology, assume_acs_enabled, amd_iommu, aliases or {}).groups()


class Turning(msgspec.Struct, frozen=True):
    """A port without ACS beside others: it hands requests from below to the ports beside it."""

    port: Sbdf
    beside: tuple[Sbdf, ...]
    """Ports that its requests can go down through, ascending: of one switch, or of one device of the root complex."""
    detail: str
    """The evidence: which service."""
    certain: bool
    """As in `Reason`."""


def turning_ports(
    functions: Sequence[Function],
    topology: Topology,
    *,
    assume_acs_enabled: bool = True,
    amd_iommu: bool = False,
) -> tuple[Turning, ...]:
    """Ports whose requests reach what is below the ports beside them, though Linux's groups keep the two apart.

    ACS is of the port where a request comes in (PCI Express Base 6.0, section 6.12.3); Linux asks only the ports
    between a function and the root for theirs. The arguments are those of `groups`.
    """
    return _Grouping(functions, topology, assume_acs_enabled, amd_iommu, {}).turning()


def compare(computed: Sequence[Group], functions: Sequence[Function]) -> tuple[Finding, ...]:
    """Where the kernel's groups, as recorded, differ from these; nothing where none are recorded."""
    kernel: dict[int, set[Sbdf]] = defaultdict(set)
    for function in functions:
        if function.iommu_group is not None:
            kernel[function.iommu_group].add(function.sbdf)
    recorded = {sbdf: number for number, members in kernel.items() for sbdf in members}
    findings = []
    for group in computed:
        ours = {sbdf for sbdf in group.functions if sbdf in recorded}
        for sbdf in sorted(ours):
            theirs = kernel[recorded[sbdf]]
            if theirs != ours:
                findings.append(
                    DIFFERS.at(
                        f"pci:{sbdf}",
                        f"the kernel's group {recorded[sbdf]} is {_names(theirs)}; computed: {_names(ours)}",
                    )
                )
    return tuple(sorted(findings, key=lambda finding: finding.where))


def _names(functions: Collection[Sbdf]) -> str:
    shown = " ".join(map(str, sorted(functions)[:8]))
    return shown if len(functions) <= 8 else f"{shown} and {len(functions) - 8} more"


_NEEDED: Final = ("source_validation", "p2p_request_redirect", "p2p_completion_redirect", "upstream_forwarding")
_TO_CONVENTIONAL: Final = frozenset(
    {PortKind.PCIE_TO_PCI_BRIDGE, PortKind.PCI_TO_PCIE_BRIDGE, PortKind.PCI_BRIDGE, PortKind.CARDBUS_BRIDGE}
)
_NEVER: Final = frozenset({PortKind.PCIE_TO_PCI_BRIDGE, PortKind.PCI_TO_PCIE_BRIDGE, PortKind.EVENT_COLLECTOR})
_PORTS: Final = frozenset({PortKind.ROOT_PORT, PortKind.DOWNSTREAM_PORT})
_SEGMENTS_OF_FIRMWARE: Final = 0xFFFF


class _Verdict(msgspec.Struct, frozen=True, gc=False):
    """Whether a function keeps its peers apart, and why."""

    isolated: bool
    detail: str = ""
    certain: bool = True


_ISOLATED: Final = _Verdict(True)


class _WayUp(NamedTuple):
    """From a bridge, itself included, to the root."""

    carries: Sbdf | None
    """The nearest bridge whose id requests carry."""
    turns: Sbdf | None
    """The nearest port that can turn requests back."""


class _Grouping:
    """One computation: union of functions, with what was found on the way."""

    def __init__(
        self,
        functions: Sequence[Function],
        topology: Topology,
        enabled: bool,
        amd_iommu: bool,
        aliases: Mapping[Sbdf, Collection[int]],
    ) -> None:
        self._functions: dict[Sbdf, Function] = {}
        for function in functions:
            self._functions.setdefault(function.sbdf, function)
        self._order = sorted(self._functions)
        self._topology = topology
        self._enabled = enabled
        self._amd_iommu = amd_iommu
        self._told = aliases
        self._quirks = quirks.isolation()
        self._verdicts: dict[Sbdf, _Verdict] = {}
        self._ways: dict[Sbdf, _WayUp] = {}
        self._above: dict[Sbdf, Sbdf] = {sbdf: sbdf for sbdf in self._order}
        self._reasons: list[Reason] = []

    def groups(self) -> tuple[Group, ...]:
        devices: dict[tuple[int, int, int], list[Sbdf]] = defaultdict(list)
        for sbdf in self._order:
            devices[sbdf.segment, sbdf.bus, sbdf.device].append(sbdf)
        proxies = self._proxies()
        for sbdf in self._order:
            proxy = proxies.get(sbdf.segment)
            if proxy is not None:
                self._join(sbdf, proxy, Cause.PROXY_ID, "the Volume Management Device's")
            elif not self._join_above(sbdf):
                self._join_aliases(sbdf)
                self._join_beside(sbdf, devices[sbdf.segment, sbdf.bus, sbdf.device])
        members: dict[Sbdf, list[Sbdf]] = defaultdict(list)
        for sbdf in self._order:
            members[self._root(sbdf)].append(sbdf)
        reasons: dict[Sbdf, list[Reason]] = defaultdict(list)
        for reason in self._reasons:
            reasons[self._root(reason.function)].append(reason)
        return tuple(
            Group(number, tuple(together), tuple(reasons[root]))
            for number, (root, together) in enumerate(members.items())
        )

    def turning(self) -> tuple[Turning, ...]:
        beside: dict[Sbdf, list[Sbdf]] = defaultdict(list)
        for sbdf in self._order:
            kind = self._topology.kind(sbdf)
            if kind is PortKind.DOWNSTREAM_PORT:
                above = self._topology.upstream(sbdf)
                if above is not None:
                    beside[above].append(sbdf)
            elif kind is PortKind.ROOT_PORT and self._multifunction(sbdf):
                beside[sbdf.with_function(0)].append(sbdf)
        found = []
        for ports in beside.values():
            for port in ports if len(ports) > 1 else ():
                verdict = self._verdict(port)
                if not verdict.isolated:
                    others = tuple(other for other in ports if other != port)
                    found.append(Turning(port, others, verdict.detail, verdict.certain))
        return tuple(sorted(found, key=lambda each: each.port))

    # --- what joins ---------------------------------------------------------------------------------------------------

    def _join_above(self, sbdf: Sbdf) -> bool:
        """With a bridge above, if it must be."""
        directly = self._topology.upstream(sbdf)
        if directly is None:
            return False
        way = self._way_up(directly)
        if way.carries is not None:
            self._join(sbdf, way.carries, Cause.BRIDGE_ID, self._bridge_id(way.carries))
        elif way.turns is not None:
            verdict = self._verdict(way.turns)
            self._join(sbdf, directly, Cause.NO_ACS_ABOVE, f"{way.turns} {verdict.detail}", verdict.certain)
        return way.carries is not None or way.turns is not None

    def _join_aliases(self, sbdf: Sbdf) -> None:
        function = self._functions[sbdf]
        told = set(self._told.get(sbdf, ()))
        by: dict[int, str] = dict.fromkeys(told, "by the IVRS")
        for quirk in quirks.aliases().of(function):
            subsystem = f"{function.subsystem_vendor or 0:04x}:{function.subsystem or 0:04x}"
            if not quirk.subsystems or subsystem in quirk.subsystems:
                by |= dict.fromkeys(quirk.devfns(sbdf.devfn), quirk.about)
        for devfn in sorted(by):
            other = Sbdf.from_devfn(sbdf.segment, sbdf.bus, devfn & 0xFF)
            if other != sbdf and other in self._functions:
                self._join(sbdf, other, Cause.QUIRK_ID, by[devfn])

    def _join_beside(self, sbdf: Sbdf, device: Sequence[Sbdf]) -> None:
        if len(device) < 2 or not self._multifunction(sbdf):
            return
        own = self._verdict(sbdf)
        if own.isolated:
            return
        # every pair without ACS is joined; joining each with the lowest of the others is the same, and linear
        other = next((other for other in device if other != sbdf and not self._verdict(other).isolated), None)
        if other is None or (other > sbdf and self._multifunction(other)):
            return  # the other one joins, when its turn comes
        certain = own.certain and self._verdict(other).certain
        self._join(sbdf, other, Cause.NO_ACS_BESIDE, f"{sbdf} {own.detail}", certain)

    def _proxies(self) -> dict[int, Sbdf]:
        """Of each segment that a Volume Management Device made, that device: both in ascending order, one to one."""
        made = sorted({sbdf.segment for sbdf in self._order if sbdf.segment > _SEGMENTS_OF_FIRMWARE})
        if not made:
            return {}
        devices = [sbdf for sbdf in self._order if self._is(quirks.proxies(), sbdf)]
        return dict(zip(made, devices, strict=True)) if len(made) == len(devices) else {}

    # --- what isolates ------------------------------------------------------------------------------------------------

    def _way_up(self, bridge: Sbdf) -> _WayUp:
        """What a request meets from a bridge on, up to the root."""
        visited = []
        at: Sbdf | None = bridge
        while at is not None and at not in self._ways:
            visited.append(at)
            at = self._topology.upstream(at)
        way = _WayUp(None, None) if at is None else self._ways[at]
        for at in reversed(visited):
            carries = at if self._topology.kind(at) in _TO_CONVENTIONAL else way.carries
            turns = way.turns if self._verdict(at).isolated else at
            way = self._ways[at] = _WayUp(carries, turns)
        return way

    def _verdict(self, sbdf: Sbdf) -> _Verdict:
        if sbdf not in self._verdicts:
            self._verdicts[sbdf] = self._judge(sbdf)
        return self._verdicts[sbdf]

    def _judge(self, sbdf: Sbdf) -> _Verdict:
        function = self._functions[sbdf]
        kind = self._topology.kind(sbdf) or PortKind.PCI_FUNCTION
        for quirk in self._quirks.of(function):
            if self._fits(quirk, sbdf, kind):
                verdict = self._by_quirk(quirk, function)
                if verdict is not None:
                    return verdict
        if not kind.is_express:
            if not function.answers or function.config_bytes < 0x100:
                return _Verdict(False, "was not readable beyond its header", False)
            return _Verdict(False, "is conventional PCI, which has no ACS")
        if kind in _NEVER:
            return _Verdict(False, f"is a {kind.value}, which has no ACS")
        if kind in _PORTS or self._multifunction(sbdf):
            return self._by_registers(function)
        return _ISOLATED

    def _fits(self, quirk: IsolationQuirk, sbdf: Sbdf, kind: PortKind) -> bool:
        if quirk.kinds and kind not in quirk.kinds:
            return False
        if quirk.multifunction and not self._multifunction(sbdf):
            return False
        if quirk.root_bus and not self._on_root_bus(sbdf):
            return False
        return self._amd_iommu or not quirk.amd_iommu

    def _by_quirk(self, quirk: IsolationQuirk, function: Function) -> _Verdict | None:
        if quirk.isolates is Isolates.HARDWARE:
            return _ISOLATED
        if quirk.isolates is Isolates.NO:
            return _Verdict(False, f"does not isolate: {quirk.about}")
        if quirk.isolates is Isolates.DWORDS and _acs(function) is None:
            return None
        if self._enabled:
            return _ISOLATED
        return _Verdict(False, f"has its isolation in registers that were not recorded: {quirk.about}", False)

    def _by_registers(self, function: Function) -> _Verdict:
        acs = _acs(function)
        if acs is None:
            if function.config_bytes < 0x1000:
                return _Verdict(False, "shows no ACS in the config space that was readable", False)
            return _Verdict(False, "has no ACS")
        if self._enabled:
            return _ISOLATED
        off = _off(acs.capable, acs.enabled)
        return _Verdict(False, f"has these ACS services turned off: {', '.join(off)}") if off else _ISOLATED

    # --- small questions ----------------------------------------------------------------------------------------------

    def _multifunction(self, sbdf: Sbdf) -> bool:
        """By its header, or by not being function 0; never a virtual function."""
        if self._topology.physical_function(sbdf) is not None:
            return False
        return self._functions[sbdf].multifunction or sbdf.function != 0

    def _on_root_bus(self, sbdf: Sbdf) -> bool:
        bus = self._topology.bus_of(sbdf)
        return bus is not None and bus.is_root

    def _is(self, index: quirks.Index[quirks.Quirk], sbdf: Sbdf) -> bool:
        function = self._functions.get(sbdf)
        return function is not None and bool(index.of(function))

    def _bridge_id(self, bridge: Sbdf) -> str:
        """How requests from behind the bridge are marked."""
        kind = self._topology.kind(bridge)
        secondary = self._topology.secondary(bridge)
        as_express = kind is PortKind.PCIE_TO_PCI_BRIDGE
        if kind is PortKind.PCI_BRIDGE and self._is(quirks.express_bridges(), bridge):
            above = self._topology.upstream(bridge)
            above_kind = None if above is None else self._topology.kind(above)
            as_express = above_kind is not None and above_kind.is_express and above_kind not in _TO_CONVENTIONAL
        if as_express and secondary is not None:
            return f"as {secondary.number:02x}:00.0, the secondary bus of {bridge}"
        return f"as {bridge} itself"

    # --- union --------------------------------------------------------------------------------------------------------

    def _root(self, sbdf: Sbdf) -> Sbdf:
        above = self._above
        root = sbdf
        while above[root] != root:
            root = above[root]
        while above[sbdf] != root:
            above[sbdf], sbdf = root, above[sbdf]
        return root

    def _join(self, function: Sbdf, other: Sbdf, cause: Cause, detail: str, certain: bool = True) -> None:
        if other not in self._above:
            return
        first, second = sorted((self._root(function), self._root(other)))
        self._above[second] = first
        self._reasons.append(Reason(function, other, cause, detail, certain))


def _acs(function: Function) -> AccessControlServices | None:
    return next((c for c in function.capabilities if isinstance(c, AccessControlServices)), None)


def _off(capable: AcsServices, enabled: AcsServices) -> list[str]:
    return [name.replace("_", " ") for name in _NEEDED if getattr(capable, name) and not getattr(enabled, name)]
