# SPDX-License-Identifier: MIT
"""MSI messages: the round trip in every format, and values by hand."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0kit import serial
from dom0kit.address import DeliveryMode, Trigger
from dom0kit.msi.messages import MessageFormat, MsiMessage, compose, compose_pirq, compose_remapped, decode

ADDRESSES = (
    st.integers(0, 2**18 - 1).map(lambda bits: bits << 2 | 0xFEE00000)
    | st.integers(0, 2**64 - 1)
    | st.integers(0, 2**20 - 1).map(lambda low: 0xFEE00000 | low)
)
DATA = st.integers(0, 2**32 - 1) | st.integers(0, 255).map(lambda top: 0x300 | top << 8 & 0xC000)
FORMATS = st.sampled_from(MessageFormat)


@given(ADDRESSES, DATA, FORMATS)
def test_encoding_gives_the_same_bits_back(address: int, data: int, format: MessageFormat) -> None:
    message = decode(address, data, format)
    assert message.encode() == (address, data)
    assert decode(*message.encode(), format) == message
    assert serial.decode(serial.encode(message), MsiMessage) == message


def test_compatibility_format() -> None:
    message = decode(0xFEE0_300C, 0x0000_C131, MessageFormat.COMPATIBILITY)
    assert message == MsiMessage(
        format=MessageFormat.COMPATIBILITY,
        base=0xFEE,
        destination=3,
        logical=True,
        redirection_hint=True,
        vector=0x31,
        delivery_mode=DeliveryMode.LOWEST_PRIORITY,
        trigger=Trigger.LEVEL,
        asserted=True,
        handle=None,
        subhandle=None,
        remap_index=None,
        pirq=None,
        reserved_address=0,
        reserved_data=0,
    )
    assert message.is_interrupt
    assert not decode(0xFED0_0000, 0, MessageFormat.COMPATIBILITY).is_interrupt
    assert decode(0x12_FEE0_0000, 0x10031, MessageFormat.COMPATIBILITY).reserved_address == 0x12_0000_0000
    assert decode(0x12_FEE0_0000, 0x10031, MessageFormat.COMPATIBILITY).reserved_data == 0x10000


def test_extended_destination_id() -> None:
    assert decode(0xFEE1_2FE0, 0x31, MessageFormat.EXTENDED_DESTINATION).destination == 0x7F12
    assert decode(0xFEE1_2FE0, 0x31, MessageFormat.COMPATIBILITY).destination == 0x12


def test_vtd_says_by_bit_4_what_it_is() -> None:
    # As Linux writes it: handle 0x102, subhandle valid, subhandle 3.
    message = decode(0xFEE0_2058, 3, MessageFormat.VTD)
    assert (message.format, message.handle, message.subhandle) == (MessageFormat.VTD, 0x102, 3)
    assert (message.remap_index, message.vector) == (0x105, None)
    assert message.encode() == (0xFEE0_2058, 3)
    high = decode(0xFEE0_0014, 0xFFFF, MessageFormat.VTD)
    assert high.encode() == (0xFEE0_0014, 0xFFFF)
    assert (high.handle, high.subhandle, high.remap_index, high.reserved_data) == (0x8000, None, 0x8000, 0xFFFF)
    assert decode(0xFEE0_0000, 0x31, MessageFormat.VTD).format is MessageFormat.COMPATIBILITY


def test_amd_vi_takes_the_offset_from_the_data() -> None:
    message = decode(0xFEE0_0000, 0x7FF, MessageFormat.AMD_VI)
    assert (message.remap_index, message.destination, message.vector) == (0x7FF, None, None)


def test_a_pirq_in_a_message() -> None:
    # pIRQ 0x1234: destination 0x34, the rest above bit 40; edge, asserted, delivery mode 3, vector 0.
    message = decode(0x1200_FEE3_4000, 0x4300, MessageFormat.XEN_PIRQ)
    assert (message.format, message.pirq, message.asserted) == (MessageFormat.XEN_PIRQ, 0x1234, True)
    assert (message.reserved_address, message.reserved_data) == (0, 0)
    assert decode(0xFEE3_4000, 0x4031, MessageFormat.XEN_PIRQ).format is MessageFormat.COMPATIBILITY
    assert decode(0x1200_FEE3_4000, 0x4300, MessageFormat.COMPATIBILITY).pirq is None


@pytest.mark.parametrize(
    ("address", "format", "change"),
    [
        (0xFEE00000, MessageFormat.COMPATIBILITY, {"vector": 256}),
        (0xFEE00000, MessageFormat.COMPATIBILITY, {"trigger": None}),
        (0xFEE00000, MessageFormat.COMPATIBILITY, {"destination": 256}),
        (0xFEE00000, MessageFormat.EXTENDED_DESTINATION, {"destination": 1 << 15}),
        (0xFEE00000, MessageFormat.COMPATIBILITY, {"base": 0x1000}),
        (0xFEE00010, MessageFormat.VTD, {"handle": 1 << 16}),
        (0xFEE00018, MessageFormat.VTD, {"subhandle": 1 << 16}),
        (0xFEE00000, MessageFormat.AMD_VI, {"remap_index": 1 << 11}),
        (0xFEE00000, MessageFormat.XEN_PIRQ, {"pirq": 1 << 32}),
    ],
)
def test_a_field_that_does_not_fit_is_refused(
    address: int, format: MessageFormat, change: dict[str, int | None]
) -> None:
    message = msgspec.structs.replace(decode(address, 0x300, format), **change)
    with pytest.raises(ValueError, match=r"MSI message"):
        message.encode()


# --- composed ---------------------------------------------------------------------------------------------------------

VECTORS = st.integers(0x10, 0xFE)


@given(st.data(), st.sampled_from([MessageFormat.COMPATIBILITY, MessageFormat.EXTENDED_DESTINATION]), VECTORS)
def test_compose_and_decode_are_inverse(data: st.DataObject, format: MessageFormat, vector: int) -> None:
    apic_id = data.draw(st.integers(0, 0xFE if format is MessageFormat.COMPATIBILITY else 0x7FFF))
    message = decode(*compose(apic_id, vector, format).encode(), format)
    assert message == compose(apic_id, vector, format)
    assert message.is_interrupt
    assert (message.destination, message.vector, message.format) == (apic_id, vector, format)
    assert (message.delivery_mode, message.logical, message.trigger) == (DeliveryMode.FIXED, False, Trigger.EDGE)
    assert (message.reserved_address, message.reserved_data) == (0, 0)


@given(st.integers(0, 0xFFFF), st.none() | st.integers(0, 0xFFFF))
def test_composed_for_vtd(index: int, subhandle: int | None) -> None:
    address, data = compose_remapped(index, MessageFormat.VTD, subhandle).encode()
    message = decode(address, data, MessageFormat.VTD)
    assert (message.format, message.handle, message.subhandle) == (MessageFormat.VTD, index, subhandle)
    assert message.remap_index == index + (subhandle or 0)
    assert (message.reserved_address, message.reserved_data) == (0, 0)


@given(st.integers(0, 0x7FF))
def test_composed_for_amd_vi(index: int) -> None:
    message = decode(*compose_remapped(index, MessageFormat.AMD_VI).encode(), MessageFormat.AMD_VI)
    assert (message.remap_index, message.reserved_address, message.reserved_data) == (index, 0, 0)


@given(st.integers(0, 2**32 - 1))
def test_composed_for_a_pirq(pirq: int) -> None:
    message = decode(*compose_pirq(pirq).encode(), MessageFormat.XEN_PIRQ)
    assert (message.format, message.pirq, message.trigger) == (MessageFormat.XEN_PIRQ, pirq, Trigger.EDGE)
    assert message.asserted


def test_composed_as_the_core_composes() -> None:
    """Values of hv_core/core/msi.c, hv_message_compose."""
    assert compose(0x12, 0x31).encode() == (0xFEE1_2000, 0x31)
    assert compose(0x7F12, 0x31, MessageFormat.EXTENDED_DESTINATION).encode() == (0xFEE1_2FE0, 0x31)
    assert compose_remapped(0x8123, MessageFormat.VTD).encode() == (0xFEE0_2474, 0)
    assert compose_remapped(0x123, MessageFormat.AMD_VI).encode() == (0xFEE0_0000, 0x123)
    assert compose_pirq(0x1234).encode() == (0x1200_FEE3_4000, 0x4300)


@pytest.mark.parametrize(
    "compose_wrongly",
    [
        lambda: compose(0xFF, 0x31),
        lambda: compose(-1, 0x31),
        lambda: compose(0x8000, 0x31, MessageFormat.EXTENDED_DESTINATION),
        lambda: compose(0, 0x0F),
        lambda: compose(0, 0xFF),
        lambda: compose(0, 0x31, MessageFormat.VTD),
        lambda: compose_remapped(1 << 16, MessageFormat.VTD),
        lambda: compose_remapped(0, MessageFormat.VTD, 1 << 16),
        lambda: compose_remapped(1 << 11, MessageFormat.AMD_VI),
        lambda: compose_remapped(0, MessageFormat.AMD_VI, 0),
        lambda: compose_remapped(0, MessageFormat.COMPATIBILITY),
        lambda: compose_pirq(1 << 32),
    ],
)
def test_what_cannot_be_composed(compose_wrongly: Callable[[], MsiMessage]) -> None:
    with pytest.raises(ValueError, match="message"):
        compose_wrongly()
