# SPDX-License-Identifier: MIT
"""Processors and NUMA nodes: local APICs that cannot be reached, domains without memory, distances that contradict."""

from __future__ import annotations

from collections.abc import Iterator

from dom0kit.acpi.tables.madt import LocalApic, LocalX2apic, Madt
from dom0kit.check.rules import Told, View, check, shown
from dom0kit.finding import Severity
from dom0kit.iommu.facts import X2apic
from dom0kit.processors import Processor, ProcessorState

_APIC_BASE = 0xFEE00000


def _enabled(view: View) -> list[Processor]:
    facts = view.platform.processors
    return [of for of in facts.processors if of.state is ProcessorState.ENABLED] if facts is not None else []


@check(
    "cpu.unreachable-without-remapping",
    Severity.WARNING,
    title="processors that IOAPICs and MSI cannot reach",
    meaning="There are enabled processors with APIC ids of 255 and above, and no interrupt remapping by the tables: a "
    "redirection entry and an MSI message have eight bits for the destination (15 under a hypervisor that offers it), "
    "so no device interrupt can be sent to these processors. Linux leaves them out.",
    advice="Turn on the IOMMU in the firmware's set-up.",
    specification="Intel SDM volume 3, sections 11.11.1 and 11.12; Linux arch/x86/kernel/apic/apic.c "
    "(try_to_enable_x2apic)",
)
def unreachable(view: View) -> Iterator[Told]:
    high = [of.apic_id for of in _enabled(view) if of.apic_id >= 0xFF]
    iommu = view.platform.iommu
    if high and (iommu is None or not iommu.interrupt_remapping):
        yield "table:APIC", f"{len(high)} processors, the first has APIC id {min(high):#x}"


@check(
    "cpu.x2apic-opted-out",
    Severity.WARNING,
    title="x2APIC is needed, and firmware asks not to use it",
    meaning="Processors have APIC ids of 255 and above, which only x2APIC mode can address, and the DMAR asks the OS "
    "not to turn that mode on.",
    advice="Update the firmware; intel_iommu=... with intremap=no_x2apic_optout overrides it on Linux.",
    specification="Intel VT-d 4.1, section 8.1, X2APIC_OPT_OUT",
)
def opted_out(view: View) -> Iterator[Told]:
    high = [of.apic_id for of in _enabled(view) if of.apic_id >= 0xFF]
    iommu = view.platform.iommu
    if high and iommu is not None and iommu.x2apic is X2apic.OPTED_OUT:
        yield "table:DMAR", f"{len(high)} processors, the first has APIC id {min(high):#x}"


@check(
    "cpu.apic-address",
    Severity.WARNING,
    title="local APICs at an unusual address",
    meaning="The MADT says that the local APICs' registers are not at FEE00000h. Operating systems and hypervisors "
    "take that address as given, and messages go to it whatever the table says.",
    advice="Update the firmware.",
    specification="Intel SDM volume 3, section 11.4.1; ACPI 6.5, section 5.2.12",
)
def apic_address(view: View) -> Iterator[Told]:
    facts = view.platform.processors
    x86 = any(isinstance(of, LocalApic | LocalX2apic) for _, madt in view.tables(Madt) for of in madt.entries)
    if facts is not None and x86 and facts.local_apic_address not in (None, _APIC_BASE):
        yield "table:APIC", f"{facts.local_apic_address:#x}"


@check(
    "cpu.nmi-input",
    Severity.WARNING,
    title="an NMI on an input that local APICs do not have",
    meaning="A local APIC has the inputs LINT0 and LINT1; the MADT wires NMI to another one. Linux ignores the entry, "
    "and the NMI button and watchdog do nothing.",
    advice="Update the firmware.",
    specification="ACPI 6.5, section 5.2.12.7; Intel SDM volume 3, section 11.5.1",
)
def nmi_input(view: View) -> Iterator[Told]:
    legacy = view.platform.legacy
    wrong = sorted({of.lint for of in legacy.local_nmis if of.lint > 1}) if legacy is not None else []
    if wrong:
        yield "table:APIC", f"LINT{shown(wrong)}"


@check(
    "cpu.nmi-lint0",
    Severity.INFO,
    title="NMI on LINT0",
    meaning="The MADT wires NMI to LINT0, where the 8259's interrupts come in on most machines. Linux warns, because "
    "an 8259 in virtual wire mode would then be taken for an NMI.",
    advice="Nothing, unless NMIs of unknown reason are logged.",
    specification="ACPI 6.5, section 5.2.12.7; Linux arch/x86/kernel/acpi/boot.c (acpi_parse_lapic_nmi)",
)
def nmi_lint0(view: View) -> Iterator[Told]:
    legacy = view.platform.legacy
    on = sum(of.lint == 0 for of in legacy.local_nmis) if legacy is not None else 0
    if on:
        yield "table:APIC", f"{on} entries"


