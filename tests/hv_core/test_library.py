# SPDX-License-Identifier: MIT
"""The core as a library: machines of tables good and bad, and the things a random walk seldom comes to."""

from __future__ import annotations

import struct
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dom0kit import abi
from dom0kit.abi import Format, InterruptFlag, MapPirq, Mode, Op, Report, Status
from dom0kit.address import Gsi, Polarity, Sbdf, Trigger
from dom0kit.hypercall.core_library import CoreLibrary, IoapicModel, ModelMachine, load
from dom0kit.hypercall.interface import HypercallRefused, Message
from dom0kit.hypercall.shared_info import NotShared, parse_shared_info
from dom0kit.simulation import memory_image
from dom0kit.source.interface import RawTable
from dom0kit.source.recognise import open_source
from tests.corpus import acpi_folders
from tests.hv_core.machines import (
    FIRST,
    LIBRARY,
    SECOND,
    SPARE,
    cpu,
    ioapic,
    machine,
    madt,
    mcfg,
    override,
    pair,
    small,
    table,
)

NIC = Sbdf(0, 0, 3, 0)
QEMU = IoapicModel(address=FIRST)


def one_cpu(mode: Mode = Mode.INTERCEPT) -> tuple[ModelMachine, CoreLibrary]:
    made = machine(madt(cpu(0), cpu(1), ioapic(FIRST, 0)), ioapics=[QEMU], mode=mode)
    return made, made.domain(0)


def reports(*tables: bytes, ioapics: list[IoapicModel] | None = None, small_limits: bool = False) -> list[Report]:
    made = machine(
        *tables, ioapics=[QEMU] if ioapics is None else ioapics, library=small() if small_limits else LIBRARY
    )
    return [each.code for each in made.domain(0).reports()]


def refusal(call: object, *arguments: object, **more: object) -> Status:
    with pytest.raises(HypercallRefused) as caught:
        call(*arguments, **more)  # type: ignore[operator]
    return caught.value.status


# ---- Tables ----


def test_a_good_machine_reports_nothing() -> None:
    assert reports(madt(cpu(0), ioapic(FIRST, 0), override(0, 2)), mcfg((0xE0000000, 0, 0, 255))) == []


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([cpu(0), cpu(0), ioapic(FIRST, 0)], [Report.DUPLICATE_CPU]),
        ([ioapic(FIRST, 0)], [Report.NO_CPU]),
        ([cpu(0, flags=0), ioapic(FIRST, 0)], [Report.NO_CPU]),
        ([cpu(0), ioapic(0, 0)], [Report.IOAPIC_ADDRESS]),
        ([cpu(0), ioapic(FIRST + 4, 0)], [Report.IOAPIC_ADDRESS]),
        ([cpu(0), ioapic(FIRST, 0), ioapic(FIRST, 24)], [Report.IOAPIC_ADDRESS]),
        ([cpu(0), ioapic(FIRST, 0), ioapic(SECOND, 23)], [Report.IOAPIC_OVERLAP]),
        ([cpu(0), ioapic(FIRST, 0xFFFFFFF0)], [Report.IOAPIC_OVERLAP]),
        ([cpu(0), ioapic(SPARE, 0)], [Report.IOAPIC_ABSENT]),
        ([cpu(0), ioapic(FIRST, 0), ioapic(SECOND, 30)], [Report.GSI_GAP]),
        ([cpu(0), ioapic(FIRST, 0), override(16, 2)], [Report.OVERRIDE]),
        ([cpu(0), ioapic(FIRST, 0), override(0, 24)], [Report.OVERRIDE]),
        ([cpu(0), ioapic(FIRST, 0), override(0, 2), override(0, 3)], [Report.OVERRIDE]),
        ([cpu(0), ioapic(FIRST, 0), b"\1\13" + bytes(9)], [Report.BAD_ENTRY]),
        ([cpu(0), ioapic(FIRST, 0), b"\2\11" + bytes(7)], [Report.BAD_ENTRY]),
        ([cpu(0), ioapic(FIRST, 0), b"\0\7" + bytes(5)], [Report.BAD_ENTRY]),
        ([cpu(0), ioapic(FIRST, 0), b"\x09\x0f" + bytes(13)], [Report.BAD_ENTRY]),
        ([cpu(0), ioapic(FIRST, 0), b"\3\7" + bytes(5)], [Report.BAD_ENTRY]),
        ([cpu(0), ioapic(FIRST, 0), b"\x50\0"], [Report.BAD_ENTRY]),
        ([cpu(0), ioapic(FIRST, 0), b"\x50\x20"], [Report.BAD_ENTRY]),
        ([cpu(0), ioapic(FIRST, 0), b"\x50"], [Report.BAD_ENTRY]),
        ([cpu(0), ioapic(FIRST, 0), b"\x50\2", b"\3\10" + bytes(6)], []),
    ],
)
def test_madt(entries: list[bytes], expected: list[Report]) -> None:
    assert reports(madt(*entries), ioapics=[QEMU, IoapicModel(address=SECOND)]) == expected


