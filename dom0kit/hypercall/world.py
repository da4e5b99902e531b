# SPDX-License-Identifier: MIT
"""What the operations of a plan act upon: a hypervisor and Linux, while one plan is done or undone."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Final

from dom0kit import plan as p
from dom0kit.abi import InterruptFlag, Kind, MapPirq, Mode, Status
from dom0kit.address import Gsi, Sbdf
from dom0kit.hypercall.images import Image, PinImage, Pirqs
from dom0kit.hypercall.interface import SELF, HypercallRefused, Hypervisor, Interrupt
from dom0kit.hypercall.linux import Linux, Requested
from dom0kit.hypercall.shared_info import NotShared, SharedIoapicEntry
from dom0kit.plan import AnyFact, AnyOperation, Backend, ResultOf

MASKED: Final = 1 << 16
STATUS_BITS: Final = 1 << 12 | 1 << 14
"""Of a redirection entry: delivery status and remote IRR, which nobody writes."""
_ISA_INTERRUPTS: Final = 16
BEYOND: Final = 0x7FFFFFFF
"""A pIRQ that no domain has: a call with it is refused, and the refusal tells whose the source is."""


class Refused(Exception):
    """An operation, or a fact, is not as the plan needs it; the message says what, and what can be done."""


class Gone(Refused):
    """What an operation is about is not there, or not any more."""


class Already(Exception):
    """The operation's work is done already."""

    def __init__(self, result: int | None = None) -> None:
        self.result = result


def caller(domain: int | None) -> int:
    """A plan's domain as calls have it."""
    return SELF if domain is None or domain == 0 else domain


class _Messages:
    """A domain's messages."""

    def __init__(self) -> None:
        self.by_pirq: dict[int, tuple[Sbdf, int, bool]] = {}
        self.by_function: dict[Sbdf, dict[int, tuple[int, bool]]] = {}
        self.taken_below = 0
        """All pIRQs that messages are given, below this one, are taken."""

    def add(self, pirq: int, function: Sbdf, entry: int, msix: bool) -> None:
        self.by_pirq[pirq] = (function, entry, msix)
        self.by_function.setdefault(function, {})[pirq] = (entry, msix)

    def remove(self, pirq: int) -> None:
        known = self.by_pirq.pop(pirq, None)
        if known is not None:
            del self.by_function[known[0]][pirq]
            self.taken_below = min(self.taken_below, pirq)


