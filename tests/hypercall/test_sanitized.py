# SPDX-License-Identifier: MIT
"""Tests of the library once more, compiled small and with the sanitizers of addresses and undefined behaviour."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hv_core.machines import LIMITS

ROOT = Path(__file__).parent.parent.parent
TESTS = "tests/hypercall/test_core_library.py"


@pytest.mark.slow
def test_nothing_is_read_beyond_its_end(tmp_path: Path) -> None:
    flags = [f"--flag={flag}" for flag in ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", "-O1")]
    limits = [f"--define={name}={value}" for name, value in LIMITS.items()]
    build = [sys.executable, str(ROOT / "hv_core" / "host" / "build.py"), "--output", str(tmp_path), *limits, *flags]
    subprocess.run(build, check=True, capture_output=True)
    (library,) = tmp_path.glob("*.so")
    runtime = subprocess.run(["gcc", "-print-file-name=libasan.so"], check=True, capture_output=True, text=True)
    environment = {
        **os.environ,
        "DOM0KIT_CORE_LIBRARY": str(library),
        "LD_PRELOAD": str(Path(runtime.stdout.strip()).resolve()),
        "ASAN_OPTIONS": "detect_leaks=0",  # what leaks is Python's
        "PYTHONMALLOC": "malloc",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", TESTS]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
