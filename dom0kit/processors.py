# SPDX-License-Identifier: MIT
"""The processors of a machine: APIC ids, whether enabled or hot-pluggable, proximity domains.

Sources: ACPI 6.5 sections 5.2.12.2 and 5.2.12.12 (MADT), 5.2.16.1 and 5.2.16.3 (SRAT), 6.2.11 (``_MAT``), 6.2.15
(``_PXM``), 8.4 (processor devices). What Linux says comes from /proc/cpuinfo and /sys/devices/system/cpu.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from dom0kit.acpi.namespace import AmlDevice, Namespace, parent
from dom0kit.acpi.tables.fadt import Fadt
from dom0kit.acpi.tables.madt import LocalApic, LocalApicAddressOverride, LocalX2apic, Madt, of_mat
from dom0kit.acpi.tables.srat import LocalApicAffinity, LocalX2apicAffinity, Srat
from dom0kit.acpi.tables.table import Table
from dom0kit.finding import Finding, Severity, rule
from dom0kit.source.interface import Source
from dom0kit.walker import Notes

MAX_PROCESSORS: Final = 1 << 16
"""Processors that are kept, and numbers of a CPU list that are believed."""

DUPLICATE_APIC_ID: Final = rule(
    "cpu.duplicate-apic-id",
    Severity.ERROR,
    title="two processors with one APIC id",
    meaning="Two enabled MADT entries have the same APIC id. An interrupt to this id reaches one processor, and "
    "nobody knows which; Linux starts only one of them.",
    advice="Update the firmware. The first entry counts.",
    specification="ACPI 6.5, section 5.2.12.2",
)
DUPLICATE_UID: Final = rule(
    "cpu.duplicate-uid",
    Severity.WARNING,
    title="two processors with one ACPI UID",
    meaning="Two enabled MADT entries have the same UID. What the namespace says of a processor (_PXM, _CST, _PSS) "
    "cannot be told apart for the two; Linux ignores one of them.",
    advice="Update the firmware.",
    specification="ACPI 6.5, section 5.2.12.2; Linux, drivers/acpi/acpi_processor.c, duplicate_processor_ids",
)
INVALID_APIC_ID: Final = rule(
    "cpu.invalid-apic-id",
    Severity.WARNING,
    title="an enabled processor with the broadcast APIC id",
    meaning="All ones is the address of all processors, not of one: the entry is ignored, as Linux does.",
    advice="Update the firmware.",
    specification="Intel SDM volume 3, section 11.6.2.1; Linux, arch/x86/kernel/acpi/boot.c",
)
SMALL_X2APIC_ID: Final = rule(
    "cpu.x2apic-small-id",
    Severity.INFO,
    title="x2APIC entries for APIC ids below 255",
    meaning="Processors with ids below 255 belong into local APIC entries. Where the MADT has such entries too, "
    "Linux ignores these; otherwise it takes them, and an operating system that knows no x2APIC sees no processors.",
    advice="Nothing.",
    specification="ACPI 6.5, section 5.2.12.12",
)
BOTH_FLAGS: Final = rule(
    "cpu.both-flags",
    Severity.INFO,
    title="processors that are enabled and online capable",
    meaning="Online Capable means that a processor that is not enabled may be added later; with an enabled one the "
    "flag must be 0. It is taken as enabled.",
    advice="Nothing.",
    specification="ACPI 6.5, table 5.22",
)
NONE_ENABLED: Final = rule(
    "cpu.none-enabled",
    Severity.ERROR,
    title="no enabled processor",
    meaning="The MADT has local APICs, and not one of them is enabled. An operating system falls back to one "
    "processor.",
    advice="Compare with the table of a running system.",
    specification="ACPI 6.5, section 5.2.12.2: all enabled processors have an entry, the boot processor first",
)
NO_AFFINITY: Final = rule(
    "cpu.srat-missing",
    Severity.WARNING,
    title="processors without a place in the SRAT",
    meaning="There is an SRAT with processors, but these enabled ones are not in it: nobody knows which memory is "
    "near.",
    advice="Update the firmware. Linux puts them on node 0.",
    specification="ACPI 6.5, section 5.2.16: processors present at boot are listed",
)
AFFINITY_ONLY: Final = rule(
    "cpu.srat-unknown",
    Severity.INFO,
    title="the SRAT places processors that the MADT does not have",
    meaning="Enabled affinity entries name APIC ids that are in no MADT entry. Firmware often fills the table up to "
    "what the board could hold.",
    advice="Nothing.",
    specification="ACPI 6.5, section 5.2.16.1",
)
AFFINITY_TWICE: Final = rule(
    "cpu.srat-twice",
    Severity.WARNING,
    title="the SRAT places one processor in two domains",
    meaning="Two enabled affinity entries give one APIC id different proximity domains. The last one counts, as in "
    "Linux.",
    advice="Update the firmware.",
    specification="ACPI 6.5, section 5.2.16.1",
)
PXM_DIFFERS: Final = rule(
    "cpu.pxm-differs",
    Severity.WARNING,
    title="SRAT and namespace disagree about a processor's domain",
    meaning="_PXM of a processor's device, or of one above it, is another proximity domain than the SRAT's. The "
    "SRAT's counts here, as for Linux at boot.",
    advice="Update the firmware.",
    specification="ACPI 6.5, sections 6.2.15 and 5.2.16",
)
KERNEL_DIFFERS: Final = rule(
    "cpu.kernel-differs",
    Severity.WARNING,
    title="the kernel's processors are not those of the MADT",
    meaning="The kernel runs on an APIC id that is no enabled MADT entry, or does not know of an enabled one, or "
    "the MADT enables more than the kernel is willing to hold.",
    advice="Under Xen, dom0's processors are virtual: compare on the bare machine. Otherwise look for maxcpus=, "
    "nr_cpus=, possible_cpus= or nosmt on the kernel's command line, and for processors that were added or taken "
    "away.",
    specification="Linux, Documentation/admin-guide/cputopology.rst and kernel-parameters.txt",
)


class ProcessorState(enum.Enum):
    """What the MADT's flags say of a processor."""

    ENABLED = "enabled"
    HOT_PLUGGABLE = "hot-pluggable"
    """Not enabled, Online Capable: may be added while the system runs."""
    UNSPECIFIED = "not enabled"
    """In a table older than ACPI 6.3, which has no such flag: a placeholder, or one that may be added."""
    DISABLED = "disabled"
    """Cannot be used."""


