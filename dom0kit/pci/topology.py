# SPDX-License-Identifier: MIT
"""The tree of PCI buses: which bridge leads to which bus, what is behind it, its slots and virtual functions.

Everything follows from the bus number registers of the bridges, as firmware or the kernel left them; nothing is
assumed of their order or of their truth. A bus number only ever leads downwards, to a larger one, so no walk can loop.

Source: PCI-to-PCI Bridge 1.2 section 3.2.5, PCI Express Base 6.0 sections 6.7 (hot-plug), 7.5.3.9 (slots) and 9.3.3
(routing ids of virtual functions).
"""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Final, NamedTuple

import msgspec

from dom0kit.address import Sbdf
from dom0kit.finding import Finding, Severity, rule
from dom0kit.pci.capabilities.express import Express, ExpressType
from dom0kit.pci.capabilities.hot_plug import HotPlug
from dom0kit.pci.capabilities.slot_id import SlotId
from dom0kit.pci.capabilities.sriov import SingleRootIov
from dom0kit.pci.function import Function

# --- rules ------------------------------------------------------------------------------------------------------------

TWICE: Final = rule(
    "pci.function-twice",
    Severity.ERROR,
    title="one address, two functions",
    meaning="The source gives the same segment, bus, device and function more than once. The first is kept.",
    advice="Record the machine again; a merged or edited recording looks like this.",
    specification="PCI Local Bus 3.0, section 6.2: an address names one function",
)
LOOP: Final = rule(
    "pci.bus-loop",
    Severity.ERROR,
    title="a bridge leads to its own bus or to one above it",
    meaning="The secondary bus number of a bridge is not larger than the number of the bus that the bridge itself is "
    "on. Software that follows it walks in circles. The bridge is taken as one that leads nowhere.",
    advice="Have the kernel assign bus numbers again (pci=assign-busses), or update the firmware.",
    specification="PCI-to-PCI Bridge 1.2, section 3.2.5.3; Linux drivers/pci/probe.c gives such a bridge new numbers",
)
CLASH: Final = rule(
    "pci.bus-clash",
    Severity.ERROR,
    title="two bridges claim the same buses",
    meaning="The bus ranges of two bridges of one bus have numbers in common, or two bridges have the same secondary "
    "bus. Configuration accesses reach an arbitrary one of them. Functions on a bus claimed twice are shown behind the "
    "first.",
    advice="Have the kernel assign bus numbers again (pci=assign-busses), or update the firmware.",
    specification="PCI-to-PCI Bridge 1.2, section 3.2.5.4: a type 1 access is claimed by range",
)
EMPTY: Final = rule(
    "pci.bus-range-empty",
    Severity.INFO,
    title="a bridge whose range of buses is empty",
    meaning="The subordinate bus number is below the secondary one, so the bridge forwards no configuration access at "
    "all. Some firmware (Apple's) parks unused ports so. The bridge is taken as one that leads nowhere.",
    advice="Nothing for an unused port. Otherwise have the kernel assign bus numbers again (pci=assign-busses).",
    specification="PCI-to-PCI Bridge 1.2, section 3.2.5.4",
)
OUTSIDE: Final = rule(
    "pci.bus-outside-parent",
    Severity.ERROR,
    title="a bridge's buses are outside the range of the bridge above it",
    meaning="The bridge above does not forward configuration accesses to all of these buses: what is there cannot be "
    "reached, or is reached through another bridge.",
    advice="Have the kernel assign bus numbers again (pci=assign-busses), or update the firmware.",
    specification="PCI-to-PCI Bridge 1.2, section 3.2.5.4",
)
PRIMARY: Final = rule(
    "pci.bus-primary",
    Severity.INFO,
    title="a bridge's primary bus number is not its own bus",
    meaning="The register names another bus than the one the bridge answers on. PCI Express bridges do not use it; a "
    "conventional bridge converts special cycles by it.",
    advice="Nothing, unless config accesses behind this bridge fail.",
    specification="PCI-to-PCI Bridge 1.2, section 3.2.5.2; PCI Express Base 6.0, section 7.5.1.3.2",
)
UNCONFIGURED: Final = rule(
    "pci.bridge-unconfigured",
    Severity.INFO,
    title="a bridge without bus numbers",
    meaning="Secondary bus number 0: nobody gave the bridge a bus, or it lost power (D3cold) and forgot it. What is "
    "behind it is unseen; functions that the kernel still remembers there look as if they were on a root bus of their "
    "own.",
    advice="Nothing for an unused port. Otherwise wake it, or rescan (echo 1 > /sys/bus/pci/rescan).",
    specification="PCI-to-PCI Bridge 1.2, section 3.2.5.3: 0 after reset",
)
ORPHAN: Final = rule(
    "pci.bus-orphan",
    Severity.WARNING,
    title="functions on a bus that no bridge leads to",
    meaning="A bridge forwards this bus number, but no bridge below has it as its secondary bus, and it is not the "
    "bus of virtual functions. A CardBus bridge, a sleeping or hidden bridge, or one that was read as all ones, is "
    "missing.",
    advice="Record again with every function awake; the functions are shown below the bridge that forwards them.",
    specification="PCI-to-PCI Bridge 1.2, section 3.2.5.4",
)
VF_COUNT: Final = rule(
    "pci.sriov-numbers",
    Severity.WARNING,
    title="SR-IOV numbers that cannot be",
    meaning="More virtual functions are enabled than there are, or offset and stride place them on addresses that do "
    "not exist or on each other.",
    advice="Update the device's firmware; do not enable more virtual functions than TotalVFs.",
    specification="PCI Express Base 6.0, section 9.3.3",
)
ECAM_NOWHERE: Final = rule(
    "pci.ecam-nowhere",
    Severity.INFO,
    title="an ECAM allocation that covers no function",
    meaning="The MCFG maps configuration space of buses on which there is no function. On a machine with empty host "
    "bridges this is as it should be; else segment or bus numbers are wrong.",
    advice="Compare the segment with _SEG and the buses with _BBN and _CRS of the host bridges.",
    specification="PCI Firmware Specification 3.3, section 4.1.2",
)
ECAM_UNCOVERED: Final = rule(
    "pci.ecam-uncovered",
    Severity.WARNING,
    title="buses outside every ECAM allocation",
    meaning="There is an MCFG, but it does not map these buses: their functions have no extended configuration space, "
    "so AER, ACS and SR-IOV cannot be reached, and on other segments than 0 nothing can.",
    advice="Update the firmware. Numbers that the kernel gave itself (hot-plug, pci=assign-busses) can also lie "
    "outside.",
    specification="PCI Firmware Specification 3.3, section 4.1.2",
)
ECAM_OVERLAP: Final = rule(
    "pci.ecam-overlap",
    Severity.WARNING,
    title="ECAM allocations overlap",
    meaning="Two allocations map the same bus, or lie on the same memory. One of them is wrong.",
    advice="Update the firmware; Linux uses the first (see pci=nommconf to do without).",
    specification="PCI Firmware Specification 3.3, section 4.1.2",
)
ECAM_INVALID: Final = rule(
    "pci.ecam-invalid",
    Severity.WARNING,
    title="an ECAM allocation that cannot be",
    meaning="The base address is 0, all ones or not aligned to 1 MiB, or the last bus is before the first.",
    advice="Update the firmware, or leave ECAM out (pci=nommconf).",
    specification="PCI Firmware Specification 3.3, section 4.1.2; PCI Express Base 6.0, section 7.2.2",
)

