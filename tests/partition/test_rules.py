# SPDX-License-Identifier: MIT
"""Each rule by hand: a machine that breaks it, the evidence, and the same machine put right."""

from __future__ import annotations

import struct
from typing import Any

import msgspec
import pytest

from dom0kit.address import Sbdf
from dom0kit.finding import RULES, Severity
from dom0kit.iommu.facts import IommuFacts, IommuKind, IommuUnit
from dom0kit.memory import MapFrom, MapRange, MemoryFacts
from dom0kit.partition import rules
from dom0kit.partition.check import check
from dom0kit.partition.document import read
from dom0kit.partition.ground import Ground
from dom0kit.partition.rules import Conflict
from dom0kit.pci.capabilities.ats import AddressTranslationServices
from dom0kit.pci.capabilities.express import Express
from dom0kit.pci.capabilities.pri import PageRequestInterface
from dom0kit.pci.config_space import decode_function
from dom0kit.pci.function import Bar, BarKind, Function, Rom
from dom0kit.plan import Backend
from dom0kit.processors import Processor, Processors, ProcessorState
from dom0kit.source.interface import RawFunction, SourceKind
from dom0kit.source.needs import Need
from dom0kit.xen import DomainKind, XenDomain, XenVersion
from tests.partition.machines import checked, platform, told
from tests.pci.machines import ACS, ENDPOINT, ROOT_PORT, function

PORT = function("0000:00:1c.0", express=ROOT_PORT, buses=(1, 1), acs=(ACS, ACS))
CARD = function("0000:01:00.0", express=ENDPOINT, flr=True)
NET = {"net": ["0000:01:00.0"]}


def replaced(function: Function, **fields: Any) -> Function:
    return msgspec.structs.replace(function, **fields)


def capability(function: Function, kind: type[msgspec.Struct], **fields: Any) -> Function:
    """With a capability whose other fields do not matter."""
    zeros = dict.fromkeys(kind.__struct_fields__, 0)
    return replaced(function, capabilities=(*function.capabilities, kind(**{**zeros, **fields})))


def two_functions() -> list[Function]:
    return [replaced(CARD, sbdf=Sbdf.parse(f"0000:01:00.{n}"), multifunction=True) for n in (0, 1)]


def the(conflicts: tuple[Conflict, ...], rule: str) -> Conflict:
    found = [each for each in conflicts if each.finding.rule == rule]
    assert len(found) == 1
    return found[0]


def test_a_card_alone_behind_a_port_with_acs_is_fine() -> None:
    assert told(checked(platform([PORT, CARD]), NET, needs=())) == {}


def test_every_conflict_has_evidence_and_two_ways_out() -> None:
    """Whatever can be wrong is wrong here."""
    machine = platform([PORT, *two_functions()], regions=[["0000:01:00.0"]])
    said = checked(machine, {"a": ["0000:01:00.0", "0000:00:1c.0", "0000:09:00.0"], "b": ["0000:01:00.0"]})
    assert len(said.conflicts) > 6
    for each in said.conflicts:
        assert each.finding.rule in RULES
        assert each.finding.message
        assert len(each.ways) == 2
        assert each.ways[0] != each.ways[1]


def test_the_rules_are_all_of_this_package() -> None:
    declared = {id for id in RULES if id.startswith("partition.")}
    used = {each.id for each in vars(rules).values() if isinstance(each, type(rules.GROUP))} - {"msi.shared-page"}
    assert declared == used


# --- devices ----------------------------------------------------------------------------------------------------------


