# SPDX-License-Identifier: MIT
"""From the bytes of a PCI function's config space, and what the kernel says of it, to a `Function` and findings.

Source: PCI Local Bus 3.0 section 6, PCI-to-PCI Bridge 1.2 section 3.2, PC Card Standard 8.0 volume 7 section 4.5,
PCI Express Base 6.0 section 7.5.1; of the kernel's ``resource`` file: Linux drivers/pci/pci-sysfs.c (resource_show).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from dom0kit.address import IntxPin, Sbdf
from dom0kit.finding import Finding, Rule, Severity, rule
from dom0kit.pci.capabilities import Report, decode_extended, decode_standard
from dom0kit.pci.capabilities.msix import MsiX
from dom0kit.pci.capabilities.ssvid import SubsystemId
from dom0kit.pci.function import Bar, BarKind, Bridge, CardBus, CardBusWindow, Function, Rom, Window
from dom0kit.source.interface import RawFunction

if TYPE_CHECKING:
    from dom0kit.pci.capabilities.everything import Capability
    from dom0kit.pci.capabilities.sriov import SingleRootIov

SILENT: Final = rule(
    "pci.not-answering",
    Severity.WARNING,
    title="function does not answer",
    meaning="Every byte of the header reads ffh, which is what a bus returns when nobody answers: the device is gone, "
    "has no power, or was hidden by firmware after the kernel had found it.",
    advice="Look at the power state of the function and of the bridges above it; rescan the bus. If firmware hides the "
    "device, the kernel's idea of it is stale.",
    specification="PCI Local Bus 3.0, section 6.1",
)
SHORT: Final = rule(
    "pci.header-truncated",
    Severity.WARNING,
    title="config space header is not complete",
    meaning="Fewer than 64 bytes of config space were recorded. What is missing reads as zero here.",
    advice="Record the machine again (dom0kit record, or lspci -xxxx as root).",
    specification="PCI Local Bus 3.0, section 6.1",
)
HEADER_TYPE: Final = rule(
    "pci.header-type",
    Severity.ERROR,
    title="unknown header type",
    meaning="The header type is none of 0 (function), 1 (PCI-to-PCI bridge) and 2 (CardBus bridge). Linux ignores such "
    "a function; its BARs and windows cannot be known.",
    advice="Check that the device is powered and answers; otherwise update its firmware.",
    specification="PCI Local Bus 3.0, section 6.2.1; Linux drivers/pci/probe.c (pci_setup_device)",
)
CLASS: Final = rule(
    "pci.class-mismatch",
    Severity.WARNING,
    title="class code contradicts the header type",
    meaning="The function calls itself a PCI-to-PCI bridge without a bridge's header, or has a CardBus header without "
    "being a CardBus bridge. Linux takes away its class, so no driver that goes by class binds to it.",
    advice="Update the device's firmware.",
    specification="PCI Code and ID Assignment 1.14, section 1.7; Linux drivers/pci/probe.c (pci_setup_device)",
)
PIN: Final = rule(
    "pci.interrupt-pin",
    Severity.WARNING,
    title="interrupt pin beyond INTD",
    meaning="The Interrupt Pin register holds a value above 4. The function is treated as having no INTx pin.",
    advice="Use MSI or MSI-X for this function, or update its firmware.",
    specification="PCI Local Bus 3.0, section 6.2.4",
)
BAR_LAST: Final = rule(
    "pci.bar-64-last",
    Severity.ERROR,
    title="64-bit BAR without an upper half",
    meaning="The last base address register of the header says that it is 64 bits wide, but there is no register for "
    "its upper half. Only the lower 32 bits of the address are known.",
    advice="Do not assign this BAR above 4 GiB; update the device's firmware.",
    specification="PCI Local Bus 3.0, section 6.2.5.1",
)
BAR_TYPE: Final = rule(
    "pci.bar-type",
    Severity.WARNING,
    title="BAR of a reserved type",
    meaning="Bits 2 and 1 of a memory BAR are both set, which no specification defines. Linux takes it for 32 bits.",
    advice="Check that the device answers properly; update its firmware.",
    specification="PCI Local Bus 3.0, table 6-4",
)
BAR_ONES: Final = rule(
    "pci.bar-ones",
    Severity.WARNING,
    title="BAR reads as all ones",
    meaning="A base address register, or the ROM's, holds ffffffffh: somebody left it in the middle of sizing, or the "
    "device does not answer for it. Linux takes the BAR for absent.",
    advice="Do not use this BAR before a bus rescan or a reset of the device; update the firmware that left it so.",
    specification="PCI Local Bus 3.0, section 6.2.5.1; Linux drivers/pci/probe.c (__pci_read_base)",
)
BAR_ALIGNMENT: Final = rule(
    "pci.bar-alignment",
    Severity.WARNING,
    title="BAR address is no multiple of its size",
    meaning="A BAR decodes a naturally aligned range, so the low bits of this address are ignored and the device "
    "answers elsewhere than its register says; or the size on record is not this device's.",
    advice="Compare with the kernel's resource file after a rescan; reassign the BAR.",
    specification="PCI Local Bus 3.0, section 6.2.5.1",
)
BAR_OVERLAP: Final = rule(
    "pci.bar-overlap",
    Severity.ERROR,
    title="two BARs of one function overlap",
    meaning="Two base address registers of one function claim the same addresses. Accesses there reach either or both.",
    advice="Reassign one of them (Linux: pci=realloc), or update the firmware that placed them.",
    specification="PCI Local Bus 3.0, section 6.2.5",
)
MSIX_BIR: Final = rule(
    "pci.msix-bir",
    Severity.ERROR,
    title="MSI-X structure in a BAR that is not there",
    meaning="The MSI-X capability names a BAR that is reserved (6 or 7), absent, unassigned or I/O. The vector table "
    "cannot be reached, so MSI-X cannot be used.",
    advice="Use MSI or INTx for this function. If the BAR is only unassigned, let the kernel assign it.",
    specification="PCI Local Bus 3.0, section 6.8.2.4",
)
MSIX_RANGE: Final = rule(
    "pci.msix-range",
    Severity.ERROR,
    title="MSI-X structure outside its BAR",
    meaning="The MSI-X vector table or pending bit array goes beyond the end of the BAR that holds it. Writing vectors "
    "there would reach another device.",
    advice="Do not enable MSI-X for this function with all its vectors; update its firmware.",
    specification="PCI Local Bus 3.0, section 6.8.2",
)
MSIX_OVERLAP: Final = rule(
    "pci.msix-overlap",
    Severity.WARNING,
    title="MSI-X table and pending bits overlap",
    meaning="The vector table and the pending bit array share addresses: writing a vector would change pending bits.",
    advice="Use fewer vectors, or MSI; update the device's firmware.",
    specification="PCI Local Bus 3.0, section 6.8.2",
)
WINDOW_TYPE: Final = rule(
    "pci.window-type",
    Severity.WARNING,
    title="bridge window of contradicting widths",
    meaning="The low four bits of a bridge window's base and limit registers tell its address width. They differ, or "
    "hold a reserved value; the lesser width is assumed.",
    advice="Check that the bridge answers properly; update its firmware.",
    specification="PCI-to-PCI Bridge 1.2, sections 3.2.5.6 to 3.2.5.10",
)
RESOURCE: Final = rule(
    "pci.resource-file",
    Severity.INFO,
    title="kernel's resource list not understood",
    meaning="The recorded ``resource`` attribute of a function is not the list of start, end and flags that Linux "
    "writes. BAR sizes are unknown.",
    advice="Record the machine again.",
    specification="Linux drivers/pci/pci-sysfs.c (resource_show)",
)

_COMMON: Final = struct.Struct("<HHHHBBHBBBB")
_WORDS: Final = (struct.Struct("<0I"), *(struct.Struct(f"<{count}I") for count in range(1, 7)))
_BRIDGE: Final = struct.Struct("<4BBBHHHHHIIHH")
_CARDBUS: Final = struct.Struct("<HBBBBIIIIIIII")
_IDS: Final = struct.Struct("<HH")
_HALF: Final = struct.Struct("<H")
_WORD: Final = struct.Struct("<I")
_SILENCE: Final = b"\xff" * 64
_PINS: Final = (None, IntxPin.A, IntxPin.B, IntxPin.C, IntxPin.D)
_KINDS: Final = (BarKind.MEMORY32, BarKind.MEMORY_BELOW_1M, BarKind.MEMORY64, BarKind.RESERVED)
_NOTHING: Final[Mapping[str, str]] = {}

_FLAG_IO: Final = 0x100
_FLAG_PREFETCH: Final = 0x2000
_FLAG_64: Final = 0x100000
_ONES: Final = 0xFFFFFFFF
_ROM_SLOT: Final = 6
_VF_SLOT: Final = 7


class KernelResource(NamedTuple):
    """One line of the kernel's resource file: 0 to 5 the BARs, 6 the ROM, 7 to 12 the VF BARs of an SR-IOV PF."""

    start: int
    """Address as the CPU sees it; 0 where not assigned."""
    size: int
    """Bytes; 0 where there is nothing."""
    flags: int


