# SPDX-License-Identifier: MIT
"""CEDT: CXL host bridges and the memory windows they decode (CXL 3.1, section 9.18.1)."""

from __future__ import annotations

from typing import Annotated, ClassVar

from dom0kit.layout import U8, U16, U32, U64, Bit, BitField, OpenRecord, Rest, Unknown, bits, entries, repeated, this


class Chbs(OpenRecord, frozen=True, kw_only=True, tag="chbs"):
    """CXL Host Bridge Structure (section 9.18.1.2)."""

    TYPE: ClassVar[int] = 0
    reserved: U8 = 0
    uid: U32
    """_UID of the ACPI0016 device."""
    cxl_version: U32
    """0 CXL 1.1 (RCRB), 1 CXL 2.0 (component registers)."""
    reserved2: U32 = 0
    base: U64
    length: U64


class WindowRestrictions(BitField, frozen=True, kw_only=True):
    """What a window may be used for."""

    device_coherent: Bit
    host_only_coherent: Bit
    volatile: Bit
    persistent: Bit
    fixed_configuration: Bit
    back_invalidate: Bit
    reserved: Annotated[int, bits(10)] = 0


def _ways(code: int) -> int:
    """Interleave ways by their encoding; 0 for a reserved one (CXL 3.1, section 8.2.4.20.7)."""
    return 1 << code if code <= 4 else 3 << code - 8 if 8 <= code <= 10 else 0


class Cfmws(OpenRecord, frozen=True, kw_only=True, tag="cfmws"):
    """CXL Fixed Memory Window Structure (section 9.18.1.3)."""

    TYPE: ClassVar[int] = 1
    reserved: U8 = 0
    reserved2: U32 = 0
    base_hpa: U64
    """Host physical address."""
    window_size: U64
    encoded_interleave_ways: U8
    interleave_arithmetic: U8
    """0 modulo, 1 XOR."""
    reserved3: U16 = 0
    granularity: U32
    """Encoded: 256 bytes shifted by it."""
    restrictions: WindowRestrictions
    qtg_id: U16
    targets: Annotated[tuple[U32, ...], repeated()]
    """UIDs of host bridges, one for each way."""

    @property
    def interleave_ways(self) -> int:
        """1 to 16; 0 where the encoding is reserved."""
        return _ways(self.encoded_interleave_ways)


class Cxims(OpenRecord, frozen=True, kw_only=True, tag="cxims"):
    """CXL XOR Interleave Math Structure (section 9.18.1.4)."""

    TYPE: ClassVar[int] = 2
    reserved: U8 = 0
    reserved2: U16 = 0
    granularity: U8
    number_of_bitmaps: U8
    xor_bitmaps: Annotated[tuple[U64, ...], repeated(this.number_of_bitmaps)]


class Rdpas(OpenRecord, frozen=True, kw_only=True, tag="rdpas"):
    """RCEC Downstream Port Association Structure (section 9.18.1.5)."""

    TYPE: ClassVar[int] = 3
    reserved: U8 = 0
    segment: U16
    bdf: U16
    """Of the root complex event collector."""
    protocol: U8
    """0 CXL.io, 1 CXL.cachemem."""
    base_address: U64


class SystemCapabilities(BitField, frozen=True, kw_only=True):
    """What the whole system can do (bit 2: CXL 3.2)."""

    cmp_m: Bit
    no_clean_writeback: Bit
    viral_policy: Bit
    reserved: Annotated[int, bits(13)] = 0


class Csds(OpenRecord, frozen=True, kw_only=True, tag="csds"):
    """CXL System Description Structure (section 9.18.1.6)."""

    TYPE: ClassVar[int] = 4
    reserved: U8 = 0
    capabilities: SystemCapabilities
    reserved2: U16 = 0


class Cedt(OpenRecord, frozen=True, kw_only=True, tag="cedt"):
    """CXL Early Discovery Table."""

    structures: Annotated[
        tuple[Chbs | Cfmws | Cxims | Rdpas | Csds | Unknown | Rest, ...], entries(type=1, length_at=2, length=2)
    ]
