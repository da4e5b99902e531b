# SPDX-License-Identifier: MIT
"""JSON of the toolkit's values: one encoder, one decoder, one schema, all from the types.

Values are frozen msgspec structs. An address is written as people write it (``0000:00:1f.3``), bytes as hexadecimal
text (`Hex`). The same value always gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import msgspec

from dom0kit.address import Sbdf

T = TypeVar("T")

Hex = str
"""Bytes written as lower-case hexadecimal text without blanks."""


class UndecodableJson(ValueError):
    """The text is not JSON of the type that was asked for; the message says where it departs."""


def encode(value: object, *, indent: int | None = None) -> bytes:
    """JSON text of a value; with `indent`, one for people."""
    text = msgspec.json.encode(value, enc_hook=_to_builtin)
    return text if indent is None else msgspec.json.format(text, indent=indent)


def pieces(value: msgspec.Struct) -> Iterator[bytes]:
    """The bytes of ``encode(value, indent=2)`` and a line's end, a field of `value` or an element of a list at a time:
    a large machine's text is several times the size of its facts, and need not be held."""
    opening = b"{\n"
    for name in value.__struct_fields__:
        field = getattr(value, name)
        yield opening + b'  "%s": ' % name.encode()
        if isinstance(field, tuple) and field:
            for number, element in enumerate(field):
                yield (b",\n    " if number else b"[\n    ") + _indented(element, b"\n    ")
            yield b"\n  ]"
        else:
            yield _indented(field, b"\n  ")
        opening = b",\n"
    yield b"\n}\n"


def _indented(value: object, line: bytes) -> bytes:
    return encode(value, indent=2).replace(b"\n", line)


def decode(text: bytes, type: type[T]) -> T:
    """The value of `type` that `encode` wrote; UndecodableJson for any other text."""
    try:
        return msgspec.json.decode(text, type=type, dec_hook=_from_builtin)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UndecodableJson(str(error)) from error


def decoder(type: Any) -> msgspec.json.Decoder[Any]:
    """Decodes many values of `type`; msgspec's errors are its own."""
    return msgspec.json.Decoder(type, dec_hook=_from_builtin)


def schema(type: Any) -> dict[str, Any]:
    """JSON Schema (2020-12) of `type`."""
    return msgspec.json.schema(type, schema_hook=_schema)


def _to_builtin(value: Any) -> Any:
    if isinstance(value, Sbdf):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _from_builtin(type: type, value: Any) -> Any:
    if type is Sbdf and isinstance(value, str):
        return Sbdf.parse(value)
    raise TypeError(f"{type.__name__} has no JSON form")


def _schema(type: type) -> dict[str, Any]:
    if type is Sbdf:
        return {"type": "string", "pattern": "^[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\\.[0-7]$"}
    raise TypeError(f"{type.__name__} has no JSON form")
