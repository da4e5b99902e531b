# SPDX-License-Identifier: MIT
"""A second, slow and obvious implementation of what ``hv_core/abi.h`` says, to hold the core against.

It is written from the header's words: dictionaries, sets and lists, no clever tables. Where the core is free (which
vector, which processor, where in its lists something stands) the model does not guess: it looks at what the core chose
and asks whether that was allowed. Where a call could be refused for two reasons, the header leaves open which is told;
the model tells the one the core tells, so that no home of the core changes it unseen.

The parts, in order: the machine and what lives on it; names (domain, irq); vectors; redirection entries; the physdev
operations; our own calls; messages; and at last what devices and processors do to each other meanwhile.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NoReturn, Protocol

import msgspec

from dom0kit import abi
from dom0kit.abi import Feature, Format, InterruptFlag, IrqStatus, Kind, MapPirq, Mode, Op, PciDev, Physdev, Status
from dom0kit.abi import Report as ReportCode
from dom0kit.layout import Record, layout
from dom0kit.walker import Notes

# ---- The machine ----

MASKED: Final = 1 << 16
LEVEL: Final = 1 << 15
REMOTE_IRR: Final = 1 << 14
ACTIVE_LOW: Final = 1 << 13
DELIVERY_STATUS: Final = 1 << 12
LOGICAL: Final = 1 << 11
REMAPPABLE: Final = 1 << 48
STATUS_BITS: Final = DELIVERY_STATUS | REMOTE_IRR
LOW_WORD: Final = 0xFFFFFFFF
"""Of a redirection entry (Intel 82093AA, section 3.2.4)."""

VECTORS: Final = range(0x10, 0xFF)
"""Those that an entry or message may carry."""
DYNAMIC: Final = frozenset(range(0x20, 0xF0)) - {0x80}
"""Those that the core allocates: 0x80 is the system call of 32-bit kernels."""
PINS: Final = 120

Binding = tuple[int, int]
"""(processor's index, vector)."""
Place = tuple[int, int]
"""(address of an IOAPIC, number of a pin)."""


class Ioapic(msgspec.Struct, frozen=True, kw_only=True):
    """One IOAPIC as the firmware left it."""

    address: int
    base: int | None
    """First GSI, as the MADT says; None: not in the MADT, a later ioapic_add may bring it."""
    version: int = 0x170020
    id: int = 0
    entries: Mapping[int, int] = {}
    """By pin; the others are masked and zero."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The core's compile-time limits."""

    cpus: int
    ioapics: int
    domains: int
    pirqs: int
    gsis: int
    functions: int
    messages: int
    reports: int


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What the core finds when it starts."""

    apic_ids: tuple[int, ...] = (0, 2, 4)
    ioapics: tuple[Ioapic, ...] = ()
    mode: Mode = Mode.INTERCEPT
    entry_format: Format = Format.COMPATIBILITY
    message_format: Format = Format.COMPATIBILITY
    ecam: tuple[tuple[int, int, int, int], ...] = ()
    """(address, segment, first bus, last bus) of each MCFG entry."""


class Firmware(msgspec.Struct, frozen=True, kw_only=True):
    """Where the tables lie."""

    madt: int
    rsdp: int
    xsdt: int
    others: frozenset[tuple[int, int]] = frozenset()
    """More (RSDP, XSDT) pairs that are good."""


class Refused(Exception):
    def __init__(self, status: Status) -> None:
        super().__init__(status.name)
        self.status = status


def refuse(status: Status) -> NoReturn:
    raise Refused(status)


class Oracle(Protocol):
    """What the model asks of the real machine."""

    def entry_before(self, place: Place) -> int:
        """The hardware's entry before the call."""

    def bound(self, source: Pin | Message) -> Binding | None:
        """After the call: the vector the core says an interrupt has."""

    def tally(self) -> tuple[int, int]:
        """Calls made so far, this one among them, and how many were refused."""


# ---- What lives on it ----


@dataclasses.dataclass(eq=False)
class Pin:
    """An IOAPIC's pin and the GSI it is."""

    gsi: int
    place: Place
    view: int
    """The entry as the pin's domain wrote it last."""
    domain: int = 0
    pirq: int | None = None
    users: int = 0
    """How often it is mapped."""
    set_up: bool = False
    bound: Binding | None = None
    drained: Binding | None = None
    """The old vector of a move that has not ended."""
    live: bool = False
    """Was unmasked since it got its vector: one may be on its way."""
    firmwares: bool = False
    """The hardware's entry still is one that firmware left unmasked and that could not go into the books."""

    @property
    def masked(self) -> bool:
        return bool(self.view & MASKED)

    @property
    def level(self) -> bool:
        return bool(self.view & LEVEL)

    @property
    def in_use(self) -> bool:
        return self.domain != 0 or self.pirq is not None or self.set_up or not self.masked


@dataclasses.dataclass(eq=False)
class Message:
    """An MSI or MSI-X message of a function."""

    function: int
    entry: int
    msix: bool
    domain: int
    pirq: int
    run: int = 1
    """Messages that were mapped together."""
    bound: Binding | None = None
    drained: Binding | None = None
    written: tuple[int, int] | None = None
    """(address, data) that dom0 chose, in direct mode."""

    @property
    def live(self) -> bool:
        """A device may send it at any time."""
        return True


Source = Pin | Message


@dataclasses.dataclass(eq=False)
class Function:
    sbdf: int
    flags: int
    physical: int
    """Of a virtual function, else 0."""
    pxm: int
    domain: int = 0
    messages: list[Message] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(eq=False)
class Domain:
    most_vectors: int = 0
    """0: no limit."""
    pirqs: dict[int, Source] = dataclasses.field(default_factory=dict)


class Model:
    """The machine as the specification says it is."""

    def __init__(self, machine: Machine, limits: Limits, firmware: Firmware) -> None:
        self.machine, self.limits, self.firmware = machine, limits, firmware
        self.apic_ids = machine.apic_ids
        self.mode, self.entry_format, self.message_format = machine.mode, machine.entry_format, machine.message_format
        self.hardware = {ioapic.address: ioapic for ioapic in machine.ioapics}
        self.ioapics: dict[int, list[Pin]] = {}
        self.gsis: dict[int, Pin] = {}
        self.functions: dict[int, Function] = {}
        self.domains = {0: Domain()}
        self.vectors: dict[Binding, Source] = {}
        self.reports: list[tuple[ReportCode, int, int]] = []
        self.shared_at, self.root, self.counter, self.handed_over = 0, (firmware.rsdp, firmware.xsdt), 2, False
        self.trapped = self.trapped_refused = 0
        # Processors and lines.
        self.high: set[Place] = set()
        self.remote_irr: set[Place] = set()
        self.pending: dict[int, set[int]] = {cpu: set() for cpu in range(len(self.apic_ids))}
        self.in_service: dict[int, set[int]] = {cpu: set() for cpu in range(len(self.apic_ids))}

        for ioapic in machine.ioapics:
            if ioapic.base is not None:
                self._plug(ioapic, ioapic.base, dict(ioapic.entries))
        missing = [gsi for gsi in range(self.gsi_end) if gsi not in self.gsis]
        if missing:
            self.reports.append((ReportCode.GSI_GAP, firmware.madt, missing[0]))

    def _plug(self, ioapic: Ioapic, base: int, entries: Mapping[int, int]) -> int:
        """Takes an IOAPIC as its entries are: domain 0 owns the pins, and what is unmasked goes into the books."""
        claimed = (ioapic.version >> 16 & 0xFF) + 1
        if claimed > PINS:
            self.reports.append((ReportCode.IOAPIC_PINS, ioapic.address, claimed))
        self.ioapics[ioapic.address] = []
        for number in range(min(claimed, PINS)):
            pin = Pin(base + number, (ioapic.address, number), entries.get(number, MASKED) & ~STATUS_BITS)
            self.ioapics[ioapic.address].append(pin)
            self.gsis[pin.gsi] = pin
            if pin.masked or self._is_remapped(pin.view, self.entry_format):
                continue
            if pin.view >> 8 & 7 > 1:
                self.reports.append((ReportCode.FIRMWARE_ENTRY, ioapic.address, pin.gsi))
            self._adopt(pin)
            pin.firmwares = pin.bound is None
        return len(self.ioapics[ioapic.address])

    def _adopt(self, pin: Pin) -> None:
        """What firmware left unmasked keeps its vector, where it is a legal one for one processor and nobody's."""
        try:
            self._check_entry(pin.view, pin.view, self.entry_format)
            processors = self._processors(pin.view, self.entry_format)
        except Refused:
            return
        binding = (processors[0], pin.view & 0xFF)
        if len(processors) == 1 and binding not in self.vectors:
            self.vectors[binding] = pin
            pin.bound, pin.live = binding, True

    @property
    def gsi_end(self) -> int:
        """The number of GSIs: the highest + 1."""
        return max(self.gsis, default=-1) + 1

    @property
    def messages(self) -> list[Message]:
        return [message for function in self.functions.values() for message in function.messages]

    def sources(self, domain: int) -> list[Source]:
        """The interrupts of a domain: what READ_INTERRUPT lists."""
        pins = [
            pin
            for pin in self.gsis.values()
            if pin.domain == domain and (pin.pirq is not None or pin.set_up or pin.bound or not pin.masked)
        ]
        return [*pins, *(message for message in self.messages if message.domain == domain)]

    # ---- One call ----

    def call(
        self, caller: int, number: int, command: int, data: bytes, real: tuple[Status, bytes], oracle: Oracle
    ) -> tuple[Status, bytes]:
        """Status and argument as they must come back.

        `real` is what came back: looked at only where the core is free.
        """
        self._caller, self._oracle, (self._real, self._answer) = caller, oracle, real
        record = abi.ARGUMENTS.get((number, command))
        try:
            if record is None:
                refuse(Status.NO_CALL)
            given = self._argument(record, data)
            if caller not in self.domains:
                refuse(Status.NO_DOMAIN)
            is_ours = number == abi.HYPERCALL_DOM0KIT
            answer = self._own(Op(command), given) if is_ours else self._physdev(Physdev(command), given)
        except Refused as refused:
            return refused.status, data
        self._settle()
        built = layout(type(answer)).build(answer)
        if isinstance(answer, abi.PciDeviceAddPxm):
            built = data[: len(built)]  # the word behind it is there only with its flag
        return Status.OK, built + data[len(built) :]

    @staticmethod
    def _argument(record: type[Record], data: bytes) -> Any:
        """The argument, decoded; a shorter one cannot be read."""
        size = layout(record).size
        if record is abi.PciDeviceAddPxm:
            if len(data) < 12 or (data[4] & PciDev.PXM and len(data) < 16):
                refuse(Status.FAULT)
            data = data[:16] if data[4] & PciDev.PXM else data[:12] + bytes(4)
        if len(data) < size:
            refuse(Status.FAULT)
        return layout(record).parse(data[:size], 0, size, Notes("argument"))

    def _accepted(self) -> None:
        """From here on the core's choices are looked at: it must have said yes."""
        assert self._real is Status.OK, f"the specification allows what the core refuses with {self._real.name}"

    # ---- Names ----

    def _named(self, domain: int) -> int:
        if domain in (abi.DOMID_SELF, self._caller):
            return self._caller
        if self._caller != 0:
            refuse(Status.NOT_PERMITTED)
        if domain not in self.domains:
            refuse(Status.NO_DOMAIN)
        return domain

    def _irq(self, domain: int, irq: int) -> Source:
        """A pIRQ of the domain; else the GSI of that number, where it is the domain's and has no other pIRQ."""
        if irq in self.domains[domain].pirqs:
            return self.domains[domain].pirqs[irq]
        pin = self.gsis.get(irq)
        if pin is None or pin.domain != domain or pin.pirq is not None:
            refuse(Status.INVALID)
        return pin

    # ---- Vectors ----

    def _is_reachable(self, cpu: int) -> bool:
        """Can entries and messages carry the processor's APIC id? 0xff is everybody in an 8-bit destination."""
        most = {Format.COMPATIBILITY: 0xFE, Format.EXTENDED_DESTINATION: 0x7FFF}
        formats = (self.entry_format, self.message_format)
        return all(self.apic_ids[cpu] <= most.get(format, 1 << 32) for format in formats)

    def _runs(self, cpu: int, count: int) -> Iterator[int]:
        """The first vectors of the free runs of a length on a processor, each aligned to that length."""
        for first in range(0x20, 0xF0, count):
            run = range(first, first + count)
            if all(vector in DYNAMIC and (cpu, vector) not in self.vectors for vector in run):
                yield first

    def _check_share(self, domain: int, count: int) -> None:
        """A domain holds at most so many vectors; one that replaces another is taken before that is given back."""
        most = self.domains[domain].most_vectors
        held = sum(1 for source in self.vectors.values() if source.domain == domain)
        if most and held + count > most:
            refuse(Status.NO_SPACE)

    def _check_room(self, domain: int, cpu: int | None, count: int = 1) -> None:
        """Must the core find vectors for a domain? `cpu` None: on any processor."""
        self._check_share(domain, count)
        if cpu is None:
            if not any(
                self._is_reachable(each) and any(True for _ in self._runs(each, count))
                for each in range(len(self.apic_ids))
            ):
                refuse(Status.NO_SPACE)
            return
        if not self._is_reachable(cpu):
            refuse(Status.OUT_OF_RANGE)
        if not any(True for _ in self._runs(cpu, count)):
            refuse(Status.NO_SPACE)

    def _take(self, sources: Sequence[Source], cpu: int | None) -> None:
        """The vectors that the core chose for a run of sources, if it was free to."""
        self._accepted()
        bindings = [self._oracle.bound(source) for source in sources]
        assert bindings[0] is not None, "the core gave no vector"
        on, first = bindings[0]
        assert cpu is None or on == cpu, "not on the processor that was asked for"
        assert self._is_reachable(on), "no entry can carry that processor's APIC id"
        assert first in self._runs(on, len(sources)), "the run is not aligned, or somebody's, or not for devices"
        for index, (source, binding) in enumerate(zip(sources, bindings, strict=True)):
            assert binding == (on, first + index), "a run is consecutive, on one processor"
            self.vectors[binding] = source
            source.bound = binding

    def _give_back(self, binding: Binding | None) -> None:
        if binding is not None:
            del self.vectors[binding]

    def _free(self, source: Source) -> None:
        self._give_back(source.bound)
        self._give_back(source.drained)
        source.bound = source.drained = None

    def _move(self, source: Source, cpu: int) -> None:
        """The old vector drains, if something may be on its way to it."""
        before, live = source.bound, source.live
        self._take([source], cpu)
        if before is not None and live:
            source.drained = before
        else:
            self._give_back(before)
        if isinstance(source, Pin):
            source.live = False

    # ---- Redirection entries ----

    @property
    def _view_format(self) -> Format:
        """How a domain's entry is read: in intercept mode it knows nothing of a remapper."""
        if self.mode is Mode.INTERCEPT and self.entry_format in (Format.VTD, Format.AMD_VI):
            return Format.COMPATIBILITY
        return self.entry_format

    @staticmethod
    def _is_remapped(entry: int, format: Format) -> bool:
        return format is Format.AMD_VI or (format is Format.VTD and bool(entry & REMAPPABLE))

    def _reserved(self, entry: int, format: Format) -> set[int]:
        """The bits of an entry that must be 0."""
        if format is Format.AMD_VI:  # an index in bits 10:0
            return {11} | set(range(17, 64))
        if self._is_remapped(entry, format):  # a handle in bits 11 and 63:49
            return {8, 9, 10} | set(range(17, 48))
        if format is Format.EXTENDED_DESTINATION:
            return set(range(17, 49))
        return set(range(17, 56))

    def _check_entry(self, entry: int, before: int, format: Format) -> None:
        """What of an entry can be judged without the machine."""
        if any(entry >> bit & 1 for bit in self._reserved(entry, format)):
            refuse(Status.INVALID)
        if self._is_remapped(entry, format):
            return
        masked, mode = bool(entry & MASKED), entry >> 8 & 7
        if mode > 1 and not (masked and mode == before >> 8 & 7):
            refuse(Status.INVALID)
        if not masked and entry & 0xFF not in VECTORS:
            refuse(Status.INVALID)

    def _destination(self, logical: bool, destination: int, format: Format) -> list[int]:
        """The processors a destination means, by their index; none: HV_OUT_OF_RANGE."""
        if logical:
            found = [cpu for cpu in range(min(8, len(self.apic_ids))) if destination >> cpu & 1]
        elif destination == 0xFF and format is not Format.EXTENDED_DESTINATION:
            found = []  # everybody: not a destination that the core can account for
        else:
            found = [cpu for cpu, apic_id in enumerate(self.apic_ids) if apic_id == destination]
        return found or refuse(Status.OUT_OF_RANGE)

    def _processors(self, entry: int, format: Format) -> list[int]:
        destination = entry >> 56
        if format is Format.EXTENDED_DESTINATION and not entry & LOGICAL:
            destination += (entry >> 49 & 0x7F) * 256
        return self._destination(bool(entry & LOGICAL), destination, format)

    def _check_trigger(self, pin: Pin, entry: int) -> None:
        if bool(entry & LEVEL) != pin.level and pin.place in self.remote_irr:
            refuse(Status.BUSY)

    def _write_entry(self, pin: Pin, entry: int) -> None:
        """A domain's entry becomes the pin's."""
        self._check_entry(entry, pin.view, self._view_format)
        if self.mode is Mode.DIRECT:
            self._record_entry(pin, entry)
        else:
            self._translate_entry(pin, entry)
        pin.firmwares = False

    def _record_entry(self, pin: Pin, entry: int) -> None:
        """Direct mode: the vector is the domain's choice; one for several processors is compared with nothing."""
        chosen = None
        if not entry & MASKED and not self._is_remapped(entry, self.entry_format):
            processors = self._processors(entry, self.entry_format)
            if len(processors) == 1:
                chosen = (processors[0], entry & 0xFF)
        self._check_chosen(pin, chosen)
        self._check_trigger(pin, entry)
        self._record(pin, chosen)
        pin.view = entry

    def _check_chosen(self, source: Source, chosen: Binding | None) -> None:
        if chosen is not None and chosen != source.bound:
            self._check_share(source.domain, 1)
            if chosen in self.vectors:
                refuse(Status.EXISTS)

    def _record(self, source: Source, chosen: Binding | None) -> None:
        self._give_back(source.bound)
        source.bound = chosen
        if chosen is not None:
            self.vectors[chosen] = source

    def _translate_entry(self, pin: Pin, entry: int) -> None:
        """Intercept mode: the vector is the core's choice, on the destination's processor, the lowest of several."""
        move_to = None
        if not entry & MASKED:
            cpu = self._processors(entry, self._view_format)[0]
            if pin.bound is None or pin.bound[0] != cpu:
                if pin.drained:
                    refuse(Status.TRY_AGAIN)
                self._check_room(pin.domain, cpu)
                move_to = cpu
        self._check_trigger(pin, entry)
        if move_to is not None:
            self._move(pin, move_to)
        pin.view = entry
        pin.live = pin.live or not pin.masked

    def _home(self, pin: Pin) -> int | None:
        """Where a pin without a vector gets one: its destination's processor, or (None) wherever there is one."""
        try:
            cpu = self._processors(pin.view, self._view_format)[0]
            self._check_room(pin.domain, cpu)
        except Refused:
            self._check_room(pin.domain, None)
            return None
        return cpu

    def _silence(self, pin: Pin) -> None:
        """Masked, no vector, no more set up."""
        self._free(pin)
        pin.view |= MASKED
        pin.live = pin.set_up = pin.firmwares = False

    def _unmap_pin(self, pin: Pin) -> None:
        if pin.pirq is not None:
            del self.domains[pin.domain].pirqs[pin.pirq]
        pin.pirq, pin.users = None, 0

    def _return_pin(self, pin: Pin) -> None:
        """The pin is domain 0's again, masked, with nothing that a domain had of it."""
        self._silence(pin)
        self._unmap_pin(pin)
        pin.domain = 0

    # ---- Physdev ----

    def _physdev(self, command: Physdev, given: Any) -> Record:
        of_domain_0 = {Physdev.PCI_MMCFG_RESERVED, Physdev.PCI_DEVICE_ADD, Physdev.PCI_DEVICE_REMOVE,
                       Physdev.PCI_DEVICE_RESET}  # fmt: skip
        if command in of_domain_0 and self._caller != 0:
            refuse(Status.NOT_PERMITTED)
        answer: Record = getattr(self, f"_{command.name.lower()}")(given)
        return answer

    def _irq_status_query(self, given: abi.IrqStatusQuery) -> Record:
        source = self._irq(self._caller, given.irq)
        flags = IrqStatus(0)
        if isinstance(source, Pin) and source.level:
            flags |= IrqStatus.NEEDS_EOI
        if isinstance(source, Pin) and source.users > 1:
            flags |= IrqStatus.SHARED
        return msgspec.structs.replace(given, flags=int(flags))

    def _pin_of_register(self, given: abi.Apic) -> Pin:
        """The pin whose entry a register is half of."""
        pins = self.ioapics[given.apic_physbase]
        if given.reg not in range(0x10, 0x10 + 2 * len(pins)):
            refuse(Status.OUT_OF_RANGE)
        pin = pins[(given.reg - 0x10) // 2]
        if pin.domain != self._caller:
            refuse(Status.NOT_PERMITTED)
        return pin

    def _apic_read(self, given: abi.Apic) -> Record:
        if given.apic_physbase not in self.ioapics:
            refuse(Status.INVALID)
        if given.reg in (0, 1, 2):
            if self._caller != 0:
                refuse(Status.NOT_PERMITTED)
            ioapic = self.hardware[given.apic_physbase]
            return msgspec.structs.replace(given, value=ioapic.version if given.reg == 1 else ioapic.id << 24)
        pin = self._pin_of_register(given)
        seen = pin.view | (REMOTE_IRR if pin.place in self.remote_irr else 0)
        return msgspec.structs.replace(given, value=seen >> 32 if given.reg % 2 else seen & LOW_WORD)

    def _apic_write(self, given: abi.Apic) -> Record:
        if given.apic_physbase not in self.ioapics:
            refuse(Status.INVALID)
        if given.reg in (0, 1, 2):
            refuse(Status.NOT_PERMITTED)
        pin = self._pin_of_register(given)
        high, low = pin.view >> 32, pin.view & LOW_WORD
        if given.reg % 2 == 0:
            self._write_entry(pin, high << 32 | given.value & ~STATUS_BITS)
        elif not pin.masked:
            self._write_entry(pin, given.value << 32 | low)
        else:
            pin.view = given.value << 32 | low
        return given

    def _alloc_irq_vector(self, given: abi.AllocIrqVector) -> Record:
        source = self._irq(self._caller, given.irq)
        if self.mode is Mode.INTERCEPT and isinstance(source, Pin) and source.bound is None:
            self._take([source], self._home(source))
            source.live = False
        vector = self._vector(source)
        if vector is None:
            refuse(Status.NOT_FOUND)
        return msgspec.structs.replace(given, vector=vector)

    def _eoi(self, given: abi.Eoi) -> Record:
        source = self._irq(self._caller, given.irq)
        if self.mode is Mode.INTERCEPT and isinstance(source, Pin) and source.level:
            self.remote_irr.discard(source.place)
        self._give_back(source.drained)
        source.drained = None
        return given

    def _map_pirq(self, given: abi.MapPirqArgument) -> Record:
        domain = self._named(given.domid)
        if given.type == MapPirq.GSI:
            return self._map_gsi(domain, given)
        if given.type in (MapPirq.MSI, MapPirq.MSI_SEG, MapPirq.MULTI_MSI):
            return self._map_msi(domain, given)
        return refuse(Status.INVALID)

    def lowest_pirq(self, domain: int, type: int, count: int) -> int:
        """The lowest free pIRQ with as many free behind it: from 16 on, for messages from the number of GSIs on."""
        start = 16
        if type != MapPirq.GSI and 16 <= self.gsi_end < self.limits.pirqs:
            start = self.gsi_end
        for pirq in range(start, self.limits.pirqs - count + 1):
            if not any(pirq + index in self.domains[domain].pirqs for index in range(count)):
                return pirq
        return refuse(Status.NO_SPACE)

    def _pirq(self, domain: int, given: abi.MapPirqArgument, count: int) -> int:
        """The pIRQ, the first of a run, that a map_pirq gives."""
        if given.pirq < 0:
            return self.lowest_pirq(domain, given.type, count)
        if given.pirq + count > self.limits.pirqs:
            refuse(Status.OUT_OF_RANGE)
        if any(given.pirq + index in self.domains[domain].pirqs for index in range(count)):
            refuse(Status.EXISTS)
        return given.pirq

    def _map_gsi(self, domain: int, given: abi.MapPirqArgument) -> Record:
        pin = self.gsis.get(given.index)
        if pin is None:
            refuse(Status.INVALID)
        if pin.domain != domain:
            refuse(Status.NOT_PERMITTED)
        if pin.pirq is None:
            pin.pirq = self._pirq(domain, given, 1)
            self.domains[domain].pirqs[pin.pirq] = pin
        elif not pin.level or (given.pirq >= 0 and given.pirq != pin.pirq):
            refuse(Status.EXISTS)
        pin.users += 1
        return msgspec.structs.replace(given, pirq=pin.pirq)

    def _unmap_pirq(self, given: abi.UnmapPirq) -> Record:
        domain = self._named(given.domid)
        source = self.domains[domain].pirqs.get(given.pirq)
        if source is None:
            refuse(Status.INVALID)
        if isinstance(source, Message):
            self._drop(source)
        else:
            source.users -= 1
            if source.users == 0:
                self._silence(source)
                self._unmap_pin(source)
        return given

    def _setup_gsi(self, given: abi.SetupGsi) -> Record:
        pin = self.gsis.get(given.gsi)
        if pin is None or given.triggering > 1 or given.polarity > 1:
            refuse(Status.INVALID)
        if pin.domain != self._caller:
            refuse(Status.NOT_PERMITTED)
        if pin.set_up:
            refuse(Status.EXISTS)
        entry = pin.view & ~(LEVEL | ACTIVE_LOW) | LEVEL * given.triggering | ACTIVE_LOW * given.polarity
        if self.mode is Mode.INTERCEPT and pin.bound is None:
            home = self._home(pin)
            if pin.masked:
                self._check_entry(entry, pin.view, self._view_format)
                self._check_trigger(pin, entry)
                self._take([pin], home)
                pin.live = False
        # One that is unmasked gets its vector, if it has none, by being written.
        self._write_entry(pin, entry)
        pin.set_up = True
        return given

    def _get_free_pirq(self, given: abi.GetFreePirq) -> Record:
        if given.type not in (MapPirq.MSI, MapPirq.GSI, MapPirq.MSI_SEG):
            refuse(Status.INVALID)
        return msgspec.structs.replace(given, pirq=self.lowest_pirq(self._caller, given.type, 1))

    def _pci_mmcfg_reserved(self, given: abi.PciMmcfgReserved) -> Record:
        if given.flags > abi.PCI_MMCFG_RESERVED:
            refuse(Status.INVALID)
        for address, segment, first, last in self.machine.ecam:
            same = (address, segment) == (given.address, given.segment)
            if same and first <= given.start_bus <= given.end_bus <= last:
                return given
        return refuse(Status.NO_DEVICE)

    def _pci_device_add(self, given: abi.PciDeviceAddPxm) -> Record:
        device = given.device
        if device.flags > 7:
            refuse(Status.INVALID)
        sbdf, virtual = sbdf_of(device.seg, device.bus, device.devfn), bool(device.flags & PciDev.VIRTFN)
        physical = sbdf_of(device.seg, device.physfn_bus, device.physfn_devfn) if virtual else 0
        if sbdf in self.functions:
            known = self.functions[sbdf]
            if (known.flags, known.physical, known.pxm) != (device.flags, physical, given.pxm):
                refuse(Status.EXISTS)
            return given
        if virtual and (physical not in self.functions or self.functions[physical].flags & PciDev.VIRTFN):
            refuse(Status.NO_DEVICE)
        if len(self.functions) == self.limits.functions:
            refuse(Status.NO_SPACE)
        self.functions[sbdf] = Function(sbdf, device.flags, physical, given.pxm)
        return given

    def _function(self, device: abi.PciDevice) -> Function:
        function = self.functions.get(sbdf_of(device.seg, device.bus, device.devfn))
        return function if function is not None else refuse(Status.NO_DEVICE)

    def _pci_device_remove(self, given: abi.PciDevice) -> Record:
        function = self._function(given)
        virtuals = [each for each in self.functions.values() if each.flags & PciDev.VIRTFN]
        if function.domain != 0 or any(each.physical == function.sbdf for each in virtuals):
            refuse(Status.BUSY)
        self._quiet(function)
        del self.functions[function.sbdf]
        return given

    def _pci_device_reset(self, given: abi.PciDeviceReset) -> Record:
        if given.flags > 3:
            refuse(Status.INVALID)
        self._quiet(self._function(given.dev))
        return given

    # ---- Our own calls ----

    def _own(self, command: Op, given: Any) -> Record:
        header = given.header
        good = (header.version, header.bytes, header.zero) == (abi.VERSION, layout(type(given)).size, 0)
        if not good or getattr(given, "zero", 0) != 0:
            refuse(Status.INVALID)
        of_any_domain = {Op.INFORMATION, Op.QUERY_VECTOR, Op.SET_AFFINITY, Op.READ_INTERRUPT, Op.MSI_READ, Op.MSI_WRITE}
        if command not in of_any_domain and self._caller != 0:
            refuse(Status.NOT_PERMITTED)
        answer: Record = getattr(self, f"_{command.name.lower()}")(given)
        return answer

    def _information(self, given: abi.Information) -> Record:
        self._accepted()
        calls, refused = self._oracle.tally()
        size = self._parsed(abi.Information).bytes
        assert size % abi.PAGE_BYTES == 0, "the core is whole pages"
        return abi.Information(
            header=given.header,
            features=int(self._features()),
            mode=self.mode,
            limit_cpus=self.limits.cpus,
            limit_ioapics=self.limits.ioapics,
            limit_domains=self.limits.domains,
            limit_pirqs=self.limits.pirqs,
            limit_functions=self.limits.functions,
            limit_messages=self.limits.messages,
            cpus=len(self.apic_ids),
            ioapics=len(self.ioapics),
            gsis=self.gsi_end,
            domains=len(self.domains),
            functions=len(self.functions),
            messages=len(self.messages),
            reports=min(len(self.reports), self.limits.reports),
            reports_lost=max(len(self.reports) - self.limits.reports, 0),
            calls=calls,
            calls_refused=refused,
            bytes=size,
            entry_format=self.entry_format,
            message_format=self.message_format,
            trapped=self.trapped,
            trapped_refused=self.trapped_refused,
        )

    def _parsed(self, record: type[Record]) -> Any:
        """The core's answer."""
        return layout(record).parse(self._answer, 0, layout(record).size, Notes("answer"))

    def _features(self) -> Feature:
        features = Feature.MODEL | Feature.BOOKKEEPING
        features |= Feature.DIRECT if self.mode is Mode.DIRECT else Feature.INTERCEPT
        if self.shared_at:
            features |= Feature.SHARED_INFO
        return features | Feature.HANDED_OVER if self.handed_over else features

    def _map_shared_info(self, given: abi.MapSharedInfo) -> Record:
        if given.guest_physical % abi.PAGE_BYTES or given.guest_physical + 2 * abi.PAGE_BYTES > 1 << 52:
            refuse(Status.INVALID)
        self.shared_at = given.guest_physical
        return given

    def _hand_over(self, given: abi.HandOver) -> Record:
        if given.counter != self.counter:
            refuse(Status.TRY_AGAIN)
        root = (given.rsdp, given.xsdt)
        if root != (self.firmware.rsdp, self.firmware.xsdt) and root not in self.firmware.others:
            refuse(Status.INVALID)
        self.root, self.handed_over = root, True
        self.counter += 2
        return given

    def shared_ioapics(self) -> set[tuple[int, int, int, int, int, Format]]:
        """(address, GSI base, pins, id, version, format) of each entry in the IOAPIC list."""
        found = set()
        for address, pins in self.ioapics.items():
            ioapic = self.hardware[address]
            found.add((address, pins[0].gsi, len(pins), ioapic.id, ioapic.version & 0xFF, self.entry_format))
        return found

    def _for_several(self, source: Source) -> tuple[int, int] | None:
        """(vector, logical destination) that dom0 chose for several processors: no pair to record."""
        if self.mode is not Mode.DIRECT or source.bound is not None:
            return None
        if isinstance(source, Message):
            if source.written is None or self._is_message_remapped(source.written[0]):
                return None
            address, data = source.written
            return data & 0xFF, address >> 12 & 0xFF
        if source.masked or self._is_remapped(source.view, self.entry_format):
            return None
        # Firmware may have left one that means something else, or nothing.
        try:
            self._check_entry(source.view, source.view, self.entry_format)
            several = len(self._processors(source.view, self.entry_format)) > 1
        except Refused:
            return None
        return (source.view & 0xFF, source.view >> 56) if several else None

    def _vector(self, source: Source) -> int | None:
        if source.bound is not None:
            return source.bound[1]
        several = self._for_several(source)
        return several[0] if several else None

    def flags(self, source: Source) -> InterruptFlag:
        flags = {
            InterruptFlag.DRAINING: source.drained is not None,
            InterruptFlag.REMAPPED: self.mode is Mode.DIRECT and self._says_remapped(source),
        }
        if isinstance(source, Pin):
            flags |= {
                InterruptFlag.MASKED: source.masked,
                InterruptFlag.LEVEL: source.level,
                InterruptFlag.ACTIVE_LOW: bool(source.view & ACTIVE_LOW),
                InterruptFlag.SHARED: source.users > 1,
                InterruptFlag.SET_UP: source.set_up,
            }
        return InterruptFlag(sum(flag for flag, is_set in flags.items() if is_set))

    def _says_remapped(self, source: Source) -> bool:
        if isinstance(source, Pin):
            return self._is_remapped(source.view, self.entry_format)
        return source.written is not None and self._is_message_remapped(source.written[0])

    def _query_vector(self, given: abi.QueryVector) -> Record:
        source = self._irq(self._named(given.domain), given.irq)
        flags = int(self.flags(source))
        if source.bound is not None:
            cpu, vector = source.bound
            return msgspec.structs.replace(given, cpu=cpu, apic_id=self.apic_ids[cpu], vector=vector, flags=flags)
        several = self._for_several(source)
        if several is None:
            refuse(Status.NOT_FOUND)
        return msgspec.structs.replace(given, cpu=abi.NONE, vector=several[0], apic_id=several[1], flags=flags)

    def _set_affinity(self, given: abi.SetAffinity) -> Record:
        domain = self._named(given.domain)
        if self.mode is Mode.DIRECT:
            refuse(Status.NOT_SUPPORTED)
        source = self._irq(domain, given.irq)
        if given.cpu >= len(self.apic_ids):
            refuse(Status.OUT_OF_RANGE)
        if source.bound is None:
            refuse(Status.NOT_FOUND)
        if source.drained is not None:
            refuse(Status.TRY_AGAIN)
        stays = source.bound[0] == given.cpu
        if isinstance(source, Message):
            if stays:
                return given
            if source.run > 1:
                refuse(Status.NOT_SUPPORTED)
            self._check_room(domain, given.cpu)
            self._move(source, given.cpu)
            return given
        extended = self._view_format is Format.EXTENDED_DESTINATION
        apic_id = self.apic_ids[given.cpu]
        if apic_id > (0x7FFF if extended else 0xFE):
            refuse(Status.OUT_OF_RANGE)
        if not stays:
            self._check_room(domain, given.cpu)
            self._move(source, given.cpu)
        # The destination in the view follows.
        bits = set(range(49, 64)) if extended else set(range(56, 64))
        source.view = sum(1 << bit for bit in range(64) if source.view >> bit & 1 and bit not in bits | {11})
        source.view |= (apic_id % 256) << 56 | (apic_id // 256) << 49
        source.live = source.live or not source.masked
        return given

    def _ioapic_add(self, given: abi.IoapicAdd) -> Record:
        address = given.address
        if address == 0 or address % 256 or address >= 1 << 52:
            refuse(Status.INVALID)
        if address in self.ioapics:
            refuse(Status.EXISTS)
        if len(self.ioapics) == self.limits.ioapics:
            refuse(Status.NO_SPACE)
        ioapic = self.hardware.get(address)
        if ioapic is None or ioapic.version in (0, 0xFFFFFFFF):
            refuse(Status.NO_DEVICE)
        wanted = range(given.gsi_base, given.gsi_base + min((ioapic.version >> 16 & 0xFF) + 1, PINS))
        if wanted.stop > self.limits.gsis:
            refuse(Status.OUT_OF_RANGE)
        if any(gsi in self.gsis for gsi in wanted):
            refuse(Status.EXISTS)
        left = {number: self._oracle.entry_before((address, number)) | MASKED for number in range(len(wanted))}
        pins = self._plug(ioapic, given.gsi_base, left)
        self.counter += 2
        return msgspec.structs.replace(given, pins=pins)

    def _ioapic_remove(self, given: abi.IoapicRemove) -> Record:
        if given.address not in self.ioapics:
            refuse(Status.NO_DEVICE)
        pins = self.ioapics[given.address]
        if any(pin.in_use for pin in pins):
            refuse(Status.BUSY)
        for pin in pins:
            self._return_pin(pin)
            del self.gsis[pin.gsi]
        del self.ioapics[given.address]
        self.counter += 2
        return given

    def _domain_create(self, given: abi.DomainCreate) -> Record:
        numbers = [given.domain]
        if given.domain == abi.DOMAIN_ANY:
            numbers = [number for number in range(1, self.limits.domains) if number not in self.domains]
            if not numbers:
                refuse(Status.NO_SPACE)
        number = numbers[0]
        if number >= self.limits.domains:
            refuse(Status.OUT_OF_RANGE)
        if number in self.domains:
            refuse(Status.EXISTS)
        self.domains[number] = Domain(most_vectors=given.vectors)
        return msgspec.structs.replace(given, domain=number)

    def _domain_destroy(self, given: abi.DomainDestroy) -> Record:
        domain = self._named(given.domain)
        if domain == 0:
            refuse(Status.NOT_PERMITTED)
        for function in self.functions.values():
            if function.domain == domain:
                self._quiet(function)
                function.domain = 0
        for pin in self.gsis.values():
            if pin.domain == domain:
                self._return_pin(pin)
        assert not self.domains[domain].pirqs
        del self.domains[domain]
        return given

    def _other_domain(self, domain: int) -> int:
        """A domain to give to or take from: any but domain 0."""
        return self._named(domain) or refuse(Status.INVALID)

    def _assign_device(self, given: abi.AssignDevice) -> Record:
        domain, function = self._other_domain(given.domain), self._function(given.device)
        if function.domain != 0 or function.messages:
            refuse(Status.BUSY)
        function.domain = domain
        return given

    def _release_device(self, given: abi.AssignDevice) -> Record:
        domain, function = self._other_domain(given.domain), self._function(given.device)
        if function.domain != domain:
            refuse(Status.NOT_FOUND)
        self._quiet(function)
        function.domain = 0
        return given

    def _assign_gsi(self, given: abi.AssignGsi) -> Record:
        domain, pin = self._other_domain(given.domain), self.gsis.get(given.gsi)
        if pin is None:
            refuse(Status.INVALID)
        if pin.in_use:
            refuse(Status.BUSY)
        self._return_pin(pin)  # domain 0 may have had a vector for it
        pin.domain = domain
        return given

    def _release_gsi(self, given: abi.AssignGsi) -> Record:
        domain, pin = self._other_domain(given.domain), self.gsis.get(given.gsi)
        if pin is None:
            refuse(Status.INVALID)
        if pin.domain != domain:
            refuse(Status.NOT_FOUND)
        self._return_pin(pin)
        return given

    def row(self, source: Source) -> dict[str, Any]:
        """What READ_INTERRUPT says of an interrupt."""
        vector = self._vector(source)
        device = abi.PciDevice(seg=0, bus=0, devfn=0)
        kind, gsi, entry = Kind.GSI, abi.NONE, 0
        if isinstance(source, Message):
            kind, entry = (Kind.MSIX if source.msix else Kind.MSI), source.entry
            sbdf = source.function
            device = abi.PciDevice(seg=sbdf >> 16, bus=sbdf >> 8 & 0xFF, devfn=sbdf & 0xFF)
        else:
            gsi = source.gsi
        return {
            "kind": kind,
            "pirq": abi.NONE if source.pirq is None else source.pirq,
            "gsi": gsi,
            "device": device,
            "entry": entry,
            "cpu": abi.NONE if source.bound is None else source.bound[0],
            "vector": abi.NONE if vector is None else vector,
            "flags": int(self.flags(source)),
        }

    def _read_interrupt(self, given: abi.ReadInterrupt) -> Record:
        domain = self._named(given.domain)
        rows = [self.row(source) for source in self.sources(domain)]
        if self._real is Status.NOT_FOUND and (given.cursor or not rows):
            refuse(Status.NOT_FOUND)
        self._accepted()
        answer: abi.ReadInterrupt = self._parsed(abi.ReadInterrupt)
        assert answer.cursor > given.cursor, "the search goes on"
        if answer.kind == Kind.NONE:
            return msgspec.structs.replace(given, kind=Kind.NONE, cursor=answer.cursor)
        assert {name: getattr(answer, name) for name in rows[0]} in rows, "not an interrupt of that domain"
        return msgspec.structs.replace(answer, header=given.header, domain=given.domain)

    def _read_report(self, given: abi.ReadReport) -> Record:
        if given.index >= min(len(self.reports), self.limits.reports):
            refuse(Status.NOT_FOUND)
        self._accepted()
        answer: abi.ReadReport = self._parsed(abi.ReadReport)
        assert (answer.code, answer.where, answer.value) in self.reports
        return msgspec.structs.replace(answer, header=given.header, index=given.index)

    # ---- Messages ----

    def _is_message_remapped(self, address: int) -> bool:
        return self.message_format is Format.AMD_VI or (self.message_format is Format.VTD and bool(address & 16))

    def _wanted(self, given: abi.MapPirqArgument) -> tuple[int, int, bool]:
        """(first message, their count, MSI-X?) that a map_pirq asks for."""
        if given.index >= 0 or given.devfn not in range(256):
            refuse(Status.INVALID)
        if given.type == MapPirq.MULTI_MSI:
            if given.table_base or given.entry_nr not in (1, 2, 4, 8, 16, 32):
                refuse(Status.INVALID)
            return 0, given.entry_nr, False
        if given.table_base == 0:
            return (0, 1, False) if given.entry_nr == 0 else refuse(Status.INVALID)
        if given.entry_nr not in range(2048):
            refuse(Status.OUT_OF_RANGE)
        return given.entry_nr, 1, True

    def _map_msi(self, domain: int, given: abi.MapPirqArgument) -> Record:
        first, count, msix = self._wanted(given)
        segment, bus = given.bus >> 16 & 0xFFFF, given.bus & 0xFFFF
        if given.type == MapPirq.MSI:
            segment, bus = 0, bus & 0xFF
        if bus > 0xFF:
            refuse(Status.INVALID)
        function = self.functions.get(sbdf_of(segment, bus, given.devfn))
        if function is None:
            refuse(Status.NO_DEVICE)
        if function.domain != domain:
            refuse(Status.NOT_PERMITTED)
        # Either MSI-X, each message once, or MSI, all at once.
        if any(not msix or not each.msix or each.entry == first for each in function.messages):
            refuse(Status.EXISTS)
        pirq = self._pirq(domain, given, count)
        if not self._has_messages(count):
            refuse(Status.NO_SPACE)
        if self.mode is Mode.INTERCEPT:
            self._check_room(domain, None, count)
        made = [Message(function.sbdf, first + i, msix, domain, pirq + i, count) for i in range(count)]
        function.messages += made
        self.domains[domain].pirqs |= {message.pirq: message for message in made}
        if self.mode is Mode.INTERCEPT:
            self._take(made, None)
        return msgspec.structs.replace(given, pirq=pirq)

    def _has_messages(self, count: int) -> bool:
        """Must the core have room for so many messages? Scattered ones may leave it no aligned run for many."""
        if len(self.messages) + count > self.limits.messages:
            return False
        return len(self.messages) < self.limits.messages // count or count == 1 or self._real is Status.OK

    def _drop(self, message: Message) -> None:
        self._free(message)
        self.functions[message.function].messages.remove(message)
        del self.domains[message.domain].pirqs[message.pirq]

    def _quiet(self, function: Function) -> None:
        for message in list(function.messages):
            self._drop(message)

    def _message(self, domain: int, irq: int) -> Message:
        source = self.domains[domain].pirqs.get(irq)
        return source if isinstance(source, Message) else refuse(Status.INVALID)

    def _msi_read(self, given: abi.Msi) -> Record:
        message = self._message(self._named(given.domain), given.irq)
        if self.mode is Mode.DIRECT:
            if message.written is None:
                refuse(Status.NOT_FOUND)
            return msgspec.structs.replace(given, address=message.written[0], data=message.written[1])
        assert message.bound is not None
        cpu, vector = message.bound
        apic_id = self.apic_ids[cpu]
        if self.message_format in (Format.COMPATIBILITY, Format.EXTENDED_DESTINATION):
            address = 0xFEE00000 + (apic_id % 256) * 0x1000 + (apic_id // 256) * 0x20
            return msgspec.structs.replace(given, address=address, data=vector)
        # Where in the remapper's table the message stands is the core's choice.
        self._accepted()
        answer: abi.Msi = self._parsed(abi.Msi)
        self._check_message(answer.address, answer.data)
        assert self._is_message_remapped(answer.address)
        if message.run > 1 and self.message_format is Format.VTD:
            assert answer.address & 8, "one address for the run"
            assert answer.data == message.entry, "and the device counts in the data"
        return msgspec.structs.replace(given, address=answer.address, data=answer.data)

    def _check_message(self, address: int, data: int) -> None:
        if address >> 20 != 0xFEE:
            refuse(Status.INVALID)
        if self.message_format is Format.AMD_VI:  # an index in the data's bits 10:0
            return refuse(Status.INVALID) if data > 0x7FF else None
        if self._is_message_remapped(address):
            return refuse(Status.INVALID) if data > 0xFFFF else None
        reserved = {0, 1, *range(4, 12)}
        if self.message_format is Format.EXTENDED_DESTINATION:
            reserved -= set(range(5, 12))
        level, data_reserved = 15, {11, 12, 13, *range(16, 32)}
        if any(address >> bit & 1 for bit in reserved) or any(data >> bit & 1 for bit in {level} | data_reserved):
            refuse(Status.INVALID)
        if data >> 8 & 7 > 1 or data & 0xFF not in VECTORS:
            refuse(Status.INVALID)
        return None

    def _message_processors(self, address: int) -> list[int]:
        logical, destination = bool(address & 4), address >> 12 & 0xFF
        if self.message_format is Format.EXTENDED_DESTINATION and not logical:
            destination += (address >> 5 & 0x7F) * 256
        return self._destination(logical, destination, self.message_format)

    def _msi_write(self, given: abi.Msi) -> Record:
        domain = self._named(given.domain)
        if self.mode is not Mode.DIRECT:
            refuse(Status.NOT_SUPPORTED)
        message = self._message(domain, given.irq)
        self._check_message(given.address, given.data)
        chosen = None
        if not self._is_message_remapped(given.address):
            processors = self._message_processors(given.address)
            if len(processors) == 1:
                chosen = (processors[0], given.data & 0xFF)
        self._check_chosen(message, chosen)
        self._record(message, chosen)
        message.written = (given.address, given.data)
        return given

    # ---- What devices and processors do ----

    def trap(
        self, caller: int, read: bool, address: int, register: int, value: int, real: Status, oracle: Oracle
    ) -> tuple[Status, int]:
        """A trapped access to an IOAPIC's register: the same as apic_read and apic_write. Status, and what was read."""
        argument = layout(abi.Apic).build(abi.Apic(apic_physbase=address, reg=register, value=value))
        command = Physdev.APIC_READ if read else Physdev.APIC_WRITE
        status, answer = self.call(caller, abi.HYPERCALL_PHYSDEV, command, argument, (real, argument), oracle)
        self.trapped += 1
        self.trapped_refused += status is not Status.OK
        parsed = layout(abi.Apic).parse(answer, 0, len(answer), Notes("answer"))
        assert parsed is not None
        return status, parsed.value

    def target(self, source: Source) -> Binding | None:
        """Where an interrupt arrives; None: nowhere that we know of."""
        if source.bound is not None and not (isinstance(source, Pin) and source.firmwares):
            return source.bound
        try:
            if isinstance(source, Message):
                if source.written is None or self._is_message_remapped(source.written[0]):
                    return None
                return self._message_processors(source.written[0])[0], source.written[1] & 0xFF
            if self._is_remapped(source.view, self.entry_format):
                return None
            return self._processors(source.view, self.entry_format)[0], source.view & 0xFF
        except Refused:
            return None

    def _settle(self) -> None:
        """A level line that is high, unmasked and not in service goes out (Intel 82093AA, section 3.2.4)."""
        for pin in self.gsis.values():
            if pin.level and not pin.masked and pin.place in self.high and pin.place not in self.remote_irr:
                target = self.target(pin)
                if target is not None:
                    self.pending[target[0]].add(target[1])
                    self.remote_irr.add(pin.place)

    def line(self, place: Place, high: bool) -> None:
        """A device raises or lowers its line; an edge is its raising."""
        raised = high and place not in self.high
        (self.high.add if high else self.high.discard)(place)
        pin = self.ioapics[place[0]][place[1]]
        target = self.target(pin)
        if raised and not pin.level and not pin.masked and target is not None:
            self.pending[target[0]].add(target[1])
        self._settle()

    def sent(self, message: Message) -> bool:
        """A device sends a message; does a processor get it?"""
        target = self.target(message)
        if target is not None:
            self.pending[target[0]].add(target[1])
        return target is not None

    def take(self, cpu: int) -> tuple[int, Source | None] | None:
        """The vector a processor takes now, and whose it is: only a higher priority class interrupts one in service."""
        vector = max(self.pending[cpu], default=0)
        if vector // 16 <= max(self.in_service[cpu], default=0) // 16:
            return None
        self.pending[cpu].remove(vector)
        self.in_service[cpu].add(vector)
        source = self.vectors.get((cpu, vector))
        if source is not None and source.bound == (cpu, vector):  # the first on the new one ends a move
            self._give_back(source.drained)
            source.drained = None
        return vector, source

    def end(self, cpu: int, entries: Mapping[Place, int]) -> int | None:
        """A processor ends the interrupt it is at: every level entry that carries this vector has been served.

        `entries` are the hardware's, of the machine's every IOAPIC.
        """
        vector = max(self.in_service[cpu], default=None)
        if vector is None:
            return None
        self.in_service[cpu].remove(vector)
        self.remote_irr -= {place for place in self.remote_irr if self._carries(place, entries[place]) == vector}
        self._settle()
        return vector

    def _carries(self, place: Place, entry: int) -> int | None:
        """The vector an entry stands for: AMD-Vi's have none in them, their remapper knows it."""
        if self.entry_format is not Format.AMD_VI:
            return entry & 0xFF
        bound = self.ioapics[place[0]][place[1]].bound if place[0] in self.ioapics else None
        return None if bound is None else bound[1]


def sbdf_of(segment: int, bus: int, devfn: int) -> int:
    return segment << 16 | bus << 8 | devfn
