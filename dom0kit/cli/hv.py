# SPDX-License-Identifier: MIT
"""``dom0kit hv``: the hypervisor's side of the split. ``simulate`` boots the core's model from a recorded machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dom0kit.cli import FINE, FOUND, Unusable, UsageError, emit
from dom0kit.cli.arguments import Parser, open_machine

if TYPE_CHECKING:
    import argparse

    from dom0kit.simulation import Simulation

_USAGE = "simulate boots the core's model from a recorded machine and shows what it then owns"


def run(arguments: list[str]) -> int:
    if arguments[:1] in ([], ["--help"], ["-h"]):
        if not arguments:
            raise UsageError("hv: which? (dom0kit hv --help)")
        return emit(f"usage: dom0kit hv simulate [ARGS]\n\n{_USAGE}\n")
    if arguments[0] != "simulate":
        raise UsageError(f"hv: there is no {arguments[0]!r} (dom0kit hv --help)")
    return _simulate(arguments[1:])


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
    from dom0kit.cli.progress import Progress
    from dom0kit.hypercall.core_library import LibraryMissing
    from dom0kit.observation import observe
    from dom0kit.simulation import simulate

    source = open_machine(options)
    tables = source.tables()
    if not any(table.name.startswith("APIC") for table in tables):
        raise Unusable(
            f"{source.name} has no MADT: there is nothing to boot the core from; record a machine that has one"
        )
    with Progress() as progress:
        platform = observe(source, progress=progress)
    try:
        return simulate(platform, tables, Mode[options.mode.upper()])
    except LibraryMissing as missing:
        raise Unusable(str(missing)) from missing
    except ValueError as error:
        raise Unusable(f"no model can be made of {source.name}: {error}") from error