# --- values -----------------------------------------------------------------------------------------------------------


class PortKind(enum.Enum):
    """What a function is in the tree, from its PCI Express capability, or from its header where it has none."""

    ENDPOINT = "endpoint"
    LEGACY_ENDPOINT = "legacy endpoint"
    ROOT_PORT = "root port"
    UPSTREAM_PORT = "upstream port"
    DOWNSTREAM_PORT = "downstream port"
    PCIE_TO_PCI_BRIDGE = "PCI Express to PCI bridge"
    PCI_TO_PCIE_BRIDGE = "PCI to PCI Express bridge"
    INTEGRATED_ENDPOINT = "root complex integrated endpoint"
    EVENT_COLLECTOR = "root complex event collector"
    PCI_BRIDGE = "PCI bridge"
    CARDBUS_BRIDGE = "CardBus bridge"
    PCI_FUNCTION = "PCI function"

    @property
    def is_express(self) -> bool:
        """It has a PCI Express capability of a known type."""
        return self not in (PortKind.PCI_BRIDGE, PortKind.CARDBUS_BRIDGE, PortKind.PCI_FUNCTION)


class Bus(msgspec.Struct, frozen=True):
    """One bus that a bridge leads to or that has functions."""

    segment: int
    number: int
    bridge: Sbdf | None
    """The bridge whose secondary bus this is. None for a root bus, for the further buses of an SR-IOV device, and for
    one whose bridge was not seen."""
    parent: int | None
    """The bus above, in the same segment; None for a root bus."""
    functions: tuple[Sbdf, ...]
    """Ascending."""
    children: tuple[int, ...]
    """The buses directly below, ascending."""

    @property
    def is_root(self) -> bool:
        return self.parent is None


