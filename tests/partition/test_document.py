# SPDX-License-Identifier: MIT
"""The text of a partition: what it means, and what is said of each kind of mistake, with line and column."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dom0kit.finding import RULES
from dom0kit.partition import rules  # noqa: F401  (declares them)
from dom0kit.partition.document import Document, Key, Mistake, Mistakes, places, read
from dom0kit.partition.model import Device, Domain, Partition, Policy, Target
from dom0kit.serial import schema

WHOLE = b"""\
# a comment
format = 1

[[domain]]
name = "net"        # another
vcpus = 4
memory = "2G"
backend = "xen"
policy = { vectors = 64, relaxed_rmrr = "the remote console is off" }

[[domain.device]]
path = "0000:00/1c.0/00.0"
id = '8086:1533'
class = "020000"
serial = "0011223344556677"

[[domain]]
name = "disk"
number = 7
device = [
  { sbdf = "3:0.0" },  # , } ]
  { id = "1b36:0010", comment = \"\"\"two
lines, "quoted" \"\"\" },
]
[domain.policy]
require_iommu = false
allow_shared_intx = true
numa_node = 1
"""


def test_a_whole_file() -> None:
    document = read(WHOLE)
    assert document.partition == Partition(
        domain=(
            Domain(
                name="net",
                vcpus=4,
                memory="2G",
                backend=Target.XEN,
                policy=Policy(vectors=64, relaxed_rmrr="the remote console is off"),
                device=(
                    Device(path="0000:00/1c.0/00.0", id="8086:1533", class_code="020000", serial="0011223344556677"),
                ),
            ),
            Domain(
                name="disk",
                number=7,
                policy=Policy(require_iommu=False, allow_shared_intx=True, numa_node=1),
                device=(Device(sbdf="3:0.0"), Device(id="1b36:0010", comment='two\nlines, "quoted" ')),
            ),
        )
    )
    assert document.partition.domain[0].memory_bytes == 2 << 30
    assert [document.partition.number(index) for index in (0, 1)] == [1, 7]
    lines = [document.line(*key) for key in ((0, None), (0, 0), (1, None), (1, 0), (1, 1))]
    assert lines == [4, 11, 17, 21, 22]


def test_an_empty_file_gives_nothing_away() -> None:
    assert read(b"").partition == Partition()


D = b'[[domain]]\nname = "a"\n'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"fromat = 1", ["line 1, column 1: there is no key fromat, did you mean format?"]),
        (b"format = 2", ["line 1, column 1: format cannot be 2: expected `int` <= 1"]),
        (b"x = \n", ["line 1, column 5: Invalid value"]),
        (b'x = """\n', ["line 2, column 1: Unterminated string: the text ends too early"]),
        (b"\n\n x = [1, 2\ny = 3", ["line 4, column 1: Unclosed array"]),
        (b"x = 1\nx = 2", ["line 2, column 6: Cannot overwrite a value: the text ends too early"]),
        (b'a = "\xc3\xa4"\nb = "\xff"', ["line 2, column 6: the text is not UTF-8"]),
        (b"domain = 3", ["line 1, column 1: domain is a list of tables, written [[...domain]]"]),
        (b"[domain]\n", ["line 1, column 1: domain is a list of tables, written [[...domain]]"]),
        (b"\n[[domain]]\n", ["line 2, column 1: a domain needs a name"]),
        (b'[[domain]]\nname = "a b"', ["line 2, column 1: name is up to 63 letters"]),
        (b'[[domain]]\nname = "dom0"', ["line 1, column 1: dom0 has all that no other domain has"]),
        (D + D, ["line 1, column 1: two domains have the name a"]),
        (D + b'number = 2\n[[domain]]\nname = "b"', ["line 1, column 1: domains a and b have the number 2"]),
        (D + b"vcpus = 0", ["line 3, column 1: vcpus cannot be 0: expected `int` >= 1"]),
        (D + b"vcpus = true", ["line 3, column 1: vcpus cannot be true: expected `int"]),
        (
            D + b'memory = "2GB"',
            ["line 3, column 1: memory is a number of MiB, GiB or TiB, with M, G or T, such as 512M"],
        ),
        (
            D + b'backend = "kvm"',
            ["line 3, column 1: backend is one of hv_core, library, linux, loopback, xen; not 'kvm'"],
        ),
        (D + b"policy = 1", ["line 3, column 1: policy is a table, written [...policy] or { ... }"]),
        (D + b"policy = { vector = 1 }", ["line 3, column 12: there is no key vector, did you mean vectors?"]),
        (D + b'policy.relaxed_rmrr = "no"', ["line 3, column 1: relaxed_rmrr is a sentence that says why; not 'no'"]),
        (D + b"[[domain.device]]\n", ["line 3, column 1: a device needs a path, an id or an sbdf"]),
        (
            D + b"device = [{}, {id = 3}]",
            ["line 3, column 11: a device needs", "line 3, column 16: id is vendor and device"],
        ),
        (D + b'device = [{sbdf = "1f:20.0"}]', ["line 3, column 12: sbdf is a PCI address as lspci prints it"]),
        (D + b'device = [{path = "/sys"}]', ["line 3, column 12: path is segment and root bus"]),
        (
            b'nane = 1\n[[domain]]\nnam = "a"\nvcpus = -1\n[[domain.device]]\nid = "8086"\nclas = "02"',
            [
                "line 1, column 1: there is no key nane: format, domain",
                "line 2, column 1: a domain needs a name",
                "line 3, column 1: there is no key nam, did you mean name?",
                "line 4, column 1: vcpus cannot be -1",
                "line 6, column 1: id is vendor and device in lower-case hexadecimal, such as 8086:1533; not '8086'",
                "line 7, column 1: there is no key clas, did you mean class?",
            ],
        ),
    ],
)
def test_every_mistake_is_told_with_its_place(text: bytes, expected: list[str]) -> None:
    with pytest.raises(Mistakes) as raised:
        read(text)
    told = [str(mistake) for mistake in raised.value.mistakes]
    assert len(told) == len(expected)
    for sentence, begins in zip(told, expected, strict=True):
        assert sentence.startswith(begins)


