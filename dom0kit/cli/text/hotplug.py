# SPDX-License-Identifier: MIT
"""Hotplug as text: a change or finding a line, slots, a scenario as it was played, a policy."""

from __future__ import annotations

from collections.abc import Sequence

from dom0kit.cli.text.layout import Line, Section, columns, count, line, ranges
from dom0kit.finding import Finding
from dom0kit.hotplug.policy import Decision, HotplugPolicy
from dom0kit.hotplug.reconcile import Change
from dom0kit.hotplug.scenario import Played
from dom0kit.hotplug.slots import Occupant, SlotState
from dom0kit.pci.function import Function

Report = tuple[list[Line], list[Section]]


def change_line(change: Change) -> str:
    """``0000:04:00.0 8086:10d3 has appeared, …; path …, slot 4, GSI 22, group of 2; 1.2 ms``."""
    parts = []
    if change.path:
        parts.append(f"path {change.path}" + ("" if change.slot is None else f", slot {change.slot}"))
    if change.gsis:
        parts.append(f"GSI {ranges(change.gsis)}")
    if change.pirqs:
        parts.append(f"pIRQ {ranges(change.pirqs)}")
    if change.vectors:
        parts.append(count(change.vectors, "vector"))
    if len(change.group) > 1:
        parts.append(f"group of {len(change.group)}")
    if change.seconds is not None:
        parts.append(f"{change.seconds * 1000:.1f} ms")
    return "; ".join((change.what, *parts))


def finding_line(finding: Finding) -> str:
    return f"{finding.severity.value}  {finding.where}  {finding.message}  [{finding.rule}]"


def slots(name: str, found: Sequence[SlotState]) -> Report:
    filled = sum(bool(slot.occupants) for slot in found)
    shown = [slot for slot in found if slot.occupants or _states(slot)]
    rows = [
        (
            slot.address,
            slot.kind.value,
            "" if slot.number is None else f"slot {slot.number}",
            "" if slot.bridge is None else f"below {slot.bridge}",
            ", ".join(_states(slot)),
        )
        for slot in shown
    ]
    lines = [
        Line(row.cells, [line(_occupant(each)) for each in slot.occupants])
        for row, slot in zip(columns(rows), shown, strict=True)
    ]
    if len(shown) < len(found):
        lines.append(line(f"and {len(found) - len(shown)} more of which nothing is known, nor in them"))
    return [line(f"{count(len(found), 'slot')} of {name}, {filled} with something in it")], [Section("slots", lines)]


def _states(slot: SlotState) -> list[str]:
    words = [("no hot-plug", not slot.hot_plug), ("occupied", slot.present), ("empty", slot.present is False)]
    words += [("power on", slot.powered), ("power off", slot.powered is False)]
    words += [("latch open", slot.latch_open), ("latch closed", slot.latch_open is False)]
    words += [("link up", slot.link_active), ("link down", slot.link_active is False)]
    found = [word for word, is_so in words if is_so]
    return found if slot.attention is None else [*found, f"attention {slot.attention}"]


def _occupant(each: Occupant) -> str:
    driver = "" if each.driver is None else f", driver {each.driver}"
    return f"{each.function} {each.id}{driver}: {each.owner}"


def played(name: str, steps: Sequence[Played]) -> Report:
    lines = []
    for step in steps:
        below = [line(change_line(change)) for change in step.changes]
        below += [line(finding_line(finding)) for finding in step.findings]
        has = ", ".join(
            (count(step.functions, "function"), count(step.messages, "message"), count(step.ioapics, "IOAPIC"))
        )
        title = "the beginning" if step.step == 0 else f"step {step.step}, at {step.time:g} s"
        lines.append(line(f"{title}: the core has {has}", children=below))
    findings = sum(len(step.findings) for step in steps)
    return [
        line(f"{count(len(steps) - 1, 'step')} on {name}, {count(findings, 'finding')}"),
        line("a model: nothing here touches hardware"),
    ], [Section("scenario", lines)]


def checked(
    policy_name: str,
    machine: str,
    policy: HotplugPolicy,
    decided: Sequence[tuple[Function, Decision]],
    findings: Sequence[Finding],
) -> Report:
    rows = [
        (
            str(function.sbdf),
            f"{function.vendor:04x}:{function.device:04x}",
            decision.action.value + ("" if decision.domain is None else f" to domain {decision.domain}"),
            decision.why,
        )
        for function, decision in decided
    ]
    sections = [Section(f"what is in slots of {machine}", columns(rows))] if rows else []
    if findings:
        sections.append(Section("findings", [line(finding_line(finding)) for finding in findings]))
    rules = count(len(policy.rule), "rule")
    return [line(f"{policy_name}: {rules}, by default {policy.default.value}")], sections