def test_a_version_register_of_an_absent_ioapic() -> None:
    for version in (0, 0xFFFFFFFF):
        assert reports(madt(cpu(0), ioapic(FIRST, 0)), ioapics=[IoapicModel(address=FIRST, version=version)]) == [
            Report.IOAPIC_ABSENT
        ]


def test_an_ioapic_that_claims_240_pins_has_120() -> None:
    made = machine(madt(cpu(0), ioapic(FIRST, 0)), ioapics=[IoapicModel(address=FIRST, version=239 << 16 | 0x20)])
    dom0 = made.domain(0)
    assert [(each.code, each.value) for each in dom0.reports()] == [(Report.IOAPIC_PINS, 240)]
    assert dom0.information().gsis == 120
    assert dom0.apic_read(FIRST, 0xFF) == 0
    assert refusal(dom0.apic_read, FIRST, 0x100) is Status.OUT_OF_RANGE


def test_limits_of_tables() -> None:
    many = [cpu(number) for number in range(300)] + [
        ioapic(FIRST + 0x1000 * number, 24 * number) for number in range(6)
    ]
    models = [IoapicModel(address=FIRST + 0x1000 * number) for number in range(6)]
    ranges = mcfg(*((0xE0000000 - (number << 28), number, 0, 1) for number in range(6)))
    found = machine(madt(*many), ranges, ioapics=models, library=small()).domain(0)
    assert [each.code for each in found.reports()] == [
        Report.CPU_LIMIT,
        Report.IOAPIC_LIMIT,
        Report.IOAPIC_LIMIT,
        Report.MCFG_LIMIT,
    ]
    information = found.information()
    assert (information.cpus, information.ioapics) == (8, 4)


def test_more_reports_than_the_list_holds() -> None:
    many = [cpu(0)] * 20
    found = machine(madt(*many, ioapic(FIRST, 0)), ioapics=[QEMU], library=small()).domain(0)
    information = found.information()
    assert (information.reports, information.reports_lost) == (8, 11)
    assert len(list(found.reports())) == 8


def test_mcfg_entries() -> None:
    base = madt(cpu(0), ioapic(FIRST, 0))
    assert reports(base, mcfg((0xE0000000, 0, 0, 9), (0xD0000000, 0, 9, 10))) == [Report.MCFG_ENTRY]
    assert reports(base, mcfg((0xE0001000, 0, 0, 9))) == [Report.MCFG_ENTRY]
    assert reports(base, mcfg((0xE0000000, 0, 9, 0))) == [Report.MCFG_ENTRY]
    assert reports(base, mcfg((0xE0000000, 0, 0, 9), (0xD0000000, 1, 9, 10), (0xC0000000, 0, 10, 11))) == []
    assert reports(base, mcfg((0xE0000000, 0, 0, 9))[:-1] + b"\0") == []


def test_second_and_damaged_tables() -> None:
    good = madt(cpu(0), ioapic(FIRST, 0))
    assert reports(good, good) == [Report.SECOND_TABLE]
    assert reports(good, mcfg(), mcfg()) == [Report.SECOND_TABLE]
    assert reports(good[:-1] + b"\xff") == [Report.BAD_TABLE, Report.NO_MADT]
    assert reports(good[:4] + b"\x10\0\0\0" + good[8:]) == [Report.BAD_TABLE, Report.NO_MADT]
    assert reports(good[:4] + b"\0\0\0\x10" + good[8:]) == [Report.BAD_TABLE, Report.NO_MADT]
    assert reports() == [Report.NO_MADT]
    assert reports(good, table(b"SSDT", b"x")[:-1]) == [], "a table we do not read may be anything"


