# SPDX-License-Identifier: MIT
"""The PCI Express capability as Debian's `lspci -vvv` prints it, from our facts (see lspci_oracle)."""

from __future__ import annotations

from typing import Final

from dom0kit.pci.capabilities.express import (
    Express,
    ExpressDevice,
    ExpressDevice2,
    ExpressLink,
    ExpressLink2,
    ExpressRoot,
    ExpressSlot,
    ExpressType,
)
from dom0kit.pci.function import BarKind, Function
from tests.pci.lspci_oracle import Renderer, flag

_TYPES: Final = {
    ExpressType.ENDPOINT: "Endpoint",
    ExpressType.LEGACY_ENDPOINT: "Legacy Endpoint",
    ExpressType.ROOT_PORT: "Root Port",
    ExpressType.UPSTREAM_PORT: "Upstream Port",
    ExpressType.DOWNSTREAM_PORT: "Downstream Port",
    ExpressType.PCIE_TO_PCI_BRIDGE: "PCI-Express to PCI/PCI-X Bridge",
    ExpressType.PCI_TO_PCIE_BRIDGE: "PCI/PCI-X to PCI-Express Bridge",
    ExpressType.INTEGRATED_ENDPOINT: "Root Complex Integrated Endpoint",
    ExpressType.EVENT_COLLECTOR: "Root Complex Event Collector",
}
_LEADS_DOWN: Final = {ExpressType.ROOT_PORT, ExpressType.DOWNSTREAM_PORT, ExpressType.PCI_TO_PCIE_BRIDGE}
_ENDPOINTS: Final = {ExpressType.ENDPOINT, ExpressType.LEGACY_ENDPOINT}
_INTEGRATED: Final = {ExpressType.INTEGRATED_ENDPOINT, ExpressType.EVENT_COLLECTOR}
_SPEEDS: Final = {1: "2.5GT/s", 2: "5GT/s", 3: "8GT/s", 4: "16GT/s", 5: "32GT/s", 6: "64GT/s"}
_ASPM: Final = ("not supported", "L0s", "L1", "L0s L1")
_ASPM_CONTROL: Final = ("Disabled", "L0s Enabled", "L1 Enabled", "L0s L1 Enabled")


def _latency(value: int | None) -> str:
    if value is None:
        return "unlimited"
    return f"<{value}ns" if value < 1000 else f"<{value // 1000}us"


def _watts(value: int, scale: int) -> str:
    if scale == 0 and value >= 0xF0:
        return f"{250 + 25 * (value - 0xF0)}" if value < 0xFF else ">600"
    return f"{value * (1.0, 0.1, 0.01, 0.001)[scale]:.10g}"


def _express(c: Express, f: Function) -> list[str]:
    kind = _TYPES.get(c.type, f"Unknown type {c.type_number}")
    slot = f" (Slot{flag(c.slot_implemented)})" if c.type in _LEADS_DOWN else ""
    lines = [f"Express (v{c.version}) {kind}{slot}, MSI {c.message:02x}"]
    lines += _device(c.device, c.type)
    if c.link is not None:
        lines += _link(c.link, c.type)
    if c.slot is not None:
        lines += _slot(c.slot)
    if c.root is not None:
        lines += _root(c.root, c.type)
    if c.device2 is not None:
        # One that lspci can place: not a 64-bit BAR in the last register.
        has_memory = any(
            bar.kind is not BarKind.IO and (bar.kind, bar.index) != (BarKind.MEMORY64, 5) for bar in f.bars
        )
        lines += _device2(c.device2, c.type, has_memory)
    if c.link2 is not None:
        lines += _link2(c.link2, c.type, f)
    return lines


