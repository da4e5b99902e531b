# SPDX-License-Identifier: MIT
"""MSI messages: the round trip in every format, and values by hand."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0kit import serial
from dom0kit.address import DeliveryMode, Trigger
from dom0kit.msi.messages import MessageFormat, MsiMessage, decode

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
