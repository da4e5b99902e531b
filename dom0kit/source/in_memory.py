# SPDX-License-Identifier: MIT
"""Sources whose bytes are already here: what a recording or a dump was translated into, and two sources as one."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence

from dom0kit.finding import Finding
from dom0kit.source.contents import MANIFEST
from dom0kit.source.interface import RawFunction, RawTable, Source, SourceKind


class MemorySource:
    """A source that holds everything. Equal if what it holds is equal."""

    def __init__(
        self,
        name: str,
        kind: SourceKind,
        *,
        tables: Iterable[RawTable] = (),
        functions: Iterable[RawFunction] = (),
        files: Mapping[str, bytes] | None = None,
        findings: Iterable[Finding] = (),
    ) -> None:
        self.name = name
        self.kind = kind
        self.is_live = False
        self.findings: Sequence[Finding] = tuple(findings)
        self._tables = tuple(tables)
        self._functions = tuple(functions)
        self._files = dict(files or {})
        self._paths = sorted(self._files)

    def tables(self) -> Sequence[RawTable]:
        return self._tables

    def functions(self) -> Iterator[RawFunction]:
        return iter(self._functions)

    def file(self, path: str) -> bytes | None:
        return self._files.get(path)

    def names(self, path: str) -> Sequence[str]:
        prefix = path + "/" if path else ""
        names: dict[str, None] = {}
        for index in range(bisect_left(self._paths, prefix), len(self._paths)):
            if not self._paths[index].startswith(prefix):
                break
            names[self._paths[index][len(prefix) :].partition("/")[0]] = None
        return sorted(names)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MemorySource) and (
            (self._tables, self._functions, self._files) == (other._tables, other._functions, other._files)
        )

    __hash__ = None  # type: ignore[assignment]  # it may be large, and nothing needs it as a key


class CombinedSource:
    """The tables of one source and the PCI functions of another, taken for the same machine."""

    def __init__(self, acpi: Source, pci: Source) -> None:
        self.name = f"{acpi.name} with {pci.name}"
        self.kind = SourceKind.COMBINED
        self.is_live = False
        self._acpi = acpi
        self._pci = pci

    @property
    def findings(self) -> Sequence[Finding]:
        return (*self._acpi.findings, *self._pci.findings)

    def tables(self) -> Sequence[RawTable]:
        return self._acpi.tables()

    def functions(self) -> Iterator[RawFunction]:
        return self._pci.functions()

    def file(self, path: str) -> bytes | None:
        if path == MANIFEST:  # a recording's word that it is redacted does not hold for the other half
            return None
        data = self._acpi.file(path)
        return data if data is not None else self._pci.file(path)

    def names(self, path: str) -> Sequence[str]:
        return sorted({*self._acpi.names(path), *self._pci.names(path)})
