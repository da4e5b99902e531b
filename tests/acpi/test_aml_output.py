# SPDX-License-Identifier: MIT
"""Reading what acpiexec prints: its forms as they were seen, and any text at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0kit.acpi import aml_output as output
from dom0kit.acpi.aml_output import Other, Pointer, RawEvaluation, Read, Unset

TRACE = b"""\
  exfield-0267 [00]  ExReadDataFromField                             : FieldRead [TO]:   Obj 0x55d2f958f920, Type 11, Buf 0x55d2f98698b0, ByteLen 8
  exfield-0270 [00]  ExReadDataFromField                             : FieldRead [FROM]: BitLen 2, BitOff 0, ByteOff 0
  exfldio-0287 [03]     ExAccessRegion                               : [READ] Region [SystemMemory:0], Width 4, ByteBase 0, Offset 0 at 00000000FED1F404
  exfldio-0583 [02]    ExFieldDatumIo                                : Value Read 0000000000000000, Width 4
  exfield-0429 [13]               ExWriteDataToField                 : FieldWrite [FROM]: Obj 0x7ff0fc001cc0 (Integer:1), Buf 0x7ff0fc001cd0, ByteLen 8
  exfield-0434 [13]               ExWriteDataToField                 : FieldWrite [TO]:   Obj 0x55d2f98699a0 (RegionField:11), BitLen 8, BitOff 0, ByteOff A
  exfldio-0287 [03]     ExAccessRegion                               : [READ] Region [SystemIO:1], Width 1, ByteBase 0, Offset 0 at 000000000000002F
  exfldio-0291 [28]                              ExAccessRegion      : [WRITE] Region [SystemIO:1], Width 1, ByteBase 0, Offset 0 at 000000000000002E
"""  # noqa: E501
READS = (
    Read(0, 0xFED1F404, 4, "0x55d2f958f920", False),
    # What a write reads first to keep the other bits of a register is no dependence.
    Read(1, 0x2E, 1, "0x55d2f98699a0", True),
)


def test_all_of_a_name() -> None:
    text = (
        b"Executing all objects with NameSeg: _STA\n"
        + TRACE
        + b"\\_SB_.PCI0.LPC_._STA             returned AE_OK\n"
        + b"Evaluation of \\_SB_.PCI0.LPC_._STA returned object 0x7f23, external buffer length 18\n"
        + b"  [Integer] = 000000000000000F\n\n"
        + b"\\_SB_.GONE._STA                  returned AE_NOT_FOUND\n"
        + b"\\_SB_.NONE._STA                  returned AE_OK\n"
        + b"No object was returned from evaluation of \\_SB_.NONE._STA\n"
        + b"Evaluated 3 names in the namespace\n"
    )
    assert list(output.evaluations(text)) == [
        RawEvaluation("\\_SB.PCI0.LPC._STA", "AE_OK", 15, READS),
        RawEvaluation("\\_SB.GONE._STA", "AE_NOT_FOUND", None, ()),
        RawEvaluation("\\_SB.NONE._STA", "AE_OK", None, ()),
    ]


def test_one_execution() -> None:
    failed = b"Evaluating \\X\n" + TRACE + b"Evaluation of \\X failed with status AE_NOT_FOUND\n"
    assert list(output.evaluations(failed)) == [RawEvaluation("\\X", "AE_NOT_FOUND", None, READS)]
    nothing = b"Evaluating \\_PIC\nNo object was returned from evaluation of \\_PIC\n"
    assert list(output.evaluations(nothing)) == [RawEvaluation("\\_PIC", "AE_OK", None, ())]


def test_buses_with_a_protocol_of_their_own() -> None:
    text = (
        b" evregion-0292 [29]   EvAddressSpaceDispatch : Handler 0x5 Address 000000000000002D [GenericSerialBus]\n"
        b" evregion-0292 [29]   EvAddressSpaceDispatch : Handler 0x5 Address 0000000000000060 [PCI_Config]\n"
        b"\\X._STA returned AE_OK\n"
    )
    assert [found.accesses for found in output.evaluations(text)] == [(Read(9, 0x2D, 1, "", False),)]


def test_a_package_of_everything() -> None:
    text = b"""\
