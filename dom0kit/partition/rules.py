# SPDX-License-Identifier: MIT
"""What can be wrong with giving devices to domains: the rules, and how each is judged.

A judge yields conflicts of one case (who has what, on which ground). Errors keep a plan from being made, the others
are told. Each judge looks at given functions and what is beside them, never at the whole machine.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Final

import msgspec

from dom0kit.address import Sbdf
from dom0kit.finding import Finding, Rule, Severity, rule
from dom0kit.iommu.facts import ReservedRegion
from dom0kit.msi.pages import SHARED as MESSAGE_SHARES
from dom0kit.partition.ground import PAGE, Ground, Together, parts
from dom0kit.partition.identity import Found, written
from dom0kit.partition.model import Domain, Partition, Policy
from dom0kit.pci import quirks
from dom0kit.pci.capabilities.ats import AddressTranslationServices
from dom0kit.pci.capabilities.express import Express
from dom0kit.pci.capabilities.pri import PageRequestInterface
from dom0kit.plan import Backend

DOM0: Final = -1
"""The owner of what no domain of the file has."""
_NAMED: Final = 6
_RELAXABLE: Final = (0x0C03, 0x0300, 0x0302, 0x0380)
"""USB controllers and displays: firmware uses their reserved memory only before an operating system runs."""


class Conflict(msgspec.Struct, frozen=True, kw_only=True):
    """A rule that a partition breaks, with two ways out."""

    finding: Finding
    """Rule, severity, place, and the evidence."""
    domains: tuple[str, ...]
    """Whom it concerns."""
    ways: tuple[str, ...]
    """What would put it right; each alone does."""
    line: int | None = None
    """Of the partition's file."""

    @property
    def is_error(self) -> bool:
        return self.finding.severity is Severity.ERROR


class Case:
    """Who has what."""

    def __init__(
        self,
        ground: Ground,
        partition: Partition,
        given: Sequence[Sequence[tuple[Sbdf, int | None]]],
        *,
        troubles: Sequence[tuple[int, int, Found]] = (),
        lines: Callable[[int, int | None], int | None] = lambda domain, device: None,
    ) -> None:
        """`given`: by domain, functions and their places in its list. `troubles`: (domain, device) not found."""
        self.ground = ground
        self.partition = partition
        self.troubles = troubles
        self._lines = lines
        self.owner: dict[Sbdf, int] = {}
        self.twice: list[tuple[Sbdf, int, int]] = []
        self._at: dict[Sbdf, int | None] = {}
        for number, functions in enumerate(given):
            for sbdf, device in functions:
                if sbdf in self.owner:
                    self.twice.append((sbdf, self.owner[sbdf], number))
                else:
                    self.owner[sbdf], self._at[sbdf] = number, device
        self.of: list[list[Sbdf]] = [[] for _ in partition.domain]
        for sbdf, number in sorted(self.owner.items()):
            self.of[number].append(sbdf)

    def domain(self, number: int) -> Domain:
        return self.partition.domain[number]

    def policy(self, number: int) -> Policy:
        return self.domain(number).policy

    def who(self, number: int) -> str:
        return "dom0" if number == DOM0 else self.domain(number).name

    def owner_of(self, sbdf: Sbdf) -> int:
        return self.owner.get(sbdf, DOM0)

    def conflict(
        self,
        rule: Rule,
        where: str,
        message: str,
        *ways: str,
        domains: Iterable[int] = (),
        about: Sbdf | None = None,
        severity: Severity | None = None,
        at: tuple[int, int | None] | None = None,
    ) -> Conflict:
        finding = rule.at(where, message)
        if severity is not None:
            finding = msgspec.structs.replace(finding, severity=severity)
        concerned = sorted(set(domains) if about is None else {*domains, self.owner_of(about)})
        if at is None and about is not None and about in self.owner:
            at = (self.owner[about], self._at[about])
        line = None if at is None else self._lines(*at)
        return Conflict(finding=finding, domains=tuple(self.who(number) for number in concerned), ways=ways, line=line)

    def trusts(self, owners: Iterable[int]) -> Severity | None:
        """WARNING where every domain concerned may do without an IOMMU; None: as the rule says."""
        domains = [number for number in owners if number != DOM0]
        return Severity.WARNING if all(not self.policy(number).require_iommu for number in domains) else None

    @cached_property
    def touched(self) -> list[Together]:
        """Isolation groups of given functions, in the order of these."""
        groups = self.ground.groups
        found = (groups[sbdf] for sbdf in self.owner if sbdf in groups)
        return list({id(group): group for group in found}.values())  # to hash one costs as much as it has members


def _pci(sbdf: Sbdf) -> str:
    return f"pci:{sbdf}"


def _named(items: Iterable[object], most: int = _NAMED) -> str:
    texts = [str(item) for item in items]
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


Judge = Callable[[Case], Iterator[Conflict]]
JUDGES: Final[list[Judge]] = []
"""In the order in which conflicts are told."""


def _judge(judge: Judge) -> Judge:
    JUDGES.append(judge)
    return judge


# --- devices of the file ----------------------------------------------------------------------------------------------