def _device(c: ExpressDevice, kind: ExpressType) -> list[str]:
    first = f"DevCap:\tMaxPayload {c.max_payload_supported} bytes, PhantFunc {(1 << c.phantom_functions) - 1}"
    second = f"ExtTag{flag(c.extended_tag_supported)}"
    if kind in _ENDPOINTS:
        first += f", Latency L0s {_latency(c.l0s_acceptable)}, L1 {_latency(c.l1_acceptable)}"
    if kind in _ENDPOINTS or kind in (ExpressType.UPSTREAM_PORT, ExpressType.PCIE_TO_PCI_BRIDGE):
        second += (
            f" AttnBtn{flag(c.attention_button)} AttnInd{flag(c.attention_indicator)} PwrInd{flag(c.power_indicator)}"
        )
    second += f" RBE{flag(c.role_based_error_reporting)}"
    if kind in _ENDPOINTS or kind is ExpressType.INTEGRATED_ENDPOINT:
        second += f" FLReset{flag(c.flr_capable)}"
    if kind in (ExpressType.ENDPOINT, ExpressType.UPSTREAM_PORT, ExpressType.PCIE_TO_PCI_BRIDGE):
        second += f" SlotPowerLimit {_watts(c.slot_power_limit_value, c.slot_power_limit_scale)}W"
    last = ""
    if kind is ExpressType.PCIE_TO_PCI_BRIDGE:
        last = f" BrConfRtry{flag(c.bridge_retry_or_flr)}"
    elif (kind in _ENDPOINTS or kind is ExpressType.INTEGRATED_ENDPOINT) and c.flr_capable:
        last = f" FLReset{flag(c.bridge_retry_or_flr)}"
    return [
        first,
        second,
        f"DevCtl:\tCorrErr{flag(c.correctable_error_reporting)} NonFatalErr{flag(c.non_fatal_error_reporting)} "
        f"FatalErr{flag(c.fatal_error_reporting)} UnsupReq{flag(c.unsupported_request_reporting)}",
        f"RlxdOrd{flag(c.relaxed_ordering)} ExtTag{flag(c.extended_tag)} PhantFunc{flag(c.phantom_functions_enabled)} "
        f"AuxPwr{flag(c.aux_power_enabled)} NoSnoop{flag(c.no_snoop)}{last}",
        f"MaxPayload {c.max_payload} bytes, MaxReadReq {c.max_read_request} bytes",
        f"DevSta:\tCorrErr{flag(c.correctable_error)} NonFatalErr{flag(c.non_fatal_error)} "
        f"FatalErr{flag(c.fatal_error)} UnsupReq{flag(c.unsupported_request)} AuxPwr{flag(c.aux_power)} "
        f"TransPend{flag(c.transactions_pending)}",
    ]


def _compared(now: int, most: int, kind: ExpressType) -> str:
    """What lspci says of a link's speed or width: less is no wonder of a port that leads downwards."""
    if now > most:
        return " (overdriven)"
    return " (downgraded)" if now < most and kind not in _LEADS_DOWN else ""


def _link(c: ExpressLink, kind: ExpressType) -> list[str]:
    first = (
        f"LnkCap:\tPort #{c.port}, Speed {_SPEEDS.get(c.max_speed, 'unknown')}, Width x{c.max_width}, "
        f"ASPM {_ASPM[c.aspm]}"
    )
    if c.aspm:
        exits = []
        if c.aspm & 1:
            exits.append(f"L0s {_latency(c.l0s_exit)}")
        if c.aspm & 2:
            exits.append(f"L1 {_latency(c.l1_exit)}")
        first += f", Exit Latency {', '.join(exits)}"
    boundary = ""
    if kind in _ENDPOINTS or kind in (ExpressType.ROOT_PORT, ExpressType.PCIE_TO_PCI_BRIDGE):
        boundary = f" RCB {c.read_completion_boundary} bytes,"
    speed = _SPEEDS.get(c.speed, "unknown")
    slower = _compared(c.speed, c.max_speed, kind)
    narrower = _compared(c.width, c.max_width, kind)
    return [
        first,
        f"ClockPM{flag(c.clock_pm_capable)} Surprise{flag(c.surprise_down_reporting)} "
        f"LLActRep{flag(c.link_active_reporting)} BwNot{flag(c.bandwidth_notification)} "
        f"ASPMOptComp{flag(c.aspm_optionality)}",
        f"LnkCtl:\tASPM {_ASPM_CONTROL[c.aspm_control]};{boundary} Disabled{flag(c.disabled)} "
        f"CommClk{flag(c.common_clock)}",
        f"ExtSynch{flag(c.extended_synch)} ClockPM{flag(c.clock_pm_enabled)} "
        f"AutWidDis{flag(c.autonomous_width_disabled)} BWInt{flag(c.bandwidth_interrupt)} "
        f"AutBWInt{flag(c.autonomous_bandwidth_interrupt)}",
        f"LnkSta:\tSpeed {speed}{slower}, Width x{c.width}{narrower}",
        f"TrErr{flag(c.training_error)} Train{flag(c.training)} SlotClk{flag(c.slot_clock)} DLActive{flag(c.active)} "
        f"BWMgmt{flag(c.bandwidth_changed)} ABWMgmt{flag(c.autonomous_bandwidth_changed)}",
    ]


