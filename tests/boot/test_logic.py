# SPDX-License-Identifier: MIT
"""The boot image's pure parts against an assembler, and against rules said another way."""

from __future__ import annotations

import itertools
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.boot.host import library

_LEGACY = ("ax", "cx", "dx", "bx", "sp", "bp", "si", "di")
REGISTERS = {
    8: [*(f"r{name}" for name in _LEGACY), *(f"r{number}" for number in range(8, 16))],
    4: [*(f"e{name}" for name in _LEGACY), *(f"r{number}d" for number in range(8, 16))],
    2: [*_LEGACY, *(f"r{number}w" for number in range(8, 16))],
    1: ["al", "cl", "dl", "bl", "spl", "bpl", "sil", "dil", *(f"r{number}b" for number in range(8, 16))],
}
"""By their size in bytes, in the order of their numbers."""
PLACES = (
    "(%rbx)", "(%r13)", "0x10(%rdi)", "-0x7f(%rsp)", "0x12345(%r12)", "(%rax,%rcx,4)", "0x8(%rbp,%r9,8)",
    "0x1000(,%rdx,2)", "0x40(%rip)", "-0xa01fe0", "(%esi)", "%gs:(%rdx)",
)  # fmt: skip
SUFFIX = {1: "b", 2: "w", 4: "l", 8: "q"}


def assembled(tmp_path: Path, lines: list[str], bits: int = 64) -> list[bytes]:
    """The bytes of each instruction."""
    source = tmp_path / "code.s"
    source.write_text("".join(f"{line}\n" for line in lines))
    target = tmp_path / "code.o"
    subprocess.run(["as", f"--{bits}", str(source), "-o", str(target)], check=True)
    listing = subprocess.run(
        ["objdump", "-d", "-w", "--insn-width=15", str(target)], capture_output=True, text=True, check=True
    ).stdout
    found = [bytes.fromhex(code) for code in re.findall(r"^ +[0-9a-f]+:\t((?:[0-9a-f]{2} )+)", listing, re.M)]
    assert len(found) == len(lines)
    return found


def decoded(code: bytes, *, bits: int = 64) -> Any:
    """The access, or None."""
    ffi, x86 = library()
    access = ffi.new("struct access *")
    return access if x86.decode(code, len(code), bits == 64, bits == 32, access) else None


def cases() -> list[tuple[str, int, bool, int, str]]:
    """Instruction, bytes of the access, whether it writes, and of which register or immediate."""
    lines = []
    for place in PLACES:
        for size, names in REGISTERS.items():
            for number, name in enumerate(names):
                lines.append((f"mov{SUFFIX[size]} %{name}, {place}", size, True, number, "register"))
                lines.append((f"mov{SUFFIX[size]} {place}, %{name}", size, False, number, "register"))
            lines.append((f"mov{SUFFIX[size]} $0x7a, {place}", size, True, 0x7A, "immediate"))
        for size, wide in ((1, 2), (1, 4), (1, 8), (2, 4), (2, 8)):
            for kind in ("movz", "movs"):
                line = f"{kind}{SUFFIX[size]}{SUFFIX[wide]} {place}, %{REGISTERS[wide][11]}"
                lines.append((line, size, False, 11, kind))
    for name, number in (("ah", 0), ("ch", 1), ("dh", 2), ("bh", 3)):
        lines.append((f"movb %{name}, (%rdi)", 1, True, number, "high"))
    for size in REGISTERS:
        name = REGISTERS[size][0]
        lines.append((f"movabs %{name}, 0x1122334455667788", size, True, 0, "register"))
        lines.append((f"movabs 0x1122334455667788, %{name}", size, False, 0, "register"))
    return lines


def test_every_move_is_decoded_as_the_assembler_made_it(tmp_path: Path) -> None:
    wanted = cases()
    for (line, size, write, value, kind), code in zip(
        wanted, assembled(tmp_path, [line for line, *_ in wanted]), strict=True
    ):
        access = decoded(code)
        assert access is not None, line
        assert (access.length, access.bytes, access.write) == (len(code), size, write), line
        if kind == "immediate":
            assert (access.has_value, access.value) == (True, value), line
        else:
            assert (access.gpr, access.high_byte) == (value, kind == "high"), line
            assert access.sign == (kind == "movs"), line
        assert decoded(code[:-1]) is None, f"{line}: cut short"


