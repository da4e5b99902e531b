# SPDX-License-Identifier: MIT
"""What systemd is told, by its own protocols."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dom0kit.service.systemd import ERROR, Journal, Notifier, activated_sockets


class Mailbox:
    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.settimeout(5)

    def next(self) -> bytes:
        return self._socket.recv(1 << 20)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def mailbox(tmp_path: Path) -> Iterator[Mailbox]:
    made = Mailbox(tmp_path / "mail")
    yield made
    made.close()


def test_notifications(mailbox: Mailbox) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": mailbox.path})
    notifier.ready("two\nlines")
    assert mailbox.next() == b"READY=1\nSTATUS=two lines"
    notifier.reloading()
    assert mailbox.next().startswith(b"RELOADING=1\nMONOTONIC_USEC=")
    notifier.alive()
    assert mailbox.next() == b"WATCHDOG=1"
    notifier.stopping()
    assert mailbox.next() == b"STOPPING=1"
    notifier.status("well")
    assert mailbox.next() == b"STATUS=well"


def test_nobody_to_notify(tmp_path: Path) -> None:
    for environment in ({}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "relative"}, {"NOTIFY_SOCKET": f"{tmp_path}/no"}):
        Notifier(environment).ready("well")


def test_an_abstract_address() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as box:
        box.bind(f"\0dom0kit-test-{os.getpid()}")
        box.settimeout(5)
        Notifier({"NOTIFY_SOCKET": f"@dom0kit-test-{os.getpid()}"}).alive()
        assert box.recv(100) == b"WATCHDOG=1"


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-1"}, None),
        ({"WATCHDOG_USEC": "much"}, None),
    ],
)
def test_watchdog(environment: dict[str, str], seconds: float | None) -> None:
    assert Notifier(environment).watchdog == seconds


def test_journal_fields(mailbox: Mailbox) -> None:
    journal = Journal(mailbox.path, {"JOURNAL_STREAM": "8:1"})
    journal.log(ERROR, "it\nbroke", event="broke", function=None, slot=7)
    said = mailbox.next()
    assert said.startswith(b"MESSAGE\n" + (8).to_bytes(8, "little") + b"it\nbroke\n")
    assert said.endswith(b"PRIORITY=3\nSYSLOG_IDENTIFIER=dom0kit\nDOM0KIT_EVENT=broke\nDOM0KIT_SLOT=7\n")


def test_a_value_cannot_make_a_field(mailbox: Mailbox) -> None:
    Journal(mailbox.path, {"JOURNAL_STREAM": "8:1"}).log(ERROR, "well", what="x\nPRIORITY=0")
    length = len(b"x\nPRIORITY=0").to_bytes(8, "little")
    assert mailbox.next().endswith(b"DOM0KIT_WHAT\n" + length + b"x\nPRIORITY=0\n")


def test_a_field_is_cut(mailbox: Mailbox) -> None:
    Journal(mailbox.path, {"JOURNAL_STREAM": "8:1"}).log(ERROR, "x" * (1 << 20))
    assert len(mailbox.next()) < 20_000


def test_without_a_journal_it_is_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Journal(str(tmp_path / "no"), {"JOURNAL_STREAM": "8:1"}).log(ERROR, "it\nbroke", event="broke")
    assert capsys.readouterr().err == "<3>it broke [DOM0KIT_EVENT=broke]\n"
    with pytest.raises(ValueError, match="no field"):
        Journal(str(tmp_path / "no"), {}).log(ERROR, "it broke", **{"a b": 1})


def test_sockets_of_another_process_are_not_ours() -> None:
    assert activated_sockets({"LISTEN_PID": "1", "LISTEN_FDS": "1"}) == []
    assert activated_sockets({}) == []
    assert activated_sockets({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "many"}) == []


def test_a_socket_is_taken() -> None:
    program = (
        "import os, sys; from dom0kit.service.systemd import activated_sockets\n"
        "os.dup2(int(sys.argv[1]), 3)\n"
        "taken = activated_sockets({'LISTEN_PID': str(os.getpid()), 'LISTEN_FDS': '1'})\n"
        "print(len(taken), taken[0].getsockname(), os.get_inheritable(3))\n"
    )
    name = f"\0dom0kit-listen-{os.getpid()}".encode()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(name)
        listening.listen()
        number = listening.fileno()
        said = subprocess.run(
            [sys.executable, "-c", program, str(number)],
            pass_fds=[number],
            capture_output=True,
            text=True,
            check=True,
        )
    assert said.stdout == f"1 {name!r} False\n"
