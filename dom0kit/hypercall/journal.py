# SPDX-License-Identifier: MIT
"""The journal of plans that were applied: what each operation found, on disk before the operation is done.

One file a plan, below one folder that only its owner may write (``/run/dom0kit``). A file is a sequence of lines, each
a CRC-32, a blank and a record in JSON; room for all of them is taken before the first operation, so that a full disk
stops a plan before it begins. Bytes behind the last whole line are what a killed writer left, or that room.

What is read here may be anybody's: it is held against the types, the plan, and the order in which records can come.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Annotated, Final

import msgspec

from dom0kit.hypercall.effects import effect_of
from dom0kit.hypercall.images import AnyImage
from dom0kit.plan import IoapicRemove, Number32, Operation, Plan, SetLinuxAffinity, UnmapPirq
from dom0kit.serial import decoder, encode

FOLDER: Final = "/run/dom0kit"
FORMAT: Final = 1
JOURNAL_LIMIT: Final = 4 << 30
PLANS_LIMIT: Final = 999_999
_SUFFIX: Final = ".journal"
_NEW: Final = "new"
_CRC: Final = 9
"""Eight hexadecimal digits and a blank."""
_OPERATION_ROOM: Final = 768
"""Bytes that the records of one operation take at most, what is counted in `_PARTS` aside."""
_PART_ROOM: Final = 64
_PARTS: Final[dict[type[Operation], int]] = {IoapicRemove: 120, UnmapPirq: 32, SetLinuxAffinity: 16}
"""Pieces of `_PART_ROOM` in images: entries of an IOAPIC, messages of a run, text."""


class JournalError(Exception):
    """The journal cannot be used; the message says why, and what can be done."""


class Locked(JournalError):
    """Another process applies a plan now."""


class Record(msgspec.Struct, frozen=True, kw_only=True, tag_field="record"):
    """One line of a journal."""


class Begun(Record, frozen=True, kw_only=True, tag="begun"):
    """The first: whose plan this is."""

    format: Annotated[int, msgspec.Meta(ge=FORMAT, le=FORMAT)] = FORMAT
    boot: Annotated[str, msgspec.Meta(max_length=64)]
    """Linux's boot id: nothing that is written here outlives a boot."""
    plan: Plan


class Intent(Record, frozen=True, kw_only=True, tag="intent"):
    """An operation may be done from now on."""

    operation: Number32
    image: AnyImage


class Done(Record, frozen=True, kw_only=True, tag="done"):
    """It was done."""

    operation: Number32
    result: Number32 | None = None


class Skipped(Record, frozen=True, kw_only=True, tag="skipped"):
    """There was nothing to do."""

    operation: Number32
    result: Number32 | None = None


class Applied(Record, frozen=True, kw_only=True, tag="applied"):
    """All operations are done: this is the other side."""


class GoingBack(Record, frozen=True, kw_only=True, tag="going-back"):
    """From now on there is only the way back."""


class Undone(Record, frozen=True, kw_only=True, tag="undone"):
    """An operation was undone."""

    operation: Number32


AnyRecord = Begun | Intent | Done | Skipped | Applied | GoingBack | Undone
_DECODER: Final = decoder(AnyRecord)


class Step(msgspec.Struct):
    """What the journal knows of an operation that was begun, or found done."""

    operation: int
    image: AnyImage | None
    """None: it was found done, and there is nothing to undo."""
    done: bool = False
    result: int | None = None
    undone: bool = False


class Entry(msgspec.Struct):
    """A journal as read."""

    number: int
    boot: str
    plan: Plan
    steps: list[Step]
    applied: bool = False
    going_back: bool = False
    length: int = 0
    """Bytes up to the end of the last whole line."""

    @property
    def is_whole(self) -> bool:
        """It is at one side: all of the plan is done."""
        return self.applied and not self.going_back

    @property
    def results(self) -> dict[int, int | None]:
        return {step.operation: step.result for step in self.steps}


