# SPDX-License-Identifier: MIT
"""Vectors: how many each processor has for devices, who needs how many, and an assignment that fits.

A processor has 256 vectors; the first 32 are its exceptions, and whoever owns the interrupts keeps some for itself. An
interrupt takes one vector of one processor. Without a remapper the messages of one function's multi-message MSI differ
in the low bits of the vector alone, so they need an aligned run on one processor (PCI Local Bus 3.0, section 6.8.1.6).

Sources: Xen, xen/arch/x86/include/asm/irq-vectors.h; Linux, arch/x86/include/asm/irq_vectors.h (0xeb became a system
vector in 6.10, 0x20 stopped being one in 6.8); hv_core/include/hv_core/limits.h.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from dom0kit.acpi.tables.srat import LocalApicAffinity, LocalX2apicAffinity, MemoryAffinity, Srat
from dom0kit.address import Gsi, Sbdf
from dom0kit.interrupts import Line, Messages, RoutingTable, UseKind
from dom0kit.msi.state import InterruptMode
from dom0kit.plan import Backend
from dom0kit.platform import Platform
from dom0kit.processors import ProcessorState

VECTORS: Final = 256
LAST_APIC_ID: Final = 0xFE
"""Of a processor that entries and messages of 8 bits reach."""


# --- how many there are -----------------------------------------------------------------------------------------------


class VectorLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The vectors of a processor that devices can have."""

    owner: str
    """Who hands them out: ``Xen``, ``Linux 6.1``, ``hv_core``."""
    first: int
    last: int
    """Inclusive."""
    reserved: tuple[int, ...]
    """Between the two, on every processor not for devices; ascending."""
    reserved_on_boot_cpu: tuple[int, ...] = ()
    """On the first processor besides; ascending."""

    @property
    def total(self) -> int:
        """Between first and last, reserved ones with them."""
        return self.last - self.first + 1

    def usable(self, *, boot_cpu: bool) -> int:
        """One bit a vector: those that a processor has for devices."""
        mask = ((1 << self.total) - 1) << self.first
        for vector in (*self.reserved, *(self.reserved_on_boot_cpu if boot_cpu else ())):
            mask &= ~(1 << vector)
        return mask


XEN: Final = VectorLimits(
    owner="Xen",
    first=0x20,
    last=0xEF,
    reserved=(0x22, 0x80, 0x82),
    reserved_on_boot_cpu=tuple(vector for vector in range(0x20, 0x30) if vector != 0x22),
)
"""Less the vectors of moves, of int 0x80, of the PV hypercall gate, and on the first processor of the 8259's."""
XEN_OWN: Final = 0xF0
"""Vectors of Xen's own interrupts begin here: the timer, a serial port, those between processors."""
CORE: Final = VectorLimits(owner="hv_core", first=0x20, last=0xEF, reserved=(0x80,))


def linux(release: str | None) -> VectorLimits:
    """Of a kernel, by its release such as ``6.1.0-56``; where that is not known, of a current one."""
    match = re.match(r"(?a)(\d{1,4})\.(\d{1,4})", release or "")
    version = (int(match[1]), int(match[2])) if match else (1 << 14, 0)
    return VectorLimits(
        owner=f"Linux {match[0]}" if match else "a current Linux",
        first=0x20,
        last=0xEB if version < (6, 10) else 0xEA,
        reserved=(0x20, 0x80) if version < (6, 8) else (0x80,),
    )


def limits(platform: Platform, backend: Backend, *, intercept: bool = True) -> VectorLimits:
    """Of whoever hands out vectors on this machine: the hypervisor, or in direct mode and on Linux dom0's kernel."""
    if backend is Backend.XEN:
        return XEN
    if backend is Backend.LINUX or (backend is Backend.HV_CORE and not intercept):
        return linux(platform.machine.kernel)
    return CORE


# --- processors and policies ------------------------------------------------------------------------------------------


class Cpu(msgspec.Struct, frozen=True):
    """A processor that interrupts can go to."""

    index: int
    """In the order of the MADT, from 0: how hypercalls name it."""
    apic_id: int
    node: int | None
    """Linux's number of its node, by which functions name theirs."""
    linux: int | None
    """Linux's number."""

    @property
    def number(self) -> int:
        """As people name it: Linux's number, where there is one."""
        return self.index if self.linux is None else self.linux