def test_devices_that_are_not_what_the_file_says() -> None:
    other = function("0000:02:00.0", express=ENDPOINT, device=7, class_code=0x010802)
    port = function("0000:00:1d.0", express=ROOT_PORT, buses=(2, 2), acs=(ACS, ACS))
    ground = Ground(platform([PORT, CARD, port, other]))
    text = b"""
[[domain]]
name = "net"
device = [
  { path = "0000:00/1c.0/00.0", id = "1234:0001" },
  { path = "0000:00/1c.0/00.0", id = "1234:0007" },
  { path = "0000:00/1e.0/00.0", id = "1234:0007" },
  { id = "1234:0001" },
  { id = "1234:0007", class = "020000" },
]
"""
    said = {each.line: each for each in check(ground, read(text)).conflicts if each.is_error}
    assert {line: each.finding.rule for line, each in said.items()} == {
        6: "partition.device-mismatch",
        7: "partition.device-missing",
        8: "partition.device-ambiguous",
        9: "partition.device-missing",
    }
    there = '{ path = "0000:00/1d.0/00.0", id = "1234:0007", class = "010802" }'
    assert "id 1234:0001, not 1234:0007" in said[6].finding.message
    assert said[6].ways[0] == said[7].ways[0] == f"write where it is: {there}"
    assert "3 functions are id 1234:0001" in said[8].finding.message


def test_a_device_that_need_not_be_there() -> None:
    text = '[[domain]]\nname = "a"\ndevice = [{{ path = "{}", id = "1234:0007", optional = true }}]'
    gone = check(Ground(platform([PORT, CARD])), read(text.format("0000:00/1e.0").encode()))
    assert the(gone.conflicts, "partition.device-missing").finding.severity is Severity.INFO
    assert gone.feasible
    other = check(Ground(platform([PORT, CARD])), read(text.format("0000:00/1c.0/00.0").encode()))
    assert the(other.conflicts, "partition.device-mismatch").is_error


def test_an_address_is_turned_into_an_identity() -> None:
    conflict = the(checked(platform([PORT, CARD]), NET).conflicts, "partition.address-only")
    assert conflict.ways[0] == 'write { path = "0000:00/1c.0/00.0", id = "1234:0001", class = "020000" }'
    identity = conflict.ways[0].removeprefix("write ")
    said = check(Ground(platform([PORT, CARD])), read(f'[[domain]]\nname = "net"\ndevice = [{identity}]'.encode()))
    assert said.domains[0].functions == (Sbdf.parse("0000:01:00.0"),)
    assert "partition.address-only" not in [each.finding.rule for each in said.conflicts]


def test_a_function_in_two_domains() -> None:
    said = checked(platform([PORT, CARD]), {"a": ["0000:01:00.0"], "b": ["0000:01:00.0"]})
    assert told(said) == {"partition.device-twice": ["pci:0000:01:00.0"]}


# --- what stays -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("class_code", [0x060000, 0x060100, 0x080000, 0x080600, 0x080700])
def test_what_serves_the_machine_stays(class_code: int) -> None:
    host = function("0000:00:00.0", class_code=class_code, flr=True, express=9)
    assert told(checked(platform([host]), {"a": ["0000:00:00.0"]}), errors=True) == {
        "partition.function-stays": ["pci:0000:00:00.0"]
    }


def test_a_bridge_stays_and_what_is_behind_is_named() -> None:
    conflict = the(checked(platform([PORT, CARD]), {"a": ["0000:00:1c.0"]}).conflicts, "partition.function-stays")
    assert conflict.ways[1] == "give away what is behind it: 0000:01:00.0"


def test_what_dom0_runs_on_stays() -> None:
    needs = [Need(Sbdf.parse("0000:01:00.0"), "has the file system mounted at /")]
    conflict = the(checked(platform([PORT, CARD]), NET, needs=needs).conflicts, "partition.dom0-needs")
    assert conflict.finding.message == "0000:01:00.0 (1234:0001) has the file system mounted at /"
    assert conflict.is_error


def virtual() -> list[Function]:
    return [
        PORT,
        function("0000:01:00.0", express=ENDPOINT, flr=True, sriov=(4, 2, 1, 1)),
        *(
            function(f"0000:01:00.{n}", express=ENDPOINT, flr=True, attributes={"physfn": "0000:01:00.0"})
            for n in (1, 2)
        ),
    ]


