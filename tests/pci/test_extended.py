# SPDX-License-Identifier: MIT
"""Extended capabilities: laws for any bytes, tables and lists in them, where they end early, and what is wrong."""

from __future__ import annotations

import struct
from importlib import import_module
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dom0kit import serial
from dom0kit.finding import RULES, Rule, Severity
from dom0kit.pci import capabilities as registry
from dom0kit.pci.capabilities import EXTENDED, TruncatedCapability, decode_extended, port
from dom0kit.pci.capabilities.tph import SteeringTable
from tests.pci.extended_space import FIRST, Registers, express_config

DECODED = sorted(id for id, known in EXTENDED.items() if known.module)
Told = list[tuple[str, str]]
_UNION: Any = registry.Capability


def _decode(
    id: int, body: bytes, *, port_type: int = 0, width: int = 0, version: int = 1, size: int = 4096
) -> tuple[Any, Told]:
    """The struct of one capability, and the findings as (rule id, message)."""
    told: Told = []
    config = express_config([Registers(id, version, body)], port_type, width, size)
    (found,) = decode_extended(config, lambda rule, message: told.append((rule.id, message)))
    return found, told


def _module(id: int) -> Any:
    return import_module(f"{registry.__name__}.{EXTENDED[id].module}")


@settings(max_examples=1200, deadline=None)
@given(
    id=st.sampled_from(DECODED),
    tail=st.binary(min_size=4, max_size=400),
    place=st.sampled_from(("start", "end")),
    room=st.integers(0, 400),
    version=st.integers(0, 15),
    port_type=st.integers(0, 15),
    width=st.sampled_from((0, 1, 2, 16, 32, 63)),
)
def test_any_registers_decode_and_survive_json(
    id: int, tail: bytes, place: str, room: int, version: int, port_type: int, width: int
) -> None:
    # At the beginning of a space that ends soon after, and at the end of a whole one.
    config = bytearray(express_config([], port_type, width))
    offset = FIRST if place == "start" else 4096 - (len(tail) & ~3)
    config[offset : offset + len(tail)] = tail
    struct.pack_into("<I", config, offset, id | version << 16)
    whole = bytes(config[: offset + room]) if place == "start" else bytes(config)
    told: Told = []

    def report(rule: Rule, message: str) -> None:
        assert RULES[rule.id] is rule
        told.append((rule.id, message))

    module = _module(id)
    if offset + module.LENGTH > len(whole):
        return
    found = module.decode(whole, offset, report)
    assert (found.offset, found.version) == (offset, version)
    assert serial.decode(serial.encode(found), _UNION) == found
    assert len(told) <= 50
    assert all(message and not message.endswith(".") for _, message in told)


def test_the_length_of_the_fixed_part_of_each_capability() -> None:
    assert {id: _module(id).LENGTH for id in DECODED} == {
        **dict.fromkeys((0x05, 0x1E, 0x21, 0x29, 0x2F, 0x31, 0x04, 0x13, 0x16, 0x02, 0x08, 0x09), 0x10),
        **dict.fromkeys((0x03, 0x06, 0x15, 0x17, 0x19, 0x1D, 0x1F, 0x22, 0x24, 0x25, 0x30), 0x0C),
        **dict.fromkeys((0x07, 0x0B, 0x0D, 0x0E, 0x0F, 0x18, 0x1B, 0x1C, 0x27), 0x08),
        **dict.fromkeys((0x0A, 0x2B), 0x14),
        **dict.fromkeys((0x26, 0x2A), 0x20),
        0x01: 0x2C,
        0x10: 0x40,
        0x12: 0x28,
        0x23: 0x0A,
        0x2E: 0x18,
    }


@pytest.mark.parametrize(
    ("id", "end", "path"),
    [
        (0x01, 0x38, "root"),
        (0x01, 0x48, "prefix_log"),
        (0x07, 0x0C, "first_bus"),
        (0x12, 0x30, "overlay_base"),
        (0x1E, 0x14, "link_activation_status"),
        (0x2B, 0x18, "selective_enable"),
    ],
)
def test_registers_behind_the_fixed_part_are_read_where_they_are(id: int, end: int, path: str) -> None:
    body = b"\xff" * (end - 4)
    for size, is_there in ((FIRST + end, True), (FIRST + end - 1, False)):
        found, _ = _decode(id, body, port_type=4, version=2, size=size)
        assert (getattr(found, path) is not None) == is_there


