# SPDX-License-Identifier: MIT
"""What the service does, without any event loop: start, step, reload. Everything it acts upon is given to it.

On start: what was interrupted is undone, the machine observed and written down, shared_info handed over, the plans of
/etc/dom0kit applied that are not applied yet. Which these are the journal says, so a service that was killed goes on
where it was. Then `step`, at each batch of the kernel's events.
"""

from __future__ import annotations

import os
import stat
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, Protocol

import msgspec

from dom0kit.finding import Finding, Severity
from dom0kit.hotplug.monitor import Batch
from dom0kit.hotplug.reconcile import Change, Kernel, Reconciler
from dom0kit.hypercall.apply import NotApplied, NotUndone, apply
from dom0kit.hypercall.interface import Hypervisor
from dom0kit.hypercall.journal import Disk, JournalError, Journals
from dom0kit.hypercall.shared_info import SharedInfo
from dom0kit.hypercall.world import World
from dom0kit.plan import Backend, Plan
from dom0kit.platform import Platform
from dom0kit.serial import pieces
from dom0kit.service.findings import NO_HYPERVISOR, PLAN_LEFT
from dom0kit.service.hand_over import NotHandedOver, hand_over
from dom0kit.service.settings import NamedPlan, Settings
from dom0kit.service.systemd import ERROR, INFO, NOTICE, WARNING
from dom0kit.source.pointers import Pointers

PLATFORM: Final = "platform.json"
_REMEMBERED: Final = 256
"""Events that a client can still ask for."""
_PRIORITY: Final = {Severity.ERROR: ERROR, Severity.WARNING: WARNING, Severity.INFO: INFO}


class NotStarted(Exception):
    """The machine is not as /etc/dom0kit wants it; the message says why. Nothing was half done."""


class Log(Protocol):
    """Where the service writes."""

    def log(self, priority: int, message: str, **fields: object) -> None: ...


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened, for clients and the journal."""

    number: int
    """From 1 on, without gaps, since the service started."""
    kind: str
    what: str
    function: str | None = None
    slot: int | None = None
    domain: int | None = None


class PlanState(msgspec.Struct, frozen=True, kw_only=True):
    """A plan of /etc/dom0kit."""

    name: str
    title: str
    adopted: bool
    """It was applied before this service started."""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine works on."""

    kernel: Kernel
    hypervisor: Hypervisor | None
    backend: Backend
    boot: str
    """Linux's boot id."""
    folder: str
    """Of journals, ledger and the written Platform."""
    pointers: Callable[[], Pointers]
    """Where dom0 saw the ACPI tables."""


