# SPDX-License-Identifier: MIT
"""``apply``, ``rollback``, ``recover``, ``status``, and ``diff`` of plans, from end to end over the core's library."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dom0kit import plan as p
from dom0kit.abi import Mode
from dom0kit.address import Gsi, Polarity, Sbdf, Trigger
from dom0kit.cli import FINE, FOUND, UNUSABLE, USAGE, main, plans
from dom0kit.hypercall import journal
from dom0kit.hypercall.journal import Journals
from dom0kit.hypercall.world import World
from dom0kit.plan import AnyOperation, Backend, Plan
from dom0kit.serial import encode
from dom0kit.source.fingerprint import fingerprint
from dom0kit.source.recognise import open_source
from tests.acpi.asl import needs_interpreter
from tests.hypercall.apply_machine import BOOT, FINGERPRINT, OTHER, PHYSICAL, Death, FakeLinux, Killed, plan
from tests.hypercall.test_apply_laws import Stage, staged

RECORDINGS = Path(__file__).parent.parent.parent / "dom0kit" / "recordings"
Q35 = str(RECORDINGS / "qemu-q35.d0k")
Write = Callable[..., str]
LINE = (
    p.MapGsi(gsi=Gsi(5), pirq=5, why="INTA of 0000:00:03.0"),
    p.SetupGsi(gsi=Gsi(5), trigger=Trigger.LEVEL, polarity=Polarity.LOW),
)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """This machine is the model."""
    with staged(Mode.DIRECT) as made:
        monkeypatch.setattr(plans, "open_world", lambda backend: made.world())
        monkeypatch.setattr(journal, "FOLDER", made.run)
        monkeypatch.setattr(plans, "this_machine", lambda: FINGERPRINT)
        monkeypatch.setattr(plans, "boot_id", lambda: BOOT)
        yield made


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(what: Plan, name: str = "plan.json") -> str:
        path = tmp_path / name
        path.write_bytes(encode(what, indent=2))
        return str(path)

    return written


def said(capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    assert not (out and err)
    assert err.count("\n") <= 1, "one sentence"
    return out or err


def test_there_and_back(stage: Stage, write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    before = stage.state()
    assert main(["status"]) == FINE
    assert said(capsys) == "no plan is applied\n"
    path = write(plan(*LINE, title="a line"))
    assert main(["apply", path]) == FINE
    assert said(capsys) == "applied: 2 operations\nway back: dom0kit rollback (plan 1: a line)\n"
    assert stage.state() != before
    assert main(["apply", path]) == FINE
    assert said(capsys).startswith("applied: 0 operations, 2 had nothing to do\n")
    assert main(["status"]) == FINE
    assert said(capsys).splitlines() == [
        "plan 1  applied  2 of 2 operations  library  a line",
        "plan 2  applied  2 of 2 operations  library  a line",
    ]
    assert main(["rollback"]) == FINE
    assert said(capsys) == "undone: 0 operations of plan 2: a line\n"
    assert stage.state() != before
    assert main(["rollback"]) == FINE
    assert said(capsys) == "undone: 2 operations of plan 1: a line\n"
    assert stage.state() == before
    assert main(["rollback"]) == FOUND
    assert said(capsys) == "dom0kit: no plan is applied: there is nothing to roll back\n"
    assert main(["recover"]) == FINE
    assert said(capsys) == "nothing was interrupted\n"


def test_a_killed_process(stage: Stage, write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    before = stage.state()
    whole = Death()
    stage.apply(plan(*LINE, title="a line"), whole)
    stage.roll_back()
    with pytest.raises(Killed):  # half-way through the record that the second operation is done
        stage.apply(plan(*LINE, title="a line"), Death(whole.events - 5))
    assert stage.state() != before
    assert main(["status"]) == FOUND
    assert said(capsys) == (
        "plan 1  interrupted  1 of 2 operations  library  a line\n"
        "dom0kit recover undoes what was interrupted, and forgets what is of an earlier boot\n"
    )
    assert main(["apply", write(plan(*LINE))]) == FOUND
    assert said(capsys) == (
        "dom0kit: not applied: an earlier plan was interrupted: run dom0kit recover first; everything is as it was\n"
    )
    assert main(["rollback"]) == FOUND
    assert said(capsys) == "dom0kit: the newest plan (a line) was interrupted: run dom0kit recover\n"
    assert main(["recover"]) == FINE
    assert said(capsys) == "undone: 2 operations of plan 1: a line\n"
    assert stage.state() == before


def test_another_boot(
    stage: Stage, write: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.apply(plan(*LINE, title="a line"))
    monkeypatch.setattr(plans, "boot_id", lambda: "another")
    assert main(["status"]) == FOUND
    assert said(capsys).startswith("plan 1  of an earlier boot  2 of 2 operations  library  a line\n")
    assert main(["apply", write(plan())]) == FOUND
    assert "dom0kit recover" in said(capsys)
    before = stage.state()
    assert main(["recover"]) == FINE
    assert said(capsys) == "forgotten, for it was of an earlier boot: a line\n"
    assert stage.state() == before, "nothing of another boot is undone"
    assert main(["status"]) == FINE


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        (
            plan(fingerprint="6" * 64),
            "the plan is for another machine (a model, fingerprint 666666666666; this one has 555555555555), or this "
            "one was changed: make the plan anew",
        ),
        (
            plan(backend=Backend.LOOPBACK),
            "the plan is for loopback, and this machine runs library: make the plan anew",
        ),
        (
            plan(facts=(p.ModeIs(intercept=True), p.DriverIs(function=PHYSICAL, driver=None))),
            "the plan relies on what is not so any more: the core is in intercept mode: it is in direct mode; "
            "0000:00:03.0 has no driver: it has driver e1000e",
        ),
        (
            plan(*LINE, p.BindDriver(function=OTHER, driver="pciback")),
            "operation 2 (bind 0000:00:05.0 to pciback): 0000:00:05.0 has driver vfio-pci: unbind it first",
        ),
        (
            plan(p.MapGsi(gsi=Gsi(5)), p.AssignGsi(domain=2, gsi=Gsi(6))),
            "operation 1 (give GSI 6 to domain 2): map_pirq(domid=0x2, type=0x1, index=0x6, pirq=0x7fffffff, bus=0x0, "
            "devfn=0x0, entry_nr=0x0, table_base=0x0): there is no such domain (NO_DOMAIN)",
        ),
    ],
)
def test_refusals(what: Plan, sentence: str, stage: Stage, write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    before = stage.state()
    path = write(what)
    for more in ([], ["--dry-run"]):
        assert main(["apply", path, *more]) == FOUND
        assert said(capsys) == f"dom0kit: not applied: {sentence}; everything is as it was\n"
        assert stage.state() == before
    assert main(["apply", path, "--format", "json"]) == FOUND
    assert json.loads(said(capsys)) == {"refusal": sentence, "residues": []}
    assert main(["status"]) == FINE
    assert said(capsys) == "no plan is applied\n"


def test_a_residue_is_named(stage: Stage, write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    residue = "what was said of the ECAM range at 0xe0000000 is not taken back"
    tell = p.PciMmcfgReserved(address=0xE0000000, segment=0, start_bus=0, end_bus=0x7F)
    assert main(["apply", write(plan(tell, title="a range"))]) == FINE
    assert said(capsys).endswith(f"stays then:\n  {residue}\n")
    assert main(["status"]) == FINE
    assert f"  stays when rolled back: {residue}\n" in said(capsys)
    assert main(["rollback"]) == FINE
    assert said(capsys) == f"undone: 1 operation of plan 1: a range\nstays: {residue}\n"
    assert main(["apply", write(plan(tell, p.CreateDomain(domain=9)))]) == FOUND
    assert said(capsys).endswith(f"; everything is as it was, but: {residue}\n")


def test_what_cannot_be_undone_asks_for_it(
    stage: Stage, write: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def xen(backend: Backend) -> World:
        return World(Backend.XEN, stage.machine.domain(0), FakeLinux(stage.linux_root))

    monkeypatch.setattr(plans, "open_world", xen)
    path = write(plan(p.WriteEntry(ioapic=0xFEC00000, pin=5, entry=0x1A035), backend=Backend.XEN))
    assert main(["apply", path]) == FOUND
    assert said(capsys) == (
        "dom0kit: not applied: what cannot be undone needs --irreversible: operation 0 (write "
        "000000000001a035 to pin 5 of the IOAPIC at 0xfec00000): Xen chooses vector, destination and mask of pin 5 by "
        "itself; everything is as it was\n"
    )
    assert main(["apply", path, "--irreversible"]) == FINE
    assert stage.machine.domain(0).apic_read(0xFEC00000, 0x1A) == 0x1A035


def test_stuck_on_the_way_back(stage: Stage, write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    what = plan(p.UnbindDriver(function=PHYSICAL, driver="e1000e"), p.MapGsi(gsi=Gsi(5), pirq=5), title="a driver")
    assert main(["apply", write(what)]) == FINE
    said(capsys)
    gone = stage.linux_root / "sys/bus/pci/drivers/e1000e"
    gone.rename(gone.with_name("kept"))
    assert main(["rollback"]) == UNUSABLE
    assert said(capsys) == (
        "dom0kit: operation 0 (unbind 0000:00:03.0 from e1000e) could not be undone: there is no driver e1000e: load "
        "its module (modprobe e1000e); put that right, and run dom0kit recover\n"
    )
    assert main(["status"]) == FOUND
    assert said(capsys).startswith("plan 1  interrupted  1 of 2 operations")
    gone.with_name("kept").rename(gone)
    assert main(["recover"]) == FINE
    assert said(capsys) == "undone: 1 operation of plan 1: a driver\n"


def test_json(stage: Stage, write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(plan(*LINE, title="a line"))
    assert main(["apply", path, "--dry-run", "--format", "json"]) == FINE
    rehearsed = json.loads(said(capsys))
    assert rehearsed["outcome"] == {"number": None, "title": "a line", "done": 2, "skipped": 0, "residues": []}
    assert [step["calls"] for step in rehearsed["steps"]][1] == ["setup_gsi(gsi=0x5, triggering=0x1, polarity=0x1)"]
    assert main(["apply", path, "--format", "json"]) == FINE
    assert json.loads(said(capsys)) == {"number": 1, "title": "a line", "done": 2, "skipped": 0, "residues": []}
    assert main(["status", "--format", "json"]) == FINE
    (state,) = json.loads(said(capsys))
    assert (state["number"], state["state"], state["done"], state["operations"]) == (1, "applied", 2, 2)
    assert main(["recover", "--format", "json"]) == FINE
    assert json.loads(said(capsys)) == {"returned": None, "forgotten": []}
    assert main(["rollback", "--format", "json"]) == FINE
    assert json.loads(said(capsys)) == {"number": 1, "title": "a line", "done": 2, "skipped": 0, "residues": []}


def test_dry_run(stage: Stage, write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    digest = stage.machine.digest()
    path = write(plan(*LINE, p.UnmapPirq(pirq=40), title="a line"))
    assert main(["apply", path, "--dry-run"]) == FINE
    assert said(capsys) == (
        "a line: would be done now: 2 operations, 1 had nothing to do; nothing was done\n"
        "\noperations\n"
        "  map GSI 5 to pIRQ 5; INTA of 0000:00:03.0\n"
        "    map_pirq(domid=0x7ff0, type=0x1, index=0x5, pirq=0x5, bus=0x0, devfn=0x0, entry_nr=0x0, table_base=0x0)\n"
        "  set up GSI 5: level triggered, active low\n"
        "    setup_gsi(gsi=0x5, triggering=0x1, polarity=0x1)\n"
        "  unmap pIRQ 40: nothing to do (partial way back: in intercept mode pIRQ 40 may have another vector than "
        "before)\n"
    )
    assert stage.machine.digest() == digest
    assert not os.path.exists(stage.run)


@needs_interpreter
def test_rehearsed_on_a_recording(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    machine = fingerprint(open_source(Q35))
    path = write(plan(*LINE, fingerprint=machine, backend=Backend.HV_CORE, facts=(p.ModeIs(intercept=True),)))
    assert main(["apply", path, "--dry-run", "--from", Q35]) == FINE
    assert "    setup_gsi(gsi=0x5, triggering=0x1, polarity=0x1)\n" in said(capsys)
    path = write(plan(*LINE, fingerprint=machine, backend=Backend.XEN))
    assert main(["apply", path, "--dry-run", "--from", Q35]) == UNUSABLE
    assert "of which there is no model" in said(capsys)
    path = write(plan(*LINE, backend=Backend.HV_CORE))
    assert main(["apply", path, "--dry-run", "--from", str(RECORDINGS / "qemu-i440fx.d0k")]) == FOUND
    assert "the plan is for another machine" in said(capsys)


@needs_interpreter
def test_a_plan_of_the_planner_can_be_rehearsed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for mode in ("direct", "intercept"):
        path = str(tmp_path / f"{mode}.json")
        assert main(["irq", "plan", "--from", Q35, "--backend", "loopback", "--mode", mode, "-o", path]) == FINE
        capsys.readouterr()
        assert main(["apply", path, "--dry-run", "--from", Q35]) == FINE
        assert "nothing was done" in said(capsys)


def test_no_plan(tmp_path: Path, write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["apply"]) == USAGE
    assert main(["apply", "x", "--from", Q35]) == USAGE
    assert "it goes with --dry-run" in capsys.readouterr().err
    assert main(["apply", str(tmp_path / "none")]) == UNUSABLE
    assert said(capsys) == f"dom0kit: {tmp_path}/none cannot be read: No such file or directory\n"
    path = tmp_path / "x.json"
    for text, why in (
        (b"{", "Input data was truncated"),
        (b"{}", "Object missing required field `title`"),
        (encode(plan(*LINE)).replace(b'"gsi":5', b'"gsi":-5'), "Expected `int` >= 0 - at `$.operations[0].gsi`"),
        (
            encode(plan(*LINE)).replace(b"map-gsi", b"unmap-all"),
            "Invalid value 'unmap-all' - at `$.operations[0].operation`",
        ),
    ):
        path.write_bytes(text)
        assert main(["apply", str(path)]) == UNUSABLE
        assert said(capsys) == f"dom0kit: {path} is no plan: {why} (dom0kit irq plan makes one)\n"
    assert main(["apply", write(plan(*LINE))]) == UNUSABLE
    assert "rehearse it with dom0kit apply PLAN --dry-run --from REC" in said(capsys)


def test_two_at_once(stage: Stage, write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(plan(*LINE))
    with Journals(stage.run):
        for arguments in (["apply", path], ["rollback"], ["recover"], ["status"]):
            assert main(arguments) == UNUSABLE
            assert said(capsys) == (
                "dom0kit: another process applies a plan or takes one back now: try again when it is done\n"
            )


def test_plans_are_compared(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    setup: AnyOperation = p.SetupGsi(gsi=Gsi(5), trigger=Trigger.EDGE, polarity=Polarity.LOW)
    old, new = (
        write(plan(*LINE, facts=(p.GsiUnused(gsi=Gsi(5)),)), "old.json"),
        write(plan(LINE[0], setup, LINE[1], title="other"), "new.json"),
    )
    assert main(["diff", old, old]) == FINE
    assert said(capsys) == f"before  {old}\nafter   {old}\nno difference\n"
    assert main(["diff", old, new]) == FOUND
    assert said(capsys) == (
        f"before  {old}\nafter   {new}\n3 differences\n"
        "\nplan\n  ~  title  a test's plan -> other\n"
        "\nfacts\n  - no driver uses GSI 5\n"
        "\noperations\n  + set up GSI 5: edge triggered, active low\n"
    )
    assert main(["diff", old, new, "--format", "json"]) == FOUND
    assert [change["kind"] for change in json.loads(said(capsys))["changes"]] == ["changed", "removed", "added"]
    assert main(["diff", old, Q35]) == USAGE
    assert said(capsys).startswith(f"dom0kit: diff: {old} is a plan, and {Q35} is none")


def test_an_interrupt_takes_all_back(stage: Stage, write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    before = stage.state()

    class Interrupting(FakeLinux):
        asked = False

        def set_override(self, function: Sbdf, driver: str | None) -> None:
            if not self.asked:
                self.asked = True
                raise KeyboardInterrupt
            super().set_override(function, driver)

    linux = Interrupting(stage.linux_root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plans, "open_world", lambda backend: World(backend, stage.machine.domain(0), linux))
        assert main(["apply", write(plan(*LINE, p.SetDriverOverride(function=PHYSICAL, driver="vfio-pci")))]) == FOUND
    assert said(capsys) == (
        "dom0kit: not applied: operation 2 (let only vfio-pci bind 0000:00:03.0): interrupted; everything is as it "
        "was\n"
    )
    assert stage.state() == before
