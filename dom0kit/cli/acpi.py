# SPDX-License-Identifier: MIT
"""``dom0kit acpi``: browse the namespace, evaluate an object."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dom0kit.cli import FINE, FOUND, Unusable, UsageError, closest, emit
from dom0kit.cli.arguments import Parser, open_machine

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from dom0kit.address import Sbdf
    from dom0kit.cli.progress import Progress
    from dom0kit.source.interface import RawTable

VERBS = {"tree": "every object of the namespace", "eval": "evaluate one object"}


def run(arguments: list[str]) -> int:
    if arguments[:1] in (["--help"], ["-h"]):
        lines = "".join(f"  {verb:<5} {purpose}\n" for verb, purpose in VERBS.items())
        return emit(f"usage: dom0kit acpi VERB [ARGS]    (dom0kit acpi VERB --help: what it takes)\n\n{lines}")
    if not arguments:
        raise UsageError("acpi: which verb, tree or eval? (dom0kit acpi --help)")
    if arguments[0] not in VERBS:
        raise UsageError(f"acpi: there is no verb {arguments[0]!r}{closest(arguments[0], VERBS)} (dom0kit acpi --help)")
    return _tree(arguments[1:]) if arguments[0] == "tree" else _evaluate(arguments[1:])


def _tree(arguments: list[str]) -> int:
    parser = Parser("acpi tree", "Every object of the ACPI namespace, devices with what they say of themselves.")
    options = _parse(parser, arguments)
    from dom0kit.acpi.aml import interpret
    from dom0kit.cli.progress import Progress

    with Progress() as progress:
        name, tables, config = _read(options, progress)
        progress("interpreting AML")
        namespace = interpret(tables, config)
    if options.format == "json":
        return _emit_json(namespace)
    from dom0kit.cli.text.acpi import namespace as tree
    from dom0kit.cli.text.layout import Section, line, show

    show([line(name)], [Section("\\", tree(namespace))])
    return FINE


def _evaluate(arguments: list[str]) -> int:
    parser = Parser("acpi eval", "Evaluate one object of the ACPI namespace; exit status 1 where that fails.")
    parser.add_argument("object", metavar="PATH", help=r"as acpi tree shows it: \_SB.PCI0._CRS")
    parser.add_argument("argument", metavar="ARG", nargs="*", help='0x1, "text", (00 FF) for a buffer, [0x1 "a"]')
    options = _parse(parser, arguments)
    from dom0kit.acpi.aml import evaluate
    from dom0kit.cli.progress import Progress

    with Progress() as progress:
        _, tables, config = _read(options, progress)
        progress(f"evaluating {options.object}")
        result = evaluate(tables, config, options.object, options.argument)
    if options.format == "json":
        _emit_json(result)
    else:
        from dom0kit.cli.text.acpi import evaluation
        from dom0kit.cli.text.layout import show

        show(*evaluation(result))
    return FINE if result.evaluation.ok else FOUND


def _parse(parser: Parser, arguments: list[str]) -> Namespace:
    parser.add_argument("--format", choices=("text", "json"), default="text", help="default: text")
    parser.add_source()
    options = parser.parse_args(arguments)
    parser.check_source(options)
    return options


def _read(options: Namespace, progress: Progress) -> tuple[str, Sequence[RawTable], dict[Sbdf, bytes]]:
    """Name of the machine, its tables, and its functions' config space."""
    progress("reading")
    source = open_machine(options)
    tables = source.tables()
    if not tables:
        raise Unusable(f"{source.name} has no ACPI tables, or root alone can read them; --from PATH names another")
    return source.name, tables, {function.sbdf: function.config for function in source.functions()}


def _emit_json(value: object) -> int:
    from dom0kit.serial import encode

    return emit(encode(value, indent=2) + b"\n")
