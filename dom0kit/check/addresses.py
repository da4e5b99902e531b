# SPDX-License-Identifier: MIT
"""Addresses that two things claim: registers, ECAM, reserved DMA memory and BARs against the firmware's memory map."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from dom0kit.acpi.resources import AddressRange, FixedMemory, Memory, RangeKind
from dom0kit.acpi.tables.common import AddressSpace
from dom0kit.acpi.tables.hpet import Hpet
from dom0kit.acpi.tables.mcfg import Mcfg
from dom0kit.check.rules import Told, View, check, shown
from dom0kit.finding import Severity
from dom0kit.iommu.facts import RegionSource
from dom0kit.pci.function import BarKind

_PAGE = 0x1000
_RAM = ("System RAM", "Persistent Memory", "Persistent Memory (legacy)")


class _Range(NamedTuple):
    first: int
    last: int
    """Inclusive."""

    def __str__(self) -> str:
        return f"{self.first:#x} to {self.last:#x}"


def _merged(ranges: Iterable[_Range]) -> list[_Range]:
    """Ascending, without overlaps; neighbours become one."""
    merged: list[_Range] = []
    for each in sorted(ranges):
        if merged and each.first <= merged[-1].last + 1:
            merged[-1] = _Range(merged[-1].first, max(merged[-1].last, each.last))
        else:
            merged.append(each)
    return merged


def _covers(merged: list[_Range], wanted: _Range) -> bool:
    at = bisect_right(merged, (wanted.first, 1 << 65)) - 1
    return at >= 0 and merged[at].last >= wanted.last


def _touched(merged: list[_Range], wanted: _Range) -> _Range | None:
    """The first range with an address in common."""
    at = max(bisect_right(merged, (wanted.first, 1 << 65)) - 1, 0)
    for each in merged[at : at + 2]:
        if each.first <= wanted.last and wanted.first <= each.last:
            return each
    return None


def _of_map(view: View, *, ram: bool) -> list[_Range]:
    """What firmware's map calls memory, or anything else; empty without a map."""
    memory = view.platform.memory
    if memory is None:
        return []
    return _merged(_Range(of.start, of.end) for of in memory.map if (of.type in _RAM) is ram)


def _motherboard(view: View) -> list[_Range] | None:
    """Memory that devices PNP0C02 and PNP0C01 of the namespace hold; None where that is not known for sure."""
    if not view.devices:
        return None
    found = []
    for device in view.devices:
        if not {device.hid, *device.cids} & {"PNP0C02", "PNP0C01"}:
            continue
        evaluation = device.evaluation("_CRS")
        if evaluation is not None and not (evaluation.ok and evaluation.certain):
            return None
        for item in device.crs or ():
            if isinstance(item, FixedMemory):
                found.append(_Range(item.address, item.address + max(item.length, 1) - 1))
            elif isinstance(item, Memory) or (isinstance(item, AddressRange) and item.kind is RangeKind.MEMORY):
                found.append(_Range(item.minimum, item.minimum + max(item.length, 1) - 1))
    return _merged(found)


def _windows(view: View) -> Iterator[tuple[str, str, _Range]]:
    """Each ECAM window: table, a name for people, addresses. Those without a bus or an address are left out."""
    for where, mcfg in view.tables(Mcfg):
        for of in mcfg.allocations:
            if of.base_address and of.end_bus >= of.start_bus:
                window = _Range(of.base_address + (of.start_bus << 20), of.base_address + (of.end_bus + 1 << 20) - 1)
                yield where, f"segment {of.segment:#06x} bus {of.start_bus:#04x} to {of.end_bus:#04x}", window


@check(
    "memory.ecam-not-reserved",
    Severity.WARNING,
    title="config space that nobody reserves",
    meaning="An ECAM window of the MCFG is neither reserved in the firmware's memory map nor held by a motherboard "
    "device of the namespace. Linux and Xen do not use such a window: without it there is no extended config space.",
    advice="Update the firmware.",
    specification="PCI Firmware Specification 3.3, section 4.1.2; Linux arch/x86/pci/mmconfig-shared.c "
    "(pci_mmcfg_reserved); Xen arch/x86/x86_64/mmconfig-shared.c",
)
def ecam_not_reserved(view: View) -> Iterator[Told]:
    reserved, motherboard = _of_map(view, ram=False), _motherboard(view)
    if not reserved or motherboard is None:
        return
    held = _merged((*reserved, *motherboard))
    for where, name, window in _windows(view):
        if not _covers(held, window) and not _covers(held, _first_bus(window)):
            yield where, f"{name} at {window}"


