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
from dom0kit.hypercall.core_library import IoapicModel, ModelMachine
from dom0kit.simulation import memory_image
from dom0kit.source.interface import RawTable
from tests.hv_core.model import Model

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


def pair(
    *,
    apic_ids: Sequence[int] = (0, 2, 4),
    pins: Sequence[int] = (24, 8),
    bases: Sequence[int] = (0, 32),
    mode: Mode = Mode.INTERCEPT,
    entry_format: Format = Format.COMPATIBILITY,
    message_format: Format = Format.COMPATIBILITY,
    library: Path | None = LIBRARY,
) -> tuple[ModelMachine, Model]:
    """The same machine twice: with the core on it, and as the specification says. A spare IOAPIC waits to be added."""
    found = [
        (address, base, (count - 1) << 16 | 0x20)
        for address, base, count in zip((FIRST, SECOND), bases, pins, strict=False)
    ]
    ranges = (0xE0000000, 0, 0, 0x7F), (0xD0000000, 1, 0x10, 0x1F)
    tables = (
        madt(*(cpu(each) for each in apic_ids), *(ioapic(address, base) for address, base, _ in found)),
        mcfg(*ranges),
    )
    real = machine(
        *tables,
        ioapics=[
            *(IoapicModel(address=address, version=version) for address, _, version in found),
            IoapicModel(address=SPARE, version=0x50011),
        ],
        mode=mode,
        entry_format=entry_format,
        message_format=message_format,
        library=library,
    )
    information = real.domain(0).information()
    model = Model(
        apic_ids=list(apic_ids),
        ioapics=found,
        spare=[(SPARE, 0x50011)],
        mode=mode,
        entry_format=entry_format,
        message_format=message_format,
        limits={
            "pirqs": information.limit_pirqs,
            "messages": information.limit_messages,
            "functions": information.limit_functions,
            "domains": information.limit_domains,
            "ioapics": information.limit_ioapics,
            "gsis": LIMITS["HV_LIMIT_GSIS"] if information.limit_cpus == 8 else 16384,
        },
        tables=memory_image(RawTable(each[:4].decode(), each) for each in tables)[1:],
    )
    model.ecam = list(ranges)
    return real, model
