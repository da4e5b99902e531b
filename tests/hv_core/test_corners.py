# SPDX-License-Identifier: MIT
"""Corners of the core that a random walk seldom comes to, one by one."""

from __future__ import annotations

import pytest

from dom0kit import abi
from dom0kit.abi import Format, Kind, Mode, Status
from dom0kit.address import Gsi, Polarity, Sbdf, Trigger
from dom0kit.hypercall.core_library import CoreLibrary, IoapicModel, ModelMachine
from dom0kit.hypercall.interface import HypercallRefused, Message
from dom0kit.hypercall.shared_info import parse_shared_info
from dom0kit.layout import layout
from tests.hv_core.machines import FIRST, LIBRARY, cpu, ioapic, machine, madt, table

NIC, DISK = Sbdf(0, 0, 3, 0), Sbdf(0, 0, 4, 0)


def core(*apic_ids: int, mode: Mode = Mode.INTERCEPT, format: Format = Format.COMPATIBILITY) -> CoreLibrary:
    tables = madt(*(cpu(each) for each in apic_ids or (0, 1)), ioapic(FIRST, 0))
    made = machine(tables, ioapics=[IoapicModel(address=FIRST)], mode=mode, entry_format=format, message_format=format)
    dom0 = made.domain(0)
    dom0.pci_device_add(NIC)
    dom0.pci_device_add(DISK)
    return dom0


def refusal(call: object, *arguments: object, **more: object) -> Status:
    with pytest.raises(HypercallRefused) as caught:
        call(*arguments, **more)  # type: ignore[operator]
    return caught.value.status


def test_messages_at_a_pirq_of_ones_choice() -> None:
    dom0 = core()
    limit = dom0.information().limit_pirqs
    assert dom0.map_msi(NIC, 4, pirq=60) == 60
    assert refusal(dom0.map_msi, DISK, pirq=63) is Status.EXISTS
    assert refusal(dom0.map_msi, DISK, 2, pirq=59) is Status.EXISTS
    assert refusal(dom0.map_msi, DISK, 2, pirq=limit - 1) is Status.OUT_OF_RANGE
    assert dom0.map_msi(DISK, 2, pirq=limit - 2) == limit - 2
    assert refusal(dom0.map_msix, NIC, 0, 0xF0000000) is Status.EXISTS, "MSI or MSI-X, not both"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"index": 0}, Status.INVALID),
        ({"devfn": -1}, Status.INVALID),
        ({"devfn": 256}, Status.INVALID),
        ({"bus": 0x100}, Status.INVALID),
        ({"entry_nr": 1}, Status.INVALID),
        ({"entry_nr": -1, "table_base": 4096}, Status.OUT_OF_RANGE),
        ({"entry_nr": 2048, "table_base": 4096}, Status.OUT_OF_RANGE),
        ({"type": 4, "entry_nr": 0}, Status.INVALID),
        ({"type": 4, "entry_nr": 3}, Status.INVALID),
        ({"type": 4, "entry_nr": 64}, Status.INVALID),
        ({"type": 4, "entry_nr": 2, "table_base": 4096}, Status.INVALID),
        ({"type": 2}, Status.INVALID),
        ({"devfn": 200}, Status.NO_DEVICE),
        ({"domid": 1}, Status.NO_DOMAIN),
        ({"type": 0, "bus": 0x100}, Status.OK),
    ],
)
def test_words_of_map_pirq(fields: dict[str, int], expected: Status) -> None:
    plain = {"domid": abi.DOMID_SELF, "type": 3, "index": -1, "pirq": -1, "bus": 0, "devfn": NIC.devfn, "entry_nr": 0,
             "table_base": 0}  # fmt: skip
    argument = abi.MapPirqArgument(**(plain | fields))
    data = layout(abi.MapPirqArgument).build(argument)
    assert core().call(abi.HYPERCALL_PHYSDEV, abi.Physdev.MAP_PIRQ, data)[0] is expected


