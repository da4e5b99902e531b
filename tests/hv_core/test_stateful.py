# SPDX-License-Identifier: MIT
"""Random hypercalls and interrupts, to the core and to the specification's model: same answers, invariants held.

Every call's status and bytes must be the model's; after each, the invariants of invariants.py must hold, what the core
lists must be what the model knows, and a refused call must have left everything as it was. ``DOM0KIT_LONG=1`` runs
twenty times as many steps.
"""

from __future__ import annotations

import os
import struct
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from dom0kit import abi
from dom0kit.abi import Format, MapPirq, Mode, Op, Physdev, Status
from dom0kit.hypercall.core_library import Arrival
from dom0kit.layout import Record, layout
from tests.hv_core import invariants
from tests.hv_core.invariants import Reader, Readings, Row
from tests.hv_core.machines import FIRST, LIBRARY, PLAIN, SECOND, SPARE, pair, small
from tests.hv_core.model import MASKED, PINS, Binding, Ioapic, Machine, Message, Model, Pin, Place, Source

LONG = "DOM0KIT_LONG" in os.environ
T = TypeVar("T")

# ---- Machines ----

ONE_PIN = 0x00000011
SIX_PINS = 0x00050011
TEN_PINS = 0x00090020
CLAIMS_240 = 0x00EF0020
FIRMWARE = {
    0: 0x0000_0000_0000_0031,  # edge, processor 0
    1: 0x0100_0000_0000_8832,  # level, logical: processor 0
    2: 0x0300_0000_0000_0833,  # logical: two processors
    3: 0x0000_0000_0000_0400,  # an NMI
    4: 0x0000_0000_0001_0735,  # an ExtINT, masked
    5: 0x0000_0000_0000_0031,  # the same vector as pin 0
    6: 0x7700_0000_0000_0036,  # a processor that is not there
    7: 0x0000_0000_0000_A0F5,  # level, active low, a vector that the core never chooses
}
GAPS = (
    Ioapic(address=FIRST, base=4, version=TEN_PINS, id=3, entries=FIRMWARE),
    Ioapic(address=SECOND, base=100, version=ONE_PIN, id=4),
    Ioapic(address=SPARE, base=200, version=CLAIMS_240, id=5),
    Ioapic(address=SPARE + 0x100, base=None, version=CLAIMS_240),
    Ioapic(address=SPARE + 0x200, base=None, version=0),
    Ioapic(address=SPARE + 0x300, base=None, version=0xFFFFFFFF),
)


def plain(**changes: Any) -> Machine:
    return msgspec.structs.replace(PLAIN, **changes)


def formats(format: Format, **changes: Any) -> Machine:
    return plain(entry_format=format, message_format=format, **changes)


SHAPES = {
    "plain": PLAIN,
    "plain, direct": plain(mode=Mode.DIRECT),
    "one processor, one IOAPIC": plain(
        apic_ids=(0,), ioapics=(Ioapic(address=FIRST, base=0, version=SIX_PINS), PLAIN.ioapics[2])
    ),
    "one processor, more pins than vectors": plain(
        apic_ids=(0,),
        ioapics=(
            Ioapic(address=FIRST, base=0, version=CLAIMS_240),
            Ioapic(address=SECOND, base=120, version=CLAIMS_240),
        ),
    ),
    "one processor, more pins than vectors, direct": plain(
        apic_ids=(0,),
        ioapics=(
            Ioapic(address=FIRST, base=0, version=CLAIMS_240),
            Ioapic(address=SECOND, base=120, version=CLAIMS_240),
        ),
        mode=Mode.DIRECT,
    ),
    "gaps and firmware's entries": plain(ioapics=GAPS),
    "gaps and firmware's entries, direct": plain(ioapics=GAPS, mode=Mode.DIRECT),
    "extended destinations": formats(Format.EXTENDED_DESTINATION, apic_ids=(0, 5, 0xFF, 0x1234, 0x7FFF, 0x8000)),
    "extended destinations, direct": formats(
        Format.EXTENDED_DESTINATION, apic_ids=(0, 5, 0xFF, 0x1234), mode=Mode.DIRECT
    ),
    "eight bits of destination": plain(apic_ids=(0x100, 2, 0xFF, 0xFE)),
    "eight bits of destination, direct": plain(apic_ids=(0x100, 2, 0xFF, 0xFE), mode=Mode.DIRECT),
    "VT-d": formats(Format.VTD, apic_ids=(0, 1, 0x200)),
    "VT-d, direct": formats(Format.VTD, mode=Mode.DIRECT),
    "AMD-Vi": formats(Format.AMD_VI, apic_ids=(0, 1, 0x200)),
    "AMD-Vi, direct": formats(Format.AMD_VI, mode=Mode.DIRECT),
    "VT-d for messages only": plain(apic_ids=(0, 1, 0x200), message_format=Format.VTD),
}
LARGE = {
    "large limits": plain(
        ioapics=(
            Ioapic(address=FIRST, base=0),
            Ioapic(address=SECOND, base=9000, version=0x70020),  # above every pIRQ
            Ioapic(address=SPARE, base=None, version=CLAIMS_240),
        ),
    )
}

