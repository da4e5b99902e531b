# SPDX-License-Identifier: MIT
"""Programs in the kernel, by bcc (Debian's python3-bpfcc; the bcc on PyPI is something else). Imported late.

bcc compiles with the kernel's headers when a trace starts; few headers are used, for these cost most of that.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import msgspec

from dom0kit.trace.events import Kind, Raw

PROGRAMS: Final = Path(__file__).parent / "programs"
_DEBIAN: Final = "/usr/lib/python3/dist-packages"
_TRACING: Final = "/sys/kernel/tracing"


class TraceMissing(Exception):
    """This machine cannot be traced so; the message says why, and what would help."""


class Probe(msgspec.Struct, frozen=True):
    """A function of the kernel, and what of the program runs there."""

    functions: tuple[str, ...]
    """The first of these that the kernel has; all of them where `every`."""
    run: str
    returns: bool = False
    every: bool = False


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """What can be traced."""

    purpose: str
    probes: tuple[Probe, ...] = ()
    tracepoints: tuple[str, ...] = ()
    """``irq/irq_handler_entry``: the program attaches itself to these."""


SUBJECTS: Final[Mapping[str, Subject]] = {
    "irq": Subject(
        purpose="device interrupts: how often, on which CPU, how long their handlers take",
        tracepoints=("irq/irq_handler_entry", "irq/irq_handler_exit"),
    ),
    "msi": Subject(
        purpose="MSI and MSI-X messages as they are written",
        probes=(Probe(("__pci_write_msi_msg",), "on_message"),),
    ),
    "vectors": Subject(
        purpose="vectors allocated, activated, moved between CPUs, given back",
        tracepoints=("irq_vectors/vector_alloc", "irq_vectors/vector_config", "irq_vectors/vector_update"),
    ),
    "hotplug": Subject(
        purpose="the steps of pciehp and acpiphp, and the functions that come and go",
        probes=(
            Probe(("pciehp_ist",), "on_interrupt"),
            Probe(("pciehp_handle_presence_or_link_change",), "on_presence"),
            Probe(("pciehp_configure_device",), "on_configure"),
            Probe(("pciehp_unconfigure_device",), "on_unconfigure"),
            Probe(("acpiphp_hotplug_notify",), "on_notify"),
            Probe(("pci_scan_slot",), "on_scan"),
            Probe(("pci_device_add",), "on_add"),
            Probe(("pci_stop_and_remove_bus_device",), "on_remove"),
        ),
    ),
    "hypercalls": Subject(
        purpose="hypercalls through dom0kit.ko, and multicalls of a PV kernel to Xen",
        probes=(Probe(("dom0kit_ioctl",), "on_call"), Probe(("dom0kit_ioctl",), "on_answer", returns=True)),
    ),
    "pci-config": Subject(
        purpose="accesses to PCI config space",
        probes=(
            Probe(("pci_conf1_read", "pci_mmcfg_read"), "on_read", every=True),
            Probe(("pci_conf1_write", "pci_mmcfg_write"), "on_write", every=True),
        ),
    ),
}


def bcc() -> ModuleType:
    """Debian's bcc, also from a virtual environment. TraceMissing."""
    added = _DEBIAN not in sys.path
    if added:
        sys.path.append(_DEBIAN)
    try:
        import bcc as module
    except ImportError as error:
        raise TraceMissing(f"bcc cannot be imported ({error}): apt-get install python3-bpfcc") from error
    finally:
        if added:
            sys.path.remove(_DEBIAN)
    if not hasattr(module, "BPF"):
        raise TraceMissing("the bcc that is installed is another program: apt-get install python3-bpfcc")
    found: ModuleType = module
    return found


def check(subject: Subject, *, root: str = "/", uid: int | None = None, release: str | None = None) -> None:
    """Whether this machine can be traced so. TraceMissing with the one thing that is in the way."""

    def there(path: str) -> bool:
        return os.path.exists(os.path.join(root, path.lstrip("/")))

    release = os.uname().release if release is None else release
    if (os.geteuid() if uid is None else uid) != 0:
        raise TraceMissing("programs in the kernel ask for root: sudo dom0kit trace")
    if not there(f"{_TRACING}/events"):
        raise TraceMissing("there is no tracefs: mount -t tracefs tracefs /sys/kernel/tracing; in a container, outside")
    if subject.probes and not there(f"{_TRACING}/kprobe_events"):
        raise TraceMissing("this kernel has no kprobes (CONFIG_KPROBE_EVENTS): dom0kit trace irq and vectors need none")
    for point in subject.tracepoints:
        if not there(f"{_TRACING}/events/{point}"):
            raise TraceMissing(f"this kernel has no tracepoint {point.replace('/', ':')}")
    if not there(f"/lib/modules/{release}/build") and not there("/sys/kernel/kheaders.tar.xz"):
        raise TraceMissing(
            f"no headers of kernel {release} are here, which bcc compiles with: apt-get install linux-headers-{release}"
        )


