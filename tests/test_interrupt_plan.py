# SPDX-License-Identifier: MIT
"""Plans for interrupts: laws of every plan, and what the core makes of them over made and recorded machines."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dom0kit import serial
from dom0kit.abi import InterruptFlag, Kind, Mode
from dom0kit.acpi.namespace import AmlDevice, Namespace
from dom0kit.acpi.resources import Irq
from dom0kit.acpi.tables.mcfg import Allocation, Mcfg
from dom0kit.address import DeliveryMode, IoapicPin, Polarity, Sbdf, Trigger
from dom0kit.hypercall.apply import apply, roll_back
from dom0kit.hypercall.core_library import ModelMachine
from dom0kit.hypercall.journal import Journals
from dom0kit.hypercall.linux import Linux
from dom0kit.hypercall.world import World
from dom0kit.interrupt_plan import InterruptPlan, Wishes, plan_interrupts
from dom0kit.interrupts import routing_table
from dom0kit.ioapic.legacy import Nmi
from dom0kit.ioapic.redirection import EntryFormat, decode
from dom0kit.iommu.facts import IommuFacts, IommuKind
from dom0kit.msi.messages import MessageFormat
from dom0kit.msi.messages import decode as decode_message
from dom0kit.observation import observe
from dom0kit.pci.function import Bridge
from dom0kit.plan import (
    AnyOperation,
    Backend,
    Dialect,
    DriverIs,
    GsiUnused,
    IoapicAdd,
    MapGsi,
    MapMsi,
    MapMsix,
    ModeIs,
    PciDeviceAdd,
    PciMmcfgReserved,
    Plan,
    SetAffinity,
    SetLinuxAffinity,
    SetupGsi,
    WriteEntry,
    WriteMsi,
    WriteMsixEntry,
)
from dom0kit.platform import Platform
from dom0kit.simulation import machine_of
from dom0kit.source.interface import RawTable
from dom0kit.source.recognise import combine, open_source
from dom0kit.vectors import Policy, cpus_of
from dom0kit.xen import DomainKind, XenDomain, XenVersion
from tests.acpi.asl import needs_interpreter
from tests.corpus import CORPUS, acpi_folders, combined, needs_corpus
from tests.synthetic import Device, Made, machines, made

SHIPPED = sorted((Path(__file__).parent.parent / "dom0kit" / "recordings").glob("*.d0k"))
CORES = (Backend.LIBRARY, Backend.LOOPBACK, Backend.HV_CORE)
SPOKEN = [
    *((Dialect.MODERN, backend) for backend in Backend),
    *((Dialect.CLASSIC_2005, backend) for backend in CORES),
    (Dialect.CLASSIC_XEN, Backend.XEN),
]
POLICIES = st.sampled_from([None, Policy(), Policy.parse("node")])


def planned(platform: Platform, wishes: Wishes) -> InterruptPlan:
    return plan_interrupts(platform, routing_table(platform)[0], wishes)


def of(plan: Plan, *kinds: type[AnyOperation]) -> list[AnyOperation]:
    return [operation for operation in plan.operations if isinstance(operation, kinds)]


def functions_of(operation: AnyOperation) -> set[Sbdf]:
    return {operation.function} if isinstance(operation, MapMsi | MapMsix | WriteMsi | WriteMsixEntry) else set()


# --- laws of a plan ---------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(machines(), st.sampled_from(SPOKEN), st.booleans(), POLICIES, st.none() | st.integers(1, 64))
def test_laws(
    given_machine: Made, spoken: tuple[Dialect, Backend], intercept: bool, policy: Policy | None, entries: int | None
) -> None:
    platform, (dialect, backend) = given_machine.platform, spoken
    wishes = Wishes(dialect=dialect, backend=backend, intercept=intercept, policy=policy, entries=entries)
    result = planned(platform, wishes)
    plan = result.plan
    assert (plan.dialect, plan.backend, plan.fingerprint) == (dialect, backend, platform.origin.fingerprint)
    assert serial.decode(serial.encode(plan), Plan) == plan
    assert planned(platform, wishes) == result, "a function of its arguments"
    check_order(plan)
    check_left_alone(platform, result)
    check_pairs(plan, intercept)
    check_numbers(platform, plan, entries)
    if backend is Backend.LINUX:
        assert all(isinstance(operation, SetLinuxAffinity) for operation in plan.operations)
    if backend in (Backend.XEN, Backend.LIBRARY):
        assert not of(plan, SetLinuxAffinity)
    if policy is None:
        assert not of(plan, SetAffinity, SetLinuxAffinity)
    if backend is not Backend.HV_CORE:
        assert not of(plan, WriteMsi, WriteMsixEntry), "a device's registers are written on hv_core alone"
    assert (ModeIs(intercept=intercept) in plan.facts) == backend.is_core


def check_order(plan: Plan) -> None:
    """Linux's: ECAM ranges, functions (physical ones first), GSIs mapped right before they are set up, messages."""
    order = {IoapicAdd: 0, PciMmcfgReserved: 1, PciDeviceAdd: 2, MapGsi: 3, SetupGsi: 3, WriteEntry: 3, SetAffinity: 3}
    steps = [order.get(type(operation), 4) for operation in plan.operations if not isinstance(operation, SetAffinity)]
    assert steps == sorted(steps)
    known: set[Sbdf] = set()
    for operation in plan.operations:
        if isinstance(operation, PciDeviceAdd):
            assert operation.physical is None or operation.physical in known
            assert operation.function not in known
            known.add(operation.function)
        elif plan.backend is not Backend.LINUX:
            assert functions_of(operation) <= known
    for before, operation in zip((None, *plan.operations), plan.operations, strict=False):
        if isinstance(operation, SetupGsi):
            assert isinstance(before, MapGsi)
            assert before.gsi == before.pirq == operation.gsi


