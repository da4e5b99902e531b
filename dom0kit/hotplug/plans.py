# SPDX-License-Identifier: MIT
"""The plans of hotplug: a function is told, kept from drivers, given to a domain, taken back; IOAPICs come and go.

On the core dom0kit makes the calls, for stock Linux tells it nothing. On Xen dom0's kernel has made them: the same
operations find that they are done, and act where they are not. Without a hypervisor only Linux is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from dom0kit.abi import Kind, Status
from dom0kit.address import Gsi, Sbdf
from dom0kit.hotplug.ledger import Entry, KnownIoapic, LineOf
from dom0kit.hotplug.policy import Action
from dom0kit.hypercall.interface import SELF, HypercallRefused, Hypervisor, Interrupt
from dom0kit.hypercall.world import BEYOND
from dom0kit.ioapic.controllers import Ioapic
from dom0kit.ioapic.intx import IntxRoute
from dom0kit.msi.state import MsiState
from dom0kit.plan import (
    AnyFact,
    AnyOperation,
    AssignDevice,
    AssignGsi,
    Backend,
    BindDriver,
    Dialect,
    DriverIs,
    FunctionIs,
    IoapicAdd,
    IoapicRemove,
    MapGsi,
    MapMsi,
    MapMsix,
    PciDeviceAdd,
    PciDeviceRemove,
    Plan,
    ReleaseDevice,
    ReleaseGsi,
    SetDriverOverride,
    UnbindDriver,
    UnmapPirq,
)
from dom0kit.platform import Platform

TITLE: Final = "hotplug: "
"""What titles begin with."""
QUARANTINE: Final = "dom0kit-quarantine"
"""No driver has this name, so a function that only it may bind has none."""
_GUESTS_DRIVER: Final = {Backend.XEN: "pciback", Backend.LINUX: "vfio-pci"}
"""Which driver holds a function for a guest there."""
_LAST_DOMAIN: Final = 0x7FEF


def plan(
    title: str, platform: Platform, backend: Backend, operations: Iterable[AnyOperation], facts: Iterable[AnyFact] = ()
) -> Plan:
    return Plan(
        title=TITLE + title,
        machine=platform.origin.name[:1000],
        fingerprint=platform.origin.fingerprint,
        dialect=Dialect.MODERN,
        backend=backend,
        facts=tuple(facts),
        operations=tuple(operations),
    )


# ---- A function comes ------------------------------------------------------------------------------------------------


def facts(entry: Entry) -> tuple[AnyFact, ...]:
    """It is still the one that was decided on."""
    return (FunctionIs(function=entry.function, vendor=entry.vendor, device=entry.device),)


def gift_facts(entry: Entry, backend: Backend) -> tuple[AnyFact, ...]:
    """No driver of dom0 has what a domain gets."""
    free = (DriverIs(function=entry.function, driver=None),) if backend.is_core else ()
    return (*facts(entry), *free)


def arrival(entry: Entry, backend: Backend) -> Iterator[AnyOperation]:
    """Drivers are kept off what dom0 shall not have; the hypervisor is told of what is not refused."""
    function = entry.function
    if entry.hot and entry.action is not Action.KEEP:
        yield SetDriverOverride(function=function, driver=QUARANTINE, why=entry.why)
    if entry.action is not Action.REFUSE and backend is not Backend.LINUX:
        yield PciDeviceAdd(
            function=function, physical=entry.physical, extended=entry.extended, pxm=entry.pxm, why=entry.why
        )


def gift(
    entry: Entry, backend: Backend, domain: int, route: IntxRoute | None, state: MsiState | None, messages: int
) -> Iterator[AnyOperation]:
    """A function goes to a domain, with the GSI of its pin where `route` is given, and `messages` messages at most.

    On Xen the toolstack assigns what pciback holds (xl pci-attach).
    """
    function = entry.function
    if backend in _GUESTS_DRIVER:
        driver = _GUESTS_DRIVER[backend]
        yield SetDriverOverride(function=function, driver=driver, why=entry.why)
        yield BindDriver(function=function, driver=driver, why=entry.why)
        return
    yield AssignDevice(domain=domain, function=function, why=entry.why)
    if route is not None and route.gsi is not None:
        gsi = Gsi(route.gsi)
        yield AssignGsi(domain=domain, gsi=gsi, why=f"{function} INT{route.pin.value}")
        yield MapGsi(gsi=gsi, domain=domain, why=f"{function} INT{route.pin.value}")
    if state is not None and state.msix is not None and state.msix.table_address:
        for number in range(min(state.msix.vectors, messages)):
            yield MapMsix(function=function, entry=number, table=state.msix.table_address, domain=domain)
    elif state is not None and state.msi is not None:
        yield MapMsi(function=function, domain=domain)


def eviction(function: Sbdf, driver: str) -> Iterator[AnyOperation]:
    """A driver that dom0 shall not have there; driver_override, set already, keeps it and others off."""
    yield UnbindDriver(function=function, driver=driver, why="it was bound before it could be kept from that")


def holder(backend: Backend) -> str | None:
    """The driver that holds functions for guests there; on a core none does."""
    return _GUESTS_DRIVER.get(backend)


# ---- A function goes -------------------------------------------------------------------------------------------------


def owner_of(hypervisor: Hypervisor, function: Sbdf, guess: int | None) -> int | None:
    """The domain that has a function; None where the core does not know it. `guess` is asked first.

    Asked by mappings beyond every limit, which change nothing (`dom0kit.hypercall.world`).
    """
    for domain in (SELF, *(() if guess is None else (guess,)), *range(1, _LAST_DOMAIN + 1)):
        try:
            hypervisor.map_msix(function, 0, 1, BEYOND, domain)
        except HypercallRefused as refused:
            if refused.status is Status.NO_DEVICE:
                return None
            if refused.status not in (Status.NO_DOMAIN, Status.NOT_PERMITTED):
                return 0 if domain == SELF else domain
    return None


def departure(entry: Entry, hypervisor: Hypervisor) -> Iterator[AnyOperation]:
    """Everything that the core keeps of a function is given back: messages, ownership, itself. It is not touched."""
    function = entry.function
    owner = owner_of(hypervisor, function, entry.domain)
    if owner is None:
        return
    domain = owner or None
    for first, count, msix in _runs(hypervisor.interrupts(owner or SELF), function):
        yield UnmapPirq(pirq=first, count=count, domain=domain, table=entry.table if msix else 0, why="it is gone")
    if domain is not None:
        yield ReleaseDevice(domain=domain, function=function, why="it is gone")
    yield PciDeviceRemove(
        function=function, physical=entry.physical, extended=entry.extended, pxm=entry.pxm, why="it is gone"
    )


def _runs(interrupts: Iterable[Interrupt], function: Sbdf) -> Iterator[tuple[int, int, bool]]:
    """A function's messages as they are unmapped: first pIRQ, how many, whether MSI-X."""
    mine = [each for each in interrupts if each.function == function and each.pirq is not None]
    msi = [each.pirq for each in mine if each.kind is not Kind.MSIX and each.pirq is not None]
    if msi:
        yield min(msi), len(msi), False
    for each in mine:
        if each.kind is Kind.MSIX and each.pirq is not None:
            yield each.pirq, 1, True


def line_back(line: LineOf, hypervisor: Hypervisor) -> Iterator[AnyOperation]:
    """A GSI whose functions are gone: its pIRQ in the domain, and the GSI itself."""
    gsi = Gsi(line.gsi)
    for each in hypervisor.interrupts(line.domain):
        if each.gsi == gsi and each.pirq is not None:
            yield UnmapPirq(pirq=each.pirq, domain=line.domain, why="its functions are gone")
    yield ReleaseGsi(domain=line.domain, gsi=gsi, why="its functions are gone")


# ---- IOAPICs ---------------------------------------------------------------------------------------------------------


def ioapic_arrival(ioapic: Ioapic) -> Iterator[AnyOperation]:
    yield IoapicAdd(address=ioapic.address, gsi_base=Gsi(ioapic.gsi_base), why=ioapic.aml_path or "")


def ioapic_departure(known: KnownIoapic) -> Iterator[AnyOperation]:
    yield IoapicRemove(address=known.address, gsi_base=Gsi(known.gsi_base), why=known.path)
