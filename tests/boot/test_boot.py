# SPDX-License-Identifier: MIT
"""Stock Debian as dom0 of hv_core, in QEMU: what it sees, what it costs, what it may not.

Every pair of (processors; chipset; who takes interrupts; how the kernel is started; who loads the core) is in one of
the boots. Intercept mode has one processor: QEMU 7.2 itself crashes with it on several.
"""

from __future__ import annotations

import contextlib
import functools
import json
from pathlib import Path
from typing import Any

import pytest

from tests.boot import probe
from tests.guest import Guest, KernelComplained, Machine, boot, missing_grub, missing_hv, module

pytestmark = [
    pytest.mark.boot,
    pytest.mark.guest,
    pytest.mark.slow,
    pytest.mark.skipif(missing_hv() is not None, reason=missing_hv() or ""),
    pytest.mark.skipif(module.missing() is not None, reason=module.missing() or ""),
]
needs_grub = pytest.mark.skipif(missing_grub() is not None, reason=missing_grub() or "")

DEVICES = (
    *("-netdev", "user,id=intx", "-device", "e1000,netdev=intx"),
    *("-netdev", "user,id=messages", "-device", "e1000e,netdev=messages"),
    *("-device", "edu"),
)
APPEND = "iomem=relaxed"
"""Lets the tests reach through /dev/mem what only a kernel should."""

ALL = 0xFFFFFFFF
SLACK = 3
"""A processor counts its interrupt a moment before or after it writes."""

COMMON = ("information", "machine")


def effective(entry: int) -> int:
    """What a redirection entry says: of a masked one, the core sets the destination when it is unmasked (abi.h)."""
    return entry & 0xFFFFFFFF if entry >> 16 & 1 else entry


def seen_in(guest: Guest, *steps: str) -> dict[str, Any]:
    """What each step saw in dom0."""
    guest.run(f"cd {module.ROOT} && .venv/bin/python -m tests.boot.dom0 {' '.join(steps)}", timeout=300).check()
    seen: dict[str, Any] = json.loads((guest.out / "seen").read_text())
    return seen


def seen_by(machine: Machine, out: Path, *steps: str) -> tuple[dict[str, Any], str]:
    """What each step saw in dom0, and the console; in direct mode QEMU's redirection entries are what dom0 reads."""
    with boot(machine, out, files=[probe.built()]) as guest:
        guest.load(module.built()[0])
        seen = seen_in(guest, *steps, "entries")
        if "interrupts=intercept" not in machine.hv_append:
            qemu = guest.qmp.info_pic()[0].written
            assert [effective(entry) for entry in seen["entries"]] == [effective(entry) for entry in qemu]
        return seen, guest.console


@functools.cache
def _native(type: str, cpus: int, folder: Path) -> Any:
    machine = Machine(type=type, cpus=cpus, devices=DEVICES, append=APPEND)
    with boot(machine, folder) as guest:
        return seen_in(guest, "machine")["machine"]


@pytest.fixture(scope="session")
def native_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("native")


def differs(native: Any, dom0: Any, at: str = "") -> list[str]:
    """Where two reports differ, as paths."""
    if isinstance(native, dict) and isinstance(dom0, dict):
        return [
            path
            for key in sorted(native.keys() | dom0.keys())
            for path in differs(native.get(key), dom0.get(key), f"{at}.{key}")
        ]
    if isinstance(native, list) and isinstance(dom0, list) and len(native) == len(dom0):
        return [
            path
            for index, (one, other) in enumerate(zip(native, dom0, strict=True))
            for path in differs(one, other, f"{at}[{index}]")
        ]
    return [] if native == dom0 else [at]


OF_PROCESSORS = (".tables", ".namespace", ".processors", ".origin.fingerprint")
"""What of a report is another with another number of processors."""


def check_common(machine: Machine, seen: dict[str, Any], folder: Path, *, native_cpus: int | None = None) -> None:
    """The machine is the one that Linux sees without the core, but for what the core keeps; and its facts add up.

    `native_cpus`: it is held against a machine with so many processors, which saves a boot.
    """
    native = _native(machine.type, native_cpus or machine.cpus, folder)
    # What the core keeps is cut out of dom0's memory; the vectors of messages are each boot's own.
    by_design = (".memory.map", ".msi", ".kernel", *(OF_PROCESSORS if native_cpus else ()))
    other = [path for path in differs(native, seen["machine"]) if not path.startswith(by_design)]
    assert other == []
    kinds = {each["type"] for each in seen["machine"]["memory"]["map"]}
    assert {"System RAM", "Reserved", "ACPI Tables"} <= kinds
    assert seen["information"]["ioapics"] == 1
    assert seen["information"]["reports"] == 0
    assert seen["information"]["trapped"] >= 200


