# SPDX-License-Identifier: MIT
"""Builds dom0kit.ko for a kernel, in a copy of the sources: for this Debian's, for one of our own, or in a chroot for
another Debian's. ``./dev module [SUITE]`` is this file as a command.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.guest.images import kernel_version

ROOT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dom0kit"
NEEDED_IN_CHROOT = "linux-headers-amd64,make,perl,sparse"  # W=1 runs scripts/kernel-doc, which wants all of perl


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
    return _built(folder, folder, [], kernel or Path(f"/lib/modules/{version}/build"))


def chroot(suite: str) -> Path:
    """Where the headers of another Debian are, or will be."""
    return CACHE / f"headers-{suite}"


def built_in_chroot(suite: str) -> tuple[Path, str]:
    """As `built`, by the compiler and for the newest kernel of the Debian in `chroot`, which is there already."""
    root = chroot(suite)
    headers = sorted(root.glob("lib/modules/*/build"))[-1]
    return _built(root / "module", Path("/module"), ["chroot", str(root)], Path("/") / headers.relative_to(root))


def make_chroot(suite: str) -> None:
    """Fetch it: 90 s, 650 MB, as root. Killed half-way it is begun anew."""
    unfinished = chroot(suite).with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    CACHE.mkdir(parents=True, exist_ok=True)
    line = ["mmdebstrap", "--variant=apt", f"--include={NEEDED_IN_CHROOT}", suite, str(unfinished)]
    subprocess.run(line, check=True, stdin=subprocess.DEVNULL)
    unfinished.rename(chroot(suite))


def _built(folder: Path, seen_as: Path, within: Sequence[str], kernel: Path) -> tuple[Path, str]:
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for part in ("kmod", "hv_core/core", "hv_core/include"):
            _copy(ROOT / part, folder / part)
        tools = ["W=1", "C=2"] if within or shutil.which("sparse") else ["W=1"]
        line = [*within, "make", "-C", str(seen_as / "kmod"), f"KDIR={kernel}", *tools]
        ran = subprocess.run(line, capture_output=True, text=True)
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


def main() -> int:
    """Build, and say where it lies; the compiler's words only where it warns or fails."""
    suite = sys.argv[1] if sys.argv[1:] else None
    try:
        if suite is None:
            if lacking := missing():
                raise AssertionError(lacking)
            module, said = built()
        else:
            if not chroot(suite).exists():
                make_chroot(suite)
            module, said = built_in_chroot(suite)
    except (AssertionError, OSError, subprocess.CalledProcessError) as error:
        print(f"module: {error}", file=sys.stderr)
        return 3
    warns = "warning:" in said
    if warns:
        print(said, file=sys.stderr)
    print(module)
    return int(warns)


if __name__ == "__main__":
    sys.exit(main())
