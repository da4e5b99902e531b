# SPDX-License-Identifier: MIT
"""What a plan does to PCI functions and drivers, by way of Linux's files; every path lies below one root.

Sources: Documentation/ABI/testing/sysfs-bus-pci (bind, unbind, driver_override, config, resourceN),
Documentation/ABI/testing/sysfs-kernel-irq, Documentation/core-api/irq/irq-affinity.rst.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import stat
from collections.abc import Iterator
from typing import Final

import msgspec

from dom0kit.address import Sbdf

_ADDRESS: Final = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]")
_DEVICE: Final = re.compile(r"sys/bus/pci/devices/([^/]+)")
_IRQ: Final = re.compile(r"[0-9]{1,7}", re.ASCII)


class Requested(msgspec.Struct, frozen=True):
    """An interrupt of Linux that drivers have requested."""

    irq: int
    pin: int | None
    """Of its IOAPIC, which Linux does not name; None where it is not an IOAPIC's."""
    names: tuple[str, ...]
    """Of the drivers' handlers."""


class LinuxRefused(Exception):
    """Linux did not do it; the message says what and why."""


class FunctionGone(LinuxRefused):
    """There is no such PCI function, or not any more."""


class Linux:
    """The PCI functions, drivers and interrupts of the machine whose /sys and /proc lie below a root."""

    def __init__(self, root: str = "/") -> None:
        self._root = os.path.realpath(root)

    def functions(self) -> list[Sbdf]:
        """Every PCI function that a hypercall can name, ascending."""
        try:
            names = os.listdir(self._path("sys/bus/pci/devices/."))
        except OSError:
            return []
        found = []
        for name in names:
            with contextlib.suppress(ValueError):
                found.append(Sbdf.parse(name))
        return sorted(function for function in found if function.segment <= 0xFFFF)

    # ---- Config space ----

    def config(self, function: Sbdf, offset: int, width: int) -> int:
        """A register of 1, 2 or 4 bytes."""
        with self._opened(_of(function, "config"), os.O_RDONLY, f"config space of {function}") as file:
            data = os.pread(file, width, offset)
        if len(data) != width:
            raise LinuxRefused(f"config space of {function} ends before {offset + width:#x}; reading all takes root")
        return int.from_bytes(data, "little")

    def write_config(self, function: Sbdf, offset: int, width: int, value: int) -> None:
        what = f"config register {offset:#x} of {function}"
        with self._opened(_of(function, "config"), os.O_WRONLY, what) as file:
            if os.pwrite(file, value.to_bytes(width, "little"), offset) != width:
                raise LinuxRefused(f"{what} was not written")

    def identity(self, function: Sbdf) -> tuple[int, int]:
        """Vendor and device, as Linux knows them: those of a virtual function do not stand in its config space."""
        numbers = []
        for name in ("vendor", "device"):
            text = self._read(_of(function, name), f"{name} of {function}")
            try:
                numbers.append(int(text, 16))
            except ValueError:
                raise LinuxRefused(f"{name} of {function} is no number: {text!r}") from None
        return numbers[0], numbers[1]

    def is_virtual(self, function: Sbdf) -> bool:
        """A virtual function of SR-IOV."""
        return os.path.islink(self._path(_of(function, "physfn")))

    # ---- Device memory ----

    def bar(self, function: Sbdf, bar: int, offset: int, words: int) -> tuple[int, ...]:
        """32-bit words of a memory BAR, from a multiple of 4 on."""
        with self._mapped(function, bar, offset, words, write=False) as memory:
            return tuple(memory)

    def write_bar(self, function: Sbdf, bar: int, offset: int, value: int) -> None:
        """One 32-bit word."""
        with self._mapped(function, bar, offset, 1, write=True) as memory:
            memory[0] = value

    # ---- Drivers ----

    def driver(self, function: Sbdf) -> str | None:
        """Name of the driver that a function is bound to. LinuxRefused: no such function."""
        self._must_be(function)
        try:
            return os.path.basename(os.readlink(self._path(_of(function, "driver"))))
        except OSError:
            return None

    def override(self, function: Sbdf) -> str | None:
        """The one driver that may bind a function; None: any."""
        text = self._read(_of(function, "driver_override"), f"driver_override of {function}")
        return None if text in ("", "(null)") else text

    def set_override(self, function: Sbdf, driver: str | None) -> None:
        self._write(_of(function, "driver_override"), f"{driver or ''}\n", f"driver_override of {function}")

    def bind(self, function: Sbdf, driver: str) -> None:
        self._must_be(function)
        self.must_have(driver)
        self._write(f"sys/bus/pci/drivers/{driver}/bind", f"{function}", f"binding {function} to {driver}")

    def unbind(self, function: Sbdf, driver: str) -> None:
        self._must_be(function)
        self._write(f"sys/bus/pci/drivers/{driver}/unbind", f"{function}", f"unbinding {function} from {driver}")

    def must_have(self, driver: str) -> None:
        """LinuxRefused where the driver is not loaded."""
        if not os.path.isdir(self._path(f"sys/bus/pci/drivers/{driver}")):
            raise LinuxRefused(f"there is no driver {driver}: load its module (modprobe {driver})")

    # ---- Resets and groups ----

    def reset_methods(self, function: Sbdf) -> tuple[str, ...]:
        """Ways of resetting that Linux will try, in this order; none also before 5.15, where it does not say."""
        self._must_be(function)
        return tuple((self._maybe(_of(function, "reset_method")) or "").split())

    def set_reset_methods(self, function: Sbdf, methods: str) -> None:
        self._write(_of(function, "reset_method"), f"{methods}\n", f"the ways of resetting {function}")

    def reset(self, function: Sbdf) -> None:
        self._write(_of(function, "reset"), "1\n", f"resetting {function}")

    def group(self, function: Sbdf) -> tuple[Sbdf, ...]:
        """All functions of its IOMMU group, ascending; none where Linux uses no IOMMU."""
        self._must_be(function)
        try:
            names = os.listdir(self._path(_of(function, "iommu_group/devices")))
        except OSError:
            return ()
        return tuple(sorted(Sbdf.parse(name) for name in names if _ADDRESS.fullmatch(name)))

    # ---- Interrupts ----

    def requested(self) -> list[Requested]:
        """Linux's interrupts that drivers have requested, messages aside, ascending."""
        found = []
        for irq in self._irqs():
            folder = f"sys/kernel/irq/{irq}"
            names = tuple(filter(None, (self._maybe(f"{folder}/actions") or "").split(",")))
            chip = self._maybe(f"{folder}/chip_name") or ""
            if names and "MSI" not in chip:
                hwirq = self._maybe(f"{folder}/hwirq") or ""
                pin = int(hwirq) if "IO-APIC" in chip and _IRQ.fullmatch(hwirq) else None
                found.append(Requested(irq, pin, names))
        return found

    def _irqs(self) -> list[int]:
        try:
            names = os.listdir(self._path("sys/kernel/irq/."))
        except OSError:
            return []
        return sorted(int(name) for name in names if _IRQ.fullmatch(name))

    def has_irq(self, number: int) -> bool:
        """Whether Linux has an IRQ of this number: under Xen, that its GSI is mapped."""
        return bool(self._maybe(f"sys/kernel/irq/{number}/chip_name"))

    def affinity(self, irq: int) -> str:
        """Processors that a Linux IRQ may go to, such as ``0-3,8``."""
        return self._read(f"proc/irq/{irq}/smp_affinity_list", f"the affinity of IRQ {irq}")

    def set_affinity(self, irq: int, cpus: str) -> None:
        self._write(f"proc/irq/{irq}/smp_affinity_list", f"{cpus}\n", f"the affinity of IRQ {irq}")

    # ---- How ----

    def _path(self, path: str) -> str:
        """Below the root, links followed: those of /sys lead to other places of /sys, and must not lead out."""
        folder, name = os.path.split(os.path.join(self._root, path))
        folder = os.path.realpath(folder)
        if os.path.commonpath((folder, self._root)) != self._root:
            raise LinuxRefused(f"/{path} leads out of {self._root}")
        return os.path.join(folder, name)

    def _must_be(self, function: Sbdf) -> None:
        if not os.path.isdir(self._path(_of(function, ""))):
            raise FunctionGone(f"there is no PCI function {function}")

    @contextlib.contextmanager
    def _opened(self, path: str, flags: int, what: str) -> Iterator[int]:
        try:
            file = os.open(self._path(path), flags | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                if not stat.S_ISREG(os.fstat(file).st_mode):
                    raise LinuxRefused(f"{what}: /{path} is not a file")
                yield file
            finally:
                os.close(file)
        except OSError as error:
            gone = _DEVICE.match(path)
            if gone is not None and not os.path.isdir(self._path(gone[0])):
                raise FunctionGone(f"there is no PCI function {gone[1]}") from error
            raise LinuxRefused(f"{what}: {error.strerror}") from error

    @contextlib.contextmanager
    def _mapped(self, function: Sbdf, bar: int, offset: int, words: int, *, write: bool) -> Iterator[memoryview]:
        what = f"BAR {bar} of {function}"
        start = offset % mmap.PAGESIZE
        flags, protection = (os.O_RDWR, mmap.PROT_READ | mmap.PROT_WRITE) if write else (os.O_RDONLY, mmap.PROT_READ)
        with self._opened(_of(function, f"resource{bar}"), flags, what) as file:
            if offset + 4 * words > os.fstat(file).st_size:
                raise LinuxRefused(f"{what} ends before {offset + 4 * words:#x}")
            length = start + 4 * words
            with (
                mmap.mmap(file, length, mmap.MAP_SHARED, protection, offset=offset - start) as pages,
                memoryview(pages) as view,
                view[start:].cast("I") as memory,
            ):
                yield memory

    def _read(self, path: str, what: str) -> str:
        with self._opened(path, os.O_RDONLY, what) as file:
            return os.read(file, 4096).decode("utf-8", "replace").strip()

    def _maybe(self, path: str) -> str | None:
        try:
            return self._read(path, path)
        except LinuxRefused:
            return None

    def _write(self, path: str, text: str, what: str) -> None:
        with self._opened(path, os.O_WRONLY, what) as file:
            os.write(file, text.encode())


def _of(function: Sbdf, name: str) -> str:
    return f"sys/bus/pci/devices/{function}/{name}" if name else f"sys/bus/pci/devices/{function}"
