# SPDX-License-Identifier: MIT
"""Power Management capability (PCI Bus Power Management Interface 1.2, section 3.2; PCIe Base 6.0, section 7.5.2)."""

from __future__ import annotations

import struct
from typing import Final

from dom0kit.pci.capabilities import Report, StandardCapability

LENGTH = 8
_REGISTERS: Final = struct.Struct("<HHBB")
_AUX_CURRENT: Final = (0, 55, 100, 160, 220, 270, 320, 375)


class PowerManagement(StandardCapability, frozen=True, tag="power-management"):
    """Which power states a function has, in which one it is, and what wakes it."""

    version: int
    """0 to 7; 3 is PCI-PM 1.2."""
    pme_clock: bool
    immediate_readiness: bool
    """Ready at once on return to D0."""
    device_specific_init: bool
    aux_current: int
    """Milliamperes from Vaux in D3cold."""
    d1: bool
    d2: bool
    pme_d0: bool
    pme_d1: bool
    pme_d2: bool
    pme_d3hot: bool
    pme_d3cold: bool
    power_state: int
    """0 to 3: D0 to D3hot, when it was read."""
    no_soft_reset: bool
    """D3hot to D0 keeps the state: not a way to reset the function."""
    pme_enabled: bool
    data_select: int
    data_scale: int
    pme_status: bool
    bridge_extensions: int
    """PMCSR_BSE register, 8 bits."""
    data: int

    @property
    def bridge_b2(self) -> bool:
        """Bit B2_B3#: when the bridge goes to D3hot its secondary bus goes to B2 (set) or B3 (clear)."""
        return self.bridge_extensions & 0x40 != 0

    @property
    def bridge_power_control(self) -> bool:
        """Bus Power/Clock Control Enable."""
        return self.bridge_extensions & 0x80 != 0


def decode(config: bytes, offset: int, report: Report) -> PowerManagement:
    capabilities, control, bridge, data = _REGISTERS.unpack_from(config, offset + 2)
    return PowerManagement(
        offset,
        version=capabilities & 7,
        pme_clock=capabilities & 0x8 != 0,
        immediate_readiness=capabilities & 0x10 != 0,
        device_specific_init=capabilities & 0x20 != 0,
        aux_current=_AUX_CURRENT[capabilities >> 6 & 7],
        d1=capabilities & 0x200 != 0,
        d2=capabilities & 0x400 != 0,
        pme_d0=capabilities & 0x800 != 0,
        pme_d1=capabilities & 0x1000 != 0,
        pme_d2=capabilities & 0x2000 != 0,
        pme_d3hot=capabilities & 0x4000 != 0,
        pme_d3cold=capabilities & 0x8000 != 0,
        power_state=control & 3,
        no_soft_reset=control & 0x8 != 0,
        pme_enabled=control & 0x100 != 0,
        data_select=control >> 9 & 0xF,
        data_scale=control >> 13 & 3,
        pme_status=control & 0x8000 != 0,
        bridge_extensions=bridge,
        data=data,
    )
