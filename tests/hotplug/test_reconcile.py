# SPDX-License-Identifier: MIT
"""Functions come and go; kernel, ledger and core agree afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from dom0kit.address import Sbdf
from dom0kit.hotplug.plans import owner_of
from dom0kit.hotplug.policy import Action
from dom0kit.hotplug.reconcile import ChangeKind
from dom0kit.hypercall.linux import LinuxRefused
from tests.hotplug.machines import AMD, I440FX, Q35
from tests.hotplug.rig import GIVE_ALL, Rig

NIC = "0000:04:00.0"
PF, VFS = "0000:01:00.0", [f"0000:01:00.{number}" for number in range(1, 5)]
SWITCH = ["0000:02:00.0", "0000:03:00.0", "0000:03:01.0", NIC]
AMD_NIC = "0000:81:00.0"


@pytest.mark.parametrize("name", [Q35, I440FX, AMD])
def test_from_the_beginning(name: str, tmp_path: Path) -> None:
    rig = Rig(name, tmp_path, aml=False)
    assert rig.start() == ()
    assert rig.rules() == []
    rig.agreed()
    assert rig.step() == ()
    assert {entry.action for entry in rig.reconciler.entries.values()} == {Action.KEEP}


def test_a_function_comes_into_quarantine_and_goes(tmp_path: Path) -> None:
    rig = Rig(Q35, tmp_path, aml=False)
    rig.start()
    changes = rig.step(*rig.pull(NIC))
    assert [(change.kind, str(change.function)) for change in changes] == [(ChangeKind.DEPARTED, NIC)]
    rig.agreed()
    before = rig.core.digest()
    changes = rig.step(*rig.plug(NIC))
    assert [change.kind for change in changes] == [ChangeKind.ARRIVED]
    assert changes[0].path == "0000:00/06.0/00.0/00.0/00.0"
    assert changes[0].what == "0000:04:00.0 8086:10d3 has appeared, in quarantine (no rule fits: the default)"
    assert changes[0].group == (Sbdf.parse("0000:03:00.0"), Sbdf.parse(NIC))
    rig.agreed()
    rig.step(*rig.pull(NIC))
    rig.agreed()
    assert rig.core.digest() == before


def test_a_function_goes_to_a_domain_and_everything_comes_back(tmp_path: Path) -> None:
    rig = Rig(AMD, tmp_path, GIVE_ALL, domains=[1])
    rig.start()
    rig.step(*rig.pull(AMD_NIC))
    before = rig.state()
    arrived, given = rig.step(*rig.plug(AMD_NIC))
    assert (arrived.kind, given.kind, given.domain) == (ChangeKind.ARRIVED, ChangeKind.GIVEN, 1)
    assert given.gsis == (56,)
    assert len(given.pirqs) == 2
    assert given.vectors == 1
    assert {each.gsi for each in rig.dom0.interrupts(1)} == {None, 56}
    rig.agreed()
    gone, freed = rig.step(*rig.pull(AMD_NIC))
    assert (gone.kind, gone.domain, freed.kind, freed.gsis) == (ChangeKind.DEPARTED, 1, ChangeKind.GSI_FREED, (56,))
    assert gone.what.endswith("is gone; domain 1 has lost it")
    assert list(rig.dom0.interrupts(1)) == []
    assert rig.state() == before


def test_a_domain_that_is_not_there_yet(tmp_path: Path) -> None:
    rig = Rig(AMD, tmp_path, GIVE_ALL)
    rig.start()
    rig.step(*rig.pull(AMD_NIC))
    rig.step(*rig.plug(AMD_NIC))
    assert rig.rules() == ["hotplug.no-domain"]
    rig.agreed()
    rig.dom0.domain_create(1)
    (given,) = rig.step()
    assert given.kind is ChangeKind.GIVEN
    assert rig.rules() == []


def test_a_kept_function_gets_its_driver(tmp_path: Path) -> None:
    rig = Rig(Q35, tmp_path, 'default = "keep"\n[[rule]]\nid = "1b36:*"\naction = "quarantine"', aml=False)
    rig.start()
    rig.step(*rig.pull("0000:c1:00.0"))
    (arrived,) = rig.step(*rig.plug("0000:c1:00.0"))
    assert arrived.what.endswith("has appeared, for dom0 (no rule fits: the default)")
    rig.kernel.settle()
    assert rig.step(Sbdf.parse("0000:c1:00.0")) == ()
    assert rig.kernel.shown(Sbdf.parse("0000:c1:00.0")).attributes["driver"] == "virtio-pci"


def test_a_driver_that_was_quicker_is_unbound(tmp_path: Path) -> None:
    rig = Rig(Q35, tmp_path, aml=False)
    rig.start()
    rig.step(*rig.pull(PF, *VFS))
    plugged = rig.plug(PF)
    rig.kernel.settle()
    assert [change.kind for change in rig.step(*plugged)] == [ChangeKind.ARRIVED, ChangeKind.EVICTED]
    assert rig.rules() == ["hotplug.bound-first"]
    rig.agreed()


def test_a_driver_that_comes_between_look_and_override_is_unbound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(Q35, tmp_path, aml=False)
    rig.start()
    rig.step(*rig.pull(PF, *VFS))
    override = rig.kernel.linux.set_override

    def late(function: Sbdf, driver: str | None) -> None:
        rig.kernel.settle()
        override(function, driver)

    monkeypatch.setattr(rig.kernel.linux, "set_override", late)
    changes = rig.step(*rig.plug(PF))
    assert [change.kind for change in changes] == [ChangeKind.ARRIVED, ChangeKind.EVICTED]
    assert rig.rules() == ["hotplug.bound-first"]
    rig.agreed()


def test_a_refused_function_is_not_even_told(tmp_path: Path) -> None:
    rig = Rig(Q35, tmp_path, 'default = "refuse"', aml=False)
    rig.start()
    rig.step(*rig.pull(NIC))
    functions = rig.dom0.information().functions
    rig.step(*rig.plug(NIC))
    assert rig.dom0.information().functions == functions
    assert owner_of(rig.dom0, Sbdf.parse(NIC), None) is None
    rig.agreed()


def test_a_switch_with_what_is_behind_it(tmp_path: Path) -> None:
    rig = Rig(Q35, tmp_path, aml=False)
    rig.start()
    rig.step(*rig.pull(*reversed(SWITCH)))
    rig.agreed()
    changes = rig.step(*rig.plug(*SWITCH))
    assert [rig.entry(each).action for each in SWITCH] == [Action.KEEP] * 3 + [Action.QUARANTINE]
    assert changes[3].path == "0000:00/06.0/00.0/00.0/00.0"
    rig.agreed()


def test_virtual_functions_come_after_and_go_before_their_physical_one(tmp_path: Path) -> None:
    rig = Rig(Q35, tmp_path, aml=False)
    rig.start()
    rig.step(*rig.pull(*VFS))
    rig.step(*rig.plug(*VFS))
    assert [str(rig.entry(each).physical) for each in VFS] == [PF] * 4
    rig.agreed()
    rig.step(*rig.pull(PF, *VFS))
    assert rig.rules() == []
    rig.agreed()
    rig.step(*rig.plug(*VFS, PF))
    assert rig.rules() == []
    rig.agreed()


def test_another_card_in_the_same_slot_between_two_looks(tmp_path: Path) -> None:
    rig = Rig(AMD, tmp_path, GIVE_ALL, domains=[1])
    rig.start()
    rig.pull(AMD_NIC)
    rig.plug(AMD_NIC)
    rig.step()
    first = rig.entry(AMD_NIC)
    assert (first.action, first.placed) == (Action.GIVE, True)
    rig.pull(AMD_NIC)
    rig.plug(AMD_NIC)
    kinds = [change.kind for change in rig.step()]
    assert kinds == [ChangeKind.DEPARTED, ChangeKind.ARRIVED, ChangeKind.GIVEN]
    assert rig.entry(AMD_NIC).incarnation > first.incarnation
    rig.agreed()


def test_a_pulled_card_is_told_from_one_that_was_taken_out(tmp_path: Path) -> None:
    rig = Rig(Q35, tmp_path, "[limits]\ngrace = 3", aml=False)
    rig.start()
    rig.kernel.fall_silent(Sbdf.parse(NIC))
    assert rig.step(Sbdf.parse(NIC)) == ()
    rig.now = 2.9
    assert rig.step() == ()
    rig.now = 3
    (pulled,) = rig.step()
    assert (pulled.kind, str(pulled.function)) == (ChangeKind.PULLED, NIC)
    assert rig.rules() == ["hotplug.surprise-removal"]
    rig.agreed()
    assert rig.step(*rig.pull(NIC)) == ()
    rig.agreed()


def test_a_pulled_card_whose_removal_the_kernel_tells_first(tmp_path: Path) -> None:
    rig = Rig(Q35, tmp_path, aml=False)
    rig.start()
    rig.kernel.fall_silent(Sbdf.parse(NIC))
    rig.step(Sbdf.parse(NIC))
    (pulled,) = rig.step(*rig.pull(NIC))
    assert pulled.kind is ChangeKind.PULLED
    assert rig.rules() == ["hotplug.surprise-removal"]


def test_a_reset_is_no_removal(tmp_path: Path) -> None:
    rig = Rig(Q35, tmp_path, aml=False)
    rig.start()
    rig.kernel.fall_silent(Sbdf.parse(NIC))
    rig.step(Sbdf.parse(NIC))
    rig.now = 1
    rig.kernel.fall_silent(Sbdf.parse(NIC), silent=False)
    rig.step(Sbdf.parse(NIC))
    rig.now = 60
    assert rig.step() == ()
    rig.agreed()


def test_a_card_that_answers_again_is_a_new_one(tmp_path: Path) -> None:
    rig = Rig(Q35, tmp_path, "[limits]\ngrace = 0", aml=False)
    rig.start()
    rig.kernel.fall_silent(Sbdf.parse(NIC))
    (pulled,) = rig.step(Sbdf.parse(NIC))
    assert pulled.kind is ChangeKind.PULLED
    rig.kernel.fall_silent(Sbdf.parse(NIC), silent=False)
    (arrived,) = rig.step()
    assert (arrived.kind, arrived.action) == (ChangeKind.ARRIVED, Action.QUARANTINE)
    rig.agreed()


def test_a_link_that_flaps_is_refused_until_it_is_quiet(tmp_path: Path) -> None:
    rig = Rig(Q35, tmp_path, "[limits]\narrivals = 2\nseconds = 10", aml=False)
    rig.start()
    for now in range(4):
        rig.now = now
        rig.step(*rig.pull(NIC))
        rig.step(*rig.plug(NIC))
    assert rig.entry(NIC).action is Action.REFUSE
    rig.agreed()
    rig.now = 14
    rig.step()
    assert rig.entry(NIC).action is Action.QUARANTINE
    rig.agreed()


def test_no_more_functions_than_the_policy_allows(tmp_path: Path) -> None:
    rig = Rig(Q35, tmp_path, "[limits]\nfunctions = 2", aml=False)
    rig.start()
    rig.step(*rig.pull(*VFS))
    rig.step(*rig.plug(*VFS))
    assert [rig.entry(each).action for each in VFS] == [Action.QUARANTINE] * 2 + [Action.REFUSE] * 2
    assert rig.rules() == ["hotplug.too-many"] * 2
    rig.agreed()


def test_a_group_is_not_divided(tmp_path: Path) -> None:
    rig = Rig(I440FX, tmp_path, '[[rule]]\npath = "*/03.0"\naction = "give"\ndomain = 1\n', domains=[1])
    rig.start()
    rig.step(*rig.pull("0000:01:03.0"))
    rig.step(*rig.plug("0000:01:03.0"))
    assert rig.rules() == ["hotplug.group-divided"]
    assert rig.reconciler.findings[0].message == "it is for domain 1, but 0000:02:01.0 is domain 0's"
    rig.agreed()


def test_a_pin_stays_behind_where_others_share_its_gsi(tmp_path: Path) -> None:
    rig = Rig(Q35, tmp_path, GIVE_ALL, domains=[1])
    rig.start()
    rig.step(*rig.pull(NIC))
    _, given = rig.step(*rig.plug(NIC))
    assert given.kind is ChangeKind.GIVEN
    assert given.gsis == ()
    assert given.vectors == 2
    assert rig.rules() == ["hotplug.gsi-shared"]
    rig.agreed()


def test_without_a_pin_and_messages_a_function_stays(tmp_path: Path) -> None:
    rig = Rig(Q35, tmp_path, GIVE_ALL, domains=[1])
    rig.start()
    rig.step(*rig.pull("0000:07:03.0"))
    rig.step(*rig.plug("0000:07:03.0"))
    assert rig.rules() == ["hotplug.no-interrupt"]
    rig.agreed()


def test_events_that_were_lost(tmp_path: Path) -> None:
    rig = Rig(Q35, tmp_path, aml=False)
    rig.start()
    rig.pull(NIC)
    changes = rig.step(lost=True)
    assert [change.kind for change in changes] == [ChangeKind.ENUMERATED, ChangeKind.DEPARTED]
    assert rig.rules() == ["hotplug.events-lost"]
    rig.agreed()


def test_events_of_functions_that_there_are_not(tmp_path: Path) -> None:
    rig = Rig(Q35, tmp_path, aml=False)
    rig.start()
    assert rig.step(Sbdf.parse("00ff:12:1f.7"), Sbdf.parse("12345:00:00.0")) == ()
    assert rig.step(subsystem="acpi") == ()
    assert rig.rules() == []


@pytest.mark.parametrize("text", [NIC, VFS[0]])
def test_a_function_that_answers_with_ones_from_the_beginning_is_not_told(text: str, tmp_path: Path) -> None:
    rig = Rig(Q35, tmp_path, aml=False)
    rig.start()
    rig.step(*rig.pull(text))
    (sbdf,) = rig.plug(text)
    rig.kernel.fall_silent(sbdf)
    assert rig.step(sbdf) == ()
    rig.agreed()


def test_another_function_than_was_decided_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was changed between the look and the plan."""
    rig = Rig(Q35, tmp_path, aml=False)
    rig.start()
    rig.step(*rig.pull(NIC))
    monkeypatch.setattr(rig.kernel.linux, "identity", lambda function: (0x8086, 0x1234))
    rig.step(*rig.plug(NIC))
    assert rig.rules()[0] == "hotplug.not-done"
    assert "it is 8086:1234" in rig.reconciler.findings[0].message
    assert owner_of(rig.dom0, Sbdf.parse(NIC), None) is None
    monkeypatch.undo()
    rig.step()
    assert rig.rules() == []
    rig.agreed()


