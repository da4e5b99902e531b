# SPDX-License-Identifier: MIT
"""``dom0kit check``: one machine, a baseline, and a folder of many."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import pytest

from dom0kit.check.verdict import Verdict
from dom0kit.cli import FINE, FOUND, UNUSABLE, USAGE, main
from dom0kit.cli.enumerate import SHIPPED
from dom0kit.finding import Severity
from dom0kit.serial import decode
from tests.check.machine import acpi, fadt, recording

Q35 = str(SHIPPED)
FOLDER = Path(SHIPPED).parent


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    """A folder of tables: a FADT without SCI, and no MADT."""
    folder = tmp_path / "faulty"
    folder.mkdir()
    (folder / "FACP.dat").write_bytes(fadt(sci=0).data)
    return folder


def test_the_severity_decides_what_is_told_and_the_status(faulty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--from", Q35, "--no-aml"]) == FINE
    assert capsys.readouterr().out.endswith("findings   none\n")
    assert main(["check", "--from", Q35, "--no-aml", "--severity", "info"]) == FOUND
    text = capsys.readouterr().out
    assert "[pci.group-of-slots]" in text
    assert "\ninfo\n" in text
    assert main(["check", "--from", str(faulty), "--no-aml"]) == FOUND
    text = capsys.readouterr().out
    assert "warnings\n" in text
    assert "  the FADT names no SCI  [acpi.fadt-sci]\n    table:FACP  SCI_INT is 0" in text
    assert "    -> Update the firmware.\n" in text
    assert main(["check", "--from", str(faulty), "--no-aml", "--severity", "error"]) == FINE


def test_what_a_baseline_has_is_no_news(faulty: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["check", "--from", str(faulty), "--no-aml", "--format", "json"]
    assert main(command) == FOUND
    first = decode(capsys.readouterr().out.encode(), Verdict)
    assert {finding.rule for finding in first.findings} >= {"acpi.fadt-sci", "acpi.madt-missing"}
    assert (first.known, first.gone) == (0, 0)
    known = tmp_path / "known.json"
    known.write_bytes(main_output(capsys, command))
    again = decode(main_output(capsys, [*command, "--baseline", str(known)], FINE), Verdict)
    assert again.findings == ()
    assert again.known == len(first.findings)
    (faulty / "APIC.dat").write_bytes(acpi("APIC", bytes(8)).data)
    later = decode(main_output(capsys, [*command, "--baseline", str(known)], None), Verdict)
    assert later.gone == 1
    assert "acpi.fadt-sci" not in {finding.rule for finding in later.findings}


def main_output(capsys: pytest.CaptureFixture[str], command: list[str], status: int | None = FOUND) -> bytes:
    given = main(command)
    assert status is None or given == status
    return capsys.readouterr().out.encode()


def test_an_enumeration_is_a_baseline_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = tmp_path / "known.json"
    main(["enumerate", "--from", Q35, "--no-aml", "--format", "json"])
    known.write_text(capsys.readouterr().out)
    text = main_output(
        capsys, ["check", "--from", Q35, "--no-aml", "--severity", "info", "--baseline", str(known)]
    ).decode()
    assert "baseline   4 known and left out, 0 gone" in text
    assert "pci.reset-differs" not in text


@pytest.mark.parametrize("text", ["", "{}", '{"findings": 3}', "no JSON"])
def test_a_baseline_that_is_none(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = tmp_path / "known.json"
    known.write_text(text)
    assert main(["check", "--from", Q35, "--no-aml", "--baseline", str(known)]) == UNUSABLE
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert str(known) in said
    assert main(["check", "--from", Q35, "--no-aml", "--baseline", str(tmp_path / "none")]) == UNUSABLE


@pytest.mark.parametrize(
    "arguments",
    [
        ["--severity", "some"],
        ["-j", "2"],
        ["--format", "csv"],
        ["--corpus", "x", "--from", "y"],
        ["--corpus", "x", "--baseline", "y"],
        ["--corpus", "x", "-j", "0"],
        ["--corpus", "x", "-j", "many"],
    ],
)
def test_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", *arguments]) == USAGE
    assert capsys.readouterr().err.startswith("dom0kit: check: ")


@pytest.fixture
def corpus(tmp_path: Path, faulty: Path) -> Path:
    """A table folder, one with its lspci text beside, two recordings, and something that is no machine."""
    for name in ("qemu-microvm.d0k", "firecracker.d0k"):
        shutil.copy(FOLDER / name, tmp_path / name)
    shutil.copytree(faulty, tmp_path / "acpi" / "both")
    (tmp_path / "both.lspci").write_text("00:00.0 Host bridge: one\n00: 86 80 37 12" + " 00" * 12 + "\n")
    (tmp_path / "notes.txt").write_text("nothing\n")
    return tmp_path


@pytest.mark.slow
def test_a_corpus_is_the_same_however_many_work_on_it(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["check", "--corpus", str(corpus), "--no-aml", "--severity", "info", "--format", "json"]
    alone = main_output(capsys, [*command, "-j", "1"])
    assert alone == main_output(capsys, [*command, "-j", "3"])
    machines = [json.loads(line) for line in alone.splitlines()]
    assert [each["name"] for each in machines] == ["both", "faulty", "firecracker", "notes", "qemu-microvm"]
    both, faulty, _, notes, _ = machines
    assert (both["tables"], both["functions"]) == (1, 1)
    assert (faulty["tables"], faulty["functions"]) == (1, 0)
    assert "notes.txt" in notes["error"]


def test_a_corpus_as_a_table(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["check", "--corpus", str(corpus), "--no-aml", "-j", "1"]
    text = main_output(capsys, command).decode()
    assert text.startswith("machines   5, 1 of them unreadable\n")
    assert "warning          2         2  acpi.fadt-sci" in text
    assert "2  SCI_INT is #, and HW_REDUCED_ACPI is clear  both, faulty\n" in text
    assert "\nunreadable\n  notes  " in text
    rows = list(csv.DictReader(io.StringIO(main_output(capsys, [*command, "--format", "csv"]).decode())))
    assert {row["machine"] for row in rows} == {"both", "faulty", "firecracker", "notes", "qemu-microvm"}
    assert {row["rule"] for row in rows if row["machine"] == "faulty"} >= {"acpi.fadt-sci", "acpi.madt-missing"}
    assert {row["severity"] for row in rows if row["machine"] == "firecracker"} == {""}
    assert {row["severity"] for row in rows} <= {"", "unreadable", *(of.value for of in Severity)}


def test_a_corpus_without_machines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--corpus", str(tmp_path)]) == UNUSABLE
    assert main(["check", "--corpus", str(tmp_path / "none")]) == UNUSABLE
    (tmp_path / "notes.txt").write_text("nothing\n")
    assert main(["check", "--corpus", str(tmp_path), "-j", "1"]) == UNUSABLE
    assert "none of the 1 machines" in capsys.readouterr().err


def test_the_recordings_of_the_package_have_no_fault_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    """But what their makers meant to be there."""
    for name in ("firecracker", "qemu-microvm", "qemu-q35", "synthetic-x2apic"):
        assert main(["check", "--from", str(recording(name)), "--no-aml"]) == FINE, capsys.readouterr().out
