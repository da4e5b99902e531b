# SPDX-License-Identifier: MIT
"""What the kernel says as it happens: its events of PCI functions and buses, ACPI devices, containers, by netlink.

The kernel's own events are taken, not udev's: without udevd those never come, silently. An event only says where to
look. So one that is lost costs nothing but a full enumeration, and the socket tells when that is due: it is in error,
ENOBUFS. (pyudev then reports an error without a number, and would go on to do so until somebody reads SO_ERROR.)
"""

from __future__ import annotations

import errno
import os
import re
import select
import socket
import time
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from dom0kit.address import Sbdf

SUBSYSTEMS: Final = ("pci", "pci_bus", "acpi", "container")
_ROOT_BUS: Final = re.compile(r"/pci([0-9a-f]{4,8}:[0-9a-f]{2})/pci_bus/\1")
"""A bus directly below its host bridge (Linux, drivers/pci/probe.c, pci_register_host_bridge)."""
BUFFER: Final = 128 << 20
"""Bytes that may wait; an event takes about 1 KiB of them. udevd asks for as much."""
_AT_ONCE: Final = 4096
"""Events in one batch; the others stay in the buffer."""
_TEXT: Final = 4096


class MonitorMissing(Exception):
    """Events cannot be had; the message says why and what to do."""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One word of the kernel."""

    action: str
    """``add``, ``remove``, ``bind``, ``unbind``, ``change``, ``online``, ``offline`` …"""
    subsystem: str
    path: str
    """Below /sys: ``/devices/pci0000:00/0000:00:05.0``."""
    function: Sbdf | None
    """None of what is no PCI function."""
    sequence: int
    """The kernel's number of the event; 0 where it gave none."""
    received: float
    """When it was read, by the monotonic clock, in seconds."""

    @property
    def is_of_firmware(self) -> bool:
        """It is of a host bridge, or of a device that only ACPI has: AML may say something else now."""
        if self.subsystem == "pci_bus":
            return _ROOT_BUS.search(self.path) is not None
        return self.subsystem != "pci"


class Batch(msgspec.Struct, frozen=True):
    """Events that were waiting."""

    events: tuple[Event, ...] = ()
    lost: bool = False
    """There were more than the buffer holds: nobody knows what happened."""


def event_of(properties: Mapping[str, str], received: float) -> Event | None:
    """From the text of a uevent; None where it does not say what happened to what. It may be anything."""
    action, path = properties.get("ACTION", "")[:_TEXT], properties.get("DEVPATH", "")[:_TEXT]
    subsystem, number = properties.get("SUBSYSTEM", "")[:_TEXT], properties.get("SEQNUM", "")
    if not action or not path.startswith("/") or subsystem not in SUBSYSTEMS:
        return None
    function = None
    if subsystem == "pci":
        try:
            function = Sbdf.parse(path.rpartition("/")[2])
        except ValueError:
            return None
    sequence = int(number) if number.isascii() and number.isdecimal() and len(number) < 20 else 0
    return Event(action=action, subsystem=subsystem, path=path, function=function, sequence=sequence, received=received)


class Monitor:
    """The kernel's events from now on. Close it, or use it in ``with``."""

    def __init__(self, buffer: int | None = BUFFER) -> None:
        """`buffer`: bytes; None leaves the system's. MonitorMissing without libudev or netlink."""
        try:
            import pyudev

            monitor = pyudev.Monitor.from_netlink(pyudev.Context(), source="kernel")
        except (ImportError, OSError) as error:
            raise MonitorMissing(
                f"the kernel's events cannot be had ({error}): it takes libudev (apt-get install libudev1) and netlink"
            ) from error
        for subsystem in SUBSYSTEMS:
            monitor.filter_by(subsystem)
        self.sized = buffer is not None and _size(monitor, buffer)
        """The buffer could be made as large; only root may."""
        monitor.start()
        self._monitor: Any = monitor
        self._socket = socket.socket(fileno=os.dup(monitor.fileno()))
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)

    def close(self) -> None:
        self._socket.close()
        self._monitor = None

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def fileno(self) -> int:
        """For poll: readable where `receive` has something."""
        return self._socket.fileno()

    def receive(self, timeout: float = 0) -> Batch:
        """All events that wait, after at most `timeout` seconds."""
        events: list[Event] = []
        lost = False
        wait = timeout
        while len(events) < _AT_ONCE and self._poll.poll(wait * 1000):
            wait = 0
            lost |= self._error()
            try:
                device = self._monitor.poll(0)
            except OSError as error:
                if error.errno not in (None, errno.ENOBUFS):
                    raise
                lost = True
                continue
            if device is not None and (event := event_of(device.properties, time.monotonic())) is not None:
                events.append(event)
        return Batch(tuple(events), lost)

    def _error(self) -> bool:
        """Whether the socket dropped something; asking clears it."""
        return bool(self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))


def _size(monitor: Any, buffer: int) -> bool:
    try:
        monitor.set_receive_buffer_size(buffer)
    except OSError:
        return False
    return True
