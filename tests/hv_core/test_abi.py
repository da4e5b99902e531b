# SPDX-License-Identifier: MIT
"""dom0kit/abi.py against the compiler's view of hv_core/abi.h: every structure, field, number and enumeration."""

from __future__ import annotations

import enum
import re
from pathlib import Path
from typing import Any

import pytest

from dom0kit import abi
from dom0kit.hypercall.core_library import load
from dom0kit.layout import Record, layout
from dom0kit.walker import Notes

HEADER = (Path(__file__).parents[2] / "hv_core" / "include" / "hv_core" / "abi.h").read_text()
CODE = re.sub(r"/\*.*?\*/", "", HEADER, flags=re.DOTALL)
STRUCTURES = [name for name in re.findall(r"^struct (hv_\w+) \{", CODE, re.MULTILINE) if name != "hv_shared_info"]
OTHER_NAMES = {"hv_map_pirq": "MapPirqArgument"}
PREFIXES: dict[str, type[enum.IntEnum] | type[enum.IntFlag]] = {
    "HV_PHYSDEVOP_": abi.Physdev,
    "HV_OP_": abi.Op,
    "HV_MAP_PIRQ_": abi.MapPirq,
    "HV_PCI_DEV_": abi.PciDev,
    "HV_FEATURE_": abi.Feature,
    "HV_KIND_": abi.Kind,
    "HV_INTERRUPT_": abi.InterruptFlag,
    "HV_IRQ_STATUS_": abi.IrqStatus,
    "HV_REPORT_": abi.Report,
    "HV_AML_": abi.AmlType,
}
ENUMS = {"hv_status": ("HV_", abi.Status), "hv_mode": ("HV_MODE_", abi.Mode), "hv_format": ("HV_FORMAT_", abi.Format),
         "hv_backend": ("HV_BACKEND_", abi.BackendKind)}  # fmt: skip
NOT_MIRRORED = {
    "HV_OP_COUNT",
    *(f"HV_CPUID_{leaf}" for leaf in ("BASE", "VERSION", "FEATURES", "SHARED_INFO", "COUNTERS")),
}
"""A count of commands, and CPUID leaves, which only code at CPL 0 reads."""

core = load()


def _record(name: str) -> type[Record]:
    camel = "".join(part.title() for part in name.removeprefix("hv_").split("_"))
    record: type[Record] = getattr(abi, OTHER_NAMES.get(name, camel))
    return record


def _leaves(type: Any, at: int = 0) -> list[tuple[int, int]]:
    """(offset, size) of every number in a C structure, in order; an array of numbers is one."""
    if type.kind == "struct":
        return [leaf for _, field in type.fields for leaf in _leaves(field.type, at + field.offset)]
    return [(at, core.ffi.sizeof(type))]


def _marked(record: type[Record]) -> list[tuple[int, int]]:
    """(offset, size) of every number in a record: which bytes change when that number does."""
    size = layout(record).size
    base = layout(record).parse(bytes(size), 0, size, Notes("test"))
    assert base is not None
    found = []
    for replaced in _with_one_changed(base):
        image = layout(record).build(replaced)
        changed = [index for index in range(size) if image[index] != 0]
        found.append((changed[0], changed[-1] - changed[0] + 1))
    return found


