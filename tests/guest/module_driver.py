# SPDX-License-Identifier: MIT
"""Runs inside a guest with the module loaded: tries everything, writes what it saw as JSON. Not a test by itself."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import mmap
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from dom0kit import abi
from dom0kit.acpi.aml_values import Buffer, NotEvaluated, Package
from dom0kit.address import Gsi, Polarity, Sbdf, Trigger
from dom0kit.hypercall.interface import HypercallRefused
from dom0kit.hypercall.kernel_module import KernelModule
from dom0kit.layout import layout
from dom0kit.observation import observe
from dom0kit.source.live import live

OUT = Path("/out")
IOAPIC = 0xFEC00000


def status(call: Any, *arguments: Any) -> str:
    """OK, or the name of the refusal."""
    try:
        call(*arguments)
    except HypercallRefused as refused:
        return refused.status.name
    return "OK"


def raw(file: int, request: int, data: bytes | None) -> str:
    """What an ioctl answers: ok, or errno's name."""
    try:
        fcntl.ioctl(file, request, 0 if data is None else bytearray(data), True)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "ok"


def request(nr: int, size: int, direction: int = 3, type: int = abi.IOCTL_TYPE) -> int:
    return direction << 30 | size << 16 | type << 8 | nr


def bad_ioctls() -> dict[str, str]:
    file = os.open("/dev/dom0kit", os.O_RDWR)
    eoi = (0xFFFF).to_bytes(4, "little")
    unmap = layout(abi.UnmapPirq).build(abi.UnmapPirq(domid=abi.DOMID_SELF, padding2=1, pirq=20))
    found = {
        "unknown physdev": raw(file, request(11, 8), bytes(8)),
        "unknown own": raw(file, request(0x40 + 17, 8), bytes(8)),
        "unknown module": raw(file, request(0x8F, 8), bytes(8)),
        "another type": raw(file, request(12, 4, type=0x50), eoi),
        "another direction": raw(file, request(12, 4, direction=1), eoi),
        "too short": raw(file, request(8, 8), bytes(8)),
        "too long": raw(file, request(12, 8), bytes(8)),
        "padding": raw(file, request(14, 8), unmap),
        "bad header": raw(file, request(0x40, 120), bytes(120)),
        "no such irq": raw(file, request(12, 4), eoi),
        "null pointer": raw(file, request(12, 4), None),
        "watch reserved": raw(file, request(0x81, 8), b"\xff" * 8),
        "watch no eventfd": raw(file, request(0x81, 8), file.to_bytes(4, "little") + bytes(4)),
        "hardware elsewhere": raw(file, request(0x82, 984), bytes(984)),
        "hardware short": raw(file, request(0x82, 8), bytes(8)),
        "evaluate short": raw(file, request(0x83, 8), bytes(8)),
    }
    for name, writing, length, offset in (
        ("mmap for writing", mmap.PROT_READ | mmap.PROT_WRITE, 8192, 0),
        ("mmap beyond", mmap.PROT_READ, 4096, 8192),
        ("mmap too much", mmap.PROT_READ, 12288, 0),
        ("mmap of the second page", mmap.PROT_READ, 4096, 4096),
    ):
        try:
            mmap.mmap(file, length, mmap.MAP_SHARED, writing, offset=offset).close()
            found[name] = "ok"
        except OSError as error:
            found[name] = errno.errorcode[error.errno or 0]
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    at = libc.mmap(None, 8192, 1, 1, file, 0)
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    found["writable later"] = "ok" if libc.mprotect(at, 8192, 3) == 0 else errno.errorcode[ctypes.get_errno()]
    os.close(file)
    return found


