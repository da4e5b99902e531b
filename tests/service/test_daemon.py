# SPDX-License-Identifier: MIT
"""The process: signals, clients, the watchdog, what systemd is told; over the core's model."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from dom0kit.hotplug.monitor import Batch, Monitor
from dom0kit.hotplug.monitor import Event as KernelEvent
from dom0kit.service.client import asked, watched
from dom0kit.service.daemon import Daemon
from dom0kit.service.metrics import Meter, Numbers, write
from dom0kit.service.server import listen
from dom0kit.service.settings import BadSettings, Metrics, Settings
from dom0kit.service.systemd import Journal, Notifier
from dom0kit.trace.names import owners
from tests.service.rig import LEAF, PLATFORM, Log, Rig, named, plan


class Events:
    """The kernel's, by hand; as `Monitor`."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()

    def fileno(self) -> int:
        return self._read

    def tell(self) -> None:
        os.write(self._write, b"x")

    def receive(self, timeout: float = 0) -> Batch:
        os.read(self._read, 1)
        event = KernelEvent(action="change", subsystem="pci", path="/x", function=LEAF, sequence=0, received=0.0)
        return Batch((event,))


class Process:
    """A daemon in this process, its manager, and what it logs."""

    def __init__(self, folder: Path, settings: Settings | None = None) -> None:
        (folder / "run").mkdir()
        self.rig = Rig(folder / "run", settings or named(plan(20)))
        self.folder = folder
        self.engine, self.log = self.rig.started()
        self.settings: Settings | BadSettings = self.rig.settings
        self.socket = str(folder / "socket")
        self._manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._manager.bind(str(folder / "notify"))
        self.told: list[str] = []
        self.events = Events()

    def _read(self) -> Settings:
        if isinstance(self.settings, BadSettings):
            raise self.settings
        return self.settings

    def run(self, scenario: Callable[[Process], Awaitable[None]], watchdog: str = "") -> None:
        """The daemon, until the scenario is over and it was told to end."""
        environment = {"NOTIFY_SOCKET": str(self.folder / "notify")}
        if watchdog:
            environment["WATCHDOG_USEC"] = watchdog
        numbers = Numbers(self.engine, Meter(), str(self.folder / "interrupts"))
        daemon = Daemon(
            self.engine,
            cast(Monitor, self.events),
            self._read,
            str(self.rig.folder),
            journal=_journal(self.log),
            notifier=Notifier(environment),
            write_metrics=lambda path: write(path, numbers),
        )

        async def both() -> None:
            running = asyncio.ensure_future(daemon.run([listen(self.socket)]))
            await self.until("READY=1")
            try:
                await scenario(self)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)
                await asyncio.wait_for(running, 10)

        asyncio.run(both())
        self._drain()

    async def until(self, text: str) -> str:
        for _ in range(1000):
            self._drain()
            for told in self.told:
                if text in told:
                    return told
            await asyncio.sleep(0.01)
        raise AssertionError(f"{text!r} was not told, but {self.told}")

    def _drain(self) -> None:
        with suppress(BlockingIOError):
            while True:
                self.told.append(self._manager.recv(1 << 16).decode())

    async def ask(self, method: str) -> dict[str, Any]:
        return await asyncio.to_thread(asked, method, self.socket)


def _journal(log: Log) -> Journal:
    journal = Journal(environment={})
    journal.log = log.log  # type: ignore[method-assign]
    return journal


def test_ready_status_and_end(tmp_path: Path) -> None:
    async def scenario(process: Process) -> None:
        status = (await process.ask("GetStatus"))["status"]
        assert status["ready"]
        assert status["hypervisor"] == "library"
        assert status["handed_over"]
        assert status["plans"] == [{"name": "0.json", "title": "GSIs 20", "adopted": False}]
        findings = (await process.ask("GetFindings"))["findings"]
        order = [("error", "warning", "info").index(each["severity"]) for each in findings]
        assert order == sorted(order)

    process = Process(tmp_path)
    before = process.rig.state()
    process.run(scenario)
    assert process.told[0].startswith("READY=1\nSTATUS=library; ")
    assert process.told[-1] == "STOPPING=1"
    assert process.rig.state() == before
    assert process.log.of("ended")
    assert not process.log.of("bug")


