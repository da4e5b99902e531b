# SPDX-License-Identifier: MIT
"""Programs in a real kernel: events arrive, are of the right device, and counts are those of /proc/interrupts."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.guest import Guest, Machine, boot, missing, module

BCC = Path("/usr/lib/python3/dist-packages/bcc/__init__.py")
pytestmark = [
    pytest.mark.guest,
    pytest.mark.slow,
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
    pytest.mark.skipif(module.missing() is not None, reason=module.missing() or ""),  # headers of the guest's kernel
    pytest.mark.skipif(not BCC.exists(), reason="needs python3-bpfcc (./dev test installs it)"),
]
SECONDS = 300
"""bcc compiles for a quarter of a minute in an idle guest."""


def _counted() -> dict[str, Any]:
    """In the guest: what the program counts and what the kernel counts of the same interrupts, while files are read."""
    import os
    import time

    from dom0kit.observation import observe
    from dom0kit.source.live import live
    from dom0kit.trace.bpf import Tracer
    from dom0kit.trace.counts import read_counts
    from dom0kit.trace.events import joined
    from dom0kit.trace.names import owners

    def read(times: int) -> float:
        began = time.monotonic()
        for number in range(times):
            with open(f"/out/file{number % 8}", "wb", buffering=0) as file:
                file.write(bytes(4096))
                os.fsync(file.fileno())
        return time.monotonic() - began

    def both(tracer: Tracer) -> tuple[dict[int, int], dict[int, int]]:
        """At a moment when nothing came."""
        while True:
            kernel = read_counts()
            ours = {irq: sum(counts.values()) for irq, counts in tracer.counts().items()}
            if read_counts().interrupts == kernel.interrupts:
                return ours, {irq: kernel.total(irq) for irq in kernel.interrupts}
            time.sleep(0.05)

    known = owners(observe(live(), aml=False, only="interrupts"))
    virtio = sorted(irq for irq, owner in known.items() if any("virtio" in each for each in owner.actions))
    without = read(500)
    began = time.monotonic()
    with Tracer("irq", each=True, wanted=virtio) as tracer:
        compiled = time.monotonic() - began
        ours, kernel = both(tracer)
        with_it = read(500)
        ours_then, kernel_then = both(tracer)
        events = []
        while found := tracer.poll(0.1):
            events += [joined(raw, known) for raw in found]
        return {
            "ours": {irq: ours_then.get(irq, 0) - ours.get(irq, 0) for irq in virtio},
            "kernel": {irq: kernel_then[irq] - kernel[irq] for irq in virtio},
            "labels": sorted({event.who for event in events if event.took}),
            "functions": sorted({str(event.function) for event in events}),
            "took": {irq: sum(slots.values()) for irq, slots in tracer.took().items() if irq in virtio},
            "events": len(events),
            "lost": tracer.lost,
            "compiled": compiled,
            "without": without,
            "with": with_it,
        }


def test_interrupts_are_those_of_the_kernel(tmp_path: Path) -> None:
    with boot(Machine(memory=2048), tmp_path) as guest:
        seen = guest.call(_counted, timeout=SECONDS)
    (tmp_path / "seen").write_text(json.dumps(seen))
    assert seen["ours"] == seen["kernel"]
    assert sum(seen["kernel"].values()) >= 500
    assert seen["events"] + seen["lost"] >= sum(seen["kernel"].values())
    assert any("virtio" in label and "message" in label for label in seen["labels"]), seen["labels"]
    assert all(function.startswith("0000:00:") for function in seen["functions"]), seen["functions"]


def test_a_hotplug_step_by_step(tmp_path: Path) -> None:
    native = ("-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off")
    with boot(Machine(memory=2048, root_ports=1, devices=native), tmp_path) as guest:
        trace = "dom0kit trace hotplug --json --chrome-trace /out/timeline"
        guest.run(f"set -m; {trace} >/out/told 2>/out/words & echo $! >/out/pid")  # without job control deaf to SIGINT
        _until(guest, "tracing hotplug", tmp_path / "words")
        time.sleep(2)
        guest.qmp.execute("device_add", driver="virtio-rng-pci", id="plugged", bus="rp0")
        _until(guest, '"add of pci', tmp_path / "told")
        guest.run("sleep 2; kill -INT $(cat /out/pid)")
        _until(guest, "traceEvents", tmp_path / "timeline")
    events = [json.loads(line) for line in (tmp_path / "told").read_text().splitlines()]
    kinds = [event["kind"] for event in events]
    assert kinds.index("presence") < kinds.index("configure") < kinds.index("add") < kinds.index("kernel-event")
    added = next(event for event in events if event["what"].startswith("add of pci"))
    assert added["function"] == "0000:01:00.0"
    assert len(json.loads((tmp_path / "timeline").read_text())["traceEvents"]) == len(events)


def _until(guest: Guest, text: str, path: Path) -> None:
    end = time.monotonic() + SECONDS
    while text not in (path.read_text() if path.exists() else ""):
        assert time.monotonic() < end, f"{text!r} was not told, but {path.read_text() if path.exists() else ''!r}"
        guest.run("sleep 1")


def _every_subject() -> dict[str, list[dict[str, Any]]]:
    """In the guest: a device loses its driver and gets it back, config space is read, a hypercall made."""
    import json

    from dom0kit.hypercall.kernel_module import KernelModule
    from dom0kit.hypercall.linux import Linux
    from dom0kit.observation import observe
    from dom0kit.serial import encode
    from dom0kit.source.live import live
    from dom0kit.trace.bpf import Tracer
    from dom0kit.trace.events import joined
    from dom0kit.trace.names import owners

    platform = observe(live(), aml=False)
    known = owners(platform)
    function = next(each.sbdf for each in platform.functions if each.driver == "virtio-pci" and each.sbdf.device > 2)
    told = {}
    for subject in ("msi", "vectors", "hypercalls", "pci-config"):
        with Tracer(subject) as tracer:
            Linux().unbind(function, "virtio-pci")
            Linux().bind(function, "virtio-pci")
            Linux().config(function, 0, 4)
            with KernelModule() as core:
                core.information()
            told[subject] = [json.loads(encode(joined(raw, known))) for raw in tracer.poll(1)]
            told[f"{subject} lost"] = [{"lost": tracer.lost}]
    told["function"] = [{"is": str(function)}]
    return told


def test_every_other_subject_tells(tmp_path: Path) -> None:
    plugged = ("-device", "virtio-rng-pci,addr=0x9")
    with boot(Machine(memory=2048, devices=plugged), tmp_path) as guest:
        guest.load(module.built()[0])
        guest.run("modprobe virtio-rng").check()  # it is who asks for messages
        told = guest.call(_every_subject, timeout=SECONDS)
    (tmp_path / "told").write_text(json.dumps(told))
    function = told["function"][0]["is"]
    assert any(event["kind"] == "message" and "0xfee" in event["what"] for event in told["msi"])
    assert {"configured", "activated"} <= {event["kind"] for event in told["vectors"]}
    assert "information: done" in [event["what"] for event in told["hypercalls"]]
    reads = [event for event in told["pci-config"] if event["kind"] == "read" and event["function"] == function]
    assert "reads 4 bytes at 0x0" in [event["what"] for event in reads]
    assert all(told[name] == [{"lost": 0}] for name in told if name.endswith(" lost"))
