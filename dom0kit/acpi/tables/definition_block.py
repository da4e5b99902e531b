# SPDX-License-Identifier: MIT
"""DSDT, SSDT, PSDT and OSDT: AML behind a header (ACPI 6.5, section 5.2.11; AML itself: chapter 20)."""

from __future__ import annotations

from typing import Annotated

from dom0kit.layout import OpenRecord, raw
from dom0kit.serial import Hex


class DefinitionBlock(OpenRecord, frozen=True, kw_only=True, tag="definition-block"):
    """Differentiated, secondary, persistent or override definition block."""

    code: Annotated[Hex, raw()]
    """AML byte code; only an AML interpreter reads it."""
