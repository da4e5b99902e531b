# SPDX-License-Identifier: MIT
"""Extended capabilities written as `lspci -vvv` 3.9.0 writes them, from our structs alone: see `lspci_oracle`.

Learned by comparing what lspci prints for chosen register values. Where it is mistaken, the comment says how.
"""

from __future__ import annotations

from typing import Any, Final

from dom0kit.pci.capabilities import UnknownExtendedCapability
from dom0kit.pci.capabilities.acs import AccessControlServices, AcsServices
from dom0kit.pci.capabilities.aer import AdvancedErrorReporting, CorrectableError, UncorrectableError
from dom0kit.pci.capabilities.alternate_protocol import AlternateProtocol
from dom0kit.pci.capabilities.ari import AlternativeRoutingId
from dom0kit.pci.capabilities.ats import AddressTranslationServices
from dom0kit.pci.capabilities.cxl import (
    CxlDevice,
    CxlFlexBus,
    CxlFlexBusState,
    CxlFunctionMap,
    CxlGpfDevice,
    CxlGpfPort,
    CxlMultipleLogicalDevice,
    CxlPort,
    CxlRange,
    CxlRegisterLocator,
)
from dom0kit.pci.capabilities.data_link_feature import DataLinkFeature
from dom0kit.pci.capabilities.device3 import Device3
from dom0kit.pci.capabilities.doe import DataObjectExchange
from dom0kit.pci.capabilities.dpa import DynamicPowerAllocation
from dom0kit.pci.capabilities.dpc import DownstreamPortContainment
from dom0kit.pci.capabilities.dvsec import CXL_VENDOR, DesignatedVendorSpecific
from dom0kit.pci.capabilities.express import Express
from dom0kit.pci.capabilities.frs import FrsQueueing
from dom0kit.pci.capabilities.ide import IntegrityAndDataEncryption
from dom0kit.pci.capabilities.l1pm import L1PmSubstates, L1Substates
from dom0kit.pci.capabilities.lane_margining import LaneMargining
from dom0kit.pci.capabilities.ln_requester import LnRequester
from dom0kit.pci.capabilities.ltr import LatencyToleranceReporting
from dom0kit.pci.capabilities.multicast import Multicast
from dom0kit.pci.capabilities.npem import EnclosureManagement
from dom0kit.pci.capabilities.pasid import ProcessAddressSpaceId
from dom0kit.pci.capabilities.physical_16gt import Physical16
from dom0kit.pci.capabilities.physical_32gt import Physical32
from dom0kit.pci.capabilities.physical_64gt import Physical64
from dom0kit.pci.capabilities.power_budgeting import PowerBudgeting
from dom0kit.pci.capabilities.pri import PageRequestInterface
from dom0kit.pci.capabilities.ptm import PrecisionTimeMeasurement
from dom0kit.pci.capabilities.rc_event_collector import EventCollectorAssociation
from dom0kit.pci.capabilities.rc_internal_link import RootComplexInternalLink
from dom0kit.pci.capabilities.rc_link import RootComplexLinkDeclaration
from dom0kit.pci.capabilities.rcrb import RootComplexRegisterBlock
from dom0kit.pci.capabilities.readiness_time import ReadinessTimeReporting
from dom0kit.pci.capabilities.rebar import ResizableBars, VfResizableBars
from dom0kit.pci.capabilities.secondary_pcie import SecondaryPciExpress
from dom0kit.pci.capabilities.serial_number import DeviceSerialNumber
from dom0kit.pci.capabilities.sriov import SingleRootIov
from dom0kit.pci.capabilities.tph import SteeringTable, TphRequester
from dom0kit.pci.capabilities.virtual_channel import (
    MultiFunctionVirtualChannel,
    VirtualChannel,
    VirtualChannelResource,
)
from dom0kit.pci.capabilities.vsec import VendorSpecificExtended
from dom0kit.pci.function import Function
from tests.pci.lspci_oracle import Renderer, flag

