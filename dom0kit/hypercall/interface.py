# SPDX-License-Identifier: MIT
"""What every hypervisor can be asked, in our own values; a backend supplies only the one raw call.

Each method is one hypercall of ``hv_core/include/hv_core/abi.h``, which says what it does and why it refuses. A refusal
raises `HypercallRefused`; a refused call has changed nothing. ``domain`` is a domain's number, `SELF` the caller's.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator
from typing import Final, Protocol, TypeVar

import msgspec

from dom0kit import abi
from dom0kit.abi import Feature, InterruptFlag, IrqStatus, Kind, MapPirq, Mode, Op, PciDev, Physdev, Report, Status
from dom0kit.address import Gsi, Polarity, Sbdf, Trigger
from dom0kit.hypercall.shared_info import SharedInfo
from dom0kit.layout import Record, layout
from dom0kit.plan import Message as Message
from dom0kit.walker import Notes

SELF: Final = abi.DOMID_SELF

A = TypeVar("A", bound=Record)


class HypercallRefused(Exception):
    """The hypervisor said no. `status` says why, `call` what was asked."""

    def __init__(self, status: Status, call: str, reason: str = "") -> None:
        super().__init__(f"{call}: {status.sentence} ({status.name})" + (f"; {reason}" if reason else ""))
        self.status = status
        self.call = call


class Interrupt(msgspec.Struct, frozen=True, kw_only=True):
    """One interrupt of a domain, as the core keeps it."""

    kind: Kind
    domain: int
    pirq: int | None
    gsi: Gsi | None = None
    """Of a GSI."""
    function: Sbdf | None = None
    """Of a message."""
    entry: int | None = None
    """Number of the message among its function's."""
    cpu: int | None
    """Index of the processor in the order of the MADT; None without a vector, or for several processors."""
    vector: int | None
    flags: InterruptFlag


class Vector(msgspec.Struct, frozen=True):
    """Where an interrupt goes."""

    vector: int
    cpu: int | None
    """Index in the order of the MADT; None where the destination is logical, of several processors."""
    apic_id: int
    """Local APIC id, or the logical destination."""
    flags: InterruptFlag


class CoreReport(msgspec.Struct, frozen=True):
    """Something the core found wrong with the machine."""

    code: Report
    where: int
    """Physical address of the table or IOAPIC."""
    value: int
    """The number that is wrong."""

    @property
    def sentence(self) -> str:
        """In words, for people."""
        text = self.value.to_bytes(8, "little")[:4].decode("latin-1")
        return _REPORTS[self.code].format(value=self.value, text=text)


_REPORTS: Final = {
    Report.NO_RSDP: "there is no RSDP with a good checksum",
    Report.NO_ROOT_TABLE: "neither XSDT nor RSDT is good",
    Report.BAD_TABLE: "a table's length or checksum is wrong: {text!r}",
    Report.NO_MADT: "there is no MADT",
    Report.SECOND_TABLE: "a second table is ignored: {text!r}",
    Report.BAD_ENTRY: "an entry of a table is too short or runs over its end, at offset {value:#x}",
    Report.CPU_LIMIT: "more processors than the core's limit, from APIC id {value:#x} on",
    Report.DUPLICATE_CPU: "two processors have APIC id {value:#x}",
    Report.IOAPIC_LIMIT: "more IOAPICs than the core's limit, from {value:#x} on",
    Report.IOAPIC_ADDRESS: "an IOAPIC's address is 0, unaligned or used twice: {value:#x}",
    Report.IOAPIC_OVERLAP: "an IOAPIC's GSIs overlap another's or pass the limit, from GSI {value} on: it is not used",
    Report.IOAPIC_ABSENT: "no IOAPIC answers: it is not used",
    Report.IOAPIC_PINS: "an IOAPIC claims {value} pins: 120 can be reached",
    Report.GSI_GAP: "no IOAPIC has GSI {value}, though one has a higher",
    Report.OVERRIDE: "an interrupt source override cannot be used: source {value}",
    Report.MCFG_LIMIT: "more ECAM ranges than the core's limit, from {value:#x} on",
    Report.MCFG_ENTRY: "an ECAM range is unaligned, empty or overlaps another: {value:#x}",
    Report.FIRMWARE_ENTRY: "firmware left GSI {value} unmasked with an SMI, NMI, INIT or ExtINT",
    Report.NO_CPU: "the MADT enables no processor",
}


