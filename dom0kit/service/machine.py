# SPDX-License-Identifier: MIT
"""What there is below this Linux: the kernel module's core, real Xen, or nothing."""

from __future__ import annotations

import os

from dom0kit.address import Gsi
from dom0kit.hotplug.kernel import LiveKernel
from dom0kit.hypercall import kernel_module, xen
from dom0kit.hypercall.interface import Hypervisor
from dom0kit.hypercall.journal import FOLDER
from dom0kit.observation import observe
from dom0kit.plan import Backend
from dom0kit.service.engine import Machine
from dom0kit.source.live import live
from dom0kit.source.pointers import acpi_pointers

_BOOT_ID = "/proc/sys/kernel/random/boot_id"


def this_machine(folder: str = FOLDER) -> Machine:
    """ModuleMissing: the module is there and cannot be used. OSError: Linux does not say its boot id."""
    with open(_BOOT_ID, encoding="ascii") as file:
        boot = file.read(64).strip()
    backend, hypervisor = _below()
    return Machine(
        kernel=LiveKernel(),
        hypervisor=hypervisor,
        backend=backend,
        boot=boot,
        folder=folder,
        pointers=acpi_pointers,
    )


def _below() -> tuple[Backend, Hypervisor | None]:
    """Xen by its own device first, as for every plan; else whatever the module reaches."""
    if os.path.exists(xen.PRIVCMD):
        platform = observe(live(), aml=False, only="interrupts")
        ioapics = [xen.IoapicAt(each.address, Gsi(each.gsi_base)) for each in platform.ioapics]
        try:
            return Backend.XEN, xen.Xen(ioapics=ioapics)
        except xen.XenMissing:
            pass  # a domain of Xen, and not domain 0
    if not os.path.exists(kernel_module.DEVICE):
        return Backend.LINUX, None
    module = kernel_module.KernelModule()
    return Backend(module.backend.name.lower()), module
