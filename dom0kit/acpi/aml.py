# SPDX-License-Identifier: MIT
"""AML, interpreted by one limited ``acpiexec`` child process (ACPICA; ACPI 6.5, chapter 20).

namespace = interpret(source.tables(), {function.sbdf: function.config for function in source.functions()})
result = evaluate(tables, config, "\\_SB.PCI0._OSC", arguments)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from dom0kit.acpi.namespace import Evaluation, Namespace
from dom0kit.address import Sbdf
from dom0kit.finding import Finding
from dom0kit.serial import Hex
from dom0kit.source.interface import RawTable


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
    """A named object, by path."""

    path: str


class Package(msgspec.Struct, frozen=True, tag="package"):
    """A list; None stands for an element that was never set."""

    elements: tuple[Value | None, ...]


class Opaque(msgspec.Struct, frozen=True, tag="opaque"):
    """Anything else, in the interpreter's words."""

    text: str


Value = Integer | String | Buffer | Reference | Package | Opaque


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What ``dom0kit acpi eval`` shows."""

    evaluation: Evaluation
    value: Value | None = None
    """None: it returned nothing, or failed."""
    accesses: tuple[str, ...] = ()
    """Hardware it touched, in order, repeats merged: ``read system-memory 0xfed1f404-0xfed1f407``."""
    messages: tuple[str, ...] = ()
    """ACPI errors, warnings and the output of AML's Debug object."""
    findings: tuple[Finding, ...] = ()


def interpret(tables: Sequence[RawTable], config: Mapping[Sbdf, bytes]) -> Namespace:
    """The namespace of these tables, AML's PCI_Config fields reading `config`. Never raises for what AML does.

    Tables load in the order given, DSDT first; dynamic ones are left out.
    """
    return Namespace()


def evaluate(
    tables: Sequence[RawTable], config: Mapping[Sbdf, bytes], path: str, arguments: Sequence[str] = ()
) -> Result:
    """One object, with arguments as acpiexec writes them: 0x1, "text", (00 FF), [0x1 "a"]."""
    return Result(evaluation=Evaluation(path, "not evaluated"))
