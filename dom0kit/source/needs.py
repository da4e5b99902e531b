# SPDX-License-Identifier: MIT
"""What this machine's own Linux cannot do without: disks it runs from, the way to its network, its console.

Unlike a source this is not part of a machine's picture: it is asked of the running kernel only, when somebody is about
to take devices away from it. Nothing is written.

Sources: Linux Documentation/filesystems/proc.rst (mountinfo, swaps, net/route), Documentation/ABI/testing/sysfs-bus-pci
(boot_vga), sysfs-class-net; links below /sys/dev/block, /sys/class/net and /sys/class/tty lead to the device's folder,
which has the addresses of all PCI functions above it in its path.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Final

import msgspec

from dom0kit.address import Sbdf

_MOST: Final = 1 << 20
"""Bytes of a file that are read."""
_DEEP: Final = 16
"""Block or network devices on top of each other."""
_ADDRESS: Final = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")


class Need(msgspec.Struct, frozen=True, order=True):
    """A PCI function that the running system uses."""

    function: Sbdf
    use: str
    """As a clause: ``has the file system mounted at /``."""


def needs(root: str = "/") -> tuple[Need, ...]:
    """Of the Linux whose /proc and /sys lie below a root; ascending, each once."""
    return tuple(sorted(set(_Needs(root).all())))


class _Needs:
    def __init__(self, root: str) -> None:
        self._root = os.path.realpath(root)

    def all(self) -> Iterator[Need]:
        yield from self._disks()
        yield from self._network()
        yield from self._console()

    # --- disks ---

    def _disks(self) -> Iterator[Need]:
        for line in self._lines("proc/self/mountinfo"):
            fields = line.split(" ")
            if len(fields) < 10 or "-" not in fields[6:]:
                continue
            device, use = fields[2], f"has the file system mounted at {_plain(fields[4])}"
            kind, source, *_ = [*fields[fields.index("-", 6) + 1 :], "", ""]
            if kind == "9p":
                yield from self._shared(source, use)
            elif device.startswith("0:"):  # btrfs and the like, and what is no disk at all
                device = self._number(source)
            yield from self._block(device, use)
        for line in self._lines("proc/swaps")[1:]:
            name = line.split(" ", 1)[0]
            yield from self._block(self._number(name), f"has swap space on {_plain(name)}")

    def _shared(self, tag: str, use: str) -> Iterator[Need]:
        """A folder of a virtual machine's host, by its mount tag."""
        drivers = "sys/bus/virtio/drivers/9pnet_virtio"
        for name in self._names(os.path.join(self._root, drivers)):
            if [line.rstrip("\0") for line in self._lines(f"{drivers}/{name}/mount_tag")] == [tag]:
                yield from self._above(os.path.join(self._root, drivers, name), use)

    def _number(self, path: str) -> str:
        """``8:1`` of ``/dev/sda1``."""
        if not path.startswith("/dev/"):
            return ""
        name = os.path.basename(os.path.realpath(os.path.join(self._root, path[1:])))
        return (self._lines(f"sys/class/block/{name}/dev") or [""])[0]

    def _block(self, device: str, use: str, depth: int = 0) -> Iterator[Need]:
        if not re.fullmatch(r"[0-9]{1,8}:[0-9]{1,8}", device) or depth > _DEEP:
            return
        folder = os.path.join(self._root, "sys/dev/block", device)
        yield from self._above(folder, use)
        for name in self._names(os.path.join(folder, "slaves")):
            below = (self._lines(f"sys/class/block/{name}/dev") or [""])[0]
            yield from self._block(below, use, depth + 1)

    # --- network ---

    def _network(self) -> Iterator[Need]:
        for line in self._lines("proc/net/route")[1:]:
            fields = line.split()
            if len(fields) >= 8 and fields[1] == fields[7] == "00000000":
                yield from self._interface(fields[0], f"is the way to the network ({_plain(fields[0])})")
        for line in self._lines("proc/net/ipv6_route"):
            fields = line.split()
            if len(fields) >= 10 and fields[0].strip("0") == "" and fields[1] == "00" and fields[9] != "lo":
                yield from self._interface(fields[9], f"is the way to the network ({_plain(fields[9])})")

    def _interface(self, name: str, use: str, depth: int = 0) -> Iterator[Need]:
        if "/" in name or name.startswith(".") or depth > _DEEP:
            return
        folder = os.path.join(self._root, "sys/class/net", name)
        yield from self._above(os.path.join(folder, "device"), use)
        for each in self._names(folder):
            if each.startswith("lower_"):  # of bridges, bonds and VLANs
                yield from self._interface(each.removeprefix("lower_"), use, depth + 1)

    # --- console ---

    def _console(self) -> Iterator[Need]:
        for name in " ".join(self._lines("sys/class/tty/console/active")).split():
            if "/" not in name and not name.startswith("."):
                folder = os.path.join(self._root, "sys/class/tty", name, "device")
                yield from self._above(folder, f"is the console {_plain(name)}")
        functions = os.path.join(self._root, "sys/bus/pci/devices")
        for name in self._names(functions):
            if _ADDRESS.fullmatch(name) and self._lines(f"sys/bus/pci/devices/{name}/boot_vga")[:1] == ["1"]:
                yield Need(Sbdf.parse(name), "shows the console (it is the boot VGA)")

    # --- how ---

    def _above(self, folder: str, use: str) -> Iterator[Need]:
        """The function nearest above a folder of /sys."""
        if os.path.exists(folder):
            addresses = [part for part in os.path.realpath(folder).split(os.sep) if _ADDRESS.fullmatch(part)]
            if addresses:
                yield Need(Sbdf.parse(addresses[-1]), use)

    def _lines(self, path: str) -> list[str]:
        try:
            with open(os.path.join(self._root, path), "rb") as file:
                return file.read(_MOST).decode("utf-8", "replace").splitlines()
        except OSError:
            return []

    def _names(self, folder: str) -> list[str]:
        try:
            return sorted(os.listdir(folder))
        except OSError:
            return []


def _plain(text: str) -> str:
    return text[:200]