@pytest.mark.parametrize(
    ("address", "data", "expected"),
    [
        (0xFEE00000, 0x31, Status.OK),
        (0xFEE00000, 0x4131, Status.OK),
        (0xFED00000, 0x31, Status.INVALID),
        (0x1FEE00000, 0x31, Status.INVALID),
        (0xFEE00001, 0x31, Status.INVALID),
        (0xFEE00020, 0x31, Status.INVALID),
        (0xFEE00000, 0x8031, Status.INVALID),
        (0xFEE00000, 0x10031, Status.INVALID),
        (0xFEE00000, 0x0231, Status.INVALID),
        (0xFEE00000, 0x000F, Status.INVALID),
        (0xFEE00000, 0x00FF, Status.INVALID),
        (0xFEE09000, 0x31, Status.OUT_OF_RANGE),
        (0xFEE80004, 0x31, Status.OUT_OF_RANGE),
        (0xFEE03004, 0x31, Status.OK),
    ],
)
def test_messages_that_dom0_writes(address: int, data: int, expected: Status) -> None:
    dom0 = core(mode=Mode.DIRECT)
    pirq = dom0.map_msi(NIC)
    if expected is Status.OK:
        dom0.msi_write(pirq, Message(address, data))
        assert dom0.msi_read(pirq) == Message(address, data)
    else:
        assert refusal(dom0.msi_write, pirq, Message(address, data)) is expected


def test_a_message_written_again() -> None:
    dom0 = core(mode=Mode.DIRECT)
    pirq, other = dom0.map_msi(NIC), dom0.map_msi(DISK)
    for vector in (0x31, 0x31, 0x32):
        dom0.msi_write(pirq, Message(0xFEE00000, vector))
    dom0.msi_write(other, Message(0xFEE00000, 0x31))
    assert refusal(dom0.msi_write, 5, Message(0xFEE00000, 0x33)) is Status.INVALID
    dom0.msi_write(pirq, Message(0xFEE03004, 0x31))
    assert dom0.query_vector(pirq).cpu is None
    dom0.unmap_pirq(other)
    dom0.unmap_pirq(pirq)


@pytest.mark.parametrize(
    ("format", "address", "data", "vector"),
    [
        (Format.EXTENDED_DESTINATION, 0xFEE00000 | 0x34 << 12 | 0x12 << 5, 0x31, 0x31),
        (Format.EXTENDED_DESTINATION, 0xFEE01004, 0x31, 0x31),
        (Format.VTD, 0xFEE00000, 0x31, 0x31),
        (Format.VTD, 0xFEE00010, 5, None),
        (Format.AMD_VI, 0xFEE00000, 0x7FF, None),
    ],
)
def test_messages_of_every_format(format: Format, address: int, data: int, vector: int | None) -> None:
    dom0 = core(0, 0x1234, mode=Mode.DIRECT, format=format)
    pirq = dom0.map_msi(NIC)
    dom0.msi_write(pirq, Message(address, data))
    if vector is None:
        assert refusal(dom0.query_vector, pirq) is Status.NOT_FOUND
        assert abi.InterruptFlag.REMAPPED in next(iter(dom0.interrupts())).flags
        assert refusal(dom0.msi_write, pirq, Message(address, 1 << 20)) is Status.INVALID
    else:
        assert dom0.query_vector(pirq).vector == vector


def test_remapped_entries_of_dom0() -> None:
    for format in (Format.VTD, Format.AMD_VI):
        dom0 = core(mode=Mode.DIRECT, format=format)
        entry = 0x0003_0000_0000_0002 if format is Format.VTD else 0x0000_0000_0000_0302
        dom0.apic_write(FIRST, 0x15, entry >> 32)
        dom0.apic_write(FIRST, 0x14, entry & 0xFFFFFFFF)
        assert dom0.machine.entry(FIRST, 2) == entry
        assert refusal(dom0.query_vector, 2) is Status.NOT_FOUND
        bad = 0x0702 if format is Format.VTD else 0x0802
        assert refusal(dom0.apic_write, FIRST, 0x14, bad) is Status.INVALID


