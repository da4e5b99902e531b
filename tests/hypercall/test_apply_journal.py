# SPDX-License-Identifier: MIT
"""The journal as somebody else may have left it, the disk as it may be, and a process that is really killed."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dom0kit import plan as p
from dom0kit.abi import Mode
from dom0kit.address import Gsi, Polarity, Sbdf, Trigger
from dom0kit.hypercall.apply import NotApplied, NotUndone, apply, recover, roll_back, status
from dom0kit.hypercall.images import AnyImage, CpuImage, DriverImage, EntriesImage, MessagesImage, PinImage, TextImage
from dom0kit.hypercall.journal import (
    AnyRecord,
    Applied,
    Begun,
    Disk,
    Done,
    GoingBack,
    Intent,
    JournalError,
    Journals,
    Locked,
    Skipped,
    Undone,
)
from dom0kit.hypercall.world import World
from dom0kit.plan import Backend, Plan
from dom0kit.serial import encode
from tests.hv_core.machines import FIRST, SPARE
from tests.hypercall.apply_machine import (
    BOOT,
    FINGERPRINT,
    OTHER,
    PHYSICAL,
    TABLE,
    VIRTUAL,
    Death,
    FakeLinux,
    MortalDisk,
    files,
    plan,
)
from tests.hypercall.test_apply_laws import DRIVERS, Stage, different, staged

GSI = Gsi(5)
LINE = plan(
    p.MapGsi(gsi=GSI, pirq=5),
    p.SetupGsi(gsi=GSI, trigger=Trigger.LEVEL, polarity=Polarity.LOW),
    p.UnbindDriver(function=PHYSICAL, driver="e1000e"),
)
NAME = "000001.journal"


@pytest.fixture
def stage() -> Iterator[Stage]:
    with staged(Mode.DIRECT) as made:
        yield made


def journal(stage: Stage) -> Path:
    return Path(stage.run) / NAME


def lines(*records: AnyRecord) -> bytes:
    data = [encode(record) for record in records]
    return b"".join(b"%08x %s\n" % (zlib.crc32(each), each) for each in data)


def applied(stage: Stage) -> bytes:
    """The journal's lines of `LINE`, applied."""
    stage.apply(LINE)
    return journal(stage).read_bytes().rstrip(b"\0")


def read(stage: Stage) -> object:
    with Journals(stage.run) as journals:
        return journals.read(1)


BEGUN = Begun(boot=BOOT, plan=LINE)
PIN = PinImage(
    gsi=GSI,
    ioapic=FIRST,
    pin=5,
    entry=0x10000,
    pirq=5,
    set_up=False,
    has_vector=False,
    shared=False,
    apic_id=None,
    cpu=None,
)


@pytest.mark.parametrize(
    "records",
    [
        (Applied(),),
        (BEGUN, BEGUN),
        (BEGUN, Applied()),
        (BEGUN, Done(operation=0)),
        (BEGUN, Undone(operation=0)),
        (BEGUN, Intent(operation=0, image=PIN)),
        (BEGUN, Intent(operation=1, image=PIN)),
        (BEGUN, Skipped(operation=1)),
        (BEGUN, Skipped(operation=0), Intent(operation=1, image=PIN), Skipped(operation=2)),
        (BEGUN, Skipped(operation=0), Intent(operation=1, image=PIN), Done(operation=0)),
        (BEGUN, Skipped(operation=0), Intent(operation=1, image=PIN), Done(operation=1), Done(operation=1)),
        (BEGUN, Skipped(operation=0), Skipped(operation=1), Skipped(operation=2), Skipped(operation=3)),
        (BEGUN, Skipped(operation=0), GoingBack(), Intent(operation=1, image=PIN)),
        (BEGUN, Skipped(operation=0), GoingBack(), GoingBack()),
        (BEGUN, Skipped(operation=0), GoingBack(), Undone(operation=0)),
        (BEGUN, Skipped(operation=0), Intent(operation=1, image=PIN), Undone(operation=1)),
        (
            BEGUN,
            Skipped(operation=0),
            Intent(operation=1, image=PIN),
            GoingBack(),
            Undone(operation=1),
            Undone(operation=1),
        ),
        (BEGUN, Skipped(operation=0), Skipped(operation=1), Skipped(operation=2), Applied(), Applied()),
        (BEGUN, Skipped(operation=0), Intent(operation=1, image=DriverImage(driver="x"))),
        (BEGUN, Skipped(operation=0), Intent(operation=1, image=CpuImage(irq=1, cpu=0, pin=None, fleeting=True))),
    ],
)
def test_records_that_contradict_each_other(records: tuple[AnyRecord, ...], stage: Stage) -> None:
    applied(stage)
    before = stage.state()
    journal(stage).write_bytes(lines(*records))
    for verb in (stage.recover, stage.roll_back, lambda: stage.apply(LINE)):
        with pytest.raises(JournalError, match=r"000001\.journal contradicts itself.*remove it"):
            verb()
    assert different(before, stage.state()) == {}


