# SPDX-License-Identifier: MIT
"""Root bridges of the namespace: their windows and bus numbers against functions, and against each other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise

from dom0kit.acpi.namespace import AmlDevice, root_bus
from dom0kit.acpi.resources import AddressRange, RangeKind
from dom0kit.check.rules import Told, View, check, shown
from dom0kit.finding import Severity
from dom0kit.pci.function import BarKind

_FIRMWARE_SEGMENTS = 0xFFFF
"""Segments above are Linux's own, for what a Volume Management Device hides."""


def _bridges(view: View) -> Iterator[AmlDevice]:
    for device in view.devices:
        if device.is_root_bridge:
            yield device


def _windows(device: AmlDevice, kind: RangeKind) -> list[AddressRange]:
    return [
        item
        for item in device.crs or ()
        if isinstance(item, AddressRange) and item.kind is kind and item.is_window and item.maximum >= item.minimum
    ]


def _certain(device: AmlDevice) -> bool:
    """Whether its _CRS follows from what was recorded."""
    evaluation = device.evaluation("_CRS")
    return evaluation is not None and evaluation.ok and evaluation.certain


def _bus_ranges(device: AmlDevice) -> list[tuple[int, int]]:
    return [(of.minimum & 0xFF, min(of.maximum, 0xFF)) for of in _windows(device, RangeKind.BUS)]


@check(
    "aml.root-bus-missing",
    Severity.INFO,
    title="a root bus that no root bridge leads to",
    meaning="There are functions on a root bus for which the namespace has no present root bridge. Linux finds such "
    "buses by probing (the uncore of Xeons) or not at all; they have no _PRT and no windows.",
    advice="Nothing for a processor's own devices. Otherwise look whether _STA of a root bridge hides it.",
    specification="ACPI 6.5, section 6.1.1 and PNP0A03; PCI Firmware Specification 3.3, section 4.6.1",
)
def root_bus_missing(view: View) -> Iterator[Told]:
    known = {root_bus(device) for device in _bridges(view)}
    if not known or view.platform.topology is None:
        return
    for bus in view.platform.topology.roots:
        if bus.segment <= _FIRMWARE_SEGMENTS and bus.functions and (bus.segment, bus.number) not in known:
            yield f"pci-bus:{bus.segment:04x}:{bus.number:02x}", shown(bus.functions)


@check(
    "aml.root-bridge-without-prt",
    Severity.WARNING,
    title="a root bridge without a routing table",
    meaning="A root bridge that functions with interrupt pins are behind has no _PRT: none of their INTx interrupts "
    "can arrive.",
    advice="Use MSI for these functions; update the firmware.",
    specification="ACPI 6.5, section 6.2.13: required under every PCI root bridge",
)
def root_without_prt(view: View) -> Iterator[Told]:
    pins = defaultdict(list)
    for function in view.platform.functions:
        if function.interrupt_pin is not None:
            pins[function.sbdf.segment, function.sbdf.bus].append(function.sbdf)
    for device in _bridges(view):
        if device.prt is None and (behind := pins.get(root_bus(device))):
            yield f"aml:{device.path}", f"pins on its bus: {shown(behind)}"


@check(
    "aml.bus-number-differs",
    Severity.WARNING,
    title="a root bridge with two first buses",
    meaning="_BBN of a root bridge is not in the range of buses that its _CRS gives. Linux goes by _CRS where it must; "
    "other systems configure the wrong bus.",
    advice="Update the firmware.",
    specification="ACPI 6.5, section 6.5.5; PCI Firmware Specification 3.3, section 4.6.1",
)
def bus_number_differs(view: View) -> Iterator[Told]:
    for device in _bridges(view):
        ranges = _bus_ranges(device)
        if not _certain(device) or device.bbn is None or not ranges:
            continue
        if not any(first <= device.bbn & 0xFF <= last for first, last in ranges):
            yield f"aml:{device.path}", f"_BBN is {device.bbn:#x}, _CRS has {_shown_buses(ranges)}"


def _shown_buses(ranges: list[tuple[int, int]]) -> str:
    return ", ".join(f"{first:#x} to {last:#x}" for first, last in ranges)


@check(
    "aml.root-buses-overlap",
    Severity.WARNING,
    title="two root bridges claim the same buses",
    meaning="The bus ranges in _CRS of two root bridges of one segment have numbers in common: a config access to them "
    "reaches one or the other.",
    advice="Update the firmware. Linux shortens the first range to where the second begins.",
    specification="PCI Firmware Specification 3.3, section 4.6.1",
)
def root_buses_overlap(view: View) -> Iterator[Told]:
    ranges = []
    for device in _bridges(view):
        if _certain(device):
            ranges += [((device.seg or 0), first, last, device.path) for first, last in _bus_ranges(device)]
    for (segment, first, last, path), (other_segment, other, _, other_path) in pairwise(sorted(ranges)):
        if segment == other_segment and other <= last and path != other_path:
            yield f"aml:{other_path}", f"from bus {other:#x} on; {path} has {first:#x} to {last:#x}"


