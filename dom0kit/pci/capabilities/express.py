# SPDX-License-Identifier: MIT
"""PCI Express capability, versions 1 and 2 (PCI Express Base 6.0, section 7.5.3)."""

from __future__ import annotations

import enum
import struct
from typing import Final

import msgspec

from dom0kit.pci.capabilities import Report, StandardCapability, TruncatedCapability, truncated

LENGTH = 12
_DEVICE: Final = struct.Struct("<IHH")
_LINK: Final = struct.Struct("<IHH")
_ROOT: Final = struct.Struct("<HHI")


class ExpressType(enum.Enum):
    """Device/Port Type: what a function is in the PCI Express tree."""

    ENDPOINT = "endpoint"
    LEGACY_ENDPOINT = "legacy endpoint"
    ROOT_PORT = "root port"
    UPSTREAM_PORT = "upstream port"
    DOWNSTREAM_PORT = "downstream port"
    PCIE_TO_PCI_BRIDGE = "PCI Express to PCI bridge"
    PCI_TO_PCIE_BRIDGE = "PCI to PCI Express bridge"
    INTEGRATED_ENDPOINT = "root complex integrated endpoint"
    EVENT_COLLECTOR = "root complex event collector"
    RESERVED = "reserved"


class ExpressDevice(msgspec.Struct, frozen=True, gc=False):
    """Device Capabilities, Control and Status."""

    max_payload_supported: int
    """Bytes, 128 to 4096 (above: reserved values)."""
    phantom_functions: int
    """Phantom Functions Supported: how many bits of the function number may be used for them, 0 to 3."""
    extended_tag_supported: bool
    l0s_acceptable: int | None
    """Endpoint L0s Acceptable Latency in ns; None for no limit. Of endpoints only."""
    l1_acceptable: int | None
    """Endpoint L1 Acceptable Latency in ns; None for no limit. Of endpoints only."""
    attention_button: bool
    attention_indicator: bool
    power_indicator: bool
    role_based_error_reporting: bool
    error_subclass: bool
    """ERR_COR Subclass Capable."""
    slot_power_limit_value: int
    """Captured Slot Power Limit Value, as `ExpressSlot.power_limit_value`."""
    slot_power_limit_scale: int
    """0 to 3: 1, 0.1, 0.01, 0.001 W."""
    flr_capable: bool
    """Can be reset alone (Function Level Reset)."""
    tee_io: bool
    correctable_error_reporting: bool
    non_fatal_error_reporting: bool
    fatal_error_reporting: bool
    unsupported_request_reporting: bool
    relaxed_ordering: bool
    max_payload: int
    """Bytes in force."""
    extended_tag: bool
    phantom_functions_enabled: bool
    aux_power_enabled: bool
    no_snoop: bool
    max_read_request: int
    """Bytes in force."""
    bridge_retry_or_flr: bool
    """Bridge Configuration Retry Enable of a bridge to PCI; Initiate Function Level Reset (reads 0) of an endpoint."""
    correctable_error: bool
    non_fatal_error: bool
    fatal_error: bool
    unsupported_request: bool
    aux_power: bool
    transactions_pending: bool
    emergency_power_reduction: bool


