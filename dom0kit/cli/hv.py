# SPDX-License-Identifier: MIT
"""``dom0kit hv``: the hypervisor's side of the split, simulated from a recorded machine, or as it runs below."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dom0kit.cli import FINE, FOUND, Unusable, UsageError, closest, emit
from dom0kit.cli.arguments import Parser, open_machine

if TYPE_CHECKING:
    import argparse

    from dom0kit.platform import Platform
    from dom0kit.simulation import Simulation
    from dom0kit.source.interface import Source

_VERBS = {
    "simulate": "boot the core's model from a recorded machine, show what it then owns",
    "info": "which hypervisor the kernel module reaches, what it can and holds, what it reports",
    "shared-info": "the two pages that the hypervisor shares with dom0",
    "register": "confirm to the hypervisor where dom0 found the ACPI tables, as the service does at boot",
    "xen": "what real Xen does for this dom0, and what dom0's kernel has told it",
    "replay": "make the calls of a trace again, to the core's model of a recorded machine",
}


def run(arguments: list[str]) -> int:
    if arguments[:1] in (["--help"], ["-h"]):
        lines = "".join(f"  {verb:<11} {purpose}\n" for verb, purpose in _VERBS.items())
        return emit(f"usage: dom0kit hv VERB [ARGS]    (dom0kit hv VERB --help: what it takes)\n\n{lines}")
    if not arguments:
        raise UsageError("hv: which verb? (dom0kit hv --help)")
    if arguments[0] not in _VERBS:
        raise UsageError(f"hv: there is no verb {arguments[0]!r}{closest(arguments[0], _VERBS)} (dom0kit hv --help)")
    verbs = {
        "simulate": _simulate,
        "info": _information,
        "shared-info": _shared_info,
        "register": _register,
        "xen": _xen,
        "replay": _replay,
    }
    return verbs[arguments[0]](arguments[1:])


def _information(arguments: list[str]) -> int:
    parser = Parser("hv info", "What is below: backend, features, limits, counts, and what it found wrong.")
    parser.parse_args(arguments)
    from dom0kit.abi import Feature, Format, Mode
    from dom0kit.cli.module import opened
    from dom0kit.cli.text.layout import Section, columns, line, show

    with opened() as module:
        core = module.information()
        reports = list(module.reports())
    features = ", ".join(flag.name.lower().replace("_", " ") for flag in Feature(core.features) if flag.name)
    title = columns(
        [
            ("backend", module.backend.name.lower()),
            ("mode", Mode(core.mode).name.lower()),
            ("features", features),
            ("formats", f"entries {Format(core.entry_format).name.lower()}, "
                        f"messages {Format(core.message_format).name.lower()}"),
            ("holds", f"{core.cpus} processors, {core.ioapics} IOAPICs, GSIs below {core.gsis}, "
                      f"{core.functions} functions, {core.messages} messages, {core.domains} domains"),
            ("calls", f"{core.calls}, {core.calls_refused} refused; {core.trapped} trapped accesses, "
                      f"{core.trapped_refused} refused"),
        ]
    )  # fmt: skip
    show(
        title,
        [Section("reports", [line(f"{report.sentence} (at {report.where:#x})") for report in reports])]
        if reports
        else [],
    )
    return FOUND if reports else FINE


def _shared_info(arguments: list[str]) -> int:
    parser = Parser("hv shared-info", "What the hypervisor shares with dom0: ACPI pointers, IOAPICs, a counter.")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="default: text")
    options = parser.parse_args(arguments)
    from dom0kit.cli.module import opened

    with opened() as module:
        info = module.shared_info()
    if options.format == "json":
        from dom0kit.serial import encode

        return emit(encode(info, indent=2) + b"\n")
    from dom0kit.cli.text.layout import show
    from dom0kit.cli.text.simulation import shared_info

    show(shared_info(info), [])
    return FINE


def _register(arguments: list[str]) -> int:
    parser = Parser(
        "hv register",
        "Holds the ACPI pointers in shared_info against those that dom0's kernel found at boot, and hands them over to "
        "the hypervisor. Exit status 1 where dom0 cannot confirm them, or found others.",
    )
    parser.parse_args(arguments)
    from dom0kit.cli.module import opened
    from dom0kit.cli.text.layout import show
    from dom0kit.cli.text.simulation import shared_info
    from dom0kit.service.hand_over import NotHandedOver, hand_over
    from dom0kit.source.pointers import acpi_pointers

    with opened() as module:
        try:
            info, unseen = hand_over(module, acpi_pointers())
        except NotHandedOver as refused:
            emit(f"not handed over: {refused}\n")
            return FOUND
        if unseen is None:
            info = module.shared_info()
    show(shared_info(info), [])
    if unseen is not None:
        emit(f"not handed over: {unseen.message}\n")
        return FOUND
    return FINE


def _xen(arguments: list[str]) -> int:
    parser = Parser(
        "hv xen",
        "Which physdev operations real Xen has for this dom0, and whether dom0's kernel has told it of every function "
        "and GSI. Changes nothing. Exit status 1 where it has not.",
    )
    parser.add_argument("--format", choices=("text", "json"), default="text", help="default: text")
    options = parser.parse_args(arguments)
    from dom0kit.abi import Physdev
    from dom0kit.cli.arguments import open_live
    from dom0kit.cli.progress import Progress
    from dom0kit.hypercall.interface import HypercallRefused
    from dom0kit.hypercall.xen import Xen, XenMissing
    from dom0kit.hypercall.xen_told import told
    from dom0kit.observation import observe

    try:
        xen = Xen()
    except XenMissing as missing:
        raise Unusable(str(missing)) from missing
    with xen:
        with Progress() as progress:
            platform = observe(open_live(wake=False), progress=progress)
        assert platform.kernel is not None
        try:
            functions = [function.sbdf for function in platform.functions]
            known, wrong = told(xen, functions, platform.routes, platform.ioapics, platform.kernel)
        except HypercallRefused as refused:
            raise Unusable(str(refused)) from refused
    if options.format == "json":
        from dom0kit.serial import encode

        operations = {each.name.lower(): xen.domain.availability(each) for each in Physdev}
        answer = {"domain": xen.domain, "operations": operations, "told": known, "findings": wrong}
        emit(encode(answer, indent=2) + b"\n")
    else:
        from dom0kit.cli.text.layout import show
        from dom0kit.cli.text.xen import sections, title

        show(title(xen.domain, known), sections(xen.domain, known, wrong))
    return FOUND if wrong else FINE


def _replay(arguments: list[str]) -> int:
    parser = Parser(
        "hv replay",
        "Make every call of a trace (--trace-hypercalls) again, to the core's model of a machine. Exit status 1 where "
        "a call is answered otherwise than it was.",
    )
    parser.add_argument("trace", metavar="TRACE", help="a file that --trace-hypercalls wrote")
    parser.add_source()
    parser.add_argument("--mode", choices=("intercept", "direct"), default="intercept", help="default: intercept")
    options = parser.parse_args(arguments)
    parser.check_source(options)
    from dom0kit.abi import Mode
    from dom0kit.cli.text.layout import columns, count, line, show
    from dom0kit.hypercall.trace import BadTrace, read_trace, replay
    from dom0kit.simulation import booted

    try:
        calls = read_trace(options.trace)
    except BadTrace as error:
        raise Unusable(str(error)) from error
    except OSError as error:
        raise Unusable(f"{options.trace} cannot be read: {error.strerror}") from error
    source, platform = _observed(options)
    with _unusable_model(source):
        machine = booted(
            platform, source.tables(), Mode[options.mode.upper()], told=any(call.backend == "xen" for call in calls)
        )
    done = list(replay(calls, machine.domain(0)))
    other = [step for step in done if not step.agrees]
    rows = [(step.then.call, f"{step.then.status} then", f"{step.status.name} now") for step in other]
    title = f"{count(len(done), 'call')}, {len(other)} answered otherwise by the core"
    show([line(title), *columns(rows)], [])
    return FOUND if other else FINE


def _simulate(arguments: list[str]) -> int:
    parser = Parser(
        "hv simulate",
        "Boot the hypervisor core, over a modelled machine, from a recorded machine's tables; make a dom0's usual "
        "calls; show what the core then owns. Exit status 1 where it reports or refuses something.",
    )
    parser.add_source()
    parser.add_argument("--mode", choices=("intercept", "direct"), default="intercept", help="default: intercept")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="default: text")
    options = parser.parse_args(arguments)
    parser.check_source(options)
    simulation = _simulated(options)
    if options.format == "json":
        from dom0kit.serial import encode

        emit(encode(simulation, indent=2) + b"\n")
    else:
        from dom0kit.cli.text.layout import show
        from dom0kit.cli.text.simulation import sections, title

        show(title(simulation), sections(simulation))
    return FOUND if simulation.reports or simulation.refusals else FINE


def _simulated(options: argparse.Namespace) -> Simulation:
    from dom0kit.abi import Mode
    from dom0kit.simulation import simulate

    source, platform = _observed(options)
    with _unusable_model(source):
        return simulate(platform, source.tables(), Mode[options.mode.upper()])


def _observed(options: argparse.Namespace) -> tuple[Source, Platform]:
    """A machine that the core can boot from; Unusable without a MADT."""
    from dom0kit.cli.progress import Progress
    from dom0kit.observation import observe

    source = open_machine(options)
    if not any(table.name.startswith("APIC") for table in source.tables()):
        raise Unusable(
            f"{source.name} has no MADT: there is nothing to boot the core from; record a machine that has one"
        )
    with Progress() as progress:
        return source, observe(source, progress=progress)


@contextmanager
def _unusable_model(source: Source) -> Iterator[None]:
    """Unusable where no model can be made."""
    from dom0kit.hypercall.core_library import LibraryMissing

    try:
        yield
    except LibraryMissing as missing:
        raise Unusable(str(missing)) from missing
    except ValueError as error:
        raise Unusable(f"no model can be made of {source.name}: {error}") from error