def check_left_alone(platform: Platform, result: InterruptPlan) -> None:
    """What a driver of dom0 has is not touched; everything else of the routing table is in the plan, or said."""
    plan = result.plan
    table = routing_table(platform)[0]
    gsis: list[int] = [operation.gsi for operation in plan.operations if isinstance(operation, SetupGsi)]
    bases = {ioapic.address: ioapic.gsi_base for ioapic in platform.ioapics}
    gsis += [bases[each.ioapic] + each.pin for each in plan.operations if isinstance(each, WriteEntry)]
    assert len(set(gsis)) == len(gsis)
    left = {each.what for each in result.left}
    for line in table.lines:
        named = f"GSI {line.gsi}" in left
        if plan.backend is Backend.LINUX:
            assert line.gsi not in gsis
            continue
        assert (line.gsi in gsis) is not named
        if line.requested_by or line.ioapic_pin is None:
            assert named
        elif not named and plan.backend is not Backend.LIBRARY:
            assert GsiUnused(gsi=line.gsi) in plan.facts
    free = {each.sbdf for each in platform.functions if each.driver is None}
    for operation in plan.operations:
        assert functions_of(operation) <= free
        for function in functions_of(operation) if plan.backend is not Backend.LIBRARY else ():
            assert DriverIs(function=function, driver=None) in plan.facts


