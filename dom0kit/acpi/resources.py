# SPDX-License-Identifier: MIT
"""Resource descriptors: the buffers that ``_CRS``, ``_PRS`` and ``_SRS`` carry (ACPI 6.5, section 6.4).

    resources, findings = decode_resources(data, "aml:\\_SB.PCI0._CRS")
    build_resources(resources)

A small descriptor is one tag byte (bits 6:3 type, 2:0 length) and up to 7 bytes; a large one is a tag byte with bit 7
set, a 16-bit length and its bytes. Building gives the same bytes but for reserved bits, which are written as 0.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from dom0kit.acpi.tables.common import SPACES, AddressSpace
from dom0kit.address import Polarity, Trigger
from dom0kit.finding import Finding, Severity, rule
from dom0kit.serial import Hex

TRUNCATED: Final = rule(
    "acpi.resource-truncated",
    Severity.WARNING,
    title="a resource descriptor is cut off",
    meaning="A resource buffer ends inside a descriptor, or a descriptor is shorter than its type asks for, or there "
    "are more than a thousand. What lies before is decoded, the rest is kept as bytes; an operating system stops there "
    "too, so later resources of this object do not exist for it.",
    advice="Compare with the real machine's _CRS; a firmware update or an override of the table mends it.",
    specification="ACPI 6.5, sections 6.4.2 and 6.4.3",
)
NO_END: Final = rule(
    "acpi.resource-no-end-tag",
    Severity.INFO,
    title="a resource buffer has no end tag",
    meaning="The buffer ends without the End Tag descriptor. Strict readers refuse the whole buffer.",
    advice="Nothing, unless a resource is missing.",
    specification="ACPI 6.5, section 6.4.2.9",
)
UNKNOWN: Final = rule(
    "acpi.resource-unknown",
    Severity.INFO,
    title="a resource descriptor of a reserved type",
    meaning="The descriptor's type is none that the specification names. It is kept as bytes.",
    advice="Nothing, unless a resource is missing: a newer revision of the specification may define it.",
    specification="ACPI 6.5, tables 6.21 and 6.37",
)


class Irq(msgspec.Struct, frozen=True, tag="irq", kw_only=True):
    """IRQ descriptor: any one of `irqs` (ACPI 6.5, section 6.4.2.1)."""

    irqs: tuple[int, ...]
    """ISA interrupt numbers, 0 to 15: a mask of possibilities in ``_PRS``, one or none in ``_CRS``."""
    trigger: Trigger = Trigger.EDGE
    polarity: Polarity = Polarity.HIGH
    shared: bool = False
    wake_capable: bool = False
    has_flags: bool = True
    """False for the two-byte form, which means edge, high, exclusive."""


class Dma(msgspec.Struct, frozen=True, tag="dma", kw_only=True):
    """DMA descriptor (section 6.4.2.2)."""

    channels: tuple[int, ...]
    """ISA DMA channels, 0 to 7."""
    transfer: int
    """0: 8 bits, 1: 8 and 16 bits, 2: 16 bits."""
    bus_master: bool
    speed: int
    """0 compatibility, 1 type A, 2 type B, 3 type F."""


class StartDependent(msgspec.Struct, frozen=True, tag="start-dependent", kw_only=True):
    """A set of alternatives begins (section 6.4.2.3)."""

    compatibility: int
    """0 good, 1 acceptable, 2 sub-optimal."""
    performance: int
    has_priority: bool = True


class EndDependent(msgspec.Struct, frozen=True, tag="end-dependent"):
    """The alternatives end (section 6.4.2.4)."""


class Io(msgspec.Struct, frozen=True, tag="io", kw_only=True):
    """I/O port descriptor (section 6.4.2.5)."""

    minimum: int
    maximum: int
    """Highest possible first port."""
    alignment: int
    length: int
    decode_16: bool = True


class FixedIo(msgspec.Struct, frozen=True, tag="fixed-io", kw_only=True):
    """Fixed location I/O port descriptor, 10-bit decode (section 6.4.2.6)."""

    address: int
    length: int


class FixedDma(msgspec.Struct, frozen=True, tag="fixed-dma", kw_only=True):
    """Fixed DMA descriptor (section 6.4.2.7)."""

    request_line: int
    channel: int
    width: int
    """0: 8 bits, doubling up to 5: 256 bits."""


class Vendor(msgspec.Struct, frozen=True, tag="vendor", kw_only=True):
    """Vendor-defined descriptor (sections 6.4.2.8 and 6.4.3.2)."""

    data: Hex
    large: bool


class EndTag(msgspec.Struct, frozen=True, tag="end", kw_only=True):
    """End tag (section 6.4.2.9)."""

    checksum: int
    """As found; 0 means that nobody checks. AML that patches its template seldom mends it."""


class Memory(msgspec.Struct, frozen=True, tag="memory", kw_only=True):
    """24-bit and 32-bit memory range (sections 6.4.3.1 and 6.4.3.3). Addresses in bytes."""

    bits: int
    """24 or 32."""
    writable: bool
    minimum: int
    maximum: int
    """Highest possible first address."""
    alignment: int
    """Bytes; in the 24-bit form 0 stands for 64 KiB."""
    length: int


class FixedMemory(msgspec.Struct, frozen=True, tag="fixed-memory", kw_only=True):
    """32-bit fixed memory range (section 6.4.3.4)."""

    writable: bool
    address: int
    length: int


class RangeKind(enum.Enum):
    """What an address space descriptor is about (section 6.4.3.5)."""

    MEMORY = "memory"
    IO = "io"
    BUS = "bus"
    OTHER = "other"


class AddressRange(msgspec.Struct, frozen=True, tag="range", kw_only=True):
    """Word, DWord, QWord or Extended address space descriptor (section 6.4.3.5)."""

    kind: RangeKind
    bits: int
    """16, 32 or 64."""
    resource_type: int
    """The byte that `kind` is read from: 0 memory, 1 I/O, 2 bus numbers, 0xC0 to 0xFF the vendor's."""
    consumer: bool
    """False: a bridge passes this range on. True: the device itself uses it."""
    subtractive: bool
    minimum_fixed: bool
    maximum_fixed: bool
    type_flags: int
    """Memory: bit 0 writable, 2:1 cacheable (3 prefetchable), 4:3 attribute, 5 translated to I/O. I/O: 1:0 ISA range,
    4 translated to memory, 5 sparse."""
    granularity: int
    minimum: int
    """First address, as seen on the secondary side."""
    maximum: int
    """Last address, inclusive."""
    translation: int
    """Added to get the address on the primary side, modulo 2**bits."""
    length: int
    extended: bool = False
    attributes: int = 0
    """Type specific attribute of the extended form: the UEFI memory attributes."""
    revision: int = 1
    """Of the extended form."""
    source: str | None = None
    source_index: int | None = None

    @property
    def is_window(self) -> bool:
        """A range that a root bridge forwards; bus numbers count whatever the consumer bit says, as Linux has it."""
        return self.length > 0 and (not self.consumer or self.kind is RangeKind.BUS)

    @property
    def prefetchable(self) -> bool:
        return self.kind is RangeKind.MEMORY and self.type_flags >> 1 & 3 == 3


