# SPDX-License-Identifier: MIT
"""The kernel module's device: hypercalls as ioctls, shared_info by mmap, and what only the kernel can read."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import struct
from typing import Final, TypeVar

import msgspec

from dom0kit import abi
from dom0kit.abi import AmlType, BackendKind, Physdev, Status
from dom0kit.hypercall.interface import Hypervisor
from dom0kit.hypercall.shared_info import NotShared, SharedInfo, parse_shared_info
from dom0kit.layout import Record, layout
from dom0kit.walker import Notes

A = TypeVar("A", bound=Record)

DEVICE: Final = "/dev/dom0kit"
_RESULT_BYTES: Final = 64 << 10
_RESULT_MAX: Final = 1 << 20
_READ_WRITE: Final = 3
_DEPTH: Final = 9


class ModuleMissing(Exception):
    """The device cannot be used; the message says why and what to do."""


class NotEvaluated(Exception):
    """The kernel's interpreter gave no value; the message says why."""


class HardwareRegisters(msgspec.Struct, frozen=True, kw_only=True):
    """A real IOAPIC's registers."""

    address: int
    id: int
    """Register 0; the id lies in bits 27:24 (31:24 from xAPIC on)."""
    version: int
    """Register 1."""
    arbitration: int
    """Register 2."""
    entries: tuple[int, ...]
    """Redirection entries of 64 bits, by pin."""


class Reference(msgspec.Struct, frozen=True):
    """An object of the namespace that a value refers to; an empty path for one without a name."""

    path: str


AmlResult = int | str | bytes | Reference | tuple["AmlResult", ...] | None
"""What the kernel's interpreter made of an object; None for what was not initialised or has a type of its own."""


