# SPDX-License-Identifier: MIT
"""A path to a source: what lies there is recognised by what is in it, not by its name."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from typing import Final

from dom0kit.address import Sbdf
from dom0kit.source import contents
from dom0kit.source.errors import UnreadableSource
from dom0kit.source.interface import Source

_CHUNK: Final = 1 << 16  # a buffer of this size is used again and again; a larger one is new memory each time
_BOM: Final = b"\xef\xbb\xbf"
_MAX_TEXT: Final = 256 << 20
_MAX_ACPIDUMP: Final = 32 << 20


def open_source(path: str | os.PathLike[str], *, wake: bool = False) -> Source:
    """What lies at `path`: a recording, a folder of tables, a sysfs tree, acpidump or lspci text.

    ``/`` and ``/sys`` are this machine; `wake` counts only for it. UnreadableSource says in one sentence why not.
    Nothing but regular files and folders is opened.
    """
    path = os.fspath(path)
    name = os.fsencode(path).decode("utf-8", "replace").replace("\0", "?")
    try:
        if "\0" in path:
            raise FileNotFoundError
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            return _folder(path, name, wake)
        if not stat.S_ISREG(mode):
            raise UnreadableSource(f"{name} is neither a file nor a folder.")
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise UnreadableSource(f"{name} is neither a file nor a folder.")
            return _file(name, descriptor, status.st_size)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise UnreadableSource(f"{name} does not exist.") from None
    except OSError as error:
        raise UnreadableSource(f"{name} cannot be read: {error.strerror}.") from error


def combine(*, acpi: str | os.PathLike[str], pci: str | os.PathLike[str]) -> Source:
    """The tables of one path with the PCI functions of another. UnreadableSource if one of them has none."""
    from dom0kit.source.in_memory import CombinedSource

    tables, functions = open_source(acpi), open_source(pci)
    if not tables.tables():
        raise UnreadableSource(f"{tables.name} holds no ACPI tables.")
    if next(functions.functions(), None) is None:
        raise UnreadableSource(f"{functions.name} holds no PCI functions.")
    return CombinedSource(tables, functions)


def _file(name: str, descriptor: int, size: int) -> Source:
    head = os.read(descriptor, _CHUNK)
    if not head:
        raise UnreadableSource(f"{name} is empty.")

    def chunks() -> Iterator[bytes]:
        yield head.removeprefix(_BOM)
        total = len(head)
        while total < _MAX_TEXT and (chunk := os.read(descriptor, _CHUNK)):
            total += len(chunk)
            yield chunk

    if head.startswith(b"\x1f\x8b"):
        from dom0kit.source.recording import read_recording

        return read_recording(name, chunks())
    from dom0kit.source import dumps
    from dom0kit.source.tree import MAX_FILE

    if dumps.looks_like_table(head, size):
        if size > MAX_FILE:
            raise UnreadableSource(f"{name} is larger than any ACPI table.")
        return dumps.read_table(name, b"".join(chunks()))
    text = chunks()
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):  # PowerShell's redirection
        if size > _MAX_ACPIDUMP:
            raise UnreadableSource(f"{name} is larger than {_MAX_ACPIDUMP >> 20} MiB.")
        whole = b"".join(text).decode("utf-16", "replace").encode("ascii", "replace")
        head, text = whole[:_CHUNK], iter((whole,))
    head = head.removeprefix(_BOM).replace(b"\r", b"")
    if b"@ " in head and re.search(dumps.TABLE_LINE, head):
        if size > _MAX_ACPIDUMP:
            raise UnreadableSource(f"{name} is larger than any acpidump text.")
        return dumps.read_acpidump(name, b"".join(text))
    if dumps.FUNCTION_LINE.search(head):
        if size > _MAX_TEXT:
            raise UnreadableSource(f"{name} is larger than any lspci text.")
        return dumps.read_lspci(name, text)
    kind = "binary data" if b"\0" in head else "text"
    raise UnreadableSource(
        f"{name} is {kind} of no known form (a dom0kit recording, acpidump text, lspci -xxxx text, an ACPI table)."
    )


def _folder(path: str, name: str, wake: bool) -> Source:
    from dom0kit.source.tree import FileTree, TreeSource, is_sysfs

    if os.path.realpath(path) in ("/", "/sys"):
        from dom0kit.source.live import live

        return live(wake=wake)
    spare = not wake and (is_sysfs(path) or is_sysfs(os.path.join(path, "sys")))
    tree = FileTree(path)
    if tree.names(contents.TABLES) or tree.names(contents.FUNCTIONS):
        return TreeSource(tree, name, spare=spare)
    inside = FileTree(path, strip="sys/")
    if inside.names(contents.TABLES) or inside.names(contents.FUNCTIONS):
        return TreeSource(inside, name, spare=spare)
    names = tree.names("")
    if any(_is_function(entry) and tree.names(entry) for entry in names):
        return TreeSource(tree, name, functions=".", spare=spare)
    from dom0kit.source.dumps import read_table_folder, table_files

    if table_files(names) or table_files(tree.names("dynamic")):
        return read_table_folder(name, tree)
    if "" in tree.denied:
        raise UnreadableSource(f"{name} cannot be read: Permission denied.")
    if not names:
        raise UnreadableSource(f"{name} is an empty folder.")
    raise UnreadableSource(
        f"{name} holds neither ACPI tables (*.dat, sys/firmware/acpi/tables) nor PCI functions (sys/bus/pci/devices)."
    )


def _is_function(name: str) -> bool:
    try:
        Sbdf.parse(name)
    except ValueError:
        return False
    return True
