# SPDX-License-Identifier: MIT
"""Any ACPI table: the common header, the checksum, and the module that knows its body (ACPI 6.5, section 5.2.6)."""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

import msgspec

from dom0kit.acpi import tables
from dom0kit.finding import Finding, Severity, rule
from dom0kit.layout import EXTRA, U8, U32, OpenRecord, Record, Unbuildable, layout, raw, text
from dom0kit.serial import Hex
from dom0kit.source.interface import RawTable
from dom0kit.walker import Notes

if TYPE_CHECKING:
    from types import ModuleType

# --- rules ------------------------------------------------------------------------------------------------------------

CHECKSUM: Final = rule(
    "acpi.table-checksum",
    Severity.WARNING,
    title="a table with a wrong checksum",
    meaning="The bytes of the table do not add up to zero. Firmware changed it after it was summed, or it was damaged "
    "on the way into the recording. Some readers, acpiexec among them, ignore such a table; Linux only warns.",
    advice="Compare with the table of a running system. Where they are equal, report it to the firmware's vendor.",
    specification="ACPI 6.5, section 5.2.6: the entire table, checksum field included, must add to zero",
)
SHORT_TABLE: Final = rule(
    "acpi.table-short",
    Severity.ERROR,
    title="too few bytes for an ACPI table",
    meaning="There are fewer bytes than the header takes, or the header's length field is smaller than the header.",
    advice="Record the table again; this is no table.",
    specification="ACPI 6.5, section 5.2.6: the header takes 36 bytes, and the length includes it",
)
CUT: Final = rule(
    "acpi.table-truncated",
    Severity.ERROR,
    title="a table shorter than its header says",
    meaning="The length field of the header counts more bytes than there are. What is there is decoded.",
    advice="Record the table again. Where firmware itself says so, readers that trust it read foreign memory.",
    specification="ACPI 6.5, section 5.2.6: the length is that of the table, header included",
)
SLACK: Final = rule(
    "acpi.table-slack",
    Severity.INFO,
    title="bytes behind the end of a table",
    meaning="There are more bytes than the length field of the header counts. They are kept, and mean nothing.",
    advice="Nothing; whoever recorded the table took too much.",
    specification="ACPI 6.5, section 5.2.6: the length is that of the table, header included",
)
BODY_SHORT: Final = rule(
    "acpi.table-body-short",
    Severity.ERROR,
    title="a table too short for its fields",
    meaning="The table ends before the fields that every revision of it has. Its body is kept as bytes.",
    advice="Update the firmware, or override the table.",
    specification="ACPI 6.5, section 5.2, the section of the table that the finding names",
)
SIGNATURE: Final = rule(
    "acpi.table-signature",
    Severity.WARNING,
    title="a signature that is not four printable characters",
    meaning="The first four bytes are no table signature: zeros, foreign memory, or a file that is no table.",
    advice="Record the table again.",
    specification="ACPI 6.5, section 5.2.6 and table 5.6: signatures are four ASCII characters",
)
DUPLICATE: Final = rule(
    "acpi.table-duplicate",
    Severity.WARNING,
    title="more than one table of a kind that is unique",
    meaning="Firmware publishes several tables of a signature of which there must be one. Operating systems take the "
    "first (Linux: see acpi_apic_instance for the MADT); the others may describe another machine.",
    advice="Compare them; the first counts. Report it to the firmware's vendor.",
    specification="ACPI 6.5, section 5.2.7 and 5.2.8: all tables but SSDT, PSDT and OEM tables occur at most once",
)
NULL_ENTRY: Final = rule(
    "acpi.root-null-entry",
    Severity.INFO,
    title="an entry of the root table that is zero",
    meaning="An entry of RSDT or XSDT names no table. Readers skip it.",
    advice="Nothing, unless a table is missing.",
    specification="ACPI 6.5, section 5.2.7 and 5.2.8: entries are physical addresses of tables",
)
UNLISTED: Final = rule(
    "acpi.xsdt-missing-table",
    Severity.INFO,
    title="the XSDT lists more tables than there are",
    meaning="The root table has more entries than tables were found. Recordings leave out tables that hold keys (MSDM) "
    "or that the recorder could not read.",
    advice="Nothing, unless a table was expected there.",
    specification="ACPI 6.5, section 5.2.8: the XSDT holds the addresses of the other tables",
)

# --- values -----------------------------------------------------------------------------------------------------------


class Header(Record, frozen=True, kw_only=True):
    """System description table header (section 5.2.6). Text is Latin-1: every byte survives, printable or not."""

    signature: Annotated[str, text(4)]
    length: U32
    """Bytes of the whole table, as the table says."""
    revision: U8
    checksum: U8
    oem_id: Annotated[str, text(6)]
    oem_table_id: Annotated[str, text(8)]
    oem_revision: U32
    creator_id: Annotated[str, text(4)]
    creator_revision: U32


