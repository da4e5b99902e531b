# SPDX-License-Identifier: MIT
"""Each kind of operation, from a state that gives undoing something to bring back, killed at each of its moments."""

from __future__ import annotations

import shutil
from contextlib import suppress

import pytest

from dom0kit import plan as p
from dom0kit.abi import Mode
from dom0kit.address import Gsi, Polarity, Trigger
from dom0kit.hypercall.apply import NotApplied
from dom0kit.plan import AnyOperation, Message, ResultOf
from tests.hv_core.machines import FIRST, SECOND, SPARE
from tests.hypercall.apply_machine import OTHER, PHYSICAL, TABLE, VIRTUAL, Death, Killed, plan
from tests.hypercall.test_apply_laws import different, is_exact, staged

DIRECT, INTERCEPT = (Mode.DIRECT,), (Mode.INTERCEPT,)
BOTH = DIRECT + INTERCEPT
Operations = tuple[AnyOperation, ...]

LIVE = 0x0100_0000_0000_A035
ODD = 0x00A5_5A00_0001_0042
"""A masked entry whose high word has reserved bits: nobody checks it before the low word is written."""
SETUP = p.SetupGsi(gsi=Gsi(5), trigger=Trigger.LEVEL, polarity=Polarity.LOW)
FUNCTIONS: Operations = (
    p.PciDeviceAdd(function=PHYSICAL),
    p.PciDeviceAdd(function=VIRTUAL, physical=PHYSICAL, pxm=3),
    p.PciDeviceAdd(function=OTHER),
)
DOMAIN: Operations = (*FUNCTIONS, p.CreateDomain(domain=1, vectors=5))
LINE: Operations = (p.MapGsi(gsi=Gsi(5), pirq=20), SETUP)
MESSAGE, ANOTHER = Message(0xFEE01000, 0x42), Message(0xFEE00000, 0x48)

