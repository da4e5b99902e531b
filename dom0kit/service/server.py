# SPDX-License-Identifier: MIT
"""The socket's side of the interface: who may connect, and how much a client may cost.

A message is at most `MESSAGE_LIMIT` bytes and carries no file descriptors; replies that nobody reads are at most
`UNREAD_LIMIT`; there are at most `CLIENTS_LIMIT` clients. Whoever goes beyond, or does not speak varlink, is cut off.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import stat
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from asyncvarlink import (
    FileDescriptorArray,
    VarlinkInterfaceRegistry,
    VarlinkInterfaceServerProtocol,
    VarlinkTransport,
)
from asyncvarlink.serviceinterface import VarlinkServiceInterface

import dom0kit
from dom0kit.service.client import SOCKET as SOCKET
from dom0kit.service.interface import Caller, ClientGone, ServiceInterface, Subject

MESSAGE_LIMIT: Final = 64 << 10
UNREAD_LIMIT: Final = 64
"""Replies to one client that its socket did not take yet."""
CALLS_LIMIT: Final = 4096
"""Calls of one client that wait for an earlier one's answer; a read of the socket holds fewer."""
CLIENTS_LIMIT: Final = 64
_PEER: Final = struct.Struct("=iII")

# It logs what malformed clients cause, with tracebacks: they must not be able to fill a disk.
logging.getLogger("asyncvarlink").setLevel(logging.CRITICAL)


class _Transport(VarlinkTransport):
    """Reads on while a call is being answered, for only so it sees that the client is gone."""

    MAX_RECV_FDS = 1

    def pause_reading(self) -> None:
        pass

    def send_message(self, data: bytes, fds: list[int] | None = None) -> asyncio.Future[None]:
        if sum(len(waiting) for waiting, _, _ in self._sendqueue) >= UNREAD_LIMIT:
            self.abort()
        return super().send_message(data, fds)


class _Protocol(VarlinkInterfaceServerProtocol):
    """asyncvarlink's, with limits."""

    def __init__(self, interface: ServiceInterface, subject: Subject, gone: Callable[[], None]) -> None:
        registry = VarlinkInterfaceRegistry()
        registry.register_interface(interface)
        about = VarlinkServiceInterface("dom0kit", "dom0kit service", dom0kit.__version__, "", registry)
        registry.register_interface(about)
        super().__init__(registry)
        self._interface = interface
        self._subject = subject
        self._gone = gone

    def message_received(self, data: bytes, fds: FileDescriptorArray | None) -> None:
        end = data.find(b"\0")
        length = len(self._recv_buffer) + (len(data) if end < 0 else end)
        if fds or length > MESSAGE_LIMIT or len(self._consumer_queue) > CALLS_LIMIT:
            return self.cut_off()
        try:
            super().message_received(data, None)
        except (ValueError, RecursionError):  # no text, a number without end, arrays in arrays
            self.cut_off()
        return None

    def error_received(self, err: Exception, data: bytes, fds: FileDescriptorArray | None) -> None:
        self.cut_off()

    def cut_off(self) -> None:
        if isinstance(self._transport, VarlinkTransport):
            self._transport.abort()

    def handle_call_exception(self, exc: BaseException, oneway: bool) -> None:
        if not isinstance(exc, ClientGone):
            self._subject.failed(exc)
        self.cut_off()

    def eof_received(self) -> None:
        self._interface.end()
        super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._interface.end()
        super().connection_lost(exc)
        self._gone()


class Server:
    """Answers on listening sockets. Within a running event loop; `close` when done."""

    def __init__(self, subject: Subject, listening: list[socket.socket]) -> None:
        self._subject = subject
        self._loop = asyncio.get_running_loop()
        self._listening = listening
        self._clients: set[_Protocol] = set()
        for each in listening:
            each.setblocking(False)
            self._loop.add_reader(each, self._accept, each)

    @property
    def clients(self) -> int:
        return len(self._clients)

    def close(self) -> None:
        for each in self._listening:
            self._loop.remove_reader(each)
            each.close()
        for client in list(self._clients):
            client.cut_off()

    def _accept(self, listening: socket.socket) -> None:
        try:
            client, _ = listening.accept()
        except OSError:
            return
        if len(self._clients) >= CLIENTS_LIMIT:
            client.close()
            return
        pid, uid, gid = _PEER.unpack(client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        interface = ServiceInterface(self._subject, Caller(pid, uid, gid))
        protocol = _Protocol(interface, self._subject, lambda: self._clients.discard(protocol))
        self._clients.add(protocol)
        _Transport(self._loop, client, client, protocol)


def listen(path: str) -> socket.socket:
    """A socket for root alone, where systemd has not made one. OSError."""
    with suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        before = os.umask(0o177)
        try:
            listening.bind(path)
        finally:
            os.umask(before)
        listening.listen(CLIENTS_LIMIT)
    except OSError:
        listening.close()
        raise
    return listening
