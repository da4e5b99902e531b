# SPDX-License-Identifier: MIT
"""Builds dom0kit.ko for a kernel, in a copy of the sources below ``build/``."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from pathlib import Path

from tests.guest.images import kernel_version

ROOT = Path(__file__).parents[2]


def missing() -> str | None:
    """What building the module lacks here, as a reason to skip."""
    version = kernel_version()
    if version is None or not Path(f"/lib/modules/{version}/build/Makefile").exists():
        return "needs linux-headers-amd64 of the newest kernel (./dev test installs it)"
    return None


def built(kernel: Path | None = None) -> tuple[Path, str]:
    """The module for Debian's newest kernel, or for the kernel whose build folder is given, and what the build said.

    AssertionError, with the compiler's words, when it does not build. With sparse where it is installed.
    """
    version = kernel_version()
    folder = ROOT / "build" / "kmod" / (kernel.name if kernel else str(version))
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for part in ("kmod", "hv_core/core", "hv_core/include"):
            _copy(ROOT / part, folder / part)
        tools = ["W=1", "C=2"] if shutil.which("sparse") else ["W=1"]
        ran = subprocess.run(
            ["make", "-C", str(folder / "kmod"), f"KDIR={kernel or f'/lib/modules/{version}/build'}", *tools],
            capture_output=True,
            text=True,
        )
        said = ran.stdout + ran.stderr
        assert ran.returncode == 0, said[-4000:]
    return folder / "kmod" / "dom0kit.ko", said


def _copy(source: Path, to: Path) -> None:
    """Only what differs, so that make sees what is new."""
    to.mkdir(parents=True, exist_ok=True)
    for path in source.rglob("*"):
        if path.suffix not in (".c", ".h") and path.name not in ("Kbuild", "Makefile"):
            continue
        target = to / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists() or target.read_bytes() != path.read_bytes():
            shutil.copyfile(path, target)
