# SPDX-License-Identifier: MIT
"""What Xen would show a dom0 of a recorded machine: PV and PVH, made from the machine as it is."""

from __future__ import annotations

import struct

from dom0kit.source import contents
from dom0kit.source.in_memory import MemorySource
from dom0kit.source.interface import RawFunction, RawTable, Source

SHOWN_TO_PVH = ("DSDT", "FACP", "FACS", "PSDT", "SSDT", "MCFG")
"""Of the allow-list of Xen's arch/x86/hvm/dom0_build.c, what the shipped machines have."""
FEATURES = {"PV": b"000228f0\n", "PVH": b"00012b05\n"}
"""As Xen 4.17 answered."""


def seen_by(kind: str, machine: Source, *, version: str = "4.17", dom0: bool = True) -> MemorySource:
    """The source that a dom0 would be: ``PV`` or ``PVH``."""
    files = dict(contents.files_of(machine))
    major, minor = version.split(".")
    features = f"{int(FEATURES[kind], 16) & ~(0 if dom0 else 1 << 11):08x}\n".encode()
    files |= {
        "sys/hypervisor/type": b"xen\n",
        "sys/hypervisor/guest_type": kind.encode() + b"\n",
        "sys/hypervisor/version/major": major.encode() + b"\n",
        "sys/hypervisor/version/minor": minor.encode() + b"\n",
        "sys/hypervisor/properties/features": features,
        "sys/devices/system/node/online": b"0\n",
    }
    files.pop("sys/devices/system/node/node1/cpulist", None)
    functions = [
        RawFunction(one.sbdf, one.config, {**one.attributes, "numa_node": "-1"})
        if "numa_node" in one.attributes
        else one
        for one in machine.functions()
    ]
    tables = [_shown(kind, table) for table in machine.tables()]
    return MemorySource(
        f"dom0 of {machine.name}",
        machine.kind,
        tables=[table for table in tables if table is not None],
        functions=functions,
        files=files,
    )


def _shown(kind: str, table: RawTable) -> RawTable | None:
    if kind == "PV":
        return RawTable("RMAD", b"RMAD" + table.data[4:]) if table.name == "DMAR" else table
    if table.name == "APIC":
        return RawTable("APIC", rebuilt(table.data))
    return table if table.name.rstrip("0123456789") in SHOWN_TO_PVH else None


def rebuilt(madt: bytes, *, ioapic_address: int | None = None) -> bytes:
    """A MADT as Xen builds it: IOAPICs and overrides copied, one x2APIC entry for the only virtual processor."""
    entries = [struct.pack("<BBHIII", 9, 16, 0, 0, 1, 0)]
    at = 44
    while at < len(madt):
        kind, length = madt[at], madt[at + 1]
        entry = madt[at : at + length]
        if kind == 1 and ioapic_address is not None:
            entry = entry[:4] + ioapic_address.to_bytes(4, "little") + entry[8:]
        if kind in (1, 2):
            entries.append(entry)
        at += length
    data = bytearray(madt[:44] + b"".join(entries))
    data[4:8] = len(data).to_bytes(4, "little")
    data[9] = 0
    data[9] = -sum(data) & 0xFF
    return bytes(data)