_NO_RESOURCE: Final = KernelResource(0, 0, 0)


def decode_function(raw: RawFunction) -> tuple[Function, tuple[Finding, ...]]:
    """The facts of one function, and what is wrong with it. Takes any bytes of any length."""
    sbdf = raw.sbdf
    config = raw.config
    attributes = raw.attributes
    findings: list[Finding] = []

    def report(told: Rule, message: str) -> None:
        findings.append(told.at(f"pci:{sbdf}", message))

    answers = True
    header = config[:64]
    if len(header) < 64:
        if header:
            report(SHORT, f"{len(header)} bytes of config space were recorded")
        header = header.ljust(64, b"\0")
    elif header == _SILENCE:
        answers = False
        report(SILENT, "all 64 bytes of the header read 0xff")

    vendor, device, command, status, revision, interface, class_high, cache_line, latency, type_byte, bist = (
        _COMMON.unpack_from(header)
    )
    header_type = type_byte & 0x7F
    class_code = class_high << 8 | interface
    line, pin, min_grant, max_latency = header[0x3C:0x40]
    subsystem_vendor = subsystem = None
    bars: tuple[Bar, ...] = ()
    rom: Rom | None = None
    bridge: Bridge | None = None
    cardbus: CardBus | None = None
    capabilities: tuple[Capability, ...] = ()
    raw_header = ""
    resources = _resources(attributes["resource"], report) if "resource" in attributes else ()

    if not answers:
        raw_header = header.hex()
    else:
        if header_type == 0:
            subsystem_vendor, subsystem = _IDS.unpack_from(header, 0x2C)
            bars = _bars(_WORDS[6].unpack_from(header, 0x10), resources, report)
            rom = _rom(_WORD.unpack_from(header, 0x30)[0], resources, report)
            if class_high == 0x0604:
                report(CLASS, f"class {class_code:#08x} is a PCI-to-PCI bridge, the header is of type 0")
        elif header_type == 1:
            min_grant = max_latency = 0  # offset 3Eh is Bridge Control here
            bars = _bars(_WORDS[2].unpack_from(header, 0x10), resources, report)
            rom = _rom(_WORD.unpack_from(header, 0x38)[0], resources, report)
            bridge = _bridge(header, interface, report)
        elif header_type == 2:
            min_grant = max_latency = 0
            bars = _bars(_WORDS[1].unpack_from(header, 0x10), resources, report)
            cardbus = _cardbus(config, header)
            if len(config) >= 0x44:
                subsystem_vendor, subsystem = _IDS.unpack_from(config, 0x40)
            if class_high != 0x0607:
                report(CLASS, f"class {class_code:#08x} is no CardBus bridge, but the header is of type 2")
        else:
            raw_header = header.hex()
            report(HEADER_TYPE, f"the header type register holds {type_byte:#04x}")
        if pin > 4:
            report(PIN, f"the interrupt pin register holds {pin}")
        capabilities = _capabilities(config, report)

    vf_bars: tuple[Bar, ...] = ()
    for capability in capabilities:
        if isinstance(capability, MsiX):
            _check_msix(capability, bars, report)
        elif isinstance(capability, SubsystemId):
            if header_type == 1 and subsystem_vendor is None:
                subsystem_vendor, subsystem = capability.vendor, capability.device
        elif capability.__struct_config__.tag == "sriov":
            vf_bars = _vf_bars(cast("SingleRootIov", capability), resources)
    if subsystem_vendor in (0, 0xFFFF):
        subsystem_vendor = subsystem = None

    physical: Sbdf | None = None
    if attributes:
        physical = _sbdf(attributes.get("physfn"))
        if not config or (physical is not None and vendor == 0xFFFF):
            vendor = _number(attributes, "vendor", 16, vendor) & 0xFFFF
            device = _number(attributes, "device", 16, device) & 0xFFFF
        if not config:
            class_code = _number(attributes, "class", 16, class_code) & 0xFFFFFF
            revision = _number(attributes, "revision", 16, revision) & 0xFF
            subsystem_vendor = _identity(attributes, "subsystem_vendor")
            subsystem = _identity(attributes, "subsystem_device") if subsystem_vendor is not None else None
            bars = _bars((0,) * 6, resources, report)
            rom = _rom(0, resources, report)
    return (
        Function(
            sbdf=sbdf,
            config_bytes=len(config),
            vendor=vendor,
            device=device,
            class_code=class_code,
            revision=revision,
            subsystem_vendor=subsystem_vendor,
            subsystem=subsystem,
            header_type=header_type,
            multifunction=type_byte & 0x80 != 0,
            command=command,
            status=status,
            cache_line_size=cache_line,
            latency_timer=latency,
            bist=bist,
            interrupt_pin=_PINS[pin] if pin <= 4 else None,
            interrupt_line=line,
            min_grant=min_grant,
            max_latency=max_latency,
            bars=bars,
            rom=rom,
            bridge=bridge,
            capabilities=capabilities,
            asleep=not config,
            raw_header=raw_header,
            cardbus=cardbus,
            vf_bars=vf_bars,
            answers=answers,
            physical_function=physical,
            numa_node=_node(attributes),
            driver=attributes.get("driver") or None,
            iommu_group=_optional(attributes, "iommu_group"),
            irq=_optional(attributes, "irq"),
            msi_irqs=_msi_irqs(attributes.get("msi_irqs")),
            reset_methods=tuple(attributes["reset_method"].split()) if "reset_method" in attributes else None,
            firmware_path=attributes.get("firmware_node") or None,
            power_state=attributes.get("power_state") or None,
        ),
        tuple(findings),
    )


