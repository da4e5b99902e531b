# SPDX-License-Identifier: MIT
"""``dom0kit msi``: the messages of one function, shown, mapped and unmapped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dom0kit.cli import FINE, Unusable, UsageError, closest, emit
from dom0kit.cli.arguments import Parser, is_recorded, open_live, open_machine

if TYPE_CHECKING:
    from collections.abc import Callable

    from dom0kit.address import Sbdf
    from dom0kit.cli.hardware import Table
    from dom0kit.msi.state import MsiState
    from dom0kit.platform import Platform

_VERBS = {
    "dump": "MSI and MSI-X of one function: capability, table, where each message goes",
    "map": "map the messages of a function without a driver, by a plan that is applied at once",
    "unmap": "take them away again",
}


def run(arguments: list[str]) -> int:
    if arguments[:1] in (["--help"], ["-h"]):
        lines = "".join(f"  {verb:<5} {purpose}\n" for verb, purpose in _VERBS.items())
        return emit(f"usage: dom0kit msi VERB SBDF [ARGS]    (dom0kit msi VERB --help: what it takes)\n\n{lines}")
    if not arguments:
        raise UsageError("msi: which verb? (dom0kit msi --help)")
    verb, *rest = arguments
    if verb not in _VERBS:
        raise UsageError(f"msi: there is no verb {verb!r}{closest(verb, _VERBS)} (dom0kit msi --help)")
    return {"dump": _dump, "map": _map, "unmap": _unmap}[verb](rest)


def _dump(arguments: list[str]) -> int:
    parser = Parser("msi dump", "MSI and MSI-X of one function. The entries of a table are read on this machine only.")
    function = _function(parser)
    parser.add_source()
    parser.add_argument("--format", choices=("text", "json"), default="text", help="default: text")
    options = parser.parse_args(arguments)
    parser.check_source(options)
    sbdf = function(options.function)
    from dom0kit.cli.progress import Progress
    from dom0kit.observation import observe

    with Progress() as progress:
        platform = observe(open_machine(options), aml=False, progress=progress)
    state = _state(platform, sbdf)
    remarks: list[str] = []
    table: Table | None = None
    if state.msix is not None and not is_recorded(options):
        table = _table(platform, state, remarks)
    elif state.msix is not None:
        remarks.append("a recording does not hold the entries of the MSI-X table")
    if options.format == "json":
        from dom0kit.serial import encode

        rows = None if table is None else [{"message": message, "masked": masked} for message, masked in table]
        return emit(encode({"state": state, "table": rows}, indent=2) + b"\n")
    from dom0kit.cli.text import msi as text
    from dom0kit.cli.text.layout import show

    driver = next(each.driver for each in platform.functions if each.sbdf == sbdf)
    show(*text.dump(state, driver, table, remarks))
    return FINE


def _map(arguments: list[str]) -> int:
    parser = Parser(
        "msi map",
        "Map the messages of a function that has no driver; on hv_core also write, unmask and enable them. It is a "
        "plan, applied at once; dom0kit rollback brings back what was. Exit status 1 where it is refused.",
    )
    function = _function(parser)
    parser.add_argument("--entries", type=int, metavar="N", help="messages at most; default: MSI-X one a CPU, MSI one")
    _add_ways(parser)
    options = parser.parse_args(arguments)
    if options.entries is not None and not 1 <= options.entries <= 2048:
        parser.error(f"--entries is 1 to 2048, not {options.entries}")
    sbdf = function(options.function)
    from dom0kit.cli.at_once import apply_at_once
    from dom0kit.cli.irq import backend_of
    from dom0kit.interrupt_plan import Wishes, plan_messages
    from dom0kit.interrupts import routing_table

    platform = _this_machine()
    _state(platform, sbdf)
    wishes = Wishes(entries=options.entries, **backend_of(platform, None, None, recorded=False)._asdict())
    from dom0kit.cli.hardware import live_tables

    table, _ = routing_table(platform, tables=live_tables(platform, []))
    try:
        plan = plan_messages(platform, table, wishes, sbdf)
    except ValueError as error:
        raise Unusable(str(error)) from error
    return apply_at_once(plan, dry_run=options.dry_run)


def _unmap(arguments: list[str]) -> int:
    parser = Parser(
        "msi unmap",
        "Take away the messages of a function that has no driver, on hv_core after switching them off. It is a plan, "
        "applied at once. Not under Xen, which does not tell what a function has: there dom0kit rollback does it.",
    )
    function = _function(parser)
    _add_ways(parser)
    options = parser.parse_args(arguments)
    sbdf = function(options.function)
    from dom0kit.abi import Kind
    from dom0kit.cli.at_once import apply_at_once
    from dom0kit.cli.module import opened
    from dom0kit.msi.plan import unmap_plan
    from dom0kit.plan import Backend

    platform = _this_machine()
    state = _state(platform, sbdf)
    described = next(each for each in platform.functions if each.sbdf == sbdf)
    with opened() as module:
        backend = Backend(module.backend.name.lower())
        if not backend.is_core:
            raise Unusable("Xen does not tell which pIRQs a function has: dom0kit rollback undoes msi map")
        pirqs = {
            each.pirq: (each.entry or 0, each.kind is Kind.MSIX)
            for each in module.interrupts()
            if each.function == sbdf and each.pirq is not None
        }
    try:
        plan = unmap_plan(described, state, pirqs, backend, platform.origin.fingerprint)
    except ValueError as error:
        raise Unusable(str(error)) from error
    return apply_at_once(plan, dry_run=options.dry_run)


def _add_ways(parser: Parser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="check everything, list every call, do nothing")


def _this_machine() -> Platform:
    from dom0kit.cli.progress import Progress
    from dom0kit.observation import observe

    with Progress() as progress:
        return observe(open_live(wake=False), aml=False, progress=progress)


def _function(parser: Parser) -> Callable[[str], Sbdf]:
    """Declares the argument SBDF; what it gives turns its text into the function."""
    parser.add_argument("function", metavar="SBDF", help="PCI function, such as 0000:00:1f.3")

    def parsed(text: str) -> Sbdf:
        from dom0kit.address import Sbdf

        try:
            return Sbdf.parse(text)
        except ValueError as error:
            parser.error(str(error))

    return parsed


def _state(platform: Platform, sbdf: Sbdf) -> MsiState:
    state = next((each for each in platform.msi if each.sbdf == sbdf), None)
    if state is None or (state.msi is None and state.msix is None):
        there = any(function.sbdf == sbdf for function in platform.functions)
        what = f"{sbdf} has neither MSI nor MSI-X" if there else f"there is no function {sbdf}"
        raise Unusable(f"{platform.origin.name}: {what} (dom0kit irq lists those that have)")
    return state


def _table(platform: Platform, state: MsiState, remarks: list[str]) -> Table | None:
    """The entries of this machine's table; a remark where they cannot be read."""
    from dom0kit.cli.hardware import message_format, msix_table
    from dom0kit.hypercall.linux import LinuxRefused

    use = state.msix
    function = next(each for each in platform.functions if each.sbdf == state.sbdf)
    if use is None:
        return None
    if function.asleep or not function.command & 2:
        remarks.append(
            f"the table is not read: {'the function is asleep' if function.asleep else 'memory decode is off'}"
        )
        return None
    try:
        return msix_table(state.sbdf, use.table_bar, use.table_offset, use.vectors, message_format(platform))
    except LinuxRefused as error:
        remarks.append(f"the table cannot be read: {error}")
        return None
