# SPDX-License-Identifier: MIT
"""Virtual machines whose recordings the package ships: QEMU's, each chosen for what it has and others lack."""

from __future__ import annotations

from typing import Final

from tests.guest import Machine

_Q35 = """
-device intel-iommu,intremap=on
-global ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off
-device pcie-root-port,id=rp1,chassis=1,slot=1,addr=0x5
-device pcie-root-port,id=rp2,chassis=2,slot=2,addr=0x6
-device pcie-root-port,id=rp3,chassis=3,slot=3,addr=0x7
-device pxb-pcie,id=pxb1,bus_nr=0x80,numa_node=0,bus=pcie.0,addr=0x9
-device pcie-root-port,id=rp8,bus=pxb1,chassis=8,slot=8
-device pxb-pcie,id=pxb2,bus_nr=0xc0,numa_node=1,bus=pcie.0,addr=0xa
-device pcie-root-port,id=rp9,bus=pxb2,chassis=9,slot=9
-device x3130-upstream,id=up,bus=rp2
-device xio3130-downstream,id=dn1,bus=up,chassis=20,slot=20
-device xio3130-downstream,id=dn2,bus=up,chassis=21,slot=21
-device pcie-pci-bridge,id=ppb,bus=rp3
-device e1000,bus=ppb,addr=0x3
-device e1000e,bus=dn1
-device virtio-rng-pci,bus=rp9
-device nvme-subsys,id=ss0
-device nvme,serial=deadbeef,subsys=ss0,bus=rp1,sriov_max_vfs=4,sriov_vq_flexible=8,sriov_vi_flexible=4,msix_qsize=33,max_ioqpairs=32
"""  # noqa: E501

_I440FX = """
-device pci-bridge,id=br1,chassis_nr=1,addr=0x5
-device pci-bridge,id=br2,chassis_nr=2,bus=br1,addr=0x2
-device e1000,bus=br1,addr=0x3
-device e1000,bus=br2,addr=0x1
-device virtio-rng-pci,addr=0x6
-device piix3-usb-uhci,addr=0x1.2
"""

MACHINES: Final[dict[str, tuple[Machine, str]]] = {
    "qemu-q35": (
        Machine(
            type="q35,kernel-irqchip=split",
            devices=_Q35.split(),
            cpus=2,
            numa_nodes=2,
            append="intel_iommu=on pci=realloc",
        ),
        "modprobe nvme && echo 4 >/sys/bus/pci/devices/0000:01:00.0/sriov_numvfs",
    ),
    "qemu-i440fx": (Machine(type="pc", devices=_I440FX.split()), "true"),
    "qemu-microvm": (
        Machine(
            type="microvm,acpi=on,pcie=on,ioapic2=on,rtc=on,isa-serial=on",
            # It has neither HPET nor PM timer: a kernel that measures the TSC against the PIT, emulated, often fails.
            append="tsc_early_khz=2000000",
        ),
        "true",
    ),
}
"""By the recording's name: the machine, and what is done in it before it is recorded.

`qemu-q35`: root ports, a PCIe switch, a conventional bridge, two more root buses, two NUMA nodes, an IOMMU with
interrupt remapping, an NVMe controller with four VFs. `qemu-i440fx`: conventional PCI, INTx through two bridges and
link devices. `qemu-microvm`: hardware-reduced ACPI, two IOAPICs.
"""
