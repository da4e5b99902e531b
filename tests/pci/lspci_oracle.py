# SPDX-License-Identifier: MIT
"""Debian's `lspci -vvv` as an oracle: the text it prints of a recording, written again from our facts alone.

Every line that lspci prints must come out, to the letter, of a `Function`; so each flag and each number it knows is
proved to be in the facts. A capability is written by the renderer of its struct's type, found in `STANDARD` below or
in `lspci_extended.RENDERERS`. A renderer gives the capability's lines without leading white space; the first is what
follows ``Capabilities: [50] `` (or ``Capabilities: [100 v1] ``).
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dom0kit.address import Sbdf
from dom0kit.pci.function import Function

Renderer = Callable[[Any, Function], list[str]]
"""From a capability's struct and its function to lspci's lines, stripped."""


def flag(value: bool) -> str:
    """`+` or `-`."""
    return "+" if value else "-"


class Printed(NamedTuple):
    """One function as lspci prints it."""

    head: str
    """The first line, from its class on."""
    lines: tuple[str, ...]
    """The others, stripped, up to the first extended capability."""
    extended: tuple[tuple[str, ...], ...]
    """The extended capabilities: of each its lines, the first from ``Capabilities: [`` on."""


def printed_by_lspci(dump: Path) -> Mapping[Sbdf, Printed]:
    """What `lspci -D -nn -vvv` prints of a recording, by function."""
    text = subprocess.run(
        ["lspci", "-D", "-nn", "-vvv", "-F", str(dump)], capture_output=True, check=True, timeout=60
    ).stdout.decode(errors="replace")
    result = {}
    for block in text.split("\n\n"):
        lines = block.strip("\n").split("\n")
        if not lines[0]:
            continue
        address, head = lines[0].split(" ", 1)
        standard: list[str] = []
        extended: list[list[str]] = []
        for line in lines[1:]:
            if re.match(r"\tCapabilities: \[[0-9a-f]{3} v", line):
                extended.append([])
            (extended[-1] if extended else standard).append(line.strip())
        result[Sbdf.parse(address)] = Printed(head, tuple(standard), tuple(map(tuple, extended)))
    return result
