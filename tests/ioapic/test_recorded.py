# SPDX-License-Identifier: MIT
"""INTx ways of recorded machines against what their kernels said: `Interrupt: pin A routed to IRQ 16` of lspci.

There Linux's number is the GSI, but for two causes, each checked by hand:

* NEVER_LOOKED_UP: no driver enabled the function, so the kernel never asked for its route, and lspci prints what
  firmware left in the Interrupt Line register. Example: combo-kfazz 0000:00:1f.3 (SMBus, no driver), "routed to IRQ
  11", its register 3Ch holds 0bh, and its `_PRT` entry leads to GSI 18.
* NUMBERED_AS_NEEDED: the pin is of a second IOAPIC, for which Linux hands out the next free number. Example:
  combo-huananzhi-x99-qd4 0000:03:00.0, "routed to IRQ 27", `_PRT` entry GSI 32; its boot log has 0000:00:01.1 with
  MSI on IRQ 26 and 0000:00:02.0 with MSI on IRQ 28: 27 lies in a run of numbers given out one by one.
"""

from __future__ import annotations

import enum
from collections import Counter

import pytest

from dom0kit.acpi.aml import interpret
from dom0kit.acpi.namespace import pci_addresses
from dom0kit.acpi.tables import decode_table
from dom0kit.ioapic import controllers, legacy
from dom0kit.ioapic.compare import compare
from dom0kit.ioapic.controllers import IoapicSet
from dom0kit.ioapic.intx import IntxRoute, NoRoute, Router
from dom0kit.ioapic.kernel_view import KernelView, parse_boot_log, parse_interrupts
from dom0kit.ioapic.namespace import ioapic_devices
from dom0kit.msi.state import InterruptMode
from dom0kit.msi.state import observe as msi_states
from dom0kit.pci import topology
from dom0kit.pci.config_space import decode_function
from dom0kit.pci.function import Function
from dom0kit.source.recognise import combine
from tests.corpus import CORPUS, combined, needs_corpus
from tests.ioapic.tables import recorded

MOST_DIFFERENT = 0.01


class Cause(enum.Enum):
    NEVER_LOOKED_UP = "no driver enabled the function"
    NUMBERED_AS_NEEDED = "a pin of a second IOAPIC"


def cause(route: IntxRoute, function: Function, ioapics: IoapicSet) -> Cause | None:
    """Why this function's number need not be its GSI."""
    unset = function.irq in (0, 255)
    if function.driver is None and (unset or (function.irq == function.interrupt_line and function.irq < 16)):
        return Cause.NEVER_LOOKED_UP
    if route.ioapic_pin is not None and route.ioapic_pin.ioapic != ioapics.ioapics[0].id:
        return Cause.NUMBERED_AS_NEEDED
    return None


def traced(machine: str) -> tuple[IoapicSet, list[tuple[IntxRoute, Function]]]:
    source = combine(acpi=CORPUS / "acpi" / machine, pci=CORPUS / "pci" / f"{machine}.lspci")
    tables = [decode_table(raw) for raw in source.tables()]
    config = {raw.sbdf: raw.config for raw in source.functions()}
    functions = [decode_function(raw)[0] for raw in source.functions()]
    namespace = interpret(source.tables(), config)
    addresses = pci_addresses(namespace.devices, config)
    tree, _ = topology.build(functions)
    router = Router(functions, tree, namespace, addresses)
    ioapics, _ = controllers.observe(
        tables, devices=ioapic_devices(namespace, addresses), functions=functions, gsis=router.used_gsis()
    )
    intx, _ = router.routes(ioapics)
    by_address = {function.sbdf: function for function in functions}
    return ioapics, [(route, by_address[route.sbdf]) for route in intx.routes]


def counted(machine: str) -> Counter[str]:
    count: Counter[str] = Counter()
    ioapics, routes = traced(machine)
    modes = {state.sbdf: state.mode for state in msi_states(function for _, function in routes)[0]}
    for route, function in routes:
        assert route.reason is not NoRoute.NO_NAMESPACE, machine
        if function.irq is None or modes[route.sbdf] in (InterruptMode.MSI, InterruptMode.MSIX):
            continue
        if route.gsi == function.irq:
            count["equal"] += 1
        elif (why := cause(route, function, ioapics)) is not None:
            count[why.value] += 1
        else:
            count["different"] += 1
            print(f"{machine} {route.sbdf}: IRQ {function.irq}, GSI {route.gsi}: {route.steps}")
    return count


@needs_corpus
@pytest.mark.parametrize("machine", ["combo-kfazz", "combo-msi-ms7721", "combo-umutfahriozkan"])
def test_three_machines(machine: str) -> None:
    count = counted(machine)
    assert count["equal"] >= 7
    assert count["different"] == 0


@needs_corpus
@pytest.mark.slow
def test_every_machine_with_tables_and_config_space() -> None:
    total: Counter[str] = Counter()
    for machine in combined():
        total += counted(machine)
    print(dict(total))
    assert total["equal"] >= 120
    assert total["different"] <= MOST_DIFFERENT * (total["equal"] + total["different"])
    # The causes explain few: a cause that explained much would hide what is wrong.
    assert total[Cause.NEVER_LOOKED_UP.value] <= 6
    assert total[Cause.NUMBERED_AS_NEEDED.value] <= 4


@needs_corpus
def test_a_recorded_list_of_interrupts_agrees_with_the_tables() -> None:
    """Of the one machine with /proc/interrupts, boot log and tables: ISA interrupts, the SCI and IOAPICs."""
    machine = "combo-lenovo-ideapad-320-14isk"
    kernel = KernelView(
        parse_interrupts((CORPUS / "log" / f"{machine}.interrupts").read_text()),
        parse_boot_log((CORPUS / "log" / f"{machine}.dmesg").read_text(errors="replace")),
    )
    tables = [*recorded(CORPUS / "acpi" / machine, "APIC.dat"), *recorded(CORPUS / "acpi" / machine, "FACP.dat")]
    ioapics, _ = controllers.observe(tables, kernel=kernel)
    isa, _ = legacy.observe(tables, ioapics)
    assert [each.irq for each in kernel.interrupts if each.is_ioapic] == [0, 1, 8, 9, 14, 16]
    assert compare([], ioapics, isa, [], kernel) == ()
