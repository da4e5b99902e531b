# SPDX-License-Identifier: MIT
"""A tree of the kernel's files gives tables, functions and files; what is asleep or outside is left alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dom0kit.address import Sbdf
from dom0kit.source import contents
from dom0kit.source.interface import RawFunction
from dom0kit.source.recognise import open_source
from dom0kit.source.tree import FileTree, TreeSource, attributes_of, attributes_text
from tests.source import machine


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return machine.build(tmp_path / "machine")


def by_address(source: TreeSource) -> dict[str, RawFunction]:
    return {str(function.sbdf): function for function in source.functions()}


def test_tables_come_in_the_order_of_their_numbers_and_dynamic_ones_last(root: Path) -> None:
    tables = machine.source(root).tables()
    assert [table.name for table in tables] == [
        *("APIC", "DSDT", "FACP", "MCFG", "MSDM", "NFIT", "SSDT1", "SSDT2", "SSDT10", "iBFT"),
        "SSDT11",
    ]
    assert [table.name for table in tables if table.dynamic] == ["SSDT11"]
    assert tables[1].data == machine.TABLES["DSDT"]


def test_functions_come_ascending_with_config_and_attributes(root: Path) -> None:
    functions = list(machine.source(root).functions())
    assert [str(function.sbdf) for function in functions] == sorted(
        machine.FUNCTIONS, key=lambda text: Sbdf.parse(text)
    )
    assert all(function.config == machine.FUNCTIONS[str(function.sbdf)][1] for function in functions)
    nic = by_address(machine.source(root))["0000:01:00.0"].attributes
    assert nic["irq"] == "24"
    assert nic["driver"] == "igb"
    assert nic["iommu_group"] == "7"
    assert nic["firmware_node"] == r"\_SB_.PCI0.RP01.NIC_"
    assert nic["parent"] == "0000:00:1c.0"
    assert nic["msi_irqs"] == "9 msix\n24 msix"
    assert nic["runtime_status"] == "active"
    assert nic["resource"].splitlines()[0] == "0x00000000fe000000 0x00000000fe01ffff 0x0000000000040200"
    assert not any("hunter2" in value for value in nic.values())
    assert "parent" not in by_address(machine.source(root))["0000:00:1c.0"].attributes


def test_only_files_of_the_picture_are_there(root: Path) -> None:
    source = machine.source(root)
    assert source.file("sys/kernel/irq/24/hwirq") == b"16384\n"
    assert source.file("sys/kernel/irq/24/secret") is None
    assert source.file("etc/shadow") is None
    assert source.file("sys/firmware/acpi/tables/data/BERT") is None
    assert source.file("sys/kernel/irq/24/absent") is None
    assert source.file("../machine/proc/iomem") is None
    assert source.names("sys/kernel/irq") == ["24"]
    assert source.names("sys/kernel/irq/24") == ["actions", "chip_name", "hwirq"]
    assert source.names("etc") == []
    assert not any(b"hunter2" in data for path, data in contents.files_of(source) if path != "proc/cmdline")


def test_long_files_are_cut_down_to_what_is_needed(root: Path) -> None:
    source = machine.source(root)
    assert source.file("proc/cpuinfo") == (
        b"processor\t: 0\nvendor_id\t: GenuineIntel\napicid\t\t: 0\n\nprocessor\t: 1\n"
    )
    assert source.file("sys/devices/system/node/node0/meminfo") == b"Node 0 MemTotal: 5 kB\n"
    assert source.file("dmesg") is not None
    assert b"igb" not in (source.file("dmesg") or b"")
    assert source.file(contents.MEMORY_BLOCKS) == b"0-1 online\n2-2 offline\n10-10 offline\n"


def test_what_is_asleep_is_not_read(root: Path) -> None:
    devices = root / "sys/bus/pci/devices"
    (devices / "0000:02:00.0/power_state").write_text("D3cold\n")
    (devices / "0000:00:1c.0/power/runtime_status").write_text("suspended\n")
    (devices / "10000:e1:00.0/power_state").write_text("unknown\n")
    (devices / "10000:e1:00.0/power/runtime_status").write_text("suspended\n")
    source = machine.source(root, spare=True)
    functions = by_address(source)
    asleep = {"0000:01:00.0", "0000:02:00.0", "10000:e1:00.0"}
    # The suspended bridge itself is in D0, and above it is nothing that reading would wake.
    assert {address for address, function in functions.items() if not function.config} == asleep
    assert {finding.where for finding in source.findings} == {f"pci:{address}" for address in asleep}
    assert {finding.rule for finding in source.findings} == {"source.asleep"}
    assert functions["0000:01:00.0"].attributes["vendor"] == "0x8086"
    assert "current_link_speed" not in functions["0000:01:00.0"].attributes
    assert "current_link_speed" in functions["0000:00:1d.0"].attributes
    list(source.functions())
    assert len(source.findings) == 3, "reading twice reports once"
    assert all(function.config for function in machine.source(root, spare=False).functions())


def test_the_config_of_what_is_asleep_is_not_even_opened(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "sys/bus/pci/devices/0000:02:00.0/power_state").write_text("D3cold\n")
    opened: list[str] = []
    real = os.open

    def watched(path: str, *rest: int) -> int:
        opened.append(path)
        return real(path, *rest)

    monkeypatch.setattr(os, "open", watched)
    list(machine.source(root, spare=True).functions())
    touched = [path for path in opened if path.rpartition("/")[2] in ("config", "current_link_speed")]
    assert len(touched) == 2 * (len(machine.FUNCTIONS) - 1)
    assert not [path for path in touched if "0000:02:00.0" in path]
    assert not [path for path in opened if path.rpartition("/")[2] in ("vpd", "rom", "label", "resource0")]


def test_nothing_outside_the_tree_is_read(root: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("secret")
    (tmp_path / "outside.d").mkdir()
    (tmp_path / "outside.d/config").write_text("secret")
    devices = root / "sys/bus/pci/devices"
    (devices / "0000:05:00.0").symlink_to(tmp_path / "outside.d")
    config = root / "sys/devices/pci0000:00/0000:00:00.0/config"
    config.unlink()
    config.symlink_to(tmp_path / "outside")
    (root / "proc/iomem").unlink()
    (root / "proc/iomem").symlink_to("/etc/passwd")
    functions = by_address(machine.source(root))
    assert functions["0000:00:00.0"].config == b""
    assert functions["0000:05:00.0"].config == b""
    assert machine.source(root).file("proc/iomem") is None


def test_loops_pipes_and_folders_in_place_of_files_are_passed_over(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = root / "sys/firmware/acpi/tables"
    (tables / "LOOP").symlink_to("LOOP")
    os.mkfifo(tables / "PIPE")
    (tables / "FOLD").mkdir()
    (root / "sys/bus/pci/devices/0000:06:00.0").symlink_to("0000:06:00.0")
    (root / "proc/iomem").unlink()
    os.mkfifo(root / "proc/iomem")
    opened: list[str] = []
    real = os.open

    def watched(path: str, *rest: int) -> int:
        opened.append(path)
        return real(path, *rest)

    monkeypatch.setattr(os, "open", watched)
    source = machine.source(root)
    assert not {"LOOP", "PIPE", "FOLD"} & {table.name for table in source.tables()}
    assert by_address(source)["0000:06:00.0"].config == b""
    assert source.file("proc/iomem") is None
    assert {finding.rule for finding in source.findings} == {"source.unreadable-file"}
    assert opened
    assert not [path for path in opened if path.endswith(("PIPE", "iomem"))], "opening a device can have effects"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up rights")
def test_what_root_would_add_is_told_once(root: Path) -> None:
    for name in ("APIC", "DSDT"):
        (root / "sys/firmware/acpi/tables" / name).chmod(0o400)
    for folder in (root, *root.parents):
        if not folder.stat().st_mode & 0o001:
            folder.chmod(0o711)
    child = os.fork()
    if child == 0:  # as nobody
        status = 1
        try:
            os.setgid(65534)
            os.setuid(65534)
            source = machine.source(root)
            names = [table.name for table in source.tables()]
            told = [finding.message for finding in source.findings if finding.rule == "source.needs-root"]
            status = 0 if len(told) == 1 and "2 ACPI tables" in told[0] and "FACP" in names else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_sixty_four_bytes_of_a_longer_config_space_need_root(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = FileTree.read

    def as_user(self: FileTree, path: str, limit: int = 1 << 24) -> bytes | None:
        return real(self, path, 64 if path.endswith("/config") else limit)

    monkeypatch.setattr(FileTree, "read", as_user)
    source = machine.source(root, spare=True)
    assert {len(function.config) for function in source.functions()} == {64}
    assert [finding.rule for finding in source.findings] == ["source.needs-root"]
    assert "config space beyond byte 64" in source.findings[0].message


def test_a_copy_may_be_the_sys_folder_or_one_folder_a_function(root: Path) -> None:
    whole = machine.everything(open_source(root))
    sys_only = open_source(root / "sys")
    assert machine.everything(sys_only)[:2] == whole[:2]
    assert sys_only.file("sys/kernel/irq/24/hwirq") == b"16384\n"
    assert sys_only.file("proc/iomem") is None
    devices = root / "devices"
    devices.mkdir()
    for address in machine.FUNCTIONS:
        (devices / address).mkdir()
        (devices / address / "config").write_bytes(machine.FUNCTIONS[address][1])
        (devices / address / "uevent").write_text("DRIVER=nvme\nPCI_ID=1\n")
    functions = list(open_source(devices).functions())
    assert {str(function.sbdf) for function in functions} == set(machine.FUNCTIONS)
    assert all(function.attributes == {"driver": "nvme"} and len(function.config) >= 256 for function in functions)
    assert [table.name for table in open_source(root / "sys/firmware/acpi/tables").tables()] == [
        table.name for table in machine.source(root).tables()
    ]


def test_attributes_survive_their_text_form() -> None:
    attributes = {"resource": "a b\n\n c", "irq": "", "driver": "x: y", "virtfn3": "0000:01:00.1"}
    assert attributes_of(attributes_text(attributes)) == attributes
    assert attributes_of(b"irq: 1\nhostile: x\n more\nclass: 2\nno colon\n\xff: 3\n") == {"irq": "1", "class": "2"}


def test_the_picture_knows_its_files() -> None:
    assert contents.is_file("proc/interrupts")
    assert contents.is_file("sys/class/iommu/dmar0/intel-iommu/ecap")
    assert contents.is_file("sys/kernel/irq/12/type")
    assert not contents.is_file("sys/kernel/irq/x/type")
    assert not contents.is_file("sys/kernel/irq")
    assert not contents.is_file("sys/kernel/irq/#/type")
    assert not contents.is_file("")
    assert not contents.is_file("proc/interrupts/")
    assert not contents.is_file("sys/bus/pci/slots/../address")
