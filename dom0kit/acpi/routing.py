# SPDX-License-Identifier: MIT
"""PCI interrupt routing: ``_PRT`` entries and the link devices they name (ACPI 6.5, section 6.2.13).

    entries, findings = decode_prt(package, "aml:\\_SB.PCI0._PRT", find)
    route = resolve(entries[0], namespace)
    route.gsi, route.trigger, route.polarity, route.reason, route.steps

A link device (PNP0C0F) is a router whose input is several pins and whose output one interrupt: ``_CRS`` says which one
it is set to, ``_PRS`` which ones it can be set to. Whoever leaves the choice open leaves it to the operating system.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from dom0kit.acpi.resources import ExtendedInterrupt, Irq, Resource
from dom0kit.address import Gsi, IntxPin, Polarity, Trigger
from dom0kit.finding import Finding, Severity, rule

if TYPE_CHECKING:
    from dom0kit.acpi.aml_output import Raw
    from dom0kit.acpi.namespace import AmlDevice, Namespace

MALFORMED: Final = rule(
    "aml.prt-malformed",
    Severity.WARNING,
    title="an entry of a _PRT is malformed",
    meaning="A PCI routing table must hold packages of address, pin, source and index. This entry does not, or names a "
    "device above 31 or a pin above 3; it is left out, and the device it meant has no route for its INTx pin.",
    advice="Give the device MSI, or override the DSDT.",
    specification="ACPI 6.5, section 6.2.13, table 6.13",
)
SOURCE_MISSING: Final = rule(
    "aml.prt-source-missing",
    Severity.WARNING,
    title="a _PRT names a link device that does not exist",
    meaning="The routing table sends a pin to an interrupt link device by a name that is not in the namespace, so the "
    "pin's interrupt is unknown.",
    advice="Look whether an SSDT is missing from the recording; else give the device MSI, or override the table.",
    specification="ACPI 6.5, section 6.2.13",
)
SWAPPED: Final = rule(
    "aml.prt-swapped",
    Severity.INFO,
    title="source and source index of a _PRT are swapped",
    meaning="The third element of the entry is a number and the fourth a name; the specification has it the other way "
    "round. It is read as it was meant, as Linux does.",
    advice="Nothing.",
    specification="ACPI 6.5, section 6.2.13, table 6.13",
)


class PrtEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a ``_PRT``: where a pin of a device on this bus leads."""

    device: int
    """0 to 31."""
    function: int | None = None
    """None: every function (0xFFFF in the table)."""
    pin: IntxPin
    source: str | None = None
    """Path of the link device (as written, where it does not exist); None: `source_index` is a GSI."""
    source_index: int = 0
    """The GSI, or which interrupt of the link's resources."""


class NoGsi(enum.Enum):
    """Why an entry of a ``_PRT`` gives no GSI."""

    LINK_MISSING = "the link device does not exist"
    LINK_ABSENT = "the link device is not present"
    LINK_NO_RESOURCES = "the link device has neither _CRS nor _PRS"
    LINK_FAILED = "the link's _CRS cannot be evaluated"
    LINK_UNRECORDED = "the link's _CRS depends on hardware that was not recorded"
    LINK_UNPROGRAMMED = "the link is not programmed and _PRS leaves the choice to the operating system"


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
    """What the link's _PRS offers, ascending."""
    steps: tuple[str, ...] = ()
    """For people, in order."""


def decode_prt(
    package: Raw | None, where: str, find: Callable[[Raw], str | None]
) -> tuple[tuple[PrtEntry, ...], tuple[Finding, ...]]:
    """The entries of an evaluated ``_PRT``; `find` gives the path of the object that a reference or name means."""
    from dom0kit.acpi.aml_output import Pointer

    if not isinstance(package, list):
        return (), (MALFORMED.at(where, "it is not a package"),)
    entries: list[PrtEntry] = []
    findings: list[Finding] = []
    swapped = 0
    missing: dict[str, None] = {}
    for number, item in enumerate(package):
        if not isinstance(item, list) or len(item) < 4:
            findings.append(MALFORMED.at(where, f"entry {number} is not a package of four elements"))
            continue
        address, pin, source, index = item[:4]
        if isinstance(source, int) and not isinstance(index, int):
            source, index = index, source
            swapped += 1
        if not (isinstance(address, int) and isinstance(pin, int) and isinstance(index, int)):
            findings.append(MALFORMED.at(where, f"entry {number} has an address, pin or index that is no number"))
            continue
        device, function = address >> 16, address & 0xFFFF
        if device > 31 or pin > 3 or (function > 7 and function != 0xFFFF):
            findings.append(MALFORMED.at(where, f"entry {number} is for address {address:#x}, pin {pin}"))
            continue
        name: str | None = None
        if isinstance(source, str | Pointer):
            name = find(source)
            if name is None:
                name = source if isinstance(source, str) else source.name
                missing[name] = None
        entries.append(
            PrtEntry(
                device=device,
                function=None if function == 0xFFFF else function,
                pin=IntxPin.from_index(pin),
                source=name,
                source_index=index,
            )
        )
    if swapped:
        findings.append(SWAPPED.at(where, f"{swapped} of {len(package)} entries"))
    findings += [SOURCE_MISSING.at(where, f"there is no {name or 'object of an empty name'}") for name in missing]
    return tuple(entries), tuple(findings)


