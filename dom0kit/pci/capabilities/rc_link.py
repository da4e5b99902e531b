# SPDX-License-Identifier: MIT
"""Root Complex Link Declaration, extended capability 0005h (PCI Express Base 6.0, section 7.9.8)."""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from dom0kit.pci.capabilities import TRUNCATED, ExtendedCapability, Report

LENGTH = 0x10


class RootComplexLinkEntry(msgspec.Struct, frozen=True, gc=False):
    """One way from this element of the root complex to another."""

    valid: bool
    configuration_space: bool
    """The target is a function, not a register block in memory."""
    associates_rcrb: bool
    """The target is the register block of this element."""
    target_component: int
    target_port: int
    address: int
    """Link Address, 64 bits: of the register block; of a function, its ECAM offset as a number (bits 14:12 the
    function, 19:15 the device, from 20 on the bus, in as many bits as bits 2:0 say, where 0 is 8)."""


class RootComplexLinkDeclaration(ExtendedCapability, frozen=True, tag="root-complex-link"):
    """Where an element of the root complex is in the topology inside."""

    element_type: int
    """0 configuration space element, 1 system egress port or internal sink, 2 internal root complex link; others
    reserved, to 15."""
    component: int
    """Component ID, 0 to 255; 0 is not allowed."""
    port: int
    """Port Number, 0 to 255."""
    entries: int
    """Number of Link Entries, 0 to 255."""
    links: tuple[RootComplexLinkEntry, ...]
    """Those that fit into config space."""


_DESCRIPTION: Final = struct.Struct("<BBBB")
_LINK: Final = struct.Struct("<BxBBxxxxQ")


def decode(config: bytes, offset: int, report: Report) -> RootComplexLinkDeclaration:
    element_type, entries, component, port = _DESCRIPTION.unpack_from(config, offset + 4)
    links: list[RootComplexLinkEntry] = []
    for at in range(offset + 0x10, offset + 0x10 + 16 * entries, 16):
        if at + 16 > len(config):
            report(TRUNCATED, f"{entries} root complex links are declared, but only {len(links)} are readable")
            break
        flags, target_component, target_port, address = _LINK.unpack_from(config, at)
        links.append(
            RootComplexLinkEntry(flags & 1 != 0, flags & 2 != 0, flags & 4 != 0, target_component, target_port, address)
        )
    return RootComplexLinkDeclaration(
        offset, config[offset + 2] & 0xF, element_type & 0xF, component, port, entries, tuple(links)
    )
