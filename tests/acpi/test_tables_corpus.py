# SPDX-License-Identifier: MIT
"""ACPI static tables of recorded machines: all bytes come back, JSON loses nothing, and every finding is a real one."""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dom0kit.acpi.tables import Other, Table, build_table, cross_findings, decode_table
from dom0kit.acpi.tables.dmar import Structure
from dom0kit.acpi.tables.madt import Madt
from dom0kit.acpi.tables.table import MODULES
from dom0kit.finding import Severity
from dom0kit.layout import Rest, Unknown
from dom0kit.serial import decode, encode
from dom0kit.source.interface import RawTable
from tests.acpi.test_tables import holds_for, mutated
from tests.corpus import acpi_folders, needs_corpus

pytestmark = [needs_corpus, pytest.mark.slow]

EXPECTED = {
    "acpi.table-checksum": 23,
    "structure.extra": 22,
    "acpi.table-slack": 21,
    "acpi.fadt-length": 15,
    "acpi.root-null-entry": 14,
    "acpi.dbg2-offsets": 13,
    "structure.unknown-type": 8,
    "acpi.fadt-address-mismatch": 7,
    "acpi.ivrs-memory": 5,
    "structure.count": 4,
    "acpi.madt-inti-flags": 3,
    "structure.zero-length": 2,
    "structure.short": 2,
    "acpi.table-truncated": 2,
    "acpi.dmar-register-base": 1,
}
"""Findings in all 7,794 tables, each looked at: bytes altered on purpose by the firmware test suite's samples (20 FACS
with 16 bytes too many, an XSDT of zeros, a DBG2 of wrong offsets, a CEDT record of 16 bytes instead of 17, a cut SRAT
and SSDT); FADTs of Apple that call 244 bytes revision 5; FADTs that name two FACS; IVMD blocks of one byte; DBG2 and
TPM2 of Arm tablets with padding; a SRAT that ends in zeros; a remapping unit at 0; OEM entries in MADT and IVRS."""


@cache
def tables() -> dict[str, list[tuple[RawTable, Table]]]:
    """By machine."""
    found: dict[str, list[tuple[RawTable, Table]]] = {}
    for folder in acpi_folders():
        raws = [RawTable(path.stem, path.read_bytes()) for path in sorted(folder.glob("*.dat"))]
        found[folder.name] = [(raw, decode_table(raw)) for raw in raws]
    return found


def test_all_bytes_come_back() -> None:
    kept_raw = []
    for machine, pairs in tables().items():
        for raw, table in pairs:
            assert build_table(table) == raw.data, (machine, raw.name)
            if table.raw is not None:
                kept_raw.append((machine, raw.name, [finding.rule for finding in table.findings]))
    assert [rules for _, _, rules in kept_raw] == [["acpi.table-slack"]], kept_raw


def test_json_loses_nothing() -> None:
    for machine, pairs in tables().items():
        for raw, table in pairs:
            text = encode(table)
            again = decode(text, Table)
            assert again == table, (machine, raw.name)
            assert encode(again) == text, (machine, raw.name)


def test_findings_are_few_and_known() -> None:
    counts = Counter(finding.rule for pairs in tables().values() for _, table in pairs for finding in table.findings)
    assert counts == EXPECTED


def test_real_machines_do_not_drown() -> None:
    for machine, pairs in tables().items():
        serious = [finding for _, table in pairs for finding in table.findings if finding.severity is not Severity.INFO]
        assert len(serious) <= 6, (machine, serious)


def test_nothing_known_is_left_uninterpreted() -> None:
    """No table of a known kind is kept as bytes, and unknown entries are of types that no specification has."""
    unknown: defaultdict[str, set[int]] = defaultdict(set)
    for machine, pairs in tables().items():
        for _, table in pairs:
            assert not (table.signature in MODULES and isinstance(table.content, Other)), (machine, table.name)
            entries = list(getattr(table.content, "entries", ())) + list(getattr(table.content, "structures", ()))
            entries += getattr(table.content, "blocks", ())
            for entry in entries:
                if isinstance(entry, Structure):
                    assert not any(isinstance(scope, Unknown | Rest) for scope in entry.scopes), (machine, table.name)
                if isinstance(entry, Unknown):
                    unknown[table.signature].add(entry.type)
    assert unknown == {"APIC": {0x7F, 0xFF}, "IVRS": {0x51}, "CEDT": {3}}


def test_duplicates_are_told() -> None:
    told = {
        machine
        for machine, pairs in tables().items()
        if any(finding.rule == "acpi.table-duplicate" for finding in cross_findings(table for _, table in pairs))
    }
    assert {"apple-macbookpro5-5-70ea14", "fwts-apicinstance-0001-a", "gigabyte-technology-x299-ud4-ad9ba0"} <= told
    assert len(told) == 18


def test_processors_are_there() -> None:
    """The MADT of each x86 machine enables at least one processor."""
    for machine, pairs in tables().items():
        for _, table in pairs:
            if isinstance(table.content, Madt):
                flags = [getattr(entry, "flags", None) for entry in table.content.entries]
                assert any(getattr(flag, "enabled", False) for flag in flags), (machine, table.name)


@settings(max_examples=300)
@given(data=st.data())
def test_mutated_recorded_tables(data: st.DataObject) -> None:
    small = [raw.data for pairs in tables().values() for raw, table in pairs if len(raw.data) < 2000]
    holds_for(data.draw(mutated(st.sampled_from(small))))
