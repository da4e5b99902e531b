# SPDX-License-Identifier: MIT
"""Names of vendors, devices, subsystems and classes, from the pci.ids file of the distribution (package pci.ids).

Source: the format's description at the head of pci.ids itself. The file has 36,000 lines and a machine needs a hundred
names, so nothing is parsed: each number is searched for when it is asked for. Vendors, and devices of a vendor, are in
ascending order, so what was found before bounds the search for the next.
"""

from __future__ import annotations

import mmap
import os
import re
from bisect import bisect_left
from functools import cache
from typing import Final

import msgspec

from dom0kit.pci.function import Function

PLACES: Final = ("/usr/share/misc/pci.ids", "/usr/share/hwdata/pci.ids", "/usr/share/pci.ids")
"""Where distributions put the file: Debian and Ubuntu, then Fedora and Arch, then others."""

_LIMIT: Final = 16 << 20  # bytes; ten times today's file
_NEXT_VENDOR: Final = re.compile(rb"\n[^\t#\n]")
_NEXT_DEVICE: Final = re.compile(rb"\n\t?[^\t#\n]")


class ClassNames(msgspec.Struct, frozen=True):
    """What a class code means; None where pci.ids does not know."""

    base: str | None
    subclass: str | None
    interface: str | None


class _Ascending:
    """Lines of one level between two places of the text, their numbers ascending: found by search, and kept."""

    def __init__(self, text: bytes | mmap.mmap, start: int, end: int, prefix: bytes) -> None:
        self._text = text
        self._prefix = prefix
        self._numbers = [-1, 1 << 16]
        self._places = [start, end]
        self._absent: set[int] = set()

    def find(self, number: int) -> int | None:
        """Where the name of this number begins."""
        at = bisect_left(self._numbers, number)
        if self._numbers[at] == number:
            return self._places[at]
        if number in self._absent:
            return None
        key = b"%b%04x  " % (self._prefix, number)
        found = self._text.find(key, self._places[at - 1], self._places[at])
        if found < 0:
            self._absent.add(number)
            return None
        place = found + len(key)
        self._numbers.insert(at, number)
        self._places.insert(at, place)
        return place


class PciIds:
    """The names in one pci.ids text. Every question is answered None where the text has no name."""

    def __init__(self, text: bytes | mmap.mmap) -> None:
        self._text = text if text[:1] == b"#" else b"\n" + text[:]
        self._classes = max(self._text.rfind(b"\nC 00  "), 0) or len(self._text)
        self._vendors = _Ascending(self._text, 0, self._classes, b"\n")
        self._devices: dict[int, _Ascending] = {}
        self._class_names: dict[int, ClassNames] = {}

    def vendor(self, vendor: int) -> str | None:
        """Name of a vendor (16 bits)."""
        return self._line(self._vendors.find(vendor))

    def device(self, vendor: int, device: int) -> str | None:
        """Name of a device, without the vendor's."""
        return self._line(self._device(vendor, device))

    def subsystem(self, vendor: int, device: int, subsystem_vendor: int, subsystem: int) -> str | None:
        """Name of a subsystem; where it is not listed but bears the device's own numbers, the device's name."""
        place = self._device(vendor, device)
        if place is None:
            return None
        name = self._within(place, _NEXT_DEVICE, b"\n\t\t%04x %04x  " % (subsystem_vendor, subsystem))
        if name is None and (vendor, device) == (subsystem_vendor, subsystem):
            name = place
        return self._line(name)

    def class_names(self, class_code: int) -> ClassNames:
        """Names of base class, sub-class and programming interface of a 24-bit class code."""
        answer = self._class_names.get(class_code)
        if answer is None:
            answer = self._class_names[class_code] = self._find_class(class_code)
        return answer

    def describe(self, function: Function) -> str:
        """A function in one line: ``Host bridge: Intel Corporation 82945G/GZ/P/PL Memory Controller Hub``."""
        names = self.class_names(function.class_code)
        kind = names.subclass or names.base or f"class {function.class_code:06x}"
        vendor = self.vendor(function.vendor)
        if vendor is None:
            return f"{kind}: {function.vendor:04x}:{function.device:04x}"
        device = self.device(function.vendor, function.device)
        return f"{kind}: {vendor} {device or f'device {function.device:04x}'}"

    def _find_class(self, class_code: int) -> ClassNames:
        key = b"\nC %02x  " % (class_code >> 16 & 0xFF)
        found = self._text.find(key, self._classes)
        base = found + len(key) if found >= 0 else None
        subclass = interface = None
        if base is not None:
            subclass = self._within(base, _NEXT_VENDOR, b"\n\t%02x  " % (class_code >> 8 & 0xFF))
        if subclass is not None:
            interface = self._within(subclass, _NEXT_DEVICE, b"\n\t\t%02x  " % (class_code & 0xFF))
        return ClassNames(self._line(base), self._line(subclass), self._line(interface))

    def _device(self, vendor: int, device: int) -> int | None:
        devices = self._devices.get(vendor)
        if devices is None:
            start = self._vendors.find(vendor)
            if start is None:
                return None
            devices = _Ascending(self._text, start, self._end(start, _NEXT_VENDOR), b"\n\t")
            self._devices[vendor] = devices
        return devices.find(device)

    def _end(self, start: int, following: re.Pattern[bytes]) -> int:
        match = following.search(self._text, start)
        return match.start() if match else len(self._text)

    def _within(self, start: int, following: re.Pattern[bytes], key: bytes) -> int | None:
        found = self._text.find(key, start, self._end(start, following))
        return found + len(key) if found >= 0 else None

    def _line(self, place: int | None) -> str | None:
        if place is None:
            return None
        end = self._text.find(b"\n", place)
        return self._text[place : end if end >= 0 else len(self._text)].decode(errors="replace").strip()


@cache
def names(places: tuple[str | os.PathLike[str], ...] = PLACES) -> PciIds:
    """The names of the first pci.ids that is there, read once; without one, a `PciIds` that knows no name."""
    for place in places:
        try:
            with open(place, "rb") as file:
                size = min(os.fstat(file.fileno()).st_size, _LIMIT)
                return PciIds(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ))
        except (OSError, ValueError):  # absent; empty
            continue
    return PciIds(b"")