def decode_bar(index: int, register: int, upper: int | None, resource: KernelResource = _NO_RESOURCE) -> Bar | None:
    """One base address register; None where there is none.

    `upper` is the next register, None where there is no next. `resource` is what the kernel knows of it.
    """
    if register == 0 and resource.size == 0:
        return None
    size = resource.size or None
    if register == 0 and resource.start:
        flags = resource.flags
        kind = BarKind.IO if flags & _FLAG_IO else BarKind.MEMORY64 if flags & _FLAG_64 else BarKind.MEMORY32
        return Bar(index, kind, resource.start, flags & _FLAG_PREFETCH != 0, size, True)
    if register & 1:
        return Bar(index, BarKind.IO, register & 0xFFFFFFFC, False, size)
    kind = _KINDS[register >> 1 & 3]
    address = register & 0xFFFFFFF0
    if kind is BarKind.MEMORY64 and upper is not None:
        address |= upper << 32
    return Bar(index, kind, address, register & 8 != 0, size)


def _bars(registers: Sequence[int], resources: Sequence[KernelResource], report: Report) -> tuple[Bar, ...]:
    count = len(registers)
    if not any(registers) and not resources:
        return ()
    bars: list[Bar] = []
    index = 0
    while index < count:
        register = registers[index]
        resource = resources[index] if index < len(resources) else _NO_RESOURCE
        upper = registers[index + 1] if index + 1 < count else None
        bar = decode_bar(index, register, upper, resource)
        index += 1
        if register == _ONES:
            report(BAR_ONES, f"BAR {index - 1} holds {register:#010x}")
            continue
        if bar is None:
            continue
        bars.append(bar)
        if bar.kind is BarKind.MEMORY64 and register & 7 == 4:
            if upper is None:
                report(BAR_LAST, f"BAR {bar.index} holds {register:#010x}: 64 bits wide, and it is the last")
            index += 1
        elif bar.kind is BarKind.RESERVED:
            report(BAR_TYPE, f"BAR {bar.index} holds {register:#010x}")
        if bar.size and not bar.virtual and bar.address & (bar.size - 1):
            report(BAR_ALIGNMENT, f"BAR {bar.index} is at {bar.address:#x} and {bar.size:#x} bytes long")
    if resources and len(bars) > 1:
        _check_overlap(bars, report)
    return tuple(bars)


