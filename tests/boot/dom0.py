# SPDX-License-Identifier: MIT
"""Runs inside dom0: ``dom0.py STEP...``, each a function below; what they saw goes to ``/out/seen`` as JSON."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import json
import mmap
import os
import re
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dom0kit.address import Gsi, Polarity, Trigger
from dom0kit.hypercall.interface import HypercallRefused
from dom0kit.hypercall.kernel_module import KernelModule

OUT = Path("/out")
COUNTERS = 0x40000004
IOAPIC = 0xFEC00000
LOCAL_APIC = 0xFEE00000
PACKETS = 500
"""Sent, and as many received."""
ICR = 0x300
ICR_HIGH = 0x310
LOGICAL_ID = 0xD0


# ---- What the core counts ----


def leaf(number: int, subleaf: int = 0) -> tuple[int, ...]:
    """A leaf of CPUID, by the kernel's cpuid driver: EAX, EBX, ECX, EDX."""
    with open("/dev/cpu/0/cpuid", "rb", buffering=0) as file:
        return struct.unpack("<4I", os.pread(file.fileno(), 16, subleaf << 32 | number))


def counters() -> dict[str, int]:
    """Exits by kind."""
    counted: dict[str, int] = {}
    for index in itertools.count():
        low, high, name, more = leaf(COUNTERS, index)
        if not name:
            return counted
        counted[struct.pack("<2I", name, more).rstrip(b"\0").decode()] = high << 32 | low
    raise AssertionError


