# SPDX-License-Identifier: MIT
"""Bounded model checking of the core with CBMC 6: ``prove.py [NAME...] [--mutations]``.

CBMC is in Debian 13: used from there, or from a small chroot of it made once, in the user's cache (root needed).
``--mutations`` breaks the core on purpose, each line of mutations.toml in a copy, and shows that the named proof fails.
Exit status 0: all hold (with --mutations: all fail as they must), 1: not so, 3: no CBMC.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
CORE = HERE.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dom0kit"
CHROOT = CACHE / "prove-trixie"
SECONDS = 240

CHECKS = [
    "--bounds-check",
    "--pointer-check",
    "--signed-overflow-check",
    "--undefined-shift-check",
    "--conversion-check",
    "--div-by-zero-check",
    "--unwinding-assertions",
    "--drop-unused-functions",
]
SMALL = {
    "HV_LIMIT_CPUS": "1",
    "HV_LIMIT_IOAPICS": "1",
    "HV_LIMIT_DOMAINS": "2",
    "HV_LIMIT_PIRQS": "64",
    "HV_LIMIT_MESSAGES": "64",
    "HV_LIMIT_FUNCTIONS": "2",
    "HV_LIMIT_GSIS": "16",
    "HV_LIMIT_ECAM_RANGES": "1",
    "HV_LIMIT_REPORTS": "2",
    "HV_PINS": "4u",
}
PHYSDEV = (5, 8, 9, 10, 12, 13, 14, 21, 23, 24, 25, 26, 32)
OWN = range(17)


@dataclasses.dataclass(frozen=True)
class Proof:
    name: str
    source: str
    defines: tuple[str, ...] = ()
    unwind: int = 40


def proofs() -> list[Proof]:
    one_cpu = ("HV_LIMIT_CPUS=1",)
    small = tuple(f"{name}={value}" for name, value in SMALL.items())
    found = [Proof(name, name, one_cpu) for name in ("madt_step", "entry", "message")]
    found += [Proof(f"{name}-{order}", name, (*one_cpu, f"ORDER={order}")) for name in ("vector_find", "vector_run")
              for order in range(6)]  # fmt: skip
    for mode in ("DIRECT", "INTERCEPT"):
        for number, commands in ((33, (*PHYSDEV, 99)), (0xD0, (*OWN, 99))):
            found += [
                Proof(
                    f"dispatcher-{mode.lower()}-{number}-{command}",
                    "dispatcher",
                    (*small, f"MODE=HV_MODE_{mode}", f"NUMBER={number}", f"COMMAND={command}"),
                    unwind=260,
                )
                for command in commands
            ]
    return found


class NoCbmc(Exception):
    """The message says why, and what to do."""


def _version(command: list[str]) -> int:
    try:
        answer = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return 0
    return int(answer.split(".")[0]) if answer[:1].isdigit() else 0


def prepare() -> Path:
    """The root directory CBMC runs in: ``/`` or the chroot, made if it is not there."""
    if _version(["cbmc"]) >= 6:
        return Path("/")
    if os.geteuid() != 0:
        raise NoCbmc(
            "proving needs CBMC 6: install Debian 13's cbmc, or run this as root, which makes a chroot of Debian 13"
        )
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "prove.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _version(["chroot", str(CHROOT), "cbmc"]) >= 6:
            return CHROOT
        if shutil.which("mmdebstrap") is None:
            raise NoCbmc("proving needs a chroot of Debian 13: apt-get install mmdebstrap")
        print("making a chroot of Debian 13 with CBMC (half a minute)", file=sys.stderr)
        unfinished = CHROOT.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        made = subprocess.run(
            ["mmdebstrap", "--variant=minbase", "--include=cbmc,gcc,libc6-dev", "trixie", str(unfinished)],
            capture_output=True,
            text=True,
        )
        if made.returncode != 0:
            raise NoCbmc(f"mmdebstrap cannot make a chroot of Debian 13: {made.stderr.strip().splitlines()[-1]}")
        shutil.rmtree(CHROOT, ignore_errors=True)
        unfinished.rename(CHROOT)
        return CHROOT


@dataclasses.dataclass(frozen=True)
class Outcome:
    holds: bool
    seconds: float
    text: str


def check(root: Path, tree: Path, proof: Proof) -> Outcome:
    """Runs CBMC on one proof of a copy of hv_core at `tree` (inside `root`)."""
    inside = Path("/") / tree.relative_to(root)
    command = ["cbmc", str(inside / "proofs" / f"{proof.source}.c"), f"-I{inside / 'include'}", "--function", "prove"]
    command += [f"-D{define}" for define in proof.defines] + CHECKS + ["--unwind", str(proof.unwind)]
    if root != Path("/"):
        command = ["chroot", str(root), *command]
    start = time.monotonic()
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return Outcome(False, time.monotonic() - start, f"not finished in {SECONDS} s")
    wrong = [line for line in ran.stdout.splitlines() if line.endswith(": FAILURE")]
    holds = ran.returncode == 0 and "VERIFICATION SUCCESSFUL" in ran.stdout
    text = "" if holds else "\n".join(wrong[:5]) or (ran.stdout + ran.stderr)[-500:]
    return Outcome(holds, time.monotonic() - start, text)


def _copy(root: Path) -> Path:
    tree = Path(tempfile.mkdtemp(prefix="dom0kit-prove-", dir=root / "tmp")) / "hv_core"
    for part in ("include", "core", "proofs"):
        shutil.copytree(CORE / part, tree / part)
    return tree


def _mutations(wanted: list[str]) -> list[dict[str, str]]:
    with open(HERE / "mutations.toml", "rb") as file:
        every: list[dict[str, str]] = tomllib.load(file)["mutation"]
    return [each for each in every if not wanted or any(each["proof"].startswith(name) for name in wanted)]


def _broken(root: Path, mutation: dict[str, str]) -> tuple[str, Outcome]:
    tree = _copy(root)
    file = tree / mutation["file"]
    text = file.read_text()
    if text.count(mutation["text"]) != 1:
        return mutation["proof"], Outcome(
            True, 0, f"mutations.toml: {mutation['text']!r} is not once in {mutation['file']}"
        )
    file.write_text(text.replace(mutation["text"], mutation["instead"]))
    proof = next(each for each in proofs() if each.name == mutation["proof"])
    outcome = check(root, tree, proof)
    shutil.rmtree(tree.parent)
    return mutation["proof"], outcome


def main() -> int:
    parser = argparse.ArgumentParser(description="bounded model checking of hv_core")
    parser.add_argument("names", nargs="*", help="only proofs whose name begins so")
    parser.add_argument("--mutations", action="store_true", help="break the core on purpose; each proof must fail")
    options = parser.parse_args()
    try:
        root = prepare()
    except NoCbmc as missing:
        print(f"prove: {missing}", file=sys.stderr)
        return 3
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        if options.mutations:
            mutations = _mutations(options.names)
            for mutation, (name, outcome) in zip(
                mutations, pool.map(lambda each: _broken(root, each), mutations), strict=True
            ):
                verdict = "fails, as it must" if not outcome.holds else "HOLDS, though broken"
                failed += outcome.holds
                print(
                    f"{name:<28} {outcome.seconds:6.1f} s  {verdict}: {mutation['what']} "
                    f"{outcome.text if outcome.holds else ''}"
                )
            return 1 if failed else 0
        wanted = [each for each in proofs() if not options.names or each.name.startswith(tuple(options.names))]
        tree = _copy(root)
        for proof, outcome in zip(wanted, pool.map(lambda each: check(root, tree, each), wanted), strict=True):
            failed += not outcome.holds
            print(
                f"{proof.name:<28} {outcome.seconds:6.1f} s  {'holds' if outcome.holds else 'FAILS'} {outcome.text}",
                flush=True,
            )
        shutil.rmtree(tree.parent)
    print(f"{len(wanted) - failed} of {len(wanted)} proofs hold")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
