# SPDX-License-Identifier: MIT
"""From a partition that was checked to a Plan: ordered operations, each with its inverse, and what they rely upon.

On plain Linux and under Xen, a function is taken from its driver and bound to the one that hands it on (vfio-pci,
pciback), by ``driver_override``: no other function can match, and nothing is left behind where it is undone. Between
the two it is reset, by the first of the ways that Linux has for it, which stops it and keeps its config space. Under
Xen the toolstack then needs `fragment`. For hv_core the functions and lines become the domain's by hypercall.

Sources: Linux Documentation/ABI/testing/sysfs-bus-pci (driver_override), Documentation/driver-api/vfio.rst; Linux
drivers/xen/xen-pciback/pci_stub.c (pcistub_probe takes driver_override); Xen docs/man/xl-pci-configuration.5.pod.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from dom0kit.address import Gsi, Sbdf
from dom0kit.partition.check import Verdict, verdict
from dom0kit.partition.ground import Ground
from dom0kit.partition.rules import DOM0, Case
from dom0kit.pci.capabilities.express import Express
from dom0kit.plan import (
    AnyFact,
    AnyOperation,
    AssignDevice,
    AssignGsi,
    Backend,
    BindDriver,
    CreateDomain,
    Dialect,
    DriverIs,
    FunctionIs,
    GroupIs,
    GsiUnused,
    PciDeviceAdd,
    Plan,
    ResetFunction,
    SetDriverOverride,
    UnbindDriver,
)
from dom0kit.source.interface import SourceKind

KEEPERS: Final = {Backend.LINUX: "vfio-pci", Backend.XEN: "pciback", Backend.HV_CORE: "pci-stub"}
"""The driver that keeps a function for its domain. On hv_core it need not be there: its name alone keeps others off."""
_WITH_DRIVERS: Final = (SourceKind.LIVE, SourceKind.RECORDING, SourceKind.SYSFS_TREE)


class NotPlanned(Exception):
    """No plan can be made; the message says why, in one sentence. `verdict`: where it is for conflicts."""

    def __init__(self, message: str, verdict: Verdict | None = None) -> None:
        super().__init__(message)
        self.verdict = verdict


class Fragment(msgspec.Struct, frozen=True):
    """A part of a domain's configuration for xl."""

    domain: str
    text: str


class PartitionPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A plan, and what is to be said of it."""

    plan: Plan
    verdict: Verdict
    fragments: tuple[Fragment, ...]
    """Under Xen, for each domain."""
    remarks: tuple[str, ...]


def plan_partition(case: Case) -> PartitionPlan:
    """The plan of a case without errors. NotPlanned."""
    said = verdict(case)
    if not said.feasible:
        count = sum(conflict.is_error for conflict in said.conflicts)
        raise NotPlanned(f"{count} conflict{'s are' if count > 1 else ' is'} in the way", said)
    ground = case.ground
    if ground.backend in KEEPERS and ground.platform.origin.kind not in _WITH_DRIVERS:
        raise NotPlanned(
            f"{ground.platform.origin.name} does not tell which drivers its functions have: make the plan on the "
            "machine, or from what dom0kit record keeps of it"
        )
    return _Planner(case, said).made()


class _Planner:
    def __init__(self, case: Case, said: Verdict) -> None:
        self._case = case
        self._ground: Ground = case.ground
        self._said = said
        self._facts: list[AnyFact] = []
        self._operations: list[AnyOperation] = []
        self._remarks: list[str] = []

    def made(self) -> PartitionPlan:
        ground, backend = self._ground, self._ground.backend
        for number, given in enumerate(self._said.domains):
            if backend is not Backend.LIBRARY:
                self._facts += self._identities(given.functions)
            if backend is Backend.LINUX:
                self._facts += self._groups(given.functions)
            if backend in KEEPERS:
                self._operations += self._drivers(given.functions, f"for {given.name}")
            if backend.is_core:
                self._operations += self._hypercalls(number, given.number, given.functions)
        if backend.is_core:
            self._remarks.append(
                f"{backend.value} keeps the books of other domains, and none runs yet: what is given away is denied to "
                "domain 0"
            )
        if backend is Backend.XEN:
            self._remarks.append("the guests get their devices by the fragments of their xl configuration")
        return PartitionPlan(
            plan=Plan(
                title=f"partition: {', '.join(given.name for given in self._said.domains) or 'nothing'}"[:1000],
                machine=ground.platform.origin.name[:1000],
                fingerprint=ground.platform.origin.fingerprint,
                dialect=Dialect.MODERN,
                backend=backend,
                facts=tuple(self._facts),
                operations=tuple(self._operations),
            ),
            verdict=self._said,
            fragments=tuple(self._fragments()) if backend is Backend.XEN else (),
            remarks=tuple(self._remarks),
        )

    # --- functions and drivers ---

    def _identities(self, functions: Sequence[Sbdf]) -> Iterator[AnyFact]:
        for sbdf in functions:
            function = self._ground.functions[sbdf]
            yield FunctionIs(function=sbdf, vendor=function.vendor, device=function.device)

    def _groups(self, functions: Sequence[Sbdf]) -> Iterator[AnyFact]:
        """The kernel's own groups, bridges with them."""
        members: dict[int, list[Sbdf]] = defaultdict(list)
        for sbdf, function in sorted(self._ground.functions.items()):
            if function.iommu_group is not None:
                members[function.iommu_group].append(sbdf)
        numbers = dict.fromkeys(self._ground.functions[sbdf].iommu_group for sbdf in functions)
        for number in numbers:
            if number is not None:
                yield GroupIs(functions=tuple(members[number]))

    def _drivers(self, functions: Sequence[Sbdf], why: str) -> Iterator[AnyOperation]:
        """All are taken from their drivers before the first is bound again: VFIO takes a whole group or nothing."""
        keeper = KEEPERS[self._ground.backend]
        for sbdf in functions:
            driver = self._ground.functions[sbdf].driver
            self._facts.append(DriverIs(function=sbdf, driver=driver))
            yield SetDriverOverride(function=sbdf, driver=keeper, why=why)
            if driver is not None and driver != keeper:
                yield UnbindDriver(function=sbdf, driver=driver, why=why)
        for sbdf in functions:
            if self._ground.functions[sbdf].driver != keeper:
                yield from self._resets(sbdf, why)
        if self._ground.backend is not Backend.HV_CORE:
            for sbdf in functions:
                yield BindDriver(function=sbdf, driver=keeper, why=why)

    def _resets(self, sbdf: Sbdf, why: str) -> Iterator[AnyOperation]:
        offered = self._ground.functions[sbdf].reset_methods
        if offered:
            yield ResetFunction(function=sbdf, method=offered[0], why=why)
        elif offered is None and sbdf in self._ground.resets and self._ground.resets[sbdf].available:
            yield ResetFunction(function=sbdf, why=why)

    # --- domains of a core ---

    def _hypercalls(self, place: int, domain: int, functions: Sequence[Sbdf]) -> Iterator[AnyOperation]:
        name = self._case.who(place)
        policy = self._case.policy(place)
        for sbdf in functions:
            yield self._add(sbdf)
        yield CreateDomain(domain=domain, vectors=policy.vectors or 0, why=name)
        for sbdf in functions:
            yield AssignDevice(domain=domain, function=sbdf, why=name)
        for gsi, of in self._lines(functions):
            why = self._obstacle(gsi, place)
            if why is not None:
                self._remarks.append(f"GSI {gsi} stays domain 0's: {why}")
                continue
            if self._ground.backend is not Backend.LIBRARY:
                self._facts.append(GsiUnused(gsi=Gsi(gsi)))
            yield AssignGsi(domain=domain, gsi=Gsi(gsi), why=f"{name}: {', '.join(map(str, of))}"[:1000])

    def _lines(self, functions: Sequence[Sbdf]) -> list[tuple[int, list[Sbdf]]]:
        found: dict[int, list[Sbdf]] = {}
        for sbdf in functions:
            if sbdf in self._ground.lines:
                found.setdefault(self._ground.lines[sbdf].gsi, []).append(sbdf)
        return sorted(found.items())

    def _obstacle(self, gsi: int, place: int) -> str | None:
        """Why a line is not this domain's alone; None where it can be given to it."""
        ground = self._ground
        line = next(line for line in ground.platform.lines if line.gsi == gsi)
        if line.ioapic_pin is None:
            return "it is no pin of an IOAPIC"
        legacy = ground.platform.legacy
        if legacy is not None and legacy.sci is not None and legacy.sci.gsi == gsi:
            return "it is the SCI's, too"
        others = [sbdf for sbdf in line.functions if self._case.owner_of(sbdf) != place]
        if others:
            own = self._case.owner_of(others[0])
            whose = "dom0" if own == DOM0 else self._case.who(own)
            return f"{others[0]} of {whose} shares it; use messages"
        return None

    def _add(self, sbdf: Sbdf) -> PciDeviceAdd:
        function, topology = self._ground.functions[sbdf], self._ground.topology
        node = function.numa_node
        above = topology.upstream(sbdf)
        by_ari = above is not None and any(
            isinstance(each, Express) and each.device2 is not None and each.device2.ari_forwarding
            for each in self._ground.functions[above].capabilities
        )
        return PciDeviceAdd(
            function=sbdf,
            physical=function.physical_function or topology.physical_function(sbdf),
            extended=by_ari and sbdf.device > 0,
            pxm=node if node is not None and node >= 0 else None,
        )

    # --- xl ---

    def _fragments(self) -> Iterator[Fragment]:
        for number, given in enumerate(self._said.domains):
            domain = self._case.domain(number)
            lines = [f"# of dom0kit's plan for {self._ground.platform.origin.name!a}", f'name = "{domain.name}"']
            if domain.vcpus is not None:
                lines.append(f"vcpus = {domain.vcpus}")
            if domain.memory_bytes is not None:
                lines.append(f"memory = {domain.memory_bytes >> 20}")
            relaxed = ",rdm_policy=relaxed" if domain.policy.relaxed_rmrr is not None else ""
            devices = ", ".join(f'"{sbdf}{relaxed}"' for sbdf in given.functions)
            lines.append(f"pci = [ {devices} ]")
            yield Fragment(domain.name, "\n".join(lines) + "\n")
