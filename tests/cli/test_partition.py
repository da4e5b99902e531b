# SPDX-License-Identifier: MIT
"""``dom0kit partition`` from end to end, on a recording that the package ships."""

from __future__ import annotations

import io
import json
import sys
import tomllib
from pathlib import Path

import pytest

from dom0kit.address import Sbdf
from dom0kit.cli import FINE, FOUND, UNUSABLE, USAGE, main
from dom0kit.cli import enumerate as verb
from dom0kit.partition.check import Verdict
from dom0kit.partition.document import read
from dom0kit.partition.suggest import Answer, Suggestion
from dom0kit.plan import Backend, Plan, ResetFunction
from dom0kit.serial import decode

Q35 = str(Path(verb.SHIPPED).with_name("qemu-q35.d0k"))
FROM = ["--from", Q35]
NIC = b'{ path = "0000:00/06.0/00.0/00.0/00.0", id = "8086:10d3", serial = "28bbf94fb59f3d92" }'
FILE = b'[[domain]]\nname = "net"\ndevice = [ ' + NIC + b" ]\n"
Captured = pytest.CaptureFixture[str]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "partition.toml"
    path.write_bytes(FILE)
    return path


def test_what_can_be_given_away(capsys: Captured) -> None:
    assert main(["partition", "suggest", *FROM]) == FINE
    out = capsys.readouterr().out
    given, _, stays = out.partition("stays with dom0")
    assert "0000:04:00.0  Intel Corporation 82574L Gigabit Network Connection" in given
    assert "0000:00:1f.0 (8086:2918) is a bridge to ISA or the like  [partition.function-stays]" in stays
    assert main(["partition", "suggest", *FROM, "--format", "json"]) == FINE
    found = decode(capsys.readouterr().out.encode(), Suggestion)
    assert len(found.givable) == 9
    assert len(found.blocked) == 2


def test_the_starting_point_is_a_file_that_gives_nothing_away(tmp_path: Path, capsys: Captured) -> None:
    assert main(["partition", "init", *FROM]) == FINE
    out = capsys.readouterr().out
    assert read(out.encode()).partition.domain[0].device == ()
    path = tmp_path / "p.toml"
    path.write_text(out)
    assert main(["partition", "check", str(path), *FROM]) == FINE
    head, _, rest = out.partition("# [[domain.device]]  # 0000:04:00.0 now")
    path.write_text(head + "\n" + ("[[domain.device]] #" + rest).split("\n\n")[0].replace("# ", ""))
    assert [device["path"] for device in tomllib.loads(path.read_text())["domain"][0]["device"]] == [
        "0000:00/06.0/00.0/00.0/00.0"
    ]
    capsys.readouterr()
    assert main(["partition", "check", str(path), *FROM]) == FINE
    assert "0000:04:00.0  Intel Corporation 82574L" in capsys.readouterr().out


def test_a_want_becomes_a_file_and_a_plan(tmp_path: Path, capsys: Captured) -> None:
    path, plan = tmp_path / "p.toml", tmp_path / "plan.json"
    want = ["--want", "domain=net: class=network", "--want", "domain=disk: class=nvme count=2"]
    assert main(["partition", "suggest", *FROM, *want, "-o", str(path)]) == FINE
    assert capsys.readouterr().out.startswith(f"found; written to {path}\n")
    assert main(["partition", "plan", str(path), *FROM, "-o", str(plan), "--explain"]) == FINE
    out = capsys.readouterr().out
    assert "bind 0000:04:00.0 to vfio-pci" in out
    assert "undone exactly" in out
    made = decode(plan.read_bytes(), Plan)
    assert made.backend is Backend.LINUX
    assert [each.function for each in made.operations if isinstance(each, ResetFunction)] == [
        Sbdf.parse(each) for each in ("0000:04:00.0", "0000:01:00.1", "0000:01:00.2")
    ]
    assert main(["apply", str(plan), "--dry-run", "--from", Q35]) == FINE
    assert "0000:04:00.0 is bound to vfio-pci" in capsys.readouterr().out


def test_a_want_that_rules_are_in_the_way_of(capsys: Captured) -> None:
    want = ["--want", "domain=disk: class=ahci"]
    assert main(["partition", "suggest", *FROM, *want]) == FOUND
    out = capsys.readouterr().out
    assert out.startswith("not possible: rules are in the way")
    assert "[partition.group-split]" in out
    assert main(["partition", "suggest", *FROM, *want, "--format", "json"]) == FOUND
    answer = decode(capsys.readouterr().out.encode(), Answer)
    assert answer.in_the_way == (("partition.group-split", "partition.function-stays"),)


