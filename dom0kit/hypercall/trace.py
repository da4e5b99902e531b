# SPDX-License-Identifier: MIT
"""Every hypercall as a line of JSON, and such lines made again, to another hypervisor or the core library.

    with TraceWriter(path) as trace:
        hypervisor.listener = trace
        ...                                             # every call of a method is a line, refused ones too

    for step in replay(read_trace(path), ModelMachine(...).domain()):
        step.agrees                                     # answered as it was then

What a backend asks by itself (Xen's version, an IOAPIC's pins, an entry after a write) is not among the lines.
A pIRQ is the hypervisor's choice: later calls of a trace that name one are made with what map_pirq answers now.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from dom0kit import abi
from dom0kit.abi import ARGUMENTS, MapPirq, MapPirqArgument, Op, Physdev, Status
from dom0kit.hypercall.interface import Hypervisor, words
from dom0kit.layout import Record, layout
from dom0kit.serial import Hex
from dom0kit.walker import Notes

FORMAT: Final = 1
MAX_BYTES: Final = 1 << 28


class BadTrace(ValueError):
    """Not a trace; the message names the line."""


class TraceHeader(msgspec.Struct, frozen=True, kw_only=True):
    """The first line."""

    trace: int
    """Version of this form."""


class TracedCall(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One hypercall."""

    seconds: float
    """Since the trace began."""
    backend: str
    """Who was asked: ``xen``, ``hv_core``, ``loopback``, ``library``."""
    number: int
    """Of the hypercall."""
    command: int
    call: str
    """The same in words, for people."""
    argument: Hex
    status: str = ""
    """Name of the status; empty where it was never answered."""
    answer: Hex | None = None
    """The argument as it came back, where it changed."""

    @property
    def after(self) -> str:
        """The argument after the call."""
        return self.argument if self.answer is None else self.answer


class TraceWriter:
    """A `Hypervisor.listener` that writes each call to a file, the answer behind the question. Close it, or use it in
    ``with``.

    What is asked is written before the call is made: where the machine died of it, the last line, cut off, names it.
    """

    def __init__(self, path: Path | str) -> None:
        """OSError where the file cannot be written."""
        self._file = open(path, "wb", buffering=0)  # noqa: SIM115  # closed by `close`
        self._began = time.monotonic()
        self._is_open = False
        """The last line is not at its end."""
        self._file.write(msgspec.json.encode(TraceHeader(trace=FORMAT)) + b"\n")

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> TraceWriter:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def asked(self, backend: str, number: int, command: int, argument: bytes) -> None:
        if self._is_open:  # its caller met an error that is no answer
            self._file.write(b"}\n")
        self._is_open = True
        self._argument = argument
        self._call = TracedCall(
            seconds=round(time.monotonic() - self._began, 6),
            backend=backend,
            number=number,
            command=command,
            call=_described(number, command, argument),
            argument=argument.hex(),
        )
        self._file.write(msgspec.json.encode(self._call)[:-1])

    def answered(self, status: Status, answer: bytes) -> None:
        whole = msgspec.structs.replace(
            self._call, status=status.name, answer=None if answer == self._argument else answer.hex()
        )
        self._file.write(msgspec.json.encode(whole)[len(msgspec.json.encode(self._call)) - 1 :] + b"\n")
        self._is_open = False


