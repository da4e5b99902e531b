# SPDX-License-Identifier: MIT
"""Integrity and Data Encryption, extended capability 0030h (PCI Express Base 6.0, section 7.9.26)."""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from dom0kit.pci.capabilities import TRUNCATED, ExtendedCapability, Report

LENGTH = 0xC


class IdeStream(msgspec.Struct, frozen=True, gc=False):
    """Control and status of one stream."""

    enabled: bool
    aggregation_non_posted: int
    """Tx Aggregation Mode NPR: 0 none, 1 up to 2, 2 up to 4, 3 up to 8 TLPs."""
    aggregation_posted: int
    """Tx Aggregation Mode PR, as above."""
    aggregation_completion: int
    """Tx Aggregation Mode CPL, as above."""
    pcrc_enabled: bool
    header_encryption: int
    """Partial Header Encryption Mode, 0 to 15."""
    algorithm: int
    """Selected Algorithm: 0 for AES-GCM-256 with a 96-bit MAC; others reserved, to 31."""
    traffic_class: int
    """0 to 7."""
    id: int
    """Stream ID, 0 to 255."""
    state: int
    """0 insecure, 2 secure; others reserved, to 15."""
    integrity_check_failed: bool
    """Received Integrity Check Fail Message."""


class IdeAddressRange(msgspec.Struct, frozen=True, gc=False):
    """Memory addresses that go through a selective stream."""

    valid: bool
    base: int
    """A multiple of 1 MiB."""
    limit: int
    """Last address, one less than a multiple of 1 MiB."""


class IdeSelectiveStream(msgspec.Struct, frozen=True, gc=False):
    """A stream between two ports, through switches."""

    stream: IdeStream
    configuration_requests: bool
    """Selective IDE for Configuration Requests Enable."""
    default: bool
    """Default Stream."""
    tee_limited: bool
    rid_valid: bool
    rid_base: int
    """First routing id of the partner, 16 bits."""
    rid_limit: int
    """Last routing id of the partner, 16 bits."""
    segment_base: int
    """Segment of the partner, 8 bits."""
    ranges: tuple[IdeAddressRange, ...]


class IntegrityAndDataEncryption(ExtendedCapability, frozen=True, tag="ide"):
    """Encrypted links and streams."""

    link_capable: bool
    """Link IDE Stream Supported."""
    selective_capable: bool
    """Selective IDE Streams Supported."""
    flow_through_capable: bool
    header_encryption_capable: bool
    """Partial Header Encryption Supported."""
    aggregation_capable: bool
    pcrc_capable: bool
    key_management_capable: bool
    """IDE_KM Protocol Supported."""
    configuration_capable: bool
    """Selective IDE for Configuration Requests Supported."""
    algorithms: int
    """Supported Algorithms, 0 to 31: 0 for AES-GCM-256 with a 96-bit MAC."""
    link_streams: int
    """Traffic classes with a link stream, 1 to 8; 0 without Link IDE."""
    selective_streams: int
    """1 to 256; 0 without Selective IDE."""
    tee_limited_capable: bool
    """TEE-Limited Stream Supported."""
    flow_through_enabled: bool
    link: tuple[IdeStream, ...]
    selective: tuple[IdeSelectiveStream, ...]
    """Those that fit into config space."""


_TWO: Final = struct.Struct("<II")
_SELECTIVE: Final = struct.Struct("<5I")
_RANGE: Final = struct.Struct("<III")


def decode(config: bytes, offset: int, report: Report) -> IntegrityAndDataEncryption:
    capability, control = _TWO.unpack_from(config, offset + 4)
    link_streams = (capability >> 13 & 7) + 1 if capability & 1 else 0
    selective_streams = (capability >> 16 & 0xFF) + 1 if capability & 2 else 0
    at = offset + 0xC
    link: list[IdeStream] = []
    while len(link) < link_streams and at + 8 <= len(config):
        link.append(_stream(*_TWO.unpack_from(config, at)))
        at += 8
    selective: list[IdeSelectiveStream] = []
    while len(selective) < selective_streams and at + 0x14 <= len(config):
        blocks = config[at] & 0xF
        end = at + 0x14 + 12 * blocks
        if end > len(config):
            break
        selective.append(_selective_stream(config, at, end))
        at = end
    if len(link) < link_streams or len(selective) < selective_streams:
        report(
            TRUNCATED,
            f"{link_streams} link and {selective_streams} selective streams, but only {len(link)} and "
            f"{len(selective)} are readable",
        )
    return IntegrityAndDataEncryption(
        offset=offset,
        version=config[offset + 2] & 0xF,
        link_capable=capability & 1 != 0,
        selective_capable=capability & 2 != 0,
        flow_through_capable=capability & 4 != 0,
        header_encryption_capable=capability & 8 != 0,
        aggregation_capable=capability & 0x10 != 0,
        pcrc_capable=capability & 0x20 != 0,
        key_management_capable=capability & 0x40 != 0,
        configuration_capable=capability & 0x80 != 0,
        algorithms=capability >> 8 & 0x1F,
        link_streams=link_streams,
        selective_streams=selective_streams,
        tee_limited_capable=capability & 0x1000000 != 0,
        flow_through_enabled=control & 4 != 0,
        link=tuple(link),
        selective=tuple(selective),
    )


def _stream(control: int, status: int) -> IdeStream:
    return IdeStream(
        enabled=control & 1 != 0,
        aggregation_non_posted=control >> 2 & 3,
        aggregation_posted=control >> 4 & 3,
        aggregation_completion=control >> 6 & 3,
        pcrc_enabled=control & 0x100 != 0,
        header_encryption=control >> 10 & 0xF,
        algorithm=control >> 14 & 0x1F,
        traffic_class=control >> 19 & 7,
        id=control >> 24,
        state=status & 0xF,
        integrity_check_failed=status & 0x80000000 != 0,
    )


def _selective_stream(config: bytes, at: int, end: int) -> IdeSelectiveStream:
    _, control, status, rid1, rid2 = _SELECTIVE.unpack_from(config, at)
    ranges = []
    for low, limit_high, base_high in _RANGE.iter_unpack(config[at + 0x14 : end]):
        base = base_high << 32 | (low >> 8 & 0xFFF) << 20
        limit = limit_high << 32 | (low >> 20) << 20 | 0xFFFFF
        ranges.append(IdeAddressRange(low & 1 != 0, base, limit))
    return IdeSelectiveStream(
        stream=_stream(control, status),
        configuration_requests=control & 0x200 != 0,
        default=control & 0x400000 != 0,
        tee_limited=control & 0x800000 != 0,
        rid_valid=rid2 & 1 != 0,
        rid_base=rid2 >> 8 & 0xFFFF,
        rid_limit=rid1 >> 8 & 0xFFFF,
        segment_base=rid2 >> 24,
        ranges=tuple(ranges),
    )
