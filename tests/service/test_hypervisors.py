# SPDX-License-Identifier: MIT
"""The service over a core, in a guest: pointers handed over, a plan applied by reload, adopted after a kill."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.guest import Machine, boot, missing, missing_hv, module

pytestmark = [
    pytest.mark.guest,
    pytest.mark.slow,
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
    pytest.mark.skipif(module.missing() is not None, reason=module.missing() or ""),
]
UP = "for n in $(seq 90); do [ -S /run/dom0kit/service ] && break; sleep 1; done"
STATUS = "dom0kit service status --format json"
SCENARIO = f"""
dom0kit service run 2>first.log & first=$!
{UP}
{STATUS} >started
mkdir -p /etc/dom0kit/plans
dom0kit irq plan -o /etc/dom0kit/plans/10-irq.json >/dev/null
dom0kit service reload && {STATUS} >reloaded
kill -9 $first; rm /run/dom0kit/service
dom0kit service run 2>second.log & second=$!
{UP}
{STATUS} >adopted
dom0kit status --format json >plans
kill $second; wait $second; echo $? >ended
dom0kit hv shared-info --format json >shared
"""


@pytest.mark.parametrize(
    ("machine", "name"),
    [
        (Machine(), "loopback"),
        pytest.param(
            Machine(hv="pvh"),
            "hv_core",
            marks=[pytest.mark.boot, pytest.mark.skipif(missing_hv() is not None, reason=missing_hv() or "")],
        ),
    ],
)
def test_from_start_to_adoption(machine: Machine, name: str, tmp_path: Path) -> None:
    with boot(machine, tmp_path) as guest:
        guest.load(module.built()[0])
        guest.run(SCENARIO, timeout=300)
    names = ("started", "reloaded", "adopted", "plans", "shared")
    seen = {each: json.loads((tmp_path / each).read_text()) for each in names}
    for status in (seen["started"], seen["reloaded"], seen["adopted"]):
        assert (status["ready"], status["hypervisor"], status["handed_over"]) == (True, name, True)
    assert seen["shared"]["handed_over"]
    assert seen["started"]["plans"] == []
    assert [plan["adopted"] for plan in seen["reloaded"]["plans"]] == [False]
    assert [plan["adopted"] for plan in seen["adopted"]["plans"]] == [True]
    (plan,) = seen["plans"]
    assert (plan["state"], plan["done"]) == ("applied", plan["operations"])
    assert plan["done"] > 5
    assert "is applied" not in (tmp_path / "second.log").read_text()
    assert (tmp_path / "ended").read_text().strip() == "0"
