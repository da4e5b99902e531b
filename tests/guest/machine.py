# SPDX-License-Identifier: MIT
"""Boots a kernel in QEMU, runs a command in it, brings back its output: a whole machine in a few seconds, without KVM.

The guest's root is this machine's root, read-only over 9p, below an overlay in the guest's memory: it may write
anywhere and the host stays as it was. The folder ``/out`` in the guest is a folder of the host: the command, its
output and its exit status pass through it. The kernel is Debian's, unpacked to an ELF image that QEMU starts
through its PVH entry: unpacking it inside an emulated machine would cost five seconds a boot.
"""

from __future__ import annotations

import dataclasses
import gzip
import lzma
import os
import re
import signal
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

BUILD = Path(__file__).parent.parent.parent / "build" / "guest"
"""Kernel images and initramfs, made once a checkout."""

BOOT_SECONDS = 40
"""A boot takes 3 to 8 s; one in some fifty hangs before its first line."""

_MODULES = (
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_pci_modern_dev",
    "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci",
    "fs/netfs/netfs",
    "fs/fscache/fscache",
    "net/9p/9pnet",
    "net/9p/9pnet_virtio",
    "fs/9p/9p",
    "fs/overlayfs/overlay",
)
"""What mounts the root, in the order of its dependencies."""

_INIT = r"""#!/bin/busybox sh
b=/bin/busybox
fail() {
    echo "GUEST-FAILED $1" >/dev/console; $b dmesg | $b tail -n 20 >/dev/console; $b poweroff -f; while :; do :; done
}
$b mount -t proc proc /proc; $b mount -t sysfs sys /sys; $b mount -t devtmpfs dev /dev
while read module; do $b insmod /modules/$module || fail "insmod $module"; done < /modules/order
$b mount -t tmpfs tmpfs /rw; $b mkdir -p /rw/upper /rw/work
nine="trans=virtio,version=9p2000.L,msize=512000"
$b mount -t 9p -o $nine,ro,cache=loose root /lower || fail "mount of the root"
$b mount -t overlay -o lowerdir=/lower,upperdir=/rw/upper,workdir=/rw/work overlay /new || fail "overlay"
for d in proc sys dev; do $b mkdir -p /new/$d; $b mount --move /$d /new/$d; done
$b mkdir -p /new/out /new/run; $b mount -t tmpfs tmpfs /new/run
$b mount -t debugfs debugfs /new/sys/kernel/debug
$b mount -t 9p -o $nine out /new/out || fail "mount of /out"
echo GUEST-INIT > /new/dev/console
exec $b switch_root /new /bin/bash /out/boot
"""

_BOOT = r"""export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb LC_ALL=C.UTF-8
exec </dev/null >/dev/console 2>&1
hostname guest
cd /out
bash /out/command >/out/stdout 2>/out/stderr
echo $? >/out/status
dmesg >/out/dmesg
echo end >/out/end
/bin/busybox sync
/bin/busybox poweroff -f
while :; do :; done
"""


class GuestFailed(Exception):
    """The guest did not come up, did not end in time, or its kernel complained; the message says which and shows."""


@dataclasses.dataclass(frozen=True)
class Machine:
    """What machine to boot."""

    type: str = "q35"
    """QEMU's -machine."""
    devices: Sequence[str] = ()
    """More of QEMU's command line."""
    cpus: int = 1
    memory: int = 1024
    """MiB, unless `devices` gives the guest its memory."""
    append: str = ""
    """More of the kernel's command line."""
    xen: bool = False
    """The kernel is a PV domain 0 of Debian's Xen."""
    kernel: Path | None = None
    """The tree of a kernel of our own, with all it needs built in, instead of Debian's (see kernel-debug)."""


@dataclasses.dataclass(frozen=True)
class Result:
    """What a guest left behind."""

    stdout: str
    stderr: str
    status: int
    dmesg: str


def kernel_version() -> str | None:
    """The newest of Debian's kernels here; None when there is none."""
    images = sorted(Path("/boot").glob("vmlinuz-*-amd64"), key=lambda path: _natural(path.name))
    return images[-1].name.removeprefix("vmlinuz-") if images else None


def missing() -> str | None:
    """What a guest needs and this machine lacks, as a reason to skip; None when all is here."""
    needs = {
        "qemu-system-x86": Path("/usr/bin/qemu-system-x86_64").exists(),
        "busybox-static": Path("/bin/busybox").exists(),
        "linux-image-amd64": kernel_version() is not None,
    }
    absent = [name for name, here in needs.items() if not here]
    return f"needs {' '.join(absent)} (./dev test installs them)" if absent else None


def missing_xen() -> str | None:
    """What a guest under Xen needs beyond `missing`, as a reason to skip; None when all is here."""
    return missing() or (None if _xen() else "needs xen-hypervisor-4.17-amd64 (./dev test installs it on Debian 12)")


