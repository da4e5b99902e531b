# SPDX-License-Identifier: MIT
"""What hv_core costs a dom0: time to user space beside bare Linux and Xen, exits, sizes.

``python -m benchmarks.boot`` prints the section that ``./dev bench`` keeps. Everything is emulated: seconds compare
with each other, cycles with nothing.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from tests.boot import probe
from tests.guest import Machine, boot, missing_hv, missing_xen, module
from tests.guest.images import ROOT, hv_core

ROUNDS = 3
MACHINES = {
    "bare Linux": Machine(memory=2048),
    "hv_core": Machine(memory=2048, hv="pvh"),
    "hv_core, bzImage": Machine(memory=2048, hv="bzimage"),
    "Xen 4.17, PV": Machine(memory=2048, xen="pv"),
}


def section() -> str:
    """The figures with what they need said, in Markdown; or what they need and is not here."""
    lacking = missing_hv() or missing_xen() or module.missing()
    if lacking is not None:
        return f"## Booting dom0\n\nNot measured: {lacking}.\n"
    took: dict[str, list[float]] = {name: [] for name in MACHINES}
    for _ in range(ROUNDS):
        for name, machine in MACHINES.items():
            with tempfile.TemporaryDirectory(prefix="dom0kit-bench-") as folder:
                start = time.monotonic()
                with boot(machine, Path(folder)):
                    took[name].append(time.monotonic() - start)
    rows = "".join(f"| {name} | {statistics.median(times):.1f} s |\n" for name, times in took.items())
    exits, (called, trapped) = _inside()
    kinds = ", ".join(f"{count:,} {name}" for name, count in exits.items() if count)
    return f"""## Booting dom0

One emulated q35 with one processor, 2 GiB, Debian's kernel unpacked unless said: from the start of QEMU to the mounted
root, medians of {ROUNDS}, in turns.

| | to user space |
| --- | --- |
{rows}
Exits until then: {kinds}.
A read of an IOAPIC's register takes {called:,} TSC cycles by hypercall and {trapped:,} by its two trapped accesses.
{_sizes()}
"""


def _inside() -> tuple[dict[str, int], tuple[int, int]]:
    """Exits to user space by kind; cycles of a hypercall, and of a trapped read."""
    with tempfile.TemporaryDirectory(prefix="dom0kit-bench-") as folder:
        out = Path(folder)
        with boot(MACHINES["hv_core"], out, files=[probe.built()]) as dom0:
            dom0.run(f"cd {ROOT} && .venv/bin/python -m tests.boot.dom0 exits cost").check()
        seen = json.loads((out / "seen").read_text())
    return seen["exits"], tuple(seen["cost"])


def _sizes() -> str:
    image = hv_core().with_suffix(".elf64")
    code, data, zero = map(int, subprocess.check_output(["size", str(image)], text=True).splitlines()[1].split()[:3])
    lines = {
        name: sum(len(path.read_text().splitlines()) for path in sorted((ROOT / "hv_core" / folder).glob(pattern)))
        for name, folder, pattern in (("C", "x86", "*.[ch]"), ("assembly", "x86", "*.S"), ("core", "core", "*.[ch]"))
    }
    return (
        f"The image has {(code + data) >> 10:,} KiB of code and constants and takes {(code + data + zero) >> 20} MiB "
        f"of memory; its own source is {lines['C']:,} lines of C and {lines['assembly']:,} of assembly, beside the\n"
        f"{lines['core']:,} that it shares with the library and the module."
    )


if __name__ == "__main__":
    print(section(), end="")
