# SPDX-License-Identifier: MIT
"""A Plan: what shall be done to one machine, as a value. Making one has no effects; `dom0kit apply` alone has.

A plan is an ordered list of operations, the facts that whoever made it relied upon (checked again under the lock,
right before the first operation), the fingerprint of the machine it was made for, and for whom its calls are encoded:
(dialect, backend). `dom0kit.serial` writes and reads its JSON, `encode(plan, indent=2)` and `decode(text, Plan)`;
whatever decodes is a plan that makes sense in itself.

Each operation is a hypercall of ``hv_core/include/hv_core/abi.h``, or a write to a PCI function or to Linux's files.
An operation that finds its work done already (a GSI mapped to that pIRQ, a GSI set up like that, a function added, a
driver bound) does nothing, and undoing it does nothing either. `inverse(backend)` says how far it can be undone there.

A pIRQ that only the hypervisor knows, being its choice, is written `ResultOf`: the result of an earlier operation of
the same plan.
"""

from __future__ import annotations

import enum
from typing import Annotated, ClassVar, Final

import msgspec

from dom0kit.address import Gsi, Polarity, Sbdf, Trigger

FORMAT: Final = 1
"""Version of the JSON form; a new one where a field goes away or changes its meaning."""
OPERATIONS_LIMIT: Final = 1 << 20
TEXT_LIMIT: Final = 1000

Number16 = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]
Number32 = Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFF)]
Number64 = Annotated[int, msgspec.Meta(ge=0)]
"""Below 2**64; `_check_64` looks."""
Pin = Annotated[int, msgspec.Meta(ge=0, le=119)]
Pirq = Annotated[int, msgspec.Meta(ge=0, le=0x7FFFFFFF)]
GsiNumber = Annotated[Gsi, msgspec.Meta(ge=0, le=0x7FFFFFFF)]
"""What the hypercalls have room for."""
Width = Annotated[int, msgspec.Meta(ge=1, le=4)]
Text = Annotated[str, msgspec.Meta(max_length=TEXT_LIMIT)]
DriverName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+-]{0,62}$")]
"""Of a driver as below /sys/bus/pci/drivers."""


class Dialect(enum.Enum):
    """How interrupts are told to a hypervisor."""

    CLASSIC_2005 = "classic-2005"
    """dom0 writes redirection entries, and what it writes holds."""
    CLASSIC_XEN = "classic-xen"
    """The same calls on today's Xen (PV): the vector is read as a pIRQ, and the mask follows the trigger."""
    MODERN = "modern"
    """setup_gsi, map_pirq, pci_device_add."""


class Backend(enum.Enum):
    """Who answers the calls."""

    LIBRARY = "library"
    """The core in the Python process, over a modelled machine."""
    LOOPBACK = "loopback"
    """The core in the kernel module, over a model of the machine's IOAPICs."""
    HV_CORE = "hv_core"
    """The core, booted."""
    XEN = "xen"
    LINUX = "linux"
    """No hypervisor: drivers and PCI functions only."""

    @property
    def is_core(self) -> bool:
        return self in _CORES


_CORES: Final = frozenset({Backend.LIBRARY, Backend.LOOPBACK, Backend.HV_CORE})
_HYPERVISORS: Final = _CORES | {Backend.XEN}
_EVERYWHERE: Final = frozenset(Backend)


class Reach(enum.Enum):
    """How far an operation can be undone."""

    EXACT = "exact"
    PARTIAL = "partial"
    ABSENT = "absent"
    """Not at all: applying it takes ``--irreversible``."""


class Inverse(msgspec.Struct, frozen=True):
    """What undoing an operation brings back."""

    reach: Reach
    residue: str = ""
    """What stays after it was undone, as half a sentence; empty where the reach is exact."""


_EXACT: Final = Inverse(Reach.EXACT)


class Message(msgspec.Struct, frozen=True):
    """Address and data of an MSI message."""

    address: Number64
    data: Number32

    def __post_init__(self) -> None:
        _check_64(address=self.address)


