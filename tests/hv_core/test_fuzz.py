# SPDX-License-Identifier: MIT
"""A short run of each fuzzer (longer ones: ./dev fuzz); a crash fails, and its input is kept below build/fuzz."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

FUZZ = Path(__file__).parents[2] / "hv_core" / "host" / "fuzz" / "fuzz.py"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tables", "hypercall"])
def test_a_short_run(name: str) -> None:
    ran = subprocess.run(["/usr/bin/python3", str(FUZZ), "15", name], capture_output=True, text=True, timeout=300)
    if ran.returncode == 3:
        pytest.skip(ran.stderr.strip().splitlines()[-1])
    assert ran.returncode == 0, ran.stdout + ran.stderr
