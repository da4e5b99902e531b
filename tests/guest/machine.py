# SPDX-License-Identifier: MIT
"""What machine to boot, and the QEMU command line that is that machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from tests.guest import images
from tests.guest.accelerator import accelerator


@dataclasses.dataclass(frozen=True)
class Machine:
    """What machine to boot. Two equal ones are the same machine; a snapshot of one serves the other."""

    type: str = "q35"
    """QEMU's -machine: ``q35``, ``pc`` (i440fx), ``microvm,acpi=on,pcie=on``, with any more of its options."""
    devices: Sequence[str] = ()
    """More of QEMU's command line, such as ``("-device", "e1000")``."""
    cpus: int = 1
    """A second CPU costs an emulated boot two seconds."""
    memory: int = 1024
    """MiB."""
    numa_nodes: int = 0
    """Memory and CPUs are divided among so many nodes, each a socket; 0: the machine has no SRAT."""
    iommu: Literal["", "intel", "amd"] = ""
    """An IOMMU with interrupt remapping. A bare Linux uses Intel's when `append` says ``intel_iommu=on``."""
    root_ports: int = 0
    """Root ports ``rp0``, ``rp1``... with hotplug (q35): the bus for a device_add."""
    root_buses: Sequence[int] = ()
    """Numbers of more root buses, as ``0x80``: a pxb-pcie ``pxb0``... with one root port ``pxb0-rp``... each."""
    append: str = ""
    """More of Linux's command line."""
    xen: Literal["", "pv", "pvh"] = ""
    """Linux is domain 0, paravirtualized or PVH, of Debian's Xen. PVH needs ``iommu="amd"`` and 2048 MiB."""
    xen_append: str = ""
    """More of Xen's command line."""
    hv: Literal["", "bzimage", "pvh"] = ""
    """Linux is dom0 of hv_core: Debian's packed kernel by Linux's boot protocol, or unpacked (3 s faster) by PVH."""
    hv_append: str = ""
    """More of hv_core's command line, as ``dom0_cpus=1``."""
    hv_loader: Literal["qemu", "grub"] = "qemu"
    """Who loads hv_core: QEMU's own Multiboot loader, or GRUB from a CD."""
    translated: bool = False
    """The virtio devices go through the IOMMU, as those of a PVH domain 0 always do."""
    tree: Path | None = None
    """A Debian tree with systemd, then PID 1: commands run in it, by a unit, with this checkout in its place."""
    kernel: Path | None = None
    """The tree of a kernel of our own with all it needs built in, instead of Debian's (see debug_kernel.py)."""


def images_of(machine: Machine) -> images.Images:
    """The kernel and initramfs that the machine boots."""
    if machine.kernel:
        return images.own(machine.kernel)
    return images.debian()._replace(kernel=images.packed()) if machine.hv == "bzimage" else images.debian()


def command_line(machine: Machine, out: Path, *, plug_later: bool) -> list[str]:
    """The whole command line but for console and monitor.

    `plug_later`: the two 9p devices, the root and `out`, are added while it runs, as `plugs` says.
    """
    kernel, initramfs = images_of(machine)
    with_kvm = accelerator() == "kvm" and not machine.xen and not machine.hv
    line = ["qemu-system-x86_64", "-machine", _type(machine, with_kvm)]
    line += ["-accel", "kvm" if with_kvm else "tcg,thread=multi", "-cpu", "host" if with_kvm else _cpu(machine)]
    line += [
        "-smp",
        f"{machine.cpus},sockets={machine.numa_nodes or 1}",
        "-m",
        str(machine.memory),
        "-nodefaults",
        "-display",
        "none",
        "-no-reboot",
    ]
    linux = f"panic=-1 oops=panic loglevel=5 {machine.append}".strip()
    if machine.xen:
        domain0 = f"{kernel} console=hvc0 {linux}".replace(",", ",,")
        hypervisor = f"dom0_mem={machine.memory - 256}M com1=115200,8n1 console=com1 loglvl=warning"
        hypervisor += " dom0=pvh" if machine.xen == "pvh" else ""
        line += ["-kernel", str(images.xen()), "-initrd", f"{domain0},{initramfs}"]
        line += ["-append", f"{hypervisor} {machine.xen_append}".strip()]
    elif machine.hv:
        line += _hv(machine, out / "rig", kernel, initramfs, linux)
    else:
        line += ["-kernel", str(kernel), "-initrd", str(initramfs), "-append", f"console=ttyS0 {linux}"]
    if machine.iommu:  # before the devices it is to translate for
        line += ["-device", f"{machine.iommu}-iommu,intremap=on" + (",caching-mode=on" if _is_intel(machine) else "")]
    for tag, path, options in (("root", "/", ",readonly=on"), ("out", str(out), "")):
        local = f"local,id={tag},path={path.replace(',', ',,')},security_model=none,multidevs=remap{options}"
        line += ["-fsdev", local]
        if not plug_later:
            line += ["-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}{_translated(machine)}"]
    return line + _topology(machine) + list(machine.devices) + (_sockets(machine) if plug_later else [])


