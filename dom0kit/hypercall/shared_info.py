# SPDX-License-Identifier: MIT
"""The two shared_info pages, read: the core's block behind Xen's part of the first page, and its list of IOAPICs."""

from __future__ import annotations

import struct

import msgspec

from dom0kit import abi
from dom0kit.abi import Format, SharedBlock, SharedIoapic
from dom0kit.address import Gsi
from dom0kit.layout import layout
from dom0kit.walker import Notes


class NotShared(ValueError):
    """These are not shared_info pages of a core; the message says what is wrong."""


class SharedIoapicEntry(msgspec.Struct, frozen=True, kw_only=True):
    """An IOAPIC that the core has."""

    address: int
    gsi_base: Gsi
    pins: int
    id: int
    version: int
    format: Format


class SharedInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What the core tells everybody in dom0."""

    counter: int
    """Goes up by two at each change; odd while the core writes."""
    rsdp: int | None
    xsdt: int | None
    handed_over: bool
    """dom0 and the core have verified these addresses; else the core alone found them."""
    ioapics: tuple[SharedIoapicEntry, ...]


def parse_shared_info(pages: bytes) -> SharedInfo:
    """The block and the list in a copy of the two pages. NotShared: no block, another version, or a torn copy."""
    if len(pages) != 2 * abi.PAGE_BYTES:
        raise NotShared(f"shared_info has two pages, not {len(pages)} bytes")
    start = abi.SHARED_INFO_XEN_BYTES
    size = layout(SharedBlock).size
    block = layout(SharedBlock).parse(pages, start, start + size, Notes("shared_info"))
    assert block is not None
    if block.magic != abi.SHARED_BLOCK_MAGIC:
        raise NotShared("there is no block of dom0kit in these pages")
    if block.version != abi.SHARED_BLOCK_VERSION or block.bytes != size:
        raise NotShared(f"the block has version {block.version} and {block.bytes} bytes; this program reads version 1")
    if block.counter % 2:
        raise NotShared("the core was writing when these pages were copied; copy them again")
    entry = layout(SharedIoapic).size
    end = block.list_offset + block.list_count * entry
    if block.list_entry != entry or block.list_offset != abi.PAGE_BYTES or end > len(pages):
        raise NotShared("the list of IOAPICs does not lie in the second page")
    words = pages[start : start + size] + pages[block.list_offset : end]
    if sum(struct.unpack(f"<{len(words) // 4}I", words)) & 0xFFFFFFFF:
        raise NotShared("the checksum is wrong; copy the pages again")
    ioapics = []
    for at in range(block.list_offset, end, entry):
        ioapic = layout(SharedIoapic).parse(pages, at, at + entry, Notes("shared_info"))
        assert ioapic is not None
        ioapics.append(
            SharedIoapicEntry(
                address=ioapic.address,
                gsi_base=Gsi(ioapic.gsi_base),
                pins=ioapic.pins,
                id=ioapic.id,
                version=ioapic.version,
                format=Format(ioapic.format),
            )
        )
    return SharedInfo(
        counter=block.counter,
        rsdp=block.rsdp or None,
        xsdt=block.xsdt or None,
        handed_over=bool(block.flags & abi.SHARED_HANDED_OVER),
        ioapics=tuple(ioapics),
    )
