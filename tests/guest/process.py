# SPDX-License-Identifier: MIT
"""One run of QEMU: started, watched, killed."""

from __future__ import annotations

import functools
import itertools
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.guest.complaints import complaints
from tests.guest.images import FAILED
from tests.guest.qmp import Monitor

STOPPED = "hv_core: stopped"
"""The last line of a core that can go on no more; the machine stays as it is."""


class GuestFailed(Exception):
    """The guest did not do what it should; the message says what, and shows its console."""


class GuestHung(GuestFailed):
    """It did not come up, or not to an end, in time."""


class GuestOff(GuestFailed):
    """It went off by itself: powered off, or reset."""


class KernelComplained(GuestFailed):
    """The guest's kernel (or Xen) reported an error of its own; the message shows the lines."""


class QemuFailed(Exception):
    """QEMU itself failed: refused its command line, or crashed."""


class Qemu:
    """A QEMU process and its files; to be killed in the end.

    The kernel kills it when this process dies first.
    """

    def __init__(self, line: Sequence[str], folder: Path, *, terminal: bool = False) -> None:
        """`folder` gets ``console`` and ``qemu.log``; with `terminal` this process's terminal is the console, too."""
        self._folder = folder
        self._sockets = tempfile.TemporaryDirectory()  # a socket's path has at most 107 characters
        self._socket = Path(self._sockets.name) / "qmp"
        (folder / "console").unlink(missing_ok=True)
        console = str(folder / "console").replace(",", ",,")
        backend = f"stdio,mux=on,signal=off,logfile={console}" if terminal else f"file,path={console}"
        whole = ["setpriv", "--pdeathsig", "KILL", *line, "-chardev", f"{backend},id=console"]
        whole += ["-serial", "chardev:console", "-qmp", f"unix:{self._socket},server=on,wait=off"]
        with (folder / "qemu.log").open("wb") as log:
            self._child = subprocess.Popen(
                whole,
                stdin=None if terminal else subprocess.DEVNULL,
                stdout=None if terminal else log,
                stderr=log,
                start_new_session=not terminal,
            )

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def console(self) -> str:
        """What the machine wrote to its serial port until now."""
        path = self._folder / "console"
        text = path.read_text(errors="replace") if path.exists() else ""
        return re.sub(r"[\r\n]+", "\n", text)

    @functools.cached_property
    def qmp(self) -> Monitor:
        self.wait(self._socket.exists, 10, "QEMU opened no monitor")
        return Monitor(self._socket)

    def wait(self, until: Callable[[], object], timeout: float | None, otherwise: str) -> None:
        """Wait for `until`, looking fifty times a second.

        GuestHung with the words of `otherwise` after `timeout` seconds, GuestOff or QemuFailed when it has gone;
        KernelComplained instead, when the console says so.
        """
        end = time.monotonic() + (timeout or 0)
        for look in itertools.count():
            if until():
                return
            if look % 50 == 0 and STOPPED in self.console:
                raise self._failed(GuestOff, "the hypervisor has stopped it")
            if self._child.poll() is not None:
                if until():  # the last thing that it did
                    return
                raise self._gone()
            if timeout is not None and time.monotonic() > end:
                raise self._failed(GuestHung, f"{otherwise} within {timeout:g} s")
            time.sleep(0.02)

    def says(self, marker: str) -> bool:
        """Whether `marker` is on the console; GuestFailed when the initramfs gave up."""
        console = self.console
        if FAILED in console:
            raise self._failed(GuestFailed, "it cannot mount its root")
        return marker in console

    def kill(self) -> None:
        """End it, whatever it does."""
        if "qmp" in self.__dict__:
            self.qmp.close()
        if self._child.poll() is None:
            os.kill(self._child.pid, signal.SIGKILL)
        self._child.wait()
        self._sockets.cleanup()

    def _gone(self) -> Exception:
        if self._child.returncode == 0 or complaints(self.console):
            return self._failed(GuestOff, "the machine went off by itself")
        status = self._child.returncode
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        log = (self._folder / "qemu.log").read_text(errors="replace").strip()
        return QemuFailed(f"QEMU {how}: {log}\nthe console's end:\n{self.console[-1000:]}")

    def _failed(self, kind: type[GuestFailed], why: str) -> GuestFailed:
        complaint = complaints(self.console)
        if complaint:
            return KernelComplained(f"{why}; its kernel complained:\n{complaint}")
        return kind(f"{why}; the console's end:\n{self.console[-2000:]}")
