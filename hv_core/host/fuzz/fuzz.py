# SPDX-License-Identifier: MIT
"""Fuzzes the core with libFuzzer, ASan and UBSan: ``fuzz.py [SECONDS] [tables|hypercall]``.

Works below build/fuzz; what it finds to be of interest is kept there for the next time. A crash is kept too and printed
with the way to play it again. Exit status 0: nothing found, 1: a crash, 3: no clang.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
BUILD = ROOT / "build" / "fuzz"
LIMITS = ["CPUS=4", "IOAPICS=3", "DOMAINS=4", "PIRQS=64", "GSIS=256", "FUNCTIONS=4", "MESSAGES=64", "ECAM_RANGES=2",
          "REPORTS=8"]  # fmt: skip
NAMES = ("tables", "hypercall")


def build(name: str) -> Path:
    """The fuzzer's program. CalledProcessError when it does not compile."""
    BUILD.mkdir(parents=True, exist_ok=True)
    program = BUILD / f"fuzz_{name}"
    sources = [HERE / f"fuzz_{name}.c", HERE.parent / "model.c", *sorted((ROOT / "hv_core" / "core").glob("*.c"))]
    subprocess.run(
        [
            "clang", "-std=c11", "-g", "-O1", "-pthread", "-fsanitize=fuzzer,address,undefined",
            "-fno-sanitize-recover=undefined", f"-I{ROOT / 'hv_core' / 'include'}",
            *(f"-DHV_LIMIT_{limit}" for limit in LIMITS), *map(str, sources), "-o", str(program),
        ],
        check=True,
    )  # fmt: skip
    return program


def piece(address: int, data: bytes) -> bytes:
    """One piece of memory as fuzz_tables reads it, checksums to be put right."""
    return address.to_bytes(4, "little") + len(data).to_bytes(2, "little") + b"\1" + data


def seeds(name: str) -> list[bytes]:
    """Inputs to begin with: a whole small machine, some calls."""
    if name == "hypercall":
        return [bytes([how]) + bytes(range(7, 250)) for how in range(32)]
    madt = b"APIC" + (44 + 8 + 12 + 10 + 16).to_bytes(4, "little") + bytes(36) + bytes([0, 8, 0, 0, 1, 0, 0, 0])
    madt += (
        bytes([1, 12, 0, 0]) + (0xFEC00000).to_bytes(4, "little") + bytes(4) + bytes([2, 10, 0, 0, 2, 0, 0, 0, 0, 0])
    )
    madt += bytes([9, 16, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0])
    mcfg = (
        b"MCFG"
        + (60).to_bytes(4, "little")
        + bytes(36)
        + (0xE0000000).to_bytes(8, "little")
        + bytes([0, 0, 0, 9, 0, 0, 0, 0])
    )
    addresses = b"".join(at.to_bytes(8, "little") for at in (0x1000, 0x2000))
    xsdt = b"XSDT" + (36 + 16).to_bytes(4, "little") + bytes(28) + addresses
    rsdp = (
        b"RSD PTR "
        + bytes(7)
        + b"\2"
        + bytes(4)
        + (36).to_bytes(4, "little")
        + (0x3000).to_bytes(8, "little")
        + bytes(4)
    )
    return [b"".join(piece(at, data) for at, data in
                     ((0x1000, madt), (0x2000, mcfg), (0x3000, xsdt), (0xE0000, rsdp)))]  # fmt: skip


def run(name: str, seconds: int) -> int:
    program = build(name)
    corpus = BUILD / f"corpus_{name}"
    corpus.mkdir(exist_ok=True)
    for number, seed in enumerate(seeds(name)):
        (corpus / f"seed-{number}").write_bytes(seed)
    print(f"fuzz: {name}, {seconds} s", flush=True)
    ran = subprocess.run(
        [str(program), f"-max_total_time={seconds}", "-max_len=2048", "-timeout=10", "-rss_limit_mb=1024",
         "-print_final_stats=1", f"-artifact_prefix={BUILD}/crash_{name}_", str(corpus)],
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    interesting = ("stat::number_of_executed_units", "stat::new_units_added", "SUMMARY", "ERROR", "Test unit written")
    for line in ran.stderr.splitlines():
        if line.startswith(interesting) or any(word in line for word in ("SUMMARY:", "runtime error", "ERROR:")):
            print(line)
    if ran.returncode != 0:
        print(ran.stderr[-3000:], file=sys.stderr)
        print(f"fuzz: {name} crashed; play it again with: {program} {BUILD}/crash_{name}_*", file=sys.stderr)
    return 1 if ran.returncode else 0


def main() -> int:
    parser = argparse.ArgumentParser(description="fuzz hv_core")
    parser.add_argument("seconds", nargs="?", type=int, default=600)
    parser.add_argument("name", nargs="?", choices=NAMES)
    options = parser.parse_args()
    if shutil.which("clang") is None:
        print("fuzz: no clang here: apt-get install clang libclang-rt-14-dev", file=sys.stderr)
        return 3
    return max(run(name, options.seconds) for name in ([options.name] if options.name else NAMES))


if __name__ == "__main__":
    sys.exit(main())
