# SPDX-License-Identifier: MIT
"""The hypercall ABI of ``hv_core/include/hv_core/abi.h``, mirrored: numbers, statuses, structures.

The C header is the source; a test compares every size, offset and number with what the compiler makes of it. Each
structure of the header that travels between dom0 and the core is a record here, of the same name and the same bytes.
"""

from __future__ import annotations

import enum
from typing import Annotated, Final

import construct

from dom0kit.layout import U8, U16, U32, U64, Record, raw

S32 = Annotated[int, construct.Int32sl]

VERSION: Final = 1
HYPERCALL_PHYSDEV: Final = 33
HYPERCALL_DOM0KIT: Final = 0xD0
DOMID_SELF: Final = 0x7FF0
DOMAIN_ANY: Final = 0xFFFF
NONE: Final = 0xFFFFFFFF
"""What an answer says where there is no processor, vector, GSI or pIRQ."""


class Status(enum.IntEnum):
    """What a call answered: 0, or the negative errno of Linux that says the same."""

    OK = 0
    NOT_PERMITTED = -1
    NOT_FOUND = -2
    NO_DOMAIN = -3
    TRY_AGAIN = -11
    FAULT = -14
    BUSY = -16
    EXISTS = -17
    NO_DEVICE = -19
    INVALID = -22
    NO_SPACE = -28
    OUT_OF_RANGE = -34
    NO_CALL = -38
    NOT_SUPPORTED = -95

    @property
    def sentence(self) -> str:
        """What it means, for people."""
        return _SENTENCES[self]


_SENTENCES: Final = {
    Status.OK: "done",
    Status.NOT_PERMITTED: "not this domain's pin, vector, message or device, or only domain 0 may ask",
    Status.NOT_FOUND: "there is nothing (yet)",
    Status.NO_DOMAIN: "there is no such domain",
    Status.TRY_AGAIN: "an earlier move is still draining, or the state handed over is out of date",
    Status.FAULT: "the argument cannot be read or written",
    Status.BUSY: "it is in use, or a level interrupt is in service: release it first",
    Status.EXISTS: "it is already there, or another has it",
    Status.NO_DEVICE: "there is no such PCI function, IOAPIC or ECAM range",
    Status.INVALID: "an argument has no meaning",
    Status.NO_SPACE: "no vector, pIRQ or message is free, or a limit is reached",
    Status.OUT_OF_RANGE: "there is no such register, pin, vector, processor or destination",
    Status.NO_CALL: "there is no such hypercall",
    Status.NOT_SUPPORTED: "this hypervisor, in this mode, does not do that",
}


class Physdev(enum.IntEnum):
    """Commands of physdev_op that the core has, with Xen's numbers."""

    IRQ_STATUS_QUERY = 5
    APIC_READ = 8
    APIC_WRITE = 9
    ALLOC_IRQ_VECTOR = 10
    EOI = 12
    MAP_PIRQ = 13
    UNMAP_PIRQ = 14
    SETUP_GSI = 21
    GET_FREE_PIRQ = 23
    PCI_MMCFG_RESERVED = 24
    PCI_DEVICE_ADD = 25
    PCI_DEVICE_REMOVE = 26
    PCI_DEVICE_RESET = 32


class Op(enum.IntEnum):
    """Commands of our own hypercall."""

    INFORMATION = 0
    MAP_SHARED_INFO = 1
    HAND_OVER = 2
    QUERY_VECTOR = 3
    SET_AFFINITY = 4
    IOAPIC_ADD = 5
    IOAPIC_REMOVE = 6
    DOMAIN_CREATE = 7
    DOMAIN_DESTROY = 8
    ASSIGN_DEVICE = 9
    RELEASE_DEVICE = 10
    ASSIGN_GSI = 11
    RELEASE_GSI = 12
    READ_INTERRUPT = 13
    READ_REPORT = 14
    MSI_READ = 15
    MSI_WRITE = 16


class IrqStatus(enum.IntFlag):
    NEEDS_EOI = 1
    SHARED = 2


class MapPirq(enum.IntEnum):
    """Types of map_pirq."""

    MSI = 0
    GSI = 1
    MSI_SEG = 3
    MULTI_MSI = 4


