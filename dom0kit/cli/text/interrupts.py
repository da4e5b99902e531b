# SPDX-License-Identifier: MIT
"""The interrupt part of the text report: IOAPICs, ISA interrupts, and the way of every INTx pin."""

from __future__ import annotations

from collections.abc import Sequence

from dom0kit.address import IoapicPin, Polarity, Trigger
from dom0kit.cli.text.layout import Cell, Line, columns, count
from dom0kit.ioapic.controllers import Ioapic, IoapicSet
from dom0kit.ioapic.legacy import LegacyInterrupts


def ioapics(all_ioapics: IoapicSet) -> list[Line]:
    """One row an IOAPIC."""
    return columns([_ioapic(ioapic) for ioapic in all_ioapics.ioapics])


def _ioapic(ioapic: Ioapic) -> tuple[Cell, ...]:
    inferred = f" (from {ioapic.pins_from.value})" if ioapic.pins_from.inferred else ""
    marks = [
        f"version {ioapic.version:#x}" if ioapic.version is not None else "",
        str(ioapic.function or ""),
        ioapic.aml_path or "",
        "" if ioapic.in_madt else "not in the MADT",
    ]
    return (
        (f"IOAPIC {ioapic.id}", "bold"),
        f"{ioapic.address:#x}",
        f"GSI {ioapic.gsi_base}-{ioapic.gsi_last}",
        f"{count(ioapic.pins, 'pin')}{inferred}",
        ", ".join(filter(None, marks)),
    )


def legacy(interrupts: LegacyInterrupts) -> list[Line]:
    """What is not identity-mapped, edge-triggered, active-high; and what NMI comes in on."""
    rows: list[Sequence[Cell]] = [
        (f"IRQ {isa.irq}", _gsi(isa.gsi), signal(isa.trigger, isa.polarity), pin(isa.ioapic_pin))
        for isa in interrupts.isa
        if isa.overridden or isa.gsi != isa.irq
    ]
    if (sci := interrupts.sci) is not None:
        rows.append(("SCI", _gsi(sci.gsi), signal(sci.trigger, sci.polarity), pin(sci.ioapic_pin)))
    rows += [("NMI", _gsi(nmi.gsi), signal(nmi.trigger, nmi.polarity), pin(nmi.ioapic_pin)) for nmi in interrupts.nmis]
    rows += [
        (
            "NMI",
            f"LINT{nmi.lint}",
            signal(nmi.trigger, nmi.polarity),
            "all CPUs" if nmi.uid is None else f"CPU {nmi.uid}",
        )
        for nmi in interrupts.local_nmis
    ]
    return columns(rows)


def _gsi(gsi: int | None) -> str:
    return "no GSI" if gsi is None else f"GSI {gsi}"


def signal(trigger: Trigger | None, polarity: Polarity | None) -> str:
    """``level low``."""
    return " ".join(part.value for part in (trigger, polarity) if part is not None)


def pin(of: IoapicPin | None) -> str:
    """``IOAPIC 2 pin 5``."""
    return "beyond every IOAPIC" if of is None else f"IOAPIC {of.ioapic} pin {of.pin}"
