# SPDX-License-Identifier: MIT
"""``dom0kit trace SUBJECT``: what happens in the kernel now, each event with the function and driver it is about."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from dom0kit.cli import FINE, Unusable, UsageError, closest, emit
from dom0kit.cli.arguments import Parser

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping

    from dom0kit.hotplug.monitor import Monitor
    from dom0kit.trace.bpf import Tracer
    from dom0kit.trace.events import Event, Filter
    from dom0kit.trace.names import Owner

_TIMELINE = 1_000_000
"""Events of a timeline that are kept."""


def run(arguments: list[str]) -> int:
    from dom0kit.trace.bpf import SUBJECTS

    if arguments[:1] in (["--help"], ["-h"]):
        lines = "".join(f"  {name:<11} {each.purpose}\n" for name, each in SUBJECTS.items())
        usage = "usage: dom0kit trace SUBJECT [ARGS]    (dom0kit trace SUBJECT --help: what it takes)"
        return emit(f"{usage}\n\n{lines}")
    if not arguments or arguments[0].startswith("-"):
        raise UsageError(f"trace: which subject? {', '.join(SUBJECTS)} (dom0kit trace --help)")
    subject, *rest = arguments
    if subject not in SUBJECTS:
        raise UsageError(f"trace: no subject {subject!r}{closest(subject, list(SUBJECTS))} (dom0kit trace --help)")
    parser = Parser(
        f"trace {subject}",
        f"Trace {SUBJECTS[subject].purpose}; until interrupted. Asks for root, and Debian's python3-bpfcc.",
    )
    parser.add_argument("--for", dest="length", metavar="TIME", type=_seconds, help="10s, 2m; default: without end")
    parser.add_argument("--json", action="store_true", help="each event as a line of JSON")
    parser.add_argument(
        "--filter",
        action="append",
        default=[],
        metavar="WHAT",
        help="a function (0000:03:00.0), an interrupt (47) or a processor (cpu2); may be repeated",
    )
    parser.add_argument("--chrome-trace", metavar="FILE", help="write a timeline that Perfetto opens (ui.perfetto.dev)")
    options = parser.parse_args(rest)
    from dom0kit.cli.progress import Progress
    from dom0kit.trace.bpf import TraceMissing, Tracer, check
    from dom0kit.trace.events import Filter

    try:
        wanted = Filter.parse(options.filter)
    except ValueError as error:
        parser.error(f"--filter: {error}")
    each = options.json or options.chrome_trace is not None
    try:
        check(SUBJECTS[subject])
        with Progress() as progress:
            owners = _owners()
            progress("compiling")
            numbers = [irq for irq, owner in owners.items() if wanted.fits_owner(owner)] if options.filter else []
            tracer = Tracer(subject, each=each, wanted=numbers)
    except TraceMissing as missing:
        raise Unusable(str(missing)) from missing
    with tracer:
        return _trace(subject, tracer, owners, wanted, options)


def _trace(
    subject: str, tracer: Tracer, owners: Mapping[int, Owner], wanted: Filter, options: argparse.Namespace
) -> int:
    from dom0kit.trace.events import text

    print(f"dom0kit: tracing {subject}", file=sys.stderr, flush=True)
    if tracer.absent:
        print(f"dom0kit: this kernel has no {', '.join(tracer.absent)}: not traced", file=sys.stderr)
    kept: list[Event] = []
    seen = told = 0
    try:
        for event in _events(subject, tracer, owners, options.length):
            seen += 1
            if not wanted.fits(event):
                continue
            told += 1
            if options.chrome_trace is not None and len(kept) < _TIMELINE:
                kept.append(event)
            if options.json:
                from dom0kit.serial import encode

                emit(encode(event) + b"\n")
            elif subject != "irq":
                emit(text(event, tracer.began))
    except KeyboardInterrupt:
        pass  # the way to end it
    if subject == "irq" and not options.json:
        _totals(tracer, owners, wanted)
    if options.chrome_trace is not None:
        _timeline(options.chrome_trace, kept)
        if told > len(kept):
            print(f"dom0kit: the timeline has the first {len(kept)} of {told} events", file=sys.stderr)
    if tracer.lost:
        print(f"dom0kit: {tracer.lost} events were lost, {seen} seen: --filter makes them fewer", file=sys.stderr)
    return FINE


def _events(subject: str, tracer: Tracer, owners: Mapping[int, Owner], length: float | None) -> Iterator[Event]:
    """Of the program, and of the kernel's netlink where functions come and go; until the time is over."""
    import time
    from contextlib import ExitStack

    from dom0kit.trace.events import joined

    end = None if length is None else tracer.began + length
    with ExitStack() as stack:
        monitor = None
        if subject == "hotplug":
            from dom0kit.hotplug.monitor import Monitor

            monitor = stack.enter_context(Monitor())
        while end is None or time.monotonic() < end:
            left = 0.25 if end is None else max(0.0, min(0.25, end - time.monotonic()))
            found = [joined(raw, owners) for raw in tracer.poll(left)]
            if monitor is not None:
                found += _kernel_events(monitor)
            yield from sorted(found, key=lambda event: event.seconds)


def _kernel_events(monitor: Monitor) -> Iterator[Event]:
    from dom0kit.trace.events import Event

    for event in monitor.receive().events:
        what = f"{event.action} of {event.subsystem} {event.path.rpartition('/')[2]}"
        yield Event(seconds=event.received, cpu=0, kind="kernel-event", what=what, function=event.function)


def _totals(tracer: Tracer, owners: Mapping[int, Owner], wanted: Filter) -> None:
    """Counts of each interrupt, and how long its handlers took."""
    from dom0kit.cli.text.layout import columns, line, show
    from dom0kit.trace.events import histogram
    from dom0kit.trace.names import Owner

    counts, took = tracer.counts(), tracer.took()
    chosen = [irq for irq in sorted(counts) if wanted.fits_owner(owners.get(irq, Owner(irq=irq)))]
    rows = columns(
        [
            (f"irq {irq}", str(sum(counts[irq].values())), owners.get(irq, Owner(irq=irq)).label, _by_cpu(counts[irq]))
            for irq in chosen
        ],
        right=(1,),
    )
    for row, irq in zip(rows, chosen, strict=True):
        row.children = [line(text) for text in histogram(took.get(irq, {}))]
    show(rows or [line("no interrupt came")], [])


def _by_cpu(counts: Mapping[int, int]) -> str:
    return " ".join(f"cpu{cpu}:{count}" for cpu, count in sorted(counts.items()))


def _timeline(path: str, events: list[Event]) -> None:
    from dom0kit.serial import encode
    from dom0kit.trace.events import chrome_trace

    try:
        with open(path, "wb") as file:
            file.write(encode({"displayTimeUnit": "ns", "traceEvents": list(chrome_trace(events))}))
    except OSError as error:
        raise Unusable(f"{path} cannot be written: {error.strerror}") from error


def _owners() -> Mapping[int, Owner]:
    from dom0kit.cli.arguments import open_live
    from dom0kit.observation import observe
    from dom0kit.trace.names import owners

    return owners(observe(open_live(wake=False), aml=False, only="interrupts"))


def _seconds(text: str) -> float:
    from argparse import ArgumentTypeError

    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
    unit = next((unit for unit in units if text.endswith(unit)), "")
    number = text.removesuffix(unit)
    try:
        length = float(number) * units.get(unit, 1.0)
    except ValueError:
        length = -1.0
    if not 0 < length < 1e6:
        raise ArgumentTypeError(f"{text!r} is no time like 10s or 2m")
    return length
