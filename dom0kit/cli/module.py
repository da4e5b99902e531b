# SPDX-License-Identifier: MIT
"""The kernel module, or real Xen without it, opened for a verb; no verb itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dom0kit.cli import Unusable

if TYPE_CHECKING:
    from dom0kit.hypercall.kernel_module import KernelModule
    from dom0kit.hypercall.xen import Xen


def opened() -> KernelModule:
    """The module's device; Unusable where it is not there or not for us."""
    from dom0kit.hypercall.kernel_module import KernelModule, ModuleMissing

    try:
        return KernelModule()
    except ModuleMissing as missing:
        raise Unusable(str(missing)) from missing


def opened_hypervisor() -> KernelModule | Xen:
    """The module, or, where it is not there, Xen by privcmd; Unusable where neither is."""
    try:
        return opened()
    except Unusable:
        from dom0kit.hypercall.xen import Privcmd, XenMissing

        try:
            privcmd = Privcmd()
        except XenMissing:
            privcmd = None
        if privcmd is None:
            raise
    from dom0kit.address import Gsi
    from dom0kit.cli.arguments import open_live
    from dom0kit.hypercall.xen import IoapicAt, Xen, XenMissing
    from dom0kit.observation import observe

    with privcmd:
        platform = observe(open_live(wake=False), aml=False, only="interrupts")
    try:
        return Xen(ioapics=[IoapicAt(ioapic.address, Gsi(ioapic.gsi_base)) for ioapic in platform.ioapics])
    except XenMissing as missing:
        raise Unusable(str(missing)) from missing
