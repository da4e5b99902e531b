# SPDX-License-Identifier: MIT
"""dom0kit.ko in real kernels: bare Linux with and without interrupt remapping, and domain 0 of real Xen."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dom0kit import abi
from dom0kit.abi import Mode, Op, Physdev, Status
from dom0kit.hypercall.core_library import IoapicModel, ModelMachine
from dom0kit.layout import Record, layout
from dom0kit.simulation import memory_image
from dom0kit.source.interface import RawTable
from tests.guest import CommandFailed, Machine, boot, debug_kernel, missing, missing_xen, module, run

pytestmark = [
    pytest.mark.guest,
    pytest.mark.slow,
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
    pytest.mark.skipif(module.missing() is not None, reason=module.missing() or ""),
]
PYTHON = module.ROOT / ".venv" / "bin" / "python"


def drive(machine: Machine, out: Path, what: str, *, load: str = "") -> tuple[dict[str, Any], list[int]]:
    """Loads the module, runs the driver, unloads; what the driver saw, and QEMU's redirection entries after it."""
    with boot(machine, out) as guest:
        guest.load(module.built()[0], load)
        guest.run(f"cd {module.ROOT} && {PYTHON} -m tests.guest.module_driver {what}", timeout=180).check()
        entries = list(guest.qmp.info_pic()[0].written)
        guest.run("rmmod dom0kit && test ! -e /dev/dom0kit").check()
    seen: dict[str, Any] = json.loads((out / "seen").read_text())
    return seen, entries


def test_it_builds_without_a_warning() -> None:
    _, said = module.built()
    assert "warning:" not in said, said


@pytest.mark.skipif(not module.chroot("trixie").exists(), reason="no headers of Debian 13 here (./dev module trixie)")
def test_it_builds_for_debian_13_without_a_warning() -> None:
    _, said = module.built_in_chroot("trixie")
    assert "warning:" not in said, said


def test_modinfo_is_complete() -> None:
    import subprocess

    text = subprocess.run(["/sbin/modinfo", str(module.built()[0])], capture_output=True, text=True, check=True).stdout
    for field in ("description:", "license:        GPL", "author:", "version:"):
        assert field in text
    assert text.count("parm:") == 4


def test_everything_on_plain_linux(tmp_path: Path) -> None:
    seen, qemu = drive(Machine(cpus=2), tmp_path, "everything")
    assert seen["backend"] == "LOOPBACK"
    good = seen["good"]
    hardware = [entry & ~0x5000 for entry in good.pop("hardware")]
    assert hardware == qemu, "the hardware's entries are QEMU's, and the loopback wrote none"
    assert good == {
        "version": "0x170020",
        "setup": "OK",
        "again": "EXISTS",
        "pirq": 20,
        "vector": True,
        "needs eoi": 1,
        "write": "OK",
        "bad pin": "OUT_OF_RANGE",
        "smi": "INVALID",
        "unmap": "OK",
        "device": "OK",
        "msi": True,
        "gone": "OK",
        "assigned": "OKOKOK",
        "untouched": True,
        "handed over": [True, 2, 1],
        "hot": ["BUSY"],
    }
    assert seen["aml"] == {
        "_HID": f"Integer(value={0x080AD041})",
        "_PRT": 128,
        "_CRS": True,
        "forbidden": "\\_SB_.PCI0._OSC: only objects that Linux evaluates itself at boot may be asked for",
        "absent": "there is no \\_SB_.NONE._STA",
        "relative": "_SB_._STA is not an absolute path such as \\_SB_.PCI0._PRT",
        "long": "\\" + "A" * 39 + "...: a path has at most 255 characters",
    }
    offline = "the kernel's interpreter gives 0xf; the offline one gives 0x0 without having seen"
    assert seen["differing"] == {
        "aml:\\_SB.CPUS.C000._STA": f"{offline} system-io 0xcdc-0xcdc",
        "aml:\\_SB.CPUS.C001._STA": f"{offline} system-io 0xcdc-0xcdc",
        "aml:\\_SB.HPET._STA": f"{offline} system-memory 0xfed00000-0xfed00007",
    }
    assert seen["crowd"] == {"left": 0, "alive": 2}
    assert seen["bad"] == {
        "unknown physdev": "ENOTTY",
        "unknown own": "ENOTTY",
        "unknown module": "ENOTTY",
        "another type": "ENOTTY",
        "another direction": "ENOTTY",
        "too short": "EINVAL",
        "too long": "EINVAL",
        "padding": "EINVAL",
        "bad header": "EINVAL",
        "no such irq": "EINVAL",
        "null pointer": "EFAULT",
        "watch reserved": "EINVAL",
        "watch no eventfd": "EINVAL",
        "hardware elsewhere": "ENODEV",
        "hardware short": "EINVAL",
        "evaluate short": "EINVAL",
        "mmap for writing": "EACCES",
        "mmap beyond": "EINVAL",
        "mmap too much": "EINVAL",
        "mmap of the second page": "ok",
        "writable later": "EACCES",
    }
    assert seen["rights"] == {"nobody": "PermissionError: [Errno 13] Pe", "no capability": "1"}
    assert seen["busy"], "a module in use stays"


