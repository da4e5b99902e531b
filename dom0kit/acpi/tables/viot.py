# SPDX-License-Identifier: MIT
"""VIOT: paravirtual IOMMUs and what they serve (ACPI 6.5, section 5.2.34)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

from dom0kit.acpi.tables.table import Header
from dom0kit.finding import Severity, rule
from dom0kit.layout import U16, U32, U64, OpenRecord, Rest, Unknown, entries, raw
from dom0kit.serial import Hex
from dom0kit.walker import Notes

NODES: Final = rule(
    "acpi.viot-nodes",
    Severity.WARNING,
    title="the VIOT miscounts its nodes",
    meaning="The number or the offset of the nodes in the header is not that of the nodes that follow it.",
    advice="Update the firmware or hypervisor that made the table.",
    specification="ACPI 6.5, table 5.157: node count and node offset",
)


class PciRange(OpenRecord, frozen=True, kw_only=True, tag="pci-range"):
    """PCI functions and the node that they go through (table 5.159)."""

    TYPE: ClassVar[int] = 1
    reserved: Annotated[Hex, raw(1)] = "00"
    endpoint_start: U32
    segment_start: U16
    segment_end: U16
    bdf_start: U16
    bdf_end: U16
    """Inclusive."""
    output_node: U16
    """Offset of the node in the table."""
    reserved2: Annotated[Hex, raw(6)] = "000000000000"


class MmioEndpoint(OpenRecord, frozen=True, kw_only=True, tag="mmio-endpoint"):
    """One MMIO endpoint and the node that it goes through (table 5.160)."""

    TYPE: ClassVar[int] = 2
    reserved: Annotated[Hex, raw(1)] = "00"
    endpoint: U32
    base_address: U64
    output_node: U16
    reserved2: Annotated[Hex, raw(6)] = "000000000000"


class VirtioIommuPci(OpenRecord, frozen=True, kw_only=True, tag="virtio-iommu-pci"):
    """A virtio-iommu that is a PCI function (table 5.161)."""

    TYPE: ClassVar[int] = 3
    reserved: Annotated[Hex, raw(1)] = "00"
    segment: U16
    bdf: U16
    reserved2: U64 = 0


class VirtioIommuMmio(OpenRecord, frozen=True, kw_only=True, tag="virtio-iommu-mmio"):
    """A virtio-iommu in memory (table 5.162)."""

    TYPE: ClassVar[int] = 4
    reserved: Annotated[Hex, raw(1)] = "00"
    reserved2: U32 = 0
    base_address: U64


ViotNode = PciRange | MmioEndpoint | VirtioIommuPci | VirtioIommuMmio | Unknown | Rest


class Viot(OpenRecord, frozen=True, kw_only=True, tag="viot"):
    """Virtual I/O Translation Table."""

    node_count: U16
    node_offset: U16
    """From the start of the table: 48."""
    reserved: U64 = 0
    nodes: Annotated[tuple[ViotNode, ...], entries(type=1, length_at=2, length=2)]


def check(viot: Viot, header: Header, notes: Notes) -> None:
    """Count and offset of the nodes."""
    count = sum(not isinstance(node, Rest) for node in viot.nodes)
    if viot.node_count != count or viot.node_offset != 48:
        notes.add(
            NODES,
            f"{viot.node_count} nodes at offset {viot.node_offset} by the header; {count} were found at offset 48",
        )
