# SPDX-License-Identifier: MIT
"""IVRS: AMD's IOMMUs and what they serve (AMD I/O Virtualization Technology Specification 3.09, section 5.2)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

from dom0kit.acpi.tables.table import Header
from dom0kit.finding import Severity, rule
from dom0kit.layout import (
    U8,
    U16,
    U32,
    U64,
    Bit,
    BitField,
    OpenRecord,
    Rest,
    Unknown,
    bits,
    entries,
    measured_entries,
    raw,
    text,
    this,
)
from dom0kit.serial import Hex
from dom0kit.walker import Notes

# --- device entries of an IVHD (section 5.2.2.5 to 5.2.2.8) -----------------------------------------------------------

RANGE: Final = rule(
    "acpi.ivrs-range",
    Severity.WARNING,
    title="a range of devices without its other end",
    meaning="An IVHD block holds the start of a device range that the next entry does not end, an end without a start, "
    "or an end below its start. Which devices are meant is unknown.",
    advice="Update the firmware.",
    specification="AMD IOMMU 3.09, section 5.2.2.5: an entry of type 3, 67 or 71 is followed by one of type 4",
)
MEMORY: Final = rule(
    "acpi.ivrs-memory",
    Severity.WARNING,
    title="a memory definition without memory",
    meaning="An IVMD block has length zero, or a start or a length that is not a multiple of 4 KiB. Linux and Xen "
    "refuse or round it, and Xen may turn the IOMMU off.",
    advice="Update the firmware. Xen's option ivmd= states the region as it should be.",
    specification="AMD IOMMU 3.09, section 5.2.3",
)


class DataSetting(BitField, frozen=True, kw_only=True):
    """Which special messages pass untranslated (table 98)."""

    init_pass: Bit
    eint_pass: Bit
    nmi_pass: Bit
    reserved: Bit = False
    sys_mgt: Annotated[int, bits(2)]
    lint0_pass: Bit
    lint1_pass: Bit


class DeviceEntry(OpenRecord, frozen=True, kw_only=True):
    """A device entry of an IVHD block."""

    device_id: U16
    """Bus, device and function in 16 bits, in the block's segment."""
    data_setting: DataSetting


class PadEntry(DeviceEntry, frozen=True, kw_only=True, tag="pad"):
    """Type 0: four bytes without meaning."""

    TYPE: ClassVar[int] = 0x00


class Pad8Entry(DeviceEntry, frozen=True, kw_only=True, tag="pad-8"):
    """Type 40h: eight bytes without meaning."""

    TYPE: ClassVar[int] = 0x40
    reserved: U32 = 0


class AllEntry(DeviceEntry, frozen=True, kw_only=True, tag="all"):
    """Every device that this IOMMU serves."""

    TYPE: ClassVar[int] = 0x01


class SelectEntry(DeviceEntry, frozen=True, kw_only=True, tag="select"):
    """One device."""

    TYPE: ClassVar[int] = 0x02


class RangeStartEntry(DeviceEntry, frozen=True, kw_only=True, tag="range-start"):
    """First device of a range; the next entry ends it."""

    TYPE: ClassVar[int] = 0x03


class RangeEndEntry(DeviceEntry, frozen=True, kw_only=True, tag="range-end"):
    """Last device of a range, inclusive."""

    TYPE: ClassVar[int] = 0x04


class AliasSelectEntry(DeviceEntry, frozen=True, kw_only=True, tag="alias-select"):
    """One device whose requests carry another's id."""

    TYPE: ClassVar[int] = 0x42
    reserved: U8 = 0
    source_device_id: U16
    """The id its requests carry."""
    reserved2: U8 = 0


class AliasRangeStartEntry(AliasSelectEntry, frozen=True, kw_only=True, tag="alias-range-start"):
    """First device of a range whose requests carry another's id."""

    TYPE: ClassVar[int] = 0x43


class ExtendedDataSetting(BitField, frozen=True, kw_only=True):
    """Table 99."""

    reserved: Annotated[int, bits(31)] = 0
    ats_disabled: Bit


class ExtendedSelectEntry(DeviceEntry, frozen=True, kw_only=True, tag="extended-select"):
    """One device, with extended settings."""

    TYPE: ClassVar[int] = 0x46
    extended_data_setting: ExtendedDataSetting


class ExtendedRangeStartEntry(ExtendedSelectEntry, frozen=True, kw_only=True, tag="extended-range-start"):
    """First device of a range, with extended settings."""

    TYPE: ClassVar[int] = 0x47


