# SPDX-License-Identifier: MIT
"""The operations for one function's messages: by backend and mode, and why some functions are left alone."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from dom0kit.address import Sbdf
from dom0kit.interrupt_plan import Wishes, plan_messages
from dom0kit.interrupts import routing_table
from dom0kit.msi.plan import facts, message_operations, obstacle, unmap_plan
from dom0kit.msi.state import MsiState
from dom0kit.pci.function import Function
from dom0kit.plan import (
    AnyOperation,
    Backend,
    ConfigIs,
    Dialect,
    DriverIs,
    FunctionIs,
    MapMsi,
    MapMsix,
    Message,
    PciDeviceAdd,
    ResultOf,
    SetAffinity,
    UnmapPirq,
    WriteConfig,
    WriteMsi,
    WriteMsixEntry,
)
from dom0kit.vectors import Cpu, Place, Policy
from tests.synthetic import Device, Made, made

FUNCTION = Sbdf(0, 1, 0, 0)
PLACES = [Place(Cpu(0, 4, None, None), 0x50), Place(Cpu(1, 6, None, None), 0x61)]
RUN = [Place(Cpu(1, 6, None, None), vector) for vector in (0x60, 0x61)]


def machine(**fields: int | str | tuple[int, ...] | None) -> Made:
    return made([Device(FUNCTION, **fields)])  # type: ignore[arg-type]


def parts(made_machine: Made) -> tuple[Function, MsiState]:
    return made_machine.platform.functions[0], made_machine.platform.msi[0]


def operations(
    made_machine: Made, places: list[Place], backend: Backend, *, intercept: bool = True, **more: bool
) -> list[AnyOperation]:
    function, state = parts(made_machine)
    return message_operations(function, state, places, backend=backend, intercept=intercept, first=7, **more)  # type: ignore[arg-type]


MSIX, MSI = {"msix": 4}, {"msi": 8}
TABLE = Device(FUNCTION).bar + 0x2000


def test_msix_is_only_mapped_where_somebody_else_writes() -> None:
    mapped = [MapMsix(function=FUNCTION, entry=entry, table=TABLE) for entry in (0, 1)]
    for backend in (Backend.LIBRARY, Backend.LOOPBACK):
        assert operations(machine(**MSIX), PLACES, backend) == mapped
    bar = Device(FUNCTION).bar
    assert operations(machine(**MSIX), PLACES, Backend.XEN, intercept=False) == [
        MapMsix(function=FUNCTION, entry=entry, table=bar) for entry in (0, 1)
    ], "Xen wants the start of the BAR, and chooses messages itself"


def test_msix_on_hv_core() -> None:
    found = operations(machine(**MSIX), PLACES, Backend.HV_CORE, move=True)
    assert found == [
        MapMsix(function=FUNCTION, entry=0, table=TABLE),
        SetAffinity(irq=ResultOf(7), cpu=0),
        WriteMsixEntry(function=FUNCTION, bar=0, offset=0x2000, entry=0, pirq=ResultOf(7), masked=True),
        MapMsix(function=FUNCTION, entry=1, table=TABLE),
        SetAffinity(irq=ResultOf(10), cpu=1),
        WriteMsixEntry(function=FUNCTION, bar=0, offset=0x2000, entry=1, pirq=ResultOf(10), masked=True),
    ]
    direct = operations(machine(**MSIX), PLACES[1:], Backend.HV_CORE, intercept=False, enable=True)
    message = Message(0xFEE0_6000, 0x61)
    assert direct == [
        MapMsix(function=FUNCTION, entry=0, table=TABLE, message=message),
        WriteMsixEntry(function=FUNCTION, bar=0, offset=0x2000, entry=0, message=message, masked=False),
        WriteConfig(function=FUNCTION, offset=0x72, width=2, value=0x8000, mask=0xC000),
    ]


def test_msi() -> None:
    assert operations(machine(**MSI), RUN, Backend.LOOPBACK, move=True) == [MapMsi(function=FUNCTION, count=2)]
    assert operations(machine(**MSI), RUN[:1], Backend.LOOPBACK, move=True) == [
        MapMsi(function=FUNCTION),
        SetAffinity(irq=ResultOf(7), cpu=1),
    ]
    assert operations(machine(**MSI), RUN, Backend.HV_CORE) == [
        MapMsi(function=FUNCTION, count=2),
        WriteMsi(function=FUNCTION, capability=0x50, wide=True, pirq=ResultOf(7), count=2, enabled=False),
    ]
    message = Message(0xFEE0_6000, 0x60)
    assert operations(machine(**MSI), RUN, Backend.HV_CORE, intercept=False, enable=True) == [
        MapMsi(function=FUNCTION, count=2, message=message),
        WriteMsi(function=FUNCTION, capability=0x50, wide=True, message=message, count=2, enabled=True),
    ]


def test_facts() -> None:
    function, _ = parts(machine(msi=2, msix=4))
    assert facts(function) == [
        FunctionIs(function=FUNCTION, vendor=0x1234, device=0x5678),
        DriverIs(function=FUNCTION, driver=None),
        ConfigIs(function=FUNCTION, offset=0x52, width=2, value=0, mask=1),
        ConfigIs(function=FUNCTION, offset=0x72, width=2, value=0, mask=0x8000),
    ]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, None),
        ({"driver": "nvme"}, "nvme has it"),
        ({"asleep": True}, "it is asleep"),
        ({"power_state": "D3hot"}, "it is asleep"),
        ({"answers": False}, "it does not answer"),
        ({"sbdf": Sbdf(0x10000, 1, 0, 0)}, "hypercalls have no room for its segment"),
        ({"command": 4}, "memory decode is off, so its MSI-X table cannot be written"),
    ],
)
def test_functions_that_are_left_alone(changes: dict[str, object], why: str | None) -> None:
    function, state = parts(machine(**MSIX))
    changed = msgspec.structs.replace(function, **changes)
    assert obstacle(changed, state, Backend.HV_CORE) == why
    if "command" in changes:
        assert obstacle(changed, state, Backend.XEN) is None


def test_functions_in_use_without_a_driver() -> None:
    function, state = parts(machine(**MSIX, irqs=(30,)))
    assert obstacle(function, state, Backend.XEN) == "the kernel has interrupts for it, though it has no driver"
    unknown = msgspec.structs.replace(state, kernel_irqs=())
    assert obstacle(function, unknown, Backend.XEN) == "MSI-X is enabled, though it has no driver: somebody uses it"
    assert state.msix is not None
    nowhere = msgspec.structs.replace(state.msix, table_address=None)
    unused = parts(machine(**MSIX))[1]
    without = msgspec.structs.replace(unused, msix=nowhere)
    assert obstacle(function, without, Backend.XEN) == "BAR 0, which holds its MSI-X table, has no address"


# --- one function alone -----------------------------------------------------------------------------------------------


def one(made_machine: Made, *, function: Sbdf = FUNCTION, **wishes: Any) -> list[AnyOperation]:
    given: dict[str, Any] = {"backend": Backend.LOOPBACK, "entries": 4}
    asked = Wishes(**given | wishes)
    platform = made_machine.platform
    return list(plan_messages(platform, routing_table(platform)[0], asked, function).operations)


def test_a_plan_for_one_function() -> None:
    found = one(machine(**MSIX))
    assert found[0] == PciDeviceAdd(function=FUNCTION)
    assert found[1:] == [MapMsix(function=FUNCTION, entry=entry, table=TABLE) for entry in range(4)]
    assert isinstance(one(machine(**MSIX), backend=Backend.HV_CORE)[-1], WriteConfig), "switched on, at the end"
    assert one(machine(**MSI), entries=7)[1] == MapMsi(function=FUNCTION, count=4), "a power of two"
    virtual = made([Device(FUNCTION), Device(Sbdf(0, 1, 0, 1), msix=1)]).platform
    functions = (virtual.functions[0], msgspec.structs.replace(virtual.functions[1], physical_function=FUNCTION))
    changed = Made(msgspec.structs.replace(virtual, functions=functions), ())
    assert one(changed, function=Sbdf(0, 1, 0, 1))[:2] == [
        PciDeviceAdd(function=FUNCTION),
        PciDeviceAdd(function=Sbdf(0, 1, 0, 1), physical=FUNCTION),
    ]


@pytest.mark.parametrize(
    ("fields", "wishes", "sentence"),
    [
        ({}, {}, "0000:01:00.0 has neither MSI nor MSI-X"),
        (MSIX | {"driver": "nvme"}, {}, "0000:01:00.0: nvme has it"),
        (MSIX, {"backend": Backend.LINUX}, "there is no hypervisor"),
        (MSIX, {"dialect": Dialect.CLASSIC_2005}, "classic-2005 has no calls for messages"),
        ({"msix": 2048}, {"entries": 2048}, "0000:01:00.0: 2048 vectors are wanted, and 414 can be had"),
        (MSIX, {"policy": Policy.parse("cpu=9")}, "there is no processor 9"),
    ],
)
def test_what_cannot_be_mapped(fields: dict[str, int], wishes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        one(machine(**fields), **wishes)


def test_a_function_that_is_not_there() -> None:
    with pytest.raises(ValueError, match=r"there is no function 0000:02:00\.0"):
        one(machine(**MSIX), function=Sbdf(0, 2, 0, 0))


# --- and away again ---------------------------------------------------------------------------------------------------


def unmapped(made_machine: Made, pirqs: dict[int, tuple[int, bool]], backend: Backend) -> list[AnyOperation]:
    function, state = parts(made_machine)
    plan = unmap_plan(function, state, pirqs, backend, "0" * 64)
    assert plan.facts == (
        FunctionIs(function=FUNCTION, vendor=0x1234, device=0x5678),
        DriverIs(function=FUNCTION, driver=None),
    )
    return list(plan.operations)


def test_messages_are_taken_away() -> None:
    msix = {31: (1, True), 30: (0, True)}
    assert unmapped(machine(**MSIX), msix, Backend.LOOPBACK) == [
        UnmapPirq(pirq=30, table=TABLE),
        UnmapPirq(pirq=31, table=TABLE),
    ]
    assert unmapped(machine(**MSIX), msix, Backend.HV_CORE)[0] == WriteConfig(
        function=FUNCTION, offset=0x72, width=2, value=0, mask=0x8000
    )
    assert unmapped(machine(**MSI), {41: (1, False), 40: (0, False)}, Backend.HV_CORE) == [
        WriteConfig(function=FUNCTION, offset=0x52, width=2, value=0, mask=1),
        UnmapPirq(pirq=40, count=2),
    ]
    with pytest.raises(ValueError, match="has no messages mapped"):
        unmapped(machine(**MSI), {}, Backend.LOOPBACK)
    with pytest.raises(ValueError, match="nvme has it"):
        unmapped(machine(**MSI, driver="nvme"), msix, Backend.LOOPBACK)
