# SPDX-License-Identifier: MIT
"""Machines that nobody could record for us, built from our own ASL and tables, as a tree like the kernel's /sys.

`synthetic-x2apic`: x2APIC ids above 255, two PCI segments, an MCFG whose second window starts at bus 128, DMAR paths of
several hops, an IOAPIC that only the namespace tells of (`_GSB`), hot-pluggable memory. `synthetic-amd`: an IVRS that
describes one IOMMU by blocks of types 10h, 11h and 40h, and one more IOMMU; three IOAPICs.
"""

from __future__ import annotations

import enum
import inspect
import subprocess
import tempfile
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import msgspec

from dom0kit.acpi.tables import Header, Table, build_table, dmar, fadt, ivrs, madt, mcfg, srat
from dom0kit.acpi.tables.table import byte_sum
from dom0kit.address import IntxPin
from dom0kit.layout import OpenRecord, Record
from recordings.config_space import DOWNSTREAM_PORT, ROOT_PORT, UPSTREAM_PORT, bridge, endpoint

R = TypeVar("R", bound=Record)


def zeroed(type: type[R], **fields: Any) -> R:
    """A record whose required fields are zero, but for `fields`."""
    zeros: dict[str, Any] = {}
    for field in msgspec.structs.fields(type):
        if field.required and field.name not in fields:
            kind = typing.get_args(field.type)[0] if typing.get_origin(field.type) is Annotated else field.type
            members = typing.get_args(kind)
            kind = members[0] if members and typing.get_origin(kind) is not tuple else kind
            if inspect.isclass(kind) and issubclass(kind, Record):
                zeros[field.name] = zeroed(kind)
            elif inspect.isclass(kind) and issubclass(kind, enum.Enum):
                zeros[field.name] = next(iter(kind))
            else:
                zeros[field.name] = kind()
    return type(**zeros, **fields)


def table(signature: str, revision: int, content: OpenRecord) -> bytes:
    """The bytes of a table with right length and checksum."""
    header = Header(
        signature=signature,
        length=36,
        revision=revision,
        checksum=0,
        oem_id="DOM0KT",
        oem_table_id="SYNTHTIC",
        oem_revision=1,
        creator_id="D0K ",
        creator_revision=1,
    )
    for _ in range(2):  # the length is known once it is built, the checksum when the length is in it
        data = build_table(Table(signature, header, None, content))  # type: ignore[arg-type]
        header = msgspec.structs.replace(header, length=len(data))
    data = build_table(Table(signature, header, None, content))  # type: ignore[arg-type]
    return data[:9] + bytes((-byte_sum(data) & 0xFF,)) + data[10:]


def compiled(asl: Path) -> bytes:
    """The table that iasl makes of a source file of this folder."""
    with tempfile.TemporaryDirectory() as folder:
        prefix = Path(folder) / "table"
        subprocess.run(["iasl", "-va", "-p", str(prefix), str(asl)], check=True, capture_output=True)
        return prefix.with_suffix(".aml").read_bytes()


def write(tree: Path, tables: dict[str, bytes], functions: dict[str, bytes]) -> None:
    """A tree like the kernel's: tables by name, config spaces by address."""
    folder = tree / "sys/firmware/acpi/tables"
    folder.mkdir(parents=True)
    for name, data in tables.items():
        (folder / name).write_bytes(data)
    for address, config in functions.items():
        device = tree / "sys/bus/pci/devices" / address
        device.mkdir(parents=True)
        (device / "config").write_bytes(config)


_ON: Final = zeroed(madt.ProcessorFlags, enabled=True)
_MAY_COME: Final = zeroed(madt.ProcessorFlags, online_capable=True)
_LEVEL_HIGH: Final = madt.IntiFlags(polarity=madt.IntiPolarity.HIGH, trigger=madt.IntiTrigger.LEVEL)
_CONFORMS: Final = madt.IntiFlags(polarity=madt.IntiPolarity.CONFORMS, trigger=madt.IntiTrigger.CONFORMS)
_EDGE_HIGH: Final = madt.IntiFlags(polarity=madt.IntiPolarity.HIGH, trigger=madt.IntiTrigger.EDGE)
_FADT: Final = zeroed(
    fadt.Fadt,
    sci_int=9,
    pm1a_evt_blk=0x400,
    pm1_evt_len=4,
    pm1a_cnt_blk=0x404,
    pm1_cnt_len=2,
    pm_tmr_blk=0x408,
    pm_tmr_len=4,
    flags=zeroed(fadt.FadtFlags, wbinvd=True),
)


def _scope(kind: dmar.ScopeType, bus: int, *path: tuple[int, int], id: int = 0) -> dmar.DeviceScope:
    hops = tuple(dmar.PathHop(device=device, function=function) for device, function in path)
    return dmar.DeviceScope(type=kind, enumeration_id=id, start_bus=bus, path=hops)