def cpus_of(platform: Platform) -> tuple[Cpu, ...]:
    """The enabled processors in the order of the MADT."""
    known = platform.processors.processors if platform.processors is not None else ()
    enabled = [each for each in known if each.in_madt and each.state is ProcessorState.ENABLED]
    nodes = _linux_nodes(platform)
    return tuple(
        Cpu(index, each.apic_id, nodes.get(each.proximity_domain, each.proximity_domain), each.cpu)
        for index, each in enumerate(enabled)
    )


def _linux_nodes(platform: Platform) -> dict[int | None, int]:
    """Linux's numbers of proximity domains: the order in which the SRAT first names them, those of processors, then
    those of memory (drivers/acpi/numa/srat.c, acpi_numa_init)."""
    srat = next((table.content for table in platform.tables if isinstance(table.content, Srat)), None)
    entries = srat.entries if srat is not None else ()
    known = platform.processors.processors if platform.processors is not None else ()
    of_processor = {each.apic_id: each.proximity_domain for each in known}
    domains: list[int | None] = []
    for entry in entries:
        if isinstance(entry, LocalApicAffinity) and entry.flags.enabled:
            domains.append(of_processor.get(entry.apic_id))
        elif isinstance(entry, LocalX2apicAffinity) and entry.flags.enabled:
            domains.append(of_processor.get(entry.x2apic_id))
    domains += (e.proximity_domain for e in entries if isinstance(e, MemoryAffinity) and e.flags.enabled)
    nodes: dict[int | None, int] = {}
    for domain in domains:
        if domain is not None:
            nodes.setdefault(domain, len(nodes))
    return nodes


def is_remapped(platform: Platform) -> bool:
    """Whether a remapper stands between devices and processors: as the kernel says, else as far as tables can tell."""
    chips = {each.chip for each in (platform.kernel.interrupts if platform.kernel is not None else ())}
    if any(chip.startswith("IR-") for chip in chips):
        return True
    if any(chip in ("IO-APIC", "PCI-MSI") or chip.startswith("PCI-MSI") for chip in chips):
        return False
    return platform.iommu is not None and platform.iommu.kind is not None and platform.iommu.interrupt_remapping


class Strategy(enum.Enum):
    SPREAD = "spread"
    """To the processor with the fewest interrupts."""
    NODE = "node"
    """The same among those of the device's node, as long as there is room."""
    CPU = "cpu"
    """The same among those named."""


class Policy(msgspec.Struct, frozen=True):
    """Which processors interrupts go to."""

    strategy: Strategy = Strategy.SPREAD
    cpus: tuple[int, ...] = ()
    """Of CPU: numbers as people name them, ascending."""

    @classmethod
    def parse(cls, text: str) -> Policy:
        """From ``spread``, ``node`` or ``cpu=0-3,8``; ValueError for anything else."""
        if text in ("spread", "node"):
            return cls(Strategy(text))
        if re.fullmatch(r"(?a)cpu=\d{1,5}(-\d{1,5})?(,\d{1,5}(-\d{1,5})?){0,255}", text) is None:
            raise ValueError(f"{text!r} is no policy: spread, node, or cpu=0-3,8")
        numbers: set[int] = set()
        for part in text.removeprefix("cpu=").split(","):
            first, _, last = part.partition("-")
            numbers.update(range(int(first), int(last or first) + 1))
        if not numbers:
            raise ValueError(f"{text!r} names no processor: a range goes from the lower number to the higher")
        return cls(Strategy.CPU, tuple(sorted(numbers)))

    def __str__(self) -> str:
        return self.strategy.value if self.strategy is not Strategy.CPU else f"cpu={','.join(map(str, self.cpus))}"

    def allowed(self, cpus: Sequence[Cpu]) -> list[Cpu]:
        """Those of `cpus` that it lets interrupts go to. ValueError where it names one that is not there."""
        if self.strategy is not Strategy.CPU:
            return list(cpus)
        missing = sorted(set(self.cpus) - {cpu.number for cpu in cpus})
        if missing:
            raise ValueError(f"there is no processor {missing[0]} that interrupts can go to")
        return [cpu for cpu in cpus if cpu.number in self.cpus]


# --- handing out ------------------------------------------------------------------------------------------------------


class Place(NamedTuple):
    """Where an interrupt goes."""

    cpu: Cpu
    vector: int


_RUNS: Final = (1, 2, 4, 8, 16, 32)
_ALIGNED: Final = {count: sum(1 << vector for vector in range(0, VECTORS, count)) for count in _RUNS}
_SHIFTS: Final = {count: [shift for shift in _RUNS if shift < count] for count in _RUNS}
# The next vector of a processor is in another priority class: old local APICs keep two interrupts of a class (Intel SDM
# volume 3, section 11.8.4). From above, for Linux takes its own from below.
_ORDER: Final = tuple(high << 4 | low for low in range(15, -1, -1) for high in range(15, 1, -1))


