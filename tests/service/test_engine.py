# SPDX-License-Identifier: MIT
"""Start, adoption after a crash at every point, reload, hotplug; against the core's model."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from dom0kit.address import Sbdf
from dom0kit.hotplug.monitor import Batch, Event
from dom0kit.plan import Backend
from dom0kit.platform import Platform
from dom0kit.serial import decode
from dom0kit.service.engine import NotStarted
from dom0kit.source.pointers import Pointers
from tests.hypercall.apply_machine import Death, Killed
from tests.service.rig import LEAF, RSDP, XSDT, Rig, named, plan, rules


def test_start_writes_hands_over_and_applies(tmp_path: Path) -> None:
    rig = Rig(tmp_path, named(plan(20, 21), plan(22)))
    before = rig.mapped()
    engine, log = rig.started()
    assert set(rig.mapped()) == {*before, 20, 21, 22}
    assert [(each.name, each.adopted) for each in engine.plans] == [("0.json", False), ("1.json", False)]
    shared = rig.dom0.shared_info()
    assert shared.handed_over
    assert (shared.rsdp, shared.xsdt) == (RSDP, XSDT)
    assert decode((tmp_path / "platform.json").read_bytes(), Platform) == engine.platform
    assert log.of("plan-applied") == [
        "0.json is applied: GSIs 20, 21, 2 operations, 0 done before",
        "1.json is applied: GSIs 22, 1 operations, 0 done before",
    ]
    assert len(log.of("handed-over")) == 1


def test_a_second_process_adopts(tmp_path: Path) -> None:
    rig = Rig(tmp_path, named(plan(20, 21)))
    rig.started()
    state = rig.state()
    engine, log = rig.started()
    assert rig.state() == state
    assert [each.adopted for each in engine.plans] == [True]
    assert log.of("plan-applied") == []
    assert log.of("handed-over") == [f"shared_info is handed over: RSDP {RSDP:#x}, XSDT {XSDT:#x}"]
    assert len(os.listdir(tmp_path)) == len({"000001.journal", "hotplug.json", "lock", "platform.json"})


def test_another_boot_adopts_nothing(tmp_path: Path) -> None:
    rig = Rig(tmp_path, named(plan(20)))
    rig.started()
    again = Rig(tmp_path, named(plan(20)))
    again.boot = "another"
    engine, log = again.started()
    assert 20 in again.mapped()
    assert [each.adopted for each in engine.plans] == [False]
    assert len(log.of("plan-applied")) == 1


def test_killed_anywhere_it_goes_on(tmp_path: Path) -> None:
    whole = Rig(tmp_path / "whole", named(plan(20, 21), plan(22)))
    os.mkdir(tmp_path / "whole")
    whole.started()
    points = whole.death.events
    assert points > 100
    for at in range(1, points + 1, 23):
        folder = tmp_path / str(at)
        folder.mkdir()
        rig = Rig(folder, named(plan(20, 21), plan(22)))
        rig.death = Death(at)
        with pytest.raises(Killed):
            rig.started()
        engine, _ = rig.started()
        assert rig.mapped() == whole.mapped(), at
        assert rig.dom0.shared_info().handed_over
        assert [each.name for each in engine.plans] == ["0.json", "1.json"]
        assert sorted(name for name in os.listdir(folder) if name.endswith(".journal")) == [
            "000001.journal",
            "000002.journal",
        ]


def test_a_plan_of_another_machine_stops_the_start(tmp_path: Path) -> None:
    rig = Rig(tmp_path, named(plan(20), plan(21, fingerprint="0" * 64)))
    with pytest.raises(NotStarted, match=r"^1\.json is not applied: the plan is for another machine"):
        rig.started()
    assert 20 in rig.mapped()
    assert 21 not in rig.mapped()


def test_without_a_hypervisor_it_observes(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.has_core = False
    engine, _ = rig.started()
    assert "service.no-hypervisor" in rules(engine)
    assert (tmp_path / "platform.json").exists()
    assert engine.shared is None
    rig.settings = named(plan(20))
    with pytest.raises(NotStarted, match="the plan is for library, and this machine runs linux"):
        rig.started()


def test_pointers_that_nobody_saw_are_not_confirmed(tmp_path: Path) -> None:
    rig = Rig(tmp_path, seen=Pointers())
    engine, _ = rig.started()
    assert "service.pointers-unseen" in rules(engine)
    assert not rig.dom0.shared_info().handed_over


def test_pointers_that_dom0_saw_elsewhere_stop_the_start(tmp_path: Path) -> None:
    rig = Rig(tmp_path, seen=Pointers(frozenset({RSDP}), frozenset({XSDT + 64})))
    with pytest.raises(NotStarted, match=f"the XSDT is at {XSDT:#x}; dom0 found it at {XSDT + 64:#x}"):
        rig.started()
    assert not rig.dom0.shared_info().handed_over


def test_reload_applies_what_is_new_and_names_what_is_left(tmp_path: Path) -> None:
    rig = Rig(tmp_path, named(plan(20)))
    engine, log = rig.started()
    engine.reload(named(plan(20), plan(21)))
    assert {20, 21} <= set(rig.mapped())
    assert [each.adopted for each in engine.plans] == [True, False]
    engine.reload(named(plan(21)))
    assert {20, 21} <= set(rig.mapped())
    assert [finding.message for finding in engine.findings if finding.rule == "service.plan-left"] == ["GSIs 20"]
    assert len(log.of("plan-applied")) == 2
    assert len(log.of("handed-over")) == 1


def test_a_refused_reload_leaves_what_was(tmp_path: Path) -> None:
    rig = Rig(tmp_path, named(plan(20)))
    engine, _ = rig.started()
    state = rig.state()
    with pytest.raises(NotStarted):
        engine.reload(named(plan(20), plan(21, backend=Backend.HV_CORE)))
    assert rig.state() == state
    assert [each.title for each in engine.plans] == ["GSIs 20"]


def test_hotplug_is_followed_and_written(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    engine, log = rig.started()
    raw = rig.kernel.recorded[LEAF]
    before = rig.dom0.information().functions
    rig.kernel.vanish(LEAF)
    events = engine.step(_batch(LEAF))
    assert [event.kind for event in events] == ["departed"]
    assert events[0].function == str(LEAF)
    assert rig.dom0.information().functions == before - 1
    assert str(LEAF) not in _written(tmp_path)
    rig.kernel.appear(raw)
    assert [event.kind for event in engine.step(_batch(LEAF))] == ["arrived"]
    assert [event.number for event in engine.events] == [1, 2]
    assert rig.dom0.information().functions == before
    assert str(LEAF) in _written(tmp_path)
    assert dict(engine.counts) == {"departed": 1, "arrived": 1}
    assert log.of("arrived")[0].startswith(f"{LEAF} ")


def test_nothing_happens_nothing_is_written(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    engine, _ = rig.started()
    before = (tmp_path / "platform.json").stat().st_ino, rig.state()
    assert not engine.step(Batch())
    assert ((tmp_path / "platform.json").stat().st_ino, rig.state()) == before


def test_a_finding_is_told_once(tmp_path: Path) -> None:
    rig = Rig(tmp_path, seen=Pointers())
    engine, log = rig.started()
    engine.step(_batch(LEAF))
    assert len([message for message in log.of("finding") if "RSDP" in message]) == 1


@pytest.mark.parametrize("mode", [0o700, 0o750])
def test_the_group_of_the_folder_reads_the_platform(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    folder.chmod(mode)
    Rig(folder).started()
    assert (folder / "platform.json").stat().st_mode & 0o777 == (0o640 if mode == 0o750 else 0o600)


def _batch(function: Sbdf) -> Batch:
    return Batch((Event(action="change", subsystem="pci", path="/x", function=function, sequence=0, received=0.0),))


def _written(folder: Path) -> list[str]:
    """Functions of the written Platform."""
    platform = json.loads((folder / "platform.json").read_bytes())
    return [each["sbdf"] for each in platform["functions"]]