class ExtendedInterrupt(msgspec.Struct, frozen=True, tag="interrupt", kw_only=True):
    """Extended interrupt descriptor: GSIs (section 6.4.3.6)."""

    interrupts: tuple[int, ...]
    trigger: Trigger
    polarity: Polarity
    shared: bool
    wake_capable: bool
    consumer: bool
    source: str | None = None
    source_index: int | None = None


class Register(msgspec.Struct, frozen=True, tag="register", kw_only=True):
    """Generic register descriptor (section 6.4.3.7)."""

    space: AddressSpace | int
    bit_width: int
    bit_offset: int
    access_size: int
    address: int


class Gpio(msgspec.Struct, frozen=True, tag="gpio", kw_only=True):
    """GPIO connection descriptor (section 6.4.3.8.1)."""

    interrupt: bool
    """True for an interrupt connection, False for I/O."""
    trigger: Trigger | None
    polarity: str | None
    """high, low or both; None for an I/O connection."""
    pins: tuple[int, ...]
    controller: str
    """Path of the GPIO controller as written; may be relative."""
    data: Hex
    """The descriptor's bytes after its length."""


class SerialBusKind(enum.Enum):
    """Section 6.4.3.8.2."""

    I2C = "i2c"
    SPI = "spi"
    UART = "uart"
    CSI2 = "csi2"
    OTHER = "other"