class Processor(msgspec.Struct, frozen=True):
    """One logical processor."""

    apic_id: int
    """0 to 0xFFFFFFFE; 0 to 0xFE from a local APIC entry."""
    uid: int
    """ACPI processor UID."""
    x2apic: bool
    """From an x2APIC entry."""
    state: ProcessorState
    proximity_domain: int | None
    """From the SRAT, else from _PXM."""
    in_madt: bool
    """False: only the namespace (_MAT) has it."""
    aml_path: str | None
    """Its device in the namespace."""
    cpu: int | None
    """Linux's number, where the kernel runs on it."""


class Processors(msgspec.Struct, frozen=True):
    """All processors with a valid APIC id, in the order of the MADT."""

    processors: tuple[Processor, ...]
    local_apic_address: int | None
    """Physical address of the local APICs' registers; None without a MADT."""
    present: str | None
    """Linux's list of processors that are there, e.g. ``0-7``; None where not recorded."""
    online: str | None
    possible: str | None

    @property
    def enabled(self) -> int:
        """How many are enabled."""
        return sum(processor.state is ProcessorState.ENABLED for processor in self.processors)


class _Entry(msgspec.Struct):
    apic_id: int
    uid: int
    x2apic: bool
    state: ProcessorState
    in_madt: bool = True
    aml_path: str | None = None
    proximity_domain: int | None = None