class World:
    """A hypervisor and Linux, while one plan is applied or undone."""

    def __init__(self, backend: Backend, hypervisor: Hypervisor | None, linux: Linux) -> None:
        """`hypervisor` may be missing where the backend is Linux alone."""
        self.backend = backend
        self.linux = linux
        self._hypervisor = hypervisor
        self._mode: Mode | None = None
        self._messages: dict[int, _Messages] = {}
        self.results: dict[int, int | None] = {}
        """Of the operations done so far."""
        self._requested: list[Requested] | None = None
        self._bare: set[int] = set()
        self._unmasked: set[int] = set()
        self._mapped_here: set[tuple[int, int]] = set()

    def keep(self, operation: AnyOperation, image: Image) -> None:
        """An operation of this plan found this, and is going to be done."""
        pin = image.pin if isinstance(image, Pirqs) else image
        if isinstance(pin, PinImage) and not pin.has_vector:
            self._bare.add(pin.gsi)
        if isinstance(image, Pirqs) and isinstance(operation, p.MapGsi | p.MapMsi | p.MapMsix):
            count = operation.count if isinstance(operation, p.MapMsi) else 1
            domain = caller(operation.domain)
            self._mapped_here.update((domain, pirq) for pirq in range(image.first, image.first + count))
        if isinstance(image, PinImage) and isinstance(operation, p.WriteEntry | p.MaskEntry):
            self._unmasked.add(image.gsi)

    def gave_vector(self, gsi: int) -> bool:
        """A GSI had no vector when this plan came to it: undoing the plan takes away what it has now."""
        return gsi in self._bare

    def may_move(self, gsi: int) -> bool:
        """This plan gave a GSI its vector, and no interrupt can have come since: it moves without draining."""
        return gsi in self._bare and gsi not in self._unmasked

    def mapped_here(self, domain: int, pirq: int) -> bool:
        """This plan mapped the pIRQ."""
        return (domain, pirq) in self._mapped_here

    @property
    def hypervisor(self) -> Hypervisor:
        if self._hypervisor is None:
            raise Refused(f"{self.backend.value} has no hypervisor to ask")
        return self._hypervisor

    @property
    def intercept(self) -> bool:
        """The core chooses vectors."""
        if self._mode is None:
            self._mode = self.hypervisor.mode()
        return self._mode is Mode.INTERCEPT

    def number(self, number: int | ResultOf) -> int:
        """A pIRQ, or that of an earlier operation."""
        if isinstance(number, int):
            return number
        result = self.results.get(number.operation)
        if result is None:
            raise Refused(f"operation {number.operation} gave no pIRQ")
        return result

    def ioapics(self) -> tuple[SharedIoapicEntry, ...]:
        """Those that the hypervisor has now."""
        try:
            return self.hypervisor.shared_info().ioapics
        except NotShared as error:
            raise Refused(f"the hypervisor's shared_info cannot be read: {error}") from error

    def place(self, gsi: Gsi) -> tuple[int, int]:
        """IOAPIC (physical address) and pin of a GSI."""
        for ioapic in self.ioapics():
            if ioapic.gsi_base <= gsi < ioapic.gsi_base + ioapic.pins:
                return ioapic.address, gsi - ioapic.gsi_base
        raise Gone(f"no IOAPIC of the hypervisor has GSI {gsi}")

    def gsi(self, ioapic: int, pin: int) -> Gsi:
        """The GSI of a pin."""
        for each in self.ioapics():
            if each.address == ioapic:
                if pin >= each.pins:
                    raise Refused(f"the IOAPIC at {ioapic:#x} has no pin {pin}: its last is {each.pins - 1}")
                return Gsi(each.gsi_base + pin)
        raise Gone(f"the hypervisor has no IOAPIC at {ioapic:#x}")

    def entry(self, ioapic: int, pin: int) -> int:
        """A redirection entry as the caller sees it, without delivery status and remote IRR."""
        low = self.hypervisor.apic_read(ioapic, 0x10 + 2 * pin)
        return (low | self.hypervisor.apic_read(ioapic, 0x11 + 2 * pin) << 32) & ~STATUS_BITS

    def line(self, gsi: Gsi, domain: int = SELF) -> Interrupt | None:
        """What the core keeps of a domain's GSI, if anything."""
        for interrupt in self.hypervisor.interrupts(domain):
            if interrupt.kind is not Kind.GSI:
                break  # GSIs come first
            if interrupt.gsi == gsi:
                return interrupt
        return None

    def irq(self, gsi: Gsi, pirq: int | None) -> int:
        """What a hypercall names a GSI of the caller by: its pIRQ, else its own number where that is nobody's pIRQ."""
        if pirq is not None:
            return pirq
        if gsi in self.messages(SELF) or any(
            line.pirq == gsi for line in self.hypervisor.interrupts() if line.kind is Kind.GSI
        ):
            raise Refused(f"GSI {gsi} has no pIRQ, and pIRQ {gsi} is another interrupt: map the GSI first")
        return gsi

    def pin(self, gsi: Gsi) -> PinImage:
        """The state of a GSI of the caller."""
        ioapic, pin = self.place(gsi)
        entry = self.entry(ioapic, pin)
        line = self.line(gsi)
        apic_id = None
        if line is not None and line.vector is not None and line.cpu is not None:
            with contextlib.suppress(Refused):
                apic_id = self.hypervisor.query_vector(self.irq(gsi, line.pirq)).apic_id
        return PinImage(
            gsi=gsi,
            ioapic=ioapic,
            pin=pin,
            entry=entry,
            pirq=line.pirq if line is not None else None,
            set_up=line is not None and InterruptFlag.SET_UP in line.flags,
            has_vector=line is not None and line.vector is not None,
            shared=line is not None and InterruptFlag.SHARED in line.flags,
            apic_id=apic_id,
            cpu=line.cpu if line is not None else None,
        )

    def messages(self, domain: int) -> dict[int, tuple[Sbdf, int, bool]]:
        """A domain's messages by pIRQ: function, entry, whether MSI-X. Read once; `mapped`, `unmapped` keep it."""
        return self._of(domain).by_pirq

    def pirqs_of(self, domain: int, function: Sbdf) -> dict[int, tuple[int, bool]]:
        """pIRQs of a function's messages: entry, and whether MSI-X."""
        return self._of(domain).by_function.get(function, {})

    def mapped(self, domain: int, pirq: int, function: Sbdf, entry: int, msix: bool) -> None:
        self._of(domain).add(pirq, function, entry, msix)

    def unmapped(self, domain: int, pirq: int) -> None:
        self._of(domain).remove(pirq)

    def _of(self, domain: int) -> _Messages:
        if domain not in self._messages:
            known = self._messages[domain] = _Messages()
            for each in self.hypervisor.interrupts(domain):
                if each.function is not None and each.pirq is not None:
                    known.add(each.pirq, each.function, each.entry or 0, each.kind is Kind.MSIX)
        return self._messages[domain]

    def free_pirq(self, domain: int, count: int, *, gsi: bool) -> int:
        """The first of the lowest free run of pIRQs, counted from where the core itself would."""
        if self.backend is Backend.XEN:
            if domain != SELF or count > 1:
                raise Refused("Xen tells free pIRQs of dom0 only, and one at a time: give the pIRQ in the plan")
            return self.hypervisor.get_free_pirq(MapPirq.GSI if gsi else MapPirq.MSI)
        information = self.hypervisor.information()
        messages = self._of(domain)
        lines = set()
        for each in self.hypervisor.interrupts(domain):
            if each.kind is not Kind.GSI:
                break
            lines.add(each.pirq)
        first = 16
        if not gsi:
            if 16 <= information.gsis < information.limit_pirqs:
                first = information.gsis
            first = max(first, messages.taken_below)
            while first in messages.by_pirq or first in lines:
                first += 1
            messages.taken_below = first
        run = 0
        for pirq in range(first, information.limit_pirqs):
            run = 0 if pirq in messages.by_pirq or pirq in lines else run + 1
            if run == count:
                return pirq + 1 - count
        raise Refused(f"no {count} pIRQs in a row are free")

    def is_anothers(self, ask: Callable[[], object]) -> bool:
        """Whether a mapping beyond every limit, which changes nothing, is refused because the source is another's."""
        try:
            ask()
        except HypercallRefused as refused:
            if refused.status in (Status.NOT_PERMITTED, Status.OUT_OF_RANGE, Status.EXISTS, Status.NO_SPACE):
                return refused.status is Status.NOT_PERMITTED
            raise
        raise Refused("the hypervisor mapped a pIRQ that cannot be")

    def function_is_anothers(self, domain: int, function: Sbdf) -> bool:
        return self.is_anothers(lambda: self.hypervisor.map_msix(function, 0, 1, BEYOND, domain))

    def gsi_is_anothers(self, domain: int, gsi: Gsi) -> bool:
        return self.is_anothers(lambda: self.hypervisor.map_gsi(gsi, BEYOND, domain))

    def has_domain(self, domain: int) -> bool:
        try:
            next(iter(self.hypervisor.interrupts(domain)), None)
        except HypercallRefused as refused:
            if refused.status is Status.NO_DOMAIN:
                return False
            raise
        return True

    def has_ioapic(self, address: int) -> bool:
        try:
            self.hypervisor.apic_read(address, 1)
        except HypercallRefused as refused:
            if refused.status is Status.INVALID:
                return False
            raise
        return True

    def users(self, gsi: Gsi) -> tuple[str, ...]:
        """Names under which drivers of dom0's Linux have requested a GSI.

        An IRQ of Linux has its GSI's number, but for those of the ISA interrupts, which may be led to any pin of the
        first IOAPIC, and those of the other IOAPICs, whose numbers are any: of them it shows the pin, and not whose
        (arch/x86/kernel/apic/io_apic.c, alloc_irq_from_domain; arch/x86/kernel/acpi/boot.c, acpi_parse_ioapic).
        """
        if self._requested is None:
            self._requested = self.linux.requested()
        base, pins = 0, 0
        if self.backend.is_core:
            base = gsi - self.place(gsi)[1]
            pins = next((each.pins for each in self.ioapics() if each.gsi_base == 0), 0)
        names: list[str] = []
        for each in self._requested:
            if each.pin is None:
                found = each.irq == gsi
            elif each.irq < _ISA_INTERRUPTS:
                found = base == 0 and each.pin == gsi
            elif base == 0:
                found = each.irq == gsi
            else:
                of_first = each.irq == each.pin and each.irq < pins
                found = each.pin == gsi - base and not of_first
            names += each.names if found else ()
        return tuple(names)

    def must_be_free(self, function: Sbdf) -> None:
        """Refused where a driver has the function: its messages are the driver's."""
        driver = self.linux.driver(function)
        if driver is not None:
            raise Refused(f"{function} has driver {driver}, which owns its messages: unbind it first")