class Listener(Protocol):
    """Is told of each hypercall twice, for not every machine survives every call."""

    def asked(self, backend: str, number: int, command: int, argument: bytes) -> None:
        """Before it is made; `backend` is the hypervisor's `name`."""

    def answered(self, status: Status, answer: bytes) -> None:
        """After it was made; `answer` is the argument as it came back."""


class Hypervisor(abc.ABC):
    """A hypervisor, or the core itself, as one domain sees it."""

    name: str = "hypervisor"
    """``xen``, ``loopback``, ``hv_core``, ``library``."""
    listener: Listener | None = None
    """Told of every call that a method makes (`dom0kit.hypercall.trace`). Set on the class: of every hypervisor's."""

    @abc.abstractmethod
    def call(self, number: int, command: int, argument: bytes) -> tuple[Status, bytes]:
        """One hypercall: its status, and the argument as it came back (unchanged where the status is not OK)."""

    def reason(self, number: int, command: int, status: Status) -> str:
        """What this hypervisor knows of why it answers a call so, beyond the status's sentence; a clause, or empty."""
        return ""

    # ---- Physdev operations ----

    def irq_status_query(self, irq: int) -> IrqStatus:
        return IrqStatus(self._physdev(Physdev.IRQ_STATUS_QUERY, abi.IrqStatusQuery(irq=irq)).flags)

    def apic_read(self, address: int, register: int) -> int:
        """A 32-bit register of the IOAPIC at a physical address."""
        return self._physdev(Physdev.APIC_READ, abi.Apic(apic_physbase=address, reg=register)).value

    def apic_write(self, address: int, register: int, value: int) -> None:
        self._physdev(Physdev.APIC_WRITE, abi.Apic(apic_physbase=address, reg=register, value=value))

    def alloc_irq_vector(self, irq: int) -> int:
        return self._physdev(Physdev.ALLOC_IRQ_VECTOR, abi.AllocIrqVector(irq=irq)).vector

    def eoi(self, irq: int) -> None:
        self._physdev(Physdev.EOI, abi.Eoi(irq=irq))

    def map_gsi(self, gsi: Gsi, pirq: int | None = None, domain: int = SELF) -> int:
        """The pIRQ (`pirq`, or the lowest free one from 16 on) that a GSI now has."""
        return self._map(domain, MapPirq.GSI, index=gsi, pirq=pirq)

    def map_msi(self, function: Sbdf, count: int = 1, pirq: int | None = None, domain: int = SELF) -> int:
        """The first pIRQ of `count` (a power of two) MSI messages."""
        type = MapPirq.MSI_SEG if count == 1 else MapPirq.MULTI_MSI
        return self._map(domain, type, pirq=pirq, function=function, entry=0 if count == 1 else count)

    def map_msix(self, function: Sbdf, entry: int, table: int, pirq: int | None = None, domain: int = SELF) -> int:
        """The pIRQ of an entry of the MSI-X table at a physical address."""
        return self._map(domain, MapPirq.MSI_SEG, pirq=pirq, function=function, entry=entry, table=table)

    def unmap_pirq(self, pirq: int, domain: int = SELF) -> None:
        self._physdev(Physdev.UNMAP_PIRQ, abi.UnmapPirq(domid=domain, pirq=pirq))

    def setup_gsi(self, gsi: Gsi, trigger: Trigger, polarity: Polarity) -> None:
        argument = abi.SetupGsi(gsi=gsi, triggering=trigger is Trigger.LEVEL, polarity=polarity is Polarity.LOW)
        self._physdev(Physdev.SETUP_GSI, argument)

    def get_free_pirq(self, type: MapPirq) -> int:
        return self._physdev(Physdev.GET_FREE_PIRQ, abi.GetFreePirq(type=type)).pirq

    def pci_mmcfg_reserved(self, address: int, segment: int, start_bus: int, end_bus: int, reserved: bool) -> None:
        flags = abi.PCI_MMCFG_RESERVED if reserved else 0
        argument = abi.PciMmcfgReserved(
            address=address, segment=segment, start_bus=start_bus, end_bus=end_bus, flags=flags
        )
        self._physdev(Physdev.PCI_MMCFG_RESERVED, argument)

    def pci_device_add(
        self, function: Sbdf, *, physical: Sbdf | None = None, extended: bool = False, pxm: int | None = None
    ) -> None:
        """A function has appeared; `physical` is a virtual one's physical function, `extended` an ARI one."""
        flags = PciDev(0)
        if extended:
            flags |= PciDev.EXTFN
        if physical is not None:
            flags |= PciDev.VIRTFN
        if pxm is not None:
            flags |= PciDev.PXM
        device = abi.PciDeviceAdd(
            seg=_segment(function),
            bus=function.bus,
            devfn=function.devfn,
            flags=flags,
            physfn_bus=physical.bus if physical else 0,
            physfn_devfn=physical.devfn if physical else 0,
        )
        self._physdev(Physdev.PCI_DEVICE_ADD, abi.PciDeviceAddPxm(device=device, pxm=pxm or 0))

    def pci_device_remove(self, function: Sbdf) -> None:
        self._physdev(Physdev.PCI_DEVICE_REMOVE, _device(function))

    def pci_device_reset(self, function: Sbdf, kind: int = 3) -> None:
        """A function was reset: cold 0, warm 1, hot 2, function level 3."""
        self._physdev(Physdev.PCI_DEVICE_RESET, abi.PciDeviceReset(dev=_device(function), flags=kind))

    # ---- Our own ----

    def information(self) -> abi.Information:
        return self._own(Op.INFORMATION, abi.Information)

    def features(self) -> Feature:
        return Feature(self.information().features)

    def mode(self) -> Mode:
        return Mode(self.information().mode)

    def map_shared_info(self, guest_physical: int) -> None:
        """Two pages at this guest-physical address; 0 takes them away."""
        self._own(Op.MAP_SHARED_INFO, abi.MapSharedInfo, guest_physical=guest_physical)

    def hand_over(self, rsdp: int, xsdt: int, counter: int) -> None:
        self._own(Op.HAND_OVER, abi.HandOver, rsdp=rsdp, xsdt=xsdt, counter=counter)

    def query_vector(self, irq: int, domain: int = SELF) -> Vector:
        got = self._own(Op.QUERY_VECTOR, abi.QueryVector, domain=domain, irq=irq)
        return Vector(got.vector, _some(got.cpu), got.apic_id, InterruptFlag(got.flags))

    def set_affinity(self, irq: int, cpu: int, domain: int = SELF) -> None:
        self._own(Op.SET_AFFINITY, abi.SetAffinity, domain=domain, irq=irq, cpu=cpu)

    def ioapic_add(self, address: int, gsi_base: Gsi) -> int:
        """How many pins the IOAPIC that appeared has."""
        return self._own(Op.IOAPIC_ADD, abi.IoapicAdd, address=address, gsi_base=gsi_base).pins

    def ioapic_remove(self, address: int) -> None:
        self._own(Op.IOAPIC_REMOVE, abi.IoapicRemove, address=address)

    def domain_create(self, domain: int | None = None, vectors: int = 0) -> int:
        """Its number; `vectors` limits how many it may hold (0: no limit)."""
        wanted = abi.DOMAIN_ANY if domain is None else domain
        return self._own(Op.DOMAIN_CREATE, abi.DomainCreate, domain=wanted, vectors=vectors).domain

    def domain_destroy(self, domain: int) -> None:
        self._own(Op.DOMAIN_DESTROY, abi.DomainDestroy, domain=domain)

    def assign_device(self, domain: int, function: Sbdf) -> None:
        self._own(Op.ASSIGN_DEVICE, abi.AssignDevice, domain=domain, device=_device(function))

    def release_device(self, domain: int, function: Sbdf) -> None:
        self._own(Op.RELEASE_DEVICE, abi.AssignDevice, domain=domain, device=_device(function))

    def assign_gsi(self, domain: int, gsi: Gsi) -> None:
        self._own(Op.ASSIGN_GSI, abi.AssignGsi, domain=domain, gsi=gsi)

    def release_gsi(self, domain: int, gsi: Gsi) -> None:
        self._own(Op.RELEASE_GSI, abi.AssignGsi, domain=domain, gsi=gsi)

    def interrupts(self, domain: int = SELF) -> Iterator[Interrupt]:
        """Every interrupt of a domain that is mapped, set up, unmasked or has a vector: GSIs first.

        ValueError for a hypervisor whose list does not go on.
        """
        cursor = 0
        while True:
            try:
                got = self._own(Op.READ_INTERRUPT, abi.ReadInterrupt, domain=domain, cursor=cursor)
            except HypercallRefused as refusal:
                if refusal.status is Status.NOT_FOUND:
                    return
                raise
            if got.cursor <= cursor:
                raise ValueError(f"the list of interrupts goes back from {cursor} to {got.cursor}")
            cursor = got.cursor
            if got.kind != Kind.NONE:
                yield _interrupt(domain, got)

    def shared_info(self) -> SharedInfo:
        """What the hypervisor shares with dom0. NotShared, or HypercallRefused where it shares nothing."""
        raise HypercallRefused(Status.NOT_SUPPORTED, "shared_info", "dom0kit.ko has it")

    def reports(self) -> Iterator[CoreReport]:
        """What the core found wrong with the machine."""
        for index in range(self.information().reports):
            got = self._own(Op.READ_REPORT, abi.ReadReport, index=index)
            yield CoreReport(Report(got.code), got.where, got.value)

    def msi_read(self, pirq: int, domain: int = SELF) -> Message:
        got = self._own(Op.MSI_READ, abi.Msi, domain=domain, irq=pirq)
        return Message(got.address, got.data)

    def msi_write(self, pirq: int, message: Message, domain: int = SELF) -> None:
        self._own(Op.MSI_WRITE, abi.Msi, domain=domain, irq=pirq, address=message.address, data=message.data)

    # ---- How ----

    def _map(
        self,
        domain: int,
        type: MapPirq,
        *,
        index: int = -1,
        pirq: int | None,
        function: Sbdf | None = None,
        entry: int = 0,
        table: int = 0,
    ) -> int:
        argument = abi.MapPirqArgument(
            domid=domain,
            type=type,
            index=index,
            pirq=-1 if pirq is None else pirq,
            bus=_signed(_segment(function) << 16 | function.bus) if function else 0,
            devfn=function.devfn if function else 0,
            entry_nr=entry,
            table_base=table,
        )
        return self._physdev(Physdev.MAP_PIRQ, argument).pirq

    def _physdev(self, command: Physdev, argument: A) -> A:
        return self._carry(abi.HYPERCALL_PHYSDEV, command, argument)

    def _own(self, command: Op, type: type[A], **fields: object) -> A:
        size = _size(type)
        argument = type(header=abi.Header(version=abi.VERSION, bytes=size), **fields)
        return self._carry(abi.HYPERCALL_DOM0KIT, command, argument)

    def _carry(self, number: int, command: Physdev | Op, argument: A) -> A:
        shape = layout(type(argument))
        data = shape.build(argument)
        if self.listener is not None:
            self.listener.asked(self.name, number, command, data)
        status, answer = self.call(number, command, data)
        if self.listener is not None:
            self.listener.answered(status, answer)
        if status is not Status.OK:
            raise HypercallRefused(status, words(command, argument), self.reason(number, command, status))
        got = shape.parse(answer, 0, len(answer), Notes("hypercall"))
        assert got is not None, "an answer has the size of its question"
        return got