class Monitor:
    """QEMU's monitor, while a guest runs."""

    def __init__(self, socket: Path) -> None:
        from qemu.qmp.legacy import QEMUMonitorProtocol

        self._qmp = QEMUMonitorProtocol(str(socket))
        self._qmp.connect()

    def execute(self, command: str, **arguments: object) -> object:
        """A QMP command's answer; an exception of qemu.qmp where it is refused."""
        return self._qmp.cmd(command, **arguments)

    def redirection_entries(self) -> list[int]:
        """The 64 bits of each entry of the first IOAPIC, as QEMU itself has them, without status bits."""
        text = str(self.execute("human-monitor-command", **{"command-line": "info pic"}))
        return [int(entry, 16) & ~0x5000 for entry in re.findall(r"^ +pin \d+ +(0x[0-9a-f]+)", text, re.MULTILINE)]

    def close(self) -> None:
        self._qmp.close()


def run(
    machine: Machine,
    command: str,
    out: Path,
    *,
    timeout: float = 120,
    meanwhile: Callable[[Monitor], None] | None = None,
) -> Result:
    """Boot `machine`, run `command` with bash in it, power off.

    `meanwhile` is called once the guest has made the file /out/ready; then /out/go is made, for the guest to wait for.
    `out` becomes /out in the guest. A boot that hangs before its root is mounted is tried once more; GuestFailed
    when it hangs again, when the command does not end within `timeout` seconds, or when the kernel oopses.
    """
    for last_try in (False, True):
        for name in ("stdout", "stderr", "status", "dmesg", "end", "console", "ready", "go"):
            (out / name).unlink(missing_ok=True)
        (out / "boot").write_text(_BOOT)
        (out / "command").write_text(command + "\n")
        _power_on(machine, out, timeout, meanwhile)
        console = _text(out / "console")
        if (out / "end").exists():
            break
        if last_try or "GUEST-INIT" in console:
            raise GuestFailed(f"no end within {timeout:.0f} s; the console's end:\n{console[-2000:]}")
    result = Result(_text(out / "stdout"), _text(out / "stderr"), int(_text(out / "status")), _text(out / "dmesg"))
    for sign in (
        "BUG:",
        "Oops:",
        "KASAN:",
        "UBSAN:",
        "WARNING:",
        "possible circular locking",
        "new suspected memory leaks",
        "INFO: task",
    ):
        if sign in result.dmesg:
            at = result.dmesg.index(sign)
            raise GuestFailed(f"the guest's kernel complained:\n{result.dmesg[at : at + 2000]}")
    return result


