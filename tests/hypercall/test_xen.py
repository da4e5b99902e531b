# SPDX-License-Identifier: MIT
"""The backend over privcmd, against Xen as it was measured; tests/guest/test_xen.py has the real one."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dom0kit import abi
from dom0kit.abi import ARGUMENTS, BackendKind, InterruptFlag, IrqStatus, Op, Physdev, Status
from dom0kit.address import Gsi, Polarity, Sbdf, Trigger
from dom0kit.hypercall.interface import HypercallRefused
from dom0kit.hypercall.kernel_module import KernelModule
from dom0kit.hypercall.xen import IoapicAt, Privcmd, XenMissing, side_effects
from dom0kit.layout import layout
from dom0kit.source.errors import UnreadableSource
from dom0kit.source.recognise import open_source
from dom0kit.xen import DomainKind, XenVersion
from tests.hypercall.fake_xen import IOAPIC, LEVEL, LOW, MASKED, PINS, FakeXen, opened
from tests.xen_views import seen_by

LPC = Sbdf(0, 0, 31, 0)
Q35 = Path(__file__).parents[2] / "dom0kit" / "recordings" / "qemu-q35.d0k"


def refusal(call: object, *arguments: object) -> HypercallRefused:
    with pytest.raises(HypercallRefused) as caught:
        call(*arguments)  # type: ignore[operator]
    return caught.value


def test_it_knows_where_it_is(tmp_path: Path) -> None:
    with opened(FakeXen(), tmp_path) as xen:
        assert (xen.domain.kind, xen.domain.version) == (DomainKind.PV, XenVersion(4, 17))
    with opened(FakeXen(pvh=True, version=(4, 20)), tmp_path) as xen:
        assert (xen.domain.kind, xen.domain.version) == (DomainKind.PVH, XenVersion(4, 20))


def test_what_is_no_dom0_is_refused(tmp_path: Path) -> None:
    with pytest.raises(XenMissing, match="guest of Xen"):
        opened(FakeXen(dom0=False), tmp_path)
    with pytest.raises(XenMissing, match=r"there is no .*xen_privcmd"):
        Privcmd(str(tmp_path / "none"))
    with pytest.raises(XenMissing, match="cannot be opened"):
        Privcmd(str(tmp_path))

    def refuses(file: int, request: int, words: bytearray, mutate: bool) -> int:
        raise OSError(errno.EPERM, "no")

    (tmp_path / "privcmd").touch()
    fake = FakeXen()
    fake.ioctl = refuses  # type: ignore[method-assign]
    open_before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(XenMissing, match="errno 1"):
        opened(fake, tmp_path)
    assert len(os.listdir("/proc/self/fd")) == open_before


def test_memory_without_the_kernels_device_is_locked(tmp_path: Path) -> None:
    (tmp_path / "privcmd").touch()
    with Privcmd(str(tmp_path / "privcmd"), str(tmp_path / "none"), ioctl=FakeXen().ioctl) as privcmd:
        locked = [line for line in Path("/proc/self/smaps").read_text().splitlines() if line.startswith("VmFlags")]
        assert any(" lo" in line and " sh" in line for line in locked)
        assert privcmd.hypercall(17, 0, 0) == 0x40011
        assert privcmd.hypercall(63) == -errno.ENOSYS


@pytest.mark.parametrize("pin", [24, 25, 40, 120, 200])
def test_pins_beyond_the_last_never_reach_xen(tmp_path: Path, pin: int) -> None:
    fake = FakeXen()
    with opened(fake, tmp_path) as xen:
        for word in (0, 1):
            assert refusal(xen.apic_write, IOAPIC, 0x10 + 2 * pin + word, 0x1A031).status is Status.OUT_OF_RANGE
            assert refusal(xen.apic_read, IOAPIC, 0x10 + 2 * pin + word).status is Status.OUT_OF_RANGE
    assert (33, Physdev.APIC_WRITE) not in fake.calls


def test_registers_are_read_as_they_are(tmp_path: Path) -> None:
    fake = FakeXen()
    with opened(fake, tmp_path) as xen:
        assert xen.apic_read(IOAPIC, 1) == 0x170020
        words = [xen.apic_read(IOAPIC, 0x10 + register) for register in range(2 * PINS)]
        assert [low | high << 32 for low, high in zip(words[::2], words[1::2], strict=True)] == fake.entries
        assert refusal(xen.apic_read, IOAPIC, 3).status is Status.OUT_OF_RANGE
        assert refusal(xen.apic_read, 0xFED00000, 1).status is Status.INVALID
    versions = [call for call in fake.calls if call == (33, Physdev.APIC_READ)]
    assert len(versions) == 1 + 1 + 2 * PINS + 1, "the number of pins is asked once, and again of what is not there"


def test_a_write_that_xen_takes(tmp_path: Path) -> None:
    fake = FakeXen()
    with opened(fake, tmp_path) as xen:
        xen.apic_write(IOAPIC, 0x10 + 2 * 19, MASKED | LEVEL | LOW | 0xB5)
        assert fake.entries[19] & (LEVEL | LOW | MASKED) == LEVEL | LOW | MASKED
        xen.apic_write(IOAPIC, 0x10 + 2 * 19, MASKED | 0xB7)
        assert not fake.entries[19] & MASKED, "an edge is unmasked"


@pytest.mark.parametrize(
    ("register", "value", "status", "words"),
    [
        (0x10 + 2 * 9, MASKED | 0x31, Status.BUSY, "ignored the write"),
        (0x10 + 2 * 2, LEVEL | 0x31, Status.BUSY, "Xen's own"),
        (0x10 + 2 * 19, LEVEL | 0xF0, Status.INVALID, "no meaning"),
        (0x11 + 2 * 19, 1 << 24, Status.NOT_SUPPORTED, "high half"),
        (0, 1 << 24, Status.NOT_PERMITTED, "not this domain's"),
        (0x10 + 2 * 19, 0x231, Status.INVALID, "no meaning"),
    ],
)
def test_a_write_that_xen_ignores_is_told(
    tmp_path: Path, register: int, value: int, status: Status, words: str
) -> None:
    fake = FakeXen()
    before = list(fake.entries)
    with opened(fake, tmp_path) as xen:
        refused = refusal(xen.apic_write, IOAPIC, register, value)
    assert refused.status is status
    assert words in str(refused)
    assert fake.entries == before


def test_modern_calls_of_a_pv_domain(tmp_path: Path) -> None:
    fake = FakeXen()
    with opened(fake, tmp_path) as xen:
        assert xen.map_gsi(Gsi(22)) == 16, "the first free pIRQ, not the GSI's"
        assert xen.map_gsi(Gsi(22), 22) == 22
        xen.setup_gsi(Gsi(22), Trigger.LEVEL, Polarity.LOW)
        assert refusal(xen.setup_gsi, Gsi(22), Trigger.LEVEL, Polarity.LOW).status is Status.EXISTS
        xen.unmap_pirq(16)
        for again in (lambda: xen.map_gsi(Gsi(22), 22), lambda: xen.apic_write(IOAPIC, 0x10 + 2 * 22, LEVEL | 22)):
            refused = refusal(again)
            assert refused.status is Status.NOT_PERMITTED
            assert "after a restart" in str(refused)
        assert refusal(xen.map_gsi, Gsi(100)).status is Status.INVALID
        assert xen.alloc_irq_vector(22) == 22, "a dummy on Xen"
        assert xen.irq_status_query(22) is IrqStatus.NEEDS_EOI
        function = Sbdf(0, 0, 5, 0)
        assert xen.knows([function, Sbdf(0, 0, 31, 0)]) == {function: False, Sbdf(0, 0, 31, 0): True}
        xen.pci_device_add(function, pxm=1)
        assert xen.knows([function]) == {function: True}
        xen.pci_device_remove(function)
        assert refusal(xen.pci_device_remove, function).status is Status.NO_DEVICE
        refused = refusal(xen.pci_device_reset, function)
        assert refused.status is Status.NOT_SUPPORTED
        assert "from 4.20 on, this is 4.17" in str(refused)
        assert (33, Physdev.PCI_DEVICE_RESET) not in fake.calls
    assert fake.pirqs == {22: 22}


def test_xen_is_not_told_of_what_is_not_there(tmp_path: Path) -> None:
    fake = FakeXen()
    with opened(fake, tmp_path) as xen:
        for call in (
            lambda: xen.pci_device_add(Sbdf(0, 9, 0, 0)),
            lambda: xen.pci_device_add(Sbdf(0, 0, 5, 1), physical=Sbdf(0, 9, 0, 0)),
        ):
            refused = refusal(call)
            assert refused.status is Status.NO_DEVICE
            assert "dom0's kernel has no such function" in str(refused)
        assert fake.added == []
        assert refusal(xen.pci_device_remove, Sbdf(0, 0, 5, 1)).status is Status.NO_DEVICE
        assert (33, Physdev.PCI_DEVICE_REMOVE) not in fake.calls, "Xen has said already that it does not know it"


def test_a_function_without_a_domain_is_not_taken_away(tmp_path: Path) -> None:
    """Xen would panic."""
    fake = FakeXen()
    fake.absent = {(0, 0, 5 << 3)}
    function = Sbdf(0, 0, 5, 0)
    with opened(fake, tmp_path) as xen:
        assert refusal(xen.pci_device_add, function).status is Status.INVALID
        assert xen.knows([function]) == {function: True}
        refused = refusal(xen.pci_device_remove, function)
        assert refused.status is Status.BUSY
        assert "would make Xen panic" in str(refused)
        fake.absent.clear()
        xen.pci_device_remove(function)
        assert xen.knows([function]) == {function: False}
    fake.interface = 0x99
    with opened(fake, tmp_path) as xen:
        assert refusal(xen.pci_device_remove, function).status is Status.NOT_SUPPORTED


def test_a_virtual_function_stays_one_while_it_is_asked_for(tmp_path: Path) -> None:
    fake = FakeXen()
    physical, virtual = Sbdf(0, 0, 5, 0), Sbdf(0, 0, 5, 3)
    with opened(fake, tmp_path) as xen:
        folder = tmp_path / "devices" / str(virtual)
        (folder / "physfn").symlink_to(f"../{physical}")
        (folder / "ari_enabled").write_text("1\n")
        xen.pci_device_add(physical)
        xen.pci_device_add(virtual, physical=physical, extended=True)
        xen.pci_device_remove(virtual)
        xen.pci_device_remove(physical)
    assert fake.added[1] == fake.added[2], "the question is the call that the kernel made"
    assert fake.added[0] == fake.added[3]


PVH_REFUSED = {
    Physdev.IRQ_STATUS_QUERY: "no version",
    Physdev.APIC_READ: "no version",
    Physdev.APIC_WRITE: "no version",
    Physdev.ALLOC_IRQ_VECTOR: "no version",
    Physdev.EOI: "no version",
    Physdev.MAP_PIRQ: "from Xen 4.20 on",
    Physdev.UNMAP_PIRQ: "from Xen 4.20 on",
    Physdev.SETUP_GSI: "from 4.20 on, this is 4.17",
    Physdev.GET_FREE_PIRQ: "no version",
    Physdev.PCI_DEVICE_RESET: "from 4.20 on, this is 4.17",
}


def test_a_pvh_domain_has_three_calls(tmp_path: Path) -> None:
    fake = FakeXen(pvh=True)
    with opened(fake, tmp_path) as xen:
        xen.pci_mmcfg_reserved(0xB0000000, 0, 0, 255, True)
        xen.pci_device_add(Sbdf(0, 0, 5, 0))
        xen.pci_device_remove(Sbdf(0, 0, 5, 0))
        before = len(fake.calls)
        for command in Physdev:
            if command in (Physdev.PCI_MMCFG_RESERVED, Physdev.PCI_DEVICE_ADD, Physdev.PCI_DEVICE_REMOVE):
                continue
            size = layout(ARGUMENTS[abi.HYPERCALL_PHYSDEV, command]).size
            status, _ = xen.call(abi.HYPERCALL_PHYSDEV, command, bytes(size))
            assert status is Status.NOT_SUPPORTED
            assert PVH_REFUSED[command] in xen.reason(abi.HYPERCALL_PHYSDEV, command, status)
        assert len(fake.calls) == before, "none of it bothers Xen"
        assert "virtual IOAPIC" in str(refusal(xen.apic_read, IOAPIC, 1))
        assert refusal(xen.query_vector, 1).status is Status.NOT_SUPPORTED


def test_a_newer_xen_is_asked(tmp_path: Path) -> None:
    fake = FakeXen(pvh=True, version=(4, 20))
    with opened(fake, tmp_path) as xen:
        refused = refusal(xen.setup_gsi, Gsi(5), Trigger.LEVEL, Polarity.LOW)
    assert (33, Physdev.SETUP_GSI) in fake.calls
    assert refused.status is Status.NOT_SUPPORTED, "an ENOSYS that the tables did not expect is the same refusal"


def test_our_own_calls_are_not_xens(tmp_path: Path) -> None:
    fake = FakeXen()
    with opened(fake, tmp_path, ioapics=[IoapicAt(IOAPIC, Gsi(0))]) as xen:
        for command in Op:
            size = layout(ARGUMENTS[abi.HYPERCALL_DOM0KIT, command]).size
            if command is not Op.QUERY_VECTOR:
                assert xen.call(abi.HYPERCALL_DOM0KIT, command, bytes(size))[0] is Status.NOT_SUPPORTED
        assert "dom0kit.ko" in str(refusal(xen.information))
        assert xen.call(abi.HYPERCALL_DOM0KIT, 99, b"")[0] is Status.NO_CALL
        assert xen.call(12, 0, b"")[0] is Status.NO_CALL
        assert xen.call(abi.HYPERCALL_PHYSDEV, Physdev.EOI, b"123")[0] is Status.FAULT
    assert all(number == 17 for number, _ in fake.calls)


def test_a_vector_is_read_from_the_entry(tmp_path: Path) -> None:
    fake = FakeXen()
    with opened(fake, tmp_path, ioapics=[IoapicAt(0xFED00000, Gsi(0)), IoapicAt(IOAPIC, Gsi(0))]) as xen:
        for pin, entry in enumerate(fake.entries):
            if not entry & 0xFF:
                assert refusal(xen.query_vector, pin).status is Status.NOT_FOUND
                continue
            found = xen.query_vector(pin)
            assert (found.vector, found.apic_id, found.cpu) == (entry & 0xFF, 1, None)
            assert found.flags == (InterruptFlag.LEVEL if entry & LEVEL else InterruptFlag(0))
        assert refusal(xen.query_vector, PINS).status is Status.INVALID
        assert refusal(xen.query_vector, 1, 3).status is Status.INVALID
        xen.setup_gsi(Gsi(20), Trigger.LEVEL, Polarity.LOW)
        assert xen.query_vector(20).flags == InterruptFlag.MASKED | InterruptFlag.LEVEL | InterruptFlag.ACTIVE_LOW


def test_ioapics_are_those_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dom0kit.source.live.live", lambda: open_source(Q35))
    fake = FakeXen()
    with opened(fake, tmp_path, ioapics=None) as xen:
        assert fake.calls == [(17, 0), (17, 6)], "nothing is read before somebody asks"
        (ioapic,) = xen.shared_info().ioapics
        assert (ioapic.address, ioapic.gsi_base, ioapic.pins, ioapic.version) == (IOAPIC, 0, PINS, 0x20)
        assert xen.query_vector(9).vector == fake.entries[9] & 0xFF

    def nothing() -> None:
        raise UnreadableSource("a container")

    monkeypatch.setattr("dom0kit.source.live.live", nothing)
    with opened(fake, tmp_path, ioapics=None) as xen:
        assert xen.shared_info().ioapics == ()


def test_what_xen_has_been_told(tmp_path: Path) -> None:
    fake = FakeXen()
    fake.bound = {1: 0, 9: 2, 207: 1}
    with opened(fake, tmp_path) as xen:
        assert xen.bound_pirqs() == fake.bound
        many = [Sbdf(0, bus, device, 0) for bus in range(64) for device in range(32)]
        known = xen.knows([*many, Sbdf(0x10000, 0, 0, 0)])
        assert {function for function, here in known.items() if here} == {Sbdf(0, 0, 0, 0), Sbdf(0, 0, 31, 0)}
        asked = [call for call in fake.calls if call[0] == 35]
        assert len(asked) == 0x15 - 0x10 + -(-len(many) // 70), "its version is looked for once"
        assert xen.knows([]) == {}
        assert xen.knows([LPC, Sbdf(0, 0, 5, 0), LPC]) == {LPC: True, Sbdf(0, 0, 5, 0): False}
        assert xen.knows([Sbdf(0, 0, 5, 0)]) == {Sbdf(0, 0, 5, 0): False}
    fake.interface = 0x99
    with opened(fake, tmp_path) as xen:
        refused = refusal(xen.knows, many)
        assert refused.status is Status.NOT_SUPPORTED
        assert "does not tell" in str(refused)


def test_an_error_of_the_kernel_is_none_of_xens(tmp_path: Path) -> None:
    fake = FakeXen()
    with opened(fake, tmp_path) as xen:
        fake._hypercall = lambda number, arguments: -errno.ENOTTY  # type: ignore[method-assign]
        with pytest.raises(OSError, match="nappropriate ioctl"):
            xen.eoi(3)


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (errno.EIO, Status.NO_DEVICE),
        (errno.ENOMEM, Status.NO_SPACE),
        (errno.EXDEV, Status.INVALID),
        (errno.ENOSYS, Status.NOT_SUPPORTED),
    ],
)
def test_an_errno_that_our_abi_has_not(tmp_path: Path, number: int, status: Status) -> None:
    fake = FakeXen()
    with opened(fake, tmp_path) as xen:
        fake._physdev = lambda command, address: -number  # type: ignore[method-assign]
        refused = refusal(xen.pci_mmcfg_reserved, 0, 0, 0, 255, True)
        assert refused.status is status
        assert (f"errno {number}" in str(refused)) == (number != errno.ENOSYS)
        assert "errno" not in str(refusal(xen.pci_device_add, Sbdf(0, 9, 0, 0))), "it is of the last call only"
        assert "errno" not in str(refusal(xen.information))


def test_the_module_under_xen_knows_why_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dom0kit.source.live.live", lambda: seen_by("PVH", open_source(Q35)))
    module = KernelModule.__new__(KernelModule)
    for backend, command, status, words in (
        (BackendKind.XEN, Physdev.SETUP_GSI, Status.NOT_SUPPORTED, "Xen has it from 4.20 on, this is 4.17"),
        (BackendKind.XEN, Physdev.SETUP_GSI, Status.INVALID, ""),
        (BackendKind.XEN, Physdev.PCI_DEVICE_ADD, Status.NOT_SUPPORTED, ""),
        (BackendKind.LOOPBACK, Physdev.SETUP_GSI, Status.NOT_SUPPORTED, ""),
    ):
        module.backend = backend  # type: ignore[misc]
        assert module.reason(abi.HYPERCALL_PHYSDEV, command, status) == words
    module.backend = BackendKind.XEN  # type: ignore[misc]
    assert module.reason(abi.HYPERCALL_DOM0KIT, Op.IOAPIC_ADD, Status.NOT_SUPPORTED) == ""


def words() -> st.SearchStrategy[int]:
    flags = st.sampled_from([0, MASKED, LEVEL, LOW, LEVEL | LOW, MASKED | LEVEL, MASKED | LEVEL | LOW, 0x200, 0x700])
    return st.builds(lambda some, vector: some | vector, flags, st.integers(0, 0xFF))


@given(writes=st.lists(st.tuples(st.integers(0, 0x1FF), words()), max_size=30))
@settings(max_examples=200, deadline=None)
def test_no_write_brings_xen_down(tmp_path_factory: pytest.TempPathFactory, writes: list[tuple[int, int]]) -> None:
    """And a write that is not refused has had the effect it asked for, with the side effects foretold."""
    fake = FakeXen()
    with opened(fake, tmp_path_factory.mktemp("xen")) as xen:
        for register, value in writes:
            before = list(fake.entries)
            try:
                xen.apic_write(IOAPIC, register, value)
            except HypercallRefused:
                assert fake.entries == before
                continue
            assert register % 2 == 0, "the destination is Xen's"
            now = fake.entries[(register - 0x10) // 2]
            assert not (now ^ value) & (LEVEL | LOW)
            foretold = " ".join(side_effects(value))
            if now == before[(register - 0x10) // 2]:
                continue
            assert ("is unmasked" in foretold) == (bool(value & MASKED) and not now & MASKED)
            assert ("stays masked" in foretold) == (not value & MASKED and bool(now & MASKED))


def test_side_effects_name_the_pirq() -> None:
    assert any("a pIRQ: 181 " in effect for effect in side_effects(0xB5))
    assert any("refused" in effect for effect in side_effects(0xB5))
    assert not any("pIRQ" in effect for effect in side_effects(MASKED | LEVEL | 0xB5))
