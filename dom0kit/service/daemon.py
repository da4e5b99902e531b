# SPDX-License-Identifier: MIT
"""The service's process: one event loop over the kernel's events, clients, signals, and the watchdog's clock.

When nothing happens, nothing wakes it but the watchdog, and the clock of metrics where they are on.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Final

from dom0kit.finding import Severity
from dom0kit.hotplug.monitor import Batch, Monitor
from dom0kit.service import interface
from dom0kit.service.engine import PLATFORM, Engine, Event, NotStarted
from dom0kit.service.server import Server
from dom0kit.service.settings import BadSettings, Settings
from dom0kit.service.systemd import ERROR, NOTICE, WARNING, Journal, Notifier

_GRACE: Final = 0.5
"""Seconds beyond the policy's limits after which the engine looks again."""


class Daemon:
    """`run` until SIGTERM. Started already: the engine."""

    def __init__(
        self,
        engine: Engine,
        monitor: Monitor | None,
        read_settings: Callable[[], Settings],
        folder: str,
        *,
        journal: Journal,
        notifier: Notifier,
        write_metrics: Callable[[str], None],
    ) -> None:
        """`monitor`: None where there are no events to be had. `write_metrics`: to a file, where settings name one."""
        self._engine = engine
        self._monitor = monitor
        self._read_settings = read_settings
        self._folder = folder
        self._journal = journal
        self._notifier = notifier
        self._write_metrics = write_metrics
        self._watching: list[Callable[[interface.Event], None]] = []
        self._ready = True
        self._late: list[asyncio.TimerHandle] = []
        self._clocks: dict[str, asyncio.TimerHandle] = {}
        self._end: asyncio.Future[None]
        self._loop: asyncio.AbstractEventLoop

    async def run(self, listening: Sequence[Any]) -> None:
        """Says that it is ready, serves the sockets, and comes back when it was told to end."""
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(self._met)
        self._end = self._loop.create_future()
        self._loop.add_signal_handler(signal.SIGTERM, self._stop)
        self._loop.add_signal_handler(signal.SIGINT, self._stop)
        self._loop.add_signal_handler(signal.SIGHUP, lambda: self._reload())
        server = Server(self, list(listening))
        if self._monitor is not None:
            self._loop.add_reader(self._monitor.fileno(), self._listen)
        self._alive()
        self._count()
        self._notifier.ready(self._line())
        try:
            await self._end
        finally:
            self._notifier.stopping()
            if self._monitor is not None:
                self._loop.remove_reader(self._monitor.fileno())
            for handle in (*self._late, *self._clocks.values()):
                handle.cancel()
            server.close()
            await asyncio.sleep(0)  # clients are told that it is over
            self._journal.log(NOTICE, "the service has ended; the machine stays as it is", event="ended")

    # ---- What the interface asks ----

    def status(self) -> interface.Status:
        engine, platform = self._engine, self._engine.platform
        severities = [finding.severity for finding in engine.findings]
        machine = " ".join(text for text in (platform.machine.vendor, platform.machine.product) if text)
        return interface.Status(
            ready=self._ready,
            machine=machine or platform.origin.name,
            hypervisor="none" if engine.hypervisor is None else engine.backend.value,
            fingerprint=platform.origin.fingerprint,
            platform=f"{self._folder}/{PLATFORM}",
            functions=len(platform.functions),
            ioapics=len(platform.ioapics),
            handed_over=engine.shared is not None and engine.shared.handed_over,
            errors=severities.count(Severity.ERROR),
            warnings=severities.count(Severity.WARNING),
            events=engine.counts.total(),
            plans=[interface.Plan(plan.name, plan.title, plan.adopted) for plan in engine.plans],
        )

    def findings(self) -> Iterable[interface.Finding]:
        order = list(Severity)
        for each in sorted(self._engine.findings, key=lambda finding: -order.index(finding.severity)):
            yield interface.Finding(each.rule, each.severity.value, each.where, each.message)

    def subscribe(self, take: Callable[[interface.Event], None]) -> Callable[[], None]:
        self._watching.append(take)
        return lambda: self._watching.remove(take) if take in self._watching else None

    def wrote(self, caller: interface.Caller, what: str) -> None:
        priority = NOTICE if caller.uid == 0 else WARNING
        allowed = "asks for" if caller.uid == 0 else "is not allowed"
        message = f"process {caller.pid} of user {caller.uid} {allowed} {what}"
        self._journal.log(priority, message, event="write", pid=caller.pid, uid=caller.uid, gid=caller.gid, what=what)

    async def reload(self) -> str:
        return self._reload()

    def failed(self, error: BaseException) -> None:
        self._journal.log(ERROR, f"this is a bug: {type(error).__name__}: {error}", event="bug")

    # ---- What happens ----

    def _listen(self) -> None:
        assert self._monitor is not None
        self._step(self._monitor.receive())

    def _step(self, batch: Batch) -> None:
        try:
            events = self._engine.step(batch)
        except OSError as error:
            self._journal.log(ERROR, f"the Platform cannot be written: {error}", event="unwritten")
            events = ()
        self._tell(events)
        if events or batch.events or batch.lost:
            self._look_again()
            self._notifier.status(self._line())

    def _look_again(self) -> None:
        """When a function that is silent now counts as pulled, and when one that flapped may come again."""
        for handle in self._late:
            handle.cancel()
        limits = self._engine.settings.hotplug.limits
        self._late = [
            self._loop.call_later(seconds + _GRACE, self._step, Batch())
            for seconds in sorted({limits.grace, limits.seconds})
        ]

    def _tell(self, events: Sequence[Event]) -> None:
        for event in events:
            told = interface.Event(
                event.number, event.kind, event.what, event.function, event.slot, event.domain, lost=0
            )
            for take in list(self._watching):
                take(told)

    def _reload(self) -> str:
        """Why not; empty where it was done."""
        self._notifier.reloading()
        why = ""
        try:
            self._tell(self._engine.reload(self._read_settings()))
        except (BadSettings, NotStarted) as refusal:
            why = str(refusal)
            self._journal.log(ERROR, f"not reloaded: {why}", event="not-reloaded")
        else:
            self._journal.log(NOTICE, "reloaded", event="reloaded")
        self._ready = not why
        self._count()
        self._notifier.ready(f"not reloaded: {why}" if why else self._line())
        return why

    def _stop(self) -> None:
        if not self._end.done():
            self._end.set_result(None)

    # ---- Clocks ----

    def _alive(self) -> None:
        if self._notifier.watchdog is not None:
            self._notifier.alive()
            self._clocks["watchdog"] = self._loop.call_later(self._notifier.watchdog / 2, self._alive)

    def _count(self) -> None:
        with suppress(KeyError):
            self._clocks.pop("metrics").cancel()
        metrics = self._engine.settings.metrics
        if metrics.textfile is None:
            return
        try:
            self._write_metrics(metrics.textfile)
        except OSError as error:
            self._journal.log(ERROR, f"{metrics.textfile} cannot be written: {error.strerror}", event="no-metrics")
        self._clocks["metrics"] = self._loop.call_later(metrics.seconds, self._count)

    # ---- Words ----

    def _line(self) -> str:
        status = self.status()
        below = "no hypervisor" if status.hypervisor == "none" else status.hypervisor
        wrong = f"{status.errors} errors, {status.warnings} warnings"
        return f"{below}; {status.functions} functions, {len(status.plans)} plans applied; {wrong}"

    def _met(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What nobody expected: one line, and the service goes on."""
        error = context.get("exception")
        what = context.get("message", "") if error is None else f"{type(error).__name__}: {error}"
        self._journal.log(ERROR, f"this is a bug: {what}", event="bug")
