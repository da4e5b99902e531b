# SPDX-License-Identifier: MIT
"""``dom0kit hv simulate`` from end to end: text, JSON, exit status, and one sentence where there is nothing to do."""

from __future__ import annotations

import re
import struct
import sys
from pathlib import Path

import pytest

from benchmarks.synthetic import write_lspci_text
from dom0kit.address import Sbdf
from dom0kit.cli import FINE, FOUND, UNUSABLE, USAGE, main
from dom0kit.hypercall.trace import read_trace
from dom0kit.serial import decode
from dom0kit.simulation import Simulation
from tests.acpi.asl import needs_interpreter
from tests.hv_core.machines import FIRST, SECOND, cpu, ioapic, madt

RECORDINGS = Path(__file__).parent.parent.parent / "dom0kit" / "recordings"
Q35 = str(RECORDINGS / "qemu-q35.d0k")


@needs_interpreter
def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hv", "simulate", "--from", Q35]) == FINE
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{Q35}: a model: nothing here touches hardware, and other domains are bookkeeping only"
    assert lines[1] == "mode     intercept (the core chooses vectors)"
    assert lines[2].endswith(" 0 refused")
    assert lines[3] == "owned    2 processors, 1 IOAPIC, 5 GSIs, 24 messages of 25 functions"
    assert lines[4].startswith("vectors  29 in use: ")
    headings = [line for line in lines if line and line[0] != " "][6:]
    assert headings == ["shared_info", "GSIs, by vector@CPU", "MSI and MSI-X, by vector@CPU"]
    assert [line.split()[:2] for line in lines if line.startswith("  GSI ")] == [
        ["GSI", "11"],
        ["GSI", "16"],
        ["GSI", "21"],
        ["GSI", "22"],
        ["GSI", "23"],
    ]
    assert sum(line.startswith("  0000:") for line in lines) == 19


@needs_interpreter
@pytest.mark.parametrize("mode", ["intercept", "direct"])
def test_json_says_the_same(mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["hv", "simulate", "--from", Q35, "--mode", mode, "--format", "json"]
    assert main(arguments) == FINE
    text = capsys.readouterr().out
    simulation = decode(text.encode(), Simulation)
    assert (simulation.machine, simulation.mode, simulation.counts.messages) == (Q35, mode, 24)
    assert "bookkeeping only" in simulation.note
    assert main(arguments) == FINE
    assert capsys.readouterr().out == text, "the same recording gives the same bytes"


def test_reports_are_findings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "tables"
    folder.mkdir()
    (folder / "apic.dat").write_bytes(madt(cpu(0), cpu(0), ioapic(FIRST, 0), ioapic(SECOND, 12)))
    assert main(["hv", "simulate", "--from", str(folder)]) == FOUND
    out = capsys.readouterr().out
    assert "what the core reports\n  ! two processors have APIC id 0x0 (at 0x70000000)\n" in out
    assert "owned    1 processor" in out
    assert main(["hv", "simulate", "--from", str(folder), "--format", "json"]) == FOUND
    assert "duplicate_cpu" in {each.code for each in decode(capsys.readouterr().out.encode(), Simulation).reports}


def test_many_processors_are_summed_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "tables"
    folder.mkdir()
    (folder / "apic.dat").write_bytes(madt(*map(cpu, range(300)), ioapic(FIRST, 0)))
    assert main(["hv", "simulate", "--from", str(folder)]) == FINE
    out = capsys.readouterr().out
    assert "owned    300 processors" in out
    assert "vectors  0 in use\n" in out


def test_nothing_to_boot_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dump = tmp_path / "machine.lspci"
    write_lspci_text(dump, 2)
    for path, said in ((str(dump), "has no MADT"), (str(tmp_path / "none"), "none")):
        assert main(["hv", "simulate", "--from", path]) == UNUSABLE
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
        assert "bug" not in error


def test_more_ioapics_than_the_core_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "tables"
    folder.mkdir()
    many = [ioapic(FIRST + 0x1000 * number, 24 * number, number & 0xFF) for number in range(300)]
    (folder / "apic.dat").write_bytes(madt(cpu(0), *many))
    assert main(["hv", "simulate", "--from", str(folder)]) == FOUND
    out = capsys.readouterr().out
    assert "more IOAPICs than the core's limit, from 0xfec80000 on" in out
    assert "owned    1 processor, 128 IOAPICs" in out


@needs_interpreter
def test_without_the_library(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "dom0kit.hypercall._core_library", None)
    assert main(["hv", "simulate", "--from", Q35]) == UNUSABLE
    error = capsys.readouterr().err
    assert error.startswith("dom0kit: the core's library was not built")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [[], ["emulate"], ["simulate", "--mode", "both"], ["simulate", "--from", Q35, "--wake"], ["simulate", "--nothing"]],
)
def test_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hv", *arguments]) == USAGE
    assert "--help" in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hv", "--help"]) == FINE
    assert "simulate" in capsys.readouterr().out
    assert main(["hv", "simulate", "--help"]) == FINE
    assert "--mode" in capsys.readouterr().out


def test_without_xen(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hv", "xen"]) == UNUSABLE
    assert "there is no /dev/xen/privcmd" in capsys.readouterr().err


def test_a_trace_is_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header = '{"trace":1}\n'
    function = Sbdf(0, 0, 2, 0)
    msi = '{"seconds":0,"backend":"%s","number":33,"command":13,"call":"map","argument":"%s","status":"OK"}\n'
    argument = struct.pack("<HHiiiiiiIQ", 0x7FF0, 0, 3, -1, -1, 0, function.devfn, 0, 0, 0xF0000000).hex()
    trace = tmp_path / "trace"
    trace.write_text(header + msi % ("xen", argument))
    assert main(["hv", "replay", str(trace), "--from", Q35]) == FINE
    assert "1 call, 0 answered otherwise" in capsys.readouterr().out
    trace.write_text(header + msi % ("hv_core", argument))
    assert main(["hv", "replay", str(trace), "--from", Q35]) == FOUND, "nobody has told this core of the function"
    assert "OK then" in capsys.readouterr().out
    trace.write_text("nonsense\n")
    assert main(["hv", "replay", str(trace), "--from", Q35]) == UNUSABLE
    assert main(["hv", "replay", str(tmp_path / "none"), "--from", Q35]) == UNUSABLE


def test_hypercalls_are_traced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "trace"
    assert main(["hv", "simulate", "--trace-hypercalls", str(trace), "--from", Q35]) == FINE
    told = re.search(r"calls +(\d+) hypercalls", capsys.readouterr().out)
    calls = read_trace(trace)
    assert told is not None
    assert len(calls) > int(told[1]) > 50, "and those that ask what the core has in the end"
    assert {call.backend for call in calls} == {"library"}
    assert main(["hv", "replay", str(trace), "--from", Q35]) == FINE
    before = trace.read_bytes()
    assert main(["hv", "simulate", "--from", Q35]) == FINE
    assert trace.read_bytes() == before, "the next command line is not traced"
    assert main(["hv", "simulate", "--from", Q35, "--trace-hypercalls"]) == USAGE
    assert main(["hv", "simulate", "--from", Q35, "--trace-hypercalls", str(tmp_path)]) == UNUSABLE
    assert "cannot be written" in capsys.readouterr().err
