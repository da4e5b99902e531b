# SPDX-License-Identifier: MIT
"""Names of vendors, devices, subsystems and classes, from the pci.ids file of the distribution (package pci.ids).

Source: the format's description at the head of pci.ids itself. The file has 36,000 lines and a machine needs a hundred
names, so no line costs any Python of its own: the text is cut into vendors and, of a vendor that is asked for, into
devices. Each piece begins with its number and its name; what belongs to it follows, a tab deeper.
"""

from __future__ import annotations

import os
import re
from functools import cache
from typing import Final

import msgspec

from dom0kit.pci.function import Function

PLACES: Final = ("/usr/share/misc/pci.ids", "/usr/share/hwdata/pci.ids", "/usr/share/pci.ids")
"""Where distributions put the file: Debian and Ubuntu, then Fedora and Arch, then others."""

_LIMIT: Final = 16 << 20  # bytes; ten times today's file
_VENDOR: Final = re.compile(rb"\n(?=[0-9a-f]{4}  )")
_CLASS: Final = re.compile(rb"\nC (?=[0-9a-f]{2}  )")
_WITHIN: Final = re.compile(rb"\n\t(?=[0-9a-f])")
"""What stands before a device of a vendor, or a sub-class of a class."""


class ClassNames(msgspec.Struct, frozen=True):
    """What a class code means; None where pci.ids does not know."""

    base: str | None
    subclass: str | None
    interface: str | None


class PciIds:
    """The names in one pci.ids text. Every question is answered None where the text has no name."""

    def __init__(self, text: bytes) -> None:
        start = max(text.rfind(b"\nC 00  "), 0) or len(text)
        self._vendors = _pieces(_VENDOR, b"\n" + text[:start], 6)
        self._classes = _pieces(_CLASS, text[start:], 4)
        self._devices: dict[int, dict[bytes, bytes]] = {}
        self._class_names: dict[int, ClassNames] = {}

    def vendor(self, vendor: int) -> str | None:
        """Name of a vendor (16 bits)."""
        return _name(self._vendors.get(b"%04x  " % vendor))

    def device(self, vendor: int, device: int) -> str | None:
        """Name of a device, without the vendor's."""
        return _name(self._device(vendor, device))

    def subsystem(self, vendor: int, device: int, subsystem_vendor: int, subsystem: int) -> str | None:
        """Name of a subsystem; where it is not listed but bears the device's own numbers, the device's name."""
        piece = self._device(vendor, device)
        name = _below(piece, b"\n\t\t%04x %04x  " % (subsystem_vendor, subsystem))
        if name is None and (vendor, device) == (subsystem_vendor, subsystem):
            name = _name(piece)
        return name

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
        base = self._classes.get(b"%02x  " % (class_code >> 16))
        subclass = _pieces(_WITHIN, base or b"", 4).get(b"%02x  " % (class_code >> 8 & 0xFF))
        return ClassNames(_name(base), _name(subclass), _below(subclass, b"\n\t\t%02x  " % (class_code & 0xFF)))

    def _device(self, vendor: int, device: int) -> bytes | None:
        devices = self._devices.get(vendor)
        if devices is None:
            devices = _pieces(_WITHIN, self._vendors.get(b"%04x  " % vendor, b""), 6)
            self._devices[vendor] = devices
        return devices.get(b"%04x  " % device)


def _pieces(separator: re.Pattern[bytes], text: bytes, width: int) -> dict[bytes, bytes]:
    """The pieces behind each separator, by the number and two blanks, `width` bytes, that a piece begins with."""
    return {piece[:width]: piece for piece in separator.split(text)[1:]}  # before the first: what they all belong to


def _name(piece: bytes | None) -> str | None:
    """The name at the head of a piece, behind its number."""
    return _below(piece, b"  ")


def _below(piece: bytes | None, key: bytes) -> str | None:
    """The rest of the line behind the first `key` in a piece."""
    start = piece.find(key) if piece is not None else -1
    if piece is None or start < 0:
        return None
    start += len(key)
    end = piece.find(b"\n", start)
    return piece[start : end if end >= 0 else len(piece)].decode(errors="replace").strip() or None


@cache
def names(places: tuple[str | os.PathLike[str], ...] = PLACES) -> PciIds:
    """The names of the first pci.ids that is there, read once; without one, a `PciIds` that knows no name."""
    for place in places:
        try:
            with open(place, "rb") as file:
                return PciIds(file.read(_LIMIT))
        except OSError:
            continue
    return PciIds(b"")
