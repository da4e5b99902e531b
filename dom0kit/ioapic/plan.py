# SPDX-License-Identifier: MIT
"""What each used GSI's redirection entry should be, and the operations that make it so.

A pin that a driver of dom0 has requested is Linux's: it is never written here. A free one is prepared for whoever
requests it: its trigger and polarity, a vector and a processor, masked, because nobody would answer.

Sources: Intel 82093AA section 3.2.4 (entry); Xen, arch/x86/io_apic.c, ioapic_guest_write (what becomes of an entry that
a PV domain 0 writes: the vector field is a pIRQ below 256, vector and destination are Xen's, the mask follows the
trigger, and only an unmasked write maps the pIRQ); Linux, arch/x86/pci/xen.c (map_pirq before setup_gsi, pIRQ = GSI).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from dom0kit.address import DeliveryMode, Gsi, IoapicPin, Polarity, Trigger
from dom0kit.interrupts import Line
from dom0kit.ioapic.controllers import Ioapic, IoapicSet
from dom0kit.ioapic.redirection import EntryFormat, RedirectionEntry
from dom0kit.plan import (
    AnyOperation,
    Backend,
    Dialect,
    EntryIs,
    GsiUnused,
    MapGsi,
    MaskEntry,
    Plan,
    SetAffinity,
    SetupGsi,
    WriteEntry,
)
from dom0kit.vectors import Place

if TYPE_CHECKING:
    from dom0kit.hypercall.shared_info import SharedIoapicEntry

STATUS_BITS: Final = 1 << 12 | 1 << 14
"""Delivery status and remote IRR: the hardware's own."""
_WHOLE: Final = (1 << 64) - 1
XEN_PIRQS: Final = 256
"""Xen reads the vector field of GSIs below as their pIRQ."""


# --- entries ----------------------------------------------------------------------------------------------------------


def entry_2005(
    place: Place,
    trigger: Trigger,
    polarity: Polarity,
    *,
    masked: bool,
    format: EntryFormat = EntryFormat.COMPATIBILITY,
) -> RedirectionEntry:
    """An entry that holds as it is written: fixed, physical destination.

    ValueError where the format names no processor, or not this one.
    """
    last = {EntryFormat.COMPATIBILITY: 0xFE, EntryFormat.EXTENDED_DESTINATION: 0x7FFF}.get(format)
    if last is None or place.cpu.apic_id > last:
        raise ValueError(f"a redirection entry in {format.value} format cannot name APIC id {place.cpu.apic_id:#x}")
    return RedirectionEntry(
        format=format,
        polarity=polarity,
        trigger=trigger,
        masked=masked,
        delivery_status=False,
        remote_irr=False,
        vector=place.vector,
        delivery_mode=DeliveryMode.FIXED,
        logical=False,
        destination=place.cpu.apic_id,
        remap_index=None,
        reserved=0,
    )


def entry_xen(gsi: Gsi, trigger: Trigger, polarity: Polarity) -> RedirectionEntry:
    """An entry that a PV domain 0 writes so that Xen maps the GSI to the pIRQ of its number: unmasked, or Xen maps
    none. Xen leaves it masked where it is level, and unmasked where it is edge."""
    return RedirectionEntry(
        format=EntryFormat.COMPATIBILITY,
        polarity=polarity,
        trigger=trigger,
        masked=False,
        delivery_status=False,
        remote_irr=False,
        vector=gsi if gsi < XEN_PIRQS else 0,
        delivery_mode=DeliveryMode.FIXED,
        logical=False,
        destination=0,
        remap_index=None,
        reserved=0,
    )


# --- operations -------------------------------------------------------------------------------------------------------


def line_operations(
    line: Line,
    ioapic: Ioapic,
    dialect: Dialect,
    place: Place | None = None,
    *,
    move: bool = False,
    format: EntryFormat = EntryFormat.COMPATIBILITY,
) -> list[AnyOperation]:
    """What prepares a GSI that nobody has requested.

    `place`: where it shall go, with classic-2005; or with modern and `move`, which only a core in intercept mode can.
    ValueError where a place is missing or the entry cannot name it.
    """
    trigger, polarity = line.trigger or Trigger.LEVEL, line.polarity or Polarity.LOW
    why = _why(line)
    if dialect is Dialect.MODERN:
        # Linux's order: mapped, then set up (arch/x86/pci/xen.c, xen_register_gsi).
        operations: list[AnyOperation] = [
            MapGsi(gsi=line.gsi, pirq=line.gsi, why=why),
            SetupGsi(gsi=line.gsi, trigger=trigger, polarity=polarity, why=why),
        ]
        if move and place is not None:
            operations.append(SetAffinity(irq=line.gsi, cpu=place.cpu.index, why=why))
        return operations
    pin = line.gsi - ioapic.gsi_base
    if dialect is Dialect.CLASSIC_XEN:
        entry = entry_xen(line.gsi, trigger, polarity)
    elif place is None:
        raise ValueError(f"GSI {line.gsi} needs a vector to be written")
    else:
        entry = entry_2005(place, trigger, polarity, masked=True, format=format)
    return [WriteEntry(ioapic=ioapic.address, pin=pin, entry=entry.encode(), why=why)]