class Disk:
    """How files are written: one place, for tests to stop at."""

    def write(self, file: int, data: bytes, offset: int) -> None:
        while data:
            written = os.pwrite(file, data, offset)
            data, offset = data[written:], offset + written

    def reserve(self, file: int, size: int) -> None:
        os.posix_fallocate(file, 0, size)

    def sync(self, file: int) -> None:
        os.fsync(file)

    def rename(self, old: str, new: str, folder: int) -> None:
        os.rename(old, new, src_dir_fd=folder, dst_dir_fd=folder)

    def remove(self, name: str, folder: int) -> None:
        os.unlink(name, dir_fd=folder)


class Writer:
    """Appends records to one journal; each is on disk when its method returns. JournalError where it cannot be."""

    def __init__(self, journals: Journals, number: int, file: int, length: int) -> None:
        self.number = number
        self._journals = journals
        self._file = file
        self._length = length
        self._touched = length
        """Where the last attempt to write ended, which may have failed."""

    def add(self, record: AnyRecord) -> None:
        data = _line(record)
        end = self._length + len(data)
        # Of a longer record that failed nothing may be left behind this one.
        data = data.ljust(self._touched - self._length, b"\0")
        self._touched = max(self._touched, end)
        with _told("the journal cannot be written"):
            self._journals.disk.write(self._file, data, self._length)
            self._journals.disk.sync(self._file)
        self._length = end

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def end(self) -> None:
        """The plan is undone, or its way back is given up: its journal goes."""
        self.close()
        self._journals.remove(self.number)


class Journals:
    """The folder of journals, locked as long as this is open. Close it, or use it in ``with``.

    JournalError: the folder is not the caller's alone. Locked: another process has it.
    """

    def __init__(self, folder: str, disk: Disk | None = None) -> None:
        self.disk = disk or Disk()
        self._name = folder
        self._folder = self._lock = -1
        with _told(f"{folder} cannot be used"):
            with suppress(FileExistsError):
                os.mkdir(folder, 0o700)
            self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            self._check(os.fstat(self._folder), folder)
            self._take_lock()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for file in (self._lock, self._folder):
            if file >= 0:
                os.close(file)
        self._folder = self._lock = -1

    def __enter__(self) -> Journals:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def numbers(self) -> list[int]:
        """Of the plans that have a journal, the oldest first."""
        found = []
        with _told(f"{self._name} cannot be read"):
            for name in os.listdir(self._folder):
                digits = name.removesuffix(_SUFFIX)
                if name.endswith(_SUFFIX) and len(digits) == 6 and digits.isascii() and digits.isdigit():
                    found.append(int(digits))
        return sorted(found)

    def begin(self, boot: str, plan: Plan) -> Writer:
        """The journal of a plan that is going to be applied, with room for all its records."""
        numbers = self.numbers()
        number = numbers[-1] + 1 if numbers else 1
        if number > PLANS_LIMIT:
            raise JournalError(f"{self._name} has the journal of a plan {PLANS_LIMIT}: roll plans back")
        data = _line(Begun(boot=boot, plan=plan))
        room = len(data) + 2 * _OPERATION_ROOM + sum(_room(operation) for operation in plan.operations)
        with _told("there is no room for the journal, so nothing was done"):
            file = os.open(
                _NEW, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=self._folder
            )
            try:
                self.disk.reserve(file, room)
                self.disk.write(file, data, 0)
                self.disk.sync(file)
                self.disk.rename(_NEW, _name(number), self._folder)
                self.disk.sync(self._folder)
            except OSError:
                os.close(file)
                for name in (_NEW, _name(number)):
                    with suppress(OSError):
                        os.unlink(name, dir_fd=self._folder)
                raise
        return Writer(self, number, file, len(data))

    def read(self, number: int) -> Entry:
        """A journal, checked. JournalError for one that no writer of ours can have written."""
        file = self._open(number)
        try:
            return _entry(number, _records(file, _name(number)))
        finally:
            os.close(file)

    def go_on(self, entry: Entry) -> Writer:
        """Appends to a journal that was read."""
        return Writer(self, entry.number, self._open(entry.number), entry.length)

    def remove(self, number: int) -> None:
        with _told(f"{_name(number)} cannot be removed"):
            self.disk.remove(_name(number), self._folder)
            self.disk.sync(self._folder)

    def _open(self, number: int) -> int:
        with _told(f"{_name(number)} cannot be opened"):
            file = os.open(_name(number), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._folder)
        try:
            status = os.fstat(file)
            self._check(status, _name(number))
            if not stat.S_ISREG(status.st_mode) or status.st_size > JOURNAL_LIMIT:
                raise JournalError(f"{_name(number)} is no journal: look what it is, and remove it")
        except BaseException:
            os.close(file)
            raise
        return file

    @staticmethod
    def _check(status: os.stat_result, name: str) -> None:
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise JournalError(
                f"{name} is another user's, or others may write it, so what stands there is not believed: "
                "look who made it, and remove it"
            )

    def _take_lock(self) -> None:
        with _told(f"{self._name} cannot be locked"):
            self._lock = os.open(
                "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=self._folder
            )
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Locked(
                    "another process applies a plan or takes one back now: try again when it is done"
                ) from None