_UNCORRECTABLE: Final = (
    ("DLP", UncorrectableError.DATA_LINK_PROTOCOL),
    ("SDES", UncorrectableError.SURPRISE_DOWN),
    ("TLP", UncorrectableError.POISONED_TLP),
    ("FCP", UncorrectableError.FLOW_CONTROL_PROTOCOL),
    ("CmpltTO", UncorrectableError.COMPLETION_TIMEOUT),
    ("CmpltAbrt", UncorrectableError.COMPLETER_ABORT),
    ("UnxCmplt", UncorrectableError.UNEXPECTED_COMPLETION),
    ("RxOF", UncorrectableError.RECEIVER_OVERFLOW),
    ("MalfTLP", UncorrectableError.MALFORMED_TLP),
    ("ECRC", UncorrectableError.ECRC),
    ("UnsupReq", UncorrectableError.UNSUPPORTED_REQUEST),
    ("ACSViol", UncorrectableError.ACS_VIOLATION),
)
_CORRECTABLE: Final = (
    ("RxErr", CorrectableError.RECEIVER),
    ("BadTLP", CorrectableError.BAD_TLP),
    ("BadDLLP", CorrectableError.BAD_DLLP),
    ("Rollover", CorrectableError.REPLAY_ROLLOVER),
    ("Timeout", CorrectableError.REPLAY_TIMEOUT),
    ("AdvNonFatalErr", CorrectableError.ADVISORY_NONFATAL),
)


def flags(**values: bool) -> str:
    """``Name+ Other-``; an underscore in a name stands for what a Python name cannot have."""
    return " ".join(name + flag(value) for name, value in values.items())


def port_type(function: Function) -> int | None:
    """Device/Port Type of the PCI Express capability."""
    return next((c.type_number for c in function.capabilities if isinstance(c, Express)), None)


def aer(c: AdvancedErrorReporting, function: Function) -> list[str]:
    def uncorrectable(errors: tuple[UncorrectableError, ...]) -> str:
        return " ".join(name + flag(error in errors) for name, error in _UNCORRECTABLE)

    def correctable(errors: tuple[CorrectableError, ...]) -> str:
        return " ".join(name + flag(error in errors) for name, error in _CORRECTABLE)

    lines = [
        "Advanced Error Reporting",
        f"UESta:\t{uncorrectable(c.uncorrectable_status)}",
        f"UEMsk:\t{uncorrectable(c.uncorrectable_mask)}",
        f"UESvrt:\t{uncorrectable(c.uncorrectable_severity)}",
        f"CESta:\t{correctable(c.correctable_status)}",
        f"CEMsk:\t{correctable(c.correctable_mask)}",
        f"AERCap:\tFirst Error Pointer: {c.first_error:02x}, "
        + flags(
            ECRCGenCap=c.ecrc_generation_capable,
            ECRCGenEn=c.ecrc_generation_enabled,
            ECRCChkCap=c.ecrc_check_capable,
            ECRCChkEn=c.ecrc_check_enabled,
        ),
        flags(
            MultHdrRecCap=c.multiple_header_recording_capable,
            MultHdrRecEn=c.multiple_header_recording_enabled,
            TLPPfxPres=c.tlp_prefix_log_present,
            HdrLogCap=c.completion_timeout_log_capable,
        ),
        "HeaderLog: " + " ".join(c.header_log[i : i + 8] for i in range(0, 32, 8)),
    ]
    if c.root is not None:
        r = c.root
        lines += [
            "RootCmd: "
            + flags(CERptEn=r.correctable_reporting, NFERptEn=r.nonfatal_reporting, FERptEn=r.fatal_reporting),
            "RootSta: "
            + flags(
                CERcvd=r.correctable_received,
                MultCERcvd=r.multiple_correctable_received,
                UERcvd=r.uncorrectable_received,
                MultUERcvd=r.multiple_uncorrectable_received,
            ),
            flags(FirstFatal=r.first_uncorrectable_fatal, NonFatalMsg=r.nonfatal_received, FatalMsg=r.fatal_received)
            + f" IntMsg {r.interrupt_message}",
            f"ErrorSrc: ERR_COR: {r.correctable_source:04x} ERR_FATAL/NONFATAL: {r.uncorrectable_source:04x}",
        ]
    return lines


_VC_ARBITRATION: Final = ("Fixed", "WRR32", "WRR64", "WRR128")
_PORT_ARBITRATION: Final = (*_VC_ARBITRATION, "TWRR128", "WRR256")


def _arbitration(names: tuple[str, ...], bits: int, select: int) -> tuple[str, str]:
    words = [name + flag(bits >> n & 1 == 1) for n, name in enumerate(names)]
    words += [f"??{n}+" for n in range(len(names), 8) if bits >> n & 1]
    return " ".join(words), names[select] if select < len(names) else f"??{select}"


