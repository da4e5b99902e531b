# SPDX-License-Identifier: MIT
"""Who a device is: the same after cards came and went, on the live machine and in its recording."""

from __future__ import annotations

import struct

import pytest

from dom0kit.address import Sbdf
from dom0kit.observation import observe
from dom0kit.partition.identity import Finder, Ways, keyed_serials, written
from dom0kit.partition.model import Device
from dom0kit.pci.function import Function
from dom0kit.pci.topology import build
from dom0kit.source.in_memory import MemorySource
from dom0kit.source.interface import RawFunction, SourceKind
from dom0kit.source.recognise import open_source
from tests.corpus import lspci_dumps, needs_corpus
from tests.pci.machines import ENDPOINT, ROOT_PORT, function


def machine(first_bus: int) -> list[Function]:
    """Two ports; what is behind the second has another bus number when there is more behind the first."""
    return [
        function("00:1c.0", express=ROOT_PORT, buses=(1, first_bus - 1)),
        function("00:1d.0", express=ROOT_PORT, buses=(first_bus, first_bus)),
        function("01:00.0", express=ENDPOINT),
        function(f"{first_bus:02x}:00.0", express=ENDPOINT, sriov=(4, 2, 4, 1), class_code=0x010802),
        *(
            function(f"{first_bus:02x}:00.{n}", express=ENDPOINT, attributes={"physfn": f"0000:{first_bus:02x}:00.0"})
            for n in (4, 5)
        ),
    ]


def finder(functions: list[Function]) -> Finder:
    return Finder(functions, build(functions)[0], {})


def test_bus_numbers_change_nothing() -> None:
    before, after = finder(machine(2)), finder(machine(7))
    for was, is_ in (("01:00.0", "01:00.0"), ("02:00.0", "07:00.0"), ("02:00.4", "07:00.4"), ("02:00.5", "07:00.5")):
        identity = before.identity(Sbdf.parse(was))
        assert after.identity(Sbdf.parse(is_)) == identity
        assert after.find(identity).function == Sbdf.parse(is_)
    identity = before.identity(Sbdf.parse("02:00.5"))
    assert written(identity) == '{ path = "0000:00/1d.0/00.0/vf1", id = "1234:0001", class = "020000" }'


def test_a_card_in_another_slot_is_found_and_not_taken() -> None:
    known = finder(machine(2))
    found = known.find(Device(path="0000:00/1e.0/00.0", id="1234:0001", class_code="010802"))
    assert found.function is None
    assert found.elsewhere == (Sbdf.parse("02:00.0"),)


def test_two_functions_with_one_way_are_not_told_apart() -> None:
    """The bridges to buses 2 and 3 were not seen: both functions hang below the one that forwards them."""
    functions = [
        function("00:1c.0", express=ROOT_PORT, buses=(1, 3)),
        function("02:00.0", express=ENDPOINT),
        function("03:00.0", express=ENDPOINT),
    ]
    found = finder(functions).find(Device(path="0000:00/1c.0/00.0"))
    assert (found.function, found.kind) == (None, "ambiguous")
    assert found.elsewhere == (Sbdf.parse("02:00.0"), Sbdf.parse("03:00.0"))


def with_serial(serial: bytes) -> RawFunction:
    config = bytearray(4096)
    struct.pack_into("<HHHHI", config, 0, 0x8086, 0x1533, 6, 0x10, 0x020000 << 8)
    config[0x34], config[0x40:0x44] = 0x40, bytes((0x10, 0, 2, 0))
    struct.pack_into("<I", config, 0x100, 0x0003 | 1 << 16)
    config[0x104:0x10C] = serial
    return RawFunction(Sbdf.parse("00:03.0"), bytes(config), {})


def source(serial: bytes, uuid: str) -> MemorySource:
    files = {"sys/class/dmi/id/product_uuid": f"{uuid}\n".encode()}
    return MemorySource("a machine", SourceKind.LIVE, functions=[with_serial(serial)], files=files)


def test_a_serial_number_is_told_apart_and_told_to_nobody() -> None:
    one, other = "11111111-2222-3333-4444-555555555555", "11111111-2222-3333-4444-555555555556"
    keys = {
        name: keyed_serials(source(serial, uuid))[Sbdf.parse("00:03.0")]
        for name, serial, uuid in (("a", b"12345678", one), ("b", b"12345679", one), ("c", b"12345678", other))
    }
    assert len(set(keys.values())) == 3
    assert b"12345678"[::-1].hex() not in keys.values()
    assert keys["a"] == keyed_serials(source(b"12345678", one))[Sbdf.parse("00:03.0")]


@pytest.mark.parametrize("serial", [bytes(8), b"\xff" * 8])
def test_a_serial_number_that_nobody_wrote_is_none(serial: bytes) -> None:
    assert keyed_serials(source(serial, "11111111-2222-3333-4444-555555555555")) == {}


def test_a_recordings_serial_numbers_are_keyed_already() -> None:
    import dom0kit

    shipped = open_source(f"{dom0kit.__path__[0]}/recordings/qemu-q35.d0k")
    platform = observe(shipped, aml=False, only="pci")
    assert keyed_serials(shipped) == {
        each.sbdf: capability.serial_number
        for each in platform.functions
        for capability in each.capabilities
        if hasattr(capability, "serial_number")
    }


@needs_corpus
def test_every_recorded_function_is_where_its_identity_says() -> None:
    for path in lspci_dumps():
        platform = observe(open_source(str(path)), aml=False, only="pci")
        assert platform.topology is not None
        known = Finder(platform.functions, platform.topology, {})
        ways = Ways(platform.topology)
        unique = {ways.of(each.sbdf) for each in platform.functions}
        for each in platform.functions:
            found = known.find(known.identity(each.sbdf))
            assert found.function == each.sbdf or (found.kind == "ambiguous" and len(unique) < len(platform.functions))