@check(
    "pci.bus-outside-root",
    Severity.WARNING,
    title="buses outside the range of their root bridge",
    meaning="Functions are on a bus that the root bridge above does not forward by its _CRS: firmware and bridges "
    "disagree, and a bus number given to a hot-plugged card may be somebody else's.",
    advice="Have the kernel assign bus numbers again (pci=assign-busses), or update the firmware.",
    specification="PCI Firmware Specification 3.3, section 4.6.1",
)
def bus_outside_root(view: View) -> Iterator[Told]:
    topology = view.platform.topology
    if topology is None:
        return
    ranges = {root_bus(device): (device.path, _bus_ranges(device)) for device in _bridges(view) if _certain(device)}
    for bus in topology.buses:
        root = bus
        while (parent := topology.parent_of(root)) is not None:
            root = parent
        path, known = ranges.get((root.segment, root.number), ("", []))
        if known and bus.functions and not any(first <= bus.number <= last for first, last in known):
            message = f"{shown(bus.functions)}; {path} has buses {_shown_buses(known)}"
            yield f"pci-bus:{bus.segment:04x}:{bus.number:02x}", message


@check(
    "pci.bar-outside-root",
    Severity.INFO,
    title="a BAR outside the windows of its root bridge",
    meaning="A function on a root bus decodes addresses that no window in the root bridge's _CRS passes on. Devices of "
    "the chipset at fixed addresses are so; for any other one Linux assigns another address, or none.",
    advice="Nothing for a device of the chipset. Otherwise pci=realloc, or update the firmware.",
    specification="ACPI 6.5, section 6.2.2; Linux arch/x86/pci/i386.c (pcibios_allocate_dev_resources)",
)
def bar_outside_root(view: View) -> Iterator[Told]:
    windows = {}
    for device in _bridges(view):
        if _certain(device):
            both = (_windows(device, RangeKind.MEMORY), _windows(device, RangeKind.IO))
            windows[root_bus(device)] = (device.path, *both)
    for function in view.read:
        path, memory, io = windows.get((function.sbdf.segment, function.sbdf.bus), ("", [], []))
        for bar in function.bars:
            of_kind = io if bar.kind is BarKind.IO else memory
            decodes = function.command & (1 if bar.kind is BarKind.IO else 2)
            if not of_kind or not decodes or not bar.address or bar.virtual or not bar.size:
                continue
            last = bar.address + bar.size - 1
            if not any(_primary(of)[0] <= bar.address and last <= _primary(of)[1] for of in of_kind):
                kind = "I/O" if bar.kind is BarKind.IO else "memory"
                yield function.where, f"BAR {bar.index} {kind} {bar.address:#x} to {last:#x}, not of {path}"


def _primary(window: AddressRange) -> tuple[int, int]:
    """First and last address on the side of the processors."""
    return window.minimum + window.translation, window.maximum + window.translation


@check(
    "aml.root-windows-overlap",
    Severity.WARNING,
    title="two root bridges claim the same addresses",
    meaning="Memory or I/O windows in _CRS of two root bridges have addresses in common. A BAR placed there is reached "
    "through one of them, and not necessarily the one above it.",
    advice="Update the firmware.",
    specification="ACPI 6.5, sections 6.2.2 and 6.4.3.5",
)
def root_windows_overlap(view: View) -> Iterator[Told]:
    for kind in (RangeKind.MEMORY, RangeKind.IO):
        ranges = []
        for device in _bridges(view):
            if _certain(device):
                ranges += [(*_primary(window), device.path) for window in _windows(device, kind)]
        # Legacy VGA memory and the ports of PC hardware are passed on by every bridge that asks for them.
        ranges = [one for one in ranges if one[0] >= (0x10_0000 if kind is RangeKind.MEMORY else 0x1000)]
        furthest: tuple[int, int, str] | None = None
        for each in sorted(ranges):
            if furthest is not None and each[0] <= furthest[1] and each[2] != furthest[2]:
                yield f"aml:{each[2]}", f"{kind.value} from {each[0]:#x}; {furthest[2]} has up to {furthest[1]:#x}"
            if furthest is None or each[1] > furthest[1]:
                furthest = each


