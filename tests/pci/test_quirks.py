# SPDX-License-Identifier: MIT
"""The data of known devices: every file fits its schema, and what does not fit is an error."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

import dom0kit.pci
from dom0kit.pci import quirks
from dom0kit.pci.quirks import (
    AliasFile,
    FaultFile,
    IntxFile,
    Isolates,
    IsolationFile,
    MachineFile,
    MsiFile,
    ResetFile,
    parse,
)
from tests.pci.machines import function

FOLDER = Path(dom0kit.pci.__file__).parent / "quirks"
GOOD = """
[[isolation]]
about = "a port"
vendor = 0x1234
devices = ["0001-0003", "00ff"]
kinds = ["root port"]
isolates = "kernel"
source = "a datasheet"
"""


FILES: dict[str, type[Any]] = {
    "isolation": IsolationFile,
    "alias": AliasFile,
    "reset": ResetFile,
    "intx": IntxFile,
    "msi": MsiFile,
    "faults": FaultFile,
    "machines": MachineFile,
}


def test_every_file_fits_its_schema() -> None:
    assert {path.stem for path in FOLDER.glob("*.toml")} == FILES.keys()
    for name, type in FILES.items():
        parse((FOLDER / f"{name}.toml").read_bytes(), type)


def test_every_quirk_says_where_it_is_from() -> None:
    entries = [
        entry for path in FOLDER.glob("*.toml") for kind in tomllib.loads(path.read_text()).values() for entry in kind
    ]
    assert len(entries) >= 100
    assert all(entry["about"] and entry["source"] for entry in entries)


def test_a_later_revision_may_be_without_it() -> None:
    quirk = quirks.broken_ats().of(function("00:01.0", vendor=0x8086, device=0x1452))[0]
    assert quirk.fits(function("00:01.0", revision=0x1F))
    assert not quirk.fits(function("00:01.0", revision=0x20))


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.toml")), ids=lambda path: path.stem)
def test_the_part_of_toml_that_the_files_keep_to_reads_as_tomllib_does(path: Path) -> None:
    text = path.read_text()
    assert parse(text.encode(), dict[str, Any]) == tomllib.loads(text)


@pytest.mark.parametrize(
    "line", ["source", "source = 'a datasheet'", "[table]", 'a.b = "c"', "x = 1979-05-27", "x = [1, 2", 'x = 1 # a "b"']
)
def test_other_toml_is_an_error(line: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse((GOOD + line + "\n").encode(), dict[str, Any])


def test_ids_match_as_ranges_and_in_the_order_of_the_file() -> None:
    (quirk,) = parse(GOOD.encode(), IsolationFile).isolation
    index = quirks.Index([quirk])
    assert quirk.isolates is Isolates.KERNEL
    for device, hit in ((0, False), (1, True), (3, True), (4, False), (0xFF, True)):
        assert bool(index.of(function("00:01.0", vendor=0x1234, device=device))) is hit
    assert index.of(function("00:01.0", vendor=0x1235, device=1)) == ()
    zhaoxin = quirks.isolation().of(function("00:01.0", vendor=0x1D17, device=0x0721))
    assert [one.isolates for one in zhaoxin] == [Isolates.HARDWARE, Isolates.NO]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("devices =", "device ="),
        ("isolates =", "isolate ="),
        ('"kernel"', '"kernal"'),
        ('"root port"', '"rootport"'),
        ("0x1234", "0x12345"),
        ("0x1234", '"1234"'),
        ('"0001-0003"', '"0003-0001"'),
        ('"00ff"', '"ff"'),
        ('"00ff"', '"00FF"'),
        ('["0001-0003", "00ff"]', "[]"),
        ('source = "a datasheet"', ""),
        ('source = "a datasheet"', 'source = ""'),
        ("[[isolation]]", "[[isolations]]"),
        ('about = "a port"', 'about = "a port'),
    ],
)
def test_a_slip_is_an_error(old: str, new: str) -> None:
    assert old in GOOD
    parse(GOOD.encode(), IsolationFile)
    with pytest.raises(ValueError, match=r"."):
        parse(GOOD.replace(old, new).encode(), IsolationFile)


@pytest.mark.parametrize(
    "alias",
    [
        "",
        "functions = [8]",
        'addresses = ["xx.0"]',
        'functions = [0]\nsubsystems = ["9005-02bb"]',
        "all_devices = [-1]",
    ],
)
def test_an_alias_must_be_one(alias: str) -> None:
    entry = f'[[alias]]\nabout = "a"\nvendor = 1\ndevices = ["any"]\nsource = "s"\n{alias}\n'
    others = "express_bridge = []\nproxy = []\n"
    with pytest.raises(ValueError, match=r"."):
        parse((others + entry).encode(), AliasFile)
    parse((others + entry.replace(alias, "") + 'addresses = ["1f.7"]').encode(), AliasFile)


def test_aliases_are_ids_on_the_bus() -> None:
    def devfns(address: str, vendor: int, device: int) -> set[int]:
        one = function(address, vendor=vendor, device=device)
        return {devfn for quirk in quirks.aliases().of(one) for devfn in quirk.devfns(one.sbdf.devfn)}

    assert devfns("01:02.0", 0x1B4B, 0x9230) == {0x11}
    assert devfns("01:02.1", 0x1B4B, 0x9230) == set()
    assert devfns("01:00.0", 0x8086, 0x2260) == {0x80, 0x88, 0x93}
    assert devfns("01:00.0", 0x8086, 0x2954) == {d << 3 | f for d in range(32) for f in range(5)} - {0}


def test_a_machine_is_known_by_parts_of_its_names() -> None:
    names = {"system": "LENOVO", "product": "81WE", "version": "IdeaPad 3 15IIL05", "board": "LENOVO x", "firmware": ""}
    (found,) = [quirk for quirk in quirks.machines() if quirk.fits(**names)]
    assert found.wrong is quirks.Wrong.MAP
    assert not any(quirk.fits(**(names | {"version": "IdeaPad 3 15ITL05"})) for quirk in quirks.machines())
    nothing = dict.fromkeys(names, "")
    assert not any(quirk.fits(**nothing) for quirk in quirks.machines())
    with pytest.raises(ValueError, match="name of the machine"):
        parse(b'[[machine]]\nabout = "all"\nwrong = "map"\nsource = "s"\n', MachineFile)
