# SPDX-License-Identifier: MIT
"""dom0kit.ko while the machine sleeps: nothing is lost, and nothing is left behind.

Suspended, the rig's root is gone (virtio-9p does not come back), so the guest is an initramfs of its own.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.guest import Machine, images, missing, module
from tests.guest.complaints import complaints
from tests.guest.machine import command_line
from tests.guest.process import Qemu

pytestmark = [
    pytest.mark.guest,
    pytest.mark.slow,
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
    pytest.mark.skipif(module.missing() is not None, reason=module.missing() or ""),
]

INIT = """#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc; $b mount -t sysfs sys /sys; $b mount -t devtmpfs dev /dev
exec >/dev/console 2>&1
$b insmod /dom0kit.ko && /suspend
echo "status $?"
$b rmmod dom0kit && [ ! -e /dev/dom0kit ] && echo "nothing left"
$b dmesg | $b grep -c "PM: suspend exit"
echo DONE
$b sleep 1000
"""


def test_a_machine_that_sleeps_wakes_up_as_it_was(tmp_path: Path) -> None:
    program = tmp_path / "suspend"
    source = Path(__file__).with_name("suspend.c")
    include = module.ROOT / "hv_core" / "include"
    line = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-static", f"-I{include}", "-o", str(program), str(source)]
    subprocess.run(line, check=True)
    initramfs = tmp_path / "initramfs"
    initramfs.write_bytes(
        images.archive(
            [
                *((folder, 0o40755, b"") for folder in ("bin", "dev", "proc", "sys")),
                ("bin/busybox", 0o100755, Path("/bin/busybox").read_bytes()),
                ("init", 0o100755, INIT.encode()),
                ("suspend", 0o100755, program.read_bytes()),
                ("dom0kit.ko", 0o100644, module.built()[0].read_bytes()),
            ]
        )
    )
    machine = command_line(Machine(cpus=2), tmp_path, plug_later=False)
    machine[machine.index("-initrd") + 1] = str(initramfs)
    qemu = Qemu(machine, tmp_path)
    try:
        qemu.wait(lambda: "\nDONE\n" in qemu.console, 120, "no end of the sleep")
        console = qemu.console
    finally:
        qemu.kill()
    said = [line for line in console.splitlines() if not line.startswith("[")]
    assert said[-5:] == ["as it was", "status 0", "nothing left", "1", "DONE"], console[-3000:]
    assert not complaints(console)
