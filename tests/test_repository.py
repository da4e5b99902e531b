# SPDX-License-Identifier: MIT
"""The repository itself: licences, rules, and that what it says of its own commands is so."""

from __future__ import annotations

import ast
import os
import re
import subprocess
from pathlib import Path

import pytest

from dom0kit.cli import VERBS
from dom0kit.cli.explain import declare_every_rule
from dom0kit.finding import RULES

ROOT = Path(__file__).parent.parent
BINARY = {".aml", ".d0k", ".dat"}
WITHOUT_LICENCE_LINE = {".gitignore", ".typed", ".md", ".json", ".txt", "changelog", "format"}
PUBLIC = sorted(path for path in (ROOT / "dom0kit").rglob("*.py"))


def files() -> list[Path]:
    """What git keeps, or would keep."""
    listed = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip(f"this is no git work tree: {listed.stderr.decode().strip()}")
    paths = [ROOT / os.fsdecode(name) for name in listed.stdout.split(b"\0") if name]
    return [path for path in paths if path.is_file()]


def test_every_file_says_its_licence() -> None:
    without = [
        str(path.relative_to(ROOT))
        for path in files()
        if path.suffix not in BINARY
        and path.suffix not in WITHOUT_LICENCE_LINE
        and path.name not in WITHOUT_LICENCE_LINE
        and path.stat().st_size
        and not any("SPDX-License-Identifier:" in line for line in path.read_text().splitlines()[:2])
    ]
    assert without == []


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    place = re.compile(rb"(?<![\w.])/(?:work|home/[a-z]+|root|tmp/[a-z]+)/[\w.-]+")
    allowed = {Path("tests/test_repository.py")}
    found = [
        f"{path.relative_to(ROOT)}: {match.group().decode()}"
        for path in files()
        if path.relative_to(ROOT) not in allowed and path.suffix not in BINARY
        for match in [place.search(path.read_bytes())]
        if match
    ]
    assert found == []


def test_every_module_says_what_it_is_for() -> None:
    without = [str(path.relative_to(ROOT)) for path in PUBLIC if not ast.get_docstring(ast.parse(path.read_text()))]
    assert without == []


def test_every_rule_is_explained() -> None:
    declare_every_rule()
    assert RULES
    for rule in RULES.values():
        assert 3 <= len(rule.title) <= 80, rule.id
        assert not rule.title.endswith("."), rule.id
        for field in (rule.meaning, rule.advice, rule.specification):
            assert len(field) >= 5, rule.id
            assert "  " not in field, f"{rule.id}: two blanks in {field!r}"
        assert rule.meaning.endswith("."), rule.id


def test_every_rule_is_declared_once_and_told_somewhere() -> None:
    declare_every_rule()
    texts = {path: path.read_text() for path in PUBLIC if path.name != "finding.py"}
    declared: list[str] = []
    untold = []
    for path, text in texts.items():
        declared += re.findall(r'^@check\(\s*"([^"]+)"', text, re.MULTILINE)  # told by the function below it
        for constant, identity in re.findall(r'^(\w+)(?:: \w+)? = rule\(\s*"([^"]+)"', text, re.MULTILINE):
            declared.append(identity)
            uses = re.compile(rf"\b{constant}\b")
            elsewhere = any(uses.search(other) for where, other in texts.items() if where != path)
            if len(uses.findall(text)) < 2 and not elsewhere:
                untold.append(identity)
    assert sorted(declared) == sorted(RULES)
    assert untold == []


def test_the_commands_of_the_readme_exist() -> None:
    readme = ROOT / "README.md"
    text = readme.read_text()
    verbs = set(re.findall(r"^\s*(?:\$ |# )?(?:sudo )?dom0kit ([a-z]+)", text, re.MULTILINE))
    commands = set(re.findall(r"\./dev ([a-z]+)", text))
    assert "enumerate" in commands
    assert "test" in commands
    assert verbs <= VERBS.keys()
    usage = subprocess.run([ROOT / "dev", "--help"], capture_output=True, text=True, check=True).stdout
    assert commands <= set(re.findall(r"\./dev ([a-z]+)", usage))


@pytest.mark.parametrize("script", ["dev", ".ci/run"])
def test_scripts_are_executable_and_parse(script: str) -> None:
    path = ROOT / script
    shell = path.read_text().splitlines()[0].removeprefix("#!")
    assert subprocess.run([shell, "-n", path], check=False).returncode == 0
    if script == "dev":
        assert os.access(path, os.X_OK)


@pytest.mark.parametrize(("arguments", "status"), [(["--help"], 0), ([], 2), (["frobnicate"], 2)])
def test_dev_usage(arguments: list[str], status: int) -> None:
    done = subprocess.run([ROOT / "dev", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert "usage: ./dev enumerate" in (done.stdout if status == 0 else done.stderr)
