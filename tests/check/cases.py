# SPDX-License-Identifier: MIT
"""For each rule of `dom0kit.check` a machine on which it fires, and the nearest one on which it does not.

The rules that decoders raise have theirs in `decoder_cases` and `aml_cases`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, Final

from dom0kit.finding import Finding
from dom0kit.source.interface import RawFunction, RawTable
from tests.acpi import asl
from tests.check.machine import (
    DOWNSTREAM,
    IO,
    MEMORY,
    ROOT_PORT,
    UPSTREAM,
    File,
    acpi,
    card,
    express,
    fadt,
    fn,
    gas,
    hpet,
    madt,
    mcfg,
    memory_map,
    port,
    resource,
    slit,
    srat,
    srat_cpu,
    srat_memory,
    told,
)
from tests.ioapic.tables import ioapic, local_apic, local_nmi, local_x2apic, override
from tests.iommu.tables import ENDPOINT, HPET, drhd, ivhd, rhsa, rmrr, scope

Machine = Callable[[], Iterable[Finding]]
Pair = tuple[Machine, Machine]
"""Where the rule fires, and where it does not."""

RAM: Final = (0x100000, 0x7FFFFFFF, "System RAM")
RESERVED: Final = (0xE0000000, 0xEFFFFFFF, "Reserved")
CPU: Final = local_apic(0, 0)
IOAPIC: Final = ioapic(2, 0xFEC00000, 0)
MADT: Final = madt(CPU, IOAPIC)


def dmar(*structures: bytes, flags: int = 1, width: int = 38) -> RawTable:
    """Flags: 1 interrupt remapping, 2 x2APIC opt out, 4 DMA protection opt in."""
    return acpi("DMAR", bytes((width, flags)) + bytes(10) + b"".join(structures))


def ivrs(*blocks: bytes) -> RawTable:
    return acpi("IVRS", struct.pack("<IQ", 1 | 48 << 8, 0) + b"".join(blocks))


def _fadt(bad: RawTable, good: RawTable | None = None) -> Pair:
    return lambda: told(bad), lambda: told(good or fadt())


TABLES: Final[dict[str, Pair]] = {
    "acpi.fadt-missing": (lambda: told(MADT), lambda: told(MADT, fadt())),
    "acpi.madt-missing": (lambda: told(fadt()), lambda: told(fadt(), MADT)),
    "acpi.mcfg-missing": (
        lambda: told(fadt(), card("00:01.0")),
        lambda: told(fadt(), card("00:01.0"), mcfg((0xE0000000, 0, 0, 255))),
    ),
    "acpi.fadt-sci": _fadt(fadt(sci=0), fadt({112: 1 << 20}, sci=0)),
    "acpi.fadt-fixed-hardware": _fadt(fadt({56: 0})),
    "acpi.fadt-register-length": _fadt(fadt({88: b"\2"})),
    "acpi.fadt-half-block": _fadt(fadt({90: b"\x01"})),
    "acpi.fadt-gpe-overlap": _fadt(
        fadt({80: 0x420, 84: 0x430, 92: b"\x08\x08\x10"}), fadt({80: 0x420, 84: 0x430, 92: b"\x08\x08\x20"})
    ),
    "acpi.fadt-register-width": _fadt(fadt({148: gas(0x400, 16)}), fadt({148: gas(0x400, 32)})),
    "acpi.fadt-reset-register": _fadt(fadt({112: 1 << 10}), fadt({112: 1 << 10, 116: gas(0xCF9)})),
    "acpi.fadt-msi-not-supported": _fadt(fadt({109: b"\x08\0"}), fadt({109: b"\x10\0"})),
    "acpi.fadt-aspm": _fadt(fadt({109: b"\x10\0"}), fadt({109: b"\x08\0"})),
    "acpi.fadt-apic-model": _fadt(fadt({112: 3 << 18}), fadt({112: 1 << 18})),
    "acpi.fadt-physical-destination": _fadt(fadt({112: 1 << 19}), fadt({112: 1 << 18})),
    "acpi.fadt-boot-profile": _fadt(fadt({45: b"\x77"}), fadt({45: b"\2"})),
    "acpi.dsdt-32-bit": (lambda: told(base="qemu-q35"), lambda: told(base="synthetic-amd")),
    "acpi.xsdt-missing": (
        lambda: told(_rsdp(xsdt=0)),
        lambda: told(_rsdp(xsdt=0x7000)),
    ),
    "acpi.hpet-address": (lambda: told(hpet(0xFED00010)), lambda: told(hpet())),
    "acpi.hpet-twice": (
        lambda: told(hpet(name="HPET1"), hpet(0xFED01000, name="HPET2")),
        lambda: told(hpet(name="HPET1"), hpet(0xFED01000, number=1, name="HPET2")),
    ),
    "acpi.spcr-gsi": (lambda: told(MADT, _spcr(gsi=99)), lambda: told(MADT, _spcr(gsi=4))),
}


def _rsdp(xsdt: int) -> RawTable:
    data = bytearray(struct.pack("<8sB6sBIIQB3x", b"RSD PTR ", 0, b"MADEUP", 2, 0x6000, 36, xsdt, 0))
    data[8] = -sum(data[:20]) & 0xFF
    data[32] = -sum(data) & 0xFF
    return RawTable("RSDP", bytes(data))


def _spcr(gsi: int) -> RawTable:
    return acpi("SPCR", b"\0\0\0\0" + gas(0x3F8) + struct.pack("<BBI", 2, 0, gsi) + bytes(26), revision=2)


REGION: Final = rmrr(0xE0100000, 0xE01FFFFF, scope(ENDPOINT, "00:14.0"))
UNIT: Final = drhd(0xFED90000, include_all=True)
XHCI: Final = fn("00:14.0", class_code=0x0C0330)

ADDRESSES: Final[dict[str, Pair]] = {
    "memory.registers-in-ram": (
        lambda: told(hpet(0x1000000), memory_map(RAM)),
        lambda: told(hpet(), memory_map(RAM)),
    ),
    "memory.registers-overlap": (
        lambda: told(hpet(0xFEC00000), MADT),
        lambda: told(hpet(), MADT),
    ),
    "memory.ecam-over-registers": (
        lambda: told(mcfg((0xF0000000, 0, 0, 255)), MADT),
        lambda: told(mcfg((0xF0000000, 0, 0, 63)), MADT),
    ),
    "iommu.unit-twice": (
        lambda: told(dmar(drhd(0xFED90000, scope(ENDPOINT, "00:02.0")), UNIT)),
        lambda: told(dmar(drhd(0xFED91000, scope(ENDPOINT, "00:02.0")), UNIT)),
    ),
    "iommu.region-not-reserved": (
        lambda: told(dmar(UNIT, rmrr(0xD0100000, 0xD01FFFFF)), memory_map(RESERVED)),
        lambda: told(dmar(UNIT, REGION), memory_map(RESERVED)),
    ),
    "iommu.region-in-ram": (
        lambda: told(dmar(UNIT, rmrr(0x1000000, 0x10FFFFF)), memory_map(RAM, RESERVED)),
        lambda: told(dmar(UNIT, REGION), memory_map(RAM, RESERVED)),
    ),
    "iommu.region-alignment": (
        lambda: told(dmar(UNIT, rmrr(0xE0100000, 0xE0100FFE))),
        lambda: told(dmar(UNIT, rmrr(0xE0100000, 0xE0100FFF))),
    ),
    "iommu.region-beyond-width": (
        lambda: told(dmar(UNIT, rmrr(1 << 40, (1 << 40) + 0xFFF))),
        lambda: told(dmar(UNIT, rmrr(1 << 38, (1 << 38) + 0xFFF))),
    ),
    "iommu.region-overlap": (
        lambda: told(dmar(UNIT, rmrr(0x1000, 0x2FFF), rmrr(0x2000, 0x3FFF))),
        lambda: told(dmar(UNIT, rmrr(0x1000, 0x2FFF), rmrr(0x3000, 0x3FFF))),
    ),
    "pci.bar-in-ram": (
        lambda: told(with_bar(0x1000000, 0x1000), memory_map(RAM)),
        lambda: told(with_bar(0xE0000000, 0x1000), memory_map(RAM)),
    ),
    "pci.bar-in-registers": (
        lambda: told(with_bar(0xFEC00000, 0x1000), MADT),
        lambda: told(with_bar(0xFEB00000, 0x1000), MADT),
    ),
}


def with_bar(address: int, size: int, flags: int = MEMORY, *, command: int = 7, **more: str) -> RawFunction:
    """A function with one BAR, as the register and as the kernel has it."""
    attributes = resource((address, size, flags)) | more
    return fn("00:03.0", {0x10: address | (flags == IO)}, command=command, attributes=attributes)


def root(
    prt: str = "Package () { 0x0003FFFF, 0, 0, 17 }",
    crs: str = "",
    more: str = "",
    *,
    hid: str = "PNP0A08",
    bbn: int = 0,
    name: str = "PCI0",
    osc: bool = True,
) -> str:
    """A root bridge in ASL, with a routing table of these entries."""
    osc_text = "Method (_OSC, 4) { Return (Arg3) }" if osc else ""
    window = crs or BUSES + MEMORY_WINDOW
    table = f"Name (_PRT, Package () {{ {prt} }})" if prt else ""
    return (
        f'Scope (\\_SB) {{ Device ({name}) {{ Name (_HID, EisaId ("{hid}")) Name (_CID, EisaId ("PNP0A03")) '
        f"Name (_BBN, {bbn}) Name (_CRS, ResourceTemplate () {{ {window} }}) {table} {osc_text} {more} }} }}"
    )


def bus_range(first: int, last: int) -> str:
    head = "WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode"
    return f"{head}, 0, {first}, {last}, 0, {last - first + 1})"


def memory_window(first: int, last: int, length: int | None = None) -> str:
    head = "DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite"
    return f"{head}, 0, {first:#x}, {last:#x}, 0, {last - first + 1 if length is None else length:#x})"


BUSES: Final = bus_range(0, 255)
MEMORY_WINDOW: Final = memory_window(0xC0000000, 0xDFFFFFFF)
PINNED: Final = fn("00:03.0", {0x3C: b"\x0b\1"})
"""A function with INTA and no MSI."""


def link(crs: str, prs: str, *, srs: bool = True) -> str:
    """A link device LNKA, with these interrupts."""
    method = "Method (_SRS, 1) { }" if srs else ""
    return (
        'Scope (\\_SB) { Device (LNKA) { Name (_HID, EisaId ("PNP0C0F")) Name (_UID, 1) '
        f"Name (_CRS, ResourceTemplate () {{ {crs} }}) Name (_PRS, ResourceTemplate () {{ {prs} }}) {method} }} }}"
    )


def irq(*numbers: int, how: str = "Level, ActiveLow, Shared") -> str:
    return f"IRQ ({how}) {{ {', '.join(map(str, numbers))} }}"


THROUGH_LINK: Final = "Package () { 0x0003FFFF, 0, \\_SB.LNKA, 0 }"


@cache
def aml(body: str, *parts: RawTable, revision: int = 2) -> tuple[Finding, ...]:
    """A machine with this ASL, a FADT, a MADT, and a function with INTA at 00:03.0."""
    return told(asl.table(body, revision=revision), fadt(), MADT, PINNED, *parts)


def good() -> tuple[Finding, ...]:
    """A root bridge whose routing table, windows and motherboard device fit the machine."""
    return aml(link(irq(10), irq(10, 11)) + root() + MOTHERBOARD, mcfg((0xE0000000, 0, 0, 255)))


MOTHERBOARD: Final = (
    'Scope (\\_SB) { Device (RES0) { Name (_HID, EisaId ("PNP0C02")) '
    "Name (_CRS, ResourceTemplate () { Memory32Fixed (ReadWrite, 0xE0000000, 0x10000000) }) } }"
)
EDGE: Final = "Edge, ActiveHigh, Exclusive"


def _many(prt: str, madt_table: RawTable = MADT, body: str = "", functions: int = 2) -> tuple[Finding, ...]:
    """Functions without MSI at 00:03.0 and up, whose INTA lead where `prt` says for each device."""
    entries = ", ".join(prt.format(device) for device in range(3, 3 + functions))
    cards = [fn(f"00:{device:02x}.0", {0x3C: b"\x0b\1"}) for device in range(3, 3 + functions)]
    return told(asl.table(body + root(entries)), fadt(), madt_table, *cards)


ALL_TO_20: Final = "Package () {{ 0x{:04x}FFFF, 0, 0, 20 }}"
TO_9: Final = "Package () {{ 0x{:04x}FFFF, 0, 0, 9 }}"

INTERRUPTS: Final[dict[str, Pair]] = {
    "aml.prt-duplicate": (
        lambda: aml(root("Package () { 0x0003FFFF, 0, 0, 17 }, Package () { 0x0003FFFF, 0, 0, 18 }")),
        good,
    ),
    "aml.prt-function": (lambda: aml(root("Package () { 0x00030000, 0, 0, 17 }")), good),
    "aml.link-outside-prs": (lambda: aml(link(irq(5), irq(10, 11)) + root()), good),
    "aml.link-without-choice": (lambda: aml(link(irq(10), irq(10, 11), srs=False) + root()), good),
    "aml.link-without-prs": (lambda: aml(link(irq(), irq()) + root()), good),
    "ioapic.link-unset": (lambda: aml(link(irq(), irq(10, 11)) + root(THROUGH_LINK)), good),
    "ioapic.intx-edge": (lambda: aml(link(irq(10, how=EDGE), irq(10, how=EDGE)) + root(THROUGH_LINK)), good),
    "ioapic.isa-shared": (
        lambda: _many("Package () {{ 0x{:04x}FFFF, 0, 0, 2 }}", madt(CPU, IOAPIC, override(0, 2, 0))),
        lambda: _many(ALL_TO_20, madt(CPU, IOAPIC, override(0, 2, 0))),
    ),
    "ioapic.override-mismatch": (
        lambda: _many("Package () {{ 0x{:04x}FFFF, 0, 0, 20 }}", madt(CPU, IOAPIC, override(9, 20, 0xD))),
        lambda: _many("Package () {{ 0x{:04x}FFFF, 0, 0, 20 }}", madt(CPU, IOAPIC, override(9, 20, 0xF))),
    ),
    "ioapic.sci-edge": (
        lambda: told(fadt(), madt(CPU, IOAPIC, override(9, 9, 0x5))),
        lambda: told(fadt(), madt(CPU, IOAPIC, override(9, 9, 0xD))),
    ),
    "ioapic.sci-shared": (lambda: _many(TO_9), lambda: _many(ALL_TO_20)),
    "ioapic.sci-signal": (
        lambda: _many(TO_9, madt(CPU, IOAPIC, override(9, 9, 0xD))),
        lambda: _many(TO_9, madt(CPU, IOAPIC, override(9, 9, 0xF))),
    ),
    "irq.shared-by-groups": (lambda: _many(ALL_TO_20), lambda: _many(ALL_TO_20, functions=1)),
    "irq.crowded": (lambda: _many(ALL_TO_20, functions=9), lambda: _many(ALL_TO_20, functions=8)),
    "ioapic.pins-unused": (
        lambda: _many(ALL_TO_20, madt(CPU, IOAPIC, ioapic(3, 0xFEC01000, 24))),
        lambda: _many(ALL_TO_20),
    ),
}

ROOT_BRIDGES: Final[dict[str, Pair]] = {
    "aml.root-bus-missing": (lambda: aml(root(bbn=0x80)), good),
    "aml.root-bridge-without-prt": (lambda: aml(root("")), good),
    "aml.bus-number-differs": (lambda: aml(root(crs=bus_range(1, 9) + MEMORY_WINDOW)), good),
    "aml.root-buses-overlap": (
        lambda: aml(root(crs=bus_range(0, 9) + MEMORY_WINDOW) + root(name="PCI1", bbn=9, crs=bus_range(9, 12))),
        lambda: aml(root(crs=bus_range(0, 8) + MEMORY_WINDOW) + root(name="PCI1", bbn=9, crs=bus_range(9, 12))),
    ),
    "pci.bus-outside-root": (lambda: _below(0, 3), lambda: _below(0, 4)),
    "pci.bar-outside-root": (
        lambda: told(asl.table(root()), with_bar(0xB0000000, 0x1000)),
        lambda: told(asl.table(root()), with_bar(0xC0000000, 0x1000)),
    ),
    "aml.root-windows-overlap": (
        lambda: aml(root() + root(name="PCI1", bbn=9, crs=memory_window(0xDFFF0000, 0xDFFFFFFF))),
        lambda: aml(root() + root(name="PCI1", bbn=9, crs=memory_window(0xBFFF0000, 0xBFFFFFFF))),
    ),
    "aml.root-window-in-ram": (
        lambda: told(asl.table(root()), memory_map((0xC8000000, 0xC8FFFFFF, "System RAM"))),
        lambda: told(asl.table(root()), memory_map(RAM)),
    ),
    "aml.root-window-length": (
        lambda: told(RawTable("DSDT", _longer(asl.table(root()).data))),
        good,
    ),
    "aml.root-bridge-no-window": (
        lambda: told(asl.table(root(crs=BUSES)), with_bar(0xC0000000, 0x1000)),
        lambda: told(asl.table(root()), with_bar(0xC0000000, 0x1000)),
    ),
    "aml.root-bridge-no-osc": (lambda: aml(root(osc=False)), good),
    "aml.pxm-unknown": (lambda: _numa("Name (_PXM, 7)"), lambda: _numa("Name (_PXM, 1)")),
    "aml.pxm-missing": (lambda: _numa(""), lambda: _numa("Name (_PXM, 1)")),
    "memory.ecam-not-reserved": (
        lambda: told(
            asl.table(root()), mcfg((0xE0000000, 0, 0, 255)), memory_map(RAM, (0xFE000000, 0xFEFFFFFF, "Reserved"))
        ),
        lambda: told(asl.table(root()), mcfg((0xE0000000, 0, 0, 255)), memory_map(RAM, RESERVED)),
    ),
    "memory.ecam-not-in-namespace": (lambda: aml(root(), mcfg((0xE0000000, 0, 0, 255))), good),
    "memory.ecam-short": (
        lambda: aml(root() + MOTHERBOARD, mcfg((0xEF000000, 0, 0, 31))),
        lambda: aml(root() + MOTHERBOARD, mcfg((0xEF000000, 0, 0, 15))),
    ),
}


def _below(first: int, last: int) -> tuple[Finding, ...]:
    """A root port with bus 4 below a root bridge with these buses."""
    body = root(crs=bus_range(first, last) + MEMORY_WINDOW)
    return told(asl.table(body), port("00:1c.0", (4, 4)), card("04:00.0"))


def _longer(data: bytes) -> bytes:
    """The memory window's length, which iasl would not have let pass."""
    return data.replace(struct.pack("<I", 0x20000000), struct.pack("<I", 0x30000000))


