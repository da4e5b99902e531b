# SPDX-License-Identifier: MIT
"""Functions come and go in any order, events are lost, the reconciler dies anywhere: in the end all agree."""

from __future__ import annotations

import contextlib
import os
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dom0kit.address import Sbdf
from dom0kit.hotplug.model import ModelKernel
from tests.hotplug.machines import AMD, Q35
from tests.hotplug.rig import GIVE_ALL, Rig
from tests.hypercall.apply_machine import Death, Killed

POLICY = """
[limits]
arrivals = 10000
[[rule]]
path = "0000:00/06.0/*"
action = "give"
domain = 1
[[rule]]
id = "1b36:*"
class = "0108*"
action = "give"
domain = 2
[[rule]]
path = "0000:c0/*"
action = "keep"
"""
SLOTS = [
    ["0000:02:00.0", "0000:03:00.0", "0000:03:01.0", "0000:04:00.0"],
    ["0000:04:00.0"],
    ["0000:01:00.1", "0000:01:00.2", "0000:01:00.3", "0000:01:00.4"],
    ["0000:01:00.0", "0000:01:00.1", "0000:01:00.2", "0000:01:00.3", "0000:01:00.4"],
    ["0000:06:00.0", "0000:07:03.0"],
    ["0000:07:03.0"],
    ["0000:c1:00.0"],
]
"""What is plugged together, the outermost first."""


def above(sbdf: Sbdf, kernel: ModelKernel) -> list[Sbdf]:
    """What must be there for it to be there."""
    attributes = kernel.recorded[sbdf].attributes
    return [Sbdf.parse(attributes[name]) for name in ("parent", "physfn") if name in attributes]


def toggle(kernel: ModelKernel, chance: random.Random) -> list[Sbdf]:
    """A slot is filled or emptied; what came or went."""
    slot = [Sbdf.parse(text) for text in chance.choice(SLOTS)]
    here = set(kernel.addresses())
    if slot[0] in here:
        gone = [each for each in reversed(slot) if each in here]
        behind = [each for each in here if each not in gone and set(above(each, kernel)) & set(gone)]
        for each in (*behind, *gone):
            kernel.vanish(each)
        return [*behind, *gone]
    if not here.issuperset(above(slot[0], kernel)):
        return []
    for each in slot:
        kernel.appear(kernel.recorded[each])
    return slot


def storm(rig: Rig, chance: random.Random, changes: int, *, deadly: bool = True) -> int:
    """Until so many functions have come or gone; how often the process died."""
    done = died = 0
    while done < changes:
        moved: list[Sbdf] = []
        for _ in range(chance.randint(1, 3)):
            moved += toggle(rig.kernel, chance)
        done += len(moved)
        rig.now += 1
        if deadly and chance.random() < 0.3:
            rig.death.left = chance.randint(1, 60)
        told = [each for each in moved if chance.random() < 0.7]  # events are lost
        died += rig.survive(*told)
    rig.death.left = None
    rig.step(lost=True)
    return died


def at_the_end(rig: Rig) -> None:
    """Everything that was plugged goes; then the core is as empty as the slots."""
    rig.agreed()
    here = set(rig.kernel.addresses())
    for slot in SLOTS:
        for each in reversed(slot):
            if (sbdf := Sbdf.parse(each)) in here:
                rig.kernel.vanish(sbdf)
                here.discard(sbdf)
    rig.step()
    rig.agreed()
    assert rig.dom0.information().messages == 0
    assert [list(rig.dom0.interrupts(domain)) for domain in (1, 2)] == [[], []]
    assert rig.rules() == []


@pytest.mark.parametrize("seed", [1, 2])
def test_a_storm(seed: int, tmp_path: Path) -> None:
    rig = Rig(Q35, tmp_path, POLICY, domains=[1, 2], aml=False)
    rig.start()
    storm(rig, random.Random(seed), 60)
    at_the_end(rig)


def test_no_descriptor_is_left(tmp_path: Path) -> None:
    """Of a process that lives: one that is killed has none."""
    rig = Rig(Q35, tmp_path, POLICY, domains=[1, 2], aml=False)
    rig.start()
    files = len(os.listdir("/proc/self/fd"))
    storm(rig, random.Random(3), 40, deadly=False)
    assert len(os.listdir("/proc/self/fd")) == files


@pytest.mark.slow
def test_a_thousand(tmp_path: Path) -> None:
    rig = Rig(Q35, tmp_path, POLICY, domains=[1, 2], aml=False)
    rig.start()
    died = storm(rig, random.Random(8), 1000)
    assert died > 20
    at_the_end(rig)
    assert [path.name for path in tmp_path.iterdir() if "journal" in path.name] == []


@settings(max_examples=15, deadline=None)
@given(at=st.integers(1, 400), twice=st.integers(1, 200))
def test_killed_anywhere_while_a_function_comes_and_goes(
    at: int, twice: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Arrival, gift of GSI and messages, and the way back, in one piece; killed, and killed again on the way back."""
    nic = "0000:81:00.0"
    death = Death()
    rig = Rig(AMD, tmp_path_factory.mktemp("killed"), GIVE_ALL, domains=[1], death=death)
    rig.start()
    rig.step(*rig.pull(nic))
    empty = rig.state()
    death.left = at
    rig.survive(*rig.plug(nic))
    death.left = None
    rig.agreed()
    assert rig.entry(nic).placed
    death.left = twice
    rig.survive(*rig.pull(nic))
    death.left = None
    rig.agreed()
    assert rig.state() == empty


@pytest.mark.parametrize("at", range(1, 40, 2))
def test_killed_when_a_function_comes_that_is_gone_before_anybody_looks_again(at: int, tmp_path: Path) -> None:
    """What was told just before the process died is in the ledger."""
    nic = "0000:81:00.0"
    rig = Rig(AMD, tmp_path, aml=False)
    rig.start()
    rig.step(*rig.pull(nic))
    empty = rig.state()
    rig.death.left = at
    with contextlib.suppress(Killed):
        rig.step(*rig.plug(nic))
    rig.death.left = None
    rig.pull(nic)
    rig.reconciler = rig.made()
    rig.start()
    rig.agreed()
    assert rig.state() == empty
