# SPDX-License-Identifier: MIT
"""Interrupts that are not PCI's: ISA interrupts and their overrides, the SCI, NMIs.

Sources: ACPI 6.5 sections 5.2.12.5 to 5.2.12.7 and 5.2.12.13 (overrides, NMIs), 5.2.13 (ISA interrupts are the GSIs of
the same number where nothing overrides them), 5.2.9 (SCI_INT), table 5.20 (PCAT_COMPAT). Where a flag leaves trigger or
polarity to the bus: ISA is edge and high (Intel MultiProcessor 1.4, table 4-10), the SCI level and low.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from dom0kit.acpi.tables.fadt import Fadt
from dom0kit.acpi.tables.madt import (
    InterruptSourceOverride,
    IntiFlags,
    IntiPolarity,
    IntiTrigger,
    LocalApicNmi,
    LocalX2apicNmi,
    Madt,
    NmiSource,
)
from dom0kit.acpi.tables.table import Table
from dom0kit.address import IoapicPin, Polarity, Trigger
from dom0kit.finding import Finding, Severity, rule
from dom0kit.ioapic.controllers import IoapicSet, madts
from dom0kit.walker import Notes

ISA_INTERRUPTS: Final = 16
MAX_NMIS: Final = 1 << 16
"""NMI entries that are kept; firmware writes one for each processor."""

BAD_OVERRIDE: Final = rule(
    "ioapic.override-source",
    Severity.WARNING,
    title="an override of something that is no ISA interrupt",
    meaning="An interrupt source override is defined for bus 0 (ISA) and sources 0 to 15 only. This one is ignored. "
    "Linux takes any bus for ISA.",
    advice="Update the firmware.",
    specification="ACPI 6.5, table 5.25",
)
DUPLICATE_OVERRIDE: Final = rule(
    "ioapic.override-duplicate",
    Severity.WARNING,
    title="two overrides of one ISA interrupt",
    meaning="Two entries say where one ISA interrupt goes, and they differ. The last one counts, as in Linux.",
    advice="Update the firmware.",
    specification="ACPI 6.5, section 5.2.12.5; Linux, arch/x86/kernel/acpi/boot.c, mp_override_legacy_irq",
)
SHARED_TARGET: Final = rule(
    "ioapic.override-target",
    Severity.WARNING,
    title="two ISA interrupts overridden to one GSI",
    meaning="Edge interrupts of ISA cannot be shared; one of the two devices will lose interrupts.",
    advice="Update the firmware.",
    specification="ACPI 6.5, section 5.2.12.5",
)
RESERVED_FLAGS: Final = rule(
    "ioapic.reserved-flags",
    Severity.WARNING,
    title="reserved trigger or polarity",
    meaning="The flags of an override or NMI entry hold the reserved value 2. It is read as level, or as low.",
    advice="Update the firmware.",
    specification="ACPI 6.5, table 5.26; Linux, arch/x86/kernel/apic/io_apic.c, reads it so and warns",
)
GSI_BEYOND: Final = rule(
    "ioapic.gsi-beyond",
    Severity.ERROR,
    title="a GSI beyond every IOAPIC",
    meaning="Firmware routes an interrupt to a GSI that is no pin of any known IOAPIC: it can never arrive. Where "
    "the number of pins is only inferred, the IOAPIC may have more of them.",
    advice="Look whether an IOAPIC is missing in the list, and what its pins were inferred from.",
    specification="ACPI 6.5, section 5.2.13",
)


class IsaInterrupt(msgspec.Struct, frozen=True):
    """Where an ISA interrupt goes."""

    irq: int
    """0 to 15."""
    gsi: int | None
    """None where its own number is taken by the override of another (interrupt 2, where 0 is overridden to GSI 2)."""
    trigger: Trigger
    polarity: Polarity
    overridden: bool
    """The MADT has an entry for it."""
    ioapic_pin: IoapicPin | None


class Sci(msgspec.Struct, frozen=True):
    """The interrupt of ACPI's fixed hardware."""

    gsi: int
    trigger: Trigger
    polarity: Polarity
    overridden: bool
    """The MADT has an entry for it."""
    ioapic_pin: IoapicPin | None


