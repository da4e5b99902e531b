# SPDX-License-Identifier: MIT
"""The machine below Xen: what dom0 sees, completed from a recording of the same machine made without Xen.

A `NativeView` is a source again. What dom0 sees as it is, PCI above all, stays; what Xen withholds, renames or makes
up for dom0 comes from the recording, and `borrowed` names each such fact and why it was taken.

Sources: Xen, arch/x86/hvm/dom0_build.c (tables of a PVH dom0), drivers/passthrough/vtd/dmar.c (RMAD); Linux,
arch/x86/xen/setup.c and arch/x86/xen/smp_pv.c (a PV dom0 has no NUMA and numbers its virtual processors).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from dom0kit.acpi.tables import decode_table
from dom0kit.acpi.tables.madt import InterruptSourceOverride, Ioapic, Madt
from dom0kit.finding import Finding
from dom0kit.source.fingerprint import fingerprint
from dom0kit.source.in_memory import MemorySource
from dom0kit.source.interface import RawFunction, RawTable, Source, SourceKind
from dom0kit.source.redaction import Redaction


class NotNative(ValueError):
    """The recording cannot complete this picture; the message says why, in one sentence."""


class Borrowed(msgspec.Struct, frozen=True):
    """A fact that comes from the recording."""

    fact: str
    """``table:SRAT``, ``file:sys/devices/system/node``, ``pci:numa_node``; or a part of the Platform that was computed
    from these, such as ``processors``."""
    reason: str
    """Why not from dom0; a clause."""


class Native(msgspec.Struct, frozen=True, kw_only=True):
    """The recording that completed a Platform. Every fact not among `borrowed` is of the Platform's own origin."""

    name: str
    kind: SourceKind
    fingerprint: str
    """Of the recording; that of the Platform's origin is of what dom0 sees."""
    borrowed: tuple[Borrowed, ...]


_REBUILT: Final = "APIC"
_RENAMED: Final = {"RMAD": "DMAR"}
_ALWAYS_SHOWN: Final = frozenset(("APIC", "DSDT", "MCFG", "SSDT"))
"""Of a kind that dom0 always sees, so that one more than dom0 has is another machine's."""
_PROCESSORS: Final = "dom0 sees its virtual processors"
_FILES: Final = {
    "proc/cpuinfo": _PROCESSORS,
    "sys/devices/system/cpu": _PROCESSORS,
    "sys/devices/system/node": "dom0 sees one node, of its own memory",
    "sys/devices/system/memory": "dom0 sees its own memory",
    "sys/firmware/memmap": "under Xen it may be a map that Xen made for dom0",
}
"""Files and folders of the kernel that under Xen tell of the domain instead of the machine."""
_ATTRIBUTES: Final = ("numa_node", "local_cpulist")
_COMPUTED: Final = {
    "iommu": ("DMAR", "IVRS"),
    "groups": ("DMAR", "IVRS"),
    "processors": ("APIC", "SRAT", "sys/devices/system/cpu"),
    "memory": ("SRAT", "SLIT", "HMAT", "sys/devices/system/node", "sys/firmware/memmap"),
    "ioapics": ("APIC",),
    "legacy": ("APIC",),
}
"""Parts of a Platform, and what they are computed from."""


