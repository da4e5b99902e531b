# SPDX-License-Identifier: MIT
"""The interrupt part of the text report: IOAPICs, ISA interrupts, and the way of every INTx pin."""

from __future__ import annotations

from collections.abc import Sequence

from dom0kit.address import IoapicPin, Polarity, Trigger
from dom0kit.cli.text.layout import Cell, Line, columns, count, line, ranges
from dom0kit.ioapic.controllers import Ioapic
from dom0kit.ioapic.intx import GsiLine, IntxRoute
from dom0kit.ioapic.legacy import LegacyInterrupts
from dom0kit.msi.state import InterruptMode, MsiState


def ioapics(all_ioapics: Sequence[Ioapic]) -> list[Line]:
    """One row an IOAPIC."""
    return columns([_ioapic(ioapic) for ioapic in all_ioapics])


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
        (f"IRQ {isa.irq}", f"GSI {isa.gsi}", signal(isa.trigger, isa.polarity), pin(isa.ioapic_pin))
        for isa in interrupts.isa
        if isa.gsi is not None and (isa.overridden or isa.gsi != isa.irq)
    ]
    if (sci := interrupts.sci) is not None:
        rows.append(("SCI", f"GSI {sci.gsi}", signal(sci.trigger, sci.polarity), pin(sci.ioapic_pin)))
    rows += [
        ("NMI", f"GSI {nmi.gsi}", signal(nmi.trigger, nmi.polarity), pin(nmi.ioapic_pin)) for nmi in interrupts.nmis
    ]
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


def signal(trigger: Trigger | None, polarity: Polarity | None) -> str:
    """``level low``."""
    return " ".join(part.value for part in (trigger, polarity) if part is not None)


def pin(of: IoapicPin | None) -> str:
    """``IOAPIC 2 pin 5``."""
    return "beyond every IOAPIC" if of is None else f"IOAPIC {of.ioapic} pin {of.pin}"


def routes(all_routes: Sequence[IntxRoute]) -> list[Line]:
    """One line for each function's pin, and under it the way step by step."""
    reasons = {route.reason for route in all_routes}
    if len(reasons) == 1 and (reason := reasons.pop()) is not None and len(all_routes) > 1:
        return [line(f"no GSI for {len(all_routes)} pins: {reason.value}")]
    rows: list[Sequence[Cell]] = []
    for route in all_routes:
        place: tuple[Cell, ...]
        if route.gsi is not None:
            place = (f"GSI {route.gsi}", pin(route.ioapic_pin), signal(route.trigger, route.polarity), _shared(route))
        else:
            why = route.link_reason or route.reason
            place = (("no GSI", "yellow"), why.value if why is not None else "")
        rows.append(((str(route.sbdf), "bold"), f"INT{route.pin.value}", *place))
    result = columns(rows)
    for each, route in zip(result, all_routes, strict=True):
        if len(route.steps) > 2:
            each.children = [line((" -> ".join(route.steps[1:-1]), "dim"))]
    return result


def _shared(route: IntxRoute) -> str:
    return f"shared with {count(len(route.shared_with), 'function')}" if route.shared_with else ""


def lines(all_lines: Sequence[GsiLine]) -> list[Line]:
    """One row for each GSI that pins lead to, with everybody on it."""
    return columns(
        [(f"GSI {of.gsi}", pin(of.ioapic_pin), " ".join(map(str, of.functions))) for of in all_lines], right=[0]
    )


def messages(states: Sequence[MsiState]) -> list[Line]:
    """One row for each function that interrupts by MSI or MSI-X now."""
    return columns(
        [
            ((str(state.sbdf), "bold"), state.mode.value, _vectors(state), _irqs(state.kernel_irqs))
            for state in states
            if state.mode in (InterruptMode.MSI, InterruptMode.MSIX)
        ]
    )


def _vectors(state: MsiState) -> str:
    if state.mode is InterruptMode.MSIX and state.msix is not None:
        at = f"table at {state.msix.table_address:#x}" if state.msix.table_address is not None else "table nowhere"
        return f"{count(state.msix.vectors, 'vector')}, {at}" + (", all masked" if state.msix.masked else "")
    if state.msi is not None:
        return f"{state.msi.vectors_allocated} of {count(state.msi.vectors_capable, 'vector')}"
    return ""


def _irqs(numbers: Sequence[int]) -> str:
    return f"Linux IRQ {ranges(numbers)}" if numbers else ""
