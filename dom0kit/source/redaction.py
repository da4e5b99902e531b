# SPDX-License-Identifier: MIT
"""What names a machine or its owner is replaced before bytes leave the machine: serial numbers, MAC addresses, UUIDs,
product keys, host names, disk ids.

Deterministic: the replacement is an HMAC-SHA256 of the secret, keyed by the machine's DMI UUID, so the same machine's
recordings agree and this machine recognises its own, while nobody else can compute it. The key is stretched
(PBKDF2) because some makers build the UUID from a short service tag. Where there is no DMI UUID the key is public, and
only 16 bits of each HMAC are used: enough to tell two serial numbers of a machine apart, too few to search for one.

What is redacted already (a recording) is left as it is.

Layouts: PCIe Base 6.0, sections 7.9.3 (Device Serial Number) and 7.9.18 (VPD); ACPI 6.5, section 5.2.25.6 (NFIT control
region); Microsoft, "Microsoft Software Licensing Tables" (MSDM); Intel, "iSCSI Boot Firmware Table" 1.02.
"""

from __future__ import annotations

import re
from typing import Final

from dom0kit.source import contents
from dom0kit.source.errors import UnwritableRecording
from dom0kit.source.in_memory import MemorySource
from dom0kit.source.interface import RawFunction, RawTable, Source, SourceKind

PUBLIC_KEY: Final = b"dom0kit: a machine without a DMI UUID"
_ROUNDS: Final = 100_000
MAX_FILE_BYTES: Final = 32 << 20
"""Of all files of the kernel's together."""

# Patterns, compiled by re when they are first used: a fingerprint needs one of them.
_MAC: Final = rb"(?<![0-9A-Fa-f:-])[0-9A-Fa-f]{2}([:-])(?:[0-9A-Fa-f]{2}\1){4}[0-9A-Fa-f]{2}(?![0-9A-Fa-f:-])"
_MAC_IN_NAME: Final = rb"\b(?:en|wl|ww|ib|sl)x[0-9a-f]{12}(?![0-9a-f])"
_UUID: Final = rb"\b[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}\b"
_PASS_THROUGH: Final = rb"_AUXMAC_#([0-9A-Fa-f]{12})#"
"""A MAC address that firmware hands to the dock's network adapter, in AML."""
_RELEASE: Final = rb"(?s)(Linux version \d+(?:\.\d+)*(?:-\d+)?).*"
"""The kernel's version without its suffix, builder, host, compiler and date."""

_ARGUMENT_NAMES: Final = (
    r"(?:acpi|apic|irq|intel_iommu|amd_iommu|iommu|intremap|msi|pci|pcie|mem|memory|memmap|memhp|numa|cpu|nr_cpus|maxcpus"
    r"|possible_cpus|isolcpus|nohz|rcu_nocbs|hotplug|movable|efi|x2apic|nox2apic|noapic|nolapic|lapic|nosmp|noirq|threadirqs"
    r"|swiotlb|vfio|kvm|xen|dom0|ioapic|nomodeset|quiet|ro|rw|splash|debug|earlyprintk|crashkernel|reserve|tsc|clocksource"
    r"|hpet|mitigations|hugepages|default_hugepagesz|hugepagesz|panic|reboot|console|loglevel)(?:[_.-][\w.-]*)?"
)
"""Kernel parameters that say how the machine is run; all others are left out."""
_HARMLESS_VALUE: Final = r"[\w.,:;+/*@$!#^%=&<>()\[\]-]{0,256}|!?\"[\w .!-]{0,64}\""
_ARGUMENT: Final = r'(?:[^\s"]|"[^"]*"?)+'

_KEY_TABLES: Final = {b"MSDM": 56, b"IBFT": 36, b"iBFT": 36}
"""Tables that are secrets from this offset on: a Windows product key; iSCSI names and passwords."""
_NFIT_CONTROL_REGION: Final = 4


