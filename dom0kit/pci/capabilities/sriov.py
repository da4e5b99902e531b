# SPDX-License-Identifier: MIT
"""Single Root I/O Virtualization, extended capability 0010h (PCI Express Base 6.0, section 9.3.3)."""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from dom0kit.finding import Severity, rule
from dom0kit.pci.capabilities import ExtendedCapability, Report

LENGTH = 0x40


class VfBar(msgspec.Struct, frozen=True, gc=False):
    """One VF BAR: where the slices of all virtual functions lie one behind the other."""

    index: int
    """0 to 5; a 64-bit one counts once, under its lower index."""
    address: int
    """Of the first virtual function's slice; 0 when unassigned."""
    is_64bit: bool
    prefetchable: bool


class SingleRootIov(ExtendedCapability, frozen=True, tag="sriov"):
    """A physical function and the virtual functions it can show."""

    migration_capable: bool
    """VF Migration Capable (deprecated in 6.0)."""
    ari_hierarchy_preserved: bool
    """ARI Capable Hierarchy Preserved."""
    ten_bit_tag_capable: bool
    """VF 10-Bit Tag Requester Supported."""
    fourteen_bit_tag_capable: bool
    """VF 14-Bit Tag Requester Supported."""
    migration_interrupt_message: int
    """VF Migration Interrupt Message Number, 0 to 2047."""
    vf_enabled: bool
    migration_enabled: bool
    migration_interrupt_enabled: bool
    memory_enabled: bool
    """VF MSE: the virtual functions answer to memory accesses."""
    ari_capable_hierarchy: bool
    ten_bit_tag_enabled: bool
    fourteen_bit_tag_enabled: bool
    migration_status: bool
    """A migration in or out was requested."""
    initial_vfs: int
    total_vfs: int
    num_vfs: int
    """NumVFs: how many there are now, if `vf_enabled`."""
    dependency_link: int
    """Function Dependency Link: function number of the next function of a dependency list; its own for none."""
    first_vf_offset: int
    """First VF Offset: routing id of the first virtual function less that of this function, modulo 2**16."""
    vf_stride: int
    """From one virtual function's routing id to the next's."""
    vf_device: int
    """VF Device ID; the vendor is the physical function's."""
    supported_page_sizes: int
    """Bit n for pages of 2**(n + 12) bytes."""
    system_page_size: int
    """The one bit of the above in use."""
    bars: tuple[VfBar, ...]
    """Those that are implemented, ascending."""
    migration_state_offset: int
    """VF Migration State Array Offset, in bytes."""
    migration_state_bir: int
    """Which VF BAR the array is in, 0 to 7."""


COUNT: Final = rule(
    "pci.sriov-vf-count",
    Severity.ERROR,
    title="more virtual functions than there can be",
    meaning="NumVFs exceeds TotalVFs. What the function does then is undefined: no virtual function of it can be "
    "trusted to exist.",
    advice="Disable the virtual functions and enable at most TotalVFs; update the device's firmware.",
    specification="PCI Express Base 6.0, section 9.3.3.7",
)
DEVICE: Final = rule(
    "pci.sriov-vf-device",
    Severity.WARNING,
    title="virtual functions have no device id",
    meaning="VF Device ID is 0 or FFFFh although the function can have virtual functions. No driver will bind to them "
    "by id.",
    advice="Update the device's firmware.",
    specification="PCI Express Base 6.0, section 9.3.3.11",
)
PLACE: Final = rule(
    "pci.sriov-vf-place",
    Severity.ERROR,
    title="virtual functions have no routing ids of their own",
    meaning="First VF Offset is 0, or VF Stride is 0 with several virtual functions: they would share the routing id "
    "of the physical function or of each other, so an IOMMU could not tell them apart.",
    advice="Do not enable virtual functions of this device; update its firmware.",
    specification="PCI Express Base 6.0, sections 9.3.3.9 and 9.3.3.10",
)
BAR: Final = rule(
    "pci.sriov-vf-bar",
    Severity.WARNING,
    title="VF BAR with an impossible form",
    meaning="A VF BAR claims I/O space, a reserved type, or 64 bits in the last register. Virtual functions have "
    "memory BARs of 32 or 64 bits only.",
    advice="Do not give virtual functions of this device away; update its firmware.",
    specification="PCI Express Base 6.0, section 9.3.3.14",
)
UNASSIGNED: Final = rule(
    "pci.sriov-vf-bar-unassigned",
    Severity.WARNING,
    title="virtual functions' memory is on but has no address",
    meaning="VF Enable and VF MSE are set while an implemented VF BAR holds address 0: the virtual functions answer "
    "to memory accesses from address 0 on.",
    advice="Disable the virtual functions; give the bridge above a window that is large enough (firmware set-up, or "
    "Linux' pci=realloc).",
    specification="PCI Express Base 6.0, sections 9.3.3.3 and 9.3.3.14",
)

