# SPDX-License-Identifier: MIT
"""From a source to a Platform: reads everything once, computes everything once.

The AML interpreter is a child process, and the slowest of all. It is started as soon as the tables are read, in a
thread that mostly waits for it; meanwhile everything that needs no namespace is imported, decoded and computed here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

from dom0kit.part import Part
from dom0kit.source.interface import RawFunction, RawTable, Source, SourceKind

if TYPE_CHECKING:
    from dom0kit.acpi.aml_values import Evaluate
    from dom0kit.acpi.namespace import Namespace
    from dom0kit.acpi.tables import Header, Table
    from dom0kit.finding import Finding
    from dom0kit.pci.function import Function
    from dom0kit.platform import Machine, Platform

Progress = Callable[[str], None]
"""Told what is being done now, in a few words."""

Decode = Callable[[RawFunction], "tuple[Function, Sequence[Finding]]"]
"""What `dom0kit.pci.config_space.decode_function` does."""

T = TypeVar("T")
F = TypeVar("F", "Table", "Namespace")

_WITH_KERNEL: Final = frozenset((SourceKind.LIVE, SourceKind.RECORDING))
"""Sources that have what the kernel says of every function."""


def observe(
    source: Source,
    *,
    aml: bool = True,
    kernel_aml: Evaluate | None = None,
    only: Part | str | None = None,
    namespace: Namespace | None = None,
    decode: Decode | None = None,
    progress: Progress = lambda text: None,
) -> Platform:
    """Everything that `source` tells, or the part `only` of it; a part alone has the same facts as in the whole.

    Never raises for what the machine is like. Without `aml` no child process is started, and what only the namespace
    knows is missing. With `kernel_aml`, the interpreter of the kernel on this very machine, its values count, and where
    the offline interpreter has another is a finding. ValueError for a part that there is not. The same source gives an
    equal Platform every time. Who knows already what AML says of these tables and functions gives the `namespace`, and
    who remembers decoded functions his own `decode`.
    """
    parts = frozenset(Part) if only is None else frozenset((Part(only),))
    progress("reading")
    raw_tables, raw_functions = source.tables(), tuple(source.functions())
    interpretation = None
    if aml and namespace is None and raw_tables and parts != {Part.PCI}:
        interpretation = _Interpretation(raw_tables, raw_functions, kernel_aml)

    from dom0kit import memory, processors, xen
    from dom0kit.acpi.namespace import Namespace, pci_addresses
    from dom0kit.acpi.tables import cross_findings, decode_table
    from dom0kit.ioapic import compare, controllers, intx, kernel_view, legacy
    from dom0kit.ioapic.namespace import ioapic_devices
    from dom0kit.iommu.observe import isolation_groups, observe_iommu
    from dom0kit.msi import state as msi_state
    from dom0kit.native import NativeView
    from dom0kit.pci import isolation, topology, windows
    from dom0kit.pci.config_space import decode_function
    from dom0kit.pci.reset import resets
    from dom0kit.platform import Origin, Platform
    from dom0kit.source.fingerprint import fingerprint
    from dom0kit.source.in_memory import MemorySource

    findings: list[Finding] = []
    facts: dict[str, Any] = {}

    def noted(result: tuple[T, Iterable[Finding]]) -> T:
        value, more = result
        findings.extend(more)
        return value

    progress("decoding")
    tables = tuple(noted(_apart(decode_table(raw))) for raw in raw_tables)
    if parts & {Part.PCI, Part.INTERRUPTS}:
        functions = tuple(noted((decode or decode_function)(raw)) for raw in raw_functions)
        tree = noted(topology.build(functions))
        facts |= {"functions": functions, "topology": tree}
    if Part.PCI in parts:
        remapping = noted(observe_iommu(tables, functions, tree))
        groups = isolation_groups(remapping, functions, tree)
        findings += topology.ecam_coverage(_ecam(tables), functions)
        findings += windows.check(functions, tree)
        findings += isolation.compare(groups, functions)
        facts |= {"resets": noted(resets(functions, tree)), "groups": groups, "iommu": remapping}

    if interpretation is not None:
        progress("interpreting AML")
        namespace = interpretation.result()
    namespace = noted(_apart(namespace or Namespace()))
    if Part.ACPI in parts:
        findings += cross_findings(tables)
        facts |= {"tables": tables, "namespace": namespace if namespace.interpreter else None}
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
    domain = xen.observe(source)
    native = source if isinstance(source, NativeView) else None
    if Part.CPUS in parts:
        virtual = domain is not None and domain.has_virtual_processors and native is None
        facts["processors"] = noted(processors.observe(tables, namespace, source, virtual=virtual))
    if Part.MEMORY in parts:
        facts["memory"] = noted(memory.observe(tables, namespace, source))
    read = MemorySource(source.name, source.kind, tables=raw_tables, functions=raw_functions)
    if native is not None:
        facts["native"] = native.origin()
        read = native.seen
    if domain is not None:
        facts["xen"] = domain
        present = facts["processors"].present if Part.CPUS in parts else None
        signatures = {table.signature for table in tables}
        findings += xen.findings(domain, signatures, processors=present, completed=native is not None)
    return Platform(
        origin=Origin(name=source.name, kind=source.kind, is_live=source.is_live, fingerprint=fingerprint(read)),
        machine=describe(source, tables),
        parts=tuple(part for part in Part if part in parts),
        findings=_sorted((*source.findings, *findings)),
        **facts,
    )


class _Interpretation:
    """The interpreter at work: launched here and now, asked and understood in a thread of its own."""

    def __init__(self, tables: Sequence[RawTable], functions: Sequence[RawFunction], kernel: Evaluate | None) -> None:
        from threading import Thread

        from dom0kit.acpi.aml_launch import Launch

        self._launch = Launch(tables, {function.sbdf: function.config for function in functions})
        with suppress(OSError):  # it is tried again, and then told
            self._launch.start()
        self._kernel = kernel
        self._namespace: Namespace | None = None
        self._error: BaseException | None = None
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with self._launch:
                from dom0kit.acpi.aml import interpret_launched

                self._namespace = interpret_launched(self._launch, self._kernel)
        except BaseException as error:
            self._error = error

    def result(self) -> Namespace:
        """Waits for it. Raises what it raised: a bug, for whatever AML does is a finding."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._namespace is not None
        return self._namespace


