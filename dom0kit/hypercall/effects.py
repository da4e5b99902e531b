# SPDX-License-Identifier: MIT
"""How each operation of a plan is done and undone.

An operation has an `Effect`, with three steps:

- `look` reads what the operation will change, and refuses what could not be brought back. It changes nothing. Its
  answer, the *image*, goes into the journal before anything is done. `Already` says that there is nothing to do.
- `do` makes the calls, and gives the operation's result.
- `undo` brings back the image, from whatever state it finds: before `do`, after it, between two of its calls, or
  between two calls of an earlier `undo` that was killed. So it looks at the state first, and asks for what is missing.
"""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final, Generic, TypeVar

from dom0kit import plan as p
from dom0kit.abi import InterruptFlag, Kind, Status
from dom0kit.address import Gsi, Polarity, Sbdf, Trigger
from dom0kit.hypercall.images import (
    CpuImage,
    DriverImage,
    EntriesImage,
    FunctionsImage,
    Image,
    MessageImage,
    MessagesImage,
    Nothing,
    PinImage,
    Pirqs,
    RegisterImage,
    TextImage,
    WordsImage,
)
from dom0kit.hypercall.interface import SELF, HypercallRefused
from dom0kit.hypercall.world import MASKED, STATUS_BITS, Already, Refused, World, caller
from dom0kit.hypercall.xen import Xen
from dom0kit.plan import AnyOperation, Backend, Message, ResultOf

_LEVEL: Final = 1 << 15
_ACTIVE_LOW: Final = 1 << 13
_LOGICAL: Final = 1 << 11
_DESTINATION: Final = 0xFFFE << 48 | _LOGICAL
_COMMAND: Final = 0x04
_MEMORY_DECODE: Final = 0x0002


@contextlib.contextmanager
def _tolerating(*statuses: Status) -> Iterator[None]:
    """Undoing: what is not there any more need not be taken away."""
    try:
        yield
    except HypercallRefused as refused:
        if refused.status not in statuses:
            raise


# ---- Redirection entries and GSIs ------------------------------------------------------------------------------------


def _write_entry(world: World, ioapic: int, pin: int, entry: int) -> None:
    """Both words: masked first, then the high one, then the low one. What is so already is not written."""
    now = world.entry(ioapic, pin)
    low, high = 0x10 + 2 * pin, 0x11 + 2 * pin
    if now == entry:
        return
    write = world.hypervisor.apic_write
    if (now ^ entry) >> 32:
        if not now & MASKED:
            write(ioapic, low, now & 0xFFFFFFFF | MASKED)
        if entry & MASKED and (now ^ entry) & 0xFFFFFFFF:
            # The high word of a masked entry may be anything, but with a low word both are checked.
            write(ioapic, high, 0)
            write(ioapic, low, entry & 0xFFFFFFFF)
        write(ioapic, high, entry >> 32)
    if world.entry(ioapic, pin) != entry:
        write(ioapic, low, entry & 0xFFFFFFFF)


def _restore_pin(world: World, before: PinImage) -> None:
    hypervisor, gsi = world.hypervisor, Gsi(before.gsi)
    now = world.pin(gsi)
    if (world.intercept and now.has_vector and not before.has_vector) or (now.set_up and not before.set_up):
        # Only the end of its last pIRQ takes a vector and a set-up away.
        pirq = now.pirq
        if pirq is None:
            pirq = hypervisor.map_gsi(gsi, world.free_pirq(SELF, 1, gsi=True))
        hypervisor.unmap_pirq(pirq)
        now = world.pin(gsi)
    if now.pirq not in (None, before.pirq):
        hypervisor.unmap_pirq(now.pirq)
        now = world.pin(gsi)
    if now.pirq is None and before.pirq is not None:
        hypervisor.map_gsi(gsi, before.pirq)
    if before.set_up and not now.set_up:
        level, low = bool(before.entry & _LEVEL), bool(before.entry & _ACTIVE_LOW)
        hypervisor.setup_gsi(gsi, Trigger.LEVEL if level else Trigger.EDGE, Polarity.LOW if low else Polarity.HIGH)
    _write_entry(world, before.ioapic, before.pin, before.entry)
    if world.intercept and before.has_vector and not world.pin(gsi).has_vector:
        hypervisor.alloc_irq_vector(world.irq(gsi, before.pirq))


def _must_be_undoable(world: World, pin: PinImage) -> None:
    """Refused where taking back a vector or a set-up would take more with it."""
    if pin.shared:
        raise Refused(f"GSI {pin.gsi} has several users on pIRQ {pin.pirq}, who would lose it: release it first")
    if world.intercept and pin.has_vector and not world.gave_vector(pin.gsi):
        raise Refused(f"GSI {pin.gsi} has a vector already, which could not be given back to it: release the GSI first")


_O = TypeVar("_O", bound=p.Operation)
_I = TypeVar("_I", bound=Image)


class Effect(abc.ABC, Generic[_O, _I]):
    """How one kind of operation is done and undone. All three raise Refused, HypercallRefused, LinuxRefused."""

    images: ClassVar[tuple[type[Image], ...]]

    @abc.abstractmethod
    def look(self, world: World, operation: _O) -> _I:
        """The image; Already where there is nothing to do."""

    @abc.abstractmethod
    def do(self, world: World, operation: _O, image: _I) -> int | None:
        """The operation's result."""

    @abc.abstractmethod
    def undo(self, world: World, operation: _O, image: _I, result: int | None) -> None:
        """`result`: of `do`, None where that is not known."""


