# SPDX-License-Identifier: MIT
"""Config spaces made for tests: a PCI Express function with given extended capabilities, and random registers for each
kind, of which lspci 3.9.0 can make sense.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from hypothesis import strategies as st

from dom0kit.pci.capabilities.dvsec import CXL_VENDOR

FIRST: Final = 0x100


class Registers(NamedTuple):
    """One extended capability to be."""

    id: int
    version: int
    body: bytes
    """What follows its header; zeros to the next multiple of 4."""


def express_config(capabilities: Sequence[Registers], port_type: int = 0, width: int = 0, size: int = 4096) -> bytes:
    """Config space of a function with a PCI Express capability (`port_type`, `width` lanes) and these extended ones."""
    config = bytearray(4096)
    struct.pack_into("<HHHH", config, 0, 0x8086, 0x1234, 0, 0x10)
    config[0xB] = 2
    config[0x34] = 0x40
    struct.pack_into("<BBH", config, 0x40, 0x10, 0, 2 | port_type << 4)
    struct.pack_into("<I", config, 0x4C, 1 | width << 4)
    offset = FIRST
    for number, (id, version, body) in enumerate(capabilities, 1):
        end = offset + 4 + (len(body) + 3) // 4 * 4
        following = end if number < len(capabilities) else 0
        struct.pack_into("<I", config, offset, id | version << 16 | following << 20)
        config[offset + 4 : offset + 4 + len(body)] = body
        offset = end
    assert offset <= 4096
    return bytes(config[:size])


def _dwords(count: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=4 * count, max_size=4 * count)


def _integer(bits: int) -> st.SearchStrategy[int]:
    return st.integers(0, (1 << bits) - 1)


@st.composite
def _root_complex_link(draw: st.DrawFn) -> bytes:
    # lspci takes the element type to have 8 bits; the upper 4 are reserved.
    body = bytearray(draw(_dwords(15)))
    body[0] &= 0xF
    body[1] = draw(st.integers(0, 16))
    return bytes(body)


@st.composite
def _sriov(draw: st.DrawFn) -> bytes:
    # VF BARs are memory of 32 or 64 bits; for what else is in them lspci prints one thing and reads another.
    body = bytearray(draw(_dwords(8)))
    bars: list[int] = []
    while len(bars) < 6:
        kind = draw(st.sampled_from(("absent", "32", "64")))
        address = draw(_integer(60)) << 4 | 0x100
        prefetchable = draw(st.sampled_from((0, 8)))
        if kind == "64" and len(bars) < 5:
            bars += (address & 0xFFFFFFF0 | prefetchable | 4, address >> 32)
        else:
            bars.append(0 if kind == "absent" else address & 0xFFFFFFF0 | prefetchable)
    return bytes(body) + struct.pack("<6I", *bars) + draw(_dwords(1))


@st.composite
def _latency(draw: st.DrawFn) -> bytes:
    # Scales 6 and 7 are reserved; lspci computes with them.
    values = [draw(_integer(10)) | draw(st.integers(0, 5)) << 10 for _ in range(2)]
    return struct.pack("<HH", *values)


@st.composite
def _cxl_range(draw: st.DrawFn) -> bytes:
    # lspci prints whatever is in memory behind its tables of names for reserved values, and reserved address bits.
    media, kind = draw(st.integers(0, 2)), draw(st.integers(0, 2))
    flags = draw(_integer(2)) | media << 2 | kind << 5 | draw(_integer(3)) << 8 | draw(_integer(3)) << 13
    high = draw(_integer(32))
    low = draw(_integer(4)) << 28
    return struct.pack("<IIII", high, low | flags, draw(_integer(32)), draw(_integer(4)) << 28)


@st.composite
def _cxl_device(draw: st.DrawFn) -> bytes:
    return draw(st.binary(min_size=14, max_size=14)) + draw(_cxl_range()) + draw(_cxl_range()) + draw(_dwords(1))


@st.composite
def _cxl_port(draw: st.DrawFn) -> bytes:
    # Bits 1 and 3 of the status are reserved; lspci mistakes them for bit 0.
    status = draw(_integer(16)) & ~0xA
    return struct.pack("<H", status) + draw(st.binary(min_size=0x1C, max_size=0x1C))


_CXL_BODIES: Final[dict[int, st.SearchStrategy[bytes]]] = {
    0x0: _cxl_device(),
    0x2: st.binary(min_size=0x22, max_size=0x22),
    0x3: _cxl_port(),
    0x4: st.binary(min_size=6, max_size=6),
    0x5: st.binary(min_size=6, max_size=6),
    0x7: st.binary(min_size=0x16, max_size=0x16),
    0x8: st.integers(1, 10).flatmap(lambda n: st.binary(min_size=2 + 8 * n, max_size=2 + 8 * n)),
    0x9: st.builds(struct.pack, st.just("<HHH"), st.integers(0, 20), _integer(16), _integer(16)),
    0xA: st.binary(min_size=6, max_size=6),
}
"""By DVSEC id, what follows it."""


@st.composite
def _dvsec(draw: st.DrawFn) -> bytes:
    revision = draw(_integer(4))
    if draw(st.integers(0, 3)) == 0:
        vendor = draw(_integer(16).filter(lambda number: number != CXL_VENDOR))
        return struct.pack("<IH", vendor | revision << 16 | draw(_integer(12)) << 20, draw(_integer(16)))
    id = draw(st.sampled_from(sorted(_CXL_BODIES)))
    body = draw(_CXL_BODIES[id])
    if id == 0x7 and revision < 2:  # a shorter one of revision 2 makes lspci give up
        body = body[: draw(st.sampled_from((0xA, 0x16)))]
    return struct.pack("<IH", CXL_VENDOR | revision << 16 | len(body) + 10 << 20, id) + body


_BODIES: Final[dict[int, st.SearchStrategy[bytes]]] = {
    0x05: _root_complex_link(),
    0x10: _sriov(),
    0x18: _latency(),
    0x23: _dvsec(),
}


def registers(id: int) -> st.SearchStrategy[Registers]:
    """Random registers of one kind of capability, with nothing in them that lspci 3.9.0 itself mistakes."""
    return st.builds(Registers, st.just(id), _integer(4), _BODIES.get(id, _dwords(0x1A)))
