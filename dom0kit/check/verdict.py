# SPDX-License-Identifier: MIT
"""What a check says of one machine, as a value; and what was known before (a baseline)."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import msgspec

from dom0kit.check.rules import findings
from dom0kit.finding import Finding, Severity
from dom0kit.platform import Machine, Origin, Platform
from dom0kit.serial import decode

FORMAT = 1
"""Version of the JSON form; a new one where a field goes away or changes its meaning."""

Known = frozenset[tuple[str, str, str]]
"""Rule, place and message of findings that are not news."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """One machine's findings."""

    version: int = FORMAT
    origin: Origin
    machine: Machine
    known: int
    """How many findings the baseline has, and are left out."""
    gone: int
    """How many findings of the baseline are not there any more."""
    findings: tuple[Finding, ...]
    """Those at or above the severity that was asked for, the most severe first."""


class _Findings(msgspec.Struct, frozen=True):
    """What a baseline must have; other fields are not looked at."""

    findings: tuple[Finding, ...]


def judge(platform: Platform, *, least: Severity = Severity.INFO, known: Known = frozenset()) -> Verdict:
    """All rules over a machine, without the findings below `least` and without the `known` ones."""
    every = findings(platform)
    there = {_key(finding) for finding in every}
    new = [finding for finding in every if _key(finding) not in known]
    return Verdict(
        origin=platform.origin,
        machine=platform.machine,
        known=len(every) - len(new),
        gone=len(known - there),
        findings=at_least(new, least),
    )


def at_least(told: Iterable[Finding], least: Severity) -> tuple[Finding, ...]:
    """Those at or above a severity, in their order."""
    order = list(Severity)
    heavy: Collection[Severity] = order[order.index(least) :]
    return tuple(finding for finding in told if finding.severity in heavy)


def baseline(text: bytes) -> Known:
    """The findings of a check's or an enumeration's JSON; `dom0kit.serial.UndecodableJson` for any other text."""
    return frozenset(_key(finding) for finding in decode(text, _Findings).findings)


def _key(finding: Finding) -> tuple[str, str, str]:
    return finding.rule, finding.where, finding.message