class Other(OpenRecord, frozen=True, kw_only=True, tag="other"):
    """The body of a table that is not interpreted."""

    body: Annotated[Hex, raw()]


class Table(msgspec.Struct, frozen=True):
    """One ACPI table as facts."""

    name: str
    """As the source names it: the signature, with a number where there are several (``SSDT3``)."""
    header: Header | None
    """None for RSDP and FACS, which have their own in `content`, and for what is no table."""
    checksum_ok: bool | None
    """None where the table has no checksum (FACS), or not all bytes are there."""
    content: tables.Content | None
    """The body. None where the length in the header is no table's."""
    raw: Hex | None = None
    """All bytes, where header and content do not give them back (bytes behind the end; no table at all)."""
    findings: tuple[Finding, ...] = ()
    dynamic: bool = False
    """Loaded by AML at run time: not to be loaded again."""

    @property
    def signature(self) -> str:
        """Of the header; ``RSD PTR ``, ``FACS``; or empty for what is no table."""
        if self.header is not None:
            return self.header.signature
        return str(getattr(self.content, "signature", ""))


# --- which module knows which table -----------------------------------------------------------------------------------

MODULES: Final[dict[str, tuple[str, str]]] = {
    "APIC": ("madt", "Madt"),
    "BERT": ("bert", "Bert"),
    "BGRT": ("bgrt", "Bgrt"),
    "CEDT": ("cedt", "Cedt"),
    "DBG2": ("dbg2", "Dbg2"),
    "DMAR": ("dmar", "Dmar"),
    "DSDT": ("definition_block", "DefinitionBlock"),
    "ECDT": ("ecdt", "Ecdt"),
    "EINJ": ("einj", "Einj"),
    "ERST": ("erst", "Erst"),
    "FACP": ("fadt", "Fadt"),
    "HEST": ("hest", "Hest"),
    "HMAT": ("hmat", "Hmat"),
    "HPET": ("hpet", "Hpet"),
    "IVRS": ("ivrs", "Ivrs"),
    "MCFG": ("mcfg", "Mcfg"),
    "OSDT": ("definition_block", "DefinitionBlock"),
    "PCCT": ("pcct", "Pcct"),
    "PPTT": ("pptt", "Pptt"),
    "PSDT": ("definition_block", "DefinitionBlock"),
    "RMAD": ("dmar", "Dmar"),  # Xen renames it so for dom0: see `dom0kit.xen`
    "RSDT": ("rsdt", "Rsdt"),
    "SLIT": ("slit", "Slit"),
    "SPCR": ("spcr", "Spcr"),
    "SRAT": ("srat", "Srat"),
    "SSDT": ("definition_block", "DefinitionBlock"),
    "TPM2": ("tpm2", "Tpm2"),
    "VIOT": ("viot", "Viot"),
    "WAET": ("waet", "Waet"),
    "XSDT": ("xsdt", "Xsdt"),
}
"""Signature -> module of this package and content type in it (the module's function `record` may choose another)."""
OWN_HEADER: Final[dict[bytes, tuple[str, str]]] = {b"RSD PTR ": ("rsdp", "Rsdp"), b"FACS": ("facs", "Facs")}
"""First bytes -> module and type, for the two without the common header."""
_UNIQUE: Final = frozenset(MODULES) - {"SSDT", "PSDT", "OSDT", "HPET"}
"""Tables that there is one of. HPET blocks have one table each; a FACS may be named by both fields of the FADT."""
_NOT_LISTED: Final = frozenset({"RSD PTR ", "RSDT", "XSDT", "FACS", "DSDT"})
"""Tables that no root table lists."""
HEADER_SIZE: Final = 36


def decode_table(raw: RawTable) -> Table:
    """The table in `raw`; whatever is wrong is among its findings. Never raises, whatever the bytes are."""
    data = raw.data
    notes = Notes(f"table:{raw.name}")
    for magic, (module_name, type_name) in OWN_HEADER.items():
        if data.startswith(magic):
            return _decode_own_header(raw, module_name, type_name, notes)
    if len(data) < HEADER_SIZE:
        notes.add(SHORT_TABLE, f"{len(data)} bytes, and the header alone takes {HEADER_SIZE}")
        return Table(raw.name, None, None, None, data.hex(), notes.findings(), raw.dynamic)
    header = cast(Header, _HEADER.parse(data, 0, HEADER_SIZE, notes))
    if not (header.signature.isascii() and header.signature.isprintable() and len(header.signature) == 4):
        notes.add(SIGNATURE, f"the signature is the bytes {data[:4].hex()}")
    length = header.length
    if length < HEADER_SIZE:
        notes.add(SHORT_TABLE, f"the header's length is {length}, and the header alone takes {HEADER_SIZE}")
        return Table(raw.name, header, None, None, data.hex(), notes.findings(), raw.dynamic)
    end = min(length, len(data))
    checksum_ok = None
    if length > len(data):
        notes.add(CUT, f"the header's length is {length}, and there are {len(data)} bytes")
    else:
        if length < len(data):
            notes.add(SLACK, f"{len(data) - length} bytes behind the {length} that the header counts")
            data = data[:length]
        total = byte_sum(data)
        checksum_ok = total == 0
        if not checksum_ok:
            notes.add(
                CHECKSUM,
                f"the bytes add up to {total:#04x}; a checksum of {header.checksum - total & 0xFF:#04x}"
                f" instead of {header.checksum:#04x} would be right",
            )
    module, record = _known(header)
    content = layout(record).parse(data, HEADER_SIZE, end, notes)
    if content is None:
        notes.add(
            BODY_SHORT, f"{end - HEADER_SIZE} bytes behind the header; a {header.signature} needs {layout(record).size}"
        )
        content = Other(body=data[HEADER_SIZE:end].hex())
    elif module is not None:
        _check(module, content, header, notes)
    return _whole(raw, header, checksum_ok, content, notes)


