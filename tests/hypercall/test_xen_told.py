# SPDX-License-Identifier: MIT
"""What dom0's kernel has told Xen, held against what the machine needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from dom0kit.address import Gsi, IntxPin, Polarity, Sbdf, Trigger
from dom0kit.finding import Finding
from dom0kit.hypercall.xen_told import Told, told
from dom0kit.ioapic.controllers import Ioapic, PinsFrom
from dom0kit.ioapic.intx import IntxRoute
from dom0kit.ioapic.kernel_view import KernelInterrupt, KernelView
from dom0kit.serial import decode, encode
from tests.hypercall.fake_xen import IOAPIC, FakeXen, opened

HOST, LPC = Sbdf(0, 0, 0, 0), Sbdf(0, 0, 31, 0)
ONE, OTHER = Sbdf(0, 0, 5, 0), Sbdf(0, 0, 6, 0)
IOAPICS = [
    Ioapic(0, IOAPIC, 0, 28, PinsFrom.HIGHEST_GSI, 0x20, True, None, None),  # four pins too many
    Ioapic(1, 0xFEC10000, 28, 24, PinsFrom.ASSUMED, None, True, None, None),  # and one that Xen has not
]


def route(function: Sbdf, gsi: int | None, polarity: Polarity = Polarity.LOW) -> IntxRoute:
    return IntxRoute(sbdf=function, pin=IntxPin.A, gsi=gsi, trigger=Trigger.LEVEL, polarity=polarity)


def kernel(**drivers: str) -> KernelView:
    """By ``irqN`` the driver that has requested it."""
    lines = [KernelInterrupt(int(irq[3:]), "xen-pirq", None, None, (driver,)) for irq, driver in drivers.items()]
    return KernelView(tuple(lines), ())


def asked(
    fake: FakeXen, folder: Path, functions: list[Sbdf], routes: list[IntxRoute], view: KernelView
) -> tuple[Told, list[Finding]]:
    before = list(fake.entries)
    with opened(fake, folder) as xen:
        found, findings = told(xen, functions, routes, IOAPICS, view)
    assert fake.entries == before
    assert not {command for number, command in fake.calls if number == 33} - {8}, "only registers are read"
    assert decode(encode(found), Told) == found
    return found, list(findings)


def test_all_is_told(tmp_path: Path) -> None:
    fake = FakeXen()
    fake.bound = {21: 0, 22: 0, 207: 0, 206: 0}
    with opened(fake, tmp_path) as xen:
        for gsi in (21, 22):
            xen.setup_gsi(Gsi(gsi), Trigger.LEVEL, Polarity.LOW)
    fake.calls.clear()
    routes = [route(HOST, 21), route(LPC, 22), route(LPC.with_function(1), 21)]
    found, findings = asked(fake, tmp_path, [LPC, HOST], routes, kernel(irq21="ahci"))
    assert findings == []
    assert [(one.sbdf, one.known) for one in found.functions] == [(HOST, True), (LPC, True)]
    assert [(one.gsi, one.set_up, one.bound, len(one.functions)) for one in found.gsis] == [
        (21, True, True, 2),
        (22, True, True, 1),
    ]
    assert found.messages == 2


def test_what_was_not_told_is_found(tmp_path: Path) -> None:
    fake = FakeXen()
    with opened(fake, tmp_path) as xen:
        xen.setup_gsi(Gsi(22), Trigger.LEVEL, Polarity.HIGH)
    fake.calls.clear()
    elsewhere = [route(HOST, None), route(HOST, 25), route(HOST, 30), route(HOST, 500)]
    routes = [route(ONE, 21), route(OTHER, 22), route(LPC, 20), *elsewhere]
    found, findings = asked(fake, tmp_path, [ONE, HOST], routes, kernel(irq21="driver"))
    assert [(one.rule, one.where) for one in findings] == [
        ("xen.function-unknown", "pci:0000:00:05.0"),
        ("xen.gsi-not-set-up", "gsi:21"),
        ("xen.gsi-differs", "gsi:22"),
    ]
    assert "level active low for 0000:00:06.0 by firmware, level active high in Xen" in findings[2].message
    assert [(one.gsi, one.set_up, one.bound) for one in found.gsis] == [
        (20, False, False),
        (21, False, False),
        (22, True, False),
        (25, None, False),
        (30, None, False),
        (500, None, False),
    ]


def test_firmware_that_contradicts_itself_is_not_xens_fault(tmp_path: Path) -> None:
    fake = FakeXen()
    with opened(fake, tmp_path) as xen:
        xen.setup_gsi(Gsi(22), Trigger.LEVEL, Polarity.HIGH)
    fake.calls.clear()
    routes = [route(ONE, 22), route(OTHER, 22, Polarity.HIGH)]
    assert asked(fake, tmp_path, [HOST], routes, kernel())[1] == []


def test_a_pvh_dom0_sees_functions_alone(tmp_path: Path) -> None:
    fake = FakeXen(pvh=True)
    found, findings = asked(fake, tmp_path, [HOST, ONE], [route(ONE, 21)], kernel(irq21="driver"))
    assert [one.rule for one in findings] == ["xen.function-unknown"]
    assert [(one.gsi, one.entry, one.set_up, one.bound) for one in found.gsis] == [(21, None, None, None)]
    assert found.messages is None


@pytest.mark.parametrize("version", [(4, 17), (4, 20)])
def test_the_version_makes_no_difference(tmp_path: Path, version: tuple[int, int]) -> None:
    found, _ = asked(FakeXen(version=version), tmp_path, [HOST], [], kernel())
    assert found.functions[0].known