class ResultOf(msgspec.Struct, frozen=True):
    """The pIRQ that an earlier operation of the same plan gave: `MapGsi`, `MapMsi` or `MapMsix`."""

    operation: Number32
    """Its index among the plan's operations, from 0 on."""


# ---- Operations ------------------------------------------------------------------------------------------------------


class Operation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="operation"):
    """One step of a plan. `str(operation)` is its sentence."""

    backends: ClassVar[frozenset[Backend]] = _CORES
    """Where it can be done at all."""

    why: Text = ""
    """For the reader: which function, table or policy asks for it."""

    def inverse(self, backend: Backend) -> Inverse:
        """How far it can be undone there."""
        if backend not in self.backends:
            return Inverse(Reach.ABSENT, f"{backend.value} has no such call")
        return self._inverse(backend)

    def _inverse(self, backend: Backend) -> Inverse:
        return _EXACT


class MapGsi(Operation, frozen=True, kw_only=True, tag="map-gsi"):
    """map_pirq of a GSI; the result is its pIRQ. One that is mapped already stays as it is, its users uncounted."""

    backends: ClassVar[frozenset[Backend]] = _HYPERVISORS

    gsi: GsiNumber
    pirq: Pirq | None = None
    """None: the lowest free one from 16 on. On Xen give the GSI's own number, as Linux does."""
    domain: Number16 | None = None
    """None: the caller."""

    def _inverse(self, backend: Backend) -> Inverse:
        if backend is Backend.XEN:
            kept = "vector and entry" if self.domain is not None else "mapping, vector and entry"
            return Inverse(Reach.PARTIAL, f"Xen keeps {kept} of GSI {self.gsi} until it restarts")
        return _EXACT

    def __str__(self) -> str:
        return f"map GSI {self.gsi} to {_pirq(self.pirq)}{_domain(self.domain)}"


class SetupGsi(Operation, frozen=True, kw_only=True, tag="setup-gsi"):
    """setup_gsi: trigger and polarity of a GSI of the caller. On Xen after `MapGsi`, as Linux does."""

    backends: ClassVar[frozenset[Backend]] = _HYPERVISORS

    gsi: GsiNumber
    trigger: Trigger
    polarity: Polarity

    def _inverse(self, backend: Backend) -> Inverse:
        if backend is Backend.XEN:
            return Inverse(Reach.PARTIAL, f"Xen keeps trigger, polarity and vector of GSI {self.gsi} until it restarts")
        return _EXACT

    def __str__(self) -> str:
        return f"set up GSI {self.gsi}: {self.trigger.value} triggered, active {self.polarity.value}"


class AllocIrqVector(Operation, frozen=True, kw_only=True, tag="alloc-irq-vector"):
    """alloc_irq_vector of a GSI of the caller; the result is the vector. On Xen it changes nothing."""

    backends: ClassVar[frozenset[Backend]] = _HYPERVISORS

    gsi: GsiNumber

    def __str__(self) -> str:
        return f"give GSI {self.gsi} a vector"


class WriteEntry(Operation, frozen=True, kw_only=True, tag="write-entry"):
    """apic_write of both words of a redirection entry: masked first, high word, low word with the final mask.

    In intercept mode an entry that has a vector already cannot be moved to another processor by this (`SetAffinity`).
    """

    backends: ClassVar[frozenset[Backend]] = _HYPERVISORS

    ioapic: Number64
    """Physical address."""
    pin: Pin
    entry: Number64
    """All 64 bits, in the dialect and the IOAPIC's format; delivery status and remote IRR are ignored."""

    def __post_init__(self) -> None:
        _check_64(ioapic=self.ioapic, entry=self.entry)

    def _inverse(self, backend: Backend) -> Inverse:
        if backend is Backend.XEN:
            return Inverse(Reach.ABSENT, f"Xen chooses vector, destination and mask of pin {self.pin} by itself")
        return _EXACT

    def __str__(self) -> str:
        return f"write {self.entry:016x} to pin {self.pin} of the IOAPIC at {self.ioapic:#x}"


