# SPDX-License-Identifier: MIT
"""How a function can be reset, and what stands in the way, by Linux's rules (drivers/pci/pci.c, pci_reset_fn_methods).

The ways, in the order in which Linux tries them:

- device specific: named by a quirk;
- acpi: the companion has a ``_RST`` method;
- flr: Function Level Reset (PCI Express Base 6.0, section 6.6.2);
- af_flr: the same of a conventional function (Advanced Features capability);
- pm: to D3hot and back, where that does not keep the state (No_Soft_Reset clear);
- bus: a reset of the whole bus behind the bridge above, of use where the function is alone on it. In a hot-plug slot
  the slot is reset instead, so that the loss of the link is not taken for the loss of the card.
"""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import Final

import msgspec

from dom0kit.address import Sbdf
from dom0kit.finding import Finding, Severity, rule
from dom0kit.pci import quirks
from dom0kit.pci.capabilities.advanced_features import AdvancedFeatures
from dom0kit.pci.capabilities.express import Express
from dom0kit.pci.capabilities.power_management import PowerManagement
from dom0kit.pci.function import Function
from dom0kit.pci.quirks import Method
from dom0kit.pci.topology import SlotKind, Topology

DIFFERS: Final = rule(
    "pci.reset-differs",
    Severity.INFO,
    title="the kernel offers other ways of resetting a function",
    meaning="The reset_method attribute that the kernel recorded is not what registers, topology and known quirks "
    "give. Somebody may have written it, a driver or a newer kernel may know more, or config space was not fully "
    "readable.",
    advice="Believe the kernel; what it lists is what it will try.",
    specification="Linux Documentation/ABI/testing/sysfs-bus-pci (reset_method)",
)
NONE: Final = rule(
    "pci.reset-none",
    Severity.INFO,
    title="no way to reset a card alone",
    meaning="A card that nothing can reset alone keeps the state of its last user: what was in its memory, DMA "
    "that is still going on. A toolstack refuses to assign it, or assigns it dirty.",
    advice="Assign it together with what blocks the bus reset, or only to a domain that is trusted.",
    specification="Linux drivers/pci/pci.c (pci_init_reset_methods); Xen tools, pci_assignable",
)


class ResetMethod(enum.Enum):
    """A way of resetting; the values are the words of Linux's ``reset_method``."""

    DEVICE_SPECIFIC = "device_specific"
    ACPI = "acpi"
    FLR = "flr"
    AF_FLR = "af_flr"
    PM = "pm"
    BUS = "bus"


class Reset(msgspec.Struct, frozen=True):
    """One way of resetting one function."""

    method: ResetMethod
    available: bool
    detail: str
    """What it rests on, or what stands in the way; may be empty."""
    blocked_by: tuple[Sbdf, ...] = ()
    """Functions that a bus reset would reset, too, ascending; where there are any, it is not available."""
    bridge: bool = False
    """A bus reset that would reset all behind this bridge, too, and is not available."""
    slot: bool = False
    """A bus reset that goes through the hot-plug slot."""


class Resets(msgspec.Struct, frozen=True):
    """The ways of one function."""

    function: Sbdf
    ways: tuple[Reset, ...]
    """Those that registers or quirks mention, available or not, in the order in which Linux tries them."""

    @property
    def available(self) -> tuple[ResetMethod, ...]:
        """In the order in which Linux tries them."""
        return tuple(way.method for way in self.ways if way.available)


_ENDPOINT_CLASSES: Final = frozenset(range(0x01, 0x05)) | {0x07, 0x0B, 0x0C, 0x0D, 0x10, 0x12}
"""Base classes of what people assign: mass storage, network, display, multimedia, communication, processor, serial bus,
wireless, encryption, accelerator."""


def resets(
    functions: Sequence[Function], topology: Topology, *, acpi: Collection[Sbdf] = ()
) -> tuple[tuple[Resets, ...], tuple[Finding, ...]]:
    """The ways of every function, ascending, and findings where the kernel says otherwise or there is none.

    `acpi`: the functions whose ACPI companion has a ``_RST`` method.
    """
    result = []
    findings = []
    known: dict[Sbdf, Function] = {}
    for function in functions:
        known.setdefault(function.sbdf, function)
    slots = {slot.bridge for slot in topology.slots if slot.kind is SlotKind.PCIE and slot.hot_plug}
    devices: dict[tuple[int, int, int], int] = defaultdict(int)
    for sbdf in known:
        devices[sbdf.segment, sbdf.bus, sbdf.device] += 1
    for sbdf in sorted(known):
        function = known[sbdf]
        several = function.multifunction or devices[sbdf.segment, sbdf.bus, sbdf.device] > 1
        ways = tuple(_ways(function, topology, slots, several, sbdf in acpi))
        one = Resets(sbdf, ways)
        result.append(one)
        offered = tuple(method.value for method in one.available)
        told = function.reset_methods
        if told is not None:
            if told != offered and told != (*offered, *_as_first_on_bus(one, topology)):
                findings.append(
                    DIFFERS.at(
                        function.where,
                        f"the kernel offers {' '.join(told) or 'none'}; computed: {' '.join(offered) or 'none'}",
                    )
                )
        elif not offered and _is_card(function, topology):
            findings.append(NONE.at(function.where, "; ".join(way.detail for way in ways) or "no register offers one"))
    return tuple(result), tuple(findings)


