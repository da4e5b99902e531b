# SPDX-License-Identifier: MIT
"""Platforms for tests of partitions: functions of `tests.pci.machines`, with memory and lines put in by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from dom0kit.acpi.tables import decode_table
from dom0kit.address import Gsi, IntxPin, IoapicPin, Polarity, Sbdf, Trigger
from dom0kit.ioapic.intx import GsiLine, IntxRoute
from dom0kit.iommu.facts import IommuFacts, IommuKind, RegionSource, ReservedRegion
from dom0kit.iommu.observe import isolation_groups
from dom0kit.msi.messages import MessageFormat
from dom0kit.msi.state import observe as observe_messages
from dom0kit.part import Part
from dom0kit.partition.check import Verdict, check
from dom0kit.partition.document import read
from dom0kit.partition.ground import Ground
from dom0kit.pci.function import Function
from dom0kit.pci.reset import resets
from dom0kit.pci.topology import build
from dom0kit.platform import Machine, Origin, Platform
from dom0kit.source.interface import RawTable, SourceKind
from tests.hv_core.machines import madt

FINGERPRINT = "5" * 64


def platform(
    functions: Sequence[Function],
    *,
    regions: Sequence[Sequence[str]] = (),
    lines: Mapping[int, Sequence[str]] | None = None,
    iommu: IommuFacts | None = None,
    kind: SourceKind = SourceKind.RECORDING,
    **more: Any,
) -> Platform:
    """`regions`: the functions of each RMRR; `lines`: those whose INTA leads to a GSI."""
    ordered = tuple(sorted(functions, key=lambda function: function.sbdf))
    topology = build(ordered)[0]
    facts = iommu if iommu is not None else IommuFacts(kind=IommuKind.VT_D, interrupt_remapping=True)
    facts = msgspec.structs.replace(
        facts,
        reserved=tuple(
            ReservedRegion(
                source=RegionSource.RMRR,
                segment=0,
                base=0x1000_0000 * (number + 1),
                limit=0x1000_0000 * (number + 1) + 0xFFF,
                functions=tuple(sorted(map(Sbdf.parse, names))),
            )
            for number, names in enumerate(regions)
        ),
    )
    by_gsi = {gsi: tuple(sorted(map(Sbdf.parse, names))) for gsi, names in sorted((lines or {}).items())}
    pins = {gsi: IoapicPin(0, gsi) for gsi in by_gsi}
    routes = [
        IntxRoute(
            sbdf=sbdf,
            pin=IntxPin.A,
            gsi=gsi,
            ioapic_pin=pins[gsi],
            trigger=Trigger.LEVEL,
            polarity=Polarity.LOW,
        )
        for gsi, of in by_gsi.items()
        for sbdf in of
    ]
    given: dict[str, Any] = {
        "origin": Origin(name="a machine of a test", kind=kind, is_live=False, fingerprint=FINGERPRINT),
        "machine": Machine(),
        "parts": tuple(Part),
        "tables": (decode_table(RawTable("APIC", madt())),),
        "functions": ordered,
        "topology": topology,
        "resets": resets(ordered, topology)[0],
        "groups": isolation_groups(facts, ordered, topology),
        "iommu": facts,
        "routes": tuple(sorted(routes, key=lambda route: route.sbdf)),
        "lines": tuple(GsiLine(Gsi(gsi), pins[gsi], of) for gsi, of in by_gsi.items()),
        "msi": observe_messages(ordered, MessageFormat.COMPATIBILITY, judge=False, kernel=False)[0],
    }
    return Platform(**given | more)


def text(assignment: Mapping[str, Sequence[str]], *policies: str) -> bytes:
    """A file: functions by domain, named by their addresses; the policy lines go to every domain."""
    lines = []
    for name, functions in assignment.items():
        devices = ", ".join(f'{{ sbdf = "{each}" }}' for each in functions)
        lines += ["[[domain]]", f'name = "{name}"', f"device = [{devices}]", "[domain.policy]", *policies]
    return "\n".join(lines).encode()


def checked(machine: Platform, assignment: Mapping[str, Sequence[str]], *policies: str, **options: Any) -> Verdict:
    return check(Ground(machine, **options), read(text(assignment, *policies)))


def told(verdict: Verdict, *, errors: bool = False) -> dict[str, list[str]]:
    """Places by rule, but for what always is told of such files."""
    found: dict[str, list[str]] = {}
    for each in verdict.conflicts:
        if each.finding.rule not in ("partition.address-only", "partition.not-judged") and (
            each.is_error or not errors
        ):
            found.setdefault(each.finding.rule, []).append(each.finding.where)
    return found
