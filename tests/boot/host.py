# SPDX-License-Identifier: MIT
"""The boot image's pure parts, compiled for this process: instruction decoder, interprocessor interrupts, ranges."""

from __future__ import annotations

import functools
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import cffi

from tests.guest.images import ROOT

X86 = ROOT / "hv_core" / "x86"
SOURCES = ("decode.c", "ipi.c", "ranges.c")
DEFINES = ("-DHV_CORE_NO_HEADERS", "-DHV_LIMIT_CPUS=64u")


@functools.cache
def library() -> Any:
    """An ffi.dlopen of the sources, and its ffi."""
    ffi = cffi.FFI()
    include = f"-I{ROOT / 'hv_core' / 'include'}"
    header = subprocess.run(
        ["gcc", "-E", "-P", include, *DEFINES, str(X86 / "home.h")], capture_output=True, text=True, check=True
    ).stdout
    wanted = ("range", "memory_range", "memory_map", "taken", "access", "ipi", "ipi_cpus")
    structures = [re.search(rf"^struct {name} \{{.*?^\}};", header, re.S | re.M) for name in wanted]
    names = "|".join(
        f"{kind}_{what}"
        for kind, whats in {
            "memory": ("set", "is", "find"),
            "taken": ("add", "meets"),
            "access": ("read", "value"),
            "ipi": ("of_icr", "targets"),
        }.items()
        for what in whats
    )
    functions = re.findall(rf"^[\w ]+ \*?(?:{names}|decode)\([^;]*\);", header, re.M)
    text = "\n".join([*(found[0] for found in structures if found), *functions])
    text = re.sub(r"\[(\d+)u\]", r"[\1]", text).replace("GPR_COUNT", "16")
    ffi.cdef(text)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x86.so")
        sources = [str(X86 / name) for name in SOURCES]
        options = ["-std=c11", "-O1", "-g", "-shared", "-fPIC", "-fsanitize=undefined", "-fno-sanitize-recover=all"]
        subprocess.run(["gcc", *options, include, *DEFINES, *sources, "-o", str(path)], check=True)
        return ffi, ffi.dlopen(str(path))