def test_remapping_tables_are_seen() -> None:
    base = madt(cpu(0), ioapic(FIRST, 0))
    assert abi.Feature.DMAR in machine(base, table(b"DMAR", bytes(12)), ioapics=[QEMU]).domain(0).features()
    assert abi.Feature.IVRS in machine(base, table(b"IVRS", bytes(12)), ioapics=[QEMU]).domain(0).features()


def test_roots() -> None:
    body, _, _ = memory_image([RawTable("APIC", madt(cpu(0), ioapic(FIRST, 0)))])
    at = body[0][0]

    def start(rsdp: bytes, *roots: tuple[int, bytes]) -> list[Report]:
        made = ModelMachine(memory=[*body[:1], *roots, (0xE0000, rsdp)], ioapics=[QEMU], rsdp=0xE0000, library=LIBRARY)
        return [each.code for each in made.domain(0).reports()]

    def rsdp(revision: int, rsdt: int, xsdt: int, length: int = 36) -> bytes:
        first = struct.pack("<8sB6sBI", b"RSD PTR ", 0, b"TEST  ", revision, rsdt)
        first = first[:8] + bytes([-sum(first) & 0xFF]) + first[9:]
        whole = first + struct.pack("<IQB3x", length, xsdt, 0)
        return whole[:32] + bytes([-sum(whole) & 0xFF]) + whole[33:]

    rsdt = (0x1000, table(b"RSDT", struct.pack("<I", at)))
    xsdt = (0x2000, table(b"XSDT", struct.pack("<Q", at)))
    assert start(rsdp(0, 0x1000, 0), rsdt) == []
    assert start(rsdp(0, 0x1000, 0)[:20], rsdt) == []
    assert start(rsdp(2, 0, 0x2000), xsdt) == []
    assert start(rsdp(2, 0x1000, 0x2000), rsdt) == [Report.BAD_TABLE]
    assert start(rsdp(2, 0x1000, 0x2000)) == [Report.BAD_TABLE, Report.NO_ROOT_TABLE]
    assert start(rsdp(2, 0x1000, 0x1000), rsdt) == [Report.BAD_TABLE], "an RSDT is no XSDT"
    assert start(rsdp(2, 0, 0x2000, length=35), xsdt) == [Report.NO_RSDP]
    assert start(rsdp(2, 0, 0x2000)[:20], xsdt) == [Report.NO_RSDP]
    assert start(b"RSD PTR?" + rsdp(2, 0, 0x2000)[8:], xsdt) == [Report.NO_RSDP]
    assert start(rsdp(0, 0x1000, 0)[:19] + b"\1", rsdt) == [Report.NO_RSDP]
    assert start(rsdp(2, 0, 0x2000)[:35] + b"\1", xsdt) == [Report.NO_RSDP]
    long = (0x10000, table(b"XSDT", struct.pack("<Q", at) + bytes(8 * 1500)))
    assert start(rsdp(2, 0, 0x10000), long) == [Report.BAD_TABLE]
    broken = (0x2000, xsdt[1][:-1] + b"\1")
    assert start(rsdp(2, 0x1000, 0x2000), broken, rsdt) == [Report.BAD_TABLE]
    cut = (0x2000, xsdt[1][:40])
    assert start(rsdp(2, 0, 0x2000), cut) == [Report.BAD_TABLE, Report.NO_ROOT_TABLE]


def test_hand_over_looks_for_itself() -> None:
    first = madt(cpu(0), ioapic(FIRST, 0))
    made = machine(first, ioapics=[QEMU])
    dom0 = made.domain(0)
    _, rsdp, xsdt = memory_image([RawTable("APIC", first)])
    counter = parse_shared_info(made.shared_info()).counter
    assert refusal(dom0.hand_over, rsdp, xsdt + 1, counter) is Status.INVALID
    assert refusal(dom0.hand_over, rsdp + 1, xsdt, counter) is Status.INVALID
    assert refusal(dom0.hand_over, rsdp, 0, counter) is Status.INVALID
    assert refusal(dom0.hand_over, rsdp, xsdt, counter + 2) is Status.TRY_AGAIN
    changes = made.changes()
    dom0.hand_over(rsdp, xsdt, counter)
    info = parse_shared_info(made.shared_info())
    assert (info.rsdp, info.xsdt, info.handed_over, info.counter) == (rsdp, xsdt, True, counter + 2)
    assert made.changes() == changes + 1


