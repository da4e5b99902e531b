# SPDX-License-Identifier: MIT
"""The capability registry and its walkers, and what lspci does not show of the standard capabilities.

What lspci shows is proved in test_lspci_oracle.
"""

from __future__ import annotations

import importlib
import pkgutil
import struct
import subprocess
import sys
import typing
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dom0kit import serial
from dom0kit.finding import Rule
from dom0kit.pci import capabilities as registry
from dom0kit.pci.capabilities import (
    EXTENDED,
    STANDARD,
    ExtendedCapability,
    StandardCapability,
    TruncatedCapability,
    UnknownCapability,
    UnknownExtendedCapability,
    decode_extended,
    decode_standard,
    everything,
    extended_offsets,
    find_standard,
    standard_offsets,
)
from dom0kit.pci.capabilities.enhanced_allocation import EnhancedAllocation
from dom0kit.pci.capabilities.express import Express, ExpressType
from dom0kit.pci.capabilities.hot_plug import HotPlug
from dom0kit.pci.capabilities.hot_swap import HotSwap
from dom0kit.pci.capabilities.hypertransport import HtInterrupt, HtMsiMapping, HtUnitClumping
from dom0kit.pci.capabilities.msi import Msi
from dom0kit.pci.capabilities.msix import MsiX
from dom0kit.pci.capabilities.power_management import PowerManagement
from dom0kit.pci.capabilities.secure_device import AmdIommu, SecureDevice
from dom0kit.pci.capabilities.vendor import VendorSpecific, Virtio
from dom0kit.pci.capabilities.vpd import VitalProductData
from dom0kit.pci.function import Function
from tests.pci import hostile


