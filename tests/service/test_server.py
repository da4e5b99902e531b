# SPDX-License-Identifier: MIT
"""The socket: what clients get, what they may not, and that nothing they send does harm."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dom0kit.service import client, interface, server
from dom0kit.service.server import CLIENTS_LIMIT, MESSAGE_LIMIT, Server, listen

STATUS = interface.Status(
    ready=True,
    machine="a machine",
    hypervisor="hv_core",
    fingerprint="5" * 64,
    platform="/run/dom0kit/platform.json",
    functions=3,
    ioapics=1,
    handed_over=True,
    errors=0,
    warnings=1,
    events=0,
    plans=[interface.Plan("10-irq.json", "GSIs", True)],
)


class Subject:
    """Answers; remembers what was asked of it."""

    def __init__(self) -> None:
        self.takers: list[Callable[[interface.Event], None]] = []
        self.writes: list[tuple[interface.Caller, str]] = []
        self.bugs: list[BaseException] = []
        self.why = ""
        self.refuses_status: Exception | None = None

    def status(self) -> interface.Status:
        if self.refuses_status is not None:
            raise self.refuses_status
        return STATUS

    def findings(self) -> Iterable[interface.Finding]:
        return [interface.Finding("pci.x", "error", "pci:0000:00:01.0", "it is wrong")]

    def subscribe(self, take: Callable[[interface.Event], None]) -> Callable[[], None]:
        self.takers.append(take)
        return lambda: self.takers.remove(take)

    def wrote(self, caller: interface.Caller, what: str) -> None:
        self.writes.append((caller, what))

    async def reload(self) -> str:
        return self.why

    def failed(self, error: BaseException) -> None:
        self.bugs.append(error)


class Running:
    """A server in a thread of its own."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.subject = Subject()
        self.server: Server
        self.loop = asyncio.new_event_loop()
        self.unexpected: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, context: self.unexpected.append(context))
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        self.do(self._serve)

    def _serve(self) -> None:
        self.server = Server(self.subject, [listen(self.path)])

    def do(self, call: Callable[[], Any]) -> Any:
        """In the server's thread."""

        async def called() -> Any:
            return call()

        return asyncio.run_coroutine_threadsafe(called(), self.loop).result(10)

    def event(self, number: int) -> None:
        told = interface.Event(number, "arrived", f"event {number}", None, None, None, 0)
        self.do(lambda: [take(told) for take in list(self.subject.takers)])

    def until(self, happened: Callable[[], bool]) -> None:
        for _ in range(2000):
            if self.do(happened):
                return
            threading.Event().wait(0.005)
        raise AssertionError("it did not happen in ten seconds")

    def connect(self) -> socket.socket:
        other = socket.socket(socket.AF_UNIX)
        other.settimeout(10)
        other.connect(self.path)
        return other

    def close(self) -> None:
        self.do(self.server.close)
        self.until(lambda: not self.server.clients)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()
        assert not self.unexpected


@contextmanager
def running(folder: Path) -> Iterator[Running]:
    made = Running(str(folder / "socket"))
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path) as made:
        yield made


def test_status_and_findings(service: Running) -> None:
    status = client.asked("GetStatus", service.path)["status"]
    assert status["machine"] == "a machine"
    assert status["plans"] == [{"name": "10-irq.json", "title": "GSIs", "adopted": True}]
    assert client.asked("GetFindings", service.path)["findings"][0]["rule"] == "pci.x"


def test_the_description_names_everything(service: Running) -> None:
    question = {"method": "org.varlink.service.GetInterfaceDescription", "parameters": {"interface": interface.NAME}}
    description = _ask(service, question)["parameters"]["description"]
    for name in ("GetStatus", "GetFindings", "Watch", "Reload", "error NotAllowed", "error Refused", "type Status"):
        assert name in description


def test_reload_is_logged_with_credentials(service: Running) -> None:
    assert client.asked("Reload", service.path) == {}
    service.subject.why = "plan 10-irq.json is for another machine"
    with pytest.raises(client.ServiceRefused, match="for another machine"):
        client.asked("Reload", service.path)
    caller = interface.Caller(os.getpid(), os.getuid(), os.getgid())
    assert service.subject.writes == [(caller, "reload")] * 2


@pytest.mark.skipif(os.getuid() != 0, reason="to be another user takes root")
def test_only_root_writes(service: Running) -> None:
    os.chmod(service.path, 0o666)
    os.chmod(Path(service.path).parent, 0o755)
    for above in Path(service.path).parents:
        if above == Path(tempfile.gettempdir()):
            break
        os.chmod(above, 0o755)
    client.asked("GetStatus", service.path)  # everything is imported: nobody may not reach the checkout
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgid(65534)
        os.setuid(65534)
        said = client.asked("GetStatus", service.path)["status"]["machine"]
        try:
            client.asked("Reload", service.path)
        except client.ServiceRefused as refused:
            said += f", {refused}"
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    assert os.waitpid(child, 0)[1] == 0
    with os.fdopen(reading) as answer:
        assert answer.read() == "a machine, only root may do that"
    assert [(caller.uid, what) for caller, what in service.subject.writes] == [(65534, "reload")]


def test_watch_tells_until_the_client_goes(service: Running) -> None:
    watching = client.watched(service.path)
    told: list[dict[str, Any]] = []
    thread = threading.Thread(target=lambda: told.extend(next(watching) for _ in range(3)))
    thread.start()
    service.until(lambda: len(service.subject.takers) == 1)
    for number in (1, 2, 3):
        service.event(number)
    thread.join(10)
    assert [event["what"] for event in told] == ["event 1", "event 2", "event 3"]
    watching.close()
    service.until(lambda: not service.subject.takers and not service.server.clients)


