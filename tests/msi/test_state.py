# SPDX-License-Identifier: MIT
"""MSI and MSI-X state from config space made here, and of every recorded function."""

from __future__ import annotations

import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0kit import serial
from dom0kit.address import Sbdf
from dom0kit.msi.messages import MessageFormat
from dom0kit.msi.state import InterruptMode, MsiState, observe, reading
from dom0kit.pci.config_space import decode_function
from dom0kit.pci.function import Function
from dom0kit.source.interface import RawFunction
from tests.ioapic.tables import local_apic, madt, table

HERE = Sbdf.parse("0000:02:00.0")


def function(
    *capabilities: bytes, command: int = 0x0406, pin: int = 1, bar: int = 0xFEB00000, **changes: Any
) -> Function:
    """An endpoint with these capabilities from 0x40 on, decoded."""
    config = bytearray(256)
    struct.pack_into("<HHHH", config, 0, 0x8086, 0x1234, command, 0x10 if capabilities else 0)
    struct.pack_into("<I", config, 0x08, 0x02000000)
    struct.pack_into("<I", config, 0x10, bar)
    config[0x34] = 0x40 if capabilities else 0
    config[0x3D] = pin
    at = 0x40
    for number, capability in enumerate(capabilities):
        following = at + 0x20 if number + 1 < len(capabilities) else 0
        config[at : at + len(capability)] = capability
        config[at + 1] = following
        at += 0x20
    decoded, _ = decode_function(RawFunction(HERE, bytes(config)))
    return msgspec.structs.replace(decoded, **changes)


def msi(
    *, enabled: bool = True, capable: int = 0, allocated: int = 0, address: int = 0xFEE01000, data: int = 0x31
) -> bytes:
    control = enabled | capable << 1 | allocated << 4 | 0x80 | 0x100
    return struct.pack("<BBHQHHII", 5, 0, control, address, data, 0, 0x5, 0x2)


def msix(*, enabled: bool = True, masked: bool = False, vectors: int = 8, bar: int = 0) -> bytes:
    control = enabled << 15 | masked << 14 | vectors - 1
    return struct.pack("<BBHII", 0x11, 0, control, 0x2000 | bar, 0x3000 | bar)


def state(*functions: Function, **options: Any) -> tuple[MsiState, list[str]]:
    states, findings = observe(functions, **options)
    assert serial.decode(serial.encode(states), tuple[MsiState, ...]) == states
    return states[0], [finding.rule for finding in findings]


@pytest.mark.parametrize(
    ("one", "mode"),
    [
        (function(command=0x0006), InterruptMode.INTX),
        (function(command=0x0406), InterruptMode.NONE),
        (function(msi(), command=0x0006), InterruptMode.MSI),
        (function(msi(enabled=False), command=0x0006), InterruptMode.INTX),
        (function(msi(enabled=False), msix()), InterruptMode.MSIX),
        (function(msix(enabled=False), pin=0, command=6), InterruptMode.NONE),
    ],
)
def test_which_mode(one: Function, mode: InterruptMode) -> None:
    found, rules = state(one)
    assert (found.mode, rules) == (mode, [])


def test_what_has_no_interrupt_is_left_out() -> None:
    assert observe([function(pin=0)]) == ((), ())


def test_the_message_and_the_vectors() -> None:
    found, _ = state(function(msi(capable=3, allocated=2)))
    assert found.msi is not None
    assert found.msi.message is not None
    assert (found.msi.vectors_capable, found.msi.vectors_allocated) == (8, 4)
    assert (found.msi.message.destination, found.msi.message.vector) == (1, 0x31)
    assert (found.msi.masked, found.msi.pending) == (5, 2)
    remapped, _ = state(function(msi(address=0xFEE00018, data=1)), format=MessageFormat.VTD)
    assert remapped.msi is not None
    assert remapped.msi.message is not None
    assert remapped.msi.message.remap_index == 1
    half, _ = state(function(msi(enabled=False, data=0)))
    assert half.msi is not None
    assert half.msi.message is not None
    unwritten, _ = state(function(msi(enabled=False, address=0, data=0)))
    assert unwritten.msi is not None
    assert unwritten.msi.message is None


