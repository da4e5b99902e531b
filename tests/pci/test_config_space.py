# SPDX-License-Identifier: MIT
"""From bytes and the kernel's attributes to a Function: headers, BARs, windows, findings, and laws for any bytes."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dom0kit import serial
from dom0kit.address import IntxPin, Sbdf
from dom0kit.finding import Finding
from dom0kit.pci.config_space import decode_bar, decode_function
from dom0kit.pci.function import Bar, BarKind, Bridge, Function, Rom, Window
from dom0kit.source.dumps import read_lspci
from dom0kit.source.interface import RawFunction
from tests.corpus import lspci_dumps, needs_corpus
from tests.pci import hostile

SBDF = Sbdf(0, 3, 4, 5)


def _config(
    *,
    size: int = 256,
    type: int = 0,
    class_code: int = 0x020000,
    bars: Mapping[int, int] = {},
    at: Mapping[int, bytes] = {},
    capabilities: bytes = b"",
) -> bytes:
    """A header by hand: vendor 1234h, device 5678h, no capability unless given (at 40h)."""
    config = bytearray(size)
    config[0:4] = b"\x34\x12\x78\x56"
    config[8:12] = (class_code << 8 | 0x21).to_bytes(4, "little")
    config[0x0E] = type
    for index, value in bars.items():
        config[0x10 + 4 * index : 0x14 + 4 * index] = value.to_bytes(4, "little")
    if capabilities:
        config[0x06] |= 0x10
        config[0x34] = 0x40
        config[0x40 : 0x40 + len(capabilities)] = capabilities
    for offset, data in at.items():
        config[offset : offset + len(data)] = data
    return bytes(config)


def _decode(config: bytes, **attributes: str) -> tuple[Function, tuple[Finding, ...]]:
    return decode_function(RawFunction(SBDF, config, attributes))


def _rules(findings: tuple[Finding, ...]) -> list[str]:
    return [finding.rule for finding in findings]


def _resource(*lines: tuple[int, int, int]) -> str:
    """The kernel's resource file; each line start, size, flags."""
    return "\n".join(
        f"{start:#018x} {start + size - 1 if size else 0:#018x} {flags:#018x}" for start, size, flags in lines
    )


NONE = (0, 0, 0)
MEMORY, MEMORY64, IO = 0x40200, 0x140204, 0x40101


def test_every_field_of_a_type_0_header() -> None:
    config = _config(
        class_code=0x010802,
        at={
            0x04: b"\x06\x04\x00\x00",
            0x0C: b"\x10\x20\x80\x8f",
            0x2C: b"\xde\x10\x34\x12",
            0x30: b"\x01\x00\x10\xf0",
            0x3C: b"\x0b\x03\x04\x05",
        },
        bars={0: 0xF000_0004, 1: 0x12, 2: 0xE001, 3: 0xF100_0008, 4: 0xD000_0002, 5: 0xF200_0000},
    )
    function, findings = _decode(config)
    assert findings == ()
    assert function == Function(
        sbdf=SBDF,
        config_bytes=256,
        vendor=0x1234,
        device=0x5678,
        class_code=0x010802,
        revision=0x21,
        subsystem_vendor=0x10DE,
        subsystem=0x1234,
        header_type=0,
        multifunction=True,
        command=0x0406,
        status=0,
        cache_line_size=0x10,
        latency_timer=0x20,
        bist=0x8F,
        interrupt_pin=IntxPin.C,
        interrupt_line=11,
        min_grant=4,
        max_latency=5,
        bars=(
            Bar(0, BarKind.MEMORY64, 0x12_F000_0000, False, None),
            Bar(2, BarKind.IO, 0xE000, False, None),
            Bar(3, BarKind.MEMORY32, 0xF100_0000, True, None),
            Bar(4, BarKind.MEMORY_BELOW_1M, 0xD000_0000, False, None),
            Bar(5, BarKind.MEMORY32, 0xF200_0000, False, None),
        ),
        rom=Rom(0xF010_0000, True, None),
        bridge=None,
        capabilities=(),
    )
    assert function.where == "pci:0000:03:04.5"
    assert function.buses is None