MISSING: Final = rule(
    "partition.device-missing",
    Severity.ERROR,
    title="a device of the file is not in the machine",
    meaning="Nothing is where the file says, and the file does not say enough to find it elsewhere. The card was taken "
    "out, moved to another slot, or is switched off.",
    advice="Put it back, write where it is now, take it out of the file, or say optional = true of it.",
    specification="dom0kit: a device is its way from the root, ids, class and serial number",
)
MISMATCH: Final = rule(
    "partition.device-mismatch",
    Severity.ERROR,
    title="another device is where the file says",
    meaning="The slot holds a device with other ids, another class or another serial number than the file has. Giving "
    "away whatever is in a slot gives a domain what nobody decided.",
    advice="Look which card is where, and write the one that is meant.",
    specification="dom0kit: a device is its way from the root, ids, class and serial number",
)
AMBIGUOUS: Final = rule(
    "partition.device-ambiguous",
    Severity.ERROR,
    title="several devices fit the file's words",
    meaning="The file names a device by ids only, and the machine has several such. Which of them is meant would "
    "depend on the order in which they are found.",
    advice="Add the path, or the serial number.",
    specification="dom0kit: a device is its way from the root, ids, class and serial number",
)
TWICE: Final = rule(
    "partition.device-twice",
    Severity.ERROR,
    title="one function in the file twice",
    meaning="A function belongs to one domain, and stands in the file once.",
    advice="Take it out at one of the places.",
    specification="dom0kit: a function has one owner",
)
BY_ADDRESS: Final = rule(
    "partition.address-only",
    Severity.INFO,
    title="a device named by an address that can change",
    meaning="Bus numbers are given anew whenever a card, or a function of one, comes or goes; the address then is "
    "another device's. The plan is made for the device that is there now, and refuses to be applied to another.",
    advice="Write the path, ids and class instead.",
    specification="PCI-to-PCI Bridge 1.2, section 3.2.5: bus numbers are software's choice",
)


@_judge
def devices(case: Case) -> Iterator[Conflict]:
    rules = {"missing": MISSING, "mismatch": MISMATCH, "ambiguous": AMBIGUOUS}
    finder = case.ground.finder
    for number, place, found in case.troubles:
        name = case.who(number)
        optional = found.kind == "missing" and case.domain(number).device[place].optional
        if found.elsewhere:
            known = _named(written(finder.identity(sbdf)) for sbdf in found.elsewhere[:2])
            first = f"write where it is: {known}"
        else:
            first = "put the card back where the file says, or correct what the file says of it"
        yield case.conflict(
            rules[found.kind],
            f"domain:{name}",
            f"device {place + 1} of {name}: {found.trouble}",
            first,
            f"take the device out of {name}" if optional else f"take it out of {name}, or say optional = true",
            domains=[number],
            at=(number, place),
            severity=Severity.INFO if optional else None,
        )
    for sbdf, first_owner, second in case.twice:
        names = case.who(first_owner), case.who(second)
        yield case.conflict(
            TWICE,
            _pci(sbdf),
            f"{case.ground.name(sbdf)} is listed for {names[0]} and again for {names[1]}",
            f"take it out of {names[1]}",
            f"take it out of {names[0]}" if names[0] != names[1] else "remove one of the two entries",
            domains=[first_owner, second],
            about=sbdf,
        )
    for number, domain in enumerate(case.partition.domain):
        for place, device in enumerate(domain.device):
            if device.sbdf is not None and device.path is None and device.id is None:
                sbdf = Sbdf.parse(device.sbdf)
                if case.owner_of(sbdf) == number:
                    yield case.conflict(
                        BY_ADDRESS,
                        _pci(sbdf),
                        f"{case.ground.name(sbdf)} is named by its address alone",
                        f"write {written(finder.identity(sbdf))}",
                        f'add its id = "{finder.identity(sbdf).id}", so that another device there is noticed',
                        at=(number, place),
                        domains=[number],
                    )


# --- what stays -------------------------------------------------------------------------------------------------------

STAYS: Final = rule(
    "partition.function-stays",
    Severity.ERROR,
    title="a function that only dom0 can have",
    meaning="Bridges carry the traffic of everything behind them, and interrupt controllers, IOMMUs and timers serve "
    "the whole machine. Whoever has one of them has more than a device.",
    advice="Give away what is behind the bridge instead.",
    specification="Linux drivers/vfio/pci/vfio_pci_core.c takes type 0 headers only; Xen tools, libxl_pci.c likewise",
)
NEEDED: Final = rule(
    "partition.dom0-needs",
    Severity.ERROR,
    title="a device that dom0 runs on",
    meaning="The running system has its disk, its network or its console there. Taking the device away takes the "
    "machine away from whoever administers it.",
    advice="Move what dom0 needs to another device first.",
    specification="Linux /proc/self/mountinfo, /proc/net/route, /sys/class/tty/console/active",
)
PHYSICAL: Final = rule(
    "partition.physical-function",
    Severity.ERROR,
    title="a physical function that has virtual ones",
    meaning="The physical function creates, configures and removes its virtual ones. Taking it from its driver removes "
    "them, whoever has them; and a domain that has it can take their devices from other domains at any time.",
    advice="Leave the physical function in dom0, or turn its virtual functions off first.",
    specification="PCI Express Base 6.0, section 9.2; Linux drivers/pci/iov.c",
)