class _MapGsi(Effect[p.MapGsi, Pirqs]):
    images = (Pirqs,)

    def look(self, world: World, operation: p.MapGsi) -> Pirqs:
        gsi, domain = operation.gsi, caller(operation.domain)
        if world.backend is Backend.XEN:
            if domain == SELF and world.linux.has_irq(gsi):
                raise Already(gsi)  # dom0's kernel has mapped it
            return Pirqs(first=_choose(world, operation.pirq, domain, gsi=True))
        line = world.line(gsi, domain)
        if line is not None and line.pirq is not None:
            if operation.pirq in (None, line.pirq):
                raise Already(line.pirq)
            raise Refused(f"GSI {gsi} has pIRQ {line.pirq}, not {operation.pirq}: unmap that, or plan with it")
        pin = None
        if domain == SELF:
            pin = world.pin(gsi)
            _must_be_undoable(world, pin)
        elif line is not None:
            raise Refused(f"domain {domain} uses GSI {gsi} without a pIRQ: it must release it first")
        return Pirqs(first=_choose(world, operation.pirq, domain, gsi=True), pin=pin)

    def do(self, world: World, operation: p.MapGsi, image: Pirqs) -> int:
        return world.hypervisor.map_gsi(operation.gsi, image.first, caller(operation.domain))

    def undo(self, world: World, operation: p.MapGsi, image: Pirqs, result: int | None) -> None:
        domain = caller(operation.domain)
        if image.pin is not None:
            _restore_pin(world, image.pin)
        elif world.backend is Backend.XEN:
            # What dom0 unmaps it may never map again, not even for a driver; mapped it harms nobody.
            if domain != SELF:
                with _tolerating(Status.INVALID):
                    world.hypervisor.unmap_pirq(image.first, domain)
        else:
            line = world.line(operation.gsi, domain)
            if line is not None and line.pirq == image.first:
                world.hypervisor.unmap_pirq(image.first, domain)


def _choose(world: World, wanted: int | None, domain: int, count: int = 1, *, gsi: bool) -> int:
    """A pIRQ that the plan leaves open is chosen before the call: a killed call cannot tell which it was."""
    return world.free_pirq(domain, count, gsi=gsi) if wanted is None else wanted


class _SetupGsi(Effect[p.SetupGsi, PinImage | Nothing]):
    images = (PinImage, Nothing)

    def look(self, world: World, operation: p.SetupGsi) -> PinImage | Nothing:
        if world.backend is Backend.XEN:
            return Nothing()
        pin = world.pin(operation.gsi)
        if pin.set_up:
            if pin.entry & (_LEVEL | _ACTIVE_LOW) == _signal(operation.trigger, operation.polarity):
                raise Already
            raise Refused(f"GSI {operation.gsi} was set up otherwise: release it first")
        _must_be_undoable(world, pin)
        return pin

    def do(self, world: World, operation: p.SetupGsi, image: PinImage | Nothing) -> None:
        try:
            world.hypervisor.setup_gsi(operation.gsi, operation.trigger, operation.polarity)
        except HypercallRefused as refused:
            # Xen does not show what was set up; Linux, too, takes the second time for granted.
            if world.backend is not Backend.XEN or refused.status is not Status.EXISTS:
                raise

    def undo(self, world: World, operation: p.SetupGsi, image: PinImage | Nothing, result: int | None) -> None:
        if isinstance(image, PinImage):
            _restore_pin(world, image)


def _signal(trigger: Trigger, polarity: Polarity) -> int:
    return (_LEVEL if trigger is Trigger.LEVEL else 0) | (_ACTIVE_LOW if polarity is Polarity.LOW else 0)


class _AllocIrqVector(Effect[p.AllocIrqVector, PinImage | Nothing]):
    images = (PinImage, Nothing)

    def look(self, world: World, operation: p.AllocIrqVector) -> PinImage | Nothing:
        if world.backend is Backend.XEN:
            return Nothing()
        pin = world.pin(operation.gsi)
        if world.intercept and not pin.has_vector:
            _must_be_undoable(world, pin)
        return pin

    def do(self, world: World, operation: p.AllocIrqVector, image: PinImage | Nothing) -> int:
        pirq = image.pirq if isinstance(image, PinImage) else operation.gsi
        return world.hypervisor.alloc_irq_vector(world.irq(operation.gsi, pirq))

    def undo(self, world: World, operation: p.AllocIrqVector, image: PinImage | Nothing, result: int | None) -> None:
        if isinstance(image, PinImage):
            _restore_pin(world, image)


class _WriteEntry(Effect[p.WriteEntry | p.MaskEntry, PinImage | Nothing]):
    images = (PinImage, Nothing)

    def look(self, world: World, operation: p.WriteEntry | p.MaskEntry) -> PinImage | Nothing:
        if world.backend is Backend.XEN:
            return Nothing()
        pin = world.pin(world.gsi(operation.ioapic, operation.pin))
        entry = self._wanted(operation, pin)
        if entry == pin.entry:
            raise Already
        if world.intercept and not entry & MASKED:
            if not pin.has_vector:
                _must_be_undoable(world, pin)
            elif not self._stays(pin, entry) and not world.may_move(pin.gsi):
                raise Refused(
                    f"GSI {pin.gsi} has a vector on the processor with APIC id {pin.apic_id}, and this entry moves it: "
                    "move it with set-affinity first"
                )
        return pin

    def do(self, world: World, operation: p.WriteEntry | p.MaskEntry, image: PinImage | Nothing) -> None:
        if isinstance(image, PinImage):
            _write_entry(world, operation.ioapic, operation.pin, self._wanted(operation, image))
        elif isinstance(operation, p.WriteEntry):
            # Xen ignores the high word, and chooses the destination.
            world.hypervisor.apic_write(operation.ioapic, 0x10 + 2 * operation.pin, operation.entry & 0xFFFFFFFF)

    def undo(
        self, world: World, operation: p.WriteEntry | p.MaskEntry, image: PinImage | Nothing, result: int | None
    ) -> None:
        if isinstance(image, PinImage):
            _restore_pin(world, image)

    @staticmethod
    def _wanted(operation: p.WriteEntry | p.MaskEntry, pin: PinImage) -> int:
        if isinstance(operation, p.WriteEntry):
            return operation.entry & ~STATUS_BITS
        return pin.entry | MASKED if operation.masked else pin.entry & ~MASKED

    @staticmethod
    def _stays(pin: PinImage, entry: int) -> bool:
        """Whether an unmasked entry of this kind keeps its vector in intercept mode."""
        if not pin.entry & MASKED and not (pin.entry ^ entry) & _DESTINATION:
            return True
        apic_id = entry >> 56 | (entry >> 49 & 0x7F) << 8
        return not entry & _LOGICAL and apic_id == pin.apic_id


