# SPDX-License-Identifier: MIT
"""Plans of partitions applied and rolled back: on the modelled core, and on Linux's driver binding below a folder."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dom0kit.abi import Mode, Status
from dom0kit.address import Gsi, Sbdf
from dom0kit.hypercall.apply import APPLIED, NotApplied, apply, recover, roll_back, status
from dom0kit.hypercall.core_library import ModelMachine
from dom0kit.hypercall.interface import HypercallRefused
from dom0kit.hypercall.journal import Disk, JournalError, Journals, Locked
from dom0kit.hypercall.world import World
from dom0kit.partition.check import case_of
from dom0kit.partition.document import read
from dom0kit.partition.ground import Ground
from dom0kit.partition.plan import PartitionPlan, plan_partition
from dom0kit.pci.function import Function
from dom0kit.plan import Backend, Plan, Reach
from dom0kit.serial import decode, encode
from tests.hypercall.apply_machine import BOOT, Death, FakeLinux, Killed, MortalCore, MortalDisk, files, model, state
from tests.partition.machines import FINGERPRINT, platform, text
from tests.pci.machines import ACS, ENDPOINT, ROOT_PORT, function

FUNCTIONS = ("0000:00:03.0", "0000:00:04.0", "0000:00:05.0", "0000:00:06.0")
LINES = {3: [FUNCTIONS[0]], 5: [FUNCTIONS[1], FUNCTIONS[2]], 17: [FUNCTIONS[3]]}
DOMAINS = ("net", "disk")


def made(
    functions: Sequence[Function],
    assignment: Mapping[str, Sequence[str]],
    backend: Backend,
    lines: Mapping[int, Sequence[str]] | None = None,
    *policies: str,
) -> PartitionPlan:
    ground = Ground(platform(functions, lines=lines or {}), backend=backend)
    planned = plan_partition(case_of(ground, read(text(assignment, *policies))))
    assert decode(encode(planned.plan), Plan) == planned.plan
    return planned


class Resettable(FakeLinux):
    """Functions that can be reset, and a count of how often they were."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.resets: list[tuple[Sbdf, tuple[str, ...]]] = []

    def give(self, function: Sbdf, driver: str | None = None, override: str = "") -> None:
        super().give(function, driver, override)
        (self.device(function) / "reset_method").write_text("flr bus\n")
        group = self.root / f"sys/kernel/iommu_groups/{function.bus}"
        (group / "devices").mkdir(parents=True, exist_ok=True)
        (group / f"devices/{function}").symlink_to(f"../../../../bus/pci/devices/{function}")
        (self.device(function) / "iommu_group").symlink_to(f"../../../kernel/iommu_groups/{function.bus}")

    def reset(self, function: Sbdf) -> None:
        self.death.point()
        self.resets.append((function, self.reset_methods(function)))
        self.death.point()


class Stage:
    """A machine with a place for the journal."""

    def __init__(self, root: Path, backend: Backend, mode: Mode = Mode.INTERCEPT) -> None:
        self.backend = backend
        self.run = str(root / "run")
        self.machine: ModelMachine | None = model(mode) if backend is Backend.LIBRARY else None
        self.linux = Resettable(root / "linux")
        (root / "linux/sys").mkdir(parents=True)

    def world(self, death: Death) -> World:
        self.linux.death = death
        return World(self.backend, None if self.machine is None else MortalCore(self.machine, death), self.linux)

    def journals(self, death: Death) -> Journals:
        return Journals(self.run, MortalDisk(death))

    def apply(self, plan: Plan, death: Death | None = None) -> None:
        death = death or Death()
        with self.journals(death) as journals:
            apply(plan, self.world(death), journals, fingerprint=FINGERPRINT, boot=BOOT)

    def back(self) -> None:
        with self.journals(Death()) as journals:
            roll_back(journals, lambda backend: self.world(Death()), boot=BOOT)

    def recover(self) -> bool:
        """Whether the plan is applied afterwards."""
        with self.journals(Death()) as journals:
            recover(journals, lambda backend: self.world(Death()), boot=BOOT)
            left = status(journals, boot=BOOT)
        assert all(each.state == APPLIED for each in left)
        return bool(left)

    def state(self) -> dict[str, object]:
        found: dict[str, object] = dict(files(self.linux.root))
        return found if self.machine is None else {**found, **state(self.machine)}


