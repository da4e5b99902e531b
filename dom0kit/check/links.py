# SPDX-License-Identifier: MIT
"""PCI Express links and slots: what two ends of one wire say, held against each other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from dom0kit.check.rules import Told, View, capability, check, shown
from dom0kit.finding import Severity
from dom0kit.pci.capabilities.aer import AdvancedErrorReporting
from dom0kit.pci.capabilities.ari import AlternativeRoutingId
from dom0kit.pci.capabilities.express import ExpressLink, ExpressType
from dom0kit.pci.capabilities.sriov import SingleRootIov
from dom0kit.pci.topology import SlotKind

_SPEEDS = {1: "2.5", 2: "5", 3: "8", 4: "16", 5: "32", 6: "64", 7: "128"}
_DOWNSTREAM = (ExpressType.ROOT_PORT, ExpressType.DOWNSTREAM_PORT)


def _speed(number: int) -> str:
    return f"{_SPEEDS.get(number, f'speed {number}')} GT/s" if number in _SPEEDS else f"speed {number}"


def _ends(view: View) -> Iterator[tuple[str, ExpressLink, ExpressLink]]:
    """Of every link whose two ends are seen: the lower end's place, the upper end, the lower end."""
    for above, port, below, express in view.links:
        if port.link is not None and express.link is not None:
            yield f"pci:{below.sbdf} below {above.sbdf}", port.link, express.link


@check(
    "pci.link-slow",
    Severity.INFO,
    title="a link slower than both its ends can",
    meaning="The link runs at a lower speed than the lower of both ends' best: a bad contact or riser, a setting of "
    "the firmware, or a device that saves power while it is idle, as graphics cards do.",
    advice="Look again under load; reseat the card; look at the slot's speed in the firmware's set-up.",
    specification="PCI Express Base 6.0, sections 7.5.3.6 and 7.5.3.8",
)
def link_slow(view: View) -> Iterator[Told]:
    for where, upper, lower in _ends(view):
        best = min(upper.max_speed, lower.max_speed)
        if 0 < lower.speed < best and lower.width:
            yield where.partition(" ")[0], f"{_speed(lower.speed)}, both ends can {_speed(best)}; {where}"


@check(
    "pci.link-narrow",
    Severity.WARNING,
    title="a link narrower than both its ends can",
    meaning="The link has fewer lanes than the lower of both ends' best: dirt on a contact, a bad lane, or a slot with "
    "fewer lanes wired than its port has.",
    advice="Reseat the card; compare with the board's manual.",
    specification="PCI Express Base 6.0, sections 7.5.3.6 and 7.5.3.8",
)
def link_narrow(view: View) -> Iterator[Told]:
    for where, upper, lower in _ends(view):
        best = min(upper.max_width, lower.max_width)
        if 0 < lower.width < best and lower.width != upper.max_width:
            yield where.partition(" ")[0], f"{lower.width} lanes, both ends can {best}; {where}"


@check(
    "pci.link-differs",
    Severity.INFO,
    title="two ends of one link at different speeds or widths",
    meaning="Both ends were read at different times while the link changed, or one of them is not the other end at "
    "all: a hidden switch is between them, or the bus numbers are wrong.",
    advice="Record again.",
    specification="PCI Express Base 6.0, section 7.5.3.8",
)
def link_differs(view: View) -> Iterator[Told]:
    for where, upper, lower in _ends(view):
        if lower.width and upper.width and (upper.speed, upper.width) != (lower.speed, lower.width):
            yield (
                where.partition(" ")[0],
                f"{_speed(upper.speed)} x{upper.width} above, {_speed(lower.speed)} x{lower.width} below; {where}",
            )


