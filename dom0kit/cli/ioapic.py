# SPDX-License-Identifier: MIT
"""``dom0kit ioapic``: redirection entries, shown, and held against what they should be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dom0kit.cli import FINE, FOUND, Unusable, UsageError, closest, emit
from dom0kit.cli.arguments import Parser, open_live

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dom0kit.cli.text.layout import Cell
    from dom0kit.hypercall.shared_info import SharedIoapicEntry
    from dom0kit.ioapic.redirection import RedirectionEntry
    from dom0kit.plan import Plan


_VERBS = {
    "dump": "every redirection entry, decoded",
    "diff": "which entries are not as drivers and tables, or a plan, need them",
}


def run(arguments: list[str]) -> int:
    if arguments[:1] in (["--help"], ["-h"]):
        lines = "".join(f"  {verb:<5} {purpose}\n" for verb, purpose in _VERBS.items())
        return emit(f"usage: dom0kit ioapic VERB [ARGS]    (dom0kit ioapic VERB --help: what it takes)\n\n{lines}")
    if not arguments:
        raise UsageError("ioapic: which verb? (dom0kit ioapic --help)")
    verb, *rest = arguments
    if verb not in _VERBS:
        raise UsageError(f"ioapic: there is no verb {verb!r}{closest(verb, _VERBS)} (dom0kit ioapic --help)")
    return {"dump": _dump, "diff": _diff}[verb](rest)


def _dump(arguments: list[str]) -> int:
    parser = Parser("ioapic dump", "Every redirection entry of this machine, by way of the kernel module or Xen.")
    parser.add_argument(
        "--hardware", action="store_true", help="the registers themselves, by the module; every processor stands still"
    )
    parser.add_argument("--all", action="store_true", help="also masked entries without a vector")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="default: text")
    options = parser.parse_args(arguments)
    from dom0kit.cli.hardware import redirection_entries
    from dom0kit.cli.module import opened, opened_hypervisor

    with opened() if options.hardware else opened_hypervisor() as hypervisor:
        entries = redirection_entries(hypervisor, hardware=options.hardware)
        whose = "the hardware" if options.hardware else f"dom0's view, backend {hypervisor.name}"
    if not entries:
        raise Unusable("the hypervisor knows no IOAPIC (dom0kit hv info shows what it reports)")
    if options.format == "json":
        from dom0kit.serial import encode

        rows = [
            {"ioapic": ioapic, "entries": [{"pin": pin, "raw": raw, "entry": entry} for pin, raw, entry in found]}
            for ioapic, found in entries
        ]
        return emit(encode(rows, indent=2) + b"\n")
    from dom0kit.cli.text.layout import Section, columns, line, show

    sections = [
        Section(
            f"IOAPIC {ioapic.id} at {ioapic.address:#x}, GSI {ioapic.gsi_base}-{ioapic.gsi_base + ioapic.pins - 1}",
            columns([_row(ioapic, *each) for each in found if options.all or each[1] != 1 << 16]),
        )
        for ioapic, found in entries
    ]
    show([line("redirection entries: ", (whose, "bold"))], sections)
    return FINE


def _row(ioapic: SharedIoapicEntry, pin: int, raw: int, entry: RedirectionEntry) -> Sequence[Cell]:
    if entry.remap_index is not None:
        goes = f"remapped, index {entry.remap_index}"
    else:
        kind = "logical" if entry.logical else "APIC id"
        mode = entry.delivery_mode.value if entry.delivery_mode is not None else ""
        goes = f"vector {entry.vector:#04x} to {kind} {entry.destination}, {mode}"
    status = [name for name, is_set in (("masked", entry.masked), ("in service", entry.remote_irr),
                                        ("pending", entry.delivery_status)) if is_set]  # fmt: skip
    return (
        f"pin {pin}",
        f"GSI {ioapic.gsi_base + pin}",
        f"{raw:016x}",
        f"{entry.trigger.value} {entry.polarity.value}",
        goes,
        ", ".join(status),
    )


def _diff(arguments: list[str]) -> int:
    parser = Parser(
        "ioapic diff",
        "Redirection entries of this machine that are not as its tables and drivers need them, or as a plan says. Exit "
        "status 1 where there are some.",
    )
    parser.add_argument("plan", nargs="?", metavar="PLAN", help="hold them against this plan instead")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="default: text")
    options = parser.parse_args(arguments)
    from dom0kit.cli.hardware import live_entries
    from dom0kit.cli.progress import Progress
    from dom0kit.interrupts import routing_table
    from dom0kit.ioapic.plan import differences, differences_from
    from dom0kit.observation import observe

    plan = None if options.plan is None else _read_plan(options.plan)
    entries = live_entries()
    with Progress() as progress:
        platform = observe(open_live(wake=False), progress=progress)
    if plan is None:
        found = differences(routing_table(platform)[0].lines, platform.ioapics, entries)
    else:
        found = differences_from(plan, platform.ioapics, entries)
    if options.format == "json":
        from dom0kit.serial import encode

        emit(encode(found, indent=2) + b"\n")
    else:
        from dom0kit.cli.text import irq as text
        from dom0kit.cli.text.layout import show

        show(*text.differences(found, len(entries)))
    return FOUND if found else FINE


def _read_plan(path: str) -> Plan:
    from dom0kit.plan import Plan
    from dom0kit.serial import UndecodableJson, decode

    try:
        with open(path, "rb") as file:
            return decode(file.read(), Plan)
    except OSError as error:
        raise Unusable(f"{path} cannot be read: {error.strerror}") from error
    except UndecodableJson as error:
        raise Unusable(f"{path} is no plan: {error}") from error
