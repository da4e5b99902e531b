# SPDX-License-Identifier: MIT
"""The standard capabilities but PCI Express as Debian's `lspci -vvv` prints them, from our facts (see lspci_oracle)."""

from __future__ import annotations

from typing import Final

from dom0kit.pci.capabilities import UnknownCapability
from dom0kit.pci.capabilities.advanced_features import AdvancedFeatures
from dom0kit.pci.capabilities.agp import Agp
from dom0kit.pci.capabilities.debug_port import DebugPort
from dom0kit.pci.capabilities.enhanced_allocation import EaEntry, EnhancedAllocation
from dom0kit.pci.capabilities.hot_plug import HotPlug
from dom0kit.pci.capabilities.hot_swap import HotSwap
from dom0kit.pci.capabilities.hypertransport import (
    HtErrors,
    HtFeatures,
    HtHost,
    HtInterrupt,
    HtLink,
    HtMsiMapping,
    HtOther,
    HtRevision,
    HtSlave,
    HtUnitClumping,
)
from dom0kit.pci.capabilities.msi import Msi
from dom0kit.pci.capabilities.msix import MsiX
from dom0kit.pci.capabilities.null import Null
from dom0kit.pci.capabilities.pcix import PciX, PciXBridge
from dom0kit.pci.capabilities.power_management import PowerManagement
from dom0kit.pci.capabilities.sata import SataHba
from dom0kit.pci.capabilities.secure_device import AmdIommu, SecureDevice
from dom0kit.pci.capabilities.slot_id import SlotId
from dom0kit.pci.capabilities.ssvid import SubsystemId
from dom0kit.pci.capabilities.vendor import VendorSpecific, Virtio
from dom0kit.pci.capabilities.vpd import VitalProductData
from dom0kit.pci.function import Function
from dom0kit.pci.names import names
from tests.pci.lspci_oracle import Renderer, flag, named


def _null(c: Null, f: Function) -> list[str]:
    return ["Null"]


def _power_management(c: PowerManagement, f: Function) -> list[str]:
    lines = [
        f"Power Management version {c.version}",
        f"Flags: PMEClk{flag(c.pme_clock)} DSI{flag(c.device_specific_init)} D1{flag(c.d1)} D2{flag(c.d2)} "
        f"AuxCurrent={c.aux_current}mA PME(D0{flag(c.pme_d0)},D1{flag(c.pme_d1)},D2{flag(c.pme_d2)},"
        f"D3hot{flag(c.pme_d3hot)},D3cold{flag(c.pme_d3cold)})",
        f"Status: D{c.power_state} NoSoftRst{flag(c.no_soft_reset)} PME-Enable{flag(c.pme_enabled)} "
        f"DSel={c.data_select} DScale={c.data_scale} PME{flag(c.pme_status)}",
    ]
    if c.bridge_extensions:
        lines.append(f"Bridge: PM{flag(c.bridge_power_control)} B3{flag(not c.bridge_b2)}")
    return lines


def _agp(c: Agp, f: Function) -> list[str]:
    def rates(bits: int, agp3: bool) -> str:
        scale = 4 if agp3 and c.major >= 3 else 1
        return ",".join(f"x{scale << bit}" for bit in range(3) if bits >> bit & 1) or "<none>"

    return [
        f"AGP version {c.major:x}.{c.minor:x}",
        f"Status: RQ={c.request_depth} Iso{flag(c.isochronous)} ArqSz={c.request_size} Cal={c.calibration_cycle} "
        f"SBA{flag(c.sideband)} ITACoh{flag(c.coherent)} GART64{flag(c.gart_64bit)} "
        f"HTrans{flag(not c.host_translated)} 64bit{flag(c.over_4g)} "
        f"FW{flag(c.fast_write)} AGP3{flag(c.agp3_mode)} Rate={rates(c.rates, c.agp3_mode)}",
        f"Command: RQ={c.command_request_depth} ArqSz={c.command_request_size} Cal={c.command_calibration_cycle} "
        f"SBA{flag(c.command_sideband)} AGP{flag(c.enabled)} GART64{flag(c.command_gart_64bit)} "
        f"64bit{flag(c.command_over_4g)} FW{flag(c.command_fast_write)} Rate={rates(c.command_rate, c.agp3_mode)}",
    ]


def _vpd(c: VitalProductData, f: Function) -> list[str]:
    return ["Vital Product Data", "Not readable"]


