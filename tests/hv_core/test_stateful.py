# SPDX-License-Identifier: MIT
"""Random hypercalls of several domains, to the core and to the specification's model: same answers, invariants held.

After every step: no two programmed interrupts share a (processor, vector) pair and none is an SMI, NMI, INIT or ExtINT
(invariant 2); the core lists to a domain what is its own, and nothing else (3); the writes to each IOAPIC came in an
order that never lets a half-written entry act (4); a refused call left everything as it was.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dom0kit import abi
from dom0kit.abi import Feature, Format, Mode, Op, Physdev, Status
from dom0kit.hypercall.core_library import Access
from dom0kit.layout import Record, layout
from tests.hv_core.machines import FIRST, SECOND, SPARE, pair, small
from tests.hv_core.model import LEVEL, MASKED, STATUS_BITS, Binding, Message, Pin

LONG = "DOM0KIT_LONG" in os.environ
SHAPES: list[dict[str, Any]] = [
    {},
    {"mode": Mode.DIRECT},
    {"apic_ids": (0,), "pins": (4,), "bases": (0,)},
    {"apic_ids": (0, 1, 0x200), "entry_format": Format.VTD, "message_format": Format.VTD},
    {"mode": Mode.DIRECT, "entry_format": Format.VTD, "message_format": Format.VTD},
    {"apic_ids": (0, 5, 0x1234), "entry_format": Format.EXTENDED_DESTINATION,
     "message_format": Format.EXTENDED_DESTINATION},
    {"mode": Mode.DIRECT, "entry_format": Format.AMD_VI, "message_format": Format.AMD_VI},
    {"entry_format": Format.AMD_VI, "message_format": Format.AMD_VI},
    {"apic_ids": (0, 0x100), "pins": (120, 1), "bases": (0, 1000)},
    {"apic_ids": (0, 1, 0x7FFF), "mode": Mode.DIRECT, "entry_format": Format.EXTENDED_DESTINATION,
     "message_format": Format.EXTENDED_DESTINATION},
]  # fmt: skip

callers = st.sampled_from([0, 0, 0, 0, 1, 1, 2, 5, 99])
domains = st.sampled_from([abi.DOMID_SELF, abi.DOMID_SELF, 0, 1, 2, 3, 0xFFFF, 1 << 31])
gsis = st.one_of(st.integers(0, 3), st.integers(0, 3), st.sampled_from([23, 24, 32, 39, 40, 64, 1000, 1 << 30]))
irqs = st.one_of(st.integers(0, 3), st.integers(14, 18), st.integers(38, 46), st.sampled_from([127, 128, abi.NONE]))
pins = st.one_of(st.integers(0, 2), st.integers(0, 8))
addresses = st.sampled_from([FIRST, FIRST, FIRST, SECOND, SECOND, SPARE, 0, FIRST + 16, (1 << 52)])
registers = st.one_of(st.integers(0x10, 0x30), st.integers(0, 0xFF), st.sampled_from([0x100, 0x10010]))
functions = st.builds(
    lambda segment, bus, devfn: abi.PciDevice(seg=segment, bus=bus, devfn=devfn),
    st.sampled_from([0, 0, 0, 1]),
    st.sampled_from([0, 1]),
    st.integers(0, 2),
)
apic_destinations = st.sampled_from([0, 1, 2, 4, 5, 7, 0xFF, 0x34, 3])
low_words = st.builds(
    lambda vector, mode, logical, low, level, masked, odd: (
        vector | mode << 8 | logical << 11 | low << 13 | level << 15 | masked << 16 | odd
    ),
    st.sampled_from([0, 0x0F, 0x10, 0x20, 0x31, 0x31, 0x32, 0x41, 0x80, 0xEF, 0xFE, 0xFF]),
    st.sampled_from([0, 0, 0, 0, 0, 1, 1, 2, 4, 7]),
    st.sampled_from([0, 0, 0, 1]),
    st.integers(0, 1),
    st.integers(0, 1),
    st.sampled_from([0, 0, 1]),
    st.sampled_from([0, 0, 0, 0, 0, 0, 1 << 12, 1 << 14, 1 << 17, 1 << 31]),
)
high_words = st.one_of(
    apic_destinations.map(lambda destination: destination << 24),
    st.builds(
        lambda destination, odd: destination << 24 | odd, apic_destinations, st.sampled_from([1 << 16, 3 << 17, 1])
    ),
    st.integers(0, 0xFFFFFFFF),
)
message_addresses = st.one_of(
    st.builds(
        lambda destination, odd: 0xFEE00000 | destination << 12 | odd,
        apic_destinations,
        st.sampled_from([0, 0, 0, 4, 8, 0x10, 0x14, 0x20, 0x480, 1, 0x100000000]),
    ),
    st.integers(0, (1 << 64) - 1),
)
message_data = st.one_of(st.sampled_from([0x31, 0x32, 0x131, 0x4041, 0x8031, 0x831]), st.integers(0, 0xFFFFFFFF))


class Eye:
    """What the model may look at: the hardware before the call, the core's own listing after it."""

    def __init__(self, machine: StateMachine) -> None:
        self._machine = machine
        self.low_words: dict[tuple[int, int], int] = {}
        self._bound: dict[Any, Binding | None] | None = None

    def before_call(self) -> None:
        real, model = self._machine.real, self._machine.model
        self._bound = None
        self.low_words = {
            (address, 0x10 + 2 * pin.number): real.register(address, 0x10 + 2 * pin.number) or 0
            for address, pins in model.ioapics.items()
            for pin in pins
        }

    def remote_irr(self, address: int, pin: int) -> bool:
        return bool(self.low_words[address, 0x10 + 2 * pin] & 1 << 14)

    def status_bits(self, address: int, pin: int) -> int:
        return self.low_words[address, 0x10 + 2 * pin] & STATUS_BITS

    def register(self, address: int, index: int) -> int:
        return self._machine.real.register(address, index) or 0

    def bound(self, source: Pin | Message) -> Binding | None:
        if self._bound is None:
            self._bound = self._machine.listing_by_name()
        name = source.gsi if isinstance(source, Pin) else (source.domain, source.pirq)
        return self._bound.get(name)


