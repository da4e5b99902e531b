# SPDX-License-Identifier: MIT
"""This machine, if it shows one; and what is said where it does not."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from dom0kit.source import live as module
from dom0kit.source.dumps import read_acpidump, read_lspci
from dom0kit.source.errors import UnreadableSource
from dom0kit.source.fingerprint import fingerprint
from dom0kit.source.interface import SourceKind
from dom0kit.source.live import live
from dom0kit.source.recognise import open_source
from dom0kit.source.recording import read_recording, recording_bytes
from dom0kit.source.redaction import redacted
from dom0kit.source.tree import FileTree, TreeSource, is_sysfs
from tests.source import machine


def this_machine() -> TreeSource:
    try:
        return live()
    except UnreadableSource as error:
        pytest.skip(str(error))


def test_this_machine_is_read_and_left_as_it_was() -> None:
    source = this_machine()
    assert source.is_live
    assert source.kind is SourceKind.LIVE
    devices = Path("/sys/bus/pci/devices")
    if devices.is_dir():
        states = {path.name: _state(path) for path in devices.iterdir()}
        functions = list(source.functions())
        assert [str(function.sbdf) for function in functions] == sorted(states)
        for function in functions:
            asleep = any(f.where == f"pci:{function.sbdf}" and f.rule == "source.asleep" for f in source.findings)
            assert bool(function.config) != asleep
            assert function.attributes["vendor"] == (devices / str(function.sbdf) / "vendor").read_text().strip()
        assert {path.name: _state(path) for path in devices.iterdir()} == states
    if os.geteuid() == 0:
        folder = Path("/sys/firmware/acpi/tables")
        names = {path.name for path in folder.iterdir() if path.is_file()} if folder.is_dir() else set()
        assert {table.name for table in source.tables() if not table.dynamic} == names
        assert all((folder / table.name).read_bytes() == table.data for table in source.tables() if not table.dynamic)
    assert b"processor" in (source.file("proc/cpuinfo") or b"")


def _state(path: Path) -> str:
    state = path / "power/runtime_status"
    return state.read_text() if state.exists() else ""


def test_this_machine_and_its_recording_have_the_same_fingerprint() -> None:
    source = this_machine()
    data, manifest = recording_bytes(source)
    replayed = read_recording("x", iter([data]))
    assert fingerprint(source) == fingerprint(replayed) == manifest.fingerprint
    assert [table.name for table in replayed.tables()] == [table.name for table in source.tables()]
    assert list(replayed.functions()) == list(redacted(source)[0].functions())
    assert not replayed.is_live
    uuid = (source.file("sys/class/dmi/id/product_uuid") or b"").strip()
    assert not uuid or uuid not in gzip.decompress(data)


def test_the_root_folder_and_sys_are_this_machine() -> None:
    this_machine()
    for path in ("/", "/sys", "/sys/"):
        assert open_source(path).is_live
    assert is_sysfs("/sys")


def test_a_folder_is_not_sysfs(tmp_path: Path) -> None:
    assert not is_sysfs(str(tmp_path))
    assert not is_sysfs(str(tmp_path / "absent"))


def test_a_container_without_a_machine_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FileTree", lambda root, trusted: FileTree(str(tmp_path), trusted=trusted))
    with pytest.raises(UnreadableSource, match=r"neither ACPI tables .* nor a PCI bus"):
        live()


def test_a_made_up_machine_in_the_place_of_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = machine.build(tmp_path / "m")
    (root / "dom0kit.json").write_text("{}")
    (root / "dmesg").unlink()
    (root / "sys/bus/pci/devices/0000:02:00.0/power_state").write_text("D3cold\n")
    (root / "proc/iomem").write_text("00000000-00000000 : Reserved\n  00000000-00000000 : IOAPIC 0\n")
    monkeypatch.setattr(module, "FileTree", lambda path, trusted: FileTree(str(root), trusted=trusted))
    monkeypatch.setattr(module, "kernel_log", lambda: b"IOAPIC[0]: x\nother\n")
    source = live()
    assert [str(function.sbdf) for function in source.functions() if not function.config] == ["0000:02:00.0"]
    assert all(function.config for function in live(wake=True).functions())
    assert source.file("dmesg") == b"IOAPIC[0]: x\n"
    assert source.file("proc/iomem") is None, "addresses that the kernel hides are not addresses"
    assert sorted(finding.rule for finding in source.findings) == ["source.asleep", "source.needs-root"]
    # A file that calls itself a manifest does not make this machine a recording.
    data, _ = recording_bytes(source)
    assert [secret for secret in machine.SECRETS if secret in gzip.decompress(data)] == []

    def refuse() -> bytes:
        raise PermissionError

    monkeypatch.setattr(module, "kernel_log", refuse)
    source = live()
    assert source.file("dmesg") is None
    assert ["dev/kmsg" in finding.message for finding in source.findings] == [True]


@pytest.mark.skipif(not os.access("/dev/kmsg", os.R_OK), reason="the kernel's log cannot be read here")
def test_the_kernels_log_is_lines() -> None:
    try:
        log = module.kernel_log()
    except PermissionError:
        pytest.skip("the kernel's log cannot be read here")
    assert log.endswith(b"\n") or not log
    assert all(0x20 <= byte < 0x7F or byte == 0x0A for byte in log)


@pytest.mark.skipif(shutil.which("lspci") is None, reason="lspci is not installed")
def test_lspci_says_the_same_of_this_machine() -> None:
    source = this_machine()
    text = subprocess.run(["lspci", "-Dxxxx"], capture_output=True, check=True, timeout=60).stdout
    asleep = {finding.where for finding in source.findings if finding.rule == "source.asleep"}
    ours = {function.sbdf: len(function.config) for function in source.functions() if function.config}
    if not ours:
        pytest.skip("this machine shows no PCI function")
    theirs = {function.sbdf: len(function.config) for function in read_lspci("lspci", iter([text])).functions()}
    assert ours == {sbdf: size for sbdf, size in theirs.items() if f"pci:{sbdf}" not in asleep}
    identities = {function.sbdf: function.config[:4] for function in source.functions() if function.config}
    for function in read_lspci("lspci", iter([text])).functions():
        if function.sbdf in identities:
            assert function.config[:4] == identities[function.sbdf]


@pytest.mark.skipif(shutil.which("acpidump") is None or os.geteuid() != 0, reason="acpidump, run as root, is needed")
def test_acpidump_says_the_same_of_this_machine() -> None:
    source = this_machine()
    if not source.tables():
        pytest.skip("this machine shows no ACPI tables")
    text = subprocess.run(["acpidump"], capture_output=True, check=True, timeout=60).stdout
    theirs = [table.data for table in read_acpidump("acpidump", text).tables()]
    assert all(table.data in theirs for table in source.tables() if not table.dynamic)