@pytest.mark.parametrize(
    ("id", "offset", "bit", "path", "absent"),
    [
        (0x01, 0x18, 11, "prefix_log", None),
        (0x0D, 0x04, 5, "egress_vector", ""),
        (0x1D, 0x04, 5, "rp_pio", None),
        (0x2B, 0x04, 8, "selective_enable", None),
        (0x30, 0x04, 0, "link_streams", 0),
        (0x30, 0x04, 1, "selective_streams", 0),
    ],
)
def test_registers_that_one_bit_says_are_not_there(id: int, offset: int, bit: int, path: str, absent: Any) -> None:
    body = bytearray(b"\xff" * 0x60)
    assert getattr(_decode(id, bytes(body))[0], path) != absent
    struct.pack_into("<I", body, offset - 4, 0xFFFFFFFF ^ 1 << bit)
    assert getattr(_decode(id, bytes(body))[0], path) == absent


@pytest.mark.parametrize("id", DECODED)
def test_nothing_is_read_beyond_the_length_a_module_asks_for(id: int) -> None:
    length = _module(id).LENGTH
    for fill in (b"\0", b"\xff"):
        body = fill * (length - 4)
        found, _ = _decode(id, body, port_type=4, width=16, size=FIRST + length)
        assert not isinstance(found, TruncatedCapability)
        shorter, told = _decode(id, body, size=FIRST + length - 1)
        assert isinstance(shorter, TruncatedCapability)
        assert [rule for rule, _ in told] == ["pci.capability-truncated"]


# --- lists and tables


def test_arbitration_tables_of_virtual_channels() -> None:
    body = bytearray(0x200)
    struct.pack_into("<III", body, 0, 1 | 2 << 10, 3 << 24, 1 << 1)  # VC0, VC1; 4 bits an entry; WRR32 at 30h
    struct.pack_into("<II", body, 0x10 - 4, 5 << 24, 2 << 17)  # VC0: WRR64 at 50h
    struct.pack_into("<II", body, 0x1C - 4, 0, 5 << 17)  # VC1: no table
    body[0x30 - 4 : 0x40 - 4] = bytes(range(16))
    body[0x50 - 4 : 0x70 - 4] = bytes(range(0x80, 0xA0))
    found, told = _decode(2, bytes(body))
    assert found.table == bytes(range(16)).hex()
    assert [channel.table for channel in found.channels] == [bytes(range(0x80, 0xA0)).hex(), ""]
    assert told == []


@pytest.mark.parametrize(
    ("select", "entry", "length"),
    [
        (0, 3, 0),
        (1, 0, 4),
        (1, 3, 32),
        (2, 1, 16),
        (2, 3, 64),
        (3, 2, 64),
        (3, 3, 128),
        (4, 3, 128),
        (5, 3, 256),
        (6, 3, 0),
        (7, 3, 0),
    ],
)
def test_port_arbitration_tables_are_as_long_as_phases_and_entries_say(select: int, entry: int, length: int) -> None:
    body = bytearray(0x400)
    struct.pack_into("<I", body, 0, entry << 10)
    struct.pack_into("<II", body, 0xC, 4 << 24, select << 17)
    found, _ = _decode(2, bytes(body))
    assert len(found.channels[0].table) == 2 * length
    ending = 0x40 + length
    if length:
        found, _ = _decode(2, bytes(body), size=FIRST + ending - 1)
        assert found.channels[0].table == ""


def test_virtual_channels_beyond_the_end_are_told() -> None:
    body = struct.pack("<I", 7) + bytes(0x80)
    found, told = _decode(2, body, size=FIRST + 0x10 + 12 * 3)
    assert (found.extended_count, len(found.channels)) == (7, 3)
    assert told == [("pci.capability-truncated", "8 virtual channels, but only 3 are readable")]


def test_which_form_of_virtual_channels_it_is() -> None:
    forms = [_decode(id, bytes(0x20))[0] for id in (2, 9, 8)]
    assert [getattr(form, "with_mfvc", None) for form in forms] == [False, True, None]


