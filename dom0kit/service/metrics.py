# SPDX-License-Identifier: MIT
"""Numbers for Prometheus, as a text file that node_exporter's textfile collector reads.

A file needs no listening socket in a service that may do hypercalls, and nobody but root writes it.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Final

from prometheus_client import CollectorRegistry, write_to_textfile
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from dom0kit import abi
from dom0kit.abi import Op, Physdev, Status
from dom0kit.address import Sbdf
from dom0kit.finding import Severity
from dom0kit.hypercall.interface import HypercallRefused, Hypervisor, Listener
from dom0kit.interrupts import routing_table
from dom0kit.platform import Platform
from dom0kit.service.engine import Engine
from dom0kit.trace.counts import COUNTERS, NOTHING, Counts, read_counts
from dom0kit.trace.names import Owner, owners
from dom0kit.vectors import Budget, Policy, budget, limits

_BOUNDS: Final = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Upper bounds in seconds."""


class Meter:
    """Counts every hypercall that this process makes, and how long it took. A `Hypervisor.listener`."""

    def __init__(self, then: Listener | None = None) -> None:
        """`then` is told as well."""
        self.calls: dict[str, list[int]] = {}
        """By name: calls within each of `_BOUNDS`, and beyond."""
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.refused: Counter[tuple[str, str]] = Counter()
        """By name and status."""
        self._then = then
        self._name = ""
        self._began = 0.0

    def asked(self, backend: str, number: int, command: int, argument: bytes) -> None:
        if self._then is not None:
            self._then.asked(backend, number, command, argument)
        self._name = _name(number, command)
        self._began = time.perf_counter()

    def answered(self, status: Status, answer: bytes) -> None:
        took = time.perf_counter() - self._began
        self.calls.setdefault(self._name, [0] * (len(_BOUNDS) + 1))[bisect_left(_BOUNDS, took)] += 1
        self.seconds[self._name] += took
        if status is not Status.OK:
            self.refused[self._name, status.name] += 1
        if self._then is not None:
            self._then.answered(status, answer)


def metered() -> Meter:
    """A meter of all hypervisors of this process, from now on."""
    meter = Meter(Hypervisor.listener)
    Hypervisor.listener = meter
    return meter


class Numbers(Collector):
    """What is known now; asks /proc/interrupts, and nothing of the hardware."""

    def __init__(self, engine: Engine, meter: Meter, interrupts: str = "/proc/interrupts") -> None:
        self._engine = engine
        self._meter = meter
        self._interrupts = interrupts
        self._of: Platform | None = None
        self._owners: dict[int, Owner] = {}
        self._budget: Budget | None = None
        self._by_source: dict[tuple[Sbdf | None, int], int] = {}
        """Vectors, by GSI (no function) or function and message."""

    def collect(self) -> Iterator[Metric]:
        platform = self._engine.platform
        if self._of is not platform:
            self._of, self._owners, self._budget = platform, dict(owners(platform)), self._budget_of(platform)
            self._by_source = self._core_vectors()
        try:
            counts = read_counts(self._interrupts)
        except OSError:
            counts = NOTHING
        yield from self._interrupt_counts(counts)
        yield from self._vectors()
        yield from self._machine(platform)
        yield from self._hypercalls()

    def _interrupt_counts(self, counts: Counts) -> Iterator[Metric]:
        names = ["irq", "gsi", "function", "message", "vector", "name"]
        family = CounterMetricFamily("dom0kit_interrupts", "Interrupts since boot, on all processors.", labels=names)
        for irq in counts.interrupts:
            owner = self._owners.get(irq, Owner(irq=irq))
            source = (None, owner.gsi) if owner.gsi is not None else (owner.function, owner.message or 0)
            vector = self._by_source.get(source)
            labels = (irq, owner.gsi, owner.function, owner.message, vector, ",".join(owner.actions))
            family.add_metric(["" if each is None else str(each) for each in labels], counts.total(irq))
        yield family
        wrong = CounterMetricFamily(
            "dom0kit_interrupt_errors", "SPU, ERR and MIS of /proc/interrupts.", labels=["kind"]
        )
        for kind in COUNTERS:
            if kind in counts.others:
                wrong.add_metric([kind], counts.others[kind])
        yield wrong

    def _core_vectors(self) -> dict[tuple[Sbdf | None, int], int]:
        """Which vector each source has, by a core's word; others do not tell."""
        found: dict[tuple[Sbdf | None, int], int] = {}
        core = self._engine.hypervisor
        if core is not None and self._engine.backend.is_core:
            with suppress(HypercallRefused):
                for each in core.interrupts():
                    if each.vector is not None and each.gsi is not None:
                        found[None, each.gsi] = each.vector
                    elif each.vector is not None:
                        found[each.function, each.entry or 0] = each.vector
        return found

    def _vectors(self) -> Iterator[Metric]:
        if self._budget is None:
            return
        family = GaugeMetricFamily("dom0kit_vectors", "Vectors of each processor for devices.", labels=["cpu", "state"])
        for each in self._budget.cpus:
            family.add_metric([str(each.cpu.number), "usable"], each.usable)
            family.add_metric([str(each.cpu.number), "used"], each.used)
        yield family
        wanted = "Vectors if every device took all its messages."
        yield GaugeMetricFamily("dom0kit_vectors_wanted", wanted, value=self._budget.wanted)

    def _budget_of(self, platform: Platform) -> Budget | None:
        try:
            table, _ = routing_table(platform)
            return budget(platform, table, limits(platform, self._engine.backend), Policy.parse("spread"))
        except ValueError:  # nobody says which processors there are
            return None

    def _machine(self, platform: Platform) -> Iterator[Metric]:
        severities = Counter(finding.severity for finding in self._engine.findings)
        findings = GaugeMetricFamily("dom0kit_findings", "What is wrong now.", labels=["severity"])
        for severity in Severity:
            findings.add_metric([severity.value], severities[severity])
        yield findings
        yield GaugeMetricFamily("dom0kit_functions", "PCI functions.", value=len(platform.functions))
        yield GaugeMetricFamily("dom0kit_plans", "Plans of /etc/dom0kit applied.", value=len(self._engine.plans))
        events = CounterMetricFamily("dom0kit_hotplug", "Events since the service started.", labels=["kind"])
        for kind, count in sorted(self._engine.counts.items()):
            events.add_metric([kind], count)
        yield events

    def _hypercalls(self) -> Iterator[Metric]:
        took = HistogramMetricFamily("dom0kit_hypercall_seconds", "Hypercalls of the service.", labels=["call"])
        for name, counts in sorted(self._meter.calls.items()):
            took.add_metric([name], list(_buckets(counts)), self._meter.seconds[name])
        yield took
        names = ["call", "status"]
        refused = CounterMetricFamily("dom0kit_hypercalls_refused", "Hypercalls refused.", labels=names)
        for (name, status), count in sorted(self._meter.refused.items()):
            refused.add_metric([name, status], count)
        yield refused


def write(path: str, numbers: Numbers) -> None:
    """Replaces the file as a whole. OSError."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(numbers)
    write_to_textfile(path, registry)


def _buckets(counts: Iterable[int]) -> Iterator[tuple[str, float]]:
    """Cumulative, as Prometheus wants them."""
    sum = 0
    for bound, count in zip((*map(str, _BOUNDS), "+Inf"), counts, strict=True):
        sum += count
        yield bound, sum


def _name(number: int, command: int) -> str:
    operations: type[Physdev] | type[Op] = Physdev if number == abi.HYPERCALL_PHYSDEV else Op
    try:
        return operations(command).name.lower()
    except ValueError:
        return f"{number}:{command}"