CASES: dict[str, tuple[tuple[Mode, ...], Operations, Operations]] = {
    "unmap a live line": (
        DIRECT,
        (*LINE, p.WriteEntry(ioapic=FIRST, pin=5, entry=LIVE)),
        (p.UnmapPirq(pirq=20),),
    ),
    "unmap a line": (BOTH, LINE, (p.UnmapPirq(pirq=20),)),
    "unmap a line that is not set up": (BOTH, (p.MapGsi(gsi=Gsi(5), pirq=20),), (p.UnmapPirq(pirq=20),)),
    "unmap a domain's line": (
        BOTH,
        (*DOMAIN, p.AssignGsi(domain=1, gsi=Gsi(5)), p.MapGsi(gsi=Gsi(5), pirq=20, domain=1)),
        (p.UnmapPirq(pirq=20, domain=1), p.ReleaseGsi(domain=1, gsi=Gsi(5)), p.DestroyDomain(domain=1)),
    ),
    "unmap messages": (
        DIRECT,
        (*FUNCTIONS, p.MapMsi(function=OTHER, count=4, pirq=30, message=MESSAGE)),
        (p.UnmapPirq(pirq=30, count=4), p.PciDeviceRemove(function=OTHER)),
    ),
    "unmap messages that nobody recorded": (
        BOTH,
        (*FUNCTIONS, p.MapMsi(function=OTHER, count=2, pirq=30)),
        (p.UnmapPirq(pirq=30, count=2),),
    ),
    "unmap an MSI-X message": (
        DIRECT,
        (
            *FUNCTIONS,
            p.MapMsix(function=OTHER, entry=3, table=TABLE, pirq=30, message=MESSAGE),
            p.MapMsix(function=OTHER, entry=2, table=TABLE, pirq=31),
        ),
        (p.UnmapPirq(pirq=30, table=TABLE),),
    ),
    "another message": (
        DIRECT,
        (*FUNCTIONS, p.MapMsix(function=OTHER, entry=3, table=TABLE, pirq=30, message=MESSAGE)),
        (p.WriteMessage(pirq=30, message=ANOTHER), p.WriteMessage(pirq=30, message=MESSAGE)),
    ),
    "messages of a domain": (
        DIRECT,
        (*DOMAIN, p.AssignDevice(domain=1, function=OTHER)),
        (
            p.MapMsix(function=OTHER, entry=3, table=TABLE, domain=1, message=MESSAGE),
            p.MapMsix(function=OTHER, entry=1, table=TABLE, domain=1),
        ),
    ),
    "a message moves at once": (
        INTERCEPT,
        FUNCTIONS,
        (p.MapMsix(function=OTHER, entry=3, table=TABLE), p.SetAffinity(irq=ResultOf(0), cpu=1)),
    ),
    "a line moves at once": (
        INTERCEPT,
        (),
        (*LINE, p.SetAffinity(irq=ResultOf(0), cpu=1), p.WriteEntry(ioapic=FIRST, pin=5, entry=LIVE)),
    ),
    "a masked line moves": (INTERCEPT, LINE, (p.SetAffinity(irq=20, cpu=1),)),
    "a masked line without a pIRQ moves": (INTERCEPT, (p.AllocIrqVector(gsi=Gsi(5)),), (p.SetAffinity(irq=5, cpu=1),)),
    "an odd entry": (
        BOTH,
        (p.WriteEntry(ioapic=FIRST, pin=5, entry=ODD),),
        (p.WriteEntry(ioapic=FIRST, pin=5, entry=LIVE),),
    ),
    "to an odd entry": (
        DIRECT,
        (p.WriteEntry(ioapic=FIRST, pin=5, entry=LIVE),),
        (p.WriteEntry(ioapic=FIRST, pin=5, entry=ODD),),
    ),
    "mask": (
        BOTH,
        (*LINE, p.WriteEntry(ioapic=FIRST, pin=5, entry=LIVE)),
        (p.MaskEntry(ioapic=FIRST, pin=5), p.MaskEntry(ioapic=FIRST, pin=5, masked=False)),
    ),
    "remove functions": (
        BOTH,
        FUNCTIONS,
        (p.PciDeviceRemove(function=VIRTUAL, physical=PHYSICAL, pxm=3), p.PciDeviceRemove(function=PHYSICAL)),
    ),
    "remove a function that is not there": (BOTH, (), (p.PciDeviceRemove(function=PHYSICAL),)),
    "add functions that are there": (BOTH, FUNCTIONS, FUNCTIONS),
    "remove an IOAPIC": (
        BOTH,
        (
            p.WriteEntry(ioapic=SECOND, pin=3, entry=ODD),
            p.WriteEntry(ioapic=SECOND, pin=4, entry=0x0100_0000_0001_A053),
        ),
        (p.IoapicRemove(address=SECOND, gsi_base=Gsi(16)),),
    ),
    "an IOAPIC comes and is used": (
        BOTH,
        (),
        (
            p.IoapicAdd(address=SPARE, gsi_base=Gsi(32)),
            p.MapGsi(gsi=Gsi(35)),
            p.WriteEntry(ioapic=SPARE, pin=3, entry=LIVE),
        ),
    ),
    "destroy a domain": (BOTH, DOMAIN, (p.DestroyDomain(domain=1),)),
    "give and take a function": (
        BOTH,
        DOMAIN,
        (p.AssignDevice(domain=1, function=OTHER), p.ReleaseDevice(domain=1, function=OTHER)),
    ),
    "take a function": (
        BOTH,
        (*DOMAIN, p.AssignDevice(domain=1, function=OTHER)),
        (p.ReleaseDevice(domain=1, function=OTHER),),
    ),
    "take a GSI": (BOTH, (*DOMAIN, p.AssignGsi(domain=1, gsi=Gsi(5))), (p.ReleaseGsi(domain=1, gsi=Gsi(5)),)),
}


