# SPDX-License-Identifier: MIT
"""The typed calls: the bytes each one sends, against Xen's layouts written by hand, and what becomes of an answer."""

from __future__ import annotations

import struct
from collections.abc import Callable
from itertools import islice

import pytest

from dom0kit.abi import InterruptFlag, IrqStatus, Kind, MapPirq, Report, Status
from dom0kit.address import Gsi, Polarity, Sbdf, Trigger
from dom0kit.hypercall.interface import CoreReport, HypercallRefused, Hypervisor, Message

NIC = Sbdf(0, 3, 5, 1)
FAR = Sbdf(0xFFFF, 0x80, 0, 0)


class Recorder(Hypervisor):
    """Answers what it was told to, and keeps what it was asked."""

    def __init__(self, *answers: tuple[Status, bytes]) -> None:
        self.asked: list[tuple[int, int, bytes]] = []
        self._answers = list(answers)

    def call(self, number: int, command: int, argument: bytes) -> tuple[Status, bytes]:
        self.asked.append((number, command, argument))
        status, answer = self._answers.pop(0) if self._answers else (Status.OK, argument)
        return status, answer or argument


def map_pirq(domid: int, type: int, index: int, pirq: int, bus: int, devfn: int, entry: int, table: int) -> bytes:
    """Xen's struct physdev_map_pirq on x86-64."""
    return struct.pack("<H2xiiiiii4xQ", domid, type, index, pirq, bus, devfn, entry, table)


XEN: list[tuple[Callable[[Hypervisor], object], int, bytes]] = [
    (lambda core: core.irq_status_query(7), 5, struct.pack("<II", 7, 0)),
    (lambda core: core.apic_read(0xFEC00000, 1), 8, struct.pack("<QII", 0xFEC00000, 1, 0)),
    (lambda core: core.apic_write(0xFEC00000, 0x10, 0x10000), 9, struct.pack("<QII", 0xFEC00000, 0x10, 0x10000)),
    (lambda core: core.alloc_irq_vector(9), 10, struct.pack("<II", 9, 0)),
    (lambda core: core.eoi(9), 12, struct.pack("<I", 9)),
    (lambda core: core.map_gsi(Gsi(9), 9), 13, map_pirq(0x7FF0, 1, 9, 9, 0, 0, 0, 0)),
    (lambda core: core.map_gsi(Gsi(9), domain=3), 13, map_pirq(3, 1, 9, -1, 0, 0, 0, 0)),
    (lambda core: core.map_msi(NIC), 13, map_pirq(0x7FF0, 3, -1, -1, 3, 0x29, 0, 0)),
    (lambda core: core.map_msi(NIC, 8), 13, map_pirq(0x7FF0, 4, -1, -1, 3, 0x29, 8, 0)),
    (lambda core: core.map_msix(FAR, 2, 0xF0000000, 40), 13,
     map_pirq(0x7FF0, 3, -1, 40, -0x10000 + 0x80, 0, 2, 0xF0000000)),
    (lambda core: core.unmap_pirq(40), 14, struct.pack("<H2xi", 0x7FF0, 40)),
    (lambda core: core.setup_gsi(Gsi(9), Trigger.LEVEL, Polarity.LOW), 21, struct.pack("<iBB2x", 9, 1, 1)),
    (lambda core: core.setup_gsi(Gsi(4), Trigger.EDGE, Polarity.HIGH), 21, struct.pack("<iBB2x", 4, 0, 0)),
    (lambda core: core.get_free_pirq(MapPirq.GSI), 23, struct.pack("<iI", 1, 0)),
    (lambda core: core.pci_mmcfg_reserved(0xE0000000, 1, 0, 0x7F, True), 24,
     struct.pack("<QHBBI", 0xE0000000, 1, 0, 0x7F, 1)),
    (lambda core: core.pci_mmcfg_reserved(0xE0000000, 1, 0, 0x7F, False), 24,
     struct.pack("<QHBBI", 0xE0000000, 1, 0, 0x7F, 0)),
    (lambda core: core.pci_device_add(NIC), 25, struct.pack("<HBBIBBHI", 0, 3, 0x29, 0, 0, 0, 0, 0)),
    (lambda core: core.pci_device_add(NIC, physical=Sbdf(0, 2, 1, 0), extended=True, pxm=1), 25,
     struct.pack("<HBBIBBHI", 0, 3, 0x29, 7, 2, 8, 0, 1)),
    (lambda core: core.pci_device_remove(FAR), 26, struct.pack("<HBB", 0xFFFF, 0x80, 0)),
    (lambda core: core.pci_device_reset(NIC), 32, struct.pack("<HBBI", 0, 3, 0x29, 3)),
]  # fmt: skip


@pytest.mark.parametrize(("call", "command", "data"), XEN)
def test_bytes_are_xens(call: Callable[[Hypervisor], object], command: int, data: bytes) -> None:
    recorder = Recorder()
    call(recorder)
    assert recorder.asked == [(33, command, data)]


def own(size: int) -> bytes:
    return struct.pack("<HHI", 1, size, 0)


