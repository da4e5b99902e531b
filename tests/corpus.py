# SPDX-License-Identifier: MIT
"""The corpus of recorded machines: where it is, and the machines in it. Nothing of it is in this repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

CORPUS = Path(os.environ.get("DOM0KIT_CORPUS", Path(__file__).parent.parent.parent / "shared" / "corpus"))

needs_corpus = pytest.mark.skipif(
    not (CORPUS / "MANIFEST.tsv").is_file(),
    reason=f"no corpus of recorded machines at {CORPUS} (set DOM0KIT_CORPUS)",
)


def acpi_folders() -> list[Path]:
    """The folders of `*.dat` tables, one a machine; empty without a corpus."""
    return sorted(path for path in (CORPUS / "acpi").glob("*") if path.is_dir())


def lspci_dumps() -> list[Path]:
    """The `lspci -xxxx` texts, one a machine; empty without a corpus."""
    return sorted((CORPUS / "pci").glob("*.lspci"))


def logs(ending: str) -> list[Path]:
    """Boot logs and the like: `ending` is dmesg, ioports or interrupts."""
    return sorted((CORPUS / "log").glob(f"*.{ending}"))


def combined() -> list[str]:
    """Names of the machines with both ACPI tables and PCI config space."""
    return sorted({path.name for path in acpi_folders()} & {path.stem for path in lspci_dumps()})
