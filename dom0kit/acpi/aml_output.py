# SPDX-License-Identifier: MIT
"""What acpiexec prints (ACPICA's debugger), read in single passes: sections, evaluations, values, the namespace.

The forms were measured with acpica-tools 20200925. Nothing here raises, whatever the text: what is not understood is
left out.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

SPACE_NUMBERS: Final = {
    "SystemMemory": 0,
    "SystemIO": 1,
    "PCI_Config": 2,
    "EmbeddedControl": 3,
    "SMBus": 4,
    "SystemCMOS": 5,
    "PCIBARTarget": 6,
    "PciBarTarget": 6,
    "IPMI": 7,
    "GeneralPurposeIo": 8,
    "GenericSerialBus": 9,
    "PCC": 10,
    "PlatformRtMechanism": 11,
    "DataTable": 0x7E,
    "FunctionalFixedHW": 0x7F,
}
PCI_CONFIG: Final = 2
DATA_TABLE: Final = 0x7E
"""ACPICA's own number for DataTableRegion: the bytes of a table that was recorded."""


class Pointer(NamedTuple):
    """A reference to a named object, by its address in the interpreter and its last name segment."""

    address: str
    name: str


class Unset(NamedTuple):
    """An element of a package that was never set."""


class Other(NamedTuple):
    """A value in the interpreter's words."""

    text: str


Raw = int | str | bytes | list["Raw"] | Pointer | Unset | Other
"""A value: Integer, String, Buffer, Package…"""


class Read(NamedTuple):
    """One access of hardware."""

    space: int
    address: int
    width: int
    """Bytes."""
    field: str
    """Address of the field object in the interpreter."""
    write: bool


class RawEvaluation(NamedTuple):
    """One evaluation as printed."""

    path: str
    status: str
    value: Raw | None
    accesses: tuple[Read, ...]


class RawObject(NamedTuple):
    """One line of ``find``."""

    path: str
    type: str
    pointer: str
    detail: str


_COMMAND: Final = re.compile(rb"\n[-%] (?!go\n)(\S[^\n]*)")
_FIND: Final = re.compile(r"^ *(\\\S*) +(\w+) +(0x[0-9a-f]+) \w* *(.*)$", re.MULTILINE)
_PAD: Final = re.compile(r"(?<![.\\])_+(?=\.|$)")
_ACCESS: Final = re.compile(r"(READ|WRITE)\] Region \[[^:\]]*:([0-9A-F]+)\], Width ([0-9A-F]+),.* at ([0-9A-F]+)")
_DISPATCH: Final = re.compile(r".* EvAddressSpaceDispatch .* Address ([0-9A-F]+) \[(\w+)\]")
_PROTOCOLS: Final = frozenset((4, 7, 8, 9, 10, 11))
_ELEMENT: Final = re.compile(r" *\[([A-Za-z ]+)\] ?(.*)")
_ROW: Final = re.compile(r"(?:^|.*? ) {4}[0-9A-F]{4,}: ((?:[0-9A-F]{2} )+)")
_ESCAPES: Final = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_ESCAPE: Final = re.compile(r"\\(x[0-9A-Fa-f]{2}|.)")


def trimmed(path: str) -> str:
    """``\\_SB.PCI0`` of ``\\_SB_.PCI0``."""
    return _PAD.sub("", path) if "_." in path or path.endswith("_") else path


def sections(text: bytes) -> Iterator[tuple[str, bytes]]:
    """Each command that was echoed, with what it printed; what stands before the first comes under the empty name."""
    name, start = "", 0
    for match in _COMMAND.finditer(text):
        yield name, text[start : match.start() + 1]
        name, start = match.group(1).decode("ascii", "replace"), match.end()
    yield name, text[start:]


def objects(section: bytes) -> list[RawObject]:
    """The lines of ``find ????``."""
    return [RawObject(*groups) for groups in _FIND.findall(section.decode("ascii", "backslashreplace"))]


