# SPDX-License-Identifier: MIT
"""The ways of INTx pins against a running kernel: what its IOAPICs were told when every function was enabled."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from dom0kit.address import IoapicPin, Sbdf, Trigger
from dom0kit.observation import observe
from dom0kit.source.recognise import open_source
from recordings.make import REPOSITORY
from recordings.virtual import MACHINES
from tests.guest.machine import Machine, missing, run

pytestmark = [pytest.mark.guest, pytest.mark.slow, pytest.mark.skipif(missing() is not None, reason=str(missing()))]

ENABLE = r"""
cd /sys/bus/pci/devices
for function in *; do
    echo 1 >$function/enable 2>/dev/null
    echo $function $(cat $function/irq) $(ls $function/msi_irqs 2>/dev/null | wc -l)
done
"""
"""Enabling a function makes the kernel route its pin (drivers/acpi/pci_irq.c) and write the redirection entry."""

_ROUTED = re.compile(
    r"IOAPIC\[(\d+)\]: Preconfigured routing entry \(\1-(\d+) -> IRQ (\d+) Level:(\d) ActiveLow:(\d)\)"
)


@pytest.mark.parametrize("name", MACHINES)
def test_pins_lead_where_the_kernel_sent_them(name: str, tmp_path: Path) -> None:
    machine, prepare = MACHINES[name]
    machine = Machine(
        type=machine.type,
        devices=machine.devices,
        cpus=machine.cpus,
        append=f"{machine.append} apic=verbose nomsi pci=nomsi",
    )
    python, repository = shlex.quote(sys.executable), shlex.quote(str(REPOSITORY))
    record = f"PYTHONPATH={repository} {python} -m dom0kit record -o /out/machine.d0k >&2"
    result = run(machine, f"{prepare}; {ENABLE}\ncd {repository}; {record}", tmp_path, timeout=240)
    assert result.status == 0, result.stderr
    platform = observe(open_source(tmp_path / "machine.d0k"))
    index = {number: ioapic.id for number, ioapic in enumerate(platform.ioapics)}
    routed = {
        int(irq): (IoapicPin(index[int(ioapic)], int(pin)), level == "1")
        for ioapic, pin, irq, level, _ in _ROUTED.findall(result.dmesg)
    }
    compared = 0
    ways = {route.sbdf: route for route in platform.routes}
    for line in result.stdout.splitlines():
        address, irq, messages = line.split()
        way = ways.get(Sbdf.parse(address))
        if way is None or messages != "0" or int(irq) not in routed:
            continue
        pin, level = routed[int(irq)]
        assert way.ioapic_pin == pin, "\n".join((line, *way.steps))
        assert way.trigger is (Trigger.LEVEL if level else Trigger.EDGE), line
        compared += 1
    assert compared == len(platform.routes), result.stdout