class MaskEntry(Operation, frozen=True, kw_only=True, tag="mask-entry"):
    """apic_write of the mask bit of a redirection entry alone. Xen has no such thing: there the mask is its own."""

    ioapic: Number64
    pin: Pin
    masked: bool = True

    def __post_init__(self) -> None:
        _check_64(ioapic=self.ioapic)

    def __str__(self) -> str:
        return f"{'' if self.masked else 'un'}mask pin {self.pin} of the IOAPIC at {self.ioapic:#x}"


class MapMsi(Operation, frozen=True, kw_only=True, tag="map-msi"):
    """map_pirq of a function's MSI messages; the result is the first pIRQ, the others follow it."""

    backends: ClassVar[frozenset[Backend]] = _HYPERVISORS

    function: Sbdf
    count: Annotated[int, msgspec.Meta(ge=1, le=32)] = 1
    """A power of two."""
    pirq: Pirq | None = None
    """The first; None: the lowest free run."""
    domain: Number16 | None = None
    message: Message | None = None
    """Direct mode: what dom0 chose, told to the core (msi_write); the others have the next data. Never on Xen."""

    def __post_init__(self) -> None:
        _check_segment(self.function)
        _check_count(self.count)
        if self.message is not None and self.message.data + self.count - 1 > 0xFFFFFFFF:
            raise ValueError("the data of the last MSI message has more than 32 bits")

    def _inverse(self, backend: Backend) -> Inverse:
        if backend is Backend.XEN:
            return Inverse(Reach.PARTIAL, f"the message that Xen wrote stays in {self.function}, not enabled")
        return _EXACT

    def __str__(self) -> str:
        messages = "its MSI message" if self.count == 1 else f"its {self.count} MSI messages"
        return f"map {self.function}, {messages}, to {_pirq(self.pirq)}{_domain(self.domain)}{_message(self.message)}"


class MapMsix(Operation, frozen=True, kw_only=True, tag="map-msix"):
    """map_pirq of an entry of a function's MSI-X table; the result is the pIRQ."""

    backends: ClassVar[frozenset[Backend]] = _HYPERVISORS

    function: Sbdf
    entry: Annotated[int, msgspec.Meta(ge=0, le=2047)]
    table: Number64
    """Physical address of the table (hv_core) or of the start of its BAR (Xen, as Linux says it); not 0."""
    pirq: Pirq | None = None
    domain: Number16 | None = None
    message: Message | None = None
    """As in `MapMsi`."""

    def __post_init__(self) -> None:
        _check_segment(self.function)
        _check_64(table=self.table)
        if not self.table:
            raise ValueError(f"the MSI-X table of {self.function} cannot be at 0")

    def __str__(self) -> str:
        return (
            f"map {self.function}, MSI-X entry {self.entry}, to {_pirq(self.pirq)}"
            f"{_domain(self.domain)}{_message(self.message)}"
        )


class UnmapPirq(Operation, frozen=True, kw_only=True, tag="unmap-pirq"):
    """unmap_pirq of a GSI's pIRQ with one user, of a function's MSI messages (all of them), or of an MSI-X message."""

    backends: ClassVar[frozenset[Backend]] = _HYPERVISORS

    pirq: Pirq
    count: Annotated[int, msgspec.Meta(ge=1, le=32)] = 1
    """Of MSI messages, from `pirq` on."""
    domain: Number16 | None = None
    table: Number64 = 0
    """Of an MSI-X message: as in `MapMsix`, to map it again."""

    def __post_init__(self) -> None:
        _check_64(table=self.table)

    def _inverse(self, backend: Backend) -> Inverse:
        if backend is Backend.XEN:
            return Inverse(Reach.ABSENT, f"Xen does not tell what pIRQ {self.pirq} was, nor let dom0 map a GSI again")
        return Inverse(Reach.PARTIAL, f"in intercept mode pIRQ {self.pirq} may have another vector than before")

    def __str__(self) -> str:
        last = f" to {self.pirq + self.count - 1}" if self.count > 1 else ""
        return f"unmap pIRQ {self.pirq}{last}{_domain(self.domain)}"