@check(
    "pci.link-training",
    Severity.WARNING,
    title="a link that does not come up",
    meaning="The port says that its link is training. A link trains in milliseconds: one seen so is in a loop.",
    advice="Reseat the card; try a lower speed in the firmware's set-up.",
    specification="PCI Express Base 6.0, section 7.5.3.8, Link Training",
)
def link_training(view: View) -> Iterator[Told]:
    for sbdf, express in view.express.items():
        if express.type in _DOWNSTREAM and express.link is not None and express.link.training:
            yield f"pci:{sbdf}", f"{_speed(express.link.speed)} x{express.link.width}"


@check(
    "pci.link-inactive",
    Severity.WARNING,
    title="a card in a slot without a link",
    meaning="Presence detection says that a card is in the slot, and the link is not up: the card is dead, off, or "
    "badly seated. It is not on the bus.",
    advice="Reseat the card; look whether the slot's power is off (/sys/bus/pci/slots/*/power).",
    specification="PCI Express Base 6.0, sections 7.5.3.8 and 7.5.3.11",
)
def link_inactive(view: View) -> Iterator[Told]:
    for sbdf, express in view.express.items():
        link, slot = express.link, express.slot
        if link is None or slot is None or express.type not in _DOWNSTREAM or not link.link_active_reporting:
            continue
        off = slot.power_controller and slot.power_off
        if slot.presence and slot.hot_plug_capable and not link.active and not link.disabled and not off:
            yield f"pci:{sbdf}", f"slot {slot.number}"


@check(
    "pci.link-disabled",
    Severity.INFO,
    title="a link that is turned off",
    meaning="Link Disable of the port is set although a card is in its slot, or functions are known behind it.",
    advice="Nothing, if somebody turned it off; firmware does so with ports that it hides.",
    specification="PCI Express Base 6.0, section 7.5.3.7",
)
def link_disabled(view: View) -> Iterator[Told]:
    topology = view.platform.topology
    for sbdf, express in view.express.items():
        if express.link is None or not express.link.disabled or topology is None:
            continue
        bus = topology.secondary(sbdf)
        if (express.slot is not None and express.slot.presence) or (bus is not None and bus.functions):
            yield f"pci:{sbdf}", "Link Disable is set"


@check(
    "pci.payload-too-large",
    Severity.ERROR,
    title="a device may send more than the port above takes",
    meaning="Max_Payload_Size of the function is larger than that of the port above it: a longer write is a malformed "
    "packet there, which is a fatal error and takes the link down.",
    advice="Boot with pci=pcie_bus_safe, which makes all of one path equal.",
    specification="PCI Express Base 6.0, section 7.5.3.4, Max_Payload_Size; Linux drivers/pci/probe.c "
    "(pci_configure_mps)",
)
def payload(view: View) -> Iterator[Told]:
    for sbdf, express in view.express.items():
        above = view.above(sbdf)
        port = view.express.get(above.sbdf) if above is not None else None
        if above is None or port is None or port.link is None or view.functions[sbdf].physical_function is not None:
            continue
        if express.device.max_payload > port.device.max_payload:
            yield f"pci:{sbdf}", f"{express.device.max_payload} bytes, {above.sbdf} takes {port.device.max_payload}"


@check(
    "pci.payload-unsupported",
    Severity.ERROR,
    title="a payload size that the function does not support",
    meaning="Max_Payload_Size is set to more than the function says it can.",
    advice="Boot with pci=pcie_bus_safe; update the firmware.",
    specification="PCI Express Base 6.0, section 7.5.3.4: software must not set more than is supported",
)
def payload_unsupported(view: View) -> Iterator[Told]:
    for sbdf, express in view.express.items():
        device = express.device
        if device.max_payload > device.max_payload_supported and view.functions[sbdf].physical_function is None:
            yield f"pci:{sbdf}", f"{device.max_payload} bytes are set, it can {device.max_payload_supported}"


