# SPDX-License-Identifier: MIT
"""Lists of type-length-value entries in bytes that nobody vouches for: the one walker, and what it finds wrong.

Tables, their sub-tables and resource buffers are such lists. Loops over them have hung hypervisors, so there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ClassVar, Final

import msgspec

from dom0kit.finding import Finding, Rule, Severity, rule

ZERO_LENGTH: Final = rule(
    "structure.zero-length",
    Severity.ERROR,
    title="an entry of length zero",
    meaning="A list of type-length-value entries holds one whose length is smaller than its own header. A reader that "
    "trusts it never advances: such tables have hung hypervisors at boot. Nothing behind it can be found.",
    advice="Update the firmware, or override the table. Entries before it are decoded; the rest is kept as bytes.",
    specification="ACPI 6.5, section 5.2.12: the length of an interrupt controller structure includes its header",
)
OVERLONG: Final = rule(
    "structure.overlong",
    Severity.ERROR,
    title="an entry longer than the list it is in",
    meaning="The length of an entry reaches beyond the end of its list. A reader that trusts it reads foreign memory.",
    advice="Update the firmware, or override the table. The entry is kept as bytes, cut at the end of the list.",
    specification="ACPI 6.5, section 5.2.12: sub-tables lie within the length of the table's header",
)
TRUNCATED: Final = rule(
    "structure.truncated",
    Severity.WARNING,
    title="bytes left over that are no entry",
    meaning="A list ends with bytes that are too few for another entry's header: it is cut short, or padded.",
    advice="Compare with the table as the firmware's vendor documents it. The bytes are kept.",
    specification="ACPI 6.5, section 5.2.12: sub-tables follow each other until the length of the header is used up",
)
UNKNOWN: Final = rule(
    "structure.unknown-type",
    Severity.INFO,
    title="entries of an unknown type",
    meaning="A list holds entries of a type that the specification does not define, or defines for OEM use, or that is "
    "newer than this program. They are kept as bytes.",
    advice="Nothing, unless an entry was expected there.",
    specification="ACPI 6.5, section 5.2.12: software skips structures whose type it does not know",
)


class Notes:
    """Findings of one decoding run, bounded: `LIMIT` of each rule, then a single one that counts the others."""

    LIMIT: ClassVar[int] = 16

    def __init__(self, where: str) -> None:
        self.where = where
        self.base = 0
        """What to add to an offset to get that in the table, where an entry is decoded from a copy of its bytes."""
        self._kept: list[Finding] = []
        self._counts: dict[str, int] = {}
        self._rules: dict[str, Rule] = {}

    def add(self, rule: Rule, message: str) -> None:
        count = self._counts.get(rule.id, 0) + 1
        self._counts[rule.id] = count
        self._rules[rule.id] = rule
        if count <= self.LIMIT:
            self._kept.append(rule.at(self.where, message))

    def findings(self) -> tuple[Finding, ...]:
        """In the order they were added; the counts of those left out come last."""
        more = [
            self._rules[id].at(self.where, f"and {count - self.LIMIT} more of the same kind")
            for id, count in self._counts.items()
            if count > self.LIMIT
        ]
        return (*self._kept, *more)


class ByLength(msgspec.Struct, frozen=True):
    """Entries that begin with type and length; the length counts the whole entry.

    Bytes between type and length belong to the entry's record, as its first fields.
    """

    type_size: int
    length_at: int
    length_size: int

    @property
    def header_size(self) -> int:
        return self.length_at + self.length_size


class ByType(msgspec.Struct, frozen=True):
    """Entries that begin with a type, on which their length depends."""

    type_size: int
    measure: Callable[[bytes, int, int], int | None]
    """(data, offset of the entry, end of the list) -> bytes of the entry; 0 where its type has no known length,
    None where the list ends before the length can be told."""


def walk(
    data: bytes, start: int, end: int, shape: ByLength | ByType, notes: Notes, what: str = "entry"
) -> Iterator[tuple[int | None, int, int]]:
    """Entries of a list as (type, offset, length), each inside [start, end) and at least as long as its header.

    Always ends: every step advances by a header at least. What cannot be walked any more comes last, with the type
    None: after a zero or too small length, an over-long entry, an entry whose length is unknown, or a cut header.
    """
    position = start
    while position < end:
        place = position + notes.base
        left = end - position
        kind = int.from_bytes(data[position : position + shape.type_size], "little")
        if isinstance(shape, ByLength):
            least = shape.header_size
            at = position + shape.length_at
            length = int.from_bytes(data[at : at + shape.length_size], "little") if left >= least else None
        else:
            least = shape.type_size
            length = shape.measure(data, position, end) if left >= least else None
        if length is None:
            notes.add(TRUNCATED, f"{left} bytes at offset {place:#x} are too few for the next {what}")
        elif length < least:
            if isinstance(shape, ByType):
                notes.add(UNKNOWN, f"{what} of type {kind:#x} at offset {place:#x}: its length is not known")
            else:
                notes.add(
                    ZERO_LENGTH, f"{what} of type {kind:#x} at offset {place:#x} has length {length}, below {least}"
                )
        elif length > left:
            notes.add(
                OVERLONG, f"{what} of type {kind:#x} at offset {place:#x} has length {length}, but {left} are left"
            )
        else:
            yield kind, position, length
            position += length
            continue
        yield None, position, left
        return
