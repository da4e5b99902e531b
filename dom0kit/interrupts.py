# SPDX-License-Identifier: MIT
"""The routing table: every GSI in use and who uses it, every function's messages, and where each of them goes.

A function of a Platform. What a recording does not hold, the vectors of redirection entries and of MSI-X tables, a
live machine adds. On x86, a message in config space tells vector and processor, unless it is remapped.

Linux's numbers for interrupts: below 16 the ISA interrupt, from 16 on the GSI where the first IOAPIC has it, else any
(arch/x86/kernel/apic/io_apic.c, alloc_irq_from_domain); of a domain 0 of Xen always the GSI (drivers/xen/events).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from dom0kit.acpi.namespace import Namespace
from dom0kit.acpi.resources import ExtendedInterrupt, Irq
from dom0kit.address import Gsi, IoapicPin, Polarity, Sbdf, Trigger
from dom0kit.finding import Finding, Severity, rule
from dom0kit.ioapic.controllers import IoapicSet
from dom0kit.ioapic.kernel_view import KernelInterrupt
from dom0kit.ioapic.legacy import ISA_INTERRUPTS, LegacyInterrupts
from dom0kit.ioapic.redirection import RedirectionEntry
from dom0kit.msi.messages import MsiMessage
from dom0kit.msi.state import InterruptMode, MsiState
from dom0kit.platform import Platform
from dom0kit.processors import Processors, ProcessorState

MAX_GSI: Final = 1 << 31
"""GSIs that hypercalls can name are below it."""

SIGNAL: Final = rule(
    "irq.shared-signal",
    Severity.WARNING,
    title="users of one GSI that signal differently",
    meaning="Two users of a pin are described with different triggers or polarities, and a pin has one of each. The "
    "first of the list counts: SCI, ISA interrupt, PCI function, ACPI device.",
    advice="Update the firmware. Use MSI for the PCI functions among them.",
    specification="ACPI 6.5, sections 5.2.12.5 and 6.2.13; Intel 82093AA, section 3.2.4",
)


class UseKind(enum.Enum):
    """Who uses a GSI; the first of this order says how the pin signals."""

    NMI = "NMI"
    SCI = "SCI"
    ISA = "ISA"
    INTX = "INTx"
    ACPI = "ACPI"
    """A device of the namespace that is no PCI function."""
    KERNEL = "kernel"
    """A driver that asked Linux for it; no table says why."""


class User(msgspec.Struct, frozen=True, kw_only=True):
    """One user of a GSI."""

    kind: UseKind
    name: str
    """A function; a path of the namespace; an ISA interrupt's number, and paths; drivers' names."""
    trigger: Trigger | None
    polarity: Polarity | None
    function: Sbdf | None = None
    driver: str | None = None
    """Bound to the function."""
    by_message: bool = False
    """The function interrupts by MSI or MSI-X now, so its pin is quiet."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where one interrupt goes."""

    vector: int | None
    """None where it is remapped: the remapper's table says."""
    destination: int | None = None
    """APIC id, or the logical destination."""
    logical: bool = False
    cpus: tuple[int, ...] = ()
    """Linux's numbers of the processors, where they are known; several for a logical destination."""
    remap_index: int | None = None
    masked: bool = False


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One GSI in use."""

    gsi: Gsi
    ioapic_pin: IoapicPin | None
    """None beyond every IOAPIC."""
    trigger: Trigger | None
    polarity: Polarity | None
    users: tuple[User, ...]
    irq: int | None = None
    """Linux's number, where it has one."""
    requested_by: tuple[str, ...] = ()
    """Drivers of this kernel that have requested it."""
    cpu: int | None = None
    """Linux's number of the processor that Linux sends it to, where recorded."""
    target: Target | None = None
    """Of its redirection entry, where somebody could read it."""

    @property
    def functions(self) -> tuple[Sbdf, ...]:
        """PCI functions among the users, ascending."""
        return tuple(sorted(user.function for user in self.users if user.function is not None))