@pytest.mark.parametrize(("name", "mode"), [(name, mode) for name, (modes, _, _) in CASES.items() for mode in modes])
def test_killed_at_each_moment(name: str, mode: Mode) -> None:
    _, history, operations = CASES[name]
    what = plan(*operations)
    with staged(mode) as stage:
        assert stage.apply(plan(*history), way_back=False).skipped == 0
        # Where a vector is the core's choice, another may come back.
        exact = is_exact(what) or mode is Mode.DIRECT
        before = stage.state(vectors=exact)
        whole = Death()
        stage.apply(what, whole)
        after = stage.state(vectors=False)
        back = Death()
        stage.roll_back(back)
        assert different(before, stage.state(vectors=exact)) == {}
        for moment in range(1, whole.events + 1):
            with suppress(Killed):  # where the core chooses, a later time may take fewer calls
                stage.apply(what, Death(moment))
            if stage.recover():
                assert different(after, stage.state(vectors=False)) == {}
                stage.roll_back()
            assert different(before, stage.state(vectors=exact)) == {}, moment
        for moment in range(1, back.events + 1):
            stage.apply(what)
            with suppress(Killed):
                stage.roll_back(Death(moment))
            if stage.recover():
                assert different(after, stage.state(vectors=False)) == {}
                stage.roll_back()
            assert different(before, stage.state(vectors=exact)) == {}, moment


@pytest.mark.parametrize(
    ("mode", "history", "operation", "why"),
    [
        (
            Mode.INTERCEPT,
            (p.MapGsi(gsi=Gsi(0), pirq=16),),
            p.AllocIrqVector(gsi=Gsi(16)),
            "GSI 16 has no pIRQ, and pIRQ 16 is another interrupt: map the GSI first",
        ),
        (Mode.DIRECT, LINE, p.MapGsi(gsi=Gsi(5), pirq=21), "GSI 5 has pIRQ 20, not 21: unmap that, or plan with it"),
        (
            Mode.DIRECT,
            LINE,
            p.SetupGsi(gsi=Gsi(5), trigger=Trigger.EDGE, polarity=Polarity.LOW),
            "GSI 5 was set up otherwise: release it first",
        ),
        (Mode.DIRECT, FUNCTIONS, p.PciDeviceRemove(function=VIRTUAL), r"it is already there.*\(EXISTS\)"),
        (
            Mode.DIRECT,
            (*FUNCTIONS, p.MapMsi(function=OTHER)),
            p.PciDeviceRemove(function=OTHER),
            "0000:00:05.0 has messages: unmap them first",
        ),
        (Mode.DIRECT, (*FUNCTIONS, p.MapMsi(function=OTHER, pirq=30, count=2)), p.UnmapPirq(pirq=30), "all together"),
        (
            Mode.DIRECT,
            (*FUNCTIONS, p.MapMsix(function=OTHER, entry=0, table=TABLE, pirq=30)),
            p.UnmapPirq(pirq=30),
            "is unmapped by itself, and needs `table`",
        ),
        (
            Mode.DIRECT,
            (*FUNCTIONS, p.MapMsi(function=OTHER)),
            p.MapMsix(function=OTHER, entry=0, table=TABLE),
            "already there, or another has it",
        ),
        (Mode.DIRECT, FUNCTIONS, p.WriteMessage(pirq=30, message=MESSAGE), "an argument has no meaning"),
        (
            Mode.DIRECT,
            (*FUNCTIONS, p.MapMsi(function=OTHER, pirq=30)),
            p.WriteMessage(pirq=30, message=MESSAGE),
            "pIRQ 30 has no message yet: map it together with its first one",
        ),
        (Mode.INTERCEPT, FUNCTIONS, p.MapMsi(function=OTHER, message=MESSAGE), "messages are its own choice"),
        (
            Mode.DIRECT,
            (*DOMAIN, p.AssignDevice(domain=1, function=OTHER)),
            p.DestroyDomain(domain=1),
            "domain 1 has 0000:00:05.0: release it first",
        ),
        (
            Mode.DIRECT,
            (*DOMAIN, p.AssignGsi(domain=1, gsi=Gsi(17))),
            p.DestroyDomain(domain=1),
            "domain 1 has GSI 17: release it first",
        ),
        (Mode.DIRECT, DOMAIN, p.CreateDomain(domain=1), "there is a domain 1 already: destroy it, or plan with"),
        (
            Mode.DIRECT,
            (*DOMAIN, p.CreateDomain(domain=2), p.AssignDevice(domain=2, function=OTHER)),
            p.AssignDevice(domain=1, function=OTHER),
            "0000:00:05.0 is another domain's: that must release it first",
        ),
        (Mode.DIRECT, DOMAIN, p.AssignGsi(domain=1, gsi=Gsi(99)), "an argument has no meaning"),
        (Mode.DIRECT, (*DOMAIN, *LINE), p.AssignGsi(domain=1, gsi=Gsi(5)), "domain 0 uses GSI 5: release it first"),
        (Mode.DIRECT, LINE, p.IoapicRemove(address=FIRST, gsi_base=Gsi(0)), "GSI 5 of the IOAPIC at 0xfec00000 is in"),
        (Mode.DIRECT, (), p.IoapicRemove(address=FIRST, gsi_base=Gsi(1)), "has GSI base 0: make the plan anew"),
        (Mode.DIRECT, (), p.IoapicAdd(address=FIRST, gsi_base=Gsi(99)), "has GSI base 0 already"),
        (Mode.DIRECT, (), p.MaskEntry(ioapic=FIRST, pin=119), "the IOAPIC at 0xfec00000 has no pin 119: its last is 7"),
        (Mode.DIRECT, (), p.MaskEntry(ioapic=SPARE, pin=0), "the hypervisor has no IOAPIC at 0xfec20000"),
        (Mode.DIRECT, (), p.SetupGsi(gsi=Gsi(99), trigger=Trigger.EDGE, polarity=Polarity.LOW), "has GSI 99"),
    ],
)  # fmt: skip
def test_refused_before_anything_is_done(mode: Mode, history: Operations, operation: AnyOperation, why: str) -> None:
    with staged(mode) as stage:
        stage.apply(plan(*history), way_back=False)
        digest = stage.machine.digest()
        with pytest.raises(NotApplied, match=why):
            stage.apply(plan(operation))
        assert stage.machine.digest() == digest


