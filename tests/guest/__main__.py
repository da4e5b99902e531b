# SPDX-License-Identifier: MIT
"""``./dev guest``: the machines of the tests for a person, with a shell or for one command."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import tempfile
import termios
from collections.abc import Sequence
from pathlib import Path

from tests.guest import debug_kernel
from tests.guest.guest import CommandFailed, Guest, boot
from tests.guest.images import missing, missing_hv, missing_xen
from tests.guest.machine import Machine
from tests.guest.process import GuestFailed, GuestOff, QemuFailed

UNUSABLE = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status of what ran in the guest."""
    options = _options(arguments)
    kernel = debug_kernel.built() if options.debug_kernel else None
    reason = missing_xen() if options.xen else missing_hv() if options.hv else missing()
    if options.debug_kernel and not kernel:
        reason = "no such kernel yet: ./dev kernel-debug builds it"
    if reason:
        return _failed(reason)
    machine = Machine(
        type=options.machine,
        devices=[word for device in options.device for word in ("-device", device)],
        cpus=options.cpus,
        memory=options.memory or (2048 if options.xen else 1024),
        numa_nodes=options.numa_nodes,
        iommu=options.iommu or ("amd" if options.xen == "pvh" else ""),
        root_ports=options.root_ports,
        append=options.append,
        xen=options.xen,
        hv=options.hv,
        hv_append=options.hv_append,
        hv_loader=options.hv_grub,
        kernel=kernel,
    )
    words = options.command[1:] if options.command[:1] == ["--"] else options.command
    is_shell = not words and sys.stdin.isatty()
    command = " ".join(words) or ("" if is_shell else sys.stdin.read())
    terminal = termios.tcgetattr(sys.stdin) if is_shell else None
    with tempfile.TemporaryDirectory(prefix="dom0kit-guest-") as folder:
        try:
            with boot(machine, options.out or Path(folder), modules=options.module, terminal=is_shell) as guest:
                if is_shell:
                    return _shell(guest)
                return guest.run(f"cd {shlex.quote(os.getcwd())}\n{command}", timeout=None, echo=True).status
        except GuestOff as error:
            return 0 if is_shell else _failed(str(error))
        except (GuestFailed, QemuFailed, CommandFailed) as error:
            return _failed(str(error))
        except KeyboardInterrupt:
            return 128 + signal.SIGINT
        except BrokenPipeError:  # whoever read our output has seen enough; it is not flushed again at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 128 + signal.SIGPIPE
        finally:
            if terminal:  # a QEMU that is killed leaves it raw
                termios.tcsetattr(sys.stdin, termios.TCSADRAIN, terminal)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./dev guest",
        description="Boots this machine's kernel in QEMU, with this machine's files below a layer that is thrown away, "
        "and runs CMD in the current folder, or the commands on standard input, or a shell on the terminal.",
        epilog="/out in the guest is the folder --out. Exit status: that of CMD; 3 when the guest failed or its kernel "
        "complained.",
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--xen", action="store_const", const="pv", default="", help="as PV domain 0 of Debian's Xen")
    kind.add_argument("--pvh", action="store_const", const="pvh", dest="xen", help="as PVH domain 0")
    kind.add_argument("--hv", action="store_const", const="bzimage", default="", help="as dom0 of hv_core")
    kind.add_argument("--hv-pvh", action="store_const", const="pvh", dest="hv", help="as dom0 of hv_core, by PVH")
    kind.add_argument("--debug-kernel", action="store_true", help="the kernel of ./dev kernel-debug")
    parser.add_argument("--machine", default="q35", help="QEMU's -machine: q35, pc, microvm,... (q35)")
    parser.add_argument("--cpus", type=int, default=1, metavar="N")
    parser.add_argument("--memory", type=int, metavar="MB", help="1024, under Xen 2048")
    parser.add_argument("--numa-nodes", type=int, default=0, metavar="N")
    parser.add_argument("--iommu", choices=("intel", "amd"), help="with interrupt remapping; --pvh has amd")
    parser.add_argument("--root-ports", type=int, default=0, metavar="N", help="with hotplug: rp0, rp1, ...")
    parser.add_argument("--device", action="append", default=[], metavar="D", help="QEMU's -device; repeatable")
    parser.add_argument("--append", default="", metavar="ARGS", help="more of Linux's command line")
    parser.add_argument("--hv-grub", action="store_const", const="grub", default="qemu", help="GRUB loads hv_core")
    parser.add_argument("--hv-append", default="", metavar="ARGS", help="hv_core's command line")
    parser.add_argument("--module", action="append", default=[], type=Path, metavar="KO", help="loaded; repeatable")
    parser.add_argument("--out", type=Path, metavar="DIR", help="kept; else a folder that is removed in the end")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="CMD", help="words are joined, as by ssh")
    return parser.parse_args(arguments)


def _shell(guest: Guest) -> int:
    """A shell on the serial console until it ends; GuestOff when the machine is switched off from inside."""
    columns, lines = os.get_terminal_size(sys.stdin.fileno())
    console = "/dev/hvc0" if guest.machine.xen else "/dev/ttyS0"
    print("\r\nexit ends the machine, Ctrl-A x kills it\r\n", end="", flush=True)
    environment = f"TERM={shlex.quote(os.environ.get('TERM', 'vt100'))} PS1='guest:\\w# '"
    return guest.run(
        f"cd {shlex.quote(os.getcwd())}; stty -F {console} rows {lines} cols {columns}; "
        f"{environment} setsid --ctty --wait bash --noprofile --norc -i <{console} >{console} 2>&1",
        timeout=None,
    ).status


def _failed(why: str) -> int:
    print(f"guest: {why}", file=sys.stderr)
    return UNUSABLE


if __name__ == "__main__":
    sys.exit(main())
