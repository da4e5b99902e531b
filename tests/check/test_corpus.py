# SPDX-License-Identifier: MIT
"""Many machines: found in folders, checked, and what they have in common."""

from __future__ import annotations

from pathlib import Path

import pytest

from dom0kit.check.corpus import Checked, Recorded, check_all, faults, recorded, shape
from dom0kit.finding import Finding, Severity
from tests.corpus import CORPUS, acpi_folders, lspci_dumps, needs_corpus


def _touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def test_machines_are_found_by_what_their_folders_hold(tmp_path: Path) -> None:
    _touch(tmp_path, "acpi/one/DSDT.dat", "acpi/one/SSDT1.dat", "pci/one.lspci", "pci/two.lspci", "three.d0k")
    _touch(tmp_path, "tree/sys/firmware/acpi/tables/APIC", "functions/0000:00:1f.0/config", "notes.md")
    _touch(tmp_path, "pci/four/DSDT.dat", "other/four.txt")
    path = str(tmp_path)
    assert recorded(path) == (
        Recorded("functions", f"{path}/functions"),
        Recorded("one", f"{path}/acpi/one", f"{path}/pci/one.lspci"),
        Recorded("other/four.txt", f"{path}/other/four.txt"),
        Recorded("pci/four", f"{path}/pci/four"),
        Recorded("three", f"{path}/three.d0k"),
        Recorded("tree", f"{path}/tree"),
        Recorded("two", f"{path}/pci/two.lspci"),
    )
    with pytest.raises(OSError, match="No such file"):
        recorded(f"{path}/none")


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("entry of type 0x0 at offset 0x1148", "entry of type # at offset #"),
        ("0000:03:00.0 has no ACS", "# has no ACS"),
        ("behind it: 0000:01:00.0 0000:01:00.1 0000:01:00.2", "behind it: #…"),
        ("device 8 INTB: GSI 33 and GSI 34", "device # INTB: GSI # and GSI #"),
        ("x2APIC and L1 stay", "x2APIC and L1 stay"),
    ],
)
def test_the_same_fault_at_another_place_has_the_same_shape(message: str, expected: str) -> None:
    assert shape(message) == expected


def test_faults_are_counted_by_machine() -> None:
    def finding(rule: str, message: str, severity: Severity = Severity.WARNING) -> Finding:
        return Finding(rule, severity, "somewhere", message)

    checked = [
        Checked(name="a", findings=(finding("x.one", "at 1"), finding("x.one", "at 2"), finding("x.two", "bad"))),
        Checked(name="b", findings=(finding("x.one", "at 3"), finding("x.err", "no", Severity.ERROR))),
        Checked(name="c", error="unreadable"),
    ]
    found = faults(checked)
    assert [(of.rule, of.machines, of.findings) for of in found] == [
        ("x.err", ("b",), 1),
        ("x.one", ("a", "b"), 3),
        ("x.two", ("a",), 1),
    ]
    assert found[1].shapes == (("at #", ("a", "b")),)


DEFENDED = {"structure.zero-length", "acpi.dmar-register-base", "pci.msix-bir"}
"""Errors that machines of the corpus have, each looked at: docs/corpus.md."""


@needs_corpus
@pytest.mark.slow
def test_an_error_on_a_recorded_machine_is_one_that_was_looked_at() -> None:
    machines = recorded(str(CORPUS))
    names = {machine.name for machine in machines}
    assert {path.name for path in acpi_folders()} <= {name.rpartition("/")[2] for name in names}
    assert len(names) >= len({path.stem for path in lspci_dumps()} | {path.name for path in acpi_folders()})
    sound = [machine for machine in machines if not machine.name.startswith("fwts")]
    told = {
        finding.rule
        for each in check_all(sound, aml=False)
        for finding in each.findings
        if finding.severity is Severity.ERROR
    }
    assert told <= DEFENDED
