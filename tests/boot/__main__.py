# SPDX-License-Identifier: MIT
"""``./dev boot``: hv_core in QEMU with this machine's Debian as its dom0: a shell, a demonstration, or many boots."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.guest import CommandFailed, GuestFailed, Machine, QemuFailed, boot, missing_grub, missing_hv, module
from tests.guest.__main__ import UNUSABLE
from tests.guest.__main__ import main as guest
from tests.guest.images import ROOT

DEMONSTRATION = (
    "dom0kit hv info",
    "dom0kit enumerate --only pci | head -n 24",
    "dom0kit ioapic dump",
    "dom0kit ioapic set 0.20 vector=0x51 destination=0 trigger=level polarity=low masked=yes",
    "dom0kit irq vector 2",
    "dom0kit hv shared-info",
    "dom0kit hv register",
    "python -m tests.boot.dom0 exits; cat /out/seen; echo",
)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    reason = missing_grub() if options.grub else missing_hv()
    if options.demo:
        reason = reason or module.missing()
    if reason:
        print(f"boot: {reason}", file=sys.stderr)
        return UNUSABLE
    machine = Machine(
        type=options.machine,
        cpus=options.cpus,
        hv="pvh" if options.pvh else "bzimage",
        hv_append=options.options,
        hv_loader="grub" if options.grub else "qemu",
    )
    if not options.demo and not options.repeat:
        return guest(_for_guest(machine))
    with tempfile.TemporaryDirectory(prefix="dom0kit-boot-") as folder:
        try:
            return (
                _demonstrate(machine, Path(folder)) if options.demo else _repeat(machine, Path(folder), options.repeat)
            )
        except (GuestFailed, QemuFailed, CommandFailed) as error:
            print(f"boot: {error}", file=sys.stderr)
            return UNUSABLE


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./dev boot",
        description="hv_core in QEMU, with this machine's Debian as its dom0: a shell on the terminal.",
        epilog="Exit status: 0 fine; 1 a boot of --repeat failed; 3 no dom0, or the core or dom0 complained.",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--demo", action="store_true", help="instead of a shell: what dom0kit does there")
    what.add_argument("--repeat", type=int, metavar="N", help="instead of a shell: so many boots, each to user space")
    parser.add_argument("--machine", default="q35", help="QEMU's -machine: q35, pc (q35)")
    parser.add_argument("--cpus", type=int, default=1, metavar="N")
    parser.add_argument("--pvh", action="store_true", help="the unpacked kernel, by PVH: 3 s faster")
    parser.add_argument("--grub", action="store_true", help="loaded by GRUB, not by QEMU")
    parser.add_argument("--options", default="", metavar="ARGS", help="hv_core's own: docs/hv_core.md")
    return parser.parse_args(arguments)


def _for_guest(machine: Machine) -> list[str]:
    line = ["--hv-pvh" if machine.hv == "pvh" else "--hv", "--machine", machine.type, "--cpus", str(machine.cpus)]
    return [*line, "--hv-append", machine.hv_append, *["--hv-grub"] * (machine.hv_loader == "grub")]


def _demonstrate(machine: Machine, out: Path) -> int:
    start = time.monotonic()
    with boot(machine, out) as dom0:
        print("\n".join(line for line in dom0.console.splitlines() if line.startswith("hv_core: ")))
        print(f"(dom0 runs after {time.monotonic() - start:.1f} s)")
        dom0.load(module.built()[0])
        print("dom0# insmod dom0kit.ko")
        for command in DEMONSTRATION:
            print(f"dom0# {command}", flush=True)
            dom0.run(f"cd {shlex.quote(str(ROOT))}; {command}", echo=True, timeout=120)
    return 0


def _repeat(machine: Machine, folder: Path, times: int) -> int:
    took: list[float] = []
    failed = 0
    for number in range(1, times + 1):
        out = folder / str(number)
        start = time.monotonic()
        try:
            with boot(dataclasses.replace(machine), out) as dom0:
                dom0.run("true").check()
                took.append(time.monotonic() - start)
            print(f"boot {number:3}: user space after {took[-1]:.1f} s", flush=True)
        except (GuestFailed, QemuFailed, CommandFailed) as error:
            failed += 1
            print(f"boot {number:3}: FAILED: {error}", flush=True)
    if took:
        print(f"{len(took)} of {times} boots; median {statistics.median(took):.1f} s, longest {max(took):.1f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
