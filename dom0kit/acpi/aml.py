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
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from dom0kit.acpi import aml_output
from dom0kit.acpi.aml_output import DATA_TABLE, PCI_CONFIG, Pointer, Raw, RawEvaluation, RawObject, Read, Unset
from dom0kit.acpi.namespace import (
    SAME_ROOT,
    AmlDevice,
    Evaluation,
    Namespace,
    NamespaceObject,
    OperationRegion,
    RegionAccess,
    parent,
    pci_addresses,
    root_bus,
)
from dom0kit.acpi.recorded_config import BYTES, OVERLAYS, RecordedConfig
from dom0kit.acpi.resources import Resource, decode_resources
from dom0kit.acpi.routing import PrtEntry, decode_prt
from dom0kit.acpi.tables.common import SPACES, AddressSpace
from dom0kit.address import Sbdf
from dom0kit.finding import Finding, Severity, rule
from dom0kit.serial import Hex
from dom0kit.source.interface import RawTable

if TYPE_CHECKING:
    from dom0kit.acpi.aml_session import Session

NO_INTERPRETER: Final = rule(
    "aml.no-interpreter",
    Severity.WARNING,
    title="acpiexec is not installed",
    meaning="AML is interpreted by ACPICA's acpiexec, which was not found. There is no namespace, and so no interrupt "
    "routing, no root bridge windows and no hotplug information from ACPI.",
    advice="apt install acpica-tools",
    specification="ACPI 6.5, chapter 20",
)
NO_DSDT: Final = rule(
    "aml.no-dsdt",
    Severity.WARNING,
    title="no usable DSDT",
    meaning="The machine's tables hold no DSDT, or one whose header does not fit its bytes. Without it there is no "
    "namespace.",
    advice="Record again with all of /sys/firmware/acpi/tables.",
    specification="ACPI 6.5, section 5.2.11.1",
)
TABLE_REJECTED: Final = rule(
    "aml.table-rejected",
    Severity.WARNING,
    title="the interpreter rejects a table",
    meaning="A definition block could not be loaded, wholly or in part. Objects that it declares are missing, and "
    "methods that use them fail.",
    advice="Disassemble the table (iasl -d) and look at the place named; an operating system may load it all the same.",
    specification="ACPI 6.5, section 5.2.11",
)
NAMES: Final = rule(
    "aml.names-unresolved",
    Severity.INFO,
    title="tables refer to names that do not exist, or declare names twice",
    meaning="While the tables were loaded, some names could not be found, or existed already. The statements around "
    "them were skipped. Firmware often refers to devices that a model does not have; a table that is missing from the "
    "recording, one that is normally loaded later, or a wrong order of tables shows in the same way.",
    advice="Nothing, unless an object is missed; then look for the table that declares it.",
    specification="ACPI 6.5, sections 5.2.11 and 5.3",
)
INITIALISATION: Final = rule(
    "aml.initialisation-failed",
    Severity.INFO,
    title="an initialisation method was aborted",
    meaning="_INI or _REG methods failed under the interpreter, mostly because they wait for hardware that is only "
    "simulated. Variables they would have set, such as the operating system's type, keep their first values.",
    advice="Nothing. Evaluate on the machine itself where a value matters.",
    specification="ACPI 6.5, sections 6.5.1 and 6.5.4",
)
EVALUATION_FAILED: Final = rule(
    "aml.evaluation-failed",
    Severity.WARNING,
    title="an object cannot be evaluated",
    meaning="Evaluating the object ended with an error, so its value is unknown here. An operating system that "
    "meets the same error ignores the object or the device.",
    advice="Where the error is a missing object, look whether an SSDT is missing from the recording.",
    specification="ACPICA status codes (acexcep.h); ACPI 6.5, section 5.7",
)
WRONG_TYPE: Final = rule(
    "aml.wrong-type",
    Severity.INFO,
    title="an object has a type it must not have",
    meaning="A predefined name evaluates to another type than the specification gives it. It is read as if absent.",
    advice="Nothing, unless the value is missed.",
    specification="ACPI 6.5, section 5.6.8 and table 5.164",
)
CUT_OFF: Final = rule(
    "aml.interpreter-stopped",
    Severity.WARNING,
    title="the interpreter was stopped",
    meaning="acpiexec ran into a limit of time, memory or output, or crashed, before everything was evaluated. What "
    "was evaluated before is kept; the rest was tried again without initialisation methods.",
    advice="Look which object it was; AML that never ends also hangs an operating system.",
    specification="limits of dom0kit: 28 s, 160 MiB of memory, 16 MiB of output",
)
MIXED: Final = rule(
    "aml.mixed-config-space",
    Severity.INFO,
    title="an object reads the same offset of several functions",
    meaning="The interpreter has one config space for all functions, and this object reads the same offset of more "
    "than one, where they differ. It was evaluated once with each one's bytes, and the answers differ.",
    advice="Evaluate the object on the machine itself where it matters.",
    specification="ACPICA source/tools/acpiexec/aeregion.c",
)


