# SPDX-License-Identifier: MIT
"""shared_info, taken and handed over: dom0 confirms where the ACPI tables are, if it saw them there."""

from __future__ import annotations

from typing import Final

from dom0kit.abi import Status
from dom0kit.finding import Finding
from dom0kit.hypercall.interface import HypercallRefused, Hypervisor
from dom0kit.hypercall.shared_info import NotShared, SharedInfo
from dom0kit.service.findings import UNSEEN
from dom0kit.source.pointers import Pointers

_TRIES: Final = 8
"""The core's counter goes on where IOAPICs come just now."""


class NotHandedOver(Exception):
    """The core and dom0 do not agree on where the tables are; the message says what each believes."""


def hand_over(core: Hypervisor, seen: Pointers) -> tuple[SharedInfo, Finding | None]:
    """What the core shares, handed over; a finding where dom0 cannot confirm it. NotHandedOver.

    What was handed over before, by a service that died, is looked at and left.
    """
    for _ in range(_TRIES):
        try:
            info = core.shared_info()
        except (HypercallRefused, NotShared, OSError) as error:
            raise NotHandedOver(f"shared_info cannot be read: {error}") from error
        unseen = _compare("RSDP", info.rsdp, seen.rsdp) or _compare("XSDT", info.xsdt, seen.root)
        if info.handed_over or unseen is not None:
            return info, None if unseen is None else UNSEEN.at("shared_info", unseen)
        assert info.rsdp is not None
        assert info.xsdt is not None
        try:
            core.hand_over(info.rsdp, info.xsdt, info.counter)
        except HypercallRefused as refused:
            if refused.status is Status.TRY_AGAIN:
                continue
            raise NotHandedOver(f"the core refuses the pointers that it gave: {refused}") from refused
    raise NotHandedOver(f"shared_info changed {_TRIES} times while it was handed over")


def _compare(name: str, given: int | None, seen: frozenset[int]) -> str | None:
    """Why dom0 cannot confirm an address; None where it can. NotHandedOver where it has seen another."""
    if given is None:
        return f"the hypervisor gives no address of the {name}"
    if not seen:
        return f"nobody in dom0 says any more where the {name} is; the hypervisor says {given:#x}"
    if given not in seen:
        found = ", ".join(f"{each:#x}" for each in sorted(seen))
        raise NotHandedOver(f"the hypervisor says that the {name} is at {given:#x}; dom0 found it at {found}")
    return None