class SlotKind(enum.Enum):
    """Who controls a slot."""

    PCIE = "PCI Express"
    SHPC = "standard hot-plug controller"


class Slot(msgspec.Struct, frozen=True):
    """One slot, as the port or bridge above it describes it. None: the registers do not say."""

    bridge: Sbdf
    kind: SlotKind
    number: int | None
    """Physical Slot Number; None where it is 0 (not numbered), or for SHPC (its registers lie in memory)."""
    chassis: int | None
    """Of the Slot Identification capability."""
    hot_plug: bool
    surprise: bool | None = None
    """A card may be pulled without notice."""
    attention_button: bool | None = None
    attention_indicator: bool | None = None
    power_indicator: bool | None = None
    power_controller: bool | None = None
    mrl_sensor: bool | None = None
    """A sensor of the manually operated retention latch."""
    interlock: bool | None = None
    present: bool | None = None
    """A card is in the slot."""
    powered: bool | None = None
    """None where there is no power controller."""
    latch_open: bool | None = None
    """None where there is no sensor."""
    link_active: bool | None = None
    """None where the link does not report it."""
    attention: int | None = None
    """Attention Indicator Control: 1 on, 2 blinking, 3 off, 0 reserved; None where there is no indicator."""
    functions: tuple[Sbdf, ...] = ()
    """On the bus behind, ascending."""


class VirtualFunctions(msgspec.Struct, frozen=True):
    """The virtual functions of one SR-IOV physical function."""

    physical: Sbdf
    total: int
    """TotalVFs: 0 to 65535."""
    enabled: bool
    count: int
    """NumVFs; means something only while enabled."""
    offset: int
    stride: int
    expected: tuple[Sbdf, ...]
    """Where the enabled ones are by offset and stride, ascending by VF number."""
    present: tuple[Sbdf, ...]
    """Those that were recorded, ascending: by the kernel's word, or by being expected."""