class Reports:
    """Collects what decoders report."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def __call__(self, rule: Rule, message: str) -> None:
        self.told.append((rule.id, message))

    @property
    def rules(self) -> list[str]:
        return [rule for rule, _ in self.told]


def _with(*capabilities: bytes, size: int = 256, header_type: int = 0) -> bytes:
    """Config space with these capabilities one behind the other from 40h on, linked (byte 1 of each is written)."""
    config = bytearray(256)
    config[0x06] = 0x10
    config[0x0E] = header_type
    pointer, at = 0x34, 0x40
    for capability in capabilities:
        config[pointer] = at
        config[at : at + len(capability)] = capability
        pointer = at + 1
        config[pointer] = 0
        at += (len(capability) + 3) & ~3
    return bytes(config[:size]).ljust(size, b"\0")


def _one(capability: bytes, *, rules: Sequence[str] = (), size: int = 256, header_type: int = 0) -> Any:
    reports = Reports()
    (decoded,) = decode_standard(_with(capability, size=size, header_type=header_type), reports)
    assert reports.rules == list(rules)
    assert decoded.offset == 0x40
    return decoded


# --- the walkers ------------------------------------------------------------------------------------------------------


def test_the_list_is_followed_in_its_order() -> None:
    config = bytearray(256)
    config[0x06], config[0x34] = 0x10, 0x83  # the two low bits of a pointer are reserved
    config[0x80:0x82] = b"\x05\x40"
    config[0x40:0x42] = b"\x01\x00"
    assert standard_offsets(bytes(config)) == [(5, 0x80), (1, 0x40)]
    assert find_standard(bytes(config), 1) == 0x40
    assert find_standard(bytes(config), 0x10) is None


def test_without_the_status_bit_there_is_no_list() -> None:
    config = bytearray(_with(b"\x01\0"))
    config[0x06] = 0
    assert standard_offsets(bytes(config)) == []


def test_a_cardbus_bridge_has_its_pointer_elsewhere() -> None:
    config = bytearray(256)
    config[0x06], config[0x0E], config[0x14], config[0x34] = 0x10, 0x82, 0x80, 0x40
    config[0x80] = 0x01
    assert standard_offsets(bytes(config)) == [(1, 0x80)]


@pytest.mark.parametrize(
    ("pointers", "rule", "found"),
    [
        ({0x34: 0x40, 0x41: 0x50, 0x51: 0x40}, "pci.capability-loop", 2),
        ({0x34: 0x40, 0x41: 0x40}, "pci.capability-loop", 1),
        ({0x34: 0x40, 0x41: 0x20}, "pci.capability-pointer", 1),
        ({0x34: 0x3C}, "pci.capability-pointer", 0),
        ({0x34: 0x40, 0x41: 0x60, 0x60: 0xFF}, "pci.capability-pointer", 1),
    ],
)
def test_a_broken_list_ends_where_it_breaks(pointers: dict[int, int], rule: str, found: int) -> None:
    config = bytearray(_with(b"\x42\0"))
    for at, value in pointers.items():
        config[at] = value
    reports = Reports()
    assert len(decode_standard(bytes(config), reports)) == found
    assert reports.rules == [rule]


def test_a_list_beyond_the_recorded_bytes_is_told_once() -> None:
    reports = Reports()
    assert len(decode_standard(_with(b"\x42\0" + bytes(0x3E), b"\x42\0", size=0x80), reports)) == 1
    assert reports.rules == ["pci.capability-truncated"]
    assert decode_standard(_with(b"\x01\0", size=64), reports) == []
    assert reports.rules == ["pci.capability-truncated"], "of a header alone nobody expects a list"


def _extended(*headers: tuple[int, int, int], size: int = 4096) -> bytes:
    """Extended config space from (offset, id, next)."""
    config = bytearray(size)
    config[0:4] = b"\x86\x80\x01\x02"
    for offset, id, following in headers:
        config[offset : offset + 4] = (id | 1 << 16 | following << 20).to_bytes(4, "little")
    return bytes(config)


def test_the_extended_list_is_followed_in_its_order() -> None:
    config = _extended((0x100, 0x77, 0x300), (0x300, 0x78, 0x200), (0x200, 0x79, 0))
    assert extended_offsets(config) == [(0x77, 0x100), (0x78, 0x300), (0x79, 0x200)]
    assert extended_offsets(_extended()) == []
    assert extended_offsets(config[:256]) == []
    assert extended_offsets(b"\xff" * 4096) == []


@pytest.mark.parametrize(
    ("headers", "size", "rule", "found"),
    [
        ([(0x100, 0x77, 0x200), (0x200, 0x78, 0x100)], 4096, "pci.capability-loop", 2),
        ([(0x100, 0x77, 0x0FC)], 4096, "pci.capability-pointer", 1),
        ([(0x100, 0x77, 0x200)], 4096, "pci.capability-pointer", 1),
        ([(0x100, 0x77, 0x200), (0x200, 0xFFFF, 0)], 4096, "pci.capability-pointer", 1),
        ([(0x100, 0x77, 0xFFC)], 2048, "pci.capability-truncated", 1),
    ],
)
def test_a_broken_extended_list_ends_where_it_breaks(
    headers: list[tuple[int, int, int]], size: int, rule: str, found: int
) -> None:
    reports = Reports()
    assert len(decode_extended(_extended(*headers, size=size), reports)) == found
    assert reports.rules == [rule]


def test_extended_space_that_repeats_the_header_has_no_list() -> None:
    reports = Reports()
    block = b"\x86\x80\x34\x02" + bytes(252)
    assert decode_extended(block * 16, reports) == []
    assert reports.rules == ["pci.extended-space-aliased"]


def test_extended_space_that_only_begins_like_the_header_has_a_list() -> None:
    config = bytearray(_extended((0x200, 0x78, 0)))
    config[0x100:0x104] = config[0:4] = (0x77 | 0x200 << 20).to_bytes(4, "little")
    reports = Reports()
    assert [found.offset for found in decode_extended(bytes(config), reports)] == [0x100, 0x200]
    assert reports.rules == []


def test_the_least_extended_space_holds_one_header() -> None:
    (found,) = decode_extended(_extended((0x100, 0x77, 0), size=0x104), Reports())
    assert found == UnknownExtendedCapability(0x100, 1, 0x77, None, "77000100")


def test_capabilities_that_overlap_are_told() -> None:
    reports = Reports()
    config = bytearray(_with(b"\x01\0"))
    config[0x41] = 0x44
    config[0x44] = 0x42
    decode_standard(bytes(config), reports)
    assert reports.rules == ["pci.capability-overlap"]


@settings(max_examples=300, deadline=None)
@given(hostile.configs())
def test_walks_end_and_visit_each_offset_once(config: bytes) -> None:
    standard = [offset for _, offset in standard_offsets(config)]
    extended = [offset for _, offset in extended_offsets(config)]
    assert len(standard) == len(set(standard)) <= 48
    assert len(extended) == len(set(extended)) <= 960
    assert all(0x40 <= offset <= 0xFC and offset % 4 == 0 for offset in standard)
    assert all(0x100 <= offset <= 0xFFC and offset % 4 == 0 for offset in extended)


def test_the_longest_lists_are_walked() -> None:
    config = bytearray(4096)
    config[0x06], config[0x34] = 0x10, 0x40
    for at in range(0x40, 0x100, 4):
        config[at : at + 2] = bytes([0x42, at + 4 & 0xFF])
    for at in range(0x100, 0x1000, 4):
        config[at : at + 4] = (0x77 | (at + 4 & 0xFFF) << 20).to_bytes(4, "little")
    assert len(standard_offsets(bytes(config))) == 48
    assert len(extended_offsets(bytes(config))) == 960


# --- the registry -----------------------------------------------------------------------------------------------------


def _modules() -> Iterator[str]:
    return (module.name for module in pkgutil.iter_modules(registry.__path__))


def _structs(module: Any) -> set[type]:
    bases = (StandardCapability, ExtendedCapability, TruncatedCapability)
    found = {value for value in vars(module).values() if isinstance(value, type) and issubclass(value, bases)}
    return {value for value in found if not value.__subclasses__()}  # those that have are bases


def test_every_module_the_registry_names_decodes() -> None:
    for known in (*STANDARD.values(), *EXTENDED.values()):
        if known.module is not None:
            module = importlib.import_module(f"{registry.__name__}.{known.module}")
            assert module.LENGTH >= 2
            assert callable(module.decode)


def test_every_capability_struct_is_in_the_union_with_a_tag_of_its_own() -> None:
    union = set(typing.get_args(registry.Capability))
    structs = set().union(*(_structs(importlib.import_module(f"{registry.__name__}.{name}")) for name in _modules()))
    assert union == structs | _structs(registry)
    tags = [msgspec.structs.fields(kind) and kind.__struct_config__.tag for kind in union]
    assert len(tags) == len(set(tags))
    assert registry.Capability is everything.Capability


def _python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout


def test_a_decoder_is_imported_only_when_its_capability_is_met() -> None:
    config = _with(b"\x05\0".ljust(24, b"\0"))
    code = f"""