def _numa(pxm: str) -> tuple[Finding, ...]:
    domains = srat(srat_cpu(0, 0), srat_memory(0, 1 << 30, 0), srat_memory(1 << 30, 1 << 30, 1))
    return told(asl.table(root(more=pxm)), MADT, domains)


TWO_DOMAINS: Final = (srat_memory(0, 1 << 30, 0), srat_memory(1 << 30, 1 << 30, 1))

PROCESSORS: Final[dict[str, Pair]] = {
    "cpu.unreachable-without-remapping": (
        lambda: told(madt(CPU, IOAPIC, local_x2apic(1, 0x100))),
        lambda: told(madt(CPU, IOAPIC, local_x2apic(1, 0x100)), dmar(UNIT)),
    ),
    "cpu.x2apic-opted-out": (
        lambda: told(madt(CPU, IOAPIC, local_x2apic(1, 0x100)), dmar(UNIT, flags=3)),
        lambda: told(madt(CPU, IOAPIC, local_apic(1, 1)), dmar(UNIT, flags=3)),
    ),
    "cpu.apic-address": (lambda: told(madt(CPU, address=0xFEE10000)), lambda: told(madt(CPU))),
    "cpu.nmi-input": (lambda: told(madt(CPU, local_nmi(0xFF, 0, 2))), lambda: told(madt(CPU, local_nmi(0xFF, 0, 1)))),
    "cpu.nmi-lint0": (lambda: told(madt(CPU, local_nmi(0xFF, 0, 0))), lambda: told(madt(CPU, local_nmi(0xFF, 0, 1)))),
    "cpu.without-device": (
        lambda: _with_processor(madt(CPU, local_apic(1, 1))),
        lambda: _with_processor(madt(CPU)),
    ),
    "cpu.single-with-many-places": (
        lambda: told(madt(CPU, *(local_apic(uid, uid, 0) for uid in range(1, 4)))),
        lambda: told(madt(CPU, *(local_apic(uid, uid, 0) for uid in range(1, 3)))),
    ),
    "memory.domain-without-memory": (
        lambda: told(madt(CPU), srat(srat_cpu(0, 2), *TWO_DOMAINS)),
        lambda: told(madt(CPU), srat(srat_cpu(0, 1), *TWO_DOMAINS)),
    ),
    "memory.slit-asymmetric": (
        lambda: told(slit(b"\x0a\x14", b"\x15\x0a")),
        lambda: told(slit(b"\x0a\x14", b"\x14\x0a")),
    ),
    "memory.slit-uniform": (
        lambda: told(slit(*(bytes(10 if at == row else 20 for at in range(4)) for row in range(4)))),
        lambda: told(slit(*(bytes(10 + 10 * abs(at - row) for at in range(4)) for row in range(4)))),
    ),
    "memory.slit-missing": (
        lambda: told(srat(*TWO_DOMAINS, srat_memory(2 << 30, 1 << 30, 2))),
        lambda: told(srat(*TWO_DOMAINS)),
    ),
}