class Topology(msgspec.Struct, frozen=True, dict=True):
    """All buses of a machine and how they hang together."""

    buses: tuple[Bus, ...]
    """Ascending by segment and number."""
    kinds: tuple[tuple[Sbdf, PortKind], ...]
    """Of every function, ascending."""
    slots: tuple[Slot, ...]
    """Ascending by bridge."""
    virtual_functions: tuple[VirtualFunctions, ...]
    """Ascending by physical function."""

    @cached_property
    def _buses(self) -> Mapping[tuple[int, int], Bus]:
        return {(bus.segment, bus.number): bus for bus in self.buses}

    @cached_property
    def _kinds(self) -> Mapping[Sbdf, PortKind]:
        return dict(self.kinds)

    @cached_property
    def _secondaries(self) -> Mapping[Sbdf, Bus]:
        return {bus.bridge: bus for bus in self.buses if bus.bridge is not None}

    @cached_property
    def _physical(self) -> Mapping[Sbdf, Sbdf]:
        return {virtual: of.physical for of in self.virtual_functions for virtual in of.present}

    @property
    def roots(self) -> tuple[Bus, ...]:
        """The root buses, ascending."""
        return tuple(bus for bus in self.buses if bus.parent is None)

    def bus(self, segment: int, number: int) -> Bus | None:
        """The bus of this number; None where there is none."""
        return self._buses.get((segment, number))

    def bus_of(self, sbdf: Sbdf) -> Bus | None:
        """The bus a function is on."""
        return self._buses.get((sbdf.segment, sbdf.bus))

    def parent_of(self, bus: Bus) -> Bus | None:
        """The bus above; None for a root bus."""
        return None if bus.parent is None else self._buses.get((bus.segment, bus.parent))

    def secondary(self, bridge: Sbdf) -> Bus | None:
        """The bus a bridge leads to; None for what is no bridge or leads nowhere."""
        return self._secondaries.get(bridge)

    def kind(self, sbdf: Sbdf) -> PortKind | None:
        """What a function is; None for one that is not there."""
        return self._kinds.get(sbdf)

    def physical_function(self, sbdf: Sbdf) -> Sbdf | None:
        """The physical function of a virtual one; None for any other."""
        return self._physical.get(sbdf)

    def upstream(self, sbdf: Sbdf) -> Sbdf | None:
        """The nearest bridge above a function; None on a root bus."""
        bus = self.bus_of(sbdf)
        while bus is not None and bus.bridge is None:
            bus = self.parent_of(bus)
        return None if bus is None else bus.bridge

    def path(self, sbdf: Sbdf) -> tuple[Sbdf, ...]:
        """From the bridge (root port) on the root bus down to the function itself."""
        steps = [sbdf]
        above = self.upstream(sbdf)
        while above is not None:
            steps.append(above)
            above = self.upstream(above)
        return tuple(reversed(steps))

    def root_of(self, sbdf: Sbdf) -> Bus | None:
        """The root bus a function hangs below."""
        bus = self.bus_of(sbdf)
        while bus is not None and bus.parent is not None:
            bus = self.parent_of(bus)
        return bus

    def below(self, bus: Bus) -> Iterator[Bus]:
        """All buses below one, each before those below it."""
        waiting = [bus]
        while waiting:
            above = waiting.pop()
            for number in above.children:
                child = self._buses.get((above.segment, number))
                if child is not None and child.number > above.number:
                    yield child
                    waiting.append(child)

    def behind(self, bridge: Sbdf) -> tuple[Sbdf, ...]:
        """Every function behind a bridge, however deep, ascending; empty for what is no bridge."""
        bus = self.secondary(bridge)
        if bus is None:
            return ()
        found = list(bus.functions)
        for further in self.below(bus):
            found += further.functions
        return tuple(sorted(found))


# --- building ---------------------------------------------------------------------------------------------------------

_EXPRESS_KINDS: Final = {
    ExpressType.ENDPOINT: PortKind.ENDPOINT,
    ExpressType.LEGACY_ENDPOINT: PortKind.LEGACY_ENDPOINT,
    ExpressType.ROOT_PORT: PortKind.ROOT_PORT,
    ExpressType.UPSTREAM_PORT: PortKind.UPSTREAM_PORT,
    ExpressType.DOWNSTREAM_PORT: PortKind.DOWNSTREAM_PORT,
    ExpressType.PCIE_TO_PCI_BRIDGE: PortKind.PCIE_TO_PCI_BRIDGE,
    ExpressType.PCI_TO_PCIE_BRIDGE: PortKind.PCI_TO_PCIE_BRIDGE,
    ExpressType.INTEGRATED_ENDPOINT: PortKind.INTEGRATED_ENDPOINT,
    ExpressType.EVENT_COLLECTOR: PortKind.EVENT_COLLECTOR,
}
_HEADER_KINDS: Final = {1: PortKind.PCI_BRIDGE, 2: PortKind.CARDBUS_BRIDGE}

_MOST_VIRTUAL: Final = 0x10000
"""Virtual functions of one machine whose addresses are computed: a segment has no more addresses."""

_Key = tuple[int, int]
"""Segment and bus number."""


class _Claim(NamedTuple):
    """A bridge's right to its secondary bus."""

    bridge: Sbdf
    own: int
    """The bus the bridge is on."""
    secondary: int
    subordinate: int


