# SPDX-License-Identifier: MIT
"""Our own format, ``.d0k``: a machine's files in one archive that can be mailed.

A gzipped tar (ustar), because everybody can look into it and make one: ``tar tzf``. First member ``dom0kit.json``, the
manifest; then, by path and sorted, the ACPI tables under their sysfs names, ``config`` and ``attributes`` (see
`tree.attributes_text`) of every PCI function, and the kernel's other files (`contents`). No times, owners or anything
else that differs between two recordings of the same bytes: the archives are then the same too. One stream of small
files compresses better than a zip of them, and opens in a few milliseconds.

Reading trusts nothing: the archive is never unpacked to disk, sizes and names are checked, expansion is bounded.
Source: POSIX.1-2017 pax, "ustar Interchange Format"; RFC 1952.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator
from typing import Final

import msgspec

import dom0kit
from dom0kit.address import Sbdf
from dom0kit.finding import Finding
from dom0kit.source import contents
from dom0kit.source.errors import UnreadableSource, UnwritableRecording
from dom0kit.source.findings import DAMAGED, DUPLICATE, MAXIMUM, TOO_MUCH, Findings
from dom0kit.source.in_memory import MemorySource
from dom0kit.source.interface import RawFunction, RawTable, Source, SourceKind
from dom0kit.source.tree import (
    ATTRIBUTES_FILE,
    MAX_CONFIG,
    MAX_FILE,
    MAX_TABLES,
    TABLE_NAME,
    attributes_of,
    attributes_text,
    natural,
)

FORMAT: Final = 1
EXTENSION: Final = ".d0k"
MAX_TOTAL: Final = 64 << 20
"""Bytes that a recording may expand to."""
MAX_MEMBERS: Final = 150_000

_BLOCK: Final = 512
_CHUNK: Final = 1 << 16
_NAME: Final = re.compile(r"(?!/)[!-~]+")


class Manifest(msgspec.Struct, frozen=True):
    """What a recording says of itself."""

    format: int
    dom0kit: str
    """Version of dom0kit that wrote it."""
    fingerprint: str
    """Of the machine, see `fingerprint`."""
    keyed: bool
    """Secrets were replaced under the machine's own UUID; False where it has none or it could not be read."""
    redacted: tuple[str, ...] = ()
    """What was replaced: ``where: what``, sorted."""
    findings: tuple[Finding, ...] = ()
    """What was wrong with the source when it was recorded (functions asleep, files that only root may read)."""


class Written(msgspec.Struct, frozen=True):
    """What `record` wrote."""

    path: str
    size: int
    """Bytes of the archive."""
    manifest: Manifest