def test_virtual_functions() -> None:
    dom0 = core()
    virtual = Sbdf(0, 1, 0, 0)
    assert refusal(dom0.pci_device_add, virtual, physical=Sbdf(0, 9, 0, 0)) is Status.NO_DEVICE
    dom0.pci_device_add(virtual, physical=NIC)
    dom0.pci_device_add(virtual, physical=NIC)
    assert refusal(dom0.pci_device_add, virtual, physical=DISK) is Status.EXISTS
    assert refusal(dom0.pci_device_add, virtual, physical=NIC, pxm=1) is Status.EXISTS
    assert refusal(dom0.pci_device_add, virtual) is Status.EXISTS
    assert refusal(dom0.pci_device_add, Sbdf(0, 2, 0, 0), physical=virtual) is Status.NO_DEVICE
    assert refusal(dom0.pci_device_remove, NIC) is Status.BUSY
    dom0.pci_device_remove(virtual)
    dom0.pci_device_add(Sbdf(0, 5, 0, 0), pxm=3)
    assert refusal(dom0.pci_device_add, Sbdf(0, 5, 0, 0), pxm=4) is Status.EXISTS
    dom0.pci_device_remove(NIC)
    assert refusal(dom0.pci_device_remove, NIC) is Status.NO_DEVICE
    assert refusal(dom0.pci_device_reset, NIC) is Status.NO_DEVICE
    assert refusal(dom0.pci_device_reset, DISK, 4) is Status.INVALID


def test_what_belongs_to_another_domain() -> None:
    dom0 = core()
    gsi = Gsi(7)
    assert dom0.domain_create() == 1
    guest = dom0.machine.domain(1)
    dom0.assign_device(1, NIC)
    dom0.assign_gsi(1, gsi)
    assert refusal(dom0.pci_device_remove, NIC) is Status.BUSY
    assert refusal(dom0.map_msi, NIC) is Status.NOT_PERMITTED
    assert refusal(dom0.setup_gsi, gsi, Trigger.EDGE, Polarity.LOW) is Status.NOT_PERMITTED
    assert refusal(dom0.map_gsi, gsi) is Status.NOT_PERMITTED
    assert refusal(dom0.apic_read, FIRST, 0x10 + 14) is Status.NOT_PERMITTED
    assert refusal(guest.apic_read, FIRST, 1) is Status.NOT_PERMITTED
    assert refusal(guest.apic_read, FIRST, 0x10) is Status.NOT_PERMITTED
    assert refusal(guest.query_vector, 0, 0) is Status.NOT_PERMITTED
    assert refusal(guest.unmap_pirq, 20, 0) is Status.NOT_PERMITTED
    assert refusal(guest.domain_create) is Status.NOT_PERMITTED
    assert refusal(guest.pci_device_add, Sbdf(0, 7, 0, 0)) is Status.NOT_PERMITTED
    guest.setup_gsi(gsi, Trigger.LEVEL, Polarity.LOW)
    guest.map_gsi(gsi, 7)
    assert refusal(guest.map_gsi, gsi, 8) is Status.EXISTS
    pirq = guest.map_msi(NIC, 2)
    dom0.pci_device_reset(NIC)
    assert refusal(guest.unmap_pirq, pirq) is Status.INVALID
    guest.map_msi(NIC, 2)
    assert {each.kind for each in dom0.interrupts(1)} == {Kind.GSI, Kind.MSI}
    for call, other in ((dom0.release_device, DISK), (dom0.release_gsi, Gsi(8))):
        assert refusal(call, 1, other) is Status.NOT_FOUND
        assert refusal(call, 0, other) is Status.INVALID
    for call, other in ((dom0.assign_device, NIC), (dom0.assign_gsi, gsi)):
        assert refusal(call, 1, other) is Status.BUSY
        assert refusal(call, 0, other) is Status.INVALID
        assert refusal(call, 9, other) is Status.NO_DOMAIN
    assert refusal(dom0.release_device, 1, Sbdf(0, 9, 0, 0)) is Status.NO_DEVICE
    assert refusal(dom0.assign_device, 1, Sbdf(0, 9, 0, 0)) is Status.NO_DEVICE
    assert refusal(dom0.assign_gsi, 1, Gsi(99)) is Status.INVALID
    assert refusal(dom0.release_gsi, 1, Gsi(99)) is Status.INVALID
    dom0.map_msi(DISK)
    assert refusal(dom0.assign_device, 1, DISK) is Status.BUSY
    assert refusal(dom0.domain_destroy, 0) is Status.NOT_PERMITTED
    dom0.domain_destroy(1)
    assert [each.function for each in dom0.interrupts()] == [DISK]
    assert dom0.map_gsi(gsi, 7) == 7
    dom0.map_msi(NIC)


