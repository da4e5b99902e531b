# SPDX-License-Identifier: MIT
"""Interrupts per second: two readings of the kernel's counters, compared.

Sources: Linux, Documentation/filesystems/proc.rst (/proc/interrupts; /proc/irq/N/spurious counts what nobody handled).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

import msgspec

from dom0kit.trace.counts import Counts
from dom0kit.trace.names import Owner

_OTHERS = {
    "SPU": "spurious, of local APICs",
    "ERR": "errors of local APICs",
    "MIS": "level interrupts that came as edges",
    "LOC": "local timers",
    "RES": "reschedulings",
    "CAL": "calls of functions",
    "TLB": "TLB shootdowns",
    "NMI": "NMIs",
}


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """Of one interrupt."""

    irq: int
    who: str
    per_second: float
    cpus: tuple[float, ...]
    """In the order of `Rates.cpus`."""
    moved: bool = False
    """It came on a processor on which it had not come before, and no more on the one where it had."""
    unhandled: int = 0
    """How many of them nobody handled."""


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Of all, the most frequent first."""

    seconds: float
    cpus: tuple[int, ...]
    interrupts: tuple[Rate, ...]
    others: Mapping[str, float]
    """Per second, by name of the line."""


def compared(
    before: Counts,
    after: Counts,
    seconds: float,
    owners: Mapping[int, Owner],
    unhandled: Mapping[int, int] | None = None,
    unhandled_now: Mapping[int, int] | None = None,
) -> Rates:
    """What came between two readings; a counter that was begun anew counts from 0. `seconds` above 0."""
    old = {cpu: column for column, cpu in enumerate(before.cpus)}
    rates = []
    for irq, counts in after.interrupts.items():
        earlier = before.interrupts.get(irq, ())
        then = [earlier[old[cpu]] if cpu in old and earlier else 0 for cpu in after.cpus]
        came = [max(0, now - was) if now >= was else now for now, was in zip(counts, then, strict=True)]
        lost = (unhandled_now or {}).get(irq, 0) - (unhandled or {}).get(irq, 0)
        if not any(came) and lost <= 0:
            continue
        new = any(each and not was for each, was in zip(came, then, strict=True))
        quiet = any(was and not each for each, was in zip(came, then, strict=True))
        rates.append(
            Rate(
                irq=irq,
                who=owners.get(irq, Owner(irq=irq)).label,
                per_second=sum(came) / seconds,
                cpus=tuple(each / seconds for each in came),
                moved=new and quiet,
                unhandled=max(0, lost),
            )
        )
    rates.sort(key=lambda rate: (-rate.per_second, rate.irq))
    others = {name: max(0, count - before.others.get(name, 0)) / seconds for name, count in after.others.items()}
    return Rates(seconds=seconds, cpus=after.cpus, interrupts=tuple(rates), others=others)


def read_unhandled(irqs: Iterable[int], folder: str = "/proc/irq") -> dict[int, int]:
    """How often nobody handled each interrupt, as far as the kernel says."""
    found = {}
    for irq in irqs:
        try:
            with open(os.path.join(folder, str(irq), "spurious"), encoding="ascii", errors="replace") as file:
                words = dict(line.split(None, 1) for line in file.read(4096).splitlines() if " " in line)
        except OSError:
            continue
        number = words.get("unhandled", "").strip()
        if number.isdecimal():
            found[irq] = int(number)
    return found


def table(rates: Rates, most: int = 40) -> str:
    """For people; CPUs on which nothing came are left out."""
    busy = [column for column in range(len(rates.cpus)) if any(rate.cpus[column] >= 0.05 for rate in rates.interrupts)]
    lines = [" ".join((f"{'per s':>9}", *(f"{f'CPU{rates.cpus[column]}':>8}" for column in busy), " interrupt"))]
    for rate in rates.interrupts[:most]:
        notes = "  moved" if rate.moved else ""
        notes += f"  {rate.unhandled} unhandled" if rate.unhandled else ""
        numbers = (f"{rate.cpus[column]:8.1f}" for column in busy)
        lines.append(" ".join((f"{rate.per_second:9.1f}", *numbers, f" {rate.who}{notes}")))
    if len(rates.interrupts) > most:
        lines.append(f"and {len(rates.interrupts) - most} more")
    for name, rate_of in rates.others.items():
        if rate_of > 0:
            lines.append(f"{rate_of:9.1f}  {name}  {_OTHERS.get(name, 'see /proc/interrupts')}")
    return "\n".join(lines) + "\n"
