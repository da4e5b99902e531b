# SPDX-License-Identifier: MIT
"""IOAPICs come and go, with their host bridge and without it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dom0kit.abi import Status
from dom0kit.acpi.aml_values import Integer, NotEvaluated, Value
from dom0kit.address import Gsi
from dom0kit.hotplug.reconcile import ChangeKind
from dom0kit.hypercall.interface import HypercallRefused
from dom0kit.observation import observe
from dom0kit.plan import Backend
from dom0kit.simulation import booted
from tests.acpi.asl import needs_acpica
from tests.hotplug.ioapics import APIC, CARD, FIRST, PINS, SECOND, SPARE, controller, kernel
from tests.hotplug.rig import GIVE_ALL, Rig
from tests.hv_core.machines import ioapic
from tests.hypercall.apply_machine import Death

pytestmark = needs_acpica


def rig(folder: Path, policy: str = GIVE_ALL, *, death: Death | None = None) -> Rig:
    """Started, with the bridge unplugged."""
    of = kernel()
    core = booted(observe(of, aml=False), of.tables())
    core.plug_ioapic(SPARE)
    made = Rig("", folder, policy, kernel=of, core=core, domains=[1], death=death)
    made.start()
    assert made.rules() == []
    return made


def bases(rig: Rig) -> dict[int, int]:
    return {each.address: each.gsi_base for each in rig.dom0.shared_info().ioapics}


def test_a_host_bridge_with_its_ioapic_and_a_card(tmp_path: Path) -> None:
    made = rig(tmp_path)
    before, counter = made.state(), made.core.changes()
    controller(made.kernel, bridge=True, present=True)
    made.kernel.appear(made.kernel.recorded[CARD])
    arrived, added, given = made.step(subsystem="acpi")
    assert (arrived.kind, given.kind, given.gsis) == (ChangeKind.ARRIVED, ChangeKind.GIVEN, (PINS + 4,))
    assert added.kind is ChangeKind.IOAPIC_ADDED
    assert added.what == f"an IOAPIC has appeared at {SECOND:#x}, 24 pins from GSI 24 on ({APIC})"
    assert bases(made) == {FIRST: 0, SECOND: PINS}
    assert made.core.changes() == counter + 1
    made.agreed()
    controller(made.kernel, bridge=False, present=False)
    made.kernel.vanish(CARD)
    kinds = [change.kind for change in made.step(subsystem="acpi")]
    assert kinds == [ChangeKind.DEPARTED, ChangeKind.GSI_FREED, ChangeKind.IOAPIC_REMOVED]
    assert bases(made) == {FIRST: 0}
    assert made.core.changes() == counter + 2
    assert made.state() == before
    assert made.rules() == []


def test_an_ioapic_that_comes_back_with_another_base(tmp_path: Path) -> None:
    made = rig(tmp_path)
    for base in (24, 64, 200):
        controller(made.kernel, bridge=True, present=True, base=base)
        made.step(subsystem="acpi")
        assert bases(made) == {FIRST: 0, SECOND: base}
        controller(made.kernel, bridge=True, present=False, base=base)
        made.step(subsystem="acpi")
        assert bases(made) == {FIRST: 0}


def test_a_bridge_that_goes_takes_its_ioapic_with_it(tmp_path: Path) -> None:
    made = rig(tmp_path)
    controller(made.kernel, bridge=True, present=True)
    made.step(subsystem="acpi")
    controller(made.kernel, bridge=False, present=True)
    (removed,) = made.step(subsystem="acpi")
    assert removed.kind is ChangeKind.IOAPIC_REMOVED
    assert removed.gsis == tuple(range(24, 48))


def test_an_ioapic_of_the_madt_goes_and_comes_back_with_its_device(tmp_path: Path) -> None:
    of = kernel(ioapic(SECOND, PINS, 1))
    controller(of, bridge=True, present=True)
    made = Rig("", tmp_path, kernel=of, core=booted(observe(of, aml=False), of.tables()))
    made.start()
    for _ in range(2):
        assert bases(made) == {FIRST: 0, SECOND: PINS}
        controller(of, bridge=False, present=False)
        (removed,) = made.step(subsystem="acpi")
        assert removed.kind is ChangeKind.IOAPIC_REMOVED
        assert bases(made) == {FIRST: 0}
        controller(of, bridge=True, present=True)
        (added,) = made.step(subsystem="acpi")
        assert added.kind is ChangeKind.IOAPIC_ADDED
    assert made.rules() == []


def test_an_ioapic_in_use_stays_and_its_users_are_named(tmp_path: Path) -> None:
    made = rig(tmp_path)
    controller(made.kernel, bridge=True, present=True)
    made.kernel.appear(made.kernel.recorded[CARD])
    made.step(subsystem="acpi")
    pirq = made.dom0.map_gsi(Gsi(30))
    controller(made.kernel, bridge=True, present=False)
    made.step(subsystem="acpi")
    (finding,) = made.reconciler.findings
    assert finding.rule == "hotplug.ioapic-in-use"
    assert finding.message == (f"{APIC} is gone; GSI 30 is used by domain 0; GSI 28 is used by domain 1 for {CARD}")
    with pytest.raises(HypercallRefused) as refused:
        made.dom0.ioapic_remove(SECOND)
    assert refused.value.status is Status.BUSY
    made.dom0.unmap_pirq(pirq)
    made.kernel.vanish(CARD)
    made.step()
    assert bases(made) == {FIRST: 0}
    assert made.rules() == []


def test_gsis_of_another_ioapic(tmp_path: Path) -> None:
    made = rig(tmp_path)
    controller(made.kernel, bridge=True, present=True, base=20)
    made.step(subsystem="acpi")
    assert "hotplug.ioapic-overlap" in made.rules()
    assert bases(made) == {FIRST: 0}
    controller(made.kernel, bridge=True, present=True)
    made.step(subsystem="acpi")
    assert bases(made) == {FIRST: 0, SECOND: 24}


def test_a_contradictory_mat(tmp_path: Path) -> None:
    made = rig(tmp_path)
    controller(made.kernel, bridge=True, present=True, base=24, mat=48)
    made.step(subsystem="acpi")
    (finding,) = made.reconciler.findings
    assert (finding.rule, finding.where) == ("hotplug.ioapic-contradiction", f"aml:{APIC}")
    assert finding.message == "_GSB says 0x18, _MAT 0x30"
    assert bases(made) == {FIRST: 0, SECOND: 24}


def test_an_ioapic_that_does_not_answer(tmp_path: Path) -> None:
    of = kernel()
    core = booted(observe(of, aml=False), of.tables())
    made = Rig("", tmp_path, kernel=of, core=core)
    made.start()
    controller(made.kernel, bridge=True, present=True)
    made.step(subsystem="acpi")
    assert made.rules() == ["hotplug.not-done"]
    core.plug_ioapic(SPARE)
    made.step()
    assert made.rules() == []
    assert bases(made) == {FIRST: 0, SECOND: 24}


def test_xen_has_no_such_call(tmp_path: Path) -> None:
    of = kernel()
    core = booted(observe(of, aml=False), of.tables())
    core.plug_ioapic(SPARE)
    made = Rig("", tmp_path, kernel=of, core=core, backend=Backend.XEN)
    controller(made.kernel, bridge=True, present=True)
    made.start()
    assert made.rules() == ["hotplug.ioapic-no-call"]
    assert bases(made) == {FIRST: 0}


def test_what_only_the_kernels_interpreter_sees(tmp_path: Path) -> None:
    """_STA that follows from hardware nobody recorded."""
    present = False

    def evaluate(path: str) -> Value:
        if path in ("\\_SB.PCI1._STA", f"{APIC}._STA"):
            return Integer(0xF if present else 0)
        raise NotEvaluated("not asked for")

    of = kernel()
    controller(of, bridge=False, present=False)
    core = booted(observe(of, aml=False), of.tables())
    core.plug_ioapic(SPARE)
    made = Rig("", tmp_path, kernel=of, core=core, kernel_aml=evaluate)
    made.start()
    assert bases(made) == {FIRST: 0}
    present = True
    made.step(subsystem="acpi")
    assert bases(made) == {FIRST: 0, SECOND: 24}
    present = False
    made.step(subsystem="container")
    assert bases(made) == {FIRST: 0}


@pytest.mark.slow
@pytest.mark.parametrize("at", range(1, 60, 4))
def test_killed_while_a_bridge_comes(at: int, tmp_path: Path) -> None:
    death = Death()
    made = rig(tmp_path, death=death)
    controller(made.kernel, bridge=True, present=True)
    made.kernel.appear(made.kernel.recorded[CARD])
    death.left = at
    made.survive()
    death.left = None
    made.agreed()
    assert bases(made) == {FIRST: 0, SECOND: 24}
