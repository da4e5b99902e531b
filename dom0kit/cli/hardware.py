# SPDX-License-Identifier: MIT
"""What a verb reads of this machine's interrupt hardware: redirection entries, MSI-X tables; no verb itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dom0kit.cli import Unusable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dom0kit.address import IoapicPin, Sbdf
    from dom0kit.hypercall.kernel_module import KernelModule
    from dom0kit.hypercall.shared_info import SharedIoapicEntry
    from dom0kit.hypercall.xen import Xen
    from dom0kit.ioapic.redirection import RedirectionEntry
    from dom0kit.msi.messages import MessageFormat, MsiMessage
    from dom0kit.platform import Platform

    Entries = list[tuple[SharedIoapicEntry, list[tuple[int, int, RedirectionEntry]]]]
    Table = Sequence[tuple[MsiMessage, bool]]


def redirection_entries(hypervisor: KernelModule | Xen, *, hardware: bool) -> Entries:
    """(pin, 64 bits, decoded) of every pin of each IOAPIC. Unusable where they cannot be read.

    `hardware`: the registers themselves, for which every processor stands still, by the module alone; else the
    hypervisor's answers.
    """
    from dom0kit.abi import Format
    from dom0kit.hypercall.interface import HypercallRefused
    from dom0kit.hypercall.xen import Xen
    from dom0kit.ioapic.redirection import EntryFormat, decode

    formats = {
        # Bit 48 of each entry tells; without a remapper it is clear.
        Format.COMPATIBILITY: EntryFormat.VTD,
        Format.EXTENDED_DESTINATION: EntryFormat.EXTENDED_DESTINATION,
        Format.VTD: EntryFormat.VTD,
        Format.AMD_VI: EntryFormat.AMD_VI,
    }
    result: Entries = []
    try:
        ioapics = hypervisor.shared_info().ioapics
    except HypercallRefused as error:
        raise Unusable(f"no IOAPIC can be read: {error}") from error
    for ioapic in ioapics:
        try:
            if hardware and not isinstance(hypervisor, Xen):
                words = hypervisor.read_hardware(ioapic.address).entries
            else:
                words = tuple(
                    hypervisor.apic_read(ioapic.address, 0x10 + 2 * pin)
                    | hypervisor.apic_read(ioapic.address, 0x11 + 2 * pin) << 32
                    for pin in range(ioapic.pins)
                )
        except (HypercallRefused, OSError) as error:
            raise Unusable(f"the IOAPIC at {ioapic.address:#x} cannot be read: {error}") from error
        format = formats[ioapic.format]
        result.append((ioapic, [(pin, word, decode(word, format)) for pin, word in enumerate(words)]))
    return result


def live_entries(*, real: bool = True) -> dict[IoapicPin, RedirectionEntry]:
    """Every redirection entry of this machine; Unusable where nobody can read them.

    `real`: of the registers that dom0 uses, and not of the model that a loopback has beside them.
    """
    from dom0kit.address import IoapicPin
    from dom0kit.cli.module import opened_hypervisor

    with opened_hypervisor() as hypervisor:
        found = redirection_entries(hypervisor, hardware=real and hypervisor.name == "loopback")
    return {IoapicPin(ioapic.id, pin): entry for ioapic, entries in found for pin, _, entry in entries}


def live_tables(platform: Platform, remarks: list[str]) -> dict[Sbdf, Table]:
    """The MSI-X tables of functions that use them and are awake; a remark where Linux does not let us read one."""
    from dom0kit.hypercall.linux import LinuxRefused
    from dom0kit.msi.state import InterruptMode

    format = message_format(platform)
    awake = {
        each.sbdf
        for each in platform.functions
        if each.command & 2 and each.power_state in (None, "D0", "unknown") and not each.asleep
    }
    found: dict[Sbdf, Table] = {}
    refused: list[str] = []
    for state in platform.msi:
        if state.mode is InterruptMode.MSIX and state.msix is not None and state.sbdf in awake:
            use = state.msix
            try:
                found[state.sbdf] = msix_table(state.sbdf, use.table_bar, use.table_offset, use.vectors, format)
            except LinuxRefused as error:
                refused.append(str(error))
    if refused:
        remarks.append(f"vectors of {len(refused)} MSI-X tables are not known: {refused[0]}")
    return found


def message_format(platform: Platform) -> MessageFormat:
    """How this machine reads messages."""
    from dom0kit.msi.state import reading

    chips = [interrupt.chip for interrupt in platform.kernel.interrupts] if platform.kernel is not None else []
    return reading(platform.tables, chips)[0]


def msix_table(function: Sbdf, bar: int, offset: int, entries: int, format: MessageFormat) -> Table:
    """Message and mask of each entry of a table in a BAR. LinuxRefused where Linux does not let us read it."""
    from dom0kit.hypercall.linux import Linux
    from dom0kit.msi.messages import decode

    words = Linux().bar(function, bar, offset, 4 * entries)
    return [
        (decode(words[at] | words[at + 1] << 32, words[at + 2], format), bool(words[at + 3] & 1))
        for at in range(0, 4 * entries, 4)
    ]
