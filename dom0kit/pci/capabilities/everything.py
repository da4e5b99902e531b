# SPDX-License-Identifier: MIT
"""The union of every capability's struct, for decoding JSON and for the schema.

Imported only then (through ``dom0kit.pci.capabilities.Capability``): it imports every module of this package.
"""

from __future__ import annotations

from typing import TypeAlias

from dom0kit.pci.capabilities import TruncatedCapability, UnknownCapability, UnknownExtendedCapability
from dom0kit.pci.capabilities.acs import AccessControlServices
from dom0kit.pci.capabilities.advanced_features import AdvancedFeatures
from dom0kit.pci.capabilities.aer import AdvancedErrorReporting
from dom0kit.pci.capabilities.agp import Agp
from dom0kit.pci.capabilities.alternate_protocol import AlternateProtocol
from dom0kit.pci.capabilities.ari import AlternativeRoutingId
from dom0kit.pci.capabilities.ats import AddressTranslationServices
from dom0kit.pci.capabilities.data_link_feature import DataLinkFeature
from dom0kit.pci.capabilities.debug_port import DebugPort
from dom0kit.pci.capabilities.device3 import Device3
from dom0kit.pci.capabilities.doe import DataObjectExchange
from dom0kit.pci.capabilities.dpa import DynamicPowerAllocation
from dom0kit.pci.capabilities.dpc import DownstreamPortContainment
from dom0kit.pci.capabilities.dvsec import DesignatedVendorSpecific
from dom0kit.pci.capabilities.enhanced_allocation import EnhancedAllocation
from dom0kit.pci.capabilities.express import Express
from dom0kit.pci.capabilities.frs import FrsQueueing
from dom0kit.pci.capabilities.hot_plug import HotPlug
from dom0kit.pci.capabilities.hot_swap import HotSwap
from dom0kit.pci.capabilities.hypertransport import (
    HtHost,
    HtInterrupt,
    HtMsiMapping,
    HtOther,
    HtRevision,
    HtSlave,
    HtUnitClumping,
)
from dom0kit.pci.capabilities.ide import IntegrityAndDataEncryption
from dom0kit.pci.capabilities.l1pm import L1PmSubstates
from dom0kit.pci.capabilities.lane_margining import LaneMargining
from dom0kit.pci.capabilities.ln_requester import LnRequester
from dom0kit.pci.capabilities.ltr import LatencyToleranceReporting
from dom0kit.pci.capabilities.msi import Msi
from dom0kit.pci.capabilities.msix import MsiX
from dom0kit.pci.capabilities.multicast import Multicast
from dom0kit.pci.capabilities.npem import EnclosureManagement
from dom0kit.pci.capabilities.null import Null
from dom0kit.pci.capabilities.pasid import ProcessAddressSpaceId
from dom0kit.pci.capabilities.pcix import PciX, PciXBridge
from dom0kit.pci.capabilities.physical_16gt import Physical16
from dom0kit.pci.capabilities.physical_32gt import Physical32
from dom0kit.pci.capabilities.physical_64gt import Physical64
from dom0kit.pci.capabilities.power_budgeting import PowerBudgeting
from dom0kit.pci.capabilities.power_management import PowerManagement
from dom0kit.pci.capabilities.pri import PageRequestInterface
from dom0kit.pci.capabilities.ptm import PrecisionTimeMeasurement
from dom0kit.pci.capabilities.rc_event_collector import EventCollectorAssociation
from dom0kit.pci.capabilities.rc_internal_link import RootComplexInternalLink
from dom0kit.pci.capabilities.rc_link import RootComplexLinkDeclaration
from dom0kit.pci.capabilities.rcrb import RootComplexRegisterBlock
from dom0kit.pci.capabilities.readiness_time import ReadinessTimeReporting
from dom0kit.pci.capabilities.rebar import ResizableBars, VfResizableBars
from dom0kit.pci.capabilities.sata import SataHba
from dom0kit.pci.capabilities.secondary_pcie import SecondaryPciExpress
from dom0kit.pci.capabilities.secure_device import AmdIommu, SecureDevice
from dom0kit.pci.capabilities.serial_number import DeviceSerialNumber
from dom0kit.pci.capabilities.slot_id import SlotId
from dom0kit.pci.capabilities.sriov import SingleRootIov
from dom0kit.pci.capabilities.ssvid import SubsystemId
from dom0kit.pci.capabilities.tph import TphRequester
from dom0kit.pci.capabilities.vendor import VendorSpecific, Virtio
from dom0kit.pci.capabilities.virtual_channel import MultiFunctionVirtualChannel, VirtualChannel
from dom0kit.pci.capabilities.vpd import VitalProductData
from dom0kit.pci.capabilities.vsec import VendorSpecificExtended

Standard: TypeAlias = (
    Null
    | PowerManagement
    | Agp
    | VitalProductData
    | SlotId
    | Msi
    | HotSwap
    | PciX
    | PciXBridge
    | HtSlave
    | HtHost
    | HtInterrupt
    | HtRevision
    | HtUnitClumping
    | HtMsiMapping
    | HtOther
    | VendorSpecific
    | Virtio
    | DebugPort
    | HotPlug
    | SubsystemId
    | SecureDevice
    | AmdIommu
    | Express
    | MsiX
    | SataHba
    | AdvancedFeatures
    | EnhancedAllocation
    | UnknownCapability
)
"""Every capability of the standard list."""

Extended: TypeAlias = (
    AdvancedErrorReporting
    | VirtualChannel
    | MultiFunctionVirtualChannel
    | DeviceSerialNumber
    | PowerBudgeting
    | RootComplexLinkDeclaration
    | RootComplexInternalLink
    | EventCollectorAssociation
    | RootComplexRegisterBlock
    | VendorSpecificExtended
    | AccessControlServices
    | AlternativeRoutingId
    | AddressTranslationServices
    | SingleRootIov
    | Multicast
    | PageRequestInterface
    | ResizableBars
    | VfResizableBars
    | DynamicPowerAllocation
    | TphRequester
    | LatencyToleranceReporting
    | SecondaryPciExpress
    | ProcessAddressSpaceId
    | LnRequester
    | DownstreamPortContainment
    | L1PmSubstates
    | PrecisionTimeMeasurement
    | FrsQueueing
    | ReadinessTimeReporting
    | DesignatedVendorSpecific
    | DataLinkFeature
    | Physical16
    | LaneMargining
    | EnclosureManagement
    | Physical32
    | AlternateProtocol
    | DataObjectExchange
    | Device3
    | IntegrityAndDataEncryption
    | Physical64
    | UnknownExtendedCapability
)
"""Every capability of the extended list."""

Capability: TypeAlias = Standard | Extended | TruncatedCapability