class _ByLoad:
    """Processors in the order of their load, the least first; whoever takes vectors says so by `put`.

    Loads only grow, and others may have grown since: a processor that is met with a load it no longer has is put back.
    """

    def __init__(self, positions: Iterable[int], load: list[int]) -> None:
        self._load = load
        self._waiting: dict[int, list[int]] = {}
        self._here: list[int] = []
        self._at = self._level = 0
        for position in positions:
            self.put(position)

    def put(self, position: int) -> None:
        self._waiting.setdefault(self._load[position], []).append(position)

    def get(self) -> int | None:
        """Takes out the one with the least load; None when all are out."""
        while True:
            while self._at < len(self._here):
                position = self._here[self._at]
                self._at += 1
                if self._load[position] == self._level:
                    return position
                self.put(position)
            if not self._waiting:
                return None
            self._level = min(self._waiting)
            self._here, self._at = self._waiting.pop(self._level), 0


class Vectors:
    """The free vectors of processors. No vector of a processor is handed out twice."""

    def __init__(self, cpus: Sequence[Cpu], limits: VectorLimits, taken: Iterable[tuple[int, int]] = ()) -> None:
        """`taken`: (index of the processor, vector) of those that somebody has."""
        self._cpus = list(cpus)
        self._free = [limits.usable(boot_cpu=cpu.index == 0) for cpu in cpus]
        self._load = [0] * len(self._cpus)
        at = {cpu.index: position for position, cpu in enumerate(self._cpus)}
        for index, vector in taken:
            position = at.get(index)
            if position is not None and self._free[position] >> vector & 1:
                self._free[position] ^= 1 << vector
                self._load[position] += 1
        self._next = [0] * len(self._cpus)
        self._nodes = {cpu.node for cpu in self._cpus}
        self._queues: dict[tuple[int | None, int], _ByLoad] = {}

    @property
    def free(self) -> int:
        """How many are left."""
        return sum(mask.bit_count() for mask in self._free)

    def take(self, count: int, node: int | None = None) -> list[Place]:
        """`count` vectors, each of the processor with the fewest interrupts: of this node (None: any) as long as it has
        some, then of others. Fewer where there are no more."""
        got: list[Place] = []
        free, load, following, cpus = self._free, self._load, self._next, self._cpus
        for queue in self._queues_of(node, 1):
            while len(got) < count and (position := queue.get()) is not None:
                mask = free[position]
                if not mask:
                    continue
                at = following[position]
                while not mask >> _ORDER[at] & 1:
                    at += 1
                vector = _ORDER[at]
                following[position] = at + 1
                free[position] = mask ^ 1 << vector
                load[position] += 1
                queue.put(position)
                got.append(Place(cpus[position], vector))
        return got

    def take_run(self, count: int, node: int | None = None) -> list[Place]:
        """`count` (1 to 32, a power of two) vectors of one processor, consecutive and aligned; none where there is no
        such run."""
        for queue in self._queues_of(node, count):
            while (position := queue.get()) is not None:
                starts = self._free[position]
                for shift in _SHIFTS[count]:
                    starts &= starts >> shift
                starts &= _ALIGNED[count]
                if starts:  # else never again: vectors do not come back
                    first = starts.bit_length() - 1
                    self._free[position] ^= ((1 << count) - 1) << first
                    self._load[position] += count
                    queue.put(position)
                    return [Place(self._cpus[position], first + number) for number in range(count)]
        return []

    def _queues_of(self, node: int | None, count: int) -> Iterator[_ByLoad]:
        """Of the node's processors, then of all: those that may have a run of `count` left."""
        for wanted in (node, None) if node is not None and node in self._nodes else (None,):
            key = wanted, count
            if key not in self._queues:
                members = (p for p, cpu in enumerate(self._cpus) if wanted is None or cpu.node == wanted)
                self._queues[key] = _ByLoad(members, self._load)
            yield self._queues[key]


# --- who needs how many -----------------------------------------------------------------------------------------------


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """What one function's messages, or one GSI, need."""

    function: Sbdf | None = None
    gsi: Gsi | None = None
    wants: int
    run: bool = False
    """An aligned run of one processor."""
    node: int | None = None

    @property
    def name(self) -> str:
        return f"GSI {self.gsi}" if self.function is None else str(self.function)


class Grant(msgspec.Struct, frozen=True):
    """What it gets."""

    demand: Demand
    places: tuple[Place, ...]


