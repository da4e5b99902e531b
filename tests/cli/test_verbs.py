# SPDX-License-Identifier: MIT
"""``record``, ``acpi``, ``diff`` and ``schema`` from end to end, on the recordings that the package ships."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dom0kit.acpi.aml import Result
from dom0kit.acpi.namespace import Namespace
from dom0kit.cli import FINE, FOUND, UNUSABLE, USAGE, main
from dom0kit.cli import enumerate as verb
from dom0kit.difference import ChangeKind, Difference
from dom0kit.serial import decode
from tests.acpi.asl import needs_interpreter

SHIPPED = Path(verb.SHIPPED)
I440FX = SHIPPED.with_name("qemu-i440fx.d0k")


def test_a_recording_of_a_recording_is_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "copy.d0k"
    assert main(["record", "-o", str(copy), "--from", str(SHIPPED)]) == FINE
    assert copy.read_bytes() == SHIPPED.read_bytes()
    assert capsys.readouterr().out.startswith(f"{copy}: {SHIPPED.stat().st_size} bytes, ")


def test_an_older_recording_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = tmp_path / "old.d0k"
    old.write_bytes(b"precious")
    arguments = ["record", "-o", str(old), "--from", str(SHIPPED)]
    assert main(arguments) == UNUSABLE
    assert "--force" in capsys.readouterr().err
    assert old.read_bytes() == b"precious"
    assert main([*arguments, "--force"]) == FINE
    assert old.read_bytes() == SHIPPED.read_bytes()


@pytest.mark.parametrize("place", ["missing/x.d0k", "."])
def test_a_place_that_cannot_be_written(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["record", "-o", place, "--from", str(SHIPPED)]) == UNUSABLE
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert place in said
    assert "bug" not in said


@needs_interpreter
def test_the_namespace(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["acpi", "tree", "--from", str(I440FX)]) == FINE
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [str(I440FX), "", "\\"]
    assert any(line.startswith("    PCI0  Device  PNP0A03") for line in lines)
    assert main(["acpi", "tree", "--from", str(I440FX), "--format", "json"]) == FINE
    objects = decode(capsys.readouterr().out.encode(), Namespace).objects
    assert len(objects) >= 100
    assert len([line for line in lines[3:] if line]) == len({each.path for each in objects} - {"\\"})


@needs_interpreter
def test_an_object_is_evaluated(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["acpi", "eval", r"\_SB.PCI0._HID", "--from", str(I440FX)]
    assert main(arguments) == FINE
    assert capsys.readouterr().out == "\\_SB.PCI0._HID: AE_OK\n\nvalue\n  0x30ad041 (51040321)\n"
    assert main([*arguments, "--format", "json"]) == FINE
    assert decode(capsys.readouterr().out.encode(), Result).evaluation.ok


@needs_interpreter
def test_an_object_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["acpi", "eval", r"\_SB.NONE", "--from", str(I440FX)]) == FOUND
    assert "AE_NOT_FOUND" in capsys.readouterr().out


@pytest.mark.parametrize("verb", [["tree"], ["eval", "\\_SB"]])
def test_a_machine_without_tables(verb: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "lspci.txt"
    text.write_text("00:00.0 Host bridge: one\n00: 86 80 37 12" + " 00" * 12 + "\n")
    assert main(["acpi", *verb, "--from", str(text)]) == UNUSABLE
    said = capsys.readouterr().err
    assert "no ACPI tables" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("arguments", [["acpi", "tre"], ["acpi", "tree", "x"], ["acpi", "--frob"]])
def test_acpi_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == USAGE
    assert capsys.readouterr().err.startswith("dom0kit: acpi")


def test_a_machine_does_not_differ_from_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", str(SHIPPED), str(SHIPPED), "--no-aml"]) == FINE
    assert capsys.readouterr().out == f"before  {SHIPPED}\nafter   {SHIPPED}\nno difference\n"


def test_two_machines_differ(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["diff", str(SHIPPED), str(I440FX), "--no-aml"]
    assert main(arguments) == FOUND
    text = capsys.readouterr().out
    assert "\n  - DMAR\n" in text
    assert "\n  + 0000:00:05.0\n" not in text  # both have one there, another one
    assert "\n  ~ 0000:00:05.0\n" in text
    assert main([*arguments, "--format", "json"]) == FOUND
    difference = decode(capsys.readouterr().out.encode(), Difference)
    assert difference.version == 1
    assert {change.kind for change in difference.changes} == set(ChangeKind)
    there = {(change.section, change.item) for change in difference.changes if change.kind is ChangeKind.REMOVED}
    assert ("tables", "DMAR") in there
    assert ("functions", "0000:c1:00.0") in there


def test_the_schema_describes_the_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == FINE
    schema = json.loads(capsys.readouterr().out)
    platform = schema["$defs"][schema["$ref"].rpartition("/")[2]]
    assert next(iter(platform["properties"])) == "version"
    assert main(["enumerate", "--from", str(SHIPPED), "--no-aml", "--format", "json"]) in (FINE, FOUND)
    assert json.loads(capsys.readouterr().out).keys() <= platform["properties"].keys()
