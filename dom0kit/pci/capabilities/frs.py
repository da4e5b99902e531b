# SPDX-License-Identifier: MIT
"""FRS Queueing, extended capability 0021h (PCI Express Base 6.0, section 7.8.10)."""

from __future__ import annotations

import struct
from typing import Final

from dom0kit.pci.capabilities import ExtendedCapability, Report

LENGTH = 0x10


class FrsQueueing(ExtendedCapability, frozen=True, tag="frs-queueing"):
    """A root port or event collector that queues Function Readiness Status messages."""

    queue_maximum_depth: int
    """0 to 4095."""
    interrupt_message: int
    """FRS Interrupt Message Number, 0 to 31."""
    message_received: bool
    message_overflow: bool
    interrupt_enabled: bool
    function: int
    """Requester id in the oldest message."""
    reason: int
    """Of the oldest message: 1 DRS message received, 2 D3hot to D0 done, 3 function-level reset done, 8 VF enable
    done; 0 to 15."""
    queue_depth: int
    """Messages waiting, 0 to 4095; with 0 the two fields above mean nothing."""


_REGISTERS: Final = struct.Struct("<IHHI")


def decode(config: bytes, offset: int, report: Report) -> FrsQueueing:
    capability, status, control, queue = _REGISTERS.unpack_from(config, offset + 4)
    return FrsQueueing(
        offset=offset,
        version=config[offset + 2] & 0xF,
        queue_maximum_depth=capability & 0xFFF,
        interrupt_message=capability >> 16 & 0x1F,
        message_received=status & 1 != 0,
        message_overflow=status & 2 != 0,
        interrupt_enabled=control & 1 != 0,
        function=queue & 0xFFFF,
        reason=queue >> 16 & 0xF,
        queue_depth=queue >> 20,
    )
