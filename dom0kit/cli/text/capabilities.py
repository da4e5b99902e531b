# SPDX-License-Identifier: MIT
"""One line of text for each PCI capability: what somebody who partitions a machine wants of it. JSON has the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from dom0kit.cli.text.layout import about, count, size
from dom0kit.pci.capabilities import EXTENDED, STANDARD

_TITLES = {known.module: known.title for known in reversed((*STANDARD.values(), *EXTENDED.values())) if known.module}
"""By module; where one decodes two ids, that of the lower, unless the tag is here:"""
_TITLES_BY_TAG = {
    "vf-resizable-bars": "VF Resizable BAR",
    "multi-function-virtual-channel": "Multi-Function Virtual Channel",
}
_SPEEDS = ("", "2.5GT/s", "5GT/s", "8GT/s", "16GT/s", "32GT/s", "64GT/s", "128GT/s")
_ACS = {
    "source_validation": "SV",
    "translation_blocking": "TB",
    "p2p_request_redirect": "RR",
    "p2p_completion_redirect": "CR",
    "upstream_forwarding": "UF",
    "p2p_egress_control": "EC",
    "direct_translated_p2p": "DT",
}
_VIRTIO = {1: "common", 2: "notify", 3: "ISR", 4: "device", 5: "config access", 8: "shared memory", 9: "vendor"}


def title(capability: Any) -> str:
    """Name of the capability, as the list of assigned ids has it."""
    kind = type(capability)
    name: str | None = (
        getattr(capability, "name", None)
        or _TITLES_BY_TAG.get(str(kind.__struct_config__.tag))
        or _TITLES.get(kind.__module__.rpartition(".")[2])
    )
    return name or f"id {capability.id:#04x}"


def detail(capability: Any) -> str:
    """What is worth knowing of it, may be empty."""
    describe = DETAILS.get(str(capability.__struct_config__.tag))
    return describe(capability) if describe else ""


def _join(parts: Iterable[str | None]) -> str:
    return ", ".join(part for part in parts if part)


def _on(enabled: bool) -> str:
    return "on" if enabled else "off"


def _of(value: Any, **names: str) -> list[str]:
    return [text for field, text in names.items() if getattr(value, field)]


def _speed(index: int) -> str:
    return _SPEEDS[index] if 0 < index < len(_SPEEDS) else f"speed {index}"


def _msi(c: Any) -> str:
    where = f"{c.address:#x} data {c.data:#06x}" if c.enabled else None
    return _join([_on(c.enabled), f"{c.allocated} of {c.capable}", *_of(c, maskable="maskable"), where])


def _msix(c: Any) -> str:
    return _join(
        [
            _on(c.enabled) + (" but masked" if c.enabled and c.masked else ""),
            count(c.vectors, "vector"),
            f"table BAR {c.table_bar}+{c.table_offset:#x}",
            f"PBA BAR {c.pba_bar}+{c.pba_offset:#x}",
        ]
    )


def _express(c: Any) -> str:
    parts = [str(c.type.value)]
    if c.link is not None:
        most = f"{_speed(c.link.max_speed)} x{c.link.max_width}"
        now = f"{_speed(c.link.speed)} x{c.link.width}" if c.link.width else "down"
        parts.append(f"link {now}" if now == most or not c.link.max_width else f"link {now} of {most}")
    if c.slot is not None and c.slot_implemented:
        kinds = _of(c.slot, hot_plug_capable="hotplug", hot_plug_surprise="surprise", power_controller="power control")
        parts.append(" ".join([f"slot {c.slot.number}", *kinds, "occupied" if c.slot.presence else "empty"]))
    parts += _of(c.device, flr_capable="FLR")
    if c.device2 is not None:
        parts += _of(c.device2, ari_forwarding="ARI forwarding")
    return _join(parts)


def _power(c: Any) -> str:
    pme = [f"D{state}" for state, field in enumerate(("pme_d0", "pme_d1", "pme_d2")) if getattr(c, field)]
    pme += _of(c, pme_d3hot="D3hot", pme_d3cold="D3cold")
    return _join(
        [
            f"D{c.power_state}",
            "no soft reset" if c.no_soft_reset else "D3hot resets",
            "PME from " + " ".join(pme) if pme else None,
        ]
    )


def _acs(c: Any) -> str:
    letters = [
        name + ("+" if getattr(c.enabled, field) else "-") for field, name in _ACS.items() if getattr(c.capable, field)
    ]
    return " ".join(letters) or "no service"


def _sriov(c: Any) -> str:
    return _join(
        [
            _on(c.vf_enabled),
            f"{c.num_vfs} of {c.total_vfs} VFs",
            f"first +{c.first_vf_offset} stride {c.vf_stride}",
            f"device {c.vf_device:04x}",
        ]
    )


def _rebar(c: Any) -> str:
    return _join(
        f"BAR {bar.index} {about(bar.size) if bar.size is not None else '?'}"
        + (f" of {about(bar.supported[0])}-{about(bar.supported[-1])}" if bar.supported else "")
        for bar in c.bars
    )


def _virtual_channels(c: Any) -> str:
    enabled = [f"VC{channel.id}" for channel in c.channels if channel.enabled]
    return _join([count(len(c.channels), "channel"), " ".join(enabled) or None])


def _aer(c: Any) -> str:
    logged = [error.value for error in (*c.uncorrectable_status, *c.correctable_status)]
    return "logged: " + _join(logged) if logged else ""


def _amd_iommu(c: Any) -> str:
    return _join([_on(c.enabled), f"at {c.base:#x}"])


def _pasid(c: Any) -> str:
    return _join([_on(c.enabled), f"{c.maximum_width} bits"])


DETAILS: dict[str, Callable[[Any], str]] = {
    "msi": _msi,
    "msi-x": _msix,
    "express": _express,
    "power-management": _power,
    "acs": _acs,
    "sriov": _sriov,
    "resizable-bars": _rebar,
    "vf-resizable-bars": _rebar,
    "virtual-channel": _virtual_channels,
    "multi-function-virtual-channel": _virtual_channels,
    "amd-iommu": _amd_iommu,
    "advanced-features": lambda c: _join(_of(c, flr_capable="FLR")),
    "subsystem-id": lambda c: f"{c.vendor:04x}:{c.device:04x}",
    "ats": lambda c: _join([_on(c.enabled), f"queue {c.invalidate_queue_depth}"]),
    "ari": lambda c: f"next function {c.next_function}",
    "pri": lambda c: _join([_on(c.enabled), f"{c.allocation} of {c.capacity} requests"]),
    "ptm": lambda c: _join([_on(c.enabled), *_of(c, requester="requester", responder="responder", root="root")]),
    "dpc": lambda c: "TRIGGERED" if c.triggered else _on(bool(c.trigger)),
    "serial-number": lambda c: str(c.serial_number),
    "vendor-specific": lambda c: f"{c.length} bytes",
    "vendor-specific-extended": lambda c: f"id {c.id:#06x} revision {c.revision}, {c.length} bytes",
    "virtio": lambda c: f"virtio {_VIRTIO.get(c.structure, c.structure)}, BAR {c.bar}+{c.bar_offset:#x} {size(c.size)}",
    "truncated": lambda c: "cut off",
    "ht-msi-mapping": lambda c: _join(["MSI mapping", _on(c.enabled)]),
    "ht-slave": lambda c: "slave",
    "ht-host": lambda c: "host",
    "ht-interrupt": lambda c: "interrupt discovery",
}