def resolve(entry: PrtEntry, namespace: Namespace) -> PrtRoute:
    """The GSI that an entry of a ``_PRT`` gives, or why there is none."""
    if entry.source is None:
        return PrtRoute(
            gsi=Gsi(entry.source_index & 0xFFFF_FFFF),
            trigger=Trigger.LEVEL,
            polarity=Polarity.LOW,
            steps=(f"_PRT: GSI {entry.source_index}, level, active low as PCI has it",),
        )
    named = f"_PRT: link {entry.source}, index {entry.source_index}"
    link = namespace.device(entry.source)
    if link is None:
        return _without(NoGsi.LINK_MISSING, entry, (named,))
    if not link.present:
        return _without(NoGsi.LINK_ABSENT, entry, (named, f"_STA: {link.sta:#x}, not present"))
    return _through(link, entry, named)


def _through(link: AmlDevice, entry: PrtEntry, named: str) -> PrtRoute:
    steps = [named]
    offered = _interrupts(link.prs)
    possible = tuple(sorted({number for number, _ in offered if number}))
    # Linux takes trigger and polarity from _PRS, which says what the wire is; _CRS may lack the flags.
    shape = next((descriptor for _, descriptor in offered), None)
    current = link.evaluation("_CRS")
    status = link.evaluation("_STA")
    enabled = link.sta is None or bool(link.sta & 2)
    unrecorded = any(found is not None and not found.certain for found in (current, status))
    reason = NoGsi.LINK_UNPROGRAMMED
    if link.crs is not None:
        programmed = [found for found in _interrupts(link.crs) if found[0]]
        if not enabled:
            steps.append(f"_STA: {link.sta:#x}, disabled")
        elif entry.source_index >= len(programmed):
            steps.append("_CRS: no interrupt")
        elif not unrecorded:
            number, descriptor = programmed[entry.source_index]
            steps.append(f"_CRS: set to {number}")
            return _to(number, shape or descriptor, link, possible, steps)
        else:
            steps.append("_CRS: depends on hardware that was not recorded")
        if unrecorded:
            reason = NoGsi.LINK_UNRECORDED
    elif current is not None and not current.ok:
        steps.append(f"_CRS: {current.status}")
        reason = NoGsi.LINK_FAILED
    elif link.prs is None:
        return _without(NoGsi.LINK_NO_RESOURCES, entry, (*steps, "neither _CRS nor _PRS"))
    if len(possible) == 1 and shape is not None:
        steps.append(f"_PRS: only {possible[0]} is possible")
        return _to(possible[0], shape, link, possible, steps)
    steps.append(f"_PRS: {', '.join(map(str, possible)) or 'nothing'} possible")
    return _without(reason, entry, tuple(steps), possible)


def _to(
    number: int, descriptor: Irq | ExtendedInterrupt, link: AmlDevice, possible: tuple[int, ...], steps: list[str]
) -> PrtRoute:
    steps.append(f"{descriptor.trigger.value}, active {descriptor.polarity.value} by the link's descriptor")
    return PrtRoute(
        gsi=Gsi(number),
        trigger=descriptor.trigger,
        polarity=descriptor.polarity,
        link=link.path,
        possible=possible,
        steps=tuple(steps),
    )


def _without(reason: NoGsi, entry: PrtEntry, steps: tuple[str, ...], possible: tuple[int, ...] = ()) -> PrtRoute:
    return PrtRoute(link=entry.source, reason=reason, possible=possible, steps=(*steps, reason.value))


def _interrupts(resources: Sequence[Resource] | None) -> list[tuple[int, Irq | ExtendedInterrupt]]:
    """Every interrupt in a link's resources, each with its descriptor."""
    found: list[tuple[int, Irq | ExtendedInterrupt]] = []
    for resource in resources or ():
        if isinstance(resource, Irq):
            found += [(number, resource) for number in resource.irqs]
        elif isinstance(resource, ExtendedInterrupt):
            found += [(number, resource) for number in resource.interrupts]
    return found
