# SPDX-License-Identifier: MIT
"""Device 3, extended capability 002Fh (PCI Express Base 6.0, section 7.7.9)."""

from __future__ import annotations

import struct
from typing import Final

from dom0kit.pci.capabilities import ExtendedCapability, Report

LENGTH = 0x10


class Device3(ExtendedCapability, frozen=True, tag="device-3"):
    """Device capabilities, controls and status that found no room in the PCI Express capability."""

    dmwr_routing: bool
    """DMWr Request Routing Supported."""
    tag_completer_14bit: bool
    tag_requester_14bit: bool
    receiver_l0p: bool
    """Receiver L0p Supported."""
    port_l0p_exit_latency: int
    """0 below 1 us, each step doubles, 7 above 64 us."""
    retimer_l0p_exit_latency: int
    """As above."""
    dmwr_requester_enabled: bool
    dmwr_egress_blocking: bool
    tag_requester_14bit_enabled: bool
    l0p_enabled: bool
    target_link_width: int
    """0 to 4 for 1, 2, 4, 8, 16 lanes, 7 for as hardware likes."""
    initial_link_width: int
    """0 to 4 as above."""
    segment_captured: bool
    remote_l0p: bool
    """Remote L0p Supported."""


_REGISTERS: Final = struct.Struct("<III")


def decode(config: bytes, offset: int, report: Report) -> Device3:
    capability, control, status = _REGISTERS.unpack_from(config, offset + 4)
    return Device3(
        offset=offset,
        version=config[offset + 2] & 0xF,
        dmwr_routing=capability & 1 != 0,
        tag_completer_14bit=capability & 2 != 0,
        tag_requester_14bit=capability & 4 != 0,
        receiver_l0p=capability & 8 != 0,
        port_l0p_exit_latency=capability >> 4 & 7,
        retimer_l0p_exit_latency=capability >> 7 & 7,
        dmwr_requester_enabled=control & 1 != 0,
        dmwr_egress_blocking=control & 2 != 0,
        tag_requester_14bit_enabled=control & 4 != 0,
        l0p_enabled=control & 8 != 0,
        target_link_width=control >> 4 & 7,
        initial_link_width=status & 7,
        segment_captured=status & 8 != 0,
        remote_l0p=status & 0x10 != 0,
    )
