# SPDX-License-Identifier: MIT
"""Tables against the kernel, with kernels made here."""

from __future__ import annotations

import msgspec
import pytest

from dom0kit.address import IntxPin, IoapicPin, Polarity, Sbdf, Trigger
from dom0kit.ioapic.compare import compare
from dom0kit.ioapic.controllers import Ioapic, IoapicSet, PinsFrom
from dom0kit.ioapic.intx import IntxRoute, NoRoute
from dom0kit.ioapic.kernel_view import KernelInterrupt, KernelIoapic, KernelView
from dom0kit.ioapic.legacy import IsaInterrupt, LegacyInterrupts, Sci
from dom0kit.pci.function import Function
from tests.pci import machines

HERE = Sbdf.parse("0000:00:02.0")
IOAPICS = IoapicSet(
    (
        Ioapic(2, 0xFEC00000, 0, 24, PinsFrom.BOOT_LOG, 0x20, True, None, None),
        Ioapic(3, 0xFEC01000, 24, 32, PinsFrom.BOOT_LOG, 0x20, True, None, None),
    )
)
LEGACY = LegacyInterrupts(
    pcat_compat=True,
    isa=(
        IsaInterrupt(0, 2, Trigger.EDGE, Polarity.HIGH, True, IoapicPin(2, 2)),
        IsaInterrupt(1, 1, Trigger.EDGE, Polarity.HIGH, False, IoapicPin(2, 1)),
        IsaInterrupt(9, 9, Trigger.LEVEL, Polarity.HIGH, True, IoapicPin(2, 9)),
    ),
    sci=Sci(9, Trigger.LEVEL, Polarity.HIGH, True, IoapicPin(2, 9)),
    nmis=(),
    local_nmis=(),
)


def function(irq: int | None, driver: str | None = "ahci", msi: tuple[int, ...] = ()) -> Function:
    made = machines.function("00:02.0")
    return msgspec.structs.replace(made, interrupt_pin=IntxPin.A, irq=irq, driver=driver, msi_irqs=msi)


def route(gsi: int | None = 16, reason: NoRoute | None = None) -> IntxRoute:
    pin = None if gsi is None else IOAPICS.pin(gsi)
    trigger = Trigger.LEVEL if gsi is not None else None
    return IntxRoute(sbdf=HERE, pin=IntxPin.A, gsi=gsi, ioapic_pin=pin, trigger=trigger, reason=reason)


def line(irq: int, pin: int, trigger: Trigger = Trigger.LEVEL, *actions: str, chip: str = "IO-APIC") -> KernelInterrupt:
    return KernelInterrupt(irq, chip, pin, trigger, actions or ("driver",))


def rules(*interrupts: KernelInterrupt, at: Function | None = None, way: IntxRoute | None = None) -> list[str]:
    functions = [at or function(16)]
    findings = compare([way or route()], IOAPICS, LEGACY, functions, KernelView(interrupts, ()))
    return [finding.rule for finding in findings]


def test_all_is_well() -> None:
    assert rules(line(16, 16), line(0, 2, Trigger.EDGE, "timer"), line(9, 9, Trigger.LEVEL, "acpi")) == []
    assert rules() == []


