# SPDX-License-Identifier: MIT
"""Fields that lspci does not print: where the specifications put them, bit by bit.

The others are proved against lspci itself (test_lspci_oracle).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from dom0kit.finding import Rule
from dom0kit.pci.capabilities import decode_standard

Config = dict[int, int]
"""Bytes of a capability by offset from its start; byte 0 is the id."""


class Field(NamedTuple):
    """One field of one capability."""

    capability: Config
    """What must be there for the field to exist."""
    offset: int
    """Byte of the capability where the register begins."""
    bit: int
    width: int
    path: str
    """Where the struct has it."""
    value: Callable[[int], Any] = lambda raw: raw
    """From the raw value to the struct's."""


def _bool(raw: int) -> bool:
    return raw == 1


PM, VPD, MSI, SWAP, PCIX, HT, PLUG, IOMMU = (
    {0: 1},
    {0: 3},
    {0: 5, 2: 0x80, 3: 1},
    {0: 6},
    {0: 7},
    {0: 8},
    {0: 12},
    {0: 15, 2: 3},
)
INTERRUPT, CLUMPING, MAPPING = {0: 8, 3: 0x80}, {0: 8, 3: 0x90}, {0: 8, 3: 0xA8}
HT_HOST = {0: 8, 3: 0x20}
AF = {0: 0x13}
PORT = {0: 0x10, 2: 0x62, 3: 0x01}  # a downstream port with a slot, version 2
ROOT = {0: 0x10, 2: 0x42}
SATA = {0: 0x12}

FIELDS = [
    Field(PM, 2, 4, 1, "immediate_readiness", _bool),
    Field(PM, 6, 0, 8, "bridge_extensions"),
    Field(PM, 7, 0, 8, "data"),
    Field(VPD, 2, 0, 15, "address"),
    Field(VPD, 2, 15, 1, "done", _bool),
    Field(VPD, 4, 0, 32, "data"),
    Field(MSI, 2, 9, 1, "extended_data_capable", _bool),
    Field(MSI, 2, 10, 1, "extended_data_enabled", _bool),
    Field(SWAP, 2, 0, 1, "hiding_armed", _bool),
    Field(SWAP, 2, 1, 1, "enum_masked", _bool),
    Field(SWAP, 2, 2, 1, "pending", _bool),
    Field(SWAP, 2, 3, 1, "led_on", _bool),
    Field(SWAP, 2, 4, 2, "programming_interface"),
    Field(SWAP, 2, 6, 1, "extraction", _bool),
    Field(SWAP, 2, 7, 1, "inserted", _bool),
    Field(PCIX, 2, 12, 2, "version"),
    Field(HT, 0x0E, 0, 16, "links.0.frequencies"),
    Field(HT, 0x12, 0, 16, "links.1.frequencies"),
    Field(HT, 0x10, 6, 1, "features.source_id_extension", _bool),
    Field(HT, 0x14, 0, 16, "scratchpad"),
    Field(HT_HOST, 0x0A, 0, 16, "link.frequencies"),
    Field(HT_HOST, 0x0C, 6, 1, "features.source_id_extension", _bool),
    Field(HT_HOST, 0x10, 0, 16, "scratchpad"),
    Field(INTERRUPT, 2, 0, 8, "index"),
    Field(INTERRUPT, 4, 0, 32, "data"),
    Field(CLUMPING, 4, 0, 32, "support"),
    Field(CLUMPING, 8, 0, 32, "enabled"),
    Field(MAPPING, 4, 20, 12, "address", lambda raw: raw << 20),
    Field(MAPPING, 8, 0, 32, "address", lambda raw: raw << 32),
    Field(PLUG, 2, 0, 8, "dword_select"),
    Field(PLUG, 3, 6, 1, "serr_pending", _bool),
    Field(PLUG, 3, 7, 1, "interrupt_pending", _bool),
    Field(PLUG, 4, 0, 32, "data"),
    Field(IOMMU, 2, 3, 5, "revision"),
    Field(IOMMU, 3, 0, 1, "iotlb", _bool),
    Field(IOMMU, 3, 1, 1, "hypertransport_tunnel", _bool),
    Field(IOMMU, 3, 2, 1, "not_present_cache", _bool),
    Field(IOMMU, 3, 3, 1, "extended_features", _bool),
    Field(IOMMU, 3, 4, 1, "extended", _bool),
    Field(IOMMU, 4, 0, 1, "enabled", _bool),
    Field(IOMMU, 4, 14, 18, "base", lambda raw: raw << 14),
    Field(IOMMU, 8, 0, 32, "base", lambda raw: raw << 32),
    Field(IOMMU, 12, 0, 5, "unit_id"),
    Field(IOMMU, 12, 7, 1, "range_valid", _bool),
    Field(IOMMU, 13, 0, 8, "bus"),
    Field(IOMMU, 14, 0, 8, "first_device"),
    Field(IOMMU, 15, 0, 8, "last_device"),
    Field(IOMMU, 16, 0, 5, "message"),
    Field(IOMMU, 16, 5, 3, "gva_size"),
    Field(IOMMU, 17, 0, 7, "pa_size"),
    Field(IOMMU, 16, 15, 7, "va_size"),
    Field(IOMMU, 18, 6, 1, "ats_reserved", _bool),
    Field(IOMMU, 16, 27, 5, "ppr_message"),
    Field(SATA, 4, 4, 20, "location_offset", lambda raw: raw * 4),
    Field(AF, 2, 0, 8, "length"),
    Field(PORT, 2, 15, 1, "flit_mode", _bool),
    Field(PORT, 4, 16, 1, "device.error_subclass", _bool),
    Field(PORT, 4, 30, 1, "device.tee_io", _bool),
    Field(PORT, 4, 3, 2, "device.phantom_functions"),
    Field(PORT, 4, 18, 8, "device.slot_power_limit_value"),
    Field(PORT, 4, 26, 2, "device.slot_power_limit_scale"),
    Field(PORT, 4, 28, 1, "device.flr_capable", _bool),
    Field(PORT, 8, 15, 1, "device.bridge_retry_or_flr", _bool),
    Field(PORT, 0x0A, 6, 1, "device.emergency_power_reduction", _bool),
    Field(PORT, 0x10, 5, 1, "link.retrain", _bool),
    Field(PORT, 0x10, 14, 2, "link.drs_signaling"),
    Field(PORT, 0x24, 12, 2, "device2.tph_completer"),
    Field(PORT, 0x24, 14, 2, "device2.ln_system"),
    Field(PORT, 0x28, 8, 1, "device2.ido_request", _bool),
    Field(PORT, 0x28, 9, 1, "device2.ido_completion", _bool),
    Field(PORT, 0x28, 11, 1, "device2.emergency_power_reduction_request", _bool),
    Field(PORT, 0x28, 15, 1, "device2.end_end_tlp_prefix_blocking", _bool),
    Field(PORT, 0x2C, 9, 7, "link2.lower_skp_generation"),
    Field(PORT, 0x2C, 16, 7, "link2.lower_skp_reception"),
    Field(PORT, 0x32, 12, 3, "link2.downstream_presence"),
    Field(PORT, 0x32, 15, 1, "link2.drs_received", _bool),
    Field(PORT, 0x34, 0, 1, "slot2.in_band_presence_disable_supported", _bool),
    Field(PORT, 0x38, 0, 1, "slot2.in_band_presence_disabled", _bool),
    Field(ROOT, 0x24, 5, 1, "device2.ari_forwarding_supported", _bool),
]
BRIDGE_FIELDS = [
    Field(PCIX, 2, 6, 4, "secondary_mode"),
    Field(PCIX, 2, 12, 2, "version"),
    Field(PCIX, 2, 14, 1, "secondary_266mhz", _bool),
    Field(PCIX, 2, 15, 1, "secondary_533mhz", _bool),
]


