# SPDX-License-Identifier: MIT
"""The rules' frame: how one is declared, what it is given, and how all of them are run over a machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from importlib import import_module
from typing import Final, TypeVar

from dom0kit.acpi.namespace import AmlDevice
from dom0kit.acpi.tables.fadt import Fadt
from dom0kit.address import Sbdf
from dom0kit.finding import RULES, Finding, Rule, Severity, rule
from dom0kit.pci.capabilities.express import Express, ExpressType
from dom0kit.pci.function import Function
from dom0kit.platform import Platform

MODULES: Final = (
    "addresses",
    "devices",
    "hypervisors",
    "interrupts",
    "iommu",
    "known_faults",
    "links",
    "processors",
    "root_bridges",
    "tables",
)
"""Where the rules of this package are declared."""

Told = tuple[str, str]
"""Where, and one sentence of evidence, as in a `Finding`."""
Check = Callable[["View"], Iterable[Told]]

T = TypeVar("T")
CHECKS: Final[list[tuple[Rule, Check]]] = []
"""Every check whose module has been imported."""


def check(
    id: str, severity: Severity, *, title: str, meaning: str, advice: str, specification: str
) -> Callable[[Check], Check]:
    """Declares a rule (`dom0kit.finding.rule`) and the function that finds what it is about."""
    declared = rule(id, severity, title=title, meaning=meaning, advice=advice, specification=specification)

    def register(function: Check) -> Check:
        CHECKS.append((declared, function))
        return function

    return register


def findings(platform: Platform) -> tuple[Finding, ...]:
    """All that is wrong with a machine: the platform's own findings and those of every check, each once; the most
    severe first, then by rule, place and text."""
    for module in MODULES:
        import_module(f"dom0kit.check.{module}")
    view = View(platform)
    told = list(platform.findings)
    told.extend(rule.at(where, message) for rule, function in CHECKS for where, message in function(view))
    return ordered(told)


def ordered(told: Iterable[Finding]) -> tuple[Finding, ...]:
    """Each once; the most severe first, then by rule, place and text."""
    weight = {severity: -order for order, severity in enumerate(Severity)}
    return tuple(sorted(set(told), key=lambda each: (weight[each.severity], each.rule, each.where, each.message)))


def explained(finding: Finding) -> Rule:
    """The rule of a finding; one made up from the finding where it is of another version of dom0kit."""
    known = RULES.get(finding.rule)
    return known or Rule(finding.rule, finding.severity, finding.rule, "", "", "")


class View:
    """A machine as the rules ask for it: a `Platform` with its indexes."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform

    @cached_property
    def functions(self) -> Mapping[Sbdf, Function]:
        """By address; the first of each."""
        found: dict[Sbdf, Function] = {}
        for function in self.platform.functions:
            found.setdefault(function.sbdf, function)
        return found

    @cached_property
    def read(self) -> tuple[Function, ...]:
        """Functions that were awake and answered with more than their header, ascending."""
        return tuple(
            function
            for _, function in sorted(self.functions.items())
            if function.answers and not function.asleep and function.config_bytes >= 0x100
        )

    @cached_property
    def express(self) -> Mapping[Sbdf, Express]:
        """The PCI Express capability of each function in `read` that has one, ascending."""
        return {function.sbdf: found for function in self.read if (found := capability(function, Express)) is not None}

    @cached_property
    def links(self) -> tuple[tuple[Function, Express, Function, Express], ...]:
        """Every link whose two ends are seen: the port above, and function 0 of the device below."""
        found = []
        for below, express in self.express.items():
            above = self.above(below)
            if below.function or above is None or above.sbdf not in self.express:
                continue
            port = self.express[above.sbdf]
            ends = port.type in (ExpressType.ROOT_PORT, ExpressType.DOWNSTREAM_PORT)  # inside a switch is no link
            if ends and port.link is not None and express.link is not None:
                found.append((above, port, self.functions[below], express))
        return tuple(found)

    def above(self, sbdf: Sbdf) -> Function | None:
        """The bridge directly above a function; None on a root bus."""
        topology = self.platform.topology
        upstream = None if topology is None else topology.upstream(sbdf)
        return None if upstream is None else self.functions.get(upstream)

    @cached_property
    def fadt(self) -> tuple[str, Fadt] | None:
        """Name (``table:FACP``) and content of the first FADT."""
        return self.table(Fadt)

    def table(self, content: type[T]) -> tuple[str, T] | None:
        """Name (``table:DMAR``) and content of the first table of a kind."""
        return next(self.tables(content), None)

    def tables(self, content: type[T]) -> Iterator[tuple[str, T]]:
        """Name and content of every table of a kind."""
        for table in self.platform.tables:
            if isinstance(table.content, content):
                yield f"table:{table.name}", table.content

    @cached_property
    def devices(self) -> tuple[AmlDevice, ...]:
        """Devices of the namespace that are present; none where AML was not interpreted."""
        namespace = self.platform.namespace
        return () if namespace is None else tuple(device for device in namespace.devices if device.present)


def capability(function: Function, type: type[T]) -> T | None:
    """The first capability of a type."""
    return next((found for found in function.capabilities if isinstance(found, type)), None)


def shown(items: Iterable[object], most: int = 8) -> str:
    """``a b c``, or the first `most` and how many more there are."""
    listed = [str(item) for item in items]
    return " ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")
