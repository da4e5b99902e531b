# SPDX-License-Identifier: MIT
"""Runs in a domain 0 of real Xen, without the kernel module: looks, or acts; writes what it saw as JSON.

Not a test by itself. What Xen says of itself comes by ``xl debug-keys``, which knows nothing of this project.
"""

from __future__ import annotations

import contextlib
import io
import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dom0kit import abi
from dom0kit.abi import ARGUMENTS, Physdev
from dom0kit.address import Gsi, Polarity, Sbdf, Trigger
from dom0kit.cli import main as dom0kit
from dom0kit.hypercall.interface import HypercallRefused
from dom0kit.hypercall.trace import TraceWriter
from dom0kit.hypercall.xen import Privcmd, Xen
from dom0kit.hypercall.xen_told import told
from dom0kit.layout import layout
from dom0kit.platform import Platform
from dom0kit.serial import decode

OUT = Path("/out")
IOAPIC = 0xFEC00000
EDU = Sbdf(0, 0, 5, 0)
"""QEMU's edu device: INTx and one MSI, and no driver anywhere."""
PHANTOM = Sbdf(0, 9, 0, 0)
"""There is no bus 9."""
FREE = Gsi(19)
"""A pin that no function of the machine leads to; 17 and 18 are others."""
NETWORK = Sbdf(0, 0, 4, 0)
"""An e1000, with INTx alone: GSI 20."""