def _ignore(rule: Rule, message: str) -> None:
    """What these register values are a finding of is not the question here."""


def _decode(field: Field, value: int, header_type: int, others: int) -> Any:
    """The field's value in the struct when it holds `value` and every free bit of the registers is `others`."""
    config = bytearray(0x100)
    config[0x06], config[0x0E], config[0x34] = 0x10, header_type, 0x40
    capability = bytearray(b"\xff" * 0x3C if others else bytes(0x3C))
    capability[0:4] = bytes(4)
    for offset, byte in field.capability.items():
        capability[offset] = byte
    word = int.from_bytes(capability[field.offset : field.offset + 4], "little")
    mask = (1 << field.width) - 1 << field.bit
    capability[field.offset : field.offset + 4] = (word & ~mask | value << field.bit).to_bytes(4, "little")
    config[0x40:0x7C] = capability
    (found,) = decode_standard(bytes(config), _ignore)
    result: Any = found
    for step in field.path.split("."):
        result = result[int(step)] if step.isdecimal() else getattr(result, step)
    return result


@pytest.mark.parametrize(
    ("field", "header_type"),
    [*((field, 0) for field in FIELDS), *((field, 1) for field in BRIDGE_FIELDS)],
    ids=lambda value: f"{value.capability[0]:02x}+{value.offset:02x}.{value.path}" if isinstance(value, Field) else "",
)
def test_each_bit_of_the_field_and_none_other_is_in_it(field: Field, header_type: int) -> None:
    full = (1 << field.width) - 1
    assert _decode(field, 0, header_type, others=0) == field.value(0)
    assert _decode(field, full, header_type, others=0) == field.value(full)
    for bit in range(field.width):
        assert _decode(field, 1 << bit, header_type, others=0) == field.value(1 << bit)
    if sum(other.path == field.path for other in FIELDS) == 1:  # not one part of several
        assert _decode(field, 0, header_type, others=1) == field.value(0)