def build(functions: Sequence[Function]) -> tuple[Topology, tuple[Finding, ...]]:
    """The bus tree of a machine's functions, in any order, and what is wrong with its bus numbers."""
    findings: list[Finding] = []
    by_address: dict[Sbdf, Function] = {}
    for function in functions:
        if by_address.setdefault(function.sbdf, function) is not function:
            findings.append(TWICE.at(f"pci:{function.sbdf}", "the source gives this address again; the first counts"))
    ordered = sorted(by_address)
    members: dict[_Key, list[Sbdf]] = defaultdict(list)
    kinds = []
    claims: dict[_Key, _Claim] = {}
    slots = []
    physical: list[tuple[Sbdf, SingleRootIov]] = []
    for sbdf in ordered:
        function = by_address[sbdf]
        segment, own = sbdf.segment, sbdf.bus
        members[segment, own].append(sbdf)
        express: Express | None = None
        for capability in function.capabilities:
            if isinstance(capability, Express):
                express = express or capability
            elif isinstance(capability, SingleRootIov):
                physical.append((sbdf, capability))
        kind = None if express is None else _EXPRESS_KINDS.get(express.type)
        kinds.append((sbdf, kind or _HEADER_KINDS.get(function.header_type, PortKind.PCI_FUNCTION)))
        if function.buses is not None:
            _claim(function, claims, findings)
            slot = _slot(function, express)
            if slot is not None:
                slots.append(slot)
    _check_ranges(claims, findings)
    virtual = _virtual_functions(by_address, physical, findings)
    parents = _parents(members, claims, by_address, virtual, findings)
    children: dict[_Key, list[int]] = defaultdict(list)
    for (segment, number), parent in parents.items():
        if parent is not None:
            children[segment, parent].append(number)
    buses = tuple(
        Bus(
            segment,
            number,
            claims[segment, number].bridge if (segment, number) in claims else None,
            parents[segment, number],
            tuple(members.get((segment, number), ())),
            tuple(sorted(children.get((segment, number), ()))),
        )
        for segment, number in sorted(parents)
    )
    behind = {bus.bridge: bus.functions for bus in buses if bus.bridge is not None}
    topology = Topology(
        buses,
        tuple(kinds),
        tuple(msgspec.structs.replace(slot, functions=behind.get(slot.bridge, ())) for slot in slots),
        virtual,
    )
    return topology, tuple(findings)


def _claim(function: Function, claims: dict[_Key, _Claim], findings: list[Finding]) -> None:
    bridge = function.bridge or function.cardbus
    if bridge is None:
        return
    sbdf, where = function.sbdf, function.where
    own, secondary, subordinate = sbdf.bus, bridge.secondary, bridge.subordinate
    if secondary == 0:
        findings.append(UNCONFIGURED.at(where, f"secondary bus 00, subordinate bus {subordinate:02x}"))
        return
    if secondary <= own:
        findings.append(LOOP.at(where, f"on bus {own:02x}, with secondary bus {secondary:02x}"))
        return
    if bridge.primary != own:
        findings.append(PRIMARY.at(where, f"on bus {own:02x}, with primary bus {bridge.primary:02x}"))
    if subordinate < secondary:
        findings.append(EMPTY.at(where, f"secondary bus {secondary:02x}, subordinate bus {subordinate:02x}"))
        return
    first = claims.setdefault((sbdf.segment, secondary), _Claim(sbdf, own, secondary, subordinate))
    if first.bridge != sbdf:
        findings.append(CLASH.at(where, f"secondary bus {secondary:02x} is also that of {first.bridge}"))


def _check_ranges(claims: Mapping[_Key, _Claim], findings: list[Finding]) -> None:
    """Ranges inside the range above, and apart from those beside."""
    beside: dict[_Key, _Claim] = {}
    for (segment, _), claim in sorted(claims.items()):
        above = claims.get((segment, claim.own))
        if above is not None and claim.subordinate > above.subordinate:
            findings.append(
                OUTSIDE.at(
                    f"pci:{claim.bridge}",
                    f"buses {_range(claim)}, behind {above.bridge} which forwards {_range(above)}",
                )
            )
        before = beside.get((segment, claim.own))
        if before is not None and claim.secondary <= before.subordinate:
            findings.append(
                CLASH.at(f"pci:{claim.bridge}", f"buses {_range(claim)}, and {before.bridge} has {_range(before)}")
            )
        if before is None or claim.subordinate > before.subordinate:
            beside[segment, claim.own] = claim