def _size(type: type[Record]) -> int:
    return layout(type).size


def words(command: Physdev | Op, argument: Record) -> str:
    """A call in words: ``apic_write(apic_physbase=0xfec00000, reg=0x10, value=0x0)``."""
    return f"{command.name.lower()}({', '.join(_fields(argument))})"


def _fields(argument: Record) -> Iterator[str]:
    for name in argument.__struct_fields__:
        value = getattr(argument, name)
        if isinstance(value, abi.Header) or name.startswith(("padding", "zero")):
            continue
        if isinstance(value, Record):
            yield from _fields(value)
        else:
            yield f"{name}={value:#x}"


def _some(number: int) -> int | None:
    return None if number == abi.NONE else number


def _segment(function: Sbdf) -> int:
    if function.segment > 0xFFFF:
        raise ValueError(f"{function}: the hypercalls have 16 bits for a segment; it is one only Linux knows")
    return function.segment


def _device(function: Sbdf) -> abi.PciDevice:
    return abi.PciDevice(seg=_segment(function), bus=function.bus, devfn=function.devfn)


def _signed(word: int) -> int:
    return word - (1 << 32) if word >> 31 else word


def _interrupt(domain: int, got: abi.ReadInterrupt) -> Interrupt:
    message = got.kind != Kind.GSI
    device = got.device
    return Interrupt(
        kind=Kind(got.kind),
        domain=domain,
        pirq=_some(got.pirq),
        gsi=None if message else Gsi(got.gsi),
        function=Sbdf.from_devfn(device.seg, device.bus, device.devfn) if message else None,
        entry=got.entry if message else None,
        cpu=_some(got.cpu),
        vector=_some(got.vector),
        flags=InterruptFlag(got.flags),
    )
