# SPDX-License-Identifier: MIT
"""What firmware's tables say of IOAPICs and pins against what the running kernel says.

An interrupt's Linux number says little (see `dom0kit.ioapic.kernel_view`); its pin says much. So pins are compared, and
GSIs only where the number proves one. Under Xen the kernel's chips are Xen's, and there is nothing to compare.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from dom0kit.address import IoapicPin, Trigger
from dom0kit.finding import Finding, Severity, rule
from dom0kit.ioapic.controllers import IoapicSet
from dom0kit.ioapic.intx import IntxRoute, NoRoute
from dom0kit.ioapic.kernel_view import KernelInterrupt, KernelView
from dom0kit.ioapic.legacy import ISA_INTERRUPTS, LegacyInterrupts
from dom0kit.pci.function import Function

IOAPICS_DIFFER: Final = rule(
    "ioapic.kernel-ioapics",
    Severity.WARNING,
    title="the kernel's IOAPICs are not those of the tables",
    meaning="The kernel uses an IOAPIC that no table names, or does not use one that is named, or knows it by "
    "another id or GSI base. It may have been given other tables (an initrd override, acpi_apic_instance=), or "
    "IOAPICs were added later.",
    advice="Compare /sys/firmware/acpi/tables/APIC with the recording, and look for noapic on the kernel's command "
    "line.",
    specification="Linux, arch/x86/kernel/apic/io_apic.c, mp_register_ioapic",
)
ROUTE_DIFFERS: Final = rule(
    "ioapic.kernel-route",
    Severity.WARNING,
    title="the kernel has a function's INTx on another pin",
    meaning="The pin that `_PRT` and bridges lead to is not the pin that the kernel uses. Either a link device was "
    "set anew since, or the kernel applies a quirk for this machine, or this tool is wrong.",
    advice="Read the steps of the way and the kernel's log (`ACPI: PCI Interrupt Link`, `PCI INT A -> GSI`). Trust "
    "the kernel, and report it.",
    specification="ACPI 6.5, section 6.2.13; Linux, drivers/acpi/pci_irq.c",
)
TRIGGER_DIFFERS: Final = rule(
    "ioapic.kernel-trigger",
    Severity.WARNING,
    title="the kernel has another trigger for a pin",
    meaning="Firmware's tables give the pin one trigger, and the kernel programmed the other. With the wrong one "
    "interrupts are lost or never end.",
    advice="See which driver uses it, and whether another device that shares the pin asked for its trigger first.",
    specification="ACPI 6.5, sections 5.2.12.5 and 6.2.13",
)
ISA_DIFFERS: Final = rule(
    "ioapic.kernel-isa",
    Severity.WARNING,
    title="the kernel has an ISA interrupt or the SCI on another pin",
    meaning="The MADT's overrides lead to another pin than the one that the kernel uses. Linux ignores the override "
    "of the timer on some chipsets, and can be told to (acpi_skip_timer_override).",
    advice="Trust the kernel.",
    specification="ACPI 6.5, section 5.2.12.5; Linux, arch/x86/kernel/acpi/boot.c",
)


def compare(
    routes: Iterable[IntxRoute],
    ioapics: IoapicSet,
    legacy: LegacyInterrupts,
    functions: Iterable[Function],
    kernel: KernelView,
) -> tuple[Finding, ...]:
    """Differences between the tables' word and the kernel's; none where the kernel's files were not recorded."""
    by_irq = {interrupt.irq: interrupt for interrupt in kernel.interrupts if interrupt.is_ioapic}
    findings = [*_ioapics(ioapics, kernel)]
    ways = {route.sbdf: route for route in routes}
    for function in functions:
        route = ways.get(function.sbdf)
        if route is None or function.irq is None or function.irq in function.msi_irqs:
            continue
        # The kernel looks up a function's interrupt when a driver enables it; until then `irq` is what firmware wrote
        # into the Interrupt Line register, which is below 16.
        interrupt = by_irq.get(function.irq)
        if interrupt is not None and (function.driver is not None or function.irq >= ISA_INTERRUPTS):
            findings.extend(_route(route, interrupt, ioapics))
    findings.extend(_isa(legacy, by_irq))
    findings.extend(_sci(legacy, list(by_irq.values())))
    return tuple(findings)


