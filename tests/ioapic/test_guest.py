# SPDX-License-Identifier: MIT
"""INTx ways against a running kernel: QEMU machines whose every function is enabled, so that the kernel looks them up.

The kernel says for each function which Linux interrupt its pin is, for each interrupt which pin of the IOAPIC, and
prints the IOAPIC's version register at boot. All of it is recorded in the guest and compared outside.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dom0kit.ioapic.controllers import PinsFrom
from dom0kit.ioapic.intx import NoRoute
from dom0kit.observation import observe
from dom0kit.platform import Platform
from dom0kit.source.recognise import open_source
from tests.guest.machine import Machine, missing, run

pytestmark = [pytest.mark.guest, pytest.mark.slow, pytest.mark.skipif(missing() is not None, reason=str(missing()))]

REPOSITORY = Path(__file__).parent.parent.parent

COMMAND = f"""
for f in /sys/bus/pci/devices/*/enable; do echo 1 > $f; done  # refused for those that a driver has enabled
cd {REPOSITORY} && PYTHONDONTWRITEBYTECODE=1 {sys.executable} -m dom0kit record -o /out/machine.d0k
"""

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


@pytest.mark.parametrize(("type", "devices", "least"), [("q35", Q35, 20), ("pc", I440FX, 6)], ids=["q35", "i440fx"])
def test_every_pin_is_where_the_kernel_has_it(type: str, devices: str, least: int, tmp_path: Path) -> None:
    machine = Machine(type=type, append="pci=nomsi", devices=tuple(devices.split()))
    result = run(machine, COMMAND, tmp_path, timeout=200)
    assert result.status == 0, result.stderr
    platform = observe(open_source(tmp_path / "machine.d0k"), only="interrupts")
    assert equal_pins(platform) >= least
    (ioapic,) = platform.ioapics
    assert (ioapic.pins, ioapic.pins_from) == (24, PinsFrom.BOOT_LOG)
    about = [finding for finding in platform.findings if finding.rule.startswith("ioapic.")]
    assert about == []


def equal_pins(platform: Platform) -> int:
    """How many functions have the pin that the kernel has; fails for one that has not."""
    assert platform.kernel is not None
    functions = {function.sbdf: function for function in platform.functions}
    equal = 0
    for route in platform.routes:
        irq = functions[route.sbdf].irq
        interrupt = platform.kernel.interrupt(irq) if irq is not None else None
        if route.reason is NoRoute.IDE_COMPATIBILITY:
            continue
        assert interrupt is not None, route
        assert interrupt.is_ioapic, route
        assert route.ioapic_pin is not None, route
        assert interrupt.hwirq == route.ioapic_pin.pin, route
        assert interrupt.trigger is route.trigger, route
        equal += 1
    return equal
