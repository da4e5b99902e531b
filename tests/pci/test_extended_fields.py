# SPDX-License-Identifier: MIT
"""Fields of extended capabilities that lspci 3.9.0 does not print: where the specifications put them, bit by bit.

The others are proved against lspci itself (test_extended_lspci).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from dom0kit.pci.capabilities import EXTENDED, decode_extended
from dom0kit.pci.capabilities.aer import CorrectableError, UncorrectableError
from dom0kit.pci.capabilities.dpc import RpPioError
from dom0kit.pci.capabilities.npem import EnclosureIndication
from tests.pci.extended_space import FIRST, Registers, express_config

Fixed = tuple[tuple[int, int], ...]


class Field(NamedTuple):
    """One field of one capability."""

    id: int
    offset: int
    """Byte of the capability where the register begins."""
    bit: int
    """In the 32 bits from there."""
    width: int
    path: str
    """Where the struct has it."""
    value: Callable[[int], Any] = lambda raw: raw
    """From the raw value to the struct's."""
    fixed: Fixed = ()
    """What must be there for the field to exist: (offset, 32 bits)."""
    port_type: int = 0
    version: int = 1
    alone: bool = True
    """It depends on no other bit, so those may all be set."""


def _bool(raw: int) -> bool:
    return raw == 1


def _flags(id: int, offset: int, *paths: str | None, at: int = 0, **more: Any) -> list[Field]:
    """Single bits from bit `at` on; None for a reserved one, or one that lspci prints."""
    return [Field(id, offset, bit, 1, path, _bool, **more) for bit, path in enumerate(paths, at) if path]


def _member(value: Any) -> Callable[[int], Any]:
    return lambda raw: (value,) if raw else ()


def _errors(id: int, offset: int, path: str, bits: dict[int, Any], **more: Any) -> list[Field]:
    return [Field(id, offset, bit, 1, path, _member(e), alone=False, **more) for bit, e in bits.items()]


def _shift_nanoseconds(raw: int) -> int | None:
    scale = raw >> 9
    return None if scale > 5 else (raw & 0x1FF) * 32**scale


_UNCORRECTABLE = {
    0: UncorrectableError.TRAINING,
    22: UncorrectableError.INTERNAL,
    23: UncorrectableError.MULTICAST_BLOCKED,
    24: UncorrectableError.ATOMIC_EGRESS_BLOCKED,
    25: UncorrectableError.TLP_PREFIX_BLOCKED,
    26: UncorrectableError.POISONED_EGRESS_BLOCKED,
    27: UncorrectableError.DMWR_EGRESS_BLOCKED,
    28: UncorrectableError.IDE_CHECK,
    29: UncorrectableError.MISROUTED_IDE,
    30: UncorrectableError.PCRC_CHECK,
    31: UncorrectableError.TRANSLATION_EGRESS_BLOCKED,
}
_CORRECTABLE = {14: CorrectableError.INTERNAL, 15: CorrectableError.HEADER_LOG_OVERFLOW}
_RP_PIO = dict(zip((0, 1, 2, 8, 9, 10, 16, 17, 18), RpPioError, strict=True))
_RP_EXTENSIONS = ((4, 0x520),)

