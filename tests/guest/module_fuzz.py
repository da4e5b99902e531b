# SPDX-License-Identifier: MIT
"""Runs inside a guest: random ioctls from many threads and processes for some seconds, the module unloaded in between.

The kernel's own checkers (KASAN, lockdep, kmemleak) say whether it was well; this only says how much was tried.
"""

from __future__ import annotations

import ctypes
import os
import random
import signal
import subprocess
import sys
import threading
import time

from dom0kit import abi
from dom0kit.layout import layout

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.ioctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p]
SIZES = {(number == abi.HYPERCALL_DOM0KIT) * 0x40 + command: layout(record).size
         for (number, command), record in abi.ARGUMENTS.items()}  # fmt: skip
SIZES |= {0x80: 24, 0x81: 8, 0x82: 984, 0x83: 280}
PATHS = (
    b"\\_SB_.PCI0._CRS",
    b"\\_SB_.PCI0._PRT",
    b"\\_SB_.LNKA._STA",
    b"\\_SB_.PCI0._STA",
    b"\\_SB_.X._STA",
    b"\\" * 256,
)


def one(file: int, chance: random.Random, room: ctypes.Array[ctypes.c_char]) -> None:
    """One ioctl: mostly of a number and size that exist, with an argument that is nearly one."""
    nr = chance.choice(list(SIZES)) if chance.random() < 0.97 else chance.randrange(256)
    size = SIZES.get(nr, 8) if chance.random() < 0.97 else chance.randrange(1 << 14)
    data = bytearray(chance.randbytes(min(size, 1024)))
    for at in range(len(data)):
        if chance.random() < 0.8:
            data[at] = chance.choice((0, 0, 0, 1, 2, 3, 5, 16, 20))
    if 0x40 <= nr < 0x80 and len(data) >= 8:
        data[:8] = (1).to_bytes(2, "little") + size.to_bytes(2, "little") + bytes(4)
    if nr in (8, 9, 0x45, 0x46, 0x82) and len(data) >= 16:
        at = 8 if nr in (0x45, 0x46) else 0
        data[at : at + 8] = (0xFEC00000).to_bytes(8, "little")
    if nr == 0x83 and len(data) == 280:
        data[:256] = chance.choice(PATHS).ljust(256, b"\0")[:256]
        data[256:264] = ctypes.addressof(room).to_bytes(8, "little")
        data[264:268] = chance.choice((0, 64, 4096)).to_bytes(4, "little")
        data[268:] = bytes(12)
    ctypes.memmove(room, bytes(data), len(data))
    where = ctypes.addressof(room) if chance.random() < 0.97 else chance.choice((0, 1, 1 << 47, 0xFFFFFFFFFFFFF000))
    LIBC.ioctl(file, 3 << 30 | size << 16 | abi.IOCTL_TYPE << 8 | nr, where)


def work(seed: int, end: float, counts: list[int], quiet: threading.Event) -> None:
    chance = random.Random(seed)
    room = ctypes.create_string_buffer(8192)
    done = 0
    while time.monotonic() < end:
        if quiet.is_set():
            time.sleep(0.02)
            continue
        try:
            file = os.open("/dev/dom0kit", os.O_RDWR)
        except OSError:
            time.sleep(0.05)  # unloaded just now
            continue
        for _ in range(chance.randrange(1, 400)):
            if quiet.is_set():
                break
            one(file, chance, room)
            done += 1
        os.close(file)
    counts.append(done)


def main() -> None:
    seconds, seed = float(sys.argv[1]), int(sys.argv[2])
    end = time.monotonic() + seconds
    loads = kills = 0
    counts: list[int] = []
    quiet = threading.Event()
    threads = [threading.Thread(target=work, args=(seed * 100 + number, end, counts, quiet)) for number in range(4)]
    for thread in threads:
        thread.start()
    while time.monotonic() < end:
        victim = os.fork()
        if victim == 0:
            work(seed * 1000 + kills, end, [], threading.Event())
            os._exit(0)
        time.sleep(0.5)
        os.kill(victim, signal.SIGKILL)
        os.waitpid(victim, 0)
        kills += 1
        if kills % 4 == 0:  # else the attempt to unload comes in the middle
            quiet.set()
            time.sleep(0.1)
        if subprocess.run(["rmmod", "dom0kit"], capture_output=True).returncode == 0:
            how = ["direct=1"] if loads % 2 else []
            subprocess.run(["insmod", "/out/dom0kit.ko", *how], check=True)
            loads += 1
        quiet.clear()
    for thread in threads:
        thread.join()
    print(f"{sum(counts)} ioctls, {kills} callers killed, {loads} times unloaded")


if __name__ == "__main__":
    main()
