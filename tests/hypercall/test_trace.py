# SPDX-License-Identifier: MIT
"""Traces of hypercalls: what is written, and that it can be made again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dom0kit import abi
from dom0kit.abi import Physdev, Status
from dom0kit.address import Gsi, Polarity, Sbdf, Trigger
from dom0kit.hypercall.core_library import CoreLibrary, IoapicModel, ModelMachine
from dom0kit.hypercall.interface import HypercallRefused, Hypervisor, words
from dom0kit.hypercall.trace import BadTrace, TraceWriter, read_trace, replay
from tests.hv_core.machines import FIRST, cpu, ioapic, machine, madt
from tests.hypercall.fake_xen import FakeXen, opened

FUNCTION = Sbdf(0, 0, 5, 0)


def library() -> ModelMachine:
    return machine(madt(cpu(0), cpu(1), ioapic(FIRST, 0)), ioapics=(IoapicModel(address=FIRST),))


def route_a_function(hypervisor: Hypervisor) -> int:
    hypervisor.pci_device_add(FUNCTION)
    hypervisor.map_gsi(Gsi(20), 20)
    hypervisor.setup_gsi(Gsi(20), Trigger.LEVEL, Polarity.LOW)
    return hypervisor.map_msix(FUNCTION, 0, 0xF0000000)


def test_lines_are_for_people_too(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    with TraceWriter(path) as trace:
        dom0 = library().domain()
        dom0.listener = trace
        dom0.apic_read(FIRST, 1)
        with pytest.raises(HypercallRefused):
            dom0.apic_read(FIRST, 0x100)
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert len(lines) == 3, "each is written at once, a refused one too"
    assert lines[0] == {"trace": 1}
    assert lines[1]["seconds"] <= lines[2]["seconds"]
    device = abi.PciDeviceAdd(seg=1, bus=2, devfn=3, flags=0)
    call = words(Physdev.PCI_DEVICE_ADD, abi.PciDeviceAddPxm(device=device))
    assert call.startswith("pci_device_add(seg=0x1, bus=0x2, devfn=0x3, flags=0x0,")
    del lines[1]["seconds"], lines[2]["seconds"]
    base = "0000c0fe00000000"
    assert lines[1] == {
        "backend": "library",
        "number": 33,
        "command": 8,
        "call": "apic_read(apic_physbase=0xfec00000, reg=0x1, value=0x0)",
        "argument": base + "01000000" + "00000000",
        "status": "OK",
        "answer": base + "01000000" + "20001700",
    }
    assert (lines[2]["status"], "answer" in lines[2]) == ("OUT_OF_RANGE", False)


class Deadly(CoreLibrary):
    """A machine that does not survive a write to a register of an IOAPIC."""

    def call(self, number: int, command: int, argument: bytes) -> tuple[Status, bytes]:
        if (number, command) == (33, Physdev.APIC_WRITE):
            raise SystemError("the machine is gone")
        return super().call(number, command, argument)


def test_the_call_that_killed_the_machine_is_named(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    trace = TraceWriter(path)
    dom0 = Deadly(library())
    dom0.listener = trace
    dom0.apic_read(FIRST, 1)
    with pytest.raises(SystemError):
        dom0.apic_write(FIRST, 0x10 + 80, 0x31)
    last = path.read_text().splitlines()[-1]
    assert "apic_write(apic_physbase=0xfec00000, reg=0x60, value=0x31)" in last
    assert [call.call.partition("(")[0] for call in read_trace(path)] == ["apic_read"]
    dom0.apic_read(FIRST, 2)
    assert [json.loads(line).get("status") for line in path.read_text().splitlines()[1:]] == ["OK", None, "OK"]
    assert len(read_trace(path)) == 2


def test_the_same_machine_answers_the_same(tmp_path: Path) -> None:
    first, second = library(), library()
    with TraceWriter(tmp_path / "trace") as trace:
        dom0 = first.domain()
        dom0.listener = trace
        route_a_function(dom0)
        dom0.information()
        with pytest.raises(HypercallRefused):
            dom0.setup_gsi(Gsi(20), Trigger.LEVEL, Polarity.LOW)
    done = list(replay(read_trace(tmp_path / "trace"), second.domain()))
    assert len(done) == 6
    assert all(step.agrees and step.answer == step.then.after for step in done)
    assert list(first.domain().interrupts()) == list(second.domain().interrupts())
    assert [first.entry(FIRST, pin) for pin in range(24)] == [second.entry(FIRST, pin) for pin in range(24)]


def test_other_pirqs_are_followed(tmp_path: Path) -> None:
    first, second = library(), library()
    with TraceWriter(tmp_path / "trace") as trace:
        dom0 = first.domain()
        dom0.listener = trace
        pirq = route_a_function(dom0)
        other = dom0.map_msix(FUNCTION, 3, 0xF0000000)
        dom0.msi_read(other)
        dom0.unmap_pirq(pirq)
        with pytest.raises(HypercallRefused):
            dom0.query_vector(pirq)
        dom0.query_vector(other)
    busy = second.domain()
    busy.pci_device_add(Sbdf(0, 0, 9, 0))
    taken = [busy.map_msix(Sbdf(0, 0, 9, 0), entry, 0xF1000000) for entry in range(3)]
    assert {pirq, other} <= set(taken), "the pIRQs of the trace are somebody else's here"
    done = list(replay(read_trace(tmp_path / "trace"), second.domain()))
    assert [step.status.name for step in done] == [step.then.status for step in done]
    assert [each.pirq for each in busy.interrupts() if each.function == Sbdf(0, 0, 9, 0)] == taken
    left = [each.entry for each in busy.interrupts() if each.function == FUNCTION]
    assert left == [3]


def test_messages_of_one_call_are_followed_each(tmp_path: Path) -> None:
    with TraceWriter(tmp_path / "trace") as trace:
        dom0 = library().domain()
        dom0.listener = trace
        dom0.pci_device_add(FUNCTION)
        pirq = dom0.map_msi(FUNCTION, 4)
        dom0.query_vector(pirq + 3)
    second = library().domain()
    second.pci_device_add(Sbdf(0, 0, 9, 0))
    moved = second.map_msix(Sbdf(0, 0, 9, 0), 0, 0xF1000000)
    assert moved == pirq
    *_, asked = replay(read_trace(tmp_path / "trace"), second)
    assert (asked.argument != asked.then.argument, asked.agrees) == (True, True)


def test_a_trace_of_xen_is_made_to_the_core(tmp_path: Path) -> None:
    with TraceWriter(tmp_path / "trace") as trace, opened(FakeXen(), tmp_path) as xen:
        xen.listener = trace
        xen.pci_device_add(FUNCTION)
        assert xen.map_gsi(Gsi(22)) == 16
        xen.setup_gsi(Gsi(22), Trigger.LEVEL, Polarity.LOW)
        with pytest.raises(HypercallRefused):
            xen.pci_device_reset(FUNCTION)
        xen.unmap_pirq(16)
        assert xen.bound_pirqs()
    done = list(replay(read_trace(tmp_path / "trace"), library().domain()))
    assert [(step.then.call.partition("(")[0], step.agrees) for step in done] == [
        ("pci_device_add", True),
        ("map_pirq", True),
        ("setup_gsi", True),
        ("pci_device_reset", False),
        ("unmap_pirq", True),
    ]
    assert done[3].status is Status.OK, "what this Xen lacks the core has"


def test_a_line_cut_off_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    with TraceWriter(path) as trace:
        dom0 = library().domain()
        dom0.listener = trace
        for register in range(3):
            dom0.apic_read(FIRST, register)
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    assert len(read_trace(path)) == 2


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "line 1 is not"),
        ("{}\n", "line 1 is not"),
        ('{"trace":2}\n', "version 2"),
        ('{"trace":1}\nnot json\n', "line 2 is not"),
        ('{"trace":1}\n{"seconds":0,"backend":"xen","number":33,"command":8}\n', "line 2 is not"),
        (
            '{"trace":1}\n'
            '{"seconds":0,"backend":"xen","number":35,"command":8,"call":"","argument":"","status":"OK"}\n',
            "line 2: there is no hypercall 35",
        ),
        (
            '{"trace":1}\n'
            '{"seconds":0,"backend":"xen","number":33,"command":8,"call":"","argument":"","status":"FINE"}\n',
            "line 2: there is no status 'FINE'",
        ),
        (
            '{"trace":1}\n'
            '{"seconds":0,"backend":"xen","number":33,"command":8,"call":"","argument":"0x","status":"OK"}\n',
            "line 2: an argument is not hexadecimal",
        ),
    ],
)
def test_what_is_no_trace_is_told(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "trace").write_text(text)
    with pytest.raises(BadTrace, match=sentence):
        read_trace(tmp_path / "trace")


@given(
    calls=st.lists(
        st.tuples(
            st.sampled_from([(33, command) for command in (5, 8, 9, 10, 12, 13, 14, 21, 23, 24, 25, 26, 32)]
                            + [(0xD0, command) for command in range(17)]),
            st.binary(max_size=130),
            st.sampled_from([status.name for status in Status]),
            st.none() | st.binary(max_size=130),
        ),
        max_size=20,
    )
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_any_lines_can_be_made(
    tmp_path_factory: pytest.TempPathFactory, calls: list[tuple[tuple[int, int], bytes, str, bytes | None]]
) -> None:
    """Whatever somebody wrote into a trace, the replay comes to its end, a status for each line."""
    path = tmp_path_factory.mktemp("trace") / "trace"
    lines = [{"trace": 1}] + [
        {
            "seconds": 0,
            "backend": "xen",
            "number": number,
            "command": command,
            "call": "",
            "argument": argument.hex(),
            "status": status,
        }
        | ({} if answer is None else {"answer": answer.hex()})
        for (number, command), argument, status, answer in calls
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = list(replay(read_trace(path), library().domain()))
    assert [step.then.status for step in done] == [status for _, _, status, _ in calls]
