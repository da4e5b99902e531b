# SPDX-License-Identifier: MIT
"""Config spaces for hypothesis: any bytes, and bytes that lead decoders deep (valid headers, capability lists)."""

from __future__ import annotations

import random

from hypothesis import strategies as st

from dom0kit.address import Sbdf
from dom0kit.pci.capabilities import EXTENDED, STANDARD
from dom0kit.source.interface import RawFunction

SIZES = (0, 1, 4, 16, 63, 64, 65, 128, 200, 255, 256, 257, 260, 1024, 4095, 4096, 5000)
_RESOURCE = st.text(alphabet="0123456789abcdefx \n", max_size=80)


@st.composite
def configs(draw: st.DrawFn) -> bytes:
    """Config space of any length; mostly with lists that lead somewhere."""
    if draw(st.booleans()):
        return draw(st.binary(max_size=600))
    rng = random.Random(draw(st.integers(0, 2**32)))
    size = draw(st.sampled_from(SIZES))
    config = bytearray(rng.randbytes(size) if draw(st.booleans()) else bytes(size))
    if size < 64:
        return bytes(config)
    config[0x06] |= 0x10
    config[0x0E] = draw(st.sampled_from([0, 1, 2, 0x80, 0x81, 3, 0x7F]))
    chain = draw(st.lists(st.tuples(st.sampled_from([*STANDARD, 0xFF]), st.integers(0x10, 0x3F)), max_size=8))
    pointer = 0x14 if config[0x0E] & 0x7F == 2 else 0x34
    for id, place in chain:
        config[pointer] = place * 4
        if place * 4 + 1 >= size:
            break
        config[place * 4] = id
        pointer = place * 4 + 1
    where = 0x100
    for id, following in draw(
        st.lists(st.tuples(st.sampled_from([*EXTENDED, 0xFFFF]), st.integers(0, 0x3FF)), max_size=8)
    ):
        if where + 4 > size:
            break
        header = id | rng.randrange(16) << 16 | following << 22
        config[where : where + 4] = header.to_bytes(4, "little")
        where = following * 4
    return bytes(config)


@st.composite
def functions(draw: st.DrawFn) -> RawFunction:
    """A function with hostile bytes and hostile attributes."""
    names = (
        "vendor",
        "device",
        "class",
        "irq",
        "numa_node",
        "iommu_group",
        "physfn",
        "reset_method",
        "msi_irqs",
        "driver",
    )
    attributes = draw(st.dictionaries(st.sampled_from(names), st.text(max_size=12), max_size=4))
    if draw(st.booleans()):
        attributes["resource"] = draw(st.one_of(_RESOURCE, st.text(max_size=20)))
    return RawFunction(Sbdf(0, 1, 2, 3), draw(configs()), attributes)