@check(
    "pci.payload-small",
    Severity.INFO,
    title="smaller packets than a whole path could carry",
    meaning="The port and everything directly behind it support larger packets than are set: throughput is lost.",
    advice="pci=pcie_bus_perf on Linux's command line, where the device is not to be hot-plugged.",
    specification="PCI Express Base 6.0, section 7.5.3.3",
)
def payload_small(view: View) -> Iterator[Told]:
    for above, port, below, express in view.links:
        best = min(port.device.max_payload_supported, express.device.max_payload_supported)
        if port.type is ExpressType.ROOT_PORT and express.device.max_payload < best and below.bridge is None:
            yield below.where, f"{express.device.max_payload} bytes, {above.sbdf} and the function can {best}"


@check(
    "pci.aspm-unsupported",
    Severity.WARNING,
    title="a power state turned on that the link does not have",
    meaning="ASPM Control has a state turned on that ASPM Support of the same function does not name: the link may not "
    "come back from it.",
    advice="Boot with pcie_aspm=off; update the firmware.",
    specification="PCI Express Base 6.0, sections 7.5.3.6 and 7.5.3.7",
)
def aspm_unsupported(view: View) -> Iterator[Told]:
    for sbdf, express in view.express.items():
        if express.link is not None and not sbdf.function and express.link.aspm_control & ~express.link.aspm:
            yield f"pci:{sbdf}", f"on: {_states(express.link.aspm_control)}, can: {_states(express.link.aspm)}"


def _states(bits: int) -> str:
    return " ".join(name for bit, name in ((1, "L0s"), (2, "L1")) if bits & bit) or "none"


@check(
    "pci.aspm-one-sided",
    Severity.INFO,
    title="L1 turned on at one end of a link only",
    meaning="One end may go to L1 and the other is told not to. The link stays in L0, which costs power; the lower end "
    "alone may ask again and again.",
    advice="Nothing; pcie_aspm.policy= sets both ends.",
    specification="PCI Express Base 6.0, section 5.4.1.4: enabled at the upper end first, disabled at the lower end "
    "first",
)
def aspm_one_sided(view: View) -> Iterator[Told]:
    for where, upper, lower in _ends(view):
        if (upper.aspm_control ^ lower.aspm_control) & 2:
            told = f"{_states(upper.aspm_control)} above, {_states(lower.aspm_control)} below"
            yield where.partition(" ")[0], f"{told}; {where}"


@check(
    "pci.aspm-latency",
    Severity.WARNING,
    title="a power state that takes longer to leave than the device allows",
    meaning="L1 is on, and the link's exit latency is longer than what the device says it can bear: its buffers "
    "overflow under load (lost packets, drop-outs of sound).",
    advice="Boot with pcie_aspm.policy=performance; update the firmware.",
    specification="PCI Express Base 6.0, section 5.4.1.3.2; Linux drivers/pci/pcie/aspm.c (pcie_aspm_check_latency)",
)
def aspm_latency(view: View) -> Iterator[Told]:
    for above, port, below, express in view.links:
        if port.link is None or express.link is None or not port.link.aspm_control & express.link.aspm_control & 2:
            continue
        bearable = express.device.l1_acceptable
        if express.type not in (ExpressType.ENDPOINT, ExpressType.LEGACY_ENDPOINT) or bearable is None:
            continue
        exits = (port.link.l1_exit, express.link.l1_exit)
        longest = None if None in exits else max(of for of in exits if of is not None)
        if longest is None or longest > bearable:
            told = "more than 64" if longest is None else f"up to {longest / 1000:g}"
            yield below.where, f"{told} us to leave L1 below {above.sbdf}, it bears {bearable / 1000:g} us"


@check(
    "pci.clock-differs",
    Severity.INFO,
    title="two ends of a link disagree about their clock",
    meaning="Common Clock Configuration is set at one end only. Exit latencies and the number of training sequences "
    "are then wrong at one end: the link may fail to leave a power state.",
    advice="Boot with pcie_aspm=off where errors are logged; Linux sets both ends when ASPM is configured.",
    specification="PCI Express Base 6.0, section 7.5.3.7, Common Clock Configuration: the same at both ends",
)
def clocks(view: View) -> Iterator[Told]:
    for where, upper, lower in _ends(view):
        if upper.common_clock != lower.common_clock:
            yield where.partition(" ")[0], f"set at the {'upper' if upper.common_clock else 'lower'} end; {where}"