def check_pairs(plan: Plan, intercept: bool) -> None:
    """Invariant 2, where the plan itself chooses: no two of a (processor, vector) pair, and nothing but fixed."""
    found: list[tuple[int | None, int | None]] = []
    for operation in plan.operations:
        if isinstance(operation, WriteEntry) and plan.dialect is Dialect.CLASSIC_2005:
            entry = decode(operation.entry, EntryFormat.COMPATIBILITY)
            assert entry.masked
            assert (entry.delivery_mode, entry.logical, entry.reserved) == (DeliveryMode.FIXED, False, 0)
            found.append((entry.destination, entry.vector))
        elif isinstance(operation, MapMsi | MapMsix):
            chosen = plan.backend is not Backend.XEN and not intercept
            assert (operation.message is not None) == chosen
            if operation.message is not None:
                message = decode_message(*astuple(operation.message), MessageFormat.COMPATIBILITY)
                count = operation.count if isinstance(operation, MapMsi) else 1
                assert (message.vector or 0) % count == 0
                found += ((message.destination, (message.vector or 0) + number) for number in range(count))
    assert len(set(found)) == len(found)
    assert all(vector is not None and 0x20 <= vector <= 0xEF and vector != 0x80 for _, vector in found)


def astuple(message: object) -> tuple[int, int]:
    return message.address, message.data  # type: ignore[attr-defined]


def check_numbers(platform: Platform, plan: Plan, entries: int | None) -> None:
    """No function has both kinds, or more messages than it has or was asked for; MSI-X entries from 0 on."""
    states = {state.sbdf: state for state in platform.msi}
    tables: dict[Sbdf, list[int]] = {}
    for operation in plan.operations:
        if isinstance(operation, MapMsix):
            state = states[operation.function]
            assert state.msix is not None
            assert operation.table == (state.msix.table_address or 0) - (
                state.msix.table_offset if plan.backend is Backend.XEN else 0
            )
            tables.setdefault(operation.function, []).append(operation.entry)
        elif isinstance(operation, MapMsi):
            state = states[operation.function]
            assert state.msix is None
            assert state.msi is not None
            assert operation.count <= min(state.msi.vectors_capable, entries or 1)
    most = len(cpus_of(platform)) if entries is None else entries
    for function, found in tables.items():
        vectors = states[function].msix
        assert vectors is not None
        assert found == list(range(len(found)))
        assert len(found) <= min(vectors.vectors, most)


def reasons(result: InterruptPlan) -> dict[str, str]:
    return {each.what: each.why for each in result.left}


def test_gsis_that_are_left_alone_and_why() -> None:
    device = [Device(Sbdf(0, 1, 0, 0), 20), Device(Sbdf(0, 1, 1, 0), 70), Device(Sbdf(0, 1, 2, 0), 30)]
    platform = made(device, ioapics=2, requested={20: "eth0"}).platform
    wishes = Wishes(backend=Backend.LOOPBACK)
    result = planned(platform, wishes)
    assert reasons(result) == {"GSI 20": "eth0 has requested it", "GSI 70": "it is no pin of an IOAPIC"}
    assert [operation.gsi for operation in result.plan.operations if isinstance(operation, MapGsi)] == [30]
    assert platform.legacy is not None
    nmi = Nmi(30, Trigger.EDGE, Polarity.HIGH, IoapicPin(1, 6))
    changed = msgspec.structs.replace(platform, legacy=msgspec.structs.replace(platform.legacy, nmis=(nmi,)))
    assert "NMI" in reasons(planned(changed, wishes))["GSI 30"]
    twins = tuple(msgspec.structs.replace(ioapic, id=0) for ioapic in platform.ioapics)
    changed = msgspec.structs.replace(platform, ioapics=twins)
    assert reasons(planned(changed, wishes))["GSI 30"].startswith("its IOAPIC has the id of another")
    mine = Wishes(backend=Backend.LOOPBACK, domains={Sbdf(0, 1, 2, 0): 3})
    assert reasons(planned(platform, mine))["GSI 30"] == "it is domain 3's"


