# SPDX-License-Identifier: MIT
"""The installed packages on a machine with systemd: from boot on, through hotplug, reload, death, upgrade, removal."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.guest import Guest, Machine, boot, missing
from tests.service import tree

pytestmark = [
    pytest.mark.guest,
    pytest.mark.slow,
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
    pytest.mark.skipif(tree.missing() is not None, reason=tree.missing() or ""),
]
MACHINE = Machine(root_ports=2)
NOBODY = "setpriv --reuid 65534 --regid 65534 --groups dom0kit"


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    from dataclasses import replace

    deb = tree.packages()["dom0kit"]
    out = tmp_path_factory.mktemp("out")
    with boot(replace(MACHINE, tree=tree.made()), out, files=[deb]) as made:
        made.run("systemctl is-system-running --wait || true", timeout=240)
        made.run(f"dpkg -i /out/{deb.name}", timeout=240).check()
        yield made


def status(guest: Guest) -> dict[str, Any]:
    said = guest.run("dom0kit service status --format json", timeout=60)
    assert said.status in (0, 1), said.stderr
    found: dict[str, Any] = json.loads(said.stdout)
    return found


def shown(guest: Guest, *names: str) -> dict[str, str]:
    said = guest.run(f"systemctl show dom0kit.service -p {','.join(names)}").check().stdout
    return dict(line.split("=", 1) for line in said.splitlines())


def until(guest: Guest, command: str, seconds: float = 60) -> str:
    """Until a command succeeds; its output."""
    end = time.monotonic() + seconds
    while True:
        said = guest.run(command)
        if said.status == 0:
            return said.stdout
        assert time.monotonic() < end, (
            f"{command}: {said.stdout}{said.stderr}{guest.run('journalctl -u dom0kit').stdout}"
        )


def test_it_is_ready_after_its_installation(guest: Guest) -> None:
    state = shown(guest, "ActiveState", "SubState", "Type", "StatusText", "NRestarts")
    assert (state["ActiveState"], state["SubState"], state["NRestarts"]) == ("active", "running", "0"), state
    assert state["StatusText"].startswith("no hypervisor; ")
    found = status(guest)
    assert found["ready"]
    assert found["hypervisor"] == "none"
    platform = json.loads(guest.run("cat /run/dom0kit/platform.json").check().stdout)
    assert len(platform["functions"]) == found["functions"] > 5
    assert "service.no-hypervisor" in [finding["rule"] for finding in found["findings"]]
    journal = guest.run("journalctl -u dom0kit -o json --output-fields=MESSAGE,DOM0KIT_EVENT,PRIORITY").stdout
    events = [json.loads(line).get("DOM0KIT_EVENT") for line in journal.splitlines()]
    assert "no-hypervisor" in events
    assert "bug" not in events


def test_what_it_costs(guest: Guest) -> None:
    """Under 80 MB; asleep when nothing happens, the watchdog's clock aside."""
    pid = shown(guest, "MainPID")["MainPID"]
    peak = guest.run(f"awk '/VmHWM/ {{print $2}}' /proc/{pid}/status").check().stdout
    assert int(peak) < 80 * 1024
    sleeps = f"awk '/^voluntary_ctxt_switches/ {{print $2}}' /proc/{pid}/status"
    before = int(guest.run(sleeps).stdout)
    guest.run("sleep 45")
    woken = int(guest.run(sleeps).stdout) - before
    (guest.out / "cost").write_text(f"peak {peak.strip()} KiB, woken {woken} times in 45 s\n")
    assert woken <= 4  # the watchdog's clock: every 30 s


def test_a_group_may_read_and_root_alone_writes(guest: Guest) -> None:
    guest.run(f"{NOBODY} dom0kit service status >/dev/null; test $? -le 1").check()
    assert guest.run(f"{NOBODY} cat /run/dom0kit/platform.json >/dev/null").status == 0
    refused = guest.run(f"{NOBODY} dom0kit service reload")
    assert (refused.status, "only root may do that" in refused.stderr) == (1, True)
    assert guest.run("setpriv --reuid 65534 --regid 65534 --clear-groups dom0kit service status").status == 3
    logged = guest.run("journalctl -u dom0kit DOM0KIT_EVENT=write -o cat").stdout
    assert "of user 65534 is not allowed reload" in logged


def test_hotplug_is_told_to_who_watches(guest: Guest) -> None:
    guest.run("dom0kit watch --json >/out/watched 2>&1 & sleep 3")
    guest.qmp.execute("device_add", driver="virtio-rng-pci", id="plugged", bus="rp0")
    until(guest, "grep arrived /out/watched")
    event = json.loads((guest.out / "watched").read_text().splitlines()[0])
    assert event["kind"] == "arrived"
    known = "grep -q '\"sbdf\": \"'{}'\"' /run/dom0kit/platform.json"
    guest.run(known.format(event["function"])).check()
    guest.qmp.execute("device_del", id="plugged")
    until(guest, "grep departed /out/watched")
    assert guest.run(known.format(event["function"])).status == 1
    assert status(guest)["events"] == 2


def test_reload(guest: Guest) -> None:
    guest.run("echo 'default = \"eat\"' >/etc/dom0kit/hotplug.toml; systemctl reload dom0kit")
    until(guest, "journalctl -u dom0kit DOM0KIT_EVENT=not-reloaded -o cat | grep hotplug.toml")
    assert not status(guest)["ready"]
    guest.run("rm /etc/dom0kit/hotplug.toml; dom0kit service reload").check()
    assert status(guest)["ready"]
    assert shown(guest, "ActiveState", "NRestarts") == {"ActiveState": "active", "NRestarts": "0"}


def test_killed_it_comes_back(guest: Guest) -> None:
    pid = shown(guest, "MainPID")["MainPID"]
    guest.run(f"kill -9 {pid}")
    until(guest, "systemctl show dom0kit -p NRestarts | grep -q =1 && systemctl is-active dom0kit", 120)
    assert shown(guest, "MainPID")["MainPID"] not in (pid, "0")
    assert status(guest)["ready"]


def test_sandbox(guest: Guest) -> None:
    said = guest.run("systemd-analyze security --no-pager dom0kit.service", timeout=60).stdout
    (guest.out / "security").write_text(said)
    overall = next(line for line in said.splitlines() if "Overall exposure level" in line)
    assert float(overall.split(":")[1].split()[0]) < 4, said


def test_upgrade_stop_and_removal(guest: Guest) -> None:
    package = next(guest.out.glob("dom0kit_*.deb")).name
    pid = shown(guest, "MainPID")["MainPID"]
    guest.run(f"dpkg -i /out/{package}", timeout=240).check()
    until(guest, "systemctl is-active dom0kit", 120)
    assert shown(guest, "MainPID")["MainPID"] != pid
    assert status(guest)["ready"]
    guest.run("systemctl stop dom0kit.service dom0kit.socket", timeout=120).check()
    assert shown(guest, "ActiveState", "Result") == {"ActiveState": "inactive", "Result": "success"}
    assert guest.run("dom0kit service status").status == 3
    guest.run("dpkg --purge dom0kit", timeout=120).check()
    assert guest.run("command -v dom0kit; systemctl cat dom0kit").status != 0
