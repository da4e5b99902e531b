# SPDX-License-Identifier: MIT
"""``dom0kit ioapic dump``: the redirection entries, as the hypervisor shows them, or as the hardware has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dom0kit.cli import FINE, Unusable, UsageError, emit
from dom0kit.cli.arguments import Parser

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dom0kit.cli.text.layout import Cell
    from dom0kit.hypercall.shared_info import SharedIoapicEntry
    from dom0kit.ioapic.redirection import RedirectionEntry


def run(arguments: list[str]) -> int:
    if arguments[:1] in (["--help"], ["-h"]):
        return emit("usage: dom0kit ioapic dump [--hardware] [--format text|json]\n\nthe redirection entries\n")
    if arguments[:1] != ["dump"]:
        raise UsageError("ioapic: there is only dump (dom0kit ioapic --help)")
    parser = Parser("ioapic dump", "Every redirection entry of this machine, by way of the kernel module.")
    parser.add_argument(
        "--hardware", action="store_true", help="the registers themselves; every processor stands still for it"
    )
    parser.add_argument("--all", action="store_true", help="also masked entries without a vector")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="default: text")
    options = parser.parse_args(arguments[1:])
    from dom0kit.cli.hardware import redirection_entries
    from dom0kit.cli.module import opened

    with opened() as module:
        entries = redirection_entries(module, hardware=options.hardware)
        whose = "the hardware" if options.hardware else f"dom0's view, backend {module.backend.name.lower()}"
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