class KernelModule(Hypervisor):
    """Domain 0, by way of dom0kit.ko. Close it, or use it in ``with``."""

    def __init__(self, device: str = DEVICE) -> None:
        try:
            self._file = os.open(device, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise ModuleMissing(
                f"there is no {device}: load the module (modprobe dom0kit; built with make -C kmod)"
            ) from error
        except OSError as error:
            raise ModuleMissing(f"{device} cannot be opened: {error.strerror}; it asks for root") from error
        information = self._module(abi.MODULE_INFORMATION, abi.ModuleInformation())
        if information.abi_version != abi.VERSION:
            self.close()
            raise ModuleMissing(
                f"the loaded module speaks version {information.abi_version} of the ABI, this program {abi.VERSION}: "
                "build and load the module that belongs to it"
            )
        self.backend: Final = BackendKind(information.backend)
        """What the calls reach."""

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> KernelModule:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def call(self, number: int, command: int, argument: bytes) -> tuple[Status, bytes]:
        if (number, command) not in abi.ARGUMENTS:
            return Status.NO_CALL, argument
        nr = command if number == abi.HYPERCALL_PHYSDEV else 0x40 + command
        size = layout(abi.ARGUMENTS[number, command]).size
        if (number, command) == (abi.HYPERCALL_PHYSDEV, Physdev.PCI_DEVICE_ADD):
            argument = argument[:size].ljust(size, b"\0")
        try:
            return Status.OK, self._ioctl(nr, argument)
        except OSError as error:
            try:
                return Status(-(error.errno or 0)), argument
            except ValueError:
                raise error from None

    def shared_info(self) -> SharedInfo:
        """The block and the list, read until a copy is whole. NotShared after a hundred torn ones."""
        with mmap.mmap(self._file, 2 * abi.PAGE_BYTES, mmap.MAP_SHARED, mmap.PROT_READ) as pages:
            for attempt in range(100):
                try:
                    return parse_shared_info(bytes(pages))
                except NotShared:
                    if attempt == 99:
                        raise
        raise AssertionError("not reached")

    def watch(self) -> int:
        """An eventfd that counts the changes of shared_info; close it when done."""
        events = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            self._module(abi.MODULE_WATCH, abi.ModuleWatch(fd=events))
        except OSError:
            os.close(events)
            raise
        return events

    def read_hardware(self, address: int) -> HardwareRegisters:
        """A real IOAPIC's registers. OSError: ENODEV, the MADT has none there; EOPNOTSUPP under Xen (PV)."""
        got = self._module(abi.MODULE_READ_HARDWARE, abi.HardwareIoapic(address=address))
        entries = struct.unpack("<120Q", bytes.fromhex(got.entry))
        return HardwareRegisters(
            address=address,
            id=got.id,
            version=got.version,
            arbitration=got.arbitration,
            entries=entries[: min(got.pins, 120)],
        )

    def evaluate(self, path: str) -> AmlResult:
        """An object of the namespace by the kernel's own interpreter (`hv_evaluate` of abi.h names those allowed)."""
        name = path.encode()
        if len(name) > 255:
            raise NotEvaluated(f"{path[:40]}...: a path has at most 255 characters")
        size = _RESULT_BYTES
        while True:
            room = ctypes.create_string_buffer(size)
            wanted = abi.Evaluate(path=name.ljust(256, b"\0").hex(), buffer=ctypes.addressof(room), bytes=size)
            data = bytearray(layout(abi.Evaluate).build(wanted))
            try:
                fcntl.ioctl(self._file, _number(abi.MODULE_EVALUATE, len(data)), data, True)
            except OSError as error:
                got = _parsed(abi.Evaluate, bytes(data))
                if error.errno == errno.ENOSPC and size < got.needed <= _RESULT_MAX:
                    size = got.needed
                    continue
                raise NotEvaluated(_why(path, error, got.acpi_status)) from error
            value, _ = _value(room.raw[: _parsed(abi.Evaluate, bytes(data)).needed], 0, 0)
            return value

    def _module(self, nr: int, argument: A) -> A:
        return _parsed(type(argument), self._ioctl(nr, layout(type(argument)).build(argument)))

    def _ioctl(self, nr: int, argument: bytes) -> bytes:
        data = bytearray(argument)
        fcntl.ioctl(self._file, _number(nr, len(data)), data, True)
        return bytes(data)


def _parsed(type: type[A], data: bytes) -> A:
    got = layout(type).parse(data, 0, len(data), Notes("ioctl"))
    assert got is not None, "an answer has the size of its question"
    return got


def _number(nr: int, size: int) -> int:
    return _READ_WRITE << 30 | size << 16 | abi.IOCTL_TYPE << 8 | nr


def _why(path: str, error: OSError, acpi_status: int) -> str:
    return {
        errno.EPERM: f"{path}: only objects that Linux evaluates itself at boot may be asked for",
        errno.EINVAL: f"{path} is not an absolute path such as \\_SB_.PCI0._PRT",
        errno.ENOENT: f"there is no {path}",
        errno.EIO: f"{path}: the interpreter failed with ACPICA status {acpi_status:#x}",
        errno.E2BIG: f"{path}: the value is nested too deep or larger than 1 MiB",
    }.get(error.errno or 0, f"{path}: {error.strerror}")


def _value(data: bytes, at: int, depth: int) -> tuple[AmlResult, int]:
    """The value at an offset, and where it ends. NotEvaluated where the bytes make no value."""
    if at + 8 > len(data) or depth > _DEPTH:
        raise NotEvaluated("the kernel's answer is cut off")
    kind, length = struct.unpack_from("<II", data, at)
    at += 8
    if kind == AmlType.PACKAGE:
        elements: list[AmlResult] = []
        for _ in range(length):
            element, at = _value(data, at, depth + 1)
            elements.append(element)
        return tuple(elements), at
    body = data[at : at + length]
    if len(body) < length:
        raise NotEvaluated("the kernel's answer is cut off")
    end = at + (length + 7) // 8 * 8
    if kind == AmlType.INTEGER:
        return int.from_bytes(body, "little"), end
    if kind == AmlType.STRING:
        return body.decode("latin-1"), end
    if kind == AmlType.BUFFER:
        return body, end
    if kind == AmlType.REFERENCE:
        return Reference(body.decode("latin-1")), end
    return None, end