class PciDev(enum.IntFlag):
    """Flags of pci_device_add."""

    EXTFN = 1
    VIRTFN = 2
    PXM = 4


PCI_MMCFG_RESERVED: Final = 1


class Feature(enum.IntFlag):
    DIRECT = 1
    INTERCEPT = 2
    MODEL = 4
    DMAR = 8
    IVRS = 16
    SHARED_INFO = 32
    HANDED_OVER = 64
    BOOKKEEPING = 128


class Mode(enum.IntEnum):
    DIRECT = 1
    INTERCEPT = 2


class Format(enum.IntEnum):
    """Of redirection entries and MSI messages."""

    COMPATIBILITY = 0
    EXTENDED_DESTINATION = 1
    VTD = 2
    AMD_VI = 3


class Kind(enum.IntEnum):
    NONE = 0
    GSI = 1
    MSI = 2
    MSIX = 3


class InterruptFlag(enum.IntFlag):
    MASKED = 1
    LEVEL = 2
    ACTIVE_LOW = 4
    SHARED = 8
    DRAINING = 16
    SET_UP = 32
    REMAPPED = 64


class Report(enum.IntEnum):
    """What the core found wrong with the machine."""

    NO_RSDP = 1
    NO_ROOT_TABLE = 2
    BAD_TABLE = 3
    NO_MADT = 4
    SECOND_TABLE = 5
    BAD_ENTRY = 6
    CPU_LIMIT = 7
    DUPLICATE_CPU = 8
    IOAPIC_LIMIT = 9
    IOAPIC_ADDRESS = 10
    IOAPIC_OVERLAP = 11
    IOAPIC_ABSENT = 12
    IOAPIC_PINS = 13
    GSI_GAP = 14
    OVERRIDE = 15
    MCFG_LIMIT = 16
    MCFG_ENTRY = 17
    FIRMWARE_ENTRY = 18
    NO_CPU = 19


class BackendKind(enum.IntEnum):
    """What the kernel module works on."""

    LOOPBACK = 1
    XEN = 2
    HV_CORE = 3


class AmlType(enum.IntEnum):
    NOTHING = 0
    INTEGER = 1
    STRING = 2
    BUFFER = 3
    PACKAGE = 4
    REFERENCE = 5
    OTHER = 6


# ---- Physdev ----


class IrqStatusQuery(Record, frozen=True, kw_only=True):
    irq: U32
    flags: U32 = 0


class Apic(Record, frozen=True, kw_only=True):
    apic_physbase: U64
    reg: U32
    value: U32 = 0


class AllocIrqVector(Record, frozen=True, kw_only=True):
    irq: U32
    vector: U32 = 0


class Eoi(Record, frozen=True, kw_only=True):
    irq: U32


class MapPirqArgument(Record, frozen=True, kw_only=True):
    domid: U16
    padding2: U16 = 0
    type: S32
    index: S32
    pirq: S32
    bus: S32
    devfn: S32
    entry_nr: S32
    padding28: U32 = 0
    table_base: U64


class UnmapPirq(Record, frozen=True, kw_only=True):
    domid: U16
    padding2: U16 = 0
    pirq: S32


class SetupGsi(Record, frozen=True, kw_only=True):
    gsi: S32
    triggering: U8
    polarity: U8
    padding6: U16 = 0


class GetFreePirq(Record, frozen=True, kw_only=True):
    type: S32
    pirq: U32 = 0


class PciMmcfgReserved(Record, frozen=True, kw_only=True):
    address: U64
    segment: U16
    start_bus: U8
    end_bus: U8
    flags: U32


class PciDeviceAdd(Record, frozen=True, kw_only=True):
    seg: U16
    bus: U8
    devfn: U8
    flags: U32
    physfn_bus: U8 = 0
    physfn_devfn: U8 = 0
    padding10: U16 = 0


class PciDeviceAddPxm(Record, frozen=True, kw_only=True):
    device: PciDeviceAdd
    pxm: U32 = 0


class PciDevice(Record, frozen=True, kw_only=True):
    seg: U16
    bus: U8
    devfn: U8


class PciDeviceReset(Record, frozen=True, kw_only=True):
    dev: PciDevice
    flags: U32


# ---- Our own ----


