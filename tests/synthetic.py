# SPDX-License-Identifier: MIT
"""Machines made for tests of plans: bytes of tables, config space and kernel files, observed as any other machine.

AML is not interpreted: which GSI a pin leads to is drawn, and put in by hand.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
from hypothesis import strategies as st

from dom0kit.address import IntxPin, Polarity, Sbdf, Trigger
from dom0kit.ioapic.controllers import IoapicSet
from dom0kit.ioapic.intx import GsiLine, IntxRoute
from dom0kit.observation import observe
from dom0kit.platform import Platform
from dom0kit.source.in_memory import MemorySource
from dom0kit.source.interface import RawFunction, RawTable, SourceKind
from tests.hv_core.machines import cpu, ioapic, madt, mcfg, override, table

FIRST_BAR = 0xE000_0000
ENTRIES = 24
"""Pins of each IOAPIC."""


class Device(NamedTuple):
    """A function, in the words of a test."""

    sbdf: Sbdf
    gsi: int | None = None
    """That its pin leads to."""
    trigger: Trigger = Trigger.LEVEL
    polarity: Polarity = Polarity.LOW
    msi: int | None = None
    """Messages it is capable of."""
    msix: int | None = None
    """Entries of its table."""
    driver: str | None = None
    irqs: tuple[int, ...] = ()
    """Linux's numbers of its messages."""
    node: int = -1
    class_code: int = 0x020000

    @property
    def bar(self) -> int:
        return FIRST_BAR + (self.sbdf.requester_id << 16)


class Made(NamedTuple):
    """What a test has of a machine."""

    platform: Platform
    tables: tuple[RawTable, ...]


def config(device: Device) -> bytes:
    """256 bytes: MSI (64 bits, maskable) at 50h, MSI-X with its table at BAR 0 + 2000h at 70h."""
    data = bytearray(256)
    command = 0x0006
    struct.pack_into("<HHHHI", data, 0, 0x1234, 0x5678, command, 0x10, device.class_code << 8)
    struct.pack_into("<I", data, 0x10, device.bar)
    if device.gsi is not None:
        data[0x3D] = 1
    at = 0x34
    if device.msi is not None:
        control = 0x180 | (device.msi.bit_length() - 1) << 1 | (bool(device.irqs) and device.msix is None)
        struct.pack_into("<BBHQHHII", data, 0x50, 0x05, 0, control, 0xFEE0_0000 if control & 1 else 0, 0, 0, 0, 0)
        if control & 1:
            struct.pack_into("<H", data, 0x5C, 0x41)
        data[at], at = 0x50, 0x51
    if device.msix is not None:
        control = device.msix - 1 | (0x8000 if device.irqs else 0)
        struct.pack_into("<BBHII", data, 0x70, 0x11, 0, control, 0x2000, 0xE000)
        data[at] = 0x70
    return bytes(data)


def raw(device: Device) -> RawFunction:
    attributes = {"numa_node": str(device.node), "resource": f"{device.bar:#x} {device.bar + 0xFFFF:#x} 0x40200"}
    if device.driver is not None:
        attributes["driver"] = device.driver
    if device.irqs:
        attributes["msi_irqs"] = "\n".join(f"{irq} {'msix' if device.msix else 'msi'}" for irq in device.irqs)
    return RawFunction(device.sbdf, config(device), attributes)


def made(
    devices: Sequence[Device],
    *,
    apic_ids: Sequence[int] = (0, 1),
    ioapics: int = 1,
    requested: Mapping[int, str] | None = None,
    overrides: Sequence[tuple[int, int, int]] = (),
    sci: int | None = None,
    release: str | None = "6.1.0-56-amd64",
    files: Mapping[str, str] | None = None,
    nodes: Mapping[int, int] | None = None,
) -> Made:
    """A machine of these; `requested`: drivers by the number of the IRQ, which is its pin of the first IOAPIC.

    `overrides`: (ISA interrupt, GSI, flags). `nodes`: proximity domain by APIC id.
    """
    entries = [ioapic(0xFEC0_0000 + 0x1000 * n, ENTRIES * n, n) for n in range(ioapics)]
    tables = [
        madt(*map(cpu, apic_ids), *entries, *(override(*each) for each in overrides)),
        mcfg((0xB000_0000, 0, 0, 255)),
    ]
    if sci is not None:
        body = bytearray(276 - 36)
        struct.pack_into("<H", body, 46 - 36, sci)
        tables.append(table(b"FACP", bytes(body), 6))
    if nodes:
        affinity = b"".join(
            struct.pack("<BBHIIIII", 2, 24, 0, node, apic_id, 1, 0, 0) for apic_id, node in nodes.items()
        )
        tables.append(table(b"SRAT", bytes(12) + affinity, 3))
    raw_tables = tuple(RawTable({b"FACP": "FACP"}.get(each[:4], each[:4].decode()), each) for each in tables)
    text: dict[str, str] = {}
    for irq, name in (requested or {}).items():
        text |= {
            f"sys/kernel/irq/{irq}/chip_name": "IO-APIC\n",
            f"sys/kernel/irq/{irq}/hwirq": f"{irq}\n",
            f"sys/kernel/irq/{irq}/actions": f"{name}\n",
            f"sys/kernel/irq/{irq}/type": "level\n",
        }
    for irq in sorted(irq for device in devices for irq in device.irqs):
        text |= {f"sys/kernel/irq/{irq}/chip_name": "PCI-MSI\n", f"sys/kernel/irq/{irq}/actions": "a\n"}
    if release is not None:
        text["proc/version"] = f"Linux version {release} (somebody)\n"
    text["proc/cpuinfo"] = "".join(f"processor\t: {n}\napicid\t\t: {apic_id}\n\n" for n, apic_id in enumerate(apic_ids))
    text["dmesg"] = "".join(
        f"IOAPIC[{n}]: apic_id {n}, version 32, address {0xFEC0_0000 + 0x1000 * n:#x}, "
        f"GSI {ENTRIES * n}-{ENTRIES * n + ENTRIES - 1}\n"
        for n in range(ioapics)
    )
    text |= files or {}
    source = MemorySource(
        "a machine of a test",
        SourceKind.RECORDING,
        tables=raw_tables,
        functions=[raw(device) for device in sorted(devices, key=lambda device: device.sbdf)],
        files={path: content.encode() for path, content in text.items()},
    )
    return Made(routed(observe(source, aml=False), devices), raw_tables)