def shares(demands: Sequence[Demand], capacity: int) -> list[int]:
    """How many each may have, so that all fit `capacity`: lines first, then everybody alike, the small ones in full.

    A function whose messages need a run gets a power of two.
    """
    result = [0] * len(demands)
    functions = []
    for number, demand in enumerate(demands):
        if demand.function is None:
            result[number] = min(demand.wants, capacity)
            capacity -= result[number]
        else:
            functions.append(number)
    low, high = 0, max((demands[number].wants for number in functions), default=0)
    while low < high:
        middle = (low + high + 1) // 2
        if sum(_share(demands[number], middle) for number in functions) <= capacity:
            low = middle
        else:
            high = middle - 1
    for number in functions:
        result[number] = _share(demands[number], low)
        capacity -= result[number]
    for number in functions:
        more = _share(demands[number], low + 1) - result[number]
        if 0 < more <= capacity:
            result[number] += more
            capacity -= more
    return result


def _share(demand: Demand, most: int) -> int:
    count = min(demand.wants, most)
    return 1 << count.bit_length() - 1 if demand.run and count else count


def assign(
    demands: Sequence[Demand], vectors: Vectors, strategy: Strategy = Strategy.SPREAD, keep: int = 0
) -> list[Grant]:
    """Places for all, in the same order; fewer than wanted where there are not enough, `keep` left over for others.

    Runs come first, the largest before the others, while there are such; where there is none left, the half must do.
    """
    wanted = shares(demands, max(vectors.free - keep, 0))
    nodes = strategy is Strategy.NODE
    places: list[list[Place]] = [[] for _ in demands]
    runs = [number for number, demand in enumerate(demands) if demand.run]
    for number in sorted(runs, key=lambda number: -wanted[number]):
        count = wanted[number]
        while count and not places[number]:
            places[number] = vectors.take_run(count, demands[number].node if nodes else None)
            count //= 2
    for number, demand in enumerate(demands):
        if not demand.run:
            places[number] = vectors.take(wanted[number], demand.node if nodes else None)
    return [Grant(demand, tuple(got)) for demand, got in zip(demands, places, strict=True)]


def demands_of(table: RoutingTable, nodes: Mapping[Sbdf, int | None], *, remapped: bool) -> list[Demand]:
    """What a machine needs if every function takes every message that it has, MSI-X before MSI, and the others a GSI.

    A GSI is needed by whoever has no messages.
    """
    capable = {each.function for each in table.messages if each.msi or each.msix}
    demands = [
        Demand(gsi=line.gsi, wants=1)
        for line in table.lines
        if any(user.kind is not UseKind.NMI and user.function not in capable for user in line.users)
    ]
    for each in table.messages:
        wants = each.msix or each.msi
        demands.append(
            Demand(
                function=each.function,
                wants=wants,
                run=not each.msix and wants > 1 and not remapped,
                node=nodes.get(each.function),
            )
        )
    return demands


# --- the budget -------------------------------------------------------------------------------------------------------


class CpuBudget(msgspec.Struct, frozen=True):
    """The vectors of one processor."""

    cpu: Cpu
    usable: int
    """For devices."""
    reserved: int
    used: int
    """Now, as far as it is known where interrupts go."""
    planned: int
    """In the assignment."""

    @property
    def free(self) -> int:
        """Not used now."""
        return max(self.usable - self.used, 0)


class NodeBudget(msgspec.Struct, frozen=True):
    """The processors of one node together."""

    node: int | None
    cpus: int
    usable: int
    used: int
    planned: int
    wanted: int
    """By the functions of this node."""


class Limited(msgspec.Struct, frozen=True):
    """A function that must do with fewer messages than it has, or does now."""

    function: Sbdf
    driver: str | None
    wants: int
    gets: int
    used: int
    """Now."""


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """Who has vectors, who needs them, and how to make them suffice."""

    limits: VectorLimits
    policy: str
    remapped: bool
    cpus: tuple[CpuBudget, ...]
    nodes: tuple[NodeBudget, ...]
    """Ascending; processors without a node last."""
    unreachable: tuple[Cpu, ...]
    """Processors whose APIC id no redirection entry or message can name without a remapper."""
    used: int
    """Interrupts of devices that drivers have now."""
    unplaced: int
    """Of these, such whose processor is not known."""
    wanted: int
    """If every device takes all its messages."""
    grants: tuple[Grant, ...]
    limited: tuple[Limited, ...]
    """Those to limit, and to what; the most wanting first. Empty: everything fits."""
    lost: tuple[Gsi, ...]
    """GSIs for which there is no vector."""

    @property
    def fits(self) -> bool:
        return not self.limited and not self.lost

    @property
    def capacity(self) -> int:
        return sum(each.usable for each in self.cpus)


