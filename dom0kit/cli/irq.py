# SPDX-License-Identifier: MIT
"""``dom0kit irq vector IRQ``: from an IRQ of dom0 to its vector and processor, asked of the hypervisor."""

from __future__ import annotations

from dom0kit.cli import FOUND, UsageError, emit
from dom0kit.cli.arguments import Parser


def run(arguments: list[str]) -> int:
    if arguments[:1] in (["--help"], ["-h"]):
        return emit(
            "usage: dom0kit irq vector IRQ\n\nthe vector and processor of a pIRQ, or of the GSI of that number\n"
        )
    if arguments[:1] != ["vector"]:
        raise UsageError("irq: there is only vector (dom0kit irq --help)")
    parser = Parser("irq vector", "Vector and processor of an IRQ; exit status 1 where it has none.")
    parser.add_argument("irq", metavar="IRQ", type=int, help="a pIRQ, or the GSI of that number")
    options = parser.parse_args(arguments[1:])
    if not 0 <= options.irq < 1 << 32:
        parser.error(f"an IRQ is a number from 0 on, not {options.irq}")
    from dom0kit.abi import Status
    from dom0kit.cli.module import opened
    from dom0kit.hypercall.interface import HypercallRefused

    with opened() as module:
        try:
            found = module.query_vector(options.irq)
        except HypercallRefused as refused:
            unknown = refused.status is Status.INVALID
            emit(f"IRQ {options.irq}: {'dom0 has no such interrupt' if unknown else refused.status.sentence}\n")
            return FOUND
    where = f"CPU {found.cpu}, APIC id {found.apic_id}" if found.cpu is not None else f"destination {found.apic_id:#x}"
    flags = ", ".join(flag.name.lower().replace("_", " ") for flag in found.flags if flag.name)
    return emit(f"IRQ {options.irq}: vector {found.vector:#04x} on {where}{', ' + flags if flags else ''}\n")