class Messages(msgspec.Struct, frozen=True, kw_only=True):
    """The MSI or MSI-X messages of one function."""

    function: Sbdf
    mode: InterruptMode
    """What it uses now. INTX and NONE: it could use messages, and does not."""
    driver: str | None
    msi: int
    """MSI messages it is capable of, 0 to 32."""
    msix: int
    """Entries of its MSI-X table, 0 to 2048."""
    irqs: tuple[int, ...]
    """Linux's numbers of those in use."""
    cpus: tuple[int, ...] = ()
    """Where Linux sends these, in the same order; empty where not recorded."""
    targets: tuple[Target, ...] = ()
    """As far as config space tells, or somebody could read the table."""

    @property
    def used(self) -> int:
        """How many messages it has now."""
        if self.mode not in (InterruptMode.MSI, InterruptMode.MSIX):
            return 0
        return len(self.irqs) or len(self.targets) or 1


class RoutingTable(msgspec.Struct, frozen=True, kw_only=True):
    """All of them."""

    lines: tuple[Line, ...]
    """Ascending by GSI."""
    messages: tuple[Messages, ...]
    """Ascending by function: of each that has MSI or MSI-X."""
    elsewhere: tuple[KernelInterrupt, ...] = ()
    """Interrupts that drivers have requested and that are neither: timers, IOMMUs, of an unknown IOAPIC."""


def routing_table(
    platform: Platform,
    *,
    entries: Mapping[IoapicPin, RedirectionEntry] | None = None,
    tables: Mapping[Sbdf, Sequence[tuple[MsiMessage, bool]]] | None = None,
) -> tuple[RoutingTable, tuple[Finding, ...]]:
    """The table of a machine, and users that contradict each other.

    `entries`: redirection entries by pin; `tables`: message and mask of each entry of MSI-X tables; both where
    somebody could read them.
    """
    ioapics = IoapicSet(platform.ioapics)
    # Under Xen the kernel's numbers are those of virtual processors, and say nothing of where interrupts go.
    under_xen = platform.machine.hypervisor == "xen"
    cpus = _Cpus(None if under_xen else platform.processors)
    users, findings = _users(platform)
    interrupts = platform.kernel.interrupts if platform.kernel is not None else ()
    named, elsewhere = _by_gsi(platform, users, interrupts)
    for gsi, interrupt in named.items():
        if gsi not in users:
            user = User(
                kind=UseKind.KERNEL,
                name=", ".join(interrupt.actions),
                trigger=interrupt.trigger,
                polarity=None,
            )
            users[gsi] = [user]
    lines = []
    for gsi, found in sorted(users.items()):
        pin = ioapics.pin(gsi)
        known = named.get(gsi)
        entry = None if entries is None or pin is None else entries.get(pin)
        lines.append(
            Line(
                gsi=Gsi(gsi),
                ioapic_pin=pin,
                trigger=found[0].trigger,
                polarity=found[0].polarity,
                users=tuple(found),
                irq=None if known is None else known.irq,
                requested_by=() if known is None else known.actions,
                cpu=None if known is None or under_xen else known.cpu,
                target=None if entry is None else cpus.of_entry(entry),
            )
        )
    drivers = {function.sbdf: function.driver for function in platform.functions}
    sent = {each.irq: each.cpu for each in interrupts if each.cpu is not None and not under_xen}
    messages = tuple(
        _messages(state, drivers.get(state.sbdf), sent, cpus, (tables or {}).get(state.sbdf))
        for state in platform.msi
        if state.msi is not None or state.msix is not None
    )
    return RoutingTable(lines=tuple(lines), messages=messages, elsewhere=tuple(elsewhere)), findings


# --- who uses a GSI ---------------------------------------------------------------------------------------------------


