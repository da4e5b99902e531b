# SPDX-License-Identifier: MIT
"""What is being done is shown on a terminal, after a second, and is gone at the end."""

from __future__ import annotations

import io
import threading

import pytest

from dom0kit.cli import progress
from dom0kit.cli.progress import Progress


class Terminal(io.StringIO):
    """Standard error that is a terminal, and says when something was written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = threading.Event()

    def isatty(self) -> bool:
        return True

    def flush(self) -> None:
        super().flush()
        self.written.set()


def terminal_in_place(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """To be called in a test: between its phases pytest sets standard error anew."""
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    return terminal


def test_long_work_shows_each_step_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_in_place(monkeypatch)
    monkeypatch.setattr(progress, "_PATIENCE", 0.01)
    with Progress() as tell:
        tell("reading")
        assert terminal.written.wait(30)
        tell("decoding")
    assert terminal.getvalue() == "\r\x1b[Kreading …\r\x1b[Kdecoding …\r\x1b[K"
    tell("too late")
    assert terminal.getvalue().endswith("decoding …\r\x1b[K")


def test_quick_work_shows_nothing_and_nothing_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_in_place(monkeypatch)
    before = threading.active_count()
    with Progress() as tell:
        tell("reading")
        (timer,) = [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
        assert timer.daemon
        assert timer.interval == progress._PATIENCE == 1
    assert timer.finished.is_set(), "it is not waited for"
    timer.join(30)
    assert threading.active_count() == before
    assert terminal.getvalue() == ""


def test_an_error_leaves_nothing_either(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_in_place(monkeypatch)
    monkeypatch.setattr(progress, "_PATIENCE", 0.01)

    def broken() -> None:
        with Progress() as tell:
            tell("reading")
            assert terminal.written.wait(30)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    assert terminal.getvalue().endswith("\r\x1b[K")


def test_what_is_no_terminal_is_told_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_PATIENCE", 0)
    before = threading.active_count()
    with Progress() as tell:
        tell("reading")
        assert threading.active_count() == before
    assert capsys.readouterr().err == ""
