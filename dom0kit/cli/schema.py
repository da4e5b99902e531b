# SPDX-License-Identifier: MIT
"""``dom0kit schema``: JSON Schema of what ``dom0kit enumerate --format json`` prints."""

from __future__ import annotations

import json

from dom0kit.cli import emit
from dom0kit.cli.arguments import Parser


def run(arguments: list[str]) -> int:
    Parser("schema", "JSON Schema (2020-12) of what dom0kit enumerate --format json prints.").parse_args(arguments)
    from dom0kit.platform import Platform
    from dom0kit.serial import schema

    return emit(json.dumps(schema(Platform), indent=2) + "\n")
