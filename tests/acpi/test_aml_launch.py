# SPDX-License-Identifier: MIT
"""What the interpreter is given, in which order, and when its processes start and end."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from dom0kit.acpi import aml_launch
from dom0kit.acpi.aml_launch import SECONDS, Launch, usable_tables
from dom0kit.acpi.aml_session import Session
from dom0kit.address import Sbdf
from dom0kit.source.interface import RawTable

CONFIG = {Sbdf(0, 0, 0, 0): b"\x86\x80" + bytes(254)}


def table(name: str, body: bytes = b"", *, length: int | None = None, dynamic: bool = False) -> RawTable:
    """One whose bytes add up to 0, of the signature that its name begins with."""
    length = 36 + len(body) if length is None else length
    data = bytearray(name[:4].encode() + length.to_bytes(4, "little") + bytes(28) + body)
    data[9] = -sum(data) & 0xFF
    return RawTable(name, bytes(data), dynamic)


def given(*tables: RawTable) -> tuple[list[str], list[str]]:
    """Names of the tables that are usable, and ids of the findings."""
    usable, findings = usable_tables(tables)
    return [table.name for table in usable], [finding.rule for finding in findings]


def test_the_dsdt_comes_first_and_the_others_stay_in_order() -> None:
    tables = [table(name) for name in ("APIC", "SSDT1", "DSDT", "SSDT2", "OEM1")]
    assert given(*tables) == (["DSDT", "APIC", "SSDT1", "SSDT2", "OEM1"], [])
    assert usable_tables(tables)[0] == [tables[2], tables[0], tables[1], *tables[3:]]


def test_what_the_interpreter_makes_itself_or_must_not_see_is_left_out() -> None:
    assert given(*map(table, ("DSDT", "RSDP", "RSD ", "RSDT", "XSDT", "FACS", "FACP", "MSDM"))) == (["DSDT"], [])
    assert given(table("DSDT"), table("SSDT9", dynamic=True)) == (["DSDT"], [])


@pytest.mark.parametrize("length", [0, 35, 41, 0xFFFFFFFF])
def test_a_table_with_a_false_length_is_left_out_and_told_where_it_holds_aml(length: int) -> None:
    body = bytes(4)
    for name in ("SSDT3", "PSDT"):
        usable, findings = usable_tables([table("DSDT"), table(name, body, length=length)])
        assert [each.name for each in usable] == ["DSDT"]
        (told,) = findings
        assert (told.rule, told.where) == ("aml.table-rejected", f"table:{name}")
        assert told.message == f"its header says {length} of 40 bytes"
    assert given(table("DSDT"), table("APIC", body, length=length)) == (["DSDT"], [])
    assert given(table("DSDT", body, length=length), table("SSDT")) == ([], ["aml.table-rejected", "aml.no-dsdt"])


@pytest.mark.parametrize("size", [0, 3, 8, 35])
def test_a_table_without_a_whole_header_is_left_out(size: int) -> None:
    cut = RawTable("SSDT", (b"SSDT" + size.to_bytes(4, "little") + bytes(28))[:size])
    assert given(table("DSDT"), cut)[0] == ["DSDT"]


def test_of_two_dsdts_the_first_counts() -> None:
    first = table("DSDT1", b"\x01")
    assert usable_tables([first, table("DSDT2", b"\x02")]) == ([first], [])


def test_lengths_and_checksums_are_made_true() -> None:
    whole = table("DSDT", b"abc")
    longer = RawTable("DSDT", whole.data + b"behind")
    wrong = RawTable("DSDT", whole.data[:9] + bytes((whole.data[9] ^ 0x55,)) + whole.data[10:])
    for each in (longer, wrong):
        (usable,), findings = usable_tables([each])
        assert usable == whole
        assert findings == []


class Waiting(Session):
    """In place of a `Session`: notes what it was made with, and that it ended."""

    made: list[Waiting]

    def __init__(self, program: str, tables: Sequence[RawTable], deadline: float, *, initialise: bool = True) -> None:
        self.tables = [table.name for table in tables]
        self.deadline = deadline
        self.initialise = initialise
        self.ended = False
        self.made.append(self)

    def __exit__(self, *_: object) -> None:
        self.ended = True


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Waiting]:
    """The sessions made; the clock stands at 1000."""
    monkeypatch.setattr(Waiting, "made", [], raising=False)
    monkeypatch.setattr(aml_launch, "Session", Waiting)
    monkeypatch.setattr("dom0kit.acpi.aml_launch.shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr("dom0kit.acpi.aml_launch.time.monotonic", lambda: 1000.0)
    return Waiting.made


def test_two_sessions_wait_where_config_space_is_known(made: list[Waiting]) -> None:
    with Launch([table("DSDT")], CONFIG) as launch:
        launch.start()
        launch.start()
        assert [each.tables for each in made] == [["DSDT", "DKCB", "DKFL"]] * 2
        first, spare = made
        assert launch.first() is first
        assert launch.spare() is spare
        assert len(made) == 2
        assert launch.first() is made[2]
        assert launch.spare() is made[3]
        assert first.deadline == made[2].deadline < spare.deadline == made[3].deadline == 1000 + SECONDS
        assert first.deadline > 1000 + SECONDS / 2
    assert [each.ended for each in made] == [False] * 4, "whoever took one ends it"


def test_one_waits_where_it_is_not(made: list[Waiting]) -> None:
    with Launch([table("DSDT")], {Sbdf(0, 0, 0, 0): b""}) as launch:
        launch.start()
        assert [each.tables for each in made] == [["DSDT"]]


def test_what_still_waits_is_ended(made: list[Waiting]) -> None:
    with Launch([table("DSDT")], CONFIG) as launch:
        launch.start()
    assert [each.ended for each in made] == [True, True]


def test_nothing_starts_without_a_dsdt(made: list[Waiting]) -> None:
    launch = Launch([table("SSDT")], CONFIG)
    launch.start()
    assert not launch.possible
    assert not launch.tables
    assert not made
    assert [finding.rule for finding in launch.findings] == ["aml.no-dsdt"]


def test_nothing_starts_without_an_interpreter(made: list[Waiting], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dom0kit.acpi.aml_launch.shutil.which", lambda name: None)
    launch = Launch([table("SSDT", length=7)], CONFIG)
    launch.start()
    assert not launch.possible
    assert not made
    assert [finding.rule for finding in launch.findings] == ["aml.no-interpreter"], "what else is wrong does not matter"
    assert not Launch([table("DSDT")], CONFIG).possible


def test_no_session_outlasts_the_launch(made: list[Waiting], monkeypatch: pytest.MonkeyPatch) -> None:
    launch = Launch([table("DSDT")], {}, seconds=10)
    monkeypatch.setattr("dom0kit.acpi.aml_launch.time.monotonic", lambda: 1008.0)
    assert launch.remaining == 2
    launch.session(1, initialise=False)
    launch.session(5)
    assert [(each.deadline, each.initialise) for each in made] == [(1009, False), (1010, True)]
