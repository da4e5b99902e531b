# SPDX-License-Identifier: MIT
"""MSI-X structures that share a page: with another BAR, with virtio's registers, perhaps with others; and not."""

from __future__ import annotations

import msgspec
import pytest

from dom0kit.msi import pages
from dom0kit.pci.capabilities.msix import MsiX
from dom0kit.pci.capabilities.vendor import Virtio
from dom0kit.pci.function import Bar, BarKind, Function
from tests.pci import machines


def bar(index: int, address: int, size: int, kind: BarKind = BarKind.MEMORY32) -> Bar:
    return Bar(index=index, kind=kind, address=address, prefetchable=False, size=size)


def msix(table: int, pba: int, *, vectors: int = 8, table_bar: int = 0, pba_bar: int = 0) -> MsiX:
    return MsiX(
        0x70,
        enabled=False,
        masked=False,
        vectors=vectors,
        table_bar=table_bar,
        table_offset=table,
        pba_bar=pba_bar,
        pba_offset=pba,
    )


def function(address: str, bars: list[Bar], *capabilities: MsiX | Virtio) -> Function:
    return msgspec.structs.replace(machines.function(address), bars=tuple(bars), capabilities=tuple(capabilities))


def rules(*functions: Function) -> list[str]:
    return [finding.rule for finding in pages.check(functions)]


@pytest.mark.parametrize(
    ("table", "pba", "vectors"),
    [
        (0, 0x800, 8),  # QEMU's virtio: a page for both
        (0x2000, 0x3000, 29),  # QEMU's NVMe
        (0x1000, 0x1000 + 16 * 300, 300),  # pending bits right behind a table of two pages
        (0x800, 0, 8),  # pending bits first
    ],
)
def test_a_page_for_msix_alone(table: int, pba: int, vectors: int) -> None:
    assert rules(function("0000:01:00.0", [bar(0, 0xFE00_0000, 0x10000)], msix(table, pba, vectors=vectors))) == []


def test_what_lies_before_in_the_page() -> None:
    # As of the Coral Edge TPU: registers in the page, pending bits at 0x46068, table at 0x46800.
    found = pages.check([function("0000:01:00.0", [bar(2, 0xFE00_0000, 1 << 20)],
                                  msix(0x46800, 0x46068, vectors=128, table_bar=2, pba_bar=2))])  # fmt: skip
    assert [(each.rule, each.where) for each in found] == [("msi.offset-in-page", "pci:0000:01:00.0")]
    assert found[0].message == "the pending bits at BAR 2+0x46068: 0x68 bytes lie before it in its page"


def test_bars_below_a_page_share_it() -> None:
    table = function("0000:01:00.0", [bar(0, 0xFE00_0000, 0x800), bar(1, 0xFE00_0800, 0x100)], msix(0, 0x400))
    other = function("0000:01:00.1", [bar(3, 0xFE00_0C00, 0x400)])
    found = pages.check([table, other])
    assert [each.rule for each in found] == ["msi.shared-page"] * 2
    assert found[0].message == "the table at BAR 0+0x0 shares a page with BAR 1, BAR 3 of 0000:01:00.1"
    far = function("0000:01:00.1", [bar(3, 0xFE00_1000, 0x400), bar(4, 0xFE00_0C00, 0x100, BarKind.IO)])
    assert rules(function("0000:01:00.0", [bar(0, 0xFE00_0000, 0x800)], msix(0, 0x400)), far) == []
    unmeasured = msgspec.structs.replace(table.bars[1], size=None)
    assert rules(msgspec.structs.replace(table, bars=(table.bars[0], unmeasured))) == []


def test_virtio_registers() -> None:
    def virtio(structure: int, offset: int, index: int = 0) -> Virtio:
        return Virtio(0x40, 16, structure, index, 0, offset, 0x38, None)

    bars = [bar(0, 0xFE00_0000, 0x4000)]
    assert rules(function("0000:01:00.0", bars, msix(0x1000, 0x1800), virtio(1, 0x1FC8))) == ["msi.shared-page"] * 2
    assert rules(function("0000:01:00.0", bars, msix(0x1000, 0x1800), virtio(1, 0x2000), virtio(3, 0xFC8))) == []
    assert rules(function("0000:01:00.0", bars, msix(0x1000, 0x1800), virtio(5, 0x1900), virtio(1, 0x1900, 1))) == []


def test_a_bar_that_is_not_there() -> None:
    assert rules(function("0000:01:00.0", [], msix(0x10, 0x20))) == []
    assert rules(function("0000:01:00.0", [bar(0, 0, 0x100, BarKind.IO)], msix(0x10, 0x20))) == []