@pytest.mark.parametrize(
    "line",
    [
        "addl %eax, (%rdi)",
        "xchgl %eax, (%rdi)",
        "movl %eax, %ebx",
        "rep movsb",
        "vmovdqu (%rdi), %ymm0",
        "pushq (%rax)",
    ],
)
def test_other_instructions_are_not(tmp_path: Path, line: str) -> None:
    assert decoded(assembled(tmp_path, [line])[0]) is None


def test_32_bit_code(tmp_path: Path) -> None:
    lines = ["movl %eax, 0xfec00010", "movl 0xfec00010, %ecx", "movw %dx, 4(%ebx,%esi,2)", "movb $3, (%ebp)"]
    for line, code in zip(lines, assembled(tmp_path, lines, bits=32), strict=True):
        access = decoded(code, bits=32)
        assert access is not None, line
        assert access.length == len(code), line


@given(st.binary(max_size=15), st.sampled_from((64, 32, 16)))
def test_no_bytes_break_the_decoder(code: bytes, bits: int) -> None:
    access = decoded(code, bits=bits)
    if access is not None:
        assert 0 < access.length <= len(code)
        assert access.bytes in (1, 2, 4, 8)
        assert access.gpr < 16


@given(
    st.sampled_from((0, 1, 2, 4, 8)), st.sampled_from((1, 2, 4, 8)), st.booleans(),
    st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1),
)  # fmt: skip
def test_what_a_read_leaves_in_the_register(extra: int, size: int, sign: bool, before: int, value: int) -> None:
    ffi, x86 = library()
    wide = extra if extra > size else size
    sign = sign and wide > size
    gpr = ffi.new("uint64_t[16]", [before] * 16)
    x86.access_read(ffi.new("struct access *", {"bytes": size, "fill_bytes": wide, "sign": sign, "gpr": 5}), gpr, value)
    read = int.from_bytes(value.to_bytes(8, "little")[:size], "little", signed=sign) & (1 << 8 * wide) - 1
    kept = 0 if wide >= 4 else before >> 8 * wide << 8 * wide  # 32 bits clear the upper half
    assert gpr[5] == kept | read
    assert list(gpr)[:5] == [before] * 5


# ---- Interprocessor interrupts ----


def targets(icr: int, ids: list[tuple[int, int]], dom0: int, self: int, **kind: bool) -> tuple[set[int], bool]:
    """Which of dom0's processors an ICR means, and whether one of the core's."""
    ffi, x86 = library()
    cpus = ffi.new("struct ipi_cpus *", {"count": len(ids), "dom0": dom0, **kind})
    for number, (apic_id, logical_id) in enumerate(ids):
        cpus.cpu[number].apic_id = apic_id
        cpus.cpu[number].logical_id = logical_id
    ipi = ffi.new("struct ipi *", x86.ipi_of_icr(icr, kind.get("x2apic", False)))
    kept = ffi.new("bool *")
    mask = x86.ipi_targets(ipi, cpus, self, kept)
    return {cpu for cpu in range(64) if mask >> cpu & 1}, bool(kept[0])


FOUR = [(0, 1), (1, 2), (6, 4), (7, 8)]


@pytest.mark.parametrize(
    ("icr", "meant", "kept"),
    [
        (1 << 56 | 0x4FD, {1}, False),
        (6 << 56 | 0x4FD, set(), True),
        (9 << 56 | 0x4FD, set(), False),
        (0xFF << 56 | 0x4FD, {0, 1}, True),
        (3 << 56 | 0x8FD, {0, 1}, False),
        (6 << 56 | 0x8FD, {1}, True),
        (1 << 18 | 0x4FD, {0}, False),
        (2 << 18 | 0x4FD, {0, 1}, True),
        (3 << 18 | 0x4FD, {1}, True),
    ],
)
def test_whom_an_icr_means(icr: int, meant: set[int], kept: bool) -> None:
    assert targets(icr, FOUR, dom0=2, self=0) == (meant, kept)


def test_logical_clusters() -> None:
    clusters = [(0, 0x01), (1, 0x02), (2, 0x11), (3, 0x12)]
    assert targets(0x13 << 56 | 0x8FD, clusters, dom0=4, self=0, cluster=True) == ({2, 3}, False)
    assert targets(0xF1 << 56 | 0x8FD, clusters, dom0=4, self=0, cluster=True) == ({0, 2}, False)
    assert targets(0x03 << 56 | 0x8FD, clusters, dom0=1, self=0, cluster=True) == ({0}, True)


