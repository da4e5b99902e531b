# SPDX-License-Identifier: MIT
"""The routing table: who uses a GSI, Linux's numbers, where interrupts go."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings

from dom0kit import serial
from dom0kit.acpi.namespace import AmlDevice, Namespace
from dom0kit.acpi.resources import ExtendedInterrupt, Irq
from dom0kit.address import DeliveryMode, IoapicPin, Polarity, Sbdf, Trigger
from dom0kit.interrupt_plan import Wishes, plan_interrupts
from dom0kit.interrupts import Line, Messages, RoutingTable, Target, UseKind, routing_table
from dom0kit.ioapic.redirection import EntryFormat, decode
from dom0kit.msi.messages import MessageFormat, compose, compose_remapped
from dom0kit.msi.state import InterruptMode
from dom0kit.observation import observe
from dom0kit.plan import Backend
from dom0kit.platform import Platform
from dom0kit.source.recognise import open_source
from dom0kit.vectors import cpus_of, in_use
from tests.synthetic import Device, Made, machines, made

RECORDINGS = Path(__file__).parent.parent / "dom0kit" / "recordings"
FIRST, SECOND = Sbdf(0, 1, 0, 0), Sbdf(0, 1, 1, 0)


def table(platform: Platform) -> RoutingTable:
    return routing_table(platform)[0]


def line(platform: Platform, gsi: int) -> Line:
    return next(line for line in table(platform).lines if line.gsi == gsi)


def messages(platform: Platform, function: Sbdf = FIRST) -> Messages:
    return next(each for each in table(platform).messages if each.function == function)


def with_devices(platform: Platform, *devices: AmlDevice) -> Platform:
    return msgspec.structs.replace(platform, namespace=Namespace(interpreter="a", devices=devices))


# --- who uses a GSI ---------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(machines())
def test_every_pin_of_a_function_is_in_the_table(given_machine: Made) -> None:
    platform = given_machine.platform
    found = table(platform)
    routed = {(route.gsi, route.sbdf) for route in platform.routes if route.gsi is not None}
    assert {(each.gsi, function) for each in found.lines for function in each.functions} == routed
    assert [each.gsi for each in found.lines] == sorted({each.gsi for each in found.lines})
    requested = {each.hwirq for each in platform.kernel.interrupts if each.is_ioapic} if platform.kernel else set()
    assert {each.gsi for each in found.lines if each.requested_by} == requested
    for each in found.messages:
        state = next(state for state in platform.msi if state.sbdf == each.function)
        assert each.irqs == state.kernel_irqs
        assert each.used == len(state.kernel_irqs)
    assert serial.decode(serial.encode(found), RoutingTable) == found


def test_who_says_how_a_pin_signals() -> None:
    """The SCI before an ISA interrupt before a function before a device of the namespace."""
    platform = made([Device(FIRST, 9, polarity=Polarity.HIGH)], sci=9, requested={9: "acpi"}).platform
    device = AmlDevice(
        path="\\_SB.GPI0",
        crs=(
            ExtendedInterrupt(
                interrupts=(9, 14),
                trigger=Trigger.LEVEL,
                polarity=Polarity.LOW,
                shared=True,
                wake_capable=False,
                consumer=True,
            ),
        ),
    )
    platform = with_devices(platform, device)
    shared = line(platform, 9)
    assert [user.kind for user in shared.users] == [UseKind.SCI, UseKind.INTX, UseKind.ACPI]
    assert (shared.trigger, shared.polarity, shared.requested_by) == (Trigger.LEVEL, Polarity.LOW, ("acpi",))
    alone = line(platform, 14)
    assert [(user.kind, user.name) for user in alone.users] == [(UseKind.ACPI, "\\_SB.GPI0")]
    (finding,) = routing_table(platform)[1]
    assert (finding.rule, finding.where) == ("irq.shared-signal", "gsi:9")
    assert finding.message == "SCI is level low, 0000:01:00.0 level high"


def test_isa_interrupts_that_are_used() -> None:
    platform = made([], overrides=[(0, 2, 0), (11, 20, 0x0D)], requested={8: "rtc0", 2: "cascade"}).platform
    keyboard = AmlDevice(path="\\_SB.KBD", crs=(Irq(irqs=(1,)), Irq(irqs=())))
    absent = AmlDevice(path="\\_SB.LPT", sta=0xD, crs=(Irq(irqs=(7,)),))
    link = AmlDevice(path="\\_SB.LNKA", hid="PNP0C0F", crs=(Irq(irqs=(5,)),))
    moved = AmlDevice(path="\\_SB.X", crs=(Irq(irqs=(11,)),))
    found = table(with_devices(platform, keyboard, absent, link, moved))
    assert [(each.gsi, each.users[0].name) for each in found.lines] == [
        (1, "ISA 1 \\_SB.KBD"),
        (2, "cascade"),
        (8, "ISA 8"),
        (20, "ISA 11 \\_SB.X"),
    ]
    assert [(each.trigger, each.polarity) for each in found.lines[::3]] == [
        (Trigger.EDGE, Polarity.HIGH),
        (Trigger.LEVEL, Polarity.HIGH),
    ]


def test_a_function_with_messages_leaves_its_pin_quiet() -> None:
    platform = made([Device(FIRST, 20, msix=4, driver="e1000e", irqs=(30,)), Device(SECOND, 20)]).platform
    assert [(user.driver, user.by_message) for user in line(platform, 20).users] == [("e1000e", True), (None, False)]


# --- Linux's numbers --------------------------------------------------------------------------------------------------


def kernel(irq: int, chip: str, pin: int, name: str = "x") -> dict[str, str]:
    folder = f"sys/kernel/irq/{irq}"
    return {f"{folder}/chip_name": chip, f"{folder}/hwirq": str(pin), f"{folder}/actions": name}


def requested(platform: Platform) -> dict[int, int | None]:
    return {each.gsi: each.irq for each in table(platform).lines if each.requested_by}


def test_numbers_of_one_ioapic_are_those_of_its_pins() -> None:
    assert requested(made([], files=kernel(24, "IO-APIC", 5)).platform) == {5: 24}


def test_numbers_of_several_ioapics() -> None:
    route = [Device(FIRST, 30)]
    assert requested(made(route, ioapics=2, files=kernel(20, "IR-IO-APIC", 20)).platform) == {20: 20}
    unknown = made(route, ioapics=2, files=kernel(40, "IO-APIC", 6)).platform
    assert requested(unknown) == {}
    assert [(each.irq, each.hwirq) for each in table(unknown).elsewhere] == [(40, 6)]
    function = msgspec.structs.replace(unknown.functions[0], irq=40)
    assert requested(msgspec.structs.replace(unknown, functions=(function,))) == {30: 40}
    elsewhere = made(route, ioapics=2, files=kernel(40, "IO-APIC", 7)).platform
    function = msgspec.structs.replace(elsewhere.functions[0], irq=40)
    assert requested(msgspec.structs.replace(elsewhere, functions=(function,))) == {}, "its pin is another"


def test_a_pin_that_nobody_asked_for_and_no_table_names_is_no_line() -> None:
    assert table(made([], files=kernel(22, "IO-APIC", 22, name="")).platform).lines == ()


def test_numbers_of_isa_interrupts() -> None:
    """By the pin, which may be another IOAPIC's where an override says so; else as the kernel says."""
    overrides = [(0, 2, 0), (10, 30, 0x0D)]

    def gsis(irq: int, pin: int) -> dict[int, int | None]:
        return requested(made([], ioapics=2, overrides=overrides, files=kernel(irq, "IO-APIC", pin)).platform)

    assert gsis(0, 2) == {2: 0}
    assert gsis(10, 6) == {30: 10}
    assert gsis(10, 10) == {10: 10}
    assert gsis(4, 4) == {4: 4}
    unpinned = {"proc/interrupts": "      CPU0\n 10:  1  IO-APIC-fasteoi  x\n"}
    assert requested(made([], ioapics=2, overrides=overrides, files=unpinned).platform) == {30: 10}


