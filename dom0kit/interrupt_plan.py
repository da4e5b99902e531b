# SPDX-License-Identifier: MIT
"""A plan for every GSI and message of a machine that no driver of dom0 has.

A function of a Platform and its routing table. The order is Linux's as domain 0 of Xen (drivers/xen/pci.c,
arch/x86/pci/xen.c): ECAM ranges; functions, physical ones before virtual ones; GSIs, mapped and then set up, pIRQ =
GSI; messages. What a driver has requested is left alone; a policy moves it through Linux.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from dom0kit.abi import Physdev
from dom0kit.acpi.tables.mcfg import Mcfg
from dom0kit.address import Gsi, Sbdf
from dom0kit.finding import Finding, Severity, rule
from dom0kit.interrupts import MAX_GSI, Line, RoutingTable, UseKind
from dom0kit.ioapic.controllers import Ioapic, IoapicSet
from dom0kit.ioapic.plan import line_operations
from dom0kit.ioapic.redirection import EntryFormat
from dom0kit.msi.messages import MessageFormat
from dom0kit.msi.plan import facts as message_facts
from dom0kit.msi.plan import message_operations, obstacle
from dom0kit.msi.state import InterruptMode, MsiState
from dom0kit.pci.capabilities.express import Express
from dom0kit.pci.function import Function
from dom0kit.plan import (
    AnyFact,
    AnyOperation,
    Backend,
    Dialect,
    GsiUnused,
    IoapicAdd,
    ModeIs,
    PciDeviceAdd,
    PciMmcfgReserved,
    Plan,
    SetLinuxAffinity,
)
from dom0kit.platform import Platform
from dom0kit.vectors import (
    LAST_APIC_ID,
    XEN_OWN,
    Cpu,
    Demand,
    Grant,
    Limited,
    Policy,
    Strategy,
    Vectors,
    assign,
    cpus_of,
    in_use,
    is_remapped,
    limits,
)
from dom0kit.xen import DomainKind

ECAM_BUS: Final = 1 << 20
"""Bytes of config space that a bus has in an ECAM range."""
STORAGE: Final = 0x01
"""PCI base class whose drivers have Linux manage the affinity of their MSI-X messages, so that nobody else can."""

DOMAINS: Final = rule(
    "irq.shared-by-domains",
    Severity.ERROR,
    title="a GSI shared by functions of several domains",
    meaning="A level-triggered pin stays asserted until the device that asserts it is served. If several domains share "
    "it, each waits for the others, and one that does not answer stops them all. The GSI is left out of the plan.",
    advice="Put the functions into one domain, or use MSI for all of them but one domain's.",
    specification="Intel 82093AA, section 3.4.2; Xen, arch/x86/irq.c, pirq_guest_bind",
)

_DIALECTS: Final = {
    Dialect.MODERN: frozenset(Backend),
    Dialect.CLASSIC_2005: frozenset({Backend.LIBRARY, Backend.LOOPBACK, Backend.HV_CORE}),
    Dialect.CLASSIC_XEN: frozenset({Backend.XEN}),
}


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan is asked to be."""

    dialect: Dialect = Dialect.MODERN
    backend: Backend
    intercept: bool = True
    """Of a core: it chooses vectors by itself. Else dom0 does (direct mode)."""
    policy: Policy | None = None
    """None: vectors are spread, and nothing is moved."""
    entries: int | None = None
    """Messages a function at most. None: of MSI-X one for each processor, of MSI one."""
    domains: Mapping[Sbdf, int] = {}
    """The domain that each function is for; others are domain 0's."""
    extended_destination: bool = False
    """The hypervisor announced the extended destination id: APIC ids to 32767 without a remapper."""

    def __post_init__(self) -> None:
        if self.backend not in _DIALECTS[self.dialect]:
            raise ValueError(f"{self.backend.value} does not speak {self.dialect.value}")


class Left(msgspec.Struct, frozen=True):
    """Something that the plan does not touch."""

    what: str
    """``GSI 9``, or a function."""
    why: str


class InterruptPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A plan, and what is to be said of it."""

    plan: Plan
    left: tuple[Left, ...]
    limited: tuple[Limited, ...]
    """Functions that get fewer messages than they want, for want of vectors."""
    findings: tuple[Finding, ...]


def plan_interrupts(platform: Platform, table: RoutingTable, wishes: Wishes) -> InterruptPlan:
    """The plan. ValueError where the machine has no processors, or the policy names one that is not there."""
    return _Planner(platform, table, wishes).made()


def plan_messages(platform: Platform, table: RoutingTable, wishes: Wishes, function: Sbdf) -> Plan:
    """A plan that maps the messages of one function, and on hv_core writes, unmasks and enables them.

    ValueError, with the reason, where there is nothing to map, or it must not be done.
    """
    return _Planner(platform, table, wishes).of_function(function)


class _Planner:
    def __init__(self, platform: Platform, table: RoutingTable, wishes: Wishes) -> None:
        self._platform = platform
        self._table = table
        self._wishes = wishes
        self._operations: list[AnyOperation] = []
        self._facts: list[AnyFact] = []
        self._left: list[Left] = []
        self._limited: list[Limited] = []
        self._findings: list[Finding] = []
        every = cpus_of(platform)
        if not every:
            raise ValueError("nobody says which processors the machine has: a MADT does")
        self._cpus = every
        self._allowed = self._policy.allowed([cpu for cpu in every if self._reaches(cpu)])
        used, total = in_use(table, every)
        self._keep = total - sum(used.values())
        self._vectors = Vectors(
            self._allowed, limits(platform, wishes.backend, intercept=wishes.intercept), self._taken()
        )

    @property
    def _policy(self) -> Policy:
        return self._wishes.policy or Policy()

    def made(self) -> InterruptPlan:
        wishes = self._wishes
        self._rely_on_mode()
        if wishes.backend is not Backend.LINUX:
            if wishes.backend.is_core:
                self._operations += self._ioapics()
            if wishes.dialect is Dialect.MODERN:
                self._operations += self._ecam()
                self._operations += self._adds(self._platform.functions)
                beyond = sum(function.sbdf.segment > 0xFFFF for function in self._platform.functions)
                if beyond:
                    self._left.append(Left(f"{beyond} functions", "hypercalls have no room for their segments"))
            self._lines()
            self._messages()
        self._move_requested()
        return InterruptPlan(
            plan=self._plan("interrupts"),
            left=tuple(self._left),
            limited=tuple(self._limited),
            findings=tuple(self._findings),
        )

    def of_function(self, sbdf: Sbdf) -> Plan:
        wishes = self._wishes
        function = next((each for each in self._platform.functions if each.sbdf == sbdf), None)
        state = next((each for each in self._platform.msi if each.sbdf == sbdf), None)
        if function is None:
            raise ValueError(f"there is no function {sbdf}")
        if state is None or (state.msi is None and state.msix is None):
            raise ValueError(f"{sbdf} has neither MSI nor MSI-X")
        if wishes.backend is Backend.LINUX:
            raise ValueError("there is no hypervisor to map messages to")
        why = self._no_messages()
        if why is not None:
            raise ValueError(why)
        why = obstacle(function, state, wishes.backend)
        if why is not None:
            raise ValueError(f"{sbdf}: {why}")
        demand = self._demand(function, state)
        (grant,) = assign([demand], self._vectors, self._policy.strategy, self._keep)
        if len(grant.places) < demand.wants:
            raise ValueError(f"{sbdf}: {demand.wants} vectors are wanted, and {len(grant.places)} can be had")
        self._rely_on_mode()
        owner = next((each for each in self._platform.functions if each.sbdf == self._physical(function)), None)
        self._operations += self._adds([function] if owner is None else [owner, function])
        self._map(function, state, grant, enable=True)
        return self._plan(f"messages of {sbdf}")

    def _plan(self, title: str) -> Plan:
        return Plan(
            title=title,
            machine=self._platform.origin.name[:1000],
            fingerprint=self._platform.origin.fingerprint,
            dialect=self._wishes.dialect,
            backend=self._wishes.backend,
            facts=tuple(self._facts),
            operations=tuple(self._operations),
        )

    def _rely_on_mode(self) -> None:
        if self._wishes.backend.is_core:
            self._facts.append(ModeIs(intercept=self._wishes.intercept))

    # --- processors ---

    def _reaches(self, cpu: Cpu) -> bool:
        """Whether interrupts can be sent there: by what is written, or by a core that has a remapper."""
        wishes = self._wishes
        if cpu.apic_id <= (0x7FFF if wishes.extended_destination else LAST_APIC_ID):
            return True
        return wishes.intercept and wishes.dialect is Dialect.MODERN and is_remapped(self._platform)

    def _taken(self) -> Iterator[tuple[int, int]]:
        """(index of the processor, vector) of what is known to be in use."""
        index = {cpu.linux: cpu.index for cpu in self._cpus if cpu.linux is not None}
        targets = [line.target for line in self._table.lines if line.target is not None]
        targets += [target for each in self._table.messages for target in each.targets]
        for target in targets:
            if target.vector is not None and not target.masked:
                yield from ((index[cpu], target.vector) for cpu in target.cpus if cpu in index)

    # --- the machine ---

    def _ioapics(self) -> Iterator[AnyOperation]:
        """Those that only the namespace has: a core finds the MADT's by itself."""
        told: set[int] = set()
        for ioapic in self._platform.ioapics:
            if not ioapic.in_madt and ioapic.address not in {0, *told} and ioapic.gsi_base < MAX_GSI:
                told.add(ioapic.address)
                yield IoapicAdd(address=ioapic.address, gsi_base=Gsi(ioapic.gsi_base), why=ioapic.aml_path or "")

    def _ecam(self) -> Iterator[AnyOperation]:
        for segment, start_bus, end_bus, address in _ecam_ranges(self._platform):
            yield PciMmcfgReserved(address=address, segment=segment, start_bus=start_bus, end_bus=end_bus, why="MCFG")

    def _adds(self, functions: Iterable[Function]) -> Iterable[AnyOperation]:
        """Physical functions before virtual ones."""
        by_ari = self._ari_buses()
        adds = [
            PciDeviceAdd(
                function=function.sbdf,
                physical=self._physical(function),
                extended=function.sbdf.device > 0 and (function.sbdf.segment, function.sbdf.bus) in by_ari,
                pxm=function.numa_node if function.numa_node is not None and function.numa_node >= 0 else None,
            )
            for function in functions
            if function.sbdf.segment <= 0xFFFF
        ]
        return sorted(adds, key=lambda add: add.physical is not None)

    def _physical(self, function: Function) -> Sbdf | None:
        """The physical function of a virtual one: by the kernel's word, else by SR-IOV capabilities."""
        if function.physical_function is not None or self._platform.topology is None:
            return function.physical_function
        return self._platform.topology.physical_function(function.sbdf)

    def _ari_buses(self) -> set[tuple[int, int]]:
        """Segment and number of buses behind a port that forwards by ARI: there a device number is not 0 only because
        it belongs to the function number."""
        return {
            (function.sbdf.segment, function.buses[0])
            for function in self._platform.functions
            if function.buses is not None
            for each in function.capabilities
            if isinstance(each, Express) and each.device2 is not None and each.device2.ari_forwarding
        }

    # --- GSIs ---

    def _withheld(self, *operations: Physdev) -> str | None:
        """Why Xen does not do one of these for this domain; None where it does, or nobody says which Xen it is."""
        xen = self._platform.xen
        if self._wishes.backend is not Backend.XEN or xen is None:
            return None
        if Physdev.MAP_PIRQ in operations and xen.kind is not DomainKind.PV:
            return f"a {xen.kind.value} dom0 has no pIRQs of its own"
        return next((a.reason for each in operations if not (a := xen.availability(each)).available), None)

    def _lines(self) -> None:
        modern = self._wishes.dialect is Dialect.MODERN
        withheld = self._withheld(*((Physdev.MAP_PIRQ, Physdev.SETUP_GSI) if modern else (Physdev.APIC_WRITE,)))
        if withheld is not None:
            self._left.append(Left("GSIs", withheld))
            return
        ioapics = {ioapic.id: ioapic for ioapic in reversed(self._platform.ioapics)}
        wanted: list[tuple[Line, Ioapic]] = []
        for line in self._table.lines:
            why = self._reason(line)
            if why is not None:
                self._left.append(Left(f"GSI {line.gsi}", why))
            elif line.ioapic_pin is not None:
                wanted.append((line, ioapics[line.ioapic_pin.ioapic]))
        wishes = self._wishes
        places = wishes.dialect is Dialect.CLASSIC_2005 or self._moves
        demands = [Demand(gsi=line.gsi, wants=1) for line, _ in wanted]
        grants = assign(demands, self._vectors, self._policy.strategy, self._keep) if places else []
        format = EntryFormat.EXTENDED_DESTINATION if wishes.extended_destination else EntryFormat.COMPATIBILITY
        for number, (line, ioapic) in enumerate(wanted):
            place = grants[number].places[:1] if grants else ()
            if wishes.dialect is Dialect.CLASSIC_2005 and not place:
                self._left.append(Left(f"GSI {line.gsi}", "no processor has a vector left"))
                continue
            if wishes.backend is not Backend.LIBRARY:
                self._facts.append(GsiUnused(gsi=line.gsi))
            self._operations += line_operations(
                line,
                ioapic,
                wishes.dialect,
                place[0] if place else None,
                move=self._moves and bool(place) and place[0].cpu.apic_id <= LAST_APIC_ID,
                format=format,
            )

    @property
    def _moves(self) -> bool:
        """Whether the core is told where interrupts shall go."""
        wishes = self._wishes
        return wishes.policy is not None and wishes.intercept and wishes.backend.is_core

    def _reason(self, line: Line) -> str | None:
        """Why a GSI is not for the plan; None where it is."""
        if line.ioapic_pin is None or line.gsi >= MAX_GSI:
            return "it is no pin of an IOAPIC"
        if IoapicSet(self._platform.ioapics).gsi(line.ioapic_pin) != line.gsi:
            return "its IOAPIC has the id of another, or it is a pin of two IOAPICs"
        if any(user.kind is UseKind.NMI for user in line.users):
            return "an NMI comes in on it, and no entry carries NMI on a domain's word"
        domains = {self._wishes.domains.get(function, 0) for function in line.functions}
        if len(domains) > 1:
            named = ", ".join(f"{each} of domain {self._wishes.domains.get(each, 0)}" for each in line.functions[:4])
            self._findings.append(DOMAINS.at(f"gsi:{line.gsi}", f"it is shared by {named}"))
            return "functions of several domains share it"
        if domains - {0}:
            return f"it is domain {domains.pop()}'s"
        if line.requested_by:
            return f"{', '.join(line.requested_by)} has requested it"
        if not self._knows_requests:
            drivers = sorted({user.driver for user in line.users if user.driver is not None and not user.by_message})
            if drivers:
                return f"{', '.join(drivers)} may have requested it"
        if self._wishes.backend is Backend.XEN and any(user.name.split()[:2] == ["ISA", "0"] for user in line.users):
            return "the timer is Xen's own"
        if self._wishes.backend is Backend.XEN and line.target is not None and (line.target.vector or 0) >= XEN_OWN:
            return f"Xen itself has it, with vector {line.target.vector:#x}"
        return None

    @property
    def _knows_requests(self) -> bool:
        return self._platform.kernel is not None and bool(self._platform.kernel.interrupts)

    # --- messages ---

    def _no_messages(self) -> str | None:
        """Why no messages can be mapped at all; None where they can."""
        if self._wishes.dialect is not Dialect.MODERN:
            return f"{self._wishes.dialect.value} has no calls for messages"
        return self._withheld(Physdev.MAP_PIRQ)

    def _messages(self) -> None:
        why = self._no_messages()
        if why is not None:
            self._left.append(Left("MSI and MSI-X", why))
            return
        functions = {function.sbdf: function for function in self._platform.functions}
        candidates: list[tuple[Function, MsiState, Demand]] = []
        for state in self._platform.msi:
            if state.msi is None and state.msix is None:
                continue
            function = functions[state.sbdf]
            why = self._message_reason(function, state)
            if why is not None:
                self._left.append(Left(str(function.sbdf), why))
            else:
                candidates.append((function, state, self._demand(function, state)))
        grants = assign([demand for _, _, demand in candidates], self._vectors, self._policy.strategy, self._keep)
        for (function, state, demand), grant in zip(candidates, grants, strict=True):
            if len(grant.places) < demand.wants:
                limited = Limited(function.sbdf, function.driver, demand.wants, len(grant.places), 0)
                self._limited.append(limited)
            if grant.places:
                self._map(function, state, grant)

    def _map(self, function: Function, state: MsiState, grant: Grant, *, enable: bool = False) -> None:
        wishes = self._wishes
        if wishes.backend is not Backend.LIBRARY:
            self._facts += message_facts(function)
        self._operations += message_operations(
            function,
            state,
            grant.places,
            backend=wishes.backend,
            intercept=wishes.intercept,
            first=len(self._operations),
            move=self._moves,
            enable=enable,
            format=MessageFormat.EXTENDED_DESTINATION if wishes.extended_destination else MessageFormat.COMPATIBILITY,
        )

    def _message_reason(self, function: Function, state: MsiState) -> str | None:
        if function.buses is not None:
            return "a bridge, whose messages are its port driver's"
        domain = self._wishes.domains.get(function.sbdf, 0)
        if domain:
            return f"it is domain {domain}'s"
        return obstacle(function, state, self._wishes.backend)

    def _demand(self, function: Function, state: MsiState) -> Demand:
        """MSI-X before MSI; of several MSI messages a power of two, in a run."""
        entries = self._wishes.entries
        if state.msix is not None:
            wants = min(state.msix.vectors, len(self._allowed) if entries is None else entries)
            return Demand(function=function.sbdf, wants=max(wants, 1), node=function.numa_node)
        assert state.msi is not None
        wants = max(min(state.msi.vectors_capable, 1 if entries is None else entries), 1)
        wants = 1 << wants.bit_length() - 1
        return Demand(function=function.sbdf, wants=wants, run=wants > 1, node=function.numa_node)

    # --- what drivers have ---

    def _move_requested(self) -> None:
        """Through Linux, and only what goes, or may go, where the policy does not let it."""
        if self._wishes.policy is None or self._wishes.backend is Backend.LIBRARY:
            return
        if self._wishes.backend is Backend.XEN:
            self._left.append(Left("what drivers have requested", "under Xen it goes with the virtual processor"))
            return
        functions = {function.sbdf: function for function in self._platform.functions}
        for line in self._table.lines:
            if line.requested_by and line.irq:  # not IRQ 0: the timer of one processor
                nodes = {functions[each].numa_node for each in line.functions if each in functions}
                self._move(f"GSI {line.gsi}", (line.irq,), (line.cpu,), nodes.pop() if len(nodes) == 1 else None)
        for messages in self._table.messages:
            function = functions[messages.function]
            if messages.mode is InterruptMode.MSIX and function.class_code >> 16 == STORAGE and messages.irqs:
                why = "Linux itself manages the affinity of a storage driver's messages"
                self._left.append(Left(str(function.sbdf), why))
            elif messages.used:
                self._move(
                    str(function.sbdf), messages.irqs, messages.cpus or (None,) * len(messages.irqs), function.numa_node
                )

    def _move(self, what: str, irqs: Iterable[int], now: Iterable[int | None], node: int | None) -> None:
        allowed = [cpu for cpu in self._allowed if cpu.linux is not None]
        if self._policy.strategy is Strategy.NODE:
            allowed = [cpu for cpu in allowed if cpu.node == node]
        elif self._policy.strategy is Strategy.SPREAD:
            allowed = []
        numbers = sorted(cpu.linux for cpu in allowed if cpu.linux is not None)
        for irq, cpu in zip(irqs, now, strict=True):
            if numbers and (cpu is None or cpu not in numbers):
                self._operations.append(SetLinuxAffinity(irq=irq, cpus=_list(numbers), why=what))


def _ecam_ranges(platform: Platform) -> Iterator[tuple[int, int, int, int]]:
    """Segment, first and last bus, address of bus 0: of the first MCFG that is whole, ranges that can be, each bus in
    one. A hypervisor knows no others."""
    taken: list[tuple[int, int, int]] = []
    table = next((t for t in platform.tables if isinstance(t.content, Mcfg) and t.checksum_ok), None)
    for each in table.content.allocations if table is not None and isinstance(table.content, Mcfg) else ():
        place = each.segment, each.start_bus, each.end_bus
        clear = all(each.segment != s or each.end_bus < first or last < each.start_bus for s, first, last in taken)
        if each.start_bus <= each.end_bus and each.base_address and not each.base_address % ECAM_BUS and clear:
            taken.append(place)
            yield (*place, each.base_address)


def _list(numbers: Sequence[int]) -> str:
    """``0-3,8``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