def virtual_channel(c: VirtualChannel, function: Function) -> list[str]:
    arbitration, select = _arbitration(_VC_ARBITRATION, c.arbitration_capability, c.arbitration_select)
    clock = "100ns" if c.reference_clock == 0 else f"??{c.reference_clock}"
    lines = [
        "Virtual Channel",
        f"Caps:\tLPEVC={c.low_priority_count} RefClk={clock} PATEntryBits={c.table_entry_bits}",
        f"Arb:\t{arbitration}",
        f"Ctrl:\tArbSelect={select}",
        f"Status:\tInProgress{flag(c.table_updating)}",
    ]
    if c.table_offset:
        lines.append(f"Port Arbitration Table [{c.offset + c.table_offset * 16:x}] <?>")
    for number, channel in enumerate(c.channels):
        lines += _channel(number, channel)
    return lines


def _channel(number: int, c: VirtualChannelResource) -> list[str]:
    arbitration, select = _arbitration(_PORT_ARBITRATION, c.arbitration_capability, c.arbitration_select)
    lines = [
        f"VC{number}:\tCaps:\tPATOffset={c.table_offset:02x} MaxTimeSlots={c.maximum_time_slots} "
        f"RejSnoopTrans{flag(c.reject_snoop)}",
        f"Arb:\t{arbitration}",
        f"Ctrl:\tEnable{flag(c.enabled)} ID={c.id} ArbSelect={select} TC/VC={c.traffic_classes:02x}",
        f"Status:\tNegoPending{flag(c.negotiation_pending)} InProgress{flag(c.table_updating)}",
    ]
    if c.table_offset:
        lines.append("Port Arbitration Table <?>")
    return lines


def serial_number(c: DeviceSerialNumber, function: Function) -> list[str]:
    digits = c.serial_number
    return ["Device Serial Number " + "-".join(digits[i : i + 2] for i in range(0, 16, 2))]


_ELEMENT_TYPES: Final = ("Config", "Egress", "Internal")


def rc_link(c: RootComplexLinkDeclaration, function: Function) -> list[str]:
    kind = _ELEMENT_TYPES[c.element_type] if c.element_type < 3 else f"??{c.element_type}"
    lines = [
        "Root Complex Link",
        f"Desc:\tPortNumber={c.port:02x} ComponentID={c.component:02x} EltType={kind}",
    ]
    for number, link in enumerate(c.links):
        lines.append(
            f"Link{number}:\tDesc:\tTargetPort={link.target_port:02x} TargetComponent={link.target_component:02x} "
            f"AssocRCRB{flag(link.associates_rcrb)} LinkType={'Config' if link.configuration_space else 'MemMapped'} "
            f"LinkValid{flag(link.valid)}"
        )
        address = link.address
        if link.configuration_space:
            bus = address >> 20 & ((1 << (address & 7 or 8)) - 1)
            lines.append(f"Addr:\t{bus:02x}:{address >> 15 & 0x1F:02x}.{address >> 12 & 7}  CfgSpace={address:016x}")
        else:
            lines.append(f"Addr:\t{address:016x}")
    return lines


def event_collector(c: EventCollectorAssociation, function: Function) -> list[str]:
    lines = ["Root Complex Event Collector Endpoint Association"]
    runs: list[list[int]] = []
    for device in c.devices:
        if runs and runs[-1][1] == device - 1:
            runs[-1][1] = device
        else:
            runs.append([device, device])
    # Of a run up to device 31, lspci 3.9.0 prints the beginning only.
    words = [f"{a}" if a == b or b == 31 else f"{a}-{b}" for a, b in runs]
    lines.append("RCiEPBitmap: " + ("RCiEP at Device(s): " + ", ".join(words) if words else "00000000 [none]"))
    if c.first_bus is not None:
        none = " [none]" if (c.first_bus, c.last_bus) == (0xFF, 0) else ""
        lines.append(f"AssociatedBusNumbers: {c.first_bus:02x}-{c.last_bus:02x}{none}")
    return lines


def vsec(c: VendorSpecificExtended, function: Function) -> list[str]:
    return [f"Vendor Specific Information: ID={c.id:04x} Rev={c.revision} Len={c.length:03x} <?>"]


def _services(s: AcsServices) -> str:
    return flags(
        SrcValid=s.source_validation,
        TransBlk=s.translation_blocking,
        ReqRedir=s.p2p_request_redirect,
        CmpltRedir=s.p2p_completion_redirect,
        UpstreamFwd=s.upstream_forwarding,
        EgressCtrl=s.p2p_egress_control,
        DirectTrans=s.direct_translated_p2p,
    )


