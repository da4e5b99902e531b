# SPDX-License-Identifier: MIT
"""What was traced: events joined with the Platform, as lines, as JSON, as a timeline for Perfetto, a histogram."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from dom0kit import abi
from dom0kit.abi import Op, Physdev
from dom0kit.address import Sbdf
from dom0kit.trace.names import Owner


class Kind(enum.IntEnum):
    """What an event says; the numbers are the programs'."""

    HANDLED = 1
    ALLOCATED = 2
    ACTIVATED = 3
    DEACTIVATED = 4
    CONFIGURED = 5
    MOVED = 6
    CLEARED = 7
    MESSAGE = 8
    SLOT_INTERRUPT = 9
    PRESENCE = 10
    CONFIGURE = 11
    UNCONFIGURE = 12
    ACPI_NOTIFY = 13
    SCAN = 14
    ADD = 15
    REMOVE = 16
    CALL = 17
    MULTICALL = 18
    READ = 19
    WRITE = 20
    KERNEL_EVENT = 21
    """Of netlink, not of a program."""


WITH_IRQ: Final = frozenset(
    {
        Kind.HANDLED,
        Kind.ALLOCATED,
        Kind.ACTIVATED,
        Kind.DEACTIVATED,
        Kind.CONFIGURED,
        Kind.MOVED,
        Kind.CLEARED,
        Kind.MESSAGE,
    }
)
_STEPS: Final = {
    Kind.SLOT_INTERRUPT: "pciehp: the slot's interrupt",
    Kind.PRESENCE: "pciehp: presence or link has changed",
    Kind.CONFIGURE: "pciehp: the slot is configured",
    Kind.UNCONFIGURE: "pciehp: the slot is taken down",
    Kind.ACPI_NOTIFY: "acpiphp: the namespace notifies",
    Kind.SCAN: "a slot is scanned",
    Kind.ADD: "a function is added",
    Kind.REMOVE: "a function is removed",
}
_MASK: Final = 0xFFFFFFFF


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event."""

    seconds: float
    """Of the monotonic clock."""
    cpu: int
    kind: str
    what: str
    """Half a sentence."""
    irq: int | None = None
    function: Sbdf | None = None
    who: str = ""
    """Of the interrupt, as `Owner.label`."""
    took: float | None = None
    """Seconds."""


class Raw(msgspec.Struct, frozen=True):
    """One event as a program tells it."""

    time: int
    """Nanoseconds."""
    a: int
    b: int
    c: int
    cpu: int
    kind: int


def joined(raw: Raw, owners: Mapping[int, Owner]) -> Event:
    """With what the Platform knows. ValueError for a kind that there is not."""
    kind = Kind(raw.kind)
    seconds = raw.time / 1e9
    name = kind.name.lower().replace("_", "-")
    if kind in WITH_IRQ:
        owner = owners.get(raw.a, Owner(irq=raw.a))
        return Event(
            seconds=seconds,
            cpu=raw.cpu,
            kind=name,
            what=_of_irq(kind, raw),
            irq=raw.a,
            function=owner.function,
            who=owner.label,
            took=raw.b / 1e9 if kind is Kind.HANDLED else None,
        )
    function, took = None, None
    if kind in (Kind.READ, Kind.WRITE):
        function = Sbdf(raw.a >> 16 & 0xFFFFFFFF, raw.a >> 8 & 0xFF, raw.a >> 3 & 0x1F, raw.a & 7)
        value = f" {raw.c & _MASK:#x}" if kind is Kind.WRITE else ""
        what = f"{name}s {raw.b & 0xFF} bytes at {raw.b >> 8:#x}{value}"
    elif kind is Kind.CALL:
        took = raw.b / 1e9
        result = raw.c - (1 << 64) if raw.c >> 63 else raw.c
        what = f"{_call(raw.a)}: {'done' if result == 0 else f'errno {-result}'}"
    elif kind is Kind.MULTICALL:
        what = f"Xen hypercall {raw.a}, {raw.b} arguments, in a multicall"
    else:
        what = _STEPS.get(kind, name)
    return Event(seconds=seconds, cpu=raw.cpu, kind=name, what=what, function=function, took=took)


def _of_irq(kind: Kind, raw: Raw) -> str:
    low, high = raw.b & _MASK, raw.b >> 32
    match kind:
        case Kind.HANDLED:
            return f"{'handled' if raw.c else 'nobody handled it'} in {raw.b / 1000:.1f} us"
        case Kind.ALLOCATED:
            return f"vector {raw.b:#x} is allocated" if raw.b else "a vector is reserved"
        case Kind.ACTIVATED:
            return "activated"
        case Kind.DEACTIVATED:
            return "deactivated"
        case Kind.CONFIGURED:
            return f"goes to vector {raw.b:#x} of CPU {raw.c >> 32} (APIC id {raw.c & _MASK})"
        case Kind.MOVED:
            there = f"vector {low:#x} of CPU {raw.c & _MASK}"
            return f"moves from vector {high:#x} of CPU {raw.c >> 32} to {there}" if high else f"has {there}"
        case Kind.CLEARED:
            return f"vector {raw.b:#x} of CPU {raw.c} is given back"
        case _:
            return f"message {raw.b:#x} data {raw.c:#x} is written"


def _call(nr: int) -> str:
    """By the number of our module's ioctl: a physdev operation, one of ours from 0x40 on, the module's own above."""
    operations: type[Physdev] | type[Op] = Physdev if nr < 0x40 else Op
    try:
        return operations(nr if nr < 0x40 else nr - 0x40).name.lower()
    except ValueError:
        return {
            abi.MODULE_INFORMATION: "module information",
            abi.MODULE_WATCH: "module watch",
            abi.MODULE_READ_HARDWARE: "module read_hardware",
            abi.MODULE_EVALUATE: "module evaluate",
        }.get(nr, f"ioctl {nr:#x}")


class Filter(msgspec.Struct, frozen=True):
    """What shall be told: each that is given must fit; of several of a kind, one."""

    functions: frozenset[Sbdf] = frozenset()
    irqs: frozenset[int] = frozenset()
    cpus: frozenset[int] = frozenset()

    @classmethod
    def parse(cls, texts: Sequence[str]) -> Filter:
        """``0000:03:00.0``, ``47`` or ``cpu2``. ValueError."""
        functions, irqs, cpus = set(), set(), set()
        for text in texts:
            if text.isascii() and text.isdecimal() and len(text) <= 10:
                irqs.add(int(text))
            elif text.startswith("cpu") and text[3:].isascii() and text[3:].isdecimal() and len(text) <= 10:
                cpus.add(int(text[3:]))
            else:
                try:
                    functions.add(Sbdf.parse(text))
                except ValueError:
                    raise ValueError(f"{text!r} is no function (0000:03:00.0), interrupt (47) or cpu2") from None
        return cls(frozenset(functions), frozenset(irqs), frozenset(cpus))

    def fits(self, event: Event) -> bool:
        return (
            (not self.functions or event.function in self.functions)
            and (not self.irqs or event.irq in self.irqs)
            and (not self.cpus or event.cpu in self.cpus)
        )

    def fits_owner(self, owner: Owner) -> bool:
        """Of an interrupt's counts, which have no processor."""
        return (not self.functions or owner.function in self.functions) and (not self.irqs or owner.irq in self.irqs)


