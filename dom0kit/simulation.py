# SPDX-License-Identifier: MIT
"""A recorded machine's tables boot the modelled core, and a dom0's usual calls are made to it.

The order is Linux's under Xen (drivers/xen/pci.c, arch/x86/pci/xen.c): ECAM ranges and functions, physical ones before
virtual ones; a driver then enables its function, which maps and sets up the GSI of its INTx line, and asks for
messages. IOAPICs that only the namespace has are added first, as Linux adds them with their host bridge.
shared_info and the hand-over come last. In direct mode dom0 also chooses every vector.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from dom0kit.abi import Feature, Format, InterruptFlag, Kind, Mode, Status
from dom0kit.acpi.tables.mcfg import Mcfg
from dom0kit.address import Gsi, Polarity, Sbdf, Trigger
from dom0kit.hypercall.core_library import IoapicModel, ModelMachine
from dom0kit.hypercall.interface import HypercallRefused, Hypervisor, Interrupt, Message
from dom0kit.hypercall.shared_info import SharedInfo, parse_shared_info
from dom0kit.ioapic.controllers import Ioapic
from dom0kit.msi.state import MsiState
from dom0kit.pci.function import Function
from dom0kit.platform import Platform
from dom0kit.processors import ProcessorState
from dom0kit.source.interface import RawTable

RSDP_AT: Final = 0xE0000
_TABLES_AT: Final = 0x7000_0000
SHARED_AT: Final = 0x7FF0_0000
_VERSION: Final = 0x20
"""Where nobody read the version register: that of chipsets since 2008, with an EOI register."""
_APIC_IDS: Final = 0xFF
"""Below it, a message or redirection entry in compatibility format reaches a processor (0xff is all of them)."""
_FIRST_VECTOR, _LAST_VECTOR, _SYSTEM_CALL = 0x30, 0xEA, 0x80
"""Linux's vectors for devices, less the ISA ones (arch/x86/include/asm/irq_vectors.h)."""


class OwnedGsi(msgspec.Struct, frozen=True, kw_only=True):
    """An interrupt line that the core routes."""

    gsi: Gsi
    pirq: int | None
    cpu: int | None
    """Index of the processor in the order of the MADT."""
    vector: int | None
    trigger: Trigger
    polarity: Polarity
    masked: bool
    shared: bool
    """Several functions map it."""


class OwnedMessage(msgspec.Struct, frozen=True, kw_only=True):
    """An MSI or MSI-X message that the core routes."""

    function: Sbdf
    msix: bool
    entry: int
    pirq: int | None
    cpu: int | None
    vector: int | None


class OwnedProcessor(msgspec.Struct, frozen=True):
    """A processor's vectors that are in use."""

    cpu: int
    vectors: tuple[int, ...]


class Reported(msgspec.Struct, frozen=True):
    """Something the core found wrong with the machine."""

    code: str
    """Of ``HV_REPORT_*``, such as ``ioapic_overlap``."""
    sentence: str
    where: int
    """Physical address of the table or IOAPIC, in the model."""
    value: int


class Refusal(msgspec.Struct, frozen=True):
    """A call the core refused."""

    call: str
    status: str
    """Of ``enum hv_status``, such as ``no_space``."""
    reason: str


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """How much the core has, or can have."""

    processors: int
    ioapics: int
    domains: int
    functions: int
    messages: int


class Simulation(msgspec.Struct, frozen=True, kw_only=True):
    """What the core owns after a dom0 made its calls."""

    machine: str
    note: str = "a model: nothing here touches hardware, and other domains are bookkeeping only"
    mode: str
    """``intercept`` or ``direct``."""
    features: tuple[str, ...]
    counts: Counts
    limits: Counts
    core_bytes: int
    """Size of the core's one structure."""
    calls: int
    calls_refused: int
    processors: tuple[OwnedProcessor, ...]
    shared_info: SharedInfo
    gsis: tuple[OwnedGsi, ...]
    messages: tuple[OwnedMessage, ...]
    reports: tuple[Reported, ...]
    refusals: tuple[Refusal, ...]