def test_a_number_outside_its_range_is_no_record(stage: Stage) -> None:
    data = applied(stage)
    for good, bad in ((b'"pin":5', b'"pin":120'), (b'"gsi":5', b'"gsi":-5'), (b'"intent"', b'"intend"')):
        assert good in data
        broken = [line.replace(good, bad)[9:] for line in data.splitlines()]
        journal(stage).write_bytes(b"".join(b"%08x %s\n" % (zlib.crc32(each), each) for each in broken))
        with pytest.raises(JournalError, match=r"damaged, so what it says is not believed.*remove it"):
            read(stage)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_bytes(data: st.DataObject) -> None:
    """Whatever stands in a journal is refused, or is one that our writer can have left."""
    with staged(Mode.DIRECT) as stage:
        good = applied(stage)
        kind = data.draw(st.sampled_from(["anything", "cut", "changed", "mixed"]))
        if kind == "anything":
            bad = data.draw(st.binary(max_size=200))
        elif kind == "cut":
            bad = good[: data.draw(st.integers(0, len(good)))] + bytes(data.draw(st.integers(0, 30)))
        elif kind == "changed":
            at = data.draw(st.integers(0, len(good) - 1))
            bad = good[:at] + bytes([good[at] ^ data.draw(st.integers(1, 255))]) + good[at + 1 :]
        else:
            bad = b"".join(data.draw(st.lists(st.sampled_from(good.splitlines(keepends=True)), max_size=12)))
        journal(stage).write_bytes(bad)
        try:
            with Journals(stage.run) as journals:
                entry = journals.read(1)
        except JournalError:
            return
        left = bad[: entry.length]
        assert left == good[: entry.length], "a beginning of the one that was written"
        assert b"\n" not in bad[entry.length :]


@pytest.mark.parametrize("cut", [1, 9, 40, 200])
def test_a_cut_line_is_written_over(cut: int, stage: Stage) -> None:
    """A process was killed while it wrote a record: the next one takes its place, be it shorter."""
    good = lines(BEGUN, Skipped(operation=0))
    torn = lines(Intent(operation=1, image=PIN))[:cut]
    applied(stage)
    journal(stage).write_bytes(good + torn + bytes(4096))
    with Journals(stage.run) as journals:
        entry = journals.read(1)
        assert (entry.length, len(entry.steps), entry.going_back) == (len(good), 1, False)
        writer = journals.go_on(entry)
        writer.add(GoingBack())
        writer.close()
        entry = journals.read(1)
    assert (entry.length, len(entry.steps), entry.going_back) == (len(good) + len(lines(GoingBack())), 1, True)


