# SPDX-License-Identifier: MIT
"""The core itself, in this process, over a modelled machine: a Hypervisor to plan, to simulate and to test against."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from dom0kit.abi import PAGE_BYTES, Format, Mode, Status
from dom0kit.hypercall.interface import Hypervisor
from dom0kit.hypercall.shared_info import SharedInfo, parse_shared_info


class LibraryMissing(Exception):
    """The extension was not built; the message says how to."""


class IoapicModel(msgspec.Struct, frozen=True, kw_only=True):
    """An IOAPIC of the modelled machine."""

    address: int
    """Physical, not 0."""
    id: int = 0
    version: int = 0x170020
    """The version register: highest pin in bits 23:16, version in bits 7:0. The default is QEMU's, with 24 pins."""
    entries: Mapping[int, int] = {}
    """What firmware left in an entry, by pin; the others are masked."""


class Access(msgspec.Struct, frozen=True):
    """One access of the core to a register of an IOAPIC."""

    address: int
    index: int
    value: int
    write: bool


class Arrival(msgspec.Struct, frozen=True):
    """An interrupt that a processor took, and what the core says of it."""

    vector: int
    status: Status
    domain: int
    pirq: int | None
    gsi: int | None
    guest_vector: int
    """The vector the domain expects."""
    level: bool


_NONE: Final = 0xFFFFFFFF
_LOG: Final = 4096


def load(path: Path | None = None) -> Any:
    """The extension (`lib` and `ffi`), or the variant of it at a path. LibraryMissing when there is none."""
    if path is not None:
        name = "_core_library"
        loader = importlib.machinery.ExtensionFileLoader(name, str(path))
        spec = importlib.util.spec_from_loader(name, loader)
        assert spec is not None
        try:
            module = importlib.util.module_from_spec(spec)
        except ImportError as error:
            raise LibraryMissing(f"no variant of the core's library: {error}") from error
        loader.exec_module(module)
        for entered in (name, f"{name}.lib"):  # the next variant has the same name
            sys.modules.pop(entered, None)
        return module
    try:
        return importlib.import_module("dom0kit.hypercall._core_library")
    except ImportError as error:
        raise LibraryMissing(
            "the core's library was not built, for want of a C compiler or Python's headers: "
            "apt-get install gcc python3-dev, then ./dev test or pip install dom0kit again"
        ) from error