@_judge
def staying(case: Case) -> Iterator[Conflict]:
    ground = case.ground
    for sbdf in case.owner:
        what = ground.stays(sbdf)
        if what is not None:
            behind = [str(each) for each in ground.topology.behind(sbdf) if ground.stays(each) is None]
            yield case.conflict(
                STAYS,
                _pci(sbdf),
                f"{ground.name(sbdf)} is {what}",
                f"take it out of {case.who(case.owner[sbdf])}",
                f"give away what is behind it: {_named(behind)}" if behind else "give away another device",
                about=sbdf,
            )
        for use in (ground.needs or {}).get(sbdf, ())[:2]:
            yield case.conflict(
                NEEDED,
                _pci(sbdf),
                f"{ground.name(sbdf)} {use}",
                f"take it out of {case.who(case.owner[sbdf])}",
                "move that to a device that dom0 keeps, and make the plan then",
                about=sbdf,
            )
    for of in ground.topology.virtual_functions:
        if of.physical in case.owner and of.present:
            whose = _named(f"{sbdf} ({case.who(case.owner_of(sbdf))})" for sbdf in of.present)
            yield case.conflict(
                PHYSICAL,
                _pci(of.physical),
                f"{ground.name(of.physical)} is {case.who(case.owner[of.physical])}'s, and has {whose}",
                f"leave {of.physical} with dom0, and give away its virtual functions",
                f"turn these off first: echo 0 > /sys/bus/pci/devices/{of.physical}/sriov_numvfs",
                domains=(case.owner_of(sbdf) for sbdf in of.present),
                about=of.physical,
            )


# --- isolation --------------------------------------------------------------------------------------------------------

GROUP: Final = rule(
    "partition.group-split",
    Severity.ERROR,
    title="an isolation group given to several domains",
    meaning="The IOMMU cannot keep functions of one group apart: their requests carry one id, or reach each other "
    "without passing it. A domain with one of them can read and write the memory of whoever has another. Linux (VFIO) "
    "refuses a group of which dom0 has a part.",
    advice="Give the whole group to one domain, or move the card below a port with ACS.",
    specification="Linux drivers/iommu/iommu.c (pci_device_group), drivers/vfio/vfio_main.c; PCI Express Base 6.0, "
    "section 6.12",
)
PEERS: Final = rule(
    "partition.peer-to-peer",
    Severity.ERROR,
    title="requests that reach another domain's device below a switch",
    meaning="A port without ACS hands requests from below directly to the ports beside it: they reach what is there "
    "without passing the IOMMU. Linux puts the two into different groups all the same, because it asks only the ports "
    "between a function and the root.",
    advice="Give what is behind both ports to one domain, or use slots that are not behind this switch.",
    specification="PCI Express Base 6.0, sections 6.12.1.1 and 6.12.3",
)
NO_IOMMU: Final = rule(
    "partition.no-iommu",
    Severity.ERROR,
    title="devices given away without an IOMMU",
    meaning="Nothing confines what a device reads and writes: a domain with a device has the whole machine's memory.",
    advice="Turn on VT-d or AMD-Vi in the firmware's setup; or say in the file that the domain is trusted.",
    specification="Intel VT-d 4.1, section 1; AMD IOMMU 3.09, section 1",
)
UNCOVERED: Final = rule(
    "partition.iommu-uncovered",
    Severity.ERROR,
    title="a device that no IOMMU serves",
    meaning="The machine has IOMMUs, but no scope of their tables covers this function: its requests are not "
    "translated, and reach all memory.",
    advice="Use another slot, or update the firmware.",
    specification="Intel VT-d 4.1, section 8.3; AMD IOMMU 3.09, section 5.2.2",
)
PHANTOM: Final = rule(
    "partition.phantom-functions",
    Severity.WARNING,
    title="requests under function numbers that are not there",
    meaning="Phantom functions are on: the device's requests carry the ids of functions that it does not have. Linux "
    "gives these ids to nobody, so such requests fail; Xen maps them, if it is told (pci-phantom=).",
    advice="Turn phantom functions off (bit 9 of Device Control); no driver needs them.",
    specification="PCI Express Base 6.0, section 7.5.3.4; Xen, drivers/passthrough/pci.c",
)
ATS: Final = rule(
    "partition.translated-requests",
    Severity.WARNING,
    title="a device whose requests the IOMMU does not check",
    meaning="With ATS on, a device asks for translations, keeps them, and then sends requests that the IOMMU passes as "
    "they are. A device that lies, or whose firmware its domain can replace, reaches all memory.",
    advice="Turn ATS off for it (Linux: pci=noats; Xen: ats=off, the default), or trust the device's maker.",
    specification="PCI Express Base 6.0, section 10.1.1; Linux drivers/pci/ats.c",
)


@_judge
def isolation(case: Case) -> Iterator[Conflict]:
    ground = case.ground
    for group in case.touched:
        owners: dict[int, list[Sbdf]] = defaultdict(list)
        for sbdf in group.members:
            owners[case.owner_of(sbdf)].append(sbdf)
        if len(owners) > 1:
            yield _split(case, group, owners)
    yield from _peers(case)
    known = ground.knows_iommu
    for number, functions in enumerate(case.of):
        iommu = ground.platform.iommu
        if functions and known and iommu is not None and iommu.kind is None:
            yield case.conflict(
                NO_IOMMU,
                f"domain:{case.who(number)}",
                f"the machine's tables have neither DMAR nor IVRS, and {case.who(number)} gets {_named(functions)}",
                "turn on VT-d or AMD-Vi in the firmware's setup",
                f"say that {case.who(number)} is trusted: require_iommu = false in its policy",
                domains=[number],
                severity=case.trusts([number]),
                at=(number, None),
            )
        for sbdf in functions:
            if sbdf in ground.uncovered:
                yield case.conflict(
                    UNCOVERED,
                    _pci(sbdf),
                    f"{ground.name(sbdf)} is in the scope of none of the {len(iommu.units) if iommu else 0} units",
                    "put the card into a slot that a unit serves, or update the firmware",
                    f"say that {case.who(number)} is trusted: require_iommu = false in its policy",
                    about=sbdf,
                    severity=case.trusts([number]),
                )
            yield from _requests(case, sbdf)