def change(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    return {name: after[name] - before[name] for name in after if after[name] != before[name]}


# ---- Memory, by /dev/mem (the kernel has iomem=relaxed) ----


@contextlib.contextmanager
def page(address: int) -> Iterator[Callable[[int], ctypes.c_uint32]]:
    """A page of physical memory: a function from an offset to the 32-bit word there."""
    with open("/dev/mem", "r+b", buffering=0) as file:
        mapped = mmap.mmap(file.fileno(), 4096, offset=address)
    yield lambda offset: ctypes.c_uint32.from_buffer(mapped, offset)


def register(address: int, offset: int, *, write: int | None = None) -> int:
    """A 32-bit register: read, or written and 0."""
    with page(address) as word:
        if write is None:
            return word(offset).value
        word(offset).value = write
        return 0


# ---- Steps ----


def exits() -> Any:
    """Until now, by kind."""
    return counters()


def machine() -> Any:
    """What dom0kit sees: the whole report, as on any machine.

    AML's loops have a limit in seconds, which a loaded host passes: then once more.
    """
    command = [str(Path(sys.executable).parent / "dom0kit"), "enumerate", "--format", "json"]
    for _ in range(4):
        seen = json.loads(subprocess.run(command, capture_output=True, text=True, check=False).stdout)
        if not any("TIMEOUT" in finding["message"] for finding in seen["findings"]):
            break
    return seen


def registered() -> Any:
    """The ACPI pointers, confirmed on the command line."""
    command = [str(Path(sys.executable).parent / "dom0kit"), "hv", "register"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    return [ran.returncode, ran.stdout.count("handed over by dom0")]


def entries() -> Any:
    """The redirection entries by hypercall, as QEMU shows them."""
    with KernelModule() as module:
        pins = (module.apic_read(IOAPIC, 1) >> 16 & 0xFF) + 1
        return [
            (module.apic_read(IOAPIC, 0x10 + 2 * pin) | module.apic_read(IOAPIC, 0x11 + 2 * pin) << 32) & ~0x5000
            for pin in range(pins)
        ]


def information() -> Any:
    with KernelModule() as module:
        known = module.information()
        shared = module.shared_info()
        return {
            "cpus": known.cpus,
            "mode": known.mode,
            "reports": known.reports,
            "trapped": known.trapped,
            "ioapics": len(shared.ioapics),
            "vector of the timer": module.query_vector(2).vector,
        }


def hand_over() -> Any:
    """The ACPI pointers go back to the core."""
    with KernelModule() as module:
        before = module.shared_info()
        assert before.rsdp is not None
        assert before.xsdt is not None
        wrong = "accepted"
        try:
            module.hand_over(before.rsdp + 16, before.xsdt, before.counter)
        except HypercallRefused as refused:
            wrong = refused.status.name
        module.hand_over(before.rsdp, before.xsdt, before.counter)
        after = module.shared_info()
        return {"wrong": wrong, "counter": after.counter - before.counter, "handed over": after.handed_over}


def ping(interface: str, count: int) -> int:
    """Echo requests to QEMU's own host; how many were answered."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        raw.settimeout(3)
        answered = 0
        for number in range(count):
            packet = struct.pack("!BBHHH", 8, 0, 0, 0x6430, number)
            total = sum(struct.unpack("!4H", packet))
            total = (total & 0xFFFF) + (total >> 16)
            raw.sendto(packet[:2] + struct.pack("!H", ~total & 0xFFFF) + packet[4:], ("10.0.2.2", 0))
            with contextlib.suppress(TimeoutError):
                while raw.recv(256)[20:28] != struct.pack("!BBHHH", 0, 0, ~(0x6430 + number) & 0xFFFF, 0x6430, number):
                    pass
                answered += 1
        return answered


def network(driver: str) -> Any:
    """Packets through one card, and what the core did for them."""
    subprocess.run(["modprobe", driver], check=True)
    path = next(
        path
        for path in Path("/sys/class/net").iterdir()
        if (path / "device/driver/module").is_dir() and (path / "device/driver/module").resolve().name == driver
    )
    busybox = ["busybox", "ip"]
    subprocess.run([*busybox, "link", "set", path.name, "up"], check=True)
    subprocess.run([*busybox, "address", "add", "10.0.2.15/24", "dev", path.name], check=True)
    end = time.monotonic() + 20
    while (path / "carrier").read_text() != "1\n" and time.monotonic() < end:
        time.sleep(0.1)
    time.sleep(1)
    ping(path.name, 5)  # address resolution
    interrupts = sum(int(count) for count in _interrupts(rf"\b{path.name}\b"))
    before = counters()
    answered = ping(path.name, PACKETS)
    after = counters()
    interrupts = sum(int(count) for count in _interrupts(rf"\b{path.name}\b")) - interrupts
    lines = [line for line in Path("/proc/interrupts").read_text().splitlines() if re.search(rf"\b{path.name}\b", line)]
    subprocess.run([*busybox, "link", "set", path.name, "down"], check=True)
    subprocess.run([*busybox, "address", "flush", "dev", path.name], check=True)
    return {
        "answered": answered,
        "interrupts": interrupts,
        "by message": all("PCI-MSI" in line for line in lines),
        "exits": change(before, after),
    }


def e1000() -> Any:
    return network("e1000")


def e1000e() -> Any:
    return network("e1000e")


def _interrupts(wanted: str) -> Iterator[str]:
    """The counts, for each CPU, of the lines of /proc/interrupts that match."""
    head, *lines = Path("/proc/interrupts").read_text().splitlines()
    for line in lines:
        if re.search(wanted, line):
            yield from line.split()[1 : 1 + len(head.split())]


def per_interrupt() -> Any:
    """Interrupts of all kinds against EOI writes, and interprocessor ones sent against ICR writes, while it works.

    Each count of the kernel's lies between two of the core's: at least, and at most, so many writes came meanwhile.
    """

    def now() -> tuple[dict[str, int], int, int, dict[str, int]]:
        before = counters()
        took = sum(int(count) for count in _interrupts(r"^ *(\d+|LOC|SPU|IWI|RES|CAL|THR|DFR|PIN):"))
        sent = sum(int(count) for count in _interrupts(r"^ *(RES|CAL):"))
        return before, took, sent, counters()

    first, took, sent, second = now()
    loop = "for i in 1 2 3 4 5 6 7 8 9; do busybox usleep 50000; done"
    work = [subprocess.Popen(["busybox", "sh", "-c", loop]) for _ in range(3)]
    for each in work:
        each.wait()
    third, took_later, sent_later, fourth = now()
    return {
        "eoi": [third["eoi"] - second["eoi"], took_later - took, fourth["eoi"] - first["eoi"]],
        "icr": [third["icr"] - second["icr"], sent_later - sent, fourth["icr"] - first["icr"]],
        "kinds": sorted(change(first, fourth)),
    }


def cpu_off_and_on() -> Any:
    """A processor leaves and comes back, three times."""
    online = Path("/sys/devices/system/cpu/cpu1/online")
    for _ in range(3):
        online.write_text("0")
        online.write_text("1")
    return Path("/sys/devices/system/cpu/online").read_text().strip()


def _probe(**parameters: object) -> str:
    words = [f"{name}={value}" for name, value in parameters.items()]
    subprocess.run(["insmod", "/out/hv_probe.ko", *words], capture_output=True, check=False)
    said = subprocess.run(["dmesg"], capture_output=True, text=True, check=True).stdout
    return str(re.findall(r"hv_probe: (.*)", said)[-1])


def cost() -> Any:
    """TSC cycles of a read of an IOAPIC's register by hypercall, and trapped."""
    return [int(word) for word in re.findall(r"\d+", _probe(cost=1000))]


def edu() -> Any:
    """A GSI that dom0kit set up; a driver of dom0's registers it and takes its interrupts."""
    device = next(
        path for path in Path("/sys/bus/pci/devices").iterdir() if (path / "device").read_text() == "0x11e8\n"
    )
    (device / "enable").write_text("1")  # the kernel finds the GSI
    gsi = int((device / "irq").read_text())
    (device / "enable").write_text("0")
    with KernelModule() as module:
        module.setup_gsi(Gsi(gsi), Trigger.LEVEL, Polarity.HIGH)
    return _probe(edu=20).split(" ", 3)[-1] + f" of {gsi}"


def _state(run: Callable[[], object]) -> tuple[object, dict[str, int]]:
    """What it returns, and what the core refused meanwhile."""
    before = counters()
    value = run()
    return value, {name: count for name, count in change(before, counters()).items() if name.startswith("!")}


def _msr(number: int, value: bytes | None = None) -> str:
    try:
        with open("/dev/cpu/0/msr", "r+b", buffering=0) as file:
            if value is None:
                return os.pread(file.fileno(), 8, number).hex()
            os.pwrite(file.fileno(), value, number)
            return "written"
    except OSError as error:
        return str(error.strerror)


def _core_memory() -> int:
    """The start of the core's memory: the first range above 64 MiB that /proc/iomem has as reserved."""
    ranges = re.findall(r"^([0-9a-f]+)-[0-9a-f]+ : Reserved$", Path("/proc/iomem").read_text(), re.MULTILINE)
    return next(start for start in (int(word, 16) for word in ranges) if start >= 64 << 20)


def memory() -> Any:
    """Reads and writes of the core's memory."""
    start = _core_memory()
    last = start + 0x3FF000

    def write_all() -> None:
        with page(start) as word:
            word(0).value = 0x12345678

    reads = {hex(at): [register(at, offset) for offset in (0, 4, 0x7FC)] for at in (start, start + 0x10000, last)}
    return {
        "reads": [value for values in reads.values() for value in values],
        "write": _state(write_all),
        "read again": register(start, 0),
        "refused": _state(lambda: register(start + 0x20000, 0))[1],
    }


def entry_modes() -> Any:
    """Redirection entries with delivery modes that are the core's alone: by hypercall, and trapped."""
    by_call, trapped = {}, {}
    with KernelModule() as module:
        for name, mode in (("SMI", 2), ("NMI", 4), ("INIT", 5), ("ExtINT", 7)):
            low = mode << 8 | 0x40
            try:
                module.apic_write(IOAPIC, 0x10 + 2 * 23, low)
                by_call[name] = "accepted"
            except HypercallRefused as refused:
                by_call[name] = refused.status.name
            before = module.information().trapped_refused
            with page(IOAPIC) as word:
                word(0).value = 0x10 + 2 * 23
                word(0x10).value = low
                trapped[name] = [word(0x10).value == 0x10000, module.information().trapped_refused - before]
    return {"by call": by_call, "trapped": trapped}


def instructions() -> Any:
    """What only a hypervisor may execute, at dom0's highest privilege; and a hypercall at its lowest."""
    names = ("vmrun", "vmload", "vmsave", "stgi", "clgi", "skinit", "invlpga")
    return {
        "kernel": {name: _state(functools.partial(_probe, instruction=name)) for name in names},
        "user": _state(lambda: subprocess.run([sys.executable, "-c", _CALL], check=False).returncode),
        "calls": {
            "unknown": _probe(instruction="vmmcall", rax=1),
            "null": _probe(instruction="vmmcall", rax=33, rdi=8, rsi=0),
            "not canonical": _probe(instruction="vmmcall", rax=33, rdi=8, rsi=0x800000000000),
            "large": _probe(instruction="vmmcall", rax=0x100000021, rdi=8, rsi=0),
        },
    }


_CALL = """
import ctypes, mmap
code = mmap.mmap(-1, 4096, prot=7)
code.write(bytes.fromhex('b821000000' '0f01d9' 'c3'))
ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()
"""


def registers() -> Any:
    """MSRs that are the core's."""
    subprocess.run(["modprobe", "msr"], check=True)
    efer = bytes.fromhex(_msr(0xC0000080))
    with_svme = (int.from_bytes(efer, "little") | 1 << 12).to_bytes(8, "little")
    return {
        "EFER has SVME": int.from_bytes(efer, "little") >> 12 & 1,
        "EFER": _state(lambda: _msr(0xC0000080, with_svme)),
        "VM_CR": _state(lambda: _msr(0xC0010114, bytes(8))),
        "VM_HSAVE_PA": _state(lambda: _msr(0xC0010117, bytes(8))),
        "read of VM_HSAVE_PA": _state(lambda: _msr(0xC0010117)),
        "APIC_BASE": _state(lambda: _msr(0x1B, (0xFEC00000 | 0x900).to_bytes(8, "little"))),
        "x2APIC": _state(lambda: _msr(0x830, bytes(8))),
        "SVM in CPUID": leaf(0x80000001)[2] >> 2 & 1,
        "x2APIC in CPUID": leaf(1)[2] >> 21 & 1,
    }


def interprocessor() -> Any:
    """Interprocessor interrupts that would reach a processor of the core's: dom0 has the first two of four."""
    kept = 2

    def send(low: int, destination: int = kept) -> object:
        def both() -> None:
            register(LOCAL_APIC, ICR_HIGH, write=destination << 24)
            register(LOCAL_APIC, ICR, write=low)

        return _state(both)[1]

    return {
        "INIT": send(0x4500),
        "SIPI": send(0x4608),
        "NMI": send(0x4400),
        "fixed": send(0x40FD),
        "SMI": send(0x4200, 1),
        "broadcast NMI": send(0xC4400),
        "broadcast fixed": send(0xC40FD),
        "all": send(0x40FD, 0xFF),
        "logical": send(0x48FD, 0x04),
        "self": send(0x440FD),
        "cpus": Path("/sys/devices/system/cpu/present").read_text().strip(),
    }


def main() -> None:
    subprocess.run(["modprobe", "cpuid"], check=True)
    os.sched_setaffinity(0, {0})  # else reading CPU 0's leaves sends interprocessor interrupts
    # Each step by itself, so that one that fails leaves what the others saw.
    seen = {}
    for step in sys.argv[1:]:
        seen[step] = globals()[step]()
        (OUT / "seen").write_text(json.dumps(seen))


if __name__ == "__main__":
    main()
