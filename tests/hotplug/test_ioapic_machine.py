# SPDX-License-Identifier: MIT
"""IOAPICs appear, go, come back with other bases and are in use when they go, against the core; and very many."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dom0kit.acpi.namespace import AmlDevice, Namespace
from dom0kit.acpi.resources import FixedMemory
from dom0kit.address import Gsi
from dom0kit.hotplug.policy import HotplugPolicy
from dom0kit.hotplug.reconcile import Change, ChangeKind, Reconciler
from dom0kit.hypercall.core_library import IoapicModel
from dom0kit.ioapic.controllers import Ioapic, PinsFrom
from dom0kit.observation import observe
from dom0kit.plan import Backend
from dom0kit.platform import Platform
from dom0kit.simulation import booted
from tests.hotplug.machines import kernel, recording
from tests.hypercall.apply_machine import BOOT

SMALL = "firecracker"
FIRST_PINS, PINS = 24, 8
MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None
"""As /run is: a journal there costs no disk."""
ADDRESSES = [0xFED00000 + 0x1000 * number for number in range(4)]


class Told(Reconciler):
    """Believes what a test says of IOAPICs, by address: the GSI base."""

    told: dict[int, int]

    @property
    def platform(self) -> Platform:
        seen = super().platform
        madt = tuple(each for each in seen.ioapics if each.in_madt)
        added = tuple(
            Ioapic(
                number, address, base, PINS, PinsFrom.ASSUMED, None, False, f"\\_SB.A{address >> 12 & 0xFFF:03X}", None
            )
            for number, (address, base) in enumerate(sorted(self.told.items()), 100)
        )
        devices = tuple(
            AmlDevice(
                path=str(each.aml_path),
                hid="ACPI0009",
                crs=(FixedMemory(writable=True, address=each.address, length=0x1000),),
            )
            for each in added
        )
        return msgspec.structs.replace(seen, ioapics=(*madt, *added), namespace=Namespace(devices=devices))


def made(folder: str, addresses: list[int]) -> tuple[Told, Any]:
    core = booted(observe(recording(SMALL), aml=False), recording(SMALL).tables())
    for number, address in enumerate(addresses):
        core.plug_ioapic(IoapicModel(address=address, id=number & 0xFF, version=(PINS - 1) << 16 | 0x20))
    policy = HotplugPolicy()
    told = Told(kernel(SMALL), core.domain(0), Backend.LIBRARY, policy, folder=folder, boot=BOOT, aml=False)
    told.told = {}
    told.start()
    return told, core


class Coming(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory(dir=MEMORY)
        self.reconciler, self.core = made(self.folder.name, ADDRESSES)
        self.dom0 = self.core.domain(0)
        self.used: dict[int, int] = {}
        self.counter = self.core.changes()
        self.accepted = 0

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()

    def step(self) -> None:
        changes: tuple[Change, ...] = tuple(self.reconciler.step())
        kinds = (ChangeKind.IOAPIC_ADDED, ChangeKind.IOAPIC_REMOVED)
        self.accepted += sum(change.kind in kinds for change in changes)

    @rule(address=st.sampled_from(ADDRESSES), base=st.integers(0, 64))
    def appears(self, address: int, base: int) -> None:
        self.reconciler.told[address] = base
        self.step()

    @rule(address=st.sampled_from(ADDRESSES))
    def goes(self, address: int) -> None:
        self.reconciler.told.pop(address, None)
        self.step()

    @rule(gsi=st.integers(FIRST_PINS, 72))
    def is_used(self, gsi: int) -> None:
        if gsi not in self.used and any(
            each.gsi_base <= gsi < each.gsi_base + each.pins for each in self.dom0.shared_info().ioapics
        ):
            self.used[gsi] = self.dom0.map_gsi(Gsi(gsi))

    @rule()
    def is_free(self) -> None:
        if self.used:
            self.dom0.unmap_pirq(self.used.popitem()[1])
        self.step()

    @invariant()
    def all_agree(self) -> None:
        if not hasattr(self, "reconciler"):
            return
        has = {each.address: each.gsi_base for each in self.dom0.shared_info().ioapics if each.address in ADDRESSES}
        told = self.reconciler.told
        wrong = " ".join(f"{finding.where} {finding.message}" for finding in self.reconciler.findings)
        for address, base in has.items():
            in_use = any(base <= gsi < base + PINS for gsi in self.used)
            assert told.get(address) == base or in_use, "what goes is removed unless it is used"
        for address, base in told.items():
            clashes = base < FIRST_PINS or any(
                abs(base - other) < PINS for each, other in has.items() if each != address
            )
            assert has.get(address) == base or address in has or clashes, (
                "what comes is added unless its GSIs are not free"
            )
        assert (wrong == "") == (has == told), wrong
        assert self.core.changes() - self.counter == self.accepted


TestComing = Coming.TestCase
TestComing.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)


@pytest.mark.slow
def test_as_many_as_there_can_be(tmp_path: Path) -> None:
    """128 in all, as many as shared_info lists; one more is refused, and told."""
    addresses = [0xFED00000 + 0x1000 * number for number in range(128)]
    reconciler, core = made(str(tmp_path), addresses)
    dom0 = core.domain(0)
    most = dom0.information().limit_ioapics
    assert most == 128
    reconciler.told = {address: 24 + PINS * number for number, address in enumerate(addresses)}
    changes = reconciler.step()
    assert sum(change.kind is ChangeKind.IOAPIC_ADDED for change in changes) == most - 1
    (finding,) = reconciler.findings
    assert finding.rule == "hotplug.not-done"
    assert "NO_SPACE" in finding.message
    assert len(dom0.shared_info().ioapics) == most
    reconciler.told = {}
    reconciler.step()
    assert len(dom0.shared_info().ioapics) == 1
    assert reconciler.findings == ()
