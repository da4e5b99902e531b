# SPDX-License-Identifier: MIT
"""ASL in a test, compiled by iasl."""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from dom0kit.source.interface import RawTable

needs_interpreter = pytest.mark.skipif(
    shutil.which("acpiexec") is None, reason="no acpiexec here (Debian package acpica-tools)"
)
needs_acpica = pytest.mark.skipif(
    shutil.which("iasl") is None or shutil.which("acpiexec") is None,
    reason="iasl and acpiexec are not installed: apt install acpica-tools",
)


@functools.cache
def table(body: str, signature: str = "DSDT", name: str = "DSDT", revision: int = 2) -> RawTable:
    """A definition block around `body`, compiled."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source.asl"
        source.write_text(f'DefinitionBlock ("", "{signature}", {revision}, "DOM0KT", "TEST", 1)\n{{\n{body}\n}}\n')
        command = ["iasl", "-oa", "-p", str(Path(folder) / "out"), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        compiled = Path(folder) / "out.aml"
        if not compiled.is_file():
            raise AssertionError(done.stdout + done.stderr)
        return RawTable(name, compiled.read_bytes())
