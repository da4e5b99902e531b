# SPDX-License-Identifier: MIT
"""MSI-X capability (PCI Local Bus 3.0, section 6.8.2). The table itself lies behind a BAR and is not here."""

from __future__ import annotations

import struct
from typing import Final

from dom0kit.pci.capabilities import Report, StandardCapability

LENGTH = 12
_REGISTERS: Final = struct.Struct("<HII")


class MsiX(StandardCapability, frozen=True, tag="msi-x"):
    """MSI-X: whether on, and where table and pending bits lie."""

    enabled: bool
    masked: bool
    """Function Mask: every vector of the function is masked."""
    vectors: int
    """1 to 2048."""
    table_bar: int
    """BIR, 0 to 7; 6 and 7 are reserved."""
    table_offset: int
    """In the BAR's memory, a multiple of 8."""
    pba_bar: int
    pba_offset: int

    @property
    def table_size(self) -> int:
        """Bytes of the vector table: 16 a vector."""
        return self.vectors * 16

    @property
    def pba_size(self) -> int:
        """Bytes of the pending bit array: one bit a vector, whole quadwords."""
        return (self.vectors + 63) // 64 * 8


def decode(config: bytes, offset: int, report: Report) -> MsiX:
    control, table, pba = _REGISTERS.unpack_from(config, offset + 2)
    return MsiX(
        offset,
        enabled=control & 0x8000 != 0,
        masked=control & 0x4000 != 0,
        vectors=(control & 0x7FF) + 1,
        table_bar=table & 7,
        table_offset=table & ~7,
        pba_bar=pba & 7,
        pba_offset=pba & ~7,
    )
