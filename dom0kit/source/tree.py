# SPDX-License-Identifier: MIT
"""A machine as a tree of the kernel's small files: this machine's own, or a copy of one in a folder.

Layout: Linux Documentation/ABI/testing/sysfs-bus-pci, sysfs-firmware-acpi, Documentation/filesystems/proc.rst.
What belongs to the picture is in `contents`.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Container, Iterator, Sequence
from itertools import islice
from typing import Final

from dom0kit.address import Sbdf
from dom0kit.finding import Finding
from dom0kit.source import contents
from dom0kit.source.findings import ASLEEP, DUPLICATE, NEEDS_ROOT, TOO_MUCH, UNREADABLE_FILE, Findings
from dom0kit.source.interface import RawFunction, RawTable, SourceKind

MAX_FILE: Final = 16 << 20
MAX_ATTRIBUTE: Final = 64 << 10
MAX_ATTRIBUTES: Final = 1 << 20
MAX_FUNCTIONS: Final = 65536
MAX_TABLES: Final = 1024
MAX_TABLE_BYTES: Final = 32 << 20
"""Of all tables together."""
MAX_CONFIG: Final = 4096

ATTRIBUTES_FILE: Final = "attributes"
"""In a recording, all attributes of a function in one file (see `attributes_text`)."""

TABLE_NAME: Final = re.compile(r"[!-.0-~]{1,16}")
_CPUINFO: Final = frozenset(
    (
        b"processor",
        b"vendor_id",
        b"cpu family",
        b"model",
        b"model name",
        b"stepping",
        b"physical id",
        b"core id",
        b"apicid",
        b"initial apicid",
        b"flags",
    )
)
_LOG_LINE: Final = re.compile(rb"IO-?APIC|INT_SRC_OVR")


class FileTree:
    """Files below a folder. Only regular files are opened, nothing outside the folder is, and nothing raises.

    `trusted` is for the kernel's own tree, where links lead where they should. With `strip`, paths lose that
    beginning: a folder that is itself a copy of ``/sys`` is a tree with ``sys/`` stripped.
    """

    def __init__(self, root: str, *, trusted: bool = False, strip: str = "") -> None:
        self.root = os.path.realpath(root)
        self.denied: set[str] = set()
        """Paths whose reading was refused for want of rights."""
        self.errors: dict[str, str] = {}
        """Paths whose reading failed otherwise, and why."""
        self._trusted = trusted
        self._strip = strip
        self._folders: dict[str, str | None] = {}

    def read(self, path: str, limit: int = MAX_FILE) -> bytes | None:
        """The first `limit` bytes of a regular file, None where there is none or it cannot be read."""
        try:
            place = self._place(path)
            if place is None:
                return None
            descriptor = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
            try:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    return None
                data = os.read(descriptor, limit)
                # The kernel's text files come a page at a time, and end with an empty read.
                while data and len(data) < limit and (more := os.read(descriptor, limit - len(data))):
                    data += more
                return data
            finally:
                os.close(descriptor)
        except OSError as error:
            self._note(path, error)
        except ValueError:  # a name with a NUL
            pass
        return None

    def size(self, path: str) -> int | None:
        """The size that the file system states, None where there is no such file."""
        try:
            place = self._place(path)
            return None if place is None else os.stat(place).st_size
        except (OSError, ValueError):
            return None

    def names(self, path: str) -> list[str]:
        """Names in a folder, in no order; empty where there is none."""
        try:
            place = self._folder(path)
            if place is None:
                return []
            with os.scandir(place) as entries:
                return [entry.name for entry in islice(entries, MAX_FUNCTIONS + 1)]
        except OSError as error:
            self._note(path, error)
        except ValueError:
            pass
        return []

    def target(self, path: str) -> str | None:
        """What a symbolic link says; None if it is none."""
        folder, _, name = path.rpartition("/")
        try:
            place = self._folder(folder)
            return None if place is None else os.readlink(os.path.join(place, name))
        except (OSError, ValueError):
            return None

    def _place(self, path: str) -> str | None:
        """Where a file is; None if that is no regular file inside the tree."""
        folder, _, name = path.rpartition("/")
        place = self._folder(folder)
        if place is None:
            return None
        place = os.path.join(place, name)
        if self._trusted:
            return place
        mode = os.lstat(place).st_mode
        if stat.S_ISLNK(mode):
            place = os.path.realpath(place, strict=True)
            mode = os.lstat(place).st_mode
        return place if stat.S_ISREG(mode) and self._is_inside(place) else None

    def _folder(self, path: str) -> str | None:
        if self._strip:
            if not (path + "/").startswith(self._strip):
                return None
            path = path[len(self._strip) :]
        if self._trusted:
            return os.path.join(self.root, path)
        if path not in self._folders:
            try:
                place = os.path.realpath(os.path.join(self.root, path), strict=True)
            except OSError as error:
                self._note(path, error)
                self._folders[path] = None
            else:
                self._folders[path] = place if self._is_inside(place) else None
        return self._folders[path]

    def _is_inside(self, place: str) -> bool:
        return place == self.root or place.startswith(self.root.rstrip("/") + "/")

    def _note(self, path: str, error: OSError) -> None:
        if error.errno in (errno.EACCES, errno.EPERM):
            self.denied.add(path)
        elif error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR) and len(self.errors) < MAX_TABLES:
            self.errors[path] = error.strerror or str(error.errno)


def is_sysfs(path: str) -> bool:
    """Whether `path` lies on a kernel's own sysfs, where reading can have effects."""
    try:
        number = os.stat(path).st_dev
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
            wanted = f"{os.major(number)}:{os.minor(number)}"
            return any(f" {wanted} " in line and " - sysfs " in line for line in mounts)
    except (OSError, ValueError):
        return False