class Header(Record, frozen=True, kw_only=True):
    """Begins each argument of ours; `hypercall.interface` fills it in."""

    version: U16
    bytes: U16
    zero: U32 = 0


class Information(Record, frozen=True, kw_only=True):
    header: Header
    features: U32 = 0
    mode: U32 = 0
    limit_cpus: U32 = 0
    limit_ioapics: U32 = 0
    limit_domains: U32 = 0
    limit_pirqs: U32 = 0
    limit_functions: U32 = 0
    limit_messages: U32 = 0
    cpus: U32 = 0
    ioapics: U32 = 0
    gsis: U32 = 0
    domains: U32 = 0
    functions: U32 = 0
    messages: U32 = 0
    reports: U32 = 0
    reports_lost: U32 = 0
    calls: U64 = 0
    calls_refused: U64 = 0
    bytes: U64 = 0
    entry_format: U32 = 0
    message_format: U32 = 0
    trapped: U64 = 0
    trapped_refused: U64 = 0


class MapSharedInfo(Record, frozen=True, kw_only=True):
    header: Header
    guest_physical: U64


class HandOver(Record, frozen=True, kw_only=True):
    header: Header
    rsdp: U64
    xsdt: U64
    counter: U64


class QueryVector(Record, frozen=True, kw_only=True):
    header: Header
    domain: U32
    irq: U32
    cpu: U32 = 0
    apic_id: U32 = 0
    vector: U32 = 0
    flags: U32 = 0


class SetAffinity(Record, frozen=True, kw_only=True):
    header: Header
    domain: U32
    irq: U32
    cpu: U32
    zero: U32 = 0


class IoapicAdd(Record, frozen=True, kw_only=True):
    header: Header
    address: U64
    gsi_base: U32
    pins: U32 = 0


class IoapicRemove(Record, frozen=True, kw_only=True):
    header: Header
    address: U64


class DomainCreate(Record, frozen=True, kw_only=True):
    header: Header
    domain: U32
    vectors: U32


class DomainDestroy(Record, frozen=True, kw_only=True):
    header: Header
    domain: U32
    zero: U32 = 0


class AssignDevice(Record, frozen=True, kw_only=True):
    header: Header
    domain: U32
    device: PciDevice


class AssignGsi(Record, frozen=True, kw_only=True):
    header: Header
    domain: U32
    gsi: U32


class ReadInterrupt(Record, frozen=True, kw_only=True):
    header: Header
    domain: U32
    cursor: U32
    kind: U32 = 0
    pirq: U32 = 0
    gsi: U32 = 0
    device: PciDevice = PciDevice(seg=0, bus=0, devfn=0)
    entry: U32 = 0
    cpu: U32 = 0
    vector: U32 = 0
    flags: U32 = 0


class ReadReport(Record, frozen=True, kw_only=True):
    header: Header
    index: U32
    code: U32 = 0
    where: U64 = 0
    value: U64 = 0


class Msi(Record, frozen=True, kw_only=True):
    header: Header
    domain: U32
    irq: U32
    address: U64 = 0
    data: U32 = 0
    zero: U32 = 0


# ---- shared_info ----

PAGE_BYTES: Final = 4096
SHARED_INFO_XEN_BYTES: Final = 3136
SHARED_BLOCK_MAGIC: Final = 0x6B306D6F64
SHARED_BLOCK_VERSION: Final = 1
SHARED_HANDED_OVER: Final = 1


class SharedBlock(Record, frozen=True, kw_only=True):
    magic: U64
    version: U32
    bytes: U32
    checksum: U32
    flags: U32
    counter: U64
    rsdp: U64
    xsdt: U64
    list_offset: U32
    list_entry: U32
    list_count: U32
    zero: U32 = 0


SHARED_IOAPICS: Final = 128


class SharedIoapic(Record, frozen=True, kw_only=True):
    address: U64
    gsi_base: U32
    pins: U16
    id: U8
    version: U8
    format: U32
    zero: U32 = 0


# ---- The kernel module ----

IOCTL_TYPE: Final = 0xD0
MODULE_INFORMATION: Final = 0x80
MODULE_WATCH: Final = 0x81
MODULE_READ_HARDWARE: Final = 0x82
MODULE_EVALUATE: Final = 0x83


