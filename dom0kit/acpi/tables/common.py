# SPDX-License-Identifier: MIT
"""Records that several ACPI tables share."""

from __future__ import annotations

import enum
from typing import Annotated

from dom0kit.layout import U8, U64, Int8, Record, enumerated


class AddressSpace(enum.Enum):
    """Where a generic address lies (ACPI 6.5, table 5.1)."""

    SYSTEM_MEMORY = "system-memory"
    SYSTEM_IO = "system-io"
    PCI_CONFIG = "pci-config"
    EMBEDDED_CONTROLLER = "embedded-controller"
    SMBUS = "smbus"
    CMOS = "cmos"
    PCI_BAR = "pci-bar"
    IPMI = "ipmi"
    GPIO = "gpio"
    SERIAL_BUS = "serial-bus"
    PLATFORM_CHANNEL = "platform-channel"
    PLATFORM_RUNTIME = "platform-runtime"
    FIXED_HARDWARE = "fixed-hardware"


SPACES = {
    0: AddressSpace.SYSTEM_MEMORY,
    1: AddressSpace.SYSTEM_IO,
    2: AddressSpace.PCI_CONFIG,
    3: AddressSpace.EMBEDDED_CONTROLLER,
    4: AddressSpace.SMBUS,
    5: AddressSpace.CMOS,
    6: AddressSpace.PCI_BAR,
    7: AddressSpace.IPMI,
    8: AddressSpace.GPIO,
    9: AddressSpace.SERIAL_BUS,
    10: AddressSpace.PLATFORM_CHANNEL,
    11: AddressSpace.PLATFORM_RUNTIME,
    0x7F: AddressSpace.FIXED_HARDWARE,
}


class GenericAddress(Record, frozen=True, kw_only=True):
    """A register anywhere: Generic Address Structure (ACPI 6.5, section 5.2.3.2)."""

    space: Annotated[AddressSpace | int, enumerated(Int8, SPACES)]
    bit_width: U8
    bit_offset: U8
    access_size: U8
    """0 undefined, 1 byte, 2 word, 3 dword, 4 qword."""
    address: U64
