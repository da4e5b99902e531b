# SPDX-License-Identifier: MIT
"""What hotplug asks of Linux, in files below a folder, and the model that stands for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dom0kit.address import Sbdf
from dom0kit.hotplug.kernel import HotplugLinux
from tests.hotplug.machines import Q35, kernel

FUNCTION = Sbdf.parse("0000:00:03.0")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    real = tmp_path / "sys/devices/pci0000:00" / str(FUNCTION)
    real.mkdir(parents=True)
    (real / "driver_override").write_text("")
    bus = tmp_path / "sys/bus/pci"
    (bus / "devices").mkdir(parents=True)
    (bus / "devices" / str(FUNCTION)).symlink_to(real)
    (bus / "devices" / "no address").mkdir()
    (bus / "slots/7").mkdir(parents=True)
    (bus / "slots/7/latch").write_text("1\n")
    return tmp_path


def test_an_incarnation_is_another_after_a_function_came_back(root: Path) -> None:
    linux = HotplugLinux(str(root))
    first = linux.incarnations()
    assert list(first) == [FUNCTION]
    real = root / "sys/devices/pci0000:00" / str(FUNCTION)
    real.rename(real.with_name("gone"))
    assert linux.incarnations() == {}
    real.mkdir()
    assert linux.incarnations()[FUNCTION] != first[FUNCTION]


def test_nothing_is_there(tmp_path: Path) -> None:
    assert HotplugLinux(str(tmp_path)).incarnations() == {}


def test_a_slot_of_which_a_register_is_missing(root: Path) -> None:
    linux = HotplugLinux(str(root))
    assert (linux.slot("7", "latch"), linux.slot("7", "power"), linux.slot("8", "power")) == ("1", None, None)


def test_the_model_binds_as_linux_does() -> None:
    nvme = Sbdf.parse("0000:01:00.0")
    model = kernel(Q35)
    model.vanish(nvme)
    model.appear(model.recorded[nvme])
    assert model.linux.driver(nvme) is None
    model.settle()
    assert model.linux.driver(nvme) == "nvme"
    model.vanish(nvme)
    model.appear(model.recorded[nvme])
    model.linux.set_override(nvme, "none")
    model.settle()
    assert model.linux.driver(nvme) is None
    with pytest.raises(ValueError, match="is there already"):
        model.appear(model.recorded[nvme])
