# SPDX-License-Identifier: MIT
"""A recording gives back what was recorded, byte for byte but for secrets, and nothing in one can do harm."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import tarfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dom0kit.address import Sbdf
from dom0kit.source import contents
from dom0kit.source.errors import UnreadableSource, UnwritableRecording
from dom0kit.source.fingerprint import fingerprint
from dom0kit.source.in_memory import MemorySource
from dom0kit.source.interface import RawFunction, RawTable, SourceKind
from dom0kit.source.recognise import combine, open_source
from dom0kit.source.recording import manifest_of, read_recording, record, recording_bytes
from dom0kit.source.redaction import redacted
from tests.corpus import acpi_folders, lspci_dumps, needs_corpus
from tests.source import machine


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return machine.build(tmp_path / "machine")


@pytest.fixture
def archive(root: Path, tmp_path: Path) -> Path:
    record(machine.source(root), str(tmp_path / "m.d0k"))
    return tmp_path / "m.d0k"


def repack(archive: Path, change: dict[str, bytes | None]) -> bytes:
    """The archive with members replaced, added or (None) left out, packed by the standard library."""
    packed = io.BytesIO()
    with tarfile.open(archive) as old, tarfile.open(fileobj=packed, mode="w:gz", format=tarfile.GNU_FORMAT) as new:
        members = {member.name: old.extractfile(member).read() for member in old if member.isfile()}  # type: ignore[union-attr]
        for name, data in (members | change).items():
            if data is not None:
                member = tarfile.TarInfo(name)
                member.size = len(data)
                new.addfile(member, io.BytesIO(data))
    return packed.getvalue()


def test_a_recording_gives_back_what_was_recorded_but_for_secrets(root: Path, archive: Path) -> None:
    source = machine.source(root)
    replayed = open_source(archive)
    assert replayed.kind is SourceKind.RECORDING
    assert not replayed.is_live
    assert replayed.findings == ()
    assert machine.everything(replayed) == machine.everything(redacted(source)[0])
    changed = [a.name for a, b in zip(source.tables(), replayed.tables(), strict=True) if a != b]
    assert changed == ["DSDT", "MSDM", "NFIT", "iBFT"]
    for before, after in zip(source.functions(), replayed.functions(), strict=True):
        assert before.sbdf == after.sbdf
        assert before.attributes == after.attributes
        assert len(before.config) == len(after.config)
        different = [at for at, (a, b) in enumerate(zip(before.config, after.config, strict=True)) if a != b]
        assert set(different) <= {*range(0x84, 0x88), *range(0x144, 0x14C)}
        assert bool(different) == (str(before.sbdf) == "0000:01:00.0")
        assert not any(after.config[0x84:0x88]), "the last four bytes of vital product data that somebody read"
    for path in ("proc/iomem", "proc/ioports", "proc/cpuinfo", "sys/kernel/irq/24/hwirq", contents.MEMORY_BLOCKS):
        assert replayed.file(path) == source.file(path) is not None
    assert replayed.names("sys/kernel/irq") == source.names("sys/kernel/irq") == ["24"]


def test_two_recordings_of_the_same_tree_are_the_same_bytes(root: Path, archive: Path, tmp_path: Path) -> None:
    record(machine.source(root), str(tmp_path / "again.d0k"))
    assert (tmp_path / "again.d0k").read_bytes() == archive.read_bytes()
    other = machine.build(tmp_path / "other")
    record(machine.source(other), str(tmp_path / "other.d0k"))
    assert (tmp_path / "other.d0k").read_bytes() == archive.read_bytes()


def test_no_secret_is_in_a_recording(archive: Path) -> None:
    unpacked = gzip.decompress(archive.read_bytes())
    assert [secret for secret in machine.SECRETS if secret in unpacked] == []
    assert machine.UUID.encode().upper() not in unpacked
    assert b"Made-up 9000" in unpacked
    assert b'acpi_osi="Windows 2015" intel_iommu=on' in unpacked


def test_a_recording_of_a_recording_is_the_same_bytes(archive: Path, tmp_path: Path) -> None:
    assert recording_bytes(open_source(archive))[0] == archive.read_bytes()
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / "unpacked")
    unpacked = open_source(tmp_path / "unpacked")
    assert unpacked.kind is SourceKind.SYSFS_TREE
    assert machine.everything(unpacked) == machine.everything(open_source(archive))
    assert recording_bytes(unpacked)[0] == archive.read_bytes()


def test_every_tar_reader_agrees(archive: Path) -> None:
    with tarfile.open(archive) as tar:
        members = tar.getmembers()
        assert members[0].name == contents.MANIFEST
        assert [member.name for member in members[1:]] == sorted(member.name for member in members[1:])
        assert {(member.mtime, member.uid, member.uname, member.mode) for member in members} == {(0, 0, "", 0o644)}
        tables = {
            member.name.rpartition("/")[2]: tar.extractfile(member).read()  # type: ignore[union-attr]
            for member in members
            if member.name.startswith(contents.TABLES)
        }
    assert tables == {table.name: table.data for table in open_source(archive).tables()}


def test_repacked_by_others_it_reads_the_same(archive: Path) -> None:
    replayed = read_recording("x", iter([repack(archive, {})]))
    assert machine.everything(replayed) == machine.everything(open_source(archive))


def test_long_names_survive() -> None:
    name = "sys/bus/pci/slots/" + "s" * 64 + "/address"
    long = "sys/class/iommu/" + "i" * 64 + "/intel-iommu/domains_supported"
    source = MemorySource("x", SourceKind.RECORDING, files={name: b"0000:02:00\n", long: b"16\n"})
    data, _ = recording_bytes(source)
    assert len(long) > 100
    assert read_recording("x", iter([data])).file(long) == b"16\n"
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert long in tar.getnames()


def test_the_manifest_says_what_was_done(root: Path, archive: Path) -> None:
    manifest = manifest_of(open_source(archive))
    assert manifest is not None
    assert manifest.keyed
    assert manifest.fingerprint == fingerprint(machine.source(root)) == fingerprint(open_source(archive))
    assert "pci:0000:01:00.0: device serial number" in manifest.redacted
    assert "table:MSDM: keys" in manifest.redacted
    assert "file:sys/class/dmi/id/product_serial: identifying text" in manifest.redacted
    assert manifest_of(machine.source(root)) is None


def test_what_was_wrong_while_recording_is_recorded(root: Path) -> None:
    (root / "sys/bus/pci/devices/0000:02:00.0/power_state").write_text("D3cold\n")
    data, manifest = recording_bytes(machine.source(root, spare=True))
    replayed = read_recording("x", iter([data]))
    assert [finding.rule for finding in manifest.findings] == ["source.asleep"]
    assert tuple(replayed.findings) == manifest.findings
    asleep = next(function for function in replayed.functions() if str(function.sbdf) == "0000:02:00.0")
    assert asleep.config == b""
    assert asleep.attributes["power_state"] == "D3cold"


def test_an_existing_file_stays_unless_told(root: Path, tmp_path: Path) -> None:
    place = tmp_path / "kept.d0k"
    place.write_text("older")
    with pytest.raises(UnwritableRecording, match="exists already"):
        record(machine.source(root), str(place))
    assert place.read_text() == "older"
    written = record(machine.source(root), str(place), overwrite=True)
    assert written.size == place.stat().st_size
    assert place.stat().st_mode & 0o777 == 0o666 & ~_umask()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept.d0k", "machine"]


def test_a_place_that_cannot_be_written_is_told_in_one_sentence(root: Path, tmp_path: Path) -> None:
    for place in (tmp_path / "absent/x.d0k", tmp_path / "machine"):
        with pytest.raises(UnwritableRecording) as error:
            record(machine.source(root), str(place), overwrite=True)
        assert str(error.value).count("\n") == 0
        assert str(place) in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["machine"]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


# ---- hostile archives


def test_members_that_do_not_belong_are_passed_over(archive: Path) -> None:
    hostile: dict[str, bytes | None] = {
        "../../etc/passwd": b"x",
        "/etc/passwd": b"x",
        "sys/../proc/iomem": b"x",
        "sys/kernel/irq/24/secret": b"x",
        "sys/bus/pci/devices/zz/config": b"x",
        "sys/bus/pci/devices/0000:00:3f.0/config": b"x",
        "sys/firmware/acpi/tables/a/b": b"x",
        "proc/\n": b"x",
        "n" * 300: b"x",
    }
    replayed = read_recording("x", iter([repack(archive, hostile)]))
    assert machine.everything(replayed) == machine.everything(open_source(archive))


def test_links_and_devices_in_an_archive_are_nothing(archive: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(archive) as old, tarfile.open(fileobj=packed, mode="w:gz") as new:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
            member = tarfile.TarInfo("proc/iomem")
            member.type, member.linkname = kind, "/etc/passwd"
            new.addfile(member)
        for member in old:
            new.addfile(member, old.extractfile(member))
    replayed = read_recording("x", iter([packed.getvalue()]))
    assert machine.everything(replayed) == machine.everything(open_source(archive))


def test_the_first_of_two_members_counts(archive: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(archive) as old, tarfile.open(fileobj=packed, mode="w:gz") as new:
        for member in old:
            new.addfile(member, old.extractfile(member))
        again = tarfile.TarInfo("proc/iomem")
        again.size = 5
        new.addfile(again, io.BytesIO(b"other"))
    replayed = read_recording("x", iter([packed.getvalue()]))
    assert replayed.file("proc/iomem") == open_source(archive).file("proc/iomem")
    assert [finding.rule for finding in replayed.findings] == ["source.duplicate"]


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.99])
def test_of_a_cut_archive_the_beginning_is_kept(archive: Path, share: float) -> None:
    data = archive.read_bytes()
    try:
        replayed = read_recording("x", iter([data[: int(len(data) * share)]]))
    except UnreadableSource:
        assert share < 0.1
        return
    assert "source.damaged" in [finding.rule for finding in replayed.findings]
    whole = dict(contents.files_of(open_source(archive)))
    assert all(whole[path] == data for path, data in contents.files_of(replayed))


def test_a_bomb_does_not_go_off() -> None:
    manifest = b'{"format":1,"dom0kit":"0","fingerprint":"","keyed":false}'
    member = tarfile.TarInfo(contents.MANIFEST)
    member.size = len(manifest)
    big = tarfile.TarInfo("proc/iomem")
    big.size = 1 << 30
    head = member.tobuf() + manifest.ljust(512, b"\0") + big.tobuf()
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = compressor.compress(head + bytes(1 << 20)) + compressor.flush()
    replayed = read_recording("x", iter([bomb]))
    assert replayed.file("proc/iomem") is None
    assert [finding.rule for finding in replayed.findings] == ["source.too-much"]

    many = tarfile.TarInfo("proc/iomem")
    many.size = 16 << 20
    compressor = zlib.compressobj(1, zlib.DEFLATED, 31)
    pieces = [compressor.compress(head[:1024])]
    for _ in range(9):
        pieces += [compressor.compress(many.tobuf()), compressor.compress(bytes(16 << 20))]
    replayed = read_recording("x", iter([*pieces, compressor.flush()]))
    assert "source.too-much" in [finding.rule for finding in replayed.findings]


@pytest.mark.parametrize(
    ("manifest", "sentence"),
    [
        (None, "no dom0kit recording: it has no dom0kit.json"),
        (b"{", "is not what dom0kit writes"),
        (b"[" * 100000, "is not what dom0kit writes"),
        (b"\xff\xfe", "is not what dom0kit writes"),
        (
            b'{"format":2,"dom0kit":"9.9","fingerprint":"","keyed":true}',
            "a recording of format 2, written by dom0kit '9.9'",
        ),
    ],
)
def test_what_is_no_recording_is_refused_in_one_sentence(archive: Path, manifest: bytes | None, sentence: str) -> None:
    with pytest.raises(UnreadableSource, match=sentence):
        read_recording("x", iter([repack(archive, {contents.MANIFEST: manifest})]))


def test_a_gzip_of_something_else_is_refused() -> None:
    for data in (gzip.compress(b"hello"), gzip.compress(bytes(10240)), b"\x1f\x8b", b"\x1f\x8b" + bytes(100)):
        with pytest.raises(UnreadableSource, match="without a dom0kit recording"):
            read_recording("x", iter([data]))


@pytest.fixture(scope="module")
def small() -> bytes:
    source = MemorySource(
        "x",
        SourceKind.RECORDING,
        tables=[RawTable("DSDT", machine.TABLES["DSDT"])],
        functions=[RawFunction(Sbdf(0, 0, 1, 0), machine.config(), {"irq": "1"})],
    )
    return gzip.decompress(recording_bytes(source)[0])


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_mutation_makes_reading_raise(small: bytes, data: st.DataObject) -> None:
    plain = bytearray(small)
    for _ in range(data.draw(st.integers(0, 8))):
        plain[data.draw(st.integers(0, len(plain) - 1))] = data.draw(st.integers(0, 255))
    packed = bytearray(gzip.compress(bytes(plain), 1))
    if data.draw(st.booleans()):
        packed[data.draw(st.integers(2, len(packed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    size = data.draw(st.integers(1, 4096))
    try:
        replayed = read_recording("x", iter([bytes(packed[at : at + size]) for at in range(0, len(packed), size)]))
    except UnreadableSource:
        return
    machine.everything(replayed)


# ---- other sources become recordings as well


@needs_corpus
def test_recorded_machines_survive_the_format() -> None:
    random.seed(3)
    for path in random.sample([*acpi_folders(), *lspci_dumps()], 40):
        source = open_source(path)
        data, manifest = recording_bytes(source)
        replayed = read_recording(path.name, iter([data]))
        assert [table.name for table in replayed.tables()] == [table.name for table in source.tables()]
        assert [(f.sbdf, len(f.config), f.attributes) for f in replayed.functions()] == [
            (f.sbdf, len(f.config), f.attributes) for f in source.functions()
        ]
        assert manifest.fingerprint == fingerprint(replayed) == fingerprint(source)
        assert str(path.parent) not in gzip.decompress(data).decode("latin-1")
        assert json.loads(replayed.file(contents.MANIFEST) or b"")["format"] == 1


def test_a_combination_is_recorded_and_redacted_whole(root: Path, archive: Path, tmp_path: Path) -> None:
    combined = combine(acpi=archive, pci=root)
    assert combined.kind is SourceKind.COMBINED
    data, _ = recording_bytes(combined)
    unpacked = gzip.decompress(data)
    assert machine.DSN not in unpacked
    assert [table.name for table in combined.tables()] == [table.name for table in open_source(archive).tables()]
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables/DSDT.dat").write_bytes(machine.TABLES["DSDT"])
    with pytest.raises(UnreadableSource, match="holds no PCI functions"):
        combine(acpi=root, pci=tmp_path / "tables")
    (tmp_path / "t.lspci").write_text("00:00.0 x\n00: " + "00 " * 16 + "\n")
    with pytest.raises(UnreadableSource, match="holds no ACPI tables"):
        combine(acpi=tmp_path / "t.lspci", pci=root)
