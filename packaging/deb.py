# SPDX-License-Identifier: MIT
"""``./dev deb``: the Debian packages, in build/deb, from a copy of the checkout's files."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "deb"


def build() -> list[Path]:
    """The packages, made anew where a file is newer. CalledProcessError; its words are on standard error."""
    listed = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split("\0")
    made = min((path.stat().st_mtime for path in FOLDER.glob("*.deb")), default=0.0)
    if made > max((ROOT / name).stat().st_mtime for name in names if name and (ROOT / name).is_file()):
        return sorted(FOLDER.glob("*.deb"))
    tree = FOLDER / "dom0kit"
    shutil.rmtree(FOLDER, ignore_errors=True)
    for name in filter(None, names):
        if (source := ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, tree / name)
    subprocess.run(
        ["dpkg-buildpackage", "--unsigned-source", "--unsigned-changes", "--build=binary"], cwd=tree, check=True
    )
    return sorted(FOLDER.glob("*.deb"))


if __name__ == "__main__":
    try:
        packages = build()
    except subprocess.CalledProcessError as error:
        sys.exit(f"deb: {error.cmd[0]} failed (status {error.returncode}); its words are above")
    for package in packages:
        print(package.relative_to(ROOT))
