# SPDX-License-Identifier: MIT
"""What the verbs with effects have in common: plans from files, and the machine that they act upon; no verb itself."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, BinaryIO

from dom0kit.cli import Unusable

if TYPE_CHECKING:
    from dom0kit.hypercall.apply import Outcome
    from dom0kit.hypercall.interface import Hypervisor
    from dom0kit.hypercall.journal import Journals
    from dom0kit.hypercall.world import World
    from dom0kit.plan import Backend, Plan

PLAN_LIMIT = 1 << 30
_PIECE = 1 << 20


def read_plan(path: str) -> Plan:
    """The plan in a file (``-``: standard input). Unusable where there is none."""
    plan, why = plan_in(path)
    if plan is None:
        raise Unusable(f"{path} is no plan: {why} (dom0kit irq plan makes one)")
    return plan


def plan_in(path: str) -> tuple[Plan | None, str]:
    """The plan in a file, or why it is none. Unusable where it cannot be read."""
    from dom0kit.plan import Plan
    from dom0kit.serial import UndecodableJson, decode

    try:
        if path == "-":
            data = _read(sys.stdin.buffer)
        else:
            with open(path, "rb") as file:
                data = _read(file)
    except OSError as error:
        raise Unusable(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > PLAN_LIMIT:
        return None, "it is larger than 1 GiB"
    try:
        return decode(data, Plan), ""
    except UndecodableJson as error:
        return None, str(error)


def _read(file: BinaryIO) -> bytes:
    """All of a file, or one byte more than a plan has. In pieces: Python makes room for as much as it is asked for."""
    data = bytearray()
    while piece := file.read(min(_PIECE, PLAN_LIMIT + 1 - len(data))):
        data += piece
    return bytes(data)


def open_world(backend: Backend) -> World:
    """What a plan for this backend acts upon here; Unusable where that is not this machine's."""
    from dom0kit.hypercall.linux import Linux
    from dom0kit.hypercall.world import World

    actual, hypervisor = _reach(backend)
    return World(actual, hypervisor, Linux())


def _reach(backend: Backend) -> tuple[Backend, Hypervisor | None]:
    """The backend that is there where a plan wants this one, and its hypervisor."""
    from dom0kit.plan import Backend

    if backend is Backend.LINUX:
        return backend, None
    if backend is Backend.LIBRARY:
        raise Unusable(
            "the plan is for the core's library, a model that is nowhere but in a program: "
            "rehearse it with dom0kit apply PLAN --dry-run --from REC"
        )
    if backend is Backend.XEN and os.path.exists("/dev/xen/privcmd"):
        from dom0kit.hypercall.xen import Xen, XenMissing

        try:
            return backend, Xen()
        except XenMissing as missing:
            raise Unusable(str(missing)) from missing
    from dom0kit.cli.module import opened

    module = opened()
    return Backend(module.backend.name.lower()), module


def open_journals() -> Journals:
    """The journals of this machine, locked; Unusable where nobody may have them."""
    from dom0kit.hypercall import journal
    from dom0kit.hypercall.journal import JournalError, Journals

    try:
        return Journals(journal.FOLDER)
    except JournalError as error:
        raise Unusable(str(error)) from error


def this_machine() -> str:
    """The fingerprint of this machine."""
    from dom0kit.cli.arguments import open_live
    from dom0kit.source.fingerprint import fingerprint

    return fingerprint(open_live(wake=False))


def boot_id() -> str:
    """Of this start of Linux (Documentation/admin-guide/sysctl/kernel.rst, random)."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read(64).strip()
    except (OSError, ValueError) as error:
        raise Unusable(f"Linux does not say its boot id, which a journal needs: {error}") from error


def undone(outcome: Outcome) -> str:
    """What a plan's way back came to, in lines."""
    from dom0kit.cli.text.layout import count

    stays = "".join(f"stays: {residue}\n" for residue in outcome.residues)
    return f"undone: {count(outcome.done, 'operation')} of plan {outcome.number}: {outcome.title}\n{stays}"
