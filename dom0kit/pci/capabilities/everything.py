# SPDX-License-Identifier: MIT
"""The union of every capability's struct, for decoding JSON and for the schema.

Imported only then (through ``dom0kit.pci.capabilities.Capability``): it imports every module of this package.
"""

from __future__ import annotations

from typing import TypeAlias

from dom0kit.pci.capabilities import TruncatedCapability, UnknownCapability, UnknownExtendedCapability
from dom0kit.pci.capabilities.advanced_features import AdvancedFeatures
from dom0kit.pci.capabilities.agp import Agp
from dom0kit.pci.capabilities.debug_port import DebugPort
from dom0kit.pci.capabilities.enhanced_allocation import EnhancedAllocation
from dom0kit.pci.capabilities.express import Express
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

Extended: TypeAlias = UnknownExtendedCapability
"""Every capability of the extended list."""

Capability: TypeAlias = Standard | Extended | TruncatedCapability
