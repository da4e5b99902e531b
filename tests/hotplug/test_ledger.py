# SPDX-License-Identifier: MIT
"""The ledger: what is written is read again; what is damaged, somebody else's or of another boot is not believed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dom0kit.address import Gsi, Sbdf
from dom0kit.hotplug.ledger import Entry, KnownIoapic, Ledger, LineOf, Store
from dom0kit.hotplug.policy import Action

LEDGER = Ledger(
    boot="this",
    functions=(
        Entry(
            function=Sbdf(0, 1, 0, 1),
            incarnation=7,
            vendor=0x8086,
            device=0x10D3,
            physical=Sbdf(0, 1, 0, 0),
            action=Action.GIVE,
            domain=2,
            table=0xFEBF0000,
        ),
    ),
    lines=(LineOf(gsi=Gsi(20), domain=2),),
    ioapics=(KnownIoapic(address=0xFEC10000, gsi_base=Gsi(24), path="\\_SB.APIC"),),
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    assert store.load("this") == (None, "")
    store.save(LEDGER)
    store.save(LEDGER)
    assert store.load("this") == (LEDGER, "")
    assert store.load("another") == (None, "")
    assert os.listdir(tmp_path) == ["hotplug.json"]
    assert (tmp_path / "hotplug.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"boot": "this", "functions": [{}]}', b"\xff" * 9, b"[" * 10_000])
def test_what_is_damaged(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "hotplug.json").write_bytes(data)
    (tmp_path / "hotplug.json").chmod(0o600)
    ledger, why = Store(str(tmp_path)).load("this")
    assert ledger is None
    assert "is damaged: " in why


def test_what_others_may_write(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.save(LEDGER)
    (tmp_path / "hotplug.json").chmod(0o666)
    ledger, why = store.load("this")
    assert ledger is None
    assert "others may write it" in why


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "hotplug.json").symlink_to("elsewhere")
    ledger, why = Store(str(tmp_path)).load("this")
    assert ledger is None
    assert "cannot be read" in why
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "hotplug.json.new").symlink_to("elsewhere")
    Store(str(tmp_path)).save(LEDGER)
    assert os.listdir(tmp_path / "elsewhere") == []
    assert Store(str(tmp_path)).load("this") == (LEDGER, "")
