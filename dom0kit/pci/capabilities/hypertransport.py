# SPDX-License-Identifier: MIT
"""HyperTransport capability in all its forms (HyperTransport I/O Link 3.10, section 7)."""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from dom0kit.pci.capabilities import Report, StandardCapability, TruncatedCapability, truncated
from dom0kit.serial import Hex

LENGTH = 4
_SLAVE: Final = struct.Struct("<HHHHHBBHBBHHHBBB")
_SLAVE_LENGTH: Final = 0x1B
_HOST: Final = struct.Struct("<HHHBBHHxxHHBB")
_HOST_LENGTH: Final = 0x16
_WORD: Final = struct.Struct("<I")
_PAIR: Final = struct.Struct("<II")
_ADDRESS: Final = struct.Struct("<Q")

_TITLES: Final = {
    0x08: "Switch",
    0x13: "Extended Configuration Space Access",
    0x14: "Address Mapping",
    0x16: "DirectRoute",
    0x17: "VCSet",
    0x18: "Retry Mode",
    0x19: "X86 Encoding",
    0x1A: "Gen3",
    0x1B: "Function-Level Extension",
    0x1C: "Power Management",
}


class HtLink(msgspec.Struct, frozen=True, gc=False):
    """One link's control, configuration, frequency and error registers."""

    crc_flood_enable: bool
    crc_start_test: bool
    crc_force_error: bool
    link_failure: bool
    init_complete: bool
    end_of_chain: bool
    transmitter_off: bool
    crc_error: int
    """One bit a byte lane."""
    isochronous_enable: bool
    ldtstop_tristate: bool
    extended_ctl: bool
    address_64bit: bool
    max_width_in: int
    """3 bits: 0 8, 1 16, 3 32, 4 2, 5 4 bits wide; 7 not connected."""
    flow_control_in: bool
    """Doubleword flow control."""
    max_width_out: int
    flow_control_out: bool
    width_in: int
    flow_control_in_enabled: bool
    width_out: int
    flow_control_out_enabled: bool
    frequency: int
    """4 bits: 0 200, 1 300, 2 400, 3 500, 4 600, 5 800, 6 1000, 7 1200, 8 1400, 9 1600 MHz; 15 vendor's."""
    protocol_error: bool
    overflow_error: bool
    end_of_chain_error: bool
    ctl_timeout: bool
    frequencies: int
    """Link Frequency Capability: one bit a value of `frequency`."""


class HtErrors(msgspec.Struct, frozen=True, gc=False):
    """Error Handling register."""

    protocol_flood: bool
    overflow_flood: bool
    protocol_fatal: bool
    overflow_fatal: bool
    end_of_chain_fatal: bool
    response_fatal: bool
    crc_fatal: bool
    system_fatal: bool
    chain_fail: bool
    response_error: bool
    protocol_non_fatal: bool
    overflow_non_fatal: bool
    end_of_chain_non_fatal: bool
    response_non_fatal: bool
    crc_non_fatal: bool
    system_non_fatal: bool


class HtFeatures(msgspec.Struct, frozen=True, gc=False):
    """Feature Capability register."""

    isochronous_flow_control: bool
    ldtstop: bool
    crc_test_mode: bool
    extended_ctl_time: bool
    address_64bit: bool
    unit_id_reorder_disable: bool
    source_id_extension: bool
    """Hosts only."""
    extended_register: bool
    """Hosts only."""
    upstream_configuration: bool
    """Hosts only."""


class HtSlave(StandardCapability, frozen=True, tag="ht-slave"):
    """Slave or primary interface."""

    base_unit: int
    unit_count: int
    master_host: bool
    """Which of the two links leads to the host."""
    default_direction: bool
    drop_on_uninitialised: bool
    links: tuple[HtLink, HtLink]
    revision_major: int
    revision_minor: int
    features: HtFeatures
    scratchpad: int
    errors: HtErrors
    memory_base_upper: int
    memory_limit_upper: int
    bus: int


