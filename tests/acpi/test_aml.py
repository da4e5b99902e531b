# SPDX-License-Identifier: MIT
"""AML by acpiexec: our own ASL, with config space that we make up, evaluated."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import dom0kit.acpi
from dom0kit.acpi import aml
from dom0kit.acpi.aml import Buffer, Integer, Package, Reference, String, evaluate, interpret
from dom0kit.acpi.namespace import AmlDevice, Namespace, RegionAccess, pci_addresses
from dom0kit.acpi.tables.common import AddressSpace
from dom0kit.address import Sbdf
from dom0kit.serial import decode, encode
from dom0kit.source.interface import RawTable
from tests.acpi.asl import needs_acpica, table

pytestmark = needs_acpica

HOST, LPC, PORT = Sbdf(0, 0, 0, 0), Sbdf(0, 0, 0x1F, 0), Sbdf(0, 0, 0x1C, 0)
BEHIND = Sbdf(0, 5, 0, 0)


def config(**bytes_at: int) -> bytes:
    """256 bytes of config space: `x60=0x0B` sets offset 0x60."""
    data = bytearray(256)
    for name, value in bytes_at.items():
        data[int(name[1:], 16)] = value
    return bytes(data)


MACHINE = {
    HOST: config(x60=0x11, xb0=0x5A),
    PORT: config(xe=1, x19=5, x1a=5),
    BEHIND: config(x40=0x77, x60=0x11),
    LPC: config(x60=0x0B, x61=0x80),
}

BOARD = r"""
Method (_PIC, 1) { Store (Arg0, APIC) }
Name (APIC, 0)
Scope (\_SB) {
    Device (PCI0) {
        Name (_HID, EisaId ("PNP0A08"))
        Name (_CID, EisaId ("PNP0A03"))
        Name (_UID, "root")
        OperationRegion (HOST, PCI_Config, 0, 0x100)
        Field (HOST, ByteAcc, NoLock, Preserve) { Offset (0x60), H060, 8, Offset (0xB0), H0B0, 8 }
        Method (_BBN) { Return (0) }
        Method (_OSC, 4) { Return (Arg3) }
        Name (CRSB, ResourceTemplate () {
            WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode, 0, 0, 0xFF, 0, 0x100)
            DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, Cacheable, ReadWrite,
                0, 0xB0000000, 0xDFFFFFFF, 0, 0x30000000, , , WIN0)
        })
        Method (_CRS, 0, Serialized) {
            CreateDWordField (CRSB, \_SB.PCI0.WIN0._MIN, WMIN)
            CreateDWordField (CRSB, \_SB.PCI0.WIN0._LEN, WLEN)
            WMIN = H0B0 << 24
            WLEN = 0xE0000000 - WMIN
            Return (CRSB)
        }
        Method (_PRT) {
            If (APIC) { Return (Package () { Package () { 0x1CFFFF, 0, 0, 16 }, Package () { 0x1FFFFF, 1, LNKA, 0 } }) }
            Return (Package () { Package () { 0x1CFFFF, 0, LNKA, 0 } })
        }
        Device (LPCB) {
            Name (_ADR, 0x1F0000)
            OperationRegion (PIRQ, PCI_Config, 0x60, 4)
            Field (PIRQ, ByteAcc, NoLock, Preserve) { PIRA, 8, PIRB, 8 }
        }
        Device (LNKA) {
            Name (_HID, EisaId ("PNP0C0F"))
            Name (_UID, 1)
            Name (_PRS, ResourceTemplate () { IRQ (Level, ActiveLow, Shared) { 10, 11 } })
            Method (_STA) { If (^^LPCB.PIRA & 0x80) { Return (9) } Return (0xB) }
            Name (BUF0, ResourceTemplate () { IRQ (Level, ActiveLow, Shared) { } })
            Method (_CRS, 0, Serialized) {
                CreateWordField (BUF0, 1, IRQW)
                IRQW |= 1 << (^^LPCB.PIRA & 0xF)
                Return (BUF0)
            }
        }
        Device (RP01) {
            Name (_ADR, 0x1C0000)
            Device (DEV0) {
                Name (_ADR, 0)
                Name (_SUN, 7)
                OperationRegion (DCFG, PCI_Config, 0, 0x100)
                Field (DCFG, ByteAcc, NoLock, Preserve) { Offset (0x40), D040, 8, Offset (0x60), D060, 8 }
                Method (_STA) { Return (D040) }
                Method (_RMV) { Return (D060 + H060) }
            }
            Device (GONE) {
                Name (_ADR, 0x10000)
                OperationRegion (GCFG, PCI_Config, 0, 4)
                Field (GCFG, DWordAcc, NoLock, Preserve) { GVID, 32 }
                Method (_STA) { If (GVID == 0xFFFFFFFF) { Return (0) } Return (0xF) }
                Method (_EJ0, 1) { }
            }
        }
        Device (MEMD) {
            Name (_HID, "ACPI0003")
            OperationRegion (MMIO, SystemMemory, 0xFED00000, 0x10)
            Field (MMIO, DWordAcc, NoLock, Preserve) { M000, 32, M004, 32, M008, 32 }
            Method (_STA) { M008 = 5 Return (M000 | M004 | 0xF) }
            Method (_DSM, 4) { Return (Buffer () { 0 }) }
        }
    }
}
"""


@pytest.fixture(scope="module")
def board() -> Namespace:
    return interpret([table(BOARD)], MACHINE)


def device(namespace: Namespace, path: str) -> AmlDevice:
    found = namespace.device(path)
    assert found is not None
    return found


def test_devices_are_what_asl_says(board: Namespace) -> None:
    root = device(board, "\\_SB.PCI0")
    assert (root.hid, root.cids, root.uid, root.bbn) == ("PNP0A08", ("PNP0A03",), "root", 0)
    assert root.is_root_bridge
    assert root.has_osc
    assert not root.has_dsm
    assert device(board, "\\_SB.PCI0.LNKA").is_link
    assert device(board, "\\_SB.PCI0.LNKA").uid == 1
    assert device(board, "\\_SB.PCI0.LPCB").adr == 0x1F0000
    assert device(board, "\\_SB.PCI0.RP01.DEV0").sun == 7
    assert device(board, "\\_SB.PCI0.RP01.GONE").has_ej0
    assert device(board, "\\_SB.PCI0.MEMD").has_dsm
    assert board.findings == ()
    assert decode(encode(board), Namespace) == board


def test_objects_and_regions_carry_no_addresses_of_the_interpreter(board: Namespace) -> None:
    assert not [found for found in board.objects if "0x" in found.detail or "(nil)" in found.detail]
    assert not [found for found in board.objects if found.path.startswith("\\DK")]
    region = next(found for found in board.regions if found.path == "\\_SB.PCI0.MEMD.MMIO")
    assert (region.space, region.address, region.length) == (AddressSpace.SYSTEM_MEMORY, 0xFED00000, 0x10)
    assert interpret([table(BOARD)], MACHINE) == board


def test_apic_mode_is_told_before_the_routing_is_asked(board: Namespace) -> None:
    prt = device(board, "\\_SB.PCI0").prt
    assert prt is not None
    assert [(entry.device, entry.source, entry.source_index) for entry in prt] == [
        (0x1C, None, 16),
        (0x1F, "\\_SB.PCI0.LNKA", 0),
    ]
    assert board.apic_mode is not None
    assert board.apic_mode.ok


def test_each_function_reads_its_own_config_space(board: Namespace) -> None:
    root = device(board, "\\_SB.PCI0")
    assert root.crs is not None
    assert getattr(root.crs[1], "minimum", None) == 0x5A000000
    crs = root.evaluation("_CRS")
    assert crs is not None
    assert (crs.config, crs.depends, crs.mixed) == ((HOST,), (), False)
    link = device(board, "\\_SB.PCI0.LNKA")
    assert link.sta == 0xB
    assert getattr(link.crs and link.crs[0], "irqs", None) == (11,)
    status = link.evaluation("_STA")
    assert status is not None
    assert (status.config, status.certain) == ((LPC,), True)
    assert device(board, "\\_SB.PCI0.RP01.DEV0").sta == 0x77


def test_a_patched_buffer_shows_nothing_of_a_first_try() -> None:
    # With the host bridge's byte 0x60 in the array, LNKA's first _CRS sets bit 1 of its named buffer for good.
    namespace = interpret([table(BOARD)], MACHINE)
    link = device(namespace, "\\_SB.PCI0.LNKA")
    assert getattr(link.crs and link.crs[0], "irqs", None) == (11,)


def test_a_function_that_is_not_there_reads_as_ones(board: Namespace) -> None:
    assert device(board, "\\_SB.PCI0.RP01.GONE").sta == 0


def test_two_functions_at_one_offset_are_mixed() -> None:
    machine = {**MACHINE, BEHIND: config(x40=0x77, x60=0x22)}
    namespace = interpret([table(BOARD)], machine)
    found = device(namespace, "\\_SB.PCI0.RP01.DEV0").evaluation("_RMV")
    assert found is not None
    assert found.mixed
    assert not found.certain
    assert found.config == (HOST, BEHIND)
    assert [finding.rule for finding in namespace.findings] == ["aml.mixed-config-space"]


def test_two_functions_that_agree_are_not_mixed(board: Namespace) -> None:
    found = device(board, "\\_SB.PCI0.RP01.DEV0")
    evaluation = found.evaluation("_RMV")
    assert found.rmv == 0x22
    assert evaluation is not None
    assert evaluation.certain


def test_what_was_not_recorded_is_named(board: Namespace) -> None:
    found = device(board, "\\_SB.PCI0.MEMD").evaluation("_STA")
    assert found is not None
    assert found.depends == (RegionAccess(AddressSpace.SYSTEM_MEMORY, 0xFED00000, 0xFED00007),)
    blind = interpret([table(BOARD)], {})
    crs = device(blind, "\\_SB.PCI0").evaluation("_CRS")
    assert crs is not None
    assert [(access.space, access.first) for access in crs.depends] == [(AddressSpace.PCI_CONFIG, 0xB0)]


def test_a_function_that_was_not_read_is_not_recorded() -> None:
    namespace = interpret([table(BOARD)], {**MACHINE, LPC: b""})
    status = device(namespace, "\\_SB.PCI0.LNKA").evaluation("_STA")
    assert status is not None
    assert status.config == ()
    assert status.depends == (RegionAccess(AddressSpace.PCI_CONFIG, 0x60, 0x60, "\\_SB.PCI0.LPCB.PIRQ", LPC),)


def test_what_is_read_behind_a_write_is_not_the_recorded_byte() -> None:
    body = r"""Device (\_SB.PCI0) {
        Name (_HID, EisaId ("PNP0A03"))
        OperationRegion (SMN0, PCI_Config, 0xB8, 8)
        Field (SMN0, DWordAcc, NoLock, Preserve) { SMNI, 32, SMND, 32 }
        Method (_STA) { SMNI = 0x12345678 Return (SMND | 0xF) } }"""
    namespace = interpret([table(body)], {HOST: config(xbc=0)})
    found = device(namespace, "\\_SB.PCI0").evaluation("_STA")
    assert found is not None
    region = "\\_SB.PCI0.SMN0"
    assert found.depends == (RegionAccess(AddressSpace.PCI_CONFIG, 0xBC, 0xBF, region, HOST),)


def test_the_bytes_are_there_when_initialisation_runs() -> None:
    body = r"""Device (\_SB.PCI0) {
        Name (_HID, EisaId ("PNP0A03"))
        OperationRegion (HOST, PCI_Config, 0, 0x100)
        Field (HOST, ByteAcc, NoLock, Preserve) { Offset (0x60), H060, 8 }
        Name (SEEN, 0)
        Method (_INI) { SEEN = H060 }
        Method (_SUN) { Return (SEEN) } }"""
    assert device(interpret([table(body)], {HOST: config(x60=0x42)}), "\\_SB.PCI0").sun == 0x42


def test_what_initialisation_wrote_is_not_what_was_recorded() -> None:
    body = r"""Device (\_SB.PCI0) {
        Name (_HID, EisaId ("PNP0A03"))
        OperationRegion (HOST, PCI_Config, 0, 0x100)
        Field (HOST, ByteAcc, NoLock, Preserve) { Offset (0x60), H060, 8 }
        Method (_INI) { H060 = 1 }
        Method (_SUN) { Return (H060) } }"""
    assert device(interpret([table(body)], {HOST: config(x60=0x42)}), "\\_SB.PCI0").sun == 0x42


def functions(count: int, inside: str) -> str:
    """A root bridge with devices F001, F002… at 00:01.0, 00:02.0…, each with its byte at 0x40 + number and at 0x60."""
    devices = "".join(
        f"Device (F{number:03}) {{ Name (_ADR, {number << 16}) OperationRegion (CFG0, PCI_Config, 0, 0x100) "
        f"Field (CFG0, ByteAcc, NoLock, Preserve) {{ Offset ({0x40 + number}), OWN0, 8, Offset (0x60), SAME, 8 }} }}"
        for number in range(1, count + 1)
    )
    return f'Device (\\_SB.PCI0) {{ Name (_HID, EisaId ("PNP0A03")) {devices} {inside} }}'


@pytest.mark.parametrize(("depth", "settled"), [(1, True), (2, True), (3, True), (5, False)])
def test_what_leads_from_function_to_function_is_followed_three_times(depth: int, settled: bool) -> None:
    # Each step is only taken when the byte read before was the right one.
    body = "".join(f"If (^F{number:03}.OWN0 == {number}) {{" for number in range(1, depth + 1))
    method = f"Method (_SUN) {{ {body} Return (0x99) {'}' * depth} Return (0) }}"
    machine = {HOST: config()} | {
        Sbdf(0, 0, number, 0): config(**{f"x{0x40 + number:x}": number}) for number in range(1, depth + 1)
    }
    found = device(interpret([table(functions(depth, method))], machine), "\\_SB.PCI0")
    evaluation = found.evaluation("_SUN")
    assert evaluation is not None
    assert evaluation.certain is settled
    assert not evaluation.mixed
    if settled:
        assert found.sun == 0x99


def test_functions_that_share_an_offset_do_not_disturb_each_other() -> None:
    collecting = """Device (D{0}{1}) {{ Name (_UID, {1})
        Name (KEPT, ResourceTemplate () {{ IRQ (Edge, ActiveHigh) {{ }} }})
        Method (_CRS, 0, Serialized) {{ CreateWordField (KEPT, 1, BITS) BITS |= ^^F00{0}.SAME Return (KEPT) }} }}"""
    body = functions(2, "".join(collecting.format(function, number) for function in (1, 2) for number in (10, 11, 12)))
    machine = {HOST: config(), Sbdf(0, 0, 1, 0): config(x60=0x10), Sbdf(0, 0, 2, 0): config(x60=0x20)}
    namespace = interpret([table(body)], machine)
    for function, irq in ((1, 4), (2, 5)):
        for number in (10, 11, 12):
            found = device(namespace, f"\\_SB.PCI0.D{function}{number}")
            assert getattr(found.crs and found.crs[0], "irqs", None) == (irq,)


def test_devices_are_placed_on_pci(board: Namespace) -> None:
    assert pci_addresses(board.devices, MACHINE) == {
        "\\_SB.PCI0.LPCB": LPC,
        "\\_SB.PCI0.RP01": PORT,
        "\\_SB.PCI0.RP01.DEV0": BEHIND,
        "\\_SB.PCI0.RP01.GONE": Sbdf(0, 5, 1, 0),
    }


def test_a_wrong_checksum_does_not_lose_a_table() -> None:
    good = table(BOARD)
    broken = RawTable("DSDT", good.data[:9] + bytes(((good.data[9] + 1) & 0xFF,)) + good.data[10:])
    assert interpret([broken], MACHINE) == interpret([good], MACHINE)


def test_tables_load_in_order_and_dynamic_ones_do_not() -> None:
    first = table("Name (\\ORDR, 1)", "SSDT", "SSDT1")
    second = table("External (\\ORDR, IntObj) Device (\\LAST) { Name (_UID, 2) }", "SSDT", "SSDT2")
    dynamic = table("Device (\\DYNA) { Name (_UID, 3) }", "SSDT", "SSDT9")
    namespace = interpret([first, second, RawTable("SSDT9", dynamic.data, dynamic=True), table(BOARD)], {})
    assert namespace.device("\\LAST") is not None
    assert namespace.device("\\DYNA") is None


@pytest.mark.parametrize("length", [0, 10, 35, 36, 100])
def test_a_dsdt_that_is_cut_off_is_a_finding(length: int) -> None:
    namespace = interpret([RawTable("DSDT", table(BOARD).data[:length])], MACHINE)
    assert namespace.devices == ()
    assert "aml.no-dsdt" in {finding.rule for finding in namespace.findings}


def test_an_ssdt_that_is_cut_off_is_a_finding() -> None:
    whole = table("Device (\\LAST) { Name (_UID, 2) }", "SSDT", "SSDT1")
    namespace = interpret([table(BOARD), RawTable("SSDT1", whole.data[:-1])], MACHINE)
    assert device(namespace, "\\_SB.PCI0").bbn == 0
    assert {finding.rule for finding in namespace.findings} == {"aml.table-rejected"}


@pytest.mark.parametrize(
    "body",
    [
        "External (\\NONE, DeviceObj) Scope (\\NONE) { }",
        "External (\\_SB.PCI0, DeviceObj) Scope (\\_SB.PCI0) { Name (_UID, 2) }",
    ],
)
def test_names_that_are_missing_or_twice_there_are_a_finding(body: str) -> None:
    namespace = interpret([table(BOARD), table(body, "SSDT", "SSDT1")], MACHINE)
    assert [finding.rule for finding in namespace.findings] == ["aml.names-unresolved"]


def test_without_acpiexec_there_is_one_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    namespace = interpret([table(BOARD)], MACHINE)
    assert namespace.interpreter is None
    assert [finding.rule for finding in namespace.findings] == ["aml.no-interpreter"]
    assert "apt install acpica-tools" in namespace.findings[0].message
    assert evaluate([table(BOARD)], MACHINE, "\\_SB.PCI0._CRS").findings == namespace.findings


def test_evaluation_failures_matter_only_where_the_device_is_present() -> None:
    def namespace(status: int) -> Namespace:
        failing = "Name (PK00, Package (1) {}) Method (_CRS) { Return (DerefOf (PK00 [0])) }"
        return interpret([table(f"Device (\\DEV0) {{ Name (_STA, {status}) {failing} }}")], {})

    assert [finding.rule for finding in namespace(0xF).findings] == ["aml.evaluation-failed"]
    assert namespace(0).findings == ()


def test_two_roots_on_one_bus_are_a_finding() -> None:
    root = 'Device (\\{0}) {{ Name (_HID, EisaId ("PNP0A03")) Name (_BBN, {1}) Name (_UID, "{0}") }}'
    same = interpret([table(root.format("PCI0", 4) + root.format("PCI1", 4))], {})
    assert [finding.rule for finding in same.findings] == ["aml.root-bridges-same-bus"]
    assert interpret([table(root.format("PCI0", 4) + root.format("PCI1", 5))], {}).findings == ()


def test_evaluate_with_arguments() -> None:
    result = evaluate([table(BOARD)], MACHINE, "\\_SB.PCI0._OSC", ["(00)", "0x1", "0x2", "(DE AD BE EF)"])
    assert result.value == Buffer("deadbeef")
    assert result.evaluation.ok


def test_evaluate_says_what_was_touched() -> None:
    result = evaluate([table(BOARD)], MACHINE, "\\_SB.PCI0.MEMD._STA")
    assert result.value == Integer(0xF)
    assert result.accesses == (
        "write system-memory 0xfed00008-0xfed0000b",
        "read system-memory 0xfed00000-0xfed00003",
        "read system-memory 0xfed00004-0xfed00007",
    )
    assert len(result.evaluation.depends) == 1


def test_evaluate_reads_the_right_function() -> None:
    result = evaluate([table(BOARD)], MACHINE, "\\_SB.PCI0.LNKA._STA")
    assert result.value == Integer(0xB)
    assert result.accesses == ("read pci-config 0x60-0x60 of 0000:00:1f.0",)
    assert result.evaluation.config == (LPC,)
    disabled = {**MACHINE, LPC: config(x60=0x80)}
    assert evaluate([table(BOARD)], disabled, "\\_SB.PCI0.LNKA._STA").value == Integer(9)


def test_evaluate_gives_values_of_every_kind() -> None:
    body = r"""Device (\DEV0) { } Method (\ALL0) { Debug = "a message"
        Return (Package (6) { 1, "a\"b\\c\n", Buffer () { 1, 2, 3 }, Package () { DEV0 }, Buffer (20) { 9 } }) }"""
    result = evaluate([table(body)], {}, "\\ALL0")
    assert result.value == Package(
        (
            Integer(1),
            String('a"b\\c\n'),
            Buffer("010203"),
            Package((Reference("\\DEV0"),)),
            Buffer("09" + "00" * 19),
            None,
        )
    )
    assert any("a message" in message for message in result.messages)
    assert decode(encode(result), aml.Result) == result


def test_evaluate_reports_the_status() -> None:
    assert evaluate([table(BOARD)], {}, "\\NOPE").evaluation.status == "AE_NOT_FOUND"


@pytest.mark.parametrize("path", ["", "\\A B", "\\A\nquit", "\\" + "A" * 600])
def test_what_cannot_be_said_in_one_line_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="command"):
        evaluate([table(BOARD)], {}, path)


def test_the_helper_is_what_its_source_compiles_to(tmp_path: Path) -> None:
    folder = Path(dom0kit.acpi.__file__).parent
    source = folder / "recorded_config.asl"
    command = ["iasl", "-p", str(tmp_path / "out"), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    # The creator's revision in the header (byte 32 on) is the compiler's version, and byte 9 the checksum over it.
    shipped, compiled = (path.read_bytes() for path in (folder / "recorded_config.aml", tmp_path / "out.aml"))
    assert shipped[:9] + shipped[10:32] + shipped[36:] == compiled[:9] + compiled[10:32] + compiled[36:]


def test_the_child_is_nobody_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = tmp_path / "seen"
    seen.touch()
    seen.chmod(0o666)
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents:
        if parent != Path("/tmp") and parent.is_relative_to("/tmp"):
            parent.chmod(0o755)
    stand_in = tmp_path / "acpiexec"
    stand_in.write_text(
        "#!/bin/sh\n{ id -u; id -G; pwd; ls -A; grep NoNewPrivs /proc/self/status; ulimit -v; env; "
        f"cat ../table0.aml | wc -c; touch made 2>&1; }} > {seen}\n"
    )
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    temporary.chmod(0o777)
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    monkeypatch.setattr("dom0kit.acpi.aml_session._FILE_LIMIT", 4096)  # the stand-in writes what it saw
    namespace = interpret([table(BOARD)], {}, seconds=3)
    assert namespace.devices == ()
    text = seen.read_text()
    lines = text.splitlines()
    if os.geteuid() == 0:
        assert lines[:2] == ["65534", "65534"]
    assert "NoNewPrivs:\t1" in lines
    assert str(160 << 10) in lines
    assert "LC_ALL=C" in lines
    assert str(len(table(BOARD).data)) in lines
    assert list(temporary.iterdir()) == []