def budget(platform: Platform, table: RoutingTable, limits: VectorLimits, policy: Policy) -> Budget:
    """The vectors of a machine. ValueError where it has no processors, or the policy names one that is not there."""
    remapped = is_remapped(platform)
    every = cpus_of(platform)
    if not every:
        raise ValueError("nobody says which processors the machine has: a MADT does")
    reachable = [cpu for cpu in every if remapped or cpu.apic_id <= LAST_APIC_ID]
    allowed = policy.allowed(reachable)
    nodes = {function.sbdf: function.numa_node for function in platform.functions}
    demands = demands_of(table, nodes, remapped=remapped)
    grants = assign(demands, Vectors(allowed, limits), policy.strategy)
    planned = dict.fromkeys((cpu.index for cpu in every), 0)
    for grant in grants:
        for place in grant.places:
            planned[place.cpu.index] += 1
    used, total = in_use(table, every)
    cpus = tuple(
        CpuBudget(cpu, usable, limits.total - usable, used.get(cpu.index, 0), planned[cpu.index])
        for cpu in allowed
        for usable in (limits.usable(boot_cpu=cpu.index == 0).bit_count(),)
    )
    by_function = {each.function: each for each in table.messages}
    limited = [
        Limited(
            demand.function,
            by_function[demand.function].driver,
            demand.wants,
            len(grant.places),
            by_function[demand.function].used,
        )
        for grant in grants
        if (demand := grant.demand).function is not None and len(grant.places) < demand.wants
    ]
    return Budget(
        limits=limits,
        policy=str(policy),
        remapped=remapped,
        cpus=cpus,
        nodes=_nodes(cpus, demands),
        unreachable=tuple(cpu for cpu in every if cpu not in reachable),
        used=total,
        unplaced=total - sum(used.values()),
        wanted=sum(demand.wants for demand in demands),
        grants=tuple(grants),
        limited=tuple(sorted(limited, key=lambda each: (each.gets - each.wants, each.function))),
        lost=tuple(grant.demand.gsi for grant in grants if grant.demand.gsi is not None and not grant.places),
    )


def _nodes(cpus: Sequence[CpuBudget], demands: Sequence[Demand]) -> tuple[NodeBudget, ...]:
    wanted: dict[int | None, int] = {}
    for demand in demands:
        wanted[demand.node] = wanted.get(demand.node, 0) + demand.wants
    found: dict[int | None, list[CpuBudget]] = {}
    for each in cpus:
        found.setdefault(each.cpu.node, []).append(each)
    return tuple(
        NodeBudget(
            node,
            len(members),
            sum(each.usable for each in members),
            sum(each.used for each in members),
            sum(each.planned for each in members),
            wanted.get(node, 0),
        )
        for node, members in sorted(found.items(), key=lambda item: (item[0] is None, item[0] or 0))
    )


def in_use(table: RoutingTable, cpus: Sequence[Cpu]) -> tuple[dict[int, int], int]:
    """Vectors in use by index of the processor, as far as it is known, and how many interrupts there are."""
    by_number = {cpu.linux: cpu.index for cpu in cpus if cpu.linux is not None}
    total = 0
    used: dict[int, int] = {}
    for line in table.lines:
        if line.requested_by:
            total += 1
            _count(used, by_number, _cpus_of_line(line))
    for messages in table.messages:
        total += messages.used
        for where in _cpus_of_messages(messages):
            _count(used, by_number, where)
    for interrupt in table.elsewhere:
        if not interrupt.is_event_channel:
            total += 1
            _count(used, by_number, None if interrupt.cpu is None else (interrupt.cpu,))
    return used, total


def _count(used: dict[int, int], by_number: Mapping[int, int], where: Sequence[int] | None) -> None:
    """A logical destination takes the vector on each of its processors; it is counted on the first."""
    if where and where[0] in by_number:
        index = by_number[where[0]]
        used[index] = used.get(index, 0) + 1


def _cpus_of_line(line: Line) -> Sequence[int] | None:
    if line.cpu is not None:
        return (line.cpu,)
    return line.target.cpus if line.target is not None else None


def _cpus_of_messages(messages: Messages) -> Iterator[Sequence[int]]:
    if messages.mode not in (InterruptMode.MSI, InterruptMode.MSIX):
        return
    if messages.cpus:
        yield from ((cpu,) for cpu in messages.cpus)
    else:
        yield from (target.cpus for target in messages.targets[: messages.used] if not target.masked)
