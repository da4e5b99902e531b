# SPDX-License-Identifier: MIT
"""ECDT: the embedded controller, before the namespace is loaded (ACPI 6.5, section 5.2.15)."""

from __future__ import annotations

from typing import Annotated

from dom0kit.acpi.tables.common import GenericAddress
from dom0kit.layout import U8, U32, OpenRecord, terminated_text


class Ecdt(OpenRecord, frozen=True, kw_only=True, tag="ecdt"):
    """Embedded Controller Boot Resources Table."""

    ec_control: GenericAddress
    ec_data: GenericAddress
    uid: U32
    gpe_bit: U8
    ec_id: Annotated[str, terminated_text()]
    """Path of the controller in the namespace."""
