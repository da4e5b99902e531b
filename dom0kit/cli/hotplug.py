# SPDX-License-Identifier: MIT
"""``dom0kit hotplug``: what comes and goes: watched and reconciled, slots, scenarios, policies."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

from dom0kit.cli import FINE, FOUND, Unusable, UsageError, closest, emit
from dom0kit.cli.arguments import Parser, is_recorded, open_machine

if TYPE_CHECKING:
    from collections.abc import Callable

    from dom0kit.acpi.aml_values import Evaluate
    from dom0kit.hotplug.monitor import Batch
    from dom0kit.hotplug.policy import HotplugPolicy
    from dom0kit.hotplug.reconcile import Reconciler
    from dom0kit.hypercall.interface import Hypervisor
    from dom0kit.plan import Backend
    from dom0kit.platform import Platform
    from dom0kit.source.interface import Source

_VERBS = {
    "watch": "what comes and goes, as it happens; with a policy, reconciled with hypervisor and drivers",
    "slots": "every slot: what it can, how it stands, what is in it, and whose that is",
    "simulate": "a scenario of events against a recorded machine and the core's model",
    "check": "whether a policy makes sense, and what would become of the functions that are there",
}
_FILE_LIMIT = 1 << 20


def run(arguments: list[str]) -> int:
    if arguments[:1] in (["--help"], ["-h"]):
        lines = "".join(f"  {verb:<9} {purpose}\n" for verb, purpose in _VERBS.items())
        return emit(f"usage: dom0kit hotplug VERB [ARGS]    (dom0kit hotplug VERB --help: what it takes)\n\n{lines}")
    if not arguments:
        raise UsageError("hotplug: which verb? (dom0kit hotplug --help)")
    verb, *rest = arguments
    if verb not in _VERBS:
        raise UsageError(f"hotplug: there is no verb {verb!r}{closest(verb, _VERBS)} (dom0kit hotplug --help)")
    return {"watch": _watch, "slots": _slots, "simulate": _simulate, "check": _check}[verb](rest)


def _watch(arguments: list[str]) -> int:
    parser = Parser(
        "hotplug watch",
        "Every function and IOAPIC that comes or goes: where, what it changed, how long it took. With --policy each is "
        "reconciled: told to the hypervisor, kept from drivers, given to a domain, taken back. Without, nothing is "
        "changed. Ends with ^C.",
    )
    parser.add_argument("--policy", metavar="FILE", help="act by this policy; takes root")
    parser.add_argument("--seconds", type=float, metavar="N", help="end after so many")
    parser.add_argument("--no-aml", action="store_true", help="without the namespace: no GSIs and no IOAPICs")
    parser.add_argument(
        "--kernel-aml",
        action="store_true",
        help="have this kernel evaluate AML too, by dom0kit.ko, at each change: it alone sees an IOAPIC come or go",
    )
    parser.add_argument("--json", action="store_true", help="a line of JSON for each change and finding")
    options = parser.parse_args(arguments)
    if options.seconds is not None and not 0 <= options.seconds <= 1e9:
        parser.error(f"--seconds is a number from 0 on, not {options.seconds}")
    if options.kernel_aml and options.no_aml:
        parser.error("--kernel-aml and --no-aml contradict each other")
    from dom0kit.hotplug.monitor import Monitor, MonitorMissing

    policy = None if options.policy is None else _policy(options.policy)
    with ExitStack() as stack:
        try:
            monitor = stack.enter_context(Monitor())  # first, so that nothing is missed between reading and watching
        except MonitorMissing as missing:
            raise Unusable(str(missing)) from missing
        kernel_aml = None
        if options.kernel_aml:
            from dom0kit.cli.module import opened

            kernel_aml = stack.enter_context(opened()).evaluate
        reconciler = _reconciler(stack, policy, aml=not options.no_aml, kernel_aml=kernel_aml)
        _follow(reconciler, monitor.receive, options.seconds, json=options.json)
    return FINE


def _follow(reconciler: Reconciler, receive: Callable[[float], Batch], seconds: float | None, *, json: bool) -> None:
    import gc
    import time

    from dom0kit.hypercall.apply import NotUndone
    from dom0kit.hypercall.journal import JournalError
    from dom0kit.source.errors import UnreadableSource

    told: set[object] = set()
    worked = True

    def tell(changes: object) -> None:
        assert isinstance(changes, tuple)
        for each in changes:
            _say(each, json=json)
        for finding in reconciler.findings:
            if finding not in told:
                _say(finding, json=json)
        told.clear()
        told.update(reconciler.findings)

    try:
        tell(reconciler.start())
        end = None if seconds is None else time.monotonic() + seconds
        if not json:
            emit(f"watching {len(reconciler.platform.functions)} functions\n")
        while end is None or time.monotonic() < end:
            wait = 1.0 if end is None else max(0.0, min(1.0, end - time.monotonic()))
            batch = receive(wait)
            tell(reconciler.step(batch))
            if batch.events:
                worked = True
            elif worked:  # the command runs without the collector, whose pauses an event would wait for
                gc.collect()
                worked = False
    except (NotUndone, JournalError, OSError, UnreadableSource) as error:
        raise Unusable(f"hotplug stops: {error}") from error
    except KeyboardInterrupt:
        return


def _say(what: object, *, json: bool) -> None:
    from dom0kit.cli.text.hotplug import change_line, finding_line
    from dom0kit.finding import Finding
    from dom0kit.hotplug.reconcile import Change
    from dom0kit.serial import encode

    if json:
        emit(encode({"change" if isinstance(what, Change) else "finding": what}) + b"\n")
    elif isinstance(what, Change):
        emit(f"{change_line(what)}\n")
    elif isinstance(what, Finding):
        emit(f"{finding_line(what)}\n")


def _reconciler(
    stack: ExitStack, policy: HotplugPolicy | None, *, aml: bool, kernel_aml: Evaluate | None
) -> Reconciler:
    from dom0kit.hotplug.kernel import LiveKernel
    from dom0kit.hotplug.policy import Action, HotplugPolicy
    from dom0kit.hotplug.reconcile import Reconciler
    from dom0kit.hypercall import journal
    from dom0kit.plan import Backend

    hypervisor: Hypervisor | None = None
    if policy is None:
        import tempfile

        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="dom0kit-"))
        backend, boot = Backend.LINUX, "watched"
        policy = HotplugPolicy(default=Action.KEEP)
    else:
        if os.geteuid() != 0:
            raise Unusable("hotplug watch --policy writes to drivers and hypervisor, which takes root")
        from dom0kit.cli.plans import boot_id

        folder, boot = journal.FOLDER, boot_id()
        backend, hypervisor = _below(stack)
    return Reconciler(
        LiveKernel(), hypervisor, backend, policy, folder=folder, boot=boot, aml=aml, kernel_aml=kernel_aml
    )


def _below(stack: ExitStack) -> tuple[Backend, Hypervisor | None]:
    """What is below this dom0: by the module, else Xen by privcmd, else nothing."""
    from dom0kit.hypercall.kernel_module import KernelModule, ModuleMissing
    from dom0kit.hypercall.xen import Xen, XenMissing
    from dom0kit.plan import Backend

    try:
        xen = stack.enter_context(Xen())
    except XenMissing:
        pass
    else:
        return Backend.XEN, xen
    try:
        module = stack.enter_context(KernelModule())
    except ModuleMissing:
        return Backend.LINUX, None
    return Backend(module.backend.name.lower()), module


def _slots(arguments: list[str]) -> int:
    parser = Parser("hotplug slots", "Every slot: what it can, how it stands, what is in it, and whose that is.")
    parser.add_source(native=False)
    parser.add_argument("--format", choices=("text", "json"), default="text", help="default: text")
    options = parser.parse_args(arguments)
    parser.check_source(options)
    from dom0kit.hotplug.ledger import Store
    from dom0kit.hotplug.slots import slots
    from dom0kit.hypercall import journal

    source, platform = _observed(options)
    if is_recorded(options):
        found = slots(platform, source)
    else:
        from dom0kit.cli.plans import boot_id
        from dom0kit.hotplug.kernel import HotplugLinux

        ledger, _ = Store(journal.FOLDER).load(boot_id())
        entries = {} if ledger is None else {entry.function: entry for entry in ledger.functions}
        found = slots(platform, source, entries, HotplugLinux().slot)
    if not found:
        raise Unusable(f"{source.name} has no slot: no port with one, and the kernel knows of none")
    if options.format == "json":
        from dom0kit.serial import encode

        return emit(encode(found, indent=2) + b"\n")
    from dom0kit.cli.text import hotplug as text
    from dom0kit.cli.text.layout import show

    show(*text.slots(source.name, found))
    return FINE


def _simulate(arguments: list[str]) -> int:
    parser = Parser(
        "hotplug simulate",
        "Play a scenario (python3 -c 'help(\"dom0kit.hotplug.scenario\")' describes the file) against a recorded "
        "machine and the core's model. Exit status 1 where something is found wrong.",
    )
    parser.add_argument("scenario", metavar="SCENARIO", help="a file of steps in TOML")
    parser.add_source(native=False)
    parser.add_argument("--policy", metavar="FILE", help="default: everything that comes is quarantined")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="default: text")
    options = parser.parse_args(arguments)
    parser.check_source(options)
    from dom0kit.hotplug.policy import HotplugPolicy
    from dom0kit.hotplug.scenario import BadScenario, play, read_scenario
    from dom0kit.hypercall.core_library import LibraryMissing

    policy = HotplugPolicy() if options.policy is None else _policy(options.policy)
    try:
        scenario = read_scenario(_read(options.scenario))
    except BadScenario as error:
        raise Unusable(f"{options.scenario} is no scenario: {error}") from error
    source = open_machine(options)
    try:
        played = list(play(scenario, source, policy))
    except BadScenario as error:
        raise Unusable(f"{options.scenario} cannot be played on {source.name}: {error}") from error
    except LibraryMissing as missing:
        raise Unusable(str(missing)) from missing
    except ValueError as error:
        raise Unusable(f"no model can be made of {source.name}: {error}") from error
    if options.format == "json":
        from dom0kit.serial import encode

        emit(encode(played, indent=2) + b"\n")
    else:
        from dom0kit.cli.text import hotplug as text
        from dom0kit.cli.text.layout import show

        show(*text.played(source.name, played))
    return FOUND if any(each.findings for each in played) else FINE


def _check(arguments: list[str]) -> int:
    parser = Parser(
        "hotplug check",
        "Whether a policy makes sense, and what it would do with the functions that are in slots. Exit status 1 where "
        "a rule never decides.",
    )
    parser.add_argument("policy", metavar="POLICY", help="a file of rules in TOML")
    parser.add_source(native=False)
    parser.add_argument("--format", choices=("text", "json"), default="text", help="default: text")
    options = parser.parse_args(arguments)
    parser.check_source(options)
    from dom0kit.hotplug.findings import UNREACHABLE
    from dom0kit.hotplug.policy import slot_of

    policy = _policy(options.policy)
    findings = [
        UNREACHABLE.at(f"policy:{options.policy}", f"rule {number}: a rule before it fits whatever it fits")
        for number in policy.unreachable()
    ]
    source, platform = _observed(options, aml=False)
    tree = platform.topology
    decided = [
        (function, policy.decide(function, tree))
        for function in platform.functions
        if tree is not None and function.buses is None and slot_of(function.sbdf, tree) is not None
    ]
    if options.format == "json":
        from dom0kit.serial import encode

        rows = [{"function": function.sbdf, "decision": decision} for function, decision in decided]
        emit(encode({"rules": len(policy.rule), "functions": rows, "findings": findings}, indent=2) + b"\n")
    else:
        from dom0kit.cli.text import hotplug as text
        from dom0kit.cli.text.layout import show

        show(*text.checked(options.policy, source.name, policy, decided, findings))
    return FOUND if findings else FINE


def _observed(options: object, *, aml: bool = False) -> tuple[Source, Platform]:
    from dom0kit.cli.progress import Progress
    from dom0kit.observation import observe

    source = open_machine(options)  # type: ignore[arg-type]
    with Progress() as progress:
        return source, observe(source, aml=aml, progress=progress)


def _policy(path: str) -> HotplugPolicy:
    from dom0kit.hotplug.policy import BadPolicy, read_policy

    try:
        return read_policy(_read(path))
    except BadPolicy as error:
        raise Unusable(f"{path} is no policy: {error}") from error


def _read(path: str) -> bytes:
    try:
        if path == "-":
            return sys.stdin.buffer.read(_FILE_LIMIT + 1)
        with open(path, "rb") as file:
            return file.read(_FILE_LIMIT + 1)
    except OSError as error:
        raise Unusable(f"{path} cannot be read: {error.strerror}") from error