def _split(case: Case, group: Together, owners: Mapping[int, Sequence[Sbdf]]) -> Conflict:
    ground = case.ground
    parts_ = "; ".join(f"{case.who(number)} has {_named(of)}" for number, of in sorted(owners.items()))
    why = [
        f"{reason.function} with {reason.with_}: {reason.cause.value}: {reason.detail}"
        + ("" if reason.certain else " (perhaps)")
        for reason in group.reasons
    ]
    staying_ = [f"{sbdf} ({what})" for sbdf in group.members if (what := ground.stays(sbdf)) is not None]
    given = [number for number in owners if number != DOM0]
    largest = max(given, key=lambda number: (len(owners[number]), -number))
    missing = [sbdf for sbdf in group.members if case.owner_of(sbdf) != largest]
    if staying_:
        first = f"leave all of it with dom0: {_named(staying_)} cannot be given away"
    else:
        first = f"give the rest to {case.who(largest)}, too: {_named(missing)}"
    return case.conflict(
        GROUP,
        _pci(group.members[0]),
        f"{group.name} is one: {parts_}" + (f" ({_named(why, 2)})" if why else ""),
        first,
        "move the card to a slot below a port with ACS, or leave the whole group with dom0",
        domains=owners,
        about=owners[largest][0],
        severity=case.trusts(owners),
    )


def _peers(case: Case) -> Iterator[Conflict]:
    ground = case.ground
    turning = dict.fromkeys(
        each for sbdf in case.owner for each in ground.turns_above.get(sbdf, ()) if ground.sends(sbdf)
    )
    for each in turning:
        sources, targets = ground.reached(each)
        senders: dict[int, Sbdf] = {}
        for sbdf in sources:
            senders.setdefault(case.owner_of(sbdf), sbdf)
        pair = next(
            (
                (source, target)
                for target in targets
                for owner, source in senders.items()
                if owner != case.owner_of(target) and ground.groups.get(source) != ground.groups.get(target)
            ),
            None,
        )
        if pair is None:
            continue
        source, target = pair
        owners = {case.owner_of(source), case.owner_of(target)}
        about = source if case.owner_of(source) != DOM0 else target
        perhaps = "" if each.certain else ", as far as could be read"
        yield case.conflict(
            PEERS,
            _pci(each.port),
            f"{each.port} {each.detail}{perhaps}: requests of {source} ({case.who(case.owner_of(source))}) reach "
            f"{target} ({case.who(case.owner_of(target))}) without passing the IOMMU",
            f"give what is behind {each.port} and behind {_named(each.beside)} to one domain",
            "put one of the cards into a slot that is not behind this switch, or behind ports with ACS",
            domains=owners,
            about=about,
            severity=case.trusts(owners),
        )


def _requests(case: Case, sbdf: Sbdf) -> Iterator[Conflict]:
    ground = case.ground
    for capability in ground.functions[sbdf].capabilities:
        if isinstance(capability, Express) and capability.device.phantom_functions_enabled:
            yield case.conflict(
                PHANTOM,
                _pci(sbdf),
                f"{ground.name(sbdf)} has phantom functions enabled",
                "unload its driver, which turned them on, and boot again",
                "leave it with dom0",
                about=sbdf,
            )
        elif isinstance(capability, AddressTranslationServices | PageRequestInterface) and capability.enabled:
            is_ats = isinstance(capability, AddressTranslationServices)
            what = "address translation services (ATS)" if is_ats else "page requests (PRI)"
            yield case.conflict(
                ATS,
                _pci(sbdf),
                f"{ground.name(sbdf)} has {what} enabled",
                "boot with pci=noats (Linux) or ats=off (Xen)",
                "leave it with dom0, or trust its maker",
                about=sbdf,
            )


# --- reserved memory --------------------------------------------------------------------------------------------------

RESERVED: Final = rule(
    "partition.reserved-memory",
    Severity.ERROR,
    title="a device that firmware reserves memory for",
    meaning="An RMRR or IVMD names the function: firmware may have it read and write that memory behind everybody's "
    "back. In a domain the memory is not what it was, and what firmware does then is not known. Linux refuses all but "
    "USB controllers and displays; Xen refuses unless told to relax.",
    advice="Look in the firmware's setup for what uses it (remote console, USB legacy support) and turn that off.",
    specification="Intel VT-d 4.1, section 8.4; Linux drivers/iommu/intel/iommu.c (device_rmrr_is_relaxable); Xen, "
    "docs/misc/xen-command-line (rdm)",
)
RESERVED_SHARED: Final = rule(
    "partition.reserved-memory-shared",
    Severity.ERROR,
    title="reserved memory of several domains' devices",
    meaning="One RMRR or IVMD names functions of several domains. The same memory stays mapped for all of them: they "
    "can talk to, and harm, each other through it.",
    advice="Give all functions of the region to one domain.",
    specification="Intel VT-d 4.1, section 8.4; Xen, drivers/passthrough/vtd/iommu.c",
)


