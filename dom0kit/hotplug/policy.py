# SPDX-License-Identifier: MIT
"""Where a function goes that appears: a file of rules in TOML, of which the first that fits decides.

    default = "quarantine"              # what fits no rule: quarantine (the default), keep or refuse

    [limits]                            # against a link that goes up and down; these are the defaults
    arrivals = 10                       # of one address ...
    seconds = 60                        # ... in so many seconds; more are refused until it was quiet as long
    functions = 256                     # that may have been added at one time
    grace = 3                           # seconds that a function may read as all ones before it counts as pulled

    [[rule]]
    path = "0000:00/05.0/*"             # from the root bus, device.function of each bridge (* and ? as in a shell)
    slot = 5                            # physical number of the slot it is in
    class = "0200*"                     # six hexadecimal digits
    id = "8086:10*"                     # vendor:device
    serial = "0000c9ffff000000"         # of the Device Serial Number capability
    action = "give"                     # give, keep, quarantine or refuse
    domain = 2                          # to whom

A rule fits where all of its conditions do; one without conditions fits everything. *keep* leaves the function to
dom0's drivers; *quarantine* makes it known to the hypervisor and keeps drivers off; *refuse* does not even tell of it.
"""

from __future__ import annotations

import enum
import fnmatch
import tomllib
from collections import deque
from typing import Annotated, Final

import msgspec

from dom0kit.address import Sbdf
from dom0kit.pci.capabilities.serial_number import DeviceSerialNumber
from dom0kit.pci.function import Function
from dom0kit.pci.topology import Topology

_TEXT: Final = 1 << 20
Pattern = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class BadPolicy(ValueError):
    """The file is no policy; the message says where it departs."""


class Action(enum.Enum):
    """What becomes of a function."""

    GIVE = "give"
    KEEP = "keep"
    QUARANTINE = "quarantine"
    REFUSE = "refuse"


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much may happen."""

    arrivals: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 10
    seconds: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = 60
    functions: Annotated[int, msgspec.Meta(ge=0, le=65_536)] = 256
    grace: Annotated[float, msgspec.Meta(ge=0, le=600)] = 3


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One rule; None: any."""

    action: Action
    path: Pattern | None = None
    slot: Annotated[int, msgspec.Meta(ge=0, le=8191)] | None = None
    class_: Pattern | None = msgspec.field(default=None, name="class")
    id: Pattern | None = None
    serial: Pattern | None = None
    domain: Annotated[int, msgspec.Meta(ge=1, le=0x7FEF)] | None = None

    def __post_init__(self) -> None:
        if (self.domain is None) == (self.action is Action.GIVE):
            raise ValueError("`domain` goes with action give, and with no other")

    def fits(self, function: Function, topology: Topology) -> bool:
        return (
            _like(path_of(function.sbdf, topology), self.path)
            and (self.slot is None or self.slot == slot_of(function.sbdf, topology))
            and _like(f"{function.class_code:06x}", self.class_)
            and _like(f"{function.vendor:04x}:{function.device:04x}", self.id)
            and _like(serial_of(function), self.serial)
        )


class Decision(msgspec.Struct, frozen=True):
    """What shall become of a function, and which rule says so."""

    action: Action
    domain: int | None = None
    why: str = "no rule fits: the default"


class HotplugPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of a file."""

    default: Action = Action.QUARANTINE
    limits: Limits = Limits()
    rule: Annotated[tuple[Rule, ...], msgspec.Meta(max_length=10_000)] = ()

    def __post_init__(self) -> None:
        if self.default is Action.GIVE:
            raise ValueError("the default cannot give everything to one domain: write a rule without conditions")

    @property
    def keeps_everything(self) -> bool:
        """Whatever comes is for dom0's drivers."""
        return all(action is Action.KEEP for action in (self.default, *(rule.action for rule in self.rule)))

    def decide(self, function: Function, topology: Topology) -> Decision:
        """`topology`: with the function in it."""
        for number, rule in enumerate(self.rule, 1):
            if rule.fits(function, topology):
                return Decision(rule.action, rule.domain, f"rule {number}")
        return Decision(self.default)

    def unreachable(self) -> list[int]:
        """Numbers, from 1 on, of rules that never decide: one before them fits whatever they fit."""
        found = []
        for number, rule in enumerate(self.rule, 1):
            if any(_covers(before, rule) for before in self.rule[: number - 1]):
                found.append(number)
        return found


def read_policy(data: bytes) -> HotplugPolicy:
    """From the bytes of a file. BadPolicy."""
    if len(data) > _TEXT:
        raise BadPolicy(f"a policy of {len(data)} bytes is none: {_TEXT} at most")
    try:
        return msgspec.convert(tomllib.loads(data.decode()), HotplugPolicy, strict=True)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError, RecursionError) as error:
        raise BadPolicy(str(error)) from error


def path_of(sbdf: Sbdf, topology: Topology) -> str:
    """``0000:00/05.0/00.0``: the root bus, device and function of every bridge, and of the function itself.

    Bus numbers below the root change when something is plugged; this does not.
    """
    way = topology.path(sbdf)
    steps = "/".join(f"{step.device:02x}.{step.function}" for step in way)
    return f"{sbdf.segment:04x}:{way[0].bus:02x}/{steps}"


def slot_of(sbdf: Sbdf, topology: Topology) -> int | None:
    """Physical number of the nearest slot above that has one."""
    numbers = {slot.bridge: slot.number for slot in topology.slots if slot.number is not None}
    return next((numbers[step] for step in reversed(topology.path(sbdf)[:-1]) if step in numbers), None)


def serial_of(function: Function) -> str:
    """Empty where it has none."""
    return next((each.serial_number for each in function.capabilities if isinstance(each, DeviceSerialNumber)), "")


def _like(text: str, pattern: str | None) -> bool:
    return pattern is None or fnmatch.fnmatchcase(text, pattern.lower())


def _covers(before: Rule, rule: Rule) -> bool:
    return all(
        mine is None or mine == his
        for mine, his in (
            (before.path, rule.path),
            (before.slot, rule.slot),
            (before.class_, rule.class_),
            (before.id, rule.id),
            (before.serial, rule.serial),
        )
    )


class Flapping:
    """Counts arrivals at addresses: which come too often, and have not been quiet since."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._arrivals: dict[Sbdf, deque[float]] = {}
        self._refused: dict[Sbdf, float] = {}
        """When the last refused one came."""

    def arrived(self, sbdf: Sbdf, now: float) -> bool:
        """Whether this arrival is one too many; `now` in seconds, never less than before."""
        limits = self._limits
        if sbdf in self._refused and now - self._refused[sbdf] < limits.seconds:
            self._refused[sbdf] = now
            return True
        self._refused.pop(sbdf, None)
        times = self._arrivals.setdefault(sbdf, deque(maxlen=limits.arrivals + 1))
        times.append(now)
        if len(times) > limits.arrivals and now - times[0] < limits.seconds:
            times.clear()
            self._refused[sbdf] = now
            return True
        return False

    def over(self, now: float) -> list[Sbdf]:
        """Addresses that were refused and have been quiet long enough; they are forgotten."""
        found = [sbdf for sbdf, last in self._refused.items() if now - last >= self._limits.seconds]
        for sbdf in found:
            del self._refused[sbdf]
        return found
