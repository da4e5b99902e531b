# SPDX-License-Identifier: MIT
"""MADT (signature APIC): interrupt controllers (ACPI 6.5, section 5.2.12; RISC-V types 19h to 1Bh: ACPI 6.6)."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Annotated, ClassVar, Final

from dom0kit.acpi.tables.table import Header
from dom0kit.address import Polarity, Trigger
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
    enumerated,
    layout,
    raw,
    terminated_text,
)
from dom0kit.serial import Hex
from dom0kit.walker import Notes

INTI: Final = rule(
    "acpi.madt-inti-flags",
    Severity.WARNING,
    title="an interrupt with a reserved trigger or polarity",
    meaning="The MPS INTI flags of an entry hold the value 2, which means nothing. An OS guesses, and the interrupt "
    "may never arrive or never stop.",
    advice="Update the firmware, or override the MADT.",
    specification="ACPI 6.5, table 5.26: 10b is reserved",
)
TWICE: Final = rule(
    "acpi.madt-duplicate-apic-id",
    Severity.WARNING,
    title="two processors with one APIC id",
    meaning="Two enabled processor entries have the same APIC id. One of them cannot be started; Linux drops it.",
    advice="Update the firmware.",
    specification="ACPI 6.5, section 5.2.12.2 and 5.2.12.12: one entry for each processor, as local APIC or as x2APIC",
)


class IntiPolarity(enum.Enum):
    """Bits 1:0 of MPS INTI flags (ACPI 6.5, table 5.26)."""

    CONFORMS = "conforms"
    """To the bus: for ISA, active high (edge) or low (level)."""
    HIGH = "high"
    RESERVED = "reserved"
    LOW = "low"


class IntiTrigger(enum.Enum):
    """Bits 3:2 of MPS INTI flags (ACPI 6.5, table 5.26)."""

    CONFORMS = "conforms"
    """To the bus: edge for ISA."""
    EDGE = "edge"
    RESERVED = "reserved"
    LEVEL = "level"


class IntiFlags(BitField, frozen=True, kw_only=True):
    """MPS INTI flags: how an interrupt input signals."""

    polarity: Annotated[IntiPolarity, enumerated(bits(2), dict(enumerate(IntiPolarity)))]
    trigger: Annotated[IntiTrigger, enumerated(bits(2), dict(enumerate(IntiTrigger)))]
    reserved: Annotated[int, bits(12)] = 0


class IntiEntry(OpenRecord, frozen=True, kw_only=True):
    """An entry with MPS INTI flags; each kind has the field at its own place."""

    if TYPE_CHECKING:

        @property
        def flags(self) -> IntiFlags: ...

    @property
    def polarity(self) -> Polarity | None:
        """None where the entry leaves it to the bus, or holds the reserved value."""
        return {IntiPolarity.HIGH: Polarity.HIGH, IntiPolarity.LOW: Polarity.LOW}.get(self.flags.polarity)

    @property
    def trigger(self) -> Trigger | None:
        """None where the entry leaves it to the bus, or holds the reserved value."""
        return {IntiTrigger.EDGE: Trigger.EDGE, IntiTrigger.LEVEL: Trigger.LEVEL}.get(self.flags.trigger)


class ProcessorFlags(BitField, frozen=True, kw_only=True):
    """Local APIC flags (table 5.22)."""

    enabled: Bit
    online_capable: Bit
    """Not enabled, but may be hot-added."""
    reserved: Annotated[int, bits(30)] = 0


class LocalApic(OpenRecord, frozen=True, kw_only=True, tag="local-apic"):
    """Processor with an 8-bit APIC id (section 5.2.12.2)."""

    TYPE: ClassVar[int] = 0x00
    acpi_processor_uid: U8
    apic_id: U8
    flags: ProcessorFlags


class Ioapic(OpenRecord, frozen=True, kw_only=True, tag="ioapic"):
    """I/O APIC (section 5.2.12.3)."""

    TYPE: ClassVar[int] = 0x01
    ioapic_id: U8
    reserved: U8 = 0
    address: U32
    """Physical address of its registers."""
    gsi_base: U32
    """GSI of its pin 0."""


class InterruptSourceOverride(IntiEntry, frozen=True, kw_only=True, tag="interrupt-source-override"):
    """An ISA interrupt that is not the GSI of its own number, or signals otherwise (section 5.2.12.5)."""

    TYPE: ClassVar[int] = 0x02
    bus: U8
    """0: ISA, the only one defined."""
    source: U8
    """ISA interrupt, 0 to 15."""
    gsi: U32
    flags: IntiFlags


class NmiSource(IntiEntry, frozen=True, kw_only=True, tag="nmi-source"):
    """A GSI that is wired as non-maskable (section 5.2.12.6)."""

    TYPE: ClassVar[int] = 0x03
    flags: IntiFlags
    gsi: U32


class LocalApicNmi(IntiEntry, frozen=True, kw_only=True, tag="local-apic-nmi"):
    """The LINT input that NMI comes in on (section 5.2.12.7)."""

    TYPE: ClassVar[int] = 0x04
    acpi_processor_uid: U8
    """255: all processors."""
    flags: IntiFlags
    lint: U8


class LocalApicAddressOverride(OpenRecord, frozen=True, kw_only=True, tag="local-apic-address-override"):
    """64-bit address of the local APICs, instead of the 32-bit one (section 5.2.12.8)."""

    TYPE: ClassVar[int] = 0x05
    reserved: U16 = 0
    address: U64


class IoSapic(OpenRecord, frozen=True, kw_only=True, tag="io-sapic"):
    """Itanium's I/O SAPIC (section 5.2.12.9)."""

    TYPE: ClassVar[int] = 0x06
    io_sapic_id: U8
    reserved: U8 = 0
    gsi_base: U32
    address: U64


