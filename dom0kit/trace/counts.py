# SPDX-License-Identifier: MIT
"""How often each interrupt came on each processor, by /proc/interrupts.

Source: Linux, kernel/irq/proc.c and arch/x86/kernel/irq.c. The numbered lines count devices' interrupts. Of the named
ones, ``SPU`` counts spurious interrupts of local APICs. ``ERR`` and ``MIS`` have no column a processor: errors of local
APICs, and level interrupts that came as edges.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

COUNTERS = ("SPU", "ERR", "MIS")
_MOST_CPUS = 1 << 16


class Counts(msgspec.Struct, frozen=True):
    """One reading."""

    cpus: tuple[int, ...]
    """Linux's numbers of the processors that are online, in the order of the columns."""
    interrupts: Mapping[int, tuple[int, ...]]
    """By Linux's number: how often, by column."""
    others: Mapping[str, int]
    """`COUNTERS`, and of every other named line its sum."""

    def total(self, irq: int) -> int:
        """On all processors; 0 of an interrupt that there is not."""
        return sum(self.interrupts.get(irq, ()))


NOTHING = Counts((), {}, {})


def parse_counts(text: str) -> Counts:
    """Of any text: lines that are none of /proc/interrupts are left out."""
    lines = text.splitlines()
    if not lines:
        return NOTHING
    cpus = []
    for word in lines[0].split()[:_MOST_CPUS]:
        number = word.removeprefix("CPU")
        if not word.startswith("CPU") or not _is_number(number):
            return NOTHING
        cpus.append(int(number))
    interrupts: dict[int, tuple[int, ...]] = {}
    others: dict[str, int] = {}
    for line in lines[1:]:
        head, colon, rest = line.partition(":")
        name = head.strip()
        words = rest.split(None, len(cpus))[: len(cpus)]
        counts = []
        for word in words:
            if not _is_number(word):
                break
            counts.append(int(word))
        if not colon or not counts:
            continue
        if _is_number(name):
            if len(counts) == len(cpus):
                interrupts.setdefault(int(name), tuple(counts))
        elif name.isascii() and name.isalnum() and len(name) <= 8:
            others.setdefault(name, sum(counts))
    return Counts(tuple(cpus), interrupts, others)


def read_counts(path: str = "/proc/interrupts") -> Counts:
    """Of this machine. OSError."""
    with open(path, encoding="ascii", errors="replace") as file:
        return parse_counts(file.read())


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 20
