# SPDX-License-Identifier: MIT
"""The kernel's interpreter beside the offline one: its values count, and what differs is said."""

from __future__ import annotations

from dom0kit.acpi.aml import interpret
from dom0kit.acpi.aml_values import Buffer, Integer, NotEvaluated, Package, Reference, String, Value
from dom0kit.acpi.namespace import AmlDevice, Namespace
from dom0kit.acpi.resources import Irq
from dom0kit.finding import Severity
from tests.acpi.asl import needs_acpica, table

pytestmark = needs_acpica

BOARD = r"""
Scope (\_SB) {
    OperationRegion (MMIO, SystemMemory, 0xFED00000, 0x10)
    Field (MMIO, DWordAcc, NoLock, Preserve) { M000, 32, M004, 32 }
    Device (PCI0) {
        Name (_HID, EisaId ("PNP0A08"))
        Name (_UID, "root")
        Method (_BBN) { Return (M000) }
        Method (_PRT) { Return (Package () { Package () { 0x1FFFFF, 1, LNKA, 0 } }) }
        Method (_OSC, 4) { Return (Arg3) }
        Device (LNKA) {
            Name (_HID, EisaId ("PNP0C0F"))
            Method (_CRS) { Return (ResourceTemplate () { IRQ (Level, ActiveLow, Shared) { 10 } }) }
        }
        Device (LNKB) { Name (_HID, EisaId ("PNP0C0F")) }
        Device (DEV0) {
            Name (_ADR, 0x30000)
            Method (_STA) { Return (M004) }
            Method (_SUN) { Return (5) }
            Device (DEV1) { Name (_ADR, 0) Method (_SUN) { Return (6) } }
        }
        Device (DEV2) {
            Name (_ADR, 0x40000)
            Method (_STA) { Return (0xF) }
            Method (_SUN) { Return (M004) }
            Method (_PXM) { Return (MISS) }
        }
    }
    External (MISS)
}
"""
CRS = bytes.fromhex("230008187900")  # IRQ 11, level, active low, shared; end tag
OFFLINE: dict[str, Value | None] = {
    "\\_SB.PCI0._HID": Integer(0x080AD041),
    "\\_SB.PCI0._UID": String("root"),
    "\\_SB.PCI0._BBN": Integer(0),
    "\\_SB.PCI0._PRT": Package((Package((Integer(0x1FFFFF), Integer(1), Reference("\\_SB.PCI0.LNKA"), Integer(0))),)),
    "\\_SB.PCI0.LNKA._HID": Integer(0x0F0CD041),
    "\\_SB.PCI0.LNKA._CRS": Buffer("230004187900"),
    "\\_SB.PCI0.LNKB._HID": Integer(0x0F0CD041),
    "\\_SB.PCI0.DEV0._STA": Integer(0),
    "\\_SB.PCI0.DEV2._ADR": Integer(0x40000),
    "\\_SB.PCI0.DEV2._STA": Integer(0xF),
    "\\_SB.PCI0.DEV2._SUN": Integer(0),
}


def seen(
    changed: dict[str, Value | None] | None = None, *, without: str = ""
) -> tuple[Namespace, list[str], dict[str, str]]:
    """The namespace when the kernel gives these other values (paths below PCI0), what was asked, what differs."""
    values = OFFLINE | {f"\\_SB.PCI0.{name}": value for name, value in (changed or {}).items()}
    values.pop(f"\\_SB.PCI0.{without}", None)
    asked: list[str] = []

    def kernel(path: str) -> Value | None:
        asked.append(path)
        if path not in values:
            raise NotEvaluated(f"there is no {path}")
        return values[path]

    namespace = interpret([table(BOARD)], {}, kernel=kernel)
    differing = [finding for finding in namespace.findings if finding.rule == "aml.kernel-differs"]
    assert all(finding.severity is Severity.INFO for finding in differing)
    return namespace, asked, {finding.where: finding.message for finding in differing}