def keys(letters: str) -> str:
    """What Xen writes into its log when asked by debug keys."""
    subprocess.run(["xl", "dmesg", "-c"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["xl", "debug-keys", letters], check=True)
    return subprocess.run(["xl", "dmesg"], check=True, stdout=subprocess.PIPE, text=True).stdout


def command(*words: str) -> tuple[int, Any]:
    """Exit status and JSON of a verb of dom0kit, in this process."""
    text = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with contextlib.redirect_stdout(text):
        status = dom0kit([*words, "--format", "json"])
    return status, json.loads(text.buffer.getvalue() or b"null")


def status(call: Callable[..., object], *arguments: object) -> str:
    """OK, or the name of the refusal."""
    try:
        call(*arguments)
    except HypercallRefused as refused:
        return refused.status.name
    return "OK"


def entries(xen: Xen) -> list[int]:
    pins = (xen.apic_read(IOAPIC, 1) >> 16 & 0xFF) + 1
    low, high = ([xen.apic_read(IOAPIC, 0x10 + word + 2 * pin) for pin in range(pins)] for word in (0, 1))
    return [(first & ~0x5000) | second << 32 for first, second in zip(low, high, strict=True)]


def raw(command: Physdev, argument: bytes = b"") -> int:
    """What Xen itself answers to an operation, its argument filled up with zeros, past everything that we check."""
    size = layout(ARGUMENTS[abi.HYPERCALL_PHYSDEV, command]).size
    with Privcmd() as privcmd, privcmd.lock:
        privcmd.memory[:size] = argument.ljust(size, b"\0")
        return privcmd.hypercall(abi.HYPERCALL_PHYSDEV, command, privcmd.address)


def look(xen: Xen, *options: str) -> dict[str, Any]:
    """Facts, ours (of enumerate with `options`) and Xen's; changes nothing."""
    seen: dict[str, Any] = {"keys": keys("izMQ")}
    seen["platform"] = command("enumerate", *options)
    (OUT / "platform").write_text(json.dumps(seen["platform"][1]))
    seen["xen"] = command("hv", "xen")
    seen["bound"] = sorted(xen.bound_pirqs())
    seen["functions"] = {str(sbdf): known for sbdf, known in xen.knows([EDU, PHANTOM]).items()}
    return seen


def look_pv(xen: Xen) -> dict[str, Any]:
    seen = look(xen)
    seen["irq"] = command("irq")
    seen["entries"] = entries(xen)
    seen["vectors"] = [xen.query_vector(gsi).vector if entry & 0xFF else 0 for gsi, entry in enumerate(seen["entries"])]
    seen["lacks"] = {Physdev.PCI_DEVICE_RESET.name: raw(Physdev.PCI_DEVICE_RESET)}
    return seen


def look_pvh(xen: Xen) -> dict[str, Any]:
    seen = look(xen, "--no-aml")
    seen["completed"] = command("enumerate", "--native", str(OUT / "native.d0k"))
    absent = [each for each in Physdev if not xen.domain.availability(each).available]
    seen["lacks"] = {each.name: raw(each) for each in absent}
    seen["refused"] = {}
    for name, call in (
        ("apic_read", lambda: xen.apic_read(IOAPIC, 1)),
        ("setup_gsi", lambda: xen.setup_gsi(FREE, Trigger.LEVEL, Polarity.LOW)),
        ("map_pirq", lambda: xen.map_gsi(FREE)),
    ):
        try:
            call()
        except HypercallRefused as refused:
            seen["refused"][name] = [refused.status.name, str(refused)]
    return seen


def write(xen: Xen, pin: int, low: int) -> list[Any]:
    """Status of an apic_write, and the low word after it (without the vector, where Xen chooses it)."""
    answered = status(xen.apic_write, IOAPIC, 0x10 + 2 * pin, low)
    now = xen.apic_read(IOAPIC, 0x10 + 2 * pin)
    return [answered, hex(now & 0x1A000), bool(now & 0xFF)]


def classic(xen: Xen) -> dict[str, Any]:
    before = entries(xen)
    return {
        "beyond": [status(xen.apic_write, IOAPIC, 0x10 + 2 * pin, 0x1A0B5) for pin in (24, 25, 40, 200)],
        "beyond, read": [status(xen.apic_read, IOAPIC, 0x10 + 2 * pin) for pin in (24, 40)],
        "busy": [write(xen, pin, before[pin] & 0x1FFFF ^ 0x8000 | 0x10000)[0] for pin in (2, 4, 9)],
        "pirq beyond the limit": status(xen.apic_write, IOAPIC, 0x10 + 2 * FREE, 0xA0FF),
        "delivery": [status(xen.apic_write, IOAPIC, 0x10 + 2 * FREE, 0x10000 | mode << 8) for mode in (2, 4, 5, 7)],
        "id": status(xen.apic_write, IOAPIC, 0, 1 << 24),
        "high": status(xen.apic_write, IOAPIC, 0x11 + 2 * FREE, 0),
        "unknown": status(xen.apic_read, 0xFED00000, 1),
        "untouched": entries(xen) == before,
        "masked level low": write(xen, FREE, 0x1A0B5),
        "unmasked level low": write(xen, FREE, 0xA000 | FREE),
        "masked edge": write(xen, FREE, 0x100B7),
        "other pins": [pin for pin, entry in enumerate(entries(xen)) if entry != before[pin]],
    }


def modern(xen: Xen) -> dict[str, Any]:
    gsi = Gsi(18)
    seen = {
        "first free pirq": xen.map_gsi(Gsi(17)),
        "pirq": xen.map_gsi(gsi, gsi),
        "set up": [status(xen.setup_gsi, gsi, Trigger.LEVEL, Polarity.LOW) for _ in range(2)],
        "no such gsi": [
            status(xen.map_gsi, Gsi(100)),
            status(xen.setup_gsi, Gsi(100), Trigger.LEVEL, Polarity.LOW),
        ],
        "dummy": xen.alloc_irq_vector(gsi),
        "status": int(xen.irq_status_query(gsi)),
        "map again": status(xen.map_gsi, gsi, gsi),
        "unmap": [status(xen.unmap_pirq, pirq) for pirq in (gsi, gsi, 16)],
        "map for ever gone": [
            status(xen.map_gsi, gsi, gsi),
            status(xen.apic_write, IOAPIC, 0x10 + 2 * gsi, 0xA000 | gsi),
        ],
    }
    config = Path(f"/sys/bus/pci/devices/{EDU}/config")
    before = config.read_bytes()
    pirq = xen.map_msi(EDU)
    seen |= {
        "message pirq": pirq,
        "message": {"keys": keys("iMQ"), "state": message(config.read_bytes()), "before": message(before)},
        "message gone": [status(xen.unmap_pirq, pirq), status(xen.unmap_pirq, pirq)],
        "after": {"keys": keys("M"), "state": message(config.read_bytes())},
    }
    return seen


def message(config: bytes) -> list[Any]:
    """Of a function's MSI: enabled, low half of the address, data."""
    at = config[0x34]
    while config[at] != 5:
        at = config[at + 1]
    control, address = struct.unpack_from("<HI", config, at + 2)
    (data,) = struct.unpack_from("<H", config, at + (12 if control & 0x80 else 8))
    return [control & 1, address, data]


def functions(xen: Xen, platform: Platform) -> dict[str, Any]:
    """A function is taken from Xen and given back."""

    def known() -> bool:
        return xen.knows([EDU])[EDU]

    def ours() -> list[str]:
        functions = [function.sbdf for function in platform.functions]
        assert platform.kernel is not None
        return [one.rule for one in told(xen, functions, platform.routes, platform.ioapics, platform.kernel)[1]]

    with_ecam = [
        struct.unpack_from("<QHBB", table, at)
        for table in (Path("/sys/firmware/acpi/tables/MCFG").read_bytes(),)
        for at in range(44, len(table) - 15, 16)
    ]
    return {
        "ranges": [status(xen.pci_mmcfg_reserved, *ecam, True) for ecam in with_ecam],
        "no such range": status(xen.pci_mmcfg_reserved, 0xD0000000, 0, 0, 255, True),
        "known": known(),
        "again": [status(xen.pci_device_add, EDU), known()],
        "gone": [status(xen.pci_device_remove, EDU), known(), status(xen.map_msi, EDU), ours()],
        "gone twice": status(xen.pci_device_remove, EDU),
        "back": [status(xen.pci_device_add, EDU), known(), ours()],
        "not there": [
            status(xen.pci_device_add, PHANTOM),
            status(lambda: xen.pci_device_add(EDU, physical=PHANTOM)),
            *xen.knows([PHANTOM]).values(),
        ],
    }


def phantom(xen: Xen) -> list[Any]:
    """Xen is told of a function that is not there, past our own refusal, and we are to take it away.

    With an IOMMU Xen fails to add it, keeps it, and would panic if it were removed.
    """
    argument = layout(abi.PciDevice).build(abi.PciDevice(seg=0, bus=PHANTOM.bus, devfn=PHANTOM.devfn))
    answered = raw(Physdev.PCI_DEVICE_ADD, argument)
    known = xen.knows([PHANTOM])[PHANTOM]
    return [answered, known, status(xen.pci_device_remove, PHANTOM), xen.knows([PHANTOM])[PHANTOM]]


def plan(xen: Xen) -> dict[str, Any]:
    """A plan for everything without a driver is applied and undone; then a driver comes and needs its GSI."""
    statuses = [dom0kit(["irq", "plan", "-o", "/run/plan"]), dom0kit(["apply", "/run/plan"])]
    planned = keys("i")
    statuses.append(dom0kit(["rollback"]))
    subprocess.run(["modprobe", "e1000"], check=True)
    driver = Path(f"/sys/bus/pci/devices/{NETWORK}/driver")
    return {"statuses": statuses, "keys": planned, "driver": driver.resolve().name if driver.exists() else None}


def act(xen: Xen) -> dict[str, Any]:
    platform = decode((OUT / "platform").read_bytes(), Platform)
    with TraceWriter(OUT / "trace") as trace:
        xen.listener = trace
        seen: dict[str, Any] = {"functions": functions(xen, platform)}
        if xen.domain.availability(Physdev.APIC_WRITE).available:
            seen |= {"classic": classic(xen), "modern": modern(xen), "entries": entries(xen)}
    xen.listener = None
    gone = phantom(xen)
    alive = subprocess.run(["xl", "info", "xen_version"], capture_output=True, text=True).stdout.strip()
    return seen | {"alive": alive, "phantom": gone}


def main() -> None:
    what = sys.argv[1]
    with Xen() as xen:
        seen = {"look-pv": look_pv, "look-pvh": look_pvh, "act": act, "plan": plan}[what](xen)
    (OUT / what).write_text(json.dumps(seen))


if __name__ == "__main__":
    main()
