# SPDX-License-Identifier: MIT
"""Whatever lies at a path is recognised by what is in it, or refused in one clear sentence, at once."""

from __future__ import annotations

import os
import socket
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dom0kit.address import Sbdf
from dom0kit.source.errors import UnreadableSource
from dom0kit.source.interface import SourceKind
from dom0kit.source.recognise import open_source
from dom0kit.source.recording import recording_bytes
from tests.source import machine
from tests.source.test_dumps import acpidump_text, lspci_text

LSPCI = lspci_text({Sbdf(0, 0, 1, 0): bytes(range(64))})
ACPIDUMP = acpidump_text([(0, machine.table(b"DSDT", b"x"))])
FORMS = {
    SourceKind.LSPCI: LSPCI,
    SourceKind.ACPIDUMP: ACPIDUMP,
    SourceKind.TABLE_FOLDER: machine.table(b"DSDT", b"x"),
}


@pytest.mark.parametrize("kind", FORMS)
def test_a_file_is_recognised_whatever_its_name(kind: SourceKind, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(FORMS[kind])
    source = open_source(tmp_path / "x")
    assert source.kind is kind
    assert source.name == str(tmp_path / "x")
    assert len(source.tables()) + len(list(source.functions())) == 1
    (tmp_path / "y").write_bytes(recording_bytes(source)[0])
    assert open_source(tmp_path / "y").kind is SourceKind.RECORDING


@pytest.mark.parametrize("text", [LSPCI, ACPIDUMP])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_windows_texts_are_read(text: bytes, encoding: str, tmp_path: Path) -> None:
    mark = b"\xff\xfe" if encoding == "utf-16-le" else b""
    (tmp_path / "x").write_bytes(text)
    (tmp_path / "y").write_bytes(mark + text.decode().replace("\n", "\r\n").encode(encoding))
    assert machine.everything(open_source(tmp_path / "y")) == machine.everything(open_source(tmp_path / "x"))


def refused(path: Path | str) -> str:
    with pytest.raises(UnreadableSource) as error:
        open_source(path)
    sentence = str(error.value)
    assert "\n" not in sentence
    assert sentence.endswith((".", ")."))
    return sentence


def test_what_cannot_be_read_is_refused_in_one_sentence(tmp_path: Path) -> None:
    assert refused(tmp_path / "absent") == f"{tmp_path}/absent does not exist."
    assert refused(str(tmp_path / "a\0b")) == f"{tmp_path}/a?b does not exist."
    (tmp_path / "empty").write_bytes(b"")
    assert "is empty" in refused(tmp_path / "empty")
    (tmp_path / "text").write_text("Dear all,\n\nattached you find nothing.\n")
    assert "is text of no known form" in refused(tmp_path / "text")
    (tmp_path / "binary").write_bytes(os.urandom(100) + bytes(5000))
    assert "is binary data of no known form" in refused(tmp_path / "binary")
    (tmp_path / "folder").mkdir()
    assert "is an empty folder" in refused(tmp_path / "folder")
    (tmp_path / "folder/notes.txt").write_text("x")
    assert "holds neither ACPI tables" in refused(tmp_path / "folder")
    (tmp_path / "loop").symlink_to("loop")
    assert "cannot be read: Too many levels of symbolic links" in refused(tmp_path / "loop")
    (tmp_path / "long").mkdir()
    assert "cannot be read: File name too long" in refused(tmp_path / ("n" * 300))
    odd = os.fsdecode(bytes(tmp_path) + b"/\xff\xfe")
    refused(odd).encode("utf-8")


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "neither a file nor a folder" in refused(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(tmp_path)
        listener.bind("socket")
    assert "neither a file nor a folder" in refused(tmp_path / "socket")
    assert "neither a file nor a folder" in refused("/dev/zero")
    (tmp_path / "tables").mkdir()
    os.mkfifo(tmp_path / "tables/DSDT.dat")
    assert "none of them can be read" in refused(tmp_path / "tables")


@pytest.mark.parametrize("start", [b"", LSPCI, ACPIDUMP, machine.TABLES["DSDT"], b"\x1f\x8b", b"\xff\xfe"])
def test_a_huge_sparse_file_costs_nothing(start: bytes, tmp_path: Path) -> None:
    with open(tmp_path / "sparse", "wb") as file:
        file.write(start)
        file.truncate(1 << 30)
    tracemalloc.start()
    refused(tmp_path / "sparse")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from((b"", b"\x1f\x8b", b"\xff\xfe", b"00:00.0 x\n", b"DSDT @ 0\n", b"DSDT$\0\0\0")),
    st.binary(max_size=400),
)
def test_no_bytes_make_opening_raise(tmp_path_factory: pytest.TempPathFactory, start: bytes, junk: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "junk"
    path.write_bytes(start + junk)
    try:
        machine.everything(open_source(path))
    except UnreadableSource:
        return
