# SPDX-License-Identifier: MIT
"""The way of INTx pins: laws of the swizzle, machines made here, recorded machines, and QEMU's own wiring."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from dom0kit import serial
from dom0kit.acpi.namespace import AmlDevice, Evaluation, Namespace
from dom0kit.acpi.resources import ExtendedInterrupt, Resource
from dom0kit.acpi.routing import NoGsi, PrtEntry
from dom0kit.address import IntxPin, IoapicPin, Polarity, Sbdf, Trigger
from dom0kit.finding import Finding
from dom0kit.ioapic.controllers import Ioapic, IoapicSet, PinsFrom
from dom0kit.ioapic.intx import MAX_SHARED, Intx, IntxRoute, NoRoute, Router
from dom0kit.pci import topology
from dom0kit.pci.capabilities.express import Express
from dom0kit.pci.function import CardBus, CardBusWindow, Function
from tests.pci import machines

A, B, C, D = IntxPin
PINS = st.sampled_from(IntxPin)
DEVICES = st.integers(0, 31)


@given(PINS, DEVICES)
def test_a_swizzle_is_a_rotation(pin: IntxPin, device: int) -> None:
    assert {each.swizzled(device) for each in IntxPin} == set(IntxPin)
    assert pin.swizzled(device) is pin.swizzled(device + 4)
    assert pin.swizzled(device).swizzled(4 - device % 4) is pin


# --- machines made here -----------------------------------------------------------------------------------------------

IOAPICS = IoapicSet(
    (
        Ioapic(2, 0xFEC00000, 0, 24, PinsFrom.BOOT_LOG, 0x20, True, None, None),
        Ioapic(3, 0xFEC01000, 24, 32, PinsFrom.BOOT_LOG, 0x20, True, None, None),
    )
)


def function(
    address: str, pin: IntxPin | None = A, *, buses: tuple[int, int] | None = None, **more: object
) -> Function:
    made = machines.function(address, buses=buses, express=machines.ROOT_PORT if buses else None)
    return msgspec.structs.replace(made, interrupt_pin=pin, **more)


def prt(*entries: tuple[int, IntxPin, int | str]) -> tuple[PrtEntry, ...]:
    return tuple(
        PrtEntry(device=device, pin=pin, source_index=to)
        if isinstance(to, int)
        else PrtEntry(device=device, pin=pin, source=to)
        for device, pin, to in entries
    )


def root(*entries: tuple[int, IntxPin, int | str], segment: int = 0, bus: int = 0, name: str = "PCI0") -> AmlDevice:
    return AmlDevice(path=f"\\_SB.{name}", hid="PNP0A08", seg=segment, bbn=bus, prt=prt(*entries))


def routed(
    functions: Sequence[Function],
    devices: Sequence[AmlDevice],
    addresses: dict[str, str] | None = None,
    ioapics: IoapicSet = IOAPICS,
) -> tuple[Intx, tuple[Finding, ...]]:
    tree, _ = topology.build(functions)
    places = {path: Sbdf.parse(address) for path, address in (addresses or {}).items()}
    router = Router(functions, tree, Namespace(devices=tuple(devices)), places)
    intx, findings = router.routes(ioapics)
    assert serial.decode(serial.encode(intx), Intx) == intx
    for route in intx.routes:
        assert (route.gsi is None) is (route.reason is not None)
        assert (route.link_reason is not None) is (route.reason is NoRoute.LINK)
        assert route.gsi is None or route.gsi in router.used_gsis()
    return intx, findings


def only(intx: Intx, address: str) -> IntxRoute:
    (route,) = [each for each in intx.routes if each.sbdf == Sbdf.parse(address)]
    return route


def test_on_the_root_bus() -> None:
    intx, findings = routed([function("00:02.0"), function("00:03.0", None)], [root((2, A, 16), (2, B, 17))])
    assert findings == ()
    assert intx.routes == (
        IntxRoute(
            sbdf=Sbdf.parse("00:02.0"),
            pin=A,
            gsi=16,
            ioapic_pin=IoapicPin(2, 16),
            trigger=Trigger.LEVEL,
            polarity=Polarity.LOW,
            steps=intx.routes[0].steps,
            prt="\\_SB.PCI0._PRT",
        ),
    )
    steps = intx.routes[0].steps
    assert steps[:2] == ("INTA of 0000:00:02.0", "\\_SB.PCI0._PRT entry 0")
    assert steps[-1] == "GSI 16 = IOAPIC 2 pin 16"


TREE = [
    function("00:1c.0", A, buses=(1, 3)),
    function("01:02.0", B, buses=(2, 3)),
    function("02:03.0", C, buses=(3, 3)),
    function("03:05.0", D),
    function("03:05.1", A),
]


def test_through_bridges_without_a_prt_each_swizzles() -> None:
    table = [root(*((0x1C, pin, 16 + pin.index) for pin in IntxPin))]
    intx, findings = routed(TREE, table)
    assert findings == ()
    # INTD behind device 5: INTA; behind 3: INTD; behind 2: INTB; at 1c the _PRT answers.
    assert only(intx, "03:05.0").gsi == 17
    assert only(intx, "03:05.0").steps[:5] == (
        "INTD of 0000:03:05.0",
        "bridge 0000:02:03.0 swizzles to INTA",
        "bridge 0000:01:02.0 swizzles to INTD",
        "bridge 0000:00:1c.0 swizzles to INTB",
        "\\_SB.PCI0._PRT entry 1",
    )
    # INTA behind 5: B, behind 3: A, behind 2: C.
    assert only(intx, "03:05.1").gsi == 18
    assert only(intx, "00:1c.0").gsi == 16
    assert only(intx, "01:02.0").gsi == 19


def test_a_bridge_with_its_own_prt_answers_for_what_is_behind_it() -> None:
    devices = [
        root(*((0x1C, pin, 16 + pin.index) for pin in IntxPin)),
        AmlDevice(path="\\_SB.PCI0.RP01", adr=0x1C0000, prt=prt((2, A, 40), (2, D, 43))),
    ]
    intx, findings = routed(TREE, devices, {"\\_SB.PCI0.RP01": "00:1c.0"})
    assert findings == ()
    assert only(intx, "03:05.0").gsi == 43
    assert only(intx, "03:05.0").prt == "\\_SB.PCI0.RP01._PRT"
    assert only(intx, "03:05.0").ioapic_pin == IoapicPin(3, 19)
    # It has no entry for INTB of device 2: then the pin is swizzled on, as Linux does.
    assert only(intx, "01:02.0").gsi == 19
    assert only(intx, "01:02.0").steps[1:3] == (
        "\\_SB.PCI0.RP01._PRT has no entry for device 02 INTB",
        "bridge 0000:00:1c.0 swizzles to INTD",
    )
    # An absent companion of a bridge that answers counts only where no other has the bus.
    absent = msgspec.structs.replace(devices[1], sta=0)
    assert only(routed(TREE, [devices[0], absent], {"\\_SB.PCI0.RP01": "00:1c.0"})[0], "03:05.0").gsi == 43
    other = AmlDevice(path="\\_SB.PCI0.RP1X", adr=0x1C0000, prt=prt((2, D, 50)))
    both = {"\\_SB.PCI0.RP01": "00:1c.0", "\\_SB.PCI0.RP1X": "00:1c.0"}
    assert only(routed(TREE, [devices[0], absent, other], both)[0], "03:05.0").gsi == 50


def test_segments_and_root_buses_are_apart() -> None:
    devices = [
        root((2, A, 16)),
        root((2, A, 17), bus=0x80, name="PCI1"),
        root((2, A, 18), segment=0x10000, name="VMD0"),
        root((2, A, 99), name="GONE"),
    ]
    intx, _ = routed([function("00:02.0"), function("80:02.0"), function("10000:00:02.0")], devices)
    assert [route.gsi for route in intx.routes] == [16, 17, 18]
    gone = msgspec.structs.replace(devices[3], sta=0)
    intx, _ = routed([function("00:02.0")], [gone, *devices])
    assert intx.routes[0].gsi == 16
    intx, _ = routed([function("00:02.0")], [gone])
    assert intx.routes[0].reason is NoRoute.NO_PRT


def test_no_way() -> None:
    one = [function("00:02.0")]
    for devices, reason, rules in (
        ([], NoRoute.NO_NAMESPACE, []),
        ([AmlDevice(path="\\_SB.PCI0", hid="PNP0A08")], NoRoute.NO_PRT, ["ioapic.no-route"]),
        ([root((3, A, 16))], NoRoute.NO_ENTRY, ["ioapic.no-route"]),
        ([root((2, A, 16), bus=9)], NoRoute.NO_PRT, ["ioapic.no-route"]),
    ):
        intx, findings = routed(one, devices)
        assert (intx.routes[0].reason, [finding.rule for finding in findings]) == (reason, rules)
        assert intx.lines == ()
        assert intx.routes[0].steps[-1] == reason.value


def link(path: str, *crs: Resource, **more: object) -> AmlDevice:
    made = AmlDevice(path=path, hid="PNP0C0F", crs=crs, evaluations=(Evaluation(f"{path}._CRS", "AE_OK"),))
    return msgspec.structs.replace(made, **more)


def interrupt(gsi: int, trigger: Trigger = Trigger.LEVEL, polarity: Polarity = Polarity.HIGH) -> ExtendedInterrupt:
    return ExtendedInterrupt(
        interrupts=(gsi,), trigger=trigger, polarity=polarity, shared=True, wake_capable=False, consumer=True
    )


def test_through_a_link_device() -> None:
    devices = [root((2, A, "\\_SB.LNKA"), (3, A, "\\_SB.NONE")), link("\\_SB.LNKA", interrupt(21))]
    intx, findings = routed([function("00:02.0"), function("00:03.0")], devices)
    first, second = intx.routes
    assert (first.gsi, first.trigger, first.polarity, first.link) == (21, Trigger.LEVEL, Polarity.HIGH, "\\_SB.LNKA")
    assert (second.reason, second.link_reason, second.link) == (NoRoute.LINK, NoGsi.LINK_MISSING, "\\_SB.NONE")
    assert [finding.rule for finding in findings] == ["ioapic.no-route"]
    assert "the link device does not exist" in findings[0].message


def test_sharers_must_signal_alike() -> None:
    devices = [root((2, A, "\\_SB.LNKA"), (3, A, 21)), link("\\_SB.LNKA", interrupt(21))]
    intx, findings = routed([function("00:02.0"), function("00:03.0")], devices)
    assert [finding.rule for finding in findings] == ["ioapic.shared-signal"]
    assert findings[0].where == "gsi:21"
    assert intx.lines[0].functions == (Sbdf.parse("00:02.0"), Sbdf.parse("00:03.0"))


def test_a_gsi_beyond_every_ioapic() -> None:
    intx, findings = routed([function("00:02.0")], [root((2, A, 56))])
    assert (intx.routes[0].gsi, intx.routes[0].ioapic_pin) == (56, None)
    assert [finding.rule for finding in findings] == ["ioapic.gsi-beyond"]
    assert routed([function("00:02.0")], [root((2, A, 56))], ioapics=IoapicSet(()))[1] == ()


def test_ide_in_compatibility_mode_uses_isa_interrupts() -> None:
    for interface, reason in ((0x80, NoRoute.IDE_COMPATIBILITY), (0x85, None), (0x81, None), (0x84, None)):
        ide = function("00:1f.1", class_code=0x010100 | interface)
        intx, findings = routed([ide], [root((0x1F, A, 18))])
        assert (intx.routes[0].reason, findings) == (reason, ())
    sata = function("00:1f.1", class_code=0x010600)
    assert routed([sata], [root((0x1F, A, 18))])[0].routes[0].gsi == 18


def test_virtual_functions_have_no_pin() -> None:
    virtual = function("00:02.1", A, physical_function=Sbdf.parse("00:02.0"))
    intx, _ = routed([function("00:02.0"), virtual], [root((2, A, 16))])
    assert [route.sbdf for route in intx.routes] == [Sbdf.parse("00:02.0")]


def test_behind_an_ari_port_there_is_only_device_0() -> None:
    table = [root(*((0x1C, pin, 16 + pin.index) for pin in IntxPin))]
    for ari, gsi in ((True, 16), (False, 19)):
        port = function("00:1c.0", None, buses=(1, 1))
        capability = port.capabilities[0]
        assert isinstance(capability, Express)
        assert capability.device2 is not None
        device2 = msgspec.structs.replace(capability.device2, ari_forwarding=ari)
        port = msgspec.structs.replace(port, capabilities=(msgspec.structs.replace(capability, device2=device2),))
        assert routed([port, function("01:03.0")], table)[0].routes[0].gsi == gsi


def test_a_cardbus_bridge_lends_its_own_pin() -> None:
    window = CardBusWindow(base=1, limit=0, enabled=False, prefetchable=False)
    cardbus = CardBus(
        primary=0,
        secondary=2,
        subordinate=2,
        secondary_latency=0,
        secondary_status=0,
        memory=(window, window),
        io=(window, window),
        control=0,
        legacy_base=None,
    )
    table = [root(*((4, pin, 16 + pin.index) for pin in IntxPin))]
    for pin, gsi, reason in ((C, 18, None), (None, None, NoRoute.CARDBUS_WITHOUT_PIN)):
        bridge = msgspec.structs.replace(function("00:04.0", pin, header_type=2), cardbus=cardbus)
        intx, _ = routed([bridge, function("02:00.0", A)], table)
        route = only(intx, "02:00.0")
        assert (route.gsi, route.reason) == (gsi, reason)


# --- laws -------------------------------------------------------------------------------------------------------------


@given(st.lists(DEVICES, min_size=1, max_size=6), PINS)
def test_a_chain_of_bridges_adds_up(devices: list[int], pin: IntxPin) -> None:
    """Through a chain the pin turns by the sum of the device numbers below the root bus, modulo 4."""
    functions = []
    for depth, device in enumerate(devices):
        last = depth == len(devices) - 1
        buses = None if last else (depth + 1, len(devices) - 1)
        functions.append(function(f"{depth:02x}:{device:02x}.0", pin if last else None, buses=buses))
    table = [root(*((devices[0], each, 16 + each.index) for each in IntxPin))]
    intx, findings = routed(functions, table)
    assert findings == ()
    assert intx.routes[0].gsi == 16 + (pin.index + sum(devices[1:])) % 4


FUNCTIONS = st.lists(
    st.tuples(DEVICES, st.integers(0, 7), PINS), unique_by=lambda each: each[:2], min_size=1, max_size=12
)


@given(FUNCTIONS, st.lists(st.tuples(DEVICES, PINS, st.integers(0, 60)), max_size=60))
def test_sharing_is_an_equivalence(
    functions: list[tuple[int, int, IntxPin]], entries: list[tuple[int, IntxPin, int]]
) -> None:
    made = [function(f"00:{device:02x}.{number}", pin) for device, number, pin in functions]
    intx, _ = routed(made, [root(*entries)])
    gsis = {route.sbdf: route.gsi for route in intx.routes}
    for route in intx.routes:
        expected = tuple(sorted(other for other in gsis if other != route.sbdf and gsis[other] == route.gsi))
        assert route.shared_with == (expected if route.gsi is not None else ())
    assert [line.gsi for line in intx.lines] == sorted({gsi for gsi in gsis.values() if gsi is not None})
    assert sorted(each for line in intx.lines for each in line.functions) == sorted(
        sbdf for sbdf, gsi in gsis.items() if gsi is not None
    )


def test_many_sharers_are_named_once() -> None:
    made = [function(f"{bus:02x}:{device:02x}.0") for bus in range(8) for device in range(32)]
    table = [root(*((device, A, 16) for device in range(32)), bus=bus, name=f"PC{bus:02X}") for bus in range(8)]
    intx, _ = routed(made, table)
    assert all(len(route.shared_with) == MAX_SHARED for route in intx.routes)
    assert all(route.sbdf not in route.shared_with for route in intx.routes)
    assert len(intx.lines[0].functions) == 256


@given(st.data())
def test_any_tree_ends(data: st.DataObject) -> None:
    """Whatever bus numbers bridges hold: a way ends, and says why."""
    addresses = data.draw(st.lists(st.tuples(st.integers(0, 4), DEVICES), unique=True, max_size=10))
    made = []
    for bus, device in addresses:
        buses = data.draw(st.none() | st.tuples(st.integers(0, 5), st.integers(0, 5)))
        made.append(function(f"{bus:02x}:{device:02x}.0", data.draw(PINS), buses=buses))
    entries = data.draw(st.lists(st.tuples(DEVICES, PINS, st.integers(0, 60)), max_size=20))
    intx, _ = routed(made, [root(*entries)])
    assert len(intx.routes) == len(made)
