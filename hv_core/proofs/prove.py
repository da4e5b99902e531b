# SPDX-License-Identifier: MIT
"""Bounded model checking of the core with CBMC 6: ``prove.py [NAME...] [--mutations]``.

CBMC is Debian 13's: where it is installed as it is, elsewhere from packages of Debian 13 unpacked once into the user's
cache, which needs mmdebstrap, root (or sudo) and a network. ``--mutations`` breaks a copy of the core on purpose, in
each way that mutations.toml lists, and shows that the proof named there fails.

Exit status 0: all hold (with --mutations: all fail as they must), 1: not so, 2: no such proof, 3: no CBMC.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import fcntl
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
CORE = HERE.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dom0kit"
DEBIAN = CACHE / "debian-13-cbmc"
SECONDS = 300  # of processor time; CBMC waits for nothing
BYTES = 6 << 30
CHECKS = [
    "--bounds-check",
    "--pointer-check",
    "--div-by-zero-check",
    "--signed-overflow-check",
    "--conversion-check",
    "--undefined-shift-check",
    "--unwinding-assertions",
    "--drop-unused-functions",
]


_LIMITS = ("CPUS=1", "IOAPICS=1", "DOMAINS=3", "PIRQS=64", "MESSAGES=64", "FUNCTIONS=1", "GSIS=16", "ECAM_RANGES=2")
SMALL = tuple(f"HV_LIMIT_{limit}" for limit in (*_LIMITS, "REPORTS=2"))


@dataclasses.dataclass(frozen=True)
class Proof:
    """`file`.c with these macros defined; every loop is unrolled `unwind` times, and shown to need no more.

    `splits`: the code takes words apart by casts, which are no lost bits then.
    """

    name: str
    file: str
    defines: tuple[str, ...] = ("HV_LIMIT_CPUS=1",)
    unwind: int = 40
    splits: bool = False


def proofs() -> list[Proof]:
    """All there are."""
    found = [Proof(name, name) for name in ("bits", "madt_step", "entry", "message")]
    found.append(Proof("pin_program", "pin_program", SMALL, splits=True))
    found.append(Proof("cpu_index", "cpu_index", ("HV_LIMIT_CPUS=4096",), unwind=65))
    for name in ("vector_find", "vector_run"):
        found += [Proof(f"{name}-{order}", name, ("HV_LIMIT_CPUS=1", f"ORDER={order}")) for order in range(6)]
    for step in (0, 1, 2, 3, 5, 8):
        found.append(Proof(f"vector_allocate-{step}", "vector_allocate", ("HV_LIMIT_CPUS=1", f"STEP={step}")))
    found.append(Proof("dispatcher", "dispatcher", SMALL))
    return found


# ---- CBMC ----


class NoCbmcError(Exception):
    """The message says why, and what to do."""


def _version(command: list[str]) -> int:
    try:
        answer = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return 0
    return int(answer.split(".")[0]) if answer[:1].isdigit() else 0


def _unpacked() -> list[str]:
    """CBMC of the cache as a command: started by its own Debian's loader with its own libraries."""
    libraries = DEBIAN / "usr" / "lib"
    loader = libraries / "x86_64-linux-gnu" / "ld-linux-x86-64.so.2"
    path = f"{libraries}/x86_64-linux-gnu:{libraries}"
    return [str(loader), "--library-path", path, str(DEBIAN / "usr" / "bin" / "cbmc")]


