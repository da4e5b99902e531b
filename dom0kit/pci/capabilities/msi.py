# SPDX-License-Identifier: MIT
"""MSI capability (PCI Local Bus 3.0, section 6.8.1; extended message data: PCIe Base 6.0, section 7.7.1)."""

from __future__ import annotations

import struct
from typing import Final

from dom0kit.finding import Severity, rule
from dom0kit.pci.capabilities import Report, StandardCapability, TruncatedCapability, truncated

LENGTH = 10
_HALF: Final = struct.Struct("<H")
_WORD: Final = struct.Struct("<I")
_ADDRESS64: Final = struct.Struct("<Q")
_MASKS: Final = struct.Struct("<II")

COUNT: Final = rule(
    "pci.msi-count",
    Severity.WARNING,
    title="more MSI messages enabled than the function has",
    meaning="The Multiple Message Enable field holds a reserved value or more than Multiple Message Capable. How many "
    "vectors the function uses, and which low bits of the message data it changes, is undefined.",
    advice="Disable MSI of this function and let its driver set it up again; if firmware left this, update it.",
    specification="PCI Local Bus 3.0, section 6.8.1.3",
)


class Msi(StandardCapability, frozen=True, tag="msi"):
    """Message Signalled Interrupts: whether on, and where the message goes."""

    enabled: bool
    capable: int
    """Messages the function asks for: 1 to 32 (64 and 128 are reserved values)."""
    allocated: int
    """Messages software gave it: 1 to 32."""
    address_64bit: bool
    maskable: bool
    """Mask and pending bits for each message."""
    extended_data_capable: bool
    extended_data_enabled: bool
    address: int
    data: int
    """16 bits; 32 where extended data is enabled."""
    mask: int | None
    """One bit a message; None without per-vector masking."""
    pending: int | None


def decode(config: bytes, offset: int, report: Report) -> Msi | TruncatedCapability:
    (control,) = _HALF.unpack_from(config, offset + 2)
    wide = control & 0x80 != 0
    maskable = control & 0x100 != 0
    data_at = offset + (12 if wide else 8)
    if min(len(config), 0x100) < (data_at + 12 if maskable else data_at + 2):
        return truncated(config, offset, 0x05, report)
    (address,) = _ADDRESS64.unpack_from(config, offset + 4) if wide else _WORD.unpack_from(config, offset + 4)
    extended = control & 0x400 != 0 and maskable  # the data register has its upper half only in the maskable layouts
    (data,) = (_WORD if extended else _HALF).unpack_from(config, data_at)
    mask, pending = _MASKS.unpack_from(config, data_at + 4) if maskable else (None, None)
    capable = control >> 1 & 7
    allocated = control >> 4 & 7
    if control & 1 and (allocated > capable or allocated > 5):
        report(COUNT, f"{1 << allocated} MSI messages are enabled, {1 << capable} are there")
    return Msi(
        offset,
        enabled=control & 1 != 0,
        capable=1 << capable,
        allocated=1 << allocated,
        address_64bit=wide,
        maskable=maskable,
        extended_data_capable=control & 0x200 != 0,
        extended_data_enabled=control & 0x400 != 0,
        address=address,
        data=data,
        mask=mask,
        pending=pending,
    )
