# SPDX-License-Identifier: MIT
"""Policies: what a file says, what it must not say, and when a link flaps."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0kit.address import Sbdf
from dom0kit.hotplug.policy import (
    Action,
    BadPolicy,
    Decision,
    Flapping,
    HotplugPolicy,
    Limits,
    path_of,
    read_policy,
    slot_of,
)
from dom0kit.observation import observe
from dom0kit.pci.topology import Topology
from dom0kit.platform import Platform
from tests.hotplug.machines import Q35, recording

NIC, VF, ROOT = Sbdf.parse("0000:07:03.0"), Sbdf.parse("0000:01:00.1"), Sbdf.parse("0000:00:07.0")


@pytest.fixture(scope="module")
def platform() -> Platform:
    return observe(recording(Q35), aml=False)


def tree(platform: Platform) -> Topology:
    assert platform.topology is not None
    return platform.topology


def decide(text: str, sbdf: Sbdf, platform: Platform) -> Decision:
    function = next(each for each in platform.functions if each.sbdf == sbdf)
    return read_policy(text.encode()).decide(function, tree(platform))


@pytest.mark.parametrize(
    ("condition", "fits"),
    [
        ('path = "0000:00/07.0/00.0/03.0"', True),
        ('path = "0000:00/07.0/*"', True),
        ('path = "0000:00/05.0/*"', False),
        ("slot = 3", True),
        ("slot = 1", False),
        ('class = "0200*"', True),
        ('class = "0108*"', False),
        ('id = "8086:100E"', True),
        ('id = "8086:*"\nclass = "0300*"', False),
        ('serial = "*f"', False),
        ("", True),
    ],
)
def test_conditions(condition: str, fits: bool, platform: Platform) -> None:
    decision = decide(f'[[rule]]\n{condition}\naction = "give"\ndomain = 2', NIC, platform)
    assert decision == (Decision(Action.GIVE, 2, "rule 1") if fits else Decision(Action.QUARANTINE))


def test_the_first_rule_that_fits_decides(platform: Platform) -> None:
    text = '[[rule]]\nid = "8086:100e"\naction = "refuse"\n[[rule]]\naction = "keep"'
    assert decide(text, NIC, platform) == Decision(Action.REFUSE, None, "rule 1")
    assert decide(text, ROOT, platform) == Decision(Action.KEEP, None, "rule 2")
    assert read_policy(text.encode()).unreachable() == []


def test_rules_that_never_decide() -> None:
    rules = (
        '[[rule]]\nid = "8086:*"\naction = "keep"\n' * 2
        + '[[rule]]\naction = "keep"\n[[rule]]\nslot = 3\naction = "keep"'
    )
    assert read_policy(rules.encode()).unreachable() == [2, 4]


def test_where_a_function_is(platform: Platform) -> None:
    assert path_of(ROOT, tree(platform)) == "0000:00/07.0"
    assert (slot_of(NIC, tree(platform)), slot_of(ROOT, tree(platform)), slot_of(VF, tree(platform))) == (3, None, 1)


@pytest.mark.parametrize(
    "text",
    [
        'default = "give"',
        'default = "gone"',
        "[limits]\narrivals = 0",
        "[limits]\nrate = 3",
        '[[rule]]\naction = "give"',
        '[[rule]]\naction = "keep"\ndomain = 2',
        '[[rule]]\naction = "give"\ndomain = 0',
        '[[rule]]\naction = "give"\ndomain = "2"',
        '[[rule]]\naction = "keep"\nclasss = "02"',
        '[[rule]]\naction = "keep"\nclass = ""',
        "[[rule]",
        "\xff",
    ],
)
def test_no_policy(text: str) -> None:
    with pytest.raises(BadPolicy):
        read_policy(text.encode("latin-1"))


@given(st.binary(max_size=200))
def test_anything_is_a_policy_or_a_bad_one(data: bytes) -> None:
    with contextlib.suppress(BadPolicy):
        assert isinstance(read_policy(data), HotplugPolicy)


def test_a_flapping_link() -> None:
    flapping = Flapping(Limits(arrivals=2, seconds=10))
    assert [flapping.arrived(NIC, now) for now in (0, 1, 2, 11, 13, 23)] == [False, False, *[True] * 3, False]
    assert not flapping.arrived(VF, 23)


@given(st.lists(st.floats(0, 5), max_size=40))
def test_never_more_than_the_limit_in_its_time(gaps: list[float]) -> None:
    flapping, now, accepted = Flapping(Limits(arrivals=3, seconds=10)), 0.0, []
    for gap in gaps:
        now += gap
        if not flapping.arrived(NIC, now):
            accepted.append(now)
    assert all(later - first >= 10 for first, later in zip(accepted, accepted[3:], strict=False))
