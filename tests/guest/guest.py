# SPDX-License-Identifier: MIT
"""Boots a machine, runs commands in it, brings back what they said: a whole machine in a few seconds, without KVM.

The guest's root is this machine's root, read-only over 9p, below an overlay in the guest's memory: it may write
anywhere and the host stays as it was. The folder ``/out`` in the guest is a folder of the host: files pass through
it, and in its folder ``rig`` the commands, their output and exit status, the console and QEMU's own words.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
import shlex
import shutil
import sys
import textwrap
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.guest import snapshot as snapshots
from tests.guest.complaints import complaints
from tests.guest.images import MOUNTED, ROOT
from tests.guest.machine import Machine, command_line
from tests.guest.process import GuestFailed, GuestHung, KernelComplained, Qemu
from tests.guest.qmp import Monitor

BOOT_SECONDS = 40.0
"""A boot takes 3 to 8 s, three times as long under Xen or with a kernel that checks itself; one in some fifty hangs
before its first line."""

_AGENT = r"""export PATH={root}/.venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root TERM=dumb LC_ALL=C.UTF-8 PYTHONPATH={root}
exec </dev/null >/dev/console 2>&1
hostname guest
{first}
mkfifo /run/rig
exec 9<>/run/rig
for ((n = 0; ; n++)); do
    until [ -e /out/rig/$n.command ]; do read -r -t 0.05 -u 9; done
    (cd /out && exec bash rig/$n.command) >/out/rig/$n.stdout 2>/out/rig/$n.stderr 9<&-
    echo $? >/out/rig/$n.status
done
"""
"""Reading from a pipe that nobody writes to is a sleep without a process."""


_SYSTEMD = r"""
mkdir /tree /tree-rw
mount -t tmpfs tmpfs /tree-rw
mkdir /tree-rw/upper /tree-rw/work
mount -t overlay -o lowerdir={tree},upperdir=/tree-rw/upper,workdir=/tree-rw/work overlay /tree
mkdir -p /tree/out /tree/{root} /tree/lib/modules
mount --bind {root} /tree/{root}
mount --bind /lib/modules /tree/lib/modules
for folder in proc sys dev out; do mount --move /$folder /tree/$folder; done
printf '%s\n' '[Service]' 'ExecStart=/bin/bash /out/rig/agent' '[Install]' 'WantedBy=multi-user.target' \
    >/tree/etc/systemd/system/rig.service
ln -s /etc/systemd/system/rig.service /tree/etc/systemd/system/multi-user.target.wants/
cd /tree
mount --move . /
exec chroot . /lib/systemd/systemd
"""
"""As switch_root(8) does it, which takes no root that is not an initramfs's."""


class CommandFailed(Exception):
    """A command in the guest that was to succeed did not; the message has its output."""


@dataclasses.dataclass(frozen=True)
class Result:
    """What a command left behind."""

    stdout: str
    stderr: str
    status: int
    """Its exit status, as the shell has it: 128 + N when signal N killed it."""
    dmesg: str = ""
    """The kernel's log after it; only of `run`, where the machine is off."""

    def check(self) -> Result:
        """Itself; CommandFailed unless the status is 0."""
        if self.status != 0:
            raise CommandFailed(f"status {self.status}\n{self.stdout[-4000:]}{self.stderr[-4000:]}")
        return self


class Guest:
    """A machine that is up; from `boot`."""

    def __init__(self, qemu: Qemu, machine: Machine, out: Path) -> None:
        self.machine = machine
        self.out = out
        """The host's folder that is ``/out`` in the guest."""
        self._qemu = qemu
        self._commands = 0

    @property
    def qmp(self) -> Monitor:
        """QEMU's monitor."""
        return self._qemu.qmp

    @property
    def console(self) -> str:
        """What came out of the serial port until now."""
        return self._qemu.console

    @property
    def pid(self) -> int:
        """QEMU's process."""
        return self._qemu.pid

    def run(self, command: str, *, timeout: float | None = 60, echo: bool = False) -> Result:
        """Run `command` with bash, as root, in ``/out``.

        `echo` copies its output to this process's while it runs. GuestHung when it takes more than `timeout`
        seconds, after which the guest is of no more use; KernelComplained when the kernel dies of it.
        """
        name = self.out / "rig" / str(self._commands)
        self._commands += 1
        stdout, stderr, status = (name.with_suffix(f".{what}") for what in ("stdout", "stderr", "status"))
        name.with_suffix(".new").write_text(command + "\n")
        name.with_suffix(".new").rename(name.with_suffix(".command"))
        copied = {stdout: 0, stderr: 0}

        def ended() -> bool:
            over = _text(status).endswith("\n")
            for path, to in ((stdout, sys.stdout), (stderr, sys.stderr)) if echo else ():
                copied[path] += _copy(path, copied[path], to)
            return over

        try:
            self._qemu.wait(ended, timeout, f"no end of {textwrap.shorten(command, 80)!r}")
        except GuestFailed as error:
            error.add_note(f"its output until then:\n{_text(stdout)[-2000:]}{_text(stderr)[-2000:]}")
            raise
        return Result(_text(stdout), _text(stderr), int(_text(status)))

    def python(self, file: Path, *arguments: str, timeout: float = 60) -> Result:
        """Run a Python file with this checkout's interpreter, with the checkout on its path."""
        return self.run(shlex.join([sys.executable, str(file), *arguments]), timeout=timeout)

    def call(self, function: Callable[..., Any], *arguments: Any, timeout: float = 60) -> Any:
        """Run a function in the guest, from its source: what it needs it imports itself. JSON values in and out.

        CommandFailed, with its traceback, when it raises.
        """
        file, answer = (self.out / "rig" / f"call-{self._commands}.{kind}" for kind in ("py", "json"))
        source = textwrap.dedent(inspect.getsource(function))
        call = f"{function.__name__}(*json.loads({json.dumps(arguments)!r}))"
        write = f"open('/out/rig/{answer.name}', 'w').write(json.dumps(_answer))"
        file.write_text(f"from __future__ import annotations\nimport json\n{source}\n_answer = {call}\n{write}\n")
        self.run(shlex.join([sys.executable, f"/out/rig/{file.name}"]), timeout=timeout).check()
        return json.loads(answer.read_text())

    def dmesg(self, *, timeout: float = 60) -> str:
        """The kernel's log until now."""
        return self.run("dmesg", timeout=timeout).check().stdout

    def load(self, module: Path, parameters: str = "") -> None:
        """Load a module, a .ko of the host; CommandFailed, with the log's end, when the kernel does not take it."""
        result = self.run(f"insmod {shlex.quote(str(_taken(module, self.out)))} {parameters}")
        if result.status != 0:
            raise CommandFailed(f"{module.name} did not load: {result.stderr}{self.dmesg()[-1000:]}")

    def complaint(self, *, timeout: float = 60) -> str:
        """What kernel and hypervisor complained of until now, as lines; empty when of nothing."""
        return complaints(self.dmesg(timeout=timeout)) or complaints(self.console)


