# SPDX-License-Identifier: MIT
"""The text of a check: each rule that fired with its evidence and what to do; a corpus as one table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby

from dom0kit.check.corpus import Checked, Fault
from dom0kit.check.rules import explained
from dom0kit.check.verdict import Verdict
from dom0kit.cli.text.layout import Cell, Line, Section, columns, count, line
from dom0kit.finding import Finding, Severity

STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.INFO: "cyan"}
_PLURALS = {Severity.ERROR: "errors", Severity.WARNING: "warnings", Severity.INFO: "info"}
_SHOWN = 10
"""Findings of one rule that are listed."""
_NAMED = 3
"""Machines, and groups of the same fault, that are named."""


def verdict(of: Verdict) -> tuple[list[Line], list[Section]]:
    """One machine's title and findings."""
    names = " ".join(filter(None, (of.machine.vendor, of.machine.product, of.machine.version)))
    rows: list[Sequence[Cell]] = [
        (("machine", "bold"), names or of.machine.oem or "without a name"),
        (("seen from", "bold"), f"{of.origin.name} ({of.origin.kind.value})"),
        (("findings", "bold"), counts(of.findings)),
    ]
    if of.known or of.gone:
        rows.append((("baseline", "bold"), f"{of.known} known and left out, {of.gone} gone"))
    sections = []
    for severity in STYLES:
        lines = _by_rule([finding for finding in of.findings if finding.severity is severity])
        if lines:
            sections.append(Section(_PLURALS[severity], lines))
    return columns(rows), sections


def _by_rule(told: Sequence[Finding]) -> list[Line]:
    lines = []
    for _, group in groupby(told, lambda finding: finding.rule):
        of_rule = list(group)
        rule = explained(of_rule[0])
        rows: list[Sequence[Cell]] = [(finding.where, finding.message) for finding in of_rule[:_SHOWN]]
        children = columns(rows)
        if len(of_rule) > _SHOWN:
            children.append(line((f"and {len(of_rule) - _SHOWN} more: --format json has them all", "dim")))
        if rule.advice:
            children.append(line((f"-> {rule.advice}", "dim")))
        lines.append(line((rule.title, STYLES[of_rule[0].severity]), (f"  [{rule.id}]", "dim"), children=children))
    return lines


def counts(told: Sequence[Finding]) -> str:
    """``2 errors, 1 warning``, or ``none``."""
    by = Counter(finding.severity for finding in told)
    return ", ".join(count(by[of], of.value, _PLURALS[of]) for of in STYLES if by[of]) or "none"


def corpus(checked: Sequence[Checked], found: Sequence[Fault]) -> tuple[list[Line], list[Section]]:
    """Many machines: how many, which rules fired on how many, and which have the very same fault."""
    read = [each for each in checked if each.error is None]
    worst = Counter(_worst(each) for each in read)
    title = columns(
        [
            (("machines", "bold"), f"{len(checked)}, {len(checked) - len(read)} of them unreadable"),
            (("tables", "bold"), str(sum(each.tables for each in read))),
            (("functions", "bold"), str(sum(each.functions for each in read))),
            (
                ("worst", "bold"),
                ", ".join(f"{worst[of]} with {name}" for of, name in _WORST.items() if worst[of]),
            ),
        ]
    )
    rows: list[Sequence[Cell]] = [
        (
            (fault.severity.value, STYLES[fault.severity]),
            str(len(fault.machines)),
            str(fault.findings),
            fault.rule,
            _some(fault.machines),
        )
        for fault in found
    ]
    head: Sequence[Cell] = tuple((text, "dim") for text in ("severity", "machines", "findings", "rule", "such as"))
    sections = [Section("rules", columns([head, *rows], right=(1, 2)))] if rows else []
    same = []
    for fault in found:
        together = [(text, names) for text, names in fault.shapes if len(names) > 1][:_NAMED]
        if together and fault.severity is not Severity.INFO:
            children = columns([(str(len(names)), text, _some(names)) for text, names in together], right=(0,))
            same.append(line((fault.rule, STYLES[fault.severity]), children=children))
    if same:
        sections.append(Section("the same fault on several machines (# stands for a number or an address)", same))
    unreadable: list[Sequence[Cell]] = [(each.name, each.error or "") for each in checked if each.error is not None]
    if unreadable:
        sections.append(Section("unreadable", columns(unreadable)))
    return title, sections


_WORST = {Severity.ERROR: "an error", Severity.WARNING: "a warning", Severity.INFO: "information", None: "nothing"}


def _worst(each: Checked) -> Severity | None:
    return each.findings[0].severity if each.findings else None


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