@check(
    "aml.root-window-in-ram",
    Severity.WARNING,
    title="a root bridge's window over usable memory",
    meaning="A memory window in _CRS of a root bridge has addresses that the firmware's map calls usable memory. A BAR "
    "placed there cannot be reached. Linux places nothing there, because memory is taken first.",
    advice="Where a hot-plugged card does not work, look for its BAR there (pci=nocrs).",
    specification="ACPI 6.5, sections 6.4.3.5 and 15.2",
)
def root_window_in_ram(view: View) -> Iterator[Told]:
    memory = view.platform.memory
    ram = [of for of in memory.map if of.type == "System RAM"] if memory is not None else []
    for device in _bridges(view) if ram else ():
        for window in _windows(device, RangeKind.MEMORY) if _certain(device) else ():
            first, last = _primary(window)
            for of in ram:
                if of.start <= last and first <= of.end and of.start >= 0x10_0000:
                    yield f"aml:{device.path}", f"{first:#x} to {last:#x}, memory from {of.start:#x} to {of.end:#x}"
                    break


@check(
    "aml.root-window-length",
    Severity.INFO,
    title="a root bridge's window with a length that is not its own",
    meaning="A window's length is not its last address less its first, plus one, although both ends are fixed. Linux "
    "goes by the ends.",
    advice="Nothing.",
    specification="ACPI 6.5, section 6.4.3.5, table 6.44: valid combinations of length, minimum and maximum",
)
def root_window_length(view: View) -> Iterator[Told]:
    for device in _bridges(view) if view.platform.namespace is not None else ():
        for item in device.crs or () if _certain(device) else ():
            if not isinstance(item, AddressRange) or not (item.minimum_fixed and item.maximum_fixed) or not item.length:
                continue
            if item.maximum - item.minimum + 1 != item.length:
                yield (
                    f"aml:{device.path}",
                    f"{item.kind.value} {item.minimum:#x} to {item.maximum:#x}, {item.length:#x}",
                )


@check(
    "aml.root-bridge-no-window",
    Severity.WARNING,
    title="a root bridge that passes on no memory",
    meaning="_CRS of a root bridge with functions behind it has no memory window. Linux cannot assign addresses to "
    "what is behind it, and believes those that firmware has set only with pci=nocrs.",
    advice="Update the firmware; pci=nocrs for a test.",
    specification="ACPI 6.5, section 6.2.2; PCI Firmware Specification 3.3, section 4.6.1",
)
def root_without_window(view: View) -> Iterator[Told]:
    occupied = set()
    for function in view.read:
        if any(bar.kind is not BarKind.IO for bar in function.bars) or function.bridge is not None:
            occupied.add((function.sbdf.segment, function.sbdf.bus))
    for device in _bridges(view):
        if root_bus(device) in occupied and _certain(device) and not _windows(device, RangeKind.MEMORY):
            yield f"aml:{device.path}", "no memory range in _CRS"


@check(
    "aml.root-bridge-no-osc",
    Severity.INFO,
    title="a PCI Express root bridge without _OSC",
    meaning="The operating system cannot ask for control of hot-plug, AER and power management: Linux leaves native "
    "PCI Express hot-plug and error reporting to firmware.",
    advice="pcie_ports=native takes control without asking.",
    specification="PCI Firmware Specification 3.3, section 4.5; ACPI 6.5, section 6.2.11",
)
def no_osc(view: View) -> Iterator[Told]:
    for device in _bridges(view):
        if "PNP0A08" in (device.hid, *device.cids) and not device.has_osc:
            yield f"aml:{device.path}", "PNP0A08, no _OSC"


@check(
    "aml.pxm-unknown",
    Severity.WARNING,
    title="a root bridge in a proximity domain that the SRAT does not have",
    meaning="_PXM of a root bridge names a domain without memory or processors in the SRAT. Linux makes up a node for "
    "it, or takes the devices behind it as near to none.",
    advice="Update the firmware.",
    specification="ACPI 6.5, sections 6.2.15 and 5.2.16",
)
def pxm_unknown(view: View) -> Iterator[Told]:
    memory, processors = view.platform.memory, view.platform.processors
    known = {of.proximity_domain for of in memory.ranges} if memory is not None else set()
    for processor in processors.processors if processors is not None else ():
        if processor.proximity_domain is not None:
            known.add(processor.proximity_domain)
    for device in _bridges(view) if known else ():
        if device.pxm is not None and device.pxm not in known:
            yield f"aml:{device.path}", f"domain {device.pxm}; the SRAT has {shown(sorted(known))}"


@check(
    "aml.pxm-missing",
    Severity.INFO,
    title="a root bridge without a place on a NUMA machine",
    meaning="There are several proximity domains, and this root bridge has no _PXM: nobody knows which processors and "
    "memory its devices are near, so vectors and domains are placed by chance.",
    advice="Place interrupts of its devices by hand (irq plan), if the machine's manual says where it is.",
    specification="ACPI 6.5, section 6.2.15",
)
def pxm_missing(view: View) -> Iterator[Told]:
    memory = view.platform.memory
    domains = {of.proximity_domain for of in memory.ranges if not of.hot_pluggable} if memory is not None else set()
    for device in _bridges(view) if len(domains) > 1 else ():
        if device.pxm is None:
            yield f"aml:{device.path}", f"{len(domains)} proximity domains"
