# SPDX-License-Identifier: MIT
"""The whole machine as one immutable value: every fact that a source gives, and what is wrong with it.

``observe(source)`` is the only way to one. It goes to JSON and back without loss (`dom0kit.serial`), and the same
source gives the same bytes of JSON every time.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

import msgspec

from dom0kit import memory, processors
from dom0kit.acpi.namespace import Namespace, pci_addresses
from dom0kit.acpi.tables import Table, cross_findings, decode_table
from dom0kit.acpi.tables.mcfg import Mcfg
from dom0kit.finding import Finding, Severity
from dom0kit.ioapic import compare, controllers, intx, kernel_view, legacy
from dom0kit.ioapic.controllers import Ioapic
from dom0kit.ioapic.intx import GsiLine, IntxRoute
from dom0kit.ioapic.kernel_view import KernelView
from dom0kit.ioapic.legacy import LegacyInterrupts
from dom0kit.ioapic.namespace import ioapic_devices
from dom0kit.iommu.facts import IommuFacts, IommuKind
from dom0kit.iommu.observe import isolation_groups, observe_iommu
from dom0kit.memory import MemoryFacts
from dom0kit.msi import state as msi_state
from dom0kit.msi.messages import MessageFormat
from dom0kit.msi.state import MsiState
from dom0kit.pci import isolation, topology, windows
from dom0kit.pci.config_space import decode_function
from dom0kit.pci.function import Function
from dom0kit.pci.isolation import Group
from dom0kit.pci.reset import Resets, resets
from dom0kit.pci.topology import Topology
from dom0kit.processors import Processors
from dom0kit.source.fingerprint import fingerprint
from dom0kit.source.in_memory import MemorySource
from dom0kit.source.interface import Source, SourceKind

FORMAT: Final = 1
"""Version of the JSON form; a new one where a field goes away or changes its meaning."""

Progress = Callable[[str], None]
"""Told what is being done now, in a few words."""


class Part(enum.Enum):
    """A part of the machine that can be looked at alone."""

    ACPI = "acpi"
    PCI = "pci"
    INTERRUPTS = "interrupts"
    CPUS = "cpus"
    MEMORY = "memory"


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Which bytes these facts come from."""

    name: str
    """For people: a path, or "this machine"."""
    kind: SourceKind
    is_live: bool
    fingerprint: str
    """Equal for all pictures of one machine (`dom0kit.source.fingerprint`)."""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What firmware calls itself; None where the source does not say."""

    vendor: str | None = None
    product: str | None = None
    version: str | None = None
    board: str | None = None
    firmware: str | None = None
    """Vendor, version and date of the BIOS."""
    oem: str | None = None
    """OEM id and OEM table id of the FADT or DSDT: the machine's name where there is no DMI."""
    kernel: str | None = None
    hypervisor: str | None = None
    """Xen or the like, where the kernel that was asked runs under one."""


class Platform(msgspec.Struct, frozen=True, kw_only=True):
    """One machine. A part that was not asked for is empty or None."""

    version: int = FORMAT
    origin: Origin
    machine: Machine
    parts: tuple[Part, ...]
    """What was looked at."""
    tables: tuple[Table, ...] = ()
    namespace: Namespace | None = None
    """None where AML was not interpreted."""
    functions: tuple[Function, ...] = ()
    """Ascending by address."""
    topology: Topology | None = None
    resets: tuple[Resets, ...] = ()
    """How each function can be reset."""
    groups: tuple[Group, ...] = ()
    """IOMMU groups as Linux would form them."""
    iommu: IommuFacts | None = None
    ioapics: tuple[Ioapic, ...] = ()
    legacy: LegacyInterrupts | None = None
    """ISA interrupts, SCI and NMIs."""
    routes: tuple[IntxRoute, ...] = ()
    """The way of every INTx pin."""
    lines: tuple[GsiLine, ...] = ()
    """Every GSI that an INTx pin leads to, and who shares it."""
    msi: tuple[MsiState, ...] = ()
    """How each function interrupts now."""
    kernel: KernelView | None = None
    """What the kernel says of interrupts."""
    processors: Processors | None = None
    memory: MemoryFacts | None = None
    findings: tuple[Finding, ...] = ()
    """The most severe first."""