def _as_first_on_bus(resets_: Resets, topology: Topology) -> tuple[str, ...]:
    """What the kernel lists besides for the first function of a bus: it asks before it has found the others.

    A bus reset that it lists so fails when it is tried.
    """
    bus = topology.bus_of(resets_.function)
    way = resets_.ways[-1] if resets_.ways else None
    if bus is None or bus.functions[0] != resets_.function or way is None or way.method is not ResetMethod.BUS:
        return ()
    return () if way.available or not (way.blocked_by or way.bridge) else (ResetMethod.BUS.value,)


def _is_card(function: Function, topology: Topology) -> bool:
    """An endpoint off the root bus, of a class that people assign, of which enough was readable to tell."""
    return (
        function.header_type == 0
        and function.answers
        and function.config_bytes >= 0x100
        and function.class_code >> 16 in _ENDPOINT_CLASSES
        and _is_below_root(function, topology)
    )


def _ways(
    function: Function, topology: Topology, slots: Collection[Sbdf], several: bool, acpi: bool
) -> Iterator[Reset]:
    below_root = _is_below_root(function, topology)
    broken = {
        quirk.method: quirk.about
        for quirk in quirks.broken_resets().of(function)
        if quirk.fits(function) and (below_root or not quirk.below_root)
    }
    express = next((c for c in function.capabilities if isinstance(c, Express)), None)
    advanced = next((c for c in function.capabilities if isinstance(c, AdvancedFeatures)), None)
    power = next((c for c in function.capabilities if isinstance(c, PowerManagement)), None)
    flr = express is not None and express.device.flr_capable and Method.FLR not in broken
    for quirk in quirks.specific_resets().of(function):
        if quirk.fits(function):
            available = flr or not quirk.needs_flr
            yield Reset(ResetMethod.DEVICE_SPECIFIC, available, quirk.about)
            break
    if acpi:
        yield Reset(ResetMethod.ACPI, True, "the companion has _RST")
    if express is not None and express.device.flr_capable:
        yield Reset(ResetMethod.FLR, flr, broken.get(Method.FLR, ""))
    if advanced is not None and advanced.flr_capable:
        if Method.FLR in broken:
            yield Reset(ResetMethod.AF_FLR, False, broken[Method.FLR])
        else:
            complete = advanced.transactions_pending_capable
            detail = "" if complete else "it does not say when transactions are pending"
            yield Reset(ResetMethod.AF_FLR, complete, detail)
    if power is not None:
        if power.no_soft_reset:
            yield Reset(ResetMethod.PM, False, "No_Soft_Reset: D3hot keeps the state")
        else:
            yield Reset(ResetMethod.PM, Method.PM not in broken, broken.get(Method.PM, ""))
    bus = _bus(function, topology, slots, several, broken.get(Method.BUS))
    if bus is not None:
        yield bus


def _is_below_root(function: Function, topology: Topology) -> bool:
    bus = topology.bus_of(function.sbdf)
    return bus is not None and not bus.is_root


def _bus(
    function: Function, topology: Topology, slots: Collection[Sbdf], several: bool, broken: str | None
) -> Reset | None:
    """A reset of the bus the function is on; None on a root bus, and where its bridge was not seen."""
    bus = topology.bus_of(function.sbdf)
    if bus is None or bus.bridge is None:
        return None
    if broken is not None:
        return Reset(ResetMethod.BUS, False, broken)
    if function.bridge is not None or function.cardbus is not None:
        others = tuple(sbdf for sbdf in bus.functions if sbdf != function.sbdf)
        return Reset(ResetMethod.BUS, False, "it is a bridge: all behind it would be reset, too", others, bridge=True)
    if bus.bridge in slots and not several:
        return Reset(ResetMethod.BUS, True, f"through the slot below {bus.bridge}", slot=True)
    others = tuple(sbdf for sbdf in bus.functions if sbdf != function.sbdf)
    if others:
        return Reset(ResetMethod.BUS, False, f"{len(others)} more on the bus behind {bus.bridge}", others)
    return Reset(ResetMethod.BUS, True, f"of the bus behind {bus.bridge}")
