# SPDX-License-Identifier: MIT
"""What Linux says of its interrupts and IOAPICs: /proc/interrupts, /proc/irq, /sys/kernel/irq, /proc/iomem, boot log.

Sources: Linux, kernel/irq/proc.c (lines of /proc/interrupts), Documentation/ABI/testing/sysfs-kernel-irq,
arch/x86/kernel/apic/io_apic.c (the names "IO-APIC" and "IR-IO-APIC", the boot line ``IOAPIC[0]: apic_id ...``).

The number of an interrupt is Linux's own. It is the GSI only for pins of the IOAPIC that holds the legacy interrupts,
and there from 16 on; on machines without a PIC, on other IOAPICs and under Xen it is handed out as needed.
The hardware number (`KernelInterrupt.hwirq`) of an IO-APIC interrupt is the pin.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from dom0kit.address import Trigger
from dom0kit.source.contents import KERNEL_LOG
from dom0kit.source.interface import Source

MAX_CPUS: Final = 1 << 16
"""Columns of /proc/interrupts that are believed."""


class KernelInterrupt(msgspec.Struct, frozen=True):
    """One numbered interrupt as Linux knows it."""

    irq: int
    """Linux's number."""
    chip: str
    """Name of the interrupt controller: ``IO-APIC``, ``IR-PCI-MSI``, ``PCI-MSIX-0000:00:01.0``, ``xen-pirq`` ..."""
    hwirq: int | None
    """The chip's own number: the pin of an IOAPIC. None where the kernel does not say."""
    trigger: Trigger | None
    """None where the kernel does not say."""
    actions: tuple[str, ...]
    """Names of the drivers that requested it; empty when nobody did."""
    cpu: int | None = None
    """Linux's number of the processor it is sent to (the first, of several); None where the kernel does not say."""

    @property
    def is_ioapic(self) -> bool:
        """Whether a pin of an IOAPIC is behind it, with or without interrupt remapping."""
        return self.chip in ("IO-APIC", "IR-IO-APIC")

    @property
    def is_xen_pirq(self) -> bool:
        """Whether a GSI or message that Xen delivers to domain 0 is behind it."""
        return self.chip == "xen-pirq"

    @property
    def is_event_channel(self) -> bool:
        """Whether Xen itself is behind it, and no vector of a processor."""
        return self.chip.startswith("xen-") and not self.is_xen_pirq


class KernelIoapic(msgspec.Struct, frozen=True):
    """One IOAPIC as the kernel knows it: a line of the boot log, or of /proc/iomem (there only the address)."""

    index: int
    """Linux's count, from 0 in the order of the MADT; not the IOAPIC's id."""
    address: int
    id: int | None
    version: int | None
    """Version register bits 7:0."""
    gsi_first: int | None
    gsi_last: int | None
    """Inclusive."""


class KernelView(msgspec.Struct, frozen=True):
    """What the kernel's own files say; empty where the source has none of them."""

    interrupts: tuple[KernelInterrupt, ...]
    """Ascending by number."""
    ioapics: tuple[KernelIoapic, ...]
    """Ascending by index: from the boot log where it has them, else from /proc/iomem."""

    def interrupt(self, irq: int) -> KernelInterrupt | None:
        """The interrupt with this Linux number."""
        return next((interrupt for interrupt in self.interrupts if interrupt.irq == irq), None)


MAX_LINE: Final = 4096
"""Characters of a line that are looked at, behind the counts."""

# Patterns, compiled by re when they are first used: few sources have these files.
_OLD_CHIP: Final = r"((?:IR-)?(?:IO-APIC|PCI-MSI|DMAR-MSI|HPET-MSI|XT-PIC))-(edge|level|fasteoi)(?: +(.*))?$"
_NUMBER: Final = r"(?a)(\d{1,20})(?:-(\S+))?"
_NO_NUMBER: Final = r"(\S+)\s+-(\S+)(?:\s+(.*))?$"
_LOG_LINE: Final = (
    r"IOAPIC\[(\d{1,5})\]: apic_id (\d{1,5}), version (\d{1,5}), "
    r"address (0x[0-9a-fA-F]{1,16}), GSI (\d{1,10})-(\d{1,10})"
)
_IOMEM_LINE: Final = r"(?m)^ *([0-9a-fA-F]{1,16})-[0-9a-fA-F]{1,16} : IOAPIC (\d{1,5}) *$"