def _bridge_config(registers: bytes, **more: bytes) -> bytes:
    header = b"\x01\x02\x05\x20" + registers.ljust(0x18, b"\0")
    return _config(type=1, class_code=0x060401, at={0x18: header, 0x3C: b"\x00\x01\x1b\x00"})


def test_a_bridge_has_buses_windows_and_control() -> None:
    windows = struct.pack(
        "<BBHHHHHIIHH", 0x11, 0x31, 0x2000, 0xF000, 0xF010, 0xE001, 0xE0F1, 0x10, 0x11, 0x0002, 0x0003
    )
    function, findings = _decode(_bridge_config(windows))
    assert findings == ()
    assert function.bridge == Bridge(
        primary=1,
        secondary=2,
        subordinate=5,
        secondary_latency=0x20,
        secondary_status=0x2000,
        io=Window(0x21000, 0x33FFF, 32),
        memory=Window(0xF000_0000, 0xF01F_FFFF, 32),
        prefetchable=Window(0x10_E000_0000, 0x11_E0FF_FFFF, 64),
        control=0x001B,
        subtractive=True,
        window_registers=windows.hex(),
    )
    assert (function.min_grant, function.max_latency) == (0, 0)  # those bytes are Bridge Control here
    assert function.buses == (2, 5)


@pytest.mark.parametrize(
    ("io_base", "io_limit", "expected"),
    [
        (0xF0, 0x00, None),
        (0x00, 0x00, None),
        (0x10, 0x10, Window(0x1000, 0x1FFF, 16)),
        (0x11, 0x21, Window(0x1000, 0x2FFF, 32)),
        (0x01, 0x01, Window(0, 0xFFF, 32)),
    ],
)
def test_an_io_window_is_there_when_its_registers_say_so(io_base: int, io_limit: int, expected: Window | None) -> None:
    function, _ = _decode(_bridge_config(bytes([io_base, io_limit, 0, 0, 0xF0, 0xFF, 0x00, 0x00])))
    assert function.bridge is not None
    assert function.bridge.io == expected
    assert function.bridge.memory is None


def test_a_cardbus_bridge_has_its_own_header() -> None:
    ranges = struct.pack("<8I", 0xF000_0000, 0xF3FF_F000, 0xE000_0000, 0xD000_0000, 0x4000, 0x40FC, 0x14401, 0x144FC)
    at = {0x14: b"\x00", 0x16: b"\x00\x02\x10\x11\x14\x40", 0x1C: ranges, 0x3E: b"\x00\x05"}
    at |= {0x40: b"\x34\x12\xcd\xab", 0x44: b"\x01\x00\x00\x00"}
    function, findings = _decode(_config(type=2, class_code=0x060700, at=at, bars={0: 0xF480_0000}))
    assert findings == ()
    assert (function.subsystem_vendor, function.subsystem) == (0x1234, 0xABCD)
    cardbus = function.cardbus
    assert cardbus is not None
    assert function.buses == (0x11, 0x14)
    assert (cardbus.primary, cardbus.secondary_latency, cardbus.secondary_status) == (0x10, 0x40, 0x0200)
    first, second = cardbus.memory
    assert (first.base, first.limit, first.enabled, first.prefetchable) == (0xF000_0000, 0xF3FF_FFFF, True, True)
    assert (second.enabled, second.prefetchable) == (False, False)
    narrow, wide = cardbus.io
    assert (narrow.base, narrow.limit) == (0x4000, 0x40FF)
    assert (wide.base, wide.limit) == (0x14400, 0x144FF)
    assert cardbus.legacy_base == 1
    config = _config(type=2, class_code=0x060700)
    shorter, exact = (_decode(config[:length])[0].cardbus for length in (0x45, 0x46))
    assert shorter is not None
    assert exact is not None
    assert (shorter.legacy_base, exact.legacy_base) == (None, 0)


def test_a_prefetchable_window_of_a_reserved_width_has_32_bits() -> None:
    function, findings = _decode(_bridge_config(b"\xf0\0\0\0\xf0\xff\0\0\x09\xe0\xf9\xe0\x01\0\0\0\x01\0\0\0"))
    assert function.bridge is not None
    assert function.bridge.prefetchable == Window(0xE000_0000, 0xE0FF_FFFF, 32)
    assert _rules(findings) == ["pci.window-type"]


