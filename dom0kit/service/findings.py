# SPDX-License-Identifier: MIT
"""What the service can find wrong."""

from __future__ import annotations

from typing import Final

from dom0kit.finding import Severity, rule

NO_HYPERVISOR: Final = rule(
    "service.no-hypervisor",
    Severity.INFO,
    title="there is no hypervisor below this machine",
    meaning="Neither dom0kit's module nor Xen is there. The service observes the machine and answers clients; plans "
    "for a hypervisor cannot be applied, those for Linux can.",
    advice="Nothing, where that is intended. Else load dom0kit.ko, or boot under hv_core or Xen.",
    specification="dom0kit: docs/service.md",
)
UNSEEN: Final = rule(
    "service.pointers-unseen",
    Severity.WARNING,
    title="the hypervisor's ACPI pointers could not be verified",
    meaning="Neither firmware's own table of addresses nor the kernel's boot log says where dom0 found the RSDP and "
    "the XSDT, so the addresses that the hypervisor found are not confirmed to it.",
    advice="Start the service from boot on, while the kernel's log still has its first lines (log_buf_len=).",
    specification="Linux, drivers/firmware/efi/efi.c (systab), drivers/acpi/acpica/tbprint.c",
)
PLAN_LEFT: Final = rule(
    "service.plan-left",
    Severity.WARNING,
    title="a plan is applied that is not in /etc/dom0kit/plans any more",
    meaning="Its file was changed or taken away after it was applied, or it was applied by hand. The service never "
    "goes back by itself, for somebody may rely upon it.",
    advice="dom0kit rollback takes back the newest plan; or put the file back.",
    specification="dom0kit: docs/service.md",
)