class ExpressLink(msgspec.Struct, frozen=True, gc=False):
    """Link Capabilities, Control and Status."""

    max_speed: int
    """1 to 7: 2.5, 5, 8, 16, 32, 64, 128 GT/s (the bit of the vector in Link Capabilities 2 where version is 2)."""
    max_width: int
    """Lanes."""
    aspm: int
    """ASPM Support: bit 0 L0s, bit 1 L1."""
    l0s_exit: int | None
    """L0s Exit Latency: below so many ns; None for more than 4 us."""
    l1_exit: int | None
    """L1 Exit Latency: below so many ns; None for more than 64 us."""
    clock_pm_capable: bool
    surprise_down_reporting: bool
    link_active_reporting: bool
    """Data Link Layer Link Active Reporting Capable."""
    bandwidth_notification: bool
    aspm_optionality: bool
    port: int
    aspm_control: int
    """ASPM Control: bit 0 L0s, bit 1 L1."""
    read_completion_boundary: int
    """64 or 128 bytes."""
    disabled: bool
    retrain: bool
    """Reads as 0 by specification."""
    common_clock: bool
    extended_synch: bool
    clock_pm_enabled: bool
    autonomous_width_disabled: bool
    bandwidth_interrupt: bool
    autonomous_bandwidth_interrupt: bool
    drs_signaling: int
    """DRS Signaling Control: 0 not reported, 1 interrupt, 2 message."""
    speed: int
    """As `max_speed`; 0 where there is no link."""
    width: int
    """Lanes; 0 where there is no link."""
    training_error: bool
    """Bit 10: defined by version 1.0a only."""
    training: bool
    slot_clock: bool
    active: bool
    """Data Link Layer Link Active."""
    bandwidth_changed: bool
    autonomous_bandwidth_changed: bool


class ExpressSlot(msgspec.Struct, frozen=True, gc=False):
    """Slot Capabilities, Control and Status."""

    attention_button: bool
    power_controller: bool
    mrl_sensor: bool
    attention_indicator: bool
    power_indicator: bool
    hot_plug_surprise: bool
    hot_plug_capable: bool
    power_limit_value: int
    """8 bits; at scale 0, 0xf0 to 0xfe stand for 250 W to 600 W in steps of 25, 0xff for more."""
    power_limit_scale: int
    """0 to 3: 1, 0.1, 0.01, 0.001 W."""
    interlock: bool
    """Electromechanical interlock present."""
    no_command_completed: bool
    number: int
    """Physical Slot Number, 13 bits."""
    attention_button_enabled: bool
    power_fault_enabled: bool
    mrl_changed_enabled: bool
    presence_changed_enabled: bool
    command_completed_enabled: bool
    hot_plug_interrupt: bool
    attention_indicator_control: int
    """0 reserved, 1 on, 2 blink, 3 off."""
    power_indicator_control: int
    power_off: bool
    """Power Controller Control: set is off."""
    interlock_control: bool
    link_changed_enabled: bool
    attention_pressed: bool
    power_fault: bool
    mrl_changed: bool
    presence_changed: bool
    command_completed: bool
    mrl_open: bool
    presence: bool
    """Presence Detect State: a card is in the slot."""
    interlock_engaged: bool
    link_changed: bool


class ExpressRoot(msgspec.Struct, frozen=True, gc=False):
    """Root Control, Capabilities and Status."""

    serr_on_correctable: bool
    serr_on_non_fatal: bool
    serr_on_fatal: bool
    pme_interrupt: bool
    crs_visible: bool
    """Configuration Request Retry Status Software Visibility Enable."""
    crs_visible_capable: bool
    pme_requester: int
    """Requester id of the last PME."""
    pme_status: bool
    pme_pending: bool


class ExpressDevice2(msgspec.Struct, frozen=True, gc=False):
    """Device Capabilities 2 and Control 2."""

    completion_timeout_ranges: int
    """Bits 0 to 3: ranges A to D can be chosen; 0: not programmable."""
    completion_timeout_disable_supported: bool
    ari_forwarding_supported: bool
    atomic_routing: bool
    atomic_32bit: bool
    atomic_64bit: bool
    atomic_128bit_cas: bool
    no_ro_pr_pr: bool
    """No RO-enabled PR-PR Passing."""
    ltr_supported: bool
    tph_completer: int
    """0 none, 1 TPH, 3 TPH and extended TPH."""
    ln_system: int
    """LN System CLS: 0 none, 1 64 bytes, 2 128 bytes."""
    tag_10bit_completer: bool
    tag_10bit_requester: bool
    obff_supported: int
    """Bit 0 by message, bit 1 by WAKE#."""
    extended_fmt: bool
    end_end_tlp_prefix: bool
    max_end_end_tlp_prefixes: int
    """1 to 4 where `end_end_tlp_prefix`."""
    emergency_power_reduction: int
    """0 not supported, 1 device specific, 2 form factor or device specific."""
    emergency_power_reduction_init: bool
    frs: bool
    """Function Readiness Status messages."""
    completion_timeout: int
    """4 bits: 0 is 50 us to 50 ms; 1, 2 range A; 5, 6 range B; 9, 10 range C; 13, 14 range D."""
    completion_timeout_disabled: bool
    ari_forwarding: bool
    atomic_requester: bool
    atomic_egress_blocking: bool
    ido_request: bool
    ido_completion: bool
    ltr: bool
    emergency_power_reduction_request: bool
    tag_10bit: bool
    obff: int
    """0 off, 1 message A, 2 message B, 3 WAKE#."""
    end_end_tlp_prefix_blocking: bool


