# SPDX-License-Identifier: MIT
"""AML, interpreted by a limited ``acpiexec`` child process (ACPICA; ACPI 6.5, chapter 20).

    namespace = interpret(source.tables(), {function.sbdf: function.config for function in source.functions()})
    result = evaluate(source.tables(), config, "\\_SB.PCI0._OSC", ["(5B 4D …)", "0x1", "0x3", "(00 …)"])

Hardware is simulated: an operation region reads 0, or what AML wrote. Every read is traced, so each evaluation carries
what it read that nobody recorded. PCI config space is an exception: where it is recorded, the bytes of the function
that AML reads are put into the interpreter first (see `recorded_config`).
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from dom0kit.acpi import aml_output
from dom0kit.acpi.aml_answers import AT_ONCE, Answers, references
from dom0kit.acpi.aml_findings import CUT_OFF, INITIALISATION, MIXED, NAMES, TABLE_REJECTED
from dom0kit.acpi.aml_launch import SECONDS, Launch
from dom0kit.acpi.aml_output import DATA_TABLE, PCI_CONFIG, RawEvaluation, Read
from dom0kit.acpi.aml_values import Buffer, Evaluate, Integer, Opaque, Package, Reference, Result, String, Value
from dom0kit.acpi.namespace import AmlDevice, Evaluation, Namespace, RegionAccess, parent, pci_addresses, root_bus
from dom0kit.acpi.recorded_config import BYTES, OVERLAYS
from dom0kit.acpi.tables.common import SPACES
from dom0kit.address import Sbdf
from dom0kit.source.interface import RawTable

if TYPE_CHECKING:
    from dom0kit.acpi.aml_session import Session

__all__ = [
    "Buffer",
    "Integer",
    "Opaque",
    "Package",
    "Reference",
    "Result",
    "String",
    "Value",
    "evaluate",
    "interpret",
    "interpret_launched",
]

_MESSAGES: Final = 0x2
_BUFFER_BYTES: Final = 0x2000
_FIELD_ACCESS: Final = 0x1000
_REGION_ACCESS: Final = 0x800
_SERIAL_REGION: Final = re.compile(
    rb"\x5b\x80[\\^]*(?:\x2e[A-Z0-9_]{8}|\x2f[\x00-\x0f](?:[A-Z0-9_]{4})+|[A-Z0-9_]{4})[\x04\x07-\x0b]"
)
"""OperationRegion on a bus whose accesses only the other trace level shows."""
_MAX_FIELDS: Final = 500
_MAX_ROUNDS: Final = 3
_PRINTED_PER_EXECUTION: Final = 200_000
"""Bytes that take as long to print and read as one ``execute``, which sleeps 10 ms."""
_SLOW: Final = 2.0
"""A batch that took so many seconds is not repeated for its names as a whole."""


def interpret(
    tables: Sequence[RawTable],
    config: Mapping[Sbdf, bytes],
    *,
    seconds: float = SECONDS,
    kernel: Evaluate | None = None,
) -> Namespace:
    """The namespace of these tables, AML's PCI_Config fields reading `config`.

    `config` has every function of the machine, with no bytes where it was not read; it is empty where PCI is unknown.
    Tables are loaded in the order given, DSDT first; dynamic ones are left out. Whatever AML does, this returns
    within `seconds` and a little, and raises nothing. `kernel` is the interpreter of the kernel on this very machine:
    its values take the place of those found here.
    """
    return interpret_launched(Launch(tables, config, seconds), kernel)


def interpret_launched(launch: Launch, kernel: Evaluate | None = None) -> Namespace:
    """As `interpret`, of what was launched before this module was imported."""
    with launch:
        interpretation = _Interpretation(launch)
        interpretation.run()
    if kernel is not None:
        from dom0kit.acpi.aml_kernel import ask_kernel

        interpretation.findings += ask_kernel(interpretation.answers, kernel)
    return interpretation.answers.namespace(interpretation.version, interpretation.findings)


def evaluate(
    tables: Sequence[RawTable], config: Mapping[Sbdf, bytes], path: str, arguments: Sequence[str] = ()
) -> Result:
    """One object, with arguments as acpiexec writes them: ``0x1``, ``"text"``, ``(00 FF)``, ``[0x1 "a"]``.

    ValueError where path or arguments cannot be said to acpiexec in one line of 500 characters.
    """
    command = " ".join(("execute", path, *arguments))
    if not command.isascii() or not command.isprintable() or len(command) > 500 or " " in path or not path:
        raise ValueError(f"{path!r} with these arguments is no command of at most 500 printable characters")
    with Launch(tables, config) as launch:
        return _Interpretation(launch).evaluate(path, command)


class _Interpretation:
    """One run over a machine's tables: what was asked, what came back."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self._config = launch.config
        self._functions = launch.functions
        self._tables = launch.tables
        self.findings = launch.findings
        level = _BUFFER_BYTES | _FIELD_ACCESS
        if any(_SERIAL_REGION.search(table.data) for table in self._tables):
            level |= _REGION_ACCESS
        self._level = level
        self.version: str | None = None
        self.answers = Answers()
        self._done: set[str] = set()
        self._printed: dict[str, int] = {}
        """Bytes that ``all NAME`` printed: a measure of what it costs."""
        self._regions_of_fields: dict[str, str] = {}
        self._addresses: dict[str, Sbdf] = {}
        self._slow = False
        self._unsettled: set[str] = set()
        """Evaluations that still read another function's bytes after all rounds."""

    def run(self) -> None:
        """Everything `namespace` needs."""
        if not self._launch.possible:
            return
        try:
            with contextlib.ExitStack() as stack:
                self._launch.start()
                session = stack.enter_context(self._launch.first())
                spare = stack.enter_context(self._launch.spare()) if self._config else None
                begun = time.monotonic()
                self._read(session.run([*self._start(), "find ????", *_all(AT_ONCE)]))
                self._read(session.run(_all(self.answers.wanted)))
                for name in self._missing():  # an AML BreakPoint took the command
                    self._read(session.run(_all((name,))))
                self._slow = time.monotonic() - begun > _SLOW
                stopped = session.stopped
                if spare is not None and stopped is None:
                    self._refine(session, spare)
            if stopped is not None:
                self.findings.append(CUT_OFF.at("aml", f"the first session: {_STOPPED[stopped]}"))
                self._again()
        except OSError as error:
            self.findings.append(CUT_OFF.at("aml", f"acpiexec cannot be run: {error.strerror}"))
        self._conclude()

    def _start(self) -> list[str]:
        # Again after _INI, which may have written over the host bridge's bytes.
        fill = self._config.fill(self._config.host_bridge) if self._config else ()
        return [*fill, f"level {self._level:#x} console", "execute \\_PIC 0x1", "go"]

    def _missing(self) -> list[str]:
        return [name for name in (*AT_ONCE, *self.answers.wanted) if name not in self._done]

    def _again(self) -> None:
        """What the first session did not get to, name by name, without initialisation."""
        for _ in range(4):
            missing = self._missing()
            if (self.answers.objects and not missing) or self._launch.remaining < 1:
                break
            with self._launch.session(self._launch.remaining, initialise=False) as session:
                self._read(session.run([*self._start(), "find ????"]))
                if not self.answers.objects:
                    continue
                for name in missing:
                    self._read(session.run(_all((name,))))
                    if session.stopped is not None:
                        self._done.add(name)  # it stopped this one: the next session begins behind it
                        self.findings.append(CUT_OFF.at(f"aml:{name}", _STOPPED[session.stopped]))
                        break

    def _read(self, text: bytes) -> None:
        """Take in what a batch printed."""
        for command, section in aml_output.sections(text):
            verb, _, what = command.partition(" ")
            if verb == "" and self.version is None:
                self._read_start(section.decode("ascii", "replace"))
            elif verb == "find":
                self.answers.read_objects(section)
            elif verb == "all":
                self.answers.raw.update((found.path, found) for found in aml_output.evaluations(section))
                self._printed[what] = len(section)
                if _EVALUATED.search(section) is not None:
                    self._done.add(what)
            elif command == "execute \\_PIC 0x1":
                self.answers.raw.update((found.path, found) for found in aml_output.evaluations(section))

    def _read_start(self, text: str) -> None:
        match = _VERSION.search(text)
        self.version = match.group(1) if match else "unknown"
        failed: dict[str, str] = {}
        for status, path in _INIT_FAILED.findall(text):
            failed.setdefault(aml_output.trimmed(path), status)
        if failed:
            first, status = next(iter(failed.items()))
            self.findings.append(INITIALISATION.at("aml", f"{len(failed)} methods, the first {first} with {status}"))
        names = _UNRESOLVED.findall(text)
        if names:
            what, name, status = names[0]
            message = f"{len(set(names))} names, the first: {what.lower()} {name}, {status}"
            self.findings.append(NAMES.at("aml", message))
        for line in _REJECTED.findall(text):
            self.findings.append(TABLE_REJECTED.at("aml", line.strip()))

    # --- PCI config space ---------------------------------------------------------------------------------------

    def _refine(self, first: Session, spare: Session) -> None:
        """Evaluate again, with the right function's bytes, what read another function's.

        In a fresh session each time: a method that patches a named buffer by what it read leaves it patched.
        """
        if not any(_reads_config(found) for found in self.answers.raw.values()):
            return
        self._attribute(first, self.answers.raw.values())
        self._place()
        state: list[int | None] = list(self._config.padded(self._config.host_bridge))
        wrong = [found for found in self.answers.raw.values() if not self._replay(found, state)]
        for number in range(_MAX_ROUNDS):
            remaining = self._launch.remaining
            if not wrong or remaining < 1:
                break
            with spare if number == 0 else self._launch.session(remaining) as session:
                session.run(self._start())
                conflicting = [found for found in wrong if self._conflicts(found)]
                for found in conflicting:
                    self._each_function(session, found)
                again: list[RawEvaluation] = []
                pending = {found.path for found in wrong if found not in conflicting}
                groups = self._groups([found for found in wrong if found not in conflicting])
                for needs, members in sorted(groups, key=lambda group: len(group[1])):
                    pending -= {found.path for found in members}
                    again += self._evaluate_group(session, needs, members, pending)
            wrong = again
        self._unsettled = {found.path for found in wrong}

    def _attribute(self, session: Session, evaluations: Iterable[RawEvaluation]) -> None:
        """Find the region behind every field of config space that was read or written: `_regions_of_fields`."""
        fields = {
            access.field
            for found in evaluations
            for access in found.accesses
            if access.space == PCI_CONFIG and access.field and access.field not in self._regions_of_fields
        }
        known: dict[str, aml_output.DumpedField] = {}
        asked = sorted(fields)[:_MAX_FIELDS]
        for _ in range(4):  # a field or index field, its data field, that one's region
            ask = [address for address in asked if address not in known]
            if not ask:
                break
            for command, section in aml_output.sections(session.run([f"dump {address}" for address in ask])):
                verb, _, address = command.partition(" ")
                if verb == "dump":
                    known[address] = aml_output.dumped(address, section)
            asked = [target for address in ask if address in known for target in known[address].targets]
        regions = [found for found in known.values() if found.space == PCI_CONFIG]
        self._learn(session, (found.name for found in regions if found.node not in self.answers.pointers))
        for field in fields:
            pending, seen = [field], set[str]()
            while pending:
                address = pending.pop()
                target = known.get(address)
                if target is None or address in seen:
                    continue
                seen.add(address)
                pending += target.targets
                if target.space == PCI_CONFIG and target.node in self.answers.pointers:
                    self._regions_of_fields[field] = self.answers.pointers[target.node]

    def _learn(self, session: Session, names: Iterable[str]) -> None:
        """Take in where this session has the objects of these last segments."""
        commands = [f"find {name:_<4}" for name in sorted(set(names))[:_MAX_FIELDS]]
        for command, section in aml_output.sections(session.run(commands)) if commands else ():
            if command.startswith("find "):
                self.answers.pointers.update((found.pointer, found.path) for found in aml_output.objects(section))

    def _place(self) -> None:
        """PCI addresses of the devices: `_addresses`."""
        if self._addresses:
            return
        devices = [
            AmlDevice(
                path=path,
                hid=self.answers.hid(path),
                cids=self.answers.cids(path),
                adr=self.answers.number(path, "_ADR"),
                bbn=self.answers.number(path, "_BBN"),
                seg=self.answers.number(path, "_SEG"),
                crs=self.answers.resources(path, "_CRS", []) if self.answers.has(path, "_CRS") else None,
            )
            for path in self.answers.device_paths()
            if self.answers.has(path, "_ADR") or self.answers.has(path, "_HID")
        ]
        self._addresses = pci_addresses(devices, self._functions)
        for device in devices:
            if device.is_root_bridge:
                number, function = divmod(device.adr or 0, 1 << 16)
                if number <= 31 and function <= 7:
                    self._addresses[device.path] = Sbdf(*root_bus(device), number, function)

    def _function(self, read: Read) -> Sbdf | None:
        """The function whose config space was read."""
        region = self._regions_of_fields.get(read.field)
        return None if region is None else self._addresses.get(parent(region))

    def _needs(self, found: RawEvaluation) -> dict[int, Sbdf]:
        """Offsets of recorded config space that it read, each with the function it was of (the last, of several)."""
        return {
            offset: function
            for read in found.accesses
            if read.space == PCI_CONFIG and not read.write and (function := self._function(read)) is not None
            for offset in range(read.address, min(read.address + read.width, len(self._config.recorded(function))))
        }

    def _conflicts(self, found: RawEvaluation) -> list[Sbdf]:
        """Functions of which it reads a common offset, where they differ."""
        seen: dict[int, Sbdf] = {}
        conflicting: dict[Sbdf, None] = {}
        for read in found.accesses:
            function = self._function(read) if read.space == PCI_CONFIG and not read.write else None
            if function is None:
                continue
            data = self._config.recorded(function)
            for offset in range(read.address, min(read.address + read.width, len(data))):
                other = seen.setdefault(offset, function)
                if other != function and self._config.padded(other)[offset] != data[offset]:
                    conflicting[other] = conflicting[function] = None
        return list(conflicting)

    def _replay(self, found: RawEvaluation, state: list[int | None]) -> bool:
        """Whether all it read of recorded config space was right, given what the array held; writes change that."""
        right = not self._conflicts(found)
        for read in found.accesses:
            if read.space != PCI_CONFIG:
                continue
            data = b"" if read.write else self._config.recorded(self._function(read))
            for offset in range(read.address, min(read.address + read.width, BYTES)):
                if read.write:
                    state[offset] = None
                elif offset < len(data) and state[offset] != data[offset]:
                    right = False
        return right

    def _groups(self, wrong: Sequence[RawEvaluation]) -> list[tuple[dict[int, Sbdf], list[RawEvaluation]]]:
        """Evaluations that can share one content of the array."""
        groups: list[tuple[dict[int, Sbdf], list[RawEvaluation]]] = []
        for found in wrong:
            needs = self._needs(found)
            for shared, members in groups:
                if all(
                    offset not in shared
                    or self._config.padded(shared[offset])[offset] == self._config.padded(function)[offset]
                    for offset, function in needs.items()
                ):
                    shared.update(needs)
                    members.append(found)
                    break
            else:
                groups.append((dict(needs), [found]))
        return groups

    def _evaluate_group(
        self, session: Session, needs: dict[int, Sbdf], members: Sequence[RawEvaluation], pending: set[str]
    ) -> list[RawEvaluation]:
        """Evaluate again with the array filled for them; those that still read something wrong.

        `pending` are paths that this session must not evaluate yet, because the array is not theirs.
        """
        base, overlays = _composition(needs)
        fill = self._config.fill(base, overlays[:OVERLAYS])
        quiet, loud = f"level {_BUFFER_BYTES:#x} console", f"level {self._level:#x} console"
        by_name: dict[str, list[str]] = {}
        for found in members:
            by_name.setdefault(found.path[-4:], []).append(found.path)
        still_pending = {path[-4:] for path in pending}
        commands = [quiet, *fill, loud]
        for name, paths in by_name.items():
            few = len(paths) <= 1 + self._printed.get(name, 0) // _PRINTED_PER_EXECUTION
            if few or self._slow or name in still_pending:
                commands += [line for path in paths for line in (f"execute {path}", "go")]
            else:
                commands += _all((name,))
        wanted = {found.path for found in members}
        fresh: dict[str, RawEvaluation] = {}
        order: list[RawEvaluation] = []
        for command, section in aml_output.sections(session.run(commands)):
            if command.startswith(("all ", "execute ")):
                for found in aml_output.evaluations(section):
                    order.append(found)
                    if found.path in wanted:
                        fresh[found.path] = found
        self._attribute(session, fresh.values())
        self._learn(session, (name for found in fresh.values() for name in references(found.value)))
        state: list[int | None] = list(self._config.padded(base))
        for offset, function in needs.items():
            state[offset] = self._config.padded(function)[offset]
        wrong = []
        for found in order:
            right = self._replay(found, state)
            if fresh.get(found.path) is found:
                self.answers.raw[found.path] = found
                if not right:
                    wrong.append(found)
        return wrong

    def _each_function(self, session: Session, found: RawEvaluation) -> None:
        """Evaluate it with each of the functions that it confuses: `_evaluated`, marked as mixed."""
        functions = self._conflicts(found)
        quiet, loud = f"level {_BUFFER_BYTES:#x} console", f"level {self._level:#x} console"
        answers: list[tuple[Sbdf, RawEvaluation]] = []
        for function in functions[:8]:
            commands = [quiet, *self._config.fill(function), loud, f"execute {found.path}", "go"]
            for command, section in aml_output.sections(session.run(commands)):
                if command == f"execute {found.path}":
                    answers += [(function, answer) for answer in aml_output.evaluations(section)]
        if not answers:
            return
        self._attribute(session, (answer for _, answer in answers))
        self._learn(session, (name for _, answer in answers for name in references(answer.value)))
        first = answers[0][1]
        differ = any((answer.status, answer.value) != (first.status, first.value) for _, answer in answers)
        # The answer with the bytes of the device's own function is kept, where there is one.
        own = self._addresses.get(parent(found.path))
        chosen = next((answer for function, answer in answers if function == own), first)
        self.answers.raw[found.path] = chosen
        concluded = self._conclusion(chosen)
        self.answers.evaluated[found.path] = msgspec.structs.replace(concluded, mixed=True)
        if differ:
            names = ", ".join(str(function) for function, _ in answers)
            self.findings.append(MIXED.at(f"aml:{found.path}", f"answers differ between the bytes of {names}"))

    # --- conclusions --------------------------------------------------------------------------------------------

    def _conclude(self) -> None:
        for path, found in self.answers.raw.items():
            if path not in self.answers.evaluated:
                self.answers.evaluated[path] = self._conclusion(found)

    def _conclusion(self, found: RawEvaluation) -> Evaluation:
        ranges: dict[tuple[int, str | None, Sbdf | None], list[tuple[int, int]]] = {}
        config: dict[Sbdf, None] = {}
        written: set[Sbdf | None] = set()
        for read in found.accesses:
            if read.space == DATA_TABLE:
                continue
            region: str | None = None
            function: Sbdf | None = None
            if read.space == PCI_CONFIG:
                region = self._regions_of_fields.get(read.field)
                function = self._function(read)
                if read.write:
                    # What is read behind a write need not be what was recorded: index and data registers.
                    written.add(function)
                elif (
                    function is not None
                    and function not in written
                    and found.path not in self._unsettled
                    and read.address + read.width <= len(self._config.recorded(function))
                ):
                    config[function] = None
                    continue
            if not read.write:
                ranges.setdefault((read.space, region, function), []).append(
                    (read.address, read.address + read.width - 1)
                )
        depends = tuple(
            RegionAccess(SPACES.get(space, space), first, last, region, function)
            for (space, region, function), spans in ranges.items()
            for first, last in _merged(spans)
        )
        return Evaluation(found.path, found.status, depends, tuple(sorted(config)))

    # --- one object ---------------------------------------------------------------------------------------------

    def evaluate(self, path: str, command: str) -> Result:
        """The object at `path`, with the bytes of the functions that it reads."""
        if not self._launch.possible:
            return Result(evaluation=Evaluation(path, "not evaluated"), findings=tuple(self.findings))
        text = b""
        found: RawEvaluation | None = None
        try:
            with self._launch.first() as session:
                identify = ("_HID", "_CID", "_ADR", "_BBN", "_SEG")
                self._read(session.run([*self._start(), "find ????", *(_all(identify) if self._config else ())]))
                text = session.run([f"level {self._level | _MESSAGES:#x} console", command, "go"])
                found = _only(text, command)
                stopped = session.stopped
                if found is not None and self._config and _reads_config(found):
                    self._attribute(session, (found,))
                    self._place()
            for _ in range(_MAX_ROUNDS):
                if found is None or stopped is not None or not (needs := self._needs(found)):
                    break
                base, overlays = _composition(needs)
                with self._launch.session(self._launch.remaining) as session:
                    session.run(self._start())
                    quiet, loud = f"level {_BUFFER_BYTES:#x} console", f"level {self._level | _MESSAGES:#x} console"
                    text = session.run([quiet, *self._config.fill(base, overlays[:OVERLAYS]), loud, command, "go"])
                    found = _only(text, command)
                    stopped = session.stopped
                    if found is not None:
                        self._attribute(session, (found,))
                        self._learn(session, references(found.value))
                if found is not None and self._needs(found) == needs:
                    break
            if found is None and stopped is not None:
                self.findings.append(CUT_OFF.at(f"aml:{path}", _STOPPED[stopped]))
        except OSError as error:
            self.findings.append(CUT_OFF.at("aml", f"acpiexec cannot be run: {error.strerror}"))
        messages = _messages(text)
        if found is None:
            evaluation = Evaluation(path, "cut off")
            return Result(evaluation=evaluation, messages=messages, findings=tuple(self.findings))
        return Result(
            evaluation=msgspec.structs.replace(self._conclusion(found), mixed=bool(self._conflicts(found))),
            value=None if found.value is None else self.answers.public(found.value),
            accesses=tuple(self._said(read) for read in found.accesses),
            messages=messages,
            findings=tuple(self.findings),
        )

    def _said(self, read: Read) -> str:
        region = self._regions_of_fields.get(read.field) if read.space == PCI_CONFIG else None
        function = self._function(read) if read.space == PCI_CONFIG else None
        space = SPACES.get(read.space, read.space)
        access = RegionAccess(space, read.address, read.address + read.width - 1, region, function)
        return f"{'write' if read.write else 'read'} {access}"


