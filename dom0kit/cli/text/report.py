# SPDX-License-Identifier: MIT
"""The whole text report: what machine it is, what is wrong with it, then every part at length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby

from dom0kit.cli.text.layout import Cell, Line, Section, about, columns, count, line, ranges
from dom0kit.finding import RULES, Finding, Severity
from dom0kit.msi.state import InterruptMode
from dom0kit.platform import Platform
from dom0kit.processors import ProcessorState

_STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.INFO: "cyan"}
_SHOWN = 10
"""Findings of one rule that are listed."""


def report(platform: Platform, *, remark: str = "") -> tuple[list[Line], list[Section]]:
    """The title, which is the summary, and the sections; empty ones are left out."""
    title = [line((remark, "bold yellow")), line("")] if remark else []
    title += columns([((label, "bold"), *cells) for label, *cells in _summary(platform) if any(cells)])
    sections = [Section("findings", findings(platform.findings)), *_sections(platform)]
    return title, [section for section in sections if section.lines]


def _summary(platform: Platform) -> Iterator[tuple[str, ...]]:
    machine, origin = platform.machine, platform.origin
    names = " ".join(filter(None, (machine.vendor, machine.product, machine.version)))
    board = f"board {machine.board}" if machine.board else ""
    yield "machine", ", ".join(filter(None, (names or machine.oem or "without a name", board)))
    yield "firmware", machine.firmware or ""
    yield "seen from", f"{origin.name} ({origin.kind.value})"
    if platform.native is not None:
        yield "native view", f"{platform.native.name} ({platform.native.kind.value})"
    yield "kernel", machine.kernel or ""
    yield "hypervisor", _hypervisor(platform)
    yield from _processors(platform)
    yield from _memory(platform)
    yield "ACPI", _acpi(platform)
    yield "PCI", _pci(platform)
    if platform.ioapics:
        each = ", ".join(f"id {of.id} with GSI {of.gsi_base}-{of.gsi_last}" for of in platform.ioapics)
        yield "IOAPICs", f"{len(platform.ioapics)}: {each}"
    yield "interrupts", _interrupts(platform)
    yield "IOMMU", _iommu(platform)
    yield "groups", _groups(platform)
    yield "findings", _counts(platform.findings)


def _hypervisor(platform: Platform) -> str:
    if (domain := platform.xen) is None:
        return platform.machine.hypervisor or ""
    version = f" {domain.version}" if domain.version is not None else ""
    return f"xen{version}, {domain.kind.value} {'dom0' if domain.is_dom0 else 'guest'}"


def _processors(platform: Platform) -> Iterator[tuple[str, ...]]:
    if (facts := platform.processors) is None or not facts.processors:
        return
    states = Counter(of.state for of in facts.processors)
    said = [f"{states[state]} {state.value}" for state in ProcessorState if states[state]]
    said.append(f"APIC ids {ranges(of.apic_id for of in facts.processors if of.state is ProcessorState.ENABLED)}")
    if any(of.x2apic for of in facts.processors):
        said.append("x2APIC")
    yield "CPUs", ", ".join(said)
    nodes = Counter(of.proximity_domain for of in facts.processors if of.state is ProcessorState.ENABLED)
    if len(nodes) > 1 or None not in nodes:
        yield (
            "NUMA",
            ", ".join(
                f"node {node}: {count(nodes[node], 'CPU')}"
                for node in sorted(node for node in nodes if node is not None)
            ),
        )


def _memory(platform: Platform) -> Iterator[tuple[str, ...]]:
    if (facts := platform.memory) is None:
        return
    hot = sum(of.length for of in facts.ranges if of.hot_pluggable)
    ram = facts.of_type("System RAM") or sum(of.length for of in facts.ranges if not of.hot_pluggable)
    said = [f"{about(ram)} RAM" if ram else "", f"{about(hot)} hot-pluggable" if hot else ""]
    yield "memory", ", ".join(filter(None, said))


def _acpi(platform: Platform) -> str:
    if not platform.tables:
        return ""
    said = [count(len(platform.tables), "table")]
    if (namespace := platform.namespace) is not None:
        said.append(f"{count(len(namespace.objects), 'object')}, {count(len(namespace.devices), 'device')}")
    return ", ".join(said)


def _pci(platform: Platform) -> str:
    if not platform.functions or platform.topology is None:
        return ""
    bridges = sum(function.bridge is not None or function.cardbus is not None for function in platform.functions)
    segments = {function.sbdf.segment for function in platform.functions}
    virtual = sum(len(of.present) for of in platform.topology.virtual_functions)
    said = [
        count(len(platform.functions), "function"),
        count(bridges, "bridge") if bridges else "",
        count(virtual, "virtual function") if virtual else "",
        count(len(platform.topology.roots), "root bus", "root buses"),
        count(len(segments), "segment") if segments != {0} else "",
    ]
    return ", ".join(filter(None, said))


def _interrupts(platform: Platform) -> str:
    modes = Counter(state.mode for state in platform.msi)
    said = [
        f"{modes[mode]} by {mode.value}" for mode in InterruptMode if modes[mode] and mode is not InterruptMode.NONE
    ]
    if platform.routes:
        routed = sum(route.gsi is not None for route in platform.routes)
        shared = sum(len(of.functions) > 1 for of in platform.lines)
        said.append(f"{routed} of {count(len(platform.routes), 'INTx pin')} routed")
        if shared:
            said.append(f"{count(shared, 'GSI')} shared")
    return ", ".join(said)


def _iommu(platform: Platform) -> str:
    if (facts := platform.iommu) is None:
        return ""
    if facts.kind is None:
        return "none described"
    from dom0kit.cli.text.isolation import KINDS

    said = [KINDS[facts.kind], count(len(facts.units), "unit")]
    said.append("interrupt remapping" if facts.interrupt_remapping else "no interrupt remapping")
    if facts.reserved:
        said.append(count(len(facts.reserved), "reserved region"))
    return ", ".join(said)


def _groups(platform: Platform) -> str:
    if not platform.groups:
        return ""
    alone = sum(len(group.functions) == 1 for group in platform.groups)
    return f"{len(platform.groups)}, {count(alone, 'function')} alone in one"


def _counts(told: Sequence[Finding]) -> str:
    counts = Counter(finding.severity for finding in told)
    parts = [count(counts[severity], severity.value, _PLURALS[severity]) for severity in _STYLES if counts[severity]]
    return ", ".join(parts) or "none"


_PLURALS = {Severity.ERROR: "errors", Severity.WARNING: "warnings", Severity.INFO: "info"}


def findings(told: Sequence[Finding]) -> list[Line]:
    """The most severe first, those of one rule together."""
    result = []
    for (severity, identity), group in groupby(told, lambda finding: (finding.severity, finding.rule)):
        of_rule = list(group)
        title = RULES[identity].title if identity in RULES else identity
        rows: list[Sequence[Cell]] = [(finding.where, finding.message) for finding in of_rule[:_SHOWN]]
        children = columns(rows)
        if len(of_rule) > _SHOWN:
            children.append(line((f"and {len(of_rule) - _SHOWN} more: --format json has them all", "dim")))
        result.append(
            line((severity.value, _STYLES[severity]), f"  {title}", (f"  [{identity}]", "dim"), children=children)
        )
    if result:
        result.append(line(("dom0kit explain RULE says what a rule in [] means and what to do", "dim")))
    return result


def _sections(platform: Platform) -> Iterator[Section]:
    if platform.native is not None:
        rows: list[Sequence[Cell]] = [(of.fact, of.reason) for of in platform.native.borrowed]
        yield Section(f"from {platform.native.name}; all else is what dom0 sees", columns(rows))
    if platform.tables:
        from dom0kit.cli.text import acpi

        yield Section("ACPI tables", acpi.tables(platform.tables, platform.findings))
    if platform.functions and platform.topology is not None:
        from dom0kit.cli.text import pci
        from dom0kit.pci.names import names

        yield Section("PCI", pci.tree(platform.functions, platform.topology, platform.resets, names()))
    from dom0kit.cli.text import interrupts

    yield Section("IOAPICs", interrupts.ioapics(platform.ioapics))
    if platform.legacy is not None:
        yield Section(
            "ISA interrupts that are not edge high on their own GSI, SCI, NMI", interrupts.legacy(platform.legacy)
        )
    yield Section("INTx routing", interrupts.routes(platform.routes))
    yield Section("GSIs of INTx pins", interrupts.lines(platform.lines))
    yield Section("MSI and MSI-X in use", interrupts.messages(platform.msi))
    from dom0kit.cli.text import isolation

    if platform.iommu is not None:
        yield Section("IOMMU", isolation.units(platform.iommu))
        yield Section("reserved for DMA", isolation.reserved(platform.iommu.reserved))
    yield Section("isolation groups", isolation.groups(platform.groups, platform.functions))
    from dom0kit.cli.text import processors

    if platform.processors is not None:
        yield Section("CPUs", processors.cpus(platform.processors))
    if platform.memory is not None:
        yield Section("memory", processors.ranges(platform.memory))
        yield Section("firmware's memory map", processors.memory_map(platform.memory))
