# SPDX-License-Identifier: MIT
"""What the hypervisor core costs: nanoseconds a vector and an apic_write, by how many CPUs it has, and its memory.

``python -m benchmarks.hv_core`` prints the table that ``./dev bench`` keeps. Loops run in C, over the modelled machine;
a figure is the median of several, so an apic_write's holds the model's lock and registers, too.
"""

from __future__ import annotations

import statistics
import struct
from collections.abc import Callable

from dom0kit.abi import Format
from dom0kit.hypercall.core_library import IoapicModel, ModelMachine
from dom0kit.simulation import memory_image
from dom0kit.source.interface import RawTable

CPUS = (1, 64, 4096)
IOAPIC = 0xFEC00000
VECTORS, WRITES = 500_000, 100_000
"""Calls a loop."""
HEAD = ("CPUs", "vector, all free", "vector, one free", "apic_write", "struct hv_core")


def madt(cpus: int) -> bytes:
    """A MADT with so many x2APIC processors and one IOAPIC."""
    entries = b"".join(struct.pack("<BBHIII", 9, 16, 0, apic_id, 1, apic_id) for apic_id in range(cpus))
    body = struct.pack("<II", 0xFEE00000, 1) + entries + struct.pack("<BBBBII", 1, 12, 0, 0, IOAPIC, 0)
    table = struct.pack("<4sIBB6s8sI4sI", b"APIC", 36 + len(body), 3, 0, b"DOM0K ", b"BENCH   ", 1, b"DOM0", 1) + body
    return table[:9] + bytes([-sum(table) & 0xFF]) + table[10:]


def machine(cpus: int) -> ModelMachine:
    """The core on a machine whose remapper reaches every processor."""
    memory, rsdp, _ = memory_image([RawTable("APIC", madt(cpus))])
    made = ModelMachine(
        memory=memory,
        ioapics=[IoapicModel(address=IOAPIC)],
        rsdp=rsdp,
        entry_format=Format.VTD,
        message_format=Format.VTD,
    )
    assert made.domain(0).information().cpus == cpus
    return made


def row(cpus: int, runs: int) -> tuple[str, ...]:
    """One line of the table."""
    made = machine(cpus)
    kib = made.domain(0).information().bytes / 1024
    return (
        f"{cpus:,}",
        _median(lambda: made.nanoseconds_a_vector(VECTORS), runs),
        _median(lambda: made.nanoseconds_a_vector(VECTORS, full=True), runs),
        _median(lambda: made.nanoseconds_an_apic_write(IOAPIC, WRITES), runs),
        f"{kib:,.0f} KiB",
    )


def _median(measure: Callable[[], float], runs: int) -> str:
    return f"{statistics.median(measure() for _ in range(runs)):.0f} ns"


def section(runs: int) -> str:
    """The table with what it needs said, in Markdown."""
    lines = [HEAD, ("---",) * len(HEAD), *(row(cpus, runs) for cpus in CPUS)]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return f"""## The hypervisor core

As a library over the modelled machine, loops in C, median of {runs}: allocating a vector and giving it back, with every
vector free and with all but one taken; an `apic_write` hypercall that masks or unmasks a pin, with the model's lock and
registers. It should be flat: no cost grows with the number of CPUs. The structure has its limits' size, whatever the
machine.

{table}"""


if __name__ == "__main__":
    print(section(9), end="")
