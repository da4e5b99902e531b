# SPDX-License-Identifier: MIT
"""The way of a PCI function's INTx pin: through bridges, ``_PRT`` and link device to a GSI and an IOAPIC's pin.

Sources: ACPI 6.5 section 6.2.13 (``_PRT``); PCI-to-PCI bridge 1.2 table 9-1 (a bridge rotates the pins behind it by the
device number; PCI Express Base 6.0, table 2-20 does the same with its INTx messages); PCI Express Base 6.0, section
6.13 (behind an ARI forwarding port there is only device 0) and 9.3.4.1.11 (virtual functions have no pin).

Linux's rule (drivers/acpi/pci_irq.c) is followed: the first ``_PRT`` on the way up that has an entry for the device and
pin decides; one that has none is passed by, and the pin is swizzled on to the next bus.
"""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from dom0kit.acpi.namespace import AmlDevice, Namespace, root_bus
from dom0kit.acpi.routing import NoGsi, PrtEntry, PrtRoute, resolve
from dom0kit.address import IntxPin, IoapicPin, Polarity, Sbdf, Trigger
from dom0kit.finding import Finding, Severity, rule
from dom0kit.ioapic.controllers import IoapicSet
from dom0kit.ioapic.legacy import GSI_BEYOND
from dom0kit.ioapic.namespace import is_below
from dom0kit.pci.capabilities.express import Express
from dom0kit.pci.function import Function
from dom0kit.pci.topology import Topology

MAX_SHARED: Final = 64
"""Functions named in `IntxRoute.shared_with`; a `GsiLine` names all."""

NO_ROUTE: Final = rule(
    "ioapic.no-route",
    Severity.WARNING,
    title="an INTx pin that leads nowhere",
    meaning="The function has an interrupt pin, but no `_PRT` on the way to the root bus says which GSI it is, or "
    "the link device that it names gives none. Its driver can only use MSI, or must poll.",
    advice="Nothing for a function that uses MSI. Otherwise read the steps: they say where the way ends. A link "
    "whose state depends on hardware that nobody recorded is no error of the firmware.",
    specification="ACPI 6.5, section 6.2.13; Linux, drivers/acpi/pci_irq.c",
)
SHARED_DIFFERS: Final = rule(
    "ioapic.shared-signal",
    Severity.ERROR,
    title="functions that share a GSI and signal differently",
    meaning="Two functions lead to one GSI, but their `_PRT` entries or link devices give it different triggers or "
    "polarities. An IOAPIC's pin has one of each: the first driver decides, and the other device's interrupts are "
    "lost or never end.",
    advice="Update the firmware. Until then use MSI for these functions.",
    specification="ACPI 6.5, section 6.2.13; Intel 82093AA, section 3.2.4",
)


class NoRoute(enum.Enum):
    """Why a pin leads to no GSI."""

    NO_NAMESPACE = "AML was not interpreted"
    NO_PRT = "no bus on the way up has a _PRT"
    NO_ENTRY = "no _PRT on the way up has an entry for it"
    LINK = "the link device gives no GSI"
    CARDBUS_WITHOUT_PIN = "the CardBus bridge above has no pin"
    IDE_COMPATIBILITY = "an IDE controller in compatibility mode uses ISA interrupts 14 and 15"


class IntxRoute(msgspec.Struct, frozen=True, kw_only=True):
    """The way of one function's pin."""

    sbdf: Sbdf
    pin: IntxPin
    gsi: int | None = None
    ioapic_pin: IoapicPin | None = None
    """None without a GSI, and where it is beyond every IOAPIC."""
    trigger: Trigger | None = None
    polarity: Polarity | None = None
    steps: tuple[str, ...] = ()
    """For people, from the pin to the IOAPIC."""
    shared_with: tuple[Sbdf, ...] = ()
    """Other functions with this GSI, ascending; at most 64."""
    reason: NoRoute | None = None
    """Set when, and only when, there is no GSI."""
    link_reason: NoGsi | None = None
    """Set when `reason` is LINK."""
    link: str | None = None
    """Path of the link device on the way."""
    prt: str | None = None
    """Path of the `_PRT` that decided."""


class GsiLine(msgspec.Struct, frozen=True):
    """One GSI that INTx pins lead to."""

    gsi: int
    ioapic_pin: IoapicPin | None
    functions: tuple[Sbdf, ...]
    """All that share it, ascending."""


class Intx(msgspec.Struct, frozen=True):
    """The ways of all pins."""

    routes: tuple[IntxRoute, ...]
    """Of every function that has a pin, ascending."""
    lines: tuple[GsiLine, ...]
    """Ascending by GSI."""


