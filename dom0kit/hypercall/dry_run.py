# SPDX-License-Identifier: MIT
"""A hypervisor and a Linux to which nothing is done: they read the real ones, and keep the list of what would be done.

What a plan has "done" is remembered as far as its later operations look at it, so that a whole plan can be rehearsed:
whose a GSI, a function or a domain would be by then, which pIRQs would be mapped, what registers would hold. What the
hypervisor would choose (a vector, the message it composes) reads as 0; how many pins an IOAPIC has that is still to be
added, nobody knows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from dom0kit import abi
from dom0kit.abi import Op, Physdev, Status
from dom0kit.address import Gsi, Sbdf
from dom0kit.hypercall.interface import SELF, HypercallRefused, Hypervisor, Interrupt, Listener, words
from dom0kit.hypercall.journal import AnyRecord, Done, Skipped
from dom0kit.hypercall.linux import FunctionGone, Linux, LinuxRefused, Requested
from dom0kit.hypercall.shared_info import SharedInfo, SharedIoapicEntry
from dom0kit.hypercall.world import BEYOND, MASKED
from dom0kit.layout import Record, layout
from dom0kit.plan import Inverse, Plan
from dom0kit.source.interface import RawFunction, Source
from dom0kit.walker import Notes

READS: Final[frozenset[tuple[int, int]]] = frozenset(
    {
        (abi.HYPERCALL_PHYSDEV, Physdev.IRQ_STATUS_QUERY),
        (abi.HYPERCALL_PHYSDEV, Physdev.APIC_READ),
        (abi.HYPERCALL_PHYSDEV, Physdev.GET_FREE_PIRQ),
        (abi.HYPERCALL_DOM0KIT, Op.INFORMATION),
        (abi.HYPERCALL_DOM0KIT, Op.QUERY_VECTOR),
        (abi.HYPERCALL_DOM0KIT, Op.READ_INTERRUPT),
        (abi.HYPERCALL_DOM0KIT, Op.READ_REPORT),
        (abi.HYPERCALL_DOM0KIT, Op.MSI_READ),
    }
)
"""Calls that change nothing."""
_REDIRECTION: Final = 0x10
_PINS: Final = 120


class DryRun(Hypervisor):
    """A hypervisor whose calls do nothing."""

    name = "dry_run"

    def __init__(self, real: Hypervisor, calls: list[str]) -> None:
        """`calls` gets what would be called, in words."""
        self._real = real
        self._calls = calls
        self._registers: dict[tuple[int, int], int] = {}
        self._messages: dict[tuple[int, int], tuple[int, int]] = {}
        self._granted: set[tuple[int, int]] = set()
        """(Domain, IRQ) that would have a vector."""
        self._unmapped: set[tuple[int, int]] = set()
        self._owners: dict[Sbdf | Gsi, int | None] = {}
        """Whose it would be; None: unknown to the core."""
        self._domains: dict[int, bool] = {}
        """Whether there would be a domain."""
        self._added: dict[int, Gsi] = {}
        self._removed: set[int] = set()

    def call(self, number: int, command: int, argument: bytes) -> tuple[Status, bytes]:
        key = (number, command)
        if key not in abi.ARGUMENTS:
            return Status.NO_CALL, argument
        record = _record(number, command, argument)
        if key in READS:
            return self._read(number, command, record, argument)
        if isinstance(record, abi.MapPirqArgument) and _is_question(record):
            return self._whose(number, command, record, argument)
        self._calls.append(_words(number, command, record))
        self._remember(key, record)
        return Status.OK, argument

    def interrupts(self, domain: int = SELF) -> Iterator[Interrupt]:
        exists = self._domains.get(domain)
        if exists is not None:
            if not exists:
                raise HypercallRefused(Status.NO_DOMAIN, f"read_interrupt(domain={domain:#x})")
            return iter(())
        lines = self._real.interrupts(domain)
        return (each for each in lines if (_own(domain), each.pirq) not in self._unmapped)

    def shared_info(self) -> SharedInfo:
        real = self._real.shared_info()
        ioapics = [each for each in real.ioapics if each.address not in self._removed]
        for address, gsi_base in self._added.items():
            ioapics.append(
                SharedIoapicEntry(
                    address=address, gsi_base=gsi_base, pins=_PINS, id=0, version=0, format=abi.Format.COMPATIBILITY
                )
            )
        return msgspec.structs.replace(real, ioapics=tuple(ioapics))

    def _read(self, number: int, command: int, record: Record, argument: bytes) -> tuple[Status, bytes]:
        answer: Record | None = None
        if isinstance(record, abi.Apic):
            value = self._registers.get((record.apic_physbase, record.reg))
            if value is None and record.apic_physbase in self._added:
                value = MASKED if record.reg >= _REDIRECTION and not record.reg % 2 else 0
            if value is not None:
                answer = msgspec.structs.replace(record, value=value)
        elif isinstance(record, abi.Msi):
            key = (_own(record.domain), record.irq)
            if key in self._messages:
                address, data = self._messages[key]
                answer = msgspec.structs.replace(record, address=address, data=data)
        elif isinstance(record, abi.QueryVector) and (_own(record.domain), record.irq) in self._granted:
            answer = record
        if answer is None:
            return self._real.call(number, command, argument)
        return Status.OK, layout(type(answer)).build(answer)

    def _whose(self, number: int, command: int, record: abi.MapPirqArgument, argument: bytes) -> tuple[Status, bytes]:
        """A question by a mapping that is refused: whose is it?"""
        if self._domains.get(_own(record.domid)) is False:
            return Status.NO_DOMAIN, argument
        source: Sbdf | Gsi = Gsi(record.index)
        if record.index < 0:
            word = record.bus & 0xFFFFFFFF
            source = Sbdf.from_devfn(word >> 16, word & 0xFF, record.devfn)
        is_new = record.index >= 0 and any(base <= record.index < base + _PINS for base in self._added.values())
        if source in self._owners or is_new:
            owner = self._owners.get(source, 0)
            if owner is None:
                return Status.NO_DEVICE, argument
            return (Status.OUT_OF_RANGE if owner == _own(record.domid) else Status.NOT_PERMITTED), argument
        if self._domains.get(_own(record.domid)):
            return Status.NOT_PERMITTED, argument
        return self._real.call(number, command, argument)

    def _remember(self, key: tuple[int, int], record: Record) -> None:
        if isinstance(record, abi.Apic):
            self._registers[record.apic_physbase, record.reg] = record.value
        elif isinstance(record, abi.MapPirqArgument):
            count = record.entry_nr if record.type == abi.MapPirq.MULTI_MSI else 1
            for pirq in range(record.pirq, record.pirq + count):
                self._granted.add((_own(record.domid), pirq))
                if record.type != abi.MapPirq.GSI:
                    self._messages[_own(record.domid), pirq] = (0, 0)
        elif isinstance(record, abi.UnmapPirq):
            self._unmapped.add((_own(record.domid), record.pirq))
        elif isinstance(record, abi.SetupGsi):
            self._granted.add((0, record.gsi))
        elif isinstance(record, abi.AllocIrqVector):
            self._granted.add((0, record.irq))
        elif isinstance(record, abi.Msi):
            self._messages[_own(record.domain), record.irq] = (record.address, record.data)
        elif isinstance(record, abi.PciDeviceAddPxm):
            device = record.device
            self._owners[Sbdf.from_devfn(device.seg, device.bus, device.devfn)] = 0
        elif isinstance(record, abi.PciDevice):
            self._owners[Sbdf.from_devfn(record.seg, record.bus, record.devfn)] = None
        elif isinstance(record, abi.AssignDevice):
            owner = record.domain if key[1] == Op.ASSIGN_DEVICE else 0
            device_ = record.device
            self._owners[Sbdf.from_devfn(device_.seg, device_.bus, device_.devfn)] = owner
        elif isinstance(record, abi.AssignGsi):
            self._owners[Gsi(record.gsi)] = record.domain if key[1] == Op.ASSIGN_GSI else 0
        elif isinstance(record, abi.DomainCreate):
            self._domains[record.domain] = True
        elif isinstance(record, abi.DomainDestroy):
            self._domains[record.domain] = False
        elif isinstance(record, abi.IoapicAdd):
            self._added[record.address] = Gsi(record.gsi_base)
            self._removed.discard(record.address)
        elif isinstance(record, abi.IoapicRemove):
            self._removed.add(record.address)
            self._added.pop(record.address, None)


def _record(number: int, command: int, argument: bytes) -> Record:
    record = layout(abi.ARGUMENTS[number, command]).parse(argument, 0, len(argument), Notes("hypercall"))
    assert record is not None, "arguments come from the methods of the interface"
    return record


def _is_question(record: Record) -> bool:
    """`dom0kit.hypercall.world` asks by mappings that cannot be."""
    return isinstance(record, abi.MapPirqArgument) and record.pirq == BEYOND


def _words(number: int, command: int, record: Record) -> str:
    return words(Physdev(command) if number == abi.HYPERCALL_PHYSDEV else Op(command), record)


def _own(domain: int) -> int:
    """Domain 0 by either name."""
    return 0 if domain == SELF else domain


class DryLinux(Linux):
    """Linux, of which nothing is written."""

    def __init__(self, real: Linux, calls: list[str]) -> None:
        """`calls` gets what would be written, in words."""
        self._real = real
        self._calls = calls
        self._config: dict[tuple[Sbdf, int], int] = {}
        self._bars: dict[tuple[Sbdf, int, int], int] = {}
        self._drivers: dict[Sbdf, str | None] = {}
        self._overrides: dict[Sbdf, str | None] = {}
        self._methods: dict[Sbdf, tuple[str, ...]] = {}

    def functions(self) -> list[Sbdf]:
        return self._real.functions()

    def identity(self, function: Sbdf) -> tuple[int, int]:
        return self._real.identity(function)

    def is_virtual(self, function: Sbdf) -> bool:
        return self._real.is_virtual(function)

    def requested(self) -> list[Requested]:
        return self._real.requested()

    def has_irq(self, number: int) -> bool:
        return self._real.has_irq(number)

    def affinity(self, irq: int) -> str:
        return self._real.affinity(irq)

    def must_have(self, driver: str) -> None:
        self._real.must_have(driver)

    def config(self, function: Sbdf, offset: int, width: int) -> int:
        data = self._real.config(function, offset, width).to_bytes(width, "little")
        return int.from_bytes(
            bytes(self._config.get((function, offset + index), byte) for index, byte in enumerate(data)), "little"
        )

    def write_config(self, function: Sbdf, offset: int, width: int, value: int) -> None:
        self._calls.append(f"config register {offset:#x} of {function} becomes {value:#0{2 + 2 * width}x}")
        for index, byte in enumerate(value.to_bytes(width, "little")):
            self._config[function, offset + index] = byte

    def bar(self, function: Sbdf, bar: int, offset: int, words: int) -> tuple[int, ...]:
        return tuple(
            self._bars.get((function, bar, offset + 4 * index), word)
            for index, word in enumerate(self._real.bar(function, bar, offset, words))
        )

    def write_bar(self, function: Sbdf, bar: int, offset: int, value: int) -> None:
        self._calls.append(f"BAR {bar} of {function}: the word at {offset:#x} becomes {value:#010x}")
        self._bars[function, bar, offset] = value

    def driver(self, function: Sbdf) -> str | None:
        real = self._real.driver(function)
        return self._drivers.get(function, real)

    def override(self, function: Sbdf) -> str | None:
        return self._overrides[function] if function in self._overrides else self._real.override(function)

    def set_override(self, function: Sbdf, driver: str | None) -> None:
        self._calls.append(f"driver_override of {function} becomes {driver or 'empty'}")
        self._overrides[function] = driver

    def bind(self, function: Sbdf, driver: str) -> None:
        self.must_have(driver)
        if self.override(function) not in (None, driver):
            raise LinuxRefused(f"only {self.override(function)} may bind {function}")
        self._calls.append(f"{function} is bound to {driver}")
        self._drivers[function] = driver

    def unbind(self, function: Sbdf, driver: str) -> None:
        self._calls.append(f"{function} is unbound from {driver}")
        self._drivers[function] = None

    def reset_methods(self, function: Sbdf) -> tuple[str, ...]:
        return self._methods[function] if function in self._methods else self._real.reset_methods(function)

    def set_reset_methods(self, function: Sbdf, methods: str) -> None:
        self._calls.append(f"ways of resetting {function} become {methods}")
        self._methods[function] = tuple(methods.split())

    def reset(self, function: Sbdf) -> None:
        self._calls.append(f"{function} is reset")

    def group(self, function: Sbdf) -> tuple[Sbdf, ...]:
        return self._real.group(function)

    def set_affinity(self, irq: int, cpus: str) -> None:
        self._calls.append(f"IRQ {irq} may go to CPUs {cpus}")


class RecordedLinux(Linux):
    """A recorded machine's Linux, to rehearse on. Its devices' memory reads as after a reset; drivers are all there."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._functions = {function.sbdf: function for function in source.functions()}

    def functions(self) -> list[Sbdf]:
        return sorted(function for function in self._functions if function.segment <= 0xFFFF)

    def config(self, function: Sbdf, offset: int, width: int) -> int:
        data = self._recorded(function).config[offset : offset + width]
        if len(data) != width:
            raise LinuxRefused(f"config space of {function} was not recorded up to {offset + width:#x}")
        return int.from_bytes(data, "little")

    def identity(self, function: Sbdf) -> tuple[int, int]:
        attributes = self._recorded(function).attributes
        try:
            return int(attributes["vendor"], 16), int(attributes["device"], 16)
        except (KeyError, ValueError):
            return self.config(function, 0, 2), self.config(function, 2, 2)

    def is_virtual(self, function: Sbdf) -> bool:
        return "physfn" in self._recorded(function).attributes

    def bar(self, function: Sbdf, bar: int, offset: int, words: int) -> tuple[int, ...]:
        self._recorded(function)
        return (0, 0, 0, 1)[:words]

    def driver(self, function: Sbdf) -> str | None:
        return self._recorded(function).attributes.get("driver")

    def override(self, function: Sbdf) -> str | None:
        self._recorded(function)
        return None

    def must_have(self, driver: str) -> None:
        pass

    def reset_methods(self, function: Sbdf) -> tuple[str, ...]:
        return tuple(self._recorded(function).attributes.get("reset_method", "").split())

    def group(self, function: Sbdf) -> tuple[Sbdf, ...]:
        number = self._recorded(function).attributes.get("iommu_group")
        found = [sbdf for sbdf, raw in self._functions.items() if raw.attributes.get("iommu_group") == number]
        return () if number is None else tuple(sorted(found))

    def _irqs(self) -> list[int]:
        return sorted(int(name) for name in self._source.names("sys/kernel/irq") if name.isascii() and name.isdigit())

    def _recorded(self, function: Sbdf) -> RawFunction:
        if function not in self._functions:
            raise FunctionGone(f"there is no PCI function {function}")
        return self._functions[function]

    def _read(self, path: str, what: str) -> str:
        data = self._source.file(path)
        if data is None:
            raise LinuxRefused(f"{what} was not recorded")
        return data.decode("utf-8", "replace").strip()