class SetAffinity(Operation, frozen=True, kw_only=True, tag="set-affinity"):
    """Moves an interrupt to a processor (intercept mode)."""

    irq: Pirq | ResultOf
    """A pIRQ, or the GSI of that number."""
    cpu: Number32
    """Index in the order of the MADT."""
    domain: Number16 | None = None

    def _inverse(self, backend: Backend) -> Inverse:
        return Inverse(Reach.PARTIAL, f"IRQ {_number(self.irq)} may have another vector on its processor than before")

    def __str__(self) -> str:
        return f"move IRQ {_number(self.irq)}{_domain(self.domain)} to CPU {self.cpu}"


class WriteMessage(Operation, frozen=True, kw_only=True, tag="write-message"):
    """msi_write: another message for a pIRQ that has one (direct mode). The first one goes with `MapMsi`, `MapMsix`."""

    pirq: Pirq
    message: Message
    domain: Number16 | None = None

    def __str__(self) -> str:
        return f"record for pIRQ {self.pirq}{_domain(self.domain)} the message{_message(self.message)}"


class PciMmcfgReserved(Operation, frozen=True, kw_only=True, tag="pci-mmcfg-reserved"):
    """pci_mmcfg_reserved: firmware reserves an ECAM range, or does not."""

    backends: ClassVar[frozenset[Backend]] = _HYPERVISORS

    address: Number64
    """Of bus 0."""
    segment: Number16
    start_bus: Annotated[int, msgspec.Meta(ge=0, le=255)]
    end_bus: Annotated[int, msgspec.Meta(ge=0, le=255)]
    reserved: bool = True
    was: bool | None = None
    """What the hypervisor believed before, which it does not tell; None: not known, and never told back."""

    def __post_init__(self) -> None:
        _check_64(address=self.address)

    def _inverse(self, backend: Backend) -> Inverse:
        if self.was is None:
            return Inverse(Reach.PARTIAL, f"what was said of the ECAM range at {self.address:#x} is not taken back")
        return _EXACT

    def __str__(self) -> str:
        buses = f"{self.segment:04x}:{self.start_bus:02x}-{self.end_bus:02x}"
        is_reserved = "reserved" if self.reserved else "not reserved"
        return f"tell that the ECAM range at {self.address:#x}, buses {buses}, is {is_reserved}"


class _PciDevice(Operation, frozen=True, kw_only=True):
    function: Sbdf
    physical: Sbdf | None = None
    """Of a virtual function."""
    extended: bool = False
    """A function by ARI."""
    pxm: Number32 | None = None

    def __post_init__(self) -> None:
        _check_segment(self.function)
        if self.physical is not None and self.physical.segment != self.function.segment:
            raise ValueError(f"{self.function} cannot be a virtual function of {self.physical}, of another segment")


class PciDeviceAdd(_PciDevice, frozen=True, kw_only=True, tag="pci-device-add"):
    """pci_device_add: a function has appeared; a virtual one after its physical one."""

    backends: ClassVar[frozenset[Backend]] = _HYPERVISORS

    def _inverse(self, backend: Backend) -> Inverse:
        if backend is Backend.XEN:
            return Inverse(
                Reach.PARTIAL, f"Xen goes on knowing {self.function}, as dom0's kernel may have told it, too"
            )
        return _EXACT

    def __str__(self) -> str:
        of = f", virtual function of {self.physical}" if self.physical is not None else ""
        return f"tell that {self.function}{of} has appeared"


class PciDeviceRemove(_PciDevice, frozen=True, kw_only=True, tag="pci-device-remove"):
    """pci_device_remove of a function without messages; with the values that it was added with, to add it again."""

    backends: ClassVar[frozenset[Backend]] = _HYPERVISORS

    def __str__(self) -> str:
        return f"tell that {self.function} is gone"


class IoapicAdd(Operation, frozen=True, kw_only=True, tag="ioapic-add"):
    """ioapic_add: an IOAPIC has appeared; the result is the number of its pins."""

    address: Number64
    gsi_base: GsiNumber

    def __post_init__(self) -> None:
        _check_64(address=self.address)

    def _inverse(self, backend: Backend) -> Inverse:
        return Inverse(Reach.PARTIAL, f"pins that firmware left unmasked at {self.address:#x} stay masked")

    def __str__(self) -> str:
        return f"tell that an IOAPIC has appeared at {self.address:#x}, GSI base {self.gsi_base}"


