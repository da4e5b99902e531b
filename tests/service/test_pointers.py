# SPDX-License-Identifier: MIT
"""Where dom0 found the ACPI tables: the kernel's log, EFI's table, and what is neither."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from dom0kit.source.pointers import Pointers, acpi_pointers

LOG = b"""\
BIOS-e820: [mem 0x0000000000000000-0x000000000009fbff] usable
ACPI: RSDP 0x00000000000F5AE0 000014 (v00 BOCHS )
ACPI: RSDT 0x000000003FFE2313 000038 (v01 BOCHS  BXPC     00000001 BXPC 00000001)
ACPI: FACP 0x000000003FFE20EB 0000F4 (v03 BOCHS  BXPC     00000001 BXPC 00000001)
user said: ACPI: RSDP 0x1234 000014
"""


def test_the_log(tmp_path: Path) -> None:
    assert acpi_pointers(str(tmp_path), LOG) == Pointers(frozenset({0xF5AE0}), frozenset({0x3FFE2313}))


def test_firmware_says_it_too(tmp_path: Path) -> None:
    (tmp_path / "sys/firmware/efi").mkdir(parents=True)
    (tmp_path / "sys/firmware/efi/systab").write_text(
        "MPS=0x1\nACPI20=0x7ff9e014\nACPI=0x7ff9e000\nSMBIOS=0x7ff00000\n"
    )
    assert acpi_pointers(str(tmp_path), b"") == Pointers(frozenset({0x7FF9E014, 0x7FF9E000}), frozenset())


@given(st.binary(max_size=200).map(lambda text: b"ACPI: RSDP 0x" + text))
def test_any_log(log: bytes) -> None:
    assert len(acpi_pointers("/no/such/root", log).rsdp) <= 1
