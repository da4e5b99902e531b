# SPDX-License-Identifier: MIT
"""``dom0kit irq`` from end to end over shipped recordings: text, JSON, exit status, one sentence for what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.synthetic import write_lspci_text
from dom0kit.abi import BackendKind, Format, Header, Information, Mode
from dom0kit.address import Sbdf
from dom0kit.cli import FINE, UNUSABLE, USAGE, main
from dom0kit.cli.irq import backend_of
from dom0kit.cli.text import irq as text
from dom0kit.cli.text.layout import plain
from dom0kit.hypercall import kernel_module
from dom0kit.interrupt_plan import Wishes, plan_interrupts
from dom0kit.interrupts import RoutingTable, routing_table
from dom0kit.plan import Backend, Dialect, MapMsix, Plan, SetAffinity, SetLinuxAffinity
from dom0kit.serial import decode
from dom0kit.vectors import Budget, Policy, budget, linux
from tests.acpi.asl import needs_interpreter
from tests.synthetic import Device, made

RECORDINGS = Path(__file__).parent.parent.parent / "dom0kit" / "recordings"
Q35 = str(RECORDINGS / "qemu-q35.d0k")


def rows(out: str, start: str) -> list[str]:
    return [line.strip() for line in out.splitlines() if line.strip().startswith(start)]


# --- the table --------------------------------------------------------------------------------------------------------


@needs_interpreter
def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["irq", "--from", Q35]) == FINE
    out = capsys.readouterr().out
    assert out.startswith(
        f"{Q35}: 11 GSIs, 6 requested by drivers, 5 shared; 16 messages of 12 functions, 7 more could use messages\n"
    )
    found = [" ".join(line.split()) for line in out.splitlines()]
    assert "GSI 9 0.9 level high ? SCI SCI requested by acpi" in found
    assert "GSI 16 0.16 level high - INTx 0000:00:1f.2 no driver 2 share it" in found
    assert "0000:02:00.0 MSI 1 of 1 message pcieport remapped #21 Linux IRQ 28" in found
    assert "0000:04:00.0 - has 5 MSI-X, 1 MSI no driver" in found
    assert "Linux IRQ 24 DMAR-MSI dmar0" in found


@needs_interpreter
def test_table_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["irq", "--from", Q35, "--format", "json"]) == FINE
    table = decode(capsys.readouterr().out.encode(), RoutingTable)
    assert (len(table.lines), len(table.messages)) == (11, 19)


def test_where_an_interrupt_goes_in_text() -> None:
    device = Device(Sbdf(0, 1, 0, 0), msi=1, driver="a", irqs=(40,))
    platform = made([device], files={"proc/irq/40/effective_affinity_list": "1\n"}).platform
    out = plain(*text.table("m", routing_table(platform)[0], ["a remark"]))
    assert out.splitlines()[1] == "a remark"
    assert rows(out, "0000:01:00.0") == ["0000:01:00.0  MSI  1 of 1 message  a  0x41@0  Linux IRQ 40"]


# --- the budget -------------------------------------------------------------------------------------------------------


@needs_interpreter
def test_budget(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["irq", "budget", "--from", Q35]) == FINE
    out = capsys.readouterr().out
    assert "vectors     204 a CPU by Linux 6.1, 0x20 to 0xeb, less 0x20, 0x80\n" in out
    assert "needed      62, if every function takes all its messages\n" in out
    assert "verdict     everything fits\n" in out
    assert main(["irq", "budget", "--from", Q35, "--backend", "xen", "--policy", "cpu=1", "--format", "json"]) == FINE
    found = decode(capsys.readouterr().out.encode(), Budget)
    assert [(each.cpu.number, each.usable, each.planned) for each in found.cpus] == [(1, 205, 62)]
    assert found.limits.owner == "Xen"


def test_what_does_not_fit_is_said_with_a_way_out() -> None:
    devices = [Device(Sbdf(0, 1, n, 0), msix=entries, driver="nvme") for n, entries in enumerate((129, 129, 8))]
    platform = made(devices, apic_ids=[0]).platform
    found = budget(platform, routing_table(platform)[0], linux("6.1"), Policy())
    assert not found.fits
    assert [(str(each.function), each.wants, each.gets) for each in found.limited] == [
        ("0000:01:00.0", 129, 97),
        ("0000:01:01.0", 129, 97),
    ]
    assert (found.capacity, found.wanted, sum(len(grant.places) for grant in found.grants)) == (202, 266, 202)
    out = plain(*text.budget("m", found))
    assert "verdict     64 vectors too few: limit 2 functions to 97 messages or fewer, as listed (" in out
    assert rows(out, "0000:01:00.0") == ["0000:01:00.0  nvme  has 129  limit to  97"]


def test_processors_beyond_reach_are_named() -> None:
    platform = made([Device(Sbdf(0, 1, 0, 0), msix=2)], apic_ids=[0, 0x100, 0x101]).platform
    found = budget(platform, routing_table(platform)[0], linux("6.1"), Policy())
    assert [cpu.apic_id for cpu in found.unreachable] == [0x100, 0x101]
    assert "1 CPU; 2 cannot be reached without a remapper (APIC ids 256-257)" in plain(*text.budget("m", found))


def test_what_is_used_and_where() -> None:
    files = {"proc/irq/40/effective_affinity_list": "1\n", "proc/irq/20/effective_affinity_list": "0\n"}
    devices = [
        Device(Sbdf(0, 1, 0, 0), msix=2, driver="a", irqs=(40,), node=1),
        Device(Sbdf(0, 1, 1, 0), msix=2, driver="a", irqs=(41,)),
    ]
    platform = made(devices, requested={20: "x"}, files=files, nodes={0: 0, 1: 1}).platform
    found = budget(platform, routing_table(platform)[0], linux("6.1"), Policy.parse("node"))
    assert (found.used, found.unplaced) == (3, 1)
    assert [each.used for each in found.cpus] == [1, 1]
    assert [(each.node, each.wanted) for each in found.nodes] == [(0, 0), (1, 2)]
    assert found.nodes[1].planned >= 2
    assert sum(each.planned for each in found.cpus) == found.wanted == 5
    out = plain(*text.budget("m", found))
    assert "in use      3 interrupts, 1 of them on a CPU that is not known" in out
    assert "used at least" in out


# --- the plan ---------------------------------------------------------------------------------------------------------


@needs_interpreter
def test_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "plan.json"
    assert main(["irq", "plan", "--from", Q35, "-o", str(file)]) == FINE
    out = capsys.readouterr().out
    assert out.startswith(f"plan for {Q35}: 43 operations, modern, for loopback; written to {file}\n")
    assert "  28  map GSI 16 to pIRQ 16  " in out
    assert "  29  set up GSI 16: level triggered, active high  " in out
    assert "  GSI 9         acpi has requested it\n" in out
    assert "  9 functions   a bridge, whose messages are its port driver's\n" in out
    plan = decode(file.read_bytes(), Plan)
    assert (plan.backend, plan.dialect, len(plan.operations)) == (Backend.LOOPBACK, Dialect.MODERN, 43)
    assert main(["irq", "plan", "--from", Q35, "--format", "json"]) == FINE
    assert capsys.readouterr().out.encode() == file.read_bytes(), "the same recording gives the same bytes"


@needs_interpreter
def test_plan_options(capsys: pytest.CaptureFixture[str]) -> None:
    def made_with(*options: str) -> Plan:
        assert main(["irq", "plan", "--from", Q35, "--format", "json", *options]) == FINE
        return decode(capsys.readouterr().out.encode(), Plan)

    assert made_with("--backend", "xen", "--dialect", "classic-xen").dialect is Dialect.CLASSIC_XEN
    several = made_with("--entries", "5")
    assert sum(isinstance(each, MapMsix) for each in several.operations) == 4 + 5
    moved = made_with("--policy", "cpu=1")
    assert {each.cpu for each in moved.operations if isinstance(each, SetAffinity)} == {1}
    assert {each.cpus for each in moved.operations if isinstance(each, SetLinuxAffinity)} == {"1"}
    direct = made_with("--backend", "hv_core", "--policy", "spread")
    assert not any(isinstance(each, SetAffinity) for each in direct.operations), "in direct mode dom0 chooses"


def test_a_plan_that_cannot_fit_says_so() -> None:
    devices = [Device(Sbdf(0, 1, n, 0), msix=200) for n in range(2)]
    platform = made(devices, apic_ids=[0]).platform
    made_plan = plan_interrupts(
        platform, routing_table(platform)[0], Wishes(backend=Backend.HV_CORE, intercept=False, entries=200)
    )
    assert [(each.wants, each.gets) for each in made_plan.limited] == [(200, 101), (200, 101)]
    out = plain(*text.plan(made_plan, [], written=None))
    assert rows(out, "0000:01:00.0  no driver") == ["0000:01:00.0  no driver  has 200  limit to  101"]


# --- what is wrong ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["plam"], "irq: there is no verb 'plam', did you mean 'plan'?"),
        (["plan", "--policy", "all"], "irq plan: 'all' is no policy: spread, node, or cpu=0-3,8"),
        (["plan", "--entries", "0"], "irq plan: --entries is 1 to 2048, not 0"),
        (["budget", "--policy", "cpu=3-1"], "irq budget: 'cpu=3-1' names no processor"),
        (["vector", "-1"], "irq vector: an IRQ is a number from 0 on, not -1"),
    ],
)
def test_usage(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["irq", *arguments]) == USAGE
    assert capsys.readouterr().err.startswith(f"dom0kit: {sentence}")


@needs_interpreter
@pytest.mark.parametrize(
    ("options", "status", "sentence"),
    [
        (["--backend", "xen", "--dialect", "classic-2005"], USAGE, "irq plan: xen does not speak classic-2005"),
        (["--policy", "cpu=7"], UNUSABLE, f"{Q35}: there is no processor 7 that interrupts can go to"),
        (["-o", "/nowhere/plan.json"], UNUSABLE, "/nowhere/plan.json cannot be written: No such file or directory"),
    ],
)
def test_what_cannot_be_planned(
    options: list[str], status: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["irq", "plan", "--from", Q35, *options]) == status
    assert capsys.readouterr().err.startswith(f"dom0kit: {sentence}")


def test_a_machine_without_processors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_lspci_text(tmp_path / "a.lspci", 3)
    for verb in ("budget", "plan"):
        assert main(["irq", verb, "--from", str(tmp_path / "a.lspci")]) == UNUSABLE
        assert "nobody says which processors the machine has: a MADT does" in capsys.readouterr().err


def test_domains_that_share_a_gsi_are_a_finding() -> None:
    devices = [Device(Sbdf(0, 1, 0, 0), 20), Device(Sbdf(0, 1, 1, 0), 20)]
    platform = made(devices).platform
    shared = Wishes(backend=Backend.LOOPBACK, domains={Sbdf(0, 1, 1, 0): 3})
    found = plan_interrupts(platform, routing_table(platform)[0], shared)
    assert [(each.rule, each.where) for each in found.findings] == [("irq.shared-by-domains", "gsi:20")]
    requested = made(devices, requested={20: "eth0"}).platform
    again = plan_interrupts(requested, routing_table(requested)[0], shared)
    assert [each.rule for each in again.findings] == ["irq.shared-by-domains"], "though a driver of dom0 has it already"
    assert found.findings[0].message == "it is shared by 0000:01:00.0 of domain 0, 0000:01:01.0 of domain 3"
    assert "functions of several domains share it" in {each.why for each in found.left}


def test_who_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """As asked for; else as the module of this machine says; else as the machine ran."""
    platform = made([]).platform
    under_xen = made([], files={"sys/hypervisor/type": "xen"}).platform
    none: Exception | None = kernel_module.ModuleMissing("no module")

    class Module:
        def __init__(self) -> None:
            if none is not None:
                raise none

        def __enter__(self) -> Module:
            return self

        def __exit__(self, *raised: object) -> None:
            pass

        backend = BackendKind.HV_CORE

        def information(self) -> Information:
            header = Header(version=1, bytes=0)
            return Information(header=header, mode=Mode.DIRECT, message_format=Format.EXTENDED_DESTINATION)

    monkeypatch.setattr(kernel_module, "KernelModule", Module)
    assert backend_of(platform, None, None, recorded=True) == (Backend.LOOPBACK, True, False)
    assert backend_of(platform, None, None, recorded=False) == (Backend.LINUX, False, False)
    assert backend_of(under_xen, None, None, recorded=False) == (Backend.XEN, False, False)
    assert backend_of(platform, "hv_core", None, recorded=True) == (Backend.HV_CORE, False, False)
    assert backend_of(platform, "hv_core", "intercept", recorded=True) == (Backend.HV_CORE, True, False)
    none = None
    assert backend_of(platform, None, None, recorded=False) == (Backend.HV_CORE, False, True)
    assert backend_of(platform, "hv_core", "intercept", recorded=False) == (Backend.HV_CORE, True, True)
    assert backend_of(platform, "loopback", None, recorded=False) == (Backend.LOOPBACK, True, False)
    Module.backend = BackendKind.XEN
    assert backend_of(platform, None, None, recorded=False) == (Backend.XEN, False, False)