def observe(
    tables: Sequence[Table],
    namespace: Namespace | None = None,
    source: Source | None = None,
    *,
    virtual: bool = False,
) -> tuple[Processors, tuple[Finding, ...]]:
    """From the first MADT and SRAT, the namespace, and the kernel's files of `source`.

    `virtual`: the kernel's processors are not those of the tables, so neither numbers nor differences mean anything.
    """
    madt_table = next((table for table in tables if isinstance(table.content, Madt)), None)
    notes = Notes(f"table:{madt_table.name}" if madt_table is not None else "table:APIC")
    entries: list[_Entry] = []
    address = None
    if madt_table is not None and isinstance(madt_table.content, Madt):
        address = madt_table.content.local_apic_address
        for entry in madt_table.content.entries:
            if isinstance(entry, LocalApicAddressOverride):
                address = entry.address
        entries = _from_madt(madt_table.content, _has_online_capable(madt_table, tables), notes)
    if namespace is not None:
        _add_namespace(entries, namespace)
    findings = [*_affinities(entries, tables), *notes.findings()]
    if namespace is not None:
        findings += _place_by_pxm(entries, namespace)
    cpus = parse_cpuinfo(_text(source, "proc/cpuinfo")) if source is not None and not virtual else {}
    numbers = {apic_id: cpu for cpu, apic_id in sorted(cpus.items(), reverse=True)}
    processors = Processors(
        processors=tuple(
            Processor(
                apic_id=entry.apic_id,
                uid=entry.uid,
                x2apic=entry.x2apic,
                state=entry.state,
                proximity_domain=entry.proximity_domain,
                in_madt=entry.in_madt,
                aml_path=entry.aml_path,
                cpu=numbers.get(entry.apic_id),
            )
            for entry in entries
        ),
        local_apic_address=address,
        present=_list_of(source, "present"),
        online=_list_of(source, "online"),
        possible=_list_of(source, "possible"),
    )
    return processors, (*findings, *(() if virtual else _compare(processors, numbers)))


def _has_online_capable(madt: Table, tables: Sequence[Table]) -> bool:
    """Whether firmware knows the flag: ACPI 6.3, which is MADT revision 5 or a FADT of 6.3."""
    if madt.header is not None and madt.header.revision >= 5:
        return True
    for table in tables:
        if isinstance(table.content, Fadt) and table.header is not None:
            minor = (table.content.fadt_minor_version or 0) & 0xF
            return (table.header.revision, minor) >= (6, 3)
    return False


def _from_madt(madt: Madt, online_capable: bool, notes: Notes) -> list[_Entry]:
    entries: list[_Entry] = []
    ids: set[int] = set()
    uids: set[int] = set()
    some = enabled = small = both = 0
    has_local_apics = any(
        isinstance(entry, LocalApic) and entry.flags.enabled and entry.apic_id != 0xFF for entry in madt.entries
    )
    for entry in madt.entries:
        if isinstance(entry, LocalApic):
            x2apic, id, invalid = False, entry.apic_id, entry.apic_id == 0xFF
        elif isinstance(entry, LocalX2apic):
            x2apic, id, invalid = True, entry.x2apic_id, entry.x2apic_id == 0xFFFFFFFF
        else:
            continue
        some += 1
        uid, flags = entry.acpi_processor_uid, entry.flags
        both += flags.enabled and flags.online_capable
        if invalid:
            if flags.enabled:
                notes.add(INVALID_APIC_ID, f"UID {uid} has the APIC id {id:#x}")
            continue
        if x2apic and id < 0xFF:
            small += flags.enabled
            if has_local_apics:
                continue
        state = _state(flags.enabled, flags.online_capable, online_capable)
        if state is ProcessorState.ENABLED:
            enabled += 1
            if id in ids:
                notes.add(DUPLICATE_APIC_ID, f"APIC id {id:#x}, the second time with UID {uid}")
                continue
            if uid in uids:
                notes.add(DUPLICATE_UID, f"UID {uid}, the second time with APIC id {id:#x}")
            ids.add(id)
            uids.add(uid)
        if len(entries) < MAX_PROCESSORS:
            entries.append(_Entry(id, uid, x2apic, state))
    if some and not enabled:
        notes.add(NONE_ENABLED, f"{some} entries, none of them enabled and with a valid APIC id")
    if small:
        notes.add(SMALL_X2APIC_ID, f"{small} enabled ones")
    if both:
        notes.add(BOTH_FLAGS, f"{both} of {some}")
    return _without_placeholders(entries, ids)


