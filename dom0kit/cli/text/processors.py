# SPDX-License-Identifier: MIT
"""The part of the text report about CPUs and memory."""

from __future__ import annotations

from collections.abc import Sequence

from dom0kit.cli.text.layout import Cell, Line, about, columns, size
from dom0kit.memory import MemoryFacts
from dom0kit.processors import Processors


def cpus(facts: Processors) -> list[Line]:
    """One row for each processor of the MADT and the namespace."""
    rows: list[Sequence[Cell]] = [
        (
            (f"APIC {of.apic_id:#x}", "bold"),
            f"uid {of.uid}",
            f"CPU {of.cpu}" if of.cpu is not None else "",
            f"node {of.proximity_domain}" if of.proximity_domain is not None else "",
            of.state.value,
            "x2APIC" if of.x2apic else "",
            of.aml_path or "",
            "" if of.in_madt else "not in the MADT",
        )
        for of in facts.processors
    ]
    return columns(rows)


def ranges(facts: MemoryFacts) -> list[Line]:
    """The SRAT's ranges, the memory devices, and how far nodes are from each other."""
    rows: list[Sequence[Cell]] = []
    for of in facts.ranges:
        marks = {"hot-plug": of.hot_pluggable, "non-volatile": of.non_volatile, "specific purpose": of.specific_purpose}
        kind = ", ".join(mark for mark, holds in marks.items() if holds)
        rows.append((f"node {of.proximity_domain}", f"{of.base:#x}-{of.end:#x}", about(of.length), kind))
    for device in facts.devices:
        where = " ".join(f"{base:#x}+{size(length)}" for base, length in device.ranges)
        state = ["present" if device.present else "absent"] + (["ejectable"] if device.ejectable else [])
        rows.append((device.path, where or "empty", "", ", ".join(state)))
    result = columns(rows)
    if facts.distances:
        cells = [[f"from {node}", *map(str, row)] for node, row in enumerate(facts.distances)]
        heading = ["distance", *(f"to {node}" for node in range(len(facts.distances)))]
        result += columns([heading, *cells], right=range(1, len(heading)))
    return result


def memory_map(facts: MemoryFacts) -> list[Line]:
    """The firmware's memory map."""
    return columns(
        [(f"{of.start:#014x}-{of.end:#014x}", about(of.end - of.start + 1), of.type) for of in facts.map], right=[1]
    )
