# SPDX-License-Identifier: MIT
"""Invariant 5: applied and rolled back is as before; killed anywhere, and killed again on the way back, it recovers.

Random plans over a small machine, in both modes, from random states. Killed means: before or after any hypercall, write
to a function or to Linux's files, write, sync, rename or removal of the journal, and half-way through a write. What is
compared is all that domain 0 can read of the core (`apply_machine.state`) and every file of Linux.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from dom0kit import plan as p
from dom0kit.abi import InterruptFlag, Mode
from dom0kit.address import Gsi, Polarity, Sbdf, Trigger
from dom0kit.hypercall.apply import APPLIED, NotApplied, NotUndone, Outcome, apply, recover, roll_back, status
from dom0kit.hypercall.core_library import ModelMachine
from dom0kit.hypercall.interface import HypercallRefused
from dom0kit.hypercall.journal import Journals
from dom0kit.hypercall.world import World
from dom0kit.plan import AnyOperation, Backend, Message, Plan, Reach, ResultOf
from tests.hv_core.machines import FIRST, SECOND, SPARE
from tests.hypercall.apply_machine import (
    BOOT,
    ECAM,
    FINGERPRINT,
    OTHER,
    PHYSICAL,
    PINS,
    TABLE,
    VIRTUAL,
    Death,
    FakeLinux,
    Killed,
    MortalCore,
    MortalDisk,
    files,
    model,
    plan,
    state,
)

LONG = 20 if "DOM0KIT_LONG" in os.environ else 1
GSIS = (0, 3, 5, 16, 17, 23, 32, 33)
DRIVERS = ("e1000e", "vfio-pci", "pciback")

gsis = st.sampled_from([Gsi(gsi) for gsi in GSIS])
functions = st.sampled_from([PHYSICAL, VIRTUAL, OTHER])
domains = st.sampled_from([1, 1, 1, 2])
owners = st.sampled_from([None, None, None, 1])
some_pirqs = st.sampled_from([3, 5, 16, 17, 24, 25, 26, 40])
pirqs = st.none() | some_pirqs
messages = st.builds(
    Message,
    st.sampled_from([0xFEE00000, 0xFEE01000, 0xFEE03004]),
    st.integers(0x30, 0x4F) | st.sampled_from([0x141, 0x8031, 5]),
)
entries = st.builds(
    lambda vector, masked, level, low, apic_id, odd: (
        vector | masked << 16 | level << 15 | low << 13 | apic_id << 56 | odd
    ),
    st.integers(0x30, 0x3F),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0, 1]),
    st.sampled_from([0] * 9 + [1 << 11, 7 << 8, 1 << 40]),
)
places = st.sampled_from([FIRST, SECOND, SPARE])


def _device(function: Sbdf) -> dict[str, object]:
    return {"function": function, "physical": PHYSICAL if function == VIRTUAL else None}


_messages = st.one_of(
    st.builds(
        p.MapMsi,
        function=functions,
        count=st.sampled_from([1, 2, 4]),
        pirq=pirqs,
        domain=owners,
        message=st.none() | messages,
    ),
    st.builds(
        p.MapMsix,
        function=functions,
        entry=st.integers(0, 3),
        table=st.just(TABLE),
        pirq=pirqs,
        domain=owners,
        message=st.none() | messages,
    ),
    st.builds(
        p.UnmapPirq,
        pirq=some_pirqs,
        count=st.sampled_from([1, 1, 2]),
        domain=owners,
        table=st.sampled_from([0, TABLE, TABLE]),
    ),
    st.builds(p.SetAffinity, irq=some_pirqs, cpu=st.integers(0, 1), domain=owners),
    st.builds(p.WriteMessage, pirq=some_pirqs, message=messages, domain=owners),
    st.builds(p.AssignDevice, domain=domains, function=functions),
    st.builds(p.ReleaseDevice, domain=domains, function=functions),
)
_others: st.SearchStrategy[AnyOperation] = st.one_of(
    st.builds(p.MapGsi, gsi=gsis, pirq=pirqs, domain=owners),
    st.builds(p.SetupGsi, gsi=gsis, trigger=st.sampled_from(Trigger), polarity=st.sampled_from(Polarity)),
    st.builds(p.AllocIrqVector, gsi=gsis),
    st.builds(p.WriteEntry, ioapic=places, pin=st.integers(0, PINS - 1), entry=entries),
    st.builds(p.MaskEntry, ioapic=places, pin=st.integers(0, PINS - 1), masked=st.booleans()),
    st.builds(
        p.PciMmcfgReserved,
        address=st.just(ECAM),
        segment=st.just(0),
        start_bus=st.just(0),
        end_bus=st.just(0x7F),
        reserved=st.booleans(),
        was=st.none() | st.booleans(),
    ),
    st.builds(lambda function: p.PciDeviceAdd(**_device(function)), functions),  # type: ignore[arg-type]
    st.builds(lambda function: p.PciDeviceRemove(**_device(function)), functions),  # type: ignore[arg-type]
    st.builds(p.IoapicAdd, address=st.just(SPARE), gsi_base=st.sampled_from([Gsi(32), Gsi(40)])),
    st.builds(p.IoapicRemove, address=st.sampled_from([SECOND, SPARE]), gsi_base=st.sampled_from([Gsi(16), Gsi(32)])),
    st.builds(p.CreateDomain, domain=domains, vectors=st.sampled_from([0, 2])),
    st.builds(p.DestroyDomain, domain=domains),
    st.builds(p.AssignGsi, domain=domains, gsi=gsis),
    st.builds(p.ReleaseGsi, domain=domains, gsi=gsis),
    st.builds(
        p.WriteConfig, function=functions, offset=st.just(4), width=st.just(2), value=st.just(4), mask=st.just(4)
    ),
    st.builds(
        p.WriteMsixEntry,
        function=functions,
        bar=st.just(0),
        offset=st.just(0x800),
        entry=st.integers(0, 3),
        message=messages,
        masked=st.booleans(),
    ),
    st.builds(
        p.WriteMsi,
        function=functions,
        capability=st.just(0x50),
        wide=st.just(True),
        message=messages,
        count=st.sampled_from([1, 8]),
        enabled=st.booleans(),
    ),
    st.builds(p.SetDriverOverride, function=functions, driver=st.none() | st.sampled_from(DRIVERS)),
    st.builds(p.BindDriver, function=functions, driver=st.sampled_from(DRIVERS)),
    st.builds(p.UnbindDriver, function=functions, driver=st.sampled_from(DRIVERS)),
    st.builds(p.SetLinuxAffinity, irq=st.just(30), cpus=st.sampled_from(["0", "1", "0-1"])),
)
operations: st.SearchStrategy[AnyOperation] = st.one_of(_messages, _others)
"""Many are refused in most states; `acceptable` picks."""
_PRELUDE: tuple[AnyOperation, ...] = (
    p.PciDeviceAdd(function=PHYSICAL),
    p.PciDeviceAdd(function=VIRTUAL, physical=PHYSICAL),
    p.PciDeviceAdd(function=OTHER),
    p.CreateDomain(domain=1),
)


def lists(size: int, *, least: int = 0) -> st.SearchStrategy[list[AnyOperation]]:
    """Operations, often after those that make others possible."""
    return st.builds(
        lambda first, rest: [*first, *rest],
        st.sampled_from([_PRELUDE, _PRELUDE[:3], ()]),
        st.lists(operations, min_size=least, max_size=size),
    )


class Stage:
    """A machine with its Linux and its journals."""

    def __init__(self, mode: Mode, root: Path) -> None:
        self.machine: ModelMachine = model(mode)
        self.root = root
        self.run = str(root / "run")
        self.linux_root = root / "linux"
        fake = FakeLinux(self.linux_root)
        fake.drivers(*DRIVERS)
        fake.give(PHYSICAL, "e1000e")
        fake.give(VIRTUAL)
        fake.give(OTHER, "vfio-pci", override="vfio-pci")
        fake.irq(30)

    def world(self, death: Death | None = None) -> World:
        death = death or Death()
        return World(Backend.LIBRARY, MortalCore(self.machine, death), FakeLinux(self.linux_root, death))

    def state(self, *, vectors: bool = True) -> dict[str, object]:
        return state(self.machine, vectors=vectors) | files(self.linux_root)

    def apply(self, what: Plan, death: Death | None = None, *, way_back: bool = True) -> Outcome:
        death = death or Death()
        try:
            with Journals(self.run, MortalDisk(death)) as journals:
                return apply(what, self.world(death), journals, fingerprint=FINGERPRINT, boot=BOOT, way_back=way_back)
        except NotUndone as moving:
            self.end_moves(moving)
            self.recover(death)
            raise NotApplied(str(moving)) from moving

    def roll_back(self, death: Death | None = None) -> None:
        death = death or Death()
        try:
            with Journals(self.run, MortalDisk(death)) as journals:
                roll_back(journals, lambda backend: self.world(death), boot=BOOT)
        except NotUndone as moving:
            self.end_moves(moving)
            self.recover(death)

    def recover(self, death: Death | None = None) -> bool:
        """Whether the plan is applied afterwards."""
        death = death or Death()
        while True:
            try:
                with Journals(self.run, MortalDisk(death)) as journals:
                    recover(journals, lambda backend: self.world(death), boot=BOOT)
                    left = status(journals, boot=BOOT)
                break
            except NotUndone as moving:
                self.end_moves(moving)
        assert all(each.state == APPLIED for each in left)
        return bool(left)

    def end_moves(self, moving: NotUndone) -> None:
        """The one thing that undoing may have to wait for: an interrupt that was moved has to come."""
        assert "is still moving, until it comes once more" in str(moving)
        event("waited for an interrupt")
        for number in range(4):
            domain = self.machine.domain(number)
            try:
                for each in list(domain.interrupts()):
                    if InterruptFlag.DRAINING in each.flags:
                        domain.eoi(each.gsi if each.pirq is None else each.pirq)  # type: ignore[arg-type]
            except HypercallRefused:
                continue


@contextmanager
def staged(mode: Mode) -> Iterator[Stage]:
    root = Path(tempfile.mkdtemp(prefix="apply-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    try:
        yield Stage(mode, root)
    finally:
        shutil.rmtree(root)


def acceptable(mode: Mode, history: Sequence[AnyOperation], wanted: Sequence[AnyOperation]) -> tuple[Plan, Plan]:
    """Those of `history` that can be done from the start, and those of `wanted` that can be done after them."""
    with staged(mode) as stage:
        parts = []
        for each in (history, wanted):
            done = []
            for operation in each:
                try:
                    stage.apply(plan(operation), way_back=False)
                except NotApplied:
                    continue
                done.append(operation)
            parts.append(plan(*done))
        return parts[0], parts[1]


def different(before: dict[str, object], now: dict[str, object]) -> dict[str, tuple[object, object]]:
    """What is not the same, before and now."""
    return {
        key: (before.get(key), now.get(key)) for key in before.keys() | now.keys() if before.get(key) != now.get(key)
    }


def is_exact(what: Plan) -> bool:
    return all(operation.inverse(what.backend).reach is Reach.EXACT for operation in what.operations)


modes = st.sampled_from([Mode.INTERCEPT, Mode.DIRECT])
LAWS = settings(
    max_examples=60 * LONG, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@LAWS
@given(modes, lists(12), lists(25, least=1))
def test_applied_and_rolled_back_is_as_before(
    mode: Mode, history: list[AnyOperation], wanted: list[AnyOperation]
) -> None:
    first, what = acceptable(mode, history, wanted)
    with staged(mode) as stage:
        stage.apply(first, way_back=False)
        exact = is_exact(what)
        before = stage.state(vectors=exact)
        outcome = stage.apply(what)
        assert outcome.done + outcome.skipped == len(what.operations)
        for operation in what.operations:
            event(type(operation).__name__)
        stage.roll_back()
        assert different(before, stage.state(vectors=exact)) == {}


@LAWS
@given(modes, lists(8), lists(12), operations)
def test_what_is_refused_leaves_nothing(
    mode: Mode, history: list[AnyOperation], wanted: list[AnyOperation], last: AnyOperation
) -> None:
    first, what = acceptable(mode, history, wanted)
    with staged(mode) as stage:
        stage.apply(first, way_back=False)
        risky = plan(*what.operations, last)
        exact = is_exact(risky)
        before = stage.state(vectors=exact)
        try:
            stage.apply(risky)
        except NotApplied:
            assert different(before, stage.state(vectors=exact)) == {}
            event("refused")


@LAWS
@given(
    modes,
    lists(8),
    lists(15, least=1),
    st.floats(0, 1),
    st.lists(st.integers(1, 200), max_size=3),
    st.booleans(),
)
def test_killed_anywhere_it_recovers(
    mode: Mode,
    history: list[AnyOperation],
    wanted: list[AnyOperation],
    when: float,
    again: list[int],
    on_the_way_back: bool,
) -> None:
    first, what = acceptable(mode, history, wanted)
    exact = is_exact(what)
    with staged(mode) as twin:
        twin.apply(first, way_back=False)
        whole = Death()
        twin.apply(what, whole)
        after = twin.state()
        back = Death()
        twin.roll_back(back)
    with staged(mode) as stage:
        stage.apply(first, way_back=False)
        before = stage.state(vectors=exact)
        if on_the_way_back:
            stage.apply(what)
        events = back.events if on_the_way_back else whole.events
        death = Death(1 + int(when * (events - 1)))
        try:
            stage.roll_back(death) if on_the_way_back else stage.apply(what, death)
        except Killed:
            event("killed on the way " + ("back" if on_the_way_back else "forward"))
        for moment in again:
            try:
                stage.recover(Death(moment))
            except Killed:
                event("killed again")
        if stage.recover():
            event("on the other side")
            assert different(after, stage.state()) == {}
        else:
            assert different(before, stage.state(vectors=exact)) == {}


def test_a_plan_uses_what_it_was_given() -> None:
    """The whole way of a device in each mode: known, mapped, its table written with the message of its pIRQ."""
    for mode in (Mode.INTERCEPT, Mode.DIRECT):
        message = Message(0xFEE01000, 0x41) if mode is Mode.DIRECT else None
        what = plan(
            p.PciDeviceAdd(function=VIRTUAL),
            p.MapMsix(function=VIRTUAL, entry=1, table=TABLE, message=message),
            p.WriteMsixEntry(function=VIRTUAL, bar=0, offset=0x800, entry=1, pirq=ResultOf(1)),
        )
        with staged(mode) as stage:
            before = stage.state()
            stage.apply(what)
            core = stage.machine.domain(0)
            (interrupt,) = (each for each in core.interrupts() if each.function == VIRTUAL)
            assert interrupt.pirq is not None
            told = core.msi_read(interrupt.pirq)
            assert message in (None, told)
            assert stage.machine.message(told.address, told.data) == 0
            assert FakeLinux(stage.linux_root).bar(VIRTUAL, 0, 0x810, 4) == (
                told.address,
                0,
                told.data,
                0x1F1E1D1C & ~1,
            )
            stage.roll_back()
            assert different(before, stage.state()) == {}


@pytest.mark.parametrize(
    ("what", "why"),
    [
        (p.SetupGsi(gsi=Gsi(5), trigger=Trigger.LEVEL, polarity=Polarity.LOW), "GSI 5 has a vector already"),
        (p.MapGsi(gsi=Gsi(5)), "GSI 5 has a vector already"),
        (p.WriteEntry(ioapic=FIRST, pin=5, entry=0x0100_0000_0000_A035), "this entry moves it: move it with set-affin"),
        (p.AssignGsi(domain=1, gsi=Gsi(5)), "domain 0 uses GSI 5"),
    ],
)
def test_a_vector_of_before_is_not_given_away(what: AnyOperation, why: str) -> None:
    """Which the core would never give back: not even where the plan itself has looked at it."""
    with staged(Mode.INTERCEPT) as stage:
        stage.apply(plan(p.CreateDomain(domain=1), p.AllocIrqVector(gsi=Gsi(5))), way_back=False)
        before = stage.state()
        with pytest.raises(NotApplied, match=why):
            stage.apply(plan(p.AllocIrqVector(gsi=Gsi(5)), what))
        assert different(before, stage.state()) == {}


def test_the_order_of_a_gsi_s_calls_is_free() -> None:
    """Undoing one call of a plan may take away another's vector: what counts is the plan."""
    calls: tuple[AnyOperation, ...] = (
        p.MapGsi(gsi=Gsi(5), pirq=5),
        p.SetupGsi(gsi=Gsi(5), trigger=Trigger.LEVEL, polarity=Polarity.LOW),
        p.AllocIrqVector(gsi=Gsi(5)),
        p.WriteEntry(ioapic=FIRST, pin=5, entry=0x0100_0000_0000_A035),
    )
    for order in itertools.permutations(calls):
        with staged(Mode.INTERCEPT) as stage:
            before = stage.state()
            assert stage.apply(plan(*order)).skipped == 0
            assert stage.machine.domain(0).query_vector(5).cpu == 1
            stage.roll_back()
            assert different(before, stage.state()) == {}


