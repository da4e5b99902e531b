# SPDX-License-Identifier: MIT
"""Plans applied in a real kernel: the module's core, config space, an MSI-X table in a BAR, and driver binding."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from tests.guest import Guest, Machine, boot, missing, missing_hv, module

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
        table = _table(guest)
        guest.run(f"{run} returned {FUNCTION}").check()
    seen = json.loads((tmp_path / "killed.json").read_text())
    back = json.loads((tmp_path / "returned.json").read_text())
    assert seen["done"] == 10
    assert seen["sides"] == [True] * 22, "wherever it was killed, it is as before"
    assert back == seen["before"]
    before, after = seen["before"], seen["after"]
    assert after["table"] == table
    assert table[4:8] == [0xFEE00000, 0, 0x4055, 0]
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


def _table(guest: Guest) -> list[int]:
    """The MSI-X table as QEMU has it: five entries of four words."""
    address = int(re.findall(r"BAR3: 32 bit memory at (0x[0-9a-f]+)", guest.qmp.human("info pci"))[0], 16)
    words = re.findall(r"0x([0-9a-f]{8})(?![0-9a-f:])", guest.qmp.human(f"xp /20wx {address:#x}"))
    assert len(words) == 20
    return [int(word, 16) for word in words]


@pytest.mark.parametrize(
    "machine",
    [
        pytest.param(MACHINE, id="loopback"),
        pytest.param(
            dataclasses.replace(MACHINE, hv="pvh"),
            id="hv_core",
            marks=pytest.mark.skipif(missing_hv() is not None, reason=missing_hv() or ""),
        ),
    ],
)
def test_a_plan_of_this_machine_by_the_command_line(machine: Machine, tmp_path: Path) -> None:
    """On hv_core it holds messages, too, written to the capability and the table of the function without a driver."""
    looked = "(dom0kit ioapic dump --all; dom0kit hv info | grep holds; sha256sum /sys/bus/pci/devices/*/config)"
    with boot(machine, tmp_path) as guest:
        guest.load(module.built()[0])
        guest.run("dom0kit irq plan -o plan.json", timeout=180).check()
        # Nobody has turned its memory on yet; a BAR that is off QEMU does not show.
        guest.run(f"setpci -s {FUNCTION} COMMAND=0002:0002").check()
        guest.run(f"{looked} >before", timeout=60).check()
        before = _table(guest)
        said = guest.run("dom0kit apply plan.json && dom0kit status", timeout=180).check().stdout
        guest.run(f"{looked} >applied", timeout=60).check()
        applied = _table(guest)
        said += guest.run("dom0kit rollback", timeout=180).check().stdout
        guest.run(f"{looked} >after && cmp before after && ! cmp before applied", timeout=60).check()
        assert _table(guest) == before
    written = {
        each["entry"]: each["message"]
        for each in json.loads((tmp_path / "plan.json").read_text())["operations"]
        if each["operation"] == "write-msix-entry"
    }
    assert bool(written) == bool(machine.hv), "on a model the core's messages are not the hardware's"
    for entry, message in written.items():
        address = message["address"]
        assert applied[4 * entry : 4 * entry + 3] == [address & 0xFFFFFFFF, address >> 32, message["data"]]
    assert (applied == before) == (not written)
    backend = "hv_core" if machine.hv else "loopback"
    assert re.search(r"^applied: \d+ operations\nway back: dom0kit rollback", said)
    assert re.search(rf"^plan 1  applied  (\d+) of \1 operations  {backend}  ", said, re.MULTILINE)
    assert re.search(r"^undone: \d+ operations of plan 1", said, re.MULTILINE)
