# SPDX-License-Identifier: MIT
"""A recorded machine under the core's model, and a reconciler that can be killed at any moment."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dom0kit.acpi.aml_values import Evaluate
from dom0kit.address import Sbdf
from dom0kit.hotplug.ledger import Entry
from dom0kit.hotplug.model import ModelKernel
from dom0kit.hotplug.monitor import Batch, Event
from dom0kit.hotplug.plans import QUARANTINE, owner_of
from dom0kit.hotplug.policy import Action, HotplugPolicy, read_policy
from dom0kit.hotplug.reconcile import Change, Reconciler
from dom0kit.hypercall.core_library import CoreLibrary, ModelMachine
from dom0kit.hypercall.world import World
from dom0kit.observation import observe
from dom0kit.pci.config_space import decode_function
from dom0kit.plan import Backend
from dom0kit.simulation import booted
from tests.hotplug.machines import recording
from tests.hypercall.apply_machine import BOOT, Death, Killed, MortalCore, MortalDisk, state

GIVE_ALL = '[[rule]]\naction = "give"\ndomain = 1\n'


class Rig:
    """Kernel, core and clock; `reconciler` is replaced where it is killed."""

    def __init__(
        self,
        name: str,
        folder: Path,
        policy: str | HotplugPolicy = "",
        *,
        domains: Iterable[int] = (),
        death: Death | None = None,
        aml: bool = True,
        kernel: ModelKernel | None = None,
        core: ModelMachine | None = None,
        backend: Backend = Backend.LIBRARY,
        kernel_aml: Evaluate | None = None,
    ) -> None:
        self.kernel = kernel or ModelKernel(recording(name))
        self.core = core or booted(observe(recording(name), aml=False), recording(name).tables())
        for domain in domains:
            self.dom0.domain_create(domain)
        self.death = death or Death()
        self.folder = folder
        self.policy = policy if isinstance(policy, HotplugPolicy) else read_policy(policy.encode())
        self.now = 0.0
        self.aml = aml
        self.backend = backend
        self.kernel_aml = kernel_aml
        self.reconciler = self.made()

    @property
    def dom0(self) -> CoreLibrary:
        return self.core.domain(0)

    def made(self) -> Reconciler:
        """A new process."""
        more: dict[str, Any] = {"disk": MortalDisk(self.death), "aml": self.aml, "clock": lambda: self.now}
        more["kernel_aml"] = self.kernel_aml
        core = MortalCore(self.core, self.death)
        folder = str(self.folder)
        return Reconciler(self.kernel, core, self.backend, self.policy, folder=folder, boot=BOOT, **more)

    def start(self) -> tuple[Change, ...]:
        return tuple(self.reconciler.start())

    def step(self, *functions: Sbdf, lost: bool = False, subsystem: str = "pci") -> tuple[Change, ...]:
        """An event of each function, then a step."""
        events = [
            Event(action="change", subsystem=subsystem, path="/x", function=each, sequence=0, received=self.now)
            for each in functions
        ]
        if subsystem != "pci":
            events = [Event(action="add", subsystem=subsystem, path="/x", function=None, sequence=0, received=self.now)]
        return tuple(self.reconciler.step(Batch(tuple(events), lost)))

    def survive(self, *functions: Sbdf) -> int:
        """A step; where the process is killed in it, others begin until one lives. How many died."""
        died = 0
        try:
            self.step(*functions)
            return died
        except Killed:
            died += 1
        while True:
            self.reconciler = self.made()
            try:
                self.reconciler.start()
                return died
            except Killed:
                died += 1

    def plug(self, *texts: str) -> list[Sbdf]:
        for text in texts:
            self.kernel.appear(self.kernel.recorded[Sbdf.parse(text)])
        return [Sbdf.parse(text) for text in texts]

    def pull(self, *texts: str) -> list[Sbdf]:
        for text in texts:
            self.kernel.vanish(Sbdf.parse(text))
        return [Sbdf.parse(text) for text in texts]

    def rules(self) -> list[str]:
        return [finding.rule for finding in self.reconciler.findings]

    def entry(self, text: str) -> Entry:
        return self.reconciler.entries[Sbdf.parse(text)]

    def agreed(self) -> None:
        """Kernel, ledger and core say the same, and the core keeps nothing else."""
        entries = self.reconciler.entries
        raws = {sbdf: self.kernel.shown(sbdf) for sbdf in self.kernel.addresses()}
        here = {sbdf: raw for sbdf, raw in raws.items() if decode_function(raw)[0].answers}
        assert entries.keys() == here.keys()
        told = {sbdf for sbdf, entry in entries.items() if entry.action is not Action.REFUSE}
        information = self.dom0.information()
        assert information.functions == len(told)
        messages = []
        for sbdf, entry in entries.items():
            assert entry.incarnation == self.kernel.incarnations()[sbdf]
            owner = owner_of(self.dom0, sbdf, entry.domain)
            given = entry.action is Action.GIVE and entry.placed
            assert owner == (None if sbdf not in told else entry.domain if given else 0), sbdf
            attributes = here[sbdf].attributes
            if entry.hot:
                kept = entry.action is Action.KEEP
                assert attributes.get("driver_override") == (None if kept else QUARANTINE)
                assert kept or "driver" not in attributes
        domains = {entry.domain for entry in entries.values() if entry.domain is not None}
        lines: set[tuple[int, int]] = set()
        for domain in (each for each in (0, *sorted(domains)) if self._has_domain(each)):
            for each in self.dom0.interrupts(domain):
                if each.function is not None:
                    assert entries[each.function].domain == domain
                    messages.append(each)
                elif domain:
                    assert each.gsi is not None
                    lines.add((domain, each.gsi))
        assert information.messages == len(messages)
        leads = {route.sbdf: route.gsi for route in self.reconciler.platform.routes}
        allowed = {(entry.domain, leads.get(sbdf)) for sbdf, entry in entries.items() if entry.placed}
        assert lines <= allowed

    def _has_domain(self, domain: int) -> bool:
        return World(Backend.LIBRARY, self.dom0, self.kernel.linux).has_domain(domain)

    def state(self) -> object:
        """What the core keeps, but which vectors it would give next."""
        return state(self.core)
