# SPDX-License-Identifier: MIT
"""``dom0kit rollback``: the newest plan that was applied is undone."""

from __future__ import annotations

from dom0kit.cli import FOUND, Unusable, emit, plans, refuse
from dom0kit.cli.arguments import Parser


def run(arguments: list[str]) -> int:
    parser = Parser(
        "rollback",
        "Undo the newest plan that was applied. Exit status 1: there is none; 3: something could not be undone, and "
        "dom0kit recover goes on from there.",
    )
    parser.add_argument("--format", choices=("text", "json"), default="text", help="default: text")
    options = parser.parse_args(arguments)
    from dom0kit.hypercall.apply import NotApplied, NotUndone, roll_back
    from dom0kit.hypercall.journal import JournalError

    with plans.open_journals() as journals:
        try:
            outcome = roll_back(journals, plans.open_world, boot=plans.boot_id())
        except NotApplied as refusal:
            return refuse(FOUND, str(refusal))
        except (NotUndone, JournalError) as failure:
            raise Unusable(str(failure)) from failure
    if options.format == "json":
        from dom0kit.serial import encode

        return emit(encode(outcome, indent=2) + b"\n")
    return emit(plans.undone(outcome))
