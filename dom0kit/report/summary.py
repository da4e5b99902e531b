# SPDX-License-Identifier: MIT
"""The machine in a few lines, and what is wrong with it as a list that can be filtered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby

from dom0kit.check.rules import explained
from dom0kit.finding import Finding, Severity
from dom0kit.platform import Platform
from dom0kit.report.markup import Html, el, join, section

_HEAVY = (Severity.ERROR, Severity.WARNING, Severity.INFO)


def title(platform: Platform) -> str:
    """What the machine is called."""
    machine = platform.machine
    names = " ".join(filter(None, (machine.vendor, machine.product, machine.version)))
    return names or machine.oem or "a machine without a name"


def summary(platform: Platform, findings: Sequence[Finding]) -> Html:
    """Names, numbers, and how many findings there are."""
    counts = Counter(finding.severity for finding in findings)
    told = ", ".join(f"{counts[of]} {of.value}" for of in _HEAVY if counts[of]) or "none"
    rows = [*((name, value) for name, value in _rows(platform) if value), ("findings", told)]
    pairs = join(el("div", el("dt", name), el("dd", value)) for name, value in rows)
    return section("machine", "Machine", el("dl", pairs, class_="facts"))


def _rows(platform: Platform) -> Iterator[tuple[str, str]]:
    machine = platform.machine
    yield "machine", title(platform)
    yield "board", machine.board or ""
    yield "firmware", machine.firmware or ""
    yield "seen from", f"{platform.origin.name} ({platform.origin.kind.value})"
    yield "kernel", machine.kernel or ""
    yield "hypervisor", machine.hypervisor or ""
    if platform.processors is not None and platform.processors.processors:
        yield "processors", f"{platform.processors.enabled} enabled of {len(platform.processors.processors)}"
    if platform.memory is not None and platform.memory.map:
        yield "memory", f"{platform.memory.of_type('System RAM') / (1 << 30):.1f} GiB"
    yield "ACPI", f"{len(platform.tables)} tables" if platform.tables else ""
    yield "PCI", f"{len(platform.functions)} functions" if platform.functions else ""
    yield "IOAPICs", str(len(platform.ioapics)) if platform.ioapics else ""
    if platform.iommu is not None:
        kind = platform.iommu.kind
        yield "IOMMU", f"{kind.value}, units: {len(platform.iommu.units)}" if kind is not None else "none described"
    yield "isolation groups", str(len(platform.groups)) if platform.groups else ""
    yield "fingerprint", platform.origin.fingerprint


def findings_list(findings: Sequence[Finding]) -> Html:
    """Every finding with its evidence; what the rule means opens below it."""
    if not findings:
        return section("findings", "Findings", el("p", "There are none."))
    counts = Counter(finding.severity for finding in findings)
    boxes = join(
        el(
            "label",
            el("input", type="checkbox", checked=True, data_severity=of.value),
            f" {of.value} ({counts[of]})",
            class_=f"severity {of.value}",
        )
        for of in _HEAVY
        if counts[of]
    )
    search = el(
        "label",
        "search ",
        el("input", type="search", id="finding-search", placeholder="rule, place or words", autocomplete="off"),
    )
    bar = el(
        "form",
        el("fieldset", el("legend", "show"), boxes, class_="boxes"),
        search,
        el("output", f"{len(findings)} findings", id="finding-count", aria_live="polite"),
        id="finding-filter",
        role="search",
    )
    rules = groupby(findings, lambda finding: (finding.severity, finding.rule))
    return section("findings", "Findings", bar, *(_rule(list(told)) for _, told in rules))


def _rule(told: Sequence[Finding]) -> Html:
    """What one rule found, below what it means."""
    rule, severity = explained(told[0]), told[0].severity.value
    meaning = el(
        "details",
        el("summary", "what it means and what to do"),
        el("p", rule.meaning or "This version does not know the rule."),
        el("p", el("strong", "What to do: "), rule.advice),
        el("p", el("strong", "Specification: "), rule.specification),
    )
    places = [
        el("li", _place(finding.where), " ", finding.message, data_severity=severity, class_="finding")
        for finding in told
    ]
    name = el("h3", el("span", severity, class_=f"severity {severity}"), f" {rule.title} ", el("code", rule.id))
    return el("div", name, meaning, el("ul", *places), class_=f"rule {severity}")


def _place(where: str) -> Html:
    """Where it is; a function leads to its place in the tree."""
    kind, _, rest = where.partition(":")
    code = el("code", where)
    return el("a", code, href=f"#f-{rest}") if kind == "pci" and rest.count(":") == 2 else code