def test_whose_files(stage: Stage, tmp_path: Path) -> None:
    applied(stage)
    folder = Path(stage.run)
    journal(stage).chmod(0o620)
    with pytest.raises(JournalError, match="others may write it, so what stands there is not believed"):
        read(stage)
    journal(stage).chmod(0o600)
    folder.chmod(0o770)
    with pytest.raises(JournalError, match="others may write it"):
        Journals(stage.run)
    folder.chmod(0o700)
    if os.geteuid() == 0:
        os.chown(journal(stage), 12345, -1)
        with pytest.raises(JournalError, match="is another user's"):
            read(stage)
        os.chown(journal(stage), 0, -1)
    kept = journal(stage).rename(folder / "kept")
    journal(stage).symlink_to(kept)
    with pytest.raises(JournalError, match=r"000001\.journal cannot be opened"):
        read(stage)
    journal(stage).unlink()
    os.mkfifo(journal(stage))
    with pytest.raises(JournalError, match="is no journal: look what it is, and remove it"):
        read(stage)
    journal(stage).unlink()
    link = tmp_path / "link"
    link.symlink_to(folder)
    with pytest.raises(JournalError, match=f"{link} cannot be used"):
        Journals(str(link))
    with pytest.raises(JournalError, match="No such file or directory"):
        Journals(str(tmp_path / "none" / "run"))


def test_names_that_are_no_journals(stage: Stage) -> None:
    applied(stage)
    for name in ("new", "lock", "1.journal", "٠٠٠٠٠٧.journal", "000007.journal.bak", "00000x.journal"):
        (Path(stage.run) / name).touch()
    with Journals(stage.run) as journals:
        assert journals.numbers() == [1]
    journal(stage).rename(Path(stage.run) / "999999.journal")
    with pytest.raises(JournalError, match="roll plans back"):
        stage.apply(plan())


def test_another_hypervisor_by_now(stage: Stage) -> None:
    stage.apply(LINE)
    after = stage.state()
    with (
        Journals(stage.run) as journals,
        pytest.raises(NotUndone, match="applied to library, and this is xen"),
    ):
        roll_back(journals, lambda backend: World(Backend.XEN, None, FakeLinux(stage.linux_root)), boot=BOOT)
    assert different(after, stage.state()) == {}
    stage.roll_back()


def test_one_at_a_time(stage: Stage) -> None:
    with Journals(stage.run), pytest.raises(Locked, match="another process applies a plan"):
        Journals(stage.run)
    with Journals(stage.run):
        pass


class FullDisk(Disk):
    """No room from the n-th write on, or at once."""

    def __init__(self, after: int | None, code: int = errno.ENOSPC) -> None:
        self.after = after
        self.code = code

    def reserve(self, file: int, size: int) -> None:
        if self.after is None:
            raise OSError(self.code, os.strerror(self.code))
        super().reserve(file, size)

    def write(self, file: int, data: bytes, offset: int) -> None:
        assert self.after is not None
        if not self.after:
            raise OSError(self.code, os.strerror(self.code))
        self.after -= 1
        super().write(file, data, offset)


def test_a_full_disk_stops_a_plan_before_it_begins(stage: Stage) -> None:
    before = stage.state()
    with (
        Journals(stage.run, FullDisk(None)) as journals,
        pytest.raises(JournalError, match=r"so nothing was done \(No space left on device\): make room there"),
    ):
        apply(LINE, stage.world(), journals, fingerprint=FINGERPRINT, boot=BOOT)
    assert different(before, stage.state()) == {}
    assert sorted(os.listdir(stage.run)) == ["lock"]


class DeafDisk(Disk):
    """Writes, but does not say so: the n-th sync fails."""

    def __init__(self, after: int) -> None:
        self.after = after

    def sync(self, file: int) -> None:
        self.after -= 1
        if not self.after:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().sync(file)


@pytest.mark.parametrize("after", range(3, 10))
def test_a_record_of_which_nobody_knows_whether_it_was_written(after: int, stage: Stage) -> None:
    """What is written next takes its place, all of it."""
    before = stage.state()
    with (
        Journals(stage.run, DeafDisk(after)) as journals,
        pytest.raises(NotApplied, match=r"cannot be written \(Input/output error\)"),
    ):
        apply(LINE, stage.world(), journals, fingerprint=FINGERPRINT, boot=BOOT)
    assert different(before, stage.state()) == {}
    with Journals(stage.run) as journals:
        writer = journals.begin(BOOT, LINE)
        writer.close()
        writer = journals.go_on(journals.read(1))
        journals.disk = DeafDisk(1)
        with pytest.raises(JournalError):
            writer.add(Intent(operation=0, image=PIN))
        writer.add(Skipped(operation=0))
        writer.close()
        assert [step.image for step in journals.read(1).steps] == [None]