def test_root_complex_links_beyond_the_end_are_told() -> None:
    found, told = _decode(5, bytes([0, 3, 1, 2]) + bytes(0x40), size=FIRST + 0x2F)
    assert (found.entries, found.component, found.port, len(found.links)) == (3, 1, 2, 1)
    assert told == [("pci.capability-truncated", "3 root complex links are declared, but only 1 are readable")]


@pytest.mark.parametrize(
    ("scale", "base", "expected"),
    [
        (0, 0xEF, 239_000),
        (0, 0xF0, 250_000),
        (0, 0xF2, 300_000),
        (0, 0xF7, 425_000),
        (0, 0xF8, None),
        (1, 0xF8, 24_800),
        (2, 25, 250),
        (3, 7, 7),
    ],
)
def test_power_in_milliwatts(scale: int, base: int, expected: int | None) -> None:
    found, _ = _decode(4, struct.pack("<III", 0, base | scale << 8, 0))
    assert found.milliwatts == expected


@pytest.mark.parametrize(
    ("port_type", "has_root"), [(0, False), (4, True), (5, False), (6, False), (9, False), (10, True)]
)
def test_root_error_registers_are_of_root_ports_and_event_collectors(port_type: int, has_root: bool) -> None:
    found, _ = _decode(1, bytes(0x44), port_type=port_type)
    assert (found.root is not None) == has_root
    found, _ = _decode(1, bytes(0x44), port_type=port_type, size=FIRST + 0x37)
    assert found.root is None


def test_an_egress_vector_of_whole_dwords() -> None:
    found, told = _decode(0xD, struct.pack("<HH", 0x20 | 33 << 8, 0) + bytes(range(12)))
    assert (found.egress_vector_size, found.egress_vector) == (33, "0001020304050607")
    assert told == []


def test_power_substates() -> None:
    capability = 2 | 1 << 8 | 2 << 12 | 3 << 16 | 7 << 24  # 3 substates; 10 ms; 0.1 W; latencies 3 and 7
    found, told = _decode(0x16, struct.pack("<IIHH", capability, 0b100, 0, 0) + bytes([50, 20, 10, 99]))
    assert [(s.milliwatts, s.transition_milliseconds) for s in found.substates] == [(5000, 30), (2000, 30), (1000, 70)]
    assert told == []
    found, told = _decode(0x16, struct.pack("<IIHH", capability, 0, 0, 0), size=FIRST + 0x11)
    assert len(found.substates) == 1
    assert told == [("pci.capability-truncated", "3 power substates are declared, but only 1 are readable")]


def test_a_steering_table() -> None:
    registers = struct.pack("<II4H", 2 << 16 | 1 << 9, 0, 1, 0xFFFF, 3, 4)
    found, told = _decode(0x17, registers)
    assert (found.table, found.table_size, found.steering_tags) == (SteeringTable.CAPABILITY, 3, (1, 0xFFFF, 3))
    assert told == []
    found, told = _decode(0x17, registers, size=FIRST + 0x11)
    assert found.steering_tags == (1, 0xFFFF)
    assert told == [("pci.capability-truncated", "the steering table has 3 entries, but only 2 are readable")]


@pytest.mark.parametrize(
    ("id", "start", "each"), [(0x19, 0xC, 2), (0x26, 0x20, 1), (0x2A, 0x20, 1), (0x31, 0x10, 1), (0x27, 8, 4)]
)
def test_as_many_lanes_as_the_link_is_wide(id: int, start: int, each: int) -> None:
    for width in (0, 1, 8, 32):
        found, told = _decode(id, bytes(0xA0), width=width)
        assert (len(found.lanes), told) == (width, [])
    found, told = _decode(id, bytes(0xA0), width=8, size=FIRST + start + 3 * each)
    assert len(found.lanes) == 3
    assert [rule for rule, _ in told] == ["pci.capability-truncated"]
    found, told = _decode(id, bytes(0xA0), width=33)  # reserved: no lanes rather than made-up ones
    assert (found.lanes, told) == ((), [])


@pytest.mark.parametrize("blocks", [0, 1, 15])
def test_a_selective_stream_up_to_the_end(blocks: int) -> None:
    body = struct.pack("<IIII", 2, 0, blocks, 0) + bytes(0xE0)
    found, told = _decode(0x30, body[: 0x1C + 12 * blocks], size=FIRST + 0x20 + 12 * blocks)
    assert (len(found.selective), len(found.selective[0].ranges), told) == (1, blocks, [])