def _check_overlap(bars: Sequence[Bar], report: Report) -> None:
    placed = sorted(
        (bar.kind is BarKind.IO, bar.address, bar.size, bar.index) for bar in bars if bar.address and bar.size
    )
    for first, second in pairwise(placed):
        if first[0] == second[0] and first[1] + first[2] > second[1]:
            report(
                BAR_OVERLAP,
                f"BAR {first[3]} is at {first[1]:#x}, {first[2]:#x} bytes; BAR {second[3]} begins at {second[1]:#x}",
            )


def _rom(register: int, resources: Sequence[KernelResource], report: Report) -> Rom | None:
    resource = resources[_ROM_SLOT] if len(resources) > _ROM_SLOT else _NO_RESOURCE
    if register == _ONES:
        report(BAR_ONES, f"the ROM register holds {register:#010x}")
        register = 0
    if register == 0 and resource.size == 0:
        return None
    address = register & 0xFFFFF800
    if register == 0 and resource.start:
        return Rom(resource.start, False, resource.size, True)
    return Rom(address, register & 1 != 0, resource.size or None)


def _vf_bars(capability: SingleRootIov, resources: Sequence[KernelResource]) -> tuple[Bar, ...]:
    bars = []
    for bar in capability.bars:
        slot = _VF_SLOT + bar.index
        whole = resources[slot].size if slot < len(resources) else 0
        size = whole // capability.total_vfs if capability.total_vfs else 0
        kind = BarKind.MEMORY64 if bar.is_64bit else BarKind.MEMORY32
        bars.append(Bar(bar.index, kind, bar.address, bar.prefetchable, size or None))
    return tuple(bars)


