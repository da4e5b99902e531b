# SPDX-License-Identifier: MIT
"""Machines saved at the moment when they wait for their root: where many tests share a machine, it boots once.

A 9p share that is mounted cannot be migrated, so the devices come after the restoring, by PCI hotplug.
"""

from __future__ import annotations

import fcntl
import hashlib
import shlex
import tempfile
from pathlib import Path

from tests.guest import accelerator, images
from tests.guest.machine import Machine, command_line, images_of, plugs
from tests.guest.process import Qemu

FOLDER = images.BUILD / "snapshots"
KEPT = 8
"""How many are kept, the last made ones; each has some 80 MB."""


def saved(machine: Machine, patience: float) -> Path:
    """The state of the machine, booted and saved when there is none yet; GuestFailed when it does not come up."""
    state = FOLDER / _key(machine)
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not state.exists():
            for old in sorted(FOLDER.glob("*-state"), key=lambda path: path.stat().st_mtime)[: 1 - KEPT]:
                old.unlink()
            _save(machine, state, patience)
    return state


def restore(qemu: Qemu, machine: Machine) -> None:
    """Let a machine that was started with ``incoming`` go on, and plug in its 9p devices."""
    qemu.wait(lambda: qemu.qmp.execute("query-status")["status"] == "paused", 60, "the snapshot was not restored")
    qemu.qmp.execute("cont")
    for device in plugs(machine):
        qemu.qmp.execute("device_add", **device)


def incoming(state: Path) -> list[str]:
    """What a command line needs more to start from that state."""
    return ["-incoming", f"exec:cat {shlex.quote(str(state))}"]


def _save(machine: Machine, state: Path, patience: float) -> None:
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        qemu = Qemu(command_line(machine, Path(folder), plug_later=True), Path(folder))
        try:
            qemu.wait(lambda: qemu.says(images.WAITING), patience, "no initramfs")
            qemu.qmp.execute("stop")
            half = Path(folder) / "state"
            qemu.qmp.execute("migrate", uri=f"exec:cat >{shlex.quote(str(half))}")
            qemu.wait(lambda: _is_migrated(qemu), 120, "the machine was not saved")
            half.rename(state)
        finally:
            qemu.kill()


def _is_migrated(qemu: Qemu) -> bool:
    status = qemu.qmp.execute("query-migrate").get("status")
    if status == "failed":
        raise RuntimeError("QEMU could not save the machine")
    return bool(status == "completed")


def _key(machine: Machine) -> str:
    """What a state depends on: the machine, its kernel and initramfs, Xen, QEMU."""
    digest = hashlib.sha256(repr(command_line(machine, Path("/out"), plug_later=True)).encode())
    kernel, initramfs = images_of(machine)
    for path in (kernel, accelerator.QEMU, *([images.xen()] if machine.xen else [])):
        digest.update(f"{path.stat().st_mtime_ns} {path.stat().st_size} ".encode())
    digest.update(initramfs.read_bytes())
    return f"{digest.hexdigest()[:16]}-state"
