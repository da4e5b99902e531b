# SPDX-License-Identifier: MIT
"""The whole machine as one immutable value: every fact that a source gives, and what is wrong with it.

``observe(source)`` is the only way to one. It goes to JSON and back without loss (`dom0kit.serial`), and the same
source gives the same bytes of JSON every time.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from dom0kit.acpi.namespace import Namespace
from dom0kit.acpi.tables import Table
from dom0kit.address import Sbdf
from dom0kit.finding import Finding, Severity
from dom0kit.ioapic.controllers import Ioapic
from dom0kit.ioapic.intx import GsiLine, IntxRoute
from dom0kit.ioapic.kernel_view import KernelView
from dom0kit.ioapic.legacy import Legacy
from dom0kit.msi.state import MsiState
from dom0kit.pci.function import Function
from dom0kit.pci.isolation import Group
from dom0kit.pci.topology import Topology
from dom0kit.source.interface import RawFunction, RawTable, Source, SourceKind

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
    groups: tuple[Group, ...] = ()
    """IOMMU groups as Linux would form them."""
    ioapics: tuple[Ioapic, ...] = ()
    legacy: Legacy | None = None
    """ISA interrupts, SCI and NMIs."""
    routes: tuple[IntxRoute, ...] = ()
    """The way of every INTx pin."""
    lines: tuple[GsiLine, ...] = ()
    """Every GSI that an INTx pin leads to, and who shares it."""
    msi: tuple[MsiState, ...] = ()
    """How each function interrupts now."""
    kernel: KernelView | None = None
    findings: tuple[Finding, ...] = ()
    """The most severe first."""
