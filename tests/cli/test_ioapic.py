# SPDX-License-Identifier: MIT
"""``dom0kit ioapic diff`` and ``set``, and ``msi map`` and ``unmap``, over the core of a recorded machine.

What they apply is looked at where they hand it over to ``dom0kit apply``; `tests/guest` does it in a real kernel.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Literal

import pytest

from dom0kit.abi import BackendKind, Mode
from dom0kit.address import Gsi, Polarity, Trigger
from dom0kit.cli import FINE, FOUND, UNUSABLE, USAGE, Unusable, at_once, hardware, ioapic, main, module, msi, plans
from dom0kit.hypercall.core_library import CoreLibrary, ModelMachine
from dom0kit.hypercall.interface import Hypervisor
from dom0kit.observation import observe
from dom0kit.plan import Backend, Dialect, MapMsi, MapMsix, MaskEntry, PciDeviceAdd, Plan, UnmapPirq, WriteEntry
from dom0kit.platform import Platform
from dom0kit.serial import encode
from dom0kit.simulation import machine_of
from dom0kit.source.recognise import open_source
from tests.acpi.asl import needs_interpreter

Q35 = str(Path(__file__).parent.parent.parent / "dom0kit" / "recordings" / "qemu-q35.d0k")


@functools.cache
def open_platform() -> Platform:
    return observe(open_source(Q35), aml=False)


def core() -> ModelMachine:
    return machine_of(open_platform(), open_source(Q35).tables(), Mode.INTERCEPT)


class Opened(CoreLibrary):
    """The core in the guise of the module's hv_core."""

    backend = BackendKind.HV_CORE
    name = "hv_core"

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *raised: object) -> None:
        pass


