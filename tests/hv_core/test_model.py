# SPDX-License-Identifier: MIT
"""The model by itself, the invariants' checks on what breaks them, and what random calls seldom come to."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
import pytest

from dom0kit import abi
from dom0kit.abi import Format, Kind, MapPirq, Mode, Physdev, Status
from dom0kit.address import Gsi, Polarity, Sbdf, Trigger
from dom0kit.hypercall.core_library import Access, CoreLibrary, ModelMachine
from dom0kit.hypercall.interface import HypercallRefused
from dom0kit.hypercall.interface import Message as Words
from dom0kit.layout import Record, layout
from dom0kit.walker import Notes
from tests.hv_core import invariants
from tests.hv_core.invariants import Reader, Readings, Row
from tests.hv_core.machines import FIRST, PLAIN, pair, small
from tests.hv_core.model import (
    LEVEL,
    MASKED,
    REMOTE_IRR,
    Binding,
    Firmware,
    Ioapic,
    Limits,
    Machine,
    Model,
    Place,
    Source,
)

LIMITS = Limits(cpus=8, ioapics=4, domains=4, pirqs=128, gsis=2048, functions=8, messages=64, reports=8)
FIRMWARE = Firmware(madt=0x1000, rsdp=0x2000, xsdt=0x3000)
NIC = Sbdf(0, 0, 3, 0)
TABLE = 0xF0000000

# ---- The model alone ----


class Told:
    """An oracle that says what it was told to."""

    def __init__(self, *bindings: Binding | None) -> None:
        self.bindings = list(bindings)

    def entry_before(self, place: Place) -> int:
        return MASKED

    def bound(self, source: Source) -> Binding | None:
        return self.bindings.pop(0)

    def tally(self) -> tuple[int, int]:
        return 0, 0


def ask(model: Model, command: Physdev, argument: Record, *bindings: Binding | None, caller: int = 0) -> Status:
    """A call to a core that says yes and binds as it was told."""
    data = layout(type(argument)).build(argument)
    status, answer = model.call(caller, 33, command, data, (Status.OK, data), Told(*bindings))
    assert len(answer) == len(data)
    return status


def alone(**changes: object) -> Model:
    return Model(msgspec.structs.replace(PLAIN, **changes), LIMITS, FIRMWARE)


@pytest.mark.parametrize(
    "binding",
    [(0, 0x1F), (0, 0xF0), (0, 0x80), (0, 0x31), (1, 0x20), None],
    ids=["too low", "too high", "reserved", "somebody's", "another processor", "none"],
)
def test_a_vector_that_the_core_may_not_choose(binding: Binding | None) -> None:
    model = alone()
    assert ask(model, Physdev.ALLOC_IRQ_VECTOR, abi.AllocIrqVector(irq=3), (0, 0x31)) is Status.OK
    with pytest.raises(AssertionError):
        ask(model, Physdev.ALLOC_IRQ_VECTOR, abi.AllocIrqVector(irq=4), binding)


@pytest.mark.parametrize(
    "run", [[(0, 0x21), (0, 0x22)], [(0, 0x22), (0, 0x24)], [(0, 0x22), (1, 0x23)], [(3, 0x22), (3, 0x23)]]
)
def test_a_run_that_the_core_may_not_choose(run: list[Binding]) -> None:
    """Not aligned, not consecutive, not on one processor, on one that no message reaches."""
    model = alone(apic_ids=(0, 1, 2, 0x100))
    assert ask(model, Physdev.PCI_DEVICE_ADD, device_add(NIC)) is Status.OK
    with pytest.raises(AssertionError):
        ask(model, Physdev.MAP_PIRQ, map_argument(NIC, 2), *run)
    model = alone(apic_ids=(0, 1, 2, 0x100))
    ask(model, Physdev.PCI_DEVICE_ADD, device_add(NIC))
    assert ask(model, Physdev.MAP_PIRQ, map_argument(NIC, 2), (2, 0x22), (2, 0x23)) is Status.OK


def test_what_the_core_may_not_refuse() -> None:
    model = alone()
    data = layout(abi.AllocIrqVector).build(abi.AllocIrqVector(irq=3))
    with pytest.raises(AssertionError, match="refuses with NO_SPACE"):
        model.call(0, 33, Physdev.ALLOC_IRQ_VECTOR, data, (Status.NO_SPACE, data), Told((0, 0x31)))


def device_add(function: Sbdf) -> abi.PciDeviceAddPxm:
    return abi.PciDeviceAddPxm(
        device=abi.PciDeviceAdd(seg=function.segment, bus=function.bus, devfn=function.devfn, flags=0)
    )


def map_argument(function: Sbdf, count: int) -> abi.MapPirqArgument:
    return abi.MapPirqArgument(
        domid=abi.DOMID_SELF,
        type=MapPirq.MULTI_MSI,
        index=-1,
        pirq=-1,
        bus=function.segment << 16 | function.bus,
        devfn=function.devfn,
        entry_nr=count,
        table_base=0,
    )


def test_the_lowest_free_pirq() -> None:
    model = alone()

    def free(type: MapPirq) -> int:
        data = layout(abi.GetFreePirq).build(abi.GetFreePirq(type=type))
        _, answer = model.call(0, 33, Physdev.GET_FREE_PIRQ, data, (Status.OK, data), Told())
        parsed = layout(abi.GetFreePirq).parse(answer, 0, 8, Notes("answer"))
        assert parsed is not None
        return parsed.pirq

    def map_gsi(gsi: int, pirq: int) -> None:
        argument = abi.MapPirqArgument(
            domid=0, type=MapPirq.GSI, index=gsi, pirq=pirq, bus=0, devfn=0, entry_nr=0, table_base=0
        )
        assert ask(model, Physdev.MAP_PIRQ, argument) is Status.OK

    assert (free(MapPirq.GSI), free(MapPirq.MSI)) == (16, 40)
    for gsi, pirq in ((0, 16), (1, 17), (2, 19), (3, 40)):
        map_gsi(gsi, pirq)
    assert (free(MapPirq.GSI), free(MapPirq.MSI)) == (18, 41)


def test_few_and_many_gsis() -> None:
    """Messages' pIRQs begin behind the GSIs, but not below 16, and at 16 where the GSIs are more than the pIRQs."""
    for base, expected in ((0, 16), (100, 106), (122, 16), (1000, 16)):
        model = alone(ioapics=(Ioapic(address=FIRST, base=base, version=0x50011),))
        assert model.lowest_pirq(0, MapPirq.MSI, 1) == expected


