# SPDX-License-Identifier: MIT
"""Xen 4.17 behind /dev/xen/privcmd, as it was measured: what an ioctl does to a machine's IOAPIC, pIRQs and functions.

`FakeXen.ioctl` takes the place of `fcntl.ioctl`. What makes the real one panic raises `Panicked`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from pathlib import Path

from dom0kit import abi
from dom0kit.abi import Physdev
from dom0kit.hypercall.xen import IOCTL_HYPERCALL, Privcmd, Xen

IOAPIC = 0xFEC00000
PINS = 24
NR_PIRQS = 208
MASKED, LEVEL, LOW = 1 << 16, 1 << 15, 1 << 13
KNOWN_PVH = (Physdev.PCI_MMCFG_RESERVED, Physdev.PCI_DEVICE_ADD, Physdev.PCI_DEVICE_REMOVE)


class Panicked(Exception):
    """The hypervisor is gone, and the machine with it."""


class FakeXen:
    """One machine with one IOAPIC, and its domain 0."""

    def __init__(self, *, version: tuple[int, int] = (4, 17), pvh: bool = False, dom0: bool = True) -> None:
        self.version = version
        self.pvh = pvh
        self.dom0 = dom0
        self.interface = 0x15
        """Of sysctl."""
        self.entries = [MASKED] * PINS
        self.bound = {1: 0, 9: 0}
        """Virtual processor by pIRQ of what drivers of dom0 requested."""
        self.internal = {2, 4}
        """Pins of Xen's timer and serial line."""
        self.set_up: set[int] = set()
        self.pirqs: dict[int, int] = {}
        """GSI by pIRQ."""
        self.forbidden: set[int] = set()
        """GSIs that dom0 has unmapped."""
        self.functions = {(0, 0, 0), (0, 0, 0xF8)}
        """Segment, bus, devfn."""
        self.unowned: set[tuple[int, ...]] = set()
        """Those of them that no domain has, for the IOMMU did not take them: not even a second time."""
        self.absent: set[tuple[int, ...]] = set()
        """What the IOMMU will not take."""
        self.added: list[bytes] = []
        """Arguments of pci_device_add."""
        self.calls: list[tuple[int, int]] = []
        """Hypercall numbers and commands."""
        for pin in (1, 2, 4, 9):
            self.entries[pin] = 1 << 56 | (LEVEL if pin == 9 else 0) | 0x930 + 8 * pin

    def ioctl(self, file: int, request: int, words: bytearray, mutate: bool) -> int:
        assert (request, len(words), mutate) == (IOCTL_HYPERCALL, 48, True)
        number, *arguments = struct.unpack("<6Q", words)
        self.calls.append((number, arguments[0]))
        status = self._hypercall(number, arguments)
        if status < 0:
            raise OSError(-status, os.strerror(-status))
        return status

    def _hypercall(self, number: int, arguments: list[int]) -> int:
        if number == 17:
            return self._version(*arguments[:2])
        if number == 32 and arguments[0] == 5:
            return self._event_status(arguments[1])
        if number == 35:
            return self._sysctl(arguments[0])
        return self._physdev(arguments[0], arguments[1]) if number == abi.HYPERCALL_PHYSDEV else -errno.ENOSYS

    def _version(self, command: int, address: int) -> int:
        if command == 0:
            return self.version[0] << 16 | self.version[1]
        assert command == 6
        index, _ = _read(address, "<II")
        if index:
            return -errno.EINVAL
        _write(address, "<II", 0, 0x200F0 | self.dom0 << 11 | self.pvh << 2)
        return 0

    def _event_status(self, address: int) -> int:
        domain, _, port, *_ = _read(address, "<HHIIIQ")
        assert domain == abi.DOMID_SELF
        if port >= 64:
            return -errno.EINVAL
        bound = dict(enumerate(self.bound.items(), 5)).get(port)
        kind, pirq, cpu = (3, *bound) if bound else (4, 9, 0) if port == 1 else (0, 0, 0)
        _write(address, "<HHIIIQ", domain, 0, port, kind, cpu, 0xAB << 32 | pirq if kind == 3 else pirq)
        return 0

    def _sysctl(self, address: int) -> int:
        whole = bytearray(ctypes.string_at(address, 136))
        command, version, count, _, devices, nodes = struct.unpack_from("<IIIIQQ", whole)
        if version != self.interface:
            return -errno.EACCES
        assert command == 22
        count = min(count, 70)  # where something else has to run, Xen stops after 64 and more
        for index in range(count):
            known = _read(devices + 4 * index, "<HBB") in self.functions
            _write(nodes + 4 * index, "<I", 0xFFFFFFFF if known else 0xFFFFFFFE)
        struct.pack_into("<I", whole, 8, count)
        ctypes.memmove(address, bytes(whole), 136)
        return 0

    def _physdev(self, command: int, address: int) -> int:
        if self.pvh and command not in KNOWN_PVH:
            return -errno.ENOSYS
        match command:
            case Physdev.APIC_READ | Physdev.APIC_WRITE:
                return self._apic(command, address)
            case Physdev.ALLOC_IRQ_VECTOR:
                irq, _ = _read(address, "<II")
                _write(address, "<II", irq, irq)
            case Physdev.MAP_PIRQ:
                _, _, kind, index, pirq, *_ = _read(address, "<HHiiiiiiIQ")
                if kind != 1 or not 0 <= index < PINS:
                    return -errno.EINVAL
                if index in self.forbidden:
                    return -errno.EPERM
                pirq = next(n for n in range(16, 200) if n not in self.pirqs) if pirq < 0 else pirq
                self.pirqs[pirq] = index
                _write(address + 12, "<i", pirq)
            case Physdev.UNMAP_PIRQ:
                gsi = self.pirqs.pop(_read(address, "<HHi")[2], None)
                if gsi is None:
                    return -errno.EINVAL
                self.forbidden.add(gsi)
            case Physdev.SETUP_GSI:
                gsi, level, low, _ = _read(address, "<iBBH")
                if not 0 <= gsi < PINS:
                    return -errno.EINVAL
                if gsi in self.set_up:
                    return -errno.EEXIST
                self.set_up.add(gsi)
                self.entries[gsi] = 3 << 56 | MASKED | bool(level) * LEVEL | bool(low) * LOW | 0x9A0 + gsi
            case Physdev.PCI_DEVICE_ADD:
                device = _read(address, "<HBB")
                self.added.append(ctypes.string_at(address, 12))
                self.functions.add((device[0], device[1], device[2]))
                if device in self.absent:
                    self.unowned.add(device)
                    return -errno.EINVAL
                self.unowned.discard(device)
            case Physdev.PCI_DEVICE_REMOVE:
                device = _read(address, "<HBB")
                if device in self.unowned:
                    raise Panicked("vpci_remove_device of a function without a domain")
                if device not in self.functions:
                    return -errno.ENODEV
                self.functions.discard((device[0], device[1], device[2]))
            case Physdev.PCI_MMCFG_RESERVED:
                pass
            case Physdev.IRQ_STATUS_QUERY:
                irq, _ = _read(address, "<II")
                if irq > 415:
                    return -errno.EINVAL
                _write(address, "<II", irq, 1)
            case _:
                return -errno.ENOSYS
        return 0

    def _apic(self, command: int, address: int) -> int:
        base, register, value = _read(address, "<QII")
        if base != IOAPIC:
            return -errno.EINVAL
        pin, high = divmod(register - 0x10, 2)
        if command == Physdev.APIC_READ:
            found = {0: 0, 1: (PINS - 1) << 16 | 0x20, 2: 0}.get(register, 0)
            if 0 <= pin < PINS:
                found = self.entries[pin] >> 32 * high & 0xFFFFFFFF
            _write(address, "<QII", base, register, found)
            return 0
        if register < 0x10 or high:
            return 0
        if pin >= PINS + 2:
            raise Panicked(f"apic_write to pin {pin} of {PINS}")
        if value >> 8 & 7 > 1:
            return -errno.EINVAL
        if not value & MASKED and value & 0xFF >= NR_PIRQS:
            return -errno.EINVAL
        if not value & MASKED and pin in self.forbidden:
            return -errno.EPERM
        if pin < PINS and pin not in self.bound and pin not in self.internal:
            kept = value & (LEVEL | LOW)
            self.entries[pin] = 3 << 56 | kept | bool(value & LEVEL) * MASKED | 0x9A0 + pin
            if not value & MASKED:
                self.pirqs[value & 0xFF] = pin
        return 0


def opened(fake: FakeXen, folder: Path, **how: object) -> Xen:
    """The backend on it, with ordinary files in the place of the devices. The kernel has functions 0 to 7 of 00:05."""
    device, buffers = folder / "privcmd", folder / "hypercall"
    device.touch()
    buffers.write_bytes(bytes(1 << 14))
    for function in range(8):
        (folder / "devices" / f"0000:00:05.{function}").mkdir(parents=True, exist_ok=True)
    privcmd = Privcmd(str(device), str(buffers), ioctl=fake.ioctl)
    return Xen(privcmd, functions=folder / "devices", **({"ioapics": ()} | how))  # type: ignore[arg-type]


def _read(address: int, format: str) -> tuple[int, ...]:
    return struct.unpack(format, ctypes.string_at(address, struct.calcsize(format)))


def _write(address: int, format: str, *values: int) -> None:
    data = struct.pack(format, *values)
    ctypes.memmove(address, data, len(data))
