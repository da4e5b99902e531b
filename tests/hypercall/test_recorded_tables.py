# SPDX-License-Identifier: MIT
"""MADTs of real machines boot the core; with bytes changed, it takes what is sound and reports the rest."""

from __future__ import annotations

import functools
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from dom0kit.abi import Report
from dom0kit.address import Sbdf
from dom0kit.hypercall.core_library import IoapicModel, ModelMachine
from dom0kit.hypercall.shared_info import parse_shared_info
from dom0kit.simulation import memory_image
from dom0kit.source.interface import RawTable
from dom0kit.source.recognise import open_source
from tests.corpus import acpi_folders
from tests.hv_core.machines import LIBRARY

SHIPPED = sorted((Path(__file__).parent.parent.parent / "dom0kit" / "recordings").glob("*.d0k"))
HEADER = 44
"""Bytes of a MADT before its entries."""


@functools.cache
def madts() -> tuple[bytes, ...]:
    """One of each machine that ships with the package, and of each in the corpus where there is one."""
    found: dict[bytes, None] = {}
    for path in [*SHIPPED, *acpi_folders()]:
        for table in open_source(str(path)).tables():
            if table.name.startswith("APIC"):
                found.setdefault(table.data)
    return tuple(found)


def boot(madt: bytes) -> ModelMachine:
    """The core on a machine with an IOAPIC wherever this table says one is, as far as the smallest model goes."""
    memory, rsdp, _ = memory_image([RawTable("APIC", madt)])
    addresses = dict.fromkeys(int.from_bytes(data[4:8], "little") for data in entries(madt) if data[0] == 1)
    models = [IoapicModel(address=address) for address in addresses if address][:8]
    return ModelMachine(memory=memory, ioapics=models, rsdp=rsdp, library=LIBRARY)


def entries(madt: bytes) -> list[bytes]:
    """The entries, up to the first that is no entry."""
    found, at = [], HEADER
    while at + 2 <= len(madt) and madt[at + 1] >= 2 and at + madt[at + 1] <= len(madt):
        found.append(madt[at : at + madt[at + 1]])
        at += madt[at + 1]
    return [entry for entry in found if entry[0] != 1 or len(entry) >= 12]


def check(made: ModelMachine) -> set[Report]:
    """What holds whatever the table was; what the core reports."""
    core = made.domain(0)
    information = core.information()
    ioapics = parse_shared_info(made.shared_info()).ioapics
    assert information.ioapics == len(ioapics)
    gsis = [gsi for each in ioapics for gsi in range(each.gsi_base, each.gsi_base + each.pins)]
    assert len(set(gsis)) == len(gsis), "no GSI is two pins"
    assert information.gsis == max(gsis, default=-1) + 1
    assert len({each.address for each in ioapics}) == len(ioapics)
    assert not any(access.write for access in made.log()), "a start writes nothing"
    core.pci_device_add(Sbdf(0, 0, 1, 0))
    assert information.cpus <= information.limit_cpus
    return {report.code for report in core.reports()}


def test_recorded_machines() -> None:
    assert len(madts()) >= len(SHIPPED)
    for madt in madts():
        made = boot(madt)
        reports = check(made)
        information = made.domain(0).information()
        if sum(madt) % 256:
            assert Report.BAD_TABLE in reports
            continue
        enabled = {entry[3] for entry in entries(madt) if entry[0] == 0 and entry[4] & 1}
        enabled |= {int.from_bytes(entry[4:8], "little") for entry in entries(madt) if entry[0] == 9 and entry[8] & 1}
        assert information.cpus == min(len(enabled - {0xFF, 0xFFFFFFFF}), information.limit_cpus)
        assert (Report.NO_CPU in reports) == (information.cpus == 0)


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_with_bytes_changed(data: st.DataObject) -> None:
    madt = bytearray(data.draw(st.sampled_from(madts()), label="table"))
    places = st.integers(HEADER, len(madt) - 1)
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=12), label="changes"):
        madt[place] = value
    del madt[data.draw(st.integers(HEADER, len(madt)), label="cut") :]
    madt[4:8] = len(madt).to_bytes(4, "little")
    good = data.draw(st.booleans(), label="checksum is right")
    madt[9] = (madt[9] - sum(madt) + (not good)) & 0xFF
    made = boot(bytes(madt))
    reports = check(made)
    if not good:
        assert {Report.BAD_TABLE, Report.NO_MADT} <= reports
        assert made.domain(0).information().cpus == 0
    else:
        assert not reports & {Report.BAD_TABLE, Report.NO_MADT, Report.NO_RSDP, Report.NO_ROOT_TABLE}