class Integer(msgspec.Struct, frozen=True, tag="integer"):
    """64 bits (32 in a DSDT of revision 1)."""

    value: int


class String(msgspec.Struct, frozen=True, tag="string"):
    """ASCII text."""

    value: str


class Buffer(msgspec.Struct, frozen=True, tag="buffer"):
    """Bytes."""

    value: Hex


class Reference(msgspec.Struct, frozen=True, tag="reference"):
    """A named object, by path (by its last name alone, where it is gone)."""

    path: str


class Package(msgspec.Struct, frozen=True, tag="package"):
    """A list; None stands for an element that was never set."""

    elements: tuple[Value | None, ...]


class Opaque(msgspec.Struct, frozen=True, tag="opaque"):
    """Anything else, in the interpreter's words."""

    text: str


Value = Integer | String | Buffer | Reference | Package | Opaque


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What ``dom0kit acpi eval`` shows."""

    evaluation: Evaluation
    value: Value | None = None
    """None: it returned nothing, or failed."""
    accesses: tuple[str, ...] = ()
    """Hardware it touched, in order: ``read system-memory 0xfed1f404-0xfed1f407``."""
    messages: tuple[str, ...] = ()
    """ACPI errors and warnings, and what AML wrote to its Debug object."""
    findings: tuple[Finding, ...] = ()


_SECONDS: Final = 28.0
_FIRST: Final = 0.6
"""Share of these for the first session; the rest is for trying again without initialisation."""
_AT_ONCE: Final = ("_STA", "_CRS", "_PRT", "_PRS")
"""Asked for together with the namespace: hardly a machine has them all constant."""
_NAMES: Final = (
    *_AT_ONCE,
    *("_HID", "_CID", "_UID", "_ADR", "_BBN", "_SEG", "_SUN", "_RMV", "_EJD", "_MAT", "_GSB", "_PXM", "_CBA"),
)
_CHILDREN: Final = frozenset((*_NAMES, "_EJ0", "_OSC", "_DSM"))
_OWN_OBJECTS: Final = frozenset(("\\DKCB", "\\DKCR", "\\DKCF", "\\DKFL"))
_LEFT_OUT: Final = ("RSDP", "RSD ", "RSDT", "XSDT", "FACS", "FACP", "MSDM")
"""Tables that acpiexec makes itself or must not see."""
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


def interpret(tables: Sequence[RawTable], config: Mapping[Sbdf, bytes], *, seconds: float = _SECONDS) -> Namespace:
    """The namespace of these tables, AML's PCI_Config fields reading `config`.

    `config` has every function of the machine, with no bytes where it was not read; it is empty where PCI is unknown.
    Tables are loaded in the order given, DSDT first; dynamic ones are left out. Whatever AML does, this returns
    within `seconds` and a little, and raises nothing.
    """
    interpretation = _Interpretation(tables, config, seconds)
    interpretation.run()
    return interpretation.namespace()


def evaluate(
    tables: Sequence[RawTable], config: Mapping[Sbdf, bytes], path: str, arguments: Sequence[str] = ()
) -> Result:
    """One object, with arguments as acpiexec writes them: ``0x1``, ``"text"``, ``(00 FF)``, ``[0x1 "a"]``.

    ValueError where path or arguments cannot be said to acpiexec in one line of 500 characters.
    """
    command = " ".join(("execute", path, *arguments))
    if not command.isascii() or not command.isprintable() or len(command) > 500 or " " in path or not path:
        raise ValueError(f"{path!r} with these arguments is no command of at most 500 printable characters")
    return _Interpretation(tables, config).evaluate(path, command)


def usable_tables(tables: Sequence[RawTable]) -> tuple[list[RawTable], list[Finding]]:
    """What acpiexec is given: DSDT first, then the others in order, each with a true length and checksum."""
    usable: list[RawTable] = []
    findings: list[Finding] = []
    dsdt: RawTable | None = None
    for table in tables:
        signature = table.data[:4].decode("ascii", "replace")
        if table.dynamic or signature in _LEFT_OUT:
            continue
        length = int.from_bytes(table.data[4:8], "little")
        if len(table.data) < 36 or not 36 <= length <= len(table.data):
            if signature in ("DSDT", "SSDT", "PSDT"):
                where = f"table:{table.name}"
                findings.append(TABLE_REJECTED.at(where, f"its header says {length} of {len(table.data)} bytes"))
            continue
        data = table.data[:length]
        wrong = sum(data) & 0xFF
        if wrong:
            data = data[:9] + bytes(((data[9] - wrong) & 0xFF,)) + data[10:]
        fixed = RawTable(table.name, data)
        if signature != "DSDT":
            usable.append(fixed)
        elif dsdt is None:
            dsdt = fixed
    if dsdt is None:
        return [], [*findings, NO_DSDT.at("aml", "no table of this signature can be loaded")]
    return [dsdt, *usable], findings


class _Interpretation:
    """One run over a machine's tables: what was asked, what came back."""

    def __init__(self, tables: Sequence[RawTable], config: Mapping[Sbdf, bytes], seconds: float = _SECONDS) -> None:
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._program = shutil.which("acpiexec")
        self._config = RecordedConfig(config)
        self._functions = config
        self._tables, self._findings = usable_tables(tables)
        if self._program is None:
            self._findings = [NO_INTERPRETER.at("aml", "no acpiexec in PATH: apt install acpica-tools")]
        if self._config and self._tables:
            self._tables += self._config.tables()
        level = _BUFFER_BYTES | _FIELD_ACCESS
        if any(_SERIAL_REGION.search(table.data) for table in self._tables):
            level |= _REGION_ACCESS
        self._level = level
        self._version: str | None = None
        self._objects: list[RawObject] = []
        self._children: dict[str, dict[str, RawObject]] = {}
        self._static: dict[str, int | str] = {}
        self._wanted: list[str] = []
        self._done: set[str] = set()
        self._printed: dict[str, int] = {}
        """Bytes that ``all NAME`` printed: a measure of what it costs."""
        self._raw: dict[str, RawEvaluation] = {}
        self._evaluated: dict[str, Evaluation] = {}
        self._paths: frozenset[str] = frozenset()
        self._pointers: dict[str, str] = {}
        """Paths by address, of all sessions: addresses are random, two sessions share none."""
        self._regions_of_fields: dict[str, str] = {}
        self._addresses: dict[str, Sbdf] = {}
        self._slow = False
        self._unsettled: set[str] = set()
        """Evaluations that still read another function's bytes after all rounds."""

    # --- sessions -----------------------------------------------------------------------------------------------

    def _session(self, seconds: float, *, initialise: bool = True) -> Session:
        from dom0kit.acpi.aml_session import Session

        assert self._program is not None
        deadline = min(self._deadline, time.monotonic() + seconds)
        return Session(self._program, self._tables, deadline, initialise=initialise)

    def run(self) -> None:
        """Everything `namespace` needs."""
        if self._program is None or not self._tables:
            return
        try:
            with contextlib.ExitStack() as stack:
                session = stack.enter_context(self._session(self._seconds * _FIRST))
                # Nearly every machine reads config space of more than the host bridge, and so needs a second session:
                # it loads its tables while the first one works.
                spare = stack.enter_context(self._session(self._seconds)) if self._config else None
                begun = time.monotonic()
                self._read(session.run([*self._start(), "find ????", *_all(_AT_ONCE)]))
                self._read(session.run(_all(self._wanted)))
                for name in self._missing():  # an AML BreakPoint took the command
                    self._read(session.run(_all((name,))))
                self._slow = time.monotonic() - begun > _SLOW
                stopped = session.stopped
                if spare is not None and stopped is None:
                    self._refine(session, spare)
            if stopped is not None:
                self._findings.append(CUT_OFF.at("aml", f"the first session: {_STOPPED[stopped]}"))
                self._again()
        except OSError as error:
            self._findings.append(CUT_OFF.at("aml", f"acpiexec cannot be run: {error.strerror}"))
        self._conclude()

    def _start(self) -> list[str]:
        # Again after _INI, which may have written over the host bridge's bytes.
        fill = self._config.fill(self._config.host_bridge) if self._config else ()
        return [*fill, f"level {self._level:#x} console", "execute \\_PIC 0x1", "go"]

    def _missing(self) -> list[str]:
        return [name for name in (*_AT_ONCE, *self._wanted) if name not in self._done]

    def _again(self) -> None:
        """What the first session did not get to, name by name, without initialisation."""
        for _ in range(4):
            missing = self._missing()
            if (self._objects and not missing) or self._deadline - time.monotonic() < 1:
                break
            with self._session(self._deadline - time.monotonic(), initialise=False) as session:
                self._read(session.run([*self._start(), "find ????"]))
                if not self._objects:
                    continue
                for name in missing:
                    self._read(session.run(_all((name,))))
                    if session.stopped is not None:
                        self._done.add(name)  # it stopped this one: the next session begins behind it
                        self._findings.append(CUT_OFF.at(f"aml:{name}", _STOPPED[session.stopped]))
                        break

    def _read(self, text: bytes) -> None:
        """Take in what a batch printed."""
        for command, section in aml_output.sections(text):
            verb, _, what = command.partition(" ")
            if verb == "" and self._version is None:
                self._read_start(section.decode("ascii", "replace"))
            elif verb == "find":
                self._read_objects(section)
            elif verb == "all":
                self._raw.update((found.path, found) for found in aml_output.evaluations(section))
                self._printed[what] = len(section)
                if _EVALUATED.search(section) is not None:
                    self._done.add(what)
            elif command == "execute \\_PIC 0x1":
                self._raw.update((found.path, found) for found in aml_output.evaluations(section))

    def _read_start(self, text: str) -> None:
        match = _VERSION.search(text)
        self._version = match.group(1) if match else "unknown"
        failed: dict[str, str] = {}
        for status, path in _INIT_FAILED.findall(text):
            failed.setdefault(aml_output.trimmed(path), status)
        if failed:
            first, status = next(iter(failed.items()))
            self._findings.append(INITIALISATION.at("aml", f"{len(failed)} methods, the first {first} with {status}"))
        names = _UNRESOLVED.findall(text)
        if names:
            what, name, status = names[0]
            message = f"{len(set(names))} names, the first: {what.lower()} {name}, {status}"
            self._findings.append(NAMES.at("aml", message))
        for line in _REJECTED.findall(text):
            self._findings.append(TABLE_REJECTED.at("aml", line.strip()))

    def _read_objects(self, section: bytes) -> None:
        objects = [found for found in aml_output.objects(section) if found.path not in _OWN_OBJECTS]
        self._pointers.update((found.pointer, found.path) for found in objects)
        if self._objects:
            return
        self._objects = objects
        wanted: set[str] = set()
        children = self._children
        for found in objects:
            path = found.path
            segment = path[-4:]
            if segment not in _CHILDREN:
                continue
            owner = parent(path)
            children.setdefault(owner, {})[segment] = found
            if found.type == "Integer":
                self._static[path] = int(found.detail.removeprefix("= "), 16) if found.detail.startswith("= ") else 0
            elif found.type == "String" and (text := _whole_string(found.detail)) is not None:
                self._static[path] = text
            elif segment in _NAMES and segment not in _AT_ONCE:
                wanted.add(segment)
        self._wanted = [name for name in _NAMES if name in wanted]

    # --- PCI config space ---------------------------------------------------------------------------------------

    def _refine(self, first: Session, spare: Session) -> None:
        """Evaluate again, with the right function's bytes, what read another function's.

        In a fresh session each time: a method that patches a named buffer by what it read leaves it patched.
        """
        if not any(_reads_config(found) for found in self._raw.values()):
            return
        self._attribute(first, self._raw.values())
        self._place()
        state: list[int | None] = list(self._config.padded(self._config.host_bridge))
        wrong = [found for found in self._raw.values() if not self._replay(found, state)]
        for number in range(_MAX_ROUNDS):
            remaining = self._deadline - time.monotonic()
            if not wrong or remaining < 1:
                break
            with spare if number == 0 else self._session(remaining) as session:
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
        self._learn(session, (found.name for found in regions if found.node not in self._pointers))
        for field in fields:
            pending, seen = [field], set[str]()
            while pending:
                address = pending.pop()
                target = known.get(address)
                if target is None or address in seen:
                    continue
                seen.add(address)
                pending += target.targets
                if target.space == PCI_CONFIG and target.node in self._pointers:
                    self._regions_of_fields[field] = self._pointers[target.node]

    def _learn(self, session: Session, names: Iterable[str]) -> None:
        """Take in where this session has the objects of these last segments."""
        commands = [f"find {name:_<4}" for name in sorted(set(names))[:_MAX_FIELDS]]
        for command, section in aml_output.sections(session.run(commands)) if commands else ():
            if command.startswith("find "):
                self._pointers.update((found.pointer, found.path) for found in aml_output.objects(section))

    def _place(self) -> None:
        """PCI addresses of the devices: `_addresses`."""
        if self._addresses:
            return
        devices = [
            AmlDevice(
                path=path,
                hid=self._hid(path),
                cids=self._cids(path),
                adr=self._number(path, "_ADR"),
                bbn=self._number(path, "_BBN"),
                seg=self._number(path, "_SEG"),
                crs=self._resources(path, "_CRS", []) if self._has(path, "_CRS") else None,
            )
            for path in self._device_paths()
            if self._has(path, "_ADR") or self._has(path, "_HID")
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
        self._learn(session, (name for found in fresh.values() for name in _references(found.value)))
        state: list[int | None] = list(self._config.padded(base))
        for offset, function in needs.items():
            state[offset] = self._config.padded(function)[offset]
        wrong = []
        for found in order:
            right = self._replay(found, state)
            if fresh.get(found.path) is found:
                self._raw[found.path] = found
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
        self._learn(session, (name for _, answer in answers for name in _references(answer.value)))
        first = answers[0][1]
        differ = any((answer.status, answer.value) != (first.status, first.value) for _, answer in answers)
        # The answer with the bytes of the device's own function is kept, where there is one.
        own = self._addresses.get(parent(found.path))
        chosen = next((answer for function, answer in answers if function == own), first)
        self._raw[found.path] = chosen
        concluded = self._conclusion(chosen)
        self._evaluated[found.path] = msgspec.structs.replace(concluded, mixed=True)
        if differ:
            names = ", ".join(str(function) for function, _ in answers)
            self._findings.append(MIXED.at(f"aml:{found.path}", f"answers differ between the bytes of {names}"))

    # --- conclusions --------------------------------------------------------------------------------------------

    def _conclude(self) -> None:
        for path, found in self._raw.items():
            if path not in self._evaluated:
                self._evaluated[path] = self._conclusion(found)

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

    def _device_paths(self) -> list[str]:
        return [found.path for found in self._objects if found.type in ("Device", "Processor")]

    def _has(self, path: str, name: str) -> bool:
        return name in self._children.get(path, ())

    def _raw_value(self, path: str, name: str) -> Raw | None:
        child = f"{path}.{name}" if path != "\\" else f"\\{name}"
        found = self._raw.get(child)
        return self._static.get(child) if found is None else found.value

    def _number(self, path: str, name: str) -> int | None:
        value = self._raw_value(path, name)
        return value if isinstance(value, int) else None

    def _hid(self, path: str) -> str | None:
        return _identifier(self._raw_value(path, "_HID"))

    def _cids(self, path: str) -> tuple[str, ...]:
        value = self._raw_value(path, "_CID")
        found = (_identifier(item) for item in (value if isinstance(value, list) else (value,)))
        return tuple(item for item in found if item is not None)

    def _find(self, scope: str, value: Raw) -> str | None:
        """The path of the object that a reference or a name means, seen from `scope`."""
        if isinstance(value, Pointer):
            return self._pointers.get(value.address)
        if not isinstance(value, str) or not value:
            return None
        if not self._paths:
            self._paths = frozenset(found.path for found in self._objects)
        name = aml_output.trimmed(value)
        if name.startswith("\\"):
            return name if name in self._paths else None
        while name.startswith("^"):
            name, scope = name[1:], parent(scope)
        while True:
            path = f"\\{name}" if scope == "\\" else f"{scope}.{name}"
            if path in self._paths:
                return path
            if scope == "\\":
                return None
            scope = parent(scope)

    def _resources(self, path: str, name: str, findings: list[Finding]) -> tuple[Resource, ...] | None:
        value = self._raw_value(path, name)
        if isinstance(value, bytes):
            resources, wrong = decode_resources(value, f"aml:{path}.{name}")
            findings += wrong
            return resources
        return None

    def _device(self, path: str, processor: bool, findings: list[Finding]) -> AmlDevice:
        children = self._children.get(path)
        if children is None:
            return AmlDevice(path=path, processor=processor)
        value = self._raw_value
        uid = value(path, "_UID")
        mat = value(path, "_MAT")
        ejd = value(path, "_EJD")
        prt: tuple[PrtEntry, ...] | None = None
        if "_PRT" in children:
            package = value(path, "_PRT")
            if package is not None:
                prt, wrong = decode_prt(package, f"aml:{path}._PRT", lambda item: self._find(path, item))
                findings += wrong
        evaluations = tuple(found for name in children if (found := self._evaluated.get(f"{path}.{name}")) is not None)
        for name in children:
            raw = self._raw.get(f"{path}.{name}")
            expected = _TYPES.get(name)
            if raw is None or raw.status != "AE_OK" or expected is None or isinstance(raw.value, expected):
                continue
            findings.append(WRONG_TYPE.at(f"aml:{raw.path}", f"it evaluates to {_type_name(raw.value)}"))
        return AmlDevice(
            path=path,
            processor=processor,
            hid=self._hid(path) if "_HID" in children else None,
            cids=self._cids(path) if "_CID" in children else (),
            uid=uid if isinstance(uid, int | str) else None,
            adr=self._number(path, "_ADR") if "_ADR" in children else None,
            sta=self._number(path, "_STA") if "_STA" in children else None,
            bbn=self._number(path, "_BBN") if "_BBN" in children else None,
            seg=self._number(path, "_SEG") if "_SEG" in children else None,
            crs=self._resources(path, "_CRS", findings) if "_CRS" in children else None,
            prs=self._resources(path, "_PRS", findings) if "_PRS" in children else None,
            prt=prt,
            sun=self._number(path, "_SUN") if "_SUN" in children else None,
            rmv=self._number(path, "_RMV") if "_RMV" in children else None,
            ejd=self._find(path, ejd) or ejd if isinstance(ejd, str) else None,
            has_ej0="_EJ0" in children,
            mat=mat.hex() if isinstance(mat, bytes) else None,
            gsb=self._number(path, "_GSB") if "_GSB" in children else None,
            pxm=self._number(path, "_PXM") if "_PXM" in children else None,
            cba=self._number(path, "_CBA") if "_CBA" in children else None,
            has_osc="_OSC" in children,
            has_dsm="_DSM" in children,
            evaluations=evaluations,
        )

    def namespace(self) -> Namespace:
        """All of it as one value."""
        findings = self._findings
        devices: list[AmlDevice] = []
        absent: set[str] = set()
        for found in self._objects:
            if found.type not in ("Device", "Processor"):
                continue
            wrong: list[Finding] = []
            device = self._device(found.path, found.type == "Processor", wrong)
            devices.append(device)
            if not device.present or parent(found.path) in absent:
                absent.add(found.path)
                continue
            findings += wrong
            findings += [
                EVALUATION_FAILED.at(f"aml:{evaluation.path}", f"it ended with {evaluation.status}")
                for evaluation in device.evaluations
                if not evaluation.ok
            ]
        findings += _same_roots([device for device in devices if device.path not in absent])
        return Namespace(
            interpreter=self._version,
            objects=tuple(NamespaceObject(found.path, found.type, self._detail(found)) for found in self._objects),
            regions=tuple(filter(None, (_region(found) for found in self._objects if found.type == "Region"))),
            devices=tuple(devices),
            apic_mode=self._evaluated.get("\\_PIC"),
            findings=tuple(findings),
        )

    def _detail(self, found: RawObject) -> str:
        """Without the addresses that only this run had."""
        detail = found.detail
        if "0x" not in detail and "(nil)" not in detail:
            return detail
        match = _TARGET.fullmatch(detail)
        if match is not None:
            return f"Target {self._pointers.get(match.group(2), match.group(1))}"
        return _ADDRESSES.sub("", detail)

    # --- one object ---------------------------------------------------------------------------------------------

    def evaluate(self, path: str, command: str) -> Result:
        """The object at `path`, with the bytes of the functions that it reads."""
        if self._program is None or not self._tables:
            return Result(evaluation=Evaluation(path, "not evaluated"), findings=tuple(self._findings))
        text = b""
        found: RawEvaluation | None = None
        try:
            with self._session(self._seconds * _FIRST) as session:
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
                with self._session(self._seconds) as session:
                    session.run(self._start())
                    quiet, loud = f"level {_BUFFER_BYTES:#x} console", f"level {self._level | _MESSAGES:#x} console"
                    text = session.run([quiet, *self._config.fill(base, overlays[:OVERLAYS]), loud, command, "go"])
                    found = _only(text, command)
                    stopped = session.stopped
                    if found is not None:
                        self._attribute(session, (found,))
                        self._learn(session, _references(found.value))
                if found is not None and self._needs(found) == needs:
                    break
            if found is None and stopped is not None:
                self._findings.append(CUT_OFF.at(f"aml:{path}", _STOPPED[stopped]))
        except OSError as error:
            self._findings.append(CUT_OFF.at("aml", f"acpiexec cannot be run: {error.strerror}"))
        messages = _messages(text)
        if found is None:
            evaluation = Evaluation(path, "cut off")
            return Result(evaluation=evaluation, messages=messages, findings=tuple(self._findings))
        return Result(
            evaluation=msgspec.structs.replace(self._conclusion(found), mixed=bool(self._conflicts(found))),
            value=None if found.value is None else self._public(found.value),
            accesses=tuple(self._said(read) for read in found.accesses),
            messages=messages,
            findings=tuple(self._findings),
        )

    def _said(self, read: Read) -> str:
        region = self._regions_of_fields.get(read.field) if read.space == PCI_CONFIG else None
        function = self._function(read) if read.space == PCI_CONFIG else None
        space = SPACES.get(read.space, read.space)
        access = RegionAccess(space, read.address, read.address + read.width - 1, region, function)
        return f"{'write' if read.write else 'read'} {access}"

    def _public(self, value: Raw) -> Value:
        match value:
            case int():
                return Integer(value)
            case str():
                return String(value)
            case bytes():
                return Buffer(value.hex())
            case list():
                return Package(tuple(None if isinstance(item, Unset) else self._public(item) for item in value))
            case Pointer(address=address, name=name):
                return Reference(self._pointers.get(address, name))
            case aml_output.Other(text=text):
                return Opaque(text)
            case _:
                return Opaque("unset")


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
_TARGET: Final = re.compile(r"Target (\w+) \((0x[0-9a-f]+)\)")
_ADDRESSES: Final = re.compile(r"(?: ?(?:Aml|Object|Notify Object:))? ?(?:0x[0-9a-f]+|\(nil\))")
_REGION: Final = re.compile(r"\[([^\]]*)\] Addr ([0-9A-F]+) Len ([0-9A-F]+)")
_STRING: Final = re.compile(r'Len ([0-9A-F]+) "(.*)"')
_EISA: Final = "@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_"
_TYPES: Final[dict[str, type | tuple[type, ...]]] = {
    "_STA": int,
    "_ADR": int,
    "_BBN": int,
    "_SEG": int,
    "_CRS": bytes,
    "_PRS": bytes,
    "_PRT": list,
    "_HID": (int, str),
    "_MAT": bytes,
    "_GSB": int,
    "_PXM": int,
}


def _all(names: Iterable[str]) -> list[str]:
    return [line for name in names for line in (f"all {name}", "go")]


def _whole_string(detail: str) -> str | None:
    """The text of a string object, unless it is shown shortened."""
    match = _STRING.fullmatch(detail)
    if match is None:
        return None
    text = aml_output.unescaped(match.group(2))
    return text if len(text) == int(match.group(1), 16) else None


def _identifier(value: Raw | None) -> str | None:
    """Text of a _HID or _CID; an integer is a compressed EISA id (ACPI 6.5, section 6.1.5)."""
    if isinstance(value, str):
        return value
    if not isinstance(value, int):
        return None
    number = int.from_bytes((value & 0xFFFF_FFFF).to_bytes(4, "little"), "big")
    letters = "".join(_EISA[number >> shift & 0x1F] for shift in (26, 21, 16))
    return f"{letters}{number & 0xFFFF:04X}"


def _type_name(value: Raw | None) -> str:
    names = {int: "an integer", str: "a string", bytes: "a buffer", list: "a package", type(None): "nothing"}
    return names.get(type(value), "a reference")


def _reads_config(found: RawEvaluation) -> bool:
    return any(read.space == PCI_CONFIG and not read.write for read in found.accesses)


def _references(value: Raw | None) -> list[str]:
    """Last name segments of the objects that a value refers to."""
    found: list[str] = []
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, Pointer):
            found.append(item.name)
        elif isinstance(item, list):
            pending += item
    return found


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