# ---- The checks, on what breaks them ----


def row(cpu: int, vector: int, gsi: int, flags: int = 0) -> Row:
    return Row(Kind.GSI, abi.NONE, gsi, (0, 0, 0), 0, cpu, vector, flags)


@pytest.fixture
def readings() -> Readings:
    real, _ = pair(library=small())
    real.domain(0).setup_gsi(Gsi(3), Trigger.LEVEL, Polarity.LOW)
    return Reader(real).read({(FIRST, pin): 0 for pin in range(8)}, [0], [(FIRST, pin) for pin in range(8)])


def with_entries(readings: Readings, entries: Mapping[Place, int]) -> Readings:
    return msgspec.structs.replace(readings, entries=readings.entries | dict(entries))


def test_two_interrupts_with_one_vector(readings: Readings) -> None:
    invariants.check_vectors(readings)
    one, other = row(0, 0x31, 1), row(0, 0x31, 2)
    for interrupts in ({0: {one.name: one, other.name: other}}, {0: {one.name: one}, 1: {other.name: other}}):
        with pytest.raises(AssertionError, match="share a vector"):
            invariants.check_vectors(msgspec.structs.replace(readings, interrupts=interrupts))
    low = row(0, 0x0F, 1)
    with pytest.raises(AssertionError):
        invariants.check_vectors(msgspec.structs.replace(readings, interrupts={0: {low.name: low}}))


