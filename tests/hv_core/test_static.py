# SPDX-License-Identifier: MIT
"""hv_core/host/lint.py finds what it is for: the C of the core, with one fault planted, is not accepted.

That it accepts the core as it is, is part of ``./dev lint``.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

CORE = Path(__file__).parents[2] / "hv_core"


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hv_core_lint", CORE / "host" / "lint.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


lint = _load()


@pytest.fixture
def plant(tmp_path: Path) -> Callable[..., Path]:
    """Copies the files named of the core, and adds text to their end."""

    def add(**texts: str) -> Path:
        shutil.copytree(CORE / "include", tmp_path / "include")
        shutil.copy(CORE / ".clang-tidy", tmp_path)
        (tmp_path / "core").mkdir()
        shutil.copy(CORE / "core" / "internal.h", tmp_path / "core")
        for name, text in texts.items():
            (tmp_path / "core" / f"{name}.c").write_text((CORE / "core" / f"{name}.c").read_text() + text)
        return tmp_path

    return add


PLANTED = "uint32_t hv_planted(uint32_t);\nuint32_t hv_planted(uint32_t n)\n{\n%s\n}\n"


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (PLANTED % "int32_t m = -1; m -= (int32_t)(n & 1); return m;", "sign"),
        (PLANTED % "uint8_t m = n; return m;", "conversion"),
        (PLANTED % "for (uint32_t i = 0; i < n; i++) { uint32_t n = i; (void)n; } return n;", "shadow"),
        (PLANTED % "volatile uint8_t big[1300]; big[n] = 1; return big[0];", "frame"),
        (PLANTED % "volatile uint8_t some[n]; some[0] = 1; return some[0];", "vla"),
        ("#include <string.h>\n", "string.h"),
    ],
)
def test_compilers_complain(plant: Callable[..., Path], compiler: str, text: str, complaint: str) -> None:
    tree = plant(vector=text)
    said = [lint.compile_one(tree, tree / "core" / "vector.c", compiler, variant) for variant in lint.VARIANTS]
    assert any(complaint in line.lower() for lines in said for line in lines), said


def test_clang_tidy_complains(plant: Callable[..., Path]) -> None:
    tree = plant(vector="#define TWICE(n) n * 2\n" + PLANTED % "return TWICE(n);")
    assert "bugprone-macro-parentheses" in "".join(lint.tidy(tree, tree / "core" / "vector.c"))


def test_cppcheck_complains(plant: Callable[..., Path]) -> None:
    tree = plant(vector=PLANTED % "uint32_t a[2] = {n, n};\nuint32_t i = 2;\nreturn a[i];")
    assert "arrayIndexOutOfBounds" in "".join(lint.cppcheck(tree, "core"))


@pytest.mark.parametrize(
    ("texts", "complaint"),
    [
        ({"vector": PLANTED % "return n == 0 ? 0 : n * hv_planted(n - 1);"}, "hv_planted calls itself"),
        (
            {
                "vector": "uint32_t hv_other(uint32_t);\n" + PLANTED % "return n == 0 ? 0 : hv_other(n - 1) + 1;",
                "irq": "uint32_t hv_planted(uint32_t);\nuint32_t hv_other(uint32_t);\n"
                "uint32_t hv_other(uint32_t n)\n{\nreturn hv_planted(n) + 2;\n}\n",
            },
            "calls itself, by way of",
        ),
        (
            {"vector": PLANTED % "uint8_t *some = __builtin_alloca(n); some[0] = 1; return hv_lowest_bit(some[0]);"},
            "hv_planted: its stack frame has no fixed size",
        ),
        (
            {"vector": "size_t strlen(const char *);\n" + PLANTED % 'return n + (uint32_t)strlen("core" + n);'},
            "strlen is asked of the home",
        ),
        ({"vector": "static uint32_t count;\n" + PLANTED % "count += n; return count;"}, "count is a variable"),
    ],
)
def test_objects_are_looked_into(plant: Callable[..., Path], texts: dict[str, str], complaint: str) -> None:
    problems, _ = lint.objects_are_sound(plant(**texts))
    assert any(complaint in problem for problem in problems), problems


def test_a_copy_without_a_fault_is_sound(plant: Callable[..., Path]) -> None:
    problems, remark = lint.objects_are_sound(plant(vector=""))
    assert problems == []
    assert remark.endswith("bytes of stack")
