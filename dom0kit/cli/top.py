# SPDX-License-Identifier: MIT
"""``dom0kit top``: interrupts per second by device and processor, as they come."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dom0kit.cli import FINE, Unusable, emit
from dom0kit.cli.arguments import Parser

if TYPE_CHECKING:
    from collections.abc import Callable

    from dom0kit.trace.rates import Rates


def run(arguments: list[str]) -> int:
    parser = Parser(
        "top",
        "Interrupts per second of each device on each CPU, moves from CPU to CPU, spurious and unhandled ones, errors; "
        "from /proc and /sys, without programs in the kernel. Until interrupted.",
    )
    parser.add_argument("--every", type=float, default=1.0, metavar="SECONDS", help="default: 1")
    parser.add_argument("--times", type=int, metavar="N", help="show so many tables and end")
    parser.add_argument("--json", action="store_true", help="each table as a line of JSON")
    options = parser.parse_args(arguments)
    if not 0.05 <= options.every <= 3600:
        parser.error("--every takes 0.05 to 3600 seconds")
    if options.times is not None and options.times < 1:
        parser.error("--times takes 1 or more")
    import time

    from dom0kit.cli.arguments import open_live
    from dom0kit.observation import observe
    from dom0kit.trace.counts import read_counts
    from dom0kit.trace.names import owners
    from dom0kit.trace.rates import compared, read_unhandled

    known = owners(observe(open_live(wake=False), aml=False, only="interrupts"))
    show = _json if options.json else _shower(options.times)
    try:
        before, began, unhandled = read_counts(), time.monotonic(), read_unhandled(known)
        left = options.times
        while left is None or left > 0:
            time.sleep(options.every)
            after, ended, now_unhandled = read_counts(), time.monotonic(), read_unhandled(known)
            show(compared(before, after, ended - began, known, unhandled, now_unhandled))
            before, began, unhandled = after, ended, now_unhandled
            left = None if left is None else left - 1
    except OSError as error:
        raise Unusable(f"the kernel does not count interrupts here: {error}") from error
    except KeyboardInterrupt:
        pass  # the way to end it
    return FINE


def _json(rates: Rates) -> None:
    from dom0kit.serial import encode

    emit(encode(rates) + b"\n")


def _shower(times: int | None) -> Callable[[Rates], None]:
    """On a terminal each table replaces the one before."""
    import sys

    from dom0kit.trace.rates import table

    clear = "\x1b[H\x1b[J" if sys.stdout.isatty() and times != 1 else ""

    def show(rates: Rates) -> None:
        emit(clear + table(rates))

    return show