@pytest.mark.parametrize(
    ("entries", "format"),
    [
        ({(FIRST, 0): 0x0431}, Format.COMPATIBILITY),
        ({(FIRST, 0): 0x0731}, Format.COMPATIBILITY),
        ({(FIRST, 0): 0x31, (FIRST, 1): 0x8031}, Format.COMPATIBILITY),
        ({(FIRST, 0): 0x31 | 1 << 48 | 5 << 49, (FIRST, 1): 0x32 | 1 << 48 | 5 << 49}, Format.VTD),
        ({(FIRST, 0): 0x005, (FIRST, 1): 0x005}, Format.AMD_VI),
    ],
)
def test_entries_that_no_domain_may_make(readings: Readings, entries: Mapping[Place, int], format: Format) -> None:
    broken = with_entries(readings, entries)
    with pytest.raises(AssertionError):
        invariants.check_entries(broken, Mode.INTERCEPT, format, {})
    invariants.check_entries(broken, Mode.INTERCEPT, format, entries)  # firmware's are firmware's
    masked = with_entries(readings, {place: entry | MASKED for place, entry in entries.items()})
    invariants.check_entries(masked, Mode.INTERCEPT, format, {})


@pytest.mark.parametrize("bits", [MASKED, LEVEL, REMOTE_IRR])
def test_a_view_that_is_not_the_hardwares(readings: Readings, bits: int) -> None:
    def check(each: Readings) -> None:
        invariants.check_translation(each, Mode.INTERCEPT, Format.COMPATIBILITY, PLAIN.apic_ids, {})

    check(readings)
    with pytest.raises(AssertionError):
        check(with_entries(readings, {(FIRST, 0): readings.entries[FIRST, 0] ^ bits}))
    with pytest.raises(AssertionError):
        check(msgspec.structs.replace(readings, interrupts={0: {}}, views=readings.views | {(FIRST, 3): 0x31}))


def test_an_entry_with_another_vector_than_the_list_says() -> None:
    real, _ = pair(library=small())
    real.domain(0).apic_write(FIRST, 0x10, 0x31)
    place = (FIRST, 0)
    readings = Reader(real).read({place: 0}, [0], [place])

    def check(entry: int) -> None:
        invariants.check_translation(
            with_entries(readings, {place: entry}), Mode.INTERCEPT, Format.COMPATIBILITY, PLAIN.apic_ids, {}
        )

    entry = readings.entries[place]
    check(entry)
    for wrong in (entry ^ 1, entry ^ 2 << 56):
        with pytest.raises(AssertionError):
            check(wrong)


def test_a_call_that_reaches_too_far(readings: Readings) -> None:
    owners = {(FIRST, 0): 1}
    two = msgspec.structs.replace(readings, interrupts={0: readings.interrupts[0], 1: {}})

    def check(after: Readings, caller: int = 1) -> None:
        invariants.check_reach(two, after, caller, owners)

    own = with_entries(two, {(FIRST, 0): 0x31})
    check(own)
    check(msgspec.structs.replace(two, interrupts=two.interrupts | {1: {("gsi", 0): row(0, 0x31, 0)}}))
    for after in (
        with_entries(two, {(FIRST, 1): 0x31}),
        msgspec.structs.replace(two, views=two.views | {(FIRST, 1): 0x31}),
        msgspec.structs.replace(two, interrupts=two.interrupts | {0: {}}),
        msgspec.structs.replace(two, shared_at=0x1000),
        msgspec.structs.replace(two, information=msgspec.structs.replace(two.information, domains=2)),
    ):
        with pytest.raises(AssertionError):
            check(after)
        check(after, caller=0)


def test_a_refused_call_that_changed_something(readings: Readings) -> None:
    invariants.check_unchanged(readings, readings)
    with pytest.raises(AssertionError, match="changed entries"):
        invariants.check_unchanged(readings, with_entries(readings, {(FIRST, 1): 0x31}))
    with pytest.raises(AssertionError, match="changed digest"):
        invariants.check_unchanged(readings, msgspec.structs.replace(readings, digest=1))


def low(value: int, write: bool = True) -> Access:
    return Access(FIRST, 0x10, value, write)


def high(value: int) -> Access:
    return Access(FIRST, 0x11, value, True)


