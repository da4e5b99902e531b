# SPDX-License-Identifier: MIT
"""Whether guests run on KVM: only where one did, for a /dev/kvm that opens proves nothing."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import threading
from pathlib import Path
from typing import Literal

from tests.guest import images

QEMU = Path("/usr/bin/qemu-system-x86_64")
PROBE_SECONDS = 20


@functools.cache
def accelerator() -> Literal["kvm", "tcg"]:
    """``kvm`` where a kernel came up on it, else ``tcg``; tried once a checkout, host kernel and QEMU."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    remembered = images.BUILD / "accelerator"
    here = f"{platform.release()} {QEMU.stat().st_mtime_ns}"
    if not remembered.exists() or not remembered.read_text().startswith(f"{here} "):
        images.BUILD.mkdir(parents=True, exist_ok=True)
        remembered.write_text(f"{here} {'kvm' if boots_on_kvm() else 'tcg'}")
    return "kvm" if remembered.read_text().endswith(" kvm") else "tcg"


def boots_on_kvm() -> bool:
    """Whether Debian's kernel reaches its initramfs on KVM within `PROBE_SECONDS`.

    On a host that is itself a guest of PVM, QEMU aborts, or the kernel prints nothing for ever.
    """
    kernel, initramfs = images.debian()
    line = [str(QEMU), "-machine", "q35,kernel-irqchip=split", "-accel", "kvm", "-cpu", "host", "-m", "512"]
    line += ["-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio", "-kernel", str(kernel)]
    line += ["-initrd", str(initramfs), "-append", "console=ttyS0 panic=-1 quiet"]
    with subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as qemu:
        assert qemu.stdout is not None
        limit = threading.Timer(PROBE_SECONDS, qemu.kill)
        limit.start()
        try:
            return any(images.STARTED.encode() in line for line in qemu.stdout)
        finally:
            limit.cancel()
            qemu.kill()