def memory_image(tables: Iterable[RawTable]) -> tuple[list[tuple[int, bytes]], int, int]:
    """Physical memory as (address, bytes) with the tables, an XSDT and an RSDP; the RSDP's and the XSDT's addresses."""
    image = bytearray()
    addresses: list[int] = []
    for table in tables:
        if table.name in ("RSDP", "RSDT", "XSDT", "FACS") or not table.data or table.dynamic:
            continue
        addresses.append(_TABLES_AT + len(image))
        image += table.data
        image += bytes(-len(image) % 16)
    root = _TABLES_AT + len(image)
    body = struct.pack(f"<{len(addresses)}Q", *addresses)
    header = struct.pack("<4sIBB6s8sI4sI", b"XSDT", 36 + len(body), 1, 0, b"DOM0K ", b"MODEL   ", 1, b"DOM0", 1)
    image += _summed(header + body, 9)
    rsdp = _summed(struct.pack("<8sB6sBI", b"RSD PTR ", 0, b"DOM0K ", 2, 0), 8) + struct.pack("<IQB3x", 36, root, 0)
    return [(_TABLES_AT, bytes(image)), (RSDP_AT, _summed(rsdp, 32))], RSDP_AT, root


def _summed(data: bytes, at: int) -> bytes:
    """With the byte at `at` (0 so far) such that all add up to 0 modulo 256."""
    return data[:at] + bytes([-sum(data) & 0xFF]) + data[at + 1 :]


def machine_of(platform: Platform, tables: Sequence[RawTable], mode: Mode = Mode.INTERCEPT) -> ModelMachine:
    """The modelled machine of an observed one: its tables, its IOAPICs, and the core started on them."""
    memory, rsdp, _ = memory_image(tables)
    # APIC ids above what a message carries are reached through a remapper only.
    wide = mode is Mode.INTERCEPT and any(apic_id >= _APIC_IDS for apic_id in _apic_ids(platform))
    format = Format.VTD if wide else Format.COMPATIBILITY
    return ModelMachine(
        memory=memory,
        ioapics=[
            IoapicModel(
                address=ioapic.address,
                id=ioapic.id,
                version=(ioapic.pins - 1) << 16 | (_VERSION if ioapic.version is None else ioapic.version),
            )
            for ioapic in _ioapics(platform)
        ],
        rsdp=rsdp,
        mode=mode,
        entry_format=format,
        message_format=format,
    )


def _ioapics(platform: Platform) -> list[Ioapic]:
    """Those that can be modelled: the first at each address, and none at 0."""
    found: dict[int, Ioapic] = {}
    for ioapic in platform.ioapics:
        if ioapic.address:
            found.setdefault(ioapic.address, ioapic)
    return list(found.values())


def _apic_ids(platform: Platform) -> list[int]:
    found = platform.processors.processors if platform.processors else ()
    return [each.apic_id for each in found if each.in_madt and each.state is ProcessorState.ENABLED]


def booted(
    platform: Platform, tables: Sequence[RawTable], mode: Mode = Mode.INTERCEPT, *, told: bool = False
) -> ModelMachine:
    """The modelled machine, just started; with `told`, after a dom0's kernel told it of the machine, as under Xen.

    ValueError when no model can be made of the machine.
    """
    machine = machine_of(platform, tables, mode)
    if told:
        dom0 = _Dom0(machine.domain(0), platform, None)
        dom0.tell_ranges()
        dom0.tell_functions()
    return machine


def simulate(platform: Platform, tables: Sequence[RawTable], mode: Mode = Mode.INTERCEPT) -> Simulation:
    """Boots the model and makes a dom0's calls. ValueError when no model can be made of the machine."""
    machine = machine_of(platform, tables, mode)
    _, rsdp, xsdt = memory_image(tables)
    core = machine.domain(0)
    dom0 = _Dom0(core, platform, _Chooser(machine, _apic_ids(platform)) if mode is Mode.DIRECT else None)
    dom0.add_ioapics()
    dom0.tell_ranges()
    dom0.tell_functions()
    dom0.enable_functions()
    dom0.attempt(core.map_shared_info, SHARED_AT)
    dom0.attempt(core.hand_over, rsdp, xsdt, parse_shared_info(machine.shared_info()).counter)
    return _owned(platform.origin.name, core, parse_shared_info(machine.shared_info()), dom0.refusals)


