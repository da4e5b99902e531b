# SPDX-License-Identifier: MIT
"""Runs in a guest: gives devices away and takes them back, with I/O before, meanwhile and after.

python -m tests.guest.partition_driver vfio TIMES    a disk and a network card, by VFIO
python -m tests.guest.partition_driver xen FUNCTION  the edu device, to a PV domain of Xen (/out/guest.gz its initramfs)
python -m tests.guest.partition_driver hv FUNCTION   a function and its GSI, to a domain of hv_core

What was seen goes to /out/VERB.json.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import io
import json
import mmap
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dom0kit.cli import main

DEVICES = Path("/sys/bus/pci/devices")
PLAN = "/out/plan.json"
FILE = "/out/partition.toml"
BLOCK = 4096
GATEWAY, OURS = bytes((10, 0, 2, 2)), bytes((10, 0, 2, 15))
_TYPE1 = 1
_CONFIG = 7
_GET_STATUS, _SET_CONTAINER, _SET_IOMMU, _GET_DEVICE, _GET_REGION = 0x3B67, 0x3B68, 0x3B66, 0x3B6A, 0x3B6C
"""Of linux/vfio.h: _IO(';', 100 + n)."""


def dom0kit(*arguments: str, told: bool = False) -> str:
    """A verb, in this process; its output. `told`: it may end with findings."""
    out = io.TextIOWrapper(io.BytesIO())
    with contextlib.redirect_stdout(out):
        got = main(list(arguments))
    out.flush()
    out.seek(0)
    said = out.read()
    assert got == 0 or (told and got == 1), f"{arguments}: status {got}\n{said}"
    return said


def of_class(prefix: str) -> list[str]:
    """Addresses of functions whose class begins so."""
    return sorted(each.name for each in DEVICES.iterdir() if (each / "class").read_text().startswith(f"0x{prefix}"))


# ---- I/O ----


def disk(function: str) -> Path:
    """The device node of an NVMe disk."""
    for _ in range(100):
        for each in (DEVICES / function).glob("nvme/nvme*/nvme*n1"):
            if Path("/dev", each.name).exists():
                return Path("/dev", each.name)
        time.sleep(0.1)
    raise AssertionError(f"{function} shows no disk")


def write(function: str, number: int, data: bytes) -> None:
    file = os.open(disk(function), os.O_WRONLY | os.O_SYNC)
    os.pwrite(file, data, number * BLOCK)
    os.close(file)


def read(function: str, number: int) -> bytes:
    """Past every cache."""
    file = os.open(disk(function), os.O_RDONLY | os.O_DIRECT)
    with mmap.mmap(-1, BLOCK) as page:
        assert os.preadv(file, [page], number * BLOCK) == BLOCK
        os.close(file)
        return page[:]


def asks(function: str) -> bool:
    """Whether a question by the card (ARP, RFC 826) is answered by the gateway of QEMU's network."""
    (name,) = (each.name for each in (DEVICES / function / "net").iterdir())
    subprocess.run(["ip", "link", "set", name, "up"], check=True)
    mac = bytes.fromhex((DEVICES / function / "net" / name / "address").read_text().strip().replace(":", ""))
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806)) as card:
        card.bind((name, 0x0806))
        card.settimeout(0.5)
        question = (
            b"\xff" * 6 + mac + struct.pack(">HHHBBH", 0x0806, 1, 0x0800, 6, 4, 1) + mac + OURS + bytes(6) + GATEWAY
        )
        for _ in range(40):
            with contextlib.suppress(OSError):  # the link comes up, or nobody answers yet
                card.send(question)
                if card.recv(100)[20:22] == b"\0\2":
                    return True
    return False


def by_vfio(function: str, register: int) -> int:
    """32 bits of BAR 0, read as whoever has the device through VFIO."""
    group = os.path.basename(os.readlink(DEVICES / function / "iommu_group"))
    container = os.open("/dev/vfio/vfio", os.O_RDWR)
    file = os.open(f"/dev/vfio/{group}", os.O_RDWR)
    status = bytearray(struct.pack("II", 8, 0))
    fcntl.ioctl(file, _GET_STATUS, status)
    assert struct.unpack("II", status)[1] & 1, "the group is viable"
    fcntl.ioctl(file, _SET_CONTAINER, struct.pack("i", container))
    fcntl.ioctl(container, _SET_IOMMU, _TYPE1)
    handle = _handle(file, function)
    config, bar = (_region(handle, index) for index in (_CONFIG, 0))
    os.pwrite(handle, struct.pack("<H", 2), config + 4)
    (value,) = struct.unpack("<I", os.pread(handle, 4, bar + register))
    for each in (handle, file, container):
        os.close(each)
    return int(value)


