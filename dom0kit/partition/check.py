# SPDX-License-Identifier: MIT
"""A partition against a machine: who gets what, and every conflict."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from dom0kit.address import Sbdf
from dom0kit.finding import Severity
from dom0kit.partition.document import Document
from dom0kit.partition.ground import Ground
from dom0kit.partition.rules import JUDGES, Case, Conflict

_WEIGHT = {severity: -order for order, severity in enumerate(Severity)}


class Given(msgspec.Struct, frozen=True):
    """What a domain gets."""

    name: str
    number: int
    """Of hv_core's domain."""
    functions: tuple[Sbdf, ...]
    """Ascending."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What `check` says."""

    machine: str
    domains: tuple[Given, ...]
    conflicts: tuple[Conflict, ...]
    """The most severe first."""

    @property
    def feasible(self) -> bool:
        """Whether a plan can be made."""
        return not any(conflict.is_error for conflict in self.conflicts)


def case_of(ground: Ground, document: Document) -> Case:
    """The functions that the file's devices are."""
    partition = document.partition
    given: list[list[tuple[Sbdf, int | None]]] = []
    troubles = []
    for number, domain in enumerate(partition.domain):
        given.append([])
        for place, device in enumerate(domain.device):
            found = ground.finder.find(device)
            if found.function is None:
                troubles.append((number, place, found))
            else:
                given[-1].append((found.function, place))
    return Case(ground, partition, given, troubles=troubles, lines=document.line)


def judge(case: Case) -> tuple[Conflict, ...]:
    """Every conflict, the most severe first, then in the order of the rules."""
    return ordered(conflict for each in JUDGES for conflict in each(case))


def ordered(conflicts: Iterable[Conflict]) -> tuple[Conflict, ...]:
    return tuple(sorted(conflicts, key=lambda conflict: _WEIGHT[conflict.finding.severity]))


def check(ground: Ground, document: Document) -> Verdict:
    """The verdict on a file."""
    case = case_of(ground, document)
    return verdict(case)


def verdict(case: Case) -> Verdict:
    partition = case.partition
    return Verdict(
        machine=case.ground.platform.origin.name,
        domains=tuple(
            Given(domain.name, partition.number(number), tuple(case.of[number]))
            for number, domain in enumerate(partition.domain)
        ),
        conflicts=judge(case),
    )
