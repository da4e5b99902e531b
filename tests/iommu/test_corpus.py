# SPDX-License-Identifier: MIT
"""The IOMMU tables of every recorded machine, with its PCI functions where they were recorded, too."""

from __future__ import annotations

import re
from collections import Counter

from dom0kit.acpi.tables.table import decode_table
from dom0kit.address import Sbdf
from dom0kit.iommu.facts import IommuFacts, IommuKind, SourceOfInterrupts
from dom0kit.iommu.observe import observe_iommu
from dom0kit.pci.topology import build
from dom0kit.serial import decode, encode
from dom0kit.source.interface import RawTable
from tests.corpus import CORPUS, acpi_folders, needs_corpus
from tests.pci.machines import recorded


def observed(name: str) -> tuple[IommuFacts, list[str]]:
    """Facts and rules of a recorded machine."""
    files = sorted((CORPUS / "acpi" / name).glob("*.dat"))
    tables = [decode_table(RawTable(f.stem, f.read_bytes())) for f in files if f.stem[:4] in ("DMAR", "IVRS", "APIC")]
    dump = CORPUS / "pci" / f"{name}.lspci"
    functions = recorded(dump) if dump.is_file() else []
    facts, findings = observe_iommu(tables, functions, build(functions)[0])
    return facts, [finding.rule for finding in findings]


@needs_corpus
def test_every_recorded_machine() -> None:
    kinds: Counter[str] = Counter()
    for folder in acpi_folders():
        facts, _ = observed(folder.name)
        assert decode(encode(facts), IommuFacts) == facts
        kinds[facts.kind.value if facts.kind else "none"] += 1
        if facts.kind is IommuKind.VT_D and facts.units:
            assert sum(unit.include_all for unit in facts.units) <= len({unit.segment for unit in facts.units})
    assert kinds["vt-d"] >= 140
    assert kinds["amd-vi"] >= 45


IOAPIC = re.compile(r"DMAR-IR: IOAPIC id (\d+) under DRHD base\s+(0x[0-9a-f]+)")
ADDED = re.compile(r"iommu: Adding device (\S+) to group \d+")


@needs_corpus
def test_the_boot_log_names_the_same_unit_for_every_ioapic() -> None:
    compared = 0
    for log in sorted((CORPUS / "log").glob("*.dmesg")):
        told = IOAPIC.findall(log.read_text(errors="replace"))
        if told:
            facts, _ = observed(log.stem)
            ours = {
                source.id: facts.units[source.unit].register_base
                for source in facts.interrupt_sources
                if source.kind is SourceOfInterrupts.IOAPIC
            }
            assert ours == {int(id): int(base, 16) for id, base in told}
            compared += len(told)
    assert compared >= 4


@needs_corpus
def test_an_amd_kernel_groups_exactly_the_functions_that_a_unit_serves() -> None:
    log = CORPUS / "log" / "combo-msi-ms7721.dmesg"
    told = {Sbdf.parse(address) for address in ADDED.findall(log.read_text(errors="replace"))}
    facts, _ = observed("combo-msi-ms7721")
    (unit,) = facts.units
    assert told
    assert set(unit.functions) == told


@needs_corpus
def test_findings_of_recorded_machines_were_looked_at() -> None:
    found = {folder.name: rules for folder in acpi_folders() if (rules := observed(folder.name)[1])}
    counted = Counter(rule for rules in found.values() for rule in rules)
    # Apple's 2012 firmware names IOAPIC 0 in the DMAR and 2 in the MADT; QEMU's templates name none
    assert counted["iommu.ioapic-unknown"] == 5
    assert counted["iommu.ioapic-unnamed"] == 7
    # several HPET blocks, each with an id of its own
    assert counted["iommu.ioapic-twice"] == 4
    # the legacy USB buffer of the two or three USB controllers
    assert counted["iommu.region-shared"] == 3
    assert sum(counted.values()) == 19
