# SPDX-License-Identifier: MIT
"""SPCR: the serial port for a console (Microsoft, Serial Port Console Redirection Table, revision 4)."""

from __future__ import annotations

from typing import Annotated

from dom0kit.acpi.tables.common import GenericAddress
from dom0kit.layout import U8, U16, U32, Bit, BitField, OpenRecord, bits, raw, terminated_text, this
from dom0kit.serial import Hex


class SpcrInterruptType(BitField, frozen=True, kw_only=True):
    """Which interrupt fields hold."""

    pc_8259: Bit
    ioapic: Bit
    io_sapic: Bit
    gic: Bit
    plic_or_aplic: Bit
    reserved: Annotated[int, bits(3)] = 0


class Spcr(OpenRecord, frozen=True, kw_only=True, tag="spcr"):
    """Serial Port Console Redirection Table: 80 bytes, 88 and a name from revision 4 on."""

    interface_type: U8
    """As DBG2's serial subtype: 0 16550, 3 PL011 …"""
    reserved: Annotated[Hex, raw(3)] = "000000"
    base_address: GenericAddress
    interrupt_type: SpcrInterruptType
    irq: U8
    """8259 interrupt."""
    gsi: U32
    baud_rate: U8
    """3 9600, 4 19200, 6 57600, 7 115200, 0 as firmware set it."""
    parity: U8
    stop_bits: U8
    flow_control: U8
    """Bit 0 DCD, 1 RTS/CTS, 2 XON/XOFF."""
    terminal_type: U8
    """0 VT100, 1 VT100+, 2 VT-UTF8, 3 ANSI."""
    language: U8 = 0
    pci_device_id: U16
    """0xffff: no PCI device."""
    pci_vendor_id: U16
    pci_bus: U8
    pci_device: U8
    pci_function: U8
    pci_flags: U32
    """Bit 0: no Plug and Play."""
    pci_segment: U8
    uart_clock_frequency: U32
    """Hz; 0 unknown (revision 3)."""
    precise_baud_rate: U32 | None = None
    namespace_string_length: U16 | None = None
    namespace_string_offset: U16 | None = None
    namespace_string: Annotated[str | None, terminated_text(this.namespace_string_length)] = None
    """``.`` where the port is not in the namespace."""