class HtHost(StandardCapability, frozen=True, tag="ht-host"):
    """Host or secondary interface."""

    warm_reset: bool
    double_ended: bool
    device: int
    chain_side: bool
    host_hide: bool
    act_as_slave: bool
    end_of_chain_error: bool
    drop_on_uninitialised: bool
    link: HtLink
    revision_major: int
    revision_minor: int
    features: HtFeatures
    scratchpad: int
    errors: HtErrors
    memory_base_upper: int
    memory_limit_upper: int


class HtInterrupt(StandardCapability, frozen=True, tag="ht-interrupt"):
    """Interrupt discovery and configuration: an index and a data port to the interrupt definition registers."""

    index: int
    data: int
    """What the port showed; which register that is, `index` says."""


class HtRevision(StandardCapability, frozen=True, tag="ht-revision"):
    """Revision of HyperTransport."""

    major: int
    minor: int


class HtUnitClumping(StandardCapability, frozen=True, tag="ht-unit-clumping"):
    """Unit id clumping: which unit ids may be, and are, taken for one device."""

    support: int
    """One bit a unit id."""
    enabled: int


class HtMsiMapping(StandardCapability, frozen=True, tag="ht-msi-mapping"):
    """Turns memory writes to a window into HyperTransport interrupts: off, no MSI gets through this bridge."""

    enabled: bool
    fixed: bool
    address: int
    """Base of the 1 MiB window: the register, or 0xfee00000 where fixed."""


class HtOther(StandardCapability, frozen=True, tag="ht-other"):
    """A form without registers of its own here."""

    type: int
    """Capability Type, 5 bits."""
    title: str | None
    raw: Hex
    """16 bytes from the id on, as many as there are."""


_Capability = HtSlave | HtHost | HtInterrupt | HtRevision | HtUnitClumping | HtMsiMapping | HtOther


def decode(config: bytes, offset: int, report: Report) -> _Capability | TruncatedCapability:
    end = min(len(config), 0x100)
    command = config[offset + 2] | config[offset + 3] << 8
    type = command >> 11
    if type >> 2 == 0:
        needed, decoder = _SLAVE_LENGTH, _slave
    elif type >> 2 == 1:
        needed, decoder = _HOST_LENGTH, _host
    else:
        needed, decoder = _FORMS.get(type, (LENGTH, _other))
    if offset + needed > end:
        return truncated(config, offset, 0x08, report)
    return decoder(config, offset, command)


def _slave(config: bytes, offset: int, command: int) -> _Capability:
    (
        _,
        control0,
        width0,
        control1,
        width1,
        revision,
        state0,
        frequencies0,
        features,
        state1,
        frequencies1,
        scratchpad,
        errors,
        base,
        limit,
        bus,
    ) = _SLAVE.unpack_from(config, offset + 2)
    return HtSlave(
        offset,
        base_unit=command & 0x1F,
        unit_count=command >> 5 & 0x1F,
        master_host=command & 0x400 != 0,
        default_direction=command & 0x800 != 0,
        drop_on_uninitialised=command & 0x1000 != 0,
        links=(_link(control0, width0, state0, frequencies0), _link(control1, width1, state1, frequencies1)),
        revision_major=revision >> 5,
        revision_minor=revision & 0x1F,
        features=_features(features),
        scratchpad=scratchpad,
        errors=_errors(errors),
        memory_base_upper=base,
        memory_limit_upper=limit,
        bus=bus,
    )


