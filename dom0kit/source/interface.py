# SPDX-License-Identifier: MIT
"""What every source gives: ACPI tables, PCI functions and a few of the kernel's own files, all as raw bytes."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import msgspec

from dom0kit.address import Sbdf
from dom0kit.finding import Finding


class SourceKind(enum.Enum):
    """What a source was made from."""

    LIVE = "live"
    RECORDING = "recording"
    SYSFS_TREE = "sysfs tree"
    ACPIDUMP = "acpidump text"
    TABLE_FOLDER = "table folder"
    LSPCI = "lspci text"
    COMBINED = "combined"


class RawTable(msgspec.Struct, frozen=True):
    """One ACPI table as firmware left it, header first."""

    name: str
    """Name as in /sys/firmware/acpi/tables: the signature, with a number where there are several (``SSDT3``)."""
    data: bytes
    dynamic: bool = False
    """Loaded by AML at run time (/sys/firmware/acpi/tables/dynamic): not to be loaded again."""


class RawFunction(msgspec.Struct, frozen=True):
    """One PCI function as read."""

    sbdf: Sbdf
    config: bytes
    """Config space from offset 0: 0, 64, 256 or 4096 bytes, whatever was readable. Empty when not read (asleep, or no
    dump of it in a text); a damaged text may give any other length up to 4096."""
    attributes: Mapping[str, str] = {}
    """The kernel's view, by sysfs attribute name, stripped of white space: ``resource``, ``irq``, ``numa_node``,
    ``class``, ``vendor``, ``device``, ``power_state``, ``reset_method``, ``local_cpulist``, ``sriov_totalvfs``,
    ``msi_irqs`` (numbers and modes, "27 msix" a line) …; and the targets of links by name: ``driver``, ``iommu``,
    ``iommu_group``, ``physfn``, ``virtfn0`` …, ``firmware_node`` (last path component; of firmware_node the ACPI path);
    ``runtime_status`` (of the folder ``power``); ``parent``, the bridge above, from where the kernel has the function.
    Text sources give what their lines tell; in ``resource`` a line of zeros then also means a size nobody told."""


class Source(Protocol):
    """A machine's bytes. Reading never changes the machine, and never raises for what the machine is like."""

    @property
    def name(self) -> str:
        """For people: a path, or the word "this machine"."""

    @property
    def kind(self) -> SourceKind: ...

    @property
    def is_live(self) -> bool:
        """True only for this machine, now."""

    @property
    def findings(self) -> Sequence[Finding]:
        """What was wrong with the source itself so far (grows while reading)."""

    def tables(self) -> Sequence[RawTable]:
        """ACPI tables: static ones first, SSDTs in the order of the XSDT where it is known; dynamic ones last."""

    def functions(self) -> Iterator[RawFunction]:
        """PCI functions, ascending by address."""

    def file(self, path: str) -> bytes | None:
        """A file of the kernel by its path without the leading slash (``proc/interrupts``), None where absent.

        Only files of the picture of a machine (`source.contents`) are ever there, live or recorded.
        """

    def names(self, path: str) -> Sequence[str]:
        """Names in one of the kernel's folders, sorted (``sys/kernel/irq``); empty where absent."""