class Engine:
    """One machine. `start` once; then `step` and `reload`."""

    def __init__(
        self, machine: Machine, settings: Settings, log: Log, *, disk: Disk | None = None, aml: bool = True
    ) -> None:
        self.settings = settings
        self.plans: tuple[PlanState, ...] = ()
        self.shared: SharedInfo | None = None
        self.events: deque[Event] = deque(maxlen=_REMEMBERED)
        self.counts: Counter[str] = Counter()
        """How often each kind of event happened."""
        self._machine = machine
        self._log = log
        self._disk = disk
        self._aml = aml
        self._number = 0
        self._below: tuple[Finding, ...] = ()
        self._left: tuple[Finding, ...] = ()
        self._told: set[Finding] = set()
        self._written: Platform | None = None
        self._reconciler: Reconciler

    @property
    def platform(self) -> Platform:
        return self._reconciler.platform

    @property
    def backend(self) -> Backend:
        return self._machine.backend

    @property
    def hypervisor(self) -> Hypervisor | None:
        return self._machine.hypervisor

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Of the machine, of hotplug, of the service; each once."""
        own = (*self._below, *self._left)
        return tuple(dict.fromkeys((*own, *self._reconciler.findings, *self.platform.findings)))

    def start(self) -> Sequence[Event]:
        """NotStarted, with everything as it was, or up to where it got by whole plans."""
        return self._put_right(self.settings)

    def step(self, batch: Batch) -> Sequence[Event]:
        """One round of hotplug. OSError where the Platform cannot be written; NotUndone is logged: the next tries."""
        try:
            changes = self._reconciler.step(batch)
        except NotUndone as failure:
            self._log.log(ERROR, str(failure), event="not-undone")
            return ()
        return self._happened(changes)

    def reload(self, settings: Settings) -> Sequence[Event]:
        """Reads everything again, and applies what is new in the settings. NotStarted: what was, stays."""
        return self._put_right(settings)

    # ---- Start ----

    def _made(self, settings: Settings) -> Reconciler:
        machine = self._machine
        return Reconciler(
            machine.kernel,
            machine.hypervisor,
            machine.backend,
            settings.hotplug,
            folder=machine.folder,
            boot=machine.boot,
            disk=self._disk,
            aml=self._aml,
        )

    def _put_right(self, settings: Settings) -> Sequence[Event]:
        reconciler = self._made(settings)
        try:
            changes = reconciler.start()
        except (NotUndone, JournalError, OSError) as failure:
            raise NotStarted(f"the machine cannot be put right: {failure}") from failure
        self._reconciler, self.settings = reconciler, settings
        events = self._happened(changes)
        self._hand_over()
        self.plans = self._apply(settings.plans)
        self._tell_findings()
        return events

    def _hand_over(self) -> None:
        """Of cores; real Xen has pointers of its own, and no use for ours."""
        core = self._machine.hypervisor
        if core is None:
            what = "it is observed and served; plans for Linux can be applied"
            if not self._below:
                self._log.log(INFO, f"no hypervisor: {what}", event="no-hypervisor")
            self._below = (NO_HYPERVISOR.at("machine", what),)
            return
        if not self._machine.backend.is_core:
            return
        before = self.shared
        try:
            self.shared, unseen = hand_over(core, self._machine.pointers())
        except NotHandedOver as refusal:
            raise NotStarted(str(refusal)) from refusal
        self._below = () if unseen is None else (unseen,)
        if self.shared.handed_over and (before is None or not before.handed_over):
            what = f"shared_info is handed over: RSDP {self.shared.rsdp:#x}, XSDT {self.shared.xsdt:#x}"
            self._log.log(NOTICE, what, event="handed-over")

    def _apply(self, plans: Sequence[NamedPlan]) -> tuple[PlanState, ...]:
        """Those that the journal does not have already; an equal plan is applied once."""
        states = []
        try:
            with Journals(self._machine.folder, self._disk) as journals:
                entries = [journals.read(number) for number in journals.numbers()]
                before = [entry.plan for entry in entries if entry.is_whole]
                done = list(before)
                for named in plans:
                    adopted = named.plan in done
                    if not adopted:
                        self._apply_one(named, journals)
                        done.append(named.plan)
                    states.append(PlanState(name=named.name, title=named.plan.title, adopted=named.plan in before))
        except JournalError as error:
            raise NotStarted(f"no plan can be applied: {error}") from error
        known = [named.plan for named in plans]
        self._left = tuple(PLAN_LEFT.at("plans", plan.title) for plan in before if plan not in known)
        return tuple(states)

    def _apply_one(self, named: NamedPlan, journals: Journals) -> None:
        try:
            outcome = apply(
                named.plan,
                self._world(named.plan),
                journals,
                fingerprint=self.platform.origin.fingerprint,
                boot=self._machine.boot,
                irreversible=self.settings.irreversible,
            )
        except (NotApplied, NotUndone) as refusal:
            raise NotStarted(f"{named.name} is not applied: {refusal}") from refusal
        what = f"{named.name} is applied: {outcome.title}, {outcome.done} operations, {outcome.skipped} done before"
        self._log.log(NOTICE, what, event="plan-applied", plan=named.name, journal=outcome.number)

    def _world(self, plan: Plan) -> World:
        machine = self._machine
        if plan.backend is Backend.LINUX:
            return World(Backend.LINUX, None, machine.kernel.linux)
        return World(machine.backend, machine.hypervisor, machine.kernel.linux)

    # ---- What happened ----

    def _happened(self, changes: Sequence[Change]) -> Sequence[Event]:
        events = []
        for change in changes:
            self._number += 1
            kind = change.kind.value
            function = None if change.function is None else str(change.function)
            self._log.log(
                NOTICE,
                change.what,
                event=kind.replace(" ", "-"),
                function=function,
                path=change.path or None,
                slot=change.slot,
                domain=change.domain,
                seconds=None if change.seconds is None else f"{change.seconds:.3f}",
            )
            events.append(
                Event(
                    number=self._number,
                    kind=kind,
                    what=change.what,
                    function=function,
                    slot=change.slot,
                    domain=change.domain,
                )
            )
            self.counts[kind] += 1
        self.events.extend(events)
        self._tell_findings()
        if self._written is not self.platform:
            write_platform(self._machine.folder, self.platform)
            self._written = self.platform
        return events

    def _tell_findings(self) -> None:
        """Each finding once, and again when it had gone away meanwhile."""
        now = set(self.findings)
        for finding in self.findings:
            if finding not in self._told and finding.severity is not Severity.INFO:
                message = f"{finding.where}: {finding.message}"
                self._log.log(_PRIORITY[finding.severity], message, event="finding", rule=finding.rule)
        self._told = now


def write_platform(folder: str, platform: Platform) -> None:
    """`PLATFORM` in a folder, replaced as a whole: who reads it sees the old one or the new one. OSError."""
    path = os.path.join(folder, PLATFORM)
    new = f"{path}.new"
    with suppress(FileNotFoundError):
        os.unlink(new)
    file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(file, "wb") as writer:
        for piece in pieces(platform):
            writer.write(piece)
        writer.flush()
        status = os.stat(folder)
        with suppress(PermissionError):  # not root: it is the caller's own folder
            os.fchown(file, -1, status.st_gid)
        if stat.S_IMODE(status.st_mode) & 0o050 == 0o050:  # the group of the folder may read what is in it
            os.fchmod(file, 0o640)
    os.rename(new, path)
