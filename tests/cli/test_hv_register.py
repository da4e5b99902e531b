# SPDX-License-Identifier: MIT
"""``dom0kit hv register``: the ACPI pointers in shared_info, confirmed by dom0, with the core as a library."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from dom0kit.cli import FINE, FOUND, main
from dom0kit.hypercall.core_library import CoreLibrary, ModelMachine
from dom0kit.simulation import memory_image
from dom0kit.source.pointers import Pointers
from dom0kit.source.recognise import open_source

Q35 = Path(__file__).parents[2] / "dom0kit" / "recordings" / "qemu-q35.d0k"


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch) -> CoreLibrary:
    """A core that has started from a machine's tables; it stands where the kernel module would be."""
    memory, rsdp, _ = memory_image(list(open_source(Q35).tables()))
    core = CoreLibrary(ModelMachine(memory=memory, rsdp=rsdp))

    @contextlib.contextmanager
    def opened() -> Iterator[CoreLibrary]:
        yield core

    monkeypatch.setattr("dom0kit.cli.module.opened", opened)
    return core


def found(monkeypatch: pytest.MonkeyPatch, rsdp: set[int], root: set[int]) -> None:
    """Where dom0's kernel found the tables."""
    pointers = Pointers(frozenset(rsdp), frozenset(root))
    monkeypatch.setattr("dom0kit.source.pointers.acpi_pointers", lambda: pointers)


def test_what_dom0_found_too_is_handed_over(
    core: CoreLibrary, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = core.shared_info()
    assert before.rsdp is not None
    assert before.xsdt is not None
    found(monkeypatch, {before.rsdp}, {before.xsdt})
    for _ in range(2):  # once is enough, and twice does no harm
        assert main(["hv", "register"]) == FINE
        assert capsys.readouterr().out.count("handed over by dom0") == 2
    after = core.shared_info()
    assert after.handed_over
    assert after.counter == before.counter + 2


@pytest.mark.parametrize(("rsdp", "said"), [({0x1234}, "dom0 found it at 0x1234"), (set(), "nobody in dom0 says")])
def test_what_dom0_cannot_confirm_is_not(
    core: CoreLibrary, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rsdp: set[int], said: str
) -> None:
    found(monkeypatch, rsdp, set())
    assert main(["hv", "register"]) == FOUND
    out = capsys.readouterr().out
    assert "not handed over: " in out
    assert said in out
    assert not core.shared_info().handed_over
