# SPDX-License-Identifier: MIT
"""Where devices sit on PCI, and what their status means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0kit.acpi.namespace import AmlDevice, Evaluation, Namespace, RegionAccess, parent, pci_addresses, root_bus
from dom0kit.acpi.resources import AddressRange, EndTag, RangeKind
from dom0kit.acpi.tables.common import AddressSpace
from dom0kit.address import Sbdf


def root(**fields: object) -> AmlDevice:
    return AmlDevice(path="\\_SB.PCI0", hid="PNP0A08", **fields)  # type: ignore[arg-type]


def at(path: str, number: int, function: int = 0) -> AmlDevice:
    return AmlDevice(path=path, adr=number << 16 | function)


def bridge(secondary: int) -> bytes:
    data = bytearray(64)
    data[0xE], data[0x19] = 0x81, secondary
    return bytes(data)


def buses(first: int) -> AddressRange:
    return AddressRange(
        kind=RangeKind.BUS,
        bits=16,
        resource_type=2,
        consumer=False,
        subtractive=False,
        minimum_fixed=True,
        maximum_fixed=True,
        type_flags=0,
        granularity=0,
        minimum=first,
        maximum=0xFF,
        translation=0,
        length=0x100 - first,
    )


def test_a_root_bridges_bus() -> None:
    crs = (buses(0x20), EndTag(checksum=0))
    assert root_bus(root(bbn=0x80, seg=1, crs=crs)) == (1, 0x80)
    assert root_bus(root(crs=crs)) == (0, 0x20)
    assert root_bus(root()) == (0, 0)
    assert root_bus(root(bbn=0x1FF, seg=0x1_0000_0001)) == (1, 0xFF)


def test_addresses_follow_bridges_down() -> None:
    devices = (
        root(bbn=0x10, seg=2),
        at("\\_SB.PCI0.RP01", 0x1C, 3),
        at("\\_SB.PCI0.RP01.SLOT", 0, 0xFFFF),
        at("\\_SB.PCI0.RP01.SLOT.DEEP", 1),
        at("\\_SB.PCI0.RP02", 0x1D),
        at("\\_SB.PCI0.RP02.GONE", 0),
        at("\\_SB.PCI0.SATA", 0x1F, 2),
        at("\\_SB.PCI0.SATA.PRT0", 0),
        at("\\_SB.PCI0.ODD0", 0x20),
        at("\\_SB.PCI0.ODD1", 1, 8),
        at("\\_SB.ELSE", 1),
    )
    config = {
        Sbdf(2, 0x10, 0x1C, 3): bridge(0x11),
        Sbdf(2, 0x11, 0, 0): bridge(0x12),
        Sbdf(2, 0x10, 0x1F, 2): bytes(64),
    }
    assert pci_addresses(devices, config) == {
        "\\_SB.PCI0.RP01": Sbdf(2, 0x10, 0x1C, 3),
        "\\_SB.PCI0.RP01.SLOT": Sbdf(2, 0x11, 0, 0),
        "\\_SB.PCI0.RP01.SLOT.DEEP": Sbdf(2, 0x12, 1, 0),
        "\\_SB.PCI0.RP02": Sbdf(2, 0x10, 0x1D, 0),
        "\\_SB.PCI0.SATA": Sbdf(2, 0x10, 0x1F, 2),
    }


@pytest.mark.parametrize("header", [b"", bytes(0x19), bridge(0), b"\xff" * 64])
def test_behind_what_is_no_bridge_there_are_no_addresses(header: bytes) -> None:
    devices = (root(), at("\\_SB.PCI0.RP01", 1), at("\\_SB.PCI0.RP01.DEV0", 0))
    assert list(pci_addresses(devices, {Sbdf(0, 0, 1, 0): header})) == ["\\_SB.PCI0.RP01"]


_INTEGERS = st.none() | st.integers(0, 2**64 - 1)


@given(st.lists(st.tuples(st.sampled_from("ABC"), st.booleans(), _INTEGERS, _INTEGERS, _INTEGERS), max_size=6))
def test_any_devices_are_placed(parts: list[tuple[str, bool, int | None, int | None, int | None]]) -> None:
    path, devices = "\\_SB", []
    for name, is_root, adr, bbn, seg in parts:
        path += f".{name}"
        devices.append(AmlDevice(path=path, hid="PNP0A03" if is_root else None, adr=adr, bbn=bbn, seg=seg))
    pci_addresses(devices, {Sbdf(0, 0, 0, 0): bridge(1)})


def test_parents() -> None:
    assert parent("\\_SB.PCI0.LPCB") == "\\_SB.PCI0"
    assert parent("\\_SB") == "\\"
    assert parent("\\") == "\\"


@pytest.mark.parametrize(("sta", "present"), [(None, True), (0xF, True), (1, True), (8, True), (0, False), (6, False)])
def test_present_means_present_or_functioning(sta: int | None, present: bool) -> None:
    assert AmlDevice(path="\\X", sta=sta).present is present


def test_kinds_of_devices() -> None:
    assert AmlDevice(path="\\X", hid="PNP0A03").is_root_bridge
    assert AmlDevice(path="\\X", hid="ACPI0016", cids=("PNP0A08",)).is_root_bridge
    assert not AmlDevice(path="\\X", hid="PNP0C0F").is_root_bridge
    assert AmlDevice(path="\\X", hid="PNP0C0F").is_link


def test_an_evaluation_is_certain_when_all_it_read_was_recorded() -> None:
    access = RegionAccess(AddressSpace.SYSTEM_MEMORY, 0x1000, 0x1003)
    assert Evaluation("\\X._STA", "AE_OK").certain
    assert not Evaluation("\\X._STA", "AE_OK", depends=(access,)).certain
    assert not Evaluation("\\X._STA", "AE_OK", mixed=True).certain
    assert str(access) == "system-memory 0x1000-0x1003"
    owned = RegionAccess(AddressSpace.PCI_CONFIG, 0, 3, "\\X.REGI", Sbdf(0, 0, 1, 0))
    assert str(owned) == "pci-config 0x0-0x3 of 0000:00:01.0"
    assert str(RegionAccess(0x88, 0, 0)) == "space 0x88 0x0-0x0"


def test_devices_are_found_by_path() -> None:
    device = AmlDevice(path="\\_SB.X", evaluations=(Evaluation("\\_SB.X._CRS", "AE_OK"),))
    namespace = Namespace(devices=(device,))
    assert namespace.device("\\_SB.X") is device
    assert namespace.device("\\_SB.Y") is None
    assert device.evaluation("_CRS") is not None
    assert device.evaluation("_STA") is None
