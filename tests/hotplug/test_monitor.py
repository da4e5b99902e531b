# SPDX-License-Identifier: MIT
"""The kernel's events, here and now, and what anybody could send in their place."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0kit.address import Sbdf
from dom0kit.hotplug.monitor import Monitor, event_of

FUNCTIONS = sorted(Path("/sys/bus/pci/devices").glob("*/uevent"))
can_ask = pytest.mark.skipif(
    not FUNCTIONS or not os.access(FUNCTIONS[0], os.W_OK) or os.geteuid() != 0,
    reason="having the kernel repeat an event takes root and a PCI function",
)
GOOD = {
    "ACTION": "add",
    "DEVPATH": "/devices/pci0000:00/0000:00:05.0/0000:01:00.0",
    "SUBSYSTEM": "pci",
    "SEQNUM": "824",
}


@pytest.fixture
def monitor() -> Iterator[Monitor]:
    with Monitor() as made:
        yield made


def repeat(times: int = 1) -> None:
    """The kernel tells of a change of the first function that did not happen; nothing else comes of it."""
    for _ in range(times):
        FUNCTIONS[0].write_text("change")


def test_an_event() -> None:
    event = event_of(GOOD, 1.5)
    assert event is not None
    assert (event.action, event.function, event.sequence) == ("add", Sbdf.parse("0000:01:00.0"), 824)
    assert event.received == 1.5


@pytest.mark.parametrize(
    "wrong",
    [
        {"ACTION": ""},
        {"DEVPATH": "devices/0000:01:00.0"},
        {"DEVPATH": "/devices/pci0000:00/0000:00:1f.8"},
        {"DEVPATH": "/devices/pci0000:00"},
        {"SUBSYSTEM": "usb"},
    ],
)
def test_no_event(wrong: dict[str, str]) -> None:
    assert event_of({**GOOD, **wrong}, 0) is None


@pytest.mark.parametrize("number", ["", "-1", "٣", "9" * 30, "1e3"])
def test_a_sequence_number_that_is_none(number: str) -> None:
    event = event_of({**GOOD, "SEQNUM": number}, 0)
    assert event is not None
    assert event.sequence == 0


def test_an_acpi_event_names_no_function() -> None:
    event = event_of(
        {"ACTION": "add", "SUBSYSTEM": "acpi", "DEVPATH": "/devices/LNXSYSTM:00/LNXSYBUS:00/ACPI000A:00"}, 0
    )
    assert event is not None
    assert event.function is None


@pytest.mark.parametrize(
    ("subsystem", "path", "expected"),
    [
        ("pci", "/devices/pci0000:00/0000:00:05.0", False),
        ("pci_bus", "/devices/pci0000:80/pci_bus/0000:80", True),
        ("pci_bus", "/devices/pci0000:00/0000:00:05.0/pci_bus/0000:01", False),
        ("pci_bus", "/devices/pci0000:00/pci_bus/0000:01", False),
        ("acpi", "/devices/LNXSYSTM:00/LNXSYBUS:00/ACPI000A:00", True),
        ("container", "/devices/system/container/PNP0A05:00", True),
    ],
)
def test_of_what_firmware_may_speak_otherwise(subsystem: str, path: str, expected: bool) -> None:
    event = event_of({"ACTION": "add", "SUBSYSTEM": subsystem, "DEVPATH": path}, 0)
    assert event is not None
    assert event.is_of_firmware == expected


@given(st.dictionaries(st.sampled_from([*GOOD, "X"]), st.text(max_size=40)))
def test_anything_may_be_sent(properties: dict[str, str]) -> None:
    event_of(properties, 0)


@can_ask
def test_the_kernel_is_heard(monitor: Monitor) -> None:
    assert monitor.sized
    repeat()
    batch = monitor.receive(timeout=5)
    function = Sbdf.parse(FUNCTIONS[0].parent.name)
    assert [(event.action, event.function) for event in batch.events] == [("change", function)]
    assert not batch.lost
    assert monitor.receive() == type(batch)()


@can_ask
def test_a_full_buffer_is_told_and_passes(monitor: Monitor) -> None:
    with socket.socket(fileno=os.dup(monitor.fileno())) as own:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    repeat(100)
    batch = monitor.receive(timeout=5)
    assert batch.lost
    assert len(batch.events) < 100
    repeat()
    after = monitor.receive(timeout=5)
    assert (len(after.events), after.lost) == (1, False)


@can_ask
def test_no_descriptor_is_left() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        with Monitor() as made:
            repeat()
            made.receive(timeout=5)
    assert len(os.listdir("/proc/self/fd")) == before