def _owned(machine: str, core: Hypervisor, shared_info: SharedInfo, refusals: Iterable[Refusal]) -> Simulation:
    told = core.information()
    interrupts = list(core.interrupts())
    vectors: list[list[int]] = [[] for _ in range(told.cpus)]
    for each in interrupts:
        if each.cpu is not None and each.vector is not None:
            vectors[each.cpu].append(each.vector)
    return Simulation(
        machine=machine,
        mode=Mode(told.mode).name.lower(),
        features=tuple(feature.name.lower() for feature in Feature if feature & told.features and feature.name),
        counts=Counts(
            processors=told.cpus,
            ioapics=told.ioapics,
            domains=told.domains,
            functions=told.functions,
            messages=told.messages,
        ),
        limits=Counts(
            processors=told.limit_cpus,
            ioapics=told.limit_ioapics,
            domains=told.limit_domains,
            functions=told.limit_functions,
            messages=told.limit_messages,
        ),
        core_bytes=told.bytes,
        calls=told.calls,
        calls_refused=told.calls_refused,
        processors=tuple(OwnedProcessor(cpu, tuple(sorted(used))) for cpu, used in enumerate(vectors)),
        shared_info=shared_info,
        gsis=tuple(_gsi(each, each.gsi) for each in interrupts if each.gsi is not None),
        messages=tuple(_message(each, each.function) for each in interrupts if each.function is not None),
        reports=tuple(
            Reported(report.code.name.lower(), report.sentence, report.where, report.value) for report in core.reports()
        ),
        refusals=tuple(refusals),
    )


def _gsi(interrupt: Interrupt, gsi: Gsi) -> OwnedGsi:
    flags = interrupt.flags
    return OwnedGsi(
        gsi=gsi,
        pirq=interrupt.pirq,
        cpu=interrupt.cpu,
        vector=interrupt.vector,
        trigger=Trigger.LEVEL if InterruptFlag.LEVEL in flags else Trigger.EDGE,
        polarity=Polarity.LOW if InterruptFlag.ACTIVE_LOW in flags else Polarity.HIGH,
        masked=InterruptFlag.MASKED in flags,
        shared=InterruptFlag.SHARED in flags,
    )


def _message(interrupt: Interrupt, function: Sbdf) -> OwnedMessage:
    return OwnedMessage(
        function=function,
        msix=interrupt.kind is Kind.MSIX,
        entry=interrupt.entry or 0,
        pirq=interrupt.pirq,
        cpu=interrupt.cpu,
        vector=interrupt.vector,
    )


class _Chooser:
    """Direct mode: the vectors that dom0's kernel would choose, processors in turns."""

    def __init__(self, machine: ModelMachine, apic_ids: Iterable[int]) -> None:
        self._machine = machine
        self._apic_ids = [apic_id for apic_id in apic_ids if apic_id < _APIC_IDS]
        self._free = (
            (apic_id, vector)
            for vector in range(_FIRST_VECTOR, _LAST_VECTOR + 1)
            if vector != _SYSTEM_CALL
            for apic_id in self._apic_ids
        )

    def message(self, core: Hypervisor, pirq: int) -> None:
        """Writes a message, as into the function's capability or table."""
        apic_id, vector = self._next(f"msi_write(irq={pirq:#x})")
        core.msi_write(pirq, Message(0xFEE0_0000 | apic_id << 12, vector))

    def line(self, core: Hypervisor, gsi: Gsi, trigger: Trigger, polarity: Polarity) -> None:
        """Unmasks the redirection entry of a GSI: its IOAPIC is found in shared_info, as dom0 does."""
        for ioapic in parse_shared_info(self._machine.shared_info()).ioapics:
            if ioapic.gsi_base <= gsi < ioapic.gsi_base + ioapic.pins:
                register = 0x10 + 2 * (gsi - ioapic.gsi_base)
                apic_id, vector = self._next(f"apic_write(apic_physbase={ioapic.address:#x}, reg={register:#x})")
                core.apic_write(ioapic.address, register + 1, apic_id << 24)
                signal = (trigger is Trigger.LEVEL) << 15 | (polarity is Polarity.LOW) << 13
                core.apic_write(ioapic.address, register, signal | vector)

    def _next(self, call: str) -> tuple[int, int]:
        for choice in self._free:
            return choice
        raise HypercallRefused(Status.NO_SPACE, f"{call} was not called")