def acs(c: AccessControlServices, function: Function) -> list[str]:
    return ["Access Control Services", f"ACSCap:\t{_services(c.capable)}", f"ACSCtl:\t{_services(c.enabled)}"]


def ari(c: AlternativeRoutingId, function: Function) -> list[str]:
    capable = flags(MFVC=c.mfvc_function_groups_capable, ACS=c.acs_function_groups_capable)
    enabled = flags(MFVC=c.mfvc_function_groups_enabled, ACS=c.acs_function_groups_enabled)
    return [
        "Alternative Routing-ID Interpretation (ARI)",
        f"ARICap:\t{capable}, Next Function: {c.next_function}",
        f"ARICtl:\t{enabled}, Function Group: {c.function_group}",
    ]


def ats(c: AddressTranslationServices, function: Function) -> list[str]:
    return [
        "Address Translation Service (ATS)",
        f"ATSCap:\tInvalidate Queue Depth: {c.invalidate_queue_depth % 32:02x}",
        f"ATSCtl:\tEnable{flag(c.enabled)}, Smallest Translation Unit: {c.smallest_translation_unit:02x}",
    ]


def sriov(c: SingleRootIov, function: Function) -> list[str]:
    lines = [
        "Single Root I/O Virtualization (SR-IOV)",
        f"IOVCap:\tMigration{flag(c.migration_capable)} 10BitTagReq{flag(c.ten_bit_tag_capable)} "
        f"Interrupt Message Number: {c.migration_interrupt_message:03x}",
        "IOVCtl:\t"
        + flags(
            Enable=c.vf_enabled,
            Migration=c.migration_enabled,
            Interrupt=c.migration_interrupt_enabled,
            MSE=c.memory_enabled,
            ARIHierarchy=c.ari_capable_hierarchy,
        )
        + f" 10BitTagReq{flag(c.ten_bit_tag_enabled)}",
        f"IOVSta:\tMigration{flag(c.migration_status)}",
        f"Initial VFs: {c.initial_vfs}, Total VFs: {c.total_vfs}, Number of VFs: {c.num_vfs}, "
        f"Function Dependency Link: {c.dependency_link:02x}",
        f"VF offset: {c.first_vf_offset}, stride: {c.vf_stride}, Device ID: {c.vf_device:04x}",
        f"Supported Page Size: {c.supported_page_sizes:08x}, System Page Size: {c.system_page_size:08x}",
    ]
    for bar in c.bars:
        width, digits = (64, 16) if bar.is_64bit else (32, 8)
        kind = "prefetchable" if bar.prefetchable else "non-prefetchable"
        lines.append(f"Region {bar.index}: Memory at {bar.address:0{digits}x} ({width}-bit, {kind})")
    lines.append(f"VF Migration: offset: {c.migration_state_offset:08x}, BIR: {c.migration_state_bir}")
    return lines


def _int32(value: int) -> int:
    return (value + 0x80000000) % 0x100000000 - 0x80000000


def multicast(c: Multicast, function: Function) -> list[str]:
    # lspci forgets the end of the line where it does not print ECRCRegen, and computes sizes in 32 bits.
    groups = f"McastCap: MaxGroups {c.maximum_groups}"
    control = f"McastCtl: NumGroups {c.groups}, Enable{flag(c.enabled)}"
    kind = port_type(function)
    if kind in (4, 5, 6):
        lines = ["Multicast", f"{groups}, ECRCRegen{flag(c.ecrc_regeneration)}", control]
    elif kind in (0, 9):
        assert c.window_size_requested is not None
        size = _int32(1 << c.window_size_requested % 32)
        lines = ["Multicast", f"{groups}, WindowSz {c.window_size_requested} ({size} bytes)\t\t{control}"]
    else:
        lines = ["Multicast", f"{groups}\t\t{control}"]
    lines += [
        f"McastBAR: IndexPos {c.index_position}, BaseAddr {c.base_address:016x}",
        f"McastReceiveVec:      {c.receive:016x}",
        f"McastBlockAllVec:     {c.block_all:016x}",
        f"McastBlockUntransVec: {c.block_untranslated:016x}",
    ]
    if c.overlay_size is not None:
        size_text = "disabled" if c.overlay_size < 6 else f"{_int32(1 << c.overlay_size % 32)} bytes"
        lines.append(f"McastOverlayBAR: OverlaySize {c.overlay_size} ({size_text}), BaseAddr {c.overlay_base:016x}")
    return lines


