# SPDX-License-Identifier: MIT
"""What a service says to systemd, and gets from it: readiness, watchdog, the journal, sockets.

Three documented datagram protocols of a few lines each, spoken here so that no compiled binding is needed to boot:
sd_notify(3), https://systemd.io/JOURNAL_NATIVE_PROTOCOL, sd_listen_fds(3). Whoever is not started by systemd says the
same to nobody, and logs to standard error.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

JOURNAL: Final = "/run/systemd/journal/socket"
_FIRST_SOCKET: Final = 3
_FIELD: Final = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_LONGEST: Final = 16 << 10
"""Bytes of a field's value; a datagram has room for a few such."""

ERROR, WARNING, NOTICE, INFO = 3, 4, 5, 6
"""Priorities of syslog(3)."""


class Notifier:
    """Tells the service manager. `environment` is the process's own."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        environment = os.environ if environment is None else environment
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self.watchdog = _watchdog(environment)
        """Seconds within which `alive` must be called, again and again; None where nobody watches."""

    def ready(self, status: str) -> None:
        self._tell(f"READY=1\nSTATUS={_one_line(status)}")

    def status(self, status: str) -> None:
        self._tell(f"STATUS={_one_line(status)}")

    def reloading(self) -> None:
        """`ready` says when it is over."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        self._tell("STOPPING=1")

    def alive(self) -> None:
        self._tell("WATCHDOG=1")

    def extend(self, seconds: float) -> None:
        """Starting or reloading may take so much longer."""
        self._tell(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")

    def _tell(self, text: str) -> None:
        if self._address is not None:
            _send(self._address, text.encode())


class Journal:
    """Structured log: a message and fields ``DOM0KIT_…`` in journald, or lines on standard error without it."""

    def __init__(self, path: str = JOURNAL, environment: Mapping[str, str] | None = None) -> None:
        environment = os.environ if environment is None else environment
        # systemd says so where standard error is the journal's (systemd.exec(5)); a terminal's reader wants lines.
        self._path = path if "JOURNAL_STREAM" in environment and os.path.exists(path) else None

    def log(self, priority: int, message: str, **fields: object) -> None:
        """`fields`: names in small letters without ``DOM0KIT_``; None is left out. ValueError for a name that is none.

        https://systemd.io/JOURNAL_NATIVE_PROTOCOL
        """
        named = {f"DOM0KIT_{name.upper()}": str(value) for name, value in fields.items() if value is not None}
        for name in named:
            if _FIELD.fullmatch(name) is None:
                raise ValueError(f"{name!r} is no field of the journal")
        if self._path is not None:
            head = {"MESSAGE": message, "PRIORITY": str(priority), "SYSLOG_IDENTIFIER": "dom0kit"}
            if _send(self._path, b"".join(_field(*item) for item in {**head, **named}.items())):
                return
        words = " ".join(f"{name}={_one_line(value)}" for name, value in named.items())
        with suppress(OSError, ValueError):
            print(f"<{priority}>{_one_line(message)}{f' [{words}]' if words else ''}", file=sys.stderr, flush=True)


def activated_sockets(environment: Mapping[str, str] | None = None, pid: int | None = None) -> list[socket.socket]:
    """The sockets that systemd has opened for this process; none where it was started otherwise."""
    environment = os.environ if environment is None else environment
    if environment.get("LISTEN_PID") != str(os.getpid() if pid is None else pid):
        return []
    text = environment.get("LISTEN_FDS", "")
    count = int(text) if text.isascii() and text.isdecimal() and len(text) < 4 else 0
    sockets = []
    for number in range(_FIRST_SOCKET, _FIRST_SOCKET + count):
        os.set_inheritable(number, False)
        sockets.append(socket.socket(fileno=number))
    return sockets


def _address(text: str) -> str | None:
    if text.startswith("@"):
        return "\0" + text[1:]
    return text if text.startswith("/") else None


def _watchdog(environment: Mapping[str, str]) -> float | None:
    text, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", str(os.getpid()))
    if not (text.isascii() and text.isdecimal() and 0 < len(text) < 16) or pid != str(os.getpid()):
        return None
    return int(text) / 1_000_000 or None


def _send(address: str, data: bytes) -> bool:
    """Whether it was taken: a manager or a journal that is away must not keep the service from its work."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
        out.settimeout(1)
        try:
            out.sendto(data, address)
        except OSError:
            return False
    return True


def _field(name: str, value: str) -> bytes:
    data = value.encode("utf-8", "replace")[:_LONGEST]
    if b"\n" in data:
        return name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n"
    return name.encode() + b"=" + data + b"\n"


def _one_line(text: str) -> str:
    return " ".join(text.split())[:_LONGEST]
