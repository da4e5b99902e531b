# SPDX-License-Identifier: MIT
"""ISA interrupts, the SCI and NMIs, from tables made here and of recorded machines."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from dom0kit import serial
from dom0kit.acpi.tables import Table
from dom0kit.address import IoapicPin, Polarity, Trigger
from dom0kit.ioapic import controllers
from dom0kit.ioapic.legacy import IsaInterrupt, LegacyInterrupts, LocalNmi, Nmi, Sci, observe
from tests.corpus import CORPUS, logs, needs_corpus
from tests.ioapic.tables import fadt, ioapic, local_nmi, local_x2apic_nmi, madt, nmi_source, override, recorded

IOAPIC = ioapic(2, 0xFEC00000, 0)
EDGE, LEVEL, HIGH, LOW = Trigger.EDGE, Trigger.LEVEL, Polarity.HIGH, Polarity.LOW


def seen(*tables: Table) -> tuple[LegacyInterrupts, list[str]]:
    ioapics, _ = controllers.observe(tables)
    legacy, findings = observe(tables, ioapics)
    assert serial.decode(serial.encode(legacy), LegacyInterrupts) == legacy
    return legacy, [finding.rule for finding in findings]


def test_nothing_is_overridden() -> None:
    legacy, rules = seen(madt(IOAPIC), fadt(9))
    assert rules == []
    assert legacy.pcat_compat
    assert [(each.irq, each.gsi) for each in legacy.isa] == [(irq, irq) for irq in range(16)]
    assert legacy.isa[5] == IsaInterrupt(5, 5, EDGE, HIGH, False, IoapicPin(2, 5))
    assert legacy.sci == Sci(9, LEVEL, LOW, False, IoapicPin(2, 9))


def test_the_usual_overrides() -> None:
    legacy, rules = seen(madt(IOAPIC, override(0, 2, 0), override(9, 9, 0xD)), fadt(9))
    assert rules == []
    assert legacy.isa_interrupt(0) == IsaInterrupt(0, 2, EDGE, HIGH, True, IoapicPin(2, 2))
    assert legacy.isa_interrupt(2) == IsaInterrupt(2, None, EDGE, HIGH, False, None)
    assert legacy.isa_interrupt(9) == IsaInterrupt(9, 9, LEVEL, HIGH, True, IoapicPin(2, 9))
    assert legacy.sci == Sci(9, LEVEL, HIGH, True, IoapicPin(2, 9))
    assert legacy.isa_interrupt(16) is None


def test_what_conforms_differs_for_isa_and_sci() -> None:
    legacy, _ = seen(madt(IOAPIC, override(9, 20, 0)), fadt(9))
    assert legacy.isa_interrupt(9) == IsaInterrupt(9, 20, EDGE, HIGH, True, IoapicPin(2, 20))
    assert legacy.sci == Sci(20, LEVEL, LOW, True, IoapicPin(2, 20))


def test_every_combination_of_flags() -> None:
    for flags, trigger, polarity in (
        (0x5, EDGE, HIGH),
        (0x7, EDGE, LOW),
        (0xD, LEVEL, HIGH),
        (0xF, LEVEL, LOW),
        (0xC, LEVEL, HIGH),
        (0x3, EDGE, LOW),
    ):
        legacy, rules = seen(madt(IOAPIC, override(5, 5, flags)))
        assert (legacy.isa[5].trigger, legacy.isa[5].polarity, rules) == (trigger, polarity, [])
    for flags in (0x9, 0x6):
        assert seen(madt(IOAPIC, override(5, 5, flags)))[1] == ["ioapic.reserved-flags"]
    legacy, rules = seen(madt(IOAPIC, override(5, 5, 0xA)))
    assert (legacy.isa[5].trigger, legacy.isa[5].polarity, rules) == (LEVEL, LOW, ["ioapic.reserved-flags"])


def test_bad_overrides() -> None:
    assert seen(madt(IOAPIC, override(9, 9, 0, bus=1)))[1] == ["ioapic.override-source"]
    legacy, rules = seen(madt(IOAPIC, override(16, 17, 0)))
    assert (len(legacy.isa), rules) == (16, ["ioapic.override-source"])
    legacy, rules = seen(madt(IOAPIC, override(9, 9, 0), override(9, 20, 0)))
    assert (legacy.isa[9].gsi, rules) == (20, ["ioapic.override-duplicate"])
    assert seen(madt(IOAPIC, override(9, 9, 0), override(9, 9, 0)))[1] == []
    assert seen(madt(IOAPIC, override(3, 20, 0), override(4, 20, 0)))[1] == ["ioapic.override-target"]
    legacy, rules = seen(madt(IOAPIC, override(3, 500, 0)))
    assert (legacy.isa[3].gsi, legacy.isa[3].ioapic_pin, rules) == (500, None, ["ioapic.gsi-beyond"])


def test_hardware_reduced_machines_have_no_sci_and_only_what_they_say() -> None:
    legacy, _ = seen(madt(IOAPIC, override(4, 4, 0), pcat_compat=False), fadt(0, hardware_reduced=True))
    assert [each.irq for each in legacy.isa] == [4]
    assert legacy.sci is None
    assert not legacy.pcat_compat
    with_8259, _ = seen(madt(IOAPIC), fadt(0, hardware_reduced=True))
    assert len(with_8259.isa) == 16
    without, _ = seen(madt(IOAPIC, pcat_compat=False), fadt(9))
    assert len(without.isa) == 16


def test_without_ioapic_or_madt_there_are_no_pins() -> None:
    legacy, rules = seen(madt(), fadt(9))
    assert (legacy.isa, rules) == ((), [])
    assert legacy.sci == Sci(9, LEVEL, LOW, False, None)
    nothing, _ = seen(fadt(9))
    assert nothing == LegacyInterrupts(False, (), None, (), ())


def test_nmis() -> None:
    legacy, rules = seen(
        madt(IOAPIC, nmi_source(20, 0), nmi_source(900, 0xF), local_nmi(255, 5, 1), local_nmi(3, 0, 0))
    )
    assert rules == ["ioapic.gsi-beyond"]
    assert legacy.nmis == (Nmi(20, EDGE, HIGH, IoapicPin(2, 20)), Nmi(900, LEVEL, LOW, None))
    assert legacy.local_nmis == (LocalNmi(None, 1, EDGE, HIGH, False), LocalNmi(3, 0, EDGE, HIGH, False))
    wide, _ = seen(madt(IOAPIC, local_x2apic_nmi(0xFFFFFFFF, 5, 1), local_x2apic_nmi(255, 5, 0)))
    assert [(each.uid, each.lint, each.x2apic) for each in wide.local_nmis] == [(None, 1, True), (255, 0, True)]


@given(st.lists(st.builds(override, st.integers(0, 15), st.integers(0, 23), st.integers(0, 15)), max_size=20))
def test_each_gsi_belongs_to_an_isa_interrupt_that_says_so(overrides: list[bytes]) -> None:
    legacy, _ = seen(madt(IOAPIC, *overrides), fadt(9))
    assert [each.irq for each in legacy.isa] == list(range(16))
    said = {each.gsi for each in legacy.isa if each.overridden}
    for each in legacy.isa:
        assert each.overridden or each.gsi is None or each.gsi == each.irq
        assert each.overridden or each.gsi is None or each.gsi not in said


@given(st.binary(max_size=300))
def test_any_bytes_for_entries(data: bytes) -> None:
    seen(madt(data), fadt(9))


@needs_corpus
def test_against_what_linux_printed() -> None:
    """`ACPI: INT_SRC_OVR (bus 0 bus_irq 9 global_irq 9 high level)` of the boot logs."""
    line = re.compile(r"INT_SRC_OVR \(bus (\d+) bus_irq (\d+) global_irq (\d+) (\w+) (\w+)\)")
    compared = 0
    for log in logs("dmesg"):
        folder = CORPUS / "acpi" / log.stem
        if not folder.is_dir():
            continue
        legacy, _ = seen(*recorded(folder, "APIC*.dat"), *recorded(folder, "FACP*.dat"))
        for _, source, gsi, polarity, trigger in line.findall(log.read_text(errors="replace")):
            isa = legacy.isa_interrupt(int(source))
            assert isa is not None, log
            assert isa.gsi == int(gsi), log
            assert polarity in (isa.polarity.value, "dfl"), log
            assert trigger in (isa.trigger.value, "dfl"), log
            compared += 1
    assert compared >= 10
