# SPDX-License-Identifier: MIT
"""What a dom0 of Xen sees, completed by a recording without Xen: every shipped machine, as PV and PVH dom0."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import dom0kit
from dom0kit.cli import FINE, FOUND, UNUSABLE, main
from dom0kit.native import Native, NativeView, NotNative
from dom0kit.observation import observe
from dom0kit.platform import Platform
from dom0kit.serial import decode, encode
from dom0kit.source.fingerprint import fingerprint
from dom0kit.source.in_memory import MemorySource
from dom0kit.source.interface import RawTable, Source
from dom0kit.source.recognise import open_source
from dom0kit.source.recording import record
from tests.xen_views import rebuilt, seen_by

SHIPPED = sorted(Path(dom0kit.__file__).parent.glob("recordings/*.d0k"))
Q35 = Path(dom0kit.__file__).parent / "recordings" / "qemu-q35.d0k"
X2APIC = Q35.with_name("synthetic-x2apic.d0k")


def machine(path: Path = Q35) -> Source:
    return open_source(path)


def facts(platform: Platform) -> list[object]:
    return [
        platform.tables, platform.functions, platform.iommu, platform.groups, platform.processors, platform.memory,
        platform.ioapics, platform.legacy, platform.routes,
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["PV", "PVH"])
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_completed_view_is_the_machine(path: Path, kind: str) -> None:
    """Whatever Xen did to the view is undone: tables, processors, memory, nodes, IOMMU and groups."""
    native = machine(path)
    view = NativeView(seen_by(kind, native), native)
    assert {table.name: table.data for table in view.tables()} == {table.name: table.data for table in native.tables()}
    completed, whole = observe(view, aml=False), observe(native, aml=False)
    by_name = [sorted(of.tables, key=lambda table: table.name) for of in (completed, whole)]
    assert by_name[0] == by_name[1]
    assert facts(completed)[1:] == facts(whole)[1:]
    assert [one.rule for one in completed.findings if one.rule.startswith("xen.")] == []
    assert decode(encode(completed), Platform) == completed
    assert completed.native is not None
    assert completed.native.fingerprint == whole.origin.fingerprint
    assert completed.origin.fingerprint == fingerprint(seen_by(kind, native)), (
        "a plan for dom0 applies without --native"
    )


def test_each_borrowed_fact_is_named() -> None:
    native = machine()
    pvh = NativeView(seen_by("PVH", native), native).origin()
    named = {one.fact: one.reason for one in pvh.borrowed}
    assert {fact for fact in named if fact.startswith("table:")} == {
        "table:APIC", "table:DMAR", "table:HPET", "table:SRAT", "table:WAET",
    }  # fmt: skip
    assert "built" in named["table:APIC"]
    assert named["iommu"] == "computed from table:DMAR"
    assert {"groups", "processors", "memory", "legacy", "pci:numa_node", "file:sys/devices/system/node"} <= named.keys()
    pv = NativeView(seen_by("PV", native), native).origin()
    named = {one.fact: one.reason for one in pv.borrowed}
    assert {fact for fact in named if fact.startswith("table:")} == {"table:DMAR"}
    assert "RMAD" in named["table:DMAR"]
    assert "legacy" not in named, "a PV dom0 sees the machine's MADT"


def test_what_dom0_sees_itself_is_not_borrowed() -> None:
    native = machine()
    dom0 = seen_by("PV", native)
    view = NativeView(dom0, native)
    assert view.file("proc/interrupts") == dom0.file("proc/interrupts")
    assert view.file("sys/hypervisor/type") == b"xen\n"
    assert view.file("sys/devices/system/node/online") == native.file("sys/devices/system/node/online") != b"0\n"
    assert view.names("sys/devices/system/node") == native.names("sys/devices/system/node")
    assert (view.name, view.kind, view.is_live) == (dom0.name, dom0.kind, False)


def test_tables_that_aml_loads_are_dom0s_own() -> None:
    native = machine()
    dom0 = seen_by("PVH", native)
    loaded = RawTable("SSDT9", b"SSDT" + table(native, "DSDT")[4:], dynamic=True)
    files = {"sys/hypervisor/type": b"xen"}
    tables = [loaded, *dom0.tables()]
    with_loaded = MemorySource("dom0", dom0.kind, tables=tables, functions=dom0.functions(), files=files)
    assert [one for one in NativeView(with_loaded, native).tables() if one.dynamic] == [loaded]


def changed(source: Source, name: str, data: bytes) -> MemorySource:
    tables = [RawTable(name, data) if table.name == name else table for table in source.tables()]
    files = {"sys/hypervisor/type": source.file("sys/hypervisor/type") or b""}
    return MemorySource("changed", source.kind, tables=tables, functions=source.functions(), files=files)


def with_table(source: Source, name: str, data: bytes) -> MemorySource:
    tables = [*source.tables(), RawTable(name, b"SSDT" + data[4:])]
    return MemorySource("one more", source.kind, tables=tables, functions=source.functions())


def table(source: Source, name: str) -> bytes:
    return next(each.data for each in source.tables() if each.name == name)


def test_another_machine_is_refused() -> None:
    native = machine()
    dom0 = seen_by("PVH", native)
    for other, words in (
        (machine(X2APIC), "other IOAPICs"),
        (changed(native, "DSDT", table(native, "DSDT")[:-1] + b"x"), "of another machine"),
        (changed(native, "APIC", rebuilt(table(native, "APIC"), ioapic_address=0xFEC10000)), "other IOAPICs"),
        (with_table(native, "SSDT", table(native, "DSDT")), "of another machine"),
        (seen_by("PV", native), "under Xen, too"),
    ):
        with pytest.raises(NotNative, match=words):
            NativeView(dom0, other)
    with pytest.raises(NotNative, match="does not run under Xen"):
        NativeView(native, native)
    renamed = seen_by("PV", native)
    with pytest.raises(NotNative, match=r"the RMAD of .* is not the DMAR"):
        NativeView(renamed, changed(native, "DMAR", table(native, "DMAR")[:-1] + b"x"))


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(seen_by("PVH", machine()), str(tmp_path / "dom0.d0k"))
    status = main(["enumerate", "--from", str(tmp_path / "dom0.d0k"), "--no-aml"])
    text = capsys.readouterr().out
    assert status == FOUND
    assert "xen 4.17, PVH dom0" in text
    assert "xen.tables-rebuilt" in text
    assert "native view" not in text
    words = ["enumerate", "--from", str(tmp_path / "dom0.d0k"), "--native", str(Q35), "--no-aml"]
    assert main(words) in (FINE, FOUND)
    text = capsys.readouterr().out
    assert "xen.tables-rebuilt" not in text
    assert f"from {Q35}; all else is what dom0 sees" in text
    assert "Xen does not show it to dom0" in text
    main([*words, "--format", "json"])
    told = json.loads(capsys.readouterr().out)
    native = decode(json.dumps(told["native"]).encode(), Native)
    assert any(one.fact == "table:SRAT" for one in native.borrowed)
    assert main([*words[:3], "--native", str(X2APIC)]) == UNUSABLE
    assert "--native: " in capsys.readouterr().err
    assert main(["enumerate", "--from", str(Q35), "--native", str(Q35)]) == UNUSABLE
    assert "does not run under Xen" in capsys.readouterr().err
    assert main(["record", "-o", str(tmp_path / "x"), "--native", str(Q35)]) == 2
