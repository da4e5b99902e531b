# SPDX-License-Identifier: MIT
"""Secrets are replaced, always by the same, under the machine's own key; nothing else changes."""

from __future__ import annotations

import re
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0kit.address import Sbdf
from dom0kit.source.in_memory import MemorySource
from dom0kit.source.interface import RawFunction, RawTable, SourceKind
from dom0kit.source.redaction import Redaction, capabilities, extended_capabilities
from tests.source import machine


def redaction(uuid: str = machine.UUID) -> Redaction:
    files = {"sys/class/dmi/id/product_uuid": uuid.encode() + b"\n"} if uuid else {}
    return Redaction(MemorySource("x", SourceKind.SYSFS_TREE, files=files))


@pytest.fixture(scope="module")
def keyed() -> Redaction:
    return redaction()


@pytest.fixture(scope="module")
def public() -> Redaction:
    return redaction("")


def serial_of(redaction: Redaction, serial: bytes) -> bytes:
    return redaction.function(RawFunction(Sbdf(0, 1, 0, 0), machine.config(serial=serial))).config[0x144:0x14C]


def test_a_serial_number_is_replaced_by_one_that_only_this_machine_can_make(keyed: Redaction) -> None:
    replaced = serial_of(keyed, machine.DSN)
    assert replaced != machine.DSN
    assert replaced == serial_of(redaction(), machine.DSN), "the same machine recognises it"
    assert replaced == serial_of(redaction(machine.UUID.upper()), machine.DSN), "however the kernel writes the UUID"
    assert replaced != serial_of(redaction(machine.DISK), machine.DSN), "another machine does not"
    assert replaced != serial_of(keyed, machine.DSN[::-1])
    assert serial_of(keyed, bytes(8)) == bytes(8)
    assert serial_of(keyed, b"\xff" * 8) == b"\xff" * 8


def test_under_the_public_key_a_serial_number_cannot_be_searched_for(public: Redaction) -> None:
    assert not public.keyed
    assert not redaction("00000000-0000-0000-0000-000000000000").keyed
    assert not redaction("ffffffff-ffff-ffff-ffff-ffffffffffff").keyed
    replaced = {serial_of(public, struct.pack("<Q", number + 1)) for number in range(300)}
    assert len(replaced) > 290, "two serial numbers can be told apart"
    # 16 bits go in: of 200,000 serial numbers many must look alike.
    assert len({public._bytes("serial", struct.pack("<I", n)) for n in range(200_000)}) <= 65536


def test_a_table_keeps_its_length_and_its_checksum(keyed: Redaction) -> None:
    for name in ("DSDT", "MSDM", "NFIT", "iBFT"):
        before = machine.TABLES[name]
        after = keyed.table(RawTable(name, before)).data
        assert after != before
        assert len(after) == len(before)
        assert sum(after) & 0xFF == sum(before) & 0xFF == 0
        wrong = before[:9] + bytes(((before[9] + 7) & 0xFF,)) + before[10:]
        assert sum(keyed.table(RawTable(name, wrong)).data) & 0xFF == 7, "a wrong checksum stays as wrong"
    for name in ("APIC", "FACP", "SSDT1"):
        table = RawTable(name, machine.TABLES[name])
        assert keyed.table(table) is table
    nfit = keyed.table(RawTable("NFIT", machine.TABLES["NFIT"])).data
    assert [at for at in range(40, len(nfit)) if nfit[at] != machine.TABLES["NFIT"][at]] == [120, 121, 122, 123]
    assert re.fullmatch(
        rb"(?s).{36}\x10\x20 _AUXMAC_#[0-9A-F]{12}# 5K9QN12-XYZ",
        keyed.table(RawTable("DSDT", machine.TABLES["DSDT"])).data,
    )


