# SPDX-License-Identifier: MIT
"""The kernel of kernel-debug.config (KASAN, lockdep, kmemleak, UBSAN, KUnit), built from Debian's linux-source.

``python3 debug_kernel.py`` builds it, once, outside the checkout, and prints where it lies; a build that was killed
goes on where it was. It boots with ``Machine(kernel=built())``, and modules for it are built against the same tree.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

FRAGMENT = Path(__file__).with_name("kernel-debug.config")


class BuildFailed(Exception):
    """The kernel could not be built; the message says why."""


def built() -> Path | None:
    """The tree, where this version of the source and of the fragment has been built; else None."""
    source = _source()
    tree = source and _tree(source)
    return tree if tree and (tree / "finished").exists() else None


def build() -> Path:
    """The tree, built first where it is not; BuildFailed, with the compiler's words, when it does not compile."""
    source = _source()
    if source is None:
        raise BuildFailed("no /usr/src/linux-source-*.tar.xz: install linux-source-6.1")
    tree = _tree(source)
    tree.mkdir(parents=True, exist_ok=True)
    with (tree / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (tree / "finished").exists():
            return tree
        if not (tree / "unpacked").exists():
            print(f"unpacking {source}", file=sys.stderr)
            subprocess.run(["tar", "-xf", source, "-C", tree, "--strip-components=1"], check=True)
            (tree / "unpacked").touch()
        if not (tree / "configured").exists():
            _configure(tree)
        jobs = os.cpu_count() or 1
        print(f"building with {jobs} jobs, about 15 minutes of processor time; see {tree / 'log'}", file=sys.stderr)
        with (tree / "log").open("w") as log:
            line = ["nice", "-n", "19", "make", "-s", f"-j{jobs}", "bzImage", "modules"]
            status = subprocess.run(line, cwd=tree, stdout=log, stderr=log, stdin=subprocess.DEVNULL).returncode
        if status != 0:
            raise BuildFailed("\n".join((tree / "log").read_text(errors="replace").splitlines()[-20:]))
        (tree / "finished").touch()
    return tree


def dropped(fragment: str, config: str) -> list[str]:
    """The lines of a fragment that a kernel's .config does not have: their dependencies are not met."""
    has = set(config.splitlines())
    lines = (line for line in fragment.splitlines() if line.startswith("CONFIG_"))
    off = re.compile(r"^(CONFIG_\w+)=n$")
    return [
        line
        for line in lines
        if (any(one.startswith(f"{match[1]}=") for one in has) if (match := off.match(line)) else line not in has)
    ]


def _configure(tree: Path) -> None:
    for line in (
        ["make", "-s", "tinyconfig"],
        ["scripts/kconfig/merge_config.sh", "-m", ".config", str(FRAGMENT)],
        ["make", "-s", "olddefconfig"],
    ):
        subprocess.run(line, cwd=tree, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    lost = dropped(FRAGMENT.read_text(), (tree / ".config").read_text())
    if lost:
        raise BuildFailed(f"not in the configuration: {' '.join(lost)}")
    (tree / "configured").touch()


def _source() -> Path | None:
    sources = sorted(
        Path("/usr/src").glob("linux-source-*.tar.xz"),
        key=lambda path: [int(part) for part in re.findall(r"\d+", path.name)],
    )
    return sources[-1] if sources else None


def _tree(source: Path) -> Path:
    """Named after the version of the source's package and the fragment."""
    package = source.name.removesuffix(".tar.xz")
    line = ["dpkg-query", "-W", "-f", "${Version}", package]
    version = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    name = f"{version} {hashlib.sha256(FRAGMENT.read_bytes()).hexdigest()[:12]}"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "dom0kit" / "kernel-debug" / re.sub(r"[^A-Za-z0-9.]", "-", name)


if __name__ == "__main__":
    try:
        print(build())
    except (BuildFailed, OSError, subprocess.CalledProcessError) as error:
        print(f"kernel-debug: {error}", file=sys.stderr)
        sys.exit(3)