_REGISTERS: Final = struct.Struct("<IHHHHHBxHHxxHII6II")


def decode(config: bytes, offset: int, report: Report) -> SingleRootIov:
    (
        capability,
        control,
        status,
        initial,
        total,
        count,
        link,
        first,
        stride,
        device,
        pages,
        page,
        *registers,
        migration,
    ) = _REGISTERS.unpack_from(config, offset + 4)
    if count > total:
        report(COUNT, f"NumVFs is {count}, TotalVFs is {total}")
    if total and device in (0, 0xFFFF):
        report(DEVICE, f"VF Device ID is {device:#06x}, TotalVFs is {total}")
    # Both registers depend on NumVFs and mean nothing while that is too small.
    if (count and not first) or (count > 1 and not stride):
        report(PLACE, f"first VF offset {first}, VF stride {stride}, NumVFs {count}")
    bars = _bars(registers, report)
    if control & 9 == 9 and any(bar.address == 0 for bar in bars):
        unassigned = ", ".join(str(bar.index) for bar in bars if bar.address == 0)
        report(UNASSIGNED, f"{count} virtual functions with memory enabled, but no address in VF BAR {unassigned}")
    return SingleRootIov(
        offset=offset,
        version=config[offset + 2] & 0xF,
        migration_capable=capability & 1 != 0,
        ari_hierarchy_preserved=capability & 2 != 0,
        ten_bit_tag_capable=capability & 4 != 0,
        fourteen_bit_tag_capable=capability & 8 != 0,
        migration_interrupt_message=capability >> 21,
        vf_enabled=control & 1 != 0,
        migration_enabled=control & 2 != 0,
        migration_interrupt_enabled=control & 4 != 0,
        memory_enabled=control & 8 != 0,
        ari_capable_hierarchy=control & 0x10 != 0,
        ten_bit_tag_enabled=control & 0x20 != 0,
        fourteen_bit_tag_enabled=control & 0x40 != 0,
        migration_status=status & 1 != 0,
        initial_vfs=initial,
        total_vfs=total,
        num_vfs=count,
        dependency_link=link,
        first_vf_offset=first,
        vf_stride=stride,
        vf_device=device,
        supported_page_sizes=pages,
        system_page_size=page,
        bars=bars,
        migration_state_offset=migration & ~7,
        migration_state_bir=migration & 7,
    )


def _bars(registers: list[int], report: Report) -> tuple[VfBar, ...]:
    bars = []
    index = 0
    while index < 6:
        low = registers[index]
        wide = low & 6 == 4 and index < 5
        if low & 1 or low & 2 or (low & 6 == 4 and index == 5):
            report(BAR, f"VF BAR {index} reads {low:#010x}")
        if low or (wide and registers[index + 1]):
            address = low & ~0xF | (registers[index + 1] << 32 if wide else 0)
            bars.append(VfBar(index, address, wide, low & 8 != 0))
        index += 2 if wide else 1
    return tuple(bars)
