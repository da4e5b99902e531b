# SPDX-License-Identifier: MIT
"""What Debian's `lspci -vvv` prints, to the letter, from our facts: of every recorded machine, and of random registers.

See `lspci_oracle`. Where lspci is mistaken, or knows something that the recording does not, the renderer that departs
from the plain reading says so in a comment with an example.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from dom0kit.address import Sbdf
from dom0kit.pci.config_space import decode_function
from dom0kit.source.dumps import read_lspci
from dom0kit.source.interface import RawFunction
from tests.corpus import lspci_dumps, needs_corpus
from tests.pci import lspci_express, lspci_extended, lspci_standard
from tests.pci.lspci_oracle import Printed, printed_by_lspci, rendered, write_dump

needs_lspci = pytest.mark.skipif(
    shutil.which("lspci") is None, reason="lspci (Debian package pciutils) is not installed"
)
RENDERERS = lspci_standard.RENDERERS | lspci_express.RENDERERS | lspci_extended.RENDERERS


def _differences(functions: Sequence[RawFunction], dump: Path) -> list[str]:
    """Lines that lspci prints and we do not render, and the reverse."""
    printed = printed_by_lspci(dump)
    assert {function.sbdf for function in functions} == set(printed)
    result = []
    for function in functions:
        facts, _ = decode_function(function)
        ours = _lines(rendered(facts, RENDERERS))
        theirs = _lines(printed[function.sbdf])
        if ours != theirs:
            result += [f"{function.sbdf} lspci: {line!r}" for line in theirs if line not in ours]
            result += [f"{function.sbdf} facts: {line!r}" for line in ours if line not in theirs]
            result += [f"{function.sbdf}: the order of lines differs"] if sorted(ours) == sorted(theirs) else []
    return result


def _lines(printed: Printed) -> list[str]:
    return [printed.head, *printed.lines, *(line for capability in printed.extended for line in capability)]


@needs_corpus
@needs_lspci
@pytest.mark.parametrize("dump", lspci_dumps(), ids=lambda path: path.stem)
def test_every_line_lspci_prints_of_a_recorded_machine_follows_from_the_facts(dump: Path) -> None:
    with dump.open("rb") as file:
        source = read_lspci(dump.name, iter(lambda: file.read(1 << 16), b""))
    # lspci -F knows the bytes alone; what the recording's text says besides would add sizes and kernel values.
    functions = [RawFunction(function.sbdf, function.config) for function in source.functions()]
    assert functions
    assert _differences(functions, dump) == []


def _endpoint(rng: random.Random, capabilities: bytes) -> bytes:
    """A type 0 header with random registers and one capability list at 40h."""
    header = bytearray(rng.randbytes(64))
    header[0:4] = rng.choice([b"\x86\x80\x10\x9d", b"\xf4\x1a\x41\x10", b"\xde\x10\x34\x12", b"\x34\x12\x78\x56"])
    header[6] |= 0x10
    header[0x0E] = rng.choice([0, 0x80])
    header[0x34] = 0x40
    if header[0x3D] > 4:
        header[0x3D] = 0
    return bytes(header) + capabilities.ljust(0xC0, b"\0")


def _bridge(rng: random.Random, capabilities: bytes) -> bytes:
    config = bytearray(_endpoint(rng, capabilities))
    config[0x0E] = rng.choice([1, 0x81])
    for base, limit in ((0x1C, 0x1D), (0x24, 0x26)):  # the low nibbles of a window's two registers agree
        width = rng.choice([0, 1])
        config[base] = config[base] & 0xF0 | width
        config[limit] = config[limit] & 0xF0 | width
    config[0x20] &= 0xF0
    config[0x22] &= 0xF0
    return bytes(config)


def _cardbus(rng: random.Random, capabilities: bytes) -> bytes:
    config = bytearray(_endpoint(rng, b""))
    config[0x0E] = 2
    config[0x06] &= ~0x10
    for at in range(0x1C, 0x2C, 4):
        config[at] = 0
        config[at + 1] &= 0xF0
    for at in range(0x2C, 0x3C, 4):
        config[at] = config[at] & 0xFC | 1
    config[0x40:0x48] = rng.randbytes(8)
    return bytes(config)


def _capability(id: int, length: int, change: Callable[[random.Random, bytearray], None] | None = None) -> _Body:
    def body(rng: random.Random) -> bytes:
        registers = bytearray([id, 0, *rng.randbytes(length - 2)])
        if change is not None:
            change(rng, registers)
        return bytes(registers)

    return body


_Body = Callable[[random.Random], bytes]
_Header = Callable[[random.Random, bytes], bytes]


def _express(type: int) -> _Body:
    def change(rng: random.Random, registers: bytearray) -> None:
        registers[2] = type << 4 | rng.choice([1, 2])
        if rng.random() < 0.5:
            registers[3] = 0
            registers[0x2C:0x30] = bytes(4)

    return _capability(0x10, 0x3C, change)


def _hypertransport(types: Sequence[int]) -> _Body:
    def change(rng: random.Random, registers: bytearray) -> None:
        registers[3] = rng.choice(types) << 3 | registers[3] & 7

    return _capability(0x08, 0x1C, change)


def _virtio(rng: random.Random, registers: bytearray) -> None:
    registers[2] = rng.choice([16, 20, 24])
    registers[3] = rng.randrange(8)


def _enhanced_allocation(bridge: bool) -> _Body:
    """Well-formed: of an entry that is cut off, lspci reads bytes it has not fetched, and dies."""

    def body(rng: random.Random) -> bytes:
        count = rng.randrange(4)
        registers = bytearray([0x14, 0, count, 0, *(rng.randbytes(4) if bridge else b"")])
        for _ in range(count):
            base = rng.randrange(1 << 32) & ~1
            limit = rng.randrange(1 << 32) & ~1
            words = [base, limit, *(rng.randrange(1 << 32) for _ in range((base >> 1 & 1) + (limit >> 1 & 1)))]
            primary, secondary = (rng.choice([*range(10), 0xFD, 0xFE, 0xFF]) for _ in range(2))
            head = rng.randrange(1 << 32) & 0xFF0000F8 | len(words) | primary << 8 | secondary << 16
            registers += b"".join(word.to_bytes(4, "little") for word in (head, *words))
        return bytes(registers)

    return body


KINDS: dict[str, tuple[_Header, _Body]] = {
    "header": (_endpoint, _capability(0x00, 2)),
    "bridge": (_bridge, _capability(0x0D, 8)),
    "cardbus": (_cardbus, _capability(0x00, 2)),
    "null": (_endpoint, _capability(0x00, 4)),
    "power management": (_endpoint, _capability(0x01, 8)),
    "power management of a bridge": (_bridge, _capability(0x01, 8)),
    "agp": (_endpoint, _capability(0x02, 12)),
    "vpd": (_endpoint, _capability(0x03, 8)),
    "slot id": (_bridge, _capability(0x04, 4)),
    "msi": (_endpoint, _capability(0x05, 24)),
    "hot swap": (_endpoint, _capability(0x06, 4)),
    "pci-x": (_endpoint, _capability(0x07, 8)),
    "pci-x bridge": (_bridge, _capability(0x07, 16)),
    "vendor": (_endpoint, _capability(0x09, 24, _virtio)),
    "debug port": (_endpoint, _capability(0x0A, 4)),
    "central resource control": (_endpoint, _capability(0x0B, 4)),
    "hot-plug": (_bridge, _capability(0x0C, 8)),
    "ssvid": (_bridge, _capability(0x0D, 8)),
    "agp 8x": (_bridge, _capability(0x0E, 12)),
    "secure device": (_endpoint, _capability(0x0F, 24)),
    "msi-x": (_endpoint, _capability(0x11, 12)),
    "sata": (_endpoint, _capability(0x12, 8)),
    "advanced features": (_endpoint, _capability(0x13, 6)),
    "enhanced allocation": (_endpoint, _enhanced_allocation(False)),
    "enhanced allocation of a bridge": (_bridge, _enhanced_allocation(True)),
    "flattening portal bridge": (_bridge, _capability(0x15, 64)),
    "unknown": (_endpoint, _capability(0x42, 8)),
}
KINDS |= {f"express type {type}": (_endpoint, _express(type)) for type in range(11)}
KINDS |= {
    "hypertransport slave": (_endpoint, _hypertransport(range(4))),
    "hypertransport host": (_endpoint, _hypertransport(range(4, 8))),
    "hypertransport": (_endpoint, _hypertransport(range(8, 32))),
}


def _functions(kind: str, count: int) -> Iterator[RawFunction]:
    make, body = KINDS[kind]
    rng = random.Random(kind)
    for number in range(count):
        sbdf = Sbdf(0, number >> 5, number & 31, 0 if number % 3 else rng.randrange(8))
        yield RawFunction(sbdf, make(rng, body(rng)))


@needs_lspci
@pytest.mark.parametrize("kind", KINDS)
def test_every_line_lspci_prints_of_random_registers_follows_from_the_facts(kind: str, tmp_path: Path) -> None:
    functions = list(_functions(kind, 120))
    write_dump(functions, tmp_path / "dump")
    assert _differences(functions, tmp_path / "dump") == []
