# SPDX-License-Identifier: MIT
"""``dom0kit recover``: what was interrupted is undone, wherever it stopped."""

from __future__ import annotations

from dom0kit.cli import Unusable, emit, plans
from dom0kit.cli.arguments import Parser


def run(arguments: list[str]) -> int:
    parser = Parser(
        "recover",
        "Undo a plan that was interrupted while it was applied or rolled back, and forget plans of an earlier boot. "
        "Plans that were applied stay. Exit status 3: something could not be undone; try again when that is put right.",
    )
    parser.add_argument("--format", choices=("text", "json"), default="text", help="default: text")
    options = parser.parse_args(arguments)
    from dom0kit.hypercall.apply import NotUndone, recover
    from dom0kit.hypercall.journal import JournalError

    with plans.open_journals() as journals:
        try:
            recovery = recover(journals, plans.open_world, boot=plans.boot_id())
        except (NotUndone, JournalError) as failure:
            raise Unusable(str(failure)) from failure
    if options.format == "json":
        from dom0kit.serial import encode

        return emit(encode(recovery, indent=2) + b"\n")
    text = "".join(f"forgotten, for it was of an earlier boot: {title}\n" for title in recovery.forgotten)
    if recovery.returned is not None:
        text += plans.undone(recovery.returned)
    return emit(text or "nothing was interrupted\n")