def test_encrypted_streams_beyond_the_end_are_told() -> None:
    found, told = _decode(0x30, struct.pack("<II", 3 | 1 << 13 | 1 << 16, 0) + bytes(0x60), size=FIRST + 0x0C + 8 + 7)
    assert (len(found.link), len(found.selective)) == (1, 0)
    assert told == [
        ("pci.capability-truncated", "2 link and 2 selective streams, but only 1 and 0 are readable"),
    ]
    body = struct.pack("<II", 2, 0) + struct.pack("<I", 15) + bytes(0x20)
    found, told = _decode(0x30, body, size=FIRST + 0x2C)
    assert (found.selective, [rule for rule, _ in told]) == ((), ["pci.capability-truncated"])


def test_containment_logs_cut_off_by_the_end() -> None:
    body = struct.pack("<HHHH", 0x20 | 6 << 8, 0, 0, 0) + bytes(range(0x40))
    found, told = _decode(0x1D, body)
    assert len(found.rp_pio.header_log) == 32
    assert found.rp_pio.implementation_log == 0x27262524
    assert found.rp_pio.prefix_log == "2b2a2928"
    assert told == []
    found, told = _decode(0x1D, body, size=FIRST + 0x31)
    assert (len(found.rp_pio.header_log), found.rp_pio.implementation_log, found.rp_pio.prefix_log) == (32, None, "")
    assert [rule for rule, _ in told] == ["pci.capability-truncated"]
    found, told = _decode(0x1D, body, size=FIRST + 0x1F)
    assert (found.rp_pio, [rule for rule, _ in told]) == (None, ["pci.capability-truncated"])


def test_what_depends_on_a_version() -> None:
    for version in (1, 2):
        found, _ = _decode(7, struct.pack("<II", 0b1001, 0x00090500), version=version)
        assert found.devices == (0, 3)
        assert (found.first_bus, found.last_bus) == ((None, None) if version == 1 else (5, 9))
        found, _ = _decode(0x1E, struct.pack("<IIII", 0, 0, 0, 1), version=version)
        assert found.link_activation_status is (None if version == 1 else True)


def test_reserved_scales_give_no_time() -> None:
    found, _ = _decode(0x18, struct.pack("<HH", 6 << 10 | 1, 7 << 10 | 1))
    assert (found.maximum_snoop, found.maximum_no_snoop) == (None, None)


def _dvsec(vendor: int, id: int, body: bytes, length: int | None = None) -> bytes:
    return struct.pack("<IH", vendor | (len(body) + 10 if length is None else length) << 20, id) + body


def test_designated_vendor_specific_data_end_where_their_length_says() -> None:
    found, told = _decode(0x23, _dvsec(0x8086, 7, bytes(range(20)), length=16))
    assert (found.length, found.data, found.cxl, told) == (16, "000102030405", None, [])
    found, told = _decode(0xB, struct.pack("<I", 7 | 2 << 16 | 10 << 20) + b"\x01\x02\x03\x04")
    assert (found.id, found.revision, found.data, told) == (7, 2, "0102", [])


@pytest.mark.parametrize(
    ("id", "length"), [(0, 0x38), (2, 0x2C), (3, 0x28), (4, 0x10), (5, 0x10), (7, 0x10), (8, 0xC), (9, 0xE)]
)
def test_cxl_registers_need_their_length(id: int, length: int) -> None:
    found, told = _decode(0x23, _dvsec(0x1E98, id, bytes(0x40), length=length))
    assert (found.cxl is not None, told) == (True, [])
    found, told = _decode(0x23, _dvsec(0x1E98, id, bytes(0x40), length=length - 1))
    assert (found.cxl, [rule for rule, _ in told]) == (None, ["pci.capability-truncated"])
    found, told = _decode(0x23, _dvsec(0x1E98, id, bytes(0x40), length=length), size=FIRST + length - 1)
    assert (found.cxl, [rule for rule, _ in told]) == (None, ["pci.capability-truncated"])


