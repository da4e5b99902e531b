# SPDX-License-Identifier: MIT
"""A Platform that follows its machine is the one that a full enumeration gives, and reads no more than what changed."""

from __future__ import annotations

from collections.abc import Container, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dom0kit.address import Sbdf
from dom0kit.hotplug.model import ModelKernel
from dom0kit.hotplug.view import View
from dom0kit.observation import observe
from dom0kit.serial import encode
from dom0kit.source.in_memory import MemorySource
from dom0kit.source.interface import RawFunction, Source, SourceKind
from tests.hotplug.machines import AMD, I440FX, Q35, RECORDINGS, kernel, recording


class Reading(ModelKernel):
    """Knows what was read of it."""

    def __init__(self, source: Source) -> None:
        self.read: set[Sbdf] = set()
        super().__init__(source)

    def functions(self, only: Container[Sbdf] | None = None) -> Iterator[RawFunction]:
        for raw in super().functions(only):
            self.read.add(raw.sbdf)
            yield raw


def change(data: st.DataObject, machine: ModelKernel) -> Sbdf:
    """Something happens to a function; which."""
    here = machine.addresses()
    gone = sorted(machine.recorded.keys() - set(here))
    acts = ["vanish", "silence", "speak", "config", "attribute"] if here else []
    act = data.draw(st.sampled_from(acts + (["appear"] * 3 if gone else [])))
    function = data.draw(st.sampled_from(gone if act == "appear" else here))
    if act == "appear":
        machine.appear(machine.recorded[function])
    elif act == "vanish":
        machine.vanish(function)
    elif act in ("silence", "speak"):
        machine.fall_silent(function, act == "silence")
    elif act == "config":
        machine.write(function, data.draw(st.integers(0, 0xFF)), data.draw(st.binary(min_size=1, max_size=4)))
    else:
        name = data.draw(st.sampled_from(["driver", "irq", "numa_node", "msi_irqs", "iommu_group", "power_state"]))
        machine.change(function, **{name: data.draw(st.sampled_from([None, "1", "vfio-pci", "31 msix"]))})
    return function


def follow(data: st.DataObject, machine: ModelKernel, view: View, *, aml: bool) -> None:
    changed = {change(data, machine) for _ in range(data.draw(st.integers(1, 4)))}
    assert view.refresh(changed) == observe(machine, aml=aml)


@pytest.mark.parametrize("name", RECORDINGS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_following_is_enumerating(name: str, data: st.DataObject) -> None:
    machine = kernel(name)
    view = View(machine.open_source, aml=False)
    for _ in range(data.draw(st.integers(1, 5))):
        follow(data, machine, view, aml=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", [Q35, I440FX, AMD])
@settings(max_examples=4, deadline=None)
@given(data=st.data())
def test_following_is_enumerating_with_aml(name: str, data: st.DataObject) -> None:
    machine = kernel(name)
    view = View(machine.open_source)
    for _ in range(3):
        follow(data, machine, view, aml=True)


def test_only_the_tree_that_changed_is_read() -> None:
    machine = Reading(recording(Q35))
    view = View(machine.open_source, aml=False)
    behind, beside = Sbdf.parse("0000:07:03.0"), Sbdf.parse("0000:00:05.0")
    tree = {sbdf for sbdf in machine.addresses() if str(sbdf) in ("0000:00:07.0", "0000:06:00.0", "0000:07:03.0")}
    machine.read.clear()
    machine.write(behind, 0x3C, b"\x07")
    machine.write(beside, 0x3C, b"\x07")
    seen = {function.sbdf: function.interrupt_line for function in view.refresh([behind]).functions}
    assert machine.read == tree
    assert seen[behind] == 7
    assert seen[beside] != 7


def test_what_came_and_went_is_found_without_being_named() -> None:
    machine = kernel(Q35)
    view = View(machine.open_source, aml=False)
    gone = Sbdf.parse("0000:07:03.0")
    machine.vanish(gone)
    assert view.refresh() == observe(machine, aml=False)
    machine.appear(machine.recorded[gone])
    assert view.refresh() == observe(machine, aml=False)
    assert gone in view.addresses


def test_a_virtual_function_is_in_the_tree_of_its_physical_one() -> None:
    """On a root bus nothing else joins them: they are different devices."""
    physical, virtual, other = (Sbdf(0, 0, device, 0) for device in (3, 4, 5))
    functions = (
        RawFunction(physical, bytes(64)),
        RawFunction(virtual, bytes(64), {"physfn": str(physical)}),
        RawFunction(other, bytes(64)),
    )
    machine = Reading(MemorySource("a machine", SourceKind.SYSFS_TREE, functions=functions))
    view = View(machine.open_source, aml=False)
    machine.read.clear()
    view.refresh([virtual])
    assert machine.read == {physical, virtual}


def test_aml_is_interpreted_again_only_where_something_differs_that_it_read(monkeypatch: pytest.MonkeyPatch) -> None:
    from dom0kit.acpi import aml
    from dom0kit.hotplug import view as module

    asked = []

    def counting(*arguments: object, **more: object) -> object:
        asked.append(arguments)
        return aml.interpret(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "interpret", counting)
    machine = kernel(Q35)
    view = View(machine.open_source)
    lowest, far = machine.addresses()[0], Sbdf.parse("0000:07:03.0")
    machine.vanish(far)
    assert view.refresh() == observe(machine)
    assert len(asked) == 1
    machine.write(lowest, 0x60, b"\x55\xaa")
    assert view.refresh([lowest]) == observe(machine)
    assert len(asked) == 2
    view.enumerate()
    assert len(asked) == 3


def test_the_same_json() -> None:
    machine = kernel(Q35)
    view = View(machine.open_source, aml=False)
    machine.vanish(Sbdf.parse("0000:07:03.0"))
    assert encode(view.refresh()) == encode(observe(machine, aml=False))