def evaluations(section: bytes) -> Iterator[RawEvaluation]:
    """What ``all NAME`` or ``execute PATH`` printed, in order."""
    lines = section.decode("ascii", "backslashreplace").split("\n")
    accesses: dict[Read, None] = {}
    taken: tuple[Read, ...] = ()
    field, in_write = "", False
    at, size = 0, len(lines)
    waiting: tuple[str, str] | None = None
    """Path and status of an evaluation whose value may follow."""
    while at < size:
        line = lines[at]
        at += 1
        if line.startswith(" "):
            module = line[2:9]
            if module == "exfldio":
                _, found, access = line.partition(" : [")
                if found and not (in_write and access.startswith("READ")) and (read := _access(access)) is not None:
                    accesses[read._replace(field=field)] = None
            elif module == "exfield":
                _, found, target = line.partition("[TO]:")
                if found:
                    field = target.partition("Obj ")[2].partition(",")[0].partition(" ")[0]
                    in_write = " FieldWrite " in line
            elif module == "vregion" and (read := _protocol_access(line)) is not None:
                accesses[read] = None
        elif line.startswith("\\"):
            path, returned, status = line.rpartition(" returned ")
            if returned and status.startswith("AE_"):
                if waiting is not None:
                    yield RawEvaluation(*waiting, None, ())
                waiting = (trimmed(path.rstrip()), status)
                taken, accesses = tuple(accesses), {}
                if status != "AE_OK":
                    yield RawEvaluation(*waiting, None, taken)
                    waiting = None
        elif line.startswith("Evaluation of "):
            path, _, rest = line[14:].partition(" ")
            if rest.startswith("returned object "):
                value, at = _value(lines, at)
                if waiting is None:
                    taken, accesses = tuple(accesses), {}
                yield RawEvaluation(trimmed(path), "AE_OK", value, taken)
                waiting = None
            elif rest.startswith("failed with status "):
                yield RawEvaluation(trimmed(path), rest[19:].strip(), None, tuple(accesses))
                accesses = {}
        elif line.startswith("No object was returned from evaluation of "):
            if waiting is None:
                yield RawEvaluation(trimmed(line[42:].strip()), "AE_OK", None, tuple(accesses))
                accesses = {}
            else:
                yield RawEvaluation(*waiting, None, taken)
                waiting = None
    if waiting is not None:
        yield RawEvaluation(*waiting, None, taken)


@functools.lru_cache(maxsize=4096)
def _access(text: str) -> Read | None:
    """``READ] Region [SystemMemory:0], Width 4, ByteBase 0, Offset 0 at 00000000FED1F404``."""
    match = _ACCESS.fullmatch(text)
    if match is None:
        return None
    kind, space, width, address = match.groups()
    return Read(int(space, 16), int(address, 16), int(width, 16), "", kind == "WRITE")


def _protocol_access(line: str) -> Read | None:
    """An access of a bus with its own protocol: it bypasses the code that prints READ and WRITE."""
    match = _DISPATCH.fullmatch(line)
    space = -1 if match is None else SPACE_NUMBERS.get(match.group(2), -1)
    if match is None or space not in _PROTOCOLS:
        return None
    return Read(space, int(match.group(1), 16), 1, "", False)


def _value(lines: list[str], at: int) -> tuple[Raw | None, int]:
    """The value printed from line `at` on, and the line behind it."""
    top: list[Raw] = []
    stack: list[tuple[list[Raw], int]] = [(top, 1)]
    size = len(lines)
    while at < size and stack:
        match = _ELEMENT.match(lines[at])
        if match is None:
            break
        kind, rest = match.groups()
        at += 1
        elements, wanted = stack[-1]
        if kind == "Integer":
            elements.append(number(rest.removeprefix("= ")))
        elif kind == "Package":
            children: list[Raw] = []
            count = _decimal(rest)
            elements.append(children)
            if len(elements) == wanted:
                stack.pop()
            if count:
                stack.append((children, count))
            continue
        elif kind == "Buffer":
            length = number(rest.removeprefix("Length ").partition(" ")[0])
            data = bytearray()
            row = _ROW.match(rest)
            if row is not None:
                data += bytes.fromhex(row.group(1))
            elif length:
                while at < size and len(data) < length and (row := _ROW.match(lines[at])) is not None:
                    data += bytes.fromhex(row.group(1))
                    at += 1
            elements.append(bytes(data[:length]))
        elif kind == "String":
            elements.append(_string(rest))
        elif kind == "Object Reference":
            elements.append(_reference(rest))
        elif kind in ("Null Object", "Uninitialized"):
            elements.append(Unset())
        else:
            elements.append(Other(f"[{kind}] {rest}".rstrip()))
        while stack and len(stack[-1][0]) >= stack[-1][1]:
            stack.pop()
    return (top[0] if top else None), at


