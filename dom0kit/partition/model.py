# SPDX-License-Identifier: MIT
"""What a ``partition.toml`` says. `document` reads it; its JSON Schema is `dom0kit.serial.schema` of `Partition`."""

from __future__ import annotations

import enum
from typing import Annotated, Final

import msgspec

from dom0kit.plan import Backend

FORMAT: Final = 1
"""Version of the file; a new one where a key goes away or changes its meaning."""
DOMAINS_LIMIT: Final = 0x7FEF
"""Of a hypervisor: Xen's DOMID_FIRST_RESERVED is 7FF0h."""

Name = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+-]{0,62}$",
        description="up to 63 letters, digits, _ . + -, beginning with a letter, digit or _",
        examples=["net"],
    ),
]
Way = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[0-9a-f]{4,8}:[0-9a-f]{2}(/[01][0-9a-f]\.[0-7])+(/vf(0|[1-9][0-9]{0,4}))?$",
        description="segment and root bus, then device.function of each bridge down to the device, in lower-case "
        "hexadecimal; of a virtual function that of the physical one, and vf with its number",
        examples=["0000:00/1c.0/00.0", "0000:00/01.0/00.0/vf3"],
    ),
]
Id = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[0-9a-f]{4}:[0-9a-f]{4}$",
        description="vendor and device in lower-case hexadecimal",
        examples=["8086:1533"],
    ),
]
Class = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[0-9a-f]{6}$",
        description="class, sub-class and programming interface, six lower-case hexadecimal digits",
        examples=["020000"],
    ),
]
Serial = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[0-9a-f]{16}$",
        description="the keyed serial number, 16 lower-case hexadecimal digits, as dom0kit partition init prints it",
        examples=["3c1f9a5500d1e2f0"],
    ),
]
Address = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^([0-9a-fA-F]{1,8}:)?[0-9a-fA-F]{1,2}:[01]?[0-9a-fA-F]\.[0-7]$",
        description="a PCI address as lspci prints it; it changes when a card is added",
        examples=["0000:03:00.0"],
    ),
]
Memory = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[1-9][0-9]{0,8}[MGT]$",
        description="a number of MiB, GiB or TiB, with M, G or T",
        examples=["512M", "4G"],
    ),
]
Reason = Annotated[str, msgspec.Meta(min_length=8, max_length=500, description="a sentence that says why")]


class Target(enum.Enum):
    """What runs the domains."""

    LINUX = "linux"
    """Plain Linux: vfio-pci."""
    XEN = "xen"
    """xen-pciback, and the toolstack's ``pci`` option."""
    HV_CORE = "hv_core"
    LOOPBACK = "loopback"
    LIBRARY = "library"

    @property
    def backend(self) -> Backend:
        return Backend(self.value)


class Device(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A PCI function, by what does not change when other cards come and go. At least one of path, id and sbdf."""

    path: Way | None = None
    id: Id | None = None
    class_code: Class | None = msgspec.field(default=None, name="class")
    serial: Serial | None = None
    sbdf: Address | None = None
    optional: bool = False
    """The plan is made without it where it is not there."""
    comment: Annotated[str, msgspec.Meta(max_length=500)] | None = None
    """For people; nothing looks at it."""

    def __post_init__(self) -> None:
        if self.path is None and self.id is None and self.sbdf is None:
            raise ValueError("a device needs a path, an id or an sbdf")


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a domain may do without, or must have."""

    require_iommu: bool = True
    """False: its devices may reach all memory; what isolation groups say is then only told."""
    relaxed_rmrr: Reason | None = None
    """Why devices may be given away that firmware reserves memory for."""
    allow_shared_intx: bool = False
    """Its devices may share a level-triggered GSI with another domain's."""
    vectors: Annotated[int, msgspec.Meta(ge=1, le=1 << 16)] | None = None
    """Interrupts its devices may have together."""
    numa_node: Annotated[int, msgspec.Meta(ge=0, le=1023)] | None = None
    """Where its processors and memory are."""


STRICT: Final = Policy()
"""Of a domain that says nothing of it."""


class Domain(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A domain other than domain 0, which has all devices that no other has."""

    name: Name
    number: Annotated[int, msgspec.Meta(ge=1, le=DOMAINS_LIMIT)] | None = None
    """Of hv_core's domain; None: its place in the file, from 1 on."""
    vcpus: Annotated[int, msgspec.Meta(ge=1, le=4096)] | None = None
    memory: Memory | None = None
    backend: Target | None = None
    """None: what the machine runs on. All domains of a machine have the same."""
    policy: Policy = STRICT
    device: Annotated[tuple[Device, ...], msgspec.Meta(max_length=65536)] = ()

    @property
    def memory_bytes(self) -> int | None:
        if self.memory is None:
            return None
        return int(self.memory[:-1]) << {"M": 20, "G": 30, "T": 40}[self.memory[-1]]


class Partition(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole file."""

    format: Annotated[int, msgspec.Meta(ge=FORMAT, le=FORMAT)] = FORMAT
    domain: Annotated[tuple[Domain, ...], msgspec.Meta(max_length=DOMAINS_LIMIT)] = ()

    def __post_init__(self) -> None:
        numbers: dict[int, str] = {}
        names: set[str] = set()
        for index, domain in enumerate(self.domain):
            if domain.name in ("dom0", "Domain-0"):
                raise ValueError(f"{domain.name} has all that no other domain has, and is not written down")
            if domain.name in names:
                raise ValueError(f"two domains have the name {domain.name}")
            names.add(domain.name)
            other = numbers.setdefault(self.number(index), domain.name)
            if other != domain.name:
                raise ValueError(f"domains {other} and {domain.name} have the number {self.number(index)}")

    def number(self, index: int) -> int:
        """Of the domain at this place."""
        given = self.domain[index].number
        return index + 1 if given is None else given