AER = [
    *_errors(1, 0x04, "uncorrectable_status", _UNCORRECTABLE),
    *_errors(1, 0x08, "uncorrectable_mask", _UNCORRECTABLE),
    *_errors(1, 0x0C, "uncorrectable_severity", _UNCORRECTABLE),
    *_errors(1, 0x10, "correctable_status", _CORRECTABLE),
    *_errors(1, 0x14, "correctable_mask", _CORRECTABLE),
    Field(1, 0x38, 0, 32, "prefix_log", lambda raw: f"{raw:08x}{0:024x}", fixed=((0x18, 0x800),), alone=False),
    Field(1, 0x30, 7, 2, "root.correctable_subclass", port_type=4),
]
VIRTUAL_CHANNEL = [
    Field(2, 0x04, 0, 3, "extended_count"),
    *_flags(2, 0x0C, "load_table"),
    *_flags(2, 0x14, "channels.0.load_table", at=16),
    *_flags(9, 0x14, "channels.0.load_table", at=16),
    *_flags(8, 0x0C, "load_table"),
    Field(8, 0x04, 4, 3, "low_priority_count"),
    Field(8, 0x04, 8, 2, "reference_clock"),
    Field(8, 0x04, 10, 2, "table_entry_bits", lambda raw: 1 << raw),
    Field(8, 0x08, 0, 8, "arbitration_capability"),
    Field(8, 0x08, 24, 8, "table_offset"),
    Field(8, 0x0C, 1, 3, "arbitration_select"),
    *_flags(8, 0x0E, "table_updating"),
    Field(8, 0x10, 0, 8, "channels.0.arbitration_capability"),
    *_flags(8, 0x10, "channels.0.reject_snoop", at=15),
    Field(8, 0x10, 16, 7, "channels.0.maximum_time_slots", lambda raw: raw + 1),
    Field(8, 0x10, 24, 8, "channels.0.table_offset"),
    Field(8, 0x14, 0, 8, "channels.0.traffic_classes"),
    *_flags(8, 0x14, "channels.0.load_table", at=16),
    Field(8, 0x14, 17, 3, "channels.0.arbitration_select"),
    Field(8, 0x14, 24, 3, "channels.0.id"),
    *_flags(8, 0x14, "channels.0.enabled", at=31),
    *_flags(8, 0x1A, "channels.0.table_updating", "channels.0.negotiation_pending"),
]
POWER_BUDGETING = [
    Field(4, 0x04, 0, 8, "data_select"),
    Field(4, 0x08, 0, 8, "base_power"),
    Field(4, 0x08, 8, 2, "scale"),
    Field(4, 0x08, 10, 3, "sub_state"),
    Field(4, 0x08, 13, 2, "power_state"),
    Field(4, 0x08, 15, 3, "type"),
    Field(4, 0x08, 18, 3, "rail"),
    *_flags(4, 0x0C, "system_allocated"),
]
ROOT_COMPLEX = [
    Field(6, 0x04, 0, 4, "maximum_speed"),
    Field(6, 0x04, 4, 6, "maximum_width"),
    *_flags(6, 0x04, "aspm_l0s", "aspm_l1", at=10),
    Field(6, 0x04, 12, 3, "l0s_exit_latency"),
    Field(6, 0x04, 15, 3, "l1_exit_latency"),
    Field(6, 0x04, 18, 7, "speeds"),
    *_flags(6, 0x08, "aspm_l0s_enabled", "aspm_l1_enabled", *[None] * 5, "extended_synch"),
    Field(6, 0x0A, 0, 4, "current_speed"),
    Field(6, 0x0A, 4, 6, "width"),
    Field(7, 0x08, 8, 8, "first_bus", version=2),
    Field(7, 0x08, 16, 8, "last_bus", version=2),
    Field(0xA, 0x04, 0, 16, "vendor"),
    Field(0xA, 0x04, 16, 16, "device"),
    *_flags(0xA, 0x08, "rrs_visibility_capable"),
    *_flags(0xA, 0x0C, "rrs_visibility_enabled"),
]
ACCESS = [
    *_flags(0xD, 0x04, "enhanced", at=7),
    *_flags(0xD, 0x06, "io_request_blocking", at=7),
    Field(0xD, 0x06, 8, 2, "downstream_memory_access"),
    Field(0xD, 0x06, 10, 2, "upstream_memory_access"),
    *_flags(0xD, 0x06, "unclaimed_redirect", at=12),
    Field(0xD, 0x04, 8, 8, "egress_vector_size", lambda raw: raw or 256, fixed=((4, 0x20),)),
    *_flags(0xF, 0x04, "page_aligned_request", "global_invalidate", "relaxed_ordering", at=5),
    *_flags(0x10, 0x04, "ari_hierarchy_preserved", None, "fourteen_bit_tag_capable", at=1),
    *_flags(0x10, 0x08, "fourteen_bit_tag_enabled", at=6),
    Field(0x12, 0x04, 8, 6, "window_size_requested"),
    *_flags(0x12, 0x04, "ecrc_regeneration", at=15),
    *_flags(0x13, 0x06, "response_pasid_required", at=15),
    *_flags(0x1B, 0x04, "translated_capable", at=3),
    *_flags(0x1B, 0x06, "translated_enabled", at=3),
]
POWER_AND_HINTS = [
    Field(0x16, 0x04, 0, 5, "maximum_substate"),
    Field(0x16, 0x0C, 0, 5, "status"),
    *_flags(0x16, 0x0C, "control_enabled", at=8),
    Field(0x16, 0x0E, 0, 5, "control"),
    *_flags(0x17, 0x04, "no_table_mode"),
    Field(0x17, 0x04, 16, 11, "table_size", lambda raw: raw + 1),
    Field(0x17, 0x08, 0, 3, "mode"),
    Field(0x17, 0x08, 8, 2, "requester"),
    Field(0x17, 0x0C, 0, 16, "steering_tags.0", fixed=((4, 0x200),), alone=False),
    Field(0x17, 0x0E, 0, 16, "steering_tags.1", fixed=((4, 0x10200),), alone=False),
    *_flags(0x1C, 0x04, "lines_64", "lines_128"),
    Field(0x1C, 0x04, 8, 5, "maximum_registrations"),
    *_flags(0x1C, 0x06, "enabled", "lines_128_selected"),
    Field(0x1C, 0x06, 8, 5, "registration_limit"),
    *_flags(0x1E, 0x04, "link_activation_capable", at=5),
    *_flags(0x1E, 0x08, "link_activation_interrupt", "link_activation", at=4),
    *_flags(0x1E, 0x10, "link_activation_status", version=2),
    *_flags(0x1F, 0x04, "enhanced", at=3),
    Field(0x21, 0x04, 0, 12, "queue_maximum_depth"),
    Field(0x21, 0x04, 16, 5, "interrupt_message"),
    *_flags(0x21, 0x08, "message_received", "message_overflow"),
    *_flags(0x21, 0x0A, "interrupt_enabled"),
    Field(0x21, 0x0C, 0, 16, "function"),
    Field(0x21, 0x0C, 16, 4, "reason"),
    Field(0x21, 0x0C, 20, 12, "queue_depth"),
    *_flags(0x22, 0x04, "valid", at=31),
    Field(0x22, 0x04, 0, 12, "reset_time", _shift_nanoseconds),
    Field(0x22, 0x04, 12, 12, "dl_up_time", _shift_nanoseconds),
    Field(0x22, 0x08, 0, 12, "flr_time", _shift_nanoseconds),
    Field(0x22, 0x08, 12, 12, "d3hot_to_d0_time", _shift_nanoseconds),
]
CONTAINMENT = [
    *_errors(0x1D, 0x0C, "rp_pio.status", _RP_PIO, fixed=_RP_EXTENSIONS),
    *_errors(0x1D, 0x10, "rp_pio.mask", _RP_PIO, fixed=_RP_EXTENSIONS),
    *_errors(0x1D, 0x14, "rp_pio.severity", _RP_PIO, fixed=_RP_EXTENSIONS),
    *_errors(0x1D, 0x18, "rp_pio.system_error", _RP_PIO, fixed=_RP_EXTENSIONS),
    *_errors(0x1D, 0x1C, "rp_pio.exception", _RP_PIO, fixed=_RP_EXTENSIONS),
    Field(0x1D, 0x20, 0, 32, "rp_pio.header_log", lambda r: f"{r:08x}{0:024x}", fixed=((4, 0x420),), alone=False),
    Field(0x1D, 0x2C, 0, 32, "rp_pio.header_log", lambda r: f"{r:032x}", fixed=((4, 0x420),), alone=False),
    Field(0x1D, 0x30, 0, 32, "rp_pio.implementation_log", fixed=((4, 0x520),)),
    Field(0x1D, 0x34, 0, 32, "rp_pio.prefix_log", lambda r: f"{r:08x}", fixed=((4, 0x620),), alone=False),
]
LINK = [
    Field(0x19, 0x04, 9, 7, "lower_skp_generation"),
    Field(0x19, 0x0C, 0, 4, "lanes.0.downstream_preset"),
    Field(0x19, 0x0C, 4, 3, "lanes.0.downstream_hint"),
    Field(0x19, 0x0C, 8, 4, "lanes.0.upstream_preset"),
    Field(0x19, 0x0C, 12, 3, "lanes.0.upstream_hint"),
    Field(0x19, 0x2A, 0, 4, "lanes.15.downstream_preset"),
    *_flags(0x25, 0x04, "local.scaled_flow_control", "local.immediate_readiness"),
    Field(0x25, 0x04, 2, 3, "local.extended_vc_count"),
    Field(0x25, 0x04, 5, 3, "local.l0p_exit_latency"),
    Field(0x25, 0x04, 0, 23, "local.bits"),
    *_flags(0x25, 0x04, "exchange_enabled", at=31),
    *_flags(0x25, 0x08, "remote.scaled_flow_control", "remote.immediate_readiness"),
    Field(0x25, 0x08, 0, 23, "remote.bits"),
    *_flags(0x25, 0x08, "remote_valid", at=31),
    Field(0x26, 0x10, 0, 32, "local_parity_mismatch"),
    Field(0x26, 0x14, 0, 32, "first_retimer_parity_mismatch"),
    Field(0x26, 0x18, 0, 32, "second_retimer_parity_mismatch"),
    Field(0x26, 0x20, 0, 4, "lanes.0.downstream"),
    Field(0x26, 0x20, 4, 4, "lanes.0.upstream"),
    Field(0x26, 0x2F, 4, 4, "lanes.15.upstream"),
    *_flags(0x27, 0x04, "uses_software"),
    *_flags(0x27, 0x06, "ready", "software_ready"),
    Field(0x27, 0x08, 0, 3, "lanes.0.control.receiver"),
    Field(0x27, 0x08, 3, 3, "lanes.0.control.type"),
    Field(0x27, 0x08, 6, 1, "lanes.0.control.usage_model"),
    Field(0x27, 0x08, 8, 8, "lanes.0.control.payload"),
    Field(0x27, 0x0A, 0, 3, "lanes.0.status.receiver"),
    Field(0x27, 0x44 + 2, 8, 8, "lanes.15.status.payload"),
    *_flags(0x2A, 0x04, "bypass_capable", "no_equalization_capable"),
    Field(0x2A, 0x04, 8, 8, "usage_modes"),
    *_flags(0x2A, 0x08, "bypass_disabled", "no_equalization_disabled"),
    Field(0x2A, 0x08, 8, 3, "usage_mode_selected"),
    *_flags(0x2A, 0x0C, "modified_ts_received", at=5),
    Field(0x2A, 0x0C, 6, 2, "link_behavior"),
    *_flags(0x2A, 0x0C, "precoding_on", "precode_request", "no_equalization_received", at=8),
    Field(0x2A, 0x10, 0, 3, "received.usage_mode"),
    Field(0x2A, 0x10, 3, 13, "received.information1"),
    Field(0x2A, 0x10, 16, 16, "received.vendor"),
    Field(0x2A, 0x14, 0, 24, "received.information2"),
    Field(0x2A, 0x14, 24, 2, "received.negotiation"),
    Field(0x2A, 0x18, 16, 16, "transmitted.vendor"),
    Field(0x2A, 0x1C, 0, 24, "transmitted.information2"),
    Field(0x2A, 0x20, 0, 4, "lanes.0.downstream"),
    *_flags(0x31, 0x0C, "precoding_on", "precode_request", "no_equalization_received", at=5),
    Field(0x31, 0x10, 4, 4, "lanes.0.upstream"),
    Field(0x2B, 0x04, 0, 8, "count"),
    *_flags(0x2B, 0x04, "selective_enable_capable", at=8),
    Field(0x2B, 0x08, 0, 8, "index"),
    *_flags(0x2B, 0x08, "negotiation_enabled", at=8),
    Field(0x2B, 0x0C, 0, 3, "usage"),
    Field(0x2B, 0x0C, 5, 11, "details"),
    Field(0x2B, 0x0C, 16, 16, "vendor"),
    Field(0x2B, 0x10, 0, 24, "information2"),
    Field(0x2B, 0x14, 0, 32, "selective_enable", fixed=((4, 0x100),)),
    *_flags(0x2F, 0x04, "dmwr_routing", "tag_completer_14bit", "tag_requester_14bit", "receiver_l0p"),
    Field(0x2F, 0x04, 4, 3, "port_l0p_exit_latency"),
    Field(0x2F, 0x04, 7, 3, "retimer_l0p_exit_latency"),
    *_flags(0x2F, 0x08, "dmwr_requester_enabled", "dmwr_egress_blocking", "tag_requester_14bit_enabled", "l0p_enabled"),
    Field(0x2F, 0x08, 4, 3, "target_link_width"),
    Field(0x2F, 0x0C, 0, 3, "initial_link_width"),
    *_flags(0x2F, 0x0C, "segment_captured", "remote_l0p", at=3),
]
for _id in (0x26, 0x2A, 0x31):
    LINK += _flags(_id, 0x0C, "equalization_complete", "phase1_successful", "phase2_successful", "phase3_successful")
    LINK += _flags(_id, 0x0C, "equalization_request", at=4)
