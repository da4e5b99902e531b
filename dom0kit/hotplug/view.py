# SPDX-License-Identifier: MIT
"""A Platform that follows its machine: after a change only the tree of functions in which it happened is read again.

What is not read again is remembered as bytes, and everything is computed from bytes as ever. So the Platform is the
one that a full enumeration gives, as long as the functions that changed are in the trees that were named. Two
computations are remembered, for they cost most: a function is decoded again where its bytes differ, AML interpreted
again where something differs that it read.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from typing import Final, Protocol

from dom0kit.acpi.aml import interpret
from dom0kit.acpi.aml_values import Evaluate
from dom0kit.acpi.namespace import Namespace, pci_addresses
from dom0kit.address import Sbdf
from dom0kit.finding import Finding
from dom0kit.observation import observe
from dom0kit.pci.config_space import decode_function
from dom0kit.pci.function import Function
from dom0kit.platform import Platform
from dom0kit.source.interface import RawFunction, RawTable, Source

_AML_BYTES: Final = 256
"""Of config space that AML can read in the interpreter."""
_AML_FUNCTIONS: Final = 4096
"""Which of more functions AML can read depends on all of them (`dom0kit.acpi.recorded_config`)."""


class Changing(Source, Protocol):
    """A source whose functions come and go."""

    def addresses(self) -> Sequence[Sbdf]:
        """Where functions are now, ascending; reads none of them."""

    def functions(self, only: Container[Sbdf] | None = None) -> Iterator[RawFunction]:
        """Those at these addresses, or all."""


class View:
    """The machine as it was last read: `platform`."""

    def __init__(
        self, open_source: Callable[[], Changing], *, aml: bool = True, kernel_aml: Evaluate | None = None
    ) -> None:
        """`open_source` gives the source anew each time, so that nothing of its findings is left over.

        With `kernel_aml`, the kernel's interpreter, AML is asked at each change, for it sees the hardware.
        """
        self._open = open_source
        self._aml = aml
        self._kernel_aml = kernel_aml
        self._raw: dict[Sbdf, RawFunction] = {}
        self._findings: dict[str, list[Finding]] = {}
        self._decoded: dict[Sbdf, tuple[RawFunction, tuple[Function, Sequence[Finding]]]] = {}
        self._interpreted: _Interpreted | None = None
        self.platform: Platform
        self.enumerate()

    @property
    def addresses(self) -> Sequence[Sbdf]:
        """Where there were functions."""
        return list(self._raw)

    def enumerate(self) -> Platform:
        """Reads everything again."""
        self._raw = {}
        self._interpreted = None
        return self._observed(self._open(), frozenset())

    def refresh(self, changed: Iterable[Sbdf] = ()) -> Platform:
        """Reads again the trees of the functions that changed, came or went; those that came or went are also found.

        A tree: all functions of a device on a root bus, all behind them, and their virtual functions.
        """
        source = self._open()
        now = set(source.addresses())
        came = {raw.sbdf: raw for raw in source.functions(now - self._raw.keys())}
        known = {**self._raw, **came}
        keys = {_tree(sbdf, known) for sbdf in (*changed, *came, *(self._raw.keys() - now))}
        kept = {sbdf for sbdf in now if sbdf in self._raw and _tree(sbdf, known) not in keys}
        return self._observed(source, kept)

    def _observed(self, source: Changing, kept: Container[Sbdf]) -> Platform:
        seen = _Seen(source, {sbdf: raw for sbdf, raw in self._raw.items() if sbdf in kept})
        functions = tuple(seen.functions())
        self._raw = {raw.sbdf: raw for raw in functions}
        seen.remember(self._findings)
        namespace = self._namespace(source.tables(), {raw.sbdf: raw.config for raw in functions})
        self.platform = observe(seen, aml=False, namespace=namespace, decode=self._decode)
        self._decoded = {sbdf: known for sbdf, known in self._decoded.items() if sbdf in self._raw}
        return self.platform

    def _decode(self, raw: RawFunction) -> tuple[Function, Sequence[Finding]]:
        known = self._decoded.get(raw.sbdf)
        if known is None or known[0] != raw:
            known = self._decoded[raw.sbdf] = raw, decode_function(raw)
        return known[1]

    def _namespace(self, tables: Sequence[RawTable], config: Mapping[Sbdf, bytes]) -> Namespace | None:
        if not self._aml or not tables:
            return None
        if self._interpreted is None or self._kernel_aml is not None or not self._interpreted.holds(tables, config):
            self._interpreted = _Interpreted(tables, config, interpret(tables, config, kernel=self._kernel_aml))
        return self._interpreted.namespace


def _tree(sbdf: Sbdf, known: Mapping[Sbdf, RawFunction]) -> tuple[int, int, int]:
    """The device on a root bus that a function is, or is behind: segment, bus and device."""
    passed = set()
    while sbdf not in passed:
        passed.add(sbdf)
        attributes = known[sbdf].attributes if sbdf in known else {}
        above = _address(attributes.get("physfn")) or _address(attributes.get("parent"))
        if above is None:
            break
        sbdf = above
    return sbdf.segment, sbdf.bus, sbdf.device


def _address(text: str | None) -> Sbdf | None:
    try:
        return None if text is None else Sbdf.parse(text)
    except ValueError:
        return None


class _Seen:
    """A source of which some functions are remembered; each is read once."""

    def __init__(self, source: Changing, kept: Mapping[Sbdf, RawFunction]) -> None:
        self.name = source.name
        self.kind = source.kind
        self.is_live = source.is_live
        self.file = source.file
        self.names = source.names
        self._source = source
        self._kept = kept
        self._tables = source.tables()
        read = {raw.sbdf: raw for raw in source.functions(set(source.addresses()) - kept.keys())}
        self._functions = tuple(raw for _, raw in sorted({**kept, **read}.items()))
        self._old: Sequence[Finding] = ()

    def tables(self) -> Sequence[RawTable]:
        return self._tables

    def functions(self) -> Iterator[RawFunction]:
        return iter(self._functions)

    @property
    def findings(self) -> Sequence[Finding]:
        return (*self._source.findings, *self._old)

    def remember(self, findings: dict[str, list[Finding]]) -> None:
        """Adds what was said of functions when they were read; keeps what is said now."""
        kept = {f"pci:{sbdf}" for sbdf in self._kept}
        self._old = tuple(finding for where in kept for finding in findings.get(where, ()))
        now: dict[str, list[Finding]] = {}
        for finding in self.findings:
            now.setdefault(finding.where, []).append(finding)
        findings.clear()
        findings.update(now)


class _Interpreted:
    """What AML said, and what it depends on besides the tables."""

    def __init__(self, tables: Sequence[RawTable], config: Mapping[Sbdf, bytes], namespace: Namespace) -> None:
        self.namespace = namespace
        self._tables = tuple(tables)
        evaluations = [each for device in namespace.devices for each in device.evaluations]
        if namespace.apic_mode is not None:
            evaluations.append(namespace.apic_mode)
        self._read = {
            function
            for evaluation in evaluations
            for function in (*evaluation.config, *(access.function for access in evaluation.depends))
            if function is not None
        }
        self._facts = self._of(config)

    def holds(self, tables: Sequence[RawTable], config: Mapping[Sbdf, bytes]) -> bool:
        """Whether the interpreter would say the same of these tables and this config space."""
        return self._tables == tuple(tables) and len(config) <= _AML_FUNCTIONS and self._facts == self._of(config)

    def _of(self, config: Mapping[Sbdf, bytes]) -> object:
        """What AML reads: the lowest function with bytes (in the interpreter's array from the beginning), those that
        evaluations read, present or not, and where the namespace's devices sit."""
        lowest = next((sbdf for sbdf in sorted(config) if config[sbdf]), None)
        read = {*self._read, *(() if lowest is None else (lowest,))}
        return (
            bool(config),
            lowest,
            {sbdf: config[sbdf][:_AML_BYTES] if sbdf in config else None for sbdf in read},
            pci_addresses(self.namespace.devices, config),
        )