class StateMachine(RuleBasedStateMachine):
    """One machine and its model."""

    @initialize(shape=st.sampled_from(SHAPES))
    def start(self, shape: dict[str, Any]) -> None:
        self.real, self.model = pair(library=small(), **shape)
        self.eye = Eye(self)
        self.real.log()

    # ---- Reading the core ----

    def listing(self, domain: int) -> dict[Any, tuple[Any, ...]]:
        """What the core lists to a domain: by GSI, or by (domain, pIRQ) for a message."""
        found = {}
        for each in self.real.domain(domain).interrupts():
            name = each.gsi if each.gsi is not None else (domain, each.pirq)
            device = None if each.function is None else (each.function.segment << 16 | each.function.requester_id)
            found[name] = (each.pirq, device, each.entry, each.cpu, each.vector, each.flags)
        return found

    def listing_by_name(self) -> dict[Any, Binding | None]:
        found: dict[Any, Binding | None] = {}
        for domain in self.model.domains:
            for name, (_, _, _, cpu, vector, _) in self.listing(domain).items():
                found[name] = None if cpu is None or vector is None else (cpu, vector)
        return found

    # ---- Calls ----

    def ask(self, caller: int, number: int, command: int, data: bytes) -> None:
        before = self.real.digest()
        self.eye.before_call()
        self.real.log()
        status, answer = self.real.call(caller, number, command, data)
        log = self.real.log()
        expected, wanted = self.model.call(caller, number, command, data, status, self.eye)
        assert status is expected, f"the core says {status.name}, the model {expected.name}"
        if wanted is not None:
            assert answer == wanted
        check_order(log, self.eye.low_words, status)
        if status is not Status.OK:
            assert self.real.digest() == before, "a refused call changed something"

    def physdev(self, caller: int, command: Physdev, argument: Record) -> None:
        self.ask(caller, abi.HYPERCALL_PHYSDEV, command, layout(type(argument)).build(argument))

    def own(self, caller: int, command: Op, **fields: Any) -> None:
        type = abi.ARGUMENTS[abi.HYPERCALL_DOM0KIT, command]
        argument = type(header=abi.Header(version=1, bytes=layout(type).size), **fields)
        self.ask(caller, abi.HYPERCALL_DOM0KIT, command, layout(type).build(argument))

    @rule(caller=callers, address=addresses, register=registers)
    def apic_read(self, caller: int, address: int, register: int) -> None:
        self.physdev(caller, Physdev.APIC_READ, abi.Apic(apic_physbase=address, reg=register))

    @rule(caller=callers, address=addresses, register=registers, value=st.integers(0, 0xFFFFFFFF))
    def apic_write_anything(self, caller: int, address: int, register: int, value: int) -> None:
        self.physdev(caller, Physdev.APIC_WRITE, abi.Apic(apic_physbase=address, reg=register, value=value))

    @rule(caller=callers, address=addresses, pin=pins, value=low_words)
    def apic_write_low(self, caller: int, address: int, pin: int, value: int) -> None:
        self.physdev(caller, Physdev.APIC_WRITE, abi.Apic(apic_physbase=address, reg=0x10 + 2 * pin, value=value))

    @rule(caller=callers, address=addresses, pin=pins, value=high_words)
    def apic_write_high(self, caller: int, address: int, pin: int, value: int) -> None:
        self.physdev(caller, Physdev.APIC_WRITE, abi.Apic(apic_physbase=address, reg=0x11 + 2 * pin, value=value))

    @rule(pin=pins, destination=st.sampled_from([0, 2, 4, 5]), level=st.booleans(),
          vector=st.sampled_from([0x31, 0x32]))  # fmt: skip
    def open_a_pin(self, pin: int, destination: int, level: bool, vector: int) -> None:
        self.apic_write_high(0, FIRST, pin, destination << 24)
        self.apic_write_low(0, FIRST, pin, vector | level << 15)

    @rule(pin=st.integers(0, 2), other=st.integers(0, 2), low=low_words, high=high_words)
    def two_pins_alike(self, pin: int, other: int, low: int, high: int) -> None:
        for each in (pin, other):
            self.apic_write_high(0, FIRST, each, high)
            self.apic_write_low(0, FIRST, each, low & ~MASKED)

    @rule(device=functions, count=st.sampled_from([1, 1, 2, 4]), msix=st.booleans(), domain=st.integers(0, 1))
    def device_with_messages(self, device: abi.PciDevice, count: int, msix: bool, domain: int) -> None:
        self.pci_device_add(0, device, 0, 0, 0)
        if domain:
            self.domain_create(0, domain, 0)
            self.assign_device(0, domain, device, Op.ASSIGN_DEVICE)
        if msix:
            for entry in range(count):
                self.map_msi(0, domain, device, -1, entry, 0xF0000000, 3)
        else:
            self.map_multi_msi(0, domain, device, -1, count)

    @rule(domain=st.integers(1, 2), gsi=st.integers(0, 3), vectors=st.sampled_from([0, 1, 2]), level=st.integers(0, 1))
    def domain_with_a_line(self, domain: int, gsi: int, vectors: int, level: int) -> None:
        self.domain_create(0, domain, vectors)
        self.assign_gsi(0, domain, gsi, Op.ASSIGN_GSI)
        self.setup_gsi(domain, gsi, level, 0)
        self.map_gsi(domain, abi.DOMID_SELF, gsi, gsi)
        self.apic_write_low(domain, FIRST, gsi, 0x31 | level << 15)

    @rule(irq=st.one_of(st.integers(0, 2), st.integers(38, 42)), cpu=st.integers(0, 2), high=st.booleans())
    def move_and_raise(self, irq: int, cpu: int, high: bool) -> None:
        self.set_affinity(0, abi.DOMID_SELF, irq, cpu)
        if irq < 3:
            self.line(irq, FIRST, high)
        self.take(cpu)

    @rule(caller=callers, irq=irqs)
    def alloc_irq_vector(self, caller: int, irq: int) -> None:
        self.physdev(caller, Physdev.ALLOC_IRQ_VECTOR, abi.AllocIrqVector(irq=irq))

    @rule(caller=callers, irq=irqs)
    def irq_status_query(self, caller: int, irq: int) -> None:
        self.physdev(caller, Physdev.IRQ_STATUS_QUERY, abi.IrqStatusQuery(irq=irq))

    @rule(caller=callers, irq=irqs)
    def eoi(self, caller: int, irq: int) -> None:
        self.physdev(caller, Physdev.EOI, abi.Eoi(irq=irq))

    @rule(caller=callers, domain=domains, gsi=gsis, pirq=st.one_of(st.just(-1), irqs))
    def map_gsi(self, caller: int, domain: int, gsi: int, pirq: int) -> None:
        self.map(caller, domain, type=1, index=gsi, pirq=pirq)

    @rule(caller=callers, domain=domains, device=functions, pirq=st.one_of(st.just(-1), st.just(-1), irqs),
          count=st.sampled_from([1, 2, 4, 8, 32, 3, 64, -1]))  # fmt: skip
    def map_multi_msi(self, caller: int, domain: int, device: abi.PciDevice, pirq: int, count: int) -> None:
        self.map(caller, domain, type=4, pirq=pirq, bus=device.seg << 16 | device.bus, devfn=device.devfn, entry=count)

    @rule(caller=callers, domain=domains, device=functions, pirq=st.one_of(st.just(-1), st.just(-1), irqs),
          entry=st.sampled_from([0, 0, 1, 2, 2047, 2048, -1]), table=st.sampled_from([0, 0, 0xF0000000, 0xF0000000]),
          type=st.sampled_from([0, 3, 3, 3, 2]))  # fmt: skip
    def map_msi(
        self, caller: int, domain: int, device: abi.PciDevice, pirq: int, entry: int, table: int, type: int
    ) -> None:
        bus = device.seg << 16 | device.bus
        self.map(caller, domain, type=type, pirq=pirq, bus=bus, devfn=device.devfn, entry=entry, table=table)

    def map(
        self, caller: int, domain: int, *, type: int, pirq: int, index: int = -1, bus: int = 0, devfn: int = 0,
        entry: int = 0, table: int = 0,
    ) -> None:  # fmt: skip
        argument = abi.MapPirqArgument(
            domid=domain & 0xFFFF, type=type, index=index, pirq=pirq if pirq < 1 << 31 else -2, bus=bus, devfn=devfn,
            entry_nr=entry, table_base=table,
        )  # fmt: skip
        self.physdev(caller, Physdev.MAP_PIRQ, argument)

    @rule(caller=callers, domain=domains, pirq=st.one_of(st.just(-1), irqs))
    def unmap_pirq(self, caller: int, domain: int, pirq: int) -> None:
        pirq = pirq if pirq < 1 << 31 else -2
        self.physdev(caller, Physdev.UNMAP_PIRQ, abi.UnmapPirq(domid=domain & 0xFFFF, pirq=pirq))

    @rule(caller=callers, gsi=st.one_of(gsis, st.just(-1)), triggering=st.sampled_from([0, 1, 1, 2]),
          polarity=st.sampled_from([0, 1, 2]))  # fmt: skip
    def setup_gsi(self, caller: int, gsi: int, triggering: int, polarity: int) -> None:
        argument = abi.SetupGsi(gsi=gsi, triggering=triggering, polarity=polarity)
        self.physdev(caller, Physdev.SETUP_GSI, argument)

    @rule(caller=callers, type=st.integers(-1, 5))
    def get_free_pirq(self, caller: int, type: int) -> None:
        self.physdev(caller, Physdev.GET_FREE_PIRQ, abi.GetFreePirq(type=type))

    @rule(caller=callers, address=st.sampled_from([0xE0000000, 0xD0000000, 0]), segment=st.integers(0, 1),
          first=st.sampled_from([0, 0x10, 0x80]), last=st.sampled_from([0x1F, 0x7F, 0xFF]),
          flags=st.sampled_from([0, 1, 2]))  # fmt: skip
    def pci_mmcfg_reserved(self, caller: int, address: int, segment: int, first: int, last: int, flags: int) -> None:
        argument = abi.PciMmcfgReserved(address=address, segment=segment, start_bus=first, end_bus=last, flags=flags)
        self.physdev(caller, Physdev.PCI_MMCFG_RESERVED, argument)

    @rule(caller=callers, device=functions, flags=st.sampled_from([0, 0, 0, 1, 2, 4, 6, 8]),
          physical=st.integers(0, 5), pxm=st.integers(0, 1))  # fmt: skip
    def pci_device_add(self, caller: int, device: abi.PciDevice, flags: int, physical: int, pxm: int) -> None:
        added = abi.PciDeviceAdd(seg=device.seg, bus=device.bus, devfn=device.devfn, flags=flags, physfn_devfn=physical)
        self.physdev(caller, Physdev.PCI_DEVICE_ADD, abi.PciDeviceAddPxm(device=added, pxm=pxm))

    @rule(caller=callers, device=functions)
    def pci_device_remove(self, caller: int, device: abi.PciDevice) -> None:
        self.physdev(caller, Physdev.PCI_DEVICE_REMOVE, device)

    @rule(caller=callers, device=functions, flags=st.sampled_from([0, 3, 4]))
    def pci_device_reset(self, caller: int, device: abi.PciDevice, flags: int) -> None:
        self.physdev(caller, Physdev.PCI_DEVICE_RESET, abi.PciDeviceReset(dev=device, flags=flags))

    @rule(caller=callers, at=st.sampled_from([0, 0x1000, 0x1001, (1 << 52) - 8192, (1 << 52) - 4096]))
    def map_shared_info(self, caller: int, at: int) -> None:
        self.own(caller, Op.MAP_SHARED_INFO, guest_physical=at)

    @rule(caller=callers, wrong=st.sampled_from([(0, 0, 0), (0, 0, 0), (16, 0, 0), (0, 16, 0), (0, 0, 2)]))
    def hand_over(self, caller: int, wrong: tuple[int, int, int]) -> None:
        (rsdp, xsdt), counter = self.model.tables, self.model.counter
        self.own(caller, Op.HAND_OVER, rsdp=rsdp + wrong[0], xsdt=xsdt + wrong[1], counter=counter + wrong[2])

    @rule(caller=callers, domain=domains, irq=irqs)
    def query_vector(self, caller: int, domain: int, irq: int) -> None:
        self.own(caller, Op.QUERY_VECTOR, domain=domain, irq=irq)

    @rule(caller=callers, domain=domains, irq=irqs, cpu=st.sampled_from([0, 1, 2, 3, abi.NONE]))
    def set_affinity(self, caller: int, domain: int, irq: int, cpu: int) -> None:
        self.own(caller, Op.SET_AFFINITY, domain=domain, irq=irq, cpu=cpu)

    @rule(caller=callers, address=addresses, base=st.sampled_from([0, 20, 24, 40, 64, 16380, abi.NONE]))
    def ioapic_add(self, caller: int, address: int, base: int) -> None:
        self.own(caller, Op.IOAPIC_ADD, address=address, gsi_base=base)

    @rule(caller=callers, address=addresses)
    def ioapic_remove(self, caller: int, address: int) -> None:
        self.own(caller, Op.IOAPIC_REMOVE, address=address)

    @rule(
        caller=callers, domain=st.sampled_from([0, 1, 1, 2, 2, 15, 16, 0xFFFF]), vectors=st.sampled_from([0, 0, 1, 4])
    )
    def domain_create(self, caller: int, domain: int, vectors: int) -> None:
        self.own(caller, Op.DOMAIN_CREATE, domain=domain, vectors=vectors)

    @rule(caller=callers, domain=domains)
    def domain_destroy(self, caller: int, domain: int) -> None:
        self.own(caller, Op.DOMAIN_DESTROY, domain=domain)

    @rule(caller=callers, domain=domains, device=functions, op=st.sampled_from([Op.ASSIGN_DEVICE, Op.RELEASE_DEVICE]))
    def assign_device(self, caller: int, domain: int, device: abi.PciDevice, op: Op) -> None:
        self.own(caller, op, domain=domain, device=device)

    @rule(caller=callers, domain=domains, gsi=gsis, op=st.sampled_from([Op.ASSIGN_GSI, Op.ASSIGN_GSI, Op.RELEASE_GSI]))
    def assign_gsi(self, caller: int, domain: int, gsi: int, op: Op) -> None:
        self.own(caller, op, domain=domain, gsi=gsi)

    @rule(caller=callers, domain=domains, cursor=st.sampled_from([0, 0, 1, 200, 40000, 1 << 31]))
    def read_interrupt(self, caller: int, domain: int, cursor: int) -> None:
        self.own(caller, Op.READ_INTERRUPT, domain=domain, cursor=cursor)

    @rule(caller=callers, index=st.sampled_from([0, 1, 1 << 31]))
    def read_report(self, caller: int, index: int) -> None:
        self.own(caller, Op.READ_REPORT, index=index)

    @rule(caller=callers, domain=domains, irq=irqs)
    def msi_read(self, caller: int, domain: int, irq: int) -> None:
        self.own(caller, Op.MSI_READ, domain=domain, irq=irq)

    @rule(caller=callers, domain=domains, irq=st.integers(14, 48), address=message_addresses,
          data=message_data)  # fmt: skip
    def msi_write(self, caller: int, domain: int, irq: int, address: int, data: int) -> None:
        self.own(caller, Op.MSI_WRITE, domain=domain, irq=irq, address=address, data=data)

    @rule(
        caller=callers, number=st.sampled_from([0, 33, 0xD0]), command=st.integers(0, 40), data=st.binary(max_size=130)
    )
    def random_bytes(self, caller: int, number: int, command: int, data: bytes) -> None:
        record = abi.ARGUMENTS.get((number, command))
        if record is None:
            self.ask(caller, number, command, data)
            return
        size = layout(record).size
        self.ask(caller, number, command, (data + bytes(size))[:size])

    @rule(caller=callers, command=st.sampled_from(list(Op)), place=st.integers(0, 7), bit=st.integers(0, 7))
    def bad_header(self, caller: int, command: Op, place: int, bit: int) -> None:
        size = layout(abi.ARGUMENTS[abi.HYPERCALL_DOM0KIT, command]).size
        data = bytearray(b"\1\0" + size.to_bytes(2, "little") + bytes(size - 4))
        data[place] ^= 1 << bit
        self.ask(caller, abi.HYPERCALL_DOM0KIT, command, bytes(data))

    # ---- Interrupts come ----

    @rule(pin=pins, address=st.sampled_from([FIRST, SECOND]), high=st.booleans())
    def line(self, pin: int, address: int, high: bool) -> None:
        if pin < len(self.model.ioapics.get(address, [])):
            self.real.line(address, pin, high)

    @rule(cpu=st.integers(0, 2))
    def take(self, cpu: int) -> None:
        arrival = self.real.take(cpu)
        if arrival is None:
            return
        source = self.model.arrived(cpu, arrival.vector)
        if source is None:
            assert arrival.status is Status.NOT_FOUND
            return
        assert (arrival.status, arrival.domain, arrival.pirq) == (Status.OK, source.domain, source.pirq)
        if isinstance(source, Pin):
            assert (arrival.gsi, arrival.guest_vector) == (source.gsi, source.view & 0xFF)
            assert arrival.level == bool(source.view & LEVEL)

    @rule(cpu=st.integers(0, 2))
    def end(self, cpu: int) -> None:
        self.real.end(cpu)

    # ---- What must be true whatever happened ----

    @invariant()
    @precondition(lambda self: hasattr(self, "real"))
    def the_core_says_what_the_model_knows(self) -> None:
        model = self.model
        information = self.real.domain(0).information()
        assert {name: getattr(information, name) for name in model.counts()} == model.counts()
        assert Feature(information.features) == model.features()
        seen: set[Any] = set()
        for domain in model.domains:
            listed = self.listing(domain)
            for source in model.sources(domain):
                self.same(source, listed.pop(source.gsi if isinstance(source, Pin) else (domain, source.pirq)), seen)
            assert not listed, "the core lists what is not the domain's"

    def same(self, source: Pin | Message, row: tuple[Any, ...], seen: set[Any]) -> None:
        pirq, device, entry, cpu, vector, flags = row
        assert pirq == source.pirq
        assert flags == self.model.flags(source)
        if isinstance(source, Message):
            assert (device, entry) == (source.function, source.entry)
        if source.bound is not None:
            assert (cpu, vector) == source.bound
            assert source.bound not in seen, "two interrupts share a vector"
            seen.add(source.bound)

    @invariant()
    @precondition(lambda self: hasattr(self, "real"))
    def the_hardware_is_as_the_views(self) -> None:
        for pin in self.model.pins.values():
            if pin.number > 24:
                continue
            entry = self.real.entry(pin.address, pin.number)
            assert bool(entry & MASKED) == bool(pin.view & MASKED)
            if entry & MASKED:
                continue
            assert (entry ^ pin.view) & (LEVEL | 1 << 13) == 0
            if self.model.mode is Mode.DIRECT:
                assert entry & ~STATUS_BITS == pin.view
            elif self.model.entry_format in (Format.COMPATIBILITY, Format.EXTENDED_DESTINATION):
                assert pin.bound is not None
                apic_id = self.model.apic_ids[pin.bound[0]]
                assert entry & 0x7FF == pin.bound[1], "fixed delivery of the vector bound"
                assert entry >> 56 | (entry >> 49 & 0x7F) << 8 == apic_id


def check_order(log: list[Access], before: dict[tuple[int, int], int], status: Status) -> None:
    """Invariant 4, on what the core did to each entry in one call; `before`: the low words before it."""
    entries: dict[tuple[int, int], list[Access]] = {}
    for access in log:
        if access.index >= 0x10:
            entries.setdefault((access.address, access.index & ~1), []).append(access)
    for place, accesses in entries.items():
        low = before.get(place, MASKED)  # an entry of an IOAPIC just added: the model's are all masked
        writes = [access for access in accesses if access.write]
        assert not writes or status is Status.OK, "a refused call wrote to hardware"
        for number, access in enumerate(accesses):
            if not access.write:
                continue
            if access.index % 2:
                assert low & MASKED, "the high word of a live entry was written"
                continue
            if access.value & MASKED and not low & MASKED and access is not writes[-1]:
                following = accesses[number + 1]
                assert (following.write, following.index) == (False, access.index), "the mask is read back"
            assert len(writes) == 1 or low & MASKED or access.value & MASKED, "a live entry is masked first"
            low = access.value


StateMachine.TestCase.settings = settings(
    max_examples=5000 if LONG else 250,
    stateful_step_count=60 if LONG else 50,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestStateful: Callable[..., Any] = StateMachine.TestCase