class _Dom0:
    """A dom0 making its calls; what is refused is kept."""

    def __init__(self, core: Hypervisor, platform: Platform, chooser: _Chooser | None) -> None:
        self.refusals: list[Refusal] = []
        self._core = core
        self._platform = platform
        self._chooser = chooser
        self._set_up: set[tuple[Gsi, Trigger, Polarity]] = set()

    def attempt(self, call: Callable[..., object], *arguments: object, **more: object) -> bool:
        try:
            call(*arguments, **more)
        except HypercallRefused as refused:
            status = refused.status
            self.refusals.append(Refusal(refused.call, status.name.lower(), status.sentence))
            return False
        return True

    def add_ioapics(self) -> None:
        for ioapic in _ioapics(self._platform):
            if not ioapic.in_madt:
                self.attempt(self._core.ioapic_add, ioapic.address, Gsi(ioapic.gsi_base))

    def tell_ranges(self) -> None:
        for table in self._platform.tables:
            if isinstance(table.content, Mcfg):
                for ecam in table.content.allocations:
                    buses = ecam.start_bus, ecam.end_bus
                    self.attempt(self._core.pci_mmcfg_reserved, ecam.base_address, ecam.segment, *buses, True)

    def tell_functions(self) -> None:
        for function in sorted(self._functions(), key=lambda function: function.physical_function is not None):
            self.attempt(
                self._core.pci_device_add,
                function.sbdf,
                physical=function.physical_function,
                pxm=function.numa_node if (function.numa_node or 0) >= 0 else None,
            )

    def enable_functions(self) -> None:
        """As if every function had a driver."""
        cpus = self._core.information().cpus
        routes = {route.sbdf: route for route in self._platform.routes}
        states = {state.sbdf: state for state in self._platform.msi}
        for function in self._functions():
            route = routes.get(function.sbdf)
            if route is not None and route.gsi is not None and route.gsi < 1 << 31:
                self._map_line(Gsi(route.gsi), route.trigger or Trigger.LEVEL, route.polarity or Polarity.LOW)
            if function.sbdf in states:
                self._map_messages(states[function.sbdf], cpus)

    def _map_line(self, gsi: Gsi, trigger: Trigger, polarity: Polarity) -> None:
        """A GSI is mapped once a function; it is set up once, or again where two functions disagree about it."""
        self.attempt(self._core.map_gsi, gsi, gsi)
        signal = gsi, trigger, polarity
        if signal in self._set_up:
            return
        if self.attempt(self._core.setup_gsi, *signal):
            self._set_up.add(signal)
            if self._chooser is not None:
                self.attempt(self._chooser.line, self._core, *signal)

    def _map_messages(self, state: MsiState, cpus: int) -> None:
        """A driver prefers MSI-X, with a message a processor at most, to MSI."""
        if state.msix is not None and state.msix.table_address:
            for entry in range(max(1, min(state.msix.vectors, cpus))):
                self.attempt(self._map_msix, state.sbdf, entry, state.msix.table_address)
        elif state.msi is not None:
            self.attempt(self._map_msi, state.sbdf)

    def _map_msix(self, function: Sbdf, entry: int, table: int) -> None:
        self._choose(self._core.map_msix(function, entry, table))

    def _map_msi(self, function: Sbdf) -> None:
        self._choose(self._core.map_msi(function))

    def _choose(self, pirq: int) -> None:
        if self._chooser is not None:
            self._chooser.message(self._core, pirq)

    def _functions(self) -> list[Function]:
        """Those a hypercall can name: it has 16 bits for a segment, and VMD numbers them from 0x10000."""
        return [function for function in self._platform.functions if function.sbdf.segment <= 0xFFFF]
