# SPDX-License-Identifier: MIT
"""An engine over a recorded machine and the core's model, which can be killed at any moment, and its log."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dom0kit.address import Gsi
from dom0kit.hotplug.model import ModelKernel
from dom0kit.hypercall.core_library import CoreLibrary, ModelMachine
from dom0kit.observation import observe
from dom0kit.plan import Backend, Dialect, MapGsi, Plan
from dom0kit.service.engine import Engine, Machine
from dom0kit.service.settings import NamedPlan, Settings
from dom0kit.simulation import SHARED_AT, booted, memory_image
from dom0kit.source.pointers import Pointers
from tests.hotplug.machines import Q35, recording
from tests.hypercall.apply_machine import BOOT, Death, MortalCore, MortalDisk, state

PLATFORM = observe(recording(Q35), aml=False)
_, RSDP, XSDT = memory_image(recording(Q35).tables())
LEAF = max(function.sbdf for function in PLATFORM.functions if function.buses is None)
"""A function that can come and go."""
SEEN = Pointers(frozenset({RSDP}), frozenset({XSDT}))


def plan(*gsis: int, **fields: Any) -> Plan:
    given: dict[str, Any] = {
        "title": f"GSIs {', '.join(map(str, gsis))}",
        "machine": "a model",
        "fingerprint": PLATFORM.origin.fingerprint,
        "dialect": Dialect.MODERN,
        "backend": Backend.LIBRARY,
        "operations": tuple(MapGsi(gsi=Gsi(gsi)) for gsi in gsis),
    }
    return Plan(**given | fields)


def named(*plans: Plan) -> Settings:
    return Settings(plans=tuple(NamedPlan(f"{number}.json", each) for number, each in enumerate(plans)))


class Log:
    """Remembers."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, str, dict[str, object]]] = []

    def log(self, priority: int, message: str, **fields: object) -> None:
        self.lines.append((priority, message, fields))

    def of(self, event: str) -> list[str]:
        return [message for _, message, fields in self.lines if fields.get("event") == event]


class Rig:
    """A kernel, a core, and a folder that outlive the service's process."""

    def __init__(self, folder: Path, settings: Settings | None = None, *, seen: Pointers = SEEN) -> None:
        self.folder = folder
        self.settings = settings or Settings()
        self.seen = seen
        self.kernel = ModelKernel(recording(Q35))
        self.core: ModelMachine = booted(PLATFORM, recording(Q35).tables())
        self.dom0.map_shared_info(SHARED_AT)
        self.death = Death()
        self.boot = BOOT
        self.has_core = True

    @property
    def dom0(self) -> CoreLibrary:
        return self.core.domain(0)

    def engine(self) -> tuple[Engine, Log]:
        """A new process."""
        log = Log()
        machine = Machine(
            kernel=self.kernel,
            hypervisor=MortalCore(self.core, self.death) if self.has_core else None,
            backend=Backend.LIBRARY if self.has_core else Backend.LINUX,
            boot=self.boot,
            folder=str(self.folder),
            pointers=lambda: self.seen,
        )
        return Engine(machine, self.settings, log, disk=MortalDisk(self.death), aml=False), log

    def started(self) -> tuple[Engine, Log]:
        engine, log = self.engine()
        engine.start()
        return engine, log

    def mapped(self) -> list[int]:
        """GSIs of domain 0 that have a pIRQ."""
        return sorted(each.gsi for each in self.dom0.interrupts() if each.gsi is not None and each.pirq is not None)

    def state(self) -> object:
        return state(self.core)


def rules(engine: Engine) -> Iterable[str]:
    return [finding.rule for finding in engine.findings]
