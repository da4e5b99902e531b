# SPDX-License-Identifier: MIT
"""The union of every capability's struct, for decoding JSON and for the schema.

Imported only then (through ``dom0kit.pci.capabilities.Capability``): it imports every module of this package.
"""

from __future__ import annotations

from typing import TypeAlias

from dom0kit.pci.capabilities import TruncatedCapability, UnknownCapability, UnknownExtendedCapability
from dom0kit.pci.capabilities.null import Null

Standard: TypeAlias = Null | UnknownCapability
"""Every capability of the standard list."""

Extended: TypeAlias = UnknownExtendedCapability
"""Every capability of the extended list."""

Capability: TypeAlias = Standard | Extended | TruncatedCapability
