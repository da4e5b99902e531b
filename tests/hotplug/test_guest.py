# SPDX-License-Identifier: MIT
"""``dom0kit hotplug watch`` in whole machines, driven by QEMU's monitor: what it tells, and what hypervisor and Linux
have afterwards."""

from __future__ import annotations

import fcntl
import json
import os
import random
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.acpi.asl import needs_acpica, table
from tests.guest import Guest, Machine, boot, missing, missing_hv, missing_xen, module
from tests.guest.images import kernel_version
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
SRIOV = "sriov_max_vfs=2,sriov_vq_flexible=4,sriov_vi_flexible=2,msix_qsize=17,max_ioqpairs=16"
STORM = int(os.environ.get("DOM0KIT_STORM", "60"))
"""Arrivals and departures of a storm; 1,000 take a quarter of an hour."""
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
    import time

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
        files = 1 << 30
        for _ in range(20):  # a look at the machine opens some for a moment
            files = min(files, len(os.listdir(f"/proc/{pid}/fd")))
            time.sleep(0.02)
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
            "files": files,
        }


@contextmanager
def watched(
    machine: Machine, out: Path, policy: str = POLICY, *, options: str = "--no-aml", xen: bool = False
) -> Iterator[Watch]:
    """A machine with a watcher that is ready; with the module, or under Xen without it."""
    with boot(machine, out) as guest:
        if not xen:
            guest.load(module.built()[0])
        (out / "policy").write_text(policy)
        options = f"--policy /out/policy --json {options}"
        guest.run(
            f"cd {shlex.quote(str(ROOT))}; setsid {PYTHON} -m dom0kit hotplug watch {options} "
            ">/out/watch 2>/out/watch.err </dev/null & echo $! >/run/watch.pid"
        ).check()
        watch = Watch(guest)
        guest.run("until test -e /run/dom0kit/hotplug.json || test -s /out/watch.err; do sleep 0.1; done", timeout=120)
        if not xen:
            watch.agreed()
        yield watch
        guest.run("kill -INT $(cat /run/watch.pid)").check()
        assert (out / "watch.err").read_text() == ""


def test_acpi_hotplug_on_q35(tmp_path: Path) -> None:
    machine = Machine(root_ports=4, memory=1024)
    with watched(machine, tmp_path) as watch:
        before = watch.agreed()
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
        for number in range(STORM):
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


def test_acpi_hotplug_on_i440fx(tmp_path: Path) -> None:
    bridge = ["-device", "pci-bridge,id=cb,chassis_nr=1,addr=0x8"]
    with watched(Machine(type="pc", devices=bridge), tmp_path) as watch:
        before = watch.agreed()
        watch.plug("e1000", "pci.0", "on-root", addr="0x9")
        root = watch.arrived(id="8086:100e")
        watch.plug("e1000", "cb", "behind", addr="0x3")
        behind = watch.arrived(id="8086:100e")
        assert (root[:7], behind[:7]) == ("0000:00", "0000:01")
        assert watch.agreed()["overrides"] == dict.fromkeys((root, behind), "dom0kit-quarantine")
        watch.unplug("behind")
        watch.departed(behind)
        watch.unplug("on-root")
        watch.departed(root)
        assert watch.agreed() == before


def test_native_hotplug(tmp_path: Path) -> None:
    """pciehp, a switch's port, another root bus, slot power, virtual functions, and an error that is no removal."""
    devices = [
        *NATIVE,
        *("-device", "x3130-upstream,id=up,bus=rp2"),
        *("-device", "xio3130-downstream,id=dn,bus=up,chassis=20,slot=20"),
        *("-device", "nvme-subsys,id=ss"),
        *("-device", f"nvme,serial=1,subsys=ss,bus=rp0,{SRIOV}"),
    ]
    machine = Machine(root_ports=3, root_buses=(0x80,), devices=devices, append="pci=realloc")
    with watched(machine, tmp_path) as watch:
        before = watch.agreed()
        guest = watch.guest
        # behind a switch, and on another root bus; taken out by the slot's power
        watch.plug("e1000e", "dn", "deep")
        deep = watch.arrived(id=E1000E)
        watch.plug("e1000e", "pxb0-rp", "far")
        far = watch.arrived(id=E1000E)
        assert far.startswith("0000:81:")
        guest.run("echo 0 >/sys/bus/pci/slots/20/power").check()
        assert watch.departed(deep)["kind"] == "departed"
        guest.qmp.wait_event("DEVICE_DELETED", device="deep", timeout=PATIENCE)
        # a link that is reset
        guest.qmp.human("pcie_aer_inject_error pxb0-rp SDN")
        time.sleep(2)
        assert watch.agreed()["overrides"] == {far: "dom0kit-quarantine"}
        # taken out by the attention button, which takes five seconds
        watch.unplug("far")
        assert watch.departed(far)["kind"] == "departed"
        # virtual functions
        function = next(each for each, driver in before["drivers"].items() if each.startswith("0000:01:"))
        folder = f"/sys/bus/pci/devices/{function}"
        guest.run("modprobe nvme").check()
        guest.run(f"echo 2 >{folder}/sriov_numvfs").check()
        virtual = sorted((watch.arrived(id="1b36:0010"), watch.arrived(id="1b36:0010")))
        assert [each[-1] for each in virtual] == ["1", "2"]
        assert watch.agreed()["overrides"] == dict.fromkeys(virtual, "dom0kit-quarantine")
        guest.run(f"echo 0 >{folder}/sriov_numvfs").check()
        for each in virtual:
            watch.departed(each)
        after = watch.agreed()
        assert (after["functions"], after["files"]) == (before["functions"], before["files"])