def pri(c: PageRequestInterface, function: Function) -> list[str]:
    return [
        "Page Request Interface (PRI)",
        "PRICtl: " + flags(Enable=c.enabled, Reset=c.reset),
        "PRISta: " + flags(RF=c.response_failure, UPRGI=c.unexpected_group_index, Stopped=c.stopped),
        f"Page Request Capacity: {c.capacity:08x}, Page Request Allocation: {c.allocation:08x}",
    ]


def _size(size: int) -> str:
    unit = (size.bit_length() - 1) // 10
    return f"{size >> unit * 10}{'??MGTPE'[unit]}B"


def rebar(c: ResizableBars | VfResizableBars, function: Function) -> list[str]:
    lines = [("Physical" if isinstance(c, ResizableBars) else "Virtual") + " Resizable BAR"]
    if not c.bars:
        return [*lines, f"<error in resizable BAR: num_bars={c.count} is out of specification>"]
    for bar in c.bars:
        supported = ", supported:" + "".join(f" {_size(size)}" for size in bar.supported) if bar.supported else ""
        current = "<unknown>" if bar.size is None else _size(bar.size)
        lines.append(f"BAR {bar.index}: current size: {current}{supported}")
    return lines


_TABLES: Final = {
    SteeringTable.NONE: "No steering table available",
    SteeringTable.CAPABILITY: "Steering table in TPH capability structure",
    SteeringTable.MSIX: "Steering table in MSI-X table",
    SteeringTable.RESERVED: "Reserved steering table location",
}


def tph(c: TphRequester, function: Function) -> list[str]:
    lines = ["Transaction Processing Hints"]
    if c.interrupt_vector_mode:
        lines.append("Interrupt vector mode supported")
    if c.device_specific_mode:
        lines.append("Device specific mode supported")
    if c.extended:
        lines.append("Extended requester support")
    return [*lines, _TABLES[c.table]]


def ltr(c: LatencyToleranceReporting, function: Function) -> list[str]:
    return [
        "Latency Tolerance Reporting",
        f"Max snoop latency: {c.maximum_snoop}ns",
        f"Max no snoop latency: {c.maximum_no_snoop}ns",
    ]


def secondary_pcie(c: SecondaryPciExpress, function: Function) -> list[str]:
    # lspci looks at lanes 0 to 15 only.
    errors = "".join(f" {lane}" for lane in c.lane_errors if lane < 16)
    return [
        "Secondary PCI Express",
        "LnkCtl3: " + flags(LnkEquIntrruptEn=c.equalization_interrupt, PerformEqu=c.perform_equalization),
        "LaneErrStat: " + (f"LaneErr at lane:{errors}" if errors else "0"),
    ]


def pasid(c: ProcessAddressSpaceId, function: Function) -> list[str]:
    return [
        "Process Address Space ID (PASID)",
        f"PASIDCap: {flags(Exec=c.execute_capable, Priv=c.privileged_capable)}, Max PASID Width: {c.maximum_width:02x}",
        "PASIDCtl: " + flags(Enable=c.enabled, Exec=c.execute_enabled, Priv=c.privileged_enabled),
    ]


def dpc(c: DownstreamPortContainment, function: Function) -> list[str]:
    return [
        "Downstream Port Containment",
        f"DpcCap:\tINT Msg #{c.interrupt_message}, "
        + flags(
            RPExt=c.rp_extensions,
            PoisonedTLP=c.poisoned_tlp_blocking_capable,
            SwTrigger=c.software_trigger_capable,
        )
        + f" RP PIO Log {c.rp_pio_log_size}, DL_ActiveErr{flag(c.dl_active_err_cor_capable)}",
        f"DpcCtl:\tTrigger:{c.trigger} "
        + flags(
            Cmpl=c.completion_unsupported_request,
            INT=c.interrupt_enabled,
            ErrCor=c.err_cor_enabled,
            PoisonedTLP=c.poisoned_tlp_blocking_enabled,
            SwTrigger=c.software_trigger,
            DL_ActiveErr=c.dl_active_err_cor_enabled,
        ),
        f"DpcSta:\tTrigger{flag(c.triggered)} Reason:{c.reason:02x} INT{flag(c.interrupt_status)} "
        f"RPBusy{flag(c.rp_busy)} TriggerExt:{c.reason_extension:02x} RP PIO ErrPtr:{c.rp_pio_first_error:02x}",
        f"Source:\t{c.source:04x}",
    ]


