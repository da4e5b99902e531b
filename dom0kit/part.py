# SPDX-License-Identifier: MIT
"""The parts of a machine that can be looked at alone."""

from __future__ import annotations

import enum


class Part(enum.Enum):
    """One of them, by its name on the command line."""

    ACPI = "acpi"
    PCI = "pci"
    INTERRUPTS = "interrupts"
    CPUS = "cpus"
    MEMORY = "memory"