class ExpressLink2(msgspec.Struct, frozen=True, gc=False):
    """Link Capabilities 2, Control 2 and Status 2."""

    speeds: int
    """Supported Link Speeds Vector: bit 0 is 2.5 GT/s, to bit 6."""
    crosslink: bool
    lower_skp_generation: int
    """One bit a speed, as `speeds`."""
    lower_skp_reception: int
    retimer_detection: bool
    two_retimers_detection: bool
    drs_supported: bool
    target_speed: int
    """1 to 7, as `ExpressLink.max_speed`."""
    enter_compliance: bool
    autonomous_speed_disabled: bool
    selectable_deemphasis: bool
    """Set: -3.5 dB, clear: -6 dB, at 5 GT/s."""
    transmit_margin: int
    modified_compliance: bool
    compliance_sos: bool
    compliance_preset: int
    current_deemphasis: bool
    """Set: -3.5 dB, clear: -6 dB."""
    equalization_complete: bool
    equalization_phase1: bool
    equalization_phase2: bool
    equalization_phase3: bool
    equalization_request: bool
    retimer: bool
    two_retimers: bool
    crosslink_resolution: int
    """0 not supported, 1 upstream port, 2 downstream port, 3 not completed."""
    downstream_presence: int
    """Downstream Component Presence, 3 bits."""
    drs_received: bool


class ExpressSlot2(msgspec.Struct, frozen=True, gc=False):
    """Slot Capabilities 2 and Control 2."""

    in_band_presence_disable_supported: bool
    in_band_presence_disabled: bool


class Express(StandardCapability, frozen=True, tag="express"):
    """PCI Express: what a function is in the tree, its device, link, slot and root registers."""

    version: int
    """1 or 2."""
    type: ExpressType
    type_number: int
    """4 bits, as written."""
    slot_implemented: bool
    message: int
    """Interrupt Message Number, 5 bits."""
    flit_mode: bool
    """Flit Mode Supported."""
    device: ExpressDevice
    link: ExpressLink | None
    """None for what is integrated into the root complex, or beyond the readable bytes (as below)."""
    slot: ExpressSlot | None
    """Where a root or downstream port says that it has a slot."""
    root: ExpressRoot | None
    """Of root ports and event collectors."""
    device2: ExpressDevice2 | None
    """From version 2 on, as what follows."""
    link2: ExpressLink2 | None
    slot2: ExpressSlot2 | None


_TYPES: Final = {
    0: ExpressType.ENDPOINT,
    1: ExpressType.LEGACY_ENDPOINT,
    4: ExpressType.ROOT_PORT,
    5: ExpressType.UPSTREAM_PORT,
    6: ExpressType.DOWNSTREAM_PORT,
    7: ExpressType.PCIE_TO_PCI_BRIDGE,
    8: ExpressType.PCI_TO_PCIE_BRIDGE,
    9: ExpressType.INTEGRATED_ENDPOINT,
    10: ExpressType.EVENT_COLLECTOR,
}
_INTEGRATED: Final = frozenset({9, 10})
_WITH_SLOT: Final = frozenset({4, 6, 8})
_WITH_ROOT: Final = frozenset({4, 10})
_L0S: Final = (64, 128, 256, 512, 1_000, 2_000, 4_000, None)
_L1: Final = (1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, None)


