# SPDX-License-Identifier: MIT
"""The one thing pyproject.toml cannot say: the core's library is compiled, and may be missing without a compiler."""

import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup

sys.path.insert(0, str(Path(__file__).resolve().parent / "hv_core" / "host"))


def extensions() -> list[Extension]:
    """The library; none where no compiler can read the headers. The verbs that need it say how to get it."""
    import build  # hv_core/host/build.py

    try:
        library: Extension = build.ffi().distutils_extension()
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"dom0kit is installed without the core's library: {error}", file=sys.stderr)
        return []
    library.optional = True
    library.depends = [str(header.relative_to(build.ROOT)) for header in build.HEADERS]
    return [library]


setup(ext_modules=extensions())
