# SPDX-License-Identifier: MIT
"""An MSI message, 64 bits of address and 32 of data, in each format an interrupt remapper or hypervisor reads it.

Sources: Intel SDM volume 3, section 11.11 (compatibility); Intel VT-d 4.1 section 5.1.5.2 (remappable); AMD I/O
virtualization 3.08 section 2.2.5 (the offset in the data); the extended destination id of KVM and Xen (Linux,
Documentation/virt/kvm/x86/cpuid.rst); a pIRQ in an MSI message (Linux, arch/x86/pci/xen.c).

An APIC id above 14 bits is reached through a remapper only: the address's upper half is memory's to a root complex.
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from dom0kit.address import DeliveryMode, Trigger

INTERRUPT_BASE: Final = 0xFEE
"""Address bits 31:20 of a message that is an interrupt; any other address is memory."""


class MessageFormat(enum.Enum):
    """How the bits of an MSI message are to be read: a property of what stands between the device and the CPUs."""

    COMPATIBILITY = "compatibility"
    EXTENDED_DESTINATION = "extended destination id"
    """A hypervisor announced it: address bits 11:5 are destination 14:8."""
    VTD = "VT-d remappable"
    """As a parameter: the function's DRHD remaps interrupts, and address bit 4 tells which format a message has."""
    AMD_VI = "AMD-Vi"
    """The function's IVHD remaps interrupts. No bit of the message tells."""
    XEN_PIRQ = "Xen pIRQ"
    """As a parameter: an HVM domain on Xen. A message with vector 0 and delivery mode 3 names a pIRQ, others do not."""


class MsiMessage(msgspec.Struct, frozen=True):
    """One message, decoded; `encode` gives the same bits back. What a format lacks is None."""

    format: MessageFormat
    """What this message is: one read as VTD with address bit 4 clear is COMPATIBILITY, likewise with XEN_PIRQ."""
    base: int
    """Address bits 31:20: 0xFEE in a message that is an interrupt."""
    destination: int | None
    """APIC id or logical destination: 8 bits, 15 with an extended destination id."""
    logical: bool | None
    """Address bit 2: the destination is logical."""
    redirection_hint: bool | None
    """Address bit 3: one of several destinations may be chosen."""
    vector: int | None
    delivery_mode: DeliveryMode | None
    trigger: Trigger | None
    """Data bit 15."""
    asserted: bool | None
    """Data bit 14: the level, which matters only for level-triggered messages."""
    handle: int | None
    """VT-d: 16 bits, to which the subhandle is added to give the index of the IRTE."""
    subhandle: int | None
    """VT-d: data bits 15:0 where the message says that they are valid (SHV); None where not."""
    remap_index: int | None
    """VT-d: handle plus subhandle, 0 to 0x1FFFE. AMD-Vi: data bits 10:0, the offset in the IRT."""
    pirq: int | None
    """Xen: 32 bits."""
    reserved_address: int
    """Every address bit without a name in this format, in its place."""
    reserved_data: int
    """Every data bit without a name in this format, in its place."""

    @property
    def is_interrupt(self) -> bool:
        """Whether the address is one that a root complex takes for an interrupt."""
        return self.base == INTERRUPT_BASE

    def encode(self) -> tuple[int, int]:
        """Address (64 bits) and data (32 bits). ValueError when a field is missing or does not fit its format."""
        address = self.reserved_address | _fits("base", self.base, 12) << 20
        data = self.reserved_data
        if self.format is MessageFormat.VTD:
            handle = _fits("handle", self.handle, 16)
            address |= (handle & 0x7FFF) << 5 | 1 << 4 | handle >> 15 << 2
            if self.subhandle is None:
                return address, data
            return address | 1 << 3, data | _fits("subhandle", self.subhandle, 16)
        if self.format is MessageFormat.AMD_VI:
            return address, data | _fits("remap_index", self.remap_index, 11)
        if self.format is MessageFormat.XEN_PIRQ:
            pirq = _fits("pirq", self.pirq, 32)
            return (
                address | (pirq & 0xFF) << 12 | pirq >> 8 << 40,
                data | _PIRQ_MODE | (self.trigger is Trigger.LEVEL) << 15 | bool(self.asserted) << 14,
            )
        if self.delivery_mode is None or None in (self.logical, self.redirection_hint, self.trigger, self.asserted):
            raise ValueError(f"an MSI message in {self.format.value} format lacks a field")
        address |= bool(self.redirection_hint) << 3 | bool(self.logical) << 2
        if self.format is MessageFormat.EXTENDED_DESTINATION:
            destination = _fits("destination", self.destination, 15)
            address |= (destination & 0xFF) << 12 | destination >> 8 << 5
        else:
            address |= _fits("destination", self.destination, 8) << 12
        return address, (
            data
            | _fits("vector", self.vector, 8)
            | self.delivery_mode.code << 8
            | bool(self.asserted) << 14
            | (self.trigger is Trigger.LEVEL) << 15
        )


_PIRQ_MODE: Final = 3 << 8
_NAMED_ADDRESS: Final = {
    MessageFormat.COMPATIBILITY: 0x0000_0000_FFFF_F00C,
    MessageFormat.EXTENDED_DESTINATION: 0x0000_0000_FFFF_FFEC,
    MessageFormat.VTD: 0x0000_0000_FFFF_FFFC,
    MessageFormat.AMD_VI: 0x0000_0000_FFF0_0000,
    MessageFormat.XEN_PIRQ: 0xFFFF_FF00_FFFF_F000,
}
_NAMED_DATA: Final = {
    MessageFormat.COMPATIBILITY: 0xC7FF,
    MessageFormat.EXTENDED_DESTINATION: 0xC7FF,
    MessageFormat.AMD_VI: 0x07FF,
    MessageFormat.XEN_PIRQ: 0xC7FF,
}


