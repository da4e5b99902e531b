# SPDX-License-Identifier: MIT
"""AML that never ends, floods, or eats memory: the good device beside it is seen all the same, within the limits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acpi.asl import needs_acpica
from tests.acpi.hostile import CASES

pytestmark = [needs_acpica, pytest.mark.slow]

RULES = {
    "endless _STA": ["aml.evaluation-failed"],
    "endless _INI": ["aml.initialisation-failed"],
    "breakpoints": ["aml.interpreter-stopped"],
    "breakpoints without end": ["aml.interpreter-stopped"],
    "recursion": ["aml.evaluation-failed"],
    "huge buffer": ["aml.evaluation-failed"],
    "many buffers": ["aml.evaluation-failed"],
    "flood of text": ["aml.evaluation-failed"],
    "flood of accesses": ["aml.evaluation-failed"],
    "flood of addresses": ["aml.evaluation-failed"],
    "waits for ever": ["aml.interpreter-stopped"],
    "10,000 devices": [],
    "deep scopes": [],
    "forged output": [],
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_survived(name: str) -> None:
    command = [sys.executable, "-m", "tests.acpi.hostile", name]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["good"] == 0xD
    assert seen["own"] <= 200
    assert seen["child"] <= 200
    assert seen["findings"] <= 10
    if name in RULES:
        assert seen["rules"] == RULES[name]
    if name == "10,000 devices":
        assert seen["devices"] > 10_000