class TreeSource:
    """What a `FileTree` holds, as a source.

    `spare` leaves functions that are asleep alone (the tree is a kernel's own). `kernel_log` gives the kernel's log
    where there is no file ``dmesg``.
    """

    def __init__(
        self,
        tree: FileTree,
        name: str,
        *,
        kind: SourceKind = SourceKind.SYSFS_TREE,
        spare: bool = False,
        kernel_log: Callable[[], bytes | None] | None = None,
        functions: str = contents.FUNCTIONS,
    ) -> None:
        self.name = name
        self.kind = kind
        self.is_live = kind is SourceKind.LIVE
        self._tree = tree
        self._spare = spare
        self._kernel_log = kernel_log
        self._folder = functions
        self._findings = Findings()
        self._tables: tuple[RawTable, ...] | None = None
        self._asleep: set[Sbdf] = set()
        self._twice: set[Sbdf] = set()
        self._short = False
        self._zeroed = False

    @property
    def findings(self) -> Sequence[Finding]:
        own = Findings()
        tables = sum(path.startswith(contents.TABLES) for path in self._tree.denied)
        others = sorted(path for path in self._tree.denied if not path.startswith(contents.TABLES))
        missing = [f"{tables} ACPI table{'s' if tables > 1 else ''}"] if tables else []
        if self._short:
            missing.append("config space beyond byte 64")
        if self._zeroed:
            missing.append("addresses in proc/iomem and proc/ioports")
        missing += others[:8] + ([f"{len(others) - 8} more files"] if len(others) > 8 else [])
        if missing:
            own.add(NEEDS_ROOT, "source", f"not readable by this user: {', '.join(missing)}")
        for path, why in sorted(self._tree.errors.items()):
            own.add(UNREADABLE_FILE, f"file:{path}", f"reading {path} failed: {why}")
        return (*self._findings.all(), *own.all())

    def tables(self) -> Sequence[RawTable]:
        if self._tables is None:
            static = self._tables_in(contents.TABLES, dynamic=False)
            dynamic = self._tables_in(contents.TABLES + "/dynamic", dynamic=True)
            self._tables = (*static, *dynamic)
        return self._tables

    def _tables_in(self, folder: str, *, dynamic: bool) -> Iterator[RawTable]:
        names = sorted(filter(TABLE_NAME.fullmatch, self._tree.names(folder)), key=natural)
        if len(names) > MAX_TABLES:
            self._findings.add(TOO_MUCH, "source", f"{len(names)} ACPI tables; the first {MAX_TABLES} are read")
        left = MAX_TABLE_BYTES
        for name in names[:MAX_TABLES]:
            data = self._tree.read(f"{folder}/{name}")
            if data is not None and (left := left - len(data)) < 0:
                self._findings.add(TOO_MUCH, "source", f"ACPI tables of more than {MAX_TABLE_BYTES >> 20} MiB")
                return
            if data is not None:
                yield RawTable(name, data, dynamic)

    def functions(self, only: Container[Sbdf] | None = None) -> Iterator[RawFunction]:
        """`only`: the others are not read."""
        states: dict[str, str | None] = {}
        for address, name in self._addresses():
            if only is None or address in only:
                yield self._function(address, name, states)

    def addresses(self) -> Sequence[Sbdf]:
        """Where functions are, ascending: by their names alone, none of them is read."""
        return [address for address, _ in self._addresses()]

    def _addresses(self) -> Sequence[tuple[Sbdf, str]]:
        addresses: dict[Sbdf, str] = {}
        names = self._tree.names(self._folder)
        if len(names) > MAX_FUNCTIONS:
            self._findings.add(TOO_MUCH, "source", f"more than {MAX_FUNCTIONS} PCI functions; the rest is left out")
        for name in sorted(names[:MAX_FUNCTIONS]):
            try:
                address = Sbdf.parse(name)
            except ValueError:
                continue
            if addresses.setdefault(address, name) != name and address not in self._twice:
                self._twice.add(address)
                self._findings.add(DUPLICATE, f"pci:{address}", f"{addresses[address]!r} and {name!r} are one function")
        return sorted(addresses.items())

    def _function(self, address: Sbdf, name: str, states: dict[str, str | None]) -> RawFunction:
        folder = f"{self._folder}/{name}"
        names = set(self._tree.names(folder))
        if ATTRIBUTES_FILE in names:  # a recording that somebody unpacked
            text = self._tree.read(f"{folder}/{ATTRIBUTES_FILE}") or b""
            config = self._tree.read(f"{folder}/config", MAX_CONFIG) if "config" in names else None
            return RawFunction(address, config or b"", attributes_of(text))

        attributes: dict[str, str] = {}
        above = _addresses_in(self._tree.target(folder))
        asleep = self._spare and self._is_asleep(folder, name, above, states)
        for attribute in sorted(names & contents.ATTRIBUTES):
            if not (asleep and attribute in contents.TOUCHING):
                self._take(attributes, attribute, f"{folder}/{attribute}")
        for attribute in sorted(names):
            if attribute in contents.LINKS or contents.is_virtual_function(attribute):
                target = self._tree.target(f"{folder}/{attribute}")
                if target is not None:
                    attributes[attribute] = _text(os.fsencode(target.rstrip("/").rpartition("/")[2]))
        if "firmware_node" in names:
            self._take(attributes, "firmware_node", f"{folder}/firmware_node/path")
        if "power" in names:
            self._take(attributes, "runtime_status", f"{folder}/power/runtime_status")
        if "msi_irqs" in names:
            attributes["msi_irqs"] = self._message_interrupts(f"{folder}/msi_irqs")
        if above and above[-1] is not None:
            attributes["parent"] = above[-1]
        if "driver" not in attributes and not self._spare and "uevent" in names:  # a copy that lost its links
            match = re.search(rb"^DRIVER=([\w.-]+)$", self._tree.read(f"{folder}/uevent", 4096) or b"", re.M)
            if match is not None:
                attributes["driver"] = match[1].decode()
        if asleep:
            return RawFunction(address, b"", attributes)
        config = self._tree.read(f"{folder}/config", MAX_CONFIG) or b""
        if len(config) == 64 and self._spare and not self._short:
            self._short = (self._tree.size(f"{folder}/config") or 0) > 64
        return RawFunction(address, config, attributes)

    def _take(self, attributes: dict[str, str], name: str, path: str) -> None:
        data = self._tree.read(path, MAX_ATTRIBUTE)
        if data is not None:
            attributes[name] = _text(data)

    def _message_interrupts(self, folder: str) -> str:
        numbers = sorted(int(name) for name in self._tree.names(folder) if name.isascii() and name.isdecimal())
        modes = ((number, self._tree.read(f"{folder}/{number}", 64)) for number in numbers[:MAX_CONFIG])
        return "\n".join(f"{number} {_text(mode or b'')}".rstrip() for number, mode in modes)

    def _is_asleep(self, folder: str, name: str, above: Sequence[str | None], states: dict[str, str | None]) -> bool:
        """Whether reading config space would wake something (Linux's pci_config_pm_runtime_get resumes the bridge
        above, and the function itself when it is in D3cold; none of the files read here does)."""
        state = _text(self._tree.read(f"{folder}/power_state", 64) or b"")
        why = ""
        if state == "D3cold":
            why = "the function is in D3cold"
        elif state in ("", "unknown", "error") and self._runtime_status(name, states) == "suspended":
            why = "the function is suspended and its power state unknown"
        for bridge in above:
            if bridge is not None and self._runtime_status(bridge, states) in ("suspended", "suspending"):
                why = f"the bridge {bridge} above it is suspended"
        address = Sbdf.parse(name)
        if why and address not in self._asleep:
            self._asleep.add(address)
            self._findings.add(ASLEEP, f"pci:{address}", f"not read: {why}")
        return bool(why)

    def _runtime_status(self, name: str, states: dict[str, str | None]) -> str | None:
        if name not in states:
            data = self._tree.read(f"{self._folder}/{name}/power/runtime_status", 64)
            states[name] = None if data is None else _text(data)
        return states[name]

    def file(self, path: str) -> bytes | None:
        if not contents.is_file(path):
            return None
        if path == contents.MEMORY_BLOCKS:
            return self._tree.read(path) or self._memory_blocks()
        data = self._tree.read(path)
        if data is None and path == contents.KERNEL_LOG and self._kernel_log is not None:
            data = self._kernel_log()
        if data is None:
            return None
        if path == contents.KERNEL_LOG:
            return b"".join(line for line in data.splitlines(keepends=True) if _LOG_LINE.search(line)) or None
        if path == contents.CPUINFO:
            return _only(data, lambda key: not key or key in _CPUINFO)
        if path.endswith("/meminfo"):
            return _only(data, lambda key: key.endswith(b" MemTotal"))
        if (
            self.is_live
            and path in ("proc/iomem", "proc/ioports")
            and not re.search(rb"^ *[0-9a-f-]*[1-9a-f]", data, re.M)
        ):
            self._zeroed = True  # what the kernel tells those who may not know addresses
            return None
        return data

    def names(self, path: str) -> Sequence[str]:
        return contents.names_within(path, self._tree.names(path))

    def _memory_blocks(self) -> bytes | None:
        folder = contents.MEMORY_BLOCKS.rpartition("/")[0]
        numbers = [
            int(name[6:])
            for name in self._tree.names(folder)
            if name.startswith("memory") and name[6:].isascii() and name[6:].isdecimal()
        ]
        ranges: list[tuple[int, int, str]] = []
        for number in sorted(numbers):
            state = _text(self._tree.read(f"{folder}/memory{number}/state", 64) or b"")
            if ranges and ranges[-1][1] == number - 1 and ranges[-1][2] == state:
                ranges[-1] = (ranges[-1][0], number, state)
            else:
                ranges.append((number, number, state))
        return "".join(f"{first}-{last} {state}\n" for first, last, state in ranges).encode() or None


