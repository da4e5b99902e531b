# SPDX-License-Identifier: MIT
"""Physical Layer 32.0 GT/s, extended capability 002Ah (PCI Express Base 6.0, section 7.7.6)."""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from dom0kit.pci.capabilities import ExtendedCapability, Report
from dom0kit.pci.capabilities.physical_16gt import LanePresets, lane_presets

LENGTH = 0x20


class ModifiedTrainingSet(msgspec.Struct, frozen=True, gc=False):
    """What modified TS1 and TS2 ordered sets carried."""

    usage_mode: int
    """0 PCI Express, 1 training set messages, 2 alternate protocol; others reserved, to 7."""
    information1: int
    """13 bits."""
    vendor: int
    information2: int
    """24 bits."""
    negotiation: int
    """Alternate Protocol Negotiation Status: 0 not supported, 1 disabled, 2 failed, 3 succeeded."""


class Physical32(ExtendedCapability, frozen=True, tag="physical-layer-32"):
    """A link of 32 GT/s: equalisation and alternate protocols."""

    bypass_capable: bool
    """Equalization Bypass to Highest Rate Supported."""
    no_equalization_capable: bool
    """No Equalization Needed Supported."""
    usage_modes: int
    """Modified TS usage modes supported, bit n for mode n, 8 bits."""
    bypass_disabled: bool
    no_equalization_disabled: bool
    usage_mode_selected: int
    """0 to 7, as in `ModifiedTrainingSet`."""
    equalization_complete: bool
    phase1_successful: bool
    phase2_successful: bool
    phase3_successful: bool
    equalization_request: bool
    """Link Equalization Request."""
    modified_ts_received: bool
    link_behavior: int
    """Received Enhanced Link Behavior Control: 0 full equalisation, 1 bypass to highest rate, 2 no equalisation, 3 see
    the modified training set."""
    precoding_on: bool
    """Transmitter Precoding On."""
    precode_request: bool
    """Transmitter Precode Request."""
    no_equalization_received: bool
    """No Equalization Needed Received."""
    received: ModifiedTrainingSet
    transmitted: ModifiedTrainingSet
    lanes: tuple[LanePresets, ...]
    """As many as the maximum link width."""


_REGISTERS: Final = struct.Struct("<7I")


def decode(config: bytes, offset: int, report: Report) -> Physical32:
    capability, control, status, received1, received2, sent1, sent2 = _REGISTERS.unpack_from(config, offset + 4)
    return Physical32(
        offset=offset,
        version=config[offset + 2] & 0xF,
        bypass_capable=capability & 1 != 0,
        no_equalization_capable=capability & 2 != 0,
        usage_modes=capability >> 8 & 0xFF,
        bypass_disabled=control & 1 != 0,
        no_equalization_disabled=control & 2 != 0,
        usage_mode_selected=control >> 8 & 7,
        equalization_complete=status & 1 != 0,
        phase1_successful=status & 2 != 0,
        phase2_successful=status & 4 != 0,
        phase3_successful=status & 8 != 0,
        equalization_request=status & 0x10 != 0,
        modified_ts_received=status & 0x20 != 0,
        link_behavior=status >> 6 & 3,
        precoding_on=status & 0x100 != 0,
        precode_request=status & 0x200 != 0,
        no_equalization_received=status & 0x400 != 0,
        received=_training_set(received1, received2),
        transmitted=_training_set(sent1, sent2),
        lanes=lane_presets(config, offset + 0x20, report),
    )


def _training_set(first: int, second: int) -> ModifiedTrainingSet:
    return ModifiedTrainingSet(first & 7, first >> 3 & 0x1FFF, first >> 16, second & 0xFFFFFF, second >> 24 & 3)