def test_what_changed_while_nobody_watched(tmp_path: Path) -> None:
    rig = Rig(Q35, tmp_path, aml=False)
    rig.start()
    rig.step(*rig.pull(NIC))
    rig.plug(NIC)
    rig.pull(*VFS)
    rig.reconciler = rig.made()
    kinds = sorted(change.kind.value for change in rig.start())
    assert kinds == ["arrived", *["departed"] * 4]
    rig.agreed()


def test_a_ledger_that_is_damaged_is_told_and_written_anew(tmp_path: Path) -> None:
    rig = Rig(Q35, tmp_path, aml=False)
    rig.start()
    (tmp_path / "hotplug.json").write_text("{")
    rig.reconciler = rig.made()
    rig.start()
    assert rig.rules() == ["hotplug.ledger"]
    rig.agreed()
    rig.reconciler = rig.made()
    rig.start()
    assert rig.rules() == []


def test_a_hypervisor_that_knows_the_function_otherwise(tmp_path: Path) -> None:
    rig = Rig(Q35, tmp_path, aml=False)
    rig.start()
    rig.step(*rig.pull(NIC))
    rig.dom0.pci_device_add(Sbdf.parse(NIC), physical=Sbdf.parse(PF))
    rig.step(*rig.plug(NIC))
    assert rig.rules() == ["hotplug.not-done"]
    rig.dom0.pci_device_remove(Sbdf.parse(NIC))
    rig.step()
    assert rig.rules() == []
    rig.agreed()


