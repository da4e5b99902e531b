# SPDX-License-Identifier: MIT
"""What was last reconciled: which functions and IOAPICs, and what was decided of them. A file that survives a crash.

It is no truth. That is what kernel and hypervisor say; the ledger tells what to ask them, and of functions that went
while nobody watched, that they were there. It is written before a plan is applied, so nothing is told that is not in
it. Of another boot it means nothing.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Annotated, Final

import msgspec

from dom0kit.address import Sbdf
from dom0kit.hotplug.policy import Action
from dom0kit.plan import GsiNumber, Number16, Number32, Number64, Text
from dom0kit.serial import UndecodableJson, decode, encode

FORMAT: Final = 1
NAME: Final = "hotplug.json"
_LIMIT: Final = 64 << 20


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A function that was seen."""

    function: Sbdf
    incarnation: int
    """The kernel's number of this appearance; another function at this address, or the same one later, has another."""
    vendor: Number16
    device: Number16
    physical: Sbdf | None = None
    extended: bool = False
    pxm: Number32 | None = None
    action: Action
    domain: Number16 | None = None
    why: Text = ""
    hot: bool = True
    """It came while somebody watched."""
    told: bool = False
    """The hypervisor knows it, and what Linux was told is done."""
    placed: bool = False
    """What was decided is done."""
    table: Number64 = 0
    """Physical address of its MSI-X table, to unmap messages by; 0: it has none, or nobody gave it an address."""


class LineOf(msgspec.Struct, frozen=True, kw_only=True):
    """A GSI that was given to a domain for its functions."""

    gsi: GsiNumber
    domain: Number16


class KnownIoapic(msgspec.Struct, frozen=True, kw_only=True):
    """An IOAPIC of the hypervisor that has a device in the namespace, by which it can go."""

    address: Number64
    gsi_base: GsiNumber
    path: Text


class Ledger(msgspec.Struct, frozen=True, kw_only=True):
    """All of it."""

    format: Annotated[int, msgspec.Meta(ge=FORMAT, le=FORMAT)] = FORMAT
    boot: Annotated[str, msgspec.Meta(max_length=64)]
    functions: tuple[Entry, ...] = ()
    lines: tuple[LineOf, ...] = ()
    ioapics: tuple[KnownIoapic, ...] = ()


class Store:
    """The file, in a folder that only its owner may write (`dom0kit.hypercall.journal.Journals` sees to that)."""

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, NAME)
        self._folder = folder

    def load(self, boot: str) -> tuple[Ledger | None, str]:
        """The ledger of this boot, None where there is none; and why one that is there is not believed."""
        try:
            file = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return None, ""
        except OSError as error:
            return None, f"{self._path} cannot be read: {error.strerror}"
        try:
            status = os.fstat(file)
            if status.st_uid != os.geteuid() or status.st_mode & 0o022:
                return None, f"{self._path} is another user's, or others may write it"
            ledger = decode(os.read(file, _LIMIT), Ledger)
        except (OSError, UndecodableJson, ValueError) as error:
            return None, f"{self._path} is damaged: {error}"
        finally:
            os.close(file)
        return (ledger if ledger.boot == boot else None), ""

    def save(self, ledger: Ledger) -> None:
        """Replaces the file as a whole. OSError."""
        new = f"{self._path}.new"
        with suppress(FileNotFoundError):
            os.unlink(new)
        file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            data = memoryview(encode(ledger))
            while data:
                data = data[os.write(file, data) :]
            os.fsync(file)
        finally:
            os.close(file)
        os.rename(new, self._path)