def _without_placeholders(entries: list[_Entry], ids: set[int]) -> list[_Entry]:
    """An entry that is not enabled often carries the id 0 or that of another: it is no second processor."""
    kept = []
    for entry in entries:
        if entry.state is not ProcessorState.ENABLED:
            if entry.apic_id in ids:
                continue
            ids.add(entry.apic_id)
        kept.append(entry)
    return kept


def _state(enabled: bool, online_capable: bool, known: bool) -> ProcessorState:
    if enabled:
        return ProcessorState.ENABLED
    if online_capable:
        return ProcessorState.HOT_PLUGGABLE
    return ProcessorState.DISABLED if known else ProcessorState.UNSPECIFIED


def _affinities(entries: list[_Entry], tables: Sequence[Table]) -> tuple[Finding, ...]:
    """Proximity domains from the first SRAT."""
    table = next((table for table in tables if isinstance(table.content, Srat)), None)
    if table is None or not isinstance(table.content, Srat):
        return ()
    notes = Notes(f"table:{table.name}")
    narrow = table.header is not None and table.header.revision < 2
    domains: dict[int, int] = {}
    for entry in table.content.entries:
        if isinstance(entry, LocalApicAffinity):
            id, domain = entry.apic_id, entry.proximity_domain & 0xFF if narrow else entry.proximity_domain
        elif isinstance(entry, LocalX2apicAffinity):
            id, domain = entry.x2apic_id, entry.proximity_domain
        else:
            continue
        if not entry.flags.enabled:
            continue
        if domains.setdefault(id, domain) != domain:
            notes.add(AFFINITY_TWICE, f"APIC id {id:#x} is in domain {domains[id]} and in {domain}")
            domains[id] = domain
    for each in entries:
        each.proximity_domain = domains.get(each.apic_id)
    unplaced = [e.apic_id for e in entries if e.state is ProcessorState.ENABLED and e.apic_id not in domains]
    if domains and unplaced:
        notes.add(NO_AFFINITY, f"{len(unplaced)} enabled processors, the first with APIC id {unplaced[0]:#x}")
    unknown = sorted(domains.keys() - {entry.apic_id for entry in entries})
    if unknown:
        notes.add(AFFINITY_ONLY, f"{len(unknown)} APIC ids, the first is {unknown[0]:#x}")
    return notes.findings()


_PROCESSOR_ID: Final = r"ID ([0-9A-Fa-f]{1,2})\b"
"""How the interpreter describes a Processor() object: its id, which is the UID of the MADT, in hexadecimal."""


def _add_namespace(entries: list[_Entry], namespace: Namespace) -> None:
    """Paths of processor devices, and processors that only a _MAT tells of."""
    by_id = {entry.apic_id: entry for entry in entries}
    by_uid: dict[int, _Entry] = {}
    for entry in entries:
        by_uid.setdefault(entry.uid, entry)
    declared = {
        named.path: int(match[1], 16)
        for named in namespace.objects
        if named.type == "Processor" and (match := re.match(_PROCESSOR_ID, named.detail))
    }
    for device in namespace.devices:
        if not (device.processor or device.hid == "ACPI0007"):
            continue
        said = _madt_entry(device.mat)
        if said is not None:
            known = by_id.get(said.apic_id)
            if known is None and len(entries) < MAX_PROCESSORS:
                known = by_id[said.apic_id] = said
                entries.append(said)
        else:
            uid = declared.get(device.path, device.uid)
            known = by_uid.get(uid) if isinstance(uid, int) else None
        if known is not None and known.aml_path is None:
            known.aml_path = device.path


