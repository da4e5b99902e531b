# SPDX-License-Identifier: MIT
"""IOAPIC devices of the ACPI namespace."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0kit.acpi.namespace import AmlDevice, Namespace
from dom0kit.acpi.resources import AddressRange, FixedMemory, Irq, Memory, RangeKind, Resource
from dom0kit.address import Sbdf
from dom0kit.ioapic.controllers import IoapicDevice
from dom0kit.ioapic.namespace import ioapic_devices
from tests.ioapic.tables import ioapic, local_apic

PATH = "\\_SB.PCI0.APIC"
FIXED = FixedMemory(writable=True, address=0xFEC00000, length=0x1000)


def device(*crs: Resource, **more: object) -> AmlDevice:
    return msgspec.structs.replace(AmlDevice(path=PATH, hid="PNP0003", crs=crs or None), **more)


def window(minimum: int, kind: RangeKind = RangeKind.MEMORY) -> AddressRange:
    return AddressRange(
        kind=kind,
        bits=64,
        resource_type=0,
        consumer=True,
        subtractive=False,
        minimum_fixed=True,
        maximum_fixed=True,
        type_flags=0,
        granularity=0,
        minimum=minimum,
        maximum=minimum + 0xFFF,
        translation=0,
        length=0x1000,
    )


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (device(FIXED), IoapicDevice(PATH, 0xFEC00000, None, None, None)),
        (device(FIXED, gsb=24, uid=3), IoapicDevice(PATH, 0xFEC00000, 24, 3, None)),
        (device(FIXED, gsb=24, uid="three"), IoapicDevice(PATH, 0xFEC00000, 24, None, None)),
        (device(FIXED, mat=ioapic(9, 0xFEC00000, 48).hex()), IoapicDevice(PATH, 0xFEC00000, 48, 9, None)),
        (device(FIXED, mat=ioapic(9, 0, 48).hex(), gsb=24, uid=3), IoapicDevice(PATH, 0xFEC00000, 24, 9, None)),
        (device(FIXED, mat=local_apic(1, 1).hex()), IoapicDevice(PATH, 0xFEC00000, None, None, None)),
        (device(FIXED, mat="01"), IoapicDevice(PATH, 0xFEC00000, None, None, None)),
        (device(FIXED, mat="none"), IoapicDevice(PATH, 0xFEC00000, None, None, None)),
        (device(FIXED, gsb=0, uid=0), IoapicDevice(PATH, 0xFEC00000, 0, 0, None)),
        (device(FIXED, gsb=2**32, uid=256), IoapicDevice(PATH, 0xFEC00000, None, None, None)),
        (device(gsb=24), IoapicDevice(PATH, None, 24, None, None)),
        (
            device(Irq(irqs=(2,)), window(1, RangeKind.IO), window(0xFEC40000)),
            IoapicDevice(PATH, 0xFEC40000, *[None] * 3),
        ),
        (
            device(Memory(bits=32, writable=True, minimum=0xFEC10000, maximum=0, alignment=0, length=1)),
            IoapicDevice(PATH, 0xFEC10000, None, None, None),
        ),
    ],
)
def test_what_a_device_says(made: AmlDevice, expected: IoapicDevice) -> None:
    assert ioapic_devices(Namespace(devices=(made,)), {}) == (expected,)


def test_which_devices() -> None:
    def found(*devices: AmlDevice) -> list[str]:
        return [each.path for each in ioapic_devices(Namespace(devices=devices), {})]

    for id in ("ACPI0009", "ACPI000A", "PNP0003"):
        assert found(AmlDevice(path=PATH, hid=id)) == [PATH]
        assert found(AmlDevice(path=PATH, hid="PNP0C02", cids=(id,))) == [PATH]
    assert found(AmlDevice(path=PATH, hid="PNP0C02"), AmlDevice(path=PATH, adr=0)) == []
    assert found(AmlDevice(path=PATH, hid="PNP0003", sta=0)) == []
    above = AmlDevice(path="\\_SB.PCI0", hid="PNP0A08", sta=0)
    assert found(above, AmlDevice(path=PATH, hid="PNP0003")) == []
    assert found(msgspec.structs.replace(above, sta=8), AmlDevice(path=PATH, hid="PNP0003")) == [PATH]


def test_its_place_on_pci() -> None:
    here = Sbdf.parse("0000:00:05.4")
    (found,) = ioapic_devices(Namespace(devices=(device(FIXED),)), {PATH: here})
    assert found.function == here


@given(st.text(max_size=20), st.binary(max_size=40))
def test_any_path_and_any_buffer(path: str, mat: bytes) -> None:
    devices = (AmlDevice(path=path, hid="PNP0003", mat=mat.hex()), AmlDevice(path="\\_SB", sta=0))
    ioapic_devices(Namespace(devices=devices), {})
