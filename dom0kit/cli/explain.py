# SPDX-License-Identifier: MIT
"""``dom0kit explain``: what a finding means, which specification says so, what to do."""

from __future__ import annotations

from importlib import import_module
from pkgutil import walk_packages
from textwrap import fill

import dom0kit
from dom0kit.cli import UsageError, closest, emit
from dom0kit.cli.arguments import Parser
from dom0kit.finding import RULES, Rule


def run(arguments: list[str]) -> int:
    parser = Parser("explain", "What a finding means, which specification says so, what to do.")
    parser.add_argument("rule", nargs="?", metavar="RULE-ID", help="as a finding names it; without: list every rule")
    options = parser.parse_args(arguments)
    declare_every_rule()
    if options.rule is None:
        width = max(map(len, RULES))
        return emit(
            "".join(f"{id:<{width}}  {RULES[id].severity.value:<7}  {RULES[id].title}\n" for id in sorted(RULES))
        )
    if options.rule not in RULES:
        hint = closest(options.rule, sorted(RULES))
        raise UsageError(f"there is no rule {options.rule!r}{hint} (dom0kit explain lists them)")
    return emit(_explanation(RULES[options.rule]))


def declare_every_rule() -> None:
    """Import every module of the toolkit, so that RULES is complete."""
    for module in walk_packages(dom0kit.__path__, "dom0kit."):
        if not module.name.startswith(("dom0kit.cli", "dom0kit.__main__")):
            import_module(module.name)


def _explanation(rule: Rule) -> str:
    parts = [f"{rule.id} ({rule.severity.value}): {rule.title}"]
    for title, text in (("Meaning", rule.meaning), ("What to do", rule.advice), ("Specification", rule.specification)):
        parts += ["", title, fill(" ".join(text.split()), width=100, initial_indent="  ", subsequent_indent="  ")]
    return "\n".join(parts) + "\n"
