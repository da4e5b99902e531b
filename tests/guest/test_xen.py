# SPDX-License-Identifier: MIT
"""Real Xen 4.17, without our kernel module: what we say of it against what it says itself, and QEMU's registers.

Each machine is booted once. Its domain 0 first looks and then acts (`tests/guest/xen_driver.py`); the tests judge.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from dom0kit.abi import Physdev, Status
from dom0kit.acpi.tables import build_table
from dom0kit.hypercall.trace import read_trace, replay
from dom0kit.iommu.facts import IommuKind
from dom0kit.msi.messages import MessageFormat
from dom0kit.msi.messages import decode as decode_message
from dom0kit.msi.state import InterruptMode
from dom0kit.platform import Platform
from dom0kit.serial import decode
from dom0kit.simulation import booted
from dom0kit.source.interface import RawTable
from dom0kit.xen import DomainKind, XenDomain, XenVersion
from tests.guest import Guest, Machine, boot, missing_xen
from tests.guest.images import ROOT

pytestmark = [
    pytest.mark.guest,
    pytest.mark.slow,
    pytest.mark.skipif(missing_xen() is not None, reason=missing_xen() or ""),
]
DEVICES = ("-device", "e1000,addr=4", "-device", "edu,addr=5", "-device", "e1000e,addr=6")
USUAL = {"pv": 20, "pvh": 40, "": 10}
"""Seconds that a boot takes. What a machine does then has five times as many, or, on a host that has much to do, five
times as many as this boot took (which the rig limits)."""
VECTOR, MASK = 0xFF, 1 << 16


class Seen(NamedTuple):
    """What one machine showed."""

    iommu: str
    folder: Path
    looked: dict[str, Any]
    acted: dict[str, Any]
    before: list[int]
    """QEMU's redirection entries after it looked, and when all was done."""
    after: list[int]
    platform: Platform

    def keys(self) -> str:
        text: str = self.looked["keys"]
        return text


@contextlib.contextmanager
def booted_within(machine: Machine, folder: Path, *files: Path) -> Iterator[Guest]:
    """A machine that is up; TimeoutError where it takes too long for what it is to do."""

    def over(*_: object) -> None:
        raise TimeoutError(f"not done within {limit:.0f} s")

    started = time.monotonic()
    with boot(machine, folder, files=files) as guest:
        limit = 5 * max(USUAL[machine.xen], time.monotonic() - started)
        before = signal.signal(signal.SIGALRM, over)
        signal.alarm(int(limit))
        try:
            yield guest
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)


def run(machine: Machine, folder: Path, *files: Path) -> Seen:
    """Boots, looks, acts."""
    before: list[int] = []
    after: list[int] = []
    with booted_within(machine, folder, *files) as guest:
        for what, entries in ((f"look-{machine.xen}", before), ("act", after)):
            guest.run(f"cd {ROOT} && python -m tests.guest.xen_driver {what}", timeout=None).check()
            entries.extend(guest.qmp.info_pic()[0].written)
        if machine.xen == "pv":
            guest.run(f"cd {ROOT} && python -m tests.guest.xen_driver plan", timeout=None).check()
    looked, acted = (json.loads((folder / what).read_text()) for what in (f"look-{machine.xen}", "act"))
    platform = decode((folder / "platform").read_bytes(), Platform)
    return Seen(machine.iommu, folder, looked, acted, before, after, platform)