def _slot_id(c: SlotId, f: Function) -> list[str]:
    return [f"Slot ID: {c.slots} slots, First{flag(c.first)}, chassis {c.chassis:02x}"]


def _msi(c: Msi, f: Function) -> list[str]:
    address = f"{c.address:016x}" if c.address_64bit else f"{c.address:08x}"
    lines = [
        f"MSI: Enable{flag(c.enabled)} Count={c.allocated}/{c.capable} Maskable{flag(c.maskable)} "
        f"64bit{flag(c.address_64bit)}",
        f"Address: {address}  Data: {c.data & 0xFFFF:04x}",
    ]
    if c.mask is not None:
        lines.append(f"Masking: {c.mask:08x}  Pending: {c.pending:08x}")
    return lines


def _msix(c: MsiX, f: Function) -> list[str]:
    return [
        f"MSI-X: Enable{flag(c.enabled)} Count={c.vectors} Masked{flag(c.masked)}",
        f"Vector table: BAR={c.table_bar} offset={c.table_offset:08x}",
        f"PBA: BAR={c.pba_bar} offset={c.pba_offset:08x}",
    ]


def _hot_swap(c: HotSwap, f: Function) -> list[str]:
    return ["CompactPCI hot-swap <?>"]


def _pcix(c: PciX, f: Function) -> list[str]:
    return [
        "PCI-X non-bridge device",
        f"Command: DPERE{flag(c.data_parity_recovery)} ERO{flag(c.relaxed_ordering)} RBC={c.max_read} "
        f"OST={c.max_outstanding}",
        f"Status: Dev={c.bus:02x}:{c.device:02x}.{c.function} 64bit{flag(c.width_64bit)} 133MHz{flag(c.mhz_133)} "
        f"SCD{flag(c.split_completion_discarded)} USC{flag(c.unexpected_split_completion)} "
        f"DC={'bridge' if c.bridge else 'simple'} DMMRBC={c.designed_max_read} DMOST={c.designed_max_outstanding} "
        f"DMCRS={c.designed_max_cumulative_read // 128} RSCEM{flag(c.split_completion_error)} 266MHz{flag(c.mhz_266)} "
        f"533MHz{flag(c.mhz_533)}",
    ]


def _pcix_bridge(c: PciXBridge, f: Function) -> list[str]:
    frequency = {0: "conv", 1: "66MHz", 2: "100MHz", 3: "133MHz"}.get(c.secondary_mode & 7, f"?{c.secondary_mode & 7}")
    return [
        "PCI-X bridge device",
        f"Secondary Status: 64bit{flag(c.secondary_64bit)} 133MHz{flag(c.secondary_133mhz)} "
        f"SCD{flag(c.secondary_split_completion_discarded)} USC{flag(c.secondary_unexpected_split_completion)} "
        f"SCO{flag(c.secondary_split_completion_overrun)} SRD{flag(c.secondary_split_request_delayed)} "
        f"Freq={frequency}",
        f"Status: Dev={c.bus:02x}:{c.device:02x}.{c.function} 64bit{flag(c.width_64bit)} 133MHz{flag(c.mhz_133)} "
        f"SCD{flag(c.split_completion_discarded)} USC{flag(c.unexpected_split_completion)} "
        f"SCO{flag(c.split_completion_overrun)} SRD{flag(c.split_request_delayed)}",
        f"Upstream: Capacity={c.upstream_capacity} CommitmentLimit={c.upstream_limit}",
        f"Downstream: Capacity={c.downstream_capacity} CommitmentLimit={c.downstream_limit}",
    ]


def _ht_features(c: HtFeatures) -> str:
    return (
        f"Feature Capability: IsocFC{flag(c.isochronous_flow_control)} LDTSTOP{flag(c.ldtstop)} "
        f"CRCTM{flag(c.crc_test_mode)} ECTLT{flag(c.extended_ctl_time)} 64bA{flag(c.address_64bit)} "
        f"UIDRD{flag(c.unit_id_reorder_disable)}"
    )


_HT_FREQUENCIES: Final = (
    *("200MHz", "300MHz", "400MHz", "500MHz", "600MHz", "800MHz", "1.0GHz", "1.2GHz", "1.4GHz", "1.6GHz"),
    *("[a]", "[b]", "[c]", "[d]", "[e]", "Vend"),
)
_HT_WIDTHS: Final = ("8bit", "16bit", "[2]", "32bit", "2bit", "4bit", "[6]", "N/C")