def _bridge(header: bytes, interface: int, report: Report) -> Bridge:
    (
        primary,
        secondary,
        subordinate,
        latency,
        io_base,
        io_limit,
        status,
        memory_base,
        memory_limit,
        prefetch_base,
        prefetch_limit,
        prefetch_base_high,
        prefetch_limit_high,
        io_base_high,
        io_limit_high,
    ) = _BRIDGE.unpack_from(header, 0x18)
    if (io_base ^ io_limit) & 0xF or io_base & 0xE:
        report(WINDOW_TYPE, f"the I/O base register holds {io_base:#04x}, the limit register {io_limit:#04x}")
    wide = io_base & io_limit & 0xF == 1
    base = (io_base & 0xF0) << 8 | (io_base_high << 16 if wide else 0)
    limit = (io_limit & 0xF0) << 8 | 0xFFF | (io_limit_high << 16 if wide else 0)
    io = Window(base, limit, 32 if wide else 16) if base <= limit and (io_base or io_limit) else None
    if (memory_base | memory_limit) & 0xF:
        report(
            WINDOW_TYPE, f"the memory base register holds {memory_base:#06x}, the limit register {memory_limit:#06x}"
        )
    base = (memory_base & 0xFFF0) << 16
    limit = (memory_limit & 0xFFF0) << 16 | 0xFFFFF
    memory = Window(base, limit, 32) if base <= limit else None
    if (prefetch_base ^ prefetch_limit) & 0xF or prefetch_base & 0xE:
        report(
            WINDOW_TYPE,
            f"the prefetchable base register holds {prefetch_base:#06x}, the limit register {prefetch_limit:#06x}",
        )
    wide = prefetch_base & prefetch_limit & 0xF == 1
    base = (prefetch_base & 0xFFF0) << 16 | (prefetch_base_high << 32 if wide else 0)
    limit = (prefetch_limit & 0xFFF0) << 16 | 0xFFFFF | (prefetch_limit_high << 32 if wide else 0)
    implemented = prefetch_base or prefetch_limit
    prefetchable = Window(base, limit, 64 if wide else 32) if base <= limit and implemented else None
    return Bridge(
        primary=primary,
        secondary=secondary,
        subordinate=subordinate,
        secondary_latency=latency,
        secondary_status=status,
        io=io,
        memory=memory,
        prefetchable=prefetchable,
        control=header[0x3E] | header[0x3F] << 8,
        subtractive=interface == 1,
        window_registers=header[0x1C:0x34].hex(),
    )