def test_a_physical_function_stays_while_it_has_virtual_ones() -> None:
    said = checked(platform(virtual()), {"a": ["0000:01:00.1"], "b": ["0000:01:00.2"]})
    assert told(said) == {}
    said = checked(platform(virtual()), {"a": ["0000:01:00.0", "0000:01:00.1"]})
    assert told(said) == {"partition.physical-function": ["pci:0000:01:00.0"]}


# --- isolation --------------------------------------------------------------------------------------------------------


def test_the_kernels_group_counts_where_it_is_known() -> None:
    port = function("0000:00:1d.0", express=ROOT_PORT, buses=(2, 2), acs=(ACS, ACS))
    cards = [
        function(f"0000:0{bus}:00.0", express=ENDPOINT, flr=True, attributes={"iommu_group": "5"}) for bus in (1, 2)
    ]
    conflict = the(checked(platform([PORT, port, *cards]), NET).conflicts, "partition.group-split")
    assert conflict.finding.message.startswith(
        "the kernel's group 5 is one: dom0 has 0000:02:00.0; net has 0000:01:00.0"
    )
    assert conflict.ways[0] == "give the rest to net, too: 0000:02:00.0"


def test_a_trusted_domain_is_only_warned() -> None:
    machine = platform([PORT, *two_functions()], iommu=IommuFacts())
    said = checked(machine, NET)
    assert {"partition.no-iommu", "partition.group-split"} <= told(said, errors=True).keys()
    said = checked(machine, NET, "require_iommu = false")
    assert told(said, errors=True) == {}
    assert {"partition.no-iommu", "partition.group-split"} <= told(said).keys()


def test_no_iommu_is_a_fact_only_where_there_are_tables() -> None:
    machine = platform([PORT, CARD], iommu=IommuFacts(), tables=())
    said = checked(machine, NET)
    assert told(said, errors=True) == {}
    assert any("there are no ACPI tables" in each.finding.message for each in said.conflicts)


def test_under_pvh_xen_what_is_withheld_is_named() -> None:
    domain = XenDomain(DomainKind.PVH, XenVersion(4, 17), True)
    said = checked(platform([PORT, CARD], iommu=IommuFacts(), xen=domain), NET)
    assert told(said, errors=True) == {}
    assert any("IOMMU, reserved memory; Xen withholds" in each.finding.message for each in said.conflicts)


def test_a_function_that_no_unit_serves() -> None:
    unit = IommuUnit(
        index=0,
        kind=IommuKind.VT_D,
        segment=0,
        register_base=0xFED90000,
        register_bytes=4096,
        include_all=False,
        functions=(),
    )
    facts = IommuFacts(
        kind=IommuKind.VT_D, units=(unit,), uncovered=(Sbdf.parse("0000:01:00.0"),), interrupt_remapping=True
    )
    said = checked(platform([PORT, CARD], iommu=facts), NET)
    assert told(said, errors=True) == {"partition.iommu-uncovered": ["pci:0000:01:00.0"]}


def test_requests_that_are_not_checked() -> None:
    for kind in (AddressTranslationServices, PageRequestInterface):
        for enabled in (True, False):
            card = capability(CARD, kind, enabled=enabled)
            found = told(checked(platform([PORT, card]), NET))
            assert found == ({"partition.translated-requests": ["pci:0000:01:00.0"]} if enabled else {})


def test_phantom_functions() -> None:
    express = next(each for each in CARD.capabilities if isinstance(each, Express))
    device = msgspec.structs.replace(express.device, phantom_functions_enabled=True)
    card = replaced(CARD, capabilities=(msgspec.structs.replace(express, device=device),))
    assert told(checked(platform([PORT, card]), NET)) == {"partition.phantom-functions": ["pci:0000:01:00.0"]}


# --- memory -----------------------------------------------------------------------------------------------------------