def _with_processor(table: RawTable) -> tuple[Finding, ...]:
    device = 'Scope (\\_SB) { Device (CPU0) { Name (_HID, "ACPI0007") Name (_UID, 0) } }'
    return told(asl.table(device), table)


def _ats(enabled: bool) -> bytes:
    return struct.pack("<HH", 0, enabled << 15)


IOMMUS: Final[dict[str, Pair]] = {
    "iommu.none": (lambda: told(fadt(), XHCI), lambda: told(fadt(), XHCI, dmar(UNIT))),
    "iommu.no-interrupt-remapping": (lambda: told(dmar(UNIT, flags=0)), lambda: told(dmar(UNIT))),
    "iommu.x2apic-opt-out": (lambda: told(dmar(UNIT, flags=3)), lambda: told(dmar(UNIT))),
    "iommu.hpet-unnamed": (
        lambda: told(dmar(UNIT), hpet()),
        lambda: told(dmar(drhd(0xFED90000, scope(HPET, "f0:0f.0"), include_all=True)), hpet()),
    ),
    "iommu.unit-idle": (
        lambda: told(dmar(drhd(0xFED91000, scope(ENDPOINT, "00:02.0")), UNIT), XHCI),
        lambda: told(dmar(drhd(0xFED91000, scope(ENDPOINT, "00:14.0")), UNIT), XHCI),
    ),
    "iommu.no-catch-all": (
        lambda: told(dmar(drhd(0xFED91000, scope(ENDPOINT, "00:14.0")))),
        lambda: told(dmar(UNIT)),
    ),
    "iommu.region-keeps-function": (
        lambda: told(dmar(UNIT, REGION), fn("00:14.0")),
        lambda: told(dmar(UNIT, REGION), XHCI),
    ),
    "iommu.old-blocks-only": (
        lambda: told(ivrs(ivhd(0x10, 2, 0xFEB80000))),
        lambda: told(ivrs(ivhd(0x11, 2, 0xFEB80000))),
    ),
    "iommu.dma-opt-in": (lambda: told(dmar(UNIT, flags=5)), lambda: told(dmar(UNIT))),
    "iommu.unit-domain-missing": (
        lambda: told(dmar(UNIT), srat(*TWO_DOMAINS)),
        lambda: told(dmar(UNIT, rhsa(0xFED90000, 0)), srat(*TWO_DOMAINS)),
    ),
    "iommu.ats-unserved": (
        lambda: told(fadt(), fn("00:03.0", standard=[express()], extended=[(0xF, _ats(True))])),
        lambda: told(fadt(), fn("00:03.0", standard=[express()], extended=[(0xF, _ats(False))])),
    ),
}