def x2apic(tree: Path) -> None:
    """Two sockets, APIC ids up to 0x1ff, segment 0 from bus 0 and segment 1 from bus 0x80."""
    local = tuple(
        madt.LocalApic(acpi_processor_uid=id, apic_id=id, flags=_ON if id < 6 else _MAY_COME) for id in range(8)
    )
    extended = tuple(
        madt.LocalX2apic(x2apic_id=id, acpi_processor_uid=id, flags=_ON) for id in (*range(0x100, 0x108), 0x1FF)
    )
    apic = madt.Madt(
        local_apic_address=0xFEE00000,
        flags=madt.MadtFlags(pcat_compat=True),
        entries=(
            *local,
            *extended,
            madt.Ioapic(ioapic_id=8, address=0xFEC00000, gsi_base=0),
            madt.Ioapic(ioapic_id=9, address=0xFEC01000, gsi_base=24),
            madt.InterruptSourceOverride(bus=0, source=0, gsi=2, flags=_CONFORMS),
            madt.InterruptSourceOverride(bus=0, source=9, gsi=9, flags=_LEVEL_HIGH),
            madt.NmiSource(flags=_EDGE_HIGH, gsi=23),
            madt.LocalApicNmi(acpi_processor_uid=0xFF, flags=_EDGE_HIGH, lint=1),
            madt.LocalX2apicNmi(flags=_EDGE_HIGH, acpi_processor_uid=0xFFFFFFFF, lint=1),
            madt.LocalApicAddressOverride(address=0xFEE00000),
        ),
    )
    endpoint_scope, bridge_scope = dmar.ScopeType.PCI_ENDPOINT, dmar.ScopeType.PCI_SUB_HIERARCHY
    remapping = dmar.Dmar(
        host_address_width=45,
        flags=dmar.DmarFlags(interrupt_remapping=True, x2apic_opt_out=False, dma_control_platform_opt_in=False),
        structures=(
            dmar.Drhd(
                flags=dmar.DrhdFlags(include_pci_all=False),
                size=0,
                segment=1,
                register_base=0xFBFFC000,
                scopes=(
                    _scope(bridge_scope, 0x80, (2, 0)),
                    _scope(endpoint_scope, 0x80, (2, 0), (0, 0), (1, 0), (0, 0)),
                    _scope(dmar.ScopeType.IOAPIC, 0x80, (5, 4), id=9),
                ),
            ),
            dmar.Drhd(
                flags=dmar.DrhdFlags(include_pci_all=True),
                size=0,
                segment=0,
                register_base=0xFBFFE000,
                scopes=(
                    _scope(dmar.ScopeType.IOAPIC, 0xF0, (0x1F, 7), id=8),
                    _scope(dmar.ScopeType.HPET, 0xF0, (0x0F, 0), id=0),
                ),
            ),
            dmar.Rmrr(
                segment=1,
                base=0x7B000000,
                limit=0x7B00FFFF,
                scopes=(_scope(endpoint_scope, 0x80, (2, 0), (0, 0), (1, 0), (0, 0)),),
            ),
            dmar.Atsr(flags=dmar.AtsrFlags(all_ports=False), segment=1, scopes=(_scope(bridge_scope, 0x80, (2, 0)),)),
            dmar.Rhsa(register_base=0xFBFFC000, proximity_domain=1),
            dmar.Rhsa(register_base=0xFBFFE000, proximity_domain=0),
        ),
    )
    windows = mcfg.Mcfg(
        allocations=(
            mcfg.Allocation(base_address=0xE0000000, segment=0, start_bus=0, end_bus=0x7F),
            mcfg.Allocation(base_address=0x40_0000_0000, segment=1, start_bus=0x80, end_bus=0xFF),
        )
    )
    on = zeroed(srat.AffinityFlags, enabled=True)
    affinity = srat.Srat(
        table_revision=1,
        entries=(
            *(zeroed(srat.LocalApicAffinity, apic_id=id, flags=on, proximity_domain_high="000000") for id in range(8)),
            *(
                zeroed(srat.LocalX2apicAffinity, x2apic_id=id, proximity_domain=1, flags=on)
                for id in (*range(0x100, 0x108), 0x1FF)
            ),
            _memory(0, 0, 0x8000_0000),
            _memory(0, 0x1_0000_0000, 0x7_8000_0000),
            _memory(1, 0x8_8000_0000, 0x8_0000_0000),
            _memory(1, 0x20_0000_0000, 0x10_0000_0000, hot_pluggable=True),
        ),
    )
    write(
        tree,
        {
            "APIC": table("APIC", 5, apic),
            "DMAR": table("DMAR", 1, remapping),
            "DSDT": compiled(Path(__file__).with_name("synthetic-x2apic.asl")),
            "FACP": table("FACP", 1, _FADT),
            "MCFG": table("MCFG", 1, windows),
            "SRAT": table("SRAT", 3, affinity),
        },
        {
            "0000:00:00.0": endpoint(vendor=0x8086, device=0x2020, class_code=0x060000, express=False),
            "0000:00:1c.0": bridge(
                vendor=0x8086, device=0xA190, buses=(0, 1, 1), memory=(0x90000000, 0x900FFFFF), port=ROOT_PORT, slot=1
            ),
            "0000:00:1f.0": endpoint(vendor=0x8086, device=0xA1C1, class_code=0x060100, express=False),
            "0000:01:00.0": endpoint(
                vendor=0x8086, device=0x10FB, class_code=0x020000, pin=IntxPin.A, bars=(0x90000000,)
            ),
            "0001:80:02.0": bridge(
                vendor=0x8086,
                device=0x2030,
                buses=(0x80, 0x81, 0x84),
                memory=(0xC0000000, 0xC03FFFFF),
                port=ROOT_PORT,
            ),
            "0001:80:05.4": endpoint(
                vendor=0x8086, device=0x2036, class_code=0x080020, bars=(0xFBF00000,), express=False
            ),
            "0001:81:00.0": bridge(
                vendor=0x10B5,
                device=0x8747,
                buses=(0x81, 0x82, 0x84),
                memory=(0xC0000000, 0xC03FFFFF),
                port=UPSTREAM_PORT,
                acs=False,
            ),
            "0001:82:01.0": bridge(
                vendor=0x10B5,
                device=0x8747,
                buses=(0x82, 0x83, 0x83),
                memory=(0xC0000000, 0xC01FFFFF),
                port=DOWNSTREAM_PORT,
                slot=17,
            ),
            "0001:82:02.0": bridge(
                vendor=0x10B5,
                device=0x8747,
                buses=(0x82, 0x84, 0x84),
                memory=(0xC0200000, 0xC03FFFFF),
                port=DOWNSTREAM_PORT,
                slot=18,
            ),
            "0001:83:00.0": endpoint(
                vendor=0x1000, device=0x005D, class_code=0x010400, pin=IntxPin.A, bars=(0xC0000000,)
            ),
            "0001:84:00.0": endpoint(
                vendor=0x144D, device=0xA821, class_code=0x010802, pin=IntxPin.B, bars=(0xC0200000,)
            ),
        },
    )


