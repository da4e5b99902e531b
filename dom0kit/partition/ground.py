# SPDX-License-Identifier: MIT
"""What of a machine bears on who may have which device, by function, so that a question costs what its answer costs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Final, NamedTuple

from dom0kit.address import Sbdf
from dom0kit.finding import Finding
from dom0kit.ioapic.intx import GsiLine, IntxRoute
from dom0kit.iommu.facts import IommuKind, ReservedRegion
from dom0kit.msi import pages
from dom0kit.msi.state import MsiState
from dom0kit.partition.identity import Finder
from dom0kit.pci.function import Bar, BarKind, Function
from dom0kit.pci.isolation import Reason, Turning, turning_ports
from dom0kit.pci.reset import Resets
from dom0kit.pci.topology import Topology, build
from dom0kit.plan import Backend
from dom0kit.platform import Platform
from dom0kit.source.interface import SourceKind
from dom0kit.source.needs import Need
from dom0kit.vectors import cpus_of, is_remapped, limits
from dom0kit.xen import DomainKind

PAGE: Final = 4096
_HOST_BRIDGE: Final = 0x0600
_STAYING_SYSTEM: Final = {
    0x0800: "an interrupt controller",
    0x0801: "a DMA controller",
    0x0802: "a timer",
    0x0803: "a clock",
    0x0806: "an IOMMU",
    0x0807: "a root complex event collector",
}


class Together(NamedTuple):
    """An isolation group without bridges: they stay, and keep nothing from being given away."""

    name: str
    """``the kernel's group 12`` or ``group 12``."""
    members: tuple[Sbdf, ...]
    """Functions that can send requests of their own, ascending."""
    reasons: tuple[Reason, ...]
    """Why, where it was computed."""


