# SPDX-License-Identifier: MIT
"""Every step of the observation has its say: a recorded machine with one thing wrong at a time, and what is found."""

from __future__ import annotations

import errno
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dom0kit
from dom0kit.acpi import aml, aml_launch
from dom0kit.address import Sbdf
from dom0kit.finding import Finding, Severity
from dom0kit.ioapic import controllers
from dom0kit.ioapic.controllers import PinsFrom
from dom0kit.observation import describe, observe
from dom0kit.part import Part
from dom0kit.pci import config_space
from dom0kit.platform import Platform
from dom0kit.source.contents import files_of
from dom0kit.source.findings import DAMAGED
from dom0kit.source.fingerprint import fingerprint
from dom0kit.source.in_memory import MemorySource
from dom0kit.source.interface import RawFunction, RawTable, SourceKind
from dom0kit.source.recognise import open_source
from tests.acpi.asl import needs_interpreter

RECORDING = Path(dom0kit.__file__).parent / "recordings" / "qemu-q35.d0k"


class Machine:
    """The recorded machine in pieces that can be changed before it is put together again."""

    def __init__(self) -> None:
        source = recording()
        self.tables = {table.name: bytearray(table.data) for table in source.tables()}
        self.config = {str(function.sbdf): bytearray(function.config) for function in source.functions()}
        self.attributes = {str(function.sbdf): dict(function.attributes) for function in source.functions()}
        self.files = dict(files_of(source))
        self.findings: list[Finding] = []
        self.kind = SourceKind.RECORDING

    def source(self) -> MemorySource:
        return MemorySource(
            "broken",
            self.kind,
            tables=[RawTable(name, bytes(data)) for name, data in self.tables.items()],
            functions=[
                RawFunction(Sbdf.parse(address), bytes(config), self.attributes[address])
                for address, config in self.config.items()
            ],
            files=self.files,
            findings=self.findings,
        )

    def replace(self, path: str, old: bytes, new: bytes) -> None:
        """Other text in a file of the kernel's."""
        assert old in self.files[path]
        self.files[path] = self.files[path].replace(old, new)


@functools.cache
def recording() -> MemorySource:
    source = open_source(RECORDING)
    assert isinstance(source, MemorySource)
    return source


@functools.cache
def unbroken(*, aml: bool) -> Platform:
    return observe(Machine().source(), aml=aml)


def wrong_checksum(machine: Machine) -> None:
    machine.tables["WAET"][9] ^= 1


def second_mcfg(machine: Machine) -> None:
    machine.tables["MCFG2"] = machine.tables["MCFG"]


def capability_loop(machine: Machine) -> None:
    config = machine.config["0000:00:1f.2"]
    config[config[0x34] + 1] = config[0x34]


def other_primary_bus(machine: Machine) -> None:
    machine.config["0000:06:00.0"][0x18] = 5


def short_ecam(machine: Machine) -> None:
    machine.tables["MCFG"][55] = 0xC0


def bar_elsewhere(machine: Machine) -> None:
    machine.config["0000:07:03.0"][0x10:0x14] = (0x1000_0000).to_bytes(4, "little")


def other_group(machine: Machine) -> None:
    machine.attributes["0000:01:00.0"]["iommu_group"] = "11"


def other_reset(machine: Machine) -> None:
    machine.attributes["0000:07:03.0"]["reset_method"] = "pm"


def unknown_ioapic_in_dmar(machine: Machine) -> None:
    machine.tables["DMAR"][68] = 7


def odd_ioapic_address(machine: Machine) -> None:
    machine.tables["APIC"][64] |= 4


def override_of_no_isa_interrupt(machine: Machine) -> None:
    machine.tables["APIC"][75] = 16


def other_ioapic_of_the_kernel(machine: Machine) -> None:
    machine.replace("dmesg", b"address 0xfec00000", b"address 0xfec01000")


def other_pin_of_the_kernel(machine: Machine) -> None:
    machine.replace("sys/kernel/irq/8/hwirq", b"8", b"7")


def no_bus_master(machine: Machine) -> None:
    machine.config["0000:02:00.0"][4] &= ~4


def no_message_of_the_kernel(machine: Machine) -> None:
    del machine.attributes["0000:02:00.0"]["msi_irqs"]


def low_vector(machine: Machine) -> None:
    """A message in compatibility format."""
    machine.config["0000:02:00.0"][0x74:0x7A] = b"\x00\x00\xe0\xfe\x05\x00"


