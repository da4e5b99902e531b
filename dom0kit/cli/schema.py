# SPDX-License-Identifier: MIT
"""``dom0kit schema``: JSON Schema of a machine as JSON, of a partition.toml, of a plan."""

from __future__ import annotations

import json

from dom0kit.cli import emit
from dom0kit.cli.arguments import Parser


def run(arguments: list[str]) -> int:
    parser = Parser("schema", "JSON Schema (2020-12) of what is read and printed.")
    parser.add_argument(
        "what",
        nargs="?",
        choices=("platform", "partition", "plan"),
        default="platform",
        help="what dom0kit enumerate --format json prints (default); a partition.toml; a plan",
    )
    options = parser.parse_args(arguments)
    from dom0kit.serial import schema

    return emit(json.dumps(schema(_type(options.what)), indent=2) + "\n")


def _type(what: str) -> type:
    if what == "partition":
        from dom0kit.partition.model import Partition

        return Partition
    if what == "plan":
        from dom0kit.plan import Plan

        return Plan
    from dom0kit.platform import Platform

    return Platform