@contextmanager
def _told(what: str) -> Iterator[None]:
    """An error of the disk, in words."""
    try:
        yield
    except OSError as error:
        way = ": make room there" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        way = "; it asks for root" if error.errno in (errno.EACCES, errno.EPERM) else way
        raise JournalError(f"{what} ({error.strerror}){way}") from error


def _name(number: int) -> str:
    return f"{number:06}{_SUFFIX}"


def _line(record: AnyRecord) -> bytes:
    data = encode(record)
    return b"%08x %s\n" % (zlib.crc32(data), data)


def _room(operation: Operation) -> int:
    """For the records of an operation."""
    return _OPERATION_ROOM + _PART_ROOM * _PARTS.get(type(operation), 0)


def _records(file: int, name: str) -> Iterator[tuple[AnyRecord, int]]:
    """The records, and where each ends. A killed writer leaves the beginning of a line, without its end."""
    damaged = f"{name} is damaged, so what it says is not believed: look at it, undo its plan by hand, and remove it"
    size = os.fstat(file).st_size
    if not size:
        return
    with mmap.mmap(file, size, mmap.MAP_SHARED, mmap.PROT_READ) as data:
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            body = data[start + _CRC : end]
            if data[start : start + _CRC] != b"%08x " % zlib.crc32(body):
                raise JournalError(damaged)
            try:
                record = _DECODER.decode(body)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                raise JournalError(f"{damaged} ({error})") from error
            start = end + 1
            yield record, start


def _entry(number: int, records: Iterator[tuple[AnyRecord, int]]) -> Entry:
    """What the records say together. JournalError where they contradict each other or the plan."""
    damaged = f"{_name(number)} contradicts itself, so it is not believed: look at it, undo its plan by hand, remove it"
    entry: Entry | None = None
    for record, end in records:
        if entry is None:
            if not isinstance(record, Begun):
                raise JournalError(damaged)
            entry = Entry(number, record.boot, record.plan, [])
        elif not _follows(entry, record):
            raise JournalError(damaged)
        entry.length = end
    if entry is None:
        raise JournalError(f"{_name(number)} is empty: remove it")
    return entry


def _follows(entry: Entry, record: AnyRecord) -> bool:
    """Takes a record into an entry; whether it can follow what came before."""
    steps, operations = entry.steps, entry.plan.operations
    last = steps[-1] if steps else None
    is_open = last is not None and not last.done
    forward = not entry.applied and not entry.going_back
    if isinstance(record, Intent | Skipped):
        if not forward or is_open or record.operation != len(steps) or record.operation >= len(operations):
            return False
        if isinstance(record, Skipped):
            steps.append(Step(record.operation, None, done=True, result=record.result))
            return True
        steps.append(Step(record.operation, record.image))
        return isinstance(record.image, effect_of(operations[record.operation]).images)
    if isinstance(record, Done):
        if not forward or last is None or last.done or record.operation != last.operation:
            return False
        last.done, last.result = True, record.result
        return True
    if isinstance(record, Applied):
        if not forward or is_open or len(steps) != len(operations):
            return False
        entry.applied = True
        return True
    if isinstance(record, GoingBack):
        if entry.going_back:
            return False
        entry.going_back = True
        return True
    if isinstance(record, Undone):
        left = [step for step in reversed(steps) if step.image is not None and not step.undone]
        if not entry.going_back or not left or left[0].operation != record.operation:
            return False
        left[0].undone = True
        return True
    return False