def _why(line: Line) -> str:
    names = [user.name for user in line.users]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more}"[:200]


# --- differences ------------------------------------------------------------------------------------------------------


class Difference(msgspec.Struct, frozen=True):
    """A redirection entry that is not as it should be."""

    ioapic_pin: IoapicPin
    gsi: Gsi
    entry: RedirectionEntry
    what: str
    """What should be, as a clause."""
    harm: bool
    """Interrupts are lost, never end, or reach nobody. Without: the pin only waits to be set up."""


def differences(
    lines: Iterable[Line],
    ioapics: Iterable[Ioapic],
    entries: Mapping[IoapicPin, RedirectionEntry],
    *,
    under_xen: bool = False,
) -> tuple[Difference, ...]:
    """What the hardware's entries differ in from what the machine's tables and drivers need, ascending by GSI.

    `under_xen`: Xen masks no edge, whoever uses it, and has pins of its own.
    """
    wanted = {line.ioapic_pin: line for line in lines if line.ioapic_pin is not None}
    found: list[Difference] = []
    for ioapic in ioapics:
        for number in range(ioapic.pins):
            pin = IoapicPin(ioapic.id, number)
            if pin in entries:
                gsi = Gsi(ioapic.gsi_base + number)
                found += (
                    Difference(pin, gsi, entries[pin], what, harm)
                    for what, harm in _compare(wanted.get(pin), entries[pin], under_xen=under_xen)
                )
    return tuple(sorted(found, key=lambda each: each.gsi))


def _compare(line: Line | None, entry: RedirectionEntry, *, under_xen: bool) -> Iterable[tuple[str, bool]]:
    may_be_unmasked = under_xen and entry.trigger is Trigger.EDGE
    if entry.delivery_mode not in (None, DeliveryMode.FIXED, DeliveryMode.LOWEST_PRIORITY) and not entry.masked:
        yield f"it delivers {entry.delivery_mode.value}, which no device's pin should", True
    if line is None:
        if not entry.masked and not may_be_unmasked:
            yield "it should be masked: nobody is known to use it", True
        return
    if signal := _signal(line.trigger, line.polarity, entry):
        yield signal, not entry.masked
    if line.requested_by and entry.masked:
        yield f"it should not be masked: {', '.join(line.requested_by)} has requested it", False
    if not line.requested_by and not entry.masked and not may_be_unmasked:
        yield "it should be masked: no driver has requested it", True
    if not entry.masked and entry.remap_index is None and (entry.vector or 0) < 0x20:
        yield f"vector {entry.vector or 0:#04x} is an exception's", True


def differences_from(
    plan: Plan, ioapics: Iterable[Ioapic], entries: Mapping[IoapicPin, RedirectionEntry]
) -> tuple[Difference, ...]:
    """What the hardware's entries differ in from what a plan writes or sets up, ascending by GSI."""
    known = tuple(ioapics)
    by_address = {ioapic.address: ioapic for ioapic in reversed(known)}
    found: list[Difference] = []
    for operation in plan.operations:
        if isinstance(operation, WriteEntry) and operation.ioapic in by_address:
            ioapic = by_address[operation.ioapic]
            pin, gsi = IoapicPin(ioapic.id, operation.pin), Gsi(ioapic.gsi_base + operation.pin)
        elif isinstance(operation, SetupGsi) and (at := IoapicSet(known).pin(operation.gsi)) is not None:
            pin, gsi = at, operation.gsi
        else:
            continue
        if (entry := entries.get(pin)) is None:
            continue
        if isinstance(operation, SetupGsi):
            what = _signal(operation.trigger, operation.polarity, entry)
        else:
            now = entry.encode() & ~STATUS_BITS
            what = "" if now == operation.entry & ~STATUS_BITS else f"the plan writes {operation.entry:016x}"
        if what:
            found.append(Difference(pin, gsi, entry, what, harm=False))
    return tuple(sorted(found, key=lambda each: each.gsi))


