# SPDX-License-Identifier: MIT
"""The operations that give a function's MSI or MSI-X messages to a hypervisor, and write them where dom0 does that.

On Xen, and over a model, the device's own registers are not written: they are Xen's, or not the model's. On hv_core
they are: MSI-X entries stay masked and the capability disabled unless asked for, so that nothing arrives before there
is a driver; a driver that Linux binds later writes them anew.

Sources: PCI Local Bus 3.0 sections 6.8.1 and 6.8.2; Linux, arch/x86/pci/xen.c (xen_initdom_setup_msi_irqs: one message
with MSI_SEG, several with MULTI_MSI and no table, MSI-X by the start of the table's BAR).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from dom0kit.msi.messages import MessageFormat, compose
from dom0kit.msi.state import InterruptMode, MsiState
from dom0kit.pci.capabilities.msi import Msi
from dom0kit.pci.capabilities.msix import MsiX
from dom0kit.pci.function import Function
from dom0kit.plan import (
    AnyFact,
    AnyOperation,
    Backend,
    ConfigIs,
    Dialect,
    DriverIs,
    FunctionIs,
    MapMsi,
    MapMsix,
    Message,
    Plan,
    ResultOf,
    SetAffinity,
    UnmapPirq,
    WriteConfig,
    WriteMsi,
    WriteMsixEntry,
)
from dom0kit.vectors import Place

MEMORY_DECODE: Final = 2
_MSI_ENABLE, _MSIX_ENABLE, _MSIX_FUNCTION_MASK = 0x0001, 0x8000, 0x4000


def obstacle(function: Function, state: MsiState, backend: Backend) -> str | None:
    """Why the messages of a function are not for a plan; None where they are."""
    if function.driver is not None:
        return f"{function.driver} has it"
    if state.kernel_irqs:
        return "the kernel has interrupts for it, though it has no driver"
    if state.mode in (InterruptMode.MSI, InterruptMode.MSIX):
        return f"{state.mode.value} is enabled, though it has no driver: somebody uses it"
    if function.sbdf.segment > 0xFFFF:
        return "hypercalls have no room for its segment"
    if function.asleep or function.power_state not in (None, "D0", "unknown"):
        return "it is asleep"
    if not function.answers:
        return "it does not answer"
    if state.msix is not None:
        if state.msix.table_address is None:
            return f"BAR {state.msix.table_bar}, which holds its MSI-X table, has no address"
        if backend is Backend.HV_CORE and not function.command & MEMORY_DECODE:
            return "memory decode is off, so its MSI-X table cannot be written"
    return None


def facts(function: Function) -> list[AnyFact]:
    """What operations on a function's messages rely upon."""
    found: list[AnyFact] = [
        FunctionIs(function=function.sbdf, vendor=function.vendor, device=function.device),
        DriverIs(function=function.sbdf, driver=None),
    ]
    for each in function.capabilities:
        if isinstance(each, Msi | MsiX):
            enabled = _MSI_ENABLE if isinstance(each, Msi) else _MSIX_ENABLE
            found.append(ConfigIs(function=function.sbdf, offset=each.offset + 2, width=2, value=0, mask=enabled))
    return found


def message_operations(
    function: Function,
    state: MsiState,
    places: Sequence[Place],
    *,
    backend: Backend,
    intercept: bool,
    first: int,
    move: bool = False,
    enable: bool = False,
    format: MessageFormat = MessageFormat.COMPATIBILITY,
    domain: int | None = None,
) -> list[AnyOperation]:
    """Maps one message for each place, of MSI-X where the function has it; on hv_core also writes them.

    `places`: where each goes; in intercept mode only `move` says so to the core, and of several MSI messages, which lie
    on one processor, not even that. `first`: number of the first of these operations in the plan. `enable`: unmask them
    and switch the capability on. ValueError where a message cannot name its processor.
    """
    if state.msix is not None:
        return _msix(
            function, state, places, backend, intercept, first, move=move, enable=enable, format=format, domain=domain
        )
    msi = next(each for each in function.capabilities if isinstance(each, Msi))
    chosen = None if intercept or backend is Backend.XEN else _message(places[0], format)
    operations: list[AnyOperation] = [
        MapMsi(function=function.sbdf, count=len(places), message=chosen, domain=domain),
    ]
    if move and len(places) == 1:
        operations.append(SetAffinity(irq=ResultOf(first), cpu=places[0].cpu.index, domain=domain))
    if backend is Backend.HV_CORE:
        operations.append(
            WriteMsi(
                function=function.sbdf,
                capability=msi.offset,
                wide=msi.address_64bit,
                message=chosen,
                pirq=ResultOf(first) if chosen is None else None,
                count=len(places),
                enabled=enable,
            )
        )
    return operations


