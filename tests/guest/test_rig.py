# SPDX-License-Identifier: MIT
"""The rig itself: what it says about a guest is so, and what goes wrong is told apart and leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.guest import (
    CommandFailed,
    GuestHung,
    KernelComplained,
    Machine,
    QemuFailed,
    accelerator,
    boot,
    debug_kernel,
    guest,
    images,
    missing,
    missing_xen,
    snapshot,
)
from tests.guest.complaints import complaints
from tests.guest.machine import plugs
from tests.guest.qmp import CommandRefused, parse_info_pic

NEEDS_QEMU = missing() or ""
NEEDS_XEN = missing_xen() or ""


def boots(test: Any) -> Any:
    return pytest.mark.guest(pytest.mark.slow(pytest.mark.skipif(bool(NEEDS_QEMU), reason=NEEDS_QEMU)(test)))


@pytest.mark.parametrize(
    "line",
    [
        "[    1.0] BUG: KASAN: slab-out-of-bounds in f+0x93/0x1000 [m]",
        "[    1.0] BUG kmalloc-64 (Tainted: G           O): Poison overwritten",
        "[    1.0] kernel BUG at mm/slub.c:400!",
        "[    1.0] general protection fault, probably for non-canonical address 0x0: 0000 [#1] PREEMPT SMP NOPTI",
        "[    1.0] Oops: 0002 [#1] SMP",
        "[    1.0] WARNING: CPU: 1 PID: 7 at kernel/irq/manage.c:2004 free_irq+0x1c1/0x380",
        "[    1.0] WARNING: possible circular locking dependency detected",
        "[    1.0] WARNING: suspicious RCU usage",
        "[    1.0] UBSAN: shift-out-of-bounds in f.c:1:2",
        "[    1.0] Kernel panic - not syncing: Attempted to kill init!",
        "[    1.0] INFO: task insmod:70 blocked for more than 120 seconds.",
        "[    1.0] rcu: INFO: rcu_preempt self-detected stall on CPU",
        "[    1.0] kmemleak: 2 new suspected memory leaks (see /sys/kernel/debug/kmemleak)",
        "(XEN) Panic on CPU 0:",
        "(XEN) Xen BUG at io_apic.c:2500",
        "(XEN) Hardware Dom0 crashed: rebooting machine in 5 seconds.",
    ],
)
def test_a_complaint_is_found_and_shown(line: str) -> None:
    before = [f"[    0.{number}] line {number}" for number in range(5)]
    after = [f"[    2.{number}] Call Trace {number}" for number in range(60)]
    shown = complaints("\n".join([*before, line, *after])).splitlines()
    assert shown == [*before[-2:], line, *after[:39]]


@pytest.mark.parametrize(
    "line",
    [
        'PCI: Using host bridge windows from ACPI; if necessary, use "pci=nocrs" and report a bug',
        "AMD-Vi: AMD IOMMUv2 functionality not available on this system - This is not a bug.",
        "(XEN) WARNING: PVH is an experimental mode with limited functionality",
        "dom0kit: loading out-of-tree module taints kernel.",
        "Run /init as init process",
    ],
)
def test_an_ordinary_line_is_no_complaint(line: str) -> None:
    assert complaints(f"first\n{line}\nlast") == ""


@given(st.lists(st.lists(st.integers(0, 2**64 - 1), max_size=24), max_size=3))
def test_info_pic_is_read_back(ioapics: Sequence[Sequence[int]]) -> None:
    text = ""
    for number, entries in enumerate(ioapics):
        text += f"ioapic{number}: ver=0x20 id=0x{number:02x} sel=0x18 (redir[4])\n"
        text += "".join(
            f"  pin {pin:<2} 0x{entry:016x} dest=0 vec=0   active-hi edge  masked fixed  physical\n"
            for pin, entry in enumerate(entries)
        )
        text += "  IRR      1 4\n  Remote IRR (none)\n"
    found = parse_info_pic(text + "pic1: irr=11 imr=ff isr=00 hprio=0 irq_base=38 rr_sel=0 elcr=0c fnm=0\n")
    assert [list(one.entries) for one in found] == ioapics
    assert [(one.id, one.version) for one in found] == [(number, 0x20) for number in range(len(ioapics))]
    assert all(entry & 0x5000 == 0 for one in found for entry in one.written)


def test_info_pic_without_a_pin_is_refused() -> None:
    with pytest.raises(ValueError, match="pins"):
        parse_info_pic("ioapic0: ver=0x20 id=0x00 sel=0x18\n  pin 1  0x0000000000010000 dest=0\n")


def test_no_snapshot_without_hotplug() -> None:
    with pytest.raises(ValueError, match="no PCI hotplug on a microvm"):
        plugs(Machine(type="microvm,acpi=on"))


def test_kvm_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def boots_on_kvm() -> bool:
        tried.append(1)
        return True

    monkeypatch.setattr(images, "BUILD", tmp_path / "new")
    monkeypatch.setattr(accelerator, "QEMU", Path(sys.executable))
    monkeypatch.setattr(accelerator, "boots_on_kvm", boots_on_kvm)
    for can_open, answer in ((True, "kvm"), (True, "kvm"), (False, "tcg")):
        monkeypatch.setattr(os, "access", lambda path, mode, can_open=can_open: can_open)
        assert accelerator.accelerator.__wrapped__() == answer
    assert tried == [1]
    (tmp_path / "new" / "accelerator").write_text("another kernel tcg")
    monkeypatch.setattr(os, "access", lambda path, mode: True)
    assert accelerator.accelerator.__wrapped__() == "kvm"


def test_a_dropped_option_of_the_debug_kernel_is_told() -> None:
    fragment = "# why\nCONFIG_A=y\nCONFIG_B=n\nCONFIG_C=y\nCONFIG_D=n\nCONFIG_E=64\n"
    config = "CONFIG_A=y\nCONFIG_D=m\n# CONFIG_B is not set\nCONFIG_E=64\n"
    assert debug_kernel.dropped(fragment, config) == ["CONFIG_C=y", "CONFIG_D=n"]


def seen_in_the_guest(hot: str) -> dict[str, Any]:
    import pathlib
    import time

    path = pathlib.Path("/sys/bus/pci/devices") / hot
    end = time.monotonic() + 20
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.05)
    return {
        "hot": (path / "device").read_text().strip(),
        "buses": sorted({path.name[5:7] for path in path.parent.iterdir()}),
        "nodes": len(list(pathlib.Path("/sys/devices/system/node").glob("node[0-9]*"))),
        "iommus": sorted(path.name for path in pathlib.Path("/sys/class/iommu").iterdir()),
    }


def raises(what: str) -> NoReturn:
    raise LookupError(what)


@boots
def test_one_guest_with_everything(tmp_path: Path) -> None:
    version = images.kernel_version()
    (module,) = Path(f"/lib/modules/{version}/kernel/drivers/net").glob("dummy.ko*")
    given, outside = tmp_path / "given", tmp_path / "outside"
    given.write_text("from the host\n")
    outside.write_text("as it was\n")
    script = tmp_path / "script.py"
    script.write_text("import sys, dom0kit, tests\nprint(sys.argv[1:], dom0kit.__name__)\n")
    machine = Machine(cpus=2, numa_nodes=2, iommu="intel", append="intel_iommu=on", root_ports=1, root_buses=(0x80,))
    with boot(machine, tmp_path / "out", files=[given], modules=[module]) as up:
        result = up.run(f"cat given; echo text >&2; echo new >{outside}; cat {outside}; exit 3")
        assert (result.stdout, result.stderr, result.status) == ("from the host\nnew\n", "text\n", 3)
        assert outside.read_text() == "as it was\n"
        with pytest.raises(CommandFailed, match=r"status 3\n"):
            result.check()
        up.run("echo back >file").check()
        assert (tmp_path / "out" / "file").read_text() == "back\n"
        assert up.run("nproc; grep -c '^dummy ' /proc/modules; uname -r").stdout == f"2\n1\n{version}\n"
        assert up.python(script, "a b", "c").check().stdout == "['a b', 'c'] dom0kit\n"
        with pytest.raises(CommandFailed, match="LookupError: there"):
            up.call(raises, "there")
        with pytest.raises(CommandFailed, match=r"given did not load.*Invalid"):
            up.load(given)

        (ioapic,) = up.qmp.info_pic()
        assert (ioapic.version, len(ioapic.entries)) == (0x20, 24)
        used = {int(pin) for pin in re.findall(r"IR-IO-APIC +(\d+)-", up.run("cat /proc/interrupts").stdout)}
        unmasked = {pin for pin, entry in enumerate(ioapic.entries) if not entry >> 16 & 1}
        assert used == unmasked != set()
        assert all(ioapic.entries[pin] >> 48 & 1 for pin in used), "in the remappable format"

        with pytest.raises(CommandRefused, match=r"device_add: .*no-such-thing"):
            up.qmp.execute("device_add", driver="no-such-thing")
        up.qmp.execute("device_add", driver="e1000e", bus="rp0", id="hot")
        assert up.call(seen_in_the_guest, "0000:01:00.0") == {
            "hot": "0x10d3",
            "buses": ["00", "01", "80"],
            "nodes": 2,
            "iommus": ["dmar0"],
        }
        up.qmp.execute("device_del", id="hot")
        assert up.qmp.wait_event("DEVICE_DELETED", device="hot")["device"] == "hot"
        with pytest.raises(TimeoutError, match=r"no DEVICE_DELETED within 0\.1 s"):
            up.qmp.wait_event("DEVICE_DELETED", device="hot", timeout=0.1)
    assert not Path(f"/proc/{up.pid}").exists()


@pytest.fixture
def snapshots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "snapshots"
    monkeypatch.setattr(snapshot, "FOLDER", folder)
    yield folder
    for state in folder.glob("*-state"):
        state.unlink()


@boots
def test_many_guests_of_one_snapshot(tmp_path: Path, snapshots: Path) -> None:
    """And each goes wrong in its own way."""
    machine = Machine()
    with boot(machine, tmp_path, snapshot=True) as up:
        (state,) = snapshots.glob("*-state")
        saved = state.stat().st_mtime_ns
        assert images.STARTED not in up.console
        assert abs(int(up.run("date +%s").stdout) - time.time()) < 10
        assert up.qmp.info_pic()[0].version == 0x20

    with (
        pytest.raises(KernelComplained, match=r"(?s)complained:.*BUG: planted"),
        boot(machine, tmp_path, snapshot=True) as up,
    ):
        up.run("echo BUG: planted >/dev/kmsg").check()

    with pytest.raises(CommandFailed) as caught, boot(machine, tmp_path, snapshot=True) as up:
        up.run("echo WARNING: planted >/dev/kmsg; false").check()
    assert "WARNING: planted" in "".join(caught.value.__notes__)

    started = time.monotonic()
    with pytest.raises(KernelComplained, match="sysrq triggered crash"), boot(machine, tmp_path, snapshot=True) as up:
        up.run("echo c >/proc/sysrq-trigger", timeout=300)
    assert time.monotonic() < started + 100

    with boot(machine, tmp_path, snapshot=True) as up:
        started = time.monotonic()
        with pytest.raises(GuestHung, match="no end of 'echo begun; sleep 1000' within 5 s") as hung:
            up.run("echo begun; sleep 1000", timeout=5)
        assert time.monotonic() < started + 8
        assert "begun" in "".join(hung.value.__notes__)
        os.kill(up.pid, signal.SIGSEGV)
        with pytest.raises(QemuFailed, match="QEMU was killed by SIGSEGV"):
            up.run("true")
        up.run = lambda *_, **__: guest.Result("", "", 0)  # type: ignore[method-assign]  # it cannot say goodbye
    assert not Path(f"/proc/{up.pid}").exists()
    assert state.stat().st_mtime_ns == saved


@boots
def test_a_boot_that_hangs_is_tried_once_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest, "BOOT_SECONDS", 0.5)
    stopped = Machine(devices=["-S"])
    with (
        pytest.warns(UserWarning, match=r"booted once more: no root within 0\.5 s"),
        pytest.raises(GuestHung, match=r"no root within 1 s"),
        boot(stopped, tmp_path),
    ):
        pass


@boots
def test_a_fault_of_qemu_is_no_fault_of_the_guest(tmp_path: Path) -> None:
    with pytest.raises(QemuFailed, match=r"status 1: .*unsupported"), boot(Machine(type="no-such-thing"), tmp_path):
        pass


@boots
@pytest.mark.skipif(bool(NEEDS_XEN), reason=NEEDS_XEN)
def test_domain_0_of_xen(tmp_path: Path) -> None:
    with boot(Machine(xen="pv", memory=2048), tmp_path) as up:
        assert up.run("cat /sys/hypervisor/type /sys/hypervisor/guest_type").stdout == "xen\nPV\n"
        registers = up.run("xl debug-keys z; xl dmesg").check().stdout
        entries = up.qmp.info_pic()[0].written
    # NR Dst Msk Trg IRR Pol Stat DstM DelM Vec, numbers in hexadecimal
    rows = re.findall(
        r"^\(XEN\)  ([01]\d|0[a-f]|1[0-7])  (..)  (.)   (.)   .   .   .    .    .    (..)", registers, re.M
    )
    xen = {int(pin, 16): (int(to, 16), mask, level, int(vector, 16)) for pin, to, mask, level, vector in rows}
    assert xen == {
        pin: (entry >> 56, str(entry >> 16 & 1), str(entry >> 15 & 1), entry & 0xFF)
        for pin, entry in enumerate(entries)
    }


@boots
def test_a_person_gives_commands_through_a_pipe(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.guest", "--out", tmp_path],
        input="echo $((6 * 7)); pwd; echo text >&2; echo kept >/out/file; exit 7",
        capture_output=True,
        text=True,
        cwd=images.ROOT,
        timeout=200,
    )
    assert (ran.stdout, ran.stderr, ran.returncode) == (f"42\n{images.ROOT}\n", "text\n", 7)
    assert (tmp_path / "file").read_text() == "kept\n"


@boots
def test_a_person_has_a_shell_on_a_terminal() -> None:
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(images.ROOT)
        os.execv(sys.executable, [sys.executable, "-m", "tests.guest"])
    try:
        assert "guest:" in _until(terminal, b"# ", 200)
        os.write(terminal, b"echo $((6 * 7)); tty; exit 9\r")
        said = _until(terminal, b"exit\r", 60)
    finally:
        _until(terminal, b"never", 20)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGTERM)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert re.search(r"[\r\n]42\r*\n/dev/ttyS0\r*\n", said), said
    assert status == 9


def _until(terminal: int, sign: bytes, seconds: float) -> str:
    """What a terminal shows until it shows `sign`, ends, or the time is over."""
    shown = b""
    end = time.monotonic() + seconds
    while sign not in shown and time.monotonic() < end:
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                shown += os.read(terminal, 65536)
            except OSError:  # its other side is closed
                break
    return shown.decode(errors="replace")