Evaluation of \\P002 returned object 0x565540574d60, external buffer length 150
  [Package] Contains 5 Elements:
    [Package] Contains 4 Elements:
      [Object Reference] = 0x56554057a620 <Node>            Name DEV0 Device
      [String] Length 06 = "a\\"b\\\\c\\n"
      [Buffer] Length 14 =\x20
    0000: 00 01 02 03 04 05 06 07 08 09 0A 0B 0C 0D 0E 0F  // ................
    0010: 10 11 12 13                                      // ....
      [Buffer] Length 03 =     0000: 01 02 03                                         // ...
    [Package] Contains 0 Elements:
    [Null Object] (Type=0)
    [Buffer] Length 00 =\x20
    [Power] 1

"""
    assert list(output.evaluations(text)) == [
        RawEvaluation(
            "\\P002",
            "AE_OK",
            [
                [Pointer("0x56554057a620", "DEV0"), 'a"b\\c\n', bytes(range(20)), b"\1\2\3"],
                [],
                Unset(),
                b"",
                Other("[Power] 1"),
            ],
            (),
        )
    ]


def test_sections_and_breakpoints() -> None:
    text = b"load messages\n- all _CRS\none\n**break** Executed AML\n\n% go\ntwo\n- go\n- all _STA\nthree\n"
    assert [(name, body) for name, body in output.sections(text)] == [
        ("", b"load messages\n"),
        ("all _CRS", b"\none\n**break** Executed AML\n\n% go\ntwo\n- go\n"),
        ("all _STA", b"\nthree\n"),
    ]


def test_the_namespace() -> None:
    text = (
        b"                       \\_SB.PCI0 Device       0x55cb95650480 001 Notify Object: 0x55cb956552c0\n"
        b"\\_SB.PCI0.P0P2.BMD0.BPD0.PXH0._ADR Integer      0x5610c08d3810 001 = 0000000000000000\n"
    )
    assert [(found.path, found.type, found.pointer, found.detail) for found in output.objects(text)] == [
        ("\\_SB.PCI0", "Device", "0x55cb95650480", "Notify Object: 0x55cb956552c0"),
        ("\\_SB.PCI0.P0P2.BMD0.BPD0.PXH0._ADR", "Integer", "0x5610c08d3810", "= 0000000000000000"),
    ]


@pytest.mark.parametrize(
    ("padded", "trimmed"),
    [("\\_SB_.PCI0", "\\_SB.PCI0"), ("\\_SB_.EC__._Q0_", "\\_SB.EC._Q0"), ("\\____", "\\_"), ("\\A_B_", "\\A_B")],
)
def test_padding_is_trimmed(padded: str, trimmed: str) -> None:
    assert output.trimmed(padded) == trimmed


def test_a_flood_keeps_what_matters() -> None:
    end = b"\\_SB_.X___._STA   returned AE_OK\n"
    flood = TRACE * 100 + b"ACPI Debug:  spam\n" * 100 + end
    small = output.compressed(flood)
    assert len(small) < 2 * len(TRACE)
    assert list(output.evaluations(small)) == list(output.evaluations(flood))
    assert [found.accesses for found in output.evaluations(small)] == [READS]


_LINES = st.sampled_from(
    [
        *TRACE.splitlines(),
        b"\\X._STA returned AE_OK",
        b"Evaluation of \\X._STA returned object 0x1, external buffer length 1",
        b"Evaluation of \\X._STA failed with status AE_X",
        b"No object was returned from evaluation of \\X",
        b"  [Package] Contains 3 Elements:",
        b"  [Package] Contains 99999999999 Elements:",
        b"  [Integer] = zz",
        b"  [Integer] = 10",
        b"  [Buffer] Length 14 = ",
        b"    0000: 00 01 02",
        b'  [String] Length 02 = "',
        b"  [Object Reference] = 0x1",
        b"- all _STA",
        b"% go",
        b"",
    ]
)


@given(st.lists(_LINES | st.binary(max_size=40), max_size=30))
def test_any_text_is_read(lines: list[bytes]) -> None:
    text = b"\n".join(lines)
    for _, section in output.sections(text):
        list(output.evaluations(section))
        output.objects(section)
        output.dumped("0x1", section)
    assert len(output.compressed(text)) <= len(text) + 200 * len(lines)