def _users(platform: Platform) -> tuple[dict[int, list[User]], tuple[Finding, ...]]:
    """By GSI, those of the tables; in each list the one that says how the pin signals is the first."""
    users: dict[int, list[User]] = {}
    legacy = platform.legacy
    modes = {state.sbdf: state.mode for state in platform.msi}
    drivers = {function.sbdf: function.driver for function in platform.functions}
    if legacy is not None:
        for nmi in legacy.nmis:
            _add(users, nmi.gsi, UseKind.NMI, "NMI", nmi.trigger, nmi.polarity)
        if legacy.sci is not None:
            _add(users, legacy.sci.gsi, UseKind.SCI, "SCI", legacy.sci.trigger, legacy.sci.polarity)
    sci = legacy.sci.gsi if legacy is not None and legacy.sci is not None else None
    for irq, paths in sorted(_used_isa(platform).items()):
        isa = legacy.isa_interrupt(irq) if legacy is not None else None
        if isa is not None and isa.gsi is not None and isa.gsi != sci:
            name = f"ISA {irq}{''.join(f' {path}' for path in paths)}"
            _add(users, isa.gsi, UseKind.ISA, name, isa.trigger, isa.polarity)
    for route in platform.routes:
        if route.gsi is not None:
            by_message = modes.get(route.sbdf) in (InterruptMode.MSI, InterruptMode.MSIX)
            users.setdefault(route.gsi, []).append(
                User(
                    kind=UseKind.INTX,
                    name=str(route.sbdf),
                    trigger=route.trigger,
                    polarity=route.polarity,
                    function=route.sbdf,
                    driver=drivers.get(route.sbdf),
                    by_message=by_message,
                )
            )
    for path, resource in _interrupts_of_devices(platform.namespace):
        if isinstance(resource, ExtendedInterrupt):
            for gsi in resource.interrupts:
                _add(users, gsi, UseKind.ACPI, path, resource.trigger, resource.polarity)
    findings = []
    for gsi, found in sorted(users.items()):
        first = found[0]
        differs = [user for user in found if (user.trigger, user.polarity) != (first.trigger, first.polarity)]
        if differs and not all(user.kind is UseKind.INTX for user in found):  # ioapic.shared-signal tells of these
            others = ", ".join(f"{user.name} {_signal(user)}" for user in differs[:4])
            more = f" and {len(differs) - 4} more" if len(differs) > 4 else ""
            findings.append(SIGNAL.at(f"gsi:{gsi}", f"{first.name} is {_signal(first)}, {others}{more}"))
    return users, tuple(findings)


def _add(
    users: dict[int, list[User]], gsi: int, kind: UseKind, name: str, trigger: Trigger, polarity: Polarity
) -> None:
    users.setdefault(gsi, []).append(User(kind=kind, name=name, trigger=trigger, polarity=polarity))


def _signal(user: User) -> str:
    return " ".join(part.value for part in (user.trigger, user.polarity) if part is not None) or "unknown"


def _used_isa(platform: Platform) -> dict[int, list[str]]:
    """ISA interrupts that present devices of the namespace have in their `_CRS`, with these devices' paths, and those
    that a driver has requested."""
    used: dict[int, list[str]] = {}
    for path, resource in _interrupts_of_devices(platform.namespace):
        for irq in resource.irqs if isinstance(resource, Irq) else ():
            if irq < ISA_INTERRUPTS and path not in used.setdefault(irq, []):
                used[irq].append(path)
    routed = {route.gsi for route in platform.routes}
    for interrupt in platform.kernel.interrupts if platform.kernel is not None else ():
        if interrupt.irq < ISA_INTERRUPTS and interrupt.actions and interrupt.is_ioapic:
            isa = platform.legacy.isa_interrupt(interrupt.irq) if platform.legacy is not None else None
            if isa is not None and isa.gsi not in routed:
                used.setdefault(interrupt.irq, [])
    return used


def _interrupts_of_devices(namespace: Namespace | None) -> Iterable[tuple[str, Irq | ExtendedInterrupt]]:
    """Path and resource of devices that are there and enabled; links only say where PCI pins go."""
    for device in namespace.devices if namespace is not None else ():
        if device.is_link or device.is_root_bridge or not (device.sta is None or device.sta & 2):
            continue
        for resource in device.crs or ():
            if isinstance(resource, Irq) or (isinstance(resource, ExtendedInterrupt) and resource.source is None):
                yield device.path, resource


# --- Linux's numbers --------------------------------------------------------------------------------------------------