def apic_id_twice(machine: Machine) -> None:
    machine.tables["APIC"][55] = 0


def other_processor_of_the_kernel(machine: Machine) -> None:
    machine.replace("proc/cpuinfo", b"apicid\t\t: 1", b"apicid\t\t: 9")


def memory_twice(machine: Machine) -> None:
    machine.files["sys/firmware/memmap/1/start"] = b"0x0\n"


def damaged_source(machine: Machine) -> None:
    machine.findings.append(DAMAGED.at("source", "it was in the mail"))


@pytest.mark.parametrize(
    ("change", "rule", "where"),
    [
        (wrong_checksum, "acpi.table-checksum", "table:WAET"),
        (second_mcfg, "acpi.table-duplicate", "tables"),
        (capability_loop, "pci.capability-loop", "pci:0000:00:1f.2"),
        (other_primary_bus, "pci.bus-primary", "pci:0000:06:00.0"),
        (short_ecam, "pci.ecam-uncovered", "pci-segment:0000"),
        (bar_elsewhere, "pci.bar-outside-window", "pci:0000:07:03.0"),
        (other_group, "pci.isolation-differs", "pci:0000:01:00.0"),
        (other_reset, "pci.reset-differs", "pci:0000:07:03.0"),
        (unknown_ioapic_in_dmar, "iommu.ioapic-unknown", "iommu:0"),
        (odd_ioapic_address, "ioapic.bad-address", "ioapic:0"),
        (override_of_no_isa_interrupt, "ioapic.override-source", "table:APIC"),
        (other_ioapic_of_the_kernel, "ioapic.kernel-ioapics", "ioapic:0"),
        (other_pin_of_the_kernel, "ioapic.kernel-isa", "isa:8"),
        (no_bus_master, "msi.no-bus-master", "pci:0000:02:00.0"),
        (no_message_of_the_kernel, "msi.kernel-differs", "pci:0000:02:00.0"),
        (low_vector, "msi.vector", "pci:0000:02:00.0"),
        (apic_id_twice, "cpu.duplicate-apic-id", "table:APIC"),
        (other_processor_of_the_kernel, "cpu.kernel-differs", "cpu:1"),
        (memory_twice, "memory.map-overlap", "memory map"),
        (damaged_source, "source.damaged", "source"),
    ],
)
def test_what_is_wrong_is_found_where_it_is(change: Callable[[Machine], None], rule: str, where: str) -> None:
    machine = Machine()
    change(machine)
    found = {(finding.rule, finding.where) for finding in observe(machine.source(), aml=False).findings}
    assert (rule, where) in found
    assert (rule, where) not in {(finding.rule, finding.where) for finding in unbroken(aml=False).findings}


def rejected_table(machine: Machine) -> None:
    machine.tables["SSDT"] = bytearray(b"SSDT\xff\xff\0\0" + bytes(28))


def gsis_elsewhere(machine: Machine) -> None:
    machine.tables["APIC"][68] = 100


def other_route_of_the_kernel(machine: Machine) -> None:
    """A function without MSI whose interrupt the kernel has on pin 23, not 21."""
    machine.config["0000:00:01.0"][0x9B] &= 0x7F
    del machine.attributes["0000:00:01.0"]["msi_irqs"]
    machine.replace("sys/kernel/irq/21/hwirq", b"21", b"23")


@needs_interpreter
@pytest.mark.parametrize(
    ("change", "rule", "where"),
    [
        (rejected_table, "aml.table-rejected", "table:SSDT"),
        (gsis_elsewhere, "ioapic.gsi-beyond", "pci:0000:00:01.0"),
        (other_route_of_the_kernel, "ioapic.kernel-route", "pci:0000:00:01.0"),
    ],
)
def test_so_is_what_only_the_namespace_tells(change: Callable[[Machine], None], rule: str, where: str) -> None:
    machine = Machine()
    change(machine)
    found = {(finding.rule, finding.where) for finding in observe(machine.source()).findings}
    assert (rule, where) in found
    assert (rule, where) not in {(finding.rule, finding.where) for finding in unbroken(aml=True).findings}


def test_findings_are_of_the_platform_and_not_of_its_tables() -> None:
    machine = Machine()
    wrong_checksum(machine)
    machine.tables["XXXX"] = machine.tables["WAET"]
    assert all(table.findings == () for table in observe(machine.source(), aml=False).tables)