def test_without_the_kernels_word_a_driver_may_have_requested() -> None:
    devices = [
        Device(Sbdf(0, 1, 0, 0), 20, driver="e1000e"),
        Device(Sbdf(0, 1, 1, 0), 21, msi=1, driver="ahci", irqs=(30,)),
    ]
    unheard = made(devices, files={"sys/kernel/irq/30/chip_name": ""}).platform
    assert unheard.kernel is not None
    assert not unheard.kernel.interrupts
    assert reasons(planned(unheard, Wishes(backend=Backend.LOOPBACK)))["GSI 20"] == "e1000e may have requested it"
    assert "GSI 21" not in reasons(planned(unheard, Wishes(backend=Backend.LOOPBACK))), "it interrupts by messages"
    heard = made(devices).platform
    assert "GSI 20" not in reasons(planned(heard, Wishes(backend=Backend.LOOPBACK)))


def test_the_timer_is_xens() -> None:
    timer = AmlDevice(path="\\_SB.TMR", crs=(Irq(irqs=(0,)),))
    platform = made([], overrides=[(0, 2, 0)]).platform
    platform = msgspec.structs.replace(platform, namespace=Namespace(interpreter="a", devices=(timer,)))
    assert reasons(planned(platform, Wishes(backend=Backend.XEN))) == {"GSI 2": "the timer is Xen's own"}
    assert reasons(planned(platform, Wishes(backend=Backend.LOOPBACK))) == {}


def test_bridges_and_other_domains_functions_have_their_messages_alone() -> None:
    bridge = BEHIND_A_BRIDGE.functions[0]
    assert bridge.buses is not None
    result = planned(BEHIND_A_BRIDGE, Wishes(backend=Backend.XEN))
    assert reasons(result)[str(bridge.sbdf)] == "a bridge, whose messages are its port driver's"
    given = Wishes(backend=Backend.XEN, domains={BEHIND_A_BRIDGE.functions[1].sbdf: 2})
    assert reasons(planned(BEHIND_A_BRIDGE, given))[str(BEHIND_A_BRIDGE.functions[1].sbdf)] == "it is domain 2's"
    assert of(result.plan, MapMsix)


def with_a_bridge() -> Platform:
    platform = made([Device(Sbdf(0, 0, 1, 0), msix=1), Device(Sbdf(0, 1, 0, 0), msix=1)]).platform
    bridge = Bridge(0, 1, 1, 0, 0, None, None, None, 0, False, "")
    port = msgspec.structs.replace(platform.functions[0], bridge=bridge)
    return msgspec.structs.replace(platform, functions=(port, platform.functions[1]))


BEHIND_A_BRIDGE = with_a_bridge()


def test_physical_functions_come_first() -> None:
    physical, virtual = Sbdf(0, 2, 0, 0), Sbdf(0, 1, 0, 0)
    platform = made([Device(physical), Device(virtual)]).platform
    functions = tuple(
        msgspec.structs.replace(each, physical_function=physical if each.sbdf == virtual else None)
        for each in platform.functions
    )
    plan = planned(msgspec.structs.replace(platform, functions=functions), Wishes(backend=Backend.XEN)).plan
    assert [(each.function, each.physical) for each in plan.operations if isinstance(each, PciDeviceAdd)] == [
        (physical, None),
        (virtual, physical),
    ]
    check_order(plan)


def test_functions_by_ari_are_told_as_such() -> None:
    source = open_source(next(str(path) for path in SHIPPED if path.stem == "qemu-q35"))
    platform = observe(source, aml=False)
    behind = Sbdf(0, 1, 1, 0)  # the root port above forwards by ARI: this is function 8 of device 0
    moved = tuple(
        msgspec.structs.replace(each, sbdf=behind) if each.sbdf == Sbdf(0, 1, 0, 4) else each
        for each in platform.functions
    )
    plan = planned(msgspec.structs.replace(platform, functions=moved, msi=()), Wishes(backend=Backend.XEN)).plan
    extended = [each.function for each in plan.operations if isinstance(each, PciDeviceAdd) and each.extended]
    assert extended == [behind]