class SpecialDeviceEntry(DeviceEntry, frozen=True, kw_only=True, tag="special-device"):
    """An IOAPIC or HPET, and the id its messages carry (table 101). `device_id` is reserved."""

    TYPE: ClassVar[int] = 0x48
    handle: U8
    """IOAPIC id of the MADT, or HPET number."""
    source_device_id: U16
    variety: U8
    """1 IOAPIC, 2 HPET."""


class AcpiDeviceEntry(DeviceEntry, frozen=True, kw_only=True, tag="acpi-device"):
    """A device of the ACPI namespace, and the id its requests carry (table 103)."""

    TYPE: ClassVar[int] = 0xF0
    hid: Annotated[str, text(8)]
    cid: Annotated[str, text(8)]
    uid_format: U8
    """0 none, 1 integer (8 bytes), 2 text."""
    uid_length: U8
    uid: Annotated[Hex, raw(this.uid_length)]


IvhdEntry = (
    PadEntry
    | Pad8Entry
    | AllEntry
    | SelectEntry
    | RangeStartEntry
    | RangeEndEntry
    | AliasSelectEntry
    | AliasRangeStartEntry
    | ExtendedSelectEntry
    | ExtendedRangeStartEntry
    | SpecialDeviceEntry
    | AcpiDeviceEntry
    | Unknown
    | Rest
)


def _entry_size(data: bytes, offset: int, end: int) -> int | None:
    """Bytes of a device entry: by its type, and for F0h by the length of its UID (section 5.2.2.5)."""
    kind = data[offset]
    if kind < 0xF0:
        return (4, 8, 16, 32)[kind >> 6]
    if kind > 0xF0:
        return 0
    return 22 + data[offset + 21] if end - offset >= 22 else None


IvhdEntries = Annotated[tuple[IvhdEntry, ...], measured_entries(type=1, measure=_entry_size)]

# --- blocks -----------------------------------------------------------------------------------------------------------


class IvhdFlags(BitField, frozen=True, kw_only=True):
    """Table 94."""

    ht_tunnel_enable: Bit
    pass_posted_writes: Bit
    response_pass_posted_writes: Bit
    isochronous: Bit
    iotlb_support: Bit
    coherent: Bit
    prefetch_support: Bit
    ppr_support: Bit


class IvhdInfo(BitField, frozen=True, kw_only=True):
    """IOMMU info (table 95)."""

    msi_number: Annotated[int, bits(5)]
    reserved: Annotated[int, bits(3)] = 0
    unit_id: Annotated[int, bits(5)]
    reserved2: Annotated[int, bits(3)] = 0


class Ivhd(OpenRecord, frozen=True, kw_only=True):
    """I/O Virtualization Hardware Definition: one IOMMU; several types may describe the same one (section 5.2.2).

    Software takes the highest type that it knows and ignores the other blocks of the same `device_id`.
    """

    TYPE: ClassVar[int] = -1
    flags: IvhdFlags
    device_id: U16
    """The IOMMU's own function."""
    capability_offset: U16
    iommu_base: U64
    segment: U16
    info: IvhdInfo

    @property
    def type(self) -> int:
        """0x10, 0x11 or 0x40."""
        return self.TYPE


class IvhdFeatures(BitField, frozen=True, kw_only=True):
    """IOMMU feature reporting of a block of type 10h (table 96)."""

    xt_sup: Bit
    """x2APIC ids in interrupt remapping."""
    nx_sup: Bit
    gt_sup: Bit
    glx_sup: Annotated[int, bits(2)]
    ia_sup: Bit
    ga_sup: Bit
    he_sup: Bit
    pas_max: Annotated[int, bits(5)]
    pn_counters: Annotated[int, bits(4)]
    pn_banks: Annotated[int, bits(6)]
    msi_num_ppr: Annotated[int, bits(5)]
    gats: Annotated[int, bits(2)]
    hats: Annotated[int, bits(2)]


class Ivhd10(Ivhd, frozen=True, kw_only=True, tag="ivhd-10h"):
    """Block of type 10h."""

    TYPE: ClassVar[int] = 0x10
    features: IvhdFeatures
    entries: IvhdEntries


class IvhdAttributes(BitField, frozen=True, kw_only=True):
    """IOMMU attributes of a block of type 11h or 40h (table 97)."""

    reserved: Annotated[int, bits(13)] = 0
    pn_counters: Annotated[int, bits(4)]
    pn_banks: Annotated[int, bits(6)]
    msi_num_ppr: Annotated[int, bits(5)]
    reserved2: Annotated[int, bits(4)] = 0


class Ivhd11(Ivhd, frozen=True, kw_only=True, tag="ivhd-11h"):
    """Block of type 11h."""

    TYPE: ClassVar[int] = 0x11
    attributes: IvhdAttributes
    efr: U64
    """Image of the extended feature register (MMIO offset 30h)."""
    efr2: U64
    """Image of the second one (MMIO offset 1A0h)."""
    entries: IvhdEntries


