# SPDX-License-Identifier: MIT
"""Builds hv_probe.ko, which does in dom0's kernel what a test wants done there, below ``build/``."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from pathlib import Path

from tests.guest.images import ROOT, kernel_version

SOURCE = Path(__file__).parent / "probe"


def built() -> Path:
    """The module for Debian's newest kernel; AssertionError, with the compiler's words, when it does not build."""
    folder = ROOT / "build" / "hv_probe"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name in ("Kbuild", "hv_probe.c"):
            shutil.copy2(SOURCE / name, folder)
        kernel = f"/lib/modules/{kernel_version()}/build"
        make = ["make", "-C", kernel, f"M={folder}", "W=1", "modules"]
        ran = subprocess.run(make, capture_output=True, text=True)
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-4000:]
    return folder / "hv_probe.ko"
