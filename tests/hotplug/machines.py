# SPDX-License-Identifier: MIT
"""Recorded machines whose functions come and go."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import dom0kit
from dom0kit.hotplug.model import ModelKernel
from dom0kit.source.interface import Source
from dom0kit.source.recognise import open_source

Q35 = "qemu-q35"
I440FX = "qemu-i440fx"
AMD = "synthetic-amd"
RECORDINGS = (Q35, I440FX, AMD, "qemu-microvm", "firecracker", "synthetic-x2apic")


@cache
def recording(name: str) -> Source:
    return open_source(Path(dom0kit.__file__).parent / "recordings" / f"{name}.d0k")


def kernel(name: str) -> ModelKernel:
    return ModelKernel(recording(name))