@_judge
def memory(case: Case) -> Iterator[Conflict]:
    ground = case.ground
    shared: dict[int, ReservedRegion] = {}
    for sbdf, number in case.owner.items():
        function, policy = ground.functions[sbdf], case.policy(number)
        for region in ground.regions.get(sbdf, ()):
            shared[id(region)] = region
            if region.all_functions:
                continue
            relaxable = function.class_code >> 8 in _RELAXABLE and ground.backend is Backend.LINUX
            relaxed = relaxable or policy.relaxed_rmrr is not None
            why = f", relaxed: {policy.relaxed_rmrr}" if policy.relaxed_rmrr is not None else ""
            yield case.conflict(
                RESERVED,
                _pci(sbdf),
                f"{ground.name(sbdf)} is named by the {region.source.value} {region.base:#x}-{region.limit:#x}{why}",
                "turn off in the firmware's setup what uses the device, or leave it with dom0",
                f'accept it with a reason: relaxed_rmrr = "..." in the policy of {case.who(number)}',
                about=sbdf,
                severity=Severity.INFO if relaxed else case.trusts([number]),
            )
    for region in shared.values():
        owners = {case.owner_of(sbdf) for sbdf in region.functions if sbdf in ground.functions and ground.sends(sbdf)}
        if len(owners) > 1 and not region.all_functions:
            given = [number for number in owners if number != DOM0]
            relaxed = all(case.policy(number).relaxed_rmrr is not None for number in given)
            first = next(sbdf for sbdf in region.functions if case.owner_of(sbdf) in given)
            yield case.conflict(
                RESERVED_SHARED,
                _pci(first),
                f"the {region.source.value} {region.base:#x}-{region.limit:#x} is for "
                f"{_named(f'{sbdf} ({case.who(case.owner_of(sbdf))})' for sbdf in region.functions)}",
                "give all of these to one domain",
                "leave them with dom0, or accept it with a reason: relaxed_rmrr in the policy of each",
                domains=owners,
                about=first,
                severity=Severity.WARNING if relaxed else case.trusts(owners),
            )


# --- interrupts -------------------------------------------------------------------------------------------------------

SHARED_GSI: Final = rule(
    "partition.gsi-shared",
    Severity.ERROR,
    title="an interrupt line of devices in different domains",
    meaning="The pins of several functions lead to one level-triggered GSI. It stays asserted until every device that "
    "asserts it is served, so each domain waits for the others; one that does not answer stops them all. Xen refuses "
    "to bind such a pIRQ twice.",
    advice="Use MSI for all but one domain's functions, move a card to another slot, or give both to one domain.",
    specification="Intel 82093AA, section 3.4.2; Xen, arch/x86/irq.c (pirq_guest_bind)",
)
UNMASKABLE: Final = rule(
    "partition.intx-masking",
    Severity.WARNING,
    title="a pin that cannot be silenced on a shared line",
    meaning="The device is known to ignore the Interrupt Disable bit, or not to tell by its status bit that it "
    "interrupted. Whoever hands it to a guest has to mask the whole line until the guest has served it: VFIO refuses "
    "where anybody else uses the line, even of the same domain.",
    advice="Have the guest's driver use MSI, or move a card so that its pin leads to a GSI of its own.",
    specification="PCI Local Bus 3.0, sections 6.2.2 and 6.2.3; Linux drivers/vfio/pci/vfio_pci_core.c (nointxmask)",
)
SPOOFED: Final = rule(
    "partition.interrupts-not-remapped",
    Severity.WARNING,
    title="messages that no remapper checks",
    meaning="Without interrupt remapping whatever a device writes to 0xFEExxxxx is an interrupt: a domain can have its "
    "device send any vector to any processor. VFIO refuses unless allow_unsafe_interrupts is set.",
    advice="Turn on interrupt remapping (firmware's setup; Linux: no intremap=off), or trust the domain.",
    specification="Intel VT-d 4.1, section 5.1; Linux drivers/vfio/vfio_iommu_type1.c",
)
VECTORS: Final = rule(
    "partition.vectors",
    Severity.WARNING,
    title="more interrupts than a domain may have",
    meaning="The devices can use more messages than the domain's limit. Drivers of NVMe disks and network cards take "
    "one for each processor if they get them; one that gets too few works with fewer queues, or not at all.",
    advice="Raise the limit, or have the domain's driver use fewer queues.",
    specification="Xen, docs/man/xl.conf and xen-command-line (extra_guest_irqs)",
)
VECTORS_ALL: Final = rule(
    "partition.vectors-machine",
    Severity.WARNING,
    title="more interrupts than the machine has vectors",
    meaning="The devices of all domains together can use more messages than all processors have vectors. Who comes "
    "last gets none.",
    advice="Limit domains with vectors in their policy; dom0kit irq budget says to what.",
    specification="Xen, xen/arch/x86/include/asm/irq-vectors.h; Linux, arch/x86/include/asm/irq_vectors.h",
)