class ModelMachine:
    """A modelled machine with the core on it; `domain(n)` is the core as domain n sees it."""

    def __init__(
        self,
        *,
        memory: Iterable[tuple[int, bytes]] = (),
        ioapics: Iterable[IoapicModel] = (),
        rsdp: int = 0,
        mode: Mode = Mode.INTERCEPT,
        entry_format: Format = Format.COMPATIBILITY,
        message_format: Format = Format.COMPATIBILITY,
        library: Path | None = None,
    ) -> None:
        """`memory` is physical (address, bytes) pieces; `rsdp` where the core looks for tables (0: nowhere).

        ValueError when the machine cannot be: an IOAPIC twice or at 0, memory in more pieces than the model has.
        """
        module = load(library)
        self._lib, self._ffi = module.lib, module.ffi
        machine = self._lib.hv_machine_new()
        if machine == self._ffi.NULL:
            raise MemoryError("no memory for a modelled machine")
        self._machine = self._ffi.gc(machine, self._lib.hv_machine_free)
        for address, data in memory:
            self._accept(self._lib.hv_machine_memory(machine, address, data, len(data)), f"memory at {address:#x}")
        for ioapic in ioapics:
            self.plug_ioapic(ioapic)
        self.restart(rsdp=rsdp, mode=mode, entry_format=entry_format, message_format=message_format)

    def restart(
        self,
        *,
        rsdp: int = 0,
        mode: Mode = Mode.INTERCEPT,
        entry_format: Format = Format.COMPATIBILITY,
        message_format: Format = Format.COMPATIBILITY,
    ) -> None:
        """The core starts anew on the machine as it is now."""
        status = self._lib.hv_machine_start(self._machine, rsdp, mode, entry_format, message_format)
        self._accept(status, "start")

    def plug_ioapic(self, ioapic: IoapicModel) -> None:
        """An IOAPIC that a core may find; one it was not told of by the MADT waits for ioapic_add."""
        where = f"IOAPIC at {ioapic.address:#x}"
        self._accept(
            self._lib.hv_machine_ioapic(self._machine, ioapic.address, ioapic.id & 0xFF, ioapic.version), where
        )
        for pin, entry in ioapic.entries.items():
            self._accept(self._lib.hv_machine_entry(self._machine, ioapic.address, pin, entry), f"{where}, pin {pin}")

    def refuse_remapping(self, refuse: bool) -> None:
        """The interrupt remapper refuses new entries from now on, or takes them again."""
        self._lib.hv_machine_refuse_remapping(self._machine, refuse)

    def reserve_vectors(self, first: int, last: int) -> None:
        """Takes vectors out of the core's use, as a home does that needs some itself; before any call."""
        self._lib.hv_machine_reserve(self._machine, first, last)

    def domain(self, number: int = 0) -> CoreLibrary:
        """The core as a domain sees it."""
        return CoreLibrary(self, number)

    def call(self, domain: int, number: int, command: int, argument: bytes) -> tuple[Status, bytes]:
        """One hypercall of a domain: status and argument as it came back."""
        room = self._ffi.new("uint8_t[]", argument + bytes(1))
        status = self._lib.hv_machine_call(
            self._machine, domain & _NONE, number & _NONE, command & _NONE, room, len(argument)
        )
        return Status(status), bytes(self._ffi.buffer(room, len(argument)))

    def trapped_read(self, domain: int, address: int, register: int) -> tuple[Status, int]:
        value = self._ffi.new("uint32_t *")
        status = self._lib.hv_machine_trapped_read(self._machine, domain, address, register, value)
        return Status(status), value[0]

    def trapped_write(self, domain: int, address: int, register: int, value: int) -> Status:
        return Status(self._lib.hv_machine_trapped_write(self._machine, domain, address, register, value))

    def register(self, address: int, index: int) -> int | None:
        """A register as the modelled hardware has it; None without such an IOAPIC."""
        if address not in range(1 << 64) or self._lib.hv_machine_register(self._machine, address, 1) == _NONE:
            return None
        value: int = self._lib.hv_machine_register(self._machine, address, index)
        return value

    def entry(self, address: int, pin: int) -> int:
        """The 64 bits of a redirection entry as the modelled hardware has them. KeyError without such an IOAPIC."""
        low, high = self.register(address, 0x10 + 2 * pin), self.register(address, 0x11 + 2 * pin)
        if low is None or high is None:
            raise KeyError(f"no IOAPIC at {address:#x}")
        return low | high << 32

    def log(self) -> list[Access]:
        """The core's accesses to IOAPICs since the last time this was asked (the first 4,096)."""
        room = self._ffi.new("struct hv_access[]", _LOG)
        count = min(self._lib.hv_machine_log(self._machine, room, _LOG), _LOG)
        return [Access(room[i].address, room[i].index, room[i].value, bool(room[i].write)) for i in range(count)]

    def line(self, address: int, pin: int, high: bool) -> None:
        """A device raises or lowers its interrupt line. ValueError: no such pin."""
        self._accept(self._lib.hv_machine_line(self._machine, address, pin, high), f"IOAPIC {address:#x} pin {pin}")

    def message(self, address: int, data: int, source: int = 0) -> Status:
        """A device writes an MSI message; `source` is its place in a remapping table."""
        return Status(self._lib.hv_machine_message(self._machine, source, address, data))

    def take(self, cpu: int) -> Arrival | None:
        """A processor takes its most important pending interrupt and asks the core; None when nothing is pending."""
        status = self._ffi.new("int32_t *")
        got = self._ffi.new("struct hv_delivery *")
        vector = self._lib.hv_machine_take(self._machine, cpu, status, got)
        if vector == 0:
            return None
        if status[0] != Status.OK:
            return Arrival(vector, Status(status[0]), 0, None, None, vector, False)
        pirq, gsi = got.pirq, got.gsi
        return Arrival(
            vector,
            Status.OK,
            got.domain,
            None if pirq == _NONE else pirq,
            None if gsi == _NONE else gsi,
            got.vector,
            got.level,
        )

    def end(self, cpu: int) -> int | None:
        """A processor ends the interrupt it is at; its vector, None when it is at none."""
        vector: int = self._lib.hv_machine_end(self._machine, cpu)
        return vector or None

    def shared_at(self) -> int:
        """Guest-physical address dom0 asked shared_info to be at; 0: none."""
        address: int = self._lib.hv_machine_shared_at(self._machine)
        return address

    def changes(self) -> int:
        """How often the counter in shared_info went up."""
        count: int = self._lib.hv_machine_changes(self._machine)
        return count

    def shared_info(self) -> bytes:
        """The two pages."""
        pages = self._lib.hv_machine_shared(self._machine)
        return bytes(self._ffi.buffer(pages, 2 * PAGE_BYTES))

    def digest(self) -> int:
        """A number that changes with anything in the core but counters of calls, and with any register."""
        number: int = self._lib.hv_machine_digest(self._machine)
        return number

    def nanoseconds_a_vector(self, rounds: int, *, full: bool = False) -> float:
        """Mean time of allocating a vector and giving it back, with all free, or all but one taken.

        ValueError where the core refuses.
        """
        return self._mean(self._lib.hv_machine_time_vectors(self._machine, rounds, full))

    def nanoseconds_an_apic_write(self, address: int, rounds: int) -> float:
        """Mean time of an apic_write that masks or unmasks pin 0 of an IOAPIC. ValueError where the core refuses."""
        return self._mean(self._lib.hv_machine_time_apic_write(self._machine, address, rounds))

    def _mean(self, nanoseconds: float) -> float:
        if nanoseconds < 0:
            raise ValueError("nothing was measured: the core refused the call")
        return nanoseconds

    def _accept(self, status: int, what: str) -> None:
        if status != Status.OK:
            raise ValueError(f"modelled machine, {what}: {Status(status).sentence} ({Status(status).name})")


class CoreLibrary(Hypervisor):
    """The core of a modelled machine, as one of its domains sees it."""

    name = "library"

    def __init__(self, machine: ModelMachine, number: int = 0) -> None:
        self.machine = machine
        self.number = number

    def call(self, number: int, command: int, argument: bytes) -> tuple[Status, bytes]:
        return self.machine.call(self.number, number, command, argument)

    def shared_info(self) -> SharedInfo:
        return parse_shared_info(self.machine.shared_info())
