# SPDX-License-Identifier: MIT
"""Whole machines for tests: a kernel booted in QEMU, bare or as domain 0 of real Xen, with this machine's own root.

    from tests.guest import Machine, boot, run

    result = run(Machine(cpus=2), "uname -r", tmp_path)             # one command; .stdout .stderr .status .dmesg

    with boot(Machine(root_ports=1), tmp_path, modules=[ko]) as guest:
        guest.run("modprobe msr").check()                           # CommandFailed unless it succeeds
        guest.python(Path(__file__).parent / "driver.py", "all")    # with the checkout's .venv and packages
        pins = guest.call(count_pins, 0xFEC00000)                   # a function's source; JSON values in and out
        qemu = guest.qmp.info_pic()[0].written                      # QEMU's own redirection entries
        guest.qmp.execute("device_add", driver="e1000e", bus="rp0", id="e")
        guest.qmp.wait_event("DEVICE_DELETED", device="e")

`tmp_path` is ``/out`` in the guest, for files both ways; paths of the host are paths of the guest, the checkout's too
(`images.ROOT`): never write one down. Nothing in the guest changes the host but what it writes to ``/out``.

A kernel that oopses, or logs BUG, WARNING, KASAN, lockdep and their like, raises KernelComplained, at the latest when
the ``with`` ends. GuestHung: no boot, or no end in time. QemuFailed: QEMU is at fault, not the guest.

Tests of guests are marked ``guest`` and ``slow``, and skipped for the reason that `missing()` or `missing_xen()` gives.
Where many tests want an equal machine, ``snapshot=True`` starts it from a saved state. A kernel with KASAN, lockdep
and KUnit is ``Machine(kernel=debug_kernel.built())`` where ``./dev kernel-debug`` has built it (elsewhere that is
None); its tree is also what modules for it are built against.
"""

from tests.guest.guest import CommandFailed, Guest, Result, boot, run
from tests.guest.images import missing, missing_grub, missing_hv, missing_xen
from tests.guest.machine import Machine
from tests.guest.process import GuestFailed, GuestHung, GuestOff, KernelComplained, QemuFailed
from tests.guest.qmp import IoapicRegisters, Monitor

__all__ = [
    "CommandFailed",
    "Guest",
    "GuestFailed",
    "GuestHung",
    "GuestOff",
    "IoapicRegisters",
    "KernelComplained",
    "Machine",
    "Monitor",
    "QemuFailed",
    "Result",
    "boot",
    "missing",
    "missing_grub",
    "missing_hv",
    "missing_xen",
    "run",
]