def _substates(s: L1Substates) -> str:
    return (
        f"PCI-PM_L1.2{flag(s.pci_pm_l1_2)} PCI-PM_L1.1{flag(s.pci_pm_l1_1)} "
        f"ASPM_L1.2{flag(s.aspm_l1_2)} ASPM_L1.1{flag(s.aspm_l1_1)}"
    )


def _time(value: int | None, unit: str) -> str:
    return "<error>" if value is None else f"{value}{unit}"


def l1pm(c: L1PmSubstates, function: Function) -> list[str]:
    lines = ["L1 PM Substates", f"L1SubCap: {_substates(c.capable)} L1_PM_Substates{flag(c.supported)}"]
    has_l1_2 = c.capable.pci_pm_l1_2 or c.capable.aspm_l1_2
    if has_l1_2:
        lines.append(
            f"PortCommonModeRestoreTime={c.port_common_mode_restore}us PortTPowerOnTime={_time(c.port_power_on, 'us')}"
        )
    lines.append(f"L1SubCtl1: {_substates(c.enabled)}")
    if has_l1_2:
        threshold = f" LTR1.2_Threshold={_time(c.ltr_threshold, 'ns')}" if c.capable.aspm_l1_2 else ""
        lines.append(f"T_CommonMode={c.common_mode_restore}us{threshold}")
    lines.append("L1SubCtl2:" + (f" T_PwrOn={_time(c.power_on, 'us')}" if has_l1_2 else ""))
    return lines


def _granularity(value: int, zero: str) -> str:
    return zero if value == 0 else "Greater than 254ns" if value == 255 else f"{value}ns"


def ptm(c: PrecisionTimeMeasurement, function: Function) -> list[str]:
    return [
        "Precision Time Measurement",
        f"PTMCap: Requester:{flag(c.requester)} Responder:{flag(c.responder)} Root:{flag(c.root)}",
        f"PTMClockGranularity: {_granularity(c.clock_granularity, 'Unimplemented')}",
        f"PTMControl: Enabled:{flag(c.enabled)} RootSelected:{flag(c.root_selected)}",
        f"PTMEffectiveGranularity: {_granularity(c.effective_granularity, 'Unknown')}",
    ]


def doe(c: DataObjectExchange, function: Function) -> list[str]:
    lines = ["Data Object Exchange", f"DOECap: IntSup{flag(c.interrupt_capable)}"]
    if c.interrupt_capable:
        lines.append(f"Interrupt Message Number {c.interrupt_message:03x}")
    # lspci 3.9.0 takes bits 0 and 1 for the error flag, which is bit 2.
    error = c.busy or c.interrupt_status
    return [
        *lines,
        f"DOECtl: IntEn{flag(c.interrupt_enabled)}",
        "DOESta: " + flags(Busy=c.busy, IntSta=c.interrupt_status, Error=error, ObjectReady=c.object_ready),
    ]


def dvsec(c: DesignatedVendorSpecific, function: Function) -> list[str]:
    title = f"Designated Vendor-Specific: Vendor={c.vendor:04x} ID={c.id:04x} Rev={c.revision} Len={c.length}"
    if c.vendor != CXL_VENDOR or c.length < 16:
        return [f"{title} <?>"]
    return [f"{title}: CXL", *_cxl(c)]


def _cxl(c: DesignatedVendorSpecific) -> list[str]:
    match c.cxl:
        case CxlDevice() if c.revision >= 1:
            return _cxl_device(c.cxl)
        case CxlFunctionMap(map):
            # lspci shows the lower half of each register.
            return [f"FuncMap {number}: {value & 0xFFFF:08x}" for number, value in enumerate(map)]
        case CxlPort():
            return _cxl_port(c.cxl)
        case CxlGpfPort():
            return [
                *_gpf_time("GPF Phase 1 Timeout", c.cxl.phase1_base, c.cxl.phase1_scale),
                *_gpf_time("GPF Phase 2 Timeout", c.cxl.phase2_base, c.cxl.phase2_scale),
            ]
        case CxlGpfDevice():
            return [
                *_gpf_time("GPF Phase 2 Duration", c.cxl.phase2_base, c.cxl.phase2_scale),
                f"GPF Phase 2 Power: {c.cxl.phase2_power}mW",
            ]
        case CxlFlexBus():
            return _cxl_flex_bus(c.cxl, c.revision)
        case CxlRegisterLocator():
            return [
                f"Block{number}: BIR: bar{block.bar}, ID: {_BLOCKS.get(block.id, '<?>')}, offset: {block.offset:016x}"
                for number, block in enumerate(c.cxl.blocks, 1)
                if block.id
            ]
        case CxlMultipleLogicalDevice(logical_devices=count):
            return [f"NumLogDevs: {count}"] if 1 <= count <= 16 else []
        case None if c.id not in (0, 2, 3, 4, 5, 7, 8, 9):
            return [f"Unknown ID {c.id:04x}"]
    return []


