# SPDX-License-Identifier: MIT
"""The only effects of the toolkit: a Plan is applied, with a journal and a way back.

Everything happens under one lock. Before the first operation the plan is held against the machine: fingerprint,
backend, the facts it relies upon. What an operation finds is in the journal before it is done, so that wherever the
process is killed, `recover` brings the machine back to where it was; after the last operation's record the machine is
on the other side, and `roll_back` is the way back from there, the newest plan first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from dom0kit.abi import Status
from dom0kit.hypercall.effects import effect_of
from dom0kit.hypercall.interface import HypercallRefused
from dom0kit.hypercall.journal import (
    AnyRecord,
    Applied,
    Done,
    Entry,
    GoingBack,
    Intent,
    JournalError,
    Journals,
    Skipped,
    Step,
    Undone,
    Writer,
)
from dom0kit.hypercall.linux import FunctionGone, LinuxRefused
from dom0kit.hypercall.world import Already, Gone, Refused, World, broken
from dom0kit.plan import AnyOperation, Backend, Plan, Reach

_REFUSALS: Final = (Refused, HypercallRefused, LinuxRefused, OSError, ValueError)
"""What an operation can come to; ValueError is an argument that no hypercall has room for, or an impossible answer."""
_NAMED: Final = 5
"""How many of many broken facts or lost inverses a sentence names."""


class NotApplied(Exception):
    """The plan was not applied, and the machine is as it was but for the `residues`; the message says why."""

    def __init__(self, message: str, residues: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.residues = residues


class NotUndone(Exception):
    """An operation could not be undone; the journal stays, and `recover` goes on from there."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What was done to the machine."""

    number: int | None
    """Of the plan's journal; None where it has none."""
    title: str
    done: int
    """Operations that were done, or undone."""
    skipped: int
    """Operations that had nothing to do."""
    residues: tuple[str, ...] = ()
    """What stays of operations undone, or what will stay when they are."""


class PlanState(msgspec.Struct, frozen=True, kw_only=True):
    """A plan that was applied, or begun."""

    number: int
    title: str
    backend: str
    state: str
    """``applied``; ``interrupted``: run recover; ``of an earlier boot``: nothing of it is left."""
    operations: int
    done: int
    residues: tuple[str, ...]
    """What would stay if it were rolled back."""


class Keeper(Protocol):
    """Where records go."""

    def add(self, record: AnyRecord) -> None: ...


def apply(
    plan: Plan,
    world: World,
    journals: Journals,
    *,
    fingerprint: str,
    boot: str,
    irreversible: bool = False,
    way_back: bool = True,
) -> Outcome:
    """Does all of a plan or nothing of it.

    `fingerprint`: of the machine that `world` is; `boot`: Linux's boot id. `irreversible`: also do what cannot be
    undone. `way_back`: keep the journal, for `roll_back`.

    NotApplied: refused or failed, and the machine is as it was. NotUndone: failed, and so did the way back.
    JournalError: as NotApplied, or, where it cannot be written half-way, the machine waits for `recover`.
    """
    numbers = journals.numbers()
    if numbers and _state(journals.read(numbers[-1]), boot) != APPLIED:
        raise NotApplied("an earlier plan was interrupted: run dom0kit recover first")
    check(plan, world, fingerprint=fingerprint, irreversible=irreversible)
    writer = journals.begin(boot, plan)
    try:
        steps = _go_forward(plan, world, writer)
        if not way_back:
            writer.end()
    finally:
        writer.close()
    return _outcome(writer.number if way_back else None, plan, steps)