def test_moving_messages() -> None:
    dom0 = core(0, 1, 0x300)
    alone, run = dom0.map_msi(NIC), dom0.map_msi(DISK, 2)
    assert refusal(dom0.set_affinity, run, 1 - (dom0.query_vector(run).cpu or 0)) is Status.NOT_SUPPORTED
    assert refusal(dom0.set_affinity, alone, 9) is Status.OUT_OF_RANGE
    assert refusal(dom0.set_affinity, alone, 2) is Status.OUT_OF_RANGE, "its APIC id fits no message"
    assert refusal(dom0.set_affinity, 1000, 0) is Status.INVALID
    before = dom0.query_vector(alone)
    old = dom0.msi_read(alone)
    to = 1 - (before.cpu or 0)
    dom0.set_affinity(alone, before.cpu or 0)
    dom0.set_affinity(alone, to)
    assert refusal(dom0.set_affinity, alone, before.cpu or 0) is Status.TRY_AGAIN
    assert dom0.machine.message(old.address, old.data) is Status.OK
    late = dom0.machine.take(before.cpu or 0)
    assert late is not None
    assert late.pirq == alone, "one that was on its way to the old vector still arrives"
    assert abi.InterruptFlag.DRAINING in dom0.query_vector(alone).flags
    dom0.eoi(alone)
    assert not dom0.query_vector(alone).flags
    dom0.set_affinity(alone, before.cpu or 0)
    dom0.unmap_pirq(alone)


def test_logical_destinations_of_many_processors() -> None:
    dom0 = core(*range(10))
    dom0.apic_write(FIRST, 0x11, 0xC0 << 24)
    dom0.apic_write(FIRST, 0x10, 0x831)
    assert dom0.query_vector(0).cpu == 6, "the lowest of the processors named"
    dom0.apic_write(FIRST, 0x13, 9 << 24)
    dom0.apic_write(FIRST, 0x12, 0x31)
    assert dom0.query_vector(1).cpu == 9


def test_reserved_vectors_are_not_given() -> None:
    made: ModelMachine = core(0).machine
    made.restart()
    made = core(0).machine
    made.reserve_vectors(0x20, 0xE0)
    dom0 = made.domain(0)
    vectors = {dom0.query_vector(dom0.map_msix(NIC, entry, 4096)).vector for entry in range(15)}
    assert vectors == set(range(0xE1, 0xF0))
    assert refusal(dom0.map_msix, NIC, 15, 4096) is Status.NO_SPACE


def test_4096_processors_take_turns() -> None:
    dom0 = core(*range(4096), format=Format.VTD)
    if dom0.information().limit_cpus < 4096:
        pytest.skip("the library under test has small limits")
    seen = [
        dom0.query_vector(dom0.map_msix(device, entry, 4096)).cpu for device in (NIC, DISK) for entry in range(2048)
    ]
    assert seen == list(range(4096))
    dom0.unmap_pirq(dom0.map_gsi(Gsi(3)))
    assert dom0.alloc_irq_vector(3) >= 0x20
    dom0.pci_device_remove(NIC)
    dom0.pci_device_add(NIC)
    assert dom0.query_vector(dom0.map_msi(NIC)).cpu == 0, "after the last the first again"