_BLOCKS: Final = {
    1: "component registers",
    2: "BAR virtualization",
    3: "CXL device registers",
    4: "CPMU registers",
    255: "vendor-specific",
}
_INTERLEAVE: Final = (0, 256, 4096, 512, 1024, 2048, 8192, 16384)


def _cxl_device(c: CxlDevice) -> list[str]:
    if c.cache_size_unit == 0:
        cache = "Cache Size Not Reported"
    elif c.cache_size_unit < 3:
        cache = f"Cache Size: {c.cache_size << (16, 20)[c.cache_size_unit - 1]:08x}"
    else:
        cache = f"Cache Size: {c.cache_size} of unknown unit size ({c.cache_size_unit})"
    return [
        "CXLCap:\t"
        + flags(Cache=c.cache_capable, IO=c.io_capable, Mem=c.mem_capable)
        + f" Mem HW Init{flag(c.mem_hardware_init)} HDMCount {c.hdm_count} Viral{flag(c.viral_capable)}",
        "CXLCtl:\t"
        + flags(Cache=c.cache_enabled, IO=c.io_enabled, Mem=c.mem_enabled)
        + f" Cache SF Cov {c.snoop_filter_coverage} Cache SF Gran {c.snoop_filter_granularity} "
        f"Cache Clean{flag(c.clean_eviction)} Viral{flag(c.viral_enabled)}",
        f"CXLSta:\tViral{flag(c.viral_status)}",
        "CXLSta2:\t"
        + flags(ResetComplete=c.reset_complete, ResetError=c.reset_error, PMComplete=c.power_management_complete),
        cache,
        *_cxl_range(1, c.ranges[0]),
        *_cxl_range(2, c.ranges[1]),
    ]


def _cxl_range(number: int, r: CxlRange) -> list[str]:
    last = (r.base + r.size - 1) % (1 << 64)
    return [
        f"Range{number}: {r.base:016x}-{last:016x}",
        f"Valid{flag(r.valid)} Active{flag(r.active)} Type={('Volatile', 'Non-volatile', 'CDAT')[r.media_type]} "
        f"Class={('DRAM', 'Storage', 'CDAT')[r.memory_class]} interleave={_INTERLEAVE[r.desired_interleave]} "
        f"timeout={4**r.active_timeout}s",
    ]


def _cxl_port(c: CxlPort) -> list[str]:
    return [
        # lspci 3.9.0 tests bits 1 and 3, which are reserved, where the flag is bit 0: it never shows it.
        "CXLPortSta:\tPMComplete-",
        "CXLPortCtl:\t"
        + flags(
            UnmaskSBR=c.unmask_secondary_bus_reset,
            UnmaskLinkDisable=c.unmask_link_disable,
            AltMem=c.alternate_memory_enabled,
            AltBME=c.alternate_bus_master,
            ViralEnable=c.viral_enabled,
        ),
        f"AlternateBus:\t{c.alternate_bus_base:02x}-{c.alternate_bus_limit:02x}",
        f"AlternateBus:\t{c.alternate_memory_base:04x}-{c.alternate_memory_limit:04x}",
    ]


def _gpf_time(title: str, base: int, scale: int) -> list[str]:
    # lspci knows no name for the unit of scale 7, which is 10 s.
    units = ("us", "us", "us", "ms", "ms", "ms", "s", "<?>")
    if scale > 7:
        return [f"Reserved time scale encoding {scale:x}", f"{title}: {base}<?>"]
    return [f"{title}: {base * (1, 10, 100)[scale % 3]}{units[scale]}"]


