# SPDX-License-Identifier: MIT
"""What a machine boots: kernel, initramfs and Xen, made from Debian's packages once a checkout."""

from __future__ import annotations

import fcntl
import gzip
import lzma
import os
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
"""The checkout."""

BUILD = ROOT / "build" / "guest"
"""Everything made here; may be deleted at any time."""

STARTED = "GUEST-STARTED"
WAITING = "GUEST-WAITING"
MOUNTED = "GUEST-MOUNTED"
FAILED = "GUEST-FAILED"
"""What the initramfs says on the console: the kernel is up; there are no 9p devices yet (it waits for them); the root
is mounted; something went wrong and the machine is off."""

_NEEDED = ("virtio_pci", "9pnet_virtio", "9p", "overlay")
"""The modules that mount the root; what they depend on comes from modules.dep."""

_INIT = rf"""#!/bin/busybox sh
b=/bin/busybox
fail() {{
    echo "{FAILED} $1" >/dev/console; $b dmesg | $b tail -n 20 >/dev/console; $b poweroff -f; while :; do :; done
}}
$b mount -t proc proc /proc; $b mount -t sysfs sys /sys; $b mount -t devtmpfs dev /dev
while read module; do $b insmod /modules/$module || fail "insmod $module"; done < /modules/order
echo {STARTED} >/dev/console
$b mount -t tmpfs tmpfs /rw; $b mkdir -p /rw/upper /rw/work
devices() {{ $b cat /sys/bus/virtio/drivers/9pnet_virtio/virtio*/mount_tag 2>/dev/null | $b tr -d '\000' | $b wc -c; }}
[ "$(devices)" = 7 ] || echo {WAITING} >/dev/console
until [ "$(devices)" = 7 ]; do $b usleep 20000; done
nine="trans=virtio,version=9p2000.L,msize=512000"
$b mount -t 9p -o $nine,ro,cache=loose root /lower || fail "mount of the root"
$b mount -t overlay -o lowerdir=/lower,upperdir=/rw/upper,workdir=/rw/work overlay /new || fail "overlay"
for d in proc sys dev; do $b mkdir -p /new/$d; $b mount --move /$d /new/$d; done
$b mkdir -p /new/out /new/run; $b mount -t tmpfs tmpfs /new/run
$b mkdir -p /new/dev/pts /new/dev/shm
$b mount -t devpts devpts /new/dev/pts; $b mount -t tmpfs tmpfs /new/dev/shm
$b mount -t debugfs debugfs /new/sys/kernel/debug; $b mount -t tracefs tracefs /new/sys/kernel/tracing 2>/dev/null
$b mount -t 9p -o $nine out /new/out || fail "mount of /out"
echo {MOUNTED} >/new/dev/console
exec $b switch_root /new /bin/bash /out/rig/agent
"""
"""The mount tags it waits for are ``root`` and ``out``, seven characters."""


class Images(NamedTuple):
    """What QEMU loads."""

    kernel: Path
    initramfs: Path


def kernel_version() -> str | None:
    """The newest of Debian's kernels here, such as ``6.1.0-56-amd64``; None when there is none."""
    images = sorted(Path("/boot").glob("vmlinuz-*"), key=lambda path: _natural(path.name))
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
    needs = {"xen-hypervisor-4.17-amd64": _xens(), "xen-utils-4.17": list(Path("/usr/lib").glob("xen-*/bin/xl"))}
    absent = [name for name, here in needs.items() if not here]
    return missing() or (f"needs {' '.join(absent)} (./dev test installs them on Debian 12)" if absent else None)


def missing_hv() -> str | None:
    """What a guest under hv_core needs beyond `missing`, as a reason to skip; None when all is here."""
    needs = {name: Path(f"/usr/bin/{program}").exists() for name, program in (("gcc", "gcc"), ("make", "make"))}
    absent = [name for name, here in needs.items() if not here]
    return missing() or (f"needs {' '.join(absent)} (./dev test installs them)" if absent else None)


def hv_core() -> Path:
    """The boot image of the core, made anew where its sources are newer; AssertionError with the compiler's words."""
    folder = ROOT / "build" / "hv_core"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        make = ["make", "--silent", "-C", str(ROOT / "hv_core" / "x86"), f"O={folder}"]
        ran = subprocess.run(make, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-4000:]
    return folder / "hv_core.elf"


def missing_grub() -> str | None:
    """What starting hv_core by GRUB needs beyond `missing_hv`, as a reason to skip; None when all is here."""
    needs = {
        "grub-pc-bin": Path("/usr/lib/grub/i386-pc/multiboot.mod").exists(),
        "grub-common": Path("/usr/bin/grub-mkrescue").exists(),
        "xorriso": Path("/usr/bin/xorriso").exists(),
    }
    absent = [name for name, here in needs.items() if not here]
    return missing_hv() or (f"needs {' '.join(absent)} (./dev test installs them)" if absent else None)


def grub(folder: Path, options: str, kernel: Path, line: str, initramfs: Path) -> Path:
    """A CD in `folder` from which GRUB starts hv_core, with this kernel and its command line."""
    tree = folder / "grub"
    (tree / "boot" / "grub").mkdir(parents=True, exist_ok=True)
    for source, name in ((hv_core(), "hv_core.elf"), (kernel, "kernel"), (initramfs, "initramfs")):
        shutil.copy(source, tree / "boot" / name)
    (tree / "boot" / "grub" / "grub.cfg").write_text(
        "serial --unit=0 --speed=115200\nterminal_output serial\n"
        f"multiboot /boot/hv_core.elf {options}\nmodule /boot/kernel {line}\nmodule /boot/initramfs\nboot\n"
    )
    make = ["grub-mkrescue", "-d", "/usr/lib/grub/i386-pc", "-o", str(folder / "grub.iso"), str(tree)]
    ran = subprocess.run(make, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-4000:]
    return folder / "grub.iso"