class LocalSapic(OpenRecord, frozen=True, kw_only=True, tag="local-sapic"):
    """Itanium's processor (section 5.2.12.10)."""

    TYPE: ClassVar[int] = 0x07
    acpi_processor_id: U8
    local_sapic_id: U8
    local_sapic_eid: U8
    reserved: Annotated[Hex, raw(3)] = "000000"
    flags: ProcessorFlags
    acpi_processor_uid_value: U32
    acpi_processor_uid_string: Annotated[str, terminated_text()]


class PlatformInterruptSource(IntiEntry, frozen=True, kw_only=True, tag="platform-interrupt-source"):
    """Itanium's PMI, INIT and corrected platform error (section 5.2.12.11)."""

    TYPE: ClassVar[int] = 0x08
    flags: IntiFlags
    interrupt_type: U8
    processor_id: U8
    processor_eid: U8
    io_sapic_vector: U8
    gsi: U32
    platform_interrupt_source_flags: U32


class LocalX2apic(OpenRecord, frozen=True, kw_only=True, tag="local-x2apic"):
    """Processor with a 32-bit APIC id (section 5.2.12.12)."""

    TYPE: ClassVar[int] = 0x09
    reserved: U16 = 0
    x2apic_id: U32
    flags: ProcessorFlags
    acpi_processor_uid: U32


class LocalX2apicNmi(IntiEntry, frozen=True, kw_only=True, tag="local-x2apic-nmi"):
    """The LINT input that NMI comes in on, for processors with an x2APIC (section 5.2.12.13)."""

    TYPE: ClassVar[int] = 0x0A
    flags: IntiFlags
    acpi_processor_uid: U32
    """0xffffffff: all processors."""
    lint: U8
    reserved: Annotated[Hex, raw(3)] = "000000"


class GiccFlags(BitField, frozen=True, kw_only=True):
    """GICC CPU interface flags (table 5.37)."""

    enabled: Bit
    performance_interrupt_edge: Bit
    vgic_maintenance_interrupt_edge: Bit
    online_capable: Bit
    reserved: Annotated[int, bits(28)] = 0


class Gicc(OpenRecord, frozen=True, kw_only=True, tag="gicc"):
    """Arm processor with its GIC CPU interface (section 5.2.12.14); 40, 76, 80 or 82 bytes by revision."""

    TYPE: ClassVar[int] = 0x0B
    reserved: U16 = 0
    cpu_interface_number: U32
    acpi_processor_uid: U32
    flags: GiccFlags
    parking_protocol_version: U32
    performance_interrupt: U32
    parked_address: U64
    base_address: U64
    gicv: U64 | None = None
    gich: U64 | None = None
    vgic_maintenance_interrupt: U32 | None = None
    gicr_base_address: U64 | None = None
    mpidr: U64 | None = None
    processor_power_efficiency_class: U8 | None = None
    reserved2: U8 | None = None
    spe_overflow_interrupt: U16 | None = None
    trbe_interrupt: U16 | None = None


class Gicd(OpenRecord, frozen=True, kw_only=True, tag="gicd"):
    """Arm GIC distributor (section 5.2.12.15)."""

    TYPE: ClassVar[int] = 0x0C
    reserved: U16 = 0
    gic_id: U32
    base_address: U64
    system_vector_base: U32 = 0
    gic_version: U8
    reserved2: Annotated[Hex, raw(3)] = "000000"