def decode(address: int, data: int, format: MessageFormat) -> MsiMessage:
    """The message with this address (64 bits) and data (32 bits); higher bits of either are ignored."""
    address &= 0xFFFF_FFFF_FFFF_FFFF
    data &= 0xFFFF_FFFF
    if (format is MessageFormat.VTD and not address >> 4 & 1) or (
        format is MessageFormat.XEN_PIRQ and data & 0x7FF != _PIRQ_MODE
    ):
        format = MessageFormat.COMPATIBILITY
    plain = format in (MessageFormat.COMPATIBILITY, MessageFormat.EXTENDED_DESTINATION)
    levelled = plain or format is MessageFormat.XEN_PIRQ
    destination: int | None = None
    handle: int | None = None
    subhandle: int | None = None
    remap_index: int | None = None
    if format is MessageFormat.VTD:
        handle = address >> 5 & 0x7FFF | (address >> 2 & 1) << 15
        subhandle = data & 0xFFFF if address >> 3 & 1 else None
        remap_index = handle + (subhandle or 0)
        named_data = 0 if subhandle is None else 0xFFFF
    else:
        named_data = _NAMED_DATA[format]
    if format is MessageFormat.AMD_VI:
        remap_index = data & 0x7FF
    if plain:
        destination = address >> 12 & 0xFF
    if format is MessageFormat.EXTENDED_DESTINATION:
        destination = address >> 12 & 0xFF | (address >> 5 & 0x7F) << 8
    return MsiMessage(
        format=format,
        base=address >> 20 & 0xFFF,
        destination=destination,
        logical=bool(address >> 2 & 1) if plain else None,
        redirection_hint=bool(address >> 3 & 1) if plain else None,
        vector=data & 0xFF if plain else None,
        delivery_mode=DeliveryMode.from_code(data >> 8 & 7) if plain else None,
        trigger=(Trigger.LEVEL if data >> 15 & 1 else Trigger.EDGE) if levelled else None,
        asserted=bool(data >> 14 & 1) if levelled else None,
        handle=handle,
        subhandle=subhandle,
        remap_index=remap_index,
        pirq=address >> 12 & 0xFF | address >> 40 << 8 if format is MessageFormat.XEN_PIRQ else None,
        reserved_address=address & ~_NAMED_ADDRESS[format],
        reserved_data=data & ~named_data,
    )


def compose(apic_id: int, vector: int, format: MessageFormat = MessageFormat.COMPATIBILITY) -> MsiMessage:
    """What interrupts one processor: fixed, edge, physical destination, as Linux and the core write it.

    ValueError where the format names no processor (it is remapped), for the APIC id that means all processors or does
    not fit, and for a vector that none may have (below 0x10, 0xff).
    """
    if format not in _LAST_APIC_ID:
        raise ValueError(f"a message in {format.value} format names no processor")
    if not 0 <= apic_id <= _LAST_APIC_ID[format]:
        raise ValueError(f"a message in {format.value} format cannot reach APIC id {apic_id:#x}")
    if not 0x10 <= vector <= 0xFE:
        raise ValueError(f"an MSI message's vector is 0x10 to 0xfe, not {vector:#x}")
    low, high = apic_id & 0xFF, apic_id >> 8
    return decode(INTERRUPT_BASE << 20 | low << 12 | high << 5, vector, format)


def compose_remapped(index: int, format: MessageFormat, subhandle: int | None = None) -> MsiMessage:
    """What goes through an entry of a remapping table: `index` is the entry's, or the first one's of a function.

    With VT-d and a `subhandle` (0 to 0xffff) the entry is `index` + `subhandle`: so the messages of multi-message MSI
    differ, whose data alone counts up. ValueError where something does not fit, and for a format that remaps nothing.
    """
    if format is MessageFormat.VTD:
        handle = _fits("index", index, 16)
        address = INTERRUPT_BASE << 20 | (handle & 0x7FFF) << 5 | 1 << 4 | handle >> 15 << 2
        if subhandle is None:
            return decode(address, 0, format)
        return decode(address | 1 << 3, _fits("subhandle", subhandle, 16), format)
    if format is MessageFormat.AMD_VI and subhandle is None:
        return decode(INTERRUPT_BASE << 20, _fits("index", index, 11), format)
    raise ValueError(f"a message in {format.value} format has no {'index' if subhandle is None else 'subhandle'}")


def compose_pirq(pirq: int) -> MsiMessage:
    """What an HVM domain of Xen writes for a pIRQ: edge, asserted (Linux, XEN_PIRQ_MSI_DATA). ValueError: 32 bits."""
    pirq = _fits("pirq", pirq, 32)
    return decode(
        INTERRUPT_BASE << 20 | (pirq & 0xFF) << 12 | pirq >> 8 << 40, _PIRQ_MODE | 1 << 14, MessageFormat.XEN_PIRQ
    )


_LAST_APIC_ID: Final = {MessageFormat.COMPATIBILITY: 0xFE, MessageFormat.EXTENDED_DESTINATION: 0x7FFF}
"""0xff is all processors to an 8-bit destination."""


def _fits(name: str, value: int | None, bits: int) -> int:
    if value is None or not 0 <= value < 1 << bits:
        raise ValueError(f"{name} of an MSI message must have {bits} bits, not be {value}")
    return value
