# SPDX-License-Identifier: MIT
"""ACPI static tables: bytes to facts and back, what is wrong with them, and what is imported when."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dom0kit.acpi.tables import Header, Other, Table, build_table, cross_findings, decode_table, everything
from dom0kit.acpi.tables import table as module
from dom0kit.acpi.tables.cedt import Cedt, Cfmws
from dom0kit.acpi.tables.common import AddressSpace
from dom0kit.acpi.tables.definition_block import DefinitionBlock
from dom0kit.acpi.tables.dmar import Andd, DeviceScope, Dmar, Drhd, PathHop, Rmrr, ScopeType
from dom0kit.acpi.tables.facs import Facs
from dom0kit.acpi.tables.fadt import Fadt, PowerProfile
from dom0kit.acpi.tables.ivrs import (
    AcpiDeviceEntry,
    AliasSelectEntry,
    Ivhd,
    Ivhd10,
    Ivhd11,
    Ivhd40,
    Ivmd,
    IvmdRange,
    Ivrs,
    RangeEndEntry,
    RangeStartEntry,
    SpecialDeviceEntry,
)
from dom0kit.acpi.tables.madt import (
    InterruptSourceOverride,
    Ioapic,
    LocalApic,
    LocalApicAddressOverride,
    LocalApicNmi,
    LocalX2apic,
    Madt,
    NmiSource,
    Rintc,
)
from dom0kit.acpi.tables.mcfg import Allocation, Mcfg
from dom0kit.acpi.tables.rsdp import Rsdp
from dom0kit.acpi.tables.slit import Slit
from dom0kit.acpi.tables.spcr import Spcr
from dom0kit.acpi.tables.srat import GenericInitiatorAffinity, LocalApicAffinity, MemoryAffinity, Srat
from dom0kit.acpi.tables.tpm2 import Tpm2, Tpm2Revision5
from dom0kit.address import Polarity, Sbdf, Trigger
from dom0kit.finding import RULES
from dom0kit.layout import Rest, Unbuildable, Unknown
from dom0kit.serial import UndecodableJson, decode, encode, schema
from dom0kit.source.interface import RawTable
from tests.acpi.table_strategies import record_bytes


def table_bytes(signature: bytes, body: bytes, *, revision: int = 1, length: int | None = None) -> bytes:
    """A table with a right checksum."""
    size = 36 + len(body) if length is None else length
    head = struct.pack("<4sIBB6s8sI4sI", signature, size, revision, 0, b"OEM\xe9\0\0", b"TABLE\0\0\0", 1, b"TEST", 1)
    data = bytearray(head + body)
    data[9] = -sum(data) & 0xFF
    return bytes(data)


def decoded(data: bytes, name: str = "TABLE") -> Table:
    """The table, with all that must hold for whatever bytes."""
    table = decode_table(RawTable(name, data))
    assert build_table(table) == data
    text = encode(table)
    again = decode(text, Table)
    assert again == table
    assert encode(again) == text
    assert all(finding.where == f"table:{name}" and finding.rule in RULES for finding in table.findings)
    return table


def rules(table: Table) -> set[str]:
    return {finding.rule for finding in table.findings}


MADT_HEAD = struct.pack("<II", 0xFEE00000, 1)
MCFG_HEAD = bytes(8)
DMAR_HEAD = struct.pack("<BB10x", 47, 0b11)
SCOPE = bytes([1, 8, 0, 0, 0, 0x80, 0x1F, 7])


def drhd(*scopes: bytes, flags: int = 0, segment: int = 0, base: int = 0xFED90000) -> bytes:
    body = struct.pack("<BBHQ", flags, 0, segment, base) + b"".join(scopes)
    return struct.pack("<HH", 0, 4 + len(body)) + body


# --- what each kind gives ---------------------------------------------------------------------------------------------


def test_header_text_keeps_every_byte() -> None:
    table = decoded(table_bytes(b"XYZ9", b"\1\2"))
    assert table.header == Header(
        signature="XYZ9",
        length=38,
        revision=1,
        checksum=table_bytes(b"XYZ9", b"\1\2")[9],
        oem_id="OEM\xe9",
        oem_table_id="TABLE",
        oem_revision=1,
        creator_id="TEST",
        creator_revision=1,
    )
    assert table.content == Other(body="0102")
    assert table.checksum_ok is True
    assert table.findings == ()
    assert table.signature == "XYZ9"


def test_madt() -> None:
    entries = b"".join(
        [
            struct.pack("<BBBBI", 0, 8, 1, 2, 0b01),
            struct.pack("<BBBBI", 0, 8, 3, 4, 0b10),
            struct.pack("<BBBBII", 1, 12, 9, 0, 0xFEC00000, 24),
            struct.pack("<BBBBIH", 2, 10, 0, 9, 9, 0x000D),
            struct.pack("<BBHI", 3, 8, 0x0007, 30),
            struct.pack("<BBBHB", 4, 6, 0xFF, 0x0005, 1),
            struct.pack("<BBHQ", 5, 12, 0, 0xFEE00000),
            struct.pack("<BBHIII", 9, 16, 0, 0x12345, 1, 700),
            struct.pack("<BBHIB3x", 10, 12, 0, 0xFFFFFFFF, 1),
            struct.pack("<BBBBIQI", 0x18, 20, 1, 0, 1, 5, 6),
            struct.pack("<BBH", 0x80, 4, 0xBEEF),
        ]
    )
    table = decoded(table_bytes(b"APIC", MADT_HEAD + entries, revision=5))
    assert rules(table) == {"structure.unknown-type"}
    madt = table.content
    assert isinstance(madt, Madt)
    assert madt.flags.pcat_compat
    one, two, ioapic, override, nmi, lint, address, x2apic, x2lint, hart, oem = madt.entries
    assert isinstance(one, LocalApic)
    assert (one.acpi_processor_uid, one.apic_id, one.flags.enabled, one.flags.online_capable) == (1, 2, True, False)
    assert isinstance(two, LocalApic)
    assert (two.flags.enabled, two.flags.online_capable) == (False, True)
    assert ioapic == Ioapic(ioapic_id=9, address=0xFEC00000, gsi_base=24)
    assert isinstance(override, InterruptSourceOverride)
    assert (override.bus, override.source, override.gsi) == (0, 9, 9)
    assert (override.polarity, override.trigger) == (Polarity.HIGH, Trigger.LEVEL)
    assert isinstance(nmi, NmiSource)
    assert (nmi.gsi, nmi.polarity, nmi.trigger) == (30, Polarity.LOW, Trigger.EDGE)
    assert isinstance(lint, LocalApicNmi)
    assert (lint.acpi_processor_uid, lint.lint) == (255, 1)
    assert address == LocalApicAddressOverride(address=0xFEE00000)
    assert isinstance(x2apic, LocalX2apic)
    assert (x2apic.x2apic_id, x2apic.acpi_processor_uid, x2apic.flags.enabled) == (0x12345, 700, True)
    assert x2lint.polarity is None  # type: ignore[union-attr]
    assert isinstance(hart, Rintc)
    assert (hart.hart_id, hart.imsic_base_address) == (5, None)
    assert oem == Unknown(type=0x80, body="efbe")


def test_mcfg() -> None:
    table = decoded(table_bytes(b"MCFG", MCFG_HEAD + struct.pack("<QHBBI", 0xE0000000, 3, 0x10, 0x7F, 0)))
    assert table.content == Mcfg(
        allocations=(Allocation(base_address=0xE0000000, segment=3, start_bus=0x10, end_bus=0x7F),)
    )
    assert not table.findings


def test_dmar_with_paths_of_several_hops() -> None:
    deep = bytes([2, 12, 0, 0, 0, 0, 0x1C, 0, 0x00, 1, 0x1F, 7])
    ioapic = bytes([3, 8, 0, 0, 2, 0xF0, 0x1F, 0])
    rmrr = struct.pack("<HHHHQQ", 1, 32, 0, 1, 0x1000, 0x2FFF) + SCOPE
    andd = struct.pack("<HH3xB", 4, 8 + 10, 1) + b"\\_SB.I2C0\0"
    body = DMAR_HEAD + drhd(deep, ioapic, segment=1) + drhd(flags=1) + rmrr + andd
    table = decoded(table_bytes(b"DMAR", body))
    assert not table.findings
    dmar = table.content
    assert isinstance(dmar, Dmar)
    assert (dmar.host_address_width, dmar.flags.interrupt_remapping, dmar.flags.x2apic_opt_out) == (47, True, True)
    first, everything_else, region, device = dmar.structures
    assert isinstance(first, Drhd)
    assert (first.segment, first.register_base, first.flags.include_pci_all) == (1, 0xFED90000, False)
    assert first.register_bytes == 4096
    hops = (PathHop(device=0x1C, function=0), PathHop(device=0, function=1), PathHop(device=0x1F, function=7))
    assert first.devices[0] == DeviceScope(type=ScopeType.PCI_SUB_HIERARCHY, enumeration_id=0, start_bus=0, path=hops)
    assert (first.devices[1].type, first.devices[1].enumeration_id, first.devices[1].start_bus) == (
        ScopeType.IOAPIC,
        2,
        0xF0,
    )
    assert isinstance(everything_else, Drhd)
    assert everything_else.flags.include_pci_all
    assert isinstance(region, Rmrr)
    assert (region.segment, region.base, region.limit) == (1, 0x1000, 0x2FFF)
    assert region.devices[0].path == (PathHop(device=0x1F, function=7),)
    assert device == Andd(acpi_device_number=1, object_name="\\_SB.I2C0")


def ivhd(kind: int, entries: bytes, *, efr: bytes = b"") -> bytes:
    body = struct.pack("<HHQHHI", 2, 0x40, 0xFEB80000, 0, 0x1300, 0) + efr + entries
    return struct.pack("<BBH", kind, 0x30, 4 + len(body)) + body


def test_ivrs() -> None:
    span = struct.pack("<BHBBHB", 3, 0x0003, 0xD7, 4, 0xFFFE, 0)
    alias = struct.pack("<BHBBHB", 0x42, 0x0A00, 0, 0, 0x0900, 0)
    special = struct.pack("<BHBBHB", 0x48, 0, 0, 0x21, 0x00A0, 1)
    acpi = struct.pack("<BHB8s8sBB", 0xF0, 0x0013, 0, b"AMDI0020", b"", 2, 5) + b"\\_SB\0"
    pad = bytes(4) + bytes([0x40]) + bytes(7)
    memory = struct.pack("<BBHHHH6xQQ", 0x22, 8 | 4 | 1, 32, 0x100, 0x1FF, 0, 0x7000, 0x2000)
    efr = struct.pack("<QQ", 0x1234, 0x5678)
    body = struct.pack("<I8x", 0x0020_3040 | 1)
    body += ivhd(0x10, span + alias) + ivhd(0x11, span + special, efr=efr) + ivhd(0x40, acpi + pad, efr=efr) + memory
    table = decoded(table_bytes(b"IVRS", body, revision=2))
    assert not table.findings
    ivrs = table.content
    assert isinstance(ivrs, Ivrs)
    assert ivrs.iv_info.efr_sup
    old, new, newest, region = ivrs.blocks
    assert isinstance(old, Ivhd10)
    assert isinstance(new, Ivhd11)
    assert isinstance(newest, Ivhd40)
    for block, kind in ((old, 0x10), (new, 0x11), (newest, 0x40)):
        assert isinstance(block, Ivhd)
        assert (block.type, block.device_id, block.capability_offset, block.iommu_base) == (kind, 2, 0x40, 0xFEB80000)
        assert (block.info.unit_id, block.flags.iotlb_support, block.flags.coherent) == (0x13, True, True)
    start, end, aliased = old.entries
    assert isinstance(start, RangeStartEntry)
    assert (start.device_id, start.data_setting.init_pass, start.data_setting.sys_mgt) == (3, True, 1)
    assert isinstance(end, RangeEndEntry)
    assert end.device_id == 0xFFFE
    assert isinstance(aliased, AliasSelectEntry)
    assert (aliased.device_id, aliased.source_device_id) == (0x0A00, 0x0900)
    assert (new.efr, new.efr2) == (0x1234, 0x5678)
    ioapic = new.entries[2]
    assert isinstance(ioapic, SpecialDeviceEntry)
    assert (ioapic.handle, ioapic.source_device_id, ioapic.variety) == (0x21, 0xA0, 1)
    named = newest.entries[0]
    assert isinstance(named, AcpiDeviceEntry)
    assert (named.hid, named.cid, bytes.fromhex(named.uid)) == ("AMDI0020", "", b"\\_SB\0")
    assert isinstance(region, IvmdRange)
    assert isinstance(region, Ivmd)
    assert (region.type, region.device_id, region.auxiliary_data) == (0x22, 0x100, 0x1FF)
    assert (region.start_address, region.memory_length) == (0x7000, 0x2000)
    assert (region.flags.unity, region.flags.read, region.flags.exclusion_range) == (True, False, True)


def test_srat() -> None:
    cpu = struct.pack("<BBBBIB3sI", 0, 16, 0x01, 7, 1, 0, b"\x02\0\0", 0)
    memory = struct.pack("<BBIHQQIIQ", 1, 40, 1, 0, 1 << 32, 1 << 30, 0, 0b11, 0)
    device = struct.pack("<BBBBIHBB12xII", 5, 32, 0, 1, 2, 3, 0xF8, 0x40, 1, 0)
    table = decoded(table_bytes(b"SRAT", struct.pack("<IQ", 1, 0) + cpu + memory + device, revision=3))
    assert not table.findings
    srat = table.content
    assert isinstance(srat, Srat)
    one, two, three = srat.entries
    assert isinstance(one, LocalApicAffinity)
    assert (one.apic_id, one.proximity_domain, one.flags.enabled) == (7, 0x201, True)
    assert isinstance(two, MemoryAffinity)
    assert (two.base_address, two.length, two.flags.hot_pluggable) == (1 << 32, 1 << 30, True)
    assert isinstance(three, GenericInitiatorAffinity)
    assert three.function == Sbdf(3, 0x40, 0x1F, 0)


FADT_TAIL = bytes(240)


@pytest.mark.parametrize(
    ("revision", "size"), [(1, 116), (2, 132), (3, 244), (4, 244), (5, 268), (6, 268), (6, 276), (7, 276)]
)
def test_fadt_of_every_length(revision: int, size: int) -> None:
    body = bytearray(range(36, 36 + size - 36)) if size < 250 else bytearray(size - 36)
    body[45 - 36] = 2
    table = decoded(table_bytes(b"FACP", bytes(body), revision=revision))
    fadt = table.content
    assert isinstance(fadt, Fadt)
    assert fadt.preferred_pm_profile is PowerProfile.MOBILE
    assert fadt.extra == ("84858687"[8:] if size == 132 else "")
    assert "acpi.fadt-length" not in rules(table)
    present = {name for name in fadt.__struct_fields__ if getattr(fadt, name) is not None}
    assert ("reset_reg" in present) == (size > 116)
    assert ("x_gpe1_blk" in present) == (size >= 244)
    assert ("sleep_status_reg" in present) == (size >= 268)
    assert ("hypervisor_vendor_identity" in present) == (size >= 276)


def test_fadt_flags_and_registers() -> None:
    body = bytearray(276 - 36)
    struct.pack_into("<I", body, 112 - 36, 1 << 20 | 1 << 10)
    struct.pack_into("<H", body, 109 - 36, 1 << 4)
    struct.pack_into("<BBBBQ", body, 116 - 36, 1, 8, 0, 1, 0xCF9)
    fadt = decoded(table_bytes(b"FACP", bytes(body), revision=6)).content
    assert isinstance(fadt, Fadt)
    assert fadt.flags.hw_reduced_acpi
    assert fadt.flags.reset_reg_sup
    assert not fadt.flags.wbinvd
    assert fadt.iapc_boot_arch.pcie_aspm_controls
    assert fadt.reset_reg is not None
    assert (fadt.reset_reg.space, fadt.reset_reg.address) == (AddressSpace.SYSTEM_IO, 0xCF9)


def test_other_kinds() -> None:
    aml = decoded(table_bytes(b"SSDT", b"\x10\x05_SB_"), "SSDT3")
    assert aml.content == DefinitionBlock(code=b"\x10\x05_SB_".hex())
    slit = decoded(table_bytes(b"SLIT", struct.pack("<Q", 2) + bytes([10, 21, 22, 10]))).content
    assert isinstance(slit, Slit)
    assert [slit.distance(0, 1), slit.distance(1, 0), slit.distance(2, 0), slit.distance(-1, 0)] == [21, 22, None, None]
    window = struct.pack("<BBHIQQBBHIHHIII", 1, 0, 48, 0, 0, 1 << 28, 8, 0, 0, 0, 1, 0, 7, 8, 9)
    cedt = decoded(table_bytes(b"CEDT", window)).content
    assert isinstance(cedt, Cedt)
    cfmws = cedt.structures[0]
    assert isinstance(cfmws, Cfmws)
    assert (cfmws.targets, cfmws.interleave_ways, cfmws.restrictions.device_coherent) == ((7, 8, 9), 3, True)
    tpm2 = struct.pack("<HHQI", 0, 0, 0xFED40000, 7)
    old = decoded(table_bytes(b"TPM2", tpm2 + bytes(12) + struct.pack("<IQ", 0x10000, 0x7000), revision=4)).content
    new = decoded(table_bytes(b"TPM2", tpm2 + bytes(16) + struct.pack("<IQ", 0x10000, 0x7000), revision=5)).content
    assert isinstance(old, Tpm2)
    assert isinstance(new, Tpm2Revision5)
    assert old.log_area_start_address == new.log_area_start_address == 0x7000
    port = bytes(44) + struct.pack("<IHH", 115200, 6, 88) + b"\\COM1\0"
    serial_port = decoded(table_bytes(b"SPCR", port, revision=4))
    assert serial_port.findings == ()
    spcr = serial_port.content
    assert isinstance(spcr, Spcr)
    assert (spcr.precise_baud_rate, spcr.namespace_string) == (115200, "\\COM1")


def rsdp(revision: int = 2, size: int = 36, length: int = 36) -> bytes:
    data = bytearray(
        struct.pack("<8sB6sBIIQB3x", b"RSD PTR ", 0, b"OEMID ", revision, 0x7000, length, 0x8000, 0)[:size]
    )
    data[8] = -sum(data[:20]) & 0xFF
    if size > 32:
        data[32] = -sum(data[:length]) & 0xFF
    return bytes(data)


def test_tables_with_their_own_header() -> None:
    table = decoded(rsdp(), "RSDP")
    assert isinstance(table.content, Rsdp)
    assert (table.header, table.checksum_ok, table.signature) == (None, True, "RSD PTR ")
    assert (table.content.rsdt_address, table.content.xsdt_address) == (0x7000, 0x8000)
    assert not table.findings
    old = decoded(rsdp(0, 20))
    assert isinstance(old.content, Rsdp)
    assert (old.checksum_ok, old.content.xsdt_address, old.findings) == (True, None, ())
    facs = decoded(struct.pack("<4sIIIIIQB3xI24x", b"FACS", 64, 0xABC, 0, 1, 2, 0, 2, 1))
    assert isinstance(facs.content, Facs)
    assert (facs.checksum_ok, facs.findings, facs.signature) == (None, (), "FACS")
    assert facs.content.global_lock.pending
    assert facs.content.flags.wake_64bit_supported


def test_json_is_for_people() -> None:
    table = decoded(table_bytes(b"APIC", MADT_HEAD + struct.pack("<BBBBI", 0, 8, 1, 2, 1)))
    content = json.loads(encode(table))["content"]
    assert content == {
        "kind": "madt",
        "local_apic_address": 0xFEE00000,
        "flags": {"pcat_compat": True},
        "entries": [
            {
                "kind": "local-apic",
                "acpi_processor_uid": 1,
                "apic_id": 2,
                "flags": {"enabled": True, "online_capable": False},
            }
        ],
    }


# --- what is wrong ----------------------------------------------------------------------------------------------------

GOOD = struct.pack("<BBBBI", 0, 8, 1, 2, 1)
NMI_TWO = struct.pack("<BBBHB", 4, 6, 0xFF, 0x0002, 1)
CHECKSUM_OFF = bytearray(table_bytes(b"XYZ9", b"body"))
CHECKSUM_OFF[-1] ^= 1
SUM_OFF = bytearray(rsdp())
SUM_OFF[12] ^= 1
EXTENDED_SUM_OFF = bytearray(rsdp())
EXTENDED_SUM_OFF[24] ^= 1
DEBUG_DEVICE = struct.pack("<BHBHHHHHHHHH", 0, 42 - 2, 1, 2, 38, 0, 0, 0x8000, 0, 0, 22, 34) + bytes(16) + b".\0"
FADT = bytearray(276 - 36)
FADT_TWO = bytearray(FADT)
struct.pack_into("<I", FADT_TWO, 0, 0x1000)
struct.pack_into("<Q", FADT_TWO, 132 - 36, 0x2000)
FADT_PORTS = bytearray(FADT)
struct.pack_into("<I", FADT_PORTS, 76 - 36, 0x408)
struct.pack_into("<BBBBQ", FADT_PORTS, 208 - 36, 1, 32, 0, 3, 0x808)
IVHD_END_FIRST = ivhd(0x10, struct.pack("<BHB", 4, 9, 0))
IVHD_NO_END = ivhd(0x10, struct.pack("<BHB", 3, 9, 0))
IVHD_DOWN = ivhd(0x10, struct.pack("<BHBBHB", 3, 9, 0, 4, 8, 0))
IVHD_NEXT = ivhd(0x10, struct.pack("<BHBBHB", 3, 9, 0, 2, 10, 0))
IVHD_GOOD = ivhd(0x10, struct.pack("<BHBBHB", 3, 9, 0, 4, 10, 0))
IVRS_HEAD = struct.pack("<I8x", 0)
ECAM = struct.pack("<QHBBI", 0xE0000000, 0, 0, 0x7F, 0)
HEST_NMI = struct.pack("<HHIIII", 2, 0, 0, 1, 1, 0)
VIOT_NODE = struct.pack("<BBHIHHHHH6x", 1, 0, 24, 0, 0, 0, 0, 0xFF, 48)

CASES: list[tuple[str, bytes]] = [
    ("acpi.table-checksum", bytes(CHECKSUM_OFF)),
    ("acpi.table-short", b""),
    ("acpi.table-short", b"APIC" + bytes(31)),
    ("acpi.table-short", table_bytes(b"APIC", MADT_HEAD, length=35)),
    ("acpi.table-short", b"RSD PTR "),
    ("acpi.table-short", b"FACS" + bytes(59)),
    ("acpi.table-truncated", table_bytes(b"XYZ9", b"body", length=0xFFFFFFFF)),
    ("acpi.table-slack", table_bytes(b"XYZ9", b"body") + b"\0"),
    ("acpi.table-slack", struct.pack("<4sI56x", b"FACS", 64) + bytes(16)),
    ("acpi.table-body-short", table_bytes(b"APIC", b"\0\0\0")),
    ("acpi.table-signature", table_bytes(b"AB\0C", b"")),
    ("acpi.table-signature", table_bytes(b"A\xe9BC", b"")),
    ("acpi.rsdp-checksum", bytes(SUM_OFF)),
    ("acpi.rsdp-checksum", bytes(EXTENDED_SUM_OFF)),
    ("acpi.rsdp-length", rsdp(2, 20)),
    ("acpi.rsdp-length", rsdp(2, 36, 35)),
    ("acpi.root-null-entry", table_bytes(b"XSDT", struct.pack("<QQ", 0x7000, 0))),
    ("acpi.root-null-entry", table_bytes(b"RSDT", struct.pack("<II", 0x7000, 0))),
    ("structure.zero-length", table_bytes(b"APIC", MADT_HEAD + GOOD + bytes(8))),
    ("structure.overlong", table_bytes(b"APIC", MADT_HEAD + GOOD + GOOD[:-1])),
    ("structure.truncated", table_bytes(b"APIC", MADT_HEAD + GOOD + b"\0")),
    ("structure.short", table_bytes(b"APIC", MADT_HEAD + b"\x09\x04\0\0" + GOOD)),
    ("structure.unknown-type", table_bytes(b"APIC", MADT_HEAD + b"\x7f\x02" + GOOD)),
    ("structure.unknown-type", table_bytes(b"HEST", struct.pack("<IHH", 1, 0x77, 0))),
    ("structure.extra", table_bytes(b"APIC", MADT_HEAD + b"\x00\x09" + GOOD[2:] + b"\1")),
    ("structure.extra", table_bytes(b"WAET", bytes(8))),
    ("structure.count", table_bytes(b"SLIT", struct.pack("<Q", 1 << 40) + bytes([10]))),
    ("acpi.madt-inti-flags", table_bytes(b"APIC", MADT_HEAD + NMI_TWO)),
    ("acpi.madt-duplicate-apic-id", table_bytes(b"APIC", MADT_HEAD + GOOD + GOOD)),
    ("acpi.mcfg-slack", table_bytes(b"MCFG", MCFG_HEAD + ECAM + bytes(15))),
    ("acpi.mcfg-no-bus", table_bytes(b"MCFG", MCFG_HEAD)),
    ("acpi.mcfg-no-bus", table_bytes(b"MCFG", MCFG_HEAD + struct.pack("<QHBBI", 0, 0, 9, 8, 0))),
    ("acpi.mcfg-overlap", table_bytes(b"MCFG", MCFG_HEAD + ECAM + struct.pack("<QHBBI", 0, 0, 0x7F, 0xFF, 0))),
    ("acpi.dmar-scope", table_bytes(b"DMAR", DMAR_HEAD + drhd(b"\1\6\0\0\0\0"))),
    ("acpi.dmar-scope", table_bytes(b"DMAR", DMAR_HEAD + drhd(b"\1\7\0\0\0\0\0"))),
    ("acpi.dmar-scope", table_bytes(b"DMAR", DMAR_HEAD + drhd(b"\1\x08\0\0\0\0\x20\0"))),
    ("acpi.dmar-scope", table_bytes(b"DMAR", DMAR_HEAD + drhd(b"\1\0\0\0\0\0\0\0"))),
    ("acpi.dmar-scope", table_bytes(b"DMAR", DMAR_HEAD + drhd(b"\1\3\0"))),
    ("acpi.dmar-include-all", table_bytes(b"DMAR", DMAR_HEAD + drhd(flags=1) + drhd(SCOPE))),
    ("acpi.dmar-register-base", table_bytes(b"DMAR", DMAR_HEAD + drhd(SCOPE, base=2**64 - 1))),
    ("acpi.dmar-register-base", table_bytes(b"DMAR", DMAR_HEAD + drhd(SCOPE, base=0))),
    ("acpi.dmar-register-base", table_bytes(b"DMAR", DMAR_HEAD + drhd(SCOPE, base=0xFED90010))),
    (
        "acpi.dmar-rmrr-range",
        table_bytes(b"DMAR", DMAR_HEAD + struct.pack("<HHHHQQ", 1, 32, 0, 0, 0x2010, 0x2FFF) + SCOPE),
    ),
    (
        "acpi.dmar-rmrr-range",
        table_bytes(b"DMAR", DMAR_HEAD + struct.pack("<HHHHQQ", 1, 32, 0, 0, 0x2000, 0x2FF0) + SCOPE),
    ),
    (
        "acpi.dmar-rmrr-range",
        table_bytes(b"DMAR", DMAR_HEAD + struct.pack("<HHHHQQ", 1, 32, 0, 0, 0x2000, 0x1FFF) + SCOPE),
    ),
    ("acpi.ivrs-range", table_bytes(b"IVRS", IVRS_HEAD + IVHD_END_FIRST)),
    ("acpi.ivrs-range", table_bytes(b"IVRS", IVRS_HEAD + IVHD_NO_END)),
    ("acpi.ivrs-range", table_bytes(b"IVRS", IVRS_HEAD + IVHD_DOWN)),
    ("acpi.ivrs-range", table_bytes(b"IVRS", IVRS_HEAD + IVHD_NEXT)),
    (
        "acpi.ivrs-memory",
        table_bytes(b"IVRS", IVRS_HEAD + struct.pack("<BBHHHH6xQQ", 0x20, 0, 32, 0, 0, 0, 0x1000, 1)),
    ),
    ("acpi.slit-distance", table_bytes(b"SLIT", struct.pack("<Q", 2) + bytes([10, 10, 20, 10]))),
    ("acpi.slit-distance", table_bytes(b"SLIT", struct.pack("<Q", 1) + bytes([11]))),
    ("acpi.fadt-length", table_bytes(b"FACP", bytes(FADT[:-9]), revision=5)),
    ("acpi.fadt-address-mismatch", table_bytes(b"FACP", bytes(FADT_TWO), revision=6)),
    ("acpi.fadt-address-mismatch", table_bytes(b"FACP", bytes(FADT_PORTS), revision=6)),
    ("acpi.dbg2-offsets", table_bytes(b"DBG2", struct.pack("<II", 45, 0))),
    ("acpi.dbg2-offsets", table_bytes(b"DBG2", struct.pack("<II", 44, 1) + DEBUG_DEVICE.replace(b"\x26\0", b"\x27\0"))),
    ("acpi.hest-sources", table_bytes(b"HEST", struct.pack("<I", 2) + HEST_NMI)),
    ("acpi.viot-nodes", table_bytes(b"VIOT", struct.pack("<HHQ", 2, 48, 0) + VIOT_NODE)),
    ("acpi.viot-nodes", table_bytes(b"VIOT", struct.pack("<HHQ", 1, 52, 0) + VIOT_NODE)),
]

FLAWLESS: list[bytes] = [
    table_bytes(b"XYZ9", b"body"),
    rsdp(),
    rsdp(0, 20),
    struct.pack("<4sI56x", b"FACS", 64),
    table_bytes(b"XSDT", struct.pack("<QQ", 0x7000, 0x8000)),
    table_bytes(b"RSDT", struct.pack("<II", 0x7000, 0x8000)),
    table_bytes(b"APIC", MADT_HEAD + GOOD + struct.pack("<BBBHB", 4, 6, 0xFF, 0x0005, 1)),
    table_bytes(
        b"MCFG",
        MCFG_HEAD + ECAM + struct.pack("<QHBBI", 0, 0, 0x80, 0xFF, 0) + ECAM.replace(b"\0\0\0\x7f", b"\1\0\0\x7f"),
    ),
    table_bytes(b"DMAR", DMAR_HEAD + drhd(SCOPE) + drhd(flags=1) + drhd(SCOPE, segment=1)),
    table_bytes(b"IVRS", IVRS_HEAD + IVHD_GOOD),
    table_bytes(b"SLIT", struct.pack("<Q", 2) + bytes([10, 20, 21, 10])),
    table_bytes(b"FACP", bytes(FADT), revision=6),
    table_bytes(b"DBG2", struct.pack("<II", 44, 1) + DEBUG_DEVICE),
    table_bytes(b"HEST", struct.pack("<I", 1) + HEST_NMI),
    table_bytes(b"VIOT", struct.pack("<HHQ", 1, 48, 0) + VIOT_NODE),
    table_bytes(b"WAET", bytes(4)),
]


@pytest.mark.parametrize(("rule", "data"), CASES, ids=[f"{n}-{rule}" for n, (rule, _) in enumerate(CASES)])
def test_each_rule_fires(rule: str, data: bytes) -> None:
    table = decoded(data)
    assert rule in rules(table)
    facs_with_slack = rule == "acpi.table-slack" and data.startswith(b"FACS")
    lost = rule in ("acpi.table-slack", "acpi.table-short") and not facs_with_slack
    assert table.raw == (data.hex() if lost else None)


@pytest.mark.parametrize("data", FLAWLESS, ids=lambda data: data[:4].decode())
def test_no_rule_fires_on_a_good_table(data: bytes) -> None:
    table = decoded(data)
    assert table.findings == ()
    assert table.raw is None


def test_offsets_in_messages_are_those_in_the_table() -> None:
    """Also of entries that lie in a block which is decoded from a copy."""
    block = ivhd(0x10, struct.pack("<BHB", 2, 9, 0) + b"\xf1")
    table = decoded(table_bytes(b"IVRS", IVRS_HEAD + block))
    offset = build_table(table).index(b"\xf1", 48)
    assert [finding.message for finding in table.findings] == [
        f"entry of type 0xf1 at offset {offset:#x}: its length is not known"
    ]


def test_cross_findings() -> None:
    madt, mcfg = table_bytes(b"APIC", MADT_HEAD), table_bytes(b"MCFG", MCFG_HEAD + ECAM)
    xsdt = table_bytes(b"XSDT", struct.pack("<QQ", 0x7000, 0x8000))
    good = [decoded(madt, "APIC"), decoded(mcfg, "MCFG"), decoded(xsdt, "XSDT")]
    many = [decoded(table_bytes(b"SSDT", b""), f"SSDT{n}") for n in (1, 2)]
    assert cross_findings(good) == ()
    assert cross_findings([*good, *many]) == ()
    (twice,) = cross_findings([decoded(madt, "APIC1"), decoded(madt, "APIC2"), *many])
    assert (twice.rule, twice.where) == ("acpi.table-duplicate", "tables")
    assert "APIC1, APIC2" in twice.message
    (fewer,) = cross_findings([good[0], good[2]])
    assert fewer.rule == "acpi.xsdt-missing-table"
    rsdt = decoded(table_bytes(b"RSDT", struct.pack("<III", 1, 2, 3)), "RSDT")
    assert [finding.rule for finding in cross_findings([rsdt, good[0]])] == ["acpi.xsdt-missing-table"]
    late = msgspec.structs.replace(decoded(madt, "APIC2"), dynamic=True)
    assert cross_findings([good[0], late]) == ()


def test_every_rule_of_the_tables_has_a_case() -> None:
    tested = {rule for rule, _ in CASES} | {"acpi.table-duplicate", "acpi.xsdt-missing-table"}
    declared_here = {
        value.id
        for name, part in list(sys.modules.items())
        if name in ("dom0kit.layout", "dom0kit.walker") or name.startswith("dom0kit.acpi.tables")
        for value in vars(part).values()
        if type(value).__name__ == "Rule"
    }
    assert declared_here == tested


@pytest.mark.parametrize(
    ("data", "rule", "kept"),
    [
        (table_bytes(b"APIC", MADT_HEAD + GOOD * 3 + b"\1\0" + bytes(10)), "structure.zero-length", 4),
        (table_bytes(b"APIC", MADT_HEAD + GOOD * 3 + b"\1\xff" + bytes(10)), "structure.overlong", 4),
        (table_bytes(b"APIC", MADT_HEAD + GOOD * 3)[:60], "acpi.table-truncated", 2),
        (table_bytes(b"APIC", MADT_HEAD + GOOD * 3, length=0xFFFFFFFF), "acpi.table-truncated", 3),
    ],
)
def test_malformed_madt(data: bytes, rule: str, kept: int) -> None:
    table = decoded(data)
    assert rule in rules(table)
    assert isinstance(table.content, Madt)
    assert len(table.content.entries) == kept
    assert table.content.entries[0] == decoded(table_bytes(b"APIC", MADT_HEAD + GOOD)).content.entries[0]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "entry", [GOOD, b"\x7f\x02", b"\x09\x04\0\0", NMI_TWO], ids=["good", "unknown", "short", "nmi"]
)
def test_a_hundred_thousand_entries(entry: bytes) -> None:
    data = table_bytes(b"APIC", MADT_HEAD + entry * 100_000)
    table = decode_table(RawTable("APIC", data))
    assert isinstance(table.content, Madt)
    assert len(table.content.entries) == 100_000
    assert build_table(table) == data
    assert len(table.findings) < 40


def test_many_windows_do_not_make_many_buses() -> None:
    """65,536 segments of 256 buses: the check must not count buses."""
    entries = b"".join(struct.pack("<QHBBI", 0, segment, 0, 255, 0) for segment in range(65536))
    table = decode_table(RawTable("MCFG", table_bytes(b"MCFG", MCFG_HEAD + entries * 2)))
    assert rules(table) == {"acpi.mcfg-overlap"}


# --- laws -------------------------------------------------------------------------------------------------------------

SIGNATURES = sorted([*module.MODULES, "XYZ9"])


@st.composite
def any_table(draw: st.DrawFn) -> bytes:
    """A table of any known kind, well formed or not."""
    if draw(st.booleans()):
        signature = draw(st.sampled_from(SIGNATURES))
        body = draw(st.binary(max_size=300))
    else:
        signature = draw(st.sampled_from(sorted(module.MODULES)))
        module_name, type_name = module.MODULES[signature]
        body = draw(record_bytes(getattr(sys.modules[f"dom0kit.acpi.tables.{module_name}"], type_name)))
    return table_bytes(signature.encode(), body, revision=draw(st.integers(0, 255)))


@st.composite
def mutated(draw: st.DrawFn, source: st.SearchStrategy[bytes]) -> bytes:
    """A table with a few bytes changed, cut off or added."""
    data = bytearray(draw(source))
    for _ in range(draw(st.integers(0, 4))):
        if data:
            data[draw(st.integers(0, len(data) - 1))] = draw(st.sampled_from([0, 1, 2, 8, 0x7F, 0xFE, 0xFF]))
    cut = draw(st.integers(0, len(data)))
    how: Callable[[], bytes] = draw(
        st.sampled_from([lambda: bytes(data), lambda: bytes(data[:cut]), lambda: bytes(data) + bytes(cut % 17)])
    )
    return how()


def holds_for(data: bytes) -> None:
    table = decoded(data)
    if table.header is not None and table.header.length >= 36 and len(data) <= table.header.length:
        assert table.raw is None, "only bytes behind the end, or no table at all, need their raw bytes"
    if table.checksum_ok:
        assert data[:4] in (b"RSD ", b"FACS") or sum(data[: struct.unpack_from("<I", data, 4)[0]]) & 0xFF == 0


@settings(max_examples=400)
@given(mutated(any_table()))
def test_any_table_gives_its_bytes_back(data: bytes) -> None:
    holds_for(data)


@settings(max_examples=200)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.tuples(st.sampled_from([b"RSD PTR ", b"FACS"]), st.binary(max_size=90)).map(b"".join),
    )
)
def test_any_bytes_give_themselves_back(data: bytes) -> None:
    holds_for(data)


@given(st.binary(max_size=2000))
def test_byte_sum(data: bytes) -> None:
    assert module.byte_sum(data) == sum(data) & 0xFF


def test_what_json_cannot_be_is_refused() -> None:
    table = decoded(table_bytes(b"APIC", MADT_HEAD + GOOD))
    text = encode(table)
    with pytest.raises(UndecodableJson):
        decode(text.replace(b'"apic_id":2', b'"apic_id":256'), Table)
    with pytest.raises(UndecodableJson):
        decode(text.replace(b"local-apic", b"local-opic", 1).replace(b"local-apic", b"x"), Table)
    assert isinstance(table.content, Madt)
    rest = msgspec.structs.replace(table.content, entries=(Rest(raw="xyz"),))
    with pytest.raises(Unbuildable):
        build_table(msgspec.structs.replace(table, content=rest))
    with pytest.raises(Unbuildable):
        build_table(msgspec.structs.replace(table, raw="xyz"))


# --- what is imported when --------------------------------------------------------------------------------------------


def test_union_and_registry_agree() -> None:
    registered = set()
    for module_name, type_name in [*module.MODULES.values(), *module.OWN_HEADER.values()]:
        registered.add(getattr(sys.modules[f"dom0kit.acpi.tables.{module_name}"], type_name))
    assert registered | {Other, Tpm2Revision5} == set(everything.Content.__args__)


def test_schema_and_decoding_of_many_tables() -> None:
    class Machine(msgspec.Struct, frozen=True):
        tables: tuple[Table, ...]

    machine = Machine(tuple(decoded(data) for data in FLAWLESS))
    assert decode(encode(machine), Machine) == machine
    described: dict[str, Any] = schema(Machine)
    assert {"Madt", "Dmar", "LocalX2apic", "Ivhd40", "DeviceScope"} <= {
        name.rpartition(".")[2] for name in described["$defs"]
    }


def test_only_what_occurs_is_imported() -> None:
    code = """
import sys
from dom0kit.acpi.tables import decode_table, build_table, Table
from dom0kit.source.interface import RawTable
from dom0kit import serial
loaded = lambda: {name.rpartition(".")[2] for name in sys.modules if name.startswith("dom0kit.acpi.tables.")}
table = decode_table(RawTable("MCFG", b"MCFG" + bytes([44]) + bytes(39)))
text = serial.encode(table)
build_table(table)
assert loaded() == {"table", "mcfg"}, loaded()
serial.decode(text, Table)
assert {"madt", "dmar", "everything"} <= loaded(), loaded()
"""
    subprocess.run([sys.executable, "-c", code], check=True)
