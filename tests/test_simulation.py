# SPDX-License-Identifier: MIT
"""A dom0's usual calls to the modelled core of recorded machines: everything is told, nothing is owned twice."""

from __future__ import annotations

import functools
from pathlib import Path

import msgspec
import pytest

from dom0kit.abi import Mode
from dom0kit.address import Polarity, Sbdf, Trigger
from dom0kit.ioapic.controllers import PinsFrom
from dom0kit.observation import observe
from dom0kit.pci.function import Function
from dom0kit.platform import Platform
from dom0kit.serial import decode, encode
from dom0kit.simulation import OwnedGsi, OwnedMessage, Simulation, machine_of, memory_image, simulate
from dom0kit.source.interface import RawTable
from dom0kit.source.recognise import combine, open_source
from tests.acpi.asl import needs_interpreter
from tests.corpus import CORPUS, combined, needs_corpus

SHIPPED = sorted((Path(__file__).parent.parent / "dom0kit" / "recordings").glob("*.d0k"))


@functools.cache
def observed(name: str) -> tuple[Platform, tuple[RawTable, ...]]:
    source = open_source(next(str(path) for path in SHIPPED if path.stem == name))
    return observe(source), tuple(source.tables())


def pairs(simulation: Simulation) -> list[tuple[int, int]]:
    """(CPU, vector) of everything that has both."""
    everything: list[OwnedGsi | OwnedMessage] = [*simulation.gsis, *simulation.messages]
    return [(each.cpu, each.vector) for each in everything if each.cpu is not None and each.vector is not None]


def check(platform: Platform, simulation: Simulation) -> None:
    """What holds on every machine."""
    assert simulation.counts.functions == len({each.sbdf for each in platform.functions if each.sbdf.segment < 1 << 16})
    found = pairs(simulation)
    assert len(set(found)) == len(found), "invariant 2: no (CPU, vector) twice"
    assert sorted(found) == [(each.cpu, vector) for each in simulation.processors for vector in each.vectors]
    assert simulation.counts.messages == len(simulation.messages)
    assert simulation.calls_refused == len([each for each in simulation.refusals if "not called" not in each.call])
    assert decode(encode(simulation), Simulation) == simulation


@needs_interpreter
@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("name", [path.stem for path in SHIPPED])
def test_shipped_machines(name: str, mode: Mode) -> None:
    platform, tables = observed(name)
    simulation = simulate(platform, tables, mode)
    check(platform, simulation)
    assert (simulation.reports, simulation.refusals) == ((), ())
    assert simulation.mode == mode.name.lower()
    assert {"model", "bookkeeping", "handed_over", simulation.mode} <= set(simulation.features)
    assert {each.gsi for each in simulation.gsis} == {each.gsi for each in platform.routes if each.gsi is not None}
    assert len(pairs(simulation)) == len(simulation.gsis) + len(simulation.messages), "everything has a vector"
    signals = {route.gsi: (route.trigger, route.polarity) for route in platform.routes}
    for gsi in simulation.gsis:
        assert (gsi.trigger, gsi.polarity) == signals[gsi.gsi]
        assert gsi.shared == (len([route for route in platform.routes if route.gsi == gsi.gsi]) > 1)
        assert gsi.masked == (mode is Mode.INTERCEPT)
        assert gsi.pirq == gsi.gsi
    assert [(each.address, each.gsi_base, each.pins) for each in simulation.shared_info.ioapics] == [
        (each.address, each.gsi_base, each.pins) for each in platform.ioapics
    ]
    assert simulation.shared_info.handed_over


@needs_interpreter
def test_messages_are_as_many_as_processors_take() -> None:
    platform, tables = observed("qemu-q35")
    simulation = simulate(platform, tables)
    for state in platform.msi:
        got = [each for each in simulation.messages if each.function == state.sbdf]
        if state.msix is not None:
            assert len(got) == min(state.msix.vectors, 2)
            assert all(each.msix for each in got)
            assert [each.entry for each in got] == list(range(len(got)))
        elif state.msi is not None:
            assert [each.msix for each in got] == [False]


@needs_interpreter
def test_physical_functions_come_first() -> None:
    platform, tables = observed("qemu-q35")
    virtual = [each for each in platform.functions if each.physical_function is not None]
    assert virtual
    backwards = msgspec.structs.replace(platform, functions=(*virtual, *(set_aside(platform, virtual))))
    assert simulate(backwards, tables).refusals == ()