def test_a_file_without_end() -> None:
    with pytest.raises(Mistakes, match="more than 4 MiB"):
        read(b"#" * ((4 << 20) + 1))


@pytest.mark.parametrize("text", [b"x = " + b"[" * 20000, b"x = " + b"9" * 5000, b"a." * 2000 + b"b = 1"])
def test_what_takes_too_much_is_refused(text: bytes) -> None:
    with pytest.raises(Mistakes):
        read(text)


@given(st.binary(max_size=200) | st.text(alphabet="[]{}=,.\"'\\#\n \t\rdomainevc0123", max_size=80).map(str.encode))
@settings(max_examples=400, deadline=None)
def test_any_text_is_read_or_refused(data: bytes) -> None:
    mistakes: tuple[Mistake, ...] = ()
    try:
        assert isinstance(read(data), Document)
    except Mistakes as refused:
        mistakes = refused.mistakes
    assert all(1 <= place.line <= data.count(b"\n") + 1 and place.column >= 1 for place, _ in mistakes)


keys = st.text(alphabet="ab-_9 .é\"'", max_size=3)
scalars = st.sampled_from(
    [
        "1",
        "-3.5e2",
        "true",
        "1979-05-27 07:32:00",
        "1979-05-27T07:32:00Z",
        '"a # , ] }"',
        "'\\'",
        '"""\n"x""\\""""',
        "'''''x'''",
    ]
)


def written(key: str) -> str:
    return key if key and key.isascii() and set(key) <= set("ab-_9") else json.dumps(key, ensure_ascii=False)


@st.composite
def values(draw: st.DrawFn, depth: int = 2) -> str:
    kind = draw(st.integers(0, 3)) if depth else 0
    if kind == 2:
        gap = draw(st.sampled_from(["", " ", "\n", " # ] }\n"]))
        return "[" + f"{gap},{gap}".join(draw(st.lists(values(depth - 1), max_size=3))) + gap + "]"
    if kind == 3:
        pairs = draw(st.dictionaries(keys, values(depth - 1), max_size=3))
        return "{" + ", ".join(f"{written(key)} = {value}" for key, value in pairs.items()) + "}"
    return draw(scalars)


@st.composite
def texts(draw: st.DrawFn) -> str:
    lines: list[str] = []
    for _ in range(draw(st.integers(0, 5))):
        header = draw(st.integers(0, 4))
        name = ".".join(written(key) for key in draw(st.lists(keys, min_size=1, max_size=3)))
        if header == 0:
            lines.append(f"[ {name} ] # [x]")
        elif header == 1:
            lines.append(f"[[{name}]]")
        else:
            lines.append(f"{draw(st.sampled_from(['', '  ']))}{name} = {draw(values())}")
    return draw(st.sampled_from(["\n", "\r\n", "\n\n"])).join(lines)


@given(texts())
@settings(max_examples=500, deadline=None)
def test_everything_in_a_text_has_a_place(text: str) -> None:
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    found = places(text)
    lines = text.replace("\r\n", "\n").split("\n")
    for key, place in found.items():
        here = lines[place.line - 1][place.column - 1 :]
        value = _at(tree, key)
        if isinstance(key[-1], str) and not here.startswith("["):  # else the header of its table
            assert here.startswith(tuple("ab-_9\"'"))
        assert value is not None
    assert {key for key in _ways(tree, ()) if not isinstance(_at(tree, key), dict | list)} <= found.keys()


def _at(tree: Any, key: Key) -> Any:
    for part in key:
        tree = tree[part]
    return tree


def _ways(tree: Any, key: Key) -> list[Key]:
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [way for name, value in pairs for way in ((*key, name), *_ways(value, (*key, name)))]


def test_the_schema_names_every_key() -> None:
    made = schema(Partition)["$defs"]
    assert set(made["Domain"]["properties"]) == {"name", "number", "vcpus", "memory", "backend", "policy", "device"}
    assert set(made["Device"]["properties"]) == {"path", "id", "class", "serial", "sbdf", "optional", "comment"}
    assert all(of["additionalProperties"] is False for name, of in made.items() if name not in ("Target",))


def test_the_example_of_the_documentation_is_a_file() -> None:
    text = (Path(__file__).parent.parent.parent / "docs" / "partition.md").read_text()
    (example,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    (domain,) = read(example.encode()).partition.domain
    assert domain.device[0].serial is not None
    named = set(re.findall(r"partition\.[a-z]+-[a-z-]+", text))
    assert named
    assert named <= RULES.keys()
