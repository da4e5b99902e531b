# SPDX-License-Identifier: MIT
"""What an operation of a plan found before it was done, as the journal keeps it: all that undoing it needs."""

from __future__ import annotations

import msgspec

from dom0kit import plan as p
from dom0kit.address import Sbdf
from dom0kit.plan import Message


class Image(msgspec.Struct, frozen=True, kw_only=True, tag_field="image"):
    """What an operation found, to bring it back."""


class Nothing(Image, frozen=True, kw_only=True, tag="nothing"):
    """All that undoing needs stands in the operation."""


class Pirqs(Image, frozen=True, kw_only=True, tag="pirqs"):
    """Free pIRQs that a mapping will take."""

    first: p.Pirq
    pin: PinImage | None = None
    """Of a GSI of the caller."""


class PinImage(Image, frozen=True, kw_only=True, tag="pin"):
    """A GSI of the caller."""

    gsi: p.GsiNumber
    ioapic: p.Number64
    pin: p.Pin
    entry: p.Number64
    """Without delivery status and remote IRR."""
    pirq: p.Pirq | None
    set_up: bool
    has_vector: bool
    shared: bool
    """Its pIRQ has several users."""
    apic_id: p.Number32 | None
    """Of its vector's processor."""
    cpu: p.Number32 | None


class MessagesImage(Image, frozen=True, kw_only=True, tag="messages"):
    """MSI or MSI-X messages that were mapped."""

    function: Sbdf
    msix: bool
    entry: p.Number16
    messages: tuple[Message, ...]
    """As recorded in direct mode; none where none was, or the core composes them."""


class CpuImage(Image, frozen=True, kw_only=True, tag="cpu"):
    """Where an interrupt went."""

    irq: p.Pirq
    cpu: p.Number32
    pin: PinImage | None
    fleeting: bool
    """This plan mapped it: when that is undone, nothing is left to move back."""


class MessageImage(Image, frozen=True, kw_only=True, tag="message"):
    message: Message


class FunctionsImage(Image, frozen=True, kw_only=True, tag="functions"):
    """How many functions the core knew; None: the hypervisor does not count."""

    count: p.Number32 | None
    known: bool | None = None
    """Whether Xen knew the function, where it tells."""


class EntriesImage(Image, frozen=True, kw_only=True, tag="entries"):
    """Redirection entries of an IOAPIC, by pin, as the caller saw them."""

    entries: tuple[p.Number64, ...]


class RegisterImage(Image, frozen=True, kw_only=True, tag="register"):
    value: p.Number32


class WordsImage(Image, frozen=True, kw_only=True, tag="words"):
    words: tuple[p.Number32, p.Number32, p.Number32, p.Number32]
    """An MSI-X entry's; or of an MSI capability control, address, upper address, data."""


class DriverImage(Image, frozen=True, kw_only=True, tag="driver"):
    """A driver, or driver_override."""

    driver: p.DriverName | None


class TextImage(Image, frozen=True, kw_only=True, tag="text"):
    text: p.Text


AnyImage = (
    Nothing
    | Pirqs
    | PinImage
    | MessagesImage
    | CpuImage
    | MessageImage
    | FunctionsImage
    | EntriesImage
    | RegisterImage
    | WordsImage
    | DriverImage
    | TextImage
)