@check(
    "pci.ltr-path",
    Severity.WARNING,
    title="latency messages that a port above does not take",
    meaning="LTR is on in the function and off in a port above it: the port answers its messages with an unsupported "
    "request, which AER logs as an error.",
    advice="Update the firmware; reload the driver, or turn LTR off in the function (setpci).",
    specification="PCI Express Base 6.0, section 6.18: enabled from the root down",
)
def ltr_path(view: View) -> Iterator[Told]:
    for sbdf, express in view.express.items():
        above = view.above(sbdf)
        port = view.express.get(above.sbdf) if above is not None else None
        if above is None or port is None or port.device2 is None or express.device2 is None:
            continue
        if express.device2.ltr and not port.device2.ltr and port.link is not None:
            yield f"pci:{sbdf}", f"on here, off in {above.sbdf}"


@check(
    "pci.ari-off",
    Severity.WARNING,
    title="functions beyond the eighth, and a port that does not forward them",
    meaning="The device has ARI and functions above number 7 (or virtual functions there), and ARI Forwarding of the "
    "port above is off: config accesses to them are answered by nobody.",
    advice="Rescan (Linux turns it on); under a hypervisor see that it does.",
    specification="PCI Express Base 6.0, section 6.13 and 7.5.3.16, ARI Forwarding Enable",
)
def ari_off(view: View) -> Iterator[Told]:
    for sbdf, express in view.express.items():
        above = view.above(sbdf)
        port = view.express.get(above.sbdf) if above is not None else None
        if sbdf.device or sbdf.function or above is None or port is None or port.device2 is None:
            continue
        ari = capability(view.functions[sbdf], AlternativeRoutingId)
        if ari is not None and ari.next_function > 7 and not port.device2.ari_forwarding and express.link is not None:
            yield f"pci:{sbdf}", f"the next function is {ari.next_function}, {above.sbdf} does not forward it"


@check(
    "pci.sriov-no-room",
    Severity.INFO,
    title="not all virtual functions fit the bus numbers",
    meaning="With all virtual functions turned on, some would be on buses that the bridge above does not forward. "
    "Linux turns on only those that fit, unless it can give new bus numbers.",
    advice="pci=assign-busses, or fewer virtual functions.",
    specification="PCI Express Base 6.0, section 9.2.1.2; Linux drivers/pci/iov.c (compute_max_vf_buses)",
)
def sriov_room(view: View) -> Iterator[Told]:
    for function in view.read:
        sriov = capability(function, SingleRootIov)
        above = view.above(function.sbdf)
        if sriov is None or above is None or above.bridge is None or not (sriov.first_vf_offset and sriov.total_vfs):
            continue
        last = function.sbdf.requester_id + sriov.first_vf_offset + sriov.vf_stride * (sriov.total_vfs - 1)
        if last >> 8 > above.bridge.subordinate:
            told = f"{sriov.total_vfs} reach bus {last >> 8:#04x}, {above.sbdf} forwards up to"
            yield function.where, f"{told} {above.bridge.subordinate:#04x}"