def _first_bus(window: _Range) -> _Range:
    return _Range(window.first, window.first + (1 << 20) - 1)


@check(
    "memory.ecam-not-in-namespace",
    Severity.INFO,
    title="config space that no motherboard device holds",
    meaning="No device PNP0C02 has the ECAM window of the MCFG in its _CRS, which firmware must provide. Linux then "
    "believes the memory map; Xen does not use the window before dom0 has told it that it is reserved.",
    advice="Nothing where the memory map reserves it. Under Xen see that dom0 makes the call (dom0kit hv xen).",
    specification="PCI Firmware Specification 3.3, section 4.1.2 and note 2 of table 4-2",
)
def ecam_not_in_namespace(view: View) -> Iterator[Told]:
    held = _motherboard(view)
    for where, name, window in _windows(view) if held is not None else ():
        if held is not None and not _covers(held, window) and not _covers(held, _first_bus(window)):
            yield where, f"{name} at {window}"


@check(
    "memory.ecam-short",
    Severity.WARNING,
    title="config space that reaches beyond what is reserved",
    meaning="The MCFG counts more buses than the reserved range has room for: config accesses to the last buses go to "
    "whatever lies behind, perhaps memory.",
    advice="Update the firmware. Linux shortens the window where the namespace says so.",
    specification="PCI Firmware Specification 3.3, section 4.1.2; Linux arch/x86/pci/mmconfig-shared.c "
    "(is_mmconf_reserved)",
)
def ecam_short(view: View) -> Iterator[Told]:
    motherboard = _motherboard(view)
    held = _merged((*_of_map(view, ram=False), *motherboard)) if motherboard is not None else []
    for where, name, window in _windows(view):
        if not _covers(held, window) and _covers(held, _first_bus(window)):
            yield where, f"{name} at {window}, reserved is {_touched(held, window)}"


class _Registers(NamedTuple):
    where: str
    what: str
    range: _Range


def _registers(view: View) -> Iterator[_Registers]:
    """Registers that no BAR tells of."""
    for ioapic in view.platform.ioapics:
        yield _Registers(f"ioapic:{ioapic.id}", "the IOAPIC's", _Range(ioapic.address, ioapic.address + 0xFF))
    processors = view.platform.processors
    if processors is not None and processors.local_apic_address:
        base = processors.local_apic_address
        yield _Registers("table:APIC", "the local APICs'", _Range(base, base + _PAGE - 1))
    for where, hpet in view.tables(Hpet):
        if hpet.base_address.space is AddressSpace.SYSTEM_MEMORY and hpet.base_address.address:
            base = hpet.base_address.address
            yield _Registers(where, "the HPET's", _Range(base, base + 0x3FF))
    for unit in view.platform.iommu.units if view.platform.iommu is not None else ():
        if unit.register_base:
            range = _Range(unit.register_base, unit.register_base + (unit.register_bytes or _PAGE) - 1)
            yield _Registers(f"iommu:{unit.index}", "the unit's", range)


@check(
    "memory.registers-in-ram",
    Severity.ERROR,
    title="registers where firmware's map has memory",
    meaning="A table places the registers of an IOAPIC, local APIC, HPET or IOMMU, or an ECAM window, into what the "
    "firmware's memory map calls usable memory. The OS gives that memory away; reading the registers reads programs.",
    advice="Update the firmware; do not use this unit.",
    specification="ACPI 6.5, section 15.4; Linux drivers/iommu/intel/dmar.c, arch/x86/kernel/hpet.c",
)
def registers_in_ram(view: View) -> Iterator[Told]:
    ram = _of_map(view, ram=True)
    for where, what, range in _registers(view):
        if (touched := _touched(ram, range)) is not None:
            yield where, f"{what} registers at {range.first:#x}, memory from {touched}"
    for where, name, window in _windows(view):
        if (touched := _touched(ram, window)) is not None:
            yield where, f"{name} at {window}, memory from {touched}"