def _power_on(machine: Machine, out: Path, timeout: float, meanwhile: Callable[[Monitor], None] | None) -> None:
    """One run of QEMU, from power-on to power-off or to the end of our patience."""
    kernel, initramfs = _images(machine.kernel)
    linux = f"panic=-1 quiet {machine.append}".strip()
    # Under TCG a PV kernel's IRET faults with SMAP: the stack is read as the hypervisor's.
    arguments = ["qemu-system-x86_64", "-machine", machine.type, "-accel", "tcg,thread=multi"]
    arguments += ["-cpu", "max,-smap" if machine.xen else "max"]
    arguments += ["-smp", str(machine.cpus), "-m", str(machine.memory), "-nodefaults", "-display", "none"]
    arguments += ["-no-reboot", "-serial", f"file:{out / 'console'}"]
    if machine.xen:
        modules = f"{kernel} console=hvc0 {linux}".replace(",", ",,")
        arguments += ["-kernel", str(_xen()), "-initrd", f"{modules},{initramfs}"]
        arguments += ["-append", f"dom0_mem={machine.memory - 256}M com1=115200,8n1 console=com1 loglvl=warning"]
    else:
        arguments += ["-kernel", str(kernel), "-initrd", str(initramfs), "-append", f"console=ttyS0 {linux}"]
    for tag, path, options in (("root", "/", "readonly=on,"), ("out", str(out), "")):
        arguments += ["-fsdev", f"local,id={tag},path={path},{options}security_model=none,multidevs=remap"]
        arguments += ["-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]
    with tempfile.TemporaryDirectory() as folder, (out / "qemu").open("wb") as log:
        socket = Path(folder) / "qmp"  # out's path may be too long for a socket's
        arguments += ["-qmp", f"unix:{socket},server=on,wait=off", *machine.devices]
        child = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            ended = _ended(child, out, timeout, machine, meanwhile and (lambda: _call(meanwhile, socket, out)))
        except BaseException:
            os.kill(child.pid, signal.SIGKILL)
            child.wait()
            raise
        if not ended:
            os.kill(child.pid, signal.SIGKILL)
            child.wait()
        elif child.returncode != 0:
            raise GuestFailed(f"QEMU ended with status {child.returncode}: {_text(out / 'qemu').strip()}")


def _call(meanwhile: Callable[[Monitor], None], socket: Path, out: Path) -> None:
    monitor = Monitor(socket)
    try:
        meanwhile(monitor)
    finally:
        monitor.close()
    (out / "go").touch()


def _ended(
    child: subprocess.Popen[bytes], out: Path, timeout: float, machine: Machine, meanwhile: Callable[[], None] | None
) -> bool:
    """Whether QEMU ended by itself; else it is to be killed.

    It has `timeout` seconds in all and BOOT_SECONDS of them (three times as many under Xen, or for a kernel that checks
    itself) to mount its root. A guest that has left its mark gets one more second: a microvm has no way to power off,
    its kernel halts and QEMU stays.
    """
    started = time.monotonic()
    patience = BOOT_SECONDS * (3 if machine.xen or machine.kernel else 1)
    marked = False
    while time.monotonic() < started + timeout:
        try:
            child.wait(0.2 if meanwhile else 1)
            return True
        except subprocess.TimeoutExpired:
            if meanwhile is not None and (out / "ready").exists():
                meanwhile()
                meanwhile = None
            if marked:
                return False
            marked = (out / "end").exists()
            if time.monotonic() > started + patience and "GUEST-INIT" not in _text(out / "console"):
                return False
    return False


def _xen() -> Path | None:
    """Debian's Xen, unpacked; None when there is none."""
    images = sorted(Path("/boot").glob("xen-*-amd64.gz"), key=lambda path: _natural(path.name))
    if not images:
        return None
    BUILD.mkdir(parents=True, exist_ok=True)
    unpacked = BUILD / images[-1].stem
    if not unpacked.exists():
        _write_whole(unpacked, gzip.decompress(images[-1].read_bytes()))
    return unpacked


def _images(tree: Path | None) -> tuple[Path, Path]:
    """The unpacked kernel and the initramfs, made when they are not there yet."""
    BUILD.mkdir(parents=True, exist_ok=True)
    if tree is not None:
        initramfs = BUILD / "initramfs"
        _write_whole(initramfs, b"".join(_cpio(_initramfs(None))))
        return tree / "arch/x86/boot/bzImage", initramfs
    version = kernel_version()
    if version is None:
        raise GuestFailed("no Debian kernel in /boot: install linux-image-amd64")
    kernel = BUILD / f"vmlinux-{version}"
    initramfs = BUILD / f"initramfs-{version}"
    if not kernel.exists():
        _write_whole(kernel, _unpacked(Path(f"/boot/vmlinuz-{version}").read_bytes()))
    _write_whole(initramfs, b"".join(_cpio(_initramfs(version))))
    return kernel, initramfs


def _unpacked(image: bytes) -> bytes:
    """The ELF image inside a bzImage (Linux, Documentation/x86/boot.rst: payload_offset, payload_length)."""
    setup_sectors = image[0x1F1] or 4
    payload, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + payload
    return lzma.LZMADecompressor().decompress(image[start : start + length])


def _initramfs(version: str | None) -> Iterator[tuple[str, int, bytes]]:
    """Name, mode and content of each file; without a version no modules."""
    for folder in ("bin", "proc", "sys", "dev", "rw", "lower", "new", "modules"):
        yield folder, 0o40755, b""
    yield "bin/busybox", 0o100755, Path("/bin/busybox").read_bytes()
    yield "init", 0o100755, _INIT.encode()
    order = []
    for module in _MODULES if version else ():
        path = Path(f"/lib/modules/{version}/kernel/{module}.ko")
        if path.exists():
            order.append(path.name)
            yield f"modules/{path.name}", 0o100644, path.read_bytes()
    yield "modules/order", 0o100644, "".join(f"{name}\n" for name in order).encode()


def _cpio(files: Iterator[tuple[str, int, bytes]]) -> Iterator[bytes]:
    """A "newc" archive (Linux, Documentation/driver-api/early-userspace/buffer-format.rst)."""
    console = ("dev/console", 0o20600, b"")
    for inode, (name, mode, data) in enumerate([*files, console, ("TRAILER!!!", 0, b"")], 1):
        major, minor = (5, 1) if name == "dev/console" else (0, 0)
        path = name.encode() + b"\0"
        fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(path), 0)
        head = b"070701" + b"".join(b"%08x" % field for field in fields) + path
        yield head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)


def _write_whole(path: Path, data: bytes) -> None:
    """Write and rename, so that a run beside this one never sees half a file."""
    half = path.with_suffix(f".{os.getpid()}")
    half.write_bytes(data)
    half.replace(path)


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def _natural(name: str) -> list[int]:
    return [int(part) for part in name.replace(".", "-").split("-") if part.isdigit()]