def routed(platform: Platform, devices: Sequence[Device]) -> Platform:
    """With the GSIs that the devices' pins lead to."""
    pins = IoapicSet(platform.ioapics)
    routes = [
        IntxRoute(
            sbdf=device.sbdf,
            pin=IntxPin.A,
            gsi=device.gsi,
            ioapic_pin=pins.pin(device.gsi),
            trigger=device.trigger,
            polarity=device.polarity,
        )
        for device in sorted(devices, key=lambda device: device.sbdf)
        if device.gsi is not None
    ]
    lines = {gsi: tuple(r.sbdf for r in routes if r.gsi == gsi) for gsi in sorted({r.gsi for r in routes if r.gsi})}
    return msgspec.structs.replace(
        platform,
        routes=tuple(routes),
        lines=tuple(GsiLine(gsi, pins.pin(gsi), functions) for gsi, functions in lines.items()),
    )


@st.composite
def machines(draw: st.DrawFn, *, max_devices: int = 12) -> Made:
    """Up to 300 APIC ids of 8 processors, 3 IOAPICs, functions with pins, MSI and MSI-X, some with drivers."""
    count = draw(st.integers(1, 3))
    places = draw(
        st.lists(st.tuples(st.integers(1, 3), st.integers(0, 31), st.integers(0, 7)), max_size=max_devices, unique=True)
    )
    irqs = iter(range(100, 1000))
    devices: list[Device] = []
    signals: dict[int, tuple[Trigger, Polarity]] = {}
    for place in places:
        gsi = draw(st.none() | st.integers(16, ENTRIES * count + 3))
        trigger, polarity = signals.setdefault(
            gsi or 0, (draw(st.sampled_from(Trigger)), draw(st.sampled_from(Polarity)))
        )
        if any(device.gsi == gsi for device in devices):
            trigger, polarity = Trigger.LEVEL, Polarity.LOW
            devices = [
                each._replace(trigger=trigger, polarity=polarity) if each.gsi == gsi else each for each in devices
            ]
        driver = draw(st.none() | st.sampled_from(["e1000e", "nvme"]))
        msi = draw(st.none() | st.sampled_from([1, 2, 4, 8, 16, 32]))
        msix = draw(st.none() | st.integers(1, 40))
        used = draw(st.integers(0, 2)) if driver and (msi or msix) else 0
        devices.append(
            Device(
                Sbdf(0, *place),
                gsi,
                trigger,
                polarity,
                msi,
                msix,
                driver,
                tuple(next(irqs) for _ in range(min(used, msix or msi or 0))),
                draw(st.integers(-1, 2)),
                0x010802 if driver == "nvme" else 0x020000,
            )
        )
    apic_ids = draw(
        st.lists(st.integers(0, 0x12C).filter(lambda apic_id: apic_id != 0xFF), min_size=1, max_size=8, unique=True)
    )
    requested = dict.fromkeys(draw(st.sets(st.integers(3, 23), max_size=4)), "somebody")
    return made(
        devices,
        apic_ids=apic_ids,
        ioapics=count,
        requested=requested,
        overrides=draw(st.sampled_from([(), ((0, 2, 0), (9, 9, 0x0D))])),
        sci=draw(st.sampled_from([None, 9])),
        nodes={apic_id: draw(st.integers(0, 2)) for apic_id in apic_ids} if draw(st.booleans()) else None,
    )