# ---- Messages --------------------------------------------------------------------------------------------------------


class _MapMessages(Effect[p.MapMsi | p.MapMsix, Pirqs]):
    images = (Pirqs,)

    def look(self, world: World, operation: p.MapMsi | p.MapMsix) -> Pirqs:
        domain = caller(operation.domain)
        count, first, msix = _run(operation)
        if world.backend is not Backend.XEN:
            if operation.message is not None and world.intercept:
                raise Refused("the core is in intercept mode: messages are its own choice")
            had = world.pirqs_of(domain, operation.function)
            mine = sorted(
                pirq for pirq, (entry, kind) in had.items() if kind == msix and first <= entry < first + count
            )
            if mine:
                whole = len(mine) == count and (msix or len(had) == count)
                if whole and operation.pirq in (None, mine[0]) and self._is_recorded(world, operation, mine[0], domain):
                    raise Already(mine[0])
                raise Refused(
                    f"{operation.function} has messages on pIRQ {mine[0]} and on, other than these: unmap them first"
                )
        return Pirqs(first=_choose(world, operation.pirq, domain, count, gsi=False))

    def do(self, world: World, operation: p.MapMsi | p.MapMsix, image: Pirqs) -> int:
        domain, hypervisor = caller(operation.domain), world.hypervisor
        count, first, msix = _run(operation)
        if isinstance(operation, p.MapMsix):
            pirq = hypervisor.map_msix(operation.function, operation.entry, operation.table, image.first, domain)
        else:
            pirq = hypervisor.map_msi(operation.function, count, image.first, domain)
        if world.backend is Backend.XEN:
            return pirq
        for number in range(count):
            world.mapped(domain, pirq + number, operation.function, first + number, msix)
            if operation.message is not None:
                message = Message(operation.message.address, operation.message.data + number)
                hypervisor.msi_write(pirq + number, message, domain)
        return pirq

    def undo(self, world: World, operation: p.MapMsi | p.MapMsix, image: Pirqs, result: int | None) -> None:
        domain = caller(operation.domain)
        count, _, _ = _run(operation)
        for pirq in range(image.first, image.first + count):
            if world.backend is Backend.XEN:
                with _tolerating(Status.INVALID):
                    world.hypervisor.unmap_pirq(pirq, domain)
            elif pirq in world.pirqs_of(domain, operation.function):
                world.hypervisor.unmap_pirq(pirq, domain)
                world.unmapped(domain, pirq)

    @staticmethod
    def _is_recorded(world: World, operation: p.MapMsi | p.MapMsix, pirq: int, domain: int) -> bool:
        return operation.message is None or _recorded(world, pirq, domain) == operation.message


def _run(operation: p.MapMsi | p.MapMsix) -> tuple[int, int, bool]:
    """How many messages, the first one's number, and whether they are MSI-X ones."""
    return (operation.count, 0, False) if isinstance(operation, p.MapMsi) else (1, operation.entry, True)


def _recorded(world: World, pirq: int, domain: int) -> Message | None:
    """The message that dom0 chose in direct mode."""
    try:
        return world.hypervisor.msi_read(pirq, domain)
    except HypercallRefused as refused:
        if refused.status is Status.NOT_FOUND:
            return None
        raise