def test_cxl_ids_without_a_meaning_here_are_kept_raw() -> None:
    found, told = _decode(0x23, _dvsec(0x1E98, 0x0A, b"\x01\x02"))
    assert (found.cxl, found.data, told) == (None, "0102", [])


def test_optional_cxl_registers() -> None:
    found, _ = _decode(0x23, _dvsec(0x1E98, 0, bytes(0x2E)))
    assert found.cxl.volatile_after_cold_reset is None
    found, _ = _decode(0x23, _dvsec(0x1E98, 7, bytes(6)))
    assert (found.cxl.received_training_data, found.cxl.nop_hint_capable, found.cxl.nop_hint_info) == (None, None, None)


def test_the_port_of_a_config_space_that_ends_in_its_capability() -> None:
    config = express_config([], port_type=6, width=16)
    assert [port.port_type(config[:size]) for size in (0x40, 0x43, 0x44)] == [None, None, 6]
    assert [port.link_width(config[:size]) for size in (0x40, 0x4F, 0x50)] == [0, 0, 16]


# --- findings


def _sriov(
    total: int = 8, num: int = 2, first: int = 1, stride: int = 1, device: int = 7, control: int = 0, *bars: int
) -> bytes:
    head = struct.pack("<IHHHHHBxHHxxHII", 0, control, 0, total, total, num, 0, first, stride, device, 1, 1)
    return head + struct.pack("<6I", *(*bars, 0, 0, 0, 0, 0, 0)[:6]) + bytes(4)


@pytest.mark.parametrize(
    ("id", "body", "rule", "message"),
    [
        (0x10, _sriov(num=9), "pci.sriov-vf-count", "NumVFs is 9, TotalVFs is 8"),
        (0x10, _sriov(device=0), "pci.sriov-vf-device", "VF Device ID is 0x0000, TotalVFs is 8"),
        (0x10, _sriov(device=0xFFFF), "pci.sriov-vf-device", "VF Device ID is 0xffff, TotalVFs is 8"),
        (0x10, _sriov(first=0), "pci.sriov-vf-place", "first VF offset 0, VF stride 1, NumVFs 2"),
        (0x10, _sriov(stride=0), "pci.sriov-vf-place", "first VF offset 1, VF stride 0, NumVFs 2"),
        (0x10, _sriov(8, 2, 1, 1, 7, 0, 0x1001), "pci.sriov-vf-bar", "VF BAR 0 reads 0x00001001"),
        (0x10, _sriov(8, 2, 1, 1, 7, 0, 0, 0x1002), "pci.sriov-vf-bar", "VF BAR 1 reads 0x00001002"),
        (0x10, _sriov(8, 2, 1, 1, 7, 0, 0, 0x1006), "pci.sriov-vf-bar", "VF BAR 1 reads 0x00001006"),
        (0x10, _sriov(8, 2, 1, 1, 7, 0, 0, 0, 0, 0, 0, 0x1004), "pci.sriov-vf-bar", "VF BAR 5 reads 0x00001004"),
        (
            0x10,
            _sriov(8, 2, 1, 1, 7, 9, 0x1000, 0, 0xC),
            "pci.sriov-vf-bar-unassigned",
            "2 virtual functions with memory enabled, but no address in VF BAR 2",
        ),
        (0x15, struct.pack("<II", 0x10, 0), "pci.resizable-bar", "the capability at 0x100 counts 0 BARs"),
        (0x24, struct.pack("<II", 0x10, 7 << 5), "pci.resizable-bar", "the capability at 0x100 counts 7 BARs"),
        (
            0x15,
            struct.pack("<II", 0x10, 1 << 5 | 6),
            "pci.resizable-bar",
            "entry 0 of the capability at 0x100 is for BAR 6",
        ),
        (
            0x15,
            struct.pack("<IIII", 0x10, 2 << 5 | 3, 0x10, 3),
            "pci.resizable-bar",
            "entry 1 of the capability at 0x100 is for BAR 3",
        ),
        (
            0xB,
            struct.pack("<I", 7 << 20),
            "pci.vendor-capability-length",
            "the capability at 0x100 is 7 bytes long, its header alone is 8",
        ),
        (
            0x23,
            _dvsec(0x8086, 0, b"", length=9),
            "pci.vendor-capability-length",
            "the capability at 0x100 is 9 bytes long, its header alone is 10",
        ),
        (
            0xB,
            struct.pack("<I", 0xF01 << 20),
            "pci.vendor-capability-length",
            "the capability at 0x100 is 3841 bytes long and ends beyond 0xfff",
        ),
        (
            1,
            struct.pack("<10I", 1 << 20 | 1 << 18, 0, 0, 1 << 6, 0, 0, 0, 0, 0, 0),
            "pci.aer-logged",
            "the status registers hold: malformed TLP, unsupported request, bad TLP",
        ),
        (
            0x1D,
            struct.pack("<HHHH", 0, 0, 1 | 2 << 1, 0x1234),
            "pci.dpc-triggered",
            "triggered by ERR_FATAL from 12:06.4",
        ),
        (0x1D, struct.pack("<HHHH", 0, 0, 1 | 3 << 1 | 1 << 5, 0), "pci.dpc-triggered", "triggered by software"),
        (
            0x1D,
            struct.pack("<HHHH", 0, 0, 1, 0),
            "pci.dpc-triggered",
            "triggered by an unmasked uncorrectable error",
        ),
    ],
)
def test_what_is_wrong_is_told(id: int, body: bytes, rule: str, message: str) -> None:
    _, told = _decode(id, body)
    assert told == [(rule, message)]