def test_reserved_memory_needs_a_reason() -> None:
    machine = platform([PORT, CARD], regions=[["0000:01:00.0"]])
    assert told(checked(machine, NET), errors=True) == {"partition.reserved-memory": ["pci:0000:01:00.0"]}
    said = checked(machine, NET, 'relaxed_rmrr = "the remote console is off"')
    conflict = the(said.conflicts, "partition.reserved-memory")
    assert conflict.finding.severity is Severity.INFO
    assert "relaxed: the remote console is off" in conflict.finding.message


def test_memory_reserved_for_all_functions_keeps_none() -> None:
    machine = platform([PORT, CARD], regions=[["0000:01:00.0"]])
    assert machine.iommu is not None
    everybodys = msgspec.structs.replace(machine.iommu.reserved[0], all_functions=True)
    facts = msgspec.structs.replace(machine.iommu, reserved=(everybodys,))
    assert told(checked(msgspec.structs.replace(machine, iommu=facts), NET)) == {}


@pytest.mark.parametrize(("backend", "is_error"), [(Backend.LINUX, False), (Backend.XEN, True)])
def test_linux_gives_usb_controllers_and_displays_away_all_the_same(backend: Backend, is_error: bool) -> None:
    usb = replaced(CARD, class_code=0x0C0330)
    said = checked(platform([PORT, usb], regions=[["0000:01:00.0"]]), NET, backend=backend)
    assert the(said.conflicts, "partition.reserved-memory").is_error is is_error


# --- interrupts -------------------------------------------------------------------------------------------------------


def with_messages(address: str, messages: int, *, msix: bool = False) -> Function:
    """A function with MSI or MSI-X, behind the port or beside it."""
    config = bytearray(256)
    struct.pack_into("<HHHHI", config, 0, 0x1234, 1, 6, 0x10, 0x020000 << 8)
    config[0x34], config[0x3D] = 0x50, 1
    if msix:
        struct.pack_into("<BBHII", config, 0x50, 0x11, 0, messages - 1, 0, 0x800)
    else:
        struct.pack_into("<BBH", config, 0x50, 0x05, 0, 0x80 | (messages.bit_length() - 1) << 1)
    return decode_function(RawFunction(Sbdf.parse(address), bytes(config), {}))[0]


def test_a_line_of_two_domains() -> None:
    plain = [function(f"0000:00:0{n}.0", flr=True) for n in (2, 3)]
    lines = {17: ["0000:00:02.0", "0000:00:03.0"]}
    given = {"net": ["0000:00:02.0"]}
    said = checked(platform(plain, lines=lines), given)
    assert told(said, errors=True) == {"partition.gsi-shared": ["gsi:17"]}
    allowed = the(
        checked(platform(plain, lines=lines), given, "allow_shared_intx = true").conflicts, "partition.gsi-shared"
    )
    assert allowed.finding.severity is Severity.WARNING
    able = [plain[0], with_messages("0000:00:03.0", 1)]
    conflict = the(checked(platform(able, lines=lines), given).conflicts, "partition.gsi-shared")
    assert conflict.finding.severity is Severity.INFO
    assert conflict.ways[0] == "have their drivers use MSI, which these can: 0000:00:03.0"
    whole = checked(platform(plain, lines=lines), {"net": ["0000:00:02.0", "0000:00:03.0"]})
    assert "partition.gsi-shared" not in told(whole)


def test_a_bridge_that_no_driver_has_does_not_share_a_line() -> None:
    lines = {17: ["0000:00:1c.0", "0000:01:00.0"]}
    assert told(checked(platform([PORT, CARD], lines=lines), NET), errors=True) == {}
    driven = replaced(PORT, driver="pcieport")
    assert told(checked(platform([driven, CARD], lines=lines), NET), errors=True) == {
        "partition.gsi-shared": ["gsi:17"]
    }