class SerialBus(msgspec.Struct, frozen=True, tag="serial-bus", kw_only=True):
    """Serial bus connection descriptor (section 6.4.3.8.2)."""

    kind: SerialBusKind
    bus_type: int
    controller: str
    data: Hex


class PinKind(enum.Enum):
    """Pin descriptors (sections 6.4.3.9 to 6.4.3.13)."""

    FUNCTION = "pin function"
    CONFIGURATION = "pin configuration"
    GROUP = "pin group"
    GROUP_FUNCTION = "pin group function"
    GROUP_CONFIGURATION = "pin group configuration"


class Pins(msgspec.Struct, frozen=True, tag="pins", kw_only=True):
    """One of the pin descriptors, named and kept as bytes."""

    kind: PinKind
    data: Hex


class Unknown(msgspec.Struct, frozen=True, tag="unknown", kw_only=True):
    """A descriptor of a reserved type, one that is too short, or what lies behind one that is cut off."""

    tag: int
    """Its first byte."""
    data: Hex
    """All its bytes, tag included."""


Resource = (
    Irq
    | Dma
    | StartDependent
    | EndDependent
    | Io
    | FixedIo
    | FixedDma
    | Vendor
    | EndTag
    | Memory
    | FixedMemory
    | AddressRange
    | ExtendedInterrupt
    | Register
    | Gpio
    | SerialBus
    | Pins
    | Unknown
)

_MAX_DESCRIPTORS: Final = 1000
"""The longest recorded _CRS has 67 of them."""
_KINDS: Final = {0: RangeKind.MEMORY, 1: RangeKind.IO, 2: RangeKind.BUS}
_BUSES: Final = {1: SerialBusKind.I2C, 2: SerialBusKind.SPI, 3: SerialBusKind.UART, 4: SerialBusKind.CSI2}
_SPACE_NUMBERS: Final = {space: number for number, space in SPACES.items()}


def decode_resources(data: bytes, where: str) -> tuple[tuple[Resource, ...], tuple[Finding, ...]]:
    """The descriptors of a resource buffer up to its end tag, and what is wrong with them (at place `where`)."""
    resources: list[Resource] = []
    findings: list[Finding] = []
    unknown: list[int] = []
    at = 0
    size = len(data)
    while at < size and not (resources and isinstance(resources[-1], EndTag)):
        tag = data[at]
        if tag & 0x80:
            header = 3
            length = int.from_bytes(data[at + 1 : at + 3], "little") if at + 3 <= size else size
        else:
            header, length = 1, tag & 7
        end = at + header + length
        if end > size or len(resources) == _MAX_DESCRIPTORS:
            what = f"reaches beyond the {size} bytes" if end > size else f"is one too many (limit {_MAX_DESCRIPTORS})"
            findings.append(TRUNCATED.at(where, f"descriptor {tag:#04x} at {at:#x} {what}"))
            resources.append(Unknown(tag=tag, data=data[at:].hex()))
            break
        decoder = _LARGE.get(tag) if tag & 0x80 else _SMALL.get(tag >> 3)
        if decoder is None:
            unknown.append(at)
            resources.append(Unknown(tag=tag, data=data[at:end].hex()))
        else:
            try:
                resources.append(decoder(data[at + header : end]))
            except (struct.error, IndexError):
                findings.append(TRUNCATED.at(where, f"descriptor {tag:#04x} at {at:#x} has only {length} bytes"))
                resources.append(Unknown(tag=tag, data=data[at:end].hex()))
        at = end
    else:
        if size and not isinstance(resources[-1], EndTag):
            findings.append(NO_END.at(where, f"no end tag within {size} bytes"))
    if unknown:
        first = f"the first {data[unknown[0]]:#04x} at {unknown[0]:#x}"
        findings.append(UNKNOWN.at(where, f"{len(unknown)} descriptors of a reserved type, {first}"))
    return tuple(resources), tuple(findings)


def _bits(mask: int) -> tuple[int, ...]:
    return tuple(bit for bit in range(mask.bit_length()) if mask >> bit & 1)


def _mask(bits: Iterable[int]) -> int:
    return sum(1 << bit for bit in set(bits))


def _text(data: bytes) -> str:
    return data.split(b"\0", 1)[0].decode("ascii", "backslashreplace")


