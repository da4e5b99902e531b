# SPDX-License-Identifier: MIT
"""DBG2: ports for a debugger (Microsoft, Debug Port Table 2)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

from dom0kit.acpi.tables.common import GenericAddress
from dom0kit.acpi.tables.table import Header
from dom0kit.finding import Severity, rule
from dom0kit.layout import U8, U16, U32, OpenRecord, Rest, Unknown, entries, raw, repeated, terminated_text, this
from dom0kit.serial import Hex
from dom0kit.walker import Notes

OFFSETS: Final = rule(
    "acpi.dbg2-offsets",
    Severity.INFO,
    title="a debug port whose parts lie in an unusual order",
    meaning="The offsets in a DBG2 device say that its addresses, sizes, name or OEM data do not follow each other in "
    "the usual order. They are shown as if they did, so they may be shown under each other's names.",
    advice="Read the bytes of the table by the offsets that it gives.",
    specification="Microsoft Debug Port Table 2, table 2: offsets from the start of the device information structure",
)


class DebugDevice(OpenRecord, frozen=True, kw_only=True, tag="debug-device"):
    """Debug Device Information Structure."""

    TYPE: ClassVar[int] = 0
    revision: U8
    number_of_registers: U8
    namespace_string_length: U16
    namespace_string_offset: U16
    oem_data_length: U16
    oem_data_offset: U16
    port_type: U16
    """0x8000 serial, 0x8001 IEEE 1394, 0x8002 USB, 0x8003 network."""
    port_subtype: U16
    """Of a serial port: 0 16550, 3 PL011, 18 16550 with GAS parameters …; of USB: 0 XHCI, 1 EHCI."""
    reserved: U16 = 0
    base_address_offset: U16
    address_size_offset: U16
    registers: Annotated[tuple[GenericAddress, ...], repeated(this.number_of_registers)]
    register_sizes: Annotated[tuple[U32, ...], repeated(this.number_of_registers)]
    """Bytes."""
    namespace_string: Annotated[str, terminated_text(this.namespace_string_length)]
    """``.`` where the port is not in the namespace."""
    oem_data: Annotated[Hex, raw(this.oem_data_length)]


class Dbg2(OpenRecord, frozen=True, kw_only=True, tag="dbg2"):
    """Debug Port Table 2."""

    devices_offset: U32
    """From the start of the table: 44."""
    number_of_devices: U32
    devices: Annotated[tuple[DebugDevice | Unknown | Rest, ...], entries(type=0, length_at=1, length=2)]


def check(dbg2: Dbg2, header: Header, notes: Notes) -> None:
    """Offsets that are not the usual ones."""
    if dbg2.devices_offset != 44:
        notes.add(OFFSETS, f"the devices are said to begin at offset {dbg2.devices_offset}, and are read at 44")
    for number, device in enumerate(dbg2.devices):
        if not isinstance(device, DebugDevice):
            continue
        name = 22 + 16 * device.number_of_registers
        usual = [(device.base_address_offset, 22), (device.address_size_offset, name - 4 * device.number_of_registers)]
        if device.namespace_string_length:
            usual.append((device.namespace_string_offset, name))
        if device.oem_data_length:
            usual.append((device.oem_data_offset, name + device.namespace_string_length))
        if any(found != wanted for found, wanted in usual):
            notes.add(OFFSETS, f"device {number}: {', '.join(f'{found} (usual {wanted})' for found, wanted in usual)}")