@pytest.mark.parametrize(
    ("id", "body"),
    [
        (0x10, _sriov()),
        (0x10, _sriov(total=0, num=0, first=0, stride=0, device=0)),
        (0x10, _sriov(num=0, first=0, stride=0)),
        (0x10, _sriov(num=1, stride=0)),
        (0x10, _sriov(num=8)),
        (0x10, _sriov(8, 2, 1, 1, 7, 9, 0x1000, 0, 0xC, 1)),
        (0x10, _sriov(8, 2, 1, 1, 7, 1, 0, 0, 0xC)),
        (0x15, struct.pack("<IIII", 0x10, 2 << 5 | 5, 0x10, 0)),
        (0xB, struct.pack("<I", 0xF00 << 20)),
        (0xB, struct.pack("<I", 8 << 20)),
        (0x23, _dvsec(0x8086, 0, b"")),
        (1, bytes(0x28)),
        (0x1D, struct.pack("<HHHH", 0xFF, 0xFF, 0xFE, 0)),
    ],
)
def test_what_is_right_is_not(id: int, body: bytes) -> None:
    assert _decode(id, body)[1] == []


def test_an_egress_vector_that_ends_outside_is_told() -> None:
    body = struct.pack("<HH", 0x20 | 64 << 8, 0) + bytes(8)
    assert _decode(0xD, body, size=FIRST + 16)[1] == []
    found, told = _decode(0xD, body, size=FIRST + 12)
    assert (found.egress_vector, told) == (
        "00000000",
        [("pci.acs-egress-vector", "64 bits at 0x108 end beyond 0x10b")],
    )
    assert RULES["pci.acs-egress-vector"].severity is Severity.WARNING


def test_vf_bars() -> None:
    found, _ = _decode(0x10, _sriov(8, 2, 1, 1, 7, 0, 0x9000000C, 0x12, 0, 0xA0000000, 0x4, 0x1))
    assert [(bar.index, bar.address, bar.is_64bit, bar.prefetchable) for bar in found.bars] == [
        (0, 0x12_9000_0000, True, True),
        (3, 0xA000_0000, False, False),
        (4, 0x1_0000_0000, True, False),
    ]


def test_sizes_of_resizable_bars() -> None:
    found, _ = _decode(0x15, struct.pack("<II", 0x80000010, 1 << 5 | 2 | 28 << 8 | 0x8001 << 16))
    (bar,) = found.bars
    assert (bar.index, bar.size) == (2, 1 << 48)
    assert bar.supported == (1 << 20, 1 << 47, 1 << 48, 1 << 63)
    found, _ = _decode(0x15, struct.pack("<II", 0, 1 << 5 | 44 << 8))
    assert found.bars[0].size is None
    found, told = _decode(0x24, struct.pack("<IIII", 0x10, 2 << 5, 0, 0), size=FIRST + 0x13)
    assert (found.count, len(found.bars)) == (2, 1)
    assert told == [("pci.capability-truncated", "2 resizable BARs, but only 1 are readable")]
