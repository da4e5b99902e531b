# SPDX-License-Identifier: MIT
"""The isolation part of the text report: IOMMUs, memory that functions must keep reaching, and groups."""

from __future__ import annotations

from collections.abc import Sequence

from dom0kit.address import Sbdf
from dom0kit.cli.text.layout import Cell, Line, columns, count, line, size
from dom0kit.iommu.facts import IommuFacts, IommuKind, IommuUnit, ReservedRegion
from dom0kit.pci.function import Function
from dom0kit.pci.isolation import Group

KINDS = {IommuKind.VT_D: "Intel VT-d", IommuKind.AMD_VI: "AMD-Vi"}
_MANY = 8


def groups(all_groups: Sequence[Group], functions: Sequence[Function]) -> list[Line]:
    """One row a group, with the kernel's number where it has the same group, and under it what joins its functions."""
    by_kernel: dict[int, list[Sbdf]] = {}
    for function in functions:
        if function.iommu_group is not None:
            by_kernel.setdefault(function.iommu_group, []).append(function.sbdf)
    numbers = {tuple(sorted(members)): number for number, members in by_kernel.items()}
    rows = columns(
        [
            (
                (f"group {of.number}", "bold"),
                f"iommu_group {numbers[of.functions]}" if of.functions in numbers else "",
                " ".join(map(str, of.functions)),
            )
            for of in all_groups
        ]
    )
    for row, of in zip(rows, all_groups, strict=True):
        row.children = [
            line(
                (
                    f"{reason.function} with {reason.with_}: {reason.cause.value}: {reason.detail}"
                    + ("" if reason.certain else " (perhaps)"),
                    "dim",
                )
            )
            for reason in of.reasons
        ]
    return rows


def units(iommu: IommuFacts) -> list[Line]:
    """One row for each remapping unit, and each IOAPIC or HPET that it checks."""
    rows: list[Sequence[Cell]] = [_unit(unit) for unit in iommu.units]
    rows += [
        (
            f"{source.kind.value.upper()} {source.id}",
            f"as {source.requester or 'nobody'}",
            f"through unit {source.unit}",
        )
        for source in iommu.interrupt_sources
    ]
    return columns(rows)


def _unit(unit: IommuUnit) -> tuple[Cell, ...]:
    what = "all others of its segment" if unit.include_all else _functions(unit.functions)
    extent = f"{unit.register_base:#x}" + (f" {size(unit.register_bytes)}" if unit.register_bytes else "")
    return (
        (f"unit {unit.index}", "bold"),
        extent,
        f"segment {unit.segment:04x}",
        what,
        f"node {unit.proximity_domain}" if unit.proximity_domain is not None else "",
    )


def reserved(regions: Sequence[ReservedRegion]) -> list[Line]:
    """One row for each region that firmware reserves."""
    return columns([_region(region) for region in regions])


def _region(region: ReservedRegion) -> tuple[Cell, ...]:
    length = region.limit - region.base + 1
    access = "".join(("r" if region.read else "", "w" if region.write else "")) or "no access"
    return (
        (region.source.value, "bold"),
        f"{region.base:#x}-{region.limit:#x}",
        size(length) if length > 0 else "",
        "exclusion" if region.exclusion else access,
        "all functions" if region.all_functions else _functions(region.functions),
        f"group {', '.join(map(str, region.groups))}" if region.groups else "",
    )


def _functions(functions: Sequence[Sbdf]) -> str:
    if len(functions) > _MANY:
        return f"{count(len(functions), 'function')}, {functions[0]} to {functions[-1]}"
    return " ".join(map(str, functions)) or "no function present"
