# SPDX-License-Identifier: MIT
"""What the verbs' command lines have in common: the parser with one-sentence errors, and where bytes come from."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NoReturn

from dom0kit.cli import Unusable, UsageError, emit
from dom0kit.imports import importing, stand_in

# The command speaks English: argparse need not look for translations.
_english = stand_in("gettext", gettext=lambda text: text, ngettext=lambda one, many, count: one if count == 1 else many)
with importing({"gettext": _english}):
    import argparse

if TYPE_CHECKING:
    from dom0kit.platform import Platform
    from dom0kit.source.interface import Source

_FORMS = (
    "a dom0kit recording, a folder of *.dat tables, acpidump or lspci -xxxx text, or a sysfs tree, "
    "recognised by what is in it; without: this machine"
)


def _formatter(prog: str) -> argparse.HelpFormatter:
    """argparse makes one for each option and asks for the terminal's width by way of shutil and all its archives."""
    try:
        width = os.get_terminal_size().columns
    except OSError:
        width = 80
    return argparse.HelpFormatter(prog, width=max(width - 2, 40))


class Parser(argparse.ArgumentParser):
    """argparse, but an error is a `UsageError`, and no option may be abbreviated."""

    def __init__(self, verb: str, description: str) -> None:
        super().__init__(
            prog=f"dom0kit {verb}", description=description, allow_abbrev=False, formatter_class=_formatter
        )

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog.removeprefix('dom0kit ')}: {message} ({self.prog} --help)")

    def print_help(self, file: Any = None) -> None:
        emit(self.format_help())

    def add_source(self, *, native: bool = True) -> None:
        """The options that say which machine; without `native`, as it is seen from where it is."""
        self.add_argument("--from", dest="path", metavar="PATH", help=_FORMS)
        self.add_argument("--acpi", metavar="DIR", help="tables of the machine whose lspci text is --pci")
        self.add_argument("--pci", metavar="FILE", help="lspci -xxxx text of the machine whose tables are --acpi")
        self.add_argument("--wake", action="store_true", help="also read functions that are asleep, which wakes them")
        if native:
            self.add_argument(
                "--native", metavar="REC", help="under Xen: a recording of the machine without it, to complete the view"
            )
        self.set_defaults(native=None)

    def check_source(self, options: argparse.Namespace) -> None:
        """UsageError where these options contradict each other."""
        if options.path is not None and (options.acpi is not None or options.pci is not None):
            self.error("--from names a whole machine, so --acpi and --pci cannot go with it")
        if options.wake and is_recorded(options):
            self.error("--wake is about this machine, and nothing in a recording is asleep")


def is_recorded(options: argparse.Namespace) -> bool:
    """Whether the options name something recorded, not this machine."""
    return any(path is not None for path in (options.path, options.acpi, options.pci))


def open_recorded(path: str) -> Source:
    """The source at `path`; Unusable where there is none."""
    from dom0kit.source.errors import UnreadableSource
    from dom0kit.source.recognise import open_source

    try:
        return open_source(path)
    except UnreadableSource as error:
        raise Unusable(f"{_clause(error)} (dom0kit enumerate --help: what --from takes)") from error


def open_machine(options: argparse.Namespace) -> Source:
    """The machine that the options name; Unusable where nothing can be read of it."""
    source = _open_seen(options)
    if options.native is None:
        return source
    from dom0kit.native import NativeView, NotNative

    try:
        return NativeView(source, open_recorded(options.native))
    except NotNative as error:
        raise Unusable(f"--native: {error}") from error


def _open_seen(options: argparse.Namespace) -> Source:
    from dom0kit.source.errors import UnreadableSource

    if options.path is not None or options.acpi is None or options.pci is None:
        path = next((path for path in (options.path, options.acpi, options.pci) if path is not None), None)
        return open_live(wake=options.wake) if path is None else open_recorded(path)
    from dom0kit.source.recognise import combine

    try:
        return combine(acpi=options.acpi, pci=options.pci)
    except UnreadableSource as error:
        raise Unusable(f"{_clause(error)}; --acpi takes a folder of *.dat tables, --pci an lspci -xxxx text") from error


def open_live(*, wake: bool) -> Source:
    """This machine; Unusable where it shows nothing, as in a container."""
    from dom0kit.source.errors import UnreadableSource
    from dom0kit.source.live import live

    try:
        return live(wake=wake)
    except UnreadableSource as error:
        raise Unusable(f"{_clause(error)}; name a recorded one with --from PATH") from error


def observed(path: str, *, aml: bool) -> Platform:
    """What is recorded at `path`; Unusable where that is nothing."""
    from dom0kit.cli.progress import Progress
    from dom0kit.observation import observe

    with Progress() as progress:
        return observe(open_recorded(path), aml=aml, progress=progress)


def _clause(error: Exception) -> str:
    return str(error).rstrip(".")
