# SPDX-License-Identifier: MIT
"""What judging a partition costs: 64 domains that have all functions of a machine larger than any there is.

``python -m benchmarks.partition`` prints the table that ``./dev bench`` keeps.
"""

from __future__ import annotations

import gc
import statistics
import struct
import time
from collections.abc import Callable

import msgspec

from benchmarks.hv_core import madt
from dom0kit.address import Sbdf
from dom0kit.iommu.facts import IommuFacts, IommuKind
from dom0kit.iommu.observe import isolation_groups
from dom0kit.observation import observe
from dom0kit.partition.check import Verdict, check
from dom0kit.partition.document import read
from dom0kit.partition.ground import Ground
from dom0kit.partition.starting import partition_text
from dom0kit.partition.suggest import suggest
from dom0kit.platform import Platform
from dom0kit.source.in_memory import MemorySource
from dom0kit.source.interface import RawFunction, RawTable, SourceKind

DOMAINS = 64
SIZES = (4096, 16384)
HEAD = ("what", *(f"{size:,} functions" for size in SIZES), "should be")
_PORTS, _BELOW = 29, 8
"""Root ports of a segment, and functions of the device below each."""


def machine(size: int) -> Platform:
    """Devices of eight functions with ACS and 16 messages each, below root ports with ACS."""
    raw = []
    for number in range(size // _BELOW):
        segment, port = divmod(number, _PORTS)
        raw.append(RawFunction(Sbdf(segment, 0, port + 2, 0), _config(4, port + 1), {}))
        raw += (RawFunction(Sbdf(segment, port + 1, 0, n), _config(0, None), {}) for n in range(_BELOW))
    source = MemorySource("a large machine", SourceKind.RECORDING, tables=[RawTable("APIC", madt(1024))], functions=raw)
    platform = observe(source, aml=False)
    facts = IommuFacts(kind=IommuKind.VT_D, interrupt_remapping=True)
    assert platform.topology is not None
    groups = isolation_groups(facts, platform.functions, platform.topology)
    return msgspec.structs.replace(platform, iommu=facts, groups=groups)


def _config(express: int, secondary: int | None) -> bytes:
    config = bytearray(4096)
    kind = 0x060400 if secondary is not None else 0x020000
    struct.pack_into("<HHHHI", config, 0, 0x1234, 0x5678, 0x0006, 0x10, kind << 8)
    config[0x0E] = 0x01 if secondary is not None else 0x80
    if secondary is not None:
        config[0x18:0x1B] = bytes((0, secondary, secondary))
    config[0x34] = 0x40
    struct.pack_into("<BBHIHH", config, 0x40, 0x10, 0x80, 2 | express << 4, 1 << 28, 0, 0)
    struct.pack_into("<BBHII", config, 0x80, 0x11, 0, 15, 0, 0x800)
    struct.pack_into("<IHH", config, 0x100, 0x0D | 1 << 16, 0x1D, 0x1D)
    return bytes(config)


def section(runs: int) -> str:
    """The table with what it needs said, in Markdown."""
    columns = [_measured(size, runs) for size in SIZES]
    should = {"a file that is read and judged": "under 0.5 s, growth close to linear"}
    rows = [HEAD, ("---",) * len(HEAD)]
    rows += ((what, *(f"{of[what]:.2f} s" for of in columns), should.get(what, "")) for what in columns[0])
    lines = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    return f"""## Partition

All functions of a machine in {DOMAINS} domains, median of {runs}, observing not included.

{lines}"""


def _measured(size: int, runs: int) -> dict[str, float]:
    platform = machine(size)
    ends = [function.sbdf for function in platform.functions if function.buses is None]
    share = len(ends) // DOMAINS
    domains = [(f"d{n}", ends[n * share : (n + 1) * share]) for n in range(DOMAINS)]
    data = partition_text(Ground(platform), domains).encode()

    def judged() -> Verdict:
        verdict = check(Ground(platform), read(data))
        assert verdict.feasible
        return verdict

    return {
        "a file that is read and judged": _median(judged, runs),
        "of that, the file read": _median(lambda: read(data), runs),
        "what can be given away": _median(lambda: suggest(Ground(platform)), runs),
    }


def _median(work: Callable[[], object], runs: int) -> float:
    """As on the command line, where nothing is collected."""
    times = []
    for _ in range(runs):
        gc.collect()
        gc.disable()
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
        gc.enable()
    return statistics.median(times)


if __name__ == "__main__":
    print(section(5), end="")