class _UnmapPirq(Effect[p.UnmapPirq, PinImage | MessagesImage | Pirqs | Nothing]):
    images = (PinImage, MessagesImage, Pirqs, Nothing)

    def look(self, world: World, operation: p.UnmapPirq) -> PinImage | MessagesImage | Pirqs | Nothing:
        domain, pirq = caller(operation.domain), operation.pirq
        if world.backend is Backend.XEN:
            return Nothing()
        if pirq in world.messages(domain):
            return self._look_at_messages(world, operation, domain)
        for line in world.hypervisor.interrupts(domain):
            if line.kind is not Kind.GSI or line.gsi is None:
                break
            if line.pirq != pirq:
                continue
            if InterruptFlag.SHARED in line.flags:
                raise Refused(f"pIRQ {pirq} has several users, and how many cannot be read: let each unmap its own")
            if domain == SELF:
                return world.pin(line.gsi)
            if line.vector is not None or InterruptFlag.SET_UP in line.flags or InterruptFlag.MASKED not in line.flags:
                raise Refused(f"domain {domain} uses GSI {line.gsi}, pIRQ {pirq}: it must release it first")
            return Pirqs(first=line.gsi)
        raise Already

    @staticmethod
    def _look_at_messages(world: World, operation: p.UnmapPirq, domain: int) -> MessagesImage:
        pirq, count = operation.pirq, operation.count
        function, entry, msix = world.messages(domain)[pirq]
        if msix and (count > 1 or not operation.table):
            raise Refused(f"pIRQ {pirq} is an MSI-X message of {function}: it is unmapped by itself, and needs `table`")
        if not msix and (entry or len(world.pirqs_of(domain, function)) != count):
            raise Refused(f"the MSI messages of {function} are unmapped all together, from the first on")
        messages: tuple[Message, ...] = ()
        if not world.intercept:
            recorded = [_recorded(world, number, domain) for number in range(pirq, pirq + count)]
            messages = tuple(message for message in recorded if message is not None)
            if messages and len(messages) < count:
                raise Refused(f"only some of the messages of {function} were recorded: record the others, too")
        return MessagesImage(function=function, msix=msix, entry=entry, messages=messages)

    def do(self, world: World, operation: p.UnmapPirq, image: PinImage | MessagesImage | Pirqs | Nothing) -> None:
        domain = caller(operation.domain)
        for pirq in range(operation.pirq, operation.pirq + operation.count):
            world.hypervisor.unmap_pirq(pirq, domain)
            if isinstance(image, MessagesImage):
                world.unmapped(domain, pirq)

    def undo(
        self,
        world: World,
        operation: p.UnmapPirq,
        image: PinImage | MessagesImage | Pirqs | Nothing,
        result: int | None,
    ) -> None:
        domain = caller(operation.domain)
        if isinstance(image, PinImage):
            _restore_pin(world, image)
        elif isinstance(image, Pirqs):
            line = world.line(Gsi(image.first), domain)
            if line is None or line.pirq is None:
                world.hypervisor.map_gsi(Gsi(image.first), operation.pirq, domain)
        elif isinstance(image, MessagesImage):
            self._map_again(world, operation, image, domain)

    @staticmethod
    def _map_again(world: World, operation: p.UnmapPirq, image: MessagesImage, domain: int) -> None:
        hypervisor, count = world.hypervisor, operation.count
        run = range(operation.pirq, operation.pirq + count)
        left = [pirq for pirq in run if pirq in world.pirqs_of(domain, image.function)]
        if len(left) < count:
            for pirq in left:  # a run is mapped as a whole
                hypervisor.unmap_pirq(pirq, domain)
                world.unmapped(domain, pirq)
            if image.msix:
                hypervisor.map_msix(image.function, image.entry, operation.table, operation.pirq, domain)
            else:
                hypervisor.map_msi(image.function, count, operation.pirq, domain)
            for number, pirq in enumerate(run):
                world.mapped(domain, pirq, image.function, image.entry + number, image.msix)
        for pirq, message in zip(run, image.messages, strict=False):
            if _recorded(world, pirq, domain) != message:
                hypervisor.msi_write(pirq, message, domain)


class _SetAffinity(Effect[p.SetAffinity, CpuImage]):
    images = (CpuImage,)

    def look(self, world: World, operation: p.SetAffinity) -> CpuImage:
        irq, domain = world.number(operation.irq), caller(operation.domain)
        cpu = world.hypervisor.query_vector(irq, domain).cpu
        if cpu is None:
            raise Refused(f"IRQ {irq} goes to several processors: write its entry instead")
        pin = None
        if irq in world.messages(domain):
            if cpu == operation.cpu:
                raise Already
        elif domain == SELF:
            pin = self._pin(world, irq)
        return CpuImage(irq=irq, cpu=cpu, pin=pin, fleeting=world.mapped_here(domain, irq))

    @staticmethod
    def _pin(world: World, irq: int) -> PinImage | None:
        for line in world.hypervisor.interrupts():
            if line.kind is not Kind.GSI:
                break
            if line.gsi is not None and irq == (line.gsi if line.pirq is None else line.pirq):
                return world.pin(line.gsi)
        return None

    def do(self, world: World, operation: p.SetAffinity, image: CpuImage) -> None:
        world.hypervisor.set_affinity(image.irq, operation.cpu, caller(operation.domain))

    def undo(self, world: World, operation: p.SetAffinity, image: CpuImage, result: int | None) -> None:
        domain = caller(operation.domain)
        if image.fleeting:
            return
        if world.hypervisor.query_vector(image.irq, domain).cpu != image.cpu:
            try:
                world.hypervisor.set_affinity(image.irq, image.cpu, domain)
            except HypercallRefused as refused:
                if refused.status is Status.TRY_AGAIN:
                    raise Refused(f"IRQ {image.irq} is still moving, until it comes once more") from refused
                raise
        if image.pin is not None:
            _write_entry(world, image.pin.ioapic, image.pin.pin, image.pin.entry)


class _WriteMessage(Effect[p.WriteMessage, MessageImage]):
    images = (MessageImage,)

    def look(self, world: World, operation: p.WriteMessage) -> MessageImage:
        if world.intercept:
            raise Refused("the core is in intercept mode: messages are its own choice")
        now = _recorded(world, operation.pirq, caller(operation.domain))
        if now is None:
            raise Refused(f"pIRQ {operation.pirq} has no message yet: map it together with its first one")
        if now == operation.message:
            raise Already
        return MessageImage(message=now)

    def do(self, world: World, operation: p.WriteMessage, image: MessageImage) -> None:
        world.hypervisor.msi_write(operation.pirq, operation.message, caller(operation.domain))

    def undo(self, world: World, operation: p.WriteMessage, image: MessageImage, result: int | None) -> None:
        domain = caller(operation.domain)
        if _recorded(world, operation.pirq, domain) != image.message:
            world.hypervisor.msi_write(operation.pirq, image.message, domain)


# ---- What the machine has --------------------------------------------------------------------------------------------


class _PciMmcfgReserved(Effect[p.PciMmcfgReserved, Nothing]):
    images = (Nothing,)

    def look(self, world: World, operation: p.PciMmcfgReserved) -> Nothing:
        return Nothing()

    def do(self, world: World, operation: p.PciMmcfgReserved, image: Nothing) -> None:
        self._tell(world, operation, operation.reserved)

    def undo(self, world: World, operation: p.PciMmcfgReserved, image: Nothing, result: int | None) -> None:
        if operation.was is not None:
            with _tolerating(Status.NO_DEVICE):  # it never knew the range
                self._tell(world, operation, operation.was)

    @staticmethod
    def _tell(world: World, operation: p.PciMmcfgReserved, reserved: bool) -> None:
        buses = operation.start_bus, operation.end_bus
        world.hypervisor.pci_mmcfg_reserved(operation.address, operation.segment, *buses, reserved)


