# SPDX-License-Identifier: MIT
"""Alternative Routing-ID Interpretation, extended capability 000Eh (PCI Express Base 6.0, section 7.8.8)."""

from __future__ import annotations

import struct
from typing import Final

from dom0kit.pci.capabilities import ExtendedCapability, Report

LENGTH = 8


class AlternativeRoutingId(ExtendedCapability, frozen=True, tag="ari"):
    """A device with up to 256 functions: device and function number are one."""

    mfvc_function_groups_capable: bool
    acs_function_groups_capable: bool
    next_function: int
    """Number of the next function of the device, 0 to 255; 0 in the last."""
    mfvc_function_groups_enabled: bool
    acs_function_groups_enabled: bool
    function_group: int
    """0 to 7."""


_REGISTERS: Final = struct.Struct("<HH")


def decode(config: bytes, offset: int, report: Report) -> AlternativeRoutingId:
    capability, control = _REGISTERS.unpack_from(config, offset + 4)
    return AlternativeRoutingId(
        offset=offset,
        version=config[offset + 2] & 0xF,
        mfvc_function_groups_capable=capability & 1 != 0,
        acs_function_groups_capable=capability & 2 != 0,
        next_function=capability >> 8,
        mfvc_function_groups_enabled=control & 1 != 0,
        acs_function_groups_enabled=control & 2 != 0,
        function_group=control >> 4 & 7,
    )