def _msix(
    function: Function,
    state: MsiState,
    places: Sequence[Place],
    backend: Backend,
    intercept: bool,
    first: int,
    *,
    move: bool,
    enable: bool,
    format: MessageFormat,
    domain: int | None,
) -> list[AnyOperation]:
    use = state.msix
    assert use is not None
    assert use.table_address is not None
    table = use.table_address - use.table_offset if backend is Backend.XEN else use.table_address
    sbdf, chosen = function.sbdf, not intercept and backend is not Backend.XEN
    writes = backend is Backend.HV_CORE
    operations: list[AnyOperation] = []
    for entry, place in enumerate(places):
        message = _message(place, format) if chosen else None
        result = first + len(operations)
        operations.append(MapMsix(function=sbdf, entry=entry, table=table, message=message, domain=domain))
        if move:
            operations.append(SetAffinity(irq=ResultOf(result), cpu=place.cpu.index, domain=domain))
        if writes:
            operations.append(
                WriteMsixEntry(
                    function=sbdf,
                    bar=use.table_bar,
                    offset=use.table_offset,
                    entry=entry,
                    message=message,
                    pirq=None if chosen else ResultOf(result),
                    masked=not enable,
                )
            )
    if writes and enable:
        capability = next(each for each in function.capabilities if isinstance(each, MsiX))
        operations.append(
            WriteConfig(
                function=sbdf,
                offset=capability.offset + 2,
                width=2,
                value=_MSIX_ENABLE,
                mask=_MSIX_ENABLE | _MSIX_FUNCTION_MASK,
            )
        )
    return operations


def unmap_plan(
    function: Function,
    state: MsiState,
    pirqs: Mapping[int, tuple[int, bool]],
    backend: Backend,
    fingerprint: str,
) -> Plan:
    """Takes a function's messages from a core; on hv_core its capabilities are switched off first.

    `pirqs`: entry, and whether it is one of MSI-X, by pIRQ. ValueError where there are none, or a driver has them.
    """
    if function.driver is not None:
        raise ValueError(f"{function.sbdf}: {function.driver} has it")
    if not pirqs:
        raise ValueError(f"{function.sbdf} has no messages mapped")
    operations: list[AnyOperation] = []
    for each in function.capabilities if backend is Backend.HV_CORE else ():
        if isinstance(each, Msi | MsiX):
            enabled = _MSI_ENABLE if isinstance(each, Msi) else _MSIX_ENABLE
            operations.append(
                WriteConfig(function=function.sbdf, offset=each.offset + 2, width=2, value=0, mask=enabled)
            )
    several = sorted(pirq for pirq, (_, msix) in pirqs.items() if not msix)
    if several:
        operations.append(UnmapPirq(pirq=several[0], count=len(several)))
    table = state.msix.table_address or 0 if state.msix is not None else 0
    operations += (UnmapPirq(pirq=pirq, table=table) for pirq, (_, msix) in sorted(pirqs.items()) if msix)
    return Plan(
        title=f"messages of {function.sbdf} taken away",
        machine="this machine",
        fingerprint=fingerprint,
        dialect=Dialect.MODERN,
        backend=backend,
        facts=tuple(facts(function)[:2]),
        operations=tuple(operations),
    )


def _message(place: Place, format: MessageFormat) -> Message:
    return Message(*compose(place.cpu.apic_id, place.vector, format).encode())