def test_a_backend_is_asked_for_and_the_verbs_use_it(tmp_path: Path) -> None:
    with boot(Machine(), tmp_path) as guest:
        for name in ("hv_core", "xen", "nonsense"):
            with pytest.raises(CommandFailed, match=f"no backend {name} here"):
                guest.load(module.built()[0], f"backend={name}")
        verb = f"cd {module.ROOT} && {PYTHON} -m dom0kit"
        result = guest.run(f"{verb} hv info")
        assert (result.status, "modprobe dom0kit" in result.stderr) == (3, True)
        guest.load(module.built()[0], "backend=loopback")
        assert guest.run("cat /sys/module/dom0kit/parameters/backend").stdout == "loopback\n"
        assert guest.run("stat -c %a /dev/dom0kit").stdout == "600\n"
        for arguments, expected in (
            ("hv info", "backend   loopback\n"),
            ("hv shared-info", "IOAPIC 0  0xfec00000  GSI 0-23\n"),
            ("irq vector 4", "IRQ 4: vector 0x"),
            ("ioapic dump", "dom0's view, backend loopback\n"),
            ("ioapic dump --hardware", "redirection entries: the hardware\n"),
        ):
            assert expected in guest.run(f"{verb} {arguments}").check().stdout, arguments


def test_entries_of_remapped_interrupts(tmp_path: Path) -> None:
    (tmp_path / "calls").write_text("")
    seen, qemu = drive(Machine(iommu="intel", append="intel_iommu=on"), tmp_path, "replay")
    assert [entry & ~0x5000 for entry in seen["entries"]] == qemu
    assert any(entry >> 48 & 1 for entry in qemu), "the guest remaps interrupts"


@pytest.mark.parametrize("mode", list(Mode), ids=lambda mode: mode.name.lower())
def test_the_module_answers_as_the_library(tmp_path: Path, mode: Mode) -> None:
    """Invariant 8: the same calls, on the same machine, with equal limits, get the same answers."""
    calls = list(_calls(random.Random(8), 4000))
    (tmp_path / "calls").write_text("".join(f"{number} {command} {data.hex()}\n" for number, command, data in calls))
    seen, _ = drive(Machine(cpus=2), tmp_path, "replay", load=f"direct={int(mode is Mode.DIRECT)}")
    tables = [RawTable(name, bytes.fromhex(data)) for name, data in seen["tables"].items()]
    memory, rsdp, _ = memory_image(tables)
    ioapic = IoapicModel(address=0xFEC00000, entries=dict(enumerate(entry & ~0x5000 for entry in seen["entries"])))
    library = ModelMachine(memory=memory, ioapics=[ioapic], rsdp=rsdp, mode=mode)
    good = 0
    for (number, command, data), (status, answer) in zip(calls, seen["answers"], strict=True):
        expected, wanted = library.call(0, number, command, data)
        assert (Status(status), answer) == (expected, wanted.hex()), (number, command, data.hex())
        good += expected is Status.OK
    assert good > 1000, "enough of the calls do something"


def _calls(chance: random.Random, count: int) -> Iterator[tuple[int, int, bytes]]:
    """Plausible calls of every kind but the hand-over, whose addresses differ."""
    for _ in range(count):
        argument, number, command = chance.choice(_MAKERS)(chance)
        yield number, command, layout(type(argument)).build(argument)


def _physdev(command: Physdev, argument: Record) -> tuple[Record, int, int]:
    return argument, abi.HYPERCALL_PHYSDEV, command


