# SPDX-License-Identifier: MIT
"""The whole page."""

from __future__ import annotations

import hashlib
import os.path
from base64 import b64encode
from collections.abc import Sequence

from dom0kit.check.rules import View
from dom0kit.finding import Finding
from dom0kit.partition.check import Given
from dom0kit.pci.names import names
from dom0kit.platform import Platform
from dom0kit.report.markup import Html, el, join
from dom0kit.report.memory import address_map, isolation
from dom0kit.report.routes import routing
from dom0kit.report.summary import findings_list, summary, title
from dom0kit.report.tree import Tree

_FOLDER = os.path.dirname(__file__)


def page(platform: Platform, findings: Sequence[Finding], domains: Sequence[Given] = ()) -> str:
    """One HTML file; equal for equal machines. It loads nothing, and its policy forbids it.

    `domains`: what a partition gives to whom.
    """
    owners = {sbdf: of for of in domains for sbdf in of.functions}
    style, script = _file("report.css"), _file("report.js")
    view, known = View(platform), names()
    sections = [
        summary(platform, findings),
        findings_list(findings),
        Tree(view, known, owners).section(),
        routing(platform),
        isolation(view, known, domains),
        address_map(view),
    ]
    digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    heading = title(platform)
    contents = [
        ("findings", "Findings"),
        ("pci", "PCI"),
        ("interrupts", "Interrupts"),
        ("isolation", "Isolation"),
        ("addresses", "Address map"),
    ]
    text = join(sections)
    links = [el("li", el("a", name, href=f"#{id}")) for id, name in contents if f'<section id="{id}"' in text]
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=policy),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("title", f"{heading}: dom0kit"),
        el("style", Html(style)),
    )
    body = el(
        "body",
        el("a", "to the findings", href="#findings", class_="skip"),
        el("header", el("h1", heading), el("nav", el("ul", *links), aria_label="contents")),
        el("main", text),
        el("script", Html(script)),
    )
    return f"<!DOCTYPE html>\n{el('html', head, body, lang='en')}\n"


def _file(name: str) -> str:
    with open(os.path.join(_FOLDER, name), encoding="utf-8") as file:
        return file.read()