@_judge
def interrupts(case: Case) -> Iterator[Conflict]:
    ground = case.ground
    lines = dict.fromkeys(ground.lines[sbdf].gsi for sbdf in case.owner if sbdf in ground.lines)
    by_gsi = {ground.lines[sbdf].gsi: ground.lines[sbdf] for sbdf in case.owner if sbdf in ground.lines}
    for gsi in lines:
        owners: dict[int, list[Sbdf]] = defaultdict(list)
        for sbdf in by_gsi[gsi].functions:
            owners[case.owner_of(sbdf)].append(sbdf)
        if len(owners) > 1:
            yield from _shared(case, gsi, owners)
    masking = quirks.broken_masking()
    for sbdf in case.owner:
        known = masking.of(ground.functions[sbdf])
        others = [each for each in ground.lines[sbdf].functions if each != sbdf] if sbdf in ground.lines else []
        if known and others:
            yield case.conflict(
                UNMASKABLE,
                _pci(sbdf),
                f"{ground.name(sbdf)}, {known[0].about}, shares GSI {ground.lines[sbdf].gsi} with {_named(others)}",
                "have the guest's driver use MSI" + (", which it can" if not ground.needs_line(sbdf) else ""),
                "move one card to a slot whose pin leads to another GSI",
                about=sbdf,
            )
    iommu = ground.platform.iommu
    if any(case.of) and iommu is not None and iommu.kind is not None and not ground.remapped:
        off = (
            "the tables offer it, and the kernel does not use it" if iommu.interrupt_remapping else "the tables say so"
        )
        yield case.conflict(
            SPOOFED,
            "iommu",
            f"interrupts are not remapped: {off}",
            "turn on interrupt remapping, in the firmware's setup or on the kernel's command line",
            "trust the domains (VFIO: allow_unsafe_interrupts=1)",
            domains=[number for number, functions in enumerate(case.of) if functions],
        )
    yield from _budget(case)


def _shared(case: Case, gsi: int, owners: Mapping[int, Sequence[Sbdf]]) -> Iterator[Conflict]:
    """Domains whose functions have nothing but the line depend on it; if there is one at most, the others can use
    messages and let it alone."""
    ground = case.ground
    depending = [number for number, of in owners.items() if any(ground.needs_line(sbdf) for sbdf in of)]
    given = [number for number in owners if number != DOM0]
    allowed = all(case.policy(number).allow_shared_intx for number in given)
    severity = None
    if len(depending) < 2:
        severity = Severity.INFO
    elif allowed:
        severity = Severity.WARNING
    who = "; ".join(
        f"{case.who(number)} has {_named(f'{sbdf}' + _ways_to_interrupt(ground, sbdf) for sbdf in of)}"
        for number, of in sorted(owners.items())
    )
    able = [sbdf for of in owners.values() for sbdf in of if not ground.needs_line(sbdf)]
    first = "give all of them to one domain"
    if len(depending) < 2:
        first = f"have their drivers use MSI, which these can: {_named(able)}"
    yield case.conflict(
        SHARED_GSI,
        f"gsi:{gsi}",
        f"GSI {gsi} is shared by domains: {who}",
        first,
        "move one card to a slot whose pin leads to another GSI, or say allow_shared_intx = true in the policies",
        domains=owners,
        about=owners[given[0]][0],
        severity=severity,
    )


def _ways_to_interrupt(ground: Ground, sbdf: Sbdf) -> str:
    return "" if ground.needs_line(sbdf) else " (can use MSI)"


def _budget(case: Case) -> Iterator[Conflict]:
    ground = case.ground
    total = 0
    for number, functions in enumerate(case.of):
        wanted = sum(ground.interrupts(sbdf) for sbdf in functions)
        limit = case.policy(number).vectors
        total += wanted if limit is None else min(wanted, limit)
        if limit is not None and wanted > limit:
            most = sorted(functions, key=lambda sbdf: (-ground.interrupts(sbdf), sbdf))
            yield case.conflict(
                VECTORS,
                f"domain:{case.who(number)}",
                f"{case.who(number)} may have {limit}, and its devices can use {wanted}: "
                f"{_named(f'{sbdf} {ground.interrupts(sbdf)}' for sbdf in most)}",
                f"raise the limit: vectors = {wanted}",
                f"have the driver of {most[0]} use fewer queues, or give the device to another domain",
                domains=[number],
                at=(number, None),
            )
    if ground.cpus and any(case.of):
        capacity, owner = ground.vectors
        if total > capacity:
            yield case.conflict(
                VECTORS_ALL,
                "machine",
                f"the domains' devices can use {total} interrupts, and {ground.cpus} processors have {capacity} "
                f"vectors for devices ({owner})",
                "limit domains: vectors = ... in their policies",
                "give fewer devices away",
                domains=[number for number, functions in enumerate(case.of) if functions],
            )


# --- pages ------------------------------------------------------------------------------------------------------------

