# SPDX-License-Identifier: MIT
"""``_PRT`` entries and link devices: every form, every reason."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0kit.acpi.aml_output import Other, Pointer, Raw, Unset
from dom0kit.acpi.namespace import AmlDevice, Evaluation, Namespace, RegionAccess
from dom0kit.acpi.resources import EndTag, ExtendedInterrupt, Irq, Resource
from dom0kit.acpi.routing import NoGsi, PrtEntry, PrtRoute, decode_prt, resolve
from dom0kit.acpi.tables.common import AddressSpace
from dom0kit.address import IntxPin, Polarity, Trigger
from dom0kit.serial import decode, encode

WHERE = "aml:\\_SB.PCI0._PRT"
LINK = "\\_SB.LNKA"


def find(value: Raw) -> str | None:
    known = {"0x1": LINK, "LNKA": LINK, "\\_SB.LNKA": LINK}
    return known.get(value.address if isinstance(value, Pointer) else str(value))


def irq(*numbers: int, trigger: Trigger = Trigger.LEVEL, polarity: Polarity = Polarity.LOW) -> tuple[Resource, ...]:
    return (Irq(irqs=numbers, trigger=trigger, polarity=polarity, shared=True), EndTag(checksum=0))


def interrupt(*numbers: int) -> tuple[Resource, ...]:
    found = ExtendedInterrupt(
        interrupts=numbers,
        trigger=Trigger.LEVEL,
        polarity=Polarity.HIGH,
        shared=True,
        wake_capable=False,
        consumer=True,
    )
    return (found, EndTag(checksum=0))


UNRECORDED = (RegionAccess(AddressSpace.PCI_CONFIG, 0x60, 0x60),)


def routed(
    *,
    crs: tuple[Resource, ...] | None = None,
    prs: tuple[Resource, ...] | None = None,
    sta: int | None = None,
    index: int = 0,
    depends: tuple[RegionAccess, ...] = (),
    sta_depends: tuple[RegionAccess, ...] = (),
    status: str = "AE_OK",
) -> PrtRoute:
    evaluations = [Evaluation(f"{LINK}._CRS", status, depends)] if crs is not None or status != "AE_OK" else []
    if sta is not None:
        evaluations.append(Evaluation(f"{LINK}._STA", "AE_OK", sta_depends))
    link = AmlDevice(path=LINK, hid="PNP0C0F", crs=crs, prs=prs, sta=sta, evaluations=tuple(evaluations))
    entry = PrtEntry(device=3, pin=IntxPin.A, source=LINK, source_index=index)
    route = resolve(entry, Namespace(devices=(link,)))
    assert (route.gsi is None) == (route.reason is not None)
    assert decode(encode(route), PrtRoute) == route
    return route


def test_both_forms_and_the_swapped_one() -> None:
    package: Raw = [
        [0x1FFFF, 0, 0, 16],
        [0x20001, 1, Pointer("0x1", "LNKA"), 0],
        [0x3FFFF, 2, "LNKA", 1],
        [0x4FFFF, 3, 0, Pointer("0x1", "LNKA")],
        [0x5FFFF, 0, Unset(), 17],
    ]
    entries, findings = decode_prt(package, WHERE, find)
    assert entries == (
        PrtEntry(device=1, pin=IntxPin.A, source_index=16),
        PrtEntry(device=2, function=1, pin=IntxPin.B, source=LINK),
        PrtEntry(device=3, pin=IntxPin.C, source=LINK, source_index=1),
        PrtEntry(device=4, pin=IntxPin.D, source=LINK),
        PrtEntry(device=5, pin=IntxPin.A, source_index=17),
    )
    assert [finding.rule for finding in findings] == ["aml.prt-swapped"]


@pytest.mark.parametrize(
    "item",
    [
        [0x1FFFF, 0, 0],
        0x1FFFF,
        [0x20FFFF, 0, 0, 16],
        [0x1FFFF, 4, 0, 16],
        [0x10008, 0, 0, 16],
        ["x", 0, 0, 16],
        [0x1FFFF, b"", 0, 16],
        [0x1FFFF, 0, Other("x"), b""],
    ],
)
def test_malformed_entries_are_left_out(item: Raw) -> None:
    entries, findings = decode_prt([item, [0x1FFFF, 0, 0, 16]], WHERE, find)
    assert entries == (PrtEntry(device=1, pin=IntxPin.A, source_index=16),)
    assert [finding.rule for finding in findings] == ["aml.prt-malformed"]


def test_a_source_that_does_not_exist_is_named_once() -> None:
    entries, findings = decode_prt([[0x1FFFF, pin, "LNKX", 0] for pin in range(4)], WHERE, find)
    assert [entry.source for entry in entries] == ["LNKX"] * 4
    assert [(finding.rule, finding.message) for finding in findings] == [("aml.prt-source-missing", "there is no LNKX")]
    assert resolve(entries[0], Namespace()).reason is NoGsi.LINK_MISSING


def test_what_is_no_package_is_malformed() -> None:
    assert [finding.rule for finding in decode_prt(b"", WHERE, find)[1]] == ["aml.prt-malformed"]


_RAW = st.recursive(
    st.integers(0, 2**64 - 1)
    | st.text(max_size=6)
    | st.binary(max_size=4)
    | st.sampled_from((Unset(), Other("x"), Pointer("0x1", "LNKA"), Pointer("0x2", "GONE"))),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=30,
)


@given(_RAW)
def test_any_value_decodes(value: Raw) -> None:
    entries, _ = decode_prt(value, WHERE, find)
    for entry in entries:
        assert decode(encode(entry), PrtEntry) == entry
        resolve(entry, Namespace())


def test_a_gsi_is_level_and_low() -> None:
    route = resolve(PrtEntry(device=1, pin=IntxPin.A, source_index=16), Namespace())
    assert (route.gsi, route.trigger, route.polarity, route.link) == (16, Trigger.LEVEL, Polarity.LOW, None)


def test_a_programmed_link_gives_its_interrupt() -> None:
    route = routed(crs=irq(11), prs=irq(5, 10, 11))
    assert (route.gsi, route.trigger, route.polarity, route.link) == (11, Trigger.LEVEL, Polarity.LOW, LINK)
    assert route.possible == (5, 10, 11)
    assert any("set to 11" in step for step in route.steps)


def test_an_extended_interrupt_is_a_gsi() -> None:
    route = routed(crs=interrupt(21))
    assert (route.gsi, route.polarity) == (21, Polarity.HIGH)


def test_the_wire_is_what_prs_says() -> None:
    # _CRS without flags would mean edge; Linux takes the shape from _PRS.
    bare = (Irq(irqs=(11,), has_flags=False), EndTag(checksum=0))
    assert routed(crs=bare, prs=irq(11)).trigger is Trigger.LEVEL
    assert routed(crs=bare).trigger is Trigger.EDGE


def test_the_index_chooses_among_the_links_interrupts() -> None:
    assert routed(crs=interrupt(20, 21), index=1).gsi == 21
    assert routed(crs=interrupt(20, 21), index=2).reason is NoGsi.LINK_UNPROGRAMMED


@pytest.mark.parametrize("crs", [irq(), irq(0), interrupt(0), (EndTag(checksum=0),)])
def test_nothing_programmed_leaves_it_to_prs(crs: tuple[Resource, ...]) -> None:
    assert routed(crs=crs, prs=irq(10, 11)).reason is NoGsi.LINK_UNPROGRAMMED
    only = routed(crs=crs, prs=irq(10))
    assert only.gsi == 10
    assert any("only 10 is possible" in step for step in only.steps)


def test_unrecorded_hardware_is_the_reason_unless_there_is_no_choice() -> None:
    assert routed(crs=irq(11), prs=irq(10, 11), depends=UNRECORDED).reason is NoGsi.LINK_UNRECORDED
    assert routed(crs=irq(), prs=irq(10, 11), depends=UNRECORDED).reason is NoGsi.LINK_UNRECORDED
    assert routed(crs=irq(11), prs=irq(10), depends=UNRECORDED).gsi == 10


def test_a_status_from_unrecorded_hardware_does_not_say_that_it_is_disabled() -> None:
    for sta in (0xB, 9):
        route = routed(crs=irq(11), prs=irq(10, 11), sta=sta, sta_depends=UNRECORDED)
        assert route.reason is NoGsi.LINK_UNRECORDED
    assert routed(crs=irq(11), prs=irq(10, 11), sta=0xB).gsi == 11


FIRST = f"_PRT: link {LINK}, index 0"
ANY = "_PRS: 10, 11 possible"
UNPROGRAMMED = NoGsi.LINK_UNPROGRAMMED.value


@pytest.mark.parametrize(
    ("route", "steps"),
    [
        (
            routed(crs=irq(11), prs=irq(10, 11)),
            [FIRST, "_CRS: set to 11", "level, active low by the link's descriptor"],
        ),
        (
            routed(crs=irq(11), prs=irq(10), depends=UNRECORDED),
            [
                FIRST,
                "_CRS: depends on hardware that was not recorded",
                "_PRS: only 10 is possible",
                "level, active low by the link's descriptor",
            ],
        ),
        (
            routed(crs=irq(11), prs=irq(11, 10), depends=UNRECORDED),
            [FIRST, "_CRS: depends on hardware that was not recorded", ANY, NoGsi.LINK_UNRECORDED.value],
        ),
        (routed(crs=irq(11), prs=irq(11, 10), sta=9), [FIRST, "_STA: 0x9, disabled", ANY, UNPROGRAMMED]),
        (routed(crs=irq(), prs=irq(11, 10)), [FIRST, "_CRS: no interrupt", ANY, UNPROGRAMMED]),
        (routed(crs=irq(), prs=irq(0)), [FIRST, "_CRS: no interrupt", "_PRS: nothing possible", UNPROGRAMMED]),
        (
            routed(status="AE_NOT_FOUND", prs=irq(11, 10)),
            [FIRST, "_CRS: AE_NOT_FOUND", ANY, NoGsi.LINK_FAILED.value],
        ),
        (routed(sta=0xB), [FIRST, "neither _CRS nor _PRS", NoGsi.LINK_NO_RESOURCES.value]),
        (routed(prs=irq(10, 11)), [FIRST, ANY, UNPROGRAMMED]),
        (routed(sta=4), [FIRST, "_STA: 0x4, not present", NoGsi.LINK_ABSENT.value]),
    ],
)
def test_every_step_of_the_way_is_told(route: PrtRoute, steps: list[str]) -> None:
    assert list(route.steps) == steps
    assert route.link == LINK


def test_what_is_possible_is_told_where_nothing_is_programmed() -> None:
    assert routed(prs=irq(11, 0, 10)).possible == (10, 11)
    assert routed(crs=irq(11), prs=irq(11, 0, 10), depends=UNRECORDED).possible == (10, 11)


def test_a_gsi_has_32_bits() -> None:
    assert resolve(PrtEntry(device=1, pin=IntxPin.A, source_index=0x1_2345_6789), Namespace()).gsi == 0x2345_6789


def test_a_disabled_link_is_not_programmed() -> None:
    assert routed(crs=irq(11), prs=irq(10, 11), sta=9).reason is NoGsi.LINK_UNPROGRAMMED


def test_an_absent_link() -> None:
    assert routed(crs=irq(11), sta=0).reason is NoGsi.LINK_ABSENT


def test_a_link_without_resources() -> None:
    assert routed().reason is NoGsi.LINK_NO_RESOURCES


def test_a_link_that_fails() -> None:
    assert routed(status="AE_NOT_FOUND", prs=irq(10, 11)).reason is NoGsi.LINK_FAILED
    assert routed(status="AE_NOT_FOUND", prs=irq(10)).gsi == 10