def set_aside(platform: Platform, functions: list[Function]) -> list[Function]:
    return [each for each in platform.functions if each not in functions]


@needs_interpreter
def test_an_ioapic_that_only_the_namespace_has_is_added() -> None:
    platform, tables = observed("qemu-i440fx")
    hot = msgspec.structs.replace(
        platform.ioapics[0], id=7, address=0xFEC80000, gsi_base=48, pins=8, in_madt=False, pins_from=PinsFrom.BOOT_LOG
    )
    simulation = simulate(msgspec.structs.replace(platform, ioapics=(*platform.ioapics, hot)), tables)
    assert simulation.refusals == ()
    assert [(each.address, each.gsi_base, each.pins, each.id) for each in simulation.shared_info.ioapics][1:] == [
        (0xFEC80000, 48, 8, 7)
    ]


@needs_interpreter
def test_functions_that_disagree_about_a_line_are_refused() -> None:
    platform, tables = observed("qemu-i440fx")
    first, *others = (route for route in platform.routes if route.gsi is not None)
    changed = msgspec.structs.replace(
        first, sbdf=others[0].sbdf, gsi=first.gsi, trigger=Trigger.EDGE, polarity=Polarity.LOW
    )
    routes = (first, changed)
    refusals = simulate(msgspec.structs.replace(platform, routes=routes), tables).refusals
    assert [(each.call.partition("(")[0], each.status) for each in refusals] == [("setup_gsi", "exists")]


@needs_interpreter
def test_what_the_core_cannot_have_is_refused_and_said() -> None:
    platform, tables = observed("qemu-i440fx")
    route = next(route for route in platform.routes if route.gsi is not None)
    beyond = msgspec.structs.replace(route, gsi=999)
    simulation = simulate(msgspec.structs.replace(platform, routes=(beyond,)), tables)
    assert [each.call.partition("(")[0] for each in simulation.refusals] == ["map_pirq", "setup_gsi"]
    assert {each.reason for each in simulation.refusals} == {"an argument has no meaning"}
    assert simulation.gsis == ()
    far = msgspec.structs.replace(platform.functions[0], sbdf=Sbdf(0x10000, 0, 0, 0))
    check(platform, simulate(msgspec.structs.replace(platform, functions=(*platform.functions, far)), tables))


@needs_interpreter
def test_dom0_runs_out_of_vectors_in_direct_mode() -> None:
    platform, tables = observed("qemu-i440fx")
    state = next(state for state in platform.msi if state.msi is not None)
    functions = [
        msgspec.structs.replace(platform.functions[0], sbdf=Sbdf(0, 0x40 + number // 256, number // 8 % 32, number % 8))
        for number in range(200)
    ]
    crowd = msgspec.structs.replace(
        platform,
        functions=tuple(functions),
        routes=(),
        msi=tuple(msgspec.structs.replace(state, sbdf=each.sbdf, msix=None) for each in functions),
    )
    simulation = simulate(crowd, tables, Mode.DIRECT)
    check(crowd, simulation)
    assert len(pairs(simulation)) == 0xEA - 0x30 + 1 - 1
    assert {each.status for each in simulation.refusals} == {"no_space"}
    assert len(simulation.refusals) == 200 - len(pairs(simulation))


@needs_interpreter
def test_high_apic_ids_need_a_remapper() -> None:
    platform, tables = observed("synthetic-x2apic")
    assert platform.processors is not None
    assert any(each.apic_id > 0xFE for each in platform.processors.processors)
    made = machine_of(platform, tables)
    assert made.domain(0).information().entry_format == 2
    simulation = simulate(platform, tables)
    reached = {each.cpu for each in simulation.processors if each.vectors}
    assert len(reached) > 1


def test_no_table_at_all_is_still_a_root() -> None:
    memory, rsdp, xsdt = memory_image([])
    assert rsdp in dict(memory)
    assert any(address <= xsdt < address + len(data) for address, data in memory)


@needs_corpus
@needs_interpreter
@pytest.mark.slow
@pytest.mark.parametrize("name", combined())
def test_recorded_machines(name: str) -> None:
    source = combine(acpi=CORPUS / "acpi" / name, pci=CORPUS / "pci" / f"{name}.lspci")
    platform, tables = observe(source), source.tables()
    for mode in Mode:
        simulation = simulate(platform, tables, mode)
        check(platform, simulation)
        routed = {each.gsi for each in platform.routes if each.gsi is not None}
        assert {each.gsi for each in simulation.gsis} == routed
        assert simulation.counts.processors > 0