def device(namespace: Namespace, name: str) -> AmlDevice:
    found = namespace.device(f"\\_SB.PCI0.{name}" if name else "\\_SB.PCI0")
    assert found is not None
    return found


def test_two_interpreters_of_one_mind_leave_no_finding() -> None:
    namespace, asked, differing = seen()
    assert differing == {}
    alone = interpret([table(BOARD)], {})
    assert [each.crs for each in namespace.devices] == [each.crs for each in alone.devices]
    assert [each.prt for each in namespace.devices] == [each.prt for each in alone.devices]
    assert not any(path.endswith("_OSC") for path in asked)
    for each in namespace.devices:
        for evaluation in each.evaluations:
            assert evaluation.by_kernel is (evaluation.path in OFFLINE), evaluation.path
    assert not any(evaluation.by_kernel for each in alone.devices for evaluation in each.evaluations)


def test_the_kernels_values_count() -> None:
    routes = Package((Package((Integer(0x1FFFFF), Integer(1), Reference("\\_SB.PCI0.LNKB"), Integer(0))),))
    namespace, _, differing = seen({"_BBN": Integer(0x40), "LNKA._CRS": Buffer(CRS.hex()), "_PRT": routes})
    root = device(namespace, "")
    assert root.bbn == 0x40
    assert root.prt is not None
    assert [entry.source for entry in root.prt] == ["\\_SB.PCI0.LNKB"]
    interrupt, _ = device(namespace, "LNKA").crs or ()
    assert isinstance(interrupt, Irq)
    assert interrupt.irqs == (11,)
    assert set(differing) == {"aml:\\_SB.PCI0._BBN", "aml:\\_SB.PCI0.LNKA._CRS", "aml:\\_SB.PCI0._PRT"}
    assert differing["aml:\\_SB.PCI0._BBN"] == (
        "the kernel's interpreter gives 0x40; the offline one gives 0x0 "
        "without having seen system-memory 0xfed00000-0xfed00003"
    )
    assert differing["aml:\\_SB.PCI0.LNKA._CRS"] == (
        "the kernel's interpreter gives 6 bytes 230008187900; the offline one gives 6 bytes 230004187900"
    )


def test_of_an_absent_device_nothing_more_is_asked() -> None:
    _, asked, _ = seen()
    assert [path for path in asked if "DEV0" in path] == ["\\_SB.PCI0.DEV0._STA"]
    namespace, asked, differing = seen({"DEV0._STA": Integer(8), "DEV0.DEV1._SUN": Integer(7)})
    assert "\\_SB.PCI0.DEV0.DEV1._SUN" in asked
    assert device(namespace, "DEV0.DEV1").sun == 7
    assert "without having seen system-memory 0xfed00004" in differing["aml:\\_SB.PCI0.DEV0._STA"]


def test_what_the_kernel_cannot_evaluate_keeps_its_offline_value() -> None:
    namespace, _, differing = seen(without="DEV2._SUN")
    assert device(namespace, "DEV2").sun == 0
    evaluation = device(namespace, "DEV2").evaluation("_SUN")
    assert evaluation is not None
    assert not evaluation.by_kernel
    assert differing["aml:\\_SB.PCI0.DEV2._SUN"].startswith(
        "the kernel's interpreter gives nothing (there is no \\_SB.PCI0.DEV2._SUN); the offline one gives 0x0 without"
    )


def test_what_only_the_kernel_can_evaluate_is_said() -> None:
    namespace, _, differing = seen({"DEV2._PXM": Integer(3)})
    assert device(namespace, "DEV2").pxm == 3
    assert differing["aml:\\_SB.PCI0.DEV2._PXM"] == (
        "the kernel's interpreter gives 0x3; the offline one ends with AE_NOT_FOUND"
    )
    assert not any(finding.rule == "aml.evaluation-failed" for finding in namespace.findings)
