# SPDX-License-Identifier: MIT
"""Whether two pictures are of the same machine: one number over what does not change while the machine stays the same.

SHA-256 over the redacted DSDT, SSDT, MADT and MCFG, and over the way, vendor, device and class of every PCI function
that is not behind a hotplug slot. The way is the root bus and the device and function numbers of the bridges down to
the function (PCI-to-PCI Bridge 1.2, section 3.2.5), so renumbered buses change nothing. Tables that AML loads at run
time are left out.
"""

from __future__ import annotations

from typing import Final

from dom0kit.address import Sbdf
from dom0kit.source.interface import RawFunction, Source
from dom0kit.source.redaction import Redaction, capabilities

_SIGNATURES: Final = (b"DSDT", b"SSDT", b"APIC", b"MCFG")
_MAX_DEPTH: Final = 256


def fingerprint(source: Source) -> str:
    """64 hexadecimal digits. A live machine and its recording have the same."""
    import hashlib

    redaction = Redaction(source)
    tables = [table for table in source.tables() if not table.dynamic and table.data[:4] in _SIGNATURES]
    digest = hashlib.sha256(b"dom0kit fingerprint 1\n")
    for table in sorted(tables, key=lambda table: _SIGNATURES.index(table.data[:4])):
        data = redaction.table(table).data
        digest.update(b"%s %d\n" % (data[:4], len(data)))
        digest.update(data)
    for line in sorted(_lines(list(source.functions()), _slot_buses(source))):
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def _lines(functions: list[RawFunction], slots: frozenset[tuple[int, int]]) -> list[str]:
    by_address = {function.sbdf: function for function in functions}
    above: dict[tuple[int, int], Sbdf] = {}
    for function in functions:
        secondary = _secondary_bus(function.config)
        if secondary > function.sbdf.bus:
            above.setdefault((function.sbdf.segment, secondary), function.sbdf)
    lines = []
    for function in functions:
        if "physfn" in function.attributes:
            continue
        way = [f"{function.sbdf.device:02x}.{function.sbdf.function}"]
        here = function
        for _ in range(_MAX_DEPTH):
            bridge = by_address.get(_parent(here, above))  # type: ignore[arg-type]  # no function has the key None
            if bridge is None:
                lines.append(
                    f"{here.sbdf.segment:04x}:{here.sbdf.bus:02x}/{'/'.join(reversed(way))} {_identity(function)}"
                )
                break
            if _is_slot(bridge, here, slots):
                break
            way.append(f"{bridge.sbdf.device:02x}.{bridge.sbdf.function}")
            here = bridge
    return lines


def _parent(function: RawFunction, above: dict[tuple[int, int], Sbdf]) -> Sbdf | None:
    """The bridge above, as its bus numbers say, else (it is asleep) as the kernel says."""
    bridge = above.get((function.sbdf.segment, function.sbdf.bus))
    if bridge is None and "parent" in function.attributes:
        try:
            bridge = Sbdf.parse(function.attributes["parent"])
        except ValueError:
            return None
    return bridge


def _secondary_bus(config: bytes) -> int:
    """0 for what is no bridge or was not read."""
    return config[0x19] if len(config) >= 64 and config[0x0E] & 0x7F in (1, 2) else 0


def _is_slot(bridge: RawFunction, below: RawFunction, slots: frozenset[tuple[int, int]]) -> bool:
    """PCIe: Slot Implemented and Hot-Plug Capable (PCIe Base 6.0, sections 7.5.3.2 and 7.5.3.9). Of a bridge that is
    asleep: whether the kernel has a slot there."""
    config = bridge.config
    if not config:
        return (below.sbdf.segment, below.sbdf.bus) in slots
    return any(
        config[offset + 3] & 0x01 and config[offset + 0x14] & 0x40
        for offset in capabilities(config, 0x10)
        if offset + 0x14 < len(config)
    )


def _identity(function: RawFunction) -> str:
    """Vendor, device and class, from config space or, of what was not read, from the kernel's memory."""
    config = function.config
    if len(config) >= 12:
        vendor, device = int.from_bytes(config[0:2], "little"), int.from_bytes(config[2:4], "little")
        return f"{vendor:04x}:{device:04x} {int.from_bytes(config[9:12], 'little'):06x}"
    vendor, device, kind = (_number(function.attributes.get(name, "")) for name in ("vendor", "device", "class"))
    return f"{vendor:04x}:{device:04x} {kind:06x}"


def _number(text: str) -> int:
    try:
        return int(text[:18], 16)
    except ValueError:
        return 0


def _slot_buses(source: Source) -> frozenset[tuple[int, int]]:
    buses = set()
    for name in source.names("sys/bus/pci/slots"):
        text = (source.file(f"sys/bus/pci/slots/{name}/address") or b"").decode("ascii", "replace").strip()
        try:
            address = Sbdf.parse(text + ".0")
        except ValueError:
            continue
        buses.add((address.segment, address.bus))
    return frozenset(buses)
