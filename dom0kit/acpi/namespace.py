# SPDX-License-Identifier: MIT
"""The ACPI namespace as an AML interpreter sees it (ACPI 6.5, section 5.3): objects, devices, where they sit on PCI.

Paths are absolute and trimmed as people write them: ``\\_SB.PCI0.LPCB`` (no padding underscores).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from dom0kit.acpi.resources import AddressRange, RangeKind, Resource
from dom0kit.acpi.routing import PrtEntry
from dom0kit.acpi.tables.common import AddressSpace
from dom0kit.address import Sbdf
from dom0kit.finding import Finding, Severity, rule
from dom0kit.serial import Hex

SAME_ROOT: Final = rule(
    "aml.root-bridges-same-bus",
    Severity.WARNING,
    title="two root bridges with the same segment and bus",
    meaning="Two present PCI root bridges say that they lead to the same bus of the same segment. An operating system "
    "uses the first and ignores the other, or enumerates the bus twice.",
    advice="Look whether _BBN or _SEG of one of them depends on hardware that was not recorded.",
    specification="ACPI 6.5, sections 6.5.5 (_BBN) and 6.5.6 (_SEG)",
)


class RegionAccess(msgspec.Struct, frozen=True):
    """Hardware that AML read while an object was evaluated: one range of one address space."""

    space: AddressSpace | int
    first: int
    """First byte read: an address, a port, an offset in config space…"""
    last: int
    """Last byte read, inclusive."""
    region: str | None = None
    """PCI config space: path of the operation region, where known."""
    function: Sbdf | None = None
    """PCI config space: the function the region belongs to, where known."""

    def __str__(self) -> str:
        space = self.space.value if isinstance(self.space, AddressSpace) else f"space {self.space:#x}"
        owner = f" of {self.function or self.region}" if self.function or self.region else ""
        return f"{space} {self.first:#x}-{self.last:#x}{owner}"


class Evaluation(msgspec.Struct, frozen=True):
    """How one evaluation of one object went."""

    path: str
    """The object: ``\\_SB.PCI0._CRS``."""
    status: str
    """ACPICA's word: ``AE_OK``, ``AE_NOT_FOUND``, ``AE_AML_LOOP_TIMEOUT``…; ``cut off`` where it never ended."""
    depends: tuple[RegionAccess, ...] = ()
    """What it read that nobody recorded: simulated as zero, so the result may differ on the real machine."""
    config: tuple[Sbdf, ...] = ()
    """Functions whose recorded config space it read."""
    mixed: bool = False
    """It read the same offset of several functions' config space, which the interpreter cannot tell apart: it was
    evaluated once for each of them."""
    by_kernel: bool = False
    """By the running kernel's interpreter, which saw the hardware: the status is that of success."""

    @property
    def ok(self) -> bool:
        return self.status == "AE_OK"

    @property
    def certain(self) -> bool:
        """The value follows from what was recorded."""
        return not self.depends and not self.mixed


class NamespaceObject(msgspec.Struct, frozen=True):
    """One named object."""

    path: str
    type: str
    """ACPICA's word: Device, Method, Integer, Buffer, Package, Region, RegionField, Mutex…"""
    detail: str = ""
    """The interpreter's short description: a value, a method's arguments, a region's space and address."""


class OperationRegion(msgspec.Struct, frozen=True):
    """One operation region as it stands after initialisation (ACPI 6.5, section 19.6.100)."""

    path: str
    space: AddressSpace | int
    address: int
    length: int