def decode(config: bytes, offset: int, report: Report) -> Express | TruncatedCapability:
    flags = config[offset + 2] | config[offset + 3] << 8
    version = flags & 0xF
    number = flags >> 4 & 0xF
    has_slot = flags & 0x100 != 0 and number in _WITH_SLOT
    has_link = number not in _INTEGRATED
    has_root = number in _WITH_ROOT
    there = min(len(config), 0x100) - offset
    link: ExpressLink | None = None
    slot: ExpressSlot | None = None
    root: ExpressRoot | None = None
    device2: ExpressDevice2 | None = None
    link2: ExpressLink2 | None = None
    slot2: ExpressSlot2 | None = None
    needed = LENGTH
    if has_link:
        needed = 0x14
        if needed <= there:
            link = _link(config, offset + 0x0C)
    if has_slot:
        needed = 0x1C
        if needed <= there:
            slot = _slot(config, offset + 0x14)
    if has_root:
        needed = 0x24
        if needed <= there:
            root = _root(config, offset + 0x1C)
    if version >= 2:
        needed = 0x2C
        if needed <= there:
            device2 = _device2(config, offset + 0x24)
        if has_link:
            needed = 0x34
            if needed <= there:
                link2 = _link2(config, offset + 0x2C)
        if has_slot:
            needed = 0x3C
            if needed <= there:
                slot2 = ExpressSlot2(config[offset + 0x34] & 1 != 0, config[offset + 0x38] & 1 != 0)
    if needed > there:
        truncated(config, offset, 0x10, report)
    return Express(
        offset,
        version=version,
        type=_TYPES.get(number, ExpressType.RESERVED),
        type_number=number,
        slot_implemented=flags & 0x100 != 0,
        message=flags >> 9 & 0x1F,
        flit_mode=flags & 0x8000 != 0,
        device=_device(config, offset + 4),
        link=link,
        slot=slot,
        root=root,
        device2=device2,
        link2=link2,
        slot2=slot2,
    )


def _device(config: bytes, at: int) -> ExpressDevice:
    capabilities, control, status = _DEVICE.unpack_from(config, at)
    return ExpressDevice(
        max_payload_supported=128 << (capabilities & 7),
        phantom_functions=capabilities >> 3 & 3,
        extended_tag_supported=capabilities & 0x20 != 0,
        l0s_acceptable=_L0S[capabilities >> 6 & 7],
        l1_acceptable=_L1[capabilities >> 9 & 7],
        attention_button=capabilities & 0x1000 != 0,
        attention_indicator=capabilities & 0x2000 != 0,
        power_indicator=capabilities & 0x4000 != 0,
        role_based_error_reporting=capabilities & 0x8000 != 0,
        error_subclass=capabilities & 0x10000 != 0,
        slot_power_limit_value=capabilities >> 18 & 0xFF,
        slot_power_limit_scale=capabilities >> 26 & 3,
        flr_capable=capabilities & 0x10000000 != 0,
        tee_io=capabilities & 0x40000000 != 0,
        correctable_error_reporting=control & 0x1 != 0,
        non_fatal_error_reporting=control & 0x2 != 0,
        fatal_error_reporting=control & 0x4 != 0,
        unsupported_request_reporting=control & 0x8 != 0,
        relaxed_ordering=control & 0x10 != 0,
        max_payload=128 << (control >> 5 & 7),
        extended_tag=control & 0x100 != 0,
        phantom_functions_enabled=control & 0x200 != 0,
        aux_power_enabled=control & 0x400 != 0,
        no_snoop=control & 0x800 != 0,
        max_read_request=128 << (control >> 12 & 7),
        bridge_retry_or_flr=control & 0x8000 != 0,
        correctable_error=status & 0x1 != 0,
        non_fatal_error=status & 0x2 != 0,
        fatal_error=status & 0x4 != 0,
        unsupported_request=status & 0x8 != 0,
        aux_power=status & 0x10 != 0,
        transactions_pending=status & 0x20 != 0,
        emergency_power_reduction=status & 0x40 != 0,
    )