@check(
    "pci.aer-missing-above",
    Severity.INFO,
    title="errors that nobody at the root collects",
    meaning="The function can report errors in detail (AER) and the root port above cannot: what it reports is lost, "
    "or becomes a system error.",
    advice="Nothing.",
    specification="PCI Express Base 6.0, section 6.2.4",
)
def aer_missing(view: View) -> Iterator[Told]:
    topology = view.platform.topology
    behind: dict[str, list[object]] = defaultdict(list)
    for sbdf in view.express if topology is not None else ():
        function = view.functions[sbdf]
        path = topology.path(sbdf) if topology is not None else ()
        root = view.functions.get(path[0]) if len(path) > 1 else None
        if root is None or root.config_bytes < 0x1000 or capability(function, AdvancedErrorReporting) is None:
            continue
        express = view.express.get(root.sbdf)
        if express is None or express.type is not ExpressType.ROOT_PORT:
            continue
        if capability(root, AdvancedErrorReporting) is None:
            behind[root.where].append(sbdf)
    for where, functions in sorted(behind.items()):
        yield where, f"behind it: {shown(functions)}"


@check(
    "pci.slot-number-twice",
    Severity.INFO,
    title="two slots with one number",
    meaning="Two ports say that their slots have the same physical number: a name such as /sys/bus/pci/slots/3 does "
    "not tell which, and Linux appends a suffix.",
    advice="Name slots by the port's address.",
    specification="PCI Express Base 6.0, section 7.5.3.9, Physical Slot Number: unique in the chassis",
)
def slot_twice(view: View) -> Iterator[Told]:
    first: dict[tuple[int, int | None], object] = {}
    for slot in view.platform.topology.slots if view.platform.topology is not None else ():
        if slot.number is None or slot.kind is not SlotKind.PCIE:
            continue
        key = (slot.number, slot.chassis)
        if key in first:
            yield f"pci:{slot.bridge}", f"slot {slot.number} is also below {first[key]}"
        first.setdefault(key, slot.bridge)


@check(
    "pci.slot-power-fault",
    Severity.WARNING,
    title="a slot with a power fault",
    meaning="The slot's power controller has seen a fault: a short circuit, or a card that takes too much.",
    advice="Take the card out; look at the log for what was in the slot then.",
    specification="PCI Express Base 6.0, section 7.5.3.11, Power Fault Detected",
)
def power_fault(view: View) -> Iterator[Told]:
    for sbdf, express in view.express.items():
        if express.slot is not None and express.slot.power_fault and express.slot.power_controller:
            yield f"pci:{sbdf}", f"slot {express.slot.number}"


@check(
    "pci.slot-no-buses",
    Severity.INFO,
    title="a hot-plug slot with room for one bus",
    meaning="The port can take cards while the machine runs, and forwards one bus number only: a card with a bridge or "
    "with many virtual functions finds no room.",
    advice="pci=hpbussize=N on Linux's command line, or bus numbers in the firmware's set-up.",
    specification="PCI-to-PCI Bridge 1.2, section 3.2.5.4; Linux Documentation/admin-guide/kernel-parameters.txt",
)
def slot_buses(view: View) -> Iterator[Told]:
    for slot in view.platform.topology.slots if view.platform.topology is not None else ():
        bridge = view.functions[slot.bridge].bridge if slot.bridge in view.functions else None
        if slot.hot_plug and bridge is not None and bridge.secondary and bridge.secondary == bridge.subordinate:
            yield f"pci:{slot.bridge}", f"bus {bridge.secondary:#04x} only"


@check(
    "pci.slot-no-memory",
    Severity.INFO,
    title="a hot-plug slot without memory",
    meaning="The port can take cards while the machine runs, and forwards no memory: a card that is plugged in gets an "
    "address only if there is room beside it.",
    advice="pci=hpmmiosize=N on Linux's command line.",
    specification="PCI-to-PCI Bridge 1.2, section 3.2.5.8; Linux Documentation/admin-guide/kernel-parameters.txt",
)
def slot_memory(view: View) -> Iterator[Told]:
    for slot in view.platform.topology.slots if view.platform.topology is not None else ():
        function = view.functions.get(slot.bridge)
        if not slot.hot_plug or function is None or function.bridge is None or function.asleep:
            continue
        if function.bridge.memory is None and function.bridge.prefetchable is None:
            yield f"pci:{slot.bridge}", "no memory window"