OWN: list[tuple[Callable[[Hypervisor], object], int, bytes]] = [
    (lambda core: core.information(), 0, own(120) + bytes(112)),
    (lambda core: core.map_shared_info(0x7FF00000), 1, own(16) + struct.pack("<Q", 0x7FF00000)),
    (lambda core: core.hand_over(0xE0000, 0x1000, 4), 2, own(32) + struct.pack("<QQQ", 0xE0000, 0x1000, 4)),
    (lambda core: core.query_vector(9), 3, own(32) + struct.pack("<6I", 0x7FF0, 9, 0, 0, 0, 0)),
    (lambda core: core.set_affinity(9, 2, domain=1), 4, own(24) + struct.pack("<4I", 1, 9, 2, 0)),
    (lambda core: core.ioapic_add(0xFEC10000, Gsi(24)), 5, own(24) + struct.pack("<QII", 0xFEC10000, 24, 0)),
    (lambda core: core.ioapic_remove(0xFEC10000), 6, own(16) + struct.pack("<Q", 0xFEC10000)),
    (lambda core: core.domain_create(), 7, own(16) + struct.pack("<II", 0xFFFF, 0)),
    (lambda core: core.domain_create(2, vectors=8), 7, own(16) + struct.pack("<II", 2, 8)),
    (lambda core: core.domain_destroy(2), 8, own(16) + struct.pack("<II", 2, 0)),
    (lambda core: core.assign_device(2, NIC), 9, own(16) + struct.pack("<IHBB", 2, 0, 3, 0x29)),
    (lambda core: core.release_device(2, NIC), 10, own(16) + struct.pack("<IHBB", 2, 0, 3, 0x29)),
    (lambda core: core.assign_gsi(2, Gsi(9)), 11, own(16) + struct.pack("<II", 2, 9)),
    (lambda core: core.release_gsi(2, Gsi(9)), 12, own(16) + struct.pack("<II", 2, 9)),
    (lambda core: core.msi_read(40), 15, own(32) + struct.pack("<IIQII", 0x7FF0, 40, 0, 0, 0)),
    (lambda core: core.msi_write(40, Message(0xFEE01000, 0x41)), 16,
     own(32) + struct.pack("<IIQII", 0x7FF0, 40, 0xFEE01000, 0x41, 0)),
]  # fmt: skip


@pytest.mark.parametrize(("call", "command", "data"), OWN)
def test_bytes_of_our_own_calls(call: Callable[[Hypervisor], object], command: int, data: bytes) -> None:
    recorder = Recorder()
    call(recorder)
    assert recorder.asked == [(0xD0, command, data)]


def test_answers_are_values() -> None:
    assert Recorder((Status.OK, struct.pack("<II", 7, 3))).irq_status_query(7) == (
        IrqStatus.NEEDS_EOI | IrqStatus.SHARED
    )
    assert Recorder((Status.OK, struct.pack("<QII", 0, 1, 0x170020))).apic_read(0, 1) == 0x170020
    assert Recorder((Status.OK, map_pirq(0, 1, 9, 17, 0, 0, 0, 0))).map_gsi(Gsi(9)) == 17
    vector = Recorder((Status.OK, own(32) + struct.pack("<6I", 0, 9, 0xFFFFFFFF, 3, 0x41, 2))).query_vector(9)
    assert (vector.cpu, vector.apic_id, vector.vector, vector.flags) == (None, 3, 0x41, InterruptFlag.LEVEL)


def test_a_refusal_names_the_call_and_the_reason() -> None:
    with pytest.raises(HypercallRefused) as caught:
        Recorder((Status.BUSY, b"")).ioapic_remove(0xFEC10000)
    assert caught.value.status is Status.BUSY
    assert str(caught.value) == (
        "ioapic_remove(address=0xfec10000): it is in use, or a level interrupt is in service: release it first (BUSY)"
    )


def interrupt(cursor: int, kind: Kind, pirq: int, gsi: int, devfn: int = 0) -> tuple[Status, bytes]:
    none = 0xFFFFFFFF
    return Status.OK, own(48) + struct.pack("<IIIIIHBBIIII", 0, cursor, kind, pirq, gsi, 0, 3, devfn, 2, none, none, 0)


def test_a_list_of_interrupts_is_read_to_its_end() -> None:
    core = Recorder(
        interrupt(100, Kind.GSI, 9, 9),
        interrupt(4096, Kind.NONE, 0, 0),
        interrupt(4200, Kind.MSIX, 40, 0xFFFFFFFF, 0x29),
        (Status.NOT_FOUND, b""),
    )
    line, message = core.interrupts(0)
    assert (line.kind, line.pirq, line.gsi, line.function, line.cpu, line.vector) == (Kind.GSI, 9, 9, None, None, None)
    assert (message.kind, message.pirq, message.gsi, message.function, message.entry) == (Kind.MSIX, 40, None, NIC, 2)
    assert [struct.unpack_from("<I", data, 12)[0] for _, _, data in core.asked] == [0, 100, 4096, 4200]


def test_a_list_that_does_not_go_on_ends() -> None:
    with pytest.raises(ValueError, match="goes back from 100 to 100"):
        list(islice(Recorder(*[interrupt(100, Kind.GSI, 9, 9)] * 9).interrupts(0), 9))
    with pytest.raises(HypercallRefused, match="NO_DOMAIN"):
        list(Recorder((Status.NO_DOMAIN, b"")).interrupts(5))


def test_every_report_has_a_sentence() -> None:
    sentences = {CoreReport(code, 0, 0x43495041).sentence for code in Report}
    assert len(sentences) == len(Report)
    assert CoreReport(Report.SECOND_TABLE, 0, 0x43495041).sentence == "a second table is ignored: 'APIC'"


def test_a_segment_has_16_bits() -> None:
    for call in (Hypervisor.pci_device_add, Hypervisor.pci_device_remove, Hypervisor.map_msi):
        with pytest.raises(ValueError, match="16 bits for a segment"):
            call(Recorder(), Sbdf(0x10000, 0, 0, 0))