def test_only_ecam_ranges_that_can_be_are_told() -> None:
    platform = made([]).platform
    table = next(table for table in platform.tables if table.signature == "MCFG")
    assert isinstance(table.content, Mcfg)

    def allocation(base: int, first: int, last: int) -> Allocation:
        return Allocation(base_address=base, segment=0, start_bus=first, end_bus=last)

    ranges = (
        allocation(0xE000_0000, 0, 0x3F),
        allocation(0xD000_0000, 0x3F, 0x7F),  # bus 3f twice
        allocation(0xD000_1000, 0x40, 0x7F),
        allocation(0, 0x40, 0x7F),
        allocation(0xD000_0000, 0x50, 0x4F),
        allocation(0xC000_0000, 0x40, 0xFF),
    )
    content = msgspec.structs.replace(table.content, allocations=ranges)
    first = msgspec.structs.replace(table, content=content)
    bad = msgspec.structs.replace(table, checksum_ok=False)
    changed = msgspec.structs.replace(platform, tables=(bad, first, table))
    plan = planned(changed, Wishes(backend=Backend.XEN)).plan
    told = [(each.address, each.start_bus) for each in plan.operations if isinstance(each, PciMmcfgReserved)]
    assert told == [(0xE000_0000, 0), (0xC000_0000, 0x40)]


def test_what_drivers_have_is_moved_where_the_policy_wants_it() -> None:
    """Through Linux; not what is there already, nor the timer, nor what Linux itself manages."""
    files = {f"proc/irq/{irq}/effective_affinity_list": cpu for irq, cpu in ((20, "0\n"), (21, "1\n"), (31, "1\n"))}
    devices = [
        Device(Sbdf(0, 1, 0, 0), 20, node=1),
        Device(Sbdf(0, 1, 1, 0), msix=4, driver="e1000e", irqs=(30, 31), node=1),
        Device(Sbdf(0, 1, 2, 0), msix=4, driver="nvme", irqs=(32,), node=1, class_code=0x010802),
    ]
    platform = made(
        devices, requested={20: "a", 21: "b", 0: "timer"}, files=files, nodes={0: 0, 1: 1}, overrides=[(0, 0, 0)]
    ).platform

    def moves(policy: str | None) -> list[tuple[int, str]]:
        wishes = Wishes(backend=Backend.LINUX, policy=None if policy is None else Policy.parse(policy))
        result = planned(platform, wishes)
        assert policy is None or "Linux itself manages" in reasons(result)["0000:01:02.0"]
        return [(each.irq, each.cpus) for each in result.plan.operations if isinstance(each, SetLinuxAffinity)]

    assert moves("cpu=1") == [(20, "1"), (30, "1"), (31, "1")]
    assert moves("cpu=0") == [(21, "0"), (30, "0"), (31, "0")]
    assert moves("node") == [(20, "1"), (30, "1"), (31, "1")]
    assert moves("spread") == moves(None) == []
    assert moves("cpu=0-1") == [(30, "0-1"), (31, "0-1")], "where they go is not known of all"


def test_in_direct_mode_nothing_is_given_twice() -> None:
    """What is known to be in use on a processor is taken by nobody else."""
    devices = [Device(Sbdf(0, 1, 0, 0), msi=1, driver="a", irqs=(30,)), Device(Sbdf(0, 1, 1, 0), msix=2048)]
    platform = made(devices, apic_ids=[0]).platform
    wishes = Wishes(backend=Backend.HV_CORE, intercept=False, entries=2048)
    result = planned(platform, wishes)
    vectors = [each.message.data for each in result.plan.operations if isinstance(each, MapMsix) and each.message]
    assert len(vectors) == len(set(vectors)) == 201, "Linux 6.1 has 202, and one is at 0x41"
    assert 0x41 not in vectors
    assert [(each.wants, each.gets) for each in result.limited] == [(2048, 201)]


