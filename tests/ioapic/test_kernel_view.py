# SPDX-License-Identifier: MIT
"""What the kernel says of its interrupts, in the formats of Linux 2.6 to 6.18 and under Xen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0kit import serial
from dom0kit.address import Trigger
from dom0kit.ioapic.kernel_view import (
    KernelInterrupt,
    KernelIoapic,
    KernelView,
    observe,
    parse_boot_log,
    parse_interrupts,
    parse_iomem_ioapics,
)
from dom0kit.source.in_memory import MemorySource
from dom0kit.source.interface import SourceKind
from tests.corpus import logs, needs_corpus


def files(texts: dict[str, str]) -> MemorySource:
    return MemorySource("files", SourceKind.RECORDING, files={path: text.encode() for path, text in texts.items()})


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("IO-APIC   2-edge      timer", KernelInterrupt(7, "IO-APIC", 2, Trigger.EDGE, ("timer",))),
        (
            "IR-IO-APIC   16-fasteoi   idma64.0, i801_smbus",
            KernelInterrupt(7, "IR-IO-APIC", 16, Trigger.LEVEL, ("idma64.0", "i801_smbus")),
        ),
        ("PCI-MSI 16384-edge      nvme0q0", KernelInterrupt(7, "PCI-MSI", 16384, Trigger.EDGE, ("nvme0q0",))),
        (
            "IR-PCI-MSI-0000:00:1c.0    0-edge      PCIe PME, PCIe bwctrl",
            KernelInterrupt(7, "IR-PCI-MSI-0000:00:1c.0", 0, Trigger.EDGE, ("PCIe PME", "PCIe bwctrl")),
        ),
        ("DMAR-MSI    0-edge      dmar0", KernelInterrupt(7, "DMAR-MSI", 0, Trigger.EDGE, ("dmar0",))),
        (
            "PCI-MSIX-0000:00:01.0   1-edge      virtio0-input.0",
            KernelInterrupt(7, "PCI-MSIX-0000:00:01.0", 1, Trigger.EDGE, ("virtio0-input.0",)),
        ),
        (
            "Hyper-V PCIe MSI 65537-edge      nvme",
            KernelInterrupt(7, "Hyper-V PCIe MSI", 65537, Trigger.EDGE, ("nvme",)),
        ),
        ("xen-pirq    -ioapic-level  ehci", KernelInterrupt(7, "xen-pirq", None, Trigger.LEVEL, ("ehci",))),
        ("xen-pirq    -msi-x     eth0-0", KernelInterrupt(7, "xen-pirq", None, None, ("eth0-0",))),
        ("IO-APIC-fasteoi   uhci_hcd:usb3", KernelInterrupt(7, "IO-APIC", None, Trigger.LEVEL, ("uhci_hcd:usb3",))),
        ("PCI-MSI-edge      eth0", KernelInterrupt(7, "PCI-MSI", None, Trigger.EDGE, ("eth0",))),
        ("intel-gpio   12  Lid", KernelInterrupt(7, "intel-gpio", 12, None, ("Lid",))),
        ("IO-APIC   9-fasteoi", KernelInterrupt(7, "IO-APIC", 9, Trigger.LEVEL, ())),
        ("dummy", KernelInterrupt(7, "dummy", None, None, ())),
    ],
)
def test_lines_of_proc_interrupts(line: str, expected: KernelInterrupt) -> None:
    head = "            CPU0       CPU1\n"
    found = parse_interrupts(f"{head}   7:         61          0 {line}\n NMI:  1  1   Non-maskable interrupts\n")
    assert found == (expected,)
    assert parse_interrupts(f"   7:         61          0 {line}\n") == ()  # nobody says how many columns there are
    assert parse_interrupts(f"{head}   7:         61 {line}\n") == ()  # a column too few


@given(st.text() | st.text("CPU 0123:-abcIOX,\n\t"))
def test_any_text_is_read(text: str) -> None:
    parse_interrupts(text)
    parse_interrupts("CPU0 CPU1\n" + text)
    parse_boot_log(text)
    parse_iomem_ioapics(text)


@given(
    st.lists(
        st.builds(
            KernelInterrupt,
            irq=st.integers(0, 99999),
            chip=st.sampled_from(["IO-APIC", "IR-IO-APIC", "IR-PCI-MSI", "PCI-MSIX-0000:00:01.0"]),
            hwirq=st.integers(0, 2**31),
            trigger=st.sampled_from(Trigger),
            actions=st.lists(st.text("abcdefgh0123:-_", min_size=1), max_size=3).map(tuple),
        ),
        unique_by=lambda interrupt: interrupt.irq,
    ),
    st.integers(1, 9),
)
def test_what_linux_prints_is_read_back(interrupts: list[KernelInterrupt], cpus: int) -> None:
    lines = [" ".join(f"CPU{cpu}" for cpu in range(cpus))]
    for each in interrupts:
        flow = "edge" if each.trigger is Trigger.EDGE else "fasteoi"
        counts = " ".join(["123"] * cpus)
        lines.append(f"{each.irq}: {counts} {each.chip:>8} {each.hwirq:4}-{flow:<8}  {', '.join(each.actions)}")
    expected = tuple(sorted(interrupts, key=lambda interrupt: interrupt.irq))
    assert parse_interrupts("\n".join(lines)) == expected


def test_sysfs_goes_before_proc_and_knows_more() -> None:
    source = files(
        {
            "proc/interrupts": "   CPU0\n 9:  1  IO-APIC  9-fasteoi acpi\n 24: 0 PCI-MSI 1-edge x\n",
            "sys/kernel/irq/9/chip_name": "IO-APIC\n",
            "sys/kernel/irq/9/hwirq": "9\n",
            "sys/kernel/irq/9/type": "level\n",
            "sys/kernel/irq/9/actions": "acpi,other\n",
            "sys/kernel/irq/11/chip_name": "IO-APIC\n",
            "sys/kernel/irq/11/hwirq": "11\n",
            "sys/kernel/irq/11/type": "edge\n",
            "sys/kernel/irq/11/actions": "\n",
            "sys/kernel/irq/13/type": "edge\n",
            "sys/kernel/irq/x9/chip_name": "IO-APIC\n",
            "sys/kernel/irq/\u0663/chip_name": "IO-APIC\n",
            "proc/iomem": "fec00000-fec003ff : a\n  fec00000-fec003ff : IOAPIC 0\nfec01000-fec013ff : IOAPIC 1\n",
        }
    )
    view = observe(source)
    assert view.interrupts == (
        KernelInterrupt(9, "IO-APIC", 9, Trigger.LEVEL, ("acpi", "other")),
        KernelInterrupt(11, "IO-APIC", 11, Trigger.EDGE, ()),
        KernelInterrupt(24, "PCI-MSI", 1, Trigger.EDGE, ("x",)),
    )
    assert [(ioapic.index, ioapic.address) for ioapic in view.ioapics] == [(0, 0xFEC00000), (1, 0xFEC01000)]
    assert view.interrupt(11) is view.interrupts[1]
    assert view.interrupt(12) is None
    assert serial.decode(serial.encode(view), KernelView) == view


def test_the_boot_log_knows_more_than_iomem() -> None:
    log = (
        "[    0.093665] IOAPIC[0]: apic_id 1, version 32, address 0xfec00000, GSI 0-23\n"
        "[    0.093669] IOAPIC[1]: apic_id 2, version 33, address 0xfec01000, GSI 24-47\n"
    )
    view = observe(files({"proc/iomem": "fec00000-fec003ff : IOAPIC 0\n", "dmesg": log}))
    assert view.ioapics == (
        KernelIoapic(0, 0xFEC00000, 1, 32, 0, 23),
        KernelIoapic(1, 0xFEC01000, 2, 33, 24, 47),
    )


def test_which_chips_are_ioapics() -> None:
    for chip, expected in (("IO-APIC", True), ("IR-IO-APIC", True), ("PCI-MSI", False), ("xen-pirq", False)):
        assert KernelInterrupt(1, chip, 1, None, ()).is_ioapic is expected


def test_without_root_iomem_has_no_addresses() -> None:
    assert parse_iomem_ioapics("00000000-00000000 : IOAPIC 0\n") == ()


@needs_corpus
def test_recorded_files_are_read_whole() -> None:
    for path in logs("interrupts"):
        text = path.read_text(errors="replace")
        numbered = [line for line in text.splitlines() if line.partition(":")[0].strip().isdigit()]
        interrupts = parse_interrupts(text)
        assert len(interrupts) == len(numbered)
        assert all(interrupt.hwirq is not None and interrupt.trigger for interrupt in interrupts)
    lines = 0
    for path in logs("dmesg"):
        text = path.read_text(errors="replace")
        lines += text.count("IOAPIC[")
        assert len(parse_boot_log(text)) == text.count("IOAPIC[")
    assert lines


@pytest.mark.parametrize(
    ("text", "cpu"),
    [
        ("2\n", 2),
        ("0-3,8\n", 0),
        ("  17", 17),
        ("", None),
        ("\n", None),
        ("x", None),
        ("123456\n", None),
        ("-1\n", None),
    ],
)
def test_where_linux_sends_it(text: str, cpu: int | None) -> None:
    source = files(
        {
            "sys/kernel/irq/30/chip_name": "PCI-MSI\n",
            "sys/kernel/irq/30/hwirq": "1\n",
            "proc/irq/30/effective_affinity_list": text,
            "proc/irq/31/effective_affinity_list": "5\n",
        }
    )
    view = observe(source)
    assert [(interrupt.irq, interrupt.cpu) for interrupt in view.interrupts] == [(30, cpu)]
    assert serial.decode(serial.encode(view), KernelView) == view


def test_which_chips_are_xens() -> None:
    (gsi,) = parse_interrupts("      CPU0\n  9:  1  xen-pirq  -ioapic-level  acpi\n")
    assert gsi.is_xen_pirq
    assert not gsi.is_ioapic
