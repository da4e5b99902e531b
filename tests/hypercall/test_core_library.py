# SPDX-License-Identifier: MIT
"""The modelled machine under the core: what it does with any argument, and the core's writes as hardware sees them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dom0kit.abi import ARGUMENTS, Mode, Status
from dom0kit.address import Gsi, Polarity, Trigger
from dom0kit.hypercall.core_library import Access, CoreLibrary, IoapicModel, LibraryMissing, ModelMachine, load
from dom0kit.layout import layout
from tests.hv_core.machines import FIRST, LIBRARY, cpu, ioapic, machine, madt

MASKED, IRR, LEVEL = 1 << 16, 1 << 14, 1 << 15


def booted(*processors: int, ioapics: tuple[IoapicModel, ...] = (IoapicModel(address=FIRST),)) -> ModelMachine:
    return machine(madt(*(cpu(apic_id) for apic_id in processors), ioapic(FIRST, 0)), ioapics=ioapics)


def low_writes(log: list[Access], pin: int) -> list[tuple[int, int, bool]]:
    """What was done to an entry's words: (0 low or 1 high, value, written)."""
    return [(each.index & 1, each.value, each.write) for each in log if each.index >> 1 == 8 + pin]


def test_a_pure_mask_is_one_write() -> None:
    made = booted(0, 1)
    dom0 = made.domain(0)
    dom0.apic_write(FIRST, 0x10, 0x31)
    live = made.entry(FIRST, 0)
    made.log()
    dom0.apic_write(FIRST, 0x10, 0x31 | MASKED)
    assert [each for each in low_writes(made.log(), 0) if each[2]] == [(0, live & 0xFFFFFFFF | MASKED, True)]


def test_a_live_entry_moves_masked() -> None:
    """Invariant 4: low word masked, read back, high word, low word with the final mask."""
    made = booted(0, 1)
    dom0 = made.domain(0)
    dom0.apic_write(FIRST, 0x10, 0x31)
    made.log()
    dom0.set_affinity(0, 1)
    done = low_writes(made.log(), 0)
    first = next(index for index, each in enumerate(done) if each[2])
    (word, value, _), (back, seen, written), (high, target, _), (last, final, _) = done[first : first + 4]
    assert (word, value & MASKED, back, seen, written) == (0, MASKED, 0, value, False)
    assert (high, target >> 24, last, final & MASKED) == (1, 1, 0, 0)
    assert made.entry(FIRST, 0) == target << 32 | final


def test_remote_irr_belongs_to_the_hardware() -> None:
    made = booted(0)
    dom0 = made.domain(0)
    dom0.setup_gsi(Gsi(3), Trigger.LEVEL, Polarity.HIGH)
    dom0.apic_write(FIRST, 0x16, 0x33 | LEVEL)
    made.line(FIRST, 3, True)
    assert made.entry(FIRST, 3) & IRR
    dom0.apic_write(FIRST, 0x16, 0x33 | LEVEL | MASKED)
    assert made.entry(FIRST, 3) & IRR, "a write does not clear it"
    assert made.take(0) is not None
    dom0.apic_write(FIRST, 0x16, 0x33 | LEVEL)
    made.line(FIRST, 3, False)
    assert made.end(0) is not None
    assert not made.entry(FIRST, 3) & IRR
    assert made.take(0) is None, "what was in service was not sent again when the entry was unmasked"


def test_an_edge_is_the_raising_of_a_line() -> None:
    made = booted(0)
    made.domain(0).apic_write(FIRST, 0x12, 0x31)
    for high, pending in ((True, True), (True, False), (False, False), (True, True)):
        made.line(FIRST, 1, high)
        assert (made.take(0) is not None) == pending
        made.end(0)


def test_a_higher_class_interrupts_a_lower_one() -> None:
    made = booted(0)
    dom0 = made.domain(0)
    vectors = {}
    for gsi in range(1, 8):
        dom0.apic_write(FIRST, 0x10 + 2 * gsi, 0x30 + gsi)
        vectors[dom0.query_vector(gsi).vector] = gsi
    assert len({vector >> 4 for vector in vectors}) == 7
    low, middle, *_, high = sorted(vectors)
    made.line(FIRST, vectors[middle], True)
    assert made.take(0) is not None
    made.line(FIRST, vectors[low], True)
    assert made.take(0) is None
    made.line(FIRST, vectors[high], True)
    arrival = made.take(0)
    assert arrival is not None
    assert arrival.vector == high
    assert [made.end(0), made.end(0), made.end(0)] == [high, middle, None]
    arrival = made.take(0)
    assert arrival is not None
    assert arrival.gsi == vectors[low]


def test_a_message_nobody_sent() -> None:
    made = booted(0)
    assert made.message(0xFEE00000, 0x41) is Status.OK
    arrival = made.take(0)
    assert arrival is not None
    assert (arrival.vector, arrival.status) == (0x41, Status.NOT_FOUND)
    assert made.message(0xFEE05000, 0x41) is Status.OUT_OF_RANGE, "no processor 5"
    assert made.message(0xFED00000, 0x41) is Status.INVALID
    assert made.message(0xFEE00000, 0x241) is Status.INVALID, "an SMI"