def observe(
    source: Source, *, aml: bool = True, only: Part | str | None = None, progress: Progress = lambda text: None
) -> Platform:
    """Everything that `source` tells, or the part `only` of it; a part alone has the same facts as in the whole.

    Never raises for what the machine is like. Without `aml` no child process is started, and what only the namespace
    knows is missing. ValueError for a part that there is not.
    """
    parts = frozenset(Part) if only is None else frozenset((Part(only),))
    findings: list[Finding] = []
    facts: dict[str, Any] = {}

    def noted(result: tuple[T, Iterable[Finding]]) -> T:
        value, more = result
        findings.extend(more)
        return value

    progress("reading")
    raw_tables, raw_functions = source.tables(), tuple(source.functions())
    tables = tuple(noted(_apart(decode_table(raw))) for raw in raw_tables)
    namespace = Namespace()
    if aml and raw_tables and parts != {Part.PCI}:
        from dom0kit.acpi.aml import interpret

        progress("interpreting AML")
        namespace = noted(_apart(interpret(raw_tables, {raw.sbdf: raw.config for raw in raw_functions})))
    if Part.ACPI in parts:
        findings += cross_findings(tables)
        facts |= {"tables": tables, "namespace": namespace if namespace.interpreter else None}

    if parts & {Part.PCI, Part.INTERRUPTS}:
        progress("decoding PCI functions")
        functions = tuple(noted(decode_function(raw)) for raw in raw_functions)
        tree = noted(topology.build(functions))
        remapping, remapping_findings = observe_iommu(tables, functions, tree)
        facts |= {"functions": functions, "topology": tree}
    if Part.PCI in parts:
        allocations = [
            (allocation.segment, allocation.start_bus, allocation.end_bus, allocation.base_address)
            for table in tables
            if isinstance(table.content, Mcfg)
            for allocation in table.content.allocations
        ]
        findings += topology.ecam_coverage(allocations, functions)
        findings += windows.check(functions, tree)
        findings += remapping_findings
        groups = isolation_groups(remapping, functions, tree)
        facts |= {"resets": noted(resets(functions, tree)), "groups": groups, "iommu": remapping}
        findings += isolation.compare(groups, functions)
    if Part.INTERRUPTS in parts:
        progress("routing interrupts")
        addresses = pci_addresses(namespace.devices, {raw.sbdf: raw.config for raw in raw_functions})
        router = intx.Router(functions, tree, namespace, addresses)
        kernel = kernel_view.observe(source)
        ioapics = noted(
            controllers.observe(
                tables,
                devices=ioapic_devices(namespace, addresses),
                functions=functions,
                kernel=kernel,
                gsis=router.used_gsis(),
            )
        )
        ways = noted(router.routes(ioapics))
        isa = noted(legacy.observe(tables, ioapics))
        findings += compare.compare(ways.routes, ioapics, isa, functions, kernel)
        format, judge = msi_state.reading(tables, (interrupt.chip for interrupt in kernel.interrupts))
        facts |= {
            "ioapics": ioapics.ioapics,
            "legacy": isa,
            "routes": ways.routes,
            "lines": ways.lines,
            "msi": noted(msi_state.observe(functions, format, judge=judge, kernel=source.kind in _WITH_KERNEL)),
            "kernel": kernel,
        }
    if Part.CPUS in parts:
        facts["processors"] = noted(processors.observe(tables, namespace, source))
    if Part.MEMORY in parts:
        facts["memory"] = noted(memory.observe(tables, namespace, source))
    return Platform(
        origin=Origin(
            name=source.name,
            kind=source.kind,
            is_live=source.is_live,
            fingerprint=fingerprint(MemorySource(source.name, source.kind, tables=raw_tables, functions=raw_functions)),
        ),
        machine=describe(source, tables),
        parts=tuple(part for part in Part if part in parts),
        findings=_sorted((*source.findings, *findings)),
        **facts,
    )


T = TypeVar("T")
F = TypeVar("F", Table, Namespace)

_WITH_KERNEL: Final = frozenset((SourceKind.LIVE, SourceKind.RECORDING))
"""Sources that have what the kernel says of every function."""


def _apart(facts: F) -> tuple[F, tuple[Finding, ...]]:
    """Facts that carry their own findings, and those: a Platform has all findings in one place."""
    return msgspec.structs.replace(facts, findings=()), facts.findings


def _message_format(remapping: IommuFacts, kernel: KernelView) -> MessageFormat:
    """How MSI messages are to be read. VT-d's format shows in the message itself, AMD's nowhere: where the kernel
    names its interrupts ``IR-…``, it remaps them."""
    if remapping.interrupt_remapping and remapping.kind is IommuKind.VT_D:
        return MessageFormat.VTD
    if remapping.kind is IommuKind.AMD_VI and any(each.chip.startswith("IR-") for each in kernel.interrupts):
        return MessageFormat.AMD_VI
    return MessageFormat.COMPATIBILITY


def _sorted(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Each once; the most severe first, then by rule, place and text."""
    weight = {severity: -order for order, severity in enumerate(Severity)}
    return tuple(sorted(set(findings), key=lambda each: (weight[each.severity], each.rule, each.where, each.message)))


def describe(source: Source, tables: Sequence[Table]) -> Machine:
    """The machine's names: from DMI where the source has it, and of the first table with a header."""

    def dmi(*names: str) -> str | None:
        values = (_line(source, f"sys/class/dmi/id/{name}") for name in names)
        return " ".join(value for value in values if value) or None

    headers = {table.signature: table.header for table in reversed(tables) if table.header is not None}
    header = headers.get("FACP") or headers.get("DSDT") or next(iter(headers.values()), None)
    version = (_line(source, "proc/version") or "").removeprefix("Linux version ").partition(" ")[0]
    return Machine(
        vendor=dmi("sys_vendor"),
        product=dmi("product_name"),
        version=dmi("product_version"),
        board=dmi("board_vendor", "board_name"),
        firmware=dmi("bios_vendor", "bios_version", "bios_date"),
        oem=f"{header.oem_id.strip()} {header.oem_table_id.strip()}".strip() or None if header is not None else None,
        kernel=version or None,
        hypervisor=_line(source, "sys/hypervisor/type"),
    )


def _line(source: Source, path: str) -> str | None:
    text = (source.file(path) or b"").decode("utf-8", "replace").strip()
    return text or None