PORT: Final = port("00:1c.0", (1, 1))
SLOT: Final = (0x40 | 5 << 19, 0, 0x40)
"""Hot-plug capable, number 5, a card in it."""


def _link(bad: dict[str, Any], good_parts: dict[str, Any] | None = None, **above: Any) -> Pair:
    """A card below a port, with other registers of its capability; and the usual card below the same port."""
    upper = port("00:1c.0", (1, 1), **above)
    return lambda: told(upper, card(**bad)), lambda: told(upper, card(**(good_parts or {})))


def _port(bad: dict[str, Any], good_parts: dict[str, Any]) -> Pair:
    """A port with a card below it."""
    return (
        lambda: told(port("00:1c.0", (1, 1), **bad), card()),
        lambda: told(port("00:1c.0", (1, 1), **good_parts), card()),
    )


ARI: Final = (0xE, struct.pack("<HH", 9 << 8, 0))
AER: Final = (1, bytes(0x34))


def _sriov(total: int) -> tuple[int, bytes]:
    body = struct.pack("<IHHHHHHHHHH", 0, 0, 0, total, total, 0, 0, 0x80, 2, 0, 0x1515)
    return 0x10, body.ljust(0x3C, b"\0")


LINKS: Final[dict[str, Pair]] = {
    "pci.link-slow": _link({"link": (0x13, 0, 0x11)}),
    "pci.link-narrow": _link({"link": (0x43, 0, 0x23)}, {"link": (0x43, 0, 0x43)}, link=(0x43, 0, 0x23)),
    "pci.link-differs": _link({"link": (0x13, 0, 0x12)}),
    "pci.link-training": _port({"link": (0x13, 0, 0x813)}, {"link": (0x13, 0, 0x13)}),
    "pci.link-inactive": _port(
        {"link": (0x100013, 0, 0x13), "slot": SLOT}, {"link": (0x100013, 0, 0x2013), "slot": SLOT}
    ),
    "pci.link-disabled": _port({"link": (0x13, 0x10, 0x13)}, {}),
    "pci.payload-too-large": _link({"device": (0x8001, 0x20, 0)}, {"device": (0x8001, 0, 0)}, device=(0x8001, 0, 0)),
    "pci.payload-unsupported": _link({"device": (0x8000, 0x20, 0)}, {"device": (0x8001, 0x20, 0)}),
    "pci.payload-small": _link({"device": (0x8001, 0, 0)}),
    "pci.aspm-unsupported": _link({"link": (0x13, 2, 0x13)}, {"link": (0x813, 2, 0x13)}),
    "pci.aspm-one-sided": _link({"link": (0x813, 2, 0x13)}, link=(0x813, 0, 0x13)),
    "pci.aspm-latency": _link({"link": (0x20813, 2, 0x13)}, {"link": (0x00813, 2, 0x13)}, link=(0x00813, 2, 0x13)),
    "pci.clock-differs": _link({"link": (0x13, 0x40, 0x13)}),
    "pci.ltr-path": _link({"device2": (0x800, 0x400)}),
    "pci.ari-off": (
        lambda: told(PORT, fn("01:00.0", standard=[express()], extended=[ARI])),
        lambda: told(
            port("00:1c.0", (1, 1), device2=(0x20, 0x20)), fn("01:00.0", standard=[express()], extended=[ARI])
        ),
    ),
    "pci.sriov-no-room": (
        lambda: told(PORT, fn("01:00.0", standard=[express()], extended=[_sriov(128)])),
        lambda: told(PORT, fn("01:00.0", standard=[express()], extended=[_sriov(8)])),
    ),
    "pci.aer-missing-above": (
        lambda: told(PORT, fn("01:00.0", standard=[express()], extended=[AER])),
        lambda: told(PORT, card()),
    ),
    "pci.slot-number-twice": (
        lambda: told(port("00:1c.0", (1, 1), slot=SLOT), port("00:1c.1", (2, 2), slot=SLOT)),
        lambda: told(port("00:1c.0", (1, 1), slot=SLOT), port("00:1c.1", (2, 2), slot=(6 << 19, 0, 0))),
    ),
    "pci.slot-power-fault": _port({"slot": (0x42 | 5 << 19, 0, 0x42)}, {"slot": (0x42 | 5 << 19, 0, 0x40)}),
    "pci.slot-no-buses": (
        lambda: told(port("00:1c.0", (1, 1), slot=SLOT)),
        lambda: told(port("00:1c.0", (1, 8), slot=SLOT)),
    ),
    "pci.slot-no-memory": (
        lambda: told(port("00:1c.0", (1, 1), slot=SLOT)),
        lambda: told(port("00:1c.0", (1, 1), {0x20: struct.pack("<HH", 0xE000, 0xE010)}, slot=SLOT)),
    ),
}

