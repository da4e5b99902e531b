# SPDX-License-Identifier: MIT
"""The core's invariants, checked on what can be read of it: its answers, the hardware's registers, the log of accesses.

Invariant 2: no two interrupts that the core programs share a (processor, vector) pair, and none is an SMI, NMI, INIT or
ExtINT on a domain's word. Invariant 3: a domain reaches nothing that is not its own. Invariant 4: a live entry is
masked first, read back, then the high word is written, then the low one; the trigger changes only while remote IRR is
clear; a pure mask is one write. None of these functions asks the model what the core should have done.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from dom0kit import abi
from dom0kit.abi import Format, Information, InterruptFlag, Kind, Mode, Op, Physdev, Report, Status
from dom0kit.hypercall.core_library import Access, ModelMachine
from dom0kit.hypercall.shared_info import SharedInfo, parse_shared_info
from dom0kit.layout import layout
from dom0kit.walker import Notes
from tests.hv_core.model import LEVEL, LOGICAL, MASKED, REMAPPABLE, REMOTE_IRR, STATUS_BITS, Place

NONE = abi.NONE


class Row(msgspec.Struct, frozen=True):
    """One answer of READ_INTERRUPT."""

    kind: int
    pirq: int
    gsi: int
    device: tuple[int, int, int]
    entry: int
    cpu: int
    vector: int
    flags: int

    @property
    def name(self) -> tuple[str, int]:
        """What tells it from the others of its domain: a message has a pIRQ always, a GSI not."""
        return ("gsi", self.gsi) if self.kind == Kind.GSI else ("pirq", self.pirq)


class Readings(msgspec.Struct, frozen=True):
    """The core and its IOAPICs at one moment."""

    interrupts: dict[int, dict[tuple[str, int], Row]]
    """Of each domain."""
    entries: dict[Place, int]
    """The hardware's."""
    views: dict[Place, int]
    """What the pin's domain reads."""
    information: Information
    """Without the counters of calls."""
    reports: tuple[tuple[int, int, int], ...]
    shared: bytes
    shared_at: int
    digest: int


class Reader:
    """All calls to a modelled machine go through here, so that they can be counted."""

    def __init__(self, real: ModelMachine) -> None:
        self.real = real
        self.calls = self.refused = 0

    def call(self, domain: int, number: int, command: int, data: bytes) -> tuple[Status, bytes]:
        status, answer = self.real.call(domain, number, command, data)
        if status is not Status.FAULT:  # which the core never sees
            self.calls += 1
            self.refused += status is not Status.OK
        return status, answer

    def interrupts(self, domain: int) -> dict[tuple[str, int], Row]:
        found: dict[tuple[str, int], Row] = {}
        cursor = 0
        while True:
            data = struct.pack("<HHIII32x", abi.VERSION, 48, 0, domain, cursor)
            status, answer = self.call(0, abi.HYPERCALL_DOM0KIT, Op.READ_INTERRUPT, data)
            if status is Status.NOT_FOUND:
                return found
            assert status is Status.OK, status
            cursor, kind, pirq, gsi, *device, entry, cpu, vector, flags = struct.unpack_from("<4IHBB4I", answer, 12)
            if kind != Kind.NONE:
                row = Row(kind, pirq, gsi, tuple(device), entry, cpu, vector, flags)
                assert row.name not in found, "listed twice"
                found[row.name] = row

    def word(self, domain: int, place: Place, high: bool) -> tuple[Status, int]:
        data = struct.pack("<QII", place[0], 0x10 + 2 * place[1] + high, 0)
        status, answer = self.call(domain, abi.HYPERCALL_PHYSDEV, Physdev.APIC_READ, data)
        return status, struct.unpack_from("<I", answer, 12)[0]

    def view(self, domain: int, place: Place) -> int:
        (low_status, low), (high_status, high) = self.word(domain, place, False), self.word(domain, place, True)
        assert low_status is high_status is Status.OK, f"domain {domain} cannot read its pin {place}"
        return low | high << 32

    def information(self) -> Information:
        size = layout(Information).size
        data = struct.pack("<HHI", abi.VERSION, size, 0) + bytes(size - 8)
        status, answer = self.call(0, abi.HYPERCALL_DOM0KIT, Op.INFORMATION, data)
        assert status is Status.OK
        parsed = layout(Information).parse(answer, 0, size, Notes("information"))
        assert parsed is not None
        return parsed

    def reports(self, count: int) -> tuple[tuple[int, int, int], ...]:
        found = []
        for index in range(count):
            data = struct.pack("<HHIII16x", abi.VERSION, 32, 0, index, 0)
            status, answer = self.call(0, abi.HYPERCALL_DOM0KIT, Op.READ_REPORT, data)
            assert status is Status.OK
            found.append(struct.unpack_from("<IQQ", answer, 12))
        return tuple(found)

    def read(self, owners: Mapping[Place, int], domains: Iterable[int], every: Iterable[Place]) -> Readings:
        """`owners`: the domain of each pin to look at; `every`: each pin of the hardware."""
        information = self.information()
        return Readings(
            {domain: self.interrupts(domain) for domain in domains},
            {place: self.real.entry(*place) for place in every},
            {place: self.view(domain, place) for place, domain in owners.items()},
            msgspec.structs.replace(information, calls=0, calls_refused=0),
            self.reports(information.reports),
            self.real.shared_info(),
            self.real.shared_at(),
            self.real.digest(),
        )