def _apart(facts: F) -> tuple[F, tuple[Finding, ...]]:
    """Facts that carry their own findings, and those: a Platform has all findings in one place."""
    from msgspec.structs import replace

    return replace(facts, findings=()), facts.findings


def _ecam(tables: Sequence[Table]) -> list[tuple[int, int, int, int]]:
    """Segment, first bus, last bus and base address of each window of an MCFG."""
    from dom0kit.acpi.tables.mcfg import Mcfg

    return [
        (allocation.segment, allocation.start_bus, allocation.end_bus, allocation.base_address)
        for table in tables
        if isinstance(table.content, Mcfg)
        for allocation in table.content.allocations
    ]


def _sorted(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Each once; the most severe first, then by rule, place and text."""
    from dom0kit.finding import Severity

    weight = {severity: -order for order, severity in enumerate(Severity)}
    return tuple(sorted(set(findings), key=lambda each: (weight[each.severity], each.rule, each.where, each.message)))


def describe(source: Source, tables: Sequence[Table]) -> Machine:
    """The machine's names: from DMI where the source has it, and of the first table with a header."""

    def dmi(*names: str) -> str | None:
        values = (_line(source, f"sys/class/dmi/id/{name}") for name in names)
        return " ".join(value for value in values if value) or None

    from dom0kit.platform import Machine

    headers: dict[str, Header] = {}
    for table in tables:
        if table.header is not None:
            headers.setdefault(table.signature, table.header)
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
