# SPDX-License-Identifier: MIT
"""``dom0kit watch``: what the service sees happen, as it happens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dom0kit.cli import FINE, Unusable, emit
from dom0kit.cli.arguments import Parser

if TYPE_CHECKING:
    from typing import Any


def run(arguments: list[str]) -> int:
    parser = Parser(
        "watch",
        "Functions and IOAPICs that come and go, and what became of them, as the service (dom0kit service) sees it; "
        "until interrupted.",
    )
    parser.add_argument("--json", action="store_true", help="each event as a line of JSON")
    options = parser.parse_args(arguments)
    from dom0kit.serial import encode
    from dom0kit.service.client import ServiceMissing, ServiceRefused, watched

    try:
        for event in watched():
            emit(encode(event) + b"\n" if options.json else _line(event))
    except (ServiceMissing, ServiceRefused) as missing:
        raise Unusable(str(missing)) from missing
    return FINE


def _line(event: dict[str, Any]) -> str:
    import time

    lost = f"({event['lost']} events were not told: too many at once)\n" if event["lost"] else ""
    return f"{lost}{time.strftime('%H:%M:%S')}  {event['kind']:<12}  {event['what']}\n"