def _link(config: bytes, at: int) -> ExpressLink:
    capabilities, control, status = _LINK.unpack_from(config, at)
    return ExpressLink(
        max_speed=capabilities & 0xF,
        max_width=capabilities >> 4 & 0x3F,
        aspm=capabilities >> 10 & 3,
        l0s_exit=_L0S[capabilities >> 12 & 7],
        l1_exit=_L1[capabilities >> 15 & 7],
        clock_pm_capable=capabilities & 0x40000 != 0,
        surprise_down_reporting=capabilities & 0x80000 != 0,
        link_active_reporting=capabilities & 0x100000 != 0,
        bandwidth_notification=capabilities & 0x200000 != 0,
        aspm_optionality=capabilities & 0x400000 != 0,
        port=capabilities >> 24,
        aspm_control=control & 3,
        read_completion_boundary=128 if control & 0x8 else 64,
        disabled=control & 0x10 != 0,
        retrain=control & 0x20 != 0,
        common_clock=control & 0x40 != 0,
        extended_synch=control & 0x80 != 0,
        clock_pm_enabled=control & 0x100 != 0,
        autonomous_width_disabled=control & 0x200 != 0,
        bandwidth_interrupt=control & 0x400 != 0,
        autonomous_bandwidth_interrupt=control & 0x800 != 0,
        drs_signaling=control >> 14,
        speed=status & 0xF,
        width=status >> 4 & 0x3F,
        training_error=status & 0x400 != 0,
        training=status & 0x800 != 0,
        slot_clock=status & 0x1000 != 0,
        active=status & 0x2000 != 0,
        bandwidth_changed=status & 0x4000 != 0,
        autonomous_bandwidth_changed=status & 0x8000 != 0,
    )


def _slot(config: bytes, at: int) -> ExpressSlot:
    capabilities, control, status = _LINK.unpack_from(config, at)
    return ExpressSlot(
        attention_button=capabilities & 0x1 != 0,
        power_controller=capabilities & 0x2 != 0,
        mrl_sensor=capabilities & 0x4 != 0,
        attention_indicator=capabilities & 0x8 != 0,
        power_indicator=capabilities & 0x10 != 0,
        hot_plug_surprise=capabilities & 0x20 != 0,
        hot_plug_capable=capabilities & 0x40 != 0,
        power_limit_value=capabilities >> 7 & 0xFF,
        power_limit_scale=capabilities >> 15 & 3,
        interlock=capabilities & 0x20000 != 0,
        no_command_completed=capabilities & 0x40000 != 0,
        number=capabilities >> 19,
        attention_button_enabled=control & 0x1 != 0,
        power_fault_enabled=control & 0x2 != 0,
        mrl_changed_enabled=control & 0x4 != 0,
        presence_changed_enabled=control & 0x8 != 0,
        command_completed_enabled=control & 0x10 != 0,
        hot_plug_interrupt=control & 0x20 != 0,
        attention_indicator_control=control >> 6 & 3,
        power_indicator_control=control >> 8 & 3,
        power_off=control & 0x400 != 0,
        interlock_control=control & 0x800 != 0,
        link_changed_enabled=control & 0x1000 != 0,
        attention_pressed=status & 0x1 != 0,
        power_fault=status & 0x2 != 0,
        mrl_changed=status & 0x4 != 0,
        presence_changed=status & 0x8 != 0,
        command_completed=status & 0x10 != 0,
        mrl_open=status & 0x20 != 0,
        presence=status & 0x40 != 0,
        interlock_engaged=status & 0x80 != 0,
        link_changed=status & 0x100 != 0,
    )


