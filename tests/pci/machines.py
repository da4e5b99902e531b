# SPDX-License-Identifier: MIT
"""Small PCI machines for tests, from configuration space that is written here byte by byte."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

from dom0kit.address import Sbdf
from dom0kit.pci.config_space import decode_function
from dom0kit.pci.function import Function
from dom0kit.source.dumps import read_lspci
from dom0kit.source.interface import RawFunction

ENDPOINT, LEGACY, ROOT_PORT, UPSTREAM, DOWNSTREAM, TO_PCI, FROM_PCI, INTEGRATED, COLLECTOR = 0, 1, 4, 5, 6, 7, 8, 9, 10
"""Device/Port Types of the PCI Express capability."""
ACS = 0x1D
"""Source validation, request and completion redirect, upstream forwarding: what isolation takes."""


def function(
    address: str,
    *,
    vendor: int = 0x1234,
    device: int = 0x0001,
    class_code: int | None = None,
    revision: int = 0,
    multifunction: bool = False,
    command: int = 0x0007,
    buses: tuple[int, int] | None = None,
    primary: int | None = None,
    bars: Iterable[int] = (),
    io: tuple[int, int] | None = None,
    memory: tuple[int, int] | None = None,
    prefetchable: tuple[int, int] | None = None,
    subtractive: bool = False,
    express: int | None = None,
    slot: int | None = None,
    slot_state: int = 0,
    flr: bool = False,
    acs: tuple[int, int] | None = None,
    acs_wide: tuple[int, int] | None = None,
    sriov: tuple[int, int, int, int] | None = None,
    pm: bool | None = None,
    af: int | None = None,
    shpc: bool = False,
    size: int = 4096,
    attributes: Mapping[str, str] | None = None,
) -> Function:
    """One function; `buses` (secondary, subordinate) makes it a bridge.

    `slot` is Slot Capabilities, `slot_state` Slot Status; `acs` is (capability, control), `acs_wide` the same as
    dwords; `sriov` is (TotalVFs, NumVFs, offset, stride), enabled when NumVFs is not 0; `pm` is No_Soft_Reset; `af` is
    AF Capabilities.
    """
    config = bytearray(size)
    sbdf = Sbdf.parse(address)
    if class_code is None:
        class_code = 0x060400 if buses is not None else 0x020000
    if subtractive:
        class_code |= 1
    header_type = (1 if buses is not None else 0) | (0x80 if multifunction else 0)
    struct.pack_into("<HHHHI", config, 0, vendor, device, command, 0x10, class_code << 8 | revision)
    config[0x0E] = header_type
    for index, bar in enumerate(bars):
        struct.pack_into("<I", config, 0x10 + 4 * index, bar)
    if buses is not None:
        config[0x18:0x1B] = bytes((sbdf.bus if primary is None else primary, *buses))
        first, last = io or (0xF000, 0)
        config[0x1C:0x1E] = bytes((first >> 8 & 0xF0, last >> 8 & 0xF0))
        first, last = memory or (0xFFF00000, 0)
        struct.pack_into("<HH", config, 0x20, first >> 16 & 0xFFF0, last >> 16 & 0xFFF0)
        first, last = prefetchable or (0xFFF00000, 0)
        struct.pack_into("<HH", config, 0x24, first >> 16 & 0xFFF0 | 1, last >> 16 & 0xFFF0 | 1)
        struct.pack_into("<II", config, 0x28, first >> 32, last >> 32)
    standard: list[bytes] = []
    if pm is not None:
        standard.append(struct.pack("<HHHBB", 1, 3, 8 if pm else 0, 0, 0))
    if express is not None:
        flags = 2 | express << 4 | (0x100 if slot is not None else 0)
        registers = struct.pack("<HHIHHIHH", 0x10, flags, 1 << 28 if flr else 0, 0, 0, 1 << 20, 0, 0)
        registers += struct.pack("<IHH", slot or 0, 0, slot_state)
        standard.append(registers.ljust(0x3C, b"\0"))
    if af is not None:
        standard.append(bytes((0x13, 0, 6, af, 0, 0, 0, 0)))
    if shpc:
        standard.append(bytes((0x0C, 0, 0, 0, 0, 0, 0, 0)))
    where, pointer = 0x40, 0x34
    for capability in standard:
        config[pointer], pointer = where, where + 1
        config[where : where + len(capability)] = capability
        where += len(capability) + 3 & ~3
    extended: list[tuple[int, bytes]] = []
    if acs is not None:
        extended.append((0x0D, struct.pack("<HH", *acs)))
    if acs_wide is not None:
        extended.append((0x0D, struct.pack("<II", *acs_wide)))
    if sriov is not None:
        total, count, offset, stride = sriov
        registers = struct.pack("<IHHHHHHHHHH", 0, bool(count), 0, total, total, count, 0, offset, stride, 0, 1)
        extended.append((0x10, registers.ljust(0x3C, b"\0")))
    where, before = 0x100, 0
    for id, body in extended if size > 0x100 else ():
        if before:
            struct.pack_into("<H", config, before + 2, 1 | where << 4)
        struct.pack_into("<I", config, where, id | 1 << 16)
        config[where + 4 : where + 4 + len(body)] = body
        before, where = where, where + 4 + len(body)
    return decode_function(RawFunction(sbdf, bytes(config), attributes or {}))[0]


def recorded(dump: Path) -> list[Function]:
    """The functions of a recorded `lspci -xxxx` text; of the sysfs files beside it where there are any."""
    folder = dump.with_suffix("")
    if not folder.is_dir():
        with dump.open("rb") as text:
            return [decode_function(raw)[0] for raw in read_lspci(dump.name, text).functions()]
    functions = []
    for place in sorted(folder.iterdir()):
        if (place / "config").is_file():
            attributes = {
                file.name: file.read_text(errors="replace").strip()
                for file in place.iterdir()
                if file.is_file() and file.name != "config"
            }
            raw = RawFunction(Sbdf.parse(place.name), (place / "config").read_bytes(), attributes)
            functions.append(decode_function(raw)[0])
    return functions
