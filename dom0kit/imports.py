# SPDX-License-Identifier: MIT
"""Importing a library without what it imports for features that nobody uses here: a start of the command is short, and
a fifth of it would be such modules."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType


def stand_in(name: str, **known: object) -> ModuleType:
    """A module that has what is `known` of the real one, and imports that when something else in it is asked for."""
    module = ModuleType(name)

    def from_the_real_one(attribute: str) -> object:
        if attribute.startswith("__"):  # asked by the import system
            raise AttributeError(attribute)
        if sys.modules.get(name) is module:
            del sys.modules[name]
        return getattr(import_module(name), attribute)

    vars(module).update(known, __getattr__=from_the_real_one)
    return module


def system_name() -> ModuleType:
    """A stand-in for platform, of which uuid (and with it msgspec) and construct want the system's name."""
    return stand_in("platform", system=lambda: os.uname().sysname)


@contextmanager
def importing(modules: Mapping[str, ModuleType | None]) -> Iterator[None]:
    """While this holds, ``import name`` gives what `modules` has for the name, and fails where that is None.

    A module that has been imported already stays what it is.
    """
    new = {name: module for name, module in modules.items() if name not in sys.modules}
    sys.modules.update(new)  # type: ignore[arg-type]  # None is how a module is kept from being imported
    try:
        yield
    finally:
        for name, module in new.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
