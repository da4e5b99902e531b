# SPDX-License-Identifier: MIT
"""What is demanded of the C of the core: ``lint.py [TREE]``, TREE being hv_core or a copy of it.

Compiled freestanding by gcc and clang without a warning, with and without compiler headers, and linked to the boot
image; clang-tidy and cppcheck have nothing to say; nothing but memcpy, memset and memmove is asked of a home; no
variables but the caller's structure; no recursion; no stack frame above 1 KiB. Exit status 0: all of it, 1: not so.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import functools
import itertools
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

FRAME_BYTES = 1024
LANGUAGE = ["-std=c11", "-ffreestanding"]
WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Wvla", "-Werror", f"-Wframe-larger-than={FRAME_BYTES}"]
OPTIMISATIONS = ["-O0", "-O2"]  # as the sources say, and as it ships
VARIANTS = [*([each] for each in OPTIMISATIONS), ["-fsyntax-only", "-nostdinc", "-DHV_CORE_NO_HEADERS"]]
HOME_PROVIDES = {"memcpy", "memset", "memmove"}
CPPCHECK = ["--enable=warning,style,performance,portability", "--inconclusive", "--std=c11", "--error-exitcode=1"]


def _said(command: list[str]) -> str:
    """What a program has to say, if it is not content."""
    ran = subprocess.run(command, capture_output=True, text=True)
    return "" if ran.returncode == 0 else (ran.stdout + ran.stderr).strip() or f"{command[0]}: status {ran.returncode}"


def _include(tree: Path) -> str:
    return f"-I{tree / 'include'}"


def compile_one(tree: Path, source: Path, compiler: str, variant: list[str]) -> list[str]:
    """Warnings are errors."""
    command = [compiler, *LANGUAGE, *WARNINGS, *variant, _include(tree), "-c", str(source)]
    said = _said([*command, "-o", os.devnull])
    return [said] if said else []


def boot_image(tree: Path, compiler: str) -> list[str]:
    """The whole of it, by its own Makefile, which has the same warnings as errors."""
    with tempfile.TemporaryDirectory(prefix="dom0kit-lint-") as folder:
        said = _said(["make", "--silent", "-C", str(tree / "x86"), f"O={folder}", f"CC={compiler}"])
    return [said] if said else []


def tidy(tree: Path, source: Path) -> list[str]:
    """clang-tidy, with hv_core/.clang-tidy."""
    command = ["clang-tidy", "--quiet", f"--config-file={tree / '.clang-tidy'}", str(source)]
    said = _said([*command, "--", *LANGUAGE, _include(tree)])
    return [said] if said else []


def cppcheck(tree: Path, folder: str, *options: str) -> list[str]:
    said = _said(["cppcheck", "--quiet", *CPPCHECK, *options, _include(tree), str(tree / folder)])
    return [said] if said else []


# ---- What the objects show ----


def symbols(objects: Iterable[Path]) -> list[str]:
    """Names that only a library could provide, and variables."""
    undefined: set[str] = set()
    defined: set[str] = set()
    problems = []
    for path in objects:
        for line in subprocess.run(["nm", str(path)], check=True, capture_output=True, text=True).stdout.splitlines():
            kind, name = line.split()[-2:]
            (undefined if kind == "U" else defined).add(name)
            if kind in "bBdDC":
                problems.append(f"{path.stem}.c: {name} is a variable; all state lies in the caller's structure")
    missing = undefined - defined - HOME_PROVIDES
    return problems + [f"{name} is asked of the home; it provides {sorted(HOME_PROVIDES)}" for name in sorted(missing)]


NODE = re.compile(r'^node: \{ title: "([^"]+)" label: "[^"]*\\n(\d+) bytes \(([\w,]+)\)')
EDGE = re.compile(r'^edge: \{ sourcename: "([^"]+)" targetname: "([^"]+)"')


def calls(graphs: Iterable[Path]) -> tuple[dict[str, int], dict[str, set[str]], list[str]]:
    """From gcc's call graphs: frame of each function, whom it calls, and frames whose size is not fixed."""
    frames: dict[str, int] = {}
    called: dict[str, set[str]] = {}
    problems = []
    for line in itertools.chain.from_iterable(path.read_text().splitlines() for path in graphs):
        if node := NODE.match(line):
            frames[node[1]] = int(node[2])
            if node[3] not in ("static", "dynamic,bounded"):
                problems.append(f"{node[1]}: its stack frame has no fixed size")
        elif edge := EDGE.match(line):
            called.setdefault(edge[1], set()).add(edge[2])
    return frames, called, problems


def deepest(frames: dict[str, int], called: dict[str, set[str]]) -> tuple[int, list[str]]:
    """Bytes of stack of the deepest chain of calls, and who calls himself. Calls to the home count as nothing."""
    problems = []

    @functools.cache
    def depth(name: str) -> int:
        if name in above:
            problems.append(f"{name} calls itself, by way of {' '.join(above[above.index(name) + 1 :]) or 'nobody'}")
            return 0
        above.append(name)
        below = max((depth(each) for each in sorted(called.get(name, ()))), default=0)
        above.pop()
        return frames.get(name, 0) + below

    above: list[str] = []
    return max((depth(name) for name in frames), default=0), problems


def objects_are_sound(tree: Path) -> tuple[list[str], str]:
    """Problems of the compiled core, and a remark."""
    problems: list[str] = []
    stack = 0
    with tempfile.TemporaryDirectory(prefix="dom0kit-lint-") as folder:
        for optimisation in OPTIMISATIONS:
            objects = []
            for source in sorted((tree / "core").glob("*.c")):
                objects.append(Path(folder, f"{source.stem}{optimisation}.o"))
                command = ["gcc", *LANGUAGE, optimisation, "-fcallgraph-info=su", _include(tree), "-c", str(source)]
                said = _said([*command, "-o", str(objects[-1])])
                if said:
                    return [said], ""
            frames, called, unsized = calls(each.with_suffix(".ci") for each in objects)
            stack, recursive = deepest(frames, called)
            problems += symbols(objects) + unsized + recursive
    return sorted(set(problems)), f"deepest chain of calls: {stack} bytes of stack"


def check(tree: Path) -> tuple[list[str], str]:
    """Everything. Problems, and a remark."""
    sources = sorted((tree / "core").glob("*.c"))
    steps: list[Callable[[], list[str]]] = [functools.partial(cppcheck, tree, "core")]
    steps += [functools.partial(tidy, tree, source) for source in sources]
    if (tree / "x86").is_dir():
        # Structures of others' formats have fields that nobody here reads.
        steps += [functools.partial(cppcheck, tree, "x86", "--suppress=unusedStructMember")]
        steps += [functools.partial(tidy, tree, source) for source in sorted((tree / "x86").glob("*.c"))]
        steps += [functools.partial(boot_image, tree, compiler) for compiler in ("gcc", "clang")]
    steps += [
        functools.partial(compile_one, tree, source, compiler, variant)
        for source in sources
        for compiler in ("gcc", "clang")
        for variant in VARIANTS
    ]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        problems = list(itertools.chain.from_iterable(pool.map(lambda step: step(), steps)))
    unsound, remark = objects_are_sound(tree)
    return problems + unsound, remark


def main() -> int:
    parser = argparse.ArgumentParser(description="what is demanded of the C of the core")
    parser.add_argument("tree", nargs="?", type=Path, default=Path(__file__).resolve().parents[1])
    problems, remark = check(parser.parse_args().tree)
    print("\n".join(problems) or f"hv_core: no warnings, no variables, no recursion; {remark}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
