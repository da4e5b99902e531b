# SPDX-License-Identifier: MIT
"""WAET: emulated devices that behave better than real ones (Microsoft, Windows ACPI Emulated Devices Table)."""

from __future__ import annotations

from typing import Annotated

from dom0kit.layout import Bit, BitField, OpenRecord, bits


class WaetFlags(BitField, frozen=True, kw_only=True):
    """Emulated device flags."""

    rtc_good: Bit
    """No need to read register C after an RTC interrupt."""
    pm_timer_good: Bit
    """One read of the PM timer is enough."""
    reserved: Annotated[int, bits(30)] = 0


class Waet(OpenRecord, frozen=True, kw_only=True, tag="waet"):
    """Windows ACPI Emulated Devices Table."""

    flags: WaetFlags
