# SPDX-License-Identifier: MIT
"""The kernel module's device: hypercalls as ioctls, shared_info by mmap, and what only the kernel can read."""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from dom0kit import abi
from dom0kit.abi import BackendKind, Physdev, Status
from dom0kit.hypercall.interface import Hypervisor
from dom0kit.hypercall.shared_info import NotShared, SharedInfo, parse_shared_info
from dom0kit.layout import Record, layout
from dom0kit.walker import Notes

if TYPE_CHECKING:
    from dom0kit.acpi.aml_values import Value

A = TypeVar("A", bound=Record)

DEVICE: Final = "/dev/dom0kit"
_READ_WRITE: Final = 3


class ModuleMissing(Exception):
    """The device cannot be used; the message says why and what to do."""


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
        self.name = self.backend.name.lower()

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

    def reason(self, number: int, command: int, status: Status) -> str:
        if self.backend is not BackendKind.XEN or (number, status) != (abi.HYPERCALL_PHYSDEV, Status.NOT_SUPPORTED):
            return ""
        from dom0kit import xen
        from dom0kit.source.live import live

        domain = xen.observe(live())
        return domain.availability(Physdev(command)).reason if domain is not None else ""

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

    def evaluate(self, path: str) -> Value | None:
        """An object of the namespace by the kernel's own interpreter (`hv_evaluate` of abi.h names those allowed).

        None: it gave nothing. NotEvaluated: it failed, or may not be asked.
        """
        from dom0kit.hypercall.kernel_aml import evaluate

        return evaluate(
            lambda question: fcntl.ioctl(self._file, _number(abi.MODULE_EVALUATE, len(question)), question), path
        )

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
