# SPDX-License-Identifier: MIT
"""Addresses of the field, as values: a PCI function, an INTx pin, a GSI, an IOAPIC's pin."""

from __future__ import annotations

import enum
import re
from typing import Final, NewType

import msgspec

Gsi = NewType("Gsi", int)
"""Global system interrupt number, 0 to 2**32 - 1 (ACPI 6.5, section 5.2.13)."""

_SBDF: Final = re.compile(r"(?:([0-9a-fA-F]{1,8}):)?([0-9a-fA-F]{1,2}):([0-9a-fA-F]{1,2})\.([0-7])")


class Sbdf:
    """A PCI function: segment (32 bits: VMD and Hyper-V number them from 0x10000), bus, device, function.

    Immutable, hashable, ordered; written ``0000:00:1f.3`` (longer segments with as many digits as they need).
    """

    __slots__ = ("_value",)

    def __init__(self, segment: int, bus: int, device: int, function: int) -> None:
        if not (0 <= segment <= 0xFFFFFFFF and 0 <= bus <= 0xFF and 0 <= device <= 0x1F and 0 <= function <= 7):
            raise ValueError(f"no such PCI address: segment {segment:#x}, {bus:#x}:{device:#x}.{function}")
        self._value = segment << 16 | bus << 8 | device << 3 | function

    @classmethod
    def parse(cls, text: str) -> Sbdf:
        """From ``[segment:]bus:device.function`` in hexadecimal; ValueError for anything else."""
        match = _SBDF.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"{text!r} is not a PCI address like 0000:00:1f.3")
        segment, bus, device, function = match.groups()
        return cls(int(segment or "0", 16), int(bus, 16), int(device, 16), int(function))

    @classmethod
    def from_devfn(cls, segment: int, bus: int, devfn: int) -> Sbdf:
        """From a device and function packed in 8 bits, as IOMMU tables and hypercalls write them."""
        return cls(segment, bus, devfn >> 3, devfn & 7)

    @property
    def segment(self) -> int:
        return self._value >> 16

    @property
    def bus(self) -> int:
        return self._value >> 8 & 0xFF

    @property
    def device(self) -> int:
        return self._value >> 3 & 0x1F

    @property
    def function(self) -> int:
        return self._value & 7

    @property
    def devfn(self) -> int:
        return self._value & 0xFF

    @property
    def requester_id(self) -> int:
        """Bus, device and function in 16 bits: what a transaction carries (PCIe 6.0, section 2.2.6.2)."""
        return self._value & 0xFFFF

    def with_function(self, function: int) -> Sbdf:
        """Another function of the same device."""
        return Sbdf(self.segment, self.bus, self.device, function)

    def __str__(self) -> str:
        v = self._value
        return f"{v >> 16:04x}:{v >> 8 & 0xFF:02x}:{v >> 3 & 0x1F:02x}.{v & 7}"

    def __repr__(self) -> str:
        return f"Sbdf.parse({str(self)!r})"

    def __hash__(self) -> int:
        return self._value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sbdf) and self._value == other._value

    def __lt__(self, other: Sbdf) -> bool:
        return self._value < other._value

    def __le__(self, other: Sbdf) -> bool:
        return self._value <= other._value


class IntxPin(enum.Enum):
    """One of the four legacy interrupt pins of a PCI device (PCI 3.0, section 2.2.6)."""

    A = "A"
    B = "B"
    C = "C"
    D = "D"

    @property
    def index(self) -> int:
        """0 for INTA to 3 for INTD, as ``_PRT`` writes it."""
        return "ABCD".index(self.value)

    @classmethod
    def from_index(cls, index: int) -> IntxPin:
        """From 0 to 3; ValueError outside."""
        if not 0 <= index <= 3:
            raise ValueError(f"no such INTx pin: {index}")
        return _PINS[index]

    def swizzled(self, device: int) -> IntxPin:
        """The pin this one becomes on the primary side of a bridge that `device` sits behind.

        PCI-to-PCI bridge 1.2, section 9.1, table 9-1: (pin + device) mod 4.
        """
        return _PINS[(self.index + device) % 4]


_PINS: Final = (IntxPin.A, IntxPin.B, IntxPin.C, IntxPin.D)


class Trigger(enum.Enum):
    """How an interrupt line signals."""

    EDGE = "edge"
    LEVEL = "level"


class Polarity(enum.Enum):
    """Which level of an interrupt line is active."""

    HIGH = "high"
    LOW = "low"


class DeliveryMode(enum.Enum):
    """What a local APIC does with an interrupt (Intel SDM volume 3, section 11.11.2 and 82093AA, section 3.2.4)."""

    FIXED = "fixed"
    LOWEST_PRIORITY = "lowest priority"
    SMI = "SMI"
    RESERVED_3 = "reserved 3"
    NMI = "NMI"
    INIT = "INIT"
    RESERVED_6 = "reserved 6"
    EXTINT = "ExtINT"

    @property
    def code(self) -> int:
        """The three bits of redirection entries and MSI data, 0 to 7."""
        return _DELIVERY_MODES.index(self)

    @classmethod
    def from_code(cls, code: int) -> DeliveryMode:
        """From the three bits; ValueError outside 0 to 7."""
        if not 0 <= code <= 7:
            raise ValueError(f"no such delivery mode: {code}")
        return _DELIVERY_MODES[code]


_DELIVERY_MODES: Final = tuple(DeliveryMode)


class IoapicPin(msgspec.Struct, frozen=True, order=True):
    """One input of one IOAPIC."""

    ioapic: int
    """IOAPIC id, 0 to 255."""
    pin: int
    """0 to 239; at most 120 are reachable through the 8-bit index register."""

    def __str__(self) -> str:
        return f"{self.ioapic}.{self.pin}"