def _count_functions(world: World, function: Sbdf) -> FunctionsImage:
    if world.backend is not Backend.XEN:
        return FunctionsImage(count=world.hypervisor.information().functions)
    known = None
    if isinstance(world.hypervisor, Xen):
        with contextlib.suppress(HypercallRefused):
            known = world.hypervisor.knows([function])[function]
    return FunctionsImage(count=None, known=known)


def _add(world: World, operation: p.PciDeviceAdd | p.PciDeviceRemove) -> None:
    world.hypervisor.pci_device_add(
        operation.function, physical=operation.physical, extended=operation.extended, pxm=operation.pxm
    )


class _PciDeviceAdd(Effect[p.PciDeviceAdd, FunctionsImage]):
    images = (FunctionsImage,)

    def look(self, world: World, operation: p.PciDeviceAdd) -> FunctionsImage:
        image = _count_functions(world, operation.function)
        if image.known:
            raise Already
        return image

    def do(self, world: World, operation: p.PciDeviceAdd, image: FunctionsImage) -> int | None:
        """1 where the core did not know the function, 0 where it did."""
        _add(world, operation)
        return None if image.count is None else world.hypervisor.information().functions - image.count

    def undo(self, world: World, operation: p.PciDeviceAdd, image: FunctionsImage, result: int | None) -> None:
        if image.count is None:
            added = image.known is False
        elif result is None:
            added = world.hypervisor.information().functions > image.count
        else:
            added = result == 1
        if added:
            # BUSY on Xen: its IOMMU did not take the function, and Xen would die of its removal.
            left = (Status.BUSY,) if world.backend is Backend.XEN else ()
            with _tolerating(Status.NO_DEVICE, *left):
                world.hypervisor.pci_device_remove(operation.function)


class _PciDeviceRemove(Effect[p.PciDeviceRemove, FunctionsImage]):
    images = (FunctionsImage,)

    def look(self, world: World, operation: p.PciDeviceRemove) -> FunctionsImage:
        if world.backend is not Backend.XEN and world.pirqs_of(SELF, operation.function):
            raise Refused(f"{operation.function} has messages: unmap them first")
        image = _count_functions(world, operation.function)
        if image.known is False:
            raise Already
        return image

    def do(self, world: World, operation: p.PciDeviceRemove, image: FunctionsImage) -> int | None:
        """1 where the core knew the function, 0 where it did not."""
        if image.count is not None:
            # Added with other values, it could not be added again as it was: the core says so.
            _add(world, operation)
        world.hypervisor.pci_device_remove(operation.function)
        return None if image.count is None else image.count - world.hypervisor.information().functions

    def undo(self, world: World, operation: p.PciDeviceRemove, image: FunctionsImage, result: int | None) -> None:
        now = 0 if image.count is None else world.hypervisor.information().functions - image.count
        if image.count is None or result == 1 or (result is None and now < 0):
            _add(world, operation)
        elif result is None and now > 0:
            world.hypervisor.pci_device_remove(operation.function)


class _IoapicAdd(Effect[p.IoapicAdd, Nothing]):
    images = (Nothing,)

    def look(self, world: World, operation: p.IoapicAdd) -> Nothing:
        for ioapic in world.ioapics():
            if ioapic.address == operation.address:
                if ioapic.gsi_base == operation.gsi_base:
                    raise Already(ioapic.pins)
                raise Refused(f"the IOAPIC at {operation.address:#x} has GSI base {ioapic.gsi_base} already")
        return Nothing()

    def do(self, world: World, operation: p.IoapicAdd, image: Nothing) -> int:
        return world.hypervisor.ioapic_add(operation.address, operation.gsi_base)

    def undo(self, world: World, operation: p.IoapicAdd, image: Nothing, result: int | None) -> None:
        if world.has_ioapic(operation.address):
            world.hypervisor.ioapic_remove(operation.address)


class _IoapicRemove(Effect[p.IoapicRemove, EntriesImage]):
    images = (EntriesImage,)

    def look(self, world: World, operation: p.IoapicRemove) -> EntriesImage:
        for ioapic in world.ioapics():
            if ioapic.address == operation.address:
                break
        else:
            raise Already
        if ioapic.gsi_base != operation.gsi_base:
            raise Refused(f"the IOAPIC at {operation.address:#x} has GSI base {ioapic.gsi_base}: make the plan anew")
        for line in world.hypervisor.interrupts():
            if line.gsi is not None and ioapic.gsi_base <= line.gsi < ioapic.gsi_base + ioapic.pins:
                raise Refused(f"GSI {line.gsi} of the IOAPIC at {operation.address:#x} is in use: release it first")
        return EntriesImage(entries=tuple(world.entry(operation.address, pin) for pin in range(ioapic.pins)))

    def do(self, world: World, operation: p.IoapicRemove, image: EntriesImage) -> None:
        world.hypervisor.ioapic_remove(operation.address)

    def undo(self, world: World, operation: p.IoapicRemove, image: EntriesImage, result: int | None) -> None:
        if not world.has_ioapic(operation.address):
            world.hypervisor.ioapic_add(operation.address, operation.gsi_base)
        for pin, entry in enumerate(image.entries):
            _write_entry(world, operation.address, pin, entry)


# ---- Domains ---------------------------------------------------------------------------------------------------------


class _CreateDomain(Effect[p.CreateDomain, Nothing]):
    images = (Nothing,)

    def look(self, world: World, operation: p.CreateDomain) -> Nothing:
        if world.has_domain(operation.domain):
            raise Refused(f"there is a domain {operation.domain} already: destroy it, or plan with another number")
        return Nothing()

    def do(self, world: World, operation: p.CreateDomain, image: Nothing) -> int:
        return world.hypervisor.domain_create(operation.domain, operation.vectors)

    def undo(self, world: World, operation: p.CreateDomain, image: Nothing, result: int | None) -> None:
        with _tolerating(Status.NO_DOMAIN):
            world.hypervisor.domain_destroy(operation.domain)


