# SPDX-License-Identifier: MIT
"""Which of the kernel's files belong to the picture of a machine.

A live machine answers for these and no others, and a recording holds exactly these: whatever is computed from a live
machine can then be computed from its recording. Add a line here when something above needs one more file.

Left out on purpose, because reading them is not free of effects or tells more than anybody needs: ``vpd`` and ``rom``
(device access, serial numbers), ``resourceN`` (device registers), ``label``, ``acpi_index`` and
``firmware_node/status`` (the kernel evaluates ``_DSM`` and ``_STA`` to answer), ``slots/*/power`` (slot registers),
``/sys/firmware/acpi/tables/data`` (error records and event logs: any bytes of memory).
Source: Linux Documentation/ABI/testing/sysfs-bus-pci, sysfs-firmware-acpi, sysfs-firmware-memmap, sysfs-class-iommu.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from dom0kit.source.interface import Source

TABLES: Final = "sys/firmware/acpi/tables"
FUNCTIONS: Final = "sys/bus/pci/devices"

MANIFEST: Final = "dom0kit.json"
"""What makes a tree a recording (`recording.Manifest`), and says that it is redacted."""
CPUINFO: Final = "proc/cpuinfo"
KERNEL_LOG: Final = "dmesg"
"""Lines of the kernel's log about I/O APICs; no file of the kernel's, see `live`."""
MEMORY_BLOCKS: Final = "sys/devices/system/memory/blocks"
"""The state of every hot-plug memory block, ``0-31 online`` a line; no file of the kernel's, see `tree`."""

ATTRIBUTES: Final = frozenset(
    (
        "ari_enabled",
        "broken_parity_status",
        "class",
        "consistent_dma_mask_bits",
        "current_link_speed",
        "current_link_width",
        "d3cold_allowed",
        "device",
        "dma_mask_bits",
        "driver_override",
        "enable",
        "irq",
        "local_cpulist",
        "max_link_speed",
        "max_link_width",
        "msi_bus",
        "numa_node",
        "power_state",
        "reset_method",
        "resource",
        "revision",
        "sriov_drivers_autoprobe",
        "sriov_numvfs",
        "sriov_offset",
        "sriov_stride",
        "sriov_totalvfs",
        "sriov_vf_device",
        "subsystem_device",
        "subsystem_vendor",
        "vendor",
    )
)
"""Files of a function's folder that become attributes of the same name."""

TOUCHING: Final = frozenset(("current_link_speed", "current_link_width", "max_link_speed", "max_link_width"))
"""Attributes that the kernel answers from config space (and, since 6.18, wakes the function for)."""

LINKS: Final = frozenset(("driver", "iommu", "iommu_group", "physfn"))
"""Links of a function's folder (and ``virtfn0`` …) whose target's last component becomes an attribute."""

DMI_SECRETS: Final = (
    "board_asset_tag",
    "board_serial",
    "chassis_asset_tag",
    "chassis_serial",
    "product_serial",
    "product_uuid",
)

# A folder, and the names in it. "#" stands for decimal digits, "*" for any plain name.
_FOLDERS: Final[dict[str, tuple[str, ...]]] = {
    "": (KERNEL_LOG, MANIFEST),
    "proc": ("cmdline", "cpuinfo", "interrupts", "iomem", "ioports", "version"),
    "proc/irq/#": ("effective_affinity_list",),
    "sys/bus/pci/slots/*": ("address",),
    "sys/class/dmi/id": (
        "bios_date",
        "bios_release",
        "bios_vendor",
        "bios_version",
        "board_name",
        "board_vendor",
        "board_version",
        "chassis_type",
        "chassis_vendor",
        "ec_firmware_release",
        "product_family",
        "product_name",
        "product_version",
        "sys_vendor",
        *DMI_SECRETS,
    ),
    "sys/class/iommu/*/amd-iommu": ("cap", "features"),
    "sys/class/iommu/*/intel-iommu": ("address", "cap", "domains_supported", "ecap", "version"),
    "sys/devices/system/cpu": ("isolated", "nohz_full", "offline", "online", "possible", "present"),
    "sys/devices/system/memory": ("blocks", "block_size_bytes"),
    "sys/devices/system/node": ("has_cpu", "has_memory", "online", "possible"),
    "sys/devices/system/node/node#": ("cpulist", "distance", "meminfo"),
    "sys/firmware/memmap/#": ("end", "start", "type"),
    "sys/hypervisor": ("guest_type", "type", "uuid"),
    "sys/hypervisor/properties": ("features",),
    "sys/hypervisor/version": ("extra", "major", "minor"),
    "sys/kernel/iommu_groups/#": ("reserved_regions", "type"),
    "sys/kernel/irq/#": ("actions", "chip_name", "hwirq", "name", "type"),
}


class _Folder(dict[str, "_Folder | None"]):
    """One folder of the picture: its entries by name or pattern; a file is None."""

    def find(self, name: str) -> str | None:
        """The key of this folder that `name` belongs to."""
        if name in self and "#" not in name and "*" not in name:
            return name
        return next((key for key, pattern in self.patterns() if pattern.fullmatch(name)), None)

    def patterns(self) -> Iterator[tuple[str, re.Pattern[str]]]:
        for key in self:
            if "#" in key or "*" in key:
                yield key, re.compile(key.replace("#", "[0-9]{1,10}").replace("*", r"\w[\w.:+-]{0,63}", 1), re.ASCII)


def _picture() -> _Folder:
    root = _Folder()
    for path, names in _FOLDERS.items():
        folder = root
        for part in path.split("/") if path else ():
            below = folder.setdefault(part, _Folder())
            assert below is not None
            folder = below
        folder.update(dict.fromkeys(names))
    return root


_PICTURE: Final = _picture()


def _look_up(path: str) -> tuple[bool, _Folder | None]:
    """Whether `path` belongs to the picture, and the folder that it is (None for a file)."""
    here: _Folder | None = _PICTURE
    for part in path.split("/") if path else ():
        key = here.find(part) if here is not None else None
        if here is None or key is None:
            return False, None
        here = here[key]
    return True, here


def is_file(path: str) -> bool:
    """Whether a file of this path belongs to the picture."""
    known, folder = _look_up(path)
    return known and folder is None


def names_within(path: str, names: list[str]) -> list[str]:
    """Those of `names`, entries of the folder `path`, that belong to the picture, sorted."""
    _, folder = _look_up(path)
    return sorted(name for name in names if folder.find(name) is not None) if folder is not None else []


def is_attribute(name: str) -> bool:
    """Whether a recording may hold an attribute of this name for a function."""
    return (
        name in ATTRIBUTES
        or name in LINKS
        or name in ("firmware_node", "msi_irqs", "parent", "runtime_status")
        or is_virtual_function(name)
    )


def is_virtual_function(name: str) -> bool:
    """``virtfn0`` …: a PF's link to its VF."""
    return name.startswith("virtfn") and name[6:].isascii() and name[6:].isdecimal()


def files_of(source: Source) -> Iterator[tuple[str, bytes]]:
    """Every file of the picture that `source` has, by path, in a fixed order."""
    yield from _walk(source, "", _PICTURE)


def _walk(source: Source, path: str, folder: _Folder) -> Iterator[tuple[str, bytes]]:
    prefix = path + "/" if path else ""
    for key, below in sorted(folder.items()):
        names = source.names(path) if "#" in key or "*" in key else (key,)
        for name in names:
            if folder.find(name) != key:
                continue
            if below is not None:
                yield from _walk(source, prefix + name, below)
            elif (data := source.file(prefix + name)) is not None:
                yield prefix + name, data