def test_the_command_line_keeps_what_says_how_the_machine_runs(keyed: Redaction) -> None:
    kept = (
        "ro quiet pci=nommconf,realloc pcie_aspm=off acpi=off acpi_rev_override=5 "
        'acpi_osi=! acpi_osi="Windows 2015" acpi_osi=!"Windows 2012" '
        "apic=verbose noapic intel_iommu=on,sm_on iommu=pt iommu.strict=0 amd_iommu=off isolcpus=2-5 maxcpus=4 "
        "memmap=64M$0x10000000 console=ttyS0,115200n8 crashkernel=512M-:192M vfio-pci.ids=10de:1b80 "
        "xen-pciback.hide=(0000:01:00.0) vfio-pci.disable-idle-d3=1"
    )
    assert keyed.file("proc/cmdline", kept.encode() + b"\n").decode() == kept + "\n"
    for secret in (
        b'BOOT_IMAGE=/x root=/dev/sda1 ds="nocloud;h=me" word pci="unclosed --a=b -- pci=off',
        b"some.module_flag=1 other=off",
        b"a\xffb=\xff",
        b"redacted",
        b"ip=10.0.0.1::10.0.0.254:255.255.255.0:host root=UUID=1 rootflags=x resume=/dev/sda2 init=/bin/sh netroot=h",
        b"rd.luks.uuid=luks-1 cryptdevice=/dev/sda:x systemd.hostname=h user=me locale.LANG=de nfsroot=h:/ ds=nocloud",
        b"xpci=off pcix=off aroot quietly",
        b'acpi_osi="a;b" pci="a/b"',
        b"pci=~x iommu=a?b apic=a\\b",
        b"pci=" + b"a" * 257,
        b'acpi_osi="' + b"a" * 65 + b'"',
    ):
        assert keyed.file("proc/cmdline", secret + b"\n") == b"redacted\n"
    assert keyed.file("proc/cmdline", b"ro -- quiet pci=off 1\n") == b"ro redacted\n", "what follows is for init"
    assert keyed.file("proc/cmdline", b"\n") == b"\n"
    longest = b"pci=" + b"a" * 256 + b' acpi_osi="' + b"a" * 64 + b'"\n'
    assert keyed.file("proc/cmdline", longest) == longest


def test_the_machines_own_serial_numbers_stand_in_no_free_text() -> None:
    files = {"sys/class/dmi/id/product_uuid": machine.UUID.encode(), "sys/class/dmi/id/board_serial": b"S3CRE7-42\n"}
    redaction = Redaction(MemorySource("x", SourceKind.SYSFS_TREE, files=files))
    for path, text in (
        ("proc/cmdline", b"memmap=S3CRE7-42\n"),
        ("proc/version", b"Linux version 6.1.0-56 S3CRE7-42\n"),
        ("dmesg", b"IOAPIC S3CRE7-42\n"),
        ("sys/class/dmi/id/product_name", b"Model S3CRE7-42\n"),
    ):
        after = redaction.file(path, text)
        assert b"S3CRE7-42" not in after
        assert after.partition(b" ")[0][:6] == text.partition(b" ")[0][:6]
    assert redaction.file("proc/iomem", b"S3CRE7-42\n") == b"S3CRE7-42\n"


def test_of_the_kernel_its_version_stays(keyed: Redaction) -> None:
    text = b"Linux version 6.1.0-56-amd64 (joe@host) (gcc-12 (Debian 12) 12.2.0) #1 SMP Debian 6.1.192-2\n"
    assert keyed.file("proc/version", text) == b"Linux version 6.1.0-56 redacted\n"
    assert keyed.file("proc/version", b"Linux version 6.1.0-56 redacted\n") == b"Linux version 6.1.0-56 redacted\n"


def test_addresses_that_are_no_secrets_stay(keyed: Redaction) -> None:
    text = b"0000:00:1f.0 00-11,22-33 fee00000-fee00fff enp3s0 eno1 00:11:22:33 1234-5678 01:02:03:04:05:06:07:08\n"
    assert keyed.file("proc/iomem", text) == text
    for path in ("proc/interrupts", "sys/kernel/irq/1/actions", "dmesg"):
        for secret in (machine.MAC, machine.MAC.upper().replace(":", "-"), machine.DISK, f"wlx{machine.MAC_DIGITS}"):
            after = keyed.file(path, f"a {secret} b\n".encode()).decode()
            assert secret[3:] not in after
            assert len(after) == len(f"a {secret} b\n")
            assert after.startswith("a ")
            assert after.endswith(" b\n")


@given(st.binary(max_size=300))
def test_no_config_space_is_too_odd(public: Redaction, junk: bytes) -> None:
    for data in (junk, machine.config()[: len(junk)] + junk, machine.config()[:0x100] + junk):
        after = public.function(RawFunction(Sbdf(0, 0, 0, 0), data)).config
        assert len(after) == len(data)
        assert len(set(extended_capabilities(data, 3))) == len(extended_capabilities(data, 3))
        capabilities(data, 3)


@given(st.binary(max_size=300), st.sampled_from([b"NFIT", b"MSDM", b"iBFT", b"SSDT", b""]))
def test_no_table_is_too_odd(public: Redaction, junk: bytes, signature: bytes) -> None:
    data = signature + junk
    after = public.table(RawTable("X", data)).data
    assert len(after) == len(data)
    if len(data) > 9:
        assert sum(after) & 0xFF == sum(data) & 0xFF


def test_capability_loops_end() -> None:
    config = bytearray(machine.config(serial=machine.DSN))
    config[0x81] = 0x40
    struct.pack_into("<I", config, 0x140, 0x0003 | 1 << 16 | 0x100 << 20)
    assert capabilities(config, 0x03) == [0x80]
    assert extended_capabilities(config, 0x0003) == [0x140]
