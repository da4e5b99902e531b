# SPDX-License-Identifier: MIT
"""Line and branch coverage of the core by its tests: ``coverage.py [--missing] [PYTEST ARGS]``.

The library, once with its own and once with the tests' small limits, is compiled with gcov's counters below
build/coverage; the tests run with it; what both have counted is put together. A branch counts as covered when it was
taken once. Exit status 0: at least 95 % of the branches of the core, 1: less, or a test failed.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "build" / "coverage"
TESTS = ["tests/hv_core", "tests/hypercall"]
NOT_IN_THE_LIBRARY = ["proofs", "fuzz", "static", "sanitized"]
DEMANDED = 95.0
PARTS = ("hv_core/core/", "hv_core/include/")

Lines = dict[tuple[str, int], tuple[int, list[int]]]
"""By file and line: how often it ran, and how often each of its branches was taken."""


def build(name: str, limits: dict[str, int]) -> Path:
    """The library with counters, that are at nothing."""
    shutil.rmtree(WORK / name, ignore_errors=True)
    command = [sys.executable, str(ROOT / "hv_core" / "host" / "build.py"), "--output", str(WORK / name)]
    command += ["--flag=--coverage", "--flag=-O0", *(f"--define={limit}={value}" for limit, value in limits.items())]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    (library,) = (WORK / name).glob("*.so")
    return library


def counted(name: str) -> Lines:
    """What gcov says of a library."""
    lines: Lines = {}
    counters = sorted((WORK / name / "objects").glob("*.gcda"))
    command = ["gcov", "--branch-probabilities", "--json-format", "--stdout", *map(str, counters)]
    said = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    for report in map(json.loads, said.splitlines()):
        for file in report["files"]:
            path = os.path.relpath(ROOT / file["file"], ROOT)
            if not path.startswith(PARTS):
                continue
            one: Lines = collections.defaultdict(lambda: (0, []))
            for line in file["lines"]:  # a line that is in several functions comes several times
                count, branches = one[path, line["line_number"]]
                one[path, line["line_number"]] = (
                    count + line["count"],
                    branches + [branch["count"] for branch in line["branches"]],
                )
            lines = together(lines, one)
    return lines


def together(one: Lines, other: Lines) -> Lines:
    """The sum. Where a limit has made a condition a constant, the longer list of branches is the line's."""
    total = dict(one)
    for where, (count, branches) in other.items():
        known, taken = total.get(where, (0, []))
        longer, shorter = sorted((taken, branches), key=len, reverse=True)
        if len(longer) == len(shorter):
            longer = [a + b for a, b in zip(longer, shorter, strict=True)]
        total[where] = (known + count, longer)
    return total


def table(lines: Lines) -> tuple[str, float]:
    """Per file, as text, and the covered part of all branches in %."""
    files = sorted({file for file, _ in lines})
    rows = [("file", "lines", "", "branches", "")]
    sums = [0, 0, 0, 0]
    for file in [*files, ""]:
        if file:
            own = [value for (name, _), value in lines.items() if name == file]
            taken = [count for _, branches in own for count in branches]
            numbers = [sum(1 for count, _ in own if count), len(own), sum(1 for count in taken if count), len(taken)]
            sums = [a + b for a, b in zip(sums, numbers, strict=True)]
        else:
            numbers = sums
        percent = [f"{100 * got / all_:.1f} %" if all_ else "" for got, all_ in (numbers[:2], numbers[2:])]
        rows.append((file or "all", f"{numbers[0]}/{numbers[1]}", percent[0], f"{numbers[2]}/{numbers[3]}", percent[1]))
    text = "\n".join(f"{a:<40} {b:>10} {c:>8} {d:>12} {e:>8}" for a, b, c, d, e in rows)
    return text, 100 * sums[2] / max(sums[3], 1)


def missing(lines: Lines) -> str:
    """Lines that did not run, and those with branches never taken, with their text."""
    found = []
    for (file, number), (count, branches) in sorted(lines.items()):
        if count and all(branches):
            continue
        text = (ROOT / file).read_text().splitlines()[number - 1].strip()
        what = "never ran" if not count else f"{branches.count(0)} of {len(branches)} branches not taken"
        found.append(f"{file}:{number}: {what}: {text}")
    return "\n".join(found)


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev coverage", description="coverage of hv_core/core by its tests")
    parser.add_argument("--missing", action="store_true", help="show each line and branch that no test reaches")
    options, rest = parser.parse_known_args()
    sys.path.insert(0, str(ROOT))
    from tests.hv_core.machines import LIMITS

    environment = {
        **os.environ,
        "DOM0KIT_CORE_LIBRARY": str(build("full", {})),
        "DOM0KIT_SMALL_CORE_LIBRARY": str(build("small", LIMITS)),
    }
    command = [sys.executable, "-m", "pytest", "-q", *(rest or TESTS), "-k", f"not ({' or '.join(NOT_IN_THE_LIBRARY)})"]
    failed = subprocess.run(command, cwd=ROOT, env=environment).returncode
    lines = together(counted("full"), counted("small"))
    text, percent = table(lines)
    if options.missing:
        print(missing(lines))
    print(text)
    if percent < DEMANDED:
        print(f"coverage: {percent:.1f} % of the branches; {DEMANDED} % are demanded", file=sys.stderr)
    return 1 if failed or percent < DEMANDED else 0


if __name__ == "__main__":
    sys.exit(main())