BARS = st.one_of(
    st.builds(
        lambda address: Bar(0, BarKind.IO, address << 2, False, None), st.integers(min_value=1, max_value=2**30 - 1)
    ),
    st.builds(
        lambda kind, address, prefetchable: Bar(0, kind, address << 4, prefetchable, None),
        st.sampled_from([BarKind.MEMORY32, BarKind.MEMORY_BELOW_1M, BarKind.RESERVED]),
        st.integers(min_value=1, max_value=2**28 - 1),
        st.booleans(),
    ),
    st.builds(
        lambda address, prefetchable: Bar(0, BarKind.MEMORY64, address << 4, prefetchable, None),
        st.integers(min_value=0, max_value=2**60 - 1),
        st.booleans(),
    ),
)


def _registers(bar: Bar) -> tuple[int, ...]:
    """A BAR as it is written (PCI Local Bus 3.0, section 6.2.5.1)."""
    if bar.kind is BarKind.IO:
        return (bar.address | 1,)
    types = {BarKind.MEMORY32: 0, BarKind.MEMORY_BELOW_1M: 1, BarKind.MEMORY64: 2, BarKind.RESERVED: 3}
    low = bar.address & 0xFFFF_FFFF | bar.prefetchable << 3 | types[bar.kind] << 1
    return (low, bar.address >> 32) if bar.kind is BarKind.MEMORY64 else (low,)


@given(BARS)
def test_a_bar_that_is_written_is_read_back(bar: Bar) -> None:
    low, *upper = _registers(bar)
    assert decode_bar(0, low, upper[0] if upper else 0xDEADBEEF) == bar


@given(st.lists(BARS, max_size=6))
def test_bars_are_read_back_from_a_header_each_under_its_first_register(bars: list[Bar]) -> None:
    registers: list[int] = []
    expected = []
    for bar in bars:
        words = _registers(bar)
        if len(registers) + len(words) > 6:
            break
        if words[0] == 0xFFFF_FFFF:
            continue
        expected.append(Bar(len(registers), bar.kind, bar.address, bar.prefetchable, None))
        registers += words
    function, findings = _decode(_config(bars=dict(enumerate(registers))))
    assert function.bars == tuple(expected)
    assert set(_rules(findings)) <= {"pci.bar-type"}


def test_sizes_come_from_the_kernel_and_so_do_bars_that_no_register_shows() -> None:
    resource = _resource(
        (0x38_F000_0000, 0x4000, MEMORY64),
        NONE,
        (0xE000, 0x20, IO),
        (0x1F0, 8, IO),
        (0x3F6, 1, IO),
        NONE,
        (0xC0000, 0x20000, MEMORY),
    )
    bars = {0: 0xF000_0004, 1: 0x38, 2: 0xE001}
    function, findings = _decode(_config(bars=bars), resource=resource)
    assert findings == ()
    assert function.bars == (
        Bar(0, BarKind.MEMORY64, 0x38_F000_0000, False, 0x4000),
        Bar(2, BarKind.IO, 0xE000, False, 0x20),
        Bar(3, BarKind.IO, 0x1F0, False, 8, True),
        Bar(4, BarKind.IO, 0x3F6, False, 1, True),
    )
    assert function.rom == Rom(0xC0000, False, 0x20000, True)


def test_a_virtual_function_takes_its_identity_and_bars_from_the_kernel() -> None:
    config = _config(at={0: b"\xff\xff\xff\xff"})
    attributes = {"physfn": "0000:03:00.0", "vendor": "0x8086", "device": "0x10ca", "iommu_group": "17"}
    resource = _resource((0x2000_0000, 0x4000, MEMORY64 | 0x2000))
    function, findings = _decode(config, resource=resource, **attributes)
    assert findings == ()
    assert (function.vendor, function.device) == (0x8086, 0x10CA)
    assert function.physical_function == Sbdf(0, 3, 0, 0)
    assert function.bars == (Bar(0, BarKind.MEMORY64, 0x2000_0000, True, 0x4000, True),)
    assert function.iommu_group == 17