def _range(claim: _Claim) -> str:
    return f"{claim.secondary:02x} to {claim.subordinate:02x}"


def _parents(
    members: Mapping[_Key, Sequence[Sbdf]],
    claims: Mapping[_Key, _Claim],
    by_address: Mapping[Sbdf, Function],
    virtual: Sequence[VirtualFunctions],
    findings: list[Finding],
) -> dict[_Key, int | None]:
    """The bus above each bus, always a smaller number; None for root buses."""
    physical_bus = {sbdf: of.physical.bus for of in virtual for sbdf in of.present}
    by_segment: dict[int, list[_Claim]] = defaultdict(list)
    for (segment, _), claim in claims.items():
        by_segment[segment].append(claim)
    parents: dict[_Key, int | None] = {key: claim.own for key, claim in claims.items()}
    for key, on_bus in members.items():
        segment, number = key
        if key in parents:
            continue
        virtual_of = {physical_bus.get(sbdf) for sbdf in on_bus}
        if len(virtual_of) == 1 and (owner := virtual_of.pop()) is not None and owner < number:
            parents[key] = owner
            continue
        covering = max(
            (claim for claim in by_segment[segment] if claim.secondary < number <= claim.subordinate),
            key=lambda claim: claim.secondary,
            default=None,
        )
        parents[key] = None if covering is None else covering.secondary
        if covering is not None:
            findings.append(
                ORPHAN.at(
                    f"pci-bus:{segment:04x}:{number:02x}",
                    f"{len(on_bus)} functions, first {on_bus[0]}; {covering.bridge} forwards {_range(covering)}",
                )
            )
    # a bridge above may itself be on a bus without functions of its own: that bus is its children's, so it is there
    for segment, parent in {(segment, parent) for (segment, _), parent in parents.items() if parent is not None}:
        parents.setdefault((segment, parent), None)
    return parents


def _slot(function: Function, express: Express | None) -> Slot | None:
    chassis = next((c.chassis for c in function.capabilities if isinstance(c, SlotId)), None)
    if express is not None and express.slot is not None:
        slot, link = express.slot, express.link
        return Slot(
            bridge=function.sbdf,
            kind=SlotKind.PCIE,
            number=slot.number or None,
            chassis=chassis,
            hot_plug=slot.hot_plug_capable,
            surprise=slot.hot_plug_surprise,
            attention_button=slot.attention_button,
            attention_indicator=slot.attention_indicator,
            power_indicator=slot.power_indicator,
            power_controller=slot.power_controller,
            mrl_sensor=slot.mrl_sensor,
            interlock=slot.interlock,
            present=slot.presence,
            powered=not slot.power_off if slot.power_controller else None,
            latch_open=slot.mrl_open if slot.mrl_sensor else None,
            link_active=link.active if link is not None and link.link_active_reporting else None,
            attention=slot.attention_indicator_control if slot.attention_indicator else None,
        )
    if any(isinstance(capability, HotPlug) for capability in function.capabilities):
        return Slot(bridge=function.sbdf, kind=SlotKind.SHPC, number=None, chassis=chassis, hot_plug=True)
    return None


def _virtual_functions(
    by_address: Mapping[Sbdf, Function],
    physical: Sequence[tuple[Sbdf, SingleRootIov]],
    findings: list[Finding],
) -> tuple[VirtualFunctions, ...]:
    told: dict[Sbdf, list[Sbdf]] = defaultdict(list)
    for sbdf, function in by_address.items():
        if function.physical_function is not None:
            told[function.physical_function].append(sbdf)
    result = []
    room = _MOST_VIRTUAL
    for sbdf, capability in physical:
        expected = _routing_ids(sbdf, capability, room, findings) if capability.vf_enabled else []
        room -= len(expected)
        present = set(told.pop(sbdf, ())) | {
            at for at in expected if at in by_address and by_address[at].physical_function in (None, sbdf)
        }
        result.append(
            VirtualFunctions(
                sbdf,
                capability.total_vfs,
                capability.vf_enabled,
                capability.num_vfs,
                capability.first_vf_offset,
                capability.vf_stride,
                tuple(expected),
                tuple(sorted(present - {sbdf})),
            )
        )
    for sbdf, virtual in told.items():  # the kernel names a PF whose SR-IOV capability was not recorded
        here = tuple(sorted(set(virtual) - {sbdf}))
        result.append(VirtualFunctions(sbdf, len(here), True, len(here), 0, 0, (), here))
    return tuple(sorted(result, key=lambda of: of.physical))


