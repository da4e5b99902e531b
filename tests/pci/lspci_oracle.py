# SPDX-License-Identifier: MIT
"""Debian's `lspci -vvv` as an oracle: the text it prints of a recording, written again from our facts alone.

Every line that lspci prints must come out, to the letter, of a `Function`; so each flag and each number it knows is
proved to be in the facts. A capability is written by the renderer of its struct's type, found in the ``RENDERERS`` of
`lspci_standard`, `lspci_express` or `lspci_extended`. A renderer gives the capability's lines without leading white
space; the first is what follows ``Capabilities: [50] `` (or ``Capabilities: [100 v1] ``).
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from msgspec.structs import replace

from dom0kit.address import Sbdf
from dom0kit.pci.function import Bar, BarKind, Bridge, CardBus, Function, Window
from dom0kit.pci.names import PciIds, names
from dom0kit.source.interface import RawFunction

Renderer = Callable[[Any, Function], list[str]]
"""From a capability's struct and its function to lspci's lines, stripped."""


def flag(value: bool) -> str:
    """`+` or `-`."""
    return "+" if value else "-"


class Printed(NamedTuple):
    """One function as lspci prints it."""

    head: str
    """The first line, from its class on."""
    lines: tuple[str, ...]
    """The others, stripped, up to the first extended capability."""
    extended: tuple[tuple[str, ...], ...]
    """The extended capabilities: of each its lines, the first from ``Capabilities: [`` on."""


def printed_by_lspci(dump: Path) -> Mapping[Sbdf, Printed]:
    """What `lspci -D -nn -vvv` prints of a recording, by function.

    Names from pci.ids alone (not from udev's database of this host), and without the lines that name this host's kernel
    modules: neither comes from the recording.
    """
    command = ["lspci", "-D", "-nn", "-vvv", "-O", "hwdb.disable=1", "-F", str(dump)]
    text = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout.decode(errors="replace")
    result = {}
    for block in text.split("\n\n"):
        lines = block.strip("\n").split("\n")
        if not lines[0]:
            continue
        address, head = lines[0].split(" ", 1)
        standard: list[str] = []
        extended: list[list[str]] = []
        for line in lines[1:]:
            if line.startswith("\tKernel modules:"):
                continue
            if re.match(r"\tCapabilities: \[[0-9a-f]{3} v", line):
                extended.append([])
            (extended[-1] if extended else standard).append(line.strip())
        result[Sbdf.parse(address)] = Printed(head, tuple(standard), tuple(map(tuple, extended)))
    return result


def write_dump(functions: Sequence[RawFunction], path: Path) -> None:
    """A recording that lspci -F reads."""
    with path.open("w") as file:
        for function in functions:
            file.write(f"{function.sbdf} made for a test\n")
            for at in range(0, len(function.config), 16):
                file.write(f"{at:02x}: {function.config[at : at + 16].hex(' ')}\n")
            file.write("\n")


def rendered(function: Function, renderers: Mapping[type, Renderer]) -> Printed:
    """What lspci must print of this function, from the facts alone."""
    lines = _header(function, names())
    extended: list[tuple[str, ...]] = []
    for capability in function.capabilities:
        first, *more = renderers[type(capability)](capability, function)
        version = getattr(capability, "version", None)
        if capability.offset >= 0x100:
            extended.append((f"Capabilities: [{capability.offset:03x} v{version}] {first}", *more))
        else:
            lines += [f"Capabilities: [{capability.offset:02x}] {first}", *more]
    if function.config_bytes == 64 and function.status & 0x10 and function.header_type in (0, 1, 2):
        lines.append("Capabilities: <access denied>")
    return Printed(_head(function, names()), tuple(lines), tuple(extended))


def named(vendor: int, device: int, vendor_name: str | None, name: str | None) -> str:
    """Vendor and device as lspci -nn writes the pair."""
    numbers = f"[{vendor:04x}:{device:04x}]"
    return f"{vendor_name} {name or 'Device'} {numbers}" if vendor_name else f"Device {numbers}"


def size_text(size: int) -> str:
    """A size with the greatest unit that divides it; lspci keeps 32 bits of the number."""
    units = ["", "K", "M", "G", "T", "P"]
    while size % 1024 == 0 and len(units) > 1:
        size //= 1024
        units.pop(0)
    return f"{size & 0xFFFFFFFF}{units[0]}"


def _head(function: Function, ids: PciIds) -> str:
    kind = ids.class_names(function.class_code)
    number = f"[{function.class_code >> 8:04x}]"
    title = f"{kind.subclass} {number}" if kind.subclass else f"{kind.base or 'Class'} {number}"
    vendor = ids.vendor(function.vendor)
    device = ids.device(function.vendor, function.device)
    who = named(function.vendor, function.device, vendor, device)
    if len(who) > 127:  # lspci's buffer (e.g. combo-huananzhi-x99-bd4, ff:13.0)
        who = f"{who[:124]}..."
    head = f"{title}: {who}"
    if function.revision:
        head += f" (rev {function.revision:02x})"
    interface = function.class_code & 0xFF
    if kind.interface:
        head += f" (prog-if {interface:02x} [{kind.interface}])"
    elif interface:
        head += f" (prog-if {interface:02x})"
    return head


def _header(function: Function, ids: PciIds) -> list[str]:
    f = function
    lines = []
    if f.header_type in (0, 1, 2):
        if f.subsystem_vendor is not None and f.subsystem is not None:
            name = ids.subsystem(f.vendor, f.device, f.subsystem_vendor, f.subsystem)
            lines.append(f"Subsystem: {named(f.subsystem_vendor, f.subsystem, ids.vendor(f.subsystem_vendor), name)}")
    else:
        lines.append(f"!!! Unknown header type {f.header_type:02x}")
    base_class = f.class_code >> 16
    if f.class_code >> 8 == 0x0604 if f.header_type == 0 else f.header_type in (1, 2) and base_class != 6:
        lines.append(f"!!! Invalid class {f.class_code >> 8:04x} for header type {f.header_type:02x}")
    if f.answers and f.header_type in (0, 1, 2):
        lines += [_control(f.command), _status("Status", f.status)]
        if f.command & 4:
            lines.append(_latency(f))
    if f.interrupt_pin is not None or f.interrupt_line:
        pin = f.interrupt_pin.value if f.interrupt_pin else "?"
        lines.append(f"Interrupt: pin {pin} routed to IRQ {f.interrupt_line}")
    if f.bist & 0x80 and f.answers:
        lines.append("BIST is running" if f.bist & 0x40 else f"BIST result: {f.bist & 0xF:02x}")
    for bar in f.bars:
        if bar.kind is BarKind.MEMORY64 and bar.index == (5, 1, 0)[f.header_type]:
            # Of a 64-bit BAR without an upper half lspci does not tell the lower half either.
            lines.append(_region(replace(bar, address=0), f.command))
            continue
        lines.append(_region(bar, f.command))
        if bar.kind is BarKind.MEMORY64 and bar.address >> 32:
            lines.append(_region(_upper_half(bar), f.command))
    if f.bridge is not None:
        lines += _bridge(f.bridge)
    if f.cardbus is not None:
        lines += _cardbus(f.cardbus, f.command)
    if f.rom is not None and f.rom.address:
        off = "" if f.command & 2 else " [disabled by cmd]"
        if not f.rom.enabled:
            off = " [disabled]"
        rom = f"Expansion ROM at {f.rom.address:08x}{off}"
        # Of a bridge lspci prints the ROM behind the windows and before the control register.
        lines.insert(len(lines) - 2 if f.bridge is not None else len(lines), rom)
    return lines


def _upper_half(bar: Bar) -> Bar:
    """What lspci makes of the register that holds the upper half of a BAR above 4 GiB: one more region, unassigned.

    Its own low bits are taken for a type (e.g. combo-huananzhi-x99-bd4, 05:00.0, region 1).
    """
    upper = bar.address >> 32
    if upper & 1:
        return Bar(bar.index + 1, BarKind.IO, 0, False, None)
    kind = (BarKind.MEMORY32, BarKind.MEMORY_BELOW_1M, BarKind.MEMORY64, BarKind.RESERVED)[upper >> 1 & 3]
    return Bar(bar.index + 1, kind, 0, upper & 8 != 0, None)


def _control(command: int) -> str:
    def bit(number: int) -> str:
        return flag(command >> number & 1 == 1)

    return (
        f"Control: I/O{bit(0)} Mem{bit(1)} BusMaster{bit(2)} SpecCycle{bit(3)} MemWINV{bit(4)} VGASnoop{bit(5)} "
        f"ParErr{bit(6)} Stepping{bit(7)} SERR{bit(8)} FastB2B{bit(9)} DisINTx{bit(10)}"
    )


def _status(title: str, status: int, secondary: bool = False) -> str:
    def bit(number: int) -> str:
        return flag(status >> number & 1 == 1)

    speed = ("fast", "medium", "slow", "??")[status >> 9 & 3]
    first = f"{title}: " if secondary else f"{title}: Cap{bit(4)} "
    signalled = "<SERR" if secondary else ">SERR"
    udf = "" if secondary else f"UDF{bit(6)} "
    last = "" if secondary else f" INTx{bit(3)}"
    return (
        f"{first}66MHz{bit(5)} {udf}FastB2B{bit(7)} ParErr{bit(8)} DEVSEL={speed} >TAbort{bit(11)} <TAbort{bit(12)} "
        f"<MAbort{bit(13)} {signalled}{bit(14)} <PERR{bit(15)}{last}"
    )


def _latency(function: Function) -> str:
    text = f"Latency: {function.latency_timer}"
    if function.min_grant or function.max_latency:
        limits = []
        if function.min_grant:
            limits.append(f"{function.min_grant * 250}ns min")
        if function.max_latency:
            limits.append(f"{function.max_latency * 250}ns max")
        text += f" ({', '.join(limits)})"
    if function.cache_line_size:
        text += f", Cache Line Size: {function.cache_line_size * 4} bytes"
    return text


def _region(bar: Bar, command: int) -> str:
    if bar.kind is BarKind.IO:
        place = f"{bar.address:04x}" if bar.address or command & 1 else "<unassigned>"
        return f"Region {bar.index}: I/O ports at {place}{'' if command & 1 else ' [disabled]'}"
    kinds = {
        BarKind.MEMORY32: "32-bit",
        BarKind.MEMORY64: "64-bit",
        BarKind.MEMORY_BELOW_1M: "low-1M",
        BarKind.RESERVED: "type 3",
    }
    place = f"{bar.address:08x}" if bar.address else "<unassigned>"
    prefetch = "prefetchable" if bar.prefetchable else "non-prefetchable"
    off = "" if command & 2 else " [disabled]"
    return f"Region {bar.index}: Memory at {place} ({kinds[bar.kind]}, {prefetch}){off}"


def _window(title: str, window: Window | None, off: tuple[int, int, int]) -> str:
    """One window; `off` is base, limit and width in the registers of one that is off."""
    base, limit, bits = (window.base, window.limit, window.bits) if window is not None else off
    digits = max(bits // 4, 8 if bits > 16 else 4)
    state = f"size={size_text(limit - base + 1)}" if base <= limit else "disabled"
    return f"{title} behind bridge: {base:0{digits}x}-{limit:0{digits}x} [{state}] [{bits}-bit]"


def _bridge(bridge: Bridge) -> list[str]:
    registers = bytes.fromhex(bridge.window_registers)

    def word(offset: int, length: int) -> int:
        return int.from_bytes(registers[offset - 0x1C : offset - 0x1C + length], "little")

    wide = word(0x1C, 1) & 0xF == 1
    io = (
        (word(0x1C, 1) & 0xF0) << 8 | (word(0x30, 2) << 16 if wide else 0),
        (word(0x1D, 1) & 0xF0) << 8 | 0xFFF | (word(0x32, 2) << 16 if wide else 0),
        32 if wide else 16,
    )
    memory = ((word(0x20, 2) & 0xFFF0) << 16, (word(0x22, 2) & 0xFFF0) << 16 | 0xFFFFF, 32)
    wide = word(0x24, 2) & 0xF == 1
    prefetchable = (
        (word(0x24, 2) & 0xFFF0) << 16 | (word(0x28, 4) << 32 if wide else 0),
        (word(0x26, 2) & 0xFFF0) << 16 | 0xFFFFF | (word(0x2C, 4) << 32 if wide else 0),
        64 if wide else 32,
    )

    def bit(number: int) -> str:
        return flag(bridge.control >> number & 1 == 1)

    return [
        f"Bus: primary={bridge.primary:02x}, secondary={bridge.secondary:02x}, subordinate={bridge.subordinate:02x}, "
        f"sec-latency={bridge.secondary_latency}",
        _window("I/O", bridge.io, io),
        _window("Memory", bridge.memory, memory),
        _window("Prefetchable memory", bridge.prefetchable, prefetchable),
        _status("Secondary status", bridge.secondary_status, secondary=True),
        f"BridgeCtl: Parity{bit(0)} SERR{bit(1)} NoISA{bit(2)} VGA{bit(3)} VGA16{bit(4)} MAbort{bit(5)} >Reset{bit(6)} "
        f"FastB2B{bit(7)}",
        f"PriDiscTmr{bit(8)} SecDiscTmr{bit(9)} DiscTmrStat{bit(10)} DiscTmrSERREn{bit(11)}",
    ]


def _cardbus(cardbus: CardBus, command: int) -> list[str]:
    def bit(number: int) -> str:
        return flag(cardbus.control >> number & 1 == 1)

    lines = [
        f"Bus: primary={cardbus.primary:02x}, secondary={cardbus.secondary:02x}, "
        f"subordinate={cardbus.subordinate:02x}, sec-latency={cardbus.secondary_latency}"
    ]
    for number, window in enumerate(cardbus.memory):
        off = "" if command & 2 else " [disabled]"
        prefetch = " (prefetchable)" if window.prefetchable else ""
        lines.append(f"Memory window {number}: {window.base:08x}-{window.limit:08x}{off}{prefetch}")
    for number, window in enumerate(cardbus.io):
        off = "" if command & 1 else " [disabled]"
        lines.append(f"I/O window {number}: {window.base:08x}-{window.limit:08x}{off}")
    if cardbus.secondary_status & 0x4000:
        lines.append("Secondary status: SERR")
    lines.append(
        f"BridgeCtl: Parity{bit(0)} SERR{bit(1)} ISA{bit(2)} VGA{bit(3)} MAbort{bit(5)} >Reset{bit(6)} 16bInt{bit(7)} "
        f"PostWrite{bit(10)}"
    )
    if cardbus.legacy_base:
        lines.append(f"16-bit legacy interface ports at {cardbus.legacy_base:04x}")
    return lines
