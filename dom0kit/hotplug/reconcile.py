# SPDX-License-Identifier: MIT
"""What kernel and hypervisor have is brought together, again and again: each step looks at both and plans what differs.

An event only says that it is worth looking, and where. So it does not matter whether one was lost, came twice, or told
of something that is gone again; and a step that was killed is made up by the next. Each difference becomes a Plan and
goes through `dom0kit.hypercall.apply` with a journal, which is undone at the next start where the process was killed.

The order of a step is: what went is given back; what came is told and quarantined, before anything else is read; the
Platform follows; GSIs nobody uses any more are freed; IOAPICs go, and come; functions go where the policy wants them.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Final, Protocol

import msgspec

from dom0kit.abi import Status
from dom0kit.acpi.aml_values import Evaluate
from dom0kit.acpi.tables.madt import Ioapic as MadtIoapic
from dom0kit.acpi.tables.madt import of_mat
from dom0kit.address import Gsi, Sbdf
from dom0kit.finding import Finding
from dom0kit.hotplug import findings as rules
from dom0kit.hotplug import plans
from dom0kit.hotplug.ledger import Entry, KnownIoapic, Ledger, LineOf, Store
from dom0kit.hotplug.monitor import Batch
from dom0kit.hotplug.policy import Action, Decision, Flapping, HotplugPolicy, path_of, slot_of
from dom0kit.hotplug.view import Changing, View
from dom0kit.hypercall.apply import NotApplied, NotUndone, apply, recover
from dom0kit.hypercall.interface import HypercallRefused, Hypervisor
from dom0kit.hypercall.journal import Disk, JournalError, Journals
from dom0kit.hypercall.linux import Linux, LinuxRefused
from dom0kit.hypercall.shared_info import NotShared, SharedIoapicEntry
from dom0kit.hypercall.world import World
from dom0kit.ioapic.intx import IntxRoute
from dom0kit.ioapic.namespace import ioapic_devices
from dom0kit.pci.capabilities.express import Express
from dom0kit.pci.config_space import decode_function
from dom0kit.pci.function import Function
from dom0kit.pci.topology import Topology, build
from dom0kit.plan import AnyFact, AnyOperation, Backend, UnmapPirq
from dom0kit.platform import Platform

_MOST_MESSAGES: Final = 64
"""That a function gets with its domain, though it had more processors."""
_IOAPIC_CLASSES: Final = (0x080010, 0x080020)
_NOTHING: Final = Batch()
_SEGMENTS: Final = 1 << 16
"""Hypercalls have room for no more."""


class Kernel(Protocol):
    """The functions of a machine as they come and go, and Linux."""

    @property
    def linux(self) -> Linux: ...

    def open_source(self) -> Changing: ...

    def incarnations(self) -> Mapping[Sbdf, int]:
        """Every function there is now, with a number that no earlier appearance at this address had."""


class Check(Protocol):
    """A rule of partitioning."""

    def __call__(
        self, platform: Platform, function: Sbdf, domain: int, wanted: Mapping[Sbdf, int | None]
    ) -> Iterable[Finding]:
        """What forbids giving a function to a domain; `wanted`: the domain that each function is or will be given to,
        None of those that nobody has."""


def undivided(platform: Platform, function: Sbdf, domain: int, wanted: Mapping[Sbdf, int | None]) -> Iterator[Finding]:
    """An isolation group goes to one domain, its bridges aside."""
    bridges = {each.sbdf for each in platform.functions if each.buses is not None}
    for group in platform.groups:
        if function in group.functions:
            others = [
                each for each in group.functions if each not in bridges and wanted.get(each, 0) not in (domain, None)
            ]
            if others:
                named = ", ".join(f"{each} is domain {wanted.get(each, 0)}'s" for each in others[:4])
                yield rules.GROUP.at(f"pci:{function}", f"it is for domain {domain}, but {named}")


class ChangeKind(enum.Enum):
    """What a step did."""

    ARRIVED = "arrived"
    GIVEN = "given"
    EVICTED = "evicted"
    """A driver of dom0 that was quicker than the quarantine was unbound."""
    DEPARTED = "departed"
    PULLED = "pulled"
    GSI_FREED = "gsi freed"
    IOAPIC_ADDED = "ioapic added"
    IOAPIC_REMOVED = "ioapic removed"
    ENUMERATED = "enumerated"
    """Everything was read again."""
    RECOVERED = "recovered"
    """A plan that was interrupted was undone."""


class Change(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that happened, and what it changed."""

    kind: ChangeKind
    what: str
    """A sentence without its full stop."""
    function: Sbdf | None = None
    path: str = ""
    """As in policies: root bus, device and function of every bridge."""
    slot: int | None = None
    action: Action | None = None
    domain: int | None = None
    """To whom it was given, or who lost it."""
    gsis: tuple[int, ...] = ()
    pirqs: tuple[int, ...] = ()
    vectors: int = 0
    """How many came into use, or became free."""
    group: tuple[Sbdf, ...] = ()
    """Its isolation group."""
    seconds: float | None = None
    """From the event until the hypervisor was told; None where no event told of it."""


