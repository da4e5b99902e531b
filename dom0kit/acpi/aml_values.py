# SPDX-License-Identifier: MIT
"""Values that AML evaluates to, and the result of one evaluation (``dom0kit acpi eval``)."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from dom0kit.acpi.namespace import Evaluation
from dom0kit.finding import Finding
from dom0kit.serial import Hex


class Integer(msgspec.Struct, frozen=True, tag="integer"):
    """64 bits (32 in a DSDT of revision 1)."""

    value: int


class String(msgspec.Struct, frozen=True, tag="string"):
    """ASCII text."""

    value: str


class Buffer(msgspec.Struct, frozen=True, tag="buffer"):
    """Bytes."""

    value: Hex


class Reference(msgspec.Struct, frozen=True, tag="reference"):
    """A named object, by path (by its last name alone, where it is gone)."""

    path: str


class Package(msgspec.Struct, frozen=True, tag="package"):
    """A list; None stands for an element that was never set."""

    elements: tuple[Value | None, ...]


class Opaque(msgspec.Struct, frozen=True, tag="opaque"):
    """Anything else, in the interpreter's words."""

    text: str


Value = Integer | String | Buffer | Reference | Package | Opaque


class NotEvaluated(Exception):
    """The kernel's interpreter gave no value; the message says why."""


Evaluate = Callable[[str], Value | None]
"""The kernel's interpreter: what the object at a path evaluates to, None for nothing; raises NotEvaluated."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What ``dom0kit acpi eval`` shows."""

    evaluation: Evaluation
    value: Value | None = None
    """None: it returned nothing, or failed."""
    accesses: tuple[str, ...] = ()
    """Hardware it touched, in order: ``read system-memory 0xfed1f404-0xfed1f407``."""
    messages: tuple[str, ...] = ()
    """ACPI errors and warnings, and what AML wrote to its Debug object."""
    findings: tuple[Finding, ...] = ()