def _ht_control(link: HtLink, number: str, full: bool) -> str:
    text = (
        f"Link Control{number}: CFlE{flag(link.crc_flood_enable)} CST{flag(link.crc_start_test)} "
        f"CFE{flag(link.crc_force_error)} <LkFail{flag(link.link_failure)} Init{flag(link.init_complete)} "
        f"EOC{flag(link.end_of_chain)} TXO{flag(link.transmitter_off)} <CRCErr={link.crc_error:x}"
    )
    if not full:
        return text
    return (
        f"{text} IsocEn{flag(link.isochronous_enable)} LSEn{flag(link.ldtstop_tristate)} "
        f"ExtCTL{flag(link.extended_ctl)} 64b{flag(link.address_64bit)}"
    )


def _ht_widths(link: HtLink, number: str, full: bool) -> str:
    if not full:
        return (
            f"Link Config{number}: MLWI={_HT_WIDTHS[link.max_width_in]} MLWO={_HT_WIDTHS[link.max_width_out]} "
            f"LWI={_HT_WIDTHS[link.width_in]} LWO={_HT_WIDTHS[link.width_out]}"
        )
    return (
        f"Link Config{number}: MLWI={_HT_WIDTHS[link.max_width_in]} DwFcIn{flag(link.flow_control_in)} "
        f"MLWO={_HT_WIDTHS[link.max_width_out]} DwFcOut{flag(link.flow_control_out)} LWI={_HT_WIDTHS[link.width_in]} "
        f"DwFcInEn{flag(link.flow_control_in_enabled)} LWO={_HT_WIDTHS[link.width_out]} "
        f"DwFcOutEn{flag(link.flow_control_out_enabled)}"
    )


def _ht_speed(link: HtLink, number: str) -> list[str]:
    # lspci reads but the low 8 of the register's 16 bits: 1.4 GHz, 1.6 GHz and Vend are always "-" (e.g.
    # pciutils-cap-ht, 00:18.0, where the register's high byte has 1.4 and 1.6 GHz set).
    able = " ".join(f"{_HT_FREQUENCIES[bit]}{flag(link.frequencies >> bit & 1 == 1)}" for bit in range(8))
    able += " 1.4GHz- 1.6GHz- Vend-"
    return [
        f"Link Frequency{number}: {_HT_FREQUENCIES[link.frequency]}",
        f"Link Error{number}: <Prot{flag(link.protocol_error)} <Ovfl{flag(link.overflow_error)} "
        f"<EOC{flag(link.end_of_chain_error)} CTLTm{flag(link.ctl_timeout)}",
        f"Link Frequency Capability{number}: {able}",
    ]


def _ht_errors(c: HtErrors) -> str:
    return (
        f"Error Handling: PFlE{flag(c.protocol_flood)} OFlE{flag(c.overflow_flood)} PFE{flag(c.protocol_fatal)} "
        f"OFE{flag(c.overflow_fatal)} EOCFE{flag(c.end_of_chain_fatal)} RFE{flag(c.response_fatal)} "
        f"CRCFE{flag(c.crc_fatal)} SERRFE{flag(c.system_fatal)} CF{flag(c.chain_fail)} RE{flag(c.response_error)} "
        f"PNFE{flag(c.protocol_non_fatal)} ONFE{flag(c.overflow_non_fatal)} EOCNFE{flag(c.end_of_chain_non_fatal)} "
        f"RNFE{flag(c.response_non_fatal)} CRCNFE{flag(c.crc_non_fatal)} SERRNFE{flag(c.system_non_fatal)}"
    )


_HT_FULL: Final = (1, 2)
"""From this revision on lspci prints all there is (the registers are those of HyperTransport 1.02)."""


def _ht_incomplete(major: int, minor: int) -> list[str]:
    return ["!!! Possibly incomplete decoding"] if (0, 17) < (major, minor) < _HT_FULL else []


def _ht_slave(c: HtSlave, f: Function) -> list[str]:
    first, second = c.links
    full = (c.revision_major, c.revision_minor) >= _HT_FULL
    command = (
        f"Command: BaseUnitID={c.base_unit} UnitCnt={c.unit_count} MastHost{flag(c.master_host)} "
        f"DefDir{flag(c.default_direction)}"
    )
    lines = [
        "HyperTransport: Slave or Primary Interface",
        *_ht_incomplete(c.revision_major, c.revision_minor),
        f"{command} DUL{flag(c.drop_on_uninitialised)}" if full else command,
        _ht_control(first, " 0", full),
        _ht_widths(first, " 0", full),
        _ht_control(second, " 1", full),
        _ht_widths(second, " 1", full),
        f"Revision ID: {c.revision_major}.{c.revision_minor:02}",
    ]
    if not full:
        return lines
    return [
        *lines,
        *_ht_speed(first, " 0"),
        _ht_features(c.features),
        *_ht_speed(second, " 1"),
        _ht_errors(c.errors),
        f"Prefetchable memory behind bridge Upper: {c.memory_base_upper:02x}-{c.memory_limit_upper:02x}",
        f"Bus Number: {c.bus:02x}",
    ]


