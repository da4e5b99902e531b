# SPDX-License-Identifier: MIT
"""AML of recorded machines: every one gives a namespace, every _PRT entry a GSI or a reason, and windows are Linux's.

A sample of the corpus by default; all of it (some four minutes) with DOM0KIT_WHOLE_CORPUS=1.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable

import pytest

from dom0kit.acpi.aml import interpret
from dom0kit.acpi.namespace import Evaluation, Namespace, root_bus
from dom0kit.acpi.resources import AddressRange, RangeKind, Resource, build_resources, decode_resources
from dom0kit.acpi.routing import resolve
from dom0kit.finding import Finding, Severity
from dom0kit.serial import decode, encode
from tests.acpi import recorded
from tests.acpi.asl import needs_acpica
from tests.corpus import CORPUS, acpi_folders, combined, logs, needs_corpus

pytestmark = [needs_corpus, needs_acpica, pytest.mark.slow]

WHOLE = bool(os.environ.get("DOM0KIT_WHOLE_CORPUS"))
TABLES_ONLY = 50
"""Machines without config space in the sample."""


def machines() -> list[str]:
    """All, or those with config space and every n-th of the others."""
    both = combined()
    others = [path.name for path in acpi_folders() if path.name not in both and (path / "DSDT.dat").is_file()]
    if WHOLE:
        return sorted(path.name for path in acpi_folders())
    return sorted(both + others[:: -(-len(others) // TABLES_ONLY)])


def seen(machine: str) -> Namespace:
    return interpret(recorded.tables(machine), recorded.config(machine))


def test_every_machine_gives_a_namespace_and_every_route_a_reason(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    routes: Counter[str] = Counter()
    rules: Counter[str] = Counter()
    statuses: Counter[str] = Counter()
    rebuilt: Counter[bool] = Counter()

    def decode_and_build(data: bytes, where: str) -> tuple[tuple[Resource, ...], tuple[Finding, ...]]:
        resources, findings = decode_resources(data, where)
        rebuilt[data.startswith(build_resources(resources))] += 1
        return resources, findings

    monkeypatch.setattr("dom0kit.acpi.aml_answers.decode_resources", decode_and_build)
    names = machines()
    for machine in names:
        namespace = seen(machine)
        assert decode(encode(namespace), Namespace) == namespace
        if (CORPUS / "acpi" / machine / "DSDT.dat").is_file():
            assert namespace.devices, machine
        problems = [finding for finding in namespace.findings if finding.severity is not Severity.INFO]
        assert len(problems) <= 10, (machine, problems)
        rules.update({finding.rule for finding in namespace.findings})
        for device in namespace.devices:
            statuses.update(evaluation.status for evaluation in device.evaluations)
            for entry in device.prt or ():
                route = resolve(entry, namespace)
                assert (route.gsi is None) is (route.reason is not None)
                assert route.steps
                routes["a GSI" if route.reason is None else route.reason.value] += 1
    with capsys.disabled():
        print(f"\n{len(names)} machines: {', '.join(names) if not WHOLE else 'the whole corpus'}")
        for title, counter in (("_PRT entries", routes), ("machines with a finding", rules), ("evaluations", statuses)):
            print(f"{sum(counter.values())} {title}:")
            for what, count in counter.most_common():
                print(f"{count:8} {what}")
        print(f"{rebuilt[True]} resource buffers of {rebuilt.total()} are built back to the same bytes")
    assert rebuilt[True] >= 0.99 * rebuilt.total()
    assert "aml.interpreter-stopped" not in rules
    assert statuses["AE_OK"] > 0.999 * sum(statuses.values())
    assert routes["a GSI"] > 5000


@pytest.mark.parametrize(
    ("machine", "gsis"),
    [
        # nForce boards use links in APIC mode too: their registers lie in the LPC bridge's config space.
        ("mac-macbook5-1", 14),
        ("mac-macbookpro5-4", 22),
    ],
)
def test_links_of_machines_with_config_space_are_resolved(machine: str, gsis: int) -> None:
    namespace = seen(machine)
    routes = [resolve(entry, namespace) for device in namespace.devices for entry in device.prt or ()]
    assert [route.reason for route in routes] == [None] * gsis
    linked = [route for route in routes if route.link is not None]
    assert linked
    assert all(16 <= (route.gsi or 0) < 24 for route in linked)


def test_devices_with_long_paths_are_seen() -> None:
    # An independent count of the packages that bare acpiexec prints for the _PRT of this machine.
    namespace = seen("supermicro-x7db8-22c25e")
    assert sum(len(device.prt or ()) for device in namespace.devices) == 70


def test_a_breakpoint_in_a_method_loses_nothing() -> None:
    namespace = seen("combo-dell-inspiron-620")
    root = namespace.device("\\_SB.PCI0")
    assert root is not None
    assert root.crs is not None
    assert sum(isinstance(item, AddressRange) for item in root.crs) > 5


# --- root bus windows ---------------------------------------------------------------------------------------------

_WINDOW = re.compile(
    r"pci_bus ([0-9a-f]{4,}):([0-9a-f]{2}): root bus resource "
    r"\[(io|mem|bus) +(?:0x)?([0-9a-f]+)(?:-(?:0x)?([0-9a-f]+))?"
)
_KINDS = {"io": RangeKind.IO, "mem": RangeKind.MEMORY, "bus": RangeKind.BUS}
Spans = list[tuple[int, int]]


def merged(spans: Iterable[tuple[int, int]]) -> Spans:
    """Neighbours joined: kernels from 5.16 on print them as one window, older ones one by one."""
    found: Spans = []
    for first, last in sorted(spans):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(last, found[-1][1]))
        else:
            found.append((first, last))
    return found


def cause(bus: tuple[int, int], known: set[tuple[int, int]], evaluation: Evaluation | None) -> str | None:
    if bus not in known:
        return "Linux found the bus without a root bridge in ACPI"
    if evaluation is not None and evaluation.depends:
        return "_CRS depends on hardware that was not recorded"
    return None


def test_root_bus_windows_are_the_ones_that_linux_printed(capsys: pytest.CaptureFixture[str]) -> None:
    same = 0
    differences: Counter[str] = Counter()
    lines: list[str] = []
    for log in logs("dmesg"):
        machine = log.stem
        if machine not in combined():
            continue
        namespace = seen(machine)
        printed: dict[tuple[int, int], dict[str, Spans]] = {}
        for found in _WINDOW.finditer(log.read_text(errors="replace")):
            segment, bus, kind, first, last = found.groups()
            spans = printed.setdefault((int(segment, 16), int(bus, 16)), {}).setdefault(kind, [])
            spans.append((int(first, 16), int(last or first, 16)))
        roots = [device for device in namespace.devices if device.is_root_bridge]
        for bus, windows in printed.items():
            # Several bridges may claim a bus (those of absent sockets all say 0xff): any of them may be the one.
            bridges = [device for device in roots if root_bus(device) == bus]
            for kind, spans in windows.items():
                decoded = [
                    merged(
                        (item.minimum, item.maximum)
                        for item in device.crs or ()
                        if isinstance(item, AddressRange) and item.kind is _KINDS[kind] and item.is_window
                    )
                    for device in bridges
                ]
                if merged(spans) in decoded:
                    same += 1
                    continue
                evaluation = bridges[0].evaluation("_CRS") if bridges else None
                why = cause(bus, {root_bus(device) for device in roots}, evaluation) or "unexplained"
                differences[why] += 1
                lines.append(f"{machine} {bus[0]:04x}:{bus[1]:02x} {kind}: {why}")
    with capsys.disabled():
        print(f"\nroot bus windows: {same} sets are the same, {sum(differences.values())} differ")
        print("\n".join(lines))
    assert same >= 17
    assert differences["unexplained"] <= 0.01 * (same + sum(differences.values()))


def test_config_space_makes_windows_right() -> None:
    """The causes above, the other way round: without config space these windows are wrong, with it they are Linux's."""
    machine = "combo-samsung-r730-spratay"
    expected = [(0xA0000, 0xBFFFF), (0xD0000, 0xDBFFF), (0xD8000000, 0xFEAFFFFF)]

    def windows(namespace: Namespace) -> Spans:
        root = namespace.device("\\_SB.PCI0")
        assert root is not None
        found = (item for item in root.crs or () if isinstance(item, AddressRange) and item.is_window)
        return merged((item.minimum, item.maximum) for item in found if item.kind is RangeKind.MEMORY)

    assert windows(seen(machine)) == expected
    assert windows(interpret(recorded.tables(machine), {})) != expected
