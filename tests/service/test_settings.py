# SPDX-License-Identifier: MIT
"""What /etc/dom0kit may hold, and who may have written it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dom0kit.hotplug.policy import Action
from dom0kit.serial import encode
from dom0kit.service.settings import BadSettings, Settings, read_settings
from tests.service.rig import plan


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "dom0kit"
    (made / "plans").mkdir(parents=True)
    return made


def test_without_a_folder_it_is_the_defaults(tmp_path: Path) -> None:
    found = read_settings(str(tmp_path / "no"))
    assert found == Settings()
    assert found.hotplug.default is Action.KEEP
    assert found.metrics.textfile is None
    assert not found.irreversible


def test_everything(folder: Path) -> None:
    (folder / "service.toml").write_text(
        '[metrics]\ntextfile = "/var/lib/x.prom"\nseconds = 30\n[plans]\nirreversible = true\n'
    )
    (folder / "hotplug.toml").write_text('default = "quarantine"\n')
    (folder / "plans" / "20-b.json").write_bytes(encode(plan(21)))
    (folder / "plans" / "10-a.json").write_bytes(encode(plan(20), indent=2))
    (folder / "plans" / ".10-a.json").write_text("an editor's")
    (folder / "plans" / "notes.txt").write_text("no plan")
    found = read_settings(str(folder))
    assert [each.name for each in found.plans] == ["10-a.json", "20-b.json"]
    assert found.plans[0].plan == plan(20)
    assert found.hotplug.default is Action.QUARANTINE
    assert (found.metrics.textfile, found.metrics.seconds) == ("/var/lib/x.prom", 30)
    assert found.irreversible


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("service.toml", "[metric]\n", "unknown field `metric`"),
        ("service.toml", '[metrics]\ntextfile = "x.prom"\n', "textfile"),
        ("service.toml", "[metrics]\nseconds = 0\n", "seconds"),
        ("service.toml", "= = =", "service.toml"),
        ("service.toml", "\udcff", "service.toml"),
        ("hotplug.toml", 'default = "eat"\n', "hotplug.toml"),
        ("plans/a.json", "{}", "is no plan"),
        ("plans/a.json", "", "is no plan"),
    ],
)
def test_mistakes_name_the_file(folder: Path, name: str, text: str, says: str) -> None:
    (folder / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(BadSettings, match=says):
        read_settings(str(folder))


@pytest.mark.parametrize("name", [".", "plans", "service.toml", "hotplug.toml", "plans/a.json"])
@pytest.mark.parametrize("mode", [0o020, 0o002])
def test_what_others_may_write_is_not_believed(folder: Path, name: str, mode: int) -> None:
    (folder / "service.toml").write_text("")
    (folder / "hotplug.toml").write_text("")
    (folder / "plans" / "a.json").write_bytes(encode(plan(20)))
    assert len(read_settings(str(folder)).plans) == 1
    path = folder / name
    path.chmod(path.stat().st_mode | mode)
    with pytest.raises(BadSettings, match="not root's alone"):
        read_settings(str(folder))


@pytest.mark.skipif(os.getuid() != 0, reason="to give a file away takes root")
def test_what_others_own_is_not_believed(folder: Path) -> None:
    (folder / "service.toml").write_text("")
    os.chown(folder / "service.toml", 65534, 65534)
    with pytest.raises(BadSettings, match="not root's alone"):
        read_settings(str(folder))


def test_a_pipe_is_no_file(folder: Path) -> None:
    os.mkfifo(folder / "service.toml")
    with pytest.raises(BadSettings, match="is no file"):
        read_settings(str(folder))


@settings(deadline=None)
@given(text=st.binary(max_size=200))
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, text: bytes) -> None:
    folder = tmp_path_factory.mktemp("etc")
    (folder / "service.toml").write_bytes(text)
    with suppress(BadSettings):
        read_settings(str(folder))
