# SPDX-License-Identifier: MIT
"""Verbs that ask the hypervisor, in dom0 of real Xen without our kernel module."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dom0kit.cli import FINE, FOUND, UNUSABLE, arguments, main
from dom0kit.hypercall.xen import Privcmd
from dom0kit.source.recognise import open_source
from tests.hypercall.fake_xen import FakeXen
from tests.xen_views import seen_by

Q35 = Path(__file__).parents[2] / "dom0kit" / "recordings" / "qemu-q35.d0k"


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeXen:
    """A machine under Xen, and this is its dom0: what Privcmd opens unless told otherwise, and what is live."""
    fake = FakeXen()
    device, buffers = tmp_path / "privcmd", tmp_path / "hypercall"
    device.touch()
    buffers.write_bytes(bytes(1 << 14))
    monkeypatch.setattr(Privcmd.__init__, "__defaults__", (str(device), str(buffers)))
    monkeypatch.setattr(Privcmd.__init__, "__kwdefaults__", {"ioctl": fake.ioctl})
    monkeypatch.setattr(arguments, "open_live", lambda *, wake: seen_by("PV", open_source(Q35)))
    monkeypatch.setattr("dom0kit.source.live.live", lambda: open_source(Q35))
    return fake


def test_entries_come_from_xen(fake: FakeXen, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ioapic", "dump", "--format", "json"]) == FINE
    (found,) = json.loads(capsys.readouterr().out)
    assert [each["raw"] for each in found["entries"]] == fake.entries
    assert (found["ioapic"]["pins"], found["ioapic"]["version"]) == (24, 0x20)
    assert main(["ioapic", "dump"]) == FINE
    assert "backend xen" in capsys.readouterr().out
    assert main(["ioapic", "dump", "--hardware"]) == UNUSABLE, "registers themselves only the module reads"


def test_a_vector_comes_from_xen(fake: FakeXen, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["irq", "vector", "9"]) == FINE
    assert f"IRQ 9: vector {fake.entries[9] & 0xFF:#04x} on destination 0x1, level" in capsys.readouterr().out
    assert main(["irq", "vector", "20"]) == FOUND


def test_the_routing_table_has_xens_vectors(fake: FakeXen, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["irq", "--format", "json"]) in (FINE, FOUND)
    table = json.loads(capsys.readouterr().out)
    lines = table["lines"] if "lines" in table else table["table"]["lines"]
    shown = {line["gsi"]: line["target"]["vector"] for line in lines if line.get("target")}
    assert shown[9] == fake.entries[9] & 0xFF
    assert shown == {gsi: fake.entries[gsi] & 0xFF for gsi in shown}


def test_what_xen_does_is_shown(fake: FakeXen, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hv", "xen"]) == FOUND
    said = capsys.readouterr().out
    assert "Xen 4.17, seen from its PV dom0" in said
    assert "xen.function-unknown" in said, "it knows two of the machine's functions"
    assert "pci_device_reset    no: Xen has it from 4.20 on, this is 4.17" in said
    assert main(["hv", "xen", "--format", "json"]) == FOUND
    told = json.loads(capsys.readouterr().out)
    assert sum(each["known"] for each in told["told"]["functions"]) == 2
    fake.interface = 0x99
    assert main(["hv", "xen"]) == UNUSABLE
    assert "does not tell" in capsys.readouterr().err


def test_pvh_is_told_why_not(fake: FakeXen, capsys: pytest.CaptureFixture[str]) -> None:
    fake.pvh = True
    assert main(["ioapic", "dump"]) == UNUSABLE
    assert "virtual IOAPIC" in capsys.readouterr().err


def test_without_xen_the_module_is_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ioapic", "dump"]) == UNUSABLE
    assert "modprobe dom0kit" in capsys.readouterr().err