def _irq(body: bytes) -> Resource:
    (mask,) = struct.unpack_from("<H", body)
    if len(body) < 3:
        return Irq(irqs=_bits(mask), has_flags=False)
    flags = body[2]
    return Irq(
        irqs=_bits(mask),
        trigger=Trigger.EDGE if flags & 1 else Trigger.LEVEL,
        polarity=Polarity.LOW if flags & 8 else Polarity.HIGH,
        shared=bool(flags & 0x10),
        wake_capable=bool(flags & 0x20),
    )


def _dma(body: bytes) -> Resource:
    mask, flags = struct.unpack_from("<BB", body)
    return Dma(channels=_bits(mask), transfer=flags & 3, bus_master=bool(flags & 4), speed=flags >> 5 & 3)


def _start_dependent(body: bytes) -> Resource:
    if not body:
        return StartDependent(compatibility=1, performance=1, has_priority=False)
    return StartDependent(compatibility=body[0] & 3, performance=body[0] >> 2 & 3)


def _end_dependent(body: bytes) -> Resource:
    return EndDependent()


def _io(body: bytes) -> Resource:
    information, minimum, maximum, alignment, length = struct.unpack_from("<BHHBB", body)
    return Io(minimum=minimum, maximum=maximum, alignment=alignment, length=length, decode_16=bool(information & 1))


def _fixed_io(body: bytes) -> Resource:
    address, length = struct.unpack_from("<HB", body)
    return FixedIo(address=address & 0x3FF, length=length)


def _fixed_dma(body: bytes) -> Resource:
    line, channel, width = struct.unpack_from("<HHB", body)
    return FixedDma(request_line=line, channel=channel, width=width)


def _vendor_small(body: bytes) -> Resource:
    return Vendor(data=body.hex(), large=False)


def _vendor_large(body: bytes) -> Resource:
    return Vendor(data=body.hex(), large=True)


def _end(body: bytes) -> Resource:
    return EndTag(checksum=body[0])


def _memory24(body: bytes) -> Resource:
    information, minimum, maximum, alignment, length = struct.unpack_from("<BHHHH", body)
    return Memory(
        bits=24,
        writable=bool(information & 1),
        minimum=minimum << 8,
        maximum=maximum << 8,
        alignment=alignment,
        length=length << 8,
    )


def _memory32(body: bytes) -> Resource:
    information, minimum, maximum, alignment, length = struct.unpack_from("<BIIII", body)
    return Memory(
        bits=32,
        writable=bool(information & 1),
        minimum=minimum,
        maximum=maximum,
        alignment=alignment,
        length=length,
    )


def _fixed_memory(body: bytes) -> Resource:
    information, address, length = struct.unpack_from("<BII", body)
    return FixedMemory(writable=bool(information & 1), address=address, length=length)


def _address_range(bits: int) -> Callable[[bytes], Resource]:
    layout = struct.Struct("<BBB5" + {16: "H", 32: "I", 64: "Q"}[bits])

    def decode(body: bytes) -> Resource:
        kind, flags, type_flags, granularity, minimum, maximum, translation, length = layout.unpack_from(body)
        source = body[layout.size :]
        return AddressRange(
            kind=_KINDS.get(kind, RangeKind.OTHER),
            bits=bits,
            resource_type=kind,
            consumer=bool(flags & 1),
            subtractive=bool(flags & 2),
            minimum_fixed=bool(flags & 4),
            maximum_fixed=bool(flags & 8),
            type_flags=type_flags,
            granularity=granularity,
            minimum=minimum,
            maximum=maximum,
            translation=translation,
            length=length,
            source=_text(source[1:]) if len(source) > 1 else None,
            source_index=source[0] if source else None,
        )

    return decode


_EXTENDED: Final = struct.Struct("<BBBBBQQQQQQ")


def _extended_range(body: bytes) -> Resource:
    kind, flags, type_flags, revision, _, granularity, minimum, maximum, translation, length, attributes = (
        _EXTENDED.unpack_from(body)
    )
    return AddressRange(
        kind=_KINDS.get(kind, RangeKind.OTHER),
        bits=64,
        resource_type=kind,
        consumer=bool(flags & 1),
        subtractive=bool(flags & 2),
        minimum_fixed=bool(flags & 4),
        maximum_fixed=bool(flags & 8),
        type_flags=type_flags,
        granularity=granularity,
        minimum=minimum,
        maximum=maximum,
        translation=translation,
        length=length,
        extended=True,
        attributes=attributes,
        revision=revision,
    )


