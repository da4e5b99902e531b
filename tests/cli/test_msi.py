# SPDX-License-Identifier: MIT
"""``dom0kit msi dump``: a function's capabilities and its table, as recorded and as on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dom0kit.address import Sbdf
from dom0kit.cli import FINE, UNUSABLE, USAGE, hardware, main, msi
from dom0kit.hypercall.linux import Linux, LinuxRefused
from dom0kit.msi.messages import MessageFormat, compose, compose_pirq, compose_remapped, decode
from dom0kit.source.recognise import open_source

Q35 = str(Path(__file__).parent.parent.parent / "dom0kit" / "recordings" / "qemu-q35.d0k")


def test_recorded(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["msi", "dump", "02:00.0", "--from", Q35]) == FINE
    assert capsys.readouterr().out == (
        "0000:02:00.0: pcieport, interrupts by MSI, Linux IRQ 28\n\n"
        "MSI\n  enabled  1 of 1 message\n  message  0xfee002b8 0x0000  remapped, index 21\n"
    )
    assert main(["msi", "dump", "0000:01:00.0", "--from", Q35]) == FINE
    assert capsys.readouterr().out == (
        "0000:01:00.0: nvme, interrupts by MSI-X, Linux IRQ 38-40\n"
        "a recording does not hold the entries of the MSI-X table\n\n"
        "MSI-X\n  enabled       29 entries\n  table         BAR 0+0x2000  at 0xfda02000\n"
        "  pending bits  BAR 0+0x3000  at 0xfda03000\n"
    )


def this_machine(monkeypatch: pytest.MonkeyPatch, words: tuple[int, ...] | str) -> list[tuple[object, ...]]:
    """Q35 as this machine, whose BARs read as these words, or not at all; and what was read."""
    asked: list[tuple[object, ...]] = []

    def bar(self: Linux, function: Sbdf, bar: int, offset: int, count: int) -> tuple[int, ...]:
        asked.append((str(function), bar, offset, count))
        if isinstance(words, str):
            raise LinuxRefused(words)
        return words

    monkeypatch.setattr(msi, "open_machine", lambda options: open_source(Q35))
    monkeypatch.setattr(Linux, "bar", bar)
    return asked


def test_the_table_of_this_machine(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    words = (0xFEE0_1000, 0, 0x41, 0, 0xFEE0_0298, 0, 0, 1, *(0, 0, 0, 1) * 27)
    asked = this_machine(monkeypatch, words)
    assert main(["msi", "dump", "01:00.0"]) == FINE
    assert asked == [("0000:01:00.0", 0, 0x2000, 29 * 4)]
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[-4:] == [
        "MSI-X table: entry, address, data",
        "0 0xfee01000 0x0041 vector 0x41 to APIC id 1, fixed",
        "1 0xfee00298 0x0000 remapped, index 20 masked",
        "2-28 not written masked",
    ]
    assert main(["msi", "dump", "01:00.0", "--format", "json"]) == FINE
    found = json.loads(capsys.readouterr().out)
    assert found["state"]["sbdf"] == "0000:01:00.0"
    assert [(row["message"]["vector"], row["masked"]) for row in found["table"][:2]] == [(0x41, False), (None, True)]


def test_a_table_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    this_machine(monkeypatch, "BAR 0 of 0000:01:00.0: Operation not permitted")
    assert main(["msi", "dump", "01:00.0"]) == FINE
    out = capsys.readouterr().out
    assert "the table cannot be read: BAR 0 of 0000:01:00.0: Operation not permitted\n" in out
    assert "MSI-X table" not in out


def test_tables_of_a_whole_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    from dom0kit.observation import observe

    asked = this_machine(monkeypatch, (0xFEE0_1000, 0, 0x41, 0) * 29)
    platform = observe(open_source(Q35), aml=False)
    remarks: list[str] = []
    tables = hardware.live_tables(platform, remarks)
    assert set(tables) == {state.sbdf for state in platform.msi if state.msix is not None and state.msix.enabled}
    assert len(asked) == len(tables) == 8
    assert remarks == []
    this_machine(monkeypatch, "no")
    assert hardware.live_tables(platform, remarks) == {}
    assert remarks == ["vectors of 8 MSI-X tables are not known: no"]


def test_where_messages_go() -> None:
    from dom0kit.cli.text.msi import goes

    assert goes(compose(3, 0x51)) == "vector 0x51 to APIC id 3, fixed"
    assert goes(compose_remapped(9, MessageFormat.VTD, 2)) == "remapped, index 11"
    assert goes(compose_pirq(77)) == "pIRQ 77"
    assert goes(decode(0x1000, 0x31, MessageFormat.COMPATIBILITY)) == "no interrupt: it is written to memory"
    assert goes(decode(0xFEE0_3004, 0x131, MessageFormat.COMPATIBILITY)) == "vector 0x31 to logical 3, lowest priority"


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        ([], USAGE, "msi: which verb?"),
        (["dumb", "0:0.0"], USAGE, "msi: there is no verb 'dumb', did you mean 'dump'?"),
        (["dump", "1f.3", "--from", Q35], USAGE, "msi dump: '1f.3' is not a PCI address like 0000:00:1f.3"),
        (["dump", "00:00.0", "--from", Q35], UNUSABLE, f"{Q35}: 0000:00:00.0 has neither MSI nor MSI-X"),
        (["dump", "7f:00.0", "--from", Q35], UNUSABLE, f"{Q35}: there is no function 0000:7f:00.0"),
    ],
)
def test_wrong_words(arguments: list[str], status: int, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["msi", *arguments]) == status
    assert capsys.readouterr().err.startswith(f"dom0kit: {sentence}")
