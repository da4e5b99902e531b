# SPDX-License-Identifier: MIT
"""L1 PM Substates, extended capability 001Eh (PCI Express Base 6.0, section 7.8.3)."""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from dom0kit.pci.capabilities import ExtendedCapability, Report

LENGTH = 0x10


class L1Substates(msgspec.Struct, frozen=True, gc=False):
    """The four substates, as a port can do them or as they are turned on."""

    pci_pm_l1_2: bool
    pci_pm_l1_1: bool
    aspm_l1_2: bool
    aspm_l1_1: bool


class L1PmSubstates(ExtendedCapability, frozen=True, tag="l1-pm-substates"):
    """Deeper states of an idle link."""

    capable: L1Substates
    supported: bool
    """L1 PM Substates Supported."""
    link_activation_capable: bool
    port_common_mode_restore: int
    """Port Common_Mode_Restore_Time in us, 0 to 255."""
    port_power_on: int | None
    """Port T_POWER_ON in us; None where the scale is reserved."""
    enabled: L1Substates
    link_activation_interrupt: bool
    link_activation: bool
    """Link Activation Control."""
    common_mode_restore: int
    """Common_Mode_Restore_Time in us, 0 to 255."""
    ltr_threshold: int | None
    """LTR_L1.2_THRESHOLD in ns; None where the scale is reserved."""
    power_on: int | None
    """T_POWER_ON in us; None where the scale is reserved."""
    link_activation_status: bool | None
    """None below version 2 and where it cannot be read."""


_REGISTERS: Final = struct.Struct("<III")


def decode(config: bytes, offset: int, report: Report) -> L1PmSubstates:
    capability, control1, control2 = _REGISTERS.unpack_from(config, offset + 4)
    version = config[offset + 2] & 0xF
    scale = control1 >> 29
    return L1PmSubstates(
        offset=offset,
        version=version,
        capable=_substates(capability),
        supported=capability & 0x10 != 0,
        link_activation_capable=capability & 0x20 != 0,
        port_common_mode_restore=capability >> 8 & 0xFF,
        port_power_on=_power_on(capability >> 19 & 0x1F, capability >> 16 & 3),
        enabled=_substates(control1),
        link_activation_interrupt=control1 & 0x10 != 0,
        link_activation=control1 & 0x20 != 0,
        common_mode_restore=control1 >> 8 & 0xFF,
        ltr_threshold=(control1 >> 16 & 0x3FF) << 5 * scale if scale < 6 else None,
        power_on=_power_on(control2 >> 3 & 0x1F, control2 & 3),
        link_activation_status=config[offset + 0x10] & 1 != 0
        if version >= 2 and offset + 0x14 <= len(config)
        else None,
    )


def _substates(bits: int) -> L1Substates:
    return L1Substates(bits & 1 != 0, bits & 2 != 0, bits & 4 != 0, bits & 8 != 0)


def _power_on(value: int, scale: int) -> int | None:
    return value * (2, 10, 100)[scale] if scale < 3 else None