class NativeView:
    """A source: dom0's, completed."""

    def __init__(self, dom0: Source, native: Source) -> None:
        """NotNative where `dom0` is not under Xen, `native` is, or they are two machines."""
        if not _under_xen(dom0):
            raise NotNative(f"{dom0.name} does not run under Xen: it shows the machine's own tables")
        if _under_xen(native):
            raise NotNative(f"{native.name} was recorded under Xen, too: boot the machine without it and record again")
        self.dom0 = dom0
        self.native = native
        self.seen: Final = MemorySource(dom0.name, dom0.kind, tables=dom0.tables(), functions=dom0.functions())
        """Tables and functions as dom0 sees them."""
        self.name = dom0.name
        self.kind = dom0.kind
        self.is_live = dom0.is_live
        self._reasons: dict[str, str] = {}
        self._tables = tuple(self._completed(Redaction(dom0)))
        self._functions = tuple(self._placed())
        if fingerprint(self) != fingerprint(native):
            raise NotNative(
                f"{native.name} is of another machine than {dom0.name}, or firmware or cards have changed since: the "
                "fingerprints over DSDT, SSDT, MADT, MCFG and the PCI functions differ"
            )
        for path, why in _FILES.items():
            if native.file(path) is not None or native.names(path):
                self._reasons[path] = why

    @property
    def findings(self) -> Sequence[Finding]:
        return self.dom0.findings

    def tables(self) -> Sequence[RawTable]:
        return self._tables

    def functions(self) -> Iterator[RawFunction]:
        return iter(self._functions)

    def file(self, path: str) -> bytes | None:
        return self._whose(path).file(path)

    def names(self, path: str) -> Sequence[str]:
        return self._whose(path).names(path)

    def origin(self) -> Native:
        """Which recording, and what comes from it."""
        borrowed = [Borrowed(_name(fact), why) for fact, why in self._reasons.items()]
        for part, roots in _COMPUTED.items():
            if taken := [root for root in roots if root in self._reasons]:
                borrowed.append(Borrowed(part, f"computed from {', '.join(map(_name, taken))}"))
        return Native(
            name=self.native.name,
            kind=self.native.kind,
            fingerprint=fingerprint(self.native),
            borrowed=tuple(borrowed),
        )

    def _whose(self, path: str) -> Source:
        borrowed = any(path == root or path.startswith(root + "/") for root in self._reasons)
        return self.native if borrowed else self.dom0

    def _completed(self, redaction: Redaction) -> Iterator[RawTable]:
        """dom0's tables, those that Xen changed replaced; those that it does not show; those that AML loads."""
        native = {table.name: table for table in self.native.tables() if not table.dynamic}
        shown = self.seen.tables()
        for table in shown:
            if not table.dynamic:
                own = native.pop(_RENAMED.get(table.name, table.name), None)
                yield table if own is None else self._as_it_was(table, own, redaction)
        for table in native.values():
            if table.name.rstrip("0123456789") not in _ALWAYS_SHOWN:
                self._reasons[table.name] = "Xen does not show it to dom0"
                yield table
        yield from (table for table in shown if table.dynamic)

    def _as_it_was(self, shown: RawTable, own: RawTable, redaction: Redaction) -> RawTable:
        """A table as it was without Xen; `shown` itself where Xen has not changed it."""
        data = redaction.table(shown).data
        if shown.name != own.name:
            if data[4:] != own.data[4:]:
                raise NotNative(f"the {shown.name} of {self.dom0.name} is not the {own.name} of {self.native.name}")
            self._reasons[own.name] = f"Xen shows it as {shown.name}"
            return own
        if shown.name == _REBUILT and data != own.data:
            if _copied(shown) != _copied(own):
                raise NotNative(
                    f"the MADT of {self.native.name} has other IOAPICs or overrides than the one that Xen built"
                )
            self._reasons[own.name] = "Xen built one for dom0, of virtual processors"
            return own
        return shown

    def _placed(self) -> Iterator[RawFunction]:
        """dom0's functions, on the nodes that the machine has them on."""
        native: Mapping[str, Mapping[str, str]] = {str(one.sbdf): one.attributes for one in self.native.functions()}
        for function in self.seen.functions():
            there = native.get(str(function.sbdf), {})
            new = {name: there[name] for name in _ATTRIBUTES if name in there}
            if any(function.attributes.get(name) != value for name, value in new.items()):
                self._reasons.update({f"pci:{name}": "dom0 sees one node, of its own processors" for name in new})
                function = RawFunction(function.sbdf, function.config, {**function.attributes, **new})
            yield function


def _name(fact: str) -> str:
    if fact.startswith("pci:"):
        return fact
    return f"file:{fact}" if fact in _FILES else f"table:{fact}"


def _under_xen(source: Source) -> bool:
    return (source.file("sys/hypervisor/type") or b"").strip() == b"xen"


def _copied(raw: RawTable) -> list[str]:
    """What Xen copies into the MADT that it builds: IOAPICs and overrides."""
    madt = decode_table(raw).content
    entries = madt.entries if isinstance(madt, Madt) else ()
    return sorted(str(entry) for entry in entries if isinstance(entry, Ioapic | InterruptSourceOverride))
