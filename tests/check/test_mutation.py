# SPDX-License-Identifier: MIT
"""Bytes changed one at a time: nothing crashes, and a table that was changed is never taken for a good one."""

from __future__ import annotations

import random

import pytest

from dom0kit.acpi.tables import decode_table
from dom0kit.check.rules import findings
from dom0kit.observation import observe
from dom0kit.source.in_memory import MemorySource
from dom0kit.source.interface import RawFunction, RawTable, SourceKind
from dom0kit.source.recognise import open_source
from tests.acpi.asl import needs_acpica
from tests.check.machine import recording

MACHINES = ("qemu-q35", "qemu-i440fx", "synthetic-x2apic", "synthetic-amd", "firecracker")
HEADER, LENGTH_ENDS = 36, 8
"""Bytes of a table's header; where its signature and length end."""
DAMAGED = {"acpi.table-checksum", "acpi.table-truncated", "acpi.table-short", "acpi.table-slack"}
"""One of these says that the bytes are not what firmware summed; the last three where the length was changed."""


def _changed(data: bytes, at: int, by: int) -> bytes:
    return data[:at] + bytes((data[at] ^ by,)) + data[at + 1 :]


@pytest.mark.slow
@pytest.mark.parametrize("name", MACHINES)
def test_every_byte_of_every_table(name: str) -> None:
    rng = random.Random(name)
    for table in open_source(recording(name)).tables():
        is_aml = table.data[:4] in (b"DSDT", b"SSDT")
        summed = table.data[:4] not in (b"FACS", b"RSD ")
        assert not DAMAGED & {finding.rule for finding in decode_table(table).findings}
        places = list(range(len(table.data)))
        if is_aml:  # the bytes behind its header are the interpreter's: any of them is as good as another
            places = [*range(HEADER), *(rng.randrange(HEADER, len(table.data)) for _ in range(1000))]
        for at in places:
            rules = {
                finding.rule
                for finding in decode_table(
                    RawTable(table.name, _changed(table.data, at, 1 + rng.randrange(255)))
                ).findings
            }
            if summed:
                assert DAMAGED & rules, (table.name, at)
                assert at < LENGTH_ENDS or "acpi.table-checksum" in rules, (table.name, at)


@pytest.mark.slow
@pytest.mark.parametrize("name", MACHINES)
def test_the_rules_over_a_machine_with_a_changed_byte(name: str) -> None:
    source = open_source(recording(name))
    tables, functions = list(source.tables()), list(source.functions())
    rng = random.Random(name)
    for _ in range(120):
        some_tables, some_functions = list(tables), list(functions)
        if functions and rng.random() < 0.6:
            which = rng.randrange(len(functions))
            old = functions[which]
            if old.config:
                config = _changed(old.config, rng.randrange(min(len(old.config), 0x200)), 1 + rng.randrange(255))
                some_functions[which] = RawFunction(old.sbdf, config, old.attributes)
        else:
            which = rng.randrange(len(tables))
            data = _changed(tables[which].data, rng.randrange(len(tables[which].data)), 1 + rng.randrange(255))
            some_tables[which] = RawTable(tables[which].name, data)
        machine = MemorySource(name, SourceKind.RECORDING, tables=some_tables, functions=some_functions)
        assert isinstance(findings(observe(machine, aml=False)), tuple)


@needs_acpica
@pytest.mark.slow
@pytest.mark.parametrize("name", ["qemu-q35", "synthetic-x2apic"])
def test_the_rules_over_changed_aml(name: str) -> None:
    source = open_source(recording(name))
    tables, functions = list(source.tables()), list(source.functions())
    rng = random.Random(name)
    aml = [number for number, table in enumerate(tables) if table.data[:4] in (b"DSDT", b"SSDT")]
    for _ in range(12):
        which = rng.choice(aml)
        data = bytearray(_changed(tables[which].data, rng.randrange(HEADER, len(tables[which].data)), 0xFF))
        data[9] = (data[9] - sum(data)) & 0xFF  # or the interpreter would not look at it
        some = [*tables[:which], RawTable(tables[which].name, bytes(data)), *tables[which + 1 :]]
        machine = MemorySource(name, SourceKind.RECORDING, tables=some, functions=functions)
        assert isinstance(findings(observe(machine)), tuple)