class _DestroyDomain(Effect[p.DestroyDomain, Nothing]):
    images = (Nothing,)

    def look(self, world: World, operation: p.DestroyDomain) -> Nothing:
        if not world.has_domain(operation.domain):
            raise Already
        domain = operation.domain
        if next(iter(world.hypervisor.interrupts(domain)), None) is not None:
            raise Refused(f"domain {domain} has interrupts: unmap them first")
        for gsi in (gsi for each in world.ioapics() for gsi in range(each.gsi_base, each.gsi_base + each.pins)):
            if not world.gsi_is_anothers(domain, Gsi(gsi)):
                raise Refused(f"domain {domain} has GSI {gsi}: release it first")
        for function in world.linux.functions():
            with _tolerating(Status.NO_DEVICE):
                if not world.function_is_anothers(domain, function):
                    raise Refused(f"domain {domain} has {function}: release it first")
        return Nothing()

    def do(self, world: World, operation: p.DestroyDomain, image: Nothing) -> None:
        world.hypervisor.domain_destroy(operation.domain)

    def undo(self, world: World, operation: p.DestroyDomain, image: Nothing, result: int | None) -> None:
        with _tolerating(Status.EXISTS):
            world.hypervisor.domain_create(operation.domain, operation.vectors)


class _AssignDevice(Effect[p.AssignDevice, Nothing]):
    images = (Nothing,)

    def look(self, world: World, operation: p.AssignDevice) -> Nothing:
        domain, function = operation.domain, operation.function
        if not world.function_is_anothers(domain, function):
            raise Already
        if world.function_is_anothers(SELF, function):
            raise Refused(f"{function} is another domain's: that must release it first")
        return Nothing()

    def do(self, world: World, operation: p.AssignDevice, image: Nothing) -> None:
        world.hypervisor.assign_device(operation.domain, operation.function)

    def undo(self, world: World, operation: p.AssignDevice, image: Nothing, result: int | None) -> None:
        with _tolerating(Status.NOT_FOUND, Status.NO_DEVICE, Status.NO_DOMAIN):
            world.hypervisor.release_device(operation.domain, operation.function)


class _ReleaseDevice(Effect[p.ReleaseDevice, Nothing]):
    images = (Nothing,)

    def look(self, world: World, operation: p.ReleaseDevice) -> Nothing:
        domain, function = operation.domain, operation.function
        if not world.function_is_anothers(SELF, function):
            raise Already
        if world.function_is_anothers(domain, function):
            raise Refused(f"{function} is not domain {domain}'s, but another's")
        if world.pirqs_of(domain, function):
            raise Refused(f"{function} has messages in domain {domain}: unmap them first")
        return Nothing()

    def do(self, world: World, operation: p.ReleaseDevice, image: Nothing) -> None:
        world.hypervisor.release_device(operation.domain, operation.function)

    def undo(self, world: World, operation: p.ReleaseDevice, image: Nothing, result: int | None) -> None:
        if world.function_is_anothers(operation.domain, operation.function):
            world.hypervisor.assign_device(operation.domain, operation.function)


class _AssignGsi(Effect[p.AssignGsi, PinImage]):
    images = (PinImage,)

    def look(self, world: World, operation: p.AssignGsi) -> PinImage:
        domain, gsi = operation.domain, operation.gsi
        if not world.gsi_is_anothers(domain, gsi):
            raise Already
        if world.gsi_is_anothers(SELF, gsi):
            raise Refused(f"GSI {gsi} is another domain's: that must release it first")
        if world.line(gsi) is not None:
            raise Refused(f"domain 0 uses GSI {gsi}: release it first")
        return world.pin(gsi)

    def do(self, world: World, operation: p.AssignGsi, image: PinImage) -> None:
        world.hypervisor.assign_gsi(operation.domain, operation.gsi)

    def undo(self, world: World, operation: p.AssignGsi, image: PinImage, result: int | None) -> None:
        with _tolerating(Status.NOT_FOUND, Status.NO_DOMAIN):
            world.hypervisor.release_gsi(operation.domain, operation.gsi)
        _restore_pin(world, image)


class _ReleaseGsi(Effect[p.ReleaseGsi, Nothing]):
    images = (Nothing,)

    def look(self, world: World, operation: p.ReleaseGsi) -> Nothing:
        domain, gsi = operation.domain, operation.gsi
        if not world.gsi_is_anothers(SELF, gsi):
            raise Already
        if world.gsi_is_anothers(domain, gsi):
            raise Refused(f"GSI {gsi} is not domain {domain}'s, but another's")
        if world.line(gsi, domain) is not None:
            raise Refused(f"domain {domain} uses GSI {gsi}: it must release it first")
        return Nothing()

    def do(self, world: World, operation: p.ReleaseGsi, image: Nothing) -> None:
        world.hypervisor.release_gsi(operation.domain, operation.gsi)

    def undo(self, world: World, operation: p.ReleaseGsi, image: Nothing, result: int | None) -> None:
        if world.gsi_is_anothers(operation.domain, operation.gsi):
            world.hypervisor.assign_gsi(operation.domain, operation.gsi)


# ---- PCI functions ---------------------------------------------------------------------------------------------------


class _WriteConfig(Effect[p.WriteConfig, RegisterImage]):
    images = (RegisterImage,)

    def look(self, world: World, operation: p.WriteConfig) -> RegisterImage:
        value = world.linux.config(operation.function, operation.offset, operation.width)
        if value & operation.mask == operation.value:
            raise Already
        return RegisterImage(value=value)

    def do(self, world: World, operation: p.WriteConfig, image: RegisterImage) -> None:
        self._write(world, operation, operation.value)

    def undo(self, world: World, operation: p.WriteConfig, image: RegisterImage, result: int | None) -> None:
        self._write(world, operation, image.value & operation.mask)

    @staticmethod
    def _write(world: World, operation: p.WriteConfig, bits: int) -> None:
        register = operation.function, operation.offset, operation.width
        world.linux.write_config(*register, world.linux.config(*register) & ~operation.mask | bits)


