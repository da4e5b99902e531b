# SPDX-License-Identifier: MIT
"""``dom0kit irq``: the routing table; and its verbs: a plan for it, the budget of vectors, one IRQ's vector."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dom0kit.cli import FINE, FOUND, Unusable, UsageError, closest, emit
from dom0kit.cli.arguments import Parser, is_recorded, open_machine

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from dom0kit.finding import Finding
    from dom0kit.interrupts import RoutingTable
    from dom0kit.plan import Backend
    from dom0kit.platform import Platform

_VERBS = {
    "plan": "a plan for every GSI and message that no driver has; dom0kit apply carries it out",
    "budget": "vectors of each CPU and node, and what the machine needs if every function takes all its messages",
    "vector": "vector and CPU of one IRQ, asked of the hypervisor",
}


def run(arguments: list[str]) -> int:
    if arguments and not arguments[0].startswith("-"):
        verb, *rest = arguments
        if verb not in _VERBS:
            raise UsageError(f"irq: there is no verb {verb!r}{closest(verb, _VERBS)} (dom0kit irq --help)")
        return {"plan": _plan, "budget": _budget, "vector": _vector}[verb](rest)
    return _table(arguments)


def _table(arguments: list[str]) -> int:
    parser = Parser(
        "irq",
        "Every GSI and every function's messages: how they signal, where they go, who uses and who shares them.",
    )
    parser.epilog = "Verbs: " + "; ".join(f"irq {verb}: {purpose}" for verb, purpose in _VERBS.items()) + "."
    parser.add_source()
    parser.add_argument("--format", choices=("text", "json"), default="text", help="default: text")
    options = parser.parse_args(arguments)
    parser.check_source(options)
    platform, table, findings, remarks = _routing(options)
    if options.format == "json":
        from dom0kit.serial import encode

        emit(encode(table, indent=2) + b"\n")
    else:
        from dom0kit.cli.text import irq as text
        from dom0kit.cli.text.layout import show

        title, sections = text.table(platform.origin.name, table, remarks)
        show(title, [*sections, *text.told(findings)])
    return FOUND if findings else FINE


def _budget(arguments: list[str]) -> int:
    parser = Parser(
        "irq budget",
        "Vectors of each CPU and node: reserved, used, free, needed if every function takes all its messages. Exit "
        "status 1 where they do not suffice: then it says which functions to limit, and to what.",
    )
    parser.add_source()
    parser.add_argument(
        "--backend", choices=("xen", "hv_core", "linux"), help="whose vectors; default: of what the machine runs on"
    )
    parser.add_argument("--policy", default="spread", metavar="P", help="spread (default), node, or cpu=0-3,8")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="default: text")
    options = parser.parse_args(arguments)
    parser.check_source(options)
    from dom0kit.plan import Backend
    from dom0kit.vectors import Policy, budget, limits

    try:
        policy = Policy.parse(options.policy)
    except ValueError as error:
        parser.error(str(error))
    platform, table, _, _ = _routing(options)
    backend = Backend(options.backend) if options.backend is not None else _owner(platform)
    try:
        found = budget(platform, table, limits(platform, backend), policy)
    except ValueError as error:
        raise Unusable(f"{platform.origin.name}: {error}") from error
    if options.format == "json":
        from dom0kit.serial import encode

        emit(encode(found, indent=2) + b"\n")
    else:
        from dom0kit.cli.text import irq as text
        from dom0kit.cli.text.layout import show

        show(*text.budget(platform.origin.name, found))
    return FINE if found.fits else FOUND


def _plan(arguments: list[str]) -> int:
    parser = Parser(
        "irq plan",
        "A plan for every GSI and every function's messages that no driver of dom0 has. Nothing is changed: dom0kit "
        "apply does. Exit status 1 where vectors do not suffice, or domains would share a GSI.",
    )
    parser.add_source()
    parser.add_argument("-o", dest="output", metavar="FILE", help="write the plan there, for dom0kit apply")
    parser.add_argument(
        "--backend",
        choices=("library", "loopback", "hv_core", "xen", "linux"),
        help="who answers the calls; default: what the kernel module finds here, of a recording Xen where it "
        "ran there, else loopback",
    )
    parser.add_argument(
        "--dialect",
        choices=("modern", "classic-2005", "classic-xen"),
        default="modern",
        help="modern (default): setup_gsi, map_pirq, pci_device_add; classic: dom0 writes redirection entries",
    )
    parser.add_argument(
        "--mode",
        choices=("direct", "intercept"),
        help="whether dom0 or the core chooses vectors; default: as it runs, of a recording direct with hv_core",
    )
    parser.add_argument(
        "--policy", metavar="P", help="spread, node, or cpu=0-3,8; without: nothing that is in use is moved"
    )
    parser.add_argument(
        "--entries", type=int, metavar="N", help="messages a function at most; default: MSI-X one a CPU, MSI one"
    )
    parser.add_argument("--format", choices=("text", "json"), default="text", help="default: text")
    options = parser.parse_args(arguments)
    parser.check_source(options)
    if options.entries is not None and not 1 <= options.entries <= 2048:
        parser.error(f"--entries is 1 to 2048, not {options.entries}")
    from dom0kit.interrupt_plan import Wishes, plan_interrupts
    from dom0kit.plan import Dialect
    from dom0kit.vectors import Policy

    try:
        policy = None if options.policy is None else Policy.parse(options.policy)
    except ValueError as error:
        parser.error(str(error))
    platform, table, findings, remarks = _routing(options)
    answering = backend_of(platform, options.backend, options.mode, recorded=is_recorded(options))
    try:
        wishes = Wishes(
            dialect=Dialect(options.dialect),
            policy=policy,
            entries=options.entries,
            **answering._asdict(),
        )
    except ValueError as error:
        parser.error(f"{error}; --backend and --dialect choose")
    try:
        made = plan_interrupts(platform, table, wishes)
    except ValueError as error:
        raise Unusable(f"{platform.origin.name}: {error}") from error
    from dom0kit.serial import encode

    if options.output is not None:
        _write(options.output, encode(made.plan, indent=2) + b"\n")
    if options.format == "json":
        emit(encode(made.plan, indent=2) + b"\n")
    else:
        from dom0kit.cli.text import irq as text
        from dom0kit.cli.text.layout import show

        title, sections = text.plan(made, remarks, written=options.output)
        show(title, [*sections, *text.told([*made.findings, *findings])])
    return FOUND if made.findings or made.limited else FINE


class Answering(NamedTuple):
    """Who answers a plan's calls, and how."""

    backend: Backend
    intercept: bool
    """It chooses vectors by itself."""
    extended_destination: bool = False
    """It announced the extended destination id."""