ACS: Final = (0xD, struct.pack("<HH", 0x1D, 0x1D))
ALONE: Final = fn("00:1c.0", buses=(1, 1), standard=[express(ROOT_PORT)], extended=[ACS])


def _driven(above_command: int, command: int = 7) -> tuple[Finding, ...]:
    """A function with a driver, below a port."""
    upper = fn("00:1c.0", buses=(1, 1), standard=[express(ROOT_PORT)], command=above_command)
    attributes = resource((0xE0000000, 0x1000, MEMORY)) | {"driver": "nvme"}
    return told(upper, fn("01:00.0", {0x10: 0xE0000000}, standard=[express()], command=command, attributes=attributes))


DEVICES: Final[dict[str, Pair]] = {
    "pci.acs-missing": (lambda: told(PORT, card()), lambda: told(ALONE, card())),
    "pci.group-of-slots": (lambda: _switch(()), lambda: _switch([ACS])),
    "pci.function-zero-absent": (
        lambda: told(fn("00:1f.3")),
        lambda: told(fn("00:1f.0", {0x0E: b"\x80"}), fn("00:1f.3")),
    ),
    "pci.multifunction-unmarked": (
        lambda: told(fn("00:1f.0"), fn("00:1f.3")),
        lambda: told(fn("00:1f.0", {0x0E: b"\x80"}), fn("00:1f.3")),
    ),
    "pci.bar-unassigned": (lambda: told(with_bar(0, 0x1000)), lambda: told(with_bar(0xE0000000, 0x1000))),
    "pci.decode-off": (
        lambda: told(with_bar(0xE0000000, 0x1000, command=0, driver="nvme")),
        lambda: told(with_bar(0xE0000000, 0x1000, driver="nvme")),
    ),
    "pci.vga-twice": (
        lambda: told(port("00:01.0", (1, 1), {0x3E: b"\x08"}), port("00:02.0", (2, 2), {0x3E: b"\x08"})),
        lambda: told(port("00:01.0", (1, 1), {0x3E: b"\x08"}), port("00:02.0", (2, 2))),
    ),
    "pci.rom-enabled": (
        lambda: told(fn("00:03.0", {0x30: 0xE0000001})),
        lambda: told(fn("00:03.0", {0x30: 0xE0000000})),
    ),
    "pci.class-undefined": (lambda: told(fn("00:03.0", class_code=0)), lambda: told(fn("00:03.0"))),
    "pci.express-without-msi": (
        lambda: told(card("00:03.0", {0x3D: b"\1"})),
        lambda: told(fn("00:03.0", {0x3D: b"\1"}, standard=[express(), struct.pack("<HHIH", 5, 0, 0, 0)])),
    ),
    "pci.fatal-error": (
        lambda: told(card("00:03.0", device=(0x8001, 0, 4))),
        lambda: told(card("00:03.0", device=(0x8001, 0, 1))),
    ),
    "pci.parity": (lambda: told(fn("00:03.0", {6: b"\x10\x80"})), lambda: told(fn("00:03.0"))),
    "pci.system-error": (lambda: told(fn("00:03.0", {6: b"\x10\x40"})), lambda: told(fn("00:03.0"))),
    "pci.phantom-enabled": (
        lambda: told(card("00:03.0", device=(0x8009, 0x200, 0))),
        lambda: told(card("00:03.0", device=(0x8009, 0, 0))),
    ),
    "pci.completion-timeout-off": (
        lambda: told(card("00:03.0", device2=(0x10, 0x10))),
        lambda: told(card("00:03.0", device2=(0x10, 0))),
    ),
    "pci.master-behind-silent-bridge": (lambda: _driven(3), lambda: _driven(7)),
    "pci.bridge-decode-off": (lambda: _driven(4), lambda: _driven(7)),
    "pci.reset-shared": (
        lambda: told(PORT, fn("01:00.0", {0x0E: b"\x80"}), fn("01:00.1")),
        lambda: told(PORT, fn("01:00.0")),
    ),
    "pci.vendor-invalid": (lambda: told(fn("00:03.0", ids=(0, 1))), lambda: told(fn("00:03.0"))),
}


