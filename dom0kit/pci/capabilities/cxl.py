# SPDX-License-Identifier: MIT
"""What the CXL consortium's designated vendor-specific capabilities hold (CXL 3.0, section 8.1)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, TypeAlias

import msgspec

from dom0kit.pci.capabilities import TRUNCATED, Report


class CxlRange(msgspec.Struct, frozen=True, gc=False):
    """One range of host-managed device memory (sections 8.1.3.8 and 8.1.3.9)."""

    size: int
    """Bytes, a multiple of 256 MiB."""
    valid: bool
    """Memory_Info_Valid: the fields of this range mean something."""
    active: bool
    """Memory_Active: the memory can be used."""
    media_type: int
    """0 volatile, 1 non-volatile, 2 see the CDAT; others reserved, to 7."""
    memory_class: int
    """0 memory, 1 storage, 2 see the CDAT; others reserved, to 7."""
    desired_interleave: int
    """0 none, 1 256 B, 2 4 KiB, 3 512 B, 4 1 KiB, 5 2 KiB, 6 8 KiB, 7 16 KiB; others reserved, to 31."""
    active_timeout: int
    """Memory_Active_Timeout: 0 for 1 s, 1 for 4 s, 2 for 16 s, 3 for 64 s, 4 for 256 s; others reserved, to 7."""
    active_degraded: bool
    base: int
    """Address, a multiple of 256 MiB."""


class CxlDevice(msgspec.Struct, frozen=True, gc=False, tag_field="dvsec", tag="device"):
    """PCIe DVSEC for CXL Devices, id 0000h (section 8.1.3)."""

    cache_capable: bool
    io_capable: bool
    mem_capable: bool
    mem_hardware_init: bool
    """Mem_HwInit_Mode."""
    hdm_count: int
    """Ranges of host-managed device memory, 0 to 2; 3 reserved."""
    cache_writeback_capable: bool
    """Cache Writeback and Invalidate Capable."""
    reset_capable: bool
    """CXL Reset Capable."""
    reset_timeout: int
    """CXL Reset Timeout: 0 for 10 ms, each step ten times the former, up to 4 for 100 s; others reserved, to 7."""
    reset_memory_clear_capable: bool
    multiple_logical_device: bool
    viral_capable: bool
    power_management_completion_capable: bool
    """PM Init Completion Reporting Capable."""
    cache_enabled: bool
    io_enabled: bool
    mem_enabled: bool
    snoop_filter_coverage: int
    """Cache_SF_Coverage: 0 none, else 2**(n + 15) bytes, 0 to 31."""
    snoop_filter_granularity: int
    """Cache_SF_Granularity: 2**(n + 6) bytes, 0 to 6; 7 reserved."""
    clean_eviction: bool
    """Cache_Clean_Eviction: the device need not tell of clean lines it drops."""
    viral_enabled: bool
    viral_status: bool
    caching_disabled: bool
    initiate_cache_writeback: bool
    initiate_reset: bool
    reset_memory_clear_enabled: bool
    volatile_after_reset_desired: bool
    """Desired Volatile HDM State After Hot Reset."""
    modified_completion_enabled: bool
    cache_invalid: bool
    reset_complete: bool
    reset_error: bool
    volatile_preservation_error: bool
    """Volatile HDM Preservation Error."""
    power_management_complete: bool
    """Power Management Initialization Complete."""
    locked: bool
    """CONFIG_LOCK."""
    cache_size_unit: int
    """0 not reported, 1 64 KiB, 2 1 MiB; others reserved, to 15."""
    fallback: int
    """Fallback Capability: 0 not supported, 1 PCIe, 2 CXL Type 1, 3 CXL Type 3."""
    modified_completion_capable: bool
    no_clean_writeback: bool
    cache_size: int
    """In units of `cache_size_unit`, 0 to 255."""
    ranges: tuple[CxlRange, CxlRange]
    volatile_after_cold_reset: bool | None
    """Default Volatile HDM State After Cold Reset; this and the next three are None where the capability ends before
    DVSEC CXL Capability3."""
    volatile_after_warm_reset: bool | None
    volatile_after_hot_reset: bool | None
    volatile_after_hot_reset_configurable: bool | None


class CxlFunctionMap(msgspec.Struct, frozen=True, gc=False, tag_field="dvsec", tag="non-cxl-functions"):
    """Non-CXL Function Map, id 0002h (section 8.1.4)."""

    map: tuple[int, ...]
    """8 registers of 32 bits; bit d of register f for device d, function f (with ARI: function 8 d + f)."""


class CxlPort(msgspec.Struct, frozen=True, gc=False, tag_field="dvsec", tag="port-extensions"):
    """CXL Extensions DVSEC for Ports, id 0003h (section 8.1.5)."""

    power_management_complete: bool
    viral_status: bool
    unmask_secondary_bus_reset: bool
    unmask_link_disable: bool
    alternate_memory_enabled: bool
    """Alt Memory and ID Space Enable."""
    alternate_bus_master: bool
    """Alt BME."""
    viral_enabled: bool
    alternate_bus_base: int
    alternate_bus_limit: int
    alternate_memory_base: int
    """Register as read, 16 bits: bits 15:4 are address bits 31:20."""
    alternate_memory_limit: int
    """As above."""
    alternate_prefetchable_base: int
    """Register and its upper half: bits 47:16 are address bits 63:32, bits 15:4 address bits 31:20."""
    alternate_prefetchable_limit: int
    """As above."""
    rcrb_enabled: bool
    rcrb_base: int
    """Address, a multiple of 8 KiB."""


class CxlGpfPort(msgspec.Struct, frozen=True, gc=False, tag_field="dvsec", tag="gpf-port"):
    """GPF DVSEC for CXL Ports, id 0004h (section 8.1.6): how long a port waits in a global persistent flush."""

    phase1_base: int
    """Time out of phase 1 in units of `phase1_scale`, 0 to 15."""
    phase1_scale: int
    """0 for 1 us, each step ten times the former, up to 7 for 10 s; others reserved, to 15."""
    phase2_base: int
    phase2_scale: int


class CxlGpfDevice(msgspec.Struct, frozen=True, gc=False, tag_field="dvsec", tag="gpf-device"):
    """GPF DVSEC for CXL Devices, id 0005h (section 8.1.7): what a device needs in a global persistent flush."""

    phase2_base: int
    """Duration of phase 2 in units of `phase2_scale`, 0 to 15."""
    phase2_scale: int
    """As in `CxlGpfPort`."""
    phase2_power: int
    """In mW, 32 bits."""


class CxlFlexBusState(msgspec.Struct, frozen=True, gc=False):
    """Which protocols and formats a Flex Bus port can do, is told to do, or does."""

    cache: bool
    io: bool
    mem: bool
    flit_68: bool
    """68B Flit and VH."""
    multiple_logical_device: bool
    latency_optimized_256: bool
    """Latency-optimized 256B Flit."""
    pbr_flit: bool


class CxlFlexBus(msgspec.Struct, frozen=True, gc=False, tag_field="dvsec", tag="flex-bus-port"):
    """PCIe DVSEC for Flex Bus Port, id 0007h (section 8.2.1.3)."""

    capable: CxlFlexBusState
    enabled: CxlFlexBusState
    active: CxlFlexBusState
    """Port Status."""
    sync_header_bypass_enabled: bool
    drift_buffer_enabled: bool
    rcd_training_disabled: bool
    """Disable RCD Training."""
    retimer1_present: bool
    retimer2_present: bool
    sync_header_bypass_active: bool
    drift_buffer_active: bool
    even_half_failed: bool
    correctable_framing_error: bool
    """CXL_Correctable_Protocol_ID_Framing_Error."""
    uncorrectable_framing_error: bool
    """CXL_Uncorrectable_Protocol_ID_Framing_Error."""
    unexpected_protocol_dropped: bool
    """CXL_Unexpected_Protocol_ID_Dropped."""
    retimers_mismatched: bool
    """CXL_Retimers_Present_Mismatched."""
    received_training_data: int | None
    """Received Modified TS Data Phase 1, 24 bits; None where the capability ends before it."""
    nop_hint_capable: bool | None
    """NOP Hint Capable; this and the next two are None where the capability ends before them."""
    nop_hint_enabled: bool | None
    nop_hint_info: int | None
    """0 to 3."""


class CxlRegisterBlock(msgspec.Struct, frozen=True, gc=False):
    """One block of registers in a BAR."""

    bar: int
    """Register BIR: 0 to 5; 6 and 7 reserved."""
    id: int
    """0 empty, 1 component registers, 2 BAR virtualisation, 3 device registers, 4 performance monitoring, 255
    designated vendor-specific."""
    offset: int
    """In the BAR, a multiple of 64 KiB."""


class CxlRegisterLocator(msgspec.Struct, frozen=True, gc=False, tag_field="dvsec", tag="register-locator"):
    """Register Locator DVSEC, id 0008h (section 8.1.9)."""

    blocks: tuple[CxlRegisterBlock, ...]


class CxlMultipleLogicalDevice(msgspec.Struct, frozen=True, gc=False, tag_field="dvsec", tag="mld"):
    """MLD DVSEC, id 0009h (section 8.1.10)."""

    logical_devices: int
    """Number of LDs Supported, 16 bits."""
    hot_reset_vector: int
    """LD-ID Hot Reset Vector: bit n for the logical device n, 16 bits."""


Cxl: TypeAlias = (
    CxlDevice
    | CxlFunctionMap
    | CxlPort
    | CxlGpfPort
    | CxlGpfDevice
    | CxlFlexBus
    | CxlRegisterLocator
    | CxlMultipleLogicalDevice
)


def decode(id: int, body: bytes, report: Report) -> Cxl | None:
    """From a CXL DVSEC with all its headers, as long as it says or as config space holds; None for an unknown id, and
    for a body too short for that id."""
    known = _DECODERS.get(id)
    if known is None:
        return None
    length, decoder = known
    if len(body) < length:
        report(TRUNCATED, f"CXL DVSEC {id:#06x} has {len(body)} bytes, but its registers need {length}")
        return None
    return decoder(body)


_DEVICE: Final = struct.Struct("<7H")
_RANGE: Final = struct.Struct("<IIII")


def _device(body: bytes) -> CxlDevice:
    capability, control, status, control2, status2, lock, capability2 = _DEVICE.unpack_from(body, 0xA)
    (capability3,) = struct.unpack_from("<H", body, 0x38) if len(body) >= 0x3A else (None,)
    return CxlDevice(
        cache_capable=capability & 1 != 0,
        io_capable=capability & 2 != 0,
        mem_capable=capability & 4 != 0,
        mem_hardware_init=capability & 8 != 0,
        hdm_count=capability >> 4 & 3,
        cache_writeback_capable=capability & 0x40 != 0,
        reset_capable=capability & 0x80 != 0,
        reset_timeout=capability >> 8 & 7,
        reset_memory_clear_capable=capability & 0x800 != 0,
        multiple_logical_device=capability & 0x2000 != 0,
        viral_capable=capability & 0x4000 != 0,
        power_management_completion_capable=capability & 0x8000 != 0,
        cache_enabled=control & 1 != 0,
        io_enabled=control & 2 != 0,
        mem_enabled=control & 4 != 0,
        snoop_filter_coverage=control >> 3 & 0x1F,
        snoop_filter_granularity=control >> 8 & 7,
        clean_eviction=control & 0x800 != 0,
        viral_enabled=control & 0x4000 != 0,
        viral_status=status & 0x4000 != 0,
        caching_disabled=control2 & 1 != 0,
        initiate_cache_writeback=control2 & 2 != 0,
        initiate_reset=control2 & 4 != 0,
        reset_memory_clear_enabled=control2 & 8 != 0,
        volatile_after_reset_desired=control2 & 0x10 != 0,
        modified_completion_enabled=control2 & 0x20 != 0,
        cache_invalid=status2 & 1 != 0,
        reset_complete=status2 & 2 != 0,
        reset_error=status2 & 4 != 0,
        volatile_preservation_error=status2 & 8 != 0,
        power_management_complete=status2 & 0x8000 != 0,
        locked=lock & 1 != 0,
        cache_size_unit=capability2 & 0xF,
        fallback=capability2 >> 4 & 3,
        modified_completion_capable=capability2 & 0x40 != 0,
        no_clean_writeback=capability2 & 0x80 != 0,
        cache_size=capability2 >> 8,
        ranges=(_range(body, 0x18), _range(body, 0x28)),
        volatile_after_cold_reset=_bit(capability3, 1),
        volatile_after_warm_reset=_bit(capability3, 2),
        volatile_after_hot_reset=_bit(capability3, 4),
        volatile_after_hot_reset_configurable=_bit(capability3, 8),
    )


def _range(body: bytes, at: int) -> CxlRange:
    size_high, size_low, base_high, base_low = _RANGE.unpack_from(body, at)
    return CxlRange(
        size=size_high << 32 | size_low & 0xF0000000,
        valid=size_low & 1 != 0,
        active=size_low & 2 != 0,
        media_type=size_low >> 2 & 7,
        memory_class=size_low >> 5 & 7,
        desired_interleave=size_low >> 8 & 0x1F,
        active_timeout=size_low >> 13 & 7,
        active_degraded=size_low & 0x10000 != 0,
        base=base_high << 32 | base_low & 0xF0000000,
    )


def _function_map(body: bytes) -> CxlFunctionMap:
    return CxlFunctionMap(struct.unpack_from("<8I", body, 0xC))


_PORT: Final = struct.Struct("<HHBBHHHHIIII")


def _port(body: bytes) -> CxlPort:
    (
        status,
        control,
        bus_base,
        bus_limit,
        memory_base,
        memory_limit,
        prefetchable_base,
        prefetchable_limit,
        prefetchable_base_high,
        prefetchable_limit_high,
        rcrb,
        rcrb_high,
    ) = _PORT.unpack_from(body, 0xA)
    return CxlPort(
        power_management_complete=status & 1 != 0,
        viral_status=status & 0x4000 != 0,
        unmask_secondary_bus_reset=control & 1 != 0,
        unmask_link_disable=control & 2 != 0,
        alternate_memory_enabled=control & 4 != 0,
        alternate_bus_master=control & 8 != 0,
        viral_enabled=control & 0x4000 != 0,
        alternate_bus_base=bus_base,
        alternate_bus_limit=bus_limit,
        alternate_memory_base=memory_base,
        alternate_memory_limit=memory_limit,
        alternate_prefetchable_base=prefetchable_base_high << 16 | prefetchable_base,
        alternate_prefetchable_limit=prefetchable_limit_high << 16 | prefetchable_limit,
        rcrb_enabled=rcrb & 1 != 0,
        rcrb_base=rcrb_high << 32 | rcrb & ~0x1FFF,
    )


def _gpf_port(body: bytes) -> CxlGpfPort:
    phase1, phase2 = struct.unpack_from("<HH", body, 0xC)
    return CxlGpfPort(phase1 & 0xF, phase1 >> 8 & 0xF, phase2 & 0xF, phase2 >> 8 & 0xF)


def _gpf_device(body: bytes) -> CxlGpfDevice:
    duration, power = struct.unpack_from("<HI", body, 0xA)
    return CxlGpfDevice(duration & 0xF, duration >> 8 & 0xF, power)


def _flex_bus(body: bytes) -> CxlFlexBus:
    capability, control, status = struct.unpack_from("<HHH", body, 0xA)
    training, hint_capability, hint_control, hint_status = (
        int.from_bytes(body[at : at + 4], "little") if len(body) >= at + 4 else None for at in (0x10, 0x14, 0x18, 0x1C)
    )
    return CxlFlexBus(
        capable=_flex_bus_state(capability),
        enabled=_flex_bus_state(control),
        active=_flex_bus_state(status),
        sync_header_bypass_enabled=control & 8 != 0,
        drift_buffer_enabled=control & 0x10 != 0,
        rcd_training_disabled=control & 0x80 != 0,
        retimer1_present=control & 0x100 != 0,
        retimer2_present=control & 0x200 != 0,
        sync_header_bypass_active=status & 8 != 0,
        drift_buffer_active=status & 0x10 != 0,
        even_half_failed=status & 0x100 != 0,
        correctable_framing_error=status & 0x200 != 0,
        uncorrectable_framing_error=status & 0x400 != 0,
        unexpected_protocol_dropped=status & 0x800 != 0,
        retimers_mismatched=status & 0x1000 != 0,
        received_training_data=None if training is None else training & 0xFFFFFF,
        nop_hint_capable=_bit(hint_capability, 1),
        nop_hint_enabled=_bit(hint_control, 1),
        nop_hint_info=None if hint_status is None else hint_status & 3,
    )


def _flex_bus_state(bits: int) -> CxlFlexBusState:
    return CxlFlexBusState(
        cache=bits & 1 != 0,
        io=bits & 2 != 0,
        mem=bits & 4 != 0,
        flit_68=bits & 0x20 != 0,
        multiple_logical_device=bits & 0x40 != 0,
        latency_optimized_256=bits & 0x2000 != 0,
        pbr_flit=bits & 0x4000 != 0,
    )


def _register_locator(body: bytes) -> CxlRegisterLocator:
    blocks = []
    for at in range(0xC, len(body) - 7, 8):
        low, high = struct.unpack_from("<II", body, at)
        blocks.append(CxlRegisterBlock(low & 7, low >> 8 & 0xFF, high << 32 | low & 0xFFFF0000))
    return CxlRegisterLocator(tuple(blocks))


def _multiple_logical_device(body: bytes) -> CxlMultipleLogicalDevice:
    return CxlMultipleLogicalDevice(*struct.unpack_from("<HH", body, 0xA))


def _bit(register: int | None, mask: int) -> bool | None:
    return None if register is None else register & mask != 0


_DECODERS: Final[dict[int, tuple[int, Callable[[bytes], Cxl]]]] = {
    0x0: (0x38, _device),
    0x2: (0x2C, _function_map),
    0x3: (0x28, _port),
    0x4: (0x10, _gpf_port),
    0x5: (0x10, _gpf_device),
    0x7: (0x10, _flex_bus),
    0x8: (0xC, _register_locator),
    0x9: (0xE, _multiple_logical_device),
}
"""How many bytes each needs, and what decodes it."""
