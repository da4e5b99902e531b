# SPDX-License-Identifier: MIT
"""Objects of the namespace by the kernel's interpreter: the question, and the value in its answer (`hv_evaluate`)."""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Callable
from typing import Final

from dom0kit import abi
from dom0kit.abi import AmlType
from dom0kit.acpi.aml_output import trimmed
from dom0kit.acpi.aml_values import Buffer, Integer, NotEvaluated, Opaque, Package, Reference, String, Value
from dom0kit.layout import layout
from dom0kit.walker import Notes

_FIRST_ROOM: Final = 64 << 10
_RESULT_MAX: Final = 1 << 20
_DEPTH: Final = 9


def evaluate(ask: Callable[[bytearray], object], path: str) -> Value | None:
    """What the object at `path` evaluates to; `ask` makes the ioctl. NotEvaluated where there is no answer."""
    name = path.encode()
    if len(name) > 255:
        raise NotEvaluated(f"{path[:40]}...: a path has at most 255 characters")
    size = _FIRST_ROOM
    while True:
        room = ctypes.create_string_buffer(size)
        wanted = abi.Evaluate(path=name.ljust(256, b"\0").hex(), buffer=ctypes.addressof(room), bytes=size)
        question = bytearray(layout(abi.Evaluate).build(wanted))
        try:
            ask(question)
        except OSError as error:
            got = _parsed(question)
            if error.errno == errno.ENOSPC and size < got.needed <= _RESULT_MAX:
                size = got.needed
                continue
            raise NotEvaluated(_why(path, error, got.acpi_status)) from error
        value, _ = _value(room.raw[: _parsed(question).needed], 0, 0)
        return value


def _parsed(data: bytearray) -> abi.Evaluate:
    got = layout(abi.Evaluate).parse(bytes(data), 0, len(data), Notes("ioctl"))
    assert got is not None, "an answer has the size of its question"
    return got


def _why(path: str, error: OSError, acpi_status: int) -> str:
    return {
        errno.EPERM: f"{path}: only objects that Linux evaluates itself at boot may be asked for",
        errno.EINVAL: f"{path} is not an absolute path such as \\_SB_.PCI0._PRT",
        errno.ENOENT: f"there is no {path}",
        errno.EIO: f"{path}: the interpreter failed with ACPICA status {acpi_status:#x}",
        errno.E2BIG: f"{path}: the value is nested too deep or larger than 1 MiB",
    }.get(error.errno or 0, f"{path}: {error.strerror}")


def _value(data: bytes, at: int, depth: int) -> tuple[Value | None, int]:
    """The value at an offset, and where it ends. NotEvaluated where the bytes make no value."""
    if at + 8 > len(data) or depth > _DEPTH:
        raise NotEvaluated("the kernel's answer is cut off")
    kind, length = struct.unpack_from("<II", data, at)
    at += 8
    if kind == AmlType.PACKAGE:
        elements: list[Value | None] = []
        for _ in range(length):
            element, at = _value(data, at, depth + 1)
            elements.append(element)
        return Package(tuple(elements)), at
    body = data[at : at + length]
    if len(body) < length:
        raise NotEvaluated("the kernel's answer is cut off")
    end = at + (length + 7) // 8 * 8
    match kind:
        case AmlType.NOTHING:
            return None, end
        case AmlType.INTEGER:
            return Integer(int.from_bytes(body, "little")), end
        case AmlType.STRING:
            return String(body.decode("latin-1")), end
        case AmlType.BUFFER:
            return Buffer(body.hex()), end
        case AmlType.REFERENCE:
            return Reference(trimmed(body.decode("latin-1"))), end
        case _:
            return Opaque(f"an object of type {int.from_bytes(body, 'little')}"), end
