# SPDX-License-Identifier: MIT
"""Every slot of a machine: what it can, how it stands, what is in it, and whose that is.

PCI Express slots tell by their registers. Slots of a standard hot-plug controller or of ACPI are known by the kernel's
word, which has them by address; their names collide and mean nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from dom0kit.address import Sbdf
from dom0kit.hotplug.ledger import Entry
from dom0kit.hotplug.policy import Action
from dom0kit.pci.topology import Slot, SlotKind
from dom0kit.platform import Platform
from dom0kit.source.interface import Source

_FOLDER: Final = "sys/bus/pci/slots"
_INDICATOR: Final = {1: "on", 2: "blinking", 3: "off"}
"""PCI Express Base 6.0, section 7.5.3.10."""


class Kind(enum.Enum):
    """Who controls a slot."""

    PCIE = "PCI Express"
    SHPC = "standard hot-plug controller"
    KERNEL = "ACPI or other"
    """The kernel has it, and no register tells of it."""


class Occupant(msgspec.Struct, frozen=True):
    """A function in a slot."""

    function: Sbdf
    id: str
    """vendor:device."""
    driver: str | None
    owner: str
    """``dom0``, ``domain 2``, ``quarantine``, ``refused``; ``for domain 2`` as long as it does not have it."""


class SlotState(msgspec.Struct, frozen=True, kw_only=True):
    """A slot; None: nobody says."""

    address: str
    """``0000:01:00``: segment, bus and device of what is in it."""
    kind: Kind
    bridge: Sbdf | None
    """The port or bridge above it."""
    number: int | None
    """Physical number."""
    names: tuple[str, ...] = ()
    """The kernel's."""
    hot_plug: bool = True
    present: bool | None = None
    powered: bool | None = None
    latch_open: bool | None = None
    attention: str | None = None
    """``on``, ``off``, ``blinking``."""
    link_active: bool | None = None
    occupants: tuple[Occupant, ...] = ()


ReadSlot = Callable[[str, str], "str | None"]
"""A register of a slot by the kernel's name and the register's (`HotplugLinux.slot`)."""


def slots(
    platform: Platform,
    source: Source,
    entries: Mapping[Sbdf, Entry] | None = None,
    read: ReadSlot = lambda name, register: None,
) -> tuple[SlotState, ...]:
    """Ascending by address; `entries`: of the ledger, `read`: of a live machine."""
    names = _names(source)
    of_port = {slot.bridge: slot for slot in platform.topology.slots} if platform.topology is not None else {}
    found: dict[str, SlotState] = {}
    for bridge, slot in of_port.items():
        bus = platform.topology.secondary(bridge) if platform.topology is not None else None
        if bus is None or slot.kind is not SlotKind.PCIE:
            continue
        address = f"{bus.segment:04x}:{bus.number:02x}:00"
        found[address] = _express(platform, slot, address, names.get(address, ()), entries or {})
    for address, named in names.items():
        if address not in found:
            found[address] = _named(platform, of_port, address, named, entries or {}, read)
    return tuple(state for _, state in sorted(found.items()))


def _names(source: Source) -> dict[str, tuple[str, ...]]:
    """The kernel's slots by address."""
    found: dict[str, tuple[str, ...]] = {}
    for name in source.names(_FOLDER):
        text = (source.file(f"{_FOLDER}/{name}/address") or b"").decode("ascii", "replace").strip()
        try:
            address = str(Sbdf.parse(f"{text}.0"))[:-2]
        except ValueError:
            continue  # of a whole bus, as conventional bridges have it
        found[address] = (*found.get(address, ()), name)
    return found


def _express(
    platform: Platform, slot: Slot, address: str, names: tuple[str, ...], entries: Mapping[Sbdf, Entry]
) -> SlotState:
    return SlotState(
        address=address,
        kind=Kind.PCIE,
        bridge=slot.bridge,
        number=slot.number,
        names=names,
        hot_plug=slot.hot_plug,
        present=slot.present,
        powered=slot.powered,
        latch_open=slot.latch_open,
        attention=_INDICATOR.get(slot.attention or 0),
        link_active=slot.link_active,
        occupants=_occupants(platform, slot.functions, entries),
    )


def _named(
    platform: Platform,
    of_port: Mapping[Sbdf, Slot],
    address: str,
    names: tuple[str, ...],
    entries: Mapping[Sbdf, Entry],
    read: ReadSlot,
) -> SlotState:
    """A slot that only the kernel knows; of a bridge's controller where the bridge has one."""
    first = Sbdf.parse(f"{address}.0")
    above = None if platform.topology is None else platform.topology.bus_of(first)
    bridge = None if above is None else above.bridge
    mine = tuple(each.sbdf for each in platform.functions if str(each.sbdf)[:-2] == address)
    registers = {register: read(names[0], register) for register in ("power", "adapter", "latch", "attention")}
    port = of_port.get(bridge) if bridge is not None else None
    return SlotState(
        address=address,
        kind=Kind.SHPC if port is not None and port.kind is SlotKind.SHPC else Kind.KERNEL,
        bridge=bridge,
        number=None,
        names=names,
        present=_switch(registers["adapter"]) if registers["adapter"] is not None else bool(mine) or None,
        powered=_switch(registers["power"]),
        latch_open=_switch(registers["latch"]),
        attention={"0": "off", "1": "on", "2": "blinking"}.get(registers["attention"] or ""),
        occupants=_occupants(platform, mine, entries),
    )


def _switch(text: str | None) -> bool | None:
    return {"0": False, "1": True}.get(text or "")


def _occupants(platform: Platform, functions: tuple[Sbdf, ...], entries: Mapping[Sbdf, Entry]) -> tuple[Occupant, ...]:
    known = {each.sbdf: each for each in platform.functions}
    return tuple(
        Occupant(
            sbdf, f"{known[sbdf].vendor:04x}:{known[sbdf].device:04x}", known[sbdf].driver, _owner(entries.get(sbdf))
        )
        for sbdf in functions
        if sbdf in known
    )


def _owner(entry: Entry | None) -> str:
    if entry is None or entry.action is Action.KEEP:
        return "dom0"
    if entry.action is Action.GIVE:
        return f"domain {entry.domain}" if entry.placed else f"for domain {entry.domain}"
    return "refused" if entry.action is Action.REFUSE else "quarantine"
