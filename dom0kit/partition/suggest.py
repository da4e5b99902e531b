# SPDX-License-Identifier: MIT
"""What of a machine can be given away, what stands in the way of the rest, and how to meet somebody's wants.

What must go together is a *unit*: isolation groups, what a switch joins, reserved memory, pages and interrupt lines
that devices share. A unit goes to one domain or stays; so a want is met by choosing units, and what is chosen is judged
by the same rules as a file.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Final, NamedTuple

import msgspec

from dom0kit.address import Sbdf
from dom0kit.finding import Severity
from dom0kit.partition import rules
from dom0kit.partition.check import judge
from dom0kit.partition.ground import Ground
from dom0kit.partition.identity import class_of, id_of
from dom0kit.partition.model import STRICT, Device, Domain, Partition, Policy
from dom0kit.partition.rules import Case, Conflict

JOINING: Final = (
    rules.GROUP.id,
    rules.PEERS.id,
    rules.RESERVED_SHARED.id,
    rules.BAR_SHARED.id,
    rules.SHARED_GSI.id,
)
"""Rules that make functions go together; the other errors are of one function."""
_MOST_STEPS: Final = 100_000
_ALONE: Final = "guest"


class Unit(msgspec.Struct, frozen=True, kw_only=True):
    """Functions that go to a domain together."""

    functions: tuple[Sbdf, ...]
    """Ascending."""
    conflicts: tuple[Conflict, ...]
    """Of a domain that has these and nothing else; the most severe first."""

    @property
    def givable(self) -> bool:
        return not any(conflict.is_error for conflict in self.conflicts)


class Suggestion(msgspec.Struct, frozen=True, kw_only=True):
    """What can be given away, and what cannot."""

    machine: str
    givable: tuple[Unit, ...]
    blocked: tuple[Unit, ...]
    unknown: tuple[tuple[str, str], ...]
    """What the machine's picture lacks, and what could therefore not be judged."""


class Units:
    """The units of a machine, as far as rules are not ignored."""

    def __init__(self, ground: Ground, ignored: Collection[str] = (), policy: Policy = STRICT) -> None:
        self._ground = ground
        self._policy = policy
        self._ignored = frozenset(ignored)
        self._sets: list[tuple[Sbdf, ...]] = []
        self._beside: dict[Sbdf, list[int]] = defaultdict(list)
        for id, sets in (
            (rules.GROUP.id, self._groups()),
            (rules.PEERS.id, self._peers()),
            (rules.RESERVED_SHARED.id, self._regions()),
            (rules.BAR_SHARED.id, self._pages()),
            (rules.SHARED_GSI.id, self._lines()),
        ):
            for together in sets if id not in self._ignored else ():
                for sbdf in together:
                    self._beside[sbdf].append(len(self._sets))
                self._sets.append(together)
        self._of: dict[Sbdf, tuple[Sbdf, ...]] = {}
        self._judged: dict[Sbdf, tuple[Conflict, ...]] = {}
        """By the first function of a unit: units have none in common."""

    def of(self, sbdf: Sbdf) -> tuple[Sbdf, ...]:
        """All that goes with a function, itself included, ascending."""
        if sbdf not in self._of:
            found = {sbdf}
            waiting = [sbdf]
            asked: set[int] = set()
            while waiting:
                for number in self._beside.get(waiting.pop(), ()):
                    if number not in asked:
                        asked.add(number)
                        new = [each for each in self._sets[number] if each not in found]
                        found.update(new)
                        waiting += new
            whole = tuple(sorted(found))
            self._of |= dict.fromkeys(whole, whole)
        return self._of[sbdf]

    def conflicts(self, unit: tuple[Sbdf, ...]) -> tuple[Conflict, ...]:
        """Of a domain with this unit alone."""
        if unit[0] not in self._judged:
            alone = Partition(domain=(Domain(name=_ALONE, policy=self._policy),))
            case = Case(self._ground, alone, [[(sbdf, None) for sbdf in unit]])
            self._judged[unit[0]] = judge(case)
        return self._judged[unit[0]]

    def givable(self, unit: tuple[Sbdf, ...]) -> bool:
        return not errors(self.conflicts(unit), self._ignored)

    def doubts(self, unit: tuple[Sbdf, ...]) -> int:
        """How many warnings there are of a domain with this unit alone."""
        return sum(each.finding.severity is Severity.WARNING for each in self.conflicts(unit))

    def _groups(self) -> Iterator[tuple[Sbdf, ...]]:
        for group in {id(group): group for group in self._ground.groups.values()}.values():
            yield group.members

    def _peers(self) -> Iterator[tuple[Sbdf, ...]]:
        for each in self._ground.turning:
            sources, targets = self._ground.reached(each)
            if sources and targets:
                yield (*sources, *targets)

    def _regions(self) -> Iterator[tuple[Sbdf, ...]]:
        iommu = self._ground.platform.iommu
        for region in iommu.reserved if iommu is not None else ():
            if not region.all_functions:
                yield tuple(s for s in region.functions if s in self._ground.functions and self._ground.sends(s))

    def _pages(self) -> Iterator[tuple[Sbdf, ...]]:
        for there in self._ground.part_pages.values():
            yield tuple(dict.fromkeys(sbdf for sbdf, _ in there))

    def _lines(self) -> Iterator[tuple[Sbdf, ...]]:
        for line in self._ground.platform.lines:
            yield tuple(sbdf for sbdf in line.functions if self._ground.needs_line(sbdf))