# ---- A refused call changes nothing ----


def check_unchanged(before: Readings, after: Readings) -> None:
    for name in Readings.__struct_fields__:
        assert getattr(after, name) == getattr(before, name), f"a refused call changed {name}"


# ---- Invariant 2 ----


def check_vectors(readings: Readings) -> None:
    """No two interrupts, of whatever domain, have the same vector on the same processor."""
    seen: dict[tuple[int, int], Row] = {}
    for rows in readings.interrupts.values():
        for row in rows.values():
            if row.cpu == NONE:
                continue
            assert row.vector in range(0x10, 0xFF), row
            assert (row.cpu, row.vector) not in seen, f"{row} and {seen[row.cpu, row.vector]} share a vector"
            seen[row.cpu, row.vector] = row


def is_remapped(entry: int, format: Format) -> bool:
    return format is Format.AMD_VI or (format is Format.VTD and bool(entry & REMAPPABLE))


def check_entries(readings: Readings, mode: Mode, format: Format, firmware: Mapping[Place, int]) -> None:
    """The same of the hardware's unmasked entries, and that none is anything but a plain interrupt.

    `firmware`: the entries it left; one that still is as it was is firmware's word, not a domain's.
    """
    seen: dict[tuple[int, int], Place] = {}
    for place, full in readings.entries.items():
        entry = full & ~STATUS_BITS
        if entry & MASKED or entry == firmware.get(place):
            continue
        if is_remapped(entry, format):
            if mode is Mode.DIRECT:
                continue  # where the handle leads is between the domain and its remapper
            handle = entry & 0x7FF if format is Format.AMD_VI else entry >> 49 | (entry >> 11 & 1) << 15
            pair = (place[0] if format is Format.AMD_VI else 0, handle)
        else:
            assert entry >> 8 & 7 in (0, 1), f"{place} carries delivery mode {entry >> 8 & 7}"
            if entry & LOGICAL:
                continue
            pair = (entry >> 56 | (entry >> 49 & 0x7F) << 8, entry & 0xFF)
        assert pair not in seen, f"{place} and {seen[pair]} lead to the same vector"
        seen[pair] = place


def check_translation(
    readings: Readings, mode: Mode, format: Format, apic_ids: Sequence[int], firmware: Mapping[Place, int]
) -> None:
    """The hardware's entries, the views and the list of interrupts tell the same of every GSI."""
    by_gsi = {row.gsi: row for rows in readings.interrupts.values() for row in rows.values() if row.kind == Kind.GSI}
    bases = {each.address: each.gsi_base for each in shared(readings).ioapics}
    for place, view in readings.views.items():
        entry, row = readings.entries[place], by_gsi.get(bases[place[0]] + place[1])
        assert (entry ^ view) & (MASKED | LEVEL | REMOTE_IRR) == 0, f"{place} is {entry:#x}, its domain reads {view:#x}"
        if row is not None:
            assert bool(row.flags & InterruptFlag.MASKED) == bool(view & MASKED)
            assert bool(row.flags & InterruptFlag.LEVEL) == bool(view & LEVEL)
        if entry & MASKED:
            continue
        assert row is not None, f"{place} is unmasked and not listed"
        if mode is Mode.DIRECT:
            assert entry == view, "in direct mode the view is the entry of the hardware"
        if is_remapped(entry, format) or row.cpu == NONE or entry & ~STATUS_BITS == firmware.get(place):
            continue
        assert entry & 0xFF == row.vector
        if not entry & LOGICAL:
            assert entry >> 56 | (entry >> 49 & 0x7F) << 8 == apic_ids[row.cpu]