def test_shared_pages_that_are_not_ours() -> None:
    pages = one_cpu()[0].shared_info()
    assert len(parse_shared_info(pages).ioapics) == 1
    block = abi.SHARED_INFO_XEN_BYTES
    for at, value in (
        (block, 0),
        (block + 8, 2),
        (block + 12, 65),
        (block + 24, 3),
        (block + 48, 1),
        (block + 56, 200),
    ):
        with pytest.raises(NotShared):
            parse_shared_info(pages[:at] + bytes([value]) + pages[at + 1 :])
    with pytest.raises(NotShared, match="checksum"):
        parse_shared_info(pages[:4096] + bytes([pages[4096] ^ 1]) + pages[4097:])
    with pytest.raises(NotShared, match="two pages"):
        parse_shared_info(pages[:4096])


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=200), st.integers(0, 400), st.integers(0, 255))
def test_any_bytes_of_a_table_boot_or_are_reported(extra: bytes, place: int, value: int) -> None:
    good = bytearray(madt(cpu(0), cpu(1), ioapic(FIRST, 0), override(0, 2)) + extra)
    good[4:8] = len(good).to_bytes(4, "little")
    good[place % len(good)] = value
    good[9] = (good[9] - sum(good)) & 0xFF
    made = machine(bytes(good), mcfg((0xE0000000, 0, 0, 255)), ioapics=[QEMU])
    information = made.domain(0).information()
    assert information.cpus <= 4096
    assert all(each.where for each in made.domain(0).reports())


def test_recorded_machines_boot_the_core() -> None:
    folders = acpi_folders()
    if not folders:
        pytest.skip("no recorded machines here")
    booted = sum(_boots(folder) for folder in folders)
    assert booted > 200


def _boots(folder: Path) -> bool:
    """Does this machine have a MADT, and does the core then have all its processors and no IOAPIC too many?"""
    raw = [each for each in open_source(str(folder)).tables() if each.name.startswith(("APIC", "MCFG", "DMAR", "IVRS"))]
    if not any(each.name.startswith("APIC") for each in raw):
        return False
    entries = [(struct.unpack_from("<I", each.data, at + 4)[0], struct.unpack_from("<I", each.data, at + 8)[0])
               for each in raw if each.name.startswith("APIC") for at in _entries(each.data, 1)]  # fmt: skip
    memory, rsdp, _ = memory_image(raw)
    models = [IoapicModel(address=address) for address in dict.fromkeys(address for address, _ in entries) if address]
    dom0 = ModelMachine(memory=memory, ioapics=models, rsdp=rsdp, library=LIBRARY).domain(0)
    information = dom0.information()
    assert information.ioapics <= len(models)
    wanted = {each for raw_table in raw if raw_table.name == "APIC" for each in _enabled(raw_table.data)}
    damaged = any(each.code is Report.BAD_TABLE for each in dom0.reports())
    if not damaged and sum(each.name.startswith("APIC") for each in raw) == 1:
        assert information.cpus == len(wanted), folder
    return True


def _entries(data: bytes, type: int) -> list[int]:
    found, at = [], 44
    while at + 2 <= len(data) and data[at + 1] >= 2:
        if data[at] == type:
            found.append(at)
        at += data[at + 1]
    return found


def _enabled(data: bytes) -> set[int]:
    near = {data[at + 3] for at in _entries(data, 0) if data[at + 4] & 1}
    return near | {struct.unpack_from("<I", data, at + 4)[0] for at in _entries(data, 9) if data[at + 8] & 1}


# ---- What firmware left ----