GOOD_ORDERS = {
    "a live entry goes elsewhere": (0x31, [low(0x10031), low(0x10031, False), high(1 << 24), low(0x32)]),
    "a pure mask": (0x31, [low(0x10031)]),
    "a masked entry is opened": (0x10000, [high(1 << 24), low(0x31)]),
    "the trigger of a masked entry": (0x10031, [low(0x10031, False), low(0x18031)]),
    "the high word of a masked entry": (0x10031, [high(1 << 24)]),
}


@pytest.mark.parametrize("name", GOOD_ORDERS)
def test_good_orders(name: str) -> None:
    before, log = GOOD_ORDERS[name]
    invariants.check_order(log, {(FIRST, 0): before}, Status.OK)


BAD_ORDERS = {
    "the high word of a live entry": (0x31, [high(1 << 24), low(0x31)]),
    "no reading back": (0x31, [low(0x10031), high(1 << 24), low(0x31)]),
    "mask and vector in one": (0x31, [low(0x10032)]),
    "a live vector": (0x31, [low(0x32)]),
    "opened before the high word": (0x10031, [low(0x31), high(1 << 24)]),
    "a pure mask in two": (0x31, [low(0x10031), low(0x10031)]),
    "a trigger nobody looked at": (0x10031, [low(0x18031)]),
    "a trigger in service": (0x1C031, [low(0x1C031, False), low(0x10031)]),
    "four writes": (0x31, [low(0x10031), low(0x10031, False), high(1 << 24), low(0x10031), low(0x31)]),
    "the version register": (0x31, [Access(FIRST, 1, 0, True)]),
}


@pytest.mark.parametrize("name", BAD_ORDERS)
def test_bad_orders(name: str) -> None:
    before, log = BAD_ORDERS[name]
    with pytest.raises(AssertionError):
        invariants.check_order(log, {(FIRST, 0): before}, Status.OK)


def test_a_refused_call_that_writes() -> None:
    with pytest.raises(AssertionError, match="refused"):
        invariants.check_order([low(0x10031)], {(FIRST, 0): 0x31}, Status.BUSY)


# ---- The core, where random calls seldom come ----


def refusal(call: Callable[..., object], *arguments: object) -> Status:
    with pytest.raises(HypercallRefused) as caught:
        call(*arguments)
    return caught.value.status


def started(**changes: object) -> tuple[ModelMachine, CoreLibrary]:
    real, _ = pair(msgspec.structs.replace(PLAIN, **changes), small())
    return real, real.domain(0)


def test_the_vector_that_dom0_chose_for_several_processors() -> None:
    _, dom0 = started(mode=Mode.DIRECT)
    dom0.apic_write(FIRST, 0x11, 3 << 24)
    dom0.apic_write(FIRST, 0x10, 0x842)
    assert dom0.alloc_irq_vector(0) == 0x42
    dom0.pci_device_add(NIC)
    pirq = dom0.map_msi(NIC)
    assert refusal(dom0.alloc_irq_vector, pirq) is Status.NOT_FOUND
    dom0.msi_write(pirq, Words(0xFEE03004, 0x43))
    assert dom0.alloc_irq_vector(pirq) == 0x43
    dom0.apic_write(FIRST, 0x10, 0x10842)
    assert refusal(dom0.alloc_irq_vector, 0) is Status.NOT_FOUND


def test_affinity_to_where_it_is_sets_the_destination() -> None:
    _, dom0 = started()
    dom0.apic_write(FIRST, 0x11, 0x77 << 24)  # nobody: the vector goes where there is one
    dom0.alloc_irq_vector(0)
    vector = dom0.query_vector(0)
    assert vector.cpu is not None
    assert refusal(dom0.apic_write, FIRST, 0x10, 0x31) is Status.OUT_OF_RANGE
    dom0.set_affinity(0, vector.cpu)
    assert dom0.query_vector(0) == vector
    dom0.apic_write(FIRST, 0x10, 0x31)
    assert dom0.query_vector(0).vector == vector.vector


