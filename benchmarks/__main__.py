# SPDX-License-Identifier: MIT
"""The benchmarks: ``./dev bench [--runs N]`` measures, prints a table, and keeps it in ``benchmarks/RESULTS.md``.

Each row of the first table is a pair of commands run in turns (`measure.paired`); the figure is the ratio of their
median wall times. There is no timed test: what a row should be stands beside what it is, for people to judge.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

from benchmarks import boot, hotplug, hv_core, module, partition, planning
from benchmarks.measure import Command, Cost, paired
from benchmarks.synthetic import write_lspci_text
from dom0kit.acpi import aml_launch
from dom0kit.acpi.aml_session import Session
from dom0kit.observation import observe
from dom0kit.source.interface import RawTable
from dom0kit.source.recognise import combine
from tests.corpus import CORPUS, combined

RESULTS = Path(__file__).with_name("RESULTS.md")
PYTHON = sys.executable
DOM0KIT = str(Path(sys.executable).with_name("dom0kit"))


class Row(NamedTuple):
    """One line of the table."""

    what: str
    ours: Cost
    beside: str
    theirs: Cost
    target: str

    def cells(self) -> tuple[str, ...]:
        ratio = self.ours.wall / self.theirs.wall
        return (
            self.what,
            f"{self.ours.wall:.3f} s",
            f"{self.ours.peak >> 20} MB",
            self.beside,
            f"{self.theirs.wall:.3f} s",
            f"{ratio:.2f}",
            self.target,
        )


HEAD = ("what", "dom0kit", "peak", "beside", "its wall", "ratio", "target")


def start_up(runs: int) -> Iterator[Row]:
    ours, theirs = paired(Command([DOM0KIT, "--version"]), Command([PYTHON, "-c", "pass"]), runs)
    yield Row("`dom0kit --version`", ours, "`python3 -c pass`", theirs, "ratio at most 3")


def without_aml(folder: Path, runs: int) -> Iterator[Row]:
    hundred = folder / "hundred.lspci"
    write_lspci_text(hundred, 100)
    ours = [DOM0KIT, "enumerate", "--no-aml", "--from", str(hundred)]
    yield Row(
        "100 functions, no tables",
        *_beside(ours, "`lspci -F -vvv`", ["lspci", "-F", str(hundred), "-vvv"], runs),
        "at most 0.15 s",
    )
    check, ours = ([DOM0KIT, verb, "--no-aml", "--from", str(hundred)] for verb in ("check", "enumerate"))
    yield Row("`check` of the same", *_beside(check, "`enumerate`", ours, runs), "at most 0.1 s more")
    for machine in _machines()[:1]:
        tables = str(CORPUS / "acpi" / machine)
        ours = [DOM0KIT, "enumerate", "--no-aml", "--acpi", tables, "--pci", str(hundred)]
        iasl = ["iasl", "-p", str(folder / "decoded"), "-d", *map(str, sorted(Path(tables).glob("*.dat")))]
        yield Row(
            f"100 functions, the {len(list(Path(tables).glob('*.dat')))} tables of {machine}",
            *_beside(ours, "`iasl -d` of the tables", iasl, runs),
            "at most 0.15 s",
        )
    large = folder / "large.lspci"
    write_lspci_text(large, 4096, segments=4)
    ours = [DOM0KIT, "enumerate", "--no-aml", "--from", str(large)]
    yield Row(
        "4,096 functions on 4 segments, 4,096 bytes each",
        *_beside(ours, "`lspci -F -vvv`", ["lspci", "-F", str(large), "-vvv"], max(3, runs // 3)),
        "ratio at most 4, under 300 MB",
    )


def with_aml(folder: Path, runs: int) -> Iterator[Row]:
    """Of each machine with tables and config space: everything, beside acpiexec with the same script and tables."""
    pairs = []
    for machine in _machines():
        ours = Command(
            [
                DOM0KIT,
                "enumerate",
                "--acpi",
                str(CORPUS / "acpi" / machine),
                "--pci",
                str(CORPUS / "pci" / f"{machine}.lspci"),
            ]
        )
        sessions = _captured(machine, folder / machine)
        pairs.append((machine, *paired(ours, Command(["sh", str(sessions)]), max(3, runs // 3))))
    if pairs:
        mine = Cost(statistics.median(each[1].wall for each in pairs), max(each[1].peak for each in pairs))
        bare = Cost(statistics.median(each[2].wall for each in pairs), max(each[2].peak for each in pairs))
        most = f"at most 1.3 x + 0.15 s = {1.3 * bare.wall + 0.15:.3f} s"
        yield Row(f"{len(pairs)} recorded machines with AML, median", mine, "`acpiexec`, same script", bare, most)
        machine, mine, bare = max(pairs, key=lambda each: each[1].wall - 1.3 * each[2].wall)
        yield Row(f"the worst of them, {machine}", mine, "the same", bare, "")


def _beside(ours: list[str], beside: str, theirs: list[str], runs: int) -> tuple[Cost, str, Cost]:
    mine, other = paired(Command(ours), Command(theirs), runs)
    return mine, beside, other


def _machines() -> list[str]:
    """The recorded machines with both halves; without them the rows that need them are left out."""
    return combined()


def _captured(machine: str, folder: Path) -> Path:
    """A shell script that repeats every acpiexec session of this machine: same tables, options and input."""
    folder.mkdir()
    lines: list[str] = []

    class Recorded(Session):
        """A session that keeps what it is told."""

        def __init__(
            self, program: str, tables: Sequence[RawTable], deadline: float, *, initialise: bool = True
        ) -> None:
            self._input_file = folder / f"input{len(lines)}"
            names = []
            for number, table in enumerate(tables):
                name = folder / f"table{len(lines)}-{number}.aml"
                name.write_bytes(table.data)
                names.append(str(name))
            options = ["-dt", "-to", "1", *([] if initialise else ["-l"])]
            lines.append(f"{shlex.join([program, *options, *names])} <{self._input_file} >/dev/null 2>&1\n")
            super().__init__(program, tables, deadline, initialise=initialise)

        def _exchange(self, commands: Sequence[str]) -> bytes:
            with self._input_file.open("a") as file:
                file.writelines(f"{command}\n" for command in (*commands, "help"))
            return super()._exchange(commands)

    with patch.object(aml_launch, "Session", Recorded):
        observe(combine(acpi=CORPUS / "acpi" / machine, pci=CORPUS / "pci" / f"{machine}.lspci"))
    if not lines:
        raise RuntimeError(f"enumerating {machine} started no acpiexec")
    script = folder / "sessions.sh"
    script.write_text("".join(lines))
    return script


def _table(rows: list[Row]) -> str:
    lines = [HEAD, ("---",) * len(HEAD), *(row.cells() for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=9, help="pairs a row (the long ones: a third); default 9")
    runs = parser.parse_args().runs
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # users have compiled modules, so the benchmark has
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        rows = []
        for benchmark in (start_up(runs), without_aml(folder, runs), with_aml(folder, runs)):
            for row in benchmark:
                print("  ".join(row.cells()), flush=True)
                rows.append(row)
    core, plans, under_xen = hv_core.section(runs), planning.section(max(3, runs // 3)), module.section()
    comes_and_goes, given_away = hotplug.section(), partition.section(max(3, runs // 3))
    booting = boot.section()
    print(core, plans, given_away, comes_and_goes, under_xen, booting, sep="\n")
    lspci = subprocess.run(["lspci", "--version"], capture_output=True, text=True, check=False).stdout.strip()
    RESULTS.write_text(
        f"""# Benchmarks

`./dev bench`: each row is a pair of commands run in turns, {runs} pairs (a third of that for the long rows) after one
of each that does not count; wall times are medians, process start included, output thrown away. Peak is the largest
resident set of the process or a child. Python {platform.python_version()}, {lspci}, {os.cpu_count()} CPUs.
{"" if _machines() else "The corpus of recorded machines was absent: rows that need it are missing."}
{_table(rows)}
{core}
{plans}
{given_away}
{comes_and_goes}
{under_xen}
{booting}"""
    )


if __name__ == "__main__":
    main()