def _own(command: Op, **fields: Any) -> tuple[Record, int, int]:
    type = abi.ARGUMENTS[abi.HYPERCALL_DOM0KIT, command]
    header = abi.Header(version=1, bytes=layout(type).size)
    return type(header=header, **fields), abi.HYPERCALL_DOM0KIT, command


def _irq(chance: random.Random) -> int:
    return chance.choice((chance.randrange(24), chance.randrange(24, 40)))


def _write(chance: random.Random) -> tuple[Record, int, int]:
    pin, high = chance.randrange(25), chance.random() < 0.3
    low = (
        chance.choice((0x31, 0x41, 0x59, 0x20, 0x8)) | chance.choice((0, 0, 0x100, 0x200)) | chance.choice((0, 0x8000))
    )
    value = chance.choice((0, 1, 2)) << 24 if high else low | chance.choice((0, 0x2000)) | chance.choice((0, 0x10000))
    argument = abi.Apic(apic_physbase=0xFEC00000, reg=0x10 + 2 * pin + high, value=value)
    return _physdev(Physdev.APIC_WRITE, argument)


def _map(chance: random.Random) -> tuple[Record, int, int]:
    type = chance.choice((1, 1, 3, 3, 4))
    argument = abi.MapPirqArgument(
        domid=chance.choice((abi.DOMID_SELF, abi.DOMID_SELF, 1)),
        type=type,
        index=chance.randrange(26) if type == 1 else -1,
        pirq=chance.choice((-1, -1, _irq(chance))),
        bus=0,
        devfn=chance.randrange(4),
        entry_nr=chance.choice((1, 2, 4)) if type == 4 else chance.randrange(4),
        table_base=0xF0000000 if type == 3 else 0,
    )
    return _physdev(Physdev.MAP_PIRQ, argument)


def _device(chance: random.Random) -> abi.PciDevice:
    return abi.PciDevice(seg=0, bus=0, devfn=chance.randrange(4))