CLUSTERED = st.builds(lambda cluster, mask: cluster << 16 | mask, st.integers(0, 20), st.integers(0, 0xFFFF))


@given(CLUSTERED | st.integers(0, 2**32 - 1), st.integers(0, 300), st.booleans(), st.integers(1, 4))
@example(1 << 16 | 0x8000, 13, True, 4)
def test_the_icr_of_x2apic(destination: int, last: int, logical: bool, dom0: int) -> None:
    """A 64-bit register (MSR 0x830): 32 bits of destination; logical ids are cluster and one bit of sixteen."""
    ids = [(apic_id, apic_id >> 4 << 16 | 1 << (apic_id & 15)) for apic_id in (0, 1, 17, last + 18)]
    meant = {
        cpu
        for cpu, (apic_id, logical_id) in enumerate(ids)
        if destination == 0xFFFFFFFF
        or (logical and destination >> 16 == logical_id >> 16 and destination & logical_id & 0xFFFF)
        or (not logical and destination == apic_id)
    }
    icr = destination << 32 | logical << 11 | 0x500
    found = targets(icr, ids, dom0, self=0, x2apic=True)
    assert found == ({cpu for cpu in meant if cpu < dom0}, any(cpu >= dom0 for cpu in meant))


# ---- Ranges of memory ----

RANGES = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20), st.integers(1, 4)), max_size=12)


def a_map(entries: list[tuple[int, int, int]]) -> tuple[Any, dict[int, int]]:
    """A memory map, and the same as a type for each unit."""
    ffi, x86 = library()
    map = ffi.new("struct memory_map *")
    units: dict[int, int] = {}
    for start, count, type in entries:
        assert x86.memory_set(map, {"start": start, "end": start + count}, type)
        units |= dict.fromkeys(range(start, start + count), type)
    return map, units


@given(RANGES)
def test_a_map_says_of_each_address_what_was_set_last(entries: list[tuple[int, int, int]]) -> None:
    map, units = a_map(entries)
    listed = [map.range[number] for number in range(map.count)]
    assert {at: each.type for each in listed for at in range(each.range.start, each.range.end)} == units
    for one, next in itertools.pairwise(listed):
        assert one.range.end <= next.range.start
        assert one.range.end < next.range.start or one.type != next.type, "neighbours of one type are one range"


@given(RANGES, st.integers(0, 70), st.integers(1, 30), st.integers(1, 4))
def test_whether_all_of_it_is_of_one_type(entries: list[tuple[int, int, int]], at: int, count: int, type: int) -> None:
    _, x86 = library()
    map, units = a_map(entries)
    assert x86.memory_is(map, at, count, type) == all(units.get(each) == type for each in range(at, at + count))


@given(RANGES, RANGES, st.integers(1, 40), st.integers(1, 20), st.sampled_from((1, 2, 4, 8)))
def test_the_lowest_free_place(
    entries: list[tuple[int, int, int]], used: list[tuple[int, int, int]], from_: int, count: int, alignment: int
) -> None:
    ffi, x86 = library()
    map, units = a_map(entries)
    taken = ffi.new("struct taken *")
    for start, length, _ in used:
        assert x86.taken_add(taken, {"start": start, "end": start + length})
    busy = {at for start, length, _ in used for at in range(start, start + length)}
    free = {at for at, type in units.items() if type == 1} - busy
    places = [at for at in range(from_, 70) if at % alignment == 0 and set(range(at, at + count)) <= free]
    found = x86.memory_find(map, taken, {"start": from_, "end": 70 + count}, count, alignment)
    assert found == (places[0] if places else 0)


def test_a_place_between_two_that_are_taken() -> None:
    ffi, x86 = library()
    map, _ = a_map([(1, 11, 1)])
    taken = ffi.new("struct taken *")
    for start, end in ((1, 2), (6, 8), (12, 20)):
        assert x86.taken_add(taken, {"start": start, "end": end})
    assert x86.memory_find(map, taken, {"start": 1, "end": 20}, 4, 1) == 2
    assert x86.memory_find(map, taken, {"start": 3, "end": 20}, 4, 1) == 8
    assert not x86.taken_meets(taken, {"start": 2, "end": 6})


def test_a_full_map_stays_as_it_was() -> None:
    ffi, x86 = library()
    map, _ = a_map([(2 * number, 1, 1) for number in range(128)])
    before = bytes(ffi.buffer(map))
    assert not x86.memory_set(map, {"start": 3, "end": 4}, 2)
    assert bytes(ffi.buffer(map)) == before