def test_messages_of_dom0_go_with_their_function(tmp_path: Path) -> None:
    """Mapped by whomever: an interrupt plan, or dom0's kernel."""
    rig = Rig(Q35, tmp_path, aml=False)
    rig.start()
    states = {str(state.sbdf): state for state in rig.reconciler.platform.msi}
    msix = states[PF].msix
    assert msix is not None
    assert msix.table_address
    for entry in range(3):
        rig.dom0.map_msix(Sbdf.parse(PF), entry, msix.table_address)
    rig.dom0.map_msi(Sbdf.parse(NIC), 4)
    rig.reconciler = rig.made()
    rig.start()
    changes = {str(change.function): change for change in rig.step(*rig.pull(PF, *VFS, NIC))}
    assert (len(changes[PF].pirqs), len(changes[NIC].pirqs)) == (3, 4)
    assert rig.rules() == []
    rig.agreed()


def test_a_plan_that_cannot_be_undone_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(Q35, tmp_path, aml=False)
    rig.start()
    rig.step(*rig.pull(NIC))
    add, override = rig.dom0.pci_device_add, rig.kernel.linux.set_override

    def broken(function: Sbdf, driver: str | None) -> None:
        if driver is None:
            raise LinuxRefused("no")
        override(function, driver)

    monkeypatch.setattr(rig.kernel.linux, "set_override", broken)
    add(Sbdf.parse(NIC), physical=Sbdf.parse(PF))
    rig.step(*rig.plug(NIC))
    assert set(rig.rules()) == {"hotplug.not-done"}
    assert "On the way back" in rig.reconciler.findings[0].message
    rig.dom0.pci_device_remove(Sbdf.parse(NIC))
    rig.step()
    assert set(rig.rules()) == {"hotplug.not-done"}
    monkeypatch.undo()
    rig.step()
    assert rig.rules() == []
    rig.agreed()


