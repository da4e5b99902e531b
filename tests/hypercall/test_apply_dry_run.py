# SPDX-License-Identifier: MIT
"""A rehearsal: it changes nothing, and says what applying then does."""

from __future__ import annotations

import pytest
from hypothesis import given

from dom0kit import plan as p
from dom0kit.abi import Mode
from dom0kit.address import Gsi, Polarity, Trigger
from dom0kit.hypercall.apply import NotApplied, Outcome, apply, rehearse
from dom0kit.hypercall.dry_run import DryLinux, DryRun, Noted, Rehearsal
from dom0kit.hypercall.journal import Journals
from dom0kit.hypercall.world import World
from dom0kit.plan import AnyOperation, Backend, Plan, ResultOf
from tests.hv_core.machines import FIRST
from tests.hypercall.apply_machine import BOOT, FINGERPRINT, OTHER, PHYSICAL, TABLE, FakeLinux, plan
from tests.hypercall.test_apply_laws import LAWS, Stage, acceptable, lists, modes, staged


def rehearsed(stage: Stage, what: Plan) -> tuple[Outcome, Rehearsal, list[str]]:
    calls: list[str] = []
    core = DryRun(stage.machine.domain(0), calls)
    world = World(Backend.LIBRARY, core, DryLinux(FakeLinux(stage.linux_root), calls))
    rehearsal = Rehearsal(what, calls)
    return rehearse(what, world, rehearsal, fingerprint=FINGERPRINT), rehearsal, calls


@LAWS
@given(modes, lists(8), lists(20, least=1))
def test_what_can_be_applied_can_be_rehearsed(
    mode: Mode, history: list[AnyOperation], wanted: list[AnyOperation]
) -> None:
    # How many pins an IOAPIC has is seen when it is added, and which pIRQs are free depends on that.
    known = [each for each in wanted if not isinstance(each, p.IoapicAdd | p.IoapicRemove)]
    first, what = acceptable(mode, history, known)
    with staged(mode) as stage:
        stage.apply(first, way_back=False)
        before, digest = stage.state(), stage.machine.digest()
        outcome, rehearsal, _ = rehearsed(stage, what)
        assert (stage.state(), stage.machine.digest()) == (before, digest)
        assert len(rehearsal.steps) == len(what.operations)
        applied = stage.apply(what)
        assert outcome.done + outcome.skipped == applied.done + applied.skipped


def test_the_calls_are_those_that_applying_makes() -> None:
    """Direct mode, where nothing is the core's choice."""
    what = plan(
        p.CreateDomain(domain=1),
        p.PciDeviceAdd(function=OTHER),
        p.AssignDevice(domain=1, function=OTHER),
        p.ReleaseDevice(domain=1, function=OTHER),
        p.MapGsi(gsi=Gsi(5), pirq=5),
        p.SetupGsi(gsi=Gsi(5), trigger=Trigger.LEVEL, polarity=Polarity.LOW),
        p.WriteEntry(ioapic=FIRST, pin=5, entry=0x0100_0000_0000_A035),
        p.MaskEntry(ioapic=FIRST, pin=5),
        p.AssignGsi(domain=1, gsi=Gsi(17)),
        p.ReleaseGsi(domain=1, gsi=Gsi(17)),
        p.MapMsix(function=OTHER, entry=1, table=TABLE, message=p.Message(0xFEE00000, 0x41)),
        p.UnmapPirq(pirq=24, table=TABLE),
        p.PciDeviceRemove(function=OTHER),
        p.DestroyDomain(domain=1),
    )
    with staged(Mode.DIRECT) as stage:
        _, rehearsal, said = rehearsed(stage, what)
        assert not any(step.skipped for step in rehearsal.steps)
        made: list[str] = []
        core = stage.machine.domain(0)
        core.listener = Noted(made)
        with Journals(stage.run) as journals:
            world = World(Backend.LIBRARY, core, FakeLinux(stage.linux_root))
            apply(what, world, journals, fingerprint=FINGERPRINT, boot=BOOT)
        assert said == made


def test_what_cannot_be_done_is_said() -> None:
    what = plan(p.PciDeviceAdd(function=PHYSICAL), p.BindDriver(function=PHYSICAL, driver="vfio-pci"))
    with staged(Mode.DIRECT) as stage, pytest.raises(NotApplied, match=r"operation 1 .*has driver e1000e: unbind it"):
        rehearsed(stage, what)
    what = plan(
        p.UnbindDriver(function=PHYSICAL, driver="e1000e"),
        p.SetDriverOverride(function=PHYSICAL, driver="pciback"),
        p.BindDriver(function=PHYSICAL, driver="vfio-pci"),
    )
    with (
        staged(Mode.DIRECT) as stage,
        pytest.raises(NotApplied, match=r"operation 2 .*only pciback may bind 0000:00:03"),
    ):
        rehearsed(stage, what)


def test_a_message_that_the_core_would_compose() -> None:
    what = plan(
        p.PciDeviceAdd(function=PHYSICAL),
        p.UnbindDriver(function=PHYSICAL, driver="e1000e"),
        p.MapMsix(function=PHYSICAL, entry=0, table=TABLE),
        p.SetAffinity(irq=ResultOf(2), cpu=1),
        p.WriteMsixEntry(function=PHYSICAL, bar=0, offset=0, entry=0, pirq=ResultOf(2)),
    )
    with staged(Mode.INTERCEPT) as stage:
        _, rehearsal, _ = rehearsed(stage, what)
        assert rehearsal.steps[3].calls == ("set_affinity(domain=0x7ff0, irq=0x18, cpu=0x1)",)
        assert rehearsal.steps[4].calls[-1] == "BAR 0 of 0000:00:03.0: the word at 0xc becomes 0x0f0e0d0c"