def test_which_processors_messages_reach() -> None:
    """8 bits without a remapper; 15 where the hypervisor announced the extended destination id; all through a core that
    has a remapper."""
    device = Device(Sbdf(0, 1, 0, 0), 20, msix=4)
    platform = made([device], apic_ids=[0xFE, 0x100, 0x7FFF, 0x8000]).platform

    def reached(**wishes: Any) -> set[int | None]:
        asked = Wishes(backend=Backend.HV_CORE, entries=4, intercept=False, **wishes)
        return {
            decode_message(*astuple(each.message), MessageFormat.EXTENDED_DESTINATION).destination
            for each in planned(platform, asked).plan.operations
            if isinstance(each, MapMsix)
        }

    assert reached() == {0xFE}
    assert reached(extended_destination=True) == {0xFE, 0x100, 0x7FFF}
    remapped = msgspec.structs.replace(platform, iommu=IommuFacts(kind=IommuKind.VT_D, interrupt_remapping=True))
    moved = planned(remapped, Wishes(backend=Backend.LOOPBACK, entries=4, policy=Policy())).plan
    assert {each.cpu for each in moved.operations if isinstance(each, SetAffinity)} == {0, 1, 2, 3}
    classic = planned(
        platform, Wishes(backend=Backend.LIBRARY, dialect=Dialect.CLASSIC_2005, extended_destination=True)
    )
    (written,) = (each for each in classic.plan.operations if isinstance(each, WriteEntry))
    assert decode(written.entry, EntryFormat.EXTENDED_DESTINATION).destination in {0xFE, 0x100, 0x7FFF}


def test_one_backend_does_not_speak_every_dialect() -> None:
    for dialect in Dialect:
        for backend in Backend:
            if (dialect, backend) in SPOKEN:
                Wishes(dialect=dialect, backend=backend)
            else:
                with pytest.raises(ValueError, match="does not speak"):
                    Wishes(dialect=dialect, backend=backend)


def test_what_xen_withholds_from_a_domain() -> None:
    devices = [Device(Sbdf(0, 1, 0, 0), 20, msix=2)]
    platform = made(devices).platform

    def plan_for(kind: DomainKind, minor: int, dialect: Dialect = Dialect.MODERN) -> InterruptPlan:
        domain = XenDomain(kind, XenVersion(4, minor), True)
        return planned(msgspec.structs.replace(platform, xen=domain), Wishes(backend=Backend.XEN, dialect=dialect))

    pv = plan_for(DomainKind.PV, 17)
    assert len(of(pv.plan, MapGsi, SetupGsi, MapMsix)) == 4
    for minor in (17, 20):
        pvh = plan_for(DomainKind.PVH, minor)
        assert [type(operation) for operation in pvh.plan.operations] == [PciMmcfgReserved, PciDeviceAdd]
        assert {each.what: each.why for each in pvh.left} == {
            "GSIs": "a PVH dom0 has no pIRQs of its own",
            "MSI and MSI-X": "a PVH dom0 has no pIRQs of its own",
        }
    classic = plan_for(DomainKind.PVH, 20, Dialect.CLASSIC_XEN)
    assert classic.plan.operations == ()
    assert "virtual IOAPIC" in classic.left[0].why


# --- what the core makes of it ----------------------------------------------------------------------------------------


def carried_out(
    platform: Platform, tables: tuple[RawTable, ...], wishes: Wishes
) -> Iterator[tuple[ModelMachine, Plan]]:
    """The plan's machine, with the plan applied to it; then rolled back, and as before."""
    mode = Mode.INTERCEPT if wishes.intercept else Mode.DIRECT
    machine = machine_of(platform, tables, mode)
    plan = planned(platform, wishes).plan
    core = machine.domain(0)

    def state() -> tuple[object, ...]:
        told = core.information()
        entries = [
            core.apic_read(ioapic.address, register)
            for ioapic in core.shared_info().ioapics
            for register in range(0x10, 0x10 + 2 * ioapic.pins)
        ]
        return list(core.interrupts()), told.functions, told.messages, entries

    before = state()
    with tempfile.TemporaryDirectory() as folder, Journals(f"{folder}/journals") as journals:

        def world(backend: Backend) -> World:
            return World(backend, core, Linux(folder))

        apply(plan, world(plan.backend), journals, fingerprint=plan.fingerprint, boot="a boot")
        yield machine, plan
        roll_back(journals, world, boot="a boot")
    assert state() == before, "invariant 5: rolled back, the state is as it was"


