# SPDX-License-Identifier: MIT
"""Objects as the running kernel's interpreter evaluates them, which sees the operation regions that are only hardware.

Only names that Linux itself evaluates at boot (drivers/acpi/scan.c, pci_root.c, pci_irq.c, pci_link.c, numa/srat.c),
and as it does: of a device that is not there, nothing but what tells that.
"""

from __future__ import annotations

from typing import Final

from dom0kit.acpi.aml_answers import Answers
from dom0kit.acpi.aml_findings import KERNEL_DIFFERS
from dom0kit.acpi.aml_output import Other, Raw, Unset
from dom0kit.acpi.aml_values import Buffer, Evaluate, Integer, NotEvaluated, Package, Reference, String, Value
from dom0kit.acpi.namespace import Evaluation, parent
from dom0kit.finding import Finding

_NAMES: Final = (
    *("_STA", "_HID", "_CID", "_UID", "_ADR", "_BBN", "_SEG"),
    *("_CRS", "_PRS", "_PRT", "_PXM", "_SUN", "_MAT", "_GSB", "_CBA"),
)
_SHOWN: Final = 60  # characters of a value in a finding


def ask_kernel(answers: Answers, evaluate: Evaluate) -> list[Finding]:
    """Put the kernel's values in the place of the offline interpreter's; a finding for each that is another."""
    findings: list[Finding] = []
    absent: set[str] = set()
    for device in answers.device_paths():
        if parent(device) in absent:
            absent.add(device)
            continue
        for name in _NAMES:
            if answers.has(device, name):
                findings += _ask(answers, device, name, evaluate)
            if name == "_STA" and not _present(answers.number(device, "_STA")):
                absent.add(device)
                break
    return findings


def _present(sta: int | None) -> bool:
    """Present or functioning, as `AmlDevice.present`."""
    return sta is None or bool(sta & 0x9)


def _ask(answers: Answers, device: str, name: str, evaluate: Evaluate) -> list[Finding]:
    path = f"{device}.{name}"
    offline = answers.value(device, name)
    before = None if offline is None else answers.public(offline)
    evaluation = answers.evaluated.get(path)
    try:
        value = evaluate(path)
    except NotEvaluated as error:
        return [] if before is None else [_differs(path, f"gives nothing ({error})", before, evaluation)]
    answers.overrule(path, None if value is None else _raw(value))
    return [] if value == before else [_differs(path, f"gives {_shown(value)}", before, evaluation)]


def _differs(path: str, kernel: str, before: Value | None, evaluation: Evaluation | None) -> Finding:
    if evaluation is not None and not evaluation.ok:
        offline = f"ends with {evaluation.status}"
    else:
        offline = f"gives {_shown(before)}"
    if evaluation is not None and evaluation.depends:
        offline += f" without having seen {', '.join(map(str, evaluation.depends[:3]))}"
        offline += ", ..." if len(evaluation.depends) > 3 else ""
    return KERNEL_DIFFERS.at(f"aml:{path}", f"the kernel's interpreter {kernel}; the offline one {offline}")


def _shown(value: Value | None) -> str:
    match value:
        case None:
            return "nothing"
        case Integer(number):
            return f"{number:#x}"
        case String(text):
            shown = repr(text)
        case Buffer(text):
            shown = f"{len(text) // 2} bytes {text}"
        case Reference(path):
            shown = path
        case Package(elements):
            shown = f"a package of {len(elements)}: " + ", ".join(map(_shown, elements))
        case _:
            shown = value.text
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."


def _raw(value: Value) -> Raw:
    """The same as the offline interpreter would have given it; a reference as the name that it means."""
    match value:
        case Integer(number):
            return number
        case String(text):
            return text
        case Buffer(text):
            return bytes.fromhex(text)
        case Reference(path):
            return path
        case Package(elements):
            return [Unset() if item is None else _raw(item) for item in elements]
        case _:
            return Other(value.text)
