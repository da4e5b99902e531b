# SPDX-License-Identifier: MIT
"""Advanced Features capability: function level reset of a conventional PCI function (PCI ECN Advanced Capabilities)."""

from __future__ import annotations

from dom0kit.pci.capabilities import Report, StandardCapability

LENGTH = 6


class AdvancedFeatures(StandardCapability, frozen=True, tag="advanced-features"):
    """Whether a conventional PCI function can be reset alone."""

    length: int
    """6."""
    transactions_pending_capable: bool
    flr_capable: bool
    flr: bool
    """Reads as 0 by specification."""
    transactions_pending: bool


def decode(config: bytes, offset: int, report: Report) -> AdvancedFeatures:
    capabilities = config[offset + 3]
    return AdvancedFeatures(
        offset,
        length=config[offset + 2],
        transactions_pending_capable=capabilities & 1 != 0,
        flr_capable=capabilities & 2 != 0,
        flr=config[offset + 4] & 1 != 0,
        transactions_pending=config[offset + 5] & 1 != 0,
    )
