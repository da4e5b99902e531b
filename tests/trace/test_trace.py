# SPDX-License-Identifier: MIT
"""Counts, names, rates, events: all that a trace is but the program in the kernel."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0kit.address import Sbdf
from dom0kit.cli import main
from dom0kit.observation import observe
from dom0kit.trace.bpf import PROGRAMS, SUBJECTS, TraceMissing, check
from dom0kit.trace.counts import Counts, parse_counts
from dom0kit.trace.events import Filter, Kind, Raw, chrome_trace, histogram, joined, text
from dom0kit.trace.names import Owner, owners
from dom0kit.trace.rates import compared, read_unhandled, table
from tests.hotplug.machines import Q35, recording

INTERRUPTS = """\
           CPU0       CPU2
  0:         42          0   IO-APIC   2-edge      timer
  9:          1          7   IO-APIC   9-fasteoi   acpi
 24:        100          5   PCI-MSIX-0000:00:01.0   0-edge      virtio0-config
SPU:          1          2   Spurious interrupts
ERR:          3
MIS:          0
"""
OWNERS = {47: Owner(irq=47, function=Sbdf.parse("0000:03:00.0"), message=3, actions=("eth0-rx-3",))}


def test_counts() -> None:
    counts = parse_counts(INTERRUPTS)
    assert counts.cpus == (0, 2)
    assert counts.interrupts == {0: (42, 0), 9: (1, 7), 24: (100, 5)}
    assert counts.others == {"SPU": 3, "ERR": 3, "MIS": 0}
    assert (counts.total(24), counts.total(99)) == (105, 0)


@given(st.text() | st.text(alphabet="CPU0123456789: \nx"))
def test_counts_of_any_text(given_text: str) -> None:
    counts = parse_counts(given_text)
    assert all(len(each) == len(counts.cpus) for each in counts.interrupts.values())


def test_every_message_of_a_machine_has_an_owner() -> None:
    platform = observe(recording(Q35), aml=False)
    known = owners(platform)
    assert platform.kernel is not None
    assert {each.irq for each in platform.kernel.interrupts} <= known.keys()
    messages = [each for each in known.values() if each.message is not None]
    assert messages
    for each in messages:
        assert each.label.startswith(f"{each.function} ")
        assert each.label.endswith(f"message {each.message}")
    lines = [each for each in known.values() if each.gsi is not None]
    assert all(f"GSI {each.gsi}" in each.label for each in lines)
    assert lines


def test_rates() -> None:
    before = Counts((0, 1), {24: (100, 0), 25: (5, 5), 26: (7, 0)}, {"SPU": 1})
    after = Counts((0, 1), {24: (100, 50), 25: (5, 5), 26: (9, 0), 47: (4, 0)}, {"SPU": 2})
    rates = compared(before, after, 2.0, OWNERS, {26: 1}, {26: 3})
    assert [(each.irq, each.per_second, each.moved) for each in rates.interrupts] == [
        (24, 25, True),
        (47, 2, False),
        (26, 1, False),
    ]
    assert rates.interrupts[2].unhandled == 2
    assert rates.others == {"SPU": 0.5}
    shown = table(rates)
    assert "0000:03:00.0 eth0-rx-3 message 3" in shown
    assert "2 unhandled" in shown
    assert "spurious" in shown


def test_a_processor_that_comes_and_goes() -> None:
    before, after = Counts((0, 1), {24: (10, 20)}, {}), Counts((1, 2), {24: (25, 3)}, {})
    assert compared(before, after, 1.0, {}).interrupts[0].cpus == (5, 3)
    again = Counts((0, 1), {24: (2, 20)}, {})  # the counter was begun anew
    assert compared(before, again, 1.0, {}).interrupts[0].cpus == (2, 0)


def test_unhandled(tmp_path: Path) -> None:
    (tmp_path / "9").mkdir()
    (tmp_path / "9" / "spurious").write_text("count 12\nunhandled 3\nlast_unhandled 17 ms\n")
    (tmp_path / "10").mkdir()
    (tmp_path / "10" / "spurious").write_text("nothing of the kind")
    assert read_unhandled([9, 10, 11], str(tmp_path)) == {9: 3}


@pytest.mark.parametrize(
    ("raw", "what"),
    [
        (Raw(0, 47, 1500, 1, 2, Kind.HANDLED), "handled in 1.5 us"),
        (Raw(0, 47, 1500, 0, 2, Kind.HANDLED), "nobody handled it in 1.5 us"),
        (Raw(0, 47, 0x23, 0, 0, Kind.ALLOCATED), "vector 0x23 is allocated"),
        (Raw(0, 47, 0x23, 1 << 32 | 2, 0, Kind.CONFIGURED), "goes to vector 0x23 of CPU 1 (APIC id 2)"),
        (Raw(0, 47, 0x21 << 32 | 0x23, 1, 0, Kind.MOVED), "moves from vector 0x21 of CPU 0 to vector 0x23 of CPU 1"),
        (Raw(0, 47, 0xFEE00000, 0x4021, 0, Kind.MESSAGE), "message 0xfee00000 data 0x4021 is written"),
        (Raw(0, 0x0300, 0x10 << 8 | 4, 0, 0, Kind.READ), "reads 4 bytes at 0x10"),
        (Raw(0, 0x0300, 0x04 << 8 | 2, 7, 0, Kind.WRITE), "writes 2 bytes at 0x4 0x7"),
        (Raw(0, 13, 2000, 0, 0, Kind.CALL), "map_pirq: done"),
        (Raw(0, 0x42, 2000, (1 << 64) - 11, 0, Kind.CALL), "hand_over: errno 11"),
        (Raw(0, 0, 0, 0, 0, Kind.PRESENCE), "pciehp: presence or link has changed"),
    ],
)
def test_events_in_words(raw: Raw, what: str) -> None:
    event = joined(raw, OWNERS)
    assert event.what == what
    if raw.a == 47:
        assert (event.who, event.function) == ("0000:03:00.0 eth0-rx-3 message 3", Sbdf.parse("0000:03:00.0"))
    if raw.kind in (Kind.READ, Kind.WRITE):
        assert event.function == Sbdf.parse("0000:03:00.0")
    assert what in text(event, 0.0)


U64 = st.integers(0, (1 << 64) - 1)


@given(st.builds(Raw, U64, U64, U64, U64, st.integers(0, 4095), st.sampled_from(list(Kind))))
def test_any_event_has_words(raw: Raw) -> None:
    assert joined(raw, {}).what


def test_filters() -> None:
    wanted = Filter.parse(["0000:03:00.0", "cpu2"])
    assert wanted.fits(joined(Raw(0, 47, 1, 1, 2, Kind.HANDLED), OWNERS))
    assert not wanted.fits(joined(Raw(0, 47, 1, 1, 1, Kind.HANDLED), OWNERS))
    assert not wanted.fits(joined(Raw(0, 48, 1, 1, 2, Kind.HANDLED), OWNERS))
    assert Filter.parse(["47"]).fits(joined(Raw(0, 47, 1, 1, 1, Kind.HANDLED), {}))
    assert Filter.parse([]).fits(joined(Raw(0, 47, 1, 1, 1, Kind.HANDLED), {}))
    for wrong in ("eth0", "cpu", "0000:03:00.9", "-1"):
        with pytest.raises(ValueError, match="no function"):
            Filter.parse([wrong])


def test_a_timeline() -> None:
    events = [joined(Raw(5_000_000, 47, 2000, 1, 2, Kind.HANDLED), OWNERS), joined(Raw(9000, 0, 0, 0, 1, Kind.ADD), {})]
    first, second = json.loads(json.dumps(list(chrome_trace(events))))
    assert (first["ph"], first["ts"], first["dur"], first["tid"]) == ("X", pytest.approx(4998), pytest.approx(2), 2)
    assert (second["ph"], second["ts"], second["tid"]) == ("i", pytest.approx(9), 1)


def test_a_histogram() -> None:
    lines = histogram({11: 4, 13: 1})
    assert [line.split()[-2:] for line in lines] == [["4", "#" * 40], ["us", "0"], ["1", "#" * 10]]
    assert lines[0].split()[:5] == ["1.02", "us", "-", "2.05", "us"]
    assert histogram({}) == []


def test_each_subject_has_its_program() -> None:
    for name, subject in SUBJECTS.items():
        program = (PROGRAMS / f"{name}.bpf.c").read_text()
        for probe in subject.probes:
            assert f"int {probe.run}(" in program or f"STEP({probe.run}, " in program
        for point in subject.tracepoints:
            assert f"TRACEPOINT_PROBE({point.replace('/', ', ')})" in program


def _kernel(folder: Path, *paths: str) -> str:
    for path in paths:
        (folder / path).mkdir(parents=True)
    return str(folder)


@pytest.mark.parametrize(
    ("paths", "uid", "subject", "says"),
    [
        ((), 1000, "irq", "ask for root"),
        ((), 0, "irq", "no tracefs"),
        (("sys/kernel/tracing/events",), 0, "msi", "no kprobes"),
        (("sys/kernel/tracing/events",), 0, "irq", "no tracepoint irq:irq_handler_entry"),
        (
            ("sys/kernel/tracing/events", "sys/kernel/tracing/kprobe_events"),
            0,
            "msi",
            "apt-get install linux-headers-6.1",
        ),
    ],
)
def test_what_is_missing_is_said(tmp_path: Path, paths: tuple[str, ...], uid: int, subject: str, says: str) -> None:
    with pytest.raises(TraceMissing, match=says):
        check(SUBJECTS[subject], root=_kernel(tmp_path, *paths), uid=uid, release="6.1")


def test_nothing_is_missing(tmp_path: Path) -> None:
    root = _kernel(tmp_path, "sys/kernel/tracing/events", "sys/kernel/tracing/kprobe_events", "lib/modules/6.1/build")
    check(SUBJECTS["msi"], root=root, uid=0, release="6.1")


def test_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace"]) == 2
    assert main(["trace", "irqs"]) == 2
    assert "did you mean 'irq'" in capsys.readouterr().err
    assert main(["trace", "irq", "--for", "soon"]) == 2
    assert "no time like 10s" in capsys.readouterr().err
    assert main(["trace", "irq", "--filter", "eth0"]) == 2
    assert main(["top", "--every", "0"]) == 2
    assert main(["trace", "--help"]) == 0
    assert "pci-config" in capsys.readouterr().out


def test_top_of_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    if not Path("/proc/interrupts").exists() or main(["enumerate", "--no-aml", "--only", "pci"]) == 3:
        pytest.skip("this machine shows nothing of itself")
    capsys.readouterr()
    assert main(["top", "--every", "0.2", "--times", "1", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["seconds"] > 0.1
    assert shown["cpus"]