class Noted(Listener):
    """Keeps what changes something, of the calls of a hypervisor that is a model and may be changed."""

    def __init__(self, calls: list[str]) -> None:
        self._calls = calls

    def asked(self, backend: str, number: int, command: int, argument: bytes) -> None:
        record = _record(number, command, argument)
        if (number, command) not in READS and not _is_question(record):
            self._calls.append(_words(number, command, record))

    def answered(self, status: Status, answer: bytes) -> None:
        pass


class RehearsedStep(msgspec.Struct, frozen=True, kw_only=True):
    """What one operation would do."""

    operation: str
    why: str
    skipped: bool
    """There is nothing to do."""
    inverse: Inverse
    calls: tuple[str, ...]


class Rehearsal:
    """Collects what each operation of a plan would do; goes where a journal's writer goes."""

    def __init__(self, plan: Plan, calls: list[str]) -> None:
        self.steps: list[RehearsedStep] = []
        self._plan = plan
        self._calls = calls
        self._begun = 0

    def add(self, record: AnyRecord) -> None:
        if not isinstance(record, Done | Skipped):
            return
        operation = self._plan.operations[record.operation]
        self.steps.append(
            RehearsedStep(
                operation=str(operation),
                why=operation.why,
                skipped=isinstance(record, Skipped),
                inverse=operation.inverse(self._plan.backend),
                calls=tuple(self._calls[self._begun :]),
            )
        )
        self._begun = len(self._calls)
