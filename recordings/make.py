# SPDX-License-Identifier: MIT
"""Makes the recordings that the package ships: ``python -m recordings.make [NAME ...]``, all of them without a name.

QEMU's machines are booted and record themselves, the synthetic ones are built from our own ASL and tables.
Firecracker's is made by running ``dom0kit record`` in such a machine, so it is taken only where this machine is one.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from recordings.synthetic import MACHINES as SYNTHETIC
from recordings.virtual import MACHINES as VIRTUAL
from tests.guest import GuestFailed, Machine, run

REPOSITORY = Path(__file__).parent.parent
RECORDINGS = REPOSITORY / "dom0kit" / "recordings"
FIRECRACKER = "firecracker"


def make(name: str, into: Path) -> None:
    """Make one recording; ValueError for a name nobody knows, GuestFailed when its machine does not come up."""
    file = into / f"{name}.d0k"
    with tempfile.TemporaryDirectory(dir=REPOSITORY) as folder:
        out = Path(folder)
        if name in VIRTUAL:
            machine, prepare = VIRTUAL[name]
            _record_guest(name, machine, prepare, out)
        elif name in SYNTHETIC:
            SYNTHETIC[name](out / "tree")
            _record("--from", str(out / "tree"), "-o", str(out / file.name))
        elif name == FIRECRACKER:
            _record("-o", str(out / file.name))
        else:
            raise ValueError(f"no recipe for {name!r}; there are {', '.join(names())}")
        (out / file.name).replace(file)


def names() -> list[str]:
    """Every recording there is a recipe for."""
    return sorted([*VIRTUAL, *SYNTHETIC, FIRECRACKER])


def _record_guest(name: str, machine: Machine, prepare: str, out: Path) -> None:
    python = shlex.quote(sys.executable)
    repository = shlex.quote(str(REPOSITORY))
    result = run(
        machine,
        f"set -e; {prepare}; cd {repository}; PYTHONPATH={repository} {python} -m dom0kit record -o /out/{name}.d0k",
        out,
        timeout=300,
    )
    if result.status != 0:
        raise GuestFailed(f"dom0kit record ended with status {result.status}:\n{result.stderr}")


def _record(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "dom0kit", "record", *arguments], cwd=REPOSITORY, check=True)


if __name__ == "__main__":
    for wanted in sys.argv[1:] or names():
        if wanted == FIRECRACKER and not Path("/sys/firmware/acpi/tables/DSDT").exists():
            print("firecracker: not on such a machine, left as it is")
            continue
        make(wanted, RECORDINGS)
        print(f"{wanted}: {(RECORDINGS / wanted).with_suffix('.d0k').stat().st_size} bytes")