def _ioapics(ioapics: IoapicSet, kernel: KernelView) -> Iterable[Finding]:
    ours = {ioapic.address: ioapic for ioapic in ioapics.ioapics}
    theirs = {ioapic.address: ioapic for ioapic in kernel.ioapics}
    if not theirs:
        return
    for address in sorted(ours.keys() - theirs.keys()):
        if ours[address].in_madt:
            yield IOAPICS_DIFFER.at(f"ioapic:{ours[address].id}", f"the kernel has no IOAPIC at {address:#x}")
    for address, known in sorted(theirs.items()):
        ioapic = ours.get(address)
        where = f"ioapic:{known.id if known.id is not None else f'kernel {known.index}'}"
        if ioapic is None:
            yield IOAPICS_DIFFER.at(where, f"the kernel has one at {address:#x}, which no table names")
        elif known.id is not None and (known.id, known.gsi_first) != (ioapic.id, ioapic.gsi_base):
            yield IOAPICS_DIFFER.at(
                where,
                f"the kernel has id {known.id} and GSIs from {known.gsi_first}, "
                f"the tables id {ioapic.id} and from {ioapic.gsi_base}",
            )


def _route(route: IntxRoute, interrupt: KernelInterrupt, ioapics: IoapicSet) -> Iterable[Finding]:
    where = f"pci:{route.sbdf}"
    if interrupt.hwirq is None or route.reason is NoRoute.IDE_COMPATIBILITY:
        return
    said = f"interrupt {interrupt.irq} of the kernel is pin {interrupt.hwirq}"
    if route.ioapic_pin is None:
        if interrupt.hwirq >= ISA_INTERRUPTS and route.reason is not NoRoute.NO_NAMESPACE:
            yield ROUTE_DIFFERS.at(where, f"{said}, no pin was found for INT{route.pin.value}")
        return
    if _differs(route.ioapic_pin, interrupt, ioapics):
        yield ROUTE_DIFFERS.at(
            where,
            f"{said}, INT{route.pin.value} leads to GSI {route.gsi}, "
            f"IOAPIC {route.ioapic_pin.ioapic} pin {route.ioapic_pin.pin}",
        )
    else:
        yield from _trigger(where, route.trigger, interrupt)


def _differs(pin: IoapicPin, interrupt: KernelInterrupt, ioapics: IoapicSet) -> bool:
    """Whether the kernel's pin is another one. Its number tells the IOAPIC only where it is the pin's of the first."""
    if interrupt.hwirq != pin.pin:
        return True
    first = ioapics.ioapics[0] if ioapics.ioapics else None
    return (
        first is not None
        and first.gsi_base == 0
        and interrupt.irq == interrupt.hwirq >= ISA_INTERRUPTS
        and ioapics.gsi(pin) != interrupt.irq
    )


def _trigger(where: str, trigger: Trigger | None, interrupt: KernelInterrupt) -> Iterable[Finding]:
    if interrupt.actions and interrupt.trigger is not None and trigger is not None and interrupt.trigger is not trigger:
        yield TRIGGER_DIFFERS.at(
            where,
            f"{trigger.value} by the tables, {interrupt.trigger.value} by the kernel "
            f"(interrupt {interrupt.irq}, {', '.join(interrupt.actions[:4])})",
        )


def _isa(legacy: LegacyInterrupts, by_irq: dict[int, KernelInterrupt]) -> Iterable[Finding]:
    for isa in legacy.isa:
        interrupt = by_irq.get(isa.irq)
        if interrupt is None or interrupt.hwirq is None or not interrupt.actions or isa.ioapic_pin is None:
            continue
        where = f"isa:{isa.irq}"
        if interrupt.hwirq != isa.ioapic_pin.pin:
            yield ISA_DIFFERS.at(where, f"pin {isa.ioapic_pin.pin} by the MADT, {interrupt.hwirq} by the kernel")
        elif isa.overridden and isa.irq != (legacy.sci.gsi if legacy.sci is not None else -1):
            yield from _trigger(where, isa.trigger, interrupt)


def _sci(legacy: LegacyInterrupts, interrupts: Sequence[KernelInterrupt]) -> Iterable[Finding]:
    """ACPI's own handler is called "acpi"."""
    sci = legacy.sci
    interrupt = next((each for each in interrupts if "acpi" in each.actions), None)
    if sci is None or sci.ioapic_pin is None or interrupt is None or interrupt.hwirq is None:
        return
    if interrupt.hwirq != sci.ioapic_pin.pin:
        yield ISA_DIFFERS.at("sci", f"pin {sci.ioapic_pin.pin} by FADT and MADT, {interrupt.hwirq} by the kernel")
    else:
        yield from _trigger("sci", sci.trigger, interrupt)
