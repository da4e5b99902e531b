# SPDX-License-Identifier: MIT
"""Machines for the core's tests: static tables by hand, the modelled machine on them, and the specification's model."""

from __future__ import annotations

import fcntl
import functools
import importlib.util
import os
import struct
from collections.abc import Sequence
from pathlib import Path

from dom0kit.abi import Format, Mode
from dom0kit.hypercall.core_library import IoapicModel, ModelMachine, load
from dom0kit.simulation import memory_image
from dom0kit.source.interface import RawTable
from tests.hv_core.model import Firmware, Ioapic, Limits, Machine, Model

LIBRARY = Path(os.environ["DOM0KIT_CORE_LIBRARY"]) if "DOM0KIT_CORE_LIBRARY" in os.environ else None
"""A variant of the library to test instead: one that counts branches, for instance."""

LIMITS = {
    "HV_LIMIT_CPUS": 8,
    "HV_LIMIT_IOAPICS": 4,
    "HV_LIMIT_DOMAINS": 4,
    "HV_LIMIT_PIRQS": 128,
    "HV_LIMIT_GSIS": 2048,
    "HV_LIMIT_FUNCTIONS": 8,
    "HV_LIMIT_MESSAGES": 64,
    "HV_LIMIT_ECAM_RANGES": 4,
    "HV_LIMIT_REPORTS": 8,
}
"""Of the small library: limits can be reached, and the whole core can be compared after every call."""


@functools.cache
def small() -> Path:
    """The library with small limits, built once for a state of the sources."""
    if "DOM0KIT_SMALL_CORE_LIBRARY" in os.environ:
        return Path(os.environ["DOM0KIT_SMALL_CORE_LIBRARY"])
    root = Path(__file__).parents[2]
    spec = importlib.util.spec_from_file_location("hv_core_build", root / "hv_core" / "host" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    output = root / "build" / "small_core_library"
    output.mkdir(parents=True, exist_ok=True)
    with open(output / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        library: Path = build.library(output)
        if not build.is_current(library):
            build.build(output, [f"{name}={value}" for name, value in LIMITS.items()])
    return library


FIRST, SECOND, SPARE = 0xFEC00000, 0xFEC10000, 0xFEC20000


def table(signature: bytes, body: bytes, revision: int = 1) -> bytes:
    """A table with a good checksum."""
    size = 36 + len(body)
    data = struct.pack("<4sIBB6s8sI4sI", signature, size, revision, 0, b"TEST  ", b"TESTTEST", 1, b"TEST", 1) + body
    return data[:9] + bytes([-sum(data) & 0xFF]) + data[10:]


def cpu(apic_id: int, flags: int = 1) -> bytes:
    """A MADT entry of a processor, of the type its APIC id needs."""
    if apic_id < 0xFF:
        return struct.pack("<BBBBI", 0, 8, 0, apic_id, flags)
    return struct.pack("<BBHIII", 9, 16, 0, apic_id, flags, 0)


def ioapic(address: int, gsi_base: int, id: int = 0) -> bytes:
    return struct.pack("<BBBBII", 1, 12, id, 0, address, gsi_base)


def override(source: int, gsi: int, flags: int = 0) -> bytes:
    return struct.pack("<BBBBIH", 2, 10, 0, source, gsi, flags)


def madt(*entries: bytes) -> bytes:
    return table(b"APIC", struct.pack("<II", 0xFEE00000, 1) + b"".join(entries), 3)


def mcfg(*ranges: tuple[int, int, int, int]) -> bytes:
    """Ranges of (address, segment, first bus, last bus)."""
    return table(b"MCFG", bytes(8) + b"".join(struct.pack("<QHBBI", *each, 0) for each in ranges))


def machine(
    *tables: bytes,
    ioapics: Sequence[IoapicModel] = (),
    mode: Mode = Mode.INTERCEPT,
    entry_format: Format = Format.COMPATIBILITY,
    message_format: Format = Format.COMPATIBILITY,
    library: Path | None = LIBRARY,
) -> ModelMachine:
    """The core, started on these tables."""
    memory, rsdp, _ = memory_image(RawTable(each[:4].decode("latin-1"), each) for each in tables)
    return ModelMachine(
        memory=memory,
        ioapics=ioapics,
        rsdp=rsdp,
        mode=mode,
        entry_format=entry_format,
        message_format=message_format,
        library=library,
    )


PLAIN = Machine(
    ioapics=(
        Ioapic(address=FIRST, base=0),
        Ioapic(address=SECOND, base=32, version=0x70020, id=1),
        Ioapic(address=SPARE, base=None, version=0x50011, id=9),
    ),
    ecam=((0xE0000000, 0, 0, 0x7F), (0xD0000000, 1, 0x10, 0x1F)),
)
"""Three processors, 24 and 8 pins, and an IOAPIC of 6 that waits to be added."""


def pair(shape: Machine = PLAIN, library: Path | None = LIBRARY) -> tuple[ModelMachine, Model]:
    """The same machine twice: with the core on it, and as the specification says."""
    found = [each for each in shape.ioapics if each.base is not None]
    tables = (
        madt(
            *(cpu(apic_id) for apic_id in shape.apic_ids),
            *(ioapic(each.address, each.base or 0, each.id) for each in found),
        ),
        mcfg(*shape.ecam),
    )
    memory, rsdp, xsdt = memory_image(RawTable(each[:4].decode(), each) for each in tables)
    second_rsdp = 0xF0000
    memory.append((second_rsdp, dict(memory)[rsdp]))
    real = ModelMachine(
        memory=memory,
        ioapics=[
            IoapicModel(address=each.address, id=each.id, version=each.version, entries=each.entries)
            for each in shape.ioapics
        ],
        rsdp=rsdp,
        mode=shape.mode,
        entry_format=shape.entry_format,
        message_format=shape.message_format,
        library=library,
    )
    firmware = Firmware(madt=memory[0][0], rsdp=rsdp, xsdt=xsdt, others=frozenset({(second_rsdp, xsdt)}))
    return real, Model(shape, limits_of(library), firmware)


def limits_of(library: Path | None = LIBRARY) -> Limits:
    """The compile-time limits of a library."""
    constants = load(library).lib
    return Limits(**{name: getattr(constants, f"HV_LIMIT_{name.upper()}") for name in Limits.__struct_fields__})