_INDICATOR: Final = ("Unknown", "On", "Blink", "Off")


def _slot(c: ExpressSlot) -> list[str]:
    return [
        f"SltCap:\tAttnBtn{flag(c.attention_button)} PwrCtrl{flag(c.power_controller)} MRL{flag(c.mrl_sensor)} "
        f"AttnInd{flag(c.attention_indicator)} PwrInd{flag(c.power_indicator)} HotPlug{flag(c.hot_plug_capable)} "
        f"Surprise{flag(c.hot_plug_surprise)}",
        f"Slot #{c.number}, PowerLimit {_watts(c.power_limit_value, c.power_limit_scale)}W; "
        f"Interlock{flag(c.interlock)} NoCompl{flag(c.no_command_completed)}",
        f"SltCtl:\tEnable: AttnBtn{flag(c.attention_button_enabled)} PwrFlt{flag(c.power_fault_enabled)} "
        f"MRL{flag(c.mrl_changed_enabled)} PresDet{flag(c.presence_changed_enabled)} "
        f"CmdCplt{flag(c.command_completed_enabled)} HPIrq{flag(c.hot_plug_interrupt)} "
        f"LinkChg{flag(c.link_changed_enabled)}",
        f"Control: AttnInd {_INDICATOR[c.attention_indicator_control]}, "
        f"PwrInd {_INDICATOR[c.power_indicator_control]}, Power{flag(c.power_off)} "
        f"Interlock{flag(c.interlock_control)}",
        f"SltSta:\tStatus: AttnBtn{flag(c.attention_pressed)} PowerFlt{flag(c.power_fault)} MRL{flag(c.mrl_open)} "
        f"CmdCplt{flag(c.command_completed)} PresDet{flag(c.presence)} Interlock{flag(c.interlock_engaged)}",
        f"Changed: MRL{flag(c.mrl_changed)} PresDet{flag(c.presence_changed)} LinkState{flag(c.link_changed)}",
    ]


def _root(c: ExpressRoot, kind: ExpressType) -> list[str]:
    return [
        f"RootCap: CRSVisible{flag(c.crs_visible_capable)}",
        f"RootCtl: ErrCorrectable{flag(c.serr_on_correctable)} ErrNon-Fatal{flag(c.serr_on_non_fatal)} "
        f"ErrFatal{flag(c.serr_on_fatal)} PMEIntEna{flag(c.pme_interrupt)} CRSVisible{flag(c.crs_visible)}",
        f"RootSta: PME ReqID {c.pme_requester:04x}, PMEStatus{flag(c.pme_status)} PMEPending{flag(c.pme_pending)}",
    ]


_RANGES: Final = {
    0: "Not Supported",
    1: "Range A",
    2: "Range B",
    3: "Range AB",
    6: "Range BC",
    7: "Range ABC",
    14: "Range BCD",
    15: "Range ABCD",
}
_TIMEOUTS: Final = {
    0: "50us to 50ms",
    1: "50us to 100us",
    2: "1ms to 10ms",
    5: "16ms to 55ms",
    6: "65ms to 210ms",
    9: "260ms to 900ms",
    10: "1s to 3.5s",
    13: "4s to 13s",
    14: "17s to 64s",
}
_OBFF: Final = ("Not Supported", "Via message", "Via WAKE#", "Via message/WAKE#")
_OBFF_CONTROL: Final = ("Disabled", "Via message A", "Via message B", "Via WAKE#")
_REDUCTION: Final = ("Not Supported", "Dev Specific", "Form Factor Dev Specific", "Reserved")
_LN: Final = {0: "Not Supported", 1: "64byte cachelines", 2: "128byte cachelines"}