def test_what_is_not_there() -> None:
    made = booted(0)
    assert made.register(FIRST + 0x1000, 0) is None
    assert made.take(4095) is None
    assert made.take(4096) is None
    assert made.end(1 << 31) is None
    with pytest.raises(KeyError):
        made.entry(FIRST + 0x1000, 0)
    with pytest.raises(ValueError, match="pin 24"):
        made.line(FIRST, 24, True)
    with pytest.raises(ValueError, match="no such PCI function, IOAPIC"):
        made.line(FIRST + 0x1000, 0, True)
    with pytest.raises(ValueError, match="pin 24"):
        made.plug_ioapic(IoapicModel(address=FIRST + 0x1000, entries={24: 0}))
    with pytest.raises(ValueError, match="memory at 0xffffffffffffffff"):
        ModelMachine(memory=[((1 << 64) - 1, b"12")], library=LIBRARY)
    with pytest.raises(ValueError, match="memory at 0x1000"):
        ModelMachine(memory=[(0x1000, b"")], library=LIBRARY)
    with pytest.raises(ValueError, match="no vector, pIRQ or message is free, or a limit"):
        ModelMachine(memory=[(0x1000 * number, b"1") for number in range(257)], library=LIBRARY)
    with pytest.raises(ValueError, match="IOAPIC at"):
        ModelMachine(ioapics=[IoapicModel(address=0x1000 * number) for number in range(1, 258)], library=LIBRARY)


def test_the_log_keeps_the_first() -> None:
    made = booted(0)
    dom0 = made.domain(0)
    made.log()
    for _ in range(5000):
        dom0.apic_read(FIRST, 1)
    assert len(made.log()) in range(1, 4097)
    assert made.log() == []


def test_two_machines_know_nothing_of_each_other() -> None:
    one, two = booted(0), booted(0, 1)
    one.domain(0).apic_write(FIRST, 0x10, 0x31)
    assert two.entry(FIRST, 0) == MASKED
    assert (one.domain(0).information().cpus, two.domain(0).information().cpus) == (1, 2)
    before = two.digest()
    del one
    assert two.digest() == before


def test_a_restart_forgets() -> None:
    made = booted(0)
    made.domain(0).alloc_irq_vector(5)
    made.domain(0).map_shared_info(0x7FF00000)
    assert made.shared_at() == 0x7FF00000
    made.restart(mode=Mode.DIRECT)
    assert made.shared_at() == 0
    core = made.domain(0)
    assert list(core.interrupts()) == []
    assert (core.mode(), core.information().cpus) == (Mode.DIRECT, 0), "without tables there is no processor"


@settings(deadline=None, max_examples=300)
@given(st.integers(-(1 << 40), 1 << 40), st.sampled_from([33, 0xD0, 0, 1 << 40]), st.integers(-5, 300),
       st.binary(max_size=160))  # fmt: skip
def test_any_call_has_a_status(domain: int, number: int, command: int, argument: bytes) -> None:
    made = BOOTED
    before = made.digest()
    status, answer = made.call(domain, number, command, argument)
    assert isinstance(status, Status)
    assert len(answer) == len(argument)
    if status is not Status.OK:
        assert answer == argument
        assert made.digest() == before


BOOTED = booted(0, 1)


def test_an_argument_cut_short_is_a_fault() -> None:
    for (number, command), record in ARGUMENTS.items():
        size = layout(record).size
        status, answer = BOOTED.call(0, number, command, bytes(3))
        assert (status, answer) == (Status.FAULT, bytes(3)), (record, size)


def test_a_domain_sees_its_own() -> None:
    made = booted(0)
    dom0, guest = made.domain(0), made.domain(1)
    assert isinstance(guest, CoreLibrary)
    assert dom0.domain_create() == 1
    dom0.assign_gsi(1, Gsi(5))
    guest.map_gsi(Gsi(5), 5)
    assert [each.gsi for each in guest.interrupts()] == [5]
    assert list(dom0.interrupts()) == []
    assert [each.gsi for each in dom0.interrupts(1)] == [5]


def test_what_a_benchmark_measures_leaves_no_trace() -> None:
    made = booted(0, 1)
    before = made.digest()
    assert made.nanoseconds_a_vector(10) > 0
    assert made.nanoseconds_a_vector(10, full=True) > 0
    assert made.digest() == before
    assert made.nanoseconds_an_apic_write(FIRST, 10) > 0
    with pytest.raises(ValueError, match="refused"):
        made.nanoseconds_an_apic_write(FIRST + 0x1000, 10)
    with pytest.raises(ValueError, match="refused"):
        ModelMachine(library=LIBRARY).nanoseconds_a_vector(10)


def test_a_variant_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LibraryMissing, match=r"missing\.so"):
        load(tmp_path / "missing.so")