@contextlib.contextmanager
def boot(
    machine: Machine,
    out: Path,
    *,
    files: Sequence[Path] = (),
    modules: Sequence[Path] = (),
    snapshot: bool = False,
    terminal: bool = False,
) -> Iterator[Guest]:
    """A machine that is up, for the length of a ``with``; then it is killed: nothing of it is left but `out`.

    `out` becomes ``/out`` in the guest, with copies of `files` in it; `modules` (.ko files) are loaded. With
    `snapshot` it starts from a saved state of an equal machine (q35 has two more root ports then). With `terminal`
    its serial console is this process's terminal.

    A boot that hangs before the root is mounted is tried once more, with a warning; GuestHung when it hangs again.
    QemuFailed when QEMU fails. KernelComplained, at the end of the ``with``, when kernel or Xen has logged an error.
    """
    guest = _booted(machine, out, files, snapshot=snapshot, terminal=terminal)
    try:
        for module in modules:
            guest.load(module)
        yield guest
        complaint = guest.complaint()
        if complaint:
            raise KernelComplained(f"the guest's kernel complained:\n{complaint}")
    except GuestFailed:
        raise
    except Exception as error:
        with contextlib.suppress(Exception):  # whatever the guest's state, the test's own failure is what is told
            error.add_note(guest.complaint(timeout=5))
        raise
    finally:
        guest._qemu.kill()


def run(
    machine: Machine,
    command: str,
    out: Path,
    *,
    timeout: float = 120,
    files: Sequence[Path] = (),
    modules: Sequence[Path] = (),
    snapshot: bool = False,
) -> Result:
    """Boot, run one command (`timeout` seconds at most), switch off; see `boot` for the rest."""
    with boot(machine, out, files=files, modules=modules, snapshot=snapshot) as guest:
        result = guest.run(command, timeout=timeout)
        return dataclasses.replace(result, dmesg=guest.dmesg())


def _booted(machine: Machine, out: Path, files: Sequence[Path], *, snapshot: bool, terminal: bool) -> Guest:
    """A machine with its root mounted; the second attempt may take twice as long, for the host may have much to do."""
    patience = BOOT_SECONDS * (3 if machine.xen or machine.hv or machine.kernel else 1)
    shutil.rmtree(out / "rig", ignore_errors=True)
    (out / "rig").mkdir(parents=True)
    for file in files:
        _taken(file, out)
    try:
        qemu = _started(machine, out, patience, snapshot=snapshot, terminal=terminal)
    except GuestHung as error:
        warnings.warn(f"a guest is booted once more: {error}", stacklevel=4)
        qemu = _started(machine, out, 2 * patience, snapshot=snapshot, terminal=terminal)
    return Guest(qemu, machine, out)


def _started(machine: Machine, out: Path, patience: float, *, snapshot: bool, terminal: bool) -> Qemu:
    line = command_line(machine, out, plug_later=snapshot)
    if snapshot:
        line += snapshots.incoming(snapshots.saved(machine, patience))
    # A restored machine's clock stands where it was saved. xl, and any other caller of Xen, needs a module.
    first = ["[ $$ != 1 ] || . /out/rig/systemd"] * bool(machine.tree)
    if machine.tree:
        paths = {"tree": shlex.quote(str(machine.tree)), "root": shlex.quote(str(ROOT))}
        (out / "rig" / "systemd").write_text(_SYSTEMD.format(**paths))
    first += [f"date --set=@{int(time.time())} >/dev/null"] * snapshot + ["modprobe xen_privcmd"] * bool(machine.xen)
    (out / "rig" / "agent").write_text(_AGENT.format(root=shlex.quote(str(ROOT)), first="\n".join(first)))
    qemu = Qemu(line, out / "rig", terminal=terminal)
    try:
        if snapshot:
            snapshots.restore(qemu, machine)
        qemu.wait(lambda: qemu.says(MOUNTED), patience, "no root")
    except BaseException:
        qemu.kill()
        raise
    return qemu


def _taken(file: Path, out: Path) -> str:
    """Copy a file into ``/out``; its path in the guest."""
    shutil.copy(file, out)
    return f"/out/{file.name}"


def _copy(path: Path, start: int, to: Any) -> int:
    """Copy what a file has from `start` on; how much that was."""
    if not path.exists():
        return 0
    with path.open("rb") as file:
        file.seek(start)
        data = file.read()
    to.buffer.write(data)
    to.flush()
    return len(data)


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""
