# SPDX-License-Identifier: MIT
"""Interrupt routing: what `_PRT`, link devices, overrides and functions say of one GSI, held against each other."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from dom0kit.acpi.namespace import AmlDevice
from dom0kit.acpi.resources import ExtendedInterrupt, Irq
from dom0kit.acpi.routing import NoGsi
from dom0kit.address import IntxPin, Polarity, Sbdf, Trigger
from dom0kit.check.rules import Told, View, capability, check, shown
from dom0kit.finding import Severity
from dom0kit.ioapic.intx import IntxRoute
from dom0kit.pci.capabilities.msi import Msi
from dom0kit.pci.capabilities.msix import MsiX


@check(
    "aml.prt-duplicate",
    Severity.WARNING,
    title="a _PRT routes one pin twice",
    meaning="Two entries of a routing table are about the same device and pin and lead to different places. Linux "
    "takes the first; other systems may take the other.",
    advice="Update the firmware.",
    specification="ACPI 6.5, section 6.2.13; Linux drivers/acpi/pci_irq.c (acpi_pci_irq_find_prt_entry)",
)
def prt_duplicate(view: View) -> Iterator[Told]:
    for device in view.devices:
        first: dict[tuple[int, IntxPin], tuple[str | None, int]] = {}
        for entry in device.prt or ():
            if entry.function is not None:
                continue
            target = (entry.source, entry.source_index)
            before = first.setdefault((entry.device, entry.pin), target)
            if before != target:
                yield (
                    f"aml:{device.path}._PRT",
                    f"device {entry.device} INT{entry.pin.value}: {_target(before)} and {_target(target)}",
                )


def _target(target: tuple[str | None, int]) -> str:
    source, index = target
    return f"GSI {index}" if source is None else source if index == 0 else f"{source} index {index}"


@check(
    "aml.prt-function",
    Severity.INFO,
    title="a _PRT names single functions",
    meaning="An entry's address names one function where it must name all of the device (FFFFh). Linux ignores the "
    "function number; others may ignore the entry.",
    advice="Nothing, unless an INTx pin leads nowhere.",
    specification="ACPI 6.5, section 6.2.13, table 6.13: the function number is FFFFh",
)
def prt_function(view: View) -> Iterator[Told]:
    for device in view.devices:
        some = [entry for entry in device.prt or () if entry.function is not None]
        if some:
            one = some[0]
            yield f"aml:{device.path}._PRT", f"{len(some)} entries, the first for device {one.device}.{one.function}"


def _interrupts(resources: tuple[object, ...] | None) -> set[int]:
    found: set[int] = set()
    for item in resources or ():
        if isinstance(item, Irq):
            found.update(item.irqs)
        elif isinstance(item, ExtendedInterrupt):
            found.update(item.interrupts)
    return found


def _links(view: View) -> Iterator[AmlDevice]:
    for device in view.devices:
        if device.is_link:
            yield device


@check(
    "aml.link-outside-prs",
    Severity.INFO,
    title="a link device set to an interrupt that it does not offer",
    meaning="The interrupt that a PCI link device is set to (_CRS) is not among those it can be set to (_PRS). Linux "
    "then chooses another, which moves every device behind the link to another GSI. In APIC mode most routes do not "
    "use links.",
    advice="Nothing, unless interrupts of devices behind it are lost.",
    specification="ACPI 6.5, sections 6.2.2, 6.2.12 and 6.2.13; Linux drivers/acpi/pci_link.c (acpi_pci_link_allocate)",
)
def link_outside(view: View) -> Iterator[Told]:
    for device in _links(view):
        evaluation = device.evaluation("_CRS")
        if evaluation is not None and not evaluation.certain:
            continue
        current, possible = _interrupts(device.crs) - {0}, _interrupts(device.prs)
        if current and possible and not current & possible:
            yield f"aml:{device.path}", f"set to {shown(sorted(current))}, offers {shown(sorted(possible))}"


@check(
    "aml.link-without-choice",
    Severity.INFO,
    title="a link device that cannot be set",
    meaning="A PCI link device offers several interrupts and has no _SRS to choose one: the operating system can only "
    "take what is set.",
    advice="Nothing.",
    specification="ACPI 6.5, sections 6.2.13 and 6.2.16",
)
def link_without_choice(view: View) -> Iterator[Told]:
    namespace = view.platform.namespace
    if namespace is None:
        return
    settable = {named.path for named in namespace.objects}
    for device in _links(view):
        if len(_interrupts(device.prs)) > 1 and f"{device.path}._SRS" not in settable:
            yield f"aml:{device.path}", f"it offers {shown(sorted(_interrupts(device.prs)))}"


@check(
    "aml.link-without-prs",
    Severity.WARNING,
    title="a link device that offers nothing",
    meaning="A PCI link device has neither a _CRS with an interrupt nor a _PRS: whatever is routed through it has no "
    "interrupt.",
    advice="Give the devices behind it MSI, or update the firmware.",
    specification="ACPI 6.5, sections 6.2.12 and 6.2.13",
)
def link_without_prs(view: View) -> Iterator[Told]:
    for device in _links(view):
        failed = [of for name in ("_CRS", "_PRS") if (of := device.evaluation(name)) is not None and not of.certain]
        if not failed and not _interrupts(device.crs) and not _interrupts(device.prs):
            yield f"aml:{device.path}", "neither _CRS nor _PRS holds an interrupt"


@check(
    "ioapic.link-unset",
    Severity.INFO,
    title="INTx pins whose link device nobody has set",
    meaning="The pin leads to a link device that is set to nothing and leaves the choice to the operating system: "
    "which GSI it becomes, and who shares it, is known only when dom0 has chosen.",
    advice="Record the machine while it runs, or read the GSI from the kernel.",
    specification="ACPI 6.5, section 6.2.13",
)
def link_unset(view: View) -> Iterator[Told]:
    behind: dict[str, list[Sbdf]] = defaultdict(list)
    for route in view.platform.routes:
        if route.link_reason is NoGsi.LINK_UNPROGRAMMED and route.link is not None:
            behind[route.link].append(route.sbdf)
    for link, functions in sorted(behind.items()):
        yield f"aml:{link}", f"behind it: {shown(functions)}"


def _routed(view: View) -> Iterator[IntxRoute]:
    return (route for route in view.platform.routes if route.gsi is not None)


@check(
    "ioapic.intx-edge",
    Severity.WARNING,
    title="an INTx pin routed as edge-triggered",
    meaning="Firmware describes the way of a PCI interrupt pin as edge-triggered. PCI interrupts are levels: when two "
    "functions assert at once, or a driver leaves one pending, an edge is missed and the device hangs.",
    advice="Use MSI for the device, or override the table. Xen: the entry must be level, see setup_gsi.",
    specification="PCI Local Bus 3.0, section 2.2.6: level sensitive, asserted low; ACPI 6.5, section 6.2.13",
)
def intx_edge(view: View) -> Iterator[Told]:
    behind: dict[int, list[IntxRoute]] = defaultdict(list)
    for route in _routed(view):
        if route.trigger is Trigger.EDGE and route.gsi is not None:
            behind[route.gsi].append(route)
    for gsi, routes in sorted(behind.items()):
        link = f" through {routes[0].link}" if routes[0].link else ""
        yield f"gsi:{gsi}", f"{shown(route.sbdf for route in routes)}{link}"


@check(
    "ioapic.isa-shared",
    Severity.WARNING,
    title="a PCI pin on the GSI of an ISA interrupt",
    meaning="An INTx pin leads to a GSI that is also an ISA interrupt, edge-triggered, which cannot be shared, and "
    "which firmware has given an override of its own. Whichever device is set up second changes the pin for the "
    "first.",
    advice="Use MSI for the PCI device, or turn the ISA device off.",
    specification="ACPI 6.5, section 5.2.12.5; PCI Local Bus 3.0, section 2.2.6",
)
def isa_shared(view: View) -> Iterator[Told]:
    legacy = view.platform.legacy
    edges = {of.gsi: of.irq for of in legacy.isa if of.overridden and of.trigger is Trigger.EDGE} if legacy else {}
    for line in view.platform.lines:
        if line.gsi in edges:
            yield f"gsi:{line.gsi}", f"ISA interrupt {edges[line.gsi]} and {shown(line.functions)}"


@check(
    "ioapic.override-mismatch",
    Severity.WARNING,
    title="a PCI pin and an override signal differently",
    meaning="An INTx pin leads to a GSI for which the MADT has an override with another polarity: with the wrong one "
    "the interrupt never comes, or never stops coming.",
    advice="Use MSI for the device. Linux takes what is set first.",
    specification="ACPI 6.5, sections 5.2.12.5 and 6.2.13",
)
def override_mismatch(view: View) -> Iterator[Told]:
    legacy = view.platform.legacy
    if legacy is None:
        return
    overridden = {of.gsi: of for of in legacy.isa if of.overridden and of.trigger is Trigger.LEVEL}
    for gsi, routes in sorted(_by_gsi(view).items()):
        isa = overridden.get(gsi)
        for route in routes:
            if isa is not None and route.polarity is not None and route.polarity is not isa.polarity:
                yield f"gsi:{gsi}", f"the override says {isa.polarity.value}, {route.sbdf} {route.polarity.value}"
                break


def _by_gsi(view: View) -> dict[int, list[IntxRoute]]:
    found: dict[int, list[IntxRoute]] = defaultdict(list)
    for route in _routed(view):
        if route.gsi is not None:
            found[route.gsi].append(route)
    return found


@check(
    "ioapic.sci-edge",
    Severity.WARNING,
    title="the SCI is edge-triggered",
    meaning="An override makes the system control interrupt edge-triggered. It is defined as a level, shareable; Linux "
    "sets it so, and acpi_sci=level overrides it.",
    advice="Where ACPI events are lost, boot with acpi_sci=level.",
    specification="ACPI 6.5, section 5.2.9, SCI_INT; Linux arch/x86/kernel/acpi/boot.c (acpi_sci_ioapic_setup)",
)
def sci_edge(view: View) -> Iterator[Told]:
    sci = view.platform.legacy.sci if view.platform.legacy is not None else None
    if sci is not None and sci.trigger is Trigger.EDGE:
        yield f"gsi:{sci.gsi}", "the MADT's override says edge"


@check(
    "ioapic.sci-shared",
    Severity.INFO,
    title="PCI functions share the GSI of the SCI",
    meaning="INTx pins lead to the GSI of ACPI's own interrupt, which dom0 must keep: a function there that has no MSI "
    "cannot be given to another domain.",
    advice="Use MSI for these functions.",
    specification="ACPI 6.5, section 5.2.9, SCI_INT: a shareable interrupt",
)
def sci_shared(view: View) -> Iterator[Told]:
    sci = view.platform.legacy.sci if view.platform.legacy is not None else None
    for line in view.platform.lines:
        if sci is not None and line.gsi == sci.gsi:
            yield f"gsi:{sci.gsi}", shown(line.functions)


@check(
    "ioapic.sci-signal",
    Severity.WARNING,
    title="the SCI and PCI pins of its GSI signal differently",
    meaning="INTx pins lead to the GSI of the SCI, but with another trigger or polarity than the SCI's. One pin has "
    "one setting: either ACPI's events or the functions' interrupts are lost or storm.",
    advice="Use MSI for these functions; update the firmware.",
    specification="ACPI 6.5, sections 5.2.9 and 6.2.13",
)
def sci_signal(view: View) -> Iterator[Told]:
    sci = view.platform.legacy.sci if view.platform.legacy is not None else None
    if sci is None:
        return
    for route in _by_gsi(view).get(sci.gsi, ()):
        if (route.trigger, route.polarity) != (sci.trigger, sci.polarity):
            yield f"gsi:{route.gsi}", f"the SCI is {_signal(sci)}, {route.sbdf} is {_signal(route)}"
            break


def _signal(of: object) -> str:
    trigger: Trigger | None = getattr(of, "trigger", None)
    polarity: Polarity | None = getattr(of, "polarity", None)
    return " ".join(value.value for value in (trigger, polarity) if value is not None) or "unknown"


def _without_msi(view: View, sbdf: Sbdf) -> bool:
    function = view.functions.get(sbdf)
    if function is None or function.bridge is not None or function.config_bytes < 0x100:
        return False
    return capability(function, Msi) is None and capability(function, MsiX) is None


@check(
    "irq.shared-by-groups",
    Severity.INFO,
    title="functions of several groups that have one interrupt and no MSI",
    meaning="These functions could be assigned apart, but they have neither MSI nor MSI-X and their INTx pins are one "
    "GSI: each domain would get the interrupts of the other, and one that does not answer stops both.",
    advice="Give all of them to one domain.",
    specification="PCI Local Bus 3.0, section 2.2.6; Xen arch/x86/irq.c (pirq_guest_bind): sharing across domains",
)
def shared_by_groups(view: View) -> Iterator[Told]:
    group = {sbdf: of.number for of in view.platform.groups for sbdf in of.functions}
    for line in view.platform.lines:
        bound = [sbdf for sbdf in line.functions if sbdf in group and _without_msi(view, sbdf)]
        if len({group[sbdf] for sbdf in bound}) > 1:
            yield f"gsi:{line.gsi}", ", ".join(f"{sbdf} (group {group[sbdf]})" for sbdf in bound[:8])


@check(
    "irq.crowded",
    Severity.INFO,
    title="many functions on one GSI",
    meaning="More than eight INTx pins lead to one GSI. Whenever one interrupts, the drivers of all are called; Xen "
    "binds at most 32 guests to it.",
    advice="Use MSI.",
    specification="Xen arch/x86/irq.c (IRQ_MAX_GUESTS)",
)
def crowded(view: View) -> Iterator[Told]:
    for line in view.platform.lines:
        if len(line.functions) > 8:
            yield f"gsi:{line.gsi}", f"{len(line.functions)} functions: {shown(line.functions)}"


@check(
    "ioapic.pins-unused",
    Severity.INFO,
    title="an IOAPIC that nothing is routed to",
    meaning="No INTx pin, no ISA interrupt and not the SCI lead to this IOAPIC. All its pins are free.",
    advice="Nothing.",
    specification="ACPI 6.5, section 5.2.13",
)
def pins_unused(view: View) -> Iterator[Told]:
    platform = view.platform
    if not platform.lines or platform.legacy is None:
        return
    used = Counter(line.ioapic_pin.ioapic for line in platform.lines if line.ioapic_pin is not None)
    used.update(of.ioapic_pin.ioapic for of in platform.legacy.isa if of.ioapic_pin is not None)
    for ioapic in platform.ioapics:
        if not used[ioapic.id]:
            yield f"ioapic:{ioapic.id}", f"GSI {ioapic.gsi_base} to {ioapic.gsi_last}"