def build_table(table: Table) -> bytes:
    """The bytes of the table: equal to what it was decoded from. Unbuildable (a ValueError) for values out of range.

    Lengths and counts inside lists follow from the values; the header's length and checksum are written as they are.
    """
    if table.raw is not None:
        try:
            return bytes.fromhex(table.raw)
        except ValueError as error:
            raise Unbuildable(f"table {table.name}: {error}") from error
    head = b"" if table.header is None else _HEADER.build(table.header)
    content: Any = table.content
    return head if content is None else head + layout(type(content)).build(content)


def byte_sum(data: bytes) -> int:
    """Sum of all bytes modulo 256."""
    # Adler-32 has 1 + the sum modulo 65521 in its low half, exact for 256 bytes: four times as fast as sum().
    return sum((zlib.adler32(data[at : at + 256]) & 0xFFFF) - 1 for at in range(0, len(data), 256)) & 0xFF


_HEADER: Final = layout(Header)


def _known(header: Header) -> tuple[ModuleType | None, type[OpenRecord]]:
    if header.signature not in MODULES:
        return None, Other
    module_name, type_name = MODULES[header.signature]
    module = importlib.import_module(f"dom0kit.acpi.tables.{module_name}")
    choose = getattr(module, "record", None)
    return module, getattr(module, type_name) if choose is None else choose(header)


def _check(module: ModuleType, content: OpenRecord, header: Header | None, notes: Notes) -> None:
    if content.extra:
        notes.add(getattr(module, "EXTRA", EXTRA), f"{len(content.extra) // 2} bytes behind the last field")
    check = getattr(module, "check", None)
    if check is not None:
        check(content, header, notes)


def _whole(raw: RawTable, header: Header | None, checksum_ok: bool | None, content: OpenRecord, notes: Notes) -> Table:
    """The table, with its raw bytes where the values do not give them back."""
    table = Table(raw.name, header, checksum_ok, cast(Any, content), None, notes.findings(), raw.dynamic)
    return table if build_table(table) == raw.data else msgspec.structs.replace(table, raw=raw.data.hex())


def _decode_own_header(raw: RawTable, module_name: str, type_name: str, notes: Notes) -> Table:
    module = importlib.import_module(f"dom0kit.acpi.tables.{module_name}")
    record: type[OpenRecord] = getattr(module, type_name)
    content = layout(record).parse(raw.data, 0, len(raw.data), notes)
    if content is None:
        notes.add(SHORT_TABLE, f"{len(raw.data)} bytes, and its fields take {layout(record).size}")
        return Table(raw.name, None, None, None, raw.data.hex(), notes.findings(), raw.dynamic)
    checksum_ok: bool | None = module.checksum_ok(content, raw.data, notes)
    _check(module, content, None, notes)
    return _whole(raw, None, checksum_ok, content, notes)


def cross_findings(all_tables: Iterable[Table]) -> tuple[Finding, ...]:
    """What is wrong with a machine's tables taken together: duplicates, and a root table that lists more."""
    notes = Notes("tables")
    found = [table for table in all_tables if not table.dynamic]
    names: dict[str, list[str]] = {}
    for table in found:
        names.setdefault(table.signature, []).append(table.name)
    for signature, alike in names.items():
        if len(alike) > 1 and signature in _UNIQUE:
            notes.add(DUPLICATE, f"{len(alike)} tables with the signature {signature}: {', '.join(alike)}")
    for table in found:
        if table.signature != ("XSDT" if "XSDT" in names else "RSDT"):
            continue
        listed: tuple[int, ...] = getattr(table.content, "entries", ())
        present = sum(other.signature not in _NOT_LISTED for other in found)
        count = sum(address != 0 for address in listed)
        if count > present:
            notes.add(UNLISTED, f"{table.name} lists {count} tables, {present} of that kind are here")
    return notes.findings()