def _device2(c: ExpressDevice2, kind: ExpressType, has_memory: bool) -> list[str]:
    root_or_downstream = kind in (ExpressType.ROOT_PORT, ExpressType.DOWNSTREAM_PORT)
    prefix = f"EETLPPrefix{flag(c.end_end_tlp_prefix)}"
    if c.end_end_tlp_prefix:
        prefix += f", MaxEETLPPrefixes {c.max_end_end_tlp_prefixes}"
    frs = f"FRS{flag(c.frs)}"
    if kind is ExpressType.ROOT_PORT:
        frs += f" LN System CLS {_LN.get(c.ln_system, 'Reserved')},"
        if c.tph_completer == 2:
            frs += " "
    if kind in (ExpressType.ROOT_PORT, ExpressType.ENDPOINT) and c.tph_completer != 2:
        frs += f" TPHComp{flag(c.tph_completer & 1 == 1)} ExtTPHComp{flag(c.tph_completer & 2 == 2)}"
    if root_or_downstream:
        frs += f" ARIFwd{flag(c.ari_forwarding_supported)}"
    routing = kind in (ExpressType.ROOT_PORT, ExpressType.UPSTREAM_PORT, ExpressType.DOWNSTREAM_PORT)
    completer = kind is ExpressType.ROOT_PORT or has_memory
    atomics = []
    if routing:
        atomics.append(f"Routing{flag(c.atomic_routing)}")
    if completer:
        atomics += [f"32bit{flag(c.atomic_32bit)}", f"64bit{flag(c.atomic_64bit)}"]
        atomics.append(f"128bitCAS{flag(c.atomic_128bit_cas)}")
    lines = [
        f"DevCap2: Completion Timeout: {_RANGES.get(c.completion_timeout_ranges, 'Unknown')}, "
        f"TimeoutDis{flag(c.completion_timeout_disable_supported)} NROPrPrP{flag(c.no_ro_pr_pr)} "
        f"LTR{flag(c.ltr_supported)}",
        f"10BitTagComp{flag(c.tag_10bit_completer)} 10BitTagReq{flag(c.tag_10bit_requester)} "
        f"OBFF {_OBFF[c.obff_supported]}, ExtFmt{flag(c.extended_fmt)} {prefix}",
        f"EmergencyPowerReduction {_REDUCTION[c.emergency_power_reduction]}, "
        f"EmergencyPowerReductionInit{flag(c.emergency_power_reduction_init)}",
        frs,
    ]
    if atomics:
        lines.append(f"AtomicOpsCap: {' '.join(atomics)}")
    control = (
        f"DevCtl2: Completion Timeout: {_TIMEOUTS.get(c.completion_timeout, 'Unknown')}, "
        f"TimeoutDis{flag(c.completion_timeout_disabled)} LTR{flag(c.ltr)} 10BitTagReq{flag(c.tag_10bit)} "
        f"OBFF {_OBFF_CONTROL[c.obff]},"
    )
    if root_or_downstream:
        control += f" ARIFwd{flag(c.ari_forwarding)}"
    lines.append(control)
    atomics = []
    if kind in (ExpressType.ROOT_PORT, ExpressType.INTEGRATED_ENDPOINT, *_ENDPOINTS):
        atomics.append(f"ReqEn{flag(c.atomic_requester)}")
    if routing:
        atomics.append(f"EgressBlck{flag(c.atomic_egress_blocking)}")
    if atomics:
        lines.append(f"AtomicOpsCtl: {' '.join(atomics)}")
    return lines