class GicMsiFrameFlags(BitField, frozen=True, kw_only=True):
    """GIC MSI frame flags (table 5.41)."""

    spi_count_base_select: Bit
    """Count and base below replace those of the frame's own register."""
    reserved: Annotated[int, bits(31)] = 0


class GicMsiFrame(OpenRecord, frozen=True, kw_only=True, tag="gic-msi-frame"):
    """Arm GICv2m MSI frame (section 5.2.12.16)."""

    TYPE: ClassVar[int] = 0x0D
    reserved: U16 = 0
    gic_msi_frame_id: U32
    base_address: U64
    flags: GicMsiFrameFlags
    spi_count: U16
    spi_base: U16


class Gicr(OpenRecord, frozen=True, kw_only=True, tag="gicr"):
    """Arm GIC redistributor range (section 5.2.12.17)."""

    TYPE: ClassVar[int] = 0x0E
    flags: U8
    """Bit 0: not coherent (ACPI 6.5)."""
    reserved: U8 = 0
    discovery_range_base_address: U64
    discovery_range_length: U32


class GicIts(OpenRecord, frozen=True, kw_only=True, tag="gic-its"):
    """Arm GIC interrupt translation service (section 5.2.12.18)."""

    TYPE: ClassVar[int] = 0x0F
    flags: U8
    """Bit 0: not coherent (ACPI 6.5)."""
    reserved: U8 = 0
    gic_its_id: U32
    base_address: U64
    reserved2: U32 = 0


class MultiprocessorWakeup(OpenRecord, frozen=True, kw_only=True, tag="multiprocessor-wakeup"):
    """Mailbox that wakes processors where SIPI cannot, as in TDX guests (section 5.2.12.19)."""

    TYPE: ClassVar[int] = 0x10
    mailbox_version: U16
    reserved: U32 = 0
    mailbox_address: U64
    reset_vector: U64 | None = None
    """ACPI 6.6, mailbox version 1."""


class CorePic(OpenRecord, frozen=True, kw_only=True, tag="core-pic"):
    """LoongArch processor (section 5.2.12.20)."""

    TYPE: ClassVar[int] = 0x11
    version: U8
    acpi_processor_id: U32
    physical_processor_id: U32
    flags: ProcessorFlags


class LegacyIoPic(OpenRecord, frozen=True, kw_only=True, tag="lio-pic"):
    """LoongArch legacy I/O controller (section 5.2.12.21)."""

    TYPE: ClassVar[int] = 0x12
    version: U8
    base_address: U64
    size: U16
    cascade_vector: Annotated[Hex, raw(2)]
    cascade_vector_mapping: Annotated[Hex, raw(8)]


class HyperTransportPic(OpenRecord, frozen=True, kw_only=True, tag="ht-pic"):
    """LoongArch HyperTransport controller (section 5.2.12.22)."""

    TYPE: ClassVar[int] = 0x13
    version: U8
    base_address: U64
    size: U16
    cascade_vector: Annotated[Hex, raw(8)]


class ExtendIoPic(OpenRecord, frozen=True, kw_only=True, tag="eio-pic"):
    """LoongArch extended I/O controller (section 5.2.12.23)."""

    TYPE: ClassVar[int] = 0x14
    version: U8
    cascade_vector: U8
    node: U8
    node_map: U64


class MsiPic(OpenRecord, frozen=True, kw_only=True, tag="msi-pic"):
    """LoongArch MSI controller (section 5.2.12.24)."""

    TYPE: ClassVar[int] = 0x15
    version: U8
    message_address: U64
    start: U32
    count: U32


class BridgeIoPic(OpenRecord, frozen=True, kw_only=True, tag="bio-pic"):
    """LoongArch bridge controller (section 5.2.12.25)."""

    TYPE: ClassVar[int] = 0x16
    version: U8
    base_address: U64
    size: U16
    hardware_id: U16
    gsi_base: U16


class LpcPic(OpenRecord, frozen=True, kw_only=True, tag="lpc-pic"):
    """LoongArch LPC controller (section 5.2.12.26)."""

    TYPE: ClassVar[int] = 0x17
    version: U8
    base_address: U64
    size: U16
    cascade_vector: U8
    cascade_vector_high: U8 | None = None
    """Some tables have one byte, some two."""