def refused(seen: dict[str, Any]) -> dict[str, int]:
    return {name: count for name, count in seen["exits"].items() if name.startswith("!") and count}


def check_memory(memory: dict[str, Any]) -> None:
    assert set(memory["reads"]) == {ALL}
    assert memory["write"] == [None, {"!memory": 1}]
    assert memory["read again"] == ALL
    assert memory["refused"] == {"!memory": 1}


def test_one_processor_direct(tmp_path: Path, native_folder: Path) -> None:
    """The normal way: Debian's bzImage, interrupts dom0's own."""
    machine = Machine(hv="bzimage", devices=DEVICES, append=APPEND)
    steps = ("exits", *COMMON, "e1000", "e1000e", "edu", "registered", "hand_over", "memory", "entry_modes")
    seen, console = seen_by(machine, tmp_path, *steps, "instructions", "registers")
    check_common(machine, seen, native_folder)
    assert seen["information"]["mode"] == 1

    # No exit is there for an interrupt: only CPUID (the counters are read by it) and the hypercalls.
    exits = seen["exits"]
    assert refused(seen) == {}
    assert {name for name, count in exits.items() if count} == {"cpuid", "msr", "vmmcall", "ioapic"}
    assert 400 < exits["ioapic"] < 600
    assert exits["cpuid"] < 6000
    for card, by_message in (("e1000", False), ("e1000e", True)):
        assert seen[card]["answered"] == 500
        assert seen[card]["interrupts"] >= 500
        assert seen[card]["by message"] is by_message
        assert set(seen[card]["exits"]) == {"cpuid"}, "an interrupt costs no exit"
    assert seen["edu"].startswith("came 20 times")
    assert seen["registered"] == [0, 2]
    assert seen["hand_over"] == {"wrong": "INVALID", "counter": 2, "handed over": True}

    check_memory(seen["memory"])
    modes = seen["entry_modes"]
    assert modes["by call"] == dict.fromkeys(("SMI", "NMI", "INIT", "ExtINT"), "INVALID")
    assert modes["trapped"] == {mode: [True, 1] for mode in ("SMI", "NMI", "INIT", "ExtINT")}
    for name, (said, counted) in seen["instructions"]["kernel"].items():
        assert said.startswith(f"{name}: raised"), said
        assert counted == {"!instr": 1}
    assert seen["instructions"]["user"] == [-4, {"!instr": 1}], "SIGILL"
    assert seen["instructions"]["calls"] == {
        "unknown": "vmmcall: returned -38",
        "null": "vmmcall: returned -14",
        "not canonical": "vmmcall: returned -14",
        "large": "vmmcall: returned -38",
    }
    registers = seen["registers"]
    for name in ("EFER has SVME", "SVM in CPUID", "x2APIC in CPUID"):
        assert registers.pop(name) == 0
    for name, (said, counted) in registers.items():
        assert (said, counted) == ("Input/output error", {"!msr": 1}), name
    assert "hv_core: dom0's write of MSR 0xc0010117 is refused" in console
    assert "the core's memory" in console


@needs_grub
def test_one_processor_intercepted(tmp_path: Path, native_folder: Path) -> None:
    """The core takes every interrupt, and gives dom0 the vector that it expects."""
    machine = Machine(
        type="pc", hv="pvh", hv_loader="grub", hv_append="interrupts=intercept", devices=DEVICES, append=APPEND
    )
    seen, _ = seen_by(machine, tmp_path, "exits", *COMMON, "e1000", "e1000e", "edu", "memory")
    check_common(machine, seen, native_folder, native_cpus=4)
    assert seen["information"]["mode"] == 2
    assert seen["information"]["vector of the timer"] >= 0xC0, "the core's own choice"
    assert refused(seen) == {}
    assert seen["exits"]["intr"] > 0
    for card in ("e1000", "e1000e"):
        assert seen[card]["answered"] == 500
        assert seen[card]["exits"]["intr"] >= seen[card]["interrupts"] - 5
    # Linux looks in its own vector's bit of the trigger mode register, and ends a level interrupt at the IOAPIC, too.
    assert abs(seen["e1000"]["exits"]["ioapic"] - seen["e1000"]["interrupts"]) <= 5
    assert seen["edu"].startswith("came 20 times")
    check_memory(seen["memory"])