@pytest.mark.skipif(missing_hv() is not None, reason=missing_hv() or "")
def test_on_hv_core_booted(tmp_path: Path) -> None:
    """Stock Linux tells the core nothing of what comes and goes: dom0kit does."""
    with watched(Machine(hv="pvh", root_ports=2), tmp_path) as watch:
        before = watch.agreed()
        for _ in range(2):
            watch.plug("e1000e", "rp0", "nic")
            function = watch.arrived(id=E1000E)
            found = watch.agreed()
            assert (found["count"], found["overrides"]) == (before["count"] + 1, {function: "dom0kit-quarantine"})
            watch.unplug("nic")
            watch.departed(function)
            assert watch.agreed() == before
        said = watch.guest.run(f"cd {shlex.quote(str(ROOT))}; {PYTHON} -m dom0kit hv info").stdout
        assert said.splitlines()[0].split() == ["backend", "hv_core"]


@pytest.mark.skipif(missing_xen() is not None, reason=missing_xen() or "")
def test_on_real_xen(tmp_path: Path) -> None:
    """dom0's kernel tells Xen, and dom0kit sees that it did: nothing is to be done but drivers kept off."""
    machine = Machine(xen="pv", memory=2048, root_ports=2, xen_append="loglvl=all")
    with watched(machine, tmp_path, xen=True) as watch:
        watch.plug("e1000e", "rp0", "nic")
        function = watch.arrived(id=E1000E)
        said = watch.guest.run("xl dmesg").check().stdout
        assert f"PCI add device {function}" in said
        told = watch.guest.run(f"cd {shlex.quote(str(ROOT))}; {PYTHON} -m dom0kit hv xen --format json").stdout
        assert [finding for finding in json.loads(told)["findings"] if function in finding["where"]] == []
        override = watch.guest.run(f"cat /sys/bus/pci/devices/{function}/driver_override").check().stdout
        assert override == "dom0kit-quarantine\n"
        watch.unplug("nic")
        watch.departed(function)
        assert f"PCI remove device {function}" in watch.guest.run("xl dmesg").check().stdout
        assert [line for line in watch.lines() if "finding" in line] == []


MICROVM = "microvm,acpi=on,pcie=on,ioapic2=on,rtc=on,isa-serial=on"
TSC = "tsc_early_khz=1000000"
"""A microvm has no timer that Linux could measure another by without KVM's clock, which hv_core does not offer."""
SECOND, PIN, ENTRY = 0xFEC10000, 6, 1 << 16 | 1 << 15 | 0x51


def plug_ioapic(address: int, pin: int, entry: int) -> dict[str, Any]:
    """Runs in the guest: a real IOAPIC goes and comes back, and its entries are written and read."""
    from dom0kit.abi import Status
    from dom0kit.address import Gsi
    from dom0kit.hypercall.interface import HypercallRefused
    from dom0kit.hypercall.kernel_module import KernelModule

    with KernelModule() as core:

        def ioapics() -> dict[str, Any]:
            return {hex(each.address): (each.gsi_base, each.pins) for each in core.shared_info().ioapics}

        counters = [core.shared_info().counter]
        before = ioapics()
        core.ioapic_remove(address)
        counters.append(core.shared_info().counter)
        gone = ioapics()
        try:
            core.apic_read(address, 1)
            unreachable = ""
        except HypercallRefused as refused:
            unreachable = refused.status.name
        pins = core.ioapic_add(address, Gsi(24))
        counters.append(core.shared_info().counter)
        pirq = core.map_gsi(Gsi(24 + pin))
        core.apic_write(address, 0x10 + 2 * pin, entry)
        written = core.apic_read(address, 0x10 + 2 * pin)
        try:
            core.ioapic_remove(address)
            in_use = ""
        except HypercallRefused as refused:
            in_use = refused.status.name
        core.unmap_pirq(pirq)
        return {
            "backend": core.backend.name,
            "before": before,
            "gone": gone,
            "after": ioapics(),
            "unreachable": unreachable == Status.INVALID.name,
            "pins": pins,
            "written": written,
            "in_use": in_use,
            "counters": counters,
        }


