# SPDX-License-Identifier: MIT
"""Extended capabilities with random registers: what real lspci prints of them follows from our facts, to the letter."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from dom0kit.address import Sbdf
from dom0kit.pci.capabilities import EXTENDED
from dom0kit.pci.config_space import decode_function
from dom0kit.source.interface import RawFunction
from tests.pci.extended_space import express_config, registers
from tests.pci.lspci_extended import RENDERERS
from tests.pci.lspci_oracle import printed_by_lspci, write_dump

pytestmark = pytest.mark.skipif(
    shutil.which("lspci") is None, reason="lspci (Debian package pciutils) is not installed"
)

MULTICAST = 0x12

_ANY = st.sampled_from(sorted(EXTENDED)).flatmap(registers)


@pytest.mark.slow
@pytest.mark.parametrize("id", sorted(EXTENDED), ids=lambda id: f"{id:#04x} {EXTENDED[id].title}")
@settings(
    max_examples=5,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # shrinking starts lspci a thousand times
)
@given(data=st.data())
def test_lspci_prints_what_we_know(id: int, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    drawn = data.draw(st.lists(_functions(id), min_size=12, max_size=36))
    _compare(drawn, tmp_path_factory.getbasetemp() / f"{id:02x}.lspci")


@st.composite
def _functions(draw: st.DrawFn, id: int) -> bytes:
    # The capability in question first; a second one behind it proves the list.
    capabilities = (draw(registers(id)), draw(_ANY))
    types: Sequence[int] = range(16)
    if any(capability.id == MULTICAST for capability in capabilities):
        types = (0, 4, 5, 6, 9)  # of others lspci prints an overlay BAR that they do not have
    return express_config(capabilities, draw(st.sampled_from(types)), draw(st.sampled_from((1, 4, 16, 32))))


def _compare(configs: list[bytes], path: Path) -> None:
    raw = [RawFunction(Sbdf(0, 0, number >> 3, number & 7), config) for number, config in enumerate(configs)]
    write_dump(raw, path)
    printed = printed_by_lspci(path)
    for function in raw:
        facts, _ = decode_function(function)
        ours = []
        for capability in facts.capabilities:
            if capability.offset >= 0x100:
                first, *more = RENDERERS[type(capability)](capability, facts)
                place = f"{capability.offset:03x} v{getattr(capability, 'version', None)}"
                ours.append((f"Capabilities: [{place}] {first}", *more))
        assert tuple(ours) == printed[function.sbdf].extended
