# SPDX-License-Identifier: MIT
"""Redirection entries that a plan writes, what the hardware differs in, one entry by hand."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0kit.address import DeliveryMode, Gsi, IoapicPin, Polarity, Trigger
from dom0kit.interrupts import Line, UseKind, User
from dom0kit.ioapic.controllers import Ioapic, PinsFrom
from dom0kit.ioapic.plan import (
    SETTINGS,
    changed,
    differences,
    differences_from,
    entry_2005,
    entry_xen,
    line_operations,
    set_plan,
)
from dom0kit.ioapic.redirection import EntryFormat, RedirectionEntry, decode
from dom0kit.plan import (
    Backend,
    Dialect,
    EntryIs,
    GsiUnused,
    MapGsi,
    MaskEntry,
    Plan,
    SetAffinity,
    SetupGsi,
    WriteEntry,
)
from dom0kit.vectors import Cpu, Place

IOAPIC = Ioapic(2, 0xFEC00000, 0, 24, PinsFrom.BOOT_LOG, 0x20, True, None, None)
FAR = Ioapic(3, 0xFEC10000, 300, 8, PinsFrom.BOOT_LOG, 0x20, True, None, None)
TRIGGERS, POLARITIES = st.sampled_from(Trigger), st.sampled_from(Polarity)
FORMATS = st.sampled_from([EntryFormat.COMPATIBILITY, EntryFormat.EXTENDED_DESTINATION])


def place(apic_id: int = 5, vector: int = 0x41) -> Place:
    return Place(Cpu(1, apic_id, None, None), vector)


def line(gsi: int, trigger: Trigger = Trigger.LEVEL, polarity: Polarity = Polarity.LOW, *, by: str = "") -> Line:
    user = User(kind=UseKind.INTX, name=f"user of {gsi}", trigger=trigger, polarity=polarity)
    pin = IoapicPin(2, gsi) if gsi < 24 else IoapicPin(3, gsi - 300)
    return Line(
        gsi=Gsi(gsi),
        ioapic_pin=pin,
        trigger=trigger,
        polarity=polarity,
        users=(user,),
        requested_by=(by,) if by else (),
    )


# --- entries ----------------------------------------------------------------------------------------------------------


@given(st.data(), FORMATS, st.integers(0x10, 0xFE), TRIGGERS, POLARITIES, st.booleans())
def test_an_entry_that_holds(
    data: st.DataObject, format: EntryFormat, vector: int, trigger: Trigger, polarity: Polarity, masked: bool
) -> None:
    apic_id = data.draw(st.integers(0, 0xFE if format is EntryFormat.COMPATIBILITY else 0x7FFF))
    made = entry_2005(place(apic_id, vector), trigger, polarity, masked=masked, format=format)
    entry = decode(made.encode(), format)
    assert entry == made
    assert (entry.destination, entry.vector, entry.masked) == (apic_id, vector, masked)
    assert (entry.trigger, entry.polarity, entry.reserved) == (trigger, polarity, 0)
    assert (entry.delivery_mode, entry.logical) == (DeliveryMode.FIXED, False)


@pytest.mark.parametrize(
    ("apic_id", "format"),
    [
        (0xFF, EntryFormat.COMPATIBILITY),
        (0x8000, EntryFormat.EXTENDED_DESTINATION),
        (0, EntryFormat.VTD),
        (0, EntryFormat.AMD_VI),
    ],
)
def test_an_entry_that_cannot_name_its_processor(apic_id: int, format: EntryFormat) -> None:
    with pytest.raises(ValueError, match="cannot name APIC id"):
        entry_2005(place(apic_id), Trigger.EDGE, Polarity.HIGH, masked=True, format=format)


def test_entries_for_xen() -> None:
    """Bits as facts of Xen 4.17 measured them: the vector is the pIRQ, unmasked or none is mapped."""
    assert entry_xen(Gsi(19), Trigger.LEVEL, Polarity.LOW).encode() == 0xA013
    assert entry_xen(Gsi(19), Trigger.EDGE, Polarity.HIGH).encode() == 0x13
    assert entry_xen(Gsi(255), Trigger.LEVEL, Polarity.HIGH).encode() == 0x80FF
    assert entry_xen(Gsi(256), Trigger.LEVEL, Polarity.HIGH).encode() == 0x8000, "from 256 on it is the GSI by itself"


# --- operations -------------------------------------------------------------------------------------------------------


def test_operations_of_each_dialect() -> None:
    why = "user of 20"
    assert line_operations(line(20), IOAPIC, Dialect.MODERN) == [
        MapGsi(gsi=Gsi(20), pirq=20, why=why),
        SetupGsi(gsi=Gsi(20), trigger=Trigger.LEVEL, polarity=Polarity.LOW, why=why),
    ]
    assert line_operations(line(20), IOAPIC, Dialect.MODERN, place(), move=True)[2:] == [
        SetAffinity(irq=20, cpu=1, why=why)
    ]
    assert line_operations(line(303, Trigger.EDGE, Polarity.HIGH), FAR, Dialect.CLASSIC_2005, place()) == [
        WriteEntry(ioapic=0xFEC10000, pin=3, entry=0x0500_0000_0001_0041, why="user of 303")
    ]
    assert line_operations(line(303), FAR, Dialect.CLASSIC_XEN) == [
        WriteEntry(ioapic=0xFEC10000, pin=3, entry=0xA000, why="user of 303")
    ]
    with pytest.raises(ValueError, match="GSI 20 needs a vector"):
        line_operations(line(20), IOAPIC, Dialect.CLASSIC_2005)


# --- differences ------------------------------------------------------------------------------------------------------


def entry(value: int) -> RedirectionEntry:
    return decode(value, EntryFormat.VTD)


@pytest.mark.parametrize(
    ("of", "value", "expected"),
    [
        (line(20, by="eth0"), 0xA041, []),
        (line(20, by="eth0"), 0x1A041, [("it should not be masked: eth0 has requested it", False)]),
        (line(20, by="eth0"), 0x0041, [("it should be level triggered and active low", True)]),
        (line(20, by="eth0"), 0x8041, [("it should be active low", True)]),
        (line(20), 0x1A041, []),
        (line(20), 0x10000, [("it should be level triggered and active low", False)]),
        (line(20), 0xA041, [("it should be masked: no driver has requested it", True)]),
        (line(20, by="a"), 0xA01F, [("vector 0x1f is an exception's", True)]),
        (line(20, by="a"), 0x0001_0000_0000_A001, []),  # remapped: the vector is the remapper's
        (
            line(20, by="a"),
            0xA441,
            [("it delivers NMI, which no device's pin should", True)],
        ),
        (None, 0x41, [("it should be masked: nobody is known to use it", True)]),
        (None, 0x10041, []),
        (None, 0x10441, []),
    ],
)
def test_what_an_entry_differs_in(of: Line | None, value: int, expected: list[tuple[str, bool]]) -> None:
    found = differences([] if of is None else [of], [IOAPIC, FAR], {IoapicPin(2, 20): entry(value)})
    assert [(each.what, each.harm) for each in found] == expected
    assert all((each.ioapic_pin, each.gsi) == (IoapicPin(2, 20), 20) for each in found)


@pytest.mark.parametrize(
    ("of", "value", "expected"),
    [
        (None, 0x41, []),
        (None, 0xA041, ["it should be masked: nobody is known to use it"]),
        (line(20), 0xA041, ["it should be masked: no driver has requested it"]),
        (line(20), 0x0041, ["it should be level triggered and active low"]),
    ],
)
def test_xen_leaves_edges_unmasked(of: Line | None, value: int, expected: list[str]) -> None:
    lines = [] if of is None else [of]
    found = differences(lines, [IOAPIC, FAR], {IoapicPin(2, 20): entry(value)}, under_xen=True)
    assert [each.what for each in found] == expected


def test_differences_of_a_plan() -> None:
    operations = (
        *line_operations(line(20), IOAPIC, Dialect.MODERN),
        *line_operations(line(4), IOAPIC, Dialect.CLASSIC_2005, place()),
        *line_operations(line(303), FAR, Dialect.MODERN),
        WriteEntry(ioapic=0xFED00000, pin=0, entry=0),
    )
    plan = Plan(
        title="a", machine="m", fingerprint="0" * 64, dialect=Dialect.MODERN, backend=Backend.LOOPBACK,
        operations=operations,
    )  # fmt: skip
    entries = {
        IoapicPin(2, 20): entry(0x18041),
        IoapicPin(2, 4): entry(0x0500_0000_0001_F041),  # status bits are nobody's
        IoapicPin(3, 3): entry(0x1A031),
        IoapicPin(2, 7): entry(0x31),
    }
    found = differences_from(plan, [IOAPIC, FAR], entries)
    assert [(each.gsi, each.what) for each in found] == [(20, "it should be active low")]
    entries[IoapicPin(2, 4)] = entry(0x0500_0000_0001_A042)
    found = differences_from(plan, [IOAPIC, FAR], entries)
    assert [(each.gsi, each.what) for each in found] == [
        (4, "the plan writes 050000000001a041"),
        (20, "it should be active low"),
    ]


# --- one entry by hand ------------------------------------------------------------------------------------------------


def test_settings() -> None:
    before = entry(0x0200_0000_0001_0031)
    after = changed(
        before,
        ["vector=0x52", "mode=lowest", "destination=3", "logical=yes", "trigger=level", "polarity=low", "masked=no"],
    )
    assert after.encode() == 0x0300_0000_0000_A952
    assert changed(after, ["masked=yes"]).encode() == 0x0300_0000_0001_A952
    assert changed(entry(0x0000_0000_0001_5031), []).encode() == 0x10031, "what only the hardware sets is not written"
    assert changed(entry(0x0003_0000_0001_8031), ["masked=no"]).encode() == 0x0003_0000_0000_8031


@pytest.mark.parametrize(
    ("value", "settings", "sentence"),
    [
        (0x10031, ["vektor=1"], "there is no 'vektor' to set: vector, mode, destination"),
        (0x10031, ["vector"], "vector cannot be '': 0x10 to 0xfe"),
        (0x10031, ["vector=0xf"], "vector cannot be '0xf'"),
        (0x10031, ["vector=0xff"], "vector cannot be '0xff'"),
        (0x10031, ["mode=nmi"], "mode cannot be 'nmi': fixed, lowest"),
        (0x10031, ["destination=0x8000"], "destination cannot be '0x8000'"),
        (0x10031, ["destination=0x100"], "destination 0x100 does not fit"),
        (0x10031, ["masked=maybe"], "masked cannot be 'maybe': yes, no"),
        (0x10031, ["masked=no", "masked=yes"], "masked is given twice"),
        (0x10000, ["masked=no"], "an unmasked entry needs a vector from 0x10 to 0xfe, not 0x00"),
        (0x10431, ["masked=no"], "an unmasked entry's mode is fixed or lowest"),
        (0x0003_0000_0001_0031, ["vector=0x52"], "the entry goes through a remapper"),
    ],
)
def test_settings_that_make_no_sense(value: int, settings: list[str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        changed(entry(value), settings)


@given(st.integers(0, 2**64 - 1), st.lists(st.sampled_from(sorted(SETTINGS)), unique=True), st.data())
def test_any_setting_is_set_or_refused(value: int, keys: list[str], data: st.DataObject) -> None:
    """What comes out never delivers what no pin may, and keeps all that nobody asked to change."""
    values = {
        "vector": st.integers(0, 300).map(hex),
        "mode": st.sampled_from(["fixed", "lowest"]),
        "destination": st.integers(0, 300).map(str),
        "trigger": st.sampled_from(["edge", "level"]),
        "polarity": st.sampled_from(["high", "low"]),
    }
    settings = [f"{key}={data.draw(values.get(key, st.sampled_from(['yes', 'no'])))}" for key in keys]
    before = entry(value)
    try:
        after = changed(before, settings)
    except ValueError:
        return
    assert entry(after.encode()) == after
    names = {"mode": "delivery_mode"}
    asked = {names.get(key, key) for key in keys} | {"delivery_status", "remote_irr"}
    for field in msgspec.structs.fields(RedirectionEntry):
        assert field.name in asked or getattr(after, field.name) == getattr(before, field.name)
    if not after.masked and after.remap_index is None:
        assert after.delivery_mode in (DeliveryMode.FIXED, DeliveryMode.LOWEST_PRIORITY)
        assert 0x10 <= (after.vector or 0) <= 0xFE


def test_a_plan_for_one_entry() -> None:
    """Only if it still is as it was read, and nobody has requested it; a pure mask is a pure mask."""
    before = entry(0x0200_0000_0001_9031)
    for setting, operation in (
        ("masked=no", MaskEntry(ioapic=0xFEC10000, pin=3, masked=False)),
        ("vector=0x52", WriteEntry(ioapic=0xFEC10000, pin=3, entry=0x0200_0000_0001_8052)),
    ):
        plan = set_plan(IoapicPin(3, 3), FAR, before, changed(before, [setting]), Backend.LOOPBACK, "0" * 64)
        assert plan.operations == (operation,)
        assert plan.dialect is Dialect.CLASSIC_2005
        assert plan.facts == (
            GsiUnused(gsi=Gsi(303)),
            EntryIs(ioapic=0xFEC10000, pin=3, value=0x0200_0000_0001_8031, mask=0xFFFF_FFFF_FFFF_AFFF),
        )
    xen = set_plan(IoapicPin(3, 3), FAR, before, changed(before, ["masked=no"]), Backend.XEN, "0" * 64)
    assert xen.operations == (WriteEntry(ioapic=0xFEC10000, pin=3, entry=0x0200_0000_0000_8031),)
    assert xen.dialect is Dialect.CLASSIC_XEN