_SPEED_RANGES: Final = ("Unknown", "2.5GT/s", "2.5-5GT/s", "2.5-8GT/s", "2.5-16GT/s", "2.5-32GT/s", "RsvdP", "RsvdP")
"""By the highest speed of the vector."""
_DOWNSTREAM: Final = (
    "Link Down - Not Determined",
    "Link Down - Not Present",
    "Link Down - Present",
    "Reserved",
    "Link Up - Present",
    "Link Up - Present and DRS Received",
    "Reserved",
    "Reserved",
)
_PRESETS: Final = (
    "-6dB de-emphasis, 0dB preshoot",
    "-3.5dB de-emphasis, 0dB preshoot",
    "-4.4dB de-emphasis, 0dB preshoot",
    "-2.5dB de-emphasis, 0dB preshoot",
    "0dB de-emphasis, 0dB preshoot",
    "0dB de-emphasis, 1.9dB preshoot",
    "0dB de-emphasis, 2.5dB preshoot",
    "-6.0dB de-emphasis, 3.5dB preshoot",
    "-3.5dB de-emphasis, 3.5dB preshoot",
    "0dB de-emphasis, 3.5dB preshoot",
    *("Unknown",) * 6,
)
_MARGIN: Final = {
    0: "Normal Operating Range",
    1: "800-1200mV(full-swing)/400-700mV(half-swing)",
    **dict.fromkeys(range(2, 6), "200-400mV(full-swing)/100-200mV(half-swing)"),
}


def _link2(c: ExpressLink2, kind: ExpressType, f: Function) -> list[str]:
    lines = []
    # Registers of the link are those of device 0, function 0 only.
    if not (kind in _ENDPOINTS and f.sbdf.devfn != 0):
        if (
            c.speeds
            or c.crosslink
            or c.lower_skp_generation
            or c.lower_skp_reception
            or c.retimer_detection
            or c.two_retimers_detection
            or c.drs_supported
        ):
            lines.append(
                f"LnkCap2: Supported Link Speeds: {_SPEED_RANGES[c.speeds.bit_length()]}, "
                f"Crosslink{flag(c.crosslink)} Retimer{flag(c.retimer_detection)} "
                f"2Retimers{flag(c.two_retimers_detection)} DRS{flag(c.drs_supported)}"
            )
        first = (
            f"LnkCtl2: Target Link Speed: {_SPEEDS.get(c.target_speed or 1, 'Unknown')}, "
            f"EnterCompliance{flag(c.enter_compliance)} SpeedDis{flag(c.autonomous_speed_disabled)}"
        )
        if kind is ExpressType.DOWNSTREAM_PORT:
            first += f", Selectable De-emphasis: {'-3.5dB' if c.selectable_deemphasis else '-6dB'}"
        lines += [
            first,
            f"Transmit Margin: {_MARGIN.get(c.transmit_margin, 'Unknown')}, "
            f"EnterModifiedCompliance{flag(c.modified_compliance)} ComplianceSOS{flag(c.compliance_sos)}",
            f"Compliance Preset/De-emphasis: {_PRESETS[c.compliance_preset]}",
        ]
    crosslink = ("unsupported", "Upstream Port", "Downstream Port", "incomplete")[c.crosslink_resolution]
    lines += [
        f"LnkSta2: Current De-emphasis Level: {'-3.5dB' if c.current_deemphasis else '-6dB'}, "
        f"EqualizationComplete{flag(c.equalization_complete)} EqualizationPhase1{flag(c.equalization_phase1)}",
        f"EqualizationPhase2{flag(c.equalization_phase2)} EqualizationPhase3{flag(c.equalization_phase3)} "
        f"LinkEqualizationRequest{flag(c.equalization_request)}",
        f"Retimer{flag(c.retimer)} 2Retimers{flag(c.two_retimers)} CrosslinkRes: {crosslink}",
    ]
    if kind in _LEADS_DOWN and c.drs_supported:
        lines[-1] += f", DRS{flag(c.drs_received)}"
        lines.append(f"DownstreamComp: {_DOWNSTREAM[c.downstream_presence]}")
    return lines


RENDERERS: Final[dict[type, Renderer]] = {Express: _express}
