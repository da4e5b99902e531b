# SPDX-License-Identifier: MIT
"""The frame of the command line: usage, help, start-up, and how errors end."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from dom0kit import __version__
from dom0kit.cli import FINE, FOUND, INTERRUPTED, UNUSABLE, USAGE, VERBS, main


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """One process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "dom0kit", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=60,
        check=False,
    )


def one_sentence(text: str) -> bool:
    """Whether what was said on standard error is one line of ours, and no traceback."""
    return text.startswith("dom0kit: ") and text.count("\n") == 1


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_version(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([option]) == FINE
    assert capsys.readouterr().out == f"dom0kit {__version__}\n"


def test_the_version_imports_nothing_heavy() -> None:
    script = (
        "import sys; before = set(sys.modules); from dom0kit.cli import main; main(['--version'])\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    version, modules = done.stdout.splitlines()
    assert version == f"dom0kit {__version__}"
    assert set(modules.split()) <= {"__future__", "dom0kit", "dom0kit.cli"}


def test_python_m_dom0kit_is_the_same_command() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout, done.stderr) == (FINE, f"dom0kit {__version__}\n", "")


def test_the_console_script_is_the_same_command() -> None:
    script = Path(sys.executable).parent / "dom0kit"
    if not script.exists():
        pytest.skip(f"no {script}: dom0kit is not installed here")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (FINE, f"dom0kit {__version__}\n")


@pytest.mark.parametrize("option", ["--help", "-h", "help"])
def test_help_names_every_verb(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([option]) == FINE
    text = capsys.readouterr().out
    for verb, purpose in VERBS.items():
        assert verb in text
        assert purpose in text


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_module_and_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert import_module(f"dom0kit.cli.{verb}").__doc__
    assert main([verb, "--help"]) == FINE
    assert capsys.readouterr().out.startswith(f"usage: dom0kit {verb}")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "which verb?"),
        (["enumarate"], "did you mean 'enumerate'?"),
        (["xyzzy"], "there is no verb 'xyzzy' (dom0kit --help lists them)"),
        (["--frobnicate"], "there is no verb '--frobnicate'"),
        (["explain", "acpi.table-checksun"], "did you mean 'acpi.table-checksum'?"),
        (["explain", "a", "b"], "unrecognized arguments: b"),
        (["enumerate", "--from"], "--from"),
        (["enumerate", "--only", "disks"], "--only"),
        (["enumerate", "--format", "xml"], "--format"),
        (["enumerate", "--form", "json"], "--form"),
        (["enumerate", "--from", "a", "--acpi", "b"], "--from names a whole machine"),
        (["enumerate", "--from", "a", "--pci", "b"], "--from names a whole machine"),
        (["enumerate", "--from", "a", "--wake"], "--wake is about this machine"),
        (["record"], "-o"),
        (["acpi"], "tree"),
        (["acpi", "eval"], "PATH"),
        (["diff", "a"], "B"),
        (["schema", "x"], "argument what: invalid choice: 'x'"),
    ],
)
def test_usage_errors_are_one_sentence(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == USAGE
    captured = capsys.readouterr()
    assert one_sentence(captured.err), captured.err
    assert said in captured.err
    assert captured.out == ""


def test_a_bug_is_one_line_with_the_way_to_the_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(arguments: list[str]) -> int:
        raise RecursionError("too\ndeep")

    monkeypatch.setattr("dom0kit.cli.schema.run", broken)
    monkeypatch.delenv("DOM0KIT_DEBUG", raising=False)
    assert main(["schema"]) == UNUSABLE
    said = capsys.readouterr().err
    assert one_sentence(said), said
    assert "this is a bug: RecursionError: too deep" in said
    assert "DOM0KIT_DEBUG=1" in said
    monkeypatch.setenv("DOM0KIT_DEBUG", "1")
    assert main(["schema"]) == UNUSABLE
    assert "Traceback" in capsys.readouterr().err


def test_who_leaves_early_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    def leaving(arguments: list[str]) -> int:
        raise SystemExit(FOUND)

    monkeypatch.setattr("dom0kit.cli.schema.run", leaving)
    assert main(["schema"]) == FOUND


def test_an_interrupt_is_quiet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(arguments: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("dom0kit.cli.schema.run", interrupted)
    assert main(["schema"]) == INTERRUPTED
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("arguments", [["--help"], ["explain"], ["schema"], ["explain", "--help"]])
def test_a_pipe_that_nobody_reads_is_quiet(arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "dom0kit", *arguments]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False, timeout=60)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("arguments", [["--version"], ["explain"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_is_one_sentence(arguments: list[str], unbuffered: str) -> None:
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-m", "dom0kit", *arguments]
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment, check=False, timeout=60
        )
    assert done.returncode == UNUSABLE
    assert one_sentence(done.stderr), done.stderr
    assert "cannot be written" in done.stderr


def test_a_disk_that_fills_up_is_one_sentence_too(tmp_path: Path) -> None:
    """The first write takes a part of the text, and says so; only the next one fails."""
    with open(tmp_path / "output", "wb") as output:
        done = subprocess.run(
            [sys.executable, "-m", "dom0kit", "explain"],
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
            check=False,
            timeout=60,
        )
    assert (tmp_path / "output").stat().st_size == 1000
    assert done.returncode == UNUSABLE
    assert one_sentence(done.stderr), done.stderr


@pytest.mark.parametrize(
    ("script", "written"),
    [
        ("emit('a\u2026b')", b"a\\u2026b"),
        ("print('first, ', end=''); emit('second')", b"first, second"),
    ],
    ids=["what the output cannot write is escaped", "it keeps its order"],
)
def test_output(script: str, written: bytes) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"from dom0kit.cli import emit; {script}"],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUNBUFFERED": ""},
        check=True,
        timeout=60,
    )
    assert done.stdout == written
