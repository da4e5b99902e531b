# SPDX-License-Identifier: MIT
"""What Xen does for this dom0, and what it has been told, for people."""

from __future__ import annotations

from collections.abc import Sequence

from dom0kit.abi import Physdev
from dom0kit.cli.text.layout import Cell, Line, Section, columns, count
from dom0kit.cli.text.report import findings
from dom0kit.finding import Finding
from dom0kit.hypercall.xen_told import Told, ToldGsi
from dom0kit.xen import XenDomain


def title(domain: XenDomain, told: Told) -> list[Line]:
    known = sum(function.known for function in told.functions)
    rows: list[Sequence[Cell]] = [
        (("hypervisor", "bold"), f"Xen {domain.version}, seen from its {domain.kind.value} dom0"),
        (("functions", "bold"), f"{known} of {count(len(told.functions), 'function')} known to Xen"),
    ]
    if told.messages is not None:
        rows.append((("messages", "bold"), f"{told.messages} bound by drivers of dom0"))
    return columns(rows)


def sections(domain: XenDomain, told: Told, wrong: Sequence[Finding]) -> list[Section]:
    """Empty ones are left out."""
    operations = [(each.name.lower(), domain.availability(each)) for each in Physdev]
    found = [
        Section("findings", findings(wrong)),
        Section("GSIs of INTx pins", columns([_gsi(one) for one in told.gsis])),
        Section(
            "physdev operations",
            columns([(name, "yes" if each.available else f"no: {each.reason}") for name, each in operations]),
        ),
    ]
    return [section for section in found if section.lines]


def _gsi(one: ToldGsi) -> Sequence[Cell]:
    entry = one.entry
    if entry is None or entry.vector is None:
        state, signals = "Xen does not show it", ""
    elif not one.set_up:
        state, signals = "not set up", ""
    else:
        state = f"vector {entry.vector:#04x}{', masked' if entry.masked else ''}"
        signals = f"{entry.trigger.value} active {entry.polarity.value}"
    use = {True: "bound", False: "unbound", None: ""}[one.bound]
    return f"GSI {one.gsi}", state, signals, use, " ".join(map(str, one.functions))
