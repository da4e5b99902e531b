# SPDX-License-Identifier: MIT
"""Plans on what was measured of real Xen: what can be taken back is, and nothing is left but what is named."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from dom0kit import plan as p
from dom0kit.address import Gsi, Polarity, Sbdf, Trigger
from dom0kit.hypercall.apply import NotApplied, apply, recover, roll_back, status
from dom0kit.hypercall.journal import Journals
from dom0kit.hypercall.world import World
from dom0kit.plan import AnyOperation, Backend, Dialect, Plan
from tests.hypercall.apply_machine import BOOT, FINGERPRINT, Death, FakeLinux, Killed, MortalDisk, plan
from tests.hypercall.fake_xen import FakeXen, opened

KNOWN, NEW, FREE = Sbdf(0, 0, 0x1F, 0), Sbdf(0, 0, 5, 0), Gsi(22)


class Machine:
    """Xen, Linux and journals; the process may die before and after each hypercall, and at each write."""

    def __init__(self, folder: Path) -> None:
        self.fake = FakeXen()
        self.death = Death()
        self.folder = folder
        self.linux = FakeLinux(folder / "linux")
        real = self.fake.ioctl

        def ioctl(file: int, request: int, words: bytearray, mutate: bool) -> int:
            self.death.point()
            status = real(file, request, words, mutate)
            self.death.point()
            return status

        self.fake.ioctl = ioctl  # type: ignore[method-assign]
        self.xen = opened(self.fake, folder)

    def world(self, backend: Backend) -> World:
        return World(backend, self.xen, self.linux)

    def journals(self) -> Journals:
        return Journals(str(self.folder / "run"), MortalDisk(self.death))

    def apply(self, what: Plan, *, irreversible: bool = False) -> None:
        with self.journals() as journals:
            world = self.world(what.backend)
            apply(what, world, journals, fingerprint=FINGERPRINT, boot=BOOT, irreversible=irreversible)

    def recover(self) -> bool:
        self.death = Death()
        with self.journals() as journals:
            recover(journals, self.world, boot=BOOT)
            return bool(status(journals, boot=BOOT))

    def roll_back(self) -> None:
        with self.journals() as journals:
            roll_back(journals, self.world, boot=BOOT)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def xen_plan(*operations: AnyOperation, dialect: Dialect = Dialect.MODERN) -> Plan:
    return plan(*operations, backend=Backend.XEN, dialect=dialect)


def test_killed_at_each_moment(machine: Machine) -> None:
    what = xen_plan(
        p.PciMmcfgReserved(address=0xE0000000, segment=0, start_bus=0, end_bus=0x7F),
        p.PciDeviceAdd(function=KNOWN),
        p.PciDeviceAdd(function=NEW),
        p.MapGsi(gsi=FREE, pirq=FREE),
        p.SetupGsi(gsi=FREE, trigger=Trigger.LEVEL, polarity=Polarity.LOW),
    )
    before = set(machine.fake.functions)
    machine.apply(what)
    assert machine.fake.functions == before | {(0, 0, NEW.devfn)}
    assert (machine.fake.pirqs, machine.fake.set_up) == ({FREE: FREE}, {FREE})
    moments = machine.death.events
    machine.roll_back()
    sides = set()
    for moment in range(1, moments + 1):
        machine.death = Death(moment)
        with suppress(Killed):
            machine.apply(what)
        if machine.recover():
            sides.add(True)
            assert machine.fake.functions == before | {(0, 0, NEW.devfn)}
            machine.roll_back()
        else:
            sides.add(False)
        assert machine.fake.functions == before
        # What the plan says that Xen keeps, and nothing else.
        assert (machine.fake.pirqs, machine.fake.set_up, machine.fake.forbidden) == ({FREE: FREE}, {FREE}, set())
    assert sides == {True, False}


def test_a_function_that_the_iommu_does_not_take(machine: Machine) -> None:
    """Xen would die of its removal."""
    machine.fake.absent.add((0, 0, NEW.devfn))
    with pytest.raises(NotApplied, match=r"operation 0 \(tell that 0000:00:05\.0 has appeared\): .*INVALID") as refusal:
        machine.apply(xen_plan(p.PciDeviceAdd(function=NEW)))
    assert refusal.value.residues == ("Xen goes on knowing 0000:00:05.0, as dom0's kernel may have told it, too",)
    assert not machine.recover()


def test_an_entry_is_written_for_good(machine: Machine) -> None:
    what = xen_plan(p.WriteEntry(ioapic=0xFEC00000, pin=19, entry=0x1A0B5), dialect=Dialect.CLASSIC_XEN)
    with pytest.raises(NotApplied, match="what cannot be undone needs --irreversible"):
        machine.apply(what)
    machine.apply(what, irreversible=True)
    written = machine.fake.entries[19]
    assert written & 0xA000 == 0xA000
    machine.roll_back()
    assert machine.fake.entries[19] == written, "as was said"


@pytest.mark.parametrize("pin", [24, 40, 119])
def test_pins_of_which_xen_would_die(pin: int, machine: Machine) -> None:
    what = xen_plan(p.WriteEntry(ioapic=0xFEC00000, pin=pin, entry=0x1A0B5), dialect=Dialect.CLASSIC_XEN)
    with pytest.raises(NotApplied, match="there is no such register, pin"):
        machine.apply(what, irreversible=True)


def test_what_dom0_s_kernel_has_mapped_is_left_alone(machine: Machine) -> None:
    machine.linux.irq(FREE, chip="xen-pirq", actions="eth0")
    machine.fake.pirqs[FREE] = FREE
    machine.apply(xen_plan(p.MapGsi(gsi=FREE, pirq=FREE)))
    machine.roll_back()
    assert machine.fake.pirqs == {FREE: FREE}
