# SPDX-License-Identifier: MIT
"""A machine whose second host bridge, with an IOAPIC below it, can be plugged: own ASL.

The bridge's hot-plug controller is three fields in config space of the first host bridge: what AML says follows from
them, as on hardware, and so the offline interpreter sees them change.
"""

from __future__ import annotations

import struct

from dom0kit.address import Sbdf
from dom0kit.hotplug.model import ModelKernel
from dom0kit.hypercall.core_library import IoapicModel
from dom0kit.source.in_memory import MemorySource
from dom0kit.source.interface import RawFunction, RawTable, SourceKind
from tests.acpi.asl import table
from tests.hv_core.machines import cpu, ioapic, madt

FIRST, SECOND = 0xFEC00000, 0xFEC10000
PINS = 24
HOST, CARD = Sbdf(0, 0, 0, 0), Sbdf(0, 0x80, 1, 0)
APIC = "\\_SB.PCI1.APIC"
_FIELDS = 0x60

ASL = """
Scope (\\_SB)
{
    Device (PCI0)
    {
        Name (_HID, EisaId ("PNP0A08"))
        Name (_BBN, 0)
        Device (CTRL)
        {
            Name (_ADR, 0)
            OperationRegion (HPC, PCI_Config, 0x60, 8)
            Field (HPC, DWordAcc, NoLock, Preserve) { BRDG, 8, IOAP, 8, BASE, 16, MATB, 32 }
        }
    }
    Device (PCI1)
    {
        Name (_HID, EisaId ("PNP0A08"))
        Name (_UID, 1)
        Name (_BBN, 0x80)
        Method (_STA) { If (\\_SB.PCI0.CTRL.BRDG) { Return (0x0F) } Return (0) }
        Method (_EJ0, 1) { \\_SB.PCI0.CTRL.BRDG = 0 }
        Method (_PRT)
        {
            Local0 = Package () { Package () { 0x0001FFFF, 0, 0, 0 } }
            DerefOf (Local0 [0]) [3] = \\_SB.PCI0.CTRL.BASE + 4
            Return (Local0)
        }
        Device (APIC)
        {
            Name (_HID, "ACPI000A")
            Name (_UID, 1)
            Method (_STA) { If (\\_SB.PCI0.CTRL.IOAP) { Return (0x0F) } Return (0) }
            Method (_GSB) { Return (\\_SB.PCI0.CTRL.BASE) }
            Name (_CRS, ResourceTemplate () { Memory32Fixed (ReadWrite, 0xFEC10000, 0x1000) })
            Method (_MAT)
            {
                Local0 = Buffer () { 1, 12, 1, 0, 0, 0, 0xC1, 0xFE, 0, 0, 0, 0 }
                CreateDWordField (Local0, 8, GSI)
                GSI = \\_SB.PCI0.CTRL.MATB
                Return (Local0)
            }
        }
    }
}
"""


def _config(vendor: int, device: int, class_code: int, pin: int = 0) -> bytes:
    config = bytearray(256)
    struct.pack_into("<HHHHI", config, 0, vendor, device, 2, 0, class_code << 8)
    config[0x3D] = pin
    return bytes(config)


def kernel(*more: bytes) -> ModelKernel:
    """With the bridge unplugged. The card on its bus is known, and not there. `more`: entries of the MADT."""
    source = MemorySource(
        "a machine with a bridge to plug",
        SourceKind.SYSFS_TREE,
        tables=(table(ASL), RawTable("APIC", madt(cpu(0), cpu(1), ioapic(FIRST, 0), *more))),
        functions=(
            RawFunction(HOST, _config(0x8086, 0x29C0, 0x060000), {"vendor": "0x8086"}),
            RawFunction(CARD, _config(0x8086, 0x10D3, 0x020000, pin=1), {"vendor": "0x8086"}),
        ),
    )
    made = ModelKernel(source)
    made.vanish(CARD)
    return made


def controller(kernel: ModelKernel, *, bridge: bool, present: bool, base: int = PINS, mat: int | None = None) -> None:
    """What hardware says now: of the bridge, of the IOAPIC, its GSI base, and the one in its `_MAT`."""
    fields = struct.pack("<BBHI", bridge, present, base, base if mat is None else mat)
    kernel.write(HOST, _FIELDS, fields)


SPARE = IoapicModel(address=SECOND, id=1, version=(PINS - 1) << 16 | 0x20)
