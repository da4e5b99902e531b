# SPDX-License-Identifier: MIT
"""This machine's kernel: its list of functions, and what its slots' drivers read.

Source: Linux, Documentation/ABI/testing/sysfs-bus-pci (devices, slots).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from dom0kit.address import Sbdf
from dom0kit.hypercall.linux import Linux
from dom0kit.source.live import live
from dom0kit.source.tree import TreeSource

_BUS: Final = "sys/bus/pci"


class HotplugLinux(Linux):
    """Linux, and what only hotplug asks of it."""

    def incarnations(self) -> Mapping[Sbdf, int]:
        """The inode of each function's folder: sysfs gives each new folder one that no earlier one had."""
        found: dict[Sbdf, int] = {}
        folder = self._path(f"{_BUS}/devices/.")
        with suppress(OSError):
            for name in os.listdir(folder):
                with suppress(OSError, ValueError):  # it may go while we look
                    found[Sbdf.parse(name)] = os.stat(os.path.join(folder, name)).st_ino
        return found

    def slot(self, name: str, register: str) -> str | None:
        """``power``, ``latch``, ``adapter`` or ``attention`` of a slot, as its driver reads it; None: it has none."""
        return self._maybe(f"{_BUS}/slots/{name}/{register}")


class LiveKernel:
    """What a `Reconciler` needs of this machine."""

    def __init__(self) -> None:
        self.linux = HotplugLinux()

    def open_source(self) -> TreeSource:
        return live()

    def incarnations(self) -> Mapping[Sbdf, int]:
        return self.linux.incarnations()
