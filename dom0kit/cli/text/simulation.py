# SPDX-License-Identifier: MIT
"""What the modelled core owns, for people: processors, IOAPICs, GSIs and messages with their vectors, refusals."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from dom0kit.cli.text.layout import Cell, Line, Section, columns, count, line, ranges
from dom0kit.hypercall.shared_info import SharedInfo
from dom0kit.simulation import OwnedGsi, OwnedMessage, OwnedProcessor, Simulation

_MODES = {"intercept": "the core chooses vectors", "direct": "vectors are dom0's choice"}
_SHOWN = 8
"""Messages of a function, and processors, that are shown one by one."""


def title(simulation: Simulation) -> list[Line]:
    """A model it is: said first."""
    have, limit = simulation.counts, simulation.limits
    return [
        line((simulation.machine, "bold"), f": {simulation.note}"),
        *columns(
            [
                ("mode", f"{simulation.mode} ({_MODES[simulation.mode]})"),
                ("calls", f"{count(simulation.calls, 'hypercall')}, {simulation.calls_refused} refused"),
                (
                    "owned",
                    f"{count(have.processors, 'processor')}, {count(have.ioapics, 'IOAPIC')}, "
                    f"{count(len(simulation.gsis), 'GSI')}, {count(have.messages, 'message')} of "
                    f"{count(have.functions, 'function')}",
                ),
                ("vectors", _vectors(simulation.processors)),
                (
                    "limits",
                    f"{limit.processors} processors, {limit.ioapics} IOAPICs, {limit.domains} domains, "
                    f"{limit.functions} functions, {limit.messages} messages, in {simulation.core_bytes} bytes",
                ),
            ]
        ),
    ]


def sections(simulation: Simulation) -> list[Section]:
    """Only those that have something to say."""
    found = [
        Section(
            "what the core reports",
            [line(("! ", "yellow"), f"{each.sentence} (at {each.where:#x})") for each in simulation.reports],
        ),
        Section(
            "what the core refused",
            [line(("! ", "yellow"), f"{each.call}: {each.reason}") for each in simulation.refusals],
        ),
        Section("shared_info", shared_info(simulation.shared_info)),
        Section("GSIs, by vector@CPU", columns([_gsi(each) for each in simulation.gsis])),
        Section("MSI and MSI-X, by vector@CPU", _messages(simulation.messages)),
    ]
    return [section for section in found if section.lines]


def _vectors(processors: Sequence[OwnedProcessor]) -> str:
    """``26 in use: 13 on CPU 0, 13 on CPU 1``; of many processors only the range."""
    used = [len(each.vectors) for each in processors]
    total = f"{sum(used)} in use"
    if not sum(used):
        return total
    if len(used) <= _SHOWN:
        return f"{total}: " + ", ".join(
            f"{number} on CPU {each.cpu}" for number, each in zip(used, processors, strict=True)
        )
    return f"{total}: {min(used)} to {max(used)} a CPU"


def shared_info(info: SharedInfo) -> list[Line]:
    """The block and the list of IOAPICs."""
    tables = "handed over by dom0" if info.handed_over else "found by the core"
    rows: list[Sequence[Cell]] = [
        ("RSDP", "none" if info.rsdp is None else f"{info.rsdp:#x}", tables),
        ("XSDT", "none" if info.xsdt is None else f"{info.xsdt:#x}", tables),
        ("counter", str(info.counter)),
    ]
    rows += [
        (f"IOAPIC {each.id}", f"{each.address:#x}", f"GSI {each.gsi_base}-{each.gsi_base + each.pins - 1}")
        for each in info.ioapics
    ]
    return columns(rows)


def _gsi(each: OwnedGsi) -> Sequence[Cell]:
    marks = [mark for mark, said in (("masked", each.masked), ("shared", each.shared)) if said]
    pirq = "" if each.pirq is None else f"pIRQ {each.pirq}"
    signal = f"{each.trigger.value} {each.polarity.value}"
    return f"GSI {each.gsi}", _where(each), signal, pirq, ", ".join(marks)


def _where(each: OwnedGsi | OwnedMessage) -> str:
    """``0x31@2``: vector and processor."""
    if each.vector is None:
        return "no vector"
    return f"{each.vector:#04x}@{'several' if each.cpu is None else each.cpu}"


def _messages(messages: Sequence[OwnedMessage]) -> list[Line]:
    """One row a function: its entries, their pIRQs and vectors."""
    rows: list[Sequence[Cell]] = []
    for function, group in groupby(messages, lambda message: message.function):
        members = sorted(group, key=lambda message: message.entry)
        shown = " ".join(_where(member) for member in members[:_SHOWN])
        more = f" and {len(members) - _SHOWN} more" if len(members) > _SHOWN else ""
        pirqs = ranges(member.pirq for member in members if member.pirq is not None)
        kind = "MSI-X" if members[0].msix else "MSI"
        rows.append((str(function), kind, count(len(members), "message"), f"pIRQ {pirqs}", shown + more))
    return columns(rows)