@check(
    "cpu.without-device",
    Severity.INFO,
    title="processors that the namespace does not have",
    meaning="The namespace declares processors, but not for all that the MADT enables: those left out have no idle and "
    "performance states from ACPI, and cannot be ejected.",
    advice="Nothing, unless these processors use more power than others.",
    specification="ACPI 6.5, section 8.4",
)
def without_device(view: View) -> Iterator[Told]:
    enabled = _enabled(view)
    missing = [of.uid for of in enabled if of.aml_path is None]
    if missing and len(missing) < len(enabled):
        yield "table:APIC", f"{len(missing)} of {len(enabled)}, UID {shown(missing)}"


@check(
    "cpu.single-with-many-places",
    Severity.INFO,
    title="most processors of the MADT are not there",
    meaning="More than half of the MADT's entries are not enabled. Linux keeps per-CPU room for those that may be "
    "added, and a hypervisor core sizes its tables by them.",
    advice="Nothing; possible_cpus= on Linux's command line saves the memory.",
    specification="ACPI 6.5, section 5.2.12.2; Linux arch/x86/kernel/smpboot.c (prefill_possible_map)",
)
def many_places(view: View) -> Iterator[Told]:
    facts = view.platform.processors
    if facts is None:
        return
    spare = len(facts.processors) - facts.enabled
    if facts.enabled and spare > 2 * facts.enabled:
        yield "table:APIC", f"{facts.enabled} enabled, {spare} more"


@check(
    "memory.domain-without-memory",
    Severity.INFO,
    title="a proximity domain with processors and no memory",
    meaning="The SRAT places processors in a domain for which it has no memory: a socket without DIMMs. All they do "
    "goes to another socket.",
    advice="Put memory into the socket, or give its processors work that needs little.",
    specification="ACPI 6.5, section 5.2.16",
)
def domain_without_memory(view: View) -> Iterator[Told]:
    memory = view.platform.memory
    if memory is None or not memory.ranges:
        return
    with_memory = {of.proximity_domain for of in memory.ranges}
    with_processors = {of.proximity_domain for of in _enabled(view) if of.proximity_domain is not None}
    for domain in sorted(with_processors - with_memory):
        yield "table:SRAT", f"domain {domain}"


@check(
    "memory.slit-asymmetric",
    Severity.INFO,
    title="distances that depend on the direction",
    meaning="The SLIT gives another distance from one proximity domain to a second than back. Placement by distance "
    "then depends on who asks.",
    advice="Nothing; compare with measured latencies.",
    specification="ACPI 6.5, section 5.2.17",
)
def slit_asymmetric(view: View) -> Iterator[Told]:
    memory = view.platform.memory
    rows = memory.distances if memory is not None else ()
    for start, row in enumerate(rows):
        for target in range(start + 1, len(row)):
            if target < len(rows) and start < len(rows[target]) and row[target] != rows[target][start]:
                yield "table:SLIT", f"{start} to {target} is {row[target]}, back {rows[target][start]}"
                return


@check(
    "memory.slit-uniform",
    Severity.INFO,
    title="distances that tell nothing",
    meaning="All distances between different domains of the SLIT are the same, with four domains or more. On a machine "
    "of several sockets this is seldom true.",
    advice="Measure, before placing domains by distance.",
    specification="ACPI 6.5, section 5.2.17",
)
def slit_uniform(view: View) -> Iterator[Told]:
    memory = view.platform.memory
    rows = memory.distances if memory is not None else ()
    remote = {value for start, row in enumerate(rows) for target, value in enumerate(row) if start != target}
    if len(rows) >= 4 and len(remote) == 1:
        yield "table:SLIT", f"{len(rows)} domains, all {remote.pop()} apart"


@check(
    "memory.slit-missing",
    Severity.INFO,
    title="several proximity domains and no SLIT",
    meaning="The SRAT has several domains with memory, and no table says how far they are apart: Linux takes 20 "
    "between any two.",
    advice="Nothing on two sockets.",
    specification="ACPI 6.5, section 5.2.17",
)
def slit_missing(view: View) -> Iterator[Told]:
    memory = view.platform.memory
    domains = {of.proximity_domain for of in memory.ranges} if memory is not None else set()
    if memory is not None and len(domains) > 2 and not memory.distances:
        yield "table:SRAT", f"{len(domains)} domains"
