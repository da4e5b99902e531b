# SPDX-License-Identifier: MIT
"""PCI interrupt routing: ``_PRT`` entries and the link devices they name (ACPI 6.5, section 6.2.13).

entries, findings = decode_prt(package, "\\_SB.PCI0", resolve_path)
route = resolve(entries[0], namespace)
route.gsi, route.trigger, route.polarity, route.reason, route.steps
"""

from __future__ import annotations

import enum

import msgspec

from dom0kit.address import Gsi, IntxPin, Polarity, Trigger


class PrtEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a ``_PRT``: where a pin of a device on this bus leads."""

    device: int
    """0 to 31."""
    function: int | None = None
    """None: every function (0xFFFF in the table)."""
    pin: IntxPin
    source: str | None = None
    """Path of the link device; None: `source_index` is a GSI."""
    source_index: int = 0
    """The GSI, or which interrupt of the link's resources."""


class NoGsi(enum.Enum):
    """Why an entry of a ``_PRT`` gives no GSI."""

    LINK_MISSING = "the link device does not exist"
    LINK_ABSENT = "the link device is not present"
    LINK_NO_RESOURCES = "the link device has neither _CRS nor _PRS"
    LINK_FAILED = "the link's _CRS cannot be evaluated"
    LINK_UNRECORDED = "the link's _CRS depends on hardware that was not recorded"
    LINK_UNPROGRAMMED = "the link is disabled and _PRS offers several interrupts"
    LINK_INDEX = "the link has no interrupt of this index"


class PrtRoute(msgspec.Struct, frozen=True, kw_only=True):
    """Where an entry of a ``_PRT`` leads."""

    gsi: Gsi | None = None
    trigger: Trigger | None = None
    polarity: Polarity | None = None
    link: str | None = None
    """Path of the link device that was asked."""
    reason: NoGsi | None = None
    """Set when, and only when, there is no GSI."""
    possible: tuple[int, ...] = ()
    """What the link's _PRS offers."""
    steps: tuple[str, ...] = ()
    """For people, in order."""