def test_a_pin_that_cannot_be_silenced_shares_no_line() -> None:
    card = function("0000:00:02.0", vendor=0x10EC, device=0x8169, flr=True, express=9)
    other = function("0000:00:03.0", flr=True, express=9)
    both = {"net": ["0000:00:02.0", "0000:00:03.0"]}
    shared = checked(platform([card, other], lines={17: both["net"]}), both)
    assert told(shared) == {"partition.intx-masking": ["pci:0000:00:02.0"]}
    assert told(checked(platform([card, other], lines={17: ["0000:00:02.0"], 18: ["0000:00:03.0"]}), both)) == {}


def test_interrupts_that_no_remapper_checks() -> None:
    facts = IommuFacts(kind=IommuKind.VT_D, interrupt_remapping=False)
    assert told(checked(platform([PORT, CARD], iommu=facts), NET)) == {"partition.interrupts-not-remapped": ["iommu"]}


def cpus(count: int) -> Processors:
    each = [
        Processor(
            apic_id=n,
            uid=n,
            state=ProcessorState.ENABLED,
            in_madt=True,
            x2apic=False,
            cpu=n,
            proximity_domain=0,
            aml_path=None,
        )
        for n in range(count)
    ]
    return Processors(tuple(each), 0xFEE00000, None, None, None)


def test_a_domain_with_more_interrupts_than_it_may_have() -> None:
    machine = [with_messages("0000:00:02.0", 33, msix=True), with_messages("0000:00:03.0", 4)]
    given = {"net": ["0000:00:02.0", "0000:00:03.0"]}
    conflict = the(checked(platform(machine), given, "vectors = 36").conflicts, "partition.vectors")
    assert "may have 36, and its devices can use 37: 0000:00:02.0 33, 0000:00:03.0 4" in conflict.finding.message
    assert conflict.ways[0] == "raise the limit: vectors = 37"
    assert "partition.vectors" not in told(checked(platform(machine), given, "vectors = 37"))


def test_more_interrupts_than_the_machine_has_vectors() -> None:
    machine = [with_messages("0000:00:02.0", 210, msix=True)]
    given = {"net": ["0000:00:02.0"]}
    found = told(checked(platform(machine, processors=cpus(1)), given))
    assert "partition.vectors-machine" in found
    assert "partition.vectors-machine" not in told(checked(platform(machine, processors=cpus(2)), given))
    assert "partition.vectors-machine" not in told(
        checked(platform(machine, processors=cpus(1)), given, "vectors = 100")
    )


# --- pages ------------------------------------------------------------------------------------------------------------


def with_bar(address: str, base: int, size: int, **fields: Any) -> Function:
    return replaced(
        function(address, flr=True, express=9), bars=(Bar(0, BarKind.MEMORY32, base, False, size),), **fields
    )


def test_a_page_of_two_domains() -> None:
    machine = [with_bar("0000:00:02.0", 0xF000_0000, 256), with_bar("0000:00:03.0", 0xF000_0100, 256)]
    conflict = the(checked(platform(machine), {"a": ["0000:00:02.0"]}).conflicts, "partition.page-shared")
    assert (
        "the page at 0xf0000000 has BAR 0 of 0000:00:02.0 (a), BAR 0 of 0000:00:03.0 (dom0)" in conflict.finding.message
    )
    assert conflict.is_error
    assert told(checked(platform(machine), {"a": ["0000:00:02.0", "0000:00:03.0"]}), errors=True) == {}


@pytest.mark.parametrize(
    ("base", "size", "small"),
    [(0xF000_0000, 4096, False), (0xF000_0000, 4095, True), (0xF000_0800, 4096, True), (0, 256, False)],
)
def test_less_than_a_page(base: int, size: int, small: bool) -> None:
    found = told(checked(platform([with_bar("0000:00:02.0", base, size)]), {"a": ["0000:00:02.0"]}))
    assert ("partition.bar-below-page" in found) is small


