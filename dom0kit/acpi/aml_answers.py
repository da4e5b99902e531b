# SPDX-License-Identifier: MIT
"""What AML answered, put together: named objects, devices and their values, as one `Namespace`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from dom0kit.acpi import aml_output
from dom0kit.acpi.aml_findings import EVALUATION_FAILED, WRONG_TYPE
from dom0kit.acpi.aml_output import Pointer, Raw, RawEvaluation, RawObject, Unset
from dom0kit.acpi.aml_values import Buffer, Integer, Opaque, Package, Reference, String, Value
from dom0kit.acpi.namespace import (
    SAME_ROOT,
    AmlDevice,
    Evaluation,
    Namespace,
    NamespaceObject,
    OperationRegion,
    parent,
    root_bus,
)
from dom0kit.acpi.resources import Resource, decode_resources
from dom0kit.acpi.routing import PrtEntry, decode_prt
from dom0kit.acpi.tables.common import SPACES, AddressSpace
from dom0kit.finding import Finding

AT_ONCE: Final = ("_STA", "_CRS", "_PRT", "_PRS")
"""Asked for together with the namespace: hardly a machine has them all constant."""
_NAMES: Final = (
    *AT_ONCE,
    *("_HID", "_CID", "_UID", "_ADR", "_BBN", "_SEG", "_SUN", "_RMV", "_EJD", "_MAT", "_GSB", "_PXM", "_CBA"),
)
_CHILDREN: Final = frozenset((*_NAMES, "_EJ0", "_OSC", "_DSM"))
_OWN_OBJECTS: Final = frozenset(("\\DKCB", "\\DKCR", "\\DKCF", "\\DKFL"))
_TARGET: Final = re.compile(r"Target (\w+) \((0x[0-9a-f]+)\)")
_ADDRESSES: Final = re.compile(r"(?: ?(?:Aml|Object|Notify Object:))? ?(?:0x[0-9a-f]+|\(nil\))")
_REGION: Final = re.compile(r"\[([^\]]*)\] Addr ([0-9A-F]+) Len ([0-9A-F]+)")
_STRING: Final = re.compile(r'Len ([0-9A-F]+) "(.*)"')
_EISA: Final = "@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_"
_TYPES: Final[dict[str, type | tuple[type, ...]]] = {
    "_STA": int,
    "_ADR": int,
    "_BBN": int,
    "_SEG": int,
    "_CRS": bytes,
    "_PRS": bytes,
    "_PRT": list,
    "_HID": (int, str),
    "_MAT": bytes,
    "_GSB": int,
    "_PXM": int,
}


class Answers:
    """What the sessions of one interpretation have brought so far."""

    def __init__(self) -> None:
        self.objects: list[RawObject] = []
        self.raw: dict[str, RawEvaluation] = {}
        """By path, in the order of evaluation."""
        self.evaluated: dict[str, Evaluation] = {}
        """The same as facts."""
        self.pointers: dict[str, str] = {}
        """Paths by address, of all sessions: addresses are random, two sessions share none."""
        self.wanted: list[str] = []
        """Names besides `AT_ONCE` that have to be evaluated: some object of that name is no constant."""
        self._children: dict[str, dict[str, RawObject]] = {}
        self._static: dict[str, int | str] = {}
        self._paths: frozenset[str] = frozenset()

    def read_objects(self, section: bytes) -> None:
        """Take in what ``find ????`` printed; of a second session only its addresses."""
        objects = [found for found in aml_output.objects(section) if found.path not in _OWN_OBJECTS]
        self.pointers.update((found.pointer, found.path) for found in objects)
        if self.objects:
            return
        self.objects = objects
        wanted: set[str] = set()
        children = self._children
        for found in objects:
            path = found.path
            segment = path[-4:]
            if segment not in _CHILDREN:
                continue
            owner = parent(path)
            children.setdefault(owner, {})[segment] = found
            if found.type == "Integer":
                self._static[path] = aml_output.number(found.detail.removeprefix("= "))
            elif found.type == "String" and (text := _whole_string(found.detail)) is not None:
                self._static[path] = text
            elif segment in _NAMES and segment not in AT_ONCE:
                wanted.add(segment)
        self.wanted = [name for name in _NAMES if name in wanted]

    def device_paths(self) -> list[str]:
        """Devices and processors, parents first."""
        return [found.path for found in self.objects if found.type in ("Device", "Processor")]

    def has(self, path: str, name: str) -> bool:
        """Whether the device has a child of this well-known name."""
        return name in self._children.get(path, ())

    def value(self, path: str, name: str) -> Raw | None:
        """Of the device's child `name`: evaluated, or a constant; None where absent or failed."""
        child = f"{path}.{name}" if path != "\\" else f"\\{name}"
        found = self.raw.get(child)
        return self._static.get(child) if found is None else found.value

    def number(self, path: str, name: str) -> int | None:
        """The same, where it is an integer."""
        value = self.value(path, name)
        return value if isinstance(value, int) else None

    def hid(self, path: str) -> str | None:
        """_HID as text."""
        return _identifier(self.value(path, "_HID"))

    def overrule(self, path: str, value: Raw | None) -> None:
        """The kernel's interpreter gave another value, or the same: what it says counts."""
        self.raw[path] = RawEvaluation(path, "AE_OK", value, ())
        self.evaluated[path] = Evaluation(path, "AE_OK", by_kernel=True)

    def cids(self, path: str) -> tuple[str, ...]:
        """_CID, one or several, as text."""
        value = self.value(path, "_CID")
        found = (_identifier(item) for item in (value if isinstance(value, list) else (value,)))
        return tuple(item for item in found if item is not None)

    def find(self, scope: str, value: Raw) -> str | None:
        """The path of the object that a reference or a name means, seen from `scope`."""
        if isinstance(value, Pointer):
            return self.pointers.get(value.address)
        if not isinstance(value, str) or not value:
            return None
        if not self._paths:
            self._paths = frozenset(found.path for found in self.objects)
        name = aml_output.trimmed(value)
        if name.startswith("\\"):
            return name if name in self._paths else None
        while name.startswith("^"):
            name, scope = name[1:], parent(scope)
        while True:
            path = f"\\{name}" if scope == "\\" else f"{scope}.{name}"
            if path in self._paths:
                return path
            if scope == "\\":
                return None
            scope = parent(scope)

    def resources(self, path: str, name: str, findings: list[Finding]) -> tuple[Resource, ...] | None:
        """Of the device's child `name`, where it is a buffer; what is wrong with it goes to `findings`."""
        value = self.value(path, name)
        if isinstance(value, bytes):
            resources, wrong = decode_resources(value, f"aml:{path}.{name}")
            findings += wrong
            return resources
        return None

    def device(self, path: str, processor: bool, findings: list[Finding]) -> AmlDevice:
        """The device as a fact; what is wrong with it goes to `findings`."""
        children = self._children.get(path)
        if children is None:
            return AmlDevice(path=path, processor=processor)
        value = self.value
        uid = value(path, "_UID")
        mat = value(path, "_MAT")
        ejd = value(path, "_EJD")
        prt: tuple[PrtEntry, ...] | None = None
        if "_PRT" in children:
            package = value(path, "_PRT")
            if package is not None:
                prt, wrong = decode_prt(package, f"aml:{path}._PRT", lambda item: self.find(path, item))
                findings += wrong
        evaluations = tuple(found for name in children if (found := self.evaluated.get(f"{path}.{name}")) is not None)
        for name in children:
            raw = self.raw.get(f"{path}.{name}")
            expected = _TYPES.get(name)
            if raw is None or raw.status != "AE_OK" or expected is None or isinstance(raw.value, expected):
                continue
            findings.append(WRONG_TYPE.at(f"aml:{raw.path}", f"it evaluates to {_type_name(raw.value)}"))
        return AmlDevice(
            path=path,
            processor=processor,
            hid=self.hid(path) if "_HID" in children else None,
            cids=self.cids(path) if "_CID" in children else (),
            uid=uid if isinstance(uid, int | str) else None,
            adr=self.number(path, "_ADR") if "_ADR" in children else None,
            sta=self.number(path, "_STA") if "_STA" in children else None,
            bbn=self.number(path, "_BBN") if "_BBN" in children else None,
            seg=self.number(path, "_SEG") if "_SEG" in children else None,
            crs=self.resources(path, "_CRS", findings) if "_CRS" in children else None,
            prs=self.resources(path, "_PRS", findings) if "_PRS" in children else None,
            prt=prt,
            sun=self.number(path, "_SUN") if "_SUN" in children else None,
            rmv=self.number(path, "_RMV") if "_RMV" in children else None,
            ejd=self.find(path, ejd) or ejd if isinstance(ejd, str) else None,
            has_ej0="_EJ0" in children,
            mat=mat.hex() if isinstance(mat, bytes) else None,
            gsb=self.number(path, "_GSB") if "_GSB" in children else None,
            pxm=self.number(path, "_PXM") if "_PXM" in children else None,
            cba=self.number(path, "_CBA") if "_CBA" in children else None,
            has_osc="_OSC" in children,
            has_dsm="_DSM" in children,
            evaluations=evaluations,
        )

    def namespace(self, interpreter: str | None, findings: list[Finding]) -> Namespace:
        """All of it as one value, with what else is wrong in `findings`."""
        findings = list(findings)
        devices: list[AmlDevice] = []
        absent: set[str] = set()
        for found in self.objects:
            if found.type not in ("Device", "Processor"):
                continue
            wrong: list[Finding] = []
            device = self.device(found.path, found.type == "Processor", wrong)
            devices.append(device)
            if not device.present or parent(found.path) in absent:
                absent.add(found.path)
                continue
            findings += wrong
            findings += [
                EVALUATION_FAILED.at(f"aml:{evaluation.path}", f"it ended with {evaluation.status}")
                for evaluation in device.evaluations
                if not evaluation.ok
            ]
        findings += _same_roots([device for device in devices if device.path not in absent])
        return Namespace(
            interpreter=interpreter,
            objects=tuple(NamespaceObject(found.path, found.type, self._detail(found)) for found in self.objects),
            regions=tuple(filter(None, (_region(found) for found in self.objects if found.type == "Region"))),
            devices=tuple(devices),
            apic_mode=self.evaluated.get("\\_PIC"),
            findings=tuple(findings),
        )

    def _detail(self, found: RawObject) -> str:
        """Without the addresses that only this run had."""
        detail = found.detail
        if "0x" not in detail and "(nil)" not in detail:
            return detail
        match = _TARGET.fullmatch(detail)
        if match is not None:
            return f"Target {self.pointers.get(match.group(2), match.group(1))}"
        return _ADDRESSES.sub("", detail)

    def public(self, value: Raw) -> Value:
        """A value without addresses of the interpreter."""
        match value:
            case int():
                return Integer(value)
            case str():
                return String(value)
            case bytes():
                return Buffer(value.hex())
            case list():
                return Package(tuple(None if isinstance(item, Unset) else self.public(item) for item in value))
            case Pointer(address=address, name=name):
                return Reference(self.pointers.get(address, name))
            case aml_output.Other(text=text):
                return Opaque(text)
            case _:
                return Opaque("unset")