def _message(world: World, message: Message | None, pirq: int | ResultOf | None) -> Message:
    if message is not None:
        return message
    if pirq is None:
        raise Refused("neither a message nor a pIRQ is given")
    return world.hypervisor.msi_read(world.number(pirq))


class _WriteMsixEntry(Effect[p.WriteMsixEntry, WordsImage]):
    images = (WordsImage,)

    def look(self, world: World, operation: p.WriteMsixEntry) -> WordsImage:
        function = operation.function
        world.must_be_free(function)
        # Of a virtual function the bit is always 0 (PCIe 6.0, section 9.3.4.1.3): its physical function says.
        if not world.linux.is_virtual(function) and not world.linux.config(function, _COMMAND, 2) & _MEMORY_DECODE:
            raise Refused(f"{function} does not decode memory, so its MSI-X table cannot be reached: enable it first")
        low, high, data, control = world.linux.bar(function, operation.bar, self._at(operation), 4)
        return WordsImage(words=(low, high, data, control))

    def do(self, world: World, operation: p.WriteMsixEntry, image: WordsImage) -> None:
        message = _message(world, operation.message, operation.pirq)
        control = image.words[3] & ~1 | operation.masked
        self._write(world, operation, (message.address & 0xFFFFFFFF, message.address >> 32, message.data, control))

    def undo(self, world: World, operation: p.WriteMsixEntry, image: WordsImage, result: int | None) -> None:
        self._write(world, operation, image.words)

    def _write(self, world: World, operation: p.WriteMsixEntry, words: tuple[int, int, int, int]) -> None:
        function, bar, at = operation.function, operation.bar, self._at(operation)
        now = world.linux.bar(function, bar, at, 4)
        if now == words:
            return
        if not now[3] & 1:
            world.linux.write_bar(function, bar, at + 12, now[3] | 1)
        for index, word in enumerate(words):
            world.linux.write_bar(function, bar, at + 4 * index, word)

    @staticmethod
    def _at(operation: p.WriteMsixEntry) -> int:
        return operation.offset + 16 * operation.entry


_MSI_ENABLE: Final = 1
_MSI_WIDE: Final = 1 << 7
_MSI_COUNT: Final = 7 << 4


class _WriteMsi(Effect[p.WriteMsi, WordsImage]):
    images = (WordsImage,)

    def look(self, world: World, operation: p.WriteMsi) -> WordsImage:
        function, at = operation.function, operation.capability
        world.must_be_free(function)
        if world.linux.config(function, at, 1) != 0x05:
            raise Refused(f"{function} has no MSI capability at {at:#x}: make the plan anew")
        words = self._read(world, operation)
        if bool(words[0] & _MSI_WIDE) != operation.wide:
            raise Refused(f"MSI of {function} {'has no' if operation.wide else 'has an'} upper address register")
        if operation.count > 1 << (words[0] >> 1 & 7):
            raise Refused(f"{function} can send {1 << (words[0] >> 1 & 7)} MSI messages, not {operation.count}")
        return WordsImage(words=words)

    def do(self, world: World, operation: p.WriteMsi, image: WordsImage) -> None:
        message = _message(world, operation.message, operation.pirq)
        if message.address >> 32 and not operation.wide:
            raise Refused(f"MSI of {operation.function} has 32 bits for an address, not {message.address:#x}")
        control = image.words[0] & ~(_MSI_COUNT | _MSI_ENABLE)
        control |= (operation.count.bit_length() - 1) << 4 | (_MSI_ENABLE if operation.enabled else 0)
        self._write(
            world, operation, (control, message.address & 0xFFFFFFFF, message.address >> 32, message.data & 0xFFFF)
        )

    def undo(self, world: World, operation: p.WriteMsi, image: WordsImage, result: int | None) -> None:
        self._write(world, operation, image.words)

    def _read(self, world: World, operation: p.WriteMsi) -> tuple[int, int, int, int]:
        function, at, wide = operation.function, operation.capability, operation.wide
        config = world.linux.config
        return (
            config(function, at + 2, 2),
            config(function, at + 4, 4),
            config(function, at + 8, 4) if wide else 0,
            config(function, at + (12 if wide else 8), 2),
        )

    def _write(self, world: World, operation: p.WriteMsi, words: tuple[int, int, int, int]) -> None:
        function, at = operation.function, operation.capability
        control, address, upper, data = words
        now = self._read(world, operation)
        if now == words:
            return
        write = world.linux.write_config
        if now[0] & _MSI_ENABLE:
            write(function, at + 2, 2, now[0] & ~_MSI_ENABLE)
        write(function, at + 4, 4, address)
        if operation.wide:
            write(function, at + 8, 4, upper)
        write(function, at + (12 if operation.wide else 8), 2, data)
        write(function, at + 2, 2, control)


# ---- Linux -----------------------------------------------------------------------------------------------------------


class _SetDriverOverride(Effect[p.SetDriverOverride, DriverImage]):
    images = (DriverImage,)

    def look(self, world: World, operation: p.SetDriverOverride) -> DriverImage:
        now = world.linux.override(operation.function)
        if now == operation.driver:
            raise Already
        return DriverImage(driver=now)

    def do(self, world: World, operation: p.SetDriverOverride, image: DriverImage) -> None:
        world.linux.set_override(operation.function, operation.driver)

    def undo(self, world: World, operation: p.SetDriverOverride, image: DriverImage, result: int | None) -> None:
        world.linux.set_override(operation.function, image.driver)


