# SPDX-License-Identifier: MIT
"""A second, slow and obvious implementation of what ``hv_core/abi.h`` says, to hold the core against.

It has no bit tricks and no clever tables: dictionaries and lists. Where the core is free (which vector, which
processor) it does not guess: it takes what the core chose, after asking whether the choice was allowed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import msgspec

from dom0kit import abi
from dom0kit.abi import Feature, Format, InterruptFlag, IrqStatus, MapPirq, Mode, Op, PciDev, Physdev, Status
from dom0kit.layout import Notes, Record, layout

MASKED, LEVEL, LOW, LOGICAL = 1 << 16, 1 << 15, 1 << 13, 1 << 11
STATUS_BITS = 1 << 12 | 1 << 14
REMAPPABLE = 1 << 48
DYNAMIC = frozenset(range(0x20, 0xF0)) - {0x80}
ALL = (1 << 64) - 1

Binding = tuple[int, int]
"""(processor's index, vector)."""


class Refused(Exception):
    def __init__(self, status: Status) -> None:
        super().__init__(status.name)
        self.status = status


class Oracle(Protocol):
    """What the model asks of the real machine."""

    def remote_irr(self, address: int, pin: int) -> bool:
        """Before the call: is a level interrupt in service?"""

    def status_bits(self, address: int, pin: int) -> int: ...

    def register(self, address: int, index: int) -> int: ...

    def bound(self, source: Pin | Message) -> Binding | None:
        """After the call: the vector the core says it has."""


@dataclasses.dataclass(eq=False)
class Pin:
    gsi: int
    address: int
    number: int
    view: int
    domain: int = 0
    pirq: int | None = None
    users: int = 0
    set_up: bool = False
    bound: Binding | None = None
    drained: Binding | None = None
    live: bool = False

    @property
    def in_use(self) -> bool:
        return bool(self.domain or self.pirq is not None or self.set_up or not self.view & MASKED)


@dataclasses.dataclass(eq=False)
class Message:
    function: int
    entry: int
    msix: bool
    domain: int
    pirq: int
    run: int = 1
    bound: Binding | None = None
    drained: Binding | None = None
    address: int = 0
    data: int = 0


@dataclasses.dataclass(eq=False)
class Function:
    sbdf: int
    flags: int
    physical: int
    pxm: int
    domain: int = 0
    messages: list[Message] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(eq=False)
class Domain:
    limit: int = 0
    pirqs: dict[int, Pin | Message] = dataclasses.field(default_factory=dict)


class Model:
    """The machine as the specification says it is.

    `ioapics`: (address, GSI base, version register), as in the MADT; `spare`: (address, version register) to be added.
    """

    def __init__(
        self,
        *,
        apic_ids: list[int],
        ioapics: list[tuple[int, int, int]],
        spare: list[tuple[int, int]] = [],  # noqa: B006
        mode: Mode,
        entry_format: Format = Format.COMPATIBILITY,
        message_format: Format = Format.COMPATIBILITY,
        limits: dict[str, int],
        tables: tuple[int, int] = (0, 0),
    ) -> None:
        self.apic_ids = apic_ids
        self.mode, self.entry_format, self.message_format = mode, entry_format, message_format
        self.limits = limits
        self.hardware = {address: version for address, _, version in ioapics} | dict(spare)
        self.ioapics: dict[int, list[Pin]] = {}
        self.pins: dict[int, Pin] = {}
        self.functions: dict[int, Function] = {}
        self.domains = {0: Domain()}
        self.vectors: dict[Binding, Pin | Message] = {}
        self.ecam: list[tuple[int, int, int, int]] = []
        self.tables, self.counter = tables, 2
        self.shared_at, self.handed_over = 0, False
        reach = {Format.COMPATIBILITY: 0xFE, Format.EXTENDED_DESTINATION: 0x7FFF}
        self.reachable = min(reach.get(entry_format, ALL), reach.get(message_format, ALL))
        for address, base, version in ioapics:
            self._plug(address, base, version)

    def _plug(self, address: int, base: int, version: int) -> int:
        pins = min((version >> 16 & 0xFF) + 1, 120)
        self.ioapics[address] = [Pin(base + number, address, number, MASKED) for number in range(pins)]
        self.pins |= {pin.gsi: pin for pin in self.ioapics[address]}
        return pins

    @property
    def gsis(self) -> int:
        return max(self.pins, default=-1) + 1

    @property
    def messages(self) -> list[Message]:
        return [message for function in self.functions.values() for message in function.messages]

    def sources(self, domain: int) -> Iterator[Pin | Message]:
        """What READ_INTERRUPT lists."""
        for pin in self.pins.values():
            listed = pin.pirq is not None or pin.set_up or pin.bound or not pin.view & MASKED
            if pin.domain == domain and listed:
                yield pin
        yield from (message for message in self.messages if message.domain == domain)

    # ---- One call ----

    def call(
        self, caller: int, number: int, command: int, data: bytes, real: Status, oracle: Oracle
    ) -> tuple[Status, bytes | None]:
        """Status and argument as they must come back; None where the argument's content is the core's own business."""
        self._real, self._oracle, self._caller = real, oracle, caller
        record = abi.ARGUMENTS.get((number, command))
        try:
            if record is None:
                raise Refused(Status.NO_CALL)
            if caller not in self.domains:
                raise Refused(Status.NO_DOMAIN)
            given = self._parse(record, data)
            answer = self._physdev(Physdev(command), given) if number == 33 else self._own(Op(command), given, data)
        except Refused as refused:
            return refused.status, data
        if answer is None:
            return Status.OK, None
        built = layout(type(answer)).build(answer)
        return Status.OK, built + data[len(built) :]

    def _parse(self, record: type[Record], data: bytes) -> Any:
        if record is abi.PciDeviceAddPxm:
            data = data[:12] + (data[12:16] if data[4] & PciDev.PXM else bytes(4))
        size = layout(record).size
        return layout(record).parse(data[:size], 0, size, Notes("model"))

    def _accepted(self) -> None:
        """From here on the core's choices are looked at: it must have said yes."""
        assert self._real is Status.OK, f"the model allows what the core refuses with {self._real.name}"

    def _named(self, domain: int) -> int:
        if domain in (abi.DOMID_SELF, self._caller):
            return self._caller
        if self._caller != 0:
            raise Refused(Status.NOT_PERMITTED)
        if domain not in self.domains:
            raise Refused(Status.NO_DOMAIN)
        return domain

    def _irq(self, domain: int, irq: int) -> Pin | Message:
        if irq in self.domains[domain].pirqs:
            return self.domains[domain].pirqs[irq]
        pin = self.pins.get(irq)
        if pin is None or pin.domain != domain or pin.pirq is not None:
            raise Refused(Status.INVALID)
        return pin

    # ---- Vectors ----

    def _free(self, cpu: int) -> set[int]:
        if self.apic_ids[cpu] > self.reachable:
            return set()
        return {vector for vector in DYNAMIC if (cpu, vector) not in self.vectors}

    def _can_give(self, cpu: int, count: int) -> bool:
        free = self._free(cpu)
        return any(all(first + i in free for i in range(count)) for first in range(0x20, 0xF0, count))

    def _held(self, domain: int) -> int:
        return sum(1 for source in self.vectors.values() if source.domain == domain)

    def _check_limit(self, domain: int, count: int) -> None:
        limit = self.domains[domain].limit
        if limit and self._held(domain) + count > limit:
            raise Refused(Status.NO_SPACE)

    def _check_room(self, domain: int, cpu: int | None, count: int = 1) -> None:
        """Would the core find vectors? `cpu` None: on any processor."""
        self._check_limit(domain, count)
        if cpu is not None and self.apic_ids[cpu] > self.reachable:
            raise Refused(Status.OUT_OF_RANGE)
        if not any(self._can_give(each, count) for each in ([cpu] if cpu is not None else range(len(self.apic_ids)))):
            raise Refused(Status.NO_SPACE)

    def _chosen(self, sources: Sequence[Pin | Message], cpu: int | None) -> None:
        """Takes over the vectors that the core chose for a run of sources, if it was free to."""
        self._accepted()
        bindings = [self._oracle.bound(source) for source in sources]
        first = bindings[0]
        assert first is not None, "the core bound nothing"
        assert cpu is None or first[0] == cpu, "bound to another processor than the destination's"
        assert self.apic_ids[first[0]] <= self.reachable
        assert first[1] % len(sources) == 0, "a run is aligned to its length"
        for index, (source, binding) in enumerate(zip(sources, bindings, strict=True)):
            assert binding == (first[0], first[1] + index), "a run is consecutive, on one processor"
            assert binding not in self.vectors, "the vector is somebody's"
            assert binding[1] in DYNAMIC, "the vector is not for devices"
            self.vectors[binding] = source
            source.bound = binding

    def _give(self, binding: Binding | None) -> None:
        if binding is not None:
            del self.vectors[binding]

    def _unbind(self, source: Pin | Message) -> None:
        self._give(source.bound)
        self._give(source.drained)
        source.bound = source.drained = None

    def _destination(self, logical: bool, destination: int) -> list[int]:
        """Processors a destination means."""
        if logical:
            found = [cpu for cpu in range(min(8, len(self.apic_ids))) if destination >> cpu & 1]
        else:
            found = [cpu for cpu, apic_id in enumerate(self.apic_ids) if apic_id == destination]
        if not found:
            raise Refused(Status.OUT_OF_RANGE)
        return found

    # ---- Entries ----

    @property
    def _view_format(self) -> Format:
        if self.mode is Mode.DIRECT or self.entry_format is Format.EXTENDED_DESTINATION:
            return self.entry_format
        return Format.COMPATIBILITY

    @staticmethod
    def _remapped(entry: int, format: Format) -> bool:
        return format is Format.AMD_VI or (format is Format.VTD and bool(entry & REMAPPABLE))

    def _check_entry(self, entry: int, before: int) -> None:
        format = self._view_format
        named = set(range(17)) | set(range(56, 64))
        if format is Format.EXTENDED_DESTINATION:
            named |= set(range(49, 56))
        if self._remapped(entry, format):
            named = (
                set(range(17)) - {11} if format is Format.AMD_VI else set(range(17)) - {8, 9, 10} | set(range(48, 64))
            )
        if any(entry >> bit & 1 for bit in range(64) if bit not in named):
            raise Refused(Status.INVALID)
        if self._remapped(entry, format):
            return
        mode = entry >> 8 & 7
        if mode not in (0, 1) and not (entry & MASKED and mode == before >> 8 & 7):
            raise Refused(Status.INVALID)
        if not entry & MASKED and not 0x10 <= entry & 0xFF <= 0xFE:
            raise Refused(Status.INVALID)

    def _processors(self, entry: int) -> list[int]:
        destination = entry >> 56
        if self._view_format is Format.EXTENDED_DESTINATION and not entry & LOGICAL:
            destination |= (entry >> 49 & 0x7F) << 8
        return self._destination(bool(entry & LOGICAL), destination)

    def _check_trigger(self, pin: Pin, entry: int) -> None:
        """The hardware's trigger is the view's, since every write of the low word reaches it."""
        if (entry ^ pin.view) & LEVEL and self._oracle.remote_irr(pin.address, pin.number):
            raise Refused(Status.BUSY)

    def _set_view(self, pin: Pin, entry: int) -> None:
        self._check_entry(entry, pin.view)
        (self._set_direct if self.mode is Mode.DIRECT else self._set_intercepted)(pin, entry)

    def _set_direct(self, pin: Pin, entry: int) -> None:
        binding = None
        if not entry & MASKED and not self._remapped(entry, self.entry_format):
            processors = self._processors(entry)
            if len(processors) == 1:
                binding = processors[0], entry & 0xFF
                if binding != pin.bound:
                    self._check_limit(pin.domain, 1)
                    if binding in self.vectors:
                        raise Refused(Status.EXISTS)
        self._check_trigger(pin, entry)
        self._give(pin.bound)
        if binding is not None:
            self.vectors[binding] = pin
        pin.bound, pin.view = binding, entry

    def _set_intercepted(self, pin: Pin, entry: int) -> None:
        cpu = None
        if not entry & MASKED:
            cpu = self._processors(entry)[0]
            if pin.bound is None or pin.bound[0] != cpu:
                if pin.drained:
                    raise Refused(Status.TRY_AGAIN)
                self._check_room(pin.domain, cpu)
            else:
                cpu = None
        self._check_trigger(pin, entry)
        if cpu is not None:
            self._move(pin, cpu)
        if not entry & MASKED:
            pin.live = True
        pin.view = entry

    def _move(self, pin: Pin, cpu: int) -> None:
        before, live = pin.bound, pin.live
        self._chosen([pin], cpu)
        if live:
            pin.drained = before
        else:
            self._give(before)
        pin.live = False

    def _bind(self, pin: Pin) -> Callable[[], None]:
        """Checks that a pin can get a vector, and returns what gives it one."""
        if pin.bound is not None:
            return lambda: None
        cpu = None
        try:
            cpu = self._processors(pin.view)[0]
            self._check_room(pin.domain, cpu)
        except Refused:
            cpu = None
            self._check_room(pin.domain, None)

        def bind() -> None:
            self._chosen([pin], cpu)
            pin.live = False

        return bind

    def _silence(self, pin: Pin) -> None:
        self._unbind(pin)
        pin.view |= MASKED
        pin.live = pin.set_up = False

    def _release(self, pin: Pin) -> None:
        self._silence(pin)
        if pin.pirq is not None:
            del self.domains[pin.domain].pirqs[pin.pirq]
        pin.pirq, pin.users, pin.domain = None, 0, 0

    def _quiet(self, function: Function) -> None:
        for message in function.messages:
            self._unbind(message)
            del self.domains[message.domain].pirqs[message.pirq]
        function.messages = []

    # ---- Physdev ----

    def _physdev(self, command: Physdev, given: Any) -> Record | None:
        privileged = {
            Physdev.PCI_MMCFG_RESERVED,
            Physdev.PCI_DEVICE_ADD,
            Physdev.PCI_DEVICE_REMOVE,
            Physdev.PCI_DEVICE_RESET,
        }
        if command in privileged and self._caller != 0:
            raise Refused(Status.NOT_PERMITTED)
        answer: Record | None = getattr(self, f"_{command.name.lower()}")(given)
        return answer

    def _irq_status_query(self, given: abi.IrqStatusQuery) -> Record:
        source = self._irq(self._caller, given.irq)
        flags = IrqStatus(0)
        if isinstance(source, Pin):
            flags |= IrqStatus.NEEDS_EOI if source.view & LEVEL else IrqStatus(0)
            flags |= IrqStatus.SHARED if source.users > 1 else IrqStatus(0)
        return msgspec.structs.replace(given, flags=int(flags))

    def _register(self, given: abi.Apic) -> Pin:
        pins = self.ioapics[given.apic_physbase]
        if not 0x10 <= given.reg < 0x10 + 2 * len(pins):
            raise Refused(Status.OUT_OF_RANGE)
        pin = pins[(given.reg - 0x10) // 2]
        if pin.domain != self._caller:
            raise Refused(Status.NOT_PERMITTED)
        return pin

    def _apic_read(self, given: abi.Apic) -> Record:
        if given.apic_physbase not in self.ioapics:
            raise Refused(Status.INVALID)
        if given.reg <= 2:
            if self._caller != 0:
                raise Refused(Status.NOT_PERMITTED)
            value = self._oracle.register(given.apic_physbase, given.reg)
        else:
            pin = self._register(given)
            if given.reg % 2:
                value = pin.view >> 32
            else:
                value = pin.view & 0xFFFFFFFF | self._oracle.status_bits(pin.address, pin.number)
        return msgspec.structs.replace(given, value=value)

    def _apic_write(self, given: abi.Apic) -> Record:
        if given.apic_physbase not in self.ioapics:
            raise Refused(Status.INVALID)
        if given.reg <= 2:
            raise Refused(Status.NOT_PERMITTED)
        pin = self._register(given)
        if given.reg % 2 == 0:
            self._set_view(pin, pin.view >> 32 << 32 | given.value & ~STATUS_BITS)
        elif pin.view & MASKED:
            pin.view = pin.view & 0xFFFFFFFF | given.value << 32
        else:
            self._set_view(pin, pin.view & 0xFFFFFFFF | given.value << 32)
        return given

    def _alloc_irq_vector(self, given: abi.AllocIrqVector) -> Record:
        source = self._irq(self._caller, given.irq)
        if self.mode is Mode.INTERCEPT and isinstance(source, Pin):
            self._bind(source)()
        if source.bound is None:
            raise Refused(Status.NOT_FOUND)
        return msgspec.structs.replace(given, vector=source.bound[1])

    def _eoi(self, given: abi.Eoi) -> Record:
        source = self._irq(self._caller, given.irq)
        self._give(source.drained)
        source.drained = None
        return given

    def _map_pirq(self, given: abi.MapPirqArgument) -> Record:
        domain = self._named(given.domid)
        if given.type == MapPirq.GSI:
            return self._map_gsi(domain, given)
        if given.type in (MapPirq.MSI, MapPirq.MSI_SEG, MapPirq.MULTI_MSI):
            return self._map_msi(domain, given)
        raise Refused(Status.INVALID)

    def _first_free(self, domain: int, start: int, count: int) -> int:
        taken = self.domains[domain].pirqs
        for pirq in range(start, self.limits["pirqs"] - count + 1):
            if not any(pirq + i in taken for i in range(count)):
                return pirq
        raise Refused(Status.NO_SPACE)

    def _start(self, type: int) -> int:
        if type == MapPirq.GSI or not 16 <= self.gsis < self.limits["pirqs"]:
            return 16
        return self.gsis

    def _map_gsi(self, domain: int, given: abi.MapPirqArgument) -> Record:
        pin = self.pins.get(given.index)
        if pin is None:
            raise Refused(Status.INVALID)
        if pin.domain != domain:
            raise Refused(Status.NOT_PERMITTED)
        if pin.pirq is not None:
            if not pin.view & LEVEL or (given.pirq >= 0 and given.pirq != pin.pirq):
                raise Refused(Status.EXISTS)
            pin.users += 1
            return msgspec.structs.replace(given, pirq=pin.pirq)
        pirq = given.pirq
        if pirq < 0:
            pirq = self._first_free(domain, self._start(MapPirq.GSI), 1)
        elif pirq >= self.limits["pirqs"]:
            raise Refused(Status.OUT_OF_RANGE)
        elif pirq in self.domains[domain].pirqs:
            raise Refused(Status.EXISTS)
        pin.pirq, pin.users = pirq, 1
        self.domains[domain].pirqs[pirq] = pin
        return msgspec.structs.replace(given, pirq=pirq)

    def _map_msi(self, domain: int, given: abi.MapPirqArgument) -> Record:
        count, first, msix = 1, 0, False
        if given.index >= 0 or not 0 <= given.devfn <= 255:
            raise Refused(Status.INVALID)
        if given.type == MapPirq.MULTI_MSI:
            count = given.entry_nr
            if given.table_base or count not in (1, 2, 4, 8, 16, 32):
                raise Refused(Status.INVALID)
        elif given.table_base == 0:
            if given.entry_nr != 0:
                raise Refused(Status.INVALID)
        else:
            if not 0 <= given.entry_nr < 2048:
                raise Refused(Status.OUT_OF_RANGE)
            first, msix = given.entry_nr, True
        bus = given.bus & (0xFF if given.type == MapPirq.MSI else 0xFFFFFFFF)
        if bus & 0xFF00:
            raise Refused(Status.INVALID)
        function = self.functions.get((bus >> 16) << 16 | (bus & 0xFF) << 8 | given.devfn)
        if function is None:
            raise Refused(Status.NO_DEVICE)
        if function.domain != domain:
            raise Refused(Status.NOT_PERMITTED)
        for message in function.messages:
            if message.msix != msix or not msix or message.entry == first:
                raise Refused(Status.EXISTS)
        pirq = given.pirq
        if pirq < 0:
            pirq = self._first_free(domain, self._start(given.type), count)
        elif pirq + count > self.limits["pirqs"]:
            raise Refused(Status.OUT_OF_RANGE)
        elif any(pirq + i in self.domains[domain].pirqs for i in range(count)):
            raise Refused(Status.EXISTS)
        fragmented = count > 1 and self._real is Status.NO_SPACE and len(self.messages) > self.limits["messages"] // 4
        if len(self.messages) + count > self.limits["messages"] or fragmented:
            raise Refused(Status.NO_SPACE)
        if self.mode is Mode.INTERCEPT:
            self._check_room(domain, None, count)
        made = [Message(function.sbdf, first + i, msix, domain, pirq + i, count) for i in range(count)]
        function.messages += made
        self.domains[domain].pirqs |= {message.pirq: message for message in made}
        if self.mode is Mode.INTERCEPT:
            self._chosen(made, None)
        return msgspec.structs.replace(given, pirq=pirq)

    def _unmap_pirq(self, given: abi.UnmapPirq) -> Record:
        domain = self._named(given.domid)
        source = self.domains[domain].pirqs.get(given.pirq)
        if source is None:
            raise Refused(Status.INVALID)
        if isinstance(source, Message):
            self._unbind(source)
            self.functions[source.function].messages.remove(source)
            del self.domains[domain].pirqs[given.pirq]
            return given
        source.users -= 1
        if source.users == 0:
            self._silence(source)
            source.pirq = None
            del self.domains[domain].pirqs[given.pirq]
        return given

    def _setup_gsi(self, given: abi.SetupGsi) -> Record:
        pin = self.pins.get(given.gsi)
        if pin is None or given.triggering > 1 or given.polarity > 1:
            raise Refused(Status.INVALID)
        if pin.domain != self._caller:
            raise Refused(Status.NOT_PERMITTED)
        if pin.set_up:
            raise Refused(Status.EXISTS)
        entry = pin.view & ~(LEVEL | LOW) | given.triggering << 15 | given.polarity << 13
        bind = self._bind(pin) if self.mode is Mode.INTERCEPT else lambda: None
        # Nothing may be changed before the entry has passed, and its passing looks at the vector.
        self._check_entry(entry, pin.view)
        self._check_trigger(pin, entry)
        if self.mode is Mode.INTERCEPT and entry & MASKED:
            bind()
            pin.view = entry
        else:
            self._set_view(pin, entry)
        pin.set_up = True
        return given

    def _get_free_pirq(self, given: abi.GetFreePirq) -> Record:
        if given.type not in (MapPirq.MSI, MapPirq.GSI, MapPirq.MSI_SEG):
            raise Refused(Status.INVALID)
        return msgspec.structs.replace(given, pirq=self._first_free(self._caller, self._start(given.type), 1))

    def _pci_mmcfg_reserved(self, given: abi.PciMmcfgReserved) -> Record:
        if given.flags & ~1:
            raise Refused(Status.INVALID)
        for address, segment, start, end in self.ecam:
            if (address, segment) == (
                given.address,
                given.segment,
            ) and start <= given.start_bus <= given.end_bus <= end:
                return given
        raise Refused(Status.NO_DEVICE)

    def _pci_device_add(self, given: abi.PciDeviceAddPxm) -> None:
        device = given.device
        sbdf = device.seg << 16 | device.bus << 8 | device.devfn
        if device.flags & ~7:
            raise Refused(Status.INVALID)
        virtual = bool(device.flags & PciDev.VIRTFN)
        physical = device.seg << 16 | device.physfn_bus << 8 | device.physfn_devfn if virtual else 0
        known = self.functions.get(sbdf)
        if known is not None:
            if (known.flags, known.physical, known.pxm) != (device.flags, physical, given.pxm):
                raise Refused(Status.EXISTS)
            return
        if virtual and (physical not in self.functions or self.functions[physical].flags & PciDev.VIRTFN):
            raise Refused(Status.NO_DEVICE)
        if len(self.functions) >= self.limits["functions"]:
            raise Refused(Status.NO_SPACE)
        self.functions[sbdf] = Function(sbdf, device.flags, physical, given.pxm)

    def _function(self, device: abi.PciDevice) -> Function:
        function = self.functions.get(device.seg << 16 | device.bus << 8 | device.devfn)
        if function is None:
            raise Refused(Status.NO_DEVICE)
        return function

    def _pci_device_remove(self, given: abi.PciDevice) -> Record:
        function = self._function(given)
        virtuals = any(
            each.flags & PciDev.VIRTFN and each.physical == function.sbdf for each in self.functions.values()
        )
        if function.domain != 0 or virtuals:
            raise Refused(Status.BUSY)
        self._quiet(function)
        del self.functions[function.sbdf]
        return given

    def _pci_device_reset(self, given: abi.PciDeviceReset) -> Record:
        if given.flags > 3:
            raise Refused(Status.INVALID)
        self._quiet(self._function(given.dev))
        return given

    # ---- Our own ----

    def _own(self, command: Op, given: Any, data: bytes) -> Record | None:
        header = given.header
        if header.version != 1 or header.bytes != layout(type(given)).size or header.zero or getattr(given, "zero", 0):
            raise Refused(Status.INVALID)
        anybody = {Op.INFORMATION, Op.QUERY_VECTOR, Op.SET_AFFINITY, Op.READ_INTERRUPT, Op.MSI_READ, Op.MSI_WRITE}
        if command not in anybody and self._caller != 0:
            raise Refused(Status.NOT_PERMITTED)
        answer: Record | None = getattr(self, f"_{command.name.lower()}")(given)
        return answer

    def _information(self, given: abi.Information) -> None:
        self._accepted()

    def counts(self) -> dict[str, int]:
        """What INFORMATION counts."""
        return {
            "cpus": len(self.apic_ids),
            "ioapics": len(self.ioapics),
            "gsis": self.gsis,
            "domains": len(self.domains),
            "functions": len(self.functions),
            "messages": len(self.messages),
        }

    def features(self) -> Feature:
        features = Feature.MODEL | Feature.BOOKKEEPING
        features |= Feature.DIRECT if self.mode is Mode.DIRECT else Feature.INTERCEPT
        features |= Feature.SHARED_INFO if self.shared_at else Feature(0)
        return features | (Feature.HANDED_OVER if self.handed_over else Feature(0))

    def _map_shared_info(self, given: abi.MapSharedInfo) -> Record:
        if given.guest_physical % 4096 or given.guest_physical > (1 << 52) - 8192:
            raise Refused(Status.INVALID)
        self.shared_at = given.guest_physical
        return given

    def _hand_over(self, given: abi.HandOver) -> Record:
        if given.counter != self.counter:
            raise Refused(Status.TRY_AGAIN)
        if (given.rsdp, given.xsdt) != self.tables:
            raise Refused(Status.INVALID)
        self.handed_over = True
        self.counter += 2
        return given

    def _several(self, source: Pin | Message) -> tuple[int, int] | None:
        """(vector, logical destination) of an unmasked entry or message for several processors."""
        if self.mode is not Mode.DIRECT:
            return None
        if isinstance(source, Message):
            if not source.address or self._message_remapped(source.address):
                return None
            return source.data & 0xFF, source.address >> 12 & 0xFF
        if source.view & MASKED or self._remapped(source.view, self.entry_format):
            return None
        return source.view & 0xFF, source.view >> 56

    def flags(self, source: Pin | Message) -> InterruptFlag:
        flags = InterruptFlag.DRAINING if source.drained else InterruptFlag(0)
        if isinstance(source, Message):
            if self.mode is Mode.DIRECT and source.address and self._message_remapped(source.address):
                flags |= InterruptFlag.REMAPPED
            return flags
        flags |= InterruptFlag.MASKED if source.view & MASKED else InterruptFlag(0)
        flags |= InterruptFlag.LEVEL if source.view & LEVEL else InterruptFlag(0)
        flags |= InterruptFlag.ACTIVE_LOW if source.view & LOW else InterruptFlag(0)
        flags |= InterruptFlag.SHARED if source.users > 1 else InterruptFlag(0)
        flags |= InterruptFlag.SET_UP if source.set_up else InterruptFlag(0)
        if self.mode is Mode.DIRECT and self._remapped(source.view, self.entry_format):
            flags |= InterruptFlag.REMAPPED
        return flags

    def _query_vector(self, given: abi.QueryVector) -> Record:
        source = self._irq(self._named(given.domain), given.irq)
        if source.bound is not None:
            cpu, vector = source.bound
            apic_id = self.apic_ids[cpu]
        else:
            several = self._several(source)
            if several is None:
                raise Refused(Status.NOT_FOUND)
            cpu, (vector, apic_id) = abi.NONE, several
        return msgspec.structs.replace(given, cpu=cpu, apic_id=apic_id, vector=vector, flags=int(self.flags(source)))

    def _set_affinity(self, given: abi.SetAffinity) -> Record:
        domain = self._named(given.domain)
        if self.mode is Mode.DIRECT:
            raise Refused(Status.NOT_SUPPORTED)
        source = self._irq(domain, given.irq)
        if given.cpu >= len(self.apic_ids):
            raise Refused(Status.OUT_OF_RANGE)
        if source.bound is None:
            raise Refused(Status.NOT_FOUND)
        if source.drained:
            raise Refused(Status.TRY_AGAIN)
        if source.bound[0] == given.cpu:
            return given
        if isinstance(source, Message):
            if source.run > 1:
                raise Refused(Status.NOT_SUPPORTED)
            self._check_room(source.domain, given.cpu)
            before = source.bound
            self._chosen([source], given.cpu)
            source.drained = before
            return given
        extended = self._view_format is Format.EXTENDED_DESTINATION
        apic_id = self.apic_ids[given.cpu]
        if apic_id > (0x7FFF if extended else 0xFE):
            raise Refused(Status.OUT_OF_RANGE)
        self._check_room(source.domain, given.cpu)
        self._move(source, given.cpu)
        kept = ~(0xFFFE << 48 if extended else 0xFF00 << 48) & ~LOGICAL & ALL
        source.view = source.view & kept | (apic_id >> 8) << 49 | (apic_id & 0xFF) << 56
        source.live = source.live or not source.view & MASKED
        return given

    def _ioapic_add(self, given: abi.IoapicAdd) -> Record:
        address = given.address
        if address == 0 or address % 256 or address >= 1 << 52:
            raise Refused(Status.INVALID)
        if address in self.ioapics:
            raise Refused(Status.EXISTS)
        if len(self.ioapics) >= self.limits["ioapics"]:
            raise Refused(Status.NO_SPACE)
        version = self.hardware.get(address)
        if not version or version == 0xFFFFFFFF:
            raise Refused(Status.NO_DEVICE)
        pins = min((version >> 16 & 0xFF) + 1, 120)
        if given.gsi_base + pins > self.limits["gsis"]:
            raise Refused(Status.OUT_OF_RANGE)
        if any(gsi in self.pins for gsi in range(given.gsi_base, given.gsi_base + pins)):
            raise Refused(Status.EXISTS)
        self._plug(address, given.gsi_base, version)
        for pin in self.ioapics[address]:
            pin.view = MASKED | self._left_behind.pop((address, pin.number), 0)
        self.counter += 2
        return msgspec.structs.replace(given, pins=pins)

    _left_behind: dict[tuple[int, int], int] = {}  # noqa: RUF012

    def _ioapic_remove(self, given: abi.IoapicRemove) -> Record:
        pins = self.ioapics.get(given.address)
        if pins is None:
            raise Refused(Status.NO_DEVICE)
        if any(pin.in_use for pin in pins):
            raise Refused(Status.BUSY)
        self._left_behind = dict(self._left_behind)
        for pin in pins:
            self._release(pin)
            del self.pins[pin.gsi]
            # What the hardware's entry holds is there again when the IOAPIC comes back.
            low, high = (self._oracle.register(pin.address, 0x10 + 2 * pin.number + i) for i in (0, 1))
            self._left_behind[pin.address, pin.number] = (low | high << 32) & ~STATUS_BITS
        del self.ioapics[given.address]
        self.counter += 2
        return given

    def _domain_create(self, given: abi.DomainCreate) -> Record:
        domain = given.domain
        if domain == abi.DOMAIN_ANY:
            free = [each for each in range(1, self.limits["domains"]) if each not in self.domains]
            if not free:
                raise Refused(Status.NO_SPACE)
            domain = free[0]
        if domain >= self.limits["domains"]:
            raise Refused(Status.OUT_OF_RANGE)
        if domain in self.domains:
            raise Refused(Status.EXISTS)
        self.domains[domain] = Domain(given.vectors)
        return msgspec.structs.replace(given, domain=domain)

    def _domain_destroy(self, given: abi.DomainDestroy) -> Record:
        domain = self._named(given.domain)
        if domain == 0:
            raise Refused(Status.NOT_PERMITTED)
        for function in self.functions.values():
            if function.domain == domain:
                self._quiet(function)
                function.domain = 0
        for pin in self.pins.values():
            if pin.domain == domain:
                self._release(pin)
        del self.domains[domain]
        return given

    def _assign_device(self, given: abi.AssignDevice) -> Record:
        domain = self._named(given.domain)
        if domain == 0:
            raise Refused(Status.INVALID)
        function = self._function(given.device)
        if function.domain != 0 or function.messages:
            raise Refused(Status.BUSY)
        function.domain = domain
        return given

    def _release_device(self, given: abi.AssignDevice) -> Record:
        domain = self._named(given.domain)
        if domain == 0:
            raise Refused(Status.INVALID)
        function = self._function(given.device)
        if function.domain != domain:
            raise Refused(Status.NOT_FOUND)
        self._quiet(function)
        function.domain = 0
        return given

    def _assign_gsi(self, given: abi.AssignGsi) -> Record:
        domain, pin = self._named(given.domain), self.pins.get(given.gsi)
        if domain == 0 or pin is None:
            raise Refused(Status.INVALID)
        if pin.in_use:
            raise Refused(Status.BUSY)
        self._release(pin)
        pin.domain = domain
        return given

    def _release_gsi(self, given: abi.AssignGsi) -> Record:
        domain, pin = self._named(given.domain), self.pins.get(given.gsi)
        if domain == 0 or pin is None:
            raise Refused(Status.INVALID)
        if pin.domain != domain:
            raise Refused(Status.NOT_FOUND)
        self._release(pin)
        return given

    def _read_interrupt(self, given: abi.ReadInterrupt) -> None:
        domain = self._named(given.domain)
        if self._real is Status.NOT_FOUND and (given.cursor or not any(self.sources(domain))):
            raise Refused(Status.NOT_FOUND)
        self._accepted()

    def _read_report(self, given: abi.ReadReport) -> None:
        if self._real is Status.NOT_FOUND:
            raise Refused(Status.NOT_FOUND)
        self._accepted()

    # ---- Messages ----

    def _message_remapped(self, address: int) -> bool:
        return self.message_format is Format.AMD_VI or (self.message_format is Format.VTD and bool(address & 16))

    def _message(self, domain: int, irq: int) -> Message:
        source = self.domains[domain].pirqs.get(irq)
        if not isinstance(source, Message):
            raise Refused(Status.INVALID)
        return source

    def _msi_read(self, given: abi.Msi) -> Record | None:
        message = self._message(self._named(given.domain), given.irq)
        if self.mode is Mode.DIRECT:
            if not message.address:
                raise Refused(Status.NOT_FOUND)
            return msgspec.structs.replace(given, address=message.address, data=message.data)
        if self._message_remapped(16):
            self._accepted()
            return None
        assert message.bound is not None
        apic_id = self.apic_ids[message.bound[0]]
        address = 0xFEE00000 + (apic_id % 256) * 0x1000 + (apic_id // 256) * 0x20
        return msgspec.structs.replace(given, address=address, data=message.bound[1])

    def _check_message(self, address: int, data: int) -> None:
        if address >> 20 != 0xFEE:
            raise Refused(Status.INVALID)
        if self._message_remapped(address):
            if data >= (0x800 if self.message_format is Format.AMD_VI else 0x10000):
                raise Refused(Status.INVALID)
            return
        reserved = [0, 1, 4] + ([] if self.message_format is Format.EXTENDED_DESTINATION else list(range(5, 12)))
        data_reserved = [11, 12, 13, 15, *range(16, 32)]
        if any(address >> bit & 1 for bit in reserved) or any(data >> bit & 1 for bit in data_reserved):
            raise Refused(Status.INVALID)
        if data >> 8 & 7 > 1 or not 0x10 <= data & 0xFF <= 0xFE:
            raise Refused(Status.INVALID)

    def _msi_write(self, given: abi.Msi) -> Record:
        domain = self._named(given.domain)
        if self.mode is not Mode.DIRECT:
            raise Refused(Status.NOT_SUPPORTED)
        message = self._message(domain, given.irq)
        self._check_message(given.address, given.data)
        binding = None
        if not self._message_remapped(given.address):
            logical = bool(given.address & 4)
            destination = given.address >> 12 & 0xFF
            if self.message_format is Format.EXTENDED_DESTINATION and not logical:
                destination |= (given.address >> 5 & 0x7F) << 8
            processors = self._destination(logical, destination)
            if len(processors) == 1:
                binding = processors[0], given.data & 0xFF
                if binding != message.bound:
                    self._check_limit(domain, 1)
                    if binding in self.vectors:
                        raise Refused(Status.EXISTS)
        self._give(message.bound)
        if binding is not None:
            self.vectors[binding] = message
        message.bound, message.address, message.data = binding, given.address, given.data
        return given

    # ---- Arrival ----

    def arrived(self, cpu: int, vector: int) -> Pin | Message | None:
        """The interrupt that a vector is; it ends the draining of a move when it is the new one's."""
        source = self.vectors.get((cpu, vector))
        if source is not None and source.bound == (cpu, vector):
            self._give(source.drained)
            source.drained = None
        return source
