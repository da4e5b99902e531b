# SPDX-License-Identifier: MIT
"""``dom0kit report``: the machine as one HTML file to look at."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from dom0kit.cli import FINE, Unusable, emit
from dom0kit.cli.arguments import Parser, open_machine

if TYPE_CHECKING:
    from dom0kit.finding import Finding
    from dom0kit.partition.check import Given
    from dom0kit.partition.document import Document
    from dom0kit.platform import Platform


def run(arguments: list[str]) -> int:
    parser = Parser("report", "The machine as one HTML file to look at: nothing in it is loaded from elsewhere.")
    parser.add_source()
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the HTML file; - is standard output")
    parser.add_argument(
        "--partition", metavar="FILE", help="show who gets what by this partition.toml, and its conflicts"
    )
    parser.add_argument("--force", action="store_true", help="replace an older file")
    parser.add_argument("--no-aml", action="store_true", help="do not interpret AML: quick, but no interrupt routing")
    options = parser.parse_args(arguments)
    parser.check_source(options)
    if options.output != "-" and os.path.exists(options.output) and not options.force:
        raise Unusable(f"{options.output} exists already (--force replaces it)")
    document = _document(options.partition) if options.partition is not None else None
    from dom0kit.check.rules import findings
    from dom0kit.cli.progress import Progress
    from dom0kit.observation import observe
    from dom0kit.report.page import page

    with Progress() as progress:
        platform = observe(open_machine(options), aml=not options.no_aml, progress=progress)
        progress("drawing")
        told: tuple[Finding, ...] = findings(platform)
        domains: tuple[Given, ...] = ()
        if document is not None:
            told, domains = _judged(platform, told, document)
        text = page(platform, told, domains)
    if options.output == "-":
        return emit(text.encode())
    try:
        with open(options.output, "wb" if options.force else "xb") as file:
            file.write(text.encode())
    except OSError as error:
        raise Unusable(f"{options.output} cannot be written: {error.strerror}") from error
    return emit(f"{options.output}: {len(text.encode())} bytes, {len(platform.functions)} functions\n") or FINE


def _document(path: str) -> Document:
    from dom0kit.partition.document import Mistakes, read

    try:
        with open(path, "rb") as file:
            return read(file.read())
    except OSError as error:
        raise Unusable(f"{path} cannot be read: {error.strerror}") from error
    except Mistakes as found:
        place, sentence = found.mistakes[0]
        raise Unusable(f"{path}:{place.line}:{place.column}: {sentence} (dom0kit partition check says all)") from found


def _judged(
    platform: Platform, told: tuple[Finding, ...], document: Document
) -> tuple[tuple[Finding, ...], tuple[Given, ...]]:
    """The findings with the partition's conflicts among them, and the domains."""
    from dom0kit.check.rules import ordered
    from dom0kit.partition.check import check
    from dom0kit.partition.ground import Ground

    verdict = check(Ground(platform), document)
    return ordered((*told, *(conflict.finding for conflict in verdict.conflicts))), verdict.domains
