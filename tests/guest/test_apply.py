# SPDX-License-Identifier: MIT
"""Plans applied in a real kernel: the module's core, config space, an MSI-X table in a BAR, and driver binding."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.guest import Machine, boot, missing, module

pytestmark = [
    pytest.mark.guest,
    pytest.mark.slow,
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
    pytest.mark.skipif(module.missing() is not None, reason=module.missing() or ""),
]
PYTHON = module.ROOT / ".venv" / "bin" / "python"
FUNCTION = "0000:00:08.0"
MACHINE = Machine(devices=("-device", "e1000e,addr=8"))
"""Without its driver loaded, which nobody asks for."""


def test_killed_at_every_record_then_applied_and_rolled_back(tmp_path: Path) -> None:
    with boot(MACHINE, tmp_path) as guest:
        guest.load(module.built()[0])
        guest.run("modprobe pci-stub").check()
        run = f"cd {module.ROOT} && {PYTHON} -m tests.guest.apply_driver"
        guest.run(f"{run} killed {FUNCTION}", timeout=240).check()
        address = int(re.findall(r"BAR3: 32 bit memory at (0x[0-9a-f]+)", guest.qmp.human("info pci"))[0], 16)
        table = guest.qmp.human(f"xp /4wx {address + 16:#x}")
        guest.run(f"{run} returned {FUNCTION}").check()
    seen = json.loads((tmp_path / "killed.json").read_text())
    back = json.loads((tmp_path / "returned.json").read_text())
    assert seen["done"] == 10
    assert seen["sides"] == [True] * 22, "wherever it was killed, it is as before"
    assert back == seen["before"]
    before, after = seen["before"], seen["after"]
    assert re.findall(r"0x[0-9a-f]{8}", table) == ["0xfee00000", "0x00000000", "0x00004055", "0x00000000"]
    assert after["table"][4:8] == [0xFEE00000, 0, 0x4055, 0]
    assert after["table"][:4] + after["table"][8:] == before["table"][:4] + before["table"][8:]
    assert (after["driver"], after["override"]) == ("pci-stub", "pci-stub")
    assert (before["driver"], before["override"]) == (None, None)
    assert after["functions"] == before["functions"] + 1
    assert after["messages"] == before["messages"] + 1
    assert after["entries"][38] == 0xA041
    changed = {
        (function, at & ~3)
        for function, config in after["config"].items()
        for at in range(256)
        if config[2 * at : 2 * at + 2] != before["config"][function][2 * at : 2 * at + 2]
    }
    assert changed == {(FUNCTION, 0x04), (FUNCTION, 0xD4), (FUNCTION, 0xDC)}


def test_a_plan_of_this_machine_by_the_command_line(tmp_path: Path) -> None:
    with boot(MACHINE, tmp_path) as guest:
        guest.load(module.built()[0])
        guest.run("dom0kit irq plan -o plan.json && dom0kit ioapic dump --all >before", timeout=180).check()
        said = guest.run("dom0kit apply plan.json && dom0kit status && dom0kit rollback", timeout=180).check().stdout
        guest.run("dom0kit ioapic dump --all >after && cmp before after", timeout=60).check()
        assert re.search(r"^applied: \d+ operations\nway back: dom0kit rollback", said)
        assert re.search(r"^plan 1  applied  (\d+) of \1 operations  loopback  ", said, re.MULTILINE)
        assert re.search(r"^undone: \d+ operations of plan 1", said, re.MULTILINE)
