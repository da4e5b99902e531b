# SPDX-License-Identifier: MIT
"""BERT: where firmware left errors of the last boot (ACPI 6.5, section 18.3.1)."""

from __future__ import annotations

from dom0kit.layout import U32, U64, OpenRecord


class Bert(OpenRecord, frozen=True, kw_only=True, tag="bert"):
    """Boot Error Record Table."""

    boot_error_region_length: U32
    boot_error_region: U64
    """Physical address."""