def backend_of(platform: Platform, backend: str | None, mode: str | None, *, recorded: bool) -> Answering:
    """As it was asked for; where nobody says, as this machine runs."""
    from dom0kit.abi import Format, Mode
    from dom0kit.hypercall.kernel_module import KernelModule, ModuleMissing
    from dom0kit.plan import Backend

    chosen = None if backend is None else Backend(backend)
    if not recorded and chosen not in (Backend.LIBRARY, Backend.LINUX, Backend.XEN):
        try:
            with KernelModule() as module:
                found = Backend(module.backend.name.lower())
                if chosen in (None, found):
                    if not found.is_core:
                        return Answering(found, intercept=False)
                    told = module.information()
                    intercept = told.mode == Mode.INTERCEPT if mode is None else mode == "intercept"
                    return Answering(found, intercept, told.message_format == Format.EXTENDED_DESTINATION)
        except ModuleMissing:
            pass
    if chosen is None:
        owner = _owner(platform)
        chosen = Backend.LOOPBACK if owner is Backend.LINUX and recorded else owner
    if mode is None:
        return Answering(chosen, chosen in (Backend.LIBRARY, Backend.LOOPBACK))
    return Answering(chosen, mode == "intercept")


def _write(path: str, data: bytes) -> None:
    try:
        with open(path, "wb") as file:
            file.write(data)
    except OSError as error:
        raise Unusable(f"{path} cannot be written: {error.strerror}") from error


def _owner(platform: Platform) -> Backend:
    """Whose vectors they are where nobody says."""
    from dom0kit.plan import Backend

    return Backend.XEN if platform.machine.hypervisor == "xen" else Backend.LINUX


def _routing(options: argparse.Namespace) -> tuple[Platform, RoutingTable, Sequence[Finding], list[str]]:
    """The machine and its table; of this machine with what its hardware says; and remarks on what could not be read."""
    from dom0kit.cli.progress import Progress
    from dom0kit.interrupts import routing_table
    from dom0kit.observation import observe

    remarks: list[str] = []
    with Progress() as progress:
        platform = observe(open_machine(options), progress=progress)
    if is_recorded(options):
        table, findings = routing_table(platform)
    else:
        from dom0kit.cli.hardware import live_entries, live_tables

        entries = {}
        try:
            entries = live_entries()
        except Unusable as error:
            remarks.append(f"where pins go is not known: {error}")
        table, findings = routing_table(platform, entries=entries, tables=live_tables(platform, remarks))
    if not table.lines and not table.messages:
        raise Unusable(f"{platform.origin.name} shows no interrupt: neither a used GSI nor a function with messages")
    return platform, table, findings, remarks


def _vector(arguments: list[str]) -> int:
    parser = Parser("irq vector", "Vector and processor of an IRQ; exit status 1 where it has none.")
    parser.add_argument("irq", metavar="IRQ", type=int, help="a pIRQ, or the GSI of that number")
    options = parser.parse_args(arguments)
    if not 0 <= options.irq < 1 << 32:
        parser.error(f"an IRQ is a number from 0 on, not {options.irq}")
    from dom0kit.abi import Status
    from dom0kit.cli.module import opened_hypervisor
    from dom0kit.hypercall.interface import HypercallRefused

    with opened_hypervisor() as hypervisor:
        try:
            found = hypervisor.query_vector(options.irq)
        except HypercallRefused as refused:
            unknown = refused.status is Status.INVALID
            emit(f"IRQ {options.irq}: {'dom0 has no such interrupt' if unknown else refused.status.sentence}\n")
            return FOUND
    where = f"CPU {found.cpu}, APIC id {found.apic_id}" if found.cpu is not None else f"destination {found.apic_id:#x}"
    flags = ", ".join(flag.name.lower().replace("_", " ") for flag in found.flags if flag.name)
    return emit(f"IRQ {options.irq}: vector {found.vector:#04x} on {where}{', ' + flags if flags else ''}\n")