def test_a_table_of_messages_beside_registers() -> None:
    card = with_messages("0000:00:02.0", 4, msix=True)
    bars = (Bar(0, BarKind.MEMORY32, 0xF000_0000, False, 2048), Bar(1, BarKind.MEMORY32, 0xF000_0800, False, 256))
    found = checked(platform([replaced(card, bars=bars)]), {"a": ["0000:00:02.0"]})
    assert [each.finding.severity for each in found.conflicts if each.finding.rule == "partition.msix-page"] == [
        Severity.WARNING
    ] * 2


def test_a_shadow_rom() -> None:
    card = replaced(CARD, class_code=0x030000, rom=Rom(0xC0000, False, 0x20000, virtual=True))
    assert told(checked(platform([PORT, card]), NET)) == {"partition.rom-shadow": ["pci:0000:01:00.0"]}


# --- reset ------------------------------------------------------------------------------------------------------------


def two_without_reset() -> list[Function]:
    acs = (ACS, ACS)
    return [PORT, *(function(f"0000:01:00.{n}", express=ENDPOINT, multifunction=True, acs=acs) for n in (0, 1))]


def test_a_bus_reset_that_others_forbid() -> None:
    conflict = the(checked(platform(two_without_reset()), NET).conflicts, "partition.no-reset")
    assert conflict.ways[0] == "give net what a bus reset would reset, too: 0000:01:00.1"
    assert "bus: 1 more on the bus behind 0000:00:1c.0" in conflict.finding.message
    assert told(checked(platform(two_without_reset()), {"net": ["0000:01:00.0", "0000:01:00.1"]})) == {}


def test_what_could_not_be_read_is_not_judged() -> None:
    for unread in (replaced(CARD, asleep=True), replaced(CARD, answers=False), replaced(CARD, config_bytes=64)):
        assert "partition.not-readable" in told(checked(platform([PORT, unread]), NET))


# --- places and means -------------------------------------------------------------------------------------------------


def test_a_device_of_another_node() -> None:
    machine = platform([PORT, replaced(CARD, numa_node=1)])
    assert told(checked(machine, NET, "numa_node = 0")) == {"partition.node": ["pci:0000:01:00.0"]}
    assert told(checked(machine, NET, "numa_node = 1")) == {}


def test_domains_larger_than_the_machine() -> None:
    ram = MemoryFacts((), (), (MapRange(0, (1 << 30) - 1, "System RAM"),), MapFrom.MEMMAP, ())
    ground = Ground(platform([PORT, CARD], memory=ram, processors=cpus(2)))
    for domain, expected in ((b"vcpus = 3", ["domain:a"]), (b'memory = "2G"', ["machine"]), (b'memory = "1G"', [])):
        assert told(check(ground, read(b'[[domain]]\nname = "a"\n' + domain))).get("partition.room", []) == expected


def test_a_segment_that_hypercalls_cannot_name() -> None:
    card = function("10000:00:02.0", flr=True)
    given = {"a": ["10000:00:02.0"]}
    assert told(checked(platform([card]), given, backend=Backend.XEN), errors=True) == {
        "partition.segment": ["pci:10000:00:02.0"]
    }
    assert told(checked(platform([card]), given, backend=Backend.LINUX), errors=True) == {}


def test_domains_of_another_hypervisor() -> None:
    text = b'[[domain]]\nname = "a"\nbackend = "xen"\n'
    assert told(check(Ground(platform([PORT])), read(text))) == {"partition.backend": ["domain:a"]}
    assert told(check(Ground(platform([PORT]), backend=Backend.XEN), read(text))) == {}


def test_what_a_text_of_lspci_does_not_tell() -> None:
    machine = platform([PORT, replaced(CARD, config_bytes=256)], kind=SourceKind.LSPCI, tables=())
    said = [e.finding.message for e in checked(machine, NET).conflicts if e.finding.rule == "partition.not-judged"]
    for part in (
        "no ACPI tables",
        "AML was not interpreted",
        "measured the BARs",
        "running kernel",
        "1 functions show",
    ):
        assert any(part in message for message in said)
