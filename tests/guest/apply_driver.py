# SPDX-License-Identifier: MIT
"""Runs in a guest: applies a plan by way of the module and Linux's own files, is killed, recovers, rolls back.

python -m tests.guest.apply_driver FUNCTION    what was seen goes to /out/seen
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from dom0kit import plan as p
from dom0kit.address import Gsi, Polarity, Sbdf, Trigger
from dom0kit.hypercall.apply import apply, recover, roll_back, status
from dom0kit.hypercall.journal import Disk, Journals
from dom0kit.hypercall.kernel_module import KernelModule
from dom0kit.hypercall.linux import Linux
from dom0kit.hypercall.world import World
from dom0kit.plan import Backend, Dialect, Message, Plan

FOLDER = "/run/dom0kit"
DEVICES = Path("/sys/bus/pci/devices")
BOOT = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
FINGERPRINT = "0" * 64
GSI = Gsi(19)
MESSAGE = Message(0xFEE00000, 0x4055)
BAR = 3
"""Of an 82574L (e1000e): the MSI-X table, at its beginning."""


class Deadly(Disk):
    """Kills its own process at the n-th write."""

    def __init__(self, moment: int) -> None:
        self.left = moment

    def write(self, file: int, data: bytes, offset: int) -> None:
        self.left -= 1
        if not self.left:
            super().write(file, data[: len(data) // 2], offset)
            os.kill(os.getpid(), signal.SIGKILL)
        super().write(file, data, offset)


def plan_for(function: Sbdf, module: KernelModule) -> Plan:
    (ioapic,) = module.shared_info().ioapics
    return Plan(
        title="a guest's plan",
        machine="a guest",
        fingerprint=FINGERPRINT,
        dialect=Dialect.MODERN,
        backend=Backend.LOOPBACK,
        facts=(
            p.FunctionIs(function=function, vendor=0x8086, device=0x10D3),
            p.DriverIs(function=function, driver=None),
            p.GsiUnused(gsi=GSI),
        ),
        operations=(
            p.PciDeviceAdd(function=function),
            p.MapGsi(gsi=GSI, pirq=GSI),
            p.SetupGsi(gsi=GSI, trigger=Trigger.LEVEL, polarity=Polarity.LOW),
            p.WriteEntry(ioapic=ioapic.address, pin=GSI - ioapic.gsi_base, entry=0xA041),
            p.MapMsix(function=function, entry=1, table=0xFEB00000),
            p.WriteConfig(function=function, offset=4, width=2, value=4, mask=4),
            p.WriteMsixEntry(function=function, bar=BAR, offset=0, entry=1, message=MESSAGE),
            p.WriteMsi(function=function, capability=0xD0, wide=True, message=MESSAGE, enabled=False),
            p.SetDriverOverride(function=function, driver="pci-stub"),
            p.BindDriver(function=function, driver="pci-stub"),
        ),
    )


def state(module: KernelModule, linux: Linux, function: Sbdf) -> dict[str, Any]:
    (ioapic,) = module.shared_info().ioapics
    information = module.information()
    return {
        "interrupts": [str(each) for each in module.interrupts()],
        "entries": [module.apic_read(ioapic.address, 0x10 + word) for word in range(2 * ioapic.pins)],
        "functions": information.functions,
        "messages": information.messages,
        "config": {str(each): DEVICES.joinpath(str(each), "config").read_bytes().hex() for each in linux.functions()},
        "table": linux.bar(function, BAR, 0, 20),
        "driver": linux.driver(function),
        "override": linux.override(function),
    }


def killed(module: KernelModule, linux: Linux, function: Sbdf) -> dict[str, Any]:
    """Killed at every record of the journal and recovered; then applied."""

    def world(backend: Backend) -> World:
        return World(backend, module, linux)

    plan = plan_for(function, module)
    before = state(module, linux, function)
    sides = []
    for moment in range(1, 2 * len(plan.operations) + 3):
        child = os.fork()
        if not child:
            with Journals(FOLDER, Deadly(moment)) as journals:
                apply(plan, world(plan.backend), journals, fingerprint=FINGERPRINT, boot=BOOT)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        with Journals(FOLDER) as journals:
            recover(journals, world, boot=BOOT)
            assert status(journals, boot=BOOT) == ()
        sides.append(state(module, linux, function) == before)
    with Journals(FOLDER) as journals:
        outcome = apply(plan, world(plan.backend), journals, fingerprint=FINGERPRINT, boot=BOOT)
    return {"done": outcome.done, "sides": sides, "before": before, "after": state(module, linux, function)}


def returned(module: KernelModule, linux: Linux, function: Sbdf) -> dict[str, Any]:
    with Journals(FOLDER) as journals:
        roll_back(journals, lambda backend: World(backend, module, linux), boot=BOOT)
    return state(module, linux, function)


if __name__ == "__main__":
    with KernelModule() as opened:
        seen = {"killed": killed, "returned": returned}[sys.argv[1]](opened, Linux(), Sbdf.parse(sys.argv[2]))
    Path(f"/out/{sys.argv[1]}.json").write_text(json.dumps(seen))
