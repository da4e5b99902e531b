# SPDX-License-Identifier: MIT
"""Tables that give AML the recorded PCI config space: see recorded_config.asl.

acpiexec has one array of 256 bytes for the PCI_Config regions of all devices. The first table made here holds the
recorded bytes of every function (``DKCB``), the second, compiled from recorded_config.asl, has a method that copies
one function's bytes into that array, and copies the host bridge's when it is loaded, before any _INI runs.
"""

from __future__ import annotations

import os.path
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from dom0kit.address import Sbdf
from dom0kit.source.interface import RawTable

BYTES: Final = 256
"""Bytes of config space that a PCI_Config region can reach in the interpreter."""
_ABSENT: Final = b"\xff" * BYTES
OVERLAYS: Final = 24
"""At most so many overlays go into one fill: a command line of more than 510 characters ends the session."""
_FUNCTIONS: Final = 4096
"""At most so many functions are handed over: 1 MiB of AML."""


class RecordedConfig:
    """Config space as AML shall see it: which functions, under which index, in which tables.

    A function that was found but not read (asleep) is unknown. One that the recording does not list is not there, and
    reads as all ones, as on the bus.
    """

    def __init__(self, config: Mapping[Sbdf, bytes]) -> None:
        """`config` holds every function of the machine, those that were not read with no bytes."""
        self._bytes = {sbdf: config[sbdf][:BYTES] for sbdf in sorted(config)[:_FUNCTIONS] if config[sbdf]}
        self._indices = {sbdf: index for index, sbdf in enumerate(self._bytes)}
        self._unread = frozenset(sbdf for sbdf in config if sbdf not in self._bytes)

    def __bool__(self) -> bool:
        return bool(self._bytes)

    @property
    def host_bridge(self) -> Sbdf:
        """Whose bytes are in the array when nothing else was asked for: the lowest address."""
        return next(iter(self._bytes))

    def recorded(self, sbdf: Sbdf | None) -> bytes:
        """What is known of its config space: at most 256 bytes."""
        if sbdf is None or sbdf in self._unread:
            return b""
        return self._bytes.get(sbdf, _ABSENT)

    def padded(self, sbdf: Sbdf) -> bytes:
        """256 bytes: what was not recorded is 0."""
        return self.recorded(sbdf).ljust(BYTES, b"\0")

    def _index(self, sbdf: Sbdf) -> int:
        return self._indices.get(sbdf, len(self._bytes))

    def tables(self) -> tuple[RawTable, RawTable]:
        """To be loaded in this order, after all of the machine's own."""
        data = b"".join(self.padded(sbdf) for sbdf in self._bytes) + _ABSENT
        with open(os.path.join(os.path.dirname(__file__), "recorded_config.aml"), "rb") as helper:
            return RawTable("DKCB", _table(data)), RawTable("DKFL", helper.read())

    def fill(self, sbdf: Sbdf, overlays: Iterable[tuple[Sbdf, int, int]] = ()) -> Sequence[str]:
        """Commands that make the array hold a function's bytes, and (function, offset, length) of others over them."""
        words = [word for other, offset, length in overlays for word in (self._index(other), offset, length)]
        # An empty package would be passed as no argument at all.
        arguments = " ".join(f"0x{word:x}" for word in words or (0, 0, 0))
        return [f"execute \\DKFL 0x{self._index(sbdf):x} [{arguments}]", "go"]


def _table(data: bytes) -> bytes:
    """An SSDT with ``Name (DKCB, Buffer (…) {…})``."""
    size = b"\x0c" + struct.pack("<I", len(data))
    body = b"\x08DKCB\x11" + _package_length(len(size) + len(data)) + size + data
    header = struct.pack("<4sIBB6s8sI4sI", b"SSDT", 36 + len(body), 2, 0, b"DOM0KT", b"BYTES\0\0\0", 1, b"DM0K", 1)
    table = bytearray(header + body)
    table[9] = -sum(table) & 0xFF
    return bytes(table)


def _package_length(length: int) -> bytes:
    """AML's encoding of a length that includes itself, in its longest form (ACPI 6.5, section 20.2.4)."""
    length += 4
    return bytes((0xC0 | length & 0xF, length >> 4 & 0xFF, length >> 12 & 0xFF, length >> 20 & 0xFF))