def errors(conflicts: Iterable[Conflict], ignored: Collection[str] = ()) -> list[Conflict]:
    """Those that keep a plan from being made."""
    return [each for each in conflicts if each.is_error and each.finding.rule not in ignored]


def suggest(ground: Ground, policy: Policy = STRICT) -> Suggestion:
    """Every unit with a function that a domain of this policy could want."""
    units = Units(ground, policy=policy)
    found: dict[Sbdf, tuple[Sbdf, ...]] = {}
    for sbdf in sorted(ground.functions):
        if ground.stays(sbdf) is None:
            unit = units.of(sbdf)
            found[unit[0]] = unit
    made = [Unit(functions=unit, conflicts=units.conflicts(unit)) for unit in found.values()]
    return Suggestion(
        machine=ground.platform.origin.name,
        givable=tuple(unit for unit in made if unit.givable),
        blocked=tuple(unit for unit in made if not unit.givable),
        unknown=ground.unknown,
    )


# --- wants ------------------------------------------------------------------------------------------------------------

CLASSES: Final[Mapping[str, str]] = {
    "storage": "01",
    "network": "02",
    "display": "03",
    "multimedia": "04",
    "serial": "0700",
    "usb": "0c03",
    "nvme": "010802",
    "ahci": "010601",
    "audio": "0403",
    "wireless": "0d",
    "accelerator": "12",
}
"""Words for PCI classes."""
_SELECTORS: Final = ("class", "id", "sbdf", "path", "driver", "serial", "count")


class Want(msgspec.Struct, frozen=True, kw_only=True):
    """So many functions of a kind for a domain."""

    domain: str
    text: str
    """As it was written."""
    count: int = 1
    class_prefix: str | None = None
    id: str | None = None
    sbdf: Sbdf | None = None
    path: str | None = None
    driver: str | None = None
    serial: str | None = None

    @classmethod
    def parse(cls, text: str) -> Want:
        """From ``domain=net: class=network count=2``. ValueError with one sentence."""
        head, colon, tail = text.partition(":")
        key, _, domain = head.strip().partition("=")
        if key.strip() != "domain" or not domain or not colon:
            raise ValueError(f"{text!r} is no want like 'domain=net: class=network'")
        fields: dict[str, str] = {}
        for part in tail.replace(",", " ").split():
            key, _, value = part.partition("=")
            if key not in _SELECTORS:
                close = get_close_matches(key, _SELECTORS, n=1)
                raise ValueError(f"there is no {key!r} to want by" + (f", did you mean {close[0]!r}?" if close else ""))
            if not value or key in fields:
                raise ValueError(f"{key} is given {'twice' if key in fields else 'without a value'}")
            fields[key] = value
        if not fields.keys() - {"count"}:
            raise ValueError(f"{text!r} does not say what {domain} wants: {', '.join(_SELECTORS[:-1])}")
        count = fields.get("count", "1")
        if not (count.isascii() and count.isdigit() and 1 <= int(count) <= 256):
            raise ValueError(f"count is a number from 1 to 256, not {count!r}")
        try:
            msgspec.convert({"name": domain.strip()}, Domain)
        except msgspec.ValidationError as error:
            raise ValueError(f"{domain.strip()!r} is no name of a domain") from error
        return cls(
            domain=domain.strip(),
            text=text,
            count=int(count),
            class_prefix=_class(fields["class"]) if "class" in fields else None,
            id=fields.get("id"),
            sbdf=Sbdf.parse(fields["sbdf"]) if "sbdf" in fields else None,
            path=fields.get("path"),
            driver=fields.get("driver"),
            serial=fields.get("serial"),
        )

    def fits(self, identity: Device, sbdf: Sbdf, ground: Ground) -> bool:
        """Whether a function is of this kind."""
        function = ground.functions[sbdf]
        return (
            (self.class_prefix is None or class_of(function).startswith(self.class_prefix))
            and (self.id is None or id_of(function) == self.id or id_of(function).partition(":")[0] == self.id)
            and (self.sbdf is None or sbdf == self.sbdf)
            and (self.path is None or identity.path == self.path)
            and (self.driver is None or function.driver == self.driver)
            and (self.serial is None or identity.serial == self.serial)
        )


