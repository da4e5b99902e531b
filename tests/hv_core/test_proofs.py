# SPDX-License-Identifier: MIT
"""The proofs of hv_core hold, and fail when the core is broken (the slow ones too: ./dev prove --mutations)."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

PROVE = Path(__file__).parents[2] / "hv_core" / "proofs" / "prove.py"


def _prove(*arguments: str) -> str:
    ran = subprocess.run(["/usr/bin/python3", str(PROVE), *arguments], capture_output=True, text=True, timeout=1500)
    if ran.returncode == 3:
        pytest.skip(ran.stderr.strip().splitlines()[-1])
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.mark.slow
def test_all_hold() -> None:
    assert "FAILS" not in _prove()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bits", "madt_step", "entry", "message", "pin_program", "cpu_index", "vector_find"])
def test_a_broken_core_is_noticed(name: str) -> None:
    assert _prove("--mutations", name).strip()
