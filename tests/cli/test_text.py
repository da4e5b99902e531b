# SPDX-License-Identifier: MIT
"""The parts of the text report, from values made by hand."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from dom0kit.acpi.aml import Buffer, Integer, Package, Result, String
from dom0kit.acpi.namespace import AmlDevice, Evaluation, Namespace, NamespaceObject
from dom0kit.address import IntxPin, IoapicPin, Polarity, Sbdf, Trigger
from dom0kit.cli.text import acpi, capabilities, interrupts, pci
from dom0kit.cli.text.layout import Line, plain
from dom0kit.ioapic.controllers import Ioapic, PinsFrom
from dom0kit.ioapic.intx import GsiLine, IntxRoute, NoRoute
from dom0kit.pci import topology
from dom0kit.pci.capabilities import EXTENDED, STANDARD
from dom0kit.pci.config_space import decode_function
from dom0kit.pci.function import Function
from dom0kit.pci.names import PciIds
from dom0kit.source.interface import RawFunction

NAMES = PciIds(
    b"# a list\n1b36  Red Hat, Inc.\n\t000c  PCIe Root port\n"
    b"\nC 00  Unclassified device\nC 06  Bridge\n\t04  PCI bridge\n"
)


def text(lines: list[Line]) -> str:
    return plain(lines, [])


def function(address: str, config: bytes, **attributes: str) -> Function:
    return decode_function(RawFunction(Sbdf.parse(address), config, attributes))[0]


def bridge() -> bytes:
    """A root port at 00:01.0 that leads to bus 1, with one memory window."""
    config = bytearray(256)
    struct.pack_into("<HHHHBBBBBBBB", config, 0, 0x1B36, 0x000C, 7, 0x10, 0, 0, 4, 6, 0, 0, 1, 0)
    config[0x18:0x1B] = bytes((0, 1, 1))
    struct.pack_into("<HHHH", config, 0x20, 0xFE20, 0xFE30, 0xFFF1, 0x0001)
    config[0x1C:0x1E] = bytes((0xF0, 0x00))
    config[0x34] = 0x40
    config[0x3D] = 1
    struct.pack_into("<BBHIIH", config, 0x40, 0x05, 0, 0x0081, 0xFEE01000, 0, 0x4021)
    return bytes(config)


def endpoint() -> bytes:
    config = bytearray(256)
    struct.pack_into("<HHHHBBBB", config, 0, 0x1AF4, 0x1041, 6, 0, 1, 0, 0, 2)
    struct.pack_into("<I", config, 0x10, 0xFE200000)
    return bytes(config)


def test_pci_functions_stand_below_their_bridge() -> None:
    functions = (
        function("0000:00:01.0", bridge(), driver="pcieport", iommu_group="3"),
        function("0000:01:00.0", endpoint()),
    )
    tree = pci.tree(functions, topology.build(functions)[0], (), NAMES)
    assert text(tree) == (
        "bus 0000:00\n"
        "  0000:00:01.0 PCI bridge: Red Hat, Inc. PCIe Root port [1b36:000c] rev 00, "
        "driver pcieport, INTA, iommu_group 3\n"
        "    bus     01\n"
        "    memory  0xfe200000-0xfe3fffff  2M\n"
        "    [40]    MSI: on, 1 of 1, 0xfee01000 data 0x4021\n"
        "    0000:01:00.0 class 020000: 1af4:1041 [1af4:1041] rev 01\n"
        "      BAR 0  0xfe200000    32-bit\n"
    )


@given(st.integers(0, 0x40), st.booleans(), st.binary(min_size=200, max_size=200))
def test_no_capability_is_beyond_words(id: int, extended: bool, body: bytes) -> None:
    config = bytearray(4096)
    config[0:4] = b"\x86\x80\x01\x00"
    config[6] = 0x10
    config[0x34] = 0x40
    config[0x40:0x42] = bytes((0x10 if extended else id, 0))
    if extended:
        struct.pack_into("<I", config, 0x100, id | 1 << 16)
        config[0x104:0x1CC] = body
    else:
        config[0x42 : 0x42 + 190] = body[:190]
    decoded = function("0000:00:00.0", bytes(config))
    for capability in decoded.capabilities:
        known = EXTENDED.get(id) if capability.offset >= 0x100 else STANDARD.get(config[0x40])
        assert known is None or capabilities.title(capability) != ""
        assert capabilities.detail(capability).isprintable()


def test_every_detail_is_of_a_capability_that_exists() -> None:
    from typing import get_args

    from dom0kit.pci.capabilities.everything import Capability

    tags = {str(kind.__struct_config__.tag) for kind in get_args(Capability)}
    assert capabilities.DETAILS.keys() <= tags


def test_the_namespace_is_a_tree() -> None:
    devices = (
        AmlDevice(path=r"\_SB.PCI0", hid="PNP0A08", cids=("PNP0A03",), uid=0),
        AmlDevice(
            path=r"\_SB.PCI0.LNKA",
            hid="PNP0C0F",
            sta=0,
            evaluations=(Evaluation(r"\_SB.PCI0.LNKA._CRS", "AE_NOT_FOUND"),),
        ),
    )
    objects = tuple(
        NamespaceObject(*each)
        for each in (
            (r"\_SB", "Device", ""),
            (r"\_SB.PCI0", "Device", ""),
            (r"\_SB.PCI0.LNKA", "Device", ""),
            (r"\_SB.PCI0.LNKA._CRS", "Method", "0 arguments"),
            (r"\_OSI", "Method", ""),
        )
    )
    assert text(acpi.namespace(Namespace(objects=objects, devices=devices))) == (
        "_SB  Device\n"
        "  PCI0  Device  PNP0A08 (PNP0A03) _UID 0\n"
        "    LNKA  Device  PNP0C0F absent (_STA 0x0)\n"
        "      _CRS  Method  0 arguments  AE_NOT_FOUND\n"
        "_OSI  Method\n"
    )


def test_an_evaluation() -> None:
    value = Package((Integer(16), String("text"), Buffer("00" * 17), None))
    result = Result(evaluation=Evaluation(r"\X", "AE_OK"), value=value, messages=("one",))
    assert plain(*acpi.evaluation(result)) == (
        "\\X: AE_OK\n"
        "\nvalue\n"
        "  package of 4 elements\n"
        "    0x10 (16)\n"
        '    "text"\n'
        "    buffer of 17 bytes\n"
        "      0000  00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00\n"
        "      0010  00\n"
        "    nothing\n"
        "\nmessages\n"
        "  one\n"
    )


def test_ioapics_say_where_their_number_of_pins_is_from() -> None:
    first = Ioapic(2, 0xFEC00000, 0, 24, PinsFrom.BOOT_LOG, 0x20, True, None, None)
    second = Ioapic(9, 0xFEC01000, 24, 8, PinsFrom.NEXT_BASE, None, False, r"\_SB.APIC", Sbdf(0, 0, 5, 4))
    assert text(interrupts.ioapics((first, second))) == (
        "IOAPIC 2  0xfec00000  GSI 0-23   24 pins                           version 0x20\n"
        "IOAPIC 9  0xfec01000  GSI 24-31  8 pins (from next IOAPIC's base)  0000:00:05.4, \\_SB.APIC, not in the MADT\n"
    )


def test_routes_show_their_steps() -> None:
    one, other = Sbdf(0, 0, 1, 0), Sbdf(0, 0, 2, 0)
    routes = (
        IntxRoute(
            sbdf=one,
            pin=IntxPin.A,
            gsi=16,
            ioapic_pin=IoapicPin(2, 16),
            trigger=Trigger.LEVEL,
            polarity=Polarity.LOW,
            steps=("INTA of 0000:00:01.0", r"\_SB.PCI0._PRT entry 4", "GSI 16 = IOAPIC 2 pin 16"),
            shared_with=(other,),
        ),
        IntxRoute(sbdf=other, pin=IntxPin.B, reason=NoRoute.NO_PRT, steps=("INTB of 0000:00:02.0", "none")),
    )
    gsis = (GsiLine(16, IoapicPin(2, 16), (one, other)),)
    assert text(interrupts.routes(routes)) == (
        "0000:00:01.0  INTA  GSI 16  IOAPIC 2 pin 16  level low  shared with 1 function\n"
        "  \\_SB.PCI0._PRT entry 4\n"
        f"0000:00:02.0  INTB  no GSI  {NoRoute.NO_PRT.value}\n"
    )
    assert text(interrupts.lines(gsis)) == "GSI 16  IOAPIC 2 pin 16  0000:00:01.0 0000:00:02.0\n"
