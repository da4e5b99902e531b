# SPDX-License-Identifier: MIT
"""The kernel module, opened for a verb; no verb itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dom0kit.cli import Unusable

if TYPE_CHECKING:
    from dom0kit.hypercall.kernel_module import KernelModule


def opened() -> KernelModule:
    """The module's device; Unusable where it is not there or not for us."""
    from dom0kit.hypercall.kernel_module import KernelModule, ModuleMissing

    try:
        return KernelModule()
    except ModuleMissing as missing:
        raise Unusable(str(missing)) from missing