# ---- Facts relied upon -----------------------------------------------------------------------------------------------


def broken(world: World, fact: AnyFact) -> str | None:
    """What is so instead of a fact, as half a sentence; None where it holds. Raises as `Effect` does."""
    if isinstance(fact, p.ModeIs):
        return (
            None
            if world.intercept == fact.intercept
            else f"it is in {'intercept' if world.intercept else 'direct'} mode"
        )
    if isinstance(fact, p.FunctionIs):
        vendor, device = world.linux.identity(fact.function)
        return None if (vendor, device) == (fact.vendor, fact.device) else f"it is {vendor:04x}:{device:04x}"
    if isinstance(fact, p.DriverIs):
        driver = world.linux.driver(fact.function)
        return None if driver == fact.driver else f"it has {f'driver {driver}' if driver else 'no driver'}"
    if isinstance(fact, p.GroupIs):
        group = world.linux.group(fact.functions[0])
        return None if group == fact.functions else f"Linux has {', '.join(map(str, group)) or 'no group'}"
    if isinstance(fact, p.ConfigIs):
        value = world.linux.config(fact.function, fact.offset, fact.width)
        return None if value & fact.mask == fact.value else f"it is {value:#x}"
    if isinstance(fact, p.EntryIs):
        entry = world.entry(fact.ioapic, fact.pin)
        return None if (entry ^ fact.value) & fact.mask & ~STATUS_BITS == 0 else f"it is {entry:016x}"
    users = world.users(fact.gsi)
    return None if not users else f"{', '.join(users)} {'have' if len(users) > 1 else 'has'} it"