def test_firmwares_entries_are_seen_and_its_vectors_kept_free() -> None:
    entries = {1: 0x31, 2: 0x0700, 3: 0x18030, 4: 0x0400, 5: 0x31 | 1 << 56}
    made = machine(madt(cpu(0), cpu(1), ioapic(FIRST, 0)), ioapics=[IoapicModel(address=FIRST, entries=entries)])
    dom0 = made.domain(0)
    assert [(each.code, each.value) for each in dom0.reports()] == [
        (Report.FIRMWARE_ENTRY, 2),
        (Report.FIRMWARE_ENTRY, 4),
    ]
    assert (dom0.query_vector(1).cpu, dom0.query_vector(1).vector) == (0, 0x31)
    assert (dom0.query_vector(5).cpu, dom0.query_vector(5).vector) == (1, 0x31)
    assert not any(access.write for access in made.log()), "a start writes nothing"
    dom0.apic_write(FIRST, 0x14, 0x10700)
    assert made.entry(FIRST, 2) == 0x10700, "masking firmware's ExtINT is allowed"
    assert refusal(dom0.apic_write, FIRST, 0x14, 0x700) is Status.INVALID
    assert refusal(dom0.apic_write, FIRST, 0x18, 0x10700) is Status.INVALID, "another mode than firmware's"


# ---- Sharing, moving, delivery ----


def test_a_shared_line_counts_its_users() -> None:
    _, dom0 = one_cpu()
    gsi = Gsi(20)
    dom0.setup_gsi(gsi, Trigger.LEVEL, Polarity.LOW)
    assert dom0.map_gsi(gsi, 20) == 20
    assert dom0.irq_status_query(20) == abi.IrqStatus.NEEDS_EOI
    assert dom0.map_gsi(gsi) == 20
    assert dom0.irq_status_query(20) == abi.IrqStatus.NEEDS_EOI | abi.IrqStatus.SHARED
    vector = dom0.query_vector(20)
    dom0.unmap_pirq(20)
    assert dom0.query_vector(20).vector == vector.vector
    dom0.unmap_pirq(20)
    assert refusal(dom0.query_vector, 20) is Status.NOT_FOUND
    assert refusal(dom0.unmap_pirq, 20) is Status.INVALID


def test_a_level_interrupt_from_line_to_eoi() -> None:
    made, dom0 = one_cpu()
    dom0.setup_gsi(Gsi(9), Trigger.LEVEL, Polarity.LOW)
    dom0.map_gsi(Gsi(9), 9)
    dom0.apic_write(FIRST, 0x10 + 18, 0xA059)
    made.line(FIRST, 9, True)
    vector = dom0.query_vector(9).vector
    arrival = made.take(0)
    assert arrival is not None
    assert (arrival.vector, arrival.gsi, arrival.pirq, arrival.guest_vector, arrival.level) == (
        vector,
        9,
        9,
        0x59,
        True,
    )
    assert dom0.apic_read(FIRST, 0x10 + 18) & 1 << 14
    assert refusal(dom0.apic_write, FIRST, 0x10 + 18, 0x12059) is Status.BUSY, "no change of trigger in service"
    assert made.take(0) is None
    made.end(0)
    assert made.take(0) is not None, "the line is still high"
    made.line(FIRST, 9, False)
    dom0.eoi(9)
    assert not dom0.apic_read(FIRST, 0x10 + 18) & 1 << 14
    made.end(0)
    assert made.take(0) is None


def test_a_move_drains() -> None:
    made, dom0 = one_cpu()
    dom0.map_gsi(Gsi(5), 5)
    dom0.apic_write(FIRST, 0x10 + 10, 0x55)
    before = dom0.query_vector(5)
    dom0.set_affinity(5, 1)
    after = dom0.query_vector(5)
    assert (before.cpu, after.cpu) == (0, 1)
    assert InterruptFlag.DRAINING in after.flags
    assert refusal(dom0.set_affinity, 5, 0) is Status.TRY_AGAIN
    assert dom0.apic_read(FIRST, 0x11 + 10) == 1 << 24, "the view's destination follows"
    made.line(FIRST, 5, True)
    arrival = made.take(1)
    assert arrival is not None
    assert arrival.gsi == 5
    assert InterruptFlag.DRAINING not in dom0.query_vector(5).flags
    dom0.set_affinity(5, 0)
    dom0.eoi(5)
    assert InterruptFlag.DRAINING not in dom0.query_vector(5).flags


