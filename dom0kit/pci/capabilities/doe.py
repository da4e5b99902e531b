# SPDX-License-Identifier: MIT
"""Data Object Exchange, extended capability 002Eh (PCI Express Base 6.0, section 7.9.24)."""

from __future__ import annotations

import struct
from typing import Final

from dom0kit.pci.capabilities import ExtendedCapability, Report

LENGTH = 0x18


class DataObjectExchange(ExtendedCapability, frozen=True, tag="doe"):
    """A mailbox: attestation, CDAT and the like."""

    interrupt_capable: bool
    """DOE Interrupt Support."""
    interrupt_message: int
    """DOE Interrupt Message Number, 0 to 2047."""
    abort: bool
    interrupt_enabled: bool
    go: bool
    busy: bool
    interrupt_status: bool
    error: bool
    object_ready: bool
    """Data Object Ready."""


_REGISTERS: Final = struct.Struct("<III")


def decode(config: bytes, offset: int, report: Report) -> DataObjectExchange:
    capability, control, status = _REGISTERS.unpack_from(config, offset + 4)
    return DataObjectExchange(
        offset=offset,
        version=config[offset + 2] & 0xF,
        interrupt_capable=capability & 1 != 0,
        interrupt_message=capability >> 1 & 0x7FF,
        abort=control & 1 != 0,
        interrupt_enabled=control & 2 != 0,
        go=control & 0x80000000 != 0,
        busy=status & 1 != 0,
        interrupt_status=status & 2 != 0,
        error=status & 4 != 0,
        object_ready=status & 0x80000000 != 0,
    )