def _add(chance: random.Random) -> tuple[Record, int, int]:
    added = abi.PciDeviceAdd(seg=0, bus=0, devfn=chance.randrange(4), flags=chance.choice((0, 0, 2, 4)))
    return _physdev(Physdev.PCI_DEVICE_ADD, abi.PciDeviceAddPxm(device=added, pxm=added.flags // 4))


_MAKERS: list[Any] = [
    _write, _write, _write, _map, _map, _map, _add,
    lambda c: _physdev(Physdev.APIC_READ, abi.Apic(apic_physbase=0xFEC00000, reg=c.randrange(0x48))),
    lambda c: _physdev(Physdev.ALLOC_IRQ_VECTOR, abi.AllocIrqVector(irq=_irq(c))),
    lambda c: _physdev(Physdev.EOI, abi.Eoi(irq=_irq(c))),
    lambda c: _physdev(Physdev.IRQ_STATUS_QUERY, abi.IrqStatusQuery(irq=_irq(c))),
    lambda c: _physdev(Physdev.UNMAP_PIRQ, abi.UnmapPirq(domid=abi.DOMID_SELF, pirq=_irq(c))),
    lambda c: _physdev(
        Physdev.SETUP_GSI, abi.SetupGsi(gsi=c.randrange(25), triggering=c.randrange(2), polarity=c.randrange(3))
    ),
    lambda c: _physdev(Physdev.GET_FREE_PIRQ, abi.GetFreePirq(type=c.randrange(4))),
    lambda c: _physdev(Physdev.PCI_DEVICE_REMOVE, _device(c)),
    lambda c: _physdev(Physdev.PCI_DEVICE_RESET, abi.PciDeviceReset(dev=_device(c), flags=c.randrange(5))),
    lambda c: _own(Op.INFORMATION),
    lambda c: _own(Op.QUERY_VECTOR, domain=abi.DOMID_SELF, irq=_irq(c)),
    lambda c: _own(Op.SET_AFFINITY, domain=abi.DOMID_SELF, irq=_irq(c), cpu=c.randrange(3)),
    lambda c: _own(Op.MSI_READ, domain=abi.DOMID_SELF, irq=c.randrange(24, 40)),
    lambda c: _own(
        Op.MSI_WRITE, domain=abi.DOMID_SELF, irq=c.randrange(24, 40), address=0xFEE00000 | c.randrange(3) << 12,
        data=0x61,
    ),
    lambda c: _own(Op.READ_INTERRUPT, domain=c.choice((0, 0, 1)), cursor=c.choice((0, 5, 15361))),
    lambda c: _own(Op.DOMAIN_CREATE, domain=c.choice((1, 2, 0xFFFF)), vectors=c.choice((0, 2))),
    lambda c: _own(Op.DOMAIN_DESTROY, domain=c.randrange(3)),
    lambda c: _own(Op.ASSIGN_DEVICE, domain=c.randrange(3), device=_device(c)),
    lambda c: _own(Op.RELEASE_DEVICE, domain=c.randrange(3), device=_device(c)),
    lambda c: _own(Op.ASSIGN_GSI, domain=c.randrange(3), gsi=c.randrange(25)),
    lambda c: _own(Op.RELEASE_GSI, domain=c.randrange(3), gsi=c.randrange(25)),
    lambda c: _own(Op.IOAPIC_ADD, address=c.choice((0xFEC00000, 0xFED00000)), gsi_base=c.choice((0, 24, 40))),
    lambda c: _own(Op.MAP_SHARED_INFO, guest_physical=c.choice((0, 4096, 5))),
]  # fmt: skip


@pytest.mark.skipif(debug_kernel.built() is None, reason="no kernel with KASAN and lockdep here (./dev kernel-debug)")
def test_random_ioctls_under_kasan_and_lockdep(tmp_path: Path) -> None:
    """A minute; DOM0KIT_FUZZ_SECONDS asks for more. Any report of the kernel's checkers fails `run`."""
    seconds = int(os.environ.get("DOM0KIT_FUZZ_SECONDS", "60"))
    kernel = debug_kernel.built()
    result = run(
        Machine(cpus=2, kernel=kernel),
        f"insmod /out/dom0kit.ko && cd {module.ROOT} && {PYTHON} -m tests.guest.module_fuzz {seconds} {seconds}"
        " && rmmod dom0kit && echo scan >/sys/kernel/debug/kmemleak && sleep 6 && echo scan >/sys/kernel/debug/kmemleak"
        " && ! grep -A20 dom0kit /sys/kernel/debug/kmemleak",
        tmp_path,
        files=[module.built(kernel)[0]],
        timeout=seconds * 1.5 + 300,
    )
    print(result.stdout)
    assert result.status == 0, result.stdout + result.stderr + result.dmesg[-3000:]
    assert "times unloaded" in result.stdout


@pytest.mark.skipif(missing_xen() is not None, reason=missing_xen() or "")
def test_domain_0_of_real_xen(tmp_path: Path) -> None:
    seen, qemu = drive(Machine(xen="pv", memory=2048), tmp_path, "xen")
    entries = seen.pop("entries")
    # What the driver wrote afterwards (pins 19 and 20) QEMU shows, and the driver's reading does not.
    assert [entry for pin, entry in enumerate(entries) if pin not in (19, 20)] == [
        entry for pin, entry in enumerate(qemu) if pin not in (19, 20)
    ]
    assert seen.pop("vector") == entries[1] & 0xFF
    assert seen == {
        "backend": "XEN",
        "beyond": ["OUT_OF_RANGE"] * 3,
        "unknown": "INVALID",
        "free pin": "OK",
        "high": "NOT_SUPPORTED",
        "ioapic_add": "NOT_SUPPORTED",
        "setup_gsi": ["OK", "EXISTS"],
        "ioapics": 1,
    }


@pytest.mark.skipif(missing_xen() is not None, reason=missing_xen() or "")
def test_domain_0_pvh_of_real_xen(tmp_path: Path) -> None:
    seen, _ = drive(Machine(xen="pvh", iommu="amd", memory=2048), tmp_path, "pvh")
    lacking = [call for call, status in seen.items() if status == "NOT_SUPPORTED"]
    assert lacking == [
        *("apic_read", "apic_write", "alloc_irq_vector", "query_vector", "setup_gsi", "map_gsi", "unmap_pirq"),
        *("irq_status_query", "eoi", "domain_create"),
    ]
    assert {call: status for call, status in seen.items() if call not in lacking} == {
        "backend": "XEN",
        "device": ["OK", "OK"],
        "absent": ["NO_DEVICE", "NO_DEVICE"],
        "information": "OK",
        "shared_info": 0,
    }
