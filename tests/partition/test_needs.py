# SPDX-License-Identifier: MIT
"""What the running Linux cannot do without, from a tree of /proc and /sys made here."""

from __future__ import annotations

from pathlib import Path

import pytest

from dom0kit.address import Sbdf
from dom0kit.source.needs import Need, needs

DISK, NIC, NIC2, SERIAL, VGA, NVME = (Sbdf.parse(f"0000:00:{n:02x}.0") for n in (2, 3, 4, 5, 6, 7))


class Tree:
    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def link(self, path: str, target: str) -> None:
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        (self.root / target).mkdir(parents=True, exist_ok=True)
        place.symlink_to(self.root / target)

    def block(self, name: str, number: str, function: Sbdf | None, *slaves: str) -> None:
        at = "virtual" if function is None else f"pci0000:00/0000:00:01.0/{function}/ata1/host0"
        self.link(f"sys/dev/block/{number}", f"sys/devices/{at}/block/{name}")
        self.link(f"sys/class/block/{name}", f"sys/devices/{at}/block/{name}")
        self.write(f"sys/devices/{at}/block/{name}/dev", f"{number}\n")
        for slave in slaves:
            (self.root / f"sys/devices/{at}/block/{name}/slaves/{slave}").mkdir(parents=True)

    def interface(self, name: str, function: Sbdf | None, *lower: str) -> None:
        (self.root / f"sys/class/net/{name}").mkdir(parents=True)
        if function is not None:
            self.link(f"sys/class/net/{name}/device", f"sys/devices/pci0000:00/{function}/virtio1")
        for each in lower:
            self.link(f"sys/class/net/{name}/lower_{each}", f"sys/class/net/{each}")


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_nothing_is_needed_where_nothing_is_known(tmp_path: Path) -> None:
    assert needs(str(tmp_path)) == ()


def test_disks_behind_other_disks(tree: Tree) -> None:
    tree.block("sda", "8:0", DISK)
    tree.block("sda1", "8:1", DISK)
    tree.block("nvme0n1", "259:0", NVME)
    tree.block("dm-0", "254:0", None, "sda1", "nvme0n1")
    tree.write(
        "proc/self/mountinfo",
        "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/mapper/root rw\n"
        "23 22 0:21 / /proc rw - proc proc rw\n"
        "24 22 0:33 /sub /data rw - btrfs /dev/nvme0n1 rw\n"
        "25 22 99:1 / /gone rw - ext4 /dev/gone rw\n"
        "nonsense\n",
    )
    tree.write("proc/swaps", "Filename Type Size Used Priority\n/dev/sda1 partition 1 0 -2\n")
    assert needs(str(tree.root)) == (
        Need(DISK, "has swap space on /dev/sda1"),
        Need(DISK, "has the file system mounted at /"),
        Need(NVME, "has the file system mounted at /"),
        Need(NVME, "has the file system mounted at /data"),
    )


def test_a_folder_of_the_host(tree: Tree) -> None:
    for function, tag in ((DISK, "root"), (NIC, "out")):
        name = f"virtio{function.device}"
        tree.link(f"sys/bus/virtio/drivers/9pnet_virtio/{name}", f"sys/devices/pci0000:00/{function}/{name}")
        tree.write(f"sys/devices/pci0000:00/{function}/{name}/mount_tag", tag)
    tree.write("proc/self/mountinfo", "22 1 0:21 / / rw,relatime - 9p root rw,trans=virtio\n")
    assert needs(str(tree.root)) == (Need(DISK, "has the file system mounted at /"),)


def test_devices_that_stand_on_each_other_in_a_circle(tree: Tree) -> None:
    tree.block("dm-0", "254:0", None, "dm-1")
    tree.block("dm-1", "254:1", None, "dm-0")
    tree.write("proc/self/mountinfo", "22 1 254:0 / / rw - ext4 /dev/dm-0 rw\n")
    assert needs(str(tree.root)) == ()


def test_the_way_to_the_network(tree: Tree) -> None:
    tree.interface("eth0", NIC)
    tree.interface("eth1", NIC2)
    tree.interface("br0", None, "eth0")
    tree.write(
        "proc/net/route",
        "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n"
        "br0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\n"
        "eth1\t0000A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\n",
    )
    zeros = "0" * 32
    tree.write(
        "proc/net/ipv6_route",
        f"{zeros} 00 {zeros} 00 {zeros} 00000400 00000001 00000000 00000003 eth1\n"
        f"{zeros} 00 {zeros} 00 {zeros} ffffffff 00000001 00000000 00200200 lo\n",
    )
    assert needs(str(tree.root)) == (
        Need(NIC, "is the way to the network (br0)"),
        Need(NIC2, "is the way to the network (eth1)"),
    )


def test_the_console(tree: Tree) -> None:
    tree.write("sys/class/tty/console/active", "tty0 ttyS4\n")
    tree.link("sys/class/tty/ttyS4/device", f"sys/devices/pci0000:00/{SERIAL}/serial")
    tree.write(f"sys/devices/pci0000:00/{VGA}/boot_vga", "1\n")
    tree.write(f"sys/devices/pci0000:00/{NIC}/boot_vga", "0\n")
    for each in (VGA, NIC):
        tree.link(f"sys/bus/pci/devices/{each}", f"sys/devices/pci0000:00/{each}")
    assert needs(str(tree.root)) == (
        Need(SERIAL, "is the console ttyS4"),
        Need(VGA, "shows the console (it is the boot VGA)"),
    )
