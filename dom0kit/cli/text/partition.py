# SPDX-License-Identifier: MIT
"""Partitions for people: what can be given away, what is in conflict, what a plan does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from dom0kit.address import Sbdf
from dom0kit.cli.text.layout import Cell, Line, Section, columns, count, line
from dom0kit.finding import RULES, Severity
from dom0kit.partition.check import Verdict
from dom0kit.partition.ground import Ground
from dom0kit.partition.plan import PartitionPlan
from dom0kit.partition.rules import NO_IOMMU, Conflict
from dom0kit.partition.suggest import Answer, Suggestion, Unit
from dom0kit.pci.names import names
from dom0kit.plan import Reach

_STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.INFO: "dim"}
_SHOWN = 12
"""Conflicts of one rule that are shown one by one."""
_OPERATIONS = 400

Report = tuple[list[Line], list[Section]]


def suggestion(ground: Ground, found: Suggestion) -> Report:
    title = [
        line(
            (found.machine, "bold"),
            f": {count(len(found.givable), 'unit')} can be given away, {len(found.blocked)} cannot",
        ),
        line((f"domains are {ground.backend.value}'s", "dim")),
    ]
    if found.blocked and all(_lacks_iommu(unit) for unit in found.blocked) and not found.givable:
        title.append(line(("the machine has no IOMMU: --trusted tells what can be given to trusted domains", "yellow")))
    sections = [
        Section("can be given away, each as a whole", [each for unit in found.givable for each in _unit(ground, unit)]),
        Section("stays with dom0", [each for unit in found.blocked for each in _unit(ground, unit)]),
        Section("not judged", [line(f"{what}: {why}") for why, what in found.unknown]),
    ]
    return title, [section for section in sections if section.lines]


def answer(ground: Ground, found: Answer, *, written: str | None) -> Report:
    if found.domains:
        title = [line(("found", "bold green"), f"; written to {written}" if written is not None else "")]
        sections = [Section(name, columns([_function(ground, sbdf) for sbdf in of])) for name, of in found.domains]
        return title, [*sections, *_conflicts(found.conflicts)]
    if found.gave_up:
        return [line(("nothing found yet", "bold yellow"), ": the search was stopped; want less at a time")], []
    if found.short:
        lines = [line(text) for text in found.short]
        return [line(("not possible", "bold red"), ": too few functions fit, whatever the rules")], [
            Section("wants that cannot be met", lines)
        ]
    lines = []
    for number, rules in enumerate(found.in_the_way):
        head = "these together: without any one of them it would go on" if len(rules) > 1 else "this one"
        children = [line((RULES[rule].title if rule in RULES else rule), (f"  [{rule}]", "dim")) for rule in rules]
        lines.append(line("" if number == 0 else "and then ", head, children=children))
    return [line(("not possible", "bold red"), ": rules are in the way")], [
        Section("in the way", lines),
        *_conflicts(found.evidence),
    ]


def verdict(ground: Ground, said: Verdict, file: str) -> Report:
    errors = sum(each.is_error for each in said.conflicts)
    warnings = sum(each.finding.severity is Severity.WARNING for each in said.conflicts)
    state: Cell = ("a plan can be made", "green") if said.feasible else ("no plan can be made", "bold red")
    title = [
        line(
            (file, "bold"), f" on {said.machine}: ", state, f"; {count(errors, 'error')}, {count(warnings, 'warning')}"
        ),
        line((f"domains are {ground.backend.value}'s", "dim")),
    ]
    domains = [
        Section(f"domain {of.name}", columns([_function(ground, sbdf) for sbdf in of.functions])) for of in said.domains
    ]
    return title, [*(section for section in domains if section.lines), *_conflicts(said.conflicts)]


def plan(made: PartitionPlan, *, written: str | None, explain: bool) -> Report:
    of = made.plan
    title = [
        line(
            (f"plan for {of.machine}", "bold"),
            f": {count(len(of.operations), 'operation')}, for {of.backend.value}",
            f"; written to {written}" if written is not None else "",
        ),
        *(line((remark, "yellow")) for remark in made.remarks),
    ]
    rows: list[Sequence[Cell]] = []
    for number, operation in enumerate(of.operations[:_OPERATIONS]):
        row: list[Cell] = [str(number), str(operation), (operation.why, "dim")]
        if explain:
            inverse = operation.inverse(of.backend)
            row.append("undone exactly" if inverse.reach is Reach.EXACT else f"undone but for: {inverse.residue}")
        rows.append(row)
    lines = columns(rows, right=[0])
    if len(of.operations) > _OPERATIONS:
        lines.append(line((f"and {len(of.operations) - _OPERATIONS} more: --format json has them all", "dim")))
    sections = [Section("operations", lines)]
    if explain:
        sections.append(Section("relies upon", [line(str(fact)) for fact in of.facts]))
        sections.append(Section("is for", [line(f"the machine with fingerprint {of.fingerprint}")]))
    for fragment in made.fragments:
        sections.append(
            Section(f"for xl, domain {fragment.domain}", [line(text) for text in fragment.text.splitlines()])
        )
    told = [each for each in made.verdict.conflicts if explain or each.finding.severity is not Severity.INFO]
    return title, [*(section for section in sections if section.lines), *_conflicts(told)]


def _lacks_iommu(unit: Unit) -> bool:
    return any(each.finding.rule == NO_IOMMU.id for each in unit.conflicts)


def _unit(ground: Ground, unit: Unit) -> Iterator[Line]:
    """A row for each function; under the first one what is to be said of the whole."""
    rows = columns([_function(ground, sbdf) for sbdf in unit.functions])
    told = [each for each in unit.conflicts if each.finding.severity is not Severity.INFO]
    if told:
        rows[0].children = [
            line(
                (each.finding.severity.value, _STYLES[each.finding.severity]),
                f"  {each.finding.message}",
                (f"  [{each.finding.rule}]", "dim"),
            )
            for each in told[:_SHOWN]
        ]
    yield rows[0]
    for row in rows[1:]:
        yield line("+ ", *row.cells, children=row.children)


def _function(ground: Ground, sbdf: Sbdf) -> list[Cell]:
    function = ground.functions[sbdf]
    known = names()
    vendor = known.vendor(function.vendor) or f"{function.vendor:04x}"
    device = known.device(function.vendor, function.device) or f"device {function.device:04x}"
    return [(str(sbdf), "bold"), f"{vendor} {device}", function.driver or "no driver"]


def _conflicts(told: Sequence[Conflict]) -> list[Section]:
    lines = []
    for (severity, rule), group in groupby(told, lambda each: (each.finding.severity, each.finding.rule)):
        of_rule = list(group)
        children = []
        for each in of_rule[:_SHOWN]:
            at = f"line {each.line}: " if each.line is not None else ""
            children.append(
                line(
                    f"{at}{each.finding.message}",
                    children=[line(("either " if way is each.ways[0] else "or ", "green"), way) for way in each.ways],
                )
            )
        if len(of_rule) > _SHOWN:
            children.append(line((f"and {len(of_rule) - _SHOWN} more: --format json has them all", "dim")))
        title = RULES[rule].title if rule in RULES else rule
        lines.append(line((severity.value, _STYLES[severity]), f"  {title}", (f"  [{rule}]", "dim"), children=children))
    if lines:
        lines.append(line(("dom0kit explain RULE says what a rule in [] means and what to do", "dim")))
    return [Section("conflicts", lines)] if lines else []
