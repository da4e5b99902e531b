# SPDX-License-Identifier: MIT
"""QEMU's monitor for tests: plain calls around qemu.qmp, and QEMU's own view of the I/O APICs."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import re
import time
from pathlib import Path
from typing import Any

_READ_ONLY = 1 << 12 | 1 << 14
"""Delivery status and remote IRR (82093AA datasheet, 3.2.4)."""

_IOAPIC = re.compile(r"^ioapic\d+: ver=(0x[0-9a-f]+) id=(0x[0-9a-f]+)", re.MULTILINE)
_PIN = re.compile(r"^ +pin (\d+) +(0x[0-9a-f]{16}) ", re.MULTILINE)


class MonitorClosed(Exception):
    """QEMU has gone."""


class CommandRefused(Exception):
    """QEMU's reason for not executing a command."""


@dataclasses.dataclass(frozen=True)
class IoapicRegisters:
    """An I/O APIC as QEMU emulates it, independent of any kernel's opinion."""

    id: int
    version: int
    entries: tuple[int, ...]
    """The 64 bits of each pin's redirection entry."""

    @property
    def written(self) -> tuple[int, ...]:
        """The entries without their read-only bits: what software wrote."""
        return tuple(entry & ~_READ_ONLY for entry in self.entries)


def parse_info_pic(text: str) -> list[IoapicRegisters]:
    """The I/O APICs in the answer to ``info pic``, in its order (a microvm's second one comes first)."""
    heads = list(_IOAPIC.finditer(text))
    found = []
    for head, end in itertools.zip_longest(heads, (head.start() for head in heads[1:])):
        pins = {int(pin): int(entry, 16) for pin, entry in _PIN.findall(text[head.end() : end])}
        if sorted(pins) != list(range(len(pins))):
            raise ValueError(f"info pic: pins {sorted(pins)}")
        found.append(IoapicRegisters(int(head[2], 16), int(head[1], 16), tuple(pins[pin] for pin in range(len(pins)))))
    return found


class Monitor:
    """A connection to a running QEMU; each call blocks until its answer."""

    def __init__(self, socket: Path) -> None:
        from qemu.qmp import EventListener, QMPClient

        self._loop = asyncio.new_event_loop()
        self._client = QMPClient()
        self._listener = EventListener()
        self._client.register_listener(self._listener)
        self._events: list[dict[str, Any]] = []
        self._wait(self._client.connect(str(socket)))

    def execute(self, command: str, **arguments: object) -> Any:
        """The answer to a QMP command, such as ``execute("device_add", driver="e1000", bus="rp0", id="e")``.

        CommandRefused when QEMU refuses it, MonitorClosed when QEMU has gone.
        """
        from qemu.qmp import ExecuteError

        try:
            return self._wait(self._client.execute(command, arguments))
        except ExecuteError as error:
            raise CommandRefused(f"{command}: {error}") from None

    def human(self, command: str) -> str:
        """What the human monitor says to a command, such as ``info mtree``."""
        return str(self.execute("human-monitor-command", **{"command-line": command})).replace("\r", "")

    def info_pic(self) -> list[IoapicRegisters]:
        """The I/O APICs as they are now."""
        return parse_info_pic(self.human("info pic"))

    def wait_event(self, name: str, *, timeout: float = 30, **data: object) -> dict[str, Any]:
        """The data of the first event of that name with these values in it, of all since the last one waited for.

        For example ``wait_event("DEVICE_DELETED", device="e")``. TimeoutError when there is none in time.
        """
        skipped = []
        end = time.monotonic() + timeout
        try:
            while True:
                event = self._events.pop(0) if self._events else self._next(end - time.monotonic())
                found: dict[str, Any] = event.get("data", {})
                if event["event"] == name and found | data == found:
                    return found
                skipped.append(event)
        except TimeoutError:
            raise TimeoutError(f"no {name} within {timeout:g} s, but {[event['event'] for event in skipped]}") from None
        finally:
            self._events = skipped + self._events

    def close(self) -> None:
        from qemu.qmp import QMPError

        try:
            self._wait(self._client.disconnect())
        except (QMPError, OSError, EOFError, MonitorClosed):
            pass  # QEMU has gone, or goes
        finally:
            self._loop.close()

    def _next(self, timeout: float) -> dict[str, Any]:
        return dict(self._wait(asyncio.wait_for(self._listener.get(), timeout)))

    def _wait(self, answer: Any) -> Any:
        from qemu.qmp import ConnectError, ExecInterruptedError, StateError

        try:
            return self._loop.run_until_complete(answer)
        except (ConnectError, ExecInterruptedError, StateError, EOFError, ConnectionError) as error:
            raise MonitorClosed(f"QEMU's monitor is closed: {error}") from error
