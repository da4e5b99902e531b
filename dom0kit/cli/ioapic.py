# SPDX-License-Identifier: MIT
"""``dom0kit ioapic``: redirection entries, shown, and held against what they should be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dom0kit.cli import FINE, FOUND, Unusable, UsageError, closest, emit
from dom0kit.cli.arguments import Parser, open_live

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dom0kit.address import IoapicPin
    from dom0kit.cli.text.layout import Cell
    from dom0kit.hypercall.kernel_module import KernelModule
    from dom0kit.hypercall.shared_info import SharedIoapicEntry
    from dom0kit.hypercall.xen import Xen
    from dom0kit.ioapic.redirection import RedirectionEntry


_VERBS = {
    "dump": "every redirection entry, decoded",
    "diff": "which entries are not as drivers and tables, or a plan, need them",
    "set": "change one entry, by a plan that is applied at once",
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
    return {"dump": _dump, "diff": _diff, "set": _set}[verb](rest)


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
    from dom0kit.cli.plans import read_plan
    from dom0kit.cli.progress import Progress
    from dom0kit.interrupts import routing_table
    from dom0kit.ioapic.plan import differences, differences_from
    from dom0kit.observation import observe

    plan = None if options.plan is None else read_plan(options.plan)
    entries = live_entries(real=plan is None)  # a plan for the loopback changes its model alone
    with Progress() as progress:
        platform = observe(open_live(wake=False), progress=progress)
    if plan is None:
        lines = routing_table(platform)[0].lines
        found = differences(lines, platform.ioapics, entries, under_xen=platform.xen is not None)
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


def _set(arguments: list[str]) -> int:
    from dom0kit.ioapic.plan import SETTINGS

    parser = Parser(
        "ioapic set",
        "Change one redirection entry that no driver has requested: checked, applied as a plan, read back. dom0kit "
        "rollback brings back what was. Exit status 1 where it was refused, or the hypervisor made something else of "
        "it.",
    )
    parser.epilog = "; ".join(f"{key}={values}" for key, values in SETTINGS.items())
    parser.add_argument("pin", metavar="IOAPIC.PIN", help="IOAPIC id and pin, as dom0kit irq shows them: 0.20")
    parser.add_argument("settings", metavar="KEY=VALUE", nargs="+", help="what to change")
    parser.add_argument("--dry-run", action="store_true", help="check everything, list every call, do nothing")
    parser.add_argument("--irreversible", action="store_true", help="on Xen, which does not bring back what was")
    options = parser.parse_args(arguments)
    pin = _pin(parser, options.pin)
    from dom0kit.cli.at_once import apply_at_once
    from dom0kit.cli.module import opened_hypervisor
    from dom0kit.cli.plans import this_machine
    from dom0kit.ioapic.plan import STATUS_BITS, changed, set_plan
    from dom0kit.plan import Backend

    with opened_hypervisor() as hypervisor:
        backend = Backend(hypervisor.name)
        ioapic, before = _entry(hypervisor, pin)
        try:
            after = changed(before, options.settings)
        except ValueError as error:
            parser.error(str(error))
        if after.encode() == before.encode() & ~STATUS_BITS:
            return emit(f"pin {pin} is like that already\n")
        plan = set_plan(pin, ioapic, before, after, backend, this_machine())
        if backend is Backend.XEN:
            from dom0kit.hypercall.xen import side_effects

            emit("".join(f"on Xen: {effect}\n" for effect in side_effects(after.encode() & 0xFFFFFFFF)))
        status = apply_at_once(plan, dry_run=options.dry_run, irreversible=options.irreversible)
        if status != FINE or options.dry_run:
            return status
        _, found = _entry(hypervisor, pin)
    emit(f"before  {before.encode():016x}\nafter   {found.encode():016x}\n")
    if found.encode() & ~STATUS_BITS != after.encode() & ~STATUS_BITS:
        emit(f"wanted  {after.encode():016x}: the hypervisor made something else of it\n")
        return FOUND
    return FINE


def _pin(parser: Parser, text: str) -> IoapicPin:
    import re

    from dom0kit.address import IoapicPin

    match = re.fullmatch(r"(?a)(\d{1,3})\.(\d{1,3})", text)
    if match is None:
        parser.error(f"{text!r} is no pin like 0.20: IOAPIC id, pin")
    return IoapicPin(int(match[1]), int(match[2]))


def _entry(hypervisor: KernelModule | Xen, pin: IoapicPin) -> tuple[SharedIoapicEntry, RedirectionEntry]:
    """One entry as the hypervisor shows it; Unusable where there is no such pin."""
    from dom0kit.cli.hardware import redirection_entries

    for ioapic, entries in redirection_entries(hypervisor, hardware=False):
        if ioapic.id == pin.ioapic:
            if pin.pin >= len(entries):
                raise Unusable(f"IOAPIC {ioapic.id} has no pin {pin.pin}: its last is {len(entries) - 1}")
            return ioapic, entries[pin.pin][2]
    raise Unusable(f"there is no IOAPIC with id {pin.ioapic} (dom0kit ioapic dump lists them)")
