# SPDX-License-Identifier: MIT
"""``dom0kit enumerate``: the whole machine, live or recorded, and what is wrong with it."""

from __future__ import annotations

import os.path
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import dom0kit
from dom0kit.cli import FINE, FOUND, Unusable, emit
from dom0kit.cli.arguments import Parser, is_recorded, open_live, open_machine, open_recorded

if TYPE_CHECKING:
    from argparse import Namespace

    from dom0kit.source.interface import Source

SHIPPED = os.path.join(os.path.dirname(dom0kit.__file__), "recordings", "qemu-q35.d0k")
"""Shown where this machine shows nothing of itself."""

PARTS = ("acpi", "pci", "interrupts", "cpus", "memory")


def run(arguments: list[str]) -> int:
    parser = Parser("enumerate", "See the whole machine; exit status 1 where something is wrong with it.")
    parser.add_source()
    parser.add_argument("--only", choices=PARTS, help="compute and show this part alone")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="default: text")
    parser.add_argument("--no-aml", action="store_true", help="do not interpret AML: quick, but no interrupt routing")
    parser.add_argument(
        "--kernel-aml",
        action="store_true",
        help="have this kernel evaluate AML too, by dom0kit.ko: its values count, and what differs is a finding",
    )
    options = parser.parse_args(arguments)
    parser.check_source(options)
    if options.kernel_aml and (options.no_aml or is_recorded(options)):
        parser.error("--kernel-aml is for this machine and its AML: not with --from, --acpi, --pci or --no-aml")
    from dom0kit.cli.progress import Progress
    from dom0kit.finding import Severity
    from dom0kit.observation import observe

    with ExitStack() as stack:
        kernel_aml = None
        if options.kernel_aml:
            from dom0kit.cli.module import opened

            kernel_aml = stack.enter_context(opened()).evaluate
        progress = stack.enter_context(Progress())
        source, remark = (open_machine(options), "") if options.kernel_aml else _source(options)
        platform = observe(source, aml=not options.no_aml, kernel_aml=kernel_aml, only=options.only, progress=progress)
    if options.format == "json":
        if remark:
            print(f"dom0kit: {remark}", file=sys.stderr)
        from dom0kit.serial import pieces

        for piece in pieces(platform):
            emit(piece)
    else:
        from dom0kit.cli.text.layout import show
        from dom0kit.cli.text.report import report

        show(*report(platform, remark=remark))
    return FOUND if any(finding.severity is not Severity.INFO for finding in platform.findings) else FINE


def _source(options: Namespace) -> tuple[Source, str]:
    """The machine to see, and what the reader must know of it first."""
    if is_recorded(options) or options.native is not None:
        return open_machine(options), ""
    try:
        return open_live(wake=options.wake), ""
    except Unusable as error:
        if not os.path.isfile(SHIPPED):
            raise
        return open_recorded(
            SHIPPED
        ), f"{str(error).partition(';')[0]}; this is {os.path.basename(SHIPPED)} of dom0kit instead."