# ---- What rules draw ----


def of_machine(values: Callable[[StateMachine], Sequence[T]]) -> st.SearchStrategy[T]:
    """One of some values that depend on how the machine is now."""
    return st.runner().flatmap(lambda machine: st.sampled_from(values(machine)))


callers = of_machine(lambda machine: [0, 0, 0, 0, *machine.model.domains, *machine.model.domains, 99])
domains = of_machine(lambda machine: [abi.DOMID_SELF] * 3 + [*machine.model.domains, 2, 0xFFFF, 1 << 31])
gsis = of_machine(lambda machine: machine.some_gsis() * 2 + [machine.model.gsi_end, 1 << 30])
pins = of_machine(lambda machine: machine.some_places())
open_pins = of_machine(lambda machine: machine.some_open_places())
odd_places = [(FIRST, PINS - 1), (SPARE, 0), (FIRST + 16, 0), (0, 0)]
places = of_machine(lambda machine: machine.some_places() * 2 + odd_places)
irqs = of_machine(lambda machine: machine.some_irqs())
messages = of_machine(lambda machine: machine.some_messages() or [3])
addresses = of_machine(lambda machine: [*machine.model.hardware, *machine.model.hardware, 0, FIRST + 16, 1 << 52])
pirqs = st.one_of(
    st.just(-1), st.just(-1), irqs, of_machine(lambda machine: [machine.model.limits.pirqs + i for i in (-2, -1, 0)])
)
busy_processors = of_machine(lambda machine: machine.some_busy_processors())
processors = of_machine(lambda machine: [*range(len(machine.model.apic_ids))] * 2 + [8, abi.NONE])
registers = st.one_of(st.integers(0x10, 0x30), st.integers(0, 0xFF), st.sampled_from([0x100, 0x10010]))
devices = st.builds(
    lambda segment, bus, devfn: abi.PciDevice(seg=segment, bus=bus, devfn=devfn),
    st.sampled_from([0, 0, 0, 1, 0xFFFF]),
    st.sampled_from([0, 0, 1]),
    st.integers(0, 3),
)
vectors = st.sampled_from([0x31, 0x31, 0x31, 0x32, 0x80, 0x10, 0xFE, 0x0F, 0xFF, 0])
apic_destinations = of_machine(lambda machine: [each & 0xFF for each in machine.model.apic_ids] * 2 + [0x55, 0xFF])
logical_destinations = st.sampled_from([1, 2, 3, 4, 0xF8, 0xFF, 0])
odd_low_bits = st.sampled_from([0] * 8 + [1 << 12, 1 << 14, 1 << 17, 1 << 31])
odd_high_bits = st.sampled_from([0] * 6 + [1, 1 << 16, 0x12 << 17, 1 << 17])
modes = st.sampled_from([0] * 6 + [1, 1, 2, 4, 7])


def low_word(vector: int, mode: int, logical: bool, low: bool, level: bool, masked: bool, odd: int) -> int:
    return vector | mode << 8 | logical << 11 | low << 13 | level << 15 | masked << 16 | odd


low_words = st.builds(low_word, vectors, modes, *[st.booleans()] * 4, odd_low_bits)
high_words = st.one_of(
    st.builds(lambda destination, odd: destination << 24 | odd, apic_destinations, odd_high_bits),
    st.builds(lambda destination: destination << 24, logical_destinations),
    st.integers(0, 0xFFFFFFFF),
)
message_words = st.one_of(
    st.tuples(
        st.builds(
            lambda destination, odd: 0xFEE00000 | destination << 12 | odd,
            st.one_of(apic_destinations, logical_destinations),
            st.sampled_from([0, 0, 0, 0, 4, 4, 8, 0x10, 0x14, 0x20, 0x240, 1, 0x1000000, 1 << 32]),
        ),
        st.builds(
            lambda vector, mode, odd: vector | mode << 8 | odd,
            vectors,
            modes,
            st.sampled_from([0] * 6 + [1 << 14, 1 << 15, 1 << 11, 1 << 16]),
        ),
    ),
    st.tuples(st.integers(0, (1 << 64) - 1), st.integers(0, 0xFFFFFFFF)),
)


class Figures:
    """What was run."""

    steps = calls = refused = arrivals = 0


class Eye:
    """What the model may look at: the hardware before a call, and the core's own list after it."""

    def __init__(self, machine: StateMachine) -> None:
        self._machine = machine
        self._rows: dict[int, dict[tuple[str, int], Row]] = {}

    def forget(self) -> None:
        self._rows = {}

    def entry_before(self, place: Place) -> int:
        return self._machine.readings.entries[place]

    def bound(self, source: Source) -> Binding | None:
        if source.domain not in self._rows:
            self._rows[source.domain] = self._machine.reader.interrupts(source.domain)
        name = ("gsi", source.gsi) if isinstance(source, Pin) else ("pirq", source.pirq or 0)
        row = self._rows[source.domain].get(name)
        return None if row is None or row.cpu == abi.NONE else (row.cpu, row.vector)

    def tally(self) -> tuple[int, int]:
        return self._machine.reader.calls, self._machine.reader.refused


