# SPDX-License-Identifier: MIT
"""One PCI function as facts: header, base address registers, bridge windows, capabilities.

Source: PCI Local Bus 3.0 section 6, PCI-to-PCI Bridge 1.2 section 3.2, PCI Express Base 6.0 section 7.5.1.
"""

from __future__ import annotations

import enum

import msgspec

from dom0kit.address import IntxPin, Sbdf
from dom0kit.pci import capabilities as registry
from dom0kit.serial import Hex


class BarKind(enum.Enum):
    """What a base address register decodes."""

    IO = "io"
    MEMORY32 = "memory32"
    MEMORY64 = "memory64"
    MEMORY_BELOW_1M = "memory below 1M"
    RESERVED = "reserved memory type"


class Bar(msgspec.Struct, frozen=True):
    """One base address register (a 64-bit one counts once, under its lower index), or one VF BAR of an SR-IOV PF."""

    index: int
    """0 to 5."""
    kind: BarKind
    address: int
    """Bus address, 0 when unassigned."""
    prefetchable: bool
    size: int | None
    """Bytes, from the kernel's resource file; None where nobody measured it."""
    virtual: bool = False
    """Not in the register but known to the kernel: a VF's, a legacy IDE port, one that nobody answers for any more."""


class Rom(msgspec.Struct, frozen=True):
    """The expansion ROM register."""

    address: int
    enabled: bool
    size: int | None
    virtual: bool = False
    """Not in the register but known to the kernel (a shadow copy)."""


class Window(msgspec.Struct, frozen=True):
    """A range that a bridge forwards; `base` > `limit` in the registers means none, and no Window.

    I/O and prefetchable windows are optional: base and limit registers of 0 mean that a bridge has none.
    """

    base: int
    limit: int
    """Last address forwarded, inclusive."""
    bits: int
    """Address width the registers hold: 16 or 32 for I/O, 32 or 64 for memory."""


class Bridge(msgspec.Struct, frozen=True):
    """The type 1 header's part: bus numbers and windows."""

    primary: int
    secondary: int
    subordinate: int
    secondary_latency: int
    secondary_status: int
    io: Window | None
    memory: Window | None
    prefetchable: Window | None
    control: int
    """Bridge Control register, 16 bits."""
    subtractive: bool
    """Programming interface 01h: a subtractive-decode bridge."""
    window_registers: Hex
    """Offsets 1Ch to 33h as read: base and limit of windows that are off, too."""


class CardBusWindow(msgspec.Struct, frozen=True):
    """One of the four ranges a CardBus bridge may forward."""

    base: int
    limit: int
    """Last address forwarded, inclusive; below `base` where the window is off."""
    enabled: bool
    """`base` <= `limit`. The command register switches I/O and memory besides."""
    prefetchable: bool


class CardBus(msgspec.Struct, frozen=True):
    """The type 2 header's part (PC Card Standard 8.0, volume 7, section 4.5): bus numbers and windows."""

    primary: int
    secondary: int
    """The CardBus bus."""
    subordinate: int
    secondary_latency: int
    secondary_status: int
    memory: tuple[CardBusWindow, CardBusWindow]
    io: tuple[CardBusWindow, CardBusWindow]
    control: int
    """Bridge Control register, 16 bits."""
    legacy_base: int | None
    """Legacy Mode Base register, low 16 bits: I/O port of the 16-bit interface, bit 0 reads as 1; None where beyond the
    readable bytes."""


class Function(msgspec.Struct, frozen=True):
    """One PCI function."""

    sbdf: Sbdf
    config_bytes: int
    """How many bytes of config space were readable: 0 (asleep), 64, 256 or 4096."""
    vendor: int
    device: int
    class_code: int
    """24 bits: base class, sub-class, programming interface."""
    revision: int
    subsystem_vendor: int | None
    subsystem: int | None
    """From the header (type 0, CardBus) or the bridge's SSVID capability; None where neither has it or the vendor is 0
    or ffffh."""
    header_type: int
    """0 endpoint, 1 PCI-to-PCI bridge, 2 CardBus bridge (bit 7 removed); others as found; 0 where not read."""
    multifunction: bool
    command: int
    status: int
    cache_line_size: int
    latency_timer: int
    bist: int
    interrupt_pin: IntxPin | None
    interrupt_line: int
    min_grant: int
    max_latency: int
    bars: tuple[Bar, ...]
    """Those that are there, ascending by index. One that reads as 0 and that no kernel measured is not there."""
    rom: Rom | None
    bridge: Bridge | None
    """Of a type 1 header."""
    capabilities: tuple[registry.Capability, ...]
    """Standard ones in list order, then extended ones in list order."""
    asleep: bool = False
    """In D3cold or behind a sleeping bridge when read: only what the kernel remembers is here."""
    numa_node: int | None = None
    driver: str | None = None
    iommu_group: int | None = None
    """The live kernel's, where recorded."""
    physical_function: Sbdf | None = None
    """The PF, where the kernel says that this is a VF."""
    irq: int | None = None
    msi_irqs: tuple[int, ...] = ()
    reset_methods: tuple[str, ...] | None = None
    """What the kernel offers, in its order; None where not recorded."""
    firmware_path: str | None = None
    """ACPI path of the companion, as the kernel says."""
    raw_header: Hex = ""
    """The first 64 bytes when the header type is none of 0, 1, 2."""
    cardbus: CardBus | None = None
    """Of a type 2 header."""
    vf_bars: tuple[Bar, ...] = ()
    """Of an SR-IOV PF: what each VF has, from the SR-IOV capability; address and size are VF 0's."""
    answers: bool = True
    """False where every byte of the header reads ffh: the device is gone, unpowered, or hides."""
    power_state: str | None = None
    """The live kernel's word: ``D0``, ``D3hot``, ``unknown`` ...; None where not recorded."""

    @property
    def where(self) -> str:
        """What a finding about this function names: ``pci:0000:00:1f.3``."""
        return f"pci:{self.sbdf}"

    @property
    def buses(self) -> tuple[int, int] | None:
        """Secondary and subordinate bus number of a bridge of either kind; None of what is no bridge."""
        if self.bridge is not None:
            return self.bridge.secondary, self.bridge.subordinate
        if self.cardbus is not None:
            return self.cardbus.secondary, self.cardbus.subordinate
        return None
