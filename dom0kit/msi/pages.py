# SPDX-License-Identifier: MIT
"""MSI-X tables and pending bits that share a page with something else.

A page is the least that one domain can be given of a device, or denied: whoever may reach the registers in a page can
then write interrupt messages as well, and a hypervisor that keeps the table to itself keeps the registers, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from dom0kit.finding import Finding, Severity, rule
from dom0kit.pci.capabilities.msix import MsiX
from dom0kit.pci.capabilities.vendor import Virtio
from dom0kit.pci.function import Bar, BarKind, Function

PAGE: Final = 4096

SHARED: Final = rule(
    "msi.shared-page",
    Severity.WARNING,
    title="an MSI-X table or its pending bits share a page with registers",
    meaning="Something else is mapped in the same 4 KiB: another BAR, of this function or another, or registers of the "
    "device. A domain that is given those registers can write interrupt messages; a hypervisor that keeps the page "
    "to itself emulates every access to the registers, and the device is slow.",
    advice="Where another BAR shares the page: have BARs aligned to pages (Linux: pci=resource_alignment=). Otherwise "
    "give the function only to a domain that you trust, or rely on interrupt remapping.",
    specification="PCI Local Bus 3.0, section 6.8.2: no register in the naturally aligned 4 KiB of either structure",
)
PERHAPS_SHARED: Final = rule(
    "msi.offset-in-page",
    Severity.INFO,
    title="an MSI-X table or its pending bits begin inside a page",
    meaning="What lies before, in the same 4 KiB of the BAR, belongs to neither structure: most often registers of the "
    "device, which then share a page with it.",
    advice="As for msi.shared-page, if the device's documentation has registers there.",
    specification="PCI Local Bus 3.0, section 6.8.2",
)


def check(functions: Iterable[Function]) -> tuple[Finding, ...]:
    """What shares a page with an MSI-X structure, as far as BARs, their sizes, and capabilities tell."""
    known = tuple(functions)
    small = _small_bars(known)
    findings: list[Finding] = []
    for function in known:
        for capability in function.capabilities:
            if isinstance(capability, MsiX):
                findings.extend(_check(function, capability, small))
    return tuple(findings)


_IN_MEMORY: Final = (1, 2, 3, 4, 8)
"""Structures of virtio that a driver reaches in the BAR: all but the way through config space, and the vendor's own."""
_Small = Mapping[int, Sequence[tuple[Function, Bar]]]


def _small_bars(functions: Iterable[Function]) -> _Small:
    """BARs below a page, by page; larger ones are aligned to their size and have their pages to themselves."""
    found: dict[int, list[tuple[Function, Bar]]] = {}
    for function in functions:
        for bar in function.bars:
            if bar.kind is not BarKind.IO and bar.address and bar.size is not None and bar.size < PAGE:
                found.setdefault(bar.address // PAGE, []).append((function, bar))
    return found


def _check(function: Function, msix: MsiX, small: _Small) -> Iterable[Finding]:
    structures = [
        ("the table", msix.table_bar, msix.table_offset, msix.table_size),
        ("the pending bits", msix.pba_bar, msix.pba_offset, msix.pba_size),
    ]
    for name, index, start, size in structures:
        bar = next((each for each in function.bars if each.index == index and each.kind is not BarKind.IO), None)
        if bar is None:
            continue
        place = f"{name} at BAR {index}+{start:#x}"
        others = [*_virtio(function, index, start, size), *_neighbours(function, bar, small)]
        if others:
            more = f" and {len(others) - 3} more" if len(others) > 3 else ""
            yield SHARED.at(function.where, f"{place} shares a page with {', '.join(others[:3])}{more}")
            continue
        first = start - start % PAGE
        begins = min(at for _, of, at, bytes in structures if of == index and at + bytes > first)
        if begins == start > first:
            yield PERHAPS_SHARED.at(function.where, f"{place}: {start - first:#x} bytes lie before it in its page")


def _virtio(function: Function, bar: int, start: int, size: int) -> Iterable[str]:
    first, end = start // PAGE, (start + size - 1) // PAGE
    for each in function.capabilities:
        if not (isinstance(each, Virtio) and each.bar == bar and each.size and each.structure in _IN_MEMORY):
            continue
        if each.bar_offset // PAGE <= end and first <= (each.bar_offset + each.size - 1) // PAGE:
            yield f"virtio structure {each.structure} at BAR {bar}+{each.bar_offset:#x}"


def _neighbours(function: Function, bar: Bar, small: _Small) -> Iterable[str]:
    if bar.size is None or bar.size >= PAGE:
        return
    for owner, other in small.get(bar.address // PAGE, ()):
        if owner.sbdf != function.sbdf:
            yield f"BAR {other.index} of {owner.sbdf}"
        elif other.index != bar.index:
            yield f"BAR {other.index}"