def _signal(trigger: Trigger | None, polarity: Polarity | None, entry: RedirectionEntry) -> str:
    """What the entry should signal and does not, as a clause; empty where it does."""
    wanted = []
    if trigger is not None and trigger is not entry.trigger:
        wanted.append(f"{trigger.value} triggered")
    if polarity is not None and polarity is not entry.polarity:
        wanted.append(f"active {polarity.value}")
    return f"it should be {' and '.join(wanted)}" if wanted else ""


# --- one entry by hand ------------------------------------------------------------------------------------------------

_YES_NO: Final = {"yes": True, "no": False}
_MODES: Final = {"fixed": DeliveryMode.FIXED, "lowest": DeliveryMode.LOWEST_PRIORITY}
SETTINGS: Final = {
    "vector": "0x10 to 0xfe",
    "mode": "fixed, lowest",
    "destination": "APIC id, or logical destination",
    "logical": "yes, no",
    "trigger": "edge, level",
    "polarity": "high, low",
    "masked": "yes, no",
}
"""The fields of an entry that a person can set, and their values."""


def changed(entry: RedirectionEntry, settings: Iterable[str]) -> RedirectionEntry:
    """`entry` with settings such as ``vector=0x31``. ValueError, with what is possible, where one makes no sense."""
    fields: dict[str, object] = {}
    for setting in settings:
        key, _, text = setting.partition("=")
        if key not in SETTINGS:
            raise ValueError(f"there is no {key!r} to set: {', '.join(SETTINGS)}")
        if key in fields:
            raise ValueError(f"{key} is given twice")
        value = _value(key, text)
        if value is None:
            raise ValueError(f"{key} cannot be {text!r}: {SETTINGS[key]}")
        fields[{"mode": "delivery_mode"}.get(key, key)] = value
    if entry.remap_index is not None and fields.keys() & {"vector", "delivery_mode", "destination", "logical"}:
        raise ValueError("the entry goes through a remapper, whose table holds vector, mode and destination")
    new = msgspec.structs.replace(entry, **fields, delivery_status=False, remote_irr=False)
    if new.destination is not None and new.destination >> (15 if new.format is EntryFormat.EXTENDED_DESTINATION else 8):
        raise ValueError(f"destination {new.destination:#x} does not fit an entry in {new.format.value} format")
    if not new.masked and new.remap_index is None:
        if new.vector is None or not 0x10 <= new.vector <= 0xFE:
            raise ValueError(f"an unmasked entry needs a vector from 0x10 to 0xfe, not {new.vector or 0:#04x}")
        if new.delivery_mode not in _MODES.values():
            raise ValueError("an unmasked entry's mode is fixed or lowest: no pin carries SMI, NMI, INIT or ExtINT")
    return new


def set_plan(
    pin: IoapicPin,
    ioapic: Ioapic | SharedIoapicEntry,
    before: RedirectionEntry,
    after: RedirectionEntry,
    backend: Backend,
    fingerprint: str,
) -> Plan:
    """A plan that makes one entry from `before` to `after`, if no driver has requested it and it still is `before`."""
    masks = msgspec.structs.replace(before, masked=after.masked, delivery_status=False, remote_irr=False) == after
    operation: AnyOperation
    if masks and backend.is_core:
        operation = MaskEntry(ioapic=ioapic.address, pin=pin.pin, masked=after.masked)
    else:
        operation = WriteEntry(ioapic=ioapic.address, pin=pin.pin, entry=after.encode())
    known = EntryIs(
        ioapic=ioapic.address, pin=pin.pin, value=before.encode() & ~STATUS_BITS, mask=_WHOLE & ~STATUS_BITS
    )
    return Plan(
        title=f"entry {pin}",
        machine="this machine",
        fingerprint=fingerprint,
        dialect=Dialect.CLASSIC_XEN if backend is Backend.XEN else Dialect.CLASSIC_2005,
        backend=backend,
        facts=(GsiUnused(gsi=Gsi(ioapic.gsi_base + pin.pin)), known),
        operations=(operation,),
    )


def _value(key: str, text: str) -> object | None:
    if key in ("vector", "destination"):
        try:
            number = int(text, 0)
        except ValueError:
            return None
        most = 0xFE if key == "vector" else 0x7FFF
        return number if (0x10 if key == "vector" else 0) <= number <= most else None
    choices: dict[str, Mapping[str, object]] = {
        "mode": _MODES,
        "logical": _YES_NO,
        "masked": _YES_NO,
        "trigger": {each.value: each for each in Trigger},
        "polarity": {each.value: each for each in Polarity},
    }
    return choices[key].get(text)
