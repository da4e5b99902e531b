# SPDX-License-Identifier: MIT
"""What planning costs on a machine larger than any there is: 4,096 functions with 64 messages each on 1,024 CPUs.

``python -m benchmarks.planning`` prints the table that ``./dev bench`` keeps. All wants do not fit (262,144 messages,
some 206,000 vectors), so each plan also finds what everybody may have.
"""

from __future__ import annotations

import gc
import statistics
import struct
import time
from collections.abc import Callable

import msgspec

from benchmarks.hv_core import madt
from benchmarks.synthetic import functions
from dom0kit.address import Sbdf
from dom0kit.interrupt_plan import Wishes, plan_interrupts
from dom0kit.interrupts import routing_table
from dom0kit.iommu.facts import IommuFacts, IommuKind
from dom0kit.observation import observe
from dom0kit.plan import Backend
from dom0kit.platform import Platform
from dom0kit.source.in_memory import MemorySource
from dom0kit.source.interface import RawFunction, RawTable, SourceKind
from dom0kit.vectors import Policy, budget, limits

FUNCTIONS, MESSAGES, CPUS = 4096, 64, 1024
HEAD = ("what", "CPU time", "should be")


def machine() -> Platform:
    """The machine: every function has a table of 64 entries, and no driver."""
    config = bytearray(256)
    struct.pack_into("<HHHHI", config, 0, 0x1234, 0x5678, 0x0006, 0x10, 0x020000 << 8)
    config[0x34] = 0x40
    struct.pack_into("<BBHII", config, 0x40, 0x11, 0, MESSAGES - 1, 0, 0x800)
    raw = []
    for number, place in enumerate(functions(FUNCTIONS, 4)):
        struct.pack_into("<I", config, 0x10, 0x4000_0000 + number * 0x1000)
        raw.append(RawFunction(Sbdf(*place), bytes(config), {"numa_node": str(number % 16)}))
    source = MemorySource("a large machine", SourceKind.RECORDING, tables=[RawTable("APIC", madt(CPUS))], functions=raw)
    platform = observe(source, aml=False)
    # Processors beyond APIC id 254 are reached through a remapper only; a node has 64 processors.
    assert platform.processors is not None
    processors = [
        msgspec.structs.replace(each, proximity_domain=number // 64)
        for number, each in enumerate(platform.processors.processors)
    ]
    return msgspec.structs.replace(
        platform,
        processors=msgspec.structs.replace(platform.processors, processors=tuple(processors)),
        iommu=IommuFacts(kind=IommuKind.VT_D, interrupt_remapping=True),
    )


def section(runs: int) -> str:
    """The table with what it needs said, in Markdown."""
    platform = machine()
    table, _ = routing_table(platform)
    wishes = Wishes(backend=Backend.XEN, entries=MESSAGES)
    near = Wishes(backend=Backend.XEN, entries=MESSAGES, policy=Policy.parse("node"))
    core = limits(platform, Backend.XEN)
    rows = [
        HEAD,
        ("---",) * len(HEAD),
        ("routing table", _median(lambda: routing_table(platform), runs), ""),
        ("budget and an assignment that fits", _median(lambda: budget(platform, table, core, Policy()), runs), ""),
        ("plan", _median(lambda: plan_interrupts(platform, table, wishes), runs), "under 1 s"),
        ("plan, each on its node", _median(lambda: plan_interrupts(platform, table, near), runs), "under 1 s"),
    ]
    lines = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    operations = len(plan_interrupts(platform, table, wishes).plan.operations)
    return f"""## Planning

{FUNCTIONS:,} functions with {MESSAGES} messages each on {CPUS:,} CPUs: processor time, median of {runs}, observing not
included. The plan has {operations:,} operations.

{lines}"""


def _median(work: Callable[[], object], runs: int) -> str:
    """Of one thread that waits for nothing; as on the command line, where nothing is collected."""
    times = []
    for _ in range(runs):
        gc.collect()
        gc.disable()
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
        gc.enable()
    return f"{statistics.median(times):.2f} s"


if __name__ == "__main__":
    print(section(5), end="")