def without_rights() -> dict[str, str]:
    """What somebody else may: nobody, and a root without the capabilities but with the file open."""
    script = "import os; os.open('/dev/dom0kit', os.O_RDWR)"
    ran = subprocess.run(
        ["setpriv", "--reuid=65534", "--clear-groups", "/usr/bin/python3", "-c", script], capture_output=True, text=True
    )
    file = os.open("/dev/dom0kit", os.O_RDWR)
    asking = f"fcntl.ioctl({file}, {request(0x80, 24)}, bytearray(24))"
    inherited = f"import fcntl\ntry: {asking}\nexcept OSError as e: print(e.errno)"
    os.set_inheritable(file, True)
    dropped = subprocess.run(
        ["setpriv", "--bounding-set=-sys_rawio", "/usr/bin/python3", "-c", inherited],
        capture_output=True, text=True, pass_fds=(file,),
    )  # fmt: skip
    os.close(file)
    return {"nobody": ran.stderr.strip().splitlines()[-1][:30], "no capability": dropped.stdout.strip()}


def good_calls(module: KernelModule) -> dict[str, Any]:
    gsi = Gsi(20)
    seen: dict[str, Any] = {
        "hardware": list(module.read_hardware(IOAPIC).entries),
        "version": hex(module.apic_read(IOAPIC, 1)),
        "setup": status(module.setup_gsi, gsi, Trigger.LEVEL, Polarity.LOW),
        "again": status(module.setup_gsi, gsi, Trigger.LEVEL, Polarity.LOW),
        "pirq": module.map_gsi(gsi, 20),
        "vector": module.query_vector(20).vector == module.alloc_irq_vector(20),
        "needs eoi": int(module.irq_status_query(20)),
        "write": status(module.apic_write, IOAPIC, 0x10 + 40, 0xA031),
        "bad pin": status(module.apic_write, IOAPIC, 0x10 + 48, 0x31),
        "smi": status(module.apic_write, IOAPIC, 0x10 + 40, 0x231),
        "unmap": status(module.unmap_pirq, 20),
        "device": status(module.pci_device_add, Sbdf(0, 0, 1, 0)),
        "msi": module.map_msi(Sbdf(0, 0, 1, 0)) >= 24,
        "gone": status(module.pci_device_remove, Sbdf(0, 0, 1, 0)),
        "assigned": status(module.domain_create, 1)
        + status(module.assign_gsi, 1, gsi)
        + status(module.domain_destroy, 1),
        "untouched": module.read_hardware(IOAPIC).entries == tuple(module.read_hardware(IOAPIC).entries),
    }
    events = module.watch()
    before = module.shared_info()
    module.hand_over(before.rsdp or 0, before.xsdt or 0, before.counter)
    after = module.shared_info()
    seen["handed over"] = (after.handed_over, after.counter - before.counter, os.eventfd_read(events))
    os.close(events)
    seen["hot"] = [status(module.ioapic_remove, IOAPIC)]
    return seen


def aml(module: KernelModule) -> dict[str, Any]:
    def answer(path: str) -> Any:
        try:
            return repr(module.evaluate(path))[:60]
        except NotEvaluated as error:
            return str(error)

    routes = module.evaluate("\\_SB_.PCI0._PRT")
    return {
        "_HID": answer("\\_SB_.PCI0._HID"),
        "_PRT": len(routes.elements) if isinstance(routes, Package) else None,
        "_CRS": isinstance(module.evaluate("\\_SB_.PCI0._CRS"), Buffer),
        "forbidden": answer("\\_SB_.PCI0._OSC"),
        "absent": answer("\\_SB_.NONE._STA"),
        "relative": answer("_SB_._STA"),
        "long": answer("\\" + "A" * 300),
    }


def differing(module: KernelModule) -> dict[str, str]:
    """Where the kernel's interpreter and the offline one differ, and how."""
    platform = observe(live(), kernel_aml=module.evaluate, only="acpi")
    return {finding.where: finding.message for finding in platform.findings if finding.rule == "aml.kernel-differs"}