class Ivhd40(Ivhd, frozen=True, kw_only=True, tag="ivhd-40h"):
    """Block of type 40h: as 11h, and may hold ACPI devices."""

    TYPE: ClassVar[int] = 0x40
    attributes: IvhdAttributes
    efr: U64
    efr2: U64
    entries: IvhdEntries


class IvmdFlags(BitField, frozen=True, kw_only=True):
    """Table 105."""

    unity: Bit
    """Must be mapped one to one."""
    read: Bit
    write: Bit
    exclusion_range: Bit
    reserved: Annotated[int, bits(4)] = 0


class Ivmd(OpenRecord, frozen=True, kw_only=True):
    """I/O Virtualization Memory Definition: memory that devices reach without the OS (section 5.2.3)."""

    TYPE: ClassVar[int] = -1
    flags: IvmdFlags
    device_id: U16
    auxiliary_data: U16
    """Last device of the range, where the type is 22h."""
    segment: U16
    """0 in tables older than revision 3 of the specification, where it is reserved."""
    reserved: Annotated[Hex, raw(6)] = "000000000000"
    start_address: U64
    memory_length: U64

    @property
    def type(self) -> int:
        """0x20, 0x21 or 0x22."""
        return self.TYPE


class IvmdAll(Ivmd, frozen=True, kw_only=True, tag="ivmd-all"):
    """All devices; `device_id` is reserved."""

    TYPE: ClassVar[int] = 0x20


class IvmdSelect(Ivmd, frozen=True, kw_only=True, tag="ivmd-select"):
    """One device."""

    TYPE: ClassVar[int] = 0x21


class IvmdRange(Ivmd, frozen=True, kw_only=True, tag="ivmd-range"):
    """Devices from `device_id` to `auxiliary_data`, inclusive."""

    TYPE: ClassVar[int] = 0x22


IvrsBlock = Ivhd10 | Ivhd11 | Ivhd40 | IvmdAll | IvmdSelect | IvmdRange | Unknown | Rest


class IvInfo(BitField, frozen=True, kw_only=True):
    """IVinfo (table 92)."""

    efr_sup: Bit
    """The EFR fields of the blocks are filled in."""
    dma_guard_opt_in: Bit
    reserved: Annotated[int, bits(3)] = 0
    gva_size: Annotated[int, bits(3)]
    pa_size: Annotated[int, bits(7)]
    """Physical address bits."""
    va_size: Annotated[int, bits(7)]
    """Virtual address bits."""
    ht_ats_reserved: Bit
    """The HyperTransport address range of ATS is reserved."""
    reserved2: Annotated[int, bits(9)] = 0


class Ivrs(OpenRecord, frozen=True, kw_only=True, tag="ivrs"):
    """I/O Virtualization Reporting Structure."""

    iv_info: IvInfo
    reserved: U64 = 0
    blocks: Annotated[tuple[IvrsBlock, ...], entries(type=1, length_at=2, length=2)]


def check(ivrs: Ivrs, header: Header, notes: Notes) -> None:
    """Ranges of device entries, and memory blocks."""
    for number, block in enumerate(ivrs.blocks):
        if isinstance(block, Ivhd10 | Ivhd11 | Ivhd40):
            _check_ranges(number, block.entries, notes)
        elif isinstance(block, Ivmd) and (
            not block.memory_length or (block.start_address | block.memory_length) & 0xFFF
        ):
            notes.add(MEMORY, f"block {number}: {block.memory_length:#x} bytes from {block.start_address:#x}")


def _check_ranges(number: int, block_entries: tuple[IvhdEntry, ...], notes: Notes) -> None:
    start: int | None = None
    for entry in block_entries:
        if isinstance(entry, PadEntry | Pad8Entry):
            continue
        if isinstance(entry, RangeEndEntry):
            if start is None:
                notes.add(RANGE, f"block {number}: a range ends at {entry.device_id:#06x} that did not start")
            elif entry.device_id < start:
                notes.add(RANGE, f"block {number}: a range from {start:#06x} down to {entry.device_id:#06x}")
            start = None
            continue
        if start is not None:
            notes.add(RANGE, f"block {number}: a range starts at {start:#06x} and does not end")
        start = None
        if isinstance(entry, RangeStartEntry | AliasRangeStartEntry | ExtendedRangeStartEntry):
            start = entry.device_id
    if start is not None:
        notes.add(RANGE, f"block {number}: a range starts at {start:#06x} and does not end")