def test_one_processor_intercepted_on_q35(tmp_path: Path, native_folder: Path) -> None:
    """And what is said of a dom0 that comes to its end."""
    machine = Machine(hv="bzimage", hv_append="interrupts=intercept", devices=DEVICES, append=APPEND)
    with contextlib.ExitStack() as machines:
        guest = machines.enter_context(boot(machine, tmp_path, files=[probe.built()]))
        guest.load(module.built()[0])
        seen = seen_in(guest, "exits", *COMMON, "edu")
        with pytest.raises(KernelComplained, match=r"PANIC: dom0 is at its end: .* \(triple fault\)"):
            guest.run("insmod /out/hv_probe.ko instruction=triple_fault", timeout=60)
        with pytest.raises(KernelComplained):
            machines.close()
    check_common(machine, seen, native_folder)
    assert refused(seen) == {}
    assert seen["edu"].startswith("came 20 times")


def check_processors(seen: dict[str, Any]) -> None:
    """With the local APICs trapped: one EOI an interrupt, one ICR write an interprocessor interrupt."""
    done = seen["per_interrupt"]
    for least, exactly, most in (done["eoi"], done["icr"]):
        assert exactly > 0
        assert least - SLACK <= exactly <= most + SLACK
    assert set(done["kinds"]) <= {"cpuid", "eoi", "icr", "apic"}
    assert refused(seen) == {}


def test_two_processors(tmp_path: Path, native_folder: Path) -> None:
    machine = Machine(cpus=2, hv="pvh", devices=DEVICES, append=APPEND)
    steps = ("exits", *COMMON, "per_interrupt", "cpu_off_and_on", "e1000e", "edu", "memory")
    seen, _ = seen_by(machine, tmp_path, *steps)
    check_common(machine, seen, native_folder)
    check_processors(seen)
    assert seen["information"]["cpus"] == 2
    assert seen["cpu_off_and_on"] == "0-1"
    assert seen["e1000e"]["answered"] == 500
    assert seen["edu"].startswith("came 20 times")
    check_memory(seen["memory"])


@needs_grub
def test_two_processors_by_grub(tmp_path: Path, native_folder: Path) -> None:
    machine = Machine(type="pc", cpus=2, hv="bzimage", hv_loader="grub", devices=DEVICES, append=APPEND)
    seen, _ = seen_by(machine, tmp_path, "exits", *COMMON, "cpu_off_and_on")
    check_common(machine, seen, native_folder, native_cpus=4)
    assert seen["cpu_off_and_on"] == "0-1"


def test_four_processors(tmp_path: Path, native_folder: Path) -> None:
    machine = Machine(type="pc", cpus=4, hv="bzimage", devices=DEVICES, append=APPEND)
    seen, _ = seen_by(machine, tmp_path, "exits", *COMMON, "per_interrupt")
    check_common(machine, seen, native_folder)
    check_processors(seen)
    assert seen["information"]["cpus"] == 4


@needs_grub
def test_processors_of_the_core(tmp_path: Path) -> None:
    """Two of four are the core's, and an IOMMU that it does not drive: dom0 sees neither, and reaches neither.

    GRUB puts the unpacked kernel where it is to run: it is moved away first.
    """
    machine = Machine(
        cpus=4, iommu="intel", hv="pvh", hv_loader="grub", hv_append="dom0_cpus=2", devices=DEVICES, append=APPEND
    )
    seen, console = seen_by(machine, tmp_path, "exits", *COMMON, "interprocessor", "per_interrupt", "cpu_off_and_on")
    tables = [table["name"] for table in seen["machine"]["tables"]]
    assert "DMAR" not in tables
    assert "APIC" in tables
    assert seen["information"]["cpus"] == 2
    assert "2 of 4 processors are dom0's" in console
    assert "the IOMMU is hidden from dom0" in console
    assert "is moved from" in console
    assert seen["cpu_off_and_on"] == "0-1"
    sent = seen["interprocessor"]
    assert sent.pop("cpus") == "0-1"
    assert sent.pop("logical") == {}, "no processor of the core's has a logical id"
    assert sent.pop("self") == {}
    # A broadcast is to all that dom0 knows of, and goes to them alone.
    assert [name for name, counted in sent.items() if not counted] == ["broadcast NMI", "broadcast fixed", "all"]
    assert {name: counted for name, counted in sent.items() if counted} == {
        name: {"!ipi": 1} for name in ("INIT", "SIPI", "NMI", "fixed", "SMI")
    }
