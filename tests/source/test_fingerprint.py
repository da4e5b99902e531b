# SPDX-License-Identifier: MIT
"""The same machine has the same fingerprint, whatever is asleep, renumbered or plugged in; another has another."""

from __future__ import annotations

from pathlib import Path

import pytest

from dom0kit.address import Sbdf
from dom0kit.source.fingerprint import fingerprint
from dom0kit.source.in_memory import MemorySource
from dom0kit.source.interface import RawFunction, RawTable, SourceKind
from tests.source import machine

BRIDGE = RawFunction(Sbdf(0, 0, 0x1C, 0), machine.config(kind=1, secondary=1))
NIC = RawFunction(Sbdf(0, 1, 0, 0), machine.config(device=0x1533))
PORT = RawFunction(Sbdf(0, 0, 0x1D, 0), machine.config(kind=1, secondary=2, hotplug=True))
PLUGGED = RawFunction(Sbdf(0, 2, 0, 0), machine.config(0x144D, 0xA808))
DSDT = RawTable("DSDT", machine.table(b"DSDT", b"x"))


def of(*functions: RawFunction, tables: tuple[RawTable, ...] = (DSDT,), **files: bytes) -> str:
    paths = {f"sys/bus/pci/slots/{name}/address": data for name, data in files.items()}
    return fingerprint(MemorySource("x", SourceKind.LSPCI, tables=tables, functions=functions, files=paths))


def test_another_table_or_function_is_another_machine() -> None:
    base = of(BRIDGE, NIC)
    assert len(base) == 64
    others = [
        of(BRIDGE),
        of(BRIDGE, RawFunction(NIC.sbdf, machine.config(device=0x1534))),
        of(BRIDGE, RawFunction(NIC.sbdf, machine.config(device=0x1533, class_code=0x020001))),
        of(BRIDGE, RawFunction(Sbdf(0, 1, 1, 0), NIC.config)),
        of(BRIDGE, NIC, tables=()),
        of(BRIDGE, NIC, tables=(RawTable("DSDT", machine.table(b"DSDT", b"y")),)),
        of(BRIDGE, NIC, tables=(DSDT, RawTable("SSDT", machine.table(b"SSDT", b"y")))),
        of(BRIDGE, NIC, tables=(DSDT, RawTable("MCFG", machine.table(b"MCFG", b"y")))),
        of(BRIDGE, NIC, tables=(DSDT, RawTable("APIC", machine.table(b"APIC", b"y")))),
    ]
    assert len({base, *others}) == len(others) + 1


def test_other_tables_do_not_count() -> None:
    dynamic = RawTable("SSDT7", machine.table(b"SSDT", b"y"), dynamic=True)
    assert of(NIC, tables=(DSDT, dynamic, RawTable("FACS", b"FACS"))) == of(NIC)


def test_what_is_plugged_into_a_slot_does_not_count() -> None:
    below = RawFunction(Sbdf(0, 2, 1, 0), machine.config(kind=1, secondary=3))
    deeper = RawFunction(Sbdf(0, 3, 0, 0), machine.config())
    assert of(PORT, PLUGGED) == of(PORT) == of(PORT, PLUGGED, below, deeper)
    assert of(BRIDGE, NIC) != of(BRIDGE)


def test_renumbered_buses_do_not_count() -> None:
    bridge = RawFunction(BRIDGE.sbdf, machine.config(kind=1, secondary=9))
    assert of(bridge, RawFunction(Sbdf(0, 9, 0, 0), NIC.config)) == of(BRIDGE, NIC)
    other_segment = RawFunction(Sbdf(1, 1, 0, 0), NIC.config)
    assert of(BRIDGE, other_segment) != of(BRIDGE, NIC)


def test_virtual_functions_do_not_count() -> None:
    virtual = RawFunction(Sbdf(0, 1, 0x10, 0), bytes(4096), {"physfn": "0000:01:00.0"})
    assert of(BRIDGE, NIC, virtual) == of(BRIDGE, NIC)


def test_sleep_does_not_count() -> None:
    names = {"vendor": "0x8086", "device": "0x1533", "class": "0x020000", "parent": "0000:00:1c.0"}
    asleep = RawFunction(NIC.sbdf, b"", names)
    assert of(BRIDGE, asleep) == of(BRIDGE, NIC)
    bridge = RawFunction(BRIDGE.sbdf, b"", {"vendor": "0x8086", "device": "0x1234", "class": "0x020000"})
    assert of(bridge, asleep) == of(BRIDGE, NIC)
    port = RawFunction(PORT.sbdf, b"", {"vendor": "0x8086", "device": "0x1234", "class": "0x020000"})
    plugged = RawFunction(PLUGGED.sbdf, b"", {"vendor": "0x144d", "parent": "0000:00:1d.0"})
    assert of(port, plugged, slot1=b"0000:02:00\n") == of(PORT)


def test_secrets_do_not_count_but_the_same_machine_is_recognised(tmp_path: Path) -> None:
    root = machine.build(tmp_path / "a")
    base = fingerprint(machine.source(root))
    (root / "sys/class/dmi/id/product_uuid").write_text(machine.DISK + "\n")
    assert fingerprint(machine.source(root)) != base, "another key, another pass-through MAC in the DSDT"


@pytest.mark.parametrize("parent", ["0000:01:00.0", "0000:00:1c.0", "nonsense", ""])
def test_circles_end(parent: str) -> None:
    circle = RawFunction(Sbdf(0, 1, 0, 0), b"", {"parent": parent, "class": "nonsense"})
    back = RawFunction(Sbdf(0, 0, 0x1C, 0), b"", {"parent": "0000:01:00.0"})
    assert len(of(circle, back)) == 64
    up = RawFunction(Sbdf(0, 5, 0, 0), machine.config(kind=1, secondary=4))
    down = RawFunction(Sbdf(0, 4, 0, 0), machine.config(kind=1, secondary=5))
    assert len(of(up, down)) == 64
