# SPDX-License-Identifier: MIT
"""The messages of one function, for people."""

from __future__ import annotations

from collections.abc import Sequence

from dom0kit.cli.text.layout import Cell, Line, Section, columns, count, line, ranges
from dom0kit.msi.messages import MsiMessage
from dom0kit.msi.state import MsiState, MsiUse, MsixUse


def dump(
    state: MsiState, driver: str | None, table: Sequence[tuple[MsiMessage, bool]] | None, remarks: Sequence[str]
) -> tuple[list[Line], list[Section]]:
    """The function, then a section for MSI and one for MSI-X with the entries of its table, if it was read."""
    irqs = f", Linux IRQ {ranges(state.kernel_irqs)}" if state.kernel_irqs else ""
    title = [
        line((str(state.sbdf), "bold"), f": {driver or 'no driver'}, interrupts by {state.mode.value}{irqs}"),
        *(line((remark, "yellow")) for remark in remarks),
    ]
    sections = []
    if state.msi is not None:
        sections.append(Section("MSI", _msi(state.msi)))
    if state.msix is not None:
        sections.append(Section("MSI-X", _msix(state.msix)))
    if table is not None:
        sections.append(Section("MSI-X table: entry, address, data", columns(_entries(table))))
    return title, sections


def _msi(use: MsiUse) -> list[Line]:
    rows: list[Sequence[Cell]] = [
        (
            "enabled" if use.enabled else "disabled",
            f"{use.vectors_allocated} of {count(use.vectors_capable, 'message')}",
        )
    ]
    if use.masked is not None:
        rows.append(("mask bits", f"{use.masked:#x}", f"pending {use.pending or 0:#x}"))
    if use.message is not None:
        address, data = use.message.encode()
        rows.append(("message", f"{address:#010x} {data:#06x}", goes(use.message)))
    return columns(rows)


def _msix(use: MsixUse) -> list[Line]:
    state = "enabled" if use.enabled else "disabled"
    rows: list[Sequence[Cell]] = [
        (state + (", all masked" if use.masked else ""), count(use.vectors, "entry", "entries")),
        ("table", f"BAR {use.table_bar}+{use.table_offset:#x}", _at(use.table_address)),
        ("pending bits", f"BAR {use.pba_bar}+{use.pba_offset:#x}", _at(use.pba_address)),
    ]
    return columns(rows)


def _at(address: int | None) -> str:
    return "nowhere" if address is None else f"at {address:#x}"


def _entries(table: Sequence[tuple[MsiMessage, bool]]) -> list[Sequence[Cell]]:
    """One row each; of runs that nobody has written, one for all."""
    rows: list[Sequence[Cell]] = []
    unwritten: list[int] = []
    for entry, (message, masked) in enumerate(table):
        address, data = message.encode()
        if not address and not data and masked:
            unwritten.append(entry)
            continue
        rows.append((str(entry), f"{address:#010x}", f"{data:#06x}", goes(message), "masked" if masked else ""))
    if unwritten:
        rows.append((ranges(unwritten), "not written", "", "", "masked"))
    return rows


def goes(message: MsiMessage) -> str:
    """Where a message goes, by what it says itself."""
    if not message.is_interrupt:
        return "no interrupt: it is written to memory"
    if message.remap_index is not None:
        return f"remapped, index {message.remap_index}"
    if message.pirq is not None:
        return f"pIRQ {message.pirq}"
    kind = "logical" if message.logical else "APIC id"
    mode = message.delivery_mode.value if message.delivery_mode is not None else ""
    return f"vector {message.vector or 0:#04x} to {kind} {message.destination}, {mode}"