@check(
    "memory.registers-overlap",
    Severity.ERROR,
    title="registers of two units at one address",
    meaning="Two of IOAPICs, local APICs, HPETs and IOMMUs have addresses in common: one of the tables is wrong, and "
    "writing one programs the other.",
    advice="Update the firmware.",
    specification="ACPI 6.5, sections 5.2.12.3 and 5.2.12; Intel VT-d 4.1, section 8.3",
)
def registers_overlap(view: View) -> Iterator[Told]:
    # Two IOAPICs at one address, and two IOMMUs, have rules of their own.
    furthest: _Registers | None = None
    for each in sorted(_registers(view), key=lambda of: (of.range, of.where)):
        if furthest is not None and each.range.first <= furthest.range.last and each.what != furthest.what:
            yield each.where, f"{each.what} at {each.range}; {furthest.where} has {furthest.range}"
        if furthest is None or each.range.last > furthest.range.last:
            furthest = each


@check(
    "memory.ecam-over-registers",
    Severity.WARNING,
    title="config space where there are registers or BARs",
    meaning="An ECAM window of the MCFG has addresses of an IOAPIC, the local APICs, an HPET, an IOMMU or a BAR in "
    "it: the table counts more buses than the host bridge decodes. Whoever maps the whole window, as a hypervisor "
    "does that keeps it from domains, takes these registers along.",
    advice="Update the firmware. Linux shortens the window where the namespace reserves less.",
    specification="PCI Firmware Specification 3.3, section 4.1.2; Linux arch/x86/pci/mmconfig-shared.c",
)
def ecam_over_registers(view: View) -> Iterator[Told]:
    for where, name, window in _windows(view):
        inside = [of.where for of in _registers(view) if _touched([window], of.range)]
        inside += [f"{of} {bar}" for of, bar, range in _bars(view) if _touched([window], range)]
        if inside:
            yield where, f"{name} at {window}: {shown(inside, 4)}"


@check(
    "iommu.unit-twice",
    Severity.ERROR,
    title="two IOMMUs with one set of registers",
    meaning="Two units of the table have the same register base: what is set up for one is undone for the other.",
    advice="Update the firmware.",
    specification="Intel VT-d 4.1, section 8.3; AMD IOMMU 3.09, section 5.2.2.1",
)
def unit_twice(view: View) -> Iterator[Told]:
    first: dict[int, int] = {}
    for unit in view.platform.iommu.units if view.platform.iommu is not None else ():
        if unit.register_base and first.setdefault(unit.register_base, unit.index) != unit.index:
            yield f"iommu:{unit.index}", f"registers at {unit.register_base:#x}, as unit {first[unit.register_base]}"


def _regions(view: View) -> Iterator[tuple[str, str, _Range]]:
    """Reserved DMA memory that has an end: where, a name for people, addresses."""
    for region in view.platform.iommu.reserved if view.platform.iommu is not None else ():
        if region.limit >= region.base:
            name = "rmrr" if region.source is RegionSource.RMRR else "ivmd"
            yield f"{name}:{region.base:#x}", region.source.value, _Range(region.base, region.limit)


@check(
    "iommu.region-not-reserved",
    Severity.WARNING,
    title="reserved DMA memory outside reserved memory",
    meaning="An RMRR or IVMD is not wholly inside ranges that the firmware's memory map reserves: the OS may use pages "
    "of it for something else while a device writes there. Linux logs a firmware bug; Xen maps the region only with a "
    "warning.",
    advice="Update the firmware.",
    specification="Intel VT-d 4.1, section 8.4: reserved in the map of the firmware; Linux "
    "arch/x86/include/asm/iommu.h (arch_rmrr_sanity_check); Xen drivers/passthrough/vtd/dmar.c",
)
def region_not_reserved(view: View) -> Iterator[Told]:
    reserved = _of_map(view, ram=False)
    for where, name, range in _regions(view) if reserved else ():
        if not _covers(reserved, range):
            yield where, f"{name} {range}"


@check(
    "iommu.region-in-ram",
    Severity.ERROR,
    title="reserved DMA memory inside usable memory",
    meaning="An RMRR or IVMD covers what the firmware's memory map calls usable: the OS will give these pages to "
    "programs, and the device will write over them.",
    advice="Update the firmware. Until then turn off what the region is for (USB legacy support, the integrated "
    "graphics, the management controller), or exclude the range (memmap=).",
    specification="Intel VT-d 4.1, section 8.4; ACPI 6.5, section 15.2",
)
def region_in_ram(view: View) -> Iterator[Told]:
    ram = _of_map(view, ram=True)
    for where, name, range in _regions(view):
        if (touched := _touched(ram, range)) is not None:
            yield where, f"{name} {range}, memory from {touched}"


