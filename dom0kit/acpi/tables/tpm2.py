# SPDX-License-Identifier: MIT
"""TPM2: how to talk to the TPM (TCG ACPI Specification 1.4, section 7.3)."""

from __future__ import annotations

from typing import Annotated

from dom0kit.acpi.tables.table import Header
from dom0kit.layout import U16, U32, U64, OpenRecord, raw
from dom0kit.serial import Hex


class Tpm2(OpenRecord, frozen=True, kw_only=True, tag="tpm2"):
    """TPM 2.0 table of revision 3 and 4: 52, 64 or 76 bytes."""

    platform_class: U16
    """0 client, 1 server."""
    reserved: U16 = 0
    control_area_address: U64
    start_method: U32
    """2 ACPI, 6 TIS, 7 CRB, 8 CRB and ACPI, 11 CRB and SMC …"""
    start_method_parameters: Annotated[Hex | None, raw(12)] = None
    log_area_minimum_length: U32 | None = None
    log_area_start_address: U64 | None = None


class Tpm2Revision5(OpenRecord, frozen=True, kw_only=True, tag="tpm2-revision-5"):
    """From revision 5 on there are four more bytes of parameters: 68 or 80 bytes."""

    platform_class: U16
    reserved: U16 = 0
    control_area_address: U64
    start_method: U32
    start_method_parameters: Annotated[Hex | None, raw(16)] = None
    log_area_minimum_length: U32 | None = None
    log_area_start_address: U64 | None = None


def record(header: Header) -> type[OpenRecord]:
    """Which of the two a table has."""
    return Tpm2Revision5 if header.revision >= 5 else Tpm2
