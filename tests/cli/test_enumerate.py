# SPDX-License-Identifier: MIT
"""``dom0kit enumerate`` from end to end, on the recordings that the package ships."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

import dom0kit
from dom0kit.cli import FINE, FOUND, UNUSABLE, USAGE, main
from dom0kit.cli.enumerate import PARTS, SHIPPED
from dom0kit.finding import Severity
from dom0kit.hypercall.kernel_module import KernelModule
from dom0kit.part import Part
from dom0kit.platform import Platform
from dom0kit.serial import decode, encode
from dom0kit.source.errors import UnreadableSource
from dom0kit.source.interface import Source
from dom0kit.source.recognise import open_source

RECORDINGS = sorted((Path(dom0kit.__file__).parent / "recordings").glob("*.d0k"))
EXPECTED = {True: FOUND, False: FINE}


def status_of(platform: Platform) -> int:
    return EXPECTED[any(finding.severity is not Severity.INFO for finding in platform.findings)]


def test_the_recording_for_containers_is_shipped() -> None:
    assert Path(SHIPPED) in RECORDINGS


def test_the_parts_are_those_of_the_platform() -> None:
    assert list(PARTS) == [part.value for part in Part]


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda path: path.stem)
def test_text_begins_with_the_machine_and_its_findings(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["enumerate", "--from", str(recording), "--no-aml"])
    captured = capsys.readouterr()
    assert captured.err == ""
    lines = captured.out.splitlines()
    assert lines[0].startswith("machine ")
    labels = [line.split("  ")[0] for line in lines[: lines.index("")]]
    assert labels[-1] == "findings"
    assert {"seen from", "CPUs", "ACPI"} <= set(labels)
    assert all(line.isprintable() for line in lines)
    assert not any(line.endswith(" ") for line in lines)
    assert status == (FOUND if "  warning  " in captured.out or "  error  " in captured.out else FINE)


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda path: path.stem)
def test_json_is_complete_stable_and_versioned(recording: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    arguments = ["enumerate", "--from", str(recording), "--no-aml", "--format", "json"]
    status = main(arguments)
    first = capfdbinary.readouterr().out
    main(arguments)
    assert capfdbinary.readouterr().out == first
    assert next(iter(json.loads(first))) == "version"
    platform = decode(first, Platform)
    assert encode(platform, indent=2) + b"\n" == first
    assert status == status_of(platform)


@pytest.mark.parametrize("part", PARTS)
def test_one_part_alone(part: str, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    arguments = ["enumerate", "--from", SHIPPED, "--no-aml", "--only", part]
    main([*arguments, "--format", "json"])
    assert decode(capfdbinary.readouterr().out, Platform).parts == (Part(part),)
    main(arguments)
    text = capfdbinary.readouterr().out.decode()
    titles = {
        "acpi": "ACPI tables",
        "pci": "PCI",
        "interrupts": "IOAPICs",
        "cpus": "CPUs",
        "memory": "memory",
    }
    assert f"\n{titles[part]}\n" in text
    others = {"acpi": "IOAPICs", "pci": "IOAPICs", "interrupts": "CPUs", "cpus": "memory", "memory": "CPUs"}
    assert f"\n{titles[others[part]] if others[part] in titles else others[part]}\n" not in text


def test_tables_and_functions_from_two_places(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables = tmp_path / "tables"
    tables.mkdir()
    (tables / "TEST.dat").write_bytes(b"TEST" + (36).to_bytes(4, "little") + bytes(28))
    functions = tmp_path / "lspci.txt"
    rows = "".join(f"{at:02x}: " + " ".join(["00"] * 16) + "\n" for at in range(16, 64, 16))
    functions.write_text("00:1f.0 ISA bridge: one\n00: 86 80 18 29" + " 00" * 12 + "\n" + rows)
    assert main(["enumerate", "--acpi", str(tables), "--pci", str(functions), "--no-aml"]) in (FINE, FOUND)
    text = capsys.readouterr().out
    assert "\n  TEST  36  rev 0" in text
    assert "0000:00:1f.0" in text
    assert main(["enumerate", "--pci", str(functions)]) in (FINE, FOUND)
    assert "ACPI" not in capsys.readouterr().out.split("\n\n")[0]


def test_a_warning_is_enough_for_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = bytearray(b"TEST" + (36).to_bytes(4, "little") + bytes(28))
    table[9] = -sum(table) & 0xFF
    (tmp_path / "TEST.dat").write_bytes(table)
    assert main(["enumerate", "--from", str(tmp_path), "--only", "acpi", "--no-aml"]) == FINE
    (tmp_path / "TEST.dat").write_bytes(table + b"slack")
    assert main(["enumerate", "--from", str(tmp_path), "--only", "acpi", "--no-aml"]) == FINE
    assert "findings   1 info\n" in capsys.readouterr().out
    table[9] ^= 1
    (tmp_path / "TEST.dat").write_bytes(table + b"slack")
    assert main(["enumerate", "--from", str(tmp_path), "--only", "acpi", "--no-aml"]) == FOUND
    assert "findings   1 warning, 1 info\n" in capsys.readouterr().out


@pytest.mark.parametrize("other", [("--from", SHIPPED), ("--no-aml",), ("--acpi", "folder")])
def test_the_kernels_interpreter_knows_only_this_machine(
    other: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["enumerate", "--kernel-aml", *other]) == USAGE
    assert "--kernel-aml is for this machine and its AML" in capsys.readouterr().err


def test_the_kernels_interpreter_needs_the_module(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = partial(KernelModule, "/nonexistent/dom0kit")
    monkeypatch.setattr("dom0kit.hypercall.kernel_module.KernelModule", missing)
    assert main(["enumerate", "--kernel-aml"]) == UNUSABLE
    assert "modprobe dom0kit" in capsys.readouterr().err


@pytest.mark.parametrize("wake", [True, False])
def test_this_machine_is_seen_asleep_or_awake(wake: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def live(*, wake: bool) -> Source:
        asked.append(wake)
        return open_source(SHIPPED)

    monkeypatch.setattr("dom0kit.source.live.live", live)
    assert main(["enumerate", "--no-aml", *["--wake"] * wake]) == FINE
    assert asked == [wake]


def test_long_work_is_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    monkeypatch.setattr("dom0kit.cli.progress.Progress.__call__", lambda self, step: steps.append(step))
    main(["enumerate", "--no-aml", "--from", SHIPPED])
    assert steps == ["reading", "decoding", "routing interrupts"]


def test_without_the_recording_nothing_is_seen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def container(*, wake: bool) -> None:
        raise UnreadableSource("This machine shows nothing.")

    monkeypatch.setattr("dom0kit.source.live.live", container)
    monkeypatch.setattr("dom0kit.cli.enumerate.SHIPPED", "/nonexistent.d0k")
    assert main(["enumerate"]) == UNUSABLE
    assert capsys.readouterr().err.startswith("dom0kit: This machine shows nothing; name a recorded one")


def test_a_machine_that_shows_nothing_gets_a_recording(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def container(*, wake: bool) -> None:
        raise UnreadableSource("This machine shows nothing.")

    monkeypatch.setattr("dom0kit.source.live.live", container)
    assert main(["enumerate", "--no-aml"]) in (FINE, FOUND)
    first, empty, second, *_ = capsys.readouterr().out.splitlines()
    assert first == "This machine shows nothing; this is qemu-q35.d0k of dom0kit instead."
    assert (empty, second.split()[0]) == ("", "machine")
    main(["enumerate", "--no-aml", "--format", "json"])
    captured = capsys.readouterr()
    assert decode(captured.out.encode(), Platform).origin.name.endswith("qemu-q35.d0k")
    assert captured.err == f"dom0kit: {first}\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"Dear all, please find attached\n", "no known form"),
        (bytes(range(256)) * 40, "no known form"),
        (b"\x1f\x8b" + bytes(100), ""),
    ],
)
def test_what_is_no_machine_is_one_sentence(
    content: bytes, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    assert main(["enumerate", "--from", str(file)]) == UNUSABLE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"dom0kit: {file} ")
    assert captured.err.count("\n") == 1
    assert said in captured.err
    assert "bug" not in captured.err


@pytest.mark.parametrize("path", ["missing", ".", "/dev/zero"])
def test_what_is_not_there_is_one_sentence(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["enumerate", "--from", path]) == UNUSABLE
    said = capsys.readouterr().err
    assert said.startswith(f"dom0kit: {path} ")
    assert said.count("\n") == 1
    assert "bug" not in said


def test_a_pipe_needs_no_rich() -> None:
    script = (
        "import sys; from dom0kit.cli import main; main(sys.argv[1:]); "
        "print('rich' in sys.modules, 'construct' in sys.modules, file=sys.stderr)"
    )
    command = [sys.executable, "-c", script, "enumerate", "--from", SHIPPED, "--only", "pci"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr.split()[0] == "False"


def test_a_terminal_gets_a_tree_in_colour() -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "dom0kit", "enumerate", "--from", SHIPPED, "--no-aml", "--only", "pci"]
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    child = subprocess.Popen(command, stdout=theirs, stdin=theirs, env=environment | {"TERM": "xterm-256color"})
    os.close(theirs)
    text = b""
    try:
        while part := os.read(ours, 65536):
            text += part
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert child.wait(60) in (FINE, FOUND)
    assert "├─ ".encode() in text
    assert b"\x1b[1" in text


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_pipe_that_nobody_reads_any_more_is_quiet(unbuffered: str) -> None:
    ours, theirs = os.pipe()
    fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, 4096)
    command = [sys.executable, "-m", "dom0kit", "enumerate", "--from", SHIPPED, "--no-aml", "--format", "json"]
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    with subprocess.Popen(command, stdout=theirs, stderr=subprocess.PIPE, env=environment) as child:
        os.close(theirs)
        assert os.read(ours, 10).startswith(b"{")
        os.close(ours)
        assert child.stderr is not None
        assert child.stderr.read() == b""
    assert child.returncode == 141