@pytest.mark.parametrize("between", [(), (p.MaskEntry(ioapic=FIRST, pin=5),)])
def test_a_line_moves_before_its_first_interrupt_only(between: Operations) -> None:
    """Once unmasked it drains its old vector when it moves, and could not move back before it has come again."""
    there, elsewhere = (p.WriteEntry(ioapic=FIRST, pin=5, entry=apic_id << 56 | 0x35) for apic_id in (0, 1))
    with staged(Mode.INTERCEPT) as stage:
        before = stage.state()
        with pytest.raises(NotApplied, match=r"and this entry moves it: move it with set-affinity first"):
            stage.apply(plan(*LINE, there, *between, elsewhere))
        assert different(before, stage.state()) == {}
        stage.apply(plan(*LINE, elsewhere))


def test_a_shared_line_is_left_to_its_users() -> None:
    level = p.WriteEntry(ioapic=FIRST, pin=5, entry=0x1_8035)
    with staged(Mode.DIRECT) as stage:
        stage.apply(plan(level, p.MapGsi(gsi=Gsi(5), pirq=20)), way_back=False)
        stage.machine.domain(0).map_gsi(Gsi(5), 20)
        before = stage.state()
        with pytest.raises(NotApplied, match="pIRQ 20 has several users, and how many cannot be read"):
            stage.apply(plan(p.UnmapPirq(pirq=20)))
        with pytest.raises(NotApplied, match="GSI 5 has several users on pIRQ 20, who would lose it"):
            stage.apply(plan(SETUP))
        assert different(before, stage.state()) == {}