@contextmanager
def staged(backend: Backend, mode: Mode = Mode.INTERCEPT) -> Iterator[Stage]:
    root = Path(tempfile.mkdtemp(prefix="partition-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    try:
        yield Stage(root, backend, mode)
    finally:
        shutil.rmtree(root)


# --- the modelled core ------------------------------------------------------------------------------------------------


@st.composite
def assignments(draw: st.DrawFn) -> dict[str, list[str]]:
    """Those with pins 4 and 5 share a line, and go together."""
    owners = [draw(st.sampled_from(["dom0", *DOMAINS])) for _ in range(3)]
    owner = dict(zip(FUNCTIONS, [owners[0], owners[1], owners[1], owners[2]], strict=True))
    return {name: [each for each, of in owner.items() if of == name] for name in DOMAINS}


def core_plan(assignment: Mapping[str, Sequence[str]]) -> PartitionPlan:
    return made([function(name) for name in FUNCTIONS], assignment, Backend.LIBRARY, LINES, "vectors = 5")


@given(assignments(), st.sampled_from(Mode))
@settings(max_examples=40, deadline=None)
def test_what_is_given_away_is_refused_to_dom0_until_it_is_back(assignment: dict[str, list[str]], mode: Mode) -> None:
    planned = core_plan(assignment)
    with staged(Backend.LIBRARY, mode) as stage:
        before = stage.state()
        stage.apply(planned.plan)
        world = stage.world(Death())
        assert stage.machine is not None
        dom0 = stage.machine.domain(0)
        for number, name in enumerate(DOMAINS, 1):
            for each in assignment[name]:
                sbdf = Sbdf.parse(each)
                assert world.function_is_anothers(0, sbdf)
                assert not world.function_is_anothers(number, sbdf)
                gsi = next(gsi for gsi, of in LINES.items() if each in of)
                with pytest.raises(HypercallRefused) as refused:
                    dom0.map_gsi(Gsi(gsi))
                assert refused.value.status is Status.NOT_PERMITTED
                assert not world.gsi_is_anothers(number, Gsi(gsi))
        stage.back()
        assert stage.state() == before


@given(assignments(), st.integers(1, 120))
@settings(max_examples=60, deadline=None)
def test_killed_anywhere_the_core_is_on_one_side(assignment: dict[str, list[str]], at: int) -> None:
    planned = core_plan(assignment)
    with staged(Backend.LIBRARY) as stage:
        before = stage.state()
        with suppress(Killed):
            stage.apply(planned.plan, Death(at))
        if stage.recover():
            stage.back()
        assert stage.state() == before


def test_a_line_of_dom0s_too_stays() -> None:
    machine = [function(name) for name in FUNCTIONS]
    planned = made(machine, {"net": [FUNCTIONS[1]]}, Backend.LIBRARY, LINES, "allow_shared_intx = true")
    assert "GSI 5 stays domain 0's: 0000:00:05.0 of dom0 shares it; use messages" in planned.remarks
    assert not any("GSI" in str(operation) for operation in planned.plan.operations)
    assert any("none runs yet" in remark for remark in planned.remarks)


# --- Linux ------------------------------------------------------------------------------------------------------------

IDS = {"vendor": 0x8086, "device": 0x106F}
"""As the fake functions' config space has them."""


def two_cards(drivers: Sequence[str | None] = ("e1000e", "nvme", None)) -> list[Function]:
    """A card of two functions without ACS, and one of one, below root ports with ACS."""
    names = ("0000:01:00.0", "0000:01:00.1", "0000:02:00.0")
    return [
        function("0000:00:1c.0", express=ROOT_PORT, buses=(1, 1), acs=(ACS, ACS)),
        function("0000:00:1d.0", express=ROOT_PORT, buses=(2, 2), acs=(ACS, ACS)),
        *(
            function(
                name,
                express=ENDPOINT,
                multifunction=name < "0000:02",
                attributes={"reset_method": "flr bus", "iommu_group": str(Sbdf.parse(name).bus)}
                | ({"driver": driver} if driver is not None else {}),
                **IDS,  # type: ignore[arg-type]
            )
            for name, driver in zip(names, drivers, strict=True)
        ),
    ]


GIVEN = {"net": ["0000:01:00.0", "0000:01:00.1"], "disk": ["0000:02:00.0"]}


@contextmanager
def linux(backend: Backend = Backend.LINUX) -> Iterator[tuple[Stage, PartitionPlan]]:
    with staged(backend) as stage:
        stage.linux.drivers("e1000e", "nvme", "vfio-pci", "pciback")
        stage.linux.give(Sbdf.parse("0000:01:00.0"), "e1000e")
        stage.linux.give(Sbdf.parse("0000:01:00.1"), "nvme")
        stage.linux.give(Sbdf.parse("0000:02:00.0"), None, "pci-stub")
        yield stage, made(two_cards(), GIVEN, backend)


@pytest.mark.parametrize(("backend", "keeper"), [(Backend.LINUX, "vfio-pci"), (Backend.XEN, "pciback")])
def test_functions_go_to_the_driver_that_keeps_them_and_back(backend: Backend, keeper: str) -> None:
    with linux(backend) as (stage, planned):
        before = stage.state()
        inexact = [each for each in planned.plan.operations if each.inverse(backend).reach is not Reach.EXACT]
        assert [str(each) for each in inexact] == [f"reset {name} (flr)" for of in GIVEN.values() for name in of]
        stage.apply(planned.plan)
        assert stage.linux.resets == [(Sbdf.parse(name), ("flr",)) for of in GIVEN.values() for name in of]
        for name in (*GIVEN["net"], *GIVEN["disk"]):
            assert stage.linux.driver(Sbdf.parse(name)) == keeper
            assert stage.linux.override(Sbdf.parse(name)) == keeper
        stage.back()
        assert stage.state() == before


def test_every_moment_of_a_plan_of_linux() -> None:
    with linux() as (stage, planned):
        whole = Death()
        before = stage.state()
        stage.apply(planned.plan, whole)
        stage.back()
        assert stage.state() == before
    outcomes = set()
    for at in range(1, whole.events + 1):
        with linux() as (stage, planned):
            before = stage.state()
            with suppress(Killed):
                stage.apply(planned.plan, Death(at))
            applied = stage.recover()
            outcomes.add(applied)
            if applied:
                stage.back()
            assert stage.state() == before, at
    assert outcomes == {True, False}


@st.composite
def linux_cases(draw: st.DrawFn) -> tuple[list[str | None], dict[str, list[str]]]:
    """Drivers of the three functions, and who has the two groups."""
    drivers = [draw(st.sampled_from([None, "e1000e", "nvme", "vfio-pci", "pciback"])) for _ in range(3)]
    owner = {name: draw(st.sampled_from(["dom0", *DOMAINS])) for name in GIVEN}
    return drivers, {name: [f for of, who in owner.items() if who == name for f in GIVEN[of]] for name in DOMAINS}


@given(linux_cases(), st.sampled_from([Backend.LINUX, Backend.XEN]), st.integers(1, 120))
@settings(max_examples=80, deadline=None)
def test_any_plan_of_linux_killed_anywhere(
    case: tuple[list[str | None], dict[str, list[str]]], backend: Backend, at: int
) -> None:
    drivers, assignment = case
    functions = [Sbdf.parse(name) for of in GIVEN.values() for name in of]
    planned = made(two_cards(drivers), assignment, backend)
    with staged(backend) as stage:
        stage.linux.drivers("e1000e", "nvme", "vfio-pci", "pciback")
        for sbdf, driver in zip(functions, drivers, strict=True):
            stage.linux.give(sbdf, driver)
        before = stage.state()
        with suppress(Killed):
            stage.apply(planned.plan, Death(at))
        if stage.recover():
            keeper = "vfio-pci" if backend is Backend.LINUX else "pciback"
            given_ = {Sbdf.parse(name) for of in assignment.values() for name in of}
            for sbdf, driver in zip(functions, drivers, strict=True):
                assert stage.linux.driver(sbdf) == (keeper if sbdf in given_ else driver)
            stage.back()
        assert stage.state() == before


def test_no_function_of_a_group_is_bound_before_the_last_is_free() -> None:
    """VFIO takes a group when all of it is free of other drivers."""
    steps = [type(each).__name__ for each in made(two_cards(), {"net": GIVEN["net"]}, Backend.LINUX).plan.operations]
    assert steps == [*["SetDriverOverride", "UnbindDriver"] * 2, *["ResetFunction"] * 2, *["BindDriver"] * 2]


def test_a_function_that_has_its_keeper_already_is_not_reset() -> None:
    """A guest may be running with it."""
    machine = two_cards(("vfio-pci", "vfio-pci", None))
    steps = [type(each).__name__ for each in made(machine, {"net": GIVEN["net"]}, Backend.LINUX).plan.operations]
    assert "ResetFunction" not in steps


def test_a_group_that_has_grown() -> None:
    with linux() as (stage, planned):
        stage.linux.give(Sbdf.parse("0000:02:00.1"))
        before = stage.state()
        with pytest.raises(NotApplied, match=r"are a group: Linux has 0000:02:00\.0, 0000:02:00\.1"):
            stage.apply(planned.plan)
        assert stage.state() == before


def test_a_driver_that_does_not_let_go() -> None:
    with linux() as (stage, planned):
        before = stage.state()
        stage.linux.stubborn.add("nvme")
        with pytest.raises(NotApplied, match=r"driver nvme does not let go of 0000:01:00\.1"):
            stage.apply(planned.plan)
        assert stage.state() == before
        assert not stage.recover()


def test_a_device_that_vanished() -> None:
    with linux() as (stage, planned):
        shutil.rmtree(stage.linux.root / "sys/devices/pci0000:00/0000:02:00.0")
        (stage.linux.root / "sys/bus/pci/devices/0000:02:00.0").unlink()
        before = stage.state()
        with pytest.raises(NotApplied, match=r"relies on what is not so any more: 0000:02:00\.0"):
            stage.apply(planned.plan)
        assert stage.state() == before


def test_another_driver_than_when_the_plan_was_made() -> None:
    with linux() as (stage, planned):
        link = stage.linux.device(Sbdf.parse("0000:01:00.0")) / "driver"
        link.unlink()
        before = stage.state()
        with pytest.raises(NotApplied, match=r"0000:01:00\.0 has driver e1000e: it has no driver"):
            stage.apply(planned.plan)
        assert stage.state() == before


def test_a_plan_for_another_machine() -> None:
    with linux() as (stage, planned), stage.journals(Death()) as journals:
        before = stage.state()
        with pytest.raises(NotApplied, match="for another machine"):
            apply(planned.plan, stage.world(Death()), journals, fingerprint="6" * 64, boot=BOOT)
        assert stage.state() == before


def test_two_plans_at_once() -> None:
    with linux() as (stage, planned):
        before = stage.state()
        with stage.journals(Death()), pytest.raises(Locked):
            stage.apply(planned.plan)
        assert stage.state() == before


def test_a_full_place_for_the_journal() -> None:
    class Full(Disk):
        def reserve(self, file: int, size: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with linux() as (stage, planned):
        before = stage.state()
        with Journals(stage.run, Full()) as journals, pytest.raises(JournalError, match="No space left"):
            apply(planned.plan, stage.world(Death()), journals, fingerprint=FINGERPRINT, boot=BOOT)
        assert stage.state() == before
        stage.apply(planned.plan)
