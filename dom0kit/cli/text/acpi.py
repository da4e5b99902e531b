# SPDX-License-Identifier: MIT
"""The ACPI part of the text report: the list of tables, and the namespace as a tree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from dom0kit.acpi.aml_values import Buffer, Integer, Opaque, Package, Reference, Result, String, Value
from dom0kit.acpi.namespace import AmlDevice, Evaluation, Namespace
from dom0kit.acpi.tables.table import Table
from dom0kit.cli.text.layout import Cell, Line, Section, columns, count, line
from dom0kit.finding import Finding


def tables(all_tables: Sequence[Table], findings: Sequence[Finding]) -> list[Line]:
    """One row a table: name, length, revision, makers, and what is wrong with it."""
    told = Counter(finding.where for finding in findings)
    rows: list[Sequence[Cell]] = []
    for table in all_tables:
        head, told_of = table.header, told[f"table:{table.name}"]
        rows.append(
            (
                (table.name, "bold"),
                "" if head is None else str(head.length),
                "" if head is None else f"rev {head.revision}",
                "" if head is None else head.oem_id.strip("\0 "),
                "" if head is None else head.oem_table_id.strip("\0 "),
                "" if head is None else head.creator_id.strip("\0 "),
                "dynamic" if table.dynamic else "",
                (count(told_of, "finding") if told_of else "", "yellow"),
            )
        )
    return columns(rows, right=[1])


def namespace(all_objects: Namespace) -> list[Line]:
    """Every object under its parent, devices with what they say of themselves."""
    devices = {device.path: device for device in all_objects.devices}
    results = {result.path: result for device in all_objects.devices for result in device.evaluations}
    root: list[Line] = []
    above: dict[str, list[Line]] = {"\\": root}
    for each in all_objects.objects:
        if each.path == "\\":
            continue
        holder, name = _split(each.path)
        children: list[Line] = []
        above.setdefault(each.path, children)
        cells: list[Cell] = [(name, "bold"), (f"  {each.type}", "dim")]
        said = _device(devices[each.path]) if each.path in devices else each.detail
        if said:
            cells.append(f"  {said}")
        if each.path in results:
            cells.append((_result(results[each.path]), "yellow"))
        above.get(holder, root).append(Line(cells, above[each.path]))
    return root


def _split(path: str) -> tuple[str, str]:
    head, dot, name = path.rpartition(".")
    return (head, name) if dot else ("\\", path.removeprefix("\\"))


def _device(device: AmlDevice) -> str:
    parts = [
        device.hid or "",
        *(f"({cid})" for cid in device.cids),
        f"_UID {device.uid}" if device.uid is not None else "",
        f"_ADR {device.adr:#x}" if device.adr is not None else "",
        f"_PRT {count(len(device.prt), 'entry', 'entries')}" if device.prt is not None else "",
        "" if device.present else f"absent (_STA {device.sta:#x})",
    ]
    return " ".join(filter(None, parts))


def _result(result: Evaluation) -> str:
    if not result.ok:
        return f"  {result.status}"
    if result.mixed:
        return "  depends on which function is asked"
    return "  depends on " + ", ".join(map(str, result.depends)) if result.depends else ""


def evaluation(result: Result) -> tuple[list[Line], list[Section]]:
    """What an object evaluated to, what it touched and said on the way."""
    said = result.evaluation
    title = [line((said.path, "bold"), f": {said.status}", (_result(said) if said.ok else "", "yellow"))]
    sections = []
    if result.value is not None:
        sections.append(Section("value", [_value(result.value)]))
    for name, texts in (
        ("hardware touched", result.accesses),
        ("messages", result.messages),
        ("findings", [f"{finding.severity.value}: {finding.message} ({finding.rule})" for finding in result.findings]),
    ):
        if texts:
            sections.append(Section(name, [line(text) for text in texts]))
    return title, sections


def _value(value: Value | None) -> Line:
    match value:
        case None:
            return line("nothing")
        case Integer(value=number):
            return line(f"{number:#x} ({number})")
        case String(value=text):
            return line(f'"{text}"')
        case Buffer(value=data):
            rows = [(f"{at // 2:04x}", " ".join(_pairs(data[at : at + 32]))) for at in range(0, len(data), 32)]
            return line(f"buffer of {count(len(data) // 2, 'byte')}", children=columns(rows))
        case Reference(path=path):
            return line(path)
        case Package(elements=elements):
            title = f"package of {count(len(elements), 'element')}"
            return line(title, children=[_value(element) for element in elements])
        case Opaque(text=text):
            return line(text)


def _pairs(digits: str) -> list[str]:
    return [digits[at : at + 2] for at in range(0, len(digits), 2)]
