# SPDX-License-Identifier: MIT
"""``dom0kit apply PLAN``: the way from a plan to its effects, all of it or nothing; or a rehearsal of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dom0kit.cli import FINE, FOUND, Unusable, emit, plans, refuse
from dom0kit.cli.arguments import Parser

if TYPE_CHECKING:
    from dom0kit.hypercall.apply import NotApplied, Outcome
    from dom0kit.hypercall.dry_run import RehearsedStep
    from dom0kit.hypercall.world import World
    from dom0kit.plan import Plan


def run(arguments: list[str]) -> int:
    parser = Parser(
        "apply",
        "Do what a plan says, all of it or nothing. It is held against the machine first: fingerprint, hypervisor, "
        "the facts it relies upon. dom0kit rollback is the way back. Exit status 1: refused, and everything is as it "
        "was; 3: nothing usable, or the way back failed, too, which is said: dom0kit recover goes on from there.",
    )
    parser.add_argument("plan", metavar="PLAN", help="a plan's file, or - for standard input")
    parser.add_argument("--dry-run", action="store_true", help="check everything, list every call, do nothing")
    parser.add_argument("--from", dest="path", metavar="REC", help="rehearse on the core's model of a recorded machine")
    parser.add_argument("--irreversible", action="store_true", help="also do what cannot be undone")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="default: text")
    options = parser.parse_args(arguments)
    if options.path is not None and not options.dry_run:
        parser.error("--from names a recording, to which nothing can be done: it goes with --dry-run")
    return apply_plan(
        plans.read_plan(options.plan),
        dry_run=options.dry_run,
        recording=options.path,
        irreversible=options.irreversible,
        as_json=options.format == "json",
    )


def apply_plan(
    plan: Plan,
    *,
    dry_run: bool = False,
    recording: str | None = None,
    irreversible: bool = False,
    as_json: bool = False,
) -> int:
    """As the command line; `recording` goes with `dry_run`."""
    if dry_run:
        return _rehearse(plan, recording, irreversible=irreversible, as_json=as_json)
    return _apply(plan, irreversible=irreversible, as_json=as_json)


def _apply(plan: Plan, *, irreversible: bool, as_json: bool) -> int:
    from dom0kit.hypercall.apply import NotApplied, NotUndone, apply
    from dom0kit.hypercall.journal import JournalError

    world = plans.open_world(plan.backend)
    with plans.open_journals() as journals:
        try:
            outcome = apply(
                plan,
                world,
                journals,
                fingerprint=plans.this_machine(),
                boot=plans.boot_id(),
                irreversible=irreversible,
            )
        except NotApplied as refusal:
            return _not_applied(refusal, as_json=as_json)
        except (NotUndone, JournalError) as failure:
            raise Unusable(str(failure)) from failure
    if as_json:
        return _json(outcome)
    return emit(f"applied: {_counted(outcome)}\n{_way_back(plan, outcome)}")


def _rehearse(plan: Plan, recording: str | None, *, irreversible: bool, as_json: bool) -> int:
    from dom0kit.hypercall.apply import NotApplied, rehearse
    from dom0kit.hypercall.dry_run import Rehearsal

    calls: list[str] = []
    rehearsal = Rehearsal(plan, calls)
    try:
        if recording is None:
            world, machine = _dry(plan, calls), plans.this_machine()
        else:
            world, machine = _recorded(plan, recording, calls)
        outcome = rehearse(plan, world, rehearsal, fingerprint=machine, irreversible=irreversible)
    except NotApplied as refusal:
        return _not_applied(refusal, as_json=as_json)
    if as_json:
        return _json({"outcome": outcome, "steps": rehearsal.steps})
    from dom0kit.cli.text.layout import Section, line, show

    show(
        [line(f"{plan.title}: would be done now: {_counted(outcome)}; nothing was done")],
        [Section("operations", [line(*_step(step), children=map(line, step.calls)) for step in rehearsal.steps])],
    )
    return FINE


def _dry(plan: Plan, calls: list[str]) -> World:
    from dom0kit.hypercall.dry_run import DryLinux, DryRun
    from dom0kit.hypercall.world import World
    from dom0kit.plan import Backend

    real = plans.open_world(plan.backend)
    hypervisor = None if real.backend is Backend.LINUX else DryRun(real.hypervisor, calls)
    return World(real.backend, hypervisor, DryLinux(real.linux, calls))


def _recorded(plan: Plan, path: str, calls: list[str]) -> tuple[World, str]:
    """The core's model of a recorded machine, with its Linux, and its fingerprint."""
    from dom0kit.abi import Mode
    from dom0kit.cli.arguments import open_recorded
    from dom0kit.hypercall.core_library import LibraryMissing
    from dom0kit.hypercall.dry_run import DryLinux, Noted, RecordedLinux
    from dom0kit.hypercall.world import World
    from dom0kit.observation import observe
    from dom0kit.plan import Backend, ModeIs
    from dom0kit.simulation import machine_of
    from dom0kit.source.fingerprint import fingerprint

    if plan.backend is Backend.XEN:
        raise Unusable("the plan is for Xen, of which there is no model: rehearse it there, without --from")
    source = open_recorded(path)
    linux = DryLinux(RecordedLinux(source), calls)
    if plan.backend is Backend.LINUX:
        return World(plan.backend, None, linux), fingerprint(source)
    intercept = all(fact.intercept for fact in plan.facts if isinstance(fact, ModeIs))
    try:
        machine = machine_of(observe(source), source.tables(), Mode.INTERCEPT if intercept else Mode.DIRECT)
    except LibraryMissing as missing:
        raise Unusable(str(missing)) from missing
    except ValueError as error:
        raise Unusable(f"no model can be made of {source.name}: {error}") from error
    core = machine.domain()
    core.listener = Noted(calls)
    return World(plan.backend, core, linux), fingerprint(source)


def _not_applied(refusal: NotApplied, *, as_json: bool) -> int:
    if as_json:
        _json({"refusal": str(refusal), "residues": refusal.residues})
        return FOUND
    but = f", but: {'; '.join(refusal.residues)}" if refusal.residues else ""
    return refuse(FOUND, f"not applied: {refusal}; everything is as it was{but}")


def _json(value: object) -> int:
    from dom0kit.serial import encode

    return emit(encode(value, indent=2) + b"\n")


def _counted(outcome: Outcome) -> str:
    from dom0kit.cli.text.layout import count

    skipped = f", {outcome.skipped} had nothing to do" if outcome.skipped else ""
    return count(outcome.done, "operation") + skipped


def _way_back(plan: Plan, outcome: Outcome) -> str:
    stays = "".join(f"  {residue}\n" for residue in outcome.residues)
    return f"way back: dom0kit rollback (plan {outcome.number}: {plan.title})\n" + (
        f"stays then:\n{stays}" if stays else ""
    )


def _step(step: RehearsedStep) -> list[str]:
    inverse = "" if not step.inverse.residue else f" ({step.inverse.reach.value} way back: {step.inverse.residue})"
    return [step.operation, ": nothing to do" if step.skipped else "", inverse, f"; {step.why}" if step.why else ""]