def test_the_bars_of_virtual_functions_come_from_the_sriov_capability_and_the_kernel() -> None:
    sriov = bytearray(0x40)
    sriov[0:4] = (0x0010 | 1 << 16).to_bytes(4, "little")
    sriov[0x0C:0x10] = struct.pack("<HH", 8, 8)
    sriov[0x1A:0x1C] = b"\xca\x10"
    sriov[0x24:0x2C] = struct.pack("<II", 0x3000_000C, 0x1)
    express = b"\x10\x00\x02\x00".ljust(0x3C, b"\0")
    config = _config(size=4096, capabilities=express, at={0x100: bytes(sriov)})
    function, findings = _decode(config, resource=_resource(*[NONE] * 7, (0x1_3000_0000, 8 * 0x4000, MEMORY64)))
    assert findings == ()
    assert function.vf_bars == (Bar(0, BarKind.MEMORY64, 0x1_3000_0000, True, 0x4000),)


def test_a_sleeping_function_has_what_the_kernel_remembers() -> None:
    function, findings = _decode(
        b"",
        vendor="0x10de",
        device="0x2684",
        revision="0xa1",
        subsystem_vendor="0x1458",
        subsystem_device="0x40bf",
        power_state="D3cold",
        resource=_resource((0xF600_0000, 0x100_0000, MEMORY), NONE, (0x40_0000_0000, 0x10_0000, MEMORY64 | 0x2000)),
        **{"class": "0x030000"},
    )
    assert findings == ()
    assert function.asleep
    assert (function.vendor, function.device, function.class_code, function.revision) == (
        0x10DE,
        0x2684,
        0x030000,
        0xA1,
    )
    assert (function.subsystem_vendor, function.subsystem) == (0x1458, 0x40BF)
    assert function.power_state == "D3cold"
    assert function.bars == (
        Bar(0, BarKind.MEMORY32, 0xF600_0000, False, 0x100_0000, True),
        Bar(2, BarKind.MEMORY64, 0x40_0000_0000, True, 0x10_0000, True),
    )


def test_the_kernels_attributes() -> None:
    function, findings = _decode(
        _config(),
        numa_node="1",
        driver="nvme",
        iommu_group="5",
        irq="16",
        msi_irqs="128 msix\n27 msix\n",
        reset_method="flr bus",
        firmware_node="\\_SB_.PC00.RP01.PXSX",
        power_state="D0",
    )
    assert findings == ()
    assert (function.numa_node, function.driver, function.iommu_group, function.irq) == (1, "nvme", 5, 16)
    assert function.msi_irqs == (27, 128)
    assert function.reset_methods == ("flr", "bus")
    assert function.firmware_path == "\\_SB_.PC00.RP01.PXSX"
    assert function.power_state == "D0"


def test_what_the_kernel_did_not_say_is_none() -> None:
    function, _ = _decode(_config(), numa_node="-1", irq="many", reset_method="", iommu_group="4294967296")
    assert (function.numa_node, function.irq, function.driver, function.iommu_group) == (None, None, None, None)
    assert function.reset_methods == ()
    assert _decode(_config())[0].reset_methods is None


def test_a_function_that_does_not_answer_is_kept() -> None:
    function, findings = _decode(b"\xff" * 256)
    assert _rules(findings) == ["pci.not-answering"]
    assert not function.answers
    assert function.raw_header == "ff" * 64
    assert (function.vendor, function.bars, function.capabilities) == (0xFFFF, (), ())


def _msix(table: int, pba: int, vectors: int = 4) -> bytes:
    return struct.pack("<BBHII", 0x11, 0, vectors - 1, table, pba)