BAR_SHARED: Final = rule(
    "partition.page-shared",
    Severity.ERROR,
    title="one page of device memory for two domains",
    meaning="A page is the least that a domain can be given of the physical address space: whoever gets the one "
    "device's registers in it gets the other's, too.",
    advice="Have BARs aligned to pages (Linux: pci=resource_alignment=), or give both devices to one domain.",
    specification="Linux drivers/vfio/pci/vfio_pci_core.c (vfio_pci_probe_mmaps)",
)
BAR_SMALL: Final = rule(
    "partition.bar-below-page",
    Severity.INFO,
    title="device memory that is less than a page",
    meaning="The BAR is smaller than a page, or not aligned to one. VFIO maps it only where it can reserve the rest of "
    "the page, else every access of the domain is emulated; Xen maps the whole page.",
    advice="Nothing if it is fast enough; else have BARs aligned (Linux: pci=resource_alignment=).",
    specification="Linux drivers/vfio/pci/vfio_pci_core.c (vfio_pci_probe_mmaps)",
)
MSIX_PAGE: Final = rule(
    "partition.msix-page",
    Severity.WARNING,
    title="an MSI-X table that shares a page with registers",
    meaning="A hypervisor keeps the page of an MSI-X table or its pending bits to itself, or traps every access to it. "
    "Registers in the same page are then slow, or reach the domain together with the power to write messages.",
    advice="Rely on interrupt remapping, or give the device only to a domain that you trust.",
    specification="PCI Local Bus 3.0, section 6.8.2",
)
SHADOW_ROM: Final = rule(
    "partition.rom-shadow",
    Severity.INFO,
    title="a display whose ROM is firmware's copy",
    meaning="What reads as the expansion ROM is the copy that firmware made and changed while it initialised the boot "
    "display. A domain's firmware that runs it again may fail.",
    advice="Give the domain a ROM file of the maker, or none (QEMU: romfile=; Xen: rombar).",
    specification="Linux drivers/pci/quirks.c, arch/x86/pci/fixup.c (IORESOURCE_ROM_SHADOW)",
)


@_judge
def device_pages(case: Case) -> Iterator[Conflict]:
    ground = case.ground
    seen: set[int] = set()
    for sbdf in case.owner:
        function = ground.functions[sbdf]
        small = []
        for bar in function.bars:
            for page in parts(bar):
                small.append(f"BAR {bar.index} ({bar.size:#x} bytes at {bar.address:#x})")
                if page in seen:
                    continue
                seen.add(page)
                there = ground.part_pages.get(page, ())
                owners = {case.owner_of(owner) for owner, _ in there}
                if len(owners) > 1:
                    what = [f"BAR {each.index} of {owner} ({case.who(case.owner_of(owner))})" for owner, each in there]
                    yield case.conflict(
                        BAR_SHARED,
                        _pci(sbdf),
                        f"the page at {page * PAGE:#x} has {_named(what)}",
                        f"have them aligned: pci=resource_alignment=12@{sbdf} on the kernel's command line",
                        "give all of these devices to one domain",
                        domains=owners,
                        about=sbdf,
                    )
        if small:
            yield case.conflict(
                BAR_SMALL,
                _pci(sbdf),
                f"{ground.name(sbdf)}: {_named(dict.fromkeys(small))}",
                f"have it aligned: pci=resource_alignment=12@{sbdf} on the kernel's command line",
                "leave it: accesses are slower, or the rest of the page is the domain's, too",
                about=sbdf,
            )
        for finding in ground.message_pages.get(sbdf, ()):
            yield case.conflict(
                MSIX_PAGE,
                _pci(sbdf),
                f"{ground.name(sbdf)}: {finding.message}",
                "rely on interrupt remapping, and let the hypervisor trap that page",
                "leave the device with dom0, or give it to a domain that you trust",
                about=sbdf,
                severity=None if finding.rule == MESSAGE_SHARES.id else Severity.INFO,
            )
        if function.class_code >> 16 == 0x03 and function.rom is not None and function.rom.virtual:
            yield case.conflict(
                SHADOW_ROM,
                _pci(sbdf),
                f"{ground.name(sbdf)}: its ROM at {function.rom.address:#x} is a shadow copy",
                "give the domain a ROM file of the maker",
                "have another display as the boot display (firmware's setup)",
                about=sbdf,
            )


# --- reset ------------------------------------------------------------------------------------------------------------

NO_RESET: Final = rule(
    "partition.no-reset",
    Severity.WARNING,
    title="a device that cannot be reset alone",
    meaning="When the domain ends, or is started again, the device keeps what it was doing: memory contents, DMA that "
    "is still going on, a state in which the next driver does not find its way.",
    advice="Give it together with what a bus reset would reset besides, or start the domain once a boot.",
    specification="Linux drivers/pci/pci.c (pci_reset_fn_methods); Xen, public/physdev.h (pci_device_reset)",
)
ASLEEP: Final = rule(
    "partition.not-readable",
    Severity.WARNING,
    title="a device whose registers could not be read",
    meaning="The function was asleep, did not answer, or its config space was not readable beyond the header: resets, "
    "messages and ACS of it are not known, and were not judged.",
    advice="Observe as root, with --wake for functions that sleep.",
    specification="PCI Express Base 6.0, section 5.3.1.4: in D3cold nothing can be read",
)


