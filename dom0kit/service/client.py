# SPDX-License-Identifier: MIT
"""The service asked by the command line: blocking, and without the event loop that a question need not wait for.

varlink's messages are JSON objects with a zero byte behind each (https://varlink.org/Method-Call).
"""

from __future__ import annotations

import socket
from collections.abc import Generator, Iterator
from typing import Any, Final

from dom0kit.serial import UndecodableJson, decode, encode

SOCKET: Final = "/run/dom0kit/service"
_INTERFACE: Final = "org.dom0kit.Service"
_LONGEST: Final = 64 << 20
"""Bytes of an answer that are believed."""
_SECONDS: Final = 60
"""A reload reads the whole machine."""


class ServiceMissing(Exception):
    """Nobody answers; the message says why, and what to do."""


class ServiceRefused(Exception):
    """The service said no; the message is its reason."""


def asked(method: str, path: str = SOCKET) -> dict[str, Any]:
    """One call and its answer. ServiceMissing, ServiceRefused."""
    return next(_answers(method, path, more=False))


def watched(path: str = SOCKET) -> Generator[dict[str, Any], None, None]:
    """Events as they happen. ServiceMissing: also when the service ends."""
    for answer in _answers("Watch", path, more=True):
        yield answer["event"]


def _answers(method: str, path: str, *, more: bool) -> Iterator[dict[str, Any]]:
    question = encode({"method": f"{_INTERFACE}.{method}", **({"more": True} if more else {})}) + b"\0"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as service:
        service.settimeout(_SECONDS)
        try:
            service.connect(path)
            service.sendall(question)
            service.settimeout(None if more else _SECONDS)
            for message in _messages(service):
                yield _answer(message)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise ServiceMissing(
                f"no service answers at {path} ({error.strerror}): systemctl start dom0kit.service"
            ) from error
        except PermissionError as error:
            raise ServiceMissing(f"{path} is for root and the group dom0kit") from error
        except OSError as error:
            raise ServiceMissing(f"the service does not answer: {error}") from error
    raise ServiceMissing("the service has ended the conversation: journalctl -u dom0kit says why")


def _messages(service: socket.socket) -> Iterator[bytes]:
    buffer = bytearray()
    while data := service.recv(1 << 16):
        buffer += data
        while (end := buffer.find(b"\0")) >= 0:
            yield bytes(buffer[:end])
            del buffer[: end + 1]
        if len(buffer) > _LONGEST:
            raise ServiceMissing(f"an answer of more than {_LONGEST >> 20} MiB is not believed")


def _answer(message: bytes) -> dict[str, Any]:
    try:
        answer = decode(message, dict[str, Any])
        parameters: dict[str, Any] = answer.get("parameters") or {}
    except (UndecodableJson, AttributeError) as error:
        raise ServiceMissing(f"what answers is no service of dom0kit: {error}") from error
    if "error" not in answer:
        return parameters
    name = str(answer["error"]).rpartition(".")[2]
    if name == "NotAllowed":
        raise ServiceRefused("only root may do that")
    raise ServiceRefused(str(parameters.get("reason", name)))
