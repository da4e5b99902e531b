# SPDX-License-Identifier: MIT
"""The whole machine as one immutable value: every fact that a source gives, and what is wrong with it.

`dom0kit.observation.observe` makes one from a source. It goes to JSON and back without loss (`dom0kit.serial`).
"""

from __future__ import annotations

from typing import Final

import msgspec

from dom0kit.acpi.namespace import Namespace
from dom0kit.acpi.tables import Table
from dom0kit.finding import Finding
from dom0kit.ioapic.controllers import Ioapic
from dom0kit.ioapic.intx import GsiLine, IntxRoute
from dom0kit.ioapic.kernel_view import KernelView
from dom0kit.ioapic.legacy import LegacyInterrupts
from dom0kit.iommu.facts import IommuFacts
from dom0kit.memory import MemoryFacts
from dom0kit.msi.state import MsiState
from dom0kit.native import Native
from dom0kit.part import Part
from dom0kit.pci.function import Function
from dom0kit.pci.isolation import Group
from dom0kit.pci.reset import Resets
from dom0kit.pci.topology import Topology
from dom0kit.processors import Processors
from dom0kit.source.interface import SourceKind
from dom0kit.xen import XenDomain

FORMAT: Final = 1
"""Version of the JSON form; a new one where a field goes away or changes its meaning."""


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
    xen: XenDomain | None = None
    """The domain of Xen that the kernel runs in; None without Xen."""
    native: Native | None = None
    """What a recording made without Xen adds to what dom0 sees; None where there was none."""
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