def _switch(extended: Iterable[tuple[int, bytes]]) -> tuple[Finding, ...]:
    """A switch with two slots, each with a card."""
    slots = [
        fn(
            f"02:0{number}.0",
            buses=(3 + number, 3 + number),
            standard=[express(DOWNSTREAM, slot=SLOT)],
            extended=extended,
        )
        for number in (0, 1)
    ]
    upper = fn("01:00.0", buses=(2, 4), standard=[express(UPSTREAM)])
    top = fn("00:1c.0", buses=(1, 4), standard=[express(ROOT_PORT)], extended=extended)
    return told(top, upper, *slots, card("03:00.0"), card("04:00.0"))


HYPERVISORS: Final[dict[str, Pair]] = {
    "xen.segment": (lambda: told(fn("10000:00:03.0")), lambda: told(fn("0001:00:03.0"))),
    "xen.alias": (
        lambda: told(fn("00:03.0", ids=(0x1B4B, 0x9123))),
        lambda: told(fn("00:03.0", {0x0E: b"\x80"}, ids=(0x1B4B, 0x9123)), fn("00:03.1", ids=(0x1B4B, 0x91A4))),
    ),
    "xen.pvh-no-iommu": (lambda: told(fadt(), XHCI), lambda: told(fadt(), XHCI, dmar(UNIT))),
    "xen.pvh-sriov": (
        lambda: told(fn("00:03.0", standard=[express()], extended=[_sriov(8)])),
        lambda: told(fn("00:03.0", standard=[express()], extended=[_sriov(0)])),
    ),
    "xen.pvh-intx": (
        lambda: aml(root()),
        lambda: told(asl.table(root()), fadt(), MADT, fn("00:03.0")),
    ),
    "xen.ioapic-ids": (
        lambda: told(madt(CPU, IOAPIC, ioapic(2, 0xFEC01000, 24)), dmar(UNIT)),
        lambda: told(madt(CPU, IOAPIC, ioapic(3, 0xFEC01000, 24)), dmar(UNIT)),
    ),
    "xen.many-cpus": (
        lambda: told(madt(*(local_x2apic(id, 0x200 + id) for id in range(513)))),
        lambda: told(madt(*(local_x2apic(id, 0x200 + id) for id in range(512)))),
    ),
    "hvcore.processors": (lambda: told(dmar(UNIT)), lambda: told(ivrs(ivhd(0x11, 2, 0xFEB80000)))),
    "hvcore.limits": (
        lambda: told(madt(CPU, *(ioapic(id, 0xF0000000 + (id << 12), id * 200) for id in range(100)))),
        lambda: told(madt(CPU, *(ioapic(id, 0xF0000000 + (id << 12), id * 100) for id in range(100)))),
    ),
}


def _named(**names: str) -> File:
    """What a machine calls itself."""
    return File({f"sys/class/dmi/id/{name}": f"{value}\n" for name, value in names.items()})


MSI: Final = struct.pack("<HHIH", 5, 0, 0, 0)