_INDICATIONS = dict(enumerate(EnclosureIndication, 2))
MAILBOX_AND_LAMPS = [
    *_flags(0x2E, 0x08, "abort"),
    *_flags(0x2E, 0x08, "go", at=31),
    *_flags(0x2E, 0x0C, "error", at=2),
    Field(0x2E, 0x04, 1, 11, "interrupt_message"),
    *_flags(0x29, 0x04, "capable", "reset_capable"),
    *_errors(0x29, 0x04, "indications", _INDICATIONS),
    Field(0x29, 0x04, 24, 8, "specific"),
    *_flags(0x29, 0x08, "enabled", "initiate_reset"),
    *_errors(0x29, 0x08, "shown", _INDICATIONS),
    Field(0x29, 0x08, 24, 8, "specific_controls"),
    *_flags(0x29, 0x0C, "command_completed"),
    Field(0x29, 0x0C, 24, 8, "specific_status"),
]
_LINK_IDE, _SELECTIVE = ((4, 1),), ((4, 2), (0xC, 2))  # one link stream; one selective stream with two address blocks


def _ide_stream(base: int, path: str, fixed: Fixed) -> list[Field]:
    return [
        *_flags(0x30, base, f"{path}.enabled", fixed=fixed),
        Field(0x30, base, 2, 2, f"{path}.aggregation_non_posted", fixed=fixed),
        Field(0x30, base, 4, 2, f"{path}.aggregation_posted", fixed=fixed),
        Field(0x30, base, 6, 2, f"{path}.aggregation_completion", fixed=fixed),
        *_flags(0x30, base, f"{path}.pcrc_enabled", at=8, fixed=fixed),
        Field(0x30, base, 10, 4, f"{path}.header_encryption", fixed=fixed),
        Field(0x30, base, 14, 5, f"{path}.algorithm", fixed=fixed),
        Field(0x30, base, 19, 3, f"{path}.traffic_class", fixed=fixed),
        Field(0x30, base, 24, 8, f"{path}.id", fixed=fixed),
        Field(0x30, base + 4, 0, 4, f"{path}.state", fixed=fixed),
        *_flags(0x30, base + 4, f"{path}.integrity_check_failed", at=31, fixed=fixed),
    ]