class Nmi(msgspec.Struct, frozen=True):
    """A GSI that is wired as non-maskable."""

    gsi: int
    trigger: Trigger
    polarity: Polarity
    ioapic_pin: IoapicPin | None


class LocalNmi(msgspec.Struct, frozen=True):
    """The input of a local APIC that NMI comes in on."""

    uid: int | None
    """ACPI UID of the processor; None for all."""
    lint: int
    """0 or 1."""
    trigger: Trigger
    polarity: Polarity
    x2apic: bool
    """From an entry for processors with an x2APIC."""


class LegacyInterrupts(msgspec.Struct, frozen=True):
    """All of them."""

    pcat_compat: bool
    """Two 8259 controllers are there as well, and must be disabled."""
    isa: tuple[IsaInterrupt, ...]
    """Ascending; empty without a MADT, and on hardware-reduced machines without 8259 except for overridden ones."""
    sci: Sci | None
    """None without FADT, and on hardware-reduced machines."""
    nmis: tuple[Nmi, ...]
    local_nmis: tuple[LocalNmi, ...]

    def isa_interrupt(self, irq: int) -> IsaInterrupt | None:
        """By its number."""
        return next((interrupt for interrupt in self.isa if interrupt.irq == irq), None)


def observe(tables: Sequence[Table], ioapics: IoapicSet) -> tuple[LegacyInterrupts, tuple[Finding, ...]]:
    """From the first MADT and the first FADT."""
    found = madts(tables)
    if not found:
        return LegacyInterrupts(pcat_compat=False, isa=(), sci=None, nmis=(), local_nmis=()), ()
    name, madt = found[0]
    notes = Notes(f"table:{name}")
    fadt = next((table.content for table in tables if isinstance(table.content, Fadt)), None)
    overrides = _overrides(madt, notes)
    legacy = LegacyInterrupts(
        pcat_compat=madt.flags.pcat_compat,
        isa=_isa(madt, fadt, overrides, ioapics, notes),
        sci=_sci(fadt, overrides, ioapics, notes),
        nmis=_nmis(madt, ioapics, notes),
        local_nmis=_local_nmis(madt, notes),
    )
    return legacy, notes.findings()


def _overrides(madt: Madt, notes: Notes) -> dict[int, InterruptSourceOverride]:
    """By ISA interrupt."""
    overrides: dict[int, InterruptSourceOverride] = {}
    for entry in madt.entries:
        if not isinstance(entry, InterruptSourceOverride):
            continue
        if entry.bus != 0 or entry.source >= ISA_INTERRUPTS:
            notes.add(BAD_OVERRIDE, f"bus {entry.bus}, source {entry.source}, GSI {entry.gsi}")
            continue
        before = overrides.get(entry.source)
        if before is not None and before != entry:
            notes.add(DUPLICATE_OVERRIDE, f"ISA interrupt {entry.source} is GSI {before.gsi} and GSI {entry.gsi}")
        overrides[entry.source] = entry
    targets: dict[int, int] = {}
    for source, entry in overrides.items():
        if targets.setdefault(entry.gsi, source) != source:
            notes.add(SHARED_TARGET, f"ISA interrupts {targets[entry.gsi]} and {source} are both GSI {entry.gsi}")
    return overrides


