# SPDX-License-Identifier: MIT
"""The ways of INTx pins against a running kernel: what its IOAPICs were told when every function was enabled."""

from __future__ import annotations

import dataclasses
import re
import shlex
import sys
from pathlib import Path

import pytest

from dom0kit.address import IoapicPin, Sbdf, Trigger
from dom0kit.ioapic.controllers import PinsFrom
from dom0kit.observation import observe
from dom0kit.source.recognise import open_source
from recordings.make import REPOSITORY
from recordings.virtual import MACHINES
from tests.guest import Machine, missing, run

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


Q35 = """
-device pcie-root-port,id=rp1,bus=pcie.0,addr=5.0,chassis=1,slot=1,multifunction=on
-device pcie-root-port,id=rp2,bus=pcie.0,addr=5.1,chassis=2,slot=2
-device pcie-root-port,id=rp3,bus=pcie.0,addr=7.0,chassis=5,slot=5
-device pcie-root-port,id=rp4,bus=pcie.0,addr=8.0,chassis=6,slot=6
-device e1000e,bus=rp1,addr=0.0,multifunction=on
-device e1000e,bus=rp1,addr=0.1
-device e1000e,bus=rp2
-device x3130-upstream,id=up,bus=rp3
-device xio3130-downstream,id=dn1,bus=up,addr=0.0,chassis=8,slot=8,multifunction=on
-device xio3130-downstream,id=dn2,bus=up,addr=1.0,chassis=9,slot=9
-device e1000e,bus=dn1
-device e1000e,bus=dn2
-device pcie-pci-bridge,id=pb,bus=rp4
-device e1000,bus=pb,addr=1.0
-device pci-bridge,id=cb,bus=pb,addr=2.0,chassis_nr=11
-device e1000,bus=cb,addr=3.0
-device e1000,bus=cb,addr=4.0
-device e1000,bus=pcie.0,addr=b.0,multifunction=on
-device e1000,bus=pcie.0,addr=b.1
-device pxb-pcie,id=px,bus=pcie.0,bus_nr=128
-device pcie-root-port,id=rp6,bus=px,addr=0.0,chassis=12,slot=12
-device e1000e,bus=rp6
"""

I440FX = """
-device e1000,addr=4.0
-device e1000,addr=5.0
-device e1000,addr=6.0
-device pci-bridge,id=b1,addr=7.0,chassis_nr=1
-device e1000,bus=b1,addr=1.0
-device pci-bridge,id=b2,bus=b1,addr=2.0,chassis_nr=2
-device e1000,bus=b2,addr=3.0
"""

MICROVM = MACHINES["qemu-microvm"][0]


@pytest.mark.parametrize(
    ("machine", "least"),
    [
        pytest.param(Machine(type="q35", devices=Q35.split()), 20, id="q35"),
        pytest.param(Machine(type="pc", devices=I440FX.split()), 6, id="i440fx"),
        pytest.param(MICROVM, 2, id="microvm"),
    ],
)
def test_pins_lead_where_the_kernel_sent_them(machine: Machine, least: int, tmp_path: Path) -> None:
    machine = dataclasses.replace(machine, append=f"{machine.append} apic=verbose pci=nomsi")
    python, repository = shlex.quote(sys.executable), shlex.quote(str(REPOSITORY))
    record = f"PYTHONPATH={repository} {python} -m dom0kit record -o /out/machine.d0k >&2"
    result = run(machine, f"{ENABLE}\ncd {repository}; {record}", tmp_path, timeout=240)
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
    assert compared == len(platform.routes) >= least, result.stdout
    assert {ioapic.pins_from for ioapic in platform.ioapics} == {PinsFrom.BOOT_LOG}
    assert [finding for finding in platform.findings if finding.rule.startswith("ioapic.")] == []