def check_carried_out(platform: Platform, tables: tuple[RawTable, ...], wishes: Wishes) -> None:
    """Everything of the plan is there, no vector twice, signals as routed; and it goes back."""
    for machine, plan in carried_out(platform, tables, wishes):
        interrupts = list(machine.domain(0).interrupts())
        pairs = [(each.cpu, each.vector) for each in interrupts if each.vector is not None]
        assert len(set(pairs)) == len(pairs), "invariant 2"
        lines = {each.gsi: each for each in interrupts if each.kind is Kind.GSI}
        table = {line.gsi: line for line in routing_table(platform)[0].lines}
        for operation in plan.operations:
            if isinstance(operation, SetupGsi):
                line, wanted = lines[operation.gsi], table[operation.gsi]
                assert line.pirq == operation.gsi
                assert (InterruptFlag.LEVEL in line.flags) == (wanted.trigger is not Trigger.EDGE)
                assert (InterruptFlag.ACTIVE_LOW in line.flags) == (wanted.polarity is not Polarity.HIGH)
                assert InterruptFlag.MASKED in line.flags
            elif isinstance(operation, WriteEntry):
                low = machine.domain(0).apic_read(operation.ioapic, 0x10 + 2 * operation.pin)
                assert low == operation.entry & 0xFFFFFFFF
        messages = {(each.function, each.entry) for each in interrupts if each.kind is not Kind.GSI}
        mapped = {
            (operation.function, entry)
            for operation in plan.operations
            if isinstance(operation, MapMsi | MapMsix)
            for entry in ([operation.entry] if isinstance(operation, MapMsix) else range(operation.count))
        }
        assert messages == mapped
        moved: dict[object, int] = {each.irq: each.cpu for each in plan.operations if isinstance(each, SetAffinity)}
        for gsi, line in lines.items():
            assert gsi not in moved or line.cpu == moved[gsi]


@settings(deadline=None, max_examples=25)
@given(machines(max_devices=8), st.sampled_from([Dialect.MODERN, Dialect.CLASSIC_2005]), st.booleans(), POLICIES,
       st.sampled_from([None, 1, 4, 64]))  # fmt: skip
def test_the_core_carries_it_out(
    given_machine: Made, dialect: Dialect, intercept: bool, policy: Policy | None, entries: int | None
) -> None:
    wishes = Wishes(dialect=dialect, backend=Backend.LIBRARY, intercept=intercept, policy=policy, entries=entries)
    check_carried_out(given_machine.platform, given_machine.tables, wishes)