def _ht_host(c: HtHost, f: Function) -> list[str]:
    full = (c.revision_major, c.revision_minor) >= _HT_FULL
    command = f"Command: WarmRst{flag(c.warm_reset)} DblEnd{flag(c.double_ended)}"
    if full:
        command += (
            f" DevNum={c.device} ChainSide{flag(c.chain_side)} HostHide{flag(c.host_hide)} Slave{flag(c.act_as_slave)} "
            f"<EOCErr{flag(c.end_of_chain_error)} DUL{flag(c.drop_on_uninitialised)}"
        )
    lines = [
        "HyperTransport: Host or Secondary Interface",
        *_ht_incomplete(c.revision_major, c.revision_minor),
        command,
        _ht_control(c.link, "", full),
        _ht_widths(c.link, "", full),
        f"Revision ID: {c.revision_major}.{c.revision_minor:02}",
    ]
    if not full:
        return lines
    lines += [
        *_ht_speed(c.link, ""),
        f"{_ht_features(c.features)} ExtRS{flag(c.features.extended_register)} "
        f"UCnfE{flag(c.features.upstream_configuration)}",
    ]
    if c.features.extended_register:
        lines += [
            _ht_errors(c.errors),
            f"Prefetchable memory behind bridge Upper: {c.memory_base_upper:02x}-{c.memory_limit_upper:02x}",
        ]
    return lines


def _ht_interrupt(c: HtInterrupt, f: Function) -> list[str]:
    return ["HyperTransport: Interrupt Discovery and Configuration"]


def _ht_revision(c: HtRevision, f: Function) -> list[str]:
    return [f"HyperTransport: Revision ID: {c.major}.{c.minor:02}"]


def _ht_unit_clumping(c: HtUnitClumping, f: Function) -> list[str]:
    return ["HyperTransport: UnitID Clumping"]


def _ht_msi_mapping(c: HtMsiMapping, f: Function) -> list[str]:
    lines = [f"HyperTransport: MSI Mapping Enable{flag(c.enabled)} Fixed{flag(c.fixed)}"]
    if not c.fixed:
        lines.append(f"Mapping Address Base: {c.address:016x}")
    return lines


_HT_OTHER: Final = {
    0x08: "Switch",
    0x13: "Extended Configuration Space Access",
    0x14: "Address Mapping",
    0x16: "DirectRoute",
    0x17: "VCSet",
    0x18: "Retry Mode",
    0x19: "X86 (reserved)",
}


def _ht_other(c: HtOther, f: Function) -> list[str]:
    return [f"HyperTransport: {_HT_OTHER.get(c.type, f'#{c.type:02x}')}"]


def _vendor(c: VendorSpecific, f: Function) -> list[str]:
    return [f"Vendor Specific Information: Len={c.length:02x} <?>"]


def _virtio(c: Virtio, f: Function) -> list[str]:
    kinds = {1: "CommonCfg", 2: "Notify", 3: "ISR", 4: "DeviceCfg"}
    place = f"BAR={c.bar} offset={c.bar_offset & 0xFFFFFFFF:08x} size={c.size & 0xFFFFFFFF:08x}"
    if c.notify_multiplier is not None:
        place += f" multiplier={c.notify_multiplier:08x}"
    return [f"Vendor Specific Information: VirtIO: {kinds.get(c.structure, '<unknown>')}", place]


def _debug_port(c: DebugPort, f: Function) -> list[str]:
    return [f"Debug port: BAR={c.bar} offset={c.bar_offset:04x}"]


def _hot_plug(c: HotPlug, f: Function) -> list[str]:
    return ["Hot-plug capable"]


def _subsystem(c: SubsystemId, f: Function) -> list[str]:
    name = names().subsystem(f.vendor, f.device, c.vendor, c.device)
    return [f"Subsystem: {named(c.vendor, c.device, names().vendor(c.vendor), name)}"]


