# SPDX-License-Identifier: MIT
"""Redirection entries: the round trip in every format, and values from data sheets and a running guest."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0kit import serial
from dom0kit.address import DeliveryMode, Polarity, Trigger
from dom0kit.ioapic.redirection import EntryFormat, RedirectionEntry, decode

ENTRIES = st.integers(0, 2**64 - 1)
FORMATS = st.sampled_from(EntryFormat)


@given(ENTRIES, FORMATS)
def test_encoding_gives_the_same_bits_back(value: int, format: EntryFormat) -> None:
    entry = decode(value, format)
    assert entry.encode() == value
    assert decode(entry.encode(), format) == entry
    assert serial.decode(serial.encode(entry), RedirectionEntry) == entry


@given(ENTRIES, FORMATS, st.integers(0, 63))
def test_each_bit_has_one_place(value: int, format: EntryFormat, bit: int) -> None:
    """Flipping a bit changes exactly one field, except bit 48, which with VT-d changes the format."""
    before, after = decode(value, format), decode(value ^ 1 << bit, format)
    if format is EntryFormat.VTD and bit == 48:
        assert before.format is not after.format
        return
    changed = [name for name in before.__struct_fields__ if getattr(before, name) != getattr(after, name)]
    assert len(changed) == 1


def test_compatibility_format() -> None:
    entry = decode(0x0300_0000_0000_A931, EntryFormat.COMPATIBILITY)
    assert entry == RedirectionEntry(
        format=EntryFormat.COMPATIBILITY,
        polarity=Polarity.LOW,
        trigger=Trigger.LEVEL,
        masked=False,
        delivery_status=False,
        remote_irr=False,
        vector=0x31,
        delivery_mode=DeliveryMode.LOWEST_PRIORITY,
        logical=True,
        destination=3,
        remap_index=None,
        reserved=0,
    )
    reset = decode(1 << 16, EntryFormat.COMPATIBILITY)
    assert (reset.masked, reset.trigger, reset.polarity, reset.vector) == (True, Trigger.EDGE, Polarity.HIGH, 0)
    pending = decode(1 << 12 | 1 << 14, EntryFormat.COMPATIBILITY)
    assert (pending.delivery_status, pending.remote_irr) == (True, True)


def test_extended_destination_id() -> None:
    value = 0x12 << 56 | 0x7F << 49 | 0x20
    assert decode(value, EntryFormat.EXTENDED_DESTINATION).destination == 0x7F12
    plain = decode(value, EntryFormat.COMPATIBILITY)
    assert (plain.destination, plain.reserved) == (0x12, 0x7F << 49)


def test_vtd_says_by_bit_48_what_it_is() -> None:
    # What a Linux guest wrote with interrupt remapping on: pin 2, remapping index 1.
    entry = decode(0x0003_0000_0000_0002, EntryFormat.VTD)
    assert (entry.format, entry.remap_index, entry.vector) == (EntryFormat.VTD, 1, 2)
    assert (entry.destination, entry.delivery_mode, entry.logical, entry.reserved) == (None, None, None, 0)
    assert decode(0xFFFF_0000_0000_0800, EntryFormat.VTD).remap_index == 0xFFFF
    assert decode(0x0001_0000_0000_0800, EntryFormat.VTD).remap_index == 0x8000
    assert decode(0x0300_0000_0000_0031, EntryFormat.VTD).format is EntryFormat.COMPATIBILITY


def test_amd_vi_takes_vector_and_delivery_mode_for_the_offset() -> None:
    entry = decode(0x0000_0000_0000_A723, EntryFormat.AMD_VI)
    assert (entry.remap_index, entry.vector, entry.trigger) == (0x723, None, Trigger.LEVEL)
    assert decode(0x0003_0000_0000_0002, EntryFormat.AMD_VI).reserved == 3 << 48


@pytest.mark.parametrize(
    ("format", "change"),
    [
        (EntryFormat.COMPATIBILITY, {"vector": 256}),
        (EntryFormat.COMPATIBILITY, {"vector": None}),
        (EntryFormat.COMPATIBILITY, {"destination": 256}),
        (EntryFormat.COMPATIBILITY, {"delivery_mode": None}),
        (EntryFormat.COMPATIBILITY, {"logical": None}),
        (EntryFormat.EXTENDED_DESTINATION, {"destination": 1 << 15}),
        (EntryFormat.VTD, {"remap_index": 1 << 16}),
        (EntryFormat.VTD, {"remap_index": -1}),
        (EntryFormat.AMD_VI, {"remap_index": 1 << 11}),
    ],
)
def test_a_field_that_does_not_fit_is_refused(format: EntryFormat, change: dict[str, int | None]) -> None:
    entry = msgspec.structs.replace(decode(1 << 48, format), **change)
    with pytest.raises(ValueError, match=r"redirection entry"):
        entry.encode()