def _memory(domain: int, base: int, length: int, *, hot_pluggable: bool = False) -> srat.MemoryAffinity:
    flags = zeroed(srat.MemoryFlags, enabled=True, hot_pluggable=hot_pluggable)
    return srat.MemoryAffinity(proximity_domain=domain, base_address=base, length=length, flags=flags)


def amd(tree: Path) -> None:
    """Two IOMMUs; the first one is told of three times, each time with a little more."""
    apic = madt.Madt(
        local_apic_address=0xFEE00000,
        flags=madt.MadtFlags(pcat_compat=True),
        entries=(
            *(madt.LocalApic(acpi_processor_uid=id, apic_id=0x20 + id, flags=_ON) for id in range(8)),
            madt.Ioapic(ioapic_id=0x80, address=0xFEC00000, gsi_base=0),
            madt.Ioapic(ioapic_id=0x81, address=0xEC200000, gsi_base=24),
            madt.Ioapic(ioapic_id=0x82, address=0xEC300000, gsi_base=56),
            madt.InterruptSourceOverride(bus=0, source=0, gsi=2, flags=_CONFORMS),
            madt.InterruptSourceOverride(
                bus=0,
                source=9,
                gsi=9,
                flags=madt.IntiFlags(polarity=madt.IntiPolarity.LOW, trigger=madt.IntiTrigger.LEVEL),
            ),
            madt.LocalApicNmi(acpi_processor_uid=0xFF, flags=_EDGE_HIGH, lint=1),
        ),
    )
    pass_all = zeroed(ivrs.DataSetting, init_pass=True, eint_pass=True, nmi_pass=True, lint0_pass=True, lint1_pass=True)
    none = zeroed(ivrs.DataSetting)
    first = (
        zeroed(ivrs.RangeStartEntry, device_id=0x0008, data_setting=none),
        zeroed(ivrs.RangeEndEntry, device_id=0x7FFE, data_setting=none),
        zeroed(ivrs.AliasRangeStartEntry, device_id=0x0300, data_setting=none, source_device_id=0x00A4),
        zeroed(ivrs.RangeEndEntry, device_id=0x03FF, data_setting=none),
        zeroed(ivrs.SpecialDeviceEntry, data_setting=pass_all, handle=0x80, source_device_id=0x00A0, variety=1),
        zeroed(ivrs.SpecialDeviceEntry, data_setting=none, handle=0x81, source_device_id=0x0001, variety=1),
        zeroed(ivrs.SpecialDeviceEntry, data_setting=none, handle=0, source_device_id=0x00A0, variety=2),
    )
    second = (
        zeroed(ivrs.RangeStartEntry, device_id=0x8000, data_setting=none),
        zeroed(ivrs.RangeEndEntry, device_id=0xFFFE, data_setting=none),
        zeroed(ivrs.SpecialDeviceEntry, data_setting=none, handle=0x82, source_device_id=0x8001, variety=1),
    )
    named = zeroed(
        ivrs.AcpiDeviceEntry,
        device_id=0x00A5,
        data_setting=none,
        hid="AMDI0020",
        cid="",
        uid_format=2,
        uid_length=9,
        uid=b"\\_SB.FUR0".hex(),
    )
    place: dict[str, Any] = {"device_id": 0x0002, "capability_offset": 0x40, "iommu_base": 0xEC100000}
    other: dict[str, Any] = {"device_id": 0x8002, "capability_offset": 0x40, "iommu_base": 0xEC400000}
    blocks = (
        zeroed(ivrs.Ivhd10, **place, entries=first),
        zeroed(ivrs.Ivhd10, **other, entries=second),
        zeroed(ivrs.Ivhd11, **place, efr=0x246577EFA2054ADA, entries=first),
        zeroed(ivrs.Ivhd11, **other, efr=0x246577EFA2054ADA, entries=second),
        zeroed(ivrs.Ivhd40, **place, efr=0x246577EFA2054ADA, efr2=0x10, entries=(*first, named)),
        zeroed(ivrs.Ivhd40, **other, efr=0x246577EFA2054ADA, efr2=0x10, entries=second),
        zeroed(
            ivrs.IvmdSelect,
            flags=zeroed(ivrs.IvmdFlags, unity=True, read=True, write=True),
            device_id=0x0100,
            start_address=0x9F000000,
            memory_length=0x100000,
        ),
        zeroed(
            ivrs.IvmdRange,
            flags=zeroed(ivrs.IvmdFlags, unity=True, read=True, write=True),
            device_id=0x8100,
            auxiliary_data=0x8107,
            start_address=0x9F200000,
            memory_length=0x10000,
        ),
    )
    reporting = ivrs.Ivrs(iv_info=zeroed(ivrs.IvInfo, efr_sup=True, pa_size=48, va_size=64), blocks=blocks)
    windows = mcfg.Mcfg(allocations=(mcfg.Allocation(base_address=0xE0000000, segment=0, start_bus=0, end_bus=0xFF),))
    root = {"vendor": 0x1022, "class_code": 0x060000, "express": False}
    write(
        tree,
        {
            "APIC": table("APIC", 5, apic),
            "DSDT": compiled(Path(__file__).with_name("synthetic-amd.asl")),
            "FACP": table("FACP", 1, _FADT),
            "IVRS": table("IVRS", 2, reporting),
            "MCFG": table("MCFG", 1, windows),
        },
        {
            "0000:00:00.0": endpoint(device=0x1480, **root),  # type: ignore[arg-type]
            "0000:00:00.2": endpoint(vendor=0x1022, device=0x1481, class_code=0x080600, express=False),
            "0000:00:01.1": bridge(
                vendor=0x1022, device=0x1483, buses=(0, 1, 1), memory=(0xF0000000, 0xF00FFFFF), port=ROOT_PORT, slot=3
            ),
            "0000:00:14.0": endpoint(vendor=0x1022, device=0x790B, class_code=0x0C0500, express=False),
            "0000:00:14.3": endpoint(vendor=0x1022, device=0x790E, class_code=0x060100, express=False),
            "0000:01:00.0": endpoint(
                vendor=0x15B7, device=0x5006, class_code=0x010802, pin=IntxPin.A, bars=(0xF0000000,)
            ),
            "0000:80:00.0": endpoint(device=0x1480, **root),  # type: ignore[arg-type]
            "0000:80:00.2": endpoint(vendor=0x1022, device=0x1481, class_code=0x080600, express=False),
            "0000:80:03.1": bridge(
                vendor=0x1022, device=0x1483, buses=(0x80, 0x81, 0x81), memory=(0xF1000000, 0xF10FFFFF), port=ROOT_PORT
            ),
            "0000:81:00.0": endpoint(
                vendor=0x15B3, device=0x1017, class_code=0x020000, pin=IntxPin.A, bars=(0xF1000000,)
            ),
        },
    )


MACHINES: Final[dict[str, Callable[[Path], None]]] = {"synthetic-amd": amd, "synthetic-x2apic": x2apic}
"""By the recording's name: what writes the machine's tree."""
