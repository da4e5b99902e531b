# SPDX-License-Identifier: MIT
"""Data Link Feature, extended capability 0025h (PCI Express Base 6.0, section 7.7.4)."""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from dom0kit.pci.capabilities import ExtendedCapability, Report

LENGTH = 0xC


class DataLinkFeatures(msgspec.Struct, frozen=True, gc=False):
    """What one end of a link can do."""

    scaled_flow_control: bool
    immediate_readiness: bool
    extended_vc_count: int
    """Virtual channels besides VC0 in Flit Mode, 0 to 7."""
    l0p_exit_latency: int
    """0 below 1 us, each step doubles, 7 above 64 us."""
    bits: int
    """All 23 bits as read."""


class DataLinkFeature(ExtendedCapability, frozen=True, tag="data-link-feature"):
    """What both ends of a link told each other before it came up."""

    local: DataLinkFeatures
    exchange_enabled: bool
    remote: DataLinkFeatures
    remote_valid: bool


_REGISTERS: Final = struct.Struct("<II")


def decode(config: bytes, offset: int, report: Report) -> DataLinkFeature:
    capability, status = _REGISTERS.unpack_from(config, offset + 4)
    return DataLinkFeature(
        offset=offset,
        version=config[offset + 2] & 0xF,
        local=_features(capability),
        exchange_enabled=capability & 0x80000000 != 0,
        remote=_features(status),
        remote_valid=status & 0x80000000 != 0,
    )


def _features(bits: int) -> DataLinkFeatures:
    return DataLinkFeatures(bits & 1 != 0, bits & 2 != 0, bits >> 2 & 7, bits >> 5 & 7, bits & 0x7FFFFF)