_STOPPED: Final = {
    "time": "it ran out of time",
    "output": "it printed without end",
    "breakpoints": "AML stopped at breakpoints without end",
    "ended": "it ended by itself (a crash, or a limit of memory or processor time)",
}
_EVALUATED: Final = re.compile(rb"^Evaluated \d+ names in the namespace", re.MULTILINE)
_VERSION: Final = re.compile(r"Utility version (\w+)")
_INIT_FAILED: Final = re.compile(r"ACPI Error: (AE_\w+), during (\\\S+) execution")
_UNRESOLVED: Final = re.compile(
    r"^(?:Firmware|ACPI BIOS) Error \((?:ACPI|bug)\): "
    r"(Could not resolve symbol|Failure creating named object) \[([^\]\n]*)\], (AE_\w+)",
    re.MULTILINE,
)
_REJECTED: Final = re.compile(
    r"^ACPI (?:Error|Warning): (.*(?:install failed|table load failures?|while loading table).*)$", re.MULTILINE
)


def _all(names: Iterable[str]) -> list[str]:
    return [line for name in names for line in (f"all {name}", "go")]


def _reads_config(found: RawEvaluation) -> bool:
    return any(read.space == PCI_CONFIG and not read.write for read in found.accesses)


def _composition(needs: Mapping[int, Sbdf]) -> tuple[Sbdf, list[tuple[Sbdf, int, int]]]:
    """The function needed most, and (function, offset, length) of the others."""
    count: dict[Sbdf, int] = {}
    for function in needs.values():
        count[function] = count.get(function, 0) + 1
    base = max(sorted(count), key=lambda function: count[function])
    overlays: list[tuple[Sbdf, int, int]] = []
    for offset in sorted(needs):
        function = needs[offset]
        if function == base:
            continue
        if overlays and overlays[-1][0] == function and sum(overlays[-1][1:]) == offset:
            overlays[-1] = (function, overlays[-1][1], overlays[-1][2] + 1)
        else:
            overlays.append((function, offset, 1))
    return base, overlays


def _merged(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges, ascending, those that touch or overlap made one."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


def _only(text: bytes, command: str) -> RawEvaluation | None:
    """The evaluation that `command` printed."""
    for echoed, section in aml_output.sections(text):
        if echoed == command:
            return next(aml_output.evaluations(section), None)
    return None


def _messages(text: bytes) -> tuple[str, ...]:
    lines = text.decode("ascii", "backslashreplace").split("\n")
    return tuple(line for line in lines if line.startswith("ACPI "))[:1000]
