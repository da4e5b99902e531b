# SPDX-License-Identifier: MIT
"""Native PCIe Enclosure Management, extended capability 0029h (PCI Express Base 6.0, section 7.9.19)."""

from __future__ import annotations

import enum
import struct
from typing import Final

from dom0kit.pci.capabilities import ExtendedCapability, Report

LENGTH = 0x10


class EnclosureIndication(enum.Enum):
    """What the lamp of a drive slot can show, in the order of the registers' bits from 2 on."""

    OK = "ok"
    LOCATE = "locate"
    FAIL = "fail"
    REBUILD = "rebuild"
    PREDICTED_FAILURE = "predicted failure"
    HOT_SPARE = "hot spare"
    CRITICAL_ARRAY = "in a critical array"
    FAILED_ARRAY = "in a failed array"
    INVALID_TYPE = "invalid device type"
    DISABLED = "disabled"


class EnclosureManagement(ExtendedCapability, frozen=True, tag="npem"):
    """The lamps of a drive slot."""

    capable: bool
    """NPEM Capable."""
    reset_capable: bool
    indications: tuple[EnclosureIndication, ...]
    """Those that can be shown."""
    specific: int
    """Enclosure-specific Capabilities, 8 bits."""
    enabled: bool
    """NPEM Enable."""
    initiate_reset: bool
    shown: tuple[EnclosureIndication, ...]
    """Those that are turned on."""
    specific_controls: int
    """Enclosure-specific Controls, 8 bits."""
    command_completed: bool
    specific_status: int
    """Enclosure-specific Status, 8 bits."""


_REGISTERS: Final = struct.Struct("<III")


def decode(config: bytes, offset: int, report: Report) -> EnclosureManagement:
    capability, control, status = _REGISTERS.unpack_from(config, offset + 4)
    return EnclosureManagement(
        offset=offset,
        version=config[offset + 2] & 0xF,
        capable=capability & 1 != 0,
        reset_capable=capability & 2 != 0,
        indications=_indications(capability),
        specific=capability >> 24,
        enabled=control & 1 != 0,
        initiate_reset=control & 2 != 0,
        shown=_indications(control),
        specific_controls=control >> 24,
        command_completed=status & 1 != 0,
        specific_status=status >> 24,
    )


def _indications(register: int) -> tuple[EnclosureIndication, ...]:
    return tuple(value for bit, value in enumerate(EnclosureIndication, 2) if register >> bit & 1)