class _Event(ctypes.Structure):
    _fields_ = (
        ("time", ctypes.c_uint64),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
        ("c", ctypes.c_uint64),
        ("cpu", ctypes.c_uint32),
        ("kind", ctypes.c_uint32),
    )


class Tracer:
    """A running trace. Close it, or use it in ``with``."""

    def __init__(self, name: str, *, each: bool = False, wanted: Sequence[int] = ()) -> None:
        """`each`: also every single interrupt; `wanted`: of these alone. TraceMissing."""
        subject = SUBJECTS[name]
        check(subject)
        module = bcc()
        text = (PROGRAMS / "common.bpf.h").read_text() + (PROGRAMS / f"{name}.bpf.c").read_text()
        flags = [f"-DKIND_{kind.name}={kind.value}" for kind in Kind]
        flags += ["-DEACH"] if each else []
        chosen = "||".join(f"(irq)=={irq}" for irq in wanted) or "1"
        flags.append(f"-DWANTED(irq)=({chosen})")
        if os.path.exists(f"{_TRACING}/events/xen/xen_mc_entry"):
            flags.append("-DXEN")
        try:
            self._bpf: Any = module.BPF(text=text, cflags=flags)
            self.absent = tuple(self._attach(module, subject))
            """Functions that this kernel does not have, so that they are not traced."""
        except Exception as error:  # bcc has no errors of its own; the compiler's words are on standard error
            if isinstance(error, TraceMissing):
                raise
            raise TraceMissing(f"the kernel takes no program for {name}: {error}") from error
        self._waiting: list[Raw] = []
        self._bpf["events"].open_ring_buffer(self._take)
        self.began = time.monotonic()

    def _attach(self, module: Any, subject: Subject) -> Iterator[str]:
        attached = False
        for probe in subject.probes:
            known = [name for name in probe.functions if module.BPF.get_kprobe_functions(f"^{name}$".encode())]
            attach = self._bpf.attach_kretprobe if probe.returns else self._bpf.attach_kprobe
            for name in known if probe.every else known[:1]:
                attach(event=name, fn_name=probe.run)
                attached = True
            yield from (name for name in probe.functions if name not in known)
        if subject.probes and not attached:
            names = ", ".join(name for probe in subject.probes for name in probe.functions)
            raise TraceMissing(f"this kernel has none of the functions to trace: {names} (is the module loaded?)")

    def close(self) -> None:
        self._bpf.cleanup()

    def __enter__(self) -> Tracer:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def poll(self, seconds: float) -> list[Raw]:
        """Events that came within so many seconds, or earlier."""
        self._bpf.ring_buffer_poll(int(seconds * 1000))
        taken, self._waiting = self._waiting, []
        return taken

    @property
    def lost(self) -> int:
        """Events that found no room, since the beginning."""
        return int(self._bpf["lost"][0].value)

    def counts(self) -> dict[int, dict[int, int]]:
        """Of irq: how often each interrupt came, by processor."""
        found: dict[int, dict[int, int]] = {}
        for key, value in self._bpf["counts"].items():
            found.setdefault(key.irq, {})[key.cpu] = value.value
        return found

    def took(self) -> dict[int, dict[int, int]]:
        """Of irq: for each interrupt, how many handlers took from 2^(n-1) up to 2^n ns, by n."""
        found: dict[int, dict[int, int]] = {}
        for key, value in self._bpf["took"].items():
            found.setdefault(key.irq, {})[key.slot] = value.value
        return found

    def _take(self, context: object, data: int, size: int) -> None:
        if size >= ctypes.sizeof(_Event):
            event = ctypes.cast(data, ctypes.POINTER(_Event)).contents
            self._waiting.append(Raw(event.time, event.a, event.b, event.c, event.cpu, event.kind))