def test_findings_come_by_weight_then_rule_then_place_each_once() -> None:
    machine = Machine()
    for change in (no_bus_master, capability_loop, odd_ioapic_address, wrong_checksum, damaged_source, damaged_source):
        change(machine)
    findings = observe(machine.source(), aml=False).findings
    weights = list(Severity)
    assert list(findings) == sorted(findings, key=lambda each: (-weights.index(each.severity), each.rule, each.where))
    assert len(findings) == len(set(findings))


@pytest.mark.parametrize(
    ("end_bus", "uncovered"), [(0xC1, False), (0xC0, True)], ids=["to the last bus", "all but the last bus"]
)
def test_ecam_reaches_to_the_last_bus_that_the_mcfg_names(end_bus: int, uncovered: bool) -> None:
    machine = Machine()
    machine.tables["MCFG"][55] = end_bus
    rules = {finding.rule for finding in observe(machine.source(), aml=False).findings}
    assert ("pci.ecam-uncovered" in rules) is uncovered


def test_what_the_iommus_table_says_counts_for_the_groups() -> None:
    """Functions of AMD's SB8x0 south bridge do not reach each other beside an AMD IOMMU (pci/quirks/isolation.toml)."""
    source = open_source(RECORDING.with_name("synthetic-amd.d0k"))
    ids = {Sbdf(0, 0, 0x14, 0): b"\x02\x10\x85\x43", Sbdf(0, 0, 0x14, 3): b"\x02\x10\x9d\x43"}
    functions = [
        RawFunction(each.sbdf, ids.get(each.sbdf, each.config[:4]) + each.config[4:], each.attributes)
        for each in source.functions()
    ]

    def alone(tables: list[RawTable]) -> bool:
        machine = MemorySource("x", SourceKind.COMBINED, tables=tables, functions=functions)
        return any(group.functions == (Sbdf(0, 0, 0x14, 3),) for group in observe(machine, aml=False).groups)

    assert alone(list(source.tables()))
    assert not alone([table for table in source.tables() if table.name != "IVRS"])


@pytest.mark.parametrize(
    ("kind", "told"), [(SourceKind.LIVE, True), (SourceKind.RECORDING, True), (SourceKind.COMBINED, False)]
)
def test_only_a_source_that_has_the_kernels_word_is_held_against_it(kind: SourceKind, told: bool) -> None:
    machine = Machine()
    machine.kind = kind
    no_message_of_the_kernel(machine)
    rules = {finding.rule for finding in observe(machine.source(), aml=False).findings}
    assert ("msi.kernel-differs" in rules) is told


def test_messages_under_xen_are_somebody_elses() -> None:
    machine = Machine()
    low_vector(machine)
    machine.files["sys/kernel/irq/40/chip_name"] = b"xen-pirq\n"
    assert "msi.vector" not in {finding.rule for finding in observe(machine.source(), aml=False).findings}


def test_the_boot_log_tells_an_ioapics_pins() -> None:
    machine = Machine()
    machine.replace("dmesg", b"GSI 0-23", b"GSI 0-39")
    (ioapic,) = observe(machine.source(), aml=False).ioapics
    assert (ioapic.pins, ioapic.pins_from, ioapic.version) == (40, PinsFrom.BOOT_LOG, 32)


@needs_interpreter
def test_the_routed_gsis_are_told_to_who_counts_pins(monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, Any] = {}
    real = controllers.observe

    def noting(*arguments: Any, **keywords: Any) -> Any:
        told.update(keywords, gsis=set(keywords["gsis"]))
        return real(*arguments, **keywords)

    monkeypatch.setattr(controllers, "observe", noting)
    observe(recording(), only=Part.INTERRUPTS)
    assert {11, 16, 21, 22, 23} <= told["gsis"]


def test_the_value_says_where_it_is_from_and_which_machine_it_is() -> None:
    source = Machine().source()
    origin = observe(source, aml=False).origin
    assert (origin.name, origin.kind, origin.is_live) == ("broken", SourceKind.RECORDING, False)
    assert origin.fingerprint == fingerprint(source)
    source.is_live = True
    assert observe(source, aml=False).origin.is_live
    assert observe(source, aml=False, only=Part.CPUS).origin.fingerprint == origin.fingerprint


def test_parts_are_named_in_order() -> None:
    assert observe(recording(), aml=False).parts == tuple(Part)
    assert observe(recording(), aml=False, only="memory").parts == (Part.MEMORY,)
    with pytest.raises(ValueError, match="disks"):
        observe(recording(), aml=False, only="disks")


