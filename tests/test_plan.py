# SPDX-License-Identifier: MIT
"""Plans as values: JSON and back, what makes no sense is no plan, every operation says how far it can be undone."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0kit import plan as p
from dom0kit.address import Gsi, Sbdf
from dom0kit.hypercall.effects import EFFECTS
from dom0kit.plan import AnyOperation, Backend, Message, Plan, Reach, ResultOf
from dom0kit.serial import UndecodableJson, decode, encode, schema
from tests.hypercall.apply_machine import TABLE, VIRTUAL, plan
from tests.hypercall.test_apply_laws import operations

REMOTE = Sbdf(0x10000, 0, 0, 0)


@given(st.lists(operations, max_size=5), st.text(max_size=20))
def test_json_and_back(steps: list[AnyOperation], why: str) -> None:
    steps = [msgspec.structs.replace(step, why=why) for step in steps]
    made = plan(*steps, facts=(p.ModeIs(intercept=True), p.EntryIs(ioapic=1 << 63, pin=3, value=(1 << 64) - 1)))
    text = encode(made, indent=2)
    assert decode(text, Plan) == made
    assert encode(decode(text, Plan), indent=2) == text


@given(operations, st.sampled_from(Backend))
def test_the_way_back_is_told(operation: AnyOperation, backend: Backend) -> None:
    inverse = operation.inverse(backend)
    assert bool(inverse.residue) == (inverse.reach is not Reach.EXACT)
    if backend not in operation.backends:
        assert inverse == p.Inverse(Reach.ABSENT, f"{backend.value} has no such call")
    assert str(operation).isprintable()


def test_every_operation_has_an_effect() -> None:
    assert set(get_args(AnyOperation)) == set(EFFECTS)


def test_the_schema_names_every_operation() -> None:
    text = json.dumps(schema(Plan))
    for operation in get_args(AnyOperation):
        assert f'"{operation.__struct_config__.tag}"' in text


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: p.MapMsi(function=VIRTUAL, count=3), "3 MSI messages: the count is a power of two"),
        (
            lambda: p.MapMsi(function=VIRTUAL, count=2, message=Message(0xFEE00000, 0xFFFFFFFF)),
            "the data of the last MSI message has more than 32 bits",
        ),
        (lambda: p.MapMsix(function=VIRTUAL, entry=0, table=0), "the MSI-X table of 0000:00:04.0 cannot be at 0"),
        (lambda: p.PciDeviceAdd(function=REMOTE), "10000:00:00.0: hypercalls have 16 bits for a segment"),
        (lambda: p.PciDeviceAdd(function=VIRTUAL, physical=Sbdf(1, 0, 0, 0)), "of another segment"),
        (lambda: p.WriteEntry(ioapic=1 << 64, pin=0, entry=0), "ioapic has 64 bits, and cannot be 0x10000000000000000"),
        (lambda: p.WriteConfig(function=VIRTUAL, offset=6, width=4, value=0, mask=1), "no register of 4 bytes at 0x6"),
        (lambda: p.WriteConfig(function=VIRTUAL, offset=6, width=3, value=0, mask=1), "no register of 3 bytes at 0x6"),
        (lambda: p.WriteConfig(function=VIRTUAL, offset=6, width=2, value=2, mask=1), "value 0x2 and mask 0x1"),
        (lambda: p.ConfigIs(function=VIRTUAL, offset=6, width=1, value=0, mask=0x100), "do not fit a register"),
        (lambda: p.EntryIs(ioapic=0, pin=0, value=3, mask=1), "a value has bits outside its mask"),
        (lambda: p.WriteMsixEntry(function=VIRTUAL, bar=0, offset=0, entry=0), "either given or of a pIRQ"),
        (
            lambda: p.WriteMsixEntry(function=VIRTUAL, bar=0, offset=4, entry=0, pirq=1),
            "an MSI-X table does not lie at 0x4 of its BAR",
        ),
        (lambda: p.WriteMsi(function=VIRTUAL, capability=0x52, wide=True, pirq=1), "no capability lies at 0x52"),
        (
            lambda: plan(p.SetAffinity(irq=ResultOf(0), cpu=1)),
            r"operation 0 \(move IRQ of operation 0 to CPU 1\): no operation 0 before it gives a pIRQ",
        ),
        (
            lambda: plan(p.CreateDomain(domain=1), p.SetAffinity(irq=ResultOf(0), cpu=1)),
            "no operation 0 before it gives a pIRQ",
        ),
        (
            lambda: plan(p.CreateDomain(domain=1), backend=Backend.XEN),
            r"operation 0 \(create domain 1\): xen has no such",
        ),
        (
            lambda: plan(
                p.MapMsix(function=VIRTUAL, entry=0, table=TABLE, message=Message(0xFEE00000, 0x41)),
                backend=Backend.XEN,
            ),
            "on Xen messages are Xen's",
        ),
    ],
)
def test_what_makes_no_sense_is_no_plan(make: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make()


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (b'"gsi":5', b'"gsi":2147483648'),
        (b'"fingerprint":"5', b'"fingerprint":"X'),
        (b'"format":1', b'"format":2'),
        (b'"pirq":5', b'"pirq":-1'),
        (b'"modern"', b'"postmodern"'),
        (b'"title":"', b'"title":"' + b"x" * 1001),
        (b'"operations":[', b'"operations":[' + b"[" * 100_000),
    ],
)
def test_a_plan_from_anybody(good: bytes, bad: bytes) -> None:
    text = encode(plan(p.MapGsi(gsi=Gsi(5), pirq=5)))
    assert good in text
    with pytest.raises(UndecodableJson):
        decode(text.replace(good, bad), Plan)
