# SPDX-License-Identifier: MIT
"""A recorded machine's tables boot the modelled core, and a dom0's usual calls are made to it.

The order of the calls is Linux's (drivers/xen/pci.c, arch/x86/pci/xen.c): ECAM ranges with the first function, every
function, then for each the pIRQ of its INTx line (map, set up) or of its messages; at last shared_info
and the hand-over.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from dom0kit.abi import Format, Information, Mode, Status
from dom0kit.acpi.tables.mcfg import Mcfg
from dom0kit.address import Gsi, Polarity, Sbdf, Trigger
from dom0kit.hypercall.core_library import IoapicModel, ModelMachine
from dom0kit.hypercall.interface import CoreReport, HypercallRefused, Hypervisor, Interrupt
from dom0kit.hypercall.shared_info import SharedInfo, parse_shared_info
from dom0kit.msi.state import MsiState
from dom0kit.pci.function import Function
from dom0kit.platform import Platform
from dom0kit.source.interface import RawTable

RSDP_AT: Final = 0xE0000
_TABLES_AT: Final = 0x7000_0000
SHARED_AT: Final = 0x7FF0_0000
_VERSION: Final = 0x20
"""Where nobody read the version register: that of chipsets since 2008, with an EOI register."""


class Refusal(msgspec.Struct, frozen=True):
    """A call the core refused."""

    call: str
    status: Status


class Simulation(msgspec.Struct, frozen=True, kw_only=True):
    """What the core owns after a dom0 made its calls."""

    machine: str
    mode: Mode
    information: Information
    reports: tuple[CoreReport, ...]
    """What the core found wrong with the tables."""
    interrupts: tuple[Interrupt, ...]
    refusals: tuple[Refusal, ...]
    shared_info: SharedInfo


def memory_image(tables: Iterable[RawTable]) -> tuple[list[tuple[int, bytes]], int, int]:
    """Physical memory as (address, bytes) with the tables, an XSDT and an RSDP; the RSDP's and the XSDT's addresses."""
    pieces: list[tuple[int, bytes]] = []
    addresses: list[int] = []
    at = _TABLES_AT
    for table in tables:
        if table.name in ("RSDP", "RSDT", "XSDT", "FACS") or not table.data or table.dynamic:
            continue
        pieces.append((at, table.data))
        addresses.append(at)
        at = (at + len(table.data) + 15) & ~15
    body = struct.pack(f"<{len(addresses)}Q", *addresses)
    header = struct.pack("<4sIBB6s8sI4sI", b"XSDT", 36 + len(body), 1, 0, b"DOM0K ", b"MODEL   ", 1, b"DOM0", 1)
    xsdt = _summed(header + body, 9)
    rsdp = _summed(struct.pack("<8sB6sBI", b"RSD PTR ", 0, b"DOM0K ", 2, 0), 8) + struct.pack("<IQB3x", 36, at, 0)
    pieces += [(at, xsdt), (RSDP_AT, _summed(rsdp, 32))]
    return pieces, RSDP_AT, at


def _summed(data: bytes, at: int) -> bytes:
    """With the byte at `at` (0 so far) such that all add up to 0 modulo 256."""
    return data[:at] + bytes([-sum(data) & 0xFF]) + data[at + 1 :]


def machine_of(platform: Platform, tables: Sequence[RawTable], mode: Mode = Mode.INTERCEPT) -> ModelMachine:
    """The modelled machine of an observed one: its tables, its IOAPICs, and the core started on them."""
    memory, rsdp, _ = memory_image(tables)
    processors = platform.processors.processors if platform.processors else ()
    # APIC ids above what a message carries are reached through a remapper only.
    wide = mode is Mode.INTERCEPT and any(processor.apic_id > 0xFE for processor in processors)
    format = Format.VTD if wide else Format.COMPATIBILITY
    ioapics = {ioapic.address: ioapic for ioapic in reversed(platform.ioapics) if ioapic.address}
    return ModelMachine(
        memory=memory,
        ioapics=[
            IoapicModel(
                address=ioapic.address,
                id=ioapic.id,
                version=(ioapic.pins - 1) << 16 | (_VERSION if ioapic.version is None else ioapic.version),
            )
            for ioapic in ioapics.values()
        ],
        rsdp=rsdp,
        mode=mode,
        entry_format=format,
        message_format=format,
    )


def simulate(platform: Platform, tables: Sequence[RawTable], mode: Mode = Mode.INTERCEPT) -> Simulation:
    """Boots the model and makes a dom0's calls. ValueError when no model can be made of the machine."""
    machine = machine_of(platform, tables, mode)
    dom0 = _Dom0(machine.domain(0))
    dom0.tell_ranges(platform)
    dom0.tell_functions(platform)
    dom0.route_interrupts(platform)
    dom0.hand_over(machine, *memory_image(tables)[1:])
    core = dom0.core
    information = core.information()
    return Simulation(
        machine=platform.origin.name,
        mode=mode,
        information=information,
        reports=tuple(core.reports()),
        interrupts=tuple(core.interrupts(0)),
        refusals=tuple(dom0.refusals),
        shared_info=parse_shared_info(machine.shared_info()),
    )