KNOWN_FAULTS: Final[dict[str, Pair]] = {
    "msi.known-broken": (
        lambda: told(fn("00:03.0", {8: b"\1"}, ids=(0x8086, 0x1547))),
        lambda: told(fn("00:03.0", {8: b"\2"}, ids=(0x8086, 0x1547))),
    ),
    "msi.interrupt-disable": (
        lambda: told(fn("00:03.0", ids=(0x1969, 0x1063), standard=[MSI])),
        lambda: told(fn("00:03.0", ids=(0x1969, 0x1063))),
    ),
    "pci.intx-not-maskable": (
        lambda: told(fn("00:03.0", {0x3D: b"\1"}, ids=(0x8086, 0x1572))),
        lambda: told(fn("00:03.0", ids=(0x8086, 0x1572))),
    ),
    "pci.aspm-known-broken": (
        lambda: told(fn("00:03.0", ids=(0x8086, 0x10A7), standard=[express(link=(0xC13, 1, 0x13))])),
        lambda: told(fn("00:03.0", ids=(0x8086, 0x10A7), standard=[express(link=(0xC13, 2, 0x13))])),
    ),
    "iommu.ats-known-broken": (
        lambda: told(fn("00:03.0", ids=(0x1002, 0x98E4), standard=[express()], extended=[(0xF, _ats(True))])),
        lambda: told(fn("00:03.0", ids=(0x1002, 0x98E4), standard=[express()], extended=[(0xF, _ats(False))])),
    ),
    "aml.known-broken": (
        lambda: told(_named(sys_vendor="Acer", product_name="Spin SP513-54N")),
        lambda: told(_named(sys_vendor="Acer", product_name="Spin SP513-53N")),
    ),
    "pci.bars-not-compliant": (
        lambda: told(fn("00:03.0", ids=(0x8086, 0x6F60))),
        lambda: told(fn("00:03.0", ids=(0x8086, 0x6F61))),
    ),
}

SILENT: Final[tuple[tuple[str, Machine], ...]] = (
    ("acpi.fadt-reset-register", lambda: told(fadt())),
    ("acpi.fadt-fixed-hardware", lambda: told(fadt({56: 0, 148: gas(0x400, 32)}))),
    ("acpi.fadt-sci", lambda: told(fadt())),
    ("acpi.mcfg-missing", lambda: told(fadt(), fn("00:03.0"))),
    ("aml.root-bridge-no-osc", lambda: aml(root(hid="PNP0A03", osc=False))),
    ("aml.root-bus-missing", lambda: aml_with_vmd()),
    ("aml.link-outside-prs", lambda: aml(link(irq(10), irq()) + root())),
    ("aml.link-without-choice", lambda: aml(link(irq(10), irq(10), srs=False) + root())),
    ("ioapic.isa-shared", lambda: _many(TO_9, madt(CPU, IOAPIC, override(9, 9, 0xF)))),
    ("ioapic.sci-shared", lambda: _many(ALL_TO_20)),
    ("irq.shared-by-groups", lambda: _with_messages()),
    ("iommu.none", lambda: told(fadt())),
    ("iommu.unit-idle", lambda: told(dmar(UNIT), XHCI)),
    ("iommu.ats-unserved", lambda: told(fn("00:03.0", standard=[express()], extended=[(0xF, _ats(True))]))),
    ("xen.alias", lambda: told(fn("00:03.0", ids=(0x1B4B, 0x0001)))),
    ("pci.acs-missing", lambda: told(fn("00:1c.0", buses=(1, 1), size=256), fn("01:00.0"))),
    ("pci.bar-unassigned", lambda: told(_ide())),
    ("pci.decode-off", lambda: told(with_bar(0xE0000000, 0x1000, command=0, driver="vfio-pci"))),
    ("pci.function-zero-absent", lambda: told(PORT, card(), card("01:01.3"))),
    ("pci.link-narrow", lambda: told(port("00:1c.0", (1, 1), link=(0x23, 0, 0x23)), card(link=(0x43, 0, 0x23)))),
    ("pci.link-inactive", lambda: told(port("00:1c.0", (1, 1), link=(0x13, 0, 0x13), slot=SLOT))),
    ("pci.payload-too-large", lambda: _switch(())),
    ("pci.vga-twice", lambda: told(PORT, port("00:1d.0", (2, 2)))),
    ("memory.registers-in-ram", lambda: told(MADT, hpet())),
    ("memory.slit-uniform", lambda: told(slit(b"\x0a\x14", b"\x14\x0a"))),
    ("memory.registers-in-ram", lambda: told(hpet(0x80000000), memory_map(RAM))),
    ("memory.registers-overlap", lambda: told(hpet(0xFEC00400), MADT)),
    ("iommu.region-in-ram", lambda: told(dmar(UNIT, rmrr(0x80000000, 0x80000FFF)), memory_map(RAM))),
    ("iommu.unit-domain-missing", lambda: told(ivrs(ivhd(0x11, 2, 0xFEB80000)), srat(*TWO_DOMAINS))),
    ("iommu.ats-known-broken", lambda: told(_e2000(revision=0x20))),
    ("xen.segment", lambda: told(fn("ffff:00:03.0"))),
    ("pci.link-inactive", lambda: told(_empty_slot(control=0x400))),
    ("pci.slot-number-twice", lambda: told(*(port(f"00:1c.{n}", (n + 1, n + 1), slot=(0x40, 0, 0)) for n in (0, 1)))),
    ("pci.slot-no-memory", lambda: told(port("00:1c.0", (1, 1), {0x24: b"\x01\xe0\x01\xe0"}, slot=SLOT))),
    ("pci.acs-missing", lambda: told(*_behind_a_bridge())),
    ("pci.bridge-decode-off", lambda: _driven(4, command=5)),
    ("pci.bar-outside-root", lambda: told(asl.table(root()), with_bar(0xDFFFF000, 0x1000))),
    ("aml.root-windows-overlap", lambda: _two_windows(0xE0000000)),
    ("acpi.fadt-register-length", lambda: told(fadt({80: 0x420, 84: 0x430, 92: b"\x08\x08"}))),
    ("acpi.fadt-register-length", lambda: told(fadt({64: 0, 88: b"\x04", 91: b"\x00", 76: 0}))),
    ("pci.aspm-latency", lambda: told(port("00:1c.0", (1, 1), link=(0x813, 0, 0x13)), card(link=(0x20813, 2, 0x13)))),
    ("pci.express-without-msi", lambda: told(port("00:1c.0", (1, 1), {0x3D: b"\1"}))),
    ("xen.pvh-intx", lambda: told(asl.table(root()), fadt(), MADT, fn("00:03.0", {0x3D: b"\1"}, buses=(1, 1)))),
    ("pci.link-training", lambda: told(card("00:03.0", link=(0x13, 0, 0x813)))),
    ("iommu.unit-domain-missing", lambda: told(dmar(UNIT), srat(srat_memory(0, 1 << 30, 0)))),
    ("memory.registers-in-ram", lambda: told(mcfg((0, 0, 16, 31)), memory_map(RAM))),
    ("aml.bus-number-differs", lambda: told(asl.table(UNCERTAIN), PINNED)),
    ("pci.bus-outside-root", lambda: told(asl.table(UNCERTAIN), port("00:1c.0", (12, 12)), fn("0c:00.0"))),
    ("aml.root-bridge-no-window", lambda: told(asl.table(UNCERTAIN), with_bar(0xC0000000, 0x1000))),
)
"""Further machines on which a rule is silent: each leaves out one thing that it looks for."""