def test_an_entry_that_was_never_open_has_nothing_to_drain() -> None:
    _, dom0 = one_cpu()
    dom0.alloc_irq_vector(5)
    dom0.set_affinity(5, 1)
    dom0.set_affinity(5, 0)
    assert not dom0.query_vector(5).flags & InterruptFlag.DRAINING


@pytest.mark.parametrize("format", list(Format))
def test_messages_reach_their_processor(format: Format) -> None:
    made = machine(
        madt(cpu(0), cpu(1), cpu(0x200), ioapic(FIRST, 0)), ioapics=[QEMU], entry_format=format, message_format=format
    )
    dom0 = made.domain(0)
    dom0.pci_device_add(NIC)
    for entry in range(3):
        pirq = dom0.map_msix(NIC, entry, 0xF0000000)
        place, message = dom0.query_vector(pirq), dom0.msi_read(pirq)
        first_message = 1 + 128 * 120 if LIBRARY is None else 0
        made.message(message.address, message.data, first_message + entry)
        arrival = made.take(place.cpu or 0)
        if arrival is not None or LIBRARY is None:
            assert arrival is not None
            assert (arrival.vector, arrival.pirq, arrival.domain) == (place.vector, pirq, 0)
    cpus = {each.cpu for each in dom0.interrupts()}
    assert (2 in cpus) == (format is not Format.COMPATIBILITY), "APIC id 0x200 needs a wide format"


def test_a_run_of_messages_is_consecutive() -> None:
    for format in (Format.COMPATIBILITY, Format.VTD):
        made = machine(madt(cpu(0), ioapic(FIRST, 0)), ioapics=[QEMU], message_format=format)
        dom0 = made.domain(0)
        dom0.pci_device_add(NIC)
        first = dom0.map_msi(NIC, 8)
        vectors = [dom0.query_vector(first + number).vector for number in range(8)]
        assert vectors == list(range(vectors[0], vectors[0] + 8))
        assert vectors[0] % 8 == 0
        messages = [dom0.msi_read(first + number) for number in range(8)]
        if format is Format.VTD:
            assert len({message.address for message in messages}) == 1
            assert [message.data for message in messages] == list(range(8))
            assert messages[0].address & 0x18 == 0x18
        dom0.unmap_pirq(first + 3)
        assert len(list(dom0.interrupts())) == 7
        dom0.pci_device_remove(NIC)
        assert list(dom0.interrupts()) == []


def test_direct_mode_records_what_dom0_chose() -> None:
    _, dom0 = one_cpu(Mode.DIRECT)
    dom0.pci_device_add(NIC)
    pirq = dom0.map_msi(NIC)
    assert refusal(dom0.query_vector, pirq) is Status.NOT_FOUND
    assert refusal(dom0.msi_read, pirq) is Status.NOT_FOUND
    dom0.msi_write(pirq, Message(0xFEE01000, 0x4041))
    assert (dom0.query_vector(pirq).cpu, dom0.query_vector(pirq).vector) == (1, 0x41)
    dom0.apic_write(FIRST, 0x11, 1 << 24)
    assert refusal(dom0.apic_write, FIRST, 0x10, 0x41) is Status.EXISTS
    dom0.apic_write(FIRST, 0x10, 0x42)
    assert refusal(dom0.msi_write, pirq, Message(0xFEE01000, 0x42)) is Status.EXISTS
    assert refusal(dom0.set_affinity, pirq, 0) is Status.NOT_SUPPORTED
    dom0.msi_write(pirq, Message(0xFEE03004, 0x43))
    several = dom0.query_vector(pirq)
    assert (several.cpu, several.apic_id, several.vector) == (None, 3, 0x43)
    dom0.apic_write(FIRST, 0x10, 0x10042)
    dom0.apic_write(FIRST, 0x11, 3 << 24)
    dom0.apic_write(FIRST, 0x10, 0x844)
    assert (dom0.query_vector(0).cpu, dom0.query_vector(0).vector) == (None, 0x44)
    assert refusal(dom0.alloc_irq_vector, 1) is Status.NOT_FOUND


# ---- Running out ----