def _root(config: bytes, at: int) -> ExpressRoot:
    control, capabilities, status = _ROOT.unpack_from(config, at)
    return ExpressRoot(
        serr_on_correctable=control & 0x1 != 0,
        serr_on_non_fatal=control & 0x2 != 0,
        serr_on_fatal=control & 0x4 != 0,
        pme_interrupt=control & 0x8 != 0,
        crs_visible=control & 0x10 != 0,
        crs_visible_capable=capabilities & 0x1 != 0,
        pme_requester=status & 0xFFFF,
        pme_status=status & 0x10000 != 0,
        pme_pending=status & 0x20000 != 0,
    )


def _device2(config: bytes, at: int) -> ExpressDevice2:
    capabilities, control, _ = _DEVICE.unpack_from(config, at)
    return ExpressDevice2(
        completion_timeout_ranges=capabilities & 0xF,
        completion_timeout_disable_supported=capabilities & 0x10 != 0,
        ari_forwarding_supported=capabilities & 0x20 != 0,
        atomic_routing=capabilities & 0x40 != 0,
        atomic_32bit=capabilities & 0x80 != 0,
        atomic_64bit=capabilities & 0x100 != 0,
        atomic_128bit_cas=capabilities & 0x200 != 0,
        no_ro_pr_pr=capabilities & 0x400 != 0,
        ltr_supported=capabilities & 0x800 != 0,
        tph_completer=capabilities >> 12 & 3,
        ln_system=capabilities >> 14 & 3,
        tag_10bit_completer=capabilities & 0x10000 != 0,
        tag_10bit_requester=capabilities & 0x20000 != 0,
        obff_supported=capabilities >> 18 & 3,
        extended_fmt=capabilities & 0x100000 != 0,
        end_end_tlp_prefix=capabilities & 0x200000 != 0,
        max_end_end_tlp_prefixes=capabilities >> 22 & 3 or 4,
        emergency_power_reduction=capabilities >> 24 & 3,
        emergency_power_reduction_init=capabilities & 0x4000000 != 0,
        frs=capabilities & 0x80000000 != 0,
        completion_timeout=control & 0xF,
        completion_timeout_disabled=control & 0x10 != 0,
        ari_forwarding=control & 0x20 != 0,
        atomic_requester=control & 0x40 != 0,
        atomic_egress_blocking=control & 0x80 != 0,
        ido_request=control & 0x100 != 0,
        ido_completion=control & 0x200 != 0,
        ltr=control & 0x400 != 0,
        emergency_power_reduction_request=control & 0x800 != 0,
        tag_10bit=control & 0x1000 != 0,
        obff=control >> 13 & 3,
        end_end_tlp_prefix_blocking=control & 0x8000 != 0,
    )


def _link2(config: bytes, at: int) -> ExpressLink2:
    capabilities, control, status = _LINK.unpack_from(config, at)
    return ExpressLink2(
        speeds=capabilities >> 1 & 0x7F,
        crosslink=capabilities & 0x100 != 0,
        lower_skp_generation=capabilities >> 9 & 0x7F,
        lower_skp_reception=capabilities >> 16 & 0x7F,
        retimer_detection=capabilities & 0x800000 != 0,
        two_retimers_detection=capabilities & 0x1000000 != 0,
        drs_supported=capabilities & 0x80000000 != 0,
        target_speed=control & 0xF,
        enter_compliance=control & 0x10 != 0,
        autonomous_speed_disabled=control & 0x20 != 0,
        selectable_deemphasis=control & 0x40 != 0,
        transmit_margin=control >> 7 & 7,
        modified_compliance=control & 0x400 != 0,
        compliance_sos=control & 0x800 != 0,
        compliance_preset=control >> 12,
        current_deemphasis=status & 0x1 != 0,
        equalization_complete=status & 0x2 != 0,
        equalization_phase1=status & 0x4 != 0,
        equalization_phase2=status & 0x8 != 0,
        equalization_phase3=status & 0x10 != 0,
        equalization_request=status & 0x20 != 0,
        retimer=status & 0x40 != 0,
        two_retimers=status & 0x80 != 0,
        crosslink_resolution=status >> 8 & 3,
        downstream_presence=status >> 12 & 7,
        drs_received=status & 0x8000 != 0,
    )
