# SPDX-License-Identifier: MIT
"""Isolation groups, resets and the bus tree against a running kernel: QEMU machines with every kind of bridge."""

from __future__ import annotations

from pathlib import Path

import pytest

from dom0kit.acpi.tables.table import decode_table
from dom0kit.address import Sbdf
from dom0kit.iommu.facts import IommuFacts, IommuKind
from dom0kit.iommu.observe import isolation_groups, observe_iommu
from dom0kit.pci.config_space import decode_function
from dom0kit.pci.function import Function
from dom0kit.pci.isolation import compare
from dom0kit.pci.reset import resets
from dom0kit.pci.topology import build
from dom0kit.source.interface import RawFunction, RawTable
from tests.guest import Machine, missing, run

pytestmark = [pytest.mark.guest, pytest.mark.slow, pytest.mark.skipif(missing() is not None, reason=str(missing()))]

DEVICES = """
-device pcie-root-port,id=rp1,bus=pcie.0,addr=5.0,chassis=1,slot=1,multifunction=on
-device pcie-root-port,id=rp2,bus=pcie.0,addr=5.1,chassis=2,slot=2
-device ioh3420,id=io1,bus=pcie.0,addr=6.0,chassis=3,slot=3,multifunction=on
-device ioh3420,id=io2,bus=pcie.0,addr=6.1,chassis=4,slot=4
-device pcie-root-port,id=rp3,bus=pcie.0,addr=7.0,chassis=5,slot=5
-device pcie-root-port,id=rp4,bus=pcie.0,addr=8.0,chassis=6,slot=6
-device pcie-root-port,id=rp5,bus=pcie.0,addr=9.0,chassis=7,slot=7,hotplug=off
-device e1000e,bus=rp1,addr=0.0,multifunction=on
-device e1000e,bus=rp1,addr=0.1
-device e1000e,bus=io1
-device e1000e,bus=io2
-device x3130-upstream,id=up,bus=rp3
-device xio3130-downstream,id=dn1,bus=up,addr=0.0,chassis=8,slot=8,multifunction=on
-device xio3130-downstream,id=dn2,bus=up,addr=0.1,chassis=9,slot=9
-device xio3130-downstream,id=dn3,bus=up,addr=1.0,chassis=10,slot=10
-device e1000e,bus=dn1
-device e1000e,bus=dn2
-device pcie-pci-bridge,id=pb,bus=rp4
-device e1000,bus=pb,addr=1.0
-device pci-bridge,id=cb,bus=pb,addr=2.0,chassis_nr=11
-device e1000,bus=cb,addr=3.0
-device e1000,bus=cb,addr=4.0
-device nvme,serial=1,bus=rp5
-device i82801b11-bridge,id=dmi,bus=pcie.0,addr=1e.0
-device e1000,bus=dmi,addr=1.0
-device e1000e,bus=pcie.0,addr=a.0
-device e1000,bus=pcie.0,addr=b.0,multifunction=on
-device e1000,bus=pcie.0,addr=b.1
-device pxb-pcie,id=px,bus=pcie.0,bus_nr=128
-device pcie-root-port,id=rp6,bus=px,addr=0.0,chassis=12,slot=12
-device e1000e,bus=rp6
-device nvme-subsys,id=subsystem
-device pcie-root-port,id=rp7,bus=pcie.0,addr=c.0,chassis=13,slot=13
-device nvme,serial=2,bus=rp7,subsys=subsystem,sriov_max_vfs=4,sriov_vq_flexible=8,sriov_vi_flexible=8,max_ioqpairs=10
"""

COMMAND = """
mkdir -p /out/pci /out/tables
cp /sys/firmware/acpi/tables/APIC /sys/firmware/acpi/tables/DMAR /sys/firmware/acpi/tables/IVRS /out/tables 2>/dev/null
for d in /sys/bus/pci/devices/*; do
    t=/out/pci/${d##*/}
    mkdir $t
    cat $d/config > $t/config
    cat $d/resource > $t/resource
    test -e $d/reset_method && cat $d/reset_method > $t/reset_method
    for link in iommu_group physfn; do test -e $d/$link && basename $(readlink $d/$link) > $t/$link; done
done
exit 0
"""

ENABLE_VFS = """
modprobe nvme
for f in /sys/bus/pci/devices/*/sriov_totalvfs; do
    test "$(cat $f)" = 0 || echo 2 > "${f%totalvfs}numvfs"
done
"""


def booted(out: Path, machine: Machine, command: str) -> tuple[list[Function], IommuFacts]:
    """Boots the machine; its functions, and its IOMMU facts."""
    result = run(machine, command, out, timeout=120)
    assert result.status == 0, result.stderr
    functions = []
    for place in sorted((out / "pci").iterdir()):
        attributes = {file.name: file.read_text().strip() for file in place.iterdir() if file.name != "config"}
        raw = RawFunction(Sbdf.parse(place.name), (place / "config").read_bytes(), attributes)
        functions.append(decode_function(raw)[0])
    tables = [decode_table(RawTable(file.name, file.read_bytes())) for file in sorted((out / "tables").iterdir())]
    facts, findings = observe_iommu(tables, functions, build(functions)[0])
    assert findings == ()
    return functions, facts


def check(functions: list[Function], facts: IommuFacts) -> None:
    """Everything computed is what the kernel says."""
    topology, findings = build(functions)
    assert findings == ()
    assert {one.sbdf for one in functions if one.iommu_group is None} == set(facts.uncovered)
    for enabled in (True, False):
        computed = isolation_groups(facts, functions, topology, assume_acs_enabled=enabled)
        assert compare(computed, functions) == ()
        assert len({one.iommu_group for one in functions if one.iommu_group is not None}) > 20
    assert sum(one.reset_methods is not None for one in functions) > 10
    assert [one for one in resets(functions, topology)[1] if one.rule == "pci.reset-differs"] == []


def test_a_machine_with_vt_d(tmp_path: Path) -> None:
    devices = f"-device intel-iommu,intremap=on {DEVICES}".split()
    machine = Machine(type="q35,kernel-irqchip=split", devices=devices, append="intel_iommu=on")
    functions, facts = booted(tmp_path, machine, ENABLE_VFS + COMMAND)
    assert facts.kind is IommuKind.VT_D
    assert [str(one) for of in build(functions)[0].virtual_functions for one in of.present] == [
        "0000:0e:00.1",
        "0000:0e:00.2",
    ]
    check(functions, facts)


def test_a_machine_with_amd_vi(tmp_path: Path) -> None:
    machine = Machine(devices=f"-device amd-iommu,intremap=on {DEVICES}".split(), append="amd_iommu=on")
    functions, facts = booted(tmp_path, machine, COMMAND)
    assert facts.kind is IommuKind.AMD_VI
    check(functions, facts)