def read_trace(path: Path | str) -> tuple[TracedCall, ...]:
    """The answered calls of a trace from its file. BadTrace where a line is none; OSError where it cannot be read.

    A last line that was cut off, as when the machine died, is left out.
    """
    with open(path, "rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise BadTrace(f"{path}: more than {MAX_BYTES >> 20} MiB")
    lines = data.split(b"\n")[:-1]
    header: TraceHeader = _line(path, 1, lines[0] if lines else b"", TraceHeader)
    if header.trace != FORMAT:
        raise BadTrace(f"{path}: version {header.trace} of the form; this program reads {FORMAT}")
    calls = (_call(path, number, line) for number, line in enumerate(lines[1:], 2))
    return tuple(call for call in calls if call.status)


def _call(path: Path | str, number: int, line: bytes) -> TracedCall:
    call: TracedCall = _line(path, number, line, TracedCall)
    if (call.number, call.command) not in ARGUMENTS:
        raise BadTrace(f"{path}: line {number}: there is no hypercall {call.number} with command {call.command}")
    if call.status and call.status not in Status.__members__:
        raise BadTrace(f"{path}: line {number}: there is no status {call.status!r}")
    for text in (call.argument, call.after):
        try:
            bytes.fromhex(text)
        except ValueError:
            raise BadTrace(f"{path}: line {number}: an argument is not hexadecimal") from None
    return call


def _line(path: Path | str, number: int, line: bytes, type: type[Any]) -> Any:
    try:
        return msgspec.json.decode(line, type=type)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadTrace(f"{path}: line {number} is not of a trace of hypercalls: {error}") from error


class Replayed(msgspec.Struct, frozen=True):
    """A call made again."""

    then: TracedCall
    argument: Hex
    """What was asked now: the same, but for pIRQs."""
    status: Status
    answer: Hex

    @property
    def agrees(self) -> bool:
        """Whether the status is the same. What the hypervisor chooses, vectors and pIRQs, may differ."""
        return self.status.name == self.then.status


def replay(calls: Iterable[TracedCall], hypervisor: Hypervisor) -> Iterator[Replayed]:
    """Makes the calls, in their order."""
    pirqs: dict[int, int] = {}
    for then in calls:
        record = ARGUMENTS[then.number, then.command]
        asked = _translated(then, record, pirqs)
        status, answer = hypervisor.call(then.number, then.command, asked)
        if record is MapPirqArgument and status is Status.OK and then.status == Status.OK.name:
            pirqs.update(_mapped(bytes.fromhex(then.after), answer))
        yield Replayed(then, asked.hex(), status, answer.hex())


_PIRQ_FIELD: Final[dict[tuple[int, int], str]] = {
    (abi.HYPERCALL_PHYSDEV, Physdev.IRQ_STATUS_QUERY): "irq",
    (abi.HYPERCALL_PHYSDEV, Physdev.EOI): "irq",
    (abi.HYPERCALL_PHYSDEV, Physdev.UNMAP_PIRQ): "pirq",
    (abi.HYPERCALL_DOM0KIT, Op.QUERY_VECTOR): "irq",
    (abi.HYPERCALL_DOM0KIT, Op.SET_AFFINITY): "irq",
    (abi.HYPERCALL_DOM0KIT, Op.MSI_READ): "irq",
    (abi.HYPERCALL_DOM0KIT, Op.MSI_WRITE): "irq",
}
"""Which field of an argument is a pIRQ that a map_pirq before may have given."""


def _translated(then: TracedCall, record: type[Record], pirqs: dict[int, int]) -> bytes:
    data = bytes.fromhex(then.argument)
    field = _PIRQ_FIELD.get((then.number, then.command))
    argument = _parsed(record, data) if field else None
    if field is None or argument is None or getattr(argument, field) not in pirqs:
        return data
    new: dict[str, Any] = {field: pirqs[getattr(argument, field)]}
    return layout(record).build(msgspec.structs.replace(argument, **new))


def _mapped(then: bytes, now: bytes) -> dict[int, int]:
    """By each pIRQ that a map_pirq gave then, the one that it gave now."""
    before, after = _parsed(MapPirqArgument, then), _parsed(MapPirqArgument, now)
    if before is None or after is None:
        return {}
    count = max(min(before.entry_nr, 32), 1) if before.type == MapPirq.MULTI_MSI else 1
    return {before.pirq + n: after.pirq + n for n in range(count)}


def _parsed(record: type[Any], data: bytes) -> Any:
    """None where the bytes are too few."""
    return layout(record).parse(data, 0, len(data), Notes("trace"))


def _described(number: int, command: int, argument: bytes) -> str:
    name = Physdev(command) if number == abi.HYPERCALL_PHYSDEV else Op(command)
    return words(name, _parsed(ARGUMENTS[number, command], argument))