def test_what_a_domain_did_meanwhile_is_taken_back_too() -> None:
    """A GSI and a function come back as they were given, whatever the domain has made of them."""
    with staged(Mode.DIRECT) as stage:
        stage.apply(plan(*DOMAIN), way_back=False)
        before = stage.state()
        stage.apply(plan(p.AssignGsi(domain=1, gsi=Gsi(5)), p.AssignDevice(domain=1, function=OTHER)))
        guest = stage.machine.domain(1)
        guest.map_gsi(Gsi(5))
        guest.setup_gsi(Gsi(5), Trigger.LEVEL, Polarity.LOW)
        guest.apic_write(FIRST, 0x1B, 0x01000000)
        guest.apic_write(FIRST, 0x1A, 0xA035)
        guest.map_msi(OTHER, 2)
        assert different(before, stage.state()) != {}
        stage.roll_back()
        assert different(before, stage.state()) == {}


def test_a_function_that_went_meanwhile() -> None:
    """What was done to it went with it; all else is taken back."""
    with staged(Mode.DIRECT) as stage:
        stage.apply(plan(*FUNCTIONS), way_back=False)
        before = stage.state()
        stage.apply(
            plan(
                p.MapGsi(gsi=Gsi(5)),
                p.WriteConfig(function=PHYSICAL, offset=4, width=2, value=4, mask=4),
                p.UnbindDriver(function=PHYSICAL, driver="e1000e"),
                p.WriteMsixEntry(function=PHYSICAL, bar=0, offset=0, entry=0, message=MESSAGE),
                p.SetDriverOverride(function=PHYSICAL, driver="vfio-pci"),
                p.BindDriver(function=PHYSICAL, driver="vfio-pci"),
                p.MapMsi(function=PHYSICAL),
            )
        )
        shutil.rmtree(stage.linux_root / "sys/devices/pci0000:00" / str(PHYSICAL))
        (stage.linux_root / "sys/bus/pci/devices" / str(PHYSICAL)).unlink()
        stage.roll_back()
        gone = {key for key in before if str(PHYSICAL) in key and "/" in key}
        assert different(before, stage.state()).keys() == gone


def test_what_the_hypervisor_has_no_more() -> None:
    spare = p.IoapicAdd(address=SPARE, gsi_base=Gsi(32))
    with staged(Mode.DIRECT) as stage:
        stage.apply(plan(*DOMAIN, spare, p.AssignDevice(domain=1, function=OTHER)), way_back=False)
        line = stage.state()[f"{FIRST:#x} 0x1a"]
        stage.apply(
            plan(
                p.WriteEntry(ioapic=FIRST, pin=5, entry=LIVE),
                p.WriteEntry(ioapic=SPARE, pin=3, entry=ODD),
                p.AllocIrqVector(gsi=Gsi(5)),
                p.ReleaseDevice(domain=1, function=OTHER),
                p.MapMsi(function=VIRTUAL, pirq=50),
                p.UnmapPirq(pirq=50),
                p.PciDeviceRemove(function=VIRTUAL, physical=PHYSICAL, pxm=3),
            )
        )
        core = stage.machine.domain(0)
        core.ioapic_remove(SPARE)
        core.domain_destroy(1)
        core.pci_device_remove(OTHER)
        core.pci_device_remove(PHYSICAL)
        stage.roll_back()
        assert stage.state()[f"{FIRST:#x} 0x1a"] == line, "what is there is brought back"
        assert core.information().functions == 0


def test_more_ways_than_one_are_undone_newest_first() -> None:
    with staged(Mode.DIRECT) as stage:
        states = [stage.state()]
        for operations in (LINE, (p.WriteEntry(ioapic=FIRST, pin=5, entry=LIVE),), (p.UnmapPirq(pirq=20),)):
            stage.apply(plan(*operations))
            states.append(stage.state())
        for state in reversed(states[:-1]):
            stage.roll_back()
            assert different(state, stage.state()) == {}