def _cardbus(config: bytes, header: bytes) -> CardBus:
    status, primary, secondary, subordinate, latency, *ranges = _CARDBUS.unpack_from(header, 0x16)
    control = header[0x3E] | header[0x3F] << 8
    memory = tuple(
        _window(ranges[at] & ~0xFFF, ranges[at + 1] | 0xFFF, control & 0x100 << at // 2 != 0) for at in (0, 2)
    )
    io = tuple(_io_window(ranges[at], ranges[at + 1]) for at in (4, 6))
    return CardBus(
        primary=primary,
        secondary=secondary,
        subordinate=subordinate,
        secondary_latency=latency,
        secondary_status=status,
        memory=(memory[0], memory[1]),
        io=(io[0], io[1]),
        control=control,
        legacy_base=_HALF.unpack_from(config, 0x44)[0] if len(config) >= 0x46 else None,
    )


def _window(base: int, limit: int, prefetchable: bool = False) -> CardBusWindow:
    return CardBusWindow(base, limit, base <= limit, prefetchable)


def _io_window(base: int, limit: int) -> CardBusWindow:
    if base & 3 != 1:  # bits 1 and 0 are 01b where the window has 32 address bits
        base &= 0xFFFF
        limit &= 0xFFFF
    return _window(base & ~3, limit | 3)


def _capabilities(config: bytes, report: Report) -> tuple[Capability, ...]:
    found = decode_standard(config, report)
    if len(config) > 0x100 and any(
        capability.__struct_config__.tag in ("express", "pci-x", "pci-x-bridge") for capability in found
    ):
        found += decode_extended(config, report)
    return tuple(found)


def _check_msix(capability: MsiX, bars: Sequence[Bar], report: Report) -> None:
    for what, index, start, size in (
        ("table", capability.table_bar, capability.table_offset, capability.table_size),
        ("pending bit array", capability.pba_bar, capability.pba_offset, capability.pba_size),
    ):
        bar = next((bar for bar in bars if bar.index == index), None)
        if bar is None:
            reason = "is reserved" if index > 5 else "is absent or unassigned"
            report(MSIX_BIR, f"the MSI-X {what} is said to lie in BAR {index}, which {reason}")
        elif bar.kind is BarKind.IO:
            report(MSIX_BIR, f"the MSI-X {what} is said to lie in BAR {index}, which is an I/O range")
        elif bar.size is not None and start + size > bar.size:
            report(
                MSIX_RANGE,
                f"the MSI-X {what} takes {start:#x} to {start + size - 1:#x} of BAR {index} of {bar.size:#x} bytes",
            )
    if (
        capability.table_bar == capability.pba_bar
        and capability.table_offset < capability.pba_offset + capability.pba_size
        and capability.pba_offset < capability.table_offset + capability.table_size
    ):
        report(
            MSIX_OVERLAP,
            f"in BAR {capability.table_bar}, the table of {capability.vectors} vectors begins at "
            f"{capability.table_offset:#x}, the pending bits at {capability.pba_offset:#x}",
        )


def _resources(text: str, report: Report) -> tuple[KernelResource, ...]:
    resources = []
    try:
        for line in text.splitlines()[:32]:
            start, end, flags = (int(word, 16) for word in line.split())
            size = end - start + 1 if end > start or (flags and end == start) else 0
            if not (0 <= start <= end < 1 << 64 and size < 1 << 64):
                raise ValueError(line)
            resources.append(KernelResource(start, size, flags))
    except ValueError:
        report(RESOURCE, f"the resource attribute begins with {text[:40]!r}")
        return ()
    return tuple(resources)


def _number(attributes: Mapping[str, str], name: str, base: int, default: int) -> int:
    try:
        value = int(attributes[name], base)
    except (KeyError, ValueError):
        return default
    return value if -1 <= value < 1 << 32 else default


def _optional(attributes: Mapping[str, str], name: str) -> int | None:
    value = _number(attributes, name, 10, -1)
    return value if value >= 0 else None


def _identity(attributes: Mapping[str, str], name: str) -> int | None:
    value = _number(attributes, name, 16, 0) & 0xFFFF
    return value if value not in (0, 0xFFFF) else None


def _node(attributes: Mapping[str, str]) -> int | None:
    return _optional(attributes, "numa_node")  # the kernel writes -1 for "not known"


def _sbdf(text: str | None) -> Sbdf | None:
    try:
        return None if text is None else Sbdf.parse(text)
    except ValueError:
        return None


def _msi_irqs(text: str | None) -> tuple[int, ...]:
    if not text:
        return ()
    numbers = set()
    for line in text.splitlines():
        word = line.partition(" ")[0]
        if word.isdecimal() and len(word) < 10:
            numbers.add(int(word))
    return tuple(sorted(numbers))
