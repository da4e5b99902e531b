# SPDX-License-Identifier: MIT
"""A recorded machine whose functions come and go, and its Linux: what scenarios are played against.

It does what a kernel does when a function appears: it shows it, and a little later (`settle`) binds the driver that the
recording names for its kind, unless driver_override keeps it from that. It does not give bus numbers or addresses: a
function comes with those that it was recorded with.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from dom0kit.address import Sbdf
from dom0kit.finding import Finding
from dom0kit.hypercall.linux import FunctionGone, Linux, LinuxRefused
from dom0kit.pci.config_space import decode_function
from dom0kit.source.contents import files_of
from dom0kit.source.in_memory import MemorySource
from dom0kit.source.interface import RawFunction, RawTable, Source

_ONES: Final = b"\xff"


class ModelKernel:
    """The kernel's list of functions."""

    def __init__(self, source: Source) -> None:
        self.name = source.name
        self.is_live = False
        self.findings: Sequence[Finding] = tuple(source.findings)
        self.kind = source.kind
        self.recorded: Mapping[Sbdf, RawFunction] = {raw.sbdf: raw for raw in source.functions()}
        """Every function as it was recorded."""
        self._tables = tuple(source.tables())
        self._files = MemorySource(source.name, source.kind, files=dict(files_of(source)))
        self._here: dict[Sbdf, RawFunction] = dict(self.recorded)
        self._silent: set[Sbdf] = set()
        self._unsettled: set[Sbdf] = set()
        self._born = 0
        self._incarnations = {sbdf: self._next() for sbdf in self._here}
        self.linux = ModelLinux(self)

    # ---- A source ----

    def tables(self) -> Sequence[RawTable]:
        return self._tables

    def addresses(self) -> Sequence[Sbdf]:
        return sorted(self._here)

    def functions(self, only: Container[Sbdf] | None = None) -> Iterator[RawFunction]:
        for sbdf in self.addresses():
            if only is None or sbdf in only:
                yield self.shown(sbdf)

    def file(self, path: str) -> bytes | None:
        return self._files.file(path)

    def names(self, path: str) -> Sequence[str]:
        return self._files.names(path)

    # ---- A kernel ----

    def open_source(self) -> ModelKernel:
        return self

    def incarnations(self) -> Mapping[Sbdf, int]:
        return dict(self._incarnations)

    def settle(self) -> None:
        """Drivers that fit are bound to functions that came."""
        for function in self._unsettled & self._here.keys():
            raw = self._here[function]
            driver = self.recorded_driver(raw)
            if driver is not None and raw.attributes.get("driver_override") in (None, driver):
                self.change(function, driver=driver)
        self._unsettled.clear()

    def recorded_driver(self, raw: RawFunction) -> str | None:
        """The driver that the recording has for this kind of function."""
        kind = raw.config[:4]
        return next(
            (
                known.attributes["driver"]
                for known in self.recorded.values()
                if known.config[:4] == kind and "driver" in known.attributes
            ),
            None,
        )

    # ---- What happens to it ----

    def appear(self, raw: RawFunction) -> None:
        """A function is plugged in: ValueError where there is one already."""
        if raw.sbdf in self._here:
            raise ValueError(f"{raw.sbdf} is there already")
        left = {name: text for name, text in raw.attributes.items() if name not in ("driver", "driver_override")}
        self._here[raw.sbdf] = msgspec.structs.replace(raw, attributes=left)
        self._silent.discard(raw.sbdf)
        self._incarnations[raw.sbdf] = self._next()
        self._unsettled.add(raw.sbdf)

    def vanish(self, function: Sbdf) -> None:
        """It is taken out: the kernel shows it no more. ValueError where there is none."""
        if function not in self._here:
            raise ValueError(f"there is no function {function}")
        del self._here[function], self._incarnations[function]
        self._silent.discard(function)

    def fall_silent(self, function: Sbdf, silent: bool = True) -> None:
        """It is pulled (or its link is down): its config space reads as all ones, and the kernel does not know yet."""
        (self._silent.add if silent else self._silent.discard)(function)

    def change(self, function: Sbdf, **attributes: str | None) -> None:
        """What the kernel says of it."""
        raw = self._here[function]
        now = {**raw.attributes, **attributes}
        self._here[function] = msgspec.structs.replace(
            raw, attributes={name: text for name, text in now.items() if text is not None}
        )

    def write(self, function: Sbdf, offset: int, data: bytes) -> None:
        raw = self._here[function]
        config = raw.config[:offset] + data + raw.config[offset + len(data) :]
        self._here[function] = msgspec.structs.replace(raw, config=config)

    def shown(self, function: Sbdf) -> RawFunction:
        """FunctionGone where there is none."""
        raw = self._here.get(function)
        if raw is None:
            raise FunctionGone(f"there is no PCI function {function}")
        if function in self._silent:
            return msgspec.structs.replace(raw, config=_ONES * len(raw.config))
        return raw

    def _next(self) -> int:
        self._born += 1
        return self._born


class ModelLinux(Linux):
    """What plans do to that kernel."""

    def __init__(self, kernel: ModelKernel) -> None:
        super().__init__(os.devnull)  # below which there are no files: whatever is not modelled is not there
        self._kernel = kernel

    def functions(self) -> list[Sbdf]:
        return list(self._kernel.addresses())

    def config(self, function: Sbdf, offset: int, width: int) -> int:
        data = self._kernel.shown(function).config[offset : offset + width]
        if len(data) < width:
            raise LinuxRefused(f"config space of {function} ends before {offset + width:#x}")
        return int.from_bytes(data, "little")

    def identity(self, function: Sbdf) -> tuple[int, int]:
        known, _ = decode_function(self._kernel.shown(function))
        return known.vendor, known.device

    def is_virtual(self, function: Sbdf) -> bool:
        return "physfn" in self._kernel.shown(function).attributes

    def write_config(self, function: Sbdf, offset: int, width: int, value: int) -> None:
        self.config(function, offset, width)
        self._kernel.write(function, offset, value.to_bytes(width, "little"))

    def driver(self, function: Sbdf) -> str | None:
        return self._kernel.shown(function).attributes.get("driver")

    def override(self, function: Sbdf) -> str | None:
        text = self._kernel.shown(function).attributes.get("driver_override")
        return None if text in (None, "", "(null)") else text

    def set_override(self, function: Sbdf, driver: str | None) -> None:
        self._kernel.shown(function)
        self._kernel.change(function, driver_override=driver)

    def bind(self, function: Sbdf, driver: str) -> None:
        if self.override(function) not in (None, driver):
            raise LinuxRefused(f"only {self.override(function)} may bind {function}")
        self._kernel.change(function, driver=driver)

    def unbind(self, function: Sbdf, driver: str) -> None:
        self._kernel.shown(function)
        self._kernel.change(function, driver=None)

    def must_have(self, driver: str) -> None:
        """Every driver is loaded."""