def test_vectors_run_out_and_come_back() -> None:
    made = machine(madt(cpu(0), ioapic(FIRST, 0)), ioapics=[QEMU])
    dom0 = made.domain(0)
    dom0.pci_device_add(NIC)
    pirqs = [dom0.map_msix(NIC, entry, 0xF0000000) for entry in range(207)]
    assert refusal(dom0.map_msix, NIC, 207, 0xF0000000) is Status.NO_SPACE
    used = {dom0.query_vector(pirq).vector for pirq in pirqs}
    assert used == set(range(0x20, 0xF0)) - {0x80}
    classes = [dom0.query_vector(pirq).vector >> 4 for pirq in pirqs[:26]]
    assert sorted(classes) == sorted([*range(2, 15)] * 2), "priority classes take turns"
    assert refusal(dom0.alloc_irq_vector, 3) is Status.NO_SPACE
    assert refusal(dom0.setup_gsi, Gsi(3), Trigger.EDGE, Polarity.HIGH) is Status.NO_SPACE
    dom0.unmap_pirq(pirqs[100])
    dom0.setup_gsi(Gsi(3), Trigger.EDGE, Polarity.HIGH)


def test_processors_take_turns() -> None:
    made = machine(madt(*(cpu(number) for number in range(130)), ioapic(FIRST, 0)), ioapics=[QEMU])
    dom0 = made.domain(0)
    dom0.pci_device_add(NIC)
    pirqs = [dom0.map_msix(NIC, entry, 0xF0000000) for entry in range(260)]
    assert [dom0.query_vector(pirq).cpu for pirq in pirqs] == [*range(130)] * 2


def test_a_domains_limit_of_vectors() -> None:
    _, dom0 = one_cpu()
    machine_ = dom0.machine
    assert dom0.domain_create(vectors=2) == 1
    for gsi in (3, 4, 5):
        dom0.assign_gsi(1, Gsi(gsi))
    guest = machine_.domain(1)
    guest.alloc_irq_vector(3)
    guest.alloc_irq_vector(4)
    assert refusal(guest.alloc_irq_vector, 5) is Status.NO_SPACE
    assert refusal(guest.set_affinity, 3, 1) is Status.NO_SPACE
    dom0.domain_destroy(1)
    assert dom0.information().domains == 1
    assert refusal(guest.information) is Status.NO_DOMAIN


def test_small_limits_are_reached() -> None:
    real, _ = pair(library=small())
    dom0 = real.domain(0)
    for device in range(8):
        dom0.pci_device_add(Sbdf(0, 1, device, 0))
    assert refusal(dom0.pci_device_add, Sbdf(0, 1, 9, 0)) is Status.NO_SPACE
    dom0.map_msi(Sbdf(0, 1, 0, 0), 32)
    dom0.map_msi(Sbdf(0, 1, 1, 0), 16)
    assert refusal(dom0.map_msi, Sbdf(0, 1, 2, 0), 32) is Status.NO_SPACE
    for domain in (1, 2, 3):
        assert dom0.domain_create() == domain
    assert refusal(dom0.domain_create) is Status.NO_SPACE
    assert refusal(dom0.get_free_pirq, MapPirq.MULTI_MSI) is Status.INVALID
    assert refusal(dom0.map_gsi, Gsi(0), 128) is Status.OUT_OF_RANGE
    assert refusal(dom0.map_gsi, Gsi(0), 40) is Status.EXISTS


def test_hot_ioapics_up_to_the_limit() -> None:
    real, _ = pair(library=small())
    dom0 = real.domain(0)
    for number, base in ((0, 100), (1, 200), (2, 300)):
        real.plug_ioapic(IoapicModel(address=0xFED00000 + 0x1000 * number, entries={1: 0x700}))
        if number < 2:
            assert dom0.ioapic_add(0xFED00000 + 0x1000 * number, Gsi(base)) == 24
            assert real.entry(0xFED00000 + 0x1000 * number, 1) == 0x10700, "all its pins are masked"
    assert refusal(dom0.ioapic_add, 0xFED02000, Gsi(300)) is Status.NO_SPACE
    dom0.ioapic_remove(SECOND)
    assert dom0.ioapic_add(0xFED02000, Gsi(300)) == 24
    assert refusal(dom0.apic_read, SECOND, 0) is Status.INVALID
    assert [each.address for each in parse_shared_info(real.shared_info()).ioapics] == [
        FIRST,
        0xFED02000,
        0xFED00000,
        0xFED01000,
    ]