class AmlDevice(msgspec.Struct, frozen=True, kw_only=True):
    """One Device (or Processor) object with what its well-known children evaluate to; None where absent or failed."""

    path: str
    processor: bool = False
    """Declared with Processor()."""
    hid: str | None = None
    """``PNP0A08``; an integer _HID is written as the EISA id it encodes."""
    cids: tuple[str, ...] = ()
    uid: int | str | None = None
    adr: int | None = None
    """Device number << 16 | function (0xFFFF: all) on PCI; 64 bits."""
    sta: int | None = None
    """Bit 0 present, 1 enabled, 2 shown, 3 functioning; None where there is no _STA (which means 0xF) or it failed."""
    bbn: int | None = None
    seg: int | None = None
    crs: tuple[Resource, ...] | None = None
    prs: tuple[Resource, ...] | None = None
    prt: tuple[PrtEntry, ...] | None = None
    sun: int | None = None
    rmv: int | None = None
    ejd: str | None = None
    has_ej0: bool = False
    mat: Hex | None = None
    """The MADT entry that _MAT returns."""
    gsb: int | None = None
    pxm: int | None = None
    cba: int | None = None
    has_osc: bool = False
    has_dsm: bool = False
    evaluations: tuple[Evaluation, ...] = ()

    @property
    def present(self) -> bool:
        """Its own _STA says present or functioning (Linux enumerates the children of both); parents are not asked."""
        return self.sta is None or bool(self.sta & 0x9)

    @property
    def is_root_bridge(self) -> bool:
        return self.hid in _ROOT_BRIDGES or any(cid in _ROOT_BRIDGES for cid in self.cids)

    @property
    def is_link(self) -> bool:
        """A PCI interrupt link device."""
        return self.hid == "PNP0C0F" or "PNP0C0F" in self.cids

    def evaluation(self, name: str) -> Evaluation | None:
        """Of the child `name`, e.g. ``_CRS``."""
        path = f"{self.path}.{name}"
        return next((found for found in self.evaluations if found.path == path), None)


_ROOT_BRIDGES: Final = ("PNP0A03", "PNP0A08")


class Namespace(msgspec.Struct, frozen=True, kw_only=True):
    """Everything AML says of a machine."""

    interpreter: str | None = None
    """Version of acpiexec, e.g. ``20200925``; None where AML was not interpreted."""
    objects: tuple[NamespaceObject, ...] = ()
    """In the interpreter's order: depth first."""
    regions: tuple[OperationRegion, ...] = ()
    devices: tuple[AmlDevice, ...] = ()
    apic_mode: Evaluation | None = None
    """Of ``\\_PIC`` with 1; None where the machine has none."""
    findings: tuple[Finding, ...] = ()

    def device(self, path: str) -> AmlDevice | None:
        """The device at this very path."""
        return next((device for device in self.devices if device.path == path), None)


def parent(path: str) -> str:
    """``\\_SB.PCI0`` of ``\\_SB.PCI0.LPCB``; the root for a name in the root."""
    head, dot, _ = path.rpartition(".")
    return head if dot else "\\"


def pci_addresses(devices: Sequence[AmlDevice], config: Mapping[Sbdf, bytes]) -> dict[str, Sbdf]:
    """Where the devices sit on PCI: from _SEG and _BBN of root bridges down, by _ADR and secondary bus numbers.

    A root bridge itself has no address (its host bridge is what it leads to). A device behind a bridge that `config`
    does not hold, or that is not a bridge there, has none either.
    """
    buses: dict[str, tuple[int, int]] = {}
    addresses: dict[str, Sbdf] = {}
    for device in devices:
        if device.is_root_bridge:
            buses[device.path] = root_bus(device)
            continue
        if device.adr is None:
            continue
        place = buses.get(parent(device.path))
        number, function = device.adr >> 16, device.adr & 0xFFFF
        if place is None or number > 31:
            continue
        if function == 0xFFFF:
            function = 0
        if function > 7:
            continue
        address = Sbdf(*place, number, function)
        addresses[device.path] = address
        header = config.get(address, b"")
        if len(header) > 0x19 and header[0xE] & 0x7F == 1 and header[0x19]:
            buses[device.path] = (place[0], header[0x19])
    return addresses


def root_bus(device: AmlDevice) -> tuple[int, int]:
    """Segment and first bus of a root bridge: _SEG and _BBN, else the first bus range of _CRS, else 0."""
    segment = device.seg or 0
    bus = device.bbn
    if bus is None:
        ranges = (item for item in device.crs or () if isinstance(item, AddressRange) and item.kind is RangeKind.BUS)
        bus = next((item.minimum for item in ranges), 0)
    return segment & 0xFFFF_FFFF, bus & 0xFF
