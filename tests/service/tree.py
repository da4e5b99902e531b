# SPDX-License-Identifier: MIT
"""A Debian tree with systemd in it, as a machine has that dom0kit's packages are installed on; made once, kept."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from pathlib import Path

from tests.guest.images import ROOT

TREE = ROOT / "build" / "tree"
INCLUDED = (
    "systemd,systemd-sysv,udev,dbus,kmod,python3,acpica-tools,pci.ids,libudev1,python3-cffi-backend,"
    "python3-prometheus-client,python3-pyudev,python3-rich"
)


def missing() -> str | None:
    """What this needs and the machine lacks, as a reason to skip; None when all is here."""
    needs = {"mmdebstrap": "mmdebstrap", "debhelper dh-dkms dpkg-dev python3-pip": "dh_dkms"}
    absent = [name for name, program in needs.items() if shutil.which(program) is None]
    return f"needs {' '.join(absent)} (./dev deb installs them)" if absent else None


def made() -> Path:
    """The tree. CalledProcessError where Debian cannot be reached."""
    TREE.parent.mkdir(exist_ok=True)
    with (TREE.parent / "tree.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not TREE.exists():
            unfinished = TREE.with_suffix(".unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            line = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={INCLUDED}", "bookworm", str(unfinished)]
            subprocess.run(line, check=True, stdin=subprocess.DEVNULL)
            unfinished.rename(TREE)
    return TREE


def packages() -> dict[str, Path]:
    """dom0kit's packages by name, built anew. CalledProcessError."""
    subprocess.run(["/usr/bin/python3", str(ROOT / "packaging" / "deb.py")], check=True, stdin=subprocess.DEVNULL)
    return {path.name.partition("_")[0]: path for path in (ROOT / "build" / "deb").glob("*.deb")}