def _madt_entry(mat: str | None) -> _Entry | None:
    """The processor of a _MAT buffer; None for an empty one, and for the broadcast id."""
    for entry in of_mat(mat):
        if isinstance(entry, LocalApic) and entry.apic_id != 0xFF:
            id, x2apic = entry.apic_id, False
        elif isinstance(entry, LocalX2apic) and entry.x2apic_id != 0xFFFFFFFF:
            id, x2apic = entry.x2apic_id, True
        else:
            continue
        state = _state(entry.flags.enabled, entry.flags.online_capable, known=False)
        return _Entry(id, entry.acpi_processor_uid, x2apic, state, in_madt=False)
    return None


def _place_by_pxm(entries: list[_Entry], namespace: Namespace) -> Iterable[Finding]:
    """Proximity domains from _PXM where the SRAT is silent; both where they differ."""
    devices = {device.path: device for device in namespace.devices}
    for entry in entries:
        domain = _pxm(devices, entry.aml_path) if entry.aml_path is not None else None
        if domain is None:
            continue
        if entry.proximity_domain is None:
            entry.proximity_domain = domain
        elif entry.proximity_domain != domain:
            yield PXM_DIFFERS.at(
                f"aml:{entry.aml_path}", f"domain {domain} by _PXM, {entry.proximity_domain} by the SRAT"
            )


def _pxm(devices: Mapping[str, AmlDevice], path: str) -> int | None:
    """_PXM of the device or of the nearest one above that has it."""
    while path != "\\":
        device = devices.get(path)
        if device is not None and device.pxm is not None and 0 <= device.pxm <= 0xFFFFFFFF:
            return device.pxm
        path = parent(path)
    return None


# --- what the kernel says ---------------------------------------------------------------------------------------------

_FIELD: Final = r"(?m)^(processor|apicid)[ \t]*:[ \t]*(\d{1,10})[ \t]*$"


def parse_cpuinfo(text: str) -> dict[int, int]:
    """Linux's processor numbers and their APIC ids, from /proc/cpuinfo of an x86 machine."""
    found: dict[int, int] = {}
    cpu: int | None = None
    for name, number in re.findall(_FIELD, text):
        if name == "processor":
            cpu = int(number)
        elif cpu is not None and len(found) < MAX_PROCESSORS:
            found.setdefault(cpu, int(number))
    return found


def count_cpus(text: str) -> int | None:
    """How many numbers a CPU list like ``0-3,8`` has; None for what is no list."""
    total = 0
    for part in text.strip().split(",") if text.strip() else ():
        match = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", part, re.ASCII)
        if match is None:
            return None
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            return None
        total += last - first + 1
    return total


def _compare(processors: Processors, numbers: Mapping[int, int]) -> Iterable[Finding]:
    """The kernel's processors against the MADT's; `numbers`: Linux's number by APIC id."""
    if not processors.processors:
        return
    enabled = {each.apic_id for each in processors.processors if each.state is ProcessorState.ENABLED}
    known = {each.apic_id for each in processors.processors}
    strange = sorted(numbers.keys() - known)
    if strange:
        yield KERNEL_DIFFERS.at(
            f"cpu:{numbers[strange[0]]}",
            f"the kernel runs on {len(strange)} APIC ids that are in no MADT entry, the first is {strange[0]:#x}",
        )
    present = count_cpus(processors.present) if processors.present is not None else None
    possible = count_cpus(processors.possible) if processors.possible is not None else None
    if present is not None and present < len(enabled):
        yield KERNEL_DIFFERS.at(
            "cpu:present", f"{len(enabled)} processors are enabled, the kernel has {processors.present}"
        )
    if possible is not None and possible < len(enabled):
        yield KERNEL_DIFFERS.at(
            "cpu:possible", f"{len(enabled)} processors are enabled, the kernel has room for {processors.possible}"
        )


def _list_of(source: Source | None, name: str) -> str | None:
    data = source.file(f"sys/devices/system/cpu/{name}") if source is not None else None
    return None if data is None else data.decode("ascii", "replace").strip()[:4096]


def _text(source: Source, path: str) -> str:
    return (source.file(path) or b"").decode("utf-8", "replace")