def _host(config: bytes, offset: int, command: int) -> _Capability:
    _, control, width, revision, state, frequencies, features, scratchpad, errors, base, limit = _HOST.unpack_from(
        config, offset + 2
    )
    return HtHost(
        offset,
        warm_reset=command & 0x1 != 0,
        double_ended=command & 0x2 != 0,
        device=command >> 2 & 0x1F,
        chain_side=command & 0x80 != 0,
        host_hide=command & 0x100 != 0,
        act_as_slave=command & 0x400 != 0,
        end_of_chain_error=command & 0x800 != 0,
        drop_on_uninitialised=command & 0x1000 != 0,
        link=_link(control, width, state, frequencies),
        revision_major=revision >> 5,
        revision_minor=revision & 0x1F,
        features=_features(features),
        scratchpad=scratchpad,
        errors=_errors(errors),
        memory_base_upper=base,
        memory_limit_upper=limit,
    )


def _interrupt(config: bytes, offset: int, command: int) -> _Capability:
    return HtInterrupt(offset, command & 0xFF, _WORD.unpack_from(config, offset + 4)[0])


def _revision(config: bytes, offset: int, command: int) -> _Capability:
    return HtRevision(offset, command >> 5 & 7, command & 0x1F)


def _unit_clumping(config: bytes, offset: int, command: int) -> _Capability:
    return HtUnitClumping(offset, *_PAIR.unpack_from(config, offset + 4))


def _msi_mapping(config: bytes, offset: int, command: int) -> _Capability:
    fixed = command & 2 != 0
    if fixed:
        address = 0xFEE00000
    elif offset + 12 <= min(len(config), 0x100):
        address = _ADDRESS.unpack_from(config, offset + 4)[0] & ~0xFFFFF
    else:
        return _other(config, offset, command)
    return HtMsiMapping(offset, command & 1 != 0, fixed, address)


def _other(config: bytes, offset: int, command: int) -> _Capability:
    type = command >> 11
    raw = config[offset : min(offset + 16, len(config), 0x100)].hex()
    return HtOther(offset, type, _TITLES.get(type), raw)


_FORMS: Final = {0x10: (8, _interrupt), 0x11: (4, _revision), 0x12: (12, _unit_clumping), 0x15: (4, _msi_mapping)}


def _link(control: int, width: int, state: int, frequencies: int) -> HtLink:
    return HtLink(
        crc_flood_enable=control & 0x2 != 0,
        crc_start_test=control & 0x4 != 0,
        crc_force_error=control & 0x8 != 0,
        link_failure=control & 0x10 != 0,
        init_complete=control & 0x20 != 0,
        end_of_chain=control & 0x40 != 0,
        transmitter_off=control & 0x80 != 0,
        crc_error=control >> 8 & 0xF,
        isochronous_enable=control & 0x1000 != 0,
        ldtstop_tristate=control & 0x2000 != 0,
        extended_ctl=control & 0x4000 != 0,
        address_64bit=control & 0x8000 != 0,
        max_width_in=width & 7,
        flow_control_in=width & 0x8 != 0,
        max_width_out=width >> 4 & 7,
        flow_control_out=width & 0x80 != 0,
        width_in=width >> 8 & 7,
        flow_control_in_enabled=width & 0x800 != 0,
        width_out=width >> 12 & 7,
        flow_control_out_enabled=width & 0x8000 != 0,
        frequency=state & 0xF,
        protocol_error=state & 0x10 != 0,
        overflow_error=state & 0x20 != 0,
        end_of_chain_error=state & 0x40 != 0,
        ctl_timeout=state & 0x80 != 0,
        frequencies=frequencies,
    )


def _features(register: int) -> HtFeatures:
    return HtFeatures(
        isochronous_flow_control=register & 0x1 != 0,
        ldtstop=register & 0x2 != 0,
        crc_test_mode=register & 0x4 != 0,
        extended_ctl_time=register & 0x8 != 0,
        address_64bit=register & 0x10 != 0,
        unit_id_reorder_disable=register & 0x20 != 0,
        source_id_extension=register & 0x40 != 0,
        extended_register=register & 0x100 != 0,
        upstream_configuration=register & 0x200 != 0,
    )


def _errors(register: int) -> HtErrors:
    return HtErrors(*(register >> bit & 1 != 0 for bit in range(16)))
