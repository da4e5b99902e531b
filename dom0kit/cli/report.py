# SPDX-License-Identifier: MIT
"""``dom0kit report``: the machine as one HTML file to look at."""

from __future__ import annotations

import os

from dom0kit.cli import FINE, Unusable, emit
from dom0kit.cli.arguments import Parser, open_machine


def run(arguments: list[str]) -> int:
    parser = Parser("report", "The machine as one HTML file to look at: nothing in it is loaded from elsewhere.")
    parser.add_source()
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the HTML file; - is standard output")
    parser.add_argument("--force", action="store_true", help="replace an older file")
    parser.add_argument("--no-aml", action="store_true", help="do not interpret AML: quick, but no interrupt routing")
    options = parser.parse_args(arguments)
    parser.check_source(options)
    if options.output != "-" and os.path.exists(options.output) and not options.force:
        raise Unusable(f"{options.output} exists already (--force replaces it)")
    from dom0kit.check.rules import findings
    from dom0kit.cli.progress import Progress
    from dom0kit.observation import observe
    from dom0kit.report.page import page

    with Progress() as progress:
        platform = observe(open_machine(options), aml=not options.no_aml, progress=progress)
        progress("drawing")
        text = page(platform, findings(platform))
    if options.output == "-":
        return emit(text.encode())
    try:
        with open(options.output, "wb" if options.force else "xb") as file:
            file.write(text.encode())
    except OSError as error:
        raise Unusable(f"{options.output} cannot be written: {error.strerror}") from error
    return emit(f"{options.output}: {len(text.encode())} bytes, {len(platform.functions)} functions\n") or FINE
