# SPDX-License-Identifier: MIT
"""How long hotplug takes from the kernel's event until the hypervisor is told, and until the Platform has followed.

``python -m benchmarks.hotplug`` prints the section that ``./dev bench`` keeps. Functions of a recorded machine are
unplugged and plugged in again, the event handed over as the monitor would; the core is the library, the journal in
memory as below /run. What the kernel and the hardware take before the event is not in it.
"""

from __future__ import annotations

import gc
import os
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import dom0kit
from dom0kit.address import Sbdf
from dom0kit.hotplug.model import ModelKernel
from dom0kit.hotplug.monitor import Batch, Event
from dom0kit.hotplug.policy import HotplugPolicy, Limits
from dom0kit.hotplug.reconcile import ChangeKind, Reconciler
from dom0kit.observation import observe
from dom0kit.plan import Backend
from dom0kit.simulation import booted
from dom0kit.source.recognise import open_source

RECORDING = Path(dom0kit.__file__).parent / "recordings" / "qemu-q35.d0k"
SLOTS = ("0000:04:00.0", "0000:07:03.0", "0000:c1:00.0", "0000:01:00.4")
EVENTS = 400
MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None


def measure(events: int = EVENTS) -> dict[str, list[float]]:
    """Seconds of each event: until told of an arrival, until a departure was taken back, until the step was done."""
    source = open_source(RECORDING)
    kernel = ModelKernel(source)
    core = booted(observe(source, aml=False), source.tables())
    policy = HotplugPolicy(limits=Limits(arrivals=10_000))
    taken: dict[str, list[float]] = {"arrived": [], "departed": [], "step": []}
    chance = random.Random(1)
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        reconciler = Reconciler(kernel, core.domain(0), Backend.LIBRARY, policy, folder=folder, boot="bench")
        reconciler.start()
        gc.collect()
        gc.disable()  # as the command runs
        for _ in range(events):
            function = Sbdf.parse(chance.choice(SLOTS))
            if function in kernel.addresses():
                kernel.vanish(function)
            else:
                kernel.appear(kernel.recorded[function])
            began = time.monotonic()
            event = Event(action="add", subsystem="pci", path="/x", function=function, sequence=0, received=began)
            changes = reconciler.step(Batch((event,)))
            taken["step"].append(time.monotonic() - began)
            for change in changes:
                if change.kind in (ChangeKind.ARRIVED, ChangeKind.DEPARTED) and change.seconds is not None:
                    taken[change.kind.value].append(change.seconds)
    gc.enable()
    return taken


def section() -> str:
    """The figures with what they need said, in Markdown."""
    taken = measure()
    rows = [
        ("an arrival, until the hypervisor is told", "arrived", "p99 under 20 ms"),
        ("a departure, until all is taken back", "departed", "p99 under 20 ms"),
        ("either, until the Platform has followed", "step", ""),
    ]
    table = "\n".join(
        f"| {what} | {_at(taken[name], 50):.1f} ms | {_at(taken[name], 99):.1f} ms | {target} |"
        for what, name, target in rows
    )
    return f"""## Hotplug

{EVENTS} events of the recorded q35, replayed to the reconciler: from the event to the core's answer,
with the journal in memory. Kernel and hardware before the event are not in it.

| what | median | p99 | should be |
| --- | --- | --- | --- |
{table}
"""


def _at(seconds: Sequence[float], percent: int) -> float:
    """A percentile in milliseconds."""
    return statistics.quantiles(seconds, n=100)[percent - 1] * 1000


if __name__ == "__main__":
    print(section(), end="")