import sys
from dom0kit import serial
from dom0kit.address import Sbdf
from dom0kit.pci.config_space import decode_function
from dom0kit.source.interface import RawFunction
function, _ = decode_function(RawFunction(Sbdf(0, 0, 0, 0), bytes.fromhex({config.hex()!r})))
serial.encode(function)
print(*(name.rpartition('.')[2] for name in sys.modules if name.startswith('dom0kit.pci.capabilities.')))
"""
    loaded = set(_python(code).split())
    assert "msi" in loaded
    assert not loaded & {"express", "power_management", "aer", "everything"}


def test_json_is_decoded_and_described_without_having_imported_any_capability() -> None:
    code = """
from dom0kit import serial
from dom0kit.pci.function import Function
text = serial.encode(serial.schema(Function))
print(b'power-management' in text, b'express' in text)
"""
    assert _python(code).split() == ["True", "True"]


def test_what_no_module_decodes_is_kept_raw_up_to_the_next() -> None:
    reports = Reports()
    first, second = decode_standard(_with(b"\x15\0\x01\x02\x03\x04\0\0", b"\x42\0\x05\x06"), reports)
    assert first == UnknownCapability(0x40, 0x15, "Flattening Portal Bridge", "1548010203040000"[:16])
    assert isinstance(second, UnknownCapability)
    assert (second.id, second.name, second.raw[:8], len(second.raw)) == (0x42, None, "42000506", 128)
    (unknown,) = decode_extended(_extended((0x100, 0x7777, 0)), reports)
    assert unknown == UnknownExtendedCapability(0x100, 1, 0x7777, None, "77770100" + "00" * 252)
    assert reports.rules == []


@pytest.mark.parametrize("id", [id for id, known in STANDARD.items() if id and known.module is not None])
def test_a_capability_cut_off_by_the_end_is_kept_as_far_as_it_goes(id: int) -> None:
    module = importlib.import_module(f"{registry.__name__}.{STANDARD[id].module}")
    reports = Reports()
    config = bytearray(_with(bytes([id])))
    (whole,) = decode_standard(bytes(config), Reports())
    (cut,) = decode_standard(bytes(config[: 0x40 + module.LENGTH - 1]), reports)
    assert not isinstance(whole, TruncatedCapability)
    assert cut == TruncatedCapability(0x40, id, False, STANDARD[id].title, config[0x40 : 0x3F + module.LENGTH].hex())
    assert reports.rules == ["pci.capability-truncated"]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(STANDARD)), st.binary(max_size=80), st.integers(0x42, 0x100), st.sampled_from([0, 1, 2]))
def test_any_registers_of_any_capability_decode(id: int, body: bytes, size: int, header_type: int) -> None:
    config = bytearray(_with(bytes([id, 0]) + body)[:size])
    config[0x0E], config[0x14] = header_type, 0x40
    for vendor in (b"\x86\x80\0\0", b"\xf4\x1a\x41\x10"):
        config[0:4] = vendor
        capabilities = tuple(decode_standard(bytes(config), Reports()))
        assert len(capabilities) == 1 or size < 0x44
        text = serial.encode(capabilities)
        assert serial.decode(text, tuple[registry.Capability, ...]) == capabilities


# --- single capabilities ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("control", "address", "data", "masks"),
    [(0x0001, "I", "H", ""), (0x0081, "Q", "H", ""), (0x0101, "I", "Hxx", "II"), (0x0181, "Q", "Hxx", "II")],
)
def test_msi_in_its_four_layouts(control: int, address: str, data: str, masks: str) -> None:
    values = (control | 3 << 1 | 2 << 4, 0xFEE0_1000, 0x4021, *((0xF0, 0x0F) if masks else ()))
    msi = _one(b"\x05\0" + struct.pack(f"<H{address}{data}{masks}", *values))
    assert msi == Msi(
        0x40,
        enabled=True,
        capable=8,
        allocated=4,
        address_64bit=control & 0x80 != 0,
        maskable=control & 0x100 != 0,
        extended_data_capable=False,
        extended_data_enabled=False,
        address=0xFEE0_1000,
        data=0x4021,
        mask=0xF0 if masks else None,
        pending=0x0F if masks else None,
    )


def test_msi_data_has_32_bits_where_extended_data_is_enabled() -> None:
    registers = struct.pack("<HQIII", 0x0781, 0x1_FEE0_0000, 0xABCD_4021, 0, 0)
    msi = _one(b"\x05\0" + registers)
    assert (msi.address, msi.data, msi.extended_data_capable) == (0x1_FEE0_0000, 0xABCD_4021, True)


@pytest.mark.parametrize("control", [0x0001 | 1 << 1 | 2 << 4, 0x0001 | 7 << 1 | 6 << 4])
def test_more_msi_messages_than_there_are_is_a_finding(control: int) -> None:
    _one(b"\x05\0" + struct.pack("<HIH", control, 0, 0), rules=["pci.msi-count"])


def test_msi_cut_off_in_its_masks() -> None:
    config = bytearray(_with())
    config[0x34], config[0xEC:0xF0] = 0xEC, b"\x05\0\x80\x01"
    reports = Reports()
    assert isinstance(decode_standard(bytes(config), reports)[0], TruncatedCapability)
    assert reports.rules == ["pci.capability-truncated"]


def test_msix_tells_how_long_table_and_pending_bits_are() -> None:
    msix = _one(struct.pack("<BBHII", 0x11, 0, 0x8000 | 64, 0x2003, 0x3004))
    assert msix == MsiX(0x40, True, False, 65, 3, 0x2000, 4, 0x3000)
    assert (msix.table_size, msix.pba_size) == (65 * 16, 16)


def test_immediate_readiness_and_data_of_power_management() -> None:
    pm = _one(struct.pack("<BBHHBB", 0x01, 0, 0x0013, 0x0003, 0xC0, 0x5A))
    assert isinstance(pm, PowerManagement)
    assert (pm.version, pm.immediate_readiness, pm.power_state, pm.data) == (3, True, 3, 0x5A)
    assert (pm.bridge_b2, pm.bridge_power_control) == (True, True)


def test_the_vpd_window() -> None:
    assert _one(struct.pack("<BBHI", 0x03, 0, 0x8124, 0xCAFE)) == VitalProductData(0x40, 0x124, True, 0xCAFE)


def test_the_hot_swap_register() -> None:
    swap = _one(b"\x06\0\x9a\0")
    assert swap == HotSwap(
        0x40,
        inserted=True,
        extraction=False,
        programming_interface=1,
        led_on=True,
        pending=False,
        enum_masked=True,
        hiding_armed=False,
    )


def test_the_hot_plug_window() -> None:
    assert _one(struct.pack("<BBBBI", 0x0C, 0, 0x12, 0x80, 7)) == HotPlug(0x40, 0x12, False, True, 7)


def test_an_amd_iommu() -> None:
    iommu = _one(struct.pack("<IQII", 0x0F | 3 << 16 | 2 << 19 | 0x0900_0000, 0x1_FEB8_0001, 0xFF10_4085, 0x0820_3002))
    assert iommu == AmdIommu(
        0x40,
        revision=2,
        iotlb=True,
        hypertransport_tunnel=False,
        not_present_cache=False,
        extended_features=True,
        extended=False,
        enabled=True,
        base=0x1_FEB8_0000,
        range_valid=True,
        unit_id=5,
        bus=0x40,
        first_device=0x10,
        last_device=0xFF,
        message=2,
        gva_size=0,
        pa_size=0x30,
        va_size=0x40,
        ats_reserved=False,
        ppr_message=1,
    )
    other = _one(struct.pack("<II", 0x0F | 1 << 16, 5))
    assert isinstance(other, SecureDevice)
    assert other.type == 1


def test_hypertransport_forms_whose_registers_lspci_does_not_print() -> None:
    assert _one(struct.pack("<BBHI", 0x08, 0, 0x8012, 0xCAFE)) == HtInterrupt(0x40, 0x12, 0xCAFE)
    assert _one(struct.pack("<BBHII", 0x08, 0, 0x9000, 6, 2)) == HtUnitClumping(0x40, 6, 2)
    assert _one(struct.pack("<BBH", 0x08, 0, 0xA803)) == HtMsiMapping(0x40, True, True, 0xFEE0_0000)
    mapping = _one(struct.pack("<BBHQ", 0x08, 0, 0xA801, 0x1_FEE1_2345))
    assert mapping == HtMsiMapping(0x40, True, False, 0x1_FEE0_0000)


def _virtio(registers: bytes) -> Any:
    config = bytearray(_with(registers))
    config[0:4] = b"\xf4\x1a\x41\x10"
    return decode_standard(bytes(config), Reports())[0]


def test_virtio_structures() -> None:
    common = struct.pack("<BBBBBBxxII", 9, 0, 16, 1, 4, 0, 0x1000, 0x38)
    assert _virtio(common) == Virtio(0x40, 16, 1, 4, 0, 0x1000, 0x38, None)
    notify = struct.pack("<BBBBBBxxIII", 9, 0, 20, 2, 4, 0, 0x3000, 0x1000, 4)
    assert _virtio(notify) == Virtio(0x40, 20, 2, 4, 0, 0x3000, 0x1000, 4)
    shared = struct.pack("<BBBBBBxxIIII", 9, 0, 24, 8, 2, 1, 0x1000, 0x2000, 1, 2)
    assert _virtio(shared) == Virtio(0x40, 24, 8, 2, 1, 0x1_0000_1000, 0x2_0000_2000, None)
    assert _one(common) == VendorSpecific(0x40, 16, common[3:].hex())


def test_enhanced_allocation_of_a_bridge_and_one_that_is_cut_off() -> None:
    entry = struct.pack("<III", 0x8000_0002 | 1 << 4, 0x9000_0000, 0x0FFF)
    allocation = _one(b"\x14\0\x01\0\x05\x07\0\0" + entry, header_type=1)
    assert isinstance(allocation, EnhancedAllocation)
    assert (allocation.fixed_secondary, allocation.fixed_subordinate) == (5, 7)
    (found,) = allocation.entries
    assert (found.bar, found.base, found.max_offset, found.enabled) == (1, 0x9000_0000, 0x0FFF, True)
    cut = _one(b"\x14\0\x02\0" + entry, size=0x50, rules=["pci.capability-truncated"])
    assert (cut.count, len(cut.entries)) == (2, 1)


def _express(kind: int, version: int, slot: bool) -> bytes:
    return struct.pack("<BBH", 0x10, 0, version | kind << 4 | slot << 8).ljust(0x3C, b"\0")


@pytest.mark.parametrize(
    ("kind", "type", "link", "slot", "root"),
    [
        (0, ExpressType.ENDPOINT, True, False, False),
        (1, ExpressType.LEGACY_ENDPOINT, True, False, False),
        (4, ExpressType.ROOT_PORT, True, True, True),
        (5, ExpressType.UPSTREAM_PORT, True, False, False),
        (6, ExpressType.DOWNSTREAM_PORT, True, True, False),
        (7, ExpressType.PCIE_TO_PCI_BRIDGE, True, False, False),
        (8, ExpressType.PCI_TO_PCIE_BRIDGE, True, True, False),
        (9, ExpressType.INTEGRATED_ENDPOINT, False, False, False),
        (10, ExpressType.EVENT_COLLECTOR, False, False, True),
        (15, ExpressType.RESERVED, True, False, False),
    ],
)
def test_which_express_registers_a_function_has(
    kind: int, type: ExpressType, link: bool, slot: bool, root: bool
) -> None:
    new = _one(_express(kind, 2, True))
    assert isinstance(new, Express)
    assert (new.type, new.type_number, new.version) == (type, kind, 2)
    assert (new.link is not None, new.slot is not None, new.root is not None) == (link, slot, root)
    assert (new.device2 is not None, new.link2 is not None, new.slot2 is not None) == (True, link, slot)
    old = _one(_express(kind, 1, False))
    assert (old.slot, old.device2, old.link2, old.slot2) == (None, None, None, None)


@pytest.mark.parametrize(
    ("kind", "version", "length", "last"),
    [
        (9, 1, 0x0C, "device"),
        (0, 1, 0x14, "link"),
        (6, 1, 0x1C, "slot"),
        (4, 1, 0x24, "root"),
        (9, 2, 0x2C, "device2"),
        (0, 2, 0x34, "link2"),
        (6, 2, 0x3C, "slot2"),
    ],
)
def test_express_needs_as_many_bytes_as_its_registers_have(kind: int, version: int, length: int, last: str) -> None:
    registers = _express(kind, version, True)
    whole = _one(registers, size=0x40 + length)
    assert getattr(whole, last) is not None
    cut = _one(registers, size=0x40 + length - 1, rules=["pci.capability-truncated"])
    assert isinstance(cut, TruncatedCapability) if last == "device" else getattr(cut, last) is None


def test_express_cut_off_keeps_the_registers_that_are_there() -> None:
    express = _one(_express(4, 2, True), size=0x40 + 0x1C, rules=["pci.capability-truncated"])
    assert express.slot is not None
    assert (express.root, express.device2, express.link2) == (None, None, None)


EA_ENTRY = struct.pack("<III", 0x8000_0002, 0x9000_0000, 0x0FFF)
SHORTEST: list[tuple[bytes, int]] = [
    (struct.pack("<BBHIHH", 0x05, 0, 0x0001, 0xFEE0_0000, 0x21, 0), 0),
    (struct.pack("<BBHQHH", 0x05, 0, 0x0081, 0xFEE0_0000, 0x21, 0), 0),
    (struct.pack("<BBHIIII", 0x05, 0, 0x0101, 0xFEE0_0000, 0x21, 1, 2), 0),
    (struct.pack("<BBHQIII", 0x05, 0, 0x0181, 0xFEE0_0000, 0x21, 1, 2), 0),
    (struct.pack("<BBHI", 0x07, 0, 1, 2), 0),
    (struct.pack("<BBHIHHHH", 0x07, 0, 1, 2, 3, 4, 5, 6), 1),
    (struct.pack("<BBH", 0x08, 0, 0x0001).ljust(0x1C, b"\1"), 0),
    (struct.pack("<BBH", 0x08, 0, 0x2001).ljust(0x18, b"\1"), 0),
    (struct.pack("<BBHI", 0x08, 0, 0x8001, 1), 0),
    (struct.pack("<BBHII", 0x08, 0, 0x9001, 1, 2), 0),
    (struct.pack("<BBHQ", 0x08, 0, 0xA801, 1 << 32), 0),
    (struct.pack("<BBBBBBxxII", 9, 0, 16, 1, 4, 0, 0x1000, 0x38), 0),
    (struct.pack("<BBBBBBxxIII", 9, 0, 20, 2, 4, 0, 0x3000, 0x1000, 4), 0),
    (struct.pack("<BBBBBBxxIIII", 9, 0, 24, 8, 2, 1, 0x1000, 0x2000, 1, 2), 0),
    (struct.pack("<IQII", 0x0F | 3 << 16, 0x1_FEB8_0001, 1, 2), 0),
    (b"\x14\0\x01\0" + EA_ENTRY, 0),
    (b"\x14\0\x02\0\x05\x07\0\0" + EA_ENTRY * 2, 1),
    (b"\x14\0\x02\0" + EA_ENTRY + b"\0\0\0\x80", 0),
]


@pytest.mark.parametrize(("registers", "header_type"), SHORTEST, ids=[f"{r[0]:02x}-{len(r)}" for r, _ in SHORTEST])
def test_a_capability_may_end_where_config_space_ends(registers: bytes, header_type: int) -> None:
    found = []
    for offset in (0x40, 0x100 - len(registers)):
        config = bytearray(0x100)
        config[0:4] = b"\xf4\x1a\x41\x10"
        config[0x06], config[0x0E], config[0x34] = 0x10, header_type, offset
        config[offset : offset + len(registers)] = registers
        reports = Reports()
        found += decode_standard(bytes(config), reports)
        assert reports.rules == []
        assert decode_standard(bytes(config[: offset + len(registers) - 4]), reports) != found[-1:]
    assert msgspec.structs.replace(found[1], offset=0x40) == found[0]


def test_enhanced_allocation_at_the_end_of_config_space() -> None:
    config = bytearray(_with(b"", header_type=1))
    config[0x34], config[0xF8:0x100] = 0xF8, b"\x14\0\0\0\x05\x07\0\0"
    reports = Reports()
    (allocation,) = decode_standard(bytes(config), reports)
    assert allocation == EnhancedAllocation(0xF8, 0, 5, 7, ())
    assert reports.rules == []
    (cut,) = decode_standard(bytes(config[:0xFF]), reports)
    assert isinstance(cut, TruncatedCapability)


def test_the_function_type_decodes_json_of_every_kind() -> None:
    with pytest.raises(serial.UndecodableJson):
        serial.decode(b'{"capabilities": [{"capability": "no such kind"}]}', Function)