class _Dom0:
    """A dom0 making its calls; what is refused is kept."""

    def __init__(self, core: Hypervisor) -> None:
        self.core = core
        self.refusals: list[Refusal] = []
        self._set_up: set[int] = set()

    def _attempt(self, call: Callable[..., object], *arguments: object, **more: object) -> bool:
        try:
            call(*arguments, **more)
        except HypercallRefused as refused:
            self.refusals.append(Refusal(refused.call, refused.status))
            return False
        return True

    def tell_ranges(self, platform: Platform) -> None:
        for table in platform.tables:
            if isinstance(table.content, Mcfg):
                for ecam in table.content.allocations:
                    buses = ecam.start_bus, ecam.end_bus
                    self._attempt(self.core.pci_mmcfg_reserved, ecam.base_address, ecam.segment, *buses, True)

    def tell_functions(self, platform: Platform) -> None:
        for function in sorted(_reachable(platform), key=lambda function: function.physical_function is not None):
            self._attempt(
                self.core.pci_device_add,
                function.sbdf,
                physical=function.physical_function,
                pxm=function.numa_node if (function.numa_node or 0) >= 0 else None,
            )

    def route_interrupts(self, platform: Platform) -> None:
        cpus = self.core.information().cpus
        routes = {route.sbdf: route for route in platform.routes}
        states = {state.sbdf: state for state in platform.msi}
        for function in _reachable(platform):
            if self._map_messages(function.sbdf, states.get(function.sbdf), cpus):
                continue
            route = routes.get(function.sbdf)
            if route is not None and route.gsi is not None and route.gsi < 1 << 31:
                self._map_line(Gsi(route.gsi), route.trigger or Trigger.LEVEL, route.polarity or Polarity.LOW)

    def _map_messages(self, sbdf: Sbdf, state: MsiState | None, cpus: int) -> bool:
        """A driver prefers MSI-X, a message a processor at most, to MSI; True when it got one of them."""
        if state is None:
            return False
        if state.msix is not None and state.msix.table_address:
            wanted = range(max(1, min(state.msix.vectors, cpus)))
            got = [self._attempt(self.core.map_msix, sbdf, entry, state.msix.table_address) for entry in wanted]
            return any(got)
        return state.msi is not None and self._attempt(self.core.map_msi, sbdf)

    def _map_line(self, gsi: Gsi, trigger: Trigger, polarity: Polarity) -> None:
        if gsi not in self._set_up and self._attempt(self.core.setup_gsi, gsi, trigger, polarity):
            self._set_up.add(gsi)
        self._attempt(self.core.map_gsi, gsi, gsi)

    def hand_over(self, machine: ModelMachine, rsdp: int, xsdt: int) -> None:
        self._attempt(self.core.map_shared_info, SHARED_AT)
        counter = parse_shared_info(machine.shared_info()).counter
        self._attempt(self.core.hand_over, rsdp, xsdt, counter)


def _reachable(platform: Platform) -> list[Function]:
    """The functions a hypercall can name: it has 16 bits for a segment, and VMD numbers them from 0x10000."""
    return [function for function in platform.functions if function.sbdf.segment <= 0xFFFF]