@check(
    "iommu.region-alignment",
    Severity.WARNING,
    title="reserved DMA memory that is not whole pages",
    meaning="An RMRR or IVMD does not begin and end with a page of 4 KiB. Mapping it for its device also maps what "
    "else lies in its first and last page.",
    advice="Update the firmware.",
    specification="Intel VT-d 4.1, section 8.4: base is 4 KiB-aligned, limit is the last byte of a page",
)
def region_alignment(view: View) -> Iterator[Told]:
    for where, name, range in _regions(view):
        if range.first % _PAGE or (range.last + 1) % _PAGE:
            yield where, f"{name} {range}"


@check(
    "iommu.region-beyond-width",
    Severity.WARNING,
    title="reserved DMA memory beyond what DMA reaches",
    meaning="An RMRR or IVMD ends above the number of address bits that the same table says DMA has.",
    advice="Update the firmware.",
    specification="Intel VT-d 4.1, section 8.1, Host Address Width; AMD IOMMU 3.09, section 5.2.1, PASize",
)
def region_beyond_width(view: View) -> Iterator[Told]:
    facts = view.platform.iommu
    if facts is None or not facts.address_bits:
        return
    for where, name, range in _regions(view):
        if range.last >> facts.address_bits:
            yield where, f"{name} {range}, and DMA has {facts.address_bits} bits"


@check(
    "iommu.region-overlap",
    Severity.INFO,
    title="reserved DMA memory described twice",
    meaning="Two RMRRs or IVMDs have addresses in common. Their functions share this memory.",
    advice="Nothing, unless the functions are to go to different domains.",
    specification="Intel VT-d 4.1, section 8.4",
)
def region_overlap(view: View) -> Iterator[Told]:
    furthest: tuple[str, str, _Range] | None = None
    for each in sorted(_regions(view), key=lambda of: (of[2], of[0])):
        if furthest is not None and each[2].first <= furthest[2].last:
            yield each[0], f"{each[1]} {each[2]}, and {furthest[1]} {furthest[2]}"
        if furthest is None or each[2].last > furthest[2].last:
            furthest = each


def _bars(view: View) -> Iterator[tuple[str, str, _Range]]:
    """Memory that functions decode now, as far as its size is known."""
    for function in view.read:
        if not function.command & 2:
            continue
        for bar in function.bars:
            if bar.kind is not BarKind.IO and bar.address and bar.size and not bar.virtual:
                yield function.where, f"BAR {bar.index}", _Range(bar.address, bar.address + bar.size - 1)


@check(
    "pci.bar-in-ram",
    Severity.ERROR,
    title="a BAR inside usable memory",
    meaning="The function decodes addresses that the firmware's memory map calls usable memory. The host bridge sends "
    "accesses to memory, so the function cannot be reached, and its driver overwrites memory.",
    advice="Have the kernel assign addresses again (pci=realloc), or update the firmware.",
    specification="PCI Local Bus 3.0, section 6.2.5; ACPI 6.5, section 15.2",
)
def bar_in_ram(view: View) -> Iterator[Told]:
    ram = _of_map(view, ram=True)
    for where, name, range in _bars(view) if ram else ():
        if (touched := _touched(ram, range)) is not None:
            yield where, f"{name} {range}, memory from {touched}"


@check(
    "pci.bar-in-registers",
    Severity.ERROR,
    title="a BAR over the machine's own registers",
    meaning="The function decodes addresses of an IOAPIC, the local APICs, an HPET or an IOMMU, and is not that unit "
    "itself: one of the two cannot be reached, and a domain that owns the function could program it.",
    advice="Do not assign the function; have the kernel assign addresses again (pci=realloc), or update the firmware.",
    specification="PCI Local Bus 3.0, section 6.2.5",
)
def bar_in_registers(view: View) -> Iterator[Told]:
    # Host bridges and system peripherals (class 06h 00h, 08h) show these very registers as BARs of their own.
    itself = {
        of.where for of in view.read if of.class_code >> 16 == 8 or of.class_code >> 8 in (0x0600, 0x0601, 0x0680)
    }
    for where, name, range in _bars(view):
        for unit in _registers(view):
            if where not in itself and range.first <= unit.range.last and unit.range.first <= range.last:
                yield where, f"{name} {range}, {unit.what} registers of {unit.where} are {unit.range}"