def _interrupt(body: bytes) -> Resource:
    flags, count = struct.unpack_from("<BB", body)
    interrupts = struct.unpack_from(f"<{count}I", body, 2)
    source = body[2 + 4 * count :]
    return ExtendedInterrupt(
        interrupts=interrupts,
        trigger=Trigger.EDGE if flags & 2 else Trigger.LEVEL,
        polarity=Polarity.LOW if flags & 4 else Polarity.HIGH,
        shared=bool(flags & 8),
        wake_capable=bool(flags & 0x10),
        consumer=bool(flags & 1),
        source=_text(source[1:]) if len(source) > 1 else None,
        source_index=source[0] if source else None,
    )


def _register(body: bytes) -> Resource:
    space, width, offset, access, address = struct.unpack_from("<BBBBQ", body)
    return Register(
        space=SPACES.get(space, space), bit_width=width, bit_offset=offset, access_size=access, address=address
    )


def _gpio(body: bytes) -> Resource:
    # Offsets in the descriptor count from its tag, three bytes before the body (table 6.53).
    connection, _, flags, _, _, _, pins_at, _, name_at, vendor_at = struct.unpack_from("<xBHHBHHHBHH", body)
    interrupt = connection == 0
    pins_at, name_at, vendor_at = pins_at - 3, name_at - 3, vendor_at - 3
    if not 0 <= pins_at <= name_at <= len(body):
        raise IndexError
    count = (name_at - pins_at) // 2
    return Gpio(
        interrupt=interrupt,
        trigger=(Trigger.EDGE if flags & 1 else Trigger.LEVEL) if interrupt else None,
        polarity=("high", "low", "both", "reserved")[flags >> 1 & 3] if interrupt else None,
        pins=struct.unpack_from(f"<{count}H", body, pins_at),
        controller=_text(body[name_at : vendor_at if vendor_at > name_at else None]),
        data=body.hex(),
    )


def _serial_bus(body: bytes) -> Resource:
    bus_type, type_length = struct.unpack_from("<xxBxxxxH", body)
    return SerialBus(
        kind=_BUSES.get(bus_type, SerialBusKind.OTHER),
        bus_type=bus_type,
        controller=_text(body[9 + type_length :]),
        data=body.hex(),
    )


def _pins(kind: PinKind) -> Callable[[bytes], Resource]:
    return lambda body: Pins(kind=kind, data=body.hex())


_SMALL: Final[dict[int, Callable[[bytes], Resource]]] = {
    0x04: _irq,
    0x05: _dma,
    0x06: _start_dependent,
    0x07: _end_dependent,
    0x08: _io,
    0x09: _fixed_io,
    0x0A: _fixed_dma,
    0x0E: _vendor_small,
    0x0F: _end,
}
_PIN_TAGS: Final = {
    PinKind.FUNCTION: 0x8D,
    PinKind.CONFIGURATION: 0x8F,
    PinKind.GROUP: 0x90,
    PinKind.GROUP_FUNCTION: 0x91,
    PinKind.GROUP_CONFIGURATION: 0x92,
}
_LARGE: Final[dict[int, Callable[[bytes], Resource]]] = {
    0x81: _memory24,
    0x82: _register,
    0x84: _vendor_large,
    0x85: _memory32,
    0x86: _fixed_memory,
    0x87: _address_range(32),
    0x88: _address_range(16),
    0x89: _interrupt,
    0x8A: _address_range(64),
    0x8B: _extended_range,
    0x8C: _gpio,
    0x8E: _serial_bus,
    **{tag: _pins(kind) for kind, tag in _PIN_TAGS.items()},
}


def build_resources(resources: Iterable[Resource]) -> bytes:
    """The buffer of these descriptors, in this order; reserved bits are 0. ValueError where a number does not fit."""
    try:
        return b"".join(_build(resource) for resource in resources)
    except struct.error as error:
        raise ValueError(str(error)) from error


def _small(kind: int, body: bytes) -> bytes:
    if len(body) > 7:
        raise ValueError(f"a small descriptor holds 7 bytes, not {len(body)}")
    return bytes((kind << 3 | len(body),)) + body