def _bind(world: World, function: Sbdf, driver: str) -> None:
    world.linux.bind(function, driver)
    now = world.linux.driver(function)
    if now != driver:
        raise Refused(f"{function} has {f'driver {now}' if now else 'no driver'} after it was bound to {driver}")


def _unbind(world: World, function: Sbdf, driver: str) -> None:
    world.linux.unbind(function, driver)
    if world.linux.driver(function) is not None:
        raise Refused(f"driver {driver} does not let go of {function}")


class _BindDriver(Effect[p.BindDriver, Nothing]):
    images = (Nothing,)

    def look(self, world: World, operation: p.BindDriver) -> Nothing:
        now = world.linux.driver(operation.function)
        if now == operation.driver:
            raise Already
        if now is not None:
            raise Refused(f"{operation.function} has driver {now}: unbind it first")
        return Nothing()

    def do(self, world: World, operation: p.BindDriver, image: Nothing) -> None:
        _bind(world, operation.function, operation.driver)

    def undo(self, world: World, operation: p.BindDriver, image: Nothing, result: int | None) -> None:
        now = world.linux.driver(operation.function)
        if now == operation.driver:
            _unbind(world, operation.function, operation.driver)
        elif now is not None:
            raise Refused(f"{operation.function} has driver {now} by now, not {operation.driver}: unbind it first")


class _UnbindDriver(Effect[p.UnbindDriver, DriverImage]):
    images = (DriverImage,)

    def look(self, world: World, operation: p.UnbindDriver) -> DriverImage:
        now = world.linux.driver(operation.function)
        if now is None:
            raise Already
        if now != operation.driver:
            raise Refused(f"{operation.function} has driver {now}, not {operation.driver}: make the plan anew")
        return DriverImage(driver=world.linux.override(operation.function))

    def do(self, world: World, operation: p.UnbindDriver, image: DriverImage) -> None:
        _unbind(world, operation.function, operation.driver)

    def undo(self, world: World, operation: p.UnbindDriver, image: DriverImage, result: int | None) -> None:
        function, driver = operation.function, operation.driver
        if world.linux.driver(function) != driver:
            if world.linux.override(function) not in (None, driver):
                world.linux.set_override(function, driver)  # else Linux does not bind it
            _bind(world, function, driver)
        if world.linux.override(function) != image.driver:
            world.linux.set_override(function, image.driver)


class _ResetFunction(Effect[p.ResetFunction, TextImage]):
    images = (TextImage,)

    def look(self, world: World, operation: p.ResetFunction) -> TextImage:
        function, method = operation.function, operation.method
        driver = world.linux.driver(function)
        if driver is not None:
            raise Refused(f"{function} has driver {driver}: unbind it first")
        offered = world.linux.reset_methods(function)
        if method is not None and method not in offered:
            raise Refused(f"Linux cannot reset {function} by {method}: it offers {' '.join(offered) or 'no way'}")
        return TextImage(text=" ".join(offered))

    def do(self, world: World, operation: p.ResetFunction, image: TextImage) -> None:
        function, method = operation.function, operation.method
        if method is not None and method != image.text:
            world.linux.set_reset_methods(function, method)
        world.linux.reset(function)
        self.undo(world, operation, image, None)

    def undo(self, world: World, operation: p.ResetFunction, image: TextImage, result: int | None) -> None:
        """Only the choice of methods can have been left."""
        if image.text and " ".join(world.linux.reset_methods(operation.function)) != image.text:
            world.linux.set_reset_methods(operation.function, image.text)


class _SetLinuxAffinity(Effect[p.SetLinuxAffinity, TextImage]):
    images = (TextImage,)

    def look(self, world: World, operation: p.SetLinuxAffinity) -> TextImage:
        return TextImage(text=world.linux.affinity(operation.irq))

    def do(self, world: World, operation: p.SetLinuxAffinity, image: TextImage) -> None:
        world.linux.set_affinity(operation.irq, operation.cpus)

    def undo(self, world: World, operation: p.SetLinuxAffinity, image: TextImage, result: int | None) -> None:
        world.linux.set_affinity(operation.irq, image.text)


EFFECTS: Final[Mapping[type[p.Operation], Effect[Any, Any]]] = {
    p.MapGsi: _MapGsi(),
    p.SetupGsi: _SetupGsi(),
    p.AllocIrqVector: _AllocIrqVector(),
    p.WriteEntry: _WriteEntry(),
    p.MaskEntry: _WriteEntry(),
    p.MapMsi: _MapMessages(),
    p.MapMsix: _MapMessages(),
    p.UnmapPirq: _UnmapPirq(),
    p.SetAffinity: _SetAffinity(),
    p.WriteMessage: _WriteMessage(),
    p.PciMmcfgReserved: _PciMmcfgReserved(),
    p.PciDeviceAdd: _PciDeviceAdd(),
    p.PciDeviceRemove: _PciDeviceRemove(),
    p.IoapicAdd: _IoapicAdd(),
    p.IoapicRemove: _IoapicRemove(),
    p.CreateDomain: _CreateDomain(),
    p.DestroyDomain: _DestroyDomain(),
    p.AssignDevice: _AssignDevice(),
    p.ReleaseDevice: _ReleaseDevice(),
    p.AssignGsi: _AssignGsi(),
    p.ReleaseGsi: _ReleaseGsi(),
    p.WriteConfig: _WriteConfig(),
    p.WriteMsixEntry: _WriteMsixEntry(),
    p.WriteMsi: _WriteMsi(),
    p.SetDriverOverride: _SetDriverOverride(),
    p.BindDriver: _BindDriver(),
    p.UnbindDriver: _UnbindDriver(),
    p.ResetFunction: _ResetFunction(),
    p.SetLinuxAffinity: _SetLinuxAffinity(),
}


def effect_of(operation: AnyOperation) -> Effect[Any, Any]:
    return EFFECTS[type(operation)]
