# SPDX-License-Identifier: MIT
"""The registry of PCI capabilities and the walkers of both lists.

Source: PCI Local Bus 3.0 sections 6.7 and appendix H (standard list), PCI Express Base 6.0 section 7.6 (extended
list), PCI Code and ID Assignment 1.14 sections 2 and 3 (ids).

One module per capability, imported when a machine first shows one. Each module has

- one frozen struct (or several, where one id has several forms), derived from `StandardCapability` or
  `ExtendedCapability`, with a tag;
- `LENGTH`: how many bytes `decode` reads without asking. The walker has checked that they are there; a shorter
  capability becomes a `TruncatedCapability`. What lies beyond, `decode` checks itself and leaves None;
- ``decode(config, offset, report)``: the struct. Never raises.

It is named here, in `STANDARD` or `EXTENDED`, and its structs in `everything`, from which the union `Capability` comes.

A struct elsewhere that holds capabilities writes its annotation as ``registry.Capability`` after
``from dom0kit.pci import capabilities as registry``: msgspec resolves annotations when it first decodes JSON or makes
a schema, and only then is every module imported. Encoding resolves nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import msgspec

from dom0kit.finding import Rule, Severity, rule
from dom0kit.serial import Hex

if TYPE_CHECKING:
    from dom0kit.pci.capabilities.everything import Capability as Capability

Report = Callable[[Rule, str], None]
"""Called with a rule and a sentence of evidence; knows of which function."""

Decode = Callable[[bytes, int, Report], "Capability"]


class StandardCapability(msgspec.Struct, frozen=True, gc=False, tag_field="capability", tag="standard"):
    """What every capability of the standard list has. Not itself in a list."""

    offset: int
    """Where it lies in config space: 0x40 to 0xfc."""


class ExtendedCapability(msgspec.Struct, frozen=True, gc=False, tag_field="capability", tag="extended"):
    """What every capability of the extended list has. Not itself in a list."""

    offset: int
    """Where it lies in config space: 0x100 to 0xffc."""
    version: int
    """0 to 15."""


class UnknownCapability(StandardCapability, frozen=True, tag="unknown"):
    """A standard capability without a decoder."""

    id: int
    name: str | None
    """From the list of assigned ids; None for one that is not in it."""
    raw: Hex
    """From its id byte to the next capability, at most 64 bytes."""


class UnknownExtendedCapability(ExtendedCapability, frozen=True, tag="unknown-extended"):
    """An extended capability without a decoder."""

    id: int
    name: str | None
    """From the list of assigned ids; None for one that is not in it."""
    raw: Hex
    """From its header to the next capability, at most 256 bytes."""


class TruncatedCapability(msgspec.Struct, frozen=True, gc=False, tag_field="capability", tag="truncated"):
    """A capability whose first bytes alone could be read: the recording, or the config space, ends inside it."""

    offset: int
    id: int
    extended: bool
    name: str | None
    raw: Hex
    """What there is of it."""


class Known(msgspec.Struct, frozen=True, gc=False):
    """One assigned capability id."""

    title: str
    """Name of the capability in the specification."""
    module: str | None = None
    """Module in this package that decodes it; None where nobody does."""


STANDARD: Final[dict[int, Known]] = {
    0x00: Known("Null", "null"),
    0x01: Known("Power Management", "power_management"),
    0x02: Known("AGP", "agp"),
    0x03: Known("Vital Product Data", "vpd"),
    0x04: Known("Slot Identification", "slot_id"),
    0x05: Known("MSI", "msi"),
    0x06: Known("CompactPCI Hot Swap", "hot_swap"),
    0x07: Known("PCI-X", "pcix"),
    0x08: Known("HyperTransport", "hypertransport"),
    0x09: Known("Vendor Specific", "vendor"),
    0x0A: Known("Debug Port", "debug_port"),
    0x0B: Known("CompactPCI Central Resource Control"),
    0x0C: Known("PCI Hot-Plug", "hot_plug"),
    0x0D: Known("Subsystem ID", "ssvid"),
    0x0E: Known("AGP 8x"),
    0x0F: Known("Secure Device", "secure_device"),
    0x10: Known("PCI Express", "express"),
    0x11: Known("MSI-X", "msix"),
    0x12: Known("SATA HBA", "sata"),
    0x13: Known("Advanced Features", "advanced_features"),
    0x14: Known("Enhanced Allocation", "enhanced_allocation"),
    0x15: Known("Flattening Portal Bridge"),
}
"""Standard capability ids (8 bits)."""

EXTENDED: Final[dict[int, Known]] = {
    0x0000: Known("Null"),
    0x0001: Known("Advanced Error Reporting", "aer"),
    0x0002: Known("Virtual Channel", "virtual_channel"),
    0x0003: Known("Device Serial Number", "serial_number"),
    0x0004: Known("Power Budgeting", "power_budgeting"),
    0x0005: Known("Root Complex Link Declaration", "rc_link"),
    0x0006: Known("Root Complex Internal Link Control", "rc_internal_link"),
    0x0007: Known("Root Complex Event Collector Endpoint Association", "rc_event_collector"),
    0x0008: Known("Multi-Function Virtual Channel", "virtual_channel"),
    0x0009: Known("Virtual Channel (with MFVC)", "virtual_channel"),
    0x000A: Known("Root Complex Register Block", "rcrb"),
    0x000B: Known("Vendor-Specific Extended", "vsec"),
    0x000C: Known("Configuration Access Correlation"),
    0x000D: Known("Access Control Services", "acs"),
    0x000E: Known("Alternative Routing-ID Interpretation", "ari"),
    0x000F: Known("Address Translation Services", "ats"),
    0x0010: Known("Single Root I/O Virtualization", "sriov"),
    0x0011: Known("Multi-Root I/O Virtualization"),
    0x0012: Known("Multicast", "multicast"),
    0x0013: Known("Page Request Interface", "pri"),
    0x0014: Known("Reserved for AMD"),
    0x0015: Known("Resizable BAR", "rebar"),
    0x0016: Known("Dynamic Power Allocation", "dpa"),
    0x0017: Known("TPH Requester", "tph"),
    0x0018: Known("Latency Tolerance Reporting", "ltr"),
    0x0019: Known("Secondary PCI Express", "secondary_pcie"),
    0x001A: Known("Protocol Multiplexing"),
    0x001B: Known("Process Address Space ID", "pasid"),
    0x001C: Known("LN Requester", "ln_requester"),
    0x001D: Known("Downstream Port Containment", "dpc"),
    0x001E: Known("L1 PM Substates", "l1pm"),
    0x001F: Known("Precision Time Measurement", "ptm"),
    0x0020: Known("PCI Express over M-PHY"),
    0x0021: Known("FRS Queueing", "frs"),
    0x0022: Known("Readiness Time Reporting", "readiness_time"),
    0x0023: Known("Designated Vendor-Specific", "dvsec"),
    0x0024: Known("VF Resizable BAR", "rebar"),
    0x0025: Known("Data Link Feature", "data_link_feature"),
    0x0026: Known("Physical Layer 16.0 GT/s", "physical_16gt"),
    0x0027: Known("Lane Margining at the Receiver", "lane_margining"),
    0x0028: Known("Hierarchy ID"),
    0x0029: Known("Native PCIe Enclosure Management", "npem"),
    0x002A: Known("Physical Layer 32.0 GT/s", "physical_32gt"),
    0x002B: Known("Alternate Protocol", "alternate_protocol"),
    0x002C: Known("System Firmware Intermediary"),
    0x002D: Known("Shadow Functions"),
    0x002E: Known("Data Object Exchange", "doe"),
    0x002F: Known("Device 3", "device3"),
    0x0030: Known("Integrity and Data Encryption", "ide"),
    0x0031: Known("Physical Layer 64.0 GT/s", "physical_64gt"),
    0x0032: Known("Flit Logging"),
    0x0033: Known("Flit Performance Measurement"),
    0x0034: Known("Flit Error Injection"),
}
"""Extended capability ids (16 bits)."""


LOOP: Final = rule(
    "pci.capability-loop",
    Severity.WARNING,
    title="capability list runs in a circle",
    meaning="A next pointer names a capability that was already visited. Software without a bound hangs here; the "
    "capabilities after the loop cannot be found.",
    advice="Update the device's firmware; a device that is in D3cold or failing can also answer with such bytes.",
    specification="PCI Local Bus 3.0, section 6.7; PCI Express Base 6.0, section 7.6.3",
)
POINTER: Final = rule(
    "pci.capability-pointer",
    Severity.WARNING,
    title="capability pointer leads nowhere",
    meaning="A next pointer names an offset in the header (below 40h, or below 100h in the extended list), or a "
    "capability id reads as all ones. The list ends here and what follows is lost.",
    advice="Check that the device is powered and answers; otherwise update its firmware.",
    specification="PCI Local Bus 3.0, section 6.7; PCI Express Base 6.0, section 7.6.3",
)
TRUNCATED: Final = rule(
    "pci.capability-truncated",
    Severity.INFO,
    title="capability not wholly readable",
    meaning="The recorded bytes, or the config space itself, end inside a capability or before it. Unprivileged "
    "processes read only 64 bytes of config space.",
    advice="Record again as root, with all of config space (lspci -xxxx).",
    specification="PCI Local Bus 3.0, section 6.7; Linux drivers/pci/pci-sysfs.c (pci_read_config)",
)
OVERLAP: Final = rule(
    "pci.capability-overlap",
    Severity.WARNING,
    title="capabilities overlap",
    meaning="A capability begins inside the registers of another. One of the two is not what it says.",
    advice="Trust neither of the two; update the device's firmware.",
    specification="PCI Local Bus 3.0, section 6.7; PCI Express Base 6.0, section 7.6.3",
)
ALIASED: Final = rule(
    "pci.extended-space-aliased",
    Severity.INFO,
    title="extended config space repeats the first 256 bytes",
    meaning="Something on the way to the device ignores the upper four address bits of config space. There is no "
    "extended capability list.",
    advice="Nothing to do; extended capabilities are not available here.",
    specification="PCI Express to PCI/PCI-X Bridge 1.0, section 4; Linux drivers/pci/probe.c (pci_ext_cfg_is_aliased)",
)

_STANDARD_LIMIT: Final = 48  # (0x100 - 0x40) / 4
_EXTENDED_LIMIT: Final = 960  # (0x1000 - 0x100) / 4
_UNKNOWN_RAW: Final = 64
_UNKNOWN_EXTENDED_RAW: Final = 256
_HEADER: Final = struct.Struct("<I")

_standard: dict[int, tuple[int, Decode] | None] = {}
_extended: dict[int, tuple[int, Decode] | None] = {}


def standard_offsets(config: bytes, report: Report | None = None) -> list[tuple[int, int]]:
    """The standard list as (id, offset) pairs in list order, every offset once.

    Empty where the status register says that there is no list. A broken list ends where it breaks.
    """
    end = min(len(config), 0x100)
    if end < 0x40 or not config[0x06] & 0x10:
        return []
    where = config[0x14 if config[0x0E] & 0x7F == 2 else 0x34] & 0xFC
    found: list[tuple[int, int]] = []
    visited: set[int] = set()
    while where:
        if where < 0x40:
            if report is not None:
                report(POINTER, f"a pointer of the capability list names {where:#04x}, inside the header")
            break
        if where in visited:
            if report is not None:
                report(LOOP, f"the capability list comes back to {where:#04x} after {len(found)} capabilities")
            break
        if where + 2 > end:
            if report is not None and end > 0x40:  # the header alone was readable: `config_bytes` says so already
                report(TRUNCATED, f"the capability list goes on at {where:#04x}, but only {end} bytes were readable")
            break
        id = config[where]
        if id == 0xFF:
            if report is not None:
                report(POINTER, f"the capability at {where:#04x} has id 0xff: nothing answers there")
            break
        visited.add(where)
        found.append((id, where))
        if len(found) == _STANDARD_LIMIT:
            break
        where = config[where + 1] & 0xFC
    return found


def extended_offsets(config: bytes, report: Report | None = None) -> list[tuple[int, int]]:
    """The extended list as (id, offset) pairs in list order, every offset once.

    Empty without extended config space or where its first header is 0 or all ones. A broken list ends where it breaks.
    The caller knows whether the function can have such a list (PCI Express or PCI-X mode 2).
    """
    end = min(len(config), 0x1000)
    found: list[tuple[int, int]] = []
    visited: set[int] = set()
    where = 0x100
    while where + 4 <= end:
        (header,) = _HEADER.unpack_from(config, where)
        if header in (0, 0xFFFFFFFF):
            if found and report is not None:
                report(POINTER, f"the extended capability list names {where:#05x}, where the header is {header:#x}")
            break
        id = header & 0xFFFF
        if id == 0xFFFF:
            if report is not None:
                report(POINTER, f"the extended capability at {where:#05x} has id 0xffff")
            break
        visited.add(where)
        found.append((id, where))
        where = header >> 20 & 0xFFC
        if where == 0 or len(found) == _EXTENDED_LIMIT:
            break
        if where < 0x100:
            if report is not None:
                report(POINTER, f"a pointer of the extended capability list names {where:#05x}, below 0x100")
            break
        if where in visited:
            if report is not None:
                report(LOOP, f"the extended capability list comes back to {where:#05x} after {len(found)} capabilities")
            break
    else:
        if found and report is not None:
            report(
                TRUNCATED,
                f"the extended capability list goes on at {where:#05x}, but only {end} bytes were readable",
            )
    return found


def find_standard(config: bytes, id: int) -> int | None:
    """Offset of the first standard capability of this id; None without one."""
    for found, offset in standard_offsets(config):
        if found == id:
            return offset
    return None


def decode_standard(config: bytes, report: Report) -> list[Capability]:
    """Every capability of the standard list, in list order."""
    listed = standard_offsets(config, report)
    end = min(len(config), 0x100)
    lengths: dict[int, int] = {}
    result: list[Capability] = []
    for id, offset in listed:
        try:
            decoder = _standard[id]
        except KeyError:
            decoder = _standard[id] = _load(STANDARD, id)
        length = 2 if decoder is None else decoder[0]
        lengths[offset] = length
        if offset + length > end:
            result.append(truncated(config, offset, id, report))
        elif decoder is None:
            stop = _next(listed, offset, min(end, offset + _UNKNOWN_RAW))
            result.append(UnknownCapability(offset, id, _title(STANDARD, id), config[offset:stop].hex()))
        else:
            result.append(decoder[1](config, offset, report))
    if len(lengths) > 1:
        _check_overlap(lengths, report)
    return result


def decode_extended(config: bytes, report: Report) -> list[Capability]:
    """Every capability of the extended list, in list order; none where extended space is an alias of the first 256."""
    if len(config) < 0x104:
        return []
    if config[0x100:0x104] == config[:4] and _is_aliased(config):
        report(ALIASED, f"bytes 0x100 to {len(config) - 1:#x} repeat the first 256")
        return []
    listed = extended_offsets(config, report)
    end = min(len(config), 0x1000)
    lengths: dict[int, int] = {}
    result: list[Capability] = []
    for id, offset in listed:
        try:
            decoder = _extended[id]
        except KeyError:
            decoder = _extended[id] = _load(EXTENDED, id)
        length = 4 if decoder is None else decoder[0]
        lengths[offset] = length
        if offset + length > end:
            result.append(truncated(config, offset, id, report, extended=True))
        elif decoder is None:
            stop = _next(listed, offset, min(end, offset + _UNKNOWN_EXTENDED_RAW))
            raw = config[offset:stop].hex()
            version = config[offset + 2] & 0xF
            result.append(UnknownExtendedCapability(offset, version, id, _title(EXTENDED, id), raw))
        else:
            result.append(decoder[1](config, offset, report))
    if len(lengths) > 1:
        _check_overlap(lengths, report)
    return result


def truncated(config: bytes, offset: int, id: int, report: Report, *, extended: bool = False) -> TruncatedCapability:
    """A capability of which too little is there, with its finding."""
    title = _title(EXTENDED if extended else STANDARD, id)
    end = min(len(config), 0x1000 if extended else 0x100)
    report(TRUNCATED, f"the {title or 'unknown'} capability at {offset:#04x} goes beyond the {end} readable bytes")
    return TruncatedCapability(offset, id, extended, title, config[offset:end].hex())


def _load(registry: dict[int, Known], id: int) -> tuple[int, Decode] | None:
    known = registry.get(id)
    if known is None or known.module is None:
        return None
    module = import_module(f"{__name__}.{known.module}")
    return module.LENGTH, module.decode


def _title(registry: dict[int, Known], id: int) -> str | None:
    known = registry.get(id)
    return None if known is None else known.title


def _next(listed: list[tuple[int, int]], offset: int, end: int) -> int:
    return min((other for _, other in listed if offset < other < end), default=end)


def _is_aliased(config: bytes) -> bool:
    head = config[:0x100]
    return all(head.startswith(config[at : at + 0x100]) for at in range(0x100, len(config), 0x100))


def _check_overlap(lengths: dict[int, int], report: Report) -> None:
    before = end = 0
    for offset in sorted(lengths):
        if offset < end:
            report(
                OVERLAP, f"the capability at {before:#04x} reaches to {end - 1:#x}, but another begins at {offset:#x}"
            )
        before, end = offset, offset + lengths[offset]


def __getattr__(name: str) -> Any:
    if name != "Capability":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    union = import_module(f"{__name__}.everything").Capability
    globals()["Capability"] = union
    return union