def check_pins_arrive(platform: Platform, tables: tuple[RawTable, ...], dialect: Dialect) -> None:
    """Every function's pin, raised at the IOAPIC's pin that the routing says, arrives as the GSI that it says."""
    machine = machine_of(platform, tables)
    core = machine.domain(0)
    plan = planned(platform, Wishes(dialect=dialect, backend=Backend.LIBRARY)).plan
    with tempfile.TemporaryDirectory() as folder, Journals(f"{folder}/journals") as journals:
        world = World(plan.backend, core, Linux(folder))
        apply(plan, world, journals, fingerprint=plan.fingerprint, boot="a boot")
    addresses = {ioapic.id: ioapic.address for ioapic in reversed(platform.ioapics)}
    prepared: set[int] = {operation.gsi for operation in plan.operations if isinstance(operation, MapGsi)}
    prepared |= {
        ioapic.gsi_base + operation.pin
        for operation in plan.operations
        if isinstance(operation, WriteEntry)
        for ioapic in platform.ioapics
        if ioapic.address == operation.ioapic
    }
    vector = 0x31
    for route in platform.routes:
        if route.gsi not in prepared or route.ioapic_pin is None:
            continue
        address, pin = addresses[route.ioapic_pin.ioapic], route.ioapic_pin.pin
        # As a driver that requests it: unmasked, with a vector of dom0's own, to a processor that is there.
        if dialect is Dialect.MODERN:
            core.apic_write(address, 0x11 + 2 * pin, next(cpu.apic_id for cpu in cpus_of(platform)) << 24)
        low = core.apic_read(address, 0x10 + 2 * pin) & 0xFF00
        core.apic_write(address, 0x10 + 2 * pin, low | vector)
        machine.line(address, pin, True)
        arrivals = [arrival for cpu in range(len(cpus_of(platform))) if (arrival := machine.take(cpu)) is not None]
        assert [(arrival.gsi, arrival.guest_vector) for arrival in arrivals] == [(route.gsi, vector)]
        machine.line(address, pin, False)
        for cpu in range(len(cpus_of(platform))):
            machine.end(cpu)
        core.eoi(route.gsi)


@settings(deadline=None, max_examples=20)
@given(machines(max_devices=8), st.sampled_from([Dialect.MODERN, Dialect.CLASSIC_2005]))
def test_every_pin_arrives_where_the_routing_says(given_machine: Made, dialect: Dialect) -> None:
    assume(all(cpu.apic_id < 0xFF for cpu in cpus_of(given_machine.platform)))  # others need a remapper
    check_pins_arrive(given_machine.platform, given_machine.tables, dialect)


# --- recorded machines ------------------------------------------------------------------------------------------------


def check_everywhere(platform: Platform, tables: tuple[RawTable, ...]) -> None:
    """The laws for every dialect and backend; the core carries out the plans for it."""
    for dialect, backend in SPOKEN:
        for intercept in (False, True):
            result = planned(platform, Wishes(dialect=dialect, backend=backend, intercept=intercept))
            check_order(result.plan)
            check_left_alone(platform, result)
            check_pairs(result.plan, intercept)
            check_numbers(platform, result.plan, None)
    check_carried_out(platform, tables, Wishes(backend=Backend.LIBRARY))
    check_carried_out(platform, tables, Wishes(dialect=Dialect.CLASSIC_2005, backend=Backend.LIBRARY, intercept=False))
    check_pins_arrive(platform, tables, Dialect.MODERN)


@needs_interpreter
@pytest.mark.parametrize("name", [path.stem for path in SHIPPED])
def test_shipped_machines(name: str) -> None:
    source = open_source(next(str(path) for path in SHIPPED if path.stem == name))
    check_everywhere(observe(source), tuple(source.tables()))


@needs_corpus
@needs_interpreter
@pytest.mark.slow
@pytest.mark.parametrize("name", combined())
def test_recorded_machines(name: str) -> None:
    source = combine(acpi=CORPUS / "acpi" / name, pci=CORPUS / "pci" / f"{name}.lspci")
    check_everywhere(observe(source), tuple(source.tables()))


@needs_corpus
@pytest.mark.slow
def test_recorded_tables() -> None:
    """Machines of which the tables alone are recorded: the SCI and the overrides."""
    planned_for = 0
    for folder in acpi_folders():
        if folder.name in combined():
            continue
        source = open_source(str(folder))
        platform = observe(source, aml=False)
        if not cpus_of(platform):
            continue
        planned_for += 1
        result = planned(platform, Wishes(backend=Backend.LIBRARY))
        check_order(result.plan)
        check_left_alone(platform, result)
        if any(isinstance(operation, MapGsi) for operation in result.plan.operations):
            check_carried_out(platform, tuple(source.tables()), Wishes(backend=Backend.LIBRARY))
    assert planned_for > 100