@_judge
def reset(case: Case) -> Iterator[Conflict]:
    ground = case.ground
    for sbdf, number in case.owner.items():
        function = ground.functions[sbdf]
        if ground.stays(sbdf) is not None:
            continue
        if function.asleep or not function.answers or function.config_bytes < 0x100:
            why = "asleep" if function.asleep else f"readable for {function.config_bytes} bytes only"
            yield case.conflict(
                ASLEEP,
                _pci(sbdf),
                f"{ground.name(sbdf)} was {why}",
                "observe it as root, with --wake",
                f"take it out of {case.who(number)}",
                about=sbdf,
            )
            continue
        resets = ground.resets.get(sbdf)
        if function.reset_methods or resets is None or resets.available:
            continue
        blocking = [each for way in resets.ways for each in way.blocked_by]
        others = [each for each in blocking if case.owner_of(each) != number]
        if blocking and not others:
            continue  # all that a bus reset resets is this domain's
        detail = "; ".join(f"{way.method.value}: {way.detail}" for way in resets.ways if way.detail)
        yield case.conflict(
            NO_RESET,
            _pci(sbdf),
            f"{ground.name(sbdf)}: {detail or 'no register offers a reset'}",
            f"give {case.who(number)} what a bus reset would reset, too: {_named(others)}"
            if others
            else "put it into a slot of its own below a port, where a bus reset is possible",
            "leave it with dom0, or start the domain once a boot only",
            about=sbdf,
        )


# --- places and means -------------------------------------------------------------------------------------------------

NODE: Final = rule(
    "partition.node",
    Severity.WARNING,
    title="a device far from its domain",
    meaning="The domain is to be on one NUMA node, and the device is on another: each access and each interrupt "
    "crosses between processors' sockets.",
    advice="Have the domain on the device's node, or give it a device of its own node.",
    specification="ACPI 6.5, section 6.2.14 (_PXM)",
)
ROOM: Final = rule(
    "partition.room",
    Severity.WARNING,
    title="domains larger than the machine",
    meaning="The domains together have more memory than the machine, or one has more processors.",
    advice="Make them smaller; dom0 needs its part, too.",
    specification="Linux, /sys/firmware/memmap; ACPI 6.5, section 5.2.12",
)
SEGMENT: Final = rule(
    "partition.segment",
    Severity.ERROR,
    title="a device in a segment that the hypervisor cannot name",
    meaning="The segment is one that Linux made up (behind Intel VMD, or Hyper-V's): hypercalls have 16 bits for it, "
    "and the hypervisor does not know what is behind.",
    advice="Turn VMD off in the firmware's setup, or give away the VMD device as a whole.",
    specification="Linux drivers/pci/controller/vmd.c; Xen, public/physdev.h (16 bits of segment)",
)
BACKENDS: Final = rule(
    "partition.backend",
    Severity.ERROR,
    title="domains for several hypervisors, or for another one",
    meaning="A machine runs on one hypervisor, or on none: a plan is for one.",
    advice="Write the backend that the machine runs on, or leave it out.",
    specification="dom0kit: a plan is for one (dialect, backend)",
)
NOT_JUDGED: Final = rule(
    "partition.not-judged",
    Severity.INFO,
    title="rules that could not be judged",
    meaning="This picture of the machine lacks what the rule looks at. That nothing is said is not to say that nothing "
    "is wrong.",
    advice="Check on the live machine as root; under Xen with --native, a recording made without it.",
    specification="dom0kit: what is not known is named",
)


@_judge
def means(case: Case) -> Iterator[Conflict]:
    ground = case.ground
    wanted = 0
    for number, domain in enumerate(case.partition.domain):
        node = domain.policy.numa_node
        for sbdf in case.of[number]:
            of = ground.functions[sbdf].numa_node
            if node is not None and of is not None and of >= 0 and of != node:
                yield case.conflict(
                    NODE,
                    _pci(sbdf),
                    f"{ground.name(sbdf)} is on node {of}, and {domain.name} on node {node}",
                    f"have {domain.name} on node {of}: numa_node = {of}",
                    f"give {domain.name} a device of node {node}",
                    about=sbdf,
                )
            if sbdf.segment > 0xFFFF and ground.backend is not Backend.LINUX:
                yield case.conflict(
                    SEGMENT,
                    _pci(sbdf),
                    f"{ground.name(sbdf)} is in segment {sbdf.segment:#x}",
                    "turn VMD off in the firmware's setup",
                    "give away the function that the segment is behind",
                    about=sbdf,
                )
        wanted += domain.memory_bytes or 0
        if ground.cpus and domain.vcpus is not None and domain.vcpus > ground.cpus:
            yield case.conflict(
                ROOM,
                f"domain:{domain.name}",
                f"{domain.name} has {domain.vcpus} processors, the machine {ground.cpus}",
                f"give it {ground.cpus} or fewer",
                "check the plan on the machine that is meant",
                domains=[number],
                at=(number, None),
            )
        if domain.backend is not None and domain.backend.backend is not ground.backend:
            yield case.conflict(
                BACKENDS,
                f"domain:{domain.name}",
                f"{domain.name} is for {domain.backend.value}, and the machine's domains are {ground.backend.value}'s",
                f'write backend = "{ground.backend.value}", or leave it out',
                "make a plan for each backend from a file of its own (--backend)",
                domains=[number],
                at=(number, None),
            )
    if ground.ram and wanted > ground.ram:
        yield case.conflict(
            ROOM,
            "machine",
            f"the domains have {wanted >> 20} MiB together, the machine {ground.ram >> 20} MiB",
            "give them less",
            "check the plan on the machine that is meant",
            domains=range(len(case.partition.domain)),
        )
    for why, what in ground.unknown if any(case.of) else ():
        yield case.conflict(
            NOT_JUDGED,
            "machine",
            f"not judged: {what}; {why}",
            "check on the live machine, as root",
            "look at what is named yourself",
        )
