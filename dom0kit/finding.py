# SPDX-License-Identifier: MIT
"""What is wrong with a machine: a Finding, always of a Rule with a stable id.

A rule is declared once, at module level, beside the code that can tell it::

    CHECKSUM = rule("acpi.table-checksum", Severity.WARNING, title=..., meaning=..., advice=..., specification=...)
    findings.append(CHECKSUM.at("table:SSDT3", "the bytes sum to 0x1a, not 0"))
"""

from __future__ import annotations

import enum
import re
from typing import Final

import msgspec


class Severity(enum.Enum):
    """How bad a finding is; the order of declaration is the order of weight."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Finding(msgspec.Struct, frozen=True):
    """One thing that is wrong, or worth knowing, at one place of the machine."""

    rule: str
    """Stable id of the rule, e.g. ``acpi.table-checksum``."""
    severity: Severity
    where: str
    """What it is about, e.g. ``table:SSDT3``, ``pci:0000:00:1f.0``, ``ioapic:2``, ``aml:\\_SB.PCI0._PRT``."""
    message: str
    """One sentence with the evidence: values found, values expected."""


class Rule(msgspec.Struct, frozen=True):
    """What kind of thing can be wrong, and what a person can do about it (``dom0kit explain``)."""

    id: str
    severity: Severity
    title: str
    """A few words, no full stop."""
    meaning: str
    """What the finding says of the machine and what follows from it."""
    advice: str
    """What to do."""
    specification: str
    """Which document and section says so, or which Linux or Xen file behaves so."""

    def at(self, where: str, message: str) -> Finding:
        """A finding of this rule."""
        return Finding(self.id, self.severity, where, message)


_ID: Final = re.compile(r"[a-z0-9]+\.[a-z0-9]+(-[a-z0-9]+)*")
RULES: Final[dict[str, Rule]] = {}
"""Every rule whose module has been imported, by id."""


def rule(id: str, severity: Severity, *, title: str, meaning: str, advice: str, specification: str) -> Rule:
    """Declare a rule. The id is ``area.what-is-wrong``, stable for ever, and declared only once."""
    if _ID.fullmatch(id) is None:
        raise ValueError(f"{id!r} is not a rule id like acpi.table-checksum")
    if id in RULES:
        raise ValueError(f"rule {id!r} is declared twice")
    RULES[id] = Rule(id, severity, title, meaning, advice, specification)
    return RULES[id]