@pytest.mark.parametrize("mode", [Mode.INTERCEPT, Mode.DIRECT])
def test_every_moment_of_one_plan(mode: Mode) -> None:
    """Not at random: one plan with every kind of call, killed at each of its moments."""
    message = Message(0xFEE00000, 0x44) if mode is Mode.DIRECT else None
    what = plan(
        p.CreateDomain(domain=1),
        p.PciDeviceAdd(function=OTHER),
        p.MapGsi(gsi=Gsi(5), pirq=5),
        p.SetupGsi(gsi=Gsi(5), trigger=Trigger.LEVEL, polarity=Polarity.LOW),
        p.WriteEntry(ioapic=FIRST, pin=5, entry=0x0100_0000_0000_A035),
        p.AssignGsi(domain=1, gsi=Gsi(17)),
        p.IoapicAdd(address=SPARE, gsi_base=Gsi(32)),
        p.MapMsi(function=OTHER, count=2, message=message),
        p.WriteMsixEntry(function=VIRTUAL, bar=0, offset=0, entry=2, message=Message(0xFEE00000, 0x31)),
        p.UnbindDriver(function=PHYSICAL, driver="e1000e"),
        p.SetDriverOverride(function=PHYSICAL, driver="vfio-pci"),
        p.BindDriver(function=PHYSICAL, driver="vfio-pci"),
    )
    with staged(mode) as stage:
        before = stage.state()
        counter = Death()
        stage.apply(what, counter)
        after = stage.state(vectors=False)
        stage.roll_back()
        assert different(before, stage.state()) == {}
        sides = []
        for moment in range(1, counter.events + 1):
            with pytest.raises(Killed):
                stage.apply(what, Death(moment))
            sides.append(stage.recover())
            if sides[-1]:
                assert different(after, stage.state(vectors=False)) == {}
                stage.roll_back()
            assert different(before, stage.state()) == {}, moment
        assert sides == sorted(sides), "once it is on the other side it stays there"
        assert set(sides) == {True, False}