def _routing_ids(sbdf: Sbdf, capability: SingleRootIov, room: int, findings: list[Finding]) -> list[Sbdf]:
    """Routing ids of the enabled virtual functions: PF + offset + n * stride, in 16 bits; at most `room` of them."""
    count, offset, stride = capability.num_vfs, capability.first_vf_offset, capability.vf_stride
    if count == 0:
        return []
    first = sbdf.requester_id + offset
    last = first + (count - 1) * stride
    if count > capability.total_vfs or offset == 0 or (count > 1 and stride == 0) or last > 0xFFFF or count > room:
        findings.append(
            VF_COUNT.at(
                f"pci:{sbdf}", f"NumVFs {count}, TotalVFs {capability.total_vfs}, offset {offset}, stride {stride}"
            )
        )
    if offset == 0:
        return []
    ids = range(first, min(last, 0xFFFF) + 1, stride or 1)
    return [Sbdf.from_devfn(sbdf.segment, id >> 8, id & 0xFF) for id in ids[:room]]


# --- ECAM -------------------------------------------------------------------------------------------------------------


def ecam_coverage(
    allocations: Sequence[tuple[int, int, int, int]], functions: Sequence[Function]
) -> tuple[Finding, ...]:
    """What is wrong with ECAM allocations, each (segment, first bus, last bus, base), for these functions.

    `base` is the address of bus 0 even where the first bus is another. Without functions nothing is said of coverage.
    """
    findings = []
    good = []
    for segment, start, end, base in allocations:
        if start > end or base in (0, 0xFFFFFFFFFFFFFFFF) or base & 0xFFFFF:
            findings.append(ECAM_INVALID.at(_ecam(segment, start, end), f"buses {start:02x} to {end:02x} at {base:#x}"))
        if start <= end:
            good.append((segment, start, end, base))
    findings += _ecam_overlaps(good)
    used: dict[int, bytearray] = {}
    for function in functions:
        used.setdefault(function.sbdf.segment, bytearray(256))[function.sbdf.bus] = 1
    if not used or not allocations:
        return tuple(findings)
    covered: dict[int, bytearray] = {}
    for segment, start, end, _base in good:
        if 1 not in used.get(segment, b"")[start : end + 1]:
            findings.append(ECAM_NOWHERE.at(_ecam(segment, start, end), "no function is on any of these buses"))
        covered.setdefault(segment, bytearray(256))[start : end + 1] = b"\1" * (end + 1 - start)
    for segment in sorted(used):
        if segment > 0xFFFF:  # VMD and Hyper-V domains have their own way to configuration space
            continue
        mapped = covered.get(segment, bytes(256))
        bare = [bus for bus in range(256) if used[segment][bus] and not mapped[bus]]
        if bare:
            told = " ".join(f"{bus:02x}" for bus in bare)
            findings.append(ECAM_UNCOVERED.at(f"pci-segment:{segment:04x}", f"buses with functions: {told}"))
    return tuple(findings)


def _ecam_overlaps(allocations: Sequence[tuple[int, int, int, int]]) -> Iterator[Finding]:
    """The same bus twice, or the same memory twice: each allocation against the one that reaches furthest before it."""
    for by_memory in (False, True):
        ranges = []
        for segment, start, end, base in allocations:
            if by_memory:
                ranges.append((0, base + (start << 20), base + (end + 1 << 20) - 1, _ecam(segment, start, end)))
            else:
                ranges.append((segment, start, end, _ecam(segment, start, end)))
        space = furthest = -1
        before = ""
        for of, first, last, where in sorted(ranges):
            if of == space and first <= furthest:
                yield ECAM_OVERLAP.at(where, f"the same {'memory' if by_memory else 'buses'} as {before}")
            if of != space or last > furthest:
                space, furthest, before = of, last, where


def _ecam(segment: int, start: int, end: int) -> str:
    return f"ecam:{segment:04x}:{start:02x}-{end:02x}"
