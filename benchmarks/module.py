# SPDX-License-Identifier: MIT
"""What a call by the kernel module costs in domain 0 of real Xen, beside the same hypercall by Xen's privcmd.

``python -m benchmarks.module`` prints the section that ``./dev bench`` keeps. The loops are C (``ioctl_cost.c``), in
one guest, the ways in turns; emulated, a nanosecond means nothing and a ratio something.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from tests.guest import Machine, missing_xen, module, run

SOURCE = Path(__file__).with_name("ioctl_cost.c")


def section() -> str:
    """The figures with what they need said, in Markdown; or what they need and is not here."""
    lacking = missing_xen() or module.missing()
    if lacking is not None:
        return f"## The kernel module under Xen\n\nNot measured: {lacking}.\n"
    with tempfile.TemporaryDirectory(prefix="dom0kit-bench-") as folder:
        program = Path(folder) / "ioctl_cost"
        include = module.ROOT / "hv_core" / "include"
        subprocess.run(["gcc", "-O2", "-static", f"-I{include}", "-o", str(program), str(SOURCE)], check=True)
        machine = Machine(xen="pv", memory=2048)
        result = run(machine, "./ioctl_cost", Path(folder), modules=[module.built()[0]], timeout=300)
    nothing, ours, theirs = map(int, result.check().stdout.split())
    return f"""## The kernel module under Xen

In one emulated PV domain 0 of Xen, medians of 31 rounds of 2,000 calls, the three in turns.

| call | relative to privcmd |
| --- | --- |
| `apic_read` by `/dev/dom0kit` | {ours / theirs:.2f} |
| `apic_read` by `/dev/xen/privcmd` | 1 |
| an ioctl of `/dev/dom0kit` that asks nobody | {nothing / theirs:.2f} |

The module reads the IOAPIC's version register before each access, for Xen panics beyond the last pin: two hypercalls
to privcmd's one.
"""


if __name__ == "__main__":
    print(section(), end="")