# ---- The way in ----


def test_arguments_too_short_and_calls_unknown() -> None:
    made, _ = one_cpu()
    assert made.call(0, 33, 8, bytes(15))[0] is Status.FAULT
    assert made.call(0, 33, 25, struct.pack("<HBBIBBH", 0, 0, 0, 4, 0, 0, 0))[0] is Status.FAULT
    assert made.call(0, 33, 7, bytes(64))[0] is Status.NO_CALL
    assert made.call(0, 34, 8, bytes(64))[0] is Status.NO_CALL
    assert made.call(0, 0xD0, 17, bytes(64))[0] is Status.NO_CALL
    assert made.call(7, 33, 8, bytes(64))[0] is Status.NO_DOMAIN
    assert made.call(1 << 31, 33, 8, bytes(64))[0] is Status.NO_DOMAIN


def test_trapped_accesses_are_the_hypercall() -> None:
    made, dom0 = one_cpu()
    assert made.trapped_write(0, FIRST, 0x10, 0x31) is Status.OK
    assert made.trapped_read(0, FIRST, 0x10) == (Status.OK, 0x31)
    assert made.trapped_write(0, FIRST, 0x10, 0x231) is Status.INVALID
    assert made.trapped_write(0, FIRST, 1, 0) is Status.NOT_PERMITTED
    assert made.trapped_write(3, FIRST, 0x10, 0x31) is Status.NO_DOMAIN
    assert made.trapped_read(3, FIRST, 0x10)[0] is Status.NO_DOMAIN
    assert made.trapped_read(99, FIRST, 0x10)[0] is Status.NO_DOMAIN
    information = dom0.information()
    assert (information.trapped, information.trapped_refused) == (7, 5)
    assert information.calls_refused == 0


def test_a_start_that_makes_no_sense() -> None:
    made, _ = one_cpu()
    for bad in ({"mode": 0}, {"mode": 3}, {"entry_format": 4}, {"message_format": 4}):
        with pytest.raises(ValueError, match="no meaning"):
            made.restart(**bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="already there"):
        made.plug_ioapic(QEMU)
    with pytest.raises(ValueError, match="no meaning"):
        made.plug_ioapic(IoapicModel(address=0))


def test_refusals_read_well() -> None:
    _, dom0 = one_cpu()
    with pytest.raises(HypercallRefused) as caught:
        dom0.apic_read(0x1000, 0)
    assert str(caught.value) == (
        "apic_read(apic_physbase=0x1000, reg=0x0, value=0x0): an argument has no meaning (INVALID)"
    )
    with pytest.raises(ValueError, match="16 bits"):
        dom0.pci_device_add(Sbdf(0x10000, 0, 0, 0))


def test_many_threads_keep_the_books_straight() -> None:
    made, dom0 = one_cpu()
    for device in range(8):
        dom0.pci_device_add(Sbdf(0, 2, device, 0))

    def work(device: int) -> None:
        for _ in range(100):
            pirqs = [dom0.map_msix(Sbdf(0, 2, device, 0), entry, 0xF0000000) for entry in range(8)]
            for pirq in pirqs:
                dom0.unmap_pirq(pirq)

    threads = [threading.Thread(target=work, args=(device,)) for device in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(dom0.interrupts()) == []
    assert dom0.information().messages == 0
    digest = made.digest()
    made.restart()
    assert digest != 0


def test_own_calls_check_their_header() -> None:
    made, _ = one_cpu()
    good = struct.pack("<HHI", 1, 120, 0) + bytes(112)
    assert made.call(0, 0xD0, Op.INFORMATION, good)[0] is Status.OK
    for bad in ((2, 120, 0), (1, 119, 0), (1, 120, 1)):
        assert made.call(0, 0xD0, Op.INFORMATION, struct.pack("<HHI", *bad) + bytes(112))[0] is Status.INVALID


def test_the_library_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from dom0kit.hypercall.core_library import LibraryMissing

    monkeypatch.setitem(sys.modules, "dom0kit.hypercall._core_library", None)
    with pytest.raises(LibraryMissing, match="apt-get install gcc"):
        load()
