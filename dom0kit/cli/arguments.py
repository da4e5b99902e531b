# SPDX-License-Identifier: MIT
"""What the verbs' command lines have in common: the parser with one-sentence errors, and where bytes come from."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from dom0kit.cli import UsageError, emit


class Parser(argparse.ArgumentParser):
    """argparse, but an error is a `UsageError`, and no option may be abbreviated."""

    def __init__(self, verb: str, description: str) -> None:
        super().__init__(prog=f"dom0kit {verb}", description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog.removeprefix('dom0kit ')}: {message} ({self.prog} --help)")

    def print_help(self, file: Any = None) -> None:
        emit(self.format_help())