def test_where_the_table_lies() -> None:
    found, _ = state(function(msix(masked=True)))
    assert found.msix is not None
    assert (found.msix.vectors, found.msix.masked) == (8, True)
    assert (found.msix.table_address, found.msix.pba_address) == (0xFEB02000, 0xFEB03000)
    elsewhere, _ = state(function(msix(bar=3)))
    assert elsewhere.msix is not None
    assert (elsewhere.msix.table_bar, elsewhere.msix.table_address) == (3, None)
    ports, _ = state(function(msix(), bar=0xE001))
    assert ports.msix is not None
    assert ports.msix.table_address is None


def test_what_is_wrong_with_an_enabled_message() -> None:
    assert state(function(msi(), msix()))[1] == ["msi.both-enabled"]
    assert state(function(msi(address=0x1000)))[1] == ["msi.not-an-interrupt"]
    assert state(function(msi(address=0, data=0)))[1] == ["msi.not-an-interrupt"]
    assert state(function(msi(address=0x1000)), judge=False)[1] == []
    assert state(function(msi(data=0x1F)))[1] == ["msi.vector"]
    assert state(function(msi(data=0x20)))[1] == []
    assert state(function(msi(data=0x400)))[1] == ["msi.delivery-mode"]
    assert state(function(msi(data=0x131)))[1] == []
    assert state(function(msi(), command=2))[1] == ["msi.no-bus-master"]
    assert state(function(msi(enabled=False, address=0x1000), command=2))[1] == []


def test_against_the_kernel() -> None:
    two: dict[str, Any] = {"msi_irqs": (40, 41)}
    assert state(function(msi(capable=1, allocated=1), **two), kernel=True)[1] == []
    assert state(function(msi(capable=1), **two), kernel=True)[1] == ["msi.kernel-differs"]
    assert state(function(msix(vectors=1), **two), kernel=True)[1] == ["msi.kernel-differs"]
    assert state(function(msi(enabled=False), **two), kernel=True)[1] == ["msi.kernel-differs"]
    assert state(function(msi()), kernel=True)[1] == ["msi.kernel-differs"]
    assert state(function(msi()))[1] == []
    assert state(function(msi(), power_state="D3hot"), kernel=True)[1] == []


def test_how_to_read_messages() -> None:
    cpu = madt(local_apic(0, 0))
    dmar, ivrs = table("DMAR", bytes(12)), table("IVRS", bytes(12))
    plain, vtd, amd = MessageFormat.COMPATIBILITY, MessageFormat.VTD, MessageFormat.AMD_VI
    for tables, chips, expected in (
        ([cpu], [], (plain, True)),
        ([cpu], ["PCI-MSI"], (plain, True)),
        ([cpu], ["IR-PCI-MSI"], (plain, False)),
        ([cpu, dmar], [], (vtd, True)),
        ([cpu, ivrs], [], (plain, False)),
        ([cpu, ivrs], ["PCI-MSI"], (plain, True)),
        ([cpu, ivrs], ["IO-APIC", "IR-PCI-MSI-0000:00:01.0"], (amd, True)),
        ([cpu, dmar], ["xen-pirq"], (vtd, False)),
        ([cpu, table("RMAD", bytes(12))], ["xen-pirq"], (vtd, False)),
        ([cpu, ivrs], ["xen-pirq"], (amd, False)),
        ([cpu, ivrs], ["xen-dyn", "PCI-MSI"], (plain, False)),
        ([cpu], ["xen-pirq"], (plain, False)),
        ([madt()], [], (plain, False)),
        ([], [], (plain, False)),
    ):
        assert reading(tables, chips) == expected


@given(st.binary(max_size=256), st.sampled_from(MessageFormat), st.booleans())
def test_any_config_space(config: bytes, format: MessageFormat, kernel: bool) -> None:
    decoded, _ = decode_function(RawFunction(HERE, config))
    states, _ = observe([decoded], format, kernel=kernel)
    assert serial.decode(serial.encode(states), tuple[MsiState, ...]) == states
