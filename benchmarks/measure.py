# SPDX-License-Identifier: MIT
"""Paired measurements: both sides of a comparison run in turns, so what else the machine does falls on both."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Command(NamedTuple):
    """A child process: what it runs and what it reads."""

    arguments: Sequence[str]
    stdin: Path | None = None


class Cost(NamedTuple):
    """What one run took."""

    wall: float
    """Seconds."""
    peak: int
    """Peak resident memory in bytes, of the process and the children it waited for; never less than the 30 MB or so of
    the process that measures, which Linux passes on."""


def run(command: Command) -> Cost:
    """One run, its output thrown away; CalledProcessError where it ends with more than findings (status 1)."""
    with open(command.stdin or os.devnull, "rb") as stdin:
        began = time.perf_counter()
        child = subprocess.Popen(command.arguments, stdin=stdin, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - began
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode not in (0, 1):
        raise subprocess.CalledProcessError(child.returncode, command.arguments)
    return Cost(wall, usage.ru_maxrss * 1024)


def paired(ours: Command, theirs: Command, runs: int) -> tuple[Cost, Cost]:
    """Medians of `runs` runs of each, in turns, after one of each that does not count."""
    run(ours)
    run(theirs)
    pairs = [(run(ours), run(theirs)) for _ in range(runs)]
    mine, other = zip(*pairs, strict=True)
    return median(mine), median(other)


def median(costs: Sequence[Cost]) -> Cost:
    """Median of wall time, and the highest peak."""
    return Cost(statistics.median(cost.wall for cost in costs), max(cost.peak for cost in costs))