def number(text: str) -> int:
    """Hexadecimal digits as the interpreter prints them; 0 for anything else."""
    try:
        return int(text, 16)
    except ValueError:
        return 0


def _decimal(text: str) -> int:
    words = text.split()
    return int(words[1]) if len(words) > 1 and words[1].isascii() and words[1].isdigit() else 0


def _string(text: str) -> str:
    _, quote, body = text.partition('"')
    return unescaped(body.rpartition('"')[0]) if quote else ""


def unescaped(text: str) -> str:
    """A string as AML holds it, from how the interpreter prints it."""
    if "\\" not in text:
        return text
    return _ESCAPE.sub(lambda match: _unescape(match.group(1)), text)


def _unescape(what: str) -> str:
    if what[0] == "x" and len(what) == 3:
        return chr(int(what[1:], 16))
    return _ESCAPES.get(what, what)


def _reference(text: str) -> Raw:
    words = text.split()
    # = 0x5572fc7bb780 <Node>            Name LNKA Device
    if len(words) >= 5 and words[0] == "=" and words[2] == "<Node>" and words[3] == "Name":
        return Pointer(words[1], words[4])
    return Other(f"[Object Reference] {text}")


class DumpedField(NamedTuple):
    """What ``dump`` says of a field or region object; "" where it says nothing."""

    address: str
    node: str
    """Address of the namespace node: "Parent Node"."""
    name: str
    """The node's last name segment."""
    targets: tuple[str, ...]
    """Region, data and index objects that a field lies in."""
    space: int
    start: int


_DUMP_LINE: Final = re.compile(
    r"^ *(Parent Node|Region Object|Index Object|Data Object|Bank Object|Space Id|Address) : (\S+)(?: \[(\w+)\])?",
    re.MULTILINE,
)


def dumped(address: str, section: bytes) -> DumpedField:
    """The lines of ``dump ADDRESS``."""
    node, segment, targets, space, start = "", "", [], -1, -1
    for name, value, bracketed in _DUMP_LINE.findall(section.decode("ascii", "replace")):
        if name == "Parent Node":
            node, segment = value, bracketed
        elif name == "Space Id":
            space = number(value)
        elif name == "Address":
            start = number(value)
        else:
            targets.append(value)
    return DumpedField(address, node, segment, tuple(targets), space, start)


_TRACE_STARTS: Final = (b"  ex", b"   ex", b" ex", b" ev", b" ae", b"  ev", b"  ae")


def compressed(text: bytes) -> bytes:
    """The same text with repeats of hardware accesses left out, and what nobody reads: for floods only."""
    kept: list[bytes] = []
    seen: set[tuple[bytes, bytes]] = set()
    field = kept_field = b""
    for line in text.split(b"\n"):
        if line.startswith(_TRACE_STARTS):
            if b"[TO]:" in line:
                field = line.partition(b" : ")[2]
            elif b"] Region [" in line or b"EvAddressSpaceDispatch" in line:
                access = field.partition(b",")[0], line.partition(b" : ")[2]
                if access not in seen:
                    seen.add(access)
                    if field != kept_field:
                        kept.append(b"  exfield : " + field)
                        kept_field = field
                    kept.append(line)
        elif line and not line.startswith(b"ACPI Debug:"):
            seen.clear()
            kept.append(line)
    return b"\n".join(kept)
