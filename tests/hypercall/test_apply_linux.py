# SPDX-License-Identifier: MIT
"""What a plan does by way of Linux's files: the right bytes, below the root, and clear words where Linux refuses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dom0kit import plan as p
from dom0kit.abi import Mode
from dom0kit.address import Gsi, Sbdf
from dom0kit.hypercall.effects import effect_of
from dom0kit.hypercall.linux import Linux, LinuxRefused
from dom0kit.hypercall.world import Already, Refused, World, broken
from dom0kit.plan import AnyFact, AnyOperation, Backend, Message
from tests.hypercall.apply_machine import OTHER, PHYSICAL, UNKNOWN, VIRTUAL, FakeLinux, files, model


@pytest.fixture
def linux(tmp_path: Path) -> FakeLinux:
    made = FakeLinux(tmp_path / "root")
    made.drivers("e1000e", "vfio-pci")
    made.give(PHYSICAL, "e1000e")
    made.give(VIRTUAL)
    made.irq(30)
    return made


def world(linux: Linux) -> World:
    return World(Backend.LINUX, None, linux)


def do(linux: Linux, operation: AnyOperation) -> None:
    effect = effect_of(operation)
    effect.do(world(linux), operation, effect.look(world(linux), operation))


def config(linux: FakeLinux, function: Sbdf, offset: int, size: int) -> bytes:
    return (linux.device(function) / "config").read_bytes()[offset : offset + size]


def test_a_reset_by_one_way_leaves_the_others(linux: FakeLinux) -> None:
    methods = linux.device(VIRTUAL) / "reset_method"
    methods.write_text("flr bus\n")
    (linux.device(VIRTUAL) / "reset").write_text("")
    written: list[str] = []

    class Watched(FakeLinux):
        def _write(self, path: str, text: str, what: str) -> None:
            written.append(f"{os.path.basename(path)}: {text.strip()}")
            super()._write(path, text, what)

    do(Watched(linux.root), p.ResetFunction(function=VIRTUAL, method="bus"))
    assert written == ["reset_method: bus", "reset: 1", "reset_method: flr bus"]
    written.clear()
    do(Watched(linux.root), p.ResetFunction(function=VIRTUAL))
    assert written == ["reset: 1"]
    with pytest.raises(Refused, match=r"by acpi: it offers flr bus"):
        do(linux, p.ResetFunction(function=VIRTUAL, method="acpi"))
    with pytest.raises(Refused, match=r"has driver e1000e: unbind it first"):
        do(linux, p.ResetFunction(function=PHYSICAL))


def test_a_group(linux: FakeLinux) -> None:
    assert broken(world(linux), p.GroupIs(functions=(VIRTUAL,))) == "Linux has no group"
    folder = linux.device(VIRTUAL) / "iommu_group/devices"
    folder.mkdir(parents=True)
    for each in (VIRTUAL, OTHER):
        (folder / str(each)).mkdir()
    assert broken(world(linux), p.GroupIs(functions=(VIRTUAL, OTHER))) is None
    assert broken(world(linux), p.GroupIs(functions=(VIRTUAL,))) == f"Linux has {VIRTUAL}, {OTHER}"


def test_config_bits(linux: FakeLinux) -> None:
    do(linux, p.WriteConfig(function=VIRTUAL, offset=4, width=2, value=0x0404, mask=0x0504))
    assert config(linux, VIRTUAL, 3, 4) == bytes([0x10, 0x06, 0x04, 0x00])


def test_the_msix_table(linux: FakeLinux) -> None:
    entry = p.WriteMsixEntry(
        function=VIRTUAL, bar=0, offset=0xFF8, entry=1, message=Message(0x1_FEE0_1000, 0x4041), masked=False
    )
    before = (linux.device(VIRTUAL) / "resource0").read_bytes()
    order: list[tuple[int, int]] = []

    class Watched(FakeLinux):
        def write_bar(self, function: Sbdf, bar: int, offset: int, value: int) -> None:
            order.append((offset, value))
            super().write_bar(function, bar, offset, value)

    do(Watched(linux.root), entry)
    control = int.from_bytes(before[0x1014:0x1018], "little")
    assert order == [
        *([] if control & 1 else [(0x1014, control | 1)]),
        (0x1008, 0xFEE01000),
        (0x100C, 1),
        (0x1010, 0x4041),
        (0x1014, control & ~1),
    ]
    after = (linux.device(VIRTUAL) / "resource0").read_bytes()
    assert after[:0x1008] == before[:0x1008]
    assert after[0x1018:] == before[0x1018:], "an entry that crosses a page's end touches nothing else"


def test_the_msi_capability(linux: FakeLinux) -> None:
    order: list[tuple[int, int, int]] = []

    class Watched(FakeLinux):
        def write_config(self, function: Sbdf, offset: int, width: int, value: int) -> None:
            order.append((offset, width, value))
            super().write_config(function, offset, width, value)

    wide = p.WriteMsi(function=VIRTUAL, capability=0x50, wide=True, message=Message(0x1_FEE0_1000, 0x4041), count=8)
    do(Watched(linux.root), wide)
    assert order == [(0x54, 4, 0xFEE01000), (0x58, 4, 1), (0x5C, 2, 0x4041), (0x52, 2, 0x01B9)]
    order.clear()
    do(Watched(linux.root), p.WriteMsi(function=VIRTUAL, capability=0x50, wide=True, message=Message(0xFEE00000, 0x30)))
    assert order[0] == (0x52, 2, 0x01B8), "disabled first"
    assert order[-1] == (0x52, 2, 0x0189)


@pytest.mark.parametrize(
    ("operation", "sentence"),
    [
        (p.WriteConfig(function=UNKNOWN, offset=4, width=2, value=4, mask=4), "there is no PCI function 0000:00:06.0"),
        (
            p.WriteMsixEntry(function=PHYSICAL, bar=0, offset=0, entry=0, message=Message(0, 0)),
            "has driver e1000e, whi",
        ),
        (p.WriteMsixEntry(function=VIRTUAL, bar=1, offset=0, entry=0, message=Message(0, 0)), "BAR 1 of 0000:00:04.0"),
        (
            p.WriteMsixEntry(function=VIRTUAL, bar=0, offset=0x2000, entry=0, message=Message(0, 0)),
            "ends before 0x2010",
        ),
        (p.WriteMsi(function=VIRTUAL, capability=0x60, wide=True, message=Message(0, 0)), "no MSI capability at 0x60"),
        (p.WriteMsi(function=VIRTUAL, capability=0x50, wide=False, message=Message(0, 0)), "has an upper address"),
        (p.WriteMsi(function=PHYSICAL, capability=0x50, wide=True, message=Message(0, 0)), "unbind it first"),
        (
            p.WriteMsi(function=VIRTUAL, capability=0x50, wide=True, message=Message(0, 0), count=32, enabled=True),
            "can send 16 MSI messages, not 32",
        ),
        (p.BindDriver(function=PHYSICAL, driver="vfio-pci"), "has driver e1000e: unbind it first"),
        (p.BindDriver(function=VIRTUAL, driver="nothing"), "no driver nothing: load its module .modprobe nothing"),
        (p.BindDriver(function=UNKNOWN, driver="vfio-pci"), "there is no PCI function 0000:00:06.0"),
        (p.UnbindDriver(function=PHYSICAL, driver="vfio-pci"), "has driver e1000e, not vfio-pci: make the plan anew"),
        (p.SetDriverOverride(function=UNKNOWN, driver=None), "there is no PCI function 0000:00:06.0"),
        (p.SetLinuxAffinity(irq=31, cpus="0"), "the affinity of IRQ 31: No such file"),
        (p.PciDeviceAdd(function=VIRTUAL), "linux has no hypervisor to ask"),
    ],
)
def test_refusals(operation: AnyOperation, sentence: str, linux: FakeLinux) -> None:
    before = files(linux.root)
    with pytest.raises((Refused, LinuxRefused), match=sentence):
        do(linux, operation)
    assert files(linux.root) == before


def test_memory_that_is_not_decoded(linux: FakeLinux) -> None:
    entry = p.WriteMsixEntry(function=VIRTUAL, bar=0, offset=0, entry=0, message=Message(0, 0))
    linux.write_config(VIRTUAL, 4, 2, 0)
    with pytest.raises(Refused, match="does not decode memory"):
        do(linux, entry)
    (linux.device(VIRTUAL) / "physfn").symlink_to("../0000:00:03.0")
    do(linux, entry)  # of a virtual function the physical one says


def test_a_driver_that_does_not_let_go(linux: FakeLinux) -> None:
    linux.stubborn.add("e1000e")
    with pytest.raises(Refused, match="driver e1000e does not let go of 0000:00:03"):
        do(linux, p.UnbindDriver(function=PHYSICAL, driver="e1000e"))


def test_a_driver_that_does_not_take_it(linux: FakeLinux) -> None:
    class Silent(FakeLinux):
        def _bind(self, function: Sbdf, driver: str) -> None:
            pass

    with pytest.raises(Refused, match="has no driver after it was bound to vfio-pci"):
        do(Silent(linux.root), p.BindDriver(function=VIRTUAL, driver="vfio-pci"))


def test_done_already(linux: FakeLinux) -> None:
    for operation in (
        p.BindDriver(function=PHYSICAL, driver="e1000e"),
        p.UnbindDriver(function=VIRTUAL, driver="e1000e"),
        p.SetDriverOverride(function=VIRTUAL, driver=None),
        p.WriteConfig(function=VIRTUAL, offset=4, width=1, value=2, mask=2),
    ):
        with pytest.raises(Already):
            do(linux, operation)


def test_undoing_unbind_under_an_override(linux: FakeLinux) -> None:
    """Somebody set driver_override first: Linux binds the old driver only once it allows it."""
    operation = p.UnbindDriver(function=PHYSICAL, driver="e1000e")
    linux.set_override(PHYSICAL, "vfio-pci")
    effect = effect_of(operation)
    before = files(linux.root)
    image = effect.look(world(linux), operation)
    effect.do(world(linux), operation, image)
    effect.undo(world(linux), operation, image, None)
    assert files(linux.root) == before


def test_another_driver_has_it_by_now(linux: FakeLinux) -> None:
    operation = p.BindDriver(function=VIRTUAL, driver="vfio-pci")
    effect = effect_of(operation)
    image = effect.look(world(linux), operation)
    linux.bind(VIRTUAL, "e1000e")
    with pytest.raises(Refused, match="has driver e1000e by now, not vfio-pci"):
        effect.undo(world(linux), operation, image, None)


@pytest.mark.parametrize(
    ("fact", "instead"),
    [
        (p.FunctionIs(function=PHYSICAL, vendor=0x8086, device=0x106F), None),
        (p.FunctionIs(function=PHYSICAL, vendor=0x8086, device=0x106E), "it is 8086:106f"),
        (p.DriverIs(function=PHYSICAL, driver="e1000e"), None),
        (p.DriverIs(function=PHYSICAL, driver=None), "it has driver e1000e"),
        (p.DriverIs(function=VIRTUAL, driver="e1000e"), "it has no driver"),
        (p.ConfigIs(function=VIRTUAL, offset=4, width=2, value=2, mask=2), None),
        (p.ConfigIs(function=VIRTUAL, offset=4, width=2, value=0, mask=2), "it is 0x2"),
    ],
)
def test_facts(fact: AnyFact, instead: str | None, linux: FakeLinux) -> None:
    assert broken(world(linux), fact) == instead


@pytest.mark.parametrize(
    ("gsi", "instead"),
    [
        (2, "timer has it"),
        (0, None),
        (5, "acpi has it"),
        (4, None),
        (7, None),
        (16, "i915 has it"),
        (18, "eth0, ahci have it"),
        (20, None),
        (21, None),
        (23, None),
    ],
)
def test_a_gsi_that_somebody_uses(gsi: int, instead: str | None, linux: FakeLinux) -> None:
    """Two IOAPICs of eight pins, from GSI 0 and 16 on."""
    linux.irq(0, chip="IR-IO-APIC", hwirq=2, actions="timer")
    linux.irq(9, hwirq=5, actions="acpi")
    linux.irq(7, hwirq=7)
    linux.irq(24, hwirq=0, actions="i915")
    linux.irq(25, hwirq=2, actions="eth0,ahci")
    linux.irq(20, chip="PCI-MSI", hwirq=4, actions="nvme0q0")
    linux.irq(26, chip="PCI-MSI", hwirq=5, actions="nvme0q1")
    core = World(Backend.LIBRARY, model(Mode.DIRECT).domain(0), linux)
    assert broken(core, p.GsiUnused(gsi=Gsi(gsi))) == instead


def test_a_pirq_of_xen_has_its_gsi_s_number(linux: FakeLinux) -> None:
    linux.irq(20, chip="xen-pirq", actions="eth0")
    xen = World(Backend.XEN, None, linux)
    assert broken(xen, p.GsiUnused(gsi=Gsi(20))) == "eth0 has it"
    assert broken(World(Backend.XEN, None, linux), p.GsiUnused(gsi=Gsi(21))) is None


def test_nothing_leads_out_of_the_root(linux: FakeLinux, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("config", "driver_override", "bind", "resource0"):
        (outside / name).write_bytes(bytes(4096))
    plain = Linux(str(linux.root))
    devices = linux.root / "sys/bus/pci/devices"
    (devices / str(OTHER)).symlink_to(outside)
    (linux.root / "sys/bus/pci/drivers/evil").symlink_to(outside)
    for attempt in (
        lambda: plain.write_config(OTHER, 4, 2, 1),
        lambda: plain.set_override(OTHER, "x"),
        lambda: plain.write_bar(OTHER, 0, 0, 1),
        lambda: plain.bind(VIRTUAL, "evil"),
        lambda: plain.unbind(VIRTUAL, "evil"),
        lambda: plain.config(OTHER, 0, 2),
    ):
        with pytest.raises(LinuxRefused, match=r"leads out of|No such|is not a file"):
            attempt()
    link = linux.device(VIRTUAL) / "config"
    link.unlink()
    link.symlink_to(outside / "config")
    with pytest.raises(LinuxRefused, match="config register 0x4 of 0000:00:04"):
        plain.write_config(VIRTUAL, 4, 2, 1)
    assert all(not any((outside / name).read_bytes()) for name in os.listdir(outside))


def test_a_short_config_space(linux: FakeLinux) -> None:
    (linux.device(VIRTUAL) / "config").write_bytes(bytes(64))
    with pytest.raises(LinuxRefused, match=r"config space of 0000:00:04.0 ends before 0x104; reading all takes root"):
        linux.config(VIRTUAL, 0x100, 4)


def test_driver_names() -> None:
    """A plan names no path."""
    from dom0kit.serial import UndecodableJson, decode, encode
    from tests.hypercall.apply_machine import plan

    text = encode(plan(p.BindDriver(function=VIRTUAL, driver="vfio-pci"), backend=Backend.LINUX))
    for name in ("../../../x", "a/b", "", ".", "..", "a b", "x" * 64):
        with pytest.raises(UndecodableJson):
            decode(text.replace(b"vfio-pci", name.encode()), p.Plan)
