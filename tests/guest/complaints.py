# SPDX-License-Identifier: MIT
"""What a kernel, or Xen, says when something is wrong with it."""

from __future__ import annotations

import re

_SIGNS = re.compile(
    "|".join(
        (
            r"\bBUG:",
            r"\bBUG \S+ \(",  # SLUB's: BUG kmalloc-64 (Tainted: ...): Poison overwritten
            r"\bBUG at\b",
            r"\bOops\b",
            r": [0-9a-f]{4} \[#\d+\]",  # die()'s: general protection fault, ...: 0000 [#1] SMP
            r"\bWARNING:",
            r"\bKASAN:",
            r"\bUBSAN:",
            r"\bKernel panic\b",
            r"\bpossible circular locking\b",
            r"\bsuspected memory leaks\b",
            r"\bINFO: task\b",
            r"\bdetected (expedited )?stalls\b|\bself-detected stall\b",
            r"\(XEN\).*\b(Panic on CPU|Assertion .* failed|BUG\b|WARN\b)",
            r"\(XEN\).*\bHardware Dom0 (crashed|halted)",
            r"hv_core: PANIC\b",
        )
    )
)

HARMLESS = {
    r"\(XEN\) WARNING: PVH is an experimental mode": "what every PVH domain 0 of Xen 4.17 is told",
}
"""Lines that look like a complaint and are none: the reason, by a regular expression that such a line matches."""


def complaints(log: str, *, after: int = 40) -> str:
    """The lines of a kernel's log from its first complaint on, `after` of them, two from before it; else nothing."""
    lines = log.splitlines()
    for number, line in enumerate(lines):
        if _SIGNS.search(line) and not any(re.search(harmless, line) for harmless in HARMLESS):
            return "\n".join(lines[max(number - 2, 0) : number + after])
    return ""
