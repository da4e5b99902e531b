# SPDX-License-Identifier: MIT
"""Partitions in real kernels: VFIO on plain Linux with I/O before and after, a guest of Xen, domains of hv_core."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.guest import Machine, boot, images, missing, missing_hv, missing_xen, module
from tests.guest.images import ROOT

pytestmark = [
    pytest.mark.guest,
    pytest.mark.slow,
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
]
TIMES = int(os.environ.get("DOM0KIT_PARTITION_TIMES", "5"))
"""How often disk and card are given away and taken back; before a release 100."""


def behind_root_ports(disk: Path) -> Machine:
    """A disk and a card behind a root port each, and two cards behind a switch, whose ports have no ACS."""
    devices = [
        *("-drive", f"file={disk},if=none,id=disk,format=raw", "-device", "nvme,serial=one,drive=disk,bus=rp0"),
        *("-netdev", "user,id=net,restrict=on", "-device", "e1000e,netdev=net,bus=rp1"),
        *("-device", "x3130-upstream,bus=rp2,id=up"),
    ]
    for number in (0, 1):
        port = f"xio3130-downstream,bus=up,id=down{number},chassis={50 + number},slot={50 + number}"
        devices += ["-device", port, "-device", f"e1000e,bus=down{number}"]
    return Machine(iommu="intel", append="intel_iommu=on", root_ports=3, devices=tuple(devices))


def test_a_disk_and_a_card_go_to_vfio_and_back(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    with boot(behind_root_ports(disk), tmp_path) as guest:
        command = f"cd {ROOT} && python -m tests.guest.partition_driver vfio {TIMES}"
        guest.run(command, timeout=240 + 60 * TIMES).check()
    seen = json.loads((tmp_path / "vfio.json").read_text())
    assert seen["isolation differs"] == [], "our groups are the kernel's"
    assert sorted(seen["switched"]) in seen["units"]
    assert set(seen["one of the switch"]) & {"partition.group-split", "partition.peer-to-peer"}
    assert seen["both of the switch"] == []
    assert "partition.dom0-needs" in seen["what the guest runs from"]
    assert seen["conflicts"] == []
    assert len(seen["rounds"]) == TIMES
    for each in seen["rounds"]:
        assert each["asked before"]
        assert each["kept by"] == [["vfio-pci", "vfio-pci"]] * 2
        assert each["others unchanged"]
        assert all(value not in (0, 0xFFFFFFFF) for value in each["registers"])
        assert each["as before"]
        assert each["read after"]
        assert each["asked after"]


# ---- Xen ----

EDU = "0000:00:05.0"
_INIT = """#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc; $b mount -t sysfs sys /sys; $b mount -t devtmpfs dev /dev
exec >/dev/console 2>&1
$b insmod /xen-pcifront.ko
n=0; until [ -e /sys/bus/pci/devices/0000:00:00.0 ] || [ $n = 300 ]; do $b sleep 0.1; n=$((n + 1)); done
$b insmod /edu_interrupt.ko
$b dmesg | $b grep edu:
$b sleep 5; $b poweroff -f
"""


def guest_of_xen(folder: Path) -> bytes:
    """An initramfs that has the edu device interrupt."""
    source = folder / "edu"
    source.mkdir()
    shutil.copy(Path(__file__).with_name("edu_interrupt.c"), source)
    (source / "Kbuild").write_text("obj-m := edu_interrupt.o\n")
    version = images.kernel_version()
    line = ["make", "-C", f"/lib/modules/{version}/build", f"M={source}", "modules"]
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
    front = f"/lib/modules/{version}/kernel/drivers/pci/xen-pcifront.ko"
    files = [
        *((name, 0o40755, b"") for name in ("bin", "dev", "proc", "sys")),
        ("bin/busybox", 0o100755, Path("/bin/busybox").read_bytes()),
        ("init", 0o100755, _INIT.encode()),
        ("xen-pcifront.ko", 0o100644, Path(front).read_bytes()),
        ("edu_interrupt.ko", 0o100644, (source / "edu_interrupt.ko").read_bytes()),
    ]
    return gzip.compress(images.archive(files))


@pytest.mark.skipif(missing_xen() is not None, reason=missing_xen() or "")
@pytest.mark.skipif(module.missing() is not None, reason=module.missing() or "")
def test_a_guest_of_xen_sees_the_interrupt_of_its_device(tmp_path: Path) -> None:
    (tmp_path / "guest.gz").write_bytes(guest_of_xen(tmp_path))
    machine = Machine(xen="pv", iommu="intel", memory=2048, devices=("-device", "edu,addr=5"))
    with boot(machine, tmp_path) as guest:
        guest.run(f"cd {ROOT} && python -m tests.guest.partition_driver xen {EDU}", timeout=540).check()
    seen = json.loads((tmp_path / "xen.json").read_text())
    assert seen["errors"] == []
    assert seen["given"] == ["pciback", "pciback"]
    assert seen["assignable"] == [EDU]
    assert "edu: interrupt seen" in seen["console"], seen["created"] + seen["console"][-2000:]
    assert seen["after"] == seen["before"]


# ---- hv_core ----


@pytest.mark.skipif(missing_hv() is not None, reason=missing_hv() or "")
@pytest.mark.skipif(module.missing() is not None, reason=module.missing() or "")
def test_what_a_domain_of_hv_core_has_is_refused_to_dom0(tmp_path: Path) -> None:
    """The function is alone on its line, and has no driver."""
    machine = Machine(hv="pvh", devices=("-device", "e1000,addr=4"))
    with boot(machine, tmp_path) as guest:
        guest.load(module.built()[0])
        guest.run(f"cd {ROOT} && python -m tests.guest.partition_driver hv 0000:00:04.0", timeout=240).check()
    seen = json.loads((tmp_path / "hv.json").read_text())
    assert "none runs yet" in seen["plan"]
    assert seen["given"] == dict.fromkeys(("map", "set up", "write", "msix"), "NOT_PERMITTED")
    assert "NOT_PERMITTED" not in seen["after"].values()
