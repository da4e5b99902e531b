# SPDX-License-Identifier: MIT
"""Every IOAPIC of a machine and the GSIs that its pins are.

Sources: ACPI 6.5 sections 5.2.12.3 (MADT entry), 5.2.13 (GSIs), 6.2.7 (``_GSB``), 6.2.11 (``_MAT``); Intel 82093AA
section 3.2.2 (version register). No table says how many pins an IOAPIC has: its version register does, which the
kernel printed at boot. Without either the number is inferred, and `Ioapic.pins_from` says from what.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from dom0kit.acpi.tables.madt import InterruptSourceOverride, LocalApic, LocalX2apic, Madt, NmiSource
from dom0kit.acpi.tables.madt import Ioapic as MadtIoapic
from dom0kit.acpi.tables.table import Table
from dom0kit.address import Gsi, IoapicPin, Sbdf
from dom0kit.finding import Finding, Severity, rule
from dom0kit.ioapic.kernel_view import KernelView
from dom0kit.pci.function import BarKind, Function

REACHABLE_PINS: Final = 120
"""The index register has 8 bits and the redirection entries begin at 0x10, two registers each."""
ASSUMED_PINS: Final = 24
"""Of the IOAPIC in every PC chipset since 1996, the 82093AA, and of its descendants until 2015."""
MAX_IOAPICS: Final = 256
"""As many as there are ids."""
PAGE: Final = 0xFFF

NONE: Final = rule(
    "ioapic.none",
    Severity.WARNING,
    title="no IOAPIC",
    meaning="The MADT describes processors with local APICs, but no IOAPIC: no pin-based interrupt can be routed to "
    "them through one. Devices work only with MSI, or the machine runs in 8259 mode.",
    advice="Compare with the table of a running system. Some virtual machines are made so on purpose.",
    specification="ACPI 6.5, section 5.2.12.3: there must be one IOAPIC structure for each IOAPIC in the system",
)
TOO_MANY: Final = rule(
    "ioapic.too-many",
    Severity.ERROR,
    title="more IOAPICs than there can be",
    meaning=f"The tables name more than {MAX_IOAPICS} IOAPICs, but ids have 8 bits. Those beyond are left out.",
    advice="The table is damaged; record it again.",
    specification="ACPI 6.5, table 5.23: the IOAPIC's id has one byte (Linux and Xen: at most 128 IOAPICs)",
)
DUPLICATE_ID: Final = rule(
    "ioapic.duplicate-id",
    Severity.ERROR,
    title="two IOAPICs with one id",
    meaning="Ids name IOAPICs in IOMMU tables and in plans. With two of one id, interrupt remapping cannot tell "
    "which is meant. Linux gives the second another id and then finds no remapping unit for it.",
    advice="Update the firmware.",
    specification="ACPI 6.5, section 5.2.12.3; Linux, arch/x86/kernel/apic/io_apic.c, io_apic_get_unique_id",
)
DUPLICATE_ADDRESS: Final = rule(
    "ioapic.duplicate-address",
    Severity.ERROR,
    title="two IOAPICs at one address",
    meaning="Two entries name the same registers: one of them describes an IOAPIC that is not there, and its GSIs "
    "would program the pins of the other.",
    advice="Update the firmware. The first entry counts.",
    specification="ACPI 6.5, section 5.2.12.3: the address is unique to each IOAPIC",
)
BAD_ADDRESS: Final = rule(
    "ioapic.bad-address",
    Severity.ERROR,
    title="an IOAPIC without an address",
    meaning="The entry's address is 0 (Linux ignores such an IOAPIC), or not a multiple of 16.",
    advice="Update the firmware. In a template that firmware fills in at boot, record the table of the running "
    "machine.",
    specification="ACPI 6.5, table 5.23; Linux, arch/x86/kernel/apic/io_apic.c, bad_ioapic",
)
GSI_OVERLAP: Final = rule(
    "ioapic.gsi-overlap",
    Severity.ERROR,
    title="IOAPICs whose GSIs overlap",
    meaning="One GSI is a pin of two IOAPICs. Linux takes the pin of the one that comes first in the MADT.",
    advice="Update the firmware: the second base is too low for the pins that the first one has.",
    specification="ACPI 6.5, section 5.2.13: each IOAPIC's GSIs follow from its base and its number of inputs",
)
GSI_GAP: Final = rule(
    "ioapic.gsi-gap",
    Severity.INFO,
    title="GSIs between two IOAPICs that are nobody's",
    meaning="An IOAPIC begins behind the last pin of the one before it. Firmware often keeps such room for an "
    "IOAPIC that is switched off.",
    advice="Nothing, unless a `_PRT` names one of these GSIs.",
    specification="ACPI 6.5, section 5.2.13",
)
TOO_MANY_PINS: Final = rule(
    "ioapic.too-many-pins",
    Severity.WARNING,
    title="an IOAPIC that claims more pins than can be reached",
    meaning=f"The version register counts more than {REACHABLE_PINS} redirection entries, but the 8-bit index register "
    "reaches no more. The number is clipped.",
    advice="Nothing, unless a GSI names one of the pins beyond.",
    specification="Intel 82093AA, sections 3.1.1 and 3.2.4: registers from 10h on, two for each pin, an 8-bit index",
)
DIFFERENT_BASE: Final = rule(
    "ioapic.aml-differs",
    Severity.WARNING,
    title="ACPI namespace and MADT disagree about an IOAPIC",
    meaning="An IOAPIC's device in the namespace says another GSI base or id (`_GSB`, `_MAT`) than the MADT's entry "
    "for the same address. The MADT's counts here; Linux uses the namespace's only for IOAPICs added later.",
    advice="Update the firmware.",
    specification="ACPI 6.5, sections 6.2.7 and 6.2.11",
)
INCOMPLETE_DEVICE: Final = rule(
    "ioapic.incomplete-device",
    Severity.INFO,
    title="an IOAPIC's device in the namespace that does not say enough",
    meaning="A device with the id of an IOAPIC has no address in its `_CRS`, or neither `_GSB` nor a usable `_MAT`, "
    "or nothing that gives the IOAPIC an id. The MADT does not have it either. Most often it is a slot for an "
    "IOAPIC that is absent.",
    advice="Nothing, unless an IOAPIC is missing in the list.",
    specification="ACPI 6.5, sections 6.2.7 and 6.2.11; Linux, drivers/acpi/ioapic.c",
)
SECOND_MADT: Final = rule(
    "ioapic.second-madt",
    Severity.WARNING,
    title="a second MADT tells of other IOAPICs",
    meaning="There are two MADTs, and they disagree about the IOAPICs. The first one counts.",
    advice="Update the firmware. Linux can be told to take another one: acpi_apic_instance=.",
    specification="ACPI 6.5, section 5.2.12; Linux, Documentation/admin-guide/kernel-parameters.txt",
)


class PinsFrom(enum.Enum):
    """What told how many pins an IOAPIC has, the best source first."""

    VERSION_REGISTER = "version register"
    BOOT_LOG = "kernel log"
    """The kernel read the version register at boot and printed it."""
    NEXT_BASE = "next IOAPIC's base"
    HIGHEST_GSI = "highest GSI used"
    ASSUMED = "assumed"
    """24."""

    @property
    def inferred(self) -> bool:
        """Whether nobody read the number from the IOAPIC."""
        return self not in (PinsFrom.VERSION_REGISTER, PinsFrom.BOOT_LOG)


class Ioapic(msgspec.Struct, frozen=True):
    """One IOAPIC: its pin n is GSI ``gsi_base + n``."""

    id: int
    """0 to 255."""
    address: int
    """Physical address of its registers."""
    gsi_base: int
    pins: int
    """1 to 120."""
    pins_from: PinsFrom
    version: int | None
    """Version register bits 7:0, e.g. 0x11, 0x20 (has an EOI register); None where nobody read it."""
    in_madt: bool
    aml_path: str | None
    """Its device in the ACPI namespace, where there is one."""
    function: Sbdf | None
    """The PCI function that it is, where it is one."""

    @property
    def gsi_last(self) -> int:
        """GSI of the last pin, inclusive."""
        return self.gsi_base + self.pins - 1


class IoapicSet(msgspec.Struct, frozen=True):
    """All IOAPICs of a machine: those of the MADT in its order, then those that only the namespace has."""

    ioapics: tuple[Ioapic, ...]

    def pin(self, gsi: int) -> IoapicPin | None:
        """The pin that a GSI is: of the first IOAPIC with it, as Linux decides; None beyond every IOAPIC."""
        for ioapic in self.ioapics:
            if ioapic.gsi_base <= gsi <= ioapic.gsi_last:
                return IoapicPin(ioapic.id, gsi - ioapic.gsi_base)
        return None

    def gsi(self, pin: IoapicPin) -> Gsi | None:
        """The GSI of a pin: of the first IOAPIC with its id; None for a pin that is not there."""
        for ioapic in self.ioapics:
            if ioapic.id == pin.ioapic:
                return Gsi(ioapic.gsi_base + pin.pin) if 0 <= pin.pin < ioapic.pins else None
        return None


class IoapicDevice(msgspec.Struct, frozen=True):
    """What a device of the ACPI namespace with the id ACPI0009 or PNP0003 says of its IOAPIC."""

    path: str
    address: int | None
    """Base of the first memory range of its `_CRS`."""
    gsi_base: int | None
    """From `_GSB`, else from `_MAT`."""
    id: int | None
    """From `_MAT`, else from a numeric `_UID`."""
    function: Sbdf | None


class _Declared(msgspec.Struct):
    """An IOAPIC before its pins are known."""

    id: int
    address: int
    gsi_base: int
    in_madt: bool
    aml_path: str | None = None
    function: Sbdf | None = None


def observe(
    tables: Sequence[Table],
    *,
    devices: Iterable[IoapicDevice] = (),
    functions: Sequence[Function] = (),
    kernel: KernelView | None = None,
    gsis: Iterable[int] = (),
    version_registers: Mapping[int, int] | None = None,
) -> tuple[IoapicSet, tuple[Finding, ...]]:
    """The machine's IOAPICs, and what is wrong with them.

    `devices`: see `dom0kit.ioapic.namespace`; `gsis`: GSIs known to be used (`_PRT` and the like; those of the MADT are
    added); `version_registers`: register 1 by the IOAPIC's address, where somebody could read it.
    """
    findings: list[Finding] = []
    declared, used = _from_madts(tables, findings)
    _add_devices(declared, devices, findings)
    by_address = _pci_ioapics(functions)
    used.update(gsis)
    registers = version_registers or {}
    logged = {ioapic.address: ioapic for ioapic in kernel.ioapics if ioapic.gsi_last is not None} if kernel else {}
    ioapics = []
    for each in declared:
        register, log = registers.get(each.address), logged.get(each.address)
        version: int | None = None
        if register is not None:
            version = register & 0xFF
            pins, pins_from = (register >> 16 & 0xFF) + 1, PinsFrom.VERSION_REGISTER
        elif (
            log is not None and log.gsi_first is not None and log.gsi_last is not None and log.gsi_last >= log.gsi_first
        ):
            version = log.version
            pins, pins_from = log.gsi_last - log.gsi_first + 1, PinsFrom.BOOT_LOG
        else:
            pins, pins_from = _inferred(each.gsi_base, declared, used)
        if pins > REACHABLE_PINS:
            findings.append(TOO_MANY_PINS.at(f"ioapic:{each.id}", f"{pins} pins; {REACHABLE_PINS} can be reached"))
            pins = REACHABLE_PINS
        ioapics.append(
            Ioapic(
                id=each.id,
                address=each.address,
                gsi_base=each.gsi_base,
                pins=pins,
                pins_from=pins_from,
                version=version,
                in_madt=each.in_madt,
                aml_path=each.aml_path,
                function=each.function or by_address.get(each.address & ~PAGE),
            )
        )
    findings.extend(_range_findings(ioapics))
    return IoapicSet(tuple(ioapics)), tuple(findings)


def madts(tables: Iterable[Table]) -> list[tuple[str, Madt]]:
    """The MADTs that could be decoded with the names of their tables, in order: the first one counts."""
    return [(table.name, table.content) for table in tables if isinstance(table.content, Madt)]


def _from_madts(tables: Sequence[Table], findings: list[Finding]) -> tuple[list[_Declared], set[int]]:
    """IOAPICs of the first MADT, and the GSIs that it names."""
    found = madts(tables)
    declared: list[_Declared] = []
    if not found:
        return declared, set()
    name, madt = found[0]
    used = {entry.gsi for entry in madt.entries if isinstance(entry, InterruptSourceOverride | NmiSource)}
    entries = _entries(madt)
    if len(entries) > MAX_IOAPICS:
        findings.append(TOO_MANY.at(f"table:{name}", f"more than {MAX_IOAPICS} entries for IOAPICs"))
    for entry in entries[:MAX_IOAPICS]:
        where = f"ioapic:{entry.ioapic_id}"
        if entry.address == 0 or entry.address & 0xF:
            findings.append(BAD_ADDRESS.at(where, f"its address in the MADT is {entry.address:#x}"))
        if entry.address == 0:
            continue
        if any(each.address == entry.address for each in declared):
            message = f"the MADT names {entry.address:#x} again, with GSI base {entry.gsi_base}; the first entry counts"
            findings.append(DUPLICATE_ADDRESS.at(where, message))
            continue
        if any(each.id == entry.ioapic_id for each in declared):
            findings.append(DUPLICATE_ID.at(where, f"the one at {entry.address:#x} has the id of another"))
        declared.append(_Declared(entry.ioapic_id, entry.address, entry.gsi_base, in_madt=True))
    if not declared and any(isinstance(entry, LocalApic | LocalX2apic) for entry in madt.entries):
        findings.append(NONE.at(f"table:{name}", "it has processors with local APICs, and no IOAPIC with an address"))
    first = _identities(madt)
    for other_name, other in found[1:]:
        if _identities(other) != first:
            message = f"{other_name} names {_listed(_identities(other))}; {name} {_listed(first)}"
            findings.append(SECOND_MADT.at(f"table:{other_name}", message))
    return declared, used


def _entries(madt: Madt) -> list[MadtIoapic]:
    """Entries for IOAPICs, one more than are kept at most."""
    return list(itertools.islice((e for e in madt.entries if isinstance(e, MadtIoapic)), MAX_IOAPICS + 1))


def _identities(madt: Madt) -> list[tuple[int, int, int]]:
    return [(entry.ioapic_id, entry.address, entry.gsi_base) for entry in _entries(madt)]


def _listed(identities: list[tuple[int, int, int]]) -> str:
    texts = [f"IOAPIC {id} at {address:#x} with GSI base {base}" for id, address, base in identities[:8]]
    return ", ".join(texts) + (" and more" if len(identities) > 8 else "") if texts else "none"


def _add_devices(declared: list[_Declared], devices: Iterable[IoapicDevice], findings: list[Finding]) -> None:
    """Devices of the namespace: more about an IOAPIC of the MADT, or one that only the namespace has."""
    for device in devices:
        where = f"aml:{device.path}"
        match = next((each for each in declared if each.address == device.address), None) or next(
            (each for each in declared if device.address is None and each.gsi_base == device.gsi_base), None
        )
        if match is not None:
            match.aml_path = match.aml_path or device.path
            match.function = match.function or device.function
            if device.gsi_base is not None and device.gsi_base != match.gsi_base:
                message = f"GSI base {device.gsi_base}, in the MADT {match.gsi_base}"
                findings.append(DIFFERENT_BASE.at(where, message))
            continue
        missing = [
            name
            for name, value in (("address", device.address or None), ("GSI base", device.gsi_base), ("id", device.id))
            if value is None
        ]
        if device.address is None or device.gsi_base is None or device.id is None or missing:
            findings.append(INCOMPLETE_DEVICE.at(where, f"it has no {' and no '.join(missing)}"))
            continue
        if len(declared) >= MAX_IOAPICS:
            findings.append(TOO_MANY.at(where, f"{MAX_IOAPICS} others are there already"))
            return
        if any(each.id == device.id for each in declared):
            message = f"the one at {device.address:#x}, which only {device.path} tells of, has the id of another"
            findings.append(DUPLICATE_ID.at(f"ioapic:{device.id}", message))
        declared.append(
            _Declared(device.id, device.address, device.gsi_base, False, aml_path=device.path, function=device.function)
        )


def _pci_ioapics(functions: Sequence[Function]) -> dict[int, Sbdf]:
    """Functions that are IOAPICs, by the page that their first BAR maps (PCI class 08h 00h, interface 10h or 20h)."""
    found: dict[int, Sbdf] = {}
    for function in functions:
        if function.class_code in (0x080010, 0x080020):
            for bar in function.bars:
                if bar.kind is not BarKind.IO and bar.address:
                    found.setdefault(bar.address & ~PAGE, function.sbdf)
                    break
    return found


def _inferred(base: int, declared: list[_Declared], used: set[int]) -> tuple[int, PinsFrom]:
    """How many pins one with this base has, when nobody read it."""
    following = min((each.gsi_base for each in declared if each.gsi_base > base), default=None)
    if following is not None and following - base <= REACHABLE_PINS:
        return following - base, PinsFrom.NEXT_BASE
    end = base + REACHABLE_PINS if following is None else min(following, base + REACHABLE_PINS)
    highest = max((gsi for gsi in used if base <= gsi < end), default=base)
    if highest - base >= ASSUMED_PINS:
        return highest - base + 1, PinsFrom.HIGHEST_GSI
    return ASSUMED_PINS, PinsFrom.ASSUMED


def _range_findings(ioapics: list[Ioapic]) -> list[Finding]:
    """Overlaps of known ranges, and gaps behind a known number of pins."""
    findings = []
    ordered = sorted(ioapics, key=lambda ioapic: ioapic.gsi_base)
    for lower, upper in itertools.pairwise(ordered):
        where = f"ioapic:{upper.id}"
        if upper.gsi_base <= lower.gsi_last:
            findings.append(
                GSI_OVERLAP.at(
                    where,
                    f"GSIs from {upper.gsi_base} on, but IOAPIC {lower.id} has {lower.gsi_base} to {lower.gsi_last}",
                )
            )
        elif upper.gsi_base > lower.gsi_last + 1 and not lower.pins_from.inferred:
            findings.append(
                GSI_GAP.at(where, f"nobody has GSIs {lower.gsi_last + 1} to {upper.gsi_base - 1}, before this IOAPIC's")
            )
    return findings