def _class(text: str) -> str:
    if text in CLASSES:
        return CLASSES[text]
    if len(text) in (2, 4, 6) and set(text) <= set("0123456789abcdef"):
        return text
    close = get_close_matches(text, list(CLASSES), n=1)
    hint = f", did you mean {close[0]!r}?" if close else f": {', '.join(CLASSES)}, or 2, 4 or 6 hexadecimal digits"
    raise ValueError(f"there is no class {text!r}{hint}")


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What became of wants."""

    domains: tuple[tuple[str, tuple[Sbdf, ...]], ...] = ()
    """A valid assignment; empty where there is none."""
    conflicts: tuple[Conflict, ...] = ()
    """What is to be said of the assignment."""
    in_the_way: tuple[tuple[str, ...], ...] = ()
    """Sets of rules. As long as all of the first are kept nothing can be found, and dropping any one of them takes that
    obstacle away; the next set is what is then in the way; with one of each dropped there is an assignment."""
    evidence: tuple[Conflict, ...] = ()
    """Conflicts of these rules with functions that were wanted."""
    short: tuple[str, ...] = ()
    """Wants for which the machine has too few functions, whatever the rules."""
    gave_up: bool = False
    """The search was stopped after very many steps: there may be an assignment."""


class _Slot(NamedTuple):
    domain: str
    candidates: tuple[Sbdf, ...]


def meet(ground: Ground, wants: Sequence[Want], policy: Policy = STRICT) -> Answer:
    """An assignment to domains of this policy that meets all wants, or what is in the way."""
    search = _Search(ground, wants, policy)
    short = tuple(want.text for want, fitting in zip(wants, search.fitting, strict=True) if len(fitting) < want.count)
    if short:
        return Answer(short=short)
    found = search.assignment(frozenset())
    if found is not None:
        return Answer(
            domains=tuple((name, tuple(sorted(of))) for name, of in found.items()), conflicts=search.judged(found)
        )
    if search.gave_up:
        return Answer(gave_up=True)
    return search.obstacles()


class _Search:
    def __init__(self, ground: Ground, wants: Sequence[Want], policy: Policy) -> None:
        self._ground = ground
        self._policy = policy
        self._wants = wants
        self._units: dict[frozenset[str], Units] = {}
        self.gave_up = False
        identities = {sbdf: ground.finder.identity(sbdf) for sbdf in sorted(ground.functions)}
        self.fitting = [
            [sbdf for sbdf, identity in identities.items() if want.fits(identity, sbdf, ground)] for want in wants
        ]
        self._names = tuple(dict.fromkeys(want.domain for want in wants))

    def assignment(self, ignored: frozenset[str]) -> dict[str, set[Sbdf]] | None:
        """Functions by domain; None where there is none, or the search gave up."""
        units = self._of(ignored)
        slots = []
        for want, fitting in zip(self._wants, self.fitting, strict=True):
            able = [sbdf for sbdf in fitting if units.givable(units.of(sbdf))]
            able.sort(key=lambda sbdf: (len(units.of(sbdf)), units.doubts(units.of(sbdf)), sbdf))
            slots += [_Slot(want.domain, tuple(able))] * want.count
        slots.sort(key=lambda slot: len(slot.candidates))
        if not _matched([slot.candidates for slot in slots]):
            return None
        narrowest = {slot.domain: slot for slot in reversed(slots)}
        if not _matched([[units.of(sbdf)[0] for sbdf in slot.candidates] for slot in narrowest.values()]):
            return None
        self._steps = _MOST_STEPS
        return self._choose(slots, 0, {}, {}, units, ignored)

    def _choose(
        self,
        slots: Sequence[_Slot],
        at: int,
        owner: dict[Sbdf, str],
        chosen: dict[Sbdf, int],
        units: Units,
        ignored: frozenset[str],
    ) -> dict[str, set[Sbdf]] | None:
        if at == len(slots):
            found: dict[str, set[Sbdf]] = {name: set() for name in self._names}
            for sbdf, name in owner.items():
                found[name].add(sbdf)
            return found if not errors(self.judged(found), ignored) else None
        slot = slots[at]
        for sbdf in slot.candidates:
            self._steps -= 1
            if self._steps < 0:
                self.gave_up = True
                return None
            unit = units.of(sbdf)
            if sbdf in chosen or any(owner.get(each, slot.domain) != slot.domain for each in unit):
                continue
            new = [each for each in unit if each not in owner]
            owner.update(dict.fromkeys(new, slot.domain))
            chosen[sbdf] = at
            found_ = self._choose(slots, at + 1, owner, chosen, units, ignored)
            if found_ is not None or self.gave_up:
                return found_
            del chosen[sbdf]
            for each in new:
                del owner[each]
        return None

    def judged(self, found: Mapping[str, Collection[Sbdf]]) -> tuple[Conflict, ...]:
        partition = Partition(domain=tuple(Domain(name=name, policy=self._policy) for name in found))
        given: list[list[tuple[Sbdf, int | None]]] = [[(sbdf, None) for sbdf in sorted(of)] for of in found.values()]
        return judge(Case(self._ground, partition, given))

    def obstacles(self) -> Answer:
        """Deletion: a rule is ignored for good where nothing is found without it either. What is left is a set that
        cannot be reduced; then it is ignored, too, for what stands behind it."""
        evidence: dict[str, Conflict] = {}
        units = self._of(frozenset())
        for sbdf in dict.fromkeys(sbdf for fitting in self.fitting for sbdf in fitting):
            for conflict in errors(units.conflicts(units.of(sbdf))):
                evidence.setdefault(conflict.finding.rule, conflict)
        candidates = [*JOINING, *sorted(set(evidence) - set(JOINING))]
        passed: frozenset[str] = frozenset()
        sets: list[tuple[str, ...]] = []
        while not self.gave_up and self.assignment(passed) is None:
            rest = [id for id in candidates if id not in passed]
            if self.assignment(frozenset(candidates)) is None:
                return Answer(short=tuple(want.text for want in self._wants), gave_up=self.gave_up)
            kept = list(rest)
            for id in rest:
                without = frozenset(candidates) - (set(kept) - {id})
                if self.assignment(without) is None:
                    kept.remove(id)
            sets.append(tuple(kept))
            passed |= set(kept)
        told = tuple(evidence[id] for ids in sets for id in ids if id in evidence)
        return Answer(in_the_way=tuple(sets), evidence=told, gave_up=self.gave_up)

    def _of(self, ignored: frozenset[str]) -> Units:
        if ignored not in self._units:
            self._units[ignored] = Units(self._ground, ignored, self._policy)
        return self._units[ignored]


def _matched(choices: Sequence[Sequence[Sbdf]]) -> bool:
    """Whether each can have a choice of its own: bipartite matching by augmenting paths."""
    taken: dict[Sbdf, int] = {}

    def place(number: int, seen: set[Sbdf]) -> bool:
        for choice in choices[number]:
            if choice not in seen:
                seen.add(choice)
                if choice not in taken or place(taken[choice], seen):
                    taken[choice] = number
                    return True
        return False

    return all(place(number, set()) for number in range(len(choices)))