UNCERTAIN: Final = """Scope (\\_SB) { Device (PCI0) {
    Name (_HID, EisaId ("PNP0A08")) Name (_CID, EisaId ("PNP0A03")) Name (_BBN, 0)
    OperationRegion (HARD, SystemMemory, 0x12345000, 4) Field (HARD, DWordAcc, NoLock, Preserve) { WARE, 32 }
    Name (BUFF, ResourceTemplate () { WordBusNumber (
        ResourceProducer, MinFixed, MaxFixed, PosDecode, 0, 1, 9, 0, 9) })
    Method (_CRS) { If (WARE) { Return (Buffer () { 0x79, 0 }) } Return (BUFF) } } }"""
"""A root bridge whose _CRS depends on hardware that nobody recorded: what it gives is no ground for a finding."""

FIRING_TOO: Final[tuple[tuple[str, Machine], ...]] = (
    ("acpi.fadt-register-length", lambda: told(fadt({89: b"\1"}))),
    ("acpi.fadt-register-length", lambda: told(fadt({91: b"\5"}))),
    ("acpi.fadt-register-length", lambda: told(fadt({80: 0x420, 92: b"\7"}))),
    ("acpi.fadt-register-length", lambda: told(fadt({84: 0x420, 93: b"\7"}))),
    ("memory.registers-in-ram", lambda: told(madt(CPU, address=0x1000000), memory_map(RAM))),
    ("memory.registers-in-ram", lambda: told(madt(CPU, ioapic(2, 0x1000000, 0)), memory_map(RAM))),
    ("memory.registers-in-ram", lambda: told(dmar(drhd(0x1000000)), memory_map(RAM))),
    ("memory.registers-in-ram", lambda: told(mcfg((0x1000000, 0, 0, 0)), memory_map(RAM))),
    ("memory.registers-in-ram", lambda: told(hpet(0x7FFFFC00), memory_map(RAM))),
    ("iommu.region-in-ram", lambda: told(dmar(UNIT, rmrr(0x7FFFF000, 0x80000FFF)), memory_map(RAM))),
    ("iommu.region-overlap", lambda: told(dmar(UNIT, rmrr(0, 0x5FFF), rmrr(0x1000, 0x1FFF), rmrr(0x3000, 0x3FFF)))),
    ("iommu.region-overlap", lambda: told(dmar(UNIT, rmrr(0x1000, 0x2FFF), rmrr(0x2FFF, 0x3FFF)))),
    ("iommu.ats-known-broken", lambda: told(_e2000(revision=0x1F))),
    ("xen.segment", lambda: told(fn("10000:00:03.0"))),
    ("pci.link-inactive", lambda: told(_empty_slot(control=0))),
    ("pci.bar-outside-root", lambda: told(asl.table(root()), with_bar(0xDFFFF000, 0x2000))),
    ("aml.root-windows-overlap", lambda: _two_windows(0xDFFFFFFF)),
    ("cpu.unreachable-without-remapping", lambda: told(madt(CPU, local_x2apic(1, 0x100)), dmar(UNIT, flags=0))),
)
"""Further machines on which a rule fires: one for each kind of thing that it looks at, and its edges."""


def _e2000(revision: int) -> RawFunction:
    """An Intel IPU with its translation services on."""
    capabilities = {"standard": [express()], "extended": [(0xF, _ats(True))]}
    return fn("00:03.0", {8: bytes((revision,))}, ids=(0x8086, 0x1452), **capabilities)  # type: ignore[arg-type]


def _empty_slot(control: int) -> RawFunction:
    """A port without a link, with a card in its slot, which has a power controller."""
    return port("00:1c.0", (1, 1), link=(0x100013, 0, 0x13), slot=(0x42 | 5 << 19, control, 0x40))


def _behind_a_bridge() -> tuple[RawFunction, ...]:
    """Functions that are together because a conventional bridge gives them its id, not for want of ACS."""
    bridge = fn("01:00.0", buses=(2, 2), standard=[express(7)])
    return fn("00:1c.0", buses=(1, 2), standard=[express(ROOT_PORT)], extended=[ACS]), bridge, fn("02:03.0")


def _two_windows(start: int) -> tuple[Finding, ...]:
    """Two root bridges; the first one's window ends at dfffffffh, the other's begins here."""
    other = bus_range(9, 9) + memory_window(start, 0xEFFFFFFF)
    return told(asl.table(root(crs=bus_range(0, 8) + MEMORY_WINDOW) + root(name="PCI1", bbn=9, crs=other)))


def aml_with_vmd() -> tuple[Finding, ...]:
    """Functions on a segment that Linux made up."""
    return told(asl.table(root()), PINNED, fn("10000:00:03.0"))


def _with_messages() -> tuple[Finding, ...]:
    """Two functions that share a GSI and have MSI."""
    entries = ", ".join(ALL_TO_20.format(device) for device in (3, 4))
    cards = [fn(f"00:{device:02x}.0", {0x3D: b"\1"}, standard=[MSI]) for device in (3, 4)]
    return told(asl.table(root(entries)), fadt(), MADT, *cards)


def _ide() -> RawFunction:
    """An IDE controller in compatibility mode: its registers have fixed addresses, its BARs read as 0."""
    return fn("00:1f.1", {0x10: 1}, class_code=0x010180, attributes=resource((0, 8, IO)))


PAIRS: Final[dict[str, Pair]] = {
    **TABLES,
    **ADDRESSES,
    **INTERRUPTS,
    **ROOT_BRIDGES,
    **PROCESSORS,
    **IOMMUS,
    **LINKS,
    **DEVICES,
    **HYPERVISORS,
    **KNOWN_FAULTS,
}
