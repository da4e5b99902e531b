# SPDX-License-Identifier: MIT
"""A scenario is played against a recorded machine and the core's model: what would hotplug do?

A scenario is TOML, its steps in order; every key may be left out:

    [[step]]
    after = 2.5                             # seconds since the step before
    remove = ["0000:04:00.0"]               # taken out, with everything behind, and its virtual functions
    add = ["0000:04:00.0"]                  # plugged in again as recorded; outermost first
    pull = ["0000:04:00.0"]                 # from now on it reads as all ones, and the kernel does not know
    answer = ["0000:04:00.0"]               # it answers again
    config = [{ function = "0000:00:00.0", offset = 0x60, data = "01" }]    # what hardware changes by itself
    acpi = true                             # the kernel tells of an ACPI device
    lost = true                             # the kernel's events were too many
    domain = 2                              # this domain is created

A function is plugged only where what it is behind is there. Domains that the policy names are there from the beginning.
"""

from __future__ import annotations

import tempfile
import tomllib
from collections.abc import Iterable, Iterator
from typing import Annotated, Final

import msgspec

from dom0kit.address import Sbdf
from dom0kit.finding import Finding
from dom0kit.hotplug.model import ModelKernel
from dom0kit.hotplug.monitor import Batch, Event
from dom0kit.hotplug.policy import HotplugPolicy
from dom0kit.hotplug.reconcile import Change, Reconciler
from dom0kit.hypercall.core_library import ModelMachine
from dom0kit.hypercall.interface import HypercallRefused
from dom0kit.observation import observe
from dom0kit.plan import Backend
from dom0kit.serial import Hex, UndecodableJson, decode, encode
from dom0kit.simulation import booted
from dom0kit.source.interface import Source

_TEXT: Final = 1 << 20
_BOOT: Final = "a scenario"
Functions = Annotated[tuple[Sbdf, ...], msgspec.Meta(max_length=65_536)]


class BadScenario(ValueError):
    """The file is no scenario, or not of this machine; the message says where it departs."""


class ConfigChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bytes of a function's config space that hardware changes."""

    function: Sbdf
    offset: Annotated[int, msgspec.Meta(ge=0, le=4095)]
    data: Annotated[Hex, msgspec.Meta(pattern="^([0-9a-f]{2}){1,64}$")]


class Step(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What happens at one time."""

    after: Annotated[float, msgspec.Meta(ge=0, le=1e6)] = 0
    remove: Functions = ()
    add: Functions = ()
    pull: Functions = ()
    answer: Functions = ()
    config: Annotated[tuple[ConfigChange, ...], msgspec.Meta(max_length=4096)] = ()
    acpi: bool = False
    lost: bool = False
    domain: Annotated[int, msgspec.Meta(ge=1, le=0x7FEF)] | None = None


class Scenario(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of a file."""

    step: Annotated[tuple[Step, ...], msgspec.Meta(max_length=100_000)]


class Played(msgspec.Struct, frozen=True, kw_only=True):
    """What a step came to."""

    step: int
    """0: the beginning."""
    time: float
    changes: tuple[Change, ...]
    findings: tuple[Finding, ...]
    functions: int
    """That the core knows afterwards."""
    messages: int
    ioapics: int


def read_scenario(data: bytes) -> Scenario:
    """From the bytes of a file. BadScenario."""
    if len(data) > _TEXT:
        raise BadScenario(f"a scenario of {len(data)} bytes is none: {_TEXT} at most")
    try:
        return decode(encode(tomllib.loads(data.decode())), Scenario)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, UndecodableJson, TypeError, RecursionError) as error:
        raise BadScenario(str(error)) from error


def play(scenario: Scenario, source: Source, policy: HotplugPolicy) -> Iterator[Played]:
    """The beginning, then each step. BadScenario where it cannot be; ValueError where no model can be made."""
    kernel = ModelKernel(source)
    platform = observe(source, aml=False)
    core = booted(platform, source.tables())
    for domain in sorted({rule.domain for rule in policy.rule if rule.domain is not None}):
        _create(core, domain)
    now = 0.0
    with tempfile.TemporaryDirectory(prefix="dom0kit-") as folder:
        reconciler = Reconciler(
            kernel, core.domain(0), Backend.LIBRARY, policy, folder=folder, boot=_BOOT, clock=lambda: now
        )
        yield _played(0, now, reconciler.start(), reconciler, core)
        for number, step in enumerate(scenario.step, 1):
            now += step.after
            try:
                touched = list(_happen(kernel, core, step))
            except ValueError as error:
                raise BadScenario(f"step {number}: {error}") from error
            events = [_event("pci", each, now) for each in touched]
            if step.acpi:
                events.append(_event("acpi", None, now))
            yield _played(number, now, reconciler.step(Batch(tuple(events), step.lost)), reconciler, core)
            kernel.settle()


def _played(step: int, now: float, changes: Iterable[Change], reconciler: Reconciler, core: ModelMachine) -> Played:
    information = core.domain(0).information()
    return Played(
        step=step,
        time=now,
        changes=tuple(msgspec.structs.replace(change, seconds=None) for change in changes),  # no model's time
        findings=reconciler.findings,
        functions=information.functions,
        messages=information.messages,
        ioapics=information.ioapics,
    )


def _event(subsystem: str, function: Sbdf | None, now: float) -> Event:
    path = f"/devices/{function or 'acpi'}"
    return Event(action="change", subsystem=subsystem, path=path, function=function, sequence=0, received=now)


def _happen(kernel: ModelKernel, core: ModelMachine, step: Step) -> Iterator[Sbdf]:
    """Does it; the functions that the kernel tells of."""
    if step.domain is not None:
        _create(core, step.domain)
    for function in step.remove:
        for each in behind(kernel, function):
            kernel.vanish(each)
            yield each
    for function in step.add:
        raw = kernel.recorded.get(function)
        if raw is None:
            raise ValueError(f"the recording has no function {function} to add")
        for name in ("parent", "physfn"):
            if name in raw.attributes and Sbdf.parse(raw.attributes[name]) not in kernel.addresses():
                raise ValueError(f"{function} is behind {raw.attributes[name]}, which is not there")
        kernel.appear(raw)
        yield function
    for function in (*step.pull, *step.answer):
        if function not in kernel.addresses():
            raise ValueError(f"there is no function {function}")
        kernel.fall_silent(function, function in step.pull)
        yield function
    for change in step.config:
        if change.function not in kernel.addresses():
            raise ValueError(f"there is no function {change.function}")
        kernel.write(change.function, change.offset, bytes.fromhex(change.data))
        yield change.function


def behind(kernel: ModelKernel, function: Sbdf) -> list[Sbdf]:
    """A function and everything that goes with it, innermost first. ValueError where there is none."""
    if function not in kernel.addresses():
        raise ValueError(f"there is no function {function}")
    found = [function]
    for outer in found:  # grows
        for raw in kernel.functions():
            above = {raw.attributes.get("parent"), raw.attributes.get("physfn")}
            if str(outer) in above and raw.sbdf not in found:
                found.append(raw.sbdf)
    return found[::-1]


def _create(core: ModelMachine, domain: int) -> None:
    try:
        core.domain(0).domain_create(domain)
    except HypercallRefused as refused:
        raise BadScenario(f"domain {domain} cannot be created: {refused}") from refused