def _secure_device(c: SecureDevice | AmdIommu, f: Function) -> list[str]:
    return ["Secure device <?>"]


def _sata(c: SataHba, f: Function) -> list[str]:
    start = f"SATA HBA v{c.major}.{c.minor}"
    if c.location == 15:
        return [f"{start} InCfgSpace"]
    if 4 <= c.location <= 9:
        return [f"{start} BAR{c.location - 4} Offset={c.location_offset // 4:08x}"]
    return [f"{start} BAR??{c.location}"]


def _advanced_features(c: AdvancedFeatures, f: Function) -> list[str]:
    return [
        "PCI Advanced Features",
        f"AFCap: TP{flag(c.transactions_pending_capable)} FLR{flag(c.flr_capable)}",
        f"AFCtrl: FLR{flag(c.flr)}",
        f"AFStatus: TP{flag(c.transactions_pending)}",
    ]


def _enhanced_allocation(c: EnhancedAllocation, f: Function) -> list[str]:
    lines = [f"Enhanced Allocation (EA): NumEntries={c.count}"]
    if c.fixed_secondary is not None:
        lines[0] += f", secondary={c.fixed_secondary}, subordinate={c.fixed_subordinate}"
    for number, entry in enumerate(c.entries):
        lines += _ea_entry(number, entry)
    return lines


_EA_PLACES: Final = (
    *(f"BAR {number}" for number in range(6)),
    "resource behind function",
    "not indicated",
    "expansion ROM",
    *(f"VF-BAR {number}" for number in range(6)),
    "reserved",
)
_EA_PROPERTIES: Final = {
    0x00: "memory space, non-prefetchable",
    0x01: "memory space, prefetchable",
    0x02: "I/O space",
    0x03: "VF memory space, prefetchable",
    0x04: "VF memory space, non-prefetchable",
    0x05: "allocation behind bridge, non-prefetchable memory",
    0x06: "allocation behind bridge, prefetchable memory",
    0x07: "allocation behind bridge, I/O space",
    0xFD: "memory space resource unavailable for use",
    0xFE: "I/O space resource unavailable for use",
    0xFF: "entry unavailable for use",
}


def _ea_entry(number: int, entry: EaEntry) -> list[str]:
    lines = [
        f"Entry {number}: Enable{flag(entry.enabled)} Writable{flag(entry.writable)} EntrySize={entry.size}",
        f"BAR Equivalent Indicator: {_EA_PLACES[entry.bar]}",
        f"PrimaryProperties: {_EA_PROPERTIES.get(entry.primary, f'[{entry.primary:02x}]')}",
        f"SecondaryProperties: {_EA_PROPERTIES.get(entry.secondary, f'[{entry.secondary:02x}]')}",
    ]
    if entry.secondary == 0xFF:
        lines[-1] += ", PrimaryProperties should be used"
    if entry.base is not None:
        lines.append(f"Base: {entry.base:08x}")
    if entry.max_offset is not None:
        lines.append(f"MaxOffset: {entry.max_offset:08x}")
    return lines


_UNKNOWN: Final = {0x0B: "CompactPCI central resource control <?>", 0x0E: "AGP3 <?>"}


def _unknown(c: UnknownCapability, f: Function) -> list[str]:
    flags = int.from_bytes(bytes.fromhex(c.raw)[2:4], "little")
    return [_UNKNOWN.get(c.id, f"Capability ID {c.id:#04x} [{flags:04x}]")]


RENDERERS: Final[dict[type, Renderer]] = {
    Null: _null,
    PowerManagement: _power_management,
    Agp: _agp,
    VitalProductData: _vpd,
    SlotId: _slot_id,
    Msi: _msi,
    MsiX: _msix,
    HotSwap: _hot_swap,
    PciX: _pcix,
    PciXBridge: _pcix_bridge,
    HtSlave: _ht_slave,
    HtHost: _ht_host,
    HtInterrupt: _ht_interrupt,
    HtRevision: _ht_revision,
    HtUnitClumping: _ht_unit_clumping,
    HtMsiMapping: _ht_msi_mapping,
    HtOther: _ht_other,
    VendorSpecific: _vendor,
    Virtio: _virtio,
    DebugPort: _debug_port,
    HotPlug: _hot_plug,
    SubsystemId: _subsystem,
    SecureDevice: _secure_device,
    AmdIommu: _secure_device,
    SataHba: _sata,
    AdvancedFeatures: _advanced_features,
    EnhancedAllocation: _enhanced_allocation,
    UnknownCapability: _unknown,
}