def test_who_does_not_read_loses_events_and_is_told(service: Running) -> None:
    other = service.connect()
    other.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    other.sendall(b'{"method":"org.dom0kit.Service.Watch","more":true}\0')
    service.until(lambda: len(service.subject.takers) == 1)
    for number in range(1, 4001):
        service.event(number)
    events = _events(other)
    service.event(5000)
    events += _events(other)
    other.close()
    numbers = [event["number"] for event in events]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == 5000
    assert events[-1]["lost"] == 4001 - len(numbers) > 0


def test_a_bug_is_told_and_cuts_off_one_client(service: Running) -> None:
    service.subject.refuses_status = ZeroDivisionError("a bug")
    with pytest.raises(client.ServiceMissing):
        client.asked("GetStatus", service.path)
    service.subject.refuses_status = None
    assert [type(bug) for bug in service.subject.bugs] == [ZeroDivisionError]
    assert client.asked("GetStatus", service.path)["status"]["ready"]


def test_too_long_a_message_is_cut_off(service: Running) -> None:
    other = service.connect()
    with suppress(OSError):
        for _ in range(MESSAGE_LIMIT // 1024 + 65):
            other.sendall(b"x" * 1024)
    assert _ends(other)
    service.until(lambda: not service.server.clients)


def test_one_that_sends_and_never_reads_is_cut_off(service: Running) -> None:
    other = service.connect()
    with suppress(OSError):
        for _ in range(100_000):
            other.sendall(b'{"method":"org.varlink.service.GetInfo"}\0')
    service.until(lambda: not service.server.clients)
    assert client.asked("GetStatus", service.path)["status"]["ready"]


def test_answers_that_nobody_reads_are_not_kept(service: Running) -> None:
    other = service.connect()
    question = {"method": "org.varlink.service.GetInterfaceDescription", "parameters": {"interface": interface.NAME}}
    sent = 0
    with suppress(OSError):
        while sent < 2000:
            other.sendall(json.dumps(question).encode() + b"\0")
            sent += 1
            service.do(lambda: None)  # one at a time: it is not the calls that are too many
            service.do(lambda: None)
    service.until(lambda: not service.server.clients)
    assert sent < 1000


def test_more_clients_than_the_limit(service: Running) -> None:
    others = [service.connect() for _ in range(CLIENTS_LIMIT)]
    service.until(lambda: service.server.clients == CLIENTS_LIMIT)
    assert _ends(service.connect())
    for other in others:
        other.close()
    service.until(lambda: not service.server.clients)
    assert client.asked("GetStatus", service.path)["status"]["ready"]


def test_descriptors_are_refused_and_closed(service: Running) -> None:
    before = len(os.listdir("/proc/self/fd"))
    read, write = os.pipe()
    other = service.connect()
    socket.send_fds(other, [b'{"method":"org.dom0kit.Service.GetStatus"}\0'], [read])
    assert _ends(other)
    other.close()
    os.close(read)
    os.close(write)
    service.until(lambda: not service.server.clients)
    assert len(os.listdir("/proc/self/fd")) == before


METHODS = ["GetStatus", "Watch", "Reload", "GetFindings", "__init__", ""]
FIELDS = ["method", "parameters", "more", "oneway", "upgrade", "interface", "org.varlink.service.GetInfo", "."]
WORDS = st.sampled_from([*FIELDS, *(f"org.dom0kit.Service.{method}" for method in METHODS)])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=4), inner, max_size=4),
    max_leaves=6,
)
CALLS = st.fixed_dictionaries(
    {"method": WORDS | JSON}, optional={"parameters": JSON, "more": JSON, "oneway": JSON, "extra": JSON}
)
MESSAGES = st.one_of(
    CALLS.map(lambda call: json.dumps(call).encode()),
    JSON.map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=64),
    st.sampled_from([b"[" * 50_000, b"{" * 3 + b"}", b'{"method":' + b"1" * 5000 + b"}", b"\xff\xfe", b"", b"{}"]),
)


@pytest.mark.slow
def test_ten_thousand_messages_do_no_harm(tmp_path: Path) -> None:
    """10,000 and more: 500 conversations of 20 messages, then growth is looked for."""
    with running(tmp_path) as service:
        sent = 0

        @settings(max_examples=500, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(st.lists(MESSAGES, min_size=20, max_size=24))
        def converse(messages: list[bytes]) -> None:
            nonlocal sent
            sent += len(messages)
            with service.connect() as other, suppress(OSError):
                other.sendall(b"\0".join(messages) + b"\0")
                other.shutdown(socket.SHUT_WR)
                while other.recv(1 << 16):
                    pass

        converse()
        assert sent >= 10_000
        service.until(lambda: not service.server.clients and not service.subject.takers)
        tasks = service.do(lambda: len(asyncio.all_tasks(service.loop)))
        assert tasks <= 1
        assert not service.subject.bugs
        assert client.asked("GetStatus", service.path)["status"]["ready"]
        gc.collect()
        kept = [each for each in gc.get_objects() if isinstance(each, server._Protocol)]
        assert len(kept) <= 2


def _ask(service: Running, question: dict[str, Any]) -> Any:
    with service.connect() as other:
        other.sendall(json.dumps(question).encode() + b"\0")
        data = b""
        while not data.endswith(b"\0"):
            data += other.recv(1 << 16)
    return json.loads(data[:-1])


def _events(other: socket.socket) -> list[dict[str, Any]]:
    """All that come until nothing came for a while."""
    data = b""
    other.settimeout(1)
    with suppress(TimeoutError):
        while part := other.recv(1 << 16):
            data += part
    return [json.loads(each)["parameters"]["event"] for each in data.split(b"\0")[:-1]]


def _ends(other: socket.socket) -> bool:
    with suppress(ConnectionError):
        while other.recv(1 << 16):
            pass
    return True
