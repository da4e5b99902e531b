# SPDX-License-Identifier: MIT
"""What dom0's kernel has told Xen, held against what the machine needs. Asking changes nothing.

Linux as dom0 tells Xen of every function it sees, and of a GSI when a driver enables its function (drivers/xen/pci.c,
arch/x86/pci/xen.c). Where that was done, nothing is left to do; where it was not, Xen refuses the function's
interrupts, or a pin keeps the trigger that firmware left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final

import msgspec

from dom0kit.abi import Physdev
from dom0kit.address import Gsi, Polarity, Sbdf, Trigger
from dom0kit.finding import Finding, Severity, rule
from dom0kit.hypercall.interface import HypercallRefused
from dom0kit.hypercall.xen import Xen
from dom0kit.ioapic.controllers import Ioapic
from dom0kit.ioapic.intx import IntxRoute
from dom0kit.ioapic.kernel_view import KernelView
from dom0kit.ioapic.redirection import EntryFormat, RedirectionEntry, decode

UNKNOWN: Final = rule(
    "xen.function-unknown",
    Severity.WARNING,
    title="a function that Xen was not told of",
    meaning="dom0's kernel sees the function, and Xen does not know it: Xen refuses it MSI (map_pirq answers ENODEV), "
    "and its DMA is not translated.",
    advice="Look into dom0's log for `Failed to add - passthrough or MSI/MSI-X might fail!`. A plan tells Xen of it "
    "(pci_device_add), the physical function before its virtual ones.",
    specification="Linux, drivers/xen/pci.c, xen_add_device; Xen, arch/x86/physdev.c, PHYSDEVOP_pci_device_add",
)
NOT_SET_UP: Final = rule(
    "xen.gsi-not-set-up",
    Severity.WARNING,
    title="a driver waits for a GSI that Xen has not set up",
    meaning="A driver of dom0 uses the function's INTx pin, and the redirection entry has no vector: no interrupt "
    "arrives.",
    advice="A plan sets the GSI up (map_pirq, then setup_gsi).",
    specification="Linux, arch/x86/pci/xen.c, xen_register_pirq; Xen, arch/x86/physdev.c, PHYSDEVOP_setup_gsi",
)
SIGNALS_OTHERWISE: Final = rule(
    "xen.gsi-differs",
    Severity.WARNING,
    title="Xen has another trigger or polarity for a pin than firmware says",
    meaning="The redirection entry that Xen programmed signals otherwise than `_PRT` and the link device say. "
    "With the wrong trigger interrupts are lost or never end.",
    advice="The first setup_gsi counts until Xen starts again: see whether another device that shares the pin was "
    "enabled first.",
    specification="ACPI 6.5, section 6.2.13; Xen, arch/x86/irq.c and mpparse.c, mp_register_gsi (EEXIST)",
)


class ToldFunction(msgspec.Struct, frozen=True):
    """A function of dom0's."""

    sbdf: Sbdf
    known: bool
    """To Xen."""


class ToldGsi(msgspec.Struct, frozen=True, kw_only=True):
    """A GSI that INTx pins lead to."""

    gsi: Gsi
    functions: tuple[Sbdf, ...]
    entry: RedirectionEntry | None
    """As Xen shows it: in compatibility format, remapped or not. None for a PVH dom0, whom Xen shows none."""
    set_up: bool | None
    """The entry has a vector. None where there is no entry to see."""
    bound: bool | None
    """A driver of dom0 has requested it. None for a PVH dom0, which has no pIRQs."""


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that can be asked."""

    functions: tuple[ToldFunction, ...]
    gsis: tuple[ToldGsi, ...]
    messages: int | None
    """How many pIRQs of messages are bound; None for a PVH dom0."""


def told(
    xen: Xen,
    functions: Iterable[Sbdf],
    routes: Sequence[IntxRoute],
    ioapics: Sequence[Ioapic],
    kernel: KernelView,
) -> tuple[Told, tuple[Finding, ...]]:
    """Asks Xen. HypercallRefused where this Xen does not tell which functions it has."""
    findings: list[Finding] = []
    known = xen.knows(sorted(functions))
    findings += [UNKNOWN.at(f"pci:{sbdf}", "dom0 has it, and Xen does not") for sbdf, here in known.items() if not here]
    readable = xen.domain.availability(Physdev.APIC_READ).available
    bound = xen.bound_pirqs() if readable else None
    by_gsi: dict[int, list[IntxRoute]] = {}
    for route in routes:
        if route.gsi is not None:
            by_gsi.setdefault(route.gsi, []).append(route)
    used = {each.irq for each in kernel.interrupts if each.actions}
    gsis = []
    for gsi, sharing in sorted(by_gsi.items()):
        entry = _entry(xen, ioapics, gsi) if readable else None
        one = ToldGsi(
            gsi=Gsi(gsi),
            functions=tuple(route.sbdf for route in sharing),
            entry=entry,
            set_up=bool(entry.vector) if entry is not None else None,
            bound=gsi in bound if bound is not None else None,
        )
        gsis.append(one)
        # As PV dom0 Linux numbers a GSI's interrupt like the GSI.
        findings += _judged(one, sharing, in_use=gsi in used)
    pins = {ioapic.gsi_base + pin for ioapic in ioapics for pin in range(ioapic.pins)}
    messages = len(bound.keys() - pins) if bound is not None else None
    told_functions = tuple(ToldFunction(sbdf, here) for sbdf, here in known.items())
    return Told(functions=told_functions, gsis=tuple(gsis), messages=messages), tuple(findings)


def _entry(xen: Xen, ioapics: Sequence[Ioapic], gsi: int) -> RedirectionEntry | None:
    """None beyond every IOAPIC, of those that Xen has."""
    for ioapic in ioapics:
        if ioapic.gsi_base <= gsi <= ioapic.gsi_last:
            register = 0x10 + 2 * (gsi - ioapic.gsi_base)
            with suppress(HypercallRefused):
                word = xen.apic_read(ioapic.address, register) | xen.apic_read(ioapic.address, register + 1) << 32
                return decode(word, EntryFormat.COMPATIBILITY)
    return None


def _judged(one: ToldGsi, sharing: Sequence[IntxRoute], *, in_use: bool) -> Iterable[Finding]:
    if one.entry is None:
        return
    where = f"gsi:{one.gsi}"
    if not one.set_up:
        if in_use:
            yield NOT_SET_UP.at(where, "dom0's kernel has a driver for it, and its entry has no vector")
        return
    wanted: Mapping[tuple[Trigger, Polarity], Sbdf] = {
        (route.trigger, route.polarity): route.sbdf for route in sharing if route.trigger and route.polarity
    }
    if wanted and (one.entry.trigger, one.entry.polarity) not in wanted:
        (trigger, polarity), sbdf = next(iter(wanted.items()))
        yield SIGNALS_OTHERWISE.at(
            where,
            f"{trigger.value} active {polarity.value} for {sbdf} by firmware, "
            f"{one.entry.trigger.value} active {one.entry.polarity.value} in Xen",
        )