class Redaction:
    """The replacement of everything secret in one source. `done` lists what was replaced, in order of meeting it."""

    def __init__(self, source: Source) -> None:
        self.active = source.is_live or source.file(contents.MANIFEST) is None
        self.done: dict[str, None] = {}
        uuid = source.file("sys/class/dmi/id/product_uuid") if self.active else None
        uuid = (uuid or b"").strip().lower()
        self.keyed = bool(uuid.strip(b"0f-\0"))
        self._secret = uuid if self.keyed else PUBLIC_KEY
        self._key = b""
        self._literals: tuple[bytes, ...] = ()
        if self.active:
            values = {(source.file(f"sys/class/dmi/id/{name}") or b"").strip() for name in contents.DMI_SECRETS}
            # Short or monotonous ones ("None", "00000000") are no secrets, and would be found everywhere.
            self._literals = tuple(
                sorted((value for value in values if len(value) >= 6 and len(set(value)) >= 4), key=_longest_first)
            )

    def table(self, table: RawTable) -> RawTable:
        """The table, its checksum as right or wrong as before."""
        if not self.active:
            return table
        data = table.data
        found: list[str] = []
        signature = data[:4]
        if signature in _KEY_TABLES:
            start = _KEY_TABLES[signature]
            if data[start:].strip(b"\0"):
                data = data[:start] + self._bytes("table", data[start:])
                found.append("keys")
        elif signature == b"NFIT":
            data = self._nfit(data, found)
        data = re.sub(
            _PASS_THROUGH, lambda match: b"_AUXMAC_#" + self._digits("mac", match[1].lower()).upper() + b"#", data
        )
        for literal in self._literals:
            data = data.replace(literal, self._digits("serial", literal))
        if data == table.data:
            return table
        self._note(f"table:{table.name}", found[0] if found else "addresses and serial numbers")
        difference = sum(table.data) - sum(data)
        if len(data) > 9:
            data = data[:9] + bytes(((data[9] + difference) & 0xFF,)) + data[10:]
        return RawTable(table.name, data, table.dynamic)

    def _nfit(self, data: bytes, found: list[str]) -> bytes:
        """Serial numbers of NVDIMMs."""
        result = bytearray(data)
        offset = 40
        while offset + 4 <= len(data):
            kind = int.from_bytes(data[offset : offset + 2], "little")
            length = int.from_bytes(data[offset + 2 : offset + 4], "little")
            if length < 4:
                break
            if kind == _NFIT_CONTROL_REGION and length >= 28 and offset + 28 <= len(data):
                serial = data[offset + 24 : offset + 28]
                result[offset + 24 : offset + 28] = self._bytes("serial", serial)
                found.append("serial numbers")
            offset += length
        return bytes(result)

    def function(self, function: RawFunction) -> RawFunction:
        """The function with other serial numbers in its config space."""
        if not self.active:
            return function
        config = bytearray(function.config)
        for offset in extended_capabilities(config, 0x0003):
            serial = bytes(config[offset + 4 : offset + 12])
            if serial.strip(b"\0") and serial.strip(b"\xff"):
                config[offset + 4 : offset + 12] = self._bytes("serial", serial)
                self._note(f"pci:{function.sbdf}", "device serial number")
        for offset in capabilities(config, 0x03):
            if any(config[offset + 4 : offset + 8]):  # the four bytes of vital product data read last
                config[offset + 4 : offset + 8] = bytes(len(config[offset + 4 : offset + 8]))
                self._note(f"pci:{function.sbdf}", "vital product data")
        if config == function.config:
            return function
        return RawFunction(function.sbdf, bytes(config), function.attributes)

    def file(self, path: str, data: bytes) -> bytes:
        """A file of the kernel's."""
        if not self.active:
            return data
        if path in _SECRET_FILES:
            new = b"redacted-" + self._digits("serial", data.strip(), 16) + b"\n" if data.strip() else data
        else:
            new = self._text(path, data)
        if new != data:
            self._note(f"file:{path}", "identifying text")
        return new

    def _text(self, path: str, data: bytes) -> bytes:
        if path == "proc/cmdline":
            data = self._command_line(data)
        if path == "proc/version":
            data = re.sub(_RELEASE, rb"\1 redacted\n", data)
        if path in _FREE_TEXT or path.startswith("sys/class/dmi/"):
            for literal in self._literals:
                data = data.replace(literal, self._digits("serial", literal))
        data = re.sub(_MAC, lambda match: self._mac(match[0], match[1]), data)
        data = re.sub(_MAC_IN_NAME, lambda match: match[0][:3] + self._digits("mac", match[0][3:]), data)
        return re.sub(_UUID, lambda match: self._uuid(match[0]), data)

    def _command_line(self, data: bytes) -> bytes:
        """The parameters that say how the machine is run; one word ``redacted`` stands for all others."""
        words = re.findall(_ARGUMENT, data.decode("ascii", "replace"))
        kept = []
        for word in words:
            name, _, value = word.partition("=")
            if word == "--":  # arguments of init
                break
            if re.fullmatch(_ARGUMENT_NAMES, name) and re.fullmatch(_HARMLESS_VALUE, value):
                kept.append(word)
        return " ".join((*kept, *["redacted"] * (len(kept) < len(words)))).encode() + b"\n"

    def _mac(self, address: bytes, separator: bytes) -> bytes:
        digits = b"02" + self._digits("mac", address.replace(separator, b"").lower(), 10)
        return separator.join(digits[index : index + 2] for index in range(0, 12, 2))

    def _uuid(self, uuid: bytes) -> bytes:
        digits = self._digits("uuid", uuid.lower(), 32)
        return b"-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))

    def _digits(self, kind: str, secret: bytes, length: int | None = None) -> bytes:
        """Hexadecimal digits, as many as `secret` has bytes unless told."""
        length = len(secret) if length is None else length
        return self._stream(kind, secret, (length + 1) // 2).hex()[:length].encode()

    def _bytes(self, kind: str, secret: bytes) -> bytes:
        return self._stream(kind, secret, len(secret))

    def _stream(self, kind: str, secret: bytes, length: int) -> bytes:
        import hashlib
        import hmac

        if not self._key:
            self._key = hashlib.pbkdf2_hmac("sha256", self._secret, b"dom0kit redaction 1", _ROUNDS)
        digest = hmac.digest(self._key, kind.encode() + b"\0" + secret, "sha256")
        if not self.keyed:
            digest = digest[:2]
        return hashlib.shake_256(digest).digest(length)

    def _note(self, where: str, what: str) -> None:
        self.done[f"{where}: {what}"] = None


_SECRET_FILES: Final = frozenset(
    (*(f"sys/class/dmi/id/{name}" for name in contents.DMI_SECRETS), "sys/hypervisor/uuid")
)
_FREE_TEXT: Final = frozenset(("proc/cmdline", "proc/version", contents.KERNEL_LOG))


def redacted(source: Source) -> tuple[MemorySource, Redaction]:
    """Everything that `source` has, secrets replaced, and what was done. Of a recording: the same bytes.

    The manifest among its files is empty: `recording` writes one.
    """
    redaction = Redaction(source)
    tables = [redaction.table(table) for table in source.tables()]
    functions = [redaction.function(function) for function in source.functions()]
    files = {contents.MANIFEST: b""}
    left = MAX_FILE_BYTES
    for path, data in contents.files_of(source):
        left -= len(data)
        if left < 0:
            raise UnwritableRecording(f"{source.name} holds more than a recording can: {path} is one file too many.")
        if path != contents.MANIFEST:
            files[path] = redaction.file(path, data)
    # The source's findings are asked for last: reading adds to them.
    secretless = MemorySource(
        source.name, SourceKind.RECORDING, tables=tables, functions=functions, files=files, findings=source.findings
    )
    return secretless, redaction


def _longest_first(value: bytes) -> tuple[int, bytes]:
    return -len(value), value


def extended_capabilities(config: bytes | bytearray, wanted: int) -> list[int]:
    """Offsets of the extended capabilities of one kind (PCIe Base 6.0, section 7.9.3), in list order."""
    found = []
    offset = 0x100
    seen: set[int] = set()
    while 0x100 <= offset <= len(config) - 4 and offset not in seen:
        seen.add(offset)
        header = int.from_bytes(config[offset : offset + 4], "little")
        if header in (0, 0xFFFFFFFF):
            break
        if header & 0xFFFF == wanted:
            found.append(offset)
        offset = header >> 20 & 0xFFC
    return found


def capabilities(config: bytes | bytearray, wanted: int) -> list[int]:
    """Offsets of the standard capabilities of one kind (PCI 3.0, section 6.7), in list order."""
    found: list[int] = []
    if len(config) < 64 or not config[0x06] & 0x10:
        return found
    offset = config[0x14 if config[0x0E] & 0x7F == 2 else 0x34] & 0xFC
    seen: set[int] = set()
    while 0x40 <= offset <= min(len(config), 256) - 2 and offset not in seen:
        seen.add(offset)
        if config[offset] == wanted:
            found.append(offset)
        offset = config[offset + 1] & 0xFC
    return found
