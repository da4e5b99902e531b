# SPDX-License-Identifier: MIT
"""What acpiexec is given, and its first two processes.

Loading a machine's tables takes the interpreter longer than anything it is asked afterwards. So it is launched as soon
as the tables are read, and this module imports little: what asks and understands it is imported meanwhile.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from typing import Final

from dom0kit.acpi.aml_findings import NO_DSDT, NO_INTERPRETER, TABLE_REJECTED
from dom0kit.acpi.aml_session import Session
from dom0kit.acpi.recorded_config import RecordedConfig
from dom0kit.address import Sbdf
from dom0kit.finding import Finding
from dom0kit.source.interface import RawTable

SECONDS: Final = 28.0
"""For everything."""
_FIRST: Final = 0.6
"""Share of these for the first session; the rest is for trying again without initialisation."""
_LEFT_OUT: Final = ("RSDP", "RSD ", "RSDT", "XSDT", "FACS", "FACP", "MSDM")
"""Tables that acpiexec makes itself or must not see."""


class Launch:
    """One machine's tables on their way into interpreters. Use as a context manager: leaving ends what still waits."""

    def __init__(self, tables: Sequence[RawTable], config: Mapping[Sbdf, bytes], seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._program = shutil.which("acpiexec")
        self._waiting: list[Session] = []
        self.functions = config
        self.config = RecordedConfig(config)
        self.tables, self.findings = usable_tables(tables)
        if self._program is None:
            self.findings = [NO_INTERPRETER.at("aml", "no acpiexec in PATH: apt install acpica-tools")]
        if self.config and self.tables:
            self.tables += self.config.tables()

    def __enter__(self) -> Launch:
        return self

    def __exit__(self, *_: object) -> None:
        while self._waiting:
            self._waiting.pop().__exit__()

    @property
    def possible(self) -> bool:
        """There is an interpreter, and something for it to load."""
        return self._program is not None and bool(self.tables)

    @property
    def remaining(self) -> float:
        """Seconds."""
        return self._deadline - time.monotonic()

    def start(self) -> None:
        """Start the sessions that `first` and `spare` give; nothing where they wait already. OSError if no child.

        Nearly every machine reads config space of more than the host bridge, and so needs a second session: it loads
        its tables while the first one works.
        """
        if self.possible and not self._waiting:
            self._waiting.append(self.session(self._seconds * _FIRST))
            if self.config:
                self._waiting.append(self.session(self._seconds))

    def first(self) -> Session:
        """The session that reads everything."""
        return self._waiting.pop(0) if self._waiting else self.session(self._seconds * _FIRST)

    def spare(self) -> Session:
        """The one for what must be read again."""
        return self._waiting.pop(0) if self._waiting else self.session(self._seconds)

    def session(self, seconds: float, *, initialise: bool = True) -> Session:
        """One more, with at most so many of the remaining seconds."""
        assert self._program is not None
        deadline = min(self._deadline, time.monotonic() + seconds)
        return Session(self._program, self.tables, deadline, initialise=initialise)


def usable_tables(tables: Sequence[RawTable]) -> tuple[list[RawTable], list[Finding]]:
    """What acpiexec is given: DSDT first, then the others in order, each with a true length and checksum."""
    usable: list[RawTable] = []
    findings: list[Finding] = []
    dsdt: RawTable | None = None
    for table in tables:
        signature = table.data[:4].decode("ascii", "replace")
        if table.dynamic or signature in _LEFT_OUT:
            continue
        length = int.from_bytes(table.data[4:8], "little")
        if not 36 <= length <= len(table.data):
            if signature in ("DSDT", "SSDT", "PSDT"):
                where = f"table:{table.name}"
                findings.append(TABLE_REJECTED.at(where, f"its header says {length} of {len(table.data)} bytes"))
            continue
        data = table.data[:length]
        wrong = sum(data) & 0xFF
        if wrong:
            data = data[:9] + bytes(((data[9] - wrong) & 0xFF,)) + data[10:]
        fixed = RawTable(table.name, data)
        if signature != "DSDT":
            usable.append(fixed)
        elif dsdt is None:
            dsdt = fixed
    if dsdt is None:
        return [], [*findings, NO_DSDT.at("aml", "no table of this signature can be loaded")]
    return [dsdt, *usable], findings
