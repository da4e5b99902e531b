# SPDX-License-Identifier: MIT
"""``dom0kit status``: which plans are applied."""

from __future__ import annotations

from dom0kit.cli import FINE, FOUND, Unusable, emit, plans
from dom0kit.cli.arguments import Parser


def run(arguments: list[str]) -> int:
    parser = Parser(
        "status",
        "Plans that are applied, the oldest first. Exit status 1: one was interrupted, or is of an earlier boot.",
    )
    parser.add_argument("--format", choices=("text", "json"), default="text", help="default: text")
    options = parser.parse_args(arguments)
    from dom0kit.hypercall.apply import APPLIED, status
    from dom0kit.hypercall.journal import JournalError

    with plans.open_journals() as journals:
        try:
            states = status(journals, boot=plans.boot_id())
        except JournalError as error:
            raise Unusable(str(error)) from error
    result = FINE if all(state.state == APPLIED for state in states) else FOUND
    if options.format == "json":
        from dom0kit.serial import encode

        emit(encode(states, indent=2) + b"\n")
        return result
    if not states:
        return emit("no plan is applied\n")
    from dom0kit.cli.text.layout import columns, line, show

    rows = columns(
        [
            (
                f"plan {state.number}",
                state.state,
                f"{state.done} of {state.operations} operations",
                state.backend,
                state.title,
            )
            for state in states
        ]
    )
    for row, state in zip(rows, states, strict=True):
        row.children = [line(f"stays when rolled back: {residue}") for residue in state.residues]
    if result == FOUND:
        rows.append(line("dom0kit recover undoes what was interrupted, and forgets what is of an earlier boot"))
    show(rows, [])
    return result