def _cxl_flex_bus(c: CxlFlexBus, revision: int) -> list[str]:
    if revision == 0:
        return ["Revision 0 not supported"]

    def protocols(s: CxlFlexBusState) -> str:
        return flags(Cache=s.cache, IO=s.io, Mem=s.mem)

    def flits(s: CxlFlexBusState) -> str:
        return f" 256BFlit{flag(s.latency_optimized_256)} PBRFlit{flag(s.pbr_flit)}" if revision >= 2 else ""

    def formats(s: CxlFlexBusState) -> str:
        return f" 68BFlit{flag(s.flit_68)} MltLogDev{flag(s.multiple_logical_device)}"

    lines = [
        f"FBCap:\t{protocols(c.capable)}{formats(c.capable)}{flits(c.capable)}",
        f"FBCtl:\t{protocols(c.enabled)} "
        + flags(SynHdrByp=c.sync_header_bypass_enabled, DrftBuf=c.drift_buffer_enabled)
        + formats(c.enabled)
        + " "
        + flags(RCD=c.rcd_training_disabled, Retimer1=c.retimer1_present, Retimer2=c.retimer2_present)
        + flits(c.enabled),
        f"FBSta:\t{protocols(c.active)} "
        + flags(SynHdrByp=c.sync_header_bypass_active, DrftBuf=c.drift_buffer_active)
        + formats(c.active)
        + flits(c.active),
    ]
    if c.received_training_data is not None:
        lines.append(f"FBModTS:\tReceived FB Data: {c.received_training_data:06x}")
    if revision >= 2:
        if c.nop_hint_capable is not None:
            lines.append(f"FBCap2:\tNOPHint{flag(c.nop_hint_capable)}")
        if c.nop_hint_enabled is not None:
            lines.append(f"FBCtl2:\tNOPHint{flag(c.nop_hint_enabled)}")
        if c.nop_hint_info is not None:
            lines.append(f"FBSta2:\tNOPHintInfo: {c.nop_hint_info:x}")
    return lines


_NAMES: Final = {0x0: "Null", 0x11: "Multi-Root I/O Virtualization <?>", 0x1A: "Protocol Multiplexing <?>"} | {
    0x20: "PCI Express over M_PHY <?>",
    0x28: "Hierarchy ID <?>",
}


def unknown(c: UnknownExtendedCapability, function: Function) -> list[str]:
    return [_NAMES.get(c.id, f"Extended Capability ID {c.id:#x}")]


def named(text: str) -> Renderer:
    """Of what lspci 3.9.0 knows only by name, or not at all."""

    def render(c: Any, function: Function) -> list[str]:
        return [text]

    return render


RENDERERS: Final[dict[type, Renderer]] = {
    AdvancedErrorReporting: aer,
    VirtualChannel: virtual_channel,
    MultiFunctionVirtualChannel: named("Multi-Function Virtual Channel <?>"),
    DeviceSerialNumber: serial_number,
    PowerBudgeting: named("Power Budgeting <?>"),
    RootComplexLinkDeclaration: rc_link,
    RootComplexInternalLink: named("Root Complex Internal Link <?>"),
    EventCollectorAssociation: event_collector,
    RootComplexRegisterBlock: named("Root Complex Register Block <?>"),
    VendorSpecificExtended: vsec,
    AccessControlServices: acs,
    AlternativeRoutingId: ari,
    AddressTranslationServices: ats,
    SingleRootIov: sriov,
    Multicast: multicast,
    PageRequestInterface: pri,
    ResizableBars: rebar,
    VfResizableBars: rebar,
    DynamicPowerAllocation: named("Dynamic Power Allocation <?>"),
    TphRequester: tph,
    LatencyToleranceReporting: ltr,
    SecondaryPciExpress: secondary_pcie,
    ProcessAddressSpaceId: pasid,
    LnRequester: named("LN Requester <?>"),
    DownstreamPortContainment: dpc,
    L1PmSubstates: l1pm,
    PrecisionTimeMeasurement: ptm,
    FrsQueueing: named("FRS Queueing <?>"),
    ReadinessTimeReporting: named("Readiness Time Reporting <?>"),
    DesignatedVendorSpecific: dvsec,
    DataLinkFeature: named("Data Link Feature <?>"),
    Physical16: named("Physical Layer 16.0 GT/s <?>"),
    LaneMargining: named("Lane Margining at the Receiver <?>"),
    EnclosureManagement: named("Native PCIe Enclosure Management <?>"),
    Physical32: named("Extended Capability ID 0x2a"),
    AlternateProtocol: named("Extended Capability ID 0x2b"),
    DataObjectExchange: doe,
    Device3: named("Extended Capability ID 0x2f"),
    IntegrityAndDataEncryption: named("Extended Capability ID 0x30"),
    Physical64: named("Extended Capability ID 0x31"),
    UnknownExtendedCapability: unknown,
}
"""A renderer for the struct of every extended capability that is wholly readable."""