def _with_one_changed(record: Record) -> list[Record]:
    import msgspec

    found: list[Record] = []
    for name in record.__struct_fields__:
        value = getattr(record, name)
        if isinstance(value, Record):
            found += [msgspec.structs.replace(record, **{name: inner}) for inner in _with_one_changed(value)]
        elif isinstance(value, str):
            found.append(msgspec.structs.replace(record, **{name: "ff" * (len(value) // 2)}))
        else:
            found.append(msgspec.structs.replace(record, **{name: _all_ones(record, name)}))
    return found


def _all_ones(record: Record, name: str) -> int:
    """The largest number the field takes: every one of its bytes is not 0 then."""
    import msgspec

    for bits in (64, 32, 16, 8):
        for number in ((1 << bits) - 1, -1):
            try:
                layout(type(record)).build(msgspec.structs.replace(record, **{name: number}))
            except ValueError:
                continue
            return number
    raise AssertionError(name)


def test_the_header_has_structures() -> None:
    assert len(STRUCTURES) > 30


@pytest.mark.parametrize("name", STRUCTURES)
def test_structure(name: str) -> None:
    type = core.ffi.typeof(f"struct {name}")
    record = _record(name)
    assert layout(record).size == core.ffi.sizeof(type)
    assert _marked(record) == _leaves(type)
    assert [field for field, _ in type.fields] == list(record.__struct_fields__)


def test_the_shared_pages() -> None:
    pages = core.ffi.typeof("struct hv_shared_info")
    offsets = {name: field.offset for name, field in pages.fields}
    assert core.ffi.sizeof(pages) == 2 * abi.PAGE_BYTES
    assert (offsets["block"], offsets["list"]) == (abi.SHARED_INFO_XEN_BYTES, abi.PAGE_BYTES)


def test_every_call_has_the_size_of_its_argument() -> None:
    lib = core.lib
    for (number, command), record in abi.ARGUMENTS.items():
        wanted = lib.hv_machine_argument_bytes(number, command)
        assert wanted == layout(record).size or record is abi.PciDeviceAddPxm, (number, command)
    assert {command for number, command in abi.ARGUMENTS if number == abi.HYPERCALL_PHYSDEV} == set(abi.Physdev)
    assert {command for number, command in abi.ARGUMENTS if number == abi.HYPERCALL_DOM0KIT} == set(abi.Op)
    known = {command for command in range(256) if lib.hv_machine_argument_bytes(abi.HYPERCALL_PHYSDEV, command)}
    assert known == set(abi.Physdev)


def _numbers() -> dict[str, int]:
    text = re.findall(r"^#define (HV_\w+) \(?(0x[0-9a-fA-F]+|\d+)[uUlL]*\)? *$", CODE, re.MULTILINE)
    return {name: int(number, 0) for name, number in text}


def test_numbers() -> None:
    seen: dict[type[enum.IntEnum] | type[enum.IntFlag], set[str]] = {}
    plain = {
        "HV_ABI_VERSION": abi.VERSION,
        "HV_PCI_MMCFG_RESERVED": abi.PCI_MMCFG_RESERVED,
        "HV_HYPERCALL_PHYSDEV": abi.HYPERCALL_PHYSDEV,
        "HV_HYPERCALL_DOM0KIT": abi.HYPERCALL_DOM0KIT,
    }
    numbers = {re.sub(r"\s", "", name): value for name, value in _numbers().items()}
    assert len(numbers) > 90
    for name, value in numbers.items():
        assert getattr(core.lib, name) == value
        prefix = next((prefix for prefix in PREFIXES if name.startswith(prefix)), None)
        if name in NOT_MIRRORED:
            continue
        if name in plain:
            assert plain[name] == value
        elif prefix is not None:
            member = PREFIXES[prefix][name.removeprefix(prefix)]
            assert member == value, name
            seen.setdefault(PREFIXES[prefix], set()).add(member.name or "")
        else:
            assert getattr(abi, name.removeprefix("HV_")) == value, name
    for mirrored in PREFIXES.values():
        assert seen[mirrored] == {member.name for member in mirrored}, mirrored


@pytest.mark.parametrize("name", ENUMS)
def test_enumeration(name: str) -> None:
    prefix, mirrored = ENUMS[name]
    theirs = core.ffi.typeof(f"enum {name}").relements
    assert {key.removeprefix(prefix): value for key, value in theirs.items()} == {
        member.name: member.value for member in mirrored
    }


def test_every_status_has_a_sentence() -> None:
    assert len({status.sentence for status in abi.Status}) == len(abi.Status)
