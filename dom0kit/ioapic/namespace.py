# SPDX-License-Identifier: MIT
"""What the ACPI namespace says of IOAPICs: devices ACPI0009, ACPI000A and PNP0003.

Sources: ACPI 6.5 section 5.6.7 (ids), 6.2.7 (``_GSB``), 6.2.11 (``_MAT``); Linux, drivers/acpi/ioapic.c (which ids).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from dom0kit.acpi.namespace import AmlDevice, Namespace, parent
from dom0kit.acpi.resources import AddressRange, FixedMemory, Memory, RangeKind
from dom0kit.acpi.tables.madt import Ioapic, of_mat
from dom0kit.address import Sbdf
from dom0kit.ioapic.controllers import IoapicDevice

IDS: Final = frozenset({"ACPI0009", "ACPI000A", "PNP0003"})


def ioapic_devices(namespace: Namespace, addresses: Mapping[str, Sbdf]) -> tuple[IoapicDevice, ...]:
    """The present ones, in the order of the namespace; `addresses`: where devices sit on PCI, by path."""
    absent = {device.path for device in namespace.devices if not device.present}
    return tuple(
        _read(device, addresses.get(device.path))
        for device in namespace.devices
        if not IDS.isdisjoint((device.hid, *device.cids)) and not is_below(device.path, absent)
    )


def is_below(path: str, absent: set[str]) -> bool:
    """Whether the device at `path` or one above it is among the absent ones."""
    while path not in absent:
        above = parent(path)
        if above == path or above == "\\":
            return False
        path = above
    return True


def _read(device: AmlDevice, function: Sbdf | None) -> IoapicDevice:
    entry = next((entry for entry in of_mat(device.mat) if isinstance(entry, Ioapic)), None)
    gsi_base = device.gsb if device.gsb is not None else entry.gsi_base if entry is not None else None
    id = entry.ioapic_id if entry is not None else device.uid if isinstance(device.uid, int) else None
    if gsi_base is not None and not 0 <= gsi_base <= 0xFFFFFFFF:
        gsi_base = None
    if id is not None and not 0 <= id <= 0xFF:
        id = None
    return IoapicDevice(device.path, _address(device), gsi_base, id, function)


def _address(device: AmlDevice) -> int | None:
    """Base of the first memory range of _CRS."""
    for resource in device.crs or ():
        if isinstance(resource, FixedMemory):
            return resource.address
        if isinstance(resource, Memory):
            return resource.minimum
        if isinstance(resource, AddressRange) and resource.kind is RangeKind.MEMORY:
            return resource.minimum
    return None
