# SPDX-License-Identifier: MIT
"""Fuzzes the core with libFuzzer, ASan and UBSan: ``fuzz.py [SECONDS] [tables|hypercall]``.

Works below build/fuzz; inputs that reach something new are kept there for the next time. An input that crashes is kept
too, and printed with the way to replay it. Exit status 0: nothing found, 1: a crash, 3: the fuzzer does not compile.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import random
import subprocess
import sys
from pathlib import Path

CORE = Path(__file__).resolve().parents[2]
WORK = CORE.parent / "build" / "fuzz"
NAMES = ("tables", "hypercall")
LIMITS = ("CPUS=4", "IOAPICS=3", "DOMAINS=4", "PIRQS=64", "GSIS=64", "FUNCTIONS=4", "MESSAGES=64", "ECAM_RANGES=2",
          "REPORTS=8")  # fmt: skip
FLAGS = ["-std=c11", "-g", "-O2", "-DHV_PINS=8u", *(f"-DHV_LIMIT_{limit}" for limit in LIMITS)]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]


class DoesNotCompileError(Exception):
    """The message is the compiler's."""


def _run(command: list[str]) -> None:
    try:
        ran = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError as missing:
        raise DoesNotCompileError(f"{missing}; apt-get install clang libclang-rt-dev") from None
    if ran.returncode != 0:
        raise DoesNotCompileError(ran.stdout + ran.stderr)


def build(name: str, tree: Path = CORE, work: Path = WORK) -> Path:
    """The fuzzer's program, of the hv_core at `tree`, in a folder. Raises DoesNotCompileError."""
    objects = work / f"objects_{name}"
    objects.mkdir(parents=True, exist_ok=True)
    # Only the core itself guides the fuzzer; what looks after it stays fast.
    sources = {source: ["-fsanitize=fuzzer-no-link"] for source in sorted((tree / "core").glob("*.c"))}
    sources |= {tree / "host" / "fuzz" / f"fuzz_{name}.c": [], tree / "host" / "model.c": []}
    outputs = {source: str(objects / f"{source.stem}.o") for source in sources}
    compiler = ["clang", *FLAGS, *SANITIZERS, f"-I{tree / 'include'}"]
    commands = [[*compiler, *more, "-c", str(source), "-o", outputs[source]] for source, more in sources.items()]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(_run, commands))
    program = work / f"fuzz_{name}"
    _run(["clang", *SANITIZERS, "-fsanitize=fuzzer", "-pthread", *outputs.values(), "-o", str(program)])
    return program


# ---- Inputs to begin with ----


def _piece(address: int, data: bytes) -> bytes:
    """One piece of memory as fuzz_tables reads it, checksums to be put right."""
    return address.to_bytes(4, "little") + len(data).to_bytes(2, "little") + b"\1" + data


def _table(signature: bytes, body: bytes) -> bytes:
    return signature + (36 + len(body)).to_bytes(4, "little") + bytes(28) + body


def _tables() -> bytes:
    """A small machine: two processors, an IOAPIC, an override, an ECAM range."""
    entries = [
        bytes([0, 8, 0, 0, 1, 0, 0, 0]),
        bytes([9, 16, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]),
        bytes([1, 12, 0, 0]) + (0xFEC00000).to_bytes(4, "little") + bytes(4),
        bytes([2, 10, 0, 0, 2, 0, 0, 0, 0, 0]),
    ]
    madt = _table(b"APIC", bytes(8) + b"".join(entries))
    mcfg = _table(b"MCFG", bytes(8) + (0xE0000000).to_bytes(8, "little") + bytes([0, 0, 0, 9, 0, 0, 0, 0]))
    xsdt = _table(b"XSDT", b"".join(at.to_bytes(8, "little") for at in (0x1000, 0x2000)))
    rsdp = b"RSD PTR " + bytes(7) + b"\2" + bytes(4) + (36).to_bytes(4, "little") + (0x3000).to_bytes(8, "little")
    pieces = ((0x1000, madt), (0x2000, mcfg), (0x3000, xsdt), (0xE0000, rsdp + bytes(4)))
    return b"".join(_piece(at, data) for at, data in pieces)


def seeds(name: str) -> list[bytes]:
    """A whole small machine; some calls."""
    if name == "tables":
        return [_tables()]
    return [random.Random(how).randbytes(256) for how in range(16)]


# ---- Running ----


def run(name: str, seconds: int, program: Path, work: Path = WORK) -> bool:
    """Fuzzes so many seconds; whether nothing was found. A crash is printed, with its input and how to replay it."""
    corpus = work / f"corpus_{name}"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds(name)):
        (corpus / f"seed-{number}").write_bytes(seed)
    crash = work / f"crash_{name}"
    crash.unlink(missing_ok=True)
    command = [
        str(program),
        f"-max_total_time={seconds}",
        "-max_len=2048",
        "-len_control=0",
        "-timeout=10",
        "-rss_limit_mb=2048",
    ]
    command += ["-print_final_stats=1", f"-exact_artifact_path={crash}", str(corpus)]
    ran = subprocess.run(command, capture_output=True, text=True)
    for line in ran.stderr.splitlines():
        if line.startswith(("stat::number_of_executed_units", "stat::new_units_added")):
            print(f"fuzz: {name}: {' '.join(line.removeprefix('stat::').split())}")
        elif line.startswith("not so: "):  # of fuzz_hypercall.c; far above the crash that follows
            print(f"fuzz: {name}: {line}")
    if ran.returncode == 0:
        return True
    print(ran.stderr[-4000:])
    if crash.exists():
        print(f"fuzz: {name}: {len(crash.read_bytes())} bytes crash it: {crash.read_bytes()[:256].hex()}")
        print(f"fuzz: replay with: {program} {crash}")
    return False


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev fuzz", description="fuzz hv_core with libFuzzer")
    parser.add_argument("seconds", nargs="?", type=int, default=600, help="of each fuzzer (600)")
    parser.add_argument("name", nargs="?", choices=NAMES, help="one of them")
    options = parser.parse_args()
    good = True
    for name in [options.name] if options.name else NAMES:
        try:
            program = build(name)
        except DoesNotCompileError as error:
            print(f"fuzz: {name} does not compile: {error}", file=sys.stderr)
            return 3
        print(f"fuzz: {name}, {options.seconds} s", flush=True)
        good = run(name, options.seconds, program) and good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
