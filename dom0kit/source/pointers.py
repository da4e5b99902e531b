# SPDX-License-Identifier: MIT
"""Where this machine's Linux found the ACPI tables at boot: RSDP and XSDT, by firmware's word and the kernel's log.

Like `needs` this is asked of the running kernel only. Sources: Linux drivers/firmware/efi/efi.c (``systab``, lines
``ACPI20=0x…``), drivers/acpi/acpica/tbprint.c (``ACPI: RSDP 0x… 000024 (v02 …``).
"""

from __future__ import annotations

import os
import re

import msgspec

from dom0kit.source.live import kernel_log

_TABLE = re.compile(rb"^ACPI: (RSDP|XSDT|RSDT) 0x([0-9A-Fa-f]{1,16}) ", re.MULTILINE)
_EFI = re.compile(rb"^ACPI(?:20)?=0x([0-9a-fA-F]{1,16})$", re.MULTILINE)
_SYSTAB = "sys/firmware/efi/systab"


class Pointers(msgspec.Struct, frozen=True):
    """Physical addresses at which dom0 saw the tables; empty where nobody says any more."""

    rsdp: frozenset[int] = frozenset()
    root: frozenset[int] = frozenset()
    """Of the XSDT, or of the RSDT on firmware that has no other."""


def acpi_pointers(root: str = "/", log: bytes | None = None) -> Pointers:
    """`log`: the kernel's; None: the running kernel's, as far back as it still is."""
    if log is None:
        try:
            log = kernel_log()
        except OSError:
            log = b""
    seen = [(name, int(address, 16)) for name, address in _TABLE.findall(log)]
    try:
        with open(os.path.join(root, _SYSTAB), "rb") as file:
            firmware = [int(address, 16) for address in _EFI.findall(file.read(4096))]
    except OSError:
        firmware = []
    rsdp = {address for name, address in seen if name == b"RSDP"} | set(firmware)
    return Pointers(frozenset(rsdp), frozenset(address for name, address in seen if name != b"RSDP"))
