# SPDX-License-Identifier: MIT
"""Machines larger than any recording has: config spaces made by arithmetic, written as `lspci -xxxx` text."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path


def config_space(identity: int) -> bytes:
    """4,096 bytes of an endpoint with 4 standard and 4 extended capabilities, told apart by `identity`."""
    config = bytearray(4096)
    struct.pack_into(
        "<HHHHBBBBBBBB", config, 0, 0x8086, 0x1000 + identity % 4096, 0x0406, 0x0010, 1, 0, 0, 2, 16, 0, 0, 0
    )
    struct.pack_into("<II", config, 0x10, 0xE0000000 + identity * 0x1000 & 0xFFFFF000, 0x0000C001)
    struct.pack_into("<Q", config, 0x18, (0x40_0000_000C + identity * 0x10000) & 0xFFFF_FFFF_FFFF_FFFF)
    struct.pack_into("<HH", config, 0x2C, 0x8086, identity & 0xFFFF)
    config[0x34] = 0x40
    config[0x3C:0x3E] = bytes((11, 1 + identity % 4))
    struct.pack_into("<BBHHBB", config, 0x40, 0x01, 0x50, 0xC823, 0x0008, 0, 0)  # power management
    struct.pack_into("<BBHQH", config, 0x50, 0x05, 0x70, 0x0180, 0, 0)  # MSI
    struct.pack_into("<BBHII", config, 0x70, 0x11, 0xA0, 0x8009, 0x00000002, 0x00002002)  # MSI-X
    struct.pack_into(
        "<BBHIHHIHH", config, 0xA0, 0x10, 0x00, 0x0002, 0x10008CC2, 0x2810, 0x0010, 0x00427D13, 0x0040, 0x1103
    )
    extended = ((0x100, 0x0001, 2), (0x148, 0x0003, 1), (0x158, 0x000E, 1), (0x168, 0x0018, 1))
    for (offset, id, version), following in zip(extended, (0x148, 0x158, 0x168, 0), strict=True):
        struct.pack_into("<I", config, offset, id | version << 16 | following << 20)
    struct.pack_into("<6I", config, 0x104, 0, 0x00100000, 0x00062030, 0x00002000, 0x0000E000, 0xA0)  # AER
    struct.pack_into("<Q", config, 0x14C, 0xA0369FFFFF000000 + identity)  # serial number
    struct.pack_into("<HH", config, 0x16C, 0x1003, 0x1003)  # LTR
    return bytes(config)


def functions(count: int, segments: int) -> Iterator[tuple[int, int, int, int]]:
    """`count` addresses, spread over `segments`: buses filled with 32 devices of 8 functions each."""
    per_segment = -(-count // segments)
    for number in range(count):
        segment, rest = divmod(number, per_segment)
        yield segment, rest >> 8, rest >> 3 & 0x1F, rest & 7


def write_lspci_text(path: Path, count: int, segments: int = 1) -> None:
    """A file as `lspci -D -xxxx` prints it, which `lspci -F` and dom0kit both read."""
    with path.open("w", encoding="ascii") as out:
        for number, (segment, bus, device, function) in enumerate(functions(count, segments)):
            config = config_space(number)
            out.write(f"{segment:04x}:{bus:02x}:{device:02x}.{function} Ethernet controller: a synthetic one\n")
            for offset in range(0, 4096, 16):
                out.write(f"{offset:02x}: {config[offset : offset + 16].hex(' ')}\n")
            out.write("\n")