def test_what_happens_is_told_and_looked_at_again(tmp_path: Path) -> None:
    async def scenario(process: Process) -> None:
        watching = watched(process.socket)
        first = asyncio.create_task(asyncio.to_thread(next, watching))
        await asyncio.sleep(0.2)
        process.rig.kernel.vanish(LEAF)
        process.events.tell()
        event = await asyncio.wait_for(first, 10)
        assert (event["kind"], event["function"]) == ("departed", str(LEAF))
        assert (await process.ask("GetStatus"))["status"]["events"] == 1
        await process.until(f"; {len(process.engine.platform.functions)} functions")
        loop = asyncio.get_running_loop()
        waiting = [each for each in loop._scheduled if not each.cancelled()]  # type: ignore[attr-defined]
        assert [round(each.when() - loop.time()) for each in sorted(waiting)] == [3, 60]

    Process(tmp_path).run(scenario)


def test_hangup_reloads(tmp_path: Path) -> None:
    async def scenario(process: Process) -> None:
        process.settings = named(plan(20), plan(21))
        os.kill(os.getpid(), signal.SIGHUP)
        await process.until("RELOADING=1")
        await process.until("2 plans applied")
        assert 21 in process.rig.mapped()

    process = Process(tmp_path)
    process.run(scenario)
    told = [line.partition("\n")[0] for line in process.told]
    assert told == ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]


def test_a_bad_reload_is_told_and_mended(tmp_path: Path) -> None:
    async def scenario(process: Process) -> None:
        process.settings = BadSettings("/etc/dom0kit/hotplug.toml: no")
        os.kill(os.getpid(), signal.SIGHUP)
        assert "hotplug.toml: no" in await process.until("not reloaded")
        assert not (await process.ask("GetStatus"))["status"]["ready"]
        process.settings = process.rig.settings
        await process.ask("Reload")
        assert (await process.ask("GetStatus"))["status"]["ready"]

    process = Process(tmp_path)
    process.run(scenario)
    assert process.log.of("not-reloaded") == ["not reloaded: /etc/dom0kit/hotplug.toml: no"]
    assert process.log.of("write")[0].startswith(f"process {os.getpid()} of user {os.getuid()} ")


def test_the_watchdog_is_fed(tmp_path: Path) -> None:
    async def scenario(process: Process) -> None:
        await asyncio.sleep(0.35)

    process = Process(tmp_path)
    process.run(scenario, watchdog="200000")
    assert 3 <= process.told.count("WATCHDOG=1") <= 5


def test_without_a_watchdog_nothing_ticks(tmp_path: Path) -> None:
    async def scenario(process: Process) -> None:
        loop = asyncio.get_running_loop()
        waiting = [each for each in loop._scheduled if not each.cancelled()]  # type: ignore[attr-defined]
        assert waiting == []

    Process(tmp_path).run(scenario)


def test_metrics(tmp_path: Path) -> None:
    owner = next(each for each in owners(PLATFORM).values() if each.gsi is not None and each.actions)
    interrupts = f"     CPU0 CPU1\n {owner.irq}:   5   7  IO-APIC  1-fasteoi   x\nSPU:   1   2   Spurious interrupts\n"
    (tmp_path / "interrupts").write_text(interrupts)
    file = tmp_path / "dom0kit.prom"

    async def scenario(process: Process) -> None:
        text = file.read_text()
        assert 'dom0kit_findings{severity="error"}' in text
        assert f"dom0kit_functions {len(process.engine.platform.functions)}.0" in text
        assert "dom0kit_plans 1.0" in text
        assert 'dom0kit_interrupt_errors_total{kind="SPU"} 3.0' in text
        line = next(line for line in text.splitlines() if f'irq="{owner.irq}"' in line)
        assert line.endswith(" 12.0")
        assert f'gsi="{owner.gsi}"' in line
        assert 'dom0kit_vectors{cpu="' in text

    process = Process(tmp_path, Settings(plans=named(plan(20)).plans, metrics=Metrics(textfile=str(file))))
    process.run(scenario)