def test_numbers_of_a_domain_of_xen_are_gsis() -> None:
    files = {"proc/interrupts": "      CPU0\n 30:  1  xen-pirq  -ioapic-level  eth0\n 41:  1  xen-pirq  -msi-x  eth1\n"}
    platform = made(
        [Device(FIRST, 30), Device(SECOND, msix=2, driver="a", irqs=(41,))], ioapics=2, files=files
    ).platform
    assert requested(platform) == {30: 30}
    assert messages(platform, SECOND).irqs == (41,)
    assert table(platform).elsewhere == ()


def test_under_xen_the_kernels_processors_are_virtual() -> None:
    files = {
        "sys/hypervisor/type": "xen\n",
        "sys/kernel/irq/20/chip_name": "xen-pirq",
        "sys/kernel/irq/20/actions": "eth0",
        "proc/irq/20/effective_affinity_list": "0\n",
        "sys/kernel/irq/41/chip_name": "xen-pirq",
        "proc/irq/41/effective_affinity_list": "0\n",
        "sys/kernel/irq/50/chip_name": "xen-dyn",
        "sys/kernel/irq/50/actions": "xenbus",
    }
    platform = made([Device(FIRST, 20), Device(SECOND, msi=1, driver="a", irqs=(41,))], files=files).platform
    entries = {IoapicPin(0, 20): decode(0xF1, EntryFormat.COMPATIBILITY)}
    found, _ = routing_table(platform, entries=entries)
    assert (found.lines[0].requested_by, found.lines[0].cpu) == (("eth0",), None)
    assert found.lines[0].target == Target(vector=0xF1, destination=0)
    assert (found.messages[0].cpus, found.messages[0].targets[0].cpus) == ((), ())
    assert [each.chip for each in found.elsewhere] == ["xen-dyn"]
    assert in_use(found, cpus_of(platform)) == ({}, 2), "an event channel takes no vector"
    free = msgspec.structs.replace(found.lines[0], requested_by=())
    table = msgspec.structs.replace(found, lines=(free,))
    plan = plan_interrupts(platform, table, Wishes(backend=Backend.XEN))
    assert ("GSI 20", "Xen itself has it, with vector 0xf1") in {(each.what, each.why) for each in plan.left}