class StateMachine(RuleBasedStateMachine):
    """One machine, and its model."""

    shape = PLAIN
    large = False
    crowded = False

    reader: Reader
    model: Model
    readings: Readings
    last: tuple[int, int, int, bytes]

    @initialize()
    def start(self) -> None:
        real, self.model = pair(self.shape, LIBRARY if self.large else small())
        self.real, self.reader, self.eye = real, Reader(real), Eye(self)
        self.places = [
            (ioapic.address, number)
            for ioapic in self.shape.ioapics
            if ioapic.version not in (0, 0xFFFFFFFF)
            for number in range(min((ioapic.version >> 16 & 0xFF) + 1, PINS))
        ]
        self.last = (0, abi.HYPERCALL_PHYSDEV, Physdev.EOI, bytes(4))
        self.sent: list[tuple[int, int]] = []
        self.read()
        self.check()
        firmware = sorted(invariants.firmware_reports(self.readings))
        assert firmware == sorted(self.model.reports)[: self.model.limits.reports]

    # ---- What rules can draw from ----

    def some_places(self) -> list[Place]:
        """A few pins, so that rules meet each other's."""
        return [
            pin.place for pins in self.model.ioapics.values() for pin in [*pins[:4], *pins[-1:]]
        ] or [(FIRST, 0)]  # fmt: skip

    def some_open_places(self) -> list[Place]:
        return [pin.place for pin in self.model.gsis.values() if not pin.masked] or self.some_places()

    def some_busy_processors(self) -> list[int]:
        """Those with something to take or to end."""
        count = range(len(self.model.apic_ids))
        return [cpu for cpu in count if self.model.pending[cpu] or self.model.in_service[cpu]] or [*count]

    def some_gsis(self) -> list[int]:
        return [pin.gsi for pins in self.model.ioapics.values() for pin in [*pins[:4], *pins[-1:]]] or [0]

    def some_irqs(self) -> list[int]:
        mapped = [pirq for domain in self.model.domains.values() for pirq in domain.pirqs]
        return mapped * 3 + self.some_gsis() + [15, 16, 17, self.model.gsi_end, abi.NONE]

    def some_messages(self) -> list[int]:
        return [message.pirq for message in self.model.messages]

    # ---- One call ----

    def check_invariants(self, *arguments: Any, **more: Any) -> None:
        """hypothesis calls this after every rule."""
        Figures.steps += 1
        super().check_invariants(*arguments, **more)

    def read(self) -> None:
        owners = {pin.place: pin.domain for pin in self.model.gsis.values() if pin.place[1] < 8 or pin.in_use}
        self.readings = self.reader.read(owners, self.model.domains, self.places)

    def ask(self, caller: int, number: int, command: int, data: bytes) -> Status:
        self.last = (caller, number, command, data)
        before = self.readings
        owners = {pin.place: pin.domain for pin in self.model.gsis.values()}
        self.real.log()
        self.eye.forget()
        status, answer = self.reader.call(caller, number, command, data)
        log = self.real.log()
        expected, wanted = self.model.call(caller, number, command, data, (status, answer), self.eye)
        assert status is expected, f"the core says {status.name}, the specification {expected.name}"
        assert answer == wanted
        self.read()
        invariants.check_order(log, before.entries, status)
        if status is not Status.OK:
            invariants.check_unchanged(before, self.readings)
        else:
            invariants.check_reach(before, self.readings, caller, owners)
            self.check()
        Figures.calls += 1
        Figures.refused += status is not Status.OK
        return status

    def check(self) -> None:
        """The core is as the model is, and the invariants hold."""
        model, readings = self.model, self.readings
        invariants.check_vectors(readings)
        firmware = self.firmware_entries()
        invariants.check_entries(readings, model.mode, model.entry_format, firmware)
        invariants.check_translation(readings, model.mode, model.entry_format, model.apic_ids, firmware)
        for domain in model.domains:
            expected = {}
            for source in model.sources(domain):
                row = model.row(source)
                device = row.pop("device")
                made = Row(device=(device.seg, device.bus, device.devfn), **row)
                expected[made.name] = made
            assert readings.interrupts[domain] == expected, f"the interrupts of domain {domain}"
        for pin in model.gsis.values():
            status = readings.entries[pin.place] & 1 << 14
            assert bool(status) == (pin.place in model.remote_irr), f"remote IRR of {pin.place}"
            assert bool(readings.entries[pin.place] & MASKED) == pin.masked
        shared = invariants.shared(readings)
        assert (shared.counter, shared.handed_over) == (model.counter, model.handed_over)
        assert (shared.rsdp, shared.xsdt) == model.root
        listed = [
            (each.address, each.gsi_base, each.pins, each.id, each.version, each.format) for each in shared.ioapics
        ]
        assert len(listed) == len(set(listed))
        assert set(listed) == model.shared_ioapics()
        assert readings.shared_at == model.shared_at

    def firmware_entries(self) -> dict[Place, int]:
        return {
            (ioapic.address, pin): entry for ioapic in self.shape.ioapics for pin, entry in ioapic.entries.items()
        }  # fmt: skip

    def physdev(self, caller: int, command: Physdev, argument: Record) -> Status:
        return self.ask(caller, abi.HYPERCALL_PHYSDEV, command, layout(type(argument)).build(argument))

    def own(self, caller: int, command: Op, **fields: Any) -> Status:
        type = abi.ARGUMENTS[abi.HYPERCALL_DOM0KIT, command]
        argument = type(header=abi.Header(version=1, bytes=layout(type).size), **fields)
        return self.ask(caller, abi.HYPERCALL_DOM0KIT, command, layout(type).build(argument))

    # ---- Redirection entries ----

    @rule(caller=callers, address=addresses, register=registers)
    def apic_read(self, caller: int, address: int, register: int) -> None:
        self.physdev(caller, Physdev.APIC_READ, abi.Apic(apic_physbase=address, reg=register))

    @rule(caller=callers, address=addresses, register=registers, value=st.integers(0, 0xFFFFFFFF))
    def apic_write(self, caller: int, address: int, register: int, value: int) -> None:
        self.physdev(caller, Physdev.APIC_WRITE, abi.Apic(apic_physbase=address, reg=register, value=value))

    @rule(caller=callers, place=places, low=low_words)
    def write_low(self, caller: int, place: Place, low: int) -> None:
        self.apic_write(caller, place[0], 0x10 + 2 * place[1], low)

    @rule(caller=callers, place=places, high=high_words)
    def write_high(self, caller: int, place: Place, high: int) -> None:
        self.apic_write(caller, place[0], 0x11 + 2 * place[1], high)

    def owner(self, place: Place) -> int:
        pins = self.model.ioapics.get(place[0], [])
        return pins[place[1]].domain if place[1] < len(pins) else 0

    @rule(place=pins, low=low_words, high=high_words)
    def open_pin(self, place: Place, low: int, high: int) -> None:
        """A driver's way: the high word, then the low one, unmasked."""
        self.write_high(self.owner(place), place, high)
        self.write_low(self.owner(place), place, low & ~MASKED)

    @rule(place=pins, vector=vectors, level=st.booleans(), cpu=processors)
    def open_pin_well(self, place: Place, vector: int, level: bool, cpu: int) -> None:
        apic_id = self.model.apic_ids[cpu % len(self.model.apic_ids)]
        self.write_high(self.owner(place), place, (apic_id & 0xFF) << 24 | (apic_id >> 8 & 0x7F) << 17)
        self.write_low(self.owner(place), place, max(vector, 0x10) | level << 15)

    @rule(place=st.one_of(pins, open_pins), masked=st.booleans())
    def mask_pin(self, place: Place, masked: bool) -> None:
        pins = self.model.ioapics.get(place[0], [])
        if place[1] < len(pins):
            view = pins[place[1]].view
            self.write_low(self.owner(place), place, view & 0xFFFFFFFF & ~MASKED | MASKED * masked)

    @rule(place=open_pins, bit=st.one_of(st.integers(0, 16), st.integers(0, 63)))
    def change_one_bit(self, place: Place, bit: int) -> None:
        pins = self.model.ioapics.get(place[0], [])
        if place[1] < len(pins):
            changed = pins[place[1]].view ^ 1 << bit
            if bit < 32:
                self.write_low(self.owner(place), place, changed & 0xFFFFFFFF)
            else:
                self.write_high(self.owner(place), place, changed >> 32)

    @rule(caller=callers, read=st.booleans(), place=places, high=st.booleans(), value=low_words)
    def trap(self, caller: int, read: bool, place: Place, high: bool, value: int) -> None:
        """The same registers, by access instead of call."""
        register = 0x10 + 2 * place[1] + high
        before = self.readings
        self.real.log()
        self.eye.forget()
        if read:
            status, got = self.real.trapped_read(caller, place[0], register)
        else:
            status, got = self.real.trapped_write(caller, place[0], register, value), value
        log = self.real.log()
        expected, wanted = self.model.trap(caller, read, place[0], register, value, status, self.eye)
        assert status is expected
        assert status is not Status.OK or got == wanted
        self.read()
        invariants.check_order(log, before.entries, status)
        self.check()

    # ---- GSIs, pIRQs, vectors ----

    @rule(caller=callers, irq=irqs)
    def alloc_irq_vector(self, caller: int, irq: int) -> None:
        self.physdev(caller, Physdev.ALLOC_IRQ_VECTOR, abi.AllocIrqVector(irq=irq))

    @rule(caller=callers, irq=irqs)
    def irq_status_query(self, caller: int, irq: int) -> None:
        self.physdev(caller, Physdev.IRQ_STATUS_QUERY, abi.IrqStatusQuery(irq=irq))

    @rule(caller=callers, irq=irqs)
    def eoi(self, caller: int, irq: int) -> None:
        self.physdev(caller, Physdev.EOI, abi.Eoi(irq=irq))

    @rule(caller=callers, gsi=st.one_of(gsis, st.just(-1)), triggering=st.sampled_from([0, 1, 1, 2]),
          polarity=st.sampled_from([0, 1, 1, 2]))  # fmt: skip
    def setup_gsi(self, caller: int, gsi: int, triggering: int, polarity: int) -> None:
        argument = abi.SetupGsi(gsi=gsi, triggering=triggering, polarity=polarity)
        self.physdev(caller, Physdev.SETUP_GSI, argument)

    @rule(caller=callers, domain=domains, gsi=gsis, pirq=pirqs)
    def map_gsi(self, caller: int, domain: int, gsi: int, pirq: int) -> None:
        self.map(caller, domain, type=MapPirq.GSI, index=gsi, pirq=pirq)

    @rule(caller=callers, domain=domains, pirq=pirqs)
    def unmap_pirq(self, caller: int, domain: int, pirq: int) -> None:
        self.physdev(caller, Physdev.UNMAP_PIRQ, abi.UnmapPirq(domid=domain & 0xFFFF, pirq=min(pirq, (1 << 31) - 1)))

    @rule(caller=callers, type=st.integers(-1, 5))
    def get_free_pirq(self, caller: int, type: int) -> None:
        self.physdev(caller, Physdev.GET_FREE_PIRQ, abi.GetFreePirq(type=type))

    @rule(caller=callers, domain=domains, irq=irqs)
    def query_vector(self, caller: int, domain: int, irq: int) -> None:
        self.own(caller, Op.QUERY_VECTOR, domain=domain, irq=irq)

    @rule(caller=callers, domain=domains, irq=irqs, cpu=processors)
    def set_affinity(self, caller: int, domain: int, irq: int, cpu: int) -> None:
        self.own(caller, Op.SET_AFFINITY, domain=domain, irq=irq, cpu=cpu)

    @rule(caller=callers, domain=domains, cursor=st.sampled_from([0, 0, 1, 200, 500, 40000, 1 << 31, abi.NONE - 1]))
    def read_interrupt(self, caller: int, domain: int, cursor: int) -> None:
        self.own(caller, Op.READ_INTERRUPT, domain=domain, cursor=cursor)

    @precondition(lambda self: len(self.model.gsis) > 200 and not self.crowded)
    @rule(left=st.integers(0, 3), holes=st.sets(st.integers(0, 206), max_size=24), count=st.sampled_from([1, 2, 4]))
    def nearly_every_vector_is_taken(self, left: int, holes: set[int], count: int) -> None:
        """All but a few pins of a large machine get a vector, some give theirs back, and a device wants a run."""
        self.crowded = True
        free = [pin for pin in self.model.gsis.values() if not pin.in_use and pin.bound is None]
        crowd = free[: 207 - left - len(self.model.vectors)]
        for number, pin in enumerate(crowd):
            if self.model.mode is Mode.INTERCEPT:
                self.quick(abi.HYPERCALL_PHYSDEV, Physdev.ALLOC_IRQ_VECTOR, abi.AllocIrqVector(irq=pin.gsi))
            else:
                self.quick_write(pin, 0x20 + number)
        for number in holes & set(range(len(crowd))):
            if self.model.mode is Mode.INTERCEPT:
                pirq = self.model.lowest_pirq(0, MapPirq.GSI, 1)
                given = abi.MapPirqArgument(domid=abi.DOMID_SELF, type=MapPirq.GSI, index=crowd[number].gsi, pirq=pirq,
                                            bus=0, devfn=0, entry_nr=0, table_base=0)  # fmt: skip
                self.quick(abi.HYPERCALL_PHYSDEV, Physdev.MAP_PIRQ, given)
                unmap = abi.UnmapPirq(domid=abi.DOMID_SELF, pirq=pirq)
                self.quick(abi.HYPERCALL_PHYSDEV, Physdev.UNMAP_PIRQ, unmap)
            else:
                self.quick_write(crowd[number], MASKED)
        self.read()
        self.check()
        self.domain_with_a_device(0, abi.PciDevice(seg=0, bus=0, devfn=9), count, False)

    def quick_write(self, pin: Pin, low: int) -> None:
        write = abi.Apic(apic_physbase=pin.place[0], reg=0x10 + 2 * pin.place[1], value=low)
        self.quick(abi.HYPERCALL_PHYSDEV, Physdev.APIC_WRITE, write)

    def quick(self, number: int, command: int, argument: Record) -> None:
        """A call of domain 0 of which only the answer is looked at."""
        data = layout(type(argument)).build(argument)
        self.eye.forget()
        got = self.reader.call(0, number, command, data)
        assert got == self.model.call(0, number, command, data, got, self.eye)

    # ---- Messages ----

    def map(
        self, caller: int, domain: int, *, type: int, pirq: int, index: int = -1, bus: int = 0, devfn: int = 0,
        entry: int = 0, table: int = 0,
    ) -> Status:  # fmt: skip
        argument = abi.MapPirqArgument(
            domid=domain & 0xFFFF, type=type, index=index, pirq=min(pirq, (1 << 31) - 1),
            bus=bus - (bus >> 31 << 32), devfn=devfn, entry_nr=entry, table_base=table,
        )  # fmt: skip
        return self.physdev(caller, Physdev.MAP_PIRQ, argument)

    @rule(caller=callers, domain=domains, device=devices, pirq=pirqs,
          count=st.sampled_from([1, 2, 4, 32, 3, 64, 0, -1]))  # fmt: skip
    def map_multi_msi(self, caller: int, domain: int, device: abi.PciDevice, pirq: int, count: int) -> None:
        bus = device.seg << 16 | device.bus
        self.map(caller, domain, type=MapPirq.MULTI_MSI, pirq=pirq, bus=bus, devfn=device.devfn, entry=count)

    @rule(caller=callers, domain=domains, device=devices, pirq=pirqs, type=st.sampled_from([0, 3, 3, 3, 2, 5]),
          entry=st.sampled_from([0, 0, 0, 1, 2, 2047, 2048, -1]), table=st.sampled_from([0, 0xF0000000, 0xF0000000]),
          bus=st.sampled_from([0, 0, 0, 0, 0x100]), devfn=st.sampled_from([0, 0, 0, 0, 256]))  # fmt: skip
    def map_msi(
        self, caller: int, domain: int, device: abi.PciDevice, pirq: int, type: int, entry: int, table: int, bus: int,
        devfn: int,
    ) -> None:  # fmt: skip
        bus |= device.seg << 16 | device.bus
        self.map(caller, domain, type=type, pirq=pirq, bus=bus, devfn=device.devfn | devfn, entry=entry, table=table)

    @rule(caller=callers, domain=domains, irq=st.one_of(irqs, messages))
    def msi_read(self, caller: int, domain: int, irq: int) -> None:
        self.own(caller, Op.MSI_READ, domain=domain, irq=irq)

    @rule(caller=callers, domain=domains, irq=st.one_of(irqs, messages, messages), words=message_words)
    def msi_write(self, caller: int, domain: int, irq: int, words: tuple[int, int]) -> None:
        self.own(caller, Op.MSI_WRITE, domain=domain, irq=irq, address=words[0], data=words[1])

    # ---- Devices, domains ----

    @rule(caller=callers, address=st.sampled_from([0xE0000000, 0xD0000000, 0]), segment=st.integers(0, 1),
          first=st.sampled_from([0, 0x10, 0x1F, 0x80]), last=st.sampled_from([0x10, 0x1F, 0x7F, 0xFF]),
          flags=st.sampled_from([0, 1, 2]))  # fmt: skip
    def pci_mmcfg_reserved(self, caller: int, address: int, segment: int, first: int, last: int, flags: int) -> None:
        argument = abi.PciMmcfgReserved(address=address, segment=segment, start_bus=first, end_bus=last, flags=flags)
        self.physdev(caller, Physdev.PCI_MMCFG_RESERVED, argument)

    @rule(caller=callers, device=devices, flags=st.sampled_from([0, 0, 0, 1, 2, 2, 4, 6, 8]),
          physical=st.integers(0, 3), pxm=st.integers(0, 1))  # fmt: skip
    def pci_device_add(self, caller: int, device: abi.PciDevice, flags: int, physical: int, pxm: int) -> None:
        added = abi.PciDeviceAdd(seg=device.seg, bus=device.bus, devfn=device.devfn, flags=flags, physfn_devfn=physical)
        self.physdev(caller, Physdev.PCI_DEVICE_ADD, abi.PciDeviceAddPxm(device=added, pxm=pxm))

    @rule(caller=callers, device=devices)
    def pci_device_remove(self, caller: int, device: abi.PciDevice) -> None:
        self.physdev(caller, Physdev.PCI_DEVICE_REMOVE, device)

    @rule(caller=callers, device=devices, flags=st.sampled_from([0, 3, 4]))
    def pci_device_reset(self, caller: int, device: abi.PciDevice, flags: int) -> None:
        self.physdev(caller, Physdev.PCI_DEVICE_RESET, abi.PciDeviceReset(dev=device, flags=flags))

    @rule(caller=callers, domain=st.sampled_from([0, 1, 1, 2, 2, 3, 4, 15, 16, abi.DOMAIN_ANY, abi.DOMAIN_ANY]),
          most=st.sampled_from([0, 0, 1, 2, 4]))  # fmt: skip
    def domain_create(self, caller: int, domain: int, most: int) -> None:
        self.own(caller, Op.DOMAIN_CREATE, domain=domain, vectors=most)

    @rule(caller=callers, domain=domains)
    def domain_destroy(self, caller: int, domain: int) -> None:
        self.own(caller, Op.DOMAIN_DESTROY, domain=domain)

    @rule(caller=callers, domain=domains, device=devices, op=st.sampled_from([Op.ASSIGN_DEVICE, Op.RELEASE_DEVICE]))
    def assign_device(self, caller: int, domain: int, device: abi.PciDevice, op: Op) -> None:
        self.own(caller, op, domain=domain, device=device)

    @rule(caller=callers, domain=domains, gsi=gsis, op=st.sampled_from([Op.ASSIGN_GSI, Op.ASSIGN_GSI, Op.RELEASE_GSI]))
    def assign_gsi(self, caller: int, domain: int, gsi: int, op: Op) -> None:
        self.own(caller, op, domain=domain, gsi=gsi)

    @rule(domain=st.integers(1, 2), gsi=gsis, most=st.sampled_from([0, 1, 2]), level=st.booleans(), cpu=processors)
    def domain_with_a_line(self, domain: int, gsi: int, most: int, level: bool, cpu: int) -> None:
        """All that it takes for a domain to have an interrupt."""
        if domain not in self.model.domains:
            self.domain_create(0, domain, most)
        pin = self.model.gsis.get(gsi)
        if pin is None or pin.domain not in (0, domain):
            return
        if pin.domain == 0:
            self.assign_gsi(0, domain, gsi, Op.ASSIGN_GSI)
        self.map_gsi(domain, abi.DOMID_SELF, gsi, -1)
        self.setup_gsi(domain, gsi, int(level), int(level))
        self.open_pin_well(pin.place, 0x31, level, cpu)

    @rule(domain=st.integers(0, 1), device=devices, count=st.sampled_from([1, 2, 4, 32]), msix=st.booleans())
    def domain_with_a_device(self, domain: int, device: abi.PciDevice, count: int, msix: bool) -> None:
        self.pci_device_add(0, device, 0, 0, 0)
        if domain:
            if domain not in self.model.domains:
                self.domain_create(0, domain, 0)
            self.assign_device(0, domain, device, Op.ASSIGN_DEVICE)
        if msix:
            for entry in range(min(count, 4)):
                self.map_msi(0, domain, device, -1, 3, entry, 0xF0000000, 0, 0)
        else:
            self.map_multi_msi(0, domain, device, -1, count)

    # ---- The machine ----

    @rule(caller=callers, address=addresses, base=of_machine(
        lambda machine: [0, 40, 64, machine.model.gsi_end, machine.model.limits.gsis - 3, abi.NONE]))  # fmt: skip
    def ioapic_add(self, caller: int, address: int, base: int) -> None:
        self.own(caller, Op.IOAPIC_ADD, address=address, gsi_base=base)

    @rule(caller=callers, address=addresses)
    def ioapic_remove(self, caller: int, address: int) -> None:
        self.own(caller, Op.IOAPIC_REMOVE, address=address)

    @rule(caller=callers, at=st.sampled_from([0, 0x1000, 0x1001, 0x1800, (1 << 52) - 8192, (1 << 52) - 4096, 1 << 63]))
    def map_shared_info(self, caller: int, at: int) -> None:
        self.own(caller, Op.MAP_SHARED_INFO, guest_physical=at)

    @rule(caller=callers, other=st.booleans(),
          wrong=st.sampled_from([(0, 0, 0)] * 2 + [(16, 0, 0), (0, 16, 0), (0, 0, 2)]))  # fmt: skip
    def hand_over(self, caller: int, other: bool, wrong: tuple[int, int, int]) -> None:
        firmware = self.model.firmware
        rsdp, xsdt = min(firmware.others) if other else (firmware.rsdp, firmware.xsdt)
        counter = self.model.counter + wrong[2]
        self.own(caller, Op.HAND_OVER, rsdp=rsdp + wrong[0], xsdt=xsdt + wrong[1], counter=counter)

    @rule(caller=callers)
    def information(self, caller: int) -> None:
        self.own(caller, Op.INFORMATION)

    @rule(caller=callers, index=st.sampled_from([0, 1, 2, 8, 1 << 31]))
    def read_report(self, caller: int, index: int) -> None:
        self.own(caller, Op.READ_REPORT, index=index)

    # ---- What is not quite a call ----

    @rule(caller=callers, number=st.sampled_from([0, 32, 33, 34, 0xD0]), command=st.integers(0, 40),
          data=st.binary(max_size=130), short=st.booleans())  # fmt: skip
    def random_bytes(self, caller: int, number: int, command: int, data: bytes, short: bool) -> None:
        record = abi.ARGUMENTS.get((number, command))
        size = 0 if record is None else layout(record).size
        self.ask(caller, number, command, data if short else (data + bytes(size))[: max(size, 1)])

    @rule(place=st.integers(0, 127), bit=st.integers(0, 7))
    def the_last_call_with_one_bit_changed(self, place: int, bit: int) -> None:
        caller, number, command, data = self.last
        if data:
            changed = bytearray(data)
            changed[place % len(data)] ^= 1 << bit
            self.ask(caller, number, command, bytes(changed))

    @rule(caller=callers)
    def the_last_call_again(self, caller: int) -> None:
        self.ask(caller, *self.last[1:])

    @rule(caller=callers, command=st.sampled_from(list(Op)), place=st.integers(0, 7), bit=st.integers(0, 7))
    def bad_header(self, caller: int, command: Op, place: int, bit: int) -> None:
        size = layout(abi.ARGUMENTS[abi.HYPERCALL_DOM0KIT, command]).size
        data = bytearray(b"\1\0" + size.to_bytes(2, "little") + bytes(size - 4))
        data[place] ^= 1 << bit
        self.ask(caller, abi.HYPERCALL_DOM0KIT, command, bytes(data))

    # ---- Interrupts come ----

    @rule(place=st.one_of(pins, open_pins, open_pins), high=st.booleans())
    def line(self, place: Place, high: bool) -> None:
        if place[0] in self.model.ioapics:
            self.real.line(*place, high)
            self.model.line(place, high)
            self.read()
            self.check()

    @rule(cpu=st.one_of(busy_processors, busy_processors, processors))
    def take(self, cpu: int) -> None:
        if cpu >= len(self.model.apic_ids):
            assert self.real.take(cpu) is None
            return
        got, expected = self.real.take(cpu), self.model.take(cpu)
        if expected is None:
            assert got is None
            return
        vector, source = expected
        if source is None:
            assert got is not None
            assert (got.vector, got.status) == (vector, Status.NOT_FOUND)
        elif isinstance(source, Pin):
            assert got == Arrival(
                vector, Status.OK, source.domain, source.pirq, source.gsi, source.view & 0xFF, source.level
            )
        else:
            assert got == Arrival(vector, Status.OK, source.domain, source.pirq, None, vector, False)
        Figures.arrivals += 1
        self.read()
        self.check()

    @rule(cpu=st.one_of(busy_processors, busy_processors, processors))
    def end(self, cpu: int) -> None:
        if cpu >= len(self.model.apic_ids):
            assert self.real.end(cpu) is None
            return
        entries = self.readings.entries
        got = self.real.end(cpu)
        self.read()
        assert got == self.model.end(cpu, entries)
        if self.model.entry_format is Format.AMD_VI:
            # Which entry an EOI means, the remapper knows alone.
            self.model.remote_irr = {place for place in self.places if self.readings.entries[place] & 1 << 14}
        self.check()

    @rule(place=open_pins, cpu=processors)
    def raise_take_and_end(self, place: Place, cpu: int) -> None:
        """One interrupt's whole way, before and after a move."""
        pin = self.model.ioapics[place[0]][place[1]] if place[0] in self.model.ioapics else None
        if pin is None or pin.masked:
            return
        self.line(place, False)
        self.line(place, True)
        target = self.model.target(pin)
        self.set_affinity(pin.domain, abi.DOMID_SELF, pin.gsi if pin.pirq is None else pin.pirq, cpu)
        if target is not None:
            self.take(target[0])
            self.end(target[0])
        self.line(place, False)

    def words(self, message: Message) -> tuple[int, int] | None:
        """Address and data that msi_read gives for a message."""
        msi = abi.Msi(header=abi.Header(version=1, bytes=32), domain=message.domain, irq=message.pirq)
        status, answer = self.reader.call(0, abi.HYPERCALL_DOM0KIT, Op.MSI_READ, layout(abi.Msi).build(msi))
        address, data = struct.unpack_from("<QI", answer, 16)
        return (address, data) if status is Status.OK else None

    def handle(self, words: tuple[int, int]) -> int | None:
        """The place in VT-d's table that a message names; None when it is not remapped."""
        address, data = words
        if self.model.message_format is not Format.VTD or not address & 16:
            return None
        return (address >> 5 & 0x7FFF) + (address >> 2 & 1) * 0x8000 + (data & 0xFFFF if address & 8 else 0)

    # AMD-Vi's table is each function's own, which the modelled machine does not have.
    @precondition(lambda self: bool(self.model.messages) and self.model.message_format is not Format.AMD_VI)
    @rule(place=st.integers(0, 63))
    def send(self, place: int) -> None:
        """A device sends what msi_read says."""
        message = self.model.messages[place % len(self.model.messages)]
        words = self.words(message)
        if words is not None:
            self.sent.append(words)
            arrives = self.model.sent(message)
            status = self.real.message(*words, self.handle(words) or 0)
            assert (status is Status.OK) == arrives, f"{message} was {status.name}"
            self.read()
            self.check()

    @precondition(lambda self: bool(self.sent) and self.model.mode is Mode.INTERCEPT)
    @rule(place=st.integers(0, 63))
    def send_again(self, place: int) -> None:
        """What msi_read once said reaches, through a remapper, the message that has its place now, or nobody."""
        words = self.sent[place % len(self.sent)]
        handle = self.handle(words)
        if handle is None:
            return
        now = [each for each in self.model.messages if self.handle(self.words(each) or (0, 0)) == handle]
        arrives = any(self.model.sent(each) for each in now)
        assert (self.real.message(*words, handle) is Status.OK) == arrives
        self.read()
        self.check()


@pytest.fixture(scope="module", autouse=True)
def _figures(request: pytest.FixtureRequest) -> Iterator[None]:
    """Says at the end how much was run."""
    start = time.monotonic()
    yield
    said = (
        f"hv_core against its model: {Figures.steps} steps with {Figures.calls} calls, {Figures.refused} of them "
        f"refused, and {Figures.arrivals} interrupts taken, in {time.monotonic() - start:.0f} s"
    )
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(f"\n{said}", file=sys.stderr)


def run(shape: Machine, large: bool, examples: int) -> None:
    """Runs the state machine on machines of one shape."""
    machine = type("StateMachine", (StateMachine,), {"shape": shape, "large": large})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples * 20 if LONG else examples,
            stateful_step_count=50,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("name", SHAPES)
def test_the_core_does_what_the_specification_says(name: str) -> None:
    run(SHAPES[name], False, 30)


@pytest.mark.parametrize("name", LARGE)
def test_with_large_limits(name: str) -> None:
    run(LARGE[name], True, 10)
