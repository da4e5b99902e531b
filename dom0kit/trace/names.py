# SPDX-License-Identifier: MIT
"""Whose an interrupt is: Linux's number joined with the Platform, ``0000:03:00.0 eth0 queue 3`` and not ``irq 47``."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from dom0kit.address import Sbdf
from dom0kit.interrupts import routing_table
from dom0kit.platform import Platform


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """Who is behind one of Linux's interrupt numbers."""

    irq: int
    function: Sbdf | None = None
    """Of a message, and of a line with one PCI function alone."""
    message: int | None = None
    """Which of the function's messages, from 0 on."""
    gsi: int | None = None
    """Of a pin."""
    actions: tuple[str, ...] = ()
    """Names under which drivers requested it."""
    chip: str = ""

    @property
    def label(self) -> str:
        """For people: function, drivers' name, message or GSI."""
        parts = [] if self.function is None else [str(self.function)]
        parts += [", ".join(self.actions)] if self.actions else []
        if self.message is not None:
            parts.append(f"message {self.message}")
        if self.gsi is not None:
            parts.append(f"GSI {self.gsi}")
        return " ".join(parts) or f"irq {self.irq} ({self.chip or 'no chip'})"


def owners(platform: Platform) -> Mapping[int, Owner]:
    """By Linux's number: every interrupt that the kernel names, and every message of a function."""
    interrupts = platform.kernel.interrupts if platform.kernel is not None else ()
    found = {each.irq: Owner(irq=each.irq, actions=each.actions, chip=each.chip) for each in interrupts}
    table, _ = routing_table(platform)
    for line in table.lines:
        if line.irq is not None:
            known = found.get(line.irq, Owner(irq=line.irq))
            functions = line.functions
            function = functions[0] if len(functions) == 1 else None
            found[line.irq] = msgspec.structs.replace(known, gsi=line.gsi, function=function)
    for messages in table.messages:
        for number, irq in enumerate(messages.irqs):
            known = found.get(irq, Owner(irq=irq))
            found[irq] = msgspec.structs.replace(known, function=messages.function, message=number)
    return found