class IoapicRemove(Operation, frozen=True, kw_only=True, tag="ioapic-remove"):
    """ioapic_remove of one whose pins are all unused."""

    address: Number64
    gsi_base: GsiNumber
    """To add it again."""

    def __post_init__(self) -> None:
        _check_64(address=self.address)

    def __str__(self) -> str:
        return f"tell that the IOAPIC at {self.address:#x} goes"


class CreateDomain(Operation, frozen=True, kw_only=True, tag="create-domain"):
    """domain_create; the result is its number."""

    domain: Annotated[int, msgspec.Meta(ge=1, le=0x7FEF)]
    vectors: Number32 = 0
    """How many it may hold; 0: no limit."""

    def __str__(self) -> str:
        return f"create domain {self.domain}{f' with {self.vectors} vectors' if self.vectors else ''}"


class DestroyDomain(Operation, frozen=True, kw_only=True, tag="destroy-domain"):
    """domain_destroy of one without interrupts, GSIs and functions."""

    domain: Annotated[int, msgspec.Meta(ge=1, le=0x7FEF)]
    vectors: Number32 = 0
    """As it was created with."""

    def _inverse(self, backend: Backend) -> Inverse:
        return Inverse(
            Reach.PARTIAL, f"functions of domain {self.domain} that Linux does not have any more are domain 0's"
        )

    def __str__(self) -> str:
        return f"destroy domain {self.domain}"


class _OfDomain(Operation, frozen=True, kw_only=True):
    domain: Annotated[int, msgspec.Meta(ge=1, le=0x7FEF)]


class _DeviceOfDomain(_OfDomain, frozen=True, kw_only=True):
    function: Sbdf

    def __post_init__(self) -> None:
        _check_segment(self.function)


class AssignDevice(_DeviceOfDomain, frozen=True, kw_only=True, tag="assign-device"):
    """assign_device: domain 0 gives a function without messages to another domain."""

    def __str__(self) -> str:
        return f"give {self.function} to domain {self.domain}"


class ReleaseDevice(_DeviceOfDomain, frozen=True, kw_only=True, tag="release-device"):
    """release_device: domain 0 takes back a function without messages."""

    def __str__(self) -> str:
        return f"take {self.function} back from domain {self.domain}"


class AssignGsi(_OfDomain, frozen=True, kw_only=True, tag="assign-gsi"):
    """assign_gsi: domain 0 gives an unused GSI to another domain."""

    gsi: GsiNumber

    def __str__(self) -> str:
        return f"give GSI {self.gsi} to domain {self.domain}"


class ReleaseGsi(_OfDomain, frozen=True, kw_only=True, tag="release-gsi"):
    """release_gsi: domain 0 takes back a GSI that is not in use."""

    gsi: GsiNumber

    def __str__(self) -> str:
        return f"take GSI {self.gsi} back from domain {self.domain}"


class WriteConfig(Operation, frozen=True, kw_only=True, tag="write-config"):
    """Writes bits of a register in a function's config space.

    Undone by writing the old bits: name no bit in `mask` that the function changes by itself or clears when written.
    On Xen not for MSI state, which is Xen's.
    """

    backends: ClassVar[frozenset[Backend]] = _EVERYWHERE

    function: Sbdf
    offset: Annotated[int, msgspec.Meta(ge=0, le=4095)]
    width: Width
    """Bytes: 1, 2 or 4; the offset is a multiple of it."""
    value: Number32
    mask: Number32
    """Which bits; the others keep what they are."""

    def __post_init__(self) -> None:
        _check_register(self.offset, self.width, self.value, self.mask)

    def __str__(self) -> str:
        return (
            f"write {self.value:#0{2 + 2 * self.width}x}, mask {self.mask:#x}, "
            f"to config register {self.offset:#x} of {self.function}"
        )


