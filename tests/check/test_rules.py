# SPDX-License-Identifier: MIT
"""Every rule about machines fires where it must, is silent where it must be, and says all that a person needs."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import walk_packages

import pytest

import dom0kit
from dom0kit.check.rules import CHECKS, MODULES, findings
from dom0kit.finding import Rule
from dom0kit.observation import observe
from dom0kit.source.recognise import open_source
from tests.acpi.asl import needs_acpica
from tests.check.cases import FIRING_TOO, PAIRS, SILENT, Machine
from tests.check.decoder_cases import FIRING
from tests.check.machine import recording

OF_PLANS = ("cli", "__main__", "partition", "hotplug", "hypercall", "interrupt", "service", "trace")
"""Packages whose rules are about plans, and what became of them; their tests are beside theirs."""


@cache
def declared() -> dict[str, Rule]:
    """Every rule about machines, wherever it is declared."""
    rules: dict[str, Rule] = {}
    for module in walk_packages(dom0kit.__path__, "dom0kit."):
        if not module.name.removeprefix("dom0kit.").startswith(OF_PLANS):
            rules |= {of.id: of for of in vars(import_module(module.name)).values() if isinstance(of, Rule)}
    return rules | {rule.id: rule for rule, _ in CHECKS}


@cache
def of_recording(name: str) -> frozenset[str]:
    """The rules that fire on a recording of the package."""
    return frozenset(finding.rule for finding in findings(observe(open_source(recording(name)))))


def test_every_rule_has_a_case() -> None:
    assert declared().keys() == PAIRS.keys() | FIRING.keys()
    assert not PAIRS.keys() & FIRING.keys()
    assert PAIRS.keys() == {rule.id for rule, _ in CHECKS}


def test_every_module_of_rules_is_run() -> None:
    assert {function.__module__ for _, function in CHECKS} == {f"dom0kit.check.{name}" for name in MODULES}


@needs_acpica
@pytest.mark.parametrize("rule", sorted(PAIRS))
def test_a_rule_fires_on_one_machine_and_not_on_its_like(rule: str) -> None:
    bad, good = PAIRS[rule]
    fired = [finding for finding in bad() if finding.rule == rule]
    assert fired
    assert all(finding.severity is declared()[rule].severity for finding in fired)
    assert all(finding.where and finding.message and "\n" not in finding.message for finding in fired)
    assert rule not in {finding.rule for finding in good()}


@needs_acpica
@pytest.mark.parametrize(("rule", "machine"), FIRING_TOO, ids=[rule for rule, _ in FIRING_TOO])
def test_a_rule_fires_on_everything_that_it_is_about(rule: str, machine: Machine) -> None:
    assert rule in {finding.rule for finding in machine()}


@needs_acpica
@pytest.mark.parametrize(("rule", "machine"), SILENT, ids=[rule for rule, _ in SILENT])
def test_a_rule_is_silent_where_one_thing_is_otherwise(rule: str, machine: Machine) -> None:
    assert rule in PAIRS
    assert rule not in {finding.rule for finding in machine()}


@needs_acpica
@pytest.mark.parametrize("rule", sorted(FIRING))
def test_a_decoders_rule_fires_on_its_bytes_and_not_on_a_good_machine(rule: str) -> None:
    assert rule in {finding.rule for finding in FIRING[rule]()}
    assert any(rule not in of_recording(name) for name in ("qemu-q35", "synthetic-x2apic"))


@pytest.mark.parametrize("rule", declared().values(), ids=lambda rule: rule.id)
def test_a_rule_says_all_that_a_person_needs(rule: Rule) -> None:
    assert 5 <= len(rule.title) <= 90
    assert not rule.title.endswith(".")
    assert rule.meaning.endswith((".", ")"))
    assert rule.advice
    assert len(rule.meaning) > 40
    assert rule.specification
