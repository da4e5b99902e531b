# SPDX-License-Identifier: MIT
"""What is known of particular devices and machines beyond their registers: isolation, DMA aliases, resets, interrupts.

The facts lie in ``quirks/*.toml`` beside this file, each with its source; their fields are explained there and are
exactly those of the structs below (anything else is an error). They are read when first asked for.
"""

from __future__ import annotations

import enum
import functools
import os.path
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Generic, TypeVar

import msgspec

from dom0kit.pci.function import Function
from dom0kit.pci.topology import PortKind

_FOLDER: Final = os.path.join(os.path.dirname(__file__), "quirks")


class Quirk(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every entry has. An error of type ValueError (msgspec's ValidationError) names a bad one."""

    about: str
    vendor: int
    devices: tuple[str, ...]
    """Hexadecimal ids, ``1c10`` or ``1c10-1c1f``, or ``any``."""
    source: str

    def __post_init__(self) -> None:
        if not (0 <= self.vendor <= 0xFFFF and self.devices and self.about and self.source):
            raise ValueError(f"quirk {self.about!r}: vendor, devices, about and source must be filled in")
        for first, last in self.ranges():
            if not 0 <= first <= last <= 0xFFFF:
                raise ValueError(f"quirk {self.about!r}: no such device ids: {first:x}-{last:x}")

    def ranges(self) -> Iterator[tuple[int, int]]:
        """The device ids, as (first, last)."""
        for text in self.devices:
            if text == "any":
                yield 0, 0xFFFF
            else:
                first, _, last = text.partition("-")
                yield _hexadecimal(first), _hexadecimal(last or first)


def _hexadecimal(text: str) -> int:
    if len(text) != 4 or not set(text) <= set("0123456789abcdef"):
        raise ValueError(f"{text!r} is not four lower-case hexadecimal digits")
    return int(text, 16)


class Isolates(enum.Enum):
    """What isolates the function."""

    HARDWARE = "hardware"
    KERNEL = "kernel"
    DWORDS = "dwords"
    NO = "no"


class IsolationQuirk(Quirk, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Isolation that is not what the ACS capability says."""

    kinds: tuple[PortKind, ...] = ()
    multifunction: bool = False
    root_bus: bool = False
    amd_iommu: bool = False
    isolates: Isolates


class AliasQuirk(Quirk, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Requests with another id."""

    functions: tuple[int, ...] = ()
    addresses: tuple[str, ...] = ()
    all_devices: tuple[int, ...] = ()
    subsystems: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.functions or self.addresses or self.all_devices):
            raise ValueError(f"quirk {self.about!r}: no alias")
        if any(not 0 <= function <= 7 for function in (*self.functions, *self.all_devices)):
            raise ValueError(f"quirk {self.about!r}: no such function")
        for text in self.subsystems:
            vendor, _, subsystem = text.partition(":")
            _hexadecimal(vendor)
            _hexadecimal(subsystem)
        self.devfns(0)

    def devfns(self, devfn: int) -> frozenset[int]:
        """The ids on its bus that a function at `devfn` may use beside its own: device and function in 8 bits."""
        found = {devfn & 0xF8 | function for function in self.functions}
        for text in self.addresses:
            device, _, function = text.partition(".")
            found.add(int(device, 16) << 3 | int(function, 8))
        found |= {device << 3 | function for device in range(32) for function in self.all_devices}
        return frozenset(found - {devfn})


class Method(enum.Enum):
    """A way of resetting that registers promise."""

    FLR = "flr"
    PM = "pm"
    BUS = "bus"


class ResetQuirk(Quirk, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What both kinds of reset quirks have."""

    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for text in self.classes:
            _hexadecimal(text)

    def fits(self, function: Function) -> bool:
        """Whether the class is one of those asked for."""
        return not self.classes or f"{function.class_code >> 8:04x}" in self.classes


class BrokenReset(ResetQuirk, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A method that is not to be used."""

    method: Method
    revisions: tuple[int, ...] = ()
    below_root: bool = False

    def fits(self, function: Function) -> bool:
        """Whether class and revision are among those asked for."""
        return super().fits(function) and (not self.revisions or function.revision in self.revisions)


class SpecificReset(ResetQuirk, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A method of the device's own."""

    needs_flr: bool = False


class RevisedQuirk(Quirk, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One that later revisions do not have."""

    below_revision: int = 0x100

    def fits(self, function: Function) -> bool:
        """Whether the revision is among those that have it."""
        return function.revision < self.below_revision


class Reach(enum.Enum):
    """Whose messages do not arrive."""

    MACHINE = "machine"
    BEHIND = "behind"
    ITSELF = "itself"


class NoMsi(RevisedQuirk, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """MSI that does not work."""

    reach: Reach


class AspmState(enum.Enum):
    """A link power state."""

    L0S = "L0s"
    L1 = "L1"


class BrokenAspm(Quirk, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Link power states that must stay off."""

    states: tuple[AspmState, ...]


class Wrong(enum.Enum):
    """What firmware describes wrongly."""

    WINDOWS = "windows"
    SEGMENTS = "segments"
    MAP = "map"


class MachineQuirk(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A machine, by parts of its names."""

    about: str
    wrong: Wrong
    source: str
    system: str = ""
    product: str = ""
    version: str = ""
    board: str = ""
    firmware: str = ""

    def __post_init__(self) -> None:
        if not (self.about and self.source and (self.system or self.product or self.board)):
            raise ValueError(f"quirk {self.about!r}: about, source and a name of the machine must be filled in")

    def fits(self, *, system: str, product: str, version: str, board: str, firmware: str) -> bool:
        """Whether each part is in the machine's name of that kind."""
        return (
            self.system in system
            and self.product in product
            and self.version in version
            and self.board in board
            and self.firmware in firmware
        )


class IsolationFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``isolation.toml``."""

    isolation: tuple[IsolationQuirk, ...]


class AliasFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``alias.toml``."""

    alias: tuple[AliasQuirk, ...]
    express_bridge: tuple[Quirk, ...]
    proxy: tuple[Quirk, ...]


class ResetFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``reset.toml``."""

    broken: tuple[BrokenReset, ...]
    specific: tuple[SpecificReset, ...]


class IntxFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``intx.toml``."""

    broken_masking: tuple[Quirk, ...]


class MsiFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``msi.toml``."""

    no_msi: tuple[NoMsi, ...]
    disable_stops_msi: tuple[RevisedQuirk, ...]


class FaultFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``faults.toml``."""

    aspm: tuple[BrokenAspm, ...]
    ats: tuple[RevisedQuirk, ...]
    bars: tuple[Quirk, ...]


class MachineFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``machines.toml``."""

    machine: tuple[MachineQuirk, ...]


Q = TypeVar("Q", bound=Quirk)
F = TypeVar("F")


class Index(Generic[Q]):
    """Quirks by vendor and device."""

    def __init__(self, quirks: Iterable[Q]) -> None:
        self._by_vendor: dict[int, list[tuple[int, int, Q]]] = {}
        for quirk in quirks:
            ranges = self._by_vendor.setdefault(quirk.vendor, [])
            ranges += ((first, last, quirk) for first, last in quirk.ranges())

    def of(self, function: Function) -> Sequence[Q]:
        """Those whose ids fit, in the order of the file."""
        ranges = self._by_vendor.get(function.vendor)
        if ranges is None:
            return ()
        device = function.device
        return [quirk for first, last, quirk in ranges if first <= device <= last]


@functools.cache
def isolation() -> Index[IsolationQuirk]:
    """``isolation.toml``."""
    return Index(_load("isolation", IsolationFile).isolation)


@functools.cache
def aliases() -> Index[AliasQuirk]:
    """``[[alias]]`` of ``alias.toml``."""
    return Index(_alias_file().alias)


@functools.cache
def express_bridges() -> Index[Quirk]:
    """``[[express_bridge]]`` of ``alias.toml``."""
    return Index(_alias_file().express_bridge)


@functools.cache
def proxies() -> Index[Quirk]:
    """``[[proxy]]`` of ``alias.toml``."""
    return Index(_alias_file().proxy)


@functools.cache
def broken_resets() -> Index[BrokenReset]:
    """``[[broken]]`` of ``reset.toml``."""
    return Index(_reset_file().broken)


@functools.cache
def specific_resets() -> Index[SpecificReset]:
    """``[[specific]]`` of ``reset.toml``."""
    return Index(_reset_file().specific)


@functools.cache
def broken_masking() -> Index[Quirk]:
    """``[[broken_masking]]`` of ``intx.toml``."""
    return Index(_load("intx", IntxFile).broken_masking)


@functools.cache
def no_msi() -> Index[NoMsi]:
    """``[[no_msi]]`` of ``msi.toml``."""
    return Index(_msi_file().no_msi)


@functools.cache
def disable_stops_msi() -> Index[RevisedQuirk]:
    """``[[disable_stops_msi]]`` of ``msi.toml``."""
    return Index(_msi_file().disable_stops_msi)


@functools.cache
def broken_aspm() -> Index[BrokenAspm]:
    """``[[aspm]]`` of ``faults.toml``."""
    return Index(_fault_file().aspm)


@functools.cache
def broken_ats() -> Index[RevisedQuirk]:
    """``[[ats]]`` of ``faults.toml``."""
    return Index(_fault_file().ats)


@functools.cache
def broken_bars() -> Index[Quirk]:
    """``[[bars]]`` of ``faults.toml``."""
    return Index(_fault_file().bars)


@functools.cache
def machines() -> tuple[MachineQuirk, ...]:
    """``machines.toml``."""
    return _load("machines", MachineFile).machine


@functools.cache
def _msi_file() -> MsiFile:
    return _load("msi", MsiFile)


@functools.cache
def _fault_file() -> FaultFile:
    return _load("faults", FaultFile)


@functools.cache
def _alias_file() -> AliasFile:
    return _load("alias", AliasFile)


@functools.cache
def _reset_file() -> ResetFile:
    return _load("reset", ResetFile)


def _load(name: str, type: type[F]) -> F:
    with open(os.path.join(_FOLDER, f"{name}.toml"), "rb") as file:
        return parse(file.read(), type)


def parse(text: bytes, type: type[F]) -> F:
    """The quirks in a file's text; ValueError (also msgspec's) where it departs from the schema."""
    return msgspec.json.decode(_json(text.decode()), type=type)


_COMMENT: Final = r'(?m)^#.*$| +#[^"\n]*$'
_TABLE: Final = r"(?m)^\[\[(\w+)\]\]$"
_PAIR: Final = r"(?m)^(\w+) = ([^\[\n]*|\[[^\]]*\])$"


def _json(text: str) -> str:
    """JSON of the part of TOML that the files keep to; ValueError for what is no part of it.

    Arrays of tables; a key and its value a line; values as in JSON, but numbers also in hexadecimal, and arrays also
    with a comma behind the last element; comments of a whole line, or behind a value and without quotation marks.
    tomllib takes 5 ms, most of it to be imported, which each start would feel; a test holds that it reads the same.
    """
    top, *rest = re.split(_TABLE, re.sub(_COMMENT, "", text))
    tables: dict[str, list[str]] = {}
    for name, pairs in zip(rest[::2], rest[1::2], strict=True):
        tables.setdefault(name, []).append(f"{{{_pairs(pairs)}}}")
    arrays = [f'"{name}": [{", ".join(entries)}]' for name, entries in tables.items()]
    return f"{{{', '.join(filter(None, (_pairs(top), *arrays)))}}}"


def _pairs(text: str) -> str:
    strange = re.sub(_PAIR, "", text).strip()
    if strange:
        raise ValueError(f"{strange.splitlines()[0]!r} is not in the part of TOML that quirks are written in")
    return ", ".join(f'"{key}": {_value(value)}' for key, value in re.findall(_PAIR, text))


def _value(text: str) -> str:
    return str(int(text, 16)) if text.startswith("0x") else re.sub(r",\s*\]$", "]", text)
