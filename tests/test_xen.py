# SPDX-License-Identifier: MIT
"""The domain that a kernel runs in, from its files and from Xen's answers, and what Xen does for it."""

from __future__ import annotations

from pathlib import Path

import pytest

import dom0kit
from dom0kit.abi import Physdev
from dom0kit.iommu.facts import IommuKind
from dom0kit.observation import observe
from dom0kit.source import contents
from dom0kit.source.in_memory import MemorySource
from dom0kit.source.interface import Source, SourceKind
from dom0kit.source.recognise import open_source
from dom0kit.xen import DomainKind, XenDomain, XenVersion, findings, from_answers
from dom0kit.xen import observe as domain_of
from tests.xen_views import seen_by

Q35 = Path(dom0kit.__file__).parent / "recordings" / "qemu-q35.d0k"
PV, PVH = DomainKind.PV, DomainKind.PVH


def files(**contents: str) -> MemorySource:
    named = {f"sys/hypervisor/{name.replace('__', '/')}": text.encode() for name, text in contents.items()}
    return MemorySource("files", SourceKind.RECORDING, files=named)


def test_from_the_kernels_files() -> None:
    dom0 = {"type": "xen\n", "properties__features": "000228f0\n", "version__major": "4\n", "version__minor": "17\n"}
    assert domain_of(files(**dom0, guest_type="PV\n")) == XenDomain(PV, XenVersion(4, 17), True)
    assert domain_of(files(**dom0)) == XenDomain(PV, XenVersion(4, 17), True), "before Linux 5.4"
    dom0["properties__features"] = "00012b05"
    assert domain_of(files(**dom0, guest_type="PVH")) == XenDomain(PVH, XenVersion(4, 17), True)
    assert domain_of(files(**dom0)) == XenDomain(PVH, XenVersion(4, 17), True)
    guest = domain_of(files(**(dom0 | {"properties__features": "00002705"}), guest_type="HVM"))
    assert guest == XenDomain(DomainKind.HVM, XenVersion(4, 17), False)


@pytest.mark.parametrize(
    "contents",
    [
        {},
        {"type": "kvm", "properties__features": "000228f0"},
        {"type": "xen"},
        {"type": "xen", "properties__features": "no number"},
        {"type": "xen", "properties__features": "f" * 100},
    ],
)
def test_from_files_that_do_not_say(contents: dict[str, str]) -> None:
    assert domain_of(files(**contents)) is None


def test_a_version_that_is_none() -> None:
    found = domain_of(files(type="xen", properties__features="000228f0", version__major="four", version__minor="17"))
    assert found == XenDomain(PV, None, True)


def test_from_xens_answers() -> None:
    assert from_answers(0x40011, 0x228F0) == XenDomain(PV, XenVersion(4, 17), True)
    assert from_answers(0x40014, 0x12B05) == XenDomain(PVH, XenVersion(4, 20), True)
    assert not from_answers(0x40011, 0x20F0).is_dom0


ALWAYS = {Physdev.PCI_MMCFG_RESERVED, Physdev.PCI_DEVICE_ADD, Physdev.PCI_DEVICE_REMOVE}
SINCE_4_20 = {Physdev.SETUP_GSI, Physdev.PCI_DEVICE_RESET, Physdev.MAP_PIRQ, Physdev.UNMAP_PIRQ}


@pytest.mark.parametrize(
    ("kind", "version", "available"),
    [
        (PV, XenVersion(4, 17), set(Physdev) - {Physdev.PCI_DEVICE_RESET}),
        (PV, XenVersion(4, 20), set(Physdev)),
        (PV, None, set(Physdev)),
        (PVH, XenVersion(4, 17), ALWAYS),
        (PVH, XenVersion(4, 19), ALWAYS),
        (PVH, XenVersion(4, 20), ALWAYS | SINCE_4_20),
        (PVH, XenVersion(5, 0), ALWAYS | SINCE_4_20),
        (PVH, None, ALWAYS | SINCE_4_20),
    ],
)
def test_which_operations_there_are(kind: DomainKind, version: XenVersion | None, available: set[Physdev]) -> None:
    domain = XenDomain(kind, version, True)
    assert {each for each in Physdev if domain.availability(each).available} == available
    for each in Physdev:
        assert bool(domain.availability(each).reason) != domain.availability(each).available


def test_a_guest_has_none() -> None:
    domain = XenDomain(PV, XenVersion(4, 17), False)
    assert not any(domain.availability(each).available for each in Physdev)
    assert [one.rule for one in findings(domain, set())] == ["xen.guest"]


def test_a_renamed_dmar_is_decoded() -> None:
    native = open_source(Q35)
    seen, whole = observe(seen_by("PV", native), aml=False), observe(native, aml=False)
    assert "RMAD" in {table.signature for table in seen.tables}
    assert seen.iommu is not None
    assert seen.iommu.kind is IommuKind.VT_D
    assert seen.iommu == whole.iommu
    assert seen.groups == whole.groups
    assert [(one.rule, one.where) for one in seen.findings if one.rule.startswith("xen.")] == [
        ("xen.dmar-renamed", "table:RMAD"),
        ("xen.virtual-processors", "machine"),
    ]
    assert any(table.name == "RMAD" and table.checksum_ok for table in seen.tables)


def test_a_pvh_dom0_is_told_what_it_misses() -> None:
    seen = observe(seen_by("PVH", open_source(Q35)), aml=False)
    assert seen.xen == XenDomain(PVH, XenVersion(4, 17), True)
    assert seen.iommu is not None
    assert seen.iommu.kind is None
    assert "xen.tables-rebuilt" in {one.rule for one in seen.findings}
    assert "xen.tables-rebuilt" not in {one.rule for one in observe(open_source(Q35), aml=False).findings}


def test_virtual_processors_are_no_processors_of_the_machine() -> None:
    """A PV dom0 with fewer, and with APIC ids that mean nothing."""
    native = open_source(Q35)
    files = {"sys/devices/system/cpu/present": b"0\n", "sys/devices/system/cpu/possible": b"0\n"}
    cpuinfo = b"processor\t: 0\napicid\t\t: 1\n\n"
    seen = observe(changed_files(seen_by("PV", native), files | {"proc/cpuinfo": cpuinfo}), aml=False)
    assert [one.message for one in seen.findings if one.rule.startswith(("cpu.", "xen.v"))] == [
        "the PV dom0 has processors 0"
    ]
    assert seen.processors is not None
    assert len(seen.processors.processors) > 1
    assert {each.cpu for each in seen.processors.processors} == {None}
    bare = observe(changed_files(native, files), aml=False)
    assert "cpu.kernel-differs" in {one.rule for one in bare.findings}


def changed_files(source: Source, files: dict[str, bytes]) -> MemorySource:
    every = dict(contents.files_of(source)) | files
    return MemorySource("changed", source.kind, tables=source.tables(), functions=source.functions(), files=every)