@pytest.fixture(scope="module", params=["", "intel", "amd"], ids=lambda iommu: iommu or "no-iommu")
def pv(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    machine = Machine(xen="pv", iommu=request.param, memory=2048, devices=DEVICES)
    return run(machine, tmp_path_factory.mktemp("pv"))


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of the PVH machine without Xen."""
    folder = tmp_path_factory.mktemp("native")
    machine = Machine(iommu="amd", memory=2048, devices=DEVICES, translated=True)
    with booted_within(machine, folder) as guest:
        guest.run(f"cd {ROOT} && python -m dom0kit record -o /out/native.d0k", timeout=None).check()
    return folder / "native.d0k"


@pytest.fixture(scope="module")
def pvh(native: Path, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    machine = Machine(xen="pvh", iommu="amd", memory=2048, devices=DEVICES)
    return run(machine, tmp_path_factory.mktemp("pvh"), native)


# ---- A PV dom0 looks ----


class Irq(NamedTuple):
    """A line of ``xl debug-keys i``."""

    irq: int
    vector: int
    message: bool
    pirq: int | None
    """Of dom0, where a driver of it has the interrupt."""
    internal: str
    """Xen's own handler."""


_IRQ = re.compile(
    r"\(XEN\) +IRQ: *(\d+) vec:(..) (\S+) +status=\S+ aff:\S+ "
    r"(?:in-flight=\d+ d0: *(\d+)\(...\)|mapped, unbound|(\S+)\(\))"
)


def irqs(text: str) -> list[Irq]:
    return [
        Irq(int(irq), int(vector, 16), kind.startswith("PCI-MSI"), int(pirq) if pirq else None, internal)
        for irq, vector, kind, pirq, internal in _IRQ.findall(text)
    ]


def test_it_is_known_where_it_runs(pv: Seen) -> None:
    assert pv.platform.xen == XenDomain(DomainKind.PV, XenVersion(4, 17), True)
    assert pv.looked["lacks"] == {"PCI_DEVICE_RESET": -38}, "what our table says Xen lacks, Xen lacks"


def test_the_machines_tables_are_seen_through_xen(pv: Seen) -> None:
    assert pv.platform.iommu is not None
    assert pv.platform.iommu.kind is {"": None, "intel": IommuKind.VT_D, "amd": IommuKind.AMD_VI}[pv.iommu]
    assert pv.platform.iommu.interrupt_remapping is (pv.iommu != "")
    names = {table.name for table in pv.platform.tables}
    assert names & {"DMAR", "RMAD", "IVRS"} == {"": set(), "intel": {"RMAD"}, "amd": {"IVRS"}}[pv.iommu]
    of_xen = [finding.rule for finding in pv.platform.findings if finding.rule.startswith("xen.")]
    assert of_xen == [*(["xen.dmar-renamed"] if pv.iommu == "intel" else []), "xen.virtual-processors"]
    assert {one.rule for one in pv.platform.findings} <= {*of_xen, "pci.capability-overlap"}, "and Xen confuses nothing"


def test_apic_read_shows_the_hardware(pv: Seen) -> None:
    """Bit for bit; where interrupts are remapped Xen shows its translated view, and vector and mask agree."""
    for seen, qemu in ((pv.looked["entries"], pv.before), (pv.acted["entries"], pv.after)):
        if pv.iommu == "":
            assert seen == qemu
        elif pv.iommu == "intel":
            assert [entry & (VECTOR | MASK) for entry in seen] == [entry & (VECTOR | MASK) for entry in qemu]
            assert any(entry >> 48 & 1 for entry in qemu), "remapped"
        else:
            assert [entry & MASK for entry in seen] == [entry & MASK for entry in qemu]


def test_entries_are_those_that_xen_prints(pv: Seen) -> None:
    rows = re.findall(r"Apic 0x00, Pin +(\d+): vec=(..) .* polarity=(.) irr=. trig=(.) mask=(.) ", pv.keys())
    xen = {int(pin): (int(vector, 16), low, trigger, mask) for pin, vector, low, trigger, mask in rows}
    ours = {
        pin: (entry & VECTOR, str(entry >> 13 & 1), "L" if entry >> 15 & 1 else "E", str(entry >> 16 & 1))
        for pin, entry in enumerate(pv.looked["entries"])
        if entry & VECTOR
    }
    assert ours == xen
    assert len(ours) > 15


def test_interrupts_are_those_that_xen_has(pv: Seen) -> None:
    lines = irqs(pv.keys())
    assert len(lines) == pv.keys().count(" vec:"), "every line is understood"
    assert pv.looked["bound"] == sorted(line.pirq for line in lines if line.pirq is not None)
    for line in lines:
        if not line.message and not line.internal:
            assert pv.looked["vectors"][line.irq] == line.vector
    kernel = pv.platform.kernel
    assert kernel is not None
    requested = [each.irq for each in kernel.interrupts if each.chip == "xen-pirq" and each.actions]
    pins = [irq for irq in requested if irq < 24]
    assert pins == [line.irq for line in lines if line.pirq is not None and not line.message]
    assert len(requested) - len(pins) == sum(line.pirq is not None and line.message for line in lines)
    internal = {line.internal.rpartition("#")[2]: line.irq for line in lines if line.internal}
    assert internal.keys() == {"timer_interrupt", "ns16550_interrupt"} | {
        "": set(), "intel": {"iommu_page_fault"}, "amd": {"iommu_interrupt_handler"}
    }[pv.iommu]  # fmt: skip
    assert (internal["timer_interrupt"], internal["ns16550_interrupt"]) == (0, 4)


def test_the_routing_table_is_xens(pv: Seen) -> None:
    """``dom0kit irq``: every GSI and every message that dom0 has."""
    _, answer = pv.looked["irq"]
    lines = {line["gsi"]: line for line in answer["lines"]}
    xen = {line.irq: line for line in irqs(pv.keys()) if not line.message}
    for gsi, line in lines.items():
        vector = line["target"]["vector"] if line.get("target") else 0
        assert vector == (xen[gsi].vector if gsi in xen else 0)
    of_dom0 = {irq for irq, line in xen.items() if line.pirq is not None}
    assert of_dom0 == {gsi for gsi, line in lines.items() if line.get("requested_by")}
    messages = {each["function"]: each.get("targets", []) for each in answer["messages"] if each.get("irqs")}
    numbers = dict(re.findall(r"\(XEN\) (0000:\S+) - d0 - .*MSIs < ([\d ]+) >", pv.keys()))
    vectors = dict(re.findall(r"\(XEN\)  MSI\S* +(\d+) vec=(..) ", pv.keys()))
    expected = {function: {int(vectors[irq], 16) for irq in irqs.split()} for function, irqs in numbers.items()}
    assert messages.keys() == expected.keys()
    for function, targets in messages.items():
        found = {target["vector"] for target in targets}
        assert found == (expected[function] if pv.iommu == "" else {None}), "remapped: nobody but Xen knows"


def test_messages_are_those_that_xen_has(pv: Seen) -> None:
    ours = {
        str(state.sbdf): len(state.kernel_irqs)
        for state in pv.platform.msi
        if state.mode in (InterruptMode.MSI, InterruptMode.MSIX) and state.kernel_irqs
    }
    xen = {
        address: len(numbers.split())
        for address, numbers in re.findall(r"\(XEN\) (\S+) - d0 - .*MSIs < ([\d ]+)>", pv.keys())
    }
    assert ours == xen
    assert sum(ours.values()) == 4


def test_the_kernel_has_told_xen_everything(pv: Seen) -> None:
    status, answer = pv.looked["xen"]
    assert (status, answer["findings"]) == (0, [])
    assert all(one["known"] for one in answer["told"]["functions"])
    listed = re.findall(r"\(XEN\) (0000:\S+) - d0 - ", pv.keys())
    assert sorted(listed) == [one["sbdf"] for one in answer["told"]["functions"]]
    assert pv.looked["functions"] == {"0000:00:05.0": True, "0000:09:00.0": False}
    assert answer["told"]["messages"] == 4


# ---- A PV dom0 acts ----


def test_xen_is_alive(pv: Seen) -> None:
    """Though pins 24, 25, 40 and 200 of 24 were written to: two of them make it panic."""
    assert pv.acted["alive"].startswith("4.17")
    assert pv.acted["classic"]["beyond"] == ["OUT_OF_RANGE"] * 4


def test_classic_writes_do_what_was_measured(pv: Seen) -> None:
    assert pv.acted["classic"] == {
        "beyond": ["OUT_OF_RANGE"] * 4,
        "beyond, read": ["OUT_OF_RANGE"] * 2,
        "busy": ["BUSY"] * 3,
        "pirq beyond the limit": "INVALID",
        "delivery": ["INVALID"] * 4,
        "id": "NOT_PERMITTED",
        "high": "NOT_SUPPORTED",
        "unknown": "INVALID",
        "untouched": True,
        "masked level low": ["OK", "0x1a000", True],
        "unmasked level low": ["OK", "0x1a000", True],
        "masked edge": ["OK", "0x0", True],
        "other pins": [19],
    }
    assert pv.after[19] & MASK == 0, "an edge is unmasked, in the hardware, too"


def test_modern_maps_and_unmaps_a_gsi(pv: Seen) -> None:
    modern = pv.acted["modern"]
    assert {
        name: found for name, found in modern.items() if "message" not in name and name not in ("after", "status")
    } == {
        "first free pirq": 16,
        "pirq": 18,
        "set up": ["OK", "EXISTS"],
        "no such gsi": ["INVALID", "INVALID"],
        "dummy": 18,
        "map again": "OK",
        "unmap": ["OK", "INVALID", "OK"],
        "map for ever gone": ["NOT_PERMITTED"] * 2,
    }
    entry = pv.acted["entries"][18]
    assert entry & (MASK | 0xA000) == MASK | 0xA000
    assert entry & VECTOR, "the vector outlives the mapping"
    left = next(line for line in irqs(modern["message"]["keys"]) if line.irq == 18)
    assert (left.vector, left.pirq) == (entry & VECTOR, None)


def test_modern_maps_and_unmaps_a_message(pv: Seen) -> None:
    modern = pv.acted["modern"]
    during = modern["message"]["keys"]
    xen = re.findall(r"\(XEN\)  MSI +(\d+) vec=(..) (\S+) +edge +assert +(\S+) (\S+) +dest=(........)", during)
    (irq,) = re.findall(r"\(XEN\) 0000:00:05.0 - d0 - .*MSIs < (\d+) >", during)
    (vector,) = (int(row[1], 16) for row in xen if row[0] == irq)
    enabled, address, data = modern["message"]["state"]
    formats = {"": MessageFormat.COMPATIBILITY, "intel": MessageFormat.VTD, "amd": MessageFormat.AMD_VI}
    message = decode_message(address, data, formats[pv.iommu])
    if pv.iommu == "":
        assert message.vector == vector
        assert message.destination == int(next(row[5] for row in xen if row[0] == irq), 16)
    else:
        assert message.vector is None, "remapped: the message does not tell"
        assert message.remap_index is not None
    assert (modern["message"]["before"][0], enabled) == (0, 0), "Xen enables it when a driver binds the pIRQ"
    assert modern["message gone"] == ["OK", "INVALID"]
    assert not re.search(rf"\(XEN\)  MSI +{irq} ", modern["after"]["keys"])
    assert modern["after"]["state"] == modern["message"]["state"], "the residue: the message stays in the capability"


def test_a_plan_and_its_way_back_leave_drivers_their_interrupts(pv: Seen) -> None:
    """Xen would not let a GSI that dom0 has unmapped be mapped again, and the driver would find none."""
    seen = json.loads((pv.folder / "plan").read_text())
    assert seen["statuses"] == [0, 0, 0]
    assert {16, 20} <= {line.irq for line in irqs(seen["keys"])}, "GSIs that nobody had set up before"
    assert not {16, 20} & {line.irq for line in irqs(pv.keys())}
    assert seen["driver"] == "e1000"


def test_functions_come_and_go(pv: Seen) -> None:
    check_functions(pv)


def check_functions(seen: Seen) -> None:
    found = seen.acted["functions"]
    mapped = "NO_DEVICE" if seen.platform.xen and seen.platform.xen.kind is DomainKind.PV else "NOT_SUPPORTED"
    assert found == {
        "ranges": ["OK"],
        "no such range": "NO_DEVICE",
        "known": True,
        "again": ["OK", True],
        "gone": ["OK", False, mapped, ["xen.function-unknown"]],
        "gone twice": "NO_DEVICE",
        "back": ["OK", True, []],
        "not there": ["NO_DEVICE", "NO_DEVICE", False],
    }
    answered, *after = seen.acted["phantom"]
    if seen.iommu:
        assert answered < 0
        assert after == [True, "BUSY", True], "Xen keeps what it refused, and would die of its removal"
    else:
        assert (answered, after) == (0, [True, "OK", False])


NOT_THERE = [("NO_DEVICE", "OK"), ("NO_DEVICE", "EXISTS")]
"""That a function is not there only dom0's kernel knows."""


def replayed(seen: Seen) -> dict[str, list[tuple[str, str]]]:
    """The trace made again to the core on a model of the machine: where they differ, then and now, by operation."""
    tables = [RawTable(table.name, build_table(table), table.dynamic) for table in seen.platform.tables]
    machine = booted(seen.platform, tables, told=True)
    found: dict[str, list[tuple[str, str]]] = {}
    for step in replay(read_trace(seen.folder / "trace"), machine.domain(0)):
        name = step.then.call.partition("(")[0]
        assert step.status is not Status.FAULT
        found.setdefault(name, [])
        if not step.agrees:
            found[name].append((step.then.status, step.status.name))
    return found


def test_the_trace_is_made_again_to_the_core(pv: Seen) -> None:
    found = replayed(pv)
    assert {name for name, differ in found.items() if not differ} == {
        "pci_mmcfg_reserved", "pci_device_remove", "setup_gsi", "apic_read", "alloc_irq_vector", "irq_status_query",
    }  # fmt: skip
    gone = ("NOT_PERMITTED", "OK")
    assert found["apic_write"] == [*[("BUSY", "OK")] * 3, ("NOT_SUPPORTED", "OK"), gone], "the core has no handlers"
    assert found["map_pirq"] == [gone], "the core lets a GSI be mapped again"
    assert found["unmap_pirq"] == [("INVALID", "OK")], "and counts how often it was"
    assert found["pci_device_add"] == NOT_THERE


# ---- A PVH dom0 ----


def test_a_pvh_dom0_is_told_what_it_cannot_see(pvh: Seen) -> None:
    assert pvh.platform.xen == XenDomain(DomainKind.PVH, XenVersion(4, 17), True)
    assert {table.name for table in pvh.platform.tables} == {"APIC", "DSDT", "FACP", "FACS", "MCFG"}
    assert "xen.tables-rebuilt" in {finding.rule for finding in pvh.platform.findings}


def test_a_recording_completes_it(pvh: Seen, native: Path) -> None:
    from dom0kit.observation import observe
    from dom0kit.source.recognise import open_source

    completed = decode(json.dumps(pvh.looked["completed"][1]).encode(), Platform)
    bare = observe(open_source(native))
    assert completed.native is not None
    assert completed.native.fingerprint == bare.origin.fingerprint
    assert completed.origin.is_live
    borrowed = {one.fact for one in completed.native.borrowed if one.fact.startswith("table:")}
    assert borrowed == {"table:APIC", "table:HPET", "table:IVRS", "table:WAET"}
    assert completed.iommu == bare.iommu
    assert [group.functions for group in completed.groups] == [group.functions for group in bare.groups]
    assert completed.processors == bare.processors
    assert completed.routes == bare.routes
    assert "xen.tables-rebuilt" not in {finding.rule for finding in completed.findings}


def test_what_our_table_says_it_lacks_it_lacks(pvh: Seen) -> None:
    present = {Physdev.PCI_MMCFG_RESERVED, Physdev.PCI_DEVICE_ADD, Physdev.PCI_DEVICE_REMOVE}
    assert pvh.looked["lacks"] == {each.name: -38 for each in Physdev if each not in present}
    refused = pvh.looked["refused"]
    assert {status for status, _ in refused.values()} == {"NOT_SUPPORTED"}
    assert "no version of Xen" in refused["apic_read"][1]
    assert "from 4.20 on, this is 4.17" in refused["setup_gsi"][1]
    assert "4.20" in refused["map_pirq"][1]
    operations = pvh.looked["xen"][1]["operations"]
    assert {name for name, each in operations.items() if each["available"]} == {each.name.lower() for each in present}


def test_the_pvh_kernel_has_told_xen_everything(pvh: Seen) -> None:
    status, answer = pvh.looked["xen"]
    assert (status, answer["findings"], answer["told"]["messages"]) == (0, [], None)
    listed = re.findall(r"\(XEN\) (0000:\S+) - d0 - ", pvh.keys())
    assert {one["sbdf"] for one in answer["told"]["functions"] if one["known"]} >= set(listed)
    assert pvh.looked["bound"] == []


def test_functions_come_and_go_under_pvh(pvh: Seen) -> None:
    check_functions(pvh)
    assert pvh.acted["alive"].startswith("4.17")


def test_the_pvh_trace_is_made_again_to_the_core(pvh: Seen) -> None:
    assert replayed(pvh) == {
        "pci_mmcfg_reserved": [],
        "pci_device_add": NOT_THERE,
        "pci_device_remove": [],
        "map_pirq": [("NOT_SUPPORTED", "NO_DEVICE")],
    }