def test_a_disk_that_breaks_on_the_way(stage: Stage) -> None:
    """The journal cannot say any more that the way goes back; what it says is enough to go back later."""
    before = stage.state()
    for after in range(8):
        with Journals(stage.run, FullDisk(after, errno.EIO)) as journals:
            if after == 0:
                with pytest.raises(JournalError, match="nothing was done"):
                    apply(LINE, stage.world(), journals, fingerprint=FINGERPRINT, boot=BOOT)
                continue
            with pytest.raises(NotUndone, match=r"cannot be written \(Input/output error\); run dom0kit recover"):
                apply(LINE, stage.world(), journals, fingerprint=FINGERPRINT, boot=BOOT)
        assert not stage.recover()
        assert different(before, stage.state()) == {}


def test_a_really_full_disk(tmp_path: Path) -> None:
    """A small tmpfs, as /run is one: filled up once the plan has begun, and the plan ends as if nothing were."""
    if os.geteuid() != 0:
        pytest.skip("mounting takes root")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(tmp_path)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    try:
        _fill_up(tmp_path)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def _fill_up(tmpfs: Path) -> None:
    class Filling(MortalDisk):
        def rename(self, old: str, new: str, folder: int) -> None:
            super().rename(old, new, folder)
            with open(tmpfs / "other", "wb", buffering=0) as file, suppress(OSError):
                while True:
                    file.write(bytes(4096))

    with staged(Mode.DIRECT) as stage:
        before = stage.state()
        large = plan(*(p.MapMsix(function=Sbdf(0, 1, n % 32, 0), entry=n, table=TABLE) for n in range(999)))
        with Journals(str(tmpfs / "run")) as journals, pytest.raises(JournalError, match="make room there"):
            apply(large, stage.world(), journals, fingerprint=FINGERPRINT, boot=BOOT)
        assert different(before, stage.state()) == {}
        failing = plan(*LINE.operations, p.BindDriver(function=PHYSICAL, driver="none"))
        with Journals(str(tmpfs / "run"), Filling(Death())) as journals:
            with pytest.raises(NotApplied, match="there is no driver none"):
                apply(failing, stage.world(), journals, fingerprint=FINGERPRINT, boot=BOOT)
            assert different(before, stage.state()) == {}
            assert status(journals, boot=BOOT) == ()
        (tmpfs / "other").unlink()
        with Journals(str(tmpfs / "run"), Filling(Death())) as journals:
            apply(LINE, stage.world(), journals, fingerprint=FINGERPRINT, boot=BOOT)
            (state,) = status(journals, boot=BOOT)
            assert state.state == "applied"


def test_there_is_room_for_every_record() -> None:
    """The longest images: what is reserved suffices, so that the file never grows."""
    far = Sbdf(0xFFFF, 0xFF, 0x1F, 7)
    message = p.Message(0xFEEFFFFF, 0xFFFFFFFF)
    most = {"ioapic": (1 << 64) - 1, "pin": 119, "entry": (1 << 64) - 1, "pirq": 0x7FFFFFFF}
    pin = msgspec.structs.replace(PIN, gsi=Gsi(0x7FFFFFFF), apic_id=0xFFFFFFFF, cpu=0xFFFFFFFF, **most)
    longest: list[tuple[p.AnyOperation, AnyImage]] = [
        (p.SetupGsi(gsi=GSI, trigger=Trigger.LEVEL, polarity=Polarity.LOW), pin),
        (p.SetAffinity(irq=5, cpu=0), CpuImage(irq=0x7FFFFFFF, cpu=0xFFFFFFFF, pin=pin, fleeting=False)),
        (p.IoapicRemove(address=SPARE, gsi_base=GSI), EntriesImage(entries=((1 << 64) - 1,) * 120)),
        (p.UnmapPirq(pirq=5, count=32), MessagesImage(function=far, msix=False, entry=2047, messages=(message,) * 32)),
        (p.SetLinuxAffinity(irq=5, cpus="1"), TextImage(text="x" * 1000)),
    ]
    for operation, image in longest:
        what = plan(operation)
        needed = lines(
            Intent(operation=0xFFFFF, image=image),
            Done(operation=0xFFFFF, result=0xFFFFFFFF),
            Applied(),
            GoingBack(),
            Undone(operation=0xFFFFF),
        )
        with staged(Mode.DIRECT) as stage, Journals(stage.run) as journals:
            writer = journals.begin(BOOT, what)
            writer.close()
            room = journal(stage).stat().st_size - len(lines(Begun(boot=BOOT, plan=what)))
            assert len(needed) < room


