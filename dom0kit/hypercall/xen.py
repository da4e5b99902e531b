# SPDX-License-Identifier: MIT
"""Real Xen, from dom0's user space: physdev operations by /dev/xen/privcmd, without kernel module and libxen.

Xen asks for care (Xen 4.17, arch/x86/io_apic.c and physdev.c; measured on it, tests/guest/test_xen.py):

- a register beyond an IOAPIC's last pin makes it panic: the version register is asked first, and such a call refused;
- with an IOMMU, pci_device_add of a function that is not there fails and leaves Xen a function without a domain, and
  pci_device_remove of such a one makes it panic: the first is refused, and the second where pci_device_add fails again;
- apic_write answers 0 also for what it ignores: the entry is read back, and a write that was ignored is BUSY;
- unmap_pirq of a GSI takes dom0's right to it: nothing, not even a driver, gets it again until Xen restarts;
- it takes trigger and polarity of a low word, a pIRQ from the vector field of an unmasked one, and makes the rest
  itself, the mask too (`side_effects`);
- most operations depend on PV or PVH and on the version (`dom0kit.xen`).

Sources of numbers and layouts: Linux include/uapi/xen/privcmd.h; Xen public/version.h, event_channel.h, sysctl.h.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from dom0kit import abi
from dom0kit.abi import Format, InterruptFlag, Op, PciDev, Physdev, Status
from dom0kit.address import Gsi, Sbdf
from dom0kit.hypercall.interface import HypercallRefused, Hypervisor
from dom0kit.hypercall.shared_info import SharedInfo, SharedIoapicEntry
from dom0kit.layout import layout
from dom0kit.walker import Notes
from dom0kit.xen import XenDomain, from_answers

PRIVCMD: Final = "/dev/xen/privcmd"
BUFFERS: Final = "/dev/xen/hypercall"
"""Memory that the kernel never moves, from Linux 4.18 on."""
IOCTL_HYPERCALL: Final = 0x305000
"""_IOC(_IOC_NONE, 'P', 0, 48)."""
FUNCTIONS: Final = Path("/sys/bus/pci/devices")
BUFFER_BYTES: Final = 3 * mmap.PAGESIZE

_XEN_VERSION: Final = 17
_VERSION: Final = 0
_GET_FEATURES: Final = 6
_EVENT_CHANNEL: Final = 32
_EVENT_STATUS: Final = 5
_EVENT_PIRQ: Final = 3
MAX_PORTS: Final = 1 << 17
"""Event channels of a domain, public/event_channel.h."""
_SYSCTL: Final = 35
_PCI_TOPOLOGY: Final = 22
_SYSCTL_VERSIONS: Final = range(0x10, 0x30)
"""0x15 is that of Xen 4.17; the operation's layout is the same since 4.6, and Xen refuses a version not its own."""
_SYSCTL_BYTES: Final = 8 + 128
"""Xen copies a whole struct xen_sysctl in and back out, whatever the operation."""
_NO_DEVICE: Final = 0xFFFFFFFE
"""XEN_INVALID_DEV: Xen does not have this function."""
_DEVICES_AT_ONCE: Final = 1024

_LEVEL: Final = 1 << 15
_ACTIVE_LOW: Final = 1 << 13
_MASKED: Final = 1 << 16

Ioctl = Callable[[int, int, bytearray, bool], int]
"""As `fcntl.ioctl`."""


class XenMissing(Exception):
    """Xen cannot be reached; the message says why and what to do."""


class Privcmd:
    """Hypercalls of dom0's user space. One at a time; close it, or use it in ``with``."""

    def __init__(self, device: str = PRIVCMD, buffers: str = BUFFERS, *, ioctl: Ioctl = fcntl.ioctl) -> None:
        """XenMissing where this is no domain of Xen, or not for us."""
        try:
            self._file = os.open(device, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise XenMissing(f"there is no {device}: this is no domain of Xen, or modprobe xen_privcmd") from error
        except OSError as error:
            raise XenMissing(f"{device} cannot be opened: {error.strerror}; it asks for root") from error
        self._ioctl = ioctl
        try:
            self.memory: Final = _memory(buffers)
        except OSError as error:
            os.close(self._file)
            raise XenMissing(f"no memory for arguments of hypercalls: {error.strerror}") from error
        self.address: Final = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        """Of `memory`, as Xen is told it."""
        self.lock: Final = threading.Lock()
        """Held by who uses `memory`."""

    def close(self) -> None:
        """The memory goes with the object."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Privcmd:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def hypercall(self, number: int, *arguments: int) -> int:
        """What Xen answers: 0 or more, or a negative errno."""
        words = bytearray(struct.pack("<6Q", number, *arguments, *[0] * (5 - len(arguments))))
        try:
            return self._ioctl(self._file, IOCTL_HYPERCALL, words, True)
        except OSError as error:
            if error.errno is None:
                raise
            return -error.errno


def _memory(buffers: str) -> mmap.mmap:
    """Pages that are never swapped: of the kernel's device, else locked and shared, so that no fork copies them."""
    try:
        file = os.open(buffers, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        memory = mmap.mmap(-1, BUFFER_BYTES, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
        libc = ctypes.CDLL(None, use_errno=True)
        start = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(memory)))
        if libc.mlock(start, ctypes.c_size_t(BUFFER_BYTES)) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number)) from None
        return memory
    try:
        return mmap.mmap(file, BUFFER_BYTES)
    finally:
        os.close(file)


