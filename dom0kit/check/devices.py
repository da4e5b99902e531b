# SPDX-License-Identifier: MIT
"""PCI functions by themselves and beside each other: what keeps one from being assigned, and what does not add up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from dom0kit.address import Sbdf
from dom0kit.check.rules import Told, View, capability, check, shown
from dom0kit.finding import Severity
from dom0kit.pci.capabilities.ari import AlternativeRoutingId
from dom0kit.pci.capabilities.express import ExpressType
from dom0kit.pci.capabilities.msi import Msi
from dom0kit.pci.capabilities.msix import MsiX
from dom0kit.pci.function import BarKind, Function
from dom0kit.pci.isolation import Cause

_IO, _MEMORY, _MASTER = 1, 2, 4
_VGA_ENABLE = 1 << 3


@check(
    "pci.acs-missing",
    Severity.INFO,
    title="a port that lets devices reach each other",
    meaning="The port has no access control services, or none that are enough, so what is behind it is one isolation "
    "group with it: its devices can only be assigned together.",
    advice="Use another slot, whose root port has ACS; pcie_acs_override only hides the fault.",
    specification="PCI Express Base 6.0, section 6.12; Linux drivers/pci/pci.c (pci_acs_enabled)",
)
def acs_missing(view: View) -> Iterator[Told]:
    kept: dict[Sbdf, list[Sbdf]] = defaultdict(list)
    details: dict[Sbdf, str] = {}
    for group in view.platform.groups:
        for reason in group.reasons:
            if reason.cause is Cause.NO_ACS_ABOVE and reason.certain:
                kept[reason.with_].append(reason.function)
                details[reason.with_] = reason.detail
    for port, functions in sorted(kept.items()):
        yield f"pci:{port}", f"{details[port]}; behind it: {shown(functions)}"


@check(
    "pci.group-of-slots",
    Severity.INFO,
    title="two slots in one isolation group",
    meaning="Cards in these slots can only be given to one domain together: the ports above do not keep them apart.",
    advice="Put cards for different domains into slots of different groups.",
    specification="Linux drivers/iommu/iommu.c (pci_device_group)",
)
def group_of_slots(view: View) -> Iterator[Told]:
    topology = view.platform.topology
    below = {sbdf: of.bridge for of in topology.slots for sbdf in of.functions} if topology is not None else {}
    for group in view.platform.groups:
        slots = sorted({below[sbdf] for sbdf in group.functions if sbdf in below})
        if len(slots) > 1:
            yield f"group:{group.number}", f"slots below {shown(slots)}"


@check(
    "pci.function-zero-absent",
    Severity.INFO,
    title="a device without function 0",
    meaning="Other functions answer and function 0 does not: firmware hides it, or it is off. Linux finds the others "
    "only if it is told to look (pci=pcie_scan_all does not help; the hidden one must answer).",
    advice="Nothing, if they are found.",
    specification="PCI Local Bus 3.0, section 3.2.2.3.4: function 0 is always there",
)
def no_function_zero(view: View) -> Iterator[Told]:
    for (segment, bus, device), functions in _by_device(view).items():
        if functions[0].sbdf.function and not any(of.physical_function for of in functions):
            on = view.platform.topology.bus(segment, bus) if view.platform.topology is not None else None
            if on is not None and on.bridge is not None and device and functions[0].config_bytes:
                continue  # beyond device 0 below a PCI Express port: functions of an ARI device
            yield functions[0].where, f"there are functions {shown(of.sbdf.function for of in functions)}"


def _by_device(view: View) -> dict[tuple[int, int, int], list[Function]]:
    """Functions of each device, ascending; virtual ones are left out."""
    topology = view.platform.topology
    found: dict[tuple[int, int, int], list[Function]] = defaultdict(list)
    for sbdf, function in sorted(view.functions.items()):
        if topology is None or topology.physical_function(sbdf) is None:
            found[sbdf.segment, sbdf.bus, sbdf.device].append(function)
    return found


@check(
    "pci.multifunction-unmarked",
    Severity.WARNING,
    title="several functions, and function 0 says that it is alone",
    meaning="The multi-function bit of function 0 is clear, so a scan that follows the specification does not look for "
    "the functions that are there. An operating system may or may not find them.",
    advice="Do not rely on the other functions; update the device's firmware.",
    specification="PCI Local Bus 3.0, section 6.2.1, Header Type bit 7",
)
def unmarked(view: View) -> Iterator[Told]:
    for functions in _by_device(view).values():
        zero = functions[0]
        if zero.sbdf.function or len(functions) < 2 or zero.multifunction or not zero.config_bytes or not zero.answers:
            continue
        if capability(zero, AlternativeRoutingId) is None:
            yield zero.where, f"there are functions {shown(of.sbdf.function for of in functions)}"


@check(
    "pci.bar-unassigned",
    Severity.WARNING,
    title="a BAR without an address",
    meaning="The function has a BAR of this size, and the register holds no address, or the kernel found no room: its "
    "driver cannot reach it.",
    advice="pci=realloc; above 4G decoding in the firmware's set-up; for resizable BARs a smaller size.",
    specification="PCI Local Bus 3.0, section 6.2.5; Linux drivers/pci/setup-bus.c",
)
def bar_unassigned(view: View) -> Iterator[Told]:
    for function in view.read:
        compatible_ide = function.class_code >> 8 == 0x0101  # its registers of fixed addresses read as 0
        for bar in function.bars:
            if bar.address == 0 and bar.size and not bar.virtual and not (compatible_ide and bar.kind is BarKind.IO):
                yield function.where, f"BAR {bar.index} of {bar.size:#x} bytes, {bar.kind.value}"


@check(
    "pci.decode-off",
    Severity.WARNING,
    title="a driver at a function that decodes nothing",
    meaning="A driver is bound, the function has memory with an address, and memory decoding is off in its command "
    "register: reads give all ones. Something turned it off behind the driver.",
    advice="Unbind and bind the driver.",
    specification="PCI Local Bus 3.0, section 6.2.2",
)
def decode_off(view: View) -> Iterator[Told]:
    for function in view.read:
        memory = any(bar.kind is not BarKind.IO and bar.address and not bar.virtual for bar in function.bars)
        idle = function.power_state not in (None, "D0") or function.driver in ("vfio-pci", "pciback", "pci-stub")
        decodes = function.command & (_IO | _MEMORY)
        if function.driver and memory and function.header_type == 0 and not idle and not decodes:
            yield function.where, f"driver {function.driver}, command {function.command:#06x}"


@check(
    "pci.vga-twice",
    Severity.WARNING,
    title="two bridges of one bus pass VGA on",
    meaning="VGA Enable is set in two bridges of one bus: accesses to A0000h and ports 3C0h go to both, and what comes "
    "back is chance.",
    advice="Update the firmware; vgaarb on Linux sets one when it is asked.",
    specification="PCI-to-PCI Bridge 1.2, section 3.2.5.18, VGA Enable: one bridge at a time",
)
def vga_twice(view: View) -> Iterator[Told]:
    on: dict[tuple[int, int], list[Sbdf]] = defaultdict(list)
    for function in view.read:
        if function.bridge is not None and function.bridge.control & _VGA_ENABLE and function.command & (_IO | _MEMORY):
            on[function.sbdf.segment, function.sbdf.bus].append(function.sbdf)
    for bridges in on.values():
        if len(bridges) > 1:
            yield f"pci:{bridges[1]}", f"and {bridges[0]}"


@check(
    "pci.rom-enabled",
    Severity.INFO,
    title="an expansion ROM left open",
    meaning="The function decodes its ROM. Functions may share one address decoder between ROM and BARs, so BARs are "
    "not to be used meanwhile; Linux closes it after reading.",
    advice="Nothing, unless the device's registers read as a ROM.",
    specification="PCI Local Bus 3.0, section 6.2.5.2",
)
def rom_enabled(view: View) -> Iterator[Told]:
    for function in view.read:
        rom = function.rom
        if rom is not None and rom.enabled and rom.address and function.command & _MEMORY and not rom.virtual:
            yield function.where, f"at {rom.address:#x}"


@check(
    "pci.class-undefined",
    Severity.INFO,
    title="a function of no class",
    meaning="The class code is 000000h, from before classes were defined, or one that firmware forgot to load. Nobody "
    "can tell what it is for, except a driver that knows it.",
    advice="Nothing.",
    specification="PCI Code and ID Assignment 1.14, section 1.1",
)
def no_class(view: View) -> Iterator[Told]:
    for function in view.read:
        if function.class_code == 0:
            yield function.where, f"{function.vendor:04x}:{function.device:04x}"


@check(
    "pci.express-without-msi",
    Severity.INFO,
    title="a PCI Express function with a pin and no MSI",
    meaning="It can interrupt only by a legacy line, which it shares with others: it can be assigned only with all of "
    "them. PCI Express asks for MSI or MSI-X in every function that interrupts.",
    advice="Look who shares its GSI (dom0kit irq), before giving it away.",
    specification="PCI Express Base 6.0, section 7.7: functions that generate interrupts must support MSI or MSI-X",
)
def express_without_msi(view: View) -> Iterator[Told]:
    for sbdf, express in view.express.items():
        function = view.functions[sbdf]
        if function.interrupt_pin is None or function.header_type or express.type not in _ENDPOINTS:
            continue
        if capability(function, Msi) is None and capability(function, MsiX) is None:
            yield function.where, f"INT{function.interrupt_pin.value}"


_ENDPOINTS = (ExpressType.ENDPOINT, ExpressType.LEGACY_ENDPOINT)


@check(
    "pci.fatal-error",
    Severity.WARNING,
    title="a fatal error since boot",
    meaning="The function's Device Status says that it has seen a fatal error: a malformed packet, a broken link.",
    advice="Look at the kernel's log; reseat the card. Clear it by writing ones, and see whether it comes back.",
    specification="PCI Express Base 6.0, section 7.5.3.5, Fatal Error Detected",
)
def fatal_error(view: View) -> Iterator[Told]:
    for sbdf, express in view.express.items():
        if express.device.fatal_error:
            yield f"pci:{sbdf}", "Fatal Error Detected is set"


@check(
    "pci.parity",
    Severity.INFO,
    title="a parity error or poisoned data since boot",
    meaning="Detected Parity Error is set in the function's status: data arrived damaged, or marked as such.",
    advice="Look at AER of the same function and of the ports above; reseat the card.",
    specification="PCI Local Bus 3.0, section 6.2.3, bit 15; PCI Express Base 6.0, section 7.5.1.1.4",
)
def parity(view: View) -> Iterator[Told]:
    for function in view.read:
        if function.status & 0x8000:
            yield function.where, f"status {function.status:#06x}"


@check(
    "pci.system-error",
    Severity.INFO,
    title="a system error since boot",
    meaning="Signaled System Error is set: the function has reported a fatal or non-fatal error upwards.",
    advice="Look at AER of the same function and of the ports above.",
    specification="PCI Local Bus 3.0, section 6.2.3, bit 14; PCI Express Base 6.0, section 7.5.1.1.4",
)
def system_error(view: View) -> Iterator[Told]:
    for function in view.read:
        if function.status & 0x4000:
            yield function.where, f"status {function.status:#06x}"


@check(
    "pci.phantom-enabled",
    Severity.WARNING,
    title="phantom functions turned on",
    meaning="The function sends requests under numbers of functions that are not there. An IOMMU knows only the "
    "functions it was told of, and blocks them.",
    advice="Clear Phantom Functions Enable (setpci); Xen: pci-phantom= on its command line.",
    specification="PCI Express Base 6.0, section 7.5.3.4; Xen docs/misc/xen-command-line.pandoc, pci-phantom",
)
def phantom(view: View) -> Iterator[Told]:
    for sbdf, express in view.express.items():
        if express.device.phantom_functions_enabled:
            yield f"pci:{sbdf}", f"{express.device.phantom_functions} bits of the function number"


@check(
    "pci.completion-timeout-off",
    Severity.INFO,
    title="a function that waits for ever",
    meaning="Completion Timeout Disable is set: a read that nobody answers hangs the function until it is reset.",
    advice="Nothing, unless the device hangs.",
    specification="PCI Express Base 6.0, section 7.5.3.16",
)
def timeout_off(view: View) -> Iterator[Told]:
    for sbdf, express in view.express.items():
        disabled = express.device2 is not None and express.device2.completion_timeout_disabled
        if disabled and view.functions[sbdf].header_type == 0:
            yield f"pci:{sbdf}", "Completion Timeout Disable is set"


@check(
    "pci.master-behind-silent-bridge",
    Severity.WARNING,
    title="a function that may write to memory, behind a bridge that may not",
    meaning="Bus Master Enable is set in the function and clear in the bridge above it: DMA and MSI of the function "
    "are stopped at the bridge.",
    advice="Unbind and bind the driver, which turns the bridge on; update the firmware.",
    specification="PCI Express Base 6.0, section 7.5.1.1.3, Bus Master Enable of a type 1 header",
)
def silent_bridge(view: View) -> Iterator[Told]:
    for function in view.read:
        above = view.above(function.sbdf)
        if above is None or above.asleep or not above.answers or not above.config_bytes or above.bridge is None:
            continue
        if function.command & _MASTER and not above.command & _MASTER and function.driver:
            yield function.where, f"driver {function.driver}; {above.sbdf} has command {above.command:#06x}"


@check(
    "pci.bridge-decode-off",
    Severity.WARNING,
    title="a driver behind a bridge that passes nothing on",
    meaning="A driver is bound to a function with memory, and memory decoding of the bridge above is off: the "
    "function's registers cannot be reached.",
    advice="Unbind and bind the driver; update the firmware.",
    specification="PCI-to-PCI Bridge 1.2, section 3.2.4.3, Memory Space Enable",
)
def bridge_decode_off(view: View) -> Iterator[Told]:
    for function in view.read:
        above = view.above(function.sbdf)
        if above is None or above.bridge is None or above.asleep or not above.answers or not above.config_bytes:
            continue
        memory = any(bar.kind is not BarKind.IO and bar.address and not bar.virtual for bar in function.bars)
        if function.driver and memory and function.command & _MEMORY and not above.command & _MEMORY:
            yield function.where, f"driver {function.driver}; {above.sbdf} has command {above.command:#06x}"


@check(
    "pci.reset-shared",
    Severity.INFO,
    title="functions that can only be reset together",
    meaning="The only reset of these functions is that of their bus, which resets all of them: assigned to different "
    "domains, one resets the other.",
    advice="Give all of them to one domain.",
    specification="Linux drivers/pci/pci.c (pci_reset_bus_function)",
)
def reset_shared(view: View) -> Iterator[Told]:
    for of in view.platform.resets:
        last = of.ways[-1] if of.ways else None
        if of.available or last is None or not last.blocked_by or last.bridge:
            continue
        if of.function < min(last.blocked_by):
            yield f"pci:{of.function}", f"with {shown(last.blocked_by)}"


@check(
    "pci.vendor-invalid",
    Severity.WARNING,
    title="a function with a vendor that cannot be",
    meaning="The vendor id is 0000h or FFFFh while the rest of its header answers: firmware of the device did not "
    "load, or config space was damaged on the way into the recording.",
    advice="Power the machine off and on; record again.",
    specification="PCI Local Bus 3.0, section 6.2.1: FFFFh is no vendor",
)
def vendor_invalid(view: View) -> Iterator[Told]:
    for function in view.read:
        physical = view.platform.topology.physical_function(function.sbdf) if view.platform.topology else None
        if function.vendor in (0, 0xFFFF) and physical is None:
            yield function.where, f"{function.vendor:04x}:{function.device:04x}, class {function.class_code:06x}"