@pytest.mark.parametrize(
    ("interrupt", "at", "way", "expected"),
    [
        (line(16, 17), None, None, ["ioapic.kernel-route"]),
        (line(16, 16, Trigger.EDGE), None, None, ["ioapic.kernel-trigger"]),
        # The second IOAPIC's pins have numbers of their own: the pin alone is compared.
        (line(29, 16), function(29), route(40), []),
        (line(29, 17), function(29), route(40), ["ioapic.kernel-route"]),
        # A number that is its pin is the GSI on the first IOAPIC, not the same pin of the second.
        (line(16, 16), None, route(40), ["ioapic.kernel-route"]),
        # Nothing is known of an interrupt that nobody looked up, or of MSI.
        (line(11, 11), function(11, driver=None), None, []),
        (line(11, 11), function(11), None, ["ioapic.kernel-route"]),
        (line(16, 17), function(16, driver=None), None, ["ioapic.kernel-route"]),
        (KernelInterrupt(16, "IO-APIC", None, Trigger.LEVEL, ("driver",)), None, None, []),
        (line(16, 17), function(16, msi=(16,)), None, []),
        (line(16, 17, chip="xen-pirq"), None, None, []),
        (line(16, 17), function(None), None, []),
        # Where no way was found, only a PCI pin of the kernel's contradicts.
        (line(16, 16), None, route(None, NoRoute.NO_ENTRY), ["ioapic.kernel-route"]),
        (line(16, 16), None, route(None, NoRoute.NO_NAMESPACE), []),
        (line(16, 16), None, route(None, NoRoute.IDE_COMPATIBILITY), []),
        (line(11, 11), function(11), route(None, NoRoute.NO_ENTRY), []),
    ],
)
def test_functions(interrupt: KernelInterrupt, at: Function | None, way: IntxRoute | None, expected: list[str]) -> None:
    assert rules(interrupt, at=at, way=way) == expected


@pytest.mark.parametrize(
    ("interrupt", "expected"),
    [
        (line(0, 0, Trigger.EDGE, "timer"), ["ioapic.kernel-isa"]),
        (line(0, 2, Trigger.LEVEL, "timer"), ["ioapic.kernel-trigger"]),
        (line(1, 1, Trigger.LEVEL, "i8042"), []),
        (line(1, 2, Trigger.EDGE, "i8042"), ["ioapic.kernel-isa"]),
        (line(9, 9, Trigger.EDGE, "acpi"), ["ioapic.kernel-trigger"]),
        (line(20, 20, Trigger.LEVEL, "acpi"), ["ioapic.kernel-isa"]),
        (KernelInterrupt(0, "IO-APIC", 0, Trigger.EDGE, ()), []),
        (KernelInterrupt(20, "IO-APIC", None, Trigger.LEVEL, ("acpi",)), []),
        (KernelInterrupt(0, "IO-APIC", None, Trigger.EDGE, ("timer",)), []),
    ],
)
def test_isa_interrupts_and_the_sci(interrupt: KernelInterrupt, expected: list[str]) -> None:
    assert rules(interrupt) == expected


def test_functions_without_a_pin_have_no_way() -> None:
    without = msgspec.structs.replace(function(17), sbdf=Sbdf.parse("0000:00:03.0"), interrupt_pin=None)
    assert compare([route()], IOAPICS, LEGACY, [without], KernelView((line(17, 17),), ())) == ()


def test_ioapics() -> None:
    def of(*ioapics: KernelIoapic) -> list[tuple[str, str]]:
        found = compare([], IOAPICS, LEGACY, [], KernelView((), ioapics))
        assert {finding.rule for finding in found} <= {"ioapic.kernel-ioapics"}
        return [(finding.where, finding.message.split(",")[0]) for finding in found]

    first, second = KernelIoapic(0, 0xFEC00000, 2, 32, 0, 23), KernelIoapic(1, 0xFEC01000, 3, 32, 24, 55)
    assert of(first, second) == []
    assert of(KernelIoapic(0, 0xFEC00000, None, None, None, None), second) == []
    assert of(first) == [("ioapic:3", "the kernel has no IOAPIC at 0xfec01000")]
    assert [where for where, _ in of(first, second, KernelIoapic(2, 0xFEC02000, None, None, None, None))] == [
        "ioapic:kernel 2"
    ]
    assert [where for where, _ in of(first, KernelIoapic(1, 0xFEC01000, 4, 32, 24, 55))] == ["ioapic:4"]
    assert [where for where, _ in of(first, KernelIoapic(1, 0xFEC01000, 3, 32, 32, 55))] == ["ioapic:3"]