class IoapicAt(msgspec.Struct, frozen=True):
    """An IOAPIC as the MADT has it: what turns an IRQ into a pin."""

    address: int
    gsi_base: Gsi


class Xen(Hypervisor):
    """Domain 0 of real Xen. Close it, or use it in ``with``.

    Xen has none of our own calls: they are NOT_SUPPORTED, but for the vector query, which the redirection entry
    answers. Of shared_info there is the list of IOAPICs, and nothing in memory.
    """

    name = "xen"

    def __init__(
        self, privcmd: Privcmd | None = None, *, ioapics: Iterable[IoapicAt] | None = None, functions: Path = FUNCTIONS
    ) -> None:
        """XenMissing where this is not dom0 of Xen.

        `ioapics`: without, those of this machine's MADT. `functions`: the folder of those that dom0's kernel has.
        """
        self._privcmd = privcmd or Privcmd()
        try:
            self.domain: Final = self._ask_domain()
        except BaseException:
            self.close()
            raise
        self._given = None if ioapics is None else tuple(ioapics)
        self._functions = functions
        self._pins: dict[int, int] = {}
        self._errno = 0
        """What Xen answered to the last call, where our statuses have not the like."""
        self._sysctl_version = 0

    def close(self) -> None:
        self._privcmd.close()

    def __enter__(self) -> Xen:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    # ---- As every hypervisor ----

    def call(self, number: int, command: int, argument: bytes) -> tuple[Status, bytes]:
        self._errno = 0
        if (number, command) == (abi.HYPERCALL_DOM0KIT, Op.QUERY_VECTOR):
            return self._query_vector(argument)
        if number == abi.HYPERCALL_DOM0KIT and (number, command) in abi.ARGUMENTS:
            return Status.NOT_SUPPORTED, argument
        if (number, command) not in abi.ARGUMENTS:
            return Status.NO_CALL, argument
        size = layout(abi.ARGUMENTS[number, command]).size
        if command == Physdev.PCI_DEVICE_ADD:
            argument = argument[:size].ljust(size, b"\0")
        if len(argument) != size:
            return Status.FAULT, argument
        if not self.domain.availability(Physdev(command)).available:
            return Status.NOT_SUPPORTED, argument
        if command in (Physdev.APIC_READ, Physdev.APIC_WRITE):
            return self._apic(Physdev(command), argument)
        if command == Physdev.PCI_DEVICE_ADD:
            return self._add_function(argument)
        if command == Physdev.PCI_DEVICE_REMOVE:
            return self._remove_function(argument)
        return self._physdev_call(command, argument)

    def reason(self, number: int, command: int, status: Status) -> str:
        if number == abi.HYPERCALL_DOM0KIT:
            if status is not Status.NOT_SUPPORTED:
                return ""
            return "Xen has no such call; the module dom0kit.ko has those that need no help of Xen"
        if status is Status.NOT_SUPPORTED:
            if command == Physdev.APIC_WRITE and self.domain.availability(Physdev.APIC_WRITE).available:
                return "Xen chooses the destination: it ignores a write of the high half of an entry"
            return self.domain.availability(Physdev(command)).reason
        if status is not Status.OK and self._errno:
            return f"Xen answered errno {self._errno} ({os.strerror(self._errno)})"
        if command in (Physdev.MAP_PIRQ, Physdev.APIC_WRITE) and status is Status.NOT_PERMITTED:
            return "once dom0 has unmapped a GSI, Xen lets it map that again only after a restart"
        if command == Physdev.PCI_DEVICE_ADD and status is Status.NO_DEVICE:
            return "dom0's kernel has no such function, and Xen may die of one that is not there"
        if command == Physdev.PCI_DEVICE_REMOVE and status is Status.BUSY:
            return "Xen knows it and could not give it to a domain; taking it away would make Xen panic"
        if command == Physdev.APIC_WRITE and status is Status.BUSY:
            return "Xen answered 0 and ignored the write: the interrupt is Xen's own, or a driver of dom0 has it"
        return ""

    def shared_info(self) -> SharedInfo:
        """The IOAPICs, by their registers as Xen shows them; its entries have no remapped format."""
        found = []
        for ioapic in self._ioapics:
            version = self.apic_read(ioapic.address, 1)
            found.append(
                SharedIoapicEntry(
                    address=ioapic.address,
                    gsi_base=ioapic.gsi_base,
                    pins=self._count_pins(ioapic.address)[1],
                    id=self.apic_read(ioapic.address, 0) >> 24,
                    version=version & 0xFF,
                    format=Format.COMPATIBILITY,
                )
            )
        return SharedInfo(counter=0, rsdp=None, xsdt=None, handed_over=False, ioapics=tuple(found))

    # ---- What dom0's kernel has told Xen ----

    def knows(self, functions: Sequence[Sbdf]) -> dict[Sbdf, bool]:
        """Of each function whether Xen has it (was told of it by pci_device_add, or found it at boot). Changes nothing.

        HypercallRefused where this Xen's sysctl interface is another one, or a policy forbids it.
        """
        known: dict[Sbdf, bool] = {}
        # No hypercall has room for a segment of more than 16 bits, so Xen was never told of one.
        askable = [function for function in dict.fromkeys(functions) if function.segment <= 0xFFFF]
        while len(known) < len(askable):
            part = askable[len(known) : len(known) + _DEVICES_AT_ONCE]
            nodes = self._pci_nodes(part)
            known.update(zip(part, (node != _NO_DEVICE for node in nodes), strict=False))
        return {function: known.get(function, False) for function in functions}

    def bound_pirqs(self) -> dict[int, int]:
        """The virtual processor of each pIRQ that a driver of dom0 has requested, by pIRQ. Changes nothing."""
        found: dict[int, int] = {}
        with self._privcmd.lock:
            for port in range(1, MAX_PORTS):
                question = struct.pack("<HHIIIQ", abi.DOMID_SELF, 0, port, 0, 0, 0)
                status, answer = self._exchange(_EVENT_CHANNEL, _EVENT_STATUS, question)
                if status:
                    break  # EINVAL: the domain has no more ports yet
                _, _, _, kind, cpu, value = struct.unpack("<HHIIIQ", answer)
                if kind == _EVENT_PIRQ:
                    found[value & 0xFFFFFFFF] = cpu
        return found

    # ---- How ----

    @property
    def _ioapics(self) -> tuple[IoapicAt, ...]:
        if self._given is None:
            self._given = tuple(_of_the_madt())
        return self._given

    def _ask_domain(self) -> XenDomain:
        version = self._privcmd.hypercall(_XEN_VERSION, _VERSION, 0)
        with self._privcmd.lock:
            status, answer = self._exchange(_XEN_VERSION, _GET_FEATURES, struct.pack("<II", 0, 0))
        if version <= 0 or status:
            raise XenMissing(f"Xen does not say its version (errno {-version if version < 0 else -status})")
        domain = from_answers(version, struct.unpack("<II", answer)[1])
        if not domain.is_dom0:
            raise XenMissing("this is a guest of Xen, not dom0: run it there")
        return domain

    def _exchange(self, number: int, command: int, argument: bytes) -> tuple[int, bytes]:
        """One call whose argument lies in memory; the lock is held. What it answered, and the argument after it."""
        memory = self._privcmd.memory
        memory[: len(argument)] = argument
        status = self._privcmd.hypercall(number, command, self._privcmd.address)
        return status, memory[: len(argument)]

    def _physdev_call(self, command: int, argument: bytes) -> tuple[Status, bytes]:
        with self._privcmd.lock:
            answered, data = self._exchange(abi.HYPERCALL_PHYSDEV, command, argument)
        if answered >= 0:
            return Status.OK, data
        status = _status(answered)
        if status != answered:
            self._errno = -answered
        # Which operations there are depends on version and domain; the tables of `dom0kit.xen` may be older than Xen.
        return (Status.NOT_SUPPORTED if status is Status.NO_CALL else status), argument

    def _apic(self, command: Physdev, argument: bytes) -> tuple[Status, bytes]:
        address, register, value = struct.unpack("<QII", argument)
        status, pins = self._count_pins(address)
        if status is not Status.OK:
            return status, argument
        if register > 2 and not 0x10 <= register < 0x10 + 2 * pins:
            return Status.OUT_OF_RANGE, argument
        if command is Physdev.APIC_READ:
            return self._physdev_call(command, argument)
        if register < 0x10:
            return Status.NOT_PERMITTED, argument
        if register % 2:
            return Status.NOT_SUPPORTED, argument
        status, answer = self._physdev_call(command, argument)
        if status is Status.OK:
            status, now = self._read(address, register)
            if status is Status.OK and (now ^ value) & (_LEVEL | _ACTIVE_LOW):
                return Status.BUSY, argument
        return status, answer if status is Status.OK else argument

    def _add_function(self, argument: bytes) -> tuple[Status, bytes]:
        added = layout(abi.PciDeviceAddPxm).parse(argument, 0, len(argument), Notes("hypercall"))
        assert added is not None
        device = added.device
        needed = [Sbdf.from_devfn(device.seg, device.bus, device.devfn)]
        if device.flags & PciDev.VIRTFN:
            needed.append(Sbdf.from_devfn(device.seg, device.physfn_bus, device.physfn_devfn))
        if not all((self._functions / str(function)).exists() for function in needed):
            return Status.NO_DEVICE, argument
        return self._physdev_call(Physdev.PCI_DEVICE_ADD, argument)

    def _remove_function(self, argument: bytes) -> tuple[Status, bytes]:
        function = Sbdf.from_devfn(*struct.unpack("<HBB", argument))
        try:
            known = self.knows([function])[function]
        except HypercallRefused as refused:
            return refused.status, argument
        if not known:
            return Status.NO_DEVICE, argument
        # Of a function that has a domain a second pci_device_add does nothing; of another it fails once more.
        status, _ = self._physdev_call(
            Physdev.PCI_DEVICE_ADD, layout(abi.PciDeviceAddPxm).build(self._as_added(function))
        )
        if status is not Status.OK:
            self._errno = 0
            return Status.BUSY, argument
        return self._physdev_call(Physdev.PCI_DEVICE_REMOVE, argument)

    def _as_added(self, function: Sbdf) -> abi.PciDeviceAddPxm:
        """As dom0's kernel told Xen of it (Linux, drivers/xen/pci.c, xen_add_device)."""
        folder = self._functions / str(function)
        flags, physical = PciDev(0), None
        with suppress(OSError, ValueError):
            physical = Sbdf.parse(os.path.basename(os.readlink(folder / "physfn")))
            flags |= PciDev.VIRTFN
        with suppress(OSError):
            if (folder / "ari_enabled").read_text().strip() == "1" and function.device:
                flags |= PciDev.EXTFN
        device = abi.PciDeviceAdd(
            seg=function.segment,
            bus=function.bus,
            devfn=function.devfn,
            flags=flags,
            physfn_bus=physical.bus if physical else 0,
            physfn_devfn=physical.devfn if physical else 0,
        )
        return abi.PciDeviceAddPxm(device=device)

    def _count_pins(self, address: int) -> tuple[Status, int]:
        """How many redirection entries can be reached; 0 where Xen has no such IOAPIC. Its registers are asked once."""
        if address not in self._pins:
            status, version = self._read(address, 1)
            if status is not Status.OK:
                return status, 0
            self._pins[address] = min((version >> 16 & 0xFF) + 1, 120)
        return Status.OK, self._pins[address]

    def _read(self, address: int, register: int) -> tuple[Status, int]:
        status, answer = self._physdev_call(Physdev.APIC_READ, struct.pack("<QII", address, register, 0))
        return status, struct.unpack("<QII", answer)[2]

    def _query_vector(self, argument: bytes) -> tuple[Status, bytes]:
        """The redirection entry of a GSI: alloc_irq_vector only gives the IRQ back. Xen tells no message's vector."""
        shape = layout(abi.QueryVector)
        if len(argument) != shape.size:
            return Status.FAULT, argument
        if not self.domain.availability(Physdev.APIC_READ).available:
            return Status.NOT_SUPPORTED, argument
        domain, irq = struct.unpack_from("<II", argument, 8)
        if argument[:8] != struct.pack("<HHI", abi.VERSION, shape.size, 0) or domain not in (0, abi.DOMID_SELF):
            return Status.INVALID, argument
        for ioapic in self._ioapics:
            pin = irq - ioapic.gsi_base
            if 0 <= pin < self._count_pins(ioapic.address)[1]:
                break
        else:
            return Status.INVALID, argument
        (status, low), (again, high) = (self._read(ioapic.address, 0x10 + 2 * pin + word) for word in (0, 1))
        if status is not Status.OK or again is not Status.OK:
            return (status if status is not Status.OK else again), argument
        if not low & 0xFF:
            return Status.NOT_FOUND, argument
        flags = InterruptFlag(0)
        for bit, flag in ((_MASKED, InterruptFlag.MASKED), (_LEVEL, InterruptFlag.LEVEL),
                          (_ACTIVE_LOW, InterruptFlag.ACTIVE_LOW)):  # fmt: skip
            flags |= flag if low & bit else InterruptFlag(0)
        # The order of the MADT's processors is not known here.
        return Status.OK, argument[:16] + struct.pack("<IIII", abi.NONE, high >> 24, low & 0xFF, flags)

    def _pci_nodes(self, functions: Sequence[Sbdf]) -> tuple[int, ...]:
        """XEN_SYSCTL_pcitopoinfo: of the first functions, one or more, the node, or that Xen has no such function."""
        devices = _SYSCTL_BYTES
        nodes = devices + 4 * len(functions)
        memory, address = self._privcmd.memory, self._privcmd.address
        packed = b"".join(struct.pack("<HBB", f.segment, f.bus, f.devfn) for f in functions)
        with self._privcmd.lock:
            for version in (self._sysctl_version,) if self._sysctl_version else _SYSCTL_VERSIONS:
                question = (_PCI_TOPOLOGY, version, len(functions), 0, address + devices, address + nodes)
                memory[: nodes + 4 * len(functions)] = (
                    struct.pack("<IIIIQQ", *question).ljust(devices, b"\0") + packed + bytes(4 * len(functions))
                )
                status = self._privcmd.hypercall(_SYSCTL, address)
                if status != -errno.EACCES:  # another version
                    break
            (done,) = struct.unpack_from("<I", memory, 8)  # Xen may stop before the end
            if status >= 0 and 0 < done <= len(functions):
                self._sysctl_version = version
                return struct.unpack_from(f"<{done}I", memory, nodes)
        refused = Status.NOT_SUPPORTED if status in (0, -errno.EACCES) else _status(status)
        raise HypercallRefused(refused, "sysctl pcitopoinfo", "this Xen does not tell which functions it has")