def test_what_is_neither_a_pin_nor_a_functions() -> None:
    files = {"proc/interrupts": "     CPU0\n 24:  1  DMAR-MSI  0-edge  dmar0\n 25:  1  DMAR-MSI  1-edge\n"}
    assert [each.irq for each in table(made([], files=files).platform).elsewhere] == [24]


# --- where interrupts go ----------------------------------------------------------------------------------------------


def test_redirection_entries() -> None:
    platform = made([Device(FIRST, 20)], apic_ids=[4, 6], requested={20: "x"}).platform
    entry = decode(0x0600_0000_0000_A031, EntryFormat.COMPATIBILITY)
    found = routing_table(platform, entries={IoapicPin(0, 20): entry})[0].lines[0].target
    assert found == Target(vector=0x31, destination=6, cpus=(1,))
    flat = msgspec.structs.replace(entry, destination=3, logical=True, delivery_mode=DeliveryMode.LOWEST_PRIORITY)
    found = routing_table(platform, entries={IoapicPin(0, 20): flat})[0].lines[0].target
    assert found == Target(vector=0x31, destination=3, logical=True, cpus=(0, 1))
    remapped = decode(0x0003_0000_0001_0031, EntryFormat.VTD)
    found = routing_table(platform, entries={IoapicPin(0, 20): remapped})[0].lines[0].target
    assert found == Target(vector=None, remap_index=1, masked=True)
    assert line(platform, 20).target is None


def test_messages_of_config_space() -> None:
    platform = made([Device(FIRST, msi=4, driver="a", irqs=(40,))], apic_ids=[0, 1]).platform
    found = messages(platform)
    assert (found.mode, found.msi, found.msix, found.used) == (InterruptMode.MSI, 4, 0, 1)
    assert found.targets == (Target(vector=0x41, destination=0, cpus=(0,)),)
    state = platform.msi[0]
    assert state.msi is not None
    four = msgspec.structs.replace(state.msi, vectors_allocated=4, masked=2)
    changed = msgspec.structs.replace(platform, msi=(msgspec.structs.replace(state, msi=four),))
    assert [(target.vector, target.masked) for target in messages(changed).targets] == [
        (0x41, False),
        (0x42, True),
        (0x43, False),
        (0x44, False),
    ]
    through = msgspec.structs.replace(four, message=compose_remapped(0x20, MessageFormat.VTD, 0))
    changed = msgspec.structs.replace(platform, msi=(msgspec.structs.replace(state, msi=through),))
    assert [target.remap_index for target in messages(changed).targets] == [0x20, 0x21, 0x22, 0x23]


def test_messages_of_a_table() -> None:
    platform = made([Device(FIRST, msix=2, driver="a", irqs=(40, 41))], apic_ids=[0, 9]).platform
    entries = {FIRST: [(compose(9, 0x51), False), (compose(3, 0x52), True)]}
    found = routing_table(platform, tables=entries)[0].messages[0]
    assert found.targets == (
        Target(vector=0x51, destination=9, cpus=(1,)),
        Target(vector=0x52, destination=3, masked=True),
    )
    assert messages(platform).targets == ()


def test_where_linux_sends_messages() -> None:
    files = {f"proc/irq/{irq}/effective_affinity_list": cpu for irq, cpu in ((40, "1\n"), (41, "0\n"), (20, "1\n"))}
    devices = [Device(FIRST, 20, msix=2, driver="a", irqs=(40, 41)), Device(SECOND, msix=2, driver="a", irqs=(42,))]
    platform = made(devices, requested={20: "x"}, files=files).platform
    assert messages(platform).cpus == (1, 0)
    assert messages(platform, SECOND).cpus == (), "of all, or not at all"
    assert line(platform, 20).cpu == 1


@pytest.mark.parametrize("name", [path.stem for path in sorted(RECORDINGS.glob("*.d0k"))])
def test_shipped_recordings(name: str) -> None:
    """Everything that a driver requested is in the table, once."""
    platform = observe(open_source(str(RECORDINGS / f"{name}.d0k")))
    found = table(platform)
    interrupts = platform.kernel.interrupts if platform.kernel is not None else ()
    asked = sorted(each.irq for each in interrupts if each.actions)
    told = [each.irq for each in found.lines if each.requested_by] + [each.irq for each in found.elsewhere]
    told += [irq for each in found.messages for irq in each.irqs]
    assert set(asked) <= set(told)
    assert len(told) == len(set(told))