class WriteMsixEntry(Operation, frozen=True, kw_only=True, tag="write-msix-entry"):
    """Writes an entry of a function's MSI-X table in its BAR: masked first, then address and data, then the mask."""

    backends: ClassVar[frozenset[Backend]] = _EVERYWHERE - {Backend.XEN}

    function: Sbdf
    bar: Annotated[int, msgspec.Meta(ge=0, le=5)]
    offset: Number32
    """Of the table in the BAR; a multiple of 8."""
    entry: Annotated[int, msgspec.Meta(ge=0, le=2047)]
    message: Message | None = None
    pirq: Pirq | ResultOf | None = None
    """Instead of a message: the one that the core has for this pIRQ of the caller (msi_read)."""
    masked: bool = False

    def __post_init__(self) -> None:
        _check_message(self.message, self.pirq)
        if self.offset % 8:
            raise ValueError(f"an MSI-X table does not lie at {self.offset:#x} of its BAR: that is no multiple of 8")

    def __str__(self) -> str:
        message = _source(self.message, self.pirq) + (", masked" if self.masked else "")
        return f"write to MSI-X entry {self.entry} of {self.function} the message{message}"


class WriteMsi(Operation, frozen=True, kw_only=True, tag="write-msi"):
    """Writes message, count and enable bit of a function's MSI capability: disabled first, control register last."""

    backends: ClassVar[frozenset[Backend]] = _EVERYWHERE - {Backend.XEN}

    function: Sbdf
    capability: Annotated[int, msgspec.Meta(ge=0x40, le=0xF4)]
    """Its offset in config space; a multiple of 4."""
    wide: bool
    """It has an upper address register (64-bit Address Capable)."""
    message: Message | None = None
    pirq: Pirq | ResultOf | None = None
    """As in `WriteMsixEntry`."""
    count: Annotated[int, msgspec.Meta(ge=1, le=32)] = 1
    """Of messages enabled, a power of two."""
    enabled: bool = True

    def __post_init__(self) -> None:
        _check_message(self.message, self.pirq)
        _check_count(self.count)
        if self.capability % 4:
            raise ValueError(f"no capability lies at {self.capability:#x}: that is no multiple of 4")

    def __str__(self) -> str:
        enabled = f"{self.count} enabled" if self.enabled else "disabled"
        return f"write to MSI of {self.function} the message{_source(self.message, self.pirq)}, {enabled}"


class SetDriverOverride(Operation, frozen=True, kw_only=True, tag="set-driver-override"):
    """Only this driver may bind the function (Linux's ``driver_override``); None: any that knows it."""

    backends: ClassVar[frozenset[Backend]] = _EVERYWHERE

    function: Sbdf
    driver: DriverName | None

    def __str__(self) -> str:
        return f"let {'any driver' if self.driver is None else f'only {self.driver}'} bind {self.function}"


class BindDriver(Operation, frozen=True, kw_only=True, tag="bind-driver"):
    """Binds a function without a driver to one."""

    backends: ClassVar[frozenset[Backend]] = _EVERYWHERE

    function: Sbdf
    driver: DriverName

    def __str__(self) -> str:
        return f"bind {self.function} to {self.driver}"


class UnbindDriver(Operation, frozen=True, kw_only=True, tag="unbind-driver"):
    """Unbinds a function from its driver, which must be this one."""

    backends: ClassVar[frozenset[Backend]] = _EVERYWHERE

    function: Sbdf
    driver: DriverName

    def __str__(self) -> str:
        return f"unbind {self.function} from {self.driver}"


class ResetFunction(Operation, frozen=True, kw_only=True, tag="reset-function"):
    """Resets a function without a driver, and all of its device that this way of resetting reaches.

    By Linux, which saves its config space, stops its DMA and its pin, waits until it answers again, and writes config
    space back (drivers/pci/pci.c, pci_reset_function).
    """

    backends: ClassVar[frozenset[Backend]] = frozenset({Backend.LINUX, Backend.XEN, Backend.HV_CORE})

    function: Sbdf
    method: Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z_]{1,31}$")] | None = None
    """A word of its ``reset_method``; None: Linux's choice, also of a Linux before 5.15, which has no such file."""

    def _inverse(self, backend: Backend) -> Inverse:
        return Inverse(Reach.PARTIAL, f"what {self.function} held in itself before its reset is gone")

    def __str__(self) -> str:
        return f"reset {self.function}{f' ({self.method})' if self.method is not None else ''}"