def natural(name: str) -> tuple[str, int]:
    """Sort key: ``SSDT2`` before ``SSDT10``."""
    stem = name.rstrip("0123456789")
    return stem, int(name[len(stem) :][:9] or 0)


def attributes_text(attributes: dict[str, str]) -> bytes:
    """One ``name: value`` a line, sorted; further lines of a value are indented by one blank."""
    return "".join(
        f"{name}: {value.replace(chr(10), chr(10) + ' ')}\n" for name, value in sorted(attributes.items())
    ).encode("ascii", "replace")


def attributes_of(text: bytes) -> dict[str, str]:
    """The attributes that `attributes_text` wrote; other lines and names are passed over."""
    attributes: dict[str, list[str]] = {}
    last: list[str] = []
    for line in text[:MAX_ATTRIBUTES].decode("ascii", "replace").replace("\ufffd", "?").split("\n"):
        name, colon, value = line.partition(": ")
        if line.startswith(" "):
            last.append(line[1:])
        elif colon and contents.is_attribute(name):
            attributes[name] = last = [value]
        else:
            last = []
    return {name: "\n".join(lines) for name, lines in attributes.items()}


def _text(data: bytes) -> str:
    """The kernel's text as ASCII; lines end with \\n alone, trailing blanks of lines are gone."""
    text = data.decode("ascii", "replace").replace("\ufffd", "?")
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def _addresses_in(target: str | None) -> list[str | None]:
    """The components above the function in ``../../../devices/pci0000:00/0000:00:1c.0/0000:01:00.0``.

    Functions as text, others (a host bridge) None, outermost first.
    """
    found: list[str | None] = []
    for part in (target or "").split("/")[:-1]:
        try:
            found.append(str(Sbdf.parse(part)))
        except ValueError:
            found.append(None)
    return found


def _only(data: bytes, wanted: Callable[[bytes], bool]) -> bytes:
    lines = data.splitlines(keepends=True)
    return b"".join(line for line in lines if wanted(line.partition(b":")[0].strip()))
