# SPDX-License-Identifier: MIT
"""The text of a ``partition.toml``: a commented one to start from, or one that a search found."""

from __future__ import annotations

from collections.abc import Sequence

from dom0kit.address import Sbdf
from dom0kit.finding import Severity
from dom0kit.partition.ground import Ground
from dom0kit.partition.identity import class_of
from dom0kit.partition.model import FORMAT
from dom0kit.partition.suggest import Suggestion, Unit

_HEAD = """\
# Which device of this machine goes to which domain. dom0 keeps all that is not here.
# Check it with: dom0kit partition check FILE; the keys are explained by: dom0kit schema partition
format = {format}
"""
_EXAMPLE = """
[[domain]]
name = "guest"
# vcpus = 2
# memory = "2G"

[domain.policy]
# require_iommu = true        # false: the domain is trusted with the whole memory
# relaxed_rmrr = "..."        # why devices may be given away that firmware reserves memory for
# allow_shared_intx = false   # its devices may share an interrupt line with another domain's
# vectors = 64                # interrupts that its devices may have together
# numa_node = 0               # where its processors and memory are

# What can be given away, each with all that must go with it. Take the # away before what the domain shall have.
"""


def starting_point(ground: Ground, suggestion: Suggestion) -> str:
    """A file that gives nothing away yet, and names everything that can be."""
    lines = [f"# {_plain(suggestion.machine)}", _HEAD.format(format=FORMAT) + _EXAMPLE]
    for unit in suggestion.givable:
        for conflict in unit.conflicts:
            if conflict.finding.severity is Severity.WARNING:
                lines.append(f"# {conflict.finding.rule}: {_plain(conflict.finding.message)}")
        lines += [f"# {line}" for sbdf in unit.functions for line in _device(ground, sbdf)]
        lines.append("")
    for unit in suggestion.blocked:
        lines.append(f"# stays: {' '.join(map(str, unit.functions))}: {_why(unit)}")
    return "\n".join(lines).rstrip("\n") + "\n"


def partition_text(ground: Ground, domains: Sequence[tuple[str, Sequence[Sbdf]]], *, require_iommu: bool = True) -> str:
    """A file of these domains."""
    lines = [_HEAD.format(format=FORMAT)]
    for name, functions in domains:
        lines += ["[[domain]]", f'name = "{name}"', *([] if require_iommu else ["policy.require_iommu = false"]), ""]
        for sbdf in functions:
            lines += [*_device(ground, sbdf), ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def _device(ground: Ground, sbdf: Sbdf) -> list[str]:
    identity = ground.finder.identity(sbdf)
    function = ground.functions[sbdf]
    driver = f"driver {function.driver}" if function.driver is not None else "no driver"
    lines = [f"[[domain.device]]  # {sbdf} now, {driver}, class {class_of(function)}"]
    for key, value in (("path", identity.path), ("id", identity.id), ("class", identity.class_code)):
        lines.append(f'{key} = "{value}"')
    if identity.serial is not None:
        lines.append(f'serial = "{identity.serial}"')
    return lines


def _why(unit: Unit) -> str:
    return "; ".join(dict.fromkeys(each.finding.rule for each in unit.conflicts if each.is_error))


def _plain(text: str) -> str:
    """Of a recording's name: nothing that would end the comment."""
    return "".join(char if char.isprintable() else "?" for char in text)[:500]