class ModuleInformation(Record, frozen=True, kw_only=True):
    abi_version: U32 = 0
    backend: U32 = 0
    name: Annotated[str, raw(16)] = "00" * 16


class ModuleWatch(Record, frozen=True, kw_only=True):
    fd: S32
    zero: U32 = 0


class HardwareIoapic(Record, frozen=True, kw_only=True):
    address: U64
    id: U32 = 0
    version: U32 = 0
    arbitration: U32 = 0
    pins: U32 = 0
    entry: Annotated[str, raw(960)] = "00" * 960
    """120 entries of 8 bytes, in hexadecimal."""


class Evaluate(Record, frozen=True, kw_only=True):
    path: Annotated[str, raw(256)]
    buffer: U64
    bytes: U32
    needed: U32 = 0
    acpi_status: U32 = 0
    zero: U32 = 0


class AmlValue(Record, frozen=True, kw_only=True):
    type: U32
    length: U32


ARGUMENTS: Final[dict[tuple[int, int], type[Record]]] = {
    (HYPERCALL_PHYSDEV, Physdev.IRQ_STATUS_QUERY): IrqStatusQuery,
    (HYPERCALL_PHYSDEV, Physdev.APIC_READ): Apic,
    (HYPERCALL_PHYSDEV, Physdev.APIC_WRITE): Apic,
    (HYPERCALL_PHYSDEV, Physdev.ALLOC_IRQ_VECTOR): AllocIrqVector,
    (HYPERCALL_PHYSDEV, Physdev.EOI): Eoi,
    (HYPERCALL_PHYSDEV, Physdev.MAP_PIRQ): MapPirqArgument,
    (HYPERCALL_PHYSDEV, Physdev.UNMAP_PIRQ): UnmapPirq,
    (HYPERCALL_PHYSDEV, Physdev.SETUP_GSI): SetupGsi,
    (HYPERCALL_PHYSDEV, Physdev.GET_FREE_PIRQ): GetFreePirq,
    (HYPERCALL_PHYSDEV, Physdev.PCI_MMCFG_RESERVED): PciMmcfgReserved,
    (HYPERCALL_PHYSDEV, Physdev.PCI_DEVICE_ADD): PciDeviceAddPxm,
    (HYPERCALL_PHYSDEV, Physdev.PCI_DEVICE_REMOVE): PciDevice,
    (HYPERCALL_PHYSDEV, Physdev.PCI_DEVICE_RESET): PciDeviceReset,
    (HYPERCALL_DOM0KIT, Op.INFORMATION): Information,
    (HYPERCALL_DOM0KIT, Op.MAP_SHARED_INFO): MapSharedInfo,
    (HYPERCALL_DOM0KIT, Op.HAND_OVER): HandOver,
    (HYPERCALL_DOM0KIT, Op.QUERY_VECTOR): QueryVector,
    (HYPERCALL_DOM0KIT, Op.SET_AFFINITY): SetAffinity,
    (HYPERCALL_DOM0KIT, Op.IOAPIC_ADD): IoapicAdd,
    (HYPERCALL_DOM0KIT, Op.IOAPIC_REMOVE): IoapicRemove,
    (HYPERCALL_DOM0KIT, Op.DOMAIN_CREATE): DomainCreate,
    (HYPERCALL_DOM0KIT, Op.DOMAIN_DESTROY): DomainDestroy,
    (HYPERCALL_DOM0KIT, Op.ASSIGN_DEVICE): AssignDevice,
    (HYPERCALL_DOM0KIT, Op.RELEASE_DEVICE): AssignDevice,
    (HYPERCALL_DOM0KIT, Op.ASSIGN_GSI): AssignGsi,
    (HYPERCALL_DOM0KIT, Op.RELEASE_GSI): AssignGsi,
    (HYPERCALL_DOM0KIT, Op.READ_INTERRUPT): ReadInterrupt,
    (HYPERCALL_DOM0KIT, Op.READ_REPORT): ReadReport,
    (HYPERCALL_DOM0KIT, Op.MSI_READ): Msi,
    (HYPERCALL_DOM0KIT, Op.MSI_WRITE): Msi,
}
"""The argument of each call, by hypercall number and command."""
