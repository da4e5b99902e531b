# SPDX-License-Identifier: MIT
"""Many recorded machines: found in a folder, checked side by side, and the faults that they have in common.

The result does not depend on the number of workers: machines are checked apart, and told in the order of their names.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

from dom0kit.finding import Finding, Severity

MACHINES_A_WORKER: Final = 64
"""Workers are replaced after so many: what the interpreter keeps of freed memory does not add up."""


class Recorded(msgspec.Struct, frozen=True, order=True):
    """Where one machine of a corpus lies."""

    name: str
    path: str
    """What `dom0kit.source.recognise.open_source` takes."""
    pci: str | None = None
    """An lspci text of the same machine, where `path` is a folder of tables."""


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What was found of one machine."""

    name: str
    error: str | None = None
    """Why nothing could be read; one sentence."""
    tables: int = 0
    functions: int = 0
    findings: tuple[Finding, ...] = ()


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One rule over a corpus."""

    rule: str
    severity: Severity
    machines: tuple[str, ...]
    """Ascending."""
    findings: int
    shapes: tuple[tuple[str, tuple[str, ...]], ...]
    """Messages with numbers left out (``#``), and the machines that have each, the most frequent first."""


def recorded(folder: str) -> tuple[Recorded, ...]:
    """Every machine in a folder and those below, ascending by name; OSError where it cannot be read.

    A machine is a folder with tables (``*.dat``), with a sysfs tree (``sys``), or with a folder for each PCI function;
    and a file named like a recording or dump. A folder of tables and an lspci text of the same name are one machine.
    """
    folders: list[str] = []
    files: list[str] = []
    os.listdir(folder)  # what cannot be read is an error here, and silence in walk
    for place, below, names in os.walk(folder):
        below.sort()
        if place != folder and (
            any(name.endswith(".dat") for name in names) or "sys" in below or any(map(_FUNCTION.fullmatch, below))
        ):
            folders.append(place)
            below.clear()
            continue
        files += (os.path.join(place, name) for name in sorted(names) if name.endswith(_ENDINGS))
    texts = {_stem(path): path for path in files if path.endswith(".lspci")}
    found = []
    for path in folders:
        tables = any(name.endswith(".dat") for name in os.listdir(path))
        text = texts.pop(os.path.basename(path), None) if tables else None
        if text is not None:
            files.remove(text)
        found.append((path, text))
    found += ((path, None) for path in files)
    stems = Counter(_stem(path) for path, _ in found)
    return tuple(
        sorted(
            Recorded(_stem(path) if stems[_stem(path)] == 1 else os.path.relpath(path, folder), path, text)
            for path, text in found
        )
    )


_FUNCTION: Final = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_ENDINGS: Final = (".d0k", ".lspci", ".acpidump", ".txt")


def _stem(path: str) -> str:
    name = os.path.basename(path)
    return name.removesuffix(next((of for of in _ENDINGS if name.endswith(of)), ""))


def check_one(machine: Recorded, *, aml: bool = True) -> Checked:
    """All rules over one machine. Never raises for what the machine is like."""
    from dom0kit.check.rules import findings
    from dom0kit.observation import observe
    from dom0kit.source.errors import UnreadableSource
    from dom0kit.source.recognise import combine, open_source

    try:
        source = open_source(machine.path) if machine.pci is None else combine(acpi=machine.path, pci=machine.pci)
    except UnreadableSource as error:
        return Checked(name=machine.name, error=str(error))
    platform = observe(source, aml=aml)
    told = findings(platform)
    tables, functions = len(platform.tables), len(platform.functions)
    return Checked(name=machine.name, tables=tables, functions=functions, findings=told)


def check_all(machines: Sequence[Recorded], *, workers: int = 1, aml: bool = True) -> Iterator[Checked]:
    """Each machine's result, in the order given, by as many processes."""
    if workers <= 1 or len(machines) < 2:
        yield from (check_one(machine, aml=aml) for machine in machines)
        return
    from concurrent.futures import ProcessPoolExecutor
    from functools import partial
    from multiprocessing import get_context

    # New processes, not copies: this one may have threads, and runs without collecting garbage.
    context = get_context("spawn")
    batch = workers * MACHINES_A_WORKER
    for first in range(0, len(machines), batch):
        some = machines[first : first + batch]
        with ProcessPoolExecutor(min(workers, len(some)), mp_context=context) as pool:
            yield from pool.map(partial(check_one, aml=aml), some)


def faults(checked: Iterable[Checked]) -> tuple[Fault, ...]:
    """What machines have in common: the most severe first, then what most of them have."""
    machines: dict[tuple[str, Severity], Counter[str]] = defaultdict(Counter)
    shapes: dict[tuple[str, Severity], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for each in checked:
        for finding in each.findings:
            key = (finding.rule, finding.severity)
            machines[key][each.name] += 1
            shapes[key][shape(finding.message)].add(each.name)
    order = list(Severity)
    found = [
        Fault(
            rule=rule,
            severity=severity,
            machines=tuple(sorted(counts)),
            findings=counts.total(),
            shapes=tuple(
                (text, tuple(sorted(names)))
                for text, names in sorted(shapes[rule, severity].items(), key=lambda of: (-len(of[1]), of[0]))
            ),
        )
        for (rule, severity), counts in machines.items()
    ]
    return tuple(sorted(found, key=lambda of: (-order.index(of.severity), -len(of.machines), of.rule)))


_ADDRESS: Final = re.compile(r"\b[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]\b|\b0x[0-9a-fA-F]+|\b\d+\b")


def shape(message: str) -> str:
    """A message with addresses and numbers left out: equal for the same fault at another place."""
    return re.sub(r"#(?:[ ,]+#)+", "#…", _ADDRESS.sub("#", message))