def _region(found: RawObject) -> OperationRegion | None:
    match = _REGION.search(found.detail)
    if match is None:
        return None
    name, address, length = match.groups()
    number = aml_output.SPACE_NUMBERS.get(name, -1)
    space: AddressSpace | int = SPACES.get(number, number)
    return OperationRegion(found.path, space, int(address, 16), int(length, 16))


def _same_roots(devices: Iterable[AmlDevice]) -> list[Finding]:
    findings = []
    seen: dict[tuple[int, int], str] = {}
    for device in devices:
        if not device.is_root_bridge:
            continue
        segment, bus = root_bus(device)
        other = seen.setdefault((segment, bus), device.path)
        if other != device.path:
            message = f"it and {other} both say segment {segment}, bus {bus:#04x}"
            findings.append(SAME_ROOT.at(f"aml:{device.path}", message))
    return findings


def _only(text: bytes, command: str) -> RawEvaluation | None:
    """The evaluation that `command` printed."""
    for echoed, section in aml_output.sections(text):
        if echoed == command:
            return next(aml_output.evaluations(section), None)
    return None


def _messages(text: bytes) -> tuple[str, ...]:
    lines = text.decode("ascii", "backslashreplace").split("\n")
    return tuple(line for line in lines if line.startswith("ACPI "))[:1000]
