# SPDX-License-Identifier: MIT
"""Access Control Services, extended capability 000Dh (PCI Express Base 6.0, section 7.7.11)."""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from dom0kit.finding import Severity, rule
from dom0kit.pci.capabilities import ExtendedCapability, Report
from dom0kit.serial import Hex

LENGTH = 8


class AcsServices(msgspec.Struct, frozen=True, gc=False):
    """The seven services, as a function can do them or as they are turned on."""

    source_validation: bool
    translation_blocking: bool
    p2p_request_redirect: bool
    p2p_completion_redirect: bool
    upstream_forwarding: bool
    p2p_egress_control: bool
    direct_translated_p2p: bool


class AccessControlServices(ExtendedCapability, frozen=True, tag="acs"):
    """How a port or multi-function device routes requests between peers: what isolation rests on."""

    capable: AcsServices
    enabled: AcsServices
    enhanced: bool
    """ACS Enhanced Capability: the three fields that follow `egress_vector_size` mean something."""
    egress_vector_size: int
    """Bits in the egress control vector, 0 to 256; 0 without P2P Egress Control."""
    io_request_blocking: bool
    """I/O Request Blocking Enable."""
    downstream_memory_access: int
    """DSP Memory Target Access Control: 0 direct, 1 blocked, 2 redirected, 3 reserved."""
    upstream_memory_access: int
    """USP Memory Target Access Control, as above."""
    unclaimed_redirect: bool
    """Unclaimed Request Redirect Control."""
    egress_vector: Hex
    """Egress Control Vector, whole dwords as in config space: bit n blocks requests to port or function n."""


EGRESS: Final = rule(
    "pci.acs-egress-vector",
    Severity.WARNING,
    title="ACS egress control vector ends outside config space",
    meaning="The vector that says which peers may be reached is longer than the space behind it. Egress control of "
    "this function cannot be trusted for isolation.",
    advice="Treat the function as unable to do P2P Egress Control.",
    specification="PCI Express Base 6.0, section 7.7.11.4",
)

_REGISTERS: Final = struct.Struct("<HH")


def decode(config: bytes, offset: int, report: Report) -> AccessControlServices:
    capability, control = _REGISTERS.unpack_from(config, offset + 4)
    size = 0
    vector = ""
    if capability & 0x20:
        size = capability >> 8 or 256
        end = offset + 8 + (size + 31) // 32 * 4
        vector = config[offset + 8 : end].hex()
        if end > len(config):
            report(EGRESS, f"{size} bits at {offset + 8:#05x} end beyond {len(config) - 1:#05x}")
    return AccessControlServices(
        offset=offset,
        version=config[offset + 2] & 0xF,
        capable=_services(capability),
        enabled=_services(control),
        enhanced=capability & 0x80 != 0,
        egress_vector_size=size,
        io_request_blocking=control & 0x80 != 0,
        downstream_memory_access=control >> 8 & 3,
        upstream_memory_access=control >> 10 & 3,
        unclaimed_redirect=control & 0x1000 != 0,
        egress_vector=vector,
    )


def _services(bits: int) -> AcsServices:
    return AcsServices(
        source_validation=bits & 1 != 0,
        translation_blocking=bits & 2 != 0,
        p2p_request_redirect=bits & 4 != 0,
        p2p_completion_redirect=bits & 8 != 0,
        upstream_forwarding=bits & 0x10 != 0,
        p2p_egress_control=bits & 0x20 != 0,
        direct_translated_p2p=bits & 0x40 != 0,
    )