def _handle(group: int, function: str) -> int:
    """The device's file: what the ioctl returns, which Python's own does not tell where it is given bytes."""
    libc = ctypes.CDLL(None, use_errno=True)
    handle: int = libc.ioctl(group, _GET_DEVICE, ctypes.c_char_p(function.encode()))
    assert handle >= 0, os.strerror(ctypes.get_errno())
    return handle


def _region(handle: int, index: int) -> int:
    information = bytearray(struct.pack("IIIIQQ", 32, 0, index, 0, 0, 0))
    fcntl.ioctl(handle, _GET_REGION, information)
    return int(struct.unpack("IIIIQQ", information)[5])


# ---- what is done ----


def partition(**domains: Sequence[str]) -> None:
    """A file that gives functions, named by address, to domains."""
    lines = []
    for name, functions in domains.items():
        devices = ", ".join(f'{{ sbdf = "{each}" }}' for each in functions)
        lines.append(f'[[domain]]\nname = "{name}"\ndevice = [{devices}]\n')
    Path(FILE).write_text("".join(lines))


def errors() -> list[str]:
    """Rules of errors that a check of the file tells."""
    verdict = json.loads(dom0kit("partition", "check", FILE, "--format", "json", told=True))
    return [each["finding"]["rule"] for each in verdict["conflicts"] if each["finding"]["severity"] == "error"]


def drivers() -> dict[str, tuple[str | None, str]]:
    return {
        each.name: (
            os.path.basename(os.readlink(each / "driver")) if (each / "driver").exists() else None,
            (each / "driver_override").read_text().strip(),
        )
        for each in DEVICES.iterdir()
    }


def vfio(times: int) -> dict[str, Any]:
    for each in ("nvme", "e1000e", "vfio-pci"):
        subprocess.run(["modprobe", each], check=True)
    (nvme,) = of_class("0108")
    cards = of_class("0200")
    switched = [each for each in cards if len(str((DEVICES / each).resolve()).split("/")) > 6]
    (card,) = (each for each in cards if each not in switched)
    seen: dict[str, Any] = {"switched": switched}
    suggestion = json.loads(dom0kit("partition", "suggest", "--format", "json"))
    seen["units"] = [unit["functions"] for unit in suggestion["givable"]]
    partition(a=switched[:1])
    seen["one of the switch"] = errors()
    partition(a=switched)
    seen["both of the switch"] = errors()
    (root,) = (each["functions"] for each in suggestion["blocked"] if "/out" in json.dumps(each["conflicts"]))
    partition(a=root)
    seen["what the guest runs from"] = errors()
    found = json.loads(dom0kit("enumerate", "--only", "pci", "--format", "json", told=True))
    seen["isolation differs"] = [each for each in found["findings"] if each["rule"] == "pci.isolation-differs"]

    partition(disk=[nvme], net=[card])
    seen["conflicts"] = errors()
    dom0kit("partition", "plan", FILE, "-o", PLAN)
    before = drivers()
    seen["rounds"] = []
    for number in range(times):
        data = os.urandom(BLOCK)
        write(nvme, number, data)
        asked = asks(card)
        dom0kit("apply", PLAN)
        now = drivers()
        registers = (by_vfio(nvme, 0), by_vfio(card, 8))
        dom0kit("rollback")
        seen["rounds"].append(
            {
                "asked before": asked,
                "kept by": [now[each] for each in (nvme, card)],
                "others unchanged": {k: v for k, v in now.items() if k not in (nvme, card)}
                == {k: v for k, v in before.items() if k not in (nvme, card)},
                "registers": registers,
                "as before": drivers() == before,
                "read after": read(nvme, number) == data,
                "asked after": asks(card),
            }
        )
    return seen


# ---- Xen ----