class Reconciler:
    """One machine. `start` once, then `step` at each batch of events, and now and then without one."""

    def __init__(
        self,
        kernel: Kernel,
        hypervisor: Hypervisor | None,
        backend: Backend,
        policy: HotplugPolicy,
        *,
        folder: str,
        boot: str,
        check: Check = undivided,
        clock: Callable[[], float] = time.monotonic,
        disk: Disk | None = None,
        aml: bool = True,
        kernel_aml: Evaluate | None = None,
    ) -> None:
        """`folder`: of journals and ledger; `boot`: Linux's boot id; `clock`: seconds, never going back."""
        self.findings: tuple[Finding, ...] = ()
        """What is wrong now; what a later step could put right goes away by itself."""
        self._kernel = kernel
        self._hypervisor = hypervisor
        self._backend = backend
        self._policy = policy
        self._folder = folder
        self._boot = boot
        self._check = check
        self._clock = clock
        self._disk = disk
        self._aml = aml
        self._kernel_aml = kernel_aml
        self._store = Store(folder)
        self._flapping = Flapping(policy.limits)
        self._entries: dict[Sbdf, Entry] = {}
        self._lines: set[LineOf] = set()
        self._ioapics: dict[int, KnownIoapic] = {}
        self._saved: Ledger | None = None
        self._silent: dict[Sbdf, float] = {}
        """Functions that read as all ones, and since when."""
        self._changes: list[Change] = []
        self._wrong: list[Finding] = []
        self._received: dict[Sbdf, float] = {}
        self._tree: Topology | None = None
        """Of the functions that are known, also of those that were not read with all of their trees yet."""
        self._view: View

    @property
    def platform(self) -> Platform:
        """The machine as it was last read."""
        return self._view.platform

    @property
    def entries(self) -> Mapping[Sbdf, Entry]:
        """Every function that was seen, and what was decided of it."""
        return self._entries

    # ---- The beginning and the end ----

    def start(self) -> Sequence[Change]:
        """Undoes what was interrupted, reads the machine, and makes up what happened since. NotUndone, JournalError.

        Without a ledger of this boot, the functions that are there belong to dom0.
        """
        if self._backend is not Backend.LINUX and self._hypervisor is None:
            raise ValueError(f"{self._backend.value} has a hypervisor")
        self._begin()
        self._recover()
        now = self._kernel.incarnations()
        self._view = View(self._kernel.open_source, aml=self._aml, kernel_aml=self._kernel_aml)
        self._tree = self.platform.topology
        ledger, why = self._store.load(self._boot)
        if why:
            self._wrong.append(rules.LEDGER.at("ledger", why))
        if ledger is not None:
            self._saved = ledger
            self._entries = {entry.function: entry for entry in ledger.functions}
            self._lines = set(ledger.lines)
            self._ioapics = {each.address: each for each in ledger.ioapics}
        else:
            self._first(now)
        self._reconcile(_NOTHING, everything=False)
        return self._end()

    def step(self, batch: Batch = _NOTHING) -> Sequence[Change]:
        """One round; what it did."""
        self._begin()
        if batch.lost:
            self._wrong.append(rules.LOST.at("netlink", "everything was enumerated again"))
            self._changes.append(Change(kind=ChangeKind.ENUMERATED, what="events were lost: everything is read again"))
        self._reconcile(batch, everything=batch.lost or any(event.is_of_firmware for event in batch.events))
        return self._end()

    def _begin(self) -> None:
        self._changes, self._wrong, self._received = [], [], {}

    def _end(self) -> Sequence[Change]:
        self._save()
        self.findings = tuple(dict.fromkeys(self._wrong))
        return tuple(self._changes)

    def _recover(self) -> None:
        with Journals(self._folder, self._disk) as journals:
            recovery = recover(journals, self._world, boot=self._boot)
            for number in journals.numbers():
                if journals.read(number).plan.title.startswith(plans.TITLE):
                    journals.remove(number)  # it was done; the process died before it could say that it has no way back
        if recovery.returned is not None:
            what = f"{recovery.returned.title} was interrupted, and is undone"
            self._changes.append(Change(kind=ChangeKind.RECOVERED, what=what))

    def _world(self, backend: Backend) -> World:
        return World(backend, self._hypervisor, self._kernel.linux)

    def _save(self) -> None:
        ledger = Ledger(
            boot=self._boot,
            functions=tuple(entry for _, entry in sorted(self._entries.items())),
            lines=tuple(sorted(self._lines, key=lambda line: line.gsi)),
            ioapics=tuple(each for _, each in sorted(self._ioapics.items())),
        )
        if ledger != self._saved:
            self._store.save(ledger)
            self._saved = ledger

    def _apply(self, where: str, title: str, operations: Iterable[AnyOperation], facts: Iterable[AnyFact] = ()) -> bool:
        """Whether it could be done; a finding where not. What could not even be undone is tried again by the next."""
        try:
            made = plans.plan(title, self.platform, self._backend, operations, facts)
            if not made.operations:
                return True
            self._save()
            with Journals(self._folder, self._disk) as journals:
                recover(journals, self._world, boot=self._boot)
                apply(
                    made,
                    self._world(self._backend),
                    journals,
                    fingerprint=made.fingerprint,
                    boot=self._boot,
                    irreversible=True,  # what a function leaves behind cannot be left
                    way_back=False,
                )
        except (NotApplied, NotUndone, JournalError, HypercallRefused, NotShared, ValueError) as refusal:
            self._wrong.append(rules.NOT_DONE.at(where, f"{title}: {refusal}"))
            return False
        return True

    # ---- A round ----

    def _first(self, now: Mapping[Sbdf, int]) -> None:
        """Functions that are there from the beginning are dom0's."""
        for function in self.platform.functions:
            if function.sbdf in now and function.answers:
                decision = Decision(Action.KEEP, None, "it was there from the beginning")
                self._entries[function.sbdf] = self._entry(function, now[function.sbdf], decision, hot=False)

    def _reconcile(self, batch: Batch, *, everything: bool) -> None:
        now = self._kernel.incarnations()
        changed = {event.function for event in batch.events if event.function is not None}
        for event in batch.events:
            if event.function is not None:
                self._received.setdefault(event.function, event.received)
        self._go(
            sorted(entry.function for entry in self._entries.values() if now.get(entry.function) != entry.incarnation)
        )
        time_now = self._clock()
        for sbdf in self._flapping.over(time_now):
            self._entries.pop(sbdf, None)  # it is decided on anew
        came = {sbdf for sbdf in now if sbdf not in self._entries}
        self._come(came, now)
        if everything:
            self._view.enumerate()
        elif came or changed or self._silent or set(self._view.addresses) != now.keys():
            self._view.refresh((*changed, *came, *self._silent))
        self._tree = self.platform.topology
        self._remember_tables()
        self._complete()
        self._look_for_silence()
        self._free_lines()
        self._remove_ioapics()
        self._add_ioapics()
        self._evict()
        self._tell()
        self._place()

    # ---- Functions that go ----

    def _go(self, gone: Sequence[Sbdf], *, pulled: bool = False) -> None:
        """Virtual functions first: the core keeps a physical one as long as it has some."""
        for sbdf in sorted(gone, key=lambda each: (self._entries[each].physical is None, each)):
            entry = self._entries[sbdf]
            surprised = pulled or sbdf in self._silent
            pirqs = self._take_back(entry)
            if pirqs is None:
                continue
            del self._entries[sbdf]
            if surprised:
                message = "it read as all ones while the kernel still had it"
                self._wrong.append(rules.SURPRISE.at(f"pci:{sbdf}", message))
            self._changes.append(self._departed(entry, surprised, pirqs))

    def _take_back(self, entry: Entry) -> tuple[int, ...] | None:
        """The pIRQs that are free now; None where the hypervisor refuses."""
        if not self._backend.is_core or self._hypervisor is None or entry.action is Action.REFUSE:
            return ()
        where, title = f"pci:{entry.function}", f"{entry.function} is gone"
        try:
            operations = tuple(plans.departure(entry, self._hypervisor))
        except (HypercallRefused, ValueError) as refusal:
            self._wrong.append(rules.NOT_DONE.at(where, f"{title}: {refusal}"))
            return None
        if not self._apply(where, title, operations):
            return None
        unmapped = (each for each in operations if isinstance(each, UnmapPirq))
        return tuple(pirq for each in unmapped for pirq in range(each.pirq, each.pirq + each.count))

    def _departed(self, entry: Entry, pulled: bool, pirqs: tuple[int, ...]) -> Change:
        lost = f"; domain {entry.domain} has lost it" if entry.domain is not None and entry.placed else ""
        how = "was pulled without notice" if pulled else "is gone"
        return self._change(
            ChangeKind.PULLED if pulled else ChangeKind.DEPARTED,
            entry.function,
            f"{entry.function} {entry.vendor:04x}:{entry.device:04x} {how}{lost}",
            domain=entry.domain if entry.placed else None,
            pirqs=pirqs,
            vectors=len(pirqs),
        )

    def _look_for_silence(self) -> None:
        """Functions that read as all ones: after a while they count as pulled. A reset also takes a moment."""
        time_now = self._clock()
        answers = {each.sbdf: each.answers for each in self.platform.functions}
        self._silent = {sbdf: self._silent.get(sbdf, time_now) for sbdf, speaks in answers.items() if not speaks}
        grace = self._policy.limits.grace
        gone = [sbdf for sbdf, since in self._silent.items() if sbdf in self._entries and time_now - since >= grace]
        self._go(gone, pulled=True)

    def _free_lines(self) -> None:
        """GSIs of domains, none of whose functions leads there any more."""
        if not self._backend.is_core or self._hypervisor is None:
            return
        used = {
            LineOf(gsi=Gsi(route.gsi), domain=entry.domain)
            for route in self.platform.routes
            if route.gsi is not None
            and (entry := self._entries.get(route.sbdf)) is not None
            and entry.domain is not None
            and entry.action is Action.GIVE
        }
        for line in sorted(self._lines - used, key=lambda each: each.gsi):
            title = f"GSI {line.gsi} is free"
            try:
                operations = list(plans.line_back(line, self._hypervisor))
            except HypercallRefused as refusal:
                if refusal.status is not Status.NO_DOMAIN:
                    self._wrong.append(rules.NOT_DONE.at(f"gsi:{line.gsi}", f"{title}: {refusal}"))
                    continue
                operations = []  # with a domain its GSIs go
            if self._apply(f"gsi:{line.gsi}", title, operations):
                self._lines.discard(line)
                what = f"GSI {line.gsi} is domain 0's again"
                change = Change(kind=ChangeKind.GSI_FREED, what=what, gsis=(line.gsi,), domain=line.domain)
                self._changes.append(change)

    # ---- Functions that come ----

    def _come(self, came: set[Sbdf], now: Mapping[Sbdf, int]) -> None:
        """Reads them, decides, and tells; physical functions before their virtual ones."""
        if not came:
            return
        raws = list(self._kernel.open_source().functions(came))
        functions = [decode_function(raw)[0] for raw in raws]
        topology, _ = build([*(each for each in self.platform.functions if each.sbdf not in came), *functions])
        self._tree = topology
        time_now = self._clock()
        for function in sorted(functions, key=lambda each: (each.physical_function is not None, each.sbdf)):
            if function.sbdf not in now or not function.answers or not _is_known(function):
                continue
            decision = self._decide(function, topology, time_now)
            entry = self._entry(function, now[function.sbdf], decision, hot=True)
            self._entries[function.sbdf] = entry
            self._tell_of(entry)

    def _remember_tables(self) -> None:
        """Where MSI-X tables are: by that messages are unmapped, and a function that is gone does not tell."""
        for state in self.platform.msi:
            entry = self._entries.get(state.sbdf)
            table = state.msix.table_address if state.msix is not None else None
            if entry is not None and table and entry.table != table:
                self._entries[state.sbdf] = msgspec.structs.replace(entry, table=table)

    def _decide(self, function: Function, topology: Topology, time_now: float) -> Decision:
        limits, where = self._policy.limits, f"pci:{function.sbdf}"
        if function.buses is not None or function.class_code in _IOAPIC_CLASSES:
            return Decision(Action.KEEP, None, "bridges and IOAPICs are dom0's")
        if self._flapping.arrived(function.sbdf, time_now):
            message = f"more than {limits.arrivals} arrivals in {limits.seconds:g} s"
            self._wrong.append(rules.FLAPPING.at(where, message))
            return Decision(Action.REFUSE, None, message)
        if sum(entry.hot and entry.action is not Action.REFUSE for entry in self._entries.values()) >= limits.functions:
            message = f"{limits.functions} functions were added already"
            self._wrong.append(rules.TOO_MANY.at(where, message))
            return Decision(Action.REFUSE, None, message)
        return self._policy.decide(function, topology)

    def _entry(self, function: Function, incarnation: int, decision: Decision, *, hot: bool) -> Entry:
        tree = self._tree
        physical = function.physical_function or (tree.physical_function(function.sbdf) if tree is not None else None)
        return Entry(
            function=function.sbdf,
            incarnation=incarnation,
            vendor=function.vendor,
            device=function.device,
            physical=physical,
            extended=_is_extended(function, tree, self.platform.functions),
            pxm=function.numa_node if function.numa_node is not None and function.numa_node >= 0 else None,
            action=decision.action,
            domain=decision.domain,
            why=decision.why,
            hot=hot,
        )

    def _tell(self) -> None:
        """Of those that could not be told before; those there from the beginning all at once."""
        waiting = sorted(
            (entry for entry in self._entries.values() if not entry.told),
            key=lambda each: (each.physical is not None, each.function),
        )
        first = [entry for entry in waiting if not entry.hot and entry.function.segment < _SEGMENTS]
        operations = [each for entry in first for each in plans.arrival(entry, self._backend)]
        if first and self._apply("pci", "the functions from the beginning", operations):
            for entry in first:
                self._entries[entry.function] = msgspec.structs.replace(entry, told=True, placed=True)
            waiting = [entry for entry in waiting if entry not in first]
        for entry in waiting:
            self._tell_of(entry)

    def _tell_of(self, entry: Entry) -> None:
        sbdf = entry.function
        facts = plans.facts(entry) if entry.hot else ()
        operations = plans.arrival(entry, self._backend) if sbdf.segment < _SEGMENTS else ()
        if not self._apply(f"pci:{sbdf}", f"{sbdf} has appeared", operations, facts):
            return
        self._entries[sbdf] = msgspec.structs.replace(entry, told=True, placed=entry.action is not Action.GIVE)
        if entry.hot:
            state = {Action.REFUSE: "refused", Action.KEEP: "for dom0"}.get(entry.action, "in quarantine")
            what = f"{sbdf} {entry.vendor:04x}:{entry.device:04x} has appeared"
            if not self._policy.keeps_everything:
                what += f", {state} ({entry.why})"
            self._changes.append(self._change(ChangeKind.ARRIVED, sbdf, what, action=entry.action))

    def _evict(self) -> None:
        """Drivers that were quicker than a function's override."""
        for function in self.platform.functions:
            entry = self._entries.get(function.sbdf)
            if function.driver in (None, plans.holder(self._backend)) or entry is None or not entry.hot:
                continue
            if entry.told and entry.action is not Action.KEEP:
                sbdf, driver = function.sbdf, function.driver
                title = f"{driver} lets go of {sbdf}"
                if self._apply(f"pci:{sbdf}", title, plans.eviction(sbdf, driver), plans.facts(entry)):
                    self._wrong.append(rules.BOUND_FIRST.at(f"pci:{sbdf}", f"{driver} had it"))
                    self._changes.append(self._change(ChangeKind.EVICTED, sbdf, title))

    # ---- Where they belong ----

    def _place(self) -> None:
        waiting = [entry for entry in self._entries.values() if entry.told and not entry.placed]
        for entry in sorted(waiting, key=lambda each: each.function):
            if entry.action is Action.GIVE and entry.domain is not None:
                try:
                    self._give(entry, entry.domain)
                except (HypercallRefused, LinuxRefused) as refusal:
                    self._wrong.append(rules.NOT_DONE.at(f"pci:{entry.function}", f"it is not given: {refusal}"))

    def _give(self, entry: Entry, domain: int) -> None:
        sbdf, platform = entry.function, self.platform
        where = f"pci:{sbdf}"
        if self._backend.is_core and not self._has_domain(domain):
            self._wrong.append(rules.NO_DOMAIN.at(where, f"it is for domain {domain}"))
            return
        forbidden = tuple(self._check(platform, sbdf, domain, self._wanted()))
        self._wrong += forbidden
        if forbidden:
            return
        state = next((each for each in platform.msi if each.sbdf == sbdf), None)
        route = next((each for each in platform.routes if each.sbdf == sbdf and each.gsi is not None), None)
        gsi = None if route is None else route.gsi
        if self._backend.is_core and gsi is not None:
            sharers = self._sharers(Gsi(gsi), sbdf, domain)
            if not sharers:
                self._lines.add(LineOf(gsi=Gsi(gsi), domain=domain))
            else:
                message = f"GSI {gsi} is also of {', '.join(sharers[:4])}"
                if state is None or (state.msi is None and state.msix is None):
                    self._wrong.append(rules.MUTE.at(where, message))
                    return
                self._wrong.append(rules.SHARED_GSI.at(where, message))
                route = None
        messages = min(max(1, self._processors()), _MOST_MESSAGES)
        operations = tuple(plans.gift(entry, self._backend, domain, route, state, messages))
        facts = plans.gift_facts(entry, self._backend)
        if not self._apply(where, f"{sbdf} goes to domain {domain}", operations, facts):
            return
        self._entries[sbdf] = msgspec.structs.replace(entry, placed=True)
        what = f"{sbdf} is given to domain {domain} ({entry.why})"
        change = self._change(ChangeKind.GIVEN, sbdf, what, action=entry.action, domain=domain)
        self._changes.append(msgspec.structs.replace(change, **self._interrupts(sbdf, domain, route)))

    def _interrupts(self, sbdf: Sbdf, domain: int, route: IntxRoute | None) -> dict[str, object]:
        if not self._backend.is_core or self._hypervisor is None:
            return {}
        gsi = None if route is None else route.gsi
        mine = [
            each
            for each in self._hypervisor.interrupts(domain)
            if each.function == sbdf or (gsi is not None and each.gsi == gsi)
        ]
        return {
            "gsis": () if gsi is None else (gsi,),
            "pirqs": tuple(each.pirq for each in mine if each.pirq is not None),
            "vectors": sum(each.vector is not None for each in mine),
        }

    def _wanted(self) -> Mapping[Sbdf, int | None]:
        """Whose each function is, or will be; nobody's in quarantine."""
        owners: dict[Sbdf, int | None] = {}
        for sbdf, entry in self._entries.items():
            owners[sbdf] = entry.domain if entry.action is Action.GIVE else 0 if entry.action is Action.KEEP else None
        return owners

    def _sharers(self, gsi: Gsi, sbdf: Sbdf, domain: int) -> list[str]:
        """Who else uses a GSI, but functions of the same domain."""
        wanted = self._wanted()
        found = [
            str(each)
            for line in self.platform.lines
            if line.gsi == gsi
            for each in line.functions
            if each != sbdf and wanted.get(each, 0) != domain
        ]
        return [*found, *(f"the driver {user}" for user in self._world(self._backend).users(gsi))]

    def _processors(self) -> int:
        if self._backend.is_core and self._hypervisor is not None:
            return self._hypervisor.information().cpus
        return 1

    def _has_domain(self, domain: int) -> bool:
        return self._world(self._backend).has_domain(domain)

    # ---- IOAPICs ----

    def _add_ioapics(self) -> None:
        """Those that the namespace has and the hypervisor has not."""
        if self._backend is Backend.LINUX:
            return
        if self._backend is Backend.XEN:
            self._wrong += [
                rules.IOAPIC_NO_CALL.at(f"ioapic:{each.id}", f"{each.aml_path}, at {each.address:#x}")
                for each in self.platform.ioapics
                if not each.in_madt
            ]
            return
        self._wrong += self._contradictions()
        known = {each.address: each for each in self._hypervisor_ioapics()}
        for ioapic in self.platform.ioapics:
            there = known.get(ioapic.address)
            # One of the MADT that the hypervisor lacks was taken away when its device went.
            if there is None and (ioapic.aml_path is not None or not ioapic.in_madt):
                where = f"ioapic:{ioapic.id}"
                other = next((each for each in known.values() if _has_gsi(each, ioapic.gsi_base)), None)
                if other is not None:
                    last = other.gsi_base + other.pins - 1
                    message = (
                        f"GSI base {ioapic.gsi_base}; the one at {other.address:#x} has {other.gsi_base} to {last}"
                    )
                    self._wrong.append(rules.IOAPIC_OVERLAP.at(where, message))
                    continue
                title = f"an IOAPIC has appeared at {ioapic.address:#x}"
                if not self._apply(where, title, plans.ioapic_arrival(ioapic)):
                    continue
                known = {each.address: each for each in self._hypervisor_ioapics()}
                there = known.get(ioapic.address)
                pins = 0 if there is None else there.pins
                gsis = tuple(range(ioapic.gsi_base, ioapic.gsi_base + pins))
                what = f"{title}, {pins} pins from GSI {ioapic.gsi_base} on ({ioapic.aml_path})"
                self._changes.append(Change(kind=ChangeKind.IOAPIC_ADDED, what=what, gsis=gsis))
            if there is not None and ioapic.aml_path is not None:
                self._ioapics[ioapic.address] = KnownIoapic(
                    address=ioapic.address, gsi_base=there.gsi_base, path=ioapic.aml_path
                )

    def _contradictions(self) -> Iterator[Finding]:
        """IOAPICs' devices whose objects differ."""
        namespace = self.platform.namespace
        for device in ioapic_devices(namespace, {}) if namespace is not None else ():
            aml = namespace.device(device.path) if namespace is not None else None
            for entry in of_mat(None if aml is None else aml.mat):
                if not isinstance(entry, MadtIoapic):
                    continue
                for name, said, other in (
                    ("_GSB", device.gsi_base, entry.gsi_base),
                    ("_CRS", device.address, entry.address),
                ):
                    if said is not None and said != other:
                        message = f"{name} says {said:#x}, _MAT {other:#x}"
                        yield rules.IOAPIC_CONTRADICTION.at(f"aml:{device.path}", message)

    def _remove_ioapics(self) -> None:
        """Those whose device in the namespace is gone, or says that it is not present."""
        namespace = self.platform.namespace
        if not self._backend.is_core or namespace is None or not self._ioapics:
            return
        present = {device.path: device.address for device in ioapic_devices(namespace, {})}
        moved = {
            each.address
            for each in self.platform.ioapics
            if not each.in_madt
            and each.address in self._ioapics
            and each.gsi_base != self._ioapics[each.address].gsi_base
        }
        there = {each.address: each for each in self._hypervisor_ioapics()}
        gone = [
            each
            for each in self._ioapics.values()
            if present.get(each.path, 0) not in (each.address, None) or each.address in moved
        ]
        for known in gone:
            ioapic = there.get(known.address)
            users = [] if ioapic is None else self._users(ioapic)
            where = f"ioapic:{known.address:#x}"
            if users:
                how = "has another GSI base" if known.address in moved else "is gone"
                self._wrong.append(rules.IOAPIC_IN_USE.at(where, f"{known.path} {how}; {'; '.join(users[:8])}"))
                continue
            title = f"the IOAPIC at {known.address:#x} is gone"
            if self._apply(where, title, plans.ioapic_departure(known)):
                del self._ioapics[known.address]
                gsis = () if ioapic is None else tuple(range(ioapic.gsi_base, ioapic.gsi_base + ioapic.pins))
                change = Change(kind=ChangeKind.IOAPIC_REMOVED, what=f"{title} ({known.path})", gsis=gsis)
                self._changes.append(change)

    def _users(self, ioapic: SharedIoapicEntry) -> list[str]:
        """Who uses the pins of an IOAPIC, in words."""
        assert self._hypervisor is not None
        functions = {line.gsi: line.functions for line in self.platform.lines}
        users = []
        domains = {line.domain for line in self._lines} | {each.domain or 0 for each in self._entries.values()} | {0}
        for domain in sorted(domains):
            with suppress(HypercallRefused):
                for each in self._hypervisor.interrupts(domain):
                    if each.gsi is not None and _has_gsi(ioapic, each.gsi):
                        named = ", ".join(map(str, functions.get(each.gsi, ())))
                        users.append(f"GSI {each.gsi} is used by domain {domain}{f' for {named}' if named else ''}")
        return users

    def _hypervisor_ioapics(self) -> Sequence[SharedIoapicEntry]:
        try:
            return self._hypervisor.shared_info().ioapics if self._hypervisor is not None else ()
        except (HypercallRefused, NotShared) as refused:
            self._wrong.append(rules.NOT_DONE.at("shared_info", f"the hypervisor's IOAPICs cannot be read: {refused}"))
            return ()

    # ---- Words ----

    def _change(self, kind: ChangeKind, sbdf: Sbdf, what: str, **more: object) -> Change:
        tree = self._tree
        at = self._received.get(sbdf)
        is_in = tree is not None and tree.kind(sbdf) is not None
        return Change(
            kind=kind,
            what=what,
            function=sbdf,
            path=path_of(sbdf, tree) if is_in and tree is not None else "",
            slot=slot_of(sbdf, tree) if is_in and tree is not None else None,
            group=self._group(sbdf),
            seconds=None if at is None else max(0.0, self._clock() - at),
            **more,  # type: ignore[arg-type]
        )

    def _group(self, sbdf: Sbdf) -> tuple[Sbdf, ...]:
        return next((group.functions for group in self.platform.groups if sbdf in group.functions), ())

    def _complete(self) -> None:
        """What is only known of arrivals now that the Platform has them."""
        gsis = {route.sbdf: route.gsi for route in self.platform.routes}
        for index, change in enumerate(self._changes):
            if change.kind is ChangeKind.ARRIVED and change.function is not None:
                gsi = gsis.get(change.function)
                self._changes[index] = msgspec.structs.replace(
                    change, group=self._group(change.function), gsis=() if gsi is None else (gsi,)
                )


def _is_known(function: Function) -> bool:
    """Its ids are those of a device: none has 0 or all ones."""
    return function.vendor not in (0, 0xFFFF)


def _is_extended(function: Function, topology: Topology | None, functions: Sequence[Function]) -> bool:
    """A device number other than 0 behind a port that forwards by ARI belongs to the function number."""
    above = None if topology is None else topology.upstream(function.sbdf)
    if above is None or not function.sbdf.device:
        return False
    return any(
        each.device2 is not None and each.device2.ari_forwarding
        for bridge in functions
        if bridge.sbdf == above
        for each in bridge.capabilities
        if isinstance(each, Express)
    )


def _has_gsi(ioapic: SharedIoapicEntry, gsi: int) -> bool:
    return ioapic.gsi_base <= gsi < ioapic.gsi_base + ioapic.pins