def record(source: Source, path: str, *, overwrite: bool = False) -> Written:
    """Write everything `source` has to `path`, secrets replaced, at once or not at all.

    An existing file stays unless `overwrite`: an older recording may be the only picture of a fault.
    UnwritableRecording says why nothing was written.
    """
    if not overwrite and os.path.lexists(path):
        raise UnwritableRecording(f"{path} exists already; it is left as it is.")
    data, manifest = recording_bytes(source)
    temporary = os.path.join(os.path.dirname(path) or ".", f".{os.path.basename(path)}.{os.getpid()}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            with open(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if overwrite:
                os.replace(temporary, path)
            else:
                _rename_to_new(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except FileExistsError:
        raise UnwritableRecording(f"{path} exists already; it is left as it is.") from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise UnwritableRecording(f"{path} cannot be written: {why}.") from error
    return Written(path, len(data), manifest)


def _rename_to_new(temporary: str, path: str) -> None:
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if os.path.lexists(path):
            raise FileExistsError(path) from None
        os.rename(temporary, path)
    else:
        os.unlink(temporary)


def recording_bytes(source: Source) -> tuple[bytes, Manifest]:
    """The archive of everything `source` has. Of a recording: the same bytes that it was read from."""
    from dom0kit.source.fingerprint import fingerprint
    from dom0kit.source.redaction import redacted

    before = manifest_of(source)
    secretless, redaction = redacted(source)
    manifest = before or Manifest(
        FORMAT,
        dom0kit.__version__,
        fingerprint(secretless),
        redaction.keyed,
        tuple(sorted(redaction.done)),
        # Where the source lay is nobody's business.
        tuple(finding for finding in secretless.findings if source.name not in finding.message),
    )
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    parts = []
    for name, data in _members(secretless, manifest):
        parts.append(compressor.compress(_header(name, len(data)) + data + bytes(-len(data) % _BLOCK)))
    parts.append(compressor.compress(bytes(2 * _BLOCK)))
    parts.append(compressor.flush())
    return b"".join(parts), manifest


def _members(source: MemorySource, manifest: Manifest) -> Iterator[tuple[str, bytes]]:
    yield contents.MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"
    members = {path: data for path, data in contents.files_of(source) if path != contents.MANIFEST}
    for table in source.tables():
        folder = contents.TABLES + "/dynamic" if table.dynamic else contents.TABLES
        members[f"{folder}/{table.name}"] = table.data
    for function in source.functions():
        folder = f"{contents.FUNCTIONS}/{function.sbdf}"
        members[f"{folder}/{ATTRIBUTES_FILE}"] = attributes_text(dict(function.attributes))
        if function.config:
            members[f"{folder}/config"] = function.config
    yield from sorted(members.items())


def _header(name: str, size: int) -> bytes:
    """A ustar header of a regular file of mode 0644, owned by nobody in particular, of no time."""
    encoded = name.encode("ascii")
    prefix = b""
    if len(encoded) > 100:
        cut = encoded.index(b"/", len(encoded) - 101)
        prefix, encoded = encoded[:cut], encoded[cut + 1 :]
    header = bytearray(_BLOCK)
    header[0 : len(encoded)] = encoded
    header[100:136] = b"0000644\x000000000\x000000000\x00%011o\x00" % size
    header[136:156] = b"00000000000\x00        "
    header[156:157] = b"0"
    header[257:265] = b"ustar\x0000"
    header[329:345] = b"0000000\x000000000\x00"
    header[345 : 345 + len(prefix)] = prefix
    header[148:156] = b"%06o\x00 " % sum(header)
    return bytes(header)


def read_recording(file: str, packed: Iterator[bytes]) -> MemorySource:
    """The recording that the chunks of `packed` are. UnreadableSource if they are none."""
    findings = Findings()
    members = _Members(file, findings)
    files: dict[str, bytes] = {}
    for name, data in members.all(packed):
        if files.setdefault(name, data) is not data:
            findings.add(DUPLICATE, f"file:{name}", f"{name} is twice in the archive")
    if not files:
        raise UnreadableSource(f"{file} is a gzip file without a dom0kit recording in it.")
    if contents.MANIFEST not in files:
        raise UnreadableSource(f"{file} is an archive but no dom0kit recording: it has no {contents.MANIFEST}.")
    manifest = _manifest(files[contents.MANIFEST], file)
    tables: list[RawTable] = []
    functions: dict[Sbdf, RawFunction] = {}
    kept: dict[str, bytes] = {}
    for path, data in files.items():
        folder, _, name = path.rpartition("/")
        if folder in (contents.TABLES, contents.TABLES + "/dynamic"):
            if TABLE_NAME.fullmatch(name):
                tables.append(RawTable(name, data, folder != contents.TABLES))
        elif folder.startswith(contents.FUNCTIONS + "/"):
            try:
                address = Sbdf.parse(folder[len(contents.FUNCTIONS) + 1 :])
            except ValueError:
                continue
            before = functions.get(address) or RawFunction(address, b"")
            if name == "config":
                functions[address] = RawFunction(address, data[:MAX_CONFIG], before.attributes)
            elif name == ATTRIBUTES_FILE:
                functions[address] = RawFunction(address, before.config, attributes_of(data))
        elif contents.is_file(path):
            kept[path] = data
    tables.sort(key=lambda table: (table.dynamic, natural(table.name)))
    if len(tables) > MAX_TABLES:
        findings.add(TOO_MUCH, "source", f"{len(tables)} ACPI tables; the first {MAX_TABLES} are read")
    return MemorySource(
        file,
        SourceKind.RECORDING,
        tables=tables[:MAX_TABLES],
        functions=(functions[address] for address in sorted(functions)),
        files=kept,
        findings=(*manifest.findings[:MAXIMUM], *findings.all()),
    )


def manifest_of(source: Source) -> Manifest | None:
    """The manifest of a recording, None of anything else."""
    data = None if source.is_live else source.file(contents.MANIFEST)
    return None if data is None else _manifest(data, source.name)


def _manifest(data: bytes, file: str) -> Manifest:
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise UnreadableSource(
            f"{file} is no dom0kit recording: its {contents.MANIFEST} is not what dom0kit writes."
        ) from None
    if manifest.format != FORMAT:
        raise UnreadableSource(
            f"{file} is a recording of format {manifest.format}, written by dom0kit {manifest.dom0kit[:20]!r}; "
            f"this one reads format {FORMAT}."
        )
    return manifest


class _Members:
    """The regular files of a gzipped tar, read as a stream and within bounds."""

    def __init__(self, file: str, findings: Findings) -> None:
        self._file = file
        self._findings = findings

    def all(self, packed: Iterator[bytes]) -> Iterator[tuple[str, bytes]]:
        buffer = bytearray()
        want = _BLOCK
        name: str | None = None  # of the file whose data is awaited
        size = 0
        count = 0
        for chunk in self._unpacked(packed):
            buffer += chunk
            start = 0
            while len(buffer) - start >= want:
                if name is not None or size:
                    if name is not None:
                        yield name, bytes(buffer[start : start + size])
                    start += want
                    want, name, size = _BLOCK, None, 0
                    continue
                header = bytes(buffer[start : start + _BLOCK])
                start += _BLOCK
                if not any(header):
                    return
                count += 1
                try:
                    name, size = self._member(header)
                except ValueError:
                    self._damaged("a member's header is not one of a tar archive")
                    return
                if count > MAX_MEMBERS:
                    self._findings.add(TOO_MUCH, "source", f"more than {MAX_MEMBERS} members in {self._file}")
                    return
                if size > MAX_FILE:
                    self._findings.add(
                        TOO_MUCH, "source", f"a member of {size} bytes in {self._file}; it ends the reading"
                    )
                    return
                if name is not None and size == 0:
                    yield name, b""
                    name = None
                want = size + -size % _BLOCK or _BLOCK
            del buffer[:start]
        self._damaged("the archive ends in the middle")

    @staticmethod
    def _member(header: bytes) -> tuple[str | None, int]:
        """Name and size; the name is None for anything but a regular file of an acceptable name."""
        if header[257:262] != b"ustar" or int(header[148:156].strip(b" \0") or b"0", 8) != (
            sum(header) - sum(header[148:156]) + 8 * 0x20
        ):
            raise ValueError
        size = int(header[124:136].strip(b" \0") or b"0", 8)
        if size < 0 or header[156:157] not in b"0\0xgLK":  # folders, links and devices have no data
            return None, 0
        if header[156:157] not in b"0\0":
            return None, size
        prefix = header[345:500].partition(b"\0")[0] if header[257:263] == b"ustar\0" else b""
        name = (prefix + b"/" if prefix else b"") + header[:100].partition(b"\0")[0]
        text = name.decode("ascii", "replace").removeprefix("./")
        return text if _NAME.fullmatch(text) and ".." not in text.split("/") else None, size

    def _unpacked(self, packed: Iterator[bytes]) -> Iterator[bytes]:
        unpacker = zlib.decompressobj(31)
        total = 0
        try:
            for chunk in packed:
                while chunk and not unpacker.eof:
                    data = unpacker.decompress(chunk, _CHUNK)
                    chunk = unpacker.unconsumed_tail
                    total += len(data)
                    if total > MAX_TOTAL:
                        self._findings.add(
                            TOO_MUCH,
                            "source",
                            f"{self._file} expands to more than {MAX_TOTAL >> 20} MiB; the rest is left",
                        )
                        return
                    if data:
                        yield data
                if unpacker.eof:
                    return
        except zlib.error as error:
            self._damaged(f"decompression failed: {error}")

    def _damaged(self, why: str) -> None:
        self._findings.add(DAMAGED, "source", f"{self._file}: {why}")