def text(event: Event, began: float) -> str:
    """A line for people; `began`: when the trace did."""
    who = event.who or (str(event.function) if event.function is not None else "")
    return f"{event.seconds - began:10.6f}  cpu{event.cpu:<3} {who + '  ' if who else ''}{event.what}\n"


def chrome_trace(events: Iterable[Event]) -> Iterator[dict[str, object]]:
    """Events in the Trace Event Format, which chrome://tracing and Perfetto read: a track a processor."""
    for event in events:
        common: dict[str, object] = {
            "name": event.who or event.kind,
            "cat": event.kind,
            "pid": 1,
            "tid": event.cpu,
            "args": {"what": event.what, **({"irq": event.irq} if event.irq is not None else {})},
        }
        end = event.seconds * 1e6
        if event.took is not None:
            yield {**common, "ph": "X", "ts": end - event.took * 1e6, "dur": event.took * 1e6}
        else:
            yield {**common, "ph": "i", "s": "t", "ts": end}


def histogram(slots: Mapping[int, int], width: int = 40) -> list[str]:
    """Lines of counts by binary logarithm of nanoseconds: slot n counts what took from 2^(n-1) up to 2^n."""
    if not slots:
        return []
    most = max(slots.values())
    lines = []
    for slot in range(min(slots), max(slots) + 1):
        count = slots.get(slot, 0)
        bar = "#" * ((count * width + most - 1) // most) if most else ""
        lines.append(f"{_duration(1 << slot >> 1):>8} - {_duration(1 << slot):>8}  {count:>8}  {bar}".rstrip())
    return lines


def _duration(nanoseconds: int) -> str:
    for unit, size in (("s", 10**9), ("ms", 10**6), ("us", 10**3)):
        if nanoseconds >= size:
            return f"{nanoseconds / size:.3g} {unit}"
    return f"{nanoseconds} ns"