def packed() -> Path:
    """Debian's newest kernel as it comes; FileNotFoundError when there is none."""
    version = kernel_version()
    if version is None:
        raise FileNotFoundError("no kernel in /boot: install linux-image-amd64")
    return Path(f"/boot/vmlinuz-{version}")


def debian() -> Images:
    """Debian's newest kernel, unpacked: emulated, unpacking it would cost five seconds a boot.

    FileNotFoundError when there is none.
    """
    image = packed()
    version = image.name.removeprefix("vmlinuz-")
    kernel = _made(BUILD / f"vmlinux-{version}", image, _unpacked)
    initramfs = BUILD / f"initramfs-{version}"
    _write_whole(initramfs, archive(_files(Path(f"/lib/modules/{version}"))))
    return Images(kernel, initramfs)


def own(tree: Path) -> Images:
    """A kernel of our own, with everything built in, from the tree it was built in (see debug_kernel.py).

    As a bzImage: a kernel with KASAN dies in the PVH entry that QEMU starts an ELF image through.
    """
    initramfs = BUILD / "initramfs"
    BUILD.mkdir(parents=True, exist_ok=True)
    _write_whole(initramfs, archive(_files(None)))
    return Images(tree / "arch/x86/boot/bzImage", initramfs)


def xen() -> Path:
    """Debian's newest Xen, unpacked to the ELF image that QEMU boots; FileNotFoundError when there is none."""
    packed = _xens()
    if not packed:
        raise FileNotFoundError("no Xen in /boot: install xen-hypervisor-4.17-amd64")
    return _made(BUILD / packed[-1].stem, packed[-1], gzip.decompress)


def _xens() -> list[Path]:
    return sorted(Path("/boot").glob("xen-*-amd64.gz"), key=lambda path: _natural(path.name))


def _made(image: Path, packed: Path, unpack: Callable[[bytes], bytes]) -> Path:
    """`packed`, unpacked: again when the package brought a newer one of the same name."""
    BUILD.mkdir(parents=True, exist_ok=True)
    stamp = packed.stat().st_mtime_ns
    if not image.exists() or image.stat().st_mtime_ns != stamp:
        _write_whole(image, unpack(packed.read_bytes()), stamp)
    return image


def _unpacked(image: bytes) -> bytes:
    """The ELF image inside a bzImage (Linux, Documentation/x86/boot.rst: payload_offset, payload_length).

    The bzImage itself when it is not packed with xz: QEMU boots it, too, only slower.
    """
    setup_sectors = image[0x1F1] or 4
    payload, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + payload
    packed = image[start : start + length]
    return lzma.LZMADecompressor().decompress(packed) if packed.startswith(b"\xfd7zXZ\0") else image


def _files(modules: Path | None) -> Iterator[tuple[str, int, bytes]]:
    """Name, mode and content of each file; without a folder of modules none of them."""
    for folder in ("bin", "proc", "sys", "dev", "rw", "lower", "new", "modules"):
        yield folder, 0o40755, b""
    yield "bin/busybox", 0o100755, Path("/bin/busybox").read_bytes()
    yield "init", 0o100755, _INIT.encode()
    order = []
    for path in _load_order(modules) if modules else ():
        data = path.read_bytes()
        order.append(path.name.removesuffix(".xz"))
        yield f"modules/{order[-1]}", 0o100644, lzma.decompress(data) if path.suffix == ".xz" else data
    yield "modules/order", 0o100644, "".join(f"{name}\n" for name in order).encode()


def _load_order(modules: Path) -> list[Path]:
    """The needed modules, each after what it depends on; what is built into the kernel is not among them."""
    lines = (line.partition(":") for line in (modules / "modules.dep").read_text().splitlines())
    depends = {name: needs.split() for name, _, needs in lines}
    order: dict[str, None] = {}
    for name in (path for wanted in _NEEDED for path in depends if Path(path).name.split(".")[0] == wanted):
        order |= dict.fromkeys([*reversed(depends[name]), name])
    return [modules / name for name in order]


def archive(files: Iterable[tuple[str, int, bytes]]) -> bytes:
    """An initramfs of these files (name, mode, content), with a console: a "newc" archive.

    Source: Linux, Documentation/driver-api/early-userspace/buffer-format.rst.
    """
    return b"".join(_cpio(files))


def _cpio(files: Iterable[tuple[str, int, bytes]]) -> Iterator[bytes]:
    console = ("dev/console", 0o20600, b"")
    for inode, (name, mode, data) in enumerate([*files, console, ("TRAILER!!!", 0, b"")], 1):
        major, minor = (5, 1) if name == "dev/console" else (0, 0)
        path = name.encode() + b"\0"
        fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(path), 0)
        head = b"070701" + b"".join(b"%08x" % field for field in fields) + path
        yield head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)


def _write_whole(path: Path, data: bytes, stamp: int | None = None) -> None:
    """Write and rename, so that a run beside this one never sees half a file."""
    half = path.with_suffix(f".{os.getpid()}")
    half.write_bytes(data)
    if stamp is not None:
        os.utime(half, ns=(stamp, stamp))
    half.replace(path)


def _natural(name: str) -> list[int]:
    return [int(part) for part in name.replace(".", "-").split("-") if part.isdigit()]