def _whole_string(detail: str) -> str | None:
    """The text of a string object, unless it is shown shortened."""
    match = _STRING.fullmatch(detail)
    if match is None:
        return None
    text = aml_output.unescaped(match.group(2))
    return text if len(text) == int(match.group(1), 16) else None


def _identifier(value: Raw | None) -> str | None:
    """Text of a _HID or _CID; an integer is a compressed EISA id (ACPI 6.5, section 6.1.5)."""
    if isinstance(value, str):
        return value
    if not isinstance(value, int):
        return None
    number = int.from_bytes((value & 0xFFFF_FFFF).to_bytes(4, "little"), "big")
    letters = "".join(_EISA[number >> shift & 0x1F] for shift in (26, 21, 16))
    return f"{letters}{number & 0xFFFF:04X}"


def _type_name(value: Raw | None) -> str:
    names = {int: "an integer", str: "a string", bytes: "a buffer", list: "a package", type(None): "nothing"}
    return names.get(type(value), "a reference")


def _region(found: RawObject) -> OperationRegion | None:
    match = _REGION.search(found.detail)
    if match is None:
        return None
    name, address, length = match.groups()
    number = aml_output.SPACE_NUMBERS.get(name, -1)
    space: AddressSpace | int = SPACES.get(number, number)
    return OperationRegion(found.path, space, int(address, 16), int(length, 16))


def _same_roots(devices: Iterable[AmlDevice]) -> list[Finding]:
    findings = []
    seen: dict[tuple[int, int], str] = {}
    for device in devices:
        if not device.is_root_bridge:
            continue
        segment, bus = root_bus(device)
        other = seen.setdefault((segment, bus), device.path)
        if other != device.path:
            message = f"it and {other} both say segment {segment}, bus {bus:#04x}"
            findings.append(SAME_ROOT.at(f"aml:{device.path}", message))
    return findings


def references(value: Raw | None) -> list[str]:
    """Last name segments of the objects that a value refers to."""
    found: list[str] = []
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, Pointer):
            found.append(item.name)
        elif isinstance(item, list):
            pending += item
    return found