def shared(readings: Readings) -> SharedInfo:
    """shared_info, whole: magic, version and checksum are right."""
    assert not any(readings.shared[: abi.SHARED_INFO_XEN_BYTES]), "Xen's part is all zero"
    return parse_shared_info(readings.shared)


# ---- Invariant 3 ----


def check_reach(before: Readings, after: Readings, caller: int, owners: Mapping[Place, int]) -> None:
    """A call of a domain other than 0 changed nothing but what is that domain's. `owners`: before the call."""
    if caller == 0:
        return
    for domain, rows in before.interrupts.items():
        if domain != caller:
            assert after.interrupts[domain] == rows, f"domain {caller} changed an interrupt of domain {domain}"
    for readings in ("entries", "views"):
        old, new = getattr(before, readings), getattr(after, readings)
        for place in old:
            if owners.get(place, 0) != caller:
                assert new[place] & ~STATUS_BITS == old[place] & ~STATUS_BITS, f"domain {caller} changed pin {place}"
    for name in ("information", "reports", "shared", "shared_at"):
        ours, theirs = getattr(after, name), getattr(before, name)
        if name == "information":  # which counts the messages of all domains
            ours = msgspec.structs.replace(ours, messages=theirs.messages)
        assert ours == theirs, f"domain {caller} changed {name}"


def check_views(reader: Reader, owners: Mapping[Place, int], domains: Iterable[int]) -> None:
    """No domain reads another's pin, nor another's list of interrupts."""
    domains = list(domains)
    for place, owner in owners.items():
        for domain in domains:
            if domain != owner:
                assert reader.word(domain, place, False)[0] is Status.NOT_PERMITTED
    for domain in domains:
        for other in domains:
            if domain not in (0, other):
                data = struct.pack("<HHIII32x", abi.VERSION, 48, 0, other, 0)
                status, _ = reader.call(domain, abi.HYPERCALL_DOM0KIT, Op.READ_INTERRUPT, data)
                assert status is Status.NOT_PERMITTED


# ---- Invariant 4 ----


def check_order(log: Sequence[Access], before: Mapping[Place, int], status: Status) -> None:
    """Plays the writes of one call onto the hardware's entries as they were `before` it, status bits too."""
    entries = dict(before)
    writes: dict[Place, list[Access]] = {}
    read_back: dict[Place, bool] = dict.fromkeys(entries, True)
    irr_clear: dict[Place, bool] = {}
    for access in log:
        place = (access.address, (access.index - 0x10) // 2)
        if access.index < 0x10:
            assert not access.write, "a write to a register that no call may change"
            continue
        is_low = access.index % 2 == 0
        if not access.write:
            if is_low:
                read_back[place], irr_clear[place] = True, not access.value & REMOTE_IRR
            continue
        assert status is Status.OK, "a refused call wrote to the hardware"
        writes.setdefault(place, []).append(access)
        entry = entries[place]
        if is_low:
            changed = (entry ^ access.value) & 0xFFFFFFFF & ~STATUS_BITS
            if not entry & MASKED:
                assert changed | MASKED == MASKED, "a live entry is masked before anything else changes"
            if changed & LEVEL:
                assert irr_clear.get(place), "the trigger changes only while remote IRR is seen to be clear"
            entries[place] = entry & ~0xFFFFFFFF | access.value
            read_back[place] = False
        else:
            assert entry & MASKED, "the high word of a live entry changes"
            if not before[place] & MASKED:
                assert read_back[place], "the mask is read back before the high word changes"
            entries[place] = entry & 0xFFFFFFFF | access.value << 32
    for place, done in writes.items():
        changed = (entries[place] ^ before[place]) & ~STATUS_BITS
        assert len(done) <= 3, "mask, high word, low word, and no more"
        if not (entries[place] & before[place] & MASKED):
            assert done[-1].index % 2 == 0, "the low word comes last"
        if changed == MASKED:
            assert len(done) == 1, "a pure mask is one write of the low word"


def firmware_reports(readings: Readings) -> list[tuple[Report, int, int]]:
    return [(Report(code), where, value) for code, where, value in readings.reports]