def parse_interrupts(text: str) -> tuple[KernelInterrupt, ...]:
    """The numbered lines of /proc/interrupts, of Linux 2.6 to 6.18; lines that are none of these are left out."""
    found: dict[int, KernelInterrupt] = {}
    columns = 0
    for line in text.splitlines():
        head, colon, rest = line.partition(":")
        number = head.strip()
        if not columns:
            columns = min(sum(word.startswith("CPU") for word in line.split()), MAX_CPUS)
            continue
        if not colon or not (number.isascii() and number.isdigit() and len(number) <= 10):
            continue
        words = rest.split(None, columns)
        if len(words) != columns + 1 or not all(word.isascii() and word.isdigit() for word in words[:columns]):
            continue
        found.setdefault(int(number), _interrupt(int(number), words[columns][:MAX_LINE].strip()))
    return tuple(found[irq] for irq in sorted(found))


def _interrupt(irq: int, text: str) -> KernelInterrupt:
    """From what follows the counts: chip, hardware number and flow, names of the drivers."""
    if match := re.match(_OLD_CHIP, text) or re.match(_NO_NUMBER, text):
        chip, flow, actions = match.groups()
        return KernelInterrupt(irq, chip, None, _trigger(flow), _names(actions or ""))
    words = text.split()
    for at, word in enumerate(words):  # a chip's name may have blanks in it: "Hyper-V PCIe MSI"
        if at and (match := re.fullmatch(_NUMBER, word)):
            trigger = _trigger(match[2] or "")
            return KernelInterrupt(irq, " ".join(words[:at]), int(match[1]), trigger, _names(" ".join(words[at + 1 :])))
    return KernelInterrupt(irq, words[0] if words else "", None, None, _names(" ".join(words[1:])))


def _trigger(flow: str) -> Trigger | None:
    # Flow handlers of Linux on x86: "edge"; "fasteoi" and "level" for level; Xen's "ioapic-edge", "ioapic-level".
    if flow.endswith("edge"):
        return Trigger.EDGE
    return Trigger.LEVEL if flow.endswith(("fasteoi", "level")) else None


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in (part.strip() for part in text.split(",")) if name)


def parse_boot_log(text: str) -> tuple[KernelIoapic, ...]:
    """The ``IOAPIC[n]`` lines of a kernel log, the first of each index, ascending."""
    found: dict[int, KernelIoapic] = {}
    for match in re.finditer(_LOG_LINE, text):
        index, id, version, first, last = (int(number) for number in match.group(1, 2, 3, 5, 6))
        found.setdefault(index, KernelIoapic(index, int(match[4], 16), id, version, first, last))
    return tuple(found[index] for index in sorted(found))


def parse_iomem_ioapics(text: str) -> tuple[KernelIoapic, ...]:
    """The ``IOAPIC n`` lines of /proc/iomem; without root the kernel writes zeros for addresses, and there are none."""
    found = {
        int(index): KernelIoapic(int(index), int(address, 16), None, None, None, None)
        for address, index in re.findall(_IOMEM_LINE, text)
        if int(address, 16)
    }
    return tuple(found[index] for index in sorted(found))


def observe(source: Source) -> KernelView:
    """The kernel's view, from what a source has of its files."""
    listed = {interrupt.irq: interrupt for interrupt in parse_interrupts(_text(source, "proc/interrupts"))}
    for name in source.names("sys/kernel/irq"):
        if name.isascii() and name.isdigit() and len(name) <= 10:
            irq = int(name)
            described = _described(source, irq, listed.get(irq))
            if described is not None:
                listed[irq] = described
    return KernelView(
        interrupts=tuple(listed[irq] for irq in sorted(listed)),
        ioapics=parse_boot_log(_text(source, KERNEL_LOG)) or parse_iomem_ioapics(_text(source, "proc/iomem")),
    )


def _described(source: Source, irq: int, listed: KernelInterrupt | None) -> KernelInterrupt | None:
    """/sys/kernel/irq/N knows also interrupts that nobody requested; what it lacks, /proc/interrupts may have."""
    folder = f"sys/kernel/irq/{irq}/"
    chip = _text(source, folder + "chip_name").strip()
    if not chip:
        return None
    hwirq = _text(source, folder + "hwirq").strip()
    type = _text(source, folder + "type").strip()
    return KernelInterrupt(
        irq=irq,
        chip=chip,
        hwirq=int(hwirq) if re.fullmatch(r"\d{1,20}", hwirq, re.ASCII) else listed.hwirq if listed else None,
        trigger=_trigger(type) or (listed.trigger if listed else None),
        actions=_names(_text(source, folder + "actions")) or (listed.actions if listed else ()),
        cpu=_first_cpu(_text(source, f"proc/irq/{irq}/effective_affinity_list")),
    )


def _first_cpu(text: str) -> int | None:
    """Of a CPU list such as ``2`` or ``0-3,8``."""
    match = re.match(r"(?a)\s*(\d{1,5})(?![0-9])", text)
    return int(match[1]) if match else None


def _text(source: Source, path: str) -> str:
    return (source.file(path) or b"").decode("utf-8", "replace")
