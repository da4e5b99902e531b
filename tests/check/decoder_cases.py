# SPDX-License-Identifier: MIT
"""For each rule that a decoder raises, bytes on which it fires; it is silent on a recording of the package."""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from dom0kit.acpi.aml import interpret
from dom0kit.acpi.aml_values import Integer
from dom0kit.acpi.routing import decode_prt
from dom0kit.address import Sbdf
from dom0kit.finding import Finding
from dom0kit.source.dumps import read_lspci
from dom0kit.source.interface import RawFunction, RawTable
from dom0kit.source.tree import FileTree, TreeSource
from tests.acpi import asl
from tests.check.cases import (
    CPU,
    IOAPIC,
    MADT,
    PINNED,
    PORT,
    RAM,
    UNIT,
    XHCI,
    Machine,
    aml,
    dmar,
    ivrs,
    link,
    root,
    with_bar,
)
from tests.check.machine import (
    File,
    acpi,
    card,
    express,
    fadt,
    fn,
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
from tests.iommu.tables import BRIDGE, ENDPOINT, drhd, ivhd, ivmd, rmrr, scope
from tests.iommu.tables import IOAPIC as IOAPIC_SCOPE


def _lspci(text: str) -> Machine:
    def read() -> Iterable[Finding]:
        source = read_lspci("made-up", iter((text.encode(),)))
        list(source.functions())
        return source.findings

    return read


def _tree(files: Mapping[str, bytes], *, spare: bool = False, denied: str = "", failed: str = "") -> Machine:
    """A sysfs tree with these files; reading `denied` needed root, and `failed` gave an error."""

    def read() -> Iterable[Finding]:
        with tempfile.TemporaryDirectory() as folder:
            for path, data in files.items():
                place = Path(folder) / path
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(data)
            tree = FileTree(folder)
            source = TreeSource(tree, "made-up", spare=spare)
            list(source.functions())
            source.tables()
            tree.denied.update({denied} - {""})
            tree.errors.update({failed: "Input/output error"} if failed else {})
            return source.findings

    return read


_FUNCTION: Final = "sys/bus/pci/devices/0000:00:02.0/"
_HEADER: Final = "00: 86 80 37 12" + " 00" * 12

SOURCES: Final[dict[str, Machine]] = {
    "source.damaged": _lspci(f"00:00.0 Host bridge: one\n{_HEADER}\n20: 00 00\n"),
    "source.no-config-space": _lspci(f"00:00.0 Host bridge: one\n{_HEADER}\n\n00:01.0 Display controller: two\n"),
    "source.duplicate": _lspci(f"00:00.0 Host bridge: one\n{_HEADER}\n\n00:00.0 Host bridge: two\n{_HEADER}\n"),
    "source.too-much": _lspci("".join(f"00:{n >> 3:02x}.{n & 7} x: y\n{_HEADER}\n20: 00\n\n" for n in range(250))),
    "source.needs-root": _tree({_FUNCTION + "config": bytes(256)}, denied="proc/iomem"),
    "source.asleep": _tree(
        {_FUNCTION + "config": bytes(256), _FUNCTION + "power_state": b"D3cold\n"},
        spare=True,
    ),
    "source.unreadable-file": _tree({_FUNCTION + "config": bytes(256)}, failed="proc/iomem"),
}


FIRST_DRHD: Final = drhd(0xFED91000, scope(ENDPOINT, "00:14.0"))
STRUCTURES: Final[dict[str, Machine]] = {
    "structure.zero-length": lambda: told(madt(CPU, bytes(2))),
    "structure.overlong": lambda: told(madt(CPU, b"\0\x40" + bytes(6))),
    "structure.truncated": lambda: told(madt(CPU, b"\0")),
    "structure.unknown-type": lambda: told(madt(CPU, b"\x90\4\0\0")),
    "structure.short": lambda: told(madt(CPU, b"\0\4\0\0")),
    "structure.extra": lambda: told(madt(b"\0\x0a" + CPU[2:] + bytes(2))),
    "structure.count": lambda: told(acpi("SLIT", struct.pack("<Q", 9) + b"\x0a")),
}
TABLES: Final[dict[str, Machine]] = {
    "acpi.table-checksum": lambda: told(acpi("XYZ9", b"\1", sum=False)),
    "acpi.table-short": lambda: told(RawTable("XYZ9", b"XYZ9\0\0")),
    "acpi.table-truncated": lambda: told(acpi("XYZ9", b"\1", length=90)),
    "acpi.table-body-short": lambda: told(acpi("APIC", b"\1")),
    "acpi.table-signature": lambda: told(acpi("\1YZ9", b"\1")),
    "acpi.table-duplicate": lambda: told(madt(CPU, name="APIC1"), madt(CPU, name="APIC2")),
    "acpi.table-slack": lambda: told(acpi("XYZ9", bytes(8), length=40)),
    "acpi.xsdt-missing-table": lambda: told(acpi("XSDT", struct.pack("<QQ", 0x1000, 0x2000)), MADT),
    "acpi.root-null-entry": lambda: told(acpi("XSDT", bytes(8))),
    "acpi.rsdp-checksum": lambda: told(RawTable("RSDP", b"RSD PTR \1MADEUP\0\0\x60\0\0")),
    "acpi.rsdp-length": lambda: told(RawTable("RSDP", b"RSD PTR \x12MADEUP\2\0\x60\0\0")),
    "acpi.fadt-length": lambda: told(fadt(length=244)),
    "acpi.fadt-address-mismatch": lambda: told(fadt({40: 0x1000, 140: 0x2000})),
    "acpi.dbg2-offsets": lambda: told(acpi("DBG2", struct.pack("<II", 40, 0))),
    "acpi.hest-sources": lambda: told(acpi("HEST", struct.pack("<I", 1))),
    "acpi.viot-nodes": lambda: told(acpi("VIOT", struct.pack("<HH8x", 1, 48))),
    "acpi.slit-distance": lambda: told(slit(b"\x0b")),
    "acpi.mcfg-slack": lambda: told(acpi("MCFG", bytes(8) + struct.pack("<QHBB4x", 0xE0000000, 0, 0, 9) + b"\0")),
    "acpi.mcfg-no-bus": lambda: told(mcfg()),
    "acpi.mcfg-overlap": lambda: told(mcfg((0xE0000000, 0, 0, 9), (0xD0000000, 0, 9, 12))),
    "acpi.madt-inti-flags": lambda: told(madt(CPU, local_nmi(0, 2, 1))),
    "acpi.madt-duplicate-apic-id": lambda: told(madt(CPU, local_apic(1, 0))),
    "acpi.dmar-scope": lambda: told(dmar(drhd(0xFED90000, scope(ENDPOINT, "00:3f.0")))),
    "acpi.dmar-include-all": lambda: told(dmar(UNIT, FIRST_DRHD)),
    "acpi.dmar-register-base": lambda: told(dmar(drhd(0))),
    "acpi.dmar-rmrr-range": lambda: told(dmar(UNIT, rmrr(0x2000, 0x1FFF))),
    "acpi.ivrs-range": lambda: told(ivrs(ivhd(0x11, 2, 0xFEB80000, struct.pack("<BHB", 4, 8, 0)))),
    "acpi.ivrs-memory": lambda: told(ivrs(ivmd(0x20, 0, 0, 0x1000, 0))),
}

INTX_17: Final = "Package () { 0x0003FFFF, 0, 0, 17 }"
ROOT_0: Final = root(INTX_17)


def _interrupts(*lines: str) -> File:
    """Linux's table of interrupts, of one CPU."""
    return File({"proc/interrupts": "           CPU0\n" + "".join(f"{line}\n" for line in lines)})


def _routed(*parts: RawTable | RawFunction | File) -> Iterable[Finding]:
    """A function with INTA on GSI 17, and these."""
    return told(asl.table(ROOT_0), fadt(), MADT, PINNED, *parts)


_TAKEN: Final = fn("00:03.0", {0x3C: b"\x0b\1"}, attributes={"irq": "18", "driver": "nic"})
_USED: Final = fn("00:03.0", {0x3C: b"\x0b\1"}, attributes={"irq": "17", "driver": "nic"})
_HIGH: Final = "Interrupt (ResourceConsumer, Level, ActiveHigh, Shared) { 17 }"
_IOAPIC_DEVICE: Final = 'Scope (\\_SB) {{ Device (APIC) {{ Name (_HID, "ACPI0009") {} }} }}'
_AT: Final = "Name (_CRS, ResourceTemplate () { Memory32Fixed (ReadWrite, 0xFEC00000, 0x1000) })"

INTERRUPTS: Final[dict[str, Machine]] = {
    "ioapic.none": lambda: told(madt(CPU)),
    "ioapic.too-many": lambda: told(madt(CPU, *(ioapic(id & 0xFF, 0xF0000000 + (id << 12), id) for id in range(300)))),
    "ioapic.duplicate-id": lambda: told(madt(CPU, IOAPIC, ioapic(2, 0xFEC01000, 24))),
    "ioapic.duplicate-address": lambda: told(madt(CPU, IOAPIC, ioapic(3, 0xFEC00000, 24))),
    "ioapic.bad-address": lambda: told(madt(CPU, ioapic(2, 0, 0))),
    "ioapic.gsi-overlap": lambda: told(
        madt(CPU, IOAPIC, ioapic(3, 0xFEC01000, 20)), File({"dmesg": _log(0, 2, 0xFEC00000, 0, 23)})
    ),
    "ioapic.gsi-gap": lambda: told(
        madt(CPU, IOAPIC, ioapic(3, 0xFEC01000, 30)), File({"dmesg": _log(0, 2, 0xFEC00000, 0, 23)})
    ),
    "ioapic.too-many-pins": lambda: told(MADT, File({"dmesg": _log(0, 2, 0xFEC00000, 0, 239)})),
    "ioapic.aml-differs": lambda: told(asl.table(_IOAPIC_DEVICE.format(_AT + " Name (_GSB, 24)")), fadt(), MADT),
    "ioapic.incomplete-device": lambda: told(asl.table(_IOAPIC_DEVICE.format("Name (_GSB, 48)")), fadt(), MADT),
    "ioapic.second-madt": lambda: told(
        madt(CPU, IOAPIC, name="APIC1"), madt(CPU, ioapic(3, 0xFEC01000, 24), name="APIC2")
    ),
    "ioapic.gsi-beyond": lambda: told(fadt(sci=99), MADT),
    "ioapic.no-route": lambda: aml(root("Package () { 0x0004FFFF, 0, 0, 17 }")),
    "ioapic.shared-signal": lambda: told(
        asl.table(link(_HIGH, _HIGH) + root(f"{INTX_17}, Package () {{ 0x0004FFFF, 0, \\_SB.LNKA, 0 }}")),
        MADT,
        PINNED,
        fn("00:04.0", {0x3D: b"\1"}),
    ),
    "ioapic.override-source": lambda: told(madt(CPU, IOAPIC, override(20, 20, 0))),
    "ioapic.override-duplicate": lambda: told(madt(CPU, IOAPIC, override(0, 2, 0), override(0, 3, 0))),
    "ioapic.override-target": lambda: told(madt(CPU, IOAPIC, override(0, 5, 0), override(1, 5, 0))),
    "ioapic.reserved-flags": lambda: told(madt(CPU, IOAPIC, override(0, 2, 2))),
    "ioapic.kernel-ioapics": lambda: told(MADT, File({"dmesg": _log(0, 3, 0xFEC00000, 0, 23)})),
    "ioapic.kernel-route": lambda: _routed(_TAKEN, _interrupts("18:  1  IO-APIC  18-fasteoi  nic")),
    "ioapic.kernel-trigger": lambda: _routed(_USED, _interrupts("17:  1  IO-APIC  17-edge  nic")),
    "ioapic.kernel-isa": lambda: told(fadt(), MADT, _interrupts("4:  1  IO-APIC  5-edge  serial")),
}


def _log(index: int, id: int, address: int, first: int, last: int) -> str:
    return f"IOAPIC[{index}]: apic_id {id}, version 32, address {address:#x}, GSI {first}-{last}\n"


def _msi(*, control: int, address: int = 0xFEE00000, data: int = 0x41) -> bytes:
    return struct.pack("<HHIH", 5, control, address, data)


def _msix(*, control: int = 0, table: int = 0, pending: int = 0x800) -> bytes:
    return struct.pack("<HHII", 0x11, control, table, pending)


def _sending(capability: bytes, **more: int) -> Machine:
    return lambda: told(MADT, fn("00:03.0", standard=[capability], **more))  # type: ignore[arg-type]


def _tabled(table: int, pending: int, size: int = 0x1000) -> Machine:
    """A function with an MSI-X table of 16 vectors in BAR 0."""
    attributes = resource((0xE0000000, size, 0x40200))
    return lambda: told(
        fn(
            "00:03.0",
            {0x10: 0xE0000000},
            standard=[_msix(control=15, table=table, pending=pending)],
            attributes=attributes,
        )
    )


MESSAGES: Final[dict[str, Machine]] = {
    "msi.both-enabled": lambda: told(fn("00:03.0", standard=[_msi(control=1), _msix(control=0x8000)])),
    "msi.not-an-interrupt": _sending(_msi(control=1, address=0x1000)),
    "msi.vector": _sending(_msi(control=1, data=5)),
    "msi.delivery-mode": _sending(_msi(control=1, data=0x241)),
    "msi.no-bus-master": _sending(_msi(control=1), command=3),
    "msi.kernel-differs": lambda: told(
        MADT, fn("00:03.0", standard=[_msi(control=0)], attributes={"msi_irqs": "27 msi"})
    ),
    "msi.shared-page": lambda: told(
        fn(
            "00:03.0",
            {0x10: 0xE0000000, 0x14: 0xE0000800},
            standard=[_msix(control=15, pending=0x400)],
            attributes=resource((0xE0000000, 0x800, 0x40200), (0xE0000800, 0x100, 0x40200)),
        )
    ),
    "msi.offset-in-page": _tabled(0x100, 0x800),
    "pci.msi-count": _sending(_msi(control=0x31)),
    "pci.msix-bir": lambda: told(fn("00:03.0", standard=[_msix()])),
    "pci.msix-range": _tabled(0x2000, 0),
    "pci.msix-overlap": _tabled(0, 0x80),
}


def _raw(data: Mapping[int, int | bytes], size: int = 256, attributes: Mapping[str, str] | None = None) -> Machine:
    return lambda: told(fn("00:03.0", data, size=size, attributes=attributes))


def _extended(id: int, body: bytes) -> Machine:
    return lambda: told(fn("00:03.0", standard=[express()], extended=[(id, body)]))


_LISTED: Final = {0x06: b"\x10\0", 0x34: b"\x40"}


def _vfs(
    total: int = 8,
    count: int = 0,
    control: int = 0,
    offset: int = 8,
    stride: int = 1,
    device: int = 0x1515,
    bars: bytes = b"",
) -> Machine:
    body = struct.pack("<IHHHHHHHHHHII", 0, control, 0, total, total, count, 0, offset, stride, 0, device, 1, 1)
    return _extended(0x10, (body + bars).ljust(0x3C, b"\0"))


SRIOV_BARS: Final = struct.pack("<I", 6)

PCI: Final[dict[str, Machine]] = {
    "pci.not-answering": _raw({0: b"\xff" * 256}),
    "pci.header-truncated": lambda: told(RawFunction(Sbdf(0, 0, 3, 0), bytes.fromhex("86803712"))),
    "pci.header-type": _raw({0x0E: b"\x05"}),
    "pci.class-mismatch": lambda: told(fn("00:03.0", class_code=0x060400)),
    "pci.interrupt-pin": _raw({0x3D: b"\x07"}),
    "pci.bar-64-last": _raw({0x24: 0xE0000004}),
    "pci.bar-type": _raw({0x10: 0xE0000006}),
    "pci.bar-ones": _raw({0x10: 0xFFFFFFFF}),
    "pci.bar-alignment": lambda: told(with_bar(0xE0000100, 0x1000)),
    "pci.bar-overlap": _raw(
        {0x10: 0xE0000000, 0x14: 0xE0000800},
        attributes=resource((0xE0000000, 0x1000, 0x40200), (0xE0000800, 0x800, 0x40200)),
    ),
    "pci.window-type": lambda: told(port("00:1c.0", (1, 1), {0x1C: b"\x01\x00"})),
    "pci.resource-file": lambda: told(fn("00:03.0", attributes={"resource": "nothing of use"})),
    "pci.capability-loop": _raw({**_LISTED, 0x40: b"\x09\x40\x04\0"}),
    "pci.capability-pointer": _raw({**_LISTED, 0x34: b"\x20"}),
    "pci.capability-truncated": _raw({**_LISTED, 0x34: b"\xfc", 0xFC: b"\x10\0\2\0"}),
    "pci.capability-overlap": _raw({**_LISTED, 0x40: b"\x10\x44\2\0", 0x44: b"\x01\0\3\0"}),
    "pci.extended-space-aliased": lambda: told(_aliased()),
    "pci.acs-egress-vector": lambda: told(
        fn(
            "00:03.0",
            {0x100: 0x1 | 1 << 16 | 0xFF8 << 20, 0xFF8: struct.pack("<IHH", 0xD | 1 << 16, 0xFF20, 0)},
            standard=[express()],
        )
    ),
    "pci.aer-logged": _extended(1, struct.pack("<I", 1 << 4).ljust(0x34, b"\0")),
    "pci.dpc-triggered": _extended(0x1D, struct.pack("<HHHH", 0, 0, 1, 0)),
    "pci.resizable-bar": _extended(0x15, struct.pack("<II", 1 << 4, 7)),
    "pci.vendor-capability-length": _extended(0xB, struct.pack("<I", 1 | 4 << 20)),
    "pci.sriov-vf-count": _vfs(total=4, count=9, control=1),
    "pci.sriov-vf-device": _vfs(device=0),
    "pci.sriov-vf-place": _vfs(count=4, control=1, offset=0, stride=0),
    "pci.sriov-vf-bar": _vfs(bars=SRIOV_BARS),
    "pci.sriov-vf-bar-unassigned": _vfs(count=4, control=9, bars=struct.pack("<II", 4, 0)),
    "pci.sriov-numbers": _vfs(total=4, count=9, control=1),
    "pci.isolation-differs": lambda: told(
        fn("00:03.0", attributes={"iommu_group": "1"}), fn("00:04.0", attributes={"iommu_group": "1"})
    ),
    "pci.reset-differs": lambda: told(PORT, card("01:00.0", device=(0x10008001, 0, 0)), _resettable()),
    "pci.reset-none": lambda: told(PORT, fn("01:00.0", {0x0E: b"\x80"}, size=256), fn("01:00.1", size=256)),
    "pci.function-twice": lambda: told(fn("00:03.0"), fn("00:03.0")),
    "pci.bus-loop": lambda: told(fn("05:00.0", buses=(3, 3))),
    "pci.bus-clash": lambda: told(port("00:1c.0", (1, 3)), port("00:1d.0", (2, 4))),
    "pci.bus-range-empty": lambda: told(port("00:1c.0", (3, 1))),
    "pci.bus-outside-parent": lambda: told(port("00:1c.0", (1, 2)), fn("01:00.0", buses=(2, 5))),
    "pci.bus-primary": lambda: told(port("00:1c.0", (1, 1), {0x18: b"\x07"})),
    "pci.bridge-unconfigured": lambda: told(port("00:1c.0", (0, 0))),
    "pci.bus-orphan": lambda: told(port("00:1c.0", (1, 5)), fn("03:00.0")),
    "pci.ecam-nowhere": lambda: told(mcfg((0xE0000000, 1, 0, 9)), XHCI),
    "pci.ecam-uncovered": lambda: told(mcfg((0xE0000000, 0, 1, 9)), XHCI),
    "pci.ecam-overlap": lambda: told(mcfg((0xE0000000, 0, 0, 9), (0xE0000000, 1, 0, 9)), XHCI),
    "pci.ecam-invalid": lambda: told(mcfg((0xE0000100, 0, 0, 9)), XHCI),
    "pci.bar-outside-window": lambda: told(PORT, fn("01:00.0", {0x10: 0xE0000000})),
    "pci.window-outside-window": lambda: told(
        port("00:1c.0", (1, 2), {0x20: struct.pack("<HH", 0xE000, 0xE000)}),
        fn("01:00.0", {0x20: struct.pack("<HH", 0xF000, 0xF000)}, buses=(2, 2)),
    ),
    "pci.address-overlap": lambda: told(with_bar(0xE0000000, 0x1000), _beside()),
}


def _aliased() -> RawFunction:
    config = fn("00:03.0", standard=[express()], size=256).config
    return RawFunction(Sbdf(0, 0, 3, 0), config * 16)


def _resettable() -> RawFunction:
    return fn("02:00.0", attributes={"reset_method": "flr"})


def _beside() -> RawFunction:
    return fn("00:04.0", {0x10: 0xE0000000}, attributes=resource((0xE0000000, 0x1000, 0x40200)))


def _kernel_cpus(*apic_ids: int) -> File:
    return File({"proc/cpuinfo": "".join(f"processor : {n}\napicid : {id}\n\n" for n, id in enumerate(apic_ids))})


_CPU_DEVICE: Final = 'Scope (\\_SB) { Device (CPU0) { Name (_HID, "ACPI0007") Name (_UID, 0) Name (_PXM, 1) } }'
_MEMORY_DEVICE: Final = (
    'Scope (\\_SB) { Device (MEM0) { Name (_HID, EisaId ("PNP0C80")) '
    "Name (_CRS, ResourceTemplate () { Memory32Fixed (ReadWrite, 0x40000000, 0x1000) }) } }"
)

PROCESSORS: Final[dict[str, Machine]] = {
    "cpu.duplicate-apic-id": lambda: told(madt(CPU, local_apic(1, 0))),
    "cpu.duplicate-uid": lambda: told(madt(CPU, local_apic(0, 1))),
    "cpu.invalid-apic-id": lambda: told(madt(CPU, local_apic(1, 0xFF))),
    "cpu.x2apic-small-id": lambda: told(madt(local_x2apic(0, 3))),
    "cpu.both-flags": lambda: told(madt(local_apic(0, 0, 3))),
    "cpu.none-enabled": lambda: told(madt(local_apic(0, 0, 0))),
    "cpu.srat-missing": lambda: told(madt(CPU, local_apic(1, 1)), srat(srat_cpu(0, 0))),
    "cpu.srat-unknown": lambda: told(madt(CPU), srat(srat_cpu(0, 0), srat_cpu(9, 0))),
    "cpu.srat-twice": lambda: told(madt(CPU), srat(srat_cpu(0, 0), srat_cpu(0, 1))),
    "cpu.pxm-differs": lambda: told(asl.table(_CPU_DEVICE), madt(CPU), srat(srat_cpu(0, 0))),
    "cpu.kernel-differs": lambda: told(madt(CPU), _kernel_cpus(0, 9)),
    "memory.srat-empty": lambda: told(srat(srat_memory(0x1000, 0, 0))),
    "memory.beyond-64-bits": lambda: told(srat(srat_memory((1 << 64) - 0x1000, 0x2000, 0))),
    "memory.srat-overlap": lambda: told(srat(srat_memory(0, 0x3000, 0), srat_memory(0x2000, 0x3000, 1))),
    "memory.ram-without-domain": lambda: told(srat(srat_memory(0, 0x200000, 0)), memory_map(RAM)),
    "memory.slit-size": lambda: told(srat(srat_memory(0, 0x1000, 0), srat_memory(0x1000, 0x1000, 3)), slit(b"\x0a")),
    "memory.map-overlap": lambda: told(memory_map(RAM, (0x200000, 0x2FFFFF, "Reserved"))),
    "memory.map-odd": lambda: told(memory_map(RAM, (0x300000, 0x200000, "Reserved"))),
    "memory.device-without-domain": lambda: told(asl.table(_MEMORY_DEVICE), srat(srat_memory(0, 0x1000, 0))),
}

IOMMUS: Final[dict[str, Machine]] = {
    "iommu.too-many": lambda: told(dmar(*(drhd(0xC0000000 + (n << 12)) for n in range(1025)))),
    "iommu.two-units": lambda: told(dmar(FIRST_DRHD, drhd(0xFED92000, scope(ENDPOINT, "00:14.0"))), XHCI),
    "iommu.unit-absent": lambda: told(ivrs(ivhd(0x11, 2, 0xFEB80000)), XHCI),
    "iommu.both-tables": lambda: told(dmar(UNIT), ivrs(ivhd(0x11, 2, 0xFEB80000))),
    "iommu.ioapic-twice": lambda: told(
        dmar(drhd(0xFED90000, scope(IOAPIC_SCOPE, "f0:1f.0", 2), scope(IOAPIC_SCOPE, "f0:1e.0", 2)))
    ),
    "iommu.ioapic-unknown": lambda: told(MADT, dmar(drhd(0xFED90000, scope(IOAPIC_SCOPE, "f0:1f.0", 9)))),
    "iommu.ioapic-unnamed": lambda: told(MADT, dmar(UNIT)),
    "iommu.region-shared": lambda: told(
        dmar(UNIT, rmrr(0xE0100000, 0xE01FFFFF, scope(ENDPOINT, "00:14.0"), scope(ENDPOINT, "00:15.0"))),
        XHCI,
        fn("00:15.0", class_code=0x0C0330),
    ),
    "iommu.function-unserved": lambda: told(dmar(drhd(0xFED91000, scope(ENDPOINT, "00:02.0"))), XHCI),
    "iommu.scope-absent": lambda: told(dmar(UNIT, drhd(0xFED91000, scope(ENDPOINT, "00:02.0"))), XHCI),
    "iommu.scope-kind": lambda: told(dmar(drhd(0xFED91000, scope(BRIDGE, "00:14.0"))), XHCI),
}

_PV: Final = {"sys/hypervisor/type": "xen\n", "sys/hypervisor/properties/features": "800\n"}
_PVH: Final = {"sys/hypervisor/type": "xen\n", "sys/hypervisor/properties/features": "804\n"}

XEN: Final[dict[str, Machine]] = {
    "xen.tables-rebuilt": lambda: told(MADT, File(_PVH | {"sys/hypervisor/guest_type": "PVH\n"})),
    "xen.dmar-renamed": lambda: told(MADT, RawTable("RMAD", _renamed()), File(_PV)),
    "xen.virtual-processors": lambda: told(MADT, File(_PV | {"sys/devices/system/cpu/present": "0-1\n"})),
    "xen.guest": lambda: told(
        MADT, File({"sys/hypervisor/type": "xen\n", "sys/hypervisor/properties/features": "0\n"})
    ),
}


def _renamed() -> bytes:
    data = bytearray(dmar(UNIT).data)
    data[:4] = b"RMAD"
    return bytes(data)


_ODD_CRS: Final = "Device (\\ODD0) {{ Name (_ADR, 0) Name (_CRS, Buffer () {{ {} }}) }}"

_READS: Final = """Device ({}) {{ Name (_ADR, {}) OperationRegion (REGN, PCI_Config, 0x40, 1)
    Field (REGN, ByteAcc, NoLock, Preserve) {{ BYTE, 8 }} }}"""
_MIXED: Final = (
    _READS.format("ONE0", 0x30000)
    + _READS.format("TWO0", 0x40000)
    + "Device (DEV0) { Name (_ADR, 0x50000) Method (_RMV) { Return (^^ONE0.BYTE + ^^TWO0.BYTE) } }"
)

AML: Final[dict[str, Machine]] = {
    "aml.no-dsdt": lambda: told(asl.table("Name (\\ONE0, 1)", "SSDT", "SSDT1")),
    "aml.table-rejected": lambda: told(asl.table(ROOT_0), _cut_ssdt()),
    "aml.names-unresolved": lambda: told(
        asl.table(ROOT_0), asl.table("External (\\NONE, DeviceObj) Scope (\\NONE) { }", "SSDT", "SSDT1")
    ),
    "aml.initialisation-failed": lambda: told(
        asl.table(
            "External (\\NONE, MethodObj) Scope (\\_SB) { Device (DEV0) { "
            'Name (_HID, "ACPI0004") Method (_INI) { Local0 = 1 / Zero } } }'
        )
    ),
    "aml.evaluation-failed": lambda: told(
        asl.table("External (\\NONE, IntObj) Device (\\DEV0) { Name (_ADR, 0) Method (_STA) { Return (\\NONE + 1) } }")
    ),
    "aml.wrong-type": lambda: told(
        asl.table(
            'Name (\\WORD, "one") Scope (\\_SB) { Device (DEV0) { Name (_ADR, 0) Method (_CRS) { Return (\\WORD) } } }'
        )
    ),
    "aml.interpreter-stopped": lambda: interpret([asl.table(_ENDLESS)], {}, seconds=1.0).findings,
    "aml.no-interpreter": lambda: _without_interpreter(),
    "aml.mixed-config-space": lambda: told(
        asl.table(root(more=_MIXED)), fn("00:03.0", {0x40: 1}), fn("00:04.0", {0x40: 2})
    ),
    "aml.kernel-differs": lambda: interpret([asl.table(ROOT_0)], {}, kernel=lambda path: Integer(7)).findings,
    "aml.root-bridges-same-bus": lambda: told(asl.table(root() + root(name="PCI1"))),
    "aml.prt-malformed": lambda: told(asl.table(root("Package () { 0x0003FFFF, 7, 0, 17 }"))),
    "aml.prt-source-missing": lambda: decode_prt([[0x3FFFF, 0, "LNKX", 0]], "aml:_PRT", lambda name: None)[1],
    "aml.prt-swapped": lambda: decode_prt([[0x3FFFF, 0, 0, "LNKA"]], "aml:_PRT", lambda name: "\\_SB.LNKA")[1],
    "acpi.resource-truncated": lambda: told(asl.table(_ODD_CRS.format("0x47, 0x01, 0x60"))),
    "acpi.resource-no-end-tag": lambda: told(asl.table(_ODD_CRS.format("0x22, 0x01, 0x00"))),
    "acpi.resource-unknown": lambda: told(asl.table(_ODD_CRS.format("0x11, 0x00, 0x79, 0x00"))),
}


_ENDLESS: Final = "Device (\\BAD0) { Name (_ADR, 0) Method (_STA) { While (One) { } } }"


def _cut_ssdt() -> RawTable:
    return RawTable("SSDT1", asl.table("Device (\\LAST) { Name (_UID, 2) }", "SSDT", "SSDT1").data[:-1])


def _without_interpreter() -> Iterable[Finding]:
    path = os.environ["PATH"]
    os.environ["PATH"] = ""
    try:
        return interpret([asl.table(ROOT_0)], {}).findings
    finally:
        os.environ["PATH"] = path


FIRING: Final[dict[str, Machine]] = {
    **SOURCES,
    **STRUCTURES,
    **TABLES,
    **INTERRUPTS,
    **MESSAGES,
    **PCI,
    **PROCESSORS,
    **IOMMUS,
    **XEN,
    **AML,
}
