# SPDX-License-Identifier: MIT
"""One redirection entry of an IOAPIC, 64 bits, in each format an interrupt remapper may have given it.

Sources: Intel 82093AA section 3.2.4 (compatibility); Intel VT-d 4.1 section 5.1.5.1 (remappable); AMD I/O
virtualization 3.08 section 2.2.5 (the offset in vector and delivery mode); KVM and Xen's extended destination id
(Linux, Documentation/virt/kvm/x86/cpuid.rst, KVM_FEATURE_MSI_EXT_DEST_ID).
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from dom0kit.address import DeliveryMode, Polarity, Trigger


class EntryFormat(enum.Enum):
    """How the bits of a redirection entry are to be read: a property of the machine's interrupt remapper."""

    COMPATIBILITY = "compatibility"
    EXTENDED_DESTINATION = "extended destination id"
    """A hypervisor announced it: bits 55:49 are destination 14:8."""
    VTD = "VT-d remappable"
    """As a parameter: the IOAPIC's DRHD remaps interrupts, and bit 48 of each entry tells which format it has."""
    AMD_VI = "AMD-Vi"
    """The IOAPIC's IVHD remaps interrupts. No bit of the entry tells."""


class RedirectionEntry(msgspec.Struct, frozen=True):
    """One redirection entry, decoded; `encode` gives the same 64 bits back."""

    format: EntryFormat
    """What this entry is: an entry read as VTD with bit 48 clear is COMPATIBILITY."""
    polarity: Polarity
    trigger: Trigger
    masked: bool
    delivery_status: bool
    """Bit 12: set while the interrupt waits to be delivered."""
    remote_irr: bool
    """Bit 14: a level interrupt is at a local APIC and was not yet ended."""
    vector: int | None
    """Bits 7:0. With VT-d only what the EOI is matched with; None with AMD-Vi, whose remap_index takes its bits."""
    delivery_mode: DeliveryMode | None
    """None in the two remapped formats: there the remapping entry says."""
    logical: bool | None
    """Bit 11: the destination is logical. None where remapped."""
    destination: int | None
    """APIC id or logical destination: 8 bits, 15 with an extended destination id. None where remapped."""
    remap_index: int | None
    """VT-d: index of the IRTE, 16 bits. AMD-Vi: offset in the IRT, 11 bits. Else None."""
    reserved: int
    """Every bit that has no name in this format, in its place; 0 in an orderly entry."""

    def encode(self) -> int:
        """The 64 bits. ValueError when a field is missing or does not fit its format."""
        value = (
            self.reserved
            | self.delivery_status << 12
            | (self.polarity is Polarity.LOW) << 13
            | self.remote_irr << 14
            | (self.trigger is Trigger.LEVEL) << 15
            | self.masked << 16
        )
        if self.format is EntryFormat.VTD:
            index = _fits("remap_index", self.remap_index, 16)
            return value | _fits("vector", self.vector, 8) | index >> 15 << 11 | 1 << 48 | (index & 0x7FFF) << 49
        if self.format is EntryFormat.AMD_VI:
            return value | _fits("remap_index", self.remap_index, 11)
        if self.delivery_mode is None or self.logical is None:
            raise ValueError(f"a redirection entry in {self.format.value} format needs delivery_mode and logical")
        value |= _fits("vector", self.vector, 8) | self.delivery_mode.code << 8 | self.logical << 11
        if self.format is EntryFormat.EXTENDED_DESTINATION:
            destination = _fits("destination", self.destination, 15)
            return value | destination >> 8 << 49 | (destination & 0xFF) << 56
        return value | _fits("destination", self.destination, 8) << 56


_NAMED: Final = {
    EntryFormat.COMPATIBILITY: 0xFF00_0000_0001_FFFF,
    EntryFormat.EXTENDED_DESTINATION: 0xFFFE_0000_0001_FFFF,
    EntryFormat.VTD: 0xFFFF_0000_0001_F8FF,
    EntryFormat.AMD_VI: 0x0000_0000_0001_F7FF,
}


def decode(value: int, format: EntryFormat) -> RedirectionEntry:
    """The entry whose 64 bits are `value`, of an IOAPIC with this format; higher bits of `value` are ignored."""
    value &= 0xFFFF_FFFF_FFFF_FFFF
    if format is EntryFormat.VTD and not value >> 48 & 1:
        format = EntryFormat.COMPATIBILITY
    remapped = format in (EntryFormat.VTD, EntryFormat.AMD_VI)
    index: int | None = None
    destination: int | None = None
    if format is EntryFormat.VTD:
        index = (value >> 11 & 1) << 15 | value >> 49
    elif format is EntryFormat.AMD_VI:
        index = value & 0x7FF
    elif format is EntryFormat.EXTENDED_DESTINATION:
        destination = (value >> 49 & 0x7F) << 8 | value >> 56
    else:
        destination = value >> 56
    return RedirectionEntry(
        format=format,
        polarity=Polarity.LOW if value >> 13 & 1 else Polarity.HIGH,
        trigger=Trigger.LEVEL if value >> 15 & 1 else Trigger.EDGE,
        masked=bool(value >> 16 & 1),
        delivery_status=bool(value >> 12 & 1),
        remote_irr=bool(value >> 14 & 1),
        vector=None if format is EntryFormat.AMD_VI else value & 0xFF,
        delivery_mode=None if remapped else DeliveryMode.from_code(value >> 8 & 7),
        logical=None if remapped else bool(value >> 11 & 1),
        destination=destination,
        remap_index=index,
        reserved=value & ~_NAMED[format],
    )


def _fits(name: str, value: int | None, bits: int) -> int:
    if value is None or not 0 <= value < 1 << bits:
        raise ValueError(f"{name} of a redirection entry must have {bits} bits, not be {value}")
    return value