def _isa(
    madt: Madt, fadt: Fadt | None, overrides: dict[int, InterruptSourceOverride], ioapics: IoapicSet, notes: Notes
) -> tuple[IsaInterrupt, ...]:
    reduced = fadt is not None and fadt.flags.hw_reduced_acpi
    identical = bool(ioapics.ioapics) and (madt.flags.pcat_compat or not reduced)
    taken = {entry.gsi for source, entry in overrides.items() if entry.gsi != source}
    interrupts = []
    for irq in range(ISA_INTERRUPTS):
        entry = overrides.get(irq)
        if entry is not None:
            what = f"the override of ISA interrupt {irq}"
            trigger, polarity = _signal(entry.flags, Trigger.EDGE, Polarity.HIGH, what, notes)
            pin = _pin(entry.gsi, ioapics, what, notes)
            interrupts.append(IsaInterrupt(irq, entry.gsi, trigger, polarity, True, pin))
        elif identical:
            gsi = None if irq in taken else irq
            pin = None if gsi is None else ioapics.pin(gsi)
            interrupts.append(IsaInterrupt(irq, gsi, Trigger.EDGE, Polarity.HIGH, False, pin))
    return tuple(interrupts)


def _sci(
    fadt: Fadt | None, overrides: dict[int, InterruptSourceOverride], ioapics: IoapicSet, notes: Notes
) -> Sci | None:
    if fadt is None or fadt.flags.hw_reduced_acpi:
        return None
    entry = overrides.get(fadt.sci_int)
    if entry is None:
        pin = _pin(fadt.sci_int, ioapics, "the SCI", notes)
        return Sci(fadt.sci_int, Trigger.LEVEL, Polarity.LOW, False, pin)
    trigger, polarity = _signal(entry.flags, Trigger.LEVEL, Polarity.LOW)
    return Sci(entry.gsi, trigger, polarity, True, ioapics.pin(entry.gsi))


def _nmis(madt: Madt, ioapics: IoapicSet, notes: Notes) -> tuple[Nmi, ...]:
    nmis: list[Nmi] = []
    for entry in madt.entries:
        if isinstance(entry, NmiSource) and len(nmis) < MAX_NMIS:
            what = f"the NMI source of GSI {entry.gsi}"
            trigger, polarity = _signal(entry.flags, Trigger.EDGE, Polarity.HIGH, what, notes)
            nmis.append(Nmi(entry.gsi, trigger, polarity, _pin(entry.gsi, ioapics, what, notes)))
    return tuple(nmis)


def _local_nmis(madt: Madt, notes: Notes) -> tuple[LocalNmi, ...]:
    nmis: list[LocalNmi] = []
    for entry in madt.entries:
        if isinstance(entry, LocalApicNmi | LocalX2apicNmi) and len(nmis) < MAX_NMIS:
            x2apic = isinstance(entry, LocalX2apicNmi)
            every = 0xFFFFFFFF if x2apic else 0xFF
            uid = None if entry.acpi_processor_uid == every else entry.acpi_processor_uid
            what = "the local NMI of all processors" if uid is None else f"the local NMI of processor {uid}"
            trigger, polarity = _signal(entry.flags, Trigger.EDGE, Polarity.HIGH, what, notes)
            nmis.append(LocalNmi(uid, entry.lint, trigger, polarity, x2apic))
    return tuple(nmis)


def _signal(
    flags: IntiFlags, trigger: Trigger, polarity: Polarity, what: str = "", notes: Notes | None = None
) -> tuple[Trigger, Polarity]:
    """What the flags say, with the bus's own trigger and polarity where they leave it to the bus."""
    if notes is not None and (flags.trigger is IntiTrigger.RESERVED or flags.polarity is IntiPolarity.RESERVED):
        notes.add(RESERVED_FLAGS, f"{what}: trigger {flags.trigger.value}, polarity {flags.polarity.value}")
    if flags.trigger is not IntiTrigger.CONFORMS:
        trigger = Trigger.EDGE if flags.trigger is IntiTrigger.EDGE else Trigger.LEVEL
    if flags.polarity is not IntiPolarity.CONFORMS:
        polarity = Polarity.HIGH if flags.polarity is IntiPolarity.HIGH else Polarity.LOW
    return trigger, polarity


def _pin(gsi: int, ioapics: IoapicSet, what: str, notes: Notes) -> IoapicPin | None:
    pin = ioapics.pin(gsi)
    if pin is None and ioapics.ioapics:
        notes.add(GSI_BEYOND, f"{what}: GSI {gsi} is no pin of any IOAPIC")
    return pin