WRONG: list[tuple[str, bytes, str]] = [
    ("pci.header-truncated", _config()[:40], ""),
    ("pci.header-type", _config(type=3), ""),
    ("pci.class-mismatch", _config(class_code=0x060400), ""),
    ("pci.class-mismatch", _config(type=2), ""),
    ("pci.interrupt-pin", _config(at={0x3D: b"\x05"}), ""),
    ("pci.bar-64-last", _config(bars={5: 0xF000_0004}), ""),
    ("pci.bar-64-last", _config(type=1, class_code=0x060400, bars={1: 0xF000_000C}), ""),
    ("pci.bar-type", _config(bars={2: 0xF000_0006}), ""),
    ("pci.bar-ones", _config(bars={4: 0xFFFF_FFFF}), ""),
    ("pci.bar-ones", _config(at={0x30: b"\xff\xff\xff\xff"}), ""),
    ("pci.bar-alignment", _config(bars={0: 0xF000_1000}), _resource((0xF000_1000, 0x4000, MEMORY))),
    (
        "pci.bar-overlap",
        _config(bars={0: 0xF000_0000, 1: 0xF000_1000}),
        _resource((0xF000_0000, 0x4000, MEMORY), (0xF000_1000, 0x1000, MEMORY)),
    ),
    ("pci.msix-bir", _config(bars={0: 0xF000_0000}, capabilities=_msix(6, 0x2000)), ""),
    ("pci.msix-bir", _config(bars={0: 0xF000_0000}, capabilities=_msix(0, 0x2001)), ""),
    ("pci.msix-bir", _config(bars={0: 0xE001, 1: 0xF000_0000}, capabilities=_msix(0, 0x2001)), ""),
    ("pci.msix-bir", _config(bars={0: 0xF000_0004, 1: 1}, capabilities=_msix(0, 0x2001)), ""),
    (
        "pci.msix-range",
        _config(bars={0: 0xF000_0000}, capabilities=_msix(0x0FF0, 0x0800)),
        _resource((0xF000_0000, 0x1000, MEMORY)),
    ),
    ("pci.msix-overlap", _config(bars={0: 0xF000_0000}, capabilities=_msix(0x1000, 0x1038)), ""),
    ("pci.window-type", _bridge_config(b"\x11\x30"), ""),
    ("pci.window-type", _bridge_config(b"\x12\x32"), ""),
    ("pci.window-type", _bridge_config(b"\x10\x30\x00\x00\x01\xf0\x00\xf0"), ""),
    ("pci.window-type", _bridge_config(b"\x10\x30\x00\x00\x00\xf0\x08\xf0"), ""),
    ("pci.window-type", _bridge_config(b"\x10\x30\x00\x00\x00\xf0\x00\xf0\x01\xe0\x00\xe0"), ""),
    ("pci.resource-file", _config(), "0x0 0x1"),
    ("pci.resource-file", _config(), "0x0 0x10000000000000000 0x0"),
    ("pci.resource-file", _config(), "0x0 0xffffffffffffffff 0x200"),
    ("pci.resource-file", _config(), "0x10000000000000000 0x10000000000000000 0x200"),
]


@pytest.mark.parametrize(
    ("rule", "config", "resource"), WRONG, ids=[f"{rule}-{n}" for n, (rule, *_) in enumerate(WRONG)]
)
def test_what_is_wrong_is_a_finding_about_this_function(rule: str, config: bytes, resource: str) -> None:
    _, findings = _decode(config, **({"resource": resource} if resource else {}))
    assert _rules(findings) == [rule]
    assert findings[0].where == "pci:0000:03:04.5"


def test_a_sound_msix_is_no_finding() -> None:
    resource = _resource((0xF000_0000, 0x4000, MEMORY))
    config = _config(bars={0: 0xF000_0000}, capabilities=_msix(0x1000, 0x1040))
    assert _decode(config, resource=resource)[1] == ()


@settings(max_examples=400, deadline=None)
@given(hostile.functions())
def test_any_function_decodes_and_survives_json(raw: RawFunction) -> None:
    function, findings = decode_function(raw)
    assert function.config_bytes == len(raw.config)
    assert serial.decode(serial.encode(function), Function) == function
    for finding in findings:
        assert finding.where == function.where
        assert finding.message


@needs_corpus
def test_every_recorded_function_survives_json_and_has_few_findings() -> None:
    count = found = 0
    for dump in lspci_dumps():
        for raw in read_lspci(dump.name, iter([dump.read_bytes()])).functions():
            function, findings = decode_function(raw)
            assert serial.decode(serial.encode(function), Function) == function
            count += 1
            found += sum(finding.rule != "pci.capability-truncated" for finding in findings)
    assert count > 1000
    assert found < count / 10
