# SPDX-License-Identifier: MIT
"""This machine, now, through the kernel's own files. Nothing is written, woken or switched on.

A function that is asleep is not read unless told so (`tree`). Files that are left out, and why: `contents`.
"""

from __future__ import annotations

import os
import re
from typing import Final

from dom0kit.source import contents
from dom0kit.source.errors import UnreadableSource
from dom0kit.source.interface import SourceKind
from dom0kit.source.tree import FileTree, TreeSource

MAX_LOG_RECORDS: Final = 1 << 18


def live(*, wake: bool = False) -> TreeSource:
    """This machine. With `wake`, functions that are asleep are read too, which wakes them.

    UnreadableSource where it shows neither ACPI tables nor a PCI bus, as in a container.
    """
    tree = FileTree("/", trusted=True)
    if not tree.names(contents.TABLES) and not tree.names(contents.FUNCTIONS):
        raise UnreadableSource(
            f"This machine shows neither ACPI tables (/{contents.TABLES}) nor a PCI bus (/{contents.FUNCTIONS})."
        )

    def log() -> bytes | None:
        try:
            return kernel_log()
        except PermissionError:
            tree.denied.add("dev/kmsg")
        except OSError:
            pass  # no log in this container
        return None

    return TreeSource(tree, "this machine", kind=SourceKind.LIVE, spare=not wake, kernel_log=log)


def kernel_log() -> bytes:
    """Every message in the kernel's log (Documentation/ABI/testing/dev-kmsg: one record a read)."""
    descriptor = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    lines = []
    try:
        for _ in range(MAX_LOG_RECORDS):
            try:
                record = os.read(descriptor, 8192)
            except BlockingIOError:
                break
            except BrokenPipeError:  # overwritten while we read; the next read goes on behind the gap
                continue
            message = record.partition(b"\n")[0].partition(b";")[2]
            lines.append(re.sub(rb"[^\x20-\x7e]", b"?", message) + b"\n")
    finally:
        os.close(descriptor)
    return b"".join(lines)
