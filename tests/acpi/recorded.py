# SPDX-License-Identifier: MIT
"""A recorded machine's tables and config space, read from the corpus by the shortest way."""

from __future__ import annotations

import re

from dom0kit.address import Sbdf
from dom0kit.source.interface import RawTable
from tests.corpus import CORPUS


def tables(machine: str) -> list[RawTable]:
    """In the order of their numbers, which is the order of the dump."""
    files = (CORPUS / "acpi" / machine).glob("*.dat")
    split = ((path, path.stem.rstrip("0123456789")) for path in files)
    numbered = sorted((name, int(path.stem.removeprefix(name) or 0), path) for path, name in split)
    return [RawTable(path.stem, path.read_bytes()) for _, _, path in numbered]


def config(machine: str) -> dict[Sbdf, bytes]:
    """From the hex rows of the lspci text; empty where there is none."""
    path = CORPUS / "pci" / f"{machine}.lspci"
    functions: dict[Sbdf, bytearray] = {}
    current = bytearray()
    for line in path.read_text(errors="replace").splitlines() if path.exists() else ():
        if head := re.match(r"((?:[0-9a-f]{4,8}:)?[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]) ", line):
            current = functions.setdefault(Sbdf.parse(head[1]), bytearray())
        elif (row := re.match(r"([0-9a-f]{2,3}): ((?:[0-9a-f]{2} ?)+)$", line)) and int(row[1], 16) == len(current):
            current += bytes.fromhex(row[2])
    return {sbdf: bytes(data) for sbdf, data in functions.items()}
