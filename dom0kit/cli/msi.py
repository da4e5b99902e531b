# SPDX-License-Identifier: MIT
"""``dom0kit msi``: the messages of one function, shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dom0kit.cli import FINE, Unusable, UsageError, closest, emit
from dom0kit.cli.arguments import Parser, is_recorded, open_machine

if TYPE_CHECKING:
    from collections.abc import Callable

    from dom0kit.address import Sbdf
    from dom0kit.cli.hardware import Table
    from dom0kit.msi.state import MsiState
    from dom0kit.platform import Platform

_VERBS = {
    "dump": "MSI and MSI-X of one function: capability, table, where each message goes",
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
    return {"dump": _dump}[verb](rest)


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
