# SPDX-License-Identifier: MIT
"""Builds the core and the modelled machine as a Python extension (cffi, API mode: the compiler checks every structure).

``python hv_core/host/build.py`` puts ``_core_library`` into ``dom0kit/hypercall/`` if it is missing or older than its
sources; ``--output FOLDER`` puts a variant elsewhere, with ``--define HV_LIMIT_CPUS=4`` and ``--flag=--coverage``.
setup.py takes the extension from here too. What Python sees is derived from the headers, not written a second time.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import cffi

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
INCLUDE = ROOT / "hv_core" / "include"
CORE = sorted((ROOT / "hv_core" / "core").glob("*.c"))
SOURCES = [*CORE, HERE / "model.c"]
HEADERS = [*INCLUDE.glob("hv_core/*.h"), *(ROOT / "hv_core" / "core").glob("*.h"), HERE / "model.h"]
PACKAGE = ROOT / "dom0kit" / "hypercall"
MODULE = "dom0kit.hypercall._core_library"
VARIANT = "_core_library"
"""Name of a variant: cffi enters its modules by name, and a variant must not take the place of the one installed."""
FLAGS = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Wno-unused-parameter", "-pthread"]


def _preprocessed(header: Path, *options: str) -> str:
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    command = [compiler, "-E", "-P", "-DHV_CORE_NO_HEADERS", f"-I{INCLUDE}", *options, str(header)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _numbers(definitions: str) -> list[str]:
    """Names of the macros that are plain numbers."""
    return sorted(
        name
        for name in re.findall(r"^#define (HV_\w+) \(?(?:0x[0-9a-fA-F]+|\d+)[uUlL]*\)?$", definitions, re.MULTILINE)
        if name != "HV_CORE_NO_HEADERS"
    )


def declarations(defines: Sequence[str] = ()) -> str:
    """The header's structures, enums, functions and numbers, in the subset of C that cffi reads."""
    options = [f"-D{define}" for define in defines]
    abi = _preprocessed(INCLUDE / "hv_core" / "abi.h", *options)
    model = _preprocessed(HERE / "model.h", "-DHV_CORE_CORE_H", *options)
    text = abi + model
    text = re.sub(r"_Static_assert\s*\(.*?\)\s*;", "", text, flags=re.DOTALL)
    text = re.sub(r"^typedef .*?;$", "", text, flags=re.MULTILINE)
    # core.h as a whole holds what only C needs; of it the model hands out this one structure.
    delivery = re.search(r"^struct hv_delivery \{.*?^\};", (INCLUDE / "hv_core" / "core.h").read_text(), re.S | re.M)
    assert delivery is not None
    without_comments = re.sub(r"/\*.*?\*/", "", delivery[0], flags=re.DOTALL)
    numbers = _numbers(_preprocessed(INCLUDE / "hv_core" / "core.h", "-dM", *options))
    return "\n".join([f"#define {name} ..." for name in numbers] + [without_comments, text])


def ffi(defines: Sequence[str] = (), flags: Sequence[str] = (), module: str = MODULE) -> cffi.FFI:
    """The builder of the extension."""
    builder = cffi.FFI()
    builder.cdef(declarations(defines))
    builder.set_source(
        module,
        '#include "model.h"\n',
        sources=[str(source.relative_to(ROOT)) for source in SOURCES],
        include_dirs=[str(INCLUDE), str(HERE)],
        define_macros=[tuple(define.split("=", 1)) for define in defines],
        extra_compile_args=[*FLAGS, *flags],
        extra_link_args=["-pthread", *flags],
    )
    return builder


def library(output: Path) -> Path:
    """Where the extension lies in an output folder."""
    return output / f"_core_library{sysconfig.get_config_var('EXT_SUFFIX')}"


def is_current(built: Path) -> bool:
    """Is it there, and younger than all it is made of?"""
    return built.exists() and all(
        source.stat().st_mtime <= built.stat().st_mtime for source in [*SOURCES, *HEADERS, Path(__file__)]
    )


def build(output: Path, defines: Sequence[str] = (), flags: Sequence[str] = ()) -> Path:
    """Compiles into `output` and returns the extension's path. Objects stay in ``output/objects``, where gcov finds
    them; those of the package's own library in ``build/core_library``."""
    work = ROOT / "build" / "core_library" if output == PACKAGE else output / "objects"
    work.mkdir(parents=True, exist_ok=True)
    source = work / "_core_library.c"
    builder = ffi(defines, flags, MODULE if output == PACKAGE else VARIANT)
    with contextlib.redirect_stdout(None):  # cffi says what it does
        builder.emit_c_code(str(source))
    objects = []
    compiler = (sysconfig.get_config_var("CC") or "cc").split()
    python = sysconfig.get_paths()["include"]
    includes = [f"-I{INCLUDE}", f"-I{HERE}", f"-I{python}"]
    for part in [source, *SOURCES]:
        compiled = work / f"{part.stem}.o"
        macros = [f"-D{define}" for define in defines]
        subprocess.run(
            [*compiler, *FLAGS, "-fPIC", *flags, *macros, *includes, "-c", str(part), "-o", str(compiled)], check=True
        )
        objects.append(str(compiled))
    output.mkdir(parents=True, exist_ok=True)
    linked = work / "linked.so"
    subprocess.run([*compiler, "-shared", "-pthread", *flags, *objects, "-o", str(linked)], check=True)
    # Into place in one step: a process that has the old one open keeps it.
    new = library(output).with_suffix(".new")
    shutil.copy(linked, new)
    new.replace(library(output))
    return library(output)


def main() -> int:
    parser = argparse.ArgumentParser(description="build the core as a Python extension")
    parser.add_argument("--output", type=Path, default=PACKAGE)
    parser.add_argument("--define", action="append", default=[], help="a macro, such as HV_LIMIT_CPUS=4")
    parser.add_argument("--flag", action="append", default=[], help="for compiler and linker, such as --coverage")
    arguments = parser.parse_args()
    if not is_current(library(arguments.output)):
        print(build(arguments.output, arguments.define, arguments.flag), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
