# SPDX-License-Identifier: MIT
"""The varlink interface ``org.dom0kit.Service``: what a local client can ask of the service.

asyncvarlink derives the interface's description from these types when it is imported, and so reads annotations as
values: this module alone must not have ``from __future__ import annotations``. Docstrings become the description's
comments.
"""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Final, Protocol

from asyncvarlink import TypedVarlinkErrorReply, VarlinkInterface, varlinkmethod

NAME: Final = "org.dom0kit.Service"
_WAITING: Final = 1024
"""Events that one watching client may lag behind; with more it is told that it lost some."""


@dataclasses.dataclass
class Plan:
    """A plan of /etc/dom0kit/plans that is applied."""

    name: str
    title: str
    adopted: bool


@dataclasses.dataclass
class Finding:
    """As dom0kit explain explains: rule, severity (info, warning, error), place and evidence."""

    rule: str
    severity: str
    where: str
    message: str


@dataclasses.dataclass
class Event:
    """Something that happened; lost: so many before it were not told, for the client was too slow."""

    number: int
    kind: str
    what: str
    function: str | None
    slot: int | None
    domain: int | None
    lost: int


@dataclasses.dataclass
class Status:
    """The machine and the service."""

    ready: bool
    machine: str
    hypervisor: str
    fingerprint: str
    platform: str
    functions: int
    ioapics: int
    handed_over: bool
    errors: int
    warnings: int
    events: int
    plans: list[Plan]


class NotAllowed(TypedVarlinkErrorReply, interface=NAME):
    """Only root may do that."""

    class Parameters:
        """Whose credentials the caller has."""

        uid: int


class Refused(TypedVarlinkErrorReply, interface=NAME):
    """It was tried and refused; the reason is a sentence."""

    class Parameters:
        """Why."""

        reason: str


@dataclasses.dataclass(frozen=True)
class Caller:
    """Credentials of a client, as the kernel gives them (SO_PEERCRED, unix(7))."""

    pid: int
    uid: int
    gid: int


class Subject(Protocol):
    """What the interface is about."""

    def status(self) -> Status: ...

    def findings(self) -> Iterable[Finding]: ...

    def subscribe(self, take: Callable[[Event], None]) -> Callable[[], None]:
        """Each event from now on; what is given back ends that."""

    def wrote(self, caller: Caller, what: str) -> None:
        """A write is logged, before it is done or refused."""

    async def reload(self) -> str:
        """Why not; empty where it was done."""

    def failed(self, error: BaseException) -> None:
        """A bug met while a client was answered."""


class ClientGone(Exception):
    """Ends what was done for a client that went away."""


class ServiceInterface(VarlinkInterface, name=NAME):
    """dom0kit's service: reads for all who may open the socket, writes for root."""

    errors = (NotAllowed, Refused)

    def __init__(self, subject: Subject, caller: Caller) -> None:
        self._subject = subject
        self._caller = caller
        self._endings: list[Callable[[], None]] = []

    def end(self) -> None:
        """The client is gone: nothing waits for it any more."""
        while self._endings:
            self._endings.pop()()

    @varlinkmethod(return_parameter="status")
    def GetStatus(self) -> Status:
        """What the service has done, and how the machine is."""
        return self._subject.status()

    @varlinkmethod(return_parameter="findings")
    def GetFindings(self) -> list[Finding]:
        """What is wrong with the machine, the most severe first."""
        return list(self._subject.findings())

    @varlinkmethod(return_parameter="event", delay_generator=False)
    async def Watch(self) -> AsyncIterator[Event]:
        """Events as they happen, until the client goes."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue(_WAITING)
        lost = 0

        def take(event: Event) -> None:
            nonlocal lost
            try:
                queue.put_nowait(dataclasses.replace(event, lost=lost))
                lost = 0
            except asyncio.QueueFull:
                lost += 1

        stop = self._subject.subscribe(take)

        def end() -> None:
            stop()
            while not queue.empty():
                queue.get_nowait()
            queue.put_nowait(None)

        self._endings.append(end)
        while (event := await queue.get()) is not None:
            yield event
        raise ClientGone

    @varlinkmethod
    async def Reload(self) -> None:
        """Reads /etc/dom0kit and the machine again, as SIGHUP does. For root."""
        self._subject.wrote(self._caller, "reload")
        if self._caller.uid != 0:
            raise NotAllowed(uid=self._caller.uid)
        if why := await self._subject.reload():
            raise Refused(reason=why)
