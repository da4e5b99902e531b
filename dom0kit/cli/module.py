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
    except Unusable as no_module:
        from dom0kit.hypercall.xen import Xen, XenMissing

        try:
            return Xen()
        except XenMissing:
            raise no_module from None