@pytest.mark.parametrize(
    ("want", "said"),
    [
        ("net: class=network", "is no want like"),
        ("domain=net: clas=network", "there is no 'clas' to want by, did you mean 'class'?"),
        ("domain=net: class=netwrk", "there is no class 'netwrk', did you mean 'network'?"),
        ("domain=net: count=2", "does not say what net wants"),
        ("domain=net: class=02 count=0", "count is a number from 1 to 256"),
        ("domain=a b: class=02", "'a b' is no name of a domain"),
        ("domain=net: sbdf=zz", "is not a PCI address"),
    ],
)
def test_wants_that_make_no_sense(want: str, said: str, capsys: Captured) -> None:
    assert main(["partition", "suggest", *FROM, "--want", want]) == USAGE
    assert said in capsys.readouterr().err


def test_conflicts_are_told_with_line_and_ways(file: Path, capsys: Captured) -> None:
    file.write_bytes(FILE + b'[[domain]]\nname = "disk"\ndevice = [{ sbdf = "00:1f.2" }]\n')
    assert main(["partition", "check", str(file), *FROM]) == FOUND
    out = capsys.readouterr().out
    assert "error  an isolation group given to several domains  [partition.group-split]" in out
    assert "    line 6: the kernel's group 8 is one: dom0 has 0000:00:1f.0, 0000:00:1f.3; disk has 0000:00:1f.2" in out
    assert "      either leave all of it with dom0" in out
    assert "      or move the card" in out
    assert main(["partition", "plan", str(file), *FROM]) == FOUND
    assert "no plan can be made; 1 error" in capsys.readouterr().out
    assert main(["partition", "check", str(file), *FROM, "--format", "json"]) == FOUND
    assert not decode(capsys.readouterr().out.encode(), Verdict).feasible


def test_mistakes_of_the_file(file: Path, capsys: Captured) -> None:
    file.write_bytes(b'[[domain]]\nname = "net"\nvcpu = 2\ndevice = [{ pth = "x" }]\n')
    assert main(["partition", "check", str(file), *FROM]) == UNUSABLE
    assert capsys.readouterr().err.splitlines() == [
        f"{file}:3:1: there is no key vcpu, did you mean vcpus?",
        f"{file}:4:13: there is no key pth, did you mean path?",
    ]


def test_fragments_for_xl(file: Path, tmp_path: Path, capsys: Captured) -> None:
    folder = tmp_path / "xl"
    folder.mkdir()
    plan = ["partition", "plan", str(file), *FROM]
    assert main([*plan, "--backend", "xen", "--xl", str(folder)]) == FINE
    assert 'pci = [ "0000:04:00.0" ]' in (folder / "net.cfg").read_text()
    assert "bind 0000:04:00.0 to pciback" in capsys.readouterr().out
    assert main([*plan, "--xl", str(folder)]) == USAGE
    assert main([*plan, "--backend", "xen", "--xl", str(folder / "no")]) == UNUSABLE


def test_a_core_keeps_books_and_says_so(file: Path, capsys: Captured) -> None:
    assert main(["partition", "plan", str(file), *FROM, "--backend", "hv_core"]) == FINE
    out = capsys.readouterr().out
    assert "keeps the books of other domains, and none runs yet" in out
    assert "give 0000:04:00.0 to domain 1" in out


def test_a_file_on_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(FILE)))
    assert main(["partition", "check", "-", *FROM]) == FINE


@pytest.mark.parametrize(
    "arguments",
    [[], ["sugest"], ["check"], ["suggest", "-o", "x"], ["plan", "x", "--backend", "kvm"]],
)
def test_usage(arguments: list[str], capsys: Captured) -> None:
    assert main(["partition", *arguments]) == USAGE
    assert capsys.readouterr().err.count("\n") == 1


def test_what_is_not_there(tmp_path: Path, capsys: Captured) -> None:
    assert main(["partition", "check", str(tmp_path / "none.toml"), *FROM]) == UNUSABLE
    assert "No such file" in capsys.readouterr().err


def test_schemas(capsys: Captured) -> None:
    for what in ("partition", "plan", "platform"):
        assert main(["schema", what]) == FINE
        assert json.loads(capsys.readouterr().out)["$ref"].lower().endswith(what)
