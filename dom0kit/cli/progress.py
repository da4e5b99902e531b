# SPDX-License-Identifier: MIT
"""What is being done, on standard error, when that is a terminal and the work takes over a second."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import threading

_PATIENCE = 1.0
"""Seconds of silence."""


class Progress:
    """Call it with each step's name, within ``with``; the line is gone at the end."""

    def __init__(self) -> None:
        self._step = ""
        self._shown = False
        self._lock: AbstractContextManager[object] = nullcontext()
        self._timer: threading.Timer | None = None
        if sys.stderr.isatty():
            import threading

            self._lock = threading.Lock()
            self._timer = threading.Timer(_PATIENCE, self._begin)

    def __enter__(self) -> Progress:
        if self._timer is not None:
            self._timer.daemon = True
            self._timer.start()
        return self

    def __call__(self, step: str) -> None:
        with self._lock:
            self._step = step
            if self._shown:
                self._write()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        with self._lock:
            if self._shown:
                print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._shown = False

    def _begin(self) -> None:
        with self._lock:
            self._shown = True
            self._write()

    def _write(self) -> None:
        print(f"\r\x1b[K{self._step} …", end="", file=sys.stderr, flush=True)