@pytest.mark.parametrize("first", [False, True])
def test_a_function_that_goes_while_it_is_told(first: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(Q35, tmp_path, aml=False)
    rig.start()
    rig.step(*rig.pull(NIC))
    empty = rig.state()
    override = rig.kernel.linux.set_override

    def going(function: Sbdf, driver: str | None) -> None:
        if first:
            rig.kernel.vanish(function)
        override(function, driver)
        rig.kernel.vanish(function)

    monkeypatch.setattr(rig.kernel.linux, "set_override", going)
    rig.step(*rig.plug(NIC))
    monkeypatch.undo()
    rig.step()
    assert rig.rules() == []
    rig.agreed()
    assert rig.state() == empty


def test_a_driver_that_does_not_let_go_keeps_its_function_from_the_domain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(Q35, tmp_path, GIVE_ALL, domains=[1], aml=False)
    rig.start()
    rig.step(*rig.pull("0000:c1:00.0"))
    monkeypatch.setattr(rig.kernel.linux, "unbind", lambda function, driver: None)
    plugged = rig.plug("0000:c1:00.0")
    rig.kernel.settle()
    rig.step(*plugged)
    messages = " ".join(finding.message for finding in rig.reconciler.findings)
    assert "driver virtio-pci does not let go of 0000:c1:00.0" in messages
    assert "it has driver virtio-pci" in messages
    assert owner_of(rig.dom0, plugged[0], 1) == 0
    monkeypatch.undo()
    assert ChangeKind.GIVEN in [change.kind for change in rig.step()]
    rig.agreed()