class SetLinuxAffinity(Operation, frozen=True, kw_only=True, tag="set-linux-affinity"):
    """Which processors a Linux interrupt may go to (``/proc/irq/N/smp_affinity_list``); for those that drivers have."""

    backends: ClassVar[frozenset[Backend]] = _EVERYWHERE

    irq: Number32
    """Linux's number."""
    cpus: Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,5}([,-][0-9]{1,5}){0,1023}$")]
    """Linux's numbers, such as ``0-3,8``."""

    def __str__(self) -> str:
        return f"let Linux's IRQ {self.irq} go to CPUs {self.cpus}"


AnyOperation = (
    MapGsi
    | SetupGsi
    | AllocIrqVector
    | WriteEntry
    | MaskEntry
    | MapMsi
    | MapMsix
    | UnmapPirq
    | SetAffinity
    | WriteMessage
    | PciMmcfgReserved
    | PciDeviceAdd
    | PciDeviceRemove
    | IoapicAdd
    | IoapicRemove
    | CreateDomain
    | DestroyDomain
    | AssignDevice
    | ReleaseDevice
    | AssignGsi
    | ReleaseGsi
    | WriteConfig
    | WriteMsixEntry
    | WriteMsi
    | SetDriverOverride
    | BindDriver
    | UnbindDriver
    | ResetFunction
    | SetLinuxAffinity
)


# ---- Facts relied upon -----------------------------------------------------------------------------------------------


class Fact(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="fact"):
    """Something that must still be so when the plan is applied. `str(fact)` is what should be so."""


class ModeIs(Fact, frozen=True, kw_only=True, tag="mode"):
    """The core's mode (information)."""

    intercept: bool

    def __str__(self) -> str:
        return f"the core is in {'intercept' if self.intercept else 'direct'} mode"


class FunctionIs(Fact, frozen=True, kw_only=True, tag="function"):
    """Which function is at an address: a hot-plugged one may be another today."""

    function: Sbdf
    vendor: Number16
    device: Number16

    def __str__(self) -> str:
        return f"{self.function} is {self.vendor:04x}:{self.device:04x}"


class DriverIs(Fact, frozen=True, kw_only=True, tag="driver"):
    """The Linux driver of a function; None: it has none."""

    function: Sbdf
    driver: DriverName | None

    def __str__(self) -> str:
        return f"{self.function} has {'no driver' if self.driver is None else f'driver {self.driver}'}"


class GroupIs(Fact, frozen=True, kw_only=True, tag="group"):
    """Which functions Linux has in the IOMMU group of the first."""

    functions: Annotated[tuple[Sbdf, ...], msgspec.Meta(min_length=1, max_length=65536)]
    """Ascending."""

    def __str__(self) -> str:
        return f"{', '.join(map(str, self.functions[:8]))}{' ...' if len(self.functions) > 8 else ''} are a group"


class ConfigIs(Fact, frozen=True, kw_only=True, tag="config"):
    """Bits of a register in a function's config space."""

    function: Sbdf
    offset: Annotated[int, msgspec.Meta(ge=0, le=4095)]
    width: Width
    value: Number32
    mask: Number32

    def __post_init__(self) -> None:
        _check_register(self.offset, self.width, self.value, self.mask)

    def __str__(self) -> str:
        return f"config register {self.offset:#x} of {self.function} is {self.value:#x}, mask {self.mask:#x}"


class EntryIs(Fact, frozen=True, kw_only=True, tag="entry"):
    """Bits of a redirection entry, as apic_read shows it."""

    ioapic: Number64
    pin: Pin
    value: Number64
    mask: Number64 = (1 << 64) - 1

    def __post_init__(self) -> None:
        _check_64(ioapic=self.ioapic, value=self.value, mask=self.mask)
        if self.value & ~self.mask:
            raise ValueError("a value has bits outside its mask")

    def __str__(self) -> str:
        mask = "" if self.mask == (1 << 64) - 1 else f", mask {self.mask:016x}"
        return f"pin {self.pin} of the IOAPIC at {self.ioapic:#x} is {self.value:016x}{mask}"