IDE = [
    *_flags(
        0x30,
        0x04,
        "link_capable",
        "selective_capable",
        "flow_through_capable",
        "header_encryption_capable",
        "aggregation_capable",
        "pcrc_capable",
        "key_management_capable",
        "configuration_capable",
    ),
    Field(0x30, 0x04, 8, 5, "algorithms"),
    Field(0x30, 0x04, 13, 3, "link_streams", lambda raw: raw + 1, fixed=((4, 1),)),
    Field(0x30, 0x04, 16, 8, "selective_streams", lambda raw: raw + 1, fixed=((4, 2),)),
    *_flags(0x30, 0x04, "tee_limited_capable", at=24),
    *_flags(0x30, 0x08, "flow_through_enabled", at=2),
    *_ide_stream(0x0C, "link.0", _LINK_IDE),
    *_ide_stream(0x10, "selective.0.stream", _SELECTIVE),
    *_flags(0x30, 0x10, "selective.0.configuration_requests", at=9, fixed=_SELECTIVE),
    *_flags(0x30, 0x10, "selective.0.default", "selective.0.tee_limited", at=22, fixed=_SELECTIVE),
    Field(0x30, 0x18, 8, 16, "selective.0.rid_limit", fixed=_SELECTIVE),
    *_flags(0x30, 0x1C, "selective.0.rid_valid", fixed=_SELECTIVE),
    Field(0x30, 0x1C, 8, 16, "selective.0.rid_base", fixed=_SELECTIVE),
    Field(0x30, 0x1C, 24, 8, "selective.0.segment_base", fixed=_SELECTIVE),
    *_flags(0x30, 0x20, "selective.0.ranges.0.valid", fixed=_SELECTIVE),
    Field(0x30, 0x2C, 8, 12, "selective.0.ranges.1.base", lambda r: r << 20, fixed=_SELECTIVE, alone=False),
    Field(0x30, 0x2C, 20, 12, "selective.0.ranges.1.limit", lambda r: r << 20 | 0xFFFFF, fixed=_SELECTIVE, alone=False),
    Field(0x30, 0x30, 0, 32, "selective.0.ranges.1.limit", lambda r: r << 32 | 0xFFFFF, fixed=_SELECTIVE, alone=False),
    Field(0x30, 0x34, 0, 32, "selective.0.ranges.1.base", lambda r: r << 32, fixed=_SELECTIVE, alone=False),
]