class _Way(NamedTuple):
    """How far one pin came on one bus: what all functions of this device number and pin have in common."""

    steps: tuple[str, ...]
    prt: str | None
    route: PrtRoute | None
    reason: NoRoute | None


class Router:
    """Traces pins of one machine; asks each `_PRT` entry and link device once."""

    def __init__(
        self, functions: Sequence[Function], topology: Topology, namespace: Namespace, addresses: Mapping[str, Sbdf]
    ) -> None:
        """`addresses`: where the namespace's devices sit on PCI, by path."""
        self._functions = {function.sbdf: function for function in functions}
        self._topology = topology
        self._namespace = namespace
        self._tables = _tables_by_bus(topology, namespace, addresses)
        self._resolved: dict[tuple[str, int], PrtRoute] = {}
        self._ways: dict[tuple[int, int, int, IntxPin], _Way] = {}

    def used_gsis(self) -> set[int]:
        """Every GSI that a `_PRT` of a bus of this machine leads to, used by a function or not."""
        return {
            route.gsi
            for device, entries in self._tables.values()
            for entry in entries.values()
            if (route := self._resolve(device, entry)).gsi is not None
        }

    def routes(self, ioapics: IoapicSet) -> tuple[Intx, tuple[Finding, ...]]:
        """The way of every pin, and what is wrong with some."""
        findings: list[Finding] = []
        routes = [
            self.route(function, function.interrupt_pin, ioapics)
            for _, function in sorted(self._functions.items())
            if function.interrupt_pin is not None and self._topology.physical_function(function.sbdf) is None
        ]
        sharers: dict[int, list[IntxRoute]] = defaultdict(list)
        for route in routes:
            where = f"pci:{route.sbdf}"
            if route.gsi is not None:
                sharers[route.gsi].append(route)
                if route.ioapic_pin is None and ioapics.ioapics:
                    findings.append(
                        GSI_BEYOND.at(where, f"INT{route.pin.value} leads to GSI {route.gsi}, which is no IOAPIC's pin")
                    )
            elif route.reason not in (None, NoRoute.NO_NAMESPACE, NoRoute.IDE_COMPATIBILITY):
                findings.append(NO_ROUTE.at(where, f"INT{route.pin.value}: {_why(route)}"))
        lines = []
        for gsi, routed in sorted(sharers.items()):
            lines.append(GsiLine(gsi, routed[0].ioapic_pin, tuple(route.sbdf for route in routed)))
            findings.extend(_signal_findings(gsi, routed))
        names = {line.gsi: line.functions for line in lines}
        return Intx(
            tuple(
                route
                if route.gsi is None
                else msgspec.structs.replace(route, shared_with=_others(names[route.gsi], route.sbdf))
                for route in routes
            ),
            tuple(lines),
        ), tuple(findings)

    def route(self, function: Function, pin: IntxPin, ioapics: IoapicSet) -> IntxRoute:
        """The way of this pin of a function, without those who share it."""
        first = f"INT{pin.value} of {function.sbdf}"
        if function.class_code >> 8 == 0x0101 and not function.class_code & 0x05:
            reason = NoRoute.IDE_COMPATIBILITY
            return IntxRoute(sbdf=function.sbdf, pin=pin, steps=(first, reason.value), reason=reason)
        way = self._way(function.sbdf, pin)
        steps = (first, *way.steps)
        found = way.route
        if found is None or found.gsi is None:
            return IntxRoute(
                sbdf=function.sbdf,
                pin=pin,
                steps=steps,
                reason=way.reason,
                link_reason=None if found is None else found.reason,
                link=None if found is None else found.link,
                prt=way.prt,
            )
        ioapic_pin = ioapics.pin(found.gsi)
        last = f"IOAPIC {ioapic_pin.ioapic} pin {ioapic_pin.pin}" if ioapic_pin else "a pin of no known IOAPIC"
        return IntxRoute(
            sbdf=function.sbdf,
            pin=pin,
            gsi=found.gsi,
            ioapic_pin=ioapic_pin,
            trigger=found.trigger,
            polarity=found.polarity,
            steps=(*steps, f"GSI {found.gsi} = {last}"),
            link=found.link,
            prt=way.prt,
        )

    def _way(self, sbdf: Sbdf, pin: IntxPin) -> _Way:
        """From this pin on the function's bus upwards."""
        device = self._device_number(sbdf)
        key = (sbdf.segment, sbdf.bus, device, pin)
        if key not in self._ways:
            self._ways[key] = self._trace(sbdf, device, pin)
        return self._ways[key]

    def _trace(self, sbdf: Sbdf, device: int, pin: IntxPin) -> _Way:
        if not self._namespace.devices:
            return _Way((NoRoute.NO_NAMESPACE.value,), None, None, NoRoute.NO_NAMESPACE)
        steps: list[str] = []
        reason = NoRoute.NO_PRT
        while True:
            table = self._tables.get((sbdf.segment, sbdf.bus))
            if table is not None:
                owner, entries = table
                prt = f"{owner.path}._PRT"
                entry = entries.get((device, pin))
                if entry is not None:
                    number = (owner.prt or ()).index(entry)
                    route = self._resolve(owner, entry)
                    steps += [f"{prt} entry {number}", *route.steps]
                    return _Way(tuple(steps), prt, route, None if route.gsi is not None else NoRoute.LINK)
                reason = NoRoute.NO_ENTRY
                steps.append(f"{prt} has no entry for device {device:02x} INT{pin.value}")
            bridge = self._topology.upstream(sbdf)
            if bridge is None:
                steps.append(reason.value)
                return _Way(tuple(steps), None, None, reason)
            above = self._functions.get(bridge)
            if above is not None and above.cardbus is not None:
                if above.interrupt_pin is None:
                    steps.append(NoRoute.CARDBUS_WITHOUT_PIN.value)
                    return _Way(tuple(steps), None, None, NoRoute.CARDBUS_WITHOUT_PIN)
                pin = above.interrupt_pin
                steps.append(f"CardBus bridge {bridge} takes its own INT{pin.value}")
            else:
                pin = pin.swizzled(device)
                steps.append(f"bridge {bridge} swizzles to INT{pin.value}")
            sbdf, device = bridge, self._device_number(bridge)

    def _device_number(self, sbdf: Sbdf) -> int:
        """0 behind a port that forwards by ARI: there the device number belongs to the function number."""
        bus = self._topology.bus_of(sbdf)
        port = self._functions.get(bus.bridge) if bus is not None and bus.bridge is not None else None
        for capability in port.capabilities if port is not None else ():
            if isinstance(capability, Express):
                return 0 if capability.device2 is not None and capability.device2.ari_forwarding else sbdf.device
        return sbdf.device

    def _resolve(self, owner: AmlDevice, entry: PrtEntry) -> PrtRoute:
        key = (entry.source, entry.source_index) if entry.source is not None else ("", entry.source_index)
        if key not in self._resolved:
            self._resolved[key] = resolve(entry, self._namespace)
        return self._resolved[key]