@pytest.mark.parametrize("mode", list(Mode))
def test_everybody_is_no_destination(mode: Mode) -> None:
    """Not even where a processor has this APIC id."""
    _, dom0 = started(mode=mode, apic_ids=(0, 0xFF))
    dom0.apic_write(FIRST, 0x11, 0xFF << 24)
    assert refusal(dom0.apic_write, FIRST, 0x10, 0x31) is Status.OUT_OF_RANGE
    if mode is Mode.DIRECT:
        dom0.pci_device_add(NIC)
        pirq = dom0.map_msi(NIC)
        assert refusal(dom0.msi_write, pirq, Words(0xFEEFF000, 0x31)) is Status.OUT_OF_RANGE


def test_a_line_mapped_more_often_than_can_be_counted() -> None:
    _, dom0 = started()
    dom0.setup_gsi(Gsi(3), Trigger.LEVEL, Polarity.LOW)
    for _ in range(0xFFFF):
        dom0.map_gsi(Gsi(3))
    assert refusal(dom0.map_gsi, Gsi(3)) is Status.NO_SPACE


def test_what_firmware_left_has_no_vector_but_its_own() -> None:
    """An NMI, a vector another entry has, and a destination nobody has go into no book."""
    left = {0: 0x31, 1: 0x0400, 2: 0x31, 3: 0x77 << 56 | 0x32}
    machine = Machine(ioapics=(Ioapic(address=FIRST, base=0, entries=left),), mode=Mode.DIRECT)
    real, _ = pair(machine, small())
    dom0 = real.domain(0)
    assert dom0.alloc_irq_vector(0) == 0x31
    for gsi in (1, 2, 3):
        assert refusal(dom0.alloc_irq_vector, gsi) is Status.NOT_FOUND
        assert refusal(dom0.query_vector, gsi) is Status.NOT_FOUND
    assert {each.gsi for each in dom0.interrupts()} == {0, 1, 2, 3}
    assert refusal(dom0.apic_write, FIRST, 0x14, 0x31) is Status.EXISTS


def test_a_level_interrupt_in_service_keeps_its_trigger() -> None:
    real, dom0 = started()
    dom0.apic_write(FIRST, 0x10, 0x8031)
    real.line(FIRST, 0, True)
    before = real.digest()
    for word in (0x31, 0x10031):
        assert refusal(dom0.apic_write, FIRST, 0x10, word) is Status.BUSY
    assert refusal(dom0.setup_gsi, Gsi(0), Trigger.EDGE, Polarity.HIGH) is Status.BUSY
    assert real.digest() == before
    dom0.setup_gsi(Gsi(0), Trigger.LEVEL, Polarity.LOW)


def test_a_message_that_is_no_more_reaches_nobody() -> None:
    """A device may go on sending it when its vector is another's."""
    real, dom0 = started(apic_ids=(0,), message_format=Format.VTD)
    dom0.pci_device_add(NIC)
    for _ in range(2):
        first = dom0.map_msi(NIC, 32)
        words = [dom0.msi_read(first + number) for number in range(32)]
        handle = words[0].address >> 5 & 0x7FFF
        for number in range(32):
            assert real.message(words[0].address, number, handle + number) is Status.OK
        dom0.pci_device_reset(NIC)
        for number in range(32):
            assert real.message(words[0].address, number, handle + number) is Status.OUT_OF_RANGE


def test_a_vector_of_firmwares_is_not_given_to_others() -> None:
    """Given back, it is as little for devices as it was before."""
    machine = Machine(apic_ids=(0,), ioapics=(Ioapic(address=FIRST, base=0, entries={0: 0xF5, 1: 0x1F}),))
    real, _ = pair(machine, small())
    dom0 = real.domain(0)
    assert [dom0.query_vector(gsi).vector for gsi in (0, 1)] == [0xF5, 0x1F]
    for gsi in (0, 1):
        dom0.unmap_pirq(dom0.map_gsi(Gsi(gsi)))
    dom0.pci_device_add(NIC)
    vectors = {dom0.query_vector(dom0.map_msix(NIC, entry, TABLE)).vector for entry in range(60)}
    assert vectors <= set(range(0x20, 0xF0)) - {0x80}