class Ground:
    """Facts of one Platform by function."""

    def __init__(
        self,
        platform: Platform,
        *,
        serials: Mapping[Sbdf, str] | None = None,
        needs: Sequence[Need] | None = None,
        backend: Backend | None = None,
    ) -> None:
        """`needs`: what the running Linux uses; None where nobody knows, as of a recording. `backend`: what runs the
        domains; None: what the machine runs on."""
        self.platform = platform
        self.backend = backend or (Backend.XEN if platform.xen is not None else Backend.LINUX)
        self.functions: dict[Sbdf, Function] = {}
        for function in platform.functions:
            self.functions.setdefault(function.sbdf, function)
        self.topology: Topology = platform.topology or build(())[0]
        self.finder = Finder(self.functions.values(), self.topology, serials or {})
        self.needs: dict[Sbdf, list[str]] | None = None
        if needs is not None:
            self.needs = defaultdict(list)
            for need in needs:
                self.needs[need.function].append(need.use)
        self.lines: dict[Sbdf, GsiLine] = {sbdf: line for line in platform.lines for sbdf in line.functions}
        self.routes: dict[Sbdf, IntxRoute] = {route.sbdf: route for route in platform.routes}
        self.messages: dict[Sbdf, MsiState] = {state.sbdf: state for state in platform.msi}
        self.resets: dict[Sbdf, Resets] = {resets.function: resets for resets in platform.resets}

    # --- what a function is ---

    def stays(self, sbdf: Sbdf) -> str | None:
        """Why a function cannot be given away by what it is, as a noun; None where it can."""
        function = self.functions[sbdf]
        kind = function.class_code >> 8
        if function.buses is not None or function.header_type in (1, 2):
            return "a bridge to other buses"
        if kind == _HOST_BRIDGE:
            return "a host bridge"
        if kind >> 8 == 0x06:
            return "a bridge to ISA or the like"
        return _STAYING_SYSTEM.get(kind)

    def sends(self, sbdf: Sbdf) -> bool:
        """Whether it counts in its group: bridges to other buses and host bridges only pass on what others send
        (Linux drivers/vfio/vfio_main.c lets them be)."""
        function = self.functions[sbdf]
        return (
            function.buses is None and function.header_type not in (1, 2) and function.class_code >> 8 != _HOST_BRIDGE
        )

    def name(self, sbdf: Sbdf) -> str:
        """Address, ids and driver, for a sentence."""
        function = self.functions[sbdf]
        driver = f", {function.driver}" if function.driver is not None else ""
        return f"{sbdf} ({function.vendor:04x}:{function.device:04x}{driver})"

    def interrupts(self, sbdf: Sbdf) -> int:
        """How many interrupts a function takes if it gets all it can use."""
        state = self.messages.get(sbdf)
        if state is not None and state.msix is not None:
            return state.msix.vectors
        if state is not None and state.msi is not None:
            return state.msi.vectors_capable
        return 1 if sbdf in self.lines else 0

    def needs_line(self, sbdf: Sbdf) -> bool:
        """It has no messages: without its GSI it has no interrupt. A bridge that no driver has needs none."""
        function = self.functions[sbdf]
        if function.buses is not None and function.driver is None:
            return False
        state = self.messages.get(sbdf)
        return state is None or (state.msi is None and state.msix is None)

    # --- what there is of everything ---

    @cached_property
    def cpus(self) -> int:
        """How many processors the machine has; 0: nobody says."""
        return len(cpus_of(self.platform))

    @cached_property
    def vectors(self) -> tuple[int, str]:
        """Vectors for devices of all processors, and who hands them out."""
        of = limits(self.platform, self.backend)
        return sum(of.usable(boot_cpu=cpu.index == 0).bit_count() for cpu in cpus_of(self.platform)), of.owner

    @cached_property
    def ram(self) -> int:
        """Bytes of memory; 0: nobody says."""
        return self.platform.memory.of_type("System RAM") if self.platform.memory is not None else 0

    @cached_property
    def remapped(self) -> bool:
        """Whether a remapper checks interrupts."""
        return is_remapped(self.platform)

    # --- isolation ---

    @cached_property
    def groups(self) -> Mapping[Sbdf, Together]:
        """By function: the kernel's groups where it has told them, else those computed."""
        found: dict[Sbdf, Together] = {}
        kernel: dict[int, list[Sbdf]] = defaultdict(list)
        for sbdf, function in self.functions.items():
            if function.iommu_group is not None:
                kernel[function.iommu_group].append(sbdf)
        computed = {sbdf: group for group in self.platform.groups for sbdf in group.functions}
        for number, members in kernel.items():
            group = computed.get(members[0])
            reasons = group.reasons if group is not None else ()
            together = Together(f"the kernel's group {number}", self._senders(members), reasons)
            found |= dict.fromkeys(members, together)
        for group in self.platform.groups:
            rest = [sbdf for sbdf in group.functions if sbdf not in found and sbdf in self.functions]
            if rest:
                together = Together(f"group {group.number}", self._senders(rest), group.reasons)
                found |= dict.fromkeys(rest, together)
        return found

    def _senders(self, members: Iterable[Sbdf]) -> tuple[Sbdf, ...]:
        return tuple(sorted(sbdf for sbdf in members if self.sends(sbdf)))

    @cached_property
    def turning(self) -> tuple[Turning, ...]:
        """Ports that hand requests to their neighbours."""
        iommu = self.platform.iommu
        amd = iommu is not None and iommu.kind is IommuKind.AMD_VI
        return turning_ports(self.platform.functions, self.topology, amd_iommu=amd)

    @cached_property
    def turns_above(self) -> Mapping[Sbdf, tuple[Turning, ...]]:
        """By function: the turning ports that it is below or beside the way of, whichever way the requests go."""
        found: dict[Sbdf, list[Turning]] = defaultdict(list)
        for each in self.turning:
            for port in (each.port, *each.beside):
                for sbdf in self.topology.behind(port):
                    if sbdf in self.functions and self.sends(sbdf):
                        found[sbdf].append(each)
        return {sbdf: tuple(turns) for sbdf, turns in found.items()}

    def reached(self, turning: Turning) -> tuple[tuple[Sbdf, ...], tuple[Sbdf, ...]]:
        """Functions below the port, and those that their requests can reach below the ports beside it."""
        return self._reached[turning.port]

    @cached_property
    def _reached(self) -> Mapping[Sbdf, tuple[tuple[Sbdf, ...], tuple[Sbdf, ...]]]:
        below = {
            port: self._senders(sbdf for sbdf in self.topology.behind(port) if sbdf in self.functions)
            for each in self.turning
            for port in (each.port, *each.beside)
        }
        return {
            each.port: (below[each.port], tuple(sbdf for port in each.beside for sbdf in below[port]))
            for each in self.turning
        }

    # --- memory ---

    @cached_property
    def regions(self) -> Mapping[Sbdf, tuple[ReservedRegion, ...]]:
        """RMRRs and IVMDs by function."""
        found: dict[Sbdf, list[ReservedRegion]] = defaultdict(list)
        for region in self.platform.iommu.reserved if self.platform.iommu is not None else ():
            for sbdf in region.functions:
                found[sbdf].append(region)
        return {sbdf: tuple(regions) for sbdf, regions in found.items()}

    @cached_property
    def uncovered(self) -> frozenset[Sbdf]:
        """Functions that no IOMMU serves, though there are some."""
        return frozenset(self.platform.iommu.uncovered if self.platform.iommu is not None else ())

    @cached_property
    def part_pages(self) -> Mapping[int, tuple[tuple[Sbdf, Bar], ...]]:
        """By number of a page: memory BARs that have a part of it."""
        found: dict[int, list[tuple[Sbdf, Bar]]] = defaultdict(list)
        for sbdf, function in self.functions.items():
            for bar in function.bars:
                for page in parts(bar):
                    found[page].append((sbdf, bar))
        return {page: tuple(bars) for page, bars in found.items()}

    @cached_property
    def message_pages(self) -> Mapping[Sbdf, tuple[Finding, ...]]:
        """By function: what shares a page with its MSI-X table or pending bits."""
        found: dict[str, list[Finding]] = defaultdict(list)
        for finding in pages.check(self.functions.values()):
            found[finding.where].append(finding)
        return {sbdf: tuple(found[f.where]) for sbdf, f in self.functions.items() if f.where in found}

    # --- what is not known ---

    @cached_property
    def unknown(self) -> tuple[tuple[str, str], ...]:
        """What this picture of the machine does not tell, each with the rules that then judge nothing, as clauses."""
        platform = self.platform
        found = []
        withheld = platform.xen is not None and platform.xen.kind is DomainKind.PVH and platform.native is None
        if withheld:
            found.append(("Xen withholds the IOMMU's tables from a PVH dom0 (give --native)", "IOMMU, reserved memory"))
        elif not platform.tables:
            found.append(("there are no ACPI tables", "IOMMU, reserved memory, interrupt remapping"))
        if platform.namespace is None and not platform.routes:
            found.append(("AML was not interpreted", "shared GSIs"))
        elif platform.namespace is None and all(route.gsi is None for route in platform.routes):
            found.append(("no pin is known to lead to a GSI", "shared GSIs"))
        if platform.functions and not any(
            bar.size for function in platform.functions for bar in (*function.bars, *function.vf_bars)
        ):
            found.append(("nobody measured the BARs", "BARs in one page"))
        if self.needs is None:
            found.append(("only the running kernel knows what it uses", "devices that dom0 needs"))
        if platform.origin.kind in (SourceKind.LSPCI, SourceKind.COMBINED) or all(
            function.config_bytes < 4096 for function in platform.functions
        ):
            short = sum(function.config_bytes < 4096 for function in platform.functions)
            if short:
                found.append((f"{short} functions show no extended config space", "ACS (taken as absent), SR-IOV"))
        return tuple(found)

    @property
    def knows_iommu(self) -> bool:
        """Whether the absence of an IOMMU is a fact."""
        platform = self.platform
        if platform.iommu is None or (platform.iommu.kind is None and not platform.tables):
            return False
        withheld = platform.xen is not None and platform.xen.kind is DomainKind.PVH and platform.native is None
        return not (withheld and platform.iommu.kind is None)


def parts(bar: Bar) -> tuple[int, ...]:
    """Numbers of the pages that a memory BAR has only a part of."""
    if bar.kind is BarKind.IO or not bar.address or not bar.size:
        return ()
    end = bar.address + bar.size
    first, last = bar.address // PAGE, (end - 1) // PAGE
    found = []
    if bar.address % PAGE or (end < (first + 1) * PAGE):
        found.append(first)
    if last != first and end % PAGE:
        found.append(last)
    return tuple(found)