class World:
    """Q35 as this machine, and the plans that were handed to apply."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, hypervisor: Opened) -> None:
        self.hypervisor = hypervisor
        self.applied: list[tuple[Plan, bool, bool]] = []
        self.status = FINE
        for place in (msi, ioapic):
            monkeypatch.setattr(place, "open_live", lambda **_: open_source(Q35))
        monkeypatch.setattr(plans, "this_machine", lambda: "0" * 64)
        monkeypatch.setattr(module, "opened", lambda: hypervisor)
        monkeypatch.setattr(module, "opened_hypervisor", lambda: hypervisor)
        monkeypatch.setattr(at_once, "apply_at_once", self.apply)
        monkeypatch.setattr(hardware, "live_tables", lambda platform, remarks: {})

    def apply(self, plan: Plan, *, dry_run: bool = False, irreversible: bool = False) -> int:
        self.applied.append((plan, dry_run, irreversible))
        if not dry_run and self.status == FINE:
            for operation in plan.operations:
                self.do(operation)
        return self.status

    def do(self, operation: object) -> None:
        if isinstance(operation, WriteEntry):
            self.hypervisor.apic_write(operation.ioapic, 0x10 + 2 * operation.pin, 1 << 16)
            self.hypervisor.apic_write(operation.ioapic, 0x11 + 2 * operation.pin, operation.entry >> 32)
            self.hypervisor.apic_write(operation.ioapic, 0x10 + 2 * operation.pin, operation.entry & 0xFFFFFFFF)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch, Opened(core()))


# --- diff -------------------------------------------------------------------------------------------------------------


@needs_interpreter
def test_diff(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.hypervisor.apic_write(0xFEC00000, 0x10 + 2 * 20, 0x41)
    assert main(["ioapic", "diff"]) == FOUND
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "24 redirection entries: 13 differ"
    harm, waiting = lines.index("interrupts are lost, never end, or reach nobody"), lines.index("waiting to be set up")
    assert (
        lines[harm + 1] == "GSI 20 0.20 edge high, vector 0x41, unmasked it should be masked: nobody is known to use it"
    )
    assert "GSI 9 0.9 edge high, vector 0x00, masked it should be level triggered" in lines[waiting:]
    assert "GSI 9 0.9 edge high, vector 0x00, masked it should not be masked: acpi has requested it" in lines[waiting:]
    assert main(["ioapic", "diff", "--format", "json"]) == FOUND
    assert '"harm": true' in capsys.readouterr().out


@needs_interpreter
def test_diff_from_a_plan(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["irq", "plan", "--from", Q35, "-o", str(tmp_path / "plan")]) == FINE
    capsys.readouterr()
    assert main(["ioapic", "diff", str(tmp_path / "plan")]) == FOUND
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "24 redirection entries: 5 differ"
    world.hypervisor.setup_gsi(Gsi(16), Trigger.LEVEL, Polarity.HIGH)
    for gsi in (11, 21, 22, 23):
        world.hypervisor.setup_gsi(Gsi(gsi), Trigger.LEVEL, Polarity.HIGH)
    assert main(["ioapic", "diff", str(tmp_path / "plan")]) == FINE
    assert capsys.readouterr().out == "24 redirection entries: all are as they should be\n"
    assert main(["ioapic", "diff", Q35]) == UNUSABLE
    assert "is no plan" in capsys.readouterr().err


def test_diff_without_anybody_to_ask(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def nobody() -> Hypervisor:
        raise Unusable("there is no /dev/dom0kit")

    monkeypatch.setattr(module, "opened_hypervisor", nobody)
    assert main(["ioapic", "diff"]) == UNUSABLE
    assert capsys.readouterr().err == "dom0kit: there is no /dev/dom0kit\n"


# --- set --------------------------------------------------------------------------------------------------------------


def test_set(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ioapic", "set", "0.20", "vector=0x41", "trigger=level", "destination=1"]) == FINE
    assert capsys.readouterr().out == "before  0000000000010000\nafter   0100000000018041\n"
    ((plan, dry, irreversible),) = world.applied
    assert (plan.operations, dry, irreversible) == (
        (WriteEntry(ioapic=0xFEC00000, pin=20, entry=0x0100_0000_0001_8041),),
        False,
        False,
    )
    assert (plan.backend, plan.dialect, plan.fingerprint) == (Backend.HV_CORE, Dialect.CLASSIC_2005, "0" * 64)
    assert main(["ioapic", "set", "0.20", "masked=yes"]) == FINE
    assert capsys.readouterr().out == "pin 0.20 is like that already\n"
    world.hypervisor.machine.line(0xFEC00000, 20, True)
    assert main(["ioapic", "set", "0.20", "masked=no", "--dry-run"]) == FINE
    assert world.applied[1][1:] == (True, False)
    assert world.applied[1][0].operations == (MaskEntry(ioapic=0xFEC00000, pin=20, masked=False),)
    assert capsys.readouterr().out == ""


def test_what_the_hypervisor_made_of_it_is_said(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.do = lambda operation: None  # type: ignore[method-assign]
    assert main(["ioapic", "set", "0.20", "vector=0x41"]) == FOUND
    assert capsys.readouterr().out.endswith("wanted  0000000000010041: the hypervisor made something else of it\n")
    world.status = FOUND
    assert main(["ioapic", "set", "0.20", "vector=0x41"]) == FOUND
    assert capsys.readouterr().out == ""


def test_set_on_xen_says_what_xen_does(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.hypervisor.name = "xen"
    assert main(["ioapic", "set", "0.20", "vector=0x14", "masked=no", "--irreversible"]) == FINE
    out = capsys.readouterr().out.splitlines()
    said = [line for line in out if line.startswith("on Xen: ")]
    assert len(said) == 2
    assert "a pIRQ: 20 of dom0" in said[1]
    ((plan, _, irreversible),) = world.applied
    assert (plan.dialect, irreversible) == (Dialect.CLASSIC_XEN, True)


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["0.24", "masked=no"], UNUSABLE, "IOAPIC 0 has no pin 24: its last is 23"),
        (["7.0", "masked=no"], UNUSABLE, "there is no IOAPIC with id 7 (dom0kit ioapic dump lists them)"),
        (["20", "masked=no"], USAGE, "ioapic set: '20' is no pin like 0.20: IOAPIC id, pin"),
        (["0.20", "mask=no"], USAGE, "ioapic set: there is no 'mask' to set: vector, mode, destination"),
        (["0.20", "masked=no"], USAGE, "ioapic set: an unmasked entry needs a vector from 0x10 to 0xfe, not 0x00"),
    ],
)
def test_what_cannot_be_set(
    arguments: list[str], status: int, sentence: str, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ioapic", "set", *arguments]) == status
    assert capsys.readouterr().err.startswith(f"dom0kit: {sentence}")
    assert world.applied == []


def test_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ioapic"]) == USAGE
    assert main(["ioapic", "sett"]) == USAGE
    assert "did you mean 'set'?" in capsys.readouterr().err
    assert main(["ioapic", "--help"]) == FINE
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:]] == ["dump", "diff", "set"]


# --- msi map, msi unmap -----------------------------------------------------------------------------------------------


def by_backend(monkeypatch: pytest.MonkeyPatch, backend: Backend, *, intercept: bool) -> None:
    from dom0kit.cli import irq

    def answer(*_: Any, recorded: Literal[False]) -> irq.Answering:
        return irq.Answering(backend, intercept)

    monkeypatch.setattr(irq, "backend_of", answer)


def test_map(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    by_backend(monkeypatch, Backend.LOOPBACK, intercept=True)
    assert main(["msi", "map", "04:00.0", "--entries", "3"]) == FINE
    assert main(["msi", "map", "00:1f.2", "--dry-run"]) == FINE
    (first, dry, _), (second, second_dry, _) = world.applied
    assert [type(operation) for operation in first.operations] == [PciDeviceAdd, MapMsix, MapMsix, MapMsix]
    assert [type(operation) for operation in second.operations] == [PciDeviceAdd, MapMsi]
    assert (dry, second_dry) == (False, True)
    assert first.title == "messages of 0000:04:00.0"


def test_unmap(world: World) -> None:
    function = next(each for each in open_platform().functions if str(each.sbdf) == "0000:04:00.0")
    world.hypervisor.pci_device_add(function.sbdf)
    first = world.hypervisor.map_msix(function.sbdf, 0, 0xFD48_0000)
    second = world.hypervisor.map_msix(function.sbdf, 3, 0xFD48_0000)
    assert main(["msi", "unmap", "04:00.0"]) == FINE
    ((plan, _, _),) = world.applied
    assert [each.pirq for each in plan.operations if isinstance(each, UnmapPirq)] == [first, second]
    assert encode(plan)


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["map", "01:00.0"], UNUSABLE, "0000:01:00.0: nvme has it"),
        (["map", "00:00.0"], UNUSABLE, f"{Q35}: 0000:00:00.0 has neither MSI nor MSI-X"),
        (["map", "04:00.0", "--entries", "0"], USAGE, "msi map: --entries is 1 to 2048, not 0"),
        (["unmap", "04:00.0"], UNUSABLE, "0000:04:00.0 has no messages mapped"),
        (["unmap", "01:00.0"], UNUSABLE, "0000:01:00.0: nvme has it"),
    ],
)
def test_what_cannot_be_mapped(
    arguments: list[str],
    status: int,
    sentence: str,
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    by_backend(monkeypatch, Backend.LOOPBACK, intercept=True)
    assert main(["msi", *arguments]) == status
    assert capsys.readouterr().err.startswith(f"dom0kit: {sentence}")
    assert world.applied == []


def test_unmap_under_xen(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.hypervisor.backend = BackendKind.XEN
    assert main(["msi", "unmap", "04:00.0"]) == UNUSABLE
    assert "dom0kit rollback undoes msi map" in capsys.readouterr().err
