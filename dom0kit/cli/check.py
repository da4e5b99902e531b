# SPDX-License-Identifier: MIT
"""``dom0kit check``: what is wrong with a machine, or with many recorded ones."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from dom0kit.cli import FINE, FOUND, Unusable, emit
from dom0kit.cli.arguments import Parser, is_recorded, open_machine

if TYPE_CHECKING:
    from argparse import Namespace

    from dom0kit.check.corpus import Checked
    from dom0kit.check.verdict import Known
    from dom0kit.finding import Severity


def run(arguments: list[str]) -> int:
    parser = Parser(
        "check", "What is wrong with a machine; exit status 1 where something is, at or above the severity."
    )
    parser.add_source()
    parser.add_argument(
        "--severity", choices=("info", "warn", "error"), default="warn", help="tell only this and above; default: warn"
    )
    parser.add_argument(
        "--baseline", metavar="FILE", help="leave out what this JSON of an earlier check (or of enumerate) has"
    )
    parser.add_argument("--corpus", metavar="DIR", help="check every recorded machine in this folder and below")
    parser.add_argument(
        "-j", dest="workers", type=int, metavar="N", help="with --corpus: processes; default: all cores"
    )
    parser.add_argument(
        "--format",
        choices=("text", "json", "csv"),
        default="text",
        help="default: text; with --corpus json is a line for each machine, and csv one for each finding",
    )
    parser.add_argument(
        "--no-aml", action="store_true", help="do not interpret AML: quick, but without interrupt routing"
    )
    options = parser.parse_args(arguments)
    parser.check_source(options)
    if options.corpus is not None and (is_recorded(options) or options.native or options.wake or options.baseline):
        parser.error(
            "--corpus names the machines: --from, --acpi, --pci, --native, --wake and --baseline do not go with it"
        )
    if options.corpus is None and (options.workers is not None or options.format == "csv"):
        parser.error("-j and --format csv are for --corpus")
    if options.workers is not None and not 1 <= options.workers <= 1024:
        parser.error("-j takes 1 to 1024 processes")
    from dom0kit.finding import Severity

    least = {"info": Severity.INFO, "warn": Severity.WARNING, "error": Severity.ERROR}[options.severity]
    return _one(options, least) if options.corpus is None else _corpus(options, least)


def _one(options: Namespace, least: Severity) -> int:
    known = _known(options.baseline) if options.baseline is not None else frozenset()
    from dom0kit.check.verdict import judge
    from dom0kit.cli.progress import Progress
    from dom0kit.observation import observe

    with Progress() as progress:
        platform = observe(open_machine(options), aml=not options.no_aml, progress=progress)
        progress("checking")
        verdict = judge(platform, least=least, known=known)
    if options.format == "json":
        from dom0kit.serial import encode

        emit(encode(verdict, indent=2) + b"\n")
    else:
        from dom0kit.cli.text import check, layout

        layout.show(*check.verdict(verdict))
    return FOUND if verdict.findings else FINE


def _known(path: str) -> Known:
    from dom0kit.check.verdict import baseline
    from dom0kit.serial import UndecodableJson

    try:
        with open(path, "rb") as file:
            return baseline(file.read())
    except OSError as error:
        raise Unusable(f"the baseline {path} cannot be read: {error.strerror}") from error
    except UndecodableJson as error:
        raise Unusable(f"the baseline {path} is no JSON of dom0kit check: {error}") from error


def _corpus(options: Namespace, least: Severity) -> int:
    import gc

    from dom0kit.check import corpus

    try:
        machines = corpus.recorded(options.corpus)
    except OSError as error:
        raise Unusable(f"{options.corpus} cannot be read: {error.strerror}") from error
    if not machines:
        raise Unusable(f"{options.corpus} holds no recorded machines (dom0kit check --help)")
    gc.enable()  # for one machine it is not worth while
    workers = options.workers or len(os.sched_getaffinity(0))
    checked = _heavy(corpus.check_all(machines, workers=workers, aml=not options.no_aml), least)
    results = []
    for number, each in enumerate(_told(checked, options.format), 1):
        results.append(each)
        _progress(number, len(machines), each.name)
    _progress(0, 0, "")
    if options.format == "text":
        from dom0kit.cli.text import check, layout

        layout.show(*check.corpus(results, corpus.faults(results)))
    if all(each.error is not None for each in results):
        raise Unusable(f"none of the {len(results)} machines in {options.corpus} can be read")
    return FOUND if any(each.findings or each.error for each in results) else FINE


def _heavy(checked: Iterator[Checked], least: Severity) -> Iterator[Checked]:
    """Without findings below a severity."""
    from msgspec.structs import replace

    from dom0kit.check.verdict import at_least

    return (replace(each, findings=at_least(each.findings, least)) for each in checked)


def _told(checked: Iterator[Checked], format: str) -> Iterator[Checked]:
    """Each machine, written as soon as it is known where the format has a machine for itself."""
    from dom0kit.serial import encode

    if format == "csv":
        emit(_row(("machine", "severity", "rule", "where", "message")))
    for each in checked:
        if format == "json":
            emit(encode(each) + b"\n")
        elif format == "csv":
            rows = [(each.name, of.severity.value, of.rule, of.where, of.message) for of in each.findings]
            if not rows:
                rows = [(each.name, "unreadable" if each.error else "", "", "", each.error or "")]
            emit("".join(map(_row, rows)))
        yield each


def _row(cells: Sequence[str]) -> str:
    import csv
    import io

    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _progress(number: int, total: int, name: str) -> None:
    """A line on standard error, where that is a terminal; it is gone when `total` is 0."""
    if sys.stderr.isatty():
        text = f"{number} of {total}: {name}" if total else ""
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