def _large(tag: int, body: bytes) -> bytes:
    return struct.pack("<BH", tag, len(body)) + body


def _source(index: int | None, path: str | None) -> bytes:
    if index is None:
        return b""
    text = b"" if path is None else path.encode("ascii", "backslashreplace") + b"\0"
    return bytes((index,)) + text


def _build(resource: Resource) -> bytes:
    match resource:
        case Irq():
            body = struct.pack("<H", _mask(resource.irqs))
            if resource.has_flags:
                flags = (
                    (resource.trigger is Trigger.EDGE)
                    | (resource.polarity is Polarity.LOW) << 3
                    | resource.shared << 4
                    | resource.wake_capable << 5
                )
                body += bytes((flags,))
            return _small(0x04, body)
        case Dma():
            flags = resource.transfer | resource.bus_master << 2 | resource.speed << 5
            return _small(0x05, struct.pack("<BB", _mask(resource.channels), flags))
        case StartDependent():
            priority = bytes((resource.compatibility | resource.performance << 2,)) if resource.has_priority else b""
            return _small(0x06, priority)
        case EndDependent():
            return _small(0x07, b"")
        case Io(minimum=minimum, maximum=maximum, alignment=alignment, length=length):
            return _small(0x08, struct.pack("<BHHBB", resource.decode_16, minimum, maximum, alignment, length))
        case FixedIo(address=address, length=length):
            return _small(0x09, struct.pack("<HB", address, length))
        case FixedDma(request_line=line, channel=channel, width=width):
            return _small(0x0A, struct.pack("<HHB", line, channel, width))
        case Vendor(data=data, large=large):
            return _large(0x84, bytes.fromhex(data)) if large else _small(0x0E, bytes.fromhex(data))
        case EndTag(checksum=checksum):
            return _small(0x0F, bytes((checksum,)))
        case Memory(bits=24):
            values = (resource.minimum >> 8, resource.maximum >> 8, resource.alignment, resource.length >> 8)
            return _large(0x81, struct.pack("<BHHHH", resource.writable, *values))
        case Memory():
            values = (resource.minimum, resource.maximum, resource.alignment, resource.length)
            return _large(0x85, struct.pack("<BIIII", resource.writable, *values))
        case FixedMemory():
            return _large(0x86, struct.pack("<BII", resource.writable, resource.address, resource.length))
        case AddressRange():
            return _build_range(resource)
        case ExtendedInterrupt(interrupts=interrupts):
            flags = (
                resource.consumer
                | (resource.trigger is Trigger.EDGE) << 1
                | (resource.polarity is Polarity.LOW) << 2
                | resource.shared << 3
                | resource.wake_capable << 4
            )
            body = struct.pack(f"<BB{len(interrupts)}I", flags, len(interrupts), *interrupts)
            return _large(0x89, body + _source(resource.source_index, resource.source))
        case Register():
            space = resource.space if isinstance(resource.space, int) else _SPACE_NUMBERS[resource.space]
            values = (space, resource.bit_width, resource.bit_offset, resource.access_size)
            return _large(0x82, struct.pack("<BBBBQ", *values, resource.address))
        case Gpio(data=data):
            return _large(0x8C, bytes.fromhex(data))
        case SerialBus(data=data):
            return _large(0x8E, bytes.fromhex(data))
        case Pins(kind=kind, data=data):
            return _large(_PIN_TAGS[kind], bytes.fromhex(data))
        case Unknown(data=data):
            return bytes.fromhex(data)


def _build_range(resource: AddressRange) -> bytes:
    flags = resource.consumer | resource.subtractive << 1 | resource.minimum_fixed << 2 | resource.maximum_fixed << 3
    head = (resource.resource_type, flags, resource.type_flags)
    numbers = (
        resource.granularity,
        resource.minimum,
        resource.maximum,
        resource.translation,
        resource.length,
    )
    if resource.extended:
        return _large(0x8B, _EXTENDED.pack(*head, resource.revision, 0, *numbers, resource.attributes))
    tag, code = {16: (0x88, "H"), 32: (0x87, "I"), 64: (0x8A, "Q")}[resource.bits]
    body = struct.pack(f"<BBB5{code}", *head, *numbers)
    return _large(tag, body + _source(resource.source_index, resource.source))
