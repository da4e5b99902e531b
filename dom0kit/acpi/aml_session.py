# SPDX-License-Identifier: MIT
"""One ``acpiexec`` child process: limited, unprivileged, in a private folder, and asked in batches over pipes.

Its standard output is a pipe and so fully buffered: what it printed last would stay in its buffer for ever. Each batch
therefore ends with ``help``, whose text is longer than that buffer and pushes everything before it out. In front of it
stands a word that no AML can guess; its echo is the end of the batch.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import resource
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from typing import Final

from dom0kit.acpi.aml_output import compressed
from dom0kit.source.interface import RawTable

MEMORY_LIMIT: Final = 160 << 20
"""Bytes of address space; the largest recorded machine needs under 40 MiB."""
CPU_LIMIT: Final = 25
"""Seconds of processor time."""
OUTPUT_LIMIT: Final = 16 << 20
"""Bytes of one batch's output, after repeats were dropped."""
_FILE_LIMIT: Final = 0
"""Bytes of a file it may write; its output is a pipe."""
_COMPRESS_AT: Final = 6 << 20
_NOBODY: Final = 65534
_LOOP_SECONDS: Final = "1"
"""Smallest loop timeout that acpiexec accepts; its default of 30 s a loop stalls for minutes on some laptops."""


class Session:
    """An interpreter with tables loaded. Use as a context manager; leaving kills the child with its group.

    `stopped` says why it takes no more commands: ``time``, ``output``, ``breakpoints``, ``ended``; None while it does.
    """

    def __init__(self, program: str, tables: Sequence[RawTable], deadline: float, *, initialise: bool = True) -> None:
        """`deadline` by time.monotonic(). Without `initialise` tables are loaded and no method runs at start.

        OSError if there can be no child.
        """
        self._deadline = deadline
        self._at_breakpoint = False
        self._end = "end" + os.urandom(8).hex()
        self._end_echo = re.compile(rb"\n([-%]) " + self._end.encode() + rb"\n")
        self.stopped: str | None = None
        self._folder = tempfile.mkdtemp(prefix="dom0kit-aml-")
        try:
            names = _write_tables(self._folder, tables)
            self._child = _start(program, names, self._folder, initialise)
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._input = self._child.stdin.fileno()
        self._output = self._child.stdout.fileno()
        os.set_blocking(self._input, False)
        with contextlib.suppress(OSError):  # megabytes of trace: let it write on while we read
            fcntl.fcntl(self._output, fcntl.F_SETPIPE_SZ, 1 << 20)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        with contextlib.suppress(OSError):
            self._child.stdin.close()
        self._child.stdout.close()
        self._child.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def run(self, commands: Sequence[str]) -> bytes:
        """What the commands print, their echoes included. Cut off where `stopped` is set."""
        text = self._exchange(commands)
        # At an AML BreakPoint the debugger waits for "go" and takes whatever comes next for its own commands.
        for _ in range(100):
            if self.stopped is not None or not self._at_breakpoint:
                break
            text += self._exchange(["go"] * 8)
        if self.stopped is None and self._at_breakpoint:
            self.stopped = "breakpoints"
        return text

    def _exchange(self, commands: Sequence[str]) -> bytes:
        if self.stopped is not None:
            return b""
        unsent = "".join(f"{command}\n" for command in (*commands, self._end, "help")).encode("ascii", "replace")
        buffer = bytearray()
        while True:
            remaining = self._deadline - time.monotonic()
            if remaining <= 0:
                self.stopped = "time"
                break
            readable, writable, _ = select.select([self._output], [self._input] if unsent else [], [], remaining)
            try:
                if writable:
                    unsent = unsent[os.write(self._input, unsent[:4096]) :]
                chunk = os.read(self._output, 1 << 18) if readable else None
            except OSError:  # it ended while being written to
                chunk = b""
            if chunk is None:
                continue
            if not chunk:
                self.stopped = "ended"
                break
            start = max(0, len(buffer) - 32)
            buffer += chunk
            match = self._end_echo.search(buffer, start)
            if match is not None and not unsent:
                self._at_breakpoint = match.group(1) == b"%"
                return bytes(buffer[: match.start() + 1])
            if len(buffer) > _COMPRESS_AT:
                cut = buffer.rfind(b"\n") + 1
                buffer[:cut] = compressed(bytes(buffer[:cut]))
                if len(buffer) > OUTPUT_LIMIT:
                    self.stopped = "output"
                    break
        return bytes(buffer)


def _write_tables(folder: str, tables: Sequence[RawTable]) -> list[str]:
    """The tables as files that the child can read and nobody else but root; their names."""
    os.mkdir(os.path.join(folder, "empty"))
    names = []
    for number, table in enumerate(tables):
        name = f"table{number}.aml"
        path = os.path.join(folder, name)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
        with os.fdopen(descriptor, "wb") as file:
            file.write(table.data)
        names.append(os.path.join("..", name))
        if os.geteuid() == 0:
            os.chown(path, _NOBODY, _NOBODY)
    if os.geteuid() == 0:
        os.chown(os.path.join(folder, "empty"), _NOBODY, _NOBODY)
        os.chown(folder, _NOBODY, _NOBODY)
        os.chmod(folder, 0o500)
    return names


def _start(program: str, names: Sequence[str], folder: str, initialise: bool) -> subprocess.Popen[bytes]:
    command = [program, "-dt", "-to", _LOOP_SECONDS, *([] if initialise else ["-l"]), *names]
    setpriv = shutil.which("setpriv")
    if setpriv is not None:
        command = [setpriv, "--no-new-privs", *command]
    is_root = os.geteuid() == 0
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        cwd=os.path.join(folder, "empty"),
        env={"LC_ALL": "C", "PATH": "/usr/bin:/bin", "MALLOC_ARENA_MAX": "1"},
        start_new_session=True,
        preexec_fn=_limit,
        user=_NOBODY if is_root else None,
        group=_NOBODY if is_root else None,
        extra_groups=() if is_root else None,
    )


def _limit() -> None:
    for what, value in (
        (resource.RLIMIT_AS, MEMORY_LIMIT),
        (resource.RLIMIT_CPU, CPU_LIMIT),
        (resource.RLIMIT_FSIZE, _FILE_LIMIT),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_STACK, 8 << 20),
    ):
        hard = resource.getrlimit(what)[1]
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)
        resource.setrlimit(what, (value, value))
