# SPDX-License-Identifier: MIT
"""``dom0kit explain``: every rule, and one of them."""

from __future__ import annotations

import pytest

from dom0kit.cli import FINE, main
from dom0kit.finding import RULES


def test_without_an_id_every_rule_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain"]) == FINE
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(RULES)
    assert "acpi.table-checksum" in RULES
    assert "pci.capability-loop" in RULES


def test_one_rule(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "acpi.table-checksum"]) == FINE
    text = capsys.readouterr().out
    rule = RULES["acpi.table-checksum"]
    assert text.startswith(f"acpi.table-checksum ({rule.severity.value}): {rule.title}\n")
    for part in (rule.meaning, rule.advice, rule.specification):
        assert part in " ".join(text.split())
