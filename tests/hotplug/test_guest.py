# SPDX-License-Identifier: MIT
"""``dom0kit hotplug watch`` in whole machines, driven by QEMU's monitor: what it tells, and what hypervisor and Linux
have afterwards."""

from __future__ import annotations

import json
import random
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.guest import Guest, Machine, boot, missing, module
from tests.guest.module import ROOT

pytestmark = [
    pytest.mark.guest,
    pytest.mark.slow,
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
    pytest.mark.skipif(module.missing() is not None, reason=module.missing() or ""),
]
PYTHON = shlex.quote(str(ROOT / ".venv" / "bin" / "python"))
PATIENCE = 60
NATIVE = ["-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"]
POLICY = "[limits]\narrivals = 1000\n"
E1000E = "8086:10d3"


class Watch:
    """The watcher in a guest, and what it has said so far."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self._seen = 0

    def lines(self) -> list[dict[str, Any]]:
        text = (self.guest.out / "watch").read_text() if (self.guest.out / "watch").exists() else ""
        return [json.loads(each) for each in text.splitlines(keepends=True) if each.endswith("\n")]

    def next(self, wanted: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        """The next change that is wanted, from where this was last asked on."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            lines = self.lines()
            for index in range(self._seen, len(lines)):
                change = lines[index].get("change")
                if change is not None and wanted(change):
                    self._seen = index + 1
                    return dict(change)
            time.sleep(0.05)
        raise AssertionError(f"no {what}; said: {self.lines()[-8:]}\n{self.guest.run('cat watch.err').stdout}")

    def arrived(self, kind: str = "arrived", id: str = "") -> str:
        return str(
            self.next(lambda change: change["kind"] == kind and id in change["what"], f"{kind} {id}")["function"]
        )

    def departed(self, function: str) -> dict[str, Any]:
        return self.next(
            lambda change: change["kind"] in ("departed", "pulled") and change["function"] == function,
            f"departure of {function}",
        )

    def plug(self, driver: str, bus: str, id: str, **more: object) -> None:
        self.guest.qmp.execute("device_add", driver=driver, bus=bus, id=id, **more)

    def unplug(self, id: str) -> None:
        self.guest.qmp.execute("device_del", id=id)
        self.guest.qmp.wait_event("DEVICE_DELETED", device=id, timeout=PATIENCE)

    def agreed(self) -> dict[str, Any]:
        """Linux, hypervisor and ledger as they are at rest; the same functions in each."""
        end = time.monotonic() + PATIENCE
        while True:
            found: dict[str, Any] = self.guest.call(state)
            if found["known"] == found["functions"] == found["ledger"] == found["count"]:
                return found
            if time.monotonic() > end:
                raise AssertionError(f"they do not agree: {found}; said: {self.lines()[-8:]}")
            time.sleep(0.2)


def state() -> dict[str, Any]:
    """Runs in the guest."""
    import json
    import os

    from dom0kit.hotplug.plans import owner_of
    from dom0kit.hypercall.kernel_module import KernelModule
    from dom0kit.hypercall.linux import Linux

    functions = Linux().functions()
    with KernelModule() as core:
        known = [function for function in functions if owner_of(core, function, None) is not None]
        information = core.information()
        with open("/run/dom0kit/hotplug.json") as file:
            ledger = json.load(file)["functions"]
        with open("/run/watch.pid") as file:
            pid = file.read().strip()
        overrides = {}
        for function in functions:
            override = Linux().override(function)
            if override is not None:
                overrides[str(function)] = override
        return {
            "functions": len(functions),
            "known": len(known),
            "count": information.functions,
            "ledger": len(ledger),
            "messages": information.messages,
            "interrupts": len(list(core.interrupts())),
            "overrides": overrides,
            "drivers": {str(function): Linux().driver(function) for function in functions},
            "files": len(os.listdir(f"/proc/{pid}/fd")),
            "autoprobe": open("/sys/bus/pci/drivers_autoprobe").read().strip(),
        }


@contextmanager
def watched(machine: Machine, out: Path, policy: str = POLICY, *, aml: bool = False) -> Iterator[Watch]:
    """A machine with the module, and a watcher that is ready."""
    with boot(machine, out) as guest:
        guest.load(module.built()[0])
        (out / "policy").write_text(policy)
        options = "--policy /out/policy --json" + ("" if aml else " --no-aml")
        guest.run(
            f"cd {shlex.quote(str(ROOT))}; setsid {PYTHON} -m dom0kit hotplug watch {options} "
            ">/out/watch 2>/out/watch.err </dev/null & echo $! >/run/watch.pid"
        ).check()
        watch = Watch(guest)
        guest.run("until test -e /run/dom0kit/hotplug.json || test -s /out/watch.err; do sleep 0.1; done", timeout=120)
        watch.agreed()
        yield watch
        guest.run("kill -INT $(cat /run/watch.pid)").check()
        assert (out / "watch.err").read_text() == ""


def test_acpi_hotplug_on_q35(tmp_path: Path) -> None:
    machine = Machine(root_ports=4, memory=1024)
    with watched(machine, tmp_path) as watch:
        before = watch.agreed()
        assert before["autoprobe"] == "0"
        # one function: in quarantine, and gone without a trace
        watch.plug("e1000e", "rp0", "nic")
        function = watch.arrived(id=E1000E)
        assert watch.agreed()["overrides"] == {function: "dom0kit-quarantine"}
        watch.unplug("nic")
        assert watch.departed(function)["kind"] == "departed"
        # two functions of one device
        watch.plug("e1000e", "rp1", "second", addr="0.1")
        watch.plug("e1000e", "rp1", "first", addr="0.0", multifunction=True)
        pair = sorted((watch.arrived(id=E1000E), watch.arrived(id=E1000E)))
        assert [each[-1] for each in pair] == ["0", "1"]
        watch.unplug("first")
        for each in pair:
            watch.departed(each)
        # taken out and found again by Linux alone
        watch.plug("e1000e", "rp2", "nic")
        function = watch.arrived(id=E1000E)
        watch.guest.run(f"echo 1 >/sys/bus/pci/devices/{function}/remove").check()
        watch.departed(function)
        watch.guest.run("echo 1 >/sys/bus/pci/rescan").check()
        assert watch.arrived(id=E1000E) == function
        watch.unplug("nic")
        watch.departed(function)
        assert watch.agreed() == before


def test_a_storm_of_acpi_hotplug(tmp_path: Path) -> None:
    chance = random.Random(60)
    with watched(Machine(root_ports=4), tmp_path) as watch:
        before = watch.agreed()
        plugged: set[str] = set()
        for number in range(60):
            slot = f"rp{chance.randrange(4)}"
            if slot in plugged:
                watch.unplug(f"in-{slot}")
                plugged.discard(slot)
            else:
                watch.plug("virtio-rng-pci", slot, f"in-{slot}")
                plugged.add(slot)
                if number % 3:  # else it may be gone before it is seen
                    watch.arrived()
        for slot in sorted(plugged):
            watch.unplug(f"in-{slot}")
        assert watch.agreed() == before