def _of_the_madt() -> Iterator[IoapicAt]:
    """The IOAPICs of this machine."""
    from dom0kit.acpi.tables import decode_table
    from dom0kit.ioapic import controllers
    from dom0kit.source.errors import UnreadableSource
    from dom0kit.source.live import live

    with suppress(UnreadableSource):
        tables = [decode_table(raw) for raw in live().tables() if raw.data[:4] == b"APIC"]
        for ioapic in controllers.observe(tables)[0].ioapics:
            yield IoapicAt(ioapic.address, Gsi(ioapic.gsi_base))


def side_effects(low: int) -> tuple[str, ...]:
    """What apic_write makes of a low word on Xen, beyond writing it: a clause each, as measured on 4.17.

    None of it can be taken back: vector and mapping stay until the machine starts again.
    """
    level, masked, irq = bool(low & _LEVEL), bool(low & _MASKED), low & 0xFF
    effects = ["vector, destination and delivery mode are its own choice, and stay until it starts again"]
    if not masked:
        effects.append(
            f"the vector field is taken for a pIRQ: {irq} of dom0 becomes this pin's, or the write is refused"
        )
    if level and not masked:
        effects.append("a level pin stays masked until a driver of dom0 binds its pIRQ")
    if not level and masked:
        effects.append("an edge pin is unmasked, whatever the mask says")
    return tuple(effects)


_LIKE: Final = {
    errno.EIO: Status.NO_DEVICE,
    errno.ENXIO: Status.NO_DEVICE,
    errno.ENOMEM: Status.NO_SPACE,
    errno.EACCES: Status.NOT_PERMITTED,
    errno.EDOM: Status.OUT_OF_RANGE,
}
"""What Xen answers beyond the statuses of our ABI, by what it means."""


def _status(answered: int) -> Status:
    """Of a negative answer. OSError where it is the kernel's and no hypercall was made."""
    if -answered in (errno.EBADF, errno.ENOTTY):
        raise OSError(-answered, os.strerror(-answered))
    try:
        return Status(answered)
    except ValueError:
        return _LIKE.get(-answered, Status.INVALID)