def check(plan: Plan, world: World, *, fingerprint: str, irreversible: bool) -> None:
    """Whether a plan may be applied to this machine now. NotApplied where not. Changes nothing."""
    if plan.fingerprint != fingerprint:
        raise NotApplied(
            f"the plan is for another machine ({plan.machine}, fingerprint {plan.fingerprint[:12]}; this one has "
            f"{fingerprint[:12]}), or this one was changed: make the plan anew"
        )
    if plan.backend is not world.backend:
        raise NotApplied(
            f"the plan is for {plan.backend.value}, and this machine runs {world.backend.value}: make the plan anew"
        )
    lost = [
        (index, operation, inverse.residue)
        for index, operation in enumerate(plan.operations)
        if (inverse := operation.inverse(plan.backend)).reach is Reach.ABSENT
    ]
    if lost and not irreversible:
        named = "; ".join(f"operation {index} ({operation}): {residue}" for index, operation, residue in lost[:_NAMED])
        more = f"; and {len(lost) - _NAMED} more" if len(lost) > _NAMED else ""
        raise NotApplied(f"what cannot be undone needs --irreversible: {named}{more}")
    wrong = []
    for fact in plan.facts:
        try:
            instead = broken(world, fact)
        except _REFUSALS as refusal:
            instead = f"that cannot be seen: {refusal}"
        if instead is not None:
            wrong.append(f"{fact}: {instead}")
    if wrong:
        more = f"; and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
        raise NotApplied(f"the plan relies on what is not so any more: {'; '.join(wrong[:_NAMED])}{more}")


def rehearse(plan: Plan, world: World, keeper: Keeper, *, fingerprint: str, irreversible: bool = False) -> Outcome:
    """Applies a plan to a `world` whose calls do nothing (`dom0kit.hypercall.dry_run`). NotApplied."""
    check(plan, world, fingerprint=fingerprint, irreversible=irreversible)
    steps: list[Step] = []
    for index, operation in enumerate(plan.operations):
        try:
            _do(world, index, operation, steps, keeper)
        except _REFUSALS as refusal:
            raise NotApplied(f"operation {index} ({operation}): {refusal}") from refusal
    return _outcome(None, plan, steps)


OpenWorld = Callable[[Backend], World]
"""Reaches what a plan of this backend acts upon; asked only where there is something to undo."""


def roll_back(journals: Journals, open_world: OpenWorld, *, boot: str) -> Outcome:
    """Undoes the newest plan. NotApplied: there is none, or it was interrupted. NotUndone, JournalError."""
    numbers = journals.numbers()
    if not numbers:
        raise NotApplied("no plan is applied: there is nothing to roll back")
    entry = journals.read(numbers[-1])
    if _state(entry, boot) != APPLIED:
        raise NotApplied(f"the newest plan ({entry.plan.title}) was interrupted: run dom0kit recover")
    return _return(entry, open_world(entry.plan.backend), journals)


class Recovery(msgspec.Struct, frozen=True, kw_only=True):
    """What `recover` did."""

    returned: Outcome | None
    """A plan that was interrupted, and is undone now."""
    forgotten: tuple[str, ...]
    """Titles of plans of an earlier boot, of which nothing is left."""


def recover(journals: Journals, open_world: OpenWorld, *, boot: str) -> Recovery:
    """Brings the machine to one side: what was interrupted is undone. NotUndone, JournalError."""
    returned, forgotten = None, []
    for number in journals.numbers():
        entry = journals.read(number)
        state = _state(entry, boot)
        if state == OUTDATED:
            journals.remove(number)
            forgotten.append(entry.plan.title)
        elif state == INTERRUPTED:  # the newest: nothing is applied before it is undone
            returned = _return(entry, open_world(entry.plan.backend), journals)
    return Recovery(returned=returned, forgotten=tuple(forgotten))


APPLIED: Final = "applied"
INTERRUPTED: Final = "interrupted"
OUTDATED: Final = "of an earlier boot"


def status(journals: Journals, *, boot: str) -> tuple[PlanState, ...]:
    """Every plan that has a journal, the oldest first."""
    states = []
    for number in journals.numbers():
        entry = journals.read(number)
        states.append(
            PlanState(
                number=number,
                title=entry.plan.title,
                backend=entry.plan.backend.value,
                state=_state(entry, boot),
                operations=len(entry.plan.operations),
                done=sum(step.done and not step.undone for step in entry.steps),
                residues=_residues(entry.plan, entry.steps),
            )
        )
    return tuple(states)


def _state(entry: Entry, boot: str) -> str:
    if entry.boot != boot:
        return OUTDATED
    return APPLIED if entry.is_whole else INTERRUPTED