def test_a_part_does_not_cost_what_it_does_not_need(monkeypatch: pytest.MonkeyPatch) -> None:
    def needless(*_: object) -> None:
        raise AssertionError("not needed")

    monkeypatch.setattr(aml_launch, "Launch", needless)
    observe(recording(), only=Part.PCI)
    observe(recording(), aml=False)
    observe(MemorySource("x", SourceKind.LSPCI, functions=recording().functions()))
    monkeypatch.setattr(config_space, "decode_function", needless)
    for part in (Part.ACPI, Part.CPUS, Part.MEMORY):
        observe(recording(), aml=False, only=part)


@needs_interpreter
def test_each_step_is_announced() -> None:
    steps: list[str] = []
    observe(recording(), progress=steps.append)
    assert steps == ["reading", "decoding", "interpreting AML", "routing interrupts"]


@needs_interpreter
def test_a_bug_in_the_interpretation_is_raised_where_it_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*launched: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(aml, "interpret_launched", broken)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        observe(recording())


@needs_interpreter
@pytest.mark.parametrize("times", [1, 9], ids=["once", "always"])
def test_an_interpreter_that_cannot_be_started_is_tried_again_and_then_told(
    times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = aml_launch.Launch.start
    tried: list[int] = []

    def busy(launch: aml_launch.Launch) -> None:
        tried.append(1)
        if len(tried) <= times:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        real(launch)

    monkeypatch.setattr(aml_launch.Launch, "start", busy)
    platform = observe(recording())
    if times == 1:
        assert platform.namespace == unbroken(aml=True).namespace
    else:
        assert platform.namespace is None
        (told,) = [finding for finding in platform.findings if finding.rule == "aml.interpreter-stopped"]
        assert "Resource temporarily unavailable" in told.message


def header(signature: bytes, oem: bytes, table: bytes) -> RawTable:
    """A table of nothing but a header."""
    data = signature + (36).to_bytes(4, "little") + b"\x01\0" + oem.ljust(6) + table.ljust(8) + bytes(12)
    return RawTable(signature.decode(), data)


def test_a_machine_is_named_by_dmi() -> None:
    machine = unbroken(aml=False).machine
    assert (machine.vendor, machine.product, machine.version) == (
        "QEMU",
        "Standard PC (Q35 + ICH9, 2009)",
        "pc-q35-7.2",
    )
    assert machine.firmware == "SeaBIOS 1.16.2-debian-1.16.2-1 04/01/2014"
    assert (machine.board, machine.kernel, machine.hypervisor) == (None, "6.1.0-56", None)
    folder = "sys/class/dmi/id"
    files = {
        f"{folder}/board_vendor": b"Board Maker\n",
        f"{folder}/board_name": b" B450 \n",
        f"{folder}/bios_date": b"01/02/2003\n",
        f"{folder}/sys_vendor": b"\n",
        "sys/hypervisor/type": b"xen\n",
        "proc/version": b"Linux version 6.18.44-xen redacted\n",
    }
    bare = describe(MemorySource("x", SourceKind.RECORDING, files=files), ())
    assert (bare.board, bare.firmware, bare.vendor) == ("Board Maker B450", "01/02/2003", None)
    assert (bare.hypervisor, bare.kernel, bare.oem) == ("xen", "6.18.44-xen", None)


@pytest.mark.parametrize(
    ("signatures", "oem"),
    [
        ((b"APIC", b"DSDT", b"FACP", b"SSDT"), "FACP O FACPTABL"),
        ((b"APIC", b"DSDT", b"SSDT"), "DSDT O DSDTTABL"),
        ((b"SSDT", b"APIC"), "SSDT O SSDTTABL"),
        ((), None),
    ],
    ids=["the FADT", "the DSDT", "what comes first", "nothing"],
)
def test_without_dmi_it_is_named_by_a_tables_maker(signatures: tuple[bytes, ...], oem: str | None) -> None:
    tables = [header(signature, signature + b" O", signature + b"TABL") for signature in signatures]
    named = observe(MemorySource("x", SourceKind.TABLE_FOLDER, tables=tables), aml=False).machine.oem
    assert named == oem


def test_of_several_tables_of_a_signature_the_first_counts() -> None:
    tables = [header(b"FACP", b"FIRST", b"ONE"), header(b"FACP", b"SECOND", b"TWO")]
    source = MemorySource("x", SourceKind.TABLE_FOLDER, tables=tables)
    assert observe(source, aml=False).machine.oem == "FIRST ONE"
