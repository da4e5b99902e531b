# SPDX-License-Identifier: MIT
"""Names from pci.ids: of a small text by hand, and of every entry of the distribution's file."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from dom0kit.address import Sbdf
from dom0kit.pci.config_space import decode_function
from dom0kit.pci.names import PLACES, ClassNames, PciIds, names
from dom0kit.source.interface import RawFunction

TEXT = b"""# A comment before anything
0010  First Vendor, Inc.
\t8139  Some Device
# in between
\t9000  Other Device
\t\t0010 0001  Board of the first
\t\tffff 0002  Board of nobody
8086  Intel Corporation
\t9000  Controller with a number of the first vendor's
ffff  Illegal Vendor ID
# List of classes
C 00  Unclassified device
\t00  Non-VGA unclassified device
C 02  Network controller
\t00  Ethernet controller
\t80  Network controller
C 0c  Serial bus controller
\t03  USB controller
\t\t00  UHCI
\t\t30  XHCI
"""

needs_pci_ids = pytest.mark.skipif(
    not any(Path(place).is_file() for place in PLACES), reason="no pci.ids on this machine (Debian package pci.ids)"
)


def test_vendors_and_devices() -> None:
    ids = PciIds(TEXT)
    assert ids.vendor(0x8086) == "Intel Corporation"
    assert ids.vendor(0x0010) == "First Vendor, Inc."
    assert ids.vendor(0xFFFF) == "Illegal Vendor ID"
    assert ids.vendor(0x1234) is None
    assert ids.vendor(0x1234) is None
    assert ids.device(0x0010, 0x9000) == "Other Device"
    assert ids.device(0x8086, 0x9000) == "Controller with a number of the first vendor's"
    assert ids.device(0x8086, 0x8139) is None
    assert ids.device(0x1234, 0x8139) is None
    assert ids.device(0x8086, 0x8086) is None  # the vendor's own number is no device's
    assert ids.device(0xFFFF, 0xFFFF) is None


def test_subsystems() -> None:
    ids = PciIds(TEXT)
    assert ids.subsystem(0x0010, 0x9000, 0x0010, 0x0001) == "Board of the first"
    assert ids.subsystem(0x0010, 0x9000, 0x0010, 0x0003) is None
    assert ids.subsystem(0x0010, 0x9000, 0x0010, 0x9000) == "Other Device"
    assert ids.subsystem(0x0010, 0x8139, 0x0010, 0x0001) is None
    assert ids.subsystem(0x0010, 0x1111, 0x0010, 0x0001) is None


def test_a_name_may_be_absent_odd_or_a_subsystems_own() -> None:
    ids = PciIds(b"8086  \n\t9000  Caf\xe9 \n\t\t8086 9000  The board itself\n\t9001\n1234\n\t0001  Nobody's\n")
    assert ids.vendor(0x8086) is None
    assert ids.device(0x8086, 0x9000) == "Caf\ufffd"
    assert ids.subsystem(0x8086, 0x9000, 0x8086, 0x9000) == "The board itself"
    assert ids.device(0x8086, 0x9001) is None
    assert ids.vendor(0x1234) is None
    assert ids.device(0x1234, 0x0001) is None


def test_classes() -> None:
    ids = PciIds(TEXT)
    assert ids.class_names(0x0C0C00) == ClassNames("Serial bus controller", None, None)
    assert ids.class_names(0x0C0330) == ClassNames("Serial bus controller", "USB controller", "XHCI")
    assert ids.class_names(0x0C0340) == ClassNames("Serial bus controller", "USB controller", None)
    assert ids.class_names(0x028000) == ClassNames("Network controller", "Network controller", None)
    assert ids.class_names(0x020300) == ClassNames("Network controller", None, None)
    assert ids.class_names(0x400000) == ClassNames(None, None, None)


def test_a_function_in_one_line() -> None:
    config = bytearray(64)
    config[0:12] = b"\x86\x80\x00\x90\0\0\0\0\0\x30\x03\x0c"
    function, _ = decode_function(RawFunction(Sbdf(0, 0, 0, 0), bytes(config)))
    ids = PciIds(TEXT)
    assert ids.describe(function) == "USB controller: Intel Corporation Controller with a number of the first vendor's"
    config[2] = 1
    function, _ = decode_function(RawFunction(Sbdf(0, 0, 0, 0), bytes(config)))
    assert ids.describe(function) == "USB controller: Intel Corporation device 9001"
    config[0], config[0x0B] = 0x34, 0x40
    function, _ = decode_function(RawFunction(Sbdf(0, 0, 0, 0), bytes(config)))
    assert ids.describe(function) == "class 400330: 8034:9001"


@pytest.mark.parametrize("text", [b"", b"\n", b"C 00", b"8086", b"8086  ", b"\xff\xfe", b"8086  X\n\t9000  \xff"])
def test_a_broken_file_has_no_name_but_harms_nobody(text: bytes) -> None:
    ids = PciIds(text)
    ids.vendor(0x8086)
    ids.device(0x8086, 0x9000)
    ids.subsystem(0x8086, 0x9000, 0x8086, 0x9000)
    assert ids.class_names(0x0C0330).subclass is None


def test_the_first_file_that_is_there_is_taken(tmp_path: Path) -> None:
    (tmp_path / "ids").write_bytes(TEXT)
    assert names((tmp_path / "absent", tmp_path / "ids")).vendor(0x0010) == "First Vendor, Inc."
    assert names((tmp_path / "absent",)).vendor(0x0010) is None


@needs_pci_ids
def test_every_name_of_the_distributions_file_is_found_in_any_order() -> None:
    text = next(path for path in map(Path, PLACES) if path.is_file()).read_bytes()
    vendors_part = text[: text.rfind(b"\nC 00")]
    expected: list[tuple[int, int | None, str]] = []
    vendor = 0
    for line in re.findall(rb"^\t?[0-9a-f]{4}  .*$", vendors_part, re.MULTILINE):
        number, name = int(line.lstrip(b"\t")[:4], 16), line.lstrip(b"\t")[6:].decode(errors="replace").strip()
        if line.startswith(b"\t"):
            expected.append((vendor, number, name))
        else:
            vendor = number
            expected.append((vendor, None, name))
    assert len(expected) > 10000
    random.Random(1).shuffle(expected)
    ids = PciIds(text)
    for vendor, device, name in expected[:4000]:
        found = ids.vendor(vendor) if device is None else ids.device(vendor, device)
        assert found == name, (hex(vendor), device)