# ---- A process that is really killed ---------------------------------------------------------------------------------

CHILD = """
import sys
from pathlib import Path
from dom0kit.hypercall.apply import apply
from dom0kit.hypercall.world import World
from dom0kit.hypercall.journal import Journals
from dom0kit.plan import Backend, Plan
from dom0kit.serial import decode
from tests.hypercall.apply_machine import BOOT, FINGERPRINT, FakeLinux

root = Path(sys.argv[1])
plan = decode((root / "plan.json").read_bytes(), Plan)
world = World(Backend.LINUX, None, FakeLinux(root / "linux"))
with Journals(str(root / "run")) as journals:
    print("go", flush=True)
    apply(plan, world, journals, fingerprint=FINGERPRINT, boot=BOOT)
"""


def of_linux() -> Plan:
    """Some hundred operations whose effects outlive a process."""
    operations: list[p.AnyOperation] = []
    for _ in range(20):
        operations += (
            p.UnbindDriver(function=PHYSICAL, driver="e1000e"),
            p.SetDriverOverride(function=PHYSICAL, driver="vfio-pci"),
            p.WriteMsixEntry(function=PHYSICAL, bar=0, offset=0x800, entry=1, message=p.Message(0xFEE00000, 0x31)),
            p.BindDriver(function=PHYSICAL, driver="vfio-pci"),
            p.WriteConfig(function=VIRTUAL, offset=4, width=2, value=4, mask=4),
            p.WriteMsi(function=VIRTUAL, capability=0x50, wide=True, message=p.Message(0xFEE01000, 0x32), count=4),
            p.UnbindDriver(function=PHYSICAL, driver="vfio-pci"),
            p.SetDriverOverride(function=PHYSICAL, driver=None),
            p.BindDriver(function=PHYSICAL, driver="e1000e"),
            p.WriteConfig(function=VIRTUAL, offset=4, width=2, value=0, mask=4),
            p.SetLinuxAffinity(irq=30, cpus="1"),
        )
    return plan(*operations, p.SetDriverOverride(function=OTHER, driver=None), backend=Backend.LINUX)


@pytest.mark.slow
def test_kill_9(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_bytes(encode(of_linux()))
    linux = FakeLinux(tmp_path / "linux")
    linux.drivers(*DRIVERS)
    linux.give(PHYSICAL, "e1000e")
    linux.give(VIRTUAL)
    linux.give(OTHER, "vfio-pci", override="vfio-pci")
    linux.irq(30)
    before = files(tmp_path / "linux")
    command = [sys.executable, "-c", CHILD, str(tmp_path)]

    def world(backend: Backend) -> World:
        return World(backend, None, FakeLinux(tmp_path / "linux"))

    started = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = files(tmp_path / "linux")
    assert after != before
    whole = time.monotonic() - started
    sides = set()
    for number in range(6):
        with Journals(str(tmp_path / "run")) as journals:
            for entry in map(journals.read, journals.numbers()):
                assert entry.is_whole
                roll_back(journals, world, boot=BOOT)
        assert files(tmp_path / "linux") == before
        with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"go\n"
            time.sleep(whole * number / 12)
            child.send_signal(signal.SIGKILL)
        with Journals(str(tmp_path / "run")) as journals:
            recover(journals, world, boot=BOOT)
            left = status(journals, boot=BOOT)
        sides.add(bool(left))
        assert files(tmp_path / "linux") == (after if left else before)
    assert False in sides, "the process was killed while it was at work"