def _by_gsi(
    platform: Platform, users: Mapping[int, Sequence[User]], interrupts: Sequence[KernelInterrupt]
) -> tuple[dict[int, KernelInterrupt], list[KernelInterrupt]]:
    """Interrupts of the kernel by GSI, and requested ones that are neither a GSI nor a function's message."""
    legacy = platform.legacy
    messages = {irq for function in platform.functions for irq in function.msi_irqs}
    of_function = {function.irq: function.sbdf for function in platform.functions if function.irq is not None}
    routes = {route.sbdf: route for route in platform.routes}
    legacy_ioapic = next((ioapic for ioapic in platform.ioapics if ioapic.gsi_base == 0), None)
    named: dict[int, KernelInterrupt] = {}
    elsewhere = []
    for interrupt in interrupts:
        irq = interrupt.irq
        if irq in messages or not (interrupt.is_ioapic or interrupt.is_xen_pirq):
            if irq not in messages and interrupt.actions:
                elsewhere.append(interrupt)
            continue
        gsi: int | None = None
        route = routes.get(of_function[irq]) if irq in of_function else None
        if interrupt.is_xen_pirq:
            gsi = irq
        elif len(platform.ioapics) == 1 and interrupt.hwirq is not None:
            gsi = platform.ioapics[0].gsi_base + interrupt.hwirq
        elif irq < ISA_INTERRUPTS:
            gsi = _isa_gsi(legacy, irq, interrupt.hwirq)
        elif legacy_ioapic is not None and irq == interrupt.hwirq and irq < legacy_ioapic.pins:
            gsi = irq
        elif route is not None and route.ioapic_pin is not None and route.ioapic_pin.pin == interrupt.hwirq:
            gsi = route.gsi
        if gsi is None:
            if interrupt.actions:
                elsewhere.append(interrupt)
        elif interrupt.actions or gsi in users:
            named.setdefault(gsi, interrupt)
    return named, elsewhere


def _isa_gsi(legacy: LegacyInterrupts | None, irq: int, pin: int | None) -> int | None:
    """Where the tables say another pin than the kernel, the kernel is right, and means the first IOAPIC's."""
    isa = legacy.isa_interrupt(irq) if legacy is not None else None
    if isa is not None and (pin is None or (isa.ioapic_pin is not None and isa.ioapic_pin.pin == pin)):
        return isa.gsi
    return pin


# --- where interrupts go ----------------------------------------------------------------------------------------------


class _Cpus:
    """From a destination to Linux's numbers of processors."""

    def __init__(self, processors: Processors | None) -> None:
        self._by_apic_id = {
            each.apic_id: each.cpu
            for each in (processors.processors if processors is not None else ())
            if each.state is ProcessorState.ENABLED and each.cpu is not None
        }
        self._numbers = frozenset(self._by_apic_id.values())

    def of_entry(self, entry: RedirectionEntry) -> Target:
        if entry.remap_index is not None:
            return Target(vector=None, remap_index=entry.remap_index, masked=entry.masked)
        return self._target(entry.vector, entry.destination, bool(entry.logical), entry.masked)

    def of_message(self, message: MsiMessage, *, add: int = 0, masked: bool = False) -> Target:
        """Of message number `add` of a function's MSI, whose first is `message`."""
        if message.remap_index is not None:
            return Target(vector=None, remap_index=message.remap_index + add, masked=masked)
        vector = None if message.vector is None else message.vector + add
        return self._target(vector, message.destination, bool(message.logical), masked)

    def _target(self, vector: int | None, destination: int | None, logical: bool, masked: bool) -> Target:
        cpus: tuple[int, ...] = ()
        if destination is not None and logical:
            # Linux's flat model: bit n is CPU n (arch/x86/kernel/apic/apic_flat_64.c).
            cpus = tuple(bit for bit in range(8) if destination >> bit & 1 and bit in self._numbers)
        elif destination in self._by_apic_id:
            cpus = (self._by_apic_id[destination],)
        return Target(vector=vector, destination=destination, logical=logical, cpus=cpus, masked=masked)


def _messages(
    state: MsiState,
    driver: str | None,
    sent: Mapping[int, int],
    cpus: _Cpus,
    table: Sequence[tuple[MsiMessage, bool]] | None,
) -> Messages:
    targets: tuple[Target, ...] = ()
    if state.mode is InterruptMode.MSIX and table is not None:
        targets = tuple(cpus.of_message(message, masked=masked) for message, masked in table)
    elif state.mode is InterruptMode.MSI and state.msi is not None and state.msi.message is not None:
        targets = tuple(
            cpus.of_message(state.msi.message, add=number, masked=bool((state.msi.masked or 0) >> number & 1))
            for number in range(min(state.msi.vectors_allocated, 32))
        )
    known = tuple(sent[irq] for irq in state.kernel_irqs if irq in sent)
    return Messages(
        function=state.sbdf,
        mode=state.mode,
        driver=driver,
        msi=state.msi.vectors_capable if state.msi is not None else 0,
        msix=state.msix.vectors if state.msix is not None else 0,
        irqs=state.kernel_irqs,
        cpus=known if len(known) == len(state.kernel_irqs) else (),
        targets=targets,
    )
