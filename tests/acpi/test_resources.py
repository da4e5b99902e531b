# SPDX-License-Identifier: MIT
"""Resource descriptors: what iasl makes of a template, laws over any bytes, and every buffer of recorded machines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0kit.acpi import resources as r
from dom0kit.acpi.aml import Buffer, evaluate
from dom0kit.acpi.tables.common import SPACES, AddressSpace
from dom0kit.address import Polarity, Trigger
from dom0kit.serial import decode, encode
from tests.acpi.asl import needs_acpica, table

TEMPLATES: dict[str, r.Resource] = {
    "IRQ (Level, ActiveLow, Shared) { 5, 10 }": r.Irq(
        irqs=(5, 10), trigger=Trigger.LEVEL, polarity=Polarity.LOW, shared=True
    ),
    "IRQNoFlags () { 14 }": r.Irq(irqs=(14,), has_flags=False),
    "DMA (TypeB, BusMaster, Transfer8_16) { 3 }": r.Dma(channels=(3,), transfer=1, bus_master=True, speed=2),
    "IO (Decode16, 0x100, 0x200, 0x10, 0x08)": r.Io(minimum=0x100, maximum=0x200, alignment=16, length=8),
    "IO (Decode10, 0x60, 0x60, 1, 1)": r.Io(minimum=0x60, maximum=0x60, alignment=1, length=1, decode_16=False),
    "FixedIO (0x61, 2)": r.FixedIo(address=0x61, length=2),
    "FixedDMA (7, 3, Width64Bit)": r.FixedDma(request_line=7, channel=3, width=3),
    "VendorShort () { 1, 2 }": r.Vendor(data="0102", large=False),
    "VendorLong () { 3, 4, 5 }": r.Vendor(data="030405", large=True),
    "Memory24 (ReadWrite, 0x100, 0x200, 0x10, 0x20)": r.Memory(
        bits=24, writable=True, minimum=0x10000, maximum=0x20000, alignment=16, length=0x2000
    ),
    "Memory32 (ReadOnly, 0x1000, 0x2000, 0x10, 0x20)": r.Memory(
        bits=32, writable=False, minimum=0x1000, maximum=0x2000, alignment=16, length=0x20
    ),
    "Memory32Fixed (ReadWrite, 0xFED00000, 0x400)": r.FixedMemory(writable=True, address=0xFED00000, length=0x400),
    "WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode, 0, 0x80, 0xFF, 0, 0x80)": r.AddressRange(
        kind=r.RangeKind.BUS,
        bits=16,
        resource_type=2,
        consumer=False,
        subtractive=False,
        minimum_fixed=True,
        maximum_fixed=True,
        type_flags=0,
        granularity=0,
        minimum=0x80,
        maximum=0xFF,
        translation=0,
        length=0x80,
    ),
    "DWordMemory (ResourceConsumer, SubDecode, MinNotFixed, MaxNotFixed, Prefetchable, ReadWrite, "
    '0xF, 0x1000, 0x1FFF, 0x10, 0x1000, 3, "\\\\_SB.PCI0")': r.AddressRange(
        kind=r.RangeKind.MEMORY,
        bits=32,
        resource_type=0,
        consumer=True,
        subtractive=True,
        minimum_fixed=False,
        maximum_fixed=False,
        type_flags=7,
        granularity=0xF,
        minimum=0x1000,
        maximum=0x1FFF,
        translation=0x10,
        length=0x1000,
        source="\\_SB.PCI0",
        source_index=3,
    ),
    "QWordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange, 0, 0x10000, 0x1FFFF, 0xFFFFFFFF00000000, "
    "0x10000)": r.AddressRange(
        kind=r.RangeKind.IO,
        bits=64,
        resource_type=1,
        consumer=False,
        subtractive=False,
        minimum_fixed=True,
        maximum_fixed=True,
        type_flags=3,
        granularity=0,
        minimum=0x10000,
        maximum=0x1FFFF,
        translation=0xFFFFFFFF_00000000,
        length=0x10000,
    ),
    "ExtendedMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, Cacheable, ReadWrite, 0, 0x100000000, "
    "0x1FFFFFFFF, 0, 0x100000000, 8)": r.AddressRange(
        kind=r.RangeKind.MEMORY,
        bits=64,
        resource_type=0,
        consumer=False,
        subtractive=False,
        minimum_fixed=True,
        maximum_fixed=True,
        type_flags=3,
        granularity=0,
        minimum=0x1_0000_0000,
        maximum=0x1_FFFF_FFFF,
        translation=0,
        length=0x1_0000_0000,
        extended=True,
        attributes=8,
    ),
    "Interrupt (ResourceConsumer, Level, ActiveLow, SharedAndWake) { 16, 0x12345678 }": r.ExtendedInterrupt(
        interrupts=(16, 0x12345678),
        trigger=Trigger.LEVEL,
        polarity=Polarity.LOW,
        shared=True,
        wake_capable=True,
        consumer=True,
    ),
    "Register (SystemIO, 8, 1, 0x1234, 2)": r.Register(
        space=AddressSpace.SYSTEM_IO, bit_width=8, bit_offset=1, access_size=2, address=0x1234
    ),
}


@needs_acpica
def test_what_iasl_compiles_is_what_we_decode() -> None:
    template = f"Name (RES0, ResourceTemplate () {{ {' '.join(TEMPLATES)} }})"
    result = evaluate([table(template)], {}, "\\RES0")
    assert isinstance(result.value, Buffer)
    data = bytes.fromhex(result.value.value)
    decoded, findings = r.decode_resources(data, "aml:\\RES0")
    assert findings == ()
    assert decoded == (*TEMPLATES.values(), r.EndTag(checksum=0))
    assert r.build_resources(decoded) == data


@needs_acpica
def test_connections_are_named() -> None:
    template = r"""Name (RES0, ResourceTemplate () {
        GpioInt (Edge, ActiveLow, Shared, PullUp, 0, "\\_SB.GPO0") { 3 }
        GpioIo (Exclusive, PullDefault, 0, 0, IoRestrictionNone, "\\_SB.GPO1") { 9, 10 }
        I2cSerialBusV2 (0x2C, ControllerInitiated, 400000, AddressingMode7Bit, "\\_SB.I2C1")
        UartSerialBusV2 (115200, DataBitsEight, StopBitsOne, 0, LittleEndian, ParityTypeNone, FlowControlNone, 32, 32,
            "\\_SB.URT0")
        PinFunction (Exclusive, PullUp, 2, "\\_SB.GPO0", 0) { 5 }
    })"""
    result = evaluate([table(template)], {}, "\\RES0")
    assert isinstance(result.value, Buffer)
    data = bytes.fromhex(result.value.value)
    (line, pin, i2c, uart, function, _), findings = r.decode_resources(data, "aml:\\RES0")
    assert findings == ()
    assert isinstance(line, r.Gpio)
    assert (line.interrupt, line.trigger, line.polarity, line.pins) == (True, Trigger.EDGE, "low", (3,))
    assert line.controller == "\\_SB.GPO0"
    assert isinstance(pin, r.Gpio)
    assert (pin.interrupt, pin.trigger, pin.pins, pin.controller) == (False, None, (9, 10), "\\_SB.GPO1")
    assert isinstance(i2c, r.SerialBus)
    assert (i2c.kind, i2c.controller) == (r.SerialBusKind.I2C, "\\_SB.I2C1")
    assert isinstance(uart, r.SerialBus)
    assert (uart.kind, uart.controller) == (r.SerialBusKind.UART, "\\_SB.URT0")
    assert isinstance(function, r.Pins)
    assert function.kind is r.PinKind.FUNCTION
    assert r.build_resources((line, pin, i2c, uart, function, r.EndTag(checksum=0))) == data


def test_a_window_is_what_a_bridge_forwards() -> None:
    def window(kind: r.RangeKind, *, consumer: bool, length: int) -> bool:
        return r.AddressRange(
            kind=kind,
            bits=32,
            resource_type=0,
            consumer=consumer,
            subtractive=False,
            minimum_fixed=True,
            maximum_fixed=True,
            type_flags=0,
            granularity=0,
            minimum=0,
            maximum=0,
            translation=0,
            length=length,
        ).is_window

    assert window(r.RangeKind.MEMORY, consumer=False, length=1)
    assert not window(r.RangeKind.MEMORY, consumer=True, length=1)
    assert not window(r.RangeKind.MEMORY, consumer=False, length=0)
    assert window(r.RangeKind.BUS, consumer=True, length=1)


@pytest.mark.parametrize(
    ("text", "rule", "kept"),
    [
        ("47010000", r.TRUNCATED, (r.Unknown(tag=0x47, data="47010000"),)),
        ("86", r.TRUNCATED, (r.Unknown(tag=0x86, data="86"),)),
        ("8602001122", r.TRUNCATED, (r.Unknown(tag=0x86, data="8602001122"),)),
        ("8bffff", r.TRUNCATED, (r.Unknown(tag=0x8B, data="8bffff"),)),
        ("0a1122", r.UNKNOWN, (r.Unknown(tag=0x0A, data="0a1122"),)),
        ("f0010077", r.UNKNOWN, (r.Unknown(tag=0xF0, data="f0010077"),)),
        ("38", r.NO_END, (r.EndDependent(),)),
    ],
)
def test_malformed(text: str, rule: object, kept: tuple[r.Resource, ...]) -> None:
    decoded, findings = r.decode_resources(bytes.fromhex(text), "aml:x")
    assert decoded == kept
    assert getattr(rule, "id", None) in {finding.rule for finding in findings}


def test_many_descriptors_end_in_one_finding() -> None:
    decoded, findings = r.decode_resources(bytes(100_000), "aml:x")
    assert len(decoded) == 1001
    assert [finding.rule for finding in findings] == [r.TRUNCATED.id, r.UNKNOWN.id]


@given(st.binary(max_size=300))
def test_any_bytes_decode_and_stay_the_same(data: bytes) -> None:
    decoded, _ = r.decode_resources(data, "aml:x")
    assert r.decode_resources(r.build_resources(decoded), "aml:x")[0] == decoded
    for resource in decoded:
        assert decode(encode(resource), r.Resource) == resource  # type: ignore[arg-type]


def _numbers(bits: int) -> st.SearchStrategy[int]:
    return st.integers(0, 2**bits - 1)


_TEXT = st.none() | st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=20)
_BOOL = st.booleans()


@st.composite
def _ranges(draw: st.DrawFn) -> r.AddressRange:
    bits = draw(st.sampled_from((16, 32, 64)))
    kind = draw(_numbers(8))
    extended = bits == 64 and draw(_BOOL)
    source = None if extended else draw(_TEXT)
    index = draw(_numbers(8)) if source is not None else draw(st.none() | _numbers(8))
    return r.AddressRange(
        kind={0: r.RangeKind.MEMORY, 1: r.RangeKind.IO, 2: r.RangeKind.BUS}.get(kind, r.RangeKind.OTHER),
        bits=bits,
        resource_type=kind,
        consumer=draw(_BOOL),
        subtractive=draw(_BOOL),
        minimum_fixed=draw(_BOOL),
        maximum_fixed=draw(_BOOL),
        type_flags=draw(_numbers(8)),
        granularity=draw(_numbers(bits)),
        minimum=draw(_numbers(bits)),
        maximum=draw(_numbers(bits)),
        translation=draw(_numbers(bits)),
        length=draw(_numbers(bits)),
        extended=extended,
        attributes=draw(_numbers(64)) if extended else 0,
        source=source,
        source_index=None if extended else index,
    )


@st.composite
def _interrupts(draw: st.DrawFn) -> r.ExtendedInterrupt:
    source = draw(_TEXT)
    return r.ExtendedInterrupt(
        interrupts=tuple(draw(st.lists(_numbers(32), max_size=8))),
        trigger=draw(st.sampled_from(Trigger)),
        polarity=draw(st.sampled_from(Polarity)),
        shared=draw(_BOOL),
        wake_capable=draw(_BOOL),
        consumer=draw(_BOOL),
        source=source,
        source_index=draw(_numbers(8)) if source is not None else None,
    )


_RESOURCES = st.one_of(
    _ranges(),
    _interrupts(),
    st.builds(
        r.Irq,
        irqs=st.sets(_numbers(4)).map(sorted).map(tuple),
        trigger=st.sampled_from(Trigger),
        polarity=st.sampled_from(Polarity),
        shared=_BOOL,
        wake_capable=_BOOL,
    ),
    st.builds(r.Io, minimum=_numbers(16), maximum=_numbers(16), alignment=_numbers(8), length=_numbers(8)),
    st.builds(
        r.Register,
        space=st.sampled_from(sorted(SPACES.values(), key=str)) | st.just(0xC5),
        bit_width=_numbers(8),
        bit_offset=_numbers(8),
        access_size=_numbers(8),
        address=_numbers(64),
    ),
    st.builds(r.FixedMemory, writable=_BOOL, address=_numbers(32), length=_numbers(32)),
)


@given(st.lists(_RESOURCES, max_size=6))
def test_what_is_built_decodes_to_the_same(resources: list[r.Resource]) -> None:
    whole = (*resources, r.EndTag(checksum=0))
    assert r.decode_resources(r.build_resources(whole), "aml:x") == (whole, ())


def test_a_number_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="format requires"):
        r.build_resources((r.FixedIo(address=0x10000, length=1),))