def _cxl(id: int, length: int) -> Fixed:
    return (4, 0x1E98 | length << 20), (6, length << 4 | id << 16)


_DEVICE, _PORT, _FLEX_BUS = _cxl(0, 0x3C), _cxl(3, 0x28), _cxl(7, 0x20)


def _device(offset: int, *paths: str | None, at: int = 0) -> list[Field]:
    return _flags(0x23, offset, *(path and f"cxl.{path}" for path in paths), at=at, fixed=_DEVICE)


CXL = [
    *_device(0x0A, "cache_writeback_capable", "reset_capable", at=6),
    Field(0x23, 0x0A, 8, 3, "cxl.reset_timeout", fixed=_DEVICE),
    *_device(0x0A, "reset_memory_clear_capable", None, "multiple_logical_device", at=11),
    *_device(0x0A, "power_management_completion_capable", at=15),
    *_device(0x10, "caching_disabled", "initiate_cache_writeback", "initiate_reset", "reset_memory_clear_enabled"),
    *_device(0x10, "volatile_after_reset_desired", "modified_completion_enabled", at=4),
    *_device(0x12, "cache_invalid", None, None, "volatile_preservation_error"),
    *_device(0x14, "locked"),
    Field(0x23, 0x16, 4, 2, "cxl.fallback", fixed=_DEVICE),
    *_device(0x16, "modified_completion_capable", "no_clean_writeback", at=6),
    *_device(0x1C, "ranges.0.active_degraded", at=16),
    *_device(0x2C, "ranges.1.active_degraded", at=16),
    Field(0x23, 0x28, 0, 32, "cxl.ranges.1.size", lambda raw: raw << 32, fixed=_DEVICE, alone=False),
    Field(0x23, 0x20, 0, 32, "cxl.ranges.0.base", lambda raw: raw << 32, fixed=_DEVICE, alone=False),
    *_device(0x38, "volatile_after_cold_reset", "volatile_after_warm_reset", "volatile_after_hot_reset"),
    *_device(0x38, "volatile_after_hot_reset_configurable", at=3),
    Field(0x23, 0x28, 16, 16, "cxl.map.7", lambda raw: raw << 16, fixed=_cxl(2, 0x2C), alone=False),
    *_flags(0x23, 0x0A, "cxl.power_management_complete", fixed=_PORT),
    *_flags(0x23, 0x0A, "cxl.viral_status", at=14, fixed=_PORT),
    Field(0x23, 0x14, 0, 16, "cxl.alternate_prefetchable_base", fixed=_PORT, alone=False),
    Field(0x23, 0x16, 0, 16, "cxl.alternate_prefetchable_limit", fixed=_PORT, alone=False),
    Field(0x23, 0x18, 0, 32, "cxl.alternate_prefetchable_base", lambda raw: raw << 16, fixed=_PORT, alone=False),
    Field(0x23, 0x1C, 0, 32, "cxl.alternate_prefetchable_limit", lambda raw: raw << 16, fixed=_PORT, alone=False),
    *_flags(0x23, 0x20, "cxl.rcrb_enabled", fixed=_PORT),
    Field(0x23, 0x20, 13, 19, "cxl.rcrb_base", lambda raw: raw << 13, fixed=_PORT, alone=False),
    Field(0x23, 0x24, 0, 32, "cxl.rcrb_base", lambda raw: raw << 32, fixed=_PORT, alone=False),
    *_flags(
        0x23,
        0x0E,
        "cxl.even_half_failed",
        "cxl.correctable_framing_error",
        "cxl.uncorrectable_framing_error",
        "cxl.unexpected_protocol_dropped",
        "cxl.retimers_mismatched",
        at=8,
        fixed=_FLEX_BUS,
    ),
    Field(0x23, 0x0C, 0, 16, "cxl.hot_reset_vector", fixed=_cxl(9, 0x10)),
]