def _go_forward(plan: Plan, world: World, keeper: Writer) -> list[Step]:
    """Does every operation; NotApplied, with all taken back, where one cannot be done."""
    steps: list[Step] = []
    where = ""
    try:
        for index, operation in enumerate(plan.operations):
            where = f"operation {index} ({operation}): "
            _do(world, index, operation, steps, keeper)
        where = ""
        keeper.add(Applied())
    except (*_REFUSALS, JournalError, KeyboardInterrupt) as refusal:
        if isinstance(refusal, KeyboardInterrupt):
            refusal = Refused("interrupted")
        try:
            keeper.add(GoingBack())
            _go_back(plan, steps, world, keeper)
            keeper.end()
        except (NotUndone, JournalError) as failure:
            way = "; run dom0kit recover" if isinstance(failure, JournalError) else ""
            raise NotUndone(f"{where}{refusal}. On the way back: {failure}{way}") from refusal
        raise NotApplied(f"{where}{refusal}", _residues(plan, steps)) from refusal
    return steps


def _do(world: World, index: int, operation: AnyOperation, steps: list[Step], keeper: Keeper) -> None:
    effect = effect_of(operation)
    try:
        image = effect.look(world, operation)
    except Already as already:
        keeper.add(Skipped(operation=index, result=already.result))
        step = Step(index, None, done=True, result=already.result)
        steps.append(step)
    else:
        keeper.add(Intent(operation=index, image=image))
        world.keep(operation, image)
        step = Step(index, image)
        steps.append(step)
        result = effect.do(world, operation, image)
        keeper.add(Done(operation=index, result=result))
        step.done, step.result = True, result
    world.results[index] = step.result


def _return(entry: Entry, world: World, journals: Journals) -> Outcome:
    if world.backend is not entry.plan.backend:
        raise NotUndone(
            f"plan {entry.number} ({entry.plan.title}) was applied to {entry.plan.backend.value}, and this is "
            f"{world.backend.value}: load the module as it was, and try again"
        )
    writer = journals.go_on(entry)
    try:
        if not entry.going_back:
            writer.add(GoingBack())
        world.results.update(entry.results)
        undone = _go_back(entry.plan, entry.steps, world, writer)
        writer.end()
    finally:
        writer.close()
    return Outcome(
        number=entry.number,
        title=entry.plan.title,
        done=undone,
        skipped=len(entry.steps) - undone,
        residues=_residues(entry.plan, entry.steps),
    )


def _go_back(plan: Plan, steps: list[Step], world: World, keeper: Keeper) -> int:
    """Undoes what is left, the last first; how many operations that were."""
    undone = 0
    for step in reversed(steps):
        if step.image is None or step.undone:
            continue
        operation = plan.operations[step.operation]
        try:
            effect_of(operation).undo(world, operation, step.image, step.result)
        except _REFUSALS as refusal:
            if not _is_gone(refusal):  # else what was done to it went with it
                raise NotUndone(
                    f"operation {step.operation} ({operation}) could not be undone: {refusal}; "
                    "put that right, and run dom0kit recover"
                ) from refusal
        keeper.add(Undone(operation=step.operation))
        step.undone = True
        undone += 1
    return undone


def _is_gone(refusal: Exception) -> bool:
    """Undoing found that a function, IOAPIC or domain is there no more."""
    if isinstance(refusal, HypercallRefused):
        return refusal.status in (Status.NO_DEVICE, Status.NO_DOMAIN)
    return isinstance(refusal, FunctionGone | Gone)


def _residues(plan: Plan, steps: list[Step]) -> tuple[str, ...]:
    """What stays where steps are undone, each thing once."""
    found: dict[str, None] = {}
    for step in steps:
        if step.image is not None:
            inverse = plan.operations[step.operation].inverse(plan.backend)
            if inverse.reach is not Reach.EXACT:
                found[inverse.residue] = None
    return tuple(found)


def _outcome(number: int | None, plan: Plan, steps: list[Step]) -> Outcome:
    done = sum(step.image is not None for step in steps)
    return Outcome(
        number=number, title=plan.title, done=done, skipped=len(steps) - done, residues=_residues(plan, steps)
    )
