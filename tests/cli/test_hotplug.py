# SPDX-License-Identifier: MIT
"""``dom0kit hotplug`` from end to end: text, JSON, exit status, and one sentence where there is nothing to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dom0kit.cli import FINE, FOUND, UNUSABLE, USAGE, main
from dom0kit.hotplug.scenario import Played
from dom0kit.hotplug.slots import SlotState
from dom0kit.serial import decode
from tests.acpi.asl import needs_interpreter

RECORDINGS = Path(__file__).parent.parent.parent / "dom0kit" / "recordings"
Q35 = str(RECORDINGS / "qemu-q35.d0k")

SCENARIO = """
[[step]]
remove = ["0000:04:00.0"]
[[step]]
after = 1
add = ["0000:04:00.0"]
[[step]]
after = 1
pull = ["0000:04:00.0"]
[[step]]
after = 5
lost = true
[[step]]
remove = ["0000:02:00.0"]
"""
POLICY = '[[rule]]\nid = "8086:10d3"\naction = "give"\ndomain = 1\n'


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "scenario").write_text(SCENARIO)
    (tmp_path / "policy").write_text(POLICY)
    return tmp_path


@needs_interpreter
def test_a_scenario(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["hotplug", "simulate", str(files / "scenario"), "--from", Q35, "--policy", str(files / "policy")]
    assert main(arguments) == FOUND
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"5 steps on {Q35}, 3 findings"
    assert lines[4:9] == [
        "  the beginning: the core has 25 functions, 0 messages, 1 IOAPIC",
        "  step 1, at 0 s: the core has 24 functions, 0 messages, 1 IOAPIC",
        "    0000:04:00.0 8086:10d3 is gone; path 0000:00/06.0/00.0/00.0/00.0, slot 20; group of 2",
        "  step 2, at 1 s: the core has 25 functions, 2 messages, 1 IOAPIC",
        "    0000:04:00.0 8086:10d3 has appeared, in quarantine (rule 1); path 0000:00/06.0/00.0/00.0/00.0, slot 20; "
        "GSI 22; group of 2",
    ]
    assert "was pulled without notice; domain 1 has lost it" in "\n".join(lines)
    assert lines[-4] == "  step 5, at 7 s: the core has 21 functions, 0 messages, 1 IOAPIC"


@needs_interpreter
def test_a_scenario_as_json(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["hotplug", "simulate", str(files / "scenario"), "--from", Q35, "--format", "json"])
    played = decode(capsys.readouterr().out.encode(), tuple[Played, ...])
    assert [step.functions for step in played] == [25, 24, 25, 25, 24, 21]
    assert {finding.rule for step in played for finding in step.findings} == {
        "hotplug.events-lost",
        "hotplug.surprise-removal",
    }


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[[step]]\nremove = 3", "Expected `array`"),
        ("[[step]]\nexplode = true", "unknown field"),
        ("step", "Expected '='"),
        ('[[step]]\nadd = ["0000:00:00.8"]', "0000:00:00.8"),
    ],
)
def test_no_scenario(text: str, word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "scenario").write_text(text)
    assert main(["hotplug", "simulate", str(tmp_path / "scenario"), "--from", Q35]) == UNUSABLE
    error = capsys.readouterr().err
    assert "is no scenario: " in error
    assert word in error


@needs_interpreter
@pytest.mark.parametrize(
    ("text", "word"),
    [
        ('[[step]]\nremove = ["0000:ff:00.0"]', "step 1: there is no function 0000:ff:00.0"),
        ('[[step]]\nadd = ["0000:04:00.0"]', "step 1: 0000:04:00.0 is there already"),
        ('[[step]]\nadd = ["0000:ff:00.0"]', "step 1: the recording has no function 0000:ff:00.0 to add"),
        ('[[step]]\nremove = ["0000:02:00.0"]\n[[step]]\nadd = ["0000:04:00.0"]', "which is not there"),
        ("[[step]]\ndomain = 1\n[[step]]\ndomain = 1", "domain 1 cannot be created"),
    ],
)
def test_a_scenario_that_cannot_be(text: str, word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "scenario").write_text(text)
    assert main(["hotplug", "simulate", str(tmp_path / "scenario"), "--from", Q35]) == UNUSABLE
    assert word in capsys.readouterr().err


def test_slots(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hotplug", "slots", "--from", Q35]) == FINE
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"38 slots of {Q35}, 6 with something in it"
    assert lines[3].split("  ")[1:] == [
        "0000:01:00", "PCI Express", "", "", "", "", "", "", "", "", " slot 1", " below 0000:00:05.0",
        "occupied, power on, link up, attention off",
    ]  # fmt: skip
    assert lines[4] == "    0000:01:00.0 1b36:0010, driver nvme: dom0"
    assert lines[-1] == "  and 30 more of which nothing is known, nor in them"


def test_slots_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hotplug", "slots", "--from", Q35, "--format", "json"]) == FINE
    found = {slot.address: slot for slot in decode(capsys.readouterr().out.encode(), tuple[SlotState, ...])}
    assert found["0000:05:00"].present is False
    assert found["0000:05:00"].powered is False
    assert len(found["0000:07:03"].occupants) == 1
    assert found["0000:07:03"].names == ("3-1",)


def test_no_slots(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    firecracker = str(RECORDINGS / "firecracker.d0k")
    assert main(["hotplug", "slots", "--from", firecracker]) == UNUSABLE
    assert "has no slot" in capsys.readouterr().err


def test_a_policy(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = files / "policy"
    assert main(["hotplug", "check", str(policy), "--from", Q35]) == FINE
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{policy}: 1 rule, by default quarantine"
    assert "  0000:04:00.0  8086:10d3  give to domain 1  rule 1" in lines
    policy.write_text(POLICY * 2)
    assert main(["hotplug", "check", str(policy), "--from", Q35]) == FOUND
    assert "[hotplug.rule-unreachable]" in capsys.readouterr().out
    assert main(["hotplug", "check", str(policy), "--from", Q35, "--format", "json"]) == FOUND
    found = json.loads(capsys.readouterr().out)
    assert found["rules"] == 2
    assert len(found["functions"]) == 8


def test_no_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hotplug", "check", str(tmp_path / "none"), "--from", Q35]) == UNUSABLE
    assert "cannot be read: No such file" in capsys.readouterr().err
    (tmp_path / "policy").write_text("default = 3")
    assert main(["hotplug", "check", str(tmp_path / "policy"), "--from", Q35]) == UNUSABLE
    assert "is no policy: " in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["wach"], ["watch", "--seconds", "-1"], ["simulate"], ["slots", "--form"]])
def test_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hotplug", *arguments]) == USAGE
    assert capsys.readouterr().err.count("\n") == 1


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hotplug", "--help"]) == FINE
    assert "watch" in capsys.readouterr().out