def _hv(machine: Machine, folder: Path, kernel: Path, initramfs: Path, linux: str) -> list[str]:
    # The timer is checked by counting ticks, of which a busy host drops some.
    domain0 = f"console=ttyS0 no_timer_check {linux}"
    if machine.hv_loader == "grub":
        return ["-cdrom", str(images.grub(folder, machine.hv_append, kernel, domain0, initramfs))]
    module = f"{kernel} {domain0}".replace(",", ",,")
    return ["-kernel", str(images.hv_core()), "-initrd", f"{module},{initramfs}", "-append", machine.hv_append]


def plugs(machine: Machine) -> list[dict[str, str]]:
    """The arguments of the device_add commands that bring the 9p devices; ValueError where nothing can be plugged."""
    kind = machine.type.partition(",")[0]
    if kind not in ("q35", "pc"):
        raise ValueError(f"no PCI hotplug on a {kind}, so no snapshot of it")
    return [
        {"driver": "virtio-9p-pci", "fsdev": tag, "mount_tag": tag}
        | ({"bus": f"socket-{tag}"} if kind == "q35" else {})
        | ({"disable-legacy": "on", "iommu_platform": "on"} if _is_translated(machine) else {})
        for tag in ("root", "out")
    ]


def _type(machine: Machine, with_kvm: bool) -> str:
    """With KVM, and with a remapping IOMMU, the IOAPIC has to be QEMU's own: `info pic` shows that one."""
    split = (with_kvm or machine.iommu) and "kernel-irqchip" not in machine.type
    return machine.type + (",kernel-irqchip=split" if split else "")


def _cpu(machine: Machine) -> str:
    """Emulated, a PV kernel's IRET faults with SMAP; a PVH one's RDTSCP counts as RDTSC, its XRSTOR faults at times."""
    return "max" + (",-smap" if machine.xen else "") + (",-rdtscp,-xsave" if machine.xen == "pvh" else "")


def _is_intel(machine: Machine) -> bool:
    return machine.iommu == "intel"


def _is_translated(machine: Machine) -> bool:
    """The memory of a PVH domain 0 is not where it believes: its devices must go through the IOMMU."""
    return machine.translated or machine.xen == "pvh"


def _translated(machine: Machine) -> str:
    return ",disable-legacy=on,iommu_platform=on" if _is_translated(machine) else ""


def _topology(machine: Machine) -> list[str]:
    line: list[str] = []
    nodes = machine.numa_nodes
    for node in range(nodes):
        (cpu, next_cpu), (start, end) = (
            (of * node // nodes, of * (node + 1) // nodes) for of in (machine.cpus, machine.memory)
        )
        line += ["-object", f"memory-backend-ram,id=node{node},size={end - start}M"]
        line += ["-numa", f"node,nodeid={node},memdev=node{node},cpus={cpu}-{next_cpu - 1}"]
    ports = [(f"rp{port}", "pcie.0") for port in range(machine.root_ports)]
    for number, bus in enumerate(machine.root_buses):
        line += ["-device", f"pxb-pcie,id=pxb{number},bus=pcie.0,bus_nr={bus}"]
        ports += [(f"pxb{number}-rp", f"pxb{number}")]
    for slot, (port, bus_id) in enumerate(ports, 1):
        line += ["-device", f"pcie-root-port,id={port},bus={bus_id},chassis={slot},slot={slot}"]
    return line


def _sockets(machine: Machine) -> list[str]:
    """On q35 only a root port takes a device later."""
    line: list[str] = []
    if machine.type.partition(",")[0] == "q35":
        for slot, tag in ((200, "root"), (201, "out")):
            line += ["-device", f"pcie-root-port,id=socket-{tag},bus=pcie.0,chassis={slot},slot={slot}"]
    return line
