# SPDX-License-Identifier: MIT
"""A made-up machine as the kernel's files in a folder, with a secret in every place where machines have one."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from dom0kit.source import contents
from dom0kit.source.interface import Source
from dom0kit.source.tree import FileTree, TreeSource

UUID: Final = "4c4c4544-0035-4b10-8051-c4c04f4e3132"
SERIAL: Final = "5K9QN12-XYZ"
PRODUCT_KEY: Final = b"NF6HC-AB2CD-3EFGH-JKLMN-PQRST"
MAC: Final = "a4:bb:6d:12:34:56"
MAC_DIGITS: Final = MAC.replace(":", "")
DSN: Final = bytes.fromhex("563412ffff6dbba4")
DISK: Final = "0a3407de-014b-458b-b5c1-848e92a327a3"
HOST: Final = "joes-laptop"
NVDIMM: Final = bytes.fromhex("c0ffee42")

SECRETS: Final = (
    UUID.encode(),
    SERIAL.encode(),
    PRODUCT_KEY,
    MAC.encode(),
    MAC_DIGITS.encode(),
    MAC_DIGITS.upper().encode(),
    DSN,
    DISK.encode(),
    HOST.encode(),
    NVDIMM,
    b"hunter2",
    b"iqn.2024-01",
)


def table(signature: bytes, body: bytes) -> bytes:
    """An ACPI table with a right checksum."""
    data = bytearray(
        struct.pack("<4sIBB6s8sI4sI", signature, 36 + len(body), 1, 0, b"MADEUP", b"MACHINE ", 1, b"TEST", 1)
    )
    data += body
    data[9] = -sum(data) & 0xFF
    return bytes(data)


def config(
    vendor: int = 0x8086,
    device: int = 0x1234,
    *,
    kind: int = 0,
    secondary: int = 0,
    size: int = 4096,
    hotplug: bool = False,
    serial: bytes = b"",
    class_code: int = 0x020000,
) -> bytes:
    """Config space with a PCIe capability at 0x40, VPD at 0x80 and, with `serial`, a DSN at 0x140 behind AER."""
    data = bytearray(size)
    struct.pack_into("<HHHHI", data, 0, vendor, device, 0x0006, 0x0010, class_code << 8 | 1)
    data[0x0E] = kind
    data[0x34] = 0x40
    if kind == 1:
        data[0x19] = data[0x1A] = secondary
    if size > 64:
        struct.pack_into("<BBH", data, 0x40, 0x10, 0x80, 0x0142 if hotplug else 0x0002)
        struct.pack_into("<I", data, 0x54, 0x40 if hotplug else 0)
        struct.pack_into("<BBH4s", data, 0x80, 0x03, 0x00, 0x8000, SERIAL.encode()[:4] if serial else b"\0\0\0\0")
    if size > 256:
        struct.pack_into("<I", data, 0x100, 0x0001 | 1 << 16 | 0x140 << 20)
        struct.pack_into("<I", data, 0x140, 0x0003 | 1 << 16)
        data[0x144:0x14C] = serial.ljust(8, b"\0")
    return bytes(data)


FUNCTIONS: Final = {
    # address: (place below sys/devices, config space)
    "0000:00:00.0": ("pci0000:00", config(class_code=0x060000)),
    "0000:00:1c.0": ("pci0000:00", config(device=0x9D10, kind=1, secondary=1, class_code=0x060400)),
    "0000:01:00.0": ("pci0000:00/0000:00:1c.0", config(device=0x1533, serial=DSN)),
    "0000:00:1d.0": ("pci0000:00", config(device=0x9D18, kind=1, secondary=2, hotplug=True, class_code=0x060400)),
    "0000:02:00.0": ("pci0000:00/0000:00:1d.0", config(0x144D, 0xA808, class_code=0x010802)),
    "10000:e1:00.0": ("pci10000:e1", config(0x144D, 0xA809, size=256, class_code=0x010802)),
}
TABLES: Final = {
    "APIC": table(b"APIC", bytes(8)),
    "DSDT": table(b"DSDT", b"\x10\x20 _AUXMAC_#" + MAC_DIGITS.upper().encode() + b"# " + SERIAL.encode()),
    "FACP": table(b"FACP", bytes(232)),
    "MCFG": table(b"MCFG", bytes(24)),
    "MSDM": table(b"MSDM", struct.pack("<IIIII", 1, 0, 1, 0, 29) + PRODUCT_KEY),
    "NFIT": table(
        b"NFIT", bytes(4) + struct.pack("<HH", 1, 56) + bytes(52) + struct.pack("<HH20x4s52x", 4, 80, NVDIMM)
    ),
    "iBFT": table(b"iBFT", b"iqn.2024-01.com.example:hunter2"),
    "SSDT1": table(b"SSDT", b"one"),
    "SSDT2": table(b"SSDT", b"two"),
    "SSDT10": table(b"SSDT", b"ten"),
    "dynamic/SSDT11": table(b"SSDT", b"eleven"),
}
FILES: Final = {
    "proc/cmdline": f'BOOT_IMAGE=/vmlinuz root=UUID={DISK} ro quiet pci=realloc acpi_osi="Windows 2015" intel_iommu=on '
    f"ip={MAC} hostname={HOST} rd.luks.key=hunter2 secretword_hunter2 psi=1 -- --token hunter2\n",
    "proc/version": f"Linux version 6.1 (joe@{HOST}) (gcc 12) #1 SMP\n",
    "proc/interrupts": f"  24:  1  0  PCI-MSI 16384-edge  enx{MAC_DIGITS}-rx\n",
    "proc/iomem": "00000000-00000fff : Reserved\nfec00000-fec003ff : IOAPIC 0\n",
    "proc/ioports": "0000-0cf7 : PCI Bus 0000:00\n",
    "proc/cpuinfo": "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu MHz\t\t: 1234.5\napicid\t\t: 0\n\n"
    "processor\t: 1\nbugs\t: \n",
    "dmesg": f"IOAPIC[0]: apic_id 2, version 32, address 0xfec00000, GSI 0-23\nigb: {MAC}\n"
    f"ACPI: INT_SRC_OVR x {MAC} {DISK}\n",
    "sys/kernel/irq/24/actions": f"enx{MAC_DIGITS}-rx\n",
    "sys/kernel/irq/24/chip_name": "PCI-MSI\n",
    "sys/kernel/irq/24/hwirq": "16384\n",
    "sys/kernel/irq/24/secret": "hunter2\n",
    "sys/devices/system/cpu/online": "0-1\n",
    "sys/devices/system/node/node0/cpulist": "0-1\n",
    "sys/devices/system/node/node0/meminfo": "Node 0 MemTotal: 5 kB\nNode 0 MemFree: 4 kB\n",
    "sys/devices/system/memory/block_size_bytes": "8000000\n",
    "sys/devices/system/memory/memory0/state": "online\n",
    "sys/devices/system/memory/memory1/state": "online\n",
    "sys/devices/system/memory/memory2/state": "offline\n",
    "sys/devices/system/memory/memory10/state": "offline\n",
    "sys/firmware/memmap/0/start": "0x0\n",
    "sys/firmware/memmap/0/type": "System RAM\n",
    "sys/class/dmi/id/product_uuid": UUID + "\n",
    "sys/class/dmi/id/product_serial": SERIAL + "\n",
    "sys/class/dmi/id/board_serial": f"/{SERIAL}/CN0/\n",
    "sys/class/dmi/id/product_name": "Made-up 9000\n",
    "sys/bus/pci/slots/1/address": "0000:02:00\n",
    "sys/firmware/acpi/tables/data/BERT": "hunter2",
    "etc/shadow": "root:hunter2",
}
ATTRIBUTES: Final = {
    "class": "0x020000\n",
    "vendor": "0x8086\n",
    "device": "0x1234\n",
    "irq": "24\n",
    "numa_node": "-1\n",
    "power_state": "D0\n",
    "resource": "0x00000000fe000000 0x00000000fe01ffff 0x0000000000040200\n" + ("0x0 0x0 0x0\n" * 6),
    "current_link_speed": "8.0 GT/s PCIe\n",
    "power/runtime_status": "active\n",
    "msi_irqs/24": "msix\n",
    "msi_irqs/9": "msix\n",
    "label": "hunter2\n",
    "vpd": "hunter2\n",
    "rom": "hunter2\n",
    "resource0": "hunter2\n",
}


def build(root: Path) -> Path:
    """Write the machine below `root`."""
    for path, text in FILES.items():
        _write(root / path, text.encode())
    for name, data in TABLES.items():
        _write(root / "sys/firmware/acpi/tables" / name, data)
    links = root / "sys/bus/pci/devices"
    links.mkdir(parents=True)
    for address, (place, data) in FUNCTIONS.items():
        folder = root / "sys/devices" / place / address
        _write(folder / "config", data)
        for attribute, text in ATTRIBUTES.items():
            _write(folder / attribute, text.encode())
        (links / address).symlink_to(f"../../../devices/{place}/{address}")
    nic = root / "sys/devices/pci0000:00/0000:00:1c.0/0000:01:00.0"
    (root / "sys/bus/pci/drivers/igb").mkdir(parents=True)
    (nic / "driver").symlink_to("../../../../bus/pci/drivers/igb")
    (nic / "iommu_group").symlink_to("../../../../kernel/iommu_groups/7")
    _write(root / "sys/devices/acpi/device:3/path", b"\\_SB_.PCI0.RP01.NIC_\n")
    (nic / "firmware_node").symlink_to("../../../acpi/device:3")
    return root


def source(root: Path, *, spare: bool = False) -> TreeSource:
    return TreeSource(FileTree(str(root)), "made-up", spare=spare)


def everything(source: Source) -> tuple[object, ...]:
    """All that can be read from a source, for comparison."""
    files: Iterator[tuple[str, bytes]] = contents.files_of(source)
    return (
        tuple(source.tables()),
        tuple(source.functions()),
        {path: data for path, data in files if path != contents.MANIFEST},
    )


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