def pvh(module: KernelModule) -> dict[str, Any]:
    """What Xen 4.17 has for a PVH domain 0, and what it has not."""
    device, absent = Sbdf(0, 0, 0x1F, 3), Sbdf(0, 0x7F, 0, 0)
    return {
        "backend": module.backend.name,
        "apic_read": status(module.apic_read, IOAPIC, 1),
        "apic_write": status(module.apic_write, IOAPIC, 0x10, 0x10000),
        "alloc_irq_vector": status(module.alloc_irq_vector, 20),
        "query_vector": status(module.query_vector, 20),
        "setup_gsi": status(module.setup_gsi, Gsi(20), Trigger.LEVEL, Polarity.LOW),
        "map_gsi": status(module.map_gsi, Gsi(20), 20),
        "unmap_pirq": status(module.unmap_pirq, 20),
        "irq_status_query": status(module.irq_status_query, 20),
        "eoi": status(module.eoi, 20),
        "device": [status(call, device) for call in (module.pci_device_remove, module.pci_device_add)],
        "absent": [status(call, absent) for call in (module.pci_device_remove, module.pci_device_add)],
        "domain_create": status(module.domain_create, 1),
        "information": status(module.information),
        "shared_info": len(module.shared_info().ioapics),
    }


def crowd(module: KernelModule) -> dict[str, Any]:
    """Many threads, and callers killed in the middle; what is left must be what was."""
    before = module.information().messages
    for device in range(4):
        module.pci_device_add(Sbdf(0, 3, device, 0))

    def work(device: int) -> None:
        with KernelModule() as own:
            for _ in range(60):
                pirqs = [own.map_msix(Sbdf(0, 3, device, 0), entry, 0xF0000000) for entry in range(4)]
                for pirq in pirqs:
                    own.unmap_pirq(pirq)

    threads = [threading.Thread(target=work, args=(device,)) for device in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    left = module.information().messages - before
    child = os.fork()
    if child == 0:
        with KernelModule() as own:
            own.watch()
            while True:
                own.information()
    time.sleep(0.3)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    for device in range(4):
        module.pci_device_remove(Sbdf(0, 3, device, 0))
    return {"left": left, "alive": module.information().cpus}


def replay(module: KernelModule) -> list[list[Any]]:
    """The host's sequence of calls, one `number command argument` a line."""
    answers = []
    for line in (OUT / "calls").read_text().splitlines():
        number, command, argument = line.split()
        got, data = module.call(int(number), int(command), bytes.fromhex(argument))
        answers.append([int(got), data.hex()])
    return answers


def main() -> None:
    what = sys.argv[1]
    with KernelModule() as module:
        if what == "replay":
            tables = {name: (Path("/sys/firmware/acpi/tables") / name).read_bytes().hex() for name in ("APIC", "MCFG")}
            entries = list(module.read_hardware(IOAPIC).entries)
            seen: dict[str, Any] = {"entries": entries, "tables": tables, "answers": replay(module)}
        elif what == "everything":
            seen = {
                "backend": module.backend.name,
                "good": good_calls(module),
                "aml": aml(module),
                "differing": differing(module),
                "crowd": crowd(module),
                "bad": bad_ioctls(),
                "rights": without_rights(),
                "busy": subprocess.run(["rmmod", "dom0kit"], capture_output=True).returncode != 0,
            }
        elif what == "pvh":
            seen = pvh(module)
        else:  # Xen
            low, high = ([module.apic_read(IOAPIC, 0x10 + word + 2 * pin) for pin in range(24)] for word in (0, 1))
            entries = [(first & ~0x5000) | second << 32 for first, second in zip(low, high, strict=True)]
            seen = {
                "backend": module.backend.name,
                "entries": entries,
                "beyond": [status(module.apic_write, IOAPIC, 0x10 + 2 * pin, 0x1A031) for pin in (24, 40, 120)],
                "vector": module.query_vector(1).vector,
                "unknown": status(module.apic_read, 0xFED00000, 1),
                "free pin": status(module.apic_write, IOAPIC, 0x10 + 2 * 19, 0x1A0B5),
                "high": status(module.apic_write, IOAPIC, 0x11 + 2 * 19, 0),
                "ioapic_add": status(module.ioapic_add, 0xFED00000, Gsi(64)),
                "setup_gsi": [status(module.setup_gsi, Gsi(20), Trigger.LEVEL, Polarity.LOW) for _ in range(2)],
                "ioapics": len(module.shared_info().ioapics),
            }
    (OUT / "seen").write_text(json.dumps(seen))


if __name__ == "__main__":
    main()
