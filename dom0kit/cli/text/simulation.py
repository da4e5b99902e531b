# SPDX-License-Identifier: MIT
"""What the modelled core owns, for people: processors, IOAPICs, GSIs and messages with their vectors, refusals."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from dom0kit.abi import InterruptFlag, Kind, Mode, Report
from dom0kit.cli.text.layout import Cell, Line, Section, columns, count, line, ranges
from dom0kit.hypercall.interface import CoreReport, Interrupt
from dom0kit.hypercall.shared_info import SharedInfo
from dom0kit.simulation import Simulation

_REPORTS = {
    Report.NO_RSDP: "there is no RSDP with a good checksum",
    Report.NO_ROOT_TABLE: "neither XSDT nor RSDT is good",
    Report.BAD_TABLE: "a table's length or checksum is wrong: {text}",
    Report.NO_MADT: "there is no MADT",
    Report.SECOND_TABLE: "a second table is ignored: {text}",
    Report.BAD_ENTRY: "a MADT entry is too short or runs over the end, at offset {value:#x}",
    Report.CPU_LIMIT: "more processors than the core's limit, from APIC id {value:#x} on",
    Report.DUPLICATE_CPU: "two processors have APIC id {value:#x}",
    Report.IOAPIC_LIMIT: "more IOAPICs than the core's limit, from {value:#x} on",
    Report.IOAPIC_ADDRESS: "an IOAPIC's address is 0, unaligned or used twice: {value:#x}",
    Report.IOAPIC_OVERLAP: "an IOAPIC's GSIs overlap another's or pass the limit: from GSI {value}; it is not used",
    Report.IOAPIC_ABSENT: "no IOAPIC answers (GSIs from {value}); it is not used",
    Report.IOAPIC_PINS: "an IOAPIC claims {value} pins; 120 can be reached",
    Report.GSI_GAP: "no IOAPIC has GSI {value}, though one has a higher",
    Report.OVERRIDE: "an interrupt source override is not usable: source {value}",
    Report.MCFG_LIMIT: "more ECAM ranges than the core's limit, from {value:#x} on",
    Report.MCFG_ENTRY: "an MCFG entry is unaligned, empty or overlaps another: {value:#x}",
    Report.FIRMWARE_ENTRY: "firmware left GSI {value} unmasked with an SMI, NMI, INIT or ExtINT",
    Report.NO_CPU: "the MADT enables no processor",
}


def title(simulation: Simulation) -> list[Line]:
    """A model it is: said first."""
    core = simulation.information
    how = "the core chooses vectors" if simulation.mode is Mode.INTERCEPT else "vectors are dom0's choice"
    return [
        line(
            "a model of ",
            (simulation.machine, "bold"),
            ": nothing here touches hardware, and other domains are books only",
        ),
        *columns(
            [
                ("mode", f"{simulation.mode.name.lower()} ({how})"),
                ("calls", f"{count(core.calls, 'hypercall')}, {core.calls_refused} refused"),
                (
                    "owned",
                    f"{count(core.cpus, 'processor')}, {count(core.ioapics, 'IOAPIC')}, GSIs below {core.gsis}, "
                    f"{count(core.functions, 'function')}, {count(core.messages, 'message')}",
                ),
                (
                    "limits",
                    f"{core.limit_cpus} processors, {core.limit_ioapics} IOAPICs, {core.limit_domains} domains, "
                    f"{core.limit_messages} messages, in {core.bytes} bytes",
                ),
            ]
        ),
    ]


def sections(simulation: Simulation) -> list[Section]:
    """Only those that have something to say."""
    lines = [interrupt for interrupt in simulation.interrupts if interrupt.kind is Kind.GSI]
    messages = [interrupt for interrupt in simulation.interrupts if interrupt.kind is not Kind.GSI]
    found = [
        Section("shared_info", shared(simulation.shared_info)),
        Section("GSIs", columns([_gsi(interrupt) for interrupt in lines])),
        Section("MSI and MSI-X", _messages(messages)),
        Section("what the core reports", [line(("! ", "yellow"), sentence(report)) for report in simulation.reports]),
        Section(
            "what the core refused",
            [line(("! ", "yellow"), f"{each.call}: {each.status.sentence}") for each in simulation.refusals],
        ),
    ]
    return [section for section in found if section.lines]


def shared(info: SharedInfo) -> list[Line]:
    """The block and the list of IOAPICs."""
    tables = "handed over by dom0" if info.handed_over else "found by the core"
    rows: list[Sequence[Cell]] = [
        ("RSDP", "none" if info.rsdp is None else f"{info.rsdp:#x}", tables),
        ("XSDT", "none" if info.xsdt is None else f"{info.xsdt:#x}"),
        ("counter", str(info.counter)),
    ]
    rows += [
        (f"IOAPIC {each.id}", f"{each.address:#x}", f"GSI {each.gsi_base}-{each.gsi_base + each.pins - 1}")
        for each in info.ioapics
    ]
    return columns(rows)


def sentence(report: CoreReport) -> str:
    """A report in words."""
    text = report.value.to_bytes(8, "little")[:4].decode("latin-1")
    return f"{_REPORTS[report.code].format(value=report.value, text=text)} (at {report.where:#x})"


def _gsi(interrupt: Interrupt) -> Sequence[Cell]:
    flags = interrupt.flags
    signal = (
        f"{'level' if flags & InterruptFlag.LEVEL else 'edge'} {'low' if flags & InterruptFlag.ACTIVE_LOW else 'high'}"
    )
    marks = [name for flag, name in _MARKS.items() if flags & flag]
    pirq = "" if interrupt.pirq is None else f"pIRQ {interrupt.pirq}"
    return f"GSI {interrupt.gsi}", where(interrupt), signal, pirq, ", ".join(marks)


_MARKS = {
    InterruptFlag.MASKED: "masked",
    InterruptFlag.SHARED: "shared",
    InterruptFlag.DRAINING: "moving",
    InterruptFlag.REMAPPED: "remapped",
}


def where(interrupt: Interrupt) -> str:
    """``0x31@2``: vector and processor."""
    if interrupt.vector is None:
        return "no vector"
    return f"{interrupt.vector:#04x}@{'several' if interrupt.cpu is None else interrupt.cpu}"


def _messages(messages: Sequence[Interrupt]) -> list[Line]:
    """One row a function: its entries, their pIRQs and vectors."""
    rows: list[Sequence[Cell]] = []
    for function, group in groupby(messages, lambda message: message.function):
        members = sorted(group, key=lambda message: message.entry or 0)
        shown = " ".join(where(member) for member in members[:8])
        more = f" and {len(members) - 8} more" if len(members) > 8 else ""
        pirqs = ranges(member.pirq for member in members if member.pirq is not None)
        kind = "MSI-X" if members[0].kind is Kind.MSIX else "MSI"
        rows.append((str(function), kind, count(len(members), "message"), f"pIRQ {pirqs}", shown + more))
    return columns(rows)