def cbmc() -> list[str]:
    """The command. Unpacks Debian 13's packages where there is none. Raises NoCbmcError."""
    for command in (["cbmc"], _unpacked()):
        if _version(command) >= 6:
            return command
    try:
        CACHE.mkdir(parents=True, exist_ok=True)
        with open(CACHE / "cbmc.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _version(_unpacked()) < 6:
                _unpack(lock.fileno())
    except OSError as error:
        raise NoCbmcError(f"no CBMC 6, and no place to keep it: {error}") from error
    return _unpacked()


def _unpack(lock: int) -> None:
    as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if shutil.which("mmdebstrap") is None:
        raise NoCbmcError("no CBMC 6: install the package cbmc on Debian 13, mmdebstrap elsewhere")
    if as_root and (
        shutil.which("sudo") is None or subprocess.run([*as_root, "true"], capture_output=True).returncode != 0
    ):
        raise NoCbmcError("no CBMC 6: please run once as root (mmdebstrap needs it), with the same HOME")
    print("prove: fetching CBMC from Debian 13 (10 s, 290 MB)", file=sys.stderr)
    unfinished = DEBIAN.with_suffix(".unfinished")  # of a run that was killed, too
    subprocess.run([*as_root, "rm", "-rf", "--one-file-system", str(unfinished), str(DEBIAN)], check=True)
    made = subprocess.run(
        [*as_root, "mmdebstrap", "--variant=extract", "--include=cbmc", "trixie", str(unfinished)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        pass_fds=[lock],  # killed, we leave the lock to a mmdebstrap that goes on
    )
    if made.returncode != 0:
        reason = (made.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise NoCbmcError(f"no CBMC 6: mmdebstrap cannot fetch Debian 13: {reason}")
    subprocess.run([*as_root, "mv", str(unfinished), str(DEBIAN)], check=True)
    if _version(_unpacked()) < 6:
        raise NoCbmcError(f"no CBMC 6: what was unpacked into {DEBIAN} does not run")


# ---- Proving ----


@dataclasses.dataclass(frozen=True)
class Outcome:
    """`failed`: what does not hold. Empty and not `holds`: CBMC came to no answer; `text` says why."""

    holds: bool
    seconds: float
    failed: tuple[str, ...] = ()
    text: str = ""


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))


def check(command: list[str], tree: Path, proof: Proof) -> Outcome:
    """Runs CBMC on one proof of the copy of hv_core at `tree`."""
    arguments = [str(tree / "proofs" / f"{proof.file}.c"), f"-I{tree / 'include'}", "--function", "prove"]
    arguments += [f"-D{define}" for define in ("HV_CORE_NO_HEADERS", *proof.defines)]
    checks = [each for each in CHECKS if not (proof.splits and each == "--conversion-check")]
    arguments += [*checks, "--unwind", str(proof.unwind)]
    start = time.monotonic()
    ran = subprocess.run([*command, *arguments], capture_output=True, text=True, preexec_fn=_limit)
    seconds = time.monotonic() - start
    if ran.returncode == -signal.SIGKILL:
        return Outcome(False, seconds, text=f"not finished in {SECONDS} s of processor time")
    if ran.returncode == 0 and "VERIFICATION SUCCESSFUL" in ran.stdout:
        return Outcome(True, seconds)
    failed = tuple(line.removesuffix(": FAILURE") for line in ran.stdout.splitlines() if line.endswith(": FAILURE"))
    if ran.returncode == 10 and failed:
        return Outcome(False, seconds, failed)
    return Outcome(False, seconds, text=(ran.stdout + ran.stderr).strip()[-500:] or f"status {ran.returncode}")


@contextmanager
def copied() -> Iterator[Path]:
    """A copy of hv_core, to be checked (and broken)."""
    with tempfile.TemporaryDirectory(prefix="dom0kit-prove-") as folder:
        for part in ("include", "core", "proofs"):
            shutil.copytree(CORE / part, Path(folder, part))
        yield Path(folder)


# ---- Mutations ----


@dataclasses.dataclass(frozen=True)
class Mutation:
    """`text`, which is once in `file`, becomes `instead`; `proof` must fail then."""

    proof: str
    file: str
    text: str
    instead: str


def mutations() -> list[Mutation]:
    """mutations.toml."""
    with open(HERE / "mutations.toml", "rb") as file:
        return [Mutation(**each) for each in tomllib.load(file)["mutation"]]


def check_broken(command: list[str], mutation: Mutation) -> Outcome:
    """Runs the mutation's proof on a core broken by it; no answer where the list does not fit the sources."""
    proof = {each.name: each for each in proofs()}.get(mutation.proof)
    if proof is None:
        return Outcome(False, 0, text="no such proof")
    with copied() as tree:
        file = tree / mutation.file
        text = file.read_text()
        if text.count(mutation.text) != 1:
            return Outcome(False, 0, text=f"the text is in the file {text.count(mutation.text)} times")
        file.write_text(text.replace(mutation.text, mutation.instead))
        return check(command, tree, proof)


# ---- The command ----


def _prove(command: list[str], wanted: list[Proof], pool: concurrent.futures.Executor) -> int:
    with copied() as tree:
        good = 0
        for proof, outcome in zip(wanted, pool.map(lambda each: check(command, tree, each), wanted), strict=True):
            good += outcome.holds
            print(f"{proof.name:<32} {outcome.seconds:6.1f} s  {'holds' if outcome.holds else 'FAILS'}", flush=True)
            for line in [*outcome.failed[:5], *outcome.text.splitlines()]:
                print(f"    {line}")
    print(f"{good} of {len(wanted)} proofs hold")
    return len(wanted) - good


def _mutate(command: list[str], wanted: list[Mutation], pool: concurrent.futures.Executor) -> int:
    good = 0
    for mutation, outcome in zip(wanted, pool.map(lambda each: check_broken(command, each), wanted), strict=True):
        good += bool(outcome.failed)
        verdict = "fails" if outcome.failed else "HOLDS, THOUGH BROKEN" if outcome.holds else "NO ANSWER"
        print(f"{mutation.proof:<32} {outcome.seconds:6.1f} s  {verdict}", flush=True)
        text, instead = (" ".join(part.split()) for part in (mutation.text, mutation.instead))
        print(f"    {mutation.file}: {text}  ->  {instead or '(nothing)'}")
        for line in [*outcome.failed[:1], *outcome.text.splitlines()]:
            print(f"    {line}")
    print(f"{good} of {len(wanted)} mutations are found")
    return len(wanted) - good


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev prove", description="bounded model checking of hv_core with CBMC 6")
    parser.add_argument("name", nargs="*", help="only proofs whose name begins so")
    parser.add_argument("--mutations", action="store_true", help="break the core on purpose; each proof must fail")
    options = parser.parse_args()
    begins = tuple(options.name) or ("",)
    wanted = [each for each in proofs() if each.name.startswith(begins)]
    if not wanted:
        parser.error(f"no such proof; there are: {' '.join(each.name for each in proofs())}")
    try:
        command = cbmc()
    except NoCbmcError as missing:
        print(f"prove: {missing}", file=sys.stderr)
        return 3
    start = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        if options.mutations:
            wrong = _mutate(command, [each for each in mutations() if each.proof.startswith(begins)], pool)
        else:
            wrong = _prove(command, wanted, pool)
    print(f"in {time.monotonic() - start:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