def test_what_is_taken_back_is_domain_0s() -> None:
    dom0 = core()
    dom0.domain_create(3)
    assert refusal(dom0.domain_create, 3) is Status.EXISTS
    assert refusal(dom0.domain_create, 0x7000) is Status.OUT_OF_RANGE
    dom0.assign_device(3, NIC)
    dom0.assign_gsi(3, Gsi(5))
    guest = dom0.machine.domain(3)
    guest.map_msi(NIC)
    guest.map_gsi(Gsi(5), 5)
    dom0.release_device(3, NIC)
    dom0.release_gsi(3, Gsi(5))
    assert list(dom0.interrupts(3)) == []
    assert dom0.map_gsi(Gsi(5), 5) == 5
    dom0.map_msi(NIC)


@pytest.mark.parametrize("format", [Format.VTD, Format.AMD_VI])
def test_a_remapper_that_refuses_leaves_everything_as_it_was(format: Format) -> None:
    dom0 = core(format=format)
    alone = dom0.map_msi(NIC)
    dom0.map_gsi(Gsi(3), 3)
    dom0.apic_write(FIRST, 0x16, 0x31)
    place = dom0.query_vector(3)
    dom0.machine.refuse_remapping(True)
    before = dom0.machine.digest()
    for call, arguments in (
        (dom0.map_msi, (DISK, 4)),
        (dom0.set_affinity, (alone, 1 - (dom0.query_vector(alone).cpu or 0))),
        (dom0.set_affinity, (3, 1)),
        (dom0.alloc_irq_vector, (4,)),
        (dom0.setup_gsi, (Gsi(4), Trigger.LEVEL, Polarity.LOW)),
        (dom0.apic_write, (FIRST, 0x18, 0x31)),
    ):
        assert refusal(call, *arguments) is Status.NO_SPACE
        assert dom0.machine.digest() == before
    assert dom0.query_vector(3) == place
    dom0.machine.refuse_remapping(False)
    dom0.set_affinity(3, 1)


def test_a_move_that_the_hardware_refuses_goes_back() -> None:
    for format in (Format.COMPATIBILITY, Format.VTD):
        dom0 = core(format=format)
        dom0.apic_write(FIRST, 0x16, 0x8031)
        dom0.machine.line(FIRST, 3, True)
        dom0.machine.take(0)
        before = dom0.machine.digest()
        dom0.apic_write(FIRST, 0x16, 0x18031)
        dom0.apic_write(FIRST, 0x17, 1 << 24)
        assert refusal(dom0.apic_write, FIRST, 0x16, 0x31) is Status.BUSY, "another processor, and edge, in service"
        dom0.apic_write(FIRST, 0x17, 0)
        dom0.apic_write(FIRST, 0x16, 0x8031)
        assert dom0.machine.digest() == before


def test_tables_of_an_rsdt_are_handed_over() -> None:
    tables = madt(cpu(0), ioapic(FIRST, 0))
    root = table(b"RSDT", (0x5000).to_bytes(4, "little"))
    pointer = b"RSD PTR \0TEST  \0" + (0x6000).to_bytes(4, "little")
    pointer = pointer[:8] + bytes([-sum(pointer) & 0xFF]) + pointer[9:]
    made = ModelMachine(
        memory=[(0x5000, tables), (0x6000, root), (0x7000, pointer)],
        ioapics=[IoapicModel(address=FIRST)],
        rsdp=0x7000,
        library=LIBRARY,
    )
    dom0 = made.domain(0)
    counter = parse_shared_info(made.shared_info()).counter
    for rsdp, xsdt in ((0x7000, 0x5000), (0, 0x6000), (1 << 63, 0x6000), ((1 << 64) - 4, 0x6000)):
        assert refusal(dom0.hand_over, rsdp, xsdt, counter) is Status.INVALID
    dom0.hand_over(0x7000, 0x6000, counter)
    assert parse_shared_info(made.shared_info()).xsdt == 0x6000
