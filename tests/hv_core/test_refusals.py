# SPDX-License-Identifier: MIT
"""Each status that abi.h names at a call, once, and that a refusal leaves everything as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dom0kit import abi
from dom0kit.abi import Format, InterruptFlag, IrqStatus, MapPirq, Mode, Op, PciDev, Physdev, Status
from dom0kit.address import Gsi, Polarity, Sbdf, Trigger
from dom0kit.hypercall.core_library import CoreLibrary, IoapicModel
from dom0kit.hypercall.interface import HypercallRefused, Message
from dom0kit.layout import Record, layout
from tests.hv_core.machines import FIRST, LIBRARY, SECOND, cpu, ioapic, machine, madt, mcfg, small

NIC, DISK = Sbdf(0, 0, 3, 0), Sbdf(0, 0, 4, 0)
MASKED, LEVEL = 1 << 16, 1 << 15
ECAM = (0xE0000000, 0, 0x10, 0x7F)


def core(
    mode: Mode = Mode.INTERCEPT,
    format: Format = Format.COMPATIBILITY,
    *,
    apic_ids: tuple[int, ...] = (0, 1),
    entries: dict[int, int] | None = None,
    library: Path | None = LIBRARY,
) -> CoreLibrary:
    made = machine(
        madt(*(cpu(each) for each in apic_ids), ioapic(FIRST, 0)),
        mcfg(ECAM),
        ioapics=[IoapicModel(address=FIRST, entries=entries or {}), IoapicModel(address=SECOND, version=0x30020)],
        mode=mode,
        entry_format=format,
        message_format=format,
        library=library,
    )
    dom0 = made.domain(0)
    dom0.pci_device_add(NIC)
    dom0.pci_device_add(DISK)
    return dom0


def refused(dom0: CoreLibrary, call: object, *arguments: object, **more: object) -> Status:
    before = dom0.machine.digest()
    with pytest.raises(HypercallRefused) as caught:
        call(*arguments, **more)  # type: ignore[operator]
    assert dom0.machine.digest() == before
    return caught.value.status


def answer(dom0: CoreLibrary, number: int, command: int, argument: Record) -> Status:
    before = dom0.machine.digest()
    status, _ = dom0.call(number, command, layout(type(argument)).build(argument))
    assert status is Status.OK or dom0.machine.digest() == before
    return status


@pytest.mark.parametrize("mode", Mode)
def test_what_names_no_interrupt(mode: Mode) -> None:
    dom0 = core(mode)
    dom0.domain_create(1)
    dom0.assign_gsi(1, Gsi(5))
    dom0.map_gsi(Gsi(7), 20)
    for irq in (5, 7, 24, 1 << 20, (1 << 32) - 1):  # another's, mapped elsewhere, beyond pins, pIRQs and GSIs
        assert refused(dom0, dom0.irq_status_query, irq) is Status.INVALID
        assert refused(dom0, dom0.alloc_irq_vector, irq) is Status.INVALID
        assert refused(dom0, dom0.eoi, irq) is Status.INVALID
        assert refused(dom0, dom0.query_vector, irq) is Status.INVALID
        assert refused(dom0, dom0.msi_read, irq) is Status.INVALID
    for irq in (21, 1 << 20, (1 << 31) - 1):
        assert refused(dom0, dom0.unmap_pirq, irq) is Status.INVALID
    assert answer(dom0, abi.HYPERCALL_PHYSDEV, Physdev.UNMAP_PIRQ, abi.UnmapPirq(domid=0, pirq=-1)) is Status.INVALID
    assert refused(dom0, dom0.msi_read, 20) is Status.INVALID, "a GSI's"
    assert refused(dom0, dom0.query_vector, 20) is Status.NOT_FOUND
    expected = Status.NOT_SUPPORTED if mode is Mode.DIRECT else Status.INVALID
    assert refused(dom0, dom0.set_affinity, 5, 0) is expected
    if mode is Mode.INTERCEPT:
        assert refused(dom0, dom0.set_affinity, 20, 0) is Status.NOT_FOUND
        assert refused(dom0, dom0.set_affinity, 20, 2) is Status.OUT_OF_RANGE
    message = Message(0xFEE00000, 0x31)
    for irq in (20, 1 << 20):
        assert refused(dom0, dom0.msi_write, irq, message) is (
            Status.INVALID if mode is Mode.DIRECT else Status.NOT_SUPPORTED
        )


@pytest.mark.parametrize("mode", Mode)
def test_gsis(mode: Mode) -> None:
    dom0 = core(mode)
    for gsi, trigger, polarity in ((-1, 0, 0), (24, 0, 0), (1 << 20, 0, 0), (3, 2, 0), (3, 0, 2)):
        argument = abi.SetupGsi(gsi=gsi, triggering=trigger, polarity=polarity)
        assert answer(dom0, abi.HYPERCALL_PHYSDEV, Physdev.SETUP_GSI, argument) is Status.INVALID
    for gsi in (-1, 24):
        fields = {"domid": 0, "type": 1, "index": gsi, "pirq": -1, "bus": 0, "devfn": 0, "entry_nr": 0, "table_base": 0}
        argument_of_map = abi.MapPirqArgument(**fields)
        assert answer(dom0, abi.HYPERCALL_PHYSDEV, Physdev.MAP_PIRQ, argument_of_map) is Status.INVALID
    dom0.setup_gsi(Gsi(3), Trigger.LEVEL, Polarity.LOW)
    assert refused(dom0, dom0.setup_gsi, Gsi(3), Trigger.LEVEL, Polarity.LOW) is Status.EXISTS
    assert dom0.irq_status_query(3) == IrqStatus.NEEDS_EOI
    assert dom0.irq_status_query(4) == IrqStatus(0)
    assert dom0.map_gsi(Gsi(3), 3) == 3
    assert dom0.map_gsi(Gsi(3)) == 3
    assert dom0.map_gsi(Gsi(3), 3) == 3
    assert dom0.irq_status_query(3) == IrqStatus.NEEDS_EOI | IrqStatus.SHARED
    assert refused(dom0, dom0.map_gsi, Gsi(3), 4) is Status.EXISTS
    dom0.map_gsi(Gsi(4), 4)
    assert refused(dom0, dom0.map_gsi, Gsi(4), 4) is Status.EXISTS, "an edge has one user"
    assert refused(dom0, dom0.map_gsi, Gsi(5), 4) is Status.EXISTS, "the pIRQ is another's"
    assert refused(dom0, dom0.map_gsi, Gsi(5), 1 << 20) is Status.OUT_OF_RANGE
    dom0.eoi(3)
    dom0.eoi(4)
    pirq = dom0.map_msi(NIC)
    assert dom0.irq_status_query(pirq) == IrqStatus(0)
    dom0.eoi(pirq)
    if mode is Mode.INTERCEPT:
        assert dom0.alloc_irq_vector(pirq) == dom0.query_vector(pirq).vector
    else:
        assert refused(dom0, dom0.alloc_irq_vector, pirq) is Status.NOT_FOUND
        assert refused(dom0, dom0.msi_read, pirq) is Status.NOT_FOUND


@pytest.mark.parametrize("mode", Mode)
def test_a_trigger_in_service_stays(mode: Mode) -> None:
    dom0 = core(mode)
    dom0.apic_write(FIRST, 0x16, 0x31 | LEVEL)
    dom0.machine.line(FIRST, 3, True)
    assert dom0.machine.take(0) is not None
    assert refused(dom0, dom0.setup_gsi, Gsi(3), Trigger.EDGE, Polarity.HIGH) is Status.BUSY
    assert refused(dom0, dom0.apic_write, FIRST, 0x16, 0x31) is Status.BUSY
    assert refused(dom0, dom0.apic_write, FIRST, 0x16, 0x31 | MASKED) is Status.BUSY
    assert refused(dom0, dom0.apic_write, FIRST, 0x16, 0x32) is Status.BUSY
    dom0.apic_write(FIRST, 0x16, 0x31 | LEVEL | MASKED)
    dom0.apic_write(FIRST, 0x17, 1 << 24)
    assert refused(dom0, dom0.apic_write, FIRST, 0x16, 0x32) is Status.BUSY


def test_a_trigger_in_service_and_no_vector_yet() -> None:
    """Firmware left it masked while it was in service: setting it up gives no vector, and takes none."""
    dom0 = core(entries={3: 0x31 | LEVEL})
    dom0.machine.line(FIRST, 3, True)
    dom0.map_gsi(Gsi(3), 3)
    dom0.unmap_pirq(3)
    assert refused(dom0, dom0.query_vector, 3) is Status.NOT_FOUND
    assert refused(dom0, dom0.setup_gsi, Gsi(3), Trigger.EDGE, Polarity.HIGH) is Status.BUSY


@pytest.mark.parametrize("mode", Mode)
def test_a_domain_has_as_many_vectors_as_it_may(mode: Mode) -> None:
    dom0 = core(mode)
    assert dom0.domain_create(vectors=1) == 1
    guest = dom0.machine.domain(1)
    for gsi in (3, 4):
        dom0.assign_gsi(1, Gsi(gsi))
    guest.apic_write(FIRST, 0x16, 0x31)
    assert refused(dom0, guest.apic_write, FIRST, 0x18, 0x32) is Status.NO_SPACE
    dom0.assign_device(1, NIC)
    if mode is Mode.INTERCEPT:
        assert refused(dom0, guest.map_msi, NIC) is Status.NO_SPACE
        assert refused(dom0, guest.setup_gsi, Gsi(4), Trigger.EDGE, Polarity.HIGH) is Status.NO_SPACE
        assert refused(dom0, guest.set_affinity, 3, 1) is Status.NO_SPACE
    else:
        pirq = guest.map_msi(NIC)
        assert refused(dom0, guest.msi_write, pirq, Message(0xFEE00000, 0x33)) is Status.NO_SPACE


def test_a_move_is_waited_for() -> None:
    dom0 = core(apic_ids=(0, 1, 2))
    dom0.apic_write(FIRST, 0x16, 0x31)
    dom0.apic_write(FIRST, 0x17, 1 << 24)
    assert InterruptFlag.DRAINING in dom0.query_vector(3).flags
    assert refused(dom0, dom0.apic_write, FIRST, 0x17, 2 << 24) is Status.TRY_AGAIN
    assert refused(dom0, dom0.set_affinity, 3, 2) is Status.TRY_AGAIN
    dom0.machine.line(FIRST, 3, True)
    assert dom0.machine.take(1) is not None
    assert InterruptFlag.DRAINING not in dom0.query_vector(3).flags
    dom0.apic_write(FIRST, 0x17, 2 << 24)


@pytest.mark.parametrize("mode", Mode)
def test_entries(mode: Mode) -> None:
    dom0 = core(mode)
    for low in (0x0F, 0xFF, 0x31 | 2 << 8, 0x31 | 4 << 8, 0x31 | 7 << 8 | MASKED, 0x31 | 1 << 17):
        assert refused(dom0, dom0.apic_write, FIRST, 0x16, low) is Status.INVALID
    dom0.apic_write(FIRST, 0x16, 0x31)
    assert refused(dom0, dom0.apic_write, FIRST, 0x17, 1) is Status.INVALID
    assert refused(dom0, dom0.apic_write, FIRST, 0x17, 9 << 24) is Status.OUT_OF_RANGE
    assert refused(dom0, dom0.apic_write, FIRST, 0x17, 0xFF << 24) is Status.OUT_OF_RANGE
    dom0.apic_write(FIRST, 0x17, 1 << 24)
    dom0.apic_write(FIRST, 0x16, 0x31)
    for register in (3, 0xF, 0x40, 0x100):
        assert refused(dom0, dom0.apic_write, FIRST, register, 0) is Status.OUT_OF_RANGE
        assert refused(dom0, dom0.apic_read, FIRST, register) is Status.OUT_OF_RANGE
    assert refused(dom0, dom0.apic_write, FIRST, 0, 0) is Status.NOT_PERMITTED
    for address in (0, SECOND):
        assert refused(dom0, dom0.apic_read, address, 1) is Status.INVALID
        assert refused(dom0, dom0.apic_write, address, 0x10, 0) is Status.INVALID
    dom0.domain_create(1)
    assert refused(dom0, dom0.machine.domain(1).apic_write, FIRST, 0x10, MASKED) is Status.NOT_PERMITTED
    assert dom0.machine.trapped_read(9, FIRST, 0)[0] is Status.NO_DOMAIN
    assert dom0.machine.trapped_read(2, FIRST, 0)[0] is Status.NO_DOMAIN
    assert dom0.machine.trapped_write(9, FIRST, 0x10, 0) is Status.NO_DOMAIN
    assert dom0.machine.trapped_write(2, FIRST, 0x10, 0) is Status.NO_DOMAIN
    if mode is Mode.DIRECT:
        dom0.apic_write(FIRST, 0x19, 1 << 24)
        assert refused(dom0, dom0.apic_write, FIRST, 0x18, 0x31) is Status.EXISTS


def test_processors_with_long_apic_ids() -> None:
    dom0 = core(format=Format.EXTENDED_DESTINATION, apic_ids=(0, 0x1234, 0x9000))
    dom0.apic_write(FIRST, 0x17, 0x34 << 24 | 0x12 << 17)
    dom0.apic_write(FIRST, 0x16, 0x31)
    assert dom0.query_vector(3).apic_id == 0x1234
    entry = dom0.machine.entry(FIRST, 3)
    assert entry >> 49 == 0x34 << 7 | 0x12
    dom0.set_affinity(3, 0)
    dom0.eoi(3)
    dom0.set_affinity(3, 1)
    assert dom0.apic_read(FIRST, 0x17) == 0x34 << 24 | 0x12 << 17
    dom0.eoi(3)
    assert refused(dom0, dom0.set_affinity, 3, 2) is Status.OUT_OF_RANGE
    assert refused(dom0, dom0.apic_write, FIRST, 0x17, 0x34 << 24 | 0x12 << 17 | 1 << 16) is Status.INVALID
    vtd = core(format=Format.VTD, apic_ids=(0, 0x1234))
    vtd.apic_write(FIRST, 0x16, 0x31)
    assert refused(vtd, vtd.set_affinity, 3, 1) is Status.OUT_OF_RANGE, "no destination of a domain's view"


def test_what_a_remapped_entry_says() -> None:
    dom0 = core(Mode.DIRECT, Format.VTD)
    dom0.map_gsi(Gsi(3), 3)
    dom0.apic_write(FIRST, 0x17, 1 << 16)
    dom0.apic_write(FIRST, 0x16, 0x5)
    (interrupt,) = dom0.interrupts()
    assert interrupt.flags == InterruptFlag.REMAPPED
    assert interrupt.vector is None
    dom0.apic_write(FIRST, 0x19, 1 << 24)
    dom0.apic_write(FIRST, 0x18, 0x32)
    assert dom0.query_vector(4).cpu == 1


@pytest.mark.parametrize("entry", [0x31 | 9 << 56, 0x31 | 0x803 << 8 << 48, 0x231, 0x31 | 3 << 56 | 1 << 11])
def test_entries_of_firmware_that_name_nobody(entry: int) -> None:
    dom0 = core(Mode.DIRECT, entries={3: entry & (1 << 64) - 1})
    vector = [each.vector for each in dom0.interrupts()]
    assert len(vector) == 1
    assert refused(dom0, dom0.query_vector, 3) is Status.NOT_FOUND if vector == [None] else dom0.query_vector(3)


def test_ioapics_come_and_go() -> None:
    dom0 = core()
    for address in (0, SECOND + 4, 1 << 52):
        assert refused(dom0, dom0.ioapic_add, address, Gsi(24)) is Status.INVALID
    assert refused(dom0, dom0.ioapic_add, FIRST, Gsi(24)) is Status.EXISTS
    assert refused(dom0, dom0.ioapic_add, SECOND, Gsi(23)) is Status.EXISTS
    assert refused(dom0, dom0.ioapic_add, SECOND, Gsi((1 << 32) - 1)) is Status.OUT_OF_RANGE
    assert refused(dom0, dom0.ioapic_remove, SECOND) is Status.NO_DEVICE
    assert dom0.ioapic_add(SECOND, Gsi(24)) == 4
    dom0.domain_create(1)
    uses: tuple[tuple[Callable[[], object], Callable[[], object]], ...] = (
        (lambda: dom0.map_gsi(Gsi(25), 25), lambda: dom0.unmap_pirq(25)),
        (lambda: dom0.apic_write(SECOND, 0x12, 0x31), lambda: dom0.apic_write(SECOND, 0x12, 0x31 | MASKED)),
        (lambda: dom0.assign_gsi(1, Gsi(26)), lambda: dom0.release_gsi(1, Gsi(26))),
        (
            lambda: dom0.setup_gsi(Gsi(27), Trigger.EDGE, Polarity.HIGH),
            lambda: dom0.unmap_pirq(dom0.map_gsi(Gsi(27), 27)),
        ),
    )
    for use, undo in uses:
        use()
        assert refused(dom0, dom0.ioapic_remove, SECOND) is Status.BUSY
        undo()
    dom0.ioapic_remove(SECOND)
    assert dom0.ioapic_add(SECOND, Gsi(1000)) == 4
    assert dom0.information().gsis == 1004


def test_a_pin_that_appears_in_service_is_reported() -> None:
    dom0 = core()
    dom0.machine.plug_ioapic(IoapicModel(address=SECOND + 0x1000, version=0x30020, entries={0: 0x31, 1: 0x231}))
    dom0.ioapic_add(SECOND + 0x1000, Gsi(40))
    assert all(dom0.machine.entry(SECOND + 0x1000, pin) & MASKED for pin in range(4))


def test_shared_info_where_it_cannot_be() -> None:
    dom0 = core()
    for address in (1, 4095, (1 << 52) - 4096, 1 << 52, (1 << 64) - 4096):
        assert refused(dom0, dom0.map_shared_info, address) is Status.INVALID
    dom0.map_shared_info((1 << 52) - 8192)
    assert abi.Feature.SHARED_INFO in dom0.features()
    dom0.map_shared_info(0)
    assert abi.Feature.SHARED_INFO not in dom0.features()


def test_ecam_ranges() -> None:
    dom0 = core()
    address, segment, first, last = ECAM
    dom0.pci_mmcfg_reserved(address, segment, first, last, True)
    dom0.pci_mmcfg_reserved(address, segment, first + 1, last - 1, False)
    for other in (
        (address + 1, segment, first, last),
        (address, segment + 1, first, last),
        (address, segment, first - 1, last),
        (address, segment, first, last + 1),
        (address, segment, last, first),
    ):
        assert refused(dom0, dom0.pci_mmcfg_reserved, *other, True) is Status.NO_DEVICE
    argument = abi.PciMmcfgReserved(address=address, segment=segment, start_bus=first, end_bus=last, flags=2)
    assert answer(dom0, abi.HYPERCALL_PHYSDEV, Physdev.PCI_MMCFG_RESERVED, argument) is Status.INVALID
    dom0.domain_create(1)
    guest = dom0.machine.domain(1)
    assert refused(dom0, guest.pci_mmcfg_reserved, *ECAM, True) is Status.NOT_PERMITTED


def test_pirqs_run_out() -> None:
    dom0 = core(Mode.DIRECT, library=small())
    limit = dom0.information().limit_pirqs
    table = 0xF0000000
    for type in (MapPirq.MSI, MapPirq.GSI, MapPirq.MSI_SEG):
        assert dom0.get_free_pirq(type) == (16 if type is MapPirq.GSI else 24)
    assert refused(dom0, dom0.get_free_pirq, MapPirq.MULTI_MSI) is Status.INVALID
    for pirq in range(64):
        dom0.map_msix(NIC, pirq, table, pirq=pirq)
    assert dom0.get_free_pirq(MapPirq.GSI) == 64
    assert refused(dom0, dom0.map_msix, DISK, 0, table) is Status.NO_SPACE, "no message"
    many = core(library=small())
    many.ioapic_add(SECOND, Gsi(limit - 1))
    assert many.get_free_pirq(MapPirq.MSI) == 16, "as many GSIs as pIRQs: from the first on"
    many.ioapic_remove(SECOND)
    many.ioapic_add(SECOND, Gsi(limit - 5))
    assert many.get_free_pirq(MapPirq.MSI) == limit - 1
    many.map_msi(NIC)
    assert refused(many, many.get_free_pirq, MapPirq.MSI) is Status.NO_SPACE
    assert refused(many, many.map_msi, DISK) is Status.NO_SPACE, "no pIRQ"


def test_gsis_without_a_pirq_for_them() -> None:
    made = machine(
        madt(cpu(0), *(ioapic(FIRST + 0x1000 * i, 120 * i) for i in range(2))),
        ioapics=[IoapicModel(address=FIRST + 0x1000 * i, version=119 << 16 | 0x20) for i in range(2)],
        library=small(),
    )
    dom0 = made.domain(0)
    for pirq in range(16, 128):
        assert dom0.map_gsi(Gsi(pirq)) == pirq
    assert refused(dom0, dom0.map_gsi, Gsi(200)) is Status.NO_SPACE
    assert refused(dom0, dom0.get_free_pirq, MapPirq.GSI) is Status.NO_SPACE


def test_words_of_our_own_calls() -> None:
    dom0 = core()
    size = layout(abi.QueryVector).size
    good = abi.Header(version=abi.VERSION, bytes=size)
    for header in (
        abi.Header(version=abi.VERSION + 1, bytes=size),
        abi.Header(version=abi.VERSION, bytes=size - 1),
        abi.Header(version=abi.VERSION, bytes=size, zero=1),
    ):
        argument = abi.QueryVector(header=header, domain=0, irq=3)
        assert answer(dom0, abi.HYPERCALL_DOM0KIT, Op.QUERY_VECTOR, argument) is Status.INVALID
    assert answer(dom0, abi.HYPERCALL_DOM0KIT, Op.QUERY_VECTOR, abi.QueryVector(header=good, domain=9, irq=3)) is (
        Status.NO_DOMAIN
    )
    report = abi.ReadReport(header=abi.Header(version=abi.VERSION, bytes=layout(abi.ReadReport).size), index=5)
    assert answer(dom0, abi.HYPERCALL_DOM0KIT, Op.READ_REPORT, report) is Status.NOT_FOUND
    device = abi.PciDeviceAdd(seg=0, bus=0, devfn=0, flags=PciDev(8), physfn_bus=0, physfn_devfn=0)
    assert answer(dom0, abi.HYPERCALL_PHYSDEV, Physdev.PCI_DEVICE_ADD, abi.PciDeviceAddPxm(device=device, pxm=0)) is (
        Status.INVALID
    )
    for number, command in ((33, 0), (33, 99), (34, 5), (abi.HYPERCALL_DOM0KIT, 17), (0, 0)):
        assert dom0.call(number, command, bytes(256))[0] is Status.NO_CALL
    assert dom0.machine.call(9, 33, Physdev.EOI, bytes(4))[0] is Status.NO_DOMAIN