_TOOLSTACK = """
for m in xen_privcmd xen_evtchn xen_gntdev xen_gntalloc xen_pciback; do modprobe $m || exit 1; done
mkdir -p /dev/pts /run/xen /run/xenstored /run/lock /var/lib/xen /var/lib/xenstored /var/log/xen/console
mountpoint -q /dev/pts || mount -t devpts devpts /dev/pts
mountpoint -q /proc/xen || mount -t xenfs xenfs /proc/xen
mount -t tmpfs tmpfs /var/lib/xenstored
cd /usr/lib/xen-4.17/bin
./xenstored --pid-file /run/xen/xenstored.pid && ./xen-init-dom0
./xenconsoled --log=all --pid-file=/run/xen/xenconsoled.pid
"""
"""What Debian's init scripts do."""


def xen(function: str) -> dict[str, Any]:
    subprocess.run(["bash", "-c", _TOOLSTACK], check=True, stdout=subprocess.DEVNULL)
    partition(guest=[function])
    with open(FILE, "a") as file:
        file.write('vcpus = 1\nmemory = "192M"\n')
    seen: dict[str, Any] = {"errors": errors(), "before": drivers()[function]}
    os.mkdir("/out/xl")
    dom0kit("partition", "plan", FILE, "-o", PLAN, "--xl", "/out/xl")
    dom0kit("apply", PLAN)
    seen["given"] = drivers()[function]
    seen["assignable"] = subprocess.run(["xl", "pci-assignable-list"], capture_output=True, text=True).stdout.split()
    (kernel,) = Path("/boot").glob(f"vmlinuz-{os.uname().release}")
    with open("/out/xl/guest.cfg", "a") as file:
        file.write(f'type = "pv"\nkernel = "{kernel}"\nramdisk = "/out/guest.gz"\nextra = "console=hvc0"\n')
        file.write('on_poweroff = "destroy"\n')
    created = subprocess.run(["xl", "create", "/out/xl/guest.cfg"], capture_output=True, text=True)
    seen["created"] = created.stdout + created.stderr
    console = Path("/var/log/xen/console/guest-guest.log")
    for _ in range(600):
        if console.exists() and ("interrupt seen" in console.read_text() or "no interrupt" in console.read_text()):
            break
        time.sleep(0.5)
    seen["console"] = console.read_text() if console.exists() else ""
    subprocess.run(["xl", "destroy", "guest"], stderr=subprocess.DEVNULL)
    for _ in range(100):
        if "guest" not in subprocess.run(["xl", "list"], capture_output=True, text=True).stdout:
            break
        time.sleep(0.2)
    dom0kit("rollback")
    seen["after"] = drivers()[function]
    return seen


# ---- hv_core ----


def hv(function: str) -> dict[str, Any]:
    from dom0kit.address import Gsi, Polarity, Sbdf, Trigger
    from dom0kit.hypercall.interface import HypercallRefused
    from dom0kit.hypercall.kernel_module import KernelModule

    def refusals(gsi: int) -> dict[str, str]:
        """What dom0 is told when it asks for the line, or for the function's messages, by calls of its own."""
        said = {}
        with KernelModule() as module:
            calls: dict[str, Callable[[], object]] = {
                "map": lambda: module.map_gsi(Gsi(gsi), 60),
                "set up": lambda: module.setup_gsi(Gsi(gsi), Trigger.LEVEL, Polarity.LOW),
                "write": lambda: module.apic_write(0xFEC00000, 0x10 + 2 * gsi, 0x10000),
                "msix": lambda: module.map_msix(Sbdf.parse(function), 0, 0xFEB00000, 61),
            }
            for name, ask in calls.items():
                try:
                    ask()
                    said[name] = "OK"
                except HypercallRefused as refused:
                    said[name] = refused.status.name
        return said

    partition(guest=[function])
    with open(FILE, "a") as file:
        file.write("policy.require_iommu = false\n")
    seen: dict[str, Any] = {"errors": errors()}
    seen["plan"] = dom0kit("partition", "plan", FILE, "-o", PLAN)
    operations = json.loads(Path(PLAN).read_text())["operations"]
    (seen["gsi"],) = (each["gsi"] for each in operations if each["operation"] == "assign-gsi")
    dom0kit("apply", PLAN)
    seen["given"] = refusals(seen["gsi"])
    dom0kit("rollback")
    seen["after"] = refusals(seen["gsi"])
    return seen


if __name__ == "__main__":
    verb, argument = sys.argv[1:]
    answer = vfio(int(argument)) if verb == "vfio" else {"xen": xen, "hv": hv}[verb](argument)
    Path(f"/out/{verb}.json").write_text(json.dumps(answer))
