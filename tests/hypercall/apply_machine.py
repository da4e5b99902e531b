# SPDX-License-Identifier: MIT
"""A machine to apply plans to, which can be killed: the core's library, and Linux's files below a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dom0kit.abi import PAGE_BYTES, InterruptFlag, Mode, Status
from dom0kit.address import Sbdf
from dom0kit.hypercall.core_library import CoreLibrary, IoapicModel, ModelMachine
from dom0kit.hypercall.interface import HypercallRefused
from dom0kit.hypercall.journal import Disk
from dom0kit.hypercall.linux import Linux, LinuxRefused
from dom0kit.hypercall.world import World
from dom0kit.plan import AnyFact, AnyOperation, Backend, Dialect, Plan
from tests.hv_core.machines import FIRST, SECOND, SPARE, cpu, ioapic, machine, madt, mcfg, small

BOOT = "11111111-2222-3333-4444-555555555555"
FINGERPRINT = "5" * 64
ECAM = 0xE0000000
PINS = 8
PHYSICAL, VIRTUAL, OTHER, UNKNOWN = (Sbdf(0, 0, device, 0) for device in (3, 4, 5, 6))
TABLE = 0xFEBF0000


class Killed(BaseException):
    """The process is no more."""


class Death:
    """Counts what could be the last thing a process does, and kills it there."""

    def __init__(self, at: int | None = None) -> None:
        self.left = at
        self.events = 0

    def comes(self) -> bool:
        """Whether this is the moment."""
        self.events += 1
        if self.left is None:
            return False
        self.left -= 1
        if self.left == 0:
            self.left = None
            return True
        return False

    def point(self) -> None:
        if self.comes():
            raise Killed


class MortalCore(CoreLibrary):
    """The core; the process may die before a hypercall, and after it."""

    def __init__(self, machine: ModelMachine, death: Death) -> None:
        super().__init__(machine)
        self.death = death

    def call(self, number: int, command: int, argument: bytes) -> tuple[Status, bytes]:
        self.death.point()
        answer = super().call(number, command, argument)
        self.death.point()
        return answer


class MortalDisk(Disk):
    """The disk; the process may die before and after everything, and while it writes."""

    def __init__(self, death: Death) -> None:
        self.death = death

    def write(self, file: int, data: bytes, offset: int) -> None:
        if self.death.comes():
            super().write(file, data[: len(data) // 2], offset)
            raise Killed
        super().write(file, data, offset)
        self.death.point()

    def reserve(self, file: int, size: int) -> None:
        self.death.point()
        super().reserve(file, size)

    def sync(self, file: int) -> None:
        self.death.point()
        super().sync(file)

    def rename(self, old: str, new: str, folder: int) -> None:
        self.death.point()
        super().rename(old, new, folder)
        self.death.point()

    def remove(self, name: str, folder: int) -> None:
        self.death.point()
        super().remove(name, folder)
        self.death.point()


def model(mode: Mode) -> ModelMachine:
    """Two processors; two IOAPICs of 8 pins, and a third that nobody has told of."""
    version = (PINS - 1) << 16 | 0x20
    return machine(
        madt(cpu(0), cpu(1), ioapic(FIRST, 0), ioapic(SECOND, 16, 1)),
        mcfg((ECAM, 0, 0, 0x7F)),
        ioapics=[
            IoapicModel(address=FIRST, version=version),
            IoapicModel(address=SECOND, id=1, version=version, entries={7: 0x0000_0000_0001_00A0}),
            IoapicModel(address=SPARE, id=2, version=version),
        ],
        mode=mode,
        library=small(),
    )


def world(made: ModelMachine, linux: Linux, death: Death | None = None, backend: Backend = Backend.LIBRARY) -> World:
    return World(backend, MortalCore(made, death or Death()), linux)


def plan(*operations: AnyOperation, facts: tuple[AnyFact, ...] = (), **fields: Any) -> Plan:
    given: dict[str, Any] = {
        "title": "a test's plan",
        "machine": "a model",
        "fingerprint": FINGERPRINT,
        "dialect": Dialect.MODERN,
        "backend": Backend.LIBRARY,
        "facts": facts,
        "operations": operations,
    }
    return Plan(**given | fields)


def state(made: ModelMachine, *, vectors: bool = True) -> dict[str, Any]:
    """All that domain 0 can read: the interrupts of every domain, every entry, counts; without `vectors`, but these."""
    dom0 = made.domain(0)
    information = dom0.information()
    shared = dom0.shared_info()
    found: dict[str, Any] = {
        "ioapics": shared.ioapics,
        "counts": (information.functions, information.messages, information.domains),
        "functions": {
            (domain, function): _owned(made, domain, function)
            for domain in range(4)
            for function in (PHYSICAL, VIRTUAL, OTHER)
        },
    }
    for domain in range(4):
        try:
            interrupts = list(dom0.interrupts(domain))
        except HypercallRefused:
            found[f"domain {domain}"] = "none"
            continue
        found[f"domain {domain}"] = [
            (
                each.kind,
                each.pirq,
                each.gsi,
                each.function,
                each.entry,
                (each.cpu, each.vector) if vectors else each.vector is not None,
                each.flags & ~InterruptFlag.DRAINING,
                _message(dom0, each.pirq, domain) if each.gsi is None and vectors else None,
            )
            for each in sorted(interrupts, key=lambda each: (each.gsi is None, each.gsi or 0, each.pirq or 0))
        ]
    for each in shared.ioapics:
        for register in range(0x10, 0x10 + 2 * each.pins):
            found[f"{each.address:#x} {register:#x}"] = _register(dom0, each.address, register)
    return found


def _owned(made: ModelMachine, domain: int, function: Sbdf) -> str:
    try:
        made.domain(0).map_msix(function, 0, 1, 0x7FFFFFFF, domain)
    except HypercallRefused as refused:
        return refused.status.name
    raise AssertionError("a pIRQ beyond all limits was mapped")


def _message(dom0: CoreLibrary, pirq: int | None, domain: int) -> object:
    assert pirq is not None
    try:
        return dom0.msi_read(pirq, domain)
    except HypercallRefused as refused:
        return refused.status


def _register(dom0: CoreLibrary, address: int, register: int) -> object:
    try:
        return dom0.apic_read(address, register)
    except HypercallRefused as refused:
        return refused.status


# ---- Linux -----------------------------------------------------------------------------------------------------------

CONFIG = bytearray(4096)
CONFIG[0:4] = bytes.fromhex("86806f10")
CONFIG[4] = 0x02
CONFIG[0x34] = 0x50
CONFIG[0x50:0x54] = bytes([0x05, 0x60, 0x88, 0x01])  # MSI: 16 messages, 64-bit, per-vector masks
CONFIG[0x60:0x64] = bytes([0x11, 0x00, 0x03, 0x00])  # MSI-X: four entries


class FakeLinux(Linux):
    """Linux below a folder: what the kernel would do when a file is written, is done here."""

    def __init__(self, root: Path, death: Death | None = None) -> None:
        super().__init__(str(root))
        self.root = root
        self.death = death or Death()
        self.stubborn: set[str] = set()
        """Drivers that do not let go."""

    def write_config(self, function: Sbdf, offset: int, width: int, value: int) -> None:
        self.death.point()
        super().write_config(function, offset, width, value)
        self.death.point()

    def write_bar(self, function: Sbdf, bar: int, offset: int, value: int) -> None:
        self.death.point()
        super().write_bar(function, bar, offset, value)
        self.death.point()

    def _write(self, path: str, text: str, what: str) -> None:
        self.death.point()
        name = os.path.basename(path)
        if name == "bind":
            self._bind(Sbdf.parse(text), os.path.basename(os.path.dirname(path)))
        elif name == "unbind":
            if os.path.basename(os.path.dirname(path)) not in self.stubborn:
                (self.device(Sbdf.parse(text)) / "driver").unlink()
        else:
            super()._write(path, text, what)
            (self.root / path).write_text(text if text != "\n" else "")
        self.death.point()

    def _bind(self, function: Sbdf, driver: str) -> None:
        if (self.override(function) or driver) != driver:
            raise LinuxRefused(f"binding {function} to {driver}: No such device")
        link = self.device(function) / "driver"
        link.symlink_to(f"../../../bus/pci/drivers/{driver}")

    def device(self, function: Sbdf) -> Path:
        return self.root / "sys/bus/pci/devices" / str(function)

    def give(self, function: Sbdf, driver: str | None = None, override: str = "") -> None:
        """A function appears."""
        real = self.root / "sys/devices/pci0000:00" / str(function)
        real.mkdir(parents=True)
        devices = self.root / "sys/bus/pci/devices"
        devices.mkdir(parents=True, exist_ok=True)
        (devices / str(function)).symlink_to(f"../../../devices/pci0000:00/{function}")
        (real / "config").write_bytes(CONFIG)
        (real / "vendor").write_text("0x8086\n")
        (real / "device").write_text("0x106f\n")
        (real / "resource0").write_bytes(bytes(range(256)) * (2 * PAGE_BYTES // 256))
        (real / "driver_override").write_text(override)
        if driver is not None:
            (real / "driver").symlink_to(f"../../../bus/pci/drivers/{driver}")

    def drivers(self, *names: str) -> None:
        for name in names:
            (self.root / "sys/bus/pci/drivers" / name).mkdir(parents=True)

    def irq(self, number: int, *, chip: str = "IO-APIC", hwirq: int = 0, actions: str = "") -> None:
        folder = self.root / f"sys/kernel/irq/{number}"
        folder.mkdir(parents=True)
        for name, text in (("chip_name", chip), ("hwirq", str(hwirq)), ("actions", actions)):
            (folder / name).write_text(f"{text}\n")
        affinity = self.root / f"proc/irq/{number}"
        affinity.mkdir(parents=True)
        (affinity / "smp_affinity_list").write_text("0-1\n")


def files(root: Path) -> dict[str, object]:
    """Every file and link below a folder."""
    return dict(_files(root))


def _files(root: Path) -> Iterator[tuple[str, object]]:
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            yield name, os.readlink(path)
        elif path.is_file():
            yield name, path.read_bytes().strip(b"\n")