@pytest.mark.skipif(missing_hv() is not None, reason=missing_hv() or "")
def test_a_real_ioapic_by_hypercall(tmp_path: Path) -> None:
    """The second IOAPIC of a microvm, below hv_core booted: it goes, and comes back with its registers."""
    with boot(Machine(type=MICROVM, hv="pvh", append=TSC), tmp_path) as guest:
        guest.load(module.built()[0])
        found = guest.call(plug_ioapic, SECOND, PIN, ENTRY)
        first, second = [0, 24], [24, 24]
        assert found == {
            "backend": "HV_CORE",
            "before": {"0xfec00000": first, hex(SECOND): second},
            "gone": {"0xfec00000": first},
            "after": {"0xfec00000": first, hex(SECOND): second},
            "unreachable": True,
            "pins": 24,
            "written": ENTRY,
            "in_use": "BUSY",
            "counters": [found["counters"][0] + 2 * number for number in range(3)],
        }
        assert guest.qmp.info_pic()[0].written[PIN] == ENTRY


BRIDGE = """
Scope (\\_SB)
{
    Device (HB1)
    {
        Name (_HID, EisaId ("PNP0A08"))
        Name (_CID, EisaId ("PNP0A03"))
        Name (_UID, 0xE0)
        Name (_BBN, 0xE0)
        Name (HERE, 0)
        Method (_STA) { Return (HERE) }
        Method (_EJ0, 1, Serialized) { HERE = 0 }
        Method (PLUG, 0, Serialized) { HERE = 0x0F Notify (\\_SB.HB1, 1) }
        Method (PULL, 0, Serialized) { Notify (\\_SB.HB1, 3) }
        Name (_CRS, ResourceTemplate ()
        {
            WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode, 0, 0xE0, 0xE0, 0, 1)
        })
        Device (APIC)
        {
            Name (_HID, EisaId ("PNP0003"))
            Name (_UID, 0)
            Name (_GSB, 0)
            Name (_CRS, ResourceTemplate () { Memory32Fixed (ReadWrite, 0xFEC00000, 0x1000) })
        }
    }
}
"""
"""A host bridge that can be plugged, with the machine's own IOAPIC below it: there is no other, and Linux, which needs
it, leaves one with this id alone (drivers/acpi/ioapic.c)."""


def notifier() -> Path:
    """notify.ko, built below ``build/``; AssertionError, with the compiler's words, when it does not build."""
    folder = ROOT / "build" / "notify"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name in ("Kbuild", "notify.c"):
            shutil.copy2(Path(__file__).parent / "notify" / name, folder)
        make = ["make", "-C", f"/lib/modules/{kernel_version()}/build", f"M={folder}", "W=1", "modules"]
        ran = subprocess.run(make, capture_output=True, text=True)
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-4000:]
    return folder / "notify.ko"


@needs_acpica
def test_a_host_bridge_with_its_ioapic_by_linuxs_own_handler(tmp_path: Path) -> None:
    """AML notifies, Linux adds or removes the bridge and tells of its bus, the IOAPIC comes to the core or goes."""
    (tmp_path / "bridge.aml").write_bytes(table(BRIDGE, "SSDT", "SSDT").data)
    machine = Machine(devices=["-acpitable", f"file={tmp_path / 'bridge.aml'}"])
    with watched(machine, tmp_path, options="--kernel-aml") as watch:
        shutil.copy(notifier(), tmp_path)

        def evaluate(method: str) -> None:
            watch.guest.run(f"insmod /out/notify.ko method='\\_SB.HB1.{method}'")

        evaluate("PLUG")
        watch.guest.run("until grep -q HB1 /run/dom0kit/hotplug.json; do sleep 0.1; done", timeout=PATIENCE).check()
        evaluate("PULL")
        watch.guest.run("until grep -q ioapic-in-use /out/watch; do sleep 0.1; done", timeout=PATIENCE).check()
        (finding,) = (line["finding"] for line in watch.lines() if "finding" in line)
        assert "GSI 2 is used by domain 0" in finding["message"]
        watch.guest.call(let_go)
        gone = watch.next(lambda change: change["kind"] == "ioapic removed", "removal of an IOAPIC")
        assert gone["what"] == "the IOAPIC at 0xfec00000 is gone (\\_SB.HB1.APIC)"
        evaluate("PLUG")
        come = watch.next(lambda change: change["kind"] == "ioapic added", "arrival of an IOAPIC")
        assert come["gsis"] == gone["gsis"] == list(range(24))
        assert "ACPI: PCI Root Bridge [HB1]" in watch.guest.dmesg()


def let_go() -> None:
    """Runs in the guest: every pin's user lets go, in the model of the module's core."""
    from dom0kit.hypercall.kernel_module import KernelModule

    with KernelModule() as core:
        for line in list(core.interrupts()):
            if line.gsi is not None:
                core.unmap_pirq(core.map_gsi(line.gsi) if line.pirq is None else line.pirq)
