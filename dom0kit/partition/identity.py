# SPDX-License-Identifier: MIT
"""Who a device is: by its way from the root, ids, class and keyed serial number, none of which a new card changes.

The way is that of `dom0kit.source.fingerprint`: segment and root bus, then device and function of every bridge down to
the device. Bus numbers below the root are given anew whenever cards come and go, and with them every address.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from dom0kit.address import Sbdf
from dom0kit.partition.model import Device
from dom0kit.pci.capabilities.serial_number import DeviceSerialNumber
from dom0kit.pci.config_space import decode_function
from dom0kit.pci.function import Function
from dom0kit.pci.topology import Topology
from dom0kit.source.interface import Source
from dom0kit.source.redaction import Redaction

_NOBODYS: Final = ("0" * 16, "f" * 16)


def keyed_serials(source: Source) -> dict[Sbdf, str]:
    """The serial numbers of a source's functions as its recording would have them: told apart, told to nobody."""
    redaction = Redaction(source)
    found = {}
    for raw in source.functions():
        if len(raw.config) > 0x100:
            for each in decode_function(redaction.function(raw))[0].capabilities:
                if isinstance(each, DeviceSerialNumber) and each.serial_number not in _NOBODYS:
                    found[raw.sbdf] = each.serial_number
                    break
    return found


def way(sbdf: Sbdf, topology: Topology) -> str:
    """``0000:00/1c.0/00.0``; of a virtual function ``0000:00/01.0/00.0/vf3``."""
    return Ways(topology).of(sbdf)


class Ways:
    """The ways of one machine's functions."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._known: dict[Sbdf, str] = {}
        self._virtual = {
            sbdf: number
            for each in topology.virtual_functions
            for number, sbdf in enumerate(each.expected or each.present)
        }

    def of(self, sbdf: Sbdf) -> str:
        """As `way`."""
        if sbdf not in self._known:
            self._known[sbdf] = self._of(sbdf)
        return self._known[sbdf]

    def _of(self, sbdf: Sbdf) -> str:
        physical = self._topology.physical_function(sbdf)
        if physical is not None and physical != sbdf and sbdf in self._virtual:
            return f"{self.of(physical)}/vf{self._virtual[sbdf]}"
        above = self._topology.upstream(sbdf)
        before = f"{sbdf.segment:04x}:{sbdf.bus:02x}" if above is None else self.of(above)
        return f"{before}/{sbdf.device:02x}.{sbdf.function}"


class Found(NamedTuple):
    """What a device of a file is in a machine."""

    function: Sbdf | None
    trouble: str = ""
    """Where it is none: why, as a sentence without its end; in `kind`, which rule."""
    kind: str = ""
    """``missing``, ``mismatch`` or ``ambiguous``."""
    elsewhere: tuple[Sbdf, ...] = ()
    """Functions that the rest of the description fits, ascending."""


class Finder:
    """Finds devices in a machine."""

    def __init__(self, functions: Iterable[Function], topology: Topology, serials: Mapping[Sbdf, str]) -> None:
        self._functions = {function.sbdf: function for function in functions}
        self._serials = serials
        self._ways = Ways(topology)
        self._by_way: dict[str, list[Sbdf]] = defaultdict(list)
        self._by_id: dict[str, list[Sbdf]] = defaultdict(list)
        for sbdf, function in self._functions.items():
            self._by_way[self._ways.of(sbdf)].append(sbdf)
            self._by_id[id_of(function)].append(sbdf)

    def identity(self, sbdf: Sbdf) -> Device:
        """All that is known to name a function by."""
        function = self._functions[sbdf]
        return Device(
            path=self._ways.of(sbdf),
            id=id_of(function),
            class_code=class_of(function),
            serial=self._serials.get(sbdf),
        )

    def find(self, device: Device) -> Found:
        """The function that a device is: at its path, else at its address, else the only one it fits."""
        if device.path is not None:
            return self._at(device, f"path {device.path}", self._by_way.get(device.path, ()))
        if device.sbdf is not None:
            sbdf = Sbdf.parse(device.sbdf)
            return self._at(device, f"address {sbdf}", (sbdf,) if sbdf in self._functions else ())
        fitting = self._fitting(device)
        if len(fitting) == 1:
            return Found(fitting[0])
        if not fitting:
            return Found(None, f"no function is {_described(device)}", "missing")
        return Found(None, f"{len(fitting)} functions are {_described(device)}", "ambiguous", fitting)

    def _at(self, device: Device, where: str, there: Sequence[Sbdf]) -> Found:
        if len(there) > 1:
            return Found(None, f"{len(there)} functions are at {where}", "ambiguous", tuple(sorted(there)))
        if not there:
            return Found(None, f"nothing is at {where}", "missing", self._fitting(device))
        wrong = self._differences(device, there[0])
        if wrong:
            return Found(None, f"at {where} is another device: {', '.join(wrong)}", "mismatch", self._fitting(device))
        return Found(there[0])

    def _fitting(self, device: Device) -> tuple[Sbdf, ...]:
        """Functions of its id, class and serial number; none where it has no id."""
        if device.id is None:
            return ()
        return tuple(sorted(each for each in self._by_id.get(device.id, ()) if not self._differences(device, each)))

    def _differences(self, device: Device, sbdf: Sbdf) -> list[str]:
        function = self._functions[sbdf]
        pairs = (
            ("id", device.id, id_of(function)),
            ("class", device.class_code, class_of(function)),
            ("serial", device.serial, self._serials.get(sbdf, "none")),
        )
        return [f"{name} {is_}, not {should}" for name, should, is_ in pairs if should is not None and should != is_]


def id_of(function: Function) -> str:
    return f"{function.vendor:04x}:{function.device:04x}"


def class_of(function: Function) -> str:
    return f"{function.class_code:06x}"


def written(device: Device) -> str:
    """A device as an inline table of TOML."""
    named = msgspec.to_builtins(device)
    return "{ " + ", ".join(f'{key} = "{value}"' for key, value in named.items()) + " }"


def _described(device: Device) -> str:
    return ", ".join(
        f"{name} {value}"
        for name, value in (("id", device.id), ("class", device.class_code), ("serial", device.serial))
        if value is not None
    )