class GsiUnused(Fact, frozen=True, kw_only=True, tag="gsi-unused"):
    """No driver of dom0's Linux has requested the GSI."""

    gsi: GsiNumber

    def __str__(self) -> str:
        return f"no driver uses GSI {self.gsi}"


AnyFact = ModeIs | FunctionIs | DriverIs | GroupIs | ConfigIs | EntryIs | GsiUnused


# ---- The plan --------------------------------------------------------------------------------------------------------


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What shall be done, to which machine, by which calls, and what it relies upon."""

    format: Annotated[int, msgspec.Meta(ge=FORMAT, le=FORMAT)] = FORMAT
    title: Text
    """What it is for, as a heading: ``interrupts of this machine``."""
    machine: Text
    """Name of what it was made from, for people."""
    fingerprint: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    """Of the machine it is for (`dom0kit.source.fingerprint`); no other takes it."""
    dialect: Dialect
    backend: Backend
    facts: Annotated[tuple[AnyFact, ...], msgspec.Meta(max_length=OPERATIONS_LIMIT)] = ()
    operations: Annotated[tuple[AnyOperation, ...], msgspec.Meta(max_length=OPERATIONS_LIMIT)]

    def __post_init__(self) -> None:
        for index, operation in enumerate(self.operations):
            if self.backend not in operation.backends:
                raise ValueError(f"operation {index} ({operation}): {self.backend.value} has no such call")
            for name in ("irq", "pirq"):
                value = getattr(operation, name, None)
                if isinstance(value, ResultOf):
                    _check_result(self.operations, index, value.operation)
            if self.backend is Backend.XEN and getattr(operation, "message", None) is not None:
                raise ValueError(f"operation {index} ({operation}): on Xen messages are Xen's")


def _check_result(operations: tuple[AnyOperation, ...], index: int, wanted: int) -> None:
    if wanted >= index or not isinstance(operations[wanted], MapGsi | MapMsi | MapMsix):
        raise ValueError(f"operation {index} ({operations[index]}): no operation {wanted} before it gives a pIRQ")


def _check_64(**numbers: int) -> None:
    for name, number in numbers.items():
        if not 0 <= number < 1 << 64:
            raise ValueError(f"{name} has 64 bits, and cannot be {number:#x}")


def _check_count(count: int) -> None:
    if count & (count - 1):
        raise ValueError(f"{count} MSI messages: the count is a power of two")


def _check_message(message: Message | None, pirq: int | ResultOf | None) -> None:
    if (message is None) == (pirq is None):
        raise ValueError("a message is written that is either given or of a pIRQ")


def _check_segment(function: Sbdf) -> None:
    if function.segment > 0xFFFF:
        raise ValueError(f"{function}: hypercalls have 16 bits for a segment; it is one that only Linux knows")


def _check_register(offset: int, width: int, value: int, mask: int) -> None:
    if width == 3 or offset % width:
        raise ValueError(f"there is no register of {width} bytes at {offset:#x}")
    if mask >> 8 * width or value & ~mask:
        raise ValueError(f"value {value:#x} and mask {mask:#x} do not fit a register of {width} bytes")


def _number(number: int | ResultOf) -> str:
    return str(number) if isinstance(number, int) else f"of operation {number.operation}"


def _pirq(pirq: int | None) -> str:
    return "a pIRQ" if pirq is None else f"pIRQ {pirq}"


def _domain(domain: int | None) -> str:
    return "" if domain is None else f" of domain {domain}"


def _message(message: Message | None) -> str:
    return "" if message is None else f", {message.data:#x} to {message.address:#x}"


def _source(message: Message | None, pirq: int | ResultOf | None) -> str:
    if isinstance(pirq, ResultOf):
        return f" of the pIRQ of operation {pirq.operation}"
    return _message(message) if pirq is None else f" of pIRQ {pirq}"
