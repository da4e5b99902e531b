# SPDX-License-Identifier: MIT
"""The fuzzers of hv_core/host/fuzz: a short run finds nothing; in a core broken on purpose they find what is broken."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest

CORE = Path(__file__).parents[2] / "hv_core"
SECONDS = 15

pytestmark = pytest.mark.slow


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hv_core_fuzz", CORE / "host" / "fuzz" / "fuzz.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fuzz = _load()


@pytest.mark.parametrize("name", fuzz.NAMES)
def test_nothing_is_found(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = fuzz.run(name, SECONDS, fuzz.build(name, work=tmp_path), work=tmp_path)
    said = capsys.readouterr().out
    assert good, said
    assert "new_units_added" in said


@pytest.mark.parametrize(
    ("name", "file", "text", "instead", "found"),
    [
        ("tables", "acpi_static.c", "entry->id > 15 || ", "", "out of bounds"),
        ("hypercall", "irq.c", "    hv_bit_clear(owner->pirq_free, pirq);\n", "", "not so: hv_books_hold"),
    ],
)
def test_what_is_broken_is_found(
    name: str, file: str, text: str, instead: str, found: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = tmp_path / "hv_core"
    for part in ("include", "core", "host"):
        shutil.copytree(CORE / part, tree / part)
    broken = (tree / "core" / file).read_text()
    assert broken.count(text) == 1
    (tree / "core" / file).write_text(broken.replace(text, instead))
    assert not fuzz.run(name, 20 * SECONDS, fuzz.build(name, tree, tmp_path), work=tmp_path)
    said = capsys.readouterr().out
    assert found in said
    assert "replay with" in said