FIELDS = [
    *AER,
    *VIRTUAL_CHANNEL,
    *POWER_BUDGETING,
    *ROOT_COMPLEX,
    *ACCESS,
    *POWER_AND_HINTS,
    *CONTAINMENT,
    *LINK,
    *MAILBOX_AND_LAMPS,
    *IDE,
    *CXL,
]


def _decode(field: Field, value: int, others: int) -> Any:
    """The field's value in the struct when it holds `value` and every free bit of the registers is `others`."""
    body = bytearray((b"\xff" if others else b"\0") * 0x100)
    mask = (1 << field.width) - 1 << field.bit
    for offset, bits in field.fixed:
        body[offset : offset + 4] = bits.to_bytes(4, "little")
    word = int.from_bytes(body[field.offset : field.offset + 4], "little")
    body[field.offset : field.offset + 4] = (word & ~mask | value << field.bit).to_bytes(4, "little")
    registers = Registers(field.id, field.version, bytes(body[4:]))
    (found,) = decode_extended(express_config([registers], field.port_type, width=16), lambda rule, message: None)
    assert found.offset == FIRST
    result: Any = found
    for step in field.path.split("."):
        result = result[int(step)] if step.isdecimal() else getattr(result, step)
    return result


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: f"{field.id:02x}+{field.offset:02x}.{field.path}")
def test_each_bit_of_the_field_and_none_other_is_in_it(field: Field) -> None:
    full = (1 << field.width) - 1
    assert _decode(field, 0, others=0) == field.value(0)
    assert _decode(field, full, others=0) == field.value(full)
    for bit in range(field.width):
        assert _decode(field, 1 << bit, others=0) == field.value(1 << bit)
    if field.alone:
        assert _decode(field, 0, others=1) == field.value(0)


def test_every_capability_with_a_decoder_is_proved_somewhere() -> None:
    # These lspci prints whole (test_extended_lspci).
    by_lspci = {0x03, 0x05, 0x0B, 0x0E, 0x15, 0x18, 0x24}
    assert {field.id for field in FIELDS} | by_lspci == {id for id, known in EXTENDED.items() if known.module}