class Rintc(OpenRecord, frozen=True, kw_only=True, tag="rintc"):
    """RISC-V hart (section 5.2.12.27); 20 or 36 bytes by revision."""

    TYPE: ClassVar[int] = 0x18
    version: U8
    reserved: U8 = 0
    flags: ProcessorFlags
    hart_id: U64
    acpi_processor_uid: U32
    external_interrupt_controller_id: U32 | None = None
    imsic_base_address: U64 | None = None
    imsic_size: U32 | None = None


class Imsic(OpenRecord, frozen=True, kw_only=True, tag="imsic"):
    """RISC-V incoming MSI controllers, what all have in common (ACPI 6.6, section 5.2.12.28)."""

    TYPE: ClassVar[int] = 0x19
    version: U8
    reserved: U8 = 0
    flags: U32
    supervisor_interrupt_identities: U16
    guest_interrupt_identities: U16
    guest_index_bits: U8
    hart_index_bits: U8
    group_index_bits: U8
    group_index_shift: U8


class Aplic(OpenRecord, frozen=True, kw_only=True, tag="aplic"):
    """RISC-V advanced platform-level controller (ACPI 6.6, section 5.2.12.29)."""

    TYPE: ClassVar[int] = 0x1A
    version: U8
    aplic_id: U8
    flags: U32
    hardware_id: Annotated[Hex, raw(8)]
    delivery_controllers: U16
    """IDCs; 0: interrupts leave as MSI."""
    external_interrupt_sources: U16
    gsi_base: U32
    address: U64
    size: U32


class Plic(OpenRecord, frozen=True, kw_only=True, tag="plic"):
    """RISC-V platform-level controller (ACPI 6.6, section 5.2.12.30)."""

    TYPE: ClassVar[int] = 0x1B
    version: U8
    plic_id: U8
    hardware_id: Annotated[Hex, raw(8)]
    external_interrupt_sources: U16
    max_priority: U16
    flags: U32
    size: U32
    address: U64
    gsi_base: U32


MadtEntry = (
    LocalApic
    | Ioapic
    | InterruptSourceOverride
    | NmiSource
    | LocalApicNmi
    | LocalApicAddressOverride
    | IoSapic
    | LocalSapic
    | PlatformInterruptSource
    | LocalX2apic
    | LocalX2apicNmi
    | Gicc
    | Gicd
    | GicMsiFrame
    | Gicr
    | GicIts
    | MultiprocessorWakeup
    | CorePic
    | LegacyIoPic
    | HyperTransportPic
    | ExtendIoPic
    | MsiPic
    | BridgeIoPic
    | LpcPic
    | Rintc
    | Imsic
    | Aplic
    | Plic
    | Unknown
    | Rest
)


class MadtFlags(BitField, frozen=True, kw_only=True):
    """Multiple APIC flags (table 5.20)."""

    pcat_compat: Bit
    """Two 8259 controllers are there as well, and must be disabled."""
    reserved: Annotated[int, bits(31)] = 0


class Madt(OpenRecord, frozen=True, kw_only=True, tag="madt"):
    """Multiple APIC Description Table."""

    local_apic_address: U32
    flags: MadtFlags
    entries: Annotated[tuple[MadtEntry, ...], entries()]


def of_mat(mat: Hex | None) -> tuple[MadtEntry, ...]:
    """The entries in a buffer that a ``_MAT`` gave (ACPI 6.5, section 6.2.11), of the kinds that a MADT has.

    There are none in what is no buffer; what cannot be walked is a `Rest`.
    """
    try:
        data = bytes(layout(Madt).size) + bytes.fromhex(mat or "")
    except ValueError:
        return ()
    madt = layout(Madt).parse(data, 0, len(data), Notes("aml:_MAT"))
    return madt.entries if madt is not None else ()


def check(madt: Madt, header: Header, notes: Notes) -> None:
    """Reserved interrupt flags, and processors that are there twice."""
    seen: set[int] = set()
    for entry in madt.entries:
        if isinstance(entry, IntiEntry):
            flags = entry.flags
            if flags.polarity is IntiPolarity.RESERVED or flags.trigger is IntiTrigger.RESERVED:
                notes.add(
                    INTI, f"{type(entry).__name__}: polarity {flags.polarity.value}, trigger {flags.trigger.value}"
                )
        elif isinstance(entry, LocalApic | LocalX2apic) and entry.flags.enabled:
            id = entry.apic_id if isinstance(entry, LocalApic) else entry.x2apic_id
            if id in seen:
                notes.add(TWICE, f"APIC id {id:#x}")
            seen.add(id)