_Table = tuple[AmlDevice, Mapping[tuple[int, IntxPin], PrtEntry]]


def _tables_by_bus(
    topology: Topology, namespace: Namespace, addresses: Mapping[str, Sbdf]
) -> dict[tuple[int, int], _Table]:
    """The `_PRT` of each bus by segment and number: of the first device that has one for it, present ones first."""
    absent = {device.path for device in namespace.devices if not device.present}
    present = [device for device in namespace.devices if not is_below(device.path, absent)]
    # A bridge that answers on PCI is there, whatever its _STA makes of hardware that nobody recorded.
    others = [device for device in namespace.devices if is_below(device.path, absent) and not device.is_root_bridge]
    tables: dict[tuple[int, int], _Table] = {}
    for device in (*present, *others):
        if device.prt is None:
            continue
        if device.is_root_bridge:
            place = root_bus(device)
        else:
            bridge = addresses.get(device.path)
            bus = topology.secondary(bridge) if bridge is not None else None
            if bus is None:
                continue
            place = bus.segment, bus.number
        entries: dict[tuple[int, IntxPin], PrtEntry] = {}
        for entry in device.prt:
            entries.setdefault((entry.device, entry.pin), entry)
        tables.setdefault(place, (device, entries))
    return tables


def _others(functions: Sequence[Sbdf], sbdf: Sbdf) -> tuple[Sbdf, ...]:
    return tuple(other for other in functions[: MAX_SHARED + 1] if other != sbdf)[:MAX_SHARED]


def _signal_findings(gsi: int, routes: Sequence[IntxRoute]) -> Iterable[Finding]:
    first = routes[0]
    different = [route for route in routes if (route.trigger, route.polarity) != (first.trigger, first.polarity)]
    if different:
        yield SHARED_DIFFERS.at(
            f"gsi:{gsi}",
            f"{first.sbdf} is {_signal(first)}, "
            + ", ".join(f"{route.sbdf} {_signal(route)}" for route in different[:4])
            + (f" and {len(different) - 4} more" if len(different) > 4 else ""),
        )


def _signal(route: IntxRoute) -> str:
    trigger = route.trigger.value if route.trigger else "unknown"
    return f"{trigger} {route.polarity.value}" if route.polarity else trigger


def _why(route: IntxRoute) -> str:
    text = route.link_reason.value if route.link_reason is not None else route.reason.value if route.reason else ""
    return f"{text} ({route.link})" if route.link else text
